package main

import (
	"context"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
)

// How the user uses the account's sessions, and who wants to see its presence, for the push engine.

// becameActive is told when a client says that the user is back (XEP-0352). What the user sends is in the archive's events.
func (p *pushHost) becameActive(x *session) {
	p.tell(push.SessionActive{Session: x.id})
}

// announced is told of a session's presence (RFC 6121 §4.7.2.1).
func (p *pushHost) announced(x *session, presence *element.Element) {
	show := presence.Child("", "show").Text()
	away := show == "away" || show == "xa"
	if away != x.away {
		x.away = away
		p.tell(push.SessionPresence{Session: x.id, Away: away})
	}
}

// subscriptionKept is told of a request for subscription that nobody is there to see.
func (p *pushHost) subscriptionKept(a *account, request *element.Element) {
	p.tell(push.Offline{Account: a.jid, Stanza: a.knows(describe(newID(), request))})
}

// PendingSubscriptions implements push.SubscriptionCounter.
func (p *pushHost) PendingSubscriptions(_ context.Context, jid string) (int, error) {
	a := p.srv.owner(jid)
	if a == nil {
		return 0, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.contacts(func(c *contact) bool { return c.Pending != nil })), nil
}
