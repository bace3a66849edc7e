// Package sqlite opens SQLite files with modernc.org/sqlite, which needs no cgo, for sqlstore.
package sqlite

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Open returns the database in the file at path, which it creates if need be, readable by its owner only. What is committed
// survives the power going off (synchronous=FULL), readers do not wait for writers (WAL), and what is deleted is overwritten (secure_delete).
// The caller closes it.
func Open(path string) (*sql.DB, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	q := url.Values{"_pragma": {
		"busy_timeout(100)", // beyond that sqlstore tries again, and heeds its context
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"secure_delete(ON)",
		"cache_size(-8192)", // kB a connection
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	n := runtime.GOMAXPROCS(0) + 1 // readers, and the one writer
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}
