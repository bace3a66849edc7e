package jetstream_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The disk of one server of three is full. The others go on as if it had died, and take its part; with room again it is one of them as before. Nothing is lost.
func TestFullDiskOfThree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	f := newFleet(t, 3, func(c *childConfig) {
		if c.Name == "n0" {
			c.Dir = filepath.Join(dir, "store")
		}
	}, nil)
	t.Cleanup(func() { // before the processes are killed: of a file system that is in use only the name goes
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	})
	f.start()
	f.owned(time.Minute)
	l := f.load(50, 3, 10*time.Millisecond)
	time.Sleep(time.Second)
	ballast := filepath.Join(dir, "ballast")
	file, err := os.Create(ballast)
	require.NoError(t, err)
	for err == nil {
		_, err = file.Write(make([]byte, 64<<10))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, file.Close())
	before := l.n.Load()
	time.Sleep(15 * time.Second)
	accepted := l.n.Load() - before
	t.Logf("%d events accepted in 15 s with a full disk", accepted)
	assert.Greater(t, accepted, int64(50), "the others do not go on")
	for _, p := range f.procs {
		if st, err := p.status(); err == nil {
			t.Logf("%s: refused %d, sees %v, misses %v", p.cfg.Name, st.Refused, st.Nodes, st.Missing)
		}
	}
	require.NoError(t, os.Remove(ballast))
	f.procs[0].kill() // what NATS says to a disk that was full is for its operator: start the server again
	f.procs[0].start()
	f.owned(time.Minute)
	l.end(t)
}
