package push

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What was added and not removed is always found, while others come and go; what was never added is hardly ever.
func TestPresence(t *testing.T) {
	var p fingerprints
	r := rand.New(rand.NewPCG(1, 2))
	in := map[uint64]int{}
	var hashes []uint64
	for range 20_000 {
		if r.IntN(3) > 0 || len(hashes) == 0 {
			h := r.Uint64()
			if r.IntN(50) == 0 {
				h &= 1<<32 - 1 // whose fingerprint would be that of a free slot
			}
			p.add(h)
			in[h]++
			hashes = append(hashes, h)
		} else {
			i := r.IntN(len(hashes))
			h := hashes[i]
			hashes[i] = hashes[len(hashes)-1]
			hashes = hashes[:len(hashes)-1]
			p.remove(h)
			if in[h]--; in[h] == 0 {
				delete(in, h)
			}
		}
	}
	for h := range in {
		require.True(t, p.has(h))
	}
	found := 0
	for range 100_000 {
		if p.has(r.Uint64()) {
			found++
		}
	}
	require.Less(t, found, 10)
	for _, h := range hashes {
		p.remove(h)
	}
	require.Zero(t, p.live)
	require.LessOrEqual(t, len(*p.slots.Load()), 1<<16)
}

func TestPresenceWhileItChanges(t *testing.T) {
	var p fingerprints
	const stays = 0xabcdef0123456789
	p.add(stays)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if !p.has(stays) {
						t.Error("lost")
						return
					}
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var hs []uint64
		for range 100 {
			hs = append(hs, r.Uint64())
			p.add(hs[len(hs)-1])
		}
		for _, h := range hs {
			p.remove(h)
		}
	}
	close(stop)
	wg.Wait()
}

// TestFingerprintsHaveRoom adds and removes: there is always a free slot to end a search, little is counted wrong, and room that nobody needs is given back.
func TestFingerprintsHaveRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var p fingerprints
	var in []uint64
	most, grown, last := 0, 0, p.slots.Load()
	for i := range 20_000 {
		if len(in) == 0 || r.IntN(1000) < 900-400*(i/10_000) && i < 19_000 { // more and more, then as many, then fewer
			in = append(in, r.Uint64())
			p.add(in[len(in)-1])
		} else {
			j := r.IntN(len(in))
			p.remove(in[j])
			in[j] = in[len(in)-1]
			in = in[:len(in)-1]
		}
		most = max(most, len(in))
		if slots := p.slots.Load(); slots != last {
			last = slots
			grown++
		}
	}
	for _, h := range in {
		p.remove(h)
	}
	slots := *p.slots.Load()
	full := 0
	for i := range slots {
		if slots[i].Load() != free {
			full++
		}
	}
	assert.Equal(t, full, p.full)
	assert.Zero(t, p.live)
	assert.Less(t, len(slots), fewest, "room for the %d that there were", most)
	assert.Less(t, grown, 40, "it is made anew when it has to")
}
