package main

import (
	"cmp"
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
//     Announce the features of offer for accounts (see iq.go).
//  3. Raise an event wherever one of these happens: opened, restored, closed, ackDelayed, acknowledged,
//     hibernated, queued, resumed, archived, offline, groupchat, becameActive, announced, subscriptionKept, wasPublished, chatChanged. They are
//     called from account.go, sm.go, archive.go and route.go, in the account's lock, so that they come in their order.
//  4. Answer what it asks of the server: how long a session can be resumed (ResumeTimeout), what is known of a chat (Chat in bookmarks.go), how many
//     requests for subscription there are (PendingSubscriptions in active.go).
//  5. Close the Engine when the server stops (Server.Close).

// pushHost is the server as the push engine sees it, and the engine as the server does.
type pushHost struct {
	srv    *Server
	engine pushEngine
	router *push.Router

	mu       sync.Mutex
	sessions map[push.SessionID]*session
	bindings map[push.SessionID]binding
}

// pushEngine is what the server needs of a push.Engine. A node of a cluster has it too.
type pushEngine interface {
	push.EventHandler
	HandleTo(ctx context.Context, ev push.Event, d *push.Decision) error
	Inspect(ctx context.Context, account string) (push.AccountStatus, error)
	Services() []push.ServiceStatus
	Close(ctx context.Context) error
}

// binding is the registration that a session has.
type binding struct {
	push.Key
	bound bool
	// superseded: a newer session of the same device has it.
	superseded bool
}

func newPushHost(s *Server) (*pushHost, error) {
	p := &pushHost{srv: s, sessions: make(map[push.SessionID]*session), bindings: make(map[push.SessionID]binding)}
	s.push = p // what was left of before a restart may be sent, and answered, before New has returned
	p.router = &push.Router{Host: s.domain, Send: p.send}
	cfg := push.Config{
		Host:          s.domain,
		Publisher:     p.router,
		Store:         s.cfg.Store,
		Policy:        s.cfg.pushPolicy(),
		Resumption:    p,
		Subscriptions: p,
		Chats:         p,
		Logger:        s.log,
		Observer:      push.Observers(s.cfg.Observer, p.observer()),
	}
	var err error
	if s.cfg.Cluster.Node != "" {
		cfg.Store, cfg.Chats, cfg.Subscriptions = nil, nil, nil // the cluster keeps the registrations, and asks nobody
		if s.cluster, err = joinCluster(s, cfg); err != nil {
			return nil, err
		}
		p.engine = s.cluster.node
		return p, nil
	}
	p.engine, err = push.New(cfg)
	return p, err
}

// pushPolicy is the push policy that the flags ask for.
func (c *Config) pushPolicy() push.Policy {
	p := c.Policy
	p.MaxResume, p.MaxErrors = c.MaxResume, c.MaxErrors
	return p
}

// Stanzas for the engine, and from it.

// send routes a publish. It does not wait until what it tells of is kept, as everything does that a client is sent: a phone that is woken may be here before the
// disk is done, and waits then. If the server is killed before, the phone was woken for a message that nobody was told is accepted; its sender sends it again.
// A push service that is not there is an answer too: the stanza comes back as an error, to reply.
func (p *pushHost) send(_ context.Context, _ string, iq []byte) error {
	st, err := element.Parse(iq)
	if err != nil {
		return err
	}
	p.srv.route(st)
	return nil
}

// offer is what clients are offered besides XEP-0357, and so what accounts announce. A cluster asks about no contacts, and its log has no texts.
func (p *pushHost) offer() push.Offer {
	alone := p.srv.cfg.Cluster.Node == ""
	return push.Offer{Contacts: alone, Presence: true, Push2: true, Archive: true, Content: alone}
}

// reply takes IQ results and errors, and messages that are errors, that are addressed to the server. It ignores those that answer no publish.
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
	p.srv.keep.Do("UPDATE session SET extended = ? WHERE id = ?", timeout != 0, id.ID)
	x.resumption.reset(cmp.Or(timeout, p.srv.cfg.ResumeTimeout))
}

// Events.

// tellIn is how long an event may take: the store of an Engine, or the log of a cluster, may not answer.
const tellIn = 15 * time.Second

// tell raises an event. What the engine decides it does by itself; an error is the store's.
func (p *pushHost) tell(ev push.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), tellIn)
	defer cancel()
	if err := p.engine.HandleTo(ctx, ev, nil); err != nil && !errors.Is(err, push.ErrClosed) {
		p.srv.log.Error("push event failed", "event", ev.Name(), "err", err)
	}
}

func (p *pushHost) opened(x *session) {
	p.mu.Lock()
	p.sessions[x.id] = x
	p.mu.Unlock()
	p.tell(push.SessionOpen{Session: x.id, JID: x.jid.String(), Client: x.client})
}

// restored takes up a session of before a restart. If it had hibernated then, the engine was told of what it had not acknowledged; what came in the last
// moment it is told again, for that may not have been kept.
func (p *pushHost) restored(x *session, b binding, hibernated, extended bool, since time.Time) {
	p.mu.Lock()
	p.sessions[x.id], p.bindings[x.id] = x, b
	p.mu.Unlock()
	p.tell(push.SessionRestored{
		Session: x.id, JID: x.jid.String(), Client: x.client, Bound: b.Key, IsBound: b.bound, Superseded: b.superseded, Hibernated: hibernated, Extended: extended,
	})
	if !hibernated {
		p.hibernated(x)
		return
	}
	for i := range x.sm.queue {
		o := &x.sm.queue[i]
		o.told = true
		if o.msg != nil && !o.msg.at.Before(since) {
			p.queued(x, o)
		}
	}
}

// observer follows which session has which registration, so that it still has it after a restart. It is called in the course of Handle, so it leaves the
// account's lock alone.
func (p *pushHost) observer() *push.Observer {
	follow := func(account string, changes []push.Change) {
		for _, c := range changes {
			if c.Session == "" {
				continue
			}
			b := binding{Key: c.Key, bound: true}
			switch c.Kind {
			case push.ChangeAdded, push.ChangeUpdated, push.ChangeEnabled, push.ChangeBound:
			case push.ChangeUnbound:
				b.superseded = c.Reason == push.ReasonNewerSession
				b.bound = b.superseded
			default:
				continue
			}
			p.bind(push.SessionID{Account: account, ID: c.Session}, b)
		}
	}
	return &push.Observer{
		Decided: func(_ uint64, _ time.Time, _ push.Event, d *push.Decision, _ time.Duration) {
			follow(d.Account, d.Changes)
		},
		Affected: func(account string, _ time.Time, e *push.Effects) { follow(account, e.Changes) },
	}
}

func (p *pushHost) bind(id push.SessionID, b binding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[id] == nil {
		return
	}
	p.bindings[id] = b
	p.srv.keep.Do("UPDATE session SET service = ?, node = ?, bound = ?, superseded = ? WHERE id = ?", b.Service, b.Node, b.bound, b.superseded, id.ID)
}

// bindingOf returns the registration that a session has.
func (p *pushHost) bindingOf(id push.SessionID) binding {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bindings[id]
}

func (p *pushHost) closed(x *session) {
	p.mu.Lock()
	delete(p.sessions, x.id)
	delete(p.bindings, x.id)
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

func (p *pushHost) queued(x *session, o *outgoing) {
	o.told = true
	p.tell(push.StanzaQueued{Session: x.id, Stanza: x.acct.knows(o.stanza())})
}

// acknowledged is told of stanzas that the client has acknowledged at last.
func (p *pushHost) acknowledged(x *session, ids []string) {
	if len(ids) > 0 {
		p.tell(push.Acknowledged{Session: x.id, IDs: ids})
	}
}

func (p *pushHost) resumed(x *session) {
	p.tell(push.HibernationEnd{Session: x.id})
}

func (p *pushHost) archived(a *account, m *message) {
	p.tell(push.ArchiveAdded{Account: a.jid, Stanza: a.knows(m.stanza())})
}

func (p *pushHost) offline(a *account, m *message) {
	p.tell(push.Offline{Account: a.jid, Stanza: a.knows(m.stanza())})
}

func (p *pushHost) groupchat(a *account, m *message) {
	p.tell(push.Groupchat{Account: a.jid, Stanza: a.knows(m.stanza())})
}

// Stanzas as the library wants them: with an ID that is the same in every event, and judged once.

func (x *session) unacknowledged(from int) []push.Stanza {
	queue := x.sm.queue[from:]
	sts := make([]push.Stanza, len(queue))
	for i := range queue {
		sts[i] = queue[i].stanza()
		queue[i].told = true
	}
	return x.acct.knowAll(sts)
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
	st := m.described
	st.XML = string(m.el.AppendAlone(nil)) // for who may have it, encrypted; not kept with what waits here
	return st
}

func describe(id string, el *element.Element) push.Stanza {
	st, err := push.ParseStanza(id, el.AppendAlone(nil))
	if err != nil {
		// A client has sent something that no rule can judge. It still has to be fetched.
		return push.Stanza{ID: id, Class: push.ClassPlain}
	}
	return st
}
