package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// lane is a node's side of one partition: what it appends, and, if it owns the partition, what it does as the owner.
type lane struct {
	n *Node
	p int

	// mu guards what the callers of Handle touch.
	mu        sync.Mutex
	local     *partition.Local
	entry     *partition.Entry
	waiting   map[place]*call // those whose event is in the log, and whose Decision is not known yet
	began     time.Time       // when the batch that is on its way was sent first
	tries     int             // failed ones since the log has answered last
	since     time.Time       // of the first of them
	queued    bool            // waits for its turn
	abandoned bool            // the batch that is on its way is not to be sent again

	// The owner is touched by one goroutine at a time: the one that does the tasks.
	owner     *partition.Owner
	world     *world
	tasks     serial
	registrar serial // tells which accounts have registrations
	timer     *time.Timer
	timerAt   time.Time
	phase     atomic.Int32
	lag       atomic.Int64
	stat      atomic.Pointer[cluster.Partition]
}

// place is where an event is in a batch.
type place struct {
	origin partition.Origin
	batch  uint64
	index  int
}

func newLane(n *Node, p int, me partition.Origin, cfg *partition.Config) *lane {
	l := &lane{n: n, p: p, local: partition.NewLocal(), entry: partition.NewEntry(me), waiting: make(map[place]*call)}
	l.world = &world{lane: l}
	l.owner = partition.NewOwner(cfg, me, l.world)
	l.tasks.then = l.settle
	return l
}

// foreign tells, quickly, whether an event is none of the cluster's business.
func (l *lane) foreign(ev push.Event, account string) bool {
	switch ev.(type) {
	case push.ArchiveAdded, push.Offline, push.Groupchat:
	default:
		return false
	}
	l.mu.Lock()
	registered := l.local.Registered(account)
	l.mu.Unlock()
	return !registered && !l.n.behind()
}

// enter puts an event on its way into the log, after what the log has to know before it. It returns nil if the log need not know.
func (l *lane) enter(ev push.Event, wanted bool) *call {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.local.Events(ev, l.n.behind())
	if len(list) == 0 {
		return nil
	}
	for _, first := range list[:len(list)-1] {
		l.entry.Add(first, false, (*call)(nil))
	}
	c := &call{n: l.n, lane: l, ev: ev, accepted: make(chan struct{})}
	if wanted {
		c.decided = make(chan struct{})
	}
	l.entry.Add(l.lean(list[len(list)-1]), wanted, c)
	l.next()
	return c
}

// next sends what waits, as soon as it is this lane's turn. Until then more comes, and goes with it: so there are fewer and larger appends the more there is to
// do. l.mu is held.
func (l *lane) next() {
	if l.queued || l.n.holding.Load() || l.entry.Len() == 0 || l.entry.Flight() != nil {
		return
	}
	l.queued = true
	l.n.work.Add(1)
	go func() {
		defer l.n.work.Done()
		select {
		case l.n.turns <- struct{}{}:
		case <-l.n.ctx.Done():
			return
		}
		defer func() { <-l.n.turns }()
		l.mu.Lock()
		l.queued = false
		var data []byte
		if !l.n.holding.Load() {
			data = l.begin()
		}
		l.mu.Unlock()
		if data != nil {
			l.send(data)
		}
	}()
}

// appendsAtOnce is how many batches of a node may be on their way.
const appendsAtOnce = 8

// begin takes the next batch. l.mu is held.
func (l *lane) begin() []byte {
	data := l.entry.Next(l.n.version())
	if data != nil {
		l.began = time.Now()
		for _, in := range l.entry.Flight() {
			if c := in.Tag.(*call); in.Wanted && c != nil {
				l.waiting[place{in.Origin, in.Batch, in.Index}] = c
			}
		}
	}
	return data
}

// send appends a batch, as often as it takes, and tells those who wait for it.
func (l *lane) send(data []byte) {
	for missed := 0; ; {
		_, err := l.n.append(l.n.names.events(l.p), data, -1, attempt(missed))
		if err == nil {
			_ = l.n.cfg.Conn.Publish(l.n.names.hint(l.p), nil)
		}
		if again := l.sent(err); !again {
			return
		}
		if late(err) {
			missed++
		}
		sleep(l.n.ctx, 50*time.Millisecond)
	}
}

// sent ends a try, and returns whether there should be another.
func (l *lane) sent(err error) (again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && l.n.ctx.Err() == nil {
		l.n.counts.retried.Add(1)
		if l.tries == 0 {
			l.since = time.Now()
		}
		if l.tries++; time.Since(l.began) < appendFor && !l.abandoned {
			return true
		}
	}
	if err == nil {
		l.tries = 0
	}
	l.abandoned = false
	for _, in := range l.entry.Done() {
		c := in.Tag.(*call)
		if err != nil {
			delete(l.waiting, place{in.Origin, in.Batch, in.Index})
			if c == nil || c.ev.Subject().ID != "" {
				l.n.trouble()
			}
		}
		if c != nil {
			c.ok = err == nil
			close(c.accepted)
		}
	}
	if l.n.ctx.Err() == nil {
		l.next()
	}
	return false
}

// enterAlone puts what was decided alone on its way into the log, and the event behind it.
func (l *lane) enterAlone(d decidedAlone) *call {
	l.note(d.ev.Subject().Account, d.told)
	return l.enter(d.ev, false)
}

// note puts on its way who was notified by this node alone.
func (l *lane) note(account string, list []told) {
	if len(list) == 0 {
		return
	}
	a := partition.Alone{AccountRemoved: push.AccountRemoved{Account: account}}
	for _, t := range list {
		a.Told = append(a.Told, partition.Told{Key: t.key, IDs: t.ids})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry.Add(a, false, (*call)(nil))
}

// abandon lets the batch that an event is in not be sent again, if the log has not answered once: this node decides it now.
func (l *lane) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.abandoned = l.tries > 0
}

func (l *lane) sessionsOf(account string) []push.SessionRestored {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.local.Of(account)
}

// troubled tells whether the log has not answered for longer than it takes to elect a leader.
func (l *lane) troubled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entry.Flight() != nil && l.tries > 0 && time.Since(l.since) > electTime
}

// electTime is how long the servers of NATS may take to elect a leader, at most.
const electTime = 10 * time.Second

// withdraw takes back an event that is not on its way yet.
func (l *lane) withdraw(c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.entry.Waiting() {
		if in.Tag.(*call) == c {
			if c.ev.Subject().ID != "" {
				l.n.trouble()
			}
			return l.entry.Withdraw(in)
		}
	}
	return false
}

// answer gives a Decision to the call that waits for it.
func (l *lane) answer(at place, d push.Decision) {
	l.mu.Lock()
	c := l.waiting[at]
	delete(l.waiting, at)
	l.mu.Unlock()
	if c != nil {
		c.decision = d
		close(c.decided)
	}
}

// again lets the log hear of this node's sessions in its new life.
func (l *lane) again(me partition.Origin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry.Begin(me, (*call)(nil), l.local.Restored())
}

// flying tells whether a batch is on its way.
func (l *lane) flying() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entry.Flight() != nil
}

func (l *lane) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entry.Idle()
}

// idle tells whether the lane has nothing on its way and owns nothing.
func (l *lane) idle() bool {
	return l.quiet() && partition.Phase(l.phase.Load()) == partition.PhaseIdle
}

// ---- the owner's tasks

// serial does things one after another, in a goroutine that is there as long as there are some.
type serial struct {
	sync.Mutex
	list    []func()
	running bool
	stopped bool
	then    func() // after each run of things
}

func (t *serial) post(l *lane, do func()) {
	t.Lock()
	defer t.Unlock()
	if t.stopped {
		return
	}
	t.list = append(t.list, do)
	if !t.running {
		t.running = true
		l.n.work.Add(1)
		go func() {
			defer l.n.work.Done()
			t.work()
		}()
	}
}

func (t *serial) work() {
	for {
		t.Lock()
		list := t.list
		t.list = nil
		if len(list) == 0 || t.stopped {
			t.running = false
			t.Unlock()
			return
		}
		t.Unlock()
		for _, do := range list {
			do()
		}
		if t.then != nil {
			t.then()
		}
	}
}

func (t *serial) stop() {
	t.Lock()
	defer t.Unlock()
	t.stopped, t.list = true, nil
}

// post lets do happen to the owner, after what was posted before.
func (l *lane) post(do func()) { l.tasks.post(l, do) }

// settle arms the timer, and tells what has become of the owner.
func (l *lane) settle() {
	now := time.Now()
	o := l.owner
	phase := o.Phase()
	if was := partition.Phase(l.phase.Swap(int32(phase))); was != phase {
		l.world.phase(was, phase)
	}
	st := &cluster.Partition{Partition: l.p, Phase: phase.String(), Takeovers: o.Takeovers, TakenIn: o.TakenIn, Published: o.Published, Resent: o.Resent, InFlight: o.InFlight()}
	if s := o.State(); s != nil {
		st.Owned = true
		st.Accounts, st.Active = s.Size()
	}
	if o.Err != nil {
		st.Err = o.Err.Error()
		if phase == partition.PhaseStuck && errors.Is(o.Err, partition.ErrUnknown) {
			l.n.outdate(st.Err)
		}
	}
	l.stat.Store(st)
	next := o.Next(now)
	if next.IsZero() || next.Equal(l.timerAt) {
		return
	}
	l.timerAt = next
	wait := max(next.Sub(now), 0)
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.tick)
	} else {
		l.timer.Reset(wait)
	}
}

func (l *lane) tick() {
	l.post(func() {
		l.timerAt = time.Time{}
		l.owner.Tick(time.Now())
	})
}

func (l *lane) stop() {
	l.tasks.stop()
	l.registrar.stop()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.world.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.waiting {
		close(c.decided)
	}
	clear(l.waiting)
	for _, in := range l.entry.Waiting() {
		if c := in.Tag.(*call); c != nil && l.entry.Withdraw(in) {
			close(c.accepted)
		}
	}
}

// append appends to the log. prev, if not negative, is the sequence number that the newest record has to have.
func (n *Node) append(subject string, data []byte, prev int64, within time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(n.ctx, within)
	defer cancel()
	return n.appendTo(ctx, &nats.Msg{Subject: subject, Data: data}, prev)
}

// warn logs what has failed and is tried again. While the log does not answer that is so for each partition, every second: it is said some times a minute, and else at level
// debug.
func (n *Node) warn(text string, p int, err error) { n.seldom(slog.LevelWarn, text, p, err) }

func (n *Node) seldom(level slog.Level, text string, p int, err error) {
	if n.warned.tooOften(text, time.Now()) {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("node", n.cfg.Node), slog.Any("error", err)}
	if p >= 0 {
		attrs = append(attrs, slog.Int("partition", p))
	}
	n.log.LogAttrs(n.ctx, level, "push cluster: "+text, attrs...)
}

// seldom counts what was said since a time.
type seldom struct {
	mu    sync.Mutex
	since time.Time
	times map[string]int
}

// saidOften is how often a text is logged a minute.
const saidOften = 5

func (s *seldom) tooOften(text string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == nil || now.Sub(s.since) >= time.Minute {
		s.times, s.since = make(map[string]int), now
	}
	s.times[text]++
	return s.times[text] > saidOften
}
