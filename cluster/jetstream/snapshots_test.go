package jetstream_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

// A snapshot is written beside the former one, never into it: a node that dies in between leaves the former one whole. It is so for snapshots between which the owner
// has had nothing to write, too, as all of those messages go to a live session. And those before, and whatever else was left of them, are deleted without a trace.
func TestSnapshotsAreApart(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{})
	var mu sync.Mutex
	written := make(map[string]int)
	sub, err := srv.Conn().Subscribe("$KV.push_snapshots.p0.>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		written[m.Subject]++
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	n := join(t, srv, "a", newService(), func(c *jetstream.Config) { c.Partitions, c.SnapshotEvery, c.Wait = 1, 5, true })
	js, err := natsjs.New(srv.Conn())
	require.NoError(t, err)
	handle(t, n, push.SessionOpen{Session: session("s1"), JID: juliet + "/phone"})
	handle(t, n, push.PushEnable{Session: session("s1"), Key: phone})
	kv, err := js.KeyValue(t.Context(), "push_snapshots")
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), "p0.left.0", []byte("of an owner that ended in between"))
	require.NoError(t, err)
	for i := range 8 {
		before := n.Status().Snapshots
		for j := 0; n.Status().Snapshots == before; j++ {
			require.Less(t, j, 1000, "no snapshot")
			handle(t, n, message(fmt.Sprint("m", i, "-", j)))
		}
	}
	require.Eventually(t, func() bool {
		s, err := js.Stream(t.Context(), "KV_push_snapshots")
		if err != nil {
			return false
		}
		info, err := s.Info(t.Context(), natsjs.WithSubjectFilter("$KV.push_snapshots.p0.>"))
		return err == nil && len(info.State.Subjects) == 1
	}, 20*time.Second, 20*time.Millisecond, "there is more than the newest one")
	mu.Lock()
	defer mu.Unlock()
	assert.GreaterOrEqual(t, len(written), 8)
	for subject, times := range written {
		if !strings.Contains(subject, ".left.") {
			assert.Equal(t, 1, times, "%s is written over", subject)
		}
	}
}
