package push

import (
	"slices"
	"time"
)

// acknowledge drops what waits for stanzas that the session has got after all: for its device, and for another that it was bound to when they were
// raised. They stay remembered, since the device has them, and count as unread no longer.
func (a *Account) acknowledge(e Acknowledged, d *Decision) {
	s := a.session(e.Session.ID)
	if s == nil {
		d.Reason = ReasonUnknownSession
		return
	}
	var buf [16]uint64
	var hashes []uint64 // made only if somebody needs them
	for _, r := range a.regs {
		p := &r.pace
		if len(p.waiting) == 0 && !p.inFlight && r.unread == 0 {
			continue
		}
		if hashes == nil {
			hashes = buf[:0]
			for _, id := range e.IDs {
				if id != "" {
					hashes = append(hashes, a.hash(id))
				}
			}
			hashes = a.requests(hashes, e.IDs)
			slices.Sort(hashes)
		}
		if s.bound == r {
			for _, h := range hashes {
				r.uncount(h)
			}
		}
		r.drop(p.withdraw(func(w *part) bool { return s.bound == r || w.from == s }, func(n noted) bool {
			_, found := slices.BinarySearch(hashes, n.hash&^hashFlags)
			return found
		}, ReasonAcknowledged), ReasonAcknowledged, "", &d.Effects)
	}
}

// requests appends the hashes of the requests for subscription that have one of the IDs: they are remembered by who asks.
func (a *Account) requests(hashes []uint64, ids []string) []uint64 {
	if a.chats == nil {
		return hashes
	}
	for i := range a.chats.heard {
		if n := &a.chats.heard[i]; n.sender == request && slices.ContainsFunc(ids, func(id string) bool { return id != "" && a.short(id) == n.message }) {
			hashes = append(hashes, n.hash)
		}
	}
	return hashes
}

// remember notes that it was notified of a stanza. One that is forgotten for it counts as unread no longer, for nothing could take it back.
func (r *registration) remember(hash uint64, now time.Time, p *Policy) {
	if r.mem.add(hash, now, p.Remember) {
		r.unread--
	}
}

// uncount takes a stanza out of the number of unread messages, if it is in it.
func (r *registration) uncount(hash uint64) {
	if e := r.mem.entry(hash); e != nil && e.hash&counts != 0 {
		e.hash &^= counts
		r.unread--
	}
}

// caughtUp says that the device is in touch with the server: what it missed is counted anew.
func (r *registration) caughtUp() {
	if r.unread == 0 {
		return
	}
	r.unread = 0
	all := r.mem.all()
	for i := range all {
		all[i].hash &^= counts
	}
	for _, parts := range [...][]part{r.pace.waiting, r.pace.flight} {
		for i := range parts {
			parts[i].nameless = 0
		}
	}
}
