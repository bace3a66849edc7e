package push_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

var newYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func registered(nodes ...string) (rs []Registration) {
	for _, n := range nodes {
		rs = append(rs, Registration{Account: juliet, Key: Key{Service: "push.example.net", Node: n}, Enabled: newYear})
	}
	return rs
}

// The numbers of the default policy that are too large for the scenarios of testdata/rules.
func TestDefaultPolicy(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	offline := func(id string) bool {
		a.Handle(Offline{juliet, Stanza{ID: id}}, Facts{Now: newYear, Number: 1}, &d)
		return d.Notifies()
	}
	for i := range 1024 {
		require.True(t, offline(fmt.Sprint(i)))
	}
	for i := range 1024 {
		require.False(t, offline(fmt.Sprint(i)), "1024 stanzas are remembered")
	}
	assert.True(t, offline("one more"))
	assert.True(t, offline("0"))
	assert.False(t, offline("2"))

	a = NewAccount(juliet, nil, registered("n1"))
	for i := range uint64(40) {
		a.Handle(Offline{juliet, Stanza{}}, Facts{Now: newYear, Number: i}, &d)
	}
	n, ok := a.Begin(a.Due(newYear, nil, &d.Effects)[0], newYear, &d.Effects)
	require.True(t, ok)
	assert.Equal(t, 40, n.Count)
	assert.Len(t, n.Events, 32)
	assert.EqualValues(t, 8, n.Events[0])

	s := NewService(nil)
	for range 64 {
		ok, _ := s.Admit(newYear)
		require.True(t, ok)
	}
	ok, at := s.Admit(newYear)
	assert.False(t, ok)
	assert.Zero(t, at)
	assert.Equal(t, 64, s.InFlight())
}

// However much there is to remember and to wait for, what is kept stays small.
func TestMemoryIsBounded(t *testing.T) {
	a := NewAccount(juliet, &Policy{Remember: 100}, registered("n1"))
	var d Decision
	for i := range 10000 {
		a.Handle(Offline{juliet, Stanza{ID: fmt.Sprint(i)}}, Facts{Now: newYear, Number: uint64(i)}, &d)
		require.LessOrEqual(t, a.Sizes().Memory, 220)
		require.LessOrEqual(t, a.Sizes().Hashes, 200)
	}
	assert.Equal(t, Sizes{Marks: 100, Memory: a.Sizes().Memory, Parts: 1, Hashes: a.Sizes().Hashes}, a.Sizes())
	a.Abandon(ReasonClosed, &d.Effects)
	a.Prune(newYear.Add(time.Hour))
	assert.Zero(t, a.Sizes())

	// One session after another that ends with something waiting.
	for i := range 1000 {
		s := SessionID{Account: juliet, ID: fmt.Sprint(i)}
		f := Facts{Now: newYear, Number: uint64(i)}
		a.Handle(SessionOpen{Session: s}, f, &d)
		a.Handle(PushEnable{Session: s, Key: Key{Service: "push.example.net", Node: "n1"}}, f, &d)
		a.Handle(AckDelayed{s, []Stanza{{ID: fmt.Sprint(i, "a")}, {ID: fmt.Sprint(i, "b")}, {ID: fmt.Sprint(i, "c")}}}, f, &d)
		require.LessOrEqual(t, a.Sizes().Parts, 2)
		a.Handle(SessionClose{s}, f, &d)
		require.Equal(t, 1, a.Sizes().Parts)
		require.LessOrEqual(t, a.Sizes().Hashes, 200)
	}
}

func TestDisableNamesANodeOrAllOfAService(t *testing.T) {
	for k, want := range map[Key][]string{
		{Service: "push.example.net"}:             {"n1", "n2"},
		{Service: "push.example.net", Node: "n2"}: {"n2"},
		{Service: "push.example.org"}:             {""},
		{Service: "push.example.com"}:             nil,
	} {
		a := NewAccount(juliet, nil, append(registered("n1", "n2"), Registration{Account: juliet, Key: Key{Service: "push.example.org"}}))
		var d Decision
		a.Handle(PushDisable{Session: SessionID{Account: juliet}, Key: k}, Facts{Now: newYear}, &d)
		var removed []string
		for _, c := range d.Changes {
			assert.Equal(t, ChangeRemoved, c.Kind)
			removed = append(removed, c.Node)
		}
		assert.Equal(t, want, removed, "%v", k)
	}
}

// However often a publish fails, the wait stays within the policy.
func TestBackoffStaysWithinPolicy(t *testing.T) {
	for _, p := range []Policy{
		{}, {RetryMin: 1, RetryMax: 1}, {RetryMin: 7, RetryMax: 1 << 62}, {RetryMin: time.Second, RetryMax: time.Second},
		{RetryMin: 1 << 62, RetryMax: 1 << 62},
	} {
		p.Expire, p.MinInterval = 1<<62, -1
		lowest, highest := p.RetryMin, p.RetryMax
		if highest == 0 {
			lowest, highest = 5*time.Second, 5*time.Minute
		}
		const tenYears = 10 * 365 * 24 * time.Hour
		lowest, highest = min(lowest, tenYears), min(highest, tenYears)
		a := NewAccount(juliet, &p, registered("n1"))
		var d Decision
		a.Handle(Ping{Account: juliet}, Facts{Now: newYear}, &d)
		for try := 1; try < 200; try++ {
			keys := a.Due(newYear, nil, &d.Effects)
			require.Len(t, keys, 1)
			n, ok := a.Begin(keys[0], newYear, &d.Effects)
			require.True(t, ok)
			require.Equal(t, try, n.Try)
			res := a.End(keys[0], Reply{Missing: true}, newYear, &d.Effects)
			wait := float64(res.RetryAt.Sub(newYear))
			most := min(math.Ldexp(float64(lowest), try-1), float64(highest))
			require.LessOrEqual(t, wait, most, "try %d", try)
			require.GreaterOrEqual(t, wait, math.Floor(most/2)-1e6, "try %d", try)
			a.Flush(newYear)
		}
	}
}

// Handle keeps nothing of the event that it was given.
func TestHandleCopiesTheEvent(t *testing.T) {
	a := NewAccount(juliet, nil, nil)
	var d Decision
	options := []Field{{Var: "secret", Values: []string{"x"}}}
	a.Handle(PushEnable{Session: SessionID{Account: juliet}, Key: Key{Service: "push.example.net"}, Options: options}, Facts{Now: newYear}, &d)
	options[0].Var, options[0].Values[0] = "other", "y"
	assert.Equal(t, []Field{{Var: "secret", Values: []string{"x"}}}, a.Registrations()[0].Options)
}

// What a store gives for another account is not taken.
func TestRegistrationsOfOthersAreIgnored(t *testing.T) {
	others := registered("n1", "n2")
	others[1].Account = "romeo@example.com"
	a := NewAccount(juliet, nil, others)
	assert.Len(t, a.Registrations(), 1)
	var e Effects
	a.Load(others, newYear, &e)
	assert.Len(t, a.Registrations(), 1)
	assert.Empty(t, e)
}

// A Decision that is used again is the same as a new one.
func TestDecisionIsReset(t *testing.T) {
	a, b := NewAccount(juliet, nil, registered("n1", "n2")), NewAccount(juliet, nil, registered("n1", "n2"))
	var again Decision
	for i, ev := range []Event{
		Offline{juliet, message("m1")},
		Offline{juliet, message("m1")},
		PushDisable{Key: Key{Service: "push.example.net", Node: "n1"}},
		SessionClose{SessionID{Account: juliet, ID: "s1"}},
		Ping{Account: juliet},
		AccountRemoved{juliet},
		Ping{Account: juliet},
	} {
		var fresh Decision
		f := Facts{Now: newYear, Number: uint64(i)}
		a.Handle(ev, f, &fresh)
		b.Handle(ev, f, &again)
		assert.Equal(t, shown(fresh), shown(again))
	}
}

func shown(d Decision) string {
	return fmt.Sprintf("%s %v %+v %+v %+v %+v", d.Account, d.Reason, d.Verdicts, d.Changes, d.Advice, d.Drops)
}

// What somebody else has notified of, notifies no more; what waits goes out all the same.
func TestNotified(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1", "n2"))
	k := Key{Service: "push.example.net", Node: "n1"}
	var d Decision
	a.Handle(Offline{juliet, Stanza{ID: "m1", Class: ClassImportant}}, Facts{Now: newYear, Number: 1}, &d)
	assert.True(t, a.Notified(k, newYear, "m1", "m2", "m2", ""))
	assert.False(t, a.Notified(Key{Service: "push.example.net", Node: "n3"}, newYear, "m2"))
	a.Handle(Offline{juliet, Stanza{ID: "m2", Class: ClassImportant}}, Facts{Now: newYear, Number: 2}, &d)
	assert.Equal(t, []bool{false, true}, []bool{d.Verdicts[0].Notify, d.Verdicts[1].Notify})
	assert.False(t, a.Idle(newYear.Add(10*time.Minute)), "something waits")
	a.Abandon(ReasonClosed, &d.Effects)
	assert.Equal(t, 0, a.Status(newYear).Registrations[0].Unread)

	b := NewAccount(juliet, nil, registered("n1"))
	b.Notified(k, newYear, "m1")
	assert.False(t, b.Idle(newYear.Add(10*time.Minute-1)), "it would be forgotten")
	assert.True(t, b.Idle(newYear.Add(10*time.Minute)))
}

// What waits for a reply is not idle.
func TestInFlightIsNotIdle(t *testing.T) {
	a := NewAccount(juliet, &Policy{RememberFor: time.Second, MinInterval: -1}, registered("n1"))
	var d Decision
	a.Handle(Ping{Account: juliet}, Facts{Now: newYear}, &d)
	k := a.Due(newYear, nil, &d.Effects)[0]
	_, ok := a.Begin(k, newYear, &d.Effects)
	require.True(t, ok)
	assert.False(t, a.Prune(newYear.Add(time.Hour)))
	a.End(k, Reply{}, newYear.Add(time.Hour), &d.Effects)
	assert.True(t, a.Prune(newYear.Add(time.Hour)))
}

// An event that notifies nobody allocates nothing.
func TestNothingIsAllocatedForNobody(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	a.Handle(SessionOpen{Session: phoneSession}, Facts{Now: newYear}, &d)
	a.Handle(PushEnable{Session: phoneSession, Key: Key{Service: "push.example.net", Node: "n1"}}, Facts{Now: newYear}, &d)
	e := benchEngine(t, Config{})
	handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
	st := Stanza{ID: "m1", From: "romeo@example.net", To: juliet, Class: ClassImportant}
	for _, ev := range []Event{
		ArchiveAdded{juliet, st}, Acknowledged{phoneSession, []string{"m1", "m2"}}, AckDelayed{phoneSession, nil}, HibernationEnd{phoneSession},
	} {
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if err := CheckEvent(ev); err != nil {
				t.Error(err)
			}
		}), "CheckEvent: %s", ev.Name())
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			a.Handle(ev, Facts{Now: newYear}, &d)
			assert.False(t, d.Notifies())
		}), "Account: %s", ev.Name())
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if err := e.HandleTo(t.Context(), ev, &d); err != nil || d.Notifies() {
				t.Error(err, d)
			}
		}), "Engine: %s", ev.Name())
	}
	var nobody Decision
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if err := e.HandleTo(t.Context(), Offline{"nurse@example.com", st}, &nobody); err != nil || nobody.Reason != ReasonNoRegistration {
			t.Error(err, nobody.Reason)
		}
	}))
	require.NoError(t, e.Close(t.Context()))
}
