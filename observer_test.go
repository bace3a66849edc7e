package push_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// An observer knows the registrations that were stored before the first event it is told of.
func TestObserverIsToldWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore()
		stored := Registration{Account: juliet, Key: phone, Client: "client"}
		_, err := store.Enable(t.Context(), stored, 5)
		require.NoError(t, err)
		var told []string
		e := newEngine(t, Config{Publisher: &service{}, Store: store, Observer: &Observer{
			Read: func(account string, _ time.Time, rs []Registration) {
				told = append(told, "read "+account)
				for _, r := range rs {
					told = append(told, r.Client+" "+r.Node)
				}
			},
			Decided: func(_ uint64, _ time.Time, ev Event, d *Decision, _ time.Duration) { told = append(told, ev.Name()) },
		}})
		handle(t, e, SessionOpen{Session: phoneSession}, ArchiveAdded{Account: juliet, Stanza: message("m1")})
		assert.Equal(t, []string{"session-open", "read " + juliet, "client phone", "archive-added"}, told)

		synctest.Wait() // the store is told that it was accepted
		told = nil
		remove(t, store, phone)
		require.NoError(t, e.Refresh(t.Context(), juliet))
		assert.Equal(t, []string{"read " + juliet}, told)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestObserversPanic has one Observer that panics before another: that is told all the same, and the panics are counted.
func TestObserversPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		bad := &Observer{
			Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { panic("decided") },
			Sent:    func(time.Time, *Notification) { panic("sent") },
			Started: func(time.Time, string, Policy) { panic("started") },
		}
		good := &Observer{
			Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { told++ },
			Sent:    func(time.Time, *Notification) { told++ },
			Started: func(time.Time, string, Policy) { told++ },
		}
		e := newEngine(t, Config{Publisher: &service{}, Observer: Observers(bad, good)})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		require.NoError(t, e.Close(t.Context()))
		assert.Equal(t, 4, told)
		assert.EqualValues(t, 4, e.Hooks()[0].Panics)
	})
}
