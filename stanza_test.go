package push_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// hostile is XML that somebody sends to find out what happens, and whether it is a stanza.
var hostile = []struct {
	name, xml string
	ok        bool
}{
	{"empty", ``, false},
	{"space", " \n", false},
	{"text", `hello`, false},
	{"unclosed", `<message><body>hi</body>`, false},
	{"unclosed tag", `<message`, false},
	{"unclosed attribute", `<message to="juliet`, false},
	{"unclosed end", `<message></message`, false},
	{"wrong end", `<message><body>hi</message></body>`, false},
	{"wrong prefix at the end", `<a:message xmlns:a="x" xmlns:b="x"></b:message>`, false},
	{"end only", `</message>`, false},
	{"two", `<message/><message/>`, false},
	{"text after", `<message/>hi`, false},
	{"space around", "\n <message/> \n", true},
	{"deep", strings.Repeat(`<message>`, 10000) + strings.Repeat(`</message>`, 10000), false},
	{"deep and unclosed", strings.Repeat(`<a>`, 10000), false},
	{"a part of a stanza", `<body xmlns="jabber:client">Hi</body>`, false},
	{"a part without a namespace", `<show>away</show>`, false},
	{"what is none in another namespace", `<error xmlns="some:thing"/>`, true},
	{"as deep as may be", strings.Repeat(`<a>`, MaxStanzaDepth) + strings.Repeat(`</a>`, MaxStanzaDepth), true},
	{"one deeper", strings.Repeat(`<a>`, MaxStanzaDepth+1) + strings.Repeat(`</a>`, MaxStanzaDepth+1), false},
	{"many children", `<message>` + strings.Repeat(`<a/>`, 10000) + `</message>`, true},
	{"document type", `<!DOCTYPE message [<!ENTITY a "aaaaaaaaaa">]><message><body>&a;</body></message>`, false},
	{"document type inside", `<message><!DOCTYPE message></message>`, false},
	{"entity", `<message><body>&lol;</body></message>`, false},
	{"entity of HTML", `<message><body>&nbsp;</body></message>`, false},
	{"entity in an attribute", `<message to="&lol;"/>`, false},
	{"entity unclosed", `<message><body>&amp</body></message>`, false},
	{"long entity", `<message><body>&` + strings.Repeat("a", 10000) + `;</body></message>`, false},
	{"known entities", `<message><body>&lt;&gt;&amp;&quot;&apos;&#9;&#x1F600;</body></message>`, true},
	{"reference to nothing", `<message><body>&#0;</body></message>`, false},
	{"reference to a control character", `<message><body>&#x1;</body></message>`, false},
	{"reference to half a character", `<message><body>&#xD800;</body></message>`, false},
	{"reference beyond Unicode", `<message><body>&#x110000;</body></message>`, false},
	{"huge reference", `<message><body>&#99999999999999999999;</body></message>`, false},
	{"negative reference", `<message><body>&#-1;</body></message>`, false},
	{"comment", `<message><!-- hi --></message>`, false},
	{"comment before", `<!-- hi --><message/>`, false},
	{"processing instruction", `<message><?php exit ?></message>`, false},
	{"declaration", `<?xml version="1.0"?><message/>`, false},
	{"attribute twice", `<message to="juliet@example.com" to="romeo@example.net"/>`, false},
	{"attribute without quotes", `<message to=juliet/>`, false},
	{"attribute without value", `<message to/>`, false},
	{"attributes without space", `<message from="a.example"to="b.example"/>`, false},
	{"less in an attribute", `<message to="<"/>`, false},
	{"many attributes", `<message ` + numbered(`a%d="" `, 1000) + `/>`, false},
	{"prefix not declared", `<x:message/>`, false},
	{"prefix of an attribute not declared", `<message x:to="juliet@example.com"/>`, false},
	{"prefix without namespace", `<message xmlns:x=""/>`, false},
	{"prefix of another element", `<message><a xmlns:x="y"/><x:b/></message>`, false},
	{"prefix xmlns", `<xmlns:message xmlns:xmlns="jabber:client"/>`, false},
	{"prefix xml", `<xml:message xmlns:xml="jabber:client"/>`, false},
	{"language", `<message xml:lang="de"/>`, true},
	{"name with two colons", `<a:b:c xmlns:a="x"/>`, false},
	{"name with a digit first", `<1message/>`, false},
	{"namespaces", `<message><body>hi</body>` + numbered(`<a%d xmlns:b="c%[1]d"/>`, 40) + `</message>`, true},
	{"40 namespaces at once", `<message ` + numbered(`xmlns:a%d="b" `, 40) + `/>`, false},
	{"40 namespaces in one another", numbered(`<a xmlns:a%d="b">`, 40) + strings.Repeat(`</a>`, 40), false},
	{"not UTF-8", "<message><body>\xff\xfe</body></message>", false},
	{"half a character", "<message><body>\xe2\x82</body></message>", false},
	{"character in too many bytes", "<message><body>\xc0\xaf</body></message>", false},
	{"half of a pair", "<message><body>\xed\xa0\x80</body></message>", false},
	{"not a character", "<message><body>\uffff</body></message>", false},
	{"zero byte", "<message><body>\x00</body></message>", false},
	{"control character", "<message><body>\x08</body></message>", false},
	{"byte order mark", "\ufeff<message/>", false},
	{"end of CDATA", `<message><body>]]></body></message>`, false},
	{"CDATA unclosed", `<message><body><![CDATA[hi</body></message>`, false},
	{"CDATA outside", `<![CDATA[hi]]>`, false},
	{"JID that is none", `<message to="@example.com"/>`, false},
	{"long JID", `<message to="` + strings.Repeat("a", 5000) + `@example.com"/>`, false},
	{"slash in a tag", `<message / >`, false},
	{"slash at the end", `<message /`, false},
	{"end with an attribute", `<message></message a="b">`, false},
	{"end with a space", `<message></message >`, true},
	{"spaces in a tag", "<message to\n=\t'a.example'\r\n></message>", true},
	{"letters", `<z><A/><Z/><_/></z>`, true},
	{"last character and a space", `<message><body>&#x10FFFF;&#32;</body></message>`, true},
}

// numbered writes a text for each number.
func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestParseHostileStanzas(t *testing.T) {
	for _, h := range hostile {
		st, err := ParseStanza("x", []byte(h.xml))
		if h.ok {
			assert.NoError(t, err, h.name)
			continue
		}
		assert.ErrorIs(t, err, ErrStanza, h.name)
		assert.Zero(t, st, h.name)
		if err != nil {
			assert.Less(t, len(err.Error()), 400, h.name)
			assert.True(t, utf8.ValidString(err.Error()), h.name)
		}
	}
}

// What is read from a token reader has been through a parser, which may accept more. It must be an error or a Stanza, in bounded memory.
func TestReadHostileStanzas(t *testing.T) {
	for _, h := range hostile {
		st, err := ReadStanza("x", xml.NewDecoder(strings.NewReader(h.xml)))
		if err != nil {
			assert.ErrorIs(t, err, ErrStanza, h.name)
			assert.False(t, h.ok, "%s: %v", h.name, err)
			continue
		}
		if want, err := ParseStanza("x", []byte(h.xml)); err == nil {
			assert.Equal(t, want, st, h.name)
		}
	}
}

// What the hostile do with things that the rules look at.
func TestTrickyStanzas(t *testing.T) {
	carbon := func(inner string) string {
		return `<message xmlns="jabber:client" from="juliet@example.com" to="juliet@example.com/a"><received xmlns="urn:xmpp:carbons:2">` +
			`<forwarded xmlns="urn:xmpp:forward:0">` + inner + `</forwarded></received></message>`
	}
	for _, c := range []struct {
		name, xml string
		want      Stanza
	}{
		{"prefixed propose", `<message xmlns:j="urn:xmpp:jingle-message:0"><j:propose/></message>`, Stanza{Class: ClassUrgent, Content: ContentCall, Details: &Details{Call: &Call{}}}},
		{"prefixed encrypted", `<message xmlns:o="urn:xmpp:omemo:2"><o:encrypted><o:payload/></o:encrypted></message>`, Stanza{Class: ClassImportant, Content: ContentEncrypted}},
		{"prefixed message", `<c:message xmlns:c="jabber:client" to="a.example"><c:body>hi</c:body></c:message>`, Stanza{Class: ClassImportant, To: "a.example", Body: "hi"}},
		{"body of the default namespace in a prefixed message", `<c:message xmlns:c="jabber:client"><body>hi</body></c:message>`, Stanza{}},
		{"prefix for something else inside", `<message xmlns:j="urn:xmpp:jingle-message:0"><x xmlns:j="other"><j:propose/></x></message>`, Stanza{}},
		{"default namespace taken back", `<message xmlns="jabber:client"><x xmlns=""/><body>hi</body></message>`, Stanza{Class: ClassImportant, Body: "hi"}},
		{"body without the namespace", `<message xmlns="jabber:client"><body xmlns="">hi</body></message>`, Stanza{}},
		{"message of nobody", `<message xmlns="a:b"><body>hi</body></message>`, Stanza{Kind: KindNonza}},
		{"presence", `<presence from="a.example"><body>hi</body></presence>`, Stanza{Kind: KindPresence, From: "a.example"}},
		{"iq", `<iq to="a.example"><body>hi</body></iq>`, Stanza{Kind: KindIQ, To: "a.example"}},
		{"component", `<message xmlns="jabber:component:accept"><body>hi</body></message>`, Stanza{Class: ClassImportant, Body: "hi"}},
		{"attributes with a prefix", `<message xmlns:a="b" a:to="a.example" a:type="headline"><body>hi</body></message>`, Stanza{Class: ClassImportant, Body: "hi"}},
		{"attributes of a child", `<message><body type="headline" to="a.example">hi</body></message>`, Stanza{Class: ClassImportant, Body: "hi"}},
		{"CDATA", `<message><body><![CDATA[<b>]]>&amp;<![CDATA[]]]]>x</body></message>`, Stanza{Class: ClassImportant, Body: "<b>&]]x"}},
		{"empty CDATA", `<message><body><![CDATA[]]></body></message>`, Stanza{}},
		{"lines", "<message><body>a\r\nb\rc&#13;</body></message>", Stanza{Class: ClassImportant, Body: "a\nb\nc\r"}},
		{"spaces", "<message><body> </body></message>", Stanza{Class: ClassImportant, Body: " "}},
		{"references in attributes", `<message to="a&#46;example" from='b&#x2e;example'/>`, Stanza{To: "a.example", From: "b.example"}},
		{"markup in the body", `<message><body>a<b>c</b>d</body></message>`, Stanza{Class: ClassImportant, Body: "ad"}},
		{"markup only", `<message><body><b>c</b></body></message>`, Stanza{}},
		{"address to be prepared", `<message to="Juliet@EXAMPLE.com/Balcony"/>`, Stanza{To: "juliet@example.com/Balcony"}},
		{"carbon", carbon(`<message xmlns="jabber:client" to="a.example"><body>hi</body></message>`), Stanza{Class: ClassImportant, To: "a.example", Body: "hi"}},
		{"carbon in a carbon", carbon(carbon(`<message xmlns="jabber:client"><body>hi</body></message>`)), Stanza{From: "juliet@example.com", To: "juliet@example.com/a"}},
		{"carbon of a carbon's namespace", carbon(`<message><body>hi</body></message>`), Stanza{From: "juliet@example.com", To: "juliet@example.com/a"}},
		{"carbon of nothing", carbon(``), Stanza{From: "juliet@example.com", To: "juliet@example.com/a"}},
		{"carbon of a presence", carbon(`<presence xmlns="jabber:client"><body>hi</body></presence>`), Stanza{From: "juliet@example.com", To: "juliet@example.com/a"}},
		{"carbon in a presence", strings.NewReplacer(`<message xmlns="jabber:client" from`, `<presence xmlns="jabber:client" from`, `</received></message>`, `</received></presence>`).
			Replace(carbon(`<message xmlns="jabber:client"><body>hi</body></message>`)), Stanza{Kind: KindPresence, From: "juliet@example.com", To: "juliet@example.com/a"}},
		{"carbon that a stranger made up", strings.Replace(carbon(`<message xmlns="jabber:client" from="nurse@example.com" to="a.example"><body>hi</body></message>`), `from="juliet@example.com"`, `from="tybalt@example.net/x"`, 1),
			Stanza{Class: ClassImportant, From: "tybalt@example.net/x", To: "juliet@example.com/a"}},
		{"forwarded without a carbon", `<message xmlns="jabber:client"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client"><body>hi</body></message></forwarded></message>`, Stanza{}},
		{"many carbons", strings.Replace(carbon(`<message xmlns="jabber:client"/>`), `<received`, `<sent xmlns="urn:xmpp:carbons:2"/><received`, 1), Stanza{}},
		{"payload of another", `<message><encrypted xmlns="urn:xmpp:omemo:2"><x><payload/></x></encrypted></message>`, Stanza{Content: ContentKeyTransport}},
	} {
		c.want.ID = "x"
		if c.want.Content == ContentNone && c.want.Body != "" && c.name != "carbon that a stranger made up" {
			c.want.Content = ContentText
		}
		st, err := ParseStanza("x", []byte(c.xml))
		assert.NoError(t, err, c.name)
		assert.Equal(t, c.want, st, c.name)
		st, err = ReadStanza("x", xml.NewDecoder(strings.NewReader(c.xml)))
		assert.NoError(t, err, c.name)
		assert.Equal(t, c.want, st, c.name)
	}
}

// Whatever is sent, what is kept of it is small.
func TestStanzasAreBounded(t *testing.T) {
	body := func(text string) string { return `<message><body>` + text + `</body></message>` }
	for _, text := range []string{
		strings.Repeat("a", 10000), strings.Repeat("é", 5000), "a" + strings.Repeat("é", 5000), strings.Repeat("€", 3000), strings.Repeat("😀", 3000),
		strings.Repeat("é<![CDATA[€]]>&amp;", 1000), strings.Repeat("a", 2047) + "<b/>" + "éa", strings.Repeat("a", 2048),
		strings.Repeat("a", 2047) + "é<b/>b",
	} {
		st, err := ParseStanza("", []byte(body(text)))
		require.NoError(t, err)
		assert.LessOrEqual(t, len(st.Body), 2048)
		assert.Greater(t, len(st.Body), 2040)
		assert.True(t, utf8.ValidString(st.Body))
		assert.False(t, strings.HasSuffix(st.Body, "b"), "what was cut off leaves no hole")
		other, err := ReadStanza("", xml.NewDecoder(strings.NewReader(body(text))))
		require.NoError(t, err)
		assert.Equal(t, other, st)
	}

	fits := body(strings.Repeat("a", MaxStanzaBytes-len(body(""))))
	_, err := ParseStanza("", []byte(fits))
	assert.NoError(t, err)
	_, err = ParseStanza("", []byte(fits+" "))
	assert.ErrorIs(t, err, ErrStanza)

	// 10 MB as text, as elements, as one attribute: an error, and no more memory than one stanza may take.
	const size = 10 << 20
	for _, big := range []string{
		body(strings.Repeat("a", size)),
		`<message>` + strings.Repeat(`<a/>`, size/4) + `</message>`,
		`<message a="` + strings.Repeat("a", size) + `"/>`,
		`<message>` + strings.Repeat("a", size),
	} {
		data := []byte(big)
		used := allocated(func() { _, err = ParseStanza("", data) })
		assert.ErrorIs(t, err, ErrStanza)
		assert.Less(t, used, uint64(MaxStanzaBytes/10))
	}
	message := xml.StartElement{Name: xml.Name{Local: "message"}}
	long := strings.Repeat("a", 1000)
	for _, part := range [][]xml.Token{
		{xml.CharData(long)},
		{xml.StartElement{Name: xml.Name{Local: long}}, xml.EndElement{Name: xml.Name{Local: long}}},
		{xml.StartElement{Attr: []xml.Attr{{Name: xml.Name{Local: "a"}, Value: long}}}, xml.EndElement{}},
		{xml.StartElement{Name: xml.Name{Space: long}}, xml.EndElement{}},
	} {
		list := []xml.Token{message}
		for range MaxStanzaBytes/1000 + 1 {
			list = append(list, part...)
		}
		_, err = ReadStanza("", &tokens{list: append(list, message.End())})
		assert.ErrorIs(t, err, ErrStanza)
	}
	_, err = ReadStanza("", xml.NewDecoder(strings.NewReader(strings.Repeat(`<a>`, MaxStanzaDepth+1)+strings.Repeat(`</a>`, MaxStanzaDepth+1))))
	assert.ErrorIs(t, err, ErrStanza)
	deep := []byte(strings.Repeat(`<message>`, 10000))
	assert.Less(t, allocated(func() { _, err = ParseStanza("", deep) }), uint64(MaxStanzaBytes/2))
	assert.ErrorIs(t, err, ErrStanza)
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// tokens is a token reader of the kind that mellium's are.
type tokens struct {
	list []xml.Token
	// early gives the last token together with io.EOF, as an xml.TokenReader may.
	early bool
	// then is what comes when there are no more tokens.
	then error
}

func (r *tokens) Token() (xml.Token, error) {
	if len(r.list) == 0 {
		return nil, r.then
	}
	t := r.list[0]
	r.list = r.list[1:]
	if r.early && len(r.list) == 0 {
		return t, io.EOF
	}
	return t, nil
}

func TestReadStanza(t *testing.T) {
	message := xml.StartElement{Name: xml.Name{Space: "jabber:client", Local: "message"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "jabber:client"}, // mellium keeps it
		{Name: xml.Name{Local: "to"}, Value: "juliet@example.com"},
		{Name: xml.Name{Space: "http://www.w3.org/XML/1998/namespace", Local: "lang"}, Value: "de"},
	}}
	body := xml.StartElement{Name: xml.Name{Space: "jabber:client", Local: "body"}}
	all := []xml.Token{message, body, xml.CharData("h"), xml.CharData("i"), body.End(), message.End()}
	want := Stanza{ID: "x", To: "juliet@example.com", Body: "hi", Class: ClassImportant, Content: ContentText}

	for _, early := range []bool{false, true} {
		st, err := ReadStanza("x", &tokens{list: all, early: early, then: io.EOF})
		require.NoError(t, err)
		assert.Equal(t, want, st)
	}

	// It reads no further than to the end.
	r := &tokens{list: append(all[:len(all):len(all)], message)}
	_, err := ReadStanza("x", r)
	require.NoError(t, err)
	assert.Equal(t, []xml.Token{message}, r.list)

	// White space before it is no harm, anything else is.
	_, err = ReadStanza("x", &tokens{list: append([]xml.Token{xml.CharData(" \n")}, all...)})
	assert.NoError(t, err)
	for _, first := range []xml.Token{xml.CharData("hi"), message.End(), xml.Comment("hi")} {
		_, err = ReadStanza("x", &tokens{list: append([]xml.Token{first}, all...)})
		assert.ErrorIs(t, err, ErrStanza, "%T", first)
	}

	// It ends too early, with the last token or after it, or fails.
	for n := range all {
		for _, early := range []bool{false, true} {
			_, err = ReadStanza("x", &tokens{list: all[:n], early: early, then: io.EOF})
			assert.ErrorIs(t, err, ErrStanza)
			assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
			assert.NotErrorIs(t, err, io.EOF)
		}
		_, err = ReadStanza("x", &tokens{list: all[:n], then: iotest.ErrTimeout})
		assert.ErrorIs(t, err, ErrStanza)
		assert.ErrorIs(t, err, iotest.ErrTimeout)
	}

	// Tokens are the reader's again when it gives the next one.
	text := []byte("hi")
	list := []xml.Token{message, body, xml.CharData(text), body.End(), message.End()}
	st, err := ReadStanza("x", scribble{&tokens{list: list}, text})
	require.NoError(t, err)
	assert.Equal(t, want, st)

	// A reader without an end.
	_, err = ReadStanza("x", endless{message})
	assert.ErrorIs(t, err, ErrStanza)
	_, err = ReadStanza("x", &tokens{list: []xml.Token{message, body}, then: nil})
	assert.ErrorIs(t, err, io.ErrNoProgress)

	// A token that is none says that nothing happened.
	_, err = ReadStanza("x", &tokens{list: append([]xml.Token{nil, nil, message, nil}, all[1:]...)})
	assert.NoError(t, err)
}

// scribble writes over the text of the token before.
type scribble struct {
	*tokens
	text []byte
}

func (s scribble) Token() (xml.Token, error) {
	if _, ok := s.list[0].(xml.CharData); !ok && len(s.list) < 3 {
		copy(s.text, "??")
	}
	return s.tokens.Token()
}

// endless gives one start after another.
type endless struct{ xml.StartElement }

func (e endless) Token() (xml.Token, error) { return e.StartElement, nil }

// recorded returns the XML of the stanzas in the recordings.
func recorded(t testing.TB) (all []string) {
	file, err := os.ReadFile("testdata/traces/prosody-0.12.3.jsonl")
	require.NoError(t, err)
	for line := range bytes.Lines(file) {
		var l struct {
			Stanza json.RawMessage
			Queue  json.RawMessage
		}
		require.NoError(t, json.Unmarshal(line, &l))
		type stanza struct{ XML string }
		var one stanza
		var many []stanza
		if json.Unmarshal(l.Stanza, &one) == nil {
			many = append(many, one)
		}
		var queue []stanza
		_ = json.Unmarshal(l.Queue, &queue) // an empty one is written as an object
		for _, st := range append(many, queue...) {
			if st.XML != "" {
				all = append(all, st.XML)
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

func TestRecordedStanzas(t *testing.T) {
	for _, text := range recorded(t) {
		st, err := ParseStanza("x", []byte(text))
		require.NoError(t, err, text)
		other, err := ReadStanza("x", xml.NewDecoder(strings.NewReader(text)))
		require.NoError(t, err, text)
		assert.Equal(t, other, st, text)
	}
}

// What the scanner accepts encoding/xml accepts too, with the same result, but for names beyond ASCII, where the scanner takes any character.
func FuzzParseStanza(f *testing.F) {
	for _, text := range recorded(f) {
		f.Add(text)
	}
	for _, h := range hostile {
		if len(h.xml) < 1000 {
			f.Add(h.xml)
		}
	}
	for _, m := range meanings {
		f.Add(fmt.Sprintf(`<message from="verona@rooms.example.net/romeo" type=%q>%s</message>`, m.typ, m.inside))
	}
	f.Fuzz(func(t *testing.T, text string) {
		st, err := ParseStanza("x", []byte(text))
		other, otherErr := ReadStanza("x", xml.NewDecoder(strings.NewReader(text)))
		if err != nil {
			assert.ErrorIs(t, err, ErrStanza)
			return
		}
		if otherErr != nil && strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
			return
		}
		require.NoError(t, otherErr)
		assert.Equal(t, other, st)
		assert.LessOrEqual(t, len(st.Body), 2048)
		assert.True(t, utf8.ValidString(st.Body))
	})
}
