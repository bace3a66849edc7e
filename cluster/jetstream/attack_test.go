package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
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
	for i := range 4 { // a node takes its share after half a lease: just before, in the middle, and after
		n := join(t, srv, fmt.Sprint("x", i), svc, quick)
		time.Sleep(3*time.Second + time.Duration(i-1)*time.Millisecond*20)
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
	require.Eventually(t, func() bool { return told() >= accepted.Load() }, 20*time.Second, 50*time.Millisecond, "lost")
	time.Sleep(500 * time.Millisecond)
	assert.Equal(t, accepted.Load(), told())
}
