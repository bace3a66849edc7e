package push_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/mellium"
	"github.com/xmpp-push/push/wishes"
)

// recorder is an Engine's face that keeps the events, or fails.
type recorder struct {
	mu     sync.Mutex
	events []push.Event
	err    error
}

func (r *recorder) Handle(_ context.Context, ev push.Event) (push.Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return push.Decision{}, r.err
	}
	r.events = append(r.events, ev)
	return push.Decision{}, nil
}

func (r *recorder) taken() []push.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	evs := r.events
	r.events = nil
	return evs
}

var device = push.SessionID{Account: "juliet@example.com", ID: "s1"}

// refusal is the error reply to an IQ with id "x" and no addresses.
func refusal(typ, condition, text string) string {
	return refusalFor(`id="x"`, typ, condition, text)
}

func refusalFor(attrs, typ, condition, text string) string {
	const ns = "urn:ietf:params:xml:ns:xmpp-stanzas"
	s := `<iq type="error" ` + attrs + `><error type="` + typ + `"><` + condition + ` xmlns="` + ns + `"/>`
	if text != "" {
		s += `<text xmlns="` + ns + `" xml:lang="en">` + text + `</text>`
	}
	return s + `</error></iq>`
}

func set(payload string) string { return `<iq type='set' id='x'>` + payload + `</iq>` }

const (
	enableNS = `<enable xmlns='urn:xmpp:push:0' `
	formNS   = `<x xmlns='jabber:x:data' `
	resultX  = `<iq type="result" id="x"/>`
)

func enabled(node string, options ...push.Field) push.Event {
	return push.PushEnable{Session: device, Key: push.Key{Service: "push.example.net", Node: node}, Options: options}
}

func disabled(node string) push.Event {
	return push.PushDisable{Session: device, Key: push.Key{Service: "push.example.net", Node: node}}
}

// requests are the enable and disable stanzas with their replies, byte for byte.
var requests = []struct {
	name  string
	iq    string
	reply string
	event push.Event
	err   error // of the Engine
	// mellium is the reply over a session of mellium's, if it is another; "-" if mellium ends the stream.
	mellium string
}{
	{
		name:  "enable without node",
		iq:    set(enableNS + `jid='push.example.net'/>`),
		reply: resultX, event: enabled(""),
	}, {
		name:  "an empty node is none",
		iq:    set(enableNS + `jid='push.example.net' node=''/>`),
		reply: resultX, event: enabled(""),
	}, {
		name:  "the service is prepared, the node is not touched",
		iq:    set(enableNS + `jid='Push.Example.NET' node=' Yxs32 &amp;'/>`),
		reply: resultX, event: enabled(" Yxs32 &"),
	}, {
		name:  "addresses are swapped",
		iq:    `<iq xmlns='jabber:client' type='set' id='&lt;1&gt;' from='juliet@example.com/balcony' to='Juliet@example.com'>` + enableNS + `jid='push.example.net' node='n1'/></iq>`,
		reply: `<iq type="result" to="juliet@example.com/balcony" from="Juliet@example.com" id="&lt;1&gt;"/>`, event: enabled("n1"),
		mellium: `<iq type="result" to="juliet@example.com/balcony" from="juliet@example.com" id="&lt;1&gt;"/>`,
	}, {
		name:  "addressed to the server",
		iq:    `<iq type='set' id='x' to='example.com'>` + enableNS + `jid='push.example.net' node='n1'/></iq>`,
		reply: `<iq type="result" from="example.com" id="x"/>`, event: enabled("n1"),
	}, {
		name: "a form is kept verbatim",
		iq: set(enableNS + `jid='push.example.net' node='n1'><unknown xmlns='urn:x'><x/></unknown>` + formNS + `type='submit'><title>t</title>` +
			`<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>` +
			`<field var='secret'><value>a&lt;b</value></field>` +
			`<field var='list' type='list-multi'><option><value>no</value></option><value>2</value><value/><value>1</value><value>2</value></field>` +
			`<field var='lines' type='text-multi'><value>one` + "\n" + `</value></field>` +
			`<field var='none' type='boolean'/><field><value> x </value></field><field var='secret'/></x></enable>`),
		reply: resultX,
		event: enabled("n1",
			push.Field{Var: "FORM_TYPE", Type: "hidden", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}},
			push.Field{Var: "secret", Values: []string{"a<b"}},
			push.Field{Var: "list", Type: "list-multi", Values: []string{"2", "", "1", "2"}},
			push.Field{Var: "lines", Type: "text-multi", Values: []string{"one\n"}},
			push.Field{Var: "none", Type: "boolean"},
			push.Field{Values: []string{" x "}},
			push.Field{Var: "secret"}),
	}, {
		name:  "a form of type form",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `type='form'><field var='a'><value>1</value></field></x></enable>`),
		reply: resultX, event: enabled("", push.Field{Var: "a", Values: []string{"1"}}),
	}, {
		name:  "a form of no type",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `><field var='a'><value>1</value></field></x></enable>`),
		reply: resultX, event: enabled("", push.Field{Var: "a", Values: []string{"1"}}),
	}, {
		name:  "an empty form is none",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `type='submit'/></enable>`),
		reply: resultX, event: enabled(""),
	}, {
		name:  "disable one node",
		iq:    set(`<disable xmlns='urn:xmpp:push:0' jid='push.example.net' node='n1'/>`),
		reply: resultX, event: disabled("n1"),
	}, {
		name:  "disable with what enable could not have",
		iq:    set(`<disable xmlns='urn:xmpp:push:0' jid='push.example.net' node='n1'>` + formNS + `type='cancel'/></disable>`),
		reply: resultX, event: disabled("n1"),
	}, {
		name:  "disable all nodes of a service, known or not",
		iq:    set(`<disable xmlns='urn:xmpp:push:0' jid='push.example.net'/>`),
		reply: resultX, event: disabled(""),
	}, {
		name:  "prefixes are namespaces",
		iq:    `<iq type='set' id='x' xmlns:p='urn:xmpp:push:0'><p:disable jid='push.example.net' p:node='no'/></iq>`,
		reply: resultX, event: disabled(""),
	}, {
		name:  "enable as a get",
		iq:    `<iq type='get' id='x'>` + enableNS + `jid='push.example.net'/></iq>`,
		reply: refusal("cancel", "not-allowed", "push is enabled and disabled by an IQ of type set"),
	}, {
		name:  "disable as a get",
		iq:    `<iq type='get' id='x'><disable xmlns='urn:xmpp:push:0'/></iq>`,
		reply: refusal("cancel", "not-allowed", "push is enabled and disabled by an IQ of type set"),
	}, {
		name:  "enable without jid",
		iq:    set(enableNS + `node='n1'/>`),
		reply: refusal("modify", "bad-request", "jid is missing"),
	}, {
		name:  "disable without jid",
		iq:    set(`<disable xmlns='urn:xmpp:push:0'/>`),
		reply: refusal("modify", "bad-request", "jid is missing"),
	}, {
		name:  "an empty jid",
		iq:    set(enableNS + `jid=''/>`),
		reply: refusal("modify", "bad-request", "jid is missing"),
	}, {
		name:  "a jid that is none",
		iq:    set(enableNS + `jid='@/'/>`),
		reply: refusal("modify", "bad-request", "jid is not a JID"),
	}, {
		name:  "a jid that is too long",
		iq:    set(enableNS + `jid='` + strings.Repeat("a", 1024) + `@example.net'/>`),
		reply: refusal("modify", "bad-request", "jid is not a JID"),
	}, {
		name:  "the account as the service",
		iq:    set(enableNS + `jid='Juliet@Example.com'/>`),
		reply: refusal("modify", "bad-request", "jid is the account itself"),
	}, {
		name:  "the account's full JID as the service",
		iq:    set(enableNS + `jid='juliet@example.com/balcony'/>`),
		reply: refusal("modify", "bad-request", "jid is the account itself"),
	}, {
		name:  "addressed to another account",
		iq:    `<iq type='set' id='x' to='romeo@example.com'>` + enableNS + `jid='push.example.net'/></iq>`,
		reply: refusalFor(`from="romeo@example.com" id="x"`, "auth", "forbidden", "this is for the account itself"),
	}, {
		name:  "addressed to another server",
		iq:    `<iq type='set' id='x' to='example.net'>` + enableNS + `jid='push.example.net'/></iq>`,
		reply: refusalFor(`from="example.net" id="x"`, "auth", "forbidden", "this is for the account itself"),
	}, {
		name:    "addressed to what is no JID",
		iq:      `<iq type='set' id='x' to='@'>` + enableNS + `jid='push.example.net'/></iq>`,
		mellium: "-",
		reply:   refusalFor(`from="@" id="x"`, "auth", "forbidden", "this is for the account itself"),
	}, {
		name:  "from another account: the reply does not go there",
		iq:    `<iq type='set' id='x' from='romeo@example.com/orchard'>` + enableNS + `jid='push.example.net'/></iq>`,
		reply: refusal("auth", "forbidden", "this is for the account itself"),
	}, {
		name:    "from what is no JID",
		iq:      `<iq type='set' id='x' from='@'>` + enableNS + `jid='push.example.net'/></iq>`,
		mellium: "-",
		reply:   refusal("auth", "forbidden", "this is for the account itself"),
	}, {
		name:    "without id",
		mellium: "-", // its client adds one
		iq:      `<iq type='set'>` + enableNS + `jid='push.example.net'/></iq>`,
		reply:   `<iq type="error"><error type="modify"><bad-request xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas" xml:lang="en">an IQ needs an id</text></error></iq>`,
	}, {
		name:  "two payloads",
		iq:    set(enableNS + `jid='push.example.net'/>` + enableNS + `jid='push.example.net'/>`),
		reply: refusal("modify", "bad-request", "an IQ has one payload"),
	}, {
		name:  "two forms",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `/>` + formNS + `/></enable>`),
		reply: refusal("modify", "bad-request", "there is more than one form"),
	}, {
		name:  "a form of another type",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `type='cancel'/></enable>`),
		reply: refusal("modify", "bad-request", "the form&#39;s type is not submit"),
	}, {
		name:  "elements in a value",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `><field><value>a<b/></value></field></x></enable>`),
		reply: refusal("modify", "bad-request", "a value of the form has elements in it"),
	}, {
		name:  "the longest node",
		iq:    set(enableNS + `jid='push.example.net' node='` + strings.Repeat("n", push.MaxNodeBytes) + `'/>`),
		reply: resultX, event: enabled(strings.Repeat("n", push.MaxNodeBytes)),
	}, {
		name:  "a longer node",
		iq:    set(enableNS + `jid='push.example.net' node='` + strings.Repeat("n", push.MaxNodeBytes+1) + `'/>`),
		reply: refusal("modify", "not-acceptable", "node is longer than 1024 bytes"),
	}, {
		name:  "the most fields",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `>` + strings.Repeat(`<field/>`, push.MaxFormFields) + `</x></enable>`),
		reply: resultX, event: enabled("", make([]push.Field, push.MaxFormFields)...),
	}, {
		name:  "more fields",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `>` + strings.Repeat(`<field/>`, push.MaxFormFields+1) + `</x></enable>`),
		reply: refusal("modify", "not-acceptable", "the form has more than 32 fields"),
	}, {
		name:  "the largest form",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `><field var='v'><value>` + strings.Repeat("v", push.MaxFormBytes-33) + `</value></field></x></enable>`),
		reply: resultX, event: enabled("", push.Field{Var: "v", Values: []string{strings.Repeat("v", push.MaxFormBytes-33)}}),
	}, {
		name:  "a larger form",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `><field var='v'><value>` + strings.Repeat("v", push.MaxFormBytes-32) + `</value></field></x></enable>`),
		reply: refusal("modify", "not-acceptable", "the form is larger than 8192 bytes"),
	}, {
		name:  "a form of nothing, often",
		iq:    set(enableNS + `jid='push.example.net'>` + formNS + `><field>` + strings.Repeat(`<value/>`, 5000) + `</field></x></enable>`),
		reply: refusal("modify", "not-acceptable", "the form is larger than 8192 bytes"),
	}, {
		name:  "a store that fails",
		iq:    set(enableNS + `jid='push.example.net'/>`),
		err:   fmt.Errorf("%w: disk on fire", push.ErrStore),
		reply: refusal("wait", "internal-server-error", ""),
	},
}

func TestRequests(t *testing.T) {
	for _, tt := range requests {
		t.Run(tt.name, func(t *testing.T) {
			h := &recorder{err: tt.err}
			q, err := push.ParseRequest(device, []byte(tt.iq))
			require.NoError(t, err)
			a := q.Answer(t.Context(), h)
			assert.Equal(t, tt.reply, string(a.AppendXML(nil)))
			assert.ErrorIs(t, a.Err, tt.err)
			if tt.event != nil {
				assert.Equal(t, []push.Event{tt.event}, h.taken())
			} else {
				assert.Empty(t, h.taken())
			}

			tokens, err := xml.Marshal(a)
			require.NoError(t, err)
			assert.Equal(t, canonical(t, []byte(tt.reply)), canonical(t, tokens), "the reply as tokens")
			again, err := push.ReadRequest(device, xml.NewDecoder(strings.NewReader(tt.iq)))
			require.NoError(t, err)
			assert.Equal(t, q, again, "the request from tokens")
		})
	}
}

// TestRequestsOverMellium is TestRequests between two sessions, authenticated and bound.
func TestRequestsOverMellium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &recorder{}
		var session func(iq stanza.IQ) (push.SessionID, bool)
		m := mux.New(stanza.NSClient, mellium.HandleRequests(mellium.RequestHandler{Engine: h, Session: func(iq stanza.IQ) (push.SessionID, bool) { return session(iq) }}), disco.Handle())
		client, server := clientPair(t, m)
		ask := func(iq string) string {
			reply, err := client.SendIQ(t.Context(), xml.NewDecoder(strings.NewReader(iq)))
			require.NoError(t, err)
			require.NoError(t, reply.Close())
			return server.written()
		}
		session = func(stanza.IQ) (push.SessionID, bool) { return device, true }
		for _, tt := range requests {
			if tt.mellium == "-" {
				continue
			}
			h.err = tt.err
			want := cmp.Or(tt.mellium, tt.reply)
			want = strings.Replace(want, "<iq", "<iq xmlns='jabber:client'", 1)
			assert.Equal(t, canonical(t, []byte(want)), canonical(t, []byte(ask(tt.iq))), tt.name)
			if tt.event != nil {
				assert.Equal(t, []push.Event{tt.event}, h.taken(), tt.name)
			} else {
				assert.Empty(t, h.taken(), tt.name)
			}
		}
		session = func(stanza.IQ) (push.SessionID, bool) { return device, false }
		assert.Contains(t, ask(set(enableNS+`jid='push.example.net'/>`)), "forbidden", "no session")
		assert.Empty(t, h.taken())

		info, err := disco.GetInfo(t.Context(), "", jid.MustParse("juliet@example.com"), client)
		require.NoError(t, err)
		var features []string
		for _, f := range info.Features {
			features = append(features, f.Var)
		}
		assert.Contains(t, features, "urn:xmpp:push:0")
		assert.Contains(t, features, "tigase:push:priority:0")
		assert.NotContains(t, features, "urn:xmpp:push2:0", "not offered")
	})
}

func TestHandlersNeedAnEngine(t *testing.T) {
	assert.Panics(t, func() { mellium.HandleRequests(mellium.RequestHandler{Engine: &recorder{}}) })
	assert.Panics(t, func() {
		mellium.HandleRequests(mellium.RequestHandler{Session: func(stanza.IQ) (push.SessionID, bool) { return device, true }})
	})
	assert.Panics(t, func() { mellium.HandleAffiliations(mellium.AffiliationHandler{}) })
}

func TestRequestNotOurs(t *testing.T) {
	for _, iq := range []string{
		`<iq type='set' id='x'/>`,
		`<iq type='set' id='x'><enable xmlns='urn:xmpp:carbons:2'/></iq>`,
		`<iq type='set' id='x'><ping xmlns='urn:xmpp:ping'/><enable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>`,
		`<iq type='set' id='x'><ping xmlns='urn:xmpp:ping'><broken></ping>`, // it is not ours, and is not read to its end
		`<iq type='set' id='x'><enabled xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>`,
		`<iq type='result' id='x'><enable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>`,
		`<iq type='error' id='x'><enable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>`,
		`<iq id='x'><enable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>`,
		`<message type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='push.example.net'/></message>`,
		`<iq xmlns='urn:other' type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='push.example.net'/></iq>`,
	} {
		_, err := push.ParseRequest(device, []byte(iq))
		assert.ErrorIs(t, err, push.ErrNotPush, iq)
	}
	for _, iq := range []string{
		``, ` `, `text`, `<iq`, `<iq type='set' id='x'>`, `</iq>`,
		`<iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='p'></iq>`,
		`<iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='p'/></iq><iq/>`,
		`<iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='p'/></iq>text`,
		`<iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='p'/><!-- no --></iq>`,
		`<?xml version='1.0'?><iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='p'/></iq>`,
		`<!DOCTYPE iq [<!ENTITY a "a">]><iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='p'/></iq>`,
		`<iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='&a;'/></iq>`,
		`<iq type='set' id='x'><enable xmlns='urn:xmpp:push:0' jid='p' node='&#xD800;'/></iq>`,
		set(enableNS + `jid='p'><x xmlns='jabber:x:data'><field var='secret'><value>&#57343;</value></field></x></enable>`),
		set(enableNS + `jid='p'>` + strings.Repeat(`<a>`, 100) + strings.Repeat(`</a>`, 100) + `</enable>`),
		set(enableNS + `jid='p'>` + strings.Repeat(` `, push.MaxStanzaBytes) + `</enable>`),
	} {
		_, err := push.ParseRequest(device, []byte(iq))
		assert.ErrorIs(t, err, push.ErrStanza, "%.100s", iq)
	}
	_, err := push.ReadRequest(device, nothing{})
	assert.ErrorIs(t, err, push.ErrStanza, "a reader that never gives a token")
	_, err = push.ReadRequest(device, broken{})
	assert.ErrorIs(t, err, io.ErrClosedPipe)
}

type nothing struct{}

func (nothing) Token() (xml.Token, error) { return nil, nil }

type broken struct{}

func (broken) Token() (xml.Token, error) { return nil, io.ErrClosedPipe }

// TestNothingForbiddenIsPassedOver: a comment, which XMPP forbids (RFC 6120 §11.1), is found wherever it is.
func TestNothingForbiddenIsPassedOver(t *testing.T) {
	k := newWebKeys(t)
	request := func(text string) error {
		_, err := push.ParseRequest(device, []byte(text))
		return err
	}
	notices := func(text string) error {
		_, err := push.ParseAffiliation([]byte(text))
		return err
	}
	reply := func(text string) error {
		_, _, err := push.ReadReply(xml.NewDecoder(strings.NewReader(text)))
		return err
	}
	for _, c := range []struct {
		text string
		read func(text string) error
	}{
		{set(enableNS + `jid='p'><x xmlns='jabber:x:data' type='submit'><y/><field var='secret'><y/><value>1</value></field></x><muted xmlns='tigase:push:filter:muted:0'><item jid='a@x'/></muted>` +
			`<ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/><groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='b@x' allow='always'/></groupchat>` +
			`<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>MDEyMzQ1Njc4OWFiY2RlZg==</encrypt></enable>`), request},
		{set(`<enable xmlns='urn:xmpp:push2:0'><service>p</service><client>c</client><match profile='urn:xmpp:push2:match:all'><grace>9</grace><filter jid='x'><mention/></filter>` +
			`<send xmlns='urn:xmpp:push2:send:sce+rfc8291+rfc8292:0'><ua-public>` + b64(k.public) + `</ua-public><auth-secret>` + b64(k.auth) + `</auth-secret><jwt-alg>ES256</jwt-alg><jwt-key>` +
			b64(k.signer) + `</jwt-key><jwt-claim name='aud'>y</jwt-claim></send></match></enable>`), request},
		{set(`<disable xmlns='urn:xmpp:push:0' jid='p'><x/></disable>`), request},
		{notice(`<x/>` + pubsubNS + `><affiliations node='n1'>` + none + `</affiliations><x/></pubsub>`), notices},
		{`<iq from="a.example" type="error"><x/><error type="wait"><gone xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, reply},
	} {
		require.NoError(t, c.read(c.text), c.text)
		for i := range len(c.text) - 1 {
			if c.text[i] == '>' {
				assert.ErrorIs(t, c.read(c.text[:i+1]+`<!-- no -->`+c.text[i+1:]), push.ErrStanza, "after %s", c.text[:i+1])
			}
		}
	}
}

// foreignTokens gives a stanza as a parser that is not ours might: attributes and texts that put names are what it has for them, whatever that is.
func foreignTokens(t *testing.T, text string, put map[string]string) xml.TokenReader {
	r := &byteReader{}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		tok, err := d.Token()
		if err == io.EOF {
			return r
		}
		require.NoError(t, err)
		switch tok := tok.(type) {
		case xml.StartElement:
			for i, a := range tok.Attr {
				tok.Attr[i].Value = cmp.Or(put[a.Value], a.Value)
			}
			r.tokens = append(r.tokens, tok.Copy())
		case xml.CharData:
			r.tokens = append(r.tokens, xml.CharData(cmp.Or(put[string(tok)], string(tok))))
		default:
			r.tokens = append(r.tokens, xml.CopyToken(tok))
		}
	}
}

// TestWhatIsNoText: what is no text of XML, as a parser that is not ours may give it, is refused and does not come back in the reply.
func TestWhatIsNoText(t *testing.T) {
	k := newWebKeys(t)
	push2 := func(inside string) string {
		return set(`<enable xmlns='urn:xmpp:push2:0'><service>p</service>` + inside + `</enable>`)
	}
	claim := func(name, value string) string {
		return push2(`<client>c</client><match profile='urn:xmpp:push2:match:all'><send xmlns='urn:xmpp:push2:send:sce+rfc8291+rfc8292:0'><ua-public>` + b64(k.public) + `</ua-public><auth-secret>` + b64(k.auth) +
			`</auth-secret><jwt-alg>ES256</jwt-alg><jwt-key>` + b64(k.signer) + `</jwt-key><jwt-claim name='` + name + `'>` + value + `</jwt-claim></send></match>`)
	}
	form := func(inside string) string {
		return set(enableNS + `jid='p'><x xmlns='jabber:x:data' type='submit'>` + inside + `</x></enable>`)
	}
	list := func(name, inside string) string {
		return set(enableNS + `jid='p'><` + name + ` xmlns='tigase:push:filter:` + name + `:0'>` + inside + `</` + name + `></enable>`)
	}
	for text, want := range map[string]string{
		`<iq type='set' id='BAD'>` + enableNS + `jid='p'/></iq>`:                 "an IQ needs an id",
		set(enableNS + `jid='p' node='BAD'/>`):                                   "node is not text",
		set(enableNS + `jid='p' name='BAD'/>`):                                   "name is not text",
		form(`<field var='BAD'/>`):                                               "the form holds what is not text",
		form(`<field var='a'><value>BAD</value></field>`):                        "the form holds what is not text",
		list("groupchat", `<room jid='b@x' allow='mentioned' nick='BAD'/>`):      "a nick is not text",
		push2(`<client>BAD</client><match profile='urn:xmpp:push2:match:all'/>`): "client is not text",
		claim("BAD", "y"):   "a claim has no name, or is not text",
		claim("aud", "BAD"): "a claim has no name, or is not text",
	} {
		q, err := push.ReadRequest(device, foreignTokens(t, text, map[string]string{"BAD": "\x01"}))
		require.NoError(t, err, text)
		require.NotNil(t, q.Refusal, text)
		assert.Equal(t, stanza.BadRequest, q.Refusal.Condition, text)
		assert.Equal(t, want, q.Refusal.Text["en"], text)
		reply := string(q.Answer(t.Context(), nil).AppendXML(nil))
		assert.Equal(t, strings.Contains(text, "id='BAD'"), !strings.Contains(reply, " id="), reply)
		q, err = push.ReadRequest(device, foreignTokens(t, text, nil))
		require.NoError(t, err, text)
		assert.Nil(t, q.Refusal, text)
	}
}

// TestMarshalSaysWhatFailed: an encoder whose writer fails has not written the stanza.
func TestMarshalSaysWhatFailed(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	n := &push.Notification{Key: push.Key{Service: "push.example.net", Node: "n1"}, Body: long, Class: push.ClassImportant}
	q, err := push.ParseRequest(device, []byte(set(enableNS+`/>`)))
	require.NoError(t, err)
	q.Refusal.Text["en"] = long
	for _, m := range []xml.Marshaler{n, push.PublishIQ{Notification: n}, push.PublishMessage{Notification: n}, q.Answer(t.Context(), nil)} {
		pr, pw := io.Pipe()
		require.NoError(t, pr.Close())
		assert.ErrorIs(t, m.MarshalXML(xml.NewEncoder(pw), xml.StartElement{}), io.ErrClosedPipe, "%T", m)
	}
}

func TestRequestWithoutSession(t *testing.T) {
	q, err := push.ParseRequest(push.SessionID{}, []byte(set(enableNS+`jid='push.example.net'/>`)))
	require.NoError(t, err)
	assert.Nil(t, q.Event)
	assert.Equal(t, refusal("auth", "forbidden", "this is for the account itself"), string(q.Answer(t.Context(), nil).AppendXML(nil)))
}

// TestRequestsToEngine goes from the client's bytes to the push service's, with a Store that fails once.
// A host has its own mind about a request: it refuses it, and then nothing happens, or has the Engine do something else.
func TestHostChangesRequest(t *testing.T) {
	session := push.SessionID{Account: "juliet@example.com", ID: "s1"}
	enable := []byte(`<iq type="set" id="e1"><enable xmlns="urn:xmpp:push:0" jid="push.example.net" node="n1"/></iq>`)
	var r recorder
	q, err := push.ParseRequest(session, enable)
	require.NoError(t, err)
	q.Refusal = &stanza.Error{Type: stanza.Cancel, Condition: stanza.NotAllowed}
	assert.Equal(t, `<iq type="error" id="e1"><error type="cancel"><not-allowed xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`,
		string(q.Answer(t.Context(), &r).AppendXML(nil)))
	assert.Empty(t, r.events, "what the host refused")

	q, err = push.ParseRequest(session, enable)
	require.NoError(t, err)
	ev := q.Event.(push.PushEnable)
	ev.Wishes = &wishes.Wishes{Identity: "client/phone"}
	q.Event = ev
	assert.Equal(t, `<iq type="result" id="e1"/>`, string(q.Answer(t.Context(), &r).AppendXML(nil)))
	assert.Equal(t, []push.Event{ev}, r.events)
}

func TestRequestsToEngine(t *testing.T) {
	var published []string
	router := &push.Router{Host: "example.com"}
	router.Send = func(_ context.Context, to string, iq []byte) error {
		published = append(published, to)
		go router.Reply(to, idOf.FindStringSubmatch(string(iq))[1], nil)
		return nil
	}
	store := &failingStore{Store: push.NewMemoryStore()}
	e, err := push.New(push.Config{Host: "example.com", Publisher: router, Store: store})
	require.NoError(t, err)
	ask := func(iq string) string {
		q, err := push.ParseRequest(device, []byte(iq))
		require.NoError(t, err)
		return string(q.Answer(t.Context(), e).AppendXML(nil))
	}
	registered := func() int {
		rs, err := store.List(t.Context(), device.Account)
		require.NoError(t, err)
		return len(rs)
	}
	enable := set(enableNS + `jid='push.example.net' node='n1'/>`)
	store.err = errors.New("disk on fire")
	assert.Equal(t, refusal("wait", "internal-server-error", ""), ask(enable))
	store.err = nil
	assert.Zero(t, registered())
	assert.Equal(t, resultX, ask(enable))
	assert.Equal(t, 1, registered())
	_, err = e.Handle(t.Context(), push.Ping{Account: device.Account})
	require.NoError(t, err)
	require.NoError(t, e.Close(t.Context()))
	assert.Equal(t, []string{"push.example.net"}, published)

	e, err = push.New(push.Config{Host: "example.com", Publisher: router, Store: store})
	require.NoError(t, err)
	disable := set(`<disable xmlns='urn:xmpp:push:0' jid='push.example.net'/>`)
	store.err = errors.New("disk on fire")
	assert.Equal(t, refusal("wait", "internal-server-error", ""), ask(disable))
	store.err = nil
	assert.Equal(t, 1, registered())
	assert.Equal(t, resultX, ask(disable))
	assert.Zero(t, registered())
	assert.Equal(t, resultX, ask(disable), "what is not known is a plain result")
	require.NoError(t, e.Close(t.Context()))
}

// failingStore fails to write while err is set.
type failingStore struct {
	push.Store
	err error
}

func (s *failingStore) Remove(ctx context.Context, account string, k push.Key) ([]push.Key, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.Remove(ctx, account, k)
}

func (s *failingStore) Enable(ctx context.Context, r push.Registration, limit int) ([]push.Registration, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.Enable(ctx, r, limit)
}

func (s *failingStore) Update(ctx context.Context, account string, k push.Key, u push.Update) error {
	if s.err != nil {
		return s.err
	}
	return s.Store.Update(ctx, account, k, u)
}

// FuzzParseRequest checks that nothing panics, that what is accepted keeps to the limits, and that every reply is well-formed and says the same in both
// encodings.
func FuzzParseRequest(f *testing.F) {
	for _, tt := range requests {
		if len(tt.iq) < 4096 {
			f.Add([]byte(tt.iq))
		}
	}
	k := newWebKeys(f)
	for _, iq := range []string{
		set(enableNS + `jid='p' away='true' name='x'><muted xmlns='tigase:push:filter:muted:0'><item jid='a@x'/></muted><ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>` +
			`<groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='b@x' allow='mentioned' nick='n'/></groupchat><encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='999'>MDEyMzQ1Njc4OWFiY2RlZg==</encrypt></enable>`),
		set(`<enable xmlns='urn:xmpp:push2:0'><service>p</service><client>c</client><match profile='urn:xmpp:push2:match:all'><grace>9</grace><filter jid='x'><mention/></filter>` +
			`<send xmlns='urn:xmpp:push2:send:sce+rfc8291+rfc8292:0'><ua-public>` + b64(k.public) + `</ua-public><auth-secret>` + b64(k.auth) + `</auth-secret><jwt-alg>ES256</jwt-alg><jwt-key>` +
			b64(k.signer) + `</jwt-key><jwt-claim name='aud'>y</jwt-claim></send></match></enable>`),
		set(`<disable xmlns='urn:xmpp:push2:0'/>`),
	} {
		f.Add([]byte(iq))
	}
	f.Fuzz(func(t *testing.T, iq []byte) {
		q, err := push.ParseRequest(device, iq)
		if err != nil {
			require.True(t, errors.Is(err, push.ErrStanza) || errors.Is(err, push.ErrNotPush), err)
			return
		}
		require.NotEqual(t, q.Event == nil, q.Refusal == nil)
		switch ev := q.Event.(type) {
		case push.PushEnable:
			require.NotEmpty(t, ev.Service)
			require.NotEqual(t, device.Account, ev.Service)
			require.LessOrEqual(t, len(ev.Node), push.MaxNodeBytes)
			require.LessOrEqual(t, len(ev.Options), push.MaxFormFields)
			require.NoError(t, ev.Wishes.Validate())
			require.Equal(t, ev.IsPush2(), ev.Wishes != nil && ev.Wishes.Push2 != nil)
			if ev.Wishes != nil {
				data, err := ev.Wishes.MarshalBinary()
				require.NoError(t, err)
				var back wishes.Wishes
				require.NoError(t, back.UnmarshalBinary(data))
				require.True(t, ev.Wishes.Equal(&back))
			}
			n := push.Notification{Key: ev.Key, Options: ev.Options}
			require.Equal(t, ev.Options, publishedOptions(t, n.AppendStanza(nil, "example.com", "i")), "what a client sends arrives at the service")
		case push.PushDisable:
			require.NotEqual(t, ev.Service == "", ev.Node != push.Push2Node)
		}
		a := q.Answer(t.Context(), &recorder{})
		tokens, err := xml.Marshal(a)
		require.NoError(t, err)
		require.Equal(t, canonical(t, a.AppendXML(nil)), canonical(t, tokens))
	})
}

// canonical is a document with each name in its namespace, without regard to prefixes and the order of attributes.
func canonical(t testing.TB, doc []byte) string {
	var b strings.Builder
	d := xml.NewDecoder(bytes.NewReader(doc))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return b.String()
		}
		require.NoError(t, err, "%s", doc)
		switch tk := tok.(type) {
		case xml.StartElement:
			fmt.Fprintf(&b, "\n{%s}%s", tk.Name.Space, tk.Name.Local)
			attrs := map[string]string{}
			for _, a := range tk.Attr {
				if a.Name.Local != "xmlns" && a.Name.Space != "xmlns" {
					attrs[a.Name.Space+" "+a.Name.Local] = a.Value
				}
			}
			fmt.Fprintf(&b, " %q ", attrs)
		case xml.EndElement:
			b.WriteString(")")
		case xml.CharData:
			fmt.Fprintf(&b, "%q", tk)
		}
	}
}

// publishedOptions are the publish options in a publish.
func publishedOptions(t testing.TB, iq []byte) []push.Field {
	var doc struct {
		Fields []struct {
			Var    string   `xml:"var,attr"`
			Type   string   `xml:"type,attr"`
			Values []string `xml:"jabber:x:data value"`
		} `xml:"pubsub>publish-options>x>field"`
	}
	require.NoError(t, xml.Unmarshal(iq, &doc), "%s", iq)
	var fs []push.Field
	for _, f := range doc.Fields {
		fs = append(fs, push.Field{Var: f.Var, Type: f.Type, Values: f.Values})
	}
	return fs
}
