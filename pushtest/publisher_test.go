package pushtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
)

// publisher is a push.Publisher as a host might write it, right but for its mistake.
type publisher struct {
	service func([]byte) [][]byte
	mistake string

	mu   sync.Mutex
	open map[string]chan error
	n    int
}

func (p *publisher) receive(reply []byte) {
	e, err := parse(reply)
	if err != nil || e.XMLName.Local != "iq" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := e.attr("id")
	c := p.open[id]
	if p.mistake == "any reply of the service will do" {
		for _, c = range p.open {
		}
	}
	if c == nil || e.attr("from") != Service && p.mistake != "any sender will do" {
		return
	}
	delete(p.open, id)
	if e.attr("type") == "result" {
		c <- nil
		return
	}
	er := push.ReplyError{Type: e.find("error").attr("type")}
	for i := range e.Children {
		if e.Children[i].XMLName.Local != "error" {
			continue
		}
		for _, child := range e.Children[i].Children {
			switch child.XMLName.Space {
			case stanza.NSError:
				if child.XMLName.Local != "text" {
					er.Condition = child.XMLName.Local
				}
			case "http://jabber.org/protocol/pubsub#errors":
				if child.XMLName.Local == "payload-too-big" {
					er.Condition = child.XMLName.Local
				}
			}
		}
	}
	switch p.mistake {
	case "errors are just errors":
		c <- errors.New("the service said no")
	case "the type of an error is lost":
		er.Type = "cancel"
		c <- &er
	default:
		c <- fmt.Errorf("wrapped: %w", &er)
	}
}

func (p *publisher) Publish(ctx context.Context, n *push.Notification) error {
	id := rand.Text()
	c := make(chan error, 64)
	p.mu.Lock()
	p.n++
	if p.mistake == "IDs are counted" {
		id = fmt.Sprint("push-", p.n)
	}
	p.open[id] = c
	p.mu.Unlock()
	copied := *n
	switch p.mistake {
	case "options are not sent":
		copied.Options = nil
	case "the node is cut":
		copied.Node = copied.Node[:min(len(copied.Node), 100)]
	}
	iq := copied.AppendStanza(nil, Host, id)
	switch p.mistake {
	case "nothing is escaped":
		iq = []byte(strings.NewReplacer("&lt;", "<", "&amp;", "&").Replace(string(iq)))
	case "the form has no type":
		iq = []byte(strings.Replace(string(iq), ` type="submit"`, "", 1))
	}
	for _, reply := range p.service(iq) {
		p.receive(reply)
	}
	switch p.mistake {
	case "sent is as good as accepted":
		return nil
	case "a goroutine is left":
		go func() { time.Sleep(time.Hour) }()
	case "the context is not looked at":
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case err := <-c:
		return err
	case <-time.After(time.Hour):
		return errors.New("timeout")
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.open, id)
		p.mu.Unlock()
		if p.mistake == "silence is an error reply" {
			return &push.ReplyError{Type: "wait", Condition: "remote-server-timeout"}
		}
		return ctx.Err()
	}
}

// TestPublisherFails has a publisher for every mistake, and one without.
func TestPublisherFails(t *testing.T) {
	for mistake, want := range map[string]string{
		"":                                 "",
		"any reply of the service will do": "another ID",
		"any sender will do":               "a reply of evil.example",
		"errors are just errors":           "an unknown node: Publish returned",
		"the type of an error is lost":     "which means {Missing:false Condition:forbidden Type:cancel",
		"IDs are counted":                  "a stranger could guess",
		"options are not sent":             "want\n",
		"the node is cut":                  "want\n",
		"nothing is escaped":               "cannot be parsed",
		"the form has no type":             "want\n",
		"sent is as good as accepted":      "without waiting for the reply",
		"a goroutine is left":              "goroutines before",
		"the context is not looked at":     "has not returned",
		"silence is an error reply":        "silence: Publish returned",
	} {
		t.Run(mistake, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := func(t testing.TB) {
					Publisher(t, func(t testing.TB, service func([]byte) [][]byte) push.Publisher {
						return &publisher{service: service, mistake: mistake, open: make(map[string]chan error)}
					})
				}
				got := failing(t, all)
				if want == "" && got != "" || !strings.Contains(got, want) {
					t.Errorf("the suite says:\n%.3000s\nand should say %q", got, want)
				}
				time.Sleep(2 * time.Hour) // until what was left is gone
			})
		})
	}
}
