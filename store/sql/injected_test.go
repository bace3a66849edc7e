package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/wishes"
)

// injector is a driver.Connector whose connections fail at one step of what is done with them: to connect, begin, prepare, run, read a row, commit.
type injector struct {
	driver.Connector
	mu    sync.Mutex
	n, at int // steps, and the one that fails; 0: none
	err   error
	// spoils has a row at that step be one that cannot be scanned, rather than fail.
	spoils bool
	last   string // what failed
}

// arm makes the step that comes after so many others fail, once.
func (in *injector) arm(at int, err error, spoils bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.n, in.at, in.err, in.spoils, in.last = 0, at, err, spoils, ""
}

// done disarms it, and returns which step failed, or "".
func (in *injector) done() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.at = 0
	return in.last
}

func (in *injector) step(what string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.spoils {
		return nil
	}
	if in.n++; in.n != in.at {
		return nil
	}
	in.last = what
	return in.err
}

// row is the step of reading a row.
func (in *injector) row(dest []driver.Value) error {
	if err := in.step("row"); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.spoils {
		if in.n++; in.n == in.at {
			in.last = "scan"
			for i := range dest {
				dest[i] = struct{}{} // what no driver returns
			}
		}
	}
	return nil
}

func (in *injector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := in.step("connect"); err != nil {
		return nil, err
	}
	c, err := in.Connector.Connect(ctx)
	return &injectedConn{c, in}, err
}

type injectedConn struct {
	driver.Conn
	in *injector
}

func (c *injectedConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if err := c.in.step("begin"); err != nil {
		return nil, err
	}
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
	return &injectedTx{tx, c.in}, err
}

func (c *injectedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.in.step("prepare"); err != nil {
		return nil, err
	}
	s, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	return &injectedStmt{s, c.in}, err
}

func (c *injectedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.in.step("query"); err != nil {
		return nil, err
	}
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
	return wrapRows(rows, err, c.in)
}

func (c *injectedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.in.step("exec"); err != nil {
		return nil, err
	}
	result, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	return wrapResult(result, err, c.in)
}

type injectedStmt struct {
	driver.Stmt
	in *injector
}

func (s *injectedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.in.step("query"); err != nil {
		return nil, err
	}
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	return wrapRows(rows, err, s.in)
}

func (s *injectedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.in.step("exec"); err != nil {
		return nil, err
	}
	result, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	return wrapResult(result, err, s.in)
}

type injectedResult struct {
	driver.Result
	in *injector
}

func wrapResult(result driver.Result, err error, in *injector) (driver.Result, error) {
	if err != nil {
		return nil, err
	}
	return injectedResult{result, in}, nil
}

func (r injectedResult) RowsAffected() (int64, error) {
	if err := r.in.step("rows affected"); err != nil {
		return 0, err
	}
	return r.Result.RowsAffected()
}

type injectedTx struct {
	driver.Tx
	in *injector
}

func (t *injectedTx) Commit() error {
	if err := t.in.step("commit"); err != nil {
		_ = t.Tx.Rollback()
		return err
	}
	return t.Tx.Commit()
}

type injectedRows struct {
	driver.Rows
	in *injector
	n  int
}

func wrapRows(rows driver.Rows, err error, in *injector) (driver.Rows, error) {
	if err != nil {
		return nil, err
	}
	return &injectedRows{rows, in, 0}, nil
}

func (r *injectedRows) Next(dest []driver.Value) error {
	if err := r.Rows.Next(dest); err != nil {
		return err
	}
	if r.n++; r.n > 2 {
		return nil // as the second
	}
	return r.in.row(dest)
}

func openPlain(t *testing.T, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

var errInjected = errors.New("injected")

// stride says how many of many steps that are alike are tried: few, or with PUSH_TEST_FULL=1 most.
var stride = map[bool]int{false: 4, true: 12}[os.Getenv("PUSH_TEST_FULL") == "1"]

// storeCalls are calls that are made on a database that prepare has filled. Each returns how many rows it says that it has changed or read, or -1.
var storeCalls = map[string]func(s *sqlstore.Store) (int, error){
	"List": func(s *sqlstore.Store) (int, error) { rs, err := s.List(ctx, account(0)); return len(rs), err },
	"Enable one more": func(s *sqlstore.Store) (int, error) {
		_, err := s.Enable(ctx, registration(account(0), "new", time.Hour), 9)
		return -1, err
	},
	"Enable another": func(s *sqlstore.Store) (int, error) {
		r := registration(account(0), "n1", time.Hour)
		r.Wishes = &wishes.Wishes{Name: "phone"}
		_, err := s.Enable(ctx, r, 2)
		return -1, err
	},
	"Enable the same": func(s *sqlstore.Store) (int, error) {
		before, err := s.Enable(ctx, registration(account(0), "n2", 2*time.Minute), 0)
		return len(before), err
	},
	"Update errors": func(s *sqlstore.Store) (int, error) {
		return -1, s.Update(ctx, account(0), registration("", "n1", 0).Key, pushErrors(2))
	},
	"Update unknown": func(s *sqlstore.Store) (int, error) {
		err := s.Update(ctx, account(0), registration("", "unknown", 0).Key, pushErrors(2))
		if errors.Is(err, push.ErrNotRegistered) {
			err = nil
		}
		return -1, err
	},
	"Remove one": func(s *sqlstore.Store) (int, error) {
		ks, err := s.Remove(ctx, account(0), registration("", "n1", 0).Key)
		return len(ks), err
	},
	"Remove service": func(s *sqlstore.Store) (int, error) {
		ks, err := s.Remove(ctx, account(0), push.Key{Service: "push.example.net"})
		return len(ks), err
	},
	"Remove account": func(s *sqlstore.Store) (int, error) {
		ks, err := s.Remove(ctx, account(0), push.Key{})
		return len(ks), err
	},
	"Keep":         func(s *sqlstore.Store) (int, error) { return -1, s.Keep(ctx, account(0), []byte("new")) },
	"Keep nothing": func(s *sqlstore.Store) (int, error) { return -1, s.Keep(ctx, account(0), nil) },
	"Kept": func(s *sqlstore.Store) (n int, err error) {
		for k, err := range s.Kept(ctx) {
			if err != nil {
				return n, err
			}
			if len(k.State) > 0 {
				n++
			}
		}
		return n, nil
	},
	"All": func(s *sqlstore.Store) (n int, err error) {
		for _, err := range s.All(ctx, sqlstore.Filter{}) {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	},
	"Count": func(s *sqlstore.Store) (int, error) {
		c, err := s.Count(ctx)
		return c.Enabled + c.Untried + c.Failing + c.Disabled, err
	},
	"Purge":  func(s *sqlstore.Store) (int, error) { return s.Purge(ctx, sqlstore.Filter{Disabled: true}) },
	"Reseal": func(s *sqlstore.Store) (int, error) { return s.Reseal(ctx) },
}

// prepare fills a database: a few registrations of one account, many of others, and what is kept.
func prepareInjected(t *testing.T, d database) {
	t.Helper()
	s := d.open(t, nil)
	for i := range 3 {
		mustEnable(t, s, registration(account(0), fmt.Sprint("n", i), time.Duration(i)*time.Minute), 0)
	}
	db := d.handle(t)
	fill := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) INSERT INTO " + d.table() +
		" (account, service, node, options, key_id, client, enabled, errors, refusals, succeeded, disabled, cause)" +
		" SELECT 'x' || i, 's', 'n', CASE i % 60 WHEN 0 THEN CAST('[]' AS BLOB) END, '', '', i, 0, 0, 0, i % 3, '' FROM n"
	if _, err := db.Exec(fill); err != nil {
		t.Fatal(err)
	}
	for i := range 66 {
		mustKeep(t, s, account(i), "old")
	}
}

// dump is everything in a database but what sealing makes different each time.
func (d database) dump(t *testing.T, db *sql.DB) (registrations, kept map[string]string) {
	t.Helper()
	registrations, kept = map[string]string{}, map[string]string{}
	for into, q := range map[*map[string]string]string{
		&registrations: "SELECT account || '|' || service || '|' || node, key_id || client || enabled || '|' || errors || '|' || refusals || '|' || disabled FROM " + d.table(),
		&kept:          "SELECT owner || account, key_id || length(state) FROM " + d.prefix + "kept",
	} {
		rows, err := db.Query(q)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var k, v string
			if err := rows.Scan(&k, &v); err != nil {
				t.Fatal(err)
			}
			(*into)[k] = v
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return registrations, kept
}

// differences counts rows that are not the same in both.
func differences(a, b map[string]string) (n int) {
	for k, v := range a {
		if b[k] != v {
			n++
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			n++
		}
	}
	return n
}

func TestEachStepOfList(t *testing.T)          { testEachStep(t, "List") }
func TestEachStepOfEnableOneMore(t *testing.T) { testEachStep(t, "Enable one more") }
func TestEachStepOfEnableAnother(t *testing.T) { testEachStep(t, "Enable another") }
func TestEachStepOfEnableTheSame(t *testing.T) { testEachStep(t, "Enable the same") }
func TestEachStepOfUpdateErrors(t *testing.T)  { testEachStep(t, "Update errors") }
func TestEachStepOfUpdateUnknown(t *testing.T) { testEachStep(t, "Update unknown") }
func TestEachStepOfRemoveOne(t *testing.T)     { testEachStep(t, "Remove one") }
func TestEachStepOfRemoveService(t *testing.T) { testEachStep(t, "Remove service") }
func TestEachStepOfRemoveAccount(t *testing.T) { testEachStep(t, "Remove account") }
func TestEachStepOfKeep(t *testing.T)          { testEachStep(t, "Keep") }
func TestEachStepOfKeepNothing(t *testing.T)   { testEachStep(t, "Keep nothing") }
func TestEachStepOfKept(t *testing.T)          { testEachStep(t, "Kept") }
func TestEachStepOfAll(t *testing.T)           { testEachStep(t, "All") }
func TestEachStepOfCount(t *testing.T)         { testEachStep(t, "Count") }
func TestEachStepOfPurge(t *testing.T)         { testEachStep(t, "Purge") }
func TestEachStepOfReseal(t *testing.T)        { testEachStep(t, "Reseal") }

// TestEachStepOfEachCall: none was forgotten above.
func TestEachStepOfEachCall(t *testing.T) {
	source, err := os.ReadFile("injected_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for name := range storeCalls {
		if !strings.Contains(string(source), fmt.Sprintf("testEachStep(t, %q)", name)) {
			t.Errorf("no test of %s", name)
		}
	}
}

// testEachStep has a call fail at each step of what it does with the database, in turn: an error is returned, nothing is changed that
// the call does not count, no connection is lost, and the next call works. If what fails is only in the way of another process, the call succeeds.
func testEachStep(t *testing.T, name string) {
	t.Parallel()
	template := newSQLite(t).fast()
	prepareInjected(t, template)
	plain := template.handle(t)
	registrationsBefore, keptBefore := template.dump(t, plain)
	file := filepath.Join(t.TempDir(), "template")
	if _, err := plain.Exec("VACUUM INTO $1", file); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// reset returns a database as the template is.
	reset := func(t *testing.T) (database, *injector) {
		d := newSQLite(t).fast()
		if err := os.WriteFile(d.where, image, 0o600); err != nil {
			t.Fatal(err)
		}
		in := &injector{Connector: sqliteConnector{plain.Driver(), "file:" + (&url.URL{Path: d.where}).EscapedPath() + "?_pragma=busy_timeout(100)&_pragma=synchronous(OFF)"}}
		d.openHandle = func(string) (*sql.DB, error) {
			db := sql.OpenDB(in)
			db.SetMaxOpenConns(1) // a connection that is lost is one too many
			return db, nil
		}
		return d, in
	}
	whole := func(name string) bool { return name != "Purge" && name != "Reseal" } // all or nothing

	call := storeCalls[name]
	options := &sqlstore.Options{CacheSize: -1}
	if name == "Reseal" {
		options.Keys = keyring("k1", "k1")
	}
	usual, _ := reset(t)
	usualN, err := call(usual.open(t, options))
	if err != nil {
		t.Fatal(err)
	}
	check := openPlain(t, usual.where)
	usualRegistrations, usualKept := usual.dump(t, check)
	for mode, err := range map[string]error{"fails": errInjected, "scan": nil, "transient": errors.New("database is locked (5)")} {
		var d database
		var in *injector
		var s *sqlstore.Store
		fresh := true
		for at := 1; ; at += 1 + at/stride { // of many that are alike some
			if fresh {
				_ = check.Close()
				d, in = reset(t)
				s = d.open(t, options)
				check = openPlain(t, d.where)
				fresh = false
			}
			in.arm(at, err, mode == "scan")
			n, got := call(s)
			failed := in.done()
			registrations, kept := d.dump(t, check)
			changed := differences(registrationsBefore, registrations) + differences(keptBefore, kept)
			if failed == "" { // it took fewer steps
				if got != nil {
					t.Errorf("%s: without a fault: %v", mode, got)
				}
				if at < 3 && mode != "scan" {
					t.Errorf("it has only %d steps", at)
				}
				break
			}
			where := fmt.Sprintf("%s at step %d, %s", mode, at, failed)
			switch {
			case mode == "transient":
				if got != nil {
					t.Errorf("%s: %v", where, got)
				}
			case got == nil:
				t.Errorf("%s: no error", where)
			case mode == "fails" && !errors.Is(got, errInjected):
				t.Errorf("%s: got %v, want the error of the database", where, got)
			case !strings.HasPrefix(got.Error(), "sqlstore: "):
				t.Errorf("%s: the error does not say where it is from: %v", where, got)
			case whole(name) && changed > 0:
				t.Errorf("%s: %d rows were changed in spite of the error", where, changed)
			case !whole(name) && n != changed:
				t.Errorf("%s: %d rows were changed, and it says %d", where, changed, n)
			}
			if changed > 0 || mode == "transient" {
				fresh = true
			}
			if mode == "transient" {
				// The same came of it as without a fault.
				if n != usualN || differences(registrations, usualRegistrations)+differences(kept, usualKept) > 0 {
					t.Errorf("%s: something else came of it than without a fault; it says %d, and without %d", where, n, usualN)
				}
			}
		}
	}
}

// TestEachStepOfOpeningFails is that for the migrations, TestEachStepOfOpeningAgainFails for a database that needs none.
func TestEachStepOfOpeningFails(t *testing.T) { testEachStepOfOpening(t, 10, func(database) {}) }
func TestEachStepOfOpeningAgainFails(t *testing.T) {
	testEachStepOfOpening(t, 4, func(d database) { d.open(t, nil) })
}

func testEachStepOfOpening(t *testing.T, least int, before func(d database)) {
	plain := newSQLite(t).handle(t)
	for _, err := range []error{errInjected, errors.New("database is locked (5)")} {
		for at := 1; ; at++ {
			d := newSQLite(t)
			before(d)
			in := &injector{Connector: sqliteConnector{plain.Driver(), "file:" + (&url.URL{Path: d.where}).EscapedPath() + "?_pragma=synchronous(OFF)"}}
			in.arm(at, err, false)
			db := sql.OpenDB(in)
			db.SetMaxOpenConns(1)
			_, got := d.tryOpen(db, nil)
			failed := in.done()
			if failed == "" {
				if got != nil || at < least {
					t.Errorf("it has %d steps, %v", at, got)
				}
				_ = db.Close()
				break
			}
			if err == errInjected {
				if !errors.Is(got, errInjected) || !strings.HasPrefix(got.Error(), "sqlstore: open: ") {
					t.Errorf("at step %d, %s: got %v, want the error of the database", at, failed, got)
				}
				if _, got = d.tryOpen(db, nil); got != nil {
					t.Errorf("after a failure at step %d, %s: %v", at, failed, got)
				}
			} else if got != nil {
				t.Errorf("at step %d, %s: %v", at, failed, got)
			}
			if v, rows := version(t, d, db); v != len(steps(t, d)) || rows != 1 {
				t.Errorf("after a failure at step %d, %s, the schema is at version %d in %d rows", at, failed, v, rows)
			}
			_ = db.Close()
		}
	}
}
