package push_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// directory is a host that knows contacts and chats, and counts how often it is asked.
type directory struct {
	mu              sync.Mutex
	chat            func(chat string) (ChatInfo, error)
	contact         func(jid string) (bool, error)
	chats, contacts int
}

func (d *directory) Chat(_ context.Context, _, chat string) (ChatInfo, error) {
	d.mu.Lock()
	d.chats++
	f := d.chat
	d.mu.Unlock()
	return f(chat)
}

func (d *directory) Contact(_ context.Context, _, jid string) (bool, error) {
	d.mu.Lock()
	d.contacts++
	f := d.contact
	d.mu.Unlock()
	return f(jid)
}

func room(id, body string) Stanza {
	return Stanza{ID: id, From: "verona@rooms.example.net/romeo", To: juliet, Type: MessageGroupchat, Content: ContentText, Class: ClassImportant, Body: body}
}

// The host is asked about chats in the course of Handle, only where the answer matters, and once for a while.
func TestChats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		host := &directory{
			chat: func(chat string) (ChatInfo, error) {
				return ChatInfo{Nick: "juliet", Public: FactOf(chat == "verona@rooms.example.net")}, nil
			},
			contact: func(jid string) (bool, error) { return jid == "romeo@example.net", nil },
		}
		e := newEngine(t, Config{Publisher: &svc, Chats: host, Contacts: host})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone, Wishes: &wishes.Wishes{IgnoreUnknown: true}})
		d := handle(t, e, ArchiveAdded{juliet, message("m0")})
		assert.Equal(t, ReasonLive, d.Verdicts[0].Reason)
		assert.Zero(t, host.chats+host.contacts, "who is not notified anyway is not asked about")
		assert.True(t, d.Answers.None())
		handle(t, e, SessionClose{phoneSession})

		d = handle(t, e, Groupchat{juliet, room("r1", "hi")})
		assert.Equal(t, ReasonNotMentioned, d.Verdicts[0].Reason)
		assert.Equal(t, RuleSettings, d.Verdicts[0].Rule)
		d = handle(t, e, Groupchat{juliet, room("r2", "hi juliet")})
		assert.True(t, d.Notifies())
		assert.Equal(t, 1, host.chats, "the answer is kept")
		assert.Zero(t, host.contacts, "a room is no contact")
		require.Len(t, d.Answers.Chats, 1, "but it is in the decision")
		assert.Equal(t, "verona@rooms.example.net", d.Answers.Chats[0].Chat)
		assert.Equal(t, FactYes, d.Answers.Chats[0].Mentioned)

		stranger := message("m1")
		stranger.From = "tybalt@example.net/x"
		d = handle(t, e, ArchiveAdded{juliet, stranger})
		assert.Equal(t, ReasonNotContact, d.Verdicts[0].Reason)
		assert.Equal(t, 1, host.contacts)
		d = handle(t, e, ArchiveAdded{juliet, message("m2")})
		assert.True(t, d.Notifies())

		// A host that says it with the event is not asked.
		known := room("r3", "hi")
		known.Info = &ChatInfo{Settings: []wishes.ChatSetting{{Notify: wishes.NotifyAlways}}}
		handle(t, e, ChatChanged{Account: juliet})
		d = handle(t, e, Groupchat{juliet, known})
		assert.True(t, d.Notifies())
		asked := host.chats
		d = handle(t, e, Groupchat{juliet, room("r4", "hi")})
		assert.False(t, d.Notifies())
		assert.Equal(t, asked+1, host.chats, "it was changed")
		require.NoError(t, e.Close(t.Context()))
	})
}

// What a host cannot answer, or does not answer in time, filters nothing, and the verdict says so.
func TestChatsThatFail(t *testing.T) {
	for _, c := range []struct {
		name string
		chat func(string) (ChatInfo, error)
	}{
		{"error", func(string) (ChatInfo, error) { return ChatInfo{}, errors.New("no database") }},
		{"panic", func(string) (ChatInfo, error) { panic("no database") }},
		{"hang", func(string) (ChatInfo, error) { time.Sleep(time.Hour); return ChatInfo{}, nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				host := &directory{chat: c.chat, contact: func(jid string) (bool, error) { _, err := c.chat(jid); return false, err }}
				e := newEngine(t, Config{Publisher: &svc, Chats: host, Contacts: host})
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone, Wishes: &wishes.Wishes{IgnoreUnknown: true}})
				d := handle(t, e, Groupchat{juliet, room("r1", "hi")})
				assert.True(t, d.Notifies())
				assert.Equal(t, "chat settings not known", d.Verdicts[0].Detail)
				d = handle(t, e, ArchiveAdded{juliet, message("m1")})
				assert.True(t, d.Notifies())
				assert.Equal(t, "not known whether the sender is a contact", d.Verdicts[0].Detail)
				require.NoError(t, e.Close(t.Context()))
				time.Sleep(2 * time.Hour)
			})
		})
	}
}

// An answer that was asked for before the host said that it has changed is used once, and not kept.
func TestChatChangedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		host := &directory{chat: func(string) (ChatInfo, error) {
			time.Sleep(time.Second)
			return ChatInfo{}, nil
		}}
		e := newEngine(t, Config{Publisher: &svc, Chats: host})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		done := make(chan struct{})
		go func() {
			defer close(done)
			handle(t, e, Groupchat{juliet, room("r1", "hi")})
		}()
		synctest.Wait()
		host.mu.Lock()
		host.chat = func(string) (ChatInfo, error) {
			return ChatInfo{Settings: []wishes.ChatSetting{{Notify: wishes.NotifyNever}}}, nil
		}
		host.mu.Unlock()
		handle(t, e, ChatChanged{juliet, "verona@rooms.example.net"})
		<-done
		d := handle(t, e, Groupchat{juliet, room("r2", "hi")})
		assert.Equal(t, ReasonChatNever, d.Verdicts[0].Reason)
		require.NoError(t, e.Close(t.Context()))
	})
}
