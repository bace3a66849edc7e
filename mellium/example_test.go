package mellium_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"strings"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"
	"mellium.im/xmpp/stream"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/mellium"
)

// printer shows what a handler answers.
type printer struct {
	xml.TokenReader
	*xml.Encoder
}

// A client's requests are answered by a handler of the mux that serves its connection.
func ExampleHandleRequests() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	defer engine.Close(ctx)
	phone := push.SessionID{Account: "juliet@example.com", ID: "c2s-17"}
	engine.Handle(ctx, push.SessionOpen{Session: phone})

	m := mux.New(stanza.NSClient, mellium.HandleRequests(mellium.RequestHandler{
		Engine:  engine,
		Session: func(stanza.IQ) (push.SessionID, bool) { return phone, true }, // there is a mux for each connection
	}))

	// What the stream brings in; a session's Serve does this.
	d := xml.NewDecoder(strings.NewReader(`<iq xmlns="jabber:client" type="set" id="e1"><enable xmlns="urn:xmpp:push:0" jid="push.example.net" node="n1"/></iq>`))
	tok, _ := d.Token()
	start := tok.(xml.StartElement)
	var out strings.Builder
	e := xml.NewEncoder(&out)
	if err := m.HandleXMPP(printer{d, e}, &start); err != nil {
		fmt.Println(err)
	}
	e.Flush()
	fmt.Println(out.String())
	// Output: <iq type="result" id="e1"></iq>
}

// Publishes go out over a session, such as a component's (XEP-0114), and their replies come back over it.
func ExamplePublisher() {
	near, far := net.Pipe()
	// A session that skips its negotiation; a real one comes from component.NewSession or the like.
	session, err := xmpp.NewSession(context.Background(), jid.MustParse("push.example.net"), jid.MustParse("example.com"), near, 0,
		func(_ context.Context, in, out *stream.Info, _ *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, any, error) {
			in.XMLNS, out.XMLNS = stanza.NSServer, stanza.NSServer
			return xmpp.Ready | xmpp.Authn | xmpp.Secure, nil, nil, nil
		})
	if err != nil {
		panic(err)
	}
	go session.Serve(nil)
	go func() { // the push service
		d := xml.NewDecoder(far)
		tok, _ := d.Token()
		iq, _ := stanza.NewIQ(tok.(xml.StartElement))
		xmlstream.Copy(xmlstream.Discard(), xmlstream.InnerElement(d))
		fmt.Fprintf(far, `<iq xmlns="jabber:server" type="result" id="%s" from="push.example.net" to="example.com"/>`, iq.ID)
	}()

	publisher := mellium.Publisher{Session: session}
	err = publisher.Publish(context.Background(), &push.Notification{Key: push.Key{Service: "push.example.net", Node: "n1"}})
	fmt.Println(push.ReplyOf(err).Classify())
	near.Close()
	far.Close()
	// Output: accepted
}
