package pushtest

import (
	"encoding/xml"
	"fmt"
	"testing"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// Push2Publisher tests what Push 2.0 (urn:xmpp:push2:0) asks of a push.Publisher, for hosts that offer it. open is as for Publisher; what service is
// given are messages, and what it returns are messages of type error. A test takes as long as the Publisher waits for an error, and a few do.
func Push2Publisher(t testing.TB, open func(t testing.TB, service func(stanza []byte) (replies [][]byte)) push.Publisher) {
	for _, c := range []struct {
		name string
		test func(p *publisherTest)
	}{
		{"silence is success", push2Accepted},
		{"an error is understood", push2Refused},
		{"each stanza goes as a message of its own", push2Split},
		{"strangers do not count", push2Strangers},
	} {
		run(t, c.name, func(t testing.TB) {
			p := &publisherTest{TB: t}
			p.Publisher = open(t, p.serve)
			p.answer = func(*element) [][]byte { return nil }
			c.test(p)
		})
	}
}

// notification2 is an ordinary one of Push 2.0, which carries stanzas with those bodies.
func notification2(bodies ...string) *push.Notification {
	n := &push.Notification{
		Account: "juliet@" + Host, Key: push.Key{Service: Service, Node: push.Push2Node + "phone"}, Class: push.ClassImportant, Count: 1, Try: 1,
		Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c-phone"), Matches: []wishes.Match{{}}}},
	}
	for _, b := range bodies {
		n.Carried = append(n.Carried, push.Carried{Stanza: push.Stanza{From: "romeo@example.net", Kind: push.KindMessage, Class: push.ClassImportant, Body: b}})
	}
	return n
}

// message is the reply to a message: an error, with nothing but its payload.
func message(from, id, payload string) []byte {
	r := string(replyFrom(from, id, Host, payload))
	return []byte("<message" + r[len("<iq"):len(r)-len("</iq>")] + "</message>")
}

func (p *publisherTest) wantMessages(what string, n *push.Notification, want int) {
	p.Helper()
	before := len(p.sent())
	if err := p.publish(what, n); err != nil {
		p.Errorf("%s: %v", what, err)
	}
	got := p.sent()[before:]
	ids := map[string]bool{}
	for _, m := range got {
		ids[m.attr("id")] = true
		if m.XMLName.Local != "message" || m.attr("from") != Host || m.attr("to") != Service || len(m.attr("id")) < 16 {
			p.Errorf("%s: sent %s", what, m)
		}
		for _, c := range m.Children {
			if c.XMLName != (xml.Name{Space: push.NSPush2, Local: "notification"}) || len(c.Children) < 2 || c.Children[0].Text != "c-phone" {
				p.Errorf("%s: the payload is %s", what, c)
			}
		}
	}
	if len(got) != want || len(ids) != want {
		p.Errorf("%s: %d messages with %d different IDs were sent, want %d", what, len(got), len(ids), want)
	}
}

func push2Accepted(p *publisherTest) {
	p.wantMessages("a notification", notification2(), 1)
	p.on(func(m *element) [][]byte {
		return [][]byte{[]byte(`<message from="` + Service + `" to="` + Host + `" id="` + m.attr("id") + `"><body>thanks</body></message>`)}
	})
	p.wantMessages("a message that is no error", notification2(), 1)
}

func push2Refused(p *publisherTest) {
	for _, c := range []struct{ typ, condition string }{{"wait", "resource-constraint"}, {"cancel", "item-not-found"}, {"auth", "forbidden"}, {"modify", "bad-request"}} {
		p.on(func(m *element) [][]byte {
			return [][]byte{message(Service, m.attr("id"), failure(c.typ, c.condition, ""))}
		})
		err := p.publish(c.condition, notification2())
		if got, want := push.ReplyOf(err), (push.Reply{Type: c.typ, Condition: c.condition}); got != want {
			p.Errorf("%s: Publish returned %v, which means %+v, want %+v", c.condition, err, got, want)
		}
	}
}

func push2Split(p *publisherTest) {
	p.wantMessages("one stanza", notification2("a"), 1)
	p.wantMessages("three stanzas", notification2("a", "b", "c"), 3)
	sent := 0
	p.on(func(m *element) [][]byte {
		if sent++; sent < 3 {
			return nil
		}
		return [][]byte{message(Service, m.attr("id"), failure("cancel", "gone", ""))}
	})
	err := p.publish("an error to the last of three", notification2("a", "b", "c"))
	if got, want := push.ReplyOf(err), (push.Reply{Type: "cancel", Condition: "gone"}); got != want {
		p.Errorf("an error to the last of three: Publish returned %v, which means %+v, want %+v", err, got, want)
	}
}

func push2Strangers(p *publisherTest) {
	gone := failure("cancel", "gone", "")
	for what, reply := range map[string]func(id string) []byte{
		"an error from elsewhere":  func(id string) []byte { return message("evil.example", id, gone) },
		"an error to another":      func(id string) []byte { return message(Service, id+"x", gone) },
		"an error without an ID":   func(string) []byte { return message(Service, "", gone) },
		"an error that is an IQ":   func(id string) []byte { return replyFrom(Service, id, Host, gone) },
		"a result that is an IQ":   func(id string) []byte { return replyFrom(Service, id, Host, "") },
		"an error from a resource": func(id string) []byte { return message(Service+"/x", id, gone) },
	} {
		p.on(func(m *element) [][]byte { return [][]byte{reply(m.attr("id"))} })
		if err := p.publish(what, notification2()); err != nil && push.ReplyOf(err) != (push.Reply{Missing: true}) {
			p.Errorf("%s was believed: %v", what, fmt.Sprint(err))
		}
	}
}
