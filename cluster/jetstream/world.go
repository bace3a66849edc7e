package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// world is what an Owner asks for, on JetStream. Its methods are called in the lane's tasks; what they start posts the answer there.
type world struct {
	lane *lane
	// revision is that of the manifest as this owner has written it last.
	revision uint64
	manifest manifest
	doubt    bool // the manifest may be another than that, which this owner has tried to write
	missed   int  // questions in a row that were not answered in time

	mu      sync.Mutex
	reading context.CancelFunc
	sub     *nats.Subscription // of questions to the owner
	run     *uint64            // where the reading is that goes on
}

// manifest says where a snapshot is.
type manifest struct {
	// Epoch is that of the owner who may replace it.
	Epoch uint64 `json:"epoch"`
	// ID and Chunks name its parts; no ID means that there is none yet.
	ID     string `json:"id,omitempty"`
	Chunks int    `json:"chunks,omitempty"`
	Bytes  int    `json:"bytes,omitempty"`
	// Keep is the first message of the log that it needs.
	Keep uint64 `json:"keep,omitempty"`
}

const chunkBytes = 512 << 10

// do starts something that asks JetStream, and gives each answer some time.
func (w *world) do(f func(ctx context.Context, each time.Duration)) {
	n := w.lane.n
	each := attempt(w.missed)
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		ctx, cancel := context.WithTimeout(n.ctx, time.Minute)
		defer cancel()
		f(ctx, each)
	}()
}

// heard notes whether an answer came in time.
func (w *world) heard(err error) {
	if late(err) {
		w.missed++
	} else {
		w.missed = 0
	}
}

func (w *world) Tail() {
	l := w.lane
	w.do(func(ctx context.Context, each time.Duration) {
		seq, data, err := l.n.tail(ctx, l.p, each)
		l.post(func() {
			w.heard(err)
			l.owner.Tailed(time.Now(), seq, data, err)
		})
	})
}

// tail reads the newest record from the leader of the log; a replica might not have it yet.
func (n *Node) tail(ctx context.Context, p int, within time.Duration) (uint64, []byte, error) {
	m, err := n.ofLeader(ctx, within, n.names.stream, map[string]any{"last_by_subj": n.names.records(p)})
	if m == nil || err != nil {
		return 0, nil, err
	}
	return m.Seq, m.Data, nil
}

// stored is a message as the leader of a stream has it.
type stored struct {
	Subject string
	Seq     uint64
	Time    time.Time
	Data    []byte
}

// ofLeader asks the leader of a stream for a message; nil if there is none.
func (n *Node) ofLeader(ctx context.Context, within time.Duration, stream string, what map[string]any) (*stored, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ask, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	msg, err := n.cfg.Conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, ask)
	if err != nil {
		return nil, err
	}
	var resp struct {
		Error   *jetstream.APIError
		Message *stored
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return nil, err
	}
	if resp.Error != nil {
		if resp.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return nil, nil
		}
		return nil, resp.Error
	}
	return resp.Message, nil
}

// latest reads a key of a bucket from its leader. What is written with the revision in hand must not come from a replica that is late. A key that is not there
// has revision 0.
func (n *Node) latest(ctx context.Context, within time.Duration, bucket, key string) ([]byte, uint64, error) {
	m, err := n.ofLeader(ctx, within, "KV_"+bucket, map[string]any{"last_by_subj": "$KV." + bucket + "." + key})
	if m == nil || err != nil {
		return nil, 0, err
	}
	return m.Data, m.Seq, nil
}

func (w *world) Append(records []byte, prev uint64) {
	l := w.lane
	w.do(func(_ context.Context, each time.Duration) {
		seq, err := l.n.append(l.n.names.records(l.p), records, int64(prev), each)
		if errors.Is(err, partition.ErrFenced) { // seldom, and the first thing to know where a partition finds no owner
			l.n.seldom(slog.LevelInfo, "the log refuses this node's record; if that goes on behind the same one: nats stream cluster step-down "+l.n.names.stream, l.p, fmt.Errorf("behind %d: %w", prev, err))
		}
		l.post(func() {
			w.heard(err)
			l.owner.Appended(time.Now(), seq, err)
		})
	})
}

// appendTo appends a message. ErrFenced means that the newest record is not the one at prev.
func (n *Node) appendTo(ctx context.Context, m *nats.Msg, prev int64) (uint64, error) {
	var opts []jetstream.PublishOpt
	opts = append(opts, jetstream.WithExpectStream(n.names.stream), jetstream.WithRetryAttempts(0))
	if prev >= 0 {
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(uint64(prev)))
	}
	ack, err := n.js.PublishMsg(ctx, m, opts...)
	if err == nil {
		n.counts.appends.Add(1)
		n.counts.bytes.Add(int64(len(m.Data)))
		return ack.Sequence, nil
	}
	if wrongRevision(err) && apiError(err) != inProcess {
		return 0, fmt.Errorf("%w: %w", partition.ErrFenced, err)
	}
	return 0, fmt.Errorf("%w: %w", partition.ErrDoubt, err)
}

func (w *world) Load(epoch uint64) {
	l := w.lane
	n := l.n
	w.do(func(ctx context.Context, each time.Duration) {
		data, m, rev, err := n.load(ctx, each, l.p, epoch)
		l.post(func() {
			w.heard(err)
			if err == nil {
				w.manifest, w.revision, w.doubt = m, rev, false
			}
			l.owner.Loaded(time.Now(), data, err)
		})
	})
}

// loadTries is how often in a row the manifest may be newer than the one that was read just before.
const loadTries = 50

// load takes a partition's snapshot for the owner of epoch, and reads it.
func (n *Node) load(ctx context.Context, each time.Duration, p int, epoch uint64) ([]byte, manifest, uint64, error) {
	m, rev, err := n.takeManifest(ctx, each, p, epoch)
	if err != nil || m.ID == "" {
		return nil, m, rev, err
	}
	data := make([]byte, 0, m.Bytes)
	for i := range m.Chunks {
		c, rev, err := n.latest(ctx, each, n.names.snaps, n.names.chunk(p, m.ID, i))
		if err == nil && rev == 0 {
			err = fmt.Errorf("a part of the snapshot of partition %d is missing", p)
		}
		if err != nil {
			return nil, m, 0, err
		}
		data = append(data, c...)
	}
	if len(data) != m.Bytes {
		return nil, m, 0, fmt.Errorf("the snapshot of partition %d has %d bytes, and should have %d", p, len(data), m.Bytes)
	}
	return data, m, rev, nil
}

// takeManifest writes into a partition's manifest that its snapshot is the owner's of epoch, and returns the manifest with its revision.
func (n *Node) takeManifest(ctx context.Context, each time.Duration, p int, epoch uint64) (m manifest, rev uint64, err error) {
	for tries := 1; ; tries++ {
		m = manifest{}
		value, rev, err := n.latest(ctx, each, n.names.snaps, n.names.manifest(p))
		if err != nil {
			return m, 0, err
		}
		if rev > 0 {
			if err := json.Unmarshal(value, &m); err != nil {
				return m, 0, fmt.Errorf("the manifest of partition %d: %w", p, err)
			}
		}
		if m.Epoch > epoch || m.Keep > epoch && m.Epoch != epoch {
			if err := n.damaged(ctx, each, p, max(m.Epoch, m.Keep)); err != nil {
				return m, 0, err
			}
			return m, 0, partition.ErrFenced
		}
		m.Epoch = epoch
		rev, err = n.putManifest(ctx, each, p, m, rev)
		switch {
		case err == nil:
			return m, rev, nil
		case !errors.Is(err, partition.ErrFenced):
			return m, 0, err
		case tries >= loadTries || !sleep(ctx, 20*time.Millisecond): // or it was replaced meanwhile
			return m, 0, fmt.Errorf("NATS refuses to write the manifest of partition %d behind the newest one, again and again; if that lasts: nats stream cluster step-down KV_%s", p, n.names.snaps)
		}
	}
}

// damaged tells whether the log ends before what the snapshot of a partition is of.
func (n *Node) damaged(ctx context.Context, each time.Duration, p int, of uint64) error {
	try, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	s, err := n.js.Stream(try, n.names.stream) // its leader says how far it goes
	if err != nil {
		return err
	}
	if last := s.CachedInfo().State.LastSeq; last < of {
		return fmt.Errorf("%w: the log %s ends at message %d, and the snapshot of partition %d is of message %d: NATS has lost a part of its store; restore a backup of %s, %s and %s",
			partition.ErrDamaged, n.names.stream, last, p, of, n.names.stream, n.names.snaps, n.names.regs)
	}
	return nil
}

func (n *Node) putManifest(ctx context.Context, each time.Duration, p int, m manifest, rev uint64) (uint64, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return 0, err
	}
	try, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	rev, err = n.snaps.Update(try, n.names.manifest(p), data, rev)
	if wrongRevision(err) {
		return 0, partition.ErrFenced
	}
	return rev, err
}

func (w *world) Save(snapshot []byte, keep uint64) {
	l := w.lane
	n := l.n
	epoch, rev, doubt := w.manifest.Epoch, w.revision, w.doubt
	w.do(func(ctx context.Context, each time.Duration) {
		var err error
		if doubt { // the one before may have been written, or not
			_, rev, err = n.takeManifest(ctx, each, l.p, epoch)
		}
		// Its parts have names of their own: those of the former one are needed until the manifest is of this one.
		m := manifest{Epoch: epoch, ID: fmt.Sprintf("%d-r%d", epoch, rev), Bytes: len(snapshot), Keep: keep}
		var first uint64 // of its parts
		for rest := snapshot; len(rest) > 0 && err == nil; m.Chunks++ {
			size := min(len(rest), chunkBytes)
			var at uint64
			try, cancel := context.WithTimeout(ctx, each)
			at, err = n.snaps.Put(try, n.names.chunk(l.p, m.ID, m.Chunks), rest[:size])
			cancel()
			first = cmp.Or(first, at)
			rest = rest[size:]
		}
		if err == nil {
			rev, err = n.putManifest(ctx, each, l.p, m, rev)
		}
		if err != nil && !errors.Is(err, partition.ErrFenced) {
			n.warn("snapshot not written", l.p, err)
		}
		l.post(func() {
			w.heard(err)
			w.doubt = err != nil
			if err == nil {
				w.manifest, w.revision = m, rev
			}
			l.owner.Saved(time.Now(), err)
		})
		if err != nil {
			return
		}
		n.counts.snapshots.Add(1)
		n.counts.snapshotBytes.Add(int64(len(snapshot)))
		// What is not needed any more: nobody misses it, and if it stays it is only in the way.
		ctx, cancel := context.WithTimeout(ctx, appendLongest)
		defer cancel()
		if err := n.stream.Purge(ctx, jetstream.WithPurgeSubject(n.names.both(l.p)), jetstream.WithPurgeSequence(keep)); err != nil {
			n.warn("log not shortened", l.p, err)
		}
		// Parts of all snapshots before, also those of owners that ended before they had written the manifest.
		if err := n.snapshots.Purge(ctx, jetstream.WithPurgeSubject(n.names.parts(l.p)), jetstream.WithPurgeSequence(first)); err != nil {
			n.warn("former snapshots not deleted", l.p, err)
		}
	})
}

// Read delivers the partition's part of the log. It asks a replica for what is there, without a consumer: a consumer lives on one server, and when that dies a
// new one waits for an election.
func (w *world) Read(from uint64) {
	w.Stop()
	l := w.lane
	n := l.n
	ctx, cancel := context.WithCancel(n.ctx)
	w.mu.Lock()
	w.reading, w.run = cancel, &from
	w.mu.Unlock()
	claim := w.manifest.Epoch // is in the log, whatever the replica says that is asked
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		for missed := 0; ctx.Err() == nil; {
			at := from
			err := n.read(ctx, l, &from, claim, attempt(missed))
			if ctx.Err() != nil {
				return
			}
			missed++
			if from > at || !late(err) {
				missed = 0
			}
			n.warn("log not read", l.p, err)
			sleep(ctx, 50*time.Millisecond)
		}
	}()
}

const (
	readBatch = 500
	readBytes = 4 << 20
	// lookAgain is after what time the log is asked though nobody has said that there is something.
	lookAgain = 500 * time.Millisecond
	// replicaLate is how long a replica is asked again for what is known to be in the log.
	replicaLate = 100 * time.Millisecond
	// replicaFirst is how long the first message of a replica is waited for before the leader is asked, at first. NATS asks any of them, and one whose machine hangs is asked as
	// well, for a minute or more. Where none has come several times it is the machine that has too much to do, and they are waited for longer.
	replicaFirst = 250 * time.Millisecond
	// replicaPassed is for how long the leader is asked then, message by message.
	replicaPassed = 2 * time.Second
	// oneByOne is how many messages are read so at most; of a replica hundreds come at once.
	oneByOne = 20
)

// read delivers messages from *from on until something fails. Each batch has some time. What is up to least is in the log for certain.
func (n *Node) read(ctx context.Context, l *lane, from *uint64, least uint64, each time.Duration) error {
	conn := n.cfg.Conn
	inbox := nats.NewInbox()
	sub, err := conn.SubscribeSync(inbox + ".*")
	if err != nil {
		return err
	}
	defer sub.Unsubscribe() //nolint:errcheck
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	hint := make(chan struct{}, 1)
	heard, err := conn.Subscribe(n.names.hint(l.p), func(*nats.Msg) {
		select {
		case hint <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer heard.Unsubscribe() //nolint:errcheck
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	turn, missed := 0, 0
	var passed time.Time
	// some reads what there is, of a replica or of the leader.
	some := func() (got bool, err error) {
		if !time.Now().Before(passed) {
			turn++
			got, err = n.readSome(ctx, l, sub, fmt.Sprint(inbox, ".", turn), from, min(replicaFirst<<min(missed, 8), each), each)
			if !late(err) || ctx.Err() != nil {
				missed = 0
				return got, err
			}
			missed++
			passed = time.Now().Add(replicaPassed)
		}
		num, err := n.readOfLeader(ctx, l, from, each)
		if num == oneByOne {
			passed = time.Time{}
		}
		return got || num > 0, err
	}
	for {
		// What was said before this batch was asked for may be in it.
		select {
		case <-hint:
		default:
		}
		got, err := some()
		if err != nil {
			return err
		}
		if got {
			continue
		}
		if *from > least {
			timer.Reset(lookAgain)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
				continue
			case <-hint:
			}
		}
		// There is something, which the replica that is asked may not have yet.
		for wait, late := 200*time.Microsecond, time.Now(); time.Since(late) < replicaLate; wait = min(2*wait, 10*time.Millisecond) {
			if got, err = some(); err != nil {
				return err
			}
			if got || !sleep(ctx, wait) {
				break
			}
		}
		if !got { // a replica that is later than that may have lost its way: the leader has it
			if _, err := n.readOfLeader(ctx, l, from, each); err != nil {
				return err
			}
		}
	}
}

// readOfLeader reads some messages that the leader has, and returns how many.
func (n *Node) readOfLeader(ctx context.Context, l *lane, from *uint64, each time.Duration) (num int, err error) {
	for num < oneByOne {
		m, err := n.ofLeader(ctx, each, n.names.stream, map[string]any{"seq": *from, "next_by_subj": n.names.both(l.p)})
		if err != nil || m == nil {
			return num, err
		}
		num++
		n.deliver(l, from, partition.Message{Seq: m.Seq, Time: m.Time, Records: m.Subject == n.names.records(l.p), Data: m.Data})
	}
	return num, nil
}

// readSome asks for one batch, whose first message has some time, and all together, and returns whether there was anything.
func (n *Node) readSome(ctx context.Context, l *lane, sub *nats.Subscription, inbox string, from *uint64, first, each time.Duration) (bool, error) {
	return n.some(ctx, first, each, sub, inbox, n.names.stream, n.names.both(l.p), *from, func(m *nats.Msg, seq uint64, at time.Time) error {
		if pending, err := strconv.ParseInt(m.Header.Get("Nats-Num-Pending"), 10, 64); err == nil {
			l.lag.Store(pending)
		}
		n.deliver(l, from, partition.Message{Seq: seq, Time: at, Records: m.Header.Get("Nats-Subject") == n.names.records(l.p), Data: m.Data})
		return nil
	})
}

// some asks a replica of a stream for a batch of the messages of some subjects from a sequence number on, calls f for each in order, and returns whether there was any. The
// first one has some time, and all together.
func (n *Node) some(ctx context.Context, first, each time.Duration, sub *nats.Subscription, inbox, stream, subjects string, from uint64, f func(m *nats.Msg, seq uint64, at time.Time) error) (bool, error) {
	ask, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": subjects, "batch": readBatch, "max_bytes": readBytes})
	if err != nil {
		return false, err
	}
	if err := n.cfg.Conn.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, ask); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	try, stop := context.WithTimeout(ctx, first)
	defer stop()
	got := false
	var last uint64 // that has come of this batch
	for {
		if last > 0 {
			try = ctx
		}
		msg, err := sub.NextMsgWithContext(try)
		if err != nil {
			return got, err
		}
		if msg.Subject != inbox {
			continue // an answer to an earlier question, that came late
		}
		if before := msg.Header.Get("Nats-Last-Sequence"); before != "" && before != strconv.FormatUint(last, 10) {
			// Such as when a connection on the way was a new one in the middle of it.
			return got, fmt.Errorf("message %s of the stream %s has not arrived, of a batch that came to %d", before, stream, last)
		}
		switch msg.Header.Get("Status") {
		case "204", "404":
			return got, nil
		case "":
		case "503":
			return got, fmt.Errorf("no server has the stream %s", stream)
		default:
			return got, fmt.Errorf("the stream %s says %s %s", stream, msg.Header.Get("Status"), msg.Header.Get("Description"))
		}
		seq, err := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)
		if err != nil {
			return got, err
		}
		at, err := time.Parse(time.RFC3339Nano, msg.Header.Get("Nats-Time-Stamp"))
		if err != nil {
			return got, err
		}
		last = seq
		if seq < from {
			continue
		}
		got = true
		if err := f(msg, seq, at); err != nil {
			return got, err
		}
	}
}

// deliver hands a message to the owner for whom it was read.
func (n *Node) deliver(l *lane, run *uint64, m partition.Message) {
	*run = m.Seq + 1
	l.post(func() { l.world.message(run, m) })
}

// message hands a message to the owner, unless it was read for what is over.
func (w *world) message(run *uint64, m partition.Message) {
	w.mu.Lock()
	current := w.run == run
	w.mu.Unlock()
	if current {
		w.lane.owner.Message(time.Now(), m)
	}
}

func (w *world) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reading != nil {
		w.reading()
		w.reading, w.run = nil, nil
	}
}

// phase follows the owner: only one that owns the partition answers questions, and holds places at the gates.
func (w *world) phase(was, now partition.Phase) {
	l := w.lane
	n := l.n
	owns := func(p partition.Phase) bool { return p == partition.PhaseOwning || p == partition.PhaseDraining }
	if owns(now) == owns(was) {
		return
	}
	if owns(now) {
		n.log.LogAttrs(n.ctx, slog.LevelInfo, "push cluster: partition taken over", slog.String("node", n.cfg.Node), slog.Int("partition", l.p), slog.Duration("took", l.owner.TakenIn),
			slog.Int("again", l.owner.Resent))
		sub, err := n.cfg.Conn.Subscribe(n.names.owner(l.p), func(m *nats.Msg) {
			account := string(m.Data)
			l.post(func() {
				if s := l.owner.State(); s != nil {
					_ = m.Respond(partition.Encode(n.version(), s.Inspect(account)))
				}
			})
		})
		if err == nil {
			w.sub = sub
		}
		return
	}
	n.log.LogAttrs(n.ctx, slog.LevelInfo, "push cluster: partition given up", slog.String("node", n.cfg.Node), slog.Int("partition", l.p), slog.String("phase", now.String()))
	if w.sub != nil {
		_ = w.sub.Unsubscribe()
		w.sub = nil
	}
	n.gates.forget(l)
}

// Show does what has come of a step.
func (w *world) Show(out *partition.Out, replayed bool) {
	l := w.lane
	n := l.n
	for _, ref := range out.Ready {
		n.gates.ready(l, ref)
	}
	var answers []answer
	for i := range out.Decided {
		d := &out.Decided[i]
		if d.Wanted {
			answers = append(answers, answer{l.p, d.Origin, d.Batch, d.Index, d.Decision})
		}
		if d.Shown {
			continue
		}
		if _, own := d.Event.(partition.Import); own { // the host knows no such event
			if n.obs.Affected != nil {
				account, at, eff := d.Decision.Account, d.At, d.Decision.Effects
				n.call(&n.hooks.observer, "", func() { n.obs.Affected(account, at, &eff) })
			}
			continue
		}
		n.counts.decided.Add(1)
		if n.obs.Decided != nil {
			number, at, ev, decision := d.Number, d.At, d.Event, d.Decision
			n.call(&n.hooks.observer, "", func() { n.obs.Decided(number, at, ev, &decision, 0) })
		}
		n.logDecision(d)
	}
	if !replayed && n.obs.Affected != nil {
		for i := range out.Affected {
			a := out.Affected[i]
			n.call(&n.hooks.observer, "", func() { n.obs.Affected(a.Account, a.At, &a.Effects) })
		}
	}
	if replayed {
		n.counts.resent.Add(int64(out.Resent))
		out.Changed = l.owner.State().Registered() // what a former owner may not have told
		n.tellRegistered(l, out.Changed, answers, true)
	}
	for _, a := range out.Advice {
		n.advise(a)
	}
	for _, m := range out.Moved {
		n.moved(m)
	}
	if !replayed && len(out.Changed)+len(answers) > 0 {
		n.tellRegistered(l, out.Changed, answers, false)
	}
}

// Publish sends a notification.
func (w *world) Publish(ref partition.Ref, note push.Notification) {
	l := w.lane
	n := l.n
	sent := time.Now()
	if n.obs.Sent != nil {
		own := note
		n.call(&n.hooks.observer, "", func() { n.obs.Sent(sent, &own) })
	}
	g := n.gates.sent(l, ref)
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		reply := n.send(&note)
		took := time.Since(sent)
		l.post(func() {
			res := l.owner.Replied(time.Now(), ref, reply)
			if n.obs.Replied != nil {
				own := note
				n.call(&n.hooks.observer, "", func() { n.obs.Replied(time.Now(), &own, reply, res, took) })
			}
			n.logReply(&note, reply, res, took)
		})
		n.gates.done(g, reply)
	}()
}

// send asks the host's hooks and calls the Publisher.
func (n *Node) send(note *push.Notification) push.Reply {
	ctx, cancel := context.WithTimeout(n.ctx, cmp.Or(n.policy.ReplyTimeout, 30*time.Second))
	defer cancel()
	if u := n.cfg.Push.Unread; u != nil {
		var unread int
		var err error
		account := note.Account
		if n.call(&n.hooks.unread, account, func() { unread, err = u.Unread(ctx, account) }) && err == nil {
			note.Unread = max(unread, 0)
		}
	}
	if v := n.cfg.Push.Veto; v != nil {
		own, why := *note, ""
		if n.call(&n.hooks.vetoPublish, own.Account, func() { why = v.VetoPublish(ctx, &own) }) {
			if why != "" {
				return push.Reply{Vetoed: why}
			}
			*note = own
		}
	}
	err := errPanic
	n.guard(&n.hooks.publish, func() { err = n.cfg.Push.Publisher.Publish(ctx, note) })
	return push.ReplyOf(err)
}

// errPanic is the answer of a Publisher that panics: there was none.
var errPanic = errors.New("jetstream: the publisher panicked")

func (n *Node) logDecision(d *partition.Decided) {
	if !n.log.Enabled(n.ctx, slog.LevelDebug) {
		return
	}
	for i := range d.Decision.Verdicts {
		v := &d.Decision.Verdicts[i]
		n.log.LogAttrs(n.ctx, slog.LevelDebug, "push: decision", slog.String("account", d.Decision.Account), slog.String("event", d.Event.Name()),
			slog.Uint64("number", d.Number), slog.String("service", v.Service), slog.String("registration", v.Node), slog.Bool("notify", v.Notify),
			slog.String("class", v.Class.String()), slog.String("rule", v.Rule.String()), slog.String("reason", v.Reason.String()))
	}
}

func (n *Node) logReply(note *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
	level := slog.LevelDebug
	if res.Outcome != push.OutcomeAccepted {
		level = slog.LevelInfo
	}
	if n.log.Enabled(n.ctx, level) {
		n.log.LogAttrs(n.ctx, level, "push: publish "+res.Outcome.String(), slog.String("account", note.Account), slog.String("service", note.Service),
			slog.String("registration", note.Node), slog.String("class", note.Class.String()), slog.Int("stanzas", note.Count), slog.Int("try", note.Try), slog.Duration("took", took))
	}
}
