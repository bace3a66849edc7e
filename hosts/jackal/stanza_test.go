package jackal

import (
	"encoding/xml"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/jackal-xmpp/stravaganza"
	xmppparser "github.com/jackal-xmpp/stravaganza/parser"
	"github.com/stretchr/testify/require"
	"github.com/xmpp-push/push"
)

const account = "juliet@example.com"

// stanzas are of all classes, and some are meant to be misread.
var stanzas = map[string]string{
	"forged carbon":        `<message from='mallory@example.org/x' to='juliet@example.com/t' type='chat'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bank@example.org' to='juliet@example.com' type='chat'><body>hello</body></message></forwarded></received></message>`,
	"text":                 `<message from='romeo@example.net/o' to='juliet@example.com' type='chat'><body>hello</body></message>`,
	"empty body":           `<message from='romeo@example.net' to='juliet@example.com'><body/></message>`,
	"second body":          `<message from='romeo@example.net' to='juliet@example.com'><body/><body xml:lang='de'>Servus</body></message>`,
	"long body":            `<message from='romeo@example.net' to='juliet@example.com'><body>` + strings.Repeat("ä", 2000) + `</body></message>`,
	"other body":           `<message from='romeo@example.net' to='juliet@example.com'><body xmlns='urn:other'>hello</body></message>`,
	"body in a body":       `<message from='romeo@example.net' to='juliet@example.com'><x xmlns='urn:other'><body>hello</body></x></message>`,
	"headline":             `<message from='romeo@example.net' to='juliet@example.com' type='headline'><body>hello</body></message>`,
	"subject":              `<message from='room@example.net' to='juliet@example.com' type='groupchat'><subject>s</subject><body>hello</body></message>`,
	"groupchat":            `<message from='room@example.net/n' to='juliet@example.com' type='groupchat'><body>hello</body></message>`,
	"call":                 `<message from='romeo@example.net/o' to='juliet@example.com'><propose xmlns='urn:xmpp:jingle-message:0' id='a'/></message>`,
	"call of old":          `<message from='romeo@example.net/o' to='juliet@example.com'><propose xmlns='urn:xmpp:jingle-message:1' id='a'/></message>`,
	"OMEMO":                `<message from='romeo@example.net/o' to='juliet@example.com'><encrypted xmlns='eu.siacs.conversations.axolotl'><header/><payload>x</payload></encrypted></message>`,
	"OMEMO key":            `<message from='romeo@example.net/o' to='juliet@example.com'><encrypted xmlns='urn:xmpp:omemo:2'><header/></encrypted><body>fallback</body></message>`,
	"payload too deep":     `<message from='romeo@example.net/o' to='juliet@example.com'><encrypted xmlns='urn:xmpp:omemo:1'><header><payload/></header></encrypted></message>`,
	"PGP":                  `<message from='romeo@example.net/o' to='juliet@example.com'><x xmlns='jabber:x:encrypted'>x</x></message>`,
	"OX":                   `<message from='romeo@example.net/o' to='juliet@example.com'><openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp></message>`,
	"prefixes":             `<message from='romeo@example.net/o' to='juliet@example.com' xmlns:o='urn:xmpp:omemo:0'><o:encrypted><o:payload/></o:encrypted></message>`,
	"prefix meaning other": `<message from='romeo@example.net/o' to='juliet@example.com' xmlns:o='urn:other'><o:body>hello</o:body></message>`,
	"no addresses":         `<message><body>hello</body></message>`,
	"JIDs to be prepared":  `<message from='ROMEO@Example.NET/Orchard' to='juliet@example.com'><body>hello</body></message>`,
	"received carbon": `<message from='juliet@example.com' to='juliet@example.com/t' type='chat'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<message xmlns='jabber:client' from='romeo@example.net/o' to='juliet@example.com/p' type='chat'><body>hello</body></message></forwarded></received></message>`,
	"sent carbon": `<message from='juliet@example.com' to='juliet@example.com/t' type='chat'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<delay xmlns='urn:xmpp:delay'/><message xmlns='jabber:client' from='juliet@example.com/p' to='romeo@example.net' type='chat'><body>hello</body></message></forwarded></sent></message>`,
	"call as carbon": `<message from='juliet@example.com' to='juliet@example.com/t'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<message xmlns='jabber:client' from='romeo@example.net/o' to='juliet@example.com/p'><propose xmlns='urn:xmpp:jingle-message:0' id='a'/></message></forwarded></received></message>`,
	"carbon of nothing": `<message from='juliet@example.com' to='juliet@example.com/t'><received xmlns='urn:xmpp:carbons:2'/><body>hello</body></message>`,
	"forwarded, no carbon": `<message from='romeo@example.net' to='juliet@example.com'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<message xmlns='jabber:client' from='a@b' to='c@d'><body>hello</body></message></forwarded></message>`,
	"carbon without namespace": `<message from='juliet@example.com' to='juliet@example.com/t'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>` +
		`<message from='a@b' to='c@d'><body>hello</body></message></forwarded></sent></message>`,
	"presence": `<presence from='romeo@example.net/o' to='juliet@example.com'><status>hello</status></presence>`,
	"IQ":       `<iq type='get' id='1' from='romeo@example.net/o' to='juliet@example.com'><query xmlns='jabber:iq:version'/></iq>`,
	"nonza":    `<r xmlns='urn:xmpp:sm:3'/>`,
}

func parse(t testing.TB, text string) stravaganza.Element {
	t.Helper()
	e, err := xmppparser.New(strings.NewReader(text), xmppparser.DefaultMode, 0).Parse()
	require.NoError(t, err)
	return e
}

// A stanza made of an element is the one that the library makes of the element's text.
func TestStanza(t *testing.T) {
	for name, text := range stanzas {
		t.Run(name, func(t *testing.T) {
			want, err := push.ParseStanza("id", []byte(text))
			require.NoError(t, err)
			e := parse(t, text)
			require.Equal(t, want, toStanza(account, "id", e))

			read, err := push.ReadStanza("id", newTokens(e))
			require.NoError(t, err)
			require.Equal(t, want, read)
		})
	}
}

func TestStanzaID(t *testing.T) {
	sid := func(by, id string) string {
		return `<stanza-id xmlns='urn:xmpp:sid:0' by='` + by + `' id='` + id + `'/>`
	}
	message := func(ids string) string {
		return `<message from='romeo@example.net/o' to='juliet@example.com'>` + ids + `<body>hello</body></message>`
	}
	for _, c := range []struct{ name, text, want string }{
		{"of the archive", message(sid(account, "a1")), "a1"},
		{"of nobody", message(""), "own"},
		{"of another", message(sid("romeo@example.net", "r1") + sid(account, "a1")), "a1"},
		{"the first of the archive", message(sid(account, "a1") + sid(account, "a2")), "a1"},
		{
			"of the message in a carbon copy",
			`<message from='juliet@example.com' to='juliet@example.com/t'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>` +
				strings.Replace(message(sid(account, "a1")), "<message", "<message xmlns='jabber:client'", 1) + `</forwarded></received></message>`,
			"a1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, toStanza(account, "own", parse(t, c.text)).ID)
		})
	}
}

// The tokens of an element are those of its text.
func TestTokens(t *testing.T) {
	for name, text := range stanzas {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, written(t, xml.NewDecoder(strings.NewReader(text))), written(t, newTokens(parse(t, text))))
		})
	}
}

func written(t *testing.T, r xml.TokenReader) string {
	t.Helper()
	var all []string
	for {
		tok, err := r.Token()
		if tok != nil {
			all = append(all, describe(tok))
		}
		if err == io.EOF {
			return strings.Join(all, "\n")
		}
		require.NoError(t, err)
	}
}

func describe(tok xml.Token) string {
	var b strings.Builder
	switch t := tok.(type) {
	case xml.StartElement:
		b.WriteString("<" + t.Name.Space + " " + t.Name.Local)
		for _, a := range t.Attr {
			b.WriteString(" " + a.Name.Space + ":" + a.Name.Local + "=" + a.Value)
		}
	case xml.EndElement:
		b.WriteString(">" + t.Name.Space + " " + t.Name.Local)
	case xml.CharData:
		b.WriteString(string(t))
	}
	return b.String()
}

func FuzzStanza(f *testing.F) {
	for _, text := range stanzas {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := xmppparser.New(strings.NewReader(text), xmppparser.DefaultMode, 1<<16).Parse()
		if err != nil || e == nil {
			return
		}
		// What jackal has understood can differ from what was written: it drops all but the last text of an element. So the tokens are the
		// other way that is compared.
		want, err := push.ReadStanza("id", newTokens(e))
		if err != nil {
			return
		}
		got := toStanza("", "id", e)
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%q:\nwant %+v\n got %+v", text, want, got)
		}
	})
}
