package push_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmpp/stanza"

	. "github.com/xmpp-push/push"
)

// pass lets time pass, and everything happen that is due then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// health reads a registration's health from the Store.
func health(t *testing.T, s Store) Health {
	t.Helper()
	rs := stored(t, s, juliet)
	require.Len(t, rs, 1)
	return rs[0].Health
}

// TestOutcomes plays each row of the table of replies: what is sent, and when the registration is disabled. proven are registrations that had a success.
func TestOutcomes(t *testing.T) {
	const never = 1000
	re := func(typ, condition string) error { return &ReplyError{typ, condition} }
	for _, c := range []struct {
		name             string
		reply            error
		retried          bool
		proven, unproven int // at which notification the registration is disabled
	}{
		{"result", nil, false, never, never},
		{"no answer", errors.New("no route"), true, never, never},
		{"remote-server-timeout", re("cancel", "remote-server-timeout"), true, never, never},
		{"remote-server-not-found", re("cancel", "remote-server-not-found"), true, never, never},
		{"recipient-unavailable", re("cancel", "recipient-unavailable"), true, never, never},
		{"wait/anything", re("wait", "item-not-found"), true, never, never},
		{"item-not-found", re("cancel", "item-not-found"), false, 1, 1},
		{"gone", fmt.Errorf("publisher: %w", re("cancel", "gone")), false, 1, 1},
		{"policy-violation", re("modify", "policy-violation"), false, 1, 1},
		{"forbidden", re("auth", "forbidden"), false, 3, 3},
		{"not-authorized", re("auth", "not-authorized"), false, 3, 3},
		{"not-allowed", re("cancel", "not-allowed"), false, 3, 3},
		{"bad-request", re("modify", "bad-request"), true, 16, 3},
		{"internal-server-error", re("cancel", "internal-server-error"), true, 16, 3},
		{"service-unavailable, of mellium", fmt.Errorf("publisher: %w", stanza.Error{Type: stanza.Cancel, Condition: stanza.ServiceUnavailable}), true, 16, 3},
		{"of a type only", re("modify", ""), true, 16, 3},
		{"of a condition only", stanza.Error{Condition: stanza.Conflict}, false, 16, 3},
	} {
		for _, proven := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/proven=%v", c.name, proven), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var svc service
					memory := NewMemoryStore()
					var changes []Change
					e := newEngine(t, Config{Publisher: &svc, Store: memory, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { changes = append(changes, eff.Changes...) }}})
					handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
					disabledAt := c.unproven
					if proven {
						disabledAt = c.proven
						handle(t, e, Offline{juliet, message("first")})
						synctest.Wait()
						svc.got = nil
					}
					svc.mu.Lock()
					svc.answer = func(*Notification) error { return c.reply }
					svc.mu.Unlock()
					for i := range min(disabledAt, 20) {
						require.True(t, health(t, memory).Disabled.IsZero(), "notification %d", i)
						d := handle(t, e, Offline{juliet, message(fmt.Sprint("m", i))})
						require.True(t, d.Notifies(), "notification %d", i)
						pass(time.Hour)
					}
					sent := len(svc.published())
					if c.retried {
						assert.Greater(t, sent, 4*min(disabledAt, 15))
					} else {
						assert.Equal(t, min(disabledAt, 20), sent)
					}
					h := health(t, memory)
					assert.Equal(t, disabledAt != never, !h.Disabled.IsZero())
					if c.reply == nil {
						assert.False(t, h.Succeeded.IsZero())
					}
					if disabledAt == never {
						assert.Zero(t, h.Errors+h.Refusals)
						assert.Empty(t, changes)
					} else {
						require.Len(t, changes, 1)
						assert.Equal(t, Change{Key: phone, Kind: ChangeDisabled, Reason: ReasonErrors, Detail: h.Cause}, changes[0])
						d := handle(t, e, Offline{juliet, message("after")})
						assert.Equal(t, ReasonDisabled, d.Verdicts[0].Reason)
						d = handle(t, e, StanzaQueued{phoneSession, message("after")})
						assert.Equal(t, ReasonDisabled, d.Verdicts[0].Reason)
						d = handle(t, e, PushEnable{Session: phoneSession, Key: phone})
						assert.Equal(t, []Change{{Key: phone, Kind: ChangeEnabled, Session: "s1", Rule: RuleBind, Reason: ReasonReenabled}}, d.Changes)
						assert.Equal(t, Health{Succeeded: h.Succeeded}, health(t, memory), "it is not forgotten that it has worked")
					}
					require.NoError(t, e.Close(t.Context()))
				})
			})
		}
	}
}

// TestCountersReset has a success between errors.
func TestCountersReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &svc, Store: memory})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		for i := range 40 {
			svc.answer = func(*Notification) error {
				switch i % 3 {
				case 0:
					return nil
				case 1:
					return &ReplyError{"auth", "forbidden"}
				}
				return &ReplyError{"cancel", "conflict"}
			}
			handle(t, e, Offline{juliet, message(fmt.Sprint("m", i))})
			synctest.Wait()
		}
		assert.True(t, health(t, memory).Disabled.IsZero())
		require.NoError(t, e.Close(t.Context()))
		assert.Len(t, svc.published(), 40)
	})
}

// TestTooBig sends it once more without what makes it big.
func TestTooBig(t *testing.T) {
	for _, condition := range []string{"payload-too-big", "not-acceptable"} {
		synctest.Test(t, func(t *testing.T) {
			svc := service{answer: func(n *Notification) error { return &ReplyError{"modify", condition} }}
			memory := NewMemoryStore()
			e := newEngine(t, Config{Publisher: &svc, Store: memory, Policy: Policy{IncludeBody: true, IncludeSender: true}})
			handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
			synctest.Wait()
			got := svc.published()
			require.Len(t, got, 2)
			assert.Equal(t, "wherefore", got[0].Body)
			assert.Equal(t, "romeo@example.net/orchard", got[0].Sender)
			assert.Empty(t, got[1].Body)
			assert.Empty(t, got[1].Sender)
			assert.Equal(t, 1, health(t, memory).Errors)
			handle(t, e, Offline{juliet, message("m2")})
			require.NoError(t, e.Close(t.Context()))
			got = svc.published()
			require.Len(t, got, 4)
			assert.Equal(t, "wherefore", got[2].Body, "the next one is whole again")
		})
	}
}

// TestEnabledWhenSent is R12 at the time of sending: a notification waits at a service that is busy, and meanwhile its registration goes.
func TestEnabledWhenSent(t *testing.T) {
	for name, end := range map[string]struct {
		ev     Event
		reason Reason
	}{
		"disabled by the client": {PushDisable{phoneSession, phone}, ReasonDisabledByUser},
		"revoked":                {AffiliationNone{juliet, phone}, ReasonRevoked},
		"account removed":        {AccountRemoved{juliet}, ReasonAccount},
		"disabled by errors":     {nil, ReasonDisabled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				svc.answer = func(*Notification) error { time.Sleep(10 * time.Second); return nil }
				memory := NewMemoryStore()
				var drops []Drop
				e := newEngine(t, Config{Publisher: &svc, Store: memory, Policy: Policy{ServiceInFlight: 1},
					Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { drops = append(drops, eff.Drops...) }}})
				nurse := "nurse@example.com"
				handle(t, e, PushEnable{Session: SessionID{Account: nurse}, Key: node("hers")}, Ping{Account: nurse})
				synctest.Wait()
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, Offline{juliet, message("m1")})
				synctest.Wait()
				assert.Equal(t, 1, e.Services()[0].Waiting)
				if end.ev != nil {
					d := handle(t, e, end.ev)
					drops = append(drops, d.Drops...)
				} else { // another node of the cluster learnt it
					require.NoError(t, memory.Update(t.Context(), juliet, phone, Update{Disabled: time.Now(), Cause: "gone"}))
					require.NoError(t, e.Refresh(t.Context(), juliet))
				}
				pass(time.Minute)
				require.Len(t, svc.published(), 1)
				assert.Equal(t, nurse, svc.published()[0].Account)
				require.Len(t, drops, 1)
				assert.Equal(t, end.reason, drops[0].Reason)
				handle(t, e, Ping{Account: nurse})
				require.NoError(t, e.Close(t.Context()))
				assert.Len(t, svc.published(), 2, "the admission came back")
			})
		})
	}
}

// TestEnabledAgainInFlight removes and enables a registration while a publish for it is not answered. The answer is not the new one's.
func TestEnabledAgainInFlight(t *testing.T) {
	for _, gone := range []Event{PushDisable{phoneSession, phone}, AccountRemoved{juliet}} {
		t.Run(gone.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				var at []time.Duration
				began := time.Now()
				open := 0
				svc.answer = func(*Notification) error {
					first := len(at) == 0
					at = append(at, time.Since(began))
					open++
					defer func() { open-- }()
					assert.Equal(t, 1, open, "never two at a time for one registration")
					time.Sleep(10 * time.Second)
					if first {
						return &ReplyError{"cancel", "item-not-found"}
					}
					return nil
				}
				memory := NewMemoryStore()
				e := newEngine(t, Config{Publisher: &svc, Store: memory})
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, Offline{juliet, message("m1")})
				synctest.Wait()
				handle(t, e, gone)
				handle(t, e, PushEnable{Session: phoneSession, Key: phone})
				d := handle(t, e, Offline{juliet, message("m2")})
				assert.True(t, d.Notifies())
				pass(15 * time.Second)
				assert.True(t, health(t, memory).Disabled.IsZero(), "the old one was not found")
				pass(15 * time.Second)
				assert.Equal(t, []time.Duration{0, 10 * time.Second}, at)
				assert.False(t, health(t, memory).Succeeded.IsZero())
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestBackoff checks the times of the tries: each wait is between a half and the whole of its step, and two registrations do not come back together.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		at := make(map[string][]time.Duration)
		began := time.Now()
		e := newEngine(t, Config{Policy: Policy{RetryMin: 4 * time.Second, RetryMax: time.Minute, BreakAfter: 1000}, Publisher: PublisherFunc(func(_ context.Context, n *Notification) error {
			mu.Lock()
			defer mu.Unlock()
			at[n.Node] = append(at[n.Node], time.Since(began))
			return errors.New("no route")
		})})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: node("n1")}, PushEnable{Session: SessionID{Account: juliet}, Key: node("n2")}, Offline{juliet, message("m1")})
		pass(time.Hour)
		steps := []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute, time.Minute}
		for n, times := range at {
			require.Greater(t, len(times), len(steps), n)
			for i, step := range steps {
				wait := times[i+1] - times[i]
				assert.True(t, wait >= step/2 && wait <= step, "%s: the wait before try %d is %v", n, i+2, wait)
			}
			assert.Less(t, times[len(times)-1], 10*time.Minute, "then it is too old")
		}
		for _, when := range at["n1"][1:] {
			assert.NotContains(t, at["n2"], when)
		}
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestTooOldClasses is a call and a message that wait together: the call is too old sooner.
func TestTooOldClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return errors.New("no route") }}
		var drops []Drop
		var at []time.Duration
		began := time.Now()
		e := newEngine(t, Config{Publisher: &svc, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) {
			for _, d := range eff.Drops {
				drops, at = append(drops, d), append(at, time.Since(began))
			}
		}}})
		call := message("call")
		call.Class = ClassUrgent
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")}, Offline{juliet, call})
		pass(50 * time.Second)
		svc.mu.Lock()
		assert.Equal(t, ClassUrgent, svc.got[len(svc.got)-1].Class)
		svc.mu.Unlock()
		pass(5 * time.Minute)
		last := svc.published()
		assert.Equal(t, ClassImportant, last[len(last)-1].Class)
		assert.Equal(t, 1, last[len(last)-1].Count)
		pass(time.Hour)
		require.Len(t, drops, 2)
		assert.Equal(t, []Class{ClassUrgent, ClassImportant}, []Class{drops[0].Class, drops[1].Class})
		assert.Equal(t, []Reason{ReasonTooOld, ReasonTooOld}, []Reason{drops[0].Reason, drops[1].Reason})
		assert.Equal(t, []time.Duration{time.Minute, 10 * time.Minute}, at)
		d := handle(t, e, Offline{juliet, message("m1")})
		assert.True(t, d.Notifies(), "what was never sent can notify again")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Error(t, e.Close(ctx))
	})
}

// TestRetryDisabled tries a tombstone again once a day.
func TestRetryDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return &ReplyError{"cancel", "item-not-found"} }}
		memory := NewMemoryStore()
		var changes []Change
		e := newEngine(t, Config{Publisher: &svc, Store: memory, Policy: Policy{RetryDisabled: 24 * time.Hour},
			Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { changes = append(changes, eff.Changes...) }}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		for i := range 72 { // an hour each
			handle(t, e, Offline{juliet, message(fmt.Sprint("m", i))})
			pass(time.Hour)
		}
		assert.Len(t, svc.published(), 3)
		svc.mu.Lock()
		svc.answer = nil
		svc.mu.Unlock()
		for i := range 48 {
			handle(t, e, Offline{juliet, message(fmt.Sprint("n", i))})
			pass(time.Hour)
		}
		assert.Equal(t, []ChangeKind{ChangeDisabled, ChangeDisabled, ChangeDisabled, ChangeEnabled}, []ChangeKind{changes[0].Kind, changes[1].Kind, changes[2].Kind, changes[3].Kind})
		assert.Equal(t, ReasonRecovered, changes[3].Reason)
		assert.True(t, health(t, memory).Disabled.IsZero())
		assert.Greater(t, len(svc.published()), 24)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestServiceLimits checks how many publishes are open at each service, while it works, while it is dead, and when it comes back.
func TestServiceLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		dead, total := false, 0
		open, most := make(map[string]int), make(map[string]int)
		var probes []time.Duration
		began := time.Now()
		e := newEngine(t, Config{Policy: Policy{ServiceInFlight: 16, Expire: 3 * time.Hour}, Publisher: PublisherFunc(func(ctx context.Context, n *Notification) error {
			mu.Lock()
			isDead := dead && n.Service == "a.example"
			open[n.Service]++
			most[n.Service] = max(most[n.Service], open[n.Service])
			if isDead {
				probes = append(probes, time.Since(began))
			}
			mu.Unlock()
			defer func() { mu.Lock(); open[n.Service]--; mu.Unlock() }()
			if isDead {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(time.Second)
			mu.Lock()
			total++
			mu.Unlock()
			return nil
		})})
		const accounts = 200
		all := func(id string) {
			for i := range accounts {
				for _, service := range []string{"a.example", "b.example"} {
					account := fmt.Sprintf("user%d-%s@example.com", i, service)
					handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: Key{Service: service}})
					handle(t, e, Offline{account, Stanza{ID: id, Class: ClassImportant}})
				}
			}
		}
		all("m1")
		pass(20 * time.Second)
		mu.Lock()
		assert.Equal(t, map[string]int{"a.example": 16, "b.example": 16}, most)
		assert.Equal(t, 2*accounts, total)
		dead, total = true, 0
		clear(most)
		began = time.Now()
		mu.Unlock()
		all("m2")
		pass(30*time.Second + time.Millisecond)
		mu.Lock()
		assert.Equal(t, accounts, total, "the other service is as quick as ever")
		first := len(probes) // several silences may be noted before anything follows one
		assert.GreaterOrEqual(t, first, 16, "sixteen at once")
		assert.LessOrEqual(t, first, 20, "and one more for each silence until the fifth, at most")
		mu.Unlock()
		synctest.Wait()
		assert.Equal(t, []ServiceStatus{{Service: "a.example", InFlight: first - 16, Waiting: accounts - first, Broken: true}, {Service: "b.example"}}, e.Services())
		pass(time.Hour)
		mu.Lock()
		probes = probes[first:]
		for i := range probes[1:] {
			gap := probes[i+1] - probes[i]
			assert.GreaterOrEqual(t, gap, 40*time.Second, "one at a time, and ten seconds between them")
			assert.LessOrEqual(t, gap, 140*time.Second)
		}
		assert.Greater(t, len(probes), 20)
		dead, total = false, 0
		clear(most)
		mu.Unlock()

		// It is back: one, two, four, and so on.
		var windows []int
		for total < accounts {
			mu.Lock()
			windows = append(windows, open["a.example"])
			mu.Unlock()
			pass(time.Second)
		}
		windows = slices.DeleteFunc(windows, func(n int) bool { return n == 0 })
		assert.Equal(t, []int{1, 2, 4, 8, 16, 16, 16, 16, 16}, windows[:9])
		assert.Equal(t, accounts, total)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestVetoIsNoAnswer has a host veto what would probe a dead service, which says nothing about the service.
func TestVetoIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return errors.New("no route") }}
		e := newEngine(t, Config{Publisher: &svc, Veto: veto{publish: func(n *Notification) string {
			if strings.HasPrefix(n.Account, "muted") {
				return "muted"
			}
			return ""
		}}, Policy: Policy{RetryMin: time.Hour, RetryMax: time.Hour, Expire: 3 * time.Hour}})
		for i := range 5 {
			account := fmt.Sprintf("user%d@example.com", i)
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Ping{Account: account})
		}
		synctest.Wait()
		require.True(t, e.Services()[0].Broken)
		for i := range 10 {
			account := fmt.Sprintf("muted%d@example.com", i)
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Ping{Account: account})
		}
		pass(time.Minute)
		assert.Equal(t, ServiceStatus{Service: phone.Service, Broken: true}, e.Services()[0], "nothing waits, nobody asked it")
		assert.Len(t, svc.published(), 5)
		assert.Error(t, e.Close(t.Context()))
	})
}

// TestRetryDisabledRefused has the retry of a tombstone end in an error that alone would not disable. The next retry is a day away, for another node too.
func TestRetryDisabledRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return &ReplyError{"modify", "bad-request"} }}
		memory := NewMemoryStore()
		_, err := memory.Enable(t.Context(), Registration{Account: juliet, Key: phone, Health: Health{Succeeded: time.Now(), Disabled: time.Now(), Cause: "gone"}}, 0)
		require.NoError(t, err)
		pass(25 * time.Hour)
		policy := Policy{RetryDisabled: 24 * time.Hour}
		e := newEngine(t, Config{Publisher: &svc, Store: memory, Policy: policy})
		handle(t, e, Offline{juliet, message("m1")})
		require.NoError(t, e.Close(t.Context()))
		require.Len(t, svc.published(), 1)
		assert.Equal(t, "bad-request", health(t, memory).Cause)
		assert.Zero(t, time.Since(health(t, memory).Disabled))

		e = newEngine(t, Config{Publisher: &svc, Store: memory, Policy: policy})
		d := handle(t, e, Offline{juliet, message("m2")})
		assert.Equal(t, ReasonDisabled, d.Verdicts[0].Reason)
		require.NoError(t, e.Close(t.Context()))
	})
}
