package push_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// hookedStore is a Store that a test can break. before is called before each call and may fail or block it, lists changes what List returns,
// befores what Enable does.
type hookedStore struct {
	Store
	before  func(ctx context.Context, method, account string) error
	lists   func(account string, rs []Registration) []Registration
	befores func(account string, rs []Registration) []Registration
}

func (s *hookedStore) call(ctx context.Context, method, account string) error {
	if s.before == nil {
		return nil
	}
	return s.before(ctx, method, account)
}

func (s *hookedStore) List(ctx context.Context, account string) ([]Registration, error) {
	if err := s.call(ctx, "List", account); err != nil {
		return nil, err
	}
	rs, err := s.Store.List(ctx, account)
	if s.lists != nil {
		rs = s.lists(account, rs)
	}
	return rs, err
}

func (s *hookedStore) Enable(ctx context.Context, r Registration, limit int) ([]Registration, error) {
	if err := s.call(ctx, "Enable", r.Account); err != nil {
		return nil, err
	}
	rs, err := s.Store.Enable(ctx, r, limit)
	if s.befores != nil {
		rs = s.befores(r.Account, rs)
	}
	return rs, err
}

func (s *hookedStore) Remove(ctx context.Context, account string, k Key) ([]Key, error) {
	if err := s.call(ctx, "Remove", account); err != nil {
		return nil, err
	}
	return s.Store.Remove(ctx, account, k)
}

func (s *hookedStore) Update(ctx context.Context, account string, k Key, u Update) error {
	if err := s.call(ctx, "Update", account); err != nil {
		return err
	}
	return s.Store.Update(ctx, account, k, u)
}

func on() *atomic.Bool {
	b := new(atomic.Bool)
	b.Store(true)
	return b
}

// failing returns a before that fails one method as long as on is set.
func failing(method string, on *atomic.Bool) func(context.Context, string, string) error {
	return func(_ context.Context, m, _ string) error {
		if m == method && on.Load() {
			return errFault
		}
		return nil
	}
}

func node(n string) Key { return Key{Service: "push.example.net", Node: n} }

func remove(t *testing.T, s Store, k Key) {
	t.Helper()
	_, err := s.Remove(t.Context(), juliet, k)
	require.NoError(t, err)
}

func stored(t *testing.T, s Store, account string) []Registration {
	t.Helper()
	rs, err := s.List(t.Context(), account)
	require.NoError(t, err)
	return rs
}

// keep stores registrations, and nothing of them is in an Engine.
func keep(t *testing.T, s Store, account string, keys ...Key) {
	t.Helper()
	for i, k := range keys {
		_, err := s.Enable(t.Context(), Registration{Account: account, Key: k, Enabled: time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC)}, 0)
		require.NoError(t, err)
	}
}

func wantStoreError(t *testing.T, d Decision, err error, what string) {
	t.Helper()
	assert.ErrorIs(t, err, ErrStore, what)
	assert.ErrorIs(t, err, errFault, what)
	assert.Equal(t, Decision{Account: juliet, Reason: ReasonStore}, Decision{Account: d.Account, Reason: d.Reason}, what)
	assert.Empty(t, d.Verdicts, what)
	assert.Empty(t, d.Changes, what)
}

// TestStoreListFails gives events of an account that is only in the Store, which cannot be read: they are decided when it can.
func TestStoreListFails(t *testing.T) {
	opened := func(evs ...Event) []Event {
		return append([]Event{SessionOpen{Session: phoneSession, Client: "c1"}}, evs...)
	}
	for name, c := range map[string]struct {
		evs      []Event
		deferred bool
		sent     int
	}{
		"session-open":      {evs: opened()},
		"session-close":     {evs: opened(SessionClose{phoneSession})},
		"ack-delayed":       {opened(AckDelayed{phoneSession, []Stanza{message("m1")}}), true, 1},
		"hibernation-start": {opened(HibernationStart{phoneSession, []Stanza{message("m1")}}), true, 1},
		"resumed":           {opened(HibernationStart{phoneSession, nil}, StanzaQueued{phoneSession, Stanza{ID: "m1"}}, HibernationEnd{phoneSession}), true, 0},
		"stanza-queued":     {opened(HibernationStart{phoneSession, nil}, StanzaQueued{phoneSession, message("m1")}), true, 1},
		"archived, online":  {opened(ArchiveAdded{juliet, message("m1")}), true, 0},
		"archived":          {[]Event{ArchiveAdded{juliet, message("m1")}, ArchiveAdded{juliet, message("m1")}}, true, 1},
		"offline":           {[]Event{Offline{juliet, message("m1")}}, true, 1},
		"ping":              {[]Event{Ping{Account: juliet}}, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				broken := on()
				memory := NewMemoryStore()
				_, err := memory.Enable(t.Context(), Registration{Account: juliet, Key: phone, Client: "c1"}, 0)
				require.NoError(t, err)
				var decided []string
				e := newEngine(t, Config{Publisher: &svc, Store: &hookedStore{Store: memory, before: failing("List", broken)}, Observer: &Observer{
					Decided: func(_ uint64, _ time.Time, ev Event, _ *Decision, _ time.Duration) {
						decided = append(decided, ev.Name())
					},
				}})
				began := time.Now()
				var d Decision
				for _, ev := range c.evs {
					d = handle(t, e, ev)
				}
				assert.Equal(t, c.deferred, d.Reason == ReasonDeferred)
				assert.Less(t, time.Since(began), time.Microsecond)
				_, err = e.Inspect(t.Context(), "nurse@example.com")
				assert.ErrorIs(t, err, ErrStore)
				pass(time.Hour)
				assert.Empty(t, svc.published())

				synctest.Wait()
				broken.Store(false)
				pass(time.Minute)
				assert.Len(t, svc.published(), c.sent)
				var want []string
				for _, ev := range c.evs {
					want = append(want, ev.Name())
				}
				assert.Equal(t, want, decided)
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestStoreAwayIsBounded raises more events than are kept while the Store is away.
func TestStoreAwayIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		broken := on()
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		e := newEngine(t, Config{Publisher: &svc, MaxDeferred: 300, Store: &hookedStore{Store: memory, before: failing("List", broken)}})
		refused := 0
		for i := range 1000 {
			account := juliet
			if i%2 == 0 {
				account = fmt.Sprintf("user%d@example.com", i)
			}
			d, err := e.Handle(t.Context(), Offline{account, message(fmt.Sprint("m", i))})
			if err != nil {
				refused++
				assert.ErrorIs(t, err, ErrStore)
				assert.Equal(t, ReasonStore, d.Reason)
			}
		}
		assert.Equal(t, 700, refused)
		synctest.Wait()
		assert.Equal(t, StoreStatus{Away: true, Deferred: 300}, e.Store())
		synctest.Wait()
		broken.Store(false)
		pass(time.Minute)
		assert.Equal(t, StoreStatus{}, e.Store())
		assert.Equal(t, 150, svc.published()[0].Count)
		require.NoError(t, e.Close(t.Context()))
	})
}

func TestStoreEnableFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		broken := on()
		memory := NewMemoryStore()
		var enabled int
		e := newEngine(t, Config{Publisher: &svc, Store: &hookedStore{Store: memory, before: failing("Enable", broken), befores: func(_ string, rs []Registration) []Registration { enabled++; return rs }}})
		handle(t, e, SessionOpen{Session: phoneSession})
		old := []Field{{Var: "secret", Values: []string{"old"}}}
		d, err := e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: phone, Options: old})
		wantStoreError(t, d, err, "the first enable")
		assert.Empty(t, stored(t, memory, juliet))
		st, err := e.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		assert.Empty(t, st.Registrations)
		assert.False(t, st.Sessions[0].IsBound)

		broken.Store(false)
		d = handle(t, e, PushEnable{Session: phoneSession, Key: phone, Options: old})
		assert.Equal(t, []Change{{Key: phone, Kind: ChangeAdded, Session: "s1", Rule: RuleBind, Reason: ReasonEnabled}}, d.Changes)
		assert.Equal(t, 1, enabled)
		assert.Equal(t, old, stored(t, memory, juliet)[0].Options, "durable when Handle returns")

		broken.Store(true)
		d, err = e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: phone, Options: []Field{{Var: "secret", Values: []string{"new"}}}})
		wantStoreError(t, d, err, "the second enable")
		d, err = e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: node("other")})
		wantStoreError(t, d, err, "an enable of another node")
		handle(t, e, HibernationStart{phoneSession, []Stanza{message("m1")}})
		require.NoError(t, e.Close(t.Context()))
		require.Len(t, svc.published(), 1)
		assert.Equal(t, phone, svc.published()[0].Key, "the session is bound as it was")
		assert.Equal(t, old, svc.published()[0].Options)
	})
}

// TestStoreRemoveFails lets a removal of three fail when the first is gone.
func TestStoreRemoveFails(t *testing.T) {
	for _, ev := range []Event{PushDisable{phoneSession, Key{Service: "push.example.net"}}, AccountRemoved{juliet}} {
		t.Run(ev.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				var affected []Change
				memory := NewMemoryStore()
				e := newEngine(t, Config{
					Publisher: &svc, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { affected = append(affected, eff.Changes...) }},
					Store: &halfRemoving{Store: memory},
				})
				handle(t, e, SessionOpen{Session: phoneSession})
				for _, n := range []string{"n1", "n2", "n3"} {
					handle(t, e, PushEnable{Session: phoneSession, Key: node(n)})
				}
				d, err := e.Handle(t.Context(), ev)
				assert.ErrorIs(t, err, ErrStore)
				assert.ErrorIs(t, err, errFault)
				assert.Equal(t, ReasonStore, d.Reason)
				reason := ReasonDisabledByUser
				if _, ok := ev.(AccountRemoved); ok {
					reason = ReasonAccount
				}
				assert.Equal(t, []Change{{Key: node("n1"), Kind: ChangeRemoved, Reason: reason}}, d.Changes, "what is gone from the store is gone")
				assert.Equal(t, d.Changes, affected)
				assert.Len(t, stored(t, memory, juliet), 2)
				d = handle(t, e, Ping{Account: juliet})
				assert.Len(t, d.Verdicts, 2)
				d = handle(t, e, ev)
				assert.Equal(t, []Change{{Key: node("n2"), Kind: ChangeRemoved, Reason: reason}, {Key: node("n3"), Kind: ChangeRemoved, Reason: reason}}, d.Changes, "given again it does the rest")
				assert.Empty(t, stored(t, memory, juliet))
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// halfRemoving is a Store that removes only n1 at first.
type halfRemoving struct {
	Store
	removed bool
}

func (s *halfRemoving) Remove(ctx context.Context, account string, k Key) ([]Key, error) {
	if s.removed {
		return s.Store.Remove(ctx, account, k)
	}
	s.removed = true
	removed, _ := s.Store.Remove(ctx, account, node("n1"))
	return removed, errFault
}

func TestStoreRevokeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := on()
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: failing("Remove", broken)}})
		d, err := e.Handle(t.Context(), AffiliationNone{juliet, phone})
		wantStoreError(t, d, err, "affiliation")
		assert.Len(t, stored(t, memory, juliet), 1)
		broken.Store(false)
		d = handle(t, e, AffiliationNone{juliet, phone})
		assert.Equal(t, []Change{{Key: phone, Kind: ChangeRemoved, Reason: ReasonRevoked}}, d.Changes)
		assert.Empty(t, stored(t, memory, juliet))
		assert.Empty(t, handle(t, e, AffiliationNone{juliet, phone}).Changes, "of what is not there it is nothing")
		handle(t, e, SessionOpen{Session: phoneSession})
		assert.Empty(t, handle(t, e, AffiliationNone{juliet, phone}).Changes)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestStoreHealthFails learns from a reply what the Store does not take.
func TestStoreHealthFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return &ReplyError{"cancel", "item-not-found"} }}
		var log bytes.Buffer
		broken := on()
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		e := newEngine(t, Config{Publisher: &svc, Store: &hookedStore{Store: memory, before: failing("Update", broken)}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		handle(t, e, Offline{juliet, message("m1")})
		synctest.Wait()
		assert.Equal(t, ReasonDisabled, handle(t, e, Offline{juliet, message("m2")}).Verdicts[0].Reason, "the Engine knows it all the same")
		require.NoError(t, e.Close(t.Context()))
		assert.Len(t, svc.published(), 1)
		assert.Contains(t, log.String(), "level=WARN msg=\"push: store failed\" account=juliet@example.com call=Store.Update")
	})
}

// TestLogOfNoAnswer: the log of a publish says what came back, also where nothing did.
func TestLogOfNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(n *Notification) error {
			if n.Try == 1 {
				return context.DeadlineExceeded
			}
			return &ReplyError{"cancel", "item-not-found"}
		}}
		var log bytes.Buffer
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		e := newEngine(t, Config{Publisher: &svc, Store: memory, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		handle(t, e, Offline{juliet, message("m1")})
		time.Sleep(time.Minute)
		require.NoError(t, e.Close(t.Context()))
		assert.Regexp(t, `push: publish transient.* try=1 error="no answer"`, log.String())
		assert.Regexp(t, `push: publish fatal.* try=2 error=item-not-found`, log.String())
	})
}

// TestStoreChangedElsewhere has another node of the cluster remove a registration, which is noticed when its health is stored.
func TestStoreChangedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{}
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		var affected []Change
		e := newEngine(t, Config{Publisher: &svc, Store: memory, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { affected = append(affected, eff.Changes...) }}})
		svc.answer = func(*Notification) error {
			_, err := memory.Remove(context.Background(), juliet, phone)
			return err
		}
		handle(t, e, Offline{juliet, message("m1")})
		synctest.Wait()
		assert.Equal(t, []Change{{Key: phone, Kind: ChangeRemoved, Reason: ReasonRemoved}}, affected)
		assert.Equal(t, ReasonNoRegistration, handle(t, e, Offline{juliet, message("m2")}).Reason)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestStoreGarbage has a Store that returns what it should not, on each of the ways by which registrations come into the Engine.
func TestStoreGarbage(t *testing.T) {
	garbage := func(account string, rs []Registration) []Registration {
		if len(rs) == 0 {
			return rs
		}
		rs = append(rs, rs[0], Registration{Account: "nurse@example.com", Key: node("hers")}, Registration{Account: account}, Registration{},
			Registration{Account: account, Key: Key{Node: "no service"}}, Registration{Account: account + "/x", Key: node("theirs")})
		return append([]Registration{{Account: "nurse@example.com", Key: phone, Options: []Field{{Var: "hers"}}}}, rs...)
	}
	want := []Verdict{{Key: phone, Notify: true, Rule: RulePing, Reason: ReasonPing}}
	check := func(t *testing.T, e *Engine) {
		t.Helper()
		d := handle(t, e, Ping{Account: juliet})
		for i := range d.Verdicts {
			d.Verdicts[i].Stanzas = nil
		}
		assert.Equal(t, want, d.Verdicts)
		st, err := e.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		assert.Len(t, st.Registrations, 1)
	}
	for name, load := range map[string]func(t *testing.T, e *Engine, s *hookedStore){
		"read":    func(t *testing.T, e *Engine, s *hookedStore) {},
		"inspect": func(t *testing.T, e *Engine, s *hookedStore) { _, _ = e.Inspect(t.Context(), juliet) },
		"refresh": func(t *testing.T, e *Engine, s *hookedStore) {
			handle(t, e, SessionOpen{Session: phoneSession})
			require.NoError(t, e.Refresh(t.Context(), juliet))
		},
		"reload": func(t *testing.T, e *Engine, s *hookedStore) {
			handle(t, e, SessionOpen{Session: phoneSession})
			s.befores = garbage
			handle(t, e, PushEnable{Session: phoneSession, Key: phone})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				memory := NewMemoryStore()
				keep(t, memory, juliet, phone)
				s := &hookedStore{Store: memory, lists: garbage}
				e := newEngine(t, Config{Publisher: &svc, Store: s})
				load(t, e, s)
				check(t, e)
				require.NoError(t, e.Close(t.Context()))
				require.Len(t, svc.published(), 1)
				assert.Equal(t, juliet, svc.published()[0].Account)
				assert.Empty(t, svc.published()[0].Options)
			})
		})
	}
}

// TestRefreshForgets has a row of another account hide that the account's own is gone.
func TestRefreshForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		s := &hookedStore{Store: memory}
		var affected []Change
		e := newEngine(t, Config{Publisher: &service{}, Store: s, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { affected = append(affected, eff.Changes...) }}})
		handle(t, e, SessionOpen{Session: phoneSession}, ArchiveAdded{juliet, message("m1")})
		remove(t, memory, phone)
		s.lists = func(string, []Registration) []Registration {
			return []Registration{{Account: "nurse@example.com", Key: phone}}
		}
		require.NoError(t, e.Refresh(t.Context(), juliet))
		assert.Equal(t, []Change{{Key: phone, Kind: ChangeRemoved, Reason: ReasonRemoved}}, affected)
		require.NoError(t, e.Refresh(t.Context(), "nobody@example.com"), "costs nothing")
		synctest.Wait()
		s.before = func(context.Context, string, string) error { return errFault }
		assert.ErrorIs(t, e.Refresh(t.Context(), juliet), ErrStore)
		require.NoError(t, e.Close(t.Context()))
		assert.ErrorIs(t, e.Refresh(t.Context(), juliet), ErrClosed)
	})
}

// TestStoreSlow checks that an enable that the Store takes its time over holds up neither its own account's events nor another's, and that waiting
// ends with the caller's context.
func TestStoreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		slow := func(ctx context.Context, m, account string) error {
			if m != "Enable" || account != juliet {
				return nil
			}
			select {
			case <-time.After(10 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		var svc service
		e := newEngine(t, Config{Publisher: &svc, Store: &hookedStore{Store: memory, before: slow}})
		handle(t, e, SessionOpen{Session: phoneSession}, Ping{Account: juliet})
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := e.Handle(t.Context(), PushEnable{Session: phoneSession, Key: node("new")})
			assert.NoError(t, err)
			assert.Equal(t, 10*time.Second, time.Since(began))
		})
		synctest.Wait()
		for i := range 20 {
			handle(t, e, Offline{juliet, message(fmt.Sprint("m", i))})
			handle(t, e, Offline{"nurse@example.com", message(fmt.Sprint("m", i))})
		}
		_, err := e.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		assert.Less(t, time.Since(began), time.Microsecond, "nobody waits")
		assert.Len(t, stored(t, memory, juliet), 1, "not yet")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d, err := e.Handle(ctx, PushDisable{phoneSession, phone})
		assert.ErrorIs(t, err, ErrStore)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, ReasonStore, d.Reason)
		assert.LessOrEqual(t, time.Since(began), 1100*time.Millisecond)
		assert.ErrorIs(t, e.Refresh(ctx, juliet), context.DeadlineExceeded)

		wg.Wait()
		synctest.Wait()
		assert.Len(t, stored(t, memory, juliet), 2, "what nobody waited for any more was not done")
		assert.NotEmpty(t, svc.published())
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d, err = e.Handle(ctx, PushEnable{Session: phoneSession, Key: node("other")})
		assert.ErrorIs(t, err, ErrStore)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, ReasonStore, d.Reason)
		assert.Len(t, stored(t, memory, juliet), 2)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestStoreReadRace reads an account's registrations while a client changes them: the old ones must not win.
func TestStoreReadRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		memory := NewMemoryStore()
		s := &hookedStore{Store: memory}
		hold := true
		s.lists = func(account string, rs []Registration) []Registration {
			if hold {
				hold = false
				time.Sleep(time.Second) // what was read is on its way
			}
			return rs
		}
		e := newEngine(t, Config{Publisher: &svc, Store: s})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := e.Handle(t.Context(), Offline{juliet, message("m0")})
			assert.NoError(t, err)
		})
		synctest.Wait()
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		wg.Wait()
		d := handle(t, e, Offline{juliet, message("m1")})
		assert.True(t, d.Notifies())
		require.NoError(t, e.Close(t.Context()))
		assert.Len(t, svc.published(), 1)
	})
}

// TestRefreshDuringRead has another node change what is being read here, and say so.
func TestRefreshDuringRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		s := &hookedStore{Store: memory}
		hold := true
		s.lists = func(_ string, rs []Registration) []Registration {
			if hold {
				hold = false
				time.Sleep(time.Second)
			}
			return rs
		}
		e := newEngine(t, Config{Publisher: &service{}, Store: s})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := e.Handle(t.Context(), Offline{juliet, message("m0")})
			assert.NoError(t, err)
		})
		synctest.Wait()
		keep(t, memory, juliet, phone)
		require.NoError(t, e.Refresh(t.Context(), juliet))
		wg.Wait()
		d := handle(t, e, Ping{Account: juliet})
		assert.True(t, d.Notifies())
		require.NoError(t, e.Close(t.Context()))
	})
}

func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(n *Notification) error { return errors.New("no answer") }}
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &svc, Store: struct{ Store }{memory}, Policy: Policy{MaxRegistrations: 2}})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: node("n1")})
		time.Sleep(time.Second)
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: node("n2")}, Offline{juliet, message("m1")})
		synctest.Wait()
		time.Sleep(time.Second)
		d := handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: node("n3")})
		assert.Equal(t, []Change{
			{Key: node("n3"), Kind: ChangeAdded, Reason: ReasonEnabled},
			{Key: node("n3"), Kind: ChangeUnbound, Rule: RuleBind, Reason: ReasonOperator},
			{Key: node("n1"), Kind: ChangeRemoved, Reason: ReasonLimit},
		}, d.Changes)
		require.Len(t, d.Drops, 1)
		assert.Equal(t, Drop{Key: node("n1"), Class: ClassImportant, Count: 1, Events: d.Drops[0].Events, Reason: ReasonLimit}, d.Drops[0])
		assert.Len(t, stored(t, memory, juliet), 2)
		d = handle(t, e, StanzaQueued{phoneSession, message("m2")})
		for _, v := range d.Verdicts {
			assert.Equal(t, ReasonUnbound, v.Reason)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.Error(t, e.Close(ctx))
	})
}

// TestRestart checks what survives in the Store: the counters of a registration, and that it is disabled.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service{answer: func(*Notification) error { return &ReplyError{"auth", "forbidden"} }}
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &svc, Store: memory})
		restart := func() {
			require.NoError(t, e.Close(t.Context()))
			e = newEngine(t, Config{Publisher: &svc, Store: memory})
		}
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		for i := range 3 {
			assert.Equal(t, i, stored(t, memory, juliet)[0].Health.Refusals)
			d := handle(t, e, Offline{juliet, message(fmt.Sprint("m", i))})
			assert.True(t, d.Notifies())
			restart()
		}
		h := stored(t, memory, juliet)[0].Health
		assert.Equal(t, "forbidden", h.Cause)
		assert.False(t, h.Disabled.IsZero())
		d := handle(t, e, Offline{juliet, message("m4")})
		assert.Equal(t, ReasonDisabled, d.Verdicts[0].Reason)
		restart()
		svc.answer = nil
		d = handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		assert.Equal(t, []Change{
			{Key: phone, Kind: ChangeEnabled, Reason: ReasonReenabled}, {Key: phone, Kind: ChangeUnbound, Rule: RuleBind, Reason: ReasonOperator},
		}, d.Changes)
		assert.Equal(t, Health{}, stored(t, memory, juliet)[0].Health)
		d = handle(t, e, Offline{juliet, message("m4")})
		assert.True(t, d.Notifies())
		restart()
		assert.Len(t, svc.published(), 4)
		assert.False(t, stored(t, memory, juliet)[0].Health.Succeeded.IsZero())
		require.NoError(t, e.Close(t.Context()))
	})
}

func TestUnusableEvents(t *testing.T) {
	e := newEngine(t, Config{Publisher: &service{}})
	for _, c := range []struct {
		ev   Event
		says string
	}{
		{Offline{}, "no account"}, {Ping{}, "no account"}, {SessionOpen{}, "no account"},
		{SessionOpen{Session: SessionID{Account: juliet}}, "no session"},
		{PushEnable{Session: phoneSession}, "no service"}, {PushEnable{Session: phoneSession, Key: Key{Node: "n1"}}, "no service"},
		{AffiliationNone{Account: juliet}, "no service"},
		{nil, "it is nil"},
		{&Offline{Account: juliet}, "*push.Offline"},
	} {
		ev := c.ev
		d, err := e.Handle(t.Context(), ev)
		assert.ErrorContains(t, err, c.says)
		assert.ErrorIs(t, err, ErrEvent, "%#v", ev)
		assert.NotErrorIs(t, err, ErrStore, "%#v", ev)
		assert.Equal(t, ReasonNone, d.Reason, "%#v", ev)
		assert.Empty(t, d.Verdicts)
	}
	require.NoError(t, e.Close(t.Context()))
}

// TestClassUnknown gives a class that does not exist: it is taken for the highest, and takes nothing down.
func TestClassUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{}
		e := newEngine(t, Config{Publisher: svc})
		wishes := &wishes.Wishes{Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("0123456789abcdef")}}
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone, Wishes: wishes}, Offline{juliet, Stanza{ID: "m1", Class: 77, Kind: 99, Type: 50, Content: 200}}, Offline{juliet, message("m2")})
		require.NoError(t, e.Close(t.Context()))
		require.NotEmpty(t, svc.published())
		assert.Equal(t, ClassUrgent, svc.published()[0].Class)
	})
}

// TestNilContext gives no context, which is one that never ends.
func TestNilContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{}
		e := newEngine(t, Config{Publisher: svc})
		var none context.Context
		for _, ev := range []Event{PushEnable{Session: phoneSession, Key: phone}, PushDisable{Session: phoneSession, Key: phone}, PushEnable{Session: phoneSession, Key: phone}, Offline{juliet, message("m1")}} {
			_, err := e.Handle(none, ev)
			require.NoError(t, err)
		}
		st, err := e.Inspect(none, juliet)
		require.NoError(t, err)
		assert.Len(t, st.Registrations, 1)
		require.NoError(t, e.Refresh(none, juliet))
		require.NoError(t, e.RefreshAll(none))
		require.NoError(t, e.Close(none))
		require.NoError(t, e.Close(none))
		assert.Len(t, svc.published(), 1)
	})
}

// TestForever sets each duration to the longest there is, by which hosts mean never: it is long, and not past.
func TestForever(t *testing.T) {
	const never = time.Duration(math.MaxInt64)
	for name, c := range map[string]Config{
		"HookTimeout":  {HookTimeout: never},
		"StoreTimeout": {StoreTimeout: never},
		"Expire":       {Policy: Policy{Expire: never}},
		"ExpireUrgent": {Policy: Policy{ExpireUrgent: never}},
		"RetryMax":     {Policy: Policy{RetryMin: never, RetryMax: never}},
		"ReplyTimeout": {Policy: Policy{ReplyTimeout: never}},
		"RememberFor":  {Policy: Policy{RememberFor: never}},
		"MaxResume":    {Policy: Policy{MaxResume: never}},
		"ProbeEvery":   {Policy: Policy{ProbeEvery: never}},
		"AskAgain":     {Policy: Policy{AskAgain: never}},
		"Grace":        {Policy: Policy{Grace: never}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := &service{}
				c.Publisher, c.Store = svc, &hookedStore{Store: NewMemoryStore()}
				e := newEngine(t, c)
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, HibernationStart{phoneSession, []Stanza{message("m1")}}, SessionClose{phoneSession})
				pass(time.Hour)
				assert.Len(t, svc.published(), 1)
				handle(t, e, Offline{juliet, message("m2")})
				require.NoError(t, e.Close(t.Context()))
				assert.Empty(t, e.Hooks())
			})
		})
	}
}

// TestWithoutLimit sets each number to the largest there is, by which hosts mean that there is no limit.
func TestWithoutLimit(t *testing.T) {
	const most = math.MaxInt
	for name, c := range map[string]Config{
		"ServiceInFlight":  {Policy: Policy{ServiceInFlight: most}},
		"BreakAfter":       {Policy: Policy{BreakAfter: most}},
		"Remember":         {Policy: Policy{Remember: most}},
		"Causes":           {Policy: Policy{Causes: most}},
		"MaxErrors":        {Policy: Policy{MaxErrors: most, MaxErrorsUnproven: most, MaxRefusals: most}},
		"MaxRegistrations": {Policy: Policy{MaxRegistrations: most}},
		"MaxDeferred":      {MaxDeferred: most},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := &service{}
				c.Publisher, c.Store = svc, &hookedStore{Store: NewMemoryStore()}
				e := newEngine(t, c)
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
				for i := range 3 {
					handle(t, e, Offline{juliet, message(fmt.Sprint(i))}, Offline{juliet, message(fmt.Sprint(i))})
					pass(time.Minute)
				}
				assert.Len(t, svc.published(), 3)
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestEvictedElsewhere enables at the limit while another node of the cluster has stored more than the Engine knows.
func TestEvictedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		var affected []Change
		e := newEngine(t, Config{Publisher: &service{}, Store: memory, Policy: Policy{MaxRegistrations: 3}, Observer: &Observer{
			Affected: func(_ string, _ time.Time, eff *Effects) { affected = append(affected, eff.Changes...) },
		}})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
		pass(time.Hour)
		for _, n := range []string{"n2", "n3"} {
			_, err := memory.Enable(t.Context(), Registration{Account: juliet, Key: node(n), Enabled: time.Now()}, 3)
			require.NoError(t, err)
		}
		d := handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: node("n4")})
		assert.Equal(t, []Change{{Key: node("n2"), Kind: ChangeAdded, Reason: ReasonElsewhere}, {Key: node("n3"), Kind: ChangeAdded, Reason: ReasonElsewhere}}, affected)
		assert.Equal(t, []Change{
			{Key: node("n4"), Kind: ChangeAdded, Reason: ReasonEnabled},
			{Key: node("n4"), Kind: ChangeUnbound, Rule: RuleBind, Reason: ReasonOperator},
			{Key: phone, Kind: ChangeRemoved, Reason: ReasonLimit},
		}, d.Changes)
		d = handle(t, e, Ping{Account: juliet})
		assert.Len(t, d.Verdicts, 3)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestRemovedElsewhere disables what another node has removed already.
func TestRemovedElsewhere(t *testing.T) {
	memory := NewMemoryStore()
	e := newEngine(t, Config{Publisher: &service{}, Store: memory})
	handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
	remove(t, memory, phone)
	d := handle(t, e, PushDisable{phoneSession, phone})
	assert.Equal(t, []Change{{Key: phone, Kind: ChangeRemoved, Reason: ReasonDisabledByUser}}, d.Changes)
	require.NoError(t, e.Close(t.Context()))
}
