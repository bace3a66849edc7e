package embedded

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// NATS' own variables are those that are set: they have its defaults before.
func TestElections(t *testing.T) {
	require.Equal(t, []time.Duration{time.Second, 4 * time.Second, 9 * time.Second}, []time.Duration{hbInterval, minElectionTimeout, maxElectionTimeout})
}
