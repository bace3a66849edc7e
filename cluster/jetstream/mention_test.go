package jetstream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/wishes"
)

// Texts do not go into the log, and what depends on them is decided as on one machine: whether the user's nickname is in a text, by whatever name the host or the client
// knows, that nobody can tell, and that the user has written something elsewhere.
func TestTextsThatAreNotInTheLog(t *testing.T) {
	t.Parallel()
	policy := push.Policy{MinInterval: -1}
	svc := newService()
	n := join(t, start(t, embedded.Config{}), "a", svc, func(c *jetstream.Config) { c.Push.Policy, c.Wait, c.Lease = policy, true, time.Second })
	e, err := push.New(push.Config{Host: "example.com", Publisher: newService(), Policy: policy})
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	const room, other, set = "padua@rooms.example.net", "verona@rooms.example.net", "mantua@rooms.example.net"
	tigase := &wishes.Wishes{Groupchat: true, Rooms: []wishes.Room{
		{Room: room, Allow: wishes.RoomMentioned, Nick: "Juliet"}, {Room: other, Allow: wishes.RoomMentioned, Nick: "Jule"},
	}}
	onMention := &push.ChatInfo{Nick: "Giulietta", Settings: []wishes.ChatSetting{{Notify: wishes.NotifyOnMention}}}
	nobodyKnows := &push.ChatInfo{Settings: onMention.Settings}
	for _, ev := range []push.Event{
		push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: "push.example.net", Node: "tigase"}, Wishes: tigase},
		push.PushEnable{Session: push.SessionID{Account: juliet}, Key: phone},
	} {
		_, err := e.Handle(t.Context(), ev)
		require.NoError(t, err)
		handle(t, n, ev)
	}
	what := func(d push.Decision) (list []string) {
		for _, v := range d.Verdicts {
			list = append(list, fmt.Sprint(v.Node, " ", v.Notify, " ", v.Rule, " ", v.Reason))
		}
		return list
	}
	for i, st := range []push.Stanza{
		{From: room + "/romeo", Body: "hi"},
		{From: room + "/romeo", Body: "hi juliet!"},
		{From: room + "/romeo", Body: "> juliet\nwho?"},
		{From: room + "/romeo", Body: "hi", Details: &push.Details{Mentions: []push.Mention{{JID: juliet}}}},
		{From: room + "/romeo", Body: "hi juliet", Details: &push.Details{Mentions: []push.Mention{{JID: juliet, NoPing: true}}}},
		{From: room + "/romeo", Body: "hi juliet", Content: push.ContentEncrypted},
		{From: other + "/romeo", Body: "hi juliet"},
		{From: set + "/romeo", Body: "hi giulietta", Info: onMention},
		{From: set + "/romeo", Body: "hi juliet", Info: onMention},
		{From: set + "/romeo", Body: "hi juliet", Info: nobodyKnows},
		{From: room + "/romeo", Body: "hi giulietta", Info: onMention},
		{From: room + "/romeo", Body: "hi both", Info: &push.ChatInfo{Mentioned: push.FactYes}},
	} {
		st.ID, st.To, st.Type, st.Kind, st.Class = fmt.Sprint("m", i), juliet, push.MessageGroupchat, push.KindMessage, push.ClassImportant
		if st.Content == push.ContentNone {
			st.Content = push.ContentText
		}
		ev := push.Groupchat{Account: juliet, Stanza: st}
		want, err := e.Handle(t.Context(), ev)
		require.NoError(t, err)
		assert.Equal(t, what(want), what(handle(t, n, ev)), "%d: %s: %s", i, st.From, st.Body)
	}

	// What the user writes at a computer says that what came before it is read: it counts no longer.
	unread := func(h push.EventHandler) (list []int) {
		chat := push.Stanza{Type: push.MessageChat, Kind: push.KindMessage}
		in, sent := chat, chat
		in.ID, in.From, in.To, in.Class, in.Content, in.Body = "in", "romeo@example.net/x", juliet, push.ClassImportant, push.ContentText, "art thou there?"
		sent.ID, sent.From, sent.To, sent.Content, sent.Body = "out", juliet+"/computer", "romeo@example.net", push.ContentSent, "ay"
		for _, st := range []push.Stanza{in, sent} {
			_, err := h.Handle(t.Context(), push.ArchiveAdded{Account: juliet, Stanza: st})
			require.NoError(t, err)
			st, err := h.(interface {
				Inspect(ctx context.Context, account string) (push.AccountStatus, error)
			}).Inspect(t.Context(), juliet)
			require.NoError(t, err)
			list = append(list, st.Registrations[0].Unread)
		}
		return list
	}
	want := unread(e)
	require.Equal(t, want[0]-1, want[1])
	assert.Equal(t, want, unread(n))
}
