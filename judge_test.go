package push_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// Hosts that fill in stanzas themselves may leave anything out: whatever a stanza is said to be, and whatever it comes with, is judged.
func TestStanzasWithHolesAreJudged(t *testing.T) {
	details := []*Details{nil, {}, {Call: &Call{}}, {Call: &Call{Action: CallRetract}}, {Target: "m1"}, {Room: "x"}, {Mentions: []Mention{{}}}}
	froms := []string{"", juliet, juliet + "/s1", "romeo@example.net", "room@rooms.example.net", "room@rooms.example.net/juliet", juliet + ".example.org"}
	w := &wishes.Wishes{
		IgnoreUnknown: true, Muted: []string{"a@example.net"}, Groupchat: true, Rooms: []wishes.Room{{Room: "room@rooms.example.net", Allow: wishes.RoomMentioned}},
		Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("0123456789abcdef")},
	}
	policies := []*Policy{{}, {IncludeBody: true, TellRead: true, Grace: time.Second, AskedCallsOnly: true}}
	rs := registered("n1", "n2")
	rs[0].Wishes = w
	events := 0
	for content := ContentNone; content <= ContentError; content++ {
		for _, d := range details {
			for i, from := range slices.Concat(froms, froms) {
				policy := policies[i%len(policies)]
				a := NewAccount(juliet, policy, rs) // nothing is known of any chat
				s := SessionID{Account: juliet, ID: "s1"}
				var dec Decision
				now := newYear
				handle := func(ev Event) {
					events++
					a.Handle(ev, Facts{Now: now, Number: uint64(events), Chats: []ChatAnswer{{Stanza: -1, Chat: "room@rooms.example.net", Failed: true}}}, &dec)
					_ = a.Asks(ev, Facts{Now: now})
				}
				handle(SessionOpen{Session: s, JID: juliet + "/s1"})
				handle(PushEnable{Session: s, Key: rs[1].Key})
				for _, typ := range []MessageType{MessageNormal, MessageGroupchat} {
					for _, id := range []string{"", "m1", "m2"} {
						st := Stanza{ID: id, From: from, Content: content, Class: content.Class(), Kind: KindMessage, Type: typ, Details: d, Body: "x"}
						handle(ArchiveAdded{juliet, st})
						st.To = juliet
						handle(AckDelayed{s, []Stanza{st, st}})
						st.Kind = KindPresence
						handle(StanzaQueued{s, st})
						handle(Displayed{Account: juliet, Chat: "romeo@example.net", UpTo: id})
						for _, k := range a.Due(now, nil, &dec.Effects) {
							n, ok := a.Begin(k, now, &dec.Effects)
							require.True(t, ok)
							_ = n.AppendStanza(nil, "example.com", "i")
							a.End(k, Reply{Missing: true}, now, &dec.Effects)
						}
						now = now.Add(time.Second)
					}
				}
				data, err := a.MarshalBinary()
				require.NoError(t, err)
				_, err = RestoreAccount(juliet, policy, data)
				require.NoError(t, err)
			}
		}
	}
	require.Greater(t, events, 10000)
}

// chatting is a message of a chat that nothing is known of, or in which the user may be mentioned.
func chatting(i int, chat string) Stanza {
	return Stanza{ID: fmt.Sprint("m", i), From: chat, To: juliet, Content: ContentText, Class: ClassImportant, Kind: KindMessage, Type: MessageChat, Body: "hi"}
}

// The answers of a host are kept for 64 chats of an account, and begin anew after that.
func TestAnswersAreBounded(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	asks := func(i int) bool {
		f := Facts{Now: newYear}
		ev := Offline{juliet, chatting(i, fmt.Sprintf("friend%d@example.net", i))}
		qs := a.Asks(ev, f)
		for _, q := range qs {
			f.Chats = append(f.Chats, q.Answer(ChatInfo{Settings: []wishes.ChatSetting{{Notify: wishes.NotifyNever}}}, nil))
		}
		a.Handle(ev, f, &d)
		assert.False(t, d.Notifies())
		return len(qs) > 0
	}
	for i := range 64 {
		assert.True(t, asks(i), i)
	}
	for i := range 64 {
		assert.False(t, asks(i), i)
	}
	assert.True(t, asks(64))
	assert.False(t, asks(64))
	assert.True(t, asks(0), "forgotten")
	assert.False(t, asks(64))
}

// An answer to a question of before a change is for its event, and not kept.
func TestAnswerOfBeforeAChange(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	f := Facts{Now: newYear}
	ev := Offline{juliet, chatting(1, "romeo@example.net")}
	qs := a.Asks(ev, f)
	require.Len(t, qs, 1)
	a.Handle(ChatChanged{juliet, "romeo@example.net"}, f, &d)
	f.Chats = []ChatAnswer{qs[0].Answer(ChatInfo{Settings: []wishes.ChatSetting{{Notify: wishes.NotifyNever}}}, nil)}
	a.Handle(ev, f, &d)
	assert.Equal(t, ReasonChatNever, d.Verdicts[0].Reason)
	assert.Len(t, a.Asks(Offline{juliet, chatting(2, "romeo@example.net")}, Facts{Now: newYear}), 1)
}

// That one message mentions the user says nothing about the next.
func TestMentionIsOfOneMessage(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	info := ChatInfo{Settings: []wishes.ChatSetting{{Notify: wishes.NotifyOnMention}}, Nick: "juliet", Mentioned: FactYes}
	room := func(i int) Stanza {
		st := chatting(i, "garden@rooms.example.net/romeo")
		st.Type = MessageGroupchat
		return st
	}
	a.Handle(Groupchat{juliet, room(1)}, Facts{Now: newYear, Chats: []ChatAnswer{{Stanza: -1, Chat: "garden@rooms.example.net", ChatInfo: info}}}, &d)
	assert.True(t, d.Notifies())
	a.Handle(Groupchat{juliet, room(2)}, Facts{Now: newYear}, &d)
	assert.Equal(t, ReasonNotMentioned, d.Verdicts[0].Reason)
}

// A host that says how much the user wants to know of something, and not what it is, means a message: it is read as one.
func TestWhatHasAClassIsAMessage(t *testing.T) {
	a := NewAccount(juliet, nil, registered("n1"))
	var d Decision
	for id, kind := range map[string]Kind{"m1": KindMessage, "m2": KindPresence, "m3": KindIQ, "m4": KindNonza} {
		a.Handle(Offline{juliet, Stanza{ID: id, Kind: kind, Class: ClassImportant, From: "romeo@example.net/" + id, To: juliet}}, Facts{Now: newYear}, &d)
		require.True(t, d.Notifies())
		a.Handle(Displayed{Account: juliet, Chat: "romeo@example.net", UpTo: id}, Facts{Now: newYear}, &d)
		assert.Equal(t, ReasonNone, d.Reason, kind.String())
	}
}
