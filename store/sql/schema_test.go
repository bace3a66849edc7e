package sqlstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
)

func init() {
	roles["open"] = func() {
		untilClosed()
		_, s := roleDatabase()
		if _, err := s.Enable(ctx, registration(account(1), os.Getenv("PUSH_TEST_NUMBER"), 0), 0); err != nil {
			panic(err)
		}
	}
}

func version(t *testing.T, d database, db *sql.DB) (v, rows int) {
	t.Helper()
	if err := db.QueryRow("SELECT max(version), count(*) FROM "+d.prefix+"schema").Scan(&v, &rows); err != nil {
		t.Fatal(err)
	}
	return v, rows
}

func TestOpenTogether(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		current := len(steps(t, d))
		var wg sync.WaitGroup
		for i := range 8 {
			db := d.handle(t)
			wg.Go(func() {
				s, err := d.tryOpen(db, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mustEnable(t, s, registration(account(0), fmt.Sprint(i), 0), 0)
			})
		}
		wg.Wait()
		if n := len(mustList(t, d.open(t, nil), account(0))); n != 8 {
			t.Errorf("%d registrations, want 8", n)
		}
		if v, rows := version(t, d, d.handle(t)); v != current || rows != 1 {
			t.Errorf("the schema is at version %d in %d rows", v, rows)
		}
	})
}

func TestOpenTogetherProcesses(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		runTogether(t, d, "open", 4)
		if v, rows := version(t, d, d.handle(t)); v != len(steps(t, d)) || rows != 1 {
			t.Errorf("the schema is at version %d in %d rows", v, rows)
		}
	})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		mustEnable(t, s, registration(account(0), "n1", 0), 0)
		db := d.handle(t)
		if _, err := db.Exec("UPDATE " + d.prefix + "schema SET version = 99"); err != nil {
			t.Fatal(err)
		}
		_, err := d.tryOpen(db, nil)
		if !errors.Is(err, sqlstore.ErrNewerSchema) || !strings.Contains(err.Error(), "at version 99") {
			t.Errorf("got %v, want ErrNewerSchema with the version", err)
		}
		if v, _ := version(t, d, db); v != 99 {
			t.Errorf("the version was set to %d", v)
		}
	})
}

// withStep returns the real migrations and one more.
func withStep(t *testing.T, d database, statements string) fs.FS {
	t.Helper()
	files := steps(t, d)
	files["migrations/"+d.dialect.Name()+"/9999.sql"] = &fstest.MapFile{Data: []byte(statements)}
	return files
}

// steps returns the real migrations.
func steps(t *testing.T, d database) fstest.MapFS {
	t.Helper()
	names, err := fs.Glob(sqlstore.Migrations, "migrations/"+d.dialect.Name()+"/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, name := range names {
		data, err := fs.ReadFile(sqlstore.Migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	return files
}

// TestUpgradeFromFirst opens tables as the first release left them.
func TestUpgradeFromFirst(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		first := steps(t, d)
		for name := range first {
			if !strings.HasSuffix(name, "/0001.sql") {
				delete(first, name)
			}
		}
		db := d.handle(t)
		if err := sqlstore.Migrate(ctx, db, d.dialect, d.prefix, first); err != nil {
			t.Fatal(err)
		}
		_, err := db.Exec("INSERT INTO "+d.table()+" (account, service, node, options, key_id, client, enabled, errors, refusals, succeeded, disabled, cause) "+
			"VALUES ($1, 's', 'n', $2, '', 'c', 7, 1, 2, 3, 4, 'gone')", account(0), []byte(`[{"var":"secret","values":["x"]}]`))
		if err != nil {
			t.Fatal(err)
		}
		s := d.open(t, nil)
		rs := mustList(t, s, account(0))
		if len(rs) != 1 || rs[0].Wishes != nil || rs[0].Options[0].Values[0] != "x" || rs[0].Health.Errors != 1 || rs[0].Health.Cause != "gone" {
			t.Fatalf("after the upgrade there is %+v", rs)
		}
		if err := s.Keep(ctx, account(0), []byte("state")); err != nil {
			t.Error(err)
		}
	})
}

// TestKeepSchema looks at databases that are not this release's: they stay as they are.
func TestKeepSchema(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		db := d.handle(t)
		look := &sqlstore.Options{Prefix: d.prefix, KeepSchema: true}
		if _, err := sqlstore.Open(ctx, db, d.dialect, look); !errors.Is(err, sqlstore.ErrOlderSchema) || !strings.Contains(err.Error(), "pushstore migrate") {
			t.Errorf("without tables: %v", err)
		}
		if _, err := db.Exec("SELECT version FROM " + d.prefix + "schema"); err == nil {
			t.Error("a look made tables")
		}
		first := steps(t, d)
		for name := range first {
			if !strings.HasSuffix(name, "/0001.sql") {
				delete(first, name)
			}
		}
		if err := sqlstore.Migrate(ctx, db, d.dialect, d.prefix, first); err != nil {
			t.Fatal(err)
		}
		if _, err := sqlstore.Open(ctx, db, d.dialect, look); !errors.Is(err, sqlstore.ErrOlderSchema) {
			t.Errorf("of an earlier release: %v", err)
		}
		if v, _ := version(t, d, db); v != 1 {
			t.Errorf("a look changed version 1 to %d", v)
		}
		d.open(t, nil)
		if _, err := sqlstore.Open(ctx, db, d.dialect, look); err != nil {
			t.Errorf("of this release: %v", err)
		}
	})
}

func TestUpgrade(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		mustEnable(t, s, registration(account(0), "n1", 0), 0)
		db := d.handle(t)

		broken := withStep(t, d, "ALTER TABLE {prefix}registrations ADD COLUMN extra TEXT; CREATE TABLE {prefix}registrations (a TEXT);")
		if err := sqlstore.Migrate(ctx, db, d.dialect, d.prefix, broken); err == nil || !strings.Contains(err.Error(), "9999.sql") {
			t.Errorf("a migration that fails returned %v, without the file's name", err)
		}
		if _, err := db.Exec("SELECT extra FROM " + d.table()); err == nil {
			t.Error("a migration that failed left a part of it")
		}
		if v, _ := version(t, d, db); v != len(steps(t, d)) {
			t.Errorf("a migration that failed left version %d", v)
		}

		next := withStep(t, d, "ALTER TABLE {prefix}registrations ADD COLUMN extra TEXT")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				err := sqlstore.Migrate(ctx, db, d.dialect, d.prefix, next)
				if err != nil && !strings.Contains(err.Error(), "database is locked") { // which Open would try again
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if v, _ := version(t, d, db); v != len(steps(t, d))+1 {
			t.Errorf("the schema is at version %d", v)
		}
		if n := len(mustList(t, s, account(0))); n != 1 {
			t.Errorf("%d registrations after the upgrade, want 1", n)
		}
	})
}

func TestOpenWithoutRightToCreate(t *testing.T) {
	d := newPostgres(t)
	db := d.handle(t)
	d.open(t, nil)
	user := strings.TrimSuffix(d.prefix, "_")
	for _, q := range []string{"CREATE ROLE " + user + " LOGIN", "GRANT SELECT, INSERT, UPDATE, DELETE ON " + d.table() + ", " + d.prefix + "kept TO " + user,
		"GRANT SELECT ON " + d.prefix + "schema TO " + user} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	d.where = strings.Replace(d.where, "postgres@", user+"@", 1)
	s := d.open(t, nil)
	mustEnable(t, s, registration(account(0), "n1", 0), 5)
	if err := s.Update(ctx, account(0), registration("", "n1", 0).Key, pushErrors(1)); err != nil {
		t.Error(err)
	}
	if err := s.Keep(ctx, account(0), []byte("state")); err != nil {
		t.Error(err)
	}
	mustRemove(t, s, account(0), push.Key{})
}

func TestOptionsAreChecked(t *testing.T) {
	d := newSQLite(t)
	db := d.handle(t)
	keeper := d.open(t, &sqlstore.Options{Owner: strings.Repeat("o", sqlstore.MaxKey-len(account(0)))})
	if err := keeper.Keep(ctx, account(0), []byte("state")); err != nil {
		t.Errorf("the longest owner that is allowed: %v", err)
	}
	if err := keeper.Keep(ctx, account(0)+"m", nil); !errors.Is(err, sqlstore.ErrTooLong) || !strings.Contains(err.Error(), fmt.Sprint(sqlstore.MaxKey+1, " bytes")) {
		t.Errorf("an owner that is too long: got %v, want ErrTooLong", err)
	}
	for name, o := range map[string]*sqlstore.Options{
		"prefix":         {Prefix: "push; DROP TABLE x; --"},
		"long prefix":    {Prefix: strings.Repeat("p", 33)},
		"missing key":    {Keys: sqlstore.Keyring{Current: "k"}},
		"short key":      {Keys: sqlstore.Keyring{Keys: map[string][]byte{"k": make([]byte, 16)}}},
		"key without ID": {Keys: sqlstore.Keyring{Keys: map[string][]byte{"": make([]byte, 32)}}},
	} {
		if _, err := sqlstore.Open(ctx, db, d.dialect, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for what, r := range map[string]push.Registration{
		"account": {Account: strings.Repeat("a", sqlstore.MaxKey-1), Key: push.Key{Service: "s", Node: "n"}},
		"service": {Account: "a", Key: push.Key{Service: strings.Repeat("s", sqlstore.MaxKey-1), Node: "n"}},
		"node":    {Account: "a", Key: push.Key{Service: "s", Node: strings.Repeat("n", sqlstore.MaxKey-1)}},
	} {
		if _, err := d.open(t, nil).Enable(ctx, r, 5); !errors.Is(err, sqlstore.ErrTooLong) || !strings.Contains(err.Error(), fmt.Sprint(sqlstore.MaxKey+1, " bytes")) {
			t.Errorf("a %s that is too long: got %v, want ErrTooLong", what, err)
		}
	}
}

func TestLongestKey(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		s := d.open(t, nil)
		r := registration(account(0), "", 0)
		// Something that does not compress, as PostgreSQL compresses long keys.
		for i := 0; len(r.Account)+len(r.Service)+len(r.Node) < sqlstore.MaxKey; i++ {
			r.Node += string(rune('!' + (i*i*7919+i*31)%90))
		}
		mustEnable(t, s, r, 5)
		if rs := mustList(t, s, r.Account); len(rs) != 1 || rs[0].Node != r.Node {
			t.Error("the longest key that is allowed was not kept")
		}
	})
}
