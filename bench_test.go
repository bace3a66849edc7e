package push_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	. "github.com/xmpp-push/push"
	random "github.com/xmpp-push/push/internal/prosody"
	"github.com/xmpp-push/push/trace"
	"github.com/xmpp-push/push/wishes"
)

// benchAccount returns an account with three registrations, of which the first has a live session.
func benchAccount(b *testing.B) *Account {
	a := NewAccount(juliet, nil, registered("n1", "n2", "n3"))
	var d Decision
	a.Handle(SessionOpen{Session: phoneSession}, Facts{Now: newYear}, &d)
	a.Handle(PushEnable{Session: phoneSession, Key: Key{Service: "push.example.net", Node: "n1"}}, Facts{Now: newYear}, &d)
	if len(d.Changes) != 1 {
		b.Fatal("not enabled")
	}
	return a
}

// BenchmarkWho is one decision: a message was archived. With ids=new each has an ID of its own, and what is decided is sent and answered
// every hundred messages; with ids=new/answers=none no answer ever comes, so that all of it waits. With ids=seen it was notified before.
func BenchmarkWho(b *testing.B) {
	ids := make([]string, 1<<16) // by the time one comes again it is forgotten
	for i := range ids {
		ids[i] = fmt.Sprintf("%016x", rand.Uint64())
	}
	st := Stanza{From: "romeo@example.net/orchard", To: juliet, Class: ClassImportant}

	b.Run("registrations=0", func(b *testing.B) {
		a := NewAccount(juliet, nil, nil)
		var d Decision
		var ev Event = ArchiveAdded{juliet, st}
		b.ReportAllocs()
		for b.Loop() {
			a.Handle(ev, Facts{Now: newYear}, &d)
		}
		if d.Reason != ReasonNoRegistration {
			b.Fatal(d.Reason)
		}
	})
	for _, answers := range []bool{true, false} {
		b.Run(fmt.Sprintf("registrations=3/ids=new/answers=%v", answers), func(b *testing.B) {
			a := benchAccount(b)
			var d Decision
			var e Effects
			var keys []Key
			evs := make([]Event, len(ids))
			for i, id := range ids {
				st.ID = id
				evs[i] = ArchiveAdded{juliet, st}
			}
			i := 0
			notified := 0
			one := func() {
				i++
				a.Handle(evs[i%len(evs)], Facts{Now: newYear, Number: uint64(i)}, &d)
				for j := range d.Verdicts {
					if d.Verdicts[j].Notify {
						notified++
					}
				}
				if answers && i%100 == 0 {
					keys = a.Due(newYear, keys[:0], &e)
					for _, k := range keys {
						a.Begin(k, newYear, &e)
						a.End(k, Reply{}, newYear, &e)
					}
				}
			}
			for range 1 << 12 {
				one()
			}
			i, notified = 0, 0
			b.ReportAllocs()
			for b.Loop() {
				one()
			}
			if notified != 2*i {
				b.Fatalf("%d notified of %d", notified, i)
			}
		})
	}
	b.Run("registrations=3/ids=seen", func(b *testing.B) {
		a := benchAccount(b)
		var d Decision
		st.ID = "m1"
		var ev Event = ArchiveAdded{juliet, st}
		a.Handle(ev, Facts{Now: newYear}, &d)
		b.ReportAllocs()
		for b.Loop() {
			a.Handle(ev, Facts{Now: newYear}, &d)
		}
		if d.Notifies() || d.Verdicts[0].Reason != ReasonLive || d.Verdicts[2].Reason != ReasonSeen {
			b.Fatal(d.Verdicts)
		}
	})
}

// BenchmarkWhoWishes is one decision about a room's message for three registrations. With wishes=filters their clients have muted ten contacts and listed
// twenty rooms, of which this one is for mentions; with chat=true the host has told the user's nickname and settings too.
func BenchmarkWhoWishes(b *testing.B) {
	const room = "verona@rooms.example.net"
	w := &wishes.Wishes{Groupchat: true}
	for i := range 10 {
		w.Muted = append(w.Muted, fmt.Sprintf("contact%d@example.net", i))
	}
	for i := range 19 {
		w.Rooms = append(w.Rooms, wishes.Room{Room: fmt.Sprintf("room%02d@rooms.example.net", i), Allow: wishes.RoomAlways})
	}
	w.Rooms = append(w.Rooms, wishes.Room{Room: room, Allow: wishes.RoomMentioned, Nick: "juliet"})
	st := Stanza{
		ID: "m1", From: room + "/romeo", To: juliet, Type: MessageGroupchat, Content: ContentText, Class: ClassImportant,
		Body: "But soft, what light through yonder window breaks? It is the east, and somebody is the sun.",
	}
	info := &ChatInfo{Nick: "juliet", Public: FactYes, Settings: []wishes.ChatSetting{{Notify: wishes.NotifyOnMention}}}
	for _, c := range []struct {
		name   string
		wishes *wishes.Wishes
		info   *ChatInfo
		want   Reason
	}{
		{"wishes=none/chat=false", nil, nil, ReasonSeen},
		{"wishes=filters/chat=false", w, nil, ReasonNotMentioned},
		{"wishes=none/chat=true", nil, info, ReasonNotMentioned},
		{"wishes=filters/chat=true", w, info, ReasonNotMentioned},
	} {
		b.Run("registrations=3/"+c.name, func(b *testing.B) {
			rs := registered("n1", "n2", "n3")
			for i := range rs {
				rs[i].Wishes = c.wishes
			}
			a := NewAccount(juliet, nil, rs)
			var d Decision
			st := st
			st.Info = c.info
			var ev Event = Groupchat{juliet, st}
			a.Handle(ev, Facts{Now: newYear}, &d)
			b.ReportAllocs()
			for b.Loop() {
				a.Handle(ev, Facts{Now: newYear}, &d)
			}
			if d.Notifies() || d.Verdicts[2].Reason != c.want {
				b.Fatal(d.Verdicts)
			}
		})
	}
}

const message500 = `<message from="romeo@montague.example/orchard" to="juliet@capulet.example" type="chat" id="ef5a5a3c-4b5e-4c1b" xml:lang="en">` +
	`<body>BODY</body><origin-id xmlns="urn:xmpp:sid:0" id="ef5a5a3c-4b5e-4c1b"/><request xmlns="urn:xmpp:receipts"/>` +
	`<markable xmlns="urn:xmpp:chat-markers:0"/><active xmlns="http://jabber.org/protocol/chatstates"/></message>`

// BenchmarkParseStanza is a chat message of 500 bytes.
func BenchmarkParseStanza(b *testing.B) {
	data := []byte(strings.Replace(message500, "BODY", strings.Repeat("But soft, what light ", 30)[:500-len(message500)+len("BODY")], 1))
	if len(data) != 500 {
		b.Fatal(len(data))
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		st, err := ParseStanza("m1", data)
		if err != nil || st.Class != ClassImportant || st.To != "juliet@capulet.example" {
			b.Fatal(st, err)
		}
	}
}

// BenchmarkWhoAndWhen is a random trace of many accounts, parsed before: each event decided, everything sent when it is due and accepted at
// once, and each decision explained as pushreplay does. ns/event is the time of one event; a pass takes 200,000.
func BenchmarkWhoAndWhen(b *testing.B) {
	const events, accounts = 200_000, 2000
	var data bytes.Buffer
	if err := random.Generate(&data, 1, random.Options{Events: events, Accounts: accounts}); err != nil {
		b.Fatal(err)
	}
	var recs []*trace.Record
	for r := trace.NewReader(&data); ; {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		if rec.Event != nil {
			recs = append(recs, rec)
		}
	}
	b.Run(fmt.Sprintf("accounts=%d/events=%d", accounts, events), func(b *testing.B) {
		decisions, publishes := 0, 0
		b.ReportAllocs()
		for b.Loop() {
			r := trace.NewReplay(func(l *trace.Line) {
				switch l.Kind {
				case "decision":
					decisions++
				case "publish":
					publishes++
				}
			})
			for _, rec := range recs {
				if err := r.Step(rec); err != nil {
					b.Fatal(err)
				}
			}
		}
		if decisions < b.N*events/2 || publishes < b.N*events/20 {
			b.Fatal(decisions, publishes)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(recs)), "ns/event")
	})
}
