package jetstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// only returns a node that is there by itself, and owns everything.
func only(t *testing.T, cfg Config) *Node {
	t.Helper()
	srv, err := embedded.Start(embedded.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cfg.Conn, cfg.Node, cfg.Push.Host = srv.Conn(), "a", "example.com"
	cfg.Push.Publisher = push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })
	n, err := Join(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = n.Close(ctx)
	})
	require.Eventually(t, func() bool { st := n.Status(); return st.Sum().Owned == cfg.Partitions }, time.Minute, 5*time.Millisecond)
	return n
}

// While another node joins, which may take long, all partitions keep their owner. They move when it takes part.
func TestJoiningTakesNothing(t *testing.T) {
	t.Parallel()
	n := only(t, Config{Partitions: 16, Lease: time.Second})
	say := func(joining bool) {
		b := partition.Beat{Origin: partition.Origin{Node: "b", Incarnation: 1}, Version: 1, Joining: joining}
		require.NoError(t, n.cfg.Conn.Publish(n.names.beat(), partition.Encode(partition.First, b)))
	}
	time.Sleep(n.cfg.Lease) // it is no new one itself
	for range 10 {
		say(true)
		time.Sleep(n.cfg.Lease / 8)
		st := n.Status()
		assert.Equal(t, 16, st.Sum().Owned)
		assert.Equal(t, []string{"a"}, st.Nodes)
	}
	require.Eventually(t, func() bool {
		say(false)
		st := n.Status()
		return len(st.Nodes) == 2 && st.Sum().Owned == st.Share("a") && st.Share("a") < 16
	}, 30*time.Second, n.cfg.Lease/8)
}

// A node that the others took for dead begins another life, in which the log hears of its sessions again, however much it has to do: something is on its way at any time.
func TestAnotherLifeUnderLoad(t *testing.T) {
	t.Parallel()
	n := only(t, Config{Partitions: 16, Lease: time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const accounts = 64
	account := func(i int) string { return fmt.Sprintf("user%d@example.com", i%accounts) }
	key := push.Key{Service: "push.example.net", Node: "n1"}
	for i := range accounts {
		id := push.SessionID{Account: account(i), ID: "s1"}
		for _, ev := range []push.Event{push.SessionOpen{Session: id, JID: id.Account + "/phone"}, push.PushEnable{Session: id, Key: key}} {
			_, err := n.Handle(ctx, ev)
			require.NoError(t, err)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				a := account(g + 7*i)
				if _, err := n.Handle(ctx, push.ArchiveAdded{Account: a, Stanza: push.Stanza{ID: fmt.Sprint(g, "-", i), To: a, Class: push.ClassImportant}}); !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	defer func() {
		close(stop)
		wg.Wait()
	}()
	n.mu.Lock()
	former := n.members.Me()
	n.mu.Unlock()
	n.trouble()
	require.Eventually(t, func() bool { return n.Status().Lives > 0 }, 30*time.Second, 10*time.Millisecond, "it waits for a moment in which nothing is on its way")
	// Every session is one of the new life.
	require.Eventually(t, func() bool {
		left := make(chan int, 1)
		sum := 0
		for _, l := range n.lanes {
			l.post(func() {
				old := 1 // if it is not owned just now
				if st := l.owner.State(); st != nil {
					old = len(slices.DeleteFunc(st.Homes(), func(home partition.Origin) bool { return home != former }))
				}
				left <- old
			})
			sum += <-left
		}
		return sum == 0
	}, 30*time.Second, 10*time.Millisecond)
	for i := range accounts {
		st, err := n.Inspect(ctx, account(i))
		require.NoError(t, err)
		require.Len(t, st.Sessions, 1)
	}
}
