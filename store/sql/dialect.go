package sqlstore

import (
	"database/sql"
	"errors"
	"strings"
)

// Dialect is what differs between databases. SQLite and Postgres are all there are; which driver speaks to them is the host's choice.
type Dialect struct {
	name string
	// begin starts a transaction that may migrate, and lock, if any, keeps other nodes from doing so at the same time.
	begin, lock string
	// hasTable counts the tables called $1.
	hasTable string
	// enter is the first statement of a transaction that may evict: it makes nodes that change one account take turns ($1 stands for
	// the account), and tells them of the change ($2 channel, $3 payload). Empty: the first write does it.
	enter string
	// notifying makes of a statement that changes rows and returns their accounts one that tells other nodes too: its format has the statement, and the
	// numbers of the arguments for the channel and this node. Empty: it is not possible.
	notifying string
	// isolation must let a statement see what was committed before it, not before its transaction.
	isolation sql.IsolationLevel
	// oneWriter: the database has one writer at a time anyway, so those of this process queue up rather than try again and again.
	oneWriter bool
}

// SQLite is SQLite 3.37 or newer, whose tables can be strict. The driver that the sqlite subpackage imports is modernc.org/sqlite; others will do.
var SQLite = &Dialect{
	name:      "sqlite",
	begin:     "BEGIN IMMEDIATE",
	hasTable:  "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
	oneWriter: true,
}

// Postgres is PostgreSQL 11 or newer.
var Postgres = &Dialect{
	name:  "postgres",
	begin: "BEGIN",
	lock:  "SELECT pg_advisory_xact_lock(hashtextextended('{prefix}migrate', 0))",
	// Not to_regclass: within a transaction it goes on saying what it said before another node created the table.
	hasTable:  "SELECT count(*) FROM pg_catalog.pg_class WHERE relname = $1 AND relkind IN ('r', 'p') AND pg_table_is_visible(oid)",
	enter:     "SELECT pg_advisory_xact_lock(hashtextextended($1, 0)), pg_notify($2, $3)",
	notifying: "WITH changed AS (%s) SELECT account FROM changed WHERE pg_notify($%d, $%d || ' ' || account) IS NOT NULL",
	isolation: sql.LevelReadCommitted,
}

// transient tells whether what failed was not done, and would succeed if it were tried again: another transaction was in its way, or the server has
// closed the connection since it was used last.
func transient(err error) bool {
	if state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		switch state.SQLState() {
		case "40001", "40P01": // serialization failure, deadlock
			return true
		case "57P01", "57P02", "57P03": // shut down, crashed, starting up
			_, unknown := errors.AsType[commitError](err)
			return !unknown
		}
		return false
	}
	text := err.Error() // SQLite's drivers have no type in common
	return strings.Contains(text, "database is locked") || strings.Contains(text, "database table is locked")
}

// commitError is the error of a commit.
type commitError struct{ error }

func (e commitError) Unwrap() error { return e.error }
