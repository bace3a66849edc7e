package jetstream

import (
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// Status is what a Node knows of itself and of the cluster at one time: for an inspector and for metrics.
type Status struct {
	// Node is this node; Nodes are those that are alive, itself included, in order.
	Node  string
	Nodes []string
	// Partitions has all of them, in order; those that this node owns say more.
	Partitions []PartitionStatus
	// Accounts is how many accounts of the cluster have registrations, Sessions how many sessions this node has.
	Accounts, Sessions int

	// Kept counts events that did not leave this node, because their account has no registration. Accepted counts those of this node that are in the log,
	// Refused those that the log did not take in time, and Alone those of them that this node decided by itself. Decided counts the events that it decided as
	// an owner.
	Kept, Accepted, Refused, Alone, Decided int64
	// Reported is how many of those that were decided alone the log has been told of since.
	Reported int64
	// Appends and Bytes count what this node has appended to the log, Retried what it had to append again; Snapshots and SnapshotBytes what it has written of states.
	Appends, Bytes, Retried, Snapshots, SnapshotBytes int64
	// Resent counts publishes that a former owner had begun when it ended, and that were sent once more because nobody knows whether they had arrived: each
	// one is a second buzz at worst.
	Resent int64
	// Advice counts what sessions' nodes were told. Lives counts how often this node was thought dead, or cut off, and said again what sessions it has.
	Advice, Lives int64
	// Version is that of what this node writes: the latest that all nodes read. Outdated: it is a later one than this program reads, and the node has left (ErrVersion).
	Version  int
	Outdated bool
	// Behind: the node may have missed registrations, and takes no event as one of an account that has none. It is so for one and a half leases after Join.
	Behind bool
	// Hooks has those of the host's functions with which something went wrong.
	Hooks []HookStatus
}

// PartitionStatus is the state of one partition at a node.
type PartitionStatus struct {
	Partition int
	// Owned: this node decides for its accounts.
	Owned bool
	// Owner is who should own it, as far as this node knows.
	Owner string
	// Phase is how far this node is: "idle", "owning", or a step between.
	Phase string
	// Lag is how many messages of the log the owner has not read.
	Lag int64
	// Accounts have registrations; Active are those of them that have a session, or something waiting or remembered.
	Accounts, Active int
	// InFlight is how many publishes wait for a reply, Published how many this node has sent.
	InFlight, Published int
	// Takeovers counts how often this node took it over, TakenIn is how long the last one took, Resent how many publishes it sent again.
	Takeovers int
	TakenIn   time.Duration
	Resent    int
	// Err is what failed last, if it has not succeeded since.
	Err string
}

type counts struct {
	kept, accepted, refused, alone, decided, appends, bytes, retried, snapshots, snapshotBytes, resent, advice, lives, reported atomic.Int64
}

// Status returns what this node knows.
func (n *Node) Status() Status {
	now := time.Now()
	n.mu.Lock()
	live := n.members.Live(now)
	n.mu.Unlock()
	c := &n.counts
	st := Status{
		Node: n.cfg.Node, Nodes: live,
		Kept: c.kept.Load(), Accepted: c.accepted.Load(), Refused: c.refused.Load(), Alone: c.alone.Load(), Decided: c.decided.Load(),
		Appends: c.appends.Load(), Bytes: c.bytes.Load(), Retried: c.retried.Load(), Snapshots: c.snapshots.Load(), SnapshotBytes: c.snapshotBytes.Load(),
		Resent: c.resent.Load(), Advice: c.advice.Load(), Lives: c.lives.Load(), Reported: c.reported.Load(),
		Version: n.version(), Outdated: n.outdated.Load(), Behind: n.behind(), Hooks: n.hooks.status(),
	}
	for p, l := range n.lanes {
		ps := PartitionStatus{Partition: p, Phase: partition.PhaseIdle.String()}
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
