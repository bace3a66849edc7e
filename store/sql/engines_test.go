package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/postgres"
)

// node is an engine with a store of its own, as each machine of a cluster has.
type node struct {
	*push.Engine
	store *sqlstore.Store
	// refreshed gets each account that another node changed, after the engine was told.
	refreshed chan string
	sent      chan push.Key
}

func newNode(tb testing.TB, d database, o *sqlstore.Options, limit int) *node {
	tb.Helper()
	n := &node{store: d.open(tb, o), refreshed: make(chan string, 10_000), sent: make(chan push.Key, 10_000)}
	var err error
	n.Engine, err = push.New(push.Config{
		Host: "example.com",
		Publisher: push.PublisherFunc(func(_ context.Context, p *push.Notification) error {
			n.sent <- p.Key
			return nil
		}),
		Store:  n.store,
		Policy: push.Policy{MaxRegistrations: limit},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return n
}

// listen has the engine told of other nodes' changes.
func (n *node) listen(t *testing.T, d database) {
	t.Helper()
	l := postgres.Listener{URL: d.where, Store: n.store, Changed: func(ctx context.Context, account string) {
		if account != "" {
			if err := n.Refresh(ctx, account); err != nil && !errors.Is(err, push.ErrClosed) && ctx.Err() == nil {
				t.Error(err)
			}
		}
		n.refreshed <- account
	}}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	want(t, n.refreshed, "")
}

func (n *node) handle(t *testing.T, ev push.Event) push.Decision {
	t.Helper()
	d, err := n.Handle(ctx, ev)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// kept returns the nodes of the registrations that the engine knows.
func (n *node) kept(t *testing.T, account string) (nodes []string) {
	t.Helper()
	st, err := n.Inspect(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range st.Registrations {
		nodes = append(nodes, r.Node)
	}
	slices.Sort(nodes)
	return nodes
}

func stored(t *testing.T, s push.Store, account string) (nodes []string) {
	t.Helper()
	for _, r := range mustList(t, s, account) {
		nodes = append(nodes, r.Node)
	}
	slices.Sort(nodes)
	return nodes
}

func TestTwoEngines(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		const limit, each = 3, 30
		o := &sqlstore.Options{CacheSize: -1}
		ns := []*node{newNode(t, d, o, limit), newNode(t, d, o, limit)}
		var wg sync.WaitGroup
		enabled := make([][]string, len(ns))
		for i, n := range ns {
			if d.dialect == sqlstore.Postgres {
				n.listen(t, d)
			}
			session := push.SessionID{Account: account(0), ID: fmt.Sprint("s", i)}
			n.handle(t, push.SessionOpen{Session: session})
			wg.Go(func() {
				for j := range each {
					k := push.Key{Service: "push.example.net", Node: fmt.Sprint(i, "-", j)}
					if _, err := n.Handle(ctx, push.PushEnable{Session: session, Key: k}); err != nil {
						t.Error(err)
					}
					enabled[i] = append(enabled[i], k.Node)
					if got := stored(t, n.store, account(0)); len(got) > limit {
						t.Errorf("%d registrations at a limit of %d", len(got), limit)
					}
				}
			})
		}
		wg.Wait()
		// What is left are the newest: no node lost the last that it enabled to an older one of the other.
		left := stored(t, d.open(t, o), account(0))
		if len(left) != limit {
			t.Fatalf("left are %v, want %d", left, limit)
		}
		for _, node := range left {
			if i := int(node[0] - '0'); slices.Index(enabled[i], node) < each-limit {
				t.Errorf("left are %v, of which %s is none of the last %d", left, node, limit)
			}
		}
		if d.dialect != sqlstore.Postgres {
			return // the engines keep an account with a session as it was, until they are told to Refresh it
		}
		for i, n := range ns {
			// One more change elsewhere, so that all notices before it were heard.
			other := registration(fmt.Sprint("end", i, "@example.com"), "n", 0)
			mustEnable(t, d.open(t, nil), other, 0)
			for got := ""; got != other.Account; {
				got = <-n.refreshed
			}
			if got := n.kept(t, account(0)); !slices.Equal(got, left) {
				t.Errorf("engine %d keeps %v, stored are %v", i, got, left)
			}
		}
	})
}

// TestDisabledElsewhere disables push on one node; the other, which keeps the account because of a session, stops notifying.
func TestDisabledElsewhere(t *testing.T) {
	d := newPostgres(t)
	o := &sqlstore.Options{CacheFor: -1}
	here, there := newNode(t, d, o, 5), newNode(t, d, o, 5)
	here.listen(t, d)
	there.listen(t, d)
	k := push.Key{Service: "push.example.net", Node: "n1"}
	session := push.SessionID{Account: account(0), ID: "s"}
	offline := func(n *node, id string) bool {
		dec := n.handle(t, push.Offline{Account: account(0), Stanza: push.Stanza{ID: id, Kind: push.KindMessage, To: account(0), Class: push.ClassImportant}})
		return len(dec.Verdicts) == 1 && dec.Verdicts[0].Notify
	}
	if offline(there, "m0") {
		t.Error("notified without a registration")
	}
	here.handle(t, push.SessionOpen{Session: session})
	here.handle(t, push.PushEnable{Session: session, Key: k})
	want(t, there.refreshed, account(0))
	if !offline(there, "m1") {
		t.Error("an enable of the other node is not seen, although the cache had the account as unknown")
	}
	if got := <-there.sent; got != k {
		t.Errorf("published to %v", got)
	}
	want(t, here.refreshed, account(0)) // the success of there
	there.handle(t, push.PushDisable{Session: session, Key: k})
	want(t, here.refreshed, account(0))
	if offline(here, "m2") {
		t.Error("notified after the other node disabled it")
	}
}

// TestQueriesAnEvent counts what offline events of accounts without sessions cost the database.
func TestQueriesAnEvent(t *testing.T) {
	backends(t, func(t *testing.T, plain database) {
		d, r := plain.record(t)
		n := newNode(t, d, nil, 5)
		mustEnable(t, n.store, registration(account(0), "n1", 0), 5)
		if err := n.store.Update(ctx, account(0), registration("", "n1", 0).Key, push.Update{Succeeded: time.Now()}); err != nil {
			t.Fatal(err)
		}
		// What was kept is read before the first event is decided.
		n.handle(t, push.Offline{Account: account(2), Stanza: push.Stanza{ID: "m0", Kind: push.KindMessage, To: account(2), Class: push.ClassImportant}})
		for name, a := range map[string]string{"registered": account(0), "unknown": account(1)} {
			for i, want := range []int{1, 0, 0} {
				r.count()
				n.handle(t, push.Offline{Account: a, Stanza: push.Stanza{ID: fmt.Sprint("m", i), Kind: push.KindMessage, To: a, Class: push.ClassImportant}})
				if name == "registered" {
					<-n.sent
				}
				if got := r.count(); got != want {
					t.Errorf("event %d of an account that is %s: %d queries, want %d", i+1, name, got, want)
				}
			}
		}
	})
}
