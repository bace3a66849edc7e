// Package jackal gives push notifications (XEP-0357) to jackal, the XMPP server of github.com/ortuman/jackal.
//
// A [Module] is one more of jackal's modules. It turns what jackal's hooks tell into the events of package push, makes up what
// they do not tell, answers clients that enable or disable push, and sends the publishes and takes their replies through jackal's own
// components and streams. The files, and what each is about:
//
//   - sessions.go: which streams are one session, and how each begins and ends;
//   - hibernation.go, ack.go: sessions whose client is not there;
//   - messages.go: what is archived, stored offline, or sent by a room;
//   - stanza.go, xml.go: jackal's elements as stanzas;
//   - iq.go, publish.go: the stanzas of XEP-0357 itself;
//   - component.go: external components that come back.
//
// cmd/jackal-push is a whole server, and README.md says what works and what does not.
package jackal

import (
	"context"
	"errors"
	"sync"
	"time"

	kitlog "github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/jackal-xmpp/stravaganza"
	"github.com/ortuman/jackal/pkg/component"
	"github.com/ortuman/jackal/pkg/component/extcomponentmanager"
	"github.com/ortuman/jackal/pkg/hook"
	"github.com/ortuman/jackal/pkg/host"
	"github.com/ortuman/jackal/pkg/module"
	streamqueue "github.com/ortuman/jackal/pkg/module/xep0198/queue"
	"github.com/ortuman/jackal/pkg/router"
	"github.com/xmpp-push/push"
)

// ModuleName is the name under which jackal knows the module.
const ModuleName = "push"

// Server is the parts of a jackal that the module works with. All are required.
type Server struct {
	Hosts      *host.Hosts
	Router     router.Router
	Components *component.Components
	External   *extcomponentmanager.Manager
	// Queues is what the stream management module (xep0198) was made with.
	Queues *streamqueue.QueueMap
	Hooks  *hook.Hooks
	Logger kitlog.Logger
}

// Config is what an operator can choose. The zero value is good.
type Config struct {
	// Push configures the engine. Its Host, Publisher and Resumption are the module's and need not be set.
	Push push.Config
	// AckRequest is how long a stanza may stay unacknowledged until the client is asked for an acknowledgement. Default 10 s; negative: leave it
	// to jackal, which asks after a minute in which the client sent nothing, or every 25 stanzas.
	AckRequest time.Duration
	// AckDelay is how long a client may take to answer until that is an ack-delayed event. Default 30 s.
	AckDelay time.Duration
	// HibernateTime is how long a session stays resumable, unless push can wake its device: then it is Push.Policy.MaxResume. Default 3 min.
	// HibernateTime in the configuration of jackal's own module has to be longer than either, or it ends sessions before their time.
	HibernateTime time.Duration
}

// Module is the push module. It is a module.Module and a module.IQProcessor.
type Module struct {
	Server
	cfg      Config
	engine   *push.Engine
	replies  *push.Router
	sessions sessions
	hooks    []registered
	// components says which host each stream of an external component is of.
	components sync.Map
}

var _ module.IQProcessor = (*Module)(nil)

// registered is a hook that was added, to be removed.
type registered struct {
	name string
	h    hook.Handler
}

// New returns a module for the server, or everything that is wrong with cfg. The module's engine runs until Stop.
func New(s Server, cfg Config) (*Module, error) {
	cfg.AckRequest = orDefault(cfg.AckRequest, 10*time.Second)
	cfg.AckDelay = orDefault(cfg.AckDelay, 30*time.Second)
	cfg.HibernateTime = orDefault(cfg.HibernateTime, 3*time.Minute)
	m := &Module{Server: s, cfg: cfg}
	m.Logger = kitlog.With(s.Logger, "module", ModuleName, "xep", "0357")
	m.sessions.init()
	m.replies = &push.Router{Host: s.Hosts.DefaultHostName(), Send: m.send}
	m.cfg.Push.Host = m.replies.Host
	m.cfg.Push.Publisher = m.replies
	m.cfg.Push.Resumption = m
	var err error
	if m.engine, err = push.New(m.cfg.Push); err != nil {
		return nil, err
	}
	return m, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// Engine returns the module's engine, for an operator's pings and inspections.
func (m *Module) Engine() *push.Engine { return m.engine }

// Name implements module.Module.
func (m *Module) Name() string { return ModuleName }

// StreamFeature implements module.Module: push has none.
func (m *Module) StreamFeature(context.Context, string) (stravaganza.Element, error) { return nil, nil }

// ServerFeatures implements module.Module: push is a feature of accounts.
func (m *Module) ServerFeatures(context.Context) ([]string, error) { return nil, nil }

// AccountFeatures implements module.Module (XEP-0357 §4.1). Contacts and presence are not asked of jackal, and Push 2.0 is not offered.
func (m *Module) AccountFeatures(context.Context) ([]string, error) {
	return push.Offer{}.Features(), nil
}

// Start adds the hooks. They have to be there before the first stream is, for jackal's Hooks must not change while one runs.
//
// jackal runs the handlers of a hook by falling priority and stops at the first that wants it; handlers of the same priority have no order.
// One that fails ends the chain too, so the module is early wherever nothing has to be there before it.
func (m *Module) Start(context.Context) error {
	const (
		first       = hook.HighPriority
		afterQueue  = hook.LowPriority         // stream management counts the stanza at DefaultPriority
		beforeMAM   = hook.LowestPriority + 3  // archive, carbons and offline storage are the lowest three
		afterArchID = hook.HighestPriority - 1 // the archive gives the message its stanza-id at HighestPriority
	)
	m.on(hook.C2SStreamBinded, stream(m.bound), first)
	m.on(hook.C2SStreamElementReceived, stream(m.received), first)
	m.on(hook.C2SStreamElementSent, stream(m.sent), afterQueue)
	m.on(hook.C2SStreamDisconnected, stream(m.disconnected), first)
	m.on(hook.C2SStreamTerminated, stream(m.terminated), first) // stream management forgets the queue then

	m.on(hook.C2SStreamIQReceived, stream(m.iqReceived), hook.LowestPriority)
	m.on(hook.C2SStreamMessageReceived, stream(m.messageReceived), afterArchID)
	m.on(hook.S2SInStreamMessageReceived, m.remoteMessage, afterArchID)
	m.on(hook.C2SStreamMessageRouted, stream(m.messageRouted), beforeMAM)
	m.on(hook.S2SInStreamMessageRouted, m.remoteRouted, beforeMAM)
	m.on(hook.ArchiveMessageArchived, m.archived, first)
	m.on(hook.OfflineMessageArchived, m.storedOffline, first)
	m.on(hook.UserDeleted, m.userDeleted, first)

	m.on(hook.ExternalComponentElementReceived, m.componentElement, first)
	m.on(hook.ExternalComponentUnregistered, m.componentGone, first)
	m.on(hook.S2SInStreamIQReceived, m.remoteIQ, first)
	return nil
}

func (m *Module) on(name string, h hook.Handler, p hook.Priority) {
	m.Hooks.AddHook(name, h, p)
	m.hooks = append(m.hooks, registered{name, h})
}

// Stop closes the engine, which sends what waits for as long as ctx allows, and removes the hooks. It should run while components and
// streams to other servers are still up, which is before jackal's own parts are stopped.
func (m *Module) Stop(ctx context.Context) error {
	err := m.engine.Close(ctx) // replies come through the hooks
	for _, r := range m.hooks {
		m.Hooks.RemoveHook(r.name, r.h)
	}
	m.hooks = nil
	m.sessions.forget()
	var unsent *push.UnsentError
	if errors.As(err, &unsent) {
		level.Warn(m.Logger).Log("msg", "notifications not sent", "count", len(unsent.Unsent))
		return nil
	}
	return err
}

// handle gives an event to the engine. jackal's hooks cannot do anything about an error but fail the client's stanza, which is not to blame.
func (m *Module) handle(ctx context.Context, ev push.Event) {
	if _, err := m.engine.Handle(ctx, ev); err != nil && !errors.Is(err, push.ErrClosed) {
		level.Warn(m.Logger).Log("msg", "push event not handled", "event", ev.Name(), "account", ev.Subject().Account, "err", err)
	}
}
