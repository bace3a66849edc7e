package push

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Inspect returns what is known of an account. If it is not kept in memory, that is what the Store has. The error is as for Handle.
func (e *Engine) Inspect(ctx context.Context, account string) (AccountStatus, error) {
	if e == nil || e.policy == nil {
		return AccountStatus{}, errNotMade
	}
	ctx = orEndless(ctx)
	s := e.shard(account)
	s.mu.Lock()
	en := s.accounts[account]
	if en == nil {
		s.mu.Unlock()
		rs, err := ask(ctx, e, &e.hooks.list, account, func(ctx context.Context) ([]Registration, error) { return e.cfg.Store.List(ctx, account) })
		if err != nil {
			return AccountStatus{}, fmt.Errorf("%w: %w", ErrStore, err)
		}
		return NewAccount(account, e.policy, sane(account, rs, e.policy)).Status(e.now()), nil
	}
	e.work.add()
	defer e.work.done()
	defer s.mu.Unlock()
	if !en.Loaded() && (en.lane == nil || en.lane.readAt.IsZero()) { // whoever looks wants to see the registrations
		done := e.read(s, en)
		s.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		case <-time.After(e.cfg.HookTimeout):
		}
		s.mu.Lock()
	}
	if err := s.acquire(ctx, en); err != nil {
		return AccountStatus{}, err
	}
	st := en.Status(e.now())
	if l := en.lane; l != nil {
		st.Deferred = len(l.deferred)
	}
	e.release(s, en)
	return st, nil
}

// Services returns the state of the push services that have something to do or were met lately, in the order of their names.
func (e *Engine) Services() []ServiceStatus {
	e.gates.mu.RLock()
	defer e.gates.mu.RUnlock()
	var list []ServiceStatus
	for _, g := range e.gates.services {
		g.mu.Lock()
		list = append(list, ServiceStatus{
			Service: g.name, InFlight: g.service.inFlight, Waiting: len(g.ready) - g.head + len(g.prepared) + g.asking + g.askingLong, Broken: g.service.Broken(), Hanging: len(g.hung),
		})
		g.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b ServiceStatus) int { return strings.Compare(a.Service, b.Service) })
	return list
}

// StoreStatus is how an Engine gets on with its Store.
type StoreStatus struct {
	// Away: the last call failed, or did not return in time.
	Away bool
	// Deferred is how many events wait for registrations to be read, Unwritten of how many registrations the Store has not been told what replies taught.
	Deferred, Unwritten int
	// Calling is for how many accounts it is being called.
	Calling int
}

// Store returns how the Engine gets on with its Store.
func (e *Engine) Store() StoreStatus {
	return StoreStatus{e.lanes.away.Load(), int(e.defers.Load()), int(e.learned.Load()), int(e.lanes.running.Load())}
}
