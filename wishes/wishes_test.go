package wishes_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
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

	for i := range data { // damage never panics, and never gives half of it
		var n wishes.Wishes
		if err := n.UnmarshalBinary(data[:i]); err != nil {
			assert.Equal(t, wishes.Wishes{}, n)
			assert.NotContains(t, err.Error(), "hunter2")
		}
	}
	newer := append(append([]byte{}, data...), 200, 3, 'n', 'e', 'w')
	require.NoError(t, back.UnmarshalBinary(newer), "a section of a newer release")
	assert.True(t, w.Equal(&back))
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
