package push_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// listing is a Store whose List takes a while, of its own choice for each account. It returns what was stored when it was called.
func listing(s Store, takes func(account string) (time.Duration, error)) *hookedStore {
	var failed sync.Map
	return &hookedStore{
		Store: s,
		before: func(_ context.Context, method, account string) error {
			if method != "List" {
				return nil
			}
			d, err := takes(account)
			failed.Store(account, d)
			if err != nil {
				time.Sleep(d)
			}
			return err
		},
		lists: func(account string, rs []Registration) []Registration {
			if d, ok := failed.Load(account); ok {
				time.Sleep(d.(time.Duration))
			}
			return rs
		},
	}
}

// TestSlowReads has the Store take its time over registrations that an event needs: the event waits, but not for long, and others not at all.
func TestSlowReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		memory := NewMemoryStore()
		accounts := []string{juliet, "nurse@example.com", "romeo@example.com", "friar@example.com"}
		for _, account := range accounts {
			keep(t, memory, account, phone)
		}
		var told, friar atomic.Int32
		keep(t, memory, "mercutio@example.com", phone)
		e := newEngine(t, Config{Publisher: &svc, Observer: &Observer{Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { told.Add(1) }},
			Store: listing(memory, func(account string) (time.Duration, error) {
				switch account {
				case juliet:
					return 3 * time.Second, nil
				case "nurse@example.com":
					return 8 * time.Second, nil
				case "friar@example.com":
					friar.Add(1)
					return 0, errFault
				}
				return 0, nil
			})})
		began := time.Now()
		at := func(d time.Duration) { t.Helper(); assert.Equal(t, d, time.Since(began)) }
		deferred := func(ev Event) {
			t.Helper()
			d := handle(t, e, ev)
			assert.Equal(t, ReasonDeferred, d.Reason)
			assert.False(t, d.Notifies())
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			d := handle(t, e, Offline{juliet, message("m1")})
			at(3 * time.Second)
			assert.True(t, d.Notifies())
			assert.Equal(t, juliet, d.Account)
			assert.Equal(t, ReasonNone, d.Reason)
			assert.Positive(t, told.Load(), "its observers are told")
		})
		synctest.Wait()
		deferred(SessionOpen{Session: phoneSession}) // it needs none, but comes after
		at(0)
		wg.Go(func() {
			st, err := e.Inspect(t.Context(), juliet)
			assert.NoError(t, err)
			assert.Len(t, st.Registrations, 1, "whoever looks waits, too")
			at(3 * time.Second)
		})
		synctest.Wait()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		st, _ := e.Inspect(ended, juliet)
		at(0)
		assert.Equal(t, 2, st.Deferred)
		assert.Equal(t, StoreStatus{Deferred: 2, Calling: 1}, e.Store())
		handle(t, e, Offline{"romeo@example.com", message("m1")})
		at(0)
		wg.Wait()

		// Longer than Config.HookTimeout.
		wg.Go(func() {
			deferred(Offline{"nurse@example.com", message("m1")})
			at(8 * time.Second)
		})
		time.Sleep(4 * time.Second)
		assert.Equal(t, StoreStatus{Deferred: 1, Calling: 1}, e.Store())
		wg.Wait()
		assert.Equal(t, StoreStatus{Away: true, Deferred: 1, Calling: 1}, e.Store())
		deferred(Offline{"nurse@example.com", message("m2")}) // it is known to be away
		at(8 * time.Second)
		pass(10 * time.Second)
		assert.Equal(t, StoreStatus{}, e.Store())

		// One account's fails, the others' do not.
		began = time.Now()
		deferred(Offline{"friar@example.com", message("m1")})
		handle(t, e, Offline{"paris@example.com", message("m1")})
		synctest.Wait()
		assert.False(t, e.Store().Away)
		deferred(Offline{"friar@example.com", message("m2")})
		at(0)
		_, err := e.Inspect(t.Context(), "friar@example.com")
		require.NoError(t, err)
		at(0)
		assert.EqualValues(t, 1, friar.Load(), "it is read again in its time")
		assert.NotNil(t, inspected(t, e, "mercutio@example.com", SessionOpen{Session: SessionID{"mercutio@example.com", "s"}}).Registrations, "whoever looks has it read")
		require.Error(t, e.Close(t.Context()))
		stanzas := make(map[string]int)
		for _, n := range svc.published() {
			stanzas[n.Account] += n.Count
		}
		assert.Equal(t, map[string]int{juliet: 1, "romeo@example.com": 1, "nurse@example.com": 2}, stanzas)
	})
}

// inspected returns what Inspect does after an event.
func inspected(t *testing.T, e *Engine, account string, ev Event) AccountStatus {
	handle(t, e, ev)
	is, err := e.Inspect(t.Context(), account)
	require.NoError(t, err)
	return is
}

// TestDeferredIsBounded raises more events than are kept of one account, and of accounts that are not known: those that are refused leave nothing behind.
func TestDeferredIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := on()
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		var svc service
		e := newEngine(t, Config{Publisher: &svc, MaxDeferred: 300, Store: &hookedStore{Store: memory, before: failing("List", down)}})
		for i := range 300 {
			_, err := e.Handle(t.Context(), Offline{juliet, message(fmt.Sprint(i))})
			assert.Equal(t, i >= 256, errors.Is(err, ErrStore), i)
		}
		for i := range 300 {
			account := fmt.Sprintf("user%d@example.com", i)
			_, err := e.Handle(t.Context(), Offline{account, message("m1")})
			assert.Equal(t, i >= 44, errors.Is(err, ErrStore), i)
		}
		down.Store(false)
		pass(24 * time.Hour)
		assert.Empty(t, e.Parts())
		assert.Equal(t, 256, svc.published()[0].Count)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestDeferredTextIsBounded: what waits is bounded by what it brings, too. What would go along with no notification is not kept.
func TestDeferredTextIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := on()
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		var svc service
		e := newEngine(t, Config{Publisher: &svc, MaxDeferred: 300, Store: &hookedStore{Store: memory, before: failing("List", down)}})
		large := func(id string, bytes int) Stanza {
			st := message(id)
			st.XML = strings.Repeat("x", bytes)
			return st
		}
		refused := func(ev Event) bool {
			_, err := e.Handle(t.Context(), ev)
			return errors.Is(err, ErrStore)
		}
		for i := range 60 {
			assert.Equal(t, i >= 52, refused(Offline{juliet, large(fmt.Sprint(i), 16<<10)}), i) // each the room of five
		}
		const romeo = "romeo@example.com"
		for i := range 40 {
			assert.Equal(t, i >= 40, refused(ArchiveAdded{romeo, large(fmt.Sprint(i), 1<<20)}), i) // too large to go along
		}
		assert.True(t, refused(Offline{romeo, message("last")}), "there is room for 300 in all")
		assert.Equal(t, 92, e.Store().Deferred)
		down.Store(false)
		pass(24 * time.Hour)
		assert.Empty(t, e.Parts())
		assert.Zero(t, e.Store().Deferred)
		assert.Equal(t, 52, svc.published()[0].Count)

		down.Store(true) // all of the room is there again
		for i := range 300 {
			account := fmt.Sprintf("user%d@example.com", i)
			assert.False(t, refused(Offline{account, message("m1")}), i)
		}
		assert.True(t, refused(Offline{romeo, message("m1")}))
		down.Store(false)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestReadIsTriedAgain has a call of the Store fail of which nobody knows what came: the account is read again by itself.
func TestReadIsTriedAgain(t *testing.T) {
	for name, fails := range map[string]func(t *testing.T, e *Engine){
		"Enable": func(t *testing.T, e *Engine) { // again and again, which puts the reading off no further
			for range 10 {
				_, err := e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: node("other")})
				assert.ErrorIs(t, err, ErrStore)
				time.Sleep(500 * time.Millisecond)
			}
		},
		"Remove": func(t *testing.T, e *Engine) {
			_, err := e.Handle(t.Context(), PushDisable{phoneSession, phone})
			assert.ErrorIs(t, err, ErrStore)
		},
		"List": func(t *testing.T, e *Engine) { assert.ErrorIs(t, e.Refresh(t.Context(), juliet), ErrStore) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := on()
				memory := NewMemoryStore()
				e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(ctx context.Context, method, account string) error {
					if method == "List" && name != "List" {
						return nil
					}
					return failing(name, down)(ctx, method, account)
				}}})
				down.Store(false)
				handle(t, e, SessionOpen{Session: phoneSession})
				for range 4 {
					handle(t, e, PushEnable{Session: phoneSession, Key: phone})
					synctest.Wait()
					down.Store(true)
					remove(t, memory, phone) // by somebody else
					fails(t, e)
					down.Store(false)
					pass(2 * time.Second)
					assert.Equal(t, ReasonNoRegistration, handle(t, e, Offline{juliet, message("m1")}).Reason)
				}
				pass(time.Minute)
				assert.Zero(t, e.Parts()["lanes"])
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestRefreshWhileItIsRead has the first reading of an account fail while somebody says that another node has changed it: what waited is sent when the second one has succeeded.
func TestRefreshWhileItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		memory := NewMemoryStore()
		reads := 0
		e := newEngine(t, Config{Publisher: &svc, Store: listing(memory, func(string) (time.Duration, error) {
			if reads++; reads == 1 {
				return time.Second, errFault
			}
			return 0, nil
		})})
		handle(t, e, SessionOpen{Session: SessionID{"nurse@example.com", "s"}})
		require.NoError(t, e.Refresh(t.Context(), "nurse@example.com"))
		assert.Zero(t, reads, "nothing of it has been read")

		go func() { _, _ = e.Handle(context.Background(), Offline{juliet, message("m1")}) }()
		synctest.Wait()
		keep(t, memory, juliet, phone)
		began := time.Now()
		require.NoError(t, e.Refresh(t.Context(), juliet))
		synctest.Wait()
		assert.Equal(t, time.Second, time.Since(began))
		assert.Len(t, svc.published(), 1)
		require.NoError(t, e.Close(t.Context()))
		for range 2 {
			assert.ErrorIs(t, e.Refresh(t.Context(), juliet), ErrClosed)
		}
	})
}

// TestVetoOfWhatWaited has an event wait for the Store: the host has its word when it is decided.
func TestVetoOfWhatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		asked := 0
		e := newEngine(t, Config{
			Publisher: &svc, Store: listing(memory, func(string) (time.Duration, error) { return time.Minute, nil }),
			Veto: veto{stanza: func(_ *Registration, st Stanza) string { asked++; return map[string]string{"m1": "muted"}[st.ID] }},
		})
		assert.Equal(t, ReasonDeferred, handle(t, e, Offline{juliet, message("m1")}).Reason)
		handle(t, e, Offline{juliet, message("m2")})
		pass(time.Hour)
		require.Len(t, svc.published(), 1)
		assert.Equal(t, 1, svc.published()[0].Count)
		assert.Equal(t, 2, asked)
		require.NoError(t, e.Close(t.Context()))
	})
}

// caching is a Store that says what it has cached, in its own time, which it must not take.
type caching struct {
	hookedStore
	cached func(account string) ([]Registration, bool)
}

func (c *caching) Cached(account string) ([]Registration, bool) { return c.cached(account) }

// TestCachedIsOvertaken has something happen to an account after the Store said what it has cached of it, and before the Engine uses that: it is not used.
func TestCachedIsOvertaken(t *testing.T) {
	enable := PushEnable{Session: SessionID{Account: juliet}, Key: node("new")}
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, e *Engine)
		err       error
		nodes     []string
	}{
		"nothing":  {func(*testing.T, *Engine) {}, nil, []string{"phone"}},
		"enabled":  {func(t *testing.T, e *Engine) { handle(t, e, enable) }, nil, []string{"new", "phone"}},
		"disabled": {func(t *testing.T, e *Engine) { handle(t, e, PushDisable{SessionID{Account: juliet}, phone}) }, nil, nil},
		"closed":   {func(t *testing.T, e *Engine) { assert.NoError(t, e.Close(t.Context())) }, ErrClosed, nil},
		"panicked": {nil, nil, []string{"phone"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := NewMemoryStore()
				keep(t, memory, juliet, phone)
				first := true
				e := newEngine(t, Config{Publisher: &service{}, Store: &caching{hookedStore{Store: memory}, func(account string) ([]Registration, bool) {
					rs, ok := memory.Cached(account)
					if first {
						if c.meanwhile == nil {
							panic("cached")
						}
						first = false
						time.Sleep(time.Second)
					}
					return rs, ok
				}}})
				handle(t, e, SessionOpen{Session: phoneSession})
				var wg sync.WaitGroup
				var d Decision
				var err error
				wg.Go(func() { d, err = e.Handle(t.Context(), Ping{Account: juliet}) })
				synctest.Wait()
				if c.meanwhile != nil {
					c.meanwhile(t, e)
				}
				wg.Wait()
				require.ErrorIs(t, err, c.err)
				var nodes []string
				for _, v := range d.Verdicts {
					nodes = append(nodes, v.Node)
				}
				assert.Equal(t, c.nodes, nodes)
				_, err = e.Handle(t.Context(), SessionClose{phoneSession})
				assert.ErrorIs(t, err, c.err)
				if c.meanwhile == nil {
					assert.Equal(t, "Store.List", e.Hooks()[0].Hook)
				}
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestOpenedWhileTheStoreWasAsked has a session open between the Store's saying that it has nothing cached of its account and the Engine's going on with another event: both
// are of one account. The Store is asked twice: before anything is locked, and in the account's turn.
func TestOpenedWhileTheStoreWasAsked(t *testing.T) {
	for _, opens := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			memory := NewMemoryStore()
			_, err := memory.Enable(t.Context(), Registration{Account: juliet, Key: phone, Client: "c1"}, 0)
			require.NoError(t, err)
			e := newEngine(t, Config{Publisher: &service{}, Store: &caching{hookedStore{Store: memory}, func(string) ([]Registration, bool) { time.Sleep(time.Second); return nil, false }}})
			var wg sync.WaitGroup
			wg.Go(func() { handle(t, e, Ping{Account: juliet}) })
			pass(opens)
			handle(t, e, SessionOpen{Session: phoneSession, Client: "c1"})
			wg.Wait()
			is, err := e.Inspect(t.Context(), juliet)
			require.NoError(t, err)
			require.Len(t, is.Sessions, 1)
			assert.True(t, is.Sessions[0].IsBound)
			assert.Equal(t, 1, e.Parts()["fingerprints"])
			require.NoError(t, e.Close(t.Context()))
		})
	}
}

// slowKeeper takes its time to say what is kept.
type slowKeeper struct {
	*MemoryStore
	takes time.Duration
}

func (k slowKeeper) Kept(ctx context.Context) iter.Seq2[Kept, error] {
	time.Sleep(k.takes)
	return k.MemoryStore.Kept(ctx)
}

// TestKeptComesFirst has an event of an account come before the Store has said what is kept of it: it waits, and both are sent.
func TestKeptComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") }), Store: memory, Policy: Policy{Expire: 24 * time.Hour}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, e.Close(ctx))

		var svc service
		e = newEngine(t, Config{Publisher: &svc, Store: slowKeeper{memory, 3 * time.Second}, Policy: Policy{Expire: 24 * time.Hour}})
		began := time.Now()
		d := handle(t, e, Offline{juliet, message("m2")})
		assert.Equal(t, 3*time.Second, time.Since(began))
		assert.True(t, d.Notifies())
		pass(time.Hour)
		stanzas := 0
		for _, n := range svc.published() {
			stanzas += n.Count
		}
		assert.Equal(t, 2, stanzas)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestInterruptedOnce takes up what was in flight in another process, and reads the registrations again while it is sent: it is sent once.
func TestInterruptedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		hang := PublisherFunc(func(ctx context.Context, _ *Notification) error { <-ctx.Done(); return ctx.Err() })
		e := newEngine(t, Config{Publisher: hang, Store: memory})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, e.Close(ctx))

		svc := service{answer: func(*Notification) error { time.Sleep(20 * time.Second); return nil }}
		e = newEngine(t, Config{Publisher: &svc, Store: &hookedKeeper{hookedStore{Store: memory}, memory}})
		pass(10 * time.Second)
		require.Len(t, svc.published(), 1)
		require.NoError(t, e.Refresh(t.Context(), juliet))
		pass(time.Hour)
		assert.Len(t, svc.published(), 1)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestTurnIsWaitedFor asks the host about a chat, in an account's turn: other events of the account come after that, or say that their context has ended.
func TestTurnIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		host := &directory{chat: func(string) (ChatInfo, error) { time.Sleep(time.Second); return ChatInfo{}, nil }}
		e := newEngine(t, Config{Publisher: &service{}, Chats: host, Policy: Policy{AskAgain: time.Minute}, Observer: &Observer{
			Decided: func(_ uint64, _ time.Time, ev Event, _ *Decision, _ time.Duration) { order = append(order, ev.Name()) },
		}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: node("tablet")}, HibernationStart{phoneSession, nil})
		order = nil
		go func() { _, _ = e.Handle(context.Background(), Groupchat{juliet, room("r1", "hi")}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		for _, ev := range []Event{Groupchat{juliet, room("r2", "hi")}, SessionActive{phoneSession}, PushDisable{phoneSession, phone}} {
			_, err := e.Handle(ctx, ev)
			assert.ErrorIs(t, err, context.DeadlineExceeded, ev.Name())
		}
		_, err := e.Inspect(ctx, juliet)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		handle(t, e, SessionActive{phoneSession})
		assert.Equal(t, []string{"groupchat", "session-active"}, order)
		assert.Equal(t, 1, host.chats)
		handle(t, e, Groupchat{juliet, room("r3", "hi")})
		assert.Equal(t, 1, host.chats, "its answer is used for a while")
		pass(2 * time.Minute)
		handle(t, e, Groupchat{juliet, room("r4", "hi")})
		assert.Equal(t, 2, host.chats)

		// One after another, and what is due meanwhile comes after them.
		began := time.Now()
		handle(t, e, StanzaQueued{phoneSession, Stanza{ID: "p1", Kind: KindPresence, Class: ClassPlain}})
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				st := room(fmt.Sprint("q", i), "hi")
				st.From = fmt.Sprintf("room%d@rooms.example.net/romeo", i)
				handle(t, e, Groupchat{juliet, st})
			})
			synctest.Wait()
		}
		wg.Wait()
		assert.Equal(t, 3*time.Second, time.Since(began))
		synctest.Wait()
		assert.Zero(t, e.Parts()["turns"])
		assert.Zero(t, e.Parts()["work"])
		require.NoError(t, e.Close(t.Context()))
		assert.Equal(t, 3*time.Second, time.Since(began))
	})
}

// TestNumbers: the numbers of events are their own, whichever accounts they are of.
func TestNumbers(t *testing.T) {
	numbers := make(map[uint64]bool)
	e := newEngine(t, Config{Publisher: &service{}, Observer: &Observer{Quick: true, Decided: func(n uint64, _ time.Time, _ Event, _ *Decision, _ time.Duration) { numbers[n] = true }}})
	for i := range 300 {
		handle(t, e, SessionOpen{Session: SessionID{fmt.Sprintf("user%d@example.com", i), "s"}})
	}
	assert.Len(t, numbers, 300)
	assert.Equal(t, "example.com", e.Host())
	require.NoError(t, e.Close(t.Context()))
}

// TestDecisionIsUsedAgain gives one Decision for several events: nothing is left in it of the one before.
func TestDecisionIsUsedAgain(t *testing.T) {
	e := newEngine(t, Config{Publisher: &service{}})
	handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
	var d Decision
	yes := func() {
		t.Helper()
		require.NoError(t, e.HandleTo(t.Context(), Ping{Account: juliet}, &d))
		require.True(t, d.Notifies())
	}
	yes()
	require.NoError(t, e.HandleTo(t.Context(), Offline{"nobody@example.com", message("m1")}, &d))
	assert.Equal(t, "nobody@example.com", d.Account)
	assert.Equal(t, ReasonNoRegistration, d.Reason)
	assert.False(t, d.Notifies())
	yes()
	assert.Equal(t, ReasonNone, d.Reason)
	assert.ErrorIs(t, e.HandleTo(t.Context(), PushEnable{Session: phoneSession}, &d), ErrEvent)
	assert.False(t, d.Notifies())
	yes()
	require.NoError(t, e.Close(t.Context()))
	assert.ErrorIs(t, e.HandleTo(t.Context(), Ping{Account: juliet}, &d), ErrClosed)
	assert.False(t, d.Notifies())
}

// lines is a slog.Handler's output as the levels and texts of its records, with what the attributes named say.
type lines struct {
	mu    sync.Mutex
	level slog.Level
	got   []string
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *lines) WithGroup(string) slog.Handler                    { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Level.String() + " " + strings.TrimPrefix(r.Message, "push: "))
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "number", "service", "took":
		case "account":
			b.WriteString(" " + strings.TrimSuffix(a.Value.String(), "@example.com"))
		default:
			b.WriteString(" " + a.Key + "=" + a.Value.String())
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, b.String())
	return nil
}

// TestLogger is what the log has of a registration's life.
func TestLogger(t *testing.T) {
	want := []string{
		"DEBUG decision juliet event=session-open notify=false reason=none",
		"INFO registration added juliet node=phone reason=enabled detail=",
		"INFO registration unbound juliet node=phone reason=no-session-named detail=",
		"DEBUG decision juliet event=push-enable notify=false reason=none",
		"DEBUG decision juliet event=offline node=phone notify=true class=important rule=offline reason=stored-offline stanzas=1",
		"DEBUG publish accepted juliet node=phone class=important stanzas=1 try=1 error=",
		"DEBUG decision juliet event=offline node=phone notify=true class=important rule=offline reason=stored-offline stanzas=1",
		"INFO publish transient juliet node=phone class=important stanzas=1 try=1 error=resource-constraint",
		"DEBUG decision juliet event=offline node=phone notify=true class=urgent rule=urgent reason=call stanzas=1",
		"INFO publish fatal juliet node=phone class=urgent stanzas=2 try=2 error=item-not-found",
		"WARN registration disabled juliet node=phone reason=errors detail=item-not-found",
		"INFO notification dropped juliet node=phone class=urgent stanzas=2 reason=rejected",
		"DEBUG decision nobody event=offline notify=false reason=no-registration",
	}
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		t.Run(level.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &lines{level: level}
				answers := []error{nil, &ReplyError{"wait", "resource-constraint"}, &ReplyError{"cancel", "item-not-found"}}
				var n atomic.Int32
				e := newEngine(t, Config{Logger: slog.New(log), Publisher: PublisherFunc(func(context.Context, *Notification) error { return answers[n.Add(1)-1] })})
				call := message("m3")
				call.Class = ClassUrgent
				for _, ev := range []Event{
					SessionOpen{Session: phoneSession}, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")}, Offline{juliet, message("m2")}, Offline{juliet, call},
					Offline{"nobody@example.com", message("m1")},
				} {
					handle(t, e, ev)
					synctest.Wait()
				}
				require.NoError(t, e.Close(t.Context()))
				var wanted []string
				for _, line := range want {
					name, _, _ := strings.Cut(line, " ")
					var l slog.Level
					require.NoError(t, l.UnmarshalText([]byte(name)))
					if l >= level {
						wanted = append(wanted, line)
					}
				}
				assert.Equal(t, wanted, log.got)
			})
		})
	}
}
