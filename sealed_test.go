package push_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// sealedIQ is what a push service sees of an encrypted publish.
type sealedIQ struct {
	XMLName      xml.Name `xml:"iq"`
	Notification struct {
		Form      *struct{} `xml:"jabber:x:data x"`
		Priority  *string   `xml:"tigase:push:priority:0 priority"`
		Encrypted *struct {
			IV   string `xml:"iv,attr"`
			Type string `xml:"type,attr"`
			Text string `xml:",chardata"`
		} `xml:"tigase:push:encrypt:0 encrypted"`
	} `xml:"pubsub>publish>item>notification"`
}

var sealKey = []byte("hunter2-16bytes!")

func sealing(carried ...push.Stanza) *push.Notification {
	n := &push.Notification{
		Account: "juliet@example.com", Key: push.Key{Service: "push.example.net", Node: "n1"}, Unread: 7,
		Wishes: &wishes.Wishes{Priority: true, Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret(string(sealKey))}},
		// What policy would have put into the form.
		Sender: "form-sender@example.net", Body: "form body", Class: push.ClassPlain,
	}
	for _, st := range carried {
		n.Carried = append(n.Carried, push.Carried{Stanza: st})
		n.Class = max(n.Class, st.Class)
	}
	return n
}

// publishedBoth returns the publish in both encodings.
func publishedBoth(t *testing.T, n *push.Notification) [][]byte {
	tokens, err := xml.Marshal(push.PublishIQ{Notification: n})
	require.NoError(t, err)
	return [][]byte{n.AppendStanza(nil, "example.com", "id1"), tokens}
}

// unsealed decrypts the payload as a client does, tag and all.
func unsealed(t *testing.T, stanza []byte) (payload map[string]any, iq sealedIQ) {
	require.NoError(t, xml.Unmarshal(stanza, &iq), "%s", stanza)
	require.NotNil(t, iq.Notification.Encrypted, "%s", stanza)
	iv, err := base64.StdEncoding.DecodeString(iq.Notification.Encrypted.IV)
	require.NoError(t, err)
	require.Len(t, iv, 12)
	text, err := base64.StdEncoding.DecodeString(iq.Notification.Encrypted.Text)
	require.NoError(t, err)
	block, err := aes.NewCipher(sealKey)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	plain, err := aead.Open(nil, iv, text, nil)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(plain, &payload))
	return payload, iq
}

func stanzaOf(t testing.TB, data string) push.Stanza {
	st, err := push.ParseStanza("m1", []byte(data))
	require.NoError(t, err)
	return st
}

func TestSealedPayloads(t *testing.T) {
	for _, tt := range []struct {
		name     string
		stanzas  []string
		payload  string
		typ      string
		priority string
	}{
		{"a message", []string{`<message from='romeo@example.net/orchard' type='chat'><body>Wherefore "art" thou, &lt;Romeo&gt;?</body></message>`},
			`{"unread":7,"sender":"romeo@example.net","type":"chat","message":"Wherefore \"art\" thou, <Romeo>?"}`, "", "high"},
		{"in a room", []string{`<message from='hall@rooms.example.com/Nurse' type='groupchat'><body>hi</body></message>`},
			`{"unread":7,"sender":"hall@rooms.example.com","type":"groupchat","nickname":"Nurse","message":"hi"}`, "", "high"},
		{"end to end encrypted: what stands in is no text", []string{`<message from='romeo@example.net/orchard' type='chat'><body>you cannot read this</body><encrypted xmlns='eu.siacs.conversations.axolotl'><payload/></encrypted></message>`},
			`{"unread":7,"sender":"romeo@example.net","type":"chat"}`, "", "high"},
		{"a call", []string{`<message from='romeo@example.net/orchard' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='call#1'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='video'/></propose></message>`},
			`{"unread":7,"sender":"romeo@example.net/orchard","type":"call","sid":"call#1","media":["audio","video"]}`, "voip", "high"},
		{"somebody wants to see the presence", []string{`<presence from='romeo@example.net' type='subscribe'/>`},
			`{"unread":7,"sender":"romeo@example.net","type":"subscribe"}`, "", "high"},
		{"the newest of two", []string{`<message from='paris@example.net/x' type='chat'><body>first</body></message>`, `<message from='romeo@example.net/y' type='chat'><body>second</body></message>`},
			`{"unread":7,"sender":"romeo@example.net","type":"chat","message":"second"}`, "", "high"},
		{"a room's own words", []string{`<message from='hall@rooms.example.com' type='groupchat'><body>hi</body></message>`},
			`{"unread":7,"sender":"hall@rooms.example.com","type":"groupchat","message":"hi"}`, "", "high"},
		{"a wake-up", nil, `{"unread":7}`, "", "low"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var sts []push.Stanza
			for _, s := range tt.stanzas {
				sts = append(sts, stanzaOf(t, s))
			}
			for _, stanza := range publishedBoth(t, sealing(sts...)) {
				payload, iq := unsealed(t, stanza)
				got, err := json.Marshal(payload)
				require.NoError(t, err)
				assert.JSONEq(t, tt.payload, string(got))
				assert.Equal(t, tt.typ, iq.Notification.Encrypted.Type)
				assert.Equal(t, tt.priority, *iq.Notification.Priority)
				// Nothing readable is left beside it.
				assert.Nil(t, iq.Notification.Form)
				for _, readable := range []string{"romeo", "Romeo", "form", "message-count", "hi<", "hunter2", "call#1"} {
					assert.NotContains(t, strings.ReplaceAll(string(stanza), iq.Notification.Encrypted.Text, ""), readable)
				}
			}
		})
	}
}

func TestSealedPayloadsFit(t *testing.T) {
	for _, size := range []int{wishes.MinPayloadBytes, 300, 512, 0, 4096} {
		limit := size
		if size == 0 {
			limit = 3000
		}
		for name, body := range map[string]string{
			"letters": strings.Repeat("x", 2048), "umlauts": strings.Repeat("ä", 1024), "escapes": strings.Repeat("\"\n<", 682), "emoji": strings.Repeat("🤦", 512), "not UTF-8": strings.Repeat("\xff", 2048), "not UTF-8 either": strings.Repeat("\x80", 2048),
		} {
			st := stanzaOf(t, `<message from='romeo@example.net/orchard' type='chat'><body>x</body></message>`)
			st.Body = body
			n := sealing(st)
			n.Wishes.Encryption.MaxSize = size
			payload, iq := unsealed(t, n.AppendStanza(nil, "example.com", "i"))
			assert.LessOrEqual(t, len(iq.Notification.Encrypted.Text)+64, limit, name)
			message, _ := payload["message"].(string)
			assert.True(t, utf8.ValidString(message))
			if !strings.HasPrefix(name, "not UTF-8") {
				assert.True(t, strings.HasPrefix(body, message), "%s: cut at a character", name)
			}
			if name == "letters" && size >= 512 {
				assert.Greater(t, len(message), min(2048, (limit-64)*3/4-100)-1, "no more is cut than has to be")
			}
		}
		st := stanzaOf(t, `<message from='romeo@example.net/orchard' type='groupchat'><body>x</body></message>`)
		st.From = "romeo@example.net/" + strings.Repeat("n", 1000)
		n := sealing(st)
		n.Wishes.Encryption.MaxSize = wishes.MinPayloadBytes
		payload, iq := unsealed(t, n.AppendStanza(nil, "example.com", "i"))
		assert.LessOrEqual(t, len(iq.Notification.Encrypted.Text)+64, wishes.MinPayloadBytes)
		assert.Equal(t, "romeo@example.net", payload["sender"])
		assert.NotContains(t, payload, "nickname")
	}

	// If nothing of the stanza fits, there is still the count. A Store may give a limit that no client can have asked for, in which not even that fits.
	call := stanzaOf(t, `<message from='romeo@example.net/orchard' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='c1'/></message>`)
	for _, c := range []struct {
		from, sid string
		size      int
	}{{strings.Repeat("r", 500), "c1", 256}, {"", strings.Repeat("c", 500), 256}, {"romeo@example.net/orchard", "c1", 1}} {
		st := call
		st.From, st.Details = c.from, &push.Details{Call: &push.Call{ID: c.sid}}
		n := sealing(st)
		n.Wishes.Encryption.MaxSize = c.size
		payload, iq := unsealed(t, n.AppendStanza(nil, "example.com", "i"))
		assert.Equal(t, map[string]any{"unread": 7.0, "type": "call"}, payload)
		assert.Equal(t, "voip", iq.Notification.Encrypted.Type)
	}
	call.Details = &push.Details{Target: "m0"} // as a host may make it
	payload, _ := unsealed(t, sealing(call).AppendStanza(nil, "example.com", "i"))
	assert.Equal(t, map[string]any{"unread": 7.0, "type": "call", "sender": "romeo@example.net/orchard"}, payload)
}

func TestSealedIsFresh(t *testing.T) {
	n := sealing(stanzaOf(t, `<message from='romeo@example.net/orchard' type='chat'><body>x</body></message>`))
	ivs := map[string]bool{}
	for range 1000 {
		_, iq := unsealed(t, n.AppendStanza(nil, "example.com", "i"))
		ivs[iq.Notification.Encrypted.IV] = true
	}
	assert.Len(t, ivs, 1000)
}

// TestBadKeySaysNothing: a store may give back what no client can have asked for.
func TestBadKeySaysNothing(t *testing.T) {
	n := sealing(stanzaOf(t, `<message from='romeo@example.net/orchard' type='chat'><body>x</body></message>`))
	n.Wishes.Encryption.Key = wishes.NewSecret("short")
	for _, stanza := range publishedBoth(t, n) {
		assert.Contains(t, string(stanza), `<notification xmlns="urn:xmpp:push:0">`)
		assert.NotContains(t, string(stanza), `<encrypted`)
		assert.NotContains(t, string(stanza), `<x `)
		assert.NotContains(t, string(stanza), `romeo`)
	}
}

// requirePeer skips where the program is missing, and fails where it must not be.
func requirePeer(t *testing.T, name string, probe ...string) {
	t.Helper()
	if err := exec.Command(probe[0], probe[1:]...).Run(); err != nil {
		if os.Getenv("PUSH_REQUIRE_PEERS") != "" {
			t.Fatalf("%s is missing: %v", name, err)
		}
		t.Skipf("%s is missing (%v); PUSH_REQUIRE_PEERS=1 makes this a failure", name, err)
	}
}

// decryptors are two implementations of AES-GCM that have nothing to do with Go's. Each reads key, IV and text as hexadecimal lines, and
// exits with another status than 0 if the tag is wrong.
var decryptors = []struct {
	name  string
	probe []string
	run   []string
}{
	{"python3-cryptography", []string{"python3", "-c", "import cryptography"}, []string{"python3", "-c", `
import sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
key, iv, text = (bytes.fromhex(l) for l in sys.stdin.read().split())
sys.stdout.buffer.write(AESGCM(key).decrypt(iv, text, None))`}},
	{"node's OpenSSL", []string{"node", "-e", "require('crypto')"}, []string{"node", "-e", `
const [key, iv, text] = require('fs').readFileSync(0, 'latin1').split('\n').map(l => Buffer.from(l, 'hex'));
const d = require('crypto').createDecipheriv('aes-128-gcm', key, iv);
d.setAuthTag(text.subarray(-16));
process.stdout.write(Buffer.concat([d.update(text.subarray(0, -16)), d.final()]));`}},
}

func TestSealedOpensElsewhere(t *testing.T) {
	n := sealing(stanzaOf(t, `<message from='romeo@example.net/orchard' type='chat'><body>But, soft! “what light”</body></message>`))
	_, iq := unsealed(t, n.AppendStanza(nil, "example.com", "i"))
	iv, err := base64.StdEncoding.DecodeString(iq.Notification.Encrypted.IV)
	require.NoError(t, err)
	text, err := base64.StdEncoding.DecodeString(iq.Notification.Encrypted.Text)
	require.NoError(t, err)
	for _, d := range decryptors {
		t.Run(d.name, func(t *testing.T) {
			requirePeer(t, d.name, d.probe...)
			open := func(key, iv, text []byte) ([]byte, error) {
				cmd := exec.Command(d.run[0], d.run[1:]...)
				cmd.Stdin = strings.NewReader(hexLines(key, iv, text))
				return cmd.Output()
			}
			plain, err := open(sealKey, iv, text)
			require.NoError(t, err)
			assert.JSONEq(t, `{"unread":7,"sender":"romeo@example.net","type":"chat","message":"But, soft! “what light”"}`, string(plain))
			for _, i := range []int{0, len(text) / 2, len(text) - 16, len(text) - 1} {
				forged := bytes.Clone(text)
				forged[i] ^= 1
				_, err := open(sealKey, iv, forged)
				assert.Error(t, err, "byte %d changed", i)
			}
			zeros := append(bytes.Clone(text[:len(text)-16]), make([]byte, 16)...)
			_, err = open(sealKey, iv, zeros)
			assert.Error(t, err, "a tag of zeros")
		})
	}
}

func hexLines(bs ...[]byte) string {
	var b strings.Builder
	for _, x := range bs {
		b.WriteString(hex.EncodeToString(x) + "\n")
	}
	return b.String()
}

func BenchmarkSealed(b *testing.B) {
	st := push.Stanza{From: "romeo@example.net/orchard", Type: push.MessageChat, Content: push.ContentText, Class: push.ClassImportant, Body: strings.Repeat("Wherefore art thou? ", 5)}
	n := sealing(st)
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst = n.AppendStanza(dst[:0], "example.com", "id1")
	}
}

// TestSiskinEndToEnd goes from the enable that Siskin sends to what it reads in the notification.
func TestSiskinEndToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const account = "juliet@example.com"
		published := make(chan []byte, 10)
		router := &push.Router{Host: "example.com"}
		router.Send = func(_ context.Context, to string, iq []byte) error {
			published <- bytes.Clone(iq)
			go router.Reply(to, idIn.FindStringSubmatch(string(iq))[1], nil)
			return nil
		}
		e, err := push.New(push.Config{Host: "example.com", Publisher: router})
		require.NoError(t, err)
		session := push.SessionID{Account: account, ID: "s1"}
		enable := func(more string) {
			q, err := push.ParseRequest(session, []byte(set(enableNS+`jid='push.tigase.im' node='n1'>`+more+`</enable>`)))
			require.NoError(t, err)
			require.Nil(t, q.Answer(t.Context(), e).Refusal)
		}
		deliver := func(id, stanza string) []byte {
			st, err := push.ParseStanza(id, []byte(stanza))
			require.NoError(t, err)
			_, err = e.Handle(t.Context(), push.Offline{Account: account, Stanza: st})
			require.NoError(t, err)
			return <-published
		}
		const message = `<message from='romeo@example.net/orchard' to='juliet@example.com' type='chat'><body>What light?</body></message>`
		enable(`<priority xmlns='tigase:push:priority:0'/><encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>` + b64(sealKey) + `</encrypt>`)
		payload, iq := unsealed(t, deliver("m1", message))
		assert.Equal(t, map[string]any{"unread": 1.0, "sender": "romeo@example.net", "type": "chat", "message": "What light?"}, payload)
		assert.Equal(t, "high", *iq.Notification.Priority)
		payload, iq = unsealed(t, deliver("m2", `<message from='romeo@example.net/orchard' to='juliet@example.com' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>`))
		assert.Equal(t, map[string]any{"unread": 1.0}, payload, "nothing that the user should see")
		assert.Equal(t, "low", *iq.Notification.Priority)

		// Enabled again without encryption, the summary is back, and the policy says what is in it.
		enable(``)
		plain := string(deliver("m3", message))
		assert.Contains(t, plain, "message-count")
		assert.NotContains(t, plain, "encrypt")
		assert.NotContains(t, plain, "priority")
		assert.NotContains(t, plain, "light")
		require.NoError(t, e.Close(t.Context()))
	})
}

var idIn = regexp.MustCompile(` id="([^"]+)"`)
