package metrics

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xmpp-push/push"
)

func TestWaiting(t *testing.T) {
	var w Waiting
	now := time.Unix(1000, 0)
	k := push.Key{Service: "push.example.net", Node: "n"}
	n := &push.Notification{Account: "juliet@example.com", Key: k}
	yes := &push.Decision{Account: n.Account, Verdicts: []push.Verdict{{Key: k, Notify: true}, {Key: push.Key{Service: "x"}}}}
	w.Decided(now, yes)
	w.Decided(now.Add(time.Second), yes)
	assert.Equal(t, map[string]time.Time{k.Service: now}, w.ByService())

	// It is tried again, and still waits since its event.
	w.Sent(n)
	_, ok := w.Replied(now.Add(2*time.Second), n, push.Result{Outcome: push.OutcomeTransient, RetryAt: now.Add(time.Minute)})
	assert.False(t, ok)
	assert.Equal(t, map[string]time.Time{k.Service: now}, w.ByService())

	// What comes while it is in flight waits for itself.
	w.Sent(n)
	w.Decided(now.Add(time.Minute), yes)
	took, ok := w.Replied(now.Add(61*time.Second), n, push.Result{})
	assert.True(t, ok)
	assert.Equal(t, 61*time.Second, took)
	assert.Equal(t, map[string]time.Time{k.Service: now.Add(time.Minute)}, w.ByService())

	w.Affected(n.Account, &push.Effects{Drops: []push.Drop{{Key: k}}})
	assert.Empty(t, w.ByService())
	w.Sent(n)
	_, ok = w.Replied(now, n, push.Result{})
	assert.False(t, ok, "of what it was not told it knows nothing")
	for i := range maxWaiting + 10 {
		w.Decided(now, &push.Decision{Account: string(rune(i)), Verdicts: yes.Verdicts[:1]})
	}
	assert.LessOrEqual(t, len(w.waiting), maxWaiting)
}
