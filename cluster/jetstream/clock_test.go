package jetstream

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

// A node that starts with a clock that is a day behind that of its former start is not taken for its own past: what it accepts is decided.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	srv, err := embedded.Start(embedded.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	account, key := "juliet@example.com", push.Key{Service: "push.example.net", Node: "n1"}
	start := func(off time.Duration) *Node {
		n, err := joinAt(ctx, Config{
			Conn: srv.Conn(), Node: "a", Partitions: 1, Lease: time.Second, Wait: true,
			Push: push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })},
		}, func() time.Time { return time.Now().Add(off) })
		require.NoError(t, err)
		return n
	}
	n := start(24 * time.Hour)
	d, err := n.Handle(ctx, push.PushEnable{Session: push.SessionID{Account: account}, Key: key})
	require.NoError(t, err)
	require.NotEmpty(t, d.Changes)
	require.NoError(t, n.Close(ctx))
	for i, off := range []time.Duration{0, -24 * time.Hour, 0} {
		n = start(off)
		n.again() // and in another life, too
		d, err = n.Handle(ctx, push.ArchiveAdded{Account: account, Stanza: push.Stanza{ID: string(rune('a' + i)), To: account, Class: push.ClassImportant}})
		require.NoError(t, err)
		require.Len(t, d.Verdicts, 1, "accepted, and never decided")
		assert.True(t, d.Verdicts[0].Notify)
		require.NoError(t, n.Close(ctx))
	}
}
