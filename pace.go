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
	// notBefore holds it back after a failure and within the minimum interval.
	notBefore instant
	// flight is what was sent and not answered.
	flight   []part
	inFlight bool
	// queued: it was handed out by Due and not begun since.
	queued bool
	// tries counts failed tries of what is waiting or in flight; stripped: it goes without sender and body.
	tries    int
	stripped bool
}

// part is what one source contributes to a notification: a session, or the account's other events (from is nil).
type part struct {
	from *session
	// count and at are the number of stanzas and the time of the newest event, by class. A zero at means none of that class.
	count [ClassUrgent + 1]int32
	at    [ClassUrgent + 1]instant
	// text is of the newest stanza, if the policy includes it.
	text   *text
	events []uint64
	hashes []uint64 // of the stanzas, to be forgotten if they are dropped
	// resumed: its session was resumed while it was in flight, so that it is not tried again.
	resumed bool
}

// text is what a notification may say of a stanza.
type text struct {
	at           instant
	sender, body string
}

// instant is a time in a third of the space: nanoseconds since 1970, plus one so that zero can mean none.
type instant int64

func toInstant(t time.Time) instant { return instant(t.UnixNano()) + 1 }

func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i-1))
}

// class returns the highest class in the part, or false if nothing is left in it.
func (p *part) class() (Class, bool) {
	for c := ClassUrgent; ; c-- {
		if p.at[c] != 0 {
			return c, true
		}
		if c == ClassPlain {
			return ClassPlain, false
		}
	}
}

func (p *part) total() int {
	return int(p.count[ClassPlain] + p.count[ClassImportant] + p.count[ClassUrgent])
}

// merge adds o, which came later or is of the same source.
func (p *part) merge(o *part, policy *Policy) {
	for c := range p.count {
		p.count[c] += o.count[c]
		p.at[c] = max(p.at[c], o.at[c])
	}
	if o.text != nil && (p.text == nil || o.text.at >= p.text.at) {
		p.text = o.text
	}
	p.events = append(p.events, o.events...)
	sortUnique(&p.events)
	p.events = newest(p.events, policy.Causes)
	p.hashes = newest(append(p.hashes, o.hashes...), policy.Remember)
}

// newest cuts what is too old from the front of a list.
func newest(list []uint64, limit int) []uint64 {
	if over := len(list) - limit; over > 0 {
		list = slices.Delete(list, 0, over)
	}
	return list
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
		*w = part{from: from, events: w.events[:0], hashes: w.hashes[:0]}
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
	expiry := p.expiry(policy)
	if p.inFlight || p.queued {
		return expiry
	}
	ready := p.ready()
	if expiry.Before(ready) {
		return expiry
	}
	return ready
}

func (p *pacer) ready() time.Time {
	return max(p.due, p.notBefore).time()
}

// expiry returns when the next class of what waits is too old.
func (p *pacer) expiry(policy *Policy) time.Time {
	var first instant
	for i := range p.waiting {
		for c, at := range p.waiting[i].at {
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

// takeOld removes the classes that are too old from what waits and returns them.
func (p *pacer) takeOld(now time.Time, policy *Policy) []part {
	var old []part
	t := toInstant(now)
	for i := 0; i < len(p.waiting); {
		w := &p.waiting[i]
		gone := part{from: w.from}
		for c, at := range w.at {
			if at != 0 && t >= at+instant(policy.expire(Class(c))) {
				gone.count[c], gone.at[c] = w.count[c], at
				w.count[c], w.at[c] = 0, 0
			}
		}
		_, some := gone.class()
		_, left := w.class()
		switch {
		case !left:
			gone.events, gone.hashes = w.events, w.hashes
			p.waiting = slices.Delete(p.waiting, i, i+1)
		case some: // which stanzas were of which class is not kept: all stay remembered
			gone.events = slices.Clone(w.events)
		}
		if some {
			old = append(old, gone)
		}
		if left {
			i++
		}
	}
	p.settle()
	return old
}

// takeSession removes what waits because of a session and returns it. What is in flight cannot be called back, but if its publish
// fails it is not tried again.
func (p *pacer) takeSession(s *session) []part {
	from := func(w part) bool { return w.from == s }
	if i := slices.IndexFunc(p.flight, from); i >= 0 && p.inFlight {
		p.flight[i].resumed = true
	}
	gone := take(&p.waiting, from)
	p.settle()
	return gone
}

// takeResumed removes from what is in flight what need not be tried again, and returns it.
func (p *pacer) takeResumed() []part {
	return take(&p.flight, func(w part) bool { return w.resumed })
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

// settle ends the count of tries when there is nothing left to try.
func (p *pacer) settle() {
	if len(p.waiting) == 0 && !p.inFlight {
		p.tries, p.stripped = 0, false
	}
}

// orphan makes what came from a session that is over the account's own.
func (p *pacer) orphan(s *session, policy *Policy) {
	p.waiting, p.flight = adopt(p.waiting, s, policy), adopt(p.flight, s, policy)
}

func adopt(parts []part, s *session, policy *Policy) []part {
	i := slices.IndexFunc(parts, func(w part) bool { return w.from == s && !w.resumed })
	if i < 0 {
		return parts
	}
	if j := slices.IndexFunc(parts, func(w part) bool { return w.from == nil }); j >= 0 {
		parts[j].merge(&parts[i], policy)
		return slices.Delete(parts, i, i+1)
	}
	parts[i].from = nil
	return parts
}

// begin moves what waits into flight, and keeps the space of the last flight for what will wait next.
func (p *pacer) begin() {
	p.flight, p.waiting = p.waiting, p.flight[:0]
	p.inFlight, p.queued = true, false
}

// finish ends a flight that is not tried again.
func (p *pacer) finish(now time.Time, policy *Policy) {
	for i := range p.flight {
		p.flight[i].from, p.flight[i].text = nil, nil
	}
	p.flight, p.inFlight = p.flight[:0], false
	p.tries, p.stripped = 0, false
	p.notBefore = 0
	if policy.MinInterval > 0 {
		p.notBefore = toInstant(now.Add(policy.MinInterval))
	}
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
	p.due, p.notBefore = toInstant(now), toInstant(now.Add(wait))
	p.settle()
}

// backoff returns the wait before try number n (from 1), with up to half of it random so that registrations which failed together do not
// come back together. The randomness is drawn from the registration and the try: the same input gives the same output. It is in whole
// milliseconds where it can be, because traces are: a reply that came within the millisecond of a retry is then after it in a replay too.
func (p *Policy) backoff(account string, k Key, n int) time.Duration {
	wait := p.RetryMax
	if n = max(n, 1); n-1 < bits.LeadingZeros64(uint64(p.RetryMin))-1 {
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
