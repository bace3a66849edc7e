package push_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// TestLessonBesideEnable has a reply come while the Store takes its time over an enable of the same registration: the Store says what the Engine knows afterwards, and
// has been told all.
func TestLessonBesideEnable(t *testing.T) {
	for _, condition := range []string{"", "item-not-found", "forbidden"} {
		for _, broken := range []bool{false, true} { // for updates
			t.Run(fmt.Sprint(condition, broken), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					memory := NewMemoryStore()
					var faulty atomic.Bool
					store := &hookedStore{Store: memory, before: func(_ context.Context, method, _ string) error {
						if method == "Enable" {
							time.Sleep(2 * time.Second)
						} else if method == "Update" && faulty.Load() {
							return errFault
						}
						return nil
					}}
					answer := make(chan error, 1)
					e := newEngine(t, Config{Store: store, Publisher: PublisherFunc(func(context.Context, *Notification) error { return <-answer })})
					enable := PushEnable{Session: SessionID{Account: juliet}, Key: phone}
					handle(t, e, enable, Offline{juliet, message("m1")})
					faulty.Store(broken)
					reply := func() {
						time.Sleep(time.Second)
						if condition == "" {
							answer <- nil
						} else {
							answer <- &ReplyError{Type: "cancel", Condition: condition}
						}
					}
					go reply()
					enable.Options = []Field{{Var: "secret", Values: []string{"new"}}}
					handle(t, e, enable)
					faulty.Store(false)
					pass(time.Hour)
					assert.Equal(t, StoreStatus{}, e.Store())
					is, err := e.Inspect(t.Context(), juliet)
					require.NoError(t, err)
					want, got := is.Registrations[0].Health, stored(t, memory, juliet)[0].Health
					assert.Zero(t, got.Disabled)
					assert.Equal(t, condition == "", !got.Succeeded.IsZero())
					assert.Equal(t, []any{want.Errors, want.Refusals, want.Disabled.UnixMilli(), want.Succeeded.UnixMilli()}, []any{got.Errors, got.Refusals, got.Disabled.UnixMilli(), got.Succeeded.UnixMilli()})
					require.NoError(t, e.Close(t.Context()))
				})
			})
		}
	}
}

// TestTombstoneNotTold has a device enable again that errors had disabled, of which the Store was told all but the last: it starts anew there too, and is not disabled
// by the next error.
func TestTombstoneNotTold(t *testing.T) {
	for _, proven := range []bool{false, true} {
		for _, condition := range []string{"forbidden", "unexpected-request"} {
			t.Run(fmt.Sprint(condition, " proven=", proven), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					memory, answer := NewMemoryStore(), error(nil)
					var faulty atomic.Bool
					store := &hookedStore{Store: memory, before: func(_ context.Context, method, _ string) error {
						if method == "Update" && faulty.Load() {
							return errFault
						}
						return nil
					}}
					e := newEngine(t, Config{Store: store, Policy: Policy{MaxErrors: 3}, Publisher: PublisherFunc(func(context.Context, *Notification) error { return answer })})
					enable, n := PushEnable{Session: SessionID{Account: juliet}, Key: phone}, 0
					publish := func(times int) {
						for range times {
							n++
							handle(t, e, Offline{juliet, message(fmt.Sprint("m", n))})
							pass(2 * time.Second)
						}
					}
					handle(t, e, enable)
					if proven {
						publish(1)
					}
					answer = &ReplyError{Type: "cancel", Condition: condition}
					publish(2)
					h := stored(t, memory, juliet)[0].Health
					require.Equal(t, 2, h.Errors+h.Refusals)
					faulty.Store(true)
					publish(1)
					d := handle(t, e, enable)
					require.Equal(t, ChangeEnabled, d.Changes[0].Kind, "it was disabled")
					faulty.Store(false)
					pass(time.Minute)
					h = stored(t, memory, juliet)[0].Health
					assert.Zero(t, h.Errors)
					assert.Zero(t, h.Refusals)
					assert.Zero(t, h.Disabled)
					assert.Equal(t, proven, !h.Succeeded.IsZero())
					pass(time.Hour) // it is read again
					publish(1)
					h = stored(t, memory, juliet)[0].Health
					assert.Zero(t, h.Disabled)
					assert.Equal(t, 1, h.Errors+h.Refusals)
					require.NoError(t, e.Close(t.Context()))
				})
			})
		}
	}
}

// TestRefreshIsBounded refreshes while the Store hangs for one account, its context or not: the others are read, and nobody waits longer than Config.StoreTimeout, or for
// the Engine's end.
func TestRefreshIsBounded(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			free := make(chan struct{})
			memory := NewMemoryStore()
			e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(_ context.Context, method, account string) error {
				if method == "List" && account == "user0@example.com" {
					<-free
				}
				return nil
			}}})
			for i := range 50 {
				id := SessionID{Account: fmt.Sprintf("user%d@example.com", i), ID: "s"}
				handle(t, e, SessionOpen{Session: id}, PushEnable{Session: id, Key: phone})
				keep(t, memory, id.Account, node("other"))
			}
			done := make(chan error, 1)
			began, took := time.Now(), time.Duration(0)
			go func() {
				err := e.RefreshAll(context.Background())
				took = time.Since(began)
				done <- err
			}()
			time.Sleep(time.Second)
			for i := 1; i < 50; i++ {
				is, err := e.Inspect(t.Context(), fmt.Sprintf("user%d@example.com", i))
				require.NoError(t, err)
				assert.Len(t, is.Registrations, 2, i)
			}
			if closes {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_ = e.Close(ctx)
				synctest.Wait()
			} else {
				time.Sleep(31 * time.Second)
			}
			select {
			case err := <-done:
				assert.True(t, errors.Is(err, ErrStore) || closes && errors.Is(err, ErrClosed), err)
				assert.True(t, closes || took == 30100*time.Millisecond, took)
			default:
				assert.Fail(t, "it still waits")
			}
			close(free)
			require.NoError(t, e.Close(t.Context()))
		})
	}
}

// taught is an Engine whose push service answers as answers says, node by node, and whose Store is called as update says.
type taught struct {
	*Engine
	memory *MemoryStore
	t      *testing.T
	mu     sync.Mutex
	// answers are those of the nodes; updates is when Update was called; update is what it does.
	answers map[string]error
	updates []time.Duration
	update  func() error
	began   time.Time
}

func newTaught(t *testing.T, keys ...Key) *taught {
	l := &taught{memory: NewMemoryStore(), t: t, answers: map[string]error{}, began: time.Now()}
	keep(t, l.memory, juliet, keys...)
	l.Engine = newEngine(t, Config{
		Publisher: PublisherFunc(func(_ context.Context, n *Notification) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.answers[n.Node]
		}),
		Store: &hookedStore{Store: l.memory, before: func(_ context.Context, method, _ string) error {
			if method != "Update" {
				return nil
			}
			l.mu.Lock()
			l.updates = append(l.updates, time.Since(l.began))
			update := l.update
			l.mu.Unlock()
			if update == nil {
				return nil
			}
			return update()
		}},
	})
	return l
}

// reply has a message go out, to which the push service answers with conditions, node by node; none: it accepts it, and nobody else gets it.
func (l *taught) reply(conditions map[string]string) {
	l.t.Helper()
	var to []Key
	for n, condition := range conditions {
		l.mu.Lock()
		if l.answers[n] = nil; condition != "" {
			l.answers[n] = &ReplyError{Type: "cancel", Condition: condition}
		}
		l.mu.Unlock()
		to = append(to, node(n))
	}
	handle(l.t, l.Engine, Ping{Account: juliet, Registrations: to})
	synctest.Wait()
}

func (l *taught) set(update func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.update = update
}

func (l *taught) stored(n string) Health {
	l.t.Helper()
	for _, r := range stored(l.t, l.memory, juliet) {
		if r.Node == n {
			return r.Health
		}
	}
	require.Fail(l.t, "it is not stored")
	return Health{}
}

func fails() error { return errFault }

// TestTaughtMeanwhile has replies come while the Store takes its time over what others taught: it is told all of it in the end, each thing once, in order, and it is counted once.
func TestTaughtMeanwhile(t *testing.T) {
	for _, failure := range []error{nil, errFault} {
		synctest.Test(t, func(t *testing.T) {
			l := newTaught(t, node("phone"), node("tablet"))
			l.set(func() error { time.Sleep(time.Second); return failure })
			l.reply(map[string]string{"phone": "forbidden"})
			time.Sleep(500 * time.Millisecond)
			l.reply(map[string]string{"tablet": ""})
			l.reply(map[string]string{"phone": "forbidden"})
			l.reply(map[string]string{"tablet": "forbidden"})
			assert.Equal(t, 3, l.Store().Unwritten)
			pass(510 * time.Millisecond)
			l.set(nil)
			assert.Equal(t, 2, l.Store().Unwritten)
			pass(2 * time.Second)
			assert.Equal(t, 2, l.stored("phone").Refusals)
			assert.Equal(t, 1, l.stored("tablet").Refusals)
			assert.NotZero(t, l.stored("tablet").Succeeded)
			assert.Equal(t, StoreStatus{}, l.Store())
			pass(time.Hour)
			closeAtOnce(t, l.Engine)
		})
	}
}

// TestTaughtAgain has the Store fail, and fail again later: a success is told once, and the wait begins anew each time.
func TestTaughtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTaught(t, node("phone"))
		for range 2 {
			l.updates, l.began = nil, time.Now()
			l.set(fails)
			l.reply(map[string]string{"phone": ""})
			l.reply(map[string]string{"phone": "forbidden"})
			assert.Equal(t, StoreStatus{Away: true, Unwritten: 1}, l.Store())
			calls := 0
			l.set(func() error {
				if calls++; calls == 2 { // after the success
					return errFault
				}
				return nil
			})
			pass(time.Hour)
			assert.Equal(t, []time.Duration{0, time.Second, time.Second, 3 * time.Second}, l.updates)
			assert.Equal(t, 1, l.stored("phone").Refusals)
			assert.Equal(t, StoreStatus{}, l.Store())
		}
		closeAtOnce(t, l.Engine)
	})
}

// TestTaughtInBetween has the Store fail, take what it was told, and fail at what replies taught meanwhile: the wait begins anew.
func TestTaughtInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTaught(t, node("phone"))
		l.set(fails)
		l.reply(map[string]string{"phone": "forbidden"})
		l.set(func() error { time.Sleep(time.Second); return nil })
		pass(1500 * time.Millisecond)
		l.set(fails)
		l.reply(map[string]string{"phone": "forbidden"})
		pass(time.Second)
		l.set(nil)
		pass(time.Hour)
		assert.Equal(t, []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second}, l.updates)
		assert.Equal(t, 2, l.stored("phone").Refusals)
		closeAtOnce(t, l.Engine)
	})
}

// TestTaughtBeforeAChange has the client enable while the Store is being told of one registration, and is to be told of another.
func TestTaughtBeforeAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTaught(t, node("phone"), node("tablet"))
		l.set(func() error { time.Sleep(time.Second); return nil })
		l.reply(map[string]string{"phone": ""})
		l.reply(map[string]string{"tablet": "forbidden"})
		handle(t, l.Engine, PushEnable{Session: SessionID{Account: juliet}, Key: node("new")})
		pass(3 * time.Second)
		assert.NotZero(t, l.stored("phone").Succeeded)
		assert.Equal(t, 1, l.stored("tablet").Refusals)
		assert.Len(t, l.updates, 2)
		assert.Equal(t, StoreStatus{}, l.Store())
		closeAtOnce(t, l.Engine)
	})
}

// TestEnabledAnew: what an enable lets go of what the Store was not told are the errors of that registration alone, and of one that starts anew.
func TestEnabledAnew(t *testing.T) {
	enable := func(l *taught, n string) {
		handle(l.t, l.Engine, PushEnable{Session: SessionID{Account: juliet}, Key: node(n), Options: []Field{{Var: "x", Values: []string{fmt.Sprint(time.Now())}}}})
		synctest.Wait()
	}
	for name, f := range map[string]func(t *testing.T, l *taught){
		"the Store knew nothing": func(t *testing.T, l *taught) {
			l.set(fails)
			l.reply(map[string]string{"phone": "", "tablet": ""})
			l.reply(map[string]string{"phone": "item-not-found", "tablet": "forbidden"})
			enable(l, "phone")
			l.set(nil)
			pass(time.Minute)
			assert.Zero(t, l.stored("phone").Disabled)
			assert.NotZero(t, l.stored("phone").Succeeded)
			assert.Equal(t, 1, l.stored("tablet").Refusals)
			assert.NotZero(t, l.stored("tablet").Succeeded)
		},
		"not disabled": func(t *testing.T, l *taught) {
			l.reply(map[string]string{"phone": "forbidden"})
			enable(l, "phone")
			assert.Equal(t, 1, l.stored("phone").Refusals)
		},
		"the Store knew": func(t *testing.T, l *taught) {
			for range 3 {
				l.reply(map[string]string{"phone": "forbidden"})
			}
			require.NotZero(t, l.stored("phone").Disabled)
			n := len(l.updates)
			enable(l, "phone")
			pass(time.Minute)
			assert.Equal(t, Health{}, l.stored("phone"))
			assert.Len(t, l.updates, n, "it need not be told")
		},
		"removed by another node": func(t *testing.T, l *taught) {
			l.set(fails)
			l.reply(map[string]string{"phone": ""})
			remove(t, l.memory, node("phone"))
			require.NoError(t, l.Refresh(t.Context(), juliet))
			enable(l, "phone")
			l.set(nil)
			pass(time.Minute)
			assert.Equal(t, Health{}, l.stored("phone"), "it is another")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTaught(t, node("phone"), node("tablet"))
				f(t, l)
				pass(time.Hour)
				assert.Equal(t, StoreStatus{}, l.Store())
				closeAtOnce(t, l.Engine)
			})
		})
	}
}

// TestBackgroundSlots: accounts that wait for one of the 64 slots to tell the Store something, which it is told by an enable meanwhile, give the slot back when they get it.
func TestBackgroundSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, hang := make(chan struct{}), on()
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &service{}, StoreTimeout: time.Hour, Store: &hookedStore{Store: memory, before: func(_ context.Context, method, _ string) error {
			if method == "Update" && hang.Load() {
				<-free
			}
			return nil
		}}})
		user := func(i int) SessionID { return SessionID{Account: fmt.Sprintf("user%d@example.com", i)} }
		work := func(i int) {
			handle(t, e, PushEnable{Session: user(i), Key: phone}, Ping{Account: user(i).Account})
			synctest.Wait()
		}
		for i := range 200 {
			work(i)
		}
		require.Equal(t, 200, e.Parts()["background"])
		hang.Store(false)
		for i := 64; i < 200; i++ {
			handle(t, e, PushEnable{Session: user(i), Key: phone, Options: []Field{{Var: "x"}}})
		}
		synctest.Wait()
		assert.Equal(t, 64, e.Store().Unwritten)
		close(free)
		synctest.Wait()
		assert.Zero(t, e.Parts()["background"])
		for i := 200; i < 300; i++ {
			work(i)
			assert.NotZero(t, stored(t, memory, user(i).Account)[0].Health.Succeeded)
		}
		pass(time.Hour)
		assert.Empty(t, e.Parts())
		closeAtOnce(t, e)
	})
}

// TestTaughtInTime has the Store return a moment after the end of its time: it is not away, and nothing has to be told again. What falls due meanwhile for the account asks it for nothing.
func TestTaughtInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTaught(t, node("phone"))
		l.set(func() error { time.Sleep(30*time.Second + 50*time.Millisecond); return nil })
		l.reply(map[string]string{"phone": ""})
		pass(30 * time.Second)
		assert.Equal(t, StoreStatus{Unwritten: 1, Calling: 1}, l.Store())
		pass(75 * time.Millisecond)
		assert.Equal(t, StoreStatus{}, l.Store())
		assert.Len(t, l.updates, 1)
		closeAtOnce(t, l.Engine)
	})
}

// TestNotBeforeItsTime has the Store fail at a reading, or at being told what replies taught; it is not tried again because something else falls due, nor asked for what it said already.
func TestNotBeforeItsTime(t *testing.T) {
	for _, method := range []string{"Enable", "Update"} {
		synctest.Test(t, func(t *testing.T) {
			down := on()
			down.Store(false)
			var list calls
			memory := NewMemoryStore()
			keep(t, memory, juliet, phone)
			e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: list.of(func(m string) error {
				if m == method && down.Load() {
					return errFault
				}
				return nil
			})}})
			handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, HibernationStart{Session: phoneSession})
			synctest.Wait()
			handle(t, e, StanzaQueued{phoneSession, Stanza{ID: "p1", Class: ClassPlain, To: juliet}}) // it is due in a second
			time.Sleep(500 * time.Millisecond)
			down.Store(true)
			if method == "Enable" {
				_, err := e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: node("new")})
				require.ErrorIs(t, err, ErrStore)
			} else {
				handle(t, e, Ping{Account: juliet})
			}
			again := map[string]string{"Enable": "List", "Update": "Update"}[method]
			count := func() (n int) {
				synctest.Wait()
				for _, m := range list.got() {
					if m == again {
						n++
					}
				}
				return n
			}
			tried := count()
			pass(900 * time.Millisecond)
			assert.Equal(t, tried, count(), method)
			down.Store(false)
			pass(time.Minute)
			assert.Equal(t, tried+1, count(), method)
			handle(t, e, SessionClose{phoneSession})
			pass(time.Hour)
			closeAtOnce(t, e)
		})
	}
}
