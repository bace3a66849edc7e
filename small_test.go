package push_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// The names of events are the types of a trace's lines, and stay.
func TestEventNames(t *testing.T) {
	s := SessionID{Account: juliet, ID: "s1"}
	own := SessionID{Account: juliet}
	for want, ev := range map[string]Event{
		"session-open": SessionOpen{Session: s}, "session-restored": SessionRestored{Session: s}, "session-close": SessionClose{s}, "push-enable": PushEnable{Session: s},
		"push-disable": PushDisable{Session: s}, "ack-delayed": AckDelayed{Session: s}, "acknowledged": Acknowledged{Session: s}, "session-active": SessionActive{s},
		"session-presence": SessionPresence{Session: s}, "hibernation-start": HibernationStart{Session: s}, "stanza-queued": StanzaQueued{Session: s}, "hibernation-end": HibernationEnd{s},
	} {
		assert.Equal(t, want, ev.Name())
		assert.Equal(t, s, ev.Subject(), want)
	}
	for want, ev := range map[string]Event{
		"archive-added": ArchiveAdded{Account: juliet}, "offline": Offline{Account: juliet}, "groupchat": Groupchat{Account: juliet}, "ping": Ping{Account: juliet},
		"affiliation-none": AffiliationNone{Account: juliet}, "account-removed": AccountRemoved{Account: juliet}, "chat-changed": ChatChanged{Account: juliet},
	} {
		assert.Equal(t, want, ev.Name())
		assert.Equal(t, own, ev.Subject(), want)
	}
	assert.Equal(t, "displayed", Displayed{}.Name())
	assert.Equal(t, own, Displayed{Account: juliet, Session: "s1"}.Subject())
}

func TestAnswersOfNobody(t *testing.T) {
	assert.True(t, new(Answers).None())
	for _, a := range []Answers{{Elsewhere: []Key{{}}}, {Vetoes: []VetoAnswer{{}}}, {Chats: []ChatAnswer{{}}}} {
		assert.False(t, a.None())
	}
}

// A call reaches a device also if that was rung for it before.
func TestReachedBefore(t *testing.T) {
	a := newTold(t, nil, registered("n1", "n2")...)
	call := Stanza{ID: "c", From: "romeo@example.net/orchard", To: juliet, Kind: KindMessage, Class: ClassUrgent, Content: ContentCall, Details: &Details{Call: &Call{ID: "c1"}}}
	a.Handle(Offline{juliet, call}, Facts{Now: a.now, Number: 1}, &a.d)
	assert.Equal(t, 2, a.d.Reached())
	require.True(t, a.Remove(registered("n1")[0].Key, ReasonRemoved, &a.e))
	a.Handle(ArchiveAdded{juliet, call}, Facts{Now: a.now, Number: 2}, &a.d)
	assert.False(t, a.d.Notifies())
	assert.Equal(t, 1, a.d.Reached())
}

// What a Store counts for operators.
func TestRegistrationCounts(t *testing.T) {
	s := NewMemoryStore()
	for i, h := range []Health{{}, {Succeeded: newYear}, {Succeeded: newYear}, {Succeeded: newYear, Errors: 1}, {Refusals: 2}, {Refusals: 1}, {Errors: 3}, {Errors: 1, Disabled: newYear}, {Succeeded: newYear, Disabled: newYear}} {
		r := registered(fmt.Sprint("n", i))[0]
		r.Account = fmt.Sprintf("u%d@example.com", i%3)
		r.Health = h
		_, err := s.Enable(t.Context(), r, 0)
		require.NoError(t, err)
	}
	c, err := s.Count(t.Context())
	require.NoError(t, err)
	assert.Equal(t, RegistrationCounts{Enabled: 2, Untried: 1, Failing: 4, Disabled: 2}, c)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	c, err = s.Count(ended)
	assert.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, c)
	_, err = s.Enable(t.Context(), registered("one more")[0], 0)
	require.NoError(t, err, "counting left the store as it was")
}

// What the inspector shows of an account.
func TestStatus(t *testing.T) {
	r := registered("n1")
	r[0].Options = []Field{{Var: "secret", Values: []string{"s"}}}
	a := NewAccount(juliet, nil, r)
	var d Decision
	for _, s := range []SessionOpen{
		{Session: SessionID{Account: juliet, ID: "s1"}, JID: juliet + "/phone"},
		{Session: SessionID{Account: juliet, ID: "s2"}, JID: juliet + "/laptop", Client: "id2"},
	} {
		a.Handle(s, Facts{Now: newYear}, &d)
	}
	st := a.Status(newYear)
	assert.Equal(t, []SessionStatus{{ID: "s1", Resource: "phone"}, {ID: "s2", Client: "id2"}}, st.Sessions, "of a session with a client ID that names the device")
	assert.Zero(t, st.Registrations[0].Waiting)
	assert.Zero(t, st.Registrations[0].NextTry)
	st.Registrations[0].Options[0].Values[0] = "mine"
	for _, id := range []string{"m1", "m2"} {
		a.Handle(Offline{juliet, message(id)}, Facts{Now: newYear, Number: 1}, &d)
	}
	st = a.Status(newYear)
	assert.Equal(t, 2, st.Registrations[0].Waiting)
	assert.Equal(t, 2, st.Registrations[0].Unread)
	assert.WithinDuration(t, newYear, st.Registrations[0].NextTry, time.Second)
	assert.Equal(t, "s", st.Registrations[0].Options[0].Values[0], "it is a copy")
}

// sparse gives nothing n times before what r gives.
type sparse struct {
	xml.TokenReader
	n int
}

func (r *sparse) Token() (xml.Token, error) {
	if r.n > 0 {
		r.n--
		return nil, nil
	}
	return r.TokenReader.Token()
}

// How much a reader of tokens may give of nothing, and of something.
func TestReadStanzaWithinLimits(t *testing.T) {
	for n, want := range map[int]error{100: nil, 101: io.ErrNoProgress} {
		_, err := ReadStanza("1", &sparse{xml.NewDecoder(strings.NewReader(`<message/>`)), n})
		assert.True(t, errors.Is(err, want), "%d: %v", n, err)
	}
	for n, want := range map[int]error{0: nil, 1: ErrStanza} {
		text := `<message a="b"><body>` + strings.Repeat("x", MaxStanzaBytes-len("message"+"a"+"b"+"body")+n) + `</body></message>`
		_, err := ReadStanza("1", xml.NewDecoder(strings.NewReader(text)))
		assert.True(t, errors.Is(err, want), "%d: %v", n, err)
	}
}

// Of several matches of Push 2.0 that let a stanza through, one that carries content is chosen, and the shortest grace holds.
func TestMatchesOfPush2(t *testing.T) {
	send := &wishes.WebPush{}
	key := Key{Service: "push.example.net", Node: Push2Node + "phone"}
	phone := SessionID{Account: juliet, ID: "desk"}
	for _, c := range []struct {
		matches []wishes.Match
		match   int
		carries int
		after   time.Duration
	}{
		{[]wishes.Match{{}}, 1, 0, 0},
		{[]wishes.Match{{}, {Send: send}}, 2, 1, 0},
		{[]wishes.Match{{Send: send}, {}}, 1, 1, 0},
		{[]wishes.Match{{Send: send}, {Send: send}}, 1, 1, 0},
		{[]wishes.Match{{Grace: time.Minute}, {Grace: time.Hour}}, 1, 0, time.Minute},
		{[]wishes.Match{{Grace: time.Hour}, {Grace: time.Minute}}, 1, 0, time.Minute},
		{[]wishes.Match{{Grace: time.Hour}, {Profile: wishes.MatchArchived}}, 1, 0, time.Hour},
		{[]wishes.Match{{Profile: wishes.MatchArchived, Send: send}, {}}, 2, 0, 0},
	} {
		r := Registration{Account: juliet, Key: key, Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c"), Matches: c.matches}}}
		a := newTold(t, nil, r)
		a.Handle(SessionOpen{Session: phone, JID: juliet + "/desk"}, Facts{Now: a.now}, &a.d)
		a.Handle(SessionActive{phone}, Facts{Now: a.now}, &a.d)
		a.message()
		require.Len(t, a.d.Verdicts, 1)
		assert.Equal(t, c.match, a.d.Verdicts[0].Match, "%+v", c.matches)
		if c.after > 0 {
			assert.Equal(t, a.now.Add(c.after), a.Next().UTC(), "%+v", c.matches)
			a.now = a.Next()
		}
		assert.Len(t, a.begin().Carried, c.carries, "%+v", c.matches)
	}

	// The end of a call goes by any match, with content if there is one that carries it. That of XEP-0357 has none.
	for _, matches := range [][]wishes.Match{nil, {{}}, {{}, {Send: send}}} {
		r := registered("n1")[0]
		if matches != nil {
			r.Key, r.Wishes = key, &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c"), Matches: matches}}
		}
		a := newTold(t, nil, r)
		for _, content := range []Content{ContentCall, ContentCallEnd} {
			a.message(func(st *Stanza) {
				st.Content, st.Class = content, content.Class()
				st.Details = &Details{Call: &Call{ID: "c1"}}
				if content == ContentCallEnd {
					st.Details.Call.Action = CallRetract
				}
			})
			require.True(t, a.d.Notifies())
			assert.Equal(t, len(matches), a.d.Verdicts[0].Match)
			assert.Len(t, a.begin().Carried, max(len(matches)-1, 0))
			a.end(Reply{})
			a.now = a.now.Add(time.Minute / 2)
		}
	}
}
