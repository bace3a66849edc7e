// Package element is XML as XMPP uses it: a small tree for stanzas, and a reader and a writer for the elements of a stream.
//
// Stanzas look the same on every kind of stream: the stream's own namespace (jabber:client, jabber:component:accept) is
// read as the empty namespace, and the empty namespace is written as the stream's.
package element

import (
	"encoding/xml"
	"strconv"
	"strings"
	"time"
)

// Namespaces that more than one part needs.
const (
	NSClient    = "jabber:client"
	NSComponent = "jabber:component:accept"
	NSFraming   = "urn:ietf:params:xml:ns:xmpp-framing"
	NSStream    = "http://etherx.jabber.org/streams"
	NSStanzas   = "urn:ietf:params:xml:ns:xmpp-stanzas"
	NSStreams   = "urn:ietf:params:xml:ns:xmpp-streams"
	NSForm      = "jabber:x:data"
	nsXML       = "http://www.w3.org/XML/1998/namespace"
)

// Element is an element with what is in it. Elements that have been handed on are shared, so they are not changed any more; see Copy.
type Element struct {
	Name xml.Name
	Attr []xml.Attr
	// Nodes are the children and the text, as *Element and string.
	Nodes []any
}

// New makes an element. Pairs are names and values of attributes; those with an empty value are left out.
func New(space, local string, pairs ...string) *Element {
	e := &Element{Name: xml.Name{Space: space, Local: local}}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			e.Set(pairs[i], pairs[i+1])
		}
	}
	return e
}

// Add appends children, or text given as a string, and returns e.
func (e *Element) Add(nodes ...any) *Element {
	for _, n := range nodes {
		if c, ok := n.(*Element); ok && c == nil {
			continue
		}
		e.Nodes = append(e.Nodes, n)
	}
	return e
}

// Size is about how much memory the element takes, and no less than its XML.
func (e *Element) Size() int {
	n := 100 + len(e.Name.Space) + 2*len(e.Name.Local)
	for _, a := range e.Attr {
		n += 50 + len(a.Name.Space) + len(a.Name.Local) + len(a.Value)
	}
	for _, c := range e.Nodes {
		switch c := c.(type) {
		case *Element:
			n += c.Size()
		case string:
			n += 16 + len(c)
		}
	}
	return n
}

// Is tells whether the element has this name.
func (e *Element) Is(space, local string) bool {
	return e.Name.Local == local && e.Name.Space == space
}

// Get returns an attribute, or "". It is "" for nil.
func (e *Element) Get(name string) string {
	if e == nil {
		return ""
	}
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// Set changes an attribute, or removes it if the value is empty.
func (e *Element) Set(name, value string) *Element {
	for i, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			if value == "" {
				e.Attr = append(e.Attr[:i:i], e.Attr[i+1:]...)
			} else {
				e.Attr[i].Value = value
			}
			return e
		}
	}
	if value != "" {
		e.Attr = append(e.Attr, xml.Attr{Name: xml.Name{Local: name}, Value: value})
	}
	return e
}

// Children returns the child elements. There are none of nil.
func (e *Element) Children() []*Element {
	if e == nil {
		return nil
	}
	var cs []*Element
	for _, n := range e.Nodes {
		if c, ok := n.(*Element); ok {
			cs = append(cs, c)
		}
	}
	return cs
}

// Child returns the first child element with this name, or nil. An empty local name means any.
func (e *Element) Child(space, local string) *Element {
	if e == nil {
		return nil
	}
	for _, n := range e.Nodes {
		if c, ok := n.(*Element); ok && c.Name.Space == space && (local == "" || c.Name.Local == local) {
			return c
		}
	}
	return nil
}

// First returns the first child element, or nil: the payload of an IQ stanza.
func (e *Element) First() *Element {
	for _, n := range e.Nodes {
		if c, ok := n.(*Element); ok {
			return c
		}
	}
	return nil
}

// Text returns the text directly in e. It is "" for nil.
func (e *Element) Text() string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	for _, n := range e.Nodes {
		if s, ok := n.(string); ok {
			b.WriteString(s)
		}
	}
	return b.String()
}

// Copy returns a copy of which the attributes and the list of nodes can be changed; the children are shared.
func (e *Element) Copy() *Element {
	return &Element{
		Name:  e.Name,
		Attr:  append([]xml.Attr(nil), e.Attr...),
		Nodes: append([]any(nil), e.Nodes...),
	}
}

// Without removes the children for which drop says so, and returns e.
func (e *Element) Without(drop func(*Element) bool) *Element {
	kept := e.Nodes[:0:0]
	for _, n := range e.Nodes {
		if c, ok := n.(*Element); !ok || !drop(c) {
			kept = append(kept, n)
		}
	}
	e.Nodes = kept
	return e
}

// String returns the XML for a stream of clients.
func (e *Element) String() string { return string(e.Append(nil)) }

// Append appends the XML for a stream, whose own namespace is the default one there.
func (e *Element) Append(dst []byte) []byte { return e.append(dst, "") }

// AppendAlone appends the XML as a document of its own.
func (e *Element) AppendAlone(dst []byte) []byte { return e.append(dst, "?") }

func (e *Element) append(dst []byte, outer string) []byte {
	dst = append(dst, '<')
	dst = append(dst, e.Name.Local...)
	if e.Name.Space != outer {
		dst = append(dst, ` xmlns='`...)
		if e.Name.Space == "" {
			dst = append(dst, NSClient...)
		} else {
			dst = Escape(dst, e.Name.Space)
		}
		dst = append(dst, '\'')
	}
	for i, a := range e.Attr {
		dst = append(dst, ' ')
		switch a.Name.Space {
		case "":
		case nsXML:
			dst = append(dst, "xml:"...)
		default:
			prefix := "a" + strconv.Itoa(i)
			dst = append(dst, "xmlns:"+prefix+"='"...)
			dst = Escape(dst, a.Name.Space)
			dst = append(dst, "' "+prefix+":"...)
		}
		dst = append(dst, a.Name.Local...)
		dst = append(dst, "='"...)
		dst = Escape(dst, a.Value)
		dst = append(dst, '\'')
	}
	if len(e.Nodes) == 0 {
		return append(dst, "/>"...)
	}
	dst = append(dst, '>')
	for _, n := range e.Nodes {
		switch n := n.(type) {
		case *Element:
			dst = n.append(dst, e.Name.Space)
		case string:
			dst = Escape(dst, n)
		}
	}
	dst = append(dst, "</"...)
	dst = append(dst, e.Name.Local...)
	return append(dst, '>')
}

// MarshalText gives the XML as a document of its own, which UnmarshalText reads.
func (e *Element) MarshalText() ([]byte, error) { return e.AppendAlone(nil), nil }

// UnmarshalText reads what MarshalText gave.
func (e *Element) UnmarshalText(b []byte) error {
	p, err := Parse(b)
	if err == nil {
		*e = *p
	}
	return err
}

// Escape appends s as text or as the value of an attribute.
func Escape(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case '&':
			dst = append(dst, "&amp;"...)
		case '<':
			dst = append(dst, "&lt;"...)
		case '>':
			dst = append(dst, "&gt;"...)
		case '\'':
			dst = append(dst, "&apos;"...)
		case '"':
			dst = append(dst, "&quot;"...)
		case '\r':
			dst = append(dst, "&#xD;"...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// Form makes a data form (XEP-0004) of a FORM_TYPE and pairs of names and values.
func Form(typ, formType string, pairs ...string) *Element {
	field := func(name, value string) *Element {
		return New(NSForm, "field", "var", name).Add(New(NSForm, "value").Add(value))
	}
	x := New(NSForm, "x", "type", typ).Add(field("FORM_TYPE", formType).Set("type", "hidden"))
	for i := 0; i+1 < len(pairs); i += 2 {
		x.Add(field(pairs[i], pairs[i+1]))
	}
	return x
}

// Field returns the first value of a field of a data form, or "".
func (e *Element) Field(name string) string {
	if e == nil {
		return ""
	}
	for _, f := range e.Children() {
		if f.Is(NSForm, "field") && f.Get("var") == name {
			return f.Child(NSForm, "value").Text()
		}
	}
	return ""
}

// Delay says when and where a stanza was held up (XEP-0203).
func Delay(from string, t time.Time) *Element {
	return New("urn:xmpp:delay", "delay", "from", from, "stamp", t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// Result makes the result of an IQ request, from the address that was asked.
func Result(iq *Element, payload ...any) *Element {
	return New("", "iq", "type", "result", "id", iq.Get("id"), "from", iq.Get("to"), "to", iq.Get("from")).Add(payload...)
}

// Error makes the error reply to a stanza (RFC 6120 §8.3), or returns nil if the stanza is one that must not be answered.
func Error(st *Element, typ, condition string) *Element {
	t := st.Get("type")
	if t == "error" || st.Name.Local == "iq" && t == "result" || st.Name.Local == "presence" && t != "subscribe" && t != "probe" {
		return nil
	}
	return New("", st.Name.Local, "type", "error", "id", st.Get("id"), "from", st.Get("to"), "to", st.Get("from")).
		Add(New("", "error", "type", typ).Add(New(NSStanzas, condition)))
}
