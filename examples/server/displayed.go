package main

import (
	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// What the user has seen on some device, for the push engine: an item that a client publishes (XEP-0490). Markers (XEP-0333) and replies need nothing here: they
// are in the account's archive.

const nsDisplayed = "urn:xmpp:mds:displayed:0"

// wasPublished tells of an item that a client has published.
func (x *session) wasPublished(node string, item *element.Element) {
	if node != nsDisplayed {
		return
	}
	chat, err := jid.Parse(item.Get("id"))
	upTo := item.Child(nsDisplayed, "displayed").Child(nsStanID, "stanza-id").Get("id")
	if err != nil || upTo == "" {
		return
	}
	x.acct.srv.push.tell(push.Displayed{Account: x.acct.jid, Chat: chat.String(), UpTo: upTo, Session: x.id.ID})
}
