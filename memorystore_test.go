package push_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/pushtest"
)

func TestMemoryStore(t *testing.T) {
	pushtest.Store(t, func(t *testing.T) push.Store { return push.NewMemoryStore() })
	pushtest.Keeper(t, func(t *testing.T) push.Keeper { return push.NewMemoryStore() })
}

func TestMemoryStoreListAllocations(t *testing.T) {
	s := push.NewMemoryStore()
	ctx := context.Background()
	for i := range 5 {
		if _, err := s.Enable(ctx, usualRegistration(0, fmt.Sprint("n", i)), 0); err != nil {
			t.Fatal(err)
		}
	}
	for account, want := range map[string]float64{"nobody@example.com": 0, usualRegistration(0, "").Account: 3} {
		got := testing.AllocsPerRun(100, func() {
			if _, err := s.List(ctx, account); err != nil {
				t.Fatal(err)
			}
		})
		if got != want {
			t.Errorf("List(%q): %v allocations, want %v", account, got, want)
		}
	}
}

// A MemoryStore whose accounts have gone gives their room back.
func TestMemoryStoreGivesRoomBack(t *testing.T) {
	s := push.NewMemoryStore()
	ctx := context.Background()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	const n = 50_000
	for i := range n {
		if _, err := s.Enable(ctx, usualRegistration(i, "n"), 0); err != nil {
			t.Fatal(err)
		}
	}
	full := heap()
	for i := range n {
		if _, err := s.Remove(ctx, usualRegistration(i, "").Account, push.Key{}); err != nil {
			t.Fatal(err)
		}
	}
	if after := heap(); full-before < 8<<20 || after-before > 1<<20 {
		t.Errorf("%d KB before, %d KB with %d registrations, %d KB after", before>>10, full>>10, n, after>>10)
	}
	runtime.KeepAlive(s)
}

func usualRegistration(account int, node string) push.Registration {
	return push.Registration{
		Account: fmt.Sprintf("user%07d@example.com", account),
		Key:     push.Key{Service: "push.example.net", Node: node},
		Options: []push.Field{
			{Var: "FORM_TYPE", Type: "hidden", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}},
			{Var: "secret", Values: []string{"3f2a9c0d7be14e55"}},
		},
		Client:  "a3d1f0c2-5e0b-4c55-8d6e-0f1d2c3b4a59",
		Enabled: time.Date(2026, 1, 2, 3, 4, 5, account, time.UTC),
	}
}

func BenchmarkMemoryStore(b *testing.B) {
	const accounts = 1_000_000
	ctx := context.Background()
	names := make([]string, accounts)
	for i := range names {
		names[i] = usualRegistration(i, "").Account
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := push.NewMemoryStore()
	for i := range accounts {
		if _, err := s.Enable(ctx, usualRegistration(i, fmt.Sprintf("node-%08d-abcdef", i)), 5); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	bytes := float64(after.HeapAlloc-before.HeapAlloc) / accounts

	for _, c := range []struct {
		name string
		want int
		pick func(i int) string
	}{
		{"known", 1, func(i int) string { return names[i*7919%accounts] }},
		{"unknown", 0, func(i int) string { return "nobody@example.com" }},
	} {
		b.Run(fmt.Sprintf("List/account=%s/registrations=%d", c.name, accounts), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if rs, err := s.List(ctx, c.pick(i)); err != nil || len(rs) != c.want {
					b.Fatal(len(rs), err)
				}
			}
			b.ReportMetric(bytes, "B/registration")
		})
	}
	runtime.KeepAlive(s)
}
