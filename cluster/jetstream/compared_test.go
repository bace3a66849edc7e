package jetstream

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// TestSettingsAreCompared has a node hear of others that were set up otherwise: it says so once for each life of theirs, and not of those that are like it, nor of
// a version that does not tell.
func TestSettingsAreCompared(t *testing.T) {
	var out bytes.Buffer
	mine := push.Config{Host: "example.com"}
	n := &Node{
		cfg: Config{Node: "a", Lease: 4 * time.Second}, log: slog.New(slog.NewTextHandler(&out, nil)), ctx: t.Context(), settings: settingsOf(&mine),
		members: partition.NewMembers(partition.Origin{Node: "a", Incarnation: 1}, 4*time.Second, time.Now()), compared: make(map[string]partition.Origin),
	}
	said := func(node string, life uint64, settings uint64, lease time.Duration) string {
		out.Reset()
		b := partition.Beat{Origin: partition.Origin{Node: node, Incarnation: life}, Settings: settings, Lease: lease}
		n.heard(&nats.Msg{Data: partition.Encode(partition.First, b)})
		return out.String()
	}
	const policy, leases = "another Policy or Host", "different leases"
	assert.Empty(t, said("b", 1, settingsOf(&push.Config{Host: "example.com"}), 4*time.Second))
	for i, other := range []push.Config{{Host: "example.org"}, {Host: "example.com", Policy: push.Policy{SkipPlain: true}}, {Host: "example.com", Policy: push.Policy{MinInterval: -1}}} {
		life := uint64(i + 2)
		s := said("b", life, settingsOf(&other), 4*time.Second)
		assert.Equal(t, 1, strings.Count(s, policy), s)
		assert.Contains(t, s, "other=b")
		assert.NotContains(t, s, leases)
		assert.Empty(t, said("b", life, settingsOf(&other), 4*time.Second), "once")
	}
	assert.Empty(t, said("c", 1, 0, 0), "it does not tell")
	s := said("d", 1, n.settings, 9*time.Second)
	assert.Contains(t, s, leases)
	assert.NotContains(t, s, policy)
	assert.Empty(t, said("a", 1, 1, 9*time.Second), "its own")
}
