package main

import (
	"context"

	kitlog "github.com/go-kit/log"
	adminserver "github.com/ortuman/jackal/pkg/admin/server"
	"github.com/ortuman/jackal/pkg/auth/pepper"
	"github.com/ortuman/jackal/pkg/c2s"
	connmanager "github.com/ortuman/jackal/pkg/cluster/connmanager"
	"github.com/ortuman/jackal/pkg/cluster/kv"
	"github.com/ortuman/jackal/pkg/cluster/memberlist"
	"github.com/ortuman/jackal/pkg/cluster/resourcemanager"
	clusterrouter "github.com/ortuman/jackal/pkg/cluster/router"
	"github.com/ortuman/jackal/pkg/component"
	"github.com/ortuman/jackal/pkg/component/extcomponentmanager"
	"github.com/ortuman/jackal/pkg/component/xep0114"
	"github.com/ortuman/jackal/pkg/hook"
	"github.com/ortuman/jackal/pkg/host"
	jackalserver "github.com/ortuman/jackal/pkg/jackal"
	"github.com/ortuman/jackal/pkg/module"
	"github.com/ortuman/jackal/pkg/module/offline"
	"github.com/ortuman/jackal/pkg/module/roster"
	"github.com/ortuman/jackal/pkg/module/xep0012"
	"github.com/ortuman/jackal/pkg/module/xep0030"
	"github.com/ortuman/jackal/pkg/module/xep0049"
	"github.com/ortuman/jackal/pkg/module/xep0054"
	"github.com/ortuman/jackal/pkg/module/xep0092"
	"github.com/ortuman/jackal/pkg/module/xep0115"
	"github.com/ortuman/jackal/pkg/module/xep0191"
	"github.com/ortuman/jackal/pkg/module/xep0198"
	streamqueue "github.com/ortuman/jackal/pkg/module/xep0198/queue"
	"github.com/ortuman/jackal/pkg/module/xep0199"
	"github.com/ortuman/jackal/pkg/module/xep0202"
	"github.com/ortuman/jackal/pkg/module/xep0280"
	"github.com/ortuman/jackal/pkg/module/xep0313"
	"github.com/ortuman/jackal/pkg/router"
	"github.com/ortuman/jackal/pkg/s2s"
	"github.com/ortuman/jackal/pkg/shaper"
	"github.com/ortuman/jackal/pkg/storage"
	pushjackal "github.com/xmpp-push/push/hosts/jackal"
)

// server is a whole jackal with push. jackal's own assembly (pkg/jackal) lets nobody add a module, so this is the same from its exported
// parts, without the cluster. What push needs is marked.
type server struct {
	hooks *hook.Hooks
	push  *pushjackal.Module
	parts []part
}

// part is what starts and stops with the server.
type part interface {
	Start(context.Context) error
	Stop(context.Context) error
}

// newServer assembles a server, which Start runs.
func newServer(cfg jackalserver.Config, push pushjackal.Config, log kitlog.Logger) (*server, error) {
	s := &server{hooks: hook.NewHooks()}
	add := func(p part) { s.parts = append(s.parts, p) }

	// One node: the cluster's parts are there, and have nobody to talk to.
	members := kv.NewNop()
	conns := connmanager.NewManager(s.hooks, log)
	resources := resourcemanager.NewKVManager(members, s.hooks, log)
	add(conns)
	add(resources)
	add(memberlist.NewKVMemberList(cfg.Cluster.Server.Port, members, s.hooks, log))

	peppers, err := pepper.NewKeys(cfg.Peppers)
	if err != nil {
		return nil, err
	}
	store, err := storage.New(cfg.Storage, log)
	if err != nil {
		return nil, err
	}
	add(store)
	hosts, err := host.NewHosts(cfg.Hosts)
	if err != nil {
		return nil, err
	}
	var shapers shaper.Shapers
	for _, c := range cfg.Shapers {
		sh, err := shaper.New(c)
		if err != nil {
			return nil, err
		}
		shapers = append(shapers, sh)
	}

	out := s2s.NewOutProvider(cfg.S2S.Out, hosts, members, shapers, s.hooks, log)
	add(out)
	clients := c2s.NewRouter(c2s.NewLocalRouter(hosts), clusterrouter.New(conns), resources, store, s.hooks, log)
	routes := router.New(hosts, clients, s2s.NewRouter(out))
	add(routes)
	components := component.NewComponents(nil, s.hooks, log)
	external := extcomponentmanager.New(members, conns, components, log)
	add(components)
	add(external)

	// Push, first half. Stream management's queues have to be shared, and its time of hibernation the longest that push may want.
	queues := streamqueue.NewQueueMap()
	s.push, err = pushjackal.New(pushjackal.Server{
		Hosts: hosts, Router: routes, Components: components, External: external, Queues: queues, Hooks: s.hooks, Logger: log,
	}, push)
	if err != nil {
		return nil, err
	}
	cfg.Modules.Stream.HibernateTime = max(cfg.Modules.Stream.HibernateTime, s.push.MaxHibernateTime())

	modules := module.NewModules([]module.Module{
		roster.New(routes, hosts, resources, store, s.hooks, log),
		offline.New(cfg.Modules.Offline, routes, hosts, store, s.hooks, log),
		xep0012.New(routes, hosts, resources, store, s.hooks, log),
		xep0030.New(routes, components, store, resources, s.hooks, log),
		xep0049.New(routes, store, s.hooks, log),
		xep0054.New(routes, store, s.hooks, log),
		xep0092.New(cfg.Modules.Version, routes, log),
		xep0115.New(routes, store, s.hooks, log),
		xep0191.New(routes, hosts, resources, store, s.hooks, log),
		xep0198.New(cfg.Modules.Stream, queues, conns, routes, hosts, resources, s.hooks, log),
		xep0199.New(cfg.Modules.Ping, routes, s.hooks, log),
		xep0202.New(routes, log),
		xep0280.New(routes, hosts, resources, s.hooks, log),
		xep0313.New(cfg.Modules.Mam, routes, hosts, store, s.hooks, log),
		s.push,
	}, hosts, routes, s.hooks, log)
	add(modules)

	if admin := adminserver.New(cfg.Admin, store, peppers, s.hooks, log); admin != nil {
		add(admin)
	}
	for _, l := range c2s.NewListeners(cfg.C2S.Listeners, hosts, routes, components, modules, resources, store, peppers, shapers, s.hooks, log) {
		add(l)
	}
	if len(cfg.S2S.Listeners) > 0 {
		hub := s2s.NewInHub(log)
		add(hub)
		for _, l := range s2s.NewListeners(cfg.S2S.Listeners, hosts, routes, components, modules, out, hub, members, shapers, s.hooks, log) {
			add(l)
		}
	}
	for _, l := range xep0114.NewListeners(cfg.Components.Listeners, cfg.Components.Secret, hosts, components, external, routes, shapers, s.hooks, log) {
		add(l)
	}
	// Push, second half: parts are stopped from the last to the first, and what waits has to be sent while there is a connection to send it by.
	add(closer{s.push})
	return s, nil
}

// closer is a part that has been started already.
type closer struct{ part }

func (closer) Start(context.Context) error { return nil }

// Start starts the server's parts. If one fails, those before it are stopped.
func (s *server) Start(ctx context.Context) error {
	for i, p := range s.parts {
		if err := p.Start(ctx); err != nil {
			s.parts = s.parts[:i]
			s.Stop(ctx)
			return err
		}
	}
	return nil
}

// Stop stops the server's parts, and returns the first error.
func (s *server) Stop(ctx context.Context) error {
	var first error
	for i := len(s.parts) - 1; i >= 0; i-- {
		if err := s.parts[i].Stop(ctx); err != nil && first == nil {
			first = err
		}
	}
	return first
}
