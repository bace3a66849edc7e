package pushhttp

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xmpp-push/push"
)

// engineWords are those that an operator of a server need not know.
var engineWords = []string{
	"stanza", "hibernat", "registration", "publish", "tombstone", "queue", "csi", "rule", "engine", "session", "bound", "node", "veto", "resum", "ack", "notified of by",
	"ping", "mam", "archive",
}

// Every reason and every outcome has a sentence, and none uses the library's words.
func TestEveryReasonAndOutcomeHasWords(t *testing.T) {
	check := func(what string, w word, ok bool) {
		if !assert.True(t, ok, "%s has no sentence in words.go", what) {
			return
		}
		assert.NotEmpty(t, w.mark, what)
		for _, text := range []string{w.text, w.next} {
			for _, bad := range engineWords {
				for _, f := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' }) {
					assert.False(t, strings.HasPrefix(f, bad), "%s: %q says %q", what, text, f)
				}
			}
			assert.NotContains(t, strings.ToLower(text), "rang", "nobody here knows what a phone did")
		}
		assert.True(t, strings.HasSuffix(w.text, "."), what)
		full := fill(w.text, "Juliet's phone", "item-not-found").String()
		assert.NotContains(t, full, "{")
	}
	// All that have a token of their own.
	n := 0
	for r := push.Reason(0); !strings.HasPrefix(r.String(), "reason("); r++ {
		w, ok := reasonWords[r]
		check(r.String(), w, ok)
		n++
	}
	assert.Greater(t, n, 40)
	for o := push.OutcomeAccepted; ; o++ {
		var back push.Outcome
		if back.UnmarshalText([]byte(o.String())) != nil || back != o {
			break
		}
		w, ok := outcomeWords[o]
		check(o.String(), w, ok)
	}
}

func TestNamesCannotReverseAPage(t *testing.T) {
	for in, want := range map[string]string{
		"juliet":                     "<bdi>juliet</bdi>",
		"a\u202egnp.exe":             "<bdi>a⟨U+202E⟩gnp.exe</bdi>",
		"<b>&\"":                     "<bdi>&lt;b&gt;&amp;&#34;</bdi>",
		"z\u0300\u0301\u0302\u0303x": "<bdi>z\u0300\u0301x</bdi>",
		"a\u00a0b\u200bc\x00":        "<bdi>a⟨U+00A0⟩b⟨U+200B⟩c⟨U+0000⟩</bdi>",
		"\u3164":                     "<bdi>⟨U+3164⟩</bdi>",
		"ジュリエット":                     "<bdi>ジュリエット</bdi>",
	} {
		assert.Equal(t, want, string(name(in)), "%q", in)
	}
	long := strings.Repeat("long", 100)
	assert.Contains(t, string(name(long)), `title="`+long+`"`)
	assert.Less(t, strings.Index(string(name(long)), "</bdi>")-strings.LastIndex(string(name(long)), `">`), 60)
}
