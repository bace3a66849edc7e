package push_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// TestForgetting counts how often registrations are read, which tells whether the Engine keeps an account: as long as it has a session, something
// waits, or something has to be remembered, and no longer.
func TestForgetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(_ context.Context, m, account string) error {
			if m == "List" && account == juliet {
				reads++
			}
			return nil
		}}})
		read := func(want int, evs ...Event) {
			t.Helper()
			before := reads
			handle(t, e, evs...)
			synctest.Wait()
			assert.Equal(t, want, reads-before)
		}
		read(0, SessionClose{phoneSession}, SessionClose{phoneSession})
		read(1, Offline{juliet, message("m1")}, Offline{juliet, message("m1")}, Offline{juliet, message("m2")})
		pass(9 * time.Minute)
		read(0, Offline{juliet, message("m1")})
		pass(9 * time.Minute)
		read(1, Offline{juliet, message("m1")})
		pass(time.Hour)
		read(0, SessionOpen{Session: phoneSession})
		pass(1000 * time.Hour)
		read(1, Ping{Account: juliet}, SessionClose{phoneSession})
		pass(11 * time.Minute)
		read(1, Ping{Account: juliet})
		read(0, AccountRemoved{juliet})
		read(1, Ping{Account: juliet})

		// Others of the same shard do not change that.
		for i := range 300 {
			account := fmt.Sprintf("user%d@example.com", i)
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Offline{account, message("m1")})
			pass(time.Second)
		}
		keep(t, memory, juliet, phone)
		read(1, Offline{juliet, message("m1")})
		pass(11 * time.Minute)
		read(1, Offline{juliet, message("m1")})
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestUnknown has events of what the Engine was never told of.
func TestUnknown(t *testing.T) {
	e := newEngine(t, Config{Publisher: &service{}})
	for _, ev := range []Event{SessionClose{phoneSession}, AckDelayed{phoneSession, []Stanza{message("m1")}}, HibernationStart{phoneSession, nil}, StanzaQueued{phoneSession, message("m1")}, HibernationEnd{phoneSession}} {
		d := handle(t, e, ev)
		assert.Equal(t, ReasonUnknownSession, d.Reason, ev.Name())
	}
	for _, ev := range []Event{ArchiveAdded{juliet, message("m1")}, Offline{juliet, message("m1")}, Groupchat{juliet, message("m1")}, Ping{Account: juliet}} {
		d := handle(t, e, ev)
		assert.Equal(t, ReasonNoRegistration, d.Reason, ev.Name())
	}
	require.NoError(t, e.Close(t.Context()))
}

// TestCloseDuringRead closes the Engine while an account's registrations are read: the event is decided, if there is time for it.
func TestCloseDuringRead(t *testing.T) {
	for wait, published := range map[time.Duration]int{20 * time.Second: 1, 2 * time.Second: 0, 8 * time.Second: 0} {
		t.Run(wait.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := NewMemoryStore()
				keep(t, memory, juliet, phone)
				var svc service
				decided := 0
				e := newEngine(t, Config{
					Publisher: &svc, Store: &hookedStore{Store: memory, before: func(context.Context, string, string) error { time.Sleep(10 * time.Second); return nil }},
					Observer: &Observer{Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { decided++ }},
				})
				var wg sync.WaitGroup
				refused := false
				wg.Go(func() {
					d, err := e.Handle(t.Context(), Offline{juliet, message("m1")})
					if refused = err != nil; refused {
						assert.ErrorIs(t, err, ErrClosed)
						assert.Equal(t, ReasonNone, d.Reason)
					} else {
						assert.Equal(t, ReasonDeferred, d.Reason)
					}
				})
				synctest.Wait()
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				err := e.Close(ctx)
				assert.LessOrEqual(t, time.Since(began), wait)
				wg.Wait()
				assert.LessOrEqual(t, time.Since(began), wait, "who waited for the registrations does not any more")
				assert.Len(t, svc.published(), published)
				if published == 0 && !refused {
					var unsent *UnsentError
					require.ErrorAs(t, err, &unsent)
					assert.Equal(t, []Event{Offline{juliet, message("m1")}}, unsent.Undecided)
				} else {
					assert.NoError(t, err)
				}
				pass(time.Minute)
				assert.Equal(t, published, decided, "nothing is decided after Close")
			})
		})
	}
}

// TestCloseDoesNotWaitToRead closes while the Store is away and an account wants to be read again, of which nothing waits.
func TestCloseDoesNotWaitToRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := on()
		down.Store(false)
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: NewMemoryStore(), before: func(context.Context, string, string) error {
			if down.Load() {
				return errFault
			}
			return nil
		}}})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
		synctest.Wait()
		down.Store(true)
		_, err := e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: node("new")})
		require.ErrorIs(t, err, ErrStore)
		began := time.Now()
		require.NoError(t, e.Close(t.Context()))
		assert.Less(t, time.Since(began), time.Microsecond)
	})
}

// TestTurns has goroutines wait for the turn of an account, some of which give up.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(_ context.Context, m, _ string) error {
			if m == "Enable" {
				time.Sleep(10 * time.Second)
			}
			return nil
		}}})
		handle(t, e, SessionOpen{Session: phoneSession})
		var wg sync.WaitGroup
		var order []int
		var mu sync.Mutex
		for i, limit := range []time.Duration{time.Hour, time.Second, time.Hour, 10 * time.Second, time.Hour} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				_, err := e.Handle(ctx, PushEnable{Session: phoneSession, Key: node(fmt.Sprint("n", i))})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					order = append(order, i)
				} else {
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if len(order) == 4 { // the one whose time is over when its turn comes may have it or not
			order = append(order[:2], order[3])
		}
		assert.Equal(t, []int{0, 2, 4}, order)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestManyServices has many push services, some of which have something waiting.
func TestManyServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		busy := true
		svc.answer = func(n *Notification) error {
			if busy && n.Node == "busy" {
				time.Sleep(20 * time.Second)
			}
			return nil
		}
		e := newEngine(t, Config{Publisher: &svc, Policy: Policy{ServiceInFlight: 1}})
		const services = 2000
		for i := range services {
			for j := range 2 {
				account := fmt.Sprintf("user%d-%d@example.com", i, j)
				k := Key{Service: fmt.Sprintf("push%d.example.net", i), Node: "idle"}
				if i%100 == 0 {
					k.Node = "busy"
				}
				handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: k}, Ping{Account: account})
			}
			synctest.Wait()
		}
		pass(15 * time.Second)
		known := e.Services()
		working := 0
		for _, s := range known {
			working += s.InFlight + s.Waiting
		}
		assert.Equal(t, 2*services/100, working, "those that have something to do are not forgotten")
		assert.Len(t, svc.published(), 2*services-services/100)
		pass(time.Hour)
		assert.Len(t, svc.published(), 2*services)
		assert.Empty(t, e.Services(), "those that have nothing to do are forgotten")
		require.NoError(t, e.Close(t.Context()))
	})
}

// endingKeeper is a Keeper whose code ends the goroutine that it is called in, the first times.
type endingKeeper struct {
	*MemoryStore
	times int
}

func (k *endingKeeper) Kept(ctx context.Context) iter.Seq2[Kept, error] {
	if k.times--; k.times >= 0 {
		runtime.Goexit()
	}
	return k.MemoryStore.Kept(ctx)
}

// TestKeptEnds has what was kept read by code that ends its goroutine: events are decided all the same, and it is read when it can be.
func TestKeptEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		svc := &service{}
		e := newEngine(t, Config{Publisher: svc, Store: &endingKeeper{memory, 2}})
		pass(time.Minute)
		d := handle(t, e, Offline{juliet, message("m1")})
		assert.True(t, d.Notifies())
		require.NoError(t, e.Close(t.Context()))
		assert.Len(t, svc.published(), 1)
	})
}

// TestKeptWhole closes while the Store keeps what waited a while ago: what came since is kept as well, or reported, and what was accepted at the last moment is not sent again
// by the next Engine.
func TestKeptWhole(t *testing.T) {
	down := func(context.Context, *Notification) error { return errors.New("no route") }
	late := func(ctx context.Context, _ *Notification) error { <-ctx.Done(); return nil }
	for _, c := range []struct {
		name         string
		publish      PublisherFunc
		close        time.Duration
		left, reborn int
	}{
		{"without any time", down, 0, 2, 1},
		{"with some", down, time.Second, 0, 2},
		{"the first accepted in the end", late, time.Second, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := NewMemoryStore()
				e := newEngine(t, Config{Publisher: c.publish, Store: memory, Policy: Policy{Expire: time.Hour}})
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
				pass(10 * time.Second)
				handle(t, e, Offline{juliet, message("m2")})
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), c.close)
				defer cancel()
				left := 0
				if unsent := new(UnsentError); errors.As(e.Close(ctx), &unsent) {
					left = unsent.Unsent[0].Count
				}
				assert.Equal(t, c.left, left)
				svc := &service{}
				next := newEngine(t, Config{Publisher: svc, Store: memory, Policy: Policy{Expire: time.Hour}})
				pass(10 * time.Minute)
				stanzas := 0
				for _, n := range svc.published() {
					stanzas += n.Count
				}
				assert.Equal(t, c.reborn, stanzas)
				require.NoError(t, next.Close(t.Context()))
			})
		})
	}
}

// TestKeepModes is when the Store is told what waits: a message of an account that cannot be sent, another one ten seconds later, and that both were sent.
func TestKeepModes(t *testing.T) {
	for mode, want := range map[KeepMode][]string{
		KeepNone: nil,
		KeepLate: {"2s kept", "11s kept", "21s forgotten"}, // Policy.Delay and a second
		KeepAll:  {"0s kept", "11s kept", "21s forgotten"},
	} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				memory := NewMemoryStore()
				tells := &tellingKeeper{MemoryStore: memory}
				down := on()
				svc := service{answer: func(*Notification) error {
					if down.Load() {
						return errors.New("no route")
					}
					return nil
				}}
				var got []string
				tells.tell = func(state []byte) error {
					got = append(got, time.Since(began).Round(100*time.Millisecond).String()+map[bool]string{true: " forgotten", false: " kept"}[state == nil])
					return nil
				}
				e := newEngine(t, Config{Publisher: &svc, Store: tells, Keep: mode, Policy: Policy{RetryMin: time.Hour, RetryMax: time.Hour, Expire: 24 * time.Hour}})
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
				pass(10400 * time.Millisecond)
				handle(t, e, Offline{juliet, message("m2")})
				pass(10 * time.Second)
				down.Store(false)
				call := message("m3")
				call.Class = ClassUrgent
				handle(t, e, Offline{juliet, call})
				pass(time.Minute)
				require.NoError(t, e.Close(t.Context()))
				got = slices.DeleteFunc(got, func(s string) bool { return s == "1s kept" }) // what was in flight the first time has failed
				assert.Equal(t, want, got)
			})
		})
	}
}

// TestKeptWhileItIsDecided has the Engine ask the host about a chat, in the account's turn, when the Store should be told again what waits: it is not told that nothing does.
func TestKeptWhileItIsDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		kept := 0
		tells := &tellingKeeper{MemoryStore: NewMemoryStore(), tell: func(state []byte) error {
			mu.Lock()
			defer mu.Unlock()
			kept++
			assert.NotNil(t, state)
			return nil
		}}
		host := &directory{chat: func(string) (ChatInfo, error) { time.Sleep(3 * time.Second); return ChatInfo{}, nil }}
		e := newEngine(t, Config{
			Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") }), Store: tells, Keep: KeepAll, Chats: host, Policy: Policy{RetryMin: time.Hour, RetryMax: time.Hour},
		})
		direct := message("m1")
		direct.Info = &ChatInfo{} // the host is not asked
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, direct})
		pass(500 * time.Millisecond)
		handle(t, e, Groupchat{juliet, room("r1", "hi")})
		pass(2 * time.Second)
		mu.Lock()
		assert.Equal(t, 2, kept, "before and after")
		mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, e.Close(ctx))
	})
}

// TestNotKeptInTime has what waits sent before the Store would be told of it: it is not told at all.
func TestNotKeptInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tells := &tellingKeeper{MemoryStore: NewMemoryStore(), tell: func([]byte) error { t.Error("it was told"); return nil }}
		svc := service{answer: func(n *Notification) error {
			time.Sleep(100 * time.Millisecond)
			if n.Try == 1 {
				return errors.New("no route")
			}
			return nil
		}}
		e := newEngine(t, Config{Publisher: &svc, Store: tells, Policy: Policy{RetryMin: time.Second}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		pass(1800 * time.Millisecond)
		handle(t, e, Offline{juliet, message("m2")})
		pass(time.Hour)
		assert.Len(t, svc.published(), 4)
		assert.Empty(t, e.Parts())
		require.NoError(t, e.Close(t.Context()))
	})
}

// tellingKeeper is asked by tell whether what it is told fails, after it has kept it.
type tellingKeeper struct {
	*MemoryStore
	tell func(state []byte) error
}

func (k *tellingKeeper) Keep(ctx context.Context, account string, state []byte) error {
	_ = k.MemoryStore.Keep(ctx, account, state)
	return k.tell(state)
}

// TestKeptAllTheSame has a Store fail over what it has kept, be slow about it, or not forget it: it is told when that is sent, and told again until it has taken it, also of an account that is quiet by then.
// So the next Engine does not send it again.
func TestKeptAllTheSame(t *testing.T) {
	for name, times := range map[string]int{"fails": 1, "slow": 1, "does not forget": 20} {
		forgets := times > 1
		synctest.Test(t, func(t *testing.T) {
			memory := NewMemoryStore()
			began := time.Now()
			var at []time.Duration
			tells := &tellingKeeper{MemoryStore: memory}
			tells.tell = func(state []byte) error {
				switch {
				case state != nil && name == "fails":
					return errFault // it has it all the same
				case state != nil && name == "slow":
					time.Sleep(20 * time.Minute)
				}
				if state == nil {
					if at = append(at, time.Since(began)); forgets && len(at) < 20 {
						_ = memory.Keep(context.Background(), juliet, []byte("as before"))
						return errFault
					}
				}
				return nil
			}
			down := on()
			svc := service{answer: func(*Notification) error {
				if down.Load() {
					return errors.New("no route")
				}
				return nil
			}}
			e := newEngine(t, Config{Publisher: &svc, Store: tells, Keep: KeepAll, Policy: Policy{RetryMin: time.Minute}})
			handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
			pass(3 * time.Second)
			down.Store(false)
			pass(24 * time.Hour)
			assert.Len(t, svc.published(), 2)
			for k := range memory.Kept(t.Context()) {
				t.Error("still kept: ", k.Account)
			}
			assert.Len(t, at, times, name)
			if forgets {
				assert.Equal(t, 30*time.Second, at[19]-at[18])
			}
			assert.Empty(t, e.Parts())
			require.NoError(t, e.Close(t.Context()))
		})
	}
}

// TestKeptCannotBeRead has a Store fail over what was kept, and some of it be spoiled: the log says so, the rest is taken up, and each only once.
func TestKeptCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		nurse := "nurse@example.com"
		e := newEngine(t, Config{Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") }), Store: memory})
		for _, account := range []string{juliet, nurse} {
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Offline{account, message("m1")})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, e.Close(ctx))
		require.NoError(t, memory.Keep(t.Context(), "spoiled@example.com", []byte("spoiled")))

		var svc service
		log := &lines{level: slog.LevelWarn}
		e = newEngine(t, Config{Publisher: &svc, Store: &brokenKeeper{MemoryStore: memory, times: 2}, Logger: slog.New(log)})
		pass(10 * time.Minute)
		got := svc.published()
		require.Len(t, got, 2)
		assert.NotEqual(t, got[0].Account, got[1].Account)
		require.Len(t, log.got, 3)
		assert.Equal(t, "WARN what was kept cannot be read  error="+errFault.Error(), log.got[0])
		assert.Equal(t, log.got[0], log.got[1])
		assert.Contains(t, log.got[2], "WARN what was kept of an account cannot be read spoiled error=")
		closeAtOnce(t, e)
	})
}

// brokenKeeper fails after the first account, some times.
type brokenKeeper struct {
	*MemoryStore
	times int
}

func (k *brokenKeeper) Kept(ctx context.Context) iter.Seq2[Kept, error] {
	return func(yield func(Kept, error) bool) {
		for kept := range k.MemoryStore.Kept(ctx) {
			if !yield(kept, nil) {
				return
			}
			if k.times--; k.times >= 0 {
				yield(Kept{}, errFault)
				return
			}
		}
	}
}

// lateKeeper takes a while to read what was kept, or until its context ends, as ends says.
type lateKeeper struct {
	*MemoryStore
	late time.Duration
	ends bool
}

func (k *lateKeeper) Kept(ctx context.Context) iter.Seq2[Kept, error] {
	return func(yield func(Kept, error) bool) {
		if k.ends {
			<-ctx.Done()
			yield(Kept{}, ctx.Err())
			return
		}
		time.Sleep(k.late)
		for kept := range k.MemoryStore.Kept(ctx) {
			if !yield(kept, nil) {
				return
			}
		}
	}
}

// kept is a Store in which a message to juliet is kept that could not be sent.
func kept(t *testing.T) *MemoryStore {
	memory := NewMemoryStore()
	e := newEngine(t, Config{
		Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") }), Store: memory, Policy: Policy{RetryMin: time.Second, RetryMax: time.Second},
	})
	handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("kept")})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, e.Close(ctx))
	return memory
}

// TestKeptComesLate has what was kept be read a while after the start: a session that was opened meanwhile is known, and an account that has gone on without it goes on.
func TestKeptComesLate(t *testing.T) {
	for late, want := range map[time.Duration]int{time.Second: 2, 40 * time.Second: 1} {
		synctest.Test(t, func(t *testing.T) {
			var svc service
			e := newEngine(t, Config{Publisher: &svc, Store: &lateKeeper{MemoryStore: kept(t), late: late}})
			handle(t, e, SessionOpen{Session: phoneSession})
			time.Sleep(late / 2)
			var decided sync.WaitGroup
			decided.Go(func() { _, _ = e.Handle(context.Background(), Offline{juliet, message("new")}) })
			pass(late)
			decided.Wait()
			pass(time.Minute)
			require.Len(t, svc.published(), 1)
			assert.Equal(t, want, svc.published()[0].Count)
			handle(t, e, PushEnable{Session: phoneSession, Key: phone}, ArchiveAdded{juliet, message("m2")})
			d := handle(t, e, HibernationStart{phoneSession, []Stanza{message("m2")}})
			assert.True(t, d.Notifies())
			handle(t, e, SessionClose{phoneSession})
			pass(time.Hour)
			closeAtOnce(t, e)
		})
	}
}

// TestKeptIsReadAtClose closes while what was kept is read: the log says nothing of that any more.
func TestKeptIsReadAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{level: slog.LevelWarn}
		e := newEngine(t, Config{Publisher: &service{}, Store: &lateKeeper{MemoryStore: kept(t), ends: true}, Logger: slog.New(log)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, e.Close(ctx))
		pass(time.Minute)
		assert.Empty(t, log.got)
	})
}

// TestKeepSaysTheStoreIsBack has a Store fail over one account, and take what waits for another.
func TestKeepSaysTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return errors.New("no route") }}
		down := on()
		e := newEngine(t, Config{Publisher: &svc, Keep: KeepAll, Store: &struct {
			hookedStore
			Keeper
		}{hookedStore{Store: NewMemoryStore(), before: func(_ context.Context, method, account string) error {
			if account != juliet && down.Load() {
				return errFault
			}
			return nil
		}}, NewMemoryStore()}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		handle(t, e, Offline{"nurse@example.com", message("m1")})
		require.True(t, e.Store().Away)
		handle(t, e, Offline{juliet, message("m1")})
		synctest.Wait()
		assert.False(t, e.Store().Away)
		down.Store(false)
		pass(time.Hour)
		closeAtOnce(t, e)
	})
}
