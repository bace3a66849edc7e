package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// ServeComponent serves the connection of an external component (XEP-0114), such as a push service.
func (s *Server) ServeComponent(conn net.Conn) {
	known, ok := s.meet(conn)
	if !ok {
		conn.Close()
		return
	}
	defer known()
	t := newStream(conn, element.NSComponent)
	if !s.admit(t) {
		conn.Close()
		return
	}
	defer s.dismiss(t)
	defer close(t.served)
	conn.SetDeadline(time.Now().Add(negotiateIn))
	t.in.Limit(maxStranger)
	go t.pump()
	var name string
	err := s.survive("a component's login", func() (err error) { name, err = s.shakeHands(t); return err })
	if err == nil {
		known()
		t.conn.SetReadDeadline(time.Time{})
		t.in.Limit(maxStanza)
		s.log.Info("component connected", "domain", name)
		err = s.survive("a component's stream", func() error { return s.readComponent(t, name) })
		s.mu.Lock()
		if s.components[name] == t {
			delete(s.components, name)
		}
		s.mu.Unlock()
		s.log.Info("component disconnected", "domain", name, "err", err)
	}
	t.closeFor(err)
	<-t.pumped
}

var errHandshake = errors.New("the component could not log in")

// shakeHands lets a component log in for a domain. One that is there already is replaced: most likely its connection is dead.
func (s *Server) shakeHands(t *stream) (name string, err error) {
	head, err := t.open(s.domain)
	if err != nil {
		return "", err
	}
	to, err := jid.Parse(head.Get("to"))
	id := newID()
	t.header(to.String(), id)
	if err != nil || to.Domain().String() != to.String() || to.String() == s.domain {
		t.close("host-unknown")
		return "", errHandshake
	}
	shake, err := t.in.Next()
	if err != nil {
		return "", err
	}
	sum := sha1.Sum([]byte(id + s.cfg.ComponentSecret))
	if !shake.Is("", "handshake") || !hmac.Equal([]byte(shake.Text()), []byte(hex.EncodeToString(sum[:]))) {
		t.close("not-authorized")
		return "", errHandshake
	}
	s.mu.Lock()
	old := s.components[to.String()]
	s.components[to.String()] = t
	s.mu.Unlock()
	if old != nil {
		old.close("conflict")
	}
	t.send(element.New("", "handshake"))
	return to.String(), nil
}

func (s *Server) readComponent(t *stream, name string) error {
	for {
		s.keep.Room()
		st, err := t.in.Next()
		if err != nil {
			return err
		}
		from, err := jid.Parse(st.Get("from"))
		if err != nil || from.Domainpart() != name {
			t.close("invalid-from")
			return errHandshake
		}
		if st.Name.Space == "" {
			s.route(st)
		}
	}
}

// componentNames returns the domains of the components that are connected.
func (s *Server) componentNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.components {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
