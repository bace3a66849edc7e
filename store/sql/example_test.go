package sqlstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/postgres"
	"github.com/xmpp-push/push/store/sql/sqlite"
)

// A server that restarts knows its registrations.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	for _, life := range []string{"first", "second"} {
		db, err := sqlite.Open(filepath.Join(dir, "push.db"))
		if err != nil {
			panic(err)
		}
		store, err := sqlstore.Open(ctx, db, sqlstore.SQLite, &sqlstore.Options{CacheFor: -1}) // nobody else writes to it
		if err != nil {
			panic(err)
		}
		engine, err := push.New(push.Config{
			Host:      "example.com",
			Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }),
			Store:     store,
		})
		if err != nil {
			panic(err)
		}
		session := push.SessionID{Account: "juliet@example.com", ID: life}
		if life == "first" {
			_, err = engine.Handle(ctx, push.PushEnable{Session: session, Key: push.Key{Service: "push.example.net", Node: "n1"}})
		} else {
			var d push.Decision
			d, err = engine.Handle(ctx, push.Ping{Account: session.Account})
			fmt.Println(len(d.Verdicts), "registration, notified:", d.Verdicts[0].Notify)
		}
		if err != nil {
			panic(err)
		}
		if err := engine.Close(ctx); err != nil {
			panic(err)
		}
		if err := db.Close(); err != nil { // after the engine
			panic(err)
		}
	}
	// Output: 1 registration, notified: true
}

// Registrations that were not used for a year go. Run it once a day.
func ExampleStore_Purge() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	db, err := sqlite.Open(filepath.Join(dir, "push.db"))
	if err != nil {
		panic(err)
	}
	defer db.Close()
	ctx := context.Background()
	store, err := sqlstore.Open(ctx, db, sqlstore.SQLite, nil)
	if err != nil {
		panic(err)
	}
	n, err := store.Purge(ctx, sqlstore.Filter{Before: time.Now().AddDate(-1, 0, 0)})
	fmt.Println(n, err)
	// Output: 0 <nil>
}

// Several nodes on one PostgreSQL: each listens for the changes of the others.
func ExampleStore_cluster() {
	run := func(ctx context.Context, url string, publisher push.Publisher) error {
		db, err := postgres.Open(url)
		if err != nil {
			return err
		}
		defer db.Close()
		store, err := sqlstore.Open(ctx, db, sqlstore.Postgres, &sqlstore.Options{CacheFor: -1}) // the listener keeps it fresh
		if err != nil {
			return err
		}
		engine, err := push.New(push.Config{Host: "example.com", Publisher: publisher, Store: store})
		if err != nil {
			return err
		}
		listener := postgres.Listener{URL: url, Store: store, Changed: func(ctx context.Context, account string) {
			if account != "" {
				_ = engine.Refresh(ctx, account) // it logs what fails
				return
			}
			// Connected again: Refresh the accounts that have a session here.
		}}
		return listener.Run(ctx)
	}
	_ = run
}
