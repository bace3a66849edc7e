// Package partition is the protocol of the cluster without the network: one partition of the accounts is a log, the state that it adds up to, and an
// owner that publishes.
//
// Everything that decides is in the log: the events, in batches of the nodes that they came in at, and the records of the owner: that it began a publish, that
// one was answered, that a node is dead. The State is what these add up to; the same log gives the same State on every machine. A new owner writes a
// Claim, which the log accepts only behind the last record that it has seen; from then on the log refuses the records of the former owner, and so
// nothing that the former owner thinks it may still do is done. It reads the newest snapshot and the log behind that, and goes on.
//
// A publish goes out when its Begin is in the log, and is over when its End is. So a publish is sent twice only if its owner ended between the two.
//
// There is no clock, goroutine, lock or I/O here: State and Owner are told the time and what has happened, and say what to do. The simulation in
// the tests and the shell on JetStream drive the same code.
package partition

import (
	"cmp"
	"slices"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/internal/deadline"
)

// Ref is a registration.
type Ref struct {
	Account string
	Key     push.Key
}

// Compare orders Refs.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Account, o.Account), r.Key.Compare(o.Key))
}

// Decided is the answer to one event.
type Decided struct {
	Number   uint64
	At       time.Time
	Event    push.Event
	Decision push.Decision
	// Origin, Batch and Index say which event it was, for the node that waits for the Decision if Wanted.
	Origin Origin
	Batch  uint64
	Index  int
	Wanted bool
	// Shown: a former owner has shown it, in all likelihood.
	Shown bool
}

// Affected is what changed outside of an event.
type Affected struct {
	Account string
	At      time.Time
	Effects push.Effects
}

// Out collects what comes of a step, in order.
type Out struct {
	Decided  []Decided
	Affected []Affected
	// Advice is for the nodes that have the sessions.
	Advice []Advice
	// Moved are sessions that have gone on at another node than the one that had them.
	Moved []Moved
	// Ready are registrations whose notification may go out.
	Ready []Ref
	// Changed are accounts whose registrations changed.
	Changed []string
	// Resent is, of the last Claim, how many publishes the former owner had begun whose end is not known.
	Resent int
}

// Advice is a push.Advice with its address.
type Advice struct {
	Node string
	push.Advice
}

// Moved is a session that its former node has not any more.
type Moved struct {
	Node    string
	Session push.SessionID
}

// State is what the log of a partition adds up to. Not safe for simultaneous use.
type State struct {
	// Seq is the last message that was taken note of.
	Seq    uint64
	policy *push.Policy
	now    time.Time
	owner  Origin
	// origins are the nodes that have written, by name.
	origins  map[string]*writer
	accounts map[string]*account
	cold     map[string][]byte        // packed accounts, which have nothing but registrations
	queue    deadline.Queue[*account] // when Due has something to do
	idling   deadline.Queue[*resting] // when to look whether an account can be packed
	ready    map[Ref]bool             // handed out, not begun
	flights  map[Ref]bool             // begun, not ended
	veto     func(r *push.Registration, st push.Stanza) string
}

// writer is what is known of the batches of a node.
type writer struct {
	Incarnation, Number uint64
}

// New returns the State of an empty log.
func New(policy *push.Policy, veto func(r *push.Registration, st push.Stanza) string) *State {
	return &State{
		policy: policy, veto: veto, origins: make(map[string]*writer), accounts: make(map[string]*account), cold: make(map[string][]byte),
		ready: make(map[Ref]bool), flights: make(map[Ref]bool),
	}
}

// Now is the time of the last thing that was taken note of.
func (s *State) Now() time.Time { return s.now }

// Owner is who owns the partition; empty if it was released.
func (s *State) Owner() Origin { return s.owner }

// Next returns when Advance has something to do; zero means never.
func (s *State) Next() time.Time { return s.queue.Next() }

// account returns an account, or nil if nothing is known of it and open is false.
func (s *State) account(name string, open bool) *account {
	if a := s.accounts[name]; a != nil {
		return a
	}
	packed, known := s.cold[name]
	if !known && !open {
		return nil
	}
	var a *account
	if known {
		a = s.unpack(name, packed)
		delete(s.cold, name)
	} else {
		a = &account{name: name, Account: push.NewAccount(name, s.policy, nil)}
	}
	a.rest.a = a
	s.accounts[name] = a
	return a
}

// settle notes when to look at an account again, and packs or forgets it if it has nothing to do.
func (s *State) settle(a *account, out *Out) {
	if a.idle(s.now) {
		s.queue.Set(a, time.Time{})
		s.idling.Set(&a.rest, time.Time{})
		delete(s.accounts, a.name)
		if a.registered {
			s.cold[a.name] = a.pack()
		}
		return
	}
	next, rest := a.Next(), time.Time{}
	if next.IsZero() && len(a.homes) == 0 {
		rest = s.now.Add(time.Minute)
	}
	s.queue.Set(a, next)
	s.idling.Set(&a.rest, rest)
}

// due hands out what is due for an account at the State's time.
func (s *State) due(a *account, eff *push.Effects, out *Out) {
	var buf [4]push.Key
	for _, k := range a.Due(s.now, buf[:0], eff) {
		ref := Ref{a.name, k}
		s.ready[ref] = true
		out.Ready = append(out.Ready, ref)
	}
}

// advise addresses the advice in eff.
func (s *State) advise(a *account, eff *push.Effects, out *Out) {
	for _, ad := range eff.Advice {
		if h := a.home(ad.Session.ID); h != nil {
			out.Advice = append(out.Advice, Advice{h.Origin.Node, ad})
		}
	}
	if len(eff.Changes) > 0 {
		a.registered = len(a.Registrations()) > 0
		out.Changed = append(out.Changed, a.name)
	}
}

func (s *State) affected(a *account, eff push.Effects, out *Out) {
	if len(eff.Changes)+len(eff.Advice)+len(eff.Drops) > 0 {
		s.advise(a, &eff, out)
		out.Affected = append(out.Affected, Affected{a.name, s.now, eff})
	}
}

// Advance lets the time pass until to, and does what falls due meanwhile at the time at which it does. The log must say so: it is called for a batch or
// a record, and for a Tick record if Next has come.
func (s *State) Advance(to time.Time, out *Out) {
	for {
		at, rest := s.queue.Next(), s.idling.Next()
		isRest := at.IsZero() || !rest.IsZero() && rest.Before(at)
		if isRest {
			at = rest
		}
		if at.IsZero() || at.After(to) {
			break
		}
		if at.After(s.now) {
			s.now = at
		}
		if isRest {
			r, _ := s.idling.Pop(at)
			r.a.Prune(s.now)
			r.a.forgetOld(s.now)
			s.settle(r.a, out)
			continue
		}
		a, _ := s.queue.Pop(at)
		var eff push.Effects
		s.due(a, &eff, out)
		s.affected(a, eff, out)
		s.settle(a, out)
	}
	if to.After(s.now) {
		s.now = to
	}
}

// Batch takes note of a batch that the log has at seq since the time at.
func (s *State) Batch(seq uint64, at time.Time, m *Batch, out *Out) {
	s.Advance(at, out)
	s.Seq = seq
	w := s.origins[m.Node]
	if w == nil {
		w = &writer{}
		s.origins[m.Node] = w
	}
	if m.Incarnation < w.Incarnation || m.Incarnation == w.Incarnation && m.Number <= w.Number {
		return // it came again, or its node has begun another life and was never told that this one is accepted
	}
	w.Incarnation, w.Number = m.Incarnation, m.Number
	for i, ev := range m.Events {
		d := Decided{Number: seq*MaxEvents + uint64(i), At: s.now, Event: ev, Origin: m.Origin, Batch: m.Number, Index: i, Wanted: slices.Contains(m.Wanted, i)}
		if alone, ok := ev.(Alone); ok {
			s.told(alone, out)
			continue
		}
		if old, ok := ev.(Import); ok {
			s.take(&d, old, out)
			out.Decided = append(out.Decided, d)
			continue
		}
		s.event(&d, out)
		out.Decided = append(out.Decided, d)
	}
}

// told notes what a node that was cut off has notified of by itself.
func (s *State) told(ev Alone, out *Out) {
	a := s.account(ev.Account, false)
	if a == nil {
		return
	}
	for _, t := range ev.Told {
		a.Notified(t.Key, s.now, t.IDs...)
	}
	s.settle(a, out)
}

// take takes over registrations that the account has not got yet.
func (s *State) take(d *Decided, ev Import, out *Out) {
	a := s.account(ev.Account, true)
	d.Decision.Account = ev.Account
	list := a.Registrations()
	for _, r := range ev.Registrations {
		r.Account = ev.Account
		if !slices.ContainsFunc(list, func(has push.Registration) bool { return has.Key == r.Key }) {
			list = append(list, r)
		}
	}
	a.Load(list, s.now, &d.Decision.Effects)
	s.advise(a, &d.Decision.Effects, out)
	s.settle(a, out)
}

// event decides one event.
func (s *State) event(d *Decided, out *Out) {
	subject := d.Event.Subject()
	a := s.account(subject.Account, opens(d.Event))
	if a == nil {
		d.Decision.Account, d.Decision.Reason = subject.Account, push.ReasonNoRegistration
		if subject.ID != "" {
			d.Decision.Reason = push.ReasonUnknownSession
		}
		return
	}
	if subject.ID != "" && !s.place(a, d, out) {
		d.Decision.Account, d.Decision.Reason = subject.Account, push.ReasonUnknownSession
		return
	}
	s.handle(a, d, out)
	if ev, ok := d.Event.(push.ArchiveAdded); ok && leftToSession(&d.Decision) {
		a.forgetOld(s.now)
		if len(a.recent) >= maxRecent {
			a.recent = a.recent[1:]
		}
		a.recent = append(a.recent, recent{s.now, d.Number, ev})
	}
	if _, ok := d.Event.(push.AccountRemoved); ok {
		a.homes, a.recent, a.lost = nil, nil, nil
	}
	s.settle(a, out)
}

// handle gives an event to the account.
func (s *State) handle(a *account, d *Decided, out *Out) {
	s.judge(a, d, out, s.veto)
}

func (s *State) judge(a *account, d *Decided, out *Out, veto func(*push.Registration, push.Stanza) string) {
	a.Handle(d.Event, push.Facts{Now: s.now, Number: d.Number, Veto: veto}, &d.Decision)
	if d.Decision.Reason == push.ReasonTooManySessions {
		a.forgetHomes(s.now)
	}
	s.due(a, &d.Decision.Effects, out)
	s.advise(a, &d.Decision.Effects, out)
}

// leftToSession tells whether a registration was not notified because of a session of its own.
func leftToSession(d *push.Decision) bool {
	for i := range d.Verdicts {
		if r := d.Verdicts[i].Reason; r == push.ReasonLive || r == push.ReasonHibernated {
			return true
		}
	}
	return false
}

func opens(ev push.Event) bool {
	switch ev.(type) {
	case push.SessionOpen, push.SessionRestored, push.PushEnable:
		return true
	default:
		return false
	}
}

// place notes which node has the event's session. It returns false if the event is not to be handled: its node thinks that it still has a session that has
// moved to another.
func (s *State) place(a *account, d *Decided, out *Out) bool {
	id := d.Event.Subject().ID
	h := a.home(id)
	switch ev := d.Event.(type) {
	case push.SessionOpen:
		s.setHome(a, home{id, ev.JID, d.Origin})
	case push.SessionRestored:
		d.Event = a.better(ev, s.now)
		if h != nil && h.Origin.Node != d.Origin.Node {
			out.Moved = append(out.Moved, Moved{h.Origin.Node, ev.Session})
		}
		s.setHome(a, home{id, ev.JID, d.Origin})
	case push.SessionClose:
		if h != nil && h.Origin.Node != d.Origin.Node {
			return false
		}
		a.homes = slices.DeleteFunc(a.homes, func(h home) bool { return h.ID == id })
		a.lost = slices.DeleteFunc(a.lost, func(l lost) bool { return l.Session.Session.ID == id })
	default:
		if h != nil {
			if _, resumed := ev.(push.HibernationEnd); resumed || h.Origin.Node == d.Origin.Node {
				if h.Origin.Node != d.Origin.Node {
					out.Moved = append(out.Moved, Moved{h.Origin.Node, d.Event.Subject()})
				}
				h.Origin = d.Origin
			}
			break
		}
		// Its node was thought dead, and is not, or another one has the session now.
		i := slices.IndexFunc(a.lost, func(l lost) bool { return l.Session.Session.ID == id })
		if i < 0 {
			break
		}
		back := Decided{Number: d.Number, At: s.now, Event: a.lost[i].Session, Origin: d.Origin}
		s.setHome(a, home{id, a.lost[i].Session.JID, d.Origin})
		s.handle(a, &back, out)
		out.Decided = append(out.Decided, back)
	}
	return true
}

// better returns what a node says of a session that it has, with what is known here: every enable has been in the log.
func (a *account) better(ev push.SessionRestored, now time.Time) push.SessionRestored {
	known := push.SessionRestored{}
	if i := slices.IndexFunc(a.lost, func(l lost) bool { return l.Session.Session == ev.Session }); i >= 0 {
		known = a.lost[i].Session
	} else if h := a.home(ev.Session.ID); h != nil {
		for _, ss := range a.Status(now).Sessions {
			if ss.ID == h.ID {
				known = restoredAs(a.name, *h, &ss)
			}
		}
	}
	if known.Session.ID == "" {
		return ev
	}
	known.Hibernated, known.Extended = ev.Hibernated, ev.Extended
	return known
}

func (s *State) setHome(a *account, n home) {
	a.lost = slices.DeleteFunc(a.lost, func(l lost) bool { return l.Session.Session.ID == n.ID })
	if h := a.home(n.ID); h != nil {
		*h = n
		return
	}
	a.homes = append(a.homes, n)
}

// forgetHomes forgets where sessions are that the account does not know any more.
func (a *account) forgetHomes(now time.Time) {
	sessions := a.Status(now).Sessions
	a.homes = slices.DeleteFunc(a.homes, func(h home) bool {
		return !slices.ContainsFunc(sessions, func(s push.SessionStatus) bool { return s.ID == h.ID })
	})
}

// Record takes note of what the owner of the time did. The log has it at seq.
func (s *State) Record(seq uint64, by Origin, rec Record, out *Out) {
	switch rec := rec.(type) {
	case Claim:
		s.Seq = max(s.Seq, seq) // what the new owner does has its place behind
		s.owner = by
		s.interrupted(out)
	case Release:
		s.owner = Origin{}
	case Begin:
		s.Begin(Ref{rec.Account, rec.Key}, rec.Now, out)
	case End:
		s.End(Ref{rec.Account, rec.Key}, rec.Reply, rec.Now, out)
	case Down:
		s.Down(rec.Origin, rec.Since, rec.Now, out)
	case Tick:
		s.Advance(rec.Now, out)
	}
}

// interrupted lets go out again what a former owner began and did not end.
func (s *State) interrupted(out *Out) {
	out.Resent = len(s.flights)
	for _, ref := range sortedRefs(s.flights) {
		if a := s.account(ref.Account, false); a != nil {
			var eff push.Effects
			a.Interrupted(s.now, &eff)
			s.due(a, &eff, out)
			s.affected(a, eff, out)
			s.settle(a, out)
		}
	}
	clear(s.flights)
}

// Begin begins the publish of a registration at now, if there is something to publish.
func (s *State) Begin(ref Ref, now time.Time, out *Out) (push.Notification, bool) {
	s.Advance(now, out)
	delete(s.ready, ref)
	a := s.account(ref.Account, false)
	if a == nil {
		return push.Notification{}, false
	}
	var eff push.Effects
	n, ok := a.Begin(ref.Key, s.now, &eff)
	if ok {
		s.flights[ref] = true
	}
	s.affected(a, eff, out)
	s.settle(a, out)
	return n, ok
}

// End ends it.
func (s *State) End(ref Ref, reply push.Reply, now time.Time, out *Out) push.Result {
	s.Advance(now, out)
	a := s.account(ref.Account, false)
	if a == nil || !s.flights[ref] {
		return push.Result{Outcome: reply.Classify()}
	}
	delete(s.flights, ref)
	var eff push.Effects
	res := a.End(ref.Key, reply, s.now, &eff)
	if res.Store {
		out.Changed = append(out.Changed, a.name)
	}
	s.due(a, &eff, out)
	s.affected(a, eff, out)
	s.settle(a, out)
	return res
}

// Down closes the sessions of a dead node. Messages that were left to them since a time are decided again.
func (s *State) Down(o Origin, since, now time.Time, out *Out) {
	s.Advance(now, out)
	for _, name := range s.with(o) {
		a := s.accounts[name]
		status := a.Status(s.now)
		for _, h := range slices.Clone(a.homes) {
			if !h.Origin.upTo(o) {
				continue
			}
			for _, ss := range status.Sessions {
				if ss.ID == h.ID {
					a.lose(s.now, h, &ss)
				}
			}
			d := Decided{At: s.now, Event: push.SessionClose{Session: push.SessionID{Account: name, ID: h.ID}}, Origin: h.Origin}
			a.homes = slices.DeleteFunc(a.homes, func(x home) bool { return x.ID == h.ID })
			s.handle(a, &d, out)
			out.Decided = append(out.Decided, d)
		}
		a.forgetOld(s.now)
		var left []recent
		for _, r := range a.recent {
			if r.At.Before(since) {
				continue // the node lived, and gave it to the session
			}
			d := Decided{Number: r.Number, At: s.now, Event: r.Event}
			s.judge(a, &d, out, func(reg *push.Registration, st push.Stanza) string {
				if reg.Enabled.After(r.At) {
					return "device was connected later"
				}
				if s.veto != nil {
					return s.veto(reg, st)
				}
				return ""
			})
			out.Decided = append(out.Decided, d)
			if leftToSession(&d.Decision) {
				left = append(left, r)
			}
		}
		a.recent = left
		s.settle(a, out)
	}
}

// upTo tells whether o is that life of the node d, or one before it.
func (o Origin) upTo(d Origin) bool { return o.Node == d.Node && o.Incarnation <= d.Incarnation }

// with returns the accounts that have sessions on a node, in order.
func (s *State) with(o Origin) []string {
	var list []string
	for name, a := range s.accounts {
		if slices.ContainsFunc(a.homes, func(h home) bool { return h.Origin.upTo(o) }) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// Homes returns the lives of nodes that have sessions here.
func (s *State) Homes() []Origin {
	seen := make(map[Origin]bool)
	for _, a := range s.accounts {
		for _, h := range a.homes {
			seen[h.Origin] = true
		}
	}
	list := make([]Origin, 0, len(seen))
	for o := range seen {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Origin) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return list
}

func (a *account) lose(now time.Time, h home, ss *push.SessionStatus) {
	l := lost{now, restoredAs(a.name, h, ss)}
	if len(a.lost) >= maxLost {
		a.lost = a.lost[1:]
	}
	a.lost = append(a.lost, l)
}

func restoredAs(account string, h home, ss *push.SessionStatus) push.SessionRestored {
	return push.SessionRestored{
		Session: push.SessionID{Account: account, ID: h.ID}, JID: h.JID, Client: ss.Client, Bound: ss.Bound, IsBound: ss.IsBound,
		Superseded: ss.Superseded, Hibernated: ss.Hibernated, Extended: ss.Extended,
	}
}

// Inspect describes an account.
func (s *State) Inspect(name string) push.AccountStatus {
	a := s.accounts[name]
	if a == nil {
		packed, ok := s.cold[name]
		if !ok {
			return push.AccountStatus{Account: name}
		}
		a = s.unpack(name, packed)
	}
	return a.Status(s.now)
}

// Registrations returns those of an account.
func (s *State) Registrations(name string) []push.Registration {
	if a := s.accounts[name]; a != nil {
		return a.Registrations()
	}
	if packed, ok := s.cold[name]; ok {
		return s.unpack(name, packed).Registrations()
	}
	return nil
}

// Registered calls yield for each account that has registrations, in order.
func (s *State) Registered() []string {
	list := make([]string, 0, len(s.cold))
	for name := range s.cold {
		list = append(list, name)
	}
	for name, a := range s.accounts {
		if a.registered {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// Size is the number of accounts, and of those of them that have more than registrations.
func (s *State) Size() (accounts, active int) { return len(s.accounts) + len(s.cold), len(s.accounts) }

// Waiting returns the registrations whose notification may go out and has not.
func (s *State) Waiting() []Ref { return sortedRefs(s.ready) }

func sortedRefs(m map[Ref]bool) []Ref {
	list := make([]Ref, 0, len(m))
	for r := range m {
		list = append(list, r)
	}
	slices.SortFunc(list, Ref.Compare)
	return list
}
