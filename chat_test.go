package push_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

func TestParseChatSettings(t *testing.T) {
	notify := func(inside string) string {
		return `<notify xmlns="urn:xmpp:notification-settings:1">` + inside + `</notify>`
	}
	const phone = `<never identity-category="client" identity-type="phone"/>`
	for _, c := range []struct {
		name, xml string
		want      []ChatSetting
		err       error
	}{
		{"one", notify(`<never/>`), []ChatSetting{{Notify: NotifyNever}}, nil},
		{"all", notify(`<always/><on-mention identity-category="client"/>` + phone),
			[]ChatSetting{{}, {NotifyOnMention, "client", ""}, {NotifyNever, "client", "phone"}}, nil},
		{"none", notify(``), []ChatSetting{}, nil},
		{"in a bookmark", `<conference xmlns="urn:xmpp:bookmarks:1" name="Verona"><nick>juliet</nick><extensions><x xmlns="some:thing"/>` + notify(`<never/>`) + `</extensions></conference>`, []ChatSetting{{Notify: NotifyNever}}, nil},
		{"the first one", `<item>` + notify(`<never/>`) + notify(`<always/>`) + `</item>`, []ChatSetting{{Notify: NotifyNever}}, nil},
		{"not there", `<conference xmlns="urn:xmpp:bookmarks:1"/>`, nil, nil},
		{"of another version", strings.Replace(notify(`<never/>`), ":1", ":0", 1), nil, nil},
		{"with what is not known", notify(`<sometimes/><never xmlns="some:thing"/><always><advanced xmlns="some:thing"><never xmlns="urn:xmpp:notification-settings:1"/></advanced></always>`), []ChatSetting{{}}, nil},
		{"a type alone", notify(`<never identity-type="phone"/>`), nil, ErrChatSettings},
		{"too many", notify(strings.Repeat(`<never/>`, 33)), nil, ErrChatSettings},
		{"long", notify(`<never identity-category="` + strings.Repeat("a", 257) + `"/>`), nil, ErrChatSettings},
		{"broken", notify(`<never>`), nil, ErrStanza},
		{"nothing", ``, nil, ErrStanza},
		{"two", notify(``) + notify(``), nil, ErrStanza},
		{"deep", strings.Repeat(`<a>`, 100), nil, ErrStanza},
		{"comment", `<a><!-- --></a>`, nil, ErrStanza},
	} {
		got, err := ParseChatSettings([]byte(c.xml))
		if c.err != nil {
			assert.ErrorIs(t, err, c.err, c.name)
			assert.Nil(t, got, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		assert.Equal(t, c.want, got, c.name)
	}
}

// XEP-0492 §3.1: the most specific setting holds.
func TestChatSettingOfIdentity(t *testing.T) {
	all := ChatSetting{Notify: NotifyNever}
	client := ChatSetting{NotifyOnMention, "client", ""}
	phone := ChatSetting{NotifyAlways, "client", "phone"}
	for _, c := range []struct {
		identity string
		settings []ChatSetting
		want     NotifyWhen
		ok       bool
	}{
		{"client/phone", nil, NotifyAlways, false},
		{"client/phone", []ChatSetting{all, client, phone}, NotifyAlways, true},
		{"client/phone", []ChatSetting{phone, client, all}, NotifyAlways, true},
		{"client/pc", []ChatSetting{phone, client, all}, NotifyOnMention, true},
		{"client", []ChatSetting{phone, client, all}, NotifyOnMention, true},
		{"gateway/phone", []ChatSetting{phone, client, all}, NotifyNever, true},
		{"", []ChatSetting{phone, client, all}, NotifyNever, true},
		{"", []ChatSetting{phone, client}, NotifyAlways, false},
		{"client/phone", []ChatSetting{all, {Notify: NotifyAlways}}, NotifyNever, true},
	} {
		info := ChatInfo{Settings: c.settings}
		got, ok := info.When(c.identity)
		assert.Equal(t, c.want, got, "%s %v", c.identity, c.settings)
		assert.Equal(t, c.ok, ok, "%s %v", c.identity, c.settings)
	}
}

func FuzzParseChatSettings(f *testing.F) {
	f.Add(`<notify xmlns="urn:xmpp:notification-settings:1"><never identity-category="client" identity-type="phone"/></notify>`)
	f.Add(`<a><b/><notify xmlns="urn:xmpp:notification-settings:1"/></a>`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseChatSettings([]byte(text))
		if err != nil {
			assert.Nil(t, list)
			return
		}
		assert.LessOrEqual(t, len(list), MaxChatSettings)
		info := ChatInfo{Settings: list}
		for _, s := range list {
			if _, ok := info.When(s.Category + "/" + s.Type); !strings.Contains(s.Category, "/") {
				assert.True(t, ok)
			}
		}
	})
}
