package main

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// This file makes several of these servers one. For push that is all in package cluster/jetstream: joinCluster returns a Node, which takes the place of the
// Engine. The rest is what a server that knows no cluster needs to be one at all, as little as will do: who has which session and component, messages to
// them, copies for everybody's archive, and sessions that are resumed at another node. It goes over the same NATS, and unlike the push it may lose what a
// dying node had in its hands.

// ClusterConfig is what the server's flags say of the cluster; the zero value is a server of its own.
type ClusterConfig struct {
	// Node is this server's name, Listen where the others connect, and Routes where it connects to them.
	Node, Listen string
	Routes       []string
	Secret       string
	Lease        time.Duration
}

// clustered is the server as a node.
type clustered struct {
	srv  *Server
	name string
	nats *embedded.Server
	node *jetstream.Node

	mu sync.Mutex
	// others are the other nodes with what they have.
	others map[string]*presenceOf
	// returns are the nodes that sent an IQ to a component here, by the component and the ID, which cannot be guessed.
	returns map[[2]string]string
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// presenceOf is what a node has, as it says every second and when that changes.
type presenceOf struct {
	Node       string
	Sessions   []string // full JIDs
	Components []string
	at         time.Time
}

// between is what nodes say to each other.
type between struct {
	From string
	// XML is a stanza, to be routed by the node that gets it; or a message for an account.
	XML []byte
	// Account, ID, At, Stored and Sent are of a message: whose it is, its identity, whether it is in the archive, and whether the account sent it.
	Account, ID  string
	At           int64
	Stored, Sent bool
}

const forgetNode = 3 * time.Second

// joinCluster starts the embedded NATS and joins.
func joinCluster(s *Server, cfg push.Config) (*clustered, error) {
	cc := s.cfg.Cluster
	dir := ""
	if s.cfg.Data != "" {
		dir = filepath.Join(s.cfg.Data, "nats")
	}
	srv, err := embedded.Start(embedded.Config{Dir: dir, Node: cc.Node, Cluster: cc.Listen, Routes: cc.Routes, Secret: cc.Secret, Logger: s.log})
	if err != nil {
		return nil, err
	}
	c := &clustered{srv: s, name: cc.Node, nats: srv, others: make(map[string]*presenceOf), returns: make(map[[2]string]string)}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // others may start later, and the machine be busy; its log says what it waits for
	defer cancel()
	c.node, err = jetstream.Join(ctx, jetstream.Config{Conn: srv.Conn(), Node: cc.Node, Push: cfg, Lease: cc.Lease})
	if err != nil {
		srv.Close()
		return nil, err
	}
	return c, nil
}

// start takes part in what the servers say to each other.
func (c *clustered) start() error {
	conn := c.nats.Conn()
	for subject, f := range map[string]func(*nats.Msg){
		"server.presence": c.heard, "server.message": c.message, "server.resume": c.give, "server.node." + c.name: c.stanza,
	} {
		f := func(m *nats.Msg) { c.srv.surviving("another node's "+subject, func() { f(m) }) }
		if _, err := conn.Subscribe(subject, f); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			c.announce()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return nil
}

// close leaves, after the Node is closed.
func (c *clustered) close() {
	c.stop()
	c.done.Wait()
	c.nats.Close()
}

// announce says what this node has.
func (c *clustered) announce() {
	p := presenceOf{Node: c.name, Components: c.srv.componentNames()}
	for a := range c.srv.allAccounts() {
		a.mu.Lock()
		for _, x := range a.sessions {
			p.Sessions = append(p.Sessions, x.jid.String())
		}
		a.mu.Unlock()
	}
	c.say("server.presence", p)
}

func (c *clustered) say(subject string, v any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = c.nats.Conn().Publish(subject, data)
	}
	if err != nil {
		c.srv.log.Warn("not said to the other nodes", "what", subject, "err", err)
	}
}

func (c *clustered) heard(m *nats.Msg) {
	var p presenceOf
	if json.Unmarshal(m.Data, &p) != nil || p.Node == c.name {
		return
	}
	p.at = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others[p.Node] = &p
	if len(c.returns) > 10_000 { // replies that never came
		clear(c.returns)
	}
}

// nodeOf returns the node that has what is asked for, or "".
func (c *clustered) nodeOf(has func(*presenceOf) bool) string {
	if c == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.others)) {
		if p := c.others[name]; time.Since(p.at) < forgetNode && has(p) {
			return name
		}
	}
	return ""
}

// elsewhere tells whether an account has a session on another node.
func (c *clustered) elsewhere(account string) bool {
	return c.nodeOf(func(p *presenceOf) bool {
		return slices.ContainsFunc(p.Sessions, func(j string) bool { return strings.HasPrefix(j, account+"/") })
	}) != ""
}

// forward sends a stanza to the node that has the session or component that it is for, and tells whether there is one.
func (c *clustered) forward(st *element.Element, has func(*presenceOf) bool) bool {
	node := c.nodeOf(has)
	if node != "" {
		c.say("server.node."+node, between{From: c.name, XML: st.AppendAlone(nil)})
	}
	return node != ""
}

func (c *clustered) toSession(st *element.Element, full string) bool {
	return c.forward(st, func(p *presenceOf) bool { return slices.Contains(p.Sessions, full) })
}

func (c *clustered) toComponent(st *element.Element, domain string) bool {
	return c.forward(st, func(p *presenceOf) bool { return slices.Contains(p.Components, domain) })
}

// stanza routes what another node has sent here.
func (c *clustered) stanza(m *nats.Msg) {
	var b between
	if json.Unmarshal(m.Data, &b) != nil {
		return
	}
	st, err := element.Parse(b.XML)
	if err != nil {
		return
	}
	if id := st.Get("id"); st.Name.Local == "iq" && st.Get("from") == c.srv.domain && id != "" {
		c.mu.Lock()
		c.returns[[2]string{st.Get("to"), id}] = b.From
		c.mu.Unlock()
	}
	c.srv.route(st)
}

// returned sends the reply to an IQ back to the node that it came from, and tells whether it came from one.
func (c *clustered) returned(st *element.Element) bool {
	if c == nil {
		return false
	}
	key := [2]string{st.Get("from"), st.Get("id")}
	c.mu.Lock()
	node := c.returns[key]
	delete(c.returns, key)
	c.mu.Unlock()
	if node != "" {
		c.say("server.node."+node, between{From: c.name, XML: st.AppendAlone(nil)})
	}
	return node != ""
}

// spread gives a message of an account to the other nodes: for their copy of its archive, and for the sessions that they have.
func (c *clustered) spread(a *account, m *message, sent bool) {
	if c != nil {
		c.say("server.message", between{From: c.name, XML: m.el.AppendAlone(nil), Account: a.jid, ID: m.id, At: m.at.UnixMilli(), Stored: m.stored, Sent: sent})
	}
}

// message takes one. The push library was told of it where it came in.
func (c *clustered) message(msg *nats.Msg) {
	var b between
	if json.Unmarshal(msg.Data, &b) != nil || b.From == c.name {
		return
	}
	st, err := element.Parse(b.XML)
	if err != nil {
		return
	}
	local, _, _ := strings.Cut(b.Account, "@")
	a := c.srv.accountNamed(local)
	if a == nil {
		return
	}
	m := &message{id: b.ID, el: st, at: time.UnixMilli(b.At), stored: b.Stored}
	defer a.whole()()
	if m.stored {
		a.keepMessage(m)
	}
	if b.Sent {
		a.carbons(m, "sent", func(*session) bool { return true })
		return
	}
	var to1 *session
	if _, resource, ok := strings.Cut(st.Get("to"), "/"); ok {
		to1 = a.session(resource)
	}
	to := a.recipients(to1, a.top())
	for _, x := range to {
		x.send(outgoing{el: st, id: m.id, msg: m})
	}
	a.carbons(m, "received", func(x *session) bool { return !slices.Contains(to, x) })
}

// moving is a session on its way to another node.
type moving struct {
	ID, Resource, Client, ResumeID string
	In, Acked                      uint32
	Carbons, Interested, Archivist bool
	Presence                       []byte
	Priority                       int
	Queue                          []movingStanza
}

type movingStanza struct {
	ID        string
	XML       []byte
	Message   bool
	Told      bool
	MessageAt int64
}

// ask is who wants to resume what.
type ask struct{ From, Account, Previd string }

// fetch gets a session from the node that has it, to be resumed here. It returns false if none has.
func (c *clustered) fetch(a *account, previd string) bool {
	if c == nil || previd == "" {
		return false
	}
	data, err := json.Marshal(ask{c.name, a.jid, previd})
	if err != nil {
		return false
	}
	msg, err := c.nats.Conn().Request("server.resume", data, 2*time.Second)
	var mv moving
	if err != nil || json.Unmarshal(msg.Data, &mv) != nil {
		return false
	}
	full, err := jid.MustParse(a.jid).WithResource(mv.Resource)
	if err != nil {
		return false
	}
	defer a.whole()()
	x := &session{
		acct: a, id: push.SessionID{Account: a.jid, ID: mv.ID}, jid: full, client: mv.Client, carbons: mv.Carbons, interested: mv.Interested,
		archivist: mv.Archivist, priority: mv.Priority, sm: &acks{resumeID: mv.ResumeID, in: mv.In, acked: mv.Acked},
	}
	if len(mv.Presence) > 0 {
		x.presence, _ = element.Parse(mv.Presence)
	}
	x.resumption.save = x.saveUntil
	for _, q := range mv.Queue {
		el, err := element.Parse(q.XML)
		if err != nil {
			return false
		}
		o := outgoing{el: el, id: q.ID, seq: x.sm.seq, told: q.Told}
		if q.Message {
			o.msg = &message{id: q.ID, el: el, at: time.UnixMilli(q.MessageAt), holders: 1}
		}
		x.sm.seq++
		x.sm.queue = append(x.sm.queue, o)
		x.sm.bytes += o.el.Size()
	}
	a.sessions = append(a.sessions, x)
	p := a.srv.push
	p.mu.Lock()
	p.sessions[x.id] = x
	p.mu.Unlock()
	x.save()
	return true
}

// give lets go of a session that its client resumes at another node. Only the node that has it answers.
func (c *clustered) give(msg *nats.Msg) {
	var q ask
	if json.Unmarshal(msg.Data, &q) != nil || q.From == c.name {
		return
	}
	local, _, _ := strings.Cut(q.Account, "@")
	a := c.srv.accountNamed(local)
	if a == nil {
		return
	}
	go func() { // it may have to wait for a connection to end
		for {
			unlock := a.whole()
			i := slices.IndexFunc(a.sessions, func(x *session) bool { return x.sm != nil && x.sm.resumeID == q.Previd })
			if i < 0 {
				unlock()
				return
			}
			x := a.sessions[i]
			if old := x.stream; old != nil { // its client has noticed before us that the connection is dead
				x.leaving = true
				old.close("conflict")
				unlock()
				<-old.served
				continue
			}
			mv := moving{
				ID: x.id.ID, Resource: x.jid.Resourcepart(), Client: x.client, ResumeID: x.sm.resumeID, In: x.sm.in, Acked: x.sm.acked,
				Carbons: x.carbons, Interested: x.interested, Archivist: x.archivist, Priority: x.priority,
			}
			if x.presence != nil {
				mv.Presence = x.presence.AppendAlone(nil)
			}
			for _, o := range x.sm.queue {
				m := movingStanza{ID: o.id, XML: o.el.AppendAlone(nil), Message: o.msg != nil, Told: o.told}
				if o.msg != nil {
					m.MessageAt = o.msg.at.UnixMilli()
				}
				mv.Queue = append(mv.Queue, m)
			}
			x.ended = true
			a.sessions = slices.Delete(a.sessions, i, i+1)
			x.resumption.stop()
			x.sm.stopWaiting()
			x.forget()
			p := a.srv.push
			p.mu.Lock()
			delete(p.sessions, x.id)
			delete(p.bindings, x.id)
			p.mu.Unlock()
			unlock()
			data, err := json.Marshal(mv)
			if err == nil {
				err = msg.Respond(data)
			}
			if err != nil {
				c.srv.log.Warn("session not moved", "session", x.id.ID, "err", err)
			}
			return
		}
	}()
}
