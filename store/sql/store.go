// Package sqlstore is a push.Store in a SQL database, SQLite or PostgreSQL: a registration is a promise to a phone, and survives the server.
//
// The host brings the *sql.DB and with it the driver, so that it links only what it uses; the subpackages sqlite and postgres open one
// with good settings, and postgres also listens for the changes of other nodes:
//
//	db, err := sqlite.Open("push.db")                           // or postgres.Open("postgres://…")
//	store, err := sqlstore.Open(ctx, db, sqlstore.SQLite, nil)  // or sqlstore.Postgres
//	engine, err := push.New(push.Config{Store: store, …})
//
// Several processes may use one database at the same time: Enable takes turns for each account, so that its limit holds, and counters are added to
// what is stored. What one process keeps in its cache may be older than another's change; Options.CacheFor and postgres.Listener bound by how much.
//
// Where to read on: schema.go and migrations for the tables, keyring.go for encryption, cache.go, and admin.go for what operators need, which
// cmd/pushstore brings to the command line.
package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push"
)

var (
	// ErrCorrupt is wrapped by what Options.Corrupt is told of rows that cannot be read. The others of the account work; a new enable
	// replaces the row.
	ErrCorrupt = errors.New("sqlstore: unreadable registration")
	// ErrTooLong: account, service and node have more than MaxKey bytes together, which PostgreSQL could not index. Refuse such nodes.
	ErrTooLong = errors.New("sqlstore: account, service and node are too long together")
)

// MaxKey is how many bytes account, service and node may have together.
const MaxKey = 2600

// Options are optional, as is each of them.
type Options struct {
	// Prefix begins the names of the tables and of the channel for notices: lower case letters, digits and underscores. Default "push_".
	Prefix string
	// CacheSize is for how many accounts the answers of List are kept, those without registrations included: about 0.7 kB for a registration
	// and 0.15 kB for an account without. Default 20,000; negative: none.
	CacheSize int
	// CacheFor is how long they are kept, and so how old an answer can be when another process changed the account. Default one minute;
	// negative: as long as there is room, which is right where no other process changes the database, or where a postgres.Listener runs.
	CacheFor time.Duration
	// Keys encrypt the publish options. The zero value leaves them readable.
	Keys Keyring
	// Corrupt is told of each row that cannot be read, with its key, whenever it is met; it may be called from several goroutines. Nil: it is
	// logged by slog.Default.
	Corrupt func(*CorruptError)
}

// CorruptError says which row cannot be read and why. It wraps ErrCorrupt and, where that is the reason, ErrKey.
type CorruptError struct {
	Account string
	push.Key
	Err error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v of %s at %s, node %q: %v", ErrCorrupt, e.Account, e.Service, e.Node, e.Err)
}

// Unwrap returns ErrCorrupt and the reason.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// Store is a push.Store in a SQL database. Safe for simultaneous use. It needs no Close; the database is its owner's to close, after the Engine.
//
// Its methods block until ctx is done or they have an answer. A commit that is under way when ctx ends gets five more seconds; if there is no answer even
// then, or the connection breaks within it, nobody knows whether it was made, and it can be repeated.
type Store struct {
	db      *sql.DB
	dialect *Dialect
	options Options
	sealer  *sealer
	cache   *cache
	// node marks this Store's notices.
	node string
	// writer holds a token while this process writes, if the database has one writer at a time.
	writer chan struct{}

	lists, queries atomic.Uint64
}

var _ push.Store = (*Store)(nil)

// Open returns a Store in db, whose tables it creates or brings up to date. Any number of nodes may do so at the same time. o may be nil.
func Open(ctx context.Context, db *sql.DB, d *Dialect, o *Options) (*Store, error) {
	s := &Store{db: db, dialect: d, node: rand.Text()}
	if o != nil {
		s.options = *o
	}
	if s.options.Prefix == "" {
		s.options.Prefix = "push_"
	}
	if !regexp.MustCompile(`^[a-z_][a-z0-9_]{0,31}$`).MatchString(s.options.Prefix) {
		return nil, fmt.Errorf("sqlstore: Options.Prefix %.50q has other characters than lower case letters, digits and underscores, or more than 32", s.options.Prefix)
	}
	if s.options.CacheSize == 0 {
		s.options.CacheSize = 20_000
	}
	if s.options.CacheFor == 0 {
		s.options.CacheFor = time.Minute
	}
	if s.options.Corrupt == nil {
		s.options.Corrupt = func(e *CorruptError) { slog.Default().Error(e.Error()) }
	}
	var err error
	if s.sealer, err = newSealer(s.options.Keys); err != nil {
		return nil, err
	}
	s.cache = newCache(s.options.CacheSize, s.options.CacheFor)
	if d.oneWriter {
		s.writer = make(chan struct{}, 1)
	}
	err = s.retry(ctx, func() error { return migrate(ctx, db, d, s.options.Prefix, migrations) })
	if err != nil {
		return nil, fmt.Errorf("sqlstore: open: %w", err)
	}
	return s, nil
}

// Stats counts what a Store did since it was opened.
type Stats struct {
	// Lists is the number of calls of List, Queries of those that asked the database.
	Lists, Queries uint64
}

// Stats returns the counts so far.
func (s *Store) Stats() Stats {
	return Stats{Lists: s.lists.Load(), Queries: s.queries.Load()}
}

// table fills in the table's name.
func (s *Store) table(query string) string {
	return strings.ReplaceAll(query, "{registrations}", s.options.Prefix+"registrations")
}

// List implements push.Store. An account that is cached costs no query, and if it has no registrations no allocation.
func (s *Store) List(ctx context.Context, account string) ([]push.Registration, error) {
	s.lists.Add(1)
	rs, ok, ticket := s.cache.get(account)
	if ok {
		return rs, nil
	}
	s.queries.Add(1)
	read := time.Now()
	err := s.retry(ctx, func() (err error) {
		rs, err = s.query(ctx, s.db, "options, key_id", "account = $1", account)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: list %s: %w", account, err)
	}
	s.cache.put(account, rs, read, ticket)
	return rs, nil
}

// queryer is a database or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// query reads registrations; those that cannot be read are reported and left out. options are the two columns to read them from.
func (s *Store) query(ctx context.Context, db queryer, options, where string, args ...any) (rs []push.Registration, err error) {
	rows, err := db.QueryContext(ctx, s.table("SELECT account, service, node, "+options+
		", client, enabled, errors, refusals, succeeded, disabled, cause FROM {registrations} WHERE "+where), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			r                            push.Registration
			options                      sql.Null[[]byte]
			keyID                        string
			enabled, succeeded, disabled int64
		)
		err := rows.Scan(&r.Account, &r.Service, &r.Node, &options, &keyID, &r.Client, &enabled, &r.Health.Errors, &r.Health.Refusals,
			&succeeded, &disabled, &r.Health.Cause)
		if err != nil {
			return nil, err
		}
		if r.Options, err = s.sealer.open(r.Account, r.Key, options, keyID); err != nil {
			s.options.Corrupt(&CorruptError{r.Account, r.Key, err})
			continue
		}
		r.Enabled, r.Health.Succeeded, r.Health.Disabled = fromNanos(enabled), fromNanos(succeeded), fromNanos(disabled)
		rs = append(rs, r)
	}
	return rs, rows.Err()
}

// nanos returns t as it is stored: Unix time in nanoseconds, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// Enable implements push.Store.
func (s *Store) Enable(ctx context.Context, r push.Registration, limit int) (before []push.Registration, err error) {
	if n := len(r.Account) + len(r.Service) + len(r.Node); n > MaxKey {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, n, MaxKey)
	}
	defer s.cache.forget(r.Account) // after an error too: nobody may know what came of it
	err = s.transact(ctx, func(tx *sql.Tx) (err error) {
		if s.dialect.enter != "" {
			if _, err := tx.ExecContext(ctx, s.dialect.enter, s.options.Prefix+r.Account, s.Channel(), s.node+" "+r.Account); err != nil {
				return err
			}
		}
		if before, err = s.query(ctx, tx, "options, key_id", "account = $1", r.Account); err != nil {
			return err
		}
		stored, write, evicted := push.Enroll(before, r, limit)
		if write {
			if err := s.put(ctx, tx, stored); err != nil {
				return err
			}
		}
		for _, k := range evicted {
			if _, err := s.change(ctx, tx, "DELETE FROM {registrations} WHERE account = $1 AND service = $2 AND node = $3", r.Account, k.Service, k.Node); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: enable %s: %w", r.Account, err)
	}
	return before, nil
}

// keys returns the keys of an account's rows, those that cannot be read included.
func (s *Store) keys(ctx context.Context, db queryer, account string) (keys []push.Key, err error) {
	rows, err := db.QueryContext(ctx, s.table("SELECT service, node FROM {registrations} WHERE account = $1"), account)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k push.Key
		if err := rows.Scan(&k.Service, &k.Node); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

// put inserts or replaces a row.
func (s *Store) put(ctx context.Context, tx *sql.Tx, r push.Registration) error {
	options, keyID, err := s.sealer.seal(r.Account, r.Key, r.Options)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, s.table(`INSERT INTO {registrations}
		(account, service, node, options, key_id, client, enabled, errors, refusals, succeeded, disabled, cause)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (account, service, node) DO UPDATE SET options = excluded.options, key_id = excluded.key_id, client = excluded.client,
		enabled = excluded.enabled, errors = excluded.errors, refusals = excluded.refusals, succeeded = excluded.succeeded,
		disabled = excluded.disabled, cause = excluded.cause`),
		r.Account, r.Service, r.Node, options, keyID, r.Client, nanos(r.Enabled),
		r.Health.Errors, r.Health.Refusals, nanos(r.Health.Succeeded), nanos(r.Health.Disabled), r.Health.Cause)
	return err
}

// Remove implements push.Store.
func (s *Store) Remove(ctx context.Context, account string, k push.Key) (removed []push.Key, err error) {
	defer s.cache.forget(account)
	err = s.transact(ctx, func(tx *sql.Tx) error {
		removed = nil
		if s.dialect.enter != "" {
			if _, err := tx.ExecContext(ctx, s.dialect.enter, s.options.Prefix+account, s.Channel(), s.node+" "+account); err != nil {
				return err
			}
		}
		keys, err := s.keys(ctx, tx, account)
		if err != nil {
			return err
		}
		for _, o := range keys {
			if !k.Names(o) {
				continue
			}
			if _, err := tx.ExecContext(ctx, s.table("DELETE FROM {registrations} WHERE account = $1 AND service = $2 AND node = $3"), account, o.Service, o.Node); err != nil {
				return err
			}
			removed = append(removed, o)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: remove %s: %w", account, err)
	}
	return removed, nil
}

// Update implements push.Store.
func (s *Store) Update(ctx context.Context, account string, k push.Key, u push.Update) error {
	query, args := "", []any(nil)
	switch {
	case !u.Succeeded.IsZero():
		query, args = "UPDATE {registrations} SET errors = 0, refusals = 0, succeeded = $1, disabled = 0, cause = ''", []any{nanos(u.Succeeded)}
	case !u.Disabled.IsZero():
		query = "UPDATE {registrations} SET errors = errors + $1, refusals = refusals + $2, disabled = $3, cause = $4"
		args = []any{u.Errors, u.Refusals, nanos(u.Disabled), u.Cause}
	default:
		query, args = "UPDATE {registrations} SET errors = errors + $1, refusals = refusals + $2", []any{u.Errors, u.Refusals}
	}
	n := len(args)
	query += fmt.Sprintf(" WHERE account = $%d AND service = $%d AND node = $%d", n+1, n+2, n+3)
	args = append(args, account, k.Service, k.Node)
	defer s.cache.forget(account)
	var changed []string
	err := s.transact(ctx, func(tx *sql.Tx) (err error) {
		changed, err = s.change(ctx, tx, query, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: update %s: %w", account, err)
	}
	if len(changed) == 0 {
		return push.ErrNotRegistered
	}
	return nil
}

// change runs a statement that changes rows, tells other nodes, and returns the account of each row.
func (s *Store) change(ctx context.Context, tx *sql.Tx, query string, args ...any) (accounts []string, err error) {
	query += " RETURNING account"
	if s.dialect.notifying != "" {
		n := len(args)
		query = fmt.Sprintf(s.dialect.notifying, query, n+1, n+2)
		args = append(args, s.Channel(), s.node)
	}
	rows, err := tx.QueryContext(ctx, s.table(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var account string
		if err := rows.Scan(&account); err != nil {
			return nil, err
		}
		accounts = append(accounts, account)
	}
	return accounts, rows.Err()
}

// turn waits for this process's turn to write.
func (s *Store) turn(ctx context.Context) (release func(), err error) {
	if s.writer == nil {
		return func() {}, nil
	}
	select {
	case s.writer <- struct{}{}:
		return func() { <-s.writer }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// commitGrace is how long a transaction may go on after its caller's context has ended.
const commitGrace = 5 * time.Second

// transact runs f in a transaction, again if another transaction was in its way. f uses ctx; the transaction has a context of its own, so that
// the end of ctx does not leave the outcome of a commit open. Even a single statement needs that: PostgreSQL may go on with one whose caller has
// left, but does not commit.
func (s *Store) transact(ctx context.Context, f func(tx *sql.Tx) error) error {
	return s.retry(ctx, func() error {
		release, err := s.turn(ctx)
		if err != nil {
			return err
		}
		defer release()
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(ctx, func() { time.AfterFunc(commitGrace, cancel) })()
		tx, err := conn.BeginTx(own, &sql.TxOptions{Isolation: s.dialect.isolation})
		if err != nil {
			return err
		}
		if err := f(tx); err != nil {
			_ = tx.Rollback()
			return err
		}
		if err := tx.Commit(); err != nil {
			return commitError{err}
		}
		return nil
	})
}

// patience is how long a call goes on trying against other processes' transactions.
const patience = 10 * time.Second

// retry calls f until it succeeds, fails for good, or ctx ends. A database does not say when it is free again, so it waits a few random
// milliseconds in between.
func (s *Store) retry(ctx context.Context, f func() error) error {
	begin := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 32*time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			if !errors.Is(err, ctx.Err()) {
				err = fmt.Errorf("%w: %w", ctx.Err(), err)
			}
			return err
		}
		if !transient(err) || time.Since(begin) > patience {
			return err
		}
		select {
		case <-time.After(mathrand.N(wait) + wait/2):
		case <-ctx.Done():
		}
	}
}

// Channel is the PostgreSQL channel of the notices of changes.
func (s *Store) Channel() string { return s.options.Prefix + "changed" }

// Notice takes a notice of the Channel: it forgets what is cached of the account and returns its name, for Engine.Refresh. It returns false for
// this Store's own notices, and what is none. postgres.Listener calls it; so can a host with a listener of its own.
func (s *Store) Notice(payload string) (account string, ok bool) {
	node, account, ok := strings.Cut(payload, " ")
	if !ok || node == s.node {
		return "", false
	}
	s.cache.forget(account)
	return account, true
}

// ForgetAll empties the cache, because changes may have been missed.
func (s *Store) ForgetAll() { s.cache.forgetAll() }
