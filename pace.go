package push

import (
	"hash/fnv"
	"math/bits"
	"slices"
	"time"
)

// When a notification goes out. For each registration at most one publish is in flight and one notification waits; whatever comes meanwhile is
// merged into the one that waits; a call makes that go at once. So what waits is bounded by the number of registrations, however long a push service is down.

// pacer is the state of one registration.
type pacer struct {
	// waiting is what has not been sent, one part for each session that it came from. due is when it may go out.
	waiting []part
	due     instant
	// spaced is the end of the minimum interval since the last publish, retryAt that of the wait after one that failed.
	spaced, retryAt instant
	// flight is what was sent and not answered.
	flight []part
	// counted is when an error was counted last of what is waiting or in flight, told when the device was told of a count last because of what was
	// read, both in seconds since 1970. Zero: never.
	counted, told uint32
	// tries counts failed tries of what is waiting or in flight.
	tries    int32
	inFlight bool
	// queued: it was handed out by Due and not begun since.
	queued bool
	// stripped: it goes without sender and body.
	stripped bool
	// stub: only the registration's key is known, from a snapshot. It takes notifications, and sends them when the rest was read.
	stub bool
}

// open returns the waiting part of a source, for more to be noted in it; schedule has to follow.
func (p *pacer) open(from *session) *part {
	if len(p.waiting) == 0 {
		p.due = 0
	}
	for i := range p.waiting {
		if p.waiting[i].from == from {
			return &p.waiting[i]
		}
	}
	if n := len(p.waiting); n < cap(p.waiting) { // a part that was sent before, to be used again with the space that it has
		p.waiting = p.waiting[:n+1]
		w := &p.waiting[n]
		*w = part{from: from, stanzas: w.stanzas[:0]}
		return w
	}
	p.waiting = append(p.waiting, part{from: from})
	return &p.waiting[len(p.waiting)-1]
}

// schedule lets what waits go out from due on, or earlier if it could before.
func (p *pacer) schedule(due time.Time) {
	if at := toInstant(due); p.due == 0 || at < p.due {
		p.due = at
	}
}

// next returns when something is to be done about what waits: it can be handed out, or is too old. Zero means never.
func (p *pacer) next(policy *Policy) time.Time {
	if len(p.waiting) == 0 {
		return time.Time{}
	}
	end := expiry(p.waiting, policy)
	if p.inFlight || p.queued || p.stub {
		return end
	}
	ready := p.ready()
	if end.Before(ready) {
		return end
	}
	return ready
}

func (p *pacer) ready() time.Time {
	return max(p.due, p.spaced, p.retryAt).time()
}

// expiry returns when the next class of what parts hold is too old.
func expiry(parts []part, policy *Policy) time.Time {
	var first instant
	for i := range parts {
		for c, at := range parts[i].at {
			if at != 0 {
				if t := at + instant(policy.expire(Class(c))); first == 0 || t < first {
					first = t
				}
			}
		}
	}
	return first.time()
}

func (p *Policy) expire(c Class) time.Duration {
	if c == ClassUrgent {
		return p.ExpireUrgent
	}
	return p.Expire
}

// lastExpiry returns when all of what waits is too old.
func (p *pacer) lastExpiry(policy *Policy) time.Time {
	var last instant
	for i := range p.waiting {
		for c, at := range p.waiting[i].at {
			if at != 0 {
				last = max(last, at+instant(policy.expire(Class(c))))
			}
		}
	}
	return last.time()
}

// takeOld removes the classes that are too old from what waits and returns them.
func (p *pacer) takeOld(now time.Time, policy *Policy) []part {
	t := toInstant(now)
	return p.takeStanzas(func(w *part) (whole [ClassUrgent + 1]bool) {
		for c, at := range w.at {
			whole[c] = at != 0 && t >= at+instant(policy.expire(Class(c)))
		}
		return whole
	}, func(noted) bool { return false })
}

// takeStanzas removes from what waits, in each part, the classes that whole names and the stanzas for which is says so, and returns them.
func (p *pacer) takeStanzas(whole func(*part) [ClassUrgent + 1]bool, is func(noted) bool) (gone []part) {
	for i := 0; i < len(p.waiting); {
		w := &p.waiting[i]
		g := w.without(whole(w), is)
		if _, some := g.class(); some {
			gone = append(gone, g)
		}
		if _, left := w.class(); !left {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			continue
		}
		i++
	}
	p.settle()
	return gone
}

// withdraw removes single stanzas from what waits, in the parts that of names, and returns them. Those in flight cannot be called back, but if their
// publish fails they are not tried again, because of reason.
func (p *pacer) withdraw(of func(*part) bool, is func(noted) bool, reason Reason) []part {
	for i := range p.flight {
		f := &p.flight[i]
		if !p.inFlight || !of(f) {
			continue
		}
		for j, n := range f.stanzas {
			if n.named() && is(n) {
				f.stanzas[j].hash |= withdrawn
				if !f.over {
					f.spent = reason
				}
			}
		}
	}
	var none [ClassUrgent + 1]bool
	mine := false
	return p.takeStanzas(func(w *part) [ClassUrgent + 1]bool {
		mine = of(w)
		return none
	}, func(n noted) bool { return mine && n.named() && is(n) })
}

// takeSession removes what waits because of a session and returns it. What is in flight cannot be called back, but if its publish
// fails it is not tried again, because of reason.
func (p *pacer) takeSession(s *session, reason Reason) []part {
	from := func(w part) bool { return w.from == s }
	if i := slices.IndexFunc(p.flight, from); i >= 0 && p.inFlight {
		p.flight[i].over, p.flight[i].spent = true, reason
	}
	gone := take(&p.waiting, from)
	p.settle()
	return gone
}

// takeSpent removes from what is in flight what need not be tried again, and returns it.
func (p *pacer) takeSpent() []part {
	gone := take(&p.flight, func(w part) bool { return w.over })
	for i := 0; i < len(p.flight); {
		f := &p.flight[i]
		g := f.without([ClassUrgent + 1]bool{}, func(n noted) bool { return n.hash&withdrawn != 0 })
		if _, some := g.class(); some {
			g.spent = f.spent
			gone = append(gone, g)
		}
		if _, left := f.class(); !left {
			p.flight = slices.Delete(p.flight, i, i+1)
			continue
		}
		i++
	}
	return gone
}

// take removes the parts for which is says so, and returns them.
func take(parts *[]part, is func(part) bool) (gone []part) {
	*parts = slices.DeleteFunc(*parts, func(w part) bool {
		if is(w) {
			gone = append(gone, w)
			return true
		}
		return false
	})
	return gone
}

// takeWaiting removes everything that waits and returns it. What is in flight cannot be called back, but if its publish fails it is not tried again, because of reason.
func (p *pacer) takeWaiting(reason Reason) []part {
	gone := p.waiting
	p.waiting = nil
	p.spend(reason)
	p.settle()
	return gone
}

// spend says that what is in flight is not tried again, because of reason, if its publish fails.
func (p *pacer) spend(reason Reason) {
	for i := range p.flight {
		if f := &p.flight[i]; p.inFlight && !f.over {
			f.over, f.spent = true, reason
		}
	}
}

// takeAll removes everything that waits or is in flight and returns it.
func (p *pacer) takeAll() []part {
	gone := p.waiting
	if p.inFlight {
		gone = append(gone, p.flight...)
	}
	p.waiting, p.flight = nil, nil
	p.settle()
	return gone
}

// unnamed returns, of the numbers of events, those that nothing which waits or is in flight came from. events is in order.
func (p *pacer) unnamed(events []uint64) []uint64 {
	for _, parts := range [...][]part{p.waiting, p.flight} {
		for i := range parts {
			for _, n := range parts[i].stanzas {
				if j, found := slices.BinarySearch(events, n.event); found {
					events = slices.Delete(events, j, j+1)
				}
			}
		}
	}
	return events
}

// settle ends the tries, and the wait for the next one, when there is nothing left to try.
func (p *pacer) settle() {
	if len(p.waiting) == 0 && !p.inFlight {
		p.tries, p.stripped, p.counted, p.retryAt = 0, false, 0, 0
	}
}

// waitingClass returns the highest class of what waits, plain if nothing does.
func (p *pacer) waitingClass() (class Class) {
	for i := range p.waiting {
		if c, ok := p.waiting[i].class(); ok {
			class = max(class, c)
		}
	}
	return class
}

// orphan makes what came from a session that is over the account's own.
func (p *pacer) orphan(s *session, policy *Policy) {
	p.waiting, p.flight = adopt(p.waiting, s, policy), adopt(p.flight, s, policy)
}

func adopt(parts []part, s *session, policy *Policy) []part {
	i := slices.IndexFunc(parts, func(w part) bool { return w.from == s && !w.over })
	if i < 0 {
		return parts
	}
	if j := slices.IndexFunc(parts, func(w part) bool { return w.from == nil && !w.over }); j >= 0 {
		parts[j].merge(&parts[i], policy)
		return slices.Delete(parts, i, i+1)
	}
	parts[i].from = nil
	return parts
}

// begin moves what waits into flight, and uses the space of the last flight, if it was kept, for what will wait next.
func (p *pacer) begin(now time.Time, policy *Policy) {
	p.flight, p.waiting = p.waiting, p.flight[:0]
	p.inFlight, p.queued = true, false
	p.tries++
	p.retryAt = 0
	if policy.MinInterval > 0 {
		p.spaced = toInstant(now.Add(policy.MinInterval))
	}
}

// finish ends a flight that is not tried again. Its space is kept only if more waits: most registrations are notified of nothing most of the time.
func (p *pacer) finish() {
	if len(p.waiting) == 0 {
		p.flight, p.waiting = nil, nil
	}
	for i := range p.flight {
		p.flight[i].from, p.flight[i].text, p.flight[i].carried = nil, nil, nil
	}
	p.flight, p.inFlight = p.flight[:0], false
	p.tries, p.stripped, p.counted, p.retryAt = 0, false, 0, 0
}

// again puts what was in flight back, to be sent once more after wait, together with what came meanwhile.
func (p *pacer) again(now time.Time, wait time.Duration, policy *Policy) {
	later := p.waiting
	p.waiting, p.flight, p.inFlight = p.flight, nil, false
	for i := range later {
		l := &later[i]
		if j := slices.IndexFunc(p.waiting, func(w part) bool { return w.from == l.from }); j >= 0 {
			p.waiting[j].merge(l, policy)
		} else {
			p.waiting = append(p.waiting, *l)
		}
	}
	p.due, p.retryAt = toInstant(now), toInstant(now.Add(wait))
	if slices.ContainsFunc(later, func(l part) bool { return l.at[ClassUrgent] != 0 }) {
		p.retryAt = 0 // a call that has not been tried
	}
	p.settle()
}

// backoff returns the wait before try number n (from 1), with up to half of it random so that registrations which failed together do not
// come back together. The randomness is drawn from the registration and the try: the same input gives the same output. It is in whole
// milliseconds where it can be, because traces are: a reply that came within the millisecond of a retry is then after it in a replay too.
func (p *Policy) backoff(account string, k Key, n int) time.Duration {
	wait := p.RetryMax
	if n = max(n, 1); n-1 < bits.LeadingZeros64(uint64(p.RetryMin)) {
		wait = min(wait, p.RetryMin<<(n-1))
	}
	h := fnv.New64a()
	h.Write([]byte(account))
	h.Write([]byte{0})
	h.Write([]byte(k.Service))
	h.Write([]byte{0})
	h.Write([]byte(k.Node))
	h.Write([]byte{byte(n), byte(n >> 8)})
	half := uint64(wait / 2)
	if half == 0 {
		return wait
	}
	wait = time.Duration(half + h.Sum64()%half)
	if wait < time.Millisecond {
		return wait
	}
	return wait.Truncate(time.Millisecond)
}

// rewind takes back what is later than it can be at now, because the clock was set back since.
func (p *pacer) rewind(now time.Time, policy *Policy) {
	t := toInstant(now)
	for i := range p.waiting {
		w := &p.waiting[i]
		for c, at := range w.at {
			if at > t {
				w.at[c], p.due, p.retryAt = t, min(p.due, t), min(p.retryAt, t)
			}
		}
		if w.text != nil {
			w.text.at = min(w.text.at, t)
		}
	}
	p.spaced, p.retryAt = min(p.spaced, toInstant(now.Add(policy.MinInterval))), min(p.retryAt, toInstant(now.Add(policy.RetryMax)))
}

// partOf returns the part of a session, or of the account's other events if it is nil; not one that came to an end.
func partOf(parts []part, from *session) *part {
	for i := range parts {
		if p := &parts[i]; p.from == from && !p.over {
			return p
		}
	}
	return nil
}

// counting returns the part that is to tell the number of unread messages. It comes from no session.
func counting(parts []part) *part {
	if p := partOf(parts, nil); p != nil && p.counts {
		return p
	}
	return nil
}
