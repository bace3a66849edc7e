package push_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// TestCloseSends checks that what waits for more, for its interval, or for its retry goes out at once.
func TestCloseSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		failed := false
		svc.answer = func(n *Notification) error {
			if n.Node == "retried" && !failed {
				failed = true
				return errors.New("no route")
			}
			return nil
		}
		e := newEngine(t, Config{Publisher: &svc, Policy: Policy{MinInterval: time.Hour, DelayImportant: true}})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: node("delayed")}, StanzaQueued{phoneSession, message("m1")})
		nurse := "nurse@example.com"
		handle(t, e, PushEnable{Session: SessionID{Account: nurse}, Key: node("retried")}, Offline{nurse, message("m1")})
		romeo := "romeo@example.com"
		handle(t, e, PushEnable{Session: SessionID{Account: romeo}, Key: node("interval")}, Offline{romeo, message("m1")})
		synctest.Wait()
		handle(t, e, Offline{romeo, message("m2")})
		synctest.Wait()
		assert.Len(t, svc.published(), 2)
		began := time.Now()
		require.NoError(t, e.Close(t.Context()))
		assert.Less(t, time.Since(began), time.Microsecond)
		sent := make(map[string]int)
		for _, n := range svc.published() {
			sent[n.Node]++
		}
		assert.Equal(t, map[string]int{"delayed": 1, "retried": 2, "interval": 2}, sent)
	})
}

// TestCloseSilence closes an Engine whose push service does not answer.
func TestCloseSilence(t *testing.T) {
	for name, c := range map[string]struct {
		wait     time.Duration // how long Close may take; negative: its context is done already, zero: it has no end
		took     time.Duration
		accounts int
		sent     int
	}{
		"own timeout":                         {wait: 10 * time.Second, took: 9 * time.Second, accounts: 3, sent: 3},
		"no timeout":                          {took: 19 * time.Second, accounts: 3, sent: 3},
		"done already":                        {wait: -1, accounts: 3},
		"more than the service takes at once": {wait: 15 * time.Second, took: 14 * time.Second, accounts: 30, sent: 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				silent := PublisherFunc(func(ctx context.Context, n *Notification) error {
					_ = svc.Publish(ctx, n)
					<-ctx.Done()
					return ctx.Err()
				})
				e := newEngine(t, Config{Publisher: silent, Policy: Policy{Delay: time.Minute, DelayImportant: true, ServiceInFlight: 4, ReplyTimeout: 20 * time.Second}})
				for i := range c.accounts {
					s := SessionID{fmt.Sprintf("user%02d@example.com", i), "s"}
					handle(t, e, SessionOpen{Session: s}, PushEnable{Session: s, Key: phone}, StanzaQueued{s, message("m1")}, StanzaQueued{s, message("m2")})
				}
				ctx, cancel := context.WithCancel(t.Context())
				if c.wait != 0 {
					ctx, cancel = context.WithTimeout(t.Context(), c.wait)
				}
				defer cancel()
				began := time.Now()
				err := e.Close(ctx)
				assert.Equal(t, c.took, time.Since(began))
				var unsent *UnsentError
				require.ErrorAs(t, err, &unsent)
				require.Len(t, unsent.Unsent, c.accounts)
				for i, u := range unsent.Unsent {
					assert.Equal(t, Unsent{fmt.Sprintf("user%02d@example.com", i), Drop{Key: phone, Class: ClassImportant, Count: 2, Events: u.Events, Reason: ReasonClosed}, u.Asked}, u)
					assert.Len(t, u.Events, 2)
				}
				assert.Len(t, svc.published(), c.sent)
				assert.NoError(t, e.Close(t.Context()), "once more")
			})
		})
	}
}

// TestCloseAgain calls Close while another call of it waits for a push service that does not answer: it waits for the other, or for its own context.
func TestCloseAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, Config{Publisher: PublisherFunc(func(ctx context.Context, _ *Notification) error { <-ctx.Done(); return ctx.Err() })})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		began := time.Now()
		within := func(d time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			return e.Close(ctx)
		}
		var wg sync.WaitGroup
		wg.Go(func() { assert.Error(t, within(10*time.Second)) })
		synctest.Wait()
		assert.ErrorIs(t, within(time.Second), context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
		assert.NoError(t, within(time.Hour))
		assert.Equal(t, 9*time.Second, time.Since(began))
		wg.Wait()
	})
}

// TestCloseAsksLater closes while a Publisher has not returned in time: if it returns within Close's, that counts.
func TestCloseAsksLater(t *testing.T) {
	for late, took := range map[time.Duration]time.Duration{90 * time.Second: 50 * time.Second, time.Hour: 119 * time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer pass(time.Hour)
				e := newEngine(t, Config{Publisher: PublisherFunc(func(context.Context, *Notification) error { time.Sleep(late); return nil })})
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
				pass(40 * time.Second)
				require.Equal(t, 1, e.Services()[0].Hanging)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				began := time.Now()
				err := e.Close(ctx)
				assert.Equal(t, took, time.Since(began))
				if late < time.Hour {
					assert.NoError(t, err)
					return
				}
				var unsent *UnsentError
				require.ErrorAs(t, err, &unsent)
				require.Len(t, unsent.Unsent, 1)
				assert.True(t, unsent.Unsent[0].Asked)
			})
		})
	}
}

// TestCloseFindsThemBack has a push service or the Store away for hours, each with a long wait until it is asked again, and back soon after Close was called.
func TestCloseFindsThemBack(t *testing.T) {
	for _, away := range []string{"push service", "List", "Update", "Keep"} {
		t.Run(away, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := on()
				memory := NewMemoryStore()
				var accounts []string
				for i := range 10 {
					accounts = append(accounts, fmt.Sprintf("user%d@example.com", i))
					keep(t, memory, accounts[i], phone)
				}
				var accepted atomic.Int32
				svc := service{answer: func(*Notification) error {
					if away == "Keep" || away == "push service" && down.Load() {
						return errors.New("no route")
					}
					accepted.Add(1)
					return nil
				}}
				store := &hookedKeeper{hookedStore{Store: memory, before: failing(away, down)}, memory}
				e := newEngine(t, Config{Publisher: &svc, Store: store, Keep: KeepAll, Policy: Policy{Expire: 24 * time.Hour}})
				for _, account := range accounts {
					handle(t, e, Offline{account, message("m1")})
				}
				pass(time.Hour)
				time.AfterFunc(2*time.Second, func() { down.Store(false) })
				within, took, sent, left := 40*time.Second, 5*time.Second, 10, 0
				if away == "Keep" { // for which is the last quarter, which is over before it would have been asked again
					within, took, sent, left = 10*time.Second, 8*time.Second, 0, 10
				}
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				began := time.Now()
				assert.NoError(t, e.Close(ctx))
				assert.LessOrEqual(t, time.Since(began), took)
				assert.EqualValues(t, sent, accepted.Load())
				for _, err := range memory.Kept(t.Context()) {
					require.NoError(t, err)
					left--
				}
				assert.Zero(t, left, "kept")
				if away != "Keep" {
					assert.False(t, stored(t, memory, accounts[0])[0].Health.Succeeded.IsZero())
				}
			})
		})
	}
}

// hookedKeeper is a hookedStore that is a Keeper.
type hookedKeeper struct {
	hookedStore
	keeper Keeper
}

func (k *hookedKeeper) Keep(ctx context.Context, account string, state []byte) error {
	if err := k.call(ctx, "Keep", account); err != nil {
		return err
	}
	return k.keeper.Keep(ctx, account, state)
}

func (k *hookedKeeper) Kept(ctx context.Context) iter.Seq2[Kept, error] { return k.keeper.Kept(ctx) }

// TestCloseLeavesTimeToKeep has a Keeper that is slow: it has a quarter of Close's time.
func TestCloseLeavesTimeToKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		slow := func(_ context.Context, method, _ string) error {
			if method == "Keep" {
				time.Sleep(2 * time.Second)
			}
			return nil
		}
		e := newEngine(t, Config{
			Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") }),
			Store:     &hookedKeeper{hookedStore{Store: memory, before: slow}, memory}, Keep: KeepNone,
		})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		assert.NoError(t, e.Close(ctx))
		assert.Equal(t, 9500*time.Millisecond, time.Since(began).Truncate(100*time.Millisecond))
	})
}

// TestCloseStubborn has a Publisher that takes no notice of its context. Close does not wait for it, and what it says later changes nothing.
func TestCloseStubborn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		told := 0
		e := newEngine(t, Config{
			Store: struct{ Store }{memory}, Observer: &Observer{Replied: func(time.Time, *Notification, Reply, Result, time.Duration) { told++ }},
			Publisher: PublisherFunc(func(context.Context, *Notification) error {
				time.Sleep(time.Minute)
				return &ReplyError{"cancel", "item-not-found"}
			}),
		})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		var unsent *UnsentError
		require.ErrorAs(t, e.Close(ctx), &unsent)
		assert.Len(t, unsent.Unsent, 1)
		assert.Equal(t, time.Second, time.Since(began))
		pass(time.Hour)
		assert.Equal(t, Health{}, health(t, memory))
		assert.Zero(t, told)
	})
}

// TestCloseLearns gives up a publish whose reply comes just then. What it says is stored all the same.
func TestCloseLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		e := newEngine(t, Config{
			Publisher: PublisherFunc(func(ctx context.Context, _ *Notification) error {
				<-ctx.Done()
				return &ReplyError{"cancel", "item-not-found"}
			}),
			Store: &hookedStore{Store: memory, before: func(ctx context.Context, _, _ string) error { return ctx.Err() }},
		})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, e.Close(ctx))
		assert.Equal(t, "item-not-found", health(t, memory).Cause)
	})
}

// TestCloseWaitsForStore closes an Engine while a client enables push.
func TestCloseWaitsForStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(_ context.Context, m, _ string) error {
			if m == "Enable" {
				time.Sleep(20 * time.Second)
			}
			return nil
		}}})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: phone})
			assert.NoError(t, err)
		})
		synctest.Wait()
		wg.Go(func() {
			_, err := e.Handle(t.Context(), Offline{juliet, message("m1")}) // waits for its turn
			assert.NoError(t, err)
		})
		synctest.Wait()
		began := time.Now()
		require.NoError(t, e.Close(t.Context()))
		assert.Equal(t, 20*time.Second, time.Since(began))
		wg.Wait()
		assert.Len(t, stored(t, memory, juliet), 1)
	})
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		e := newEngine(t, Config{Publisher: &service{}, Store: memory})
		handle(t, e, SessionOpen{Session: phoneSession})
		require.NoError(t, e.Close(t.Context()))
		for _, ev := range []Event{SessionOpen{Session: phoneSession}, Offline{juliet, message("m1")}, Offline{"nurse@example.com", message("m1")}, PushEnable{Session: phoneSession, Key: phone}} {
			d, err := e.Handle(t.Context(), ev)
			assert.ErrorIs(t, err, ErrClosed)
			assert.False(t, d.Notifies())
		}
		assert.ErrorIs(t, e.HandleTo(t.Context(), Ping{Account: juliet}, nil), ErrClosed)
		st, err := e.Inspect(t.Context(), juliet)
		assert.NoError(t, err, "the Store still knows")
		assert.Len(t, st.Registrations, 1)
	})
}

// TestCloseRace closes an Engine under load: each event is refused, or its stanza is published or reported as unsent. An Engine with an Observer
// takes another way through Handle than one without.
func TestCloseRace(t *testing.T) {
	for i := range 16 {
		var mu sync.Mutex
		owed, unsure := make(map[string]int), make(map[string]bool)
		cfg := Config{
			Policy: Policy{Delay: time.Millisecond, ServiceInFlight: 2},
			Publisher: PublisherFunc(func(ctx context.Context, n *Notification) error {
				select {
				case <-time.After(50 * time.Microsecond):
				case <-ctx.Done():
					return ctx.Err()
				}
				mu.Lock()
				defer mu.Unlock()
				owed[n.Account] -= n.Count
				return nil
			}),
		}
		if i%2 == 0 {
			cfg.Observer = &Observer{Decided: func(uint64, time.Time, Event, *Decision, time.Duration) {}}
		}
		e := newEngine(t, cfg)
		var wg sync.WaitGroup
		for g := range 8 {
			s := SessionID{fmt.Sprintf("user%d@example.com", g), "s"}
			handle(t, e, SessionOpen{Session: s}, PushEnable{Session: s, Key: node(fmt.Sprint("n", g%2))})
			for h := range 2 {
				wg.Go(func() {
					for i := 0; ; i++ {
						st := message(fmt.Sprint("m", h, "-", i))
						var ev Event = StanzaQueued{s, st}
						if i%2 == 0 {
							ev = Offline{s.Account, st}
						}
						d, err := e.Handle(context.Background(), ev)
						if err != nil {
							assert.ErrorIs(t, err, ErrClosed)
							return
						}
						mu.Lock()
						owed[s.Account] += d.Verdicts[0].Count
						mu.Unlock()
					}
				})
			}
		}
		time.Sleep(2 * time.Millisecond) // of real load
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		var unsent *UnsentError
		if err := e.Close(ctx); err != nil {
			require.ErrorAs(t, err, &unsent)
			mu.Lock()
			for _, u := range unsent.Unsent {
				if u.Asked { // it may have been accepted, as far as the Engine knows
					unsure[u.Account] = true
				}
				owed[u.Account] -= u.Count
			}
			mu.Unlock()
		}
		cancel()
		wg.Wait()
		mu.Lock()
		for account, n := range owed {
			assert.True(t, n == 0 || n < 0 && unsure[account], "%s: %d", account, n)
		}
		mu.Unlock()
	}
}

// TestCloseLeaves checks that a closed Engine is garbage: no timer or goroutine holds it.
func TestCloseLeaves(t *testing.T) {
	before := runtime.NumGoroutine()
	p := func() weak.Pointer[Engine] {
		e := newEngine(t, Config{
			Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") }),
			Policy:    Policy{RetryMin: time.Hour, RetryMax: time.Hour, ProbeEvery: time.Hour}, // longer than this test waits
		})
		for i := range 200 {
			s := SessionID{fmt.Sprintf("user%d@example.com", i), "s"}
			handle(t, e, SessionOpen{Session: s}, PushEnable{Session: s, Key: phone}, StanzaQueued{s, message("m1")}, Offline{s.Account, message("m2")})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		assert.Error(t, e.Close(ctx))
		return weak.Make(e)
	}()
	for range 1000 {
		runtime.GC()
		if p.Value() == nil && runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond) // for goroutines that are done to be gone; the garbage collector has no virtual time
	}
	assert.True(t, p.Value() == nil, "something holds the Engine")
	assert.LessOrEqual(t, runtime.NumGoroutine(), before)
}

// slowVeto takes its time over the stanza m2.
type slowVeto struct{}

func (slowVeto) VetoStanza(_ *Registration, st Stanza) string {
	if st.ID == "m2" {
		time.Sleep(5 * time.Second)
	}
	return ""
}

func (slowVeto) VetoPublish(context.Context, *Notification) string { return "" }

// A reply that had to wait for its account's turn is handled at the time it gets that: what was decided before it is due then, also when
// nothing but Close would look again.
func TestCloseSendsWhatWasDecidedWhileAReplyWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { time.Sleep(time.Second); return nil }}
		e := newEngine(t, Config{Publisher: &svc, Veto: slowVeto{}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		time.Sleep(500 * time.Millisecond)
		go e.Handle(context.Background(), Offline{juliet, message("m2")})
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, e.Close(t.Context()))
		assert.Len(t, svc.published(), 2)
	})
}

// TestCloseReportsBoth closes while one message cannot be sent and another not be decided: the error has both. Meanwhile no event is taken, also of an account that is in memory.
func TestCloseReportsBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, "nurse@example.com", phone)
		e := newEngine(t, Config{
			Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") }),
			Store:     &hookedStore{Store: memory, before: failing("List", on())},
		})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, HibernationStart{phoneSession, []Stanza{message("m1")}})
		late := Offline{"nurse@example.com", message("m1")}
		assert.Equal(t, ReasonDeferred, handle(t, e, late).Reason)
		var closed error
		done := make(chan struct{})
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			closed = e.Close(ctx)
			close(done)
		}()
		synctest.Wait()
		_, err := e.Handle(t.Context(), StanzaQueued{phoneSession, message("m2")})
		assert.ErrorIs(t, err, ErrClosed)
		<-done
		var left *UnsentError
		require.ErrorAs(t, closed, &left)
		require.Len(t, left.Unsent, 1)
		assert.Equal(t, 1, left.Unsent[0].Count)
		assert.Equal(t, []Event{late}, left.Undecided)
	})
}
