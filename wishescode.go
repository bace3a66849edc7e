package push

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The encoding is a version, then sections: a tag, a length, and that many bytes. A tag that is not known is skipped, so that a
// release can read what a newer one has stored.
const wishesVersion = 1

const (
	tagFlags = iota + 1
	tagName
	tagMuted
	tagRoom
	tagEncryption
	tagClient
	tagMatch
	tagIdentity
)

const (
	flagIgnoreUnknown = 1 << iota
	flagGroupchat
	flagAway
	flagPriority
	flagJingle
)

const (
	flagMention = 1 << iota
	flagReply
)

// AppendBinary implements encoding.BinaryAppender. The keys are in it in the clear, so that a store should encrypt it.
func (w *Wishes) AppendBinary(b []byte) ([]byte, error) { return w.appendBinary(b), nil }

// MarshalBinary implements encoding.BinaryMarshaler.
func (w *Wishes) MarshalBinary() ([]byte, error) { return w.appendBinary(nil), nil }

func (w *Wishes) appendBinary(b []byte) []byte {
	b = append(b, wishesVersion)
	if w == nil {
		return b
	}
	var buf []byte
	section := func(tag byte, data []byte) {
		b = append(b, tag)
		b = appendInts(b, len(data))
		b = append(b, data...)
		buf = data[:0]
	}
	flags := 0
	for i, set := range [...]bool{w.IgnoreUnknown, w.Groupchat, w.Away, w.Priority, w.Jingle} {
		if set {
			flags |= 1 << i
		}
	}
	if flags != 0 {
		section(tagFlags, appendInts(buf, flags))
	}
	if w.Name != "" {
		section(tagName, append(buf, w.Name...))
	}
	if w.Identity != "" {
		section(tagIdentity, append(buf, w.Identity...))
	}
	for _, m := range w.Muted {
		section(tagMuted, append(buf, m...))
	}
	for _, r := range w.Rooms {
		section(tagRoom, appendStrings(append(buf, byte(r.Allow)), r.Room, r.Nick))
	}
	if e := w.Encryption; e != nil {
		section(tagEncryption, appendInts(appendStrings(buf, e.Algorithm, e.Key.Reveal()), max(e.MaxSize, 0)))
	}
	if p := w.Push2; p != nil {
		section(tagClient, append(buf, p.Client.Reveal()...))
		for i := range p.Matches {
			section(tagMatch, p.Matches[i].append(buf))
		}
	}
	return b
}

func (m *Match) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, byte(m.Profile)), uint64(max(m.Grace, 0)))
	b = appendInts(b, len(m.Filters))
	for _, f := range m.Filters {
		flags := 0
		if f.Mention {
			flags |= flagMention
		}
		if f.Reply {
			flags |= flagReply
		}
		b = appendStrings(append(b, byte(flags)), f.JID)
	}
	s := m.Send
	if s == nil {
		return append(b, 0)
	}
	b = appendStrings(append(b, 1), string(s.Public), s.Auth.Reveal(), s.TokenKey.Reveal())
	b = appendInts(b, len(s.Claims))
	for _, c := range s.Claims {
		b = appendStrings(b, c.Name, c.Value)
	}
	return b
}

var errWishes = errors.New("push: unreadable wishes")

// UnmarshalBinary implements encoding.BinaryUnmarshaler: it reads what AppendBinary wrote. Its errors quote nothing of it.
func (w *Wishes) UnmarshalBinary(data []byte) error {
	return w.read(string(data))
}

// readWishes reads what was written by this process.
func readWishes(data string) *Wishes {
	w := new(Wishes)
	if err := w.read(data); err != nil {
		panic(err)
	}
	return w
}

func (w *Wishes) read(data string) error {
	d := decoder{rest: data}
	if v := d.byte(); v != wishesVersion {
		return fmt.Errorf("%w: version %d, not %d", errWishes, v, wishesVersion)
	}
	var n Wishes
	for d.rest != "" && !d.bad {
		tag := d.byte()
		s := decoder{rest: d.string()}
		switch tag {
		case tagFlags:
			flags := s.int()
			n.IgnoreUnknown, n.Groupchat, n.Away = flags&flagIgnoreUnknown != 0, flags&flagGroupchat != 0, flags&flagAway != 0
			n.Priority, n.Jingle = flags&flagPriority != 0, flags&flagJingle != 0
		case tagName:
			n.Name = s.rest
		case tagIdentity:
			n.Identity = s.rest
		case tagMuted:
			n.Muted = append(n.Muted, s.rest)
		case tagRoom:
			r := RoomWish{Allow: RoomAllow(s.byte()), Room: s.string(), Nick: s.string()}
			s.bad = s.bad || int(r.Allow) >= len(roomAllows)
			n.Rooms = append(n.Rooms, r)
		case tagEncryption:
			n.Encryption = &Encryption{Algorithm: s.string(), Key: NewSecret(s.string()), MaxSize: s.int()}
		case tagClient, tagMatch:
			if n.Push2 == nil {
				n.Push2 = new(Push2)
			}
			if tag == tagClient {
				n.Push2.Client = NewSecret(s.rest)
			} else {
				n.Push2.Matches = append(n.Push2.Matches, s.match())
			}
		}
		d.bad = d.bad || s.bad
	}
	if d.bad {
		return errWishes
	}
	*w = n
	return nil
}

func (d *decoder) match() Match {
	m := Match{Profile: MatchProfile(d.byte()), Grace: time.Duration(d.int())}
	d.bad = d.bad || int(m.Profile) >= len(matchProfiles)
	for range d.count() {
		flags := d.byte()
		m.Filters = append(m.Filters, ChatFilter{JID: d.string(), Mention: flags&flagMention != 0, Reply: flags&flagReply != 0})
	}
	if d.byte() == 0 {
		return m
	}
	m.Send = &WebPush{Public: []byte(d.string()), Auth: NewSecret(d.string()), TokenKey: NewSecret(d.string())}
	for range d.count() {
		m.Send.Claims = append(m.Send.Claims, Claim{Name: d.string(), Value: d.string()})
	}
	return m
}

// decoder reads bytes that may be damaged, from the front. After the first bad one it gives zeros.
type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) byte() byte {
	if d.bad || d.rest == "" {
		d.bad, d.rest = true, ""
		return 0
	}
	c := d.rest[0]
	d.rest = d.rest[1:]
	return c
}

func (d *decoder) uint() (n uint64) {
	for shift := 0; shift < 63; shift += 7 {
		c := d.byte()
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	d.bad = true
	return 0
}

func (d *decoder) int() int { return int(d.uint()) }

// count is the number of things that follow, each of a byte at least.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.rest)) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.count()
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}
