package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

// The streams are this server's own, for stream management has to see and keep everything that goes out, and to move a session from one
// connection to another; a Session of mellium.im/xmpp is one connection, and its server side knows SASL PLAIN only. JIDs and SASL are mellium's.

const (
	nsTLS  = "urn:ietf:params:xml:ns:xmpp-tls"
	nsBind = "urn:ietf:params:xml:ns:xmpp-bind"
)

// ServeClient serves a client's connection from its first byte to its last.
func (s *Server) ServeClient(conn net.Conn) {
	known, ok := s.meet(conn)
	if !ok {
		conn.Close()
		return
	}
	defer known()
	t := newStream(conn, element.NSClient)
	if !s.admit(t) {
		conn.Close()
		return
	}
	defer s.dismiss(t)
	defer close(t.served)
	conn.SetDeadline(time.Now().Add(negotiateIn))
	t.in.Limit(maxStranger)
	var in *login
	err := s.survive("login", func() (err error) { in, err = s.login(t); return err })
	if err != nil {
		s.log.Debug("login failed", "remote", conn.RemoteAddr(), "err", err)
		t.closeFor(err)
		t.flush()
		t.conn.Close()
		return
	}
	t.in.Limit(maxStanza)
	go t.pump()
	var x *session
	err = s.survive("binding", func() (err error) { x, err = s.enter(t, in); return err })
	if err != nil {
		s.log.Debug("no session", "account", in.acct.jid, "err", err)
		t.closeFor(err)
		<-t.pumped
		return
	}
	known()
	t.conn.SetReadDeadline(time.Time{})
	err = s.survive("a client's stream", func() error { return x.read(t) })
	if errors.Is(err, element.ErrXML) || errors.Is(err, errBroken) {
		t.closeFor(err)
	}
	s.surviving("the end of a client's stream", func() { s.route(x.disconnected(t, errors.Is(err, element.ErrClosed))...) })
	t.closeFor(err)
	<-t.pumped
}

// login is a client that has logged in.
type login struct {
	acct *account
	// v2: with XEP-0388, whose success is still to be told, with this data of the mechanism's; request is what the client wants done with it, and client
	// the stable name that it gave itself.
	v2      bool
	data    []byte
	request *element.Element
	client  string
}

// login takes a client through STARTTLS and SASL.
func (s *Server) login(t *stream) (*login, error) {
	secure := false
	for {
		if err := s.greet(t); err != nil {
			return nil, err
		}
		trusted := secure || onThisMachine(t.conn)
		var features []*element.Element
		if !secure && s.tls != nil && !t.framed {
			start := element.New(nsTLS, "starttls")
			if !trusted {
				start.Add(element.New(nsTLS, "required"))
			}
			features = append(features, start)
		}
		if trusted {
			features = append(features, mechanisms(nsSASL, "mechanisms"), mechanisms(nsSASL2, "authentication").Add(inlineFeatures()))
		}
		t.sendOwn("features", features...)
		if err := t.flush(); err != nil {
			return nil, err
		}
		for tries := 0; ; tries++ {
			e, err := t.in.Next()
			if err != nil {
				return nil, err
			}
			switch {
			case e.Is(nsTLS, "starttls") && s.tls != nil && !secure && !t.framed:
				t.send(element.New(nsTLS, "proceed"))
				if err := t.flush(); err != nil {
					return nil, err
				}
				if err := t.startTLS(s.tls); err != nil {
					return nil, err
				}
				secure = true
			case (e.Is(nsSASL, "auth") || e.Is(nsSASL2, "authenticate")) && trusted && tries < 3:
				in, err := s.authenticate(t, e)
				if err != nil {
					return nil, err
				}
				if in == nil {
					continue
				}
				if in.v2 {
					return in, nil // the stream goes on
				}
				return in, s.greet(t)
			default:
				t.close("not-authorized")
				return nil, fmt.Errorf("<%s/> before logging in", e.Name.Local)
			}
			break
		}
	}
}

// greet exchanges stream headers.
func (s *Server) greet(t *stream) error {
	head, err := t.open(s.domain)
	if err != nil {
		return err
	}
	t.header(s.domain, newID())
	if to := head.Get("to"); to != "" && to != s.domain {
		t.close("host-unknown")
		return fmt.Errorf("a stream to %q", to)
	}
	return nil
}

// onThisMachine tells whether a connection is one that nobody can listen in to.
func onThisMachine(c net.Conn) bool {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	return !ok || a.IP.IsLoopback()
}

// enter takes a client that has logged in to a session, by binding a resource or by resuming (XEP-0198 §5).
func (s *Server) enter(t *stream, in *login) (*session, error) {
	if in.v2 {
		if x, done, err := s.enterInline(t, in); done || err != nil {
			return x, err
		}
	}
	t.sendOwn("features",
		element.New(nsBind, "bind"),
		element.New(nsLegacy, "session").Add(element.New(nsLegacy, "optional")),
		element.New(nsSM, "sm"),
		element.New(nsCSI, "csi"))
	for {
		e, err := t.in.Next()
		if err != nil {
			return nil, err
		}
		switch {
		case e.Is("", "iq") && e.Get("type") == "set" && e.Child(nsBind, "bind") != nil:
			resource := e.Child(nsBind, "bind").Child(nsBind, "resource").Text()
			x, out := in.acct.bind(t, cmp.Or(resource, newID()), in.client, func(x *session) {
				t.send(element.Result(e, element.New(nsBind, "bind").Add(element.New(nsBind, "jid").Add(x.jid.String()))))
			})
			s.route(out...)
			if x != nil {
				return x, nil
			}
			t.send(element.Error(e, "modify", "bad-request"))
		case e.Is(nsSM, "resume"):
			x, answer := in.acct.resume(t, e, func(_ *session, resumed *element.Element) { t.send(resumed) })
			if x != nil {
				return x, nil
			}
			t.send(answer)
		default:
			t.close("not-authorized")
			return nil, fmt.Errorf("<%s/> before binding", e.Name.Local)
		}
	}
}
