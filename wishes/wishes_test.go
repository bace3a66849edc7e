package wishes_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// fullWishes asks for everything. Its secrets all contain "hunter2".
func fullWishes() *wishes.Wishes {
	return &wishes.Wishes{
		IgnoreUnknown: true,
		Muted:         []string{"a@example.com", "b@example.com"},
		Groupchat:     true,
		Rooms: []wishes.Room{
			{Room: "garden@rooms.example.com", Allow: wishes.RoomMentioned, Nick: "juliet"},
			{Room: "hall@rooms.example.com", Allow: wishes.RoomAlways},
			{Room: "tomb@rooms.example.com", Allow: wishes.RoomNever},
		},
		Away: true, Priority: true, Jingle: true,
		Name:       "Juliet’s phone",
		Identity:   "client/phone",
		Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("hunter2-16bytes!"), MaxSize: 3000},
		Push2: &wishes.Push2{
			Client: wishes.NewSecret("https://push.example.net/hunter2"),
			Matches: []wishes.Match{
				{
					Profile: wishes.MatchImportant,
					Filters: []wishes.ChatFilter{{JID: "rooms.example.com"}, {JID: "x@rooms.example.com", Mention: true, Reply: true}},
					Grace:   144 * time.Second,
					Send: &wishes.WebPush{
						Public: []byte{4, 1, 2, 3, 0xff}, Auth: wishes.NewSecret("hunter2-16bytes!"), TokenKey: wishes.NewSecret("\x30\x81hunter2"),
						Claims: []wishes.Claim{{Name: "aud", Value: "https://push.example.net"}},
					},
				},
				{Profile: wishes.MatchArchivedWithBody},
			},
		},
	}
}

// TestWishesSurviveEncoding breaks when a field is added that the encoding does not have.
func TestWishesSurviveEncoding(t *testing.T) {
	w := fullWishes()
	requireNoZero(t, "Wishes", reflect.ValueOf(*w))
	data, err := w.MarshalBinary()
	require.NoError(t, err)
	var back wishes.Wishes
	require.NoError(t, back.UnmarshalBinary(data))
	assert.Equal(t, w, &back)
	assert.True(t, w.Equal(&back))

	appended, err := w.AppendBinary([]byte("x"))
	require.NoError(t, err)
	assert.Equal(t, "x"+string(data), string(appended))

	ends := map[int]bool{} // of the sections, each a tag, a length and so many bytes
	for i := 1; i < len(data); {
		ends[i] = true
		n, size := binary.Uvarint(data[i+1:])
		i += 1 + size + int(n)
	}
	for i := range data { // what is cut off never panics, and never gives half of it
		var n wishes.Wishes
		err := n.UnmarshalBinary(data[:i])
		assert.Equal(t, ends[i], err == nil, "cut off after %d bytes", i)
		if err != nil {
			assert.Equal(t, wishes.Wishes{}, n)
			assert.NotContains(t, err.Error(), "hunter2")
		}
	}
	newer := append(append([]byte{}, data...), 200, 3, 'n', 'e', 'w')
	require.NoError(t, back.UnmarshalBinary(newer), "a section of a newer release")
	assert.True(t, w.Equal(&back))
}

// TestDamagedWishes: what a store gives back is read whole or not at all, also if the damage is within a section.
func TestDamagedWishes(t *testing.T) {
	for name, data := range map[string]string{
		"nothing":                      "",
		"another version":              "\x02",
		"a room without an address":    "\x01\x04\x01\x00",
		"a nickname cut off":           "\x01\x04\x05\x00\x01r\x05n",
		"a room's third kind":          "\x01\x04\x05\x03\x01r\x01n",
		"a key cut off":                "\x01\x05\x05\x01a\x10ke",
		"a match's fifth profile":      "\x01\x07\x04\x04\x00\x00\x00",
		"a match without filters":      "\x01\x07\x02\x00\x00",
		"a grace without an end":       "\x01\x07\x0c\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x00",
		"more filters than there are":  "\x01\x07\x04\x00\x00\x09\x00",
		"and what follows it is whole": "\x01\x04\x01\x00\x02\x01n",
	} {
		var w wishes.Wishes
		assert.Error(t, w.UnmarshalBinary([]byte(data)), name)
		assert.Equal(t, wishes.Wishes{}, w, name)
	}
	var w wishes.Wishes
	require.NoError(t, w.UnmarshalBinary([]byte("\x01\x04\x05\x02\x01r\x01n\x07\x04\x03\x00\x00\x00")))
	assert.Equal(t, []wishes.Room{{Room: "r", Allow: wishes.RoomMentioned, Nick: "n"}}, w.Rooms)
	assert.Equal(t, wishes.MatchArchivedWithBody, w.Push2.Matches[0].Profile)
}

// requireNoZero makes sure that a value has something in every field, so that a test of all of it is one.
func requireNoZero(t *testing.T, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		require.False(t, v.IsNil(), path)
		requireNoZero(t, path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			requireNoZero(t, path+"."+f.Name, v.Field(i))
		}
	case reflect.Slice:
		require.NotZero(t, v.Len(), path)
		if v.Index(0).Kind() == reflect.Struct && !strings.HasSuffix(path, "Filters") {
			requireNoZero(t, path+"[0]", v.Index(0))
		}
	default:
		require.False(t, v.IsZero(), path)
	}
}

func TestWishesDifferInEachField(t *testing.T) {
	change := map[string]func(w *wishes.Wishes){
		"ignore-unknown": func(w *wishes.Wishes) { w.IgnoreUnknown = false },
		"muted":          func(w *wishes.Wishes) { w.Muted = w.Muted[1:] },
		"groupchat":      func(w *wishes.Wishes) { w.Groupchat = false },
		"room":           func(w *wishes.Wishes) { w.Rooms[1].Allow = wishes.RoomNever },
		"nick":           func(w *wishes.Wishes) { w.Rooms[0].Nick = "Juliet" },
		"away":           func(w *wishes.Wishes) { w.Away = false },
		"priority":       func(w *wishes.Wishes) { w.Priority = false },
		"jingle":         func(w *wishes.Wishes) { w.Jingle = false },
		"name":           func(w *wishes.Wishes) { w.Name = "" },
		"identity":       func(w *wishes.Wishes) { w.Identity = "client/pc" },
		"key":            func(w *wishes.Wishes) { w.Encryption.Key = wishes.NewSecret("another-16bytes!") },
		"max-size":       func(w *wishes.Wishes) { w.Encryption.MaxSize = 0 },
		"client":         func(w *wishes.Wishes) { w.Push2.Client = wishes.NewSecret("x") },
		"profile":        func(w *wishes.Wishes) { w.Push2.Matches[1].Profile = wishes.MatchAll },
		"filter":         func(w *wishes.Wishes) { w.Push2.Matches[0].Filters[1].Reply = false },
		"grace":          func(w *wishes.Wishes) { w.Push2.Matches[0].Grace++ },
		"send":           func(w *wishes.Wishes) { w.Push2.Matches[0].Send = nil },
		"auth":           func(w *wishes.Wishes) { w.Push2.Matches[0].Send.Auth = wishes.NewSecret("another-16bytes!") },
		"claim":          func(w *wishes.Wishes) { w.Push2.Matches[0].Send.Claims[0].Value = "x" },
	}
	for name, f := range change {
		w := fullWishes()
		f(w)
		assert.False(t, w.Equal(fullWishes()), name)
	}
	assert.True(t, fullWishes().Equal(fullWishes()))
	var none *wishes.Wishes
	assert.True(t, none.Equal(nil))
	assert.True(t, none.Equal(new(wishes.Wishes)), "nothing asked for")
	assert.True(t, none.Empty())
	assert.True(t, new(wishes.Wishes).Empty())
	assert.False(t, fullWishes().Empty())
	assert.False(t, none.Equal(fullWishes()))
}

// holder keeps wishes where fmt cannot call their methods.
type holder struct {
	wishes *wishes.Wishes
	reg    push.Registration
	key    wishes.Secret
}

func TestSecretsNeverPrint(t *testing.T) {
	w := fullWishes()
	h := holder{w, push.Registration{Wishes: w}, w.Encryption.Key}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%t"} {
		for _, v := range []any{w.Encryption.Key, &w.Encryption.Key, *w.Encryption, w.Encryption, w.Push2, w.Push2.Matches, *w, h, &h, h.reg, []any{h}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	logger.Info("x", "wishes", w, "key", w.Encryption.Key, "registration", h.reg)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "wishes", w, "key", w.Encryption.Key, "registration", h.reg)
	require.NoError(t, json.NewEncoder(&out).Encode(h.reg))
	require.NoError(t, json.NewEncoder(&out).Encode(w))
	assert.NotContains(t, out.String(), "hunter2")
	assert.NotContains(t, strings.ToLower(out.String()), hex.EncodeToString([]byte("hunter2")))
	assert.NotContains(t, out.String(), "aHVudGVyM") // base64
	assert.Contains(t, out.String(), "secret")
}

// TestWishesAsJSON: what a recording has of wishes decides the same, with stand-ins for the keys.
func TestWishesAsJSON(t *testing.T) {
	w := fullWishes()
	text, err := json.Marshal(w)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"grace":144`)
	var back wishes.Wishes
	require.NoError(t, json.Unmarshal(text, &back))
	assert.Equal(t, "secret", back.Encryption.Key.Reveal())
	back.Encryption.Key = w.Encryption.Key
	back.Push2.Client = w.Push2.Client
	back.Push2.Matches[0].Send.Auth, back.Push2.Matches[0].Send.TokenKey = w.Push2.Matches[0].Send.Auth, w.Push2.Matches[0].Send.TokenKey
	assert.Equal(t, w, &back)
}

// TestWishesByHand: what a person writes need not be in order, and a word that is not known is refused, by its place in the JSON.
func TestWishesByHand(t *testing.T) {
	var w wishes.Wishes
	require.NoError(t, json.Unmarshal([]byte(`{"muted":["b@example.com","a@example.com"],"rooms":[{"room":"y","allow":"always"},{"room":"x","allow":"mentioned","nick":"juliet"}],
		"push2":{"client":"c","matches":[{"profile":"archived","grace":1e9,"filters":[{"jid":"y"},{"jid":"x","reply":true}]},{"profile":"all","grace":-1}]}}`), &w))
	assert.True(t, w.Mutes("a@example.com"))
	r, ok := w.Room("y")
	assert.True(t, ok)
	assert.Equal(t, wishes.RoomAlways, r.Allow)
	f, ok := w.Push2.Matches[0].Filter("x")
	assert.True(t, ok)
	assert.True(t, f.Reply)
	assert.Equal(t, wishes.MaxGrace, w.Push2.Matches[0].Grace)
	assert.Zero(t, w.Push2.Matches[1].Grace)

	var m wishes.Match
	require.NoError(t, json.Unmarshal([]byte(`{"profile":"all","filters":[{"jid":"y"},{"jid":"x"}]}`), &m))
	assert.Equal(t, []wishes.ChatFilter{{JID: "x"}, {JID: "y"}}, m.Filters, "a match by itself, too")

	for _, text := range []string{
		`{"muted":7}`, `{"muted":["b"],"away":"yes"}`, `{"rooms":[{"room":"x","allow":"sometimes"}]}`,
		`{"push2":{"client":"c","matches":[{"profile":"none"}]}}`, `{"push2":{"client":"c","matches":[{"grace":"long"}]}}`,
	} {
		assert.Error(t, json.Unmarshal([]byte(text), new(wishes.Wishes)), text)
	}
}

// TestTokens: what has a token in JSON and in reports reads back as the same.
func TestTokens(t *testing.T) {
	text := func(v encoding.TextMarshaler) string {
		b, err := v.MarshalText()
		require.NoError(t, err)
		return string(b)
	}
	for want, token := range []string{"never", "always", "mentioned"} {
		var a wishes.RoomAllow
		require.NoError(t, a.UnmarshalText([]byte(token)))
		assert.EqualValues(t, want, a)
		assert.Equal(t, token, text(a))
	}
	for want, token := range []string{"all", "important", "archived", "archived-with-body"} {
		var p wishes.MatchProfile
		require.NoError(t, p.UnmarshalText([]byte(token)))
		assert.EqualValues(t, want, p)
		assert.Equal(t, token, text(p))
	}
	for want, token := range []string{"always", "on-mention", "never"} {
		var w wishes.NotifyWhen
		require.NoError(t, w.UnmarshalText([]byte(token)))
		assert.EqualValues(t, want, w)
		assert.Equal(t, token, text(w))
	}
	assert.Error(t, new(wishes.RoomAllow).UnmarshalText([]byte("always ")))
	assert.Error(t, new(wishes.MatchProfile).UnmarshalText(nil))
}

func TestSecret(t *testing.T) {
	none, some := wishes.Secret{}, wishes.NewSecret("hunter2")
	assert.True(t, none.IsZero())
	assert.False(t, some.IsZero())
	assert.True(t, wishes.NewSecret("").IsZero())
	assert.True(t, some.Equal(wishes.NewSecret("hunter2")))
	assert.False(t, some.Equal(none))
	assert.Equal(t, "secret", some.GoString())
	assert.Empty(t, none.GoString())
}

func TestLookups(t *testing.T) {
	w := fullWishes()
	assert.True(t, w.Mutes("b@example.com"))
	assert.False(t, w.Mutes("c@example.com"))
	r, ok := w.Room("hall@rooms.example.com")
	assert.True(t, ok)
	assert.Equal(t, wishes.RoomAlways, r.Allow)
	_, ok = w.Room("attic@rooms.example.com")
	assert.False(t, ok)

	m := wishes.Match{Filters: []wishes.ChatFilter{{JID: "rooms.example.com", Reply: true}, {JID: "x@rooms.example.com", Mention: true}, {JID: "x@rooms.example.com/nurse"}}}
	for from, want := range map[string]string{
		"x@rooms.example.com/nurse":  "x@rooms.example.com/nurse",
		"x@rooms.example.com/romeo":  "x@rooms.example.com",
		"x@rooms.example.com":        "x@rooms.example.com",
		"y@rooms.example.com/nurse":  "rooms.example.com",
		"rooms.example.com":          "rooms.example.com",
		"rooms.example.com/resource": "rooms.example.com",
	} {
		f, ok := m.Filter(from)
		assert.True(t, ok, from)
		assert.Equal(t, want, f.JID, from)
	}
	for _, from := range []string{"", "romeo@example.com/x", "example.com"} {
		_, ok := m.Filter(from)
		assert.False(t, ok, from)
	}
}

// validWishes is fullWishes with keys that are some.
func validWishes(t *testing.T) *wishes.Wishes {
	w := fullWishes()
	device, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	server, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(server)
	require.NoError(t, err)
	s := w.Push2.Matches[0].Send
	s.Public, s.TokenKey = device.PublicKey().Bytes(), wishes.NewSecret(string(der))
	return w
}

// TestValidate: each limit holds, and what is just within it is taken. Who made more than one mistake is told of all.
func TestValidate(t *testing.T) {
	names := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("%03d@example.com", i))
		}
		return list
	}
	rooms := func(n int) (list []wishes.Room) {
		for _, r := range names(n) {
			list = append(list, wishes.Room{Room: r})
		}
		return list
	}
	filters := func(n int) (list []wishes.ChatFilter) {
		for _, f := range names(n) {
			list = append(list, wishes.ChatFilter{JID: f})
		}
		return list
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	match := func(w *wishes.Wishes) *wishes.Match { return &w.Push2.Matches[0] }
	// fill lets all together be encoded in n bytes.
	fill := func(w *wishes.Wishes, n int) {
		w.Rooms[0].Nick = long(20000)
		b, _ := w.MarshalBinary()
		w.Rooms[0].Nick += long(n - len(b))
	}
	for _, c := range []struct {
		name   string
		change func(w *wishes.Wishes)
		want   string // nothing: it is valid
	}{
		{"all there is", func(*wishes.Wishes) {}, ""},
		{"as much as may be", func(w *wishes.Wishes) { fill(w, wishes.MaxWishesBytes) }, ""},
		{"too much", func(w *wishes.Wishes) { fill(w, wishes.MaxWishesBytes+1) }, "wishes of 32769 bytes, more than 32768"},
		{"as many muted as may be", func(w *wishes.Wishes) { w.Muted = names(500) }, ""},
		{"too many muted", func(w *wishes.Wishes) { w.Muted = names(501) }, "more than 500 JIDs in a list"},
		{"muted in disorder", func(w *wishes.Wishes) { w.Muted = []string{"b@example.com", "a@example.com"} }, "Wishes.Muted is not in order"},
		{"as many rooms as may be", func(w *wishes.Wishes) { w.Rooms = rooms(500) }, ""},
		{"too many rooms", func(w *wishes.Wishes) { w.Rooms = rooms(501) }, "more than 500 JIDs in a list"},
		{"rooms in disorder", func(w *wishes.Wishes) { w.Rooms[1], w.Rooms[2] = w.Rooms[2], w.Rooms[1] }, "Wishes.Rooms is not in order, or has a room twice"},
		{"a room twice", func(w *wishes.Wishes) { w.Rooms[1] = w.Rooms[2] }, "Wishes.Rooms is not in order, or has a room twice"},
		{"mentions of nobody", func(w *wishes.Wishes) { w.Rooms[0].Nick = "" }, "Wishes.Rooms has a room that allows mentions and no nick"},
		{"a name as long as it may be", func(w *wishes.Wishes) { w.Name, w.Identity = long(128), long(128) }, ""},
		{"a long name", func(w *wishes.Wishes) { w.Name = long(129) }, "a name or an identity of more than 128 bytes"},
		{"a long identity", func(w *wishes.Wishes) { w.Identity = long(129) }, "a name or an identity of more than 128 bytes"},
		{"an algorithm that is not known", func(w *wishes.Wishes) { w.Encryption.Algorithm = "rot13" }, `encryption by "rot13", which is not known`},
		{"a short key", func(w *wishes.Wishes) { w.Encryption.Key = wishes.NewSecret("short") }, "an encryption key that has not 16 bytes"},
		{"a recording's key", func(w *wishes.Wishes) { w.Encryption.Key = wishes.NewSecret("secret") }, ""},
		{"payloads of any size", func(w *wishes.Wishes) { w.Encryption.MaxSize = 0 }, ""},
		{"payloads as small as may be", func(w *wishes.Wishes) { w.Encryption.MaxSize = 256 }, ""},
		{"small payloads", func(w *wishes.Wishes) { w.Encryption.MaxSize = 255 }, "a payload of at most 255 bytes, in which nothing fits; at least 256"},
		{"no client", func(w *wishes.Wishes) { w.Push2.Client = wishes.Secret{} }, "a client of 0 bytes; there must be some, and at most 2048"},
		{"a client as long as it may be", func(w *wishes.Wishes) { w.Push2.Client = wishes.NewSecret(long(2048)) }, ""},
		{"a long client", func(w *wishes.Wishes) { w.Push2.Client = wishes.NewSecret(long(2049)) }, "a client of 2049 bytes; there must be some, and at most 2048"},
		{"no match", func(w *wishes.Wishes) { w.Push2.Matches = nil }, "0 matches; there must be one, and at most 8"},
		{"as many matches as may be", func(w *wishes.Wishes) { w.Push2.Matches = make([]wishes.Match, 8) }, ""},
		{"too many matches", func(w *wishes.Wishes) { w.Push2.Matches = make([]wishes.Match, 9) }, "9 matches; there must be one, and at most 8"},
		{"as many filters as may be", func(w *wishes.Wishes) { match(w).Filters = filters(500) }, ""},
		{"too many filters", func(w *wishes.Wishes) { match(w).Filters = filters(501) }, "more than 500 filters in a match"},
		{"filters in disorder", func(w *wishes.Wishes) { match(w).Filters = []wishes.ChatFilter{{JID: "b"}, {JID: "a"}} }, "Match.Filters is not in order"},
		{"no grace", func(w *wishes.Wishes) { match(w).Grace = 0 }, ""},
		{"as long a grace as may be", func(w *wishes.Wishes) { match(w).Grace = 24 * time.Hour }, ""},
		{"a long grace", func(w *wishes.Wishes) { match(w).Grace = 24*time.Hour + 1 }, "a grace period of 24h0m0.000000001s, more than 24h0m0s or less than none"},
		{"a grace before", func(w *wishes.Wishes) { match(w).Grace = -1 }, "a grace period of -1ns, more than 24h0m0s or less than none"},
		{"no content", func(w *wishes.Wishes) { match(w).Send = nil }, ""},
		{"a public key that is none", func(w *wishes.Wishes) { match(w).Send.Public = []byte{4} }, "a key of the client's: not a raw uncompressed P-256 point"},
		{"a short secret", func(w *wishes.Wishes) { match(w).Send.Auth = wishes.NewSecret("short") }, "a key of the client's: not 16 bytes"},
		{"a recording's secret", func(w *wishes.Wishes) { match(w).Send.Auth = wishes.NewSecret("secret") }, ""},
		{"no token", func(w *wishes.Wishes) { match(w).Send.TokenKey = wishes.Secret{} }, ""},
		{"a token's key that is none", func(w *wishes.Wishes) { match(w).Send.TokenKey = wishes.NewSecret("short") }, "the key of the token: not a P-256 private key in PKCS#8"},
		{"a recording's key of a token", func(w *wishes.Wishes) { match(w).Send.TokenKey = wishes.NewSecret("secret") }, ""},
		{"as many claims as may be", func(w *wishes.Wishes) { match(w).Send.Claims = slices.Repeat([]wishes.Claim{{Name: "n"}}, 8) }, ""},
		{"too many claims", func(w *wishes.Wishes) { match(w).Send.Claims = slices.Repeat([]wishes.Claim{{Name: "n"}}, 9) }, "more than 8 claims"},
		{"a claim without a name", func(w *wishes.Wishes) { match(w).Send.Claims[0].Name = "" }, "a claim without a name, or of more than 2048 bytes"},
		{"a claim as long as it may be", func(w *wishes.Wishes) { match(w).Send.Claims[0].Value = long(2045) }, ""},
		{"a long claim", func(w *wishes.Wishes) { match(w).Send.Claims[0].Value = long(2046) }, "a claim without a name, or of more than 2048 bytes"},
		{"two mistakes", func(w *wishes.Wishes) { w.Name, w.Push2.Client = long(129), wishes.Secret{} }, "a name or an identity of more than 128 bytes\npush: a client of 0 bytes; there must be some, and at most 2048"},
	} {
		w := validWishes(t)
		c.change(w)
		if err := w.Validate(); c.want == "" {
			assert.NoError(t, err, c.name)
		} else {
			assert.EqualError(t, err, "push: "+c.want, c.name)
		}
	}
	var none *wishes.Wishes
	assert.NoError(t, none.Validate())
	assert.NoError(t, new(wishes.Wishes).Validate())
}

func FuzzWishes(f *testing.F) {
	data, _ := fullWishes().MarshalBinary()
	f.Add(data)
	f.Add([]byte{1})
	f.Add([]byte{1, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		var w wishes.Wishes
		if w.UnmarshalBinary(data) != nil {
			return
		}
		_ = w.Validate()
		again, err := w.MarshalBinary()
		require.NoError(t, err)
		var back wishes.Wishes
		require.NoError(t, back.UnmarshalBinary(again))
		require.True(t, w.Equal(&back))
	})
}

// TestSort puts every list in order; of what is there twice the last one holds.
func TestSort(t *testing.T) {
	w := &wishes.Wishes{
		Muted: []string{"b@example.com", "a@example.com", "b@example.com"},
		Rooms: []wishes.Room{{Room: "y", Allow: wishes.RoomNever}, {Room: "x"}, {Room: "y", Allow: wishes.RoomAlways}},
		Push2: &wishes.Push2{Client: wishes.NewSecret("c"), Matches: []wishes.Match{{
			Filters: []wishes.ChatFilter{{JID: "y", Mention: true}, {JID: "x"}, {JID: "y", Reply: true}},
			Send:    &wishes.WebPush{Claims: []wishes.Claim{{Name: "sub", Value: "1"}, {Name: "aud", Value: "2"}, {Name: "sub", Value: "3"}}},
		}}},
	}
	w.Sort()
	assert.Equal(t, []string{"a@example.com", "b@example.com"}, w.Muted)
	assert.Equal(t, []wishes.Room{{Room: "x"}, {Room: "y", Allow: wishes.RoomAlways}}, w.Rooms)
	m := w.Push2.Matches[0]
	assert.Equal(t, []wishes.ChatFilter{{JID: "x"}, {JID: "y", Reply: true}}, m.Filters)
	assert.Equal(t, []wishes.Claim{{Name: "aud", Value: "2"}, {Name: "sub", Value: "3"}}, m.Send.Claims)
}
