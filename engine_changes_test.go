package push_test

import (
	"context"
	"errors"
	"fmt"
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

// TestStoreDoesNotReturn has the Store hang over what a client enables or disables: Handle returns when Config.StoreTimeout is over, and what the Store did in the end counts.
func TestStoreDoesNotReturn(t *testing.T) {
	for _, ev := range []Event{PushEnable{Session: phoneSession, Key: node("new")}, PushDisable{phoneSession, phone}} {
		t.Run(ev.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := NewMemoryStore()
				hangs := false
				e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(context.Context, string, string) error {
					if hangs {
						time.Sleep(40 * time.Second)
					}
					return nil
				}}})
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
				synctest.Wait()
				hangs = true
				began := time.Now()
				var d Decision
				err := e.HandleTo(t.Context(), ev, &d)
				assert.ErrorIs(t, err, ErrStore)
				assert.ErrorContains(t, err, "it may have been changed all the same")
				assert.ErrorContains(t, err, "did not return in time")
				assert.Equal(t, 30100*time.Millisecond, time.Since(began))
				want := Decision{Account: juliet, Reason: ReasonStore}
				assert.Equal(t, want, Decision{Account: d.Account, Reason: d.Reason})
				synctest.Wait()
				assert.True(t, e.Store().Away)
				pass(time.Minute)
				assert.Equal(t, want, Decision{Account: d.Account, Reason: d.Reason}, "it is the caller's again")
				assert.Empty(t, d.Changes)
				is, err := e.Inspect(t.Context(), juliet)
				require.NoError(t, err)
				assert.Len(t, is.Registrations, map[string]int{"push-enable": 2, "push-disable": 0}[ev.Name()])
				assert.Equal(t, StoreStatus{}, e.Store())
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestEnabledWhenTheStoreSays: an enable that the Store takes its time over is as old in the Engine as in the Store, so that both evict the same.
func TestEnabledWhenTheStoreSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(context.Context, string, string) error { time.Sleep(time.Second); return nil }}})
		handle(t, e, SessionOpen{Session: phoneSession})
		for _, after := range []time.Duration{time.Hour, RenewAfter, 0} {
			handle(t, e, PushEnable{Session: phoneSession, Key: phone})
			is, err := e.Inspect(t.Context(), juliet)
			require.NoError(t, err)
			assert.Equal(t, stored(t, memory, juliet)[0].Enabled, is.Registrations[0].Enabled.UTC())
			time.Sleep(after)
		}
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestClientOfASessionThatWaits enables in a session whose opening has not been decided, because the account cannot be read: the registration has its client's ID.
func TestClientOfASessionThatWaits(t *testing.T) {
	for _, c := range []struct {
		open Event
		want string
	}{
		{SessionOpen{Session: phoneSession, Client: "c1"}, "c1"},
		{SessionRestored{Session: phoneSession, Client: "c1"}, "c1"},
		{SessionOpen{Session: SessionID{juliet, "other"}, Client: "c1"}, ""},
		{SessionRestored{Session: SessionID{juliet, "other"}, Client: "c1"}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			down := on()
			memory := NewMemoryStore()
			e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: failing("List", down)}})
			for _, ev := range []Event{Offline{juliet, message("m1")}, c.open} {
				assert.Equal(t, ReasonDeferred, handle(t, e, ev).Reason)
			}
			handle(t, e, PushEnable{Session: phoneSession, Key: phone})
			assert.Equal(t, c.want, stored(t, memory, juliet)[0].Client)
			require.NoError(t, e.Close(t.Context()))
		})
	}
}

// TestLessonsComeFirst has a Store fail to learn what a reply taught, just before the client enables again or disables: it learns it first, or does not need to any more.
func TestLessonsComeFirst(t *testing.T) {
	for name, c := range map[string]struct {
		ev   Event
		want []string
	}{
		"enabled":         {PushEnable{Session: SessionID{Account: juliet}, Key: phone, Options: []Field{{Var: "x"}}}, []string{"Enable", "Update", "Update", "Enable", "Update"}},
		"disabled":        {PushDisable{SessionID{Account: juliet}, phone}, []string{"Enable", "Update", "Update", "Remove"}},
		"another's":       {PushDisable{SessionID{Account: juliet}, node("another")}, []string{"Enable", "Update", "Update", "Remove", "Update"}},
		"removed":         {AccountRemoved{juliet}, []string{"Enable", "Update", "Update", "Remove"}},
		"nothing of this": {Ping{Account: juliet}, []string{"Enable", "Update", "Update"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls []string
				failures := 1
				if c.ev.Name() != "ping" {
					failures = 2 // it is tried again before the change, in vain
				}
				e := newEngine(t, Config{
					Publisher: PublisherFunc(func(context.Context, *Notification) error { return &ReplyError{"cancel", "internal-server-error"} }),
					Policy:    Policy{RetryMin: time.Hour, RetryMax: time.Hour},
					Store: &hookedStore{Store: NewMemoryStore(), before: func(_ context.Context, method, _ string) error {
						if method == "List" {
							return nil
						}
						calls = append(calls, method)
						if method == "Update" && failures > 0 {
							failures--
							return errFault
						}
						return nil
					}},
				})
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
				synctest.Wait()
				assert.Equal(t, StoreStatus{Away: true, Unwritten: 1}, e.Store())
				handle(t, e, c.ev)
				pass(10 * time.Minute)
				assert.Equal(t, c.want, calls)
				assert.Equal(t, StoreStatus{}, e.Store())
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = e.Close(ctx)
			})
		})
	}
}

// TestRevokedWithoutANode: a push service that revokes the registration without a node means that one, and not all of the account's at it.
func TestRevokedWithoutANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone, node(""), Key{Service: "other.example.net"})
		e := newEngine(t, Config{Publisher: &service{}, Store: memory})
		d := handle(t, e, AffiliationNone{juliet, node("")})
		assert.Equal(t, []Change{{Key: node(""), Kind: ChangeRemoved, Reason: ReasonRevoked}}, d.Changes)
		assert.Len(t, stored(t, memory, juliet), 2)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestManyAccountsAtOnce has the Store hang for as many accounts as it is called for at a time: those that come then are refused, or read later.
func TestManyAccountsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		var svc service
		e := newEngine(t, Config{Publisher: &svc, Store: &hookedStore{Store: memory, before: func(context.Context, string, string) error { <-free; return nil }}})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 4096 {
			_, err := e.Handle(ended, Offline{fmt.Sprintf("user%d@example.com", i), message("m1")})
			require.NoError(t, err)
		}
		assert.Equal(t, 4096, e.Store().Calling)
		d := handle(t, e, Offline{juliet, message("m1")})
		assert.Equal(t, ReasonDeferred, d.Reason)
		d, err := e.Handle(t.Context(), PushEnable{Session: SessionID{Account: juliet}, Key: node("new")})
		assert.ErrorIs(t, err, ErrStore)
		assert.ErrorContains(t, err, "too many accounts")
		assert.Equal(t, ReasonStore, d.Reason)
		assert.Equal(t, 4096, e.Store().Calling)
		pass(time.Minute)
		close(free)
		pass(time.Second)
		assert.Len(t, svc.published(), 1)
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: node("new")})
		pass(time.Hour)
		assert.Empty(t, e.Parts())
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestRetries: what nobody waits for the Store is asked for again after a second, then after twice as long each time, up to half a minute.
func TestRetries(t *testing.T) {
	for _, method := range []string{"List", "Update"} {
		synctest.Test(t, func(t *testing.T) {
			memory := NewMemoryStore()
			keep(t, memory, juliet, phone)
			var at []time.Duration
			began := time.Now()
			e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(_ context.Context, m, _ string) error {
				if m != method {
					return nil
				}
				if at = append(at, time.Since(began)); len(at) < 9 {
					return errFault
				}
				return nil
			}}})
			handle(t, e, Offline{juliet, message("m1")})
			pass(time.Hour)
			var want []time.Duration
			sum := time.Duration(0)
			for _, s := range []time.Duration{0, 1, 2, 4, 8, 16, 30, 30, 30} {
				sum += s * time.Second
				want = append(want, sum)
			}
			assert.Equal(t, want, at, method)
			require.NoError(t, e.Close(t.Context()))
		})
	}
}

// TestBackground: what replies taught is written for 64 accounts at once, and those calls that hang stand in the way of the others for no longer than Config.StoreTimeout.
func TestBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calling, most atomic.Int32
		free := make(chan struct{})
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: func(_ context.Context, method, account string) error {
			if method != "Update" {
				return nil
			}
			if n := calling.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer calling.Add(-1)
			if account < "user100" {
				<-free
			} else {
				time.Sleep(time.Millisecond)
			}
			return nil
		}}})
		account := func(i int) string { return fmt.Sprintf("user%03d@example.com", i) }
		for i := range 200 {
			handle(t, e, PushEnable{Session: SessionID{Account: account(i)}, Key: phone}, Ping{Account: account(i)})
			synctest.Wait()
		}
		assert.EqualValues(t, 64, most.Load())
		written := func() (n int) {
			for i := range 200 {
				if !stored(t, memory, account(i))[0].Health.Succeeded.IsZero() {
					n++
				}
			}
			return n
		}
		assert.Zero(t, written())
		pass(31 * time.Second)
		assert.Equal(t, 100, written())
		assert.EqualValues(t, 128, most.Load())
		pass(time.Minute)
		close(free)
		pass(time.Minute)
		assert.Equal(t, 200, written())
		assert.Equal(t, StoreStatus{}, e.Store())
		assert.Zero(t, e.Parts()["background"])
		require.NoError(t, e.Close(t.Context()))
	})
}

// calls are those of a Store's methods.
type calls struct {
	mu   sync.Mutex
	list []string
}

// of returns a hookedStore's before that notes what it is called for, and does do.
func (c *calls) of(do func(method string) error) func(context.Context, string, string) error {
	return func(_ context.Context, method, _ string) error {
		c.mu.Lock()
		c.list = append(c.list, method)
		c.mu.Unlock()
		return do(method)
	}
}

func (c *calls) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// TestDisableOfACold disables in an account of which nothing is known: what is removed is the Store's to say, and nothing is read for it, but with Push 2.0, where the client does not say what
// its device has. The account's other registration is as it was.
func TestDisableOfACold(t *testing.T) {
	for name, c := range map[string]struct {
		k    Key
		want []string
	}{
		"push":     {phone, []string{"Remove"}},
		"push 2.0": {Key{Node: Push2Node}, []string{"List", "Remove"}},
	} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " known=", known), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var list calls
					var svc service
					memory := NewMemoryStore()
					keep(t, memory, juliet, phone, node("tablet"), node(Push2Node+"phone"))
					e := newEngine(t, Config{Publisher: &svc, Store: &hookedStore{Store: memory, before: list.of(func(string) error { return nil })}})
					want := c.want
					if known {
						handle(t, e, SessionOpen{Session: SessionID{juliet, "another"}}, HibernationStart{Session: SessionID{juliet, "another"}})
						want = []string{"List", "Remove"}
					}
					d := handle(t, e, PushDisable{SessionID{juliet, "phone"}, c.k})
					require.Len(t, d.Changes, 1)
					assert.Equal(t, ChangeRemoved, d.Changes[0].Kind)
					assert.Len(t, stored(t, memory, juliet), 2)
					assert.Equal(t, want, list.got())
					d = handle(t, e, Offline{juliet, message("m1")})
					assert.Len(t, d.Verdicts, 2)
					pass(time.Minute)
					assert.Len(t, svc.published(), 2)
					closeAtOnce(t, e)
				})
			})
		}
	}
}

// TestChangeBringsThem has an account not be readable when a message comes; an enable, or the account's removal, that the Store takes says as much as a reading.
func TestChangeBringsThem(t *testing.T) {
	for name, c := range map[string]struct {
		ev        Event
		published int
		reason    Reason // of the message
	}{
		"enabled": {PushEnable{Session: SessionID{Account: juliet}, Key: node("new")}, 1, ReasonNone},
		"removed": {AccountRemoved{juliet}, 0, ReasonNoRegistration},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := on()
				var list calls
				var svc service
				decided := make(map[string]Reason)
				memory := NewMemoryStore()
				keep(t, memory, juliet, phone)
				e := newEngine(t, Config{
					Publisher: &svc,
					Store: &hookedStore{Store: memory, before: list.of(func(method string) error {
						if method == "List" && down.Load() {
							return errFault
						}
						return nil
					})},
					Observer: &Observer{Decided: func(_ uint64, _ time.Time, ev Event, d *Decision, _ time.Duration) {
						decided[ev.Name()] = d.Reason
					}},
				})
				assert.Equal(t, ReasonDeferred, handle(t, e, Offline{juliet, message("m1")}).Reason)
				down.Store(false)
				handle(t, e, c.ev)
				synctest.Wait()
				assert.Len(t, svc.published(), c.published)
				assert.Equal(t, map[string]Reason{"offline": c.reason, c.ev.Name(): ReasonNone}, decided)
				assert.Equal(t, StoreStatus{}, e.Store())
				pass(time.Hour)
				assert.NotContains(t, list.got()[1:], "List")
				closeAtOnce(t, e)
			})
		})
	}
}

// TestDisableWhileDeciding disables with Push 2.0 in an account whose turn others have for longer than the Store has time: that failed, nothing was removed, and nothing is stuck.
func TestDisableWhileDeciding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone, node(Push2Node+"phone"))
		host := &directory{chat: func(string) (ChatInfo, error) { time.Sleep(4 * time.Second); return ChatInfo{}, nil }}
		e := newEngine(t, Config{Publisher: &service{}, Chats: host, Store: memory, StoreTimeout: 2 * time.Second})
		handle(t, e, SessionOpen{Session: phoneSession}, HibernationStart{Session: phoneSession})
		var others sync.WaitGroup
		rooms := func(name string) {
			st := room(name, "hi")
			st.From = name + "@rooms.example.net/romeo"
			others.Go(func() { _, _ = e.Handle(context.Background(), Groupchat{juliet, st}) })
			synctest.Wait()
		}
		rooms("verona")
		var d Decision
		var err error
		others.Go(func() {
			d, err = e.Handle(context.Background(), PushDisable{SessionID{juliet, "phone"}, Key{Node: Push2Node}})
		})
		synctest.Wait()
		rooms("mantua")
		others.Wait()
		assert.ErrorIs(t, err, ErrStore)
		assert.Equal(t, ReasonStore, d.Reason)
		synctest.Wait()
		is, err := e.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		assert.Len(t, is.Registrations, 2)
		assert.Len(t, stored(t, memory, juliet), 2)
		assert.Len(t, handle(t, e, PushDisable{SessionID{juliet, "phone"}, Key{Node: Push2Node}}).Changes, 1)
		pass(time.Minute)
		closeAtOnce(t, e)
	})
}

// strangeStore says more of what it did than it was asked for, and fails when it is told to.
type strangeStore struct {
	Store
	before []Registration
	gone   []Key
	err    error
}

func (s *strangeStore) Enable(ctx context.Context, r Registration, limit int) ([]Registration, error) {
	rs, err := s.Store.Enable(ctx, r, limit)
	return append(rs, s.before...), err
}

func (s *strangeStore) Remove(ctx context.Context, account string, k Key) ([]Key, error) {
	keys, err := s.Store.Remove(ctx, account, k)
	if err == nil {
		err = s.err
	}
	return append(keys, s.gone...), err
}

// TestRemovedMoreThanAsked: what a Store says is gone is gone, whatever it was asked for, and also if it failed in the end; the reason is the event's.
func TestRemovedMoreThanAsked(t *testing.T) {
	for _, failure := range []error{nil, errFault} {
		for reason, ev := range map[Reason]Event{
			ReasonDisabledByUser: PushDisable{SessionID{Account: juliet}, phone},
			ReasonRevoked:        AffiliationNone{juliet, phone},
			ReasonAccount:        AccountRemoved{juliet},
		} {
			t.Run(fmt.Sprint(ev.Name(), failure), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					memory := NewMemoryStore()
					keep(t, memory, juliet, phone, node("tablet"))
					var affected []Change
					e := newEngine(t, Config{
						Publisher: &service{}, Store: &strangeStore{Store: memory, gone: []Key{node("tablet"), {}}, err: failure},
						Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { affected = append(affected, eff.Changes...) }},
					})
					handle(t, e, SessionOpen{Session: phoneSession}, HibernationStart{Session: phoneSession})
					d, err := e.Handle(t.Context(), ev)
					assert.Equal(t, failure != nil, errors.Is(err, ErrStore))
					want := []Change{{Key: phone, Kind: ChangeRemoved, Reason: reason}, {Key: node("tablet"), Kind: ChangeRemoved, Reason: reason}}
					assert.Equal(t, want, d.Changes)
					synctest.Wait()
					switch {
					case failure != nil:
						assert.Equal(t, want, affected)
					case reason != ReasonAccount:
						assert.Equal(t, want[1:], affected, "which is no part of the event")
					}
					handle(t, e, SessionClose{phoneSession})
					pass(time.Hour)
					closeAtOnce(t, e)
				})
			})
		}
	}
}

// TestEnableOfALiar has a Store answer an enable with another account's registration of the same key.
func TestEnableOfALiar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, Config{Publisher: &service{}, Store: &strangeStore{Store: NewMemoryStore(), before: []Registration{{Account: "romeo@example.com", Key: phone, Health: Health{Errors: 2}}}}})
		d := handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		assert.Equal(t, ChangeAdded, d.Changes[0].Kind)
		pass(time.Hour)
		closeAtOnce(t, e)
	})
}

// TestOpenedWhileItEnables has a client enable in an account of which nothing is known, and its session be opened while the Store takes its time; another one comes and goes. It is bound to its session.
func TestOpenedWhileItEnables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: NewMemoryStore(), before: func(context.Context, string, string) error { time.Sleep(time.Second); return nil }}})
		var enabled sync.WaitGroup
		enabled.Go(func() { _, _ = e.Handle(context.Background(), PushEnable{Session: phoneSession, Key: phone}) })
		time.Sleep(200 * time.Millisecond)
		another := SessionID{juliet, "another"}
		handle(t, e, SessionOpen{Session: another}, SessionClose{another}, SessionOpen{Session: phoneSession})
		enabled.Wait()
		assert.Equal(t, ReasonLive, handle(t, e, ArchiveAdded{juliet, message("m1")}).Verdicts[0].Reason)
		closeAtOnce(t, e)
	})
}

// TestEnabledAtClose has two clients enable while the Store hangs, and the Engine be closed: of the second the Store was not asked, and its Handle does not say that it was.
func TestEnabledAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list calls
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: NewMemoryStore(), before: list.of(func(string) error { time.Sleep(5 * time.Second); return nil })}})
		var errs [2]error
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				_, errs[i] = e.Handle(context.Background(), PushEnable{Session: SessionID{Account: juliet}, Key: node(fmt.Sprint(i))})
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = e.Close(ctx)
		all.Wait()
		assert.ErrorIs(t, errs[1], ErrStore)
		assert.Equal(t, []string{"Enable"}, list.got())
	})
}

// TestCallerLeaves has the caller's context end while the Store is asked, which says what became of it all the same; the context that the Store has ends with the call.
func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last context.Context
		var failure error
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: NewMemoryStore(), before: func(ctx context.Context, method, _ string) error {
			last = ctx
			time.Sleep(time.Second)
			return failure
		}}})
		enable := PushEnable{Session: SessionID{Account: juliet}, Key: phone}
		ctx, cancel := context.WithTimeout(t.Context(), 950*time.Millisecond)
		defer cancel()
		d, err := e.Handle(ctx, enable)
		require.NoError(t, err)
		assert.Equal(t, ChangeAdded, d.Changes[0].Kind)
		assert.Error(t, last.Err(), "the call has returned")
		failure = errFault
		_, err = e.Handle(t.Context(), enable)
		assert.EqualError(t, err, ErrStore.Error()+": "+errFault.Error())
		ctx, cancel = context.WithTimeout(t.Context(), 950*time.Millisecond)
		defer cancel()
		_, err = e.Handle(ctx, enable)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorIs(t, err, errFault)
		failure = nil
		pass(time.Hour)
		closeAtOnce(t, e)
	})
}
