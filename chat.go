package push

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
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
	// Settings are what the user set for the chat; see ParseChatSettings.
	Settings []ChatSetting `json:"settings,omitempty"`
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
func (a Fact) String() string { return token("fact", facts, a) }

// MarshalText gives the token.
func (a Fact) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (a *Fact) UnmarshalText(text []byte) error { return fromToken("fact", facts, a, text) }

// FactOf returns FactYes or FactNo.
func FactOf(yes bool) Fact {
	if yes {
		return FactYes
	}
	return FactNo
}

// NSChatSettings is the namespace of XEP-0492.
const NSChatSettings = "urn:xmpp:notification-settings:1"

// MaxChatSettings bounds the settings of one chat.
const MaxChatSettings = 32

// ErrChatSettings is wrapped by the errors of ParseChatSettings.
var ErrChatSettings = errors.New("push: unusable chat settings")

// ChatSetting is one setting of a chat, for all clients or for those of one kind (XEP-0492 §3).
type ChatSetting struct {
	Notify NotifyWhen `json:"notify"`
	// Category and Type are those of the identity (XEP-0030) that it is for. Without Category it is for all, without Type for all of the category.
	Category string `json:"category,omitempty"`
	Type     string `json:"type,omitempty"`
}

// NotifyWhen is which messages of a chat notify.
type NotifyWhen uint8

const (
	NotifyAlways NotifyWhen = iota
	NotifyOnMention
	NotifyNever
)

var notifyWhens = []string{"always", "on-mention", "never"}

// String is the name of the element.
func (w NotifyWhen) String() string { return token("notify", notifyWhens, w) }

// MarshalText gives the name of the element.
func (w NotifyWhen) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (w *NotifyWhen) UnmarshalText(text []byte) error {
	return fromToken("notify", notifyWhens, w, text)
}

// ParseChatSettings reads the <notify/> of XEP-0492 from one element: that itself, or what contains it, such as a bookmark's <conference/>
// (XEP-0402) or a pubsub item. It returns nil if there is none, and an error that wraps ErrChatSettings or ErrStanza if it cannot be
// understood. What it does not know in it is left out (XEP-0492 §4).
func ParseChatSettings(data []byte) ([]ChatSetting, error) {
	e, err := parseElement(data)
	if err != nil {
		return nil, err
	}
	start, err := e.open()
	if err != nil {
		return nil, err
	}
	list, found, err := chatSettings(e, start)
	if err == nil {
		err = e.close()
	}
	if err != nil || !found {
		return nil, err
	}
	return list, nil
}

// chatSettings reads the first <notify/> in an element that was started.
func chatSettings(e *element, start xml.StartElement) (list []ChatSetting, found bool, err error) {
	if start.Name == (xml.Name{Space: NSChatSettings, Local: "notify"}) {
		list, err = settings(e)
		return list, true, err
	}
	err = e.children(func(child xml.StartElement) error {
		if found {
			return nil
		}
		list, found, err = chatSettings(e, child)
		return err
	}, nil)
	return list, found, err
}

func settings(e *element) (list []ChatSetting, err error) {
	list = []ChatSetting{}
	err = e.children(func(child xml.StartElement) error {
		s := ChatSetting{Category: attribute(child, "identity-category"), Type: attribute(child, "identity-type")}
		switch {
		case child.Name.Space != NSChatSettings, s.Notify.UnmarshalText([]byte(child.Name.Local)) != nil:
			return nil
		case len(list) == MaxChatSettings:
			return fmt.Errorf("%w: more than %d", ErrChatSettings, MaxChatSettings)
		case len(s.Category) > maxID || len(s.Type) > maxID:
			return fmt.Errorf("%w: an identity of more than %d bytes", ErrChatSettings, maxID)
		case s.Category == "" && s.Type != "":
			return fmt.Errorf("%w: an identity's type without its category", ErrChatSettings)
		}
		list = append(list, s)
		return nil
	}, nil)
	return list, err
}

// When returns what the settings say for a client of an identity, "category/type" or empty if it is not known: the most specific one that
// is for it, the first of those that are alike. It returns false if there is none.
func (c *ChatInfo) When(identity string) (NotifyWhen, bool) {
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
		return NotifyAlways, false
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
