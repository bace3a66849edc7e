package sqlstore_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/internal/pgtest"
	"github.com/xmpp-push/push/store/sql/postgres"
)

const plainSecret = "xyzzy-the-plain-secret-plugh"

func secretRegistration(i int) push.Registration {
	r := registration(account(i), "n1", 0)
	r.Options[1].Values[0] = plainSecret
	return r
}

// findSecret returns in which files under dir the secret is, in its own form or as a dump has it.
func findSecret(t *testing.T, dir string) (found []string) {
	t.Helper()
	hexed := hex.EncodeToString([]byte(plainSecret))
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // PostgreSQL removes files as it likes
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		if bytes.Contains(data, []byte(plainSecret)) || bytes.Contains(data, []byte(hexed)) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// useSecrets does whatever writes options.
func useSecrets(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	for i := range 30 {
		r := secretRegistration(i)
		mustEnable(t, s, r, 5)
		mustEnable(t, s, r, 5)
		for _, u := range []push.Update{pushErrors(1), {Disabled: start, Cause: "gone"}, {Succeeded: start}} {
			if err := s.Update(ctx, r.Account, r.Key, u); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			mustRemove(t, s, r.Account, r.Key)
		}
	}
}

func TestSecretsAreNowhereInSQLite(t *testing.T) {
	d := newSQLite(t)
	db := d.handle(t)
	s, err := d.tryOpen(db, &sqlstore.Options{Keys: keyring("k1", "k1")})
	if err != nil {
		t.Fatal(err)
	}
	useSecrets(t, s)
	if found := findSecret(t, filepath.Dir(d.where)); len(found) > 0 {
		t.Errorf("the secret is in %v", found)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if found := findSecret(t, filepath.Dir(d.where)); len(found) > 0 {
		t.Errorf("closed, the secret is in %v", found)
	}

	// Without encryption it is found, and after Reseal it is not.
	plain, err := d.tryOpen(d.handle(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	mustEnable(t, plain, secretRegistration(100), 5)
	if found := findSecret(t, filepath.Dir(d.where)); len(found) == 0 {
		t.Fatal("this test does not find a secret that is there")
	}
	db = d.handle(t)
	if s, err = d.tryOpen(db, &sqlstore.Options{Keys: keyring("k1", "k1")}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Reseal(ctx); n != 1 || err != nil {
		t.Fatalf("Reseal: %d, %v", n, err)
	}
	if _, err := db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	if found := findSecret(t, filepath.Dir(d.where)); len(found) > 0 {
		t.Errorf("after Reseal the secret is in %v", found)
	}
}

func TestSecretsAreNowhereInPostgres(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t, false)
	d := database{sqlstore.Postgres, server.URL, "push_", postgres.Open, server}
	dump := func() {
		t.Helper()
		if _, err := d.handle(t).Exec("CHECKPOINT"); err != nil {
			t.Fatal(err)
		}
		out := server.Dump(t)
		if !strings.Contains(string(out), account(29)) {
			t.Fatal("the dump lacks the registrations")
		}
		if err := os.WriteFile(filepath.Join(server.Dir, "dump"), out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	useSecrets(t, d.open(t, &sqlstore.Options{Keys: keyring("k1", "k1")}))
	dump()
	if found := findSecret(t, server.Dir); len(found) > 0 {
		t.Errorf("the secret is in %v", found)
	}

	mustEnable(t, d.open(t, nil), secretRegistration(100), 5)
	dump()
	if found := findSecret(t, server.Dir); len(found) < 3 {
		t.Fatalf("the secret should be in the table, the write-ahead log and the dump, but this test finds it in %v", found)
	}
	s := d.open(t, &sqlstore.Options{Keys: keyring("k1", "k1")})
	if n, err := s.Reseal(ctx); n != 1 || err != nil {
		t.Fatalf("Reseal: %d, %v", n, err)
	}
	dump()
	for _, file := range findSecret(t, server.Dir) {
		if filepath.Base(file) == "dump" {
			t.Error("after Reseal the secret is in the dump")
		}
	}
}

func TestRotation(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		const n = 600 // several pages
		var corrupt []*sqlstore.CorruptError
		var mu sync.Mutex
		open := func(k sqlstore.Keyring) *sqlstore.Store {
			return d.fast().open(t, &sqlstore.Options{CacheSize: -1, Keys: k, Corrupt: func(e *sqlstore.CorruptError) {
				mu.Lock()
				defer mu.Unlock()
				corrupt = append(corrupt, e)
			}})
		}
		plain := open(sqlstore.Keyring{})
		for i := range n {
			r := registration(account(i), "n1", 0)
			if i%10 == 0 {
				r.Options = nil // there is nothing to hide
			}
			mustEnable(t, plain, r, 5)
		}
		old := open(keyring("k1", "k1"))
		if got, err := old.Reseal(ctx); got != n-n/10 || err != nil {
			t.Fatalf("from plain: %d resealed, %v", got, err)
		}
		commits := old.Stats().Commits
		if got, err := old.Reseal(ctx); got != 0 || err != nil || old.Stats().Commits != commits {
			t.Fatalf("again: %d resealed, %v, in %d transactions", got, err, old.Stats().Commits-commits)
		}

		// Live: a node that has the new key, but not yet as its current one, goes on enabling.
		writer, resealer := open(keyring("k1", "k1", "k2")), open(keyring("k2", "k1", "k2"))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := n - 1; ; i = (i + n - 1) % n {
				select {
				case <-stop:
					return
				default:
				}
				r := registration(account(i), "n1", time.Hour)
				r.Client = "written meanwhile"
				if _, err := writer.Enable(ctx, r, 5); err != nil {
					t.Error(err)
				}
			}
		})
		if _, err := resealer.Reseal(ctx); err != nil {
			t.Error(err)
		}
		close(stop)
		wg.Wait()
		if _, err := resealer.Reseal(ctx); err != nil {
			t.Error(err)
		}
		last := open(keyring("k2", "k2"))
		seen := 0
		for i := range n {
			rs := mustList(t, last, account(i))
			if len(rs) != 1 {
				continue
			}
			r := rs[0]
			if r.Options != nil && r.Options[1].Values[0] != "3f2a9c0d7be14e55" {
				t.Fatalf("%+v", r)
			}
			if r.Client == "written meanwhile" && !r.Enabled.Equal(start.Add(time.Hour)) {
				t.Fatalf("half of an enable: %+v", r)
			}
			seen++
		}
		if seen != n || len(corrupt) != 0 {
			t.Errorf("%d of %d registrations are readable with the new key alone; reported: %v", seen, n, corrupt)
		}

		// A key too few: reported with its ID, left as it is.
		lost := open(keyring("k3", "k3"))
		if rs := mustList(t, lost, account(1)); len(rs) != 0 {
			t.Errorf("read without the key: %+v", rs)
		}
		if len(corrupt) != 1 || !errors.Is(corrupt[0], sqlstore.ErrKey) || !strings.Contains(corrupt[0].Error(), "k2") {
			t.Errorf("reported: %v", corrupt)
		}
		corrupt = nil
		if got, err := lost.Reseal(ctx); got != 0 || !errors.Is(err, sqlstore.ErrCorrupt) || len(corrupt) < n-n/10 || !strings.Contains(err.Error(), fmt.Sprint(": ", len(corrupt), " of them")) {
			t.Errorf("Reseal without the key: %d, %v, reported %d", got, err, len(corrupt))
		}
		// And back to plain.
		if _, err := open(keyring("", "k2")).Reseal(ctx); err != nil {
			t.Error(err)
		}
		if rs := mustList(t, open(sqlstore.Keyring{}), account(1)); len(rs) != 1 {
			t.Errorf("plain again: %+v", rs)
		}
	})
}

// TestSealIsBoundToEachName moves what is sealed to keys that read the same if one does not see where a name ends.
func TestSealIsBoundToEachName(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		var corrupt []error
		s := d.open(t, &sqlstore.Options{CacheSize: -1, Keys: keyring("k1", "k1"), Corrupt: func(e *sqlstore.CorruptError) { corrupt = append(corrupt, e) }})
		keys := []push.Key{{Service: "s x", Node: "y"}, {Service: "s", Node: "x y"}, {Service: "s 1", Node: "x y"}, {Service: "", Node: "s x y"}, {Service: "s x y"}}
		for _, k := range keys {
			r := registration(account(0), "", 0)
			r.Key = k
			mustEnable(t, s, r, 0)
		}
		db := d.handle(t)
		for _, from := range keys {
			q := fmt.Sprintf("UPDATE %[1]s SET options = (SELECT options FROM %[1]s WHERE service = $1 AND node = $2)", d.table())
			if _, err := db.Exec(q, from.Service, from.Node); err != nil {
				t.Fatal(err)
			}
			corrupt = nil
			if rs := mustList(t, s, account(0)); len(rs) > 1 || len(corrupt) < len(keys)-1 {
				t.Errorf("what was sealed for %v was accepted for %+v", from, rs)
			}
			for _, k := range keys { // for the next
				r := registration(account(0), "", 0)
				r.Key, r.Client = k, fmt.Sprint(from)
				mustEnable(t, s, r, 0)
			}
		}
	})
}

func TestSealedRowsCannotBeMoved(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		var corrupt []error
		s := d.open(t, &sqlstore.Options{CacheSize: -1, Keys: keyring("k1", "k1"), Corrupt: func(e *sqlstore.CorruptError) { corrupt = append(corrupt, e) }})
		for i := range 2 {
			mustEnable(t, s, registration(account(i), "n1", 0), 5)
		}
		q := fmt.Sprintf("UPDATE %[1]s SET options = (SELECT options FROM %[1]s WHERE account = $1) WHERE account = $2", d.table())
		if _, err := d.handle(t).Exec(q, account(0), account(1)); err != nil {
			t.Fatal(err)
		}
		if rs := mustList(t, s, account(1)); len(rs) != 0 || len(corrupt) != 1 {
			t.Errorf("another account's options were accepted: %+v, reported %v", rs, corrupt)
		}
	})
}
