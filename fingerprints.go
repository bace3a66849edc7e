package push

import (
	"hash/maphash"
	"sync/atomic"
)

// hashSeed makes the hashes of names unguessable, so that nobody can choose an account that slows others down.
var hashSeed = maphash.MakeSeed()

func hashID(id string) uint64 { return maphash.String(hashSeed, id) }

// fingerprints tells without a lock that a key is surely not in a map: most events are about accounts that are in none, and two cores that asked a
// locked map would wait for each other's cache lines. It is a set of fingerprints, of which a key may share its own with others. Those who
// change the map hold its lock when they add and remove; has may be called at any time.
type fingerprints struct {
	slots atomic.Pointer[[]atomic.Uint32]
	// full counts the slots that are not free, live those that hold a fingerprint.
	full, live int
}

// What a slot holds that has no fingerprint.
const (
	free uint32 = iota
	removed
	firstFingerprint
)

func fingerprint(hash uint64) uint32 { return max(uint32(hash>>32), firstFingerprint) }

// has returns false if nothing with this hash was added and not removed.
func (p *fingerprints) has(hash uint64) bool {
	slots := p.slots.Load()
	if slots == nil {
		return false
	}
	f := fingerprint(hash)
	for i := int(f); ; i++ {
		switch (*slots)[i&(len(*slots)-1)].Load() {
		case f:
			return true
		case free:
			return false
		}
	}
}

// add puts a hash in, once more if it is there.
func (p *fingerprints) add(hash uint64) {
	slots := p.slots.Load()
	if slots == nil || 4*(p.full+1) > 3*len(*slots) {
		slots = p.grow(slots)
	}
	p.put(*slots, fingerprint(hash))
	p.live++
}

func (p *fingerprints) put(slots []atomic.Uint32, f uint32) {
	for i := int(f); ; i++ {
		s := &slots[i&(len(slots)-1)]
		switch s.Load() {
		case free:
			p.full++
			s.Store(f)
			return
		case removed:
			s.Store(f)
			return
		}
	}
}

// grow makes room for twice what there is, which may be less room than before. Who reads the old slots misses only what is added from now on.
func (p *fingerprints) grow(old *[]atomic.Uint32) *[]atomic.Uint32 {
	size := 8
	for size < 2*(p.live+1) {
		size *= 2
	}
	slots := make([]atomic.Uint32, size)
	p.full = 0
	if old != nil {
		for i := range *old {
			if f := (*old)[i].Load(); f >= firstFingerprint {
				p.put(slots, f)
			}
		}
	}
	p.slots.Store(&slots)
	return &slots
}

// remove takes a hash out that was added.
func (p *fingerprints) remove(hash uint64) {
	slots := *p.slots.Load()
	f := fingerprint(hash)
	for i := int(f); ; i++ {
		if s := &slots[i&(len(slots)-1)]; s.Load() == f {
			s.Store(removed)
			p.live--
			if len(slots) >= fewest && 8*p.live < len(slots) {
				p.grow(p.slots.Load())
			}
			return
		}
	}
}
