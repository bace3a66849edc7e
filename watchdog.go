package push

import (
	"sync"
	"sync/atomic"
	"time"
)

// What of the host's is under way, and has a bound, is in a list of its shard, and one timer looks after all of them: it is set only while something is under way, and not
// for each call, of which almost all return at once.

// watched is a call that is under way. The shard's lock guards it.
type watched struct {
	next, prev *watched // in the shard's list; nil: it is not under way
	until      instant
	of         interface {
		// overrun is called when it has taken longer than it may, with the shard locked.
		overrun(e *Engine, s *shard, now time.Time)
	}
}

// watchdog is the timer of them all.
type watchdog struct {
	// at is when it looks next; zero: it does not.
	at    atomic.Int64
	mu    sync.Mutex
	timer *time.Timer
}

// attend notes that a call is under way, until w is unlinked. The shard is locked.
func (e *Engine) attend(s *shard, w *watched, until time.Time) {
	w.unlink()
	w.until = toInstant(until)
	w.prev, w.next = &s.calls, s.calls.next
	w.next.prev, s.calls.next = w, w
	if at := e.dog.at.Load(); at == 0 || int64(w.until) < at {
		e.dog.look(e, w.until)
	}
}

func (w *watched) unlink() {
	if w.next != nil {
		w.prev.next, w.next.prev = w.next, w.prev
		w.next, w.prev = nil, nil
	}
}

// look has the watchdog look at calls then, or earlier.
func (d *watchdog) look(e *Engine, at instant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.at.Load(); old != 0 && old <= int64(at) || e.closed.Load() {
		return
	}
	d.at.Store(int64(at))
	in := at.time().Sub(e.now())
	if d.timer == nil {
		d.timer = time.AfterFunc(in, e.lookAfter)
	} else {
		d.timer.Reset(in)
	}
}

func (d *watchdog) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}

// lookAfter does what is due about calls that have taken too long.
func (e *Engine) lookAfter() {
	e.work.add()
	defer e.work.done()
	e.dog.at.Store(0)
	if e.closed.Load() {
		return
	}
	var next instant
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		now := e.now()
		var late []*watched
		for w := s.calls.next; w != &s.calls; w = w.next {
			if w.until <= toInstant(now) {
				late = append(late, w)
			} else if next == 0 || w.until < next {
				next = w.until
			}
		}
		for _, w := range late {
			w.unlink()
			w.of.overrun(e, s, now)
		}
		s.mu.Unlock()
	}
	if next != 0 {
		e.dog.look(e, next)
	}
}
