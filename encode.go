package push

import (
	"encoding/xml"
	"io"
	"strconv"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/stanza"
)

const nsForm = "jabber:x:data"

// TokenReader implements xmlstream.Marshaler. It gives the payload of the stanza that publishes n, without the stanza around it, for functions
// like Session.SendIQElement of mellium.im/xmpp: a <pubsub/> (XEP-0357 §7), or the <notification/> of Push 2.0. PublishIQ and PublishMessage have
// the whole. The document is that of AppendStanza.
func (n *Notification) TokenReader() xml.TokenReader {
	w := tokenList{tokens: make([]xml.Token, 0, 48)}
	if n.IsPush2() {
		n.writeMessage(&w)
		return &w
	}
	w.open(nsPubsub, "pubsub")
	w.open(nsPubsub, "publish", "node", n.Node)
	w.open(nsPubsub, "item")
	w.open(NS, "notification")
	if n.encrypts() {
		n.writeEncrypted(&w)
	} else {
		n.writeSummary(&w)
	}
	if n.Wishes != nil && n.Wishes.Priority {
		w.element(nsPriority, "priority", n.priority())
	}
	w.close(3)
	if n.Options != nil {
		w.open(nsPubsub, "publish-options")
		w.open(nsForm, "x", "type", "submit")
		for _, f := range n.Options {
			w.field(f.Var, f.Type, f.Values...)
		}
		w.close(2)
	}
	w.close(1)
	return &w
}

func (n *Notification) writeSummary(w *tokenList) {
	w.open(nsForm, "x", "type", "submit")
	w.field("FORM_TYPE", "hidden", "urn:xmpp:push:summary")
	if n.Unread > 0 || n.TellZero {
		w.field("message-count", "", strconv.Itoa(n.Unread))
	}
	if n.Pending > 0 {
		w.field("pending-subscription-count", "", strconv.Itoa(n.Pending))
	}
	if n.Sender != "" {
		w.field("last-message-sender", "", n.Sender)
	}
	if n.Body != "" {
		w.field("last-message-body", "", n.Body)
	}
	w.close(1)
}

// WriteXML implements xmlstream.WriterTo.
func (n *Notification) WriteXML(w xmlstream.TokenWriter) (int, error) {
	return xmlstream.Copy(w, n.TokenReader())
}

// MarshalXML implements xml.Marshaler.
func (n *Notification) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	_, err := n.WriteXML(e)
	return err
}

// PublishIQ is a notification in the IQ stanza that publishes it, for sessions of mellium.im/xmpp. Of the IQ, From, To and ID are used: From is the
// server's domain, To the Notification's Service, ID must not be guessable.
type PublishIQ struct {
	stanza.IQ
	Notification *Notification
}

// TokenReader implements xmlstream.Marshaler.
func (p PublishIQ) TokenReader() xml.TokenReader {
	iq := stanza.IQ{Type: stanza.SetIQ, From: p.From, To: p.To, ID: p.ID}
	return iq.Wrap(p.Notification.TokenReader())
}

// WriteXML implements xmlstream.WriterTo.
func (p PublishIQ) WriteXML(w xmlstream.TokenWriter) (int, error) {
	return xmlstream.Copy(w, p.TokenReader())
}

// MarshalXML implements xml.Marshaler.
func (p PublishIQ) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	_, err := p.WriteXML(e)
	return err
}

// PublishMessage is a notification of Push 2.0 in the message stanza that publishes it. Of the message, From, To and ID are used, as with PublishIQ.
type PublishMessage struct {
	stanza.Message
	Notification *Notification
}

// TokenReader implements xmlstream.Marshaler.
func (p PublishMessage) TokenReader() xml.TokenReader {
	start := xml.StartElement{Name: xml.Name{Local: "message"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "from"}, Value: p.From.String()}, {Name: xml.Name{Local: "to"}, Value: p.To.String()}, {Name: xml.Name{Local: "id"}, Value: p.ID},
	}}
	return xmlstream.Wrap(p.Notification.TokenReader(), start)
}

// WriteXML implements xmlstream.WriterTo.
func (p PublishMessage) WriteXML(w xmlstream.TokenWriter) (int, error) {
	return xmlstream.Copy(w, p.TokenReader())
}

// MarshalXML implements xml.Marshaler.
func (p PublishMessage) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	_, err := p.WriteXML(e)
	return err
}

// tokenList is tokens to be read, and the elements that are still open while it is written.
type tokenList struct {
	tokens []xml.Token
	stack  []xml.Name
}

// open starts an element. attrs are names and values; empty values are left out.
func (l *tokenList) open(space, local string, attrs ...string) {
	start := xml.StartElement{Name: xml.Name{Space: space, Local: local}}
	for i := 0; i < len(attrs); i += 2 {
		if attrs[i+1] != "" {
			start.Attr = append(start.Attr, xml.Attr{Name: xml.Name{Local: attrs[i]}, Value: attrs[i+1]})
		}
	}
	l.tokens = append(l.tokens, start)
	l.stack = append(l.stack, start.Name)
}

// close ends the n innermost elements.
func (l *tokenList) close(n int) {
	for range n {
		l.tokens = append(l.tokens, xml.EndElement{Name: l.stack[len(l.stack)-1]})
		l.stack = l.stack[:len(l.stack)-1]
	}
}

// element adds an element with nothing but text.
func (l *tokenList) element(space, local, text string, attrs ...string) {
	l.open(space, local, attrs...)
	if text != "" {
		l.tokens = append(l.tokens, xml.CharData(text))
	}
	l.close(1)
}

// field adds a field of a form.
func (l *tokenList) field(name, typ string, values ...string) {
	l.open(nsForm, "field", "var", name, "type", typ)
	for _, v := range values {
		l.open(nsForm, "value")
		l.tokens = append(l.tokens, xml.CharData(v))
		l.close(1)
	}
	l.close(1)
}

// Token implements xml.TokenReader.
func (l *tokenList) Token() (xml.Token, error) {
	if len(l.tokens) == 0 {
		return nil, io.EOF
	}
	t := l.tokens[0]
	l.tokens = l.tokens[1:]
	return t, nil
}
