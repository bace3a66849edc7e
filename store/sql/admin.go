package sqlstore

import (
	"context"
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

// where returns conditions whose arguments are numbered from n+1 on. The account is not among them: only its pages are looked at.
func (f Filter) where(n int) (string, []any) {
	conditions, args := []string{"1 = 1"}, []any(nil)
	add := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(condition, n+len(args)))
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

// page is how many rows an operator's call looks at in one statement, so that it holds nobody up on a live database.
const page = 500

// row names a row.
type row struct {
	account string
	push.Key
}

// span is a page: the rows from first to last in the order of the primary key.
type span struct{ first, last row }

// inSpan has the arguments that args returns.
const inSpan = "(account, service, node) >= ($1, $2, $3) AND (account, service, node) <= ($4, $5, $6)"

func (p span) args(more ...any) []any {
	return append([]any{p.first.account, p.first.Service, p.first.Node, p.last.account, p.last.Service, p.last.Node}, more...)
}

// pages goes through the table, or through the rows of one account, whatever is to be done with them: what a page costs is bounded even
// if nothing in it is wanted.
func (s *Store) pages(ctx context.Context, account string) iter.Seq2[span, error] {
	query := `SELECT account, service, node FROM {registrations} WHERE (account, service, node) > ($1, $2, $3)`
	if account != "" {
		query += " AND account = $4"
	}
	query += fmt.Sprint(" ORDER BY account, service, node LIMIT ", page)
	return func(yield func(span, error) bool) {
		for n, p := page, (span{}); n == page; {
			args := []any{p.last.account, p.last.Service, p.last.Node}
			if account != "" {
				args = append(args, account)
			}
			err := s.retry(ctx, func() (err error) {
				n, p, err = s.nextPage(ctx, query, args)
				return err
			})
			if err != nil {
				yield(p, err)
				return
			}
			if n == 0 || !yield(p, nil) {
				return
			}
		}
	}
}

func (s *Store) nextPage(ctx context.Context, query string, args []any) (n int, p span, err error) {
	rows, err := s.db.QueryContext(ctx, s.table(query), args...)
	if err != nil {
		return 0, p, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		if err := rows.Scan(&p.last.account, &p.last.Service, &p.last.Node); err != nil {
			return 0, p, err
		}
		if n == 0 {
			p.first = p.last
		}
	}
	return n, p, rows.Err()
}

// All returns the registrations that f chooses, in the order of account, service and node, past the cache and without their Options, which are
// none of an operator's business, and whose key may not be here. It reads page by page; what changes meanwhile may be seen or not. An error ends it.
func (s *Store) All(ctx context.Context, f Filter) iter.Seq2[push.Registration, error] {
	return func(yield func(push.Registration, error) bool) {
		where, args := f.where(6)
		for p, err := range s.pages(ctx, f.Account) {
			var records []record
			if err == nil {
				err = s.retry(ctx, func() error {
					rows, err := s.db.QueryContext(ctx, s.table("SELECT "+columns+" FROM {registrations} WHERE "+inSpan+" AND "+where+
						" ORDER BY account, service, node"), p.args(args...)...)
					if err != nil {
						return err
					}
					records, err = scan(rows)
					return err
				})
			}
			if err != nil {
				yield(push.Registration{}, fmt.Errorf("sqlstore: list all: %w", err))
				return
			}
			for i := range records {
				if !yield(records[i].registration(), nil) {
					return
				}
			}
		}
	}
}

// Purge deletes the registrations that f chooses and returns their number. It works on a live database: page by page, and one that was enabled again
// meanwhile stays. Other nodes are told as with Update; Engines of this process are not, so Refresh those accounts that they may keep. If it fails,
// the pages before are gone. An account that was removed from the server is better Removed.
func (s *Store) Purge(ctx context.Context, f Filter) (deleted int, err error) {
	if f == (Filter{}) {
		return 0, ErrFilter
	}
	where, args := f.where(6)
	for p, err := range s.pages(ctx, f.Account) {
		var gone []row
		if err == nil {
			err = s.write(ctx, "", func(ctx context.Context, t *tx) (err error) {
				gone, err = s.change(ctx, t, "DELETE FROM {registrations} WHERE "+inSpan+" AND "+where, p.args(args...)...)
				return err
			})
		}
		for _, r := range gone {
			s.cache.forget(r.account)
		}
		if err != nil {
			return deleted, fmt.Errorf("sqlstore: purge: %w", err)
		}
		deleted += len(gone)
	}
	return deleted, nil
}

// Reseal encrypts again whatever is not encrypted with the current key of Options.Keys, which completes a rotation, and returns how many rows that
// were. It works on a live database. Rows that cannot be read go to Options.Corrupt and stay as they are, and it returns an error that wraps
// ErrCorrupt after all others are done: keep the old keys until it returns none.
//
// What it replaces stays in the files until the database reuses the room: where the old rows were readable, run VACUUM on SQLite (the file
// that sqlite.Open opens needs none, once its write-ahead log is gone) and VACUUM FULL on PostgreSQL, whose write-ahead log and backups keep it
// for longer still.
func (s *Store) Reseal(ctx context.Context) (resealed int, err error) {
	unreadable := 0
	for p, err := range s.pages(ctx, "") {
		n, bad := 0, 0
		if err == nil {
			n, bad, err = s.resealPage(ctx, p)
		}
		if err != nil {
			return resealed, fmt.Errorf("sqlstore: reseal: %w", err)
		}
		resealed += n
		unreadable += bad
	}
	n, bad, err := s.resealKept(ctx)
	resealed += n
	unreadable += bad
	if err != nil {
		return resealed, fmt.Errorf("sqlstore: reseal: %w", err)
	}
	if unreadable > 0 {
		return resealed, fmt.Errorf("%w: %d of them stay as they are", ErrCorrupt, unreadable)
	}
	return resealed, nil
}

func (s *Store) resealPage(ctx context.Context, p span) (resealed, unreadable int, err error) {
	var olds []record
	err = s.retry(ctx, func() error {
		rows, err := s.db.QueryContext(ctx, s.table("SELECT "+columns+" FROM {registrations} WHERE "+inSpan+
			" AND key_id <> $7 AND (options IS NOT NULL OR wishes IS NOT NULL) ORDER BY account, service, node"), p.args(s.sealer.current)...)
		if err != nil {
			return err
		}
		olds, err = scan(rows)
		return err
	})
	if err != nil || len(olds) == 0 {
		return 0, 0, err
	}
	var news []secrets
	for _, old := range olds {
		r := old.registration()
		sec := old.secrets
		if err := s.sealer.reveal(old.secrets, &r); err != nil {
			s.options.Corrupt(&CorruptError{r.Account, r.Key, err})
			unreadable++
		} else if sec, err = s.sealer.sealed(&r); err != nil {
			return 0, 0, err
		}
		news = append(news, sec)
	}
	// Not if it was enabled again meanwhile.
	query := s.table(fmt.Sprintf(`UPDATE {registrations} SET options = $1, wishes = $2, key_id = $3
		WHERE account = $4 AND service = $5 AND node = $6 AND key_id = $7 AND options %[1]s $8 AND wishes %[1]s $9`, s.dialect.is))
	err = s.write(ctx, "", func(ctx context.Context, t *tx) error {
		resealed = 0
		for i, old := range olds {
			if news[i].keyID == old.keyID {
				continue
			}
			result, err := t.exec(ctx, query, news[i].options, news[i].wishes, news[i].keyID, old.account, old.Service, old.Node, old.keyID,
				old.options, old.wishes)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			if err != nil {
				return err
			}
			resealed += int(n)
		}
		return nil
	})
	return resealed, unreadable, err
}
