package push_test

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// A carbon copy that a stranger made up must not put another's name or words into a notification (XEP-0280 §11).
func TestForgedCarbonNamesItsSender(t *testing.T) {
	inner := `<received xmlns="urn:xmpp:carbons:2"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client" from="bank@example.org" to="juliet@example.com"><body>Call us</body></message></forwarded></received>`
	st, err := ParseStanza("1", []byte(`<message from="mallory@example.org/x" to="juliet@example.com/phone">`+inner+`</message>`))
	require.NoError(t, err)
	assert.Equal(t, "mallory@example.org/x", st.From)
	assert.Empty(t, st.Body)
	st, err = ParseStanza("1", []byte(`<message from="juliet@example.com" to="juliet@example.com/phone">`+inner+`</message>`))
	require.NoError(t, err)
	assert.Equal(t, "bank@example.org", st.From)
	assert.Equal(t, "Call us", st.Body)
}

// Whoever wraps a message, its class and content are those that the account's own server says: of a stranger's nothing but the class of what is inside.
func TestCarbonContent(t *testing.T) {
	carbon := func(attrs, inside, beside string) Stanza {
		st, err := ParseStanza("1", []byte(`<message `+attrs+`><received xmlns="urn:xmpp:carbons:2"><forwarded xmlns="urn:xmpp:forward:0">`+
			`<message xmlns="jabber:client" from="romeo@example.net/x" to="juliet@example.com">`+inside+`</message></forwarded></received>`+beside+`</message>`))
		require.NoError(t, err)
		return st
	}
	const body, seen = `<body>hi</body>`, `<displayed xmlns="urn:xmpp:chat-markers:0" id="m1"/><body>seen</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:chat-markers:0"/>`
	own := `from="juliet@example.com" to="juliet@example.com/phone"`
	for _, c := range []struct {
		attrs, inside string
		content       Content
		class         Class
	}{
		{own, body, ContentText, ClassImportant},
		{own, seen, ContentDisplayed, ClassPlain},
		{`to="juliet@example.com/phone"`, body, ContentText, ClassImportant},
		{`from="juliet@example.com"`, body, ContentText, ClassImportant},
		{`from="mallory@example.org/x" to="juliet@example.com"`, body, ContentNone, ClassImportant},
	} {
		st := carbon(c.attrs, c.inside, "")
		assert.Equal(t, c.content, st.Content, c.attrs)
		assert.Equal(t, c.class, st.Class, c.attrs)
	}
	assert.Equal(t, ContentNone, carbon(`from="mallory@example.org/x" to="juliet@example.com"`, body, body).Content, "words of one's own beside it")
}

// TestWhatIsNoCarbon: only the one message in the one <forwarded/> of a copy is its message (XEP-0297 §3).
func TestWhatIsNoCarbon(t *testing.T) {
	const message = `<message xmlns="jabber:client" from="romeo@example.net/x" to="juliet@example.com"><body>hi</body></message>`
	forwarded := func(inside string) string {
		return `<forwarded xmlns="urn:xmpp:forward:0">` + inside + `</forwarded>`
	}
	for inside, want := range map[string]Content{
		forwarded(message): ContentText,
		forwarded(`<delay xmlns="urn:xmpp:delay" stamp="2026-01-01T00:00:00Z"/>` + message):                                                                                       ContentText,
		forwarded(message + `<message xmlns="jabber:client"/>`):                                                                                                                   ContentText,
		forwarded(message) + `</received><received xmlns="urn:xmpp:carbons:2">` + forwarded(`<message xmlns="jabber:client"/>`):                                                   ContentText,
		forwarded(message) + forwarded(`<message xmlns="jabber:client"/>`):                                                                                                        ContentText,
		forwarded(`<x/>` + strings.Replace(message, "</body>", `</body>`+`<received xmlns="urn:xmpp:carbons:2">`+forwarded(`<message xmlns="jabber:client"/>`)+`</received>`, 1)): ContentText,
		forwarded(`<x>` + message + `</x>`):                                        ContentNone,
		forwarded(strings.Replace(message, "jabber:client", "", 1)):                ContentNone,
		forwarded(strings.Replace(message, "jabber:client", "some:thing", 1)):      ContentNone,
		forwarded(strings.ReplaceAll(message, "message", "presence")):              ContentNone,
		forwarded(``) + message:                                                    ContentNone,
		`<x>` + forwarded(``) + message + `</x>`:                                   ContentNone,
		`<x>` + forwarded(message) + `</x>`:                                        ContentNone,
		strings.Replace(forwarded(message), "urn:xmpp:forward:0", "some:thing", 1): ContentNone,
		strings.ReplaceAll(forwarded(message), "forwarded", "forwards"):            ContentNone,
		message: ContentNone,
	} {
		text := `<message from="juliet@example.com" to="juliet@example.com/phone"><received xmlns="urn:xmpp:carbons:2">` + inside + `</received></message>`
		st, err := ParseStanza("1", []byte(text))
		require.NoError(t, err, text)
		assert.Equal(t, want, st.Content, text)
		other, err := ReadStanza("1", xml.NewDecoder(strings.NewReader(text)))
		require.NoError(t, err, text)
		assert.Equal(t, st, other, text)
	}
}

// byteReader gives a message whose body is in one token of bytes that may be no text.
type byteReader struct{ tokens []xml.Token }

func (r *byteReader) Token() (xml.Token, error) {
	if len(r.tokens) == 0 {
		return nil, io.EOF
	}
	tok := r.tokens[0]
	r.tokens = r.tokens[1:]
	return tok, nil
}

// TestBodyOfBytes: a parser that is not ours may give what is no text, and never so much that it has a beginning where it can be cut.
func TestBodyOfBytes(t *testing.T) {
	message, body := xml.StartElement{Name: xml.Name{Local: "message"}}, xml.StartElement{Name: xml.Name{Local: "body"}}
	st, err := ReadStanza("1", &byteReader{[]xml.Token{message, body, xml.CharData(strings.Repeat("\x80", 5000)), body.End(), message.End()}})
	require.NoError(t, err)
	assert.Empty(t, st.Body)
	assert.Equal(t, ContentText, st.Content)
	st, err = ReadStanza("1", &byteReader{[]xml.Token{message, body, xml.CharData("hi"), xml.CharData(strings.Repeat("ö", 2000)), xml.CharData("!"), body.End(), message.End()}})
	require.NoError(t, err)
	assert.Equal(t, "hi"+strings.Repeat("ö", 1023), st.Body)
}

func TestStanzaEdges(t *testing.T) {
	parse := func(id, text string) Stanza {
		st, err := ParseStanza(id, []byte(text))
		require.NoError(t, err)
		return st
	}
	// Mentions of nobody take no room.
	text := `<message from="romeo@example.net" to="juliet@example.com">` + strings.Repeat(`<mention xmlns="urn:xmpp:mentions:0"/>`, 40) + `<mention xmlns="urn:xmpp:mentions:0" jid="juliet@example.com"/></message>`
	require.NotNil(t, parse("1", text).Details)
	assert.Len(t, parse("1", text).Details.Mentions, 1)
	// A stanza without an ID is not the one in the archive.
	assert.False(t, parse("", `<message from="romeo@example.net" to="juliet@example.com"><body>hi</body></message>`).Archived)
	assert.False(t, parse("a1", `<message from="romeo@example.net"><body>hi</body><stanza-id xmlns="urn:xmpp:sid:0" id="a1"/></message>`).Archived, "by nobody, to nobody")
	// What a bounced message quotes is left out.
	assert.Nil(t, parse("1", `<message type="error" from="romeo@example.net" to="juliet@example.com"><replace xmlns="urn:xmpp:message-correct:0" id="m1"/></message>`).Details)
	// Of two quotations the text is without both.
	quotes := `<message from="romeo@example.net" to="juliet@example.com"><body>ab cd ef</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reply:0"><body start="0" end="3"/></fallback>` +
		`<fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reply:0"><body start="6" end="8"/></fallback></message>`
	assert.Equal(t, "cd ", parse("1", quotes).Body)
	// Identifiers and names that are too long are left out, and not cut.
	for n, want := range map[int]string{256: strings.Repeat("x", 256), 257: ""} {
		assert.Equal(t, want, parse("1", `<message id="`+strings.Repeat("x", n)+`" from="romeo@example.net" to="juliet@example.com"/>`).MessageID)
	}
	for n, want := range map[int]int{32: 1, 33: 0} {
		st := parse("1", `<message from="romeo@example.net" to="juliet@example.com"><propose xmlns="urn:xmpp:jingle-message:0" id="c"><description xmlns="urn:xmpp:jingle:apps:rtp:1" media="`+strings.Repeat("x", n)+`"/></propose></message>`)
		assert.Len(t, st.Details.Call.Media, want)
	}
	for _, attr := range []string{"from", "to"} {
		_, err := ParseStanza("1", []byte(`<message `+attr+`="@"/>`))
		require.ErrorIs(t, err, ErrStanza)
	}
	// The chat of a message between a room and the user is the room's, and that of the user's own the other side's.
	for _, c := range []struct{ typ, from, to, chat string }{
		{"chat", "juliet@example.com/x", "romeo@example.net/y", "romeo@example.net"},
		{"chat", "", "romeo@example.net", "romeo@example.net"},
		{"chat", "romeo@example.net/y", "juliet@example.com", "romeo@example.net"},
		{"chat", "juliet@example.com/x", "", "juliet@example.com"},
		{"groupchat", "room@rooms.example.net/x", "juliet@example.com", "room@rooms.example.net"},
		{"groupchat", "juliet@example.com/x", "room@rooms.example.net", "room@rooms.example.net"}, // as the archive of who sent it may have it
	} {
		st := Stanza{Type: MessageChat, From: c.from, To: c.to}
		if c.typ == "groupchat" {
			st.Type = MessageGroupchat
		}
		assert.Equal(t, c.chat, st.Chat("juliet@example.com"), "%+v", c)
	}
	// A request is a presence.
	assert.Equal(t, ContentNone, Features{Kind: KindIQ, Type: "subscribe"}.Content())
}
