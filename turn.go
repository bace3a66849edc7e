package push

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push/internal/deadline"
)

// An account in its shard. The shard's lock guards it, and whoever holds the lock may change the Account unless its turn is taken. The turn is for what has
// to ask the host in the middle of deciding (Vetoer), whose calls are bounded, so the turn is: others wait for it, but the publishes of the
// account, which come back when it is given on.

const shardCount = 64

type shard struct {
	mu       sync.Mutex
	accounts map[string]*entry
	most     int          // accounts since it was made
	kept     fingerprints // the names in accounts
	queue    deadline.Queue[*entry]
	timer    *time.Timer
	timerAt  time.Time
	events   uint64
	// changes counts what may have made a list of registrations stale that was not read in its account's lane.
	changes atomic.Uint64
	// closing: no event is taken any more.
	closing bool
	// calls are those of the host's that are under way and have a bound (watchdog.go).
	calls watched
	_     [64]byte
}

// entry is an account that is kept.
type entry struct {
	deadline.Item
	*Account
	keep keepState
	// busy: somebody has the turn; queue is who wants it, nil: nobody.
	busy bool
	// interrupted: it was taken up from the Store, and what was in flight is not known to be tried again.
	interrupted bool
	queue       *turnQueue
	// mail is what the host is to be told, lane what the Store is; nil: nothing.
	mail *mail
	lane *lane
}

// turnQueue is who waits for an account's turn: waiters want it next, and publishing wants it back. It is apart because it is seldom needed.
type turnQueue struct {
	waiters    []chan struct{}
	publishing []Key
}

func (en *entry) getQueue() *turnQueue {
	if en.queue == nil {
		en.queue = new(turnQueue)
	}
	return en.queue
}

// open keeps an account of which nothing is known yet. The shard is locked.
func (s *shard) open(e *Engine, name string) *entry {
	name = strings.Clone(name) // the caller's may be part of a whole stanza
	both := &struct {
		entry   entry
		account Account
	}{account: *OpenAccount(name, e.policy)}
	en := &both.entry
	en.Account = &both.account
	s.accounts[name] = en
	s.most = max(s.most, len(s.accounts))
	s.kept.add(hashID(name))
	return en
}

// forget takes out an account. The shard is locked.
func (s *shard) forget(name string) {
	delete(s.accounts, name)
	s.kept.remove(hashID(name))
	s.accounts = fitted(s.accounts, &s.most)
}

// canDecide tells whether the event can be decided now: in its order, and with what it needs.
func (en *entry) canDecide(ev Event) bool {
	return (en.Loaded() || !needsRegistrations(ev)) && (en.lane == nil || len(en.lane.deferred) == 0)
}

// needsRegistrations tells whether an event cannot be decided before the account's registrations are known.
func needsRegistrations(ev Event) bool {
	switch ev.(type) {
	case SessionOpen, SessionRestored, SessionClose, Acknowledged, SessionActive, SessionPresence, ChatChanged:
		return false
	default:
		return true
	}
}

func (s *shard) number() uint64 {
	s.events += shardCount
	return s.events
}

// acquire waits for the turn of en. The shard is locked when it is called and when it returns.
func (s *shard) acquire(ctx context.Context, en *entry) error {
	if !en.busy {
		en.busy = true
		return nil
	}
	ch := make(chan struct{})
	q := en.getQueue()
	q.waiters = append(q.waiters, ch)
	s.mu.Unlock()
	var err error
	select {
	case <-ch:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	if err != nil {
		q := en.queue
		if q == nil {
			return nil // it came all the same
		}
		i := slices.Index(q.waiters, ch)
		if i < 0 {
			return nil
		}
		q.waiters = slices.Delete(q.waiters, i, i+1)
	}
	return err
}

// release gives the turn on, and lets what is queued be told. The shard is locked.
func (e *Engine) release(s *shard, en *entry) {
	e.giveOn(en)
	e.deliver(s, en, false)
	s.settle(e, en, e.now())
}

// giveOn gives the turn on; deliver or hereOr, and settle, have to follow. The shard is locked.
func (e *Engine) giveOn(en *entry) {
	en.busy = false
	if q := en.queue; q != nil && len(q.waiters) > 0 {
		en.busy = true
		close(q.waiters[0])
		q.waiters = slices.Delete(q.waiters, 0, 1)
	} else if q != nil {
		en.queue = nil
		if len(q.publishing) > 0 {
			e.work.add()
			go func() {
				e.dispatch(en.name, q.publishing)
				e.work.done()
			}()
		}
	}
}

// settle notes when to look at an account again, or forgets it. The shard is locked.
func (s *shard) settle(e *Engine, en *entry, now time.Time) {
	if en.busy {
		return // whoever has the turn will
	}
	next := en.Next()
	if e.keeper != nil {
		e.settleKeep(en, now)
		next = earlier(next, en.keep.at.time())
	}
	if l := en.lane; l != nil {
		next = earlier(next, earlier(l.readAt, l.writeAt))
	}
	if idle, ok := en.idleAt(); ok {
		if !now.Before(idle) && en.quiet() {
			s.queue.Set(en, time.Time{})
			if s.accounts[en.name] == en {
				s.forget(en.name)
			}
			return
		}
		if now.Before(idle) {
			next = earlier(next, idle)
		}
	} else if at := en.pruneAt(); now.Before(at) {
		next = earlier(next, at)
	}
	s.queue.Set(en, next)
	s.arm(e, now)
}

// earlier returns the first of two times, of which a zero one is never.
func earlier(t, u time.Time) time.Time {
	if t.IsZero() || !u.IsZero() && u.Before(t) {
		return u
	}
	return t
}

// quiet tells whether nothing is to be told or stored of the account any more.
func (en *entry) quiet() bool {
	return (en.mail == nil || !en.mail.running && len(en.mail.later) == 0) && (en.lane == nil || en.lane.quiet()) && en.keep.quiet()
}

// arm sets the shard's timer. The shard is locked.
func (s *shard) arm(e *Engine, now time.Time) {
	next := s.queue.Next()
	if next.IsZero() || !s.timerAt.IsZero() && !next.Before(s.timerAt) || e.closed.Load() {
		return
	}
	s.timerAt = next
	setTimer(&s.timer, next.Sub(now), func() { e.tick(s) })
}

// setTimer has f called in a goroutine of its own after d, and not any more when it was to be called before. It is never at once: a bubble of testing/synctest
// would call it within this call, which the race detector does not survive now and then (seen with Go 1.26).
func setTimer(t **time.Timer, d time.Duration, f func()) {
	if d = max(d, 1); *t == nil {
		*t = time.AfterFunc(d, f)
	} else {
		(*t).Reset(d)
	}
}

// tick does what is due in a shard.
func (e *Engine) tick(s *shard) {
	e.work.add()
	defer e.work.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timerAt = time.Time{}
	if e.closed.Load() {
		return
	}
	now := e.now()
	for {
		en, ok := s.queue.Pop(now)
		if !ok {
			break
		}
		if en.lane != nil {
			e.laneDue(s, en, now)
		}
		e.keepDue(s, en, now)
		if en.busy {
			continue // its release comes back to it
		}
		keys := e.due(s, en, now)
		e.deliver(s, en, false)
		s.settle(e, en, now)
		if len(keys) > 0 {
			s.mu.Unlock()
			e.dispatch(en.name, keys)
			s.mu.Lock()
		}
	}
	s.arm(e, now)
}

// due does what is due for an account whose turn nobody has. The shard is locked.
func (e *Engine) due(s *shard, en *entry, now time.Time) []Key {
	en.Prune(now)
	var eff Effects
	keys := en.Due(now, nil, &eff)
	e.tellEffects(en, now, &eff, true)
	return keys
}
