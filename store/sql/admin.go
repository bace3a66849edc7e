package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// ErrFilter: Purge was given an empty Filter, which would delete everything. Say which registrations have to go.
var ErrFilter = errors.New("sqlstore: the filter is empty")

// Filter chooses registrations: those that all its parts apply to. The zero value chooses all.
type Filter struct {
	// Account and Service, if not empty, have to be the same.
	Account, Service string
	// Before, if not zero, is later than the last sign of life: enabled, and published to with success, before then. A success is
	// stored about once a day.
	Before time.Time
	// Disabled chooses tombstones only.
	Disabled bool
}

// where returns conditions whose arguments are numbered from n+1 on.
func (f Filter) where(n int) (string, []any) {
	conditions, args := []string{"1 = 1"}, []any(nil)
	add := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(condition, n+len(args)))
	}
	if f.Account != "" {
		add("account = $%d", f.Account)
	}
	if f.Service != "" {
		add("service = $%d", f.Service)
	}
	if !f.Before.IsZero() {
		add("enabled < $%d", nanos(f.Before))
		add("succeeded < $%d", nanos(f.Before))
	}
	if f.Disabled {
		conditions = append(conditions, "disabled <> 0")
	}
	return strings.Join(conditions, " AND "), args
}

// page is how many rows an operator's call reads or changes at a time, so that it holds nobody up on a live database.
const page = 500

// row names a row.
type row struct {
	account string
	push.Key
}

// All returns the registrations that f chooses, in the order of account, service and node, past the cache. It reads page by page; what changes
// meanwhile may be seen or not. Rows that cannot be read go to Options.Corrupt. An error ends it.
func (s *Store) All(ctx context.Context, f Filter) iter.Seq2[push.Registration, error] {
	return func(yield func(push.Registration, error) bool) {
		where, args := f.where(3)
		for rows, err := range s.pages(ctx, where, args) {
			if err != nil {
				yield(push.Registration{}, fmt.Errorf("sqlstore: list all: %w", err))
				return
			}
			first, last := rows[0], rows[len(rows)-1]
			where, args := f.where(6)
			args = append([]any{first.account, first.Service, first.Node, last.account, last.Service, last.Node}, args...)
			var rs []push.Registration
			err := s.retry(ctx, func() (err error) {
				rs, err = s.query(ctx, `WHERE (account, service, node) >= ($1, $2, $3) AND (account, service, node) <= ($4, $5, $6) AND `+where+
					` ORDER BY account, service, node`, args...)
				return err
			})
			if err != nil {
				yield(push.Registration{}, fmt.Errorf("sqlstore: list all: %w", err))
				return
			}
			for _, r := range rs {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// pages goes through the names of rows in the order of the primary key. The arguments of where are numbered from 4 on.
func (s *Store) pages(ctx context.Context, where string, args []any) iter.Seq2[[]row, error] {
	return func(yield func([]row, error) bool) {
		var last row
		for {
			var rows []row
			err := s.retry(ctx, func() (err error) {
				rows, err = s.names(ctx, where, append([]any{last.account, last.Service, last.Node}, args...)...)
				return err
			})
			if err != nil {
				yield(nil, err)
				return
			}
			if len(rows) == 0 || !yield(rows, nil) || len(rows) < page {
				return
			}
			last = rows[len(rows)-1]
		}
	}
}

const namesQuery = `SELECT account, service, node FROM {registrations} WHERE (account, service, node) > ($1, $2, $3) AND %s
	ORDER BY account, service, node LIMIT %d`

func (s *Store) names(ctx context.Context, where string, args ...any) (names []row, err error) {
	rows, err := s.db.QueryContext(ctx, s.table(fmt.Sprintf(namesQuery, where, page)), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.account, &r.Service, &r.Node); err != nil {
			return nil, err
		}
		names = append(names, r)
	}
	return names, rows.Err()
}

// Purge deletes the registrations that f chooses and returns their number. It works on a live database: page by page, and one that was enabled again
// meanwhile stays. Other nodes are told as with Update. If it fails, the pages before are gone. An account that is removed from
// the server is Filter{Account: name}.
func (s *Store) Purge(ctx context.Context, f Filter) (deleted int, err error) {
	if f == (Filter{}) {
		return 0, ErrFilter
	}
	where, args := f.where(3)
	for rows, err := range s.pages(ctx, where, args) {
		if err != nil {
			return deleted, fmt.Errorf("sqlstore: purge: %w", err)
		}
		n := 0
		err = s.transact(ctx, func(tx *sql.Tx) error {
			n = 0
			for _, r := range rows {
				gone, err := s.change(ctx, tx, r.account, "DELETE FROM {registrations} WHERE account = $1 AND service = $2 AND node = $3 AND "+where,
					append([]any{r.account, r.Service, r.Node}, args...)...)
				if err != nil {
					return err
				}
				n += int(gone)
			}
			return nil
		})
		for _, r := range rows {
			s.cache.forget(r.account)
		}
		if err != nil {
			return deleted, fmt.Errorf("sqlstore: purge: %w", err)
		}
		deleted += n
	}
	return deleted, nil
}

// Reseal encrypts again whatever is not encrypted with the current key of Options.Keys, which completes a rotation, and returns how many rows that
// were. It works on a live database. Rows that cannot be read go to Options.Corrupt and stay as they are, and it returns an error that wraps
// ErrCorrupt after all others are done: keep the old keys until it returns none.
//
// What it replaces stays in the files until the database reuses the room: where the old rows were readable, run VACUUM on SQLite (the file
// that sqlite.Open opens needs none) and VACUUM FULL on PostgreSQL, whose write-ahead log and backups keep it for longer still.
func (s *Store) Reseal(ctx context.Context) (resealed int, err error) {
	unreadable := 0
	for rows, err := range s.pages(ctx, "key_id <> $4 AND options IS NOT NULL", []any{s.sealer.current}) {
		if err != nil {
			return resealed, fmt.Errorf("sqlstore: reseal: %w", err)
		}
		n, bad := 0, 0
		err = s.transact(ctx, func(tx *sql.Tx) error {
			n, bad = 0, 0
			for _, r := range rows {
				changed, err := s.resealRow(ctx, tx, r)
				if errors.Is(err, ErrCorrupt) {
					bad++
					continue
				}
				if err != nil {
					return err
				}
				n += int(changed)
			}
			return nil
		})
		if err != nil {
			return resealed, fmt.Errorf("sqlstore: reseal: %w", err)
		}
		resealed += n
		unreadable += bad
	}
	if unreadable > 0 {
		return resealed, fmt.Errorf("%w: %d of them stay as they are", ErrCorrupt, unreadable)
	}
	return resealed, nil
}

func (s *Store) resealRow(ctx context.Context, tx *sql.Tx, r row) (int64, error) {
	var old sql.Null[[]byte]
	var oldID string
	err := tx.QueryRowContext(ctx, s.table(`SELECT options, key_id FROM {registrations}
		WHERE account = $1 AND service = $2 AND node = $3 AND key_id <> $4 AND options IS NOT NULL`),
		r.account, r.Service, r.Node, s.sealer.current).Scan(&old, &oldID)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	options, err := s.sealer.open(r.account, r.Key, old, oldID)
	if err != nil {
		corrupt := &CorruptError{r.account, r.Key, err}
		s.options.Corrupt(corrupt)
		return 0, corrupt
	}
	data, keyID, err := s.sealer.seal(r.account, r.Key, options)
	if err != nil {
		return 0, err
	}
	// Not if it was enabled again meanwhile.
	result, err := tx.ExecContext(ctx, s.table(`UPDATE {registrations} SET options = $1, key_id = $2
		WHERE account = $3 AND service = $4 AND node = $5 AND key_id = $6 AND options = $7`),
		data, keyID, r.account, r.Service, r.Node, oldID, old.V)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
