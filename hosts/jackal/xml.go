package jackal

import (
	"encoding/xml"
	"io"
	"iter"
	"strings"

	"github.com/jackal-xmpp/stravaganza"
)

// node is one of jackal's elements with its namespace, which jackal keeps as it was written: in attributes.
type node struct {
	*stravaganza.PBElement
	up   *node
	name xml.Name
}

// root returns an element as the root of its tree.
func root(e stravaganza.Element) *node { return newNode(nil, e.Proto()) }

func newNode(up *node, pb *stravaganza.PBElement) *node {
	n := &node{PBElement: pb, up: up}
	n.name = n.resolve(pb.GetName(), true)
	return n
}

// resolve returns the expanded name of an element or, without the default namespace, of an attribute.
func (n *node) resolve(name string, element bool) xml.Name {
	prefix, local, ok := strings.Cut(name, ":")
	switch {
	case !ok && !element:
		return xml.Name{Local: name}
	case !ok:
		return xml.Name{Space: n.lookup("xmlns"), Local: name}
	case prefix == "xml":
		return xml.Name{Space: "http://www.w3.org/XML/1998/namespace", Local: local}
	case prefix == "xmlns":
		return xml.Name{Space: prefix, Local: local}
	}
	return xml.Name{Space: n.lookup("xmlns:" + prefix), Local: local}
}

// lookup returns what the nearest declaration says.
func (n *node) lookup(decl string) string {
	for ; n != nil; n = n.up {
		for _, a := range n.Attributes {
			if a.GetLabel() == decl {
				return a.GetValue()
			}
		}
	}
	return ""
}

// is tells whether the element has that name.
func (n *node) is(space, local string) bool { return n.name.Local == local && n.name.Space == space }

// attr returns the value of an attribute without a prefix.
func (n *node) attr(name string) string {
	for _, a := range n.Attributes {
		if a.GetLabel() == name {
			return a.GetValue()
		}
	}
	return ""
}

// children returns the child elements.
func (n *node) children() iter.Seq[*node] {
	return func(yield func(*node) bool) {
		for _, c := range n.Elements {
			if !yield(newNode(n, c)) {
				return
			}
		}
	}
}

// child returns the first child element of that name, or nil.
func (n *node) child(space, local string) *node {
	for c := range n.children() {
		if c.is(space, local) {
			return c
		}
	}
	return nil
}

// tokens reads an element as the tokens that its text would have.
type tokens struct {
	at   *node
	done []int // of the open elements, how many tokens after the start were read: the text, and then the children
}

// newTokens returns the tokens of an element.
func newTokens(e stravaganza.Element) *tokens {
	return &tokens{at: &node{PBElement: &stravaganza.PBElement{Elements: []*stravaganza.PBElement{e.Proto()}}}, done: []int{1}}
}

// Token implements xml.TokenReader.
func (t *tokens) Token() (xml.Token, error) {
	n, top := t.at, len(t.done)-1
	i := t.done[top]
	t.done[top]++
	switch {
	case i == 0 && n.GetText() != "":
		return xml.CharData(n.GetText()), nil
	case i == 0:
		return t.Token()
	case i <= len(n.Elements):
		up := n
		if n.name.Local == "" {
			up = nil
		}
		t.at = newNode(up, n.Elements[i-1])
		t.done = append(t.done, 0)
		return t.at.start(), nil
	case top == 0:
		t.done[top]--
		return nil, io.EOF
	}
	t.done = t.done[:top]
	if t.at = n.up; t.at == nil {
		t.at, t.done[0] = &node{PBElement: &stravaganza.PBElement{}}, 1
	}
	return xml.EndElement{Name: n.name}, nil
}

func (n *node) start() xml.StartElement {
	s := xml.StartElement{Name: n.name, Attr: make([]xml.Attr, 0, len(n.Attributes))}
	for _, a := range n.Attributes {
		s.Attr = append(s.Attr, xml.Attr{Name: n.resolve(a.GetLabel(), false), Value: a.GetValue()})
	}
	return s
}
