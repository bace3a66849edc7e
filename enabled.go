package push

import (
	"slices"
	"time"
)

func (a *Account) find(k Key) *registration {
	i, ok := slices.BinarySearchFunc(a.regs, k, func(r *registration, k Key) int { return r.Key.Compare(k) })
	if !ok {
		return nil
	}
	return a.regs[i]
}

// put inserts or replaces the stored part of a registration.
func (a *Account) put(n Registration) *registration {
	i, ok := slices.BinarySearchFunc(a.regs, n.Key, func(r *registration, k Key) int { return r.Key.Compare(k) })
	n.Account = a.name // one string for all
	if ok {
		a.regs[i].Registration, a.regs[i].pace.stub = n, false
	} else {
		a.regs = slices.Insert(a.regs, i, &registration{Registration: n})
		a.regs[i].pace.inFlight = a.isGone(n.Key)
	}
	return a.regs[i]
}

// isGone tells whether a registration with the key was removed while a publish for it was not answered.
func (a *Account) isGone(k Key) bool {
	return a.gone != nil && slices.ContainsFunc(*a.gone, func(d Drop) bool { return d.Key == k })
}

// takeGone returns what is to be dropped, if it was not accepted, of a registration that is gone, and forgets it.
func (a *Account) takeGone(k Key) (gone Drop) {
	*a.gone = slices.DeleteFunc(*a.gone, func(d Drop) bool {
		if d.Key != k {
			return false
		}
		gone = d
		return true
	})
	if len(*a.gone) == 0 {
		a.gone = nil
	}
	return gone
}

// spend says that what is in flight for a registration is not tried again, because of reason, if its publish fails.
func (a *Account) spend(k Key, reason Reason) {
	if r := a.find(k); r != nil {
		r.pace.spend(reason)
	}
}

// dropGone drops what was sent to registrations that are gone and will not be answered.
func (a *Account) dropGone(e *Effects) {
	if a.gone != nil {
		for _, d := range *a.gone {
			e.dropped(d)
		}
		a.gone = nil
	}
}

// dropped reports a drop. One without a reason is not known, because it comes from a snapshot of an older version, where it was reported before.
func (e *Effects) dropped(d Drop) {
	if d.Reason != ReasonNone {
		e.Drops = append(e.Drops, d)
	}
}

func (a *Account) remove(r *registration, reason Reason, e *Effects) {
	if r.pace.inFlight && !a.isGone(r.Key) { // what becomes of it its reply will say
		if a.gone == nil {
			a.gone = new([]Drop)
		}
		*a.gone = append(*a.gone, r.flightDrop(reason, ""))
	}
	a.unbind(r, reason, e)
	r.drop(r.pace.takeWaiting(reason), reason, "", e)
	a.regs = slices.DeleteFunc(a.regs, func(o *registration) bool { return o == r })
	e.change(r.Key, ChangeRemoved, reason, "")
}

// Remove removes one registration, because of reason. It reports whether there was one.
func (a *Account) Remove(k Key, reason Reason, e *Effects) bool {
	r := a.find(k)
	if r != nil {
		a.remove(r, reason, e.orOwn())
	}
	return r != nil
}

// matching returns the registrations that a key names; without a node it names all of the service.
func (a *Account) matching(k Key) []*registration {
	var rs []*registration
	for _, r := range a.regs {
		if k.Names(r.Key) {
			rs = append(rs, r)
		}
	}
	return rs
}

// enable adds or replaces a registration and binds the session to it (rule R1).
func (a *Account) enable(e PushEnable, now time.Time, d *Decision) {
	s := a.session(e.Session.ID)
	n := a.enabling(e, now)
	kind, reason := ChangeAdded, ReasonEnabled
	if old := a.find(e.Key); old != nil {
		kind, reason = ChangeUpdated, ReasonReplaced
		if !old.Health.Disabled.IsZero() {
			kind, reason = ChangeEnabled, ReasonReenabled
		}
		later := func(o *registration) bool { return o.Enabled.After(old.Enabled) }
		n, _ = n.renew(old.Registration, a.policy.MaxRegistrations > 0 && slices.ContainsFunc(a.regs, later))
	}
	r := a.put(n)
	d.change(e.Key, kind, reason, "")
	if s != nil {
		c := &d.Changes[len(d.Changes)-1]
		c.Session, c.Rule = s.id, RuleBind
		r.caughtUp()
		a.give(s, r, &d.Effects)
	} else {
		c := Change{Key: e.Key, Kind: ChangeUnbound, Session: e.Session.ID, Rule: RuleBind, Reason: ReasonUnknownSession}
		if c.Session == "" {
			c.Reason = ReasonOperator
		}
		d.Changes = append(d.Changes, c)
	}
	for _, o := range slices.Clone(a.regs) {
		if o.sameDevice(r.Registration) {
			a.remove(o, ReasonReplaced, &d.Effects)
		}
	}
	if len(a.regs) > a.policy.MaxRegistrations {
		for _, k := range Evict(a.Registrations(), a.policy.MaxRegistrations) {
			a.remove(a.find(k), ReasonLimit, &d.Effects)
		}
	}
}

// enabling returns the registration that an enable makes. Its time has milliseconds, as databases and traces do, so that the order of
// registrations is the same when they come back from there.
func (a *Account) enabling(e PushEnable, now time.Time) Registration {
	n := Registration{Account: a.name, Key: e.Key, Options: cloneFields(e.Options), Wishes: e.Wishes, Enabled: now.Truncate(time.Millisecond)}
	if s := a.session(e.Session.ID); s != nil {
		n.Client = s.client()
	}
	return n
}

func cloneFields(fs []Field) []Field {
	c := slices.Clone(fs)
	for i := range c {
		c[i].Values = slices.Clone(c[i].Values)
	}
	return c
}

// mayRetry tells whether a tombstone is tried once more (XEP-0357 §7.1).
func (a *Account) mayRetry(r *registration, now time.Time) bool {
	after := a.policy.RetryDisabled
	return after > 0 && now.Sub(r.Health.Disabled) >= after && now.Sub(time.Unix(int64(r.retried), 0)) >= after
}
