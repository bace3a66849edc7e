package wishes_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

func TestParseChatSettings(t *testing.T) {
	notify := func(inside string) string {
		return `<notify xmlns="urn:xmpp:notification-settings:1">` + inside + `</notify>`
	}
	long := strings.Repeat("a", 256)
	const phone = `<never identity-category="client" identity-type="phone"/>`
	for _, c := range []struct {
		name, xml string
		want      []wishes.ChatSetting
		err       error
	}{
		{"one", notify(`<never/>`), []wishes.ChatSetting{{Notify: wishes.NotifyNever}}, nil},
		{"all", notify(`<always/><on-mention identity-category="client"/>` + phone),
			[]wishes.ChatSetting{{}, {Notify: wishes.NotifyOnMention, Category: "client"}, {Notify: wishes.NotifyNever, Category: "client", Type: "phone"}}, nil},
		{"none", notify(``), []wishes.ChatSetting{}, nil},
		{"in a bookmark", `<conference xmlns="urn:xmpp:bookmarks:1" name="Verona"><nick>juliet</nick><extensions><x xmlns="some:thing"/>` + notify(`<never/>`) + `</extensions></conference>`, []wishes.ChatSetting{{Notify: wishes.NotifyNever}}, nil},
		{"the first one", `<item>` + notify(`<never/>`) + notify(`<always/>`) + `</item>`, []wishes.ChatSetting{{Notify: wishes.NotifyNever}}, nil},
		{"not there", `<conference xmlns="urn:xmpp:bookmarks:1"/>`, nil, nil},
		{"of another version", strings.Replace(notify(`<never/>`), ":1", ":0", 1), nil, nil},
		{"with what is not known", notify(`<sometimes/><never xmlns="some:thing"/><always><advanced xmlns="some:thing"><never xmlns="urn:xmpp:notification-settings:1"/></advanced></always>`), []wishes.ChatSetting{{}}, nil},
		{"a type alone", notify(`<never identity-type="phone"/>`), nil, wishes.ErrChatSettings},
		{"too many", notify(strings.Repeat(`<never/>`, 33)), nil, wishes.ErrChatSettings},
		{"long", notify(`<never identity-category="` + strings.Repeat("a", 257) + `"/>`), nil, wishes.ErrChatSettings},
		{"as many as may be", notify(strings.Repeat(`<always/>`, 32)), make([]wishes.ChatSetting, 32), nil},
		{"an identity as long as it may be", notify(`<never identity-category="` + long + `" identity-type="` + long + `"/>`), []wishes.ChatSetting{{Notify: wishes.NotifyNever, Category: long, Type: long}}, nil},
		{"a type that is too long", notify(`<never identity-category="client" identity-type="a` + long + `"/>`), nil, wishes.ErrChatSettings},
		{"a type alone in a bookmark", `<conference>` + notify(`<never identity-type="phone"/>`) + `</conference>`, nil, wishes.ErrChatSettings},
		{"broken", notify(`<never>`), nil, ErrStanza},
		{"broken off", `<conference>` + notify(`<never/>`), nil, ErrStanza},
		{"half a character", `<notify a="&#xD83D;"/>`, nil, ErrStanza},
		{"nothing", ``, nil, ErrStanza},
		{"two", notify(``) + notify(``), nil, ErrStanza},
		{"deep", strings.Repeat(`<a>`, 100), nil, ErrStanza},
		{"comment", `<a><!-- --></a>`, nil, ErrStanza},
	} {
		got, err := wishes.ParseChatSettings([]byte(c.xml))
		if c.err != nil {
			assert.ErrorIs(t, err, c.err, c.name)
			assert.Nil(t, got, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		assert.Equal(t, c.want, got, c.name)
	}
}

func FuzzParseChatSettings(f *testing.F) {
	f.Add(`<notify xmlns="urn:xmpp:notification-settings:1"><never identity-category="client" identity-type="phone"/></notify>`)
	f.Add(`<a><b/><notify xmlns="urn:xmpp:notification-settings:1"/></a>`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := wishes.ParseChatSettings([]byte(text))
		if err != nil {
			assert.Nil(t, list)
			return
		}
		assert.LessOrEqual(t, len(list), wishes.MaxChatSettings)
		info := ChatInfo{Settings: list}
		for _, s := range list {
			if _, ok := info.When(s.Category + "/" + s.Type); !strings.Contains(s.Category, "/") {
				assert.True(t, ok)
			}
		}
	})
}
