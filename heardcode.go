package push

import "math"

// writeHeard writes the stanzas that somebody was notified of. Without them, what was read elsewhere is not known to have been.
func writeHeard(e *snapshotWriter, a *Account) {
	if a.chats == nil {
		return
	}
	for i := range a.chats.heard {
		n := &a.chats.heard[i]
		e.fixed(n.hash)
		for _, u := range [...]uint32{n.chat, n.message, n.room, n.sender} {
			e.uint(uint64(u))
		}
	}
}

func readHeard(d *snapshotReader, a *Account) {
	a.chats = new(chats)
	for len(d.b) > 0 && d.err == nil {
		n := heard{hash: d.fixed()}
		for _, u := range [...]*uint32{&n.chat, &n.message, &n.room, &n.sender} {
			*u = uint32(d.limited(math.MaxUint32))
		}
		if n.hash&^hashFlags == 0 {
			d.fail("what was heard")
		}
		a.chats.heard = append(a.chats.heard, n)
	}
}

// readWideHeard reads what was written before chats took half of the space, with the time of each stanza.
func readWideHeard(d *snapshotReader, a *Account) {
	a.chats = new(chats)
	for len(d.b) > 0 && d.err == nil {
		n, at := heard{hash: d.fixed(), chat: half(d.fixed())}, uint32(0)
		for _, u := range [...]*uint32{&n.message, &n.room, &n.sender, &at} {
			*u = uint32(d.limited(math.MaxUint32))
		}
		if n.hash&^hashFlags == 0 {
			d.fail("what was heard")
		}
		a.chats.heard = append(a.chats.heard, n)
	}
}

// writeUses writes what is known of how the sessions are used, and which registrations are to be told of the number of unread messages.
func writeUses(e *snapshotWriter, a *Account) {
	for i, s := range a.sessions {
		if s.resource == 0 && s.active == 0 && !s.away {
			continue
		}
		e.uint(uint64(i) << 1)
		e.uint(uint64(s.resource))
		e.uint(uint64(s.active))
		e.b = append(e.b, flagBits(s.away))
	}
	for i, r := range a.regs {
		waiting, flight := counting(r.pace.waiting), counting(r.pace.flight)
		if r.pace.told == 0 && waiting == nil && flight == nil {
			continue
		}
		e.uint(uint64(i)<<1 | 1)
		e.uint(uint64(r.pace.told))
		e.b = append(e.b, flagBits(waiting != nil, flight != nil))
	}
}

func readUses(d *snapshotReader, a *Account) {
	for len(d.b) > 0 && d.err == nil {
		u := d.uint()
		if u&1 == 0 {
			if u>>1 >= uint64(len(a.sessions)) {
				d.fail("use of a session")
				return
			}
			s := a.sessions[u>>1]
			s.resource, s.active = uint32(d.limited(math.MaxUint32)), uint32(d.limited(math.MaxUint32))
			s.away = d.byte() == 1
			continue
		}
		if u>>1 >= uint64(len(a.regs)) {
			d.fail("what a registration was told")
			return
		}
		r := a.regs[u>>1]
		r.pace.told = uint32(d.limited(math.MaxUint32))
		flags := d.byte()
		if w := partOf(r.pace.waiting, nil); flags&1 != 0 && w != nil {
			w.counts = true
		}
		if f := partOf(r.pace.flight, nil); flags&2 != 0 && f != nil {
			f.counts = true
		}
	}
}
