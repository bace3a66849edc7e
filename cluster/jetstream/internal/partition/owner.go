package partition

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// Errors of a World.
var (
	// ErrFenced: the log has a record that its writer did not know of, or the snapshot is another owner's: somebody else owns the partition now.
	ErrFenced = errors.New("partition: another node owns it")
	// ErrDoubt: it is not known whether the log has taken it.
	ErrDoubt = errors.New("partition: no answer")
	// ErrDamaged: the log and the snapshot do not belong together.
	ErrDamaged = errors.New("damaged")
)

// World is what an Owner asks for. The calls return at once; the answers come back through the Owner's method of the name that each one says, in
// any order but for messages.
type World interface {
	// Tail asks for the newest record in the log: Tailed.
	Tail()
	// Append appends records if the newest one in the log is at prev, and answers with Appended: ErrFenced if it is not.
	Append(records []byte, prev uint64)
	// Load takes the snapshot for this owner, whose Claim is at epoch, so that no earlier owner can replace it any more, and answers with Loaded.
	Load(epoch uint64)
	// Read lets Message be called with everything in the log from a sequence number on, in order and without a gap, until Stop.
	Read(from uint64)
	Stop()
	// Save replaces the snapshot and lets the log forget what is before keep, unless a later owner has taken it: Saved.
	Save(snapshot []byte, keep uint64)
	// Publish sends a notification: Replied.
	Publish(ref Ref, n push.Notification)
	// Show tells what has come of something, in order. replayed: it is what a new owner finds in the log, of which a former one has shown a part already: of what
	// is Decided that is said, Affected is what it has shown, and Advice and Moved are what may not have been told yet.
	Show(out *Out, replayed bool)
}

// Message is an entry of the log.
type Message struct {
	Seq  uint64
	Time time.Time
	// Records: it is the owner's, else a Batch.
	Records bool
	Data    []byte
}

// Config is what Owners have in common.
type Config struct {
	Policy *push.Policy
	Veto   func(r *push.Registration, st push.Stanza) string
	// Writes returns the version to write; nil means the First.
	Writes func() int
	// Alive tells whether a life of a node goes on, as far as it is known.
	Alive func(o Origin) bool
	// Runs tells whether the process that o was a life of goes on, perhaps in a later life; nil means Alive.
	Runs func(o Origin) bool
	// Heard returns for how long nothing was heard of a node; less than zero if nothing ever was.
	Heard func(node string) time.Duration
	// SnapshotEvery is after how many messages of the log a snapshot is written, SnapshotAge after what time if there was any.
	SnapshotEvery int
	SnapshotAge   time.Duration
	// Patience is how long a new owner waits for one that is alive to release the partition.
	Patience time.Duration
}

func (c *Config) writes() int {
	if c.Writes == nil {
		return First
	}
	return c.Writes()
}

func (c *Config) runs(o Origin) bool {
	if c.Runs == nil {
		return c.Alive(o)
	}
	return c.Runs(o)
}

// Phase is how far an Owner is.
type Phase uint8

const (
	PhaseIdle     Phase = iota
	PhaseTailing        // finds out who owns it
	PhaseWaiting        // for the owner to release it
	PhaseClaiming       // its Claim is on the way into the log
	PhaseLoading        // the snapshot
	PhaseReading        // the log behind the snapshot
	PhaseOwning
	PhaseDraining // waits for replies, to release it
	PhaseReleasing
	PhaseStuck // the log or the snapshot has what cannot be read; it looks again now and then
)

var phaseNames = [...]string{"idle", "tailing", "waiting", "claiming", "loading", "reading", "owning", "draining", "releasing", "stuck"}

func (p Phase) String() string { return phaseNames[min(p, PhaseStuck)] }

// Owner is a node's part in one partition. Not safe for simultaneous use.
type Owner struct {
	cfg   *Config
	world World
	me    Origin

	phase  Phase
	want   bool
	wantAt time.Time // since when it waits
	retry  time.Time // when to do what failed again; zero: not
	state  *State

	// last is the newest record in the log, epoch the Claim.
	last, epoch uint64
	// appending is what is on its way into the log; sends are the publishes that wait for it. doubt: it may be in the log already. retried: it was
	// sent more than once.
	appending []byte
	sends     []send
	doubt     bool
	retried   bool
	// mine: the newest record in the log may be this owner's, and no Release. A successor waits for that.
	mine bool
	// shown is the last batch that this owner has shown, in whichever time of its being one.
	shown uint64
	// former is who wrote the newest record before the Claim, if anybody has, and released what it says if that is a Release.
	former   Origin
	released *Release
	// backAt is since when the log's answers are older than what it has said before; zero: they are not.
	backAt time.Time
	// tries is how often the same append was sent again and is not there; paused: the next try waits.
	tries   int
	paused  bool
	pending []Record
	later   []send
	sealed  int // how many of pending belong before a snapshot that was taken

	// snapshot waits for the records before it to be in the log.
	snapshot             []byte
	snapSeq              uint64
	saving               bool
	since                int
	savedAt              time.Time
	replay               []Message
	snapOwn              uint64
	logTime, receivedAt  time.Time
	out                  Out
	homesAt              time.Time
	Takeovers, Published int
	// Resent counts publishes that a former owner began and whose end is not known.
	Resent int
	// TakenIn is how long the last takeover took, from when it was wanted.
	TakenIn time.Duration
	// Err is why it is stuck, or what failed last.
	Err error
}

type send struct {
	ref Ref
	n   push.Notification
}

// NewOwner returns the Owner of a partition that is owned by nobody.
func NewOwner(cfg *Config, me Origin, w World) *Owner { return &Owner{cfg: cfg, me: me, world: w} }

// Phase is how far it is.
func (o *Owner) Phase() Phase { return o.phase }

// State is the partition's state, or nil if it is not owned.
func (o *Owner) State() *State {
	if o.phase == PhaseOwning || o.phase == PhaseDraining {
		return o.state
	}
	return nil
}

// Want says whether the node should own the partition.
func (o *Owner) Want(now time.Time, want bool) {
	if want == o.want {
		return
	}
	o.want = want
	switch {
	case want && (o.phase == PhaseIdle || o.phase == PhaseStuck):
		o.wantAt = now
		o.tail()
	case want && o.phase == PhaseDraining:
		o.phase = PhaseOwning
		o.ready(o.state.Waiting())
	case !want && o.phase == PhaseOwning:
		o.phase = PhaseDraining
		o.drain()
	case !want && o.mine && (o.phase == PhaseWaiting || o.phase == PhaseStuck):
		o.tail()
	case !want && !o.mine && (o.phase == PhaseTailing || o.phase == PhaseWaiting || o.phase == PhaseStuck):
		o.rest()
	}
}

// rest: it has nothing to do with the partition any more.
func (o *Owner) rest() {
	o.idle()
	o.Err = nil
}

func (o *Owner) tail() {
	o.phase, o.retry = PhaseTailing, time.Time{}
	o.world.Tail()
}

// idle forgets everything.
func (o *Owner) idle() {
	if o.phase >= PhaseReading {
		o.world.Stop()
	}
	keep := *o
	*o = Owner{cfg: o.cfg, world: o.world, me: o.me, want: o.want, mine: o.mine, shown: o.shown, Takeovers: keep.Takeovers, Published: keep.Published, Resent: keep.Resent, TakenIn: keep.TakenIn, Err: keep.Err}
}

// Lost says that the log is not the one any more that the Owner has read. It begins anew.
func (o *Owner) Lost(now time.Time) {
	if o.phase != PhaseIdle && o.phase != PhaseTailing && o.phase != PhaseWaiting {
		o.lost(now)
	}
}

// lost: another node owns the partition; or it seems so, because an answer was lost. If it is not wanted any more the log tells which, and is told in the second case.
func (o *Owner) lost(now time.Time) {
	o.idle()
	o.wantAt = now
	switch {
	case o.want:
		o.phase, o.retry = PhaseWaiting, now.Add(time.Second)
	case o.mine:
		o.tail()
	}
}

const (
	again = 100 * time.Millisecond
	// stuckAgain is when it looks again whether what it cannot read is still so: a backup was restored, or a leader did not have all yet.
	stuckAgain = 10 * time.Second
	// backFor is for how long answers of the log that are older than what it has said before are taken for those of a leader that is none any more.
	backFor = 15 * time.Second
)

// Tailed answers Tail: the newest record is at seq, zero if there is none.
func (o *Owner) Tailed(now time.Time, seq uint64, data []byte, err error) {
	if o.doubt {
		o.resolve(now, seq, data, err)
		return
	}
	if o.phase != PhaseTailing {
		return
	}
	if err != nil {
		o.Err, o.retry = err, now.Add(again)
		return
	}
	o.mine, o.former, o.released = false, Origin{}, nil
	if seq > 0 {
		by, rs, err := ReadRecords(data)
		if err != nil && o.want {
			o.cannot(now, err)
			return
		}
		released := err != nil // by somebody else, in any case
		if err == nil {
			o.former = by
			var r Release
			if r, released = rs[len(rs)-1].(Release); released {
				o.released = &Release{cmp.Or(r.After, seq)}
			}
		}
		o.mine = by == o.me && !released
		if o.want && !released && !o.mine && o.cfg.runs(by) && now.Sub(o.wantAt) < o.cfg.Patience {
			o.phase, o.retry = PhaseWaiting, now.Add(again)
			o.Err = fmt.Errorf("%q has not released it yet", by.Node)
			return
		}
	}
	switch {
	case !o.want && o.mine:
		o.phase, o.last = PhaseReleasing, seq
		o.append([]Record{Release{o.shown}}, nil)
		return
	case !o.want:
		o.rest()
		return
	}
	o.phase, o.last, o.mine = PhaseClaiming, seq, true
	o.append([]Record{Claim{}}, nil)
}

func (o *Owner) append(rs []Record, sends []send) {
	o.appending, o.sends = AppendRecords(nil, o.cfg.writes(), o.me, rs), sends
	o.world.Append(o.appending, o.last)
}

// Appended answers Append.
func (o *Owner) Appended(now time.Time, seq uint64, err error) {
	if o.appending == nil || o.doubt {
		return
	}
	if errors.Is(err, ErrFenced) && !o.retried {
		o.lost(now)
		return
	}
	if err != nil { // it may be in the log, or not, perhaps by an earlier try: the newest record tells
		o.Err, o.doubt = err, true
		o.world.Tail()
		return
	}
	o.appended(now, seq)
}

// resolve finds out whether an append without an answer is in the log.
func (o *Owner) resolve(now time.Time, seq uint64, data []byte, err error) {
	switch {
	case err != nil:
		o.retry = now.Add(again)
	case seq < o.last && (o.backAt.IsZero() || now.Sub(o.backAt) < backFor): // who answers is not the leader any more, and does not know
		if o.backAt.IsZero() {
			o.backAt = now
		}
		o.retry = now.Add(again)
	case bytes.Equal(data, o.appending) && seq > o.last:
		o.doubt = false
		o.appended(now, seq)
	case seq == o.last && o.tries > 0 && !o.paused: // the log may refuse it at once while the first one is on its way, which may be until another server leads
		o.paused, o.retry = true, now.Add(min(again<<min(o.tries, 8), time.Second))
	case seq == o.last: // not there; if it comes late, the next try is refused
		o.doubt, o.retried, o.paused = false, true, false
		o.tries++
		o.world.Append(o.appending, o.last)
	default:
		o.lost(now)
	}
}

func (o *Owner) appended(now time.Time, seq uint64) {
	o.last, o.appending, o.retried, o.backAt, o.tries, o.paused = seq, nil, false, time.Time{}, 0, false
	sends := o.sends
	o.sends = nil
	switch o.phase {
	case PhaseClaiming:
		o.epoch = seq
		o.phase = PhaseLoading
		o.world.Load(seq)
		return
	case PhaseReleasing:
		o.mine = false
		o.rest()
		if o.want {
			o.wantAt = now
			o.tail()
		}
		return
	}
	for _, s := range sends {
		o.Published++
		o.world.Publish(s.ref, s.n)
	}
	if o.snapshot != nil && o.sealed == 0 && !o.saving {
		o.save()
	}
	o.flush()
	o.drain()
}

// Loaded answers Load; a nil snapshot means that there is none.
func (o *Owner) Loaded(now time.Time, snapshot []byte, err error) {
	if o.phase != PhaseLoading {
		return
	}
	if errors.Is(err, ErrFenced) {
		o.lost(now)
		return
	}
	from := uint64(1)
	if err == nil {
		o.state = New(o.cfg.Policy, o.cfg.Veto)
		if snapshot != nil {
			o.snapSeq, o.snapOwn, err = o.state.restore(snapshot)
			from = min(o.snapSeq, o.snapOwn) + 1
		}
	}
	if err != nil {
		o.Err = err
		if errors.Is(err, ErrUnknown) || errors.Is(err, errMalformed) || errors.Is(err, ErrDamaged) {
			o.cannot(now, err)
			return
		}
		o.retry = now.Add(again)
		return
	}
	o.phase = PhaseReading
	o.replay = nil
	o.world.Read(from)
}

// Message takes the next entry of the log.
func (o *Owner) Message(now time.Time, m Message) {
	switch o.phase {
	case PhaseReading:
		if m.Seq > o.epoch { // its Claim is not in the log any more: a later owner has let it be forgotten
			o.lost(now)
			return
		}
		o.replay = append(o.replay, m)
		if m.Seq == o.epoch {
			o.replayed(now)
		}
	case PhaseOwning, PhaseDraining, PhaseReleasing:
		if o.state == nil { // it releases what it does not read
			return
		}
		if o.phase == PhaseReleasing && !m.Records { // that is the successor's
			return
		}
		o.hear(now, m.Time)
		if m.Records {
			if by, _, err := ReadRecords(m.Data); err != nil || by != o.me {
				o.lost(now)
			}
			return
		}
		b, err := ReadBatch(m.Data)
		if err != nil {
			o.stuck(now, err)
			return
		}
		o.catchTime(now, m.Time)
		o.state.Batch(m.Seq, m.Time, b, &o.out)
		o.since++
		o.shown = m.Seq
		o.show(false)
		o.ready(nil)
		o.maybeSave(now)
		o.flush()
	}
}

// stuck: there is something in the log that this program does not understand. It cannot be skipped, since it was accepted.
func (o *Owner) stuck(now time.Time, err error) {
	o.idle()
	o.cannot(now, err)
}

// cannot own the partition, for now.
func (o *Owner) cannot(now time.Time, err error) {
	o.phase, o.Err, o.retry = PhaseStuck, err, now.Add(stuckAgain)
}

func (w When) when() When { return w }

// hear takes the time of a message. The log's time is that of the server that leads it. Where another server's clock is late, time goes on from where it was; it
// never goes back, nor stands still until the log has caught up.
func (o *Owner) hear(now, at time.Time) {
	if is := o.now(now); at.Before(is) {
		at = is
	}
	o.logTime, o.receivedAt = at, now
}

// maxLate is how far the State's time may be behind the owner's when it takes note of an event.
const maxLate = 500 * time.Millisecond

// catchTime brings the State's time up to the owner's before a message from a time that is behind it. Its successors read that from the log.
func (o *Owner) catchTime(now, at time.Time) {
	if t := o.now(now); t.Sub(at) > maxLate && t.Sub(o.state.Now()) > maxLate && (o.phase == PhaseOwning || o.phase == PhaseDraining) {
		o.state.Advance(t, &o.out)
		o.pending = append(o.pending, Tick{o.when()})
	}
}

// now is the time of the log: nodes whose clocks differ agree on it.
func (o *Owner) now(local time.Time) time.Time {
	t := o.logTime.Add(max(local.Sub(o.receivedAt), 0))
	if n := o.state.Now(); t.Before(n) {
		return n
	}
	return t
}

func (o *Owner) when() When { return When{o.state.Seq, o.state.Now()} }

// show hands out what a step has left.
func (o *Owner) show(replayed bool) {
	out := o.out
	o.out = Out{}
	if replayed || len(out.Decided)+len(out.Affected)+len(out.Advice)+len(out.Moved)+len(out.Ready)+len(out.Changed) > 0 {
		o.world.Show(&out, replayed)
	}
}

func (o *Owner) ready(refs []Ref) {
	if len(refs) > 0 {
		o.world.Show(&Out{Ready: refs}, false)
	}
}

// flush lets what is recorded go into the log.
func (o *Owner) flush() {
	if o.appending != nil || len(o.pending) == 0 || o.phase < PhaseOwning || o.phase > PhaseDraining {
		return
	}
	n := len(o.pending)
	if o.sealed > 0 {
		n = o.sealed
	}
	rs, sends := o.pending[:n:n], o.later
	o.pending, o.later, o.sealed = slices.Clone(o.pending[n:]), nil, 0
	if len(o.pending) > 0 { // publishes that were begun behind the seal wait for their own
		i := slices.IndexFunc(sends, func(s send) bool { return begins(o.pending, s.ref) })
		if i >= 0 {
			sends, o.later = sends[:i:i], sends[i:]
		}
	}
	o.append(rs, sends)
}

func begins(rs []Record, ref Ref) bool {
	return slices.ContainsFunc(rs, func(r Record) bool {
		b, ok := r.(Begin)
		return ok && b.Account == ref.Account && b.Key == ref.Key
	})
}

// Begin begins the publish of a registration that was shown as ready, and returns false if there is nothing to publish or it may not be.
func (o *Owner) Begin(now time.Time, ref Ref) bool {
	if o.phase != PhaseOwning {
		return false
	}
	n, ok := o.state.Begin(ref, o.now(now), &o.out)
	o.show(false)
	w := o.when()
	o.pending = append(o.pending, Begin{w, ref.Account, ref.Key}) // also if nothing goes out: what was too old was dropped
	if ok {
		o.later = append(o.later, send{ref, n})
	}
	o.flush()
	return ok
}

// Replied answers Publish. It returns what came of it.
func (o *Owner) Replied(now time.Time, ref Ref, reply push.Reply) push.Result {
	if o.phase != PhaseOwning && o.phase != PhaseDraining {
		return push.Result{Outcome: reply.Classify()}
	}
	res := o.state.End(ref, reply, o.now(now), &o.out)
	o.pending = append(o.pending, End{o.when(), ref.Account, ref.Key, reply})
	o.show(false)
	o.flush()
	o.drain()
	return res
}

// Tick does what is due.
func (o *Owner) Tick(now time.Time) {
	if !o.retry.IsZero() && !now.Before(o.retry) {
		o.retry = time.Time{}
		switch {
		case o.doubt:
			o.world.Tail()
		case o.phase == PhaseTailing || o.phase == PhaseWaiting || o.phase == PhaseStuck:
			o.tail()
		case o.phase == PhaseLoading:
			o.world.Load(o.epoch)
		}
	}
	if o.phase != PhaseOwning && o.phase != PhaseDraining {
		return
	}
	if t := o.now(now); !o.state.Next().IsZero() && !o.state.Next().After(t) {
		o.state.Advance(t, &o.out)
		o.pending = append(o.pending, Tick{o.when()})
	}
	if now.Sub(o.homesAt) >= time.Second {
		o.homesAt = now
		for _, h := range o.state.Homes() {
			if !o.cfg.Alive(h) {
				var since time.Time
				if silent := o.cfg.Heard(h.Node); silent >= 0 {
					since = o.now(now).Add(-silent - lastWords)
				}
				o.state.Down(h, since, o.now(now), &o.out)
				o.pending = append(o.pending, Down{o.when(), h, since})
			}
		}
	}
	o.show(false)
	o.maybeSave(now)
	o.flush()
	o.drain()
}

// lastWords is how long before it was heard of last a node may already not have given to its sessions what came for them.
const lastWords = 3 * time.Second

// Next returns when Tick has something to do; zero means never.
func (o *Owner) Next(now time.Time) time.Time {
	next := o.retry
	earlier := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if o.phase == PhaseOwning || o.phase == PhaseDraining {
		if at := o.state.Next(); !at.IsZero() {
			earlier(now.Add(at.Sub(o.now(now))))
		}
		earlier(o.homesAt.Add(time.Second))
	}
	return next
}

// maybeSave takes a snapshot if it is time for one.
func (o *Owner) maybeSave(now time.Time) {
	if o.snapshot != nil || o.saving || o.phase != PhaseOwning || o.since == 0 {
		return
	}
	if o.since < o.cfg.SnapshotEvery && now.Sub(o.savedAt) < o.cfg.SnapshotAge {
		return
	}
	o.savedAt, o.since = now, 0
	o.snapSeq = o.state.Seq
	o.snapshot = o.state.snapshot()
	o.sealed = len(o.pending)
	if o.sealed == 0 && o.appending == nil {
		o.save()
	}
}

// save writes the snapshot: every record before it is in the log now, and none behind it.
func (o *Owner) save() {
	data := sealSnapshot(o.cfg.writes(), o.snapshot, o.snapSeq, o.last)
	o.snapshot, o.saving = nil, true
	o.world.Save(data, min(o.snapSeq, o.last))
}

// Saved answers Save.
func (o *Owner) Saved(now time.Time, err error) {
	o.saving = false
	switch {
	case errors.Is(err, ErrFenced):
		if o.phase >= PhaseOwning && o.phase <= PhaseReleasing {
			o.lost(now)
		}
	case err != nil:
		o.Err = err
		o.since++
	}
}

// drain releases the partition when nothing is on the way any more.
func (o *Owner) drain() {
	if o.phase != PhaseDraining || o.appending != nil || len(o.pending) > 0 || len(o.state.flights) > 0 || o.saving {
		return
	}
	o.phase = PhaseReleasing
	o.append([]Record{Release{o.state.Seq}}, nil)
}

// Epoch is where in the log its Claim is.
func (o *Owner) Epoch() uint64 { return o.epoch }

// LogTime is the time of the entry of the log that was taken note of last.
func (o *Owner) LogTime() time.Time { return o.logTime }

// InFlight is how many publishes have not been answered.
func (o *Owner) InFlight() int {
	if s := o.State(); s != nil {
		return len(s.flights)
	}
	return 0
}
