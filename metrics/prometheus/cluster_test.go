package pushprometheus

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push/cluster"
)

type someCluster cluster.Status

func (c *someCluster) Status() cluster.Status { return cluster.Status(*c) }

// A node's figures are there once it is watched, and not before.
func TestCluster(t *testing.T) {
	m := New(Config{})
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(m))
	assert.Zero(t, testutil.CollectAndCount(m, "push_cluster_nodes", "push_cluster_events_total"))
	m.WatchCluster(&someCluster{
		Node: "n0", Nodes: []string{"n0", "n1"}, Missing: []string{"n2"}, Version: 1, Accepted: 7, Refused: 2, Alone: 1, Unreported: 1, Resent: 3, Lives: 4, Behind: true,
		Partitions: []cluster.Partition{
			{Owner: "n0", Owned: true, Phase: cluster.PhaseOwning, Lag: 9, Takeovers: 2, TakenIn: 1500 * time.Millisecond, InFlight: 1},
			{Owner: "n0", Owned: true, Phase: cluster.PhaseOwning, Lag: 4, Takeovers: 1},
			{Owner: "n0", Phase: cluster.PhaseStuck},
			{Owner: "n0", Phase: "claiming"},
			{Owner: "n1", Phase: cluster.PhaseIdle},
		},
	})
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	assert.Empty(t, problems)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`# HELP push_cluster_partitions Partitions at this node: owned, taking (being taken over), stuck (with something that it cannot read).
# TYPE push_cluster_partitions gauge
push_cluster_partitions{state="owned"} 2
push_cluster_partitions{state="stuck"} 1
push_cluster_partitions{state="taking"} 1
# HELP push_cluster_lag_messages Messages of the log that this node has not read of the partition that it owns where they are most.
# TYPE push_cluster_lag_messages gauge
push_cluster_lag_messages 9
# HELP push_cluster_takeovers_total Partitions that this node has taken over.
# TYPE push_cluster_takeovers_total counter
push_cluster_takeovers_total 3
# HELP push_cluster_takeover_seconds How long the longest of the last takeovers of each partition took.
# TYPE push_cluster_takeover_seconds gauge
push_cluster_takeover_seconds 1.5
`), "push_cluster_partitions", "push_cluster_lag_messages", "push_cluster_takeovers_total", "push_cluster_takeover_seconds"))
	assert.Equal(t, 6, testutil.CollectAndCount(m, "push_cluster_events_total"))
}
