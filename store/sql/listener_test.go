package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/postgres"
)

// listen starts a Listener and returns what it hears.
func listen(t *testing.T, d database, s *sqlstore.Store) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	heard, ended := make(chan string, 10_000), make(chan error)
	l := postgres.Listener{URL: d.where, Store: s, Changed: func(_ context.Context, account string) { heard <- account }}
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	want(t, heard, "")
	return heard
}

// want waits for one thing to be heard.
func want(t *testing.T, heard <-chan string, account string) {
	t.Helper()
	select {
	case got := <-heard:
		if got != account {
			t.Fatalf("heard of %q, want %q", got, account)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("did not hear of %q", account)
	}
}

func TestListener(t *testing.T) {
	d := newPostgres(t)
	o := &sqlstore.Options{CacheFor: -1}
	here, there := d.open(t, o), d.open(t, o)
	heard := listen(t, d, here)

	r := registration("o'brien \u00fc@example.com", "n1", 0)
	for name, change := range map[string]func() error{
		"Enable": func() error { r.Client += "x"; _, err := there.Enable(ctx, r, 5); return err },
		"Update": func() error { return there.Update(ctx, r.Account, r.Key, pushErrors(1)) },
	} {
		r.Client += "y"
		mustEnable(t, there, r, 5)
		want(t, heard, r.Account)
		mustList(t, here, r.Account)
		if err := change(); err != nil {
			t.Fatal(name, err)
		}
		want(t, heard, r.Account)
		before := here.Stats()
		mustList(t, here, r.Account)
		if here.Stats().Queries == before.Queries {
			t.Errorf("%s of another node: the cache still had the account", name)
		}
	}
	mustRemove(t, there, r.Account, r.Key)
	want(t, heard, r.Account)
	if n := len(mustList(t, here, r.Account)); n != 0 {
		t.Errorf("%d registrations are left here", n)
	}

	// What changed nothing, failed, or was done here is not heard of.
	if err := there.Update(ctx, r.Account, r.Key, pushErrors(1)); !errors.Is(err, push.ErrNotRegistered) {
		t.Error(err)
	}
	mustEnable(t, here, r, 5)
	if _, err := d.handle(t).Exec("SELECT pg_notify($1, 'nonsense')", here.Channel()); err != nil {
		t.Fatal(err)
	}
	mustEnable(t, there, registration("last@example.com", "n1", 0), 5)
	want(t, heard, "last@example.com")

	// A purge tells of each account once.
	if n, err := there.Purge(ctx, sqlstore.Filter{Service: "push.example.net"}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	got := map[string]bool{<-heard: true, <-heard: true}
	if !got[r.Account] || !got["last@example.com"] {
		t.Errorf("heard of %v", got)
	}
}

// TestListenerOutage changes an account while the connection is down: after it, the change is seen.
func TestListenerOutage(t *testing.T) {
	t.Parallel()
	d := newServer(t)
	o := &sqlstore.Options{CacheFor: -1}
	here := d.open(t, o)
	heard := listen(t, d, here)
	mustEnable(t, here, registration(account(0), "n1", 0), 5)
	if n := len(mustList(t, here, account(0))); n != 1 {
		t.Fatal(n)
	}
	d.serverOrNil.Stop()
	d.serverOrNil.Start(t)
	mustEnable(t, d.open(t, o), registration(account(0), "n2", 0), 5) // maybe before it listens again
	want(t, heard, "")
	if n := len(mustList(t, here, account(0))); n != 2 {
		t.Errorf("%d registrations are known after the outage, want 2", n)
	}
	for len(heard) > 0 {
		<-heard
	}
	mustEnable(t, d.open(t, o), registration(account(3), "n1", 0), 5)
	for got := ""; got != account(3); {
		got = <-heard
	}
}

func TestListenerRefusesBadURL(t *testing.T) {
	l := postgres.Listener{URL: "postgres://[", Store: newSQLite(t).open(t, nil)}
	if err := l.Run(ctx); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}

// TestStaleness is the bound where nobody listens.
func TestStaleness(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		const bound = 50 * time.Millisecond
		here, there := d.open(t, &sqlstore.Options{CacheFor: bound}), d.open(t, nil)
		for i := range 5 {
			mustList(t, here, account(0))
			mustEnable(t, there, registration(account(0), fmt.Sprint("n", i), 0), 0)
			changed := time.Now()
			for n := 0; n != i+1; n = len(mustList(t, here, account(0))) {
				if time.Since(changed) > bound+5*time.Second {
					t.Fatal("the change of another process is never seen")
				}
			}
			if late := time.Since(changed); late > bound+time.Second { // a second for a busy machine
				t.Errorf("the change of another process was seen after %v, the bound is %v", late, bound)
			}
		}
	})
}
