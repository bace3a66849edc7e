package push

import (
	"github.com/xmpp-push/push/internal/enum"
)

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
	RuleCallEnd          // R15
	RuleContent          // R16
	RuleFilter           // R17: what the client asked for with its registration
	RuleSettings         // R17: what the user set for the chat (XEP-0492)
)

var ruleNames = [...]string{
	"none", "bind", "ack-delayed", "hibernation", "queued", "resumed", "archived", "offline", "groupchat", "urgent", "ping",
	"once", "enabled", "csi", "client", "veto",
	"call-end", "content", "filter", "chat-settings",
}

// String is the rule's token, which does not change between versions.
func (r Rule) String() string { return enum.Token("rule", ruleNames[:], r) }

// MarshalText gives the token.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (r *Rule) UnmarshalText(text []byte) error { return enum.Read("rule", ruleNames[:], r, text) }

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
	ReasonAway           // R6: every connected session is away, and the client asked for it
	ReasonCallEnded      // R15
	ReasonWake           // the session's resumption time is about to run out (Policy.WakeBefore)

	// Reasons not to.

	ReasonNoRegistration // the account has none
	ReasonUnbound        // the session that the event is about has no registration bound
	ReasonOtherSession   // the event is about another session than the registration's
	ReasonNothing        // the event had no stanzas
	ReasonLive           // R6: a session that is bound to it is connected; R15: and came back since the call rang
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
	ReasonStore          // the registrations could not be read, or changed
	ReasonNotRung        // R15: the registration was not notified of the call, or was told already that it is over
	ReasonCallOver       // R15: the call was over before the registration could be notified of it
	ReasonHistory        // R16
	ReasonNoStore        // no session holds it, and it is stored nowhere (XEP-0334)
	ReasonReflection     // the room sends the user's own message back
	ReasonMuted          // tigase:push:filter:muted:0
	ReasonNotContact     // tigase:push:filter:ignore-unknown:0
	ReasonRoomNever      // tigase:push:filter:groupchat:0: the client said never
	ReasonRoomNotListed  // tigase:push:filter:groupchat:0: the client named its rooms, and this is none of them
	ReasonNotMentioned   // the room notifies of mentions only
	ReasonNoMatch        // Push 2.0: no match covers it
	ReasonChatNever      // XEP-0492: the user said never
	ReasonNoCalls        // Policy.AskedCallsOnly, and the client did not ask for calls
	ReasonDeferred       // the registrations are not known yet; the event is decided when they are

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
	ReasonAcknowledged   // the session acknowledged it after all
	ReasonNewerSession   // R1: a newer session of the same device has the registration
	ReasonNewerEnded     // R1: that one is over, and this one is still connected
	ReasonRestored       // the host restored the session with its binding
	ReasonOperator       // an enable that names no session
	ReasonElsewhere      // another node of the host did it
	ReasonRead           // the user has seen it on another device
	ReasonRetracted      // it was retracted before it was sent
	ReasonUnknownStanza  // no stanza is known by that ID in that chat

	ReasonTooManySessions // the account has more sessions than are kept: the oldest that has no registration counts as over
	reasonEnd
)

// reasons has a reason's token and its sentence.
var reasons = [...]struct{ token, sentence string }{
	ReasonNone:           {"none", "nothing decided"},
	ReasonUnacknowledged: {"unacknowledged", "stanza not acknowledged in time"},
	ReasonConnectionLost: {"connection-lost", "connection lost with unacknowledged stanzas"},
	ReasonQueued:         {"queued", "stanza queued for hibernated session"},
	ReasonNoSession:      {"no-session", "message archived and device has no session"},
	ReasonOffline:        {"stored-offline", "message stored offline"},
	ReasonGroupchat:      {"room-not-joined", "room message with no resource joined"},
	ReasonCall:           {"call", "incoming call"},
	ReasonPing:           {"wake-up-requested", "wake-up requested"},
	ReasonAway:           {"away", "message archived and every session is away"},
	ReasonCallEnded:      {"call-ended", "call has ended: stop ringing"},
	ReasonWake:           {"resumption-ending", "resumption time is about to run out"},
	ReasonNoRegistration: {"no-registration", "no registration"},
	ReasonUnbound:        {"not-bound", "no registration bound"},
	ReasonOtherSession:   {"other-session", "bound to another session, or none"},
	ReasonNothing:        {"no-stanza", "no stanza"},
	ReasonLive:           {"session-active", "session active"},
	ReasonHibernated:     {"session-hibernated", "session hibernated: left to stanza-queued"},
	ReasonOwn:            {"own-message", "own sent message"},
	ReasonNotNamed:       {"not-named", "not among those to wake"},
	ReasonSeen:           {"already-notified", "already notified"},
	ReasonDisabled:       {"disabled", "disabled after errors"},
	ReasonHeld:           {"held-back", "held back by client state indication"},
	ReasonPlain:          {"plain", "plain stanzas do not notify"},
	ReasonVeto:           {"vetoed", "vetoed by the host"},
	ReasonResumed:        {"resumed", "session resumed"},
	ReasonUnknownSession: {"unknown-session", "session not known"},
	ReasonStore:          {"store-failed", "registrations could not be read"},
	ReasonNotRung:        {"not-rung", "call has ended, and does not ring there"},
	ReasonCallOver:       {"call-over", "call is over already"},
	ReasonHistory:        {"history", "history that was sent again"},
	ReasonNoStore:        {"no-store", "not stored and held by no session"},
	ReasonReflection:     {"own-reflection", "own message reflected by the room"},
	ReasonMuted:          {"muted", "muted by the user"},
	ReasonNotContact:     {"not-a-contact", "sender is no contact"},
	ReasonRoomNever:      {"room-never", "room does not notify by the client's choice"},
	ReasonRoomNotListed:  {"room-not-listed", "room is not among those that the client chose"},
	ReasonNotMentioned:   {"not-mentioned", "user is not mentioned"},
	ReasonNoMatch:        {"no-match", "not among what the client asked for"},
	ReasonChatNever:      {"chat-never", "chat does not notify by the user's setting"},
	ReasonNoCalls:        {"no-calls", "client did not ask for calls"},
	ReasonDeferred:       {"deferred", "left until the registrations can be read"},
	ReasonTooOld:         {"too-old", "too old"},
	ReasonRejected:       {"rejected", "rejected by the push service"},
	ReasonRemoved:        {"registration-removed", "registration removed"},
	ReasonEnabled:        {"enabled", "enabled"},
	ReasonReplaced:       {"enabled-again", "enabled again"},
	ReasonReenabled:      {"enabled-after-errors", "enabled again after errors"},
	ReasonClientID:       {"client-id", "known client ID"},
	ReasonDisabledByUser: {"disabled-by-client", "disabled by the client"},
	ReasonLimit:          {"too-many-registrations", "too many registrations: enabled longest ago"},
	ReasonRevoked:        {"revoked", "revoked by the push service"},
	ReasonAccount:        {"account-removed", "account removed"},
	ReasonErrors:         {"errors", "errors of the push service"},
	ReasonRecovered:      {"recovered", "push service accepts it again"},
	ReasonAsleep:         {"asleep", "asleep, can be woken by push"},
	ReasonWoken:          {"woken", "important notification sent"},
	ReasonClosed:         {"engine-closed", "engine closed"},
	ReasonAcknowledged:   {"acknowledged", "acknowledged by the session"},
	ReasonNewerSession:   {"newer-session", "the device is in a newer session"},
	ReasonNewerEnded:     {"newer-session-ended", "the device's newer session has ended"},
	ReasonRestored:       {"restored", "session restored by the host"},
	ReasonOperator:       {"no-session-named", "enabled without a session"},
	ReasonElsewhere:      {"elsewhere", "changed on another node"},
	ReasonRead:           {"read", "read on another device"},
	ReasonRetracted:      {"retracted", "retracted by its sender or the room"},
	ReasonUnknownStanza:  {"unknown-stanza", "stanza not known in that chat"},

	ReasonTooManySessions: {"too-many-sessions", "too many sessions: one that began long ago counts as over"},
}

var reasonTokens = func() []string {
	tokens := make([]string, len(reasons))
	for i, r := range reasons {
		tokens[i] = r.token
	}
	return tokens
}()

// Notifies tells whether it is a reason to notify.
func (r Reason) Notifies() bool { return r >= ReasonUnacknowledged && r <= ReasonWake }

// String is the reason's token, such as "already-notified": for labels, logs and data. It does not change between versions.
func (r Reason) String() string { return enum.Token("reason", reasonTokens, r) }

// Sentence says the same to people, and may be put better in another version.
func (r Reason) Sentence() string {
	if int(r) < len(reasons) {
		return reasons[r].sentence
	}
	return r.String()
}

// MarshalText gives the token.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (r *Reason) UnmarshalText(text []byte) error { return enum.Read("reason", reasonTokens, r, text) }
