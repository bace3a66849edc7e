package trace

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

// What a recording makes of a stanza reads back as the same stanza.
func FuzzStanzaRoundTrip(f *testing.F) {
	for _, inside := range []string{
		``, `<body>hi &amp; ho&#10;</body>`, `<x xmlns="jabber:x:encrypted"/><body>I am encrypted</body>`, `<encrypted xmlns="urn:xmpp:omemo:2"/>`,
		`<propose xmlns="urn:xmpp:jingle-message:0" id="c1"><description media="audio"/><description media="video"/></propose>`,
		`<reject xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, `<x xmlns="jabber:x:conference" jid="verona@rooms.example.net"/>`,
		`<x xmlns="http://jabber.org/protocol/muc#user"><invite/></x>`, `<x xmlns="http://jabber.org/protocol/muc#user"><invite from="romeo@example.net/orchard"/></x>`,
		`<body>psst</body><x xmlns="http://jabber.org/protocol/muc#user"/>`,
		`<invite xmlns="urn:xmpp:call-invites:0" video="true"/><origin-id xmlns="urn:xmpp:sid:0" id="c1"/>`, `<invite xmlns="urn:xmpp:call-invites:0" audio="false"/>`,
		`<invite xmlns="urn:xmpp:call-invites:0"/>`, `<left xmlns="urn:xmpp:call-invites:0" id="c1"/>`, `<retract xmlns="urn:xmpp:call-invites:0" id="c1"/>`,
		`<accept xmlns="urn:xmpp:call-invites:0" id="c1"/>`, `<body>I am encrypted</body><encryption xmlns="urn:xmpp:eme:0" namespace="urn:example:other"/>`,
		`<file-sharing xmlns="urn:xmpp:sfs:0"/><body>https://a</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:sfs:0"/>`,
		`<replace xmlns="urn:xmpp:message-correct:0" id="m0"/><body>hi</body>`, `<retract xmlns="urn:xmpp:message-retract:1" id="m0"><moderated xmlns="urn:xmpp:message-moderate:1"/></retract>`,
		`<retract xmlns="urn:xmpp:message-retract:1" id="m0"/>`, `<reactions xmlns="urn:xmpp:reactions:0" id="m0"/><body>x</body>`, `<subject>a</subject><body>b</body>`, `<subject>a</subject>`,
		`<subject>a</subject><body>b</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reactions:0"/>`, `<x xmlns="jabber:x:oob"><url>https://a</url></x>`,
		`<received xmlns="urn:xmpp:receipts" id="m0"/>`, `<displayed xmlns="urn:xmpp:chat-markers:0" id="m0"/>`, `<displayed xmlns="urn:xmpp:chat-markers:0" id="m0"/><body>hi</body>`,
		`<body>x</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reactions:0"/>`, `<body>a</body><no-store xmlns="urn:xmpp:hints"/>`,
		`<body>a</body><delay xmlns="urn:xmpp:delay" from="verona@rooms.example.net"/>`, `<result xmlns="urn:xmpp:mam:2"/>`,
		`<body>a</body><stanza-id xmlns="urn:xmpp:sid:0" by="verona@rooms.example.net" id="r1"/><occupant-id xmlns="urn:xmpp:occupant-id:0" id="o&quot;1"/>`,
		`<body>a</body><reply xmlns="urn:xmpp:reply:0" to="a@b/c" id="m0"/><reference xmlns="urn:xmpp:reference:0" type="mention" uri="xmpp:a@b"/>` +
			`<mention xmlns="urn:xmpp:mentions:0" jid="a@b" mentions="urn:xmpp:mentions:0#channel"><active/><noping/></mention>`,
	} {
		for _, typ := range []string{"", "chat", "groupchat", "headline", "error"} {
			f.Add(`<message from="verona@rooms.example.net/romeo" to="juliet@example.com" id="m1" type="` + typ + `">` + inside + `</message>`)
		}
	}
	f.Add(`<presence type="subscribe" from="a.example" to="b.example"/>`)
	f.Add(`<presence from="a.example" to="b.example"/>`)
	f.Add(`<iq from="a.example" to="b.example"/>`)
	f.Add(`<r xmlns="urn:xmpp:sm:3"/>`)
	f.Add(`<message xmlns="jabber:client" from="a@b.example" to="a@b.example/1"><sent xmlns="urn:xmpp:carbons:2"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client" from="a@b.example/2" to="c@d.example" id="m1" type="chat"><displayed xmlns="urn:xmpp:chat-markers:0" id="m0"/></message></forwarded></sent></message>`)
	f.Add(`<message xmlns="jabber:client" from="a@b.example" to="a@b.example/1"><sent xmlns="urn:xmpp:carbons:2"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client" from="a@b.example/2" to="c@d.example" id="m1" type="chat"><proceed xmlns="urn:xmpp:jingle-message:0" id="c1"/></message></forwarded></sent></message>`)
	f.Fuzz(func(t *testing.T, text string) {
		st, err := push.ParseStanza("x", []byte(text))
		if err != nil {
			return
		}
		w := NewWriter(true)
		out := w.stanza(&st)
		back, err := push.ParseStanza("x", []byte(out.XML))
		require.NoError(t, err, out.XML)
		if st.Kind != push.KindMessage || st.Content == push.ContentSent && bareOf(st.From) == "" {
			assert.Equal(t, st.Class, back.Class, out.XML)
			assert.Equal(t, st.Kind, back.Kind, out.XML)
			return
		}
		if st.Content == push.ContentNone && st.Class > push.ClassPlain { // a stranger's carbon, which has only its class
			assert.Equal(t, st.Class, back.Class, out.XML)
			return
		}
		assert.Equal(t, st, back, out.XML)
	})
}

func bareOf(s string) string {
	for i := range s {
		if s[i] == '/' {
			return s[:i]
		}
	}
	return s
}
