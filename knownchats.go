package push

import (
	"slices"
	"time"
)

// chats is what an account knows of its chats.
type chats struct {
	// heard are the stanzas that somebody was notified of, in that order, as many as are remembered.
	heard []heard
	// known is what the host answered, by the chat's bare JID.
	known map[string]knownChat
}

// knownChat is what the host answered about a chat, and when.
type knownChat struct {
	info ChatInfo
	at   instant
}

// maxKnownChats bounds the answers that are kept for one account.
const maxKnownChats = 64

// learn keeps what the host answered.
func (a *Account) learn(f *Facts) {
	for i := range f.Chats {
		c := &f.Chats[i]
		if c.Failed || a.policy.AskAgain <= 0 || c.asked != 0 && c.asked != uint32(a.changed)+1 {
			continue
		}
		if a.chats == nil {
			a.chats = new(chats)
		}
		if a.chats.known == nil || len(a.chats.known) >= maxKnownChats {
			a.chats.known = make(map[string]knownChat)
		}
		info := c.ChatInfo
		info.Mentioned = FactUnknown
		a.chats.known[c.Chat] = knownChat{info, toInstant(f.Now)}
		a.touched = toInstant(f.Now) // worth to be kept
	}
}

// knows returns what the host answered about a chat, if that is still good.
func (a *Account) knows(chat string, now time.Time) *ChatInfo {
	if a.chats == nil {
		return nil
	}
	k, ok := a.chats.known[chat]
	if !ok || toInstant(now)-k.at >= instant(a.policy.AskAgain) {
		return nil
	}
	return &k.info
}

func (a *Account) forgetChat(chat string) {
	switch {
	case a.chats == nil:
	case chat == "":
		a.chats.known = nil
	default:
		delete(a.chats.known, chat)
	}
}

// grown makes room in a list that is full, and in which most accounts have few: doubling it would leave half of it empty.
func grown[T any](list []T) []T {
	n := len(list)
	if n == 0 || n >= fewRemembered {
		return list
	}
	return append(make([]T, 0, n/4*4+4), list...)
}

// pruneChats forgets the stanzas that no registration remembers, with those after them in their chat, and answers that are too old.
func (a *Account) pruneChats(now time.Time) {
	if a.chats == nil {
		return
	}
	kept := a.chats.heard[:0]
	var known map[uint32]bool // chats of which something is kept, if that matters
	for _, n := range a.chats.heard {
		keep := false
		if n.sender == overheard { // as long as one before it in its chat is known
			if known == nil {
				known = make(map[uint32]bool)
				for _, o := range kept {
					known[o.chat] = true
				}
			}
			keep = known[n.chat]
		} else if keep = slices.ContainsFunc(a.regs, func(r *registration) bool { return r.mem.has(n.hash) }); keep && known != nil {
			known[n.chat] = true
		}
		if keep {
			kept = append(kept, n)
		}
	}
	a.chats.heard = kept
	for chat, k := range a.chats.known {
		if toInstant(now)-k.at >= instant(a.policy.AskAgain) {
			delete(a.chats.known, chat)
		}
	}
	if len(a.chats.heard) == 0 && len(a.chats.known) == 0 {
		a.chats = nil
	}
}
