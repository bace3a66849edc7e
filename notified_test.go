package push

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type memoryEntry struct {
	hash uint64
	at   time.Time
	gone bool
}

func (e memoryEntry) counts() bool { return !e.gone && e.hash>>3&counts != 0 }

// TestMemory compares a registration's memory with a list, through growth, forgetting, and ageing, around the number from which it has an index.
func TestMemory(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		type entry = memoryEntry
		var m notified
		var model []entry
		now := time.Unix(1e9, 0)
		limit := 1 + r.IntN(40)
		has := func(h uint64) bool {
			return slices.ContainsFunc(model, func(e entry) bool { return e.hash == h && !e.gone })
		}
		for range 400 {
			h := uint64(1+r.IntN(60)) << 3
			switch r.IntN(8) {
			case 0:
				now = now.Add(time.Duration(r.IntN(20)) * time.Second)
			case 1:
				if e := m.entry(h); e != nil {
					e.hash &^= counts
				}
				m.forget(h)
				for i := range model {
					model[i].gone = model[i].gone || model[i].hash == h
				}
			case 2:
				counted := int32(0)
				got := m.prune(now, 60*time.Second)
				for len(model) > 0 && (model[0].gone || now.Sub(model[0].at) > 60*time.Second) {
					if model[0].counts() {
						counted++
					}
					model = model[1:]
				}
				require.Equal(t, counted, got, "those that counted and are forgotten")
			default:
				if !has(h) {
					counted := m.add(h|h>>3&counts, now, limit)
					model = append(model, entry{h, now, false})
					over := max(len(model)-m.len(), 0)
					require.Equal(t, over > 0 && model[0].counts(), counted, "the one that is forgotten for it counted")
					model = model[over:]
				}
			}
			require.LessOrEqual(t, m.len(), limit)
			require.LessOrEqual(t, len(m.ring), 2*limit+18, "the space before the oldest is taken back")
			if x := m.index; x == nil {
				require.LessOrEqual(t, m.len(), fewRemembered, "many have an index")
			} else {
				require.LessOrEqual(t, 2*m.len(), len(x.table), "the index has room")
			}
			for n := range uint64(60) {
				h := (n + 1) << 3
				if e := m.entry(h); (e != nil) != m.has(h) || e != nil && e.hash != h|h>>3&counts {
					t.Fatalf("seed %d: %d: entry %v", seed, h, e)
				}
				if has(h) != m.has(h) {
					t.Fatalf("seed %d: %d: remembered %v, want %v", seed, h, m.has(h), has(h))
				}
			}
		}
	}
}

// An index that is made for a ring that is there already, as of a snapshot, has room for it too.
func TestIndexOfMany(t *testing.T) {
	for _, n := range []int{17, 32, 33, 63, 64, 65, 500} {
		var m notified
		for i := range n {
			m.ring = append(m.ring, remembered{hash: uint64(i+1) << 3})
		}
		m.grow()
		require.LessOrEqual(t, 2*n, len(m.index.table))
		require.Less(t, len(m.index.table), max(4*n, 65))
		for i := range n {
			require.True(t, m.has(uint64(i+1)<<3))
		}
		require.False(t, m.has(uint64(n+1)<<3))
	}
}
