package push

import (
	"encoding/xml"
	"fmt"

	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push/internal/stanzaxml"
	"github.com/xmpp-push/push/wishes"
)

// payload is an <enable/> or <disable/> as it was sent.
type payload struct {
	enable, push2 bool
	service, node string
	options       []Field
	wishes        wishes.Wishes
	// fault is the first thing that is wrong with it.
	fault *stanza.Error

	hasForm bool
	size    int
}

// serviceName is what the protocol calls the push service.
func (p *payload) serviceName() string {
	if p.push2 {
		return "service"
	}
	return "jid"
}

// refuse notes what is wrong; the first fault counts.
func (p *payload) refuse(c stanza.Condition, text string) {
	if p.fault == nil {
		p.fault = &stanza.Error{Type: stanza.Modify, Condition: c, Text: map[string]string{"en": text}}
	}
}

func (p *payload) bad(text string) { p.refuse(stanza.BadRequest, text) }

func (p *payload) large(format string, args ...any) {
	p.refuse(stanza.NotAcceptable, fmt.Sprintf(format, args...))
}

// read reads the children of an <enable/> of XEP-0357.
func (p *payload) read(e *stanzaxml.Element, start xml.StartElement) error {
	p.asked(start)
	err := e.Children(func(child xml.StartElement) error {
		if child.Name != (xml.Name{Space: nsForm, Local: "x"}) {
			return p.asks(e, child)
		}
		if p.hasForm {
			p.bad("there is more than one form")
			return nil
		}
		p.hasForm = true
		switch stanzaxml.Attribute(child, "type") {
		case "submit", "form", "":
			// XEP-0004 wants submit; clients were seen to send form, and the examples of XEP-0357 nothing.
		default:
			p.bad("the form's type is not submit")
		}
		return e.Children(func(child xml.StartElement) error {
			if child.Name != (xml.Name{Space: nsForm, Local: "field"}) {
				return nil
			}
			return p.field(e, child)
		}, nil)
	}, nil)
	p.finish()
	return err
}

// field reads a <field/> of the form. A form without any field is as none.
func (p *payload) field(e *stanzaxml.Element, start xml.StartElement) error {
	f := Field{Var: stanzaxml.Attribute(start, "var"), Type: stanzaxml.Attribute(start, "type")}
	if len(p.options) == MaxFormFields {
		p.large("the form has more than %d fields", MaxFormFields)
	}
	p.count(f.Var, f.Type)
	if p.fault != nil {
		return nil
	}
	err := e.Children(func(child xml.StartElement) error {
		if child.Name != (xml.Name{Space: nsForm, Local: "value"}) {
			return nil
		}
		v, err := e.Text(MaxFormBytes, func() { p.bad("a value of the form has elements in it") })
		if err != nil {
			return err
		}
		if p.count(v); p.fault == nil {
			f.Values = append(f.Values, v)
		}
		return nil
	}, nil)
	p.options = append(p.options, f)
	return err
}

// count counts the texts of a field or of a value.
func (p *payload) count(texts ...string) {
	p.size += 16
	for _, s := range texts {
		p.size += len(s)
		if stanzaxml.CheckText(s) != nil {
			p.bad("the form holds what is not text")
		}
	}
	if p.size > MaxFormBytes {
		p.large("the form is larger than %d bytes", MaxFormBytes)
	}
}
