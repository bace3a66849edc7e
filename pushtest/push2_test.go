package pushtest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push"
)

// messenger is a push.Publisher for Push 2.0 as a host might write it, right but for its mistake.
type messenger struct {
	service func([]byte) [][]byte
	mistake string
}

func (p messenger) Publish(ctx context.Context, n *push.Notification) error {
	parts := n.Split()
	if p.mistake == "one message for all" {
		parts = []push.Notification{*n}
	}
	var first error
	for i := range parts {
		id := rand.Text()
		if p.mistake == "IDs are short" {
			id = rand.Text()[:4]
		}
		for _, r := range p.service(parts[i].AppendStanza(nil, Host, id)) {
			e, err := parse(r)
			typ := e.attr("type")
			switch {
			case err != nil, typ == "" && p.mistake != "any message is an error":
			case e.XMLName.Local != "message" && p.mistake != "an IQ will do":
			case e.attr("from") != Service && p.mistake != "any sender will do", e.attr("id") != id && p.mistake != "any ID will do":
			case p.mistake == "errors are not looked at", first != nil:
			case p.mistake == "only the first is looked at" && i > 0:
			default:
				first = &push.ReplyError{Type: e.find("error").attr("type"), Condition: condition(&e)}
			}
		}
	}
	if p.mistake == "a result is waited for" && first == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return first
}

func condition(e *element) string {
	if c := e.find("error").Children; len(c) > 0 {
		return c[0].XMLName.Local
	}
	return ""
}

// TestPush2PublisherFails has a publisher for every mistake, and one without.
func TestPush2PublisherFails(t *testing.T) {
	for mistake, want := range map[string]string{
		"":                            "",
		"one message for all":         "1 messages with 1 different IDs were sent, want 3",
		"IDs are short":               "a notification: sent {}message",
		"any message is an error":     "a message that is no error: ",
		"an IQ will do":               "an error that is an IQ was believed",
		"any sender will do":          "an error from elsewhere was believed",
		"any ID will do":              "an error to another was believed",
		"errors are not looked at":    "forbidden: Publish returned <nil>",
		"only the first is looked at": "an error to the last of three: Publish returned <nil>",
		"a result is waited for":      "a notification: Publish has not returned",
	} {
		t.Run(mistake, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := failing(t, func(t testing.TB) {
					Push2Publisher(t, func(_ testing.TB, service func([]byte) [][]byte) push.Publisher { return messenger{service, mistake} })
				})
				if want == "" && got != "" || !strings.Contains(got, want) {
					t.Errorf("the suite says:\n%.3000s\nand should say %q", got, want)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}
