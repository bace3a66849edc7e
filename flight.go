package push

import (
	"context"
	"time"
)

// flight is one publish on its way. The gate's lock guards it.
type flight struct {
	next, prev *flight // in gate.flights
	ref
	n Notification
	// sent and ctx are what the Publisher is given.
	sent Notification
	ctx  callContext
	// begun is when it was begun. lost: the Publisher has not returned in time. Until deadline it is waited for, first with a slot and then, lost, without one. over: no more.
	begun, deadline time.Time
	lost, over      bool
	// unknown: it was waited for until it was of no use.
	unknown bool
	// again: when it has returned, its registration has something to send.
	again bool
	// told is what its goroutine has to tell when it can be left to itself.
	told hearing
}

// publishAll publishes what was admitted, and then the next ones as long as the service admits them. It counts as work.
func (e *Engine) publishAll(g *gate, f *flight) {
	ended := false
	defer func() {
		if !ended { // the host has ended the goroutine
			go func() {
				e.land(g, f, Reply{Missing: true})
				e.pumpNow(g)
				e.work.done()
			}()
		}
	}()
	for f != nil {
		f = e.publish(g, f)
	}
	ended = true
	e.work.done()
}

// publish sends what waits for one registration, and takes note of the reply. It returns the next one, admitted, or nil.
func (e *Engine) publish(g *gate, f *flight) *flight {
	if f.begun.IsZero() {
		if e.hangs(g, f.ref) || !e.begin(f) {
			e.hear(f.told)
			return e.giveBack(g)
		}
		if e.cfg.Unread != nil || e.cfg.Subscriptions != nil || e.cfg.Veto != nil {
			e.prepare(g, f)
			return nil
		}
	} else if wanted, busy := e.stillWanted(f); busy {
		e.comeBack(g, f)
		return e.giveBack(g)
	} else if !wanted { // the host was asked in between
		e.end(f, Reply{Missing: true})
		return e.giveBack(g)
	}
	g.mu.Lock()
	now := e.now()
	f.deadline = now.Add(e.policy.ReplyTimeout + hookGrace)
	f.prev, f.next = g.flights.prev, &g.flights
	f.prev.next, f.next.prev = f, f
	if !g.watching {
		e.watch(g)
	}
	g.mu.Unlock()
	e.hear(f.told)
	f.sent, f.ctx.parent, f.ctx.until = f.n, e.sending, now.Add(e.policy.ReplyTimeout)
	var err error
	if perr := e.guard(&e.hooks.publisher, func() error { err = e.cfg.Publisher.Publish(&f.ctx, &f.sent); return nil }); perr != nil {
		err = perr
	}
	f.ctx.end()
	if !e.land(g, f, ReplyOf(err)) {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return e.following(g)
}

// hangs tells whether the Publisher has not returned from an earlier publish to a registration, never being called for one twice at a time; if so, it comes back then.
func (e *Engine) hangs(g *gate, r ref) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.hung[r]
	if f != nil {
		f.again = true
	}
	return f != nil
}

// following returns the next publish, and starts others beside it. The gate is locked.
func (e *Engine) following(g *gate) *flight {
	f, ok := e.take(g)
	if ok {
		e.pump(g)
	}
	return f
}

// giveBack gives a slot back that nothing was published on, and returns the next publish.
func (e *Engine) giveBack(g *gate) *flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.service.Cancel()
	return e.following(g)
}

// land takes note of a reply. It returns false if the publish had been left to itself.
func (e *Engine) land(g *gate, f *flight, reply Reply) bool {
	g.mu.Lock()
	if f.lost {
		e.work.add() // it does not count any more, and its goroutine does not know
		e.hooks.publisher.returned(f.account)
		delete(g.hung, f.ref)
		over := f.over
		if f.again {
			g.ready = append(g.ready, f.ref)
		}
		e.pump(g)
		g.mu.Unlock()
		if !over {
			e.end(f, reply)
		}
		return false
	}
	f.prev.next, f.next.prev = f.next, f.prev
	g.service.Done(e.now(), reply.Answered())
	g.mu.Unlock()
	e.end(f, reply)
	return true
}

// watch arms the timer for the first deadline. The gate is locked.
func (e *Engine) watch(g *gate) {
	var next time.Time
	if f := g.flights.next; f != &g.flights {
		next = f.deadline
	}
	for _, f := range g.hung {
		if !f.over {
			next = earlier(next, f.deadline)
		}
	}
	if g.watching = !next.IsZero() && !e.closed.Load(); !g.watching {
		return
	}
	setTimer(&g.watch, next.Sub(e.now()), func() { e.lose(g) })
}

// lose takes their slots from those publishes that are past their deadline. Whether they were sent is not known, so their registrations wait for the
// Publisher to say it, as long as what they carry is of use; then it counts as not answered, and is too old to be tried again.
func (e *Engine) lose(g *gate) {
	e.work.add()
	defer e.work.done()
	now := e.now()
	var lost []*flight
	g.mu.Lock()
	for f := g.flights.next; f != &g.flights && !now.Before(f.deadline); f = g.flights.next {
		f.prev.next, f.next.prev = f.next, f.prev
		f.prev, f.next = nil, nil
		f.lost, f.deadline = true, f.begun.Add(e.policy.expire(f.n.Class))
		if g.hung == nil {
			g.hung = make(map[ref]*flight)
		}
		g.hung[f.ref] = f
		e.hooks.publisher.overrun(f.account)
		g.service.Done(now, false)
		e.work.done() // its goroutine's, which does not count any more
	}
	for _, f := range g.hung {
		if !f.over && !now.Before(f.deadline) {
			f.over, f.unknown = true, true
			lost = append(lost, f)
		}
	}
	e.watch(g)
	e.pump(g)
	g.mu.Unlock()
	for _, f := range lost {
		e.work.add()
		go func() {
			e.end(f, Reply{Missing: true})
			e.work.done()
		}()
	}
}

// begin takes what waits for a registration, if there is something and nobody has the account's turn.
func (e *Engine) begin(f *flight) bool {
	s := e.shard(f.account)
	s.mu.Lock()
	defer s.mu.Unlock()
	en := s.accounts[f.account]
	if en == nil {
		return false
	}
	if en.busy {
		q := en.getQueue()
		q.publishing = append(q.publishing, f.key)
		return false
	}
	now := e.now()
	var eff Effects
	n, ok := en.Begin(f.key, now, &eff)
	e.tellEffects(en, now, &eff, true)
	if ok && (e.obs.Sent != nil || e.quick.Sent != nil) {
		sent := n
		e.observe(en, func(o *Observer) bool { return o.Sent != nil }, func(o *Observer) { o.Sent(now, &sent) })
	}
	f.told = e.hereOr(s, en, now, false)
	if !ok {
		s.settle(e, en, now)
		return false
	}
	f.n, f.begun = n, now
	return true
}

// prepare gives the slot back and asks the host what it has to say of a publish. It counts as work when it is called, and the goroutine that it starts does when
// it returns.
func (e *Engine) prepare(g *gate, f *flight) {
	g.mu.Lock()
	g.service.Cancel()
	g.asking++
	e.pump(g)
	g.mu.Unlock()
	asking := &g.asking // nil: no more
	slow := time.AfterFunc(askSlow, func() {
		e.work.add()
		g.mu.Lock()
		if asking != nil {
			*asking--
			asking = &g.askingLong
			*asking++
			e.pump(g)
		}
		g.mu.Unlock()
		e.work.done()
	})
	e.hear(f.told)
	f.told = hearing{}
	why := e.consult(f)
	slow.Stop()
	g.mu.Lock()
	*asking--
	asking = nil
	if why == "" {
		g.prepared = append(g.prepared, f)
	}
	e.pump(g)
	g.mu.Unlock()
	if why != "" {
		e.end(f, Reply{Vetoed: why})
	}
}

// consult asks the host about a publish, and returns its veto.
func (e *Engine) consult(f *flight) string {
	if u := e.cfg.Unread; u != nil {
		n, err := ask(e.ctx, e, &e.hooks.unread, f.account, func(ctx context.Context) (int, error) { return u.Unread(ctx, f.account) })
		if err == nil {
			f.n.Unread = max(n, 0)
		} else {
			e.warn("push: unread count not known", f.account, err)
		}
	}
	if c := e.cfg.Subscriptions; c != nil {
		n, err := ask(e.ctx, e, &e.hooks.subscriptions, f.account, func(ctx context.Context) (int, error) { return c.PendingSubscriptions(ctx, f.account) })
		if err == nil {
			f.n.Pending = max(n, 0)
		} else {
			e.warn("push: subscription requests not known", f.account, err)
		}
	}
	if v := e.cfg.Veto; v != nil {
		type answer struct {
			n   Notification
			why string
		}
		n := f.n
		a, err := ask(e.ctx, e, &e.hooks.vetoPublish, f.account, func(ctx context.Context) (answer, error) {
			why := v.VetoPublish(ctx, &n)
			return answer{n, why}, nil
		})
		if err != nil {
			e.warn("push: not known whether the host vetoes", f.account, err)
			return ""
		}
		a.n.Account, a.n.Key, a.n.Events, a.n.Try = f.account, f.key, f.n.Events, f.n.Try // these are not the host's to change
		f.n = a.n
		return a.why
	}
	return ""
}

// stillWanted asks rule R12 again, and whether some of it is too old by now: its slot may have been hours in coming. If somebody has the account's turn, busy says so.
func (e *Engine) stillWanted(f *flight) (wanted, busy bool) {
	s := e.shard(f.account)
	s.mu.Lock()
	defer s.mu.Unlock()
	en := s.accounts[f.account]
	if en == nil || en.busy {
		return false, en != nil
	}
	if en.isGone(f.key) {
		return false, false
	}
	r := en.find(f.key)
	if r == nil {
		return false, false
	}
	if end := expiry(r.pace.flight, e.policy); !end.IsZero() && !e.now().Before(end) {
		return false, false
	}
	off := r.Health.Disabled
	return off.IsZero() || e.policy.RetryDisabled > 0 && off.Before(f.begun), false // the retry of a tombstone
}

// comeBack lets a prepared publish wait for a slot again when the account's turn is given on.
func (e *Engine) comeBack(g *gate, f *flight) {
	e.work.add()
	go func() {
		defer e.work.done()
		s := e.shard(f.account)
		s.mu.Lock()
		if en := s.accounts[f.account]; en != nil && s.acquire(e.ctx, en) == nil {
			e.release(s, en)
		}
		s.mu.Unlock()
		g.mu.Lock()
		g.prepared = append(g.prepared, f)
		e.pump(g)
		g.mu.Unlock()
	}()
}

// end takes note of the end of a publish that was begun.
func (e *Engine) end(f *flight, reply Reply) {
	s := e.shard(f.account)
	s.mu.Lock()
	en := s.accounts[f.account]
	if en == nil {
		s.mu.Unlock()
		return
	}
	_ = s.acquire(context.Background(), en)
	now := e.now() // not earlier than any event that had the turn before
	var eff Effects
	var buf [4]Key
	if f.unknown {
		en.spend(f.key, ReasonTooOld)
	}
	res := en.End(f.key, reply, now, &eff)
	if res.Store {
		e.learn(s, en, f.key, res.Update)
	}
	keys := en.Due(now, buf[:0], &eff)
	if e.telling {
		e.tellReplied(en, f, reply, res, now)
		e.tellEffects(en, now, &eff, true)
	}
	e.giveOn(en)
	told := e.hereOr(s, en, now, false)
	s.settle(e, en, now)
	s.mu.Unlock()
	e.dispatch(f.account, keys)
	e.hear(told)
}

// tellReplied queues that a publish has ended. The shard is locked.
func (e *Engine) tellReplied(en *entry, f *flight, reply Reply, res Result, now time.Time) {
	n, took := f.n, now.Sub(f.begun)
	if e.obs.Replied != nil || e.quick.Replied != nil {
		e.observe(en, func(o *Observer) bool { return o.Replied != nil }, func(o *Observer) { o.Replied(now, &n, reply, res, took) })
	}
	if e.cfg.Logger != nil {
		own := n
		en.tell(&e.hooks.logger, "", func() { e.logReply(&own, reply, res, took) })
	}
}
