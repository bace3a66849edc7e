package push_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// webKeys are a client's keys as a browser or a phone makes them: its own pair, its secret, and the pair that signs tokens.
type webKeys struct {
	private *ecdh.PrivateKey
	public  []byte
	auth    []byte
	signer  []byte // PKCS#8
}

func newWebKeys(t testing.TB) webKeys {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	require.NoError(t, err)
	return webKeys{private, private.PublicKey().Bytes(), bytes.Repeat([]byte{0xfb, 0xff}, 8), der}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// askedFor returns what a request asks for, and makes sure that it is valid and that tokens say the same.
func askedFor(t *testing.T, iq string) push.PushEnable {
	t.Helper()
	q, err := push.ParseRequest(device, []byte(iq))
	require.NoError(t, err)
	require.Nil(t, q.Refusal)
	again, err := push.ReadRequest(device, xml.NewDecoder(strings.NewReader(iq)))
	require.NoError(t, err)
	assert.Equal(t, q, again)
	ev := q.Event.(push.PushEnable)
	require.NoError(t, ev.Wishes.Validate())
	return ev
}

// TestEnablesOfClients has what clients really send: Siskin and Beagle (and Snikket for iOS, which is made from Siskin) build it from the same library,
// with a list of those rooms only that may notify; Borogove and Snikket's SDK send Push 2.0.
func TestEnablesOfClients(t *testing.T) {
	key := []byte("0123456789abcdef")
	service := push.Key{Service: "push.tigase.im", Node: "yxs32uqsflafdk3iuqo"}

	t.Run("Siskin, with everything", func(t *testing.T) {
		ev := askedFor(t, `<iq type="set" id="4B1F" to="juliet@example.com"><enable xmlns="urn:xmpp:push:0" jid="push.tigase.im" node="yxs32uqsflafdk3iuqo" away="true">`+
			`<x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE" type="hidden"><value>http://jabber.org/protocol/pubsub#publish-options</value></field></x>`+
			`<jingle xmlns="tigase:push:jingle:0"/>`+
			`<ignore-unknown xmlns="tigase:push:filter:ignore-unknown:0"/>`+
			`<groupchat xmlns="tigase:push:filter:groupchat:0"><room jid="hall@rooms.example.com" allow="always"/><room allow="mentioned" nick="Juliet" jid="garden@rooms.example.com"/></groupchat>`+
			`<muted xmlns="tigase:push:filter:muted:0"><item jid="tybalt@example.com"/><item jid="paris@example.com"/></muted>`+
			`<priority xmlns="tigase:push:priority:0"/>`+
			`<encrypt xmlns="tigase:push:encrypt:0" alg="aes-128-gcm" max-size="4000">`+b64(key)+`</encrypt></enable></iq>`)
		assert.Equal(t, service, ev.Key)
		assert.Len(t, ev.Options, 1)
		assert.Equal(t, &wishes.Wishes{
			IgnoreUnknown: true, Away: true, Priority: true, Jingle: true, Groupchat: true,
			Muted: []string{"paris@example.com", "tybalt@example.com"},
			Rooms: []wishes.Room{
				{Room: "garden@rooms.example.com", Allow: wishes.RoomMentioned, Nick: "Juliet"},
				{Room: "hall@rooms.example.com", Allow: wishes.RoomAlways},
			},
			Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret(string(key)), MaxSize: 4000},
		}, ev.Wishes)
	})
	t.Run("Siskin, all rooms muted: the element is there and empty", func(t *testing.T) {
		ev := askedFor(t, `<iq type="set" id="x"><enable xmlns="urn:xmpp:push:0" jid="push.tigase.im" node="n"><groupchat xmlns="tigase:push:filter:groupchat:0"/></enable></iq>`)
		assert.Equal(t, &wishes.Wishes{Groupchat: true}, ev.Wishes)
	})
	t.Run("Siskin, server without the filters: plain", func(t *testing.T) {
		ev := askedFor(t, `<iq type="set" id="x"><enable xmlns="urn:xmpp:push:0" jid="push.tigase.im" node="yxs32uqsflafdk3iuqo"/></iq>`)
		assert.Equal(t, push.PushEnable{Session: device, Key: service}, ev)
	})
	t.Run("Beagle: the key on lines of its own, a name for the device", func(t *testing.T) {
		ev := askedFor(t, `<iq type="set" id="x"><enable xmlns="urn:xmpp:push:0" jid="push.tigase.im" node="n" name="Beagle on Mac"><encrypt xmlns="tigase:push:encrypt:0" alg="aes-128-gcm">`+
			"\n   "+b64(key)+"\n</encrypt></enable></iq>")
		assert.Equal(t, &wishes.Wishes{Name: "Beagle on Mac", Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret(string(key))}}, ev.Wishes)
	})
	t.Run("Borogove", func(t *testing.T) {
		k := newWebKeys(t)
		ev := askedFor(t, `<iq to="juliet@example.com" type="set" id="x"><enable xmlns="urn:xmpp:push2:0"><service>push.borogove.dev</service>`+
			`<client>https://api.push.apple.com/3/device/0123#dev.borogove&amp;abcd</client>`+
			`<match profile="urn:xmpp:push2:match:important"><grace>144</grace>`+
			`<filter jid="hall@rooms.example.com"><mention/><reply/></filter><filter jid="garden@rooms.example.com"/>`+
			`<send xmlns="urn:xmpp:push2:send:sce+rfc8291+rfc8292:0"><ua-public>`+b64(k.public)+`</ua-public><auth-secret>`+b64(k.auth)+`</auth-secret>`+
			`<jwt-alg>ES256</jwt-alg><jwt-key>`+b64(k.signer)+`</jwt-key><jwt-claim name="aud">https://push.example.com</jwt-claim></send></match></enable></iq>`)
		assert.Equal(t, push.Key{Service: "push.borogove.dev", Node: push.Push2Node}, ev.Key)
		assert.True(t, ev.IsPush2())
		assert.Equal(t, &wishes.Wishes{Push2: &wishes.Push2{
			Client: wishes.NewSecret("https://api.push.apple.com/3/device/0123#dev.borogove&abcd"),
			Matches: []wishes.Match{{
				Profile: wishes.MatchImportant, Grace: 144 * time.Second,
				Filters: []wishes.ChatFilter{{JID: "garden@rooms.example.com"}, {JID: "hall@rooms.example.com", Mention: true, Reply: true}},
				Send: &wishes.WebPush{Public: k.public, Auth: wishes.NewSecret(string(k.auth)), TokenKey: wishes.NewSecret(string(k.signer)),
					Claims: []wishes.Claim{{Name: "aud", Value: "https://push.example.com"}}},
			}},
		}}, ev.Wishes)
	})
	t.Run("Push 2.0 as the draft has it, several matches, base64url without padding", func(t *testing.T) {
		k := newWebKeys(t)
		url := base64.RawURLEncoding.EncodeToString
		ev := askedFor(t, `<iq type="set" id="x"><enable xmlns="urn:xmpp:push2:0"><service>pusher@push.example.com/x</service><client>c</client>`+
			`<match profile="urn:xmpp:push2:match:archived-with-body"><send xmlns="urn:xmpp:push2:send:sce+rfc8291+rfc8292:0"><ua-public>`+url(k.public)+`</ua-public><auth-secret>`+url(k.auth)+`</auth-secret></send></match>`+
			`<match profile="urn:xmpp:push2:match:later"/><match profile="urn:x:own"/>`+
			`<match profile="urn:xmpp:push2:match:all"><send xmlns="urn:xmpp:push2:send:later:0"/></match>`+
			`<match profile="urn:xmpp:push2:match:archived"><send xmlns="urn:xmpp:push2:send:notify-only:0"/></match></enable></iq>`)
		assert.Equal(t, "pusher@push.example.com/x", ev.Service)
		assert.Equal(t, []wishes.Match{
			{Profile: wishes.MatchArchivedWithBody, Send: &wishes.WebPush{Public: k.public, Auth: wishes.NewSecret(string(k.auth))}},
			{Profile: wishes.MatchArchived},
		}, ev.Wishes.Push2.Matches, "what is not known is left out")
	})
	t.Run("an older draft: match and send beside each other, and a limit", func(t *testing.T) {
		ev := askedFor(t, `<iq type="set" id="x"><enable xmlns="urn:xmpp:push2:0"><service>push.example.com</service><client>c</client><limit>3</limit>`+
			`<match profile="urn:xmpp:push2:match:important"/><send profile="urn:xmpp:push2:send:notify-only:0"/></enable></iq>`)
		assert.Equal(t, []wishes.Match{{Profile: wishes.MatchImportant}}, ev.Wishes.Push2.Matches)
	})
	t.Run("Tigase's, as much as may be", func(t *testing.T) {
		name, want := strings.Repeat("n", 128), &wishes.Wishes{Groupchat: true, Rooms: []wishes.Room{{Room: "a@x", Allow: wishes.RoomAlways, Nick: strings.Repeat("n", 20000)}}}
		want.Name = name
		want.Encryption = &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret(string(key)), MaxSize: 256}
		b, err := want.MarshalBinary()
		require.NoError(t, err)
		want.Rooms[0].Nick += strings.Repeat("n", wishes.MaxWishesBytes-len(b))
		ev := askedFor(t, set(enableNS+`jid='p' name='`+name+`'><groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='a@x' allow='always' nick='`+want.Rooms[0].Nick+`'/></groupchat>`+
			`<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm' max-size='256'>`+b64(key)+`</encrypt></enable>`))
		assert.Equal(t, want, ev.Wishes)
	})
	t.Run("Push 2.0, as much as may be", func(t *testing.T) {
		k := newWebKeys(t)
		long := strings.Repeat("x", 2048)
		keys := `<ua-public xmlns="urn:xmpp:push2:0">` + b64(k.public) + `</ua-public><auth-secret xmlns="urn:xmpp:push2:0">` + b64(k.auth) + `</auth-secret><x xmlns="some:thing">` + long + `x</x>`
		claims := strings.Repeat(`<jwt-claim name="b">y</jwt-claim>`, 7) + `<jwt-claim name="aud">` + long[:2045] + `</jwt-claim>`
		ev := askedFor(t, `<iq type="set" id="x"><enable xmlns="urn:xmpp:push2:0"><service>p</service><client>`+long+`</client>`+
			`<match profile="urn:xmpp:push2:match:all"><send xmlns="urn:xmpp:push2:send:sce+rfc8291+rfc8292:0">`+keys+claims+`<jwt-alg>ES256</jwt-alg><jwt-key>`+b64(k.signer)+`</jwt-key></send></match>`+
			`<match profile="urn:xmpp:push2:match:all"><send xmlns="urn:xmpp:push2:send:sce+rfc8291+rfc8292:0">`+keys+claims+`</send></match></enable></iq>`)
		assert.Equal(t, long, ev.Wishes.Push2.Client.Reveal())
		assert.Equal(t, []wishes.Claim{{Name: "aud", Value: long[:2045]}, {Name: "b", Value: "y"}}, ev.Wishes.Push2.Matches[0].Send.Claims)
		assert.Empty(t, ev.Wishes.Push2.Matches[1].Send.Claims, "without an algorithm there is no token")
	})
	t.Run("Push 2.0 disable", func(t *testing.T) {
		q, err := push.ParseRequest(device, []byte(`<iq type="set" id="x"><disable xmlns="urn:xmpp:push2:0"/></iq>`))
		require.NoError(t, err)
		assert.Equal(t, push.PushDisable{Session: device, Key: push.Key{Node: push.Push2Node}}, q.Event)
	})
}

// TestWishesThatAreRefused: what could not be kept is refused, for the client would rely on it.
func TestWishesThatAreRefused(t *testing.T) {
	k := newWebKeys(t)
	off := bytes.Clone(k.public)
	off[64] ^= 1
	old := func(children string) string {
		return set(enableNS + `jid='push.example.net'>` + children + `</enable>`)
	}
	push2 := func(children string) string { return set(`<enable xmlns='urn:xmpp:push2:0'>` + children + `</enable>`) }
	const head = `<service>push.example.net</service><client>c</client>`
	const important = `<match profile='urn:xmpp:push2:match:important'>`
	encrypted := func(public, auth, more string) string {
		return push2(head + important + `<send xmlns='urn:xmpp:push2:send:sce+rfc8291+rfc8292:0'><ua-public>` + public + `</ua-public><auth-secret>` + auth + `</auth-secret>` + more + `</send></match>`)
	}
	encrypt := func(attrs, key string) string {
		return old(`<encrypt xmlns='tigase:push:encrypt:0' ` + attrs + `>` + key + `</encrypt>`)
	}
	rooms := func(room string) string {
		return old(`<groupchat xmlns='tigase:push:filter:groupchat:0'>` + room + `</groupchat>`)
	}
	goodKey := b64([]byte("0123456789abcdef"))
	for _, tt := range []struct{ name, iq, condition, text string }{
		{"algorithm", encrypt(`alg='aes-256-gcm'`, goodKey), "feature-not-implemented", "algorithm"},
		{"no algorithm", encrypt(``, goodKey), "feature-not-implemented", "algorithm"},
		{"key of 15 bytes", encrypt(`alg='aes-128-gcm'`, b64([]byte("0123456789abcde"))), "bad-request", "16 bytes"},
		{"key of 32 bytes", encrypt(`alg='aes-128-gcm'`, b64(bytes.Repeat([]byte{1}, 32))), "bad-request", "16 bytes"},
		{"no key", encrypt(`alg='aes-128-gcm'`, ""), "bad-request", "16 bytes"},
		{"key that is no base64", encrypt(`alg='aes-128-gcm'`, "&lt;hunter2&gt;"), "bad-request", "base64"},
		{"key with more behind it", encrypt(`alg='aes-128-gcm'`, goodKey[:22]+"!"), "bad-request", "base64"},
		{"max-size", encrypt(`alg='aes-128-gcm' max-size='big'`, goodKey), "bad-request", "max-size"},
		{"max-size below all use", encrypt(`alg='aes-128-gcm' max-size='255'`, goodKey), "not-acceptable", "256 bytes"},
		{"two encryptions", old(strings.Repeat(`<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>`+goodKey+`</encrypt>`, 2)), "bad-request", "more than one"},
		{"mentioned without nick", rooms(`<room jid='hall@rooms.example.com' allow='mentioned'/>`), "bad-request", "nick"},
		{"a room allowed otherwise", rooms(`<room jid='hall@rooms.example.com' allow='sometimes'/>`), "bad-request", "never, always or mentioned"},
		{"a room without JID", rooms(`<room allow='always'/>`), "bad-request", "no JID"},
		{"a room that is no JID", rooms(`<room jid='@' allow='always'/>`), "bad-request", "no JID"},
		{"muted without JID", old(`<muted xmlns='tigase:push:filter:muted:0'><item/></muted>`), "bad-request", "no JID"},
		{"too many muted", old(`<muted xmlns='tigase:push:filter:muted:0'>` + counted(`<item jid='u%d@example.com'/>`, wishes.MaxListed+1) + `</muted>`), "not-acceptable", "500"},
		{"too many rooms", rooms(counted(`<room jid='u%d@example.com' allow='always'/>`, wishes.MaxListed+1)), "not-acceptable", "500"},
		{"too much", rooms(counted(`<room jid='u%d`+strings.Repeat("x", 100)+`@example.com' allow='always'/>`, wishes.MaxListed)), "not-acceptable", "bytes of wishes"},
		{"name", set(enableNS + `jid='push.example.net' name='` + strings.Repeat("x", 129) + `'/>`), "not-acceptable", "name"},
		{"a node of Push 2.0", set(enableNS + `jid='push.example.net' node='urn:xmpp:push2:0#phone'/>`), "not-acceptable", "node begins"},

		{"push2: no service", push2(`<client>c</client>` + important + `</match>`), "bad-request", "service is missing"},
		{"push2: no client", push2(`<service>push.example.net</service>` + important + `</match>`), "bad-request", "client is missing"},
		{"push2: empty client", push2(`<service>push.example.net</service><client> </client>` + important + `</match>`), "bad-request", "client is missing"},
		{"push2: service is no JID", push2(`<service>@</service><client>c</client>` + important + `</match>`), "bad-request", "not a JID"},
		{"push2: service is the account", push2(`<service>juliet@example.com/balcony</service><client>c</client>` + important + `</match>`), "bad-request", "account itself"},
		{"push2: two services", push2(head + `<service>x.example.net</service>` + important + `</match>`), "bad-request", "more than one service"},
		{"push2: no match", push2(head), "bad-request", "match is missing"},
		{"push2: no match that is known", push2(head + `<match profile='urn:xmpp:push2:match:later'/><match/>`), "feature-not-implemented", "none of the matches"},
		{"push2: no send that is known", push2(head + important + `<send xmlns='urn:x'/></match>`), "feature-not-implemented", "none of the matches"},
		{"push2: too many matches", push2(head + strings.Repeat(important+`</match>`, wishes.MaxMatches+1)), "not-acceptable", "8 matches"},
		{"push2: grace", push2(head + important + `<grace>long</grace></match>`), "bad-request", "grace"},
		{"push2: negative grace", push2(head + important + `<grace>-1</grace></match>`), "bad-request", "grace"},
		{"push2: filter without JID", push2(head + important + `<filter/></match>`), "bad-request", "no JID"},
		{"push2: too many filters", push2(head + important + counted(`<filter jid='u%d@example.com'/>`, wishes.MaxListed+1) + `</match>`), "not-acceptable", "500"},
		{"push2: a long client", push2(`<service>push.example.net</service><client>` + strings.Repeat("x", wishes.MaxClientBytes+1) + `</client>` + important + `</match>`), "not-acceptable", "2048"},
		{"push2: elements in the service", push2(`<service>push.example.net<x/></service><client>c</client>` + important + `</match>`), "bad-request", "service has elements"},
		{"push2: two clients", push2(head + `<client>d</client>` + important + `</match>`), "bad-request", "more than one client"},
		{"push2: a match without its namespace", push2(head + `<match profile='important'/>`), "feature-not-implemented", "none of the matches"},
		{"push2: elements in a key", encrypted(b64(k.public)+`<x/>`, b64(k.auth), ""), "bad-request", "ua-public has elements"},
		{"push2: a long key", encrypted(b64(k.public), b64(k.auth), `<jwt-key>`+strings.Repeat("x", 2049)+`</jwt-key>`), "not-acceptable", "jwt-key is longer than 2048 bytes"},
		{"push2: a key as long as it may be", encrypted(b64(k.public), b64(k.auth), `<jwt-alg>ES256</jwt-alg><jwt-key>`+strings.Repeat("x", 2048)+`</jwt-key>`), "bad-request", "PKCS#8"},
		{"push2: a key of another namespace", encrypted(``, b64(k.auth), `<ua-public xmlns='some:thing'>`+b64(k.public)+`</ua-public>`), "bad-request", "P-256"},
		{"push2: a long claim", encrypted(b64(k.public), b64(k.auth), `<jwt-claim name='aud'>`+strings.Repeat("x", 2046)+`</jwt-claim>`), "not-acceptable", "2048 bytes"},
		{"push2: point off the curve", encrypted(b64(off), b64(k.auth), ""), "bad-request", "P-256"},
		{"push2: compressed point", encrypted(b64(append([]byte{3}, k.public[1:33]...)), b64(k.auth), ""), "bad-request", "P-256"},
		{"push2: no public key", encrypted("", b64(k.auth), ""), "bad-request", "P-256"},
		{"push2: auth secret of 15 bytes", encrypted(b64(k.public), b64(k.auth[1:]), ""), "bad-request", "16 bytes"},
		{"push2: not base64", encrypted("&lt;hunter2&gt;", b64(k.auth), ""), "bad-request", "base64"},
		{"push2: RS256", encrypted(b64(k.public), b64(k.auth), `<jwt-alg>RS256</jwt-alg><jwt-key>`+b64(k.signer)+`</jwt-key>`), "feature-not-implemented", "ES256"},
		{"push2: HS256", encrypted(b64(k.public), b64(k.auth), `<jwt-alg>HS256</jwt-alg><jwt-key>hunter2</jwt-key>`), "feature-not-implemented", "ES256"},
		{"push2: no key for the token", encrypted(b64(k.public), b64(k.auth), `<jwt-alg>ES256</jwt-alg>`), "bad-request", "PKCS#8"},
		{"push2: another key", encrypted(b64(k.public), b64(k.auth), `<jwt-alg>ES256</jwt-alg><jwt-key>`+b64(k.public)+`</jwt-key>`), "bad-request", "PKCS#8"},
		{"push2: claims", encrypted(b64(k.public), b64(k.auth), `<jwt-alg>ES256</jwt-alg>`+strings.Repeat(`<jwt-claim name='x'>y</jwt-claim>`, wishes.MaxClaims+1)), "not-acceptable", "claims"},
		{"push2: a claim without name", encrypted(b64(k.public), b64(k.auth), `<jwt-claim>y</jwt-claim>`), "bad-request", "claim"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, err := push.ParseRequest(device, []byte(tt.iq))
			require.NoError(t, err)
			require.NotNil(t, q.Refusal)
			assert.Nil(t, q.Event)
			assert.Equal(t, "modify", string(q.Refusal.Type))
			assert.Equal(t, tt.condition, string(q.Refusal.Condition))
			assert.Contains(t, q.Refusal.Text["en"], tt.text)
			assert.NotContains(t, fmt.Sprintf("%+v", q), "hunter2")
		})
	}
}

// counted repeats a format n times, with a number each.
func counted(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestTheLastOfTwoHolds(t *testing.T) {
	ev := askedFor(t, set(enableNS+`jid='push.example.net'><groupchat xmlns='tigase:push:filter:groupchat:0'><room jid='a@x' allow='always'/><room jid='b@x' allow='never'/><room jid='A@x/y' allow='never'/></groupchat></enable>`))
	assert.Equal(t, []wishes.Room{{Room: "a@x", Allow: wishes.RoomNever}, {Room: "b@x", Allow: wishes.RoomNever}}, ev.Wishes.Rooms)
}

// TestHandMadeEnables: what a host makes itself is held to the same limits.
func TestHandMadeEnables(t *testing.T) {
	e, err := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	require.NoError(t, err)
	matches := []wishes.Match{{}}
	for name, ev := range map[string]push.PushEnable{
		"a key of another size": {Key: push.Key{Service: "p"}, Wishes: &wishes.Wishes{Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("hunter2")}}},
		"no match":              {Key: push.Key{Service: "p", Node: push.Push2Node + "x"}, Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("hunter2")}}},
		"no client":             {Key: push.Key{Service: "p", Node: push.Push2Node + "x"}, Wishes: &wishes.Wishes{Push2: &wishes.Push2{Matches: matches}}},
		"out of order":          {Key: push.Key{Service: "p"}, Wishes: &wishes.Wishes{Muted: []string{"b@x", "a@x"}}},
		"a mention of nobody":   {Key: push.Key{Service: "p"}, Wishes: &wishes.Wishes{Rooms: []wishes.Room{{Room: "a@x", Allow: wishes.RoomMentioned}}}},
		"another node":          {Key: push.Key{Service: "p", Node: "n"}, Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("hunter2"), Matches: matches}}},
		"no wishes":             {Key: push.Key{Service: "p", Node: push.Push2Node}},
		"keys off the curve":    {Key: push.Key{Service: "p", Node: push.Push2Node}, Wishes: &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c"), Matches: []wishes.Match{{Send: &wishes.WebPush{Public: []byte("hunter2")}}}}}},
	} {
		ev.Session = device
		_, err := e.Handle(t.Context(), ev)
		assert.ErrorIs(t, err, push.ErrEvent, name)
		assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "hunter2", name)
	}
	st, err := e.Inspect(t.Context(), device.Account)
	require.NoError(t, err)
	assert.Empty(t, st.Registrations)
	require.NoError(t, e.Close(t.Context()))
}
