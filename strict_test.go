package push_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// TestStrict is wrong use of an Engine with Config.Strict: an error with what to do, and else nothing is different.
func TestStrict(t *testing.T) {
	s := phoneSession
	open := SessionOpen{Session: s, JID: juliet + "/phone"}
	enable := PushEnable{Session: s, Key: phone}
	nameless := message("")
	other := message("m1")
	other.Body = "another text"
	odd := message("m2")
	odd.From = "Romeo@Example.net"
	for name, c := range map[string]struct {
		evs  []Event
		kind string // of the last event's error; empty: none
		text string
	}{
		"good": {[]Event{open, enable, AckDelayed{s, []Stanza{message("m1")}}, Acknowledged{s, []string{"m1"}}, HibernationStart{s, []Stanza{message("m2")}}, StanzaQueued{s, message("m3")},
			HibernationEnd{s}, Acknowledged{s, []string{"m2", "m3"}}, SessionClose{s}, Offline{juliet, message("m1")}}, "", ""},
		"good restored":        {[]Event{SessionRestored{Session: s, JID: juliet + "/phone", Bound: phone, IsBound: true, Hibernated: true}, HibernationEnd{s}, SessionClose{s}}, "", ""},
		"good, not resumed":    {[]Event{open, enable, HibernationStart{s, []Stanza{message("m2")}}, SessionClose{s}}, "", ""},
		"closed twice":         {[]Event{open, SessionClose{s}, SessionClose{s}}, "", ""},
		"account":              {[]Event{Offline{"Juliet@Example.org", message("m1")}}, "jid", "prepared form"},
		"account, full":        {[]Event{Offline{juliet + "/phone", message("m1")}}, "jid", "bare JID"},
		"no JID":               {[]Event{Offline{"juliet@@", message("m1")}}, "jid", "prepared form"},
		"sender":               {[]Event{Offline{juliet, odd}}, "jid", "Romeo@Example.net"},
		"service":              {[]Event{open, PushEnable{Session: s, Key: Key{Service: "Push.Example.net"}}}, "jid", "its service"},
		"JID of another":       {[]Event{SessionOpen{Session: s, JID: "romeo@example.com/phone"}}, "jid", "not a full JID of account"},
		"JID that is bare":     {[]Event{SessionOpen{Session: s, JID: juliet}}, "jid", "not a full JID"},
		"no ID":                {[]Event{Offline{juliet, nameless}}, "stanza-without-id", "stanza-id"},
		"no ID in a queue":     {[]Event{open, HibernationStart{s, []Stanza{message("m1"), nameless}}}, "stanza-without-id", "stanza-id"},
		"ID twice":             {[]Event{ArchiveAdded{juliet, message("m1")}, Offline{juliet, other}}, "stanza-id", "another text"},
		"never opened":         {[]Event{StanzaQueued{s, message("m1")}}, "session", "SessionOpen"},
		"never opened, active": {[]Event{SessionActive{s}}, "session", "SessionOpen"},
		"after its end":        {[]Event{open, SessionClose{s}, HibernationStart{s, nil}}, "session", "nothing after SessionClose"},
		"opened twice":         {[]Event{open, open}, "session", "never used again"},
		"queued while online":  {[]Event{open, StanzaQueued{s, message("m1")}}, "hibernation", "HibernationStart when"},
		"good, resumed before its connection was seen to be lost": {[]Event{open, HibernationEnd{s}}, "", ""},
		"resumed, not opened":                {[]Event{HibernationEnd{s}}, "session", "SessionRestored"},
		"queued after it resumed":            {[]Event{open, HibernationStart{s, nil}, HibernationEnd{s}, StanzaQueued{s, message("m1")}}, "hibernation", "HibernationStart when"},
		"restored JID":                       {[]Event{SessionRestored{Session: s, JID: "Juliet@example.com/phone"}}, "jid", "its JID"},
		"begun twice, restored":              {[]Event{SessionRestored{Session: s, Hibernated: true}, HibernationStart{s, nil}}, "hibernation", "once"},
		"good, begun after it was restored":  {[]Event{SessionRestored{Session: s}, HibernationStart{s, nil}}, "", ""},
		"good, resumed with nothing owed":    {[]Event{open, enable, AckDelayed{s, nil}, HibernationStart{s, nil}, HibernationEnd{s}, SessionClose{s}}, "", ""},
		"good, archived and not owed":        {[]Event{open, enable, ArchiveAdded{juliet, message("m1")}, HibernationStart{s, nil}, HibernationEnd{s}, SessionClose{s}}, "", ""},
		"good, opened again under a new ID":  {[]Event{open, SessionClose{s}, SessionOpen{Session: SessionID{juliet, "s2"}}}, "", ""},
		"good, the ID used after its end":    {[]Event{open, SessionClose{s}, open}, "", ""},
		"good, an account that begins again": {[]Event{ArchiveAdded{juliet, message("m1")}, AccountRemoved{juliet}, ArchiveAdded{juliet, other}}, "", ""},
		"good, an event without a text":      {[]Event{ArchiveAdded{juliet, message("m1")}, Offline{juliet, Stanza{ID: "m1", To: juliet}}}, "", ""},
		"recipient":                          {[]Event{Offline{juliet, Stanza{ID: "m1", To: "Juliet@Example.com"}}}, "jid", "a stanza's to"},
		"no ID, other texts":                 {[]Event{open, HibernationStart{s, []Stanza{nameless, {To: juliet, Body: "another"}}}}, "stanza-without-id", "stanza-id"},
		"recipient of one without an ID":     {[]Event{Groupchat{juliet, nameless}}, "stanza-without-id", "stanza-id"},
		"chat":                               {[]Event{Displayed{Account: juliet, Chat: "Romeo@Example.net"}}, "jid", "its chat"},
		"never acknowledged, delayed":        {[]Event{open, enable, AckDelayed{s, []Stanza{message("m1")}}, HibernationStart{s, nil}, HibernationEnd{s}, SessionClose{s}}, "acknowledged", "XEP-0198"},
		"never acknowledged, queued":         {[]Event{open, enable, HibernationStart{s, nil}, StanzaQueued{s, message("m1")}, HibernationEnd{s}, SessionClose{s}}, "acknowledged", "XEP-0198"},
		"begun twice":                        {[]Event{open, HibernationStart{s, nil}, HibernationStart{s, nil}}, "hibernation", "once"},
		"never acknowledged":                 {[]Event{open, enable, HibernationStart{s, []Stanza{message("m1")}}, HibernationEnd{s}, SessionClose{s}}, "acknowledged", "XEP-0198"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lax, strict := newEngine(t, Config{Publisher: &service{}}), newEngine(t, Config{Publisher: &service{}, Strict: true})
				for i, ev := range c.evs {
					want, err := lax.Handle(t.Context(), ev)
					require.NoError(t, err)
					got, err := strict.Handle(t.Context(), ev)
					assert.Equal(t, want.Reason, got.Reason)
					assert.Equal(t, want.Changes, got.Changes)
					assert.Equal(t, len(want.Verdicts), len(got.Verdicts))
					if i < len(c.evs)-1 || c.kind == "" {
						require.NoError(t, err, ev.Name())
						continue
					}
					require.ErrorIs(t, err, ErrMisuse)
					assert.ErrorContains(t, err, ev.Name()+": ")
					assert.ErrorContains(t, err, c.text)
					assert.NotContains(t, err.Error(), "wherefore", "a text")
					require.Len(t, strict.Misuses(), 1)
					m := strict.Misuses()[0]
					assert.Equal(t, MisuseStatus{c.kind, 1, m.Last}, m)
					assert.True(t, strings.HasSuffix(err.Error(), m.Last))
				}
				assert.Empty(t, lax.Misuses())
				pass(time.Minute)
				require.NoError(t, lax.Close(t.Context()))
				require.NoError(t, strict.Close(t.Context()))
			})
		})
	}
	t.Run("several", func(t *testing.T) {
		e := newEngine(t, Config{Publisher: &service{}, Strict: true})
		bad := message("m1")
		bad.From = "Romeo@Example.net"
		for range 10 {
			_, err := e.Handle(t.Context(), HibernationStart{s, []Stanza{nameless, bad}})
			var kinds []string
			for _, m := range e.Misuses() {
				kinds = append(kinds, m.Kind)
			}
			assert.Equal(t, []string{"jid", "session", "stanza-without-id"}, kinds)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, 3, err)
			for i, text := range []string{"a stanza has no ID", "a stanza's from", "session"} {
				assert.Contains(t, lines[i], text, "in an order that stays the same")
			}
		}
		for _, m := range e.Misuses() {
			assert.EqualValues(t, 10, m.Times)
		}
		require.NoError(t, e.Close(t.Context()))
		_, err := e.Handle(t.Context(), Offline{juliet, bad})
		require.ErrorIs(t, err, ErrClosed, "what is refused is not judged")
		assert.Len(t, e.Misuses(), 3)
	})
	t.Run("bounded", func(t *testing.T) { // it knows texts and accounts for a while
		e := newEngine(t, Config{Publisher: &service{}, Strict: true})
		again := func(stanzas, accounts int) error {
			_, err := e.Handle(t.Context(), Offline{juliet, message("m1")})
			require.NoError(t, err)
			for i := range stanzas {
				st := message(fmt.Sprint("other", i))
				handle(t, e, Offline{juliet, st})
			}
			for i := range accounts {
				handle(t, e, Ping{Account: fmt.Sprintf("user%d@example.com", i)})
			}
			_, err = e.Handle(t.Context(), Offline{juliet, other})
			handle(t, e, AccountRemoved{juliet})
			return err
		}
		assert.ErrorIs(t, again(1022, 9_999), ErrMisuse)
		assert.NoError(t, again(1023, 0))
		assert.NoError(t, again(0, 10_000))
		require.NoError(t, e.Close(t.Context()))
	})
	e := newEngine(t, Config{Publisher: &service{}, Strict: true})
	_, err := e.Handle(t.Context(), &open)
	require.ErrorIs(t, err, ErrEvent, "what is refused without Strict is refused")
	assert.NotErrorIs(t, err, ErrMisuse)
	require.NoError(t, e.HandleTo(context.Background(), open, nil))
	require.NoError(t, e.Close(t.Context()))
}
