package push

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// What a client enables and disables is what the Store says, at that moment and in one step, never what is kept in memory.

// change handles an event that changes stored registrations: the Store first, and what it did then.
func (e *Engine) change(ctx context.Context, s *shard, name string, ev Event, d *Decision) error {
	wanted, leave := context.WithCancel(ctx)
	defer leave()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	if e.lanes.running.Load() >= maxLanes {
		s.mu.Unlock()
		d.Reason = ReasonStore
		return fmt.Errorf("%w: it is being called for too many accounts at once", ErrStore)
	}
	en := s.accounts[name]
	if en == nil {
		en = s.open(e, name)
	}
	e.work.add()
	defer e.work.done()
	kept := keepEvent(ev) // ev itself must not escape
	if err := s.acquire(ctx, en); err != nil {
		s.mu.Unlock()
		return err
	}
	c, res := e.changing(s, en, kept)
	c.ctx = wanted
	res.d = d
	if l := en.lane; l != nil && len(l.learned) > 0 { // it has to know what it changes
		e.writeNow(s, en)
	}
	if dis, ok := kept.(PushDisable); ok && dis.Node == Push2Node && !en.Loaded() {
		e.read(s, en)
	}
	done := e.callStore(s, en, c)
	e.release(s, en)
	s.mu.Unlock()
	left := error(nil)
	select {
	case <-done:
	case <-ctx.Done():
		left = ctx.Err()
		select { // a Store that obeys its context says what became of it
		case <-done:
		case <-time.After(min(hookGrace, e.cfg.StoreTimeout)):
		}
	case <-time.After(e.cfg.StoreTimeout + hookGrace):
		left = errOverrun
	}
	s.mu.Lock()
	res.d = nil
	applied, err, told := res.done, res.err, res.told
	s.mu.Unlock()
	if !applied {
		d.Reason = ReasonStore
		return fmt.Errorf("%w: %w; it may have been changed all the same", ErrStore, left)
	}
	e.hear(told)
	return err
}

// changed is what became of a change. The shard's lock guards it.
type changed struct {
	d    *Decision // where Handle wants the answer, nil if it has gone
	done bool
	err  error
	told hearing
}

// changing returns the call of the Store that an event makes. The shard is locked.
func (e *Engine) changing(s *shard, en *entry, ev Event) (*call, *changed) {
	name, res := en.name, &changed{}
	finish := func(d *Decision, err error) {
		s.changes.Add(1)
		res.err, res.done = err, true
		if res.d != nil {
			*res.d = *d
			res.told = e.deliver(s, en, true)
		}
	}
	if enable, ok := en.addressed(ev).(PushEnable); ok {
		var before []Registration
		r := en.enabling(enable, e.now())
		if r.Client == "" {
			r.Client = en.deferredClient(enable.Session.ID)
		}
		return &call{
			hook: &e.hooks.enable,
			run: func(ctx context.Context) (err error) {
				before, err = e.cfg.Store.Enable(ctx, r, e.policy.MaxRegistrations)
				return err
			},
			then: func(err error) (keys []Key) {
				var d Decision
				d.reset(name)
				if err != nil {
					d.Reason = ReasonStore
					e.spoil(en)
					finish(&d, fmt.Errorf("%w: %w", ErrStore, err))
					return nil
				}
				e.lanes.away.Store(false)
				var stored Health // by the Store, before the enable
				for i := range before {
					if before[i].Key == r.Key {
						stored = before[i].Health
					}
				}
				var eff Effects // what other processes did, which an enable meets in the Store
				e.load(en, before, &eff)
				e.tellEffects(en, e.now(), &eff, true)
				keys = e.catchUp(s, en)
				o := en.find(r.Key)
				anew := o == nil || !o.Health.Disabled.IsZero()
				e.unlearn(en, func(ls *lesson) bool {
					if ls.key == r.Key && anew { // also in the Store, which was not told of the tombstone
						ls.after = Update{}
						return o == nil || ls.succeeded.IsZero()
					}
					return false
				})
				if anew && o != nil && stored.Disabled.IsZero() && (stored.Errors != 0 || stored.Refusals != 0 || !stored.Failing.IsZero()) { // nor could it know that it does
					u := Update{Errors: -stored.Errors, Refusals: -stored.Refusals}
					if !o.Health.Succeeded.IsZero() {
						u = Update{Succeeded: o.Health.Succeeded}
					}
					e.learn(s, en, r.Key, u)
				}
				keys = e.decide(s, en, en.addressed(ev), Facts{}, &d, false, keys)
				if o := en.find(r.Key); o != nil && r.Enabled.Before(o.Enabled) && o.Enabled.Sub(r.Enabled) < RenewAfter {
					o.Enabled = r.Enabled // the time that the Store was given
				}
				finish(&d, nil)
				return keys
			},
		}, res
	}
	k := Key{}
	switch ev := ev.(type) {
	case PushDisable:
		k = ev.Key
	case AffiliationNone:
		if k = ev.Key; k.Node == "" { // the service means only that one
			k.Node = noNode
		}
	default: // AccountRemoved: all
	}
	var removed []Key
	return &call{
		hook: &e.hooks.remove,
		run: func(ctx context.Context) (err error) {
			if k.Node == Push2Node { // what was read before says of which service the device's registration is
				s.mu.Lock()
				if err := s.acquire(ctx, en); err != nil {
					s.mu.Unlock()
					return err
				}
				k = en.addressed(ev).(PushDisable).Key
				e.release(s, en)
				s.mu.Unlock()
			}
			if _, all := ev.(AccountRemoved); !all && k.Service == "" {
				return nil // the device has none
			}
			removed, err = e.cfg.Store.Remove(ctx, name, k)
			return err
		},
		then: func(err error) (keys []Key) {
			removed = slices.DeleteFunc(removed, func(o Key) bool { return o.Service == "" })
			for _, o := range removed { // what only the Store knew
				if en.find(o) == nil {
					en.put(Registration{Account: name, Key: o})
				}
			}
			l := en.getLane()
			e.unlearn(en, func(ls *lesson) bool { return slices.Contains(removed, ls.key) })
			var d Decision
			d.reset(name)
			reason := ReasonDisabledByUser
			switch ev.(type) {
			case AffiliationNone:
				reason = ReasonRevoked
			case AccountRemoved:
				reason = ReasonAccount
			default:
			}
			if err != nil {
				for _, o := range removed {
					en.Remove(o, reason, &d.Effects)
				}
				d.Reason = ReasonStore
				e.tellEffects(en, e.now(), &d.Effects, true)
				e.spoil(en)
				finish(&d, fmt.Errorf("%w: %w", ErrStore, err))
				return nil
			}
			e.lanes.away.Store(false)
			keys = e.decide(s, en, ev, Facts{}, &d, false, nil)
			if _, all := ev.(AccountRemoved); all { // nothing is left to be read
				if !en.Loaded() {
					en.Load(nil, e.now(), &Effects{})
				}
				l.readAt = time.Time{}
				keys = append(keys, e.catchUp(s, en)...)
			}
			var rest Effects
			for _, o := range removed {
				en.Remove(o, reason, &rest)
			}
			e.tellEffects(en, e.now(), &rest, true)
			d.Changes, d.Drops, d.Advice = append(d.Changes, rest.Changes...), append(d.Drops, rest.Drops...), append(d.Advice, rest.Advice...)
			finish(&d, nil)
			return keys
		},
	}, res
}

// deferredClient returns the client ID of a session whose opening has not been decided yet.
func (en *entry) deferredClient(session string) (client string) {
	if en.lane == nil {
		return ""
	}
	for _, p := range en.lane.deferred {
		switch o := p.ev.(type) {
		case SessionOpen:
			if o.Session.ID == session {
				client = o.Client
			}
		case SessionRestored:
			if o.Session.ID == session {
				client = o.Client
			}
		default:
		}
	}
	return client
}
