package push_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// TestPublisherReturnsLate has a Publisher that takes no notice of the end of its context and returns later. Nobody but it knows whether the publish was sent, so nothing is sent
// again before it has said so; what it cannot say in time is dropped.
func TestPublisherReturnsLate(t *testing.T) {
	call := message("c1")
	call.Class = ClassUrgent
	for name, c := range map[string]struct {
		stanza Stanza
		late   time.Duration // 0: never
		answer error
		// publishes are when the service is asked, told when what is told of it.
		publishes []time.Duration
		told      []string
	}{
		"accepted":       {message("m1"), 90 * time.Second, nil, []time.Duration{0, 90 * time.Second}, []string{"1m30s accepted", "1m30s accepted"}},
		"failed":         {message("m1"), 90 * time.Second, errors.New("no"), []time.Duration{0, 90 * time.Second}, []string{"1m30s transient", "1m30s accepted"}},
		"gone":           {message("m1"), 90 * time.Second, &ReplyError{Type: "cancel", Condition: "gone"}, []time.Duration{0}, []string{"1m30s fatal", "1m30s dropped rejected", "1m30s dropped disabled"}},
		"accepted call":  {call, 50 * time.Second, nil, []time.Duration{0, 50 * time.Second}, []string{"50s accepted", "50s accepted"}},
		"call, late":     {call, 90 * time.Second, nil, []time.Duration{0, 90 * time.Second}, []string{"1m0s transient", "1m0s dropped too-old", "1m30s accepted"}},
		"message, never": {message("m1"), 0, nil, []time.Duration{0}, []string{"10m0s transient", "10m0s dropped too-old", "10m40s dropped too-old"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				free := make(chan struct{})
				var publishes []time.Duration
				var told []string
				var mu sync.Mutex
				note := func(what string) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, time.Since(began).Truncate(5*time.Second).String()+" "+what)
				}
				e := newEngine(t, Config{
					Publisher: PublisherFunc(func(context.Context, *Notification) error {
						mu.Lock()
						publishes = append(publishes, time.Since(began).Truncate(5*time.Second))
						n := len(publishes)
						mu.Unlock()
						switch {
						case n > 1:
							return nil
						case c.late == 0:
							<-free
						default:
							time.Sleep(c.late)
						}
						return c.answer
					}),
					Observer: &Observer{
						Replied: func(_ time.Time, _ *Notification, _ Reply, res Result, _ time.Duration) { note(res.Outcome.String()) },
						Affected: func(_ string, _ time.Time, eff *Effects) {
							for _, d := range eff.Drops {
								note("dropped " + d.Reason.String())
							}
						},
					},
				})
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, PushEnable{Session: SessionID{Account: "romeo@example.com"}, Key: phone})
				handle(t, e, Offline{juliet, c.stanza})
				pass(40 * time.Second)
				require.Equal(t, 1, e.Services()[0].Hanging)
				d := handle(t, e, Offline{juliet, message("m2")})
				require.True(t, d.Notifies())
				pass(5 * time.Second)
				mu.Lock()
				require.Len(t, publishes, 1, "nothing is sent while it is not known")
				mu.Unlock()
				pass(24 * time.Hour)
				close(free)
				synctest.Wait()
				mu.Lock()
				assert.Equal(t, c.publishes, publishes)
				assert.Equal(t, c.told, told)
				n := len(publishes)
				mu.Unlock()
				if d := handle(t, e, Offline{juliet, message("m3")}); d.Notifies() {
					pass(time.Minute)
					mu.Lock()
					defer mu.Unlock()
					assert.Len(t, publishes, n+1, "it goes on")
				}
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestRemovedInFlight is what is told of a publish whose registration is removed before its answer: one thing, and the truth.
func TestRemovedInFlight(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		answer error
		told   []string
	}{
		"accepted": {time.Second, nil, []string{"removed", "accepted"}},
		"failed":   {time.Second, errors.New("no"), []string{"removed", "transient", "dropped disabled-by-client 1"}},
		"refused":  {time.Second, &ReplyError{Type: "auth", Condition: "forbidden"}, []string{"removed", "refused", "dropped disabled-by-client 1"}},
		"too late": {time.Hour, nil, []string{"removed", "transient", "dropped disabled-by-client 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []string
				effects := func(eff *Effects) {
					for _, c := range eff.Changes {
						if c.Kind == ChangeRemoved {
							told = append(told, "removed")
						}
					}
					for _, d := range eff.Drops {
						assert.Len(t, d.Events, d.Count)
						told = append(told, "dropped "+d.Reason.String()+" "+string(rune('0'+d.Count)))
					}
				}
				e := newEngine(t, Config{
					Publisher: PublisherFunc(func(context.Context, *Notification) error { time.Sleep(c.after); return c.answer }),
					Observer: &Observer{
						Decided:  func(_ uint64, _ time.Time, _ Event, d *Decision, _ time.Duration) { effects(&d.Effects) },
						Affected: func(_ string, _ time.Time, eff *Effects) { effects(eff) },
						Replied: func(_ time.Time, _ *Notification, _ Reply, res Result, _ time.Duration) {
							told = append(told, res.Outcome.String())
						},
					},
				})
				s := SessionID{Account: juliet}
				handle(t, e, PushEnable{Session: s, Key: phone}, Offline{juliet, message("m1")})
				synctest.Wait()
				handle(t, e, PushDisable{s, phone})
				pass(max(time.Minute, 2*c.after))
				assert.Equal(t, c.told, told)
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestClosedAfterRemoval closes the Engine while a publish is unanswered whose registration was removed: the error says that the service was asked.
func TestClosedAfterRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		e := newEngine(t, Config{Publisher: PublisherFunc(func(context.Context, *Notification) error { <-free; return nil })})
		s := SessionID{Account: juliet}
		handle(t, e, PushEnable{Session: s, Key: phone}, Offline{juliet, message("m1")})
		synctest.Wait()
		handle(t, e, PushDisable{s, phone})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var unsent *UnsentError
		require.ErrorAs(t, e.Close(ctx), &unsent)
		require.Len(t, unsent.Unsent, 1)
		assert.True(t, unsent.Unsent[0].Asked)
		assert.Equal(t, ReasonDisabledByUser, unsent.Unsent[0].Reason)
		close(free)
	})
}
