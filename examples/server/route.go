package main

import (
	"slices"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// Routing: what comes from clients, and what goes to accounts and components (RFC 6120 §10, RFC 6121 §8).

const (
	nsHints  = "urn:xmpp:hints"
	nsStanID = "urn:xmpp:sid:0"
)

// read handles what the client sends until the stream ends.
func (x *session) read(t *stream) error {
	for {
		x.acct.srv.keep.Room()
		e, err := t.in.Next()
		if err != nil {
			return err
		}
		x.acct.mu.Lock()
		mine := !x.ended && x.stream == t && !x.leaving
		if mine && e.Name.Space == "" && x.sm != nil {
			x.sm.in++
		}
		x.acct.mu.Unlock()
		if !mine {
			return element.ErrClosed
		}
		if e.Name.Space == "" {
			x.handle(e)
		} else if !x.nonza(t, e) {
			return element.ErrClosed
		}
	}
}

// nonza handles what is not a stanza. It returns false if the stream is at its end.
func (x *session) nonza(t *stream, e *element.Element) bool {
	defer x.acct.whole()()
	switch {
	case e.Is(nsSM, "enable"):
		if x.sm == nil && x.stream == t {
			x.transmit(x.manage(e))
		}
	case e.Is(nsSM, "r") && x.sm != nil:
		x.transmit(element.New(nsSM, "a", "h", decimal(x.sm.in)))
	case e.Is(nsSM, "a") && x.sm != nil:
		if !x.acknowledge(e.Get("h")) {
			t.close("undefined-condition")
			return false
		}
		if len(x.sm.queue) > 0 {
			x.await()
		}
	case e.Is(nsCSI, "active"):
		x.setInactive(false)
	case e.Is(nsCSI, "inactive"):
		x.setInactive(true)
	default:
		t.close("unsupported-stanza-type")
		return false
	}
	return true
}

// handle handles a stanza from the session's client and counts it as handled. That is committed together with what the stanza did, except for IQs: these may
// have to wait for what they write, and can be repeated.
func (x *session) handle(st *element.Element) {
	if st.Name.Local == "iq" {
		x.stanza(st)
		x.saveHandled()
		return
	}
	defer x.acct.srv.keep.Whole()()
	x.stanza(st)
	x.saveHandled()
}

// stanza does what a stanza says.
func (x *session) stanza(st *element.Element) {
	s := x.acct.srv
	st.Set("from", x.jid.String())
	if st.Name.Local != "message" && st.Name.Local != "presence" && st.Name.Local != "iq" {
		return
	}
	addressed := st.Get("to") != ""
	if !addressed && st.Name.Local == "message" {
		st.Set("to", x.acct.jid)
	}
	to, err := jid.Parse(st.Get("to"))
	if addressed && err != nil {
		x.answer(element.Error(st, "modify", "jid-malformed"))
		return
	}
	switch st.Name.Local {
	case "presence":
		s.route(x.presenceOut(st, addressed)...)
	case "iq":
		if !addressed || st.Get("to") == x.acct.jid || to.String() == s.domain {
			reply := x.iq(st)
			if st.Get("type") == "set" && s.keep.Settle() != nil {
				return
			}
			x.answer(reply)
			return
		}
		s.route(st)
	case "message":
		if !to.Bare().Equal(x.jid.Bare()) {
			x.sent(st)
		}
		s.route(st)
	}
}

// answer sends a reply, if there is one.
func (x *session) answer(reply *element.Element) {
	if reply == nil {
		return
	}
	x.acct.mu.Lock()
	defer x.acct.mu.Unlock()
	x.sendNew(reply.Copy().Set("to", x.jid.String()))
}

// sent archives a message that the client sends, and copies it to the account's other clients.
func (x *session) sent(st *element.Element) {
	a := x.acct
	a.mu.Lock()
	defer a.mu.Unlock()
	m := &message{el: st, at: time.Now(), id: newID()}
	a.store(m)
	a.srv.cluster.spread(a, m, true)
	a.carbons(m, "sent", func(o *session) bool { return o != x })
}

// route sends stanzas on their way, and error replies back.
func (s *Server) route(stanzas ...*element.Element) {
	for len(stanzas) > 0 {
		st := stanzas[0]
		stanzas = stanzas[1:]
		to, err := jid.Parse(st.Get("to"))
		if err != nil {
			continue // a reply to nobody
		}
		var back []*element.Element
		switch {
		case to.Domainpart() != s.domain:
			back = s.routeOut(st, to.Domainpart())
		case to.Localpart() == "":
			back = []*element.Element{s.serve(st)}
		default:
			if a := s.account(to); a != nil {
				back = a.receive(st, to)
			} else {
				back = []*element.Element{element.Error(st, "cancel", "service-unavailable")}
			}
		}
		for _, b := range back {
			if b != nil {
				stanzas = append(stanzas, b)
			}
		}
	}
}

// routeOut sends a stanza to a component. There are no other servers in this server's world.
func (s *Server) routeOut(st *element.Element, domain string) []*element.Element {
	s.mu.Lock()
	t := s.components[domain]
	s.mu.Unlock()
	if t == nil {
		if s.cluster.toComponent(st, domain) {
			return nil
		}
		return []*element.Element{element.Error(st, "cancel", "remote-server-not-found")}
	}
	t.send(st)
	return nil
}

// receive is how a stanza reaches an account.
func (a *account) receive(st *element.Element, to jid.JID) []*element.Element {
	a.mu.Lock()
	defer a.mu.Unlock()
	to1 := a.session(to.Resourcepart())
	if to1 == nil && to.Resourcepart() != "" && st.Name.Local != "message" && a.srv.cluster.toSession(st, to.String()) {
		return nil
	}
	switch st.Name.Local {
	case "message":
		return a.receiveMessage(st, to, to1)
	case "presence":
		return a.receivePresence(st, to1)
	}
	switch {
	case to1 != nil:
		to1.sendNew(st)
		return nil
	case to.Resourcepart() == "":
		return []*element.Element{a.srv.serveAccount(a, st)}
	}
	return []*element.Element{element.Error(st, "cancel", "service-unavailable")}
}

// receiveMessage follows RFC 6121 §8.5.2 and §8.5.3.
func (a *account) receiveMessage(st *element.Element, to jid.JID, to1 *session) []*element.Element {
	m := &message{el: st, at: time.Now(), id: newID()}
	switch typ := st.Get("type"); typ {
	case "error":
		if to1 != nil {
			to1.send(outgoing{el: st, id: m.id})
		}
		return nil
	case "headline":
		for _, x := range a.recipients(to1, a.available()) {
			x.send(outgoing{el: st, id: m.id})
		}
		return nil
	case "groupchat":
		if to1 != nil {
			to1.send(outgoing{el: st, id: m.id})
			return nil
		}
		if to.Resourcepart() == "" {
			a.srv.push.groupchat(a, m)
		}
		return []*element.Element{element.Error(st, "cancel", "service-unavailable")}
	}
	if notice := a.srv.push.notice(a, st); notice {
		return nil
	}
	a.store(m)
	a.srv.cluster.spread(a, m, false)
	to1s := a.recipients(to1, a.top())
	back := a.deliver(m, to1s)
	a.carbons(m, "received", func(x *session) bool { return !slices.Contains(to1s, x) })
	return back
}

// recipients is the one session that is addressed, else the others.
func (a *account) recipients(to1 *session, others []*session) []*session {
	if to1 != nil {
		return []*session{to1}
	}
	return others
}

// available returns the sessions that messages to the account may go to: those that said they are there, with a priority that is not negative.
func (a *account) available() []*session {
	var xs []*session
	for _, x := range a.sessions {
		if x.presence != nil && x.priority >= 0 {
			xs = append(xs, x)
		}
	}
	return xs
}

// top returns those of the available sessions that have the highest priority.
func (a *account) top() []*session {
	xs := a.available()
	best := 0
	for _, x := range xs {
		best = max(best, x.priority)
	}
	return slices.DeleteFunc(xs, func(x *session) bool { return x.priority < best })
}

// carbons sends copies of a message to the account's other clients that want them (XEP-0280).
func (a *account) carbons(m *message, direction string, other func(*session) bool) {
	if !wantsCarbons(m.el) {
		return
	}
	for _, x := range a.sessions {
		if !x.carbons || !other(x) {
			continue
		}
		o := outgoing{
			id: m.id,
			el: element.New("", "message", "from", a.jid, "to", x.jid.String(), "type", m.el.Get("type")).Add(
				element.New(nsCarbons, direction).Add(element.New("urn:xmpp:forward:0", "forwarded").Add(m.el))),
		}
		if direction == "received" {
			o.msg = m // having the copy is as good as having the message
		}
		x.send(o)
	}
}

func wantsCarbons(st *element.Element) bool {
	if st.Child(nsCarbons, "") != nil || st.Child(nsHints, "no-copy") != nil {
		return false // private, or a copy itself
	}
	switch st.Get("type") {
	case "chat":
		return true
	case "", "normal":
		return st.Child("", "body") != nil || st.Child("jabber:x:conference", "x") != nil || invitation(st)
	}
	return false
}
