package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
)

// recorder is a driver.Connector that remembers the statements that go through its connections.
type recorder struct {
	driver.Connector
	mu   sync.Mutex
	seen map[string][]any // to the arguments of its first use
	n    int
}

func (r *recorder) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := r.Connector.Connect(ctx)
	return &recordedConn{c, r}, err
}

func (r *recorder) record(query string, args []driver.NamedValue) {
	var values []any
	for _, a := range args {
		values = append(values, a.Value)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.seen[query]; !ok {
		r.seen[query] = values
	}
	r.n++
}

// count returns the number of statements since it was called last.
func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.n
	r.n = 0
	return n
}

type recordedConn struct {
	driver.Conn
	r *recorder
}

func (c *recordedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.r.record(query, args)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *recordedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.r.record(query, args)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *recordedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	return &recordedStmt{s, query, c.r}, err
}

type recordedStmt struct {
	driver.Stmt
	query string
	r     *recorder
}

func (s *recordedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.r.record(s.query, args)
	return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
}

func (s *recordedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.r.record(s.query, args)
	return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

func (c *recordedConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
}

func (c *recordedConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type sqliteConnector struct {
	driver driver.Driver
	dsn    string
}

func (c sqliteConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c sqliteConnector) Driver() driver.Driver                        { return c.driver }

// record returns d with handles that r records.
func (d database) record(tb testing.TB) (database, *recorder) {
	r := &recorder{seen: map[string][]any{}}
	if d.dialect == sqlstore.Postgres {
		config, err := pgx.ParseConfig(d.where)
		if err != nil {
			tb.Fatal(err)
		}
		r.Connector = stdlib.GetConnector(*config)
	} else {
		r.Connector = sqliteConnector{d.handle(tb).Driver(), "file:" + (&url.URL{Path: d.where}).EscapedPath() + "?_pragma=journal_mode(WAL)"}
	}
	d.openHandle = func(string) (*sql.DB, error) { return sql.OpenDB(r), nil }
	return d, r
}

// TestIndexes asks the database how it does each statement that the Store uses, on a table that is large enough for it to matter.
func TestIndexes(t *testing.T) {
	backends(t, func(t *testing.T, plain database) {
		d, r := plain.record(t)
		s := d.open(t, &sqlstore.Options{CacheSize: -1, Keys: keyring("k1", "k1")})
		db := plain.handle(t)
		rows := 20_000
		if d.dialect == sqlstore.SQLite { // it plans without looking at the rows
			rows = 2000
		}
		fill := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " + fmt.Sprint(rows) + ") INSERT INTO " + d.table() +
			" (account, service, node, options, key_id, client, enabled, errors, refusals, succeeded, disabled, cause) SELECT 'user' || i || '@example.com', 'push.example.net', 'n', NULL, '', '', i, 0, 0, 0, 0, '' FROM n"
		for _, q := range []string{fill, "ANALYZE"} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		r.mu.Lock()
		clear(r.seen) // the migration
		r.mu.Unlock()

		one := registration("user7@example.com", "n1", 0)
		for i := range 3 {
			mustEnable(t, s, registration(one.Account, fmt.Sprint("n", i), time.Duration(i)), 2)
		}
		for _, u := range []push.Update{{Errors: 1}, {Disabled: start, Cause: "gone"}, {Succeeded: start}} {
			if err := s.Update(ctx, one.Account, one.Key, u); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range []push.Key{one.Key, {Service: one.Service}, {}} {
			mustRemove(t, s, one.Account, k)
		}
		mustList(t, s, one.Account)
		for _, f := range []sqlstore.Filter{{}, {Account: one.Account}, {Before: time.Unix(0, 100)}, {Service: "gone.example"}, {Disabled: true}} {
			for _, err := range s.All(ctx, f) {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if f != (sqlstore.Filter{}) {
				if _, err := s.Purge(ctx, f); err != nil {
					t.Fatal(err)
				}
			}
		}
		mustEnable(t, d.open(t, nil), one, 2)
		if n, err := s.Reseal(ctx); n != 1 || err != nil {
			t.Fatal(n, err)
		}

		r.mu.Lock()
		defer r.mu.Unlock()
		n := 0
		for query, args := range r.seen {
			if !strings.Contains(query, d.table()) || strings.Contains(query, "sqlite_master") {
				continue
			}
			n++
			plan := explain(t, plain, query, args)
			bad := []string{"SCAN", "Seq Scan on"}
			if strings.Contains(query, "LIMIT") {
				bad = append(bad, "TEMP B-TREE", "Sort") // of more than a page
			}
			for _, b := range bad {
				if strings.Contains(plan, b) {
					t.Errorf("%s\n%s", query, plan)
				}
			}
			if testing.Verbose() {
				t.Logf("%s\n%s", query, plan)
			}
		}
		if n < 12 {
			t.Errorf("only %d statements were explained", n)
		}
	})
}

func explain(t *testing.T, d database, query string, args []any) (plan string) {
	t.Helper()
	verb := "EXPLAIN QUERY PLAN "
	if d.dialect == sqlstore.Postgres {
		verb = "EXPLAIN "
		args = append([]any{pgx.QueryExecModeSimpleProtocol}, args...)
	}
	rows, err := d.handle(t).Query(verb+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		line := make([]any, len(columns))
		for i := range line {
			line[i] = new(any)
		}
		if err := rows.Scan(line...); err != nil {
			t.Fatal(err)
		}
		plan += fmt.Sprintln(*line[len(line)-1].(*any))
	}
	return plan
}
