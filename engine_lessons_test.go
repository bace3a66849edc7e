package push_test

import (
	"context"
	"errors"
	"fmt"
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
