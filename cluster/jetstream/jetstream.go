// Package jetstream lets several servers be one for push: an event may come in at any of them, and one node at a time decides for each account. It
// puts the log of what happened into NATS JetStream, 2.11 or later.
//
// A host uses [Join] where it used push.New, and the [Node] where it used the push.Engine. Each node decides and publishes for a part of the accounts,
// whichever node their sessions are on. What holds over all of them:
//
//   - When Handle has returned without an error, the event is in the log: no crash loses it.
//   - A notification is published once. It is published a second time only if the node that publishes it dies, or is cut off, between sending it and
//     writing down that it was answered; [Status] counts that. With Config.Alone also if both sides of a cut decide the same event.
//   - When a node is silent for Config.Lease, its sessions count as closed, other nodes take over its accounts, and what waited goes out: at once, or
//     when NATS has elected its leaders again.
//   - A node that was stopped and wakes up changes nothing that its successor has decided: the log refuses it.
//   - An event of an account without registrations does not leave its node, once that knows all registrations (Status.Behind).
//
// The guide for operators is docs/cluster.md of the repository. A server that has no NATS of its own runs one inside, with package embedded.
package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// Errors that callers can test for with errors.Is.
var (
	// ErrUnreachable: the log did not answer in the context's time. The event may have been accepted all the same; giving it to Handle again is safe, since a
	// stanza that has an ID is notified once. It wraps the context's error.
	ErrUnreachable = errors.New("jetstream: the log of the cluster does not answer")
	// ErrAlone: the log did not answer, and this node has decided the event by itself (Config.Alone). The Decision says how.
	ErrAlone = fmt.Errorf("%w; decided by this node alone", ErrUnreachable)
	// ErrName: another node that runs has the same Config.Node. Join returns it; a node that finds a later one with its name leaves, and Handle returns it.
	ErrName = errors.New("jetstream: another node has the same name")
	// ErrConfig is wrapped by what Join says about its Config, and about a cluster that was set up otherwise.
	ErrConfig = errors.New("jetstream: unusable configuration")
)

// Config is what a Node needs. Conn, Node and Push are required.
type Config struct {
	// Conn is the connection to NATS, with JetStream. It stays the caller's, who closes it after the Node; it should reconnect for ever
	// (nats.MaxReconnects(-1)).
	Conn *nats.Conn
	// Node is this server's name in the cluster. No two that run may have the same; it should stay the same over restarts. Letters, digits, - and _.
	Node string
	// Push is what an Engine would be given, the same on every node. Policy and Host must be; Publisher, Resumption, Unread, Veto, Observer
	// and Logger are the node's own, and are called for the accounts that this node decides for. Liveness and Store must be nil: the cluster
	// knows where sessions are, and keeps the registrations. Contacts, Chats and Subscriptions must be nil, too: the cluster asks nobody, so that what
	// the log says is all that a decision rests on; give what is known of a chat with the event (push.Stanza.Info). A panic of any of them is recovered and counted (Hooks); a call of Veto, Unread,
	// Resumption or Observer that takes longer than HookTimeout is left to itself: the event is decided as if there were none, and that function is not called
	// for that account until it has returned. A host that comes from a Store of its own gives it to Import, once; or lets clients enable again when they connect next.
	Push push.Config
	// Name is the first part of the names of everything in NATS, so that several clusters can share one. Default "push".
	Name string
	// Partitions is into how many parts the accounts are divided. It is fixed when the first node joins. Default 64.
	Partitions int
	// Replicas is on how many servers of NATS everything is kept: 1, 3 or 5. It is fixed when the first node joins. Default: 1 if the NATS is one server by itself, else 3;
	// the first Join then waits until three run.
	Replicas int
	// Lease is after what time without a sign of life a node counts as dead. Default 4 s, at least 1 s. Where nodes have different ones the longest holds.
	Lease time.Duration
	// SnapshotEvery is after how many entries of a partition's log its state is written down, so that a successor need not read more. Default 10,000.
	SnapshotEvery int
	// Wait lets Handle return the owner's Decision for every event. By default only push-enable and push-disable wait for it, and the Decision of
	// others is empty: the event is accepted, and the Observer of the node that owns the account is told the Decision.
	Wait bool
	// Alone lets a node that cannot reach the log decide by itself, with the registrations that it has heard of and the sessions that it has itself: a missed
	// call is worse than a second buzz. Handle then returns ErrAlone. The others are told when they can be reached again. It keeps all
	// registrations of the cluster in memory, about 300 bytes each. By default Handle only returns ErrUnreachable.
	Alone bool
}

// Node is one server of a cluster. It is used like a push.Engine. Join makes one; one that it did not make, nil included, is like one that was closed. A nil context
// is one that never ends. Safe for simultaneous use.
type Node struct {
	cfg    Config
	policy *push.Policy
	log    *slog.Logger
	obs    push.Observer
	js     jetstream.JetStream
	stream jetstream.Stream
	snaps  jetstream.KeyValue
	regs   jetstream.KeyValue
	// snapshots is the stream of snaps.
	snapshots jetstream.Stream
	names     names
	lanes     []*lane
	gates     gates
	alone     *alone
	hooks     hooks
	// hookTimeout is Push.HookTimeout or its default.
	hookTimeout time.Duration

	// settings is a hash of what has to be the same on every node and is nowhere kept.
	settings uint64

	mu       sync.Mutex
	members  *partition.Members
	compared map[string]partition.Origin // whose settings were compared with this node's
	stale    bool                        // others thought that this node is dead, or an event of a session did not get into the log
	part     bool                        // others count on it for its share
	leaving  bool
	gone     bool // it has handed over everything

	caughtTo     uint64       // how far the bucket of registrations was read; only catchUp touches it
	created      time.Time    // when the log was made
	backSince    time.Time    // since when the bucket ends before what was read of it; the same
	missingSince time.Time    // since when its last entries are not to be had; the same
	caughtMissed int          // questions how far it goes that were not answered, since one was; the same
	caughtAt     atomic.Int64 // when reading it last began, if that came to its end, as a time since the Node began

	ctx    context.Context
	cancel context.CancelFunc
	subs   []*nats.Subscription
	work   sync.WaitGroup
	closed atomic.Bool
	joined atomic.Bool // others may have heard of it
	// writes is the version that this node writes; outdated: it cannot read what the others write.
	writes atomic.Int64
	// holding: no batch goes on its way, since another life is about to begin.
	holding  atomic.Bool
	raising  atomic.Bool
	outdated atomic.Bool
	// left is why the node has left by itself.
	left   atomic.Pointer[error]
	counts counts
	warned seldom
	absent map[string]absence // servers with a copy of the log that are not there; only catchUp touches it
	turns  chan struct{}      // of appends
}

type names struct{ stream, prefix, snaps, regs string }

func (n names) events(p int) string  { return fmt.Sprintf("%s.log.%d.e", n.prefix, p) }
func (n names) records(p int) string { return fmt.Sprintf("%s.log.%d.r", n.prefix, p) }
func (n names) both(p int) string    { return fmt.Sprintf("%s.log.%d.>", n.prefix, p) }
func (n names) node(node, what string) string {
	return fmt.Sprintf("%s.node.%s.%s", n.prefix, node, what)
}
func (n names) beat() string       { return n.prefix + ".beat" }
func (n names) owner(p int) string { return fmt.Sprintf("%s.owner.%d", n.prefix, p) }
func (n names) hint(p int) string  { return fmt.Sprintf("%s.hint.%d", n.prefix, p) }
func (n names) chunk(p int, id string, i int) string {
	return fmt.Sprintf("p%d.%s.%d", p, id, i)
}
func (n names) manifest(p int) string { return fmt.Sprintf("p%d", p) }

// parts are the subjects of all chunks of a partition.
func (n names) parts(p int) string { return fmt.Sprintf("$KV.%s.p%d.>", n.snaps, p) }

// Validate reports everything that is wrong with c at once, or nil. Join calls it.
func (c *Config) Validate() error {
	var errs []error
	say := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if c.Conn == nil {
		say("Config.Conn is nil; give a connection to NATS, or one of package embedded's")
	}
	if c.Node == "" || strings.Trim(c.Node, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		say("Config.Node is %q; give this server a name of letters, digits, - and _", c.Node)
	}
	if strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		say("Config.Name is %q; it can have letters, digits, - and _", c.Name)
	}
	if c.Partitions < 0 || c.Partitions > 1024 {
		say("Config.Partitions is %d; it can be 1 to 1024, or 0 for the default", c.Partitions)
	}
	if r := c.Replicas; r != 0 && r != 1 && r != 3 && r != 5 {
		say("Config.Replicas is %d; it can be 1, 3 or 5, or 0 for the default", r)
	}
	if c.Lease != 0 && c.Lease < time.Second {
		say("Config.Lease is %v; a node needs a second at least to be heard of", c.Lease)
	}
	if c.Push.Liveness != nil {
		say("Config.Push.Liveness is not nil; the cluster knows where sessions are")
	}
	if c.Push.Store != nil {
		say("Config.Push.Store is not nil; the cluster keeps the registrations")
	}
	if c.Push.Contacts != nil || c.Push.Chats != nil || c.Push.Subscriptions != nil {
		say("Config.Push.Contacts, Chats or Subscriptions is not nil; the cluster asks none of them: give what is known of a chat with the event, in Stanza.Info")
	}
	errs = append(errs, c.Push.Validate())
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "push"
	}
	if c.Partitions == 0 {
		c.Partitions = 64
	}
	if c.Lease == 0 {
		c.Lease = 4 * time.Second
	}
	if c.SnapshotEvery <= 0 {
		c.SnapshotEvery = 10_000
	}
	return c
}

// Join makes this server a node of the cluster, and sets that up in JetStream if it is the first. It returns when the node can take events. ctx bounds
// that; it does not end the Node.
func Join(ctx context.Context, cfg Config) (*Node, error) {
	return joinAt(ctx, cfg, time.Now)
}

// joinAt is Join by another clock.
func joinAt(ctx context.Context, cfg Config, clock func() time.Time) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ctx, cfg = orEndless(ctx), cfg.withDefaults()
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	policy := cfg.Push.Policy
	n := &Node{
		cfg: cfg, js: js, policy: &policy, log: cfg.Push.Logger,
		names: names{stream: strings.ToUpper(cfg.Name) + "_LOG", prefix: cfg.Name, snaps: cfg.Name + "_snapshots", regs: cfg.Name + "_registrations"},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Push.Observer != nil {
		n.obs = *cfg.Push.Observer
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.hookTimeout = cmp.Or(cfg.Push.HookTimeout, 5*time.Second)
	n.gates.init(n)
	n.turns = make(chan struct{}, appendsAtOnce)
	if err := n.setUp(ctx); err != nil {
		n.cancel()
		return nil, err
	}
	life, err := n.firstLife(ctx, clock())
	if err != nil {
		n.cancel()
		return nil, err
	}
	me := partition.Origin{Node: cfg.Node, Incarnation: life}
	n.compared = make(map[string]partition.Origin)
	n.settings = settingsOf(&cfg.Push)
	n.members = partition.NewMembers(me, cfg.Lease, time.Now())
	if cfg.Alone {
		n.alone = newAlone(n)
	}
	common := &partition.Config{
		Policy: n.policy, Writes: n.version, Alive: n.alive, Runs: n.runs, Heard: n.silent, SnapshotEvery: cfg.SnapshotEvery, SnapshotAge: time.Minute, Patience: 2 * time.Minute,
	}
	if v := cfg.Push.Veto; v != nil {
		common.Veto = func(r *push.Registration, st push.Stanza) string {
			own := *r
			var why string
			if n.call(&n.hooks.vetoStanza, own.Account, func() { why = v.VetoStanza(&own, st) }) {
				return why
			}
			return "" // a missed call is worse than one too many
		}
	}
	for p := range n.cfg.Partitions {
		n.lanes = append(n.lanes, newLane(n, p, me, common))
	}
	if n.obs.Started != nil {
		n.call(&n.hooks.observer, "", func() { n.obs.Started(time.Now(), cfg.Push.Host, cfg.Push.Policy) })
	}
	err = n.listen(ctx)
	if left := n.left.Load(); err == nil && left != nil { // such as that another of its name has come meanwhile
		err = *left
	}
	if err != nil {
		_ = n.Close(ctx)
		return nil, err
	}
	return n, nil
}

// setUp creates what is not there yet.
func (n *Node) setUp(ctx context.Context) error {
	replicas := n.cfg.Replicas
	fixed := fmt.Sprintf("partitions=%d version=%d", n.cfg.Partitions, partition.First) // the version is that of the streams, not of what is in them
	want := func(r int) jetstream.StreamConfig {
		return jetstream.StreamConfig{
			Name: n.names.stream, Description: described + fixed, Subjects: []string{n.names.prefix + ".log.>"}, Replicas: r,
			Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxMsgSize: 8 << 20, Duplicates: time.Second, AllowDirect: true,
		}
	}
	err := n.patient(ctx, "the stream "+n.names.stream, func(ctx context.Context) error {
		s, err := n.js.Stream(ctx, n.names.stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			r := replicas
			if r == 0 {
				r = 3
			}
			s, err = n.js.CreateStream(ctx, want(r))
			if replicas == 0 && apiError(err) == oneServer {
				s, err = n.js.CreateStream(ctx, want(1))
			}
			err = n.refused(err, r)
		}
		n.stream = s
		return err
	})
	if err != nil {
		return err
	}
	n.created = n.stream.CachedInfo().Created
	has := n.stream.CachedInfo().Config
	switch {
	case !strings.HasPrefix(has.Description, described):
		return fmt.Errorf("%w: the stream %s is there, and not this library's (its description is %q); let Config.Name be another", ErrConfig, has.Name, has.Description)
	case has.Description != want(1).Description:
		return fmt.Errorf("%w: the cluster was set up with other settings (%q, this node has %q); partitions cannot be changed later", ErrConfig, has.Description, want(1).Description)
	case !slices.Equal(has.Subjects, want(1).Subjects):
		return fmt.Errorf("%w: the stream %s has the subjects %q, and should have %q", ErrConfig, has.Name, has.Subjects, want(1).Subjects)
	}
	if err := fit(&has); err != nil {
		return err
	}
	if replicas != 0 && replicas != has.Replicas {
		n.log.LogAttrs(ctx, slog.LevelWarn, "push cluster: the cluster was set up with another number of copies than Config.Replicas, and that number holds", slog.String("node", n.cfg.Node),
			slog.Int("copies", has.Replicas), slog.Int("configured", replicas))
	}
	replicas = has.Replicas
	if n.snaps, n.snapshots, err = n.bucket(ctx, jetstream.KeyValueConfig{Bucket: n.names.snaps, Description: "states of partitions", Replicas: replicas, History: 1}); err != nil {
		return err
	}
	if n.regs, _, err = n.bucket(ctx, jetstream.KeyValueConfig{Bucket: n.names.regs, Description: "accounts with registrations", Replicas: replicas, History: 1}); err != nil {
		return err
	}
	return n.readVersion(ctx)
}

// described begins the description of the log.
const described = "events of push, "

// Codes of errors of JetStream.
const (
	oneServer    = 10074 // more replicas than one, and the server is alone
	noPeers      = 10005 // fewer servers than replicas
	overlap      = 10065 // another stream has the subjects
	invalid      = 10052
	maxStreams   = 10027
	noResources  = 10023
	noStorage    = 10047
	storageLimit = 10028
	unavailable  = 10008 // no leader
	inProcess    = 10164 // something else was appended under the subject, and is not there yet, or never will be
)

// apiError is the code of an error of JetStream, or zero.
func apiError(err error) int {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return int(api.ErrorCode)
	}
	return 0
}

// refused says what to do when a stream of r replicas could not be made.
func (n *Node) refused(err error, r int) error {
	switch apiError(err) {
	case oneServer:
		return fmt.Errorf("%w: Config.Replicas is %d, and this NATS is one server: %w", ErrConfig, r, err)
	case noPeers:
		return fmt.Errorf("NATS has fewer than %d servers that can keep it; start the others, or let Config.Replicas be 1: %w", r, err)
	case overlap:
		return fmt.Errorf("%w: another stream of this NATS has subjects of this cluster; let Config.Name be another than %q: %w", ErrConfig, n.cfg.Name, err)
	case invalid, maxStreams:
		return fmt.Errorf("%w: NATS does not make the stream: %w", ErrConfig, err)
	case noResources, noStorage, storageLimit:
		return fmt.Errorf("NATS has no room: %w", err)
	}
	return err
}

// fit looks whether a stream that is there was set up, or changed later, so that it would lose what is in it, or not give it out.
func fit(c *jetstream.StreamConfig) error {
	var wrong []string
	say := func(is bool, what string) {
		if is {
			wrong = append(wrong, what)
		}
	}
	say(c.MaxAge != 0, "max_age is not 0: what waits would be lost")
	say(c.Retention != jetstream.LimitsPolicy, "retention is not limits: what is read would be lost")
	say(c.Discard != jetstream.DiscardNew, "discard is not new: the oldest would be lost where there is a limit")
	say(!c.AllowDirect, "allow_direct is off: nodes could not read")
	say(c.DenyPurge, "deny_purge is on: it would grow for ever")
	say(c.Sealed || c.NoAck || c.Mirror != nil || len(c.Sources) > 0, "it is sealed, without acknowledgements, or a copy of another")
	if wrong == nil {
		return nil
	}
	return fmt.Errorf("%w: the stream %s has settings that would lose events: %s; change them with `nats stream edit`", ErrConfig, c.Name, strings.Join(wrong, "; "))
}

func (n *Node) bucket(ctx context.Context, cfg jetstream.KeyValueConfig) (kv jetstream.KeyValue, s jetstream.Stream, err error) {
	err = n.patient(ctx, "the bucket "+cfg.Bucket, func(ctx context.Context) (err error) {
		kv, err = n.js.KeyValue(ctx, cfg.Bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			kv, err = n.js.CreateKeyValue(ctx, cfg)
			err = n.refused(err, cfg.Replicas)
		}
		if err != nil {
			return err
		}
		s, err = n.js.Stream(ctx, "KV_"+cfg.Bucket)
		if err != nil {
			return err
		}
		return fit(&s.CachedInfo().Config)
	})
	return kv, s, err
}

// firstLife returns the number of this node's life that begins, and keeps it for the next start. It need not be the time: clocks are set back, and a machine is replaced
// by one whose clock is late.
func (n *Node) firstLife(ctx context.Context, now time.Time) (life uint64, err error) {
	key := "node." + n.cfg.Node
	err = n.patient(ctx, "the bucket "+n.names.snaps+" to take this node's name", func(ctx context.Context) error {
		value, rev, err := n.latest(ctx, appendLongest, n.names.snaps, key)
		if err != nil {
			return err
		}
		var former uint64
		if rev > 0 {
			if former, err = strconv.ParseUint(string(value), 10, 64); err != nil {
				return fmt.Errorf("%w: the key %s of the bucket %s is %q; delete it if this node's clock is right", ErrConfig, key, n.names.snaps, value)
			}
		}
		life = partition.NextLife(former, now)
		_, err = n.snaps.Update(ctx, key, strconv.AppendUint(nil, life, 10), rev)
		return err
	})
	return life, err
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// call is somebody who waits in Handle.
type call struct {
	n        *Node
	lane     *lane
	ev       push.Event
	accepted chan struct{}
	ok       bool
	decided  chan struct{}
	decision push.Decision
}

// Handle takes note of an event. When it returns nil, the event is in the log and cannot be lost. The Decision is the owner's if it waits for it
// (Config.Wait; always for push-enable and push-disable), else empty.
//
// The error is push.ErrClosed, ErrVersion, ErrName, or wraps push.ErrEvent, or ErrUnreachable and the context's error; with Config.Alone it is ErrAlone.
func (n *Node) Handle(ctx context.Context, ev push.Event) (push.Decision, error) {
	if n.unmade() {
		return push.Decision{}, errNotMade
	}
	if err := push.CheckEvent(ev); err != nil {
		return push.Decision{}, err
	}
	ctx = orEndless(ctx)
	account := ev.Subject().Account
	d := push.Decision{Account: account}
	l := n.lanes[partition.Of(account, len(n.lanes))]
	if l.foreign(ev, account) {
		n.counts.kept.Add(1)
		d.Reason = push.ReasonNoRegistration
		return d, nil
	}
	if n.closed.Load() {
		return d, push.ErrClosed
	}
	if err := n.left.Load(); err != nil {
		return d, *err
	}
	if n.alone != nil {
		l.note(account, n.alone.notes(account)) // before the same stanza comes again
	}
	wanted := n.cfg.Wait || waits(ev)
	c := l.enter(ev, wanted)
	if c == nil {
		n.counts.kept.Add(1)
		d.Reason = push.ReasonNoRegistration
		return d, nil
	}
	if n.alone != nil && l.troubled() && l.withdraw(c) { // it would wait in vain
		return n.unreachable(ctx, ev, d)
	}
	select {
	case <-c.accepted:
	case <-ctx.Done():
		if l.withdraw(c) {
			return n.unreachable(ctx, ev, d)
		}
		select {
		case <-c.accepted:
		default:
			if n.alone != nil {
				l.abandon()
			}
			return n.unreachable(ctx, ev, d)
		}
	}
	if !c.ok {
		if n.closed.Load() {
			return d, push.ErrClosed
		}
		return n.unreachable(ctx, ev, d)
	}
	n.counts.accepted.Add(1)
	if !wanted {
		return d, nil
	}
	select {
	case <-c.decided:
		return c.decision, nil
	case <-ctx.Done(): // it is accepted, and will be decided
		return d, nil
	}
}

// errNotMade is for a Node that Join has not returned.
var errNotMade = fmt.Errorf("%w: Join has not made it; use what Join returns, if its error is nil", push.ErrClosed)

func (n *Node) unmade() bool { return n == nil || n.js == nil }

// orEndless returns ctx, or, for a host that has none, one that never ends.
func orEndless(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// HandleTo is Handle into a Decision of the caller's; d may be nil.
func (n *Node) HandleTo(ctx context.Context, ev push.Event, d *push.Decision) error {
	got, err := n.Handle(ctx, ev)
	if d != nil {
		*d = got
	}
	return err
}

var _ push.EventHandler = (*Node)(nil)

// waits tells whether the client waits for what the owner says.
func waits(ev push.Event) bool {
	switch ev.(type) {
	case push.PushEnable, push.PushDisable:
		return true
	default:
		return false
	}
}

// unreachable answers for an event that the log has not taken in time.
func (n *Node) unreachable(ctx context.Context, ev push.Event, d push.Decision) (push.Decision, error) {
	n.counts.refused.Add(1)
	cause := context.Cause(ctx)
	if n.alone != nil {
		if got, ok := n.alone.decide(ev); ok {
			n.counts.alone.Add(1)
			if cause == nil {
				return got, ErrAlone
			}
			return got, fmt.Errorf("%w: %w", ErrAlone, cause)
		}
	}
	if cause == nil {
		return d, ErrUnreachable
	}
	return d, fmt.Errorf("%w: %w", ErrUnreachable, cause)
}

// inspectTime is how long an owner may take to answer before it is asked again, or another one is: the question is lost with an owner that dies.
const inspectTime = 3 * time.Second

// Inspect returns what the owner knows of an account. The error is push.ErrClosed, or wraps ErrUnreachable and the context's error.
func (n *Node) Inspect(ctx context.Context, account string) (push.AccountStatus, error) {
	if n.unmade() {
		return push.AccountStatus{}, errNotMade
	}
	ctx = orEndless(ctx)
	p := partition.Of(account, len(n.lanes))
	st := push.AccountStatus{Account: account}
	if account == "" {
		return st, nil // nobody has anything
	}
	var last error
	for {
		try, stop := context.WithTimeout(ctx, inspectTime)
		msg, err := n.cfg.Conn.RequestWithContext(try, n.names.owner(p), []byte(account))
		stop()
		if err == nil {
			if err = partition.Decode(msg.Data, &st); err == nil {
				return st, nil
			}
		}
		last = err
		if n.closed.Load() {
			return st, push.ErrClosed
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return st, fmt.Errorf("%w: %w: %w", ErrUnreachable, context.Cause(ctx), last)
		}
	}
}

// Services returns the state of the push services that this node publishes to, in the order of their names.
func (n *Node) Services() []push.ServiceStatus {
	if n.unmade() {
		return nil
	}
	return n.gates.status()
}

// Host is Config.Push.Host.
func (n *Node) Host() string {
	if n.unmade() {
		return ""
	}
	return n.cfg.Push.Host
}

// Policy is the policy of the cluster.
func (n *Node) Policy() push.Policy {
	if n.unmade() {
		return push.Policy{}
	}
	return n.cfg.Push.Policy
}

// alive tells whether a life of a node goes on.
func (n *Node) alive(o partition.Origin) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members.Alive(time.Now(), o)
}

// runs tells whether the process of a node goes on that had a life.
func (n *Node) runs(o partition.Origin) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members.Runs(time.Now(), o)
}

func (n *Node) silent(node string) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.members.Silent(time.Now(), node)
}

// Close hands over what this node owns, and leaves the cluster. What waits is not sent now: the others do that, or the next start if there are none. Sessions
// of this node count as closed from then on. It returns when that is done, or when ctx is: then the others find out by themselves. A second Close does nothing.
func (n *Node) Close(ctx context.Context) error {
	if n.unmade() || n.closed.Swap(true) {
		return nil
	}
	ctx = orEndless(ctx)
	n.mu.Lock()
	n.leaving = true
	n.mu.Unlock()
	n.beat()
	for _, l := range n.lanes {
		l.post(func() { l.owner.Want(time.Now(), false) })
	}
	var err error
	for !n.idle() {
		if !sleep(ctx, 10*time.Millisecond) {
			err = fmt.Errorf("jetstream: left without handing over: %w", context.Cause(ctx))
			break
		}
	}
	n.mu.Lock()
	n.gone = err == nil
	n.mu.Unlock()
	n.beat()
	_ = n.cfg.Conn.FlushTimeout(time.Second)
	n.cancel()
	for _, s := range n.subs {
		_ = s.Unsubscribe()
	}
	n.gates.stop()
	for _, l := range n.lanes {
		l.stop()
	}
	n.work.Wait()
	if n.alone != nil {
		n.alone.close(ctx)
	}
	return err
}

// idle tells whether this node owns nothing any more and has nothing on its way.
func (n *Node) idle() bool {
	for _, l := range n.lanes {
		if !l.idle() {
			return false
		}
	}
	return true
}
