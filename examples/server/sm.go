package main

import (
	"strconv"
	"sync"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

// Stream management (XEP-0198): counting, acknowledging, hibernating and resuming.

const nsSM = "urn:xmpp:sm:3"

// maxQueue is how many stanzas may wait for a session's acknowledgement, and maxQueueBytes how large they may be together.
const (
	maxQueue      = 10_000
	maxQueueBytes = 8 << 20
)

// acks is the state of a session's stream management.
type acks struct {
	// resumeID lets the client resume; empty if it did not ask for that.
	resumeID string
	// in counts stanzas that were handled, acked those that the client has acknowledged; queue are the ones after.
	in, acked uint32
	queue     []outgoing
	bytes     int  // of the queue
	full      bool // the session is about to end
	// seq numbers the next stanza in the database.
	seq int64
	// restored: the session is from before a restart and was not resumed since; before is how many of the queue are. What the client was sent in the last
	// moment before the restart may not have been kept, so it may have counted more than that.
	restored bool
	before   int
	// waiting runs while an acknowledgement is being waited for, and late says that it has run out.
	waiting *time.Timer
	late    bool
}

// manage turns stream management on, when the client asks for it, and returns what to answer.
func (x *session) manage(enable *element.Element) *element.Element {
	x.sm = &acks{}
	enabled := element.New(nsSM, "enabled")
	if r := enable.Get("resume"); r == "true" || r == "1" {
		x.sm.resumeID = newID()
		enabled.Set("resume", "true").Set("id", x.sm.resumeID).Set("max", seconds(x.acct.srv.cfg.ResumeTimeout))
	}
	x.save()
	return enabled
}

// save writes down the session, if it is one that outlives its connection.
func (x *session) save() {
	if x.sm == nil || x.ended {
		return
	}
	b := x.acct.srv.push.bindingOf(x.id)
	x.acct.srv.keep.Do(`INSERT INTO session (id, account, resource, client, resume, handled, acked, presence, carbons, interested, archivist,
		service, node, bound, superseded)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET presence = excluded.presence, carbons = excluded.carbons,
		interested = excluded.interested, archivist = excluded.archivist`,
		x.id.ID, x.acct.jid, x.jid.Resourcepart(), x.client, x.sm.resumeID, x.sm.in, x.sm.acked, alone(x.presence), x.carbons, x.interested, x.archivist,
		b.Service, b.Node, b.bound, b.superseded)
}

// saveHandled writes down how many stanzas of the client were handled.
func (x *session) saveHandled() {
	x.acct.mu.Lock()
	defer x.acct.mu.Unlock()
	if x.sm != nil && x.sm.resumeID != "" && !x.ended {
		x.acct.srv.keep.Do("UPDATE session SET handled = ? WHERE id = ?", x.sm.in, x.id.ID)
	}
}

// saveUntil writes down until when the session can be resumed; the zero time is one that is connected.
func (x *session) saveUntil(until time.Time) {
	ms := int64(0)
	if !until.IsZero() {
		ms = until.UnixMilli()
	}
	x.acct.srv.keep.Do("UPDATE session SET until = ? WHERE id = ?", ms, x.id.ID)
}

// forget takes the session out of the database.
func (x *session) forget() {
	x.acct.srv.keep.Do("DELETE FROM session WHERE id = ?", x.id.ID)
	x.acct.srv.keep.Do("DELETE FROM queue WHERE session = ?", x.id.ID)
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// enqueue keeps a stanza until it is acknowledged, and sends it with a request for that unless the session is hibernated.
func (x *session) enqueue(o outgoing) {
	size := o.el.Size()
	x.sm.bytes += size
	if !x.sm.full && (len(x.sm.queue) >= maxQueue || x.sm.bytes > maxQueueBytes && x.sm.bytes != size) {
		x.sm.full = true
		// The stanza is not lost: it is handed on with the others.
		go x.endLater("a queue that is too long", "resource-constraint", func() bool { return true })
	}
	if m := o.msg; m != nil {
		m.holders++
		if !m.kept || m.taken {
			x.acct.keepMessage(m)
		}
	}
	o.seq = x.sm.seq
	x.sm.seq++
	x.sm.queue = append(x.sm.queue, o)
	var copied any
	if o.msg == nil || o.el != o.msg.el {
		copied = alone(o.el)
	}
	x.acct.srv.keep.Do("INSERT INTO queue VALUES (?, ?, ?, ?, ?)", x.id.ID, o.seq, o.id, o.msg != nil, copied)
	if x.stream == nil {
		x.acct.srv.push.queued(x, &x.sm.queue[len(x.sm.queue)-1])
		return
	}
	x.transmit(o.el, element.New(nsSM, "r"))
	x.await()
}

// await waits for an acknowledgement of the newest stanza, which was just asked for. If an older one is overdue already, this one is late at once.
func (x *session) await() {
	switch {
	case x.acct.srv.cfg.AckDelay <= 0:
	case x.sm.late:
		x.acct.srv.push.ackDelayed(x, len(x.sm.queue)-1)
	case x.sm.waiting == nil:
		sm := x.sm
		var timer *time.Timer
		timer = time.AfterFunc(x.acct.srv.cfg.AckDelay, func() {
			x.acct.srv.surviving("a late acknowledgement", func() {
				x.acct.mu.Lock()
				defer x.acct.mu.Unlock()
				if sm.waiting == timer {
					sm.waiting = nil
					sm.late = true
					x.acct.srv.push.ackDelayed(x, 0)
				}
			})
		})
		sm.waiting = timer
	}
}

func (m *acks) stopWaiting() {
	if m.waiting != nil {
		m.waiting.Stop()
		m.waiting = nil
	}
	m.late = false
}

// acknowledge takes the client's count of what it has handled. It returns false if the client counts more than it was sent.
func (x *session) acknowledge(h string) bool {
	n, err := strconv.ParseUint(h, 10, 32)
	if err != nil {
		return false
	}
	done := uint32(n) - x.sm.acked
	if int32(done) < 0 {
		return true // an older count, overtaken by a newer
	}
	known := done
	if x.sm.restored {
		known = min(done, uint32(x.sm.before))
		x.sm.restored = false
	}
	if int64(known) > int64(len(x.sm.queue)) {
		return false
	}
	var told []string
	for _, o := range x.sm.queue[:known] {
		x.sm.bytes -= o.el.Size()
		if o.told {
			told = append(told, o.id)
		}
		if o.msg != nil {
			o.msg.holders--
			x.acct.take(o.msg)
		}
	}
	x.acct.srv.push.acknowledged(x, told)
	if done > 0 {
		next := x.sm.seq
		if int(known) < len(x.sm.queue) {
			next = x.sm.queue[known].seq
		}
		x.acct.srv.keep.Do("DELETE FROM queue WHERE session = ? AND seq < ?", x.id.ID, next)
		x.acct.srv.keep.Do("UPDATE session SET acked = ? WHERE id = ?", uint32(n), x.id.ID)
	}
	clear(x.sm.queue[:known])
	x.sm.queue = x.sm.queue[known:]
	x.sm.acked = uint32(n)
	x.sm.stopWaiting()
	return true
}

// hibernate is what happens to a session that can be resumed when its connection is lost.
func (x *session) hibernate() {
	x.stream = nil
	x.sm.stopWaiting()
	x.resumption.start(x.acct.srv.cfg.ResumeTimeout, x.expire)
	if !x.leaving { // else its client is back already
		x.acct.srv.push.hibernated(x)
	}
}

// expire ends a session that was not resumed in time.
func (x *session) expire(stillDue func() bool) {
	x.endLater("the end of a session", "", func() bool { return x.stream == nil && stillDue() })
}

// endLater ends a session if that is still to be done. It is called without the account's lock.
func (x *session) endLater(what, condition string, stillDue func() bool) {
	x.acct.srv.surviving(what, func() {
		x.acct.srv.route(func() []*element.Element {
			defer x.acct.whole()()
			if x.ended || !stillDue() {
				return nil
			}
			return x.end(condition)
		}()...)
	})
}

// resume continues a session on the stream of a client that has logged in. The client is told by answer before anything else, without the account's lock, once
// what it is told is kept. If the session cannot be resumed, it returns nil and what to say.
func (a *account) resume(t *stream, req *element.Element, answer func(x *session, resumed *element.Element)) (*session, *element.Element) {
	failed := element.New(nsSM, "failed").Add(element.New(element.NSStanzas, "item-not-found"))
	for {
		x, old, ok := a.tryResume(t, req, answer)
		switch {
		case old != nil:
			<-old.served
		case ok:
			return x, nil
		case x != nil || !a.srv.cluster.fetch(a, req.Get("previd")): // or it was at another node
			return nil, failed
		}
	}
}

// tryResume is a try of resume. If the client is quicker than the loss of its connection, it returns the old one: what was read from that has to be dealt with
// first, so that the count in <resumed/> is right; then the session is found hibernated.
func (a *account) tryResume(t *stream, req *element.Element, answer func(*session, *element.Element)) (x *session, old *stream, ok bool) {
	defer a.whole()()
	for _, o := range a.sessions {
		if o.sm != nil && o.sm.resumeID != "" && o.sm.resumeID == req.Get("previd") {
			x = o
		}
	}
	if x == nil {
		return nil, nil, false
	}
	if x.stream != nil {
		x.leaving = true
		x.stream.close("conflict")
		return x, x.stream, false
	}
	return x, nil, x.revive(t, req.Get("h"), answer)
}

// revive continues a hibernated session on a new stream, with what it has missed.
func (x *session) revive(t *stream, h string, answer func(*session, *element.Element)) bool {
	if !x.acknowledge(h) {
		t.close("undefined-condition")
		return false
	}
	x.stream, x.inactive, x.leaving = t, false, false
	x.resumption.stop()
	x.acct.srv.push.resumed(x)
	resumed := element.New(nsSM, "resumed", "previd", x.sm.resumeID, "h", strconv.FormatUint(uint64(x.sm.in), 10))
	x.acct.srv.keep.After(func(err error) {
		if err == nil {
			answer(x, resumed)
		}
	})
	if len(x.sm.queue) > 0 {
		var missed []*element.Element
		for _, o := range x.sm.queue {
			missed = append(missed, o.el)
		}
		x.transmit(append(missed, element.New(nsSM, "r"))...)
		x.await()
	}
	x.setInactive(false)
	return true
}

// watchdog ends a session whose client stays away. Its lock is its own: the push engine changes the time while the account's is held.
type watchdog struct {
	mu    sync.Mutex
	timer *time.Timer
	fire  func(stillDue func() bool)
	// save writes down when it fires; the zero time is never.
	save func(time.Time)
}

func (w *watchdog) start(d time.Duration, fire func(stillDue func() bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fire = fire
	w.set(d)
}

// reset changes the time, from now on, if the watchdog runs.
func (w *watchdog) reset(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.set(d)
	}
}

func (w *watchdog) set(d time.Duration) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.save(time.Now().Add(d))
	var timer *time.Timer
	fire := w.fire
	timer = time.AfterFunc(d, func() {
		fire(func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.timer == timer
		})
	})
	w.timer = timer
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
		w.save(time.Time{})
	}
}

// freeze stops the watchdog, which goes on when the session is restored.
func (w *watchdog) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}
