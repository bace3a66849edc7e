package push

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// gate is a push service in an Engine: the pure Service with what waits at it. Each admitted publish has a goroutine while it lasts.
type gate struct {
	name    string
	mu      sync.Mutex
	service *Service
	ready   []ref // from head on; each registration at most once
	head    int
	timer   *time.Timer
	swept   bool
}

// gate returns the gate of a service.
func (e *Engine) gate(name string) *gate {
	e.gatesMu.RLock()
	g := e.gates[name]
	e.gatesMu.RUnlock()
	if g != nil {
		return g
	}
	e.gatesMu.Lock()
	defer e.gatesMu.Unlock()
	if g = e.gates[name]; g != nil {
		return g
	}
	if len(e.gates) >= max(e.sweepAt, 256) {
		for n, g := range e.gates {
			g.mu.Lock()
			if g.service.inFlight == 0 && g.head == len(g.ready) && g.service.failures == 0 {
				g.swept = true
				delete(e.gates, n)
			}
			g.mu.Unlock()
		}
		e.sweepAt = 2 * len(e.gates)
	}
	g = &gate{name: name, service: NewService(e.policy)}
	e.gates[name] = g
	return g
}

// dispatch hands registrations to the gates of their services. The caller counts as work.
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
			e.pump(g)
			g.mu.Unlock()
			break
		}
	}
}

// pump starts as many publishes as the service admits. g is locked; the caller counts as work.
func (e *Engine) pump(g *gate) {
	for {
		r, ok := e.take(g)
		if !ok {
			return
		}
		e.work.Add(1)
		go e.publishAll(g, r)
	}
}

// take returns the next registration to publish to, admitted, or arms the timer for the time at which there may be one. g is locked.
func (e *Engine) take(g *gate) (ref, bool) {
	if g.head == len(g.ready) {
		return ref{}, false
	}
	now := e.now()
	ok, at := g.service.Admit(now)
	if !ok {
		if !at.IsZero() {
			if g.timer == nil {
				g.timer = time.AfterFunc(at.Sub(now), func() { e.probe(g) })
			} else {
				g.timer.Reset(at.Sub(now))
			}
		}
		return ref{}, false
	}
	r := g.ready[g.head]
	g.ready[g.head] = ref{}
	if g.head++; g.head == len(g.ready) {
		g.ready, g.head = g.ready[:0], 0
	} else if g.head > 64 && g.head > len(g.ready)/2 {
		n := copy(g.ready, g.ready[g.head:])
		clear(g.ready[n:])
		g.ready, g.head = g.ready[:n], 0
	}
	return r, true
}

// probe lets a gate look again whether its service admits a publish.
func (e *Engine) probe(g *gate) {
	s := &e.shards[0] // any shard tells whether the engine is open
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	e.work.Add(1)
	s.mu.Unlock()
	g.mu.Lock()
	e.pump(g)
	g.mu.Unlock()
	e.work.Done()
}

// publishAll publishes to one registration, and then to the next ones as long as the service admits them. It counts as work.
func (e *Engine) publishAll(g *gate, r ref) {
	defer e.work.Done()
	for ok := true; ok; {
		sent, answered := e.publish(r)
		g.mu.Lock()
		if sent {
			g.service.Done(e.now(), answered)
		} else {
			g.service.Cancel()
		}
		if r, ok = e.take(g); ok {
			e.pump(g)
		}
		g.mu.Unlock()
	}
}

// publish sends what waits for one registration, and takes note of the reply. sent tells whether the service was asked, answered whether it answered.
func (e *Engine) publish(r ref) (sent, answered bool) {
	s := e.shard(r.account)
	s.mu.Lock()
	en := s.accounts[r.account]
	if en == nil {
		s.mu.Unlock()
		return false, false
	}
	_ = s.acquire(context.Background(), en)
	now := e.now()
	var eff Effects
	n, ok := en.Begin(r.key, now, &eff)
	s.mu.Unlock()
	e.deliver(r.account, now, &eff)
	e.affected(r.account, now, &eff)
	if ok && e.obs.Sent != nil {
		e.obs.Sent(now, &n)
	}
	e.release(s, en)
	if !ok {
		return false, false
	}
	reply := e.send(&n)
	took := e.now().Sub(now)
	s.mu.Lock()
	_ = s.acquire(context.Background(), en)
	s.mu.Unlock()
	done := e.now() // not earlier than any event that had the turn before
	eff.Reset()
	var buf [4]Key
	res := en.End(r.key, reply, done, &eff)
	if res.Store {
		e.report(en.Account, r.key, res.Update, &eff)
	}
	keys := en.Due(done, buf[:0], &eff)
	e.deliver(r.account, done, &eff)
	if e.obs.Replied != nil {
		e.obs.Replied(done, &n, reply, res, took)
	}
	e.affected(r.account, done, &eff)
	e.logReply(&n, reply, res, took)
	e.release(s, en)
	e.dispatch(r.account, keys)
	return reply.Vetoed == "", reply.Answered()
}

// send asks the host's hooks and calls the Publisher.
func (e *Engine) send(n *Notification) Reply {
	ctx, cancel := context.WithTimeout(e.ctx, e.policy.ReplyTimeout)
	defer cancel()
	if e.cfg.Unread != nil {
		if u, err := e.cfg.Unread.Unread(ctx, n.Account); err == nil {
			n.Unread = max(u, 0)
		} else {
			e.log.LogAttrs(ctx, slog.LevelWarn, "push: unread count not known", slog.String("account", n.Account), slog.Any("error", err))
		}
	}
	if e.cfg.Veto != nil {
		if why := e.cfg.Veto.VetoPublish(ctx, n); why != "" {
			return Reply{Vetoed: why}
		}
	}
	return ReplyOf(e.cfg.Publisher.Publish(ctx, n))
}

// report tells the store what a reply taught, in the account's turn.
func (e *Engine) report(a *Account, k Key, u Update, eff *Effects) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), e.policy.ReplyTimeout)
	defer cancel()
	err := e.cfg.Store.Update(ctx, a.name, k, u)
	if err == nil {
		return
	}
	e.log.LogAttrs(ctx, slog.LevelWarn, "push: health not stored", slog.String("account", a.name), slog.String("service", k.Service),
		slog.String("node", k.Node), slog.Any("error", err))
	if errors.Is(err, ErrNotRegistered) { // another node removed it
		e.reload(ctx, a, eff)
	}
}

func (e *Engine) logReply(n *Notification, reply Reply, res Result, took time.Duration) {
	level := slog.LevelDebug
	if res.Outcome != OutcomeAccepted {
		level = slog.LevelInfo
	}
	if !e.log.Enabled(e.ctx, level) {
		return
	}
	e.log.LogAttrs(e.ctx, level, "push: publish "+res.Outcome.String(), slog.String("account", n.Account), slog.String("service", n.Service),
		slog.String("node", n.Node), slog.String("class", n.Class.String()), slog.Int("stanzas", n.Count), slog.Int("try", n.Try),
		slog.String("error", cut(reply.Condition, 64)), slog.Duration("took", took))
}

func (e *Engine) stopGates() {
	e.gatesMu.Lock()
	defer e.gatesMu.Unlock()
	for _, g := range e.gates {
		g.mu.Lock()
		if g.timer != nil {
			g.timer.Stop()
		}
		g.mu.Unlock()
	}
}

// Services returns the state of the push services that have something to do or were met lately, in the order of their names.
func (e *Engine) Services() []ServiceStatus {
	e.gatesMu.RLock()
	defer e.gatesMu.RUnlock()
	var list []ServiceStatus
	for _, g := range e.gates {
		g.mu.Lock()
		list = append(list, ServiceStatus{g.name, g.service.inFlight, len(g.ready) - g.head, g.service.Broken()})
		g.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b ServiceStatus) int {
		if a.Service < b.Service {
			return -1
		}
		return 1
	})
	return list
}
