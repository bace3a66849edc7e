package push

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Whether a message is meant for the user in particular.

// Self is who the user is where a message was said, for [Stanza.Mentions] and [Stanza.RepliesTo].
type Self struct {
	// Account is the user's bare JID, in prepared form.
	Account string
	// Nicks are what the user is called in the room, as far as it is known. Empty ones mean nothing.
	Nicks [2]string
	// OccupantID is the user's occupant-id in the room (XEP-0421), or empty.
	OccupantID string
	// Active: the user is at a device now, which matters to mentions of those who are active (XEP-0513).
	Active bool
	// NoText: what the text says does not count, only references, replies and mentions that were marked as such.
	NoText bool
}

// Mentions tells whether a message mentions the user: by a reference of type mention (XEP-0372) to the user's bare JID or occupant; by a mention
// (XEP-0513) of them or of the whole channel, but for one that is not to ping or only those who are active; or, unless u.NoText, because its text
// has the user's nickname as a whole word. Letter case does not matter; quoted lines, links and addresses do not count; of a long text the first
// 2048 bytes are looked at. It is pure. Nobody (nil) is mentioned by none.
func (st *Stanza) Mentions(u *Self) bool {
	if u == nil {
		return false
	}
	if d := st.Details; d != nil {
		silent := false
		for i := range d.Mentions {
			m := &d.Mentions[i]
			if !u.named(st, m) {
				continue
			}
			if !m.NoPing && (!m.Active || u.Active) {
				return true
			}
			silent = true
		}
		if silent {
			return false // the sender chose not to ping the user, whose name the text then has
		}
	}
	if u.NoText || st.Content == ContentEncrypted {
		return false
	}
	for _, nick := range u.Nicks {
		if hasWord(st.Body, nick) {
			return true
		}
	}
	return false
}

// RepliesTo tells whether a message answers one of the user's (XEP-0461). It is pure.
func (st *Stanza) RepliesTo(u *Self) bool {
	return u != nil && st.Details != nil && u.is(st, st.Details.Reply.To)
}

// named tells whether a mention is of the user.
func (u *Self) named(st *Stanza, m *Mention) bool {
	if m.Channel {
		return true
	}
	return m.OccupantID != "" && m.OccupantID == u.OccupantID || u.is(st, m.JID) || u.is(st, fromURI(m.URI))
}

// is tells whether a JID, as the sender wrote it, is the user's own or that of the user's occupant in the room that the message is from.
func (u *Self) is(st *Stanza, address string) bool {
	if address == "" {
		return false
	}
	address, err := prepared(address)
	if err != nil {
		return false
	}
	if bare(address) == u.Account {
		return true
	}
	room, nick, ok := strings.Cut(address, "/")
	if !ok || room != bare(st.From) {
		return false
	}
	for _, n := range u.Nicks {
		if n != "" && n == nick {
			return true
		}
	}
	return false
}

// fromURI returns the address in a URI of scheme xmpp (RFC 5122), or nothing.
func fromURI(uri string) string {
	const scheme = "xmpp:"
	if len(uri) < len(scheme) || !strings.EqualFold(uri[:len(scheme)], scheme) {
		return ""
	}
	uri = uri[len(scheme):]
	if i := strings.IndexAny(uri, "?#"); i >= 0 {
		uri = uri[:i]
	}
	if strings.HasPrefix(uri, "//") { // with the account to use, which says nothing about who is meant
		if _, rest, ok := strings.Cut(uri[2:], "/"); ok {
			uri = rest
		}
	}
	address, err := url.PathUnescape(uri)
	if err != nil {
		return ""
	}
	return address
}

// hasWord tells whether a text has a word as a word of its own, outside of quoted lines, links and addresses.
func hasWord(text, word string) bool {
	word = strings.TrimSpace(word)
	if word == "" || len(word) > maxID {
		return false
	}
	if len(text) > maxBody {
		text = cut(text, maxBody) // a host may give more than ParseStanza
	}
	first, _ := utf8.DecodeRuneInString(word)
	last, _ := utf8.DecodeLastRuneInString(word)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ">") { // XEP-0393 §5.1.3
			continue
		}
		before := rune(-1)
		for i, r := range line {
			if sameFold(r, first) && boundary(before, r) {
				if end := foldedPrefix(line[i:], word); end > 0 {
					if after, _ := utf8.DecodeRuneInString(line[i+end:]); boundary(last, after) && !inLink(line, i, i+end) {
						return true
					}
				}
			}
			before = r
		}
	}
	return false
}

// foldedPrefix returns how much of text is word in whatever letter case, or 0.
func foldedPrefix(text, word string) int {
	n := 0
	for _, w := range word {
		r, size := utf8.DecodeRuneInString(text[n:])
		if size == 0 || !sameFold(r, w) {
			return 0
		}
		n += size
	}
	return n
}

// sameFold tells whether two characters differ in their case at most.
func sameFold(a, b rune) bool {
	if a == b {
		return true
	}
	if a < utf8.RuneSelf && b < utf8.RuneSelf {
		return a|0x20 == b|0x20 && 'a' <= a|0x20 && a|0x20 <= 'z'
	}
	for f := unicode.SimpleFold(a); f != a; f = unicode.SimpleFold(f) {
		if f == b {
			return true
		}
	}
	return false
}

// boundary tells whether a word can end between two characters that follow each other: not between two that make words, but next to
// one of a script that is written without spaces (Unicode Standard Annex 29, in short).
func boundary(a, b rune) bool {
	if unicode.Is(unicode.Mn, b) || unicode.Is(unicode.Mc, b) || b == '\u200d' { // it changes the character before
		return false
	}
	return !makesWords(a) || !makesWords(b) || unbroken(a) || unbroken(b)
}

func makesWords(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9' || r == '_'
	}
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r) || unicode.Is(unicode.Pc, r))
}

func unbroken(r rune) bool {
	return r >= 0x0e00 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// inLink tells whether a part of a line is in a link, or in an address: the text between two spaces has a scheme, or begins as links do without one,
// or goes on as an address does.
func inLink(line string, start, end int) bool {
	from := strings.LastIndexFunc(line[:start], unicode.IsSpace) + 1
	to := len(line)
	if i := strings.IndexFunc(line[end:], unicode.IsSpace); i >= 0 {
		to = end + i
	}
	chunk := line[from:to]
	if strings.Contains(chunk, "://") {
		return true
	}
	opened := strings.TrimLeft(chunk, `<("'[`)
	for _, p := range [...]string{"www.", "xmpp:", "mailto:", "geo:", "tel:", "sip:", "magnet:", "aesgcm:", "data:"} {
		if len(opened) > len(p) && strings.EqualFold(opened[:len(p)], p) {
			return true
		}
	}
	rest := strings.IndexByte(line[end:to], '@')
	if rest >= 0 && end+rest+1 < to { // juliet@example.com, juliet.capulet@example.com
		r, _ := utf8.DecodeRuneInString(line[end+rest+1:])
		return makesWords(r)
	}
	at := strings.IndexByte(line[from:start], '@')
	if at > 0 { // nurse@juliet.example, but not @juliet
		r, _ := utf8.DecodeLastRuneInString(line[from : from+at])
		return makesWords(r)
	}
	return false
}
