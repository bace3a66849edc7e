package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// ErrNewerSchema: a newer release has changed the tables. Run that release on all nodes, or restore a backup from before it.
var ErrNewerSchema = errors.New("sqlstore: the database has a newer schema than this release knows")

// ErrOlderSchema: with Options.KeepSchema, the tables are not there, or were made by an earlier release.
var ErrOlderSchema = errors.New("sqlstore: the database has no tables of this release")

// migrations has, for each dialect, the files that lead from one version of the schema to the next, in the order of their names. A file that was
// released is never changed; there is no way back.
//
//go:embed migrations
var migrations embed.FS

// migrate brings the tables up to date. Nodes that start at the same time take turns, and all but the first find nothing to do. A database that
// is up to date is only read, so that a node needs no right to create tables. keep refuses one that is not.
func migrate(ctx context.Context, db *sql.DB, d *Dialect, prefix string, files fs.FS, keep bool) error {
	steps, err := fs.Glob(files, "migrations/"+d.name+"/*.sql")
	if err != nil {
		return err
	}
	fill := strings.NewReplacer("{prefix}", prefix).Replace
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()

	version, err := schemaVersion(ctx, conn, d, prefix, len(steps))
	if err != nil || version == len(steps) {
		return err
	}
	if keep {
		return fmt.Errorf("%w: those with the prefix %q are at version %d (0: there are none), and this release wants %d; run `pushstore migrate` if they are to be changed", ErrOlderSchema, prefix, version, len(steps))
	}
	if _, err := conn.ExecContext(ctx, d.begin); err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	if d.lock != "" {
		if _, err := conn.ExecContext(ctx, fill(d.lock)); err != nil {
			return err
		}
	}
	// Another node may have been first.
	if version, err = schemaVersion(ctx, conn, d, prefix, len(steps)); err != nil {
		return err
	}
	run := func(statements string) error {
		_, err := conn.ExecContext(ctx, fill(statements))
		return err
	}
	if version == 0 {
		if err := run("CREATE TABLE IF NOT EXISTS {prefix}schema (version BIGINT NOT NULL)"); err != nil {
			return err
		}
		if err := run("INSERT INTO {prefix}schema (version) VALUES (0)"); err != nil {
			return err
		}
	}
	for _, step := range steps[version:] {
		statements, err := fs.ReadFile(files, step)
		if err != nil {
			return err
		}
		if err := run(string(statements)); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	if err := run(fmt.Sprintf("UPDATE {prefix}schema SET version = %d", len(steps))); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	done = err == nil
	return err
}

// schemaVersion returns the version of the tables, 0 if there are none, or ErrNewerSchema if it is more than known.
func schemaVersion(ctx context.Context, conn *sql.Conn, d *Dialect, prefix string, known int) (version int, err error) {
	if err := conn.QueryRowContext(ctx, d.hasTable, prefix+"schema").Scan(&version); err != nil || version == 0 {
		return 0, err
	}
	if err := conn.QueryRowContext(ctx, "SELECT version FROM "+prefix+"schema").Scan(&version); err != nil {
		return 0, err
	}
	if version > known {
		return 0, fmt.Errorf("%w: it is at version %d, this release knows %d; start a release that is at least as new", ErrNewerSchema, version, known)
	}
	return version, nil
}
