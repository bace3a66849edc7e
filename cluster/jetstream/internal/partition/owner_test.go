package partition

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

// script is a World that does nothing by itself: it notes what is asked, and the test answers.
type script struct {
	asked    []string
	appended []byte
	prev     uint64
	shown    []Out
}

func (s *script) Tail() { s.asked = append(s.asked, "tail") }
func (s *script) Append(data []byte, prev uint64) {
	s.asked, s.appended, s.prev = append(s.asked, "append"), data, prev
}
func (s *script) Load(uint64)                    { s.asked = append(s.asked, "load") }
func (s *script) Read(uint64)                    { s.asked = append(s.asked, "read") }
func (s *script) Stop()                          {}
func (s *script) Save([]byte, uint64)            { s.asked = append(s.asked, "save") }
func (s *script) Publish(Ref, push.Notification) {}
func (s *script) Show(out *Out, _ bool)          { s.shown = append(s.shown, *out) }

// next returns what was asked since it was called last.
func (s *script) next() []string {
	list := s.asked
	s.asked = nil
	return list
}

func (s *script) records(t *testing.T) (Origin, []Record) {
	t.Helper()
	by, rs, err := ReadRecords(s.appended)
	require.NoError(t, err)
	return by, rs
}

var (
	nodeA = Origin{"a", 10}
	nodeB = Origin{"b", 20}
)

func claimOf(o Origin) []byte { return AppendRecords(nil, First, o, []Record{Claim{}}) }

// owning returns an Owner of node a, whose Claim is the first message of the log, and which takes a snapshot after the next message.
func owning(t *testing.T) (*Owner, *script) {
	t.Helper()
	w := &script{}
	o := NewOwner(&Config{Policy: &push.Policy{}, Alive: func(Origin) bool { return true }, Heard: func(string) time.Duration { return 0 }, SnapshotEvery: 2, SnapshotAge: time.Hour, Patience: 2 * time.Minute}, nodeA, w)
	o.Want(at(0), true)
	o.Tailed(at(0), 0, nil, nil)
	o.Appended(at(0), 1, nil)
	o.Loaded(at(0), nil, nil)
	o.Message(at(0), Message{Seq: 1, Time: at(0), Records: true, Data: claimOf(nodeA)})
	require.Equal(t, PhaseOwning, o.Phase())
	require.Equal(t, []string{"tail", "append", "load", "read"}, w.next())
	return o, w
}

func event(t *testing.T, seq uint64) Message {
	t.Helper()
	data, err := (&Batch{Origin: nodeB, Number: seq, Events: []push.Event{push.Ping{Account: "juliet@example.com"}}}).AppendBinary(nil)
	require.NoError(t, err)
	return Message{Seq: seq, Time: at(0), Data: data}
}

// A node that stops being the owner because an answer got lost, and not because another one has claimed the partition, says so in the log when it does not
// want the partition any more. Its successor waits for that as long as it hears of the node.
func TestLostAndNotWanted(t *testing.T) {
	released := func(t *testing.T, o *Owner, w *script, shown uint64) {
		t.Helper()
		o.Tailed(at(2*time.Second), 1, claimOf(nodeA), nil)
		require.Equal(t, PhaseReleasing, o.Phase())
		by, rs := w.records(t)
		assert.Equal(t, nodeA, by)
		assert.Equal(t, []Record{Release{shown}}, rs)
		assert.EqualValues(t, 1, w.prev)
		o.Appended(at(2*time.Second), 3, nil)
		assert.Equal(t, PhaseIdle, o.Phase())
	}
	t.Run("while it drains", func(t *testing.T) {
		o, w := owning(t)
		o.Message(at(0), event(t, 2))
		require.Equal(t, []string{"save"}, w.next())
		o.Want(at(0), false)
		require.Equal(t, PhaseDraining, o.Phase())
		o.Saved(at(time.Second), ErrFenced)
		require.Equal(t, []string{"tail"}, w.next())
		released(t, o, w, 2)
	})
	t.Run("while it waits to take it again", func(t *testing.T) {
		o, w := owning(t)
		o.Message(at(0), event(t, 2))
		o.Saved(at(time.Second), ErrFenced)
		require.Equal(t, PhaseWaiting, o.Phase())
		w.next()
		o.Want(at(time.Second), false)
		require.Equal(t, []string{"tail"}, w.next())
		released(t, o, w, 2)
	})
	t.Run("and it is wanted again meanwhile", func(t *testing.T) {
		o, w := owning(t)
		o.Message(at(0), event(t, 2))
		o.Want(at(0), false)
		o.Saved(at(time.Second), ErrFenced)
		o.Want(at(time.Second), true)
		o.Tailed(at(time.Second), 1, claimOf(nodeA), nil)
		_, rs := w.records(t)
		assert.Equal(t, []Record{Claim{}}, rs)
		assert.Equal(t, PhaseClaiming, o.Phase())
	})
	t.Run("but another has it", func(t *testing.T) {
		o, w := owning(t)
		o.Want(at(0), false) // its Release is on the way
		o.Appended(at(0), 0, ErrFenced)
		w.next()
		o.Tailed(at(0), 2, claimOf(nodeB), nil)
		assert.Empty(t, w.next())
		assert.Equal(t, PhaseIdle, o.Phase())
	})
	t.Run("what it cannot read", func(t *testing.T) {
		o, w := owning(t)
		o.Message(at(0), Message{Seq: 2, Time: at(0), Data: []byte("?")})
		require.Equal(t, PhaseStuck, o.Phase())
		w.next()
		o.Want(at(0), false)
		require.Equal(t, []string{"tail"}, w.next())
		released(t, o, w, 0)
	})
}

// A leader that does not know yet that it is none any more says what was the newest record some time ago. An owner goes by that as little as by no answer.
func TestStaleAnswer(t *testing.T) {
	o, w := owning(t)
	o.Message(at(0), event(t, 2))
	o.Saved(at(0), nil)
	o.Want(at(0), false) // it releases the partition: that is record 3
	o.Want(at(0), true)
	o.Appended(at(0), 3, nil)
	o.Tailed(at(0), 3, w.appended, nil)
	o.Appended(at(0), 4, nil)
	o.Loaded(at(0), nil, nil)
	o.Message(at(0), Message{Seq: 4, Time: at(0), Records: true, Data: claimOf(nodeA)})
	require.Equal(t, PhaseOwning, o.Phase())
	o.Want(at(0), false)
	w.next()
	o.Appended(at(0), 0, ErrDoubt) // of the next Release
	require.Equal(t, []string{"tail"}, w.next())
	o.Tailed(at(0), 1, claimOf(nodeA), nil)
	require.Equal(t, PhaseReleasing, o.Phase())
	o.Tick(o.Next(at(0)))
	require.Equal(t, []string{"tail"}, w.next(), "it asks again")
	o.Tailed(at(time.Second), 4, claimOf(nodeA), nil) // now it knows: the Release is not there
	require.Equal(t, []string{"append"}, w.next())
	o.Appended(at(time.Second), 5, nil)
	require.Equal(t, PhaseIdle, o.Phase())
}

// A leader that has lost its majority refuses a record at once while the first try of it is on its way, and says that it is not there: for ten seconds, until it knows. It is not asked in
// a circle meanwhile.
func TestRefusedForAWhile(t *testing.T) {
	for _, err := range []error{ErrDoubt, ErrFenced} {
		o, w := owning(t)
		o.Want(at(0), false)
		w.next()
		o.Appended(at(0), 0, ErrDoubt)
		o.Tailed(at(0), 1, claimOf(nodeA), nil)
		require.Equal(t, []string{"tail", "append"}, w.next(), "once more at once")
		now, appends := at(0), 0
		for now.Before(at(10 * time.Second)) {
			o.Appended(now, 0, err)
			require.Equal(t, []string{"tail"}, w.next())
			o.Tailed(now, 1, claimOf(nodeA), nil)
			require.Empty(t, w.next())
			next := o.Next(now)
			require.True(t, next.After(now))
			now = next
			o.Tick(now)
			require.Equal(t, []string{"tail"}, w.next())
			o.Tailed(now, 1, claimOf(nodeA), nil)
			require.Equal(t, []string{"append"}, w.next())
			appends++
		}
		assert.Less(t, appends, 20)
		assert.Greater(t, appends, 9, "it may be another leader by now")
		o.Appended(now, 2, nil)
		assert.Equal(t, PhaseIdle, o.Phase())
	}
}

// If the log has gone back for good, asking on is in vain.
func TestLogGoesBack(t *testing.T) {
	o, w := owning(t)
	o.Want(at(0), false)
	o.Appended(at(0), 5, nil)
	o.Want(at(0), true)
	o.Tailed(at(0), 5, nil, errors.New("no answer"))
	o.Tick(o.Next(at(0)))
	o.Tailed(at(0), 5, AppendRecords(nil, First, nodeA, []Record{Release{}}), nil)
	o.Appended(at(0), 0, ErrDoubt)
	for now := at(0); now.Before(at(time.Minute)); now = now.Add(again) {
		o.Tailed(now, 1, claimOf(nodeA), nil)
		if o.Phase() != PhaseClaiming {
			break
		}
		o.Tick(now.Add(again))
	}
	assert.Equal(t, PhaseWaiting, o.Phase())
	w.next()
}

// What it cannot read may be brought back, or was never gone: it looks again by itself.
func TestStuckLooksAgain(t *testing.T) {
	o, w := owning(t)
	o.Message(at(0), Message{Seq: 2, Time: at(0), Data: []byte("?")})
	require.Equal(t, PhaseStuck, o.Phase())
	require.Error(t, o.Err)
	w.next()
	next := o.Next(at(0))
	require.False(t, next.IsZero(), "it is stuck for ever")
	o.Tick(next)
	assert.Equal(t, []string{"tail"}, w.next())
	assert.Error(t, o.Err, "it still says why")
}

// A node waits for the owner's release as long as the process of that lives, in whichever life, and says for whom.
func TestWaitsForTheOwner(t *testing.T) {
	m := NewMembers(nodeB, 4*time.Second, at(0))
	w := &script{}
	o := NewOwner(&Config{
		Policy: &push.Policy{}, Patience: 2 * time.Minute, Alive: func(o Origin) bool { return m.Alive(at(0), o) }, Runs: func(o Origin) bool { return m.Runs(at(0), o) },
	}, nodeB, w)
	m.Heard(at(0), &Beat{Origin: Origin{nodeA.Node, nodeA.Incarnation + 3}, Version: 1}) // it was cut off three times, and has released nothing
	require.False(t, m.Alive(at(0), nodeA))
	o.Want(at(0), true)
	o.Tailed(at(0), 1, claimOf(nodeA), nil)
	require.Equal(t, PhaseWaiting, o.Phase())
	assert.ErrorContains(t, o.Err, `"a"`)
	m.Heard(at(0), &Beat{Origin: Origin{nodeA.Node, nodeA.Incarnation + livesEach}, Version: 1}) // it has started anew
	o.Tick(o.Next(at(0)))
	o.Tailed(at(0), 1, claimOf(nodeA), nil)
	assert.Equal(t, PhaseClaiming, o.Phase())
}

// What nobody has shown yet is shown by the new owner: events that came after the former one's Release, or after it was heard of last. What it advises is told, and so is the
// last of what was advised about the same session, as the former one may not have come to that.
func TestNewOwnerShowsTheRest(t *testing.T) {
	id, key := push.SessionID{Account: "juliet@example.com", ID: "s1"}, push.Key{Service: "push.example.net", Node: "n1"}
	msg := func(n int) push.Event {
		st := push.Stanza{ID: string(rune('a' + n)), From: "romeo@example.net/x", To: id.Account, Class: push.ClassImportant}
		return push.StanzaQueued{Session: id, Stanza: st}
	}
	batch := func(seq uint64, when time.Time, evs ...push.Event) Message {
		data, err := (&Batch{Origin: Origin{"c", 1}, Number: seq, Events: evs}).AppendBinary(nil)
		require.NoError(t, err)
		return Message{Seq: seq, Time: when, Data: data}
	}
	records := func(seq uint64, when time.Time, by Origin, rs ...Record) Message {
		return Message{Seq: seq, Time: when, Records: true, Data: AppendRecords(nil, First, by, rs)}
	}
	start := []push.Event{push.SessionOpen{Session: id, JID: id.Account + "/phone"}, push.PushEnable{Session: id, Key: key}}
	for name, c := range map[string]struct {
		log    []Message
		silent time.Duration // of the former owner, when the new one has read its Claim, ten seconds after the start
		shown  []string
		advice int
	}{
		"released": {[]Message{
			records(1, at(0), nodeA, Claim{}), batch(2, at(0), start...), records(3, at(time.Second), nodeA, Release{After: 2}), batch(4, at(time.Second), push.HibernationStart{Session: id}),
		}, time.Second, []string{"hibernation-start"}, 1},
		"released with an event that came before its Release and was not read": {[]Message{
			records(1, at(0), nodeA, Claim{}), batch(2, at(0), start...), batch(3, at(time.Second), push.HibernationStart{Session: id}), records(4, at(time.Second), nodeA, Release{After: 2}),
		}, time.Second, []string{"hibernation-start"}, 1},
		"released by an earlier program": {[]Message{
			records(1, at(0), nodeA, Claim{}), batch(2, at(0), start...), records(3, at(time.Second), nodeA, Release{}), batch(4, at(time.Second), push.HibernationStart{Session: id}),
		}, time.Second, []string{"hibernation-start"}, 1},
		"dead": {[]Message{
			records(1, at(0), nodeA, Claim{}), batch(2, at(0), start...), batch(3, at(4*time.Second), push.HibernationStart{Session: id}), batch(4, at(6*time.Second), msg(1)),
		}, 5 * time.Second, []string{"stanza-queued"}, 0},
		"everything was shown": {[]Message{
			records(1, at(0), nodeA, Claim{}), batch(2, at(0), start...), batch(3, at(4*time.Second), push.HibernationStart{Session: id}),
		}, time.Second, nil, 0},
		"there was none": {[]Message{
			batch(2, at(0), start...), batch(3, at(4*time.Second), push.HibernationStart{Session: id}),
		}, -1, []string{"session-open", "push-enable", "hibernation-start"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := &script{}
			o := NewOwner(&Config{
				Policy: &push.Policy{}, Alive: func(o Origin) bool { return o != nodeA }, Heard: func(string) time.Duration { return c.silent }, SnapshotEvery: 1000, SnapshotAge: time.Hour,
			}, nodeB, w)
			now := at(10 * time.Second)
			o.Want(now, true)
			tail := Message{}
			for _, m := range c.log {
				if m.Records {
					tail = m
				}
			}
			o.Tailed(now, tail.Seq, tail.Data, nil)
			o.Appended(now, 5, nil)
			o.Loaded(now, nil, nil)
			for _, m := range append(c.log, records(5, now, nodeB, Claim{})) {
				o.Message(now, m)
			}
			require.Equal(t, PhaseOwning, o.Phase())
			var shown []string
			for _, d := range w.shown[0].Decided {
				if !d.Shown {
					shown = append(shown, d.Event.Name())
				}
			}
			assert.Equal(t, c.shown, shown)
			assert.Len(t, w.shown[0].Advice, c.advice)
		})
	}
}
