package push

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/xmpp-push/push/internal/enum"
	"github.com/xmpp-push/push/internal/stanzaxml"
)

// Limits on a stanza's XML. What is larger is refused with [ErrStanza]: no server passes on such stanzas, and a parser that
// reads what strangers send has to stop somewhere.
const (
	// MaxStanzaBytes bounds the size of a stanza's XML.
	MaxStanzaBytes = stanzaxml.MaxBytes
	// MaxStanzaDepth bounds how deep its elements nest.
	MaxStanzaDepth = stanzaxml.MaxDepth
)

// ErrStanza is wrapped by every error about a stanza's XML: it is not well-formed, uses what XMPP forbids (RFC 6120 §11.1), or is
// over a limit.
var ErrStanza = stanzaxml.ErrStanza

// Stanza is what the rules need to know of a stanza. It is made once, at the edge, with [ParseStanza] from bytes, with [ReadStanza]
// from a token reader, or from a host's own values and [Classify], and passed by value from then on.
type Stanza struct {
	// ID is the stanza's identity for the account: the same stanza has the same ID in every event, and no other stanza of the account
	// has it. The archive's stanza-id (XEP-0359) is the best choice where there is an archive. Never notifying twice rests on it.
	// A carbon copy (XEP-0280) has the ID of the message that it carries.
	// A stanza without an ID cannot be recognised again and is notified for each event.
	ID string
	// From and To are the addresses in prepared form, those of the forwarded message where the stanza is a carbon copy that comes from the
	// account itself. An absent To means the sender's own account. What a client sends has no from as a rule: the host puts the client's full JID
	// there, by which replies, markers and activity are known as the user's.
	From, To string
	// Body is the text that may go into the summary form if the policy includes bodies. It is never logged.
	Body string
	// XML is the stanza itself, one element. It is needed only where a client may have it, encrypted for a key of its own (Push 2.0); a host that
	// does not offer that, or leaves it empty, has such clients told what the other fields say. It is never logged, recorded, or kept beyond the
	// notification.
	XML string
	// MessageID is the element's id attribute, by which corrections, retractions, markers and reactions name a message. Empty if there is
	// none or it is longer than 256 bytes.
	MessageID string
	// Class is how much the user wants to know. See [Classify].
	Class Class
	Kind  Kind
	// Type is a message's type.
	Type MessageType
	// Content is what the stanza is about. It goes with Class; see [Content.Class].
	Content Content
	// Held says that client state indication (XEP-0352) holds the stanza back for now: it notifies nobody (rule R13).
	Held bool
	// Archived: the account's archive has it, under ID. Of a stanza that ArchiveAdded names that goes without saying; Push 2.0 clients can ask to
	// be notified of such stanzas only. ParseStanza sets it if the stanza has ID as the
	// <stanza-id/> of its recipient's account (XEP-0359).
	Archived bool
	// NoStore: the sender wants it in no archive and no offline storage (<no-store/>, XEP-0334 §4.2), so that only a session can have it.
	NoStore bool
	// History: it is a copy of what was said before: a room's history (XEP-0203 delay by the room) or a query's result (XEP-0313).
	History bool
	// Details is what else the rules may need of it, or nil. It must not be changed any more; stanzas may share it.
	Details *Details
	// Info is what the host knows of the stanza's chat, if it says so with the event: then it is not asked. It must not be changed any more.
	Info *ChatInfo
}

// Kind is what a stanza is.
type Kind uint8

const (
	KindMessage Kind = iota
	KindPresence
	KindIQ
	// KindNonza is any other top-level element of a stream, such as an acknowledgement of XEP-0198.
	KindNonza
)

var kinds = []string{"message", "presence", "iq", "nonza"}

// String is the kind's token.
func (k Kind) String() string { return enum.Token("kind", kinds, k) }

// MarshalText gives the token.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (k *Kind) UnmarshalText(text []byte) error { return enum.Read("kind", kinds, k, text) }

// Class is how much a user wants to know about a stanza, and so how a device is woken for it.
type Class uint8

const (
	// ClassPlain is a silent wake-up: the client has something to fetch, the user need not see it.
	ClassPlain Class = iota
	// ClassImportant is what the user should see.
	ClassImportant
	// ClassUrgent cannot wait: an incoming call.
	ClassUrgent
)

var classes = []string{"plain", "important", "urgent"}

// String is the class's token.
func (c Class) String() string { return enum.Token("class", classes, c) }

// MarshalText gives the token.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (c *Class) UnmarshalText(text []byte) error { return enum.Read("class", classes, c, text) }

// Carbon says whether a message is a carbon copy (XEP-0280).
type Carbon uint8

const (
	CarbonNone Carbon = iota
	CarbonReceived
	CarbonSent
)

var carbons = []string{"none", "received", "sent"}

// String is the carbon's token.
func (c Carbon) String() string { return enum.Token("carbon", carbons, c) }

// MarshalText gives the token.
func (c Carbon) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (c *Carbon) UnmarshalText(text []byte) error { return enum.Read("carbon", carbons, c, text) }

// ParseStanza makes a Stanza from its XML, which must be one element. It keeps no reference to data. It accepts the XML that XMPP allows
// (RFC 6120 §11): no comments, processing instructions, document types, or entities other than the predefined ones.
func ParseStanza(id string, data []byte) (Stanza, error) {
	if len(data) > MaxStanzaBytes {
		return Stanza{}, fmt.Errorf("%w: %d bytes, more than %d", ErrStanza, len(data), MaxStanzaBytes)
	}
	var out collector
	s := stanzaxml.Scanner{Src: string(data)}
	for s.Next() {
		switch s.Kind {
		case stanzaxml.Start:
			out.start(s.Space, s.Local)
			if out.wantsAttrs() {
				for a := range s.Attrs {
					out.attr(a.Name, a.Value)
				}
			}
		case stanzaxml.Text:
			if out.wantsText() {
				out.text(s.Text())
			}
		case stanzaxml.End:
			out.end()
		}
	}
	if err := s.Err(); err != nil {
		return Stanza{}, err
	}
	return out.stanza(id)
}

// ReadStanza makes a Stanza from a token reader that is positioned before the stanza's start element, such as an *xml.Decoder. It reads to the
// matching end element and no further. Handlers of mellium.im/xmpp get the start element apart, and have to put it before the rest again; the
// example does, and keeps what is read for the host to route.
func ReadStanza(id string, r xml.TokenReader) (Stanza, error) {
	if r == nil {
		return Stanza{}, fmt.Errorf("%w: %w", ErrStanza, stanzaxml.ErrNoReader)
	}
	var out collector
	size, nothing := 0, 0
	for {
		tok, err := r.Token()
		if tok == nil && err == nil { // a reader may do that now and then
			if nothing++; nothing > 100 {
				return Stanza{}, fmt.Errorf("%w: %w", ErrStanza, io.ErrNoProgress)
			}
			continue
		}
		switch t := tok.(type) {
		case xml.StartElement:
			size += len(t.Name.Local) + len(t.Name.Space)
			for _, a := range t.Attr {
				size += len(a.Name.Local) + len(a.Value)
			}
			if out.depth >= MaxStanzaDepth {
				return Stanza{}, fmt.Errorf("%w: elements nest deeper than %d", ErrStanza, MaxStanzaDepth)
			}
			out.start(t.Name.Space, t.Name.Local)
			if out.wantsAttrs() {
				for _, a := range t.Attr {
					if a.Name.Space == "" {
						out.attr(a.Name.Local, a.Value)
					}
				}
			}
		case xml.EndElement:
			out.end()
			if out.depth == 0 {
				return out.stanza(id)
			}
		case xml.CharData:
			size += len(t)
			if out.wantsText() {
				out.text(string(t))
			}
		}
		if size > MaxStanzaBytes {
			return Stanza{}, fmt.Errorf("%w: more than %d bytes", ErrStanza, MaxStanzaBytes)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return Stanza{}, fmt.Errorf("%w: %w", ErrStanza, err)
		}
		if out.depth == 0 {
			if t, ok := tok.(xml.CharData); !ok || strings.TrimSpace(string(t)) != "" {
				return Stanza{}, fmt.Errorf("%w: it does not start with an element", ErrStanza)
			}
		}
	}
}

const (
	nowhere place = iota
	inBody
	inOMEMO
	inOOB
	inCarbon
	inForwarded
	// From here on attributes matter.
	inTarget
	inDisplayed
	inApplyTo
	inCall
	inDelay
	inFallback
	inReference
	inMention
	inReply
	inStanzaID
	inOccupantID
	inOriginID
	inEME
	inConference
	inRoomUser
)
