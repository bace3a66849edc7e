package push_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// What cannot work is refused by New, with what to do.
func TestValidateHooks(t *testing.T) {
	var none *faultyHost
	for what, cfg := range map[string]Config{
		"Router without Send": {Publisher: &Router{}},
		"nil *push.Router":    {Publisher: (*Router)(nil)},
		"Config.Unread":       {Publisher: &service{}, Unread: none},
		"Config.Veto":         {Publisher: &service{}, Veto: none},
		"Config.Store":        {Publisher: &service{}, Store: (*MemoryStore)(nil)},
		"Router of":           {Publisher: &Router{Host: "other.example", Send: func(context.Context, string, []byte) error { return nil }}},
	} {
		cfg.Host = "example.com"
		_, err := New(cfg)
		assert.ErrorContains(t, err, what)
	}
	e := newEngine(t, Config{Publisher: &service{}})
	_, err := e.Handle(t.Context(), &Offline{juliet, message("m1")})
	assert.ErrorIs(t, err, ErrEvent)
	assert.ErrorContains(t, err, "not a pointer")
	require.NoError(t, e.Close(t.Context()))
	assert.True(t, ReplyOf((*ReplyError)(nil)).OK())
}

// A Store that hangs takes no slot of a push service, and a hook that hangs is no fault of the service.
func TestHangingHostCostsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		var svc service
		e := newEngine(t, Config{
			Publisher: &svc, Policy: Policy{ServiceInFlight: 4},
			Store: &hookedStore{Store: NewMemoryStore(), before: func(_ context.Context, m, _ string) error {
				if m == "Update" {
					<-free
				}
				return nil
			}},
			Unread: unread(func(account string) (int, error) {
				if account == juliet {
					<-free
				}
				return 1, nil
			}),
		})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		for i := range 400 {
			account := fmt.Sprintf("user%d@example.com", i)
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Offline{account, Stanza{ID: "m1", Class: ClassUrgent}})
		}
		synctest.Wait()
		assert.Len(t, svc.published(), 400)
		handle(t, e, PushDisable{SessionID{Account: juliet}, phone})
		pass(time.Minute)
		assert.Len(t, svc.published(), 400, "what was disabled while the host was asked is not sent")
		assert.False(t, e.Services()[0].Broken)
		assert.Equal(t, 400, e.Store().Unwritten)
		close(free)
		pass(time.Minute)
		assert.Zero(t, e.Store().Unwritten)
		require.NoError(t, e.Close(t.Context()))
	})
}

// Services that failed once are forgotten, and what is enabled and disabled in a loop leaves nothing at one that is dead.
func TestNothingIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return errors.New("no route") }}
		e := newEngine(t, Config{Publisher: &svc})
		for i := range 5000 {
			k := Key{Service: "dead.example.net", Node: fmt.Sprint(i)}
			if i < 500 {
				k.Service = fmt.Sprintf("push%d.example.net", i)
			}
			handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: k}, Ping{Account: juliet}, PushDisable{SessionID{Account: juliet}, k})
		}
		synctest.Wait()
		for _, s := range e.Services() {
			assert.LessOrEqual(t, s.Waiting, 1100, s.Service)
		}
		pass(time.Hour)
		assert.Empty(t, e.Services())
		require.NoError(t, e.Close(t.Context()))
	})
}

// A disable removes what another process has added, and says so.
func TestDisableOfWhatOthersAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &service{}, Store: memory})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
		keep(t, memory, juliet, node("theirs"))
		d := handle(t, e, PushDisable{phoneSession, Key{Service: phone.Service}})
		assert.Len(t, d.Changes, 2)
		assert.Empty(t, stored(t, memory, juliet))
		require.NoError(t, e.Close(t.Context()))
	})
}
