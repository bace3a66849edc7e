package push

import (
	"hash/maphash"
	"time"
)

// memory holds which stanzas a registration was notified of, as hashes: the newest of them, up to a number and an age (rule R11).
type memory struct {
	index map[uint64]uint32 // hash to sequence number
	ring  []remembered      // oldest first, from head on; entry i has the number first+i-head
	head  int
	first uint32
}

type remembered struct {
	hash uint64
	at   int64 // seconds
}

// hashSeed makes the hashes unguessable, so that nobody can choose a stanza ID that suppresses another's notification.
var hashSeed = maphash.MakeSeed()

func hashID(id string) uint64 { return maphash.String(hashSeed, id) }

func (m *memory) has(h uint64) bool {
	_, ok := m.index[h]
	return ok
}

// add remembers h, which it does not have, and forgets the oldest beyond limit.
func (m *memory) add(h uint64, now time.Time, limit int) {
	if m.index == nil {
		m.index = make(map[uint64]uint32)
	}
	if m.len() >= limit {
		m.pop()
	}
	if m.head > 16 && m.head > len(m.ring)/2 {
		m.ring = m.ring[:copy(m.ring, m.ring[m.head:])]
		m.head = 0
	}
	m.index[h] = m.first + uint32(m.len())
	m.ring = append(m.ring, remembered{h, now.Unix()})
}

// forget takes one back that was never sent.
func (m *memory) forget(h uint64) { delete(m.index, h) }

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
