package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	sqlstore "github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/postgres"
	"github.com/xmpp-push/push/store/sql/sqlite"
)

// A server's database becomes a cluster's, and a database again: everything that it had is there. PUSH_TEST_POSTGRES, a URL of a database that may be written to, tries that one too.
func TestFromDatabaseToClusterAndBack(t *testing.T) {
	databases := map[string]func(t *testing.T, name string) (*sql.DB, *sqlstore.Dialect){
		"SQLite": func(t *testing.T, name string) (*sql.DB, *sqlstore.Dialect) {
			db, err := sqlite.Open(filepath.Join(t.TempDir(), name+".db"))
			require.NoError(t, err)
			return db, sqlstore.SQLite
		},
	}
	if url := os.Getenv("PUSH_TEST_POSTGRES"); url != "" && url != "none" {
		databases["PostgreSQL"] = func(t *testing.T, _ string) (*sql.DB, *sqlstore.Dialect) {
			db, err := postgres.Open(url)
			require.NoError(t, err)
			return db, sqlstore.Postgres
		}
	}
	for name, open := range databases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			store := func(prefix string) *sqlstore.Store {
				db, dialect := open(t, prefix)
				t.Cleanup(func() { _ = db.Close() })
				s, err := sqlstore.Open(ctx, db, dialect, &sqlstore.Options{Prefix: "move_" + prefix + "_"})
				require.NoError(t, err)
				_, err = s.Purge(ctx, sqlstore.Filter{Service: "push.example.net"}) // what an earlier run has left
				require.NoError(t, err)
				return s
			}
			before, after := store("before"), store("after")
			const accounts = 200
			now := time.Now().UTC().Truncate(time.Second)
			for i := range accounts {
				a := fmt.Sprintf("user%d@example.com", i)
				for d := range 2 {
					_, err := before.Enable(ctx, push.Registration{Account: a, Key: push.Key{Service: "push.example.net", Node: fmt.Sprint("n", d)}, Client: "c", Enabled: now,
						Options: []push.Field{{Var: "secret", Values: []string{a}}}}, 0)
					require.NoError(t, err)
				}
			}
			gone := push.Key{Service: "push.example.net", Node: "n1"}
			require.NoError(t, before.Update(ctx, "user7@example.com", gone, push.Update{Disabled: now, Cause: "item-not-found", Errors: 2}))

			srv, err := embedded.Start(embedded.Config{Dir: t.TempDir()})
			require.NoError(t, err)
			defer srv.Close()
			node, err := jetstream.Join(ctx, jetstream.Config{Conn: srv.Conn(), Node: "n0", Partitions: 8, Lease: time.Second, Push: push.Config{
				Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }),
			}})
			require.NoError(t, err)
			defer node.Close(ctx)
			n, err := node.Import(ctx, before, before.All(ctx, sqlstore.Filter{}))
			require.NoError(t, err)
			assert.Equal(t, 2*accounts, n)
			n, err = node.Export(ctx, after)
			require.NoError(t, err)
			assert.Equal(t, 2*accounts, n)
			for i := range accounts {
				a := fmt.Sprintf("user%d@example.com", i)
				want, err := before.List(ctx, a)
				require.NoError(t, err)
				got, err := after.List(ctx, a)
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
		})
	}
}
