package push

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/xmpp-push/push/internal/enum"
	"github.com/xmpp-push/push/wishes"
)

// Notification is what is to be published to one registration.
type Notification struct {
	Account string
	Key
	// Class is the highest class in it.
	Class Class
	// Count is the number of stanzas in it; a wake-up has none.
	Count int
	// Unread is the message-count of the summary form: the messages (important and urgent stanzas) that the registration was notified of since its
	// session was last active and that were not acknowledged since, as far as is remembered, or the host's own number. Zero leaves the field out.
	Unread int
	// TellZero: the number is to be told even if it is 0, since the user has read elsewhere what the device was notified of.
	TellZero bool
	// Pending is the pending-subscription-count of the summary form, as the host counts it. Zero leaves the field out.
	Pending int
	// Sender and Body are those of the newest stanza, if the policy includes them. Body may be the policy's StandIn.
	Sender, Body string
	// Options are the registration's publish options, which must not be changed.
	Options []Field
	// Wishes are the registration's, which must not be changed, and hold keys.
	Wishes *wishes.Wishes
	// Carried are stanzas whose content goes along, encrypted, because the client asked for that with keys of its own; oldest first.
	Carried []Carried
	// Contact is Policy.Contact.
	Contact string
	// Events are the numbers of the events that it came from, oldest first.
	Events []uint64
	// Try is 1 for the first try.
	Try int
}

// Begin says that the notification of k goes out now, and returns it. It returns false if nothing is to be sent any more: it was dropped,
// or the registration is gone or disabled (rule R12, asked again here). e reports what was dropped and the advice that follows from an
// important notification.
func (a *Account) Begin(k Key, now time.Time, e *Effects) (Notification, bool) {
	r := a.find(k)
	if r == nil {
		return Notification{}, false
	}
	p := &r.pace
	p.queued = false
	if p.inFlight || len(p.waiting) == 0 {
		return Notification{}, false
	}
	if !r.Health.Disabled.IsZero() && p.tries == 0 { // else it is its retry that goes on
		if !a.mayRetry(r, now) {
			r.drop(p.takeAll(), ReasonDisabled, "", e)
			return Notification{}, false
		}
		r.retried = uint32(max(now.Unix(), 1))
	}
	if !now.Before(p.expiry(a.policy)) {
		r.drop(p.takeOld(now, a.policy), ReasonTooOld, "", e)
		if len(p.waiting) == 0 {
			return Notification{}, false
		}
	}
	p.begin(now, a.policy)
	n := Notification{Account: a.name, Key: r.Key, Options: r.Options, Wishes: r.Wishes, Contact: a.policy.Contact, Unread: int(r.unread), Try: int(p.tries)}
	if !p.stripped {
		n.Carried = p.carried()
	}
	var at instant
	for i := range p.flight {
		f := &p.flight[i]
		if c, ok := f.class(); ok {
			n.Class = max(n.Class, c)
		}
		n.Count += f.total()
		n.TellZero = n.TellZero || f.counts
		n.Events = f.causes(n.Events)
		if f.text != nil && f.text.at >= at {
			at, n.Sender, n.Body = f.text.at, f.text.sender, f.text.body
		}
	}
	if n.TellZero {
		p.told = uint32(max(now.Unix(), 1))
	}
	if !slices.IsSorted(n.Events) {
		sortUnique(&n.Events)
	}
	n.Events = newest(n.Events, a.policy.Causes)
	if !a.policy.IncludeSender || p.stripped {
		n.Sender = ""
	}
	if !a.policy.IncludeBody || p.stripped {
		n.Body = ""
	}
	if n.Body == "" && n.Class >= ClassImportant && !p.stripped {
		n.Body = a.policy.StandIn
	}
	if n.Class >= ClassImportant {
		a.shorten(r, ReasonWoken, e)
	}
	return n, true
}

// causes appends the numbers of the part's events.
func (p *part) causes(events []uint64) []uint64 {
	if events == nil {
		events = make([]uint64, 0, min(len(p.stanzas), 8))
	}
	for _, n := range p.stanzas {
		if len(events) == 0 || events[len(events)-1] != n.event {
			events = append(events, n.event)
		}
	}
	return events
}

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

// countEvery is how often an error counts that a notification meets again and again.
const countEvery = time.Hour

// succeededEvery is how often a registration's last success is worth a write.
const succeededEvery = 24 * time.Hour

// End takes note of the reply to the notification that Begin returned for k. e reports a registration that was disabled or
// recovered, and what was dropped.
func (a *Account) End(k Key, reply Reply, now time.Time, e *Effects) Result {
	res := Result{Outcome: reply.Classify()}
	r := a.find(k)
	if a.isGone(k) { // it was for a registration that was removed; there may be another with its key
		*a.gone = slices.DeleteFunc(*a.gone, func(o Key) bool { return o == k })
		if len(*a.gone) == 0 {
			a.gone = nil
		}
		if r != nil {
			r.pace.inFlight = false
		}
		return res
	}
	if r == nil || !r.pace.inFlight {
		return res
	}
	p := &r.pace
	if r.IsPush2() {
		res.Outcome = a.classifyPush2(r, reply, now)
	}
	hadBody := !p.stripped && (a.policy.IncludeBody || a.policy.IncludeSender || a.policy.StandIn != "" && flightClass(p) >= ClassImportant || p.carried() != nil)
	if res.Outcome == OutcomeTooBig && !hadBody {
		res.Outcome = OutcomeFailed
	}
	h := &r.Health
	switch res.Outcome {
	case OutcomeAccepted:
		disabled := !h.Disabled.IsZero()
		if h.Errors > 0 || h.Refusals > 0 || disabled || !h.Failing.IsZero() || now.Sub(h.Succeeded) >= succeededEvery {
			res.Store, res.Update = true, Update{Succeeded: now}
			*h = res.Update.Apply(*h)
		}
		if disabled {
			e.change(k, ChangeEnabled, ReasonRecovered, "")
		}
		p.finish()
	case OutcomeTransient:
		if r.IsPush2() && !reply.Missing && h.Failing.IsZero() {
			res.Store, res.Update = true, Update{Failing: now}
			*h = res.Update.Apply(*h)
		}
		res.RetryAt = a.again(r, a.policy.backoff(a.name, k, int(p.tries)), now, e)
	case OutcomeTooBig:
		p.spaced = 0 // the service has passed nothing on
		p.stripped = true
		res.RetryAt = a.again(r, 0, now, e)
	case OutcomeDropped:
		e.Drops = append(e.Drops, r.flightDrop(ReasonVeto, reply.Vetoed))
		p.finish()
	default:
		if res.Outcome != OutcomeFailed || p.counted == 0 || now.Sub(time.Unix(int64(p.counted), 0)) >= countEvery {
			res.Store, res.Update = true, a.count(r, res.Outcome, reply, now)
			*h = res.Update.Apply(*h)
			p.counted = uint32(max(now.Unix(), 1))
		}
		if res.Outcome == OutcomeFailed && h.Disabled.IsZero() && reply.worthTrying() && !r.IsPush2() {
			res.RetryAt = a.again(r, a.policy.backoff(a.name, k, int(p.tries)), now, e)
			break
		}
		e.Drops = append(e.Drops, r.flightDrop(ReasonRejected, reply.Condition))
		p.finish()
		if !res.Update.Disabled.IsZero() {
			e.change(k, ChangeDisabled, ReasonErrors, h.Cause)
			a.unbind(r, ReasonErrors, e)
			r.drop(p.takeAll(), ReasonDisabled, h.Cause, e)
		}
	}
	return res
}

// again lets what is in flight go out once more after wait, but for what came to its end meanwhile, and returns when; zero if nothing is left, or
// it will be too old by then.
func (a *Account) again(r *registration, wait time.Duration, now time.Time, e *Effects) time.Time {
	p := &r.pace
	for _, gone := range p.takeSpent() {
		r.drop([]part{gone}, gone.spent, "", e)
	}
	p.again(now, wait, a.policy)
	if at := p.ready(); len(p.waiting) > 0 && at.Before(p.lastExpiry(a.policy)) {
		return at
	}
	return time.Time{}
}

// Interrupted says that no reply will come to what is in flight, because the process that has sent it is gone: it goes out again, at once. Perhaps it was
// accepted, and is then published twice; to leave it would be to lose what was not.
func (a *Account) Interrupted(now time.Time, e *Effects) {
	a.gone = nil
	for _, r := range a.regs {
		if r.pace.inFlight {
			a.again(r, 0, now, e)
		}
	}
}

func flightClass(p *pacer) (class Class) {
	for i := range p.flight {
		if c, ok := p.flight[i].class(); ok {
			class = max(class, c)
		}
	}
	return class
}

// count returns the update for an error that counts, which disables the registration if it is one too many.
func (a *Account) count(r *registration, o Outcome, reply Reply, now time.Time) Update {
	var u Update
	disable := true
	if r.IsPush2() {
		if u.Errors = 1; r.Health.Failing.IsZero() {
			u.Failing = now
		}
		disable = a.failedForLong(r, now)
		o = OutcomeAccepted // none of those below
	}
	switch o {
	case OutcomeRefused:
		u.Refusals = 1
		disable = r.Health.Refusals+1 >= a.policy.MaxRefusals
	case OutcomeFailed:
		u.Errors = 1
		limit := a.policy.MaxErrors
		if r.Health.Succeeded.IsZero() {
			limit = a.policy.MaxErrorsUnproven
		}
		disable = r.Health.Errors+1 >= limit
	}
	if disable || !r.Health.Disabled.IsZero() {
		u.Disabled, u.Cause = now, cut(reply.Condition, 64)
	}
	return u
}

// flightDrop describes what is in flight as dropped. Its stanzas were sent, so they stay remembered.
func (r *registration) flightDrop(reason Reason, detail string) Drop {
	d := Drop{Key: r.Key, Class: flightClass(&r.pace), Reason: reason, Detail: detail}
	for i := range r.pace.flight {
		d.Count += r.pace.flight[i].total()
		d.Events = r.pace.flight[i].causes(d.Events)
	}
	sortUnique(&d.Events)
	return d
}

// AppendStanza appends the stanza that publishes n, from the server's domain with the given ID: an IQ (XEP-0357 §7), or, for a registration of
// Push 2.0, a message. The ID must not be guessable, and is how replies are known. If nothing is encrypted and dst has room, it allocates nothing.
//
// Of n.Carried only the newest goes along with Push 2.0: see Split.
func (n *Notification) AppendStanza(dst []byte, from, id string) []byte {
	if n.IsPush2() {
		return n.appendMessage(dst, from, id)
	}
	dst = append(dst, `<iq type="set" from="`...)
	dst = appendEscaped(dst, from)
	dst = append(dst, `" to="`...)
	dst = appendEscaped(dst, n.Service)
	dst = append(dst, `" id="`...)
	dst = appendEscaped(dst, id)
	dst = append(dst, `"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish`...)
	if n.Node != "" {
		dst = append(dst, ` node="`...)
		dst = appendEscaped(dst, n.Node)
		dst = append(dst, '"')
	}
	dst = append(dst, `><item><notification xmlns="urn:xmpp:push:0">`...)
	if n.encrypts() {
		dst = n.appendEncrypted(dst)
	} else {
		dst = n.appendSummary(dst)
	}
	if n.Wishes != nil && n.Wishes.Priority {
		dst = append(dst, `<priority xmlns="`+nsPriority+`">`...)
		dst = append(append(dst, n.priority()...), `</priority>`...)
	}
	dst = append(dst, `</notification></item></publish>`...)
	if n.Options != nil {
		dst = append(dst, `<publish-options><x xmlns="jabber:x:data" type="submit">`...)
		for i := range n.Options {
			f := &n.Options[i]
			dst = append(dst, `<field`...)
			if f.Var != "" {
				dst = append(dst, ` var="`...)
				dst = appendEscaped(dst, f.Var)
				dst = append(dst, '"')
			}
			if f.Type != "" {
				dst = append(dst, ` type="`...)
				dst = appendEscaped(dst, f.Type)
				dst = append(dst, '"')
			}
			dst = append(dst, '>')
			for _, v := range f.Values {
				dst = append(dst, `<value>`...)
				dst = appendEscaped(dst, v)
				dst = append(dst, `</value>`...)
			}
			dst = append(dst, `</field>`...)
		}
		dst = append(dst, `</x></publish-options>`...)
	}
	return append(dst, `</pubsub></iq>`...)
}

// appendSummary appends the summary form (XEP-0357 §7).
func (n *Notification) appendSummary(dst []byte) []byte {
	dst = append(dst, `<x xmlns="jabber:x:data" type="submit">`+
		`<field var="FORM_TYPE" type="hidden"><value>urn:xmpp:push:summary</value></field>`...)
	if n.Unread > 0 || n.TellZero {
		dst = append(dst, `<field var="message-count"><value>`...)
		dst = strconv.AppendInt(dst, int64(n.Unread), 10)
		dst = append(dst, `</value></field>`...)
	}
	if n.Pending > 0 {
		dst = append(dst, `<field var="pending-subscription-count"><value>`...)
		dst = strconv.AppendInt(dst, int64(n.Pending), 10)
		dst = append(dst, `</value></field>`...)
	}
	if n.Sender != "" {
		dst = append(dst, `<field var="last-message-sender"><value>`...)
		dst = appendEscaped(dst, n.Sender)
		dst = append(dst, `</value></field>`...)
	}
	if n.Body != "" {
		dst = append(dst, `<field var="last-message-body"><value>`...)
		dst = appendEscaped(dst, n.Body)
		dst = append(dst, `</value></field>`...)
	}
	return append(dst, `</x>`...)
}

// appendEscaped appends s as XML text or attribute value. What XML cannot carry becomes U+FFFD; white space that a parser would change is
// written as a reference.
func appendEscaped(dst []byte, s string) []byte {
	plain := 0
	for i := 0; i < len(s); {
		if b := s[i]; b < utf8.RuneSelf {
			if esc := escapes[b]; esc != "" {
				dst = append(dst, s[plain:i]...)
				dst = append(dst, esc...)
				plain = i + 1
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r == 0xfffe || r == 0xffff {
			dst = append(dst, s[plain:i]...)
			dst = append(dst, "\uFFFD"...)
			plain = i + n
		}
		i += n
	}
	return append(dst, s[plain:]...)
}

// escapes are the ASCII characters that are not written as they are.
var escapes = func() (e [utf8.RuneSelf]string) {
	for b := range byte(' ') {
		e[b] = "\uFFFD"
	}
	e['<'], e['>'], e['&'], e['"'], e['\''] = "&lt;", "&gt;", "&amp;", "&#34;", "&#39;"
	e['\t'], e['\n'], e['\r'] = "&#x9;", "&#xA;", "&#xD;"
	return e
}()
