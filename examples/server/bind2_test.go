package main

import (
	"strings"
	"testing"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// TestClientID is rule R14 on the wire: a client that has told its name is known again without a new enable.
func TestClientID(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		inline := func(client string) *peer.Client {
			t.Helper()
			l := w.login("juliet", "Phone")
			l.Client = client
			c, err := peer.Connect(pipe(w.srv.ServeClient), l)
			w.ok(err)
			w.ok(c.Available())
			return c
		}
		phone := inline("d4565fa7-4d72-4749-b3d3-740edbf87770")
		if !strings.HasPrefix(phone.JID, "juliet@localhost/Phone~") {
			t.Errorf("bound %s", phone.JID)
		}
		first := phone.JID
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", ""))
		phone.Close()
		romeo.Chat("juliet@localhost", "one")
		w.published(time.Second, "n1 alert")

		// It is back and does not enable again. It counts as online, so nobody is woken, and as hibernated later.
		phone = inline("d4565fa7-4d72-4749-b3d3-740edbf87770")
		if phone.JID != first {
			t.Errorf("bound %s, and %s before", phone.JID, first)
		}
		w.ok(phone.Body(w.ctx(), "one"))
		romeo.Chat("juliet@localhost", "two")
		w.ok(phone.Body(w.ctx(), "two"))
		w.published(time.Minute)
		w.drop(phone)
		romeo.Chat("juliet@localhost", "three")
		w.published(2*time.Second, "n1 alert")
		phone = w.resume(phone)
		w.ok(phone.Body(w.ctx(), "three"))
		romeo.Chat("juliet@localhost", "four")
		w.ok(phone.Body(w.ctx(), "four"))
		w.published(time.Minute)

		// Its carbon copies are on: what the account sends from elsewhere comes to it.
		other := inline("0f3a2f4e-5b66-4f0e-9f04-9a0f6e0c2a11")
		other.Chat("romeo@localhost", "mine")
		w.ok(phone.Body(w.ctx(), "mine"))

		// Another client is not it: the phone is woken for what that one gets.
		phone.Close()
		romeo.Chat("juliet@localhost", "five")
		w.ok(other.Body(w.ctx(), "five"))
		w.published(time.Second, "n1 alert")

		// The same client again takes the place of its older session.
		again := inline("0f3a2f4e-5b66-4f0e-9f04-9a0f6e0c2a11")
		if _, err := other.Receive(w.ctx(), func(*element.Element) bool { return false }); err != peer.ErrGone {
			t.Errorf("the older session: %v", err)
		}
		again.Close()
		romeo.Close()
	})
}
