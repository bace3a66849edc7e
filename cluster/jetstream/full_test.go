package jetstream_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

var small = flag.String("small", "", "a directory on a file system of some 12 MB that may be filled, for TestFullDisk: mount -t tmpfs -o size=12m tmpfs DIR")

// A disk that is full under the server: events are refused, with an error that can be told apart; what was accepted goes out when there is room again.
func TestFullDisk(t *testing.T) {
	if *small == "" {
		t.Skip("no -small DIR")
	}
	dir := filepath.Join(*small, "store")
	ballast := filepath.Join(*small, "ballast")
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.WriteFile(ballast, make([]byte, 8<<20), 0o600))
	defer os.RemoveAll(dir)
	svc := newService()
	one := func(c *jetstream.Config) { c.Partitions, c.Lease, c.Push.Policy.MinInterval = 1, time.Second, -1 }
	accepted := 0
	func() {
		srv, err := embedded.Start(embedded.Config{Dir: dir})
		require.NoError(t, err)
		defer srv.Close()
		n := join(t, srv, "a", svc, one)
		handle(t, n, push.PushEnable{Session: push.SessionID{Account: juliet}, Key: phone})
		refused := 0
		for i := 0; refused < 3 && i < 100_000; i++ {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			_, err := n.Handle(ctx, push.ArchiveAdded{Account: juliet, Stanza: push.Stanza{ID: fmt.Sprintf("%0200d", i), To: juliet, Class: push.ClassImportant}})
			cancel()
			if err == nil {
				accepted++
				continue
			}
			require.ErrorIs(t, err, jetstream.ErrUnreachable)
			refused++
		}
		require.Equal(t, 3, refused, "the disk was never full")
		t.Logf("%d accepted, then refused", accepted)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_ = n.Close(ctx)
	}()
	require.NoError(t, os.Remove(ballast))
	srv, err := embedded.Start(embedded.Config{Dir: dir})
	require.NoError(t, err)
	defer srv.Close()
	n := join(t, srv, "a", svc, one)
	handle(t, n, message("after"))
	told := func() (sum int) {
		svc.mu.Lock()
		defer svc.mu.Unlock()
		for _, n := range svc.notes {
			sum += n.Count
		}
		return sum
	}
	assert.Eventually(t, func() bool { return told() >= accepted+1 }, 20*time.Second, 50*time.Millisecond, "lost")
	t.Logf("%d accepted, %d told, %d of them sent again or refused in doubt", accepted+1, told(), told()-accepted-1)
}
