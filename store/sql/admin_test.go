package sqlstore_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
)

// populate stores n accounts (several pages) with registrations at one of two services, every tenth a tombstone, account i enabled i hours after start.
func populate(t *testing.T, s *sqlstore.Store, n int) {
	t.Helper()
	for i := range n {
		r := registration(account(i), "n1", time.Duration(i)*time.Hour)
		if i%2 == 1 {
			r.Service = "other.example.net"
		}
		if i%10 == 0 {
			r.Health = push.Health{Disabled: start, Cause: "gone"}
		}
		if i%7 == 0 {
			r.Health.Succeeded = start.Add(10_000 * time.Hour)
		}
		mustEnable(t, s, r, 5)
	}
}

func all(t *testing.T, s *sqlstore.Store, f sqlstore.Filter) (rs []push.Registration) {
	t.Helper()
	for r, err := range s.All(ctx, f) {
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

func TestAllAndPurge(t *testing.T) {
	const n = 1001
	filters := map[string]struct {
		filter sqlstore.Filter
		want   func(r push.Registration) bool
	}{
		"account":  {sqlstore.Filter{Account: account(17)}, func(r push.Registration) bool { return r.Account == account(17) }},
		"service":  {sqlstore.Filter{Service: "other.example.net"}, func(r push.Registration) bool { return r.Service == "other.example.net" }},
		"disabled": {sqlstore.Filter{Disabled: true}, func(r push.Registration) bool { return !r.Health.Disabled.IsZero() }},
		"before": {sqlstore.Filter{Before: start.Add(700 * time.Hour)}, func(r push.Registration) bool {
			return r.Enabled.Before(start.Add(700*time.Hour)) && r.Health.Succeeded.IsZero()
		}},
		"several": {sqlstore.Filter{Service: "push.example.net", Disabled: true, Before: start.Add(time.Hour * 500)}, func(r push.Registration) bool {
			return r.Service == "push.example.net" && !r.Health.Disabled.IsZero() && r.Enabled.Before(start.Add(500*time.Hour)) && r.Health.Succeeded.IsZero()
		}},
		"nothing": {sqlstore.Filter{Account: "nobody@example.com"}, func(push.Registration) bool { return false }},
	}
	backends(t, func(t *testing.T, d database) {
		s := d.fast().open(t, nil)
		populate(t, s, n)
		whole := all(t, s, sqlstore.Filter{})
		if len(whole) != n || !slices.IsSortedFunc(whole, func(a, b push.Registration) int { return cmp.Compare(a.Account, b.Account) }) {
			t.Fatalf("All returned %d registrations, or not in order", len(whole))
		}
		for name, c := range filters {
			want := slices.DeleteFunc(slices.Clone(whole), func(r push.Registration) bool { return !c.want(r) })
			if got := all(t, s, c.filter); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: All returned %d registrations, want %d", name, len(got), len(want))
			}
		}
		if whole[0].Options != nil || whole[0].Client == "" {
			t.Errorf("All returned %+v", whole[0])
		}
		for _, err := range s.All(ctx, sqlstore.Filter{}) { // a caller that has seen enough
			if err != nil {
				t.Fatal(err)
			}
			break
		}

		if n, err := s.Purge(ctx, sqlstore.Filter{}); n != 0 || !errors.Is(err, sqlstore.ErrFilter) {
			t.Errorf("purging everything returned %d, %v, want ErrFilter", n, err)
		}
		left := whole
		for name, c := range filters {
			for _, r := range left {
				mustList(t, s, r.Account) // into the cache
			}
			before := len(left)
			left = slices.DeleteFunc(slices.Clone(left), c.want)
			deleted, err := s.Purge(ctx, c.filter)
			if err != nil || deleted != before-len(left) {
				t.Errorf("%s: Purge: %d, %v, want %d", name, deleted, err, before-len(left))
			}
			if got := all(t, s, sqlstore.Filter{}); fmt.Sprint(got) != fmt.Sprint(left) {
				t.Errorf("%s: after Purge there are %d registrations, want %d", name, len(got), len(left))
			}
			count := 0
			for _, r := range whole {
				count += len(mustList(t, s, r.Account))
			}
			if count != len(left) {
				t.Errorf("%s: after Purge the cache still has what was deleted: %d registrations, want %d", name, count, len(left))
			}
		}
	})
}

// TestPurgeWhileInUse has enables go on while old registrations are purged: none that was enabled again is lost.
func TestPurgeWhileInUse(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		const n = 600
		s := d.fast().open(t, nil)
		populate(t, s, n)
		var wg sync.WaitGroup
		for g := range 2 {
			wg.Go(func() {
				for i := g; i < n; i += 4 {
					if _, err := s.Enable(ctx, registration(account(i), "n1", 100_000*time.Hour), 5); err != nil {
						t.Error(err)
					}
				}
			})
		}
		other := d.fast().open(t, nil) // as another process
		if _, err := other.Purge(ctx, sqlstore.Filter{Before: start.Add(50_000 * time.Hour)}); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for g := range 2 {
			for i := g; i < n; i += 4 {
				if !slices.ContainsFunc(mustList(t, s, account(i)), func(r push.Registration) bool { return r.Service == "push.example.net" }) {
					t.Fatalf("account %d was enabled again and is gone", i)
				}
			}
		}
	})
}
