package partition

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// run simulates several seeds and prints one that fails.
func runSeeds(t *testing.T, cfg simConfig, seeds int) simStats {
	t.Helper()
	var sum simStats
	start := time.Now()
	first := uint64(1)
	if *simSeed != 0 {
		first, seeds = *simSeed, 1
	}
	for seed := first; seed < first+uint64(seeds); seed++ {
		cfg.seed = seed
		st, failures := simulate(cfg)
		sum.add(st)
		if len(failures) > 0 {
			for _, f := range failures[:min(len(failures), 10)] {
				t.Log(f)
			}
			t.Logf("%+v", st)
			t.Fatalf("seed %d fails; run it alone with: go test -run '%s$' ./internal/partition -seed %d", seed, t.Name(), seed)
		}
	}
	t.Logf("%d seeds in %v: %+v", seeds, time.Since(start).Round(time.Millisecond), sum)
	return sum
}

func (s *simStats) add(o simStats) {
	s.Events += o.Events
	s.Accepted += o.Accepted
	s.Refused += o.Refused
	s.Published += o.Published
	s.Twice += o.Twice
	s.Resent += o.Resent
	s.Takeovers += o.Takeovers
	s.Crashes += o.Crashes
	s.Pauses += o.Pauses
	s.Cuts += o.Cuts
	s.Moves += o.Moves
	s.Misses += o.Misses
}

// Delays, joins and leaves alone: nothing is lost, nothing is published twice.
func TestSimulationWithoutFaults(t *testing.T) {
	st := runSeeds(t, simConfig{nodes: 3, parts: 4, accounts: 12, events: orDefault(*simEvents, 3000), joins: true, snapshotEvery: -1}, orDefault(*simSeeds, 10))
	require.Zero(t, st.Twice)
	require.Zero(t, st.Refused)
	require.NotZero(t, st.Moves)
}

// Crashes, pauses longer than the lease, cut networks, lost messages, clocks that drift.
func TestSimulation(t *testing.T) {
	st := runSeeds(t, simConfig{nodes: 3, parts: 4, accounts: 12, events: orDefault(*simEvents, 5000), faults: true, joins: true, snapshotEvery: -1}, orDefault(*simSeeds, 20))
	require.NotZero(t, st.Crashes*st.Pauses*st.Cuts)
}
