package sqlstore

import (
	"database/sql"
	"errors"
	"io"
	"strings"
	"syscall"
)

// Dialect is what differs between databases. SQLite and Postgres are all there are; which driver speaks to them is the host's choice.
type Dialect struct {
	name string
	// begin starts a transaction that may migrate, and lock, if any, keeps other nodes from doing so at the same time.
	begin, lock string
	// hasTable counts the tables called $1.
	hasTable string
	// enter is the first statement of a transaction that changes registrations. On PostgreSQL it makes nodes take turns for each account: it returns
	// those of the accounts in $2, a JSON array, that another transaction has ($1 is the prefix), and sets how long others' locks are waited for.
	// On SQLite it takes the one lock that there is.
	enter          string
	entersAccounts bool
	// notifying makes of a statement that changes rows and returns their keys one that tells other nodes too: its format has the statement, and the
	// numbers of the arguments for the channel and this node. Empty: it is not possible.
	notifying string
	// is compares two values that may be NULL.
	is string
	// isolation must let a statement see what was committed before it, not before its transaction.
	isolation sql.IsolationLevel
	// writers is how many transactions this process has at a time.
	writers int
	// prepares: a statement that is used again in a transaction is worth preparing. PostgreSQL's driver does it by itself.
	prepares bool
}

// SQLite is SQLite 3.37 or newer, whose tables can be strict. The driver that the sqlite subpackage imports is modernc.org/sqlite; others will do.
var SQLite *Dialect = &sqliteDialect

var sqliteDialect = Dialect{
	name:     "sqlite",
	begin:    "BEGIN IMMEDIATE",
	hasTable: "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
	enter:    "DELETE FROM {registrations} WHERE account = ''", // none; BeginTx begins one that is deferred, and this makes it a writer
	is:       "IS",
	writers:  1,
	prepares: true,
}

// Postgres is PostgreSQL 11 or newer.
var Postgres *Dialect = &postgresDialect

var postgresDialect = Dialect{
	name:  "postgres",
	begin: "BEGIN",
	lock:  "SELECT pg_advisory_xact_lock(hashtextextended('{prefix}migrate', 0))",
	// Not to_regclass: within a transaction it goes on saying what it said before another node created the table.
	hasTable: "SELECT count(*) FROM pg_catalog.pg_class WHERE relname = $1 AND relkind IN ('r', 'p') AND pg_table_is_visible(oid)",
	enter: `WITH patience AS (SELECT set_config('lock_timeout', '100ms', true))
		SELECT account FROM patience, json_array_elements_text($2::json) AS account WHERE NOT pg_try_advisory_xact_lock(hashtextextended($1 || account, 0))`,
	entersAccounts: true,
	notifying:      "WITH changed AS (%s) SELECT account, service, node FROM changed WHERE pg_notify($%d, $%d || ' ' || account) IS NOT NULL",
	is:             "IS NOT DISTINCT FROM",
	isolation:      sql.LevelReadCommitted,
	writers:        8,
}

// transient tells whether what failed was not done, and would succeed if it were tried again: another transaction was in its way, or the server has
// closed the connection since it was used last.
func transient(err error) bool {
	if errors.Is(err, errTaken) {
		return true
	}
	if state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		switch state.SQLState() {
		case "40001", "40P01", "55P03": // serialization failure, deadlock, a lock that was not to be had in time
			return true
		case "57P01", "57P02", "57P03": // shut down, crashed, starting up
			return !unknown(err)
		}
		return false
	}
	for _, lost := range []error{io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} { // a connection of the pool that the server has left meanwhile
		if errors.Is(err, lost) {
			return !unknown(err)
		}
	}
	text := err.Error() // SQLite's drivers have no type in common
	return strings.Contains(text, "database is locked") || strings.Contains(text, "database table is locked")
}

// pooled tells whether a statement that was prepared is not there, or is another's: PgBouncer before 1.21 gives what a connection has prepared to whoever gets
// that connection next.
func pooled(err error) bool {
	state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && (state.SQLState() == "42P05" || state.SQLState() == "26000")
}

// commitError is the error of a commit.
type commitError struct{ error }

func (e commitError) Unwrap() error { return e.error }

// unknown tells whether a transaction may have been committed although it failed.
func unknown(err error) bool {
	_, ok := errors.AsType[commitError](err)
	return ok
}
