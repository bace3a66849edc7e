package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
)

// storeFaults break a database, and mend it again. Publishes must not notice.
var storeFaults = map[string]func(t *testing.T) (d database, fault func(t *testing.T) (mend func())){
	"sqlite/locked": func(t *testing.T) (database, func(*testing.T) func()) {
		d := newSQLite(t)
		return d, d.lock
	},
	"sqlite/full": func(t *testing.T) (database, func(*testing.T) func()) {
		d := newSQLite(t)
		dir := t.TempDir()
		if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir).Run(); err != nil {
			t.Skip("it takes root to mount a small disk")
		}
		t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
		d.where = dir + "/push.db"
		return d, func(t *testing.T) func() {
			fill := filepath.Join(dir, "fill")
			f, err := os.Create(fill)
			if err != nil {
				t.Fatal(err)
			}
			for block := make([]byte, 4096); err == nil; {
				_, err = f.Write(block)
			}
			_ = f.Close()
			return func() { _ = os.Remove(fill) }
		}
	},
	"postgres/locked": func(t *testing.T) (database, func(*testing.T) func()) {
		d := newPostgres(t)
		return d, d.lock
	},
	"postgres/stopped": func(t *testing.T) (database, func(*testing.T) func()) {
		d := newServer(t)
		return d, func(*testing.T) func() { return d.serverOrNil.Pause() }
	},
	"postgres/crashed": func(t *testing.T) (database, func(*testing.T) func()) {
		d := newServer(t)
		return d, func(t *testing.T) func() {
			d.serverOrNil.Crash()
			return func() { d.serverOrNil.Start(t) }
		}
	},
}

// TestPublishesGoOnWithoutTheStore has an Engine publish while its database is locked, stopped, full or gone: to healthy services as quickly as ever, although each
// reply of another service is one that the store has to hear of. When the database is back it learns all of it.
func TestPublishesGoOnWithoutTheStore(t *testing.T) {
	for name, fault := range storeFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, break_ := fault(t)
			const accounts, rounds = 40, 10
			var mu sync.Mutex
			sent, failed := map[string]int{}, map[string]int{}
			all := make(chan struct{}, accounts*rounds*2)
			s := d.open(t, nil)
			e, err := push.New(push.Config{
				Host:   "example.com",
				Store:  s,
				Policy: push.Policy{MinInterval: -1},
				Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
					mu.Lock()
					defer mu.Unlock()
					if n.Service == "broken.example" {
						failed[n.Account]++
						return &push.ReplyError{Type: "cancel", Condition: "forbidden"}
					}
					sent[n.Account] += n.Count
					for range n.Count {
						all <- struct{}{}
					}
					return nil
				}),
			})
			if err != nil {
				t.Fatal(err)
			}
			closed := false
			defer func() {
				if !closed {
					ctx, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					_ = e.Close(ctx)
				}
			}()
			offline := func(i, j int) {
				st := push.Stanza{ID: fmt.Sprint("m", j), Kind: push.KindMessage, To: account(i), From: "romeo@example.net", Class: push.ClassImportant}
				if _, err := e.Handle(ctx, push.Offline{Account: account(i), Stanza: st}); err != nil {
					t.Errorf("message %d of account %d: %v", j, i, err)
				}
			}
			wait := func(n int) {
				t.Helper()
				timeout := time.After(20 * time.Second)
				for range n {
					select {
					case <-all:
					case <-timeout:
						mu.Lock()
						defer mu.Unlock()
						t.Fatalf("after 20 s %d accounts were told, of %d messages each: %v", len(sent), rounds+1, sent)
					}
				}
			}
			for i := range accounts {
				session := push.SessionID{Account: account(i), ID: "s"}
				services := []string{"push.example"}
				if i%4 == 0 {
					services = append(services, "broken.example")
				}
				for _, service := range services {
					if _, err := e.Handle(ctx, push.SessionOpen{Session: session}); err != nil {
						t.Fatal(err)
					}
					if _, err := e.Handle(ctx, push.PushEnable{Session: session, Key: push.Key{Service: service, Node: "n"}}); err != nil {
						t.Fatal(err)
					}
				}
				offline(i, 0) // so that they have worked
			}
			wait(accounts)
			time.Sleep(100 * time.Millisecond)

			mend := sync.OnceFunc(break_(t))
			defer mend()
			begin := time.Now()
			for j := range rounds {
				for i := range accounts {
					offline(i, j+1)
				}
				time.Sleep(30 * time.Millisecond) // so that they do not all merge
			}
			wait(accounts * rounds)
			took := time.Since(begin)
			if took > 3*time.Second {
				t.Errorf("%d messages took %v without the store", accounts*rounds, took)
			}
			// A client that enables meanwhile is not told that it did.
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			begin = time.Now()
			k := push.Key{Service: "push.example", Node: "late"}
			if _, err := e.Handle(short, push.PushEnable{Session: push.SessionID{Account: account(1), ID: "s"}, Key: k}); !errors.Is(err, push.ErrStore) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("an enable without the store was answered with %v", err)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("an enable without the store took %v", took)
			}
			mend()
			late, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if err := e.Close(late); err != nil {
				t.Error(err)
			}
			closed = true
			// The database says what the engine knew.
			check := d.open(t, &sqlstore.Options{CacheSize: -1})
			for i := range accounts {
				for _, r := range mustList(t, check, account(i)) {
					if r.Service == "push.example" && (r.Node == "n" && r.Health.Succeeded.IsZero() || r.Node == "late") {
						t.Errorf("account %d has %+v", i, r)
					}
					mu.Lock()
					if n := failed[r.Account]; r.Service == "broken.example" && (r.Health.Refusals != n || n < 2 || r.Health.Disabled.IsZero() != (n < 3)) {
						t.Errorf("account %d has %+v after %d refusals", i, r, n)
					}
					mu.Unlock()
				}
			}
			t.Logf("%d messages were published in %v, of which %v were waited for a next round", accounts*rounds, took, rounds*30*time.Millisecond)
		})
	}
}
