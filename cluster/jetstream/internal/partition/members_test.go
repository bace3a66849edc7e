package partition

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func at(d time.Duration) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(d)
}

// A node that is heard by another is not dead for those that do not hear it, for as long as it would not be if they did.
func TestSeenByAnother(t *testing.T) {
	const lease = 4 * time.Second
	a, b, c := Origin{"a", 1}, Origin{"b", 1}, Origin{"c", 1}
	m := NewMembers(a, lease, at(0))
	third := NewMembers(c, lease, at(0))
	third.Heard(at(0), NewMembers(b, lease, at(0)).Beat(at(0), false))
	for _, d := range []time.Duration{time.Second, 3 * time.Second, 3900 * time.Millisecond} {
		m.Heard(at(d), third.Beat(at(d), false))
		assert.Equal(t, []string{"a", "b", "c"}, m.Live(at(d)), "%v", d)
		assert.Equal(t, d, m.Silent(at(d), "b"))
		assert.True(t, m.Alive(at(d), b))
	}
	m.Heard(at(4500*time.Millisecond), third.Beat(at(4500*time.Millisecond), false))
	assert.Equal(t, []string{"a", "c"}, m.Live(at(4500*time.Millisecond)), "nobody has heard it for a lease")
	assert.Empty(t, m.Beat(at(time.Second), false).Seen[1:], "what is known by hearsay is not passed on: two could keep a third alive between them")
	// A later life of b, and then a word of the former one that is late.
	m.Heard(at(5*time.Second), &Beat{Origin: c, Version: 1, Seen: []Seen{{Origin: Origin{"b", 2}, Age: time.Second}}})
	m.Heard(at(5*time.Second), &Beat{Origin: c, Version: 1, Seen: []Seen{{Origin: b}, {Origin: a}}})
	assert.False(t, m.Alive(at(5*time.Second), b))
	assert.True(t, m.Alive(at(5*time.Second), Origin{"b", 2}))
	// One that has left stays gone.
	m.Heard(at(6*time.Second), &Beat{Origin: Origin{"b", 2}, Version: 1, Leaving: true, Gone: true})
	m.Heard(at(6*time.Second), &Beat{Origin: c, Version: 1, Seen: []Seen{{Origin: Origin{"b", 2}}}})
	assert.False(t, m.Alive(at(6*time.Second), Origin{"b", 2}))
}

// A node that joins has no share until it takes part, or its partitions would have no owner meanwhile. It has to be told of registrations all the same. Nodes that start all at
// once count on each other.
func TestJoining(t *testing.T) {
	const lease = 4 * time.Second
	old, fresh := NewMembers(Origin{"a", 1}, lease, at(-time.Hour)), NewMembers(Origin{"c", 1}, lease, at(0))
	b := NewMembers(Origin{"b", 1}, lease, at(0))
	beat := b.Beat(at(0), false)
	beat.Joining = true
	for _, m := range []*Members{old, fresh} {
		m.Heard(at(0), beat)
	}
	assert.Equal(t, []string{"a"}, old.Live(at(0)))
	assert.Equal(t, []string{"b"}, old.May(at(0)))
	assert.True(t, old.Alive(at(0), b.Me()), "its sessions count")
	assert.False(t, old.Few(at(0)))
	// One that joins does not make a majority: it has not said yet that it hears the node whose link to this one is cut.
	cut := NewMembers(Origin{"e", 1}, lease, at(-time.Hour))
	cut.Heard(at(-20*time.Second), &Beat{Origin: Origin{"f", 1}, Version: 1})
	cut.Heard(at(0), beat)
	assert.True(t, cut.Few(at(0)))
	assert.Equal(t, []string{"b", "c"}, fresh.Live(at(0)))
	assert.Equal(t, []string{"c"}, fresh.Live(at(5*time.Second)))
	// It is so for one that hears of it from another node.
	end := NewMembers(Origin{"d", 1}, lease, at(-time.Hour))
	end.Heard(at(time.Second), old.Beat(at(time.Second), false))
	assert.Equal(t, []string{"a", "d"}, end.Live(at(time.Second)))
	for _, m := range []*Members{old, fresh} {
		m.Heard(at(2*time.Second), b.Beat(at(2*time.Second), false))
	}
	assert.Equal(t, []string{"a", "b"}, old.Live(at(2*time.Second)))
	end.Heard(at(2*time.Second), fresh.Beat(at(2*time.Second), false))
	end.Heard(at(3*time.Second), old.Beat(at(3*time.Second), false))
	assert.Equal(t, []string{"a", "b", "c", "d"}, end.Live(at(3*time.Second)))
}

// A node that was stopped has heard nobody meanwhile. It takes nobody for dead because of that, and so nobody has to begin another life; but messages that were left to sessions of a
// node since that was heard of last are decided again if it is dead indeed.
func TestStoppedItself(t *testing.T) {
	const lease = 4 * time.Second
	b, c := Origin{"b", 1}, Origin{"c", 1}
	m := NewMembers(Origin{"a", 1}, lease, at(0))
	m.Heard(at(0), &Beat{Origin: b, Version: 1})
	m.Heard(at(0), &Beat{Origin: c, Version: 1})
	for d := time.Duration(0); d <= 2*time.Second; d += lease / 8 {
		m.Live(at(d))
	}
	const wakes = 20 * time.Second
	assert.True(t, m.Alive(at(wakes), b))
	assert.Equal(t, []string{"a", "b", "c"}, m.Live(at(wakes)))
	assert.Empty(t, m.Beat(at(wakes), false).Dead)
	assert.Equal(t, []string{"b", "c"}, m.May(at(wakes)), "they may go by what they knew")
	assert.Equal(t, wakes, m.Silent(at(wakes), "b"))
	assert.True(t, m.Few(at(wakes)), "it does not know how it is now")
	m.Heard(at(wakes+time.Second), &Beat{Origin: c, Version: 1})
	for d := wakes; d <= wakes+2*time.Second; d += lease / 8 {
		m.Live(at(d))
	}
	assert.False(t, m.Alive(at(wakes+2*time.Second), b), "it had two seconds left before")
	assert.True(t, m.Alive(at(wakes+2*time.Second), c))
	assert.Equal(t, []Origin{b}, m.Beat(at(wakes+2*time.Second), false).Dead)
	// Who was dead before stays so.
	assert.False(t, m.Alive(at(2*wakes), b))
}

// Nodes with different leases: a node with a short one waits for the others as long as they say.
func TestLeases(t *testing.T) {
	short, long := NewMembers(Origin{"a", 1}, time.Second, at(0)), NewMembers(Origin{"b", 1}, 10*time.Second, at(0))
	short.Heard(at(0), long.Beat(at(0), false))
	long.Heard(at(0), short.Beat(at(0), false))
	assert.Equal(t, 10*time.Second, short.Lease())
	assert.Equal(t, []string{"a", "b"}, short.Live(at(9*time.Second)))
	short.Heard(at(9*time.Second), &Beat{Origin: Origin{"b", 1}, Gone: true, Leaving: true, Lease: 10 * time.Second})
	require.Equal(t, time.Second, short.Lease(), "it has left")
}

// Lives of one name have numbers that grow, whatever the clock says.
func TestNextLife(t *testing.T) {
	first := NextLife(0, at(0))
	m := NewMembers(Origin{"a", first}, time.Second, at(0))
	for range 1000 {
		m.Begin()
	}
	assert.Greater(t, NextLife(first, at(-24*time.Hour)), m.Me().Incarnation)
	assert.Equal(t, uint64(at(time.Hour).UnixNano()), NextLife(first, at(time.Hour)))
}
