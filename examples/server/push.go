package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
)

// This file is all that ties the server to the push library: what a host author has to write.
//
//  1. Make an Engine (newPushHost). It needs a way to send IQ stanzas: here a push.Router, which is given the server's way to route a stanza.
//  2. Give it the stanzas that are for it: enable and disable from clients (request), replies from push services (reply), and revocations (notice).
//     Announce the feature push.NS for accounts (see iq.go).
//  3. Raise an event wherever one of these happens: opened, closed, ackDelayed, hibernated, queued, resumed, archived, offline, groupchat. They are
//     called from account.go, sm.go, archive.go and route.go, in the account's lock, so that they come in their order.
//  4. Close the Engine when the server stops (Server.Close).
//
// Follow its advice on how long a session stays resumable, if you can (ResumeTimeout).

// pushHost is the server as the push engine sees it, and the engine as the server does.
type pushHost struct {
	srv    *Server
	engine *push.Engine
	router *push.Router

	mu       sync.Mutex
	sessions map[push.SessionID]*session
}

func newPushHost(s *Server) (*pushHost, error) {
	p := &pushHost{srv: s, sessions: make(map[push.SessionID]*session)}
	p.router = &push.Router{Host: s.domain, Send: p.send}
	var err error
	p.engine, err = push.New(push.Config{
		Host:       s.domain,
		Publisher:  p.router,
		Store:      s.cfg.Store,
		Policy:     s.cfg.pushPolicy(),
		Resumption: p,
		Logger:     s.log,
		Observer:   s.cfg.Observer,
	})
	return p, err
}

// pushPolicy is the push policy that the flags ask for.
func (c *Config) pushPolicy() push.Policy {
	p := c.Policy
	p.MaxResume, p.MaxErrors = c.MaxResume, c.MaxErrors
	return p
}

// Stanzas for the engine, and from it.

// send routes a publish, once what it tells of is kept: a phone that is woken finds it, whatever happens to the server. A push service that is not there is an answer too: the stanza comes back as an error, to reply.
func (p *pushHost) send(_ context.Context, _ string, iq []byte) error {
	st, err := element.Parse(iq)
	if err != nil {
		return err
	}
	if err := p.srv.keep.Settle(); err != nil {
		return err
	}
	p.srv.route(st)
	return nil
}

// reply takes IQ results and errors that are addressed to the server. It ignores those that answer no publish.
func (p *pushHost) reply(iq *element.Element) {
	if _, err := p.router.HandleReply(iq.AppendAlone(nil)); err != nil {
		p.srv.log.Warn("unusable reply", "from", iq.Get("from"), "err", err)
	}
}

// request answers a client that enables or disables push.
func (p *pushHost) request(x *session, iq *element.Element) *element.Element {
	req, err := push.ParseRequest(x.id, iq.AppendAlone(nil))
	if err != nil {
		return element.Error(iq, "modify", "bad-request")
	}
	answer := req.Answer(context.Background(), p.engine)
	if answer.Err != nil {
		p.srv.log.Error("push request failed", "account", x.id.Account, "err", answer.Err)
	}
	reply, err := element.Parse(answer.AppendXML(nil))
	if err != nil {
		return element.Error(iq, "wait", "internal-server-error")
	}
	return reply
}

// notice takes a message with which a push service revokes a node (XEP-0357 §8), and tells whether it was one. Who sent a stanza is known for
// sure in this server: clients' are stamped, components' are checked. From somebody who is no push service of the account it is a message like any other.
func (p *pushHost) notice(a *account, st *element.Element) bool {
	if st.Child("http://jabber.org/protocol/pubsub", "pubsub") == nil {
		return false
	}
	ev, err := push.ParseAffiliation(st.AppendAlone(nil))
	if err != nil || ev.Account != a.jid {
		return false
	}
	d, err := p.engine.Handle(context.Background(), ev)
	return err == nil && len(d.Changes) > 0
}

// ResumeTimeout implements push.Resumption: the engine wants a hibernated session to stay resumable for longer, or no longer.
func (p *pushHost) ResumeTimeout(id push.SessionID, timeout time.Duration, _ push.Reason) {
	p.mu.Lock()
	x := p.sessions[id]
	p.mu.Unlock()
	if x == nil {
		return
	}
	if timeout == 0 {
		timeout = p.srv.cfg.ResumeTimeout
	}
	x.resumption.reset(timeout)
}

// Events.

// tell raises an event. What the engine decides it does by itself; an error is the store's.
func (p *pushHost) tell(ev push.Event) {
	if err := p.engine.HandleTo(context.Background(), ev, nil); err != nil && !errors.Is(err, push.ErrClosed) {
		p.srv.log.Error("push event failed", "event", ev.Name(), "err", err)
	}
}

func (p *pushHost) opened(x *session) {
	p.mu.Lock()
	p.sessions[x.id] = x
	p.mu.Unlock()
	p.tell(push.SessionOpen{Session: x.id, JID: x.jid.String(), Client: x.client})
}

// restored takes up a session of before a restart. What it has not acknowledged was told of already if it had hibernated.
func (p *pushHost) restored(x *session, hibernated bool) {
	p.mu.Lock()
	p.sessions[x.id] = x
	p.mu.Unlock()
	p.tell(push.SessionOpen{Session: x.id, JID: x.jid.String(), Client: x.client})
	p.hibernated(x)
}

func (p *pushHost) closed(x *session) {
	p.mu.Lock()
	delete(p.sessions, x.id)
	p.mu.Unlock()
	p.tell(push.SessionClose{Session: x.id})
}

// ackDelayed is told of the stanzas in the queue from one on.
func (p *pushHost) ackDelayed(x *session, from int) {
	p.tell(push.AckDelayed{Session: x.id, Stanzas: x.unacknowledged(from)})
}

func (p *pushHost) hibernated(x *session) {
	p.tell(push.HibernationStart{Session: x.id, Stanzas: x.unacknowledged(0)})
}

func (p *pushHost) queued(x *session, o outgoing) {
	p.tell(push.StanzaQueued{Session: x.id, Stanza: o.stanza()})
}

func (p *pushHost) resumed(x *session) {
	p.tell(push.HibernationEnd{Session: x.id})
}

func (p *pushHost) archived(a *account, m *message) {
	p.tell(push.ArchiveAdded{Account: a.jid, Stanza: m.stanza()})
}

func (p *pushHost) offline(a *account, m *message) {
	p.tell(push.Offline{Account: a.jid, Stanza: m.stanza()})
}

func (p *pushHost) groupchat(a *account, m *message) {
	p.tell(push.Groupchat{Account: a.jid, Stanza: m.stanza()})
}

// Stanzas as the library wants them: with an ID that is the same in every event, and judged once.

func (x *session) unacknowledged(from int) []push.Stanza {
	queue := x.sm.queue[from:]
	sts := make([]push.Stanza, len(queue))
	for i := range queue {
		sts[i] = queue[i].stanza()
	}
	return sts
}

// stanza describes what waits for a session. A copy of a message is that message.
func (o *outgoing) stanza() push.Stanza {
	if o.msg != nil {
		return o.msg.stanza()
	}
	return describe(o.id, o.el)
}

func (m *message) stanza() push.Stanza {
	if m.described.ID == "" {
		m.described = describe(m.id, m.el)
	}
	return m.described
}

func describe(id string, el *element.Element) push.Stanza {
	st, err := push.ParseStanza(id, el.AppendAlone(nil))
	if err != nil {
		// A client has sent something that no rule can judge. It still has to be fetched.
		return push.Stanza{ID: id, Class: push.ClassPlain}
	}
	return st
}
