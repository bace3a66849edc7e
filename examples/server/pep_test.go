package main

import (
	"fmt"
	"testing"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// TestPEP publishes to nodes with different rights, and looks at what others are told and may read.
func TestPEP(t *testing.T) {
	bubble(t, func(w *world) {
		juliet, laptop := w.connect("juliet", "phone"), w.connect("juliet", "laptop")
		romeo, nurse := w.connect("romeo", "balcony"), w.connect("nurse", "n")
		// Romeo sees Juliet's presence, the nurse does not.
		w.ok(romeo.Send(element.New("", "presence", "type", "subscribe", "to", "juliet@localhost")))
		_, err := juliet.Receive(w.ctx(), func(e *element.Element) bool { return e.Get("type") == "subscribe" })
		w.ok(err)
		w.ok(juliet.Send(element.New("", "presence", "type", "subscribed", "to", "romeo@localhost")))
		_, err = romeo.Receive(w.ctx(), func(e *element.Element) bool { return e.Get("type") == "subscribed" })
		w.ok(err)

		publish := func(node, id, text string, options ...string) {
			t.Helper()
			p := element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "publish", "node", node).Add(
				element.New(nsPubsub, "item", "id", id).Add(element.New("urn:example", "x").Add(text))))
			if options != nil {
				p.Add(element.New(nsPubsub, "publish-options").Add(element.Form("submit", nsPubsubOpts, options...)))
			}
			_, err := juliet.Request(w.ctx(), "set", "", p)
			w.ok(err)
		}
		read := func(c *peer.Client, to, node string, ids ...string) (got string) {
			t.Helper()
			items := element.New(nsPubsub, "items", "node", node)
			for _, id := range ids {
				items.Add(element.New(nsPubsub, "item", "id", id))
			}
			reply, err := c.Request(w.ctx(), "get", to, element.New(nsPubsub, "pubsub").Add(items))
			if err != nil {
				return reply.Child("", "error").First().Name.Local
			}
			for _, i := range reply.First().First().Children() {
				got += fmt.Sprint(i.Get("id"), "=", i.First().Text(), " ")
			}
			return got
		}
		event := func(c *peer.Client, node string) *element.Element {
			t.Helper()
			e, err := c.Receive(w.ctx(), func(e *element.Element) bool {
				return e.Child(nsPubsubEvent, "event") != nil && e.Child(nsPubsubEvent, "event").First().Get("node") == node
			})
			w.ok(err)
			return e.Child(nsPubsubEvent, "event").First()
		}
		anyEvent := func(e *element.Element) bool { return e.Child(nsPubsubEvent, "event") != nil }

		publish("a", "1", "one")
		publish("a", "2", "two")
		publish("many", "1", "one", "pubsub#max_items", "max", "pubsub#access_model", "open")
		publish("many", "2", "two")
		publish("many", "1", "again")
		publish("secret", "1", "s", "pubsub#access_model", "whitelist")
		for _, c := range []struct {
			who      *peer.Client
			to, node string
			ids      []string
			want     string
		}{
			{juliet, "", "a", nil, "2=two "}, // one item unless more are asked for
			{juliet, "", "many", nil, "2=two 1=again "},
			{juliet, "", "many", []string{"2", "9"}, "2=two "},
			{juliet, "", "none", nil, "item-not-found"},
			{romeo, "juliet@localhost", "a", nil, "2=two "},
			{nurse, "juliet@localhost", "a", nil, "not-authorized"},
			{nurse, "juliet@localhost", "many", nil, "2=two 1=again "},
			{juliet, "", "secret", nil, "1=s "},
			{romeo, "juliet@localhost", "secret", nil, "not-authorized"},
		} {
			if got := read(c.who, c.to, c.node, c.ids...); got != c.want {
				t.Errorf("%s reads %q at %s: %q, want %q", c.who.JID, c.ids, c.node, got, c.want)
			}
		}
		for _, c := range []*peer.Client{laptop, romeo} {
			if got := event(c, "a").First(); got.Get("id") != "1" || got.First().Text() != "one" {
				t.Errorf("told %s", got)
			}
		}
		event(laptop, "secret")
		w.nothing(nurse, "an event", anyEvent)
		w.nothing(romeo, "a private event", func(e *element.Element) bool {
			return anyEvent(e) && e.Child(nsPubsubEvent, "event").First().Get("node") == "secret"
		})

		do := func(space, local, node string, item ...any) error {
			_, err := juliet.Request(w.ctx(), "set", "", element.New(space, "pubsub").Add(element.New(space, local, "node", node).Add(item...)))
			return err
		}
		w.ok(do(nsPubsub, "retract", "many", element.New(nsPubsub, "item", "id", "2")))
		w.ok(do(nsPubsubOwner, "purge", "secret"))
		w.ok(do(nsPubsubOwner, "delete", "a"))
		for node, want := range map[string]string{"many": "1=again ", "secret": "", "a": "item-not-found"} {
			if got := read(juliet, "", node); got != want {
				t.Errorf("at %s: %q, want %q", node, got, want)
			}
		}
		if do(nsPubsub, "retract", "many", element.New(nsPubsub, "item", "id", "2")) == nil || do(nsPubsubOwner, "delete", "a") == nil || do(nsPubsub, "publish", "") == nil {
			t.Error("what is not there was removed, or published nowhere")
		}
		// Somebody else does not publish here.
		if _, err := romeo.Request(w.ctx(), "set", "juliet@localhost", element.New(nsPubsub, "pubsub").Add(
			element.New(nsPubsub, "publish", "node", "a").Add(element.New(nsPubsub, "item").Add(element.New("urn:example", "x"))))); err == nil {
			t.Error("published to somebody else's node")
		}
		for _, c := range []*peer.Client{juliet, laptop, romeo, nurse} {
			c.Close()
		}
	})
}
