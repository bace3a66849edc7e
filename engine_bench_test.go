package push_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/xmpp-push/push"
)

// The figures of an Engine. To measure them again, on a machine that does nothing else:
//
//	go test -run '^$' -bench 'BenchmarkHandle$' -cpu 1,2 -count 10 .
//	go test -run '^$' -bench 'BenchmarkMemory$' -benchtime 1x -count 3 .

func accept(context.Context, *Notification) error { return nil }

func benchEngine(b testing.TB, cfg Config) *Engine {
	cfg.Host = "example.com"
	if cfg.Publisher == nil {
		cfg.Publisher = PublisherFunc(accept)
	}
	e, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

func users(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("user%07d@example.com", i)
	}
	return names
}

// part gives each goroutine of a parallel benchmark its own part of the accounts.
type part struct{ next atomic.Int64 }

func (p *part) of(names []string) []string {
	n := runtime.GOMAXPROCS(0)
	i := int(p.next.Add(1)-1) % n
	return names[i*len(names)/n : (i+1)*len(names)/n]
}

func BenchmarkHandle(b *testing.B) {
	ctx := context.Background()
	// Most accounts of a server: nobody has enabled push.
	b.Run("account=unregistered/event=offline", func(b *testing.B) {
		e, names := benchEngine(b, Config{}), users(4096)
		var parts part
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			var d Decision
			mine := parts.of(names)
			ev := Offline{Stanza: message("m1")}
			for i := 0; pb.Next(); i++ {
				ev.Account = mine[i%len(mine)]
				if err := e.HandleTo(ctx, ev, &d); err != nil || d.Reason != ReasonNoRegistration {
					b.Error(err, d.Reason)
				}
			}
		})
	})
	// A message to somebody who is connected.
	b.Run("account=live/event=archive-added", func(b *testing.B) {
		e, names := benchEngine(b, Config{}), users(4096)
		for _, name := range names {
			s := SessionID{name, "s1"}
			for _, ev := range []Event{SessionOpen{Session: s}, PushEnable{Session: s, Key: phone}} {
				if _, err := e.Handle(ctx, ev); err != nil {
					b.Fatal(err)
				}
			}
		}
		var parts part
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			var d Decision
			mine := parts.of(names)
			ev := ArchiveAdded{Stanza: Stanza{ID: "m1", Class: ClassImportant}}
			for i := 0; pb.Next(); i++ {
				ev.Account = mine[i%len(mine)]
				ev.Stanza.To = ev.Account
				if err := e.HandleTo(ctx, ev, &d); err != nil || d.Verdicts[0].Reason != ReasonLive {
					b.Error(err, d.Verdicts)
				}
			}
		})
	})
	// From the event to the Publisher's answer. Each account has one event, so that none is merged, and the figures are of publishes. The memory is the
	// Engine's for an account that it had to read from the Store, and keeps for a while.
	b.Run("publish=first", func(b *testing.B) {
		var published atomic.Int64
		store := NewMemoryStore()
		e := benchEngine(b, Config{Store: store, Policy: Policy{ServiceInFlight: 64}, Publisher: PublisherFunc(func(context.Context, *Notification) error { published.Add(1); return nil })})
		names := users(b.N)
		for _, name := range names {
			if _, err := store.Enable(ctx, Registration{Account: name, Key: phone, Health: Health{Succeeded: time.Now()}}, 0); err != nil {
				b.Fatal(err)
			}
		}
		var next atomic.Int64
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			var d Decision
			ev := Offline{Stanza: message("m1")}
			for pb.Next() {
				ev.Account = names[next.Add(1)-1]
				if err := e.HandleTo(ctx, ev, &d); err != nil || !d.Verdicts[0].Notify {
					b.Error(err, d.Verdicts)
				}
			}
		})
		if err := e.Close(ctx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if n := published.Load(); n != int64(b.N) {
			b.Fatalf("%d publishes for %d events", n, b.N)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "publishes/s")
	})
	// The same for accounts that the Engine keeps already, over and over, with a second between two publishes to one device: what comes meanwhile is merged.
	b.Run("publish=merged", func(b *testing.B) { benchPublishes(b, Policy{Remember: 16, ServiceInFlight: 64}) })
	// And without that second: each event is a publish, since nobody has one waiting when his turn comes again.
	b.Run("publish=each", func(b *testing.B) { benchPublishes(b, Policy{Remember: 16, ServiceInFlight: 64, MinInterval: -1}) })
}

// benchPublishes raises events of accounts that are kept, from all processors, and counts what comes of them. Each goroutine comes back to an account only after it was
// published to, if the policy lets it.
func benchPublishes(b *testing.B, p Policy) {
	ctx := context.Background()
	const accounts = 8192
	var published atomic.Int64
	e := benchEngine(b, Config{Policy: p, Publisher: PublisherFunc(func(context.Context, *Notification) error { published.Add(1); return nil })})
	names := users(accounts)
	for _, name := range names {
		s := SessionID{name, "s1"}
		for _, ev := range []Event{SessionOpen{Session: s}, PushEnable{Session: s, Key: phone}, HibernationStart{Session: s}} {
			if _, err := e.Handle(ctx, ev); err != nil {
				b.Fatal(err)
			}
		}
	}
	ids := make([]string, b.N/accounts+2)
	for i := range ids {
		ids[i] = fmt.Sprint("m", i)
	}
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var d Decision
		ev := Offline{Stanza: message("")}
		for pb.Next() {
			i := int(next.Add(1) - 1)
			if i%(accounts/4) == 0 { // nobody should have one waiting when his turn comes again
				for waiting(e) > accounts/4 {
					runtime.Gosched()
				}
			}
			ev.Account, ev.Stanza.ID = names[i%accounts], ids[i/accounts]
			if err := e.HandleTo(ctx, ev, &d); err != nil || !d.Verdicts[0].Notify {
				b.Error(err, d.Verdicts)
			}
		}
	})
	if err := e.Close(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	n := published.Load()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "publishes/s")
	b.ReportMetric(float64(b.N)/float64(max(n, 1)), "events/publish")
}

func waiting(e *Engine) (n int) {
	for _, s := range e.Services() {
		n += s.Waiting
	}
	return n
}

// heap is how many bytes are in use.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold is let go at the second
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkMemory tells what accounts and sessions cost while nothing happens.
func BenchmarkMemory(b *testing.B) {
	ctx := context.Background()
	do := func(b *testing.B, e *Engine, evs ...Event) {
		for _, ev := range evs {
			if err := e.HandleTo(ctx, ev, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("accounts=1000000/registrations=1", func(b *testing.B) {
		const accounts = 1_000_000
		for range b.N {
			names := users(accounts)
			empty := heap()
			store := NewMemoryStore()
			e := benchEngine(b, Config{Store: store})
			for _, name := range names {
				s := SessionID{name, "s1"}
				do(b, e, SessionOpen{Session: s}, PushEnable{Session: s, Key: Key{Service: "push.example.net", Node: "node-" + name[:11]}, Options: usualRegistration(0, "").Options}, SessionClose{s})
			}
			all := heap()
			runtime.KeepAlive(e)
			e = nil
			stored := heap()
			b.ReportMetric((stored-empty)/accounts, "store-B/account")
			b.ReportMetric((all-stored)/accounts, "engine-B/account")
			runtime.KeepAlive(store)
			runtime.KeepAlive(names)
		}
	})
	for _, stanzas := range []int{0, 1, 10} {
		b.Run(fmt.Sprintf("sessions=100000/state=hibernated/notified=%d", stanzas), func(b *testing.B) {
			const sessions = 100_000
			for range b.N {
				names := users(sessions)
				store := NewMemoryStore()
				e := benchEngine(b, Config{Store: store})
				for _, name := range names {
					s := SessionID{name, "s1"}
					do(b, e, PushEnable{Session: s, Key: Key{Service: "push.example.net", Node: "node-" + name[:11]}, Options: usualRegistration(0, "").Options})
				}
				empty := heap()
				for _, name := range names {
					s := SessionID{name, "s1"}
					do(b, e, SessionOpen{Session: s, JID: name + "/phone", Client: "a3d1f0c2-5e0b-4c55-8d6e-0f1d2c3b4a59"},
						PushEnable{Session: s, Key: Key{Service: "push.example.net", Node: "node-" + name[:11]}, Options: usualRegistration(0, "").Options}, HibernationStart{Session: s})
				}
				for i := range stanzas {
					for _, name := range names {
						do(b, e, Offline{name, message(fmt.Sprint("m", i))})
					}
				}
				for waiting(e) > 0 {
					runtime.Gosched()
				}
				b.ReportMetric((heap()-empty)/sessions, "B/session")
				if err := e.Close(ctx); err != nil {
					b.Fatal(err)
				}
				runtime.KeepAlive(names)
			}
		})
	}
}

// BenchmarkObserved is an event that the Observer is told of, who does nothing with it.
//
//	go test -run '^$' -bench 'BenchmarkObserved$' -cpu 1 -count 10 .
func BenchmarkObserved(b *testing.B) {
	ctx := context.Background()
	for name, observer := range map[string]*Observer{
		"none": nil, "idle": {Decided: func(uint64, time.Time, Event, *Decision, time.Duration) {}},
		"quick": {Quick: true, Decided: func(uint64, time.Time, Event, *Decision, time.Duration) {}},
	} {
		b.Run("observer="+name+"/account=live/event=archive-added", func(b *testing.B) {
			e, names := benchEngine(b, Config{Observer: observer}), users(4096)
			for _, name := range names {
				s := SessionID{name, "s1"}
				for _, ev := range []Event{SessionOpen{Session: s}, PushEnable{Session: s, Key: phone}} {
					if _, err := e.Handle(ctx, ev); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var d Decision
			ev := ArchiveAdded{Stanza: Stanza{ID: "m1", Class: ClassImportant}}
			for i := 0; b.Loop(); i++ {
				ev.Account = names[i%len(names)]
				ev.Stanza.To = ev.Account
				if err := e.HandleTo(ctx, ev, &d); err != nil || d.Verdicts[0].Reason != ReasonLive {
					b.Error(err, d.Verdicts)
				}
			}
		})
	}
}
