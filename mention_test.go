package push_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

func TestMentionsByText(t *testing.T) {
	for _, c := range []struct {
		nick, text string
		want       bool
	}{
		{"juliet", "juliet", true},
		{"juliet", "hi juliet!", true},
		{"juliet", "hi Juliet, JULIET", true},
		{"Juliet", "juliet: come", true},
		{"juliet", "@juliet", true},
		{"juliet", "(juliet)", true},
		{"juliet", "juliet's", true},
		{"juliet", "julietta", false},
		{"juliet", "myjuliet", false},
		{"juliet", "my_juliet", false},
		{"juliet", "juliet2", false},
		{"juliet", "julieta juliet", true},
		{"juliet", "juliett\u0301 and juliet\u0301", false},
		{"juliet", "", false},
		{"", "hi", false},
		{" ", "hi you", false},
		{"juliet capulet", "hi Juliet Capulet", true},
		{"juliet capulet", "hi Juliet", false},
		{"[juliet]", "hi [Juliet]", true},
		{"[juliet]", "hi[juliet]ho", true},
		{"c++", "c++ is", true},
		// Other scripts.
		{"Ürsula", "hallo üRSULA", true},
		{"ursula", "hallo ürsula", false},
		{"Джульетта", "привет, джульетта", true},
		{"Джульетта", "привет, джульеттам", false},
		{"Σας", "ΣΑΣ", true},
		{"小明", "你好小明吗", true},
		{"さくら", "さくらさん", true},
		{"カナ", "カナダ", false},
		{"K", "\u212a is Kelvin", true},
		{"😀", "hi😀", true},
		// Quoted lines, links, addresses.
		{"juliet", "> juliet said\nno", false},
		{"juliet", "> romeo said\njuliet?", true},
		{"juliet", ">juliet\r\n> juliet\r\nhm", false},
		{"juliet", "https://example.com/juliet", false},
		{"juliet", "see https://juliet.example juliet", true},
		{"juliet", "(www.juliet.example)", false},
		{"juliet", "xmpp:juliet", false},
		{"juliet", "XMPP:juliet", false},
		{"juliet", "mailto:juliet", false},
		{"juliet", "juliet@example.com", false},
		{"juliet", "juliet.capulet@example.com", false},
		{"juliet", "nurse@juliet.example", false},
		{"juliet", "juliet@ home", true},
		{"juliet", "a@b juliet", true},
		{"juliet", "romeo/@juliet", true},
		{"juliet", "juliet, write to a@b.example", true},
		{"juliet", "juliet write to a@b.example", true},
		{"juliet", "juliet...@!", true},
		{"juliet", "juliet.x@!", true},
		{"juliet", "romeos", false},
		{"juliet", "juliet\u20dd", false},
		{"geo", "geo: come here", true}, // a scheme alone links to nothing
		{"geo", "geo:1,2", false},
		// Each end of what makes words.
		{"juliet", "ajuliet zjuliet 0juliet 9juliet Ajuliet Zjuliet _juliet", false},
		{"juliet", "julieta julietz juliet0 juliet9 julietA julietZ juliet_", false},
		{"juliet", "{juliet`", true},
		{"juliet", "juliet\u203fx julieté juliet٣ juliet\u0903", false},
		{"juliet", "juliet\xff", true},
		{"juliet", "你好juliet吗", true},
		{"小明", "小王", false},
		{"c+", "c+\u0301", false},
		{"c+", "c+\u0903", false},
		{"😀", "😀\u200d👩", false},
		// Letters differ in their case, other characters do not.
		{"az", "AZ", true},
		{"[x", "{x", false},
		{"`x", "@x", false},
		{"\u212a", "K is Kelvin", true},
		// Limits.
		{strings.Repeat("n", 256), "hi " + strings.Repeat("N", 256), true},
		{strings.Repeat("n", 257), "hi " + strings.Repeat("n", 257), false},
		{"juliet", strings.Repeat(" ", 2048-6) + "juliet", true},
		{"juliet", strings.Repeat(" ", 2048-5) + "juliet", false},
		{"juliet", "juliet" + strings.Repeat(" ", 4096), true},
	} {
		st := Stanza{Body: c.text, Content: ContentText}
		assert.Equal(t, c.want, st.Mentions(&Self{Nicks: [2]string{"", c.nick}}), "%q in %q", c.nick, c.text)
		assert.False(t, st.Mentions(&Self{Nicks: [2]string{"", c.nick}, NoText: true}), "%q in %q", c.nick, c.text)
		st.Content = ContentEncrypted
		assert.False(t, st.Mentions(&Self{Nicks: [2]string{"", c.nick}}), "the text beside an encrypted one says nothing")
	}
}

func TestMentionsByMark(t *testing.T) {
	reference := func(uri string) string {
		return `<reference xmlns="urn:xmpp:reference:0" type="mention" uri="` + uri + `"/>`
	}
	mention := func(attrs, inside string) string {
		return `<mention xmlns="urn:xmpp:mentions:0" ` + attrs + `>` + inside + `</mention>`
	}
	const active, noping = `<active/>`, `<noping/>`
	for _, c := range []struct {
		name, inside string
		user         Self
		mention      bool
		reply        bool
	}{
		{"nobody", ``, Self{}, false, false},
		{"account", reference("xmpp:juliet@example.com"), Self{}, true, false},
		{"account, in any form", reference("XMPP:Juliet@EXAMPLE.com/b?message"), Self{}, true, false},
		{"account by another", reference("xmpp://romeo@example.net/juliet@example.com"), Self{}, true, false},
		{"another", reference("xmpp:romeo@example.com"), Self{}, false, false},
		{"not of this scheme", reference("https://juliet@example.com"), Self{}, false, false},
		{"not of this scheme, which is as long", reference("sips:juliet@example.com"), Self{}, false, false},
		{"with a fragment", reference("xmpp:juliet@example.com#x"), Self{}, true, false},
		{"no URI", reference("juliet@example.com"), Self{}, false, false},
		{"half an escape", reference("xmpp:juliet@example.com/%4"), Self{}, false, false},
		{"data", strings.Replace(reference("xmpp:juliet@example.com"), "mention", "data", 1), Self{}, false, false},
		{"occupant", reference("xmpp:verona@rooms.example.net/Juliet%20C"), Self{Nicks: [2]string{"", "Juliet C"}}, true, false},
		{"occupant whose nick nobody knows", reference("xmpp:verona@rooms.example.net/"), Self{}, false, false},
		{"occupant of another room", reference("xmpp:mantua@rooms.example.net/juliet"), Self{Nicks: [2]string{"juliet"}}, false, false},
		{"room", reference("xmpp:verona@rooms.example.net"), Self{Nicks: [2]string{"juliet"}}, false, false},
		{"jid", mention(`jid="juliet@example.com"`, ``), Self{}, true, false},
		{"occupant-id", mention(`occupantid="o1"`, ``), Self{OccupantID: "o1"}, true, false},
		{"another's occupant-id", mention(`occupantid="o2"`, ``), Self{OccupantID: "o1"}, false, false},
		{"no occupant-id", mention(`occupantid=""`, ``), Self{}, false, false},
		{"uri", mention(`uri="xmpp:juliet@example.com"`, ``), Self{}, true, false},
		{"channel", mention(`mentions="urn:xmpp:mentions:0#channel"`, ``), Self{}, true, false},
		{"channel's active, and active", mention(`mentions="urn:xmpp:mentions:0#channel"`, active), Self{Active: true}, true, false},
		{"channel's active, and not", mention(`mentions="urn:xmpp:mentions:0#channel"`, active), Self{}, false, false},
		{"not to ping", mention(`jid="juliet@example.com"`, noping), Self{}, false, false},
		{"not to ping, but named in the text", mention(`jid="juliet@example.com"`, noping), Self{Nicks: [2]string{"hi"}}, false, false},
		{"not to ping, and to ping", mention(`jid="juliet@example.com"`, noping) + mention(`mentions="urn:xmpp:mentions:0#channel"`, ``), Self{}, true, false},
		{"reply", `<reply xmlns="urn:xmpp:reply:0" to="juliet@example.com/b" id="m0"/>`, Self{}, false, true},
		{"reply to the occupant", `<reply xmlns="urn:xmpp:reply:0" to="verona@rooms.example.net/juliet" id="m0"/>`, Self{Nicks: [2]string{"juliet"}}, false, true},
		{"reply to another", `<reply xmlns="urn:xmpp:reply:0" to="verona@rooms.example.net/nurse" id="m0"/>`, Self{Nicks: [2]string{"juliet"}}, false, false},
		{"reply to nobody", `<reply xmlns="urn:xmpp:reply:0" id="m0"/>`, Self{}, false, false},
		{"reply to no JID", `<reply xmlns="urn:xmpp:reply:0" to="@" id="m0"/>`, Self{}, false, false},
	} {
		st, err := ParseStanza("x", []byte(`<message type="groupchat" from="verona@rooms.example.net/romeo"><body>hi</body>`+c.inside+`</message>`))
		require.NoError(t, err)
		c.user.Account = juliet
		assert.Equal(t, c.mention, st.Mentions(&c.user), c.name)
		assert.Equal(t, c.reply, st.RepliesTo(&c.user), c.name)
		assert.False(t, st.Mentions(nil) || st.RepliesTo(nil), c.name)
	}
}

// Whatever the text and the nick: a text has a nick that stands between spaces, and never one that is not in it.
func FuzzMentions(f *testing.F) {
	f.Add("juliet", "hi juliet!")
	f.Add("小明", "> 你好小明吗\nhttps://小明")
	f.Add("a\u0301", "a\u0301 b")
	f.Fuzz(func(t *testing.T, nick, text string) {
		u := Self{Nicks: [2]string{nick}}
		st := Stanza{Body: text}
		if st.Mentions(&u) {
			assert.Contains(t, fold(text), fold(strings.TrimSpace(nick)))
		}
		if trimmed := strings.TrimSpace(nick); trimmed != "" && len(trimmed) <= 256 && !strings.ContainsAny(trimmed, ":@>\n") && utf8.ValidString(nick) && !strings.HasPrefix(strings.ToLower(trimmed), "www.") &&
			!unicode.IsMark([]rune(trimmed)[0]) && []rune(trimmed)[0] != '\u200d' { // else it changes the space before it
			st.Body = "so " + trimmed + " is"
			assert.True(t, st.Mentions(&u), "%q", trimmed)
		}
	})
}

// fold maps letters that differ in case only to the same.
func fold(s string) string { return strings.ToUpper(strings.ToLower(strings.ToUpper(s))) }

// BenchmarkMentions is the longest text that is kept, without the nick in it.
func BenchmarkMentions(b *testing.B) {
	for _, text := range []string{"But soft, what light through yonder window breaks. ", "juliets "} {
		st := Stanza{Body: strings.Repeat(text, 2048/len(text)), Content: ContentText}
		u := Self{Nicks: [2]string{"juliet"}}
		b.Run(fmt.Sprintf("bytes=%d/alike=%v", len(st.Body), strings.Contains(text, "juliet")), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if st.Mentions(&u) {
					b.Fatal("mentioned")
				}
			}
		})
	}
}

// TestTextNotGiven has a host that keeps texts to itself: whether one mentions the user is not known then, which filters nothing, unless texts do not matter.
func TestTextNotGiven(t *testing.T) {
	var w wishes.Wishes
	require.NoError(t, json.Unmarshal([]byte(`{"groupchat":true,"rooms":[{"room":"verona@rooms.example.net","allow":"mentioned","nick":"juliet"}]}`), &w))
	for _, c := range []struct {
		noText bool
		body   string
		is     Content
		notify bool
		detail string
	}{
		{is: ContentText, notify: true, detail: "text not known"},
		{is: ContentCorrection, notify: true, detail: "text not known"},
		{is: ContentFile},
		{is: ContentText, body: "hi"},
		{is: ContentText, noText: true},
	} {
		rs := registered("n1")
		rs[0].Wishes = &w
		a := NewAccount(juliet, &Policy{NoTextMentions: c.noText}, rs)
		var d Decision
		a.Handle(Groupchat{juliet, Stanza{
			ID: "m1", From: "verona@rooms.example.net/romeo", To: juliet, Kind: KindMessage, Type: MessageGroupchat, Class: ClassImportant, Content: c.is, Body: c.body,
		}}, Facts{Now: newYear}, &d)
		assert.Equal(t, c.notify, d.Verdicts[0].Notify, "%+v: %v", c, d.Verdicts[0].Reason)
		assert.Equal(t, c.detail, d.Verdicts[0].Detail, "%+v", c)
	}
}
