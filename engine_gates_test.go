package push_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// TestServicesAreRemembered: a push service is remembered for ten minutes at least after it had something to do, for twenty at most, and while it has.
func TestServicesAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		takes := make(map[string]time.Duration)
		e := newEngine(t, Config{Publisher: PublisherFunc(func(_ context.Context, n *Notification) error { time.Sleep(takes[n.Node]); return nil })})
		began := time.Now()
		ping := func(service, node string) {
			account := node + "@example.com"
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: Key{Service: service, Node: node}}, Ping{Account: account})
			synctest.Wait()
		}
		until := func(d time.Duration) { pass(d - time.Since(began)) }
		names := func() (list []string) {
			for _, s := range e.Services() {
				list = append(list, s.Service)
			}
			return list
		}
		var all []string
		for i := range 20 {
			all = append(all, fmt.Sprintf("push%02d.example.net", i))
			ping(all[i], fmt.Sprint("n", i))
		}
		assert.Equal(t, all, names())
		until(10*time.Minute + 30*time.Second) // it looks each ten minutes
		assert.Equal(t, all, names())
		ping("later.example.net", "n")
		until(20*time.Minute + 30*time.Second)
		assert.Equal(t, []string{"later.example.net"}, names())

		takes["slow"], takes["hung"] = 20*time.Second, 12*time.Minute
		ping("slow.example.net", "slow")
		until(29 * time.Minute)
		ping("hung.example.net", "hung")
		until(40*time.Minute - 10*time.Second) // quiet for ten minutes and more, but for these seconds
		ping("slow.example.net", "slow")
		until(40*time.Minute + time.Second)
		assert.Equal(t, []string{"hung.example.net", "slow.example.net"}, names())
		assert.Equal(t, 1, e.Services()[0].Hanging)
		assert.Equal(t, 1, e.Services()[1].InFlight)
		pass(24 * time.Hour)
		assert.Empty(t, names())
		ping("again.example.net", "n")
		pass(time.Hour)
		assert.Empty(t, names())
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestWaitingAtServices counts what waits at a push service that takes one publish at a time, while the host is asked about it, after that, and before.
func TestWaitingAtServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked, most := 0, 0
		e := newEngine(t, Config{
			Policy:    Policy{ServiceInFlight: 2},
			Publisher: PublisherFunc(func(context.Context, *Notification) error { time.Sleep(time.Second); return nil }),
			Unread: unread(func(string) (int, error) {
				mu.Lock()
				asked++
				most = max(most, asked)
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
				mu.Lock()
				asked--
				mu.Unlock()
				return 1, nil
			}),
		})
		const all = 10
		for i := range all {
			account := fmt.Sprintf("user%d@example.com", i)
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Ping{Account: account})
		}
		for done := 0; done < all; done += 2 {
			for _, d := range []time.Duration{10 * time.Millisecond, 500 * time.Millisecond} {
				pass(d)
				s := e.Services()[0]
				assert.Equal(t, all-done, s.InFlight+s.Waiting)
				assert.LessOrEqual(t, s.InFlight, 2)
			}
			pass(510 * time.Millisecond)
		}
		pass(time.Minute)
		assert.Zero(t, e.Services()[0].Waiting)
		assert.LessOrEqual(t, most, 3, "the host is asked about little more than may go out")
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestHangLimit has a Publisher return from nothing: after 64 publishes to one push service it is not asked any more for that, until it returns.
func TestHangLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		svc := service{answer: func(n *Notification) error {
			if n.Service == phone.Service {
				<-free
			}
			return nil
		}}
		e := newEngine(t, Config{Publisher: &svc, Policy: Policy{Expire: time.Hour, BreakAfter: 1000}})
		for i := range 70 {
			account := fmt.Sprintf("user%d@example.com", i)
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Offline{account, message("m1")})
		}
		pass(10 * time.Minute)
		assert.Len(t, svc.published(), 64)
		assert.Equal(t, 64, e.Services()[0].Hanging)
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: Key{Service: "other.example.net"}}, Offline{juliet, message("m1")})
		synctest.Wait()
		assert.Len(t, svc.published(), 65, "another service is not concerned")
		close(free)
		pass(time.Minute)
		assert.Len(t, svc.published(), 71)
		assert.Equal(t, StoreStatus{}, e.Store())
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestDeadServiceKeepsNothing has more go to a push service that does not answer than it can be asked for: of what has nothing to send any more nothing is left at it, and what has is sent.
func TestDeadServiceKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := on()
		svc := service{answer: func(*Notification) error {
			if down.Load() {
				return errors.New("no route")
			}
			return nil
		}}
		host := &directory{chat: func(string) (ChatInfo, error) { time.Sleep(time.Minute); return ChatInfo{}, nil }}
		e := newEngine(t, Config{Publisher: &svc, Chats: host, HookTimeout: time.Hour, Policy: Policy{Expire: 24 * time.Hour}})
		enable := func(account, node string) {
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: Key{Service: phone.Service, Node: node}}, Ping{Account: account})
		}
		for i := range 10 { // it is broken now
			enable(fmt.Sprintf("first%d@example.com", i), "n")
		}
		synctest.Wait()
		enable(juliet, "hers")
		go func() { _, _ = e.Handle(context.Background(), Groupchat{juliet, room("r1", "hi")}) }() // she is being decided about
		synctest.Wait()
		for i := range 3000 {
			account := "nurse@example.com"
			if i%3 == 0 {
				account = fmt.Sprintf("user%d@example.com", i)
			}
			enable(account, "n") // again and again the same
			handle(t, e, AccountRemoved{account})
		}
		assert.LessOrEqual(t, e.Services()[0].Waiting, 1030)
		down.Store(false)
		pass(10 * time.Minute)
		sent := 0
		for _, n := range svc.published() {
			if n.Account == juliet {
				sent++
			}
		}
		assert.Equal(t, 1, sent)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestStaleAtADeadService has registrations come and go that have nothing to send, and one that has something again and again: of none more than a few waits at a push service that does not answer.
func TestStaleAtADeadService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, Config{Publisher: PublisherFunc(func(context.Context, *Notification) error { return errors.New("no route") })})
		nurse := SessionID{Account: "nurse@example.com"}
		for range 3000 {
			handle(t, e, PushDisable{nurse, phone}, PushEnable{Session: nurse, Key: phone}, Ping{Account: nurse.Account})
		}
		assert.LessOrEqual(t, e.Services()[0].Waiting, 1100)
		for i := range 3000 {
			s := SessionID{Account: fmt.Sprintf("user%d@example.com", i)}
			handle(t, e, PushEnable{Session: s, Key: phone}, Ping{Account: s.Account}, PushDisable{s, phone}, PushEnable{Session: s, Key: phone})
		}
		assert.LessOrEqual(t, e.Services()[0].Waiting, 1100)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = e.Close(ctx)
	})
}

// TestServiceThatTakesLong has a policy that waits for a reply longer than quiet services are remembered.
func TestServiceThatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, Config{Publisher: PublisherFunc(func(context.Context, *Notification) error { time.Sleep(time.Hour); return nil }), Policy: Policy{ReplyTimeout: 2 * time.Hour, Expire: 12 * time.Hour}})
		raise(t, e, message("m1"), juliet)
		pass(50 * time.Minute)
		assert.Equal(t, []ServiceStatus{{Service: phone.Service, InFlight: 1}}, e.Services())
		pass(time.Hour)
		assert.Empty(t, e.Parts())
		closeAtOnce(t, e)
	})
}

// TestCloseAsksABrokenService closes while a service is broken, whose probe is a while off, and what waits for it has been handed to it: it is asked.
func TestCloseAsksABrokenService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := on()
		svc := service{answer: func(*Notification) error {
			if down.Load() {
				return errors.New("no route")
			}
			return nil
		}}
		e := newEngine(t, Config{Publisher: &svc, Policy: Policy{BreakAfter: 1, ServiceInFlight: 1, ProbeEvery: time.Hour, Expire: 12 * time.Hour}})
		raise(t, e, message("m1"), juliet)
		synctest.Wait()
		raise(t, e, message("m1"), "nurse@example.com")
		handle(t, e, AccountRemoved{juliet})
		down.Store(false)
		closeAtOnce(t, e)
		assert.Equal(t, []string{juliet, "nurse@example.com"}, accounts(svc.published()))
	})
}
