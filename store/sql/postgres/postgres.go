// Package postgres opens PostgreSQL databases with pgx for sqlstore, and listens for the changes of other nodes.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/xmpp-push/push/store/sql"
)

// Open returns a database for a URL or a keyword/value string as libpq knows them; see pgx.ParseConfig. It does not connect yet. The
// caller closes it.
func Open(url string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db, nil
}

// Listener hears of the changes that other nodes make (LISTEN), on a connection of its own.
type Listener struct {
	// URL is the database, as for Open. It cannot be a pooler's that hands out connections for one transaction each.
	URL string
	// Store is what forgets what it cached of the accounts that changed. Required.
	Store *sqlstore.Store
	// Changed, if not nil, is called with each account that another node changed, for Engine.Refresh; and with "" whenever the connection was made,
	// because all that is held in memory may be out of date then. Calls come one after another, and notices wait meanwhile.
	Changed func(ctx context.Context, account string)
	// Problem, if not nil, is told why a connection ended or could not be made. It is made again.
	Problem func(error)
}

const (
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
	// checkEvery is how often a silent connection is checked, checkFor how long that may take. So a change is heard of, or known to
	// be missed, after 40 s at the latest.
	checkEvery = 30 * time.Second
	checkFor   = 10 * time.Second
)

// Run listens until ctx is done, and makes the connection again whenever it ends. It returns an error if the URL is not one, else the
// reason of ctx. While it runs and is connected, an answer of the Store is out of date for the time that a notice takes, which is
// milliseconds, whatever Options.CacheFor says.
func (l *Listener) Run(ctx context.Context) error {
	config, err := pgx.ParseConfig(l.URL)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	wait := retryMin
	for {
		connected, err := l.listen(ctx, config)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.Store.ForgetAll() // no notices now
		if l.Problem != nil {
			l.Problem(fmt.Errorf("postgres: listen: %w", err))
		}
		if connected {
			wait = retryMin
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, retryMax)
	}
}

func (l *Listener) listen(ctx context.Context, config *pgx.ConnConfig) (connected bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{l.Store.Channel()}.Sanitize()); err != nil {
		return false, err
	}
	l.Store.ForgetAll()
	l.changed(ctx, "")
	for {
		notice, err := waitFor(ctx, conn)
		if err != nil {
			return true, err
		}
		if notice == "" {
			continue
		}
		if account, ok := l.Store.Notice(notice); ok {
			l.changed(ctx, account)
		}
	}
}

// waitFor returns the next notice, or "" after a while in which there was none and the connection was found to be alive.
func waitFor(ctx context.Context, conn *pgx.Conn) (string, error) {
	quiet, cancel := context.WithTimeout(ctx, checkEvery)
	defer cancel()
	n, err := conn.WaitForNotification(quiet)
	if err == nil {
		return n.Payload, nil
	}
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return "", err
	}
	check, cancel := context.WithTimeout(ctx, checkFor)
	defer cancel()
	return "", conn.Ping(check)
}

func (l *Listener) changed(ctx context.Context, account string) {
	if l.Changed != nil {
		l.Changed(ctx, account)
	}
}
