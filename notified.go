package push

import (
	"math"
	"slices"
	"time"
)

// notified holds which stanzas a registration was notified of, as hashes: the newest of them, up to a number and an age (rule R11).
type notified struct {
	ring []remembered // oldest first, from head on
	head int
	// table finds a hash in the ring: open addressing with linear probing, since the hashes are random already. A slot holds the place in the
	// ring plus one; zero is free. Its size is a power of two, at least twice the number of hashes. It is nil as long as there are few.
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
	// fewRemembered is how many are looked through one by one. Most registrations never have more.
	fewRemembered = 16
	forgotten     = math.MinInt64
)

func (m *notified) has(h uint64) bool {
	if m.table == nil {
		return m.place(h) > 0
	}
	slot := m.find(h)
	return m.table[slot] != 0
}

// place looks for h in the ring, and returns where it is plus one, or zero.
func (m *notified) place(h uint64) int {
	i := slices.IndexFunc(m.ring[m.head:], func(r remembered) bool { return r.hash&^hashFlags == h && r.at != forgotten })
	if i < 0 {
		return 0
	}
	return m.head + i + 1
}

// find returns the slot of h, or the free one where it would be.
func (m *notified) find(h uint64) uint64 {
	mask := uint64(len(m.table) - 1)
	slot := h >> 3 & mask
	for m.table[slot] != 0 && m.ring[m.table[slot]-1].hash&^hashFlags != h {
		slot = (slot + 1) & mask
	}
	return slot
}

// entry returns what is remembered of h, or nil.
func (m *notified) entry(h uint64) *remembered {
	n := uint32(0)
	if m.table == nil {
		n = uint32(m.place(h))
	} else {
		n = m.table[m.find(h)]
	}
	if n == 0 {
		return nil
	}
	return &m.ring[n-1]
}

// add remembers h, which it does not have and which may have flags, and forgets the oldest beyond limit.
func (m *notified) add(h uint64, now time.Time, limit int) {
	if m.len() >= limit {
		m.pop()
	}
	if m.head > 16 && m.head > len(m.ring)/2 {
		m.slide()
	}
	m.ring = append(m.ring, remembered{h, now.Unix()})
	switch {
	case 2*m.len() > len(m.table) && m.len() > fewRemembered:
		m.grow()
	case m.table != nil:
		m.table[m.find(h&^hashFlags)] = uint32(len(m.ring))
	}
}

// forget takes one back that was never sent.
func (m *notified) forget(h uint64) {
	if m.table == nil {
		if n := m.place(h); n > 0 {
			m.ring[n-1].at = forgotten
		}
		return
	}
	slot := m.find(h)
	if n := m.table[slot]; n != 0 {
		m.free(slot)
		m.ring[n-1].at = forgotten
	}
}

// free empties a slot, and moves those behind it that could not be found any more.
func (m *notified) free(slot uint64) {
	mask := uint64(len(m.table) - 1)
	for next := (slot + 1) & mask; m.table[next] != 0; next = (next + 1) & mask {
		if home := m.ring[m.table[next]-1].hash >> 3 & mask; (next-home)&mask >= (next-slot)&mask {
			m.table[slot] = m.table[next]
			slot = next
		}
	}
	m.table[slot] = 0
}

// slide takes back the space before head.
func (m *notified) slide() {
	for i, n := range m.table {
		if n != 0 {
			m.table[i] = n - uint32(m.head)
		}
	}
	m.ring = m.ring[:copy(m.ring, m.ring[m.head:])]
	m.head = 0
}

// grow makes a table that is larger, and large enough.
func (m *notified) grow() {
	size := max(2*len(m.table), 4*fewRemembered)
	for size < 2*m.len() {
		size *= 2
	}
	m.table = make([]uint32, size)
	for i := m.head; i < len(m.ring); i++ {
		if r := m.ring[i]; r.at != forgotten {
			m.table[m.find(r.hash&^hashFlags)] = uint32(i + 1)
		}
	}
}

// prune forgets what is older than age.
func (m *notified) prune(now time.Time, age time.Duration) {
	oldest := now.Add(-age).Unix()
	for m.len() > 0 && m.ring[m.head].at < oldest {
		m.pop()
	}
	if m.len() == 0 {
		*m = notified{}
	}
}

// len counts those that were forgotten, too.
func (m *notified) len() int { return len(m.ring) - m.head }

func (m *notified) pop() {
	if r := m.ring[m.head]; m.table != nil && r.at != forgotten {
		m.free(m.find(r.hash &^ hashFlags))
	}
	m.head++
}
