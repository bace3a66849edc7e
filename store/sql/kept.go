package sqlstore

import (
	"context"
	"fmt"
	"iter"

	"github.com/xmpp-push/push"
)

// keptRow is what is kept of an account.
type keptRow struct {
	owner, account string
	state          []byte
	keyID          string
}

// Keep implements push.Keeper. What is kept is sealed like the secrets of registrations, and this process's own: see Options.Owner.
func (s *Store) Keep(ctx context.Context, account string, state []byte) error {
	if len(s.options.Owner)+len(account) > MaxKey {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(s.options.Owner)+len(account), MaxKey)
	}
	err := s.write(ctx, account, func(ctx context.Context, t *tx) error {
		if state == nil {
			_, err := t.exec(ctx, s.table("DELETE FROM {kept} WHERE owner = $1 AND account = $2"), s.options.Owner, account)
			return err
		}
		_, err := t.exec(ctx, s.table(`INSERT INTO {kept} (owner, account, state, key_id) VALUES ($1, $2, $3, $4)
			ON CONFLICT (owner, account) DO UPDATE SET state = excluded.state, key_id = excluded.key_id`),
			s.options.Owner, account, s.sealer.seal(state, "kept", s.options.Owner, account), s.sealer.current)
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlstore: keep %s: %w", account, err)
	}
	return nil
}

// Kept implements push.Keeper, in the order of the accounts. It reads page by page. What cannot be read is reported to Options.Corrupt and left out.
func (s *Store) Kept(ctx context.Context) iter.Seq2[push.Kept, error] {
	return func(yield func(push.Kept, error) bool) {
		for r, err := range s.keptRows(ctx, "owner = $1 AND account > $2 ORDER BY account", func(last keptRow) []any { return []any{s.options.Owner, last.account} }) {
			if err != nil {
				yield(push.Kept{}, fmt.Errorf("sqlstore: read what is kept: %w", err))
				return
			}
			state, err := s.sealer.open(r.state, r.keyID, "kept", r.owner, r.account)
			if err != nil {
				s.options.Corrupt(&CorruptError{Account: r.account, Err: err})
				continue
			}
			if !yield(push.Kept{Account: r.account, State: state}, nil) {
				return
			}
		}
	}
}

// keptPage is how many rows of what is kept are read at a time; they are larger than registrations.
const keptPage = 64

// keptRows goes through rows, page by page. where has the arguments that after returns, given the last row that was read.
func (s *Store) keptRows(ctx context.Context, where string, after func(last keptRow) []any) iter.Seq2[keptRow, error] {
	query := s.table(fmt.Sprint("SELECT owner, account, state, key_id FROM {kept} WHERE ", where, " LIMIT ", keptPage))
	return func(yield func(keptRow, error) bool) {
		for last, n := (keptRow{}), keptPage; n == keptPage; {
			var page []keptRow
			err := s.retry(ctx, func() (err error) {
				page, err = s.keptRowsOnce(ctx, query, after(last))
				return err
			})
			if err != nil {
				yield(keptRow{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
				last = r
			}
			n = len(page)
		}
	}
}

func (s *Store) keptRowsOnce(ctx context.Context, query string, args []any) (page []keptRow, err error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r keptRow
		if err := rows.Scan(&r.owner, &r.account, &r.state, &r.keyID); err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, rows.Err()
}

// resealKept is Reseal for what is kept, whoever owns it.
func (s *Store) resealKept(ctx context.Context) (resealed, unreadable int, err error) {
	rows := s.keptRows(ctx, "(owner, account) > ($1, $2) AND key_id <> $3 ORDER BY owner, account", func(last keptRow) []any {
		return []any{last.owner, last.account, s.sealer.current}
	})
	for r, err := range rows {
		if err != nil {
			return resealed, unreadable, err
		}
		state, err := s.sealer.open(r.state, r.keyID, "kept", r.owner, r.account)
		if err != nil {
			s.options.Corrupt(&CorruptError{Account: r.account, Err: err})
			unreadable++
			continue
		}
		n := int64(0)
		err = s.write(ctx, r.account, func(ctx context.Context, t *tx) error {
			result, err := t.exec(ctx, s.table("UPDATE {kept} SET state = $1, key_id = $2 WHERE owner = $3 AND account = $4 AND key_id = $5 AND state = $6"),
				s.sealer.seal(state, "kept", r.owner, r.account), s.sealer.current, r.owner, r.account, r.keyID, r.state)
			if err == nil {
				n, err = result.RowsAffected()
			}
			return err
		})
		if err != nil {
			return resealed, unreadable, err
		}
		resealed += int(n)
	}
	return resealed, unreadable, nil
}
