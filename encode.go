package push

import (
	"encoding/xml"
	"io"
	"strconv"
	"unicode/utf8"

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
// server's domain, To the Notification's Service, ID must not be guessable. Without a Notification it cannot be written, which is an error.
type PublishIQ struct {
	stanza.IQ
	Notification *Notification
}

// TokenReader implements xmlstream.Marshaler.
func (p PublishIQ) TokenReader() xml.TokenReader {
	if p.Notification == nil {
		return noNotification{}
	}
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
	if p.Notification == nil {
		return noNotification{}
	}
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

// noNotification is what there is to read of a stanza that publishes nothing.
type noNotification struct{}

func (noNotification) Token() (xml.Token, error) { return nil, errNoNotification }

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

// AppendStanza appends the stanza that publishes n, from the server's domain with the given ID: an IQ (XEP-0357 §7), or, for a registration of
// Push 2.0, a message. The ID must not be guessable, and is how replies are known. If nothing is encrypted and dst has room, it allocates nothing.
//
// Of n.Carried only the newest goes along with Push 2.0: see Split.
func (n *Notification) AppendStanza(dst []byte, from, id string) []byte {
	if n.IsPush2() {
		return n.appendMessage(dst, from, id)
	}
	dst = append(dst, `<iq type="set" from="`...)
	dst = appendEscaped(dst, from)
	dst = append(dst, `" to="`...)
	dst = appendEscaped(dst, n.Service)
	dst = append(dst, `" id="`...)
	dst = appendEscaped(dst, id)
	dst = append(dst, `"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish`...)
	if n.Node != "" {
		dst = append(dst, ` node="`...)
		dst = appendEscaped(dst, n.Node)
		dst = append(dst, '"')
	}
	dst = append(dst, `><item><notification xmlns="urn:xmpp:push:0">`...)
	if n.encrypts() {
		dst = n.appendEncrypted(dst)
	} else {
		dst = n.appendSummary(dst)
	}
	if n.Wishes != nil && n.Wishes.Priority {
		dst = append(dst, `<priority xmlns="`+nsPriority+`">`...)
		dst = append(append(dst, n.priority()...), `</priority>`...)
	}
	dst = append(dst, `</notification></item></publish>`...)
	if n.Options != nil {
		dst = append(dst, `<publish-options><x xmlns="jabber:x:data" type="submit">`...)
		for i := range n.Options {
			f := &n.Options[i]
			dst = append(dst, `<field`...)
			if f.Var != "" {
				dst = append(dst, ` var="`...)
				dst = appendEscaped(dst, f.Var)
				dst = append(dst, '"')
			}
			if f.Type != "" {
				dst = append(dst, ` type="`...)
				dst = appendEscaped(dst, f.Type)
				dst = append(dst, '"')
			}
			dst = append(dst, '>')
			for _, v := range f.Values {
				dst = append(dst, `<value>`...)
				dst = appendEscaped(dst, v)
				dst = append(dst, `</value>`...)
			}
			dst = append(dst, `</field>`...)
		}
		dst = append(dst, `</x></publish-options>`...)
	}
	return append(dst, `</pubsub></iq>`...)
}

// appendSummary appends the summary form (XEP-0357 §7).
func (n *Notification) appendSummary(dst []byte) []byte {
	dst = append(dst, `<x xmlns="jabber:x:data" type="submit">`+
		`<field var="FORM_TYPE" type="hidden"><value>urn:xmpp:push:summary</value></field>`...)
	if n.Unread > 0 || n.TellZero {
		dst = append(dst, `<field var="message-count"><value>`...)
		dst = strconv.AppendInt(dst, int64(n.Unread), 10)
		dst = append(dst, `</value></field>`...)
	}
	if n.Pending > 0 {
		dst = append(dst, `<field var="pending-subscription-count"><value>`...)
		dst = strconv.AppendInt(dst, int64(n.Pending), 10)
		dst = append(dst, `</value></field>`...)
	}
	if n.Sender != "" {
		dst = append(dst, `<field var="last-message-sender"><value>`...)
		dst = appendEscaped(dst, n.Sender)
		dst = append(dst, `</value></field>`...)
	}
	if n.Body != "" {
		dst = append(dst, `<field var="last-message-body"><value>`...)
		dst = appendEscaped(dst, n.Body)
		dst = append(dst, `</value></field>`...)
	}
	return append(dst, `</x>`...)
}

// appendEscaped appends s as XML text or attribute value. What XML cannot carry becomes U+FFFD; white space that a parser would change is
// written as a reference.
func appendEscaped(dst []byte, s string) []byte {
	plain := 0
	for i := 0; i < len(s); {
		if b := s[i]; b < utf8.RuneSelf {
			if esc := escapes[b]; esc != "" {
				dst = append(dst, s[plain:i]...)
				dst = append(dst, esc...)
				plain = i + 1
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || r == 0xfffe || r == 0xffff {
			dst = append(dst, s[plain:i]...)
			dst = append(dst, "\uFFFD"...)
			plain = i + n
		}
		i += n
	}
	return append(dst, s[plain:]...)
}

// escapes are the ASCII characters that are not written as they are.
var escapes = func() (e [utf8.RuneSelf]string) {
	for b := range byte(' ') {
		e[b] = "\uFFFD"
	}
	e['<'], e['>'], e['&'], e['"'], e['\''] = "&lt;", "&gt;", "&amp;", "&#34;", "&#39;"
	e['\t'], e['\n'], e['\r'] = "&#x9;", "&#xA;", "&#xD;"
	return e
}()
