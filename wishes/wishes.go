// Package wishes has what clients and users ask for beyond being notified: what came with a registration (filters, encryption, Push 2.0),
// and what is set for a chat (XEP-0492). Package push decides by it; a host stores it, and need not know what is in it.
package wishes

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push/internal/enum"
	"github.com/xmpp-push/push/internal/webpush"
)

// Limits on what a client may ask for with a registration. More is refused with modify/not-acceptable.
const (
	// MaxWishesBytes bounds all of it together, as AppendBinary encodes it.
	MaxWishesBytes = 32 << 10
	// MaxListed bounds each list of JIDs: those that are muted, the rooms, and the filters of one match.
	MaxListed = 500
	// MaxMatches bounds the matches of a Push 2.0 registration, MaxClaims the claims of one of them.
	MaxMatches, MaxClaims = 8, 8
	// MaxClientBytes bounds what Push 2.0 calls client, and each claim.
	MaxClientBytes = 2048
	// MaxNameBytes bounds a device's name for itself.
	MaxNameBytes = 128
	// MinPayloadBytes is the smallest limit on the size of a payload that a client can set: in less there is no room for a sender.
	MinPayloadBytes = 256
	// MaxGrace bounds the grace period of a match; a longer one is cut to it.
	MaxGrace = 24 * time.Hour
)

// Wishes is what a client asked for with its registration, beyond being told. A registration whose client asked for nothing has none, a nil
// *Wishes. Each enable replaces it as a whole. It is shared, and never changed once it is part of an event or a Registration.
//
// Its JSON, for recordings and for people, is without its secrets; AppendBinary, for stores, has all of it.
type Wishes struct {
	// IgnoreUnknown: nobody is notified for senders that are no contacts; rooms excepted (tigase:push:filter:ignore-unknown:0).
	IgnoreUnknown bool `json:"ignore_unknown,omitempty"`
	// Muted are bare JIDs in prepared form that do not notify, in order (tigase:push:filter:muted:0).
	Muted []string `json:"muted,omitempty"`
	// Groupchat: the client chose its rooms, and one that is not among Rooms does not notify (tigase:push:filter:groupchat:0).
	Groupchat bool `json:"groupchat,omitempty"`
	// Rooms are in the order of their JIDs, each of which is there once.
	Rooms []Room `json:"rooms,omitempty"`
	// Away: notify also while every connected session of the account is away (tigase:push:away:0).
	Away bool `json:"away,omitempty"`
	// Priority: say how urgent a notification is (tigase:push:priority:0).
	Priority bool `json:"priority,omitempty"`
	// Jingle: the client takes calls (tigase:push:jingle:0).
	Jingle bool `json:"jingle,omitempty"`
	// Name is what the device calls itself, for people.
	Name string `json:"name,omitempty"`
	// Identity is the client's identity in service discovery, as "category/type": chat settings can be meant for one kind of client (XEP-0492).
	// No request has it. A host that knows it gives the PushEnable of a push.Request, before Answer, a copy of its Wishes with it.
	Identity string `json:"identity,omitempty"`
	// Encryption replaces the summary form by an encrypted one. Nil: it does not.
	Encryption *Encryption `json:"encryption,omitempty"`
	// Push2 says that the registration is one of Push 2.0 (urn:xmpp:push2:0) rather than of XEP-0357. Of the fields above only Identity goes with it.
	Push2 *Push2 `json:"push2,omitempty"`
}

// Room is what a client asked for about one room.
type Room struct {
	// Room is the room's bare JID in prepared form.
	Room  string    `json:"room"`
	Allow RoomAllow `json:"allow"`
	// Nick is the user's nickname there, which RoomMentioned looks for and cannot be without.
	Nick string `json:"nick,omitempty"`
}

// RoomAllow is which messages of a room notify.
type RoomAllow uint8

const (
	RoomNever RoomAllow = iota
	RoomAlways
	// RoomMentioned: those that mention the user.
	RoomMentioned
)

var roomAllows = []string{"never", "always", "mentioned"}

// String is the value of the attribute allow.
func (a RoomAllow) String() string { return enum.Token("room-allow", roomAllows, a) }

// MarshalText gives the value of the attribute allow.
func (a RoomAllow) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (a *RoomAllow) UnmarshalText(text []byte) error {
	return enum.Read("room-allow", roomAllows, a, text)
}

// AES128GCM is the one algorithm of Encryption.
const AES128GCM = "aes-128-gcm"

// Encryption is how the payload is encrypted for a client (tigase:push:encrypt:0).
type Encryption struct {
	// Algorithm is AES128GCM.
	Algorithm string `json:"algorithm"`
	// Key has 16 bytes.
	Key Secret `json:"key"`
	// MaxSize is how large the encrypted payload may be in bytes; zero: as the specification's server has it, 3000.
	MaxSize int `json:"max_size,omitempty"`
}

// Push2 is what makes a registration one of Push 2.0.
type Push2 struct {
	// Client is the opaque text that each notification carries. A push service may take it for a right to notify, so it is kept like a secret.
	Client Secret `json:"client"`
	// Matches say which stanzas notify, and how much a notification carries; one of them is enough. There is at least one.
	Matches []Match `json:"matches"`
}

// Match is one profile of which stanzas notify.
type Match struct {
	Profile MatchProfile `json:"profile"`
	// Filters restrict chats, in the order of their JIDs; one that is not listed is not restricted.
	Filters []ChatFilter `json:"filters,omitempty"`
	// Grace keeps the match from notifying while the user was active in another session that lately. Calls are excepted. Zero: it does not.
	Grace time.Duration `json:"-"`
	// Send encrypts the message itself for the client (urn:xmpp:push2:send:sce+rfc8291+rfc8292:0). Nil: the notification says only that there is
	// something (urn:xmpp:push2:send:notify-only:0).
	Send *WebPush `json:"send,omitempty"`
}

type plainMatch Match

type jsonMatch struct {
	plainMatch
	Grace float64 `json:"grace,omitempty"`
}

// MarshalJSON writes Grace in seconds.
func (m Match) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonMatch{plainMatch(m), m.Grace.Seconds()})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (m *Match) UnmarshalJSON(data []byte) error {
	var j jsonMatch
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*m = Match(j.plainMatch)
	m.Grace = time.Duration(max(0, min(j.Grace, MaxGrace.Seconds())) * float64(time.Second))
	m.sort()
	return nil
}

type plainWishes Wishes

// UnmarshalJSON reads what json.Marshal made of w, or a person wrote: it puts the lists in order.
func (w *Wishes) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, (*plainWishes)(w)); err != nil {
		return err
	}
	w.Sort()
	return nil
}

// Sort puts the lists in the order that lookups need. Of a room, a filter or a claim that is there twice, the last one holds.
func (w *Wishes) Sort() {
	slices.Sort(w.Muted)
	w.Muted = slices.Compact(w.Muted)
	w.Rooms = lastOfEach(w.Rooms, func(r Room) string { return r.Room })
	if w.Push2 != nil {
		for i := range w.Push2.Matches {
			w.Push2.Matches[i].sort()
		}
	}
}

func (m *Match) sort() {
	m.Filters = lastOfEach(m.Filters, func(f ChatFilter) string { return f.JID })
	if m.Send != nil {
		m.Send.Claims = lastOfEach(m.Send.Claims, func(c Claim) string { return c.Name })
	}
}

// lastOfEach sorts a list by a name and keeps the last element of each.
func lastOfEach[T any](list []T, name func(T) string) []T {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
	slices.Reverse(list)
	list = slices.CompactFunc(list, func(a, b T) bool { return name(a) == name(b) })
	slices.Reverse(list)
	return list
}

// MatchProfile is which stanzas a Match is about.
type MatchProfile uint8

const (
	// MatchAll: all that the rules would notify of.
	MatchAll MatchProfile = iota
	// MatchImportant: those of class important and urgent.
	MatchImportant
	// MatchArchived: those that are in the account's archive.
	MatchArchived
	// MatchArchivedWithBody: those of them that have a body, or what stands for one: an encrypted payload, a file, an invitation; and
	// texts that correct another.
	MatchArchivedWithBody
)

var matchProfiles = []string{"all", "important", "archived", "archived-with-body"}

// String is the profile's token, the end of its URN.
func (p MatchProfile) String() string { return enum.Token("match", matchProfiles, p) }

// MarshalText gives the token: the end of the profile's URN.
func (p MatchProfile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (p *MatchProfile) UnmarshalText(text []byte) error {
	return enum.Read("match", matchProfiles, p, text)
}

// ChatFilter restricts which stanzas of a chat notify. With neither Mention nor Reply it is muted.
type ChatFilter struct {
	// JID is a full JID, a bare one, or a domain, in prepared form. The most specific one holds.
	JID string `json:"jid"`
	// Mention and Reply let through what mentions the user, and what replies to the user.
	Mention bool `json:"mention,omitempty"`
	Reply   bool `json:"reply,omitempty"`
}

// WebPush is how a message is encrypted for a client, and how the server tells the push service who sent it.
type WebPush struct {
	// Public is the client's P-256 public key, raw and uncompressed: 65 bytes (RFC 8291 §3.1).
	Public []byte `json:"public"`
	// Auth is the client's authentication secret: 16 bytes (RFC 8291 §3.2).
	Auth Secret `json:"auth"`
	// TokenKey is a P-256 private key in PKCS#8, which signs the token by ES256 (RFC 8292 §2). Zero: there is no token.
	TokenKey Secret `json:"token_key,omitzero"`
	// Claims are the token's, besides those of the server, in the order of their names.
	Claims []Claim `json:"claims,omitempty"`
}

// Claim is one claim of a token (RFC 7519 §4), whose value is text.
type Claim struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Mutes tells whether a bare JID is muted.
func (w *Wishes) Mutes(bare string) bool {
	_, ok := slices.BinarySearch(w.Muted, bare)
	return ok
}

// Room returns what was asked for about the room with that bare JID. It returns false if it is not listed.
func (w *Wishes) Room(bare string) (Room, bool) {
	i, ok := slices.BinarySearchFunc(w.Rooms, bare, func(r Room, bare string) int { return cmp.Compare(r.Room, bare) })
	if !ok {
		return Room{}, false
	}
	return w.Rooms[i], true
}

// Filter returns the filter for a sender: that of its full JID, else of its bare JID, else of its domain. It returns false if there is none.
func (m *Match) Filter(from string) (ChatFilter, bool) {
	for jid := from; ; {
		i, ok := slices.BinarySearchFunc(m.Filters, jid, func(f ChatFilter, jid string) int { return cmp.Compare(f.JID, jid) })
		if ok {
			return m.Filters[i], true
		}
		bare, _, full := strings.Cut(jid, "/")
		_, domain, account := strings.Cut(bare, "@")
		switch {
		case full:
			jid = bare
		case account:
			jid = domain
		default:
			return ChatFilter{}, false
		}
	}
}

// Empty tells whether nothing is asked for.
func (w *Wishes) Empty() bool {
	return len(w.append(nil)) == 1
}

// Equal tells whether both ask for the same, secrets included.
func (w *Wishes) Equal(o *Wishes) bool {
	if w == o {
		return true
	}
	return bytes.Equal(w.append(nil), o.append(nil))
}

// Validate reports everything that is wrong with w at once, or nil. The readers of requests make only what is valid, and an Engine takes nothing
// else; a host that builds a PushEnable itself may ask before. What stands in for a key in a recording is taken for one.
func (w *Wishes) Validate() error {
	if w == nil {
		return nil
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("push: "+format, args...)) }
	if n := len(w.append(nil)); n > MaxWishesBytes {
		bad("wishes of %d bytes, more than %d", n, MaxWishesBytes)
	}
	if len(w.Muted) > MaxListed || len(w.Rooms) > MaxListed {
		bad("more than %d JIDs in a list", MaxListed)
	}
	if !slices.IsSorted(w.Muted) {
		bad("Wishes.Muted is not in order")
	}
	inOrder := func(a, b Room) int { return cmp.Compare(a.Room, b.Room) }
	if !slices.IsSortedFunc(w.Rooms, inOrder) || len(slices.CompactFunc(slices.Clone(w.Rooms), func(a, b Room) bool { return a.Room == b.Room })) != len(w.Rooms) {
		bad("Wishes.Rooms is not in order, or has a room twice")
	}
	for _, r := range w.Rooms {
		if r.Allow == RoomMentioned && r.Nick == "" {
			bad("Wishes.Rooms has a room that allows mentions and no nick")
		}
	}
	if len(w.Name) > MaxNameBytes || len(w.Identity) > MaxNameBytes {
		bad("a name or an identity of more than %d bytes", MaxNameBytes)
	}
	if e := w.Encryption; e != nil {
		if e.Algorithm != AES128GCM {
			bad("encryption by %.40q, which is not known", e.Algorithm)
		} else if len(e.Key.Reveal()) != 16 && !e.Key.standsIn() {
			bad("an encryption key that has not 16 bytes")
		}
		if e.MaxSize != 0 && e.MaxSize < MinPayloadBytes {
			bad("a payload of at most %d bytes, in which nothing fits; at least %d", e.MaxSize, MinPayloadBytes)
		}
	}
	if w.Push2 != nil {
		errs = append(errs, w.Push2.validate())
	}
	return errors.Join(errs...)
}

func (p *Push2) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("push: "+format, args...)) }
	if n := len(p.Client.Reveal()); n == 0 || n > MaxClientBytes {
		bad("a client of %d bytes; there must be some, and at most %d", n, MaxClientBytes)
	}
	if n := len(p.Matches); n == 0 || n > MaxMatches {
		bad("%d matches; there must be one, and at most %d", n, MaxMatches)
	}
	for i := range p.Matches {
		m := &p.Matches[i]
		if len(m.Filters) > MaxListed {
			bad("more than %d filters in a match", MaxListed)
		}
		if !slices.IsSortedFunc(m.Filters, func(a, b ChatFilter) int { return cmp.Compare(a.JID, b.JID) }) {
			bad("Match.Filters is not in order")
		}
		if m.Grace < 0 || m.Grace > MaxGrace {
			bad("a grace period of %v, more than %v or less than none", m.Grace, MaxGrace)
		}
		s := m.Send
		if s == nil {
			continue
		}
		if err := webpush.Check(s.Public, []byte(s.Auth.Reveal())); err != nil && !s.Auth.standsIn() {
			bad("a key of the client's: %w", err)
		}
		if !s.TokenKey.IsZero() && !s.TokenKey.standsIn() {
			if _, err := webpush.ParseKey([]byte(s.TokenKey.Reveal())); err != nil {
				bad("the key of the token: %w", err)
			}
		}
		if len(s.Claims) > MaxClaims {
			bad("more than %d claims", MaxClaims)
		}
		for _, c := range s.Claims {
			if c.Name == "" || len(c.Name)+len(c.Value) > MaxClientBytes {
				bad("a claim without a name, or of more than %d bytes", MaxClientBytes)
			}
		}
	}
	return errors.Join(errs...)
}
