package push

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"
)

// A snapshot is what an account knows besides the stored part of its registrations, as bytes: sessions and what they are bound to, what was notified,
// what waits and is in flight with its tries, unread counts, advice. It is for a host that wants that to outlive a restart, or to go on another machine.
//
// It begins with its version and a checksum of the rest. Sections follow, each with a tag and its length, in the order of their tags, and left out if
// there is nothing in them. Who does not know a tag refuses the whole, but for odd ones, which say less than what would be lost by that. What another
// file adds to an account gets a section of its own, or, where that is told apart by the version, more fields.

const snapshotVersion = 1

// ErrSnapshot is wrapped by the error of a snapshot that cannot be understood whole.
var ErrSnapshot = errors.New("push: unusable snapshot")

// section is a part of a snapshot. write appends nothing if there is nothing to say, read has the section's bytes to itself and sections before it behind it.
type section struct {
	tag   uint64
	write func(e *snapshotWriter, a *Account)
	read  func(d *snapshotReader, a *Account)
}

// sections are in the order of their tags. Tags are never used again for something else.
var sections = []section{
	{2, writeHead, readHead},
	{4, writeHashKey, readHashKey},
	{6, writeKeys, readKeys},
	{8, writeSessions, readSessions},
	{10, writeStates, readStates},
	{12, writeGone, readGone},
	{13, func(*snapshotWriter, *Account) {}, readWideHeard},
	{15, writeUses, readUses},
	{17, writeHeard, readHeard},
	{19, writeGoneDrops, readGoneDrops},
}

// AppendBinary appends a snapshot of the account to b. The same account gives the same bytes. The error is always nil. If the policy lets notifications say who
// wrote and what, what waits says so in the snapshot too: keep it as safe as messages. It holds no publish options.
func (a *Account) AppendBinary(b []byte) ([]byte, error) {
	e := snapshotWriter{b: append(b, snapshotVersion, 0, 0, 0, 0), base: max(a.touched, a.left)}
	head := len(e.b)
	var content snapshotWriter
	for _, s := range sections {
		content.b, content.base = content.b[:0], e.base
		if s.write(&content, a); len(content.b) > 0 {
			e.uint(s.tag)
			e.bytes(content.b)
		}
	}
	binary.LittleEndian.PutUint32(e.b[head-4:], crc32.Checksum(e.b[head:], castagnoli))
	return e.b, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalBinary returns a snapshot of the account; see [Account.AppendBinary].
func (a *Account) MarshalBinary() ([]byte, error) { return a.AppendBinary(nil) }

// RestoreAccount returns the account that a snapshot was taken of, for which name has to be the same. Its registrations have not been read
// ([Account.Loaded]): give them to [Account.Load], which drops what waits for those that are gone. Until then events are answered for
// those that there were, and nothing is sent. If the process that had publishes in flight is gone, call [Account.Interrupted] after Load.
//
// The error wraps ErrSnapshot if the bytes are not understood whole, because they are damaged, of another account, or from a newer version.
func RestoreAccount(name string, p *Policy, data []byte) (*Account, error) {
	a := OpenAccount(name, p)
	d := &snapshotReader{b: data}
	if v := d.byte(); d.err == nil && v != snapshotVersion {
		d.fail("version %d is not known", v)
	}
	if sum := d.take(4); d.err == nil && crc32.Checksum(d.b, castagnoli) != binary.LittleEndian.Uint32(sum) {
		d.fail("its checksum is wrong")
	}
	next, last := 0, uint64(0)
	for d.err == nil && len(d.b) > 0 {
		tag := d.uint()
		content := snapshotReader{b: d.bytes(), base: d.base}
		if d.err != nil {
			break
		}
		if tag <= last {
			d.fail("section %d after section %d", tag, last)
			break
		}
		last = tag
		for next < len(sections) && sections[next].tag < tag {
			next++
		}
		if next == len(sections) || sections[next].tag != tag {
			if tag%2 == 0 {
				d.fail("section %d is not known", tag)
			}
			continue
		}
		if len(content.b) == 0 {
			d.fail("section %d is empty", tag) // none is written so
			break
		}
		if sections[next].read(&content, a); len(content.b) > 0 {
			content.fail("%d bytes too many in section %d", len(content.b), tag)
		}
		d.err, d.base = content.err, content.base
	}
	if d.err == nil && last == 0 {
		d.fail("it is empty")
	}
	if d.err == nil && a.name != name {
		d.fail("it is of another account")
	}
	if d.err == nil {
		d.err = a.check()
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, d.err)
	}
	return a, nil
}

func writeHead(e *snapshotWriter, a *Account) {
	e.string(a.name)
	e.int(int64(e.base))
	e.instant(a.touched)
	e.instant(a.left)
	e.uint(uint64(a.claims))
}

func readHead(d *snapshotReader, a *Account) {
	a.name = d.string()
	d.base = instant(d.int())
	a.touched, a.left = d.instant(), d.instant()
	a.claims = uint32(d.limited(math.MaxUint32))
}

func writeHashKey(e *snapshotWriter, a *Account) {
	if a.key != (hashKey{}) {
		e.fixed(a.key[0])
		e.fixed(a.key[1])
	}
}

func readHashKey(d *snapshotReader, a *Account) { a.key = hashKey{d.fixed(), d.fixed()} }

func writeKeys(e *snapshotWriter, a *Account) {
	for _, r := range a.regs {
		e.key(r.Key)
	}
}

func readKeys(d *snapshotReader, a *Account) {
	for len(d.b) > 0 && d.err == nil {
		r := &registration{Registration: Registration{Account: a.name, Key: d.key()}, pace: pacer{stub: true}}
		if n := len(a.regs); n > 0 && a.regs[n-1].Key.Compare(r.Key) >= 0 {
			d.fail("registrations out of order")
		}
		a.regs = append(a.regs, r)
	}
}

// What a session claims, in its flags.
const (
	claimsNothing = iota
	claimsBound   // what it is bound to
	claimsKnown   // one of the account's registrations, which it does not have
	claimsUnknown // one that was not read when the snapshot was taken
)

func writeSessions(e *snapshotWriter, a *Account) {
	for _, s := range a.sessions {
		claim, i := claimsNothing, -1
		if s.claim != nil {
			claim, i = claimsUnknown, slices.IndexFunc(a.regs, func(r *registration) bool { return r.Key == *s.claim })
		}
		switch {
		case s.bound != nil:
			claim = claimsBound
		case i >= 0:
			claim = claimsKnown
		}
		e.string(s.id)
		e.string(s.device)
		e.b = append(e.b, byte(claim)|flagBits(s.hibernated, s.extended, s.unadvised, s.nameless, s.unresolved)<<2)
		switch claim {
		case claimsBound, claimsKnown:
			e.uint(uint64(i))
		case claimsUnknown:
			e.key(*s.claim)
		}
		e.uint(uint64(s.since))
		e.instant(s.wakeAt)
	}
}

func readSessions(d *snapshotReader, a *Account) {
	for len(d.b) > 0 && d.err == nil {
		s := &session{id: d.string(), device: d.string()}
		flags := d.byte()
		s.hibernated, s.extended, s.unadvised, s.nameless, s.unresolved = flags&4 != 0, flags&8 != 0, flags&16 != 0, flags&32 != 0, flags&64 != 0
		if flags >= 128 {
			d.fail("flags of a session")
		}
		switch claim := flags & 3; claim {
		case claimsBound, claimsKnown:
			r := d.registration(a)
			if r == nil {
				return
			}
			s.claim = &r.Key
			if claim == claimsBound {
				s.bound = r
			}
		case claimsUnknown:
			k := d.key()
			s.claim = &k
		}
		s.since = uint32(d.limited(math.MaxUint32))
		s.wakeAt = d.instant()
		a.sessions = append(a.sessions, s)
	}
}

// writeStates writes what is known of each registration that more than its key is known of.
func writeStates(e *snapshotWriter, a *Account) {
	for i, r := range a.regs {
		p := &r.pace
		if r.unread == 0 && r.retried == 0 && r.mem.count() == 0 && p.spaced == 0 && len(p.waiting) == 0 && !p.inFlight && r.Health.Disabled.IsZero() {
			continue
		}
		e.uint(uint64(i))
		e.uint(uint64(r.unread))
		disabled := instant(0) // so that it notifies nobody before it is read
		if !r.Health.Disabled.IsZero() {
			disabled = toInstant(r.Health.Disabled)
		}
		e.instant(disabled)
		e.uint(uint64(r.retried))
		e.memory(&r.mem)
		e.b = append(e.b, flagBits(p.inFlight, p.stripped))
		e.uint(uint64(p.tries))
		for _, t := range [...]instant{p.due, p.spaced, p.retryAt} {
			e.instant(t)
		}
		counted := instant(0)
		if p.counted != 0 {
			counted = toInstant(time.Unix(int64(p.counted), 0))
		}
		e.instant(counted)
		e.parts(a, p.waiting)
		if p.inFlight {
			e.parts(a, p.flight)
		}
	}
}

func readStates(d *snapshotReader, a *Account) {
	last := -1
	for len(d.b) > 0 && d.err == nil {
		r := d.registration(a)
		if r == nil {
			return
		}
		i := slices.Index(a.regs, r)
		if i <= last {
			d.fail("states out of order")
		}
		last = i
		r.unread = int32(d.limited(math.MaxInt32))
		r.Health.Disabled = d.instant().time()
		r.retried = uint32(d.limited(math.MaxUint32))
		d.memory(&r.mem)
		p := &r.pace
		flags := d.byte()
		p.inFlight, p.stripped = flags&1 != 0, flags&2 != 0
		if flags >= 4 {
			d.fail("flags of a registration")
		}
		p.tries = int32(d.limited(math.MaxInt32))
		for _, t := range [...]*instant{&p.due, &p.spaced, &p.retryAt} {
			*t = d.instant()
		}
		if t := d.instant(); t != 0 {
			p.counted = uint32(max(t.time().Unix(), 1))
		}
		p.waiting = d.parts(a)
		if p.inFlight {
			p.flight = d.parts(a)
		}
	}
}

func writeGone(e *snapshotWriter, a *Account) {
	if a.gone != nil {
		for _, d := range *a.gone {
			e.key(d.Key)
		}
	}
}

func readGone(d *snapshotReader, a *Account) {
	var gone []Drop
	for len(d.b) > 0 && d.err == nil {
		gone = append(gone, Drop{Key: d.key()})
	}
	a.gone = &gone
}

// writeGoneDrops writes what there is to drop of those that are gone, in their order.
func writeGoneDrops(e *snapshotWriter, a *Account) {
	if a.gone == nil || (*a.gone)[0].Reason == ReasonNone {
		return
	}
	for _, g := range *a.gone {
		e.string(g.Reason.String())
		e.uint(uint64(g.Class))
		e.uint(uint64(g.Count))
		e.uint(uint64(len(g.Events)))
		for _, n := range g.Events {
			e.uint(n)
		}
	}
}

func readGoneDrops(d *snapshotReader, a *Account) {
	if a.gone == nil {
		d.fail("drops of what is not gone")
		return
	}
	for i := range *a.gone {
		g := &(*a.gone)[i]
		if err := g.Reason.UnmarshalText([]byte(d.string())); err != nil {
			g.Reason = ReasonRemoved // a later version's
		}
		g.Class, g.Count = Class(d.limited(uint64(ClassUrgent))), int(d.limited(math.MaxInt32))
		for n := d.limited(uint64(len(d.b))); n > 0; n-- {
			g.Events = append(g.Events, d.uint())
		}
		if g.Reason == ReasonNone {
			d.fail("a drop without a reason")
		}
	}
}

// memory writes what was notified, without what was forgotten.
func (e *snapshotWriter) memory(m *notified) {
	e.uint(uint64(m.count()))
	last := int64(0)
	for _, r := range m.all() {
		if r.at != forgotten {
			e.fixed(r.hash)
			e.int(r.at - last)
			last = r.at
		}
	}
}

func (d *snapshotReader) memory(m *notified) {
	n := d.count(9)
	if n == 0 {
		return
	}
	m.ring = make([]remembered, n)
	last := int64(0)
	for i := range m.ring {
		hash := d.fixed()
		last += d.int()
		if hash&^hashFlags == 0 || last == forgotten {
			d.fail("what was notified")
		}
		m.ring[i] = remembered{hash, last}
	}
	if n > fewRemembered {
		m.grow()
	}
}

// parts writes what waits or is in flight.
func (e *snapshotWriter) parts(a *Account, parts []part) {
	e.uint(uint64(len(parts)))
	for i := range parts {
		p := &parts[i]
		from := 0
		if p.from != nil {
			from = slices.Index(a.sessions, p.from) + 1
		}
		e.uint(uint64(from))
		e.b = append(e.b, flagBits(p.over, p.wakes, p.text != nil))
		spent := ""
		if p.spent != ReasonNone {
			spent = p.spent.String()
		}
		e.string(spent)
		for c := range p.count {
			e.uint(uint64(p.count[c]))
			e.instant(p.at[c])
		}
		e.uint(uint64(p.nameless))
		if t := p.text; t != nil {
			e.instant(t.at)
			e.fixed(t.hash)
			e.string(t.sender)
			e.string(t.body)
		}
		e.uint(uint64(len(p.stanzas)))
		last := uint64(0)
		for _, n := range p.stanzas {
			if n.named() {
				e.b = append(e.b, byte(n.hash&hashFlags)|8)
				e.fixed(n.hash)
			} else {
				e.b = append(e.b, byte(n.hash))
			}
			e.int(int64(n.event - last))
			last = n.event
		}
	}
}

func (d *snapshotReader) parts(a *Account) []part {
	n := d.count(11)
	if n == 0 {
		return nil
	}
	parts := make([]part, n)
	for i := range parts {
		p := &parts[i]
		if from := d.limited(uint64(len(a.sessions))); from > 0 {
			p.from = a.sessions[from-1]
		}
		flags := d.byte()
		p.over, p.wakes = flags&1 != 0, flags&2 != 0
		if flags >= 8 {
			d.fail("flags of a part")
		}
		if spent := d.string(); spent != "" {
			_ = p.spent.UnmarshalText([]byte(spent)) // one that is not known is none
		}
		for c := range p.count {
			p.count[c] = int32(d.limited(math.MaxInt32))
			p.at[c] = d.instant()
		}
		p.nameless = int32(d.limited(math.MaxInt32))
		if flags&4 != 0 {
			p.text = &text{at: d.instant(), hash: d.fixed(), sender: d.string(), body: d.string()}
			if p.at[ClassImportant] == 0 && p.at[ClassUrgent] == 0 { // earlier versions kept that of what only wakes, too
				p.text.body = ""
			}
		}
		p.stanzas = make([]noted, d.count(2))
		last := uint64(0)
		for j := range p.stanzas {
			hash := uint64(d.byte())
			if hash&8 != 0 {
				flags := hash & hashFlags
				if hash = d.fixed(); hash&hashFlags != flags {
					d.fail("a stanza")
				}
			}
			last += uint64(d.int())
			p.stanzas[j] = noted{hash, last}
		}
		if d.err != nil {
			return nil
		}
	}
	return parts
}
