package jetstream

import (
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// Status is what a Node knows of itself and of the cluster, for package pushhttp, for metrics, and for whoever wants to know.
type Status = cluster.Status

type counts struct {
	kept, accepted, refused, alone, decided, appends, bytes, retried, snapshots, snapshotBytes, resent, advice, lives, reported atomic.Int64
}

// Status returns what this node knows.
func (n *Node) Status() Status {
	if n.unmade() {
		return Status{}
	}
	now := time.Now()
	n.mu.Lock()
	live, missing := n.members.Live(now), n.members.Missing(now)
	n.mu.Unlock()
	c := &n.counts
	st := Status{
		Node: n.cfg.Node, Nodes: live, Missing: missing,
		Kept: c.kept.Load(), Accepted: c.accepted.Load(), Refused: c.refused.Load(), Alone: c.alone.Load(), Decided: c.decided.Load(),
		Appends: c.appends.Load(), Bytes: c.bytes.Load(), Retried: c.retried.Load(), Snapshots: c.snapshots.Load(), SnapshotBytes: c.snapshotBytes.Load(),
		Resent: c.resent.Load(), Advice: c.advice.Load(), Lives: c.lives.Load(), Reported: c.reported.Load(),
		Version: n.version(), Outdated: n.outdated.Load(), Behind: n.behind(),
	}
	if n.alone != nil {
		st.Unreported = int64(n.alone.unreported())
	}
	for p, l := range n.lanes {
		ps := cluster.Partition{Partition: p, Phase: cluster.PhaseIdle}
		if s := l.stat.Load(); s != nil {
			ps = *s
		}
		ps.Owner = partition.Chosen(live, p)
		if ps.Owned {
			ps.Lag = l.lag.Load()
		}
		l.mu.Lock()
		st.Accounts += l.local.Len()
		st.Sessions += l.local.Sessions()
		l.mu.Unlock()
		st.Partitions = append(st.Partitions, ps)
	}
	return st
}

// Hooks returns what went wrong with the host's code so far, for each of its functions with which something did.
func (n *Node) Hooks() []push.HookStatus {
	if n.unmade() {
		return nil
	}
	return n.hooks.status()
}
