package push_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/xmpp-push/push"
)

// A server that routes stanzas publishes through a Router: Send puts the IQ on its way, and whoever reads the reply from whatever stream it
// comes in by hands it to HandleReply. A publish counts as accepted only if the reply has its ID and comes from its service.
func ExampleRouter() {
	ctx := context.Background()
	replies := make(chan []byte, 1) // what the stream to the push service brings in
	router := &push.Router{
		Host: "example.com",
		Send: func(_ context.Context, to string, iq []byte) error {
			_, rest, _ := strings.Cut(string(iq), ` id="`)
			id, _, _ := strings.Cut(rest, `"`)
			fmt.Println("publish to", to)
			replies <- []byte(`<iq type="error" from="` + to + `" to="example.com" id="` + id + `"><error type="cancel">` +
				`<item-not-found xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`)
			return nil
		},
	}
	read := make(chan struct{})
	go func() { // the goroutine that reads the stream
		defer close(read)
		for reply := range replies {
			ours, err := router.HandleReply(reply)
			fmt.Println("a reply to a publish:", ours, err)
		}
	}()
	err := router.Publish(ctx, &push.Notification{Key: push.Key{Service: "push.example.net", Node: "n1"}})
	fmt.Println(push.ReplyOf(err).Classify())
	close(replies)
	<-read
	// Unordered output:
	// publish to push.example.net
	// a reply to a publish: true <nil>
	// fatal
}

// A client's request is read from its bytes, put to the Engine, and answered. The session is the one that the connection belongs to,
// whatever the stanza says of itself.
func ExampleParseRequest() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	defer engine.Close(ctx)
	phone := push.SessionID{Account: "juliet@example.com", ID: "c2s-17"}
	engine.Handle(ctx, push.SessionOpen{Session: phone})

	for _, iq := range []string{
		`<iq type="set" id="e1"><enable xmlns="urn:xmpp:push:0" jid="push.example.net" node="n1"/></iq>`,
		`<iq type="set" id="e2"><enable xmlns="urn:xmpp:push:0"/></iq>`,
		`<iq type="set" id="e3"><query xmlns="jabber:iq:roster"/></iq>`,
	} {
		request, err := push.ParseRequest(phone, []byte(iq))
		if err != nil {
			fmt.Println(err) // somebody else's stanza, or none
			continue
		}
		answer := request.Answer(ctx, engine)
		fmt.Println(string(answer.AppendXML(nil)))
	}
	// Output:
	// <iq type="result" id="e1"/>
	// <iq type="error" id="e2"><error type="modify"><bad-request xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas" xml:lang="en">jid is missing</text></error></iq>
	// push: not a stanza of XEP-0357
}

// A push service takes a node back with a message to the account. The host must know that the message came from where it says.
func ExampleParseAffiliation() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	defer engine.Close(ctx)
	engine.Handle(ctx, push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: push.Key{Service: "push.example.net", Node: "n1"}})

	notice, err := push.ParseAffiliation([]byte(`<message from="push.example.net" to="juliet@example.com">
		<pubsub xmlns="http://jabber.org/protocol/pubsub" node="n1"><affiliation jid="juliet@example.com" affiliation="none"/></pubsub></message>`))
	if err != nil {
		fmt.Println(err)
		return
	}
	d, _ := engine.Handle(ctx, notice)
	fmt.Println(d.Changes[0].Node, d.Changes[0].Kind, "-", d.Changes[0].Reason.Sentence())
	// Output: n1 removed - revoked by the push service
}

// archive is a host's archive as far as it can say what is unread.
type archive map[string]int

func (a archive) Unread(_ context.Context, account string) (int, error) { return a[account], nil }

// The badge shows what the host counts, where it can count.
func ExampleUnreadCounter() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{
		Host:   "example.com",
		Unread: archive{"juliet@example.com": 7},
		Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
			fmt.Println(n.Unread, "unread")
			return nil
		}),
	})
	engine.Handle(ctx, push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: push.Key{Service: "push.example.net"}})
	engine.Handle(ctx, push.Offline{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}})
	engine.Close(ctx)
	// Output: 7 unread
}

// nodes is a cluster's table of sessions: the registrations that have one on another node.
type nodes map[string][]push.Key

func (n nodes) Elsewhere(_ context.Context, account string) ([]push.Key, error) {
	return n[account], nil
}

// A device that is online on another node of the host needs no notification.
func ExampleLiveness() {
	ctx := context.Background()
	phone := push.Key{Service: "push.example.net", Node: "n1"}
	engine, _ := push.New(push.Config{
		Host:      "example.com",
		Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }),
		Liveness:  nodes{"juliet@example.com": {phone}},
	})
	defer engine.Close(ctx)
	engine.Handle(ctx, push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: phone})
	d, _ := engine.Handle(ctx, push.ArchiveAdded{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m1", To: "juliet@example.com", Class: push.ClassImportant}})
	fmt.Println(d.Verdicts[0].Notify, d.Verdicts[0].Reason.Sentence())
	// Output: false session active
}
