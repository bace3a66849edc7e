package push

import (
	"context"
	"strings"

	"github.com/xmpp-push/push/internal/enum"
	"github.com/xmpp-push/push/wishes"
)

// What only the host knows of a chat: whether the other side is a contact, what the user set for it, who the user is in a room.

// Contacts knows who an account's contacts are. Optional: without it tigase:push:filter:ignore-unknown:0 filters nothing, and should not be
// announced.
type Contacts interface {
	// Contact tells whether the account is subscribed to the presence of that bare JID (RFC 6121 §3). It is asked in the course of Handle, only for
	// a stanza that would notify a registration which asked for contacts only, from many goroutines at once.
	// It must not call the Engine. If it fails, or does not return within Config.HookTimeout, nothing is filtered.
	Contact(ctx context.Context, account, jid string) (bool, error)
}

// Chats knows what an account has stored about a chat. Optional: without it XEP-0492 decides nothing, and the user's own messages in rooms
// are not told from others'.
type Chats interface {
	// Chat returns what the host knows about a chat: a room, or somebody, by bare JID. What it leaves at zero is not known. It is asked as
	// Contacts is, for any stanza that would notify, and its answer is used for the same chat until the host raises ChatChanged or
	// Policy.AskAgain is over. What it returns must not be changed any more.
	Chat(ctx context.Context, account, chat string) (ChatInfo, error)
}

// ChatInfo is what a host knows about one chat of an account. The zero ChatInfo is that it knows nothing, and filters nothing.
type ChatInfo struct {
	// Contact: whether the account is subscribed to the other side's presence.
	Contact Fact `json:"contact,omitempty"`
	// Public: whether the room can be found and entered by anybody (XEP-0045 §4.2). Where nothing is set, a public room notifies of mentions only.
	Public Fact `json:"public,omitempty"`
	// Settings are what the user set for the chat; see [wishes.ParseChatSettings].
	Settings []wishes.ChatSetting `json:"settings,omitempty"`
	// Nick and OccupantID (XEP-0421) are the user's own in the room.
	Nick       string `json:"nick,omitempty"`
	OccupantID string `json:"occupant_id,omitempty"`
	// Mentioned: whether the stanza that this comes with mentions the user, where the host can tell better than the library. It is for
	// Stanza.Info only.
	Mentioned Fact `json:"mentioned,omitempty"`
}

// Fact is what is known of a yes-or-no question.
type Fact uint8

const (
	FactUnknown Fact = iota
	FactNo
	FactYes
)

var facts = []string{"unknown", "no", "yes"}

// String is the fact's token.
func (a Fact) String() string { return enum.Token("fact", facts, a) }

// MarshalText gives the token.
func (a Fact) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (a *Fact) UnmarshalText(text []byte) error { return enum.Read("fact", facts, a, text) }

// FactOf returns FactYes or FactNo.
func FactOf(yes bool) Fact {
	if yes {
		return FactYes
	}
	return FactNo
}

// When returns what the settings say for a client of an identity, "category/type" or empty if it is not known: the most specific one that
// is for it, the first of those that are alike. It returns false if there is none.
func (c *ChatInfo) When(identity string) (wishes.NotifyWhen, bool) {
	category, typ, _ := strings.Cut(identity, "/")
	best, found := 0, -1
	for i := range c.Settings {
		s := &c.Settings[i]
		specific := 1
		switch {
		case s.Category == "":
		case s.Category != category:
			continue
		case s.Type == "":
			specific = 2
		case s.Type != typ:
			continue
		default:
			specific = 3
		}
		if specific > best {
			best, found = specific, i
		}
	}
	if found < 0 {
		return wishes.NotifyAlways, false
	}
	return c.Settings[found].Notify, true
}

// ChatAnswer is what the host answered about the chat of one stanza.
type ChatAnswer struct {
	// Stanza is the place of the stanza in its event, from 0. In Facts a negative one means all of that chat.
	Stanza int `json:"stanza,omitempty"`
	// Chat is the chat's bare JID.
	Chat string `json:"chat"`
	// Failed: the host was asked and could not say.
	Failed bool `json:"failed,omitempty"`
	ChatInfo
	// asked is that of the question.
	asked uint32
}

// Answer returns what to give to Handle as the answer to q, for all stanzas of the chat. An error means that the host could not say, but for what
// info has all the same.
func (q ChatQuestion) Answer(info ChatInfo, err error) ChatAnswer {
	return ChatAnswer{Stanza: -1, Chat: q.Chat, Failed: err != nil, ChatInfo: info, asked: q.asked}
}
