package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// The streams are this server's own, for stream management has to see and keep everything that goes out, and to move a session from one
// connection to another; a Session of mellium.im/xmpp is one connection, and its server side knows SASL PLAIN only. JIDs and SASL are mellium's.

const (
	nsTLS  = "urn:ietf:params:xml:ns:xmpp-tls"
	nsSASL = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsBind = "urn:ietf:params:xml:ns:xmpp-bind"
)

// ServeClient serves a client's connection from its first byte to its last.
func (s *Server) ServeClient(conn net.Conn) {
	t := newStream(conn, element.NSClient)
	if !s.admit(t) {
		conn.Close()
		return
	}
	defer s.dismiss(t)
	defer close(t.served)
	conn.SetDeadline(time.Now().Add(negotiateIn))
	a, err := s.login(t)
	if err != nil {
		s.log.Debug("login failed", "remote", conn.RemoteAddr(), "err", err)
		t.closeFor(err)
		t.flush()
		t.conn.Close()
		return
	}
	go t.pump()
	x, err := s.enter(t, a)
	if err != nil {
		s.log.Debug("no session", "account", a.jid, "err", err)
		t.closeFor(err)
		<-t.pumped
		return
	}
	t.conn.SetReadDeadline(time.Time{})
	err = x.read(t)
	if errors.Is(err, element.ErrXML) {
		t.close("not-well-formed")
	}
	s.route(x.disconnected(t, errors.Is(err, element.ErrClosed))...)
	t.closeFor(err)
	<-t.pumped
}

// login takes a client through STARTTLS and SASL.
func (s *Server) login(t *stream) (*account, error) {
	secure := false
	for {
		if err := s.greet(t); err != nil {
			return nil, err
		}
		trusted := secure || onThisMachine(t.conn)
		features := element.New(element.NSStream, "features")
		if !secure && s.tls != nil {
			start := element.New(nsTLS, "starttls")
			if !trusted {
				start.Add(element.New(nsTLS, "required"))
			}
			features.Add(start)
		}
		if trusted {
			features.Add(element.New(nsSASL, "mechanisms").Add(
				element.New(nsSASL, "mechanism").Add(sasl.ScramSha256.Name),
				element.New(nsSASL, "mechanism").Add(sasl.Plain.Name)))
		}
		t.sendBytes(streamElement(features))
		if err := t.flush(); err != nil {
			return nil, err
		}
		for tries := 0; ; tries++ {
			e, err := t.in.Next()
			if err != nil {
				return nil, err
			}
			switch {
			case e.Is(nsTLS, "starttls") && s.tls != nil && !secure:
				t.send(element.New(nsTLS, "proceed"))
				if err := t.flush(); err != nil {
					return nil, err
				}
				if err := t.startTLS(s.tls); err != nil {
					return nil, err
				}
				secure = true
			case e.Is(nsSASL, "auth") && trusted && tries < 3:
				a, err := s.authenticate(t, e)
				if err != nil {
					return nil, err
				}
				if a == nil {
					continue
				}
				return a, s.greet(t)
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

// streamElement gives the XML of an element that belongs to the stream itself; old clients want its prefix.
func streamElement(e *element.Element) []byte {
	b := []byte("<stream:" + e.Name.Local + ">")
	for _, c := range e.Children() {
		b = c.Append(b)
	}
	return append(b, "</stream:"+e.Name.Local+">"...)
}

// onThisMachine tells whether a connection is one that nobody can listen in to.
func onThisMachine(c net.Conn) bool {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	return !ok || a.IP.IsLoopback()
}

// authenticate carries out one SASL exchange. It returns no account if that failed and may be tried again.
func (s *Server) authenticate(t *stream, auth *element.Element) (*account, error) {
	var a *account
	find := func(user, authz []byte) *account {
		j, err := jid.New(string(user), s.domain, "")
		if err != nil || len(authz) > 0 && string(authz) != j.String() {
			return nil // acting for somebody else (RFC 4616 §2) is not for this server
		}
		return s.account(j)
	}
	var mechanism sasl.Mechanism
	switch auth.Get("mechanism") {
	case sasl.Plain.Name:
		mechanism = sasl.Plain
	case sasl.ScramSha256.Name:
		mechanism = sasl.ScramSha256
	default:
		return nil, s.refuse(t, "invalid-mechanism")
	}
	n := sasl.NewServer(mechanism, func(n *sasl.Negotiator) bool {
		user, password, authz := n.Credentials()
		a = find(user, authz)
		return a != nil && hmac.Equal(password, []byte(a.password))
	}, sasl.SaltedCredentials(func(user, authz []byte, _ string) ([]byte, []byte, int64, error) {
		if a = find(user, authz); a == nil {
			return nil, nil, 0, sasl.ErrAuthn
		}
		salt, salted := a.salted()
		return salt, salted, scramRounds, nil
	}))
	for e := auth; ; {
		if e.Is(nsSASL, "abort") {
			return nil, s.refuse(t, "aborted")
		}
		text := e.Text()
		if text == "=" {
			text = ""
		}
		in, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, s.refuse(t, "incorrect-encoding")
		}
		if len(in) == 0 && e == auth {
			// The mechanisms here want a first response, which may come separately.
			t.send(element.New(nsSASL, "challenge"))
		} else {
			more, out, err := n.Step(in)
			if err != nil || !more && a == nil {
				return nil, s.refuse(t, "not-authorized")
			}
			reply := base64.StdEncoding.EncodeToString(out)
			if !more {
				success := element.New(nsSASL, "success")
				if reply != "" {
					success.Add(reply)
				}
				t.send(success)
				return a, t.flush()
			}
			t.send(element.New(nsSASL, "challenge").Add(reply))
		}
		if err := t.flush(); err != nil {
			return nil, err
		}
		if e, err = t.in.Next(); err != nil {
			return nil, err
		}
		if !e.Is(nsSASL, "response") && !e.Is(nsSASL, "abort") {
			return nil, s.refuse(t, "malformed-request")
		}
	}
}

func (s *Server) refuse(t *stream, condition string) error {
	t.send(element.New(nsSASL, "failure").Add(element.New(nsSASL, condition)))
	return t.flush()
}

// scramRounds is the number of iterations of SCRAM (RFC 7677 §4).
const scramRounds = 4096

// salted returns what SCRAM needs of the account's password, which is worked out once.
func (a *account) salted() (salt, salted []byte) {
	a.scram.Do(func() {
		a.salt = make([]byte, 16)
		rand.Read(a.salt)
		a.saltedPassword = sasl.SCRAMSaltPassword(sha256.New, []byte(a.password), a.salt, scramRounds)
	})
	return a.salt, a.saltedPassword
}

// enter takes a client that has logged in to a session, by binding a resource or by resuming (XEP-0198 §5).
func (s *Server) enter(t *stream, a *account) (*session, error) {
	t.sendBytes(streamElement(element.New(element.NSStream, "features").Add(
		element.New(nsBind, "bind"),
		element.New(nsLegacy, "session").Add(element.New(nsLegacy, "optional")),
		element.New(nsSM, "sm"),
		element.New(nsCSI, "csi"))))
	for {
		e, err := t.in.Next()
		if err != nil {
			return nil, err
		}
		switch {
		case e.Is("", "iq") && e.Get("type") == "set" && e.Child(nsBind, "bind") != nil:
			x, out := a.bind(t, e)
			s.route(out...)
			if x != nil {
				return x, nil
			}
		case e.Is(nsSM, "resume"):
			if x := a.resume(t, e); x != nil {
				return x, nil
			}
		default:
			t.close("not-authorized")
			return nil, fmt.Errorf("<%s/> before binding", e.Name.Local)
		}
	}
}
