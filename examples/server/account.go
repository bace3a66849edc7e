package main

import (
	"iter"
	"slices"
	"sync"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// account is a user of this server. Its lock covers its sessions too, and is held while the push engine is told of an event, so that events
// are told in the order in which they happened. What has to go to other accounts is returned and routed after the lock is released.
type account struct {
	srv      *Server
	jid      string // bare
	password string

	scram scram

	mu       sync.Mutex
	sessions []*session // the oldest first
	roster   map[string]*contact
	pep      map[string]*pepNode
	prefs    archivePrefs
	stored   int        // messages archived since the start
	offline  []*message // the oldest first
	// offlineBytes is how large they are together.
	offlineBytes int
	book         chatBook // has a lock of its own
}

func newAccount(s *Server, j jid.JID, password string) *account {
	return &account{srv: s, jid: j.String(), password: password, roster: make(map[string]*contact), pep: make(map[string]*pepNode)}
}

// account returns the account that a JID of this server belongs to, or nil.
func (s *Server) account(j jid.JID) *account {
	if j.Domainpart() != s.domain {
		return nil
	}
	return s.accountNamed(j.Localpart())
}

func (s *Server) accountNamed(localpart string) *account {
	a, _ := s.accounts.Load(localpart)
	acct, _ := a.(*account)
	return acct
}

func (s *Server) allAccounts() iter.Seq[*account] {
	return func(yield func(*account) bool) {
		s.accounts.Range(func(_, a any) bool { return yield(a.(*account)) })
	}
}

// sessions returns the full JIDs of an account's sessions, hibernated ones included.
func (s *Server) sessions(localpart string) []string {
	a := s.accountNamed(localpart)
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var jids []string
	for _, x := range a.sessions {
		jids = append(jids, x.jid.String())
	}
	return jids
}

// session is one client connection; a resumption continues it. The lock of its account covers it.
type session struct {
	acct   *account
	id     push.SessionID
	jid    jid.JID
	stream *stream // nil while the session is hibernated
	ended  bool
	// leaving: the client is about to resume on another stream.
	leaving bool

	// client is a stable name of the client, if it has told one (XEP-0388).
	client string

	presence   *element.Element // what it announced, or nil while it is not available
	priority   int
	carbons    bool
	interested bool // in changes of the roster
	archivist  bool // has queried the archive
	inactive   bool // client state indication (XEP-0352)
	away       bool // the push engine knows it as away
	held       []outgoing
	sm         *acks // nil if stream management is not in use
	resumption watchdog
}

// maxSessions is how many sessions an account may have. For one more, the oldest of those that hibernate ends, or else the oldest of all.
const maxSessions = 50

// outgoing is a stanza for a session.
type outgoing struct {
	el *element.Element
	// id is the stanza's identity for the account, made up unless it is a message's.
	id string
	// msg is the message that el is a copy of; nil for what is not handed on if the session ends.
	msg *message
	// seq is its place in the queue of its session, in the database; told: the push engine knows that it is not acknowledged.
	seq  int64
	told bool
}

// bind makes a session for a client that has the resource from now on. It returns nil if that is no resource. A session that had it is replaced
// (RFC 6120 §7.7.2.2). The client is told by answer before anything else.
func (a *account) bind(t *stream, resource, client string, answer func(*session)) (*session, []*element.Element) {
	j, err := jid.MustParse(a.jid).WithResource(resource)
	if err != nil {
		return nil, nil
	}
	defer a.whole()()
	var out []*element.Element
	if old := a.session(j.Resourcepart()); old != nil {
		out = old.end("conflict")
	}
	if len(a.sessions) >= maxSessions {
		i := max(0, slices.IndexFunc(a.sessions, func(o *session) bool { return o.stream == nil }))
		out = append(out, a.sessions[i].end("policy-violation")...)
	}
	x := &session{acct: a, id: push.SessionID{Account: a.jid, ID: newID()}, jid: j, stream: t, client: client}
	x.resumption.save = x.saveUntil
	a.sessions = append(a.sessions, x)
	a.srv.push.opened(x)
	answer(x)
	return x, out
}

// whole locks the account, and lets what is written until the function that it returns is called be committed in one piece.
func (a *account) whole() (unlock func()) {
	end := a.srv.keep.Whole()
	a.mu.Lock()
	return func() {
		a.mu.Unlock()
		end()
	}
}

// session returns the session with a resource, or nil.
func (a *account) session(resource string) *session {
	for _, x := range a.sessions {
		if x.jid.Resourcepart() == resource {
			return x
		}
	}
	return nil
}

// disconnected says that reading from the session's stream has ended: in good order, or because the connection is lost.
func (x *session) disconnected(t *stream, inGoodOrder bool) []*element.Element {
	defer x.acct.whole()()
	switch {
	case x.ended || x.stream != t: // ended, or resumed on another stream
		return nil
	case x.acct.srv.stopping.Load() && x.sm != nil: // it is not the client that goes
		x.stream = nil
		return nil
	case (!inGoodOrder || x.leaving) && x.sm != nil && x.sm.resumeID != "":
		x.hibernate()
		return nil
	}
	return x.end("")
}

// end ends the session for good. What it has not acknowledged is handed on. It returns stanzas to route. It is called in account.whole.
func (x *session) end(condition string) []*element.Element {
	if x.ended {
		return nil
	}
	a := x.acct
	x.ended = true
	a.sessions = slices.DeleteFunc(a.sessions, func(o *session) bool { return o == x })
	x.resumption.stop()
	if x.stream != nil {
		x.stream.close(condition)
		x.stream = nil
	}
	out := x.announce(element.New("", "presence", "type", "unavailable"))
	if x.sm != nil {
		x.sm.stopWaiting()
		for _, o := range x.sm.queue {
			out = append(out, a.handOn(o)...)
		}
		x.forget()
	}
	a.srv.push.closed(x)
	return out
}

// handOn decides what becomes of a stanza that its session has not acknowledged and never will (RFC 6121 §8.5.3.2, XEP-0198 §4). A message
// goes to another resource, else to offline storage, unless a session has it already.
func (a *account) handOn(o outgoing) []*element.Element {
	if m := o.msg; m != nil {
		m.holders--
		if m.taken || m.holders > 0 {
			a.releaseMessage(m)
			return nil
		}
		return a.deliver(m, a.top())
	}
	if name := o.el.Name.Local; name == "iq" || name == "message" && o.el.Get("type") == "groupchat" {
		if e := element.Error(o.el, "wait", "recipient-unavailable"); e != nil {
			return []*element.Element{e}
		}
	}
	return nil
}

// endAll ends all sessions.
func (a *account) endAll(condition string) (out []*element.Element) {
	defer a.whole()()
	for len(a.sessions) > 0 {
		out = append(out, a.sessions[0].end(condition)...)
	}
	return out
}

// freeze stops the clocks of the sessions that are left when the server stops.
func (a *account) freeze() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.sessions {
		x.resumption.freeze()
		if x.sm != nil {
			x.sm.stopWaiting()
		}
	}
}

// send gives a stanza to the session, whatever state that is in.
func (x *session) send(o outgoing) {
	if x.ended {
		return
	}
	if x.inactive && canWait(o.el) {
		x.hold(o)
		return
	}
	if x.sm != nil {
		x.enqueue(o)
		return
	}
	x.transmit(o.el)
	if o.msg != nil {
		x.acct.take(o.msg)
	}
}

// transmit writes to the session's stream once all that was written before is kept: a client never has a message that the server forgets, to be given it
// again when its sender repeats it.
func (x *session) transmit(els ...*element.Element) {
	t := x.stream
	if t == nil {
		return
	}
	x.acct.srv.keep.After(func(err error) {
		if err == nil {
			t.send(els...)
		}
	})
}

// sendNew is send for a stanza that no other session gets.
func (x *session) sendNew(el *element.Element) { x.send(outgoing{el: el, id: newID()}) }

const nsCSI = "urn:xmpp:csi:0"

// canWait tells whether a client that nobody looks at can do without a stanza for now: presence and typing notifications.
func canWait(el *element.Element) bool {
	switch el.Name.Local {
	case "presence":
		t := el.Get("type")
		return t == "" || t == "unavailable"
	case "message":
		return el.Child("", "body") == nil && el.Child("http://jabber.org/protocol/chatstates", "") != nil && len(el.Children()) == 1
	}
	return false
}

// maxHeld is how many stanzas are held back for a client that nobody looks at.
const maxHeld = 1000

// hold keeps a stanza until the client is active again. It stays out of stream management and so notifies nobody (rule R13). Of presence only
// the newest from each sender is kept, and of typing notifications too. If that is too much all the same, it is sent.
func (x *session) hold(o outgoing) {
	x.held = slices.DeleteFunc(x.held, func(h outgoing) bool {
		return h.el.Name == o.el.Name && h.el.Get("from") == o.el.Get("from")
	})
	if o.msg != nil {
		x.acct.take(o.msg)
		o.msg = nil
	}
	x.held = append(x.held, o)
	if len(x.held) > maxHeld {
		x.release()
	}
}

// release sends what was held back.
func (x *session) release() {
	inactive, held := x.inactive, x.held
	x.inactive, x.held = false, nil
	for _, o := range held {
		x.send(o)
	}
	x.inactive = inactive
}

// setInactive follows the client's state.
func (x *session) setInactive(inactive bool) {
	x.inactive = inactive
	if !inactive {
		x.acct.srv.push.becameActive(x)
		x.release()
	}
}
