package pushhttp

import (
	"strconv"
	"strings"

	"github.com/xmpp-push/push/wishes"
)

// maxAsked is how many of a list a page names.
const maxAsked = 12

// asked says what a device's client asked for besides being told, each in a line. Keys are not among it, nor what Push 2.0 calls client.
func (p *Handler) asked(w *wishes.Wishes) (lines []string) {
	if w == nil {
		return nil
	}
	say := func(asked bool, text string) {
		if asked {
			lines = append(lines, text)
		}
	}
	say(w.IgnoreUnknown, "what contacts send, and rooms")
	say(len(w.Muted) > 0, "nothing from "+firstOf(len(w.Muted), func(i int) string { return p.shown(w.Muted[i]) }))
	rooms := firstOf(len(w.Rooms), func(i int) string {
		r := &w.Rooms[i]
		switch r.Allow {
		case wishes.RoomMentioned:
			nick := cut(r.Nick)
			if p.cfg.Pseudonyms {
				nick = "the user"
			}
			return p.shown(r.Room) + " if " + nick + " is mentioned"
		case wishes.RoomNever:
			return p.shown(r.Room) + " never"
		}
		return p.shown(r.Room)
	})
	if rooms == "" {
		rooms = "none"
	}
	say(w.Groupchat, "of rooms only these: "+rooms)
	say(w.Away, "also what comes while the user is away from every connected device")
	say(w.Priority, "how urgent it is")
	say(w.Jingle, "calls")
	if e := w.Encryption; e != nil {
		say(true, "sender and text, encrypted ("+cut(e.Algorithm)+")")
	}
	say(w.Identity != "", "chat settings for "+cut(w.Identity))
	if w.Push2 != nil {
		for i := range w.Push2.Matches {
			lines = append(lines, p.askedMatch(i+1, &w.Push2.Matches[i]))
		}
	}
	return lines
}

// askedMatch says what one match of Push 2.0 lets through.
func (p *Handler) askedMatch(number int, m *wishes.Match) string {
	text := "match " + strconv.Itoa(number) + ": " + m.Profile.String()
	if len(m.Filters) > 0 {
		text += "; of " + firstOf(len(m.Filters), func(i int) string {
			f := &m.Filters[i]
			switch {
			case f.Mention && f.Reply:
				return p.shown(f.JID) + " mentions and replies"
			case f.Mention:
				return p.shown(f.JID) + " mentions"
			case f.Reply:
				return p.shown(f.JID) + " replies"
			}
			return p.shown(f.JID) + " nothing"
		})
	}
	if m.Grace > 0 {
		text += "; not within " + m.Grace.String() + " of what the user does elsewhere"
	}
	if m.Send != nil {
		text += "; the message itself, encrypted"
	}
	return text
}

// firstOf names the first of n.
func firstOf(n int, name func(int) string) string {
	names := make([]string, 0, min(n, maxAsked)+1)
	for i := range min(n, maxAsked) {
		names = append(names, name(i))
	}
	if n > maxAsked {
		names = append(names, strconv.Itoa(n-maxAsked)+" more")
	}
	return strings.Join(names, ", ")
}
