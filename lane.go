package push

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The Store is called for an account by one goroutine, one call after another: its lane. So the calls of one account keep their order, and what one
// brings is applied before the next is made. A call that hangs holds up its account's other calls of the Store, and nothing else: whoever waits for
// an answer waits with a bound of his own. It is not taken over, for two calls about one account at a time could leave in the Store what the client was not told;
// when it returns at last, what it did counts.

// lane is an account's side of the Store. The shard's lock guards it.
type lane struct {
	watched
	// slot is that of the call that is under way, or nil.
	slot    *slot
	calls   []*call
	running bool
	// reading is closed when the registrations have been read; nil: they are not being read. readAt is when to read again, after fails tries.
	reading <-chan struct{}
	readAt  time.Time
	fails   int
	// deferred are the events that wait for the registrations, oldest first; room is the sum of theirs.
	deferred []*deferred
	room     int
	// learned is what the Store has not been told, writing what it is being told; writeAt is when to try again, after writeFails tries.
	learned, writing []lesson
	waitsToWrite     bool
	writeAt          time.Time
	writeFails       int
}

// call is one call of the Store.
type call struct {
	hook *hook
	// ctx ends it early, beside Config.StoreTimeout.
	ctx context.Context
	run func(ctx context.Context) error
	// then applies what it brought, in the account's turn; the shard is locked. It returns the registrations to publish to.
	then func(err error) []Key
	// done is closed after that.
	done chan struct{}
	// slot is what it has of the background, or nil.
	slot *slot
}

// laneStats is what all lanes have in common.
type laneStats struct {
	// running counts lanes that have a goroutine. away: the last call of the Store failed or took too long.
	running atomic.Int32
	away    atomic.Bool
}

// maxLanes is for how many accounts the Store may be called at once.
const maxLanes = 4096

func (en *entry) getLane() *lane {
	if en.lane == nil {
		en.lane = new(lane)
		en.lane.of = en.lane
	}
	return en.lane
}

// overrun notes that a call of the Store does not return. The shard is locked.
func (l *lane) overrun(e *Engine, _ *shard, _ time.Time) {
	e.lanes.away.Store(true)
	l.slot.free()
}

func (l *lane) quiet() bool {
	return !l.running && len(l.calls) == 0 && len(l.deferred) == 0 && len(l.learned) == 0
}

// callStore queues a call, and returns what is closed when it is applied. The shard is locked.
func (e *Engine) callStore(s *shard, en *entry, c *call) <-chan struct{} {
	l := en.getLane()
	c.done = make(chan struct{})
	l.calls = append(l.calls, c)
	if !l.running {
		l.running = true
		e.lanes.running.Add(1)
		e.work.add()
		go e.runLane(s, en, nil)
	}
	return c.done
}

// runLane makes an account's calls. interrupted is one whose goroutine the host has ended. It counts as work.
func (e *Engine) runLane(s *shard, en *entry, interrupted *call) {
	var c *call
	ended := false
	defer func() {
		if !ended {
			go e.runLane(s, en, c)
		}
	}()
	for {
		s.mu.Lock()
		l := en.lane
		if c = interrupted; c == nil {
			if len(l.calls) == 0 {
				l.running = false
				e.lanes.running.Add(-1)
				if l.quiet() && l.readAt.IsZero() {
					en.lane = nil // it is seldom needed, and most accounts do nothing most of the time
				}
				s.settle(e, en, e.now())
				s.mu.Unlock()
				e.work.done()
				ended = true
				return
			}
			c = l.calls[0]
			l.calls = slices.Delete(l.calls, 0, 1)
		}
		began := e.now()
		l.slot = c.slot
		e.attend(s, &l.watched, began.Add(e.cfg.StoreTimeout+hookGrace))
		s.mu.Unlock()
		err := fmt.Errorf("%w: %s", errPanicked, c.hook.name)
		if interrupted == nil {
			err = e.runCall(c, began)
		}
		interrupted = nil
		now := e.now()
		s.mu.Lock()
		l.unlink()
		_ = s.acquire(context.Background(), en)
		e.tellStored(en, c, now, now.Sub(began), err)
		keys := c.then(err)
		e.release(s, en)
		s.mu.Unlock()
		c.slot.free()
		close(c.done)
		e.dispatch(en.name, keys)
	}
}

// runCall makes one call of the Store.
func (e *Engine) runCall(c *call, began time.Time) error {
	if e.closed.Load() {
		return ErrClosed
	}
	if c.ctx != nil {
		if err := c.ctx.Err(); err != nil { // nobody wants it any more
			return err
		}
	}
	ctx := &callContext{parent: e.ctx, also: c.ctx, until: began.Add(e.cfg.StoreTimeout)}
	defer ctx.end()
	err := e.guard(c.hook, func() error { return c.run(ctx) })
	if err != nil && c.ctx != nil && c.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", c.ctx.Err(), err)
	}
	return err
}

// tellStored queues what there is to tell of a call of the Store. The shard is locked.
func (e *Engine) tellStored(en *entry, c *call, at time.Time, took time.Duration, err error) {
	name, op := en.name, c.hook.name
	if e.obs.Stored != nil || e.quick.Stored != nil {
		e.observe(en, func(o *Observer) bool { return o.Stored != nil }, func(o *Observer) { o.Stored(name, at, op, took, err) })
	}
	if err != nil && e.cfg.Logger != nil {
		en.tell(&e.hooks.logger, "", func() {
			e.log.LogAttrs(context.Background(), slog.LevelWarn, "push: store failed", slog.String("account", name), slog.String("call", op), slog.Duration("took", took), slog.Any("error", err))
		})
	}
}

// retryIn is the wait before try number n (from 1) of a call of the Store that nobody waits for.
func retryIn(n int) time.Duration { return min(time.Second<<min(n-1, 5), 30*time.Second) }

// laneDue does what is due on an account's side of the Store. The shard is locked.
func (e *Engine) laneDue(s *shard, en *entry, now time.Time) {
	l := en.lane
	if !l.readAt.IsZero() && !now.Before(l.readAt) {
		l.readAt = time.Time{}
		e.read(s, en)
	}
	if !l.writeAt.IsZero() && !now.Before(l.writeAt) {
		l.writeAt = time.Time{}
		e.write(s, en)
	}
}

// background bounds the calls of the Store that nobody waits for.
type background struct {
	mu      sync.Mutex
	running int
	waiting []func(*slot)
}

// backgroundCalls is how many of them there are at once. A Store can commit them together.
const backgroundCalls = 64

// slot is one of them. A nil slot is none.
type slot struct {
	b     *background
	freed atomic.Bool
}

// take calls f, at once or later, with a slot. f must not hold a lock of a shard when it is called later, nor wait.
func (b *background) take(f func(*slot)) {
	b.mu.Lock()
	if b.running >= backgroundCalls {
		b.waiting = append(b.waiting, f)
		b.mu.Unlock()
		return
	}
	b.running++
	b.mu.Unlock()
	go f(&slot{b: b})
}

func (sl *slot) free() {
	if sl == nil || sl.freed.Swap(true) {
		return
	}
	b := sl.b
	b.mu.Lock()
	if len(b.waiting) == 0 {
		b.running--
		b.mu.Unlock()
		return
	}
	f := b.waiting[0]
	b.waiting[0] = nil
	b.waiting = b.waiting[1:]
	b.mu.Unlock()
	go f(&slot{b: b})
}
