package push

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// Closing: no event is taken any more, and all that waits goes out, again and again until it is accepted or time is over. What is left is handed to the Store, if
// it can keep it, in the last part of that time; the rest is reported. Nothing is waited for beyond it: what hangs is left to itself.

// closing is the first Close, for which others wait.
type closing struct {
	once sync.Once
	done chan struct{}
}

// work counts what may still call the host or change an account.
type work struct {
	n    atomic.Int64
	zero chan struct{} // has room for one: n was zero
}

func (w *work) add() { w.n.Add(1) }

func (w *work) done() {
	if w.n.Add(-1) == 0 {
		select {
		case w.zero <- struct{}{}:
		default:
		}
	}
}

// Close takes no more events, sends what waits, and goes on trying until ctx ends, or for Policy.ReplyTimeout if ctx has no deadline. What is left
// then it hands to a Store that is a [Keeper]. What no Keeper took is in the error, an *UnsentError.
//
// The last part of the time is for the Store, which is told what is left and what replies taught: a tenth of it, a second at most; with a Keeper a
// quarter, 5 s at most. Close returns as soon as nothing is left to do, and when ctx ends, whatever of the host's hangs, but for the moment that the
// report takes (a fifth of a second if 100,000 accounts have something left); what hangs changes nothing any more.
//
// Replies of push services have to reach the Publisher until then: close the Engine before the streams that they come by. Others that call Close
// meanwhile wait for the first, which has the report, and return nil, or ctx's error.
func (e *Engine) Close(ctx context.Context) error {
	if e == nil || e.policy == nil {
		return errNotMade
	}
	ctx = orEndless(ctx)
	deadline, limited := ctx.Deadline()
	first := false
	e.close.once.Do(func() { first = true })
	if !first {
		select {
		case <-e.close.done:
			return nil
		case <-ctx.Done():
		}
		select {
		case <-e.close.done:
			return nil
		default:
			return ctx.Err()
		}
	}
	e.closing.Store(true)
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
	}
	now := time.Now()
	end := now.Add(e.policy.ReplyTimeout)
	if limited {
		end = deadline
	}
	part := min(end.Sub(now)/10, time.Second)
	if e.keeper != nil {
		part = min(end.Sub(now)/4, 5*time.Second)
	}
	if ctx.Err() == nil {
		sending, stop := context.WithDeadline(ctx, end.Add(-part))
		e.finish(sending, true)
		stop()
		e.sealed.Store(true)
		e.recall() // who returns now is still heard
		settling, stop := context.WithDeadline(ctx, end)
		e.finish(settling, false)
		if e.keeper != nil {
			e.keepAll(settling)
		}
		stop()
	}
	e.sealed.Store(true)
	e.closed.Store(true)
	if e.keeper != nil {
		unclaim(e.keeper, weak.Make(e))
	}
	e.cancel()
	e.stop()
	err := e.leftovers()
	close(e.close.done)
	return err
}

// finish waits until nothing is left to do, or ctx ends. If sending, it lets all that waits go out, again and again.
func (e *Engine) finish(ctx context.Context, sending bool) {
	for wait := 250 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		if busy := sending && e.flushAll(ctx); !busy && e.work.n.Load() == 0 {
			return
		}
		again := time.After(wait)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-again:
				waiting = false
			case <-e.work.zero:
				if e.work.n.Load() == 0 && !(sending && e.unfinished()) {
					return
				}
			}
		}
	}
}

// flushAll makes all that waits due at once, and what waits for the Store too, as far as it comes before ctx ends. It returns whether there was something.
func (e *Engine) flushAll(ctx context.Context) bool {
	var all []*entry
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for _, en := range s.accounts {
			if en.unfinished() {
				all = append(all, en)
			}
		}
		s.mu.Unlock()
	}
	for _, en := range all {
		if ctx.Err() != nil {
			break
		}
		s := e.shard(en.name)
		s.mu.Lock()
		now := e.now()
		if l := en.lane; l != nil {
			l.writeAt = now
			if len(l.deferred) > 0 {
				l.readAt = now
			}
		}
		if !en.busy {
			en.Flush(now)
			s.settle(e, en, now)
		}
		s.mu.Unlock()
	}
	e.gates.mu.RLock()
	gs := make([]*gate, 0, len(e.gates.services))
	for _, g := range e.gates.services {
		gs = append(gs, g)
	}
	e.gates.mu.RUnlock()
	for _, g := range gs {
		if ctx.Err() != nil {
			break
		}
		e.hurry(g)
	}
	return len(all) > 0
}

// unfinished tells whether something of an account waits to be sent, decided or stored. The shard is locked.
func (en *entry) unfinished() bool {
	l := en.lane
	return en.waits() || l != nil && (len(l.deferred) > 0 || len(l.learned) > 0)
}

// waits tells whether something of an account waits to be sent, or for its reply. The shard is locked.
func (en *entry) waits() bool {
	if en.busy {
		return true // somebody is at it
	}
	for _, r := range en.regs {
		if len(r.pace.waiting) > 0 || r.pace.inFlight {
			return true
		}
	}
	return false
}

// unfinished tells whether something of any account is.
func (e *Engine) unfinished() bool {
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for _, en := range s.accounts {
			if en.unfinished() {
				s.mu.Unlock()
				return true
			}
		}
		s.mu.Unlock()
	}
	return false
}

// stop stops all timers.
func (e *Engine) stop() {
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		if s.timer != nil {
			s.timer.Stop()
		}
		s.mu.Unlock()
	}
	e.dog.stop()
	e.gates.mu.Lock()
	defer e.gates.mu.Unlock()
	if e.gates.sweeper != nil {
		e.gates.sweeper.Stop()
	}
	for _, g := range e.gates.services {
		g.mu.Lock()
		g.stop()
		g.mu.Unlock()
	}
}

// leftovers forgets everything and reports what was not sent, decided or kept.
func (e *Engine) leftovers() error {
	var left UnsentError
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for name, en := range s.accounts {
			if l := en.lane; l != nil {
				for _, p := range l.deferred {
					if p.d != nil {
						p.err = ErrClosed // its Handle returns it
					} else {
						left.Undecided = append(left.Undecided, p.ev)
					}
					p.leave()
				}
				l.deferred = nil
			}
			if !en.busy && !en.keptAsItIs() { // else somebody is at it
				if en.gone != nil {
					for _, d := range *en.gone {
						left.Unsent = append(left.Unsent, Unsent{Account: name, Drop: d, Asked: true})
					}
				}
				for _, r := range en.regs {
					if len(r.pace.flight) > 0 {
						left.Unsent = append(left.Unsent, Unsent{Account: name, Drop: r.flightDrop(ReasonClosed, ""), Asked: true})
						r.pace.flight = nil
					}
					var eff Effects
					r.drop(r.pace.takeAll(), ReasonClosed, "", &eff)
					for _, d := range eff.Drops {
						left.Unsent = append(left.Unsent, Unsent{Account: name, Drop: d})
					}
				}
			}
			if en.mail != nil {
				for _, w := range en.mail.waiting {
					w.done <- struct{}{}
				}
			}
			s.forget(name)
		}
		s.mu.Unlock()
	}
	if len(left.Unsent)+len(left.Undecided) == 0 {
		return nil
	}
	slices.SortStableFunc(left.Unsent, func(a, b Unsent) int { return strings.Compare(a.Account, b.Account) })
	return &left
}
