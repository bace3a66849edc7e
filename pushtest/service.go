package pushtest

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// element is an XML element of what a publisher sent.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Children []element  `xml:",any"`
}

// parse reads one stanza.
func parse(iq []byte) (element, error) {
	var e element
	d := xml.NewDecoder(strings.NewReader(string(iq)))
	if err := d.Decode(&e); err != nil {
		return e, err
	}
	if rest := strings.TrimSpace(string(iq[d.InputOffset():])); rest != "" {
		return e, fmt.Errorf("there is more after the stanza: %.100q", rest)
	}
	return e, nil
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name == (xml.Name{Local: name}) {
			return a.Value
		}
	}
	return ""
}

// find returns the first element of a name at any depth, or an empty one.
func (e *element) find(local string) *element {
	if e.XMLName.Local == local {
		return e
	}
	for i := range e.Children {
		if f := e.Children[i].find(local); f.XMLName.Local != "" {
			return f
		}
	}
	return new(element)
}

// String writes the element in one form of the many that mean the same: namespaces spelled out, attributes in their order, no declarations.
func (e element) String() string {
	var b strings.Builder
	e.write(&b, "")
	return b.String()
}

func (e *element) write(b *strings.Builder, indent string) {
	space := e.XMLName.Space
	if e.XMLName.Local == "iq" {
		space = "" // which one is the stream's affair
	}
	fmt.Fprintf(b, "%s{%s}%s", indent, space, e.XMLName.Local)
	for _, name := range []string{"type", "from", "to", "id", "node", "var"} {
		if v := e.attr(name); v != "" {
			fmt.Fprintf(b, " %s=%q", name, v)
		}
	}
	for _, a := range e.Attrs {
		switch {
		case a.Name.Local == "xmlns" || a.Name.Space == "xmlns":
		case a.Name.Space != "" || !strings.Contains(" type from to id node var ", " "+a.Name.Local+" "):
			fmt.Fprintf(b, " %s:%s=%q", a.Name.Space, a.Name.Local, a.Value)
		}
	}
	if e.Text != "" {
		fmt.Fprintf(b, " %q", e.Text)
	}
	b.WriteByte('\n')
	for i := range e.Children {
		e.Children[i].write(b, indent+"  ")
	}
}

// reply returns an answer to a publish: a result if payload is empty, else an error with that payload.
func reply(iq *element, payload string) []byte {
	return replyFrom(iq.attr("to"), iq.attr("id"), iq.attr("from"), payload)
}

func replyFrom(from, id, to, payload string) []byte {
	var b strings.Builder
	typ := "error"
	if payload == "" {
		typ, payload = "result", `<pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="n"><item id="i"/></publish></pubsub>`
	}
	b.WriteString(`<iq type="` + typ + `" from="`)
	escape(&b, from)
	b.WriteString(`" id="`)
	escape(&b, id)
	b.WriteString(`" to="`)
	escape(&b, to)
	b.WriteString(`">` + payload + `</iq>`)
	return []byte(b.String())
}

func escape(b *strings.Builder, s string) { _ = xml.EscapeText(b, []byte(s)) }

// failure is the payload of an error reply.
func failure(typ, condition, more string) string {
	return `<error type="` + typ + `"><` + condition + ` xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/>` + more + `</error>`
}
