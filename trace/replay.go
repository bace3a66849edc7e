package trace

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/internal/deadline"
)

// Line is one line of a replay's output. Kind says which of the fields mean something.
type Line struct {
	// Kind is "decision", "publish", "reply", "registration", "resume-timeout", "drop", or "difference": this replay decides, sends or makes
	// of a reply something else than the recorded server did, and Text says what.
	Kind string `json:"kind"`
	// At is the trace's time in milliseconds.
	At int64 `json:"at"`
	// Event is the number of the event that was decided.
	Event uint64 `json:"event,omitempty"`
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
	// Match is the number of the match of Push 2.0 that let a stanza through, from 1.
	Match  int    `json:"match,omitempty"`
	Change string `json:"change,omitempty"`
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
	obs      push.Observer
	policy   *push.Policy
	started  int64
	replies  replies
	begun    bool
	differs  int
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

// replies says where replies come from, and what decides when something is sent.
type replies uint8

const (
	allOK    replies = iota // every publish succeeds at once
	asTraced                // replies come from the trace; this replay decides when to send
	asItWas                 // the trace says what was sent, answered and given up, and when
)

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
	flights map[push.Key]*flight
	pruned  time.Time
	// partial: it was there before the trace began, so that what was notified and what waited then is not known.
	partial bool
	// early is what was found too old at a time, and is not matched with the recording's lines of that time yet.
	early   []push.Drop
	earlyAt time.Time
}

func (a *account) tooOld(e *push.Effects, now time.Time) {
	if !a.earlyAt.Equal(now) {
		a.early, a.earlyAt = a.early[:0], now
	}
	for _, d := range e.Drops {
		if d.Reason == push.ReasonTooOld {
			a.early = append(a.early, d)
		}
	}
}

// flight is a publish that was not answered.
type flight struct {
	n      push.Notification
	at     time.Time
	giveUp time.Time // when the answer is given up; zero: not
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

// Observe has an Observer told of the replay as it would be of an Engine. It has to be called before the first Step.
func (r *Replay) Observe(o *push.Observer) { r.obs = *push.Observers(&push.Observer{}, o) }

// Differences is in how many places the replay differs from what was recorded.
func (r *Replay) Differences() int { return r.differs }

// Inspect returns what the replay knows of an account at a time.
func (r *Replay) Inspect(account string, now time.Time) push.AccountStatus {
	if a := r.accounts[account]; a != nil {
		return a.Status(now)
	}
	return push.AccountStatus{Account: account}
}

// Services returns the state of the push services that were met, in the order of their names.
func (r *Replay) Services() []push.ServiceStatus {
	list := make([]push.ServiceStatus, 0, len(r.services))
	for name, s := range r.services {
		list = append(list, push.ServiceStatus{Service: name, InFlight: s.gate.InFlight(), Waiting: len(s.ready), Broken: s.gate.Broken()})
	}
	slices.SortFunc(list, func(a, b push.ServiceStatus) int { return strings.Compare(a.Service, b.Service) })
	return list
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
	if rec.Config != nil {
		return r.configure(rec.Config)
	}
	now := rec.Time()
	if !r.begun {
		r.begun = true
		if r.obs.Started != nil {
			r.obs.Started(now, "", *r.policy)
		}
	}
	r.Advance(now)
	switch {
	case rec.Event != nil:
		r.event(rec, now)
	case rec.Reply != nil && r.replies != allOK:
		r.reply(rec.Reply, now)
	case rec.Account != nil:
		r.known(rec.Account, now)
	case rec.Sent != nil && r.replies == asItWas:
		r.recordedSent(rec.Sent, now)
	case rec.Dropped != nil && r.replies == asItWas:
		r.recordedDrop(rec.Dropped, now)
	}
	return nil
}

// configure takes a config line. A later one that tells of another start of the server, or of another policy, ends all that was.
func (r *Replay) configure(c *Config) error {
	p := push.Policy(c.Policy)
	if p.Causes == 0 {
		p.Causes = r.policy.Causes
	}
	if err := p.Validate(); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if r.begun && c.Started == r.started && p == *r.policy {
		return nil // the next file of the same recording
	}
	for _, a := range r.accounts {
		r.queue.Set(&a.node, time.Time{})
	}
	for _, s := range r.services {
		r.queue.Set(&s.node, time.Time{})
	}
	clear(r.accounts)
	clear(r.services)
	r.policy, r.started, r.begun = &p, c.Started, true
	switch c.Replies {
	case "trace":
		r.replies = asTraced
	case "recorded":
		r.replies = asItWas
	default:
		r.replies = allOK
	}
	if r.obs.Started != nil {
		r.obs.Started(time.UnixMilli(c.Started), c.Host, p)
	}
	return nil
}

// Advance lets the time pass until now: what waits goes out, what was not answered is given up. At the end of a trace, call it with
// a time that is late enough for what still waits. In a recording that says itself what was sent, nothing happens by itself.
func (r *Replay) Advance(now time.Time) {
	for r.replies != asItWas {
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
		if r.replies == asItWas {
			return
		}
		at := r.queue.Next()
		if at.IsZero() || !last.IsZero() && at.Sub(last) > 24*time.Hour {
			return
		}
		last = at
		r.Advance(at)
	}
}

func timedOut(flights map[push.Key]*flight, now time.Time) (keys []push.Key) {
	for k, f := range flights {
		if !f.giveUp.IsZero() && !now.Before(f.giveUp) {
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
	facts := push.Facts{Now: now, Number: rec.Number}
	if r.replies == asItWas {
		if a.Idle(now) { // the server had forgotten it
			a.Account = push.NewAccount(name, r.policy, a.Registrations())
			a.partial = false
		}
	} else if now.Sub(a.pruned) > time.Minute {
		a.Prune(now)
		a.pruned = now
	}
	if rec.Decided != nil {
		facts.Chats = rec.Decided.Answers.Chats
		facts.Elsewhere, facts.Veto = answered(rec.Event, &rec.Decided.Answers)
	}
	a.Handle(rec.Event, facts, &r.d)
	if r.replies == asItWas { // as an Engine does with each event, so that what is too old is dropped when it was
		r.keys = a.Due(now, r.keys[:0], &r.d.Effects)
	}
	r.decision(a, rec, session)
	r.effects(a, &r.d.Effects, now)
	if r.obs.Decided != nil {
		r.obs.Decided(rec.Number, now, rec.Event, &r.d, 0)
	}
	if rec.Decided != nil && notifies(rec.Type) {
		if text := rec.Decided.differs(RecordedOf(&r.d)); text != "" {
			r.difference(a, rec.At, push.Key{}, rec.Number, rec.Type, text)
		}
	}
	if _, gone := rec.Event.(push.AccountRemoved); gone && r.replies != asItWas {
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
		l.Stanzas, l.Match = v.Stanzas, v.Match
		r.out(l)
	}
}

func (r *Replay) effects(a *account, e *push.Effects, now time.Time) {
	at := now.UnixMilli()
	for i := range e.Changes {
		c := &e.Changes[i]
		r.l = Line{Kind: "registration", At: at, User: a.name, Service: c.Service, Node: &c.Node,
			Change: c.Kind.String(), Session: c.Session, Reason: c.Reason.String(), Text: c.Reason.Sentence(), Detail: c.Detail}
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

// notifies tells whether an event of the type can notify. About others an Engine that has nothing of the account says that it has nothing.
func notifies(eventType string) bool {
	switch eventType {
	case "session-open", "session-restored", "session-close", "push-enable", "push-disable", "affiliation-none", "account-removed":
		return false
	}
	return true
}

// answered gives the host's recorded answers again.
func answered(ev push.Event, a *push.Answers) ([]push.Key, func(*push.Registration, push.Stanza) string) {
	if len(a.Vetoes) == 0 {
		return a.Elsewhere, nil
	}
	// The host is asked for each registration in the order of the stanzas; those that it is not asked for are not in the answers either.
	queue := Stanzas(ev)
	return a.Elsewhere, func(reg *push.Registration, st push.Stanza) string {
		for _, v := range a.Vetoes {
			if v.Key == reg.Key && (v.Stanza < len(queue) && queue[v.Stanza].ID == st.ID || len(queue) == 0) {
				return v.Text
			}
		}
		return ""
	}
}

// difference tells that the replay does otherwise than the recorded server.
func (r *Replay) difference(a *account, at int64, k push.Key, number uint64, what, text string) {
	r.differs++
	if a.partial {
		text += "; the account was there before the recording began, which may be why"
	}
	r.l = Line{Kind: "difference", At: at, Event: number, Type: what, User: a.name, Service: k.Service, Text: "differs from the recorded decision: " + text}
	if k != (push.Key{}) {
		r.l.Node = &k.Node
	}
	r.out(&r.l)
}

// recordedSent publishes when the recorded server did.
func (r *Replay) recordedSent(s *Sent, now time.Time) {
	a := r.account(s.User)
	if _, busy := a.flights[s.Key]; busy { // its end was lost
		r.end(a, s.Key, push.Reply{Missing: true}, now)
	}
	e := &r.sent
	e.Reset()
	r.keys = a.Due(now, r.keys[:0], e)
	n, ok := a.Begin(s.Key, now, e)
	r.effects(a, e, now)
	r.affected(a, e, now)
	if !ok {
		r.difference(a, now.UnixMilli(), s.Key, 0, "publish", "nothing to send, recorded was a publish")
		return
	}
	if n.Class.String() != s.Class || n.Count != s.Count || n.Try != s.Try {
		r.difference(a, now.UnixMilli(), s.Key, 0, "publish",
			fmt.Sprintf("%s of %d, try %d; recorded was %s of %d, try %d", n.Class, n.Count, n.Try, s.Class, s.Count, s.Try))
	}
	if s.Unread > 0 {
		n.Unread = s.Unread
	}
	r.service(s.Service).gate.Admit(now)
	r.publish(n, now)
	r.took(a, now, time.Time{})
}

// publish tells of a publish that goes out, and leaves it in r.n.
func (r *Replay) publish(n push.Notification, now time.Time) {
	r.n = n
	r.l = Line{Kind: "publish", At: now.UnixMilli(), User: n.Account, Service: n.Service, Node: &r.n.Node,
		Class: n.Class.String(), Count: &r.n.Count, Events: n.Events, Try: again(n.Try)}
	r.out(&r.l)
	if r.obs.Sent != nil {
		r.obs.Sent(now, &r.n)
	}
}

// took notes that what publish told of is not answered yet.
func (r *Replay) took(a *account, now, giveUp time.Time) {
	if a.flights == nil {
		a.flights = make(map[push.Key]*flight)
	}
	a.flights[r.n.Key] = &flight{n: r.n, at: now, giveUp: giveUp}
}

// recordedDrop gives up what the recorded server gave up.
func (r *Replay) recordedDrop(d *Dropped, now time.Time) {
	a := r.account(d.User)
	e := &r.e
	e.Reset()
	r.keys = a.Due(now, r.keys[:0], e)
	r.effects(a, e, now)
	r.affected(a, e, now)
	a.tooOld(e, now)
	i := slices.IndexFunc(a.early, func(o push.Drop) bool { return o.Key == d.Key && o.Count == d.Count })
	if i >= 0 {
		a.early = slices.Delete(a.early, i, i+1)
	} else {
		r.difference(a, now.UnixMilli(), d.Key, 0, "drop", fmt.Sprintf("nothing is too old, recorded were %d given up", d.Count))
	}
}

func (r *Replay) affected(a *account, e *push.Effects, now time.Time) {
	if r.obs.Affected != nil && len(e.Changes)+len(e.Drops)+len(e.Advice) > 0 {
		r.obs.Affected(a.name, now, e)
	}
}

// settle hands out what is due for an account and notes when to look again.
func (r *Replay) settle(a *account, now time.Time) {
	if r.replies == asItWas {
		return
	}
	r.due.Reset()
	r.keys = a.Due(now, r.keys[:0], &r.due)
	r.effects(a, &r.due, now)
	r.affected(a, &r.due, now)
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
	for _, f := range a.flights {
		if !f.giveUp.IsZero() && (next.IsZero() || f.giveUp.Before(next)) {
			next = f.giveUp
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
		r.effects(f.a, e, now)
		r.affected(f.a, e, now)
		switch {
		case !ok:
			s.gate.Cancel()
		case r.replies == asTraced:
			r.publish(n, now)
			r.took(f.a, now, now.Add(r.replyTimeout()))
		default:
			r.publish(n, now)
			e.Reset()
			res := f.a.End(f.k, push.Reply{}, now, e)
			s.gate.Done(now, true)
			if r.obs.Replied != nil {
				r.obs.Replied(now, &r.n, push.Reply{}, res, 0)
			}
			r.effects(f.a, e, now)
			r.affected(f.a, e, now)
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
	res := r.end(a, rep.Key, rep.Reply, now)
	if rep.Outcome != "" && res.Outcome.String() != rep.Outcome {
		r.difference(a, now.UnixMilli(), rep.Key, 0, "reply", fmt.Sprintf("%s, recorded was %s", res.Outcome, rep.Outcome))
	}
	r.settle(a, now)
}

func (r *Replay) end(a *account, k push.Key, reply push.Reply, now time.Time) push.Result {
	f := a.flights[k]
	delete(a.flights, k)
	r.e.Reset()
	res := a.End(k, reply, now, &r.e)
	if r.replies == asItWas { // as an Engine does
		r.keys = a.Due(now, r.keys[:0], &r.e)
		a.tooOld(&r.e, now)
	}
	s := r.service(k.Service)
	s.gate.Done(now, reply.Answered())
	if !reply.OK() {
		l := &Line{Kind: "reply", At: now.UnixMilli(), User: a.name, Service: k.Service, Node: &k.Node,
			Reason: res.Outcome.String(), Detail: reply.Condition}
		switch {
		case reply.Missing:
			l.Detail = "no answer"
		case reply.Vetoed != "":
			l.Detail = reply.Vetoed
		}
		r.out(l)
	}
	if r.obs.Replied != nil {
		r.obs.Replied(now, &f.n, reply, res, now.Sub(f.at))
	}
	r.effects(a, &r.e, now)
	r.affected(a, &r.e, now)
	if r.replies != asItWas {
		r.pump(s, now)
		r.schedule(a)
	}
	return res
}
