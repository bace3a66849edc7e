package jetstream

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xmpp-push/push"
)

// asked is what a host may have and a cluster does not ask.
type asked struct{}

func (asked) Contact(context.Context, string, string) (bool, error) { return false, nil }
func (asked) Chat(context.Context, string, string) (push.ChatInfo, error) {
	return push.ChatInfo{}, nil
}
func (asked) PendingSubscriptions(context.Context, string) (int, error) { return 0, nil }
func (asked) Elsewhere(context.Context, string) ([]push.Key, error)     { return nil, nil }
func (asked) Publish(context.Context, *push.Notification) error         { return nil }

// TestConfigIsAsked has what a host of one process may have, and a node would leave aside: Join says so instead.
func TestConfigIsAsked(t *testing.T) {
	for name, p := range map[string]push.Config{
		"Store": {Store: push.NewMemoryStore()}, "Liveness": {Liveness: asked{}}, "Contacts": {Contacts: asked{}}, "Chats": {Chats: asked{}}, "Subscriptions": {Subscriptions: asked{}},
	} {
		p.Host, p.Publisher = "example.com", asked{}
		err := (&Config{Node: "n1", Push: p}).Validate()
		assert.ErrorIs(t, err, ErrConfig)
		assert.ErrorContains(t, err, name)
		assert.ErrorContains(t, err, "is not nil")
	}
}
