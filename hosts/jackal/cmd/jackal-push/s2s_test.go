package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	kitlog "github.com/go-kit/log"
	"github.com/ortuman/jackal/pkg/c2s"
	"github.com/ortuman/jackal/pkg/component/xep0114"
	"github.com/ortuman/jackal/pkg/host"
	jackalserver "github.com/ortuman/jackal/pkg/jackal"
	"github.com/ortuman/jackal/pkg/s2s"
	"github.com/stretchr/testify/require"
	"github.com/xmpp-push/push"
	"golang.org/x/net/dns/dnsmessage"
)

// srv is a DNS in which domains have nothing but the port of their server.
type srv struct {
	mu    sync.Mutex
	ports map[string]int
}

// resolve makes it the DNS of the process until the test is over.
func (d *srv) resolve(t *testing.T) {
	old := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = old })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go d.serve(theirs)
		return ours, nil
	}}
}

// serve answers as on TCP, where each message has its length before it.
func (d *srv) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(query) != nil || len(m.Questions) != 1 {
			return
		}
		q := m.Questions[0]
		reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RCode: dnsmessage.RCodeNameError}, Questions: m.Questions}
		d.mu.Lock()
		port, ok := d.ports[q.Name.String()]
		d.mu.Unlock()
		if ok && q.Type == dnsmessage.TypeSRV {
			reply.RCode = dnsmessage.RCodeSuccess
			reply.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.SRVResource{Target: dnsmessage.MustNewName("localhost."), Port: uint16(port)},
			}}
		}
		packed, err := reply.Pack()
		if err != nil {
			return
		}
		binary.BigEndian.PutUint16(size[:], uint16(len(packed)))
		if _, err := c.Write(append(size[:], packed...)); err != nil {
			return
		}
	}
}

// A publish goes to another server, and that one's answer counts. The push service is an account there, for which its server answers that there is no
// such service.
func TestOtherServer(t *testing.T) {
	dns := &srv{ports: make(map[string]int)}
	dns.resolve(t)
	listen := func(domain string) func(*jackalserver.Config) {
		port := freePort(t)
		dns.ports["_xmpp-server._tcp."+domain+"."] = port
		return func(c *jackalserver.Config) {
			c.S2S.Listeners = s2s.ListenersConfig{{
				BindAddr: "127.0.0.1", Port: port, ConnectTimeout: patience, KeepAliveTimeout: time.Hour, RequestTimeout: patience, MaxStanzaSize: 1 << 17,
			}}
			c.S2S.Out = s2s.OutConfig{
				DialbackSecret: "of " + domain, DialTimeout: patience, KeepAliveTimeout: time.Hour, RequestTimeout: patience, MaxStanzaSize: 1 << 17,
			}
		}
	}

	var other jackalserver.Config
	dir := t.TempDir()
	addUsers(t, dir)
	other.Hosts = host.Configs{{Domain: "shakespeare.example"}}
	other.Hosts[0].TLS.CertFile, other.Hosts[0].TLS.PrivateKeyFile = certFile, keyFile
	other.Storage = storageIn(dir)
	other.Admin.Disabled = true
	other.C2S.Listeners, other.Components.Listeners = c2s.ListenersConfig{}, xep0114.ListenersConfig{}
	listen("shakespeare.example")(&other)
	b, err := newServer(other, quick(), kitlog.NewNopLogger())
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	defer b.Stop(context.Background())

	cfg := quick()
	replies := make(chan push.Reply, 16)
	cfg.Push.Observer = &push.Observer{Replied: func(_ time.Time, _ *push.Notification, r push.Reply, _ push.Result, _ time.Duration) { replies <- r }}
	dir = t.TempDir()
	addUsers(t, dir)
	ts := startWith(t, dir, cfg, listen("localhost"))
	c := ts.login(juliet, nil)
	c.request(`<enable xmlns='urn:xmpp:push:0' jid='romeo@shakespeare.example' node='phone'/>`)
	c.logout()
	ts.decided("session-close", juliet)
	ts.login(romeo, nil).message(juliet, "hello")
	select {
	case r := <-replies:
		require.Equal(t, push.Reply{Type: "cancel", Condition: "service-unavailable"}, r)
	case <-time.After(patience):
		require.FailNow(t, "no reply")
	}
}
