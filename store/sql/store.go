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
	ErrCorrupt = errors.New("sqlstore: unreadable row")
	// ErrTooLong: account, service and node have more than MaxKey bytes together, which PostgreSQL could not index. Refuse such nodes.
	ErrTooLong = errors.New("sqlstore: account, service and node are too long together")
)

// MaxKey is how many bytes account, service and node may have together.
const MaxKey = 2600

// Options are optional, as is each of them.
type Options struct {
	// Prefix begins the names of the tables and of the channel for notices: lower case letters, digits and underscores. Default "push_".
	Prefix string
	// KeepSchema keeps Open from creating or upgrading tables: it returns ErrOlderSchema then. It is for programs that look at a server's database, and for
	// servers whose operators run `pushstore migrate` themselves.
	KeepSchema bool
	// CacheSize is for how many accounts the answers of List are kept, those without registrations included: about 0.7 kB for a registration
	// and 0.15 kB for an account without. Default 20,000; negative: none.
	CacheSize int
	// CacheFor is how long they are kept, and so how old an answer can be when another process changed the account. Default one minute;
	// negative: as long as there is room, which is right where no other process changes the database, or where a postgres.Listener runs.
	CacheFor time.Duration
	// Keys encrypt what is secret. The zero value leaves them readable.
	Keys Keyring
	// Owner names this process among those that share the database, and is the same after it was started again: what it keeps of accounts whose notifications
	// wait (push.Keeper) is what it gets back. Where one process uses the database it can stay empty.
	Owner string
	// Corrupt is told of each row that cannot be read, with its key, whenever it is met; it may be called from several goroutines. Nil: it is
	// logged by slog.Default.
	Corrupt func(*CorruptError)
}

// CorruptError says which row cannot be read and why; without a key it is what is kept of the account. It wraps ErrCorrupt and, where that is the reason, ErrKey.
type CorruptError struct {
	Account string
	push.Key
	Err error
}

func (e *CorruptError) Error() string {
	if e.Key == (push.Key{}) {
		return fmt.Sprintf("%v of what is kept of %s: %v", ErrCorrupt, e.Account, e.Err)
	}
	return fmt.Sprintf("%v of %s at %s, node %q: %v", ErrCorrupt, e.Account, e.Service, e.Node, e.Err)
}

// Unwrap returns ErrCorrupt and the reason.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// Store is a push.Store in a SQL database. Safe for simultaneous use. It needs no Close; the database is its owner's to close, after the Engine.
//
// Changes that callers wait for at the same time are committed together (see writer.go), so that a slow disk bounds how long an answer takes, and not how many
// there are a second: call it from many goroutines.
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
	node   string
	writer writer
	tables *strings.Replacer
	// selectAccount is the one statement that is worth preparing for all transactions, where that is worth while; the database closes it.
	selectAccount *sql.Stmt

	lists, queries, unchanged, writes, commits atomic.Uint64
}

var (
	_ push.Store  = (*Store)(nil)
	_ push.Keeper = (*Store)(nil)
)

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
	s.tables = strings.NewReplacer("{registrations}", s.options.Prefix+"registrations", "{kept}", s.options.Prefix+"kept")
	s.writer = writer{s: s, active: map[string]bool{}}
	err = s.retry(ctx, func() (err error) {
		if err = migrate(ctx, db, d, s.options.Prefix, migrations, s.options.KeepSchema); err == nil && d.prepares {
			s.selectAccount, err = db.PrepareContext(ctx, s.table(selectAccount))
		}
		return err
	})
	if pooled(err) {
		return nil, fmt.Errorf("sqlstore: open: %w; a pooler that hands out connections for one transaction each is in between: use none, or open the URL with default_query_exec_mode=exec", err)
	}
	if err != nil {
		return nil, fmt.Errorf("sqlstore: open: %w", err)
	}
	return s, nil
}

// Stats counts what a Store did since it was opened.
type Stats struct {
	// Lists is the number of calls of List, Queries of those that asked the database.
	Lists, Queries uint64
	// Unchanged is the number of calls of Enable that had nothing to write, Writes of changes that were committed, Commits of the transactions that
	// did it.
	Unchanged, Writes, Commits uint64
}

// Stats returns the counts so far.
func (s *Store) Stats() Stats {
	return Stats{s.lists.Load(), s.queries.Load(), s.unchanged.Load(), s.writes.Load(), s.commits.Load()}
}

// table fills in the tables' names.
func (s *Store) table(query string) string { return s.tables.Replace(query) }

// List implements push.Store. An account that is cached costs no query, and if it has no registrations no allocation.
func (s *Store) List(ctx context.Context, account string) ([]push.Registration, error) {
	s.lists.Add(1)
	if rs, ok := s.cache.get(account); ok {
		return rs, nil
	}
	rs, err := s.read(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: list %s: %w", account, err)
	}
	return rs, nil
}

// Cached returns what List would, if it is cached: see push.Store.
func (s *Store) Cached(account string) ([]push.Registration, bool) { return s.cache.get(account) }

// read reads an account past the cache, which learns of it.
func (s *Store) read(ctx context.Context, account string) (rs []push.Registration, err error) {
	s.queries.Add(1)
	var records []record
	ticket, read := s.cache.ticket(account), time.Now()
	err = s.retry(ctx, func() error {
		rows, err := s.queryAccount(ctx, account)
		if err != nil {
			return err
		}
		records, err = scan(rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	rs = s.readable(records)
	s.cache.put(account, rs, read, ticket)
	return rs, nil
}

func (s *Store) queryAccount(ctx context.Context, account string) (*sql.Rows, error) {
	if s.selectAccount != nil {
		return s.selectAccount.QueryContext(ctx, account)
	}
	return s.db.QueryContext(ctx, s.table(selectAccount), account)
}

// record is a row as it is stored.
type record struct {
	row
	secrets
	client                                                  string
	enabled, errors, refusals, failing, succeeded, disabled int64
	cause                                                   string
}

const (
	columns       = "account, service, node, options, wishes, key_id, client, enabled, errors, refusals, failing, succeeded, disabled, cause"
	selectAccount = "SELECT " + columns + " FROM {registrations} WHERE account = $1"
	upsert        = "INSERT INTO {registrations} (" + columns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT (account, service, node) DO UPDATE SET options = excluded.options, wishes = excluded.wishes, key_id = excluded.key_id,
		client = excluded.client, enabled = excluded.enabled, errors = excluded.errors, refusals = excluded.refusals,
		failing = excluded.failing, succeeded = excluded.succeeded, disabled = excluded.disabled, cause = excluded.cause`
)

// scan reads all rows, and closes them.
func scan(rows *sql.Rows) (records []record, err error) {
	defer rows.Close()
	for rows.Next() {
		var r record
		err := rows.Scan(&r.account, &r.Service, &r.Node, &r.options, &r.wishes, &r.keyID, &r.client, &r.enabled, &r.errors, &r.refusals,
			&r.failing, &r.succeeded, &r.disabled, &r.cause)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, rows.Err()
}

func (r *record) args() []any {
	return []any{r.account, r.Service, r.Node, r.options, r.wishes, r.keyID, r.client, r.enabled, r.errors, r.refusals, r.failing, r.succeeded, r.disabled, r.cause}
}

// registration returns what is stored, without its secrets.
func (r *record) registration() push.Registration {
	return push.Registration{Account: r.account, Key: r.Key, Client: r.client, Enabled: fromNanos(r.enabled),
		Health: push.Health{Errors: int(r.errors), Refusals: int(r.refusals), Failing: fromNanos(r.failing), Succeeded: fromNanos(r.succeeded), Disabled: fromNanos(r.disabled), Cause: r.cause}}
}

// record returns the row for a registration.
func (s *Store) record(r *push.Registration) (record, error) {
	sec, err := s.sealer.sealed(r)
	return record{row{r.Account, r.Key}, sec, r.Client, nanos(r.Enabled), int64(r.Health.Errors), int64(r.Health.Refusals),
		nanos(r.Health.Failing), nanos(r.Health.Succeeded), nanos(r.Health.Disabled), r.Health.Cause}, err
}

// readable returns the registrations in records. Those that cannot be read are reported and left out.
func (s *Store) readable(records []record) (rs []push.Registration) {
	for i := range records {
		r := records[i].registration()
		if err := s.sealer.reveal(records[i].secrets, &r); err != nil {
			s.options.Corrupt(&CorruptError{r.Account, r.Key, err})
			continue
		}
		rs = append(rs, r)
	}
	return rs
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

// Enable implements push.Store. One that says nothing new costs a query and no write.
func (s *Store) Enable(ctx context.Context, r push.Registration, limit int) (before []push.Registration, err error) {
	if n := len(r.Account) + len(r.Service) + len(r.Node); n > MaxKey {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, n, MaxKey)
	}
	before, err = s.read(ctx, r.Account)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: enable %s: %w", r.Account, err)
	}
	if _, write, evicted := push.Enroll(before, r, limit); !write && len(evicted) == 0 {
		s.unchanged.Add(1)
		return before, nil
	}
	defer s.cache.forget(r.Account) // after an error too: nobody may know what came of it
	err = s.write(ctx, r.Account, func(ctx context.Context, t *tx) error {
		rows, err := t.query(ctx, s.table(selectAccount), r.Account)
		if err != nil {
			return err
		}
		records, err := scan(rows)
		if err != nil {
			return err
		}
		before = s.readable(records)
		stored, write, evicted := push.Enroll(before, r, limit)
		if write {
			record, err := s.record(&stored)
			if err != nil {
				return err
			}
			if _, err := s.change(ctx, t, upsert, record.args()...); err != nil {
				return err
			}
		}
		for _, k := range evicted {
			if _, err := s.change(ctx, t, deleteOne, r.Account, k.Service, k.Node); err != nil {
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

const deleteAccount = "DELETE FROM {registrations} WHERE account = $1"

var (
	deleteService = fmt.Sprintf("%s AND service = $2 AND substr(node, 1, %d) <> '%s'", deleteAccount, len(push.Push2Node), push.Push2Node)
	deleteOne     = deleteAccount + " AND service = $2 AND node = $3"
)

// Remove implements push.Store. It removes rows that cannot be read, too; with all of an account also what is kept of it, whoever owns it.
func (s *Store) Remove(ctx context.Context, account string, k push.Key) (removed []push.Key, err error) {
	query, args := deleteOne, []any{account, k.Service, k.Node}
	switch {
	case k.Service == "":
		query, args = deleteAccount, args[:1]
	case k.Node == "":
		query, args = deleteService, args[:2]
	}
	defer s.cache.forget(account)
	err = s.write(ctx, account, func(ctx context.Context, t *tx) (err error) {
		rows, err := s.change(ctx, t, query, args...)
		removed = nil
		for _, r := range rows {
			removed = append(removed, r.Key)
		}
		if err == nil && k.Service == "" {
			_, err = t.exec(ctx, s.table("DELETE FROM {kept} WHERE account = $1"), account)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: remove %s: %w", account, err)
	}
	return removed, nil
}

// Update implements push.Store.
func (s *Store) Update(ctx context.Context, account string, k push.Key, u push.Update) error {
	const adds = "UPDATE {registrations} SET errors = CASE WHEN errors + $1 > 0 THEN errors + $1 ELSE 0 END, refusals = CASE WHEN refusals + $2 > 0 THEN refusals + $2 ELSE 0 END, failing = CASE failing WHEN 0 THEN $3 ELSE failing END"
	query, args := adds, []any{u.Errors, u.Refusals, nanos(u.Failing)}
	switch {
	case !u.Succeeded.IsZero():
		query, args = "UPDATE {registrations} SET errors = 0, refusals = 0, failing = 0, succeeded = $1, disabled = 0, cause = ''", []any{nanos(u.Succeeded)}
	case !u.Disabled.IsZero():
		query, args = adds+", disabled = $4, cause = $5", append(args, nanos(u.Disabled), u.Cause)
	}
	n := len(args)
	query += fmt.Sprintf(" WHERE account = $%d AND service = $%d AND node = $%d", n+1, n+2, n+3)
	args = append(args, account, k.Service, k.Node)
	defer s.cache.forget(account)
	var changed []row
	err := s.write(ctx, account, func(ctx context.Context, t *tx) (err error) {
		changed, err = s.change(ctx, t, query, args...)
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

// change runs a statement that changes rows, tells other nodes, and names the rows.
func (s *Store) change(ctx context.Context, t *tx, query string, args ...any) (changed []row, err error) {
	query += " RETURNING account, service, node"
	if s.dialect.notifying != "" {
		n := len(args)
		query = fmt.Sprintf(s.dialect.notifying, query, n+1, n+2)
		args = append(args, s.Channel(), s.node)
	}
	rows, err := t.query(ctx, s.table(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.account, &r.Service, &r.Node); err != nil {
			return nil, err
		}
		changed = append(changed, r)
	}
	return changed, rows.Err()
}

// retry calls f until it succeeds, fails for good, or ctx ends. A database does not say when it is free again, so it waits a few random
// milliseconds in between.
func (s *Store) retry(ctx context.Context, f func() error) error {
	begin := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, longestWait) {
		err := f()
		if err == nil {
			return nil
		}
		if over := ended(ctx); over != nil {
			if !errors.Is(err, over) {
				err = fmt.Errorf("%w: %w", over, err)
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

// ended returns the error of ctx, also if its time has come and it does not know yet.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
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
