package push_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

const juliet = "juliet@example.com"

var (
	phone        = Key{Service: "push.example.net", Node: "phone"}
	phoneSession = SessionID{Account: juliet, ID: "s1"}
)

// service is a push service that notes what it is sent, and answers as it is told.
type service struct {
	mu     sync.Mutex
	got    []Notification
	answer func(n *Notification) error
}

func (s *service) Publish(ctx context.Context, n *Notification) error {
	s.mu.Lock()
	c := *n
	s.got = append(s.got, c)
	answer := s.answer
	s.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(n)
}

func (s *service) published() []Notification {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Notification(nil), s.got...)
}

func newEngine(t *testing.T, cfg Config) *Engine {
	t.Helper()
	cfg.Host = "example.com"
	if p := &cfg.Policy; p.MinInterval == 0 { // the shell's tests are not about the pacing, whose own are in testdata/rules
		p.MinInterval, p.DelayImportant = -1, true
	}
	if cfg.Policy.Expire == 0 {
		cfg.Policy.Expire = 10 * time.Minute
	}
	e, err := New(cfg)
	require.NoError(t, err)
	return e
}

func handle(t *testing.T, e *Engine, evs ...Event) Decision {
	t.Helper()
	var d Decision
	for _, ev := range evs {
		var err error
		d, err = e.Handle(t.Context(), ev)
		require.NoError(t, err, ev.Name())
	}
	return d
}

func message(id string) Stanza {
	return Stanza{ID: id, From: "romeo@example.net/orchard", To: juliet, Class: ClassImportant, Body: "wherefore"}
}

func TestEngineStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		e := newEngine(t, Config{Publisher: &svc})
		d := handle(t, e, SessionOpen{Session: phoneSession, JID: juliet + "/phone"}, PushEnable{Session: phoneSession, Key: phone})
		require.Len(t, d.Changes, 1)
		assert.Equal(t, ChangeAdded, d.Changes[0].Kind)

		d = handle(t, e, ArchiveAdded{Account: juliet, Stanza: message("m1")})
		assert.Equal(t, ReasonLive, d.Verdicts[0].Reason)

		d = handle(t, e, HibernationStart{Session: phoneSession, Stanzas: []Stanza{message("m1")}})
		assert.True(t, d.Notifies())
		synctest.Wait()
		require.Len(t, svc.published(), 1)
		assert.Equal(t, 1, svc.published()[0].Unread)
		assert.Equal(t, "New Message!", svc.published()[0].Body, "the stand-in, not the text")

		handle(t, e, StanzaQueued{phoneSession, message("m2")}, StanzaQueued{phoneSession, message("m3")})
		synctest.Wait()
		assert.Len(t, svc.published(), 1, "they wait for more")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, svc.published(), 2)
		assert.Equal(t, 3, svc.published()[1].Unread)
		assert.Equal(t, 2, svc.published()[1].Count)

		handle(t, e, StanzaQueued{phoneSession, message("m4")})
		d = handle(t, e, HibernationEnd{phoneSession})
		require.Len(t, d.Drops, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Len(t, svc.published(), 2, "resumed in time")
		require.NoError(t, e.Close(t.Context()))
		_, err := e.Handle(t.Context(), HibernationEnd{phoneSession})
		assert.ErrorIs(t, err, ErrClosed)
	})
}

func TestEngineRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		fail.Store(true)
		svc := service{}
		svc.answer = func(*Notification) error {
			if fail.Load() {
				return &ReplyError{Type: "wait", Condition: "resource-constraint"}
			}
			return nil
		}
		e := newEngine(t, Config{Publisher: &svc})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		synctest.Wait()
		require.Len(t, svc.published(), 1)
		time.Sleep(time.Minute)
		assert.Greater(t, len(svc.published()), 2)
		fail.Store(false)
		time.Sleep(5 * time.Minute)
		n := len(svc.published())
		assert.Less(t, n, 9)
		assert.Equal(t, n, svc.published()[n-1].Try)
		time.Sleep(time.Hour)
		assert.Len(t, svc.published(), n)
		require.NoError(t, e.Close(t.Context()))
	})
}

func TestEngineGivesUpWhatIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return errors.New("no route") }}
		var drops []Drop
		e := newEngine(t, Config{Publisher: &svc, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) {
			drops = append(drops, eff.Drops...)
		}}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, drops, 1)
		assert.Equal(t, ReasonTooOld, drops[0].Reason)
		require.NoError(t, e.Close(t.Context()))
	})
}

func TestCloseReportsWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return errors.New("no route") }}
		e := newEngine(t, Config{Publisher: &svc})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, StanzaQueued{phoneSession, message("m1")})
		err := e.Close(t.Context())
		var unsent *UnsentError
		require.ErrorAs(t, err, &unsent)
		require.Len(t, unsent.Unsent, 1)
		assert.Equal(t, 1, unsent.Unsent[0].Count)
		assert.NotEmpty(t, svc.published(), "it was tried")
		require.NoError(t, e.Close(t.Context()))
	})
}
