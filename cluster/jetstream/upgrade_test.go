package jetstream_test

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// A rolling upgrade under load, with both versions of the program side by side: what is written stays readable for the older one as long as there may be any, and nothing is lost.
// An older program that comes too late, or wakes up when all others were upgraded, says so and changes nothing.
//
// The older program is this one; PUSH_CLUSTER_OLD names another build of this test to begin with instead, of an older commit.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	later := partition.Version + 1
	old := os.Getenv("PUSH_CLUSTER_OLD")
	f := newFleet(t, 3, func(c *childConfig) { c.Lease, c.Program = time.Second, old }, nil)
	f.start()
	f.owned(30 * time.Second)
	l := f.load(60, 3, 5*time.Millisecond)
	upgrade := func(p *proc) {
		p.cfg.Version, p.cfg.Program = later, ""
		p.start()
		f.owned(30 * time.Second)
	}
	written := func(p *proc) int {
		st, err := p.status()
		if err != nil {
			return 0
		}
		return st.Version
	}
	for _, p := range f.procs[:2] {
		p.leave()
		upgrade(p)
		assert.Equal(t, partition.First, written(p), "there are others that read no more")
	}

	last := f.procs[2]
	if old != "" { // which knows nothing of what follows
		last.leave()
		upgrade(last)
		for _, p := range f.procs {
			require.Eventually(t, func() bool { return written(p) == later }, time.Minute, 50*time.Millisecond, "the later version is never written")
		}
		time.Sleep(500 * time.Millisecond)
		l.end(t)
		return
	}

	// The last one is stopped for so long that the others do without it.
	last.signal(syscall.SIGSTOP)
	for _, p := range f.procs[:2] {
		require.Eventually(t, func() bool { return written(p) == later }, time.Minute, 50*time.Millisecond, "the later version is never written")
	}
	time.Sleep(500 * time.Millisecond) // some of it is in the log
	last.signal(syscall.SIGCONT)
	require.Eventually(t, func() bool {
		st, err := last.status()
		return err == nil && st.Outdated
	}, 20*time.Second, 50*time.Millisecond, "it does not know that it is too old")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	h, err := last.handle(ctx, push.Ping{Account: userAccount(0)})
	cancel()
	require.Error(t, err)
	assert.True(t, h.Outdated, "%v", err)
	last.kill()
	err = last.tryStart()
	require.Error(t, err, "a program that cannot read what the others write has joined")
	assert.Contains(t, err.Error(), "later version of this program; upgrade this node")
	upgrade(last)
	assert.Equal(t, later, written(last))
	time.Sleep(500 * time.Millisecond)
	l.end(t)
}
