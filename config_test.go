package push_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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

// TestConfig gives what cannot work: each fault is in the error, all of them at once, in an order that stays the same, and what is fine is not.
func TestConfig(t *testing.T) {
	publisher := PublisherFunc(func(context.Context, *Notification) error { return nil })
	send := func(context.Context, string, []byte) error { return nil }
	var none *faultyHost
	for name, c := range map[string]struct {
		cfg  Config
		says []string // the beginnings of its lines
	}{
		"nothing": {Config{}, []string{"push: Config.Host is empty", "push: Config.Publisher is nil"}},
		"all that is needed, and all that may be left out": {Config{Host: "example.com", Publisher: publisher}, nil},
		"a Router":                  {Config{Host: "example.com", Publisher: &Router{Host: "example.com", Send: send}}, nil},
		"an empty Router":           {Config{Host: "example.com", Publisher: &Router{}}, []string{"push: Config.Publisher is a Router without Host", "push: Config.Publisher is a Router without Send"}},
		"the Router of another":     {Config{Host: "example.com", Publisher: &Router{Host: "example.org", Send: send}}, []string{`push: Config.Publisher is a Router of "example.org"`}},
		"a Router, and no Host":     {Config{Publisher: &Router{Host: "example.org", Send: send}}, []string{"push: Config.Host is empty"}},
		"a Router that sends none":  {Config{Host: "example.com", Publisher: &Router{Host: "example.com", Send: send, Limit: -1}}, []string{"push: Config.Publisher is a Router with a negative Limit"}},
		"fields with nil pointers":  {Config{Host: "example.com", Publisher: publisher, Unread: none, Veto: none}, []string{"push: Config.Unread holds a nil *push_test.faultyHost", "push: Config.Veto holds a nil *push_test.faultyHost"}},
		"a function that is nil":    {Config{Host: "example.com", Publisher: PublisherFunc(nil)}, []string{"push: Config.Publisher holds a nil push.PublisherFunc"}},
		"a mode that there is not":  {Config{Host: "example.com", Publisher: publisher, Keep: KeepAll + 1}, []string{"push: Config.Keep is 3"}},
		"durations below nothing":   {Config{Host: "example.com", Publisher: publisher, HookTimeout: -1, StoreTimeout: -time.Hour}, []string{"push: Config.HookTimeout is negative", "push: Config.StoreTimeout is negative"}},
		"a number below nothing":    {Config{Host: "example.com", Publisher: publisher, MaxDeferred: -1}, []string{"push: Config.MaxDeferred is negative"}},
		"a policy that cannot work": {Config{Publisher: publisher, Policy: Policy{Expire: -1}}, []string{"push: Config.Host is empty", "push: Policy.Expire is negative"}},
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 { // it goes through a map
				err := c.cfg.Validate()
				if len(c.says) == 0 {
					assert.NoError(t, err)
					continue
				}
				lines := strings.Split(err.Error(), "\n")
				if assert.Len(t, lines, len(c.says), err) {
					for i, text := range c.says {
						assert.True(t, strings.HasPrefix(lines[i], text), lines[i])
					}
				}
			}
		})
	}
}

// TestErrorTexts are what a host's log shows.
func TestErrorTexts(t *testing.T) {
	for text, err := range map[string]error{
		"push: the push service answered wait/resource-constraint":             &ReplyError{"wait", "resource-constraint"},
		"push: closed with 2 notifications unsent":                             &UnsentError{Unsent: make([]Unsent, 2)},
		"push: closed with 0 notifications unsent and 1 events undecided":      &UnsentError{Undecided: make([]Event, 1)},
		"push: closed with 1 notifications unsent and 3 events undecided":      &UnsentError{Unsent: make([]Unsent, 1), Undecided: make([]Event, 3)},
		"push: the push service answered " + strings.Repeat("x", 20) + "/gone": &ReplyError{strings.Repeat("x", 20), "gone"},
	} {
		assert.EqualError(t, err, text)
	}
	assert.Equal(t, Reply{Type: "cancel", Condition: "gone"}, ReplyOf(&ReplyError{Condition: "gone"}), "an error without a type is one for good")
	assert.Equal(t, Reply{Type: "wait", Condition: "gone"}, ReplyOf(&ReplyError{"wait", "gone"}))
	assert.Equal(t, Reply{Missing: true}, ReplyOf(errors.New("no answer")))
	assert.Equal(t, Reply{}, ReplyOf(nil))
}
