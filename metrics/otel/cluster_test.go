package pushotel

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/xmpp-push/push/cluster"
)

type someCluster cluster.Status

func (c *someCluster) Status() cluster.Status { return cluster.Status(*c) }

// A node's figures are there once it is watched, and not before.
func TestCluster(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	tel, err := New(Config{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("push")})
	require.NoError(t, err)
	assert.NotContains(t, collect(t, reader).values, "push.cluster.lag")
	tel.WatchCluster(&someCluster{
		Node: "n0", Nodes: []string{"n0", "n1"}, Missing: []string{"n2"}, Accepted: 7, Refused: 2, Behind: true, Unreported: 5, Bytes: 1000,
		Partitions: []cluster.Partition{
			{Owner: "n0", Owned: true, Phase: cluster.PhaseOwning, Lag: 9, Takeovers: 2, TakenIn: 1500 * time.Millisecond},
			{Owner: "n0", Phase: cluster.PhaseStuck}, {Owner: "n1", Phase: cluster.PhaseIdle},
		},
	})
	got := collect(t, reader)
	for name, want := range map[string]float64{
		"push.cluster.nodes alive": 2, "push.cluster.nodes missing": 1, "push.cluster.partitions owned": 1, "push.cluster.partitions stuck": 1, "push.cluster.partitions_configured": 3,
		"push.cluster.lag": 9, "push.cluster.takeovers": 2, "push.cluster.takeover": 1.5, "push.cluster.behind": 1, "push.cluster.outdated": 0, "push.cluster.unreported": 5,
		"push.cluster.events accepted": 7, "push.cluster.events refused": 2, "push.cluster.appended": 1000,
	} {
		v, ok := got.values[name]
		assert.True(t, ok, name)
		assert.Equal(t, want, v, name)
	}
	assert.True(t, got.sums["push.cluster.events"])
}
