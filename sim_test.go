package push_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// sim drives accounts and services in virtual time, as an Engine does it in real time: for tests that want every step in a defined order.
type sim struct {
	policy   *Policy
	now      time.Time
	number   uint64
	accounts []*simAccount
	services []*simService
	flights  []*flight // in the order in which they were sent
	d        Decision  // used again for each event

	// facts may add to what the rules know.
	facts func(f *Facts)
	// chats answers what the rules would ask the host.
	chats func(asked []ChatQuestion) []ChatAnswer
	// answer says how a publish will be answered, and after how long; not later than Policy.ReplyTimeout.
	answer func(n *Notification) (Reply, time.Duration)

	// before is called before an event is handled, and what it returns after that.
	before  func(a *simAccount, ev Event, f Facts) func(d *Decision)
	decided func(a *simAccount, ev Event, d *Decision)
	effects func(a *simAccount, e *Effects)
	sent    func(f *flight)
	replied func(f *flight, res Result)
}

type simAccount struct {
	*Account
	name string
}

type simService struct {
	gate  *Service
	name  string
	ready []simRef
	at    time.Time // when to ask the gate again
}

type simRef struct {
	a *simAccount
	k Key
}

// flight is a publish that was sent and is not answered.
type flight struct {
	simRef
	n     Notification
	reply Reply
	at    time.Time
}

func newSim(p *Policy, start time.Time) *sim {
	return &sim{
		policy: p, now: start,
		facts:   func(*Facts) {},
		answer:  func(*Notification) (Reply, time.Duration) { return Reply{}, 0 },
		decided: func(*simAccount, Event, *Decision) {},
		effects: func(*simAccount, *Effects) {},
		sent:    func(*flight) {},
		replied: func(*flight, Result) {},
	}
}

// account returns an account, which has the given registrations if it is new.
func (s *sim) account(name string, stored ...Registration) *simAccount {
	for _, a := range s.accounts {
		if a.name == name {
			return a
		}
	}
	a := &simAccount{NewAccount(name, s.policy, stored), name}
	s.accounts = append(s.accounts, a)
	return a
}

func (s *sim) service(name string) *simService {
	for _, v := range s.services {
		if v.name == name {
			return v
		}
	}
	v := &simService{gate: NewService(s.policy), name: name}
	s.services = append(s.services, v)
	return v
}

// event lets an event happen now.
func (s *sim) event(ev Event) {
	s.number++
	a := s.account(ev.Subject().Account)
	f := Facts{Now: s.now, Number: s.number}
	s.facts(&f)
	if s.chats != nil {
		f.Chats = s.chats(a.Asks(ev, f))
	}
	after := func(*Decision) {}
	if s.before != nil {
		after = s.before(a, ev, f)
	}
	a.Handle(ev, f, &s.d)
	after(&s.d)
	s.decided(a, ev, &s.d)
	s.effects(a, &s.d.Effects)
	s.settle(a)
}

// restart lets an account go on as one that was restored from a snapshot of it. What is ready at a service's gate would be handed out again.
func (s *sim) restart(t require.TestingT, a *simAccount) {
	for _, v := range s.services {
		if slices.ContainsFunc(v.ready, func(r simRef) bool { return r.a == a }) {
			return
		}
	}
	data, err := a.MarshalBinary()
	require.NoError(t, err)
	b, err := RestoreAccount(a.name, s.policy, data)
	require.NoError(t, err)
	again, err := b.MarshalBinary()
	require.NoError(t, err)
	require.Equal(t, data, again)
	var e Effects
	b.Load(a.Registrations(), s.now, &e)
	require.Empty(t, e)
	a.Account = b
}

// settle hands out what is due for an account.
func (s *sim) settle(a *simAccount) {
	var e Effects
	keys := a.Due(s.now, nil, &e)
	s.effects(a, &e)
	for _, k := range keys {
		v := s.service(k.Service)
		v.ready = append(v.ready, simRef{a, k})
		s.pump(v)
	}
}

// pump publishes what is ready, as far as the service admits it.
func (s *sim) pump(v *simService) {
	v.at = time.Time{}
	for len(v.ready) > 0 {
		ok, at := v.gate.Admit(s.now)
		if !ok {
			v.at = at
			return
		}
		r := v.ready[0]
		v.ready = v.ready[1:]
		var e Effects
		n, ok := r.a.Begin(r.k, s.now, &e)
		if !ok {
			v.gate.Cancel()
			s.effects(r.a, &e)
			continue
		}
		f := &flight{simRef: r, n: n}
		s.effects(r.a, &Effects{Drops: e.Drops}) // what was too old to be sent with the rest
		s.sent(f)
		s.effects(r.a, &Effects{Changes: e.Changes, Advice: e.Advice})
		var wait time.Duration
		f.reply, wait = s.answer(&n)
		f.at = s.now.Add(wait)
		s.flights = append(s.flights, f)
		if wait == 0 {
			s.end(f)
		}
	}
}

// end answers a publish now.
func (s *sim) end(f *flight) {
	s.flights = slices.DeleteFunc(s.flights, func(o *flight) bool { return o == f })
	var e Effects
	res := f.a.End(f.k, f.reply, s.now, &e)
	v := s.service(f.k.Service)
	v.gate.Done(s.now, f.reply.Vetoed != "" || f.reply.Answered())
	s.replied(f, res)
	s.effects(f.a, &e)
	s.pump(v)
	s.settle(f.a)
}

// next returns when something will happen by itself; zero if nothing will.
func (s *sim) next() time.Time {
	var next time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, f := range s.flights {
		earlier(f.at)
	}
	for _, v := range s.services {
		earlier(v.at)
	}
	for _, a := range s.accounts {
		earlier(a.Next())
	}
	return next
}

// advance lets the time pass until to.
func (s *sim) advance(to time.Time) {
	idle := 0
	for at := s.next(); !at.IsZero() && !at.After(to); at = s.next() {
		if at.After(s.now) {
			s.now, idle = at, 0
		}
		if idle++; idle > 10000 {
			panic(fmt.Sprintf("time stands still at %v", s.now))
		}
		s.fire()
	}
	if to.After(s.now) {
		s.now = to
	}
}

// fire does one thing that is due.
func (s *sim) fire() {
	for _, f := range s.flights {
		if !f.at.After(s.now) {
			s.end(f)
			return
		}
	}
	for _, v := range s.services {
		if !v.at.IsZero() && !v.at.After(s.now) {
			s.pump(v)
			return
		}
	}
	for _, a := range s.accounts {
		if at := a.Next(); !at.IsZero() && !at.After(s.now) {
			s.settle(a)
		}
	}
}
