package metrics

import (
	"strings"

	"github.com/xmpp-push/push"
)

// Events are the names of the events, so that each has its counter from the start.
var Events = []string{
	"session-open", "session-restored", "session-close", "push-enable", "push-disable", "ack-delayed", "acknowledged", "hibernation-start", "stanza-queued", "hibernation-end",
	"session-active", "session-presence", "displayed", "chat-changed", "archive-added", "offline", "groupchat", "ping", "affiliation-none", "account-removed",
}

// Reasons returns all that have a token.
func Reasons() (all []push.Reason) {
	for r := push.ReasonNone + 1; !strings.HasPrefix(r.String(), "reason("); r++ {
		all = append(all, r)
	}
	return all
}
