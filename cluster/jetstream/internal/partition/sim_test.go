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
	shown    map[uint64]bool              // event numbers whose Decision some owner has shown
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
		cfg: cfg, r: rand.New(rand.NewPCG(cfg.seed, 1)), now: simStart, service: make(map[Ref]map[string]time.Time), stanzas: make(map[uint64]string), shown: make(map[uint64]bool), disabled: make(map[Ref]time.Time), settled: make(map[Ref]map[string]bool),
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
				if !s.cfg.faults && !s.shown[d.Number] {
					s.fail("event %d was decided, and nobody has shown how", d.Number)
				}
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
