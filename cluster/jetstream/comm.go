package jetstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
	"github.com/xmpp-push/push/wishes"
)

// What nodes say to each other goes over plain NATS: beats, answers to those who wait, advice, and which accounts have registrations. None of it decides
// anything; what is lost is said again or found out.

// answer is a Decision on its way to the node that waits for it.
type answer struct {
	Partition int
	Origin    partition.Origin
	Batch     uint64
	Index     int
	Decision  push.Decision
}

// registered says what registrations an account has. It is kept in the bucket of registrations, those of an account that has none any more too, for
// a while.
type registered struct {
	Account       string
	Registrations []push.Registration
	// Epoch is that of the owner who says so. Nobody takes the word of an earlier one against that of a later one.
	Epoch uint64
	// Revision is the bucket's.
	Revision uint64
}

// listen begins to take part, and returns when this node knows which accounts have registrations, and has been heard of.
func (n *Node) listen(ctx context.Context) error {
	sub := func(subject string, f func(m *nats.Msg)) error {
		s, err := n.cfg.Conn.Subscribe(subject, f)
		if err != nil {
			return fmt.Errorf("jetstream: %w", err)
		}
		n.subs = append(n.subs, s)
		return nil
	}
	me := n.cfg.Node
	// Is there another of that name? One that has just died does not answer, and NATS says so at once; one that is stopped finds out when it wakes up.
	if m, err := n.cfg.Conn.Request(n.names.node(me, "here"), nil, 2*appendTimeout); err == nil {
		return fmt.Errorf("%w: %q runs already, since %s", ErrName, me, m.Data)
	}
	for subject, f := range map[string]func(m *nats.Msg){
		n.names.beat():               n.heard,
		n.names.node(me, "here"):     func(m *nats.Msg) { _ = m.Respond([]byte(n.gates.started.UTC().Format(time.RFC3339))) },
		n.names.node(me, "answer"):   n.answered,
		n.names.node(me, "register"): n.register,
		n.names.node(me, "advice"):   n.advised,
		n.names.node(me, "moved"): func(m *nats.Msg) {
			var mv partition.Moved
			if partition.Decode(m.Data, &mv) == nil {
				l := n.lane(mv.Session.Account)
				l.mu.Lock()
				l.local.Moved(mv.Session)
				l.mu.Unlock()
			}
		},
	} {
		if err := sub(subject, f); err != nil {
			return err
		}
	}
	n.joined.Store(true)
	n.beat()
	n.every(n.cfg.Lease/4, n.beat)
	// From then on the owners say so themselves, and wait until they are heard; what is missed is read here. It may be long, so not each try has an end of its own.
	if err := n.patient(ctx, "the bucket "+n.names.regs+" to be read", func(context.Context) error { return n.catchUp(ctx) }); err != nil {
		return err
	}
	n.every(n.cfg.Lease/4, func() {
		ctx, cancel := context.WithTimeout(n.ctx, time.Minute)
		defer cancel()
		if err := n.catchUp(ctx); err != nil && n.ctx.Err() == nil {
			n.warn("registrations not read", -1, err)
		}
	})
	n.every(n.cfg.Lease/8, n.choose)
	if n.alone != nil {
		n.every(n.cfg.Lease/8, n.alone.report)
	}
	return nil
}

// every calls f again and again until the Node is closed.
func (n *Node) every(d time.Duration, f func()) {
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		for sleep(n.ctx, d) {
			f()
		}
	}()
}

func (n *Node) lane(account string) *lane { return n.lanes[partition.Of(account, len(n.lanes))] }

// ---- who is alive

func (n *Node) beat() {
	if !n.joined.Load() { // nobody has to hear of a node that does not come to be, least of all one of its name
		return
	}
	n.mu.Lock()
	b := n.members.Beat(time.Now(), n.leaving)
	b.Joining, b.Gone, b.Writes, b.Settings = !n.part, n.gone, n.version(), n.settings
	n.mu.Unlock()
	if err := n.cfg.Conn.Publish(n.names.beat(), partition.Encode(partition.First, *b)); err != nil && n.ctx.Err() == nil {
		n.warn("not heard", -1, err)
	}
}

func (n *Node) heard(m *nats.Msg) {
	var b partition.Beat
	if err := partition.Decode(m.Data, &b); err != nil {
		return
	}
	n.mu.Lock()
	again := b.Node == n.cfg.Node && b.Incarnation > n.members.Me().Incarnation
	if n.members.Heard(time.Now(), &b) {
		n.stale = true
	}
	first := b.Node != n.cfg.Node && n.compared[b.Node] != b.Origin
	if first {
		n.compared[b.Node] = b.Origin
	}
	n.mu.Unlock() // the log is the host's
	if again {
		n.leave(fmt.Errorf("%w: %q has started after this one; give each node a name of its own", ErrName, b.Node))
	}
	if first {
		if b.Lease != 0 && b.Lease != n.cfg.Lease {
			n.log.LogAttrs(n.ctx, slog.LevelWarn, "push cluster: nodes have different leases; the longest is used", slog.String("node", n.cfg.Node), slog.Duration("lease", n.cfg.Lease),
				slog.String("other", b.Node), slog.Duration("its_lease", b.Lease))
		}
		if b.Settings != 0 && b.Settings != n.settings {
			n.log.LogAttrs(n.ctx, slog.LevelWarn, "push cluster: another node has another Policy or Host; what is decided depends on which one owns the account",
				slog.String("node", n.cfg.Node), slog.String("other", b.Node))
		}
	}
}

// settingsOf is a hash of what has to be the same on every node: the policy and the host. What is zero is not in it, so that a later version adds nothing.
func settingsOf(cfg *push.Config) uint64 {
	return max(partition.Hash(string(partition.Encode(partition.First, cfg.Policy))+cfg.Host), 1)
}

// trouble says that the log may not know what this node's sessions do.
func (n *Node) trouble() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stale = true
}

// choose looks which partitions this node should own, and begins another life if it has to.
func (n *Node) choose() {
	now := time.Now()
	n.mu.Lock()
	live := n.members.Live(now)
	leaving, stale, deaf := n.leaving, n.stale, n.members.Deaf(now)
	n.mu.Unlock()
	n.compareVersions(now)
	if n.ready(now) && n.takePart() {
		n.beat()
		return // and listens until the next turn who else does
	}
	if n.ready(now) && !deaf {
		for p, l := range n.lanes {
			want := !leaving && partition.Chosen(live, p) == n.cfg.Node
			l.post(func() { l.owner.Want(time.Now(), want) })
		}
	}
	if stale && !leaving {
		n.again()
	}
}

// ready: a node that has just started listens for a while before it takes anything, so that it has heard of the others.
func (n *Node) ready(now time.Time) bool {
	return now.Sub(n.gates.started) > n.cfg.Lease/2
}

// takePart lets the others hand over what is this node's share, and returns whether they did not before.
func (n *Node) takePart() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.part
	n.part = true
	return !was
}

// holdFor is for how long events wait for what is on its way, when another life of the node begins.
const holdFor = 500 * time.Millisecond

// again begins another life of this node: the others think that it was dead, or the log does not know what its sessions do. What is on its way is of the present life; with
// many events there always is something, so no more goes on its way until that has arrived. If it does not, the next turn tries again.
func (n *Node) again() {
	n.holding.Store(true)
	defer func() {
		n.holding.Store(false)
		for _, l := range n.lanes {
			l.mu.Lock()
			l.next()
			l.mu.Unlock()
		}
	}()
	until := time.Now().Add(holdFor)
	for slices.ContainsFunc(n.lanes, (*lane).flying) {
		if time.Now().After(until) || !sleep(n.ctx, time.Millisecond) {
			return
		}
	}
	n.mu.Lock()
	n.stale = false
	n.members.Begin()
	me := n.members.Me()
	n.mu.Unlock()
	n.counts.lives.Add(1)
	n.log.LogAttrs(n.ctx, slog.LevelWarn, "push cluster: this node was cut off, and says again what sessions it has", slog.String("node", n.cfg.Node))
	for _, l := range n.lanes {
		l.again(me)
	}
	n.beat()
}

func (n *Node) back() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members.Back(time.Now())
}

// others returns the other nodes that have to hear what changes.
func (n *Node) others() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members.May(time.Now())
}

// ---- answers

func (n *Node) answered(m *nats.Msg) {
	var a answer
	if err := partition.Decode(m.Data, &a); err != nil || a.Partition < 0 || a.Partition >= len(n.lanes) {
		return
	}
	n.lanes[a.Partition].answer(place{a.Origin, a.Batch, a.Index}, a.Decision)
}

func (n *Node) answer(a answer) {
	if a.Origin.Node == n.cfg.Node {
		n.lanes[a.Partition].answer(place{a.Origin, a.Batch, a.Index}, a.Decision)
		return
	}
	_ = n.cfg.Conn.Publish(n.names.node(a.Origin.Node, "answer"), partition.Encode(n.version(), a))
}

// ---- which accounts have registrations

// hearTry is how long a node is waited for before it is told again, at first.
const hearTry = 500 * time.Millisecond

// catchUp reads what the bucket of registrations has that this node has not read yet: at the start, and again and again, since what owners say may be missed by
// a node that is cut off, or stopped, or slow.
func (n *Node) catchUp(ctx context.Context) error {
	began := n.since()
	try, cancel := context.WithTimeout(ctx, attempt(n.caughtMissed))
	s, err := n.js.Stream(try, "KV_"+n.names.regs) // its leader says how far it goes
	cancel()
	if err != nil {
		if late(err) {
			n.caughtMissed++
		}
		return err
	}
	n.caughtMissed = 0
	n.mu.Lock()
	n.members.Reached(time.Now())
	n.mu.Unlock()
	last := s.CachedInfo().State.LastSeq
	if err := n.sameStore(ctx, last); err != nil {
		return err
	}
	err = n.entries(ctx, n.caughtTo, last, func(key string, value []byte, revision uint64) error {
		err := n.seen(key, value, revision)
		if err == nil { // where reading breaks off, it goes on later
			n.caughtTo = max(n.caughtTo, revision)
		}
		return err
	})
	if err = n.missing(err); err != nil {
		return err
	}
	n.caughtTo = max(n.caughtTo, last)
	n.mu.Lock()
	few := n.members.Few(time.Now()) || n.members.Back(time.Now()) // or the others may not have heard of it yet
	n.mu.Unlock()
	if !few {
		n.caughtAt.Store(int64(began))
	}
	return nil
}

// errBehind: a leader was elected that does not have all yet, or is none any more and does not know.
var errBehind = errors.New("the server of NATS that answers for the bucket of registrations knows less of it than this node")

// otherStoreAfter is for how long that may be so before it counts as another store.
const otherStoreAfter = time.Minute

// errMissing: the last entries are deleted, or who was asked for them is no leader any more, or not yet.
var errMissing = errors.New("the bucket of registrations does not have what it should")

// missing passes over an errMissing that lasts: then somebody has deleted them by hand.
func (n *Node) missing(err error) error {
	switch {
	case !errors.Is(err, errMissing):
		n.missingSince = time.Time{}
	case n.missingSince.IsZero():
		n.missingSince = time.Now()
	case time.Since(n.missingSince) >= otherStoreAfter:
		n.missingSince = time.Time{}
		return nil
	}
	return err
}

// sameStore looks whether the log and the bucket of registrations, which ends at last, are those that this node knows. NATS may have lost its store, and another node
// has begun anew, or a backup was restored while nodes ran. Then nothing that this node knows of them holds any more.
func (n *Node) sameStore(ctx context.Context, last uint64) error {
	try, cancel := context.WithTimeout(ctx, attempt(n.caughtMissed))
	defer cancel()
	log, err := n.js.Stream(try, n.names.stream)
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case last >= n.caughtTo:
		n.backSince = time.Time{}
	case n.backSince.IsZero():
		n.backSince = now
	}
	n.copies(log.CachedInfo().Cluster, now)
	created := log.CachedInfo().Created
	if created.Sub(n.created).Abs() < time.Second {
		switch {
		case n.backSince.IsZero():
			return nil
		case now.Sub(n.backSince) < otherStoreAfter: // what it says is no reason to believe that all is known
			return fmt.Errorf("%w: it ends at %d, and was read to %d", errBehind, last, n.caughtTo)
		}
	}
	n.log.LogAttrs(ctx, slog.LevelError, "push cluster: NATS has another store than before: it has lost its own, or a backup was restored while nodes ran; this node begins anew in it",
		slog.String("node", n.cfg.Node), slog.Time("log_made", created), slog.Uint64("registrations_end_at", last), slog.Uint64("were_read_to", n.caughtTo))
	n.created, n.backSince, n.caughtTo = created, time.Time{}, 0
	n.caughtAt.Store(0)
	for _, l := range n.lanes {
		l.mu.Lock()
		l.local.Forget()
		l.mu.Unlock()
		l.post(func() { l.owner.Lost(time.Now()) })
	}
	n.trouble() // nor does the log know of this node's sessions
	return nil
}

// absence is since when a server was not there, and when it was said last.
type absence struct{ since, said time.Time }

const (
	absentFor   = time.Minute
	absentAgain = 10 * time.Minute
)

// copies looks whether all servers of NATS that have a copy of the log are there. One that is started under another name is another server, and the copy of the former
// one is missing: nothing shows it until the next one ends, and the log has no majority.
func (n *Node) copies(c *jetstream.ClusterInfo, now time.Time) {
	if c == nil {
		return
	}
	was := n.absent
	n.absent = make(map[string]absence)
	for _, p := range c.Replicas {
		if !p.Offline {
			continue
		}
		a, ok := was[p.Name]
		if !ok {
			a.since = now
		}
		if now.Sub(a.since) >= absentFor && now.Sub(a.said) >= absentAgain {
			a.said = now
			n.log.LogAttrs(n.ctx, slog.LevelWarn, "push cluster: a server of NATS that has a copy of the log is not there; start it, under its name", slog.String("node", n.cfg.Node),
				slog.String("server", p.Name), slog.Duration("since", now.Sub(a.since).Round(time.Second)), slog.Int("copies", len(c.Replicas)+1))
		}
		n.absent[p.Name] = a
	}
}

// entries reads what the bucket of registrations has behind one revision and up to another, which its leader has named. Like the log it is read without a consumer: to
// make one takes an answer of the leader, which may never come while another is elected. What was deleted by hand is passed over.
func (n *Node) entries(ctx context.Context, from, last uint64, f func(key string, value []byte, revision uint64) error) error {
	prefix := "$KV." + n.names.regs + "."
	inbox := nats.NewInbox()
	sub, err := n.cfg.Conn.SubscribeSync(inbox + ".*")
	if err != nil {
		return err
	}
	defer sub.Unsubscribe() //nolint:errcheck
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	entry := func(subject string, value []byte, revision uint64) error {
		if len(value) > 0 {
			if err := f(strings.TrimPrefix(subject, prefix), value, revision); err != nil {
				return err
			}
		}
		from = revision
		return nil
	}
	stream, missed := "KV_"+n.names.regs, 0
	for turn := 0; from < last; turn++ {
		was := from
		_, err := n.some(ctx, attempt(missed), attempt(missed), sub, fmt.Sprint(inbox, ".", turn), stream, prefix+">", from+1, func(m *nats.Msg, seq uint64, _ time.Time) error {
			return entry(m.Header.Get("Nats-Subject"), m.Data, seq)
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && late(err) && missed < readTries:
			missed++
			continue
		case err != nil:
			return err
		}
		missed = 0
		if from > was {
			continue
		}
		// The replica that was asked has not got it yet.
		m, err := n.ofLeader(ctx, appendLongest, stream, map[string]any{"seq": from + 1, "next_by_subj": prefix + ">"})
		if err != nil {
			return err
		}
		if m == nil {
			return fmt.Errorf("%w: nothing behind %d, and it ends at %d", errMissing, from, last)
		}
		if err := entry(m.Subject, m.Data, m.Seq); err != nil {
			return err
		}
	}
	return nil
}

// readTries is how often in a row a part of the bucket may not come in time.
const readTries = 6

// since is the time since the Node began.
func (n *Node) since() time.Duration { return time.Since(n.gates.started) }

// behind tells whether this node may have missed that an account has a registration. Owners wait for a node until it has heard, or until one and a half Leases
// are over, from then on or from when it was heard of last: by then it has read the bucket, or is behind. One that has just joined is so for a while too: servers
// of NATS that have just met do not bring everything to each other yet, so there may be owners that have not heard of it.
func (n *Node) behind() bool {
	now, at := n.since(), time.Duration(n.caughtAt.Load())
	return n.left.Load() != nil || at < n.cfg.Lease*3/2 || now-at > n.cfg.Lease*3/4
}

func regKey(account string) string { return base64.RawURLEncoding.EncodeToString([]byte(account)) }

// seen takes note of an entry of the bucket. One that a later version has written must not be skipped.
func (n *Node) seen(key string, value []byte, revision uint64) error {
	var r registered
	if err := partition.Decode(value, &r); err != nil {
		if errors.Is(err, partition.ErrUnknown) {
			n.outdate(err.Error())
			return fmt.Errorf("%w: %w", ErrVersion, err)
		}
		n.warn("unusable entry in the bucket of registrations", -1, fmt.Errorf("%s: %w", key, err))
		return nil
	}
	r.Revision = revision
	n.know(r)
	return nil
}

// register takes note of what an owner says.
func (n *Node) register(m *nats.Msg) {
	var news registeredList
	if err := partition.Decode(m.Data, &news); err != nil {
		return
	}
	for _, r := range news.List {
		n.know(r)
	}
	_ = m.Respond(nil)
}

func (n *Node) registered(account string) bool {
	l := n.lane(account)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.local.Registered(account)
}

func (n *Node) know(r registered) {
	l := n.lane(r.Account)
	var rooms []wishes.Room
	for i := range r.Registrations {
		if w := r.Registrations[i].Wishes; w != nil {
			for _, room := range w.Rooms {
				if room.Nick != "" {
					rooms = append(rooms, room)
				}
			}
		}
	}
	l.mu.Lock()
	l.local.Register(partition.Hash(r.Account), len(r.Registrations) > 0, r.Revision, rooms...)
	l.mu.Unlock()
	if n.alone != nil {
		n.alone.know(r)
	}
}

// tellRegistered writes down which registrations accounts have, tells all nodes, and then answers those who wait. first: it may all be known.
func (n *Node) tellRegistered(l *lane, accounts []string, answers []answer, first bool) {
	accounts = slices.Compact(slices.Sorted(slices.Values(accounts)))
	var list []registered
	s := l.owner.State()
	for _, a := range accounts {
		if first {
			l.mu.Lock()
			known := l.local.Registered(a)
			l.mu.Unlock()
			if known && !n.cfg.Alone {
				continue
			}
		}
		r := registered{Account: a, Epoch: l.owner.Epoch()}
		if s != nil {
			r.Registrations = s.Registrations(a)
		}
		list = append(list, r)
	}
	l.registrar.post(l, func() {
		for part := range slices.Chunk(list, tellAtOnce) {
			n.tell(part)
		}
		for _, a := range answers {
			n.answer(a)
		}
	})
}

// tellAtOnce is how many accounts' registrations are written and told at once.
const tellAtOnce = 64

// registeredList is what nodes are told at once.
type registeredList struct{ List []registered }

// tell writes down the registrations of some accounts, and lets the other nodes know.
func (n *Node) tell(list []registered) {
	var wg sync.WaitGroup
	written := make([]bool, len(list))
	for i := range list {
		wg.Go(func() { written[i] = n.write(&list[i]) })
	}
	wg.Wait()
	var news registeredList
	for i := range list {
		if written[i] {
			n.know(list[i])
			news.List = append(news.List, list[i])
		}
	}
	if len(news.List) == 0 {
		return
	}
	data := partition.Encode(n.version(), news)
	n.mu.Lock()
	patience := n.members.Lease() * 3 / 2
	n.mu.Unlock()
	for until := time.Now().Add(patience); n.back() && time.Now().Before(until); {
		sleep(n.ctx, 50*time.Millisecond)
	}
	for _, o := range n.others() {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(n.ctx, patience)
			defer cancel()
			for wait := hearTry; slices.Contains(n.others(), o); wait *= 2 { // until it has heard, or knows that it is behind
				try, stop := context.WithTimeout(ctx, wait)
				_, err := n.cfg.Conn.RequestWithContext(try, n.names.node(o, "register"), data)
				stop()
				if err == nil || !sleep(ctx, 10*time.Millisecond) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// write writes down one account's registrations, and returns false if a later owner has, or the Node is closed.
func (n *Node) write(r *registered) bool {
	for missed := 0; n.ctx.Err() == nil; missed++ {
		ctx, cancel := context.WithTimeout(n.ctx, attempt(missed))
		err := n.putRegistered(ctx, r)
		cancel()
		if err == nil {
			return true
		}
		if errors.Is(err, partition.ErrFenced) {
			return false
		}
		n.warn("registrations not written", -1, err)
		sleep(n.ctx, 250*time.Millisecond)
	}
	return false
}

// putRegistered writes r, unless a later owner has written something: ErrFenced.
func (n *Node) putRegistered(ctx context.Context, r *registered) error {
	key := regKey(r.Account)
	if !n.registered(r.Account) && len(r.Registrations) > 0 { // most are new, and need not be read
		rev, err := n.regs.Create(ctx, key, partition.Encode(n.version(), *r))
		if !wrongRevision(err) {
			r.Revision = rev
			return err
		}
	}
	for {
		value, rev, err := n.latest(ctx, appendLongest, n.names.regs, key)
		if err != nil {
			return err
		}
		if rev > 0 {
			var has registered
			if err := partition.Decode(value, &has); err == nil && has.Epoch > r.Epoch {
				return partition.ErrFenced
			}
		}
		if rev == 0 {
			if len(r.Registrations) == 0 {
				return nil
			}
			r.Revision, err = n.regs.Create(ctx, key, partition.Encode(n.version(), *r))
		} else {
			r.Revision, err = n.regs.Update(ctx, key, partition.Encode(n.version(), *r), rev)
		}
		if !wrongRevision(err) {
			return err
		}
		if !sleep(ctx, 5*time.Millisecond) { // somebody else has just written
			return ctx.Err()
		}
	}
}

// wrongRevision tells whether a write was refused because there is something newer than the writer knew of.
func wrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) ||
		errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == inProcess)
}

// ---- sessions

// advise brings an advice to the node that has the session.
func (n *Node) advise(a partition.Advice) {
	n.counts.advice.Add(1)
	if a.Node == n.cfg.Node {
		n.follow(a.Advice)
		return
	}
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		ctx, cancel := context.WithTimeout(n.ctx, time.Minute)
		defer cancel()
		for missed := 0; ; missed++ {
			try, stop := context.WithTimeout(ctx, attempt(missed))
			_, err := n.cfg.Conn.RequestWithContext(try, n.names.node(a.Node, "advice"), partition.Encode(n.version(), a.Advice))
			stop()
			if err == nil || !sleep(ctx, 200*time.Millisecond) {
				return
			}
		}
	}()
}

func (n *Node) advised(m *nats.Msg) {
	var a push.Advice
	if err := partition.Decode(m.Data, &a); err != nil {
		return
	}
	_ = m.Respond(nil)
	n.follow(a)
}

// follow tells the host.
func (n *Node) follow(a push.Advice) {
	l := n.lane(a.Session.Account)
	l.mu.Lock()
	l.local.Advised(a)
	l.mu.Unlock()
	if r := n.cfg.Push.Resumption; r != nil {
		n.call(&n.hooks.resume, a.Session.Account, func() { r.ResumeTimeout(a.Session, a.Timeout, a.Reason) })
	}
}

// moved tells a node that a session of its is another's now.
func (n *Node) moved(m partition.Moved) {
	_ = n.cfg.Conn.Publish(n.names.node(m.Node, "moved"), partition.Encode(n.version(), m))
}
