package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// importAtOnce is how many accounts are on their way into the log at once.
const importAtOnce = 1024

// Import takes over what a host has in a Store, when its one server becomes a cluster: the registrations of the accounts that all names, as from.List has them.
// A registration that the cluster has already stays as it is there, so Import can be done again, at any node, also while events come in; what was disabled stays so. It returns how many
// registrations were given to the cluster, all of which are in its log, and the first error, which ends it. With store/sql:
//
//	n, err := node.Import(ctx, store, store.All(ctx, sqlstore.Filter{}))
func (n *Node) Import(ctx context.Context, from push.Store, all iter.Seq2[push.Registration, error]) (int, error) {
	if n.unmade() {
		return 0, errNotMade
	}
	ctx, stop := context.WithCancelCause(orEndless(ctx))
	defer stop(nil)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		sum  int
		last string
		sem  = make(chan struct{}, importAtOnce)
	)
	for r, err := range all {
		if err != nil {
			stop(fmt.Errorf("jetstream: import: %w", err))
		}
		if ctx.Err() != nil {
			break
		}
		if r.Account == last {
			continue
		}
		account := r.Account
		last = account
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			list, err := from.List(ctx, account)
			if err == nil && len(list) > 0 {
				err = n.take(ctx, partition.Import{AccountRemoved: push.AccountRemoved{Account: account}, Registrations: list})
			}
			if err != nil {
				stop(fmt.Errorf("jetstream: import of %s: %w", account, err))
				return
			}
			mu.Lock()
			sum += len(list)
			mu.Unlock()
		})
	}
	wg.Wait()
	return sum, context.Cause(ctx)
}

// take brings an Import into the log, and waits until all nodes know.
func (n *Node) take(ctx context.Context, ev partition.Import) error {
	if n.closed.Load() {
		return push.ErrClosed
	}
	if err := n.left.Load(); err != nil {
		return *err
	}
	l := n.lane(ev.Account)
	c := &call{n: n, lane: l, ev: ev, accepted: make(chan struct{}), decided: make(chan struct{})}
	l.mu.Lock()
	l.entry.Add(ev, true, c)
	l.next()
	l.mu.Unlock()
	for _, done := range []chan struct{}{c.accepted, c.decided} {
		select {
		case <-done:
		case <-ctx.Done():
			l.withdraw(c)
			return fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(ctx))
		}
		if !c.ok {
			return ErrUnreachable
		}
	}
	return nil
}

// Export writes the registrations of the cluster into a Store: the way back to one machine, or a copy. What changes meanwhile may be in it or not, so the way back begins
// with an end of the events. What the Store has besides stays there. It returns how many were written, and the first error, which ends it.
func (n *Node) Export(ctx context.Context, to push.Store) (int, error) {
	fail := func(sum int, err error) (int, error) { return sum, fmt.Errorf("jetstream: export: %w", err) }
	if n.unmade() {
		return 0, errNotMade
	}
	ctx = orEndless(ctx)
	try, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := n.js.Stream(try, "KV_"+n.names.regs)
	if err != nil {
		return fail(0, fmt.Errorf("%w: %w", ErrUnreachable, err))
	}
	sum := 0
	err = n.entries(ctx, 0, s.CachedInfo().State.LastSeq, func(key string, value []byte, _ uint64) error {
		var r registered
		if err := partition.Decode(value, &r); err != nil {
			return fmt.Errorf("entry %s: %w", key, err)
		}
		for _, reg := range r.Registrations {
			if err := store(ctx, to, reg); err != nil {
				return fmt.Errorf("%s: %w", r.Account, err)
			}
			sum++
		}
		return nil
	})
	if err != nil && !errors.Is(err, errMissing) { // the last ones were deleted by hand
		return fail(sum, err)
	}
	return sum, nil
}

// store writes a registration with its health.
func store(ctx context.Context, to push.Store, r push.Registration) error {
	h := r.Health
	r.Health = push.Health{}
	if _, err := to.Enable(ctx, r, 0); err != nil {
		return err
	}
	if !h.Succeeded.IsZero() {
		if err := to.Update(ctx, r.Account, r.Key, push.Update{Succeeded: h.Succeeded}); err != nil {
			return err
		}
	}
	if h.Errors+h.Refusals > 0 || !h.Failing.IsZero() || !h.Disabled.IsZero() {
		return to.Update(ctx, r.Account, r.Key, push.Update{Errors: h.Errors, Refusals: h.Refusals, Failing: h.Failing, Disabled: h.Disabled, Cause: h.Cause})
	}
	return nil
}
