package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// Versions: what nodes write has one, and each node reads those up to its own. They write the latest that all of them read, which they tell each
// other in their beats: while one node after another is upgraded that stays as it is, and when the last one is, it is raised, once and for all. It is
// kept beside the snapshots, so that an older program that comes later refuses to join.

// ErrVersion: the cluster is written in a version that this program cannot read, since all its other nodes were upgraded. It has left the cluster,
// takes no events any more, and has to be upgraded too.
var ErrVersion = errors.New("jetstream: the cluster is written by a later version of this program; upgrade this node")

// versionKey is where the version is that is written, in the bucket of snapshots.
const versionKey = "version"

// version is what this node writes.
func (n *Node) version() int { return max(int(n.writes.Load()), partition.First) }

// written reads the version that the cluster is written in, and the revision that it was read at.
func (n *Node) written(ctx context.Context) (version int, rev uint64, err error) {
	value, rev, err := n.latest(ctx, appendLongest, n.names.snaps, versionKey)
	if err != nil || rev == 0 {
		return partition.First, 0, err
	}
	if version, err = strconv.Atoi(string(value)); err != nil {
		return 0, 0, fmt.Errorf("jetstream: the version of the cluster is unreadable: %w", err)
	}
	return version, rev, nil
}

// readVersion finds out what to write. A program that is too old does not join.
func (n *Node) readVersion(ctx context.Context) error {
	return n.patient(ctx, "the version that the cluster is written in", func(ctx context.Context) error {
		v, _, err := n.written(ctx)
		if err != nil {
			return err
		}
		if v > partition.Version {
			return fmt.Errorf("%w: it is written in version %d, and this program reads up to %d", ErrVersion, v, partition.Version)
		}
		n.writes.Store(int64(v))
		return nil
	})
}

// compareVersions goes by what the others read and write.
func (n *Node) compareVersions(now time.Time) {
	n.mu.Lock()
	reads, others := n.members.Reads(now), n.members.Writes()
	n.mu.Unlock()
	switch {
	case others > partition.Version:
		n.outdate(fmt.Sprintf("other nodes write version %d, and this program reads up to %d", others, partition.Version))
	case others > n.version():
		n.writes.Store(int64(others))
	case reads > n.version() && !n.raising.Swap(true):
		n.work.Add(1)
		go func() {
			defer n.work.Done()
			defer n.raising.Store(false)
			if err := n.raise(reads); err != nil && n.ctx.Err() == nil {
				n.warn("version not raised", -1, err)
				sleep(n.ctx, appendTimeout)
			}
		}()
	}
}

// raise has the cluster written in a later version from now on.
func (n *Node) raise(to int) error {
	ctx, cancel := context.WithTimeout(n.ctx, 2*appendLongest)
	defer cancel()
	v, rev, err := n.written(ctx)
	if err != nil {
		return err
	}
	if v < to {
		if _, err := n.snaps.Update(ctx, versionKey, []byte(strconv.Itoa(to)), rev); err != nil {
			return err
		}
		v = to
		n.log.LogAttrs(n.ctx, slog.LevelInfo, "push cluster: all nodes read a later version, which is written from now on", slog.String("node", n.cfg.Node), slog.Int("version", v))
	}
	if v <= partition.Version {
		n.writes.Store(int64(v))
	}
	return nil
}

// outdate lets this node leave: there is something that it cannot read, and must not skip.
func (n *Node) outdate(why string) {
	n.outdated.Store(true)
	n.leave(fmt.Errorf("%w: %s", ErrVersion, why))
}

// leave lets this node leave the cluster by itself. From then on it takes no events.
func (n *Node) leave(why error) {
	if !n.left.CompareAndSwap(nil, &why) {
		return
	}
	n.log.LogAttrs(n.ctx, slog.LevelError, "push cluster: this node has left the cluster", slog.String("node", n.cfg.Node), slog.Any("error", why))
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		n.mu.Lock()
		n.leaving = true
		n.mu.Unlock()
		n.beat()
		for _, l := range n.lanes {
			l.post(func() { l.owner.Want(time.Now(), false) })
		}
		for until := time.Now().Add(10 * n.cfg.Lease); !n.idle() && time.Now().Before(until); {
			if !sleep(n.ctx, 10*time.Millisecond) {
				return
			}
		}
		n.mu.Lock()
		n.gone = true
		n.mu.Unlock()
		n.beat()
	}()
}
