package push_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// eventful returns an account of which a snapshot has everything to say.
func eventful(t testing.TB) (*Account, *Policy) {
	p := &Policy{IncludeBody: true, WakeBefore: time.Hour, Delay: time.Minute}
	rs := append(registered("n1", "n2", "n3", "n4"), Registration{Account: juliet, Key: Key{Service: "push.example.org"}, Client: "c4"})
	a := NewAccount(juliet, p, rs)
	now := newYear
	var d Decision
	n := uint64(0)
	do := func(evs ...Event) {
		for _, ev := range evs {
			n++
			now = now.Add(1234567891)
			a.Handle(ev, Facts{Now: now, Number: n}, &d)
		}
	}
	send := func(answered ...string) {
		a.Flush(now)
		for _, k := range a.Due(now, nil, &d.Effects) {
			_, ok := a.Begin(k, now, &d.Effects)
			require.True(t, ok)
			if slices.Contains(answered, k.Node) {
				a.End(k, Reply{Missing: true}, now, &d.Effects)
			}
		}
	}
	key := func(n string) Key { return Key{Service: "push.example.net", Node: n} }
	s := func(n int) SessionID { return SessionID{Account: juliet, ID: fmt.Sprint("s", n)} }
	st := func(id string, c Class) Stanza {
		return Stanza{ID: id, From: "romeo@example.net/orchard", To: juliet, Class: c, Body: "text of " + id}
	}
	do(SessionOpen{Session: s(1), Client: "c1"}, PushEnable{Session: s(1), Key: key("n1")}, SessionOpen{Session: s(2)}, PushEnable{Session: s(2), Key: key("n2")})
	do(SessionOpen{Session: s(3)}, PushEnable{Session: s(3), Key: key("n2")}) // s2 is superseded
	do(SessionOpen{Session: s(4), Client: "c4"}, HibernationStart{Session: s(4)})
	do(Offline{juliet, st("m1", ClassImportant)})
	do(AckDelayed{s(1), []Stanza{st("m2", ClassPlain), st("", ClassPlain), st("m3", ClassImportant)}}, Offline{juliet, st("", ClassImportant)}, Ping{Account: juliet})
	do(AckDelayed{s(3), []Stanza{st("m4", ClassUrgent), st("m5", ClassPlain)}})
	send("n1", "n4", "") // the others are in flight
	do(Acknowledged{s(3), []string{"m1"}}, PushDisable{Session: s(1), Key: key("n3")})
	for i := range 70 { // more than are looked through one by one
		do(Offline{juliet, st(fmt.Sprint("o", i), Class(i%3))})
	}
	do(StanzaQueued{s(4), st("m6", ClassPlain)})
	return a, p
}

// compareLives lets the same happen to both accounts, and compares all that comes of it.
func compareLives(t testing.TB, a, b *Account, now time.Time) {
	var d1, d2 Decision
	s := func(n int) SessionID { return SessionID{Account: juliet, ID: fmt.Sprint("s", n)} }
	n := uint64(1000)
	show := func(a *Account, e *Effects) string {
		return fmt.Sprintf("%+v %+v %v %v", *e, a.Status(now), a.Next(), a.Idle(now))
	}
	step := func(ev Event) {
		n++
		now = now.Add(300 * time.Millisecond)
		a.Handle(ev, Facts{Now: now, Number: n}, &d1)
		b.Handle(ev, Facts{Now: now, Number: n}, &d2)
		require.Equal(t, shown(d1), shown(d2), "%+v", ev)
		k1, k2 := a.Due(now, nil, &d1.Effects), b.Due(now, nil, &d2.Effects)
		require.Equal(t, k1, k2)
		for _, k := range k1 {
			n1, ok1 := a.Begin(k, now, &d1.Effects)
			n2, ok2 := b.Begin(k, now, &d2.Effects)
			require.Equal(t, n1, n2)
			require.Equal(t, ok1, ok2)
			if ok1 {
				r := []Reply{{}, {Missing: true}, {Type: "cancel", Condition: "internal-server-error"}}[n%3]
				require.Equal(t, a.End(k, r, now, &d1.Effects), b.End(k, r, now, &d2.Effects))
			}
		}
		require.Equal(t, show(a, &d1.Effects), show(b, &d2.Effects))
	}
	for i := range 25 {
		step(Offline{juliet, Stanza{ID: fmt.Sprint("o", i), Class: ClassImportant}})
	}
	step(Acknowledged{s(3), []string{"m4", "o1", "o19"}})
	step(AckDelayed{s(1), []Stanza{{ID: "m2"}, {ID: "new", Class: ClassUrgent}}})
	step(HibernationEnd{s(4)})
	step(SessionClose{s(3)})
	step(AckDelayed{s(2), []Stanza{{ID: "m9"}}})
	step(HibernationStart{s(2), []Stanza{{ID: "m10", Class: ClassImportant}}})
	now = now.Add(71 * time.Hour)
	step(Ping{Account: juliet})
	a.Prune(now)
	b.Prune(now)
	step(Offline{juliet, Stanza{ID: "m4", Class: ClassImportant}})
}

func restored(t testing.TB, a *Account, p *Policy, now time.Time) *Account {
	data, err := a.MarshalBinary()
	require.NoError(t, err)
	b, err := RestoreAccount(juliet, p, data)
	require.NoError(t, err)
	assert.False(t, b.Loaded())
	again, err := b.AppendBinary([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, data, again[1:], "a snapshot of what was restored")
	var e Effects
	b.Load(a.Registrations(), now, &e)
	require.Empty(t, e)
	return b
}

// An account that was restored from a snapshot goes on as the one that it was taken of.
func TestSnapshot(t *testing.T) {
	a, p := eventful(t)
	now := newYear.Add(time.Minute)
	b := restored(t, a, p, now)
	assert.Equal(t, a.Status(now), b.Status(now))
	var e1, e2 Effects
	for _, k := range []string{"n2", "n3"} { // the replies to what was in flight
		k := Key{Service: "push.example.net", Node: k}
		assert.Equal(t, a.End(k, Reply{Missing: true}, now, &e1), b.End(k, Reply{Missing: true}, now, &e2))
	}
	assert.Equal(t, e1, e2)
	compareLives(t, a, b, now)

	// Nothing to say is next to nothing.
	data, err := NewAccount(juliet, nil, nil).MarshalBinary()
	require.NoError(t, err)
	assert.Less(t, len(data), 32)
	restored(t, NewAccount(juliet, nil, nil), nil, now)
}

// What was in flight when a process ended goes out again, and only that.
func TestInterrupted(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1", "n2"))
	now := newYear
	var d Decision
	a.Handle(Offline{juliet, Stanza{ID: "m1", Class: ClassImportant}}, Facts{Now: now, Number: 7}, &d)
	keys := a.Due(now, nil, &d.Effects)
	require.Len(t, keys, 2)
	for _, k := range keys {
		a.Begin(k, now, &d.Effects)
	}
	a.End(keys[0], Reply{}, now, &d.Effects)
	a.Handle(Offline{juliet, Stanza{ID: "m2", Class: ClassPlain}}, Facts{Now: now, Number: 8}, &d)

	now = now.Add(time.Minute)
	b := restored(t, a, nil, now)
	assert.Equal(t, keys[:1], b.Due(now, nil, &d.Effects))
	b.Interrupted(now, &d.Effects)
	assert.Empty(t, d.Drops)
	assert.Equal(t, keys[1:], b.Due(now, nil, &d.Effects))
	n, ok := b.Begin(keys[1], now, &d.Effects)
	require.True(t, ok)
	assert.Equal(t, []uint64{7, 8}, n.Events)
	assert.Equal(t, 2, n.Try)
	assert.Equal(t, 1, n.Unread)
}

// TestInterruptedByAnotherClock takes up what a process kept whose clock was ahead: it does not wait for that time to come again.
func TestInterruptedByAnotherClock(t *testing.T) {
	a := NewAccount(juliet, &Policy{Delay: time.Minute, RetryMin: time.Minute, RetryMax: time.Hour}, registered("n1", "n2"))
	now := newYear
	var d Decision
	a.Handle(SessionOpen{Session: phoneSession}, Facts{Now: now}, &d)
	a.Handle(PushEnable{Session: phoneSession, Key: node("n1")}, Facts{Now: now}, &d)
	a.Handle(HibernationStart{Session: phoneSession}, Facts{Now: now}, &d)
	a.Handle(StanzaQueued{phoneSession, Stanza{ID: "m1"}}, Facts{Now: now}, &d)
	a.Handle(Ping{Account: juliet, Registrations: []Key{node("n2")}}, Facts{Now: now}, &d)
	require.Equal(t, []Key{node("n2")}, a.Due(now, nil, &d.Effects))
	a.Begin(node("n2"), now, &d.Effects)
	a.End(node("n2"), Reply{Missing: true}, now, &d.Effects)

	now = now.Add(-1000 * time.Hour)
	b := restored(t, a, nil, now)
	b.Interrupted(now, &d.Effects)
	assert.Len(t, b.Due(now.Add(time.Second), nil, &d.Effects), 2)
	for _, k := range []Key{node("n1"), node("n2")} {
		_, ok := b.Begin(k, now.Add(time.Second), &d.Effects)
		assert.True(t, ok)
		b.End(k, Reply{}, now.Add(time.Second), &d.Effects)
	}
	b.Handle(SessionClose{phoneSession}, Facts{Now: now.Add(time.Second)}, &d)
	assert.True(t, b.Prune(now.Add(time.Hour)), "nor is it kept in memory until then")
}

// A device that is to be told that nothing is unread any more is told so by the next try too, whoever sends that one.
func TestSnapshotOfWhatIsTold(t *testing.T) {
	a := NewAccount(juliet, &Policy{TellRead: true}, registered("n1"))
	k := registered("n1")[0].Key
	now := newYear
	var d Decision
	st := Stanza{ID: "m1", Kind: KindMessage, Class: ClassImportant, From: "romeo@example.net", To: juliet, Type: MessageChat}
	a.Handle(Offline{juliet, st}, Facts{Now: now, Number: 1}, &d)
	_, ok := a.Begin(k, now, &d.Effects)
	require.True(t, ok)
	a.End(k, Reply{}, now, &d.Effects)
	a.Handle(Displayed{Account: juliet, Chat: "romeo@example.net"}, Facts{Now: now, Number: 2}, &d)
	now = now.Add(time.Minute)
	for _, when := range []string{"while it waits", "while it is in flight"} {
		a = restored(t, a, &Policy{TellRead: true}, now)
		n, ok := a.Begin(k, now, &d.Effects)
		require.True(t, ok, when)
		assert.True(t, n.TellZero, when)
		a = restored(t, a, &Policy{TellRead: true}, now)
		now = a.End(k, Reply{Missing: true}, now, &d.Effects).RetryAt
	}
}

// What waits for a registration that is gone, or disabled, is dropped when it is loaded.
func TestSnapshotOfWhatIsGone(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1", "n2", "n3"))
	var d Decision
	a.Handle(Offline{juliet, Stanza{ID: "m1", Class: ClassImportant}}, Facts{Now: newYear, Number: 7}, &d)
	data, err := a.MarshalBinary()
	require.NoError(t, err)
	b, err := RestoreAccount(juliet, nil, data)
	require.NoError(t, err)
	assert.Zero(t, b.Next().Sub(newYear.Add(12*time.Hour)), "nothing is sent to what is not known")
	assert.Empty(t, b.Due(newYear, nil, &d.Effects))
	b.Handle(Offline{juliet, Stanza{ID: "m1", Class: ClassImportant}}, Facts{Now: newYear, Number: 8}, &d)
	assert.False(t, d.Notifies())
	rs := registered("n2", "n3", "n4")
	rs[0].Health.Disabled = newYear
	var e Effects
	b.Load(rs, newYear, &e)
	require.Len(t, e.Changes, 1)
	assert.Equal(t, Change{Key: Key{Service: "push.example.net", Node: "n1"}, Kind: ChangeRemoved, Reason: ReasonRemoved}, e.Changes[0])
	require.Len(t, e.Drops, 2)
	assert.Equal(t, ReasonDisabled, e.Drops[1].Reason)
	assert.Equal(t, []Key{rs[1].Key}, b.Due(newYear, nil, &e))
}

// summed makes a snapshot of sections.
func summed(sections []byte) []byte {
	data := binary.LittleEndian.AppendUint32([]byte{1}, crc32.Checksum(sections, crc32.MakeTable(crc32.Castagnoli)))
	return append(data, sections...)
}

func TestSnapshotIsRefusedWhole(t *testing.T) {
	a, p := eventful(t)
	data, err := a.MarshalBinary()
	require.NoError(t, err)
	refused := func(data []byte, name string) {
		t.Helper()
		b, err := RestoreAccount(name, p, data)
		require.ErrorIs(t, err, ErrSnapshot)
		assert.Nil(t, b)
	}
	for i := 5; i < len(data); i++ {
		refused(data[:i], juliet)
		refused(slices.Concat(data[:i], []byte{data[i] ^ 1}, data[i+1:]), juliet)
		// The parts behind the checksum are looked at by themselves, too.
		if b, err := RestoreAccount(juliet, p, summed(data[5:i])); err == nil {
			_, err := b.MarshalBinary()
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrSnapshot)
		}
	}
	refused(nil, juliet)
	refused(data[:1], juliet)
	refused(summed(nil), juliet)
	refused(data, "romeo@example.com")
	refused(append([]byte{2}, data[1:]...), juliet)
	more := func(b ...byte) []byte { return summed(append(bytes.Clone(data[5:]), b...)) }
	refused(more(0), juliet)
	refused(more(12, 0), juliet)          // a section that was there
	refused(more(200, 1, 0), juliet)      // a section that has to be understood
	for tag := byte(4); tag < 20; tag++ { // what is not known and need not be understood may be empty
		_, err := RestoreAccount(juliet, p, summed(slices.Concat(data[5:5+2+int(data[6])], []byte{tag, 0})))
		assert.Equal(t, tag%2 == 0 || tag >= 13, err != nil, "section %d: %v", tag, err)
	}
	b, err := RestoreAccount(juliet, p, more(201, 1, 1, 'x'))
	require.NoError(t, err, "a section that need not be")
	again, err := b.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, data, again)
}

var writeGolden = flag.Bool("golden", false, "write the golden files of snapshots that are missing")

// Snapshots of earlier versions stay readable. A change of the format needs a new version, with a file of its own here.
func TestSnapshotGolden(t *testing.T) {
	if *writeGolden {
		a, _ := eventful(t)
		data, err := a.MarshalBinary()
		require.NoError(t, err)
		name := fmt.Sprintf("testdata/snapshots/v%d.bin", data[0])
		if _, err := os.Stat(name); err != nil {
			require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
			require.NoError(t, os.WriteFile(name, data, 0o644))
		}
		return
	}
	files, err := filepath.Glob("testdata/snapshots/*.bin")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	now := newYear.Add(time.Minute)
	for _, f := range files {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		a, p := eventful(t)
		b, err := RestoreAccount(juliet, p, data)
		require.NoError(t, err, f)
		var e Effects
		b.Load(a.Registrations(), now, &e)
		require.Empty(t, e)
		require.Equal(t, a.Status(now), b.Status(now), f)
		a.Interrupted(now, &e)
		b.Interrupted(now, &e)
		compareLives(t, a, b, now)
	}
}

func FuzzSnapshot(f *testing.F) {
	a, p := eventful(f)
	data, err := a.MarshalBinary()
	require.NoError(f, err)
	f.Add(data[5:])
	small, err := NewAccount(juliet, nil, registered("n1")).MarshalBinary()
	require.NoError(f, err)
	f.Add(small[5:])
	f.Add(slices.Concat(small[5:], []byte{12, 0})) // those that are gone are none
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := RestoreAccount(juliet, p, summed(data))
		if err != nil {
			require.ErrorIs(t, err, ErrSnapshot)
			return
		}
		once, err := b.MarshalBinary()
		require.NoError(t, err)
		c, err := RestoreAccount(juliet, p, once)
		require.NoError(t, err)
		twice, err := c.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, once, twice)
		// Whatever it says, the account can be used.
		var e Effects
		now := newYear.Add(time.Hour)
		b.Load(a.Registrations(), now, &e)
		b.Interrupted(now, &e)
		var d Decision
		for i, ev := range []Event{
			Offline{juliet, Stanza{ID: "m1", Class: ClassUrgent}}, Acknowledged{SessionID{juliet, "s3"}, []string{"m1", "m4"}},
			HibernationEnd{SessionID{juliet, "s1"}}, SessionClose{SessionID{juliet, "s3"}}, Ping{Account: juliet},
		} {
			b.Handle(ev, Facts{Now: now, Number: uint64(i)}, &d)
			for _, k := range b.Due(now, nil, &e) {
				if n, ok := b.Begin(k, now, &e); ok {
					require.GreaterOrEqual(t, n.Unread, 0)
					b.End(k, Reply{Missing: true}, now, &e)
				}
			}
		}
		b.Abandon(ReasonClosed, &e)
		b.Prune(now)
	})
}

func BenchmarkSnapshot(b *testing.B) {
	a, p := eventful(b)
	data, _ := a.MarshalBinary()
	b.Run("restore", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := RestoreAccount(juliet, p, data); err != nil {
				b.Fatal(err)
			}
		}
	})
	phone := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	for i, ev := range []Event{
		SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: Key{Service: "push.example.net", Node: "n1"}},
		HibernationStart{Session: phoneSession}, StanzaQueued{phoneSession, Stanza{ID: "m1", Class: ClassImportant}},
	} {
		phone.Handle(ev, Facts{Now: newYear, Number: uint64(i)}, &d)
	}
	for name, a := range map[string]*Account{"eventful": a, "hibernated": phone} {
		b.Run("append/account="+name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 4096)
			for b.Loop() {
				buf, _ = a.AppendBinary(buf[:0])
			}
			b.ReportMetric(float64(len(buf)), "bytes")
		})
	}
}

// A session that was opened when its client ID was not known is not bound by a restart, nor by what was enabled since: its device will say. One that was opened
// since is, and it is the newer one.
func TestSnapshotBindsNobodyAnew(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	s := func(n int) SessionID { return SessionID{Account: juliet, ID: fmt.Sprint("s", n)} }
	k := Key{Service: "push.example.net", Node: "n1"}
	for _, ev := range []Event{
		SessionOpen{Session: s(1), Client: "c1"}, SessionRestored{Session: s(5), Client: "c1"}, SessionOpen{Session: s(2), Client: "c1"}, PushEnable{Session: s(2), Key: k}, SessionOpen{Session: s(3), Client: "c2"},
		Offline{juliet, Stanza{ID: "m1", Class: ClassImportant}},
	} {
		a.Handle(ev, Facts{Now: newYear}, &d)
	}
	bound := func(a *Account) (ids []string) {
		for _, s := range a.Status(newYear).Sessions {
			if s.IsBound {
				ids = append(ids, s.ID)
			}
		}
		return ids
	}
	assert.Equal(t, []string{"s2"}, bound(restored(t, a, nil, newYear)))

	data, err := a.MarshalBinary()
	require.NoError(t, err)
	b, err := RestoreAccount(juliet, nil, data)
	require.NoError(t, err)
	b.Handle(SessionOpen{Session: s(4), Client: "c1"}, Facts{Now: newYear}, &d)
	assert.Empty(t, d.Changes)
	assert.Equal(t, []string{"s2"}, bound(b))
	var e Effects
	b.Load(a.Registrations(), newYear, &e)
	assert.Equal(t, []Change{
		{Key: k, Kind: ChangeUnbound, Session: "s2", Rule: RuleBind, Reason: ReasonNewerSession},
		{Key: k, Kind: ChangeBound, Session: "s4", Rule: RuleClient, Reason: ReasonClientID},
	}, e.Changes)
	assert.Zero(t, b.Status(newYear).Registrations[0].Unread, "its device is in touch")

	a.Handle(SessionClose{s(2)}, Facts{Now: newYear}, &d)
	assert.Empty(t, bound(restored(t, a, nil, newYear)))
}

// A restart gives no advice: a session that hibernated without a registration, and got one while it did, was not to be kept longer.
func TestSnapshotGivesNoAdvice(t *testing.T) {
	for _, loaded := range []bool{true, false} {
		a := OpenAccount(juliet, nil)
		if loaded {
			a = NewAccount(juliet, nil, registered("n1"))
		}
		var d Decision
		s := SessionID{Account: juliet, ID: "s1"}
		for _, ev := range []Event{SessionOpen{Session: s}, HibernationStart{Session: s}, PushEnable{Session: s, Key: registered("n1")[0].Key}} {
			a.Handle(ev, Facts{Now: newYear}, &d)
		}
		data, err := a.MarshalBinary()
		require.NoError(t, err)
		b, err := RestoreAccount(juliet, nil, data)
		require.NoError(t, err)
		var e Effects
		b.Load(registered("n1"), newYear, &e)
		assert.Equal(t, loaded, len(e.Advice) == 0, "it could not be told before the registrations were read")
	}
}
