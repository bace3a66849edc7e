package sqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
)

// TestDefaults: without Options a Store caches some thousand accounts.
func TestDefaults(t *testing.T) {
	s, err := sqlstore.Open(ctx, newSQLite(t).fast().handle(t), sqlstore.SQLite, nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000
	mustEnable(t, s, registration(account(0), "n", 0), 5)
	before := s.Stats()
	for range 2 {
		for i := range n {
			mustList(t, s, account(i))
		}
	}
	if got := s.Stats(); got.Lists-before.Lists != 2*n || got.Queries-before.Queries > n {
		t.Errorf("%d accounts were listed twice: %+v, before %+v", n, got, before)
	}
}

// TestCorruptRowsAreLogged: where nobody else wants to know.
func TestCorruptRowsAreLogged(t *testing.T) {
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(old)
	d := newSQLite(t)
	s := d.open(t, nil)
	mustEnable(t, s, registration(account(0), "n1", 0), 5)
	if _, err := d.handle(t).Exec("UPDATE " + d.table() + " SET options = CAST('" + plainSecret + "' AS BLOB)"); err != nil {
		t.Fatal(err)
	}
	if rs := mustList(t, s, account(0)); len(rs) != 0 {
		t.Errorf("an unreadable row was returned: %+v", rs)
	}
	if !strings.Contains(out.String(), "level=ERROR") || !strings.Contains(out.String(), account(0)) || strings.Contains(out.String(), plainSecret) {
		t.Errorf("logged was %q", out.String())
	}
}

// TestErrorsNameTheCall: whoever reads a log has to know what failed, and for whom.
func TestErrorsNameTheCall(t *testing.T) {
	d := newSQLite(t)
	db := d.handle(t)
	s, err := d.tryOpen(db, &sqlstore.Options{CacheSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, call := range storeCalls {
		_, err := call(s)
		if err == nil || !strings.HasPrefix(err.Error(), "sqlstore: ") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name != "All" && name != "Kept" && name != "Count" && name != "Purge" && name != "Reseal" && !strings.Contains(err.Error(), account(0)) {
			t.Errorf("%s: the account is not named: %v", name, err)
		}
		if errors.Is(err, push.ErrNotRegistered) || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for k, v := range map[string]string{"List": "list", "Enable another": "enable", "Update errors": "update", "Remove one": "remove", "Keep": "keep", "Count": "count", "Purge": "purge", "Reseal": "reseal"} {
		if _, err := storeCalls[k](s); err == nil || !strings.Contains(err.Error(), fmt.Sprint("sqlstore: ", v)) {
			t.Errorf("%s: %v", k, err)
		}
	}
}
