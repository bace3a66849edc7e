package push_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// gated is a Resumption whose calls for one session wait while it is closed.
type gated struct {
	mu            sync.Mutex
	open          chan struct{}
	holds         string
	advice        []string
	running, most int
}

func (g *gated) ResumeTimeout(s SessionID, timeout time.Duration, _ Reason) {
	g.mu.Lock()
	g.running++
	g.most = max(g.most, g.running)
	open := g.open
	g.mu.Unlock()
	if s.ID == g.holds && open != nil {
		<-open
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.advice = append(g.advice, fmt.Sprint(s.ID, " ", timeout))
}

func (g *gated) got() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.advice
}

// TestAdviceComesLate has a call of Resumption hang: what was to be advised meanwhile is advised when it has returned, for each session the last of it.
func TestAdviceComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &gated{holds: "s1", open: make(chan struct{})}
		told := 0
		e := newEngine(t, Config{Publisher: &service{}, Resumption: host, Observer: &Observer{Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { told++ }}})
		other := SessionID{juliet, "s2"}
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, SessionOpen{Session: other}, PushEnable{Session: other, Key: node("tablet")})
		began := time.Now()
		handle(t, e, HibernationStart{phoneSession, nil})
		assert.Equal(t, 5*time.Second, time.Since(began))
		before := told
		handle(t, e, StanzaQueued{phoneSession, message("m1")})
		pass(time.Minute) // woken: back to the normal time
		handle(t, e, HibernationStart{other, nil}, HibernationEnd{phoneSession}, HibernationStart{phoneSession, nil})
		assert.Equal(t, before+4, told, "the Observer is told all the same")
		assert.Equal(t, 65*time.Second, time.Since(began).Truncate(time.Second), "and nobody waits again")
		assert.Empty(t, host.got())
		close(host.open)
		synctest.Wait()
		assert.Equal(t, []string{"s1 72h0m0s", "s2 72h0m0s", "s1 72h0m0s"}, host.got())
		assert.Zero(t, e.Parts()["mails"])
		host.open = nil
		handle(t, e, StanzaQueued{phoneSession, message("m2")})
		pass(time.Minute)
		assert.Equal(t, "s1 0s", host.got()[3])
		handle(t, e, SessionClose{phoneSession}, SessionClose{other}, AccountRemoved{juliet})
		pass(time.Hour)
		assert.Empty(t, e.Parts())
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestAdviceInOrder has a call of the Observer hang, which returns while one of Resumption is slow: advice still comes one after another.
func TestAdviceInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &gated{holds: "s1", open: make(chan struct{})}
		free := make(chan struct{})
		first := true
		e := newEngine(t, Config{Publisher: &service{}, Resumption: host, Observer: &Observer{Decided: func(_ uint64, _ time.Time, ev Event, _ *Decision, _ time.Duration) {
			if _, ok := ev.(ArchiveAdded); ok && first {
				first = false
				<-free
			}
		}}})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, ArchiveAdded{juliet, message("m1")})
		go func() { _, _ = e.Handle(context.Background(), HibernationStart{phoneSession, nil}) }()
		time.Sleep(time.Second)
		close(free)
		time.Sleep(time.Second)
		go func() { _, _ = e.Handle(context.Background(), HibernationEnd{phoneSession}) }()
		time.Sleep(time.Second)
		go func() { _, _ = e.Handle(context.Background(), HibernationStart{phoneSession, nil}) }()
		time.Sleep(time.Second)
		close(host.open)
		synctest.Wait()
		assert.Equal(t, 1, host.most)
		assert.Equal(t, []string{"s1 72h0m0s", "s1 72h0m0s"}, host.got())
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestTooMuchToTell raises more while an observer is slow than is kept for it: what is oldest is left out and counted, but for advice.
func TestTooMuchToTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &gated{}
		told := 0
		e := newEngine(t, Config{Publisher: &service{}, Resumption: host, Observer: &Observer{Decided: func(_ uint64, _ time.Time, ev Event, _ *Decision, _ time.Duration) {
			if told++; ev.Name() == "archive-added" {
				time.Sleep(4 * time.Second)
			}
		}}})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
		told = 0
		var wg sync.WaitGroup
		raise := func(ev Event) {
			wg.Go(func() { _, _ = e.Handle(context.Background(), ev) })
			synctest.Wait()
		}
		began := time.Now()
		raise(ArchiveAdded{juliet, message("m1")})
		raise(HibernationStart{phoneSession, nil})
		for range 400 {
			raise(SessionActive{phoneSession})
		}
		wg.Wait()
		assert.Equal(t, 4*time.Second, time.Since(began))
		synctest.Wait()
		skipped := 0
		for _, h := range e.Hooks() {
			if h.Hook == "Observer" {
				skipped += int(h.Skipped)
			}
		}
		assert.Equal(t, 402, told+skipped)
		assert.InDelta(t, 257, told, 2)
		assert.Equal(t, []string{"s1 72h0m0s"}, host.got())
		assert.Zero(t, e.Parts()["mails"])
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestQuickObserverTellsForOthers has many events of an account come while a quick Observer is being told: whoever tells it is not kept for ever, and what is for
// those who are not quick is told elsewhere.
func TestQuickObserverTellsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		told, sent := 0, []bool{}
		e := newEngine(t, Config{Publisher: &service{}, Observer: Observers(
			&Observer{Quick: true, Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { time.Sleep(10 * time.Millisecond); told++ }},
			&Observer{Sent: func(time.Time, *Notification) { mu.Lock(); sent = append(sent, hasFrame("raiseHere")); mu.Unlock() }},
		)})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, SessionOpen{Session: phoneSession})
		told = 0
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			raiseHere(t, e, SessionActive{phoneSession})
			assert.LessOrEqual(t, time.Since(began), 80*time.Millisecond)
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() { handle(t, e, SessionActive{phoneSession}) })
		}
		wg.Wait()
		assert.Equal(t, 21, told)
		assert.Equal(t, 210*time.Millisecond, time.Since(began))
		raiseHere(t, e, Offline{juliet, message("m1")})
		synctest.Wait()
		assert.Equal(t, []bool{false}, sent)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestObserverEndsItsGoroutine has an Observer end the goroutine that it is called in: Handle does not wait for it, and it is told what comes next.
func TestObserverEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		e := newEngine(t, Config{Publisher: &service{}, Observer: &Observer{Decided: func(uint64, time.Time, Event, *Decision, time.Duration) {
			if told++; told == 1 {
				runtime.Goexit()
			}
		}}})
		began := time.Now()
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
		assert.Less(t, time.Since(began), time.Microsecond)
		assert.Equal(t, 2, told)
		assert.Equal(t, []HookStatus{{Hook: "Observer", Panics: 1}}, e.Hooks())
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestToldOfAndForgotten has events of accounts that nothing is kept of, with somebody to tell: when he has been told, in time or not, nothing is left.
func TestToldOfAndForgotten(t *testing.T) {
	for _, quick := range []bool{false, true} {
		for _, hangs := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: NewMemoryStore()}, Observer: &Observer{
					Quick: quick, Decided: func(uint64, time.Time, Event, *Decision, time.Duration) {
						if hangs {
							time.Sleep(time.Minute)
						}
					},
				}})
				handle(t, e, Offline{"nobody@example.com", message("m1")})
				if hangs {
					pass(time.Minute)
				}
				synctest.Wait()
				assert.Empty(t, e.Parts())
				require.NoError(t, e.Close(t.Context()))
			})
		}
	}
}

// TestObserverHangsElsewhere has a quick Observer hang for one account, while events come of others that nothing is kept of: it is told of these.
func TestObserverHangsElsewhere(t *testing.T) {
	for _, names := range [][]string{{"quick"}, {"quick", "slow"}} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var told []string
			free := make(chan struct{})
			var observers []*Observer
			for _, name := range names {
				observers = append(observers, &Observer{Quick: name == "quick", Decided: func(_ uint64, _ time.Time, _ Event, d *Decision, _ time.Duration) {
					if d.Account == juliet {
						<-free
					}
					mu.Lock()
					defer mu.Unlock()
					told = append(told, name+" "+strings.TrimSuffix(d.Account, "@example.com"))
				}})
			}
			e := newEngine(t, Config{Publisher: &service{}, Observer: Observers(observers...)})
			var wg sync.WaitGroup
			wg.Go(func() { handle(t, e, SessionOpen{Session: phoneSession}) })
			pass(6 * time.Second)
			handle(t, e, Offline{"nobody@example.com", message("m1")})
			handle(t, e, SessionOpen{Session: SessionID{"nurse@example.com", "s"}})
			var want, last []string
			for _, account := range []string{"nobody", "nurse"} {
				for _, name := range names {
					want = append(want, name+" "+account)
				}
			}
			for _, name := range names {
				last = append(last, name+" juliet")
			}
			mu.Lock()
			assert.Equal(t, want, told)
			mu.Unlock()
			close(free)
			wg.Wait()
			synctest.Wait()
			assert.ElementsMatch(t, last, told[len(want):])
			require.NoError(t, e.Close(t.Context()))
		})
	}
}

// TestOverrunIsSeenInTime has a call of the Store under way, which has half a minute, when one of an Observer begins to hang, which has five seconds.
func TestOverrunIsSeenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		e := newEngine(t, Config{
			Publisher: &service{}, Store: &hookedStore{Store: NewMemoryStore(), before: func(_ context.Context, method, _ string) error {
				if method == "List" {
					<-free
				}
				return nil
			}},
			Observer: &Observer{Decided: func(uint64, time.Time, Event, *Decision, time.Duration) { <-free }},
		})
		began := time.Now()
		handle(t, e, Offline{"nurse@example.com", message("m1")}) // waits for 5 s as well
		assert.Equal(t, 5*time.Second, time.Since(began))
		handle(t, e, SessionOpen{Session: phoneSession})
		assert.Equal(t, 10*time.Second, time.Since(began))
		close(free)
		require.NoError(t, e.Close(t.Context()))
	})
}

// reading is an Observer, or a slog.Handler, that takes its time before it looks at what it was given.
type reading struct {
	mu   sync.Mutex
	seen []string
}

func (r *reading) Enabled(context.Context, slog.Level) bool { return true }
func (r *reading) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *reading) WithGroup(string) slog.Handler            { return r }
func (r *reading) Handle(_ context.Context, rec slog.Record) error {
	time.Sleep(10 * time.Second)
	return nil
}

func (r *reading) decided(_ uint64, _ time.Time, ev Event, d *Decision, _ time.Duration) {
	time.Sleep(10 * time.Second)
	text := d.Account + " " + ev.Name()
	for _, v := range d.Verdicts {
		text += fmt.Sprint(" ", v.Node, v.Stanzas)
	}
	for _, x := range d.Drops {
		text += fmt.Sprint(" dropped ", x.Node, " ", len(x.Events), " ", x.Events[0] < 1_000_000)
	}
	switch ev := ev.(type) {
	case HibernationStart:
		text += fmt.Sprint(" of ", ev.Stanzas[0].ID)
	case AckDelayed:
		text += fmt.Sprint(" of ", ev.Stanzas[0].ID)
	case Ping:
		text += fmt.Sprint(" of ", ev.Registrations[0].Node)
	case PushEnable:
		text += fmt.Sprint(" with ", ev.Options[0].Var)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, text)
}

// TestObserverLooksLate has an Observer look at what it is told when its time is over and the host has used its Decision and its events for others: it sees what it was told.
func TestObserverLooksLate(t *testing.T) {
	stanzas := []Stanza{message("m1"), message("m2")}
	keys := []Key{phone}
	options := []Field{{Var: "secret"}}
	for name, c := range map[string]struct {
		before []Event
		ev     Event
		want   string
	}{
		"hibernation": {nil, HibernationStart{phoneSession, stanzas}, "juliet@example.com hibernation-start phone[m1 m2] of m1"},
		"delayed":     {nil, AckDelayed{phoneSession, stanzas}, "juliet@example.com ack-delayed phone[m1 m2] of m1"},
		"dropped":     {[]Event{HibernationStart{phoneSession, nil}, StanzaQueued{phoneSession, Stanza{ID: "p1"}}}, HibernationEnd{phoneSession}, "juliet@example.com hibernation-end phone[] dropped phone 1 true"},
		"ping":        {nil, Ping{Account: juliet, Registrations: keys}, "juliet@example.com ping phone[] of phone"},
		"enable":      {nil, PushEnable{Session: phoneSession, Key: phone, Options: options}, "juliet@example.com push-enable with secret"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stanzas[0], stanzas[1], keys[0], options[0] = message("m1"), message("m2"), phone, Field{Var: "secret"}
				var look reading
				var on atomic.Bool
				e := newEngine(t, Config{Publisher: &service{}, Observer: &Observer{Decided: func(n uint64, at time.Time, ev Event, d *Decision, took time.Duration) {
					if on.Load() {
						look.decided(n, at, ev, d, took)
					}
				}}})
				other := SessionID{"nurse@example.com", "s"}
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, SessionOpen{Session: other}, PushEnable{Session: other, Key: node("hers")})
				handle(t, e, c.before...)
				on.Store(true)
				var d Decision
				require.NoError(t, e.HandleTo(t.Context(), c.ev, &d))
				on.Store(false)
				stanzas[0], stanzas[1], keys[0], options[0] = message("x1"), message("x2"), node("x"), Field{Var: "x"}
				for i := range d.Verdicts {
					for j := range d.Verdicts[i].Stanzas {
						d.Verdicts[i].Stanzas[j] = "x"
					}
				}
				for i := range d.Drops {
					d.Drops[i].Events[0] = 1_000_000
				}
				require.NoError(t, e.HandleTo(t.Context(), AckDelayed{other, []Stanza{message("x3"), message("x4")}}, &d))
				pass(time.Minute)
				assert.Equal(t, []string{c.want}, look.seen)
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestDeferredEventsAreCopies changes what an event points to after Handle has returned and before it is decided.
func TestDeferredEventsAreCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := on()
		memory := NewMemoryStore()
		keep(t, memory, juliet, phone)
		var ids []string
		e := newEngine(t, Config{Publisher: &service{}, Store: &hookedStore{Store: memory, before: failing("List", down)}, Observer: &Observer{
			Decided: func(_ uint64, _ time.Time, _ Event, d *Decision, _ time.Duration) {
				for _, v := range d.Verdicts {
					ids = append(ids, v.Stanzas...)
				}
			},
		}})
		stanzas := []Stanza{message("m1")}
		handle(t, e, SessionRestored{Session: phoneSession, Bound: phone, IsBound: true}, HibernationStart{phoneSession, stanzas})
		stanzas[0] = message("x")
		down.Store(false)
		pass(time.Minute)
		assert.Equal(t, []string{"m1"}, ids)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestToldLateAndForgotten has an Observer hang over the only thing that there is to tell of an account: when it has returned, nothing is left.
func TestToldLateAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, late := range []time.Duration{10 * time.Second, 2 * time.Hour} {
			e := newEngine(t, Config{Publisher: &service{}, Observer: &Observer{Decided: func(_ uint64, _ time.Time, ev Event, _ *Decision, _ time.Duration) {
				if _, ok := ev.(SessionClose); ok {
					time.Sleep(late)
				}
			}}})
			handle(t, e, SessionOpen{Session: phoneSession}, SessionClose{phoneSession})
			pass(4 * time.Hour)
			assert.Empty(t, e.Parts())
			closeAtOnce(t, e)
		}
	})
}

// TestBindingIsTold has a session of a client that is known be open when the Store says what the account has: that it is bound is told, which no Decision says.
func TestBindingIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		_, err := memory.Enable(t.Context(), Registration{Account: juliet, Key: phone, Client: "c1", Enabled: time.Now()}, 0)
		require.NoError(t, err)
		var told []Change
		e := newEngine(t, Config{Publisher: &service{}, Store: memory, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { told = append(told, eff.Changes...) }}})
		d := handle(t, e, SessionOpen{Session: phoneSession, Client: "c1"}, ArchiveAdded{juliet, message("m1")})
		assert.Equal(t, ReasonLive, d.Verdicts[0].Reason)
		assert.Empty(t, d.Changes)
		assert.Equal(t, []Change{{Key: phone, Kind: ChangeBound, Session: "s1", Rule: RuleClient, Reason: ReasonClientID}}, told)
		closeAtOnce(t, e)
	})
}

// TestVetoIsLogged: the log of a publish that the host vetoed says so.
func TestVetoIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{level: slog.LevelInfo}
		e := newEngine(t, Config{Publisher: &service{}, Veto: veto{publish: func(*Notification) string { return "quiet hours" }}, Logger: slog.New(log)})
		raise(t, e, message("m1"), juliet)
		synctest.Wait()
		assert.Contains(t, log.got, "INFO publish dropped juliet node=phone class=important stanzas=1 try=1 error=vetoed by the host")
		closeAtOnce(t, e)
	})
}

// hangingLines are lines of which the first that names a decision takes its time to be written.
type hangingLines struct {
	lines
	hung atomic.Bool
}

func (l *hangingLines) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "push: decision" && !l.hung.Swap(true) {
		time.Sleep(8 * time.Second)
	}
	return l.lines.Handle(ctx, r)
}

// TestLoggerLooksLate has a Logger take longer over the first line of a decision than it has, and the caller use its Decision for another account meanwhile: the second line is of the first decision.
func TestLoggerLooksLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		keep(t, memory, juliet, node("phone"), node("tablet"))
		keep(t, memory, "nurse@example.com", node("one"), node("two"))
		log := &hangingLines{lines: lines{level: slog.LevelDebug}}
		e := newEngine(t, Config{Publisher: &service{}, Store: memory, Logger: slog.New(log)})
		var d Decision
		for _, account := range []string{juliet, "nurse@example.com"} {
			require.NoError(t, e.HandleTo(t.Context(), Offline{account, message("m1")}, &d))
		}
		pass(time.Minute)
		for who, nodes := range map[string][]string{"juliet": {"phone", "tablet"}, "nurse": {"one", "two"}} {
			for _, n := range nodes {
				assert.Contains(t, log.got, "DEBUG decision "+who+" event=offline node="+n+" notify=true class=important rule=offline reason=stored-offline stanzas=1")
			}
		}
		closeAtOnce(t, e)
	})
}

// TestNothingIsToldAfterClose has an Observer be behind when Close has no more time: what it was not told it is not told any more, for the host is done with it.
func TestNothingIsToldAfterClose(t *testing.T) {
	for _, quick := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var told atomic.Int32
			e := newEngine(t, Config{Publisher: &service{}, Observer: &Observer{Quick: quick, Decided: func(uint64, time.Time, Event, *Decision, time.Duration) {
				told.Add(1)
				time.Sleep(3 * time.Second)
			}}})
			for range 5 {
				go func() { _, _ = e.Handle(t.Context(), SessionOpen{Session: phoneSession, JID: juliet + "/phone"}) }()
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_ = e.Close(ctx)
			before := told.Load()
			assert.EqualValues(t, 1, before)
			pass(time.Hour)
			assert.Equal(t, before, told.Load())
			assert.EqualValues(t, 4, e.Hooks()[0].Skipped)
		})
	}
}
