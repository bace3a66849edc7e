package push

import (
	"fmt"
	"testing"
	"time"

	"github.com/xmpp-push/push/wishes"
)

// However much is said in a room that notifies of mentions only, few of it is known, and no more than what somebody was notified of before it.
func TestOverheard(t *testing.T) {
	const account, room = "juliet@example.com", "verona@rooms.example.net"
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &wishes.Wishes{Groupchat: true, Rooms: []wishes.Room{{Room: room, Nick: "juliet", Allow: wishes.RoomMentioned}}}
	a := NewAccount(account, nil, []Registration{{Account: account, Key: Key{"push.example.net", "n1"}, Wishes: w}})
	var d Decision
	say := func(id, body string) {
		st := Stanza{ID: id, From: room + "/romeo", To: account, Type: MessageGroupchat, Class: ClassImportant, Content: ContentText, Body: body}
		a.Handle(Groupchat{account, st}, Facts{Now: now}, &d)
	}
	displayed := func(id string) Reason {
		a.Handle(Displayed{Account: account, Chat: room, UpTo: id}, Facts{Now: now}, &d)
		return d.Reason
	}
	known := func(n int) {
		t.Helper()
		got := 0
		if a.chats != nil {
			got = len(a.chats.heard)
		}
		if got != n {
			t.Fatalf("%d stanzas are known, want %d", got, n)
		}
	}
	say("before", "hello")
	known(0)
	say("mention", "juliet?")
	for i := range 2 * maxOverheard {
		for range 2 { // in a session's queue and by the room
			say(fmt.Sprint("m", i), "hello")
		}
	}
	known(1 + maxOverheard)
	if r := displayed(fmt.Sprint("m", maxOverheard-1)); r != ReasonUnknownStanza {
		t.Errorf("one that is too old: %v", r)
	}
	if got := a.regs[0].unread; got != 1 {
		t.Errorf("%d unread, want 1", got)
	}
	if r := displayed(fmt.Sprint("m", maxOverheard)); r != ReasonNone {
		t.Errorf("the oldest that is known: %v", r)
	}
	if got := a.regs[0].unread; got != 0 {
		t.Errorf("%d unread, want 0", got)
	}
	known(maxOverheard - 1) // those after it
	say("more", "hello")
	known(maxOverheard - 1) // nobody was notified of anything before it
	a.Prune(now)
	known(0)

	say("again", "juliet?")
	say("m", "hello")
	known(2)
	a.Prune(now)
	known(2)
	a.regs[0].pace = pacer{}
	a.Prune(now.Add(time.Hour))
	known(0)
}

// BenchmarkPruneOverheard prunes the most that is known of chats, half of it overheard, each in a chat of its own.
func BenchmarkPruneOverheard(b *testing.B) {
	a := NewAccount("juliet@example.com", nil, []Registration{{Account: "juliet@example.com", Key: Key{Service: "push.example.net"}}})
	now := time.Unix(1_700_000_000, 0)
	a.chats = new(chats)
	for i := range 1024 {
		h := a.hash(fmt.Sprint("m", i))
		a.regs[0].remember(h, now, a.policy)
		a.chats.heard = append(a.chats.heard, heard{hash: h, chat: uint32(i)})
	}
	for i := range 1024 {
		a.chats.heard = append(a.chats.heard, heard{hash: uint64(i) << 8, chat: uint32(1023 - i), sender: overheard})
	}
	for b.Loop() {
		a.pruneChats(now)
	}
	if len(a.chats.heard) != 2048 {
		b.Fatal(len(a.chats.heard))
	}
}
