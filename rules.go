package push

import "fmt"

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
	// unbound: the event is about a session that is bound to no registration.
	unbound bool
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
	case q.unbound:
		return ReasonUnbound
	}
	return ReasonOtherSession
}

// Rule names the rule that decided. The set may grow; treat values you do not know as such.
type Rule uint8

const (
	RuleNone        Rule = iota
	RuleBind             // R1
	RuleAckDelayed       // R2
	RuleHibernation      // R3
	RuleQueued           // R4
	RuleResumed          // R5
	RuleArchived         // R6
	RuleOffline          // R7
	RuleGroupchat        // R8
	RuleUrgent           // R9
	RulePing             // R10
	RuleOnce             // R11
	RuleEnabled          // R12
	RuleCSI              // R13
	RuleClient           // R14
	RuleVeto             // the host's own
)

var ruleNames = [...]string{
	"none", "bind", "ack-delayed", "hibernation", "queued", "resumed", "archived", "offline", "groupchat", "urgent", "ping",
	"once", "enabled", "csi", "client", "veto",
}

func (r Rule) String() string {
	if int(r) < len(ruleNames) {
		return ruleNames[r]
	}
	return fmt.Sprintf("rule(%d)", uint8(r))
}

// MarshalText gives the rule's name, which does not change between versions.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Reason says why, for a no as much as for a yes. The set may grow; treat values you do not know as such.
type Reason uint8

const (
	// ReasonNone is the zero Reason: nothing was decided, nobody is notified.
	ReasonNone Reason = iota

	// Reasons to notify.

	ReasonUnacknowledged // R2
	ReasonConnectionLost // R3
	ReasonQueued         // R4
	ReasonNoSession      // R6
	ReasonOffline        // R7
	ReasonGroupchat      // R8
	ReasonCall           // R9
	ReasonPing           // R10
	ReasonWake           // the session's resumption time is about to run out (Policy.WakeBefore)

	// Reasons not to.

	ReasonNoRegistration // the account has none
	ReasonUnbound        // the session that the event is about has no registration bound
	ReasonOtherSession   // the event is about another session than the registration's
	ReasonNothing        // the event had no stanzas
	ReasonLive           // R6: a session that is bound to it is connected
	ReasonHibernated     // R6: it has a hibernated session, whose queue raises its own events
	ReasonOwn            // R6: the account sent it
	ReasonNotNamed       // R10
	ReasonSeen           // R11
	ReasonDisabled       // R12
	ReasonHeld           // R13
	ReasonPlain          // Policy.SkipPlain
	ReasonVeto           // the host's hook said no
	ReasonResumed        // R5
	ReasonUnknownSession // the session was never opened, or is closed
	ReasonStore          // the registrations could not be read

	// Reasons why something that waited was dropped, and reasons of changes and advice.

	ReasonTooOld         // Policy.Expire, Policy.ExpireUrgent
	ReasonRejected       // the push service refused the publish for good
	ReasonRemoved        // the registration is gone
	ReasonEnabled        // the client asked for it
	ReasonReplaced       // the client enabled it again
	ReasonReenabled      // a tombstone was enabled again
	ReasonClientID       // R14
	ReasonDisabledByUser // the client disabled it
	ReasonLimit          // Policy.MaxRegistrations
	ReasonRevoked        // affiliation none (XEP-0357 §8)
	ReasonAccount        // the account was removed
	ReasonErrors         // the push service's errors
	ReasonRecovered      // a tombstone's retry was accepted
	ReasonAsleep         // the session hibernates and can be woken
	ReasonWoken          // an important notification has gone out
	ReasonClosed         // the engine was closed
	reasonEnd
)

var reasonTexts = [...]string{
	ReasonNone:           "nothing decided",
	ReasonUnacknowledged: "stanza not acknowledged in time",
	ReasonConnectionLost: "connection lost with unacknowledged stanzas",
	ReasonQueued:         "stanza queued for hibernated session",
	ReasonNoSession:      "message archived and device has no session",
	ReasonOffline:        "message stored offline",
	ReasonGroupchat:      "room message with no resource joined",
	ReasonCall:           "incoming call",
	ReasonPing:           "wake-up requested",
	ReasonWake:           "resumption time is about to run out",
	ReasonNoRegistration: "no registration",
	ReasonUnbound:        "no registration bound",
	ReasonOtherSession:   "bound to another session, or none",
	ReasonNothing:        "no stanza",
	ReasonLive:           "session active",
	ReasonHibernated:     "session hibernated: left to stanza-queued",
	ReasonOwn:            "own sent message",
	ReasonNotNamed:       "not among those to wake",
	ReasonSeen:           "already notified",
	ReasonDisabled:       "disabled after errors",
	ReasonHeld:           "held back by client state indication",
	ReasonPlain:          "plain stanzas do not notify",
	ReasonVeto:           "vetoed by the host",
	ReasonResumed:        "session resumed",
	ReasonUnknownSession: "session not known",
	ReasonStore:          "registrations could not be read",
	ReasonTooOld:         "too old",
	ReasonRejected:       "rejected by the push service",
	ReasonRemoved:        "registration removed",
	ReasonEnabled:        "enabled",
	ReasonReplaced:       "enabled again",
	ReasonReenabled:      "enabled again after errors",
	ReasonClientID:       "known client ID",
	ReasonDisabledByUser: "disabled by the client",
	ReasonLimit:          "too many registrations: enabled longest ago",
	ReasonRevoked:        "revoked by the push service",
	ReasonAccount:        "account removed",
	ReasonErrors:         "errors of the push service",
	ReasonRecovered:      "push service accepts it again",
	ReasonAsleep:         "asleep, can be woken by push",
	ReasonWoken:          "important notification sent",
	ReasonClosed:         "engine closed",
}

// Notifies tells whether it is a reason to notify.
func (r Reason) Notifies() bool { return r >= ReasonUnacknowledged && r <= ReasonWake }

func (r Reason) String() string {
	if r < reasonEnd {
		return reasonTexts[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// MarshalText gives the reason's text, which does not change between versions.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
