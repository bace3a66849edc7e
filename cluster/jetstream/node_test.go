package jetstream_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/pushhttp"
)

// A Node is what the pages need of an Engine and of a cluster.
var (
	_ pushhttp.Engine  = (*jetstream.Node)(nil)
	_ pushhttp.Cluster = (*jetstream.Node)(nil)
)

// service is a push service that counts.
type service struct {
	mu    sync.Mutex
	notes []push.Notification
	got   chan push.Notification
}

func newService() *service { return &service{got: make(chan push.Notification, 1000)} }

func (s *service) Publish(_ context.Context, n *push.Notification) error {
	s.mu.Lock()
	s.notes = append(s.notes, *n)
	s.mu.Unlock()
	select {
	case s.got <- *n:
	default:
	}
	return nil
}

func (s *service) next(t *testing.T, within time.Duration) push.Notification {
	t.Helper()
	select {
	case n := <-s.got:
		return n
	case <-time.After(within):
		require.FailNow(t, "nothing was published", "within %v", within)
		return push.Notification{}
	}
}

func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.notes)
}

func join(t *testing.T, srv *embedded.Server, name string, svc push.Publisher, change ...func(*jetstream.Config)) *jetstream.Node {
	t.Helper()
	cfg := jetstream.Config{Conn: srv.Conn(), Node: name, Partitions: 8, Lease: 2 * time.Second, Push: push.Config{Host: "example.com", Publisher: svc}}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := jetstream.Join(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = n.Close(ctx)
	})
	return n
}

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := embedded.Start(cfg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// handle gives an event to a node, which has to accept it.
func handle(t *testing.T, n *jetstream.Node, ev push.Event) push.Decision {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	d, err := n.Handle(ctx, ev)
	require.NoError(t, err, "%s", ev.Name())
	return d
}

const juliet = "juliet@example.com"

var phone = push.Key{Service: "push.example.net", Node: "n1"}

func session(id string) push.SessionID { return push.SessionID{Account: juliet, ID: id} }

func message(id string) push.ArchiveAdded {
	return push.ArchiveAdded{Account: juliet, Stanza: push.Stanza{ID: id, From: "romeo@example.net/orchard", To: juliet, Class: push.ClassImportant, Body: "secret"}}
}

func TestOneNode(t *testing.T) {
	t.Parallel()
	svc := newService()
	n := join(t, start(t, embedded.Config{}), "a", svc)
	// A node that has just joined is not sure of it at once.
	require.Eventually(t, func() bool { return handle(t, n, message("m0")).Reason == push.ReasonNoRegistration }, 20*time.Second, 100*time.Millisecond)
	assert.EqualValues(t, 1, n.Status().Kept)

	handle(t, n, push.SessionOpen{Session: session("s1"), JID: juliet + "/phone"})
	d := handle(t, n, push.PushEnable{Session: session("s1"), Key: phone})
	require.NotEmpty(t, d.Changes, "the client waits for what the owner says")
	assert.Equal(t, push.ChangeAdded, d.Changes[0].Kind)
	handle(t, n, message("m1")) // the session is live
	handle(t, n, push.SessionClose{Session: session("s1")})
	handle(t, n, message("m2"))
	note := svc.next(t, 5*time.Second)
	assert.Equal(t, 1, note.Count)
	assert.Equal(t, phone, note.Key)

	st, err := n.Inspect(t.Context(), juliet)
	require.NoError(t, err)
	require.Len(t, st.Registrations, 1)
	assert.Empty(t, st.Sessions)
	assert.Equal(t, 1, svc.count())
}

// TestWrongUse: what a host does wrong it is told at once, as by an Engine; nothing of it counts as accepted, and nothing ends the process.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{})
	n := join(t, srv, "a", newService())
	var nobody *push.Offline
	for name, ev := range map[string]push.Event{
		"nil": nil, "a pointer": &push.Offline{Account: juliet}, "a nil pointer": nobody, "no account": push.Ping{},
		"no session": push.SessionOpen{Session: session("")}, "no service": push.PushEnable{Session: session("s1")}, "no service either": push.AffiliationNone{Account: juliet},
	} {
		_, err := n.Handle(t.Context(), ev)
		require.ErrorIs(t, err, push.ErrEvent, name)
	}
	assert.Zero(t, n.Status().Accepted)
	assert.Zero(t, n.Status().Appends)

	var none context.Context
	handle(t, n, push.SessionOpen{Session: session("s1"), JID: juliet + "/phone"})
	_, err := n.Handle(none, push.PushEnable{Session: session("s1"), Key: phone})
	require.NoError(t, err)
	st, err := n.Inspect(none, juliet)
	require.NoError(t, err)
	assert.Len(t, st.Registrations, 1)
	st, err = n.Inspect(none, "")
	require.NoError(t, err)
	assert.Empty(t, st.Registrations)
	sum, err := n.Export(none, push.NewMemoryStore())
	require.NoError(t, err)
	assert.Equal(t, 1, sum)

	for _, unmade := range []*jetstream.Node{nil, {}} {
		_, err := unmade.Handle(t.Context(), message("m1"))
		require.ErrorIs(t, err, push.ErrClosed)
		require.ErrorIs(t, unmade.HandleTo(t.Context(), message("m1"), nil), push.ErrClosed)
		_, err = unmade.Inspect(t.Context(), juliet)
		require.ErrorIs(t, err, push.ErrClosed)
		_, err = unmade.Import(t.Context(), push.NewMemoryStore(), nil)
		require.ErrorIs(t, err, push.ErrClosed)
		_, err = unmade.Export(t.Context(), push.NewMemoryStore())
		require.ErrorIs(t, err, push.ErrClosed)
		assert.Empty(t, unmade.Status())
		assert.Empty(t, unmade.Services())
		assert.Empty(t, unmade.Hooks())
		assert.Empty(t, unmade.Host())
		assert.Empty(t, unmade.Policy())
		require.NoError(t, unmade.Close(t.Context()))
	}
	require.NoError(t, n.Close(none))
	_, err = n.Handle(none, message("m1"))
	require.ErrorIs(t, err, push.ErrClosed)
	for _, unmade := range []*embedded.Server{nil, {}} {
		assert.Nil(t, unmade.Conn())
		unmade.Close()
	}
}

func TestSeveralNodes(t *testing.T) {
	t.Parallel()
	svc := newService()
	srv := start(t, embedded.Config{})
	var nodes []*jetstream.Node
	for i := range 3 {
		nodes = append(nodes, join(t, srv, fmt.Sprint("n", i), svc))
	}
	a, b, c := nodes[0], nodes[1], nodes[2]
	handle(t, a, push.SessionOpen{Session: session("s1"), JID: juliet + "/phone"})
	handle(t, a, push.PushEnable{Session: session("s1"), Key: phone})
	handle(t, b, message("m1")) // at another node, at once: it knows of the registration, and that the session is live
	handle(t, a, push.HibernationStart{Session: session("s1")})
	handle(t, c, message("m2"))
	handle(t, a, push.StanzaQueued{Session: session("s1"), Stanza: message("m2").Stanza})
	assert.Equal(t, 1, svc.next(t, 5*time.Second).Count)
	handle(t, b, push.HibernationEnd{Session: session("s1")}) // it is resumed at b, and goes on there
	handle(t, a, message("m3"))
	handle(t, b, push.SessionClose{Session: session("s1")})
	handle(t, c, message("m3"))
	handle(t, c, message("m3"))
	assert.Equal(t, 1, svc.next(t, 5*time.Second).Count)
	time.Sleep(1200 * time.Millisecond)
	assert.Equal(t, 2, svc.count())
}
