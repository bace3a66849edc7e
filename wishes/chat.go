package wishes

import (
	"encoding/xml"
	"errors"
	"fmt"

	"github.com/xmpp-push/push/internal/enum"
	"github.com/xmpp-push/push/internal/stanzaxml"
)

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
func (w NotifyWhen) String() string { return enum.Token("notify", notifyWhens, w) }

// MarshalText gives the name of the element.
func (w NotifyWhen) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (w *NotifyWhen) UnmarshalText(text []byte) error {
	return enum.Read("notify", notifyWhens, w, text)
}

// ParseChatSettings reads the <notify/> of XEP-0492 from one element: that itself, or what contains it, such as a bookmark's <conference/>
// (XEP-0402) or a pubsub item. It returns nil if there is none, and an error that wraps ErrChatSettings or push.ErrStanza if it cannot be
// understood. What it does not know in it is left out (XEP-0492 §4).
func ParseChatSettings(data []byte) ([]ChatSetting, error) {
	e, err := stanzaxml.Parse(data)
	if err != nil {
		return nil, err
	}
	start, err := e.Open()
	if err != nil {
		return nil, err
	}
	list, err := chatSettings(e, start)
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// chatSettings reads the first <notify/> in an element that was started; nil if there is none.
func chatSettings(e *stanzaxml.Element, start xml.StartElement) (list []ChatSetting, err error) {
	if start.Name == (xml.Name{Space: NSChatSettings, Local: "notify"}) {
		return settings(e)
	}
	err = e.Children(func(child xml.StartElement) (err error) {
		if list == nil {
			list, err = chatSettings(e, child)
		}
		return err
	}, nil)
	return list, err
}

// settings reads the rest of a <notify/>: a list that is not nil.
func settings(e *stanzaxml.Element) (list []ChatSetting, err error) {
	list = []ChatSetting{}
	err = e.Children(func(child xml.StartElement) error {
		s := ChatSetting{Category: stanzaxml.Attribute(child, "identity-category"), Type: stanzaxml.Attribute(child, "identity-type")}
		switch {
		case child.Name.Space != NSChatSettings, s.Notify.UnmarshalText([]byte(child.Name.Local)) != nil:
			return nil
		case len(list) == MaxChatSettings:
			return fmt.Errorf("%w: more than %d", ErrChatSettings, MaxChatSettings)
		case len(s.Category) > maxIdentity || len(s.Type) > maxIdentity:
			return fmt.Errorf("%w: an identity of more than %d bytes", ErrChatSettings, maxIdentity)
		case s.Category == "" && s.Type != "":
			return fmt.Errorf("%w: an identity's type without its category", ErrChatSettings)
		}
		list = append(list, s)
		return nil
	}, nil)
	return list, err
}

// maxIdentity bounds an identity's category and type.
const maxIdentity = 256
