package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
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

// newServer returns a database in a server that the test may stop.
func newServer(t *testing.T) database {
	s := pgtest.New(t, true)
	return database{sqlstore.Postgres, s.URL, "push_", postgres.Open, s}
}

func TestServerStopAndStart(t *testing.T) {
	t.Parallel()
	d := newServer(t)
	s := d.open(t, nil)
	kept := registration(account(0), "n1", 0)
	mustEnable(t, s, kept, 5)
	mustList(t, s, kept.Account)

	for name, down := range map[string]func(){"stop": d.serverOrNil.Stop, "crash": d.serverOrNil.Crash} {
		down()
		begin := time.Now()
		if _, err := s.Enable(ctx, registration(account(0), "n2", 0), 5); err == nil {
			t.Errorf("%s: Enable succeeded without a server", name)
		}
		if _, err := s.List(ctx, account(1)); err == nil {
			t.Errorf("%s: List succeeded without a server", name)
		}
		if err := s.Update(ctx, kept.Account, kept.Key, pushErrors(1)); err == nil || errors.Is(err, push.ErrNotRegistered) {
			t.Errorf("%s: Update returned %v without a server", name, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: three failures took %v", name, took)
		}
		d.serverOrNil.Start(t)
		// The same Store goes on, at once.
		if rs := mustList(t, s, kept.Account); len(rs) != 1 || rs[0].Health.Errors != 0 {
			t.Errorf("%s: after it %+v", name, rs)
		}
		mustEnable(t, s, registration(account(1), name, 0), 5)
	}
}

func TestCacheAnswersWithoutServer(t *testing.T) {
	t.Parallel()
	d := newServer(t)
	s := d.open(t, nil)
	mustEnable(t, s, registration(account(0), "n1", 0), 5)
	mustList(t, s, account(0))
	mustList(t, s, account(1))
	d.serverOrNil.Stop()
	if n := len(mustList(t, s, account(0))); n != 1 {
		t.Errorf("%d registrations from the cache, want 1", n)
	}
	if n := len(mustList(t, s, account(1))); n != 0 {
		t.Errorf("%d registrations from the cache, want 0", n)
	}
}

// TestServerCrash ends the server while enables are under way: each that was answered is there after.
func TestServerCrash(t *testing.T) {
	t.Parallel()
	d := newServer(t)
	s := d.open(t, &sqlstore.Options{CacheSize: -1})
	var answered sync.Map
	for round := range 3 {
		crash := make(chan struct{})
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					r := registration(account(g), fmt.Sprint(round, "-", i), 0)
					if _, err := s.Enable(ctx, r, 0); err != nil {
						return
					}
					answered.Store(r.Account+r.Node, true)
					if g == 0 && i == 20 {
						close(crash)
					}
				}
			})
		}
		<-crash
		d.serverOrNil.Crash()
		wg.Wait()
		d.serverOrNil.Start(t)
	}
	n := 0
	for g := range 4 {
		for _, r := range mustList(t, s, account(g)) {
			answered.Delete(r.Account + r.Node)
			n++
		}
	}
	answered.Range(func(k, _ any) bool {
		t.Errorf("%v was answered and is not there", k)
		return true
	})
	t.Logf("%d enables survived", n)
}

func TestReadOnly(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		d := newSQLite(t)
		testReadOnly(t, d, func(file string) (*sql.DB, error) {
			return sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?mode=ro")
		})
	})
	t.Run("postgres", func(t *testing.T) {
		d := newPostgres(t)
		testReadOnly(t, d, func(url string) (*sql.DB, error) { return postgres.Open(url + "&default_transaction_read_only=on") })
	})
}

func testReadOnly(t *testing.T, d database, openReadOnly func(string) (*sql.DB, error)) {
	kept := registration(account(0), "n1", 0)
	mustEnable(t, d.open(t, nil), kept, 5)
	db, err := openReadOnly(d.where)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := d.tryOpen(db, nil)
	if err != nil {
		t.Fatalf("a database that is up to date needs no writing to be opened: %v", err)
	}
	if _, err := s.Enable(ctx, registration(account(0), "n2", 0), 5); err == nil || !strings.Contains(strings.ToLower(err.Error()), "read") {
		t.Errorf("Enable returned %v", err)
	}
	if err := s.Update(ctx, kept.Account, kept.Key, pushErrors(1)); err == nil || errors.Is(err, push.ErrNotRegistered) {
		t.Errorf("Update returned %v", err)
	}
	if rs := mustList(t, s, account(0)); len(rs) != 1 || rs[0].Health.Errors != 0 {
		t.Errorf("after the errors there is %+v", rs)
	}
}

func TestFullDisk(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		d := newSQLite(t)
		db := d.handle(t)
		db.SetMaxOpenConns(1) // the pragma is the connection's
		s, err := d.tryOpen(db, nil)
		if err != nil {
			t.Fatal(err)
		}
		pages := func(n int) {
			if _, err := db.Exec(fmt.Sprint("PRAGMA max_page_count = ", n)); err != nil {
				t.Fatal(err)
			}
		}
		pages(30)
		testFull(t, s, func() { pages(1 << 30) })
	})
	t.Run("disk", func(t *testing.T) {
		d := newSQLite(t)
		dir := t.TempDir()
		if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", dir).Run(); err != nil {
			t.Skip("it takes root to mount a small disk; the subtest file is much the same without one")
		}
		t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
		d.where = dir + "/push.db"
		s := d.open(t, nil)
		testFull(t, s, func() {
			if err := exec.Command("mount", "-o", "remount,size=8m", dir).Run(); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("postgres", func(t *testing.T) {
		d := newServer(t)
		dir := t.TempDir()
		for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) { // the server's own user has to come by
			_ = os.Chmod(p, 0o755)
		}
		if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).Run(); err != nil {
			t.Skip("it takes root to mount a small disk")
		}
		t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
		t.Cleanup(d.serverOrNil.Stop)
		if out, err := exec.Command("chown", "postgres:", dir).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		if _, err := d.handle(t).Exec("CREATE TABLESPACE small LOCATION '" + dir + "'"); err != nil {
			t.Fatal(err)
		}
		d.where += "&default_tablespace=small"
		testFull(t, d.open(t, nil), func() {
			if err := exec.Command("mount", "-o", "remount,size=64m", dir).Run(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func testFull(t *testing.T, s *sqlstore.Store, makeRoom func()) {
	var err error
	n := 0
	for ; err == nil && n < 10_000; n++ {
		_, err = s.Enable(ctx, registration(account(n%10), fmt.Sprint(n), time.Duration(n)), 0)
	}
	if err == nil || !strings.Contains(err.Error(), "full") && !strings.Contains(err.Error(), "No space left") {
		t.Fatalf("after %d enables: %v", n, err)
	}
	n-- // the last failed
	if n == 0 {
		t.Fatal("not one enable fitted")
	}
	count := func() (have int) {
		for i := range 10 {
			have += len(mustList(t, s, account(i)))
		}
		return have
	}
	if have := count(); have != n {
		t.Errorf("%d registrations are there, %d were answered", have, n)
	}
	makeRoom()
	mustEnable(t, s, registration(account(n%10), fmt.Sprint(n), 0), 0)
	if have := count(); have != n+1 {
		t.Errorf("with room again: %d registrations, want %d", have, n+1)
	}
}

func TestCorruptRow(t *testing.T) {
	for name, o := range map[string]sqlstore.Options{"plain": {}, "encrypted": {Keys: keyring("k1", "k1")}} {
		t.Run(name, func(t *testing.T) {
			backends(t, func(t *testing.T, d database) {
				var told []*sqlstore.CorruptError
				o.Corrupt = func(e *sqlstore.CorruptError) { told = append(told, e) }
				s := d.open(t, &o)
				for i := range 3 {
					mustEnable(t, s, registration(account(0), fmt.Sprint("n", i), time.Duration(i)), 5)
				}
				db := d.handle(t)
				for _, data := range []string{"", "[", "{}", "null", `[{"var":1}]`, "[] []", "\x00\xff",
					`[{"var":"secret","values":["` + plainSecret + `"]}`} {
					if _, err := db.Exec("UPDATE "+d.table()+" SET options = $1 WHERE node = 'n1'", []byte(data)); err != nil {
						t.Fatal(err)
					}
					s.ForgetAll()
					told = nil
					rs := mustList(t, s, account(0))
					if len(rs) != 2 || rs[0].Node != "n0" || rs[1].Node != "n2" {
						t.Errorf("options %q: the account's other registrations are %+v", data, rs)
					}
					if len(told) != 1 {
						t.Fatalf("options %q: reported %v", data, told)
					}
					if told[0].Account != account(0) || told[0].Node != "n1" || !errors.Is(told[0], sqlstore.ErrCorrupt) {
						t.Errorf("options %q: reported %v", data, told)
					}
					if strings.Contains(told[0].Error(), plainSecret) {
						t.Errorf("the report has the secret: %v", told[0])
					}
				}
				// Its other uses go on, and a new enable mends it.
				if err := s.Update(ctx, account(0), registration("", "n1", 0).Key, pushErrors(1)); err != nil {
					t.Error(err)
				}
				mustEnable(t, s, registration(account(0), "n1", time.Second), 5)
				told = nil
				if rs := mustList(t, s, account(0)); len(rs) != 3 || len(told) != 0 {
					t.Errorf("after a new enable: %+v, reported %v", rs, told)
				}
			})
		})
	}
}

// TestEndOfContext has calls wait for a lock that another transaction holds.
func TestEndOfContext(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		kept := registration(account(0), "n1", 0)
		mustEnable(t, s, kept, 5)
		tx, err := d.handle(t).Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.Exec("UPDATE " + d.table() + " SET errors = 7"); err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func(ctx context.Context) error{
			"Enable": func(ctx context.Context) error {
				_, err := s.Enable(ctx, registration(account(0), "n1", 48*time.Hour), 5)
				return err
			},
			"Remove": func(ctx context.Context) error { _, err := s.Remove(ctx, kept.Account, kept.Key); return err },
			"Update": func(ctx context.Context) error { return s.Update(ctx, kept.Account, kept.Key, pushErrors(1)) },
		} {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			begin := time.Now()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want the context's error", name, err)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("%s took %v", name, took)
			}
			cancel()
		}
		// Its turn comes when the other is done.
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Update(ctx, kept.Account, kept.Key, pushErrors(1)); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(300 * time.Millisecond) // longer than SQLite itself waits
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if rs := mustList(t, s, account(0)); rs[0].Health.Errors != 8 {
			t.Errorf("%d errors, want 8", rs[0].Health.Errors)
		}
	})
}

func TestSQLiteFileIsPrivate(t *testing.T) {
	d := newSQLite(t)
	mustEnable(t, d.open(t, nil), registration(account(0), "n1", 0), 5)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(d.where + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others may read the file%s: %v", suffix, info.Mode())
		}
	}
}

// TestSQLiteSettings asks for what no test can do here: switch the power off.
func TestSQLiteSettings(t *testing.T) {
	db := newSQLite(t).handle(t)
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "secure_delete": "1"} {
		for range 2 { // connections
			conn, err := db.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			if err := conn.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %s, %v, want %s", pragma, got, err, want)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestPooler has the settings for a pooler that hands out connections for one transaction each: no call leaves anything on its connection that the next one
// relies on, or that somebody else would find there.
func TestPooler(t *testing.T) {
	for _, mode := range []string{"cache_statement", "exec"} {
		t.Run(mode, func(t *testing.T) {
			d := newPostgres(t)
			d.where += "&default_query_exec_mode=" + mode
			if !strings.Contains(d.where, "?") {
				d.where = strings.Replace(d.where, "&", "?", 1)
			}
			db := d.handle(t)
			db.SetMaxOpenConns(1)
			s, err := sqlstore.Open(ctx, db, d.dialect, &sqlstore.Options{Prefix: d.prefix, CacheSize: -1, Keys: keyring("k1", "k1")})
			if err != nil {
				t.Fatal(err)
			}
			a := account(0)
			for i := range 3 {
				mustEnable(t, s, registration(a, fmt.Sprint("n", i), 0), 2)
			}
			mustList(t, s, a)
			errs := []error{s.Update(ctx, a, registration(a, "n2", 0).Key, push.Update{Errors: 1}), s.Keep(ctx, a, []byte("state"))}
			for _, err := range s.Kept(ctx) {
				errs = append(errs, err)
			}
			for _, err := range s.All(ctx, sqlstore.Filter{}) {
				errs = append(errs, err)
			}
			_, err = s.Count(ctx)
			errs = append(errs, err)
			_, err = s.Reseal(ctx)
			errs = append(errs, err)
			mustRemove(t, s, a, push.Key{})
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			var prepared, locks int
			var timeout string
			row := db.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), current_setting('lock_timeout')")
			if err := row.Scan(&prepared, &locks, &timeout); err != nil {
				t.Fatal(err)
			}
			if (prepared > 1) != (mode == "cache_statement") { // the one that asks is one
				t.Errorf("%d statements are prepared", prepared)
			}
			if locks != 0 || timeout != "0" {
				t.Errorf("%d locks are left, and lock_timeout %s", locks, timeout)
			}
		})
	}
	t.Run("is named", func(t *testing.T) {
		d := newPostgres(t)
		db := d.handle(t)
		db.SetMaxOpenConns(1)
		if _, err := sqlstore.Open(ctx, db, d.dialect, &sqlstore.Options{Prefix: d.prefix}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(ctx, "DEALLOCATE ALL"); err != nil { // as on another connection than before
			t.Fatal(err)
		}
		if _, err := sqlstore.Open(ctx, db, d.dialect, &sqlstore.Options{Prefix: d.prefix}); err == nil || !strings.Contains(err.Error(), "default_query_exec_mode=exec") {
			t.Errorf("%v", err)
		}
	})
}
