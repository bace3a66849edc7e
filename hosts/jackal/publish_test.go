package jackal

import (
	"context"
	"errors"
	"testing"
	"time"

	kitlog "github.com/go-kit/log"
	"github.com/jackal-xmpp/stravaganza"
	"github.com/jackal-xmpp/stravaganza/jid"
	"github.com/ortuman/jackal/pkg/component"
	"github.com/ortuman/jackal/pkg/hook"
	"github.com/ortuman/jackal/pkg/host"
	streamqueue "github.com/ortuman/jackal/pkg/module/xep0198/queue"
	"github.com/ortuman/jackal/pkg/router"
	"github.com/stretchr/testify/require"
	"github.com/xmpp-push/push"
)

// remote stands for jackal's router, of which only the way to other servers is used here.
type remote struct {
	router.Router
	err error
	got chan stravaganza.Stanza
}

func (r *remote) Route(_ context.Context, s stravaganza.Stanza) ([]jid.JID, error) {
	if r.err == nil {
		r.got <- s
	}
	return nil, r.err
}

// newModule returns a module of a server without clients.
func newModule(t *testing.T) (*Module, *remote) {
	t.Helper()
	t.Chdir(t.TempDir()) // jackal writes a certificate
	hosts, err := host.NewHosts(nil)
	require.NoError(t, err)
	hooks, log := hook.NewHooks(), kitlog.NewNopLogger()
	r := &remote{got: make(chan stravaganza.Stanza, 1)}
	m, err := New(Server{
		Hosts: hosts, Router: r, Components: component.NewComponents(nil, hooks, log), Queues: streamqueue.NewQueueMap(), Hooks: hooks, Logger: log,
	}, Config{})
	require.NoError(t, err)
	require.NoError(t, m.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, m.Stop(t.Context())) })
	return m, r
}

// arrives is an IQ that another server has sent.
func arrives(t *testing.T, m *Module, server, from, id, typ, payload string) {
	t.Helper()
	e := parse(t, `<iq type='`+typ+`' id='`+id+`' from='`+from+`' to='localhost'>`+payload+`</iq>`)
	iq, err := stravaganza.NewBuilderFromElement(e).BuildIQ()
	require.NoError(t, err)
	_, err = m.Hooks.Run(hook.S2SInStreamIQReceived, &hook.ExecutionContext{Info: &hook.S2SStreamInfo{Sender: server, Element: iq}, Context: t.Context()})
	require.NoError(t, err)
}

// Only the service itself can answer a publish.
func TestReply(t *testing.T) {
	const gone = `<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`
	m, r := newModule(t)
	n := &push.Notification{Key: push.Key{Service: "push.example.net", Node: "n"}}
	for _, c := range []struct {
		name, typ, payload string
		want               error
	}{
		{"result", "result", "", nil},
		{"error", "error", gone, &push.ReplyError{Type: "cancel", Condition: "item-not-found"}},
		{"error of pubsub", "error", `<error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>` +
			`<payload-too-big xmlns='http://jabber.org/protocol/pubsub#errors'/></error>`, &push.ReplyError{Type: "modify", Condition: "payload-too-big"}},
		{"error without a condition", "error", "", &push.ReplyError{Type: "cancel", Condition: "undefined-condition"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- m.replies.Publish(ctx, n) }()
			iq := <-r.got
			require.Equal(t, "localhost", iq.FromJID().String())
			require.Equal(t, "push.example.net", iq.ToJID().String())
			id := iq.Attribute(stravaganza.ID)
			arrives(t, m, "evil.example", "evil.example", id, "error", gone)
			arrives(t, m, "evil.example", "push.example.net", id, "error", gone) // jackal lets none through, and the module neither
			arrives(t, m, "push.example.net", "push.example.net", "other", "error", gone)
			arrives(t, m, "push.example.net", "push.example.net/bot", id, "error", gone)
			select {
			case err := <-ended:
				require.FailNow(t, "a stranger has answered", "%v", err)
			default:
			}
			arrives(t, m, "push.example.net", "push.example.net", id, c.typ, c.payload)
			require.Equal(t, c.want, <-ended)
		})
	}
}

func TestNotSent(t *testing.T) {
	m, r := newModule(t)
	n := &push.Notification{Key: push.Key{Service: "push.example.net"}}
	for err, want := range map[error]push.Outcome{
		router.ErrRemoteServerNotFound: push.OutcomeTransient,
		router.ErrRemoteServerTimeout:  push.OutcomeTransient,
		errors.New("other"):            push.OutcomeTransient,
	} {
		r.err = err
		require.Equal(t, want, push.ReplyOf(m.replies.Publish(t.Context(), n)).Classify(), "%v", err)
	}
	n.Service = "romeo@localhost"
	require.Equal(t, push.OutcomeFailed, push.ReplyOf(m.replies.Publish(t.Context(), n)).Classify(), "an account is no push service")
}
