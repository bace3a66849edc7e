package push

import (
	"hash/maphash"
	"math"
	"slices"
	"time"
)

// memory holds which stanzas a registration was notified of, as hashes: the newest of them, up to a number and an age (rule R11).
type memory struct {
	index map[uint64]uint32 // hash to sequence number; nil as long as there are few
	ring  []remembered      // oldest first, from head on; entry i has the number first+i-head
	head  int
	first uint32
}

type remembered struct {
	hash uint64
	at   int64 // seconds, or forgotten
}

const (
	// fewRemembered is how many are looked through one by one. Most registrations never have more, and a map is larger than that many.
	fewRemembered = 16
	forgotten     = math.MinInt64
)

// hashSeed makes the hashes unguessable, so that nobody can choose a stanza ID that suppresses another's notification.
var hashSeed = maphash.MakeSeed()

func hashID(id string) uint64 { return maphash.String(hashSeed, id) }

func (m *memory) has(h uint64) bool {
	if m.index == nil {
		return m.find(h) >= 0
	}
	_, ok := m.index[h]
	return ok
}

// find returns where h is in the ring, or a negative number.
func (m *memory) find(h uint64) int {
	i := slices.IndexFunc(m.ring[m.head:], func(r remembered) bool { return r.hash == h && r.at != forgotten })
	if i < 0 {
		return i
	}
	return m.head + i
}

// add remembers h, which it does not have, and forgets the oldest beyond limit.
func (m *memory) add(h uint64, now time.Time, limit int) {
	if m.len() >= limit {
		m.pop()
	}
	if m.head > 16 && m.head > len(m.ring)/2 {
		m.ring = m.ring[:copy(m.ring, m.ring[m.head:])]
		m.head = 0
	}
	m.ring = append(m.ring, remembered{h, now.Unix()})
	switch {
	case m.index != nil:
		m.index[h] = m.first + uint32(m.len()) - 1
	case m.len() > fewRemembered:
		m.index = make(map[uint64]uint32, m.len())
		for i, r := range m.ring[m.head:] {
			if r.at != forgotten {
				m.index[r.hash] = m.first + uint32(i)
			}
		}
	}
}

// forget takes one back that was never sent.
func (m *memory) forget(h uint64) {
	if m.index != nil {
		delete(m.index, h)
	} else if i := m.find(h); i >= 0 {
		m.ring[i].at = forgotten
	}
}

// prune forgets what is older than age.
func (m *memory) prune(now time.Time, age time.Duration) {
	oldest := now.Add(-age).Unix()
	for m.len() > 0 && m.ring[m.head].at < oldest {
		m.pop()
	}
	if m.len() == 0 {
		*m = memory{}
	}
}

func (m *memory) len() int { return len(m.ring) - m.head }

func (m *memory) pop() {
	h := m.ring[m.head].hash
	if n, ok := m.index[h]; ok && n == m.first { // else it was forgotten, or remembered again later
		delete(m.index, h)
	}
	m.head++
	m.first++
}
