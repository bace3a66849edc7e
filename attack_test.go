package push_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// What hosts do that TestFaults does not generate: their functions call back, contexts have ended before, Close comes in the middle of a storm, Stores lie about whose rows they have.

// reentrant is a host whose functions call the Engine, which they must not.
type reentrant struct {
	*MemoryStore
	e     atomic.Pointer[Engine]
	in    string
	with  func(e *Engine)
	deep  atomic.Int32
	times atomic.Int32
}

func (r *reentrant) call(in string) {
	if e := r.e.Load(); e != nil && in == r.in && r.deep.Add(1) == 1 { // once at a time, or it calls itself for ever
		r.times.Add(1)
		r.with(e)
	}
	if in == r.in {
		r.deep.Add(-1)
	}
}

func (r *reentrant) List(ctx context.Context, account string) ([]Registration, error) {
	r.call("List")
	return r.MemoryStore.List(ctx, account)
}

func (r *reentrant) Enable(ctx context.Context, n Registration, limit int) ([]Registration, error) {
	r.call("Enable")
	return r.MemoryStore.Enable(ctx, n, limit)
}

func (r *reentrant) Remove(ctx context.Context, account string, k Key) ([]Key, error) {
	r.call("Remove")
	return r.MemoryStore.Remove(ctx, account, k)
}

func (r *reentrant) Update(ctx context.Context, account string, k Key, u Update) error {
	r.call("Update")
	return r.MemoryStore.Update(ctx, account, k, u)
}
func (r *reentrant) Publish(context.Context, *Notification) error { r.call("Publish"); return nil }
func (r *reentrant) Unread(context.Context, string) (int, error)  { r.call("Unread"); return 1, nil }
func (r *reentrant) Elsewhere(context.Context, string) ([]Key, error) {
	r.call("Elsewhere")
	return nil, nil
}
func (r *reentrant) Chat(context.Context, string, string) (ChatInfo, error) {
	r.call("Chat")
	return ChatInfo{}, nil
}
func (r *reentrant) VetoStanza(*Registration, Stanza) string { r.call("VetoStanza"); return "" }
func (r *reentrant) VetoPublish(context.Context, *Notification) string {
	r.call("VetoPublish")
	return ""
}
func (r *reentrant) ResumeTimeout(SessionID, time.Duration, Reason) { r.call("ResumeTimeout") }
func (r *reentrant) observer(name string) *Observer {
	return &Observer{
		Quick:   name == "Quick",
		Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { r.call(name) },
		Sent:    func(time.Time, *Notification) { r.call(name) },
		Replied: func(time.Time, *Notification, Reply, Result, time.Duration) { r.call(name) },
	}
}

// TestCalledBack has each function of the host's call the Engine for its own account: Handle, Inspect, or Close. It gets an answer, at the latest when its time is over, and so does every event.
func TestCalledBack(t *testing.T) {
	calls := map[string]func(e *Engine){
		"event": func(e *Engine) { _, _ = e.Handle(context.Background(), Offline{juliet, message("inner")}) },
		"enable": func(e *Engine) {
			_, _ = e.Handle(context.Background(), PushEnable{Session: SessionID{Account: juliet}, Key: node("inner")})
		},
		"inspect": func(e *Engine) {
			_, _ = e.Inspect(context.Background(), juliet)
			e.Services()
			e.Hooks()
			_ = e.Refresh(context.Background(), juliet)
		},
		"close": func(e *Engine) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			_ = e.Close(ctx)
		},
	}
	for _, in := range []string{"List", "Enable", "Remove", "Update", "Publish", "Unread", "Elsewhere", "Chat", "VetoStanza", "VetoPublish", "ResumeTimeout", "Observer", "Quick"} {
		for name, with := range calls {
			t.Run(in+" calls "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := &reentrant{MemoryStore: NewMemoryStore(), in: in, with: with}
					e := newEngine(t, Config{Publisher: r, Store: struct{ Store }{r}, Unread: r, Liveness: r, Chats: r, Veto: r, Resumption: r, Observer: Observers(r.observer("Observer"), r.observer("Quick"))})
					r.e.Store(e)
					do := func(ev Event) {
						began := time.Now()
						_, err := e.Handle(t.Context(), ev)
						assert.LessOrEqual(t, time.Since(began), 35*time.Second, ev.Name()) // Config.StoreTimeout, and a moment
						if name != "close" && in != "Enable" && in != "Remove" {            // of which the inner one waits for the outer
							assert.NoError(t, err, ev.Name())
						}
					}
					began := time.Now()
					do(SessionOpen{Session: phoneSession, JID: juliet + "/phone"})
					do(PushEnable{Session: phoneSession, Key: phone})
					do(ArchiveAdded{juliet, message("m1")})
					do(HibernationStart{phoneSession, []Stanza{message("m2")}})
					pass(time.Minute)
					do(Offline{juliet, message("m3")})
					do(Offline{"romeo@example.com", message("m3")})
					do(PushDisable{phoneSession, phone})
					assert.Less(t, time.Since(began), 5*time.Minute)
					assert.Positive(t, r.times.Load())
					r.e.Store(nil)
					pass(time.Hour)
					require.NoError(t, e.Close(t.Context()))
					pass(time.Hour)
				})
			})
		}
	}
}

// TestEndedContext has contexts that have ended before the event is raised: it is handled at once, or it says that it was not.
func TestEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		var svc service
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &svc, Store: struct{ Store }{memory}})
		began := time.Now()
		_, err := e.Handle(ended, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		assert.ErrorIs(t, err, context.Canceled)
		rs, _ := memory.List(t.Context(), juliet)
		assert.Empty(t, rs, "what was refused has no effect")
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		_, err = e.Handle(ended, Offline{juliet, message("m1")})
		assert.NoError(t, err)
		pass(time.Second)
		assert.Len(t, svc.published(), 1)
		pass(time.Hour) // it is read again then
		_, err = e.Handle(ended, Offline{juliet, message("m2")})
		assert.NoError(t, err, "deferred, or decided")
		pass(time.Second)
		assert.Len(t, svc.published(), 2)
		_, err = e.Inspect(ended, juliet)
		_ = err // either
		assert.Less(t, time.Since(began), time.Hour+10*time.Second)
		assert.ErrorIs(t, e.Refresh(ended, juliet), context.Canceled)
		require.NoError(t, e.Close(t.Context()))
		assert.NoError(t, e.Close(ended), "it is closed")
	})
}

// TestCloseInAStorm closes the Engine while events come from everywhere: each event is handled or says ErrClosed, and each yes is published, dropped, or reported.
func TestCloseInAStorm(t *testing.T) {
	for range 20 {
		led := &ledger{owed: map[debt]Class{}}
		var svc service
		e := newEngine(t, Config{Publisher: &svc, Observer: led.observer()})
		var wg sync.WaitGroup
		var refused atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				for j := 0; ; j++ {
					name := fmt.Sprintf("user%d@example.com", j%50)
					s := SessionID{name, fmt.Sprint("s", i)}
					for _, ev := range []Event{SessionOpen{Session: s}, PushEnable{Session: s, Key: phone}, HibernationStart{s, nil}, Offline{name, message(fmt.Sprint(i, "-", j))}, SessionClose{s}} {
						if _, err := e.Handle(context.Background(), ev); err != nil {
							assert.ErrorIs(t, err, ErrClosed)
							refused.Add(1)
							return
						}
					}
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		require.NoError(t, e.Close(ctx))
		cancel()
		wg.Wait()
		assert.EqualValues(t, 8, refused.Load())
		assert.Empty(t, led.owed)
		assert.Empty(t, led.problems)
	}
}

// liar is a Store whose List returns what it should not.
type liar struct {
	*MemoryStore
	list func(account string) []Registration
}

func (l liar) List(_ context.Context, account string) ([]Registration, error) {
	return l.list(account), nil
}
func (l liar) Kept(ctx context.Context) iter.Seq2[Kept, error] { return l.MemoryStore.Kept(ctx) }
func (l liar) Cached()                                         {}

// TestStoresThatLie have other accounts' rows, the same one again, or far too many: nobody is notified of what is not his, nor twice.
func TestStoresThatLie(t *testing.T) {
	mine := Registration{Account: juliet, Key: phone}
	for name, c := range map[string]struct {
		list func(account string) []Registration
		want int
	}{
		"others' rows": {func(string) []Registration {
			return []Registration{{Account: "romeo@example.com", Key: phone}, mine, {Account: "", Key: phone}}
		}, 1},
		"duplicates": {func(string) []Registration {
			return []Registration{mine, mine, mine, {Account: juliet, Key: phone, Client: "x"}}
		}, 1},
		"no order": {func(string) []Registration {
			return []Registration{{Account: juliet, Key: node("z")}, mine, {Account: juliet, Key: node("a")}}
		}, 3},
		"no service": {func(string) []Registration { return []Registration{{Account: juliet, Key: Key{Node: "n"}}, mine} }, 1},
		"far too many": {func(string) []Registration {
			rs := make([]Registration, 200_000)
			for i := range rs {
				rs[i] = Registration{Account: juliet, Key: node(fmt.Sprintf("n%07d", i)), Enabled: time.Unix(int64(i), 0)}
			}
			return rs
		}, 256},
	} {
		t.Run(name, func(t *testing.T) {
			var svc service
			e := newEngine(t, Config{Publisher: &svc, Store: liar{NewMemoryStore(), c.list}})
			began := time.Now()
			d := handle(t, e, Offline{juliet, message("m1")})
			assert.Less(t, time.Since(began), 10*time.Second)
			assert.Len(t, d.Verdicts, c.want)
			for _, v := range d.Verdicts {
				assert.True(t, v.Notify)
				assert.True(t, c.want < 256 || v.Node >= "n0199744", "not the newest: %s", v.Node)
			}
			d = handle(t, e, Offline{juliet, message("m1")})
			assert.False(t, d.Notifies())
			require.NoError(t, e.Close(t.Context()))
			assert.Len(t, svc.published(), c.want)
		})
	}
}

// TestNeverClosed forgets Engines without closing them: those that have nothing to do leave nothing behind.
func TestNeverClosed(t *testing.T) {
	if raceEnabled {
		t.Skip("it is about memory")
	}
	var all []*Engine
	make1 := func() {
		e, err := New(Config{Host: "example.com", Publisher: PublisherFunc(accept), Observer: &Observer{Quick: true, Decided: func(uint64, time.Time, Event, *Decision, time.Duration) {}}})
		require.NoError(t, err)
		all = append(all, e)
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, HibernationStart{phoneSession, []Stanza{message("m1")}})
		for e.Parts()["work"] > 0 {
			runtime.Gosched()
		}
	}
	make1()
	goroutines := runtime.NumGoroutine()
	for range 100 {
		make1()
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2, "an Engine without anything to do has no goroutine")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, e := range all { // their timers would keep the stopped ones of other tests' Engines from being swept out of the runtime's heap
		_ = e.Close(ended)
	}
}

// incomparable is a Keeper of which nobody can tell whether it is another's.
type incomparable struct {
	*MemoryStore
	_ []int
}

// TestOneKeeperTwoEngines gives a Store that keeps what waits to a second Engine: it is refused as long as the first might send all that too.
func TestOneKeeperTwoEngines(t *testing.T) {
	down := PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	waits := func(t *testing.T, cfg Config) *Engine {
		cfg.Host, cfg.Publisher, cfg.Keep = "example.com", down, KeepAll
		e, err := New(cfg)
		require.NoError(t, err)
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		return e
	}
	t.Run("closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store, svc := NewMemoryStore(), &service{}
			first := waits(t, Config{Store: store})
			pass(10 * time.Second)
			second, err := New(Config{Host: "example.com", Publisher: svc, Store: store})
			require.ErrorContains(t, err, "close that one first")
			require.Nil(t, second)
			require.NoError(t, first.Close(t.Context()), "it is kept")
			second = newEngine(t, Config{Publisher: svc, Store: store})
			pass(10 * time.Minute) // it was tried before
			assert.Len(t, svc.published(), 1)
			_ = first.Close(t.Context()) // that again does not take it away from the second
			_, err = New(Config{Host: "example.com", Publisher: svc, Store: store})
			require.Error(t, err)
			require.NoError(t, second.Close(t.Context()))
		})
	})
	t.Run("others", func(t *testing.T) {
		for name, store := range map[string]Store{"no Keeper": struct{ Store }{NewMemoryStore()}, "incomparable": incomparable{MemoryStore: NewMemoryStore()}} {
			first := waits(t, Config{Store: store})
			second, err := New(Config{Host: "example.com", Publisher: &service{}, Store: store})
			require.NoError(t, err, name)
			_ = first.Close(ended)
			_ = second.Close(ended)
		}
	})
	t.Run("wrong Config", func(t *testing.T) {
		store := NewMemoryStore()
		_, err := New(Config{Store: store})
		require.ErrorContains(t, err, "Publisher")
		require.NoError(t, newEngine(t, Config{Publisher: down, Store: store}).Close(t.Context()), "nobody has it")
	})
	t.Run("forgotten", func(t *testing.T) { // by a host that has never closed it, nor used it
		store := NewMemoryStore()
		_, err := New(Config{Host: "example.com", Publisher: &service{}, Store: store})
		require.NoError(t, err)
		assert.Eventually(t, func() bool {
			runtime.GC()
			e, err := New(Config{Host: "example.com", Publisher: &service{}, Store: store})
			if err != nil {
				return false
			}
			return e.Close(t.Context()) == nil
		}, 20*time.Second, 10*time.Millisecond)
	})
}

// TestReusedSlices has a host use the slices of its events again as soon as Handle has returned, while the Store has not said what it has of the account: what
// was raised counts.
func TestReusedSlices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, svc, away := NewMemoryStore(), &service{}, make(chan struct{})
		keep(t, memory, juliet, phone, node("other"))
		store := &hookedStore{Store: memory, before: func(_ context.Context, method, _ string) error {
			if method == "List" {
				<-away
			}
			return nil
		}}
		e := newEngine(t, Config{Publisher: svc, Store: store})
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nobody waits
		raise := func(ev Event) {
			d, err := e.Handle(ctx, ev)
			require.NoError(t, err, ev.Name())
			require.Equal(t, ReasonDeferred, d.Reason, ev.Name())
		}
		handle(t, e, SessionRestored{Session: phoneSession, Bound: phone, IsBound: true})
		stanzas, ids, keys := []Stanza{message("m1"), message("m2")}, []string{"m1", "m2"}, []Key{node("other")}
		raise(AckDelayed{phoneSession, stanzas})
		clear(stanzas)
		raise(Acknowledged{phoneSession, ids})
		clear(ids)
		raise(Ping{Account: juliet, Registrations: keys})
		keys[0] = phone
		close(away)
		require.NoError(t, e.Close(t.Context()))
		for _, n := range svc.published() {
			assert.NotEqual(t, phone, n.Key, "its stanzas were acknowledged")
		}
		assert.Len(t, svc.published(), 1)
	})
}

// TestStoreGivesItsOwn has a Store return the very slices that it keeps: the Engine changes nothing in them.
func TestStoreGivesItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs := []Registration{{Account: "romeo@example.com", Key: phone}, {Account: juliet, Key: node("z")}, {Account: juliet}, {Account: juliet, Key: phone, Enabled: newYear}}
		for i := range 300 {
			rs = append(rs, Registration{Account: juliet, Key: node(fmt.Sprint(i))})
		}
		before := slices.Clone(rs)
		store := &hookedStore{Store: NewMemoryStore(), lists: func(string, []Registration) []Registration { return rs }, before: func(_ context.Context, method, _ string) error {
			if method == "Update" {
				return errFault
			}
			return nil
		}}
		e := newEngine(t, Config{Store: store, Publisher: PublisherFunc(func(context.Context, *Notification) error { return &ReplyError{Type: "cancel", Condition: "gone"} })})
		handle(t, e, Offline{juliet, message("m1")})
		pass(time.Second)
		require.NoError(t, e.Refresh(t.Context(), juliet))
		st, err := e.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		assert.NotZero(t, st.Registrations[0].Health.Disabled, "what the Store was not told counts")
		assert.Equal(t, before, rs)
		ended, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = e.Close(ended)
		_, err = e.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		assert.Equal(t, before, rs)
	})
}

// TestEnableBeforeOpen raises an enable before its session is opened, which a host should not: the answer says so, nothing is guessed, and the host can say what was meant.
func TestEnableBeforeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, Config{Publisher: &service{}})
		d := handle(t, e, PushEnable{Session: phoneSession, Key: phone})
		require.Len(t, d.Changes, 2)
		assert.Equal(t, Change{Key: phone, Kind: ChangeUnbound, Session: phoneSession.ID, Rule: RuleBind, Reason: ReasonUnknownSession}, d.Changes[1])
		handle(t, e, SessionOpen{Session: phoneSession, JID: juliet + "/phone"})
		d = handle(t, e, ArchiveAdded{juliet, message("m1")})
		assert.Equal(t, ReasonNoSession, d.Verdicts[0].Reason)
		d = handle(t, e, SessionRestored{Session: phoneSession, JID: juliet + "/phone", Bound: phone, IsBound: true})
		assert.Equal(t, ChangeBound, d.Changes[0].Kind)
		d = handle(t, e, ArchiveAdded{juliet, message("m2")})
		assert.Equal(t, ReasonLive, d.Verdicts[0].Reason)
		require.NoError(t, e.Close(t.Context()))
	})
}
