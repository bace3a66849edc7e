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

// TestConfigNil gives hooks that hold nothing, and Routers that lack what they need: New says so, rather than the first publish.
func TestConfigNil(t *testing.T) {
	var router *Router
	var memory *MemoryStore
	send := func(context.Context, string, []byte) error { return nil }
	for text, cfg := range map[string]Config{
		"Config.Publisher is nil":                {},
		"nil *push.Router":                       {Publisher: router},
		"nil push.PublisherFunc":                 {Publisher: PublisherFunc(nil)},
		"without Send":                           {Publisher: &Router{Host: "example.com"}},
		"without Host":                           {Publisher: &Router{Send: send}},
		`Router of "example.net"`:                {Publisher: &Router{Host: "example.net", Send: send}},
		"negative Limit":                         {Publisher: &Router{Host: "example.com", Send: send, Limit: -1}},
		"nil *push.MemoryStore":                  {Publisher: &Router{Host: "example.com", Send: send}, Store: memory},
		"Config.HookTimeout is negative":         {Publisher: &Router{Host: "example.com", Send: send}, HookTimeout: -1},
		"Config.Keep is 7, which is no KeepMode": {Publisher: &Router{Host: "example.com", Send: send}, Keep: 7},
	} {
		cfg.Host = "example.com"
		_, err := New(cfg)
		assert.ErrorContains(t, err, text)
	}
}
