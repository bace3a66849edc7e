package jetstream

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// gates are in front of the push services: one for each that this node publishes to, over all its partitions.
type gates struct {
	n       *Node
	started time.Time
	mu      sync.Mutex
	by      map[string]*gate
	// admitted are registrations that have a place at their gate, and no publish on its way yet.
	admitted map[held]*gate
	stopped  bool
}

type held struct {
	lane *lane
	ref  partition.Ref
}

type gate struct {
	name    string
	service *push.Service
	ready   []held
	timer   *time.Timer
}

func (g *gates) init(n *Node) {
	g.n, g.started, g.by, g.admitted = n, time.Now(), make(map[string]*gate), make(map[held]*gate)
}

// ready queues a registration whose notification may go out.
func (g *gates) ready(l *lane, ref partition.Ref) {
	g.mu.Lock()
	defer g.mu.Unlock()
	name := ref.Key.Service
	t := g.by[name]
	if t == nil {
		if len(g.by) >= 256 {
			g.sweep()
		}
		t = &gate{name: name, service: push.NewService(g.n.policy)}
		g.by[name] = t
	}
	t.ready = append(t.ready, held{l, ref})
	g.pump(t)
}

// sweep forgets gates that have nothing to do. g.mu is held.
func (g *gates) sweep() {
	for name, t := range g.by {
		if len(t.ready) == 0 && t.service.InFlight() == 0 && !t.service.Broken() {
			delete(g.by, name)
		}
	}
}

// pump lets go as many as the service admits. g.mu is held.
func (g *gates) pump(t *gate) {
	for len(t.ready) > 0 && !g.stopped {
		now := time.Now()
		ok, at := t.service.Admit(now)
		if !ok {
			if !at.IsZero() {
				wait := at.Sub(now)
				if t.timer == nil {
					t.timer = time.AfterFunc(wait, func() {
						g.mu.Lock()
						defer g.mu.Unlock()
						g.pump(t)
					})
				} else {
					t.timer.Reset(wait)
				}
			}
			return
		}
		h := t.ready[0]
		t.ready[0] = held{}
		t.ready = t.ready[1:]
		if g.admitted[h] != nil { // it is there already
			t.service.Cancel()
			continue
		}
		g.admitted[h] = t
		h.lane.post(func() {
			if !h.lane.owner.Begin(time.Now(), h.ref) {
				g.cancel(h)
			}
		})
	}
}

// cancel gives back a place that nothing was sent on.
func (g *gates) cancel(h held) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.admitted[h]; t != nil {
		delete(g.admitted, h)
		t.service.Cancel()
		g.pump(t)
	}
}

// sent says that a publish goes out, and returns the gate whose place it has.
func (g *gates) sent(l *lane, ref partition.Ref) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := held{l, ref}
	t := g.admitted[h]
	delete(g.admitted, h)
	return t
}

// done says that it was answered.
func (g *gates) done(t *gate, reply push.Reply) {
	if t == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if reply.Vetoed != "" {
		t.service.Cancel()
	} else {
		t.service.Done(time.Now(), reply.Answered())
	}
	g.pump(t)
}

// forget takes out what a lane has, which has lost its partition.
func (g *gates) forget(l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for h, t := range g.admitted {
		if h.lane == l {
			delete(g.admitted, h)
			t.service.Cancel()
		}
	}
	for _, t := range g.by {
		t.ready = slices.DeleteFunc(t.ready, func(h held) bool { return h.lane == l })
		g.pump(t)
	}
}

func (g *gates) status() []push.ServiceStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]push.ServiceStatus, 0, len(g.by))
	for _, t := range g.by {
		list = append(list, push.ServiceStatus{Service: t.name, InFlight: t.service.InFlight(), Waiting: len(t.ready), Broken: t.service.Broken()})
	}
	slices.SortFunc(list, func(a, b push.ServiceStatus) int { return strings.Compare(a.Service, b.Service) })
	return list
}

func (g *gates) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	for _, t := range g.by {
		if t.timer != nil {
			t.timer.Stop()
		}
	}
}
