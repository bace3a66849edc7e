package push_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// XEP-0492 §3.1: the most specific setting holds.
func TestChatSettingOfIdentity(t *testing.T) {
	all := wishes.ChatSetting{Notify: wishes.NotifyNever}
	client := wishes.ChatSetting{Notify: wishes.NotifyOnMention, Category: "client"}
	phone := wishes.ChatSetting{Notify: wishes.NotifyAlways, Category: "client", Type: "phone"}
	for _, c := range []struct {
		identity string
		settings []wishes.ChatSetting
		want     wishes.NotifyWhen
		ok       bool
	}{
		{"client/phone", nil, wishes.NotifyAlways, false},
		{"client/phone", []wishes.ChatSetting{all, client, phone}, wishes.NotifyAlways, true},
		{"client/phone", []wishes.ChatSetting{phone, client, all}, wishes.NotifyAlways, true},
		{"client/pc", []wishes.ChatSetting{phone, client, all}, wishes.NotifyOnMention, true},
		{"client", []wishes.ChatSetting{phone, client, all}, wishes.NotifyOnMention, true},
		{"client/pc", []wishes.ChatSetting{phone, all}, wishes.NotifyNever, true},
		{"gateway/phone", []wishes.ChatSetting{phone, client, all}, wishes.NotifyNever, true},
		{"", []wishes.ChatSetting{phone, client, all}, wishes.NotifyNever, true},
		{"", []wishes.ChatSetting{phone, client}, wishes.NotifyAlways, false},
		{"client/phone", []wishes.ChatSetting{all, {Notify: wishes.NotifyAlways}}, wishes.NotifyNever, true},
	} {
		info := ChatInfo{Settings: c.settings}
		got, ok := info.When(c.identity)
		assert.Equal(t, c.want, got, "%s %v", c.identity, c.settings)
		assert.Equal(t, c.ok, ok, "%s %v", c.identity, c.settings)
	}
}
