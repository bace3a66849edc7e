package jetstream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

// taker is what events are given to.
type taker interface {
	Handle(ctx context.Context, ev push.Event) (push.Decision, error)
}

type quiet struct{}

func (quiet) Publish(context.Context, *push.Notification) error { return nil }

// benchCluster is some servers and nodes in this process.
func benchCluster(b *testing.B, servers int, wait bool) []*jetstream.Node {
	b.Helper()
	addrs := freeAddrs(b, servers)
	nodes := make([]*jetstream.Node, servers)
	running := make([]*embedded.Server, servers)
	b.Cleanup(func() { // all nodes leave before the first server does: without most of the servers nobody hands over anything
		var wg sync.WaitGroup
		for _, n := range nodes {
			if n != nil {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					defer cancel()
					_ = n.Close(ctx)
				})
			}
		}
		wg.Wait()
		for _, s := range running {
			if s != nil {
				s.Close()
			}
		}
	})
	var wg sync.WaitGroup
	for i := range servers {
		wg.Go(func() {
			cfg := embedded.Config{Dir: b.TempDir(), Node: fmt.Sprint("n", i)}
			if servers > 1 {
				cfg.Cluster, cfg.Routes, cfg.Secret = addrs[i], addrs, "s3cret"
			}
			srv, err := embedded.Start(cfg)
			if err != nil {
				b.Error(err)
				return
			}
			running[i] = srv
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			nodes[i], err = jetstream.Join(ctx, jetstream.Config{
				Conn: srv.Conn(), Node: cfg.Node, Wait: wait, Push: push.Config{Host: "example.com", Publisher: quiet{}},
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	for settled := 0; settled < 64; { // each partition with who should have it: none moves while it is measured
		time.Sleep(50 * time.Millisecond)
		settled = 0
		for _, n := range nodes {
			st := n.Status()
			for _, p := range st.Partitions {
				if p.Owned && p.Owner == st.Node && len(st.Nodes) == servers {
					settled++
				}
			}
		}
	}
	return nodes
}

const benchAccounts = 2000

// live gives accounts a phone that is online, so that an event is decided and publishes nothing, as most are.
func live(b *testing.B, t func(i int) taker) {
	b.Helper()
	var wg sync.WaitGroup
	sem := make(chan struct{}, 64)
	for i := range benchAccounts {
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			id := push.SessionID{Account: userAccount(i), ID: "s1"}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if _, err := t(i).Handle(ctx, push.SessionOpen{Session: id, JID: id.Account + "/phone"}); err != nil {
				b.Error(err)
			}
			if _, err := t(i).Handle(ctx, push.PushEnable{Session: id, Key: phone}); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

func benchEvent(i int) push.Event {
	a := userAccount(i % benchAccounts)
	return push.ArchiveAdded{Account: a, Stanza: push.Stanza{
		ID: fmt.Sprintf("b2f0c7d4-7f5e-4d6e-9a45-%012d", i), From: "romeo@example.net/orchard", To: a, Class: push.ClassImportant,
	}}
}

// cpu is the processor time of this process, which says more than the clock on a machine that has other things to do.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// drive gives b.N events from many goroutines, and reports how long each took.
func drive(b *testing.B, goroutines int, t func(i int) taker) {
	b.Helper()
	var next atomic.Int64
	took := make([][]time.Duration, goroutines)
	b.ResetTimer()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				start := time.Now()
				if _, err := t(i).Handle(context.Background(), benchEvent(i)); err != nil {
					b.Error(err)
					return
				}
				took[g] = append(took[g], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	}
}

// Events a second, accepted and decided, and how long Handle takes, beside the plain Engine in the same run. "full" is as many as go, from 512 goroutines;
// "wait" is from 8, each of which waits for the owner's Decision.
func BenchmarkEvents(b *testing.B) {
	b.Run("engine", func(b *testing.B) {
		e, err := push.New(push.Config{Host: "example.com", Publisher: quiet{}})
		if err != nil {
			b.Fatal(err)
		}
		live(b, func(int) taker { return e })
		used := cpu()
		drive(b, 512, func(int) taker { return e })
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		b.ReportMetric(float64((cpu()-used).Nanoseconds())/1e3/float64(b.N), "cpu-µs/event")
	})
	for _, servers := range []int{1, 3} {
		for _, wait := range []bool{false, true} {
			mode, goroutines := "full", 512
			if wait {
				mode, goroutines = "wait", 8
			}
			b.Run(fmt.Sprintf("nodes=%d,%s", servers, mode), func(b *testing.B) { // runs once, and has the cluster for what is in it
				nodes := benchCluster(b, servers, wait)
				at := func(i int) taker { return nodes[i%servers] }
				live(b, at)
				b.Run("events", func(b *testing.B) { measure(b, nodes, goroutines, at) })
			})
		}
	}
}

func measure(b *testing.B, nodes []*jetstream.Node, goroutines int, at func(i int) taker) {
	b.Helper()
	sum := func() (s jetstream.Status) {
		for _, n := range nodes {
			st := n.Status()
			s.Decided += st.Decided
			s.Appends += st.Appends
			s.Bytes += st.Bytes
			s.Accepted += st.Accepted
		}
		return s
	}
	before, used := sum(), cpu()
	start := time.Now()
	drive(b, goroutines, at)
	accepted := time.Since(start)
	for sum().Decided-before.Decided < int64(b.N) {
		if time.Since(start) > time.Minute {
			b.Fatal("not all were decided: did a partition move?")
		}
		time.Sleep(time.Millisecond)
	}
	decided := time.Since(start)
	after := sum()
	b.ReportMetric(float64((cpu()-used).Nanoseconds())/1e3/float64(b.N), "cpu-µs/event")
	b.ReportMetric(float64(b.N)/accepted.Seconds(), "accepted/s")
	b.ReportMetric(float64(b.N)/decided.Seconds(), "decided/s")
	b.ReportMetric(float64(after.Appends-before.Appends)/float64(b.N), "appends/event")
	b.ReportMetric(float64(after.Bytes-before.Bytes)/float64(b.N), "bytes/event")
}

// An event of an account without registrations does not leave its node.
func BenchmarkKept(b *testing.B) {
	n := benchCluster(b, 1, false)[0]
	ev := push.ArchiveAdded{Account: "nobody@example.com", Stanza: push.Stanza{ID: "m1", To: "nobody@example.com"}}
	for n.Status().Kept == 0 { // a node that has just joined is not sure of it at once
		if _, err := n.Handle(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	before := n.Status()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.Handle(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
	}
	if st := n.Status(); st.Accepted != before.Accepted || st.Appends-before.Appends > 64 {
		b.Fatalf("it left: %+v", st)
	}
}
