package sqlstore

import (
	"context"
	"fmt"

	"github.com/xmpp-push/push"
)

// Count counts the registrations by state, in one pass over the table: for metrics, once a minute.
func (s *Store) Count(ctx context.Context) (c push.RegistrationCounts, err error) {
	err = s.retry(ctx, func() error {
		return s.db.QueryRowContext(ctx, s.table(`SELECT
	COALESCE(SUM(CASE WHEN disabled = 0 AND errors + refusals = 0 AND succeeded <> 0 THEN 1 ELSE 0 END), 0),
	COALESCE(SUM(CASE WHEN disabled = 0 AND errors + refusals = 0 AND succeeded = 0 THEN 1 ELSE 0 END), 0),
	COALESCE(SUM(CASE WHEN disabled = 0 AND errors + refusals > 0 THEN 1 ELSE 0 END), 0),
	COALESCE(SUM(CASE WHEN disabled <> 0 THEN 1 ELSE 0 END), 0)
FROM {registrations}`)).Scan(&c.Enabled, &c.Untried, &c.Failing, &c.Disabled)
	})
	if err != nil {
		return c, fmt.Errorf("sqlstore: count: %w", err)
	}
	return c, nil
}
