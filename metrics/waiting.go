package metrics

import (
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// Waiting knows since when each notification waits that was decided and not accepted yet, from what an Observer is told. The zero Waiting is ready.
// Safe for simultaneous use.
type Waiting struct {
	mu      sync.Mutex
	waiting map[device]time.Time // not sent yet, or to be sent again
	flight  map[device]time.Time // sent and not answered
}

type device struct {
	account string
	key     push.Key
}

// maxWaiting bounds how many are known; of others it is not known how long they wait.
const maxWaiting = 1 << 18

// Decided takes note of a decision.
func (w *Waiting) Decided(at time.Time, d *push.Decision) {
	for i := range d.Verdicts {
		if v := &d.Verdicts[i]; v.Notify {
			w.mu.Lock()
			w.add(device{d.Account, v.Key}, at)
			w.mu.Unlock()
		}
	}
	w.Affected(d.Account, &d.Effects)
}

func (w *Waiting) add(k device, at time.Time) {
	if w.waiting == nil {
		w.waiting, w.flight = make(map[device]time.Time), make(map[device]time.Time)
	}
	if old, ok := w.waiting[k]; ok && !at.Before(old) || !ok && len(w.waiting) >= maxWaiting {
		return
	}
	w.waiting[k] = at
}

// Affected takes note of what was dropped.
func (w *Waiting) Affected(account string, e *push.Effects) {
	if len(e.Drops) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range e.Drops {
		delete(w.waiting, device{account, e.Drops[i].Key})
	}
}

// Sent takes note of a publish.
func (w *Waiting) Sent(n *push.Notification) {
	k := device{n.Account, n.Key}
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.waiting[k]; ok {
		delete(w.waiting, k)
		w.flight[k] = at
	}
}

// Replied takes note of a publish's end. If it was accepted, took is the time since the event that it came from; ok says that this is known.
func (w *Waiting) Replied(at time.Time, n *push.Notification, res push.Result) (took time.Duration, ok bool) {
	k := device{n.Account, n.Key}
	w.mu.Lock()
	defer w.mu.Unlock()
	since, ok := w.flight[k]
	delete(w.flight, k)
	if !ok {
		return 0, false
	}
	if res.Outcome == push.OutcomeAccepted {
		return at.Sub(since), true
	}
	if !res.RetryAt.IsZero() {
		w.add(k, since)
	}
	return 0, false
}

// ByService is since when the one waits that waits longest at each service.
func (w *Waiting) ByService() map[string]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]time.Time)
	for _, m := range []map[device]time.Time{w.waiting, w.flight} {
		for k, at := range m {
			if old, ok := out[k.key.Service]; !ok || at.Before(old) {
				out[k.key.Service] = at
			}
		}
	}
	return out
}
