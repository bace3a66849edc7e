package sce

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// envelope is what a client reads.
type envelope struct {
	XMLName xml.Name `xml:"urn:xmpp:sce:1 envelope"`
	Content struct {
		Forwarded struct {
			Message message
		} `xml:"urn:xmpp:forward:0 forwarded"`
	} `xml:"urn:xmpp:sce:1 content"`
	Pad *string `xml:"urn:xmpp:sce:1 rpad"`
}

type message struct {
	XMLName  xml.Name `xml:"jabber:client message"`
	From     string   `xml:"from,attr"`
	Type     string   `xml:"type,attr"`
	Lang     string   `xml:"http://www.w3.org/XML/1998/namespace lang,attr"`
	Body     []string `xml:"jabber:client body"`
	Thread   string   `xml:"jabber:client thread"`
	StanzaID []struct {
		By string `xml:"by,attr"`
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:sid:0 stanza-id"`
	OOB    *struct{} `xml:"jabber:x:oob x"`
	Other  *struct{} `xml:"urn:x:other other"`
	OMEMO  *struct{} `xml:"eu.siacs.conversations.axolotl encrypted"`
	Call   *struct{} `xml:"urn:xmpp:jingle-message:0 propose"`
	Direct *struct{} `xml:"jabber:x:conference x"`
	MUC    *struct{} `xml:"http://jabber.org/protocol/muc#user x"`
}

func open(t *testing.T, b []byte) envelope {
	var e envelope
	require.NoError(t, xml.Unmarshal(b, &e), "%s", b)
	return e
}

func parsed(t *testing.T, s string) *Stanza {
	st, err := Parse([]byte(s))
	require.NoError(t, err)
	return st
}

const extra = `<other xmlns="urn:x:other">` + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + `</other>`

func TestStepByStep(t *testing.T) {
	long := "> " + strings.Repeat("quoted ", 50) + "\n" + strings.Repeat("wörds ", 60)
	stanza := `<message xmlns='jabber:server' from='r@example.net/x' type='chat' xml:lang='en' a:b='c' xmlns:a='urn:a'>` +
		`<body>` + strings.ReplaceAll(long, ">", "&gt;") + `</body><body xml:lang="de">zwei</body><thread>t</thread>` + extra +
		`<x xmlns='jabber:x:oob'/><encrypted xmlns='eu.siacs.conversations.axolotl'><payload>` + strings.Repeat("p", 300) + `</payload></encrypted>` +
		`<propose xmlns='urn:xmpp:jingle-message:0' id='c'/><x xmlns='jabber:x:conference'/>` +
		`<x xmlns='http://jabber.org/protocol/muc#user'><invite/></x>` +
		`<stanza-id xmlns='urn:xmpp:sid:0' by='j@example.com' id='a1'/></message>`

	type left struct{ bodies, thread, other, oob, omemo, call, id, lang bool }
	check := func(limit int, want left) string {
		t.Helper()
		b, err := parsed(t, stanza).Envelope(limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), limit)
		m := open(t, b).Content.Forwarded.Message
		assert.Equal(t, want, left{len(m.Body) > 1, m.Thread != "", m.Other != nil, m.OOB != nil, m.OMEMO != nil, m.Call != nil && m.Direct != nil && m.MUC != nil, len(m.StanzaID) == 1, m.Lang == "en"})
		if len(m.Body) == 0 {
			return ""
		}
		return m.Body[0]
	}
	full := len(parsed(t, stanza).append(nil)) + len(head) + len(foot)
	assert.Equal(t, long, check(full, left{true, true, true, true, true, true, true, true}), "all of it")
	assert.Equal(t, long, check(full-1, left{true, true, false, true, true, true, true, true}), "without what cannot be shown")
	short := check(full-200, left{false, true, false, true, true, true, true, true})
	assert.Equal(t, strings.Repeat("wörds ", 8)+"wö…", short, "50 characters, no quotation")
	assert.Equal(t, short, check(800, left{false, false, false, false, false, true, true, true}), "only what it is")
	assert.Empty(t, check(400, left{false, false, false, false, false, false, true, true}), "only what it is called")
	assert.Empty(t, check(283, left{id: true}), "no attributes of strangers")
	_, err := parsed(t, stanza).Envelope(200)
	assert.ErrorIs(t, err, ErrTooLarge)
}

func TestArchiveIDIsTheArchives(t *testing.T) {
	s := parsed(t, `<message><body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='j@example.com' id='forged'/><stanza-id xmlns='urn:xmpp:sid:0' by='room@example.com' id='r'/></message>`)
	s.Identify("j@example.com", "a1")
	b, err := s.Envelope(2847)
	require.NoError(t, err)
	m := open(t, b).Content.Forwarded.Message
	require.Len(t, m.StanzaID, 2)
	assert.Equal(t, "r", m.StanzaID[0].ID)
	assert.Equal(t, "a1", m.StanzaID[1].ID)
}

func TestMessageFromValues(t *testing.T) {
	b, err := Message("r@example.net/x", "", "chat", "", "a<b>&\"'\n").Envelope(2847)
	require.NoError(t, err)
	m := open(t, b).Content.Forwarded.Message
	assert.Equal(t, "r@example.net/x", m.From)
	assert.Equal(t, []string{"a<b>&\"'\n"}, m.Body)
}

func TestPaddingVaries(t *testing.T) {
	lengths := map[int]bool{}
	for range 64 {
		b, err := parsed(t, `<message/>`).Envelope(2847)
		require.NoError(t, err)
		require.NotNil(t, open(t, b).Pad)
		require.LessOrEqual(t, len(*open(t, b).Pad), maxPad)
		lengths[len(b)] = true
	}
	assert.Greater(t, len(lengths), 16)
	tight, err := parsed(t, `<message/>`).Envelope(len(head) + len(foot) + len(`<message xmlns="jabber:client"/>`))
	require.NoError(t, err)
	assert.Nil(t, open(t, tight).Pad, "no room")
}

func TestNotAStanza(t *testing.T) {
	for _, s := range []string{"", "x", "<a/><b/>", "<a>", "<a/>x", "<a><!-- c --></a>", "<?x y?><a/>", strings.Repeat("<a>", 65) + strings.Repeat("</a>", 65)} {
		_, err := Parse([]byte(s))
		assert.ErrorIs(t, err, errStanza, s)
	}
}

// FuzzEnvelope: whatever a stanza is, its envelope is well-formed, within the limit, and says the same again when it is read.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`<message from='a' xml:lang='en' p:q='1' xmlns:p='urn:p'><body>x &amp; y</body><p:z xmlns:p='urn:z' p:b='2' c:b='3' xmlns:c='urn:c'/></message>`), 500)
	f.Add([]byte(`<a xmlns="&lt;&quot;"><b xmlns=""/></a>`), 3000)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		first := s.append(nil)
		again, err := Parse(first)
		require.NoError(t, err, "%s", first)
		require.True(t, bytes.Equal(first, again.append(nil)), "%s\n%s", first, again.append(nil))
		limit = max(0, min(limit, 5000))
		b, err := s.Envelope(limit)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(b), limit)
		_, err = Parse(b)
		require.NoError(t, err, "%s", b)
	})
}

func BenchmarkEnvelope(b *testing.B) {
	data := []byte(`<message from='romeo@example.net/orchard' to='juliet@example.com' type='chat' id='m1'><body>` + strings.Repeat("Wherefore art thou? ", 10) + `</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.com' id='a1'/></message>`)
	b.ReportAllocs()
	for b.Loop() {
		s, err := Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Envelope(2847); err != nil {
			b.Fatal(err)
		}
	}
}
