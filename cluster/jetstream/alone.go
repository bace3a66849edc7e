package jetstream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// alone decides for a node that cannot reach the log (Config.Alone): with an Engine of its own, which knows the registrations that the node has heard of and
// the sessions that it has itself. What it notified of is told to the log afterwards, together with the events.
type alone struct {
	n     *Node
	store push.MemoryStore
	// missed is how many questions in a row whether the log answers were not answered; only report touches it.
	missed int

	mu     sync.Mutex
	engine *push.Engine
	known  map[string]bool // accounts whose sessions the Engine was told of
	later  []decidedAlone  // to be told
}

// decidedAlone is an event that was decided alone, and who was notified.
type decidedAlone struct {
	ev   push.Event
	told []told
}

type told struct {
	key push.Key
	ids []string
}

// maxLater is how many events are kept to be told. Beyond it the oldest are not told: their phones may ring twice.
const maxLater = 65_536

func newAlone(n *Node) *alone { return &alone{n: n} }

// know takes note of an account's registrations.
func (a *alone) know(r registered) {
	ctx := context.Background()
	if len(r.Registrations) == 0 {
		_, _ = a.store.Remove(ctx, r.Account, push.Key{})
	}
	has, _ := a.store.List(ctx, r.Account)
	for _, h := range has {
		if !slices.ContainsFunc(r.Registrations, func(reg push.Registration) bool { return reg.Key == h.Key }) {
			_, _ = a.store.Remove(ctx, r.Account, h.Key)
		}
	}
	for _, reg := range r.Registrations {
		_, _ = a.store.Enable(ctx, reg, 0)
	}
	a.mu.Lock()
	e := a.engine
	a.mu.Unlock()
	if e != nil {
		_ = e.Refresh(ctx, r.Account)
	}
}

// decide decides an event, unless it is one that only the cluster can take: a client that enables or disables push has to try again.
func (a *alone) decide(ev push.Event) (push.Decision, bool) {
	switch ev.(type) {
	case push.PushEnable, push.PushDisable, push.AffiliationNone, push.AccountRemoved:
		return push.Decision{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	account := ev.Subject().Account
	if a.engine == nil {
		cfg := a.n.cfg.Push
		cfg.Store, cfg.Observer = &a.store, nil
		e, err := push.New(cfg)
		if err != nil {
			a.n.warn("not decided alone", -1, err)
			return push.Decision{}, false
		}
		a.engine, a.known = e, make(map[string]bool)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if !a.known[account] {
		a.known[account] = true
		for _, s := range a.n.lane(account).sessionsOf(account) {
			_, _ = a.engine.Handle(ctx, s)
		}
	}
	d, err := a.engine.Handle(ctx, ev)
	if err != nil {
		a.n.warn("not decided alone", -1, err)
		return push.Decision{}, false
	}
	l := decidedAlone{ev: ev}
	for _, v := range d.Verdicts {
		if v.Notify {
			l.told = append(l.told, told{v.Key, slices.Clone(v.Stanzas)})
		}
	}
	if ev.Subject().ID == "" { // the log hears of sessions in this node's next life
		if len(a.later) >= maxLater {
			a.later = a.later[1:]
		}
		a.later = append(a.later, l)
	}
	return d, true
}

// unreported is how many events the log has not been told of yet.
func (a *alone) unreported() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.later)
}

// notes returns who of an account was notified, for the log to be told now, before the events.
func (a *alone) notes(account string) (list []told) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.later {
		if l := &a.later[i]; l.ev.Subject().Account == account {
			list = append(list, l.told...)
			l.told = nil
		}
	}
	return list
}

// report tells the log what was decided alone, once it answers, and ends the Engine.
func (a *alone) report() {
	a.mu.Lock()
	later, e := a.later, a.engine
	a.mu.Unlock()
	if e == nil {
		return
	}
	ctx, cancel := context.WithTimeout(a.n.ctx, appendFor)
	defer cancel()
	if _, _, err := a.n.tail(ctx, 0, attempt(a.missed)); err != nil { // still cut off, or this answer was lost when it was joined again
		if late(err) {
			a.missed++
		}
		return
	}
	a.missed = 0
	for len(later) > 0 {
		l := later[0]
		c := a.n.lane(l.ev.Subject().Account).enterAlone(l)
		if c != nil {
			select {
			case <-c.accepted:
				if !c.ok {
					return
				}
			case <-ctx.Done():
				return
			}
		}
		a.mu.Lock()
		a.later = a.later[1:]
		later = a.later
		a.mu.Unlock()
		a.n.counts.reported.Add(1)
	}
	a.mu.Lock()
	if len(a.later) > 0 {
		a.mu.Unlock()
		return
	}
	a.engine, a.known = nil, nil
	a.mu.Unlock()
	a.n.work.Add(1)
	go func() {
		defer a.n.work.Done()
		a.end(e)
	}()
}

func (a *alone) end(e *push.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil && !errors.Is(err, push.ErrClosed) {
		a.n.warn("notifications decided alone are not sent", -1, err)
	}
}

func (a *alone) close(context.Context) {
	a.mu.Lock()
	e := a.engine
	a.engine = nil
	a.mu.Unlock()
	if e != nil {
		a.end(e)
	}
}
