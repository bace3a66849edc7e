package push_test

import (
	"encoding/xml"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// The number of subscription requests is in both encodings, if the host knows of any.
func TestPendingSubscriptions(t *testing.T) {
	n := &Notification{Key: Key{Service: "push.example.net", Node: "n1"}, Unread: 2, Pending: 3}
	for _, text := range []string{string(n.AppendStanza(nil, "example.com", "1")), marshal(t, n)} {
		assert.Contains(t, text, `pending-subscription-count`)
		assert.Contains(t, text, `>3</value>`)
	}
	n.Pending, n.Unread, n.TellZero = 0, 0, true
	for _, text := range []string{string(n.AppendStanza(nil, "example.com", "1")), marshal(t, n)} {
		assert.NotContains(t, text, `pending-subscription-count`)
		assert.Contains(t, text, `message-count`)
		assert.Contains(t, text, `>0</value>`)
	}
}

func marshal(t *testing.T, n *Notification) string {
	b, err := xml.Marshal(n)
	require.NoError(t, err)
	return string(b)
}
