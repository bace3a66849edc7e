package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

func joinErr(t *testing.T, within time.Duration, conn *nats.Conn, name string, change ...func(*jetstream.Config)) error {
	t.Helper()
	cfg := jetstream.Config{Conn: conn, Node: name, Partitions: 8, Lease: 2 * time.Second, Push: push.Config{Host: "example.com", Publisher: newService()}}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	n, err := jetstream.Join(ctx, cfg)
	if err == nil {
		_ = n.Close(ctx)
	}
	return err
}

// A second node with a name that is taken does not join, and the first goes on.
func TestSameName(t *testing.T) {
	t.Parallel()
	svc := newService()
	srv := start(t, embedded.Config{})
	n := join(t, srv, "a", svc)
	err := joinErr(t, 10*time.Second, srv.Conn(), "a")
	require.ErrorIs(t, err, jetstream.ErrName)
	assert.ErrorContains(t, err, `"a" runs already, since 20`)
	handle(t, n, push.PushEnable{Session: push.SessionID{Account: juliet}, Key: phone})
	handle(t, n, message("m1"))
	svc.next(t, 10*time.Second)
	assert.False(t, n.Status().Outdated)
}

// A node whose settings do not fit those of the cluster does not join.
func TestOtherPartitions(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{})
	join(t, srv, "a", newService())
	err := joinErr(t, 10*time.Second, srv.Conn(), "b", func(c *jetstream.Config) { c.Partitions = 16 })
	require.ErrorIs(t, err, jetstream.ErrConfig)
	assert.ErrorContains(t, err, "partitions cannot be changed later")
}

// The number of copies is that of the first node, whatever another one is told: it joins, and says so.
func TestOtherReplicas(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{})
	join(t, srv, "a", newService())
	var out syncBuffer
	require.NoError(t, joinErr(t, 30*time.Second, srv.Conn(), "b", func(c *jetstream.Config) {
		c.Replicas, c.Push.Logger = 3, slog.New(slog.NewTextHandler(&out, nil))
	}))
	assert.Contains(t, out.String(), "copies=1 configured=3")
}

// Connections that will not do are told apart from a log that is away.
func TestBadConnections(t *testing.T) {
	t.Parallel()
	run := func(o *server.Options) *server.Server {
		o.Host, o.Port, o.NoLog, o.NoSigs, o.StoreDir = "127.0.0.1", -1, true, true, t.TempDir()
		s, err := server.NewServer(o)
		require.NoError(t, err)
		s.Start()
		t.Cleanup(s.Shutdown)
		require.True(t, s.ReadyForConnections(10*time.Second))
		return s
	}
	connect := func(s *server.Server, opts ...nats.Option) *nats.Conn {
		c, err := nats.Connect(s.ClientURL(), opts...)
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	c := connect(run(&server.Options{}))
	err := joinErr(t, time.Second, c, "a")
	require.ErrorIs(t, err, jetstream.ErrUnreachable)
	assert.ErrorContains(t, err, "NATS has no JetStream, or it is not ready")
	c.Close()
	err = joinErr(t, 5*time.Second, c, "a")
	require.ErrorIs(t, err, jetstream.ErrConfig)
	assert.ErrorContains(t, err, "is closed")

	forbidden := run(&server.Options{JetStream: true, Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{"push.>"}},
	}}}})
	err = joinErr(t, 3*time.Second, connect(forbidden, nats.UserInfo("u", "p")), "a")
	require.ErrorIs(t, err, jetstream.ErrUnreachable)
	assert.ErrorContains(t, err, "ermissions")
}

// Of two nodes that join with one name at the same moment the earlier one is told, by Join or by its next event; the later one goes on.
func TestSameNameAtOnce(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{})
	type joined struct {
		n   *jetstream.Node
		err error
	}
	got := make(chan joined, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for range 2 {
		go func() {
			n, err := jetstream.Join(ctx, jetstream.Config{
				Conn: srv.Conn(), Node: "a", Partitions: 4, Lease: time.Second, Push: push.Config{Host: "example.com", Publisher: newService()},
			})
			got <- joined{n, err}
		}()
	}
	var nodes []*jetstream.Node
	refused := 0
	for range 2 {
		j := <-got
		if j.err != nil {
			require.ErrorIs(t, j.err, jetstream.ErrName)
			refused++
			continue
		}
		t.Cleanup(func() { _ = j.n.Close(context.Background()) })
		nodes = append(nodes, j.n)
	}
	require.NotEmpty(t, nodes, "neither has joined")
	require.Eventually(t, func() bool {
		left := refused
		for _, n := range nodes {
			if _, err := n.Handle(ctx, push.PushEnable{Session: push.SessionID{Account: juliet}, Key: phone}); errors.Is(err, jetstream.ErrName) {
				left++
			} else {
				require.NoError(t, err)
			}
		}
		return left == 1
	}, 30*time.Second, 100*time.Millisecond, "not one of the two")
}

// What is in NATS under the cluster's names, and is not the cluster's, or was changed so that it would lose events, is refused at once and named.
func TestStrangeStreams(t *testing.T) {
	t.Parallel()
	base := natsjs.StreamConfig{Name: "PUSH_LOG", Description: "events of push, partitions=8 version=1", Subjects: []string{"push.log.>"}, AllowDirect: true, Discard: natsjs.DiscardNew}
	for name, c := range map[string]struct {
		change func(s *natsjs.StreamConfig)
		says   string
	}{
		"another's":       {func(s *natsjs.StreamConfig) { s.Description, s.Subjects = "orders", []string{"orders.>"} }, "let Config.Name be another"},
		"other subjects":  {func(s *natsjs.StreamConfig) { s.Subjects = []string{"push.log.1.>"} }, "has the subjects"},
		"overlap":         {func(s *natsjs.StreamConfig) { s.Name, s.Subjects = "ALL", []string{"push.>"} }, `let Config.Name be another than "push"`},
		"age":             {func(s *natsjs.StreamConfig) { s.MaxAge = time.Hour }, "max_age is not 0"},
		"read and gone":   {func(s *natsjs.StreamConfig) { s.Retention = natsjs.InterestPolicy }, "retention is not limits"},
		"oldest are lost": {func(s *natsjs.StreamConfig) { s.Discard, s.MaxBytes = natsjs.DiscardOld, 1<<20 }, "discard is not new"},
		"not direct":      {func(s *natsjs.StreamConfig) { s.AllowDirect = false }, "allow_direct is off"},
		"bucket with TTL": {func(s *natsjs.StreamConfig) {
			*s = natsjs.StreamConfig{Name: "KV_push_registrations", Subjects: []string{"$KV.push_registrations.>"}, MaxMsgsPerSubject: 1, MaxAge: time.Hour, AllowDirect: true, AllowRollup: true, DenyDelete: true, Discard: natsjs.DiscardNew}
		}, "KV_push_registrations has settings that would lose events"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := start(t, embedded.Config{})
			js, err := natsjs.New(srv.Conn())
			require.NoError(t, err)
			cfg := base
			c.change(&cfg)
			_, err = js.CreateStream(t.Context(), cfg)
			require.NoError(t, err)
			err = joinErr(t, 30*time.Second, srv.Conn(), "a")
			require.ErrorIs(t, err, jetstream.ErrConfig)
			assert.ErrorContains(t, err, c.says)
		})
	}
	t.Run("three copies of one server", func(t *testing.T) {
		t.Parallel()
		err := joinErr(t, 30*time.Second, start(t, embedded.Config{}).Conn(), "a", func(c *jetstream.Config) { c.Replicas = 3 })
		require.ErrorIs(t, err, jetstream.ErrConfig)
		assert.ErrorContains(t, err, "Config.Replicas is 3, and this NATS is one server")
	})
}

// The first node of a cluster of three servers does not settle for one copy because the third server is not there yet: it waits, and says for what.
func TestTwoOfThreeServers(t *testing.T) {
	t.Parallel()
	addrs := freeAddrs(t, 3)
	run := func(i int) *embedded.Server {
		return start(t, embedded.Config{Node: fmt.Sprint("s", i), Cluster: addrs[i], Routes: slices.Delete(slices.Clone(addrs), i, i+1), Secret: "s3cret"})
	}
	srv := run(0)
	run(1)
	var out syncBuffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	joined := make(chan error, 1)
	go func() {
		n, err := jetstream.Join(ctx, jetstream.Config{
			Conn: srv.Conn(), Node: "a", Partitions: 4, Push: push.Config{Host: "example.com", Publisher: newService(), Logger: slog.New(slog.NewTextHandler(&out, nil))},
		})
		if err == nil {
			err = n.Close(ctx)
		}
		joined <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "fewer than 3 servers") }, time.Minute, 50*time.Millisecond, "%s", &out)
	run(2)
	require.NoError(t, <-joined)
	js, err := natsjs.New(srv.Conn())
	require.NoError(t, err)
	s, err := js.Stream(ctx, "PUSH_LOG")
	require.NoError(t, err)
	assert.Equal(t, 3, s.CachedInfo().Config.Replicas)
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// NATS comes back with an empty store. A node that was there before refuses until another one has set up the cluster anew, and then goes on in that: it does not take
// what it has read of the former one for what is, and it says again which sessions it has.
func TestStoreGoesAway(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	srv := start(t, embedded.Config{Listen: "127.0.0.1:0", Secret: secret})
	url := srv.URL()
	conn, err := nats.Connect(url, nats.UserInfo("push", secret), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	svc := newService()
	mine := func(c *jetstream.Config) { c.Conn, c.Lease = conn, time.Second }
	n := join(t, srv, "a", svc, mine)
	for i := range 30 {
		handle(t, n, push.PushEnable{Session: push.SessionID{Account: userAccount(i)}, Key: phone})
	}
	handle(t, n, push.SessionOpen{Session: session("s1"), JID: juliet + "/phone"})
	handle(t, n, push.PushEnable{Session: session("s1"), Key: phone})
	srv.Close()
	_, addr, _ := strings.Cut(url, "://")
	srv = start(t, embedded.Config{Listen: addr, Secret: secret})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	_, err = n.Handle(ctx, message("m0"))
	cancel()
	require.ErrorIs(t, err, jetstream.ErrUnreachable)
	b := join(t, srv, "b", svc)
	handle(t, b, push.PushEnable{Session: push.SessionID{Account: userAccount(100)}, Key: phone})
	require.Eventually(t, func() bool {
		st := n.Status()
		return st.Lives > 0 && !st.Behind && st.Accounts == 1
	}, 30*time.Second, 50*time.Millisecond, "it knows the cluster that is")
	owned := func(n *jetstream.Node) int {
		st := n.Status()
		return st.Sum().Owned
	}
	require.Eventually(t, func() bool { return owned(n)+owned(b) == 8 && owned(n) > 0 }, 30*time.Second, 50*time.Millisecond)
	// Its client enables push again, and both nodes decide as if nothing had been.
	handle(t, n, push.PushEnable{Session: session("s1"), Key: phone})
	handle(t, b, message("m1")) // the session at a is there
	handle(t, n, push.SessionClose{Session: session("s1")})
	handle(t, b, message("m2"))
	svc.next(t, 10*time.Second)
	time.Sleep(500 * time.Millisecond)
	assert.Equal(t, 1, svc.count())
}

// A store that has lost its log, and still has the snapshots, is not taken for a new one: nothing is decided from it, and it is said what to do.
func TestStoreWithoutItsLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	svc := newService()
	one := func(c *jetstream.Config) { c.Partitions, c.SnapshotEvery, c.Lease = 1, 2, time.Second }
	func() {
		srv := start(t, embedded.Config{Dir: dir})
		n := join(t, srv, "a", svc, one)
		handle(t, n, push.PushEnable{Session: push.SessionID{Account: juliet}, Key: phone})
		for i := range 10 {
			handle(t, n, message(fmt.Sprint("m", i)))
		}
		require.Eventually(t, func() bool { return n.Status().Snapshots > 0 }, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, n.Close(t.Context()))
		srv.Close()
	}()
	found, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "PUSH_LOG"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.NoError(t, os.RemoveAll(found[0]))
	n := join(t, start(t, embedded.Config{Dir: dir}), "a", svc, one)
	require.Eventually(t, func() bool { return n.Status().Partitions[0].Phase == cluster.PhaseStuck }, 10*time.Second, 10*time.Millisecond)
	assert.Contains(t, n.Status().Partitions[0].Err, "restore a backup of PUSH_LOG, push_snapshots and push_registrations")
}

// Nodes that join and leave at once, in the middle of their takeovers, lose nothing and double nothing.
func TestCloseDuringTakeover(t *testing.T) {
	t.Parallel()
	svc := newService()
	srv := start(t, embedded.Config{})
	quick := func(c *jetstream.Config) { c.Push.Policy.MinInterval, c.Lease = -1, 6*time.Second }
	a := join(t, srv, "a", svc, quick)
	const accounts = 20
	for i := range accounts {
		handle(t, a, push.PushEnable{Session: push.SessionID{Account: userAccount(i)}, Key: phone})
	}
	var accepted atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			u := userAccount(n % accounts)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err := a.Handle(ctx, push.ArchiveAdded{Account: u, Stanza: push.Stanza{ID: fmt.Sprint(n), To: u, Class: push.ClassImportant}})
			cancel()
			if assert.NoError(t, err) {
				accepted.Add(1)
			}
		}
	})
	for i := range 4 { // a node says after half a lease that it takes part, is given its share then, and takes it an eighth of one later: before, in the middle, and after
		n := join(t, srv, fmt.Sprint("x", i), svc, quick)
		time.Sleep(3*time.Second + time.Duration(i)*time.Millisecond*380)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		require.NoError(t, n.Close(ctx))
		cancel()
		_, err := n.Handle(t.Context(), message("late"))
		require.True(t, err == nil || errors.Is(err, push.ErrClosed), "%v", err)
	}
	close(stop)
	wg.Wait()
	told := func() (sum int64) {
		svc.mu.Lock()
		defer svc.mu.Unlock()
		for _, n := range svc.notes {
			sum += int64(n.Count)
		}
		return sum
	}
	if !assert.Eventually(t, func() bool { return told() >= accepted.Load() }, time.Minute, 50*time.Millisecond, "lost") {
		t.Fatalf("%d accepted, %d told; %+v", accepted.Load(), told(), a.Status())
	}
	time.Sleep(500 * time.Millisecond)
	assert.Equal(t, accepted.Load(), told())
}
