package push

import (
	"sync"
	"time"
)

// A gate is a push service in an Engine: the pure [Service] with what waits at it. The way of a publish:
//
//	dispatch → ready → (a slot) → Account.Begin → Publisher → Account.End
//
// With a host that has a word before each publish (Unread, Vetoer), the slot is given back before it is asked, and what it has said waits for another
// one ahead of all others; it is asked whether the registration still holds when it gets it (rule R12). So the host's code never has a
// slot, and the time of a push service begins when it is asked.
//
// Each publish has a goroutine while it lasts. A Publisher that does not return soon after Policy.ReplyTimeout loses its slot, so that others go on;
// while there are hangLimit of them at one service, nobody does. Its registration waits for what it says when it returns, however late, for only it
// knows whether the publish was sent: else the device is notified twice.
type gate struct {
	name    string
	mu      sync.Mutex
	service *Service
	// ready are registrations that may have something to send, from head on. Stale ones are found out when their turn comes, or by compact.
	ready     []ref
	head      int
	compactAt int
	// prepared are those that the host was asked about; asking is the number that it is being asked about, but for those that it takes long over, which are askingLong.
	prepared           []*flight
	asking, askingLong int
	// flights are the publishes that wait for their reply, in the order of their deadlines.
	flights flight
	hung    map[ref]*flight
	// probe is for the time at which the service may be asked again, watch for the first deadline.
	probe, watch *time.Timer
	watching     bool
	quietSince   time.Time
	swept        bool
}

// ref is a registration whose notification may go out.
type ref struct {
	account string
	key     Key
}

// gates are all services that are known.
type gates struct {
	mu       sync.RWMutex
	services map[string]*gate
	most     int // since it was made
	sweeper  *time.Timer
}

const (
	// hangLimit is how many publishes of one service may have been left to themselves before it is not asked any more.
	hangLimit = 64
	// askSlow is how long the host may take over a publish before another one is prepared in its place.
	askSlow = 50 * time.Millisecond
	// gateQuiet is for how long a service without anything to do is remembered, with what is known of its health.
	gateQuiet = 10 * time.Minute
)

// gate returns the gate of a service.
func (e *Engine) gate(name string) *gate {
	gs := &e.gates
	gs.mu.RLock()
	g := gs.services[name]
	gs.mu.RUnlock()
	if g != nil {
		return g
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g = gs.services[name]; g != nil {
		return g
	}
	g = &gate{name: name, service: NewService(e.policy), compactAt: 1024, quietSince: e.now()}
	g.flights.next, g.flights.prev = &g.flights, &g.flights
	gs.services[name] = g
	gs.most = max(gs.most, len(gs.services))
	if len(gs.services) == 1 {
		gs.sweeper = time.AfterFunc(gateQuiet, e.sweep)
	}
	return g
}

// sweep forgets services that have had nothing to do for a while, and comes again while there are some.
func (e *Engine) sweep() {
	gs := &e.gates
	now := e.now()
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if e.closed.Load() {
		return
	}
	for name, g := range gs.services {
		g.mu.Lock()
		if g.idle() && now.Sub(g.quietSince) >= gateQuiet {
			g.swept = true
			delete(gs.services, name)
		}
		g.mu.Unlock()
	}
	gs.services = fitted(gs.services, &gs.most)
	if len(gs.services) > 0 {
		gs.sweeper.Reset(gateQuiet)
	}
}

// idle tells whether nothing is at the gate. It is locked.
func (g *gate) idle() bool {
	return g.service.inFlight == 0 && g.head == len(g.ready) && len(g.prepared) == 0 && g.asking+g.askingLong == 0 && len(g.hung) == 0
}

func (g *gate) stop() {
	if g.probe != nil {
		g.probe.Stop()
	}
	if g.watch != nil {
		g.watch.Stop()
	}
}

// dispatch hands registrations to the gates of their services. The caller counts as work, and holds no lock.
func (e *Engine) dispatch(account string, keys []Key) {
	for _, k := range keys {
		for {
			g := e.gate(k.Service)
			g.mu.Lock()
			if g.swept {
				g.mu.Unlock()
				continue
			}
			g.ready = append(g.ready, ref{account, k})
			if len(g.ready)-g.head > g.compactAt {
				e.compact(g)
			}
			e.pump(g)
			g.mu.Unlock()
			break
		}
	}
}

// compact drops what waits at a gate and has nothing to send any more, so that a client which enables and disables in a loop leaves nothing at a service
// that does not answer. The gate is locked.
func (e *Engine) compact(g *gate) {
	seen := make(map[ref]struct{}, len(g.ready)-g.head)
	left := g.ready[:0]
	for _, r := range g.ready[g.head:] {
		if _, twice := seen[r]; !twice && e.queued(r) {
			seen[r] = struct{}{}
			left = append(left, r)
		}
	}
	clear(g.ready[len(left):])
	g.ready, g.head = left, 0
	g.compactAt = max(1024, 2*len(left))
}

// queued tells whether a registration has something to send.
func (e *Engine) queued(r ref) bool {
	s := e.shard(r.account)
	s.mu.Lock()
	defer s.mu.Unlock()
	en := s.accounts[r.account]
	if en == nil {
		return false
	}
	if en.busy {
		return true // somebody is at it
	}
	reg := en.find(r.key)
	return reg != nil && reg.pace.queued
}

// pump starts as many publishes as the service admits. The gate is locked; the caller counts as work.
func (e *Engine) pump(g *gate) {
	for {
		f, ok := e.take(g)
		if !ok {
			return
		}
		e.work.add()
		go e.publishAll(g, f)
	}
}

// take returns the next publish, admitted, or arms the timer for the time at which there may be one. The gate is locked.
func (e *Engine) take(g *gate) (*flight, bool) {
	if g.head == len(g.ready) && len(g.prepared) == 0 || len(g.hung) >= hangLimit || e.sealed.Load() {
		if g.idle() {
			g.quietSince = e.now()
		}
		return nil, false
	}
	if len(g.prepared) == 0 && g.asking >= g.service.room() {
		return nil, false
	}
	now := e.now()
	ok, at := g.service.Admit(now)
	if !ok {
		if !at.IsZero() {
			setTimer(&g.probe, at.Sub(now), func() { e.pumpNow(g) })
		}
		return nil, false
	}
	if len(g.prepared) > 0 {
		f := g.prepared[0]
		g.prepared[0] = nil
		g.prepared = g.prepared[1:]
		return f, true
	}
	r := g.ready[g.head]
	if g.head++; g.head > len(g.ready)/2 {
		n := copy(g.ready, g.ready[g.head:])
		clear(g.ready[n:])
		g.ready, g.head = g.ready[:n], 0
	}
	return &flight{ref: r}, true
}

// pumpNow lets a gate look again whether its service admits a publish.
func (e *Engine) pumpNow(g *gate) {
	if e.closed.Load() {
		return
	}
	e.work.add()
	g.mu.Lock()
	e.pump(g)
	g.mu.Unlock()
	e.work.done()
}

// hurry lets what waits at a gate go out now, if its service is broken too.
func (e *Engine) hurry(g *gate) {
	g.mu.Lock()
	g.service.probeAt = time.Time{}
	g.mu.Unlock()
	e.pumpNow(g)
}
