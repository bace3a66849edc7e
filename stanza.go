package push

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"mellium.im/xmpp/jid"
)

// Limits on a stanza's XML. What is larger is refused with [ErrStanza]: no server passes on such stanzas, and a parser that
// reads what strangers send has to stop somewhere.
const (
	// MaxStanzaBytes bounds the size of a stanza's XML.
	MaxStanzaBytes = 1 << 20
	// MaxStanzaDepth bounds how deep its elements nest.
	MaxStanzaDepth = 64
)

// ErrStanza is wrapped by every error about a stanza's XML: it is not well-formed, uses what XMPP forbids (RFC 6120 §11.1), or is
// over a limit.
var ErrStanza = errors.New("push: unusable stanza")

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
	// Class is how much the user wants to know. See [Classify].
	Class Class
	Kind  Kind
	// Held says that client state indication (XEP-0352) holds the stanza back for now: it notifies nobody (rule R13).
	Held bool
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
func (k Kind) String() string { return token("kind", kinds, k) }

// MarshalText gives the token.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (k *Kind) UnmarshalText(text []byte) error { return fromToken("kind", kinds, k, text) }

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
func (c Class) String() string { return token("class", classes, c) }

// MarshalText gives the token.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (c *Class) UnmarshalText(text []byte) error { return fromToken("class", classes, c, text) }

// Carbon says whether a message is a carbon copy (XEP-0280).
type Carbon uint8

const (
	CarbonNone Carbon = iota
	CarbonReceived
	CarbonSent
)

// Features is what a stanza's class depends on. Hosts that have parsed a stanza already fill it themselves; of a carbon copy it
// describes the message inside.
type Features struct {
	Kind   Kind
	Carbon Carbon
	// Type is the type attribute: "chat", "groupchat", "headline" …
	Type string
	// Propose: a <propose/> of urn:xmpp:jingle-message:0 (XEP-0353).
	Propose bool
	// Encrypted: OMEMO with a <payload/> (any of eu.siacs.conversations.axolotl, urn:xmpp:omemo:0, :1, :2), <x/> of jabber:x:encrypted
	// (XEP-0027), or <openpgp/> of urn:xmpp:openpgp:0 (XEP-0373).
	Encrypted bool
	// KeyTransport: an OMEMO element without a <payload/>.
	KeyTransport bool
	// Subject: there is a <subject/>.
	Subject bool
	// Body: there is a <body/> that is not empty.
	Body bool
}

// Classify is the class table: the first line that matches decides.
func Classify(f Features) Class {
	switch {
	case f.Kind != KindMessage:
		return ClassPlain
	case f.Carbon == CarbonSent: // the user wrote it, on another device
		return ClassPlain
	case f.Type == "headline":
		return ClassPlain
	case f.Propose:
		return ClassUrgent
	case f.Encrypted:
		return ClassImportant
	case f.KeyTransport: // OMEMO housekeeping, nothing to read
		return ClassPlain
	case f.Type == "groupchat" && f.Subject:
		return ClassPlain
	case f.Body:
		return ClassImportant
	}
	return ClassPlain
}

// ParseStanza makes a Stanza from its XML, which must be one element. It keeps no reference to data. It accepts the XML that XMPP allows
// (RFC 6120 §11): no comments, processing instructions, document types, or entities other than the predefined ones.
func ParseStanza(id string, data []byte) (Stanza, error) {
	if len(data) > MaxStanzaBytes {
		return Stanza{}, fmt.Errorf("%w: %d bytes, more than %d", ErrStanza, len(data), MaxStanzaBytes)
	}
	s := scanner{src: string(data)}
	if err := s.run(); err != nil {
		return Stanza{}, fmt.Errorf("%w: at byte %d: %w", ErrStanza, s.pos, err)
	}
	return s.out.stanza(id)
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

// collector gathers the features of a stanza from its elements, whoever parses them.
type collector struct {
	depth        int
	outer, inner judged
	// forwarded: the elements now open are those of the message inside a carbon copy.
	forwarded, isCarbon bool
	wrapper             Carbon // of the open <sent/> or <received/>
	in                  place
	payload             bool
}

// judged is a message, the outer one or the one that a carbon copy forwards.
type judged struct {
	Features
	ns, from, to, body string
	bodyDone           bool
}

// place is the open element that gives its children or its text a meaning.
type place uint8

const (
	nowhere place = iota
	inBody
	inOMEMO
	inCarbon
	inForwarded
)

// Depths of a carbon copy: message 0, received 1, forwarded 2, message 3.
const innerDepth = 3

func (c *collector) current() (m *judged, depth int) {
	if c.forwarded {
		return &c.inner, innerDepth
	}
	return &c.outer, 0
}

// wantsAttrs says that the attributes of the element that was just started matter.
func (c *collector) wantsAttrs() bool {
	_, d := c.current()
	return c.depth == d+1
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
	case c.in == inOMEMO && d == md+2 && local == "payload":
		c.payload = true
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

func (c *collector) child(m *judged, space, local string) {
	switch {
	case local == "body" && space == m.ns:
		c.in = inBody
	case local == "subject" && space == m.ns:
		m.Subject = true
	case local == "propose" && space == "urn:xmpp:jingle-message:0":
		m.Propose = true
	case local == "encrypted" && (space == "eu.siacs.conversations.axolotl" ||
		space == "urn:xmpp:omemo:0" || space == "urn:xmpp:omemo:1" || space == "urn:xmpp:omemo:2"):
		c.in, c.payload = inOMEMO, false
	case local == "x" && space == "jabber:x:encrypted", local == "openpgp" && space == "urn:xmpp:openpgp:0":
		m.Encrypted = true
	case !c.forwarded && space == "urn:xmpp:carbons:2" && (local == "sent" || local == "received"):
		c.in, c.wrapper = inCarbon, CarbonReceived
		if local == "sent" {
			c.wrapper = CarbonSent
		}
	}
}

// attr takes an attribute without prefix of an element of which wantsAttrs.
func (c *collector) attr(name, value string) {
	m, _ := c.current()
	switch name {
	case "type":
		m.Type = value
	case "from":
		m.from = value
	case "to":
		m.to = value
	}
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
		switch c.in {
		case inOMEMO:
			m.Encrypted = m.Encrypted || c.payload
			m.KeyTransport = m.KeyTransport || !c.payload
		case inBody:
			m.bodyDone = m.bodyDone || m.body != ""
		}
		c.in = nowhere
	case c.in == inForwarded && c.depth == 2:
		c.in = inCarbon
	}
}

// stanza makes the Stanza when all has been read.
func (c *collector) stanza(id string) (Stanza, error) {
	m := &c.outer
	class := Classify(m.Features)
	if c.isCarbon {
		class = Classify(c.inner.Features)
		if c.outer.from == "" || c.outer.to == "" || bare(c.outer.from) == bare(c.outer.to) {
			m = &c.inner
		} // else a stranger wraps what he made up (XEP-0280 §11): the sender shown is he
	}
	from, err := prepared(m.from)
	if err != nil {
		return Stanza{}, fmt.Errorf("%w: from: %w", ErrStanza, err)
	}
	to, err := prepared(m.to)
	if err != nil {
		return Stanza{}, fmt.Errorf("%w: to: %w", ErrStanza, err)
	}
	return Stanza{
		ID:    id,
		From:  from,
		To:    to,
		Body:  strings.Clone(m.body),
		Class: class,
		Kind:  c.outer.Kind,
	}, nil
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
