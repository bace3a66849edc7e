package push

import (
	"slices"
	"time"

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
	// Unread is the message-count of the summary form: the messages (important and urgent stanzas, but no requests for subscription) that the registration was notified of since its
	// session was last active and that were not acknowledged since, as far as is remembered, or the host's own number. Zero leaves the field out.
	Unread int
	// TellZero: the number is to be told even if it is 0, since the user has read elsewhere what the device was notified of.
	TellZero bool
	// Pending is the pending-subscription-count of the summary form, as the host counts it. Zero leaves the field out.
	Pending int
	// Sender and Body are those of the newest stanza that the user should see, if the policy includes them; of what only wakes, there is a Sender alone.
	// Body may be the policy's StandIn.
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
	// standIn is Policy.StandIn.
	standIn string
}

// Begin says that the notification of k goes out now, and returns it. It returns false if nothing is to be sent any more: it was dropped,
// or the registration is gone or disabled (rule R12, asked again here). e reports what was dropped and the advice that follows from an
// important notification.
func (a *Account) Begin(k Key, now time.Time, e *Effects) (Notification, bool) {
	e = e.orOwn()
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
	if !now.Before(expiry(p.waiting, a.policy)) {
		r.drop(p.takeOld(now, a.policy), ReasonTooOld, "", e)
		if len(p.waiting) == 0 {
			return Notification{}, false
		}
	}
	p.begin(now, a.policy)
	n := Notification{Account: a.name, Key: r.Key, Options: r.Options, Wishes: r.Wishes, Contact: a.policy.Contact, Unread: int(r.unread), Try: int(p.tries), standIn: a.policy.StandIn}
	if !p.stripped {
		n.Carried = p.carried()
	}
	var told *part
	for i := range p.flight {
		f := &p.flight[i]
		if c, ok := f.class(); ok {
			n.Class = max(n.Class, c)
		}
		n.Count += f.total()
		n.TellZero = n.TellZero || f.counts
		n.Events = f.causes(n.Events)
		if f.saysMore(told) {
			told = f
		}
	}
	if told != nil {
		n.Sender, n.Body = told.text.sender, told.text.body
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

// countEvery is how often an error counts that a notification meets again and again.
const countEvery = time.Hour

// succeededEvery is how often a registration's last success is worth a write.
const succeededEvery = 24 * time.Hour

// End takes note of the reply to the notification that Begin returned for k. e reports a registration that was disabled or
// recovered, and what was dropped.
func (a *Account) End(k Key, reply Reply, now time.Time, e *Effects) Result {
	e = e.orOwn()
	res := Result{Outcome: reply.Classify()}
	r := a.find(k)
	if a.isGone(k) { // it was for a registration that was removed; there may be another with its key
		d := a.takeGone(k)
		if r != nil {
			r.pace.inFlight = false
		}
		if res.Outcome == OutcomeDropped {
			d.Reason, d.Detail = ReasonVeto, reply.Vetoed
		}
		if res.Outcome != OutcomeAccepted {
			e.dropped(d)
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
	hadBody := !p.stripped && (a.policy.IncludeSender || (a.policy.IncludeBody || a.policy.StandIn != "") && flightClass(p) >= ClassImportant || p.carried() != nil)
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
		if res.Outcome != OutcomeFailed || now.Sub(time.Unix(int64(p.counted), 0)) >= countEvery {
			res.Store, res.Update = true, a.count(r, res.Outcome, reply, now)
			*h = res.Update.Apply(*h)
			p.counted = uint32(max(now.Unix(), 1))
		}
		if h.Disabled.IsZero() && reply.worthTrying() && !r.IsPush2() {
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
	if at := p.ready(); at.Before(p.lastExpiry(a.policy)) {
		return at
	}
	return time.Time{}
}

// Interrupted says that no reply will come to what is in flight, because the process that has sent it is gone: it goes out again, at once. Perhaps it was
// accepted, and is then published twice; to leave it would be to lose what was not. If that process's clock was ahead of now, what waits does not wait for that time to come.
func (a *Account) Interrupted(now time.Time, e *Effects) {
	e = e.orOwn()
	a.dropGone(e)
	a.touched, a.left = min(a.touched, toInstant(now)), min(a.left, toInstant(now))
	for _, r := range a.regs {
		if r.pace.inFlight {
			a.again(r, 0, now, e)
		}
		r.pace.rewind(now, a.policy)
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
