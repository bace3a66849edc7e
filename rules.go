package push

// The business rules: who is notified of an event, and why.
//
// A rule looks at one stanza of one event and at one registration of the account, and at nothing else; decide puts the rules in
// their order. The numbers R1 to R14 are used in the documentation, the tests and this file alike. Sources: Daniel Gultsch's rules on
// the XMPP standards list (2016-02-16), Prosody's mod_cloud_notify, XEP-0357 version 0.4.1.
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

	// disabled, live, hibernated and seen are about the registration: it is a tombstone; a session that is bound to it is connected; one is
	// hibernated; it was notified of this stanza before.
	disabled, live, hibernated, seen bool

	// match is the one of Push 2.0 that the stanza has met, or nil.
	match *Match

	// skipPlain is the policy's.
	skipPlain bool
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

// decide answers for one stanza and one registration. The reason tells whether to notify.
func decide(q *question) (Rule, Reason) {
	// R12. A registration that is not enabled is never published to (XEP-0357 §6). It is asked again when the publish is sent.
	if q.disabled {
		return RuleEnabled, ReasonDisabled
	}
	// R13. What client state indication holds back (XEP-0352) does not wake the client: holding it back was its wish.
	if q.held {
		return RuleCSI, ReasonHeld
	}
	rule, reason := reach(q)
	if !reason.Notifies() {
		return rule, reason
	}
	// Policy. By default plain stanzas notify too: a client asked for stream management to get all of them.
	if q.class == ClassPlain && q.skipPlain && q.event != onPing {
		return rule, ReasonPlain
	}
	// R11. Never twice for the same stanza and registration, whatever the events and their order.
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
		return RuleAckDelayed, ofSession(q, ReasonUnacknowledged)
	case onHibernationStart:
		return RuleHibernation, ofSession(q, ReasonConnectionLost)
	case onStanzaQueued:
		return RuleQueued, ofSession(q, ReasonQueued)

	// R5. A session that is resumed gets its stanzas itself.
	case onHibernationEnd:
		return RuleResumed, ofSession(q, ReasonResumed)

	// R6, R9. A message to the account was archived: all its devices are notified that have no session, since to the others it is sent
	// or R2 to R4 take care. A call cannot wait for a dead connection to be noticed, so it goes to those with a session too.
	// What the account sent itself is archived as well, and notifies nobody. (Gultsch 4b; mod_cloud_notify)
	case onArchiveAdded:
		switch {
		case q.own:
			return RuleArchived, ReasonOwn
		case q.class == ClassUrgent:
			return RuleUrgent, ReasonCall
		case q.live:
			return RuleArchived, ReasonLive
		case q.hibernated:
			return RuleArchived, ReasonHibernated
		}
		return RuleArchived, ReasonNoSession

	// R7, R9. A message went to offline storage: no session took it, so every device is notified. (Gultsch 4c)
	case onOffline:
		if q.class == ClassUrgent {
			return RuleUrgent, ReasonCall
		}
		return RuleOffline, ReasonOffline

	// R8. A room sent a message to the account because no resource of it is joined.
	case onGroupchat:
		return RuleGroupchat, ReasonGroupchat

	// R10. Somebody wants devices woken.
	case onPing:
		if !q.named {
			return RulePing, ReasonNotNamed
		}
		return RulePing, ReasonPing
	}
	return RuleNone, ReasonNone
}

// ofSession answers for an event that concerns only the registration of its session.
func ofSession(q *question, reason Reason) Reason {
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
