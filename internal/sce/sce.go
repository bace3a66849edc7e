// Package sce puts a stanza into the envelope of XEP-0420, as a forwarded one (XEP-0297), and makes it smaller step by step until that fits.
package sce

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// nsClient is the namespace that stanzas have in the envelope, whatever stream they came by.
const nsClient = "jabber:client"

var (
	// ErrTooLarge: not even what has to be left of the stanza fits.
	ErrTooLarge = errors.New("sce: the stanza is too large")
	// errStanza quotes nothing of the stanza.
	errStanza = errors.New("sce: not one well-formed element")
)

// element is a part of a stanza. Its text and its children are in kids, in their order.
type element struct {
	name  xml.Name
	attrs []xml.Attr
	kids  []kid
}

// kid is a child element, or text if that is nil.
type kid struct {
	*element
	text string
}

// Stanza is a stanza that is to be put into an envelope. Not safe for simultaneous use.
type Stanza struct {
	root *element
}

// maxDepth bounds how deep elements nest.
const maxDepth = 64

// Parse reads a stanza from its bytes. One without a namespace, or with that of another kind of stream, gets that of a client's.
func Parse(data []byte) (*Stanza, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	var open []*element
	var root *element
	for {
		tok, err := d.Token()
		if err == io.EOF && root != nil && len(open) == 0 {
			return &Stanza{root}, nil
		}
		if err != nil {
			return nil, errStanza
		}
		switch t := tok.(type) {
		case xml.StartElement:
			e := &element{name: xml.Name{Space: streamless(t.Name.Space), Local: t.Name.Local}}
			for _, a := range t.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" { // they are written anew
					e.attrs = append(e.attrs, a)
				}
			}
			switch {
			case len(open) >= maxDepth, root != nil && len(open) == 0, !e.wellNamed():
				return nil, errStanza
			case root == nil:
				root = e
			default:
				in := open[len(open)-1]
				in.kids = append(in.kids, kid{element: e})
			}
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				in := open[len(open)-1]
				in.kids = append(in.kids, kid{text: string(t)})
			} else if len(bytes.TrimSpace(t)) > 0 {
				return nil, errStanza
			}
		default:
			return nil, errStanza
		}
	}
}

// wellNamed tells whether the element can be written with other prefixes, which the decoder does not make sure of.
func (e *element) wellNamed() bool {
	if !isName(e.name.Local) {
		return false
	}
	for i, a := range e.attrs {
		if !isName(a.Name.Local) {
			return false
		}
		for _, b := range e.attrs[:i] {
			if a.Name == b.Name {
				return false
			}
		}
	}
	return true
}

// isName tells whether s begins as a name without a prefix does; what follows the decoder has looked at.
func isName(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return (r == '_' || unicode.IsLetter(r)) && !strings.ContainsRune(s, ':')
}

// streamless maps the namespaces of streams to the client's.
func streamless(ns string) string {
	switch ns {
	case "", "jabber:server", "jabber:component:accept":
		return nsClient
	}
	return ns
}

// Message makes a stanza of what is known of a message whose bytes are not. Empty values are left out.
func Message(from, to, typ, id, body string) *Stanza {
	e := &element{name: xml.Name{Space: nsClient, Local: "message"}}
	for _, a := range [][2]string{{"from", from}, {"to", to}, {"type", typ}, {"id", id}} {
		if a[1] != "" {
			e.attrs = append(e.attrs, xml.Attr{Name: xml.Name{Local: a[0]}, Value: a[1]})
		}
	}
	if body != "" {
		e.kids = []kid{{element: &element{name: xml.Name{Space: nsClient, Local: "body"}, kids: []kid{{text: body}}}}}
	}
	return &Stanza{e}
}

const nsStanzaID = "urn:xmpp:sid:0"

// Identify makes sure that the stanza says which ID it has in the archive of by (XEP-0359), and that it says no other.
func (s *Stanza) Identify(by, id string) {
	s.keep(func(e *element) bool { return !isStanzaID(e) || e.attr("by") != by })
	s.root.kids = append(s.root.kids, kid{element: &element{
		name:  xml.Name{Space: nsStanzaID, Local: "stanza-id"},
		attrs: []xml.Attr{{Name: xml.Name{Local: "by"}, Value: by}, {Name: xml.Name{Local: "id"}, Value: id}},
	}})
}

func isStanzaID(e *element) bool { return e.name == xml.Name{Space: nsStanzaID, Local: "stanza-id"} }

func (e *element) attr(name string) string {
	for _, a := range e.attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// keep drops the children that keep does not want, and the text between them.
func (s *Stanza) keep(keep func(*element) bool) {
	kept := make([]kid, 0, len(s.root.kids))
	for _, k := range s.root.kids {
		if k.element != nil && keep(k.element) {
			kept = append(kept, k)
		}
	}
	s.root.kids = kept
}

// Envelope returns the stanza in an envelope of at most limit bytes. If it is larger, it loses, one after another: what a notification has no
// use for; its body's quotations and all of the body but the beginning; all that does not say what it is; the body. What it says of its archive
// (XEP-0359) stays in any case. Where there is room the envelope is padded by a random length, so that its size says less.
func (s *Stanza) Envelope(limit int) ([]byte, error) {
	for _, smaller := range []func(){
		func() {},
		func() { s.keep(useful) },
		s.shorten,
		func() { s.keep(essential) },
		func() { s.keep(isStanzaID) },
		func() { s.root.attrs = only(s.root.attrs, "from", "to", "type", "id") },
	} {
		smaller()
		if b := s.append(nil); len(b)+len(head)+len(foot) <= limit {
			return seal(b, limit)
		}
	}
	return nil, ErrTooLarge
}

const (
	head = `<envelope xmlns="urn:xmpp:sce:1"><content><forwarded xmlns="urn:xmpp:forward:0">`
	foot = `</forwarded></content></envelope>`
	pads = `<rpad></rpad>`
	// maxPad is how many characters of padding there are at most (XEP-0420 §5.2.1).
	maxPad = 200
)

func seal(stanza []byte, limit int) ([]byte, error) {
	end := strings.Index(foot, "</envelope>")
	b := make([]byte, 0, len(head)+len(stanza)+len(foot)+len(pads)+maxPad)
	b = append(append(append(b, head...), stanza...), foot[:end]...)
	if room := min(maxPad, limit-len(head)-len(stanza)-len(foot)-len(pads)); room > 0 {
		var noise [1 + maxPad*3/4 + 1]byte
		if _, err := rand.Read(noise[:]); err != nil {
			return nil, err
		}
		text := base64.RawStdEncoding.EncodeToString(noise[1:])
		b = append(append(append(b, `<rpad>`...), text[:int(noise[0])*room/255]...), `</rpad>`...)
	}
	return append(b, foot[end:]...), nil
}

// useful tells whether a child says something that a notification can show: text, an address of a file, an encrypted payload, a call, an
// invitation, or what the message is called in the archive.
func useful(e *element) bool {
	switch e.name.Space {
	case nsClient, "jabber:x:oob", "eu.siacs.conversations.axolotl", "urn:xmpp:omemo:0", "urn:xmpp:omemo:1", "urn:xmpp:omemo:2",
		"jabber:x:encrypted", "urn:xmpp:openpgp:0", "urn:xmpp:sce:1":
		return true
	}
	return essential(e)
}

// essential tells whether a child says what the stanza is, or its body.
func essential(e *element) bool {
	switch e.name.Space {
	case nsClient:
		return e.name.Local == "body"
	case nsStanzaID:
		return e.name.Local == "stanza-id"
	case "urn:xmpp:jingle-message:0", "jabber:x:conference":
		return true
	case "http://jabber.org/protocol/muc#user":
		for _, k := range e.kids {
			if k.element != nil && k.name.Local == "invite" {
				return true
			}
		}
	}
	return false
}

// maxShort is how many characters are left of a body that is shortened.
const maxShort = 50

// shorten drops quoted lines from the body and what is beyond its first characters. Bodies in other languages go.
func (s *Stanza) shorten() {
	first := true
	s.keep(func(e *element) bool {
		if e.name != (xml.Name{Space: nsClient, Local: "body"}) {
			return true
		}
		if !first {
			return false
		}
		first = false
		var text strings.Builder
		for _, k := range e.kids {
			text.WriteString(k.text)
		}
		e.kids = []kid{{text: short(text.String())}}
		return true
	})
}

func short(body string) string {
	if utf8.RuneCountInString(body) <= maxShort {
		return body
	}
	var lines []string
	for _, l := range strings.Split(body, "\n") {
		if !strings.HasPrefix(l, ">") {
			lines = append(lines, l)
		}
	}
	if own := strings.TrimSpace(strings.Join(lines, "\n")); own != "" {
		body = own
	}
	n := 0
	for i := range body {
		if n == maxShort {
			return body[:i] + "…"
		}
		n++
	}
	return body
}

func only(attrs []xml.Attr, names ...string) (kept []xml.Attr) {
	for _, a := range attrs {
		for _, n := range names {
			if a.Name.Space == "" && a.Name.Local == n {
				kept = append(kept, a)
			}
		}
	}
	return kept
}

// append appends the stanza's XML. Every element whose namespace is not its parent's declares it.
func (s *Stanza) append(b []byte) []byte { return s.root.append(b, "") }

const nsXML = "http://www.w3.org/XML/1998/namespace"

func (e *element) append(b []byte, space string) []byte {
	b = append(append(b, '<'), e.name.Local...)
	if e.name.Space != space {
		b = append(append(append(b, ` xmlns="`...), escaped(e.name.Space)...), '"')
	}
	prefixes := 0
	for _, a := range e.attrs {
		b = append(b, ' ')
		switch a.Name.Space {
		case "":
		case nsXML, "xml":
			b = append(b, "xml:"...)
		default: // a prefix of its own for each
			prefixes++
			p := "n" + strconv.Itoa(prefixes)
			b = append(append(append(append(append(b, "xmlns:"...), p...), `="`...), escaped(a.Name.Space)...), `" `...)
			b = append(append(b, p...), ':')
		}
		b = append(append(append(append(b, a.Name.Local...), `="`...), escaped(a.Value)...), '"')
	}
	if len(e.kids) == 0 {
		return append(b, "/>"...)
	}
	b = append(b, '>')
	for _, k := range e.kids {
		if k.element != nil {
			b = k.append(b, e.name.Space)
		} else {
			b = append(b, escaped(k.text)...)
		}
	}
	return append(append(append(b, "</"...), e.name.Local...), '>')
}

func escaped(s string) string {
	if !strings.ContainsAny(s, "<>&\"'\t\n\r") && utf8.ValidString(s) {
		return s
	}
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes all
	return b.String()
}
