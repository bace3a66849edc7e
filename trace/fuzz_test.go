package trace_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push/trace"
)

// replay returns what a trace replays to, as pushreplay would print it, and the error at its end.
func replay(t testing.TB, text []byte) (string, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	r := trace.NewReplay(func(l *trace.Line) { require.NoError(t, enc.Encode(l)) })
	err := r.Run(trace.NewReader(bytes.NewReader(text)))
	r.Finish()
	return out.String(), err
}

// Whatever is in a trace, reading it ends with io.EOF or an error that names the line; what was read makes sense, and replays to the same each time.
func FuzzTraceReader(f *testing.F) {
	recording, err := os.ReadFile("../testdata/traces/prosody-0.12.3.jsonl")
	require.NoError(f, err)
	lines := bytes.SplitAfter(recording, []byte("\n"))
	for i := 0; i+8 < len(lines); i += 8 {
		f.Add(bytes.Join(lines[i:i+8], nil))
	}
	for _, text := range []string{
		"", "\n\n", "{}", "null", "[]", `"config"`, `{"type":"config"}`, `{"type":"config","replies":"maybe"}`, `{"type":"config","policy":{"expire_ms":-1}}`,
		`{"type":"config","policy":{"retry_min_ms":9223372036854775807,"delay_ms":9223372036854775807}}`,
		`{"type":"session-open","at":1,"session":"s1","jid":"a@b/c"}` + "\n" + `{"type":"config"}`,
		`{"type":"session-open","at":8796093022208,"session":"s1","jid":"a@b/c"}` + "\n" +
			`{"type":"push-enable","at":8796093022208,"session":"s1","service":"p"}` + "\n" + `{"type":"ping","at":8796093022208,"user":"a@b"}`,
		`{"type":"ping","at":-8796093022208,"user":"a@b"}`, `{"type":"ping","at":1700000000000000,"user":"a@b"}`, `{"type":"ping","at":1e3,"user":"a@b"}`, `{"type":"ping","at":1.5,"user":"a@b"}`,
		`{"type":"ping","at":2,"user":"a@b"}` + "\n" + `{"type":"ping","at":1,"user":"a@b"}`,
		`{"type":"offline","at":1,"user":"a@b","stanza":{"id":"m1"}}`, `{"type":"offline","at":1,"user":"a@b","stanza":"m1"}`,
		`{"type":"offline","at":1,"user":"a@b","stanza":{"id":"m1","xml":"<message"}}`,
		`{"type":"ack-delayed","at":1,"session":"s1","queue":{}}`, `{"type":"ack-delayed","at":1,"session":"s1","queue":{"a":1}}`,
		`{"type":"push-enable","at":1,"session":"s1","service":"p","options":{"a":["b","c"],"d":"e","a":null,"f":1}}`,
		`{"type":"push-enable","at":1,"session":"s1","service":"p","options":[]}`,
		`{"type":"publish-error","at":1,"user":"a@b","service":"p"}`, `{"type":"observed-push","at":1,"stanza":7}`, `{"type":"sing","at":1}`,
		`{"type":"session-open","at":1,"session":"s1","jid":"@"}`, "{\"type\":\"ping\",\"at\":1,\"user\":\"\xff\"}", `{"type":`, strings.Repeat("[", 20000),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := trace.NewReader(bytes.NewReader(text))
		last := int64(-1 << 62)
		for {
			rec, err := r.Next()
			if err != nil {
				var at *trace.Error
				if !errors.Is(err, io.EOF) {
					require.ErrorAs(t, err, &at)
					assert.Positive(t, at.Line)
				}
				assert.Nil(t, rec)
				break
			}
			if rec.Config != nil {
				last = -1 << 62 // the server was started again
			} else {
				assert.GreaterOrEqual(t, rec.At, last)
				assert.Equal(t, rec.At*1e6+rec.Nanos, rec.Time().UnixNano())
				last = rec.At
			}
			if rec.Event != nil {
				assert.NotZero(t, rec.Number)
				assert.Equal(t, rec.Type, rec.Event.Name())
			}
		}
		first, err := replay(t, text)
		require.Error(t, err)
		second, _ := replay(t, text)
		assert.Equal(t, first, second)
	})
}
