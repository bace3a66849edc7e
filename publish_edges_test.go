package push_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// toldAccount is an account that is told of messages, and what came of it.
type toldAccount struct {
	*Account
	t      *testing.T
	now    time.Time
	number uint64
	d      Decision
	e      Effects
}

func newTold(t *testing.T, p *Policy, rs ...Registration) *toldAccount {
	return &toldAccount{Account: NewAccount(juliet, p, rs), t: t, now: newYear}
}

// message tells of a new message by way of offline storage.
func (a *toldAccount) message(change ...func(*Stanza)) {
	a.number++
	st := Stanza{ID: fmt.Sprint("m", a.number), From: "romeo@example.net/orchard", To: juliet, Kind: KindMessage, Type: MessageChat, Class: ClassImportant, Content: ContentText, Body: "hi"}
	for _, f := range change {
		f(&st)
	}
	a.Handle(Offline{juliet, st}, Facts{Now: a.now, Number: a.number}, &a.d)
}

// begin publishes what is due now.
func (a *toldAccount) begin() Notification {
	a.t.Helper()
	a.e.Reset()
	keys := a.Due(a.now, nil, &a.e)
	require.Len(a.t, keys, 1)
	n, ok := a.Begin(keys[0], a.now, &a.e)
	require.True(a.t, ok)
	return n
}

func (a *toldAccount) end(reply Reply) Result {
	a.e.Reset()
	return a.End(a.Registrations()[0].Key, reply, a.now, &a.e)
}

// One publish is in flight for a registration, whatever is asked for.
func TestOneInFlight(t *testing.T) {
	a := newTold(t, nil, registered("n1")...)
	a.message()
	n := a.begin()
	a.message()
	_, ok := a.Begin(n.Key, a.now.Add(time.Hour), &a.e)
	assert.False(t, ok)
	a.end(Reply{})
	a.now = a.now.Add(time.Second)
	assert.Equal(t, []uint64{2}, a.begin().Events)
}

// The one try of a disabled registration is not used up by what came to nothing before it was sent.
func TestRetryIsNotUsedUp(t *testing.T) {
	rs := registered("n1")
	rs[0].Health.Disabled = newYear.Add(-48 * time.Hour)
	a := newTold(t, &Policy{RetryDisabled: 24 * time.Hour}, rs...)
	_, ok := a.Begin(rs[0].Key, a.now, &a.e)
	require.False(t, ok)
	a.message()
	assert.True(t, a.d.Notifies())
	// Another node has just tried it.
	rs[0].Health.Disabled = a.now
	a.Load(rs, a.now, &a.e)
	_, ok = a.Begin(rs[0].Key, a.now, &a.e)
	assert.False(t, ok)
	assert.Equal(t, []Drop{{Key: rs[0].Key, Class: ClassImportant, Count: 1, Events: []uint64{1}, Reason: ReasonDisabled}}, a.e.Drops)
}

// An error that a notification meets again and again counts once an hour, and after exactly an hour too.
func TestCountedEveryHour(t *testing.T) {
	a := newTold(t, &Policy{RetryMax: time.Hour, RetryMin: time.Hour}, registered("n1")...)
	a.message()
	a.begin()
	failed := Reply{Type: "cancel", Condition: "internal-server-error"}
	begin := a.now
	for _, c := range []struct {
		after time.Duration
		store bool
	}{{0, true}, {time.Hour - time.Second, false}, {time.Hour, true}, {2*time.Hour - time.Second, false}, {2 * time.Hour, true}} {
		if c.after > 0 {
			a.begin()
		}
		a.now = begin.Add(c.after)
		assert.Equal(t, c.store, a.end(failed).Store, c.after)
		a.now = a.Next()
	}
}

// A process that goes on from another's snapshot does not wait for a clock that was ahead, and says of what was sent to a registration which is gone that nobody will answer.
func TestInterruptedElsewhere(t *testing.T) {
	a := newTold(t, nil, registered("n1", "n2")...)
	n1 := a.Registrations()[0].Key
	ahead := a.now.Add(1000 * time.Hour)
	a.now, ahead = ahead, a.now
	s := SessionID{Account: juliet, ID: "s1"}
	a.Handle(SessionOpen{Session: s, JID: juliet + "/a"}, Facts{Now: a.now}, &a.d)
	a.message()
	a.Due(a.now, nil, &a.e)
	for _, r := range a.Registrations() {
		_, ok := a.Begin(r.Key, a.now, &a.e)
		require.True(t, ok)
	}
	a.Handle(SessionClose{s}, Facts{Now: a.now}, &a.d)
	require.True(t, a.Remove(n1, ReasonRemoved, &a.e))
	a.now = ahead
	a.e.Reset()
	a.Interrupted(a.now, &a.e)
	require.Len(t, a.e.Drops, 1)
	assert.Equal(t, Drop{Key: n1, Class: ClassImportant, Count: 1, Events: []uint64{1}, Reason: ReasonRemoved}, a.e.Drops[0])
	a.now = a.now.Add(time.Second)
	assert.Equal(t, 2, a.begin().Try)
	a.end(Reply{})
	a.message()
	a.now = a.now.Add(time.Second)
	a.begin()
	a.end(Reply{})
	assert.False(t, a.Prune(a.now.Add(9*time.Minute)))
	assert.True(t, a.Prune(a.now.Add(11*time.Minute)), "the session is over for long enough")
}

// What goes along, encrypted, for a client of Tigase's: the newest message that its user should see, without its XML.
func TestCarriedForTigase(t *testing.T) {
	rs := registered("n1")
	rs[0].Wishes = &wishes.Wishes{Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("0123456789abcdef")}}
	a := newTold(t, nil, rs...)
	reply := func(st *Stanza) { st.XML, st.Details = "<message/>", &Details{Reply: ReplyTo{ID: "m0"}} }
	a.message()
	a.message(reply)
	a.message(func(st *Stanza) { st.Class, st.Content = ClassPlain, ContentDisplayed })
	carried := a.begin().Carried
	require.Len(t, carried, 1)
	assert.Equal(t, "hi", carried[0].Stanza.Body)
	assert.Empty(t, carried[0].Stanza.XML)
	assert.Nil(t, carried[0].Stanza.Details, "of the details only a call is told")
	assert.Empty(t, carried[0].Archive)

	rs[0].Wishes = &wishes.Wishes{Jingle: true}
	a = newTold(t, nil, rs...)
	a.message()
	assert.Empty(t, a.begin().Carried, "who did not ask for it gets no content")
}

// What goes along for a client of Push 2.0 is in order, whichever session it came from, and eight at most.
func TestCarriedInOrder(t *testing.T) {
	key := Key{Service: "push.example.net", Node: Push2Node + "phone"}
	a := newTold(t, &Policy{DelayImportant: true, Delay: time.Hour}, Registration{
		Account: juliet, Key: key,
		Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c"), Matches: []wishes.Match{{Profile: wishes.MatchAll, Send: &wishes.WebPush{}}}}},
	})
	s := SessionID{Account: juliet, ID: "s1"}
	f := Facts{Now: a.now}
	a.Handle(SessionRestored{Session: s, JID: juliet + "/a", IsBound: true, Bound: key, Hibernated: true}, f, &a.d)
	for i := range 10 {
		a.now = a.now.Add(time.Second)
		st := Stanza{ID: fmt.Sprint("x", i), From: "romeo@example.net/orchard", To: juliet, Kind: KindMessage, Class: ClassImportant, Content: ContentText, Body: fmt.Sprint(i)}
		st.XML = fmt.Sprintf("<message>%016384d</message>", i)[:16<<10+i%2] // one byte more is too much
		f = Facts{Now: a.now, Number: uint64(i + 1)}
		if i%3 == 0 {
			a.Handle(Offline{juliet, st}, f, &a.d)
		} else {
			a.Handle(StanzaQueued{s, st}, f, &a.d)
		}
		require.True(t, a.d.Notifies(), i)
		if i == 0 {
			a.begin() // which is not answered before the rest has come
		}
	}
	a.end(Reply{Missing: true})
	a.now = a.now.Add(2 * time.Hour)
	n := a.begin()
	require.Len(t, n.Carried, 8)
	for i, c := range n.Carried {
		assert.Equal(t, fmt.Sprint(i+2), c.Stanza.Body)
		assert.Equal(t, i%2 == 1, c.Stanza.XML == "", i)
	}
}

// A Store may give what no client could have asked for. The end of a call tells a device then too, without content.
func TestNoMatchAtAll(t *testing.T) {
	key := Key{Service: "push.example.net", Node: Push2Node + "phone"}
	r := Registration{Account: juliet, Key: key, Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c"), Matches: []wishes.Match{{}}}}}
	a := newTold(t, nil, r)
	call := func(of Content, class Class) func(*Stanza) {
		return func(st *Stanza) {
			st.Content, st.Class = of, class
			st.Details = &Details{Call: &Call{ID: "c1"}}
			if of == ContentCallEnd {
				st.Details.Call.Action = CallRetract
			}
		}
	}
	a.message(call(ContentCall, ClassUrgent))
	a.begin()
	a.end(Reply{})
	r.Wishes = &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c")}}
	a.Load([]Registration{r}, a.now, &a.e)
	a.message(call(ContentCallEnd, ClassPlain))
	assert.True(t, a.d.Notifies())
	assert.Empty(t, a.begin().Carried)
}

// Answered is for the breaker of a service: what says that the service was not there is no answer of its.
func TestAnswered(t *testing.T) {
	for reply, want := range map[Reply]bool{
		{}:              true,
		{Missing: true}: false,
		{Type: "wait", Condition: "resource-constraint"}:       true,
		{Type: "cancel", Condition: "gone"}:                    true,
		{Type: "wait", Condition: "recipient-unavailable"}:     true,
		{Type: "wait", Condition: "remote-server-timeout"}:     false,
		{Type: "cancel", Condition: "remote-server-not-found"}: false,
	} {
		assert.Equal(t, want, reply.Answered(), "%+v", reply)
	}
}
