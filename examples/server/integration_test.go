package main

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
	"github.com/xmpp-push/push/pushtest"
)

// TestIntegration is the library's own suite for hosts.
func TestIntegration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pushtest.Integration(t, func(t testing.TB, service func(iq []byte) [][]byte) pushtest.Server {
			s, err := NewServer(Config{
				Domain: pushtest.Host, ComponentSecret: "secret",
				AckDelay: time.Second, ResumeTimeout: 10 * time.Minute, MaxResume: 72 * time.Hour, MaxErrors: 16,
			})
			if err != nil {
				t.Fatal(err)
			}
			closing(t, s)
			conn := pipe(s.ServeComponent)
			if err := peer.ServeRaw(conn, pushtest.Service, "secret", service); err != nil {
				t.Fatal(err)
			}
			return &suite{t, s}
		})
	})
}

// suite is the server as the suite wants it.
type suite struct {
	t testing.TB
	s *Server
}

func (h *suite) dial() net.Conn { return pipe(h.s.ServeClient) }

func (h *suite) Connect(account, resource string) pushtest.Device {
	if h.s.accountNamed(account) == nil {
		if err := h.s.AddAccount(account, "pw"); err != nil {
			h.t.Fatal(err)
		}
	}
	c, err := peer.Connect(h.dial(), peer.Login{Domain: pushtest.Host, User: account, Password: "pw", Resource: resource, Resumable: true})
	if err != nil {
		h.t.Fatal(err)
	}
	c.Available()
	c.EnableCarbons(h.t.Context())
	synctest.Wait()
	return &suiteDevice{h, c}
}

func (h *suite) Resume(d pushtest.Device) {
	dev := d.(*suiteDevice)
	c, err := dev.c.Resume(h.dial())
	if err != nil {
		h.t.Fatal(err)
	}
	dev.c = c
	synctest.Wait()
}

func (h *suite) Route(stanza []byte) {
	e, err := element.Parse(stanza)
	if err != nil {
		h.t.Fatal(err)
	}
	h.s.route(e)
	synctest.Wait()
}

type suiteDevice struct {
	h *suite
	c *peer.Client
}

func (d *suiteDevice) Send(stanza []byte) {
	e, err := element.Parse(stanza)
	if err != nil {
		d.h.t.Fatal(err)
	}
	d.c.Send(e)
	synctest.Wait()
}

func (d *suiteDevice) Cut() {
	d.c.Drop()
	synctest.Wait()
}

func (d *suiteDevice) Stall() { d.c.Deaf() }

// Close ends the session. One that was cut ends when the server's time for it has run out: here at once, for the server could be told by an operator.
func (d *suiteDevice) Close() {
	d.c.Close()
	a := d.h.s.accountNamed(d.c.User())
	unlock := a.whole()
	var out []*element.Element
	for _, x := range a.sessions {
		if x.jid.String() == d.c.JID && x.stream == nil {
			out = x.end("")
			break
		}
	}
	unlock()
	d.h.s.route(out...)
	synctest.Wait()
}
