package push

import (
	"time"

	"github.com/xmpp-push/push/internal/enum"
)

// Decision is the answer to one event. The zero Decision notifies nobody. A Decision can be used again for the next event, which saves
// allocations; its slices then become invalid.
type Decision struct {
	// Account is whose event it was.
	Account string
	// Verdicts has an answer for each of the account's registrations, in the order of their keys. It is empty for events that
	// cannot notify, such as session-open, and for accounts without registrations.
	Verdicts []Verdict
	// Reason is set when there are no verdicts though the event could have notified: no registration, session not known; and when a session that
	// begins is one too many.
	Reason Reason
	Effects
	// Answers is what the host's hooks said about the event.
	Answers Answers

	ids     []string // what the verdicts' Stanzas are slices of
	alerted bool     // the session's device was sent before what its user should see of the event
}

// Verdict is the answer for one registration.
type Verdict struct {
	Key
	// Notify says whether the registration is notified. When that is sent is another question; see Effects.Drops too.
	Notify bool
	Rule   Rule
	Reason Reason
	// Detail says more than the reason does: the text that the host's hook gave for its veto; what the host could not answer that might have made a
	// yes a no; that nobody set what decided; that a notification waits because the user is active elsewhere.
	Detail string
	// Match is, for a registration of Push 2.0 that is notified, the number of the match that let the first of the stanzas through, from 1: the place in
	// wishes.Push2.Matches. 0: it is not of Push 2.0, or not notified of a stanza.
	Match int
	// Class is the highest class among the stanzas that the registration is notified of, or, if it is not notified, of the event.
	Class Class
	// Stanzas are the IDs of the stanzas that it is notified of. Count is their number, with those that have no ID.
	Stanzas []string
	Count   int
}

// Effects is what else changed, or should.
type Effects struct {
	Changes []Change
	Advice  []Advice
	Drops   []Drop
}

// Change is something that happened to a registration.
type Change struct {
	Key
	Kind ChangeKind
	// Session is the ID of the session that was bound to it (ChangeAdded, ChangeUpdated, ChangeEnabled, ChangeBound), or is not (ChangeUnbound).
	// Empty: no session had a part in it.
	Session string
	// Rule is RuleBind or RuleClient if it is about a session, else RuleNone.
	Rule Rule
	// Reason says why, Detail is the error condition behind it, if there is one.
	Reason Reason
	Detail string
}

// ChangeKind is the kind of a Change. The set may grow; treat values you do not know as such.
type ChangeKind uint8

const (
	// ChangeNone is the zero ChangeKind, which no Change of the Engine's has.
	ChangeNone ChangeKind = iota
	ChangeAdded
	ChangeUpdated
	// ChangeBound: a session has it now, without an enable. ChangeUnbound: a session lost it, though the registration is still there; or an
	// enable came from no session that is known.
	ChangeBound
	ChangeUnbound
	// ChangeRemoved names no session: whichever was bound to it has it no longer.
	ChangeRemoved
	ChangeDisabled
	ChangeEnabled
)

var changeKinds = [...]string{"none", "added", "updated", "bound", "unbound", "removed", "disabled", "enabled"}

// String is the kind's token, which does not change between versions.
func (k ChangeKind) String() string { return enum.Token("change", changeKinds[:], k) }

// MarshalText gives the token.
func (k ChangeKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (k *ChangeKind) UnmarshalText(text []byte) error {
	return enum.Read("change", changeKinds[:], k, text)
}

// Advice tells the host how long a hibernated session should stay resumable from now on.
type Advice struct {
	Session SessionID
	// Timeout counts from now. Zero means the host's normal time.
	Timeout time.Duration
	Reason  Reason
}

// Drop is a notification that was decided and will not be sent, because of Reason. The stanzas in it that were never sent can notify again.
// If its registration was removed while a publish was on its way, that is in it too, though the push service may have taken it.
type Drop struct {
	Key
	Class Class
	// Count is the number of stanzas.
	Count int
	// Events are the numbers of the events that it came from.
	Events []uint64
	Reason Reason
	Detail string
}

// reset makes d ready for the next event.
func (d *Decision) reset(account string) {
	clear(d.Verdicts)
	clear(d.ids)
	d.Account, d.Reason, d.alerted = account, ReasonNone, false
	d.Verdicts, d.ids = d.Verdicts[:0], d.ids[:0]
	d.Effects.Reset()
	d.Answers.reset()
}

// orOwn returns e, or, if it is nil, what nobody will look at.
func (e *Effects) orOwn() *Effects {
	if e == nil {
		return new(Effects)
	}
	return e
}

// Reset empties e, to be used again.
func (e *Effects) Reset() {
	e.Changes, e.Advice, e.Drops = e.Changes[:0], e.Advice[:0], e.Drops[:0]
}

// Reached is the number of registrations that are notified of the event, or were notified of its stanzas before. If it is 0 for a call, and
// no session is connected either, the call rings nowhere: the host may tell the caller.
func (d *Decision) Reached() (n int) {
	for i := range d.Verdicts {
		if v := &d.Verdicts[i]; v.Notify || v.Reason == ReasonSeen {
			n++
		}
	}
	return n
}

// Notifies tells whether anybody is notified.
func (d *Decision) Notifies() bool {
	for i := range d.Verdicts {
		if d.Verdicts[i].Notify {
			return true
		}
	}
	return false
}
