package push_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// An observer knows the registrations that were stored before the first event it is told of.
func TestObserverIsToldWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore()
		stored := Registration{Account: juliet, Key: phone, Client: "client"}
		_, err := store.Enable(t.Context(), stored, 5)
		require.NoError(t, err)
		var told []string
		e := newEngine(t, Config{Publisher: &service{}, Store: store, Observer: &Observer{
			Read: func(account string, _ time.Time, rs []Registration) {
				told = append(told, "read "+account)
				for _, r := range rs {
					told = append(told, r.Client+" "+r.Node)
				}
			},
			Decided: func(_ uint64, _ time.Time, ev Event, d *Decision, _ time.Duration) { told = append(told, ev.Name()) },
		}})
		handle(t, e, SessionOpen{Session: phoneSession}, ArchiveAdded{Account: juliet, Stanza: message("m1")})
		assert.Equal(t, []string{"session-open", "read " + juliet, "client phone", "archive-added"}, told)

		synctest.Wait() // the store is told that it was accepted
		told = nil
		remove(t, store, phone)
		require.NoError(t, e.Refresh(t.Context(), juliet))
		assert.Equal(t, []string{"read " + juliet}, told)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestObserversPanic has one Observer that panics before another: that is told all the same, and the panics are counted.
func TestObserversPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		bad := &Observer{
			Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { panic("decided") },
			Sent:    func(time.Time, *Notification) { panic("sent") },
			Started: func(time.Time, string, Policy) { panic("started") },
		}
		good := &Observer{
			Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { told++ },
			Sent:    func(time.Time, *Notification) { told++ },
			Started: func(time.Time, string, Policy) { told++ },
		}
		e := newEngine(t, Config{Publisher: &service{}, Observer: Observers(bad, good)})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		require.NoError(t, e.Close(t.Context()))
		assert.Equal(t, 4, told)
		assert.EqualValues(t, 4, e.Hooks()[0].Panics)
	})
}

// TestObserversApart joins Observers that have nothing in common, and some that are nil: each is told what it has asked for.
func TestObserversApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		told := make(map[string]int)
		note := func(what string) { mu.Lock(); defer mu.Unlock(); told[what]++ }
		all := &Observer{
			Started:  func(time.Time, string, Policy) { note("started") },
			Read:     func(string, time.Time, []Registration) { note("read") },
			Decided:  func(uint64, time.Time, Event, *Decision, time.Duration) { note("decided") },
			Affected: func(string, time.Time, *Effects) { note("affected") },
			Sent:     func(time.Time, *Notification) { note("sent") },
			Stored:   func(string, time.Time, string, time.Duration, error) { note("stored") },
			Replied:  func(time.Time, *Notification, Reply, Result, time.Duration) { note("replied") },
		}
		parts := []*Observer{nil, {Started: all.Started}, {Read: all.Read}, {Decided: all.Decided}, {Affected: all.Affected}, {}, {Sent: all.Sent}, {Stored: all.Stored}, {Replied: all.Replied}, nil}
		quick := make([]*Observer, len(parts))
		for i, p := range parts {
			if p != nil {
				q := *p
				q.Quick = true
				quick[i] = &q
			}
		}
		var want map[string]int
		for i, o := range []*Observer{all, Observers(parts...), Observers(quick...), Observers(Observers(parts[:5]...), nil, Observers(parts[5:]...)), Observers(append(parts[:4:4], quick[4:]...)...)} {
			mu.Lock()
			told = make(map[string]int)
			mu.Unlock()
			e := newEngine(t, Config{Publisher: PublisherFunc(func(context.Context, *Notification) error { return &ReplyError{"cancel", "item-not-found"} }), Store: struct{ Store }{NewMemoryStore()}, Observer: o})
			handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, HibernationStart{phoneSession, []Stanza{message("m1")}}, Offline{"nobody@example.com", message("m1")})
			require.NoError(t, e.Close(t.Context()))
			if want == nil {
				want = told
				assert.Len(t, want, 7)
			}
			assert.Equal(t, want, told, i)
			assert.Empty(t, e.Hooks(), i)
		}
	})
}

// TestQuickObserver is what Observer.Quick promises: its functions run where the event is raised, the others somewhere else, both in the account's order and before Handle returns;
// one that hangs holds its caller and nobody else beyond HookTimeout.
func TestQuickObserver(t *testing.T) {
	t.Run("where", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var told []string
			here := func() string { return map[bool]string{true: "here", false: "elsewhere"}[hasFrame("raiseHere")] }
			watch := func(name string, quick bool) *Observer {
				return &Observer{Quick: quick,
					Decided: func(_ uint64, _ time.Time, ev Event, d *Decision, _ time.Duration) {
						told = append(told, fmt.Sprint(name, " ", ev.Name(), " ", len(d.Verdicts), " ", here()))
					}}
			}
			play := func(os ...*Observer) []string {
				told = nil
				e := newEngine(t, Config{Publisher: &service{}, Observer: Observers(os...)})
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
				told = nil
				raiseHere(t, e, ArchiveAdded{Account: juliet, Stanza: message("m1")})
				raiseHere(t, e, Offline{Account: "nobody@example.com", Stanza: message("m1")})
				got := told
				require.NoError(t, e.Close(t.Context()))
				return got
			}
			assert.Equal(t, []string{"quick archive-added 1 here", "quick offline 0 here"}, play(watch("quick", true)))
			assert.Equal(t, []string{"slow archive-added 1 elsewhere", "slow offline 0 elsewhere"}, play(watch("slow", false)))
			assert.Equal(t, []string{"a archive-added 1 here", "b archive-added 1 here", "a offline 0 here", "b offline 0 here"}, play(watch("a", true), watch("b", true)))
			assert.Equal(t, []string{"b archive-added 1 elsewhere", "a archive-added 1 elsewhere", "b offline 0 here", "a offline 0 elsewhere"}, play(Observers(watch("a", false)), Observers(watch("b", true))))
		})
	})
	t.Run("order", func(t *testing.T) {
		var mu sync.Mutex
		var last, n uint64
		started := make(map[string]int)
		order := func(number uint64, _ time.Time, ev Event, d *Decision, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if a, ok := ev.(ArchiveAdded); ok {
				n++
				assert.Less(t, last, number)
				assert.Equal(t, a.Stanza.ID, d.Verdicts[0].Stanzas[0])
				last = number
			}
		}
		sends := func(_ time.Time, n *Notification) { mu.Lock(); started[n.Account]++; mu.Unlock() }
		ends := func(_ time.Time, n *Notification, _ Reply, _ Result, _ time.Duration) {
			mu.Lock()
			started[n.Account]--
			assert.Zero(t, started[n.Account], "the end of a publish is told after its beginning")
			mu.Unlock()
		}
		e := newEngine(t, Config{Publisher: &service{}, Policy: Policy{MinInterval: -1}, Observer: &Observer{Quick: true, Decided: order, Sent: sends, Replied: ends}})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 500 {
					d, err := e.Handle(t.Context(), ArchiveAdded{Account: juliet, Stanza: message(fmt.Sprint(i, "-", j))})
					assert.NoError(t, err)
					assert.True(t, d.Notifies())
				}
			})
		}
		wg.Wait()
		assert.EqualValues(t, 4000, n, "all is told when Handle returns")
		require.NoError(t, e.Close(t.Context()))
	})
	t.Run("hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			free, told := make(chan struct{}), 0
			e := newEngine(t, Config{Publisher: &service{}, Observer: &Observer{Quick: true, Decided: func(_ uint64, _ time.Time, ev Event, _ *Decision, _ time.Duration) {
				if told++; ev.Name() == "archive-added" {
					<-free
				}
			}}})
			handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
			held := true
			go func() {
				_, _ = e.Handle(context.Background(), ArchiveAdded{Account: juliet, Stanza: message("m1")})
				held = false
			}()
			synctest.Wait()
			began := time.Now()
			handle(t, e, SessionOpen{Session: SessionID{"romeo@example.com", "s1"}}, PushEnable{Session: SessionID{"romeo@example.com", "s1"}, Key: phone})
			assert.Less(t, time.Since(began), time.Microsecond, "another account")
			handle(t, e, Offline{Account: juliet, Stanza: message("m2")})
			assert.Equal(t, 5*time.Second, time.Since(began), "an event of the account waits to be told, but not longer")
			handle(t, e, Offline{Account: juliet, Stanza: message("m3")})
			assert.Equal(t, 5*time.Second, time.Since(began))
			assert.True(t, held)
			assert.Equal(t, HookStatus{Hook: "Observer (quick)", Overruns: 1, Skipped: 2, Hanging: 1}, e.Hooks()[0])
			close(free)
			synctest.Wait()
			assert.False(t, held)
			told = 0
			handle(t, e, Offline{Account: juliet, Stanza: message("m4")})
			assert.Equal(t, 1, told, "it is told again")
			require.NoError(t, e.Close(t.Context()))
		})
	})
}

// raiseHere raises an event, and can be seen in stacks.
//
//go:noinline
func raiseHere(t *testing.T, e *Engine, ev Event) { handle(t, e, ev) }

func hasFrame(name string) bool {
	return strings.Contains(string(debug.Stack()), name+"(")
}
