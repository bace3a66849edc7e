package push_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// told notifies n1 of a message, and answers the publish.
func told(t *testing.T, a *Account, id string, now time.Time) {
	t.Helper()
	var d Decision
	a.Handle(Offline{juliet, Stanza{ID: id, Class: ClassImportant, Kind: KindMessage, From: "romeo@example.net", To: juliet}}, Facts{Now: now}, &d)
	require.True(t, d.Notifies(), id)
	for _, k := range a.Due(now, nil, &d.Effects) {
		_, ok := a.Begin(k, now, &d.Effects)
		require.True(t, ok)
		a.End(k, Reply{}, now, &d.Effects)
	}
}

func seen(a *Account, id string, now time.Time) bool {
	var d Decision
	a.Handle(Offline{juliet, Stanza{ID: id, Class: ClassImportant, Kind: KindMessage, From: "romeo@example.net", To: juliet}}, Facts{Now: now}, &d)
	return !d.Notifies() && d.Verdicts[0].Reason == ReasonSeen
}

// What was notified is remembered for as long as its stanzas can come back: while there is a session, and until a while after the last has ended.
func TestPruneKeepsWhatCanComeBack(t *testing.T) {
	p := &Policy{RememberFor: 10 * time.Minute, MaxResume: 72 * time.Hour}
	s := SessionID{Account: juliet, ID: "s1"}
	var d Decision
	a := NewAccount(juliet, p, registered("n1"))
	now := newYear
	a.Handle(SessionOpen{Session: s, JID: juliet + "/x"}, Facts{Now: now}, &d)
	told(t, a, "m1", now)
	now = now.Add(time.Hour)
	a.Prune(now)
	assert.True(t, seen(a, "m1", now), "a session is there")
	a.Handle(SessionClose{s}, Facts{Now: now}, &d)
	now = now.Add(9 * time.Minute)
	a.Prune(now)
	assert.True(t, seen(a, "m1", now), "it has just ended")
	now = now.Add(time.Minute)
	a.Prune(now)
	assert.False(t, seen(a, "m1", now))

	a = NewAccount(juliet, p, registered("n1"))
	told(t, a, "m1", now)
	now = now.Add(11 * time.Minute)
	a.Prune(now)
	assert.False(t, seen(a, "m1", now), "there was no session")
}

// What waits, or is in flight, is not forgotten before it is sent: it must not come to wait twice.
func TestPruneKeepsWhatWaits(t *testing.T) {
	a := NewAccount(juliet, &Policy{RememberFor: time.Minute}, registered("n1"))
	k := registered("n1")[0].Key
	var d Decision
	now := newYear
	a.Handle(Offline{juliet, Stanza{ID: "m1", Class: ClassImportant}}, Facts{Now: now}, &d)
	now = now.Add(time.Hour)
	assert.False(t, a.Prune(now))
	assert.True(t, seen(a, "m1", now), "it waits")
	_, ok := a.Begin(k, now, &d.Effects)
	require.True(t, ok)
	assert.False(t, a.Prune(now))
	assert.True(t, seen(a, "m1", now), "it is in flight")
}

// An account is not idle as long as the time between two publishes is not over: another would come too early.
func TestIntervalIsNotIdle(t *testing.T) {
	a := NewAccount(juliet, &Policy{RememberFor: time.Minute, MinInterval: time.Hour}, registered("n1"))
	told(t, a, "m1", newYear)
	assert.False(t, a.Idle(newYear.Add(30*time.Minute)))
	assert.True(t, a.Idle(newYear.Add(time.Hour)))
}

// What is too old when its time has come is dropped, and nothing is handed out.
func TestDueOfWhatIsTooOld(t *testing.T) {
	a := NewAccount(juliet, &Policy{Expire: time.Minute}, registered("n1"))
	var d Decision
	a.Handle(Offline{juliet, Stanza{ID: "m1", Class: ClassImportant}}, Facts{Now: newYear}, &d)
	var e Effects
	assert.Empty(t, a.Due(newYear.Add(time.Minute), nil, &e))
	require.Len(t, e.Drops, 1)
	assert.Equal(t, ReasonTooOld, e.Drops[0].Reason)
	_, ok := a.Begin(registered("n1")[0].Key, newYear.Add(time.Minute), &e)
	assert.False(t, ok, "nothing waits")
	assert.Equal(t, Result{}, a.End(registered("n1")[0].Key, Reply{}, newYear, &e), "nothing is in flight")
	assert.Equal(t, Result{}, a.End(Key{Service: "nowhere"}, Reply{}, newYear, &e))
}

// What another node has notified of is remembered once, whatever is named how often.
func TestNotifiedElsewhere(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1"))
	k := registered("n1")[0].Key
	assert.True(t, a.Notified(k, newYear, "m1", "", "m1"))
	assert.True(t, a.Notified(k, newYear, "m1"))
	assert.False(t, a.Notified(Key{Service: "nowhere"}, newYear, "m1"))
	assert.True(t, seen(a, "m1", newYear))
	restored(t, a, nil, newYear)
}

// Registrations that another node has changed are taken over, those of other accounts are not.
func TestLoadOfWhatOthersChanged(t *testing.T) {
	dead := registered("n1", "n2")
	dead[0].Health.Disabled = newYear
	a := NewAccount(juliet, nil, dead)
	var e Effects
	foreign := registered("n1", "n2")
	foreign[1].Account = "romeo@example.com"
	a.Load(foreign, newYear, &e)
	assert.Equal(t, []Change{
		{Key: foreign[1].Key, Kind: ChangeRemoved, Reason: ReasonRemoved},
		{Key: foreign[0].Key, Kind: ChangeEnabled, Reason: ReasonElsewhere},
	}, e.Changes)
	assert.Len(t, a.Registrations(), 1)
}

func TestReadReply(t *testing.T) {
	const e = `<error type="wait"><resource-constraint xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>`
	for _, c := range []struct {
		text string
		want *ReplyError
		err  error
	}{
		{`<iq from="a.example" type="result"/>`, nil, nil},
		{`<iq from="a.example" type="error">` + e + `</iq>`, &ReplyError{"wait", "resource-constraint"}, nil},
		{`<message from="a.example" type="error">` + e + `</message>`, &ReplyError{"wait", "resource-constraint"}, nil},
		{`<iq from="a.example" type="get"/>`, nil, ErrNotPush},
		{`<iq from="a.example"/>`, nil, ErrNotPush},
		{`<message from="a.example" type="result"/>`, nil, ErrNotPush},
		{`<message from="a.example"/>`, nil, ErrNotPush},
		{`<presence from="a.example" type="error">` + e + `</presence>`, nil, ErrNotPush},
		{`<iq from="a.example" type="error"/>`, &ReplyError{"cancel", "undefined-condition"}, nil},
		{`<iq from="a.example" type="error"><error xmlns="urn:x" type="auth"/>` + e + `</iq>`, &ReplyError{"wait", "resource-constraint"}, nil},
		{`<iq from="a.example" type="error"><publish type="auth"/>` + e + `</iq>`, &ReplyError{"wait", "resource-constraint"}, nil},
		{`<iq from="a.example" type="error">` + e + strings.Replace(e, "wait", "auth", 1) + `</iq>`, &ReplyError{"wait", "resource-constraint"}, nil},
		{`<iq from="a.example" type="error"><error type="modify"><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">no</text><bad-request xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/><gone xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, &ReplyError{"modify", "bad-request"}, nil},
		{`<iq from="a.example" type="error"><error type="modify"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/><payload-too-big xmlns="http://jabber.org/protocol/pubsub#errors"/></error></iq>`, &ReplyError{"modify", "payload-too-big"}, nil},
		{`<iq from="a.example" type="error"><error type="no"><` + strings.Repeat("x", 64) + ` xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, &ReplyError{"cancel", strings.Repeat("x", 64)}, nil},
		{`<iq from="a.example" type="error"><error type="no"><` + strings.Repeat("x", 65) + ` xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, &ReplyError{"cancel", "undefined-condition"}, nil},
		{`<iq from="a.example" type="error"><error type="auth"><aZ xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, &ReplyError{"auth", "undefined-condition"}, nil},
		{`<iq from="a.example" type="error"><error type="auth"><gön xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, &ReplyError{"auth", "undefined-condition"}, nil},
		{`<iq from="a.example" type="error"><error type="auth"><az-za xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, &ReplyError{"auth", "az-za"}, nil},
	} {
		from, got, err := ReadReply(xml.NewDecoder(strings.NewReader(c.text)))
		assert.Equal(t, c.want, got, c.text)
		require.ErrorIs(t, err, c.err, c.text)
		if c.err == nil {
			assert.Equal(t, "a.example", from)
		}
	}
	for _, broken := range []string{``, `x`, `<iq from="a.example" type="error"><error>`, `<iq from="a.example" type="error"><error type="wait"></iq>`} {
		_, _, err := ReadReply(xml.NewDecoder(strings.NewReader(broken)))
		require.Error(t, err, broken)
		require.False(t, errors.Is(err, io.EOF) && !errors.Is(err, ErrStanza), broken)
	}
}
