package wishes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/xmpp-push/push/internal/packed"
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
func (w *Wishes) AppendBinary(b []byte) ([]byte, error) { return w.append(b), nil }

// MarshalBinary implements encoding.BinaryMarshaler.
func (w *Wishes) MarshalBinary() ([]byte, error) { return w.append(nil), nil }

func (w *Wishes) append(b []byte) []byte {
	b = append(b, wishesVersion)
	if w == nil {
		return b
	}
	var buf []byte
	section := func(tag byte, data []byte) {
		b = append(b, tag)
		b = packed.AppendInts(b, len(data))
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
		section(tagFlags, packed.AppendInts(buf, flags))
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
		section(tagRoom, packed.AppendStrings(append(buf, byte(r.Allow)), r.Room, r.Nick))
	}
	if e := w.Encryption; e != nil {
		section(tagEncryption, packed.AppendInts(packed.AppendStrings(buf, e.Algorithm, e.Key.Reveal()), max(e.MaxSize, 0)))
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
	b = packed.AppendInts(b, len(m.Filters))
	for _, f := range m.Filters {
		flags := 0
		if f.Mention {
			flags |= flagMention
		}
		if f.Reply {
			flags |= flagReply
		}
		b = packed.AppendStrings(append(b, byte(flags)), f.JID)
	}
	s := m.Send
	if s == nil {
		return append(b, 0)
	}
	b = packed.AppendStrings(append(b, 1), string(s.Public), s.Auth.Reveal(), s.TokenKey.Reveal())
	b = packed.AppendInts(b, len(s.Claims))
	for _, c := range s.Claims {
		b = packed.AppendStrings(b, c.Name, c.Value)
	}
	return b
}

var errWishes = errors.New("push: unreadable wishes")

// UnmarshalBinary implements encoding.BinaryUnmarshaler: it reads what AppendBinary wrote. Its errors quote nothing of it.
func (w *Wishes) UnmarshalBinary(data []byte) error {
	return w.read(string(data))
}

func (w *Wishes) read(data string) error {
	d := packed.Decoder{Rest: data}
	if v := d.Byte(); v != wishesVersion {
		return fmt.Errorf("%w: version %d, not %d", errWishes, v, wishesVersion)
	}
	var n Wishes
	for d.Rest != "" {
		tag := d.Byte()
		s := packed.Decoder{Rest: d.String()}
		switch tag {
		case tagFlags:
			flags := s.Int()
			n.IgnoreUnknown, n.Groupchat, n.Away = flags&flagIgnoreUnknown != 0, flags&flagGroupchat != 0, flags&flagAway != 0
			n.Priority, n.Jingle = flags&flagPriority != 0, flags&flagJingle != 0
		case tagName:
			n.Name = s.Rest
		case tagIdentity:
			n.Identity = s.Rest
		case tagMuted:
			n.Muted = append(n.Muted, s.Rest)
		case tagRoom:
			r := Room{Allow: RoomAllow(s.Byte()), Room: s.String(), Nick: s.String()}
			s.Bad = s.Bad || int(r.Allow) >= len(roomAllows)
			n.Rooms = append(n.Rooms, r)
		case tagEncryption:
			n.Encryption = &Encryption{Algorithm: s.String(), Key: NewSecret(s.String()), MaxSize: s.Int()}
		case tagClient, tagMatch:
			if n.Push2 == nil {
				n.Push2 = new(Push2)
			}
			if tag == tagClient {
				n.Push2.Client = NewSecret(s.Rest)
			} else {
				n.Push2.Matches = append(n.Push2.Matches, readMatch(&s))
			}
		}
		d.Bad = d.Bad || s.Bad
	}
	if d.Bad {
		return errWishes
	}
	*w = n
	return nil
}

func readMatch(d *packed.Decoder) Match {
	m := Match{Profile: MatchProfile(d.Byte()), Grace: time.Duration(d.Int())}
	d.Bad = d.Bad || int(m.Profile) >= len(matchProfiles)
	for range d.Count() {
		flags := d.Byte()
		m.Filters = append(m.Filters, ChatFilter{JID: d.String(), Mention: flags&flagMention != 0, Reply: flags&flagReply != 0})
	}
	if d.Byte() == 0 {
		return m
	}
	m.Send = &WebPush{Public: []byte(d.String()), Auth: NewSecret(d.String()), TokenKey: NewSecret(d.String())}
	for range d.Count() {
		m.Send.Claims = append(m.Send.Claims, Claim{Name: d.String(), Value: d.String()})
	}
	return m
}
