package main

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/coder/websocket"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

// XMPP over WebSocket (RFC 7395), for clients in browsers: each element is a message, <open/> and <close/> take the place of the stream's tags, and there is no
// STARTTLS. The rest is as on any other stream; what differs is where stream.framed is asked.

const nsFraming = element.NSFraming

// ListenWebSocket accepts clients at ws://ADDR/xmpp-websocket. From elsewhere they have to come through a proxy that has TLS.
func (s *Server) ListenWebSocket(addr string) (net.Addr, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/xmpp-websocket", s.serveWebSocket)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: negotiateIn, IdleTimeout: negotiateIn}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
	s.serving.Go(func() { _ = h.Serve(l) })
	return l.Addr(), nil
}

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	// A page of any origin may connect: who logs in has a password, and no cookie.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"xmpp"}, OriginPatterns: []string{"*"}})
	if err != nil {
		return // it was answered
	}
	if c.Subprotocol() != "xmpp" {
		c.Close(websocket.StatusPolicyViolation, "the subprotocol is xmpp")
		return
	}
	c.SetReadLimit(maxStanza)
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	s.ServeClient(&socket{Conn: websocket.NetConn(context.Background(), c, websocket.MessageText), remote: net.TCPAddrFromAddrPort(remote)})
}

// socket is a WebSocket as a connection: each Write is a message, and what is read is one message after the other.
type socket struct {
	net.Conn
	remote net.Addr
}

func (c *socket) RemoteAddr() net.Addr { return c.remote }

// frames writes elements of a stream as messages.
func (c *socket) frames(b []byte, ends []int) error {
	from := 0
	for _, end := range ends {
		if _, err := c.Conn.Write(b[from:end]); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// Close does not wait for the other side's farewell for long.
func (c *socket) Close() error {
	c.Conn.SetDeadline(time.Now().Add(time.Second))
	return c.Conn.Close()
}
