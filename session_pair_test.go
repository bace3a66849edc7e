package push_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	"mellium.im/xmpp/stream"
)

// wire is a connection that keeps what is written to it.
type wire struct {
	net.Conn
	mu  sync.Mutex
	out bytes.Buffer
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.out.Write(p)
	w.mu.Unlock()
	return w.Conn.Write(p)
}

// written returns what was written since it was called last.
func (w *wire) written() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.out.String()
	w.out.Reset()
	return s
}

// clientPair returns a client's session and the server's end of it, negotiated by mellium on both sides: juliet@example.com/balcony, authenticated by
// password. handler serves the server's end.
func clientPair(t *testing.T, handler xmpp.Handler) (client *xmpp.Session, server *wire) {
	c, s := net.Pipe()
	server = &wire{Conn: s}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		session, err := xmpp.ReceiveSession(context.Background(), server, xmpp.Secure, xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
			return xmpp.StreamConfig{Features: []xmpp.StreamFeature{
				xmpp.SASLServer(func(n *sasl.Negotiator) bool {
					user, password, _ := n.Credentials()
					return string(user) == "juliet" && string(password) == "rose"
				}, sasl.Plain),
				xmpp.BindCustom(func(jid.JID, string) (jid.JID, error) { return jid.MustParse("juliet@example.com/balcony"), nil }),
			}}
		}))
		if err != nil {
			t.Errorf("server: %v", err)
			return
		}
		_ = session.Serve(handler)
	}()
	account := jid.MustParse("juliet@example.com")
	client, err := xmpp.NewSession(context.Background(), account.Domain(), account, c, xmpp.Secure, xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
		return xmpp.StreamConfig{Features: []xmpp.StreamFeature{xmpp.SASL("", "rose", sasl.Plain), xmpp.BindResource()}}
	}))
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = client.Serve(nil)
	}()
	t.Cleanup(func() {
		c.Close()
		s.Close()
		<-ended
		<-served
	})
	server.written()
	return client, server
}

// serverPair returns the near end of a stream between two servers, whose negotiation is skipped. handler serves the far end, whose connection is returned too.
func serverPair(t *testing.T, nearDomain, farDomain string, handler xmpp.Handler) (near *xmpp.Session, farConn *wire) {
	a, b := net.Pipe()
	farConn = &wire{Conn: b}
	skip := func(_ context.Context, in, out *stream.Info, _ *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, any, error) {
		in.XMLNS, out.XMLNS = stanza.NSServer, stanza.NSServer
		return xmpp.Ready | xmpp.Authn | xmpp.Secure, nil, nil, nil
	}
	nearJID, farJID := jid.MustParse(nearDomain), jid.MustParse(farDomain)
	near, err := xmpp.NewSession(context.Background(), farJID, nearJID, a, 0, skip)
	require.NoError(t, err)
	far, err := xmpp.NewSession(context.Background(), nearJID, farJID, farConn, 0, skip)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { _ = near.Serve(nil) })
	wg.Go(func() { _ = far.Serve(handler) })
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
	return near, farConn
}
