package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
	"github.com/xmpp-push/push/wishes"
)

// TestWishes lets a phone ask for what Siskin asks for, and looks at what wakes it: filters, a room, who is away, a subscription request, what is read
// on the laptop.
func TestWishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, 3, push.Policy{TellRead: true})
		room := w.room()
		romeo, nurse := w.connect("romeo", "balcony"), w.connect("nurse", "kitchen")
		phone, laptop := w.connect("juliet", "phone"), w.connect("juliet", "laptop")
		befriend(w, phone, "juliet", romeo, "romeo")

		// Siskin's enable: filters as children, the session's away as an attribute.
		enable := element.New("urn:xmpp:push:0", "enable", "jid", pushDomain, "node", "phone", "away", "true").Add(
			element.New("tigase:push:filter:ignore-unknown:0", "ignore-unknown"),
			element.New("tigase:push:filter:muted:0", "muted").Add(element.New("tigase:push:filter:muted:0", "item", "jid", "paris@localhost")),
			element.New("tigase:push:filter:groupchat:0", "groupchat").Add(
				element.New("tigase:push:filter:groupchat:0", "room", "jid", room.JID, "allow", "mentioned", "nick", "Juliet")),
			element.New("tigase:push:priority:0", "priority"))
		_, err := phone.Request(w.ctx(), "set", "", enable)
		w.ok(err)

		// Connected and not away: nothing. Away everywhere: the phone asked for it.
		chat := func(c *peer.Client, text string) {
			t.Helper()
			_, err := c.Chat("juliet@localhost", text)
			w.ok(err)
		}
		show := func(c *peer.Client, what string) {
			p := element.New("", "presence")
			if what != "" {
				p.Add(element.New("", "show").Add(what))
			}
			w.ok(c.Send(p))
		}
		chat(romeo, "one")
		w.published(time.Minute)
		show(phone, "away")
		chat(romeo, "two")
		w.published(time.Minute)
		show(laptop, "xa")
		chat(romeo, "three")
		w.published(time.Minute, "phone alert")
		show(laptop, "")

		// Without a session: contacts only, and of the room what mentions Juliet.
		phone.Close()
		chat(nurse, "no contact")
		w.published(time.Minute)
		_, err = room.Say("tybalt", "Have at thee", "juliet@localhost")
		w.ok(err)
		w.published(time.Minute)
		_, err = room.Say("nurse", "Where is juliet?", "juliet@localhost")
		w.ok(err)
		w.published(time.Minute, "phone alert")
		chat(romeo, "four")
		w.published(time.Minute, "phone alert")

		// The laptop says how far it was read: the phone is told the new number, quietly.
		said, err := laptop.Receive(w.ctx(), func(e *element.Element) bool { return peer.BodyOf(e) == "four" })
		w.ok(err)
		item := element.New(nsPubsub, "item", "id", "romeo@localhost").Add(element.New(nsDisplayed, "displayed").Add(
			element.New(nsStanID, "stanza-id", "id", said.Child(nsStanID, "stanza-id").Get("id"), "by", "juliet@localhost")))
		_, err = laptop.Request(w.ctx(), "set", "", element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "publish", "node", nsDisplayed).Add(item)))
		w.ok(err)
		w.published(time.Minute, "phone plain")

		// The user's setting has a word as well: the bookmark says never.
		_, err = laptop.Request(w.ctx(), "set", "", element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "publish", "node", nsBookmarks).Add(
			element.New(nsPubsub, "item", "id", room.JID).Add(element.New(nsBookmarks, "conference").Add(
				element.New(nsBookmarks, "nick").Add("Juliet"),
				element.New(nsBookmarks, "extensions").Add(element.New(wishes.NSChatSettings, "notify").Add(element.New(wishes.NSChatSettings, "never"))))))))
		w.ok(err)
		_, err = room.Say("nurse", "Juliet!", "juliet@localhost")
		w.ok(err)
		w.published(time.Minute)

		// Somebody who is no contact asks to become one; the phone wants to hear of contacts only. Without that wish it is told.
		laptop.Close()
		ask := func(c *peer.Client) {
			w.ok(c.Send(element.New("", "presence", "type", "subscribe", "to", "juliet@localhost")))
		}
		ask(nurse)
		w.published(time.Minute)
		phone = w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "phone", ""))
		phone.Close()
		ask(nurse)
		w.published(time.Minute, "phone alert")
		seen := w.svc.Seen()
		if p := seen[len(seen)-1]; p.Count != "" || p.Requests != "1" {
			t.Errorf("message-count %q, want none; pending-subscription-count %q, want 1", p.Count, p.Requests)
		}
	})
}

// TestPrivateMessages reads what an occupant whispered on the laptop, as XEP-0490 names it, and leaves the room and the others unread.
func TestPrivateMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, 3, push.Policy{TellRead: true})
		room := w.room()
		laptop, phone := w.connect("juliet", "laptop"), w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "phone", ""))
		phone.Close()
		count := func(want string) {
			t.Helper()
			if seen := w.svc.Seen(); seen[len(seen)-1].Count != want {
				t.Errorf("message-count %q, want %q", seen[len(seen)-1].Count, want)
			}
		}
		_, err := room.Say("romeo", "aloud", "juliet@localhost")
		w.ok(err)
		w.published(time.Minute, "phone alert")
		w.ok(room.Whisper("nurse", "psst", "juliet@localhost"))
		w.published(time.Minute, "phone alert")
		w.ok(room.Whisper("romeo", "psst, psst", "juliet@localhost"))
		w.published(time.Minute, "phone alert")
		count("3")
		said, err := laptop.Receive(w.ctx(), func(e *element.Element) bool { return peer.BodyOf(e) == "psst, psst" })
		w.ok(err)
		item := element.New(nsPubsub, "item", "id", room.JID+"/romeo").Add(element.New(nsDisplayed, "displayed").Add(
			element.New(nsStanID, "stanza-id", "id", said.Child(nsStanID, "stanza-id").Get("id"), "by", "juliet@localhost")))
		_, err = laptop.Request(w.ctx(), "set", "", element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "publish", "node", nsDisplayed).Add(item)))
		w.ok(err)
		w.published(time.Minute, "phone plain")
		count("2")
	})
}

// TestInvitedThroughARoom invites somebody who is at two clients, one by its full address: the other gets a copy, and the phone without a session, for which the
// invitation is archived, is woken, as it wants of its contacts.
func TestInvitedThroughARoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		room := w.room()
		romeo, desk, laptop, phone := w.connect("romeo", "balcony"), w.connect("juliet", "desk"), w.connect("juliet", "laptop"), w.connect("juliet", "phone")
		befriend(w, romeo, "romeo", laptop, "juliet")
		w.ok(laptop.EnableCarbons(w.ctx()))
		_, err := phone.Request(w.ctx(), "set", "", element.New("urn:xmpp:push:0", "enable", "jid", pushDomain, "node", "phone").Add(
			element.New("tigase:push:filter:ignore-unknown:0", "ignore-unknown")))
		w.ok(err)
		phone.Close()
		w.ok(room.Invite("romeo@localhost/balcony", "juliet@localhost/desk"))
		w.published(time.Minute, "phone alert")
		for _, c := range []*peer.Client{desk, laptop} {
			_, err := c.Receive(w.ctx(), func(e *element.Element) bool {
				if received := e.Child(nsCarbons, "received"); received != nil {
					e = received.Child("urn:xmpp:forward:0", "forwarded").First()
				}
				return invitation(e)
			})
			w.ok(err)
		}
		w.ok(room.Invite("stranger@localhost/x", "juliet@localhost/desk"))
		w.published(time.Minute)
	})
}

// TestCallOutsideArchive calls an account that archives nothing: the phone without a session rings all the same, and stops.
func TestCallOutsideArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		romeo, laptop, phone := w.connect("romeo", "balcony"), w.connect("juliet", "laptop"), w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "phone", ""))
		phone.Close()
		_, err := laptop.Request(w.ctx(), "set", "", element.New(nsMAM, "prefs", "default", "never"))
		w.ok(err)
		call := func(action string) {
			w.ok(romeo.Send(element.New("", "message", "type", "chat", "to", "juliet@localhost").Add(
				element.New("urn:xmpp:jingle-message:0", action, "id", "c1"), element.New(nsHints, "store"))))
		}
		_, err = romeo.Chat("juliet@localhost", "one")
		w.ok(err)
		w.published(time.Minute)
		call("propose")
		w.published(time.Minute, "phone alert")
		call("retract")
		w.published(time.Minute, "phone plain")
	})
}

// room is a room at a component, which closes with the world.
func (w *world) room() *peer.Room {
	w.t.Helper()
	r, err := peer.ConnectRoom(pipe(w.srv.ServeComponent), "verona", "rooms.localhost", "secret")
	w.ok(err)
	w.t.Cleanup(r.Close)
	return r
}

// befriend makes two users contacts of each other.
func befriend(w *world, a *peer.Client, nameA string, b *peer.Client, nameB string) {
	w.t.Helper()
	for _, c := range []struct {
		from, to *peer.Client
		f, t     string
	}{{a, b, nameA, nameB}, {b, a, nameB, nameA}} {
		w.ok(c.from.Send(element.New("", "presence", "type", "subscribe", "to", c.t+"@localhost")))
		_, err := c.to.Receive(w.ctx(), func(e *element.Element) bool { return e.Get("type") == "subscribe" })
		w.ok(err)
		w.ok(c.to.Send(element.New("", "presence", "type", "subscribed", "to", c.f+"@localhost")))
		_, err = c.from.Receive(w.ctx(), func(e *element.Element) bool { return e.Get("type") == "subscribed" })
		w.ok(err)
	}
	synctest.Wait()
}
