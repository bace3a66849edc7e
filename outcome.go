package push

import (
	"time"

	"github.com/xmpp-push/push/internal/enum"
)

// Reply is the end of one publish. The zero Reply is success.
type Reply struct {
	// Missing: there was no answer in time, or the publish could not be sent.
	Missing bool
	// Condition and Type are those of an error reply (RFC 6120 §8.3), such as "item-not-found" and "cancel". A Reply with a Condition or
	// a Type is an error.
	Condition, Type string
	// Vetoed, if not empty, is the host's reason not to send it after all.
	Vetoed string
}

// OK tells whether the publish was accepted.
func (r Reply) OK() bool { return r == Reply{} }

// Outcome is what a reply means.
type Outcome uint8

const (
	// OutcomeAccepted: the counters start again.
	OutcomeAccepted Outcome = iota
	// OutcomeTransient: tried again later; says nothing about the registration.
	OutcomeTransient
	// OutcomeFatal: the registration is disabled at once.
	OutcomeFatal
	// OutcomeRefused: disabled when it comes Policy.MaxRefusals times in a row.
	OutcomeRefused
	// OutcomeFailed: disabled when it comes Policy.MaxErrors times in a row; tried again later if the error says nothing about the notification.
	// With Push 2.0 it is not tried again, and the registration is disabled when publishes have failed for Policy.DisableAfter.
	OutcomeFailed
	// OutcomeTooBig: sent once more without sender and body.
	OutcomeTooBig
	// OutcomeDropped: the host vetoed it.
	OutcomeDropped
)

var outcomes = []string{"accepted", "transient", "fatal", "refused", "failed", "too-big", "dropped"}

// String is the outcome's token.
func (o Outcome) String() string { return enum.Token("outcome", outcomes, o) }

// MarshalText gives the token.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (o *Outcome) UnmarshalText(text []byte) error { return enum.Read("outcome", outcomes, o, text) }

// Classify is the table of outcomes. fpush answers bad-request for faults of its own, p2 recipient-unavailable when the vendor refused this time, so
// neither the condition nor the type alone can tell.
func (r Reply) Classify() Outcome {
	switch {
	case r.Vetoed != "":
		return OutcomeDropped
	case r.Missing, r.Type == "wait":
		return OutcomeTransient
	case r.OK():
		return OutcomeAccepted
	}
	switch r.Condition {
	case "remote-server-timeout", "remote-server-not-found", "recipient-unavailable":
		return OutcomeTransient
	case "item-not-found", "gone", "policy-violation":
		return OutcomeFatal
	case "forbidden", "not-authorized", "not-allowed":
		return OutcomeRefused
	case "payload-too-big", "not-acceptable":
		return OutcomeTooBig
	}
	return OutcomeFailed
}

// worthTrying tells whether the same publish may be accepted later although it was refused with a counted error. These conditions say that the service
// could not do it now, bad-request included: fpush answers that when the vendor's service fails it, and p2 for whatever it does not expect. They are
// no verdict on the notification, so it is tried again, which delays nothing and loses nothing in an outage of the service behind the
// service. Of the others (feature-not-implemented, conflict, payload-too-big …) the same publish would get the same answer.
func (r Reply) worthTrying() bool {
	switch r.Condition {
	case "internal-server-error", "service-unavailable", "bad-request", "resource-constraint", "undefined-condition", "":
		return true
	}
	return false
}

// Answered tells whether the push service itself answered, for [Service.Done].
func (r Reply) Answered() bool {
	return !r.Missing && r.Condition != "remote-server-timeout" && r.Condition != "remote-server-not-found"
}

// Result is what End made of a reply.
type Result struct {
	Outcome Outcome
	// Update is what the store has to be told, if Store is set.
	Store  bool
	Update Update
	// RetryAt is when it is tried again; zero: it is not.
	RetryAt time.Time
}
