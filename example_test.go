package push_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"mellium.im/xmlstream"

	"github.com/xmpp-push/push"
)

// The smallest embedding: a server says what happens, and is asked to send what follows.
func Example() {
	ctx := context.Background()
	engine, err := push.New(push.Config{
		Host: "example.com",
		Publisher: push.PublisherFunc(func(ctx context.Context, n *push.Notification) error {
			fmt.Println("to", n.Service, "node", n.Node, n.Class, n.Body) // send n.AppendStanza(nil, "example.com", id), wait for the reply
			return nil
		}),
	})
	if err != nil {
		panic(err)
	}
	phone := push.SessionID{Account: "juliet@example.com", ID: "c2s-17"}
	engine.Handle(ctx, push.SessionOpen{Session: phone, JID: "juliet@example.com/phone"})
	engine.Handle(ctx, push.PushEnable{Session: phone, Key: push.Key{Service: "push.example.net", Node: "n1"}})
	engine.Handle(ctx, push.SessionClose{Session: phone})

	st, _ := push.ParseStanza("id-1", []byte(`<message from="romeo@example.net/orchard" to="juliet@example.com"><body>Hi</body></message>`))
	decision, _ := engine.Handle(ctx, push.Offline{Account: "juliet@example.com", Stanza: st})
	engine.Close(ctx) // sends what waits
	for _, v := range decision.Verdicts {
		fmt.Println(v.Node, v.Notify, v.Reason.Sentence())
	}
	// Output:
	// to push.example.net node n1 important New Message!
	// n1 true message stored offline
}

// Every registration of the account gets an answer and a reason, for no as much as for yes.
func ExampleEngine_Handle() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	defer engine.Close(ctx)
	for _, device := range []string{"phone", "tablet"} {
		s := push.SessionID{Account: "juliet@example.com", ID: device}
		engine.Handle(ctx, push.SessionOpen{Session: s})
		engine.Handle(ctx, push.PushEnable{Session: s, Key: push.Key{Service: "push.example.net", Node: device}})
	}
	engine.Handle(ctx, push.SessionClose{Session: push.SessionID{Account: "juliet@example.com", ID: "tablet"}})

	st := push.Stanza{ID: "m1", From: "romeo@example.net", To: "juliet@example.com", Class: push.ClassImportant}
	for _, ev := range []push.Event{push.ArchiveAdded{Account: "juliet@example.com", Stanza: st}, push.Offline{Account: "juliet@example.com", Stanza: st}} {
		d, err := engine.Handle(ctx, ev)
		if err != nil {
			panic(err)
		}
		for _, v := range d.Verdicts {
			fmt.Printf("%s %s: notify %v, rule %v, %v\n", ev.Name(), v.Node, v.Notify, v.Rule, v.Reason.Sentence())
		}
	}
	// Output:
	// archive-added phone: notify false, rule archived, session active
	// archive-added tablet: notify true, rule archived, message archived and device has no session
	// offline phone: notify true, rule offline, message stored offline
	// offline tablet: notify false, rule once, already notified
}

// A stanza is made once, at the edge, from its bytes.
func ExampleParseStanza() {
	st, err := push.ParseStanza("archive-id-7", []byte(`<message from="romeo@example.net/orchard" to="juliet@example.com" type="chat">
		<propose xmlns="urn:xmpp:jingle-message:0" id="call-1"/></message>`))
	fmt.Println(st.Kind, st.Class, st.From, err)
	_, err = push.ParseStanza("x", []byte(`<message><body>cut off`))
	fmt.Println(err)
	// Output:
	// message urgent romeo@example.net/orchard <nil>
	// push: unusable stanza: at byte 15: it ends too early
}

// A handler has the stanza's start element and a reader of the rest. What is read is copied on its way, so that the host can route it after.
func ExampleReadStanza() {
	rest := xml.NewDecoder(strings.NewReader(`<message from="romeo@example.net/orchard" to="juliet@example.com"><body>Hi</body></message>`))
	first, _ := rest.Token()
	start := first.(xml.StartElement) // mellium's mux has read it

	var copied strings.Builder
	out := xml.NewEncoder(&copied)
	whole := xmlstream.MultiReader(xmlstream.Token(start), rest)
	st, err := push.ReadStanza("archive-id-7", xmlstream.TeeReader(whole, out))
	_ = out.Flush()
	fmt.Println(st.Kind, st.Class, st.To, err)
	fmt.Println(copied.String())

	_, err = push.ReadStanza("archive-id-8", xml.NewDecoder(strings.NewReader(`<body>Hi</body></message>`)))
	fmt.Println(err)
	// Output:
	// message important juliet@example.com <nil>
	// <message from="romeo@example.net/orchard" to="juliet@example.com"><body>Hi</body></message>
	// push: unusable stanza: it is a part of one, whose start element has been read already: put that before it again
}

// A host that has parsed a stanza already says what its class depends on.
func ExampleClassify() {
	st := push.Stanza{ID: "archive-id-8", From: "romeo@example.net/orchard", To: "juliet@example.com", Kind: push.KindMessage}
	st.Class = push.Classify(push.Features{Type: "chat", Encrypted: true})
	fmt.Println(st.Class)
	// Output: important
}

// timeouts is a host's stream management as far as advice concerns it.
type timeouts struct{}

func (timeouts) ResumeTimeout(s push.SessionID, timeout time.Duration, why push.Reason) {
	if timeout == 0 {
		fmt.Printf("session %s: normal time again: %v\n", s.ID, why.Sentence())
		return
	}
	fmt.Printf("session %s: resumable for %v: %v\n", s.ID, timeout, why.Sentence())
}

// A sleeping phone's session lives on until its user was shown a notification.
func ExampleResumption() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{
		Host:       "example.com",
		Publisher:  push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }),
		Resumption: timeouts{},
	})
	s := push.SessionID{Account: "juliet@example.com", ID: "c2s-17"}
	engine.Handle(ctx, push.SessionOpen{Session: s})
	engine.Handle(ctx, push.PushEnable{Session: s, Key: push.Key{Service: "push.example.net", Node: "n1"}})
	engine.Handle(ctx, push.HibernationStart{Session: s})
	engine.Handle(ctx, push.StanzaQueued{Session: s, Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}})
	engine.Close(ctx)
	// Output:
	// session c2s-17: resumable for 72h0m0s: asleep, can be woken by push
	// session c2s-17: normal time again: important notification sent
}

// muted is a host's list of muted contacts.
type muted map[string]bool

func (m muted) VetoStanza(_ *push.Registration, st push.Stanza) string {
	if m[st.From] {
		return "muted by the user"
	}
	return ""
}

func (muted) VetoPublish(_ context.Context, n *push.Notification) string {
	n.Unread = 0 // this server shows no badge
	return ""
}

// The host has the last word, with a reason of its own.
func ExampleVetoer() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{
		Host:      "example.com",
		Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }),
		Veto:      muted{"paris@example.org": true},
	})
	defer engine.Close(ctx)
	engine.Handle(ctx, push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: push.Key{Service: "push.example.net"}})
	d, _ := engine.Handle(ctx, push.Offline{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m1", From: "paris@example.org", Class: push.ClassImportant}})
	fmt.Println(d.Verdicts[0].Notify, d.Verdicts[0].Reason.Sentence(), "-", d.Verdicts[0].Detail)
	// Output: false vetoed by the host - muted by the user
}

// An Observer sees what a push service answers.
func ExampleObserver() {
	ctx := context.Background()
	engine, _ := push.New(push.Config{
		Host: "example.com",
		Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error {
			return &push.ReplyError{Type: "cancel", Condition: "item-not-found"}
		}),
		Observer: &push.Observer{
			Replied: func(_ time.Time, n *push.Notification, reply push.Reply, res push.Result, _ time.Duration) {
				fmt.Println(n.Service, reply.Condition, res.Outcome)
			},
			Affected: func(account string, _ time.Time, e *push.Effects) {
				for _, c := range e.Changes {
					fmt.Println(account, c.Node, c.Kind, "-", c.Reason.Sentence(), c.Detail)
				}
			},
		},
	})
	engine.Handle(ctx, push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: push.Key{Service: "push.example.net", Node: "n1"}})
	engine.Handle(ctx, push.Ping{Account: "juliet@example.com"})
	engine.Close(ctx)
	// Output:
	// push.example.net item-not-found fatal
	// juliet@example.com n1 disabled - errors of the push service item-not-found
}

// A host with a shell of its own drives the pure core: the time is an argument, and what is to be done comes back as data.
func ExampleAccount() {
	policy := &push.Policy{}
	account := push.NewAccount("juliet@example.com", policy, nil)
	service := push.NewService(policy)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := push.SessionID{Account: "juliet@example.com", ID: "c2s-17"}
	var d push.Decision
	for i, ev := range []push.Event{
		push.SessionOpen{Session: s},
		push.PushEnable{Session: s, Key: push.Key{Service: "push.example.net", Node: "n1"}},
		push.HibernationStart{Session: s},
		push.StanzaQueued{Session: s, Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}},
	} {
		account.Handle(ev, push.Facts{Now: now, Number: uint64(i + 1)}, &d)
	}
	fmt.Println("due in", account.Next().Sub(now))

	now = account.Next()
	for _, k := range account.Due(now, nil, &d.Effects) {
		if ok, _ := service.Admit(now); !ok {
			continue
		}
		n, ok := account.Begin(k, now, &d.Effects)
		if !ok {
			service.Cancel()
			continue
		}
		fmt.Println("publish", n.Class, "to", n.Service, "because of event", n.Events)
		reply := push.Reply{Type: "wait", Condition: "resource-constraint"} // what the service answered
		res := account.End(k, reply, now, &d.Effects)
		service.Done(now, reply.Answered())
		fmt.Println(res.Outcome, res.RetryAt.After(now))
	}
	// Output:
	// due in 0s
	// publish important to push.example.net because of event [4]
	// transient true
}
