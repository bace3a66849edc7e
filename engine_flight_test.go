package push_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// closeAtOnce closes an Engine that has nothing to do any more: nothing counts as work, and nothing is waited for.
func closeAtOnce(t *testing.T, e *Engine) {
	t.Helper()
	synctest.Wait()
	assert.Zero(t, e.Parts()["work"])
	began := time.Now()
	require.NoError(t, e.Close(t.Context()))
	assert.Less(t, time.Since(began), time.Microsecond, "Close waits for what is over")
}

// raise enables a device of each account at the same push service, and has a message go to it.
func raise(t *testing.T, e *Engine, st Stanza, accounts ...string) {
	t.Helper()
	for _, account := range accounts {
		st.To = account
		handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Offline{account, st})
	}
}

// accounts are those that n were published to, in their order.
func accounts(ns []Notification) (list []string) {
	for i := range ns {
		list = append(list, ns[i].Account)
	}
	return list
}

// TestPublisherBreaks has a Publisher panic, or end its goroutine: that is no answer, so the notification is tried again, and what waits for the slot goes on at once.
func TestPublisherBreaks(t *testing.T) {
	for name, fault := range map[string]func(){"panics": func() { panic("at the disco") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				outcomes := make(map[string][]string)
				svc := service{}
				svc.answer = func(*Notification) error {
					if len(svc.published()) == 1 {
						time.Sleep(time.Second)
						fault()
					}
					return nil
				}
				e := newEngine(t, Config{
					Publisher: &svc, Policy: Policy{ServiceInFlight: 1, RetryMin: time.Minute},
					Observer: &Observer{Replied: func(_ time.Time, n *Notification, _ Reply, res Result, _ time.Duration) {
						mu.Lock()
						defer mu.Unlock()
						outcomes[n.Account] = append(outcomes[n.Account], res.Outcome.String())
					}},
				})
				raise(t, e, message("m1"), juliet, "nurse@example.com")
				pass(time.Second)
				assert.Equal(t, []string{juliet, "nurse@example.com"}, accounts(svc.published()))
				pass(5 * time.Minute)
				assert.Equal(t, []string{juliet, "nurse@example.com", juliet}, accounts(svc.published()))
				mu.Lock()
				assert.Equal(t, map[string][]string{juliet: {"transient", "accepted"}, "nurse@example.com": {"accepted"}}, outcomes)
				mu.Unlock()
				closeAtOnce(t, e)
			})
		})
	}
}

// TestPublishContext is what a Publisher's context says: it ends with Policy.ReplyTimeout, after which there is a moment left to return in, and when the call has returned.
func TestPublishContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var last context.Context
		e := newEngine(t, Config{Publisher: PublisherFunc(func(ctx context.Context, n *Notification) error {
			last = ctx
			if n.Account == juliet {
				<-ctx.Done()
				assert.Equal(t, 30*time.Second, time.Since(began))
				time.Sleep(90 * time.Millisecond)
				return ctx.Err()
			}
			assert.NoError(t, ctx.Err())
			return nil
		})})
		raise(t, e, message("m1"), "nurse@example.com")
		synctest.Wait()
		assert.ErrorIs(t, last.Err(), context.Canceled, "it has returned")
		raise(t, e, message("m1"), juliet)
		pass(30*time.Second + 95*time.Millisecond)
		assert.Empty(t, e.Hooks(), "it was in time")
		handle(t, e, AccountRemoved{juliet})
		closeAtOnce(t, e)
	})
}

// TestDeadlines has two publishes to one push service hang: each loses its slot in its own time, and what it carries is given up in its own time, and once.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		free := make(chan struct{})
		var told []string
		e := newEngine(t, Config{
			Publisher: PublisherFunc(func(context.Context, *Notification) error { <-free; return nil }), Policy: Policy{Expire: 3 * time.Minute},
			Observer: &Observer{Replied: func(_ time.Time, n *Notification, _ Reply, res Result, _ time.Duration) {
				told = append(told, fmt.Sprint(time.Since(began), " ", n.Account, " ", res.Outcome))
			}},
		})
		call := message("c1")
		call.Class = ClassUrgent
		raise(t, e, call, juliet)
		time.Sleep(20 * time.Second)
		raise(t, e, message("m1"), "nurse@example.com")
		for _, c := range []struct{ after, inFlight, hanging int }{{11, 1, 1}, {20, 0, 2}, {3600, 0, 2}} {
			pass(time.Duration(c.after) * time.Second)
			assert.Equal(t, []ServiceStatus{{Service: phone.Service, InFlight: c.inFlight, Hanging: c.hanging}}, e.Services())
		}
		assert.Equal(t, []string{"1m0s " + juliet + " transient", "3m20s nurse@example.com transient"}, told)
		close(free)
		closeAtOnce(t, e)
		assert.Len(t, told, 2)
	})
}

// TestNothingLeftToSend has what waits for a slot be gone when it gets one: nothing is published, nobody is told that it was, and nothing is left of it.
func TestNothingLeftToSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { time.Sleep(time.Second); return nil }}
		var sent atomic.Int32
		e := newEngine(t, Config{Publisher: &svc, Policy: Policy{ServiceInFlight: 1}, Observer: &Observer{Sent: func(time.Time, *Notification) { sent.Add(1) }}})
		raise(t, e, message("m1"), "nurse@example.com")
		synctest.Wait()
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, HibernationStart{phoneSession, []Stanza{message("m1")}})
		assert.Len(t, handle(t, e, HibernationEnd{phoneSession}).Drops, 1)
		handle(t, e, SessionClose{phoneSession})
		raise(t, e, message("m1"), "romeo@example.com")
		handle(t, e, AccountRemoved{"romeo@example.com"})
		assert.Equal(t, 2, e.Services()[0].Waiting)
		pass(time.Minute)
		assert.Equal(t, []string{"nurse@example.com"}, accounts(svc.published()))
		assert.EqualValues(t, 1, sent.Load())
		pass(time.Hour)
		assert.Empty(t, e.Parts())
		closeAtOnce(t, e)
	})
}

// TestSentIsToldFirst: that a publish is sent is told before the host is asked about it, and before its answer; once, and to both kinds of observers.
func TestSentIsToldFirst(t *testing.T) {
	for _, quick := range []bool{false, true} {
		for _, asked := range []bool{false, true} {
			t.Run(fmt.Sprint("quick=", quick, " asked=", asked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var sent atomic.Int32
					cfg := Config{
						Publisher: PublisherFunc(func(context.Context, *Notification) error { time.Sleep(time.Second); return nil }),
						Observer:  &Observer{Quick: quick, Sent: func(time.Time, *Notification) { sent.Add(1) }},
					}
					if asked {
						cfg.Unread = unread(func(string) (int, error) { time.Sleep(20 * time.Millisecond); return 1, nil })
					}
					e := newEngine(t, cfg)
					raise(t, e, message("m1"), juliet)
					synctest.Wait()
					assert.EqualValues(t, 1, sent.Load())
					pass(time.Minute)
					assert.EqualValues(t, 1, sent.Load())
					closeAtOnce(t, e)
				})
			})
		}
	}
}

// TestDroppedInstead has a tombstone that is to be tried again be disabled anew while its publish waits for a slot: the drop is told at once, to both kinds of observers.
func TestDroppedInstead(t *testing.T) {
	for _, quick := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			memory := NewMemoryStore()
			keep(t, memory, juliet, phone)
			disable := func() {
				require.NoError(t, memory.Update(t.Context(), juliet, phone, Update{Disabled: time.Now(), Cause: "gone"}))
			}
			disable()
			time.Sleep(2 * time.Hour)
			var dropped []Reason
			svc := service{answer: func(*Notification) error { time.Sleep(time.Second); return nil }}
			e := newEngine(t, Config{Publisher: &svc, Store: memory, Policy: Policy{ServiceInFlight: 1, RetryDisabled: time.Hour}, Observer: &Observer{
				Quick: quick,
				Affected: func(_ string, _ time.Time, eff *Effects) {
					for _, d := range eff.Drops {
						dropped = append(dropped, d.Reason)
					}
				},
			}})
			raise(t, e, message("m1"), "nurse@example.com")
			d := handle(t, e, Offline{juliet, message("m1")})
			require.True(t, d.Notifies())
			disable()
			require.NoError(t, e.Refresh(t.Context(), juliet))
			pass(2 * time.Second)
			assert.Equal(t, []string{"nurse@example.com"}, accounts(svc.published()))
			assert.Equal(t, []Reason{ReasonDisabled}, dropped)
			closeAtOnce(t, e)
		})
	}
}

// TestHostTakesItsTime has the host hang over what it is asked before a publish, for more than a push service's slots: others are asked about after a moment, and their publishes go out.
func TestHostTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		e := newEngine(t, Config{Publisher: &svc, Policy: Policy{ServiceInFlight: 2}, HookTimeout: 30 * time.Second, Unread: unread(func(account string) (int, error) {
			if account != juliet {
				time.Sleep(10 * time.Second)
			}
			return 1, nil
		})})
		raise(t, e, message("m1"), "user1@example.com", "user2@example.com", "user3@example.com", "user4@example.com", juliet)
		pass(45 * time.Millisecond)
		assert.Empty(t, svc.published())
		pass(65 * time.Millisecond)
		assert.Equal(t, []string{juliet}, accounts(svc.published()))
		assert.Equal(t, []ServiceStatus{{Service: phone.Service, Waiting: 4}}, e.Services())
		pass(11 * time.Second)
		assert.Len(t, svc.published(), 5)
		assert.Equal(t, []ServiceStatus{{Service: phone.Service}}, e.Services())
		pass(time.Hour)
		assert.Empty(t, e.Parts(), "the service is forgotten too")
		closeAtOnce(t, e)
	})
}

// TestAskedSideBySide: while the host is asked about one publish, and nothing is sent on its slot, it is asked about the next.
func TestAskedSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asking := 0
		var mu sync.Mutex
		count := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			asking += n
			return asking
		}
		e := newEngine(t, Config{
			Policy: Policy{ServiceInFlight: 2},
			Publisher: PublisherFunc(func(_ context.Context, n *Notification) error {
				if n.Account == "user1@example.com" {
					time.Sleep(10 * time.Second)
				} else {
					time.Sleep(time.Second)
				}
				return nil
			}),
			Unread: unread(func(string) (int, error) {
				count(1)
				time.Sleep(20 * time.Millisecond)
				count(-1)
				return 1, nil
			}),
		})
		raise(t, e, message("m1"), "user1@example.com", "user2@example.com")
		pass(500 * time.Millisecond)
		raise(t, e, message("m1"), "user3@example.com", "user4@example.com")
		synctest.Wait()
		require.Zero(t, count(0), "no slot is free")
		pass(530 * time.Millisecond)
		assert.Equal(t, 2, count(0))
		pass(time.Minute)
		closeAtOnce(t, e)
	})
}

// TestCounters: what the host counts goes along, never less than nothing, and a host that cannot say whether it vetoes does not.
func TestCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		pending := 3
		said := &lines{level: slog.LevelWarn}
		e := newEngine(t, Config{
			Publisher: &svc, Subscriptions: subscriptions(func(string) (int, error) { return pending, nil }), Logger: slog.New(said),
			Veto: veto{publish: func(*Notification) string { panic("at the disco") }},
		})
		raise(t, e, message("m1"), juliet)
		synctest.Wait()
		pending = -1
		handle(t, e, Offline{juliet, message("m2")})
		synctest.Wait()
		require.Len(t, svc.published(), 2)
		assert.Equal(t, 3, svc.published()[0].Pending)
		assert.Zero(t, svc.published()[1].Pending)
		assert.Contains(t, said.got, "WARN not known whether the host vetoes juliet error=push: the host's code panicked: Vetoer.VetoPublish")
		closeAtOnce(t, e)
	})
}

// TestTurnWhileAsking has an event of the account be in the middle of being decided when the host has been asked about its publish: the publish waits for that, with no slot, and others go out.
func TestTurnWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		host := &directory{chat: func(chat string) (ChatInfo, error) {
			if chat == "verona@rooms.example.net" {
				time.Sleep(time.Second)
			}
			return ChatInfo{}, nil
		}}
		e := newEngine(t, Config{Publisher: &svc, Chats: host, Policy: Policy{ServiceInFlight: 1}, Unread: unread(func(account string) (int, error) {
			if account == juliet {
				time.Sleep(20 * time.Millisecond)
			}
			return 1, nil
		})})
		raise(t, e, message("m1"), juliet)
		pass(10 * time.Millisecond)
		go func() { _, _ = e.Handle(context.Background(), Groupchat{juliet, room("r1", "hi")}) }()
		raise(t, e, message("m1"), "nurse@example.com")
		pass(15 * time.Millisecond)
		assert.Equal(t, []string{"nurse@example.com"}, accounts(svc.published()))
		pass(time.Second)
		assert.Equal(t, []string{"nurse@example.com", juliet}, accounts(svc.published()))
		pass(10 * time.Second)
		assert.Equal(t, []string{"nurse@example.com", juliet, juliet}, accounts(svc.published()))
		closeAtOnce(t, e)
	})
}

// TestDisabledWhileAsking has a registration be disabled by the client, or by another node, while the host is asked about its publish: it is not sent (R12), and the slot is another's. The retry of
// a tombstone is.
func TestDisabledWhileAsking(t *testing.T) {
	for name, c := range map[string]struct {
		retry       time.Duration // Policy.RetryDisabled
		at          time.Duration // of the tombstone, before the publish is begun; 0: the client disables
		first, sent bool          // it is disabled before the message comes; the message is sent
	}{
		"by the client":           {0, 0, false, false},
		"by another":              {0, -10 * time.Millisecond, false, false},
		"by another, long ago":    {0, 2 * time.Hour, false, false},
		"by another, but retried": {time.Hour, -10 * time.Millisecond, false, false},
		"a tombstone's retry":     {time.Hour, 2 * time.Hour, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(24 * time.Hour)
				memory := NewMemoryStore()
				keep(t, memory, juliet, phone)
				began := time.Now()
				disable := func(ago time.Duration) {
					require.NoError(t, memory.Update(t.Context(), juliet, phone, Update{Disabled: began.Add(-ago), Cause: "gone"}))
				}
				if c.first {
					disable(2 * time.Hour)
				}
				var svc service
				e := newEngine(t, Config{Publisher: &svc, Store: memory, Policy: Policy{ServiceInFlight: 1, RetryDisabled: c.retry}, Unread: unread(func(account string) (int, error) {
					if account == juliet {
						time.Sleep(20 * time.Millisecond)
					}
					return 1, nil
				})})
				d := handle(t, e, Offline{juliet, message("m1")})
				require.True(t, d.Notifies())
				pass(15 * time.Millisecond)
				if c.at == 0 {
					handle(t, e, PushDisable{SessionID{Account: juliet}, phone})
				} else {
					disable(c.at)
					require.NoError(t, e.Refresh(t.Context(), juliet))
				}
				raise(t, e, message("m1"), "nurse@example.com")
				pass(time.Minute)
				want := []string{"nurse@example.com"}
				if c.sent {
					want = []string{juliet, "nurse@example.com"}
				}
				assert.Equal(t, want, accounts(svc.published()))
				pass(time.Hour)
				closeAtOnce(t, e)
			})
		})
	}
}

// TestTooOldWhilePrepared has a push service stop answering while the host is asked about more publishes than it has slots: what they carry is not sent when it is too old, however long it takes
// until the service is back.
func TestTooOldWhilePrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := on()
		var dropped, late atomic.Int32
		svc := service{}
		began := time.Now()
		svc.answer = func(n *Notification) error {
			if n.Class == ClassUrgent && time.Since(began) > time.Minute {
				late.Add(1)
			}
			if down.Load() {
				return errors.New("no route")
			}
			return nil
		}
		e := newEngine(t, Config{
			Publisher: &svc, Policy: Policy{ServiceInFlight: 8, Expire: time.Hour},
			Unread:   unread(func(string) (int, error) { time.Sleep(60 * time.Millisecond); return 1, nil }),
			Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { dropped.Add(int32(len(eff.Drops))) }},
		})
		call := message("c1")
		call.Class = ClassUrgent
		for i := range 30 {
			raise(t, e, call, fmt.Sprintf("user%d@example.com", i))
		}
		raise(t, e, message("m1"), juliet)
		pass(10 * time.Minute)
		require.True(t, e.Services()[0].Broken)
		down.Store(false)
		pass(20 * time.Minute)
		assert.Zero(t, late.Load(), "calls that are over ring")
		assert.EqualValues(t, 30, dropped.Load())
		got := svc.published()
		assert.Equal(t, juliet, got[len(got)-1].Account)
		closeAtOnce(t, e)
	})
}
