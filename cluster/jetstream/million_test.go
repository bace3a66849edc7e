package jetstream_test

import (
	"context"
	"flag"
	"iter"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

var accounts = flag.Int("accounts", 2000, "how many accounts TestTakeoverOfMany has; the figures of docs/cluster.md are with 1000000")

// made is a store with one phone for each of many accounts.
type made struct{ push.Store }

func (made) List(_ context.Context, account string) ([]push.Registration, error) {
	return []push.Registration{{Account: account, Key: push.Key{Service: "push.example.net", Node: "b2f0c7d4-7f5e-4d6e-9a45-4b2f21a9d7be"}, Enabled: time.Now(),
		Options: []push.Field{{Var: "FORM_TYPE", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}}, {Var: "secret", Values: []string{"0123456789abcdef"}}}}}, nil
}

func (made) all(n int) iter.Seq2[push.Registration, error] {
	return func(yield func(push.Registration, error) bool) {
		for i := range n {
			if !yield(push.Registration{Account: userAccount(i)}, nil) {
				return
			}
		}
	}
}

// One of two nodes with many accounts is cut off for good: how long it takes until the other has all of them, and the phone of one of those rings.
func TestTakeoverOfMany(t *testing.T) {
	t.Parallel()
	svc := newService()
	srv := start(t, embedded.Config{Listen: "127.0.0.1:0", Secret: "s3cret"})
	own := func(c *jetstream.Config) { c.Partitions, c.Lease = 64, 4*time.Second }
	a := join(t, srv, "a", svc, own)
	conn, err := nats.Connect(srv.URL(), nats.UserInfo("push", "s3cret"))
	require.NoError(t, err)
	b, err := jetstream.Join(t.Context(), jetstream.Config{Conn: conn, Node: "b", Partitions: 64, Push: push.Config{Host: "example.com", Publisher: svc}})
	require.NoError(t, err)
	defer func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // it can hand over nothing any more
		_ = b.Close(ctx)
	}()
	owned := func(n *jetstream.Node) int {
		st := n.Status()
		return st.Sum().Owned
	}
	require.Eventually(t, func() bool { return owned(a)+owned(b) == 64 && owned(b) > 0 }, 20*time.Second, 10*time.Millisecond)
	began := time.Now()
	n, err := a.Import(t.Context(), made{}, made{}.all(*accounts))
	require.NoError(t, err)
	require.Equal(t, *accounts, n)
	imported := time.Since(began)

	var account string
	for _, p := range b.Status().Partitions {
		for i := 0; p.Owned && account == ""; i++ {
			if partition.Of(userAccount(i), 64) == p.Partition {
				account = userAccount(i)
			}
		}
	}
	moved := owned(b)
	conn.Close()
	killed := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = a.Handle(ctx, push.ArchiveAdded{Account: account, Stanza: push.Stanza{ID: "m1", To: account, Class: push.ClassImportant}})
	require.NoError(t, err)
	svc.next(t, time.Minute)
	rang := time.Since(killed)
	require.Eventually(t, func() bool { return owned(a) == 64 }, time.Minute, 10*time.Millisecond)
	t.Logf("%d accounts; %d of 64 partitions moved; imported in %v (%.0f a second); a phone of theirs rang %v after the cut, all were owned after %v; the slowest took %v",
		*accounts, moved, imported.Round(time.Millisecond), float64(*accounts)/imported.Seconds(), rang.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond), func() time.Duration { st := a.Status(); return st.Sum().Slowest }())
}
