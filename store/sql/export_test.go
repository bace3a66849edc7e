package sqlstore

import (
	"context"
	"database/sql"
	"io/fs"
)

// Migrate is migrate, for tests with migrations of their own.
func Migrate(ctx context.Context, db *sql.DB, d *Dialect, prefix string, files fs.FS) error {
	return migrate(ctx, db, d, prefix, files, false)
}

// Migrations are the real ones.
var Migrations = migrations

// Name is the dialect's folder in the migrations.
func (d *Dialect) Name() string { return d.name }
