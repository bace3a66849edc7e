package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/pushtest"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/internal/pgtest"
	"github.com/xmpp-push/push/store/sql/postgres"
	"github.com/xmpp-push/push/store/sql/sqlite"
)

// roles are what this program does if it is started as another process by a test, by the name in PUSH_TEST_ROLE.
var roles = map[string]func(){}

func TestMain(m *testing.M) {
	if role := os.Getenv("PUSH_TEST_ROLE"); role != "" {
		log.SetFlags(0)
		roles[role]()
		return
	}
	os.Exit(pgtest.Run(m))
}

// database is one that a test has to itself: a file, or a prefix in the shared server. Its text form leads another process to it.
type database struct {
	dialect     *sqlstore.Dialect
	where       string // file or URL
	prefix      string
	openHandle  func(where string) (*sql.DB, error)
	serverOrNil *pgtest.Server
}

// backends runs a test on each database.
func backends(t *testing.T, test func(t *testing.T, d database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, newSQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, newPostgres(t)) })
}

func newSQLite(tb testing.TB) database {
	return database{sqlstore.SQLite, filepath.Join(tb.TempDir(), "push #1?.db"), "push_", sqlite.Open, nil}
}

func newPostgres(tb testing.TB) database {
	if os.Getenv("PUSH_TEST_POSTGRES") == "none" {
		tb.Skip("PUSH_TEST_POSTGRES is none")
	}
	s := pgtest.Shared(tb)
	return database{sqlstore.Postgres, s.URL, fmt.Sprintf("t%x_", rand.Uint64()), postgres.Open, s}
}

// fast returns d for tests that write a lot and do not ask what survives a loss of power.
func (d database) fast() database {
	if d.dialect == sqlstore.SQLite {
		d.openHandle = func(file string) (*sql.DB, error) {
			return sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?_pragma=busy_timeout(100)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
		}
	}
	return d
}

// handle opens a *sql.DB of its own, as another process would have.
func (d database) handle(tb testing.TB) *sql.DB {
	tb.Helper()
	db, err := d.openHandle(d.where)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// open opens a Store with a handle of its own. o may be nil.
func (d database) open(tb testing.TB, o *sqlstore.Options) *sqlstore.Store {
	tb.Helper()
	s, err := d.tryOpen(d.handle(tb), o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func (d database) tryOpen(db *sql.DB, o *sqlstore.Options) (*sqlstore.Store, error) {
	var own sqlstore.Options
	if o != nil {
		own = *o
	}
	own.Prefix = d.prefix
	return sqlstore.Open(context.Background(), db, d.dialect, &own)
}

func (d database) table() string { return d.prefix + "registrations" }

// env leads a process in a role to the database.
func (d database) env(role string) []string {
	name := "sqlite"
	if d.dialect == sqlstore.Postgres {
		name = "postgres"
	}
	return append(os.Environ(), "PUSH_TEST_ROLE="+role, "PUSH_TEST_DIALECT="+name, "PUSH_TEST_WHERE="+d.where, "PUSH_TEST_PREFIX="+d.prefix)
}

// roleDatabase is what env said.
func roleDatabase() (database, *sqlstore.Store) {
	d := database{dialect: sqlstore.SQLite, where: os.Getenv("PUSH_TEST_WHERE"), prefix: os.Getenv("PUSH_TEST_PREFIX"), openHandle: sqlite.Open}
	if os.Getenv("PUSH_TEST_DIALECT") == "postgres" {
		d.dialect, d.openHandle = sqlstore.Postgres, postgres.Open
	}
	db, err := d.openHandle(d.where)
	if err != nil {
		log.Fatal(err)
	}
	s, err := d.tryOpen(db, nil)
	if err != nil {
		log.Fatal(err)
	}
	return d, s
}

// untilClosed waits for the end of the standard input, which a test gives to hold a process back.
func untilClosed() { _, _ = io.Copy(io.Discard, os.Stdin) }

var ctx = context.Background()

var start = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

func account(i int) string { return fmt.Sprintf("user%07d@example.com", i) }

// registration is a usual one.
func registration(account, node string, after time.Duration) push.Registration {
	return push.Registration{
		Account: account,
		Key:     push.Key{Service: "push.example.net", Node: node},
		Options: []push.Field{
			{Var: "FORM_TYPE", Type: "hidden", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}},
			{Var: "secret", Values: []string{"3f2a9c0d7be14e55"}},
		},
		Client:  "a3d1f0c2-5e0b-4c55-8d6e-0f1d2c3b4a59",
		Enabled: start.Add(after),
	}
}

func mustEnable(tb testing.TB, s push.Store, r push.Registration, limit int) (before []push.Registration) {
	tb.Helper()
	before, err := s.Enable(ctx, r, limit)
	if err != nil {
		tb.Fatal(err)
	}
	return before
}

func mustRemove(tb testing.TB, s push.Store, account string, k push.Key) (removed []push.Key) {
	tb.Helper()
	removed, err := s.Remove(ctx, account, k)
	if err != nil {
		tb.Fatal(err)
	}
	return removed
}

func mustList(tb testing.TB, s push.Store, account string) []push.Registration {
	tb.Helper()
	rs, err := s.List(ctx, account)
	if err != nil {
		tb.Fatal(err)
	}
	return rs
}

func keyring(current string, ids ...string) sqlstore.Keyring {
	k := sqlstore.Keyring{Current: current, Keys: map[string][]byte{}}
	for _, id := range ids {
		key := make([]byte, 32)
		copy(key, "key "+id)
		k.Keys[id] = key
	}
	return k
}

func TestStore(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		for name, o := range map[string]sqlstore.Options{
			"cached":    {},
			"uncached":  {CacheSize: -1},
			"encrypted": {CacheSize: -1, Keys: keyring("k1", "k1")},
		} {
			t.Run(name, func(t *testing.T) {
				o.Owner = name
				s := d.open(t, &o)
				pushtest.Store(t, func(t *testing.T) push.Store { return s })
				pushtest.Keeper(t, func(t *testing.T) push.Keeper { return s })
			})
		}
	})
	// A server may be set up to give transactions a snapshot from before they wait for their turn.
	t.Run("postgres repeatable read", func(t *testing.T) {
		d := newPostgres(t)
		d.where += "&default_transaction_isolation=repeatable%20read"
		s := d.open(t, nil)
		pushtest.Store(t, func(t *testing.T) push.Store { return s })
	})
}
