package main

import (
	"encoding/base64"
	"net"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// TestWebSocket is RFC 7395 by the letter: an element a message, each with its namespaces, no STARTTLS, and who may not come.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	s, _, _ := listening(t)
	at, err := s.ListenWebSocket("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dial := func(protocols ...string) *websocket.Conn {
		c, _, err := websocket.Dial(t.Context(), "ws://"+at.String()+"/xmpp-websocket", &websocket.DialOptions{Subprotocols: protocols})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		return c
	}
	if _, _, err := dial().Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("without the subprotocol: %v", err)
	}
	c := dial("xmpp")
	say := func(what string) {
		t.Helper()
		if err := c.Write(t.Context(), websocket.MessageText, []byte(what)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(parts ...string) {
		t.Helper()
		_, b, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if !strings.Contains(string(b), p) {
				t.Errorf("it said %s, without %s", b, p)
			}
		}
		if strings.Contains(string(b), "starttls") {
			t.Errorf("it said %s", b)
		}
	}
	const open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>"
	say(open)
	hear("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'", " id='")
	hear("<stream:features xmlns:stream='http://etherx.jabber.org/streams'>", "</stream:features>")
	say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte("\x00juliet\x00pässword")) + "</auth>")
	hear("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
	say(open)
	hear("<open ")
	hear("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")
	say("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
	hear("<iq xmlns='jabber:client'", "<jid>juliet@localhost/")
	say("<iq xmlns='jabber:client' type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	hear("<iq xmlns='jabber:client'", "type='result'", "id='p'")
	say("<message xmlns='jabber:client'>")
	say("</presence>")
	hear("<stream:error xmlns:stream='http://etherx.jabber.org/streams'><not-well-formed")
	hear("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")

	c = dial("xmpp")
	say(open)
	hear("<open ")
	hear("<stream:features ")
	say("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
	hear("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("it is still open")
	}
	if onThisMachine(&socket{remote: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}) {
		t.Error("who comes from elsewhere without TLS may log in")
	}
}
