package push

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/xmpp-push/push/internal/enum"
	"github.com/xmpp-push/push/internal/stanzaxml"
	"mellium.im/xmpp/jid"
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
	// A stanza without an ID cannot be recognised again and is notified for each event.
	ID string
	// From and To are the addresses in prepared form, those of the forwarded message where the stanza is a carbon copy that comes from the
	// account itself. An absent To means the sender's own account.
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

// ReadStanza makes a Stanza from a token reader that is positioned before the stanza's start element, such as an *xml.Decoder or what a
// mellium handler is given. It reads to the matching end element and no further.
func ReadStanza(id string, r xml.TokenReader) (Stanza, error) {
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
			if size <= MaxStanzaBytes && out.wantsText() {
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

// maxBody bounds the text that is kept of a message: push payloads hold less.
const maxBody = 2048

// collector gathers what matters of a stanza from its elements, whoever parses them.
type collector struct {
	depth        int
	outer, inner judged
	// forwarded: the elements now open are those of the message inside a carbon copy.
	forwarded, isCarbon bool
	wrapper             Carbon // of the open <sent/> or <received/>
	in                  place
	// Of the open child element.
	payload, ranged bool // OMEMO's <payload/>; a fallback's range
	typ, id, uri    string
	sub             string // the name of the element open in it
	span            span
}

// judged is a message, the outer one or the one that a carbon copy forwards.
type judged struct {
	Features
	ns, from, to, id, body string
	bodyDone               bool
	noStore                bool
	archived               string // the ID that it has in the archive of its recipient
	// fallback: the body stands in for an element of the class table altogether. quotes are the parts of it that stand in for a reply's quotation.
	fallback bool
	quotes   [4]span
	nQuotes  int
	delayed  string // who delayed it, if it may be its room
	details  Details
	call     Call
	media    [2]string
	mention  Mention
	some     bool // details has something
}

// span is a part of a body, in code points.
type span struct{ start, end int }

// place is the open child element that gives its attributes, its children or its text a meaning.
type place uint8

const (
	nowhere place = iota
	inBody
	inOMEMO
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
	inConference
	inRoomUser
)

// Depths of a carbon copy: message 0, received 1, forwarded 2, message 3.
const innerDepth = 3

const (
	nsRetract   = "urn:xmpp:message-retract:1"
	nsRetract0  = "urn:xmpp:message-retract:0"
	nsModerate  = "urn:xmpp:message-moderate:1"
	nsModerate0 = "urn:xmpp:message-moderate:0"
	nsFasten    = "urn:xmpp:fasten:0"
	nsReactions = "urn:xmpp:reactions:0"
	nsCall      = "urn:xmpp:jingle-message:0"
	nsMarkers   = "urn:xmpp:chat-markers:0"
	nsReceipts  = "urn:xmpp:receipts"
	nsMDS       = "urn:xmpp:mds:displayed:0"
	nsSID       = "urn:xmpp:sid:0"
	nsReply     = "urn:xmpp:reply:0"
	nsSFS       = "urn:xmpp:sfs:0"
	nsSIMS      = "urn:xmpp:sims:1"
	nsMentions  = "urn:xmpp:mentions:0"
	nsReference = "urn:xmpp:reference:0"
	nsInvite    = "jabber:x:conference"
	nsRoomUser  = "http://jabber.org/protocol/muc#user"
	nsHints     = "urn:xmpp:hints"
	nsOMEMO     = "urn:xmpp:omemo:"
	nsOMEMO3    = "eu.siacs.conversations.axolotl"
	nsPGP       = "jabber:x:encrypted"
	nsOX        = "urn:xmpp:openpgp:0"
)

// standsIn tells whether the class table knows what a fallback body for a namespace stands in for (XEP-0428).
func standsIn(ns string) bool {
	switch ns {
	case nsRetract, nsRetract0, nsModerate, nsModerate0, nsFasten, nsReactions, nsCall, nsMarkers, nsReceipts, nsMDS, nsSFS, nsSIMS,
		nsInvite, nsRoomUser, nsOMEMO3, nsOMEMO + "0", nsOMEMO + "1", nsOMEMO + "2", nsPGP, nsOX:
		return true
	}
	return false
}

func (c *collector) current() (m *judged, depth int) {
	if c.forwarded {
		return &c.inner, innerDepth
	}
	return &c.outer, 0
}

// wantsAttrs says that the attributes of the element that was just started matter.
func (c *collector) wantsAttrs() bool {
	_, d := c.current()
	switch c.depth - d {
	case 1:
		return true
	case 2:
		return c.in >= inTarget
	case 3:
		return c.in == inCall || c.in == inDisplayed || c.in == inFallback
	}
	return false
}

// wantsText says that the text here, directly in the innermost open element, matters.
func (c *collector) wantsText() bool {
	_, d := c.current()
	return c.in == inBody && c.depth == d+2
}

func isStanzaNS(ns string) bool {
	return ns == "" || ns == "jabber:client" || ns == "jabber:server" || ns == "jabber:component:accept"
}

func (c *collector) start(space, local string) {
	m, md := c.current()
	d := c.depth
	c.depth++
	switch {
	case d == 0:
		m.ns = space
		m.Kind = kindOf(space, local)
	case c.outer.Kind != KindMessage:
	case d == md+1:
		c.child(m, space, local)
	case d == md+2 && c.in != nowhere && c.in != inCarbon:
		c.grandchild(m, space, local)
	case c.in == inCarbon && d == 2 && local == "forwarded" && space == "urn:xmpp:forward:0":
		c.in = inForwarded
	case c.in == inForwarded && d == innerDepth && !c.isCarbon && space != "" && kindOf(space, local) == KindMessage:
		c.isCarbon, c.forwarded, c.in = true, true, nowhere
		c.inner.ns = space
		c.inner.Carbon = c.wrapper
	}
}

func kindOf(space, local string) Kind {
	if isStanzaNS(space) {
		switch local {
		case "message":
			return KindMessage
		case "presence":
			return KindPresence
		case "iq":
			return KindIQ
		}
	}
	return KindNonza
}

// child takes the start of a child element of a message.
func (c *collector) child(m *judged, space, local string) {
	switch local {
	case "body":
		if space == m.ns {
			c.in = inBody
		}
	case "subject":
		if space == m.ns {
			m.Subject = true
		}
	case "encrypted":
		if space == nsOMEMO3 || space == nsOMEMO+"0" || space == nsOMEMO+"1" || space == nsOMEMO+"2" {
			c.in, c.payload = inOMEMO, false
		}
	case "openpgp":
		m.Encrypted = m.Encrypted || space == nsOX
	case "x":
		switch space {
		case nsPGP:
			m.Encrypted = true
		case nsInvite: // XEP-0249
			c.in = inConference
		case nsRoomUser: // XEP-0045 §7.8.2
			c.in = inRoomUser
		}
	case "sent", "received":
		if !c.forwarded && space == "urn:xmpp:carbons:2" {
			c.in, c.wrapper = inCarbon, CarbonReceived
			if local == "sent" {
				c.wrapper = CarbonSent
			}
		} else if space == nsReceipts {
			m.Receipt = true
		}
	case "propose", "retract", "reject", "finish", "accept", "proceed":
		switch {
		case space == nsCall: // XEP-0353
			c.in = inCall
			m.call = Call{Action: callActionOf(local)}
			m.media = [2]string{}
			m.Propose, m.CallEnd = local == "propose", local != "propose"
		case space == nsRetract && local == "retract": // XEP-0424
			c.in = inTarget
			m.Retraction = true
		}
	case "replace": // XEP-0308
		if space == "urn:xmpp:message-correct:0" {
			c.in = inTarget
			m.Correction = true
		}
	case "apply-to": // XEP-0422, as XEP-0424 and XEP-0425 used it before
		if space == nsFasten {
			c.in, c.id = inApplyTo, ""
		}
	case "reactions": // XEP-0444
		if space == nsReactions {
			c.in = inTarget
			m.Reaction = true
		}
	case "displayed":
		switch space {
		case nsMarkers: // XEP-0333
			m.Displayed = true
			if m.details.Target == "" {
				c.in = inTarget
			}
		case nsMDS: // XEP-0490 §3.1
			c.in = inDisplayed
			m.Displayed = true
		}
	case "file-sharing": // XEP-0447
		m.File = m.File || space == nsSFS
	case "reference": // XEP-0372, XEP-0385
		if space == nsReference {
			c.in, c.typ, c.uri = inReference, "", ""
		}
	case "mention": // XEP-0513
		if space == nsMentions {
			c.in, m.mention = inMention, Mention{}
		}
	case "reply": // XEP-0461
		if space == nsReply {
			c.in = inReply
		}
	case "fallback": // XEP-0428
		if space == "urn:xmpp:fallback:0" {
			c.in, c.uri, c.ranged = inFallback, "", false
		}
	case "delay": // XEP-0203
		if space == "urn:xmpp:delay" {
			c.in = inDelay
		}
	case "stanza-id": // XEP-0359
		if space == nsSID {
			c.in, c.id, c.uri = inStanzaID, "", ""
		}
	case "occupant-id": // XEP-0421
		if space == "urn:xmpp:occupant-id:0" {
			c.in = inOccupantID
		}
	case "no-store":
		m.noStore = m.noStore || space == nsHints
	case "result": // XEP-0313 §4.2
		m.Replay = m.Replay || space == "urn:xmpp:mam:2"
	}
}

// grandchild takes the start of an element in a child element that has a meaning.
func (c *collector) grandchild(m *judged, space, local string) {
	switch c.in {
	case inOMEMO:
		c.payload = c.payload || local == "payload"
	case inFallback:
		if local == "body" {
			c.span = span{0, -1}
		}
	case inApplyTo:
		if local == "retract" && space == nsRetract0 || local == "moderated" && space == nsModerate0 {
			m.Retraction, m.Moderation = true, local == "moderated"
			m.details.Target, m.some = c.id, true
		}
	case inTarget:
		if m.Retraction && local == "moderated" && space == nsModerate { // XEP-0425
			m.Moderation = true
		}
	case inReference:
		m.File = m.File || local == "media-sharing" && space == nsSIMS
	case inMention:
		m.mention.Active = m.mention.Active || local == "active" && space == nsMentions
		m.mention.NoPing = m.mention.NoPing || local == "noping" && space == nsMentions
	case inRoomUser:
		if local == "invite" && space == nsRoomUser {
			m.Invitation = true
		}
	}
	c.sub = local
}

// attr takes an attribute without prefix of an element of which wantsAttrs.
func (c *collector) attr(name, value string) {
	m, md := c.current()
	switch c.depth - md {
	case 1:
		switch name {
		case "type":
			m.Type = value
		case "from":
			m.from = value
		case "to":
			m.to = value
		case "id":
			m.id = value
		}
	case 2:
		c.childAttr(m, name, value)
	case 3:
		switch {
		case c.in == inCall && c.sub == "description" && name == "media":
			for i := range m.media {
				if m.media[i] == "" || m.media[i] == value {
					m.media[i] = value
					break
				}
			}
		case c.in == inDisplayed && c.sub == "stanza-id" && name == "id":
			m.details.Target, m.some = value, true
		case c.in == inFallback && c.sub == "body" && name == "start":
			c.span.start, c.ranged = number(value), true
		case c.in == inFallback && c.sub == "body" && name == "end":
			c.span.end, c.ranged = number(value), true
		}
	}
}

func (c *collector) childAttr(m *judged, name, value string) {
	d := &m.details
	switch c.in {
	case inTarget:
		if name == "id" {
			d.Target, m.some = value, true
		}
	case inApplyTo:
		if name == "id" {
			c.id = value
		}
	case inCall:
		if name == "id" {
			m.call.ID = value
		}
	case inDelay:
		if name == "from" && m.Type == "groupchat" && (m.delayed == "" || bare(value) == bare(m.from)) {
			m.delayed = value
		}
	case inFallback:
		if name == "for" {
			c.uri = value
		}
	case inReference:
		switch name {
		case "type":
			c.typ = value
		case "uri":
			c.uri = value
		}
	case inMention:
		switch name {
		case "jid":
			m.mention.JID = value
		case "occupantid":
			m.mention.OccupantID = value
		case "uri":
			m.mention.URI = value
		case "mentions":
			m.mention.Channel = value == nsMentions+"#channel"
		}
	case inReply:
		switch name {
		case "to":
			d.Reply.To, m.some = value, true
		case "id":
			d.Reply.ID, m.some = value, true
		}
	case inStanzaID:
		switch name {
		case "id":
			c.id = value
		case "by":
			c.uri = value
		}
	case inOccupantID:
		if name == "id" {
			d.OccupantID, m.some = value, true
		}
	case inConference:
		if name == "jid" {
			d.Room, m.some = value, true
			m.Invitation = true
		}
	}
}

// number reads a position in a body, or returns -1.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// text takes text of which wantsText.
func (c *collector) text(s string) {
	m, _ := c.current()
	if s == "" {
		return
	}
	m.Body = true
	if m.bodyDone {
		return // a second body, in another language
	}
	if room := maxBody - len(m.body); len(s) > room {
		for room > 0 && !utf8.RuneStart(s[room]) {
			room--
		}
		s = s[:room]
		m.bodyDone = true
	}
	m.body += s
}

func (c *collector) end() {
	c.depth--
	m, md := c.current()
	switch {
	case c.forwarded && c.depth == innerDepth:
		c.forwarded, c.in = false, nowhere
	case c.depth == md+1:
		c.endChild(m)
		c.in = nowhere
	case c.in == inForwarded && c.depth == 2:
		c.in = inCarbon
	}
}

// endChild takes the end of a child element.
func (c *collector) endChild(m *judged) {
	d := &m.details
	switch c.in {
	case inOMEMO:
		m.Encrypted = m.Encrypted || c.payload
		m.KeyTransport = m.KeyTransport || !c.payload
	case inBody:
		m.bodyDone = m.bodyDone || m.body != ""
	case inFallback:
		switch {
		case !c.ranged:
			m.fallback = m.fallback || standsIn(c.uri)
		case c.uri == nsReply && m.nQuotes < len(m.quotes):
			m.quotes[m.nQuotes] = c.span
			m.nQuotes++
		}
	case inReference:
		if c.typ == "mention" {
			m.mentioned(Mention{URI: c.uri, Reference: true})
		}
	case inMention:
		m.mentioned(m.mention)
	case inStanzaID:
		if m.Type == "groupchat" && c.uri == bare(m.from) { // else somebody else's, or made up (XEP-0359 §5)
			d.RoomID, m.some = c.id, true
		}
		if c.uri != "" && c.uri == bare(m.to) {
			m.archived = c.id
		}
	}
}

func (m *judged) mentioned(n Mention) {
	if len(m.details.Mentions) < maxMentions && n != (Mention{}) {
		m.details.Mentions = append(m.details.Mentions, n)
		m.some = true
	}
}

// stanza makes the Stanza when all has been read.
func (c *collector) stanza(id string) (Stanza, error) {
	m := &c.outer
	m.Features.Body = m.Features.Body && !m.fallback
	content := m.Features.Content()
	class := content.Class()
	if c.isCarbon {
		n := &c.inner
		n.Features.Body = n.Features.Body && !n.fallback
		class = Classify(n.Features)
		if c.outer.from == "" || c.outer.to == "" || bare(c.outer.from) == bare(c.outer.to) {
			m, content = n, n.Features.Content()
		} else { // a stranger wraps what he made up (XEP-0280 §11): the sender shown is he, and it means nothing
			content = ContentNone
		}
	}
	from, err := prepared(m.from)
	if err != nil {
		return Stanza{}, fmt.Errorf("%w: from: %w", ErrStanza, err)
	}
	to, err := prepared(m.to)
	if err != nil {
		return Stanza{}, fmt.Errorf("%w: to: %w", ErrStanza, err)
	}
	st := Stanza{
		ID:        id,
		From:      from,
		To:        to,
		Body:      strings.Clone(m.text()),
		MessageID: kept(m.id),
		Class:     class,
		Kind:      c.outer.Kind,
		Content:   content,
		Archived:  id != "" && m.archived == id,
	}
	if st.Kind != KindMessage {
		return st, nil
	}
	st.Type = messageTypeOf(m.Type)
	st.NoStore = m.noStore && st.Type != MessageError // XEP-0334 §4: hints in errors mean nothing
	st.History = m.Replay || m.delayed != "" && bare(m.delayed) == bare(m.from)
	st.Details = m.detailed(content)
	return st, nil
}

// text returns the body without what stands in for a reply's quotation.
func (m *judged) text() string {
	if m.nQuotes == 0 || m.body == "" {
		return m.body
	}
	var b strings.Builder
	n := 0
	for _, r := range m.body {
		quoted := false
		for _, q := range m.quotes[:m.nQuotes] {
			quoted = quoted || q.start >= 0 && n >= q.start && n < q.end
		}
		if !quoted {
			b.WriteRune(r)
		}
		n++
	}
	return b.String()
}

// detailed returns the details, if there are any.
func (m *judged) detailed(content Content) *Details {
	call := content == ContentCall || content == ContentCallEnd
	if content == ContentError || !m.some && !call {
		return nil
	}
	d := &Details{
		Target: kept(m.details.Target), RoomID: kept(m.details.RoomID), OccupantID: kept(m.details.OccupantID),
		Reply: ReplyTo{kept(m.details.Reply.To), kept(m.details.Reply.ID)},
	}
	if content == ContentInvitation {
		d.Room, _ = prepared(m.details.Room)
	}
	for _, n := range m.details.Mentions {
		n.URI, n.JID, n.OccupantID = kept(n.URI), kept(n.JID), kept(n.OccupantID)
		if n.URI != "" || n.JID != "" || n.OccupantID != "" || n.Channel {
			d.Mentions = append(d.Mentions, n)
		}
	}
	if call {
		d.Call = &Call{ID: kept(m.call.ID), Action: m.call.Action}
		for _, name := range m.media {
			if name != "" && len(name) <= 32 {
				d.Call.Media = append(d.Call.Media, strings.Clone(name))
			}
		}
	}
	if d.empty() {
		return nil
	}
	return d
}

// maxID bounds what is kept of identifiers and addresses in a stanza; longer ones are left out, since a part of them would be another one.
const maxID = 256

// maxMentions bounds the mentions that are kept.
const maxMentions = 32

func kept(s string) string {
	if len(s) > maxID {
		return ""
	}
	return strings.Clone(s)
}

// prepared returns a JID in its prepared form, a copy. Plain lower-case ASCII is in that form already.
func prepared(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if isPrepared(s) {
		return strings.Clone(s), nil
	}
	j, err := jid.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%q is not a JID: %w", cut(s, 100), err)
	}
	return j.String(), nil
}

// isPrepared reports whether s is surely a JID that preparation leaves alone.
func isPrepared(s string) bool {
	bareEnd := strings.IndexByte(s, '/')
	if bareEnd < 0 {
		bareEnd = len(s)
	} else if bareEnd == len(s)-1 {
		return false
	}
	local, domain := "", s[:bareEnd]
	if i := strings.IndexByte(domain, '@'); i >= 0 {
		local, domain = domain[:i], domain[i+1:]
		if local == "" {
			return false
		}
	}
	if domain == "" || len(s) > 1023 || domain[0] == '.' || domain[0] == '-' || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") {
		return false
	}
	for i := range len(local) {
		if b := local[i]; !('a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '.' || b == '-' || b == '_' || b == '+') {
			return false
		}
	}
	for i := range len(domain) {
		if b := domain[i]; !('a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '.' || b == '-') {
			return false
		}
	}
	if strings.Contains(domain, "--") || strings.Contains(domain, "-.") || strings.Contains(domain, ".-") || strings.HasSuffix(domain, "-") {
		return false
	}
	for i := bareEnd; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// bare returns a JID without its resource.
func bare(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i]
	}
	return s
}

// resource returns the resource of a JID, or nothing.
func resource(s string) string {
	_, r, _ := strings.Cut(s, "/")
	return r
}

// cut shortens s for an error message.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
