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
	// notifying makes of a statement that changes an account one that tells other nodes if it did: its format has the statement, and the numbers of
	// the arguments for channel and payload. Empty: it is not possible.
	notifying string
	// isolation must let a statement see what was committed before it, not before its transaction.
	isolation sql.IsolationLevel
	// oneWriter: the database has one writer at a time anyway, so those of this process queue up rather than try again and again.
	oneWriter bool
}

// SQLite is SQLite 3.37 or newer. The driver that the sqlite subpackage imports is modernc.org/sqlite; others will do.
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
	notifying: "WITH changed AS (%s RETURNING 1) SELECT pg_notify($%d, $%d) FROM changed",
	isolation: sql.LevelReadCommitted,
}

// transient tells whether a transaction failed because of another one, and would succeed if it were tried again. It is certain that
// it was rolled back.
func transient(err error) bool {
	if state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return state.SQLState() == "40001" || state.SQLState() == "40P01" // serialization failure, deadlock
	}
	text := err.Error() // SQLite's drivers have no type in common
	return strings.Contains(text, "database is locked") || strings.Contains(text, "database table is locked")
}
