package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
)

// lock has another process change everything until release is called.
func (d database) lock(t *testing.T) (release func()) {
	t.Helper()
	tx, err := d.handle(t).Begin()
	if err != nil {
		t.Fatal(err)
	}
	statement := "LOCK TABLE " + d.table() + " IN EXCLUSIVE MODE" // others may read
	if d.dialect == sqlstore.SQLite {
		statement = "UPDATE " + d.table() + " SET errors = errors"
	}
	if _, err := tx.Exec(statement); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	release = func() { once.Do(func() { _ = tx.Rollback() }) }
	t.Cleanup(release)
	return release
}

// behind calls f(0) to f(n-1) at once while the database is locked, and then lets them go.
func (d database) behind(t *testing.T, n int, f func(i int)) {
	t.Helper()
	release := d.lock(t)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	time.Sleep(200 * time.Millisecond)
	release()
	wg.Wait()
}

func TestChangesAreCommittedTogether(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		const n = 400
		for i := range n {
			if i%2 == 0 {
				mustEnable(t, s, registration(account(i), "n1", 0), 5)
			}
		}
		before := s.Stats()
		d.behind(t, n, func(i int) {
			var err error
			switch i % 4 {
			case 0:
				err = s.Update(ctx, account(i), registration("", "n1", 0).Key, pushErrors(i))
			case 2:
				_, err = s.Remove(ctx, account(i), push.Key{})
			default:
				_, err = s.Enable(ctx, registration(account(i), "n1", 0), 5)
			}
			if err != nil {
				t.Error(i, err)
			}
		})
		for i := range n {
			rs := mustList(t, s, account(i))
			switch {
			case i%4 == 2 && len(rs) != 0, i%4 != 2 && len(rs) != 1, i%4 == 0 && rs[0].Health.Errors != i:
				t.Errorf("account %d has %+v", i, rs)
			}
		}
		after := s.Stats()
		if writes, commits := after.Writes-before.Writes, after.Commits-before.Commits; writes != n || commits > n/10 {
			t.Errorf("%d changes in %d transactions", writes, commits)
		}
	})
}

// poison makes the database refuse registrations with the node "poison".
func (d database) poison(t *testing.T) {
	t.Helper()
	db := d.handle(t)
	statements := []string{"CREATE TRIGGER poison BEFORE INSERT ON " + d.table() + " WHEN NEW.node = 'poison' BEGIN SELECT RAISE(ABORT, 'poisoned'); END"}
	if d.dialect == sqlstore.Postgres {
		statements = []string{
			"CREATE FUNCTION " + d.prefix + "poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.node = 'poison' THEN RAISE 'poisoned'; END IF; RETURN NEW; END $$",
			"CREATE TRIGGER poison BEFORE INSERT ON " + d.table() + " FOR EACH ROW EXECUTE FUNCTION " + d.prefix + "poison()",
		}
	}
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneThatFailsTakesNoOtherWithIt(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		d.poison(t)
		const n = 100
		before := s.Stats()
		d.behind(t, n, func(i int) {
			node := "n1"
			if i%10 == 3 {
				node = "poison"
			}
			_, err := s.Enable(ctx, registration(account(i), node, 0), 5)
			if i%10 == 3 {
				if err == nil || !strings.Contains(err.Error(), "poisoned") {
					t.Errorf("enable %d: got %v, want the trigger's error", i, err)
				}
			} else if err != nil {
				t.Errorf("enable %d: %v", i, err)
			}
		})
		for i := range n {
			if rs := mustList(t, s, account(i)); len(rs) == 1 != (i%10 != 3) {
				t.Errorf("account %d has %+v", i, rs)
			}
		}
		after := s.Stats()
		if writes, commits := after.Writes-before.Writes, after.Commits-before.Commits; writes != n*9/10 || commits > n/2 { // PostgreSQL's are divided among several connections
			t.Errorf("%d changes in %d transactions", writes, commits)
		}
	})
}

// TestWhoLeavesLeavesNothing has callers give up before their change could begin: it is not made later.
func TestWhoLeavesLeavesNothing(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		release := d.lock(t)
		const n = 300
		var wg sync.WaitGroup
		for i := range n {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(1+i)*time.Millisecond)
			defer cancel()
			wg.Go(func() {
				begin := time.Now()
				_, err := s.Enable(ctx, registration(account(i), "n1", 0), 5)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("enable %d: got %v, want the context's error", i, err)
				}
				if took := time.Since(begin); took > 3*time.Second {
					t.Errorf("enable %d took %v", i, took)
				}
			})
		}
		wg.Wait()
		release()
		mustEnable(t, s, registration(account(n), "n1", 0), 5)
		for i := range n {
			if rs := mustList(t, s, account(i)); len(rs) != 0 {
				t.Errorf("account %d has %+v, and its caller was told of an error", i, rs)
			}
		}
		if writes := s.Stats().Writes; writes != 1 {
			t.Errorf("%d changes were written, want 1", writes)
		}
	})
}

// TestLockElsewhere has another transaction hold one account's row: on PostgreSQL that is no reason for others to wait.
func TestLockElsewhere(t *testing.T) {
	d := newPostgres(t)
	s := d.open(t, nil)
	for i := range 2 {
		mustEnable(t, s, registration(account(i), "n1", 0), 5)
	}
	tx, err := d.handle(t).Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec("UPDATE "+d.table()+" SET errors = 7 WHERE account = $1", account(0)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 50 { // more than there are connections
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		wg.Go(func() { _ = s.Update(ctx, account(0), registration("", "n1", 0).Key, pushErrors(1)) })
	}
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	for range 10 {
		if err := s.Update(ctx, account(1), registration("", "n1", 0).Key, pushErrors(1)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("10 changes of another account took %v", took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if rs := mustList(t, s, account(0)); rs[0].Health.Errors != 50 {
		t.Errorf("%d errors were counted, want 50", rs[0].Health.Errors)
	}
}

// written tells how often the table was written to, in numbers that only can be compared.
func (d database) written(t *testing.T, db *sql.DB) (version string) {
	t.Helper()
	query := "PRAGMA data_version"
	if d.dialect == sqlstore.Postgres {
		query = "SELECT coalesce(string_agg(ctid::text || ' ' || xmin::text, ',' ORDER BY account), '') FROM " + d.table()
	}
	if err := db.QueryRow(query).Scan(&version); err != nil {
		t.Fatal(err)
	}
	return version
}

// TestUnchangedEnables has a crowd come back at once: every client enables what it had enabled.
func TestUnchangedEnables(t *testing.T) {
	backends(t, func(t *testing.T, plain database) {
		d := plain.fast()
		n, rounds := 1000, 10
		switch {
		case os.Getenv("PUSH_TEST_FULL") != "":
			rounds = 100 // 100,000
		case testing.Short():
			n, rounds = 100, 3
		}
		for name, o := range map[string]*sqlstore.Options{"plain": {}, "sealed": {Keys: keyring("k1", "k1")}} {
			s := d.open(t, o)
			for i := range n {
				mustRemove(t, s, account(i), push.Key{})
			}
			each := func(after time.Duration) {
				var wg sync.WaitGroup
				for g := range 8 {
					wg.Go(func() {
						for i := g; i < n; i += 8 {
							if before, err := s.Enable(ctx, registration(account(i), name, after), 5); err != nil || after > 0 && len(before) != 1 {
								t.Error(before, err)
							}
						}
					})
				}
				wg.Wait()
			}
			each(0)
			db := plain.handle(t)
			db.SetMaxOpenConns(1) // the version is what one connection sees
			version, stats, begin := d.written(t, db), s.Stats(), time.Now()
			for i := range rounds {
				each(push.RenewAfter * time.Duration(i+1) / time.Duration(rounds+1))
			}
			took := time.Since(begin)
			if after := s.Stats(); after.Writes != stats.Writes || after.Unchanged != stats.Unchanged+uint64(n*rounds) {
				t.Errorf("%s: %d enables of what was enabled already: %+v, before %+v", name, n*rounds, after, stats)
			}
			if d.written(t, db) != version {
				t.Errorf("%s: something was written to the database", name)
			}
			t.Logf("%s: %d unchanged enables, %.0f a second, no write", name, n*rounds, float64(n*rounds)/took.Seconds())
			each(push.RenewAfter)
			if d.written(t, db) == version {
				t.Errorf("%s: nothing was written after a day, so this test cannot tell", name)
			}
		}
	})
}

// TestRemoveWithoutTheKey has a process that lacks a key, and cached what there was before another process added more: what it removes stays removed.
func TestRemoveWithoutTheKey(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		for name, c := range map[string]struct {
			key  push.Key
			left int
		}{
			"service": {push.Key{Service: "push.example.net"}, 1},
			"account": {push.Key{}, 0},
		} {
			var told []error
			lacking := d.open(t, &sqlstore.Options{CacheFor: -1, Keys: keyring("k1", "k1"), Corrupt: func(e *sqlstore.CorruptError) { told = append(told, e) }})
			other := d.open(t, &sqlstore.Options{Keys: keyring("k2", "k1", "k2")})
			juliet := name + "@example.com"
			mustEnable(t, lacking, registration(juliet, "mine", 0), 5)
			mustList(t, lacking, juliet)
			mustEnable(t, other, registration(juliet, "sealed with a key that is not here", 0), 5)
			elsewhere := registration(juliet, "sealed with a key that is not here", 0)
			elsewhere.Service = "other.example"
			mustEnable(t, other, elsewhere, 5)
			if removed := mustRemove(t, lacking, juliet, c.key); len(removed) != 3-c.left {
				t.Errorf("%s: removed %v", name, removed)
			}
			if rs := mustList(t, other, juliet); len(rs) != c.left {
				t.Errorf("%s: %+v is left", name, rs)
			}
			lacking.ForgetAll()
			if rs := mustList(t, lacking, juliet); len(rs) != 0 {
				t.Errorf("%s: %+v is left", name, rs)
			}
			if len(told) != c.left || c.left > 0 && !errors.Is(told[0], sqlstore.ErrKey) {
				t.Errorf("%s: reported as unreadable: %v", name, told)
			}
			if removed := mustRemove(t, lacking, juliet, push.Key{Service: "other.example", Node: elsewhere.Node}); len(removed) != c.left {
				t.Errorf("%s: removed one by its key: %v", name, removed)
			}
		}
	})
}

func TestEnableAtTheLimitOfAnotherProcess(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		a, b := d.open(t, nil), d.open(t, nil)
		for i := range 3 {
			mustEnable(t, a, registration(account(0), fmt.Sprint("n", i), time.Duration(i)*time.Hour), 5)
		}
		mustList(t, b, account(0))
		mustEnable(t, a, registration(account(0), "n3", 3*time.Hour), 5)
		// Nothing new, but that there are too many.
		before := mustEnable(t, b, registration(account(0), "n3", 3*time.Hour), 2)
		if len(before) != 4 {
			t.Errorf("before it there were %+v", before)
		}
		if got := stored(t, b, account(0)); fmt.Sprint(got) != "[n2 n3]" {
			t.Errorf("left are %v", got)
		}
	})
}
