package main

import (
	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/wishes"
)

// What an account knows of a chat, for the push engine: who is a contact (RFC 6121), and what the user's bookmarks say (XEP-0402): the nickname in a room,
// and when it may notify (XEP-0492). It is given with each event: whoever raises one has the account's lock already, so nobody has to be asked.

const nsBookmarks = "urn:xmpp:bookmarks:1"

// knows adds what the account knows of a stanza's chat.
func (a *account) knows(st push.Stanza) push.Stanza {
	if st.Kind != push.KindMessage && st.Content != push.ContentSubscription {
		return st
	}
	chat := st.Chat(a.jid)
	c := a.roster[chat]
	info := &push.ChatInfo{Contact: push.FactOf(c != nil && c.To)}
	if room := a.published(nsBookmarks, chat); room != nil {
		info.Nick = room.Child(nsBookmarks, "nick").Text()
		info.Settings = a.settings(room)
	}
	st.Info = info
	return st
}

// settings reads when a bookmarked chat may notify. What cannot be understood sets nothing.
func (a *account) settings(bookmark *element.Element) []wishes.ChatSetting {
	if bookmark.Child(nsBookmarks, "extensions").Child(wishes.NSChatSettings, "notify") == nil {
		return nil
	}
	list, err := wishes.ParseChatSettings(bookmark.AppendAlone(nil))
	if err != nil {
		a.srv.log.Debug("unusable chat settings", "account", a.jid, "err", err)
	}
	return list
}

// knowAll is knows for what waits for a session.
func (a *account) knowAll(sts []push.Stanza) []push.Stanza {
	for i := range sts {
		sts[i] = a.knows(sts[i])
	}
	return sts
}
