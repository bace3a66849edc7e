package push

import (
	"encoding/xml"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/stanza"
)

// Answer is the reply to a Request. It is to be sent on the session that the request came from.
type Answer struct {
	// Refusal is the error to the client. Nil means an IQ result.
	Refusal *stanza.Error
	// Err is what the Engine failed with, for the host's log. The client is not told.
	Err error

	id, from, to string
}

// start is the reply's start element, with the addresses of the request swapped.
func (a *Answer) start() xml.StartElement {
	start := xml.StartElement{Name: xml.Name{Local: "iq"}, Attr: make([]xml.Attr, 0, 4)}
	add := func(name, value string) {
		if value != "" {
			start.Attr = append(start.Attr, xml.Attr{Name: xml.Name{Local: name}, Value: value})
		}
	}
	typ := stanza.ResultIQ
	if a.Refusal != nil {
		typ = stanza.ErrorIQ
	}
	add("type", string(typ))
	add("to", a.to)
	add("from", a.from)
	add("id", a.id)
	return start
}

// AppendXML appends the reply's bytes. Like all stanzas it has the stream's namespace by default.
func (a *Answer) AppendXML(dst []byte) []byte {
	dst = append(dst, `<iq`...)
	for _, at := range a.start().Attr {
		dst = append(dst, ' ')
		dst = append(dst, at.Name.Local...)
		dst = append(dst, `="`...)
		dst = appendEscaped(dst, at.Value)
		dst = append(dst, '"')
	}
	if a.Refusal == nil {
		return append(dst, `/>`...)
	}
	dst = append(dst, `><error type="`...)
	dst = appendEscaped(dst, string(a.Refusal.Type))
	dst = append(dst, `"><`...)
	dst = append(dst, a.Refusal.Condition...)
	dst = append(dst, ` xmlns="`+stanza.NSError+`"/>`...)
	if text := a.Refusal.Text["en"]; text != "" {
		dst = append(dst, `<text xmlns="`+stanza.NSError+`" xml:lang="en">`...)
		dst = appendEscaped(dst, text)
		dst = append(dst, `</text>`...)
	}
	return append(dst, `</error></iq>`...)
}

// TokenReader implements xmlstream.Marshaler.
func (a *Answer) TokenReader() xml.TokenReader {
	if a.Refusal == nil {
		return xmlstream.Wrap(nil, a.start())
	}
	return xmlstream.Wrap(a.Refusal.TokenReader(), a.start())
}

// WriteXML implements xmlstream.WriterTo.
func (a *Answer) WriteXML(w xmlstream.TokenWriter) (int, error) {
	return xmlstream.Copy(w, a.TokenReader())
}

// MarshalXML implements xml.Marshaler.
func (a *Answer) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	_, err := a.WriteXML(e)
	return err
}
