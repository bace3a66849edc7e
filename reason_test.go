package push_test

import (
	"encoding"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// TestTokens reads every token back, and looks that no two values share one.
func TestTokens(t *testing.T) {
	readBack[Rule](t, "rule")
	readBack[Reason](t, "reason")
	readBack[Class](t, "class")
	readBack[Kind](t, "kind")
	readBack[Outcome](t, "outcome")
	readBack[Content](t, "content")
	readBack[MessageType](t, "type")
	readBack[CallAction](t, "action")
	readBack[Carbon](t, "carbon")
	readBack[Fact](t, "fact")
	readBack[KeepMode](t, "keep-mode")
	readBack[ChangeKind](t, "change")
	readBack[wishes.NotifyWhen](t, "notify")
	readBack[wishes.RoomAllow](t, "room-allow")
	readBack[wishes.MatchProfile](t, "match")
	sentences := make(map[string]Reason)
	for r := Reason(0); !strings.HasPrefix(r.String(), "reason("); r++ {
		assert.NotEmpty(t, r.Sentence(), "%v", r)
		other, twice := sentences[r.Sentence()]
		assert.False(t, twice, "%v and %v say the same", r, other)
		sentences[r.Sentence()] = r
	}
	assert.Equal(t, "reason(255)", Reason(255).Sentence())
}

func readBack[T interface {
	~uint8
	fmt.Stringer
	encoding.TextMarshaler
}, P interface {
	*T
	encoding.TextUnmarshaler
}](t *testing.T, what string) {
	seen := make(map[string]bool)
	v := T(0)
	for ; !strings.HasPrefix(v.String(), what+"("); v++ {
		text, err := v.MarshalText()
		require.NoError(t, err)
		assert.Regexp(t, regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`), string(text))
		assert.False(t, seen[string(text)], "%s is there twice", text)
		seen[string(text)] = true
		back := T(255)
		require.NoError(t, P(&back).UnmarshalText(text))
		assert.Equal(t, v, back)
	}
	require.Greater(t, int(v), 2, what)
	back := T(7)
	require.Error(t, P(&back).UnmarshalText([]byte("no such token")))
	require.Error(t, P(&back).UnmarshalText([]byte(v.String())))
	assert.Equal(t, T(7), back, "an error changed the value")
}
