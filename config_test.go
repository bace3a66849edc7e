package push_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	. "github.com/xmpp-push/push"
)

// TestConfigHost gives what is not a server's domain in prepared form.
func TestConfigHost(t *testing.T) {
	publisher := PublisherFunc(func(context.Context, *Notification) error { return nil })
	for _, host := range []string{"example.com", "bücher.example", "localhost"} {
		assert.NoError(t, (&Config{Host: host, Publisher: publisher}).Validate(), host)
	}
	for _, host := range []string{"", "Example.com", "juliet@example.com", "example.com/balcony", ".", "exa mple.com"} {
		assert.ErrorContains(t, (&Config{Host: host, Publisher: publisher}).Validate(), "Config.Host", host)
	}
}
