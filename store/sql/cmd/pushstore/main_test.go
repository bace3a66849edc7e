package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const secret = "xyzzy-the-plain-secret"

// store opens what the command works on, as a server has it open.
func store(t *testing.T, database string) *sqlstore.Store {
	t.Helper()
	db, dialect, err := open(database, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := sqlstore.Open(context.Background(), db, dialect, &sqlstore.Options{CacheSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func command(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errOut strings.Builder
	err = run(context.Background(), args, &out, &errOut)
	if strings.Contains(out.String()+errOut.String(), secret) {
		t.Errorf("%q printed the secret:\n%s%s", args, &out, &errOut)
	}
	return out.String() + errOut.String(), err
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...)
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

func TestCommands(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { testCommands(t, filepath.Join(t.TempDir(), "push.db")) })
	t.Run("postgres", func(t *testing.T) { testCommands(t, pgtest.Shared(t).URL) })
}

func testCommands(t *testing.T, database string) {
	ctx := context.Background()
	for _, look := range []string{"list", "reseal"} { // make no tables
		if _, err := command(t, "-database", database, "-prefix", "look_", look); err == nil {
			t.Errorf("%s of a database without tables", look)
		}
	}
	must(t, "-database", database, "migrate")
	s := store(t, database)
	for i, r := range []push.Registration{
		{Account: "juliet@example.com", Key: push.Key{Service: "push.example.net", Node: "n1"}},
		{Account: "juliet@example.com", Key: push.Key{Service: "push.example.net"}},
		{Account: "romeo@example.com", Key: push.Key{Service: "push.example.net", Node: "n1"}, Health: push.Health{Disabled: time.Now(), Cause: "gone"}},
		{Account: "nurse@example.com", Key: push.Key{Service: "other.example.net", Node: "n1"}},
		{Account: "nurse@example.com", Key: push.Key{Service: "push.example.net", Node: "n1"}},
	} {
		r.Options = []push.Field{{Var: "secret", Values: []string{secret}}}
		r.Enabled = time.Now().Add(-time.Duration(i) * 24 * time.Hour)
		if _, err := s.Enable(ctx, r, 5); err != nil {
			t.Fatal(err)
		}
	}
	count := func(filter ...string) int {
		t.Helper()
		return strings.Count(must(t, append([]string{"-database", database, "list"}, filter...)...), "\n")
	}
	for name, c := range map[string]struct {
		filter []string
		want   int
	}{
		"all":      {nil, 5},
		"account":  {[]string{"-account", "juliet@example.com"}, 2},
		"service":  {[]string{"-service", "other.example.net"}, 1},
		"disabled": {[]string{"-disabled"}, 1},
		"older":    {[]string{"-older", "60h"}, 2},
		"both":     {[]string{"-older", "60h", "-service", "push.example.net"}, 1},
	} {
		if got := count(c.filter...); got != c.want {
			t.Errorf("list %s: %d lines, want %d", name, got, c.want)
		}
	}
	var l line
	if err := json.Unmarshal([]byte(must(t, "-database", database, "list", "-disabled", "-json")), &l); err != nil || l.Cause != "gone" || l.Disabled == nil {
		t.Errorf("list -json: %+v, %v", l, err)
	}

	// Keys: from plain to k1, to k2.
	dir := t.TempDir()
	for id, digit := range map[string]string{"k1": "1", "k2": "2"} {
		if err := os.WriteFile(filepath.Join(dir, id), []byte(strings.Repeat(digit, 64)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k1, k2 := "k1="+filepath.Join(dir, "k1"), "k2="+filepath.Join(dir, "k2")
	for _, args := range [][]string{{"-key", k1, "-current", "k1"}, {"-key", k1, "-key", k2, "-current", "k2"}} {
		if out := must(t, append(append([]string{"-database", database}, args...), "reseal")...); !strings.HasPrefix(out, "5 ") {
			t.Errorf("reseal: %s", out)
		}
	}
	if out, err := command(t, "-database", database, "-key", k1, "-current", "k1", "reseal"); !errors.Is(err, sqlstore.ErrCorrupt) || !strings.Contains(out, "juliet") {
		t.Errorf("reseal without the key: %v\n%s", err, out)
	}
	if got := count(); got != 5 { // which needs no key
		t.Errorf("list of encrypted registrations: %d lines", got)
	}

	must(t, "-database", database, "delete", "juliet@example.com", "push.example.net", "n1")
	if _, err := command(t, "-database", database, "delete", "juliet@example.com", "push.example.net", "n1"); !errors.Is(err, push.ErrNotRegistered) {
		t.Errorf("deleting twice: %v", err)
	}
	if out := must(t, "-database", database, "delete", "juliet@example.com", "push.example.net"); !strings.HasPrefix(out, "1 ") {
		t.Errorf("delete of a service: %s", out)
	}
	if out := must(t, "-database", database, "purge", "-disabled"); !strings.HasPrefix(out, "1 ") {
		t.Errorf("purge: %s", out)
	}
	if out, err := command(t, "-database", database, "purge"); err == nil || !strings.Contains(err.Error(), "-account") {
		t.Errorf("purge without a filter: %v\n%s", err, out)
	}
	if got := count(); got != 2 {
		t.Errorf("%d registrations are left, want 2", got)
	}
	for _, name := range []string{"juliet@example.com", "romeo@example.com"} {
		if rs, err := s.List(ctx, name); err != nil || len(rs) != 0 {
			t.Errorf("the server still has %v, %v", rs, err)
		}
	}
}

func TestUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "push.db")
	t.Setenv("PUSH_DATABASE", "")
	for _, args := range [][]string{
		{}, {"list"}, {"-database", file}, {"-database", file, "no-such"}, {"-database", file, "delete", "juliet@example.com"},
		{"-database", file, "purge", "everything"}, {"-database", file, "-key", "k1", "reseal"}, {"-no-such"},
	} {
		if out, err := command(t, args...); !errors.Is(err, errUsage) || out == "" {
			t.Errorf("%q: %v, printed %q", args, err, out)
		}
	}
	t.Setenv("PUSH_DATABASE", "postgres://user:"+secret+"@127.0.0.1:1/") // which command looks for
	if _, err := command(t, "-h"); !errors.Is(err, errUsage) {
		t.Errorf("-h: %v", err)
	}
	if _, err := command(t, "list"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("the environment's database: %v", err)
	}
	if _, err := command(t, "-database", file, "list"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("list of a file that is not there: %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a typing error made a database")
	}
}
