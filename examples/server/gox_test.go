package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	gox "github.com/xmppo/go-xmpp"

	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// goxClient is a client of github.com/xmppo/go-xmpp, which logs in with XEP-0388, binds with XEP-0386, and knows no stream management. It has to use PLAIN here:
// with SCRAM, version 0.4.1 says at first that the server lacks channel bindings ("y"), and then that it does so itself (c=biws), which RFC 5802 §6 has the
// server refuse; and with PLAIN it does not tell its ID.
type goxClient struct {
	*gox.Client
	got chan string // texts of messages, and of what the archive has, as "archive: …"; results of IQs, as "result ID"
}

func goxConnect(t *testing.T, port, user string) *goxClient {
	t.Helper()
	c, err := gox.Options{
		Host: "127.0.0.1:" + port, User: user + "@localhost", Password: "pässword", NoTLS: true, StartTLS: true, Mechanism: "PLAIN", Session: true,
		TLSConfig: &tls.Config{InsecureSkipVerify: true}, DialTimeout: 10 * time.Second,
	}.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	g := &goxClient{c, make(chan string, 100)}
	go func() {
		defer close(g.got)
		for {
			st, err := c.Recv()
			if err != nil {
				return
			}
			switch st := st.(type) {
			case gox.Chat:
				if st.Text != "" {
					g.got <- st.Text
				}
				for _, e := range st.OtherElem {
					if _, text, ok := strings.Cut(e.InnerXML, "<body>"); ok {
						text, _, _ = strings.Cut(text, "</body>")
						g.got <- "archive: " + text
					}
				}
			case gox.IQ:
				if len(st.ID) > 2 {
					continue // the client's own
				}
				g.got <- st.Type + " " + st.ID
			}
		}
	}()
	return g
}

// leave ends the stream. Client.Close is a data race with Recv.
func (g *goxClient) leave(t *testing.T) {
	t.Helper()
	if _, err := g.SendOrg("</stream:stream>"); err != nil {
		t.Error(err)
	}
	for range g.got {
	}
}

// expect waits for these, in their order.
func (g *goxClient) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got, ok := <-g.got:
			if got != w {
				t.Fatalf("got %q (%v), want %q", got, ok, w)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %q", w)
		}
	}
}

// TestGoXMPP is a client that enables push, goes, is woken, and comes back.
func TestGoXMPP(t *testing.T) {
	t.Parallel()
	srv, c2s, components := listening(t)
	service, err := peer.ConnectService(dialTCP(t, "127.0.0.1:"+components), pushDomain, "component secret")
	if err != nil {
		t.Fatal(err)
	}
	next := func(wait time.Duration) string {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		p, err := service.Next(ctx)
		if err != nil {
			return "nothing"
		}
		return fmt.Sprint(p.Node, " ", p.Alert)
	}
	phone := goxConnect(t, c2s, "juliet")
	if !strings.HasPrefix(phone.JID(), "juliet@localhost/") {
		t.Errorf("it is %s", phone.JID())
	}
	enable := func(id string) {
		t.Helper()
		if _, err := phone.RawInformation(phone.JID(), "juliet@localhost", id, "set", "<enable xmlns='urn:xmpp:push:0' jid='"+pushDomain+"' node='n1'/>"); err != nil {
			t.Fatal(err)
		}
		phone.expect(t, "result "+id)
	}
	enable("e1")
	phone.leave(t)
	for len(srv.sessions("juliet")) > 0 {
		time.Sleep(time.Millisecond)
	}
	romeo := goxConnect(t, c2s, "romeo")
	chat := func(text string) {
		t.Helper()
		if _, _, err := romeo.Send(gox.Chat{Remote: "juliet@localhost", Type: "chat", Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	chat("are you there?")
	if got := next(10 * time.Second); got != "n1 true" {
		t.Errorf("published %s", got)
	}
	phone = goxConnect(t, c2s, "juliet")
	phone.expect(t, "are you there?")
	enable("e2")
	chat("here you are")
	phone.expect(t, "here you are")
	if got := next(1500 * time.Millisecond); got != "nothing" {
		t.Errorf("it is online, and was published %s", got)
	}
	if _, err := phone.RawInformation(phone.JID(), "juliet@localhost", "a1", "set", "<query xmlns='urn:xmpp:mam:2'/>"); err != nil {
		t.Fatal(err)
	}
	phone.expect(t, "archive: are you there?", "archive: here you are", "result a1")
	phone.leave(t)
	romeo.leave(t)
	service.Close()
}
