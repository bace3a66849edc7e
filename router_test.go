package push_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/mellium"
)

var idOf = regexp.MustCompile(`^<iq type="set" from="example.com" to="push.example.net" id="([A-Z2-7]{26})">`)

// errorReplies are what push services answer, and what is understood.
var errorReplies = []struct {
	name, payload string
	want          push.ReplyError
}{
	{"unknown node", `<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, push.ReplyError{Type: "cancel", Condition: "item-not-found"}},
	{"with the publish echoed", `<pubsub xmlns='http://jabber.org/protocol/pubsub'><error type='wait'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></pubsub>` +
		`<error type='auth'><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>no</text><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, push.ReplyError{Type: "auth", Condition: "forbidden"}},
	{"payload too big", `<error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><payload-too-big xmlns='http://jabber.org/protocol/pubsub#errors'/></error>`,
		push.ReplyError{Type: "modify", Condition: "payload-too-big"}},
	{"another special condition", `<error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><precondition-not-met xmlns='http://jabber.org/protocol/pubsub#errors'/></error>`,
		push.ReplyError{Type: "cancel", Condition: "conflict"}},
	{"no error at all", ``, push.ReplyError{Type: "cancel", Condition: "undefined-condition"}},
	{"an empty error", `<error/>`, push.ReplyError{Type: "cancel", Condition: "undefined-condition"}},
	{"a type of its own", `<error type='nasty'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, push.ReplyError{Type: "cancel", Condition: "gone"}},
	{"a condition that is too long", `<error type='wait'><` + strings.Repeat("a", 65) + ` xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, push.ReplyError{Type: "wait", Condition: "undefined-condition"}},
	{"a condition that is no name", `<error type='wait'><A.b xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, push.ReplyError{Type: "wait", Condition: "undefined-condition"}},
	{"two errors", `<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error><error type='wait'/>`, push.ReplyError{Type: "cancel", Condition: "gone"}},
}

// queue is the host's routing: publishes end up in it.
type queue chan string

func (q queue) send(_ context.Context, to string, iq []byte) error {
	if to != "push.example.net" {
		return fmt.Errorf("sent to %s", to)
	}
	q <- string(iq)
	return nil
}

// id takes the next publish and returns its ID.
func (q queue) id(t testing.TB) string {
	m := idOf.FindStringSubmatch(<-q)
	require.NotNil(t, m)
	return m[1]
}

// start publishes in the background.
func start(ctx context.Context, p push.Publisher) <-chan error {
	done := make(chan error, 1)
	go func() { done <- p.Publish(ctx, full()) }()
	return done
}

func result(id string) []byte {
	return []byte(`<iq type='result' from='push.example.net' to='example.com' id='` + id + `'><pubsub xmlns='http://jabber.org/protocol/pubsub'/></iq>`)
}

func TestRouter(t *testing.T) {
	q := make(queue, 1)
	r := &push.Router{Host: "example.com", Send: q.send}

	done := start(t.Context(), r)
	ours, err := r.HandleReply(result(q.id(t)))
	require.NoError(t, err)
	assert.True(t, ours)
	require.NoError(t, <-done)

	for _, tt := range errorReplies {
		for _, ns := range []string{"", "jabber:client", "jabber:server", "jabber:component:accept"} {
			done := start(t.Context(), r)
			iq := `<iq type='error' from='Push.Example.Net' to='example.com' id='` + q.id(t) + `'>` + tt.payload + `</iq>`
			if ns != "" {
				iq = strings.Replace(iq, "<iq", "<iq xmlns='"+ns+"'", 1)
			}
			ours, err := r.ReadReply(xml.NewDecoder(strings.NewReader(iq)))
			require.NoError(t, err)
			assert.True(t, ours)
			assert.Equal(t, &tt.want, <-done, tt.name)
		}
	}

	done = start(t.Context(), r)
	assert.True(t, r.Reply("push.example.net", q.id(t), &push.ReplyError{}))
	assert.Equal(t, &push.ReplyError{Type: "cancel", Condition: "undefined-condition"}, <-done, "an error without a condition is not a success")

	r.Send = func(context.Context, string, []byte) error { return errors.New("queue full") }
	assert.ErrorContains(t, r.Publish(t.Context(), full()), "queue full")
}

// TestRouterStrangers checks that a reply counts only if its ID and its from match, once.
func TestRouterStrangers(t *testing.T) {
	q := make(queue, 1)
	r := &push.Router{Host: "example.com", Send: q.send}
	done := start(t.Context(), r)
	id := q.id(t)
	for _, iq := range []string{
		`<iq type='result' from='evil.example' id='` + id + `'/>`,
		`<iq type='result' from='push.example.net/x' id='` + id + `'/>`,
		`<iq type='result' from='@' id='` + id + `'/>`,
		`<iq type='result' id='` + id + `'/>`,
		`<iq type='result' from='push.example.net' id='` + strings.ToLower(id) + `'/>`,
		`<iq type='result' from='push.example.net'/>`,
		`<iq type='set' from='push.example.net' id='` + id + `'><x xmlns='x'/></iq>`,
		`<iq from='push.example.net' id='` + id + `'/>`,
		`<message type='error' from='push.example.net' id='` + id + `'/>`,
		`<iq xmlns='urn:other' type='result' from='push.example.net' id='` + id + `'/>`,
	} {
		ours, err := r.HandleReply([]byte(iq))
		assert.NoError(t, err)
		assert.False(t, ours, iq)
	}
	for _, iq := range []string{``, `x`, `<iq`, `<!-- --><iq/>`, `<iq type='result' from='push.example.net' id='&#xD800;'/>`, `<iq type='error' from='push.example.net' id='` + id + `'><error>`,
		`<iq type='result' from='evil.example' from='push.example.net' id='` + id + `'/>`} {
		ours, err := r.HandleReply([]byte(iq))
		assert.ErrorIs(t, err, push.ErrStanza, iq)
		assert.False(t, ours, iq)
	}
	assert.True(t, r.Reply("push.example.net", id, nil))
	assert.False(t, r.Reply("push.example.net", id, nil), "only once")
	assert.NoError(t, <-done)
}

func TestRouterTimeoutAndLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := make(queue, 3)
		r := &push.Router{Host: "example.com", Send: q.send, Limit: 2}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		began := time.Now()
		first, second := start(ctx, r), start(t.Context(), r)
		synctest.Wait()
		assert.ErrorIs(t, r.Publish(ctx, full()), push.ErrTooManyOpen)
		err := <-first
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 30*time.Second, time.Since(began))
		var re *push.ReplyError
		assert.False(t, errors.As(err, &re), "no answer is not an error reply")

		third := start(t.Context(), r)
		ids := []string{q.id(t), q.id(t), q.id(t)}
		taken := 0
		for _, id := range ids {
			if r.Reply("push.example.net", id, nil) {
				taken++
			}
		}
		assert.Equal(t, 2, taken, "the late reply is nobody's")
		assert.NoError(t, <-second)
		assert.NoError(t, <-third)
	})
}

// TestRouterSendEnds has a Send that panics, or ends its goroutine: nothing is left that waits for a reply.
func TestRouterSendEnds(t *testing.T) {
	end, ids := func() {}, make(chan string, 10)
	r := &push.Router{Host: "example.com", Limit: 1, Send: func(_ context.Context, _ string, iq []byte) error {
		ids <- idOf.FindStringSubmatch(string(iq))[1]
		end()
		return nil
	}}
	for _, end = range []func(){func() { panic("no route") }, runtime.Goexit} {
		done := make(chan any)
		go func() {
			defer close(done)
			defer func() { _ = recover() }()
			_ = r.Publish(t.Context(), full())
		}()
		<-done
		ours, err := r.HandleReply(result(<-ids))
		require.NoError(t, err)
		assert.False(t, ours, "a reply to what was not sent")
	}
	end = func() {}
	done := start(t.Context(), r)
	ours, err := r.HandleReply(result(<-ids))
	require.NoError(t, err)
	assert.True(t, ours)
	assert.NoError(t, <-done)
}

// TestRouterRace lets replies meet their timeouts: each publish ends with its own reply or none.
func TestRouterRace(t *testing.T) {
	r := &push.Router{Host: "example.com"}
	r.Send = func(ctx context.Context, _ string, iq []byte) error {
		id := idOf.FindStringSubmatch(string(iq))[1]
		node := regexp.MustCompile(`node="(\w+)"`).FindStringSubmatch(string(iq))[1]
		go func() {
			for range int(id[0]) * 10 {
				r.Reply("push.example.net", "none", nil)
			}
			r.Reply("push.example.net", id, &push.ReplyError{Type: "wait", Condition: node})
		}()
		if id[1] < 'C' {
			return errors.New("not sent")
		}
		return nil
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			node := strings.Repeat("n", g+1)
			for range 500 {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Microsecond)
				err := r.Publish(ctx, &push.Notification{Key: push.Key{Service: "push.example.net", Node: node}})
				cancel()
				var re *push.ReplyError
				if errors.As(err, &re) {
					assert.Equal(t, node, re.Condition, "somebody else's reply")
				} else {
					assert.Error(t, err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzHandleReply(f *testing.F) {
	for _, tt := range errorReplies {
		f.Add([]byte(tt.payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var got error
		q := make(queue, 1)
		r := &push.Router{Host: "example.com", Send: q.send}
		ctx, cancel := context.WithCancel(t.Context())
		done := start(ctx, r)
		iq := `<iq type='error' from='push.example.net' id='` + q.id(t) + `'>` + string(payload) + `</iq>`
		ours, err := r.HandleReply([]byte(iq))
		require.NotEqual(t, err == nil, !ours)
		if ours {
			got = <-done
			var re *push.ReplyError
			require.ErrorAs(t, got, &re)
			require.Regexp(t, `^[a-z-]{1,64}$`, re.Condition)
			require.Regexp(t, `^(cancel|modify|auth|wait|continue)$`, re.Type)
		}
		cancel()

		sent := make(chan string, 1)
		r.Send = func(_ context.Context, _ string, stanza []byte) error {
			sent <- idIn.FindStringSubmatch(string(stanza))[1]
			return nil
		}
		ctx, cancel = context.WithCancel(t.Context())
		message := make(chan error, 1)
		go func() { message <- r.Publish(ctx, notification2(nil)) }()
		again, err2 := r.HandleReply([]byte(`<message type='error' from='push.example.net' id='` + <-sent + `'>` + string(payload) + `</message>`))
		require.Equal(t, ours, again, "a message is read as an IQ is")
		require.Equal(t, err == nil, err2 == nil)
		if again {
			require.Equal(t, got, <-message)
		}
		cancel()
	})
}

func BenchmarkRouter(b *testing.B) {
	var r *push.Router
	n := full()
	b.Run("reply=parsed", func(b *testing.B) {
		r = &push.Router{Host: "example.com", Send: func(_ context.Context, to string, iq []byte) error {
			const at = len(`<iq type="set" from="example.com" to="push.example.net" id="`)
			r.Reply(to, string(iq[at:at+26]), nil)
			return nil
		}}
		b.ReportAllocs()
		for b.Loop() {
			if err := r.Publish(context.Background(), n); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("reply=bytes", func(b *testing.B) {
		r = &push.Router{Host: "example.com", Send: func(_ context.Context, to string, iq []byte) error {
			const at = len(`<iq type="set" from="example.com" to="push.example.net" id="`)
			_, err := r.HandleReply(result(string(iq[at : at+26])))
			return err
		}}
		b.ReportAllocs()
		for b.Loop() {
			if err := r.Publish(context.Background(), n); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestMelliumPublisher publishes over a stream of mellium's, whose far end answers what the test says.
func TestMelliumPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reply string // with the ID for %s
		var got string
		near, _ := serverPair(t, "example.com", "push.example.net", xmpp.HandlerFunc(func(rw xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			var b strings.Builder
			e := xml.NewEncoder(&b)
			if _, err := xmlstream.Copy(e, xmlstream.MultiReader(xmlstream.Token(*start), rw)); err != nil {
				return err
			}
			e.Flush()
			got = b.String()
			id := ""
			for _, a := range start.Attr {
				if a.Name.Local == "id" {
					id = a.Value
				}
			}
			if reply == "" {
				<-t.Context().Done()
				return nil
			}
			_, err := xmlstream.Copy(rw, xml.NewDecoder(strings.NewReader(strings.ReplaceAll(reply, "%s", id))))
			return err
		}))
		p := mellium.Publisher{Session: near}
		reply = `<iq type='result' from='push.example.net' to='example.com' id='%s'><pubsub xmlns='http://jabber.org/protocol/pubsub'/></iq>`
		require.NoError(t, p.Publish(t.Context(), full()))
		m := regexp.MustCompile(` id="([A-Z2-7]{26})"`).FindStringSubmatch(got)
		require.NotNil(t, m, got)
		assert.Equal(t, canonical(t, []byte(strings.Replace(string(full().AppendStanza(nil, "example.com", m[1])), "<iq", "<iq xmlns='jabber:server'", 1))), canonical(t, []byte(got)))

		for _, tt := range errorReplies {
			reply = `<iq type='error' from='Push.example.net' to='example.com' id='%s'>` + tt.payload + `</iq>`
			assert.Equal(t, &tt.want, p.Publish(t.Context(), full()), tt.name)
		}
		for _, from := range []string{"evil.example", "push.example.net/x", "@", "example.com"} {
			for _, typ := range []string{"result", "error"} {
				reply = `<iq type='` + typ + `' from='` + from + `' to='example.com' id='%s'><error/></iq>`
				err := p.Publish(t.Context(), full())
				require.Error(t, err, from)
				var re *push.ReplyError
				assert.False(t, errors.As(err, &re), "the word of %s", from)
			}
		}
		p.Host = "@"
		assert.Error(t, p.Publish(t.Context(), full()))
		p.Host = ""
		n := full()
		n.Service = "@"
		assert.Error(t, p.Publish(t.Context(), n))

		reply = ""
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		assert.ErrorIs(t, p.Publish(ctx, full()), context.DeadlineExceeded)
		time.Sleep(time.Second) // until the session has forgotten it
	})
}

// TestMelliumPublisherStalled gets the first half of a reply.
func TestMelliumPublisherStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var far *wire
		near, far := serverPair(t, "example.com", "push.example.net", xmpp.HandlerFunc(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			for _, a := range start.Attr {
				if a.Name.Local == "id" {
					fmt.Fprintf(far, `<iq xmlns='jabber:server' type='error' from='push.example.net' to='example.com' id='%s'><error type='wait'>`, a.Value)
				}
			}
			<-t.Context().Done()
			return nil
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		assert.ErrorIs(t, mellium.Publisher{Session: near}.Publish(ctx, full()), context.DeadlineExceeded)
		time.Sleep(time.Second)
	})
}
