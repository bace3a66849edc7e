package push

import (
	"math"
	"time"
)

// notified holds which stanzas a registration was notified of, as hashes: the newest of them, up to a number and an age (rule R11).
type notified struct {
	ring []remembered // oldest first, from the index's head on
	// index is nil as long as there are few: most registrations never have more, and are looked through one by one.
	index *index
}

// index finds a hash in a long ring.
type index struct {
	head int
	// table is open addressing with linear probing, since the hashes are random already. A slot holds the place in the ring plus one; zero is free. Its
	// size is a power of two, at least twice the number of hashes.
	table []uint32
}

type remembered struct {
	hash uint64 // with counts
	at   int64  // seconds, or forgotten
}

// The lowest bits of a stanza's hash say something about it. A hash without them is never zero.
const (
	// counts, in what is remembered: it is in the registration's number of unread messages.
	counts = 1
	// classBits, in what waits, is its class; withdrawn: it is in flight, and need not be tried again.
	classBits = 3
	withdrawn = 4

	hashFlags = 7
)

// hash returns the hash of a stanza's ID, which is zero if it has none.
func (a *Account) hash(id string) uint64 {
	if id == "" {
		return 0
	}
	if a.key == (hashKey{}) {
		a.key = newHashKey()
	}
	if h := a.key.sipHash(id) &^ hashFlags; h != 0 {
		return h
	}
	return hashFlags + 1
}

const (
	// fewRemembered is how many are looked through one by one.
	fewRemembered = 16
	forgotten     = math.MinInt64
)

func (m *notified) has(h uint64) bool { return m.entry(h) != nil }

// entry returns what is remembered of h, or nil.
func (m *notified) entry(h uint64) *remembered {
	if m.index == nil {
		for i := range m.ring {
			if r := &m.ring[i]; r.hash&^hashFlags == h && r.at != forgotten {
				return r
			}
		}
		return nil
	}
	if n := m.index.table[m.find(h)]; n != 0 {
		return &m.ring[n-1]
	}
	return nil
}

// all returns what is remembered, and what was forgotten in between.
func (m *notified) all() []remembered {
	if m.index == nil {
		return m.ring
	}
	return m.ring[m.index.head:]
}

// find returns the slot of h, or the free one where it would be.
func (m *notified) find(h uint64) uint64 {
	table := m.index.table
	mask := uint64(len(table) - 1)
	slot := h >> 3 & mask
	for table[slot] != 0 && m.ring[table[slot]-1].hash&^hashFlags != h {
		slot = (slot + 1) & mask
	}
	return slot
}

// add remembers h, which it does not have and which may have flags, and forgets the oldest beyond limit. It tells whether that one counted.
func (m *notified) add(h uint64, now time.Time, limit int) (counted bool) {
	if m.len() >= limit {
		counted = m.pop()
	}
	if x := m.index; x != nil && x.head > 16 && x.head > len(m.ring)/2 {
		m.slide()
	}
	if len(m.ring) == cap(m.ring) {
		m.ring = grown(m.ring)
	}
	m.ring = append(m.ring, remembered{h, now.Unix()})
	switch {
	case m.index == nil && len(m.ring) > fewRemembered, m.index != nil && 2*m.len() > len(m.index.table):
		m.grow()
	case m.index != nil:
		m.index.table[m.find(h&^hashFlags)] = uint32(len(m.ring))
	}
	return counted
}

// forget takes one back that was never sent, and does not count.
func (m *notified) forget(h uint64) {
	r := m.entry(h)
	if r == nil {
		return
	}
	if m.index != nil {
		m.free(m.find(h))
	}
	r.at = forgotten
}

// free empties a slot, and moves those behind it that could not be found any more.
func (m *notified) free(slot uint64) {
	table := m.index.table
	mask := uint64(len(table) - 1)
	for next := (slot + 1) & mask; table[next] != 0; next = (next + 1) & mask {
		if home := m.ring[table[next]-1].hash >> 3 & mask; (next-home)&mask >= (next-slot)&mask {
			table[slot] = table[next]
			slot = next
		}
	}
	table[slot] = 0
}

// slide takes back the space before head.
func (m *notified) slide() {
	x := m.index
	for i, n := range x.table {
		if n != 0 {
			x.table[i] = n - uint32(x.head)
		}
	}
	m.ring = m.ring[:copy(m.ring, m.ring[x.head:])]
	x.head = 0
}

// grow makes an index that is larger, and large enough.
func (m *notified) grow() {
	x := m.index
	if x == nil {
		x = new(index)
		m.index = x
	}
	size := max(2*len(x.table), 4*fewRemembered)
	for size < 2*m.len() {
		size *= 2
	}
	x.table = make([]uint32, size)
	for i := x.head; i < len(m.ring); i++ {
		if r := m.ring[i]; r.at != forgotten {
			x.table[m.find(r.hash&^hashFlags)] = uint32(i + 1)
		}
	}
}

// prune forgets what is older than age, and returns how many of those counted.
func (m *notified) prune(now time.Time, age time.Duration) (counted int32) {
	oldest := now.Add(-age).Unix()
	for m.len() > 0 && m.all()[0].at < oldest {
		if m.pop() {
			counted++
		}
	}
	if m.len() == 0 {
		*m = notified{}
	}
	return counted
}

// count is the number of those that are remembered.
func (m *notified) count() (n int) {
	for _, r := range m.all() {
		if r.at != forgotten {
			n++
		}
	}
	return n
}

// len counts those that were forgotten, too.
func (m *notified) len() int { return len(m.all()) }

// pop forgets the oldest, and tells whether it counted.
func (m *notified) pop() (counted bool) {
	oldest := m.all()[0]
	counted = oldest.hash&counts != 0
	x := m.index
	if x == nil {
		m.ring = m.ring[:copy(m.ring, m.ring[1:])]
		return counted
	}
	if oldest.at != forgotten {
		m.free(m.find(oldest.hash &^ hashFlags))
	}
	x.head++
	return counted
}
