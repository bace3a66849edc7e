package push

import (
	"slices"
	"time"
)

// part is what one source contributes to a notification: a session, or the account's other events (from is nil).
type part struct {
	from *session
	// count and at are the number of stanzas and the time of the newest event, by class. A zero at means none of that class.
	count [ClassUrgent + 1]int32
	// nameless is how many of them have no ID and are in the number of unread messages.
	nameless int32
	at       [ClassUrgent + 1]instant
	// text is of the newest stanza, one that the user should see before others, if the policy includes it.
	text *text
	// carried are stanzas whose content goes along, oldest first.
	carried []carried
	// stanzas are what count counts, oldest first, as far as the policy has room. Those of one event and class that have no ID are one.
	stanzas []noted
	// over: it came to an end while it was in flight, because of spent, and is not tried again. Else spent is why those are not that are withdrawn.
	over  bool
	spent Reason
	// wakes: a wake-up is in it, which is plain and no stanza.
	wakes bool
	// counts: the number of unread messages is to be told, whatever it is.
	counts bool
}

// noted is a stanza that waits, or is in flight.
type noted struct {
	// hash is that of its ID, with its class and what else hashFlags says. One without an ID has only those.
	hash  uint64
	event uint64
}

func (n noted) class() Class { return Class(n.hash & classBits) }

// named tells whether it has an ID.
func (n noted) named() bool { return n.hash > hashFlags }

// text is what a notification may say of a stanza.
type text struct {
	at           instant
	hash         uint64 // of the stanza's ID
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

// saysMore tells whether p's text is to be shown rather than o's: that of what the user should see, and then the newer one.
func (p *part) saysMore(o *part) bool {
	if p.text == nil || o == nil || o.text == nil {
		return p.text != nil
	}
	c, _ := p.class()
	d, _ := o.class()
	if shown := c >= ClassImportant; shown != (d >= ClassImportant) {
		return shown
	}
	return p.text.at >= o.text.at
}

func (p *part) total() int {
	return int(p.count[ClassPlain] + p.count[ClassImportant] + p.count[ClassUrgent])
}

// merge adds o, which came later or is of the same source.
func (p *part) merge(o *part, policy *Policy) {
	if o.saysMore(p) {
		p.text = o.text
	}
	for c := range p.count {
		p.count[c] += o.count[c]
		p.at[c] = max(p.at[c], o.at[c])
	}
	p.nameless += o.nameless
	p.wakes = p.wakes || o.wakes
	p.counts = p.counts || o.counts
	p.carried = newest(append(p.carried, o.carried...), maxCarried)
	p.stanzas = newest(append(p.stanzas, o.stanzas...), policy.room())
}

// room is how many stanzas of a part are kept: as many as are remembered, or as a notification names causes of.
func (p *Policy) room() int { return max(p.Remember, p.Causes) }

// newest cuts what is too old from the front of a list.
func newest[T any](list []T, limit int) []T {
	if over := len(list) - limit; over > 0 {
		list = slices.Delete(list, 0, over)
	}
	return list
}

// note adds a stanza of the event.
func (p *part) note(hash uint64, c Class, event uint64, policy *Policy) {
	n := noted{hash | uint64(c), event}
	if last := len(p.stanzas) - 1; hash == 0 && last >= 0 && p.stanzas[last] == n {
		return
	}
	p.stanzas = append(p.stanzas, n)
	if room := policy.room(); len(p.stanzas) > 2*room { // not one by one, which would move all of them each time
		p.stanzas = newest(p.stanzas, room)
	}
}

// without takes the stanzas out of the part for which is says so (of those without an ID it must not), and all of the classes in whole, which those
// without an ID and those that there was no room for belong to. It returns them as a part.
func (p *part) without(whole [ClassUrgent + 1]bool, is func(noted) bool) part {
	gone := part{from: p.from}
	kept := p.stanzas[:0:0]
	for i, n := range p.stanzas {
		c := n.class()
		if !whole[c] && !is(n) {
			if gone.stanzas != nil {
				kept = append(kept, n)
			}
			continue
		}
		if gone.stanzas == nil {
			kept = append(kept, p.stanzas[:i]...)
		}
		gone.stanzas = append(gone.stanzas, n)
		gone.count[c]++
		gone.at[c] = p.at[c]
	}
	for c := range whole {
		if whole[c] {
			gone.count[c], gone.at[c] = p.count[c], p.at[c]
		}
	}
	gone.wakes = p.wakes && whole[ClassPlain]
	if _, some := gone.class(); !some {
		return gone
	}
	if gone.stanzas != nil {
		p.stanzas = kept
	}
	p.wakes = p.wakes && !gone.wakes
	for c := range p.count {
		p.count[c] -= gone.count[c]
		if p.count[c] == 0 && (Class(c) != ClassPlain || !p.wakes) {
			p.at[c] = 0
		}
		if Class(c) >= ClassImportant { // those without an ID are what is counted and not named
			nameless := gone.count[c]
			for _, n := range gone.stanzas {
				if n.named() && n.class() == Class(c) {
					nameless--
				}
			}
			gone.nameless += min(max(nameless, 0), p.nameless-gone.nameless)
		}
	}
	p.nameless -= gone.nameless
	if p.carried != nil {
		p.uncarry(whole, gone.stanzas)
	}
	if p.text != nil && slices.ContainsFunc(gone.stanzas, func(n noted) bool { return n.hash&^hashFlags == p.text.hash }) {
		p.text = nil
	}
	return gone
}
