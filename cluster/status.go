// Package cluster is what a node of a cluster tells of itself, for package pushhttp and for metrics: they need not know what the cluster is made of. Package
// cluster/jetstream, a module of its own, is one.
package cluster

import (
	"slices"
	"time"
)

// Status is what a node knows of itself and of the cluster at one time. Two nodes may know different things.
type Status struct {
	// Node is this node; Nodes are those that are alive, itself included, in order. Missing are those that were alive a short while ago, and neither live nor have left.
	Node           string
	Nodes, Missing []string
	// Version is that of what this node writes: the latest that all nodes read. Outdated: it is a later one than this program reads, and the node has left.
	Version  int
	Outdated bool
	// Behind: the node may have missed registrations, and takes no event as one of an account that has none. It is so for a while after the start.
	Behind bool
	// Partitions has all of them, in order; those that this node owns say more.
	Partitions []Partition
	// Accounts is how many accounts of the cluster have registrations, Sessions how many sessions this node has.
	Accounts, Sessions int

	// Kept counts events that did not leave this node, because their account has no registration. Accepted counts those of this node that are in the log,
	// Refused those that the log did not take in time, and Alone those of them that this node decided by itself. Reported is how many of those the log has been told of
	// since, Unreported how many it has yet to be told of. Decided counts the events that this node decided as an owner.
	Kept, Accepted, Refused, Alone, Reported, Unreported, Decided int64
	// Appends and Bytes count what this node has appended to the log, Retried what it had to append again; Snapshots and SnapshotBytes what it has written of states.
	Appends, Bytes, Retried, Snapshots, SnapshotBytes int64
	// Resent counts publishes that a former owner had begun when it ended, and that were sent once more because nobody knows whether they had arrived: each
	// one is a second buzz at worst.
	Resent int64
	// Advice counts what sessions' nodes were told. Lives counts how often this node was thought dead, or cut off, and said again what sessions it has.
	Advice, Lives int64
}

// Partition is the state of one partition at a node.
type Partition struct {
	Partition int
	// Owned: this node decides for its accounts.
	Owned bool
	// Owner is who should own it, as far as this node knows.
	Owner string
	// Phase is how far this node is: [PhaseIdle], [PhaseOwning], [PhaseStuck], or a step between.
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

// Phases that mean something to others than the node.
const (
	PhaseIdle   = "idle"
	PhaseOwning = "owning"
	// PhaseStuck: the log or the snapshot has what this node cannot read, and must not skip.
	PhaseStuck = "stuck"
)

// Sums are figures over the partitions at one node.
type Sums struct {
	// Owned is how many it owns, Stuck how many it cannot own, Taking how many it is about to own.
	Owned, Stuck, Taking int
	// Lag is the longest of those that it owns.
	Lag                         int64
	InFlight, Active, Takeovers int
	Published                   int64
	// Slowest is the longest of the last takeovers.
	Slowest time.Duration
}

// Sum returns figures over the partitions.
func (s *Status) Sum() (n Sums) {
	for i := range s.Partitions {
		p := &s.Partitions[i]
		switch {
		case p.Owned:
			n.Owned++
			n.Lag = max(n.Lag, p.Lag)
		case p.Phase == PhaseStuck:
			n.Stuck++
		case p.Owner == s.Node && p.Phase != PhaseIdle:
			n.Taking++
		}
		n.InFlight += p.InFlight
		n.Active += p.Active
		n.Takeovers += p.Takeovers
		n.Published += int64(p.Published)
		n.Slowest = max(n.Slowest, p.TakenIn)
	}
	return n
}

// Share returns how many partitions a node should own.
func (s *Status) Share(node string) (n int) {
	for i := range s.Partitions {
		if s.Partitions[i].Owner == node {
			n++
		}
	}
	return n
}

// Alive tells whether a node is.
func (s *Status) Alive(node string) bool { return slices.Contains(s.Nodes, node) }
