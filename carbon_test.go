package push_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// A carbon copy that a stranger made up must not put another's name or words into a notification (XEP-0280 §11).
func TestForgedCarbonNamesItsSender(t *testing.T) {
	inner := `<received xmlns="urn:xmpp:carbons:2"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client" from="bank@example.org" to="juliet@example.com"><body>Call us</body></message></forwarded></received>`
	st, err := ParseStanza("1", []byte(`<message from="mallory@example.org/x" to="juliet@example.com/phone">`+inner+`</message>`))
	require.NoError(t, err)
	assert.Equal(t, "mallory@example.org/x", st.From)
	assert.Empty(t, st.Body)
	st, err = ParseStanza("1", []byte(`<message from="juliet@example.com" to="juliet@example.com/phone">`+inner+`</message>`))
	require.NoError(t, err)
	assert.Equal(t, "bank@example.org", st.From)
	assert.Equal(t, "Call us", st.Body)
}
