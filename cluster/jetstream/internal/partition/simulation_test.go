package partition

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// full: the simulation runs a million events.
var full = os.Getenv("PUSH_TEST_FULL") == "1"

// orDefault returns n, or one of the defaults if it is 0: for everyday, and for a full run.
func orDefault(n, short, long int) int {
	switch {
	case n != 0:
		return n
	case full:
		return long
	}
	return short
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
	s.Behind += o.Behind
	s.Parted += o.Parted
}

// Delays, joins and leaves alone: nothing is lost, nothing is published twice.
func TestSimulationWithoutFaults(t *testing.T) {
	st := runSeeds(t, simConfig{nodes: 3, parts: 4, accounts: 12, events: orDefault(*simEvents, 3000, 3000), joins: true, snapshotEvery: 300}, orDefault(*simSeeds, 10, 70))
	require.Zero(t, st.Twice)
	require.Zero(t, st.Refused)
	require.NotZero(t, st.Moves)
}

// A link between two nodes that others hear: partitions do not go to and fro between them, so nothing of what is in flight is sent again.
func TestSimulationOfOneLink(t *testing.T) {
	cfg := simConfig{nodes: 3, parts: 8, accounts: 12, events: 3000, snapshotEvery: 300, part: true}
	cfg.seed = 1
	st, failures := simulate(cfg)
	require.Empty(t, failures)
	require.Zero(t, st.Twice)
	require.Equal(t, cfg.parts, st.Takeovers, "each partition was taken over when its node began, and never again")
}

// Crashes, pauses longer than the lease, cut networks, lost messages, clocks that drift.
func TestSimulation(t *testing.T) {
	st := runSeeds(t, simConfig{nodes: 3, parts: 4, accounts: 12, events: orDefault(*simEvents, 5000, 5000), faults: true, joins: true, snapshotEvery: 300}, orDefault(*simSeeds, 20, 160))
	require.NotZero(t, st.Crashes*st.Pauses*st.Cuts*st.Behind*st.Parted)
}

// The simulation finds what it is for: the code is broken in one place, and it says so. Each break is in the harness, where the code asks for what
// the property rests on.
func TestSimulationFinds(t *testing.T) {
	for property, what := range map[string]string{
		"C1":  "each node has its own idea of which partition an account belongs to",
		"C3":  "the owner does not write that a publish was answered",
		"C10": "a node that was cut off thinks that it knows all registrations",
		"C5":  "the log takes the records of an owner that has a successor",
		"C2":  "a node whose clock was set back begins a life before its former one",
	} {
		t.Run(property, func(t *testing.T) {
			cfg := simConfig{nodes: 3, parts: 4, accounts: 12, events: 5000, faults: true, snapshotEvery: -1, sabotage: property}
			for cfg.seed = 1; cfg.seed <= 10; cfg.seed++ {
				_, failures := simulate(cfg)
				if i := slices.IndexFunc(failures, func(f string) bool {
					return strings.Contains(f, property+":")
				}); i >= 0 {
					t.Logf("%s: seed %d: %s", what, cfg.seed, failures[i][:min(len(failures[i]), 250)])
					return
				}
			}
			t.Errorf("%s, and no seed finds it", what)
		})
	}
}
