package push_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmlstream"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

var (
	_ xmlstream.Marshaler = (*push.Notification)(nil)
	_ xmlstream.WriterTo  = (*push.Notification)(nil)
	_ xml.Marshaler       = (*push.Notification)(nil)
	_ xmlstream.Marshaler = push.PublishIQ{}
	_ xmlstream.WriterTo  = push.PublishIQ{}
	_ xml.Marshaler       = push.PublishIQ{}
	_ xmlstream.Marshaler = (*push.Answer)(nil)
	_ xmlstream.WriterTo  = (*push.Answer)(nil)
	_ xml.Marshaler       = (*push.Answer)(nil)
)

// full is a notification with all there is.
func full() *push.Notification {
	return &push.Notification{
		Account: "juliet@example.com",
		Key:     push.Key{Service: "push.example.net", Node: "yxs32uqsflafdk3iuqo"},
		Unread:  3,
		Sender:  "romeo@example.org/orchard",
		Body:    "Wherefore art thou?",
		Options: []push.Field{
			{Var: "FORM_TYPE", Type: "hidden", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}},
			{Var: "secret", Values: []string{"eruio234vzxc2kla-91"}},
		},
	}
}

func TestPublishDocument(t *testing.T) {
	// XEP-0357 §7, example 9, with the form types that XEP-0004 requires.
	const want = `<iq type='set' from='example.com' to='push.example.net' id='i1'>
<pubsub xmlns='http://jabber.org/protocol/pubsub'>
<publish node='yxs32uqsflafdk3iuqo'><item><notification xmlns='urn:xmpp:push:0'>
<x xmlns='jabber:x:data' type='submit'>
<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>
<field var='message-count'><value>3</value></field>
<field var='last-message-sender'><value>romeo@example.org/orchard</value></field>
<field var='last-message-body'><value>Wherefore art thou?</value></field>
</x></notification></item></publish>
<publish-options><x xmlns='jabber:x:data' type='submit'>
<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
<field var='secret'><value>eruio234vzxc2kla-91</value></field>
</x></publish-options></pubsub></iq>`
	assert.Equal(t, canonical(t, []byte(strings.ReplaceAll(want, "\n", ""))), canonical(t, full().AppendStanza(nil, "example.com", "i1")))
}

// sameDocument checks that both encodings of n say the same.
func sameDocument(t testing.TB, n *push.Notification, id string) {
	to, err := jid.Parse(n.Service)
	require.NoError(t, err)
	bytes := n.AppendStanza(nil, "example.com", id)
	tokens, err := xml.Marshal(push.PublishIQ{IQ: stanza.IQ{ID: id, From: jid.MustParse("example.com"), To: to}, Notification: n})
	require.NoError(t, err)
	require.Equal(t, canonical(t, bytes), canonical(t, tokens))
}

// FuzzPublish checks that hostile strings stay what they are, in both encodings: parsed by encoding/xml, the document has the same structure and the same
// strings, with U+FFFD for what XML cannot say.
func FuzzPublish(f *testing.F) {
	for _, s := range []string{"", "n1", `"'<>&`, "]]><!--", "\x00\x1f\x7f\u0085\ufffe\uffff\ufffd", "\xff\xc3", "\x80", "\t\r\n \u2028", "&#0;", "\U0001f4f1"} {
		f.Add(s, s, s, s, s, s, 1)
	}
	f.Fuzz(func(t *testing.T, id, node, sender, body, name, value string, unread int) {
		n := &push.Notification{
			Key: push.Key{Service: "push.example.net", Node: node}, Unread: unread, Sender: sender, Body: body,
			Options: []push.Field{{Var: name, Type: value, Values: []string{value, "", name}}, {Values: []string{body}}, {Var: name}},
		}
		if id != "" {
			sameDocument(t, n, id)
		}
		iq := n.AppendStanza(nil, "example.com", id)
		var doc struct {
			XMLName xml.Name `xml:"iq"`
			ID      string   `xml:"id,attr"`
			To      string   `xml:"to,attr"`
			From    string   `xml:"from,attr"`
			Publish []struct {
				Node   string `xml:"node,attr"`
				Fields []struct {
					Var    string   `xml:"var,attr"`
					Values []string `xml:"value"`
				} `xml:"item>notification>x>field"`
			} `xml:"http://jabber.org/protocol/pubsub pubsub>publish"`
		}
		require.NoError(t, xml.Unmarshal(iq, &doc))
		require.Equal(t, said(id), doc.ID)
		require.Equal(t, "push.example.net", doc.To)
		require.Equal(t, "example.com", doc.From)
		require.Len(t, doc.Publish, 1)
		require.Equal(t, said(node), doc.Publish[0].Node)
		summary := map[string]string{}
		for _, f := range doc.Publish[0].Fields {
			require.Len(t, f.Values, 1)
			summary[f.Var] = f.Values[0]
		}
		want := map[string]string{"FORM_TYPE": "urn:xmpp:push:summary"}
		if unread > 0 {
			want["message-count"] = fmt.Sprint(unread)
		}
		if sender != "" {
			want["last-message-sender"] = said(sender)
		}
		if body != "" {
			want["last-message-body"] = said(body)
		}
		require.Equal(t, want, summary)
		require.Equal(t, []push.Field{
			{Var: said(name), Type: said(value), Values: []string{said(value), "", said(name)}}, {Values: []string{said(body)}}, {Var: said(name)},
		}, publishedOptions(t, iq))
	})
}

// said is what XML can say of s.
func said(s string) string {
	var b strings.Builder
	for _, r := range s { // a byte that is not UTF-8 is U+FFFD already
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff {
			r = '\ufffd'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func TestPublishWithoutOptions(t *testing.T) {
	n := &push.Notification{Key: push.Key{Service: "push.example.net"}}
	sameDocument(t, n, "i1")
	assert.NotContains(t, string(n.AppendStanza(nil, "example.com", "i1")), "publish-options")
	sameDocument(t, full(), "i1")
	n.Wishes = &wishes.Wishes{Jingle: true}
	sameDocument(t, n, "i1")
	assert.NotContains(t, string(n.AppendStanza(nil, "example.com", "i1")), "priority")
	n.Wishes = &wishes.Wishes{Priority: true}
	sameDocument(t, n, "i1")
	r := n.TokenReader()
	for {
		tok, err := r.Token()
		if err != nil {
			assert.Equal(t, io.EOF, err)
			assert.Nil(t, tok)
			break
		}
		require.NotNil(t, tok)
	}

	var b bytes.Buffer
	require.NoError(t, xml.NewEncoder(&b).Encode(full()))
	assert.True(t, strings.HasPrefix(b.String(), `<pubsub xmlns="http://jabber.org/protocol/pubsub">`), "%s", b.String())
}

func BenchmarkPublish(b *testing.B) {
	n := full()
	b.Run("encoding=append", func(b *testing.B) {
		buf := n.AppendStanza(nil, "example.com", "CMTNBVKPNYZKVY5FWMWFNPBLRG")
		b.SetBytes(int64(len(buf)))
		b.ReportAllocs()
		for b.Loop() {
			buf = n.AppendStanza(buf[:0], "example.com", "CMTNBVKPNYZKVY5FWMWFNPBLRG")
		}
	})
	b.Run("encoding=tokens", func(b *testing.B) {
		iq := push.PublishIQ{IQ: stanza.IQ{ID: "CMTNBVKPNYZKVY5FWMWFNPBLRG", From: jid.MustParse("example.com"), To: jid.MustParse("push.example.net")}, Notification: n}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := iq.WriteXML(xmlstream.Discard()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
