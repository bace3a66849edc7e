package push

import (
	"slices"
	"sync"
	"time"
)

// What the host is told (Observer, Resumption, Logger) is told after the fact and in an account's order: deciding does not wait for it, Handle does, so that a host finds
// its observers told when it returns. It is told by a goroutine of the account's, while there is something to tell; a call that overruns its time loses the account's
// ear: another goroutine tells the rest, without that hook until it has returned.
//
// An Observer that is quick is told by whoever has something to tell, who has unlocked everything, with what it has at hand: nothing is copied and no
// other goroutine is waited for. That keeps the order all the same, for only one tells an account's at a time. Should such a call hang, it has its
// caller, but the account goes on as with any, and until it has returned others are told by goroutines.

// maxNotes is how much an account's goroutine may be behind. Beyond it the oldest are dropped, but advice for a session only for newer advice.
const maxNotes = 256

// mail is what an account has to tell. It is guarded by the shard's lock.
type mail struct {
	watched
	en    *entry
	notes []note
	// slow counts the notes for those who are not quick.
	slow int
	// running: a goroutine tells. turn changes when another takes over from one that hangs.
	running bool
	turn    int
	// away is how many hang.
	away int
	// hook is the one that is being called, or was last.
	hook *hook
	// queued and told count notes, so that somebody can wait for his own.
	queued, told uint64
	waiting      []waiter
	// later is advice that could not be given, because an earlier call has not returned.
	later []note
	// first is what hereOr hands to somebody to tell himself; if it is a decision, it may be mine, with what is the caller's.
	first note
	mine  decided
}

type note struct {
	hook *hook
	// session is whom advice is for, else empty.
	session string
	// f tells it, unless it is decided, which is what the Observer is told most often.
	f       func()
	decided *decided
	// quick: whoever has it at hand may tell it.
	quick bool
}

// These are used again when nobody else can have them any more: mails that nobody ever took over, and what a call was told that has returned in time. Channels
// that had their one value are too, but by their Engine, for a test's (testing/synctest) must not come to another.
var (
	mails = sync.Pool{New: func() any {
		m := new(mail)
		m.of = m
		return m
	}}
	decideds = sync.Pool{New: func() any { return new(decided) }}
)

// waiter is somebody who waits for a note of his own. done has room for the one value that it is sent.
type waiter struct {
	number uint64
	done   chan struct{}
}

// tell queues a note of an account. The shard is locked.
func (en *entry) tell(h *hook, session string, f func()) {
	en.post(note{hook: h, session: session, f: f})
}

// observe queues what Observers are told, where they have asked for it: those that are quick first. The shard is locked.
func (e *Engine) observe(en *entry, is func(o *Observer) bool, tell func(o *Observer)) {
	if is(&e.quick) {
		en.post(note{hook: &e.hooks.quick, quick: true, f: func() { tell(&e.quick) }})
	}
	if is(&e.obs) {
		en.post(note{hook: &e.hooks.observer, f: func() { tell(&e.obs) }})
	}
}

// post queues a note. The shard is locked.
func (en *entry) post(n note) {
	m := en.getMail()
	if len(m.notes) >= maxNotes {
		old := m.take()
		if old.session != "" {
			m.later = append(m.later, old)
			m.takeLater()
		}
		old.hook.skipped.Add(1)
		m.told++
	}
	m.add(n)
}

func (en *entry) getMail() *mail {
	if en.mail == nil {
		m := mails.Get().(*mail)
		m.en, en.mail = en, m
	}
	return en.mail
}

func (m *mail) add(n note) {
	m.queued++
	m.notes = append(m.notes, n)
	if !n.quick {
		m.slow++
	}
}

// take takes out the oldest note.
func (m *mail) take() note {
	n := m.notes[0]
	m.notes = slices.Delete(m.notes, 0, 1)
	if !n.quick {
		m.slow--
	}
	return n
}

// hearing is what somebody has to do who wants it told what he has queued. The zero hearing is nothing.
type hearing struct {
	// he tells it himself, in this turn of the mail, beginning with first.
	m     *mail
	turn  int
	first note
	// or he waits for whoever tells it.
	done chan struct{}
}

// hear does it. Nothing is locked, and whoever calls it does not count as work.
func (e *Engine) hear(h hearing) {
	switch {
	case h.m != nil:
		e.teller(e.shard(h.m.en.name), h.m, h.turn, &h.first)
	case h.done != nil:
		<-h.done
		e.heardings.Put(h.done)
	}
}

// deliver lets somebody tell what is queued: a goroutine, for which is waited if wait says so. The shard is locked; whoever holds it counts as work.
func (e *Engine) deliver(s *shard, en *entry, wait bool) (h hearing) {
	m := en.mail
	if m == nil || m.told == m.queued {
		return h
	}
	if !m.running {
		m.running = true
		e.work.add()
		go e.teller(s, m, m.turn, nil)
	}
	if !wait {
		return h
	}
	done, ok := e.heardings.Get().(chan struct{})
	if !ok {
		done = make(chan struct{}, 1)
	}
	m.waiting = append(m.waiting, waiter{m.queued, done})
	return hearing{done: done}
}

// hereOr is deliver for somebody who goes on to call hear at once: he tells it himself if all of it is for those who are quick, of whom no call
// hangs, and nobody is telling.
func (e *Engine) hereOr(s *shard, en *entry, now time.Time, wait bool) hearing {
	if m := en.mail; m != nil && !m.running && (m.first.hook != nil || m.slow == 0 && len(m.notes) > 0 && e.hooks.quick.hangs.Load() == 0) {
		m.running = true
		e.work.add()
		first := m.first
		if m.first = (note{}); first.hook == nil {
			first = m.take()
		}
		m.hook = first.hook
		e.attend(s, &m.watched, now.Add(e.cfg.HookTimeout))
		return hearing{m: m, turn: m.turn, first: first}
	}
	return e.deliver(s, en, wait)
}

// maxHere is how many notes somebody tells before he leaves what others have queued to a goroutine.
const maxHere = 8

// teller tells what is queued, until nothing is or another has taken over. It counts as work, and does not any more when it returns. first, if not nil, is what
// somebody begins with who has something else to do.
func (e *Engine) teller(s *shard, m *mail, turn int, first *note) {
	en, here := m.en, first != nil
	var h *hook
	ended := false
	defer func() {
		if !ended { // the host has ended the goroutine
			s.mu.Lock()
			e.heard(s, en, turn, h)
			s.mu.Unlock()
			go e.teller(s, m, turn, nil)
		}
	}()
	if here {
		h = first.hook
		e.call(first)
		s.mu.Lock()
		if dec := first.decided; dec != nil && dec != &m.mine {
			dec.recycle()
		}
		m.mine.ev, m.mine.d = nil, nil
		e.heard(s, en, turn, h)
	} else {
		s.mu.Lock()
	}
	for n := 1; m.turn == turn && len(m.notes) > 0; n++ {
		if e.closed.Load() { // the host is done with it
			m.forget()
			break
		}
		if here && (n == maxHere || !m.notes[0].quick) {
			go e.teller(s, m, turn, nil)
			s.mu.Unlock()
			ended = true
			return
		}
		n := m.take()
		if h = n.hook; h.barred(en.name) {
			if n.session != "" {
				m.later = append(m.later, n)
			}
			m.next()
			continue
		}
		m.hook = h
		e.attend(s, &m.watched, e.now().Add(e.cfg.HookTimeout))
		s.mu.Unlock()
		e.call(&n)
		s.mu.Lock()
		if n.decided != nil {
			n.decided.recycle()
		}
		e.heard(s, en, turn, h)
	}
	if m.turn == turn {
		m.running = false
		m.letGo()
		if !en.busy {
			if _, idle := en.idleAt(); idle { // else it is not to be forgotten
				s.settle(e, en, e.now())
			}
		}
		e.work.done()
	}
	s.mu.Unlock()
	ended = true
}

// forget drops what nobody is told any more.
func (m *mail) forget() {
	for len(m.notes) > 0 {
		n := m.take()
		if n.decided != nil {
			n.decided.recycle()
		}
		n.hook.skipped.Add(1)
		m.next()
	}
	m.later = nil
}

// letGo gives the mail up when nobody has it or will. The shard is locked.
func (m *mail) letGo() {
	if m.running || m.away > 0 || len(m.later) > 0 {
		return
	}
	m.en.mail = nil
	if m.turn == 0 { // nobody else has ever had it
		m.en, m.queued, m.told = nil, 0, 0
		mails.Put(m)
	}
}

// call makes one call.
func (e *Engine) call(n *note) {
	returned := false // nor has the host ended the goroutine, of which there is nothing to recover
	defer func() {
		if !returned {
			_ = e.panicked(n.hook, recover())
		}
	}()
	if dec := n.decided; dec != nil {
		o := &e.obs
		if n.quick {
			o = &e.quick
		}
		o.Decided(dec.number, dec.at, dec.ev, dec.d, dec.took)
	} else {
		n.f()
	}
	returned = true
}

// heard notes the end of a call. The shard is locked.
func (e *Engine) heard(s *shard, en *entry, turn int, h *hook) {
	m := en.mail
	if m.turn == turn {
		m.unlink()
		m.next()
		return
	}
	h.returned(en.name) // too late: another has taken over
	m.away--
	if m.takeLater(); len(m.notes) > 0 {
		e.deliver(s, en, false)
	} else {
		m.letGo()
		s.settle(e, en, e.now())
	}
}

// takeLater takes up advice that could not be given, the newest for each session.
func (m *mail) takeLater() {
	for i, n := range m.later {
		newer := func(o note) bool { return o.session == n.session }
		if !slices.ContainsFunc(m.later[i+1:], newer) && !slices.ContainsFunc(m.notes, newer) {
			m.add(n)
		}
	}
	m.later = nil
}

// next lets those go on who waited for what has been told now.
func (m *mail) next() {
	m.told++
	if len(m.waiting) == 0 {
		return
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(w waiter) bool {
		if w.number > m.told {
			return false
		}
		w.done <- struct{}{}
		return true
	})
}

// overrun takes over from a call that has overrun its time. The shard is locked.
func (m *mail) overrun(e *Engine, s *shard, _ time.Time) {
	m.hook.overrun(m.en.name)
	m.turn++
	m.away++
	m.next()
	go e.teller(s, m, m.turn, nil)
}
