package push

import (
	"time"

	"github.com/xmpp-push/push/wishes"
)

// The business rules: who is notified of an event, and why.
//
// A rule looks at one stanza of one event and at one registration of the account, and at nothing else; decide puts the rules in
// their order. The numbers R1 to R17 are used in the documentation, the tests and this file alike. Sources: Daniel Gultsch's rules on
// the XMPP standards list (2016-02-16), Prosody's mod_cloud_notify, XEP-0357 version 0.4.1.
//
// The order is: enabled, held, is a call over, is it news, does the event reach for the registration, are plain stanzas wanted, what the client (push2match.go)
// and the user asked for (wanted.go), once. The first no decides. A yes may still be vetoed by the host, and waits as pace.go has it.
//
// Classes say how much the user wants to know: urgent is an incoming call, important what the user should see, plain all else, which wakes a client
// silently. The table is in content.go.
//
// R1 (a session is bound to the registration it enabled last), R5 (a resumption drops what waits) and R14 (a client ID binds) say who
// has which registration rather than who is notified; they are in session.go.

// question is what a rule may look at.
type question struct {
	// event is which event it is.
	event trigger
	// mine: the event is about a session, and that session is bound to the registration.
	mine bool
	// unbound: the event is about a session that is bound to no registration; newer: because a newer session of the device has this one.
	unbound, newer bool
	// named: the event names the registration, or names none and so means all.
	named bool
	// own: the stanza in the archive was sent by the account, not to it.
	own bool
	// class and held are those of the stanza; a ping has none and is plain.
	class Class
	held  bool
	// history and noStore are the stanza's too: it was said before; it is stored nowhere.
	history, noStore bool
	// ends: it ends a call that the account was called by; rung: the registration was notified of that call; back: its device has come back since, and is
	// connected. over: it is a call that is over.
	ends, rung, back, over bool
	// wishes is what the client asked for, or nil.
	wishes *wishes.Wishes

	// disabled, live, hibernated and seen are about the registration: it is a tombstone; a session of its device is connected, one that is bound to it or,
	// by the client ID, to a newer registration; one is hibernated; it was notified of this stanza before.
	disabled, live, hibernated, seen bool

	// match is the number of the match of Push 2.0 that lets the stanza through, from 1, or 0.
	match int

	// lead: it is the first question about the event.
	lead bool
	// away: all of the account's connected sessions are away.
	away bool

	// skipPlain is the policy's. policy is all of it.
	skipPlain bool
	policy    *Policy

	// grace is how long the notification waits while the user is active in another session.
	grace time.Duration

	// detail is set by a rule that has more to say: what the host could not answer.
	detail string
}

// trigger is an event that can notify.
type trigger uint8

const (
	onAckDelayed trigger = iota
	onHibernationStart
	onStanzaQueued
	onHibernationEnd
	onArchiveAdded
	onOffline
	onGroupchat
	onPing
)

// decide answers for one stanza and one registration. The reason tells whether to notify. s is what is known of what the stanza st says, or nil
// if nobody asked for anything that depends on it.
func decide(q *question, st *Stanza, s *said) (Rule, Reason) {
	// R12. A registration that is not enabled is never published to (XEP-0357 §6): its push service has refused it, and its client has not enabled it again.
	// It is asked again when the publish is sent.
	if q.disabled {
		return RuleEnabled, ReasonDisabled
	}
	// R13. What client state indication holds back (XEP-0352) does not wake the client: holding it back was its wish.
	if q.held {
		return RuleCSI, ReasonHeld
	}
	// R15. A call is over, or was taken on another device: those devices that were rung are told, so that they stop (XEP-0353 §3). It rings nowhere any more.
	// A device that came back because it was rung is told by its session.
	if q.ends {
		if !q.rung {
			return RuleCallEnd, ReasonNotRung
		}
		if q.back {
			return RuleCallEnd, ReasonLive
		}
		q.match = anyMatch(q.wishes)
		return RuleCallEnd, ReasonCallEnded
	}
	if q.over { // it comes late, from a session that has lost it or from offline storage
		return RuleCallEnd, ReasonCallOver
	}
	// R16. What was said before is no news: a room's history, an archive's answer. The client asked for it.
	if q.history {
		return RuleContent, ReasonHistory
	}
	rule, reason := reach(q)
	if !reason.Notifies() {
		return rule, reason
	}
	// Policy. By default plain stanzas notify too: a client asked for stream management to get all of them.
	if q.class == ClassPlain && q.skipPlain && q.event != onPing {
		return rule, ReasonPlain
	}
	// R17. What the client asked for with Push 2.0, and what the user and the client asked for otherwise.
	if q.wishes != nil && q.wishes.Push2 != nil && st != nil && q.event != onPing {
		if rule, reason := matching(q, st, s); reason != ReasonNone {
			return rule, reason
		}
	}
	if s != nil {
		if rule, reason := wanted(q, st, s); reason != ReasonNone {
			return rule, reason
		}
	}
	// R11. Never twice for the same stanza and registration, whatever the events and their order, as long as it is remembered. The host's ID says which
	// stanza is the same; a request for subscription is the same whenever the same contact makes it, and a call whatever copy announces it.
	if q.seen {
		return RuleOnce, ReasonSeen
	}
	return rule, reason
}

// reach says whether the event by itself reaches for the registration.
func reach(q *question) (Rule, Reason) {
	switch q.event {

	// R2, R3, R4. A session that does not acknowledge, has lost its connection, or is hibernated: its own device is notified of
	// every stanza that it would have been sent, whatever the stanza is. (Gultsch 4a)
	case onAckDelayed:
		return RuleAckDelayed, forSession(q, ReasonUnacknowledged)
	case onHibernationStart:
		return RuleHibernation, forSession(q, ReasonConnectionLost)
	case onStanzaQueued:
		return RuleQueued, forSession(q, ReasonQueued)

	// R5. A session that is resumed gets its stanzas itself.
	case onHibernationEnd:
		return RuleResumed, forSession(q, ReasonResumed)

	// R6, R9. A message to the account was archived: all its devices are notified that have no session, since to the others it is sent
	// or R2 to R4 take care. A call cannot wait for a dead connection to be noticed, so it goes to those with a session too.
	// What the account sent itself, to others, is archived as well, and notifies nobody. (Gultsch 4b; mod_cloud_notify) A client may ask to be notified
	// also while every connected session is away (tigase:push:away:0).
	case onArchiveAdded:
		switch {
		case q.own:
			return RuleArchived, ReasonOwn
		case q.class == ClassUrgent:
			return RuleUrgent, ReasonCall
		case q.live && q.away && q.wishes != nil && q.wishes.Away:
			return RuleArchived, ReasonAway
		case q.live:
			return RuleArchived, ReasonLive
		case q.hibernated:
			return RuleArchived, ReasonHibernated
		}
		return RuleArchived, fetchable(q, ReasonNoSession)

	// R7, R9. A message went to offline storage: no session took it, so every device is notified, one with a connected session too: that has a negative
	// priority (RFC 6121 §8.5.2). (Gultsch 4c)
	case onOffline:
		if q.class == ClassUrgent {
			return RuleUrgent, ReasonCall
		}
		return RuleOffline, fetchable(q, ReasonOffline)

	// R8. A room sent a message to the account because no resource of it is joined: every device is notified, whatever session it has, for none is in
	// the room.
	case onGroupchat:
		return RuleGroupchat, fetchable(q, ReasonGroupchat)

	// R10. Somebody wants devices woken.
	case onPing:
		if !q.named {
			return RulePing, ReasonNotNamed
		}
		return RulePing, ReasonPing
	}
	return RuleNone, ReasonNone
}

// fetchable answers for a stanza that no session holds: if it is to be stored nowhere (XEP-0334 §4.2), the client would wake up for nothing.
func fetchable(q *question, reason Reason) Reason {
	if q.noStore {
		return ReasonNoStore
	}
	return reason
}

// forSession answers for an event that concerns only the registration of its session.
func forSession(q *question, reason Reason) Reason {
	switch {
	case q.mine:
		return reason
	case q.newer:
		return ReasonNewerSession
	case q.unbound:
		return ReasonUnbound
	}
	return ReasonOtherSession
}
