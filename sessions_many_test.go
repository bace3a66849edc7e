package push_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// TestSessionsThatNeverEnd has a host that never raises SessionClose: what is kept of the account is bounded, what the user's devices are told stays as it
// was, and the host is told what it does wrong.
func TestSessionsThatNeverEnd(t *testing.T) {
	const most = 128
	open := func(i int) SessionOpen {
		return SessionOpen{Session: SessionID{juliet, fmt.Sprint("s", i)}, JID: fmt.Sprint(juliet, "/r", i)}
	}
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	tell := func(t *testing.T, a *Account, ev Event) (d Decision) {
		t.Helper()
		now = now.Add(time.Second)
		a.Handle(ev, Facts{Now: now}, &d)
		return d
	}
	has := func(a *Account, id string) bool {
		for _, s := range a.Status(now).Sessions {
			if s.ID == id {
				return true
			}
		}
		return false
	}

	t.Run("the oldest that is not bound is over", func(t *testing.T) {
		a := NewAccount(juliet, nil, nil)
		tell(t, a, open(0))
		tell(t, a, PushEnable{Session: open(0).Session, Key: phone})
		for i := 1; i < most; i++ {
			assert.Equal(t, ReasonNone, tell(t, a, open(i)).Reason)
		}
		assert.Len(t, a.Status(now).Sessions, most)
		assert.Equal(t, ReasonNone, tell(t, a, open(1)).Reason, "known already")
		assert.Equal(t, ReasonTooManySessions, tell(t, a, open(most)).Reason)
		assert.Len(t, a.Status(now).Sessions, most)
		assert.True(t, has(a, "s0"), "it is bound")
		assert.False(t, has(a, "s1"))
		assert.Equal(t, ReasonUnknownSession, tell(t, a, SessionActive{Session: open(1).Session}).Reason)
		assert.Equal(t, ReasonTooManySessions, tell(t, a, SessionRestored{Session: open(most + 1).Session, JID: open(0).JID}).Reason)
		assert.False(t, has(a, "s2"))
		assert.Equal(t, ReasonLive, tell(t, a, ArchiveAdded{juliet, message("m1")}).Verdicts[0].Reason)
		tell(t, a, SessionClose{Session: open(3).Session})
		assert.Equal(t, ReasonNone, tell(t, a, open(most+2)).Reason, "there is room")
	})
	t.Run("as many as are bound", func(t *testing.T) {
		a := NewAccount(juliet, &Policy{MaxRegistrations: 2 * most}, nil)
		for i := range most + 20 {
			tell(t, a, open(i))
			tell(t, a, PushEnable{Session: open(i).Session, Key: node(fmt.Sprint(i))})
		}
		assert.Len(t, a.Status(now).Sessions, most+20)
	})
	t.Run("before the registrations are read", func(t *testing.T) {
		a := OpenAccount(juliet, nil)
		tell(t, a, SessionRestored{Session: open(0).Session, JID: open(0).JID, Bound: phone, IsBound: true, Hibernated: true, Extended: true})
		var d Decision
		for i := range most {
			d = tell(t, a, open(i+1))
		}
		assert.Equal(t, []Advice{{open(0).Session, 0, ReasonTooManySessions}}, d.Advice, "the host need not keep it for longer")
	})
	t.Run("Strict says so", func(t *testing.T) {
		e := newEngine(t, Config{Publisher: &service{}, Strict: true})
		for i := range most {
			handle(t, e, open(i))
		}
		_, err := e.Handle(t.Context(), open(most))
		require.ErrorIs(t, err, ErrMisuse)
		require.ErrorContains(t, err, "SessionClose")
		assert.Equal(t, "sessions", e.Misuses()[0].Kind)
	})
}
