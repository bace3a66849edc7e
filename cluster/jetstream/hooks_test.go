package jetstream_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

type badVeto struct{ hang chan struct{} }

func (v badVeto) VetoStanza(_ *push.Registration, st push.Stanza) string {
	switch st.ID {
	case "panics":
		panic("the host's mistake")
	case "muted":
		return "muted"
	case "hangs":
		<-v.hang
	}
	return ""
}

func (badVeto) VetoPublish(context.Context, *push.Notification) string { panic("another one") }

// What the host does wrong stays with the host: a function that panics or hangs holds up no partition, and the phone rings.
func TestBadHooks(t *testing.T) {
	t.Parallel()
	svc := newService()
	hang := make(chan struct{})
	n := join(t, start(t, embedded.Config{}), "a", svc, func(c *jetstream.Config) {
		c.Lease, c.Wait = 4*time.Second, true
		c.Push.Policy.MinInterval = -1
		c.Push.HookTimeout = 200 * time.Millisecond
		c.Push.Veto = badVeto{hang}
		c.Push.Observer = &push.Observer{Decided: func(uint64, time.Time, push.Event, *push.Decision, time.Duration) { panic("and one more") }}
	})
	handle(t, n, push.PushEnable{Session: push.SessionID{Account: juliet}, Key: phone})
	for _, id := range []string{"panics", "hangs", "m3"} {
		handle(t, n, message(id))
		assert.Equal(t, 1, svc.next(t, 20*time.Second).Count, id)
	}
	of := func(name string) push.HookStatus {
		for _, h := range n.Hooks() {
			if h.Hook == name {
				return h
			}
		}
		return push.HookStatus{}
	}
	assert.Equal(t, push.HookStatus{Hook: "Vetoer.VetoStanza", Panics: 1, Overruns: 1, Skipped: 1, Hanging: 1}, of("Vetoer.VetoStanza"))
	assert.EqualValues(t, 3, of("Vetoer.VetoPublish").Panics)
	assert.GreaterOrEqual(t, of("Observer").Panics, uint64(3))
	// Another account's veto is asked meanwhile, and heard.
	handle(t, n, push.PushEnable{Session: push.SessionID{Account: "romeo@example.com"}, Key: phone})
	d := handle(t, n, push.ArchiveAdded{Account: "romeo@example.com", Stanza: push.Stanza{ID: "muted", To: "romeo@example.com", Class: push.ClassImportant}})
	require.Len(t, d.Verdicts, 1)
	assert.Equal(t, push.ReasonVeto, d.Verdicts[0].Reason)
	assert.EqualValues(t, 1, of("Vetoer.VetoStanza").Skipped)
	close(hang)
	require.Eventually(t, func() bool { return of("Vetoer.VetoStanza").Hanging == 0 }, 10*time.Second, 10*time.Millisecond)
	handle(t, n, message("m4"))
	svc.next(t, 20*time.Second)
	assert.EqualValues(t, 1, of("Vetoer.VetoStanza").Skipped, "it is asked again")
}
