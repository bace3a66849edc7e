package main

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/component"
	"mellium.im/xmpp/jid"
)

// patience bounds every wait for something that has to come.
const patience = 10 * time.Second

// element is what is read from a stream.
type element struct {
	XMLName xml.Name
	Attrs   []xml.Attr `xml:",any,attr"`
	Nodes   []element  `xml:",any"`
	Text    string     `xml:",chardata"`
}

func (e *element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// find returns the first element of that name, itself included.
func (e *element) find(name string) *element {
	if e.XMLName.Local == name {
		return e
	}
	for i := range e.Nodes {
		if f := e.Nodes[i].find(name); f != nil {
			return f
		}
	}
	return nil
}

// field returns the value of a form's field.
func (e *element) field(name string) string {
	if e.XMLName.Local == "field" && e.attr("var") == name && len(e.Nodes) > 0 {
		return e.Nodes[0].Text
	}
	for i := range e.Nodes {
		if v := e.Nodes[i].field(name); v != "" {
			return v
		}
	}
	return ""
}

// stream is one end of a stream whose negotiation mellium did.
type stream struct {
	t    *testing.T
	s    *xmpp.Session
	conn net.Conn // below TLS
	in   chan element
}

// read reads elements until the stream ends.
func (c *stream) read(each func(*element) bool) {
	r := c.s.TokenReader()
	defer r.Close()
	defer close(c.in)
	d := xml.NewTokenDecoder(r)
	for {
		tok, err := d.Token()
		if err != nil {
			return
		}
		start, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		var e element
		if d.DecodeElement(&e, &start) != nil {
			return
		}
		if each(&e) {
			c.in <- e
		}
	}
}

func (c *stream) send(format string, args ...any) {
	_, err := fmt.Fprintf(c.s.Conn(), format, args...)
	require.NoError(c.t, err)
}

// await returns the next element that matches; what comes before is thrown away.
func (c *stream) await(what string, match func(*element) bool) element {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e, ok := <-c.in:
			require.True(c.t, ok, "stream ended before %s", what)
			if match(&e) {
				return e
			}
		case <-timeout:
			require.FailNow(c.t, "did not come: "+what)
		}
	}
}

// client is a user's device.
type client struct {
	stream
	account string
	// h counts the stanzas that came since stream management was enabled.
	h       atomic.Uint32
	managed atomic.Bool
	resume  string // the name of the resumable session
	silent  atomic.Bool
	ids     int
}

// login connects a device. With a device that was cut off, the new one resumes its session.
func (ts *testServer) login(account string, old *client) *client {
	ts.t.Helper()
	ctx, cancel := context.WithTimeout(ts.t.Context(), patience)
	defer cancel()
	conn := ts.dial(ts.clients)
	c := &client{stream: stream{t: ts.t, conn: conn, in: make(chan element, 1024)}, account: account}
	last := xmpp.BindResource()
	if old != nil {
		c.h.Store(old.h.Load())
		c.resume = old.resume
		last = resumption(old)
	}
	addr := jid.MustParse(account)
	var err error
	c.s, err = xmpp.NewSession(ctx, addr.Domain(), addr, conn, 0, xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
		return xmpp.StreamConfig{Features: []xmpp.StreamFeature{
			xmpp.StartTLS(&tls.Config{RootCAs: roots, ServerName: "localhost"}),
			xmpp.SASL("", "secret", sasl.ScramSha256),
			last,
		}}
	}))
	require.NoError(ts.t, err)
	if old != nil {
		c.managed.Store(true)
	}
	go c.read(func(e *element) bool {
		switch e.XMLName.Local {
		case "r":
			if !c.silent.Load() {
				c.ack()
			}
		case "message", "presence", "iq":
			if c.managed.Load() {
				c.h.Add(1)
			}
		case "enabled":
			c.resume = e.attr("id")
			c.managed.Store(true)
		}
		return e.XMLName.Local != "r"
	})
	if old == nil {
		c.send(`<presence/>`)
		c.sync()
	}
	return c
}

// resumption is the stream feature with which a client resumes a session (XEP-0198 §5).
func resumption(old *client) xmpp.StreamFeature {
	return xmpp.StreamFeature{
		Name:       xml.Name{Space: nsSM, Local: "sm"},
		Necessary:  xmpp.Authn,
		Prohibited: xmpp.Ready,
		Parse: func(_ context.Context, d *xml.Decoder, _ *xml.StartElement) (bool, any, error) {
			return false, nil, d.Skip()
		},
		Negotiate: func(_ context.Context, s *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, error) {
			if _, err := fmt.Fprintf(s.Conn(), `<resume xmlns='%s' h='%d' previd='%s'/>`, nsSM, old.h.Load(), old.resume); err != nil {
				return 0, nil, err
			}
			r := s.TokenReader()
			defer r.Close()
			tok, err := r.Token()
			if err != nil {
				return 0, nil, err
			}
			start, ok := tok.(xml.StartElement)
			if !ok || start.Name.Local != "resumed" {
				return 0, nil, fmt.Errorf("not resumed: %v", tok)
			}
			return xmpp.Ready, nil, xmlstream.Skip(r)
		},
	}
}

const nsSM = "urn:xmpp:sm:3"

func (c *client) ack() { fmt.Fprintf(c.s.Conn(), `<a xmlns='%s' h='%d'/>`, nsSM, c.h.Load()) }

// iq sends a request and returns the answer.
func (c *client) iq(typ, to, payload string) element {
	c.t.Helper()
	c.ids++
	id := fmt.Sprintf("q%d", c.ids)
	if to != "" {
		to = " to='" + to + "'"
	}
	c.send(`<iq type='%s' id='%s'%s>%s</iq>`, typ, id, to, payload)
	return c.await("answer to "+payload, func(e *element) bool { return e.XMLName.Local == "iq" && e.attr("id") == id })
}

func (c *client) request(payload string) {
	c.t.Helper()
	e := c.iq("set", "", payload)
	require.Equal(c.t, "result", e.attr("type"), "%+v", e)
}

// sync returns when the server has handled all that the client sent before.
func (c *client) sync() {
	c.t.Helper()
	c.iq("get", "localhost", `<ping xmlns='urn:xmpp:ping'/>`)
}

// enablePush registers the device; its secret is its node's.
func (c *client) enablePush(node string) {
	c.t.Helper()
	c.request(`<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='` + node + `'><x xmlns='jabber:x:data' type='submit'>` +
		`<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>` +
		`<field var='secret'><value>secret of ` + node + `</value></field></x></enable>`)
}

// enableSM turns stream management on. Requests and answers before it are not counted.
func (c *client) enableSM() {
	c.t.Helper()
	c.send(`<enable xmlns='%s' resume='true'/>`, nsSM)
	c.await("enabled", func(e *element) bool { return e.XMLName.Local == "enabled" })
}

// cut cuts the connection.
func (c *client) cut() { c.conn.Close() }

// logout ends the session properly.
func (c *client) logout() {
	c.t.Helper()
	c.send(`</stream:stream>`)
	for range c.in {
	}
	c.conn.Close()
}

// message sends a message with that body, and returns when it was handled.
func (c *client) message(to, body string, extra ...string) {
	c.t.Helper()
	c.send(`<message type='chat' to='%s' id='%s'><body>%s</body>%s</message>`, to, body, body, strings.Join(extra, ""))
	c.sync()
}

// awaitMessage waits for a message with that body, carbon copies included.
func (c *client) awaitMessage(body string) element {
	c.t.Helper()
	return c.await("message "+body, func(e *element) bool {
		b := e.find("body")
		return e.XMLName.Local == "message" && b != nil && b.Text == body
	})
}

// publish is what the push service was sent.
type publish struct {
	node, secret, body, count string
}

// pushService is a component that is a push service.
type pushService struct {
	stream
	publishes chan publish
	// answer returns the error that a publish is answered with, or nothing.
	answer atomic.Pointer[func(publish) string]
}

// connect connects the push service, whose secret is empty: jackal does not store the one it is configured with.
func (ts *testServer) connect() *pushService {
	ts.t.Helper()
	ctx, cancel := context.WithTimeout(ts.t.Context(), patience)
	defer cancel()
	conn := ts.dial(ts.components)
	p := &pushService{stream: stream{t: ts.t, conn: conn, in: make(chan element, 1024)}, publishes: make(chan publish, 1024)}
	var err error
	p.s, err = component.NewSession(ctx, jid.MustParse("push.localhost"), nil, conn)
	require.NoError(ts.t, err)
	go p.read(func(e *element) bool {
		item := e.find("publish")
		if e.XMLName.Local != "iq" || item == nil {
			return true
		}
		pub := publish{
			node: item.attr("node"), secret: e.field("secret"),
			body: e.field("last-message-body"), count: e.field("message-count"),
		}
		failure := ""
		if f := p.answer.Load(); f != nil {
			failure = (*f)(pub)
		}
		p.publishes <- pub
		if failure == "" {
			fmt.Fprintf(p.s.Conn(), `<iq type='result' id='%s' from='push.localhost' to='localhost'/>`, e.attr("id"))
		} else {
			fmt.Fprintf(p.s.Conn(), `<iq type='error' id='%s' from='push.localhost' to='localhost'>`+
				`<error type='cancel'><%s xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`, e.attr("id"), failure)
		}
		return false
	})
	return p
}

// next returns the next publish.
func (p *pushService) next() publish {
	p.t.Helper()
	select {
	case pub := <-p.publishes:
		return pub
	case <-time.After(patience):
		require.FailNow(p.t, "no publish")
	}
	return publish{}
}

// none checks that there was no publish.
func (p *pushService) none() {
	p.t.Helper()
	select {
	case pub := <-p.publishes:
		require.FailNow(p.t, "published", "%+v", pub)
	default:
	}
}
