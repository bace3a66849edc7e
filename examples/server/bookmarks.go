package main

import (
	"context"
	"slices"
	"sync"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/wishes"
	"mellium.im/xmpp/jid"
)

// What an account knows of a chat, for the push engine: who is a contact (RFC 6121), and what the user's bookmarks say (XEP-0402): the nickname in a room,
// and when it may notify (XEP-0492).
//
// The engine asks for it (Chat), once for a chat until it is told that something changed (chatChanged). It asks in the course of an event, so whoever raised
// that has the account's lock already: what is asked for is in a book with a lock of its own, which is held for nothing else. A server with a database reads
// it there instead. The nodes of a cluster are not asked, so they give what they know with each event (knows).

const nsBookmarks = "urn:xmpp:bookmarks:1"

// chatBook has what an account knows of its chats, by bare JID.
type chatBook struct {
	mu    sync.RWMutex
	chats map[string]push.ChatInfo
}

// Chat implements push.Chats.
func (p *pushHost) Chat(_ context.Context, account, chat string) (push.ChatInfo, error) {
	a := p.srv.owner(account)
	if a == nil {
		return push.ChatInfo{}, nil
	}
	return a.aboutChat(chat), nil
}

func (a *account) aboutChat(chat string) push.ChatInfo {
	a.book.mu.RLock()
	defer a.book.mu.RUnlock()
	info := a.book.chats[chat]
	if info.Contact == push.FactUnknown {
		info.Contact = push.FactNo
	}
	return info
}

// noteChat takes down what the account knows of a chat now.
func (a *account) noteChat(chat string) {
	var info push.ChatInfo
	c, room := a.roster[chat], a.published(nsBookmarks, chat)
	if c != nil {
		info.Contact = push.FactOf(c.To)
	}
	if room != nil {
		info.Nick = room.Child(nsBookmarks, "nick").Text()
		info.Settings = a.settings(room)
	}
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	if c == nil && room == nil {
		delete(a.book.chats, chat)
		return
	}
	if a.book.chats == nil {
		a.book.chats = make(map[string]push.ChatInfo)
	}
	a.book.chats[chat] = info
}

// chatChanged is called, in the account's lock, when a contact or a bookmark is not what it was.
func (a *account) chatChanged(chat string) {
	a.noteChat(chat)
	a.srv.push.tell(push.ChatChanged{Account: a.jid, Chat: chat})
}

// itemsChanged is called, in the account's lock, when items of a node of the account are not what they were.
func (a *account) itemsChanged(node string, ids ...string) {
	if node != nsBookmarks {
		return
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if room, err := jid.Parse(id); err == nil && room.Bare().String() == id {
			a.chatChanged(id)
		}
	}
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

// knows adds what the account knows of a stanza's chat, for those who cannot ask.
func (a *account) knows(st push.Stanza) push.Stanza {
	if a.srv.cluster == nil || st.Kind != push.KindMessage && st.Content != push.ContentSubscription {
		return st
	}
	info := a.aboutChat(st.Chat(a.jid))
	st.Info = &info
	return st
}

// knowAll is knows for what waits for a session.
func (a *account) knowAll(sts []push.Stanza) []push.Stanza {
	for i := range sts {
		sts[i] = a.knows(sts[i])
	}
	return sts
}
