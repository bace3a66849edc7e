package push_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

func reg(service, node string, age time.Duration) Registration {
	return Registration{Account: juliet, Key: Key{Service: service, Node: node}, Client: "c", Enabled: newYear.Add(-age), Options: []Field{{Var: "secret", Type: "hidden", Values: []string{"x"}}}}
}

// An enable that says what is stored already is no write, until its time matters: after a day, or when it decides which of too many goes.
func TestEnrollWritesWhatChanged(t *testing.T) {
	old := reg("a.example", "n1", time.Hour)
	old.Health = Health{Errors: 2, Succeeded: newYear.Add(-time.Minute)}
	other := reg("b.example", "n1", 2*time.Hour)
	same := func(change func(r *Registration)) Registration {
		r := reg("a.example", "n1", 0)
		if change != nil {
			change(&r)
		}
		return r
	}
	for _, c := range []struct {
		what  string
		r     Registration
		limit int
		also  []Registration
		write bool
	}{
		{"the same", same(nil), 5, nil, false},
		{"the same, at the same time", same(func(r *Registration) { r.Enabled = old.Enabled }), 5, nil, false},
		{"earlier, from a store that was behind", same(func(r *Registration) { r.Enabled = old.Enabled.Add(-time.Nanosecond) }), 5, nil, true},
		{"a little less than a day later", same(func(r *Registration) { r.Enabled = old.Enabled.Add(RenewAfter - 1) }), 5, nil, false},
		{"a day later", same(func(r *Registration) { r.Enabled = old.Enabled.Add(RenewAfter) }), 5, nil, true},
		{"beside one that was enabled before", same(nil), 5, []Registration{other}, false},
		{"after one that was enabled since", same(nil), 5, []Registration{reg("b.example", "n1", time.Minute)}, true},
		{"the same where there is no limit", same(nil), 0, []Registration{reg("b.example", "n1", time.Minute)}, false},
		{"another client", same(func(r *Registration) { r.Client = "d" }), 5, nil, true},
		{"other wishes", same(func(r *Registration) { r.Wishes = &wishes.Wishes{Away: true} }), 5, nil, true},
		{"no options", same(func(r *Registration) { r.Options = nil }), 5, nil, true},
		{"options without a field", same(func(r *Registration) { r.Options = []Field{} }), 5, nil, true},
		{"another option", same(func(r *Registration) { r.Options[0].Var = "token" }), 5, nil, true},
		{"another type", same(func(r *Registration) { r.Options[0].Type = "" }), 5, nil, true},
		{"another value", same(func(r *Registration) { r.Options[0].Values = []string{"y"} }), 5, nil, true},
		{"a health of its own", same(func(r *Registration) { r.Health = Health{Errors: 1} }), 5, nil, true},
	} {
		stored, write, evicted := Enroll(append([]Registration{old}, c.also...), c.r, c.limit)
		assert.Equal(t, c.write, write, c.what)
		assert.Empty(t, evicted, c.what)
		want := c.r
		if !write {
			want = old
		} else if c.r.Health == (Health{}) {
			want.Health = old.Health // an enable says nothing about that
		}
		assert.Equal(t, want, stored, c.what)
	}
	dead := old
	dead.Health.Disabled, dead.Health.Cause = newYear, "gone"
	stored, write, _ := Enroll([]Registration{dead}, same(nil), 5)
	assert.True(t, write)
	assert.Equal(t, Health{Succeeded: old.Health.Succeeded}, stored.Health, "a tombstone begins anew")
	// Nothing and empty options are both no option.
	bare1, bare2 := same(func(r *Registration) { r.Options = nil }), same(func(r *Registration) { r.Options = nil })
	_, write, _ = Enroll([]Registration{bare1}, bare2, 5)
	assert.False(t, write)
	bare2.Options = []Field{}
	_, write, _ = Enroll([]Registration{bare1}, bare2, 5)
	assert.True(t, write, "a form without fields is a form")
}

// What goes for the account to have no more than it may: the device's others with Push 2.0, tombstones, then those that were enabled longest ago.
func TestEnrollEvicts(t *testing.T) {
	key := func(r Registration) Key { return r.Key }
	tablet := Push2Node + "tablet"
	here, there, third := reg("a.example", tablet, time.Hour), reg("b.example", tablet, 0), reg("a.example", Push2Node+"phone", time.Hour)
	_, write, evicted := Enroll([]Registration{here, third}, there, 2)
	assert.True(t, write)
	assert.Equal(t, []Key{key(here)}, evicted, "it is at another service now, which makes room for it")

	oldest, older, dead := reg("c.example", "n1", 3*time.Hour), reg("b.example", "n1", 2*time.Hour), reg("a.example", "n1", time.Hour)
	dead.Health.Disabled = newYear
	next := reg("d.example", "n1", 0)
	_, _, evicted = Enroll([]Registration{dead, older, oldest}, next, 4)
	assert.Empty(t, evicted)
	_, _, evicted = Enroll([]Registration{dead, older, oldest}, next, 3)
	assert.Equal(t, []Key{key(dead)}, evicted)
	_, _, evicted = Enroll([]Registration{dead, older, oldest}, next, 1)
	assert.Equal(t, []Key{key(dead), key(oldest), key(older)}, evicted)
	_, _, evicted = Enroll([]Registration{dead, older, oldest}, next, 0)
	assert.Empty(t, evicted, "no limit")
	again := oldest // it is the newest now
	again.Enabled = newYear
	stored, write, evicted := Enroll([]Registration{older, oldest}, again, 1)
	require.True(t, write)
	assert.Equal(t, again, stored)
	assert.Equal(t, []Key{key(older)}, evicted)
	tie := reg("b.example", "n2", 2*time.Hour)
	assert.Equal(t, []Key{key(older)}, Evict([]Registration{tie, older}, 1))
}

// An account says after every enable what a store has that did what Enroll says, so that neither has to ask the other: which registrations there are, and when
// each was enabled.
func TestAccountEnrollsAsStoresDo(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		limit := []int{-1, 2, 3}[seed%3]
		a := NewAccount(juliet, &Policy{MaxRegistrations: limit}, nil)
		var d Decision
		var stored []Registration
		now := newYear
		for range 40 {
			now = now.Add(time.Duration(r.IntN(3)) * 10 * time.Hour)
			s := SessionID{Account: juliet, ID: fmt.Sprint("s", r.IntN(2))}
			a.Handle(SessionOpen{Session: s, Client: s.ID}, Facts{Now: now}, &d)
			k := Key{Service: fmt.Sprintf("push%d.example.net", r.IntN(2)), Node: fmt.Sprint("n", r.IntN(3))}
			if r.IntN(3) == 0 {
				k.Node = Push2Node + "phone"
			}
			a.Handle(PushEnable{Session: s, Key: k}, Facts{Now: now}, &d)
			n, _, evicted := Enroll(stored, Registration{Account: juliet, Key: k, Client: s.ID, Enabled: now}, limit)
			stored = slices.DeleteFunc(stored, func(o Registration) bool { return o.Key == k || slices.Contains(evicted, o.Key) })
			if !slices.Contains(evicted, k) { // as it is if others were enabled at the same moment
				stored = append(stored, n)
			}
			slices.SortFunc(stored, func(a, b Registration) int { return a.Key.Compare(b.Key) })
			require.Equal(t, stored, a.Registrations(), "seed %d", seed)
		}
	}
}

// TestUpdateTakesBack: errors that are not to count any more go, as far as they were counted, whoever else took them back.
func TestUpdateTakesBack(t *testing.T) {
	h := Health{Errors: 3, Refusals: 1}
	h = Update{Errors: -2, Refusals: -1}.Apply(h)
	assert.Equal(t, Health{Errors: 1}, h)
	h = Update{Errors: -2, Refusals: -1}.Apply(h)
	assert.Equal(t, Health{}, h)
}
