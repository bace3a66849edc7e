package push

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An account's registrations are read when an event first needs them, and not before: a session that opens needs none, so 100,000 phones that come back
// read nothing. Sessions, hibernation and what they want to be bound to are facts of the Engine's, with or without a Store.
//
// An event that needs what has not been read waits in memory, and those after it in their order. It is not refused: a host's mail server has
// mostly no way to raise an event again, so a refused one is a message that nobody is woken for, for as long as the Store is away. It is decided when the Store
// has answered, with what is true then: who is enabled, who is connected. Two bounds keep that from growing: maxDeferred for an account, whose device is woken by
// any of them, and Config.MaxDeferred for all; beyond them Handle returns an error, and the host knows. They are bounds on memory too: an event with much text takes the
// room of more.

// maxDeferred is how many events of one account wait for its registrations, deferredBytes how much text each of them may have.
const (
	maxDeferred   = 256
	deferredBytes = 4096
)

// deferred is an event that waits.
type deferred struct {
	ev Event
	// room is of how many events it takes the room.
	room int
	// d is where Handle wants the Decision, nil if it has gone. decided and err are for it; done is closed for it.
	d       *Decision
	decided bool
	err     error
	told    hearing
	done    chan struct{}
	woken   bool
}

// leave lets the Handle go that waits for it.
func (p *deferred) leave() {
	if !p.woken {
		p.woken = true
		close(p.done)
	}
}

// postpone queues an event that cannot be decided yet, and waits a while for it. The shard is locked, and is not when it returns.
func (e *Engine) postpone(ctx context.Context, s *shard, en *entry, ev Event, d *Decision) (hearing, error) {
	l := en.getLane()
	if l.room >= maxDeferred || e.deferRoom.Load() >= int64(e.cfg.MaxDeferred) {
		s.settle(e, en, e.now())
		s.mu.Unlock()
		d.Reason = ReasonStore
		return hearing{}, fmt.Errorf("%w: the registrations of this account have not been read, and too many events wait for that", ErrStore)
	}
	p := &deferred{d: d, done: make(chan struct{})}
	p.ev, p.room = deferrable(ev)
	l.deferred = append(l.deferred, p)
	l.room += p.room
	e.defers.Add(1)
	e.deferRoom.Add(int64(p.room))
	if l.readAt.IsZero() { // else it has failed, and is tried again then
		e.read(s, en)
	}
	if !needsRegistrations(ev) || e.lanes.away.Load() || l.reading == nil {
		p.leave()
	}
	s.settle(e, en, e.now())
	s.mu.Unlock()
	select {
	case <-p.done:
	case <-ctx.Done():
	case <-time.After(e.cfg.HookTimeout):
		e.lanes.away.Store(true)
	}
	s.mu.Lock()
	p.d = nil
	decided, err, told := p.decided, p.err, p.told
	s.mu.Unlock()
	if err == nil && !decided {
		d.Reason = ReasonDeferred
	}
	return told, err
}

// deferrable returns a copy of ev that can wait, without what would go along with no notification, and of how many events it takes the room.
func deferrable(ev Event) (kept Event, room int) {
	bytes := 0
	weigh := func(st *Stanza) {
		if len(st.XML) > maxCarriedBytes {
			st.XML = ""
		}
		bytes += len(st.XML) + len(st.Body)
	}
	switch e := keepEvent(ev).(type) {
	case StanzaQueued:
		weigh(&e.Stanza)
		kept = e
	case ArchiveAdded:
		weigh(&e.Stanza)
		kept = e
	case Offline:
		weigh(&e.Stanza)
		kept = e
	case Groupchat:
		weigh(&e.Stanza)
		kept = e
	case AckDelayed:
		for i := range e.Stanzas {
			weigh(&e.Stanzas[i])
		}
		kept = e
	case HibernationStart:
		for i := range e.Stanzas {
			weigh(&e.Stanzas[i])
		}
		kept = e
	default:
		kept = e
	}
	return kept, 1 + bytes/deferredBytes
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// read reads an account's registrations, if that is not being done, and returns what is closed when it is done or has failed. The shard is locked.
func (e *Engine) read(s *shard, en *entry) <-chan struct{} {
	l := en.getLane()
	if l.reading != nil {
		return l.reading
	}
	if e.lanes.running.Load() >= maxLanes {
		l.readAt = e.now().Add(time.Second)
		return closedChan
	}
	var rs []Registration
	l.reading = e.callStore(s, en, &call{
		hook: &e.hooks.list,
		run: func(ctx context.Context) (err error) {
			<-e.keeps.done
			rs, err = e.cfg.Store.List(ctx, en.name)
			return err
		},
		then: func(err error) []Key {
			l.reading = nil
			if err != nil {
				l.fails++
				l.readAt = e.now().Add(retryIn(l.fails))
				e.lanes.away.Store(true)
				for _, p := range l.deferred {
					p.leave()
				}
				return nil
			}
			e.lanes.away.Store(false)
			var eff Effects
			e.load(en, rs, &eff)
			e.tellEffects(en, e.now(), &eff, true)
			return e.catchUp(s, en)
		},
	})
	return l.reading
}

// load takes what the Store has of an account, in the account's turn.
func (e *Engine) load(en *entry, rs []Registration, eff *Effects) {
	rs = sane(en.name, rs, e.policy)
	if l := en.lane; l != nil {
		l.fails, l.readAt = 0, time.Time{}
		if len(l.writing)+len(l.learned) > 0 {
			rs = slices.Clone(rs) // it may be the Store's own
		}
		for i := range rs { // what it has not been told yet
			for _, ls := range slices.Concat(l.writing, l.learned) {
				if ls.key == rs[i].Key {
					rs[i].Health = ls.apply(rs[i].Health)
				}
			}
		}
	}
	en.Load(rs, e.now(), eff)
	if en.interrupted {
		en.interrupted = false
		en.Interrupted(e.now(), eff)
	}
	e.tellRead(en, e.now())
}

// maxStored is how many registrations of one account are looked at: a Store that has more has lost count.
const maxStored = 256

// sane leaves out what a Store should not have returned. Of far too many the newest are kept. It does not change rs, which may be the Store's own.
func sane(account string, rs []Registration, p *Policy) []Registration {
	if strange := func(r Registration) bool { return r.Account != account || r.Service == "" }; slices.ContainsFunc(rs, strange) {
		rs = slices.DeleteFunc(slices.Clone(rs), strange)
	}
	if most := max(maxStored, p.MaxRegistrations); len(rs) > most {
		rs = slices.Clone(rs)
		slices.SortStableFunc(rs, func(a, b Registration) int { return b.Enabled.Compare(a.Enabled) })
		rs = rs[:most]
	}
	return rs
}

// catchUp decides the events that waited, in the account's turn; the shard is locked, but not while the host is asked.
func (e *Engine) catchUp(s *shard, en *entry) (keys []Key) {
	l := en.getLane()
	for len(l.deferred) > 0 {
		p := l.deferred[0]
		var f Facts
		if e.asks(p.ev) { // it asks in a turn of its own
			e.release(s, en)
			s.mu.Unlock()
			e.facts(en.name, p.ev, &f)
			s.mu.Lock()
			_ = s.acquire(context.Background(), en)
		}
		var d Decision
		keys = e.decide(s, en, p.ev, f, &d, false, keys)
		l.deferred = slices.Delete(l.deferred, 0, 1)
		l.room -= p.room
		e.defers.Add(-1)
		e.deferRoom.Add(-int64(p.room))
		p.decided = true
		if p.d != nil {
			*p.d = d
			p.told = e.deliver(s, en, true)
		}
		p.leave()
	}
	return keys
}

// Refresh reads an account's registrations again because another node of the host has changed them. It costs nothing if they are
// not kept in memory. It waits for the Store until ctx ends, and for no longer than Config.StoreTimeout. Errors are as for Handle.
func (e *Engine) Refresh(ctx context.Context, account string) error {
	if e == nil || e.policy == nil {
		return errNotMade
	}
	ctx = orEndless(ctx)
	s := e.shard(account)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	en := s.accounts[account]
	if en == nil || !en.Loaded() && !(en.lane != nil && en.lane.reading != nil) {
		s.mu.Unlock()
		return nil
	}
	var (
		rs     []Registration
		failed error
		told   hearing
	)
	done := e.callStore(s, en, &call{
		hook: &e.hooks.list,
		run: func(ctx context.Context) (err error) {
			rs, err = e.cfg.Store.List(ctx, account)
			return err
		},
		then: func(err error) []Key {
			if failed = err; err != nil {
				e.spoil(en)
				return nil
			}
			var eff Effects
			e.load(en, rs, &eff)
			e.tellEffects(en, e.now(), &eff, true)
			keys := e.catchUp(s, en)
			told = e.deliver(s, en, true)
			return keys
		},
	})
	s.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.ctx.Done():
		return ErrClosed
	case <-time.After(e.cfg.StoreTimeout + hookGrace): // it is read all the same when the Store returns
		return fmt.Errorf("%w: %w", ErrStore, errOverrun)
	}
	e.hear(told)
	if failed != nil {
		return fmt.Errorf("%w: %w", ErrStore, failed)
	}
	return nil
}

// spoil has an account read again, for what is known of it may not be what is stored. The shard is locked.
func (e *Engine) spoil(en *entry) {
	l := en.getLane()
	if l.readAt.IsZero() {
		l.fails++
		l.readAt = e.now().Add(retryIn(l.fails))
	}
}

// RefreshAll is Refresh for every account that is kept in memory, for when it is not known which ones another node has changed. It returns the
// errors of all of them.
func (e *Engine) RefreshAll(ctx context.Context) error {
	if e == nil || e.policy == nil {
		return errNotMade
	}
	var names []string
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		names = slices.AppendSeq(names, maps.Keys(s.accounts))
		s.mu.Unlock()
	}
	errs := make([]error, len(names))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(refreshes, len(names)) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(names); i = int(next.Add(1)) - 1 {
				if err := e.Refresh(ctx, names[i]); err != nil {
					errs[i] = fmt.Errorf("%s: %w", names[i], err)
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// refreshes is how many accounts RefreshAll reads at once, so that one whose reading hangs does not hold up the others.
const refreshes = 16
