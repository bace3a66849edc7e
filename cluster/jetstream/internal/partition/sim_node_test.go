package partition

import (
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// The nodes of the simulation: what of a node is theirs rather than a partition's.

type simNode struct {
	s       *simulation
	name    string
	up      bool
	run     int // of its process
	paused  bool
	backlog []func()
	cut     bool
	offset  time.Duration
	drift   float64
	born    time.Time
	life    uint64 // as it is kept for the name

	members  *Members
	local    *Local
	entries  []*Entry
	owners   []*Owner
	worlds   []*simWorld
	stale    bool
	leaving  bool
	part     bool // it takes part: it was there for a while
	hold     bool // nothing goes on its way
	troubled time.Time
	started  time.Time // by its clock
	caught   time.Time // when it began to read the registrations last, by its clock, in vain or not
}

// behind is as the shell has it.
func (n *simNode) behind() bool {
	if n.s.cfg.sabotage == "C10" {
		return false
	}
	return n.caught.Sub(n.started) < simLease*3/2 || n.clock().Sub(n.caught) > simLease*3/4
}

const simLease = 4 * time.Second

// catchUp reads the registrations again and again.
func (n *simNode) catchUp() {
	s := n.s
	if !n.cut && !s.now.Before(s.outage) {
		began := n.clock()
		n.in(s.delay(), func() {
			for a, has := range s.known {
				n.local.Register(Hash(a), has, s.knownRev[a])
			}
			n.members.Reached(n.clock())
			if !n.members.Few(n.clock()) && !n.members.Back(n.clock()) {
				n.caught = began
			}
		})
	}
	n.in(simLease/4, n.catchUp)
}

// tell tells a node what registrations an account has, until it has heard, or must know that it is behind.
func (w *simWorld) tell(o *simNode, account string, has bool, rev uint64, until time.Time, heard func()) {
	s := w.n.s
	if w.n.members.Back(w.n.clock()) && !s.now.After(until) {
		w.n.in(100*time.Millisecond, func() { w.tell(o, account, has, rev, until, heard) })
		return
	}
	if s.now.After(until) || !slices.Contains(w.n.members.May(w.n.clock()), o.name) {
		heard()
		return
	}
	if !w.n.cut && !o.cut && !s.apart(w.n, o) && !(s.cfg.faults && s.busy && s.r.IntN(20) == 0) {
		o.in(s.delay(), func() {
			o.local.Register(Hash(account), has, rev)
			w.n.in(s.delay(), heard)
			heard = func() {}
		})
	}
	w.n.in(500*time.Millisecond, func() { w.tell(o, account, has, rev, until, heard) })
}

// clock is the node's own: wrong by an offset, and fast or slow.
func (n *simNode) clock() time.Time {
	return n.s.now.Add(n.offset + time.Duration(float64(n.s.now.Sub(simStart))*n.drift))
}

// do lets something happen in the node's present process, when it runs.
func (n *simNode) do(run int, f func()) {
	switch {
	case !n.up || n.run != run:
	case n.paused:
		n.backlog = append(n.backlog, f)
	default:
		f()
	}
}

// apart tells whether the link between two nodes is cut.
func (s *simulation) apart(a, b *simNode) bool {
	return s.parted == [2]*simNode{a, b} || s.parted == [2]*simNode{b, a}
}

// in is do after a time.
func (n *simNode) in(d time.Duration, f func()) {
	run := n.run
	n.s.after(d, func() { n.do(run, f) })
}

func (s *simulation) addNode(name string) *simNode {
	n := &simNode{s: s, name: name, offset: time.Duration(s.r.IntN(20000)-10000) * time.Millisecond, drift: float64(s.r.IntN(2000)-1000) / 1e6}
	s.nodes = append(s.nodes, n)
	return n
}

func (n *simNode) start() {
	s := n.s
	n.up, n.paused, n.backlog, n.cut, n.stale, n.leaving = true, false, nil, false, false, false
	n.part, n.hold = false, false
	n.run++
	n.born = s.now
	if s.cfg.faults && (s.r.IntN(4) == 0 || s.cfg.sabotage == "C2") { // its clock was set, or it is another machine now
		n.offset = time.Duration(s.r.Int64N(int64(48*time.Hour))) - 24*time.Hour
	}
	n.life = NextLife(n.life, n.clock())
	if s.cfg.sabotage == "C2" { // by its clock alone
		n.life = uint64(n.clock().UnixNano())
	}
	me := Origin{n.name, n.life}
	n.members = NewMembers(me, 4*time.Second, n.clock())
	n.local = NewLocal()
	for a, has := range s.known { // the first reading of the registrations
		n.local.Register(Hash(a), has, s.knownRev[a])
	}
	n.started, n.caught = n.clock(), n.clock()
	cfg := &Config{
		Policy: s.policy, SnapshotEvery: s.cfg.snapshotEvery, SnapshotAge: 20 * time.Second, Patience: time.Hour, // or it would hide that nobody releases a partition
		Alive: func(o Origin) bool { return n.members.Alive(n.clock(), o) },
		Runs:  func(o Origin) bool { return n.members.Runs(n.clock(), o) },
		Heard: func(node string) time.Duration { return n.members.Silent(n.clock(), node) },
	}
	if cfg.SnapshotEvery < 0 { // none
		cfg.SnapshotEvery, cfg.SnapshotAge = 1<<30, 1<<60
	}
	n.entries, n.owners, n.worlds = nil, nil, nil
	for p := range s.cfg.parts {
		n.entries = append(n.entries, NewEntry(me))
		w := &simWorld{n: n, p: p}
		w.o = NewOwner(cfg, me, w)
		n.worlds = append(n.worlds, w)
		n.owners = append(n.owners, w.o)
	}
	n.in(0, n.beat)
	n.in(1500*time.Millisecond, n.choose)
	n.in(100*time.Millisecond, n.tick)
	n.in(simLease/4, n.catchUp)
}

func (n *simNode) beat() {
	n.say()
	n.in(time.Second, n.beat)
}

func (n *simNode) say() {
	b := n.members.Beat(n.clock(), n.leaving)
	b.Joining = !n.part
	for _, o := range n.s.nodes {
		if o != n && o.up && !n.cut && !o.cut && !n.s.apart(n, o) && !(n.s.cfg.faults && n.s.r.IntN(50) == 0) {
			o.in(n.s.delay(), func() {
				if o.members.Heard(o.clock(), b) {
					o.stale = true
				}
			})
		}
	}
}

func (n *simNode) choose() {
	if !n.part {
		n.part = true
		n.say()
	}
	live := n.members.Live(n.clock())
	if !n.members.Deaf(n.clock()) {
		for p, o := range n.owners {
			o.Want(n.clock(), !n.leaving && Chosen(live, p) == n.name)
		}
	}
	if n.stale && !n.cut {
		n.again()
	}
	n.in(500*time.Millisecond, n.choose)
}

// again begins another life.
func (n *simNode) again() {
	if n.hold {
		return
	}
	n.hold = true
	n.renew(20)
}

// renew begins it when nothing is on its way any more, which is of the present life.
func (n *simNode) renew(tries int) {
	if slices.ContainsFunc(n.entries, func(e *Entry) bool { return e.Flight() != nil }) {
		if tries > 0 {
			n.in(20*time.Millisecond, func() { n.renew(tries - 1) })
			return
		}
	} else {
		n.stale = false
		n.members.Begin()
		first := make([][]push.SessionRestored, len(n.entries))
		for _, ev := range n.local.Restored() {
			p := n.partition(ev.Session.Account)
			first[p] = append(first[p], ev)
		}
		for p, e := range n.entries {
			e.Begin(n.members.Me(), entered{push.SessionRestored{Session: push.SessionID{ID: "some"}}, nil}, first[p])
		}
	}
	n.hold = false
	for p := range n.entries {
		n.kick(p)
	}
}

func (n *simNode) tick() {
	next := 200 * time.Millisecond
	for _, o := range n.owners {
		o.Tick(n.clock())
		if at := o.Next(n.clock()); !at.IsZero() {
			next = min(next, max(at.Sub(n.clock()), time.Millisecond))
		}
	}
	n.in(next, n.tick)
}

// handle is a host's call at the node. It returns whether anything has to be in the log.
func (n *simNode) handle(ev push.Event, done func(ok bool)) bool {
	list := n.local.Events(ev, n.behind())
	for i, e := range list {
		if i == len(list)-1 {
			n.enter(e, done)
		} else {
			n.enter(e, nil)
		}
	}
	return len(list) > 0
}

func (n *simNode) enter(ev push.Event, done func(bool)) {
	p := n.partition(ev.Subject().Account)
	n.entries[p].Add(ev, false, entered{ev, done})
	n.kick(p)
}

func (n *simNode) partition(account string) int {
	if n.s.cfg.sabotage == "C1" { // every node its own idea of where an account belongs
		account = n.name + account
	}
	return Of(account, n.s.cfg.parts)
}

type entered struct {
	ev   push.Event
	done func(bool)
}

func (n *simNode) kick(p int) {
	if n.hold {
		return
	}
	if data := n.entries[p].Next(First); data != nil {
		n.send(p, data, n.s.now.Add(5*time.Second))
	}
}

func (n *simNode) send(p int, data []byte, until time.Time) {
	e := n.entries[p]
	answered := false
	finish := func(ok bool) {
		for _, in := range e.Done() {
			t := in.Tag.(entered)
			if !ok {
				n.s.Stats.Refused++
				if t.ev.Subject().ID != "" {
					n.stale = true
				}
			} else {
				n.s.Stats.Accepted++
			}
			if t.done != nil {
				t.done(ok)
			}
		}
		n.kick(p)
	}
	n.request(func() bool {
		n.s.append(p, false, data)
		return true
	}, func(bool) {
		if !answered {
			answered = true
			finish(true)
		}
	})
	n.in(time.Second, func() {
		if answered {
			return
		}
		answered = true
		if n.s.now.After(until) {
			finish(false)
		} else {
			n.send(p, e.Again(), until)
		}
	})
}

// request does something at the log, and answers with what it returned; either way may be lost.
func (n *simNode) request(do func() bool, answer func(bool)) {
	s := n.s
	lost := func() bool { return n.cut || s.now.Before(s.outage) || s.cfg.faults && s.busy && s.r.IntN(300) == 0 }
	run := n.run
	if lost() {
		return
	}
	s.after(s.delay(), func() {
		if lost() {
			return
		}
		res := do()
		if lost() {
			return
		}
		s.after(s.delay(), func() { n.do(run, func() { answer(res) }) })
	})
}
