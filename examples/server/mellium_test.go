package main

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"net"
	"slices"
	"testing"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/component"
	"mellium.im/xmpp/form"
	"mellium.im/xmpp/history"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
)

// mellium is a session of mellium.im/xmpp whose texts of messages, live or out of the archive, are sent to bodies.
type mellium struct {
	*xmpp.Session
	bodies chan string
}

func (m *mellium) HandleXMPP(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	msg := struct {
		Body     string `xml:"body"`
		Archived string `xml:"result>forwarded>message>body"`
	}{}
	if start.Name.Local != "message" {
		return nil
	}
	if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t)).Decode(&msg); err != nil {
		return err
	}
	if body := msg.Body + msg.Archived; body != "" {
		m.bodies <- body
	}
	return nil
}

func (m *mellium) chat(ctx context.Context, to, body string) error {
	return m.Send(ctx, stanza.Message{To: jid.MustParse(to), Type: stanza.ChatMessage}.Wrap(
		xmlstream.Wrap(xmlstream.Token(xml.CharData(body)), xml.StartElement{Name: xml.Name{Local: "body"}})))
}

func meet(t *testing.T, port, user string) *mellium {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	account := jid.MustParse(user + "@localhost")
	s, err := xmpp.NewSession(ctx, account.Domain(), account, conn, 0, xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
		return xmpp.StreamConfig{Features: []xmpp.StreamFeature{
			xmpp.StartTLS(&tls.Config{InsecureSkipVerify: true}), // the certificate is self-signed
			xmpp.SASL("", "pässword", sasl.ScramSha256),
			xmpp.BindResource(),
		}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	m := &mellium{Session: s, bodies: make(chan string, 100)}
	go s.Serve(m)
	if err := s.Send(ctx, stanza.Presence{}.Wrap(nil)); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMellium is a client of another family, without stream management, and a component: enable, lose the connection, be notified, fetch from the
// archive.
func TestMellium(t *testing.T) {
	srv, c2s, components := listening(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := net.Dial("tcp", "127.0.0.1:"+components)
	if err != nil {
		t.Fatal(err)
	}
	service := jid.MustParse("push.localhost")
	comp, err := component.NewSession(ctx, service, []byte("component secret"), conn)
	if err != nil {
		t.Fatal(err)
	}
	published := make(chan string, 10)
	go comp.Serve(xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		iq := struct {
			stanza.IQ
			Publish struct {
				Node string `xml:"node,attr"`
			} `xml:"http://jabber.org/protocol/pubsub pubsub>publish"`
		}{}
		if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t)).Decode(&iq); err != nil {
			return err
		}
		published <- iq.From.String() + " " + iq.Publish.Node
		_, err := xmlstream.Copy(t, iq.Result(nil))
		return err
	}))

	juliet, romeo := meet(t, c2s, "juliet"), meet(t, c2s, "romeo")
	enable := xmlstream.Wrap(
		form.New(form.Hidden("FORM_TYPE", form.Value("http://jabber.org/protocol/pubsub#publish-options")), form.Text("secret", form.Value("s3"))).TokenReader(),
		xml.StartElement{Name: xml.Name{Space: push.NS, Local: "enable"}, Attr: []xml.Attr{
			{Name: xml.Name{Local: "jid"}, Value: service.String()}, {Name: xml.Name{Local: "node"}, Value: "n1"}}})
	if err := juliet.UnmarshalIQElement(ctx, enable, stanza.IQ{Type: stanza.SetIQ}, nil); err != nil {
		t.Fatal(err)
	}
	if err := romeo.chat(ctx, "juliet@localhost", "online"); err != nil {
		t.Fatal(err)
	}
	if got := <-juliet.bodies; got != "online" {
		t.Fatalf("received %q", got)
	}
	juliet.Conn().Close()
	for len(srv.sessions("juliet")) > 0 { // what is sent before that is noticed is lost, without stream management
		time.Sleep(time.Millisecond)
	}
	romeo.chat(ctx, "juliet@localhost", "are you there?")
	select {
	case got := <-published:
		if got != "localhost n1" {
			t.Errorf("published %q", got)
		}
	case <-ctx.Done():
		t.Fatal("not published")
	}
	juliet = meet(t, c2s, "juliet")
	if got := <-juliet.bodies; got != "are you there?" {
		t.Errorf("offline storage had %q", got)
	}
	if _, err := history.Fetch(ctx, history.Query{Last: true, Limit: 2}, jid.MustParse("juliet@localhost"), juliet.Session); err != nil {
		t.Fatal(err)
	}
	if got := []string{<-juliet.bodies, <-juliet.bodies}; !slices.Equal(got, []string{"online", "are you there?"}) {
		t.Errorf("the archive had %q", got)
	}
	select {
	case got := <-published:
		t.Errorf("published again: %q", got)
	default:
	}
	juliet.Close()
	romeo.Close()
	comp.Close()
}
