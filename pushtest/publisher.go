package pushtest

import (
	"context"
	"encoding/xml"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
)

// The addresses in Publisher: publishes come from Host and go to Service.
const (
	Host    = "example.com"
	Service = "push.example.net"
)

// patience is how long something may take that has to happen, and grace how long something gets that must not.
const (
	patience = 20 * time.Second
	grace    = 30 * time.Millisecond
)

// Publisher tests a push.Publisher against its contract. open is called at the start of each subtest. It returns a Publisher that sends from Host, and whose IQs, to
// Service, are given to service; what that returns has to reach the server as if Service's server had sent it, in the order in which it came.
// service may be called from several goroutines at once. The stanzas have no namespace declared: they are in the stream's. open registers with t.Cleanup
// whatever has to be closed.
//
// A reply from the wrong address may be ignored, or be taken for no answer; a Publisher may do either. Run it with -race.
func Publisher(t testing.TB, open func(t testing.TB, service func(iq []byte) (replies [][]byte)) push.Publisher) {
	for _, c := range []struct {
		name string
		test func(p *publisherTest)
	}{
		{"a result is success", publishAccepted},
		{"an error reply is understood", publishRefused},
		{"the document is that of XEP-0357", publishDocument},
		{"hostile strings stay what they are", publishHostile},
		{"silence ends with the context and is no answer", publishSilence},
		{"a context that is done ends it", publishDone},
		{"a reply from somebody else does not count", publishStranger},
		{"a reply with another ID does not count", publishOtherID},
		{"a late reply is nobody's", publishLate},
		{"IDs cannot be guessed", publishIDs},
		{"many at once each get their own reply", publishMany},
		{"contexts that end at any moment leave nothing behind", publishLeaks},
	} {
		run(t, c.name, func(t testing.TB) {
			p := &publisherTest{TB: t}
			p.Publisher = open(t, p.serve)
			p.answer = func(iq *element) [][]byte { return [][]byte{reply(iq, "")} }
			c.test(p)
		})
	}
}

// run runs a subtest, or just f where there are none.
func run(t testing.TB, name string, f func(t testing.TB)) {
	if tt, ok := t.(*testing.T); ok {
		tt.Run(name, func(t *testing.T) { f(t) })
		return
	}
	f(t)
}

type publisherTest struct {
	testing.TB
	push.Publisher

	mu     sync.Mutex
	got    []element
	answer func(iq *element) [][]byte // called under mu
}

func (p *publisherTest) serve(iq []byte) [][]byte {
	e, err := parse(iq)
	if err != nil {
		p.Errorf("the IQ cannot be parsed: %v\n%q", err, iq)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, e)
	return p.answer(&e)
}

// on sets what the service does from now on.
func (p *publisherTest) on(answer func(iq *element) [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *publisherTest) sent() []element {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]element(nil), p.got...)
}

// notification is an ordinary one.
func notification(node string) *push.Notification {
	return &push.Notification{
		Account: "juliet@" + Host, Key: push.Key{Service: Service, Node: node}, Class: push.ClassImportant, Count: 1, Unread: 1, Body: "New Message!", Try: 1,
		Options: []push.Field{
			{Var: "FORM_TYPE", Type: "hidden", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}},
			{Var: "secret", Values: []string{"s-" + node}},
		},
	}
}

// start publishes in the background. When it is done, whoever still reads n races with this.
func (p *publisherTest) start(ctx context.Context, n *push.Notification) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := p.Publish(ctx, n)
		n.Account, n.Node, n.Body, n.Unread, n.Options = "", "", "", 0, nil
		done <- err
	}()
	return done
}

func (p *publisherTest) end(what string, done <-chan error) error {
	p.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		p.Fatalf("%s: Publish has not returned after %v", what, patience)
		return nil
	}
}

func (p *publisherTest) publish(what string, n *push.Notification) error {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.end(what, p.start(ctx, n))
}

// missing checks that an error means that there was no answer.
func (p *publisherTest) missing(what string, err error) {
	p.Helper()
	if r := push.ReplyOf(err); r != (push.Reply{Missing: true}) {
		p.Errorf("%s: Publish returned %v, which means %+v; it should mean that there was no answer", what, err, r)
	}
}

func publishAccepted(p *publisherTest) {
	if err := p.publish("a result with a payload", notification("n1")); err != nil {
		p.Errorf("a result with a payload: %v", err)
	}
	p.on(func(iq *element) [][]byte {
		return [][]byte{[]byte(`<iq type="result" from="` + Service + `" to="` + Host + `" id="` + iq.attr("id") + `"/>`)}
	})
	if err := p.publish("an empty result", notification("n1")); err != nil {
		p.Errorf("an empty result: %v", err)
	}
	if n := len(p.sent()); n != 2 {
		p.Errorf("%d IQs were sent for two publishes", n)
	}
}

func publishRefused(p *publisherTest) {
	const pubsubErrors = ` xmlns="http://jabber.org/protocol/pubsub#errors"/>`
	const text = `<text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas" xml:lang="en">gone, wait &amp; forbidden</text>`
	echo := `<pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="n1"><item/></publish></pubsub>`
	for _, c := range []struct{ name, typ, condition, payload string }{
		{"an unknown node", "cancel", "item-not-found", failure("cancel", "item-not-found", "")},
		{"a client that is gone", "cancel", "gone", failure("cancel", "gone", text)},
		{"a secret that is wrong", "auth", "forbidden", echo + failure("auth", "forbidden", text)},
		{"a server that rests", "wait", "resource-constraint", failure("wait", "resource-constraint", "")},
		{"a server that cannot", "wait", "internal-server-error", echo + failure("wait", "internal-server-error", text)},
		{"a policy", "cancel", "policy-violation", failure("cancel", "policy-violation", "")},
		{"an unreachable server", "cancel", "remote-server-not-found", failure("cancel", "remote-server-not-found", "")},
		{"a text before the condition", "modify", "bad-request", `<error type="modify">` + text + `<bad-request xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>`},
		{"a condition of its own", "cancel", "conflict", failure("cancel", "conflict", `<precondition-not-met`+pubsubErrors)},
		{"another service's condition", "cancel", "service-unavailable", failure("cancel", "service-unavailable", `<gone xmlns="urn:example:other"/>`)},
	} {
		p.on(func(iq *element) [][]byte { return [][]byte{reply(iq, c.payload)} })
		err := p.publish(c.name, notification("n1"))
		if got, want := push.ReplyOf(err), (push.Reply{Type: c.typ, Condition: c.condition}); got != want {
			p.Errorf("%s: Publish returned %v, which means %+v, want %+v", c.name, err, got, want)
		}
	}
	p.on(func(iq *element) [][]byte {
		return [][]byte{reply(iq, failure("modify", "not-acceptable", `<payload-too-big`+pubsubErrors))}
	})
	err := p.publish("payload too big", notification("n1"))
	if r := push.ReplyOf(err); r.Type != "modify" || r.Classify() != push.OutcomeTooBig {
		p.Errorf("payload too big: Publish returned %v, which means %+v and %v", err, r, r.Classify())
	}
}

// document is what a notification's publish has to say.
func document(n *push.Notification, id string) string {
	const pubsub, form = "http://jabber.org/protocol/pubsub", "jabber:x:data"
	el := func(space, local string, attrs []string, children ...element) element {
		e := element{XMLName: xml.Name{Space: space, Local: local}, Children: children}
		for i := 0; i < len(attrs); i += 2 {
			if attrs[i+1] != "" {
				e.Attrs = append(e.Attrs, xml.Attr{Name: xml.Name{Local: attrs[i]}, Value: attrs[i+1]})
			}
		}
		return e
	}
	field := func(name, typ string, values ...string) element {
		f := el(form, "field", []string{"var", name, "type", typ})
		for _, v := range values {
			e := el(form, "value", nil)
			e.Text = v
			f.Children = append(f.Children, e)
		}
		return f
	}
	summary := el(form, "x", []string{"type", "submit"}, field("FORM_TYPE", "hidden", "urn:xmpp:push:summary"))
	for _, f := range []push.Field{{Var: "message-count", Values: []string{fmt.Sprint(n.Unread)}}, {Var: "last-message-sender", Values: []string{n.Sender}}, {Var: "last-message-body", Values: []string{n.Body}}} {
		if v := f.Values[0]; v != "" && v != "0" {
			summary.Children = append(summary.Children, field(f.Var, "", v))
		}
	}
	ps := el(pubsub, "pubsub", nil, el(pubsub, "publish", []string{"node", n.Node}, el(pubsub, "item", nil, el(push.NS, "notification", nil, summary))))
	if n.Options != nil {
		options := el(form, "x", []string{"type", "submit"})
		for _, f := range n.Options {
			options.Children = append(options.Children, field(f.Var, f.Type, f.Values...))
		}
		ps.Children = append(ps.Children, el(pubsub, "publish-options", nil, options))
	}
	return el("", "iq", []string{"type", "set", "from", Host, "to", n.Service, "id", id}, ps).String()
}

func (p *publisherTest) wantDocument(what string, n *push.Notification) {
	p.Helper()
	want := *n
	before := len(p.sent())
	if err := p.publish(what, n); err != nil {
		p.Errorf("%s: %v", what, err)
	}
	got := p.sent()[before:]
	if len(got) != 1 {
		p.Fatalf("%s: %d IQs were sent", what, len(got))
	}
	if g, w := got[0].String(), document(&want, got[0].attr("id")); g != w {
		p.Errorf("%s: sent\n%s\nwant\n%s", what, g, w)
	}
}

func publishDocument(p *publisherTest) {
	p.wantDocument("usual", notification("n1"))
	p.wantDocument("a wake-up", &push.Notification{Key: push.Key{Service: Service}})
	n := notification("n1")
	n.Unread, n.Sender, n.Body = 4711, "romeo@example.net/orchard", "Wherefore art thou?"
	p.wantDocument("with sender and body", n)
	for what, options := range map[string][]push.Field{
		"an empty form":            {},
		"a field without values":   {{Var: "a"}},
		"an empty value":           {{Var: "a", Values: []string{""}}},
		"several values":           {{Var: "a", Type: "list-multi", Values: []string{"2", "", "1", "2"}}},
		"a field without a name":   {{Type: "fixed", Values: []string{"text"}}},
		"the same name twice":      {{Var: "b", Values: []string{"1"}}, {Var: "a"}, {Var: "b", Values: []string{"2"}}},
		"no FORM_TYPE":             {{Var: "secret", Values: []string{"s"}}},
		"types that are not known": {{Var: "a", Type: "no-such-type", Values: []string{"1"}}},
	} {
		n := notification("n1")
		n.Options = options
		p.wantDocument("options: "+what, n)
	}
}

func publishHostile(p *publisherTest) {
	for _, s := range []string{`"'<>&`, `]]><!--`, "a\tb\nc\rd\r\n", " ", "&#0;&amp;", "\u2028\u0085\u00a0\ufeff\ufffd", "\U0001f4f1 e\u0301", `</value></field>`, "%s%n$1?", strings.Repeat("x<", 500)} {
		n := notification(s)
		n.Sender, n.Body = s, s
		n.Options = []push.Field{{Var: s, Type: s, Values: []string{s, "", s}}}
		p.wantDocument(fmt.Sprintf("%.40q", s), n)
	}
	// What XML cannot carry must at least not break the stream.
	n := notification("a\x00\x1f\ufffe\xff")
	n.Body = "\x00\x0b\uffff\xc3"
	if err := p.publish("what is not XML", n); err != nil {
		p.missing("what is not XML", err)
	}
	p.wantDocument("after what is not XML", notification("n1"))
}

func publishSilence(p *publisherTest) {
	got := make(chan bool, 1)
	p.on(func(*element) [][]byte { got <- true; return nil })
	ctx, cancel := context.WithCancel(context.Background())
	done := p.start(ctx, notification("n1"))
	select {
	case <-got:
	case err := <-done:
		p.Fatalf("Publish returned %v without waiting for the reply", err)
	case <-time.After(patience):
		p.Fatal("nothing was sent")
	}
	select {
	case err := <-done:
		p.Errorf("Publish returned %v without waiting for the reply", err)
	case <-time.After(grace):
		cancel()
		p.missing("silence", p.end("silence", done))
	}
	cancel()

	p.on(func(*element) [][]byte { return nil })
	ctx, cancel = context.WithTimeout(context.Background(), grace)
	defer cancel()
	p.missing("a deadline", p.end("a deadline", p.start(ctx, notification("n1"))))
}

func publishDone(p *publisherTest) {
	p.on(func(*element) [][]byte { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.missing("a context that is done", p.end("a context that is done", p.start(ctx, notification("n1"))))
	p.on(func(iq *element) [][]byte { return [][]byte{reply(iq, "")} })
	if err := p.publish("after it", notification("n1")); err != nil {
		p.Errorf("the next publish: %v", err)
	}
}

func publishStranger(p *publisherTest) {
	for _, from := range []string{"evil.example", Service + "/x", "push@" + Service, Host, "push.example.org"} {
		for _, payload := range []string{"", failure("cancel", "item-not-found", "")} {
			what := fmt.Sprintf("a reply of %s", from)
			p.on(func(iq *element) [][]byte { return [][]byte{replyFrom(from, iq.attr("id"), Host, payload)} })
			p.noAnswer(what)

			p.on(func(iq *element) [][]byte {
				return [][]byte{replyFrom(from, iq.attr("id"), Host, payload), reply(iq, failure("wait", "conflict", ""))}
			})
			r := push.ReplyOf(p.publish(what, notification("n1")))
			if r != (push.Reply{Missing: true}) && r != (push.Reply{Type: "wait", Condition: "conflict"}) {
				p.Errorf("%s, before the real one: it means %+v", what, r)
			}
		}
	}
}

// noAnswer publishes once, to a service that gives no answer that counts.
func (p *publisherTest) noAnswer(what string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	p.missing(what, p.end(what, p.start(ctx, notification("n1"))))
}

func publishOtherID(p *publisherTest) {
	p.on(func(iq *element) [][]byte {
		id := iq.attr("id")
		var all [][]byte
		for _, id := range []string{"", "1", strings.ToUpper(id) + "x", id + " ", id[1:], id + id} {
			all = append(all, replyFrom(Service, id, Host, ""), replyFrom(Service, id, Host, failure("cancel", "gone", "")))
		}
		return append(all,
			[]byte(`<iq type="result" from="`+Service+`" to="`+Host+`"/>`),
			[]byte(`<message type="error" from="`+Service+`" to="`+Host+`" id="`+id+`">`+failure("cancel", "gone", "")+`</message>`))
	})
	p.noAnswer("a reply with another ID")
	p.on(func(iq *element) [][]byte {
		return [][]byte{replyFrom(Service, "1", Host, failure("cancel", "gone", "")), reply(iq, "")}
	})
	if err := p.publish("after another", notification("n1")); err != nil {
		p.Errorf("a reply with another ID before the right one: %v", err)
	}
}

func publishLate(p *publisherTest) {
	var late [][]byte
	p.on(func(iq *element) [][]byte {
		late = append(late, reply(iq, failure("cancel", "gone", "")))
		return nil
	})
	p.noAnswer("silence")
	p.on(func(iq *element) [][]byte { return append(late, reply(iq, "")) })
	for range 2 {
		if err := p.publish("a late reply to another", notification("n1")); err != nil {
			p.Errorf("a late reply to another publish: %v", err)
		}
	}
}

func publishIDs(p *publisherTest) {
	const n = 200
	for range n {
		if err := p.publish("one of many", notification("n1")); err != nil {
			p.Fatal(err)
		}
	}
	seen := make(map[string]bool)
	var places []map[byte]bool // which bytes were seen in which place of an ID
	for _, iq := range p.sent() {
		id := iq.attr("id")
		seen[id] = true
		for i := range len(id) {
			if i == len(places) {
				places = append(places, make(map[byte]bool))
			}
			places[i][id[i]] = true
		}
	}
	if len(seen) != n {
		p.Errorf("%d publishes had %d IDs", n, len(seen))
	}
	bits := 0.0
	for _, bytes := range places {
		bits += math.Log2(float64(len(bytes)))
	}
	if bits < 80 {
		p.Errorf("the IDs differ in about %.0f bits, which a stranger could guess: %q and so on; use those of crypto/rand.Text", bits, p.sent()[0].attr("id"))
	}
}

func publishMany(p *publisherTest) {
	const n = 32
	var held [][]byte
	var ids []string
	p.on(func(iq *element) [][]byte { // nobody is answered before all have asked; the last one first
		ids = append(ids, iq.attr("id"))
		held = append([][]byte{reply(iq, failure("wait", "resource-constraint", `<`+iq.find("publish").attr("node")+` xmlns="urn:example:n"/>`))}, held...)
		if len(held)%2 == 0 {
			held[0] = reply(iq, "")
		}
		if len(held) < n {
			return nil
		}
		return held
	})
	results := make([]error, n)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i] = <-p.start(ctx, notification(fmt.Sprint("n", i))) })
	}
	wg.Wait()
	want := make(map[string]push.Reply)
	got := p.sent()
	for i, iq := range got {
		var r push.Reply
		if i%2 == 0 {
			r = push.Reply{Type: "wait", Condition: "resource-constraint"}
		}
		want[iq.find("publish").attr("node")] = r
	}
	if len(got) != n || len(want) != n {
		p.Fatalf("%d publishes at once sent %d IQs to %d nodes", n, len(got), len(want))
	}
	for i, err := range results {
		if r, w := push.ReplyOf(err), want[fmt.Sprint("n", i)]; r != w {
			p.Errorf("publish %d of %d at once: %v, which means %+v, want %+v", i, n, err, r, w)
		}
	}
}

func publishLeaks(p *publisherTest) {
	if err := p.publish("the first", notification("n1")); err != nil {
		p.Fatal(err)
	}
	before := runtime.NumGoroutine()
	const n = 90
	for i := range n {
		p.on(func(iq *element) [][]byte {
			switch i % 3 {
			case 0:
				return nil
			case 1:
				return [][]byte{replyFrom("evil.example", iq.attr("id"), Host, "")}
			}
			return [][]byte{reply(iq, "")}
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*10*time.Microsecond)
		_ = p.end("one of many", p.start(ctx, notification("n1")))
		cancel()
	}
	p.on(func(iq *element) [][]byte { return [][]byte{reply(iq, "")} })
	if err := p.publish("the last", notification("n1")); err != nil {
		p.Errorf("after %d publishes whose contexts ended: %v", n, err)
	}
	for deadline := time.Now().Add(patience / 4); ; time.Sleep(time.Millisecond) {
		after := runtime.NumGoroutine()
		if after <= before+2 {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			p.Fatalf("%d goroutines before %d publishes without an answer, %d after them:\n%s", before, n, after, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
