package push_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math/big"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/mellium"
	"github.com/xmpp-push/push/wishes"
)

// push2Message is what a push service of Push 2.0 sees.
type push2Message struct {
	XMLName      xml.Name `xml:"message"`
	From         string   `xml:"from,attr"`
	To           string   `xml:"to,attr"`
	ID           string   `xml:"id,attr"`
	Notification struct {
		Client    string    `xml:"urn:xmpp:push2:0 client"`
		Priority  string    `xml:"urn:xmpp:push2:0 priority"`
		VoIP      *struct{} `xml:"urn:xmpp:push2:0 voip"`
		Encrypted *struct {
			Payload string `xml:"urn:xmpp:sce:rfc8291:0 payload"`
		} `xml:"urn:xmpp:sce:rfc8291:0 encrypted"`
		JWT *struct {
			Key  string `xml:"key,attr"`
			Text string `xml:",chardata"`
		} `xml:"urn:xmpp:push2:0 jwt"`
	} `xml:"urn:xmpp:push2:0 notification"`
}

var phone2 = push.Key{Service: "push.example.net", Node: push.Push2Node + "phone"}

func (k webKeys) webPush() *wishes.WebPush {
	return &wishes.WebPush{Public: k.public, Auth: wishes.NewSecret(string(k.auth)), TokenKey: wishes.NewSecret(string(k.signer)), Claims: []wishes.Claim{{Name: "aud", Value: "https://push.example.com"}}}
}

// notification2 is one of Push 2.0 that carries stanzas.
func notification2(send *wishes.WebPush, carried ...push.Carried) *push.Notification {
	n := &push.Notification{Account: "juliet@example.com", Key: phone2, Class: push.ClassPlain, Contact: "mailto:ops@example.com", Unread: 5, Sender: "form@example.net", Body: "form body",
		Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("https://push.example.net/abc"), Matches: []wishes.Match{{Profile: wishes.MatchAll, Send: send}}}}}
	for _, c := range carried {
		c.Send = send
		n.Carried = append(n.Carried, c)
		n.Class = max(n.Class, c.Stanza.Class)
	}
	return n
}

const wherefore = `<message xmlns='jabber:client' from='romeo@example.net/orchard' to='juliet@example.com' type='chat' id='o1'><body>Wherefore art thou?</body><thread>t</thread></message>`

func carriedOf(t testing.TB, data, archive string) push.Carried {
	st := stanzaOf(t, data)
	st.XML = data
	return push.Carried{Stanza: st, Archive: archive}
}

func both2(t *testing.T, n *push.Notification) []push2Message {
	tokens, err := xml.Marshal(push.PublishMessage{Notification: n})
	require.NoError(t, err)
	var ms []push2Message
	for _, doc := range [][]byte{n.AppendStanza(nil, "example.com", "id<1"), tokens} {
		var m push2Message
		require.NoError(t, xml.Unmarshal(doc, &m), "%s", doc)
		ms = append(ms, m)
		for _, readable := range []string{"romeo", "Wherefore", "form", "juliet", "hunter2", "abcd"} {
			assert.NotContains(t, string(doc), readable)
		}
	}
	assert.Equal(t, "id<1", ms[0].ID)
	assert.Equal(t, "example.com", ms[0].From)
	assert.Equal(t, "push.example.net", ms[0].To)
	return ms
}

func TestNotifyOnly(t *testing.T) {
	n := notification2(nil)
	assert.Equal(t, `<message from="example.com" to="push.example.net" id="i"><notification xmlns="urn:xmpp:push2:0"><client>https://push.example.net/abc</client><priority>low</priority></notification></message>`,
		string(n.AppendStanza(nil, "example.com", "i")))
	for class, want := range map[push.Class]string{push.ClassPlain: "low", push.ClassImportant: "normal", push.ClassUrgent: "high"} {
		n.Class = class
		for _, m := range both2(t, n) {
			assert.Equal(t, want, m.Notification.Priority)
			assert.Equal(t, class == push.ClassUrgent, m.Notification.VoIP != nil)
			assert.Nil(t, m.Notification.Encrypted)
			assert.Nil(t, m.Notification.JWT)
			assert.Equal(t, "https://push.example.net/abc", m.Notification.Client)
		}
	}
}

// open decrypts a payload as the device does (RFC 8291 §3), without the code under test.
func (k webKeys) open(t testing.TB, payload string) string {
	body, err := base64.StdEncoding.DecodeString(payload)
	require.NoError(t, err)
	require.LessOrEqual(t, len(body), 4096)
	salt, size, public, text := body[:16], body[16:20], body[21:86], body[86:]
	require.Equal(t, []byte{0, 0, 16, 0}, size)
	theirs, err := ecdh.P256().NewPublicKey(public)
	require.NoError(t, err)
	shared, err := k.private.ECDH(theirs)
	require.NoError(t, err)
	secret, err := hkdf.Key(sha256.New, shared, k.auth, "WebPush: info\x00"+string(k.public)+string(public), 32)
	require.NoError(t, err)
	key, err := hkdf.Key(sha256.New, secret, salt, "Content-Encoding: aes128gcm\x00", 16)
	require.NoError(t, err)
	nonce, err := hkdf.Key(sha256.New, secret, salt, "Content-Encoding: nonce\x00", 12)
	require.NoError(t, err)
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	plain, err := aead.Open(nil, nonce, text, nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, plain[len(plain)-1])
	return string(plain[:len(plain)-1])
}

// sceStanza is the message in an envelope.
func sceStanza(t testing.TB, envelope string) (m sceMessage) {
	var e struct {
		XMLName xml.Name `xml:"urn:xmpp:sce:1 envelope"`
		Content struct {
			Forwarded struct {
				Message sceMessage `xml:"jabber:client message"`
			} `xml:"urn:xmpp:forward:0 forwarded"`
		} `xml:"urn:xmpp:sce:1 content"`
	}
	require.NoError(t, xml.Unmarshal([]byte(envelope), &e), "%s", envelope)
	return e.Content.Forwarded.Message
}

type sceMessage struct {
	From     string    `xml:"from,attr"`
	Type     string    `xml:"type,attr"`
	ID       string    `xml:"id,attr"`
	Body     string    `xml:"jabber:client body"`
	Thread   string    `xml:"jabber:client thread"`
	Propose  *struct{} `xml:"urn:xmpp:jingle-message:0 propose"`
	StanzaID []struct {
		By string `xml:"by,attr"`
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:sid:0 stanza-id"`
}

func TestEncryptedMessage(t *testing.T) {
	k := newWebKeys(t)
	for _, m := range both2(t, notification2(k.webPush(), carriedOf(t, wherefore, "a1"))) {
		assert.Equal(t, "normal", m.Notification.Priority)
		st := sceStanza(t, k.open(t, m.Notification.Encrypted.Payload))
		assert.Equal(t, "romeo@example.net/orchard", st.From)
		assert.Equal(t, "Wherefore art thou?", st.Body)
		assert.Equal(t, "t", st.Thread)
		require.Len(t, st.StanzaID, 1)
		assert.Equal(t, "a1", st.StanzaID[0].ID)
		assert.Equal(t, "juliet@example.com", st.StanzaID[0].By)

		// The token, verified by its own key, which is the client's.
		parts := strings.Split(m.Notification.JWT.Text, ".")
		require.Len(t, parts, 3)
		public, err := base64.StdEncoding.DecodeString(m.Notification.JWT.Key)
		require.NoError(t, err)
		signer, err := x509.ParsePKCS8PrivateKey(k.signer)
		require.NoError(t, err)
		own := &signer.(*ecdsa.PrivateKey).PublicKey
		raw, err := own.ECDH()
		require.NoError(t, err)
		assert.Equal(t, raw.Bytes(), public)
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		require.NoError(t, err)
		hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		assert.True(t, ecdsa.Verify(own, hash[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])))
		claims, err := base64.RawURLEncoding.DecodeString(parts[1])
		require.NoError(t, err)
		var c struct {
			Aud, Sub string
			Exp      int64
		}
		require.NoError(t, json.Unmarshal(claims, &c))
		assert.Equal(t, "https://push.example.com", c.Aud)
		assert.Equal(t, "mailto:ops@example.com", c.Sub)
		assert.WithinDuration(t, time.Now().Add(12*time.Hour), time.Unix(c.Exp, 0), time.Minute)
	}
}

// TestTokenNamesTheServer: without Policy.Contact the push service is told the server's domain, where that is known.
func TestTokenNamesTheServer(t *testing.T) {
	n := notification2(newWebKeys(t).webPush(), carriedOf(t, wherefore, "a1"))
	n.Contact = ""
	for i, want := range []string{"xmpp:example.com", ""} {
		claims, err := base64.RawURLEncoding.DecodeString(strings.Split(both2(t, n)[i].Notification.JWT.Text, ".")[1])
		require.NoError(t, err)
		var c struct{ Sub string }
		require.NoError(t, json.Unmarshal(claims, &c))
		assert.Equal(t, want, c.Sub)
	}
	for _, w := range []*wishes.Wishes{nil, {}} { // a Publisher's test may make such
		n.Wishes, n.Carried = w, nil
		assert.Empty(t, both2(t, n)[0].Notification.Client)
	}
}

func TestContentThatCannotBeCarried(t *testing.T) {
	k := newWebKeys(t)
	without := func(data string) push.Carried {
		return push.Carried{Stanza: stanzaOf(t, data), Archive: "a1"}
	}
	// Without its XML a message is told by its fields.
	m := both2(t, notification2(k.webPush(), without(wherefore)))[0]
	st := sceStanza(t, k.open(t, m.Notification.Encrypted.Payload))
	assert.Equal(t, "Wherefore art thou?", st.Body)
	assert.Equal(t, "o1", st.ID)
	assert.Equal(t, "a1", st.StanzaID[0].ID)
	// Of an encrypted one there is only what the archive calls it.
	m = both2(t, notification2(k.webPush(), without(`<message from='romeo@example.net/x' type='chat'><body>cannot read</body><encrypted xmlns='urn:xmpp:omemo:2'><payload/></encrypted></message>`)))[0]
	st = sceStanza(t, k.open(t, m.Notification.Encrypted.Payload))
	assert.Empty(t, st.Body)
	assert.Equal(t, "a1", st.StanzaID[0].ID)
	// A call that is not known is not made up.
	call := `<message from='romeo@example.net/x' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='c1'/></message>`
	m = both2(t, notification2(k.webPush(), without(call)))[0]
	assert.Nil(t, m.Notification.Encrypted)
	assert.NotNil(t, m.Notification.VoIP)
	m = both2(t, notification2(k.webPush(), carriedOf(t, call, "")))[0]
	st = sceStanza(t, k.open(t, m.Notification.Encrypted.Payload))
	assert.NotNil(t, st.Propose)
	assert.Empty(t, st.StanzaID)
	// What is too large goes without, and still wakes; so does what a damaged store gives.
	large := carriedOf(t, `<message xmlns='jabber:client' from='romeo@example.net/x'><body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='x' id='`+strings.Repeat("x", 3000)+`'/></message>`, "")
	for _, m := range both2(t, notification2(k.webPush(), large)) {
		assert.Nil(t, m.Notification.Encrypted)
		assert.Equal(t, "normal", m.Notification.Priority)
	}
	// What is no XML is as none.
	broken := without(wherefore)
	broken.Stanza.XML = "<message"
	m = both2(t, notification2(k.webPush(), broken))[0]
	assert.Equal(t, "Wherefore art thou?", sceStanza(t, k.open(t, m.Notification.Encrypted.Payload)).Body)
	untold := k.webPush()
	untold.TokenKey = wishes.Secret{}
	for _, m := range both2(t, notification2(untold, carriedOf(t, wherefore, ""))) {
		assert.NotNil(t, m.Notification.Encrypted)
		assert.Nil(t, m.Notification.JWT, "the client gave no key for a token")
	}
	bad := k.webPush()
	bad.Public = []byte("hunter2")
	for _, m := range both2(t, notification2(bad, carriedOf(t, wherefore, ""))) {
		assert.Nil(t, m.Notification.Encrypted)
		assert.Nil(t, m.Notification.JWT)
	}
	bad = k.webPush()
	bad.TokenKey = wishes.NewSecret("hunter2")
	for _, m := range both2(t, notification2(bad, carriedOf(t, wherefore, ""))) {
		assert.NotNil(t, m.Notification.Encrypted)
		assert.Nil(t, m.Notification.JWT)
	}
}

// TestEncryptedOpensElsewhere: the reference implementation of Web Push's encryption reads the message, and OpenSSL verifies the token.
func TestEncryptedOpensElsewhere(t *testing.T) {
	requirePeer(t, "http_ece (npm install http_ece, NODE_PATH)", "node", "-e", "require('http_ece')")
	k := newWebKeys(t)
	m := both2(t, notification2(k.webPush(), carriedOf(t, wherefore, "a1")))[0]
	run := func(payload, token string) (string, error) {
		cmd := exec.Command("node", "-e", `
const crypto = require('crypto'), ece = require('http_ece');
const [priv, auth, payload, token, key] = require('fs').readFileSync(0, 'latin1').trim().split('\n');
const ecdh = crypto.createECDH('prime256v1');
ecdh.setPrivateKey(Buffer.from(priv, 'base64'));
const plain = ece.decrypt(Buffer.from(payload, 'base64'), {version: 'aes128gcm', privateKey: ecdh, authSecret: auth});
const raw = Buffer.from(key, 'base64');
const pub = crypto.createPublicKey({format: 'jwk', key: {kty: 'EC', crv: 'P-256', x: raw.subarray(1, 33).toString('base64url'), y: raw.subarray(33).toString('base64url')}});
const [h, c, s] = token.split('.');
if (JSON.parse(Buffer.from(h, 'base64url')).alg != 'ES256') throw 'alg';
if (!crypto.verify('sha256', Buffer.from(h + '.' + c), {key: pub, dsaEncoding: 'ieee-p1363'}, Buffer.from(s, 'base64url'))) throw 'signature';
process.stdout.write(plain);`)
		cmd.Stdin = strings.NewReader(strings.Join([]string{b64(k.private.Bytes()), b64(k.auth), payload, token, m.Notification.JWT.Key}, "\n"))
		out, err := cmd.Output()
		return string(out), err
	}
	payload, token := m.Notification.Encrypted.Payload, m.Notification.JWT.Text
	plain, err := run(payload, token)
	require.NoError(t, err)
	assert.Equal(t, "Wherefore art thou?", sceStanza(t, plain).Body)

	body, err := base64.StdEncoding.DecodeString(payload)
	require.NoError(t, err)
	for _, i := range []int{0, 30, 100, len(body) - 1} {
		body[i] ^= 1
		_, err := run(b64(body), token)
		assert.Error(t, err, "byte %d changed", i)
		body[i] ^= 1
	}
	parts := strings.Split(token, ".")
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"https://evil.example","exp":9999999999}`))
	_, err = run(payload, parts[0]+"."+forged+"."+parts[2])
	assert.Error(t, err, "other claims")
}

func TestSplit(t *testing.T) {
	k := newWebKeys(t)
	n := notification2(k.webPush(), carriedOf(t, wherefore, "a1"), carriedOf(t, `<message from='x@y' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='c1'/></message>`, ""))
	parts := n.Split()
	require.Len(t, parts, 2)
	assert.Equal(t, push.ClassImportant, parts[0].Class)
	assert.Equal(t, push.ClassUrgent, parts[1].Class)
	assert.Nil(t, both2(t, &parts[0])[0].Notification.VoIP)
	assert.NotNil(t, both2(t, &parts[1])[0].Notification.VoIP)
	assert.Len(t, notification2(nil).Split(), 1)
	n.Node = "n1"
	assert.Len(t, n.Split(), 1, "that of XEP-0357 tells of all at once")
}

// TestRouterMessages: silence is consent; an error that carries the ID and comes from the service is none.
func TestRouterMessages(t *testing.T) {
	const unavailable = `<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan string, 8)
		r := &push.Router{Host: "example.com", Limit: 4, Send: func(_ context.Context, to string, stanza []byte) error {
			assert.Equal(t, "push.example.net", to)
			var m push2Message
			assert.NoError(t, xml.Unmarshal(stanza, &m))
			sent <- m.ID
			return nil
		}}
		k := newWebKeys(t)
		publish := func(n *push.Notification) (chan error, string) {
			done := make(chan error, 1)
			go func() { done <- r.Publish(t.Context(), n) }()
			return done, <-sent
		}
		begin := time.Now()
		done, id := publish(notification2(nil))
		for _, stranger := range []string{
			`<iq type='result' from='push.example.net' id='` + id + `'/>`,
			`<iq type='error' from='push.example.net' id='` + id + `'>` + unavailable + `</iq>`,
			`<message from='push.example.net' id='` + id + `'><body>hi</body></message>`,
			`<message type='error' from='evil.example' id='` + id + `'>` + unavailable + `</message>`,
			`<message type='error' from='push.example.net' id='x'>` + unavailable + `</message>`,
			`<presence type='error' from='push.example.net' id='` + id + `'/>`,
		} {
			ours, err := r.HandleReply([]byte(stranger))
			assert.NoError(t, err)
			assert.False(t, ours, stranger)
		}
		assert.False(t, r.Reply("push.example.net", id, nil))
		require.NoError(t, <-done)
		assert.Equal(t, 2*time.Second, time.Since(begin))
		late, err := r.HandleReply([]byte(`<message type='error' from='push.example.net' id='` + id + `'>` + unavailable + `</message>`))
		require.NoError(t, err)
		assert.False(t, late)

		for name, reply := range map[string]func(id string) (bool, error){
			"bytes": func(id string) (bool, error) {
				return r.HandleReply([]byte(`<message xmlns='jabber:server' type='error' from='Push.example.net' to='example.com' id='` + id + `'><notification xmlns='urn:xmpp:push2:0'/>` + unavailable + `</message>`))
			},
			"parsed": func(id string) (bool, error) {
				return r.Reply("push.example.net", id, &push.ReplyError{Type: "cancel", Condition: "service-unavailable"}), nil
			},
		} {
			done, id := publish(notification2(nil))
			ours, err := reply(id)
			require.NoError(t, err)
			assert.True(t, ours, name)
			assert.Equal(t, &push.ReplyError{Type: "cancel", Condition: "service-unavailable"}, <-done, name)
		}

		// One message for each stanza; an error to any of them is one to all.
		done, _ = publish(notification2(k.webPush(), carriedOf(t, wherefore, "a1"), carriedOf(t, wherefore, "a2")))
		second := <-sent
		assert.True(t, r.Reply("push.example.net", second, &push.ReplyError{Type: "wait", Condition: "resource-constraint"}))
		assert.Equal(t, &push.ReplyError{Type: "wait", Condition: "resource-constraint"}, <-done)

		// Nothing is left behind: there is room for four each time.
		for range 3 {
			four := notification2(k.webPush(), carriedOf(t, wherefore, ""), carriedOf(t, wherefore, ""), carriedOf(t, wherefore, ""), carriedOf(t, wherefore, ""))
			done, _ := publish(four)
			for range 3 {
				<-sent
			}
			require.NoError(t, <-done)
			five := *four
			five.Carried = append(five.Carried, four.Carried[0])
			done, _ = publish(&five)
			assert.ErrorIs(t, <-done, push.ErrTooManyOpen)
			for range 3 {
				<-sent
			}
		}
		r.Send = func(context.Context, string, []byte) error { return errors.New("queue full") }
		assert.ErrorContains(t, r.Publish(t.Context(), notification2(nil)), "queue full")
	})
}

func TestMelliumMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Value // of string: the type of the error to answer with
		answer.Store("")
		seen := make(chan push2Message, 8)
		near, _ := serverPair(t, "example.com", "push.example.net", xmpp.HandlerFunc(func(rw xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			var m push2Message
			if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), rw)).Decode(&m); err != nil {
				return err
			}
			seen <- m
			typ := answer.Load().(string)
			if typ == "" {
				return nil
			}
			msg, err := stanza.NewMessage(*start)
			if err != nil {
				return err
			}
			_, err = xmlstream.Copy(rw, msg.Error(stanza.Error{Type: stanza.ErrorType(typ), Condition: stanza.ResourceConstraint}))
			return err
		}))
		p := mellium.Publisher{Session: near}
		k := newWebKeys(t)
		begin := time.Now()
		require.NoError(t, p.Publish(t.Context(), notification2(k.webPush(), carriedOf(t, wherefore, "a1"), carriedOf(t, wherefore, "a2"))))
		assert.Equal(t, 2*time.Second, time.Since(begin))
		for range 2 {
			m := <-seen
			assert.Equal(t, "Wherefore art thou?", sceStanza(t, k.open(t, m.Notification.Encrypted.Payload)).Body)
		}
		answer.Store("wait")
		var re *push.ReplyError
		require.ErrorAs(t, p.Publish(t.Context(), notification2(nil)), &re)
		assert.Equal(t, push.ReplyError{Type: "wait", Condition: "resource-constraint"}, *re)
		assert.Equal(t, "https://push.example.net/abc", (<-seen).Notification.Client)
		time.Sleep(time.Second) // what looks after the sending ends
	})
}

func BenchmarkPush2(b *testing.B) {
	k := newWebKeys(b)
	for name, n := range map[string]*push.Notification{"notify-only": notification2(nil), "encrypted": notification2(k.webPush(), carriedOf(b, wherefore, "a1"))} {
		b.Run(fmt.Sprintf("send=%s", name), func(b *testing.B) {
			dst := make([]byte, 0, 8192)
			b.ReportAllocs()
			for b.Loop() {
				dst = n.AppendStanza(dst[:0], "example.com", "id1")
			}
		})
	}
}

// TestOneRegistrationADevice: a device is known by what SASL2 says of it, else by its resource, and has one registration at whatever service.
func TestOneRegistrationADevice(t *testing.T) {
	store := push.NewMemoryStore()
	e, err := push.New(push.Config{Host: "example.com", Store: store, Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	require.NoError(t, err)
	juliet := "juliet@example.com"
	handle := func(ev push.Event) push.Decision {
		d, err := e.Handle(t.Context(), ev)
		require.NoError(t, err)
		return d
	}
	session := func(id string) push.SessionID { return push.SessionID{Account: juliet, ID: id} }
	handle(push.SessionOpen{Session: session("s1"), JID: juliet + "/balcony"})
	handle(push.SessionOpen{Session: session("s2"), JID: juliet + "/x7", Client: "d4565f"})
	ask := func(id, request string) {
		q, err := push.ParseRequest(session(id), []byte(set(request)))
		require.NoError(t, err)
		require.Nil(t, q.Answer(t.Context(), e).Refusal)
	}
	enable := func(service string) string {
		return `<enable xmlns='urn:xmpp:push2:0'><service>` + service + `</service><client>c</client><match profile='urn:xmpp:push2:match:all'/></enable>`
	}
	registered := func() (keys []string) {
		rs, err := store.List(t.Context(), juliet)
		require.NoError(t, err)
		st, err := e.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		require.Len(t, st.Registrations, len(rs))
		for i, r := range rs {
			assert.Equal(t, r.Key, st.Registrations[i].Key)
			keys = append(keys, r.Service+" "+strings.TrimPrefix(r.Node, push.Push2Node))
		}
		return keys
	}
	ask("s1", enable("a.example.net"))
	ask("s2", enable("a.example.net"))
	ask("s2", `<enable xmlns='urn:xmpp:push:0' jid='a.example.net' node='n1'/>`)
	assert.Equal(t, []string{"a.example.net n1", "a.example.net balcony", "a.example.net d4565f"}, registered())
	ask("s1", enable("b.example.net"))
	assert.Equal(t, []string{"a.example.net n1", "a.example.net d4565f", "b.example.net balcony"}, registered(), "the device has moved to another service")
	ask("s2", `<disable xmlns='urn:xmpp:push:0' jid='a.example.net'/>`)
	assert.Equal(t, []string{"a.example.net d4565f", "b.example.net balcony"}, registered(), "the protocols leave each other alone")
	ask("s1", `<disable xmlns='urn:xmpp:push2:0'/>`)
	assert.Equal(t, []string{"a.example.net d4565f"}, registered())
	ask("s1", `<disable xmlns='urn:xmpp:push2:0'/>`)
	assert.Equal(t, []string{"a.example.net d4565f"}, registered(), "nothing to disable is no error")
	ask("s2", `<disable xmlns='urn:xmpp:push2:0'/>`)
	assert.Empty(t, registered())

	// A session without a name of its own is one, and what is not known as a session is, too.
	handle(push.SessionOpen{Session: session("s3")})
	ask("s3", enable("a.example.net"))
	ask("s4", enable("a.example.net"))
	assert.Equal(t, []string{"a.example.net s3", "a.example.net s4"}, registered())
	require.NoError(t, e.Close(t.Context()))
}

// TestPush2Outcomes: with Push 2.0 the type of an error decides, and time whether a registration is disabled.
func TestPush2Outcomes(t *testing.T) {
	const juliet = "juliet@example.com"
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	reg := push.Registration{Account: juliet, Key: phone2, Wishes: notification2(nil).Wishes, Enabled: begin}
	a := push.NewAccount(juliet, nil, []push.Registration{reg})
	now, number := begin, 0
	// publish lets a new message notify, and answers.
	publish := func(reply push.Reply) (push.Result, push.Effects) {
		t.Helper()
		number++
		var d push.Decision
		var e push.Effects
		st := push.Stanza{ID: fmt.Sprint("m", number), From: "romeo@example.net/x", To: juliet, Kind: push.KindMessage, Class: push.ClassImportant, Content: push.ContentText, Body: "x"}
		a.Handle(push.Offline{Account: juliet, Stanza: st}, push.Facts{Now: now, Number: uint64(number)}, &d)
		now = now.Add(time.Minute)
		require.Equal(t, []push.Key{phone2}, a.Due(now, nil, &e))
		n, ok := a.Begin(phone2, now, &e)
		require.True(t, ok)
		assert.Equal(t, reg.Wishes, n.Wishes)
		res := a.End(phone2, reply, now, &e)
		return res, e
	}
	again := func(reply push.Reply) push.Result {
		t.Helper()
		var e push.Effects
		now = now.Add(time.Minute)
		require.Equal(t, []push.Key{phone2}, a.Due(now, nil, &e))
		_, ok := a.Begin(phone2, now, &e)
		require.True(t, ok)
		return a.End(phone2, reply, now, &e)
	}
	health := func() push.Health { return a.Registrations()[0].Health }
	cancel := push.Reply{Type: "cancel", Condition: "item-not-found"}
	wait := push.Reply{Type: "wait", Condition: "gone"}

	res, _ := publish(push.Reply{Missing: true})
	assert.Equal(t, push.OutcomeTransient, res.Outcome)
	assert.False(t, res.Store, "it says nothing")
	again(push.Reply{Vetoed: "quiet"})
	begin = now
	for _, reply := range []push.Reply{cancel, {Type: "cancel", Condition: "service-unavailable"}, {Type: "auth", Condition: "forbidden"}, {Type: "modify", Condition: "not-acceptable"}} {
		res, e := publish(reply)
		assert.Equal(t, push.OutcomeFailed, res.Outcome)
		assert.Zero(t, res.RetryAt, "never again")
		require.Len(t, e.Drops, 1)
		assert.Equal(t, push.ReasonRejected, e.Drops[0].Reason)
	}
	assert.Equal(t, push.Health{Errors: 4, Failing: begin.Add(time.Minute)}, health())
	for range 20 {
		publish(cancel)
	}
	assert.Zero(t, health().Disabled, "however many: it has not gone on for long")

	res, _ = publish(push.Reply{})
	assert.Equal(t, push.Update{Succeeded: now}, res.Update)
	assert.Equal(t, push.Health{Succeeded: now}, health())

	publish(wait)
	assert.Equal(t, now, health().Failing)
	res = again(push.Reply{})
	assert.Equal(t, push.Update{Succeeded: now}, res.Update, "it is over, though a success was stored just now")
	assert.Zero(t, health().Failing)

	res, e := publish(wait)
	assert.Equal(t, push.OutcomeTransient, res.Outcome)
	assert.Equal(t, push.Update{Failing: now}, res.Update, "whatever its condition")
	assert.False(t, res.RetryAt.IsZero())
	assert.Empty(t, e.Drops)
	since := health().Failing
	res = again(wait)
	assert.Equal(t, push.OutcomeTransient, res.Outcome)
	assert.False(t, res.Store, "since when is stored once")
	res, e = publish(push.Reply{Vetoed: "quiet"})
	assert.Equal(t, push.OutcomeDropped, res.Outcome)
	require.Len(t, e.Drops, 1)
	assert.Equal(t, since, health().Failing)

	// What could not be sent says nothing, however long.
	now = since.Add(100 * time.Hour)
	n, ok := a.Begin(phone2, now, &e)
	if !ok { // it was too old by then
		res, _ = publish(push.Reply{Missing: true})
	} else {
		require.NotNil(t, n)
		res = a.End(phone2, push.Reply{Missing: true}, now, &e)
	}
	assert.Equal(t, push.OutcomeTransient, res.Outcome)
	assert.Zero(t, health().Disabled)

	// A success in between starts the time anew.
	now = now.Add(24 * time.Hour)
	publish(push.Reply{})
	publish(cancel)
	since = now
	now = since.Add(72*time.Hour - 2*time.Minute)
	publish(cancel)
	assert.Zero(t, health().Disabled)
	now = since.Add(72*time.Hour - time.Minute) // it is answered after exactly 72 h
	res, e = publish(wait)
	assert.Equal(t, push.OutcomeFailed, res.Outcome, "even what could be tried again")
	assert.Equal(t, now, health().Disabled)
	require.Len(t, e.Changes, 1)
	assert.Equal(t, push.ChangeDisabled, e.Changes[0].Kind)
}

// TestPush2EndToEnd goes from the enable that Borogove sends to the text on the device, through a hibernated session, a call, and an archive.
func TestPush2EndToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const account = "juliet@example.com"
		k := newWebKeys(t)
		published := make(chan push2Message, 100)
		router := &push.Router{Host: "example.com"}
		router.Send = func(_ context.Context, _ string, stanza []byte) error {
			var m push2Message
			if err := xml.Unmarshal(stanza, &m); err != nil {
				t.Error(err)
			}
			for _, readable := range []string{"romeo", "light", "secret thread"} {
				assert.NotContains(t, string(stanza), readable)
			}
			published <- m
			return nil
		}
		e, err := push.New(push.Config{Host: "example.com", Publisher: router, Policy: push.Policy{Contact: "mailto:ops@example.com"}})
		require.NoError(t, err)
		session := push.SessionID{Account: account, ID: "s1"}
		handle := func(ev push.Event) push.Decision {
			d, err := e.Handle(t.Context(), ev)
			require.NoError(t, err)
			return d
		}
		handle(push.SessionOpen{Session: session, JID: account + "/phone"})
		q, err := push.ParseRequest(session, []byte(set(`<enable xmlns='urn:xmpp:push2:0'><service>push.example.net</service><client>c1</client><match profile='urn:xmpp:push2:match:important'>`+
			`<send xmlns='urn:xmpp:push2:send:sce+rfc8291+rfc8292:0'><ua-public>`+b64(k.public)+`</ua-public><auth-secret>`+b64(k.auth)+`</auth-secret>`+
			`<jwt-alg>ES256</jwt-alg><jwt-key>`+b64(k.signer)+`</jwt-key><jwt-claim name='aud'>https://push.example.net</jwt-claim></send></match></enable>`)))
		require.NoError(t, err)
		require.Nil(t, q.Answer(t.Context(), e).Refusal)
		said := func(id, body string) push.Stanza {
			data := `<message from='romeo@example.net/orchard' to='juliet@example.com' type='chat' id='o-` + id + `'><body>` + body + `</body><thread>secret thread</thread></message>`
			st, err := push.ParseStanza(id, []byte(data))
			require.NoError(t, err)
			st.XML, st.Archived = data, true
			return st
		}
		read := func() sceMessage {
			m := <-published
			assert.Equal(t, "c1", m.Notification.Client)
			require.NotNil(t, m.Notification.Encrypted)
			require.NotNil(t, m.Notification.JWT)
			return sceStanza(t, k.open(t, m.Notification.Encrypted.Payload))
		}
		// Three messages in the queue of a connection that was lost are three messages on the device.
		state, err := push.ParseStanza("x", []byte(`<message from='romeo@example.net/orchard'><active xmlns='http://jabber.org/protocol/chatstates'/></message>`))
		require.NoError(t, err)
		d := handle(push.HibernationStart{Session: session, Stanzas: []push.Stanza{said("a1", "what light"), state, said("a2", "through yonder"), said("a3", "window breaks")}})
		require.Len(t, d.Verdicts, 1)
		assert.Equal(t, 1, d.Verdicts[0].Match)
		assert.Equal(t, []string{"a1", "a2", "a3"}, d.Verdicts[0].Stanzas, "a chat state is not important")
		for _, want := range []string{"what light", "through yonder", "window breaks"} {
			st := read()
			assert.Equal(t, want, st.Body)
			assert.Equal(t, "secret thread", st.Thread)
			require.Len(t, st.StanzaID, 1)
		}
		time.Sleep(time.Minute)
		assert.Empty(t, published, "each once")

		// What was read meanwhile, or withdrawn, does not go along any more.
		handle(push.StanzaQueued{Session: session, Stanza: said("a4", "it is the east")})
		assert.Equal(t, "it is the east", read().Body)
		time.Sleep(100 * time.Millisecond)
		handle(push.StanzaQueued{Session: session, Stanza: said("a5", "hush")}) // waits for the end of the publish
		handle(push.Acknowledged{Session: session, IDs: []string{"a5"}})
		time.Sleep(time.Minute)
		assert.Empty(t, published)

		// A call: the stanza itself, and a mark that it is one.
		call := `<message from='romeo@example.net/orchard' to='juliet@example.com' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='ring'/></message>`
		st, err := push.ParseStanza("c1", []byte(call))
		require.NoError(t, err)
		st.XML = call
		handle(push.ArchiveAdded{Account: account, Stanza: st})
		m := <-published
		assert.NotNil(t, m.Notification.VoIP)
		assert.Equal(t, "high", m.Notification.Priority)
		ring := sceStanza(t, k.open(t, m.Notification.Encrypted.Payload))
		assert.NotNil(t, ring.Propose)
		require.Len(t, ring.StanzaID, 1)
		assert.Equal(t, "c1", ring.StanzaID[0].ID)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestWhatIsCarriedIsBounded: eight stanzas go along, the newest; of a large one what its fields say; and none is in what is kept across a restart.
func TestWhatIsCarriedIsBounded(t *testing.T) {
	const juliet = "juliet@example.com"
	k := newWebKeys(t)
	reg := push.Registration{Account: juliet, Key: phone2, Wishes: notification2(k.webPush()).Wishes}
	plain := push.Registration{Account: juliet, Key: push.Key{Service: "push.example.net", Node: "n1"}}
	a := push.NewAccount(juliet, nil, []push.Registration{reg, plain})
	var d push.Decision
	var e push.Effects
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 50 {
		st := push.Stanza{ID: fmt.Sprint("m", i), From: "romeo@example.net/x", To: juliet, Kind: push.KindMessage, Class: push.ClassImportant, Content: push.ContentText, Body: fmt.Sprint("hunter2-", i)}
		st.XML = "<message><body>" + st.Body + "</body></message>"
		if i%2 == 1 {
			st.XML = "<message><body>" + st.Body + "</body><x>" + strings.Repeat("x", 16<<10) + "</x></message>"
		}
		a.Handle(push.Offline{Account: juliet, Stanza: st}, push.Facts{Now: now, Number: uint64(i + 1)}, &d)
	}
	snapshot, err := a.MarshalBinary()
	require.NoError(t, err)
	assert.NotContains(t, string(snapshot), "hunter2")
	a.Due(now, nil, &e)
	n, ok := a.Begin(phone2, now, &e)
	require.True(t, ok)
	require.Len(t, n.Carried, 8)
	for i, c := range n.Carried {
		assert.Equal(t, fmt.Sprint("hunter2-", 42+i), c.Stanza.Body)
		assert.Equal(t, i%2 == 1, c.Stanza.XML == "")
		assert.NotNil(t, c.Send)
	}
	other, ok := a.Begin(plain.Key, now, &e)
	require.True(t, ok)
	assert.Empty(t, other.Carried)
	assert.Nil(t, other.Wishes)

	// After a restart it goes without content.
	b, err := push.RestoreAccount(juliet, nil, snapshot)
	require.NoError(t, err)
	b.Load([]push.Registration{reg, plain}, now, &e)
	b.Due(now, nil, &e)
	n, ok = b.Begin(phone2, now, &e)
	require.True(t, ok)
	assert.Empty(t, n.Carried)
	assert.Equal(t, 50, n.Count)
	assert.Contains(t, string(n.AppendStanza(nil, "example.com", "i")), "<priority>normal</priority></notification>")
}
