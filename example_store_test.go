package push_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// table is a Store of one's own, over whatever keeps rows by account; here a map. What an enable does is Enroll's to say, which names a registration
// is Key.Names', and what a reply does to its health is Update.Apply's: a Store only reads, changes and writes in one transaction.
type table struct {
	mu   sync.Mutex // the transaction
	rows map[string][]push.Registration
}

// copies returns rows that the caller may change, as a database would.
func copies(rows []push.Registration) []push.Registration {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Options = slices.Clone(rows[i].Options)
		for j := range rows[i].Options {
			rows[i].Options[j].Values = slices.Clone(rows[i].Options[j].Values)
		}
	}
	return rows
}

func (t *table) List(_ context.Context, account string) ([]push.Registration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return copies(t.rows[account]), nil
}

func (t *table) Enable(_ context.Context, r push.Registration, limit int) ([]push.Registration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := copies(t.rows[r.Account])
	stored, write, evicted := push.Enroll(before, r, limit)
	rows := slices.Clone(t.rows[r.Account])
	if write {
		rows = slices.DeleteFunc(rows, func(o push.Registration) bool { return o.Key == stored.Key })
		rows = append(rows, copies([]push.Registration{stored})...)
	}
	t.rows[r.Account] = slices.DeleteFunc(rows, func(o push.Registration) bool { return slices.Contains(evicted, o.Key) })
	return before, nil
}

func (t *table) Remove(_ context.Context, account string, k push.Key) (removed []push.Key, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[account] = slices.DeleteFunc(t.rows[account], func(o push.Registration) bool {
		if !k.Names(o.Key) {
			return false
		}
		removed = append(removed, o.Key)
		return true
	})
	return removed, nil
}

func (t *table) Update(_ context.Context, account string, k push.Key, u push.Update) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.rows[account] {
		if r := &t.rows[account][i]; r.Key == k {
			r.Health = u.Apply(r.Health)
			return nil
		}
	}
	return push.ErrNotRegistered
}

// A Store of one's own. pushtest.Store tells whether it keeps the contract.
func ExampleStore() {
	ctx := context.Background()
	store := &table{rows: make(map[string][]push.Registration)}
	accept := push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })
	phone := push.SessionID{Account: "juliet@example.com", ID: "c2s-17"}

	engine, _ := push.New(push.Config{Host: "example.com", Publisher: accept, Store: store})
	engine.Handle(ctx, push.SessionOpen{Session: phone})
	engine.Handle(ctx, push.PushEnable{Session: phone, Key: push.Key{Service: "push.example.net", Node: "n1"}})
	engine.Close(ctx) // the server stops

	engine, _ = push.New(push.Config{Host: "example.com", Publisher: accept, Store: store})
	defer engine.Close(ctx)
	d, _ := engine.Handle(ctx, push.Offline{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}})
	fmt.Println(d.Verdicts[0].Node, d.Verdicts[0].Notify, d.Verdicts[0].Reason.Sentence())
	// Output: n1 true message stored offline
}

// Registrations of another server, Prosody's mod_cloud_notify for instance, are written as the enables that they came from, checked, and stored. Then each
// account's devices are woken once, so that they connect.
func ExampleStore_import() {
	ctx := context.Background()
	old := []struct {
		account, jid, node, form, client string
		seconds                          int64
	}{{
		"juliet@example.com", "push.example.net", "n1", `<x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE"><value>` +
			`http://jabber.org/protocol/pubsub#publish-options</value></field><field var="secret"><value>s3</value></field></x>`, "", 1767225600,
	}, {
		"juliet@example.com", "no JID, this", "n2", "", "", 1767225600,
	}}
	escape := func(s string) string {
		var b strings.Builder
		xml.EscapeText(&b, []byte(s))
		return b.String()
	}
	store := push.NewMemoryStore() // yours, or that of store/sql
	for _, o := range old {
		iq := fmt.Sprintf(`<iq type="set" id="i"><enable xmlns="urn:xmpp:push:0" jid="%s" node="%s">%s</enable></iq>`, escape(o.jid), escape(o.node), o.form)
		req, err := push.ParseRequest(push.SessionID{Account: o.account}, []byte(iq))
		if err != nil || req.Refusal != nil {
			fmt.Println("left out:", o.account, o.jid, o.node)
			continue
		}
		ev := req.Event.(push.PushEnable)
		r := push.Registration{Account: o.account, Key: ev.Key, Options: ev.Options, Client: o.client, Enabled: time.Unix(o.seconds, 0)}
		if _, err := store.Enable(ctx, r, 5); err != nil {
			fmt.Println(err)
		}
	}

	engine, _ := push.New(push.Config{Host: "example.com", Store: store, Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
		fmt.Println("woken:", n.Account, n.Node)
		return nil
	})})
	engine.Handle(ctx, push.Ping{Account: "juliet@example.com"})
	engine.Close(ctx)
	// Output:
	// left out: juliet@example.com no JID, this n2
	// woken: juliet@example.com n1
}

// A session that goes on after a restart, because its client resumes it, is restored with what it was bound to: its device counts as asleep, and not as gone.
func ExampleSessionRestored() {
	ctx := context.Background()
	store := &table{rows: map[string][]push.Registration{
		"juliet@example.com": {{Account: "juliet@example.com", Key: push.Key{Service: "push.example.net", Node: "n1"}}},
	}}
	engine, _ := push.New(push.Config{
		Host: "example.com", Store: store,
		Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }),
	})
	defer engine.Close(ctx)
	phone := push.SessionID{Account: "juliet@example.com", ID: "c2s-17"}
	engine.Handle(ctx, push.SessionRestored{
		Session: phone, JID: "juliet@example.com/phone",
		Bound: push.Key{Service: "push.example.net", Node: "n1"}, IsBound: true, Hibernated: true,
	})
	st := push.Stanza{ID: "m1", From: "romeo@example.net", To: "juliet@example.com", Class: push.ClassImportant}
	for _, ev := range []push.Event{push.ArchiveAdded{Account: "juliet@example.com", Stanza: st}, push.StanzaQueued{Session: phone, Stanza: st}} {
		d, _ := engine.Handle(ctx, ev)
		fmt.Println(ev.Name(), d.Verdicts[0].Notify, d.Verdicts[0].Reason.Sentence())
	}
	// Output:
	// archive-added false session hibernated: left to stanza-queued
	// stanza-queued true stanza queued for hibernated session
}

// Close sends what waits until its context ends, and says what it could not send. A Store that is a Keeper keeps that for the next start.
func ExampleEngine_Close() {
	engine, _ := push.New(push.Config{
		Host: "example.com",
		Publisher: push.PublisherFunc(func(ctx context.Context, _ *push.Notification) error {
			<-ctx.Done() // the push service does not answer
			return ctx.Err()
		}),
	})
	phone := push.Key{Service: "push.example.net", Node: "n1"}
	engine.Handle(context.Background(), push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: phone})
	engine.Handle(context.Background(), push.Offline{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}})

	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var unsent *push.UnsentError
	if errors.As(engine.Close(ctx), &unsent) {
		for _, u := range unsent.Unsent {
			fmt.Println(u.Account, u.Node, u.Class, u.Reason.Sentence())
		}
	}
	// Output: juliet@example.com n1 important engine closed
}
