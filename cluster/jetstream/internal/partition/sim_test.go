package partition

import (
	"cmp"
	"container/heap"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// The simulation: nodes with clocks that drift, a log, snapshots, phones, a push service, and everything that can go wrong between them, from one
// seed. The nodes run the code of this package; what is simulated is JetStream, the network and the world.

var (
	simSeeds  = flag.Int("seeds", 0, "how many seeds the simulation runs; 0 is the short number")
	simSeed   = flag.Uint64("seed", 0, "run the simulation with this seed only")
	simEvents = flag.Int("events", 0, "events of each seed; 0 is the short number")
)

type simConfig struct {
	seed          uint64
	nodes, parts  int
	accounts      int
	events        int
	faults        bool // crashes, pauses, cuts, losses; else only delays, joins and leaves
	joins         bool
	part          bool // the link between the first two nodes is cut for a minute
	snapshotEvery int
	// sabotage breaks something on purpose, to see it found: "C1", "C3", "C5".
	sabotage string
}

type simulation struct {
	cfg  simConfig
	r    *rand.Rand
	now  time.Time
	todo todo
	n    uint64

	seq      uint64
	log      [][]Message // by partition, all that ever was: forgotten is what JetStream has not any more
	forgot   []uint64
	claims   [][]uint64
	owner    []Origin
	snaps    []simSnapshot
	skew     time.Duration // of the log's clock
	outage   time.Time     // until then the log answers nobody
	parted   [2]*simNode   // the link between these two is cut, and no other
	nodes    []*simNode
	policy   *push.Policy
	phones   []*phone
	service  map[Ref]map[string]time.Time // when the push service was told of each stanza last
	settled  map[Ref]map[string]bool      // told, answered, and written in peace
	troubled time.Time                    // when the log had an outage last
	disabled map[Ref]time.Time            // when a client disabled it last
	stanzas  map[uint64]string            // the stanza of an event number
	accepted map[string]bool
	failures []string
	known    map[string]bool   // accounts with registrations, as the store has them
	knownBy  map[string]uint64 // the epoch of the owner who said so
	knownRev map[string]uint64 // when it was said
	rev      uint64
	sure     map[string]bool // a client was told that its registration is there: no node may take the account for one without
	busy     bool            // faults and events go on

	Stats simStats
}

type simStats struct {
	Events, Accepted, Refused, Published, Twice, Resent, Takeovers, Crashes, Pauses, Cuts, Moves, Downs, Misses, Behind, Parted int
	MaxTakeover                                                                                                                 time.Duration
}

type simSnapshot struct {
	epoch uint64
	data  []byte
}

type task struct {
	at time.Time
	n  uint64
	do func()
}

type todo []task

func (t todo) Len() int { return len(t) }
func (t todo) Less(i, j int) bool {
	return cmp.Or(t[i].at.Compare(t[j].at), cmp.Compare(t[i].n, t[j].n)) < 0
}
func (t todo) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *todo) Push(x any)   { *t = append(*t, x.(task)) }
func (t *todo) Pop() any {
	o := *t
	x := o[len(o)-1]
	o[len(o)-1] = task{}
	*t = o[:len(o)-1]
	return x
}

func (s *simulation) after(d time.Duration, do func()) {
	s.n++
	heap.Push(&s.todo, task{s.now.Add(d), s.n, do})
}

func (s *simulation) run(until time.Time) {
	for len(s.todo) > 0 && !s.todo[0].at.After(until) && len(s.failures) == 0 {
		t := heap.Pop(&s.todo).(task)
		if t.at.After(s.now) {
			s.now = t.at
		}
		t.do()
	}
	s.now = until
}

// note prints what happens, if a seed is run alone.
func (s *simulation) note(format string, args ...any) {
	if *simSeed != 0 {
		fmt.Printf("%v: "+format+"\n", append([]any{s.now.Sub(simStart)}, args...)...)
	}
}

func (s *simulation) fail(format string, args ...any) {
	s.failures = append(s.failures, fmt.Sprintf("%v: ", s.now.Sub(simStart))+fmt.Sprintf(format, args...))
}

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// delay is that of one message.
func (s *simulation) delay() time.Duration {
	d := time.Duration(100+s.r.IntN(900)) * time.Microsecond
	if s.r.IntN(200) == 0 {
		d += time.Duration(s.r.IntN(300)) * time.Millisecond
	}
	return d
}

// ---- nodes

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
	n.run++
	n.born = s.now
	if s.cfg.faults && s.r.IntN(4) == 0 { // its clock was set, or it is another machine now
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
		Policy: s.policy, SnapshotEvery: s.cfg.snapshotEvery, SnapshotAge: 20 * time.Second, Patience: time.Minute,
		Alive: func(o Origin) bool { return n.members.Alive(n.clock(), o) },
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
	b := n.members.Beat(n.clock(), n.leaving)
	for _, o := range n.s.nodes {
		if o != n && o.up && !n.cut && !o.cut && !n.s.apart(n, o) && !(n.s.cfg.faults && n.s.r.IntN(50) == 0) {
			o.in(n.s.delay(), func() {
				if o.members.Heard(o.clock(), b) {
					o.stale = true
				}
			})
		}
	}
	n.in(time.Second, n.beat)
}

func (n *simNode) choose() {
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
	for _, e := range n.entries {
		if e.Len() > 0 {
			return // what is on its way is of the present life
		}
	}
	n.stale = false
	n.members.Begin()
	me := n.members.Me()
	for _, e := range n.entries {
		e.Begin(me)
	}
	for _, ev := range n.local.Restored() {
		n.enter(ev, nil)
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
	p := Of(ev.Subject().Account, n.s.cfg.parts)
	if n.s.cfg.sabotage == "C1" { // every node its own idea of where an account belongs
		p = Of(n.name+ev.Subject().Account, n.s.cfg.parts)
	}
	n.entries[p].Add(ev, false, entered{ev, done})
	n.kick(p)
}

type entered struct {
	ev   push.Event
	done func(bool)
}

func (n *simNode) kick(p int) {
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

// ---- the log

func (s *simulation) append(p int, records bool, data []byte) uint64 {
	s.seq++
	m := Message{s.seq, s.now.Add(s.skew), records, data}
	s.log[p] = append(s.log[p], m)
	if records {
		by, rs, _ := ReadRecords(data)
		if _, ok := rs[0].(Claim); ok {
			s.claims[p] = append(s.claims[p], s.seq)
			s.owner[p] = by
		} else if by != s.owner[p] {
			s.fail("C5: partition %d is %v's, and %v changes what is decided there", p, s.owner[p], by)
		}
	}
	if !records {
		b, err := ReadBatch(data)
		if err != nil {
			panic(err)
		}
		for i, ev := range b.Events {
			switch ev := ev.(type) {
			case push.ArchiveAdded:
				s.stanzas[s.seq*MaxEvents+uint64(i)] = ev.Stanza.ID
			case push.PushDisable: // a registration that is enabled after it is another one, which nobody was told through
				s.disabled[Ref{ev.Session.Account, ev.Key}] = s.now
			case push.StanzaQueued:
				s.stanzas[s.seq*MaxEvents+uint64(i)] = ev.Stanza.ID
			}
		}
	}
	for _, n := range s.nodes {
		if n.up {
			n.worlds[p].pump()
		}
	}
	return s.seq
}

func (s *simulation) tail(p int) (uint64, []byte) {
	for _, m := range slices.Backward(s.log[p]) {
		if m.Records {
			return m.Seq, m.Data
		}
	}
	return 0, nil
}

// ---- the world of one owner

type simWorld struct {
	n       *simNode
	p       int
	o       *Owner
	reading bool
	next    uint64
	pumping bool
	reads   int
}

func (w *simWorld) Tail() {
	var seq uint64
	var data []byte
	answered := false
	w.n.request(func() bool { seq, data = w.n.s.tail(w.p); return true }, func(bool) {
		if !answered {
			answered = true
			w.o.Tailed(w.n.clock(), seq, data, nil)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Tailed(w.n.clock(), 0, nil, ErrDoubt)
		}
	})
}

func (w *simWorld) Append(records []byte, prev uint64) {
	s := w.n.s
	answered := false
	var seq uint64
	if s.cfg.sabotage == "C3" { // the ends are not written
		o, rs, _ := ReadRecords(records)
		rs = slices.DeleteFunc(rs, func(r Record) bool { _, end := r.(End); return end })
		if len(rs) == 0 {
			rs = []Record{Tick{}}
		}
		records = AppendRecords(nil, First, o, rs)
	}
	w.n.request(func() bool {
		last, _ := s.tail(w.p)
		if last != prev && s.cfg.sabotage != "C5" {
			return false
		}
		seq = s.append(w.p, true, records)
		return true
	}, func(ok bool) {
		if answered {
			return
		}
		answered = true
		if ok {
			w.o.Appended(w.n.clock(), seq, nil)
		} else {
			w.o.Appended(w.n.clock(), 0, ErrFenced)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Appended(w.n.clock(), 0, ErrDoubt)
		}
	})
}

func (w *simWorld) Load(epoch uint64) {
	s := w.n.s
	answered := false
	var data []byte
	w.n.request(func() bool {
		sn := &s.snaps[w.p]
		if sn.epoch > epoch {
			return false
		}
		sn.epoch, data = epoch, sn.data
		return true
	}, func(ok bool) {
		if answered {
			return
		}
		answered = true
		if ok {
			w.o.Loaded(w.n.clock(), data, nil)
		} else {
			w.o.Loaded(w.n.clock(), nil, ErrFenced)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Loaded(w.n.clock(), nil, ErrDoubt)
		}
	})
}

func (w *simWorld) Save(snapshot []byte, keep uint64) {
	s := w.n.s
	epoch := w.o.epoch
	answered := false
	w.n.request(func() bool {
		sn := &s.snaps[w.p]
		if sn.epoch != epoch {
			return false
		}
		sn.data = snapshot
		s.forgot[w.p] = max(s.forgot[w.p], keep)
		return true
	}, func(ok bool) {
		if answered {
			return
		}
		answered = true
		if ok {
			w.o.Saved(w.n.clock(), nil)
		} else {
			w.o.Saved(w.n.clock(), ErrFenced)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Saved(w.n.clock(), ErrDoubt)
		}
	})
}

func (w *simWorld) Read(from uint64) {
	w.reads++
	w.reading, w.next = true, from
	w.pumping = false
	w.pump()
}

func (w *simWorld) Stop() { w.reading = false; w.reads++ }

// pump delivers what the log has, after a while.
func (w *simWorld) pump() {
	if !w.reading || w.pumping {
		return
	}
	w.pumping = true
	reads := w.reads
	w.n.in(w.n.s.delay(), func() {
		if w.reads != reads {
			return
		}
		w.pumping = false
		s := w.n.s
		if w.n.cut || s.now.Before(s.outage) {
			w.pumping = true
			w.n.in(100*time.Millisecond, func() {
				if w.reads == reads {
					w.pumping = false
					w.pump()
				}
			})
			return
		}
		list := s.log[w.p]
		i, _ := slices.BinarySearchFunc(list, w.next, func(m Message, seq uint64) int { return cmp.Compare(m.Seq, seq) })
		for ; i < len(list) && w.reading && w.reads == reads; i++ {
			if c := s.claims[w.p]; list[i].Seq < s.forgot[w.p] && w.o.epoch < c[len(c)-1] {
				continue // a former owner may miss something: whatever it makes of it, nobody takes it from it
			}
			if list[i].Seq < s.forgot[w.p] {
				s.fail("%s reads partition %d from %d, and the log begins at %d", w.n.name, w.p, w.next, s.forgot[w.p])
				return
			}
			w.next = list[i].Seq + 1
			w.o.Message(w.n.clock(), list[i])
		}
	})
}

func (w *simWorld) Publish(ref Ref, n push.Notification) {
	s := w.n.s
	s.Stats.Published++
	answered := false
	run := w.n.run
	epoch := w.o.epoch
	s.checkBegun(w.p, ref, epoch)
	if !w.n.cut || true { // push services are on another network
		s.after(s.delay(), func() {
			told := s.service[ref]
			if told == nil {
				told = make(map[string]time.Time)
				s.service[ref] = told
			}
			twice := false
			for _, num := range n.Events {
				id := s.stanzas[num]
				if before, ok := told[id]; ok && s.disabled[ref].Before(before.Add(-2*time.Second)) {
					twice = true
					if s.settled[ref][id] {
						s.fail("C3: %v is told of %s again, though the first time was answered in peace", ref, id)
					}
				}
				told[id] = s.now
			}
			if twice {
				s.Stats.Twice++
				s.note("twice: %v by %s", ref, w.n.name)
			}
			s.after(time.Duration(1+s.r.IntN(100))*time.Millisecond, func() {
				w.n.do(run, func() {
					if !answered {
						answered = true
						w.o.Replied(w.n.clock(), ref, push.Reply{})
						at := s.now
						w.n.in(peace, func() {
							if s.now.Sub(at) == peace && w.n.troubled.Before(at.Add(-peace)) && s.troubled.Before(at.Add(-peace)) && w.o.epoch == epoch {
								for _, num := range n.Events {
									s.settle(ref, s.stanzas[num])
								}
							}
						})
					}
				})
			})
		})
	}
}

// peace is how long nothing bad must have happened around a reply for its End to be in the log for certain.
const peace = 8 * time.Second

func (s *simulation) settle(ref Ref, id string) {
	if s.settled[ref] == nil {
		s.settled[ref] = make(map[string]bool)
	}
	s.settled[ref][id] = true
}

// checkBegun: what goes out was begun in the log by this owner, while it was the owner (C5). An owner that was paused just then sends it when it wakes up:
// that was in flight.
func (s *simulation) checkBegun(p int, ref Ref, epoch uint64) {
	for _, m := range slices.Backward(s.log[p]) {
		if m.Seq < epoch {
			break
		}
		if !m.Records || s.claimBefore(p, m.Seq) != epoch {
			continue
		}
		_, rs, _ := ReadRecords(m.Data)
		for _, r := range rs {
			if b, ok := r.(Begin); ok && b.Account == ref.Account && b.Key == ref.Key {
				return
			}
		}
	}
	s.fail("C5: %v is published by the owner of %d, and the log does not say that it was begun then", ref, epoch)
}

func (s *simulation) claimBefore(p int, seq uint64) uint64 {
	for _, c := range slices.Backward(s.claims[p]) {
		if c <= seq {
			return c
		}
	}
	return 0
}

func (w *simWorld) Show(out *Out, replayed bool) {
	s := w.n.s
	for _, ref := range out.Ready {
		w.n.in(0, func() { w.o.Begin(w.n.clock(), ref) })
	}
	for _, a := range out.Changed {
		if s.knownBy[a] > w.o.epoch {
			continue // a later owner has said something
		}
		s.rev++
		s.note("%s says of %s: %v, as %d", w.n.name, a, len(w.o.state.Registrations(a)), s.rev)
		has, rev := len(w.o.state.Registrations(a)) > 0, s.rev
		s.known[a], s.knownBy[a], s.knownRev[a] = has, w.o.epoch, rev
		w.n.local.Register(Hash(a), has, rev)
		if !has {
			s.sure[a] = false
		}
		waiting := 1
		heard := func() {
			if waiting--; waiting == 0 && s.knownRev[a] == rev {
				s.sure[a] = has
			}
		}
		for _, o := range s.nodes {
			if o != w.n && o.up {
				waiting++
				once := false
				w.tell(o, a, has, rev, s.now.Add(simLease*3/2), func() {
					if !once {
						once = true
						heard()
					}
				})
			}
		}
		heard()
	}
	if replayed {
		s.Stats.Resent += out.Resent
		s.Stats.MaxTakeover = max(s.Stats.MaxTakeover, w.n.clock().Sub(w.o.wantAt))
		return
	}
	for _, ad := range out.Advice {
		for _, o := range s.nodes {
			if o.name == ad.Node && o.up {
				o.in(s.delay(), func() { o.local.Advised(ad.Advice) })
			}
		}
	}
}

// answer waits with an enable that was accepted: it is answered when all nodes know of it.
func (s *simulation) answer(p *phone) {
	for _, n := range s.nodes {
		if n.up && !n.cut && !n.paused && !n.local.Registered(p.account) {
			s.after(time.Millisecond, func() { s.answer(p) })
			return
		}
	}
	p.enabled = true
}

// ---- phones and what happens to them

type phone struct {
	account string
	key     push.Key
	enabled bool
	// node is where its session is; nil without one.
	node       *simNode
	run        int
	session    string
	hibernated bool
	sessions   int
}

func (p *phone) id() push.SessionID { return push.SessionID{Account: p.account, ID: p.session} }

// gone: the node of its session has ended.
func (p *phone) gone() bool { return p.node == nil || !p.node.up || p.node.run != p.run }

func newSimulation(cfg simConfig) *simulation {
	s := &simulation{
		cfg: cfg, r: rand.New(rand.NewPCG(cfg.seed, 1)), now: simStart, service: make(map[Ref]map[string]time.Time), stanzas: make(map[uint64]string), disabled: make(map[Ref]time.Time), settled: make(map[Ref]map[string]bool),
		accepted: make(map[string]bool), known: make(map[string]bool), knownBy: make(map[string]uint64), knownRev: make(map[string]uint64), sure: make(map[string]bool), busy: true,
	}
	s.log, s.forgot, s.snaps, s.claims = make([][]Message, cfg.parts), make([]uint64, cfg.parts), make([]simSnapshot, cfg.parts), make([][]uint64, cfg.parts)
	s.owner = make([]Origin, cfg.parts)
	s.policy = &push.Policy{Causes: 1 << 20}
	for a := range cfg.accounts {
		for d := range 1 + s.r.IntN(2) {
			account := fmt.Sprintf("u%d@example.com", a)
			s.phones = append(s.phones, &phone{account: account, key: push.Key{Service: "push.example.net", Node: fmt.Sprintf("u%d-%d", a, d)}})
		}
	}
	for i := range cfg.nodes {
		s.addNode(string(rune('a' + i))).start()
	}
	return s
}

// anyNode returns a node that runs.
func (s *simulation) anyNode() *simNode {
	var list []*simNode
	for _, n := range s.nodes {
		if n.up && !n.paused && !n.leaving && s.now.Sub(n.born) > 2*time.Second {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[s.r.IntN(len(list))]
}

func (s *simulation) happen() {
	s.Stats.Events++
	p := s.phones[s.r.IntN(len(s.phones))]
	n := s.anyNode()
	if n == nil {
		return
	}
	if p.gone() {
		p.node = nil
	}
	here := p.node
	if here != nil && (here.paused || here.cut) {
		here = nil // its connection hangs
	}
	switch r := s.r.IntN(100); {
	case r < 12 && p.node == nil:
		p.sessions++
		p.node, p.run, p.session, p.hibernated = n, n.run, fmt.Sprint(p.key.Node, "-s", p.sessions), false
		n.handle(push.SessionOpen{Session: p.id(), JID: p.account + "/" + p.key.Node}, nil)
		n.handle(push.PushEnable{Session: p.id(), Key: p.key}, func(ok bool) {
			if ok {
				s.answer(p)
			}
		})
	case r < 16 && here != nil && !p.hibernated:
		p.hibernated = true
		here.handle(push.HibernationStart{Session: p.id()}, nil)
	case r < 24 && here != nil && p.hibernated: // resumed, here or on another node
		if n != here {
			here.local.Moved(p.id())
			s.Stats.Moves++
		}
		p.node, p.run, p.hibernated = n, n.run, false
		n.handle(push.HibernationEnd{Session: p.id()}, nil)
	case r < 28 && here != nil:
		p.node = nil
		here.handle(push.SessionClose{Session: p.id()}, nil)
	case r < 29 && p.enabled:
		p.enabled = false
		n.handle(push.PushDisable{Session: push.SessionID{Account: p.account}, Key: p.key}, nil)
	default:
		id := fmt.Sprint("m", s.Stats.Events)
		st := push.Stanza{ID: id, From: "nurse@example.net/x", To: p.account, Class: push.Class(s.r.IntN(3))}
		sure := s.sure[p.account]
		if n.behind() {
			s.Stats.Behind++
		}
		if !n.handle(push.ArchiveAdded{Account: p.account, Stanza: st}, func(ok bool) { s.accepted[id] = ok }) && sure {
			s.Stats.Misses++
			s.note("miss: %s does not know %s: since %v, caught %v ago, told as %d", n.name, p.account, n.clock().Sub(n.started), n.clock().Sub(n.caught), s.knownRev[p.account])
		}
		for _, q := range s.phones {
			if q.account == p.account && q.hibernated && !q.gone() && !q.node.paused && !q.node.cut {
				q.node.handle(push.StanzaQueued{Session: q.id(), Stanza: st}, nil)
			}
		}
	}
}

// trouble does something bad.
func (s *simulation) trouble() {
	if len(s.nodes) == 0 {
		return
	}
	n := s.nodes[s.r.IntN(len(s.nodes))]
	if !n.up || n.paused || n.cut {
		return
	}
	defer func() {
		s.note("trouble: %s up=%v paused=%v cut=%v outage=%v", n.name, n.up, n.paused, n.cut, s.outage.Sub(s.now))
	}()
	switch r := s.r.IntN(12); {
	case r >= 10: // one link, of two nodes that the others hear as before
		o := s.nodes[s.r.IntN(len(s.nodes))]
		if o == n || !o.up || s.parted[0] != nil {
			return
		}
		s.Stats.Parted++
		s.parted = [2]*simNode{n, o}
		s.after(time.Duration(s.r.IntN(30000))*time.Millisecond, func() {
			s.parted, n.troubled, o.troubled = [2]*simNode{}, s.now, s.now
		})
	case r < 3:
		s.Stats.Crashes++
		n.up = false
		s.after(time.Duration(s.r.IntN(20000))*time.Millisecond, n.start)
	case r < 6:
		s.Stats.Pauses++
		s.pause(n, time.Duration(s.r.IntN(12000))*time.Millisecond)
	case r < 8:
		s.Stats.Cuts++
		n.cut = true
		run := n.run
		s.after(time.Duration(s.r.IntN(12000))*time.Millisecond, func() {
			if n.run == run {
				n.cut, n.troubled = false, s.now
			}
		})
	default:
		s.outage = s.now.Add(time.Duration(s.r.IntN(6000)) * time.Millisecond)
		s.troubled = s.outage
		s.skew = -time.Duration(s.r.IntN(3)*s.r.IntN(3600)) * time.Second // another server leads the log now, whose clock is late
	}
}

func (s *simulation) pause(n *simNode, d time.Duration) {
	n.paused = true
	run := n.run
	s.after(d, func() {
		if !n.up || n.run != run {
			return
		}
		n.paused, n.troubled = false, s.now
		list := n.backlog
		n.backlog = nil
		for _, f := range list {
			n.do(run, f)
		}
	})
}

// come lets a node come or go in an orderly way.
func (s *simulation) come() {
	up := 0
	for _, n := range s.nodes {
		if n.up && !n.leaving {
			up++
		}
	}
	if n := s.anyNode(); n != nil && up > 1 && (s.r.IntN(2) == 0 || len(s.nodes) > 6) {
		s.leave(n)
		return
	}
	s.addNode(fmt.Sprint("x", len(s.nodes))).start()
}

func (s *simulation) leave(n *simNode) {
	for _, p := range s.phones {
		if p.node == n {
			p.node = nil
			n.handle(push.SessionClose{Session: p.id()}, nil)
		}
	}
	n.leaving = true
	n.in(0, n.choose)
	var gone func()
	gone = func() {
		for i, o := range n.owners {
			if o.Phase() != PhaseIdle || n.entries[i].Len() > 0 {
				n.in(200*time.Millisecond, gone)
				return
			}
		}
		n.up = false
	}
	n.in(200*time.Millisecond, gone)
}

// simulate runs one seed, and returns what was found.
func simulate(cfg simConfig) (simStats, []string) {
	s := newSimulation(cfg)
	s.run(s.now.Add(5 * time.Second))
	end := s.now
	for range cfg.events {
		end = end.Add(time.Duration(s.r.IntN(20)) * time.Millisecond)
		s.after(end.Sub(s.now), s.happen)
	}
	if cfg.faults {
		for at := s.now; at.Before(end); at = at.Add(time.Duration(2000+s.r.IntN(12000)) * time.Millisecond) {
			s.after(at.Sub(s.now), s.trouble)
		}
	}
	if cfg.part {
		s.after(20*time.Second, func() { s.parted = [2]*simNode{s.nodes[0], s.nodes[1]} })
		s.after(80*time.Second, func() { s.parted = [2]*simNode{} })
	}
	if cfg.joins {
		for at := s.now.Add(5 * time.Second); at.Before(end); at = at.Add(time.Duration(5000+s.r.IntN(15000)) * time.Millisecond) {
			s.after(at.Sub(s.now), s.come)
		}
	}
	s.run(end)
	// Now all is well again for some time.
	s.busy, s.outage, s.parted = false, time.Time{}, [2]*simNode{}
	for _, n := range s.nodes {
		n.cut = false
	}
	s.run(end.Add(90 * time.Second))
	for _, n := range s.nodes {
		if !n.up && !n.leaving && n.born.IsZero() {
			n.start()
		}
		for _, o := range n.owners {
			if n.up {
				s.Stats.Takeovers += o.Takeovers
			}
		}
	}
	if len(s.failures) == 0 {
		s.verify()
	}
	return s.Stats, s.failures
}

// verify compares what was published with what the whole log adds up to.
func (s *simulation) verify() {
	owners := make(map[string][]int)
	decided := make(map[string]bool)
	for p := range s.cfg.parts {
		ref := New(s.policy, nil)
		var out Out
		fold(ref, s.log[p], &out)
		// One brain: each partition has one owner, and its state is that of the log.
		var owner *Owner
		for _, n := range s.nodes {
			if n.up && n.owners[p].State() != nil {
				if owner != nil {
					s.fail("partition %d has two owners in the end", p)
				}
				owner = n.owners[p]
			}
		}
		if owner == nil {
			s.fail("partition %d has no owner in the end: %v", p, s.phases(p))
			return
		}
		later := owner.state.Now()
		if ref.Now().After(later) {
			later = ref.Now()
		}
		var rest Out
		owner.state.Advance(later, &rest)
		ref.Advance(later, &rest)
		for _, name := range ref.Registered() {
			owners[name] = append(owners[name], p)
			if got, want := owner.state.Inspect(name), ref.Inspect(name); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				s.fail("C1: %s differs from what the log says:\n%+v\n%+v", name, got, want)
			}
			for _, r := range ref.Inspect(name).Registrations {
				if r.Waiting > 0 || r.InFlight {
					s.fail("C4: %s of %s still waits: %+v", r.Key, name, r)
				}
			}
		}
		// Nothing that was decided is lost.
		dropped := make(map[Ref]map[uint64]bool)
		drop := func(account string, e *push.Effects) {
			for _, d := range e.Drops {
				ref := Ref{account, d.Key}
				if dropped[ref] == nil {
					dropped[ref] = make(map[uint64]bool)
				}
				for _, n := range d.Events {
					dropped[ref][n] = true
				}
			}
		}
		for i := range out.Affected {
			drop(out.Affected[i].Account, &out.Affected[i].Effects)
		}
		for i := range out.Decided {
			drop(out.Decided[i].Decision.Account, &out.Decided[i].Decision.Effects)
		}
		for _, d := range out.Decided {
			if ev, ok := d.Event.(push.ArchiveAdded); ok {
				decided[ev.Stanza.ID] = true
			}
			for _, v := range d.Decision.Verdicts {
				for _, id := range v.Stanzas {
					r := Ref{d.Decision.Account, v.Key}
					if v.Notify && s.service[r][id].IsZero() && !dropped[r][d.Number] {
						s.fail("C2: %s is lost for %v: decided by event %d and never published", id, r, d.Number)
					}
				}
			}
		}
	}
	for name, list := range owners {
		if len(list) > 1 {
			s.fail("C1: %s has a brain in partitions %v", name, list)
		}
	}
	// Accepted is durable: each accepted stanza was decided.
	for _, id := range slices.Sorted(maps.Keys(s.accepted)) {
		if s.accepted[id] && !decided[id] {
			s.fail("C2: %s was accepted, and what the log adds up to does not have it", id)
		}
	}
	if s.Stats.Twice > s.Stats.Resent {
		s.fail("C3: %d publishes told a service of a stanza again, and only %d were in flight when their owner ended", s.Stats.Twice, s.Stats.Resent)
	}
	if s.Stats.Misses > 0 {
		s.fail("C10: %d events of registered accounts did not leave their node", s.Stats.Misses)
	}
}

func (s *simulation) phases(p int) string {
	var b strings.Builder
	for _, n := range s.nodes {
		fmt.Fprintf(&b, "%s up=%v %v want=%v err=%v; ", n.name, n.up, n.owners[p].Phase(), n.owners[p].want, n.owners[p].Err)
	}
	return b.String()
}

// fold is replayed without an owner.
func fold(st *State, log []Message, out *Out) {
	type entry struct {
		after uint64
		order int
		do    func()
	}
	var list []entry
	for i, m := range log {
		if !m.Records {
			b, err := ReadBatch(m.Data)
			if err != nil {
				panic(err)
			}
			list = append(list, entry{m.Seq, 0, func() { st.Batch(m.Seq, m.Time, b, out) }})
			continue
		}
		by, rs, err := ReadRecords(m.Data)
		if err != nil {
			panic(err)
		}
		for _, r := range rs {
			after := m.Seq
			if w, ok := r.(interface{ when() When }); ok {
				after = w.when().After
			}
			list = append(list, entry{after, i + 1, func() { st.Record(m.Seq, by, r, out) }})
		}
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Or(cmp.Compare(a.after, b.after), cmp.Compare(a.order, b.order)) })
	for _, e := range list {
		e.do()
	}
}
