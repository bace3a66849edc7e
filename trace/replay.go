package trace

import (
	"fmt"
	"slices"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/internal/deadline"
)

// Line is one line of a replay's output. Kind says which of the fields mean something.
type Line struct {
	// Kind is "decision", "publish", "reply", "registration", "resume-timeout" or "drop".
	Kind string `json:"kind"`
	At   int64  `json:"at"`
	// Event is the number of the event that was decided.
	Event int    `json:"event,omitempty"`
	Type  string `json:"type,omitempty"`
	User  string `json:"user,omitempty"`
	// Session is set for resume-timeout, for a decision about a session that is not known, and for a registration that a session got or lost.
	Session string `json:"session,omitempty"`
	Service string `json:"service,omitempty"`
	// Node is nil where there is no registration.
	Node   *string `json:"node,omitempty"`
	Notify *bool   `json:"notify,omitempty"`
	Class  string  `json:"class,omitempty"`
	Rule   string  `json:"rule,omitempty"`
	Change string  `json:"change,omitempty"`
	// Seconds is a resume-timeout's; 0 means the host's normal time.
	Seconds *int64 `json:"seconds,omitempty"`
	// Reason is a token, of push.Reason or of push.Outcome for a reply; Text says it to people.
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"`
	// Detail is the error condition of a registration that was disabled, and the like.
	Detail  string   `json:"detail,omitempty"`
	Stanzas []string `json:"stanzas,omitempty"`
	Count   *int     `json:"count,omitempty"`
	// Events are the numbers of the events that a publish or drop came from.
	Events []uint64 `json:"events,omitempty"`
	// Try is that of a publish, if it is not the first.
	Try int `json:"try,omitempty"`
}

// Replay decides the events of a trace in the trace's own time. The same trace gives the same lines. Not safe for simultaneous use.
type Replay struct {
	out      func(*Line)
	policy   *push.Policy
	live     bool // replies come from the trace
	accounts map[string]*account
	services map[string]*service
	queue    deadline.Queue[*node]
	// Used again and again.
	d            push.Decision
	keys         []push.Key
	l            Line
	n            push.Notification
	due, sent, e push.Effects
	no           bool // stays false
	seconds      int64
}

// node is an account or a service in the queue of deadlines.
type node struct {
	deadline.Item
	account *account
	service *service
}

type account struct {
	*push.Account
	name    string
	node    node
	flights map[push.Key]time.Time // when the answer is given up
	pruned  time.Time
}

type service struct {
	gate  *push.Service
	node  node
	ready []ref
}

type ref struct {
	a *account
	k push.Key
}

// NewReplay returns a Replay that gives its lines to out, which must not keep them.
func NewReplay(out func(*Line)) *Replay {
	r := &Replay{out: out, accounts: make(map[string]*account), services: make(map[string]*service)}
	r.policy = &push.Policy{Causes: 4096}
	return r
}

// Run reads a whole trace. Whatever was decided before an error has been given out.
func (r *Replay) Run(in *Reader) error {
	for {
		rec, err := in.Next()
		if err != nil {
			return err
		}
		if err := r.Step(rec); err != nil {
			return &Error{rec.Line, err}
		}
	}
}

// Step takes one line of the trace. The only error is a config line that cannot be used.
func (r *Replay) Step(rec *Record) error {
	if c := rec.Config; c != nil {
		p := c.Policy.Push()
		if p.Causes == 0 {
			p.Causes = r.policy.Causes
		}
		if err := p.Validate(); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		r.policy, r.live = &p, c.Replies == "trace"
		return nil
	}
	now := rec.Time()
	r.Advance(now)
	switch {
	case rec.Event != nil:
		r.event(rec, now)
	case rec.Reply != nil && r.live:
		r.reply(rec.Reply, now)
	case rec.Account != nil:
		r.known(rec.Account, now)
	}
	return nil
}

// Advance lets the time pass until now: what waits goes out, what was not answered is given up. At the end of a trace, call it with
// a time that is late enough for what still waits.
func (r *Replay) Advance(now time.Time) {
	for {
		at := r.queue.Next()
		n, ok := r.queue.Pop(now)
		if !ok {
			return
		}
		if n.service != nil {
			r.pump(n.service, at)
			continue
		}
		a := n.account
		for _, k := range timedOut(a.flights, at) {
			r.end(a, k, push.Reply{Missing: true}, at)
		}
		r.settle(a, at)
	}
}

// Finish lets everything go out that waits for nothing but time, and stops when what is left depends on replies that are not in the trace.
func (r *Replay) Finish() {
	var last time.Time
	for range 10000 {
		at := r.queue.Next()
		if at.IsZero() || !last.IsZero() && at.Sub(last) > 24*time.Hour {
			return
		}
		last = at
		r.Advance(at)
	}
}

func timedOut(flights map[push.Key]time.Time, now time.Time) (keys []push.Key) {
	for k, at := range flights {
		if !now.Before(at) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, push.Key.Compare)
	return keys
}

func (r *Replay) account(name string) *account {
	a := r.accounts[name]
	if a == nil {
		a = &account{Account: push.NewAccount(name, r.policy, nil), name: name}
		a.node.account = a
		r.accounts[name] = a
	}
	return a
}

func (r *Replay) event(rec *Record, now time.Time) {
	subject := rec.Event.Subject()
	name, session := subject.Account, subject.ID
	if name == "" {
		no := false
		r.out(&Line{Kind: "decision", At: rec.At, Event: rec.Number, Type: rec.Type, Session: session, Notify: &no,
			Rule: push.RuleNone.String(), Reason: push.ReasonUnknownSession.String(), Text: push.ReasonUnknownSession.Sentence()})
		return
	}
	a := r.account(name)
	if now.Sub(a.pruned) > time.Minute {
		a.Prune(now)
		a.pruned = now
	}
	a.Handle(rec.Event, push.Facts{Now: now, Number: uint64(rec.Number)}, &r.d)
	r.decision(a, rec, session)
	r.effects(a, &r.d.Effects, now)
	if _, gone := rec.Event.(push.AccountRemoved); gone {
		r.forget(a, now)
		return
	}
	r.settle(a, now)
}

func (r *Replay) decision(a *account, rec *Record, session string) {
	d := &r.d
	base := Line{Kind: "decision", At: rec.At, Event: rec.Number, Type: rec.Type, User: a.name}
	if d.Reason != push.ReasonNone {
		r.l = base
		r.l.Notify, r.l.Rule, r.l.Reason, r.l.Text = &r.no, push.RuleNone.String(), d.Reason.String(), d.Reason.Sentence()
		if d.Reason == push.ReasonUnknownSession {
			r.l.Session = session
		}
		r.out(&r.l)
		return
	}
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		r.l = base
		l := &r.l
		l.Service, l.Node, l.Notify = v.Service, &v.Node, &v.Notify
		l.Class, l.Rule, l.Reason, l.Text, l.Detail = v.Class.String(), v.Rule.String(), v.Reason.String(), v.Reason.Sentence(), v.Detail
		l.Stanzas = v.Stanzas
		r.out(l)
	}
}

func (r *Replay) effects(a *account, e *push.Effects, now time.Time) {
	at := now.UnixMilli()
	for i := range e.Changes {
		c := &e.Changes[i]
		r.l = Line{Kind: "registration", At: at, User: a.name, Service: c.Service, Node: &c.Node,
			Change: string(c.Kind), Session: c.Session, Reason: c.Reason.String(), Text: c.Reason.Sentence(), Detail: c.Detail}
		r.out(&r.l)
	}
	for i := range e.Drops {
		d := &e.Drops[i]
		r.l = Line{Kind: "drop", At: at, User: a.name, Service: d.Service, Node: &d.Node, Class: d.Class.String(),
			Reason: d.Reason.String(), Text: d.Reason.Sentence(), Detail: d.Detail, Count: &d.Count, Events: d.Events}
		r.out(&r.l)
	}
	for i := range e.Advice {
		ad := &e.Advice[i]
		r.seconds = int64(ad.Timeout / time.Second)
		r.l = Line{Kind: "resume-timeout", At: at, User: a.name, Session: ad.Session.ID, Seconds: &r.seconds, Reason: ad.Reason.String(), Text: ad.Reason.Sentence()}
		r.out(&r.l)
	}
}

// settle hands out what is due for an account and notes when to look again.
func (r *Replay) settle(a *account, now time.Time) {
	r.due.Reset()
	r.keys = a.Due(now, r.keys[:0], &r.due)
	r.effects(a, &r.due, now)
	var first, more *service
	for _, k := range r.keys {
		s := r.service(k.Service)
		s.ready = append(s.ready, ref{a, k})
		if first == nil {
			first = s
		} else if s != first {
			more = s
		}
	}
	switch {
	case more != nil:
		keys := append([]push.Key(nil), r.keys...)
		for _, k := range keys {
			r.pump(r.service(k.Service), now)
		}
	case first != nil:
		r.pump(first, now)
	}
	r.schedule(a)
}

func (r *Replay) schedule(a *account) {
	next := a.Next()
	for _, at := range a.flights {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	r.queue.Set(&a.node, next)
}

func (r *Replay) service(name string) *service {
	s := r.services[name]
	if s == nil {
		s = &service{gate: push.NewService(r.policy)}
		s.node.service = s
		r.services[name] = s
	}
	return s
}

// pump publishes what is ready, as far as the service admits it.
func (r *Replay) pump(s *service, now time.Time) {
	for len(s.ready) > 0 {
		ok, at := s.gate.Admit(now)
		if !ok {
			r.queue.Set(&s.node, at)
			return
		}
		f := s.ready[0]
		if len(s.ready) > 1 {
			s.ready = s.ready[1:]
		} else {
			s.ready = s.ready[:0] // its space is used again
		}
		e := &r.sent
		e.Reset()
		n, ok := f.a.Begin(f.k, now, e)
		if ok {
			r.n = n
			r.l = Line{Kind: "publish", At: now.UnixMilli(), User: n.Account, Service: n.Service, Node: &r.n.Node,
				Class: n.Class.String(), Count: &r.n.Count, Events: n.Events, Try: again(n.Try)}
			r.out(&r.l)
		}
		r.effects(f.a, e, now)
		switch {
		case !ok:
			s.gate.Cancel()
		case r.live:
			if f.a.flights == nil {
				f.a.flights = make(map[push.Key]time.Time)
			}
			f.a.flights[f.k] = now.Add(r.replyTimeout())
		default:
			e.Reset()
			f.a.End(f.k, push.Reply{}, now, e)
			s.gate.Done(now, true)
			r.effects(f.a, e, now)
		}
		r.schedule(f.a)
	}
}

func (r *Replay) replyTimeout() time.Duration {
	if r.policy.ReplyTimeout > 0 {
		return r.policy.ReplyTimeout
	}
	return 30 * time.Second
}

func again(try int) int {
	if try == 1 {
		return 0
	}
	return try
}

func (r *Replay) reply(rep *Reply, now time.Time) {
	a := r.accounts[rep.User]
	if a == nil {
		return
	}
	if _, ok := a.flights[rep.Key]; !ok {
		return
	}
	r.end(a, rep.Key, rep.Reply, now)
	r.settle(a, now)
}

func (r *Replay) end(a *account, k push.Key, reply push.Reply, now time.Time) {
	delete(a.flights, k)
	r.e.Reset()
	res := a.End(k, reply, now, &r.e)
	s := r.service(k.Service)
	s.gate.Done(now, reply.Answered())
	if !reply.OK() {
		l := &Line{Kind: "reply", At: now.UnixMilli(), User: a.name, Service: k.Service, Node: &k.Node,
			Reason: res.Outcome.String(), Detail: reply.Condition}
		if reply.Missing {
			l.Detail = "no answer"
		}
		r.out(l)
	}
	r.effects(a, &r.e, now)
	r.pump(s, now)
	r.schedule(a)
}
