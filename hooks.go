package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// The host's code may panic, hang, fail or lie. Every call of it goes through this file, but those of the Publisher, which the gates watch
// (flight.go). Nothing of the Engine is held during one: no lock, no service's slot. A call runs in a goroutine of its own, which is left to itself
// when its time is over; what it returns then changes nothing (telling.go has the exception, observers that are quick). While an account has such a
// call under way, the same hook is not called for it again, and while there are maxHanging of one hook, for nobody: so no host can make goroutines
// pile up.

// maxHanging is how many calls of one hook may have overrun their time before it is not called any more.
const maxHanging = 256

// hookGrace is for a hook that returns because its context has ended.
const hookGrace = 100 * time.Millisecond

var (
	errPanicked = errors.New("push: the host's code panicked")
	errOverrun  = errors.New("push: the host's code did not return in time")
	errHanging  = errors.New("push: not asked, because earlier calls have not returned")
)

// hook is one function of the host's.
type hook struct {
	name                      string
	panics, overruns, skipped atomic.Uint64
	logged                    atomic.Bool
	// hangs is the number of calls that have overrun and not returned, hanging counts them by account.
	hangs   atomic.Int32
	mu      sync.Mutex
	hanging map[string]int
}

// hooks are all that a host has.
type hooks struct {
	liveness, contacts, chats, vetoStanza, vetoPublish, unread, subscriptions, publisher, resumption, observer, quick, logger hook
	list, enable, remove, update, keep, kept                                                                                  hook
}

func (hs *hooks) all() []*hook {
	return []*hook{
		&hs.publisher, &hs.unread, &hs.subscriptions, &hs.liveness, &hs.contacts, &hs.chats, &hs.vetoStanza, &hs.vetoPublish, &hs.resumption, &hs.observer, &hs.quick, &hs.logger,
		&hs.list, &hs.enable, &hs.remove, &hs.update, &hs.keep, &hs.kept,
	}
}

func (hs *hooks) init() {
	for i, name := range []string{
		"Publisher.Publish", "UnreadCounter.Unread", "SubscriptionCounter.PendingSubscriptions", "Liveness.Elsewhere", "Contacts.Contact", "Chats.Chat", "Vetoer.VetoStanza", "Vetoer.VetoPublish", "Resumption.ResumeTimeout", "Observer", "Observer (quick)", "Logger",
		"Store.List", "Store.Enable", "Store.Remove", "Store.Update", "Keeper.Keep", "Keeper.Kept",
	} {
		hs.all()[i].name = name
	}
}

// HookStatus counts what went wrong with one function of the host's.
type HookStatus struct {
	// Hook is its name, such as "Vetoer.VetoStanza".
	Hook string
	// Panics were recovered, Overruns left to themselves, Skipped not made because of those that have not returned, whose number is Hanging.
	Panics, Overruns, Skipped uint64
	Hanging                   int
}

// Hooks returns what went wrong with the host's code so far, for each of its functions with which something did.
func (e *Engine) Hooks() []HookStatus {
	var list []HookStatus
	for _, h := range e.hooks.all() {
		st := HookStatus{h.name, h.panics.Load(), h.overruns.Load(), h.skipped.Load(), int(h.hangs.Load())}
		if st != (HookStatus{Hook: h.name}) {
			list = append(list, st)
		}
	}
	return list
}

// barred tells whether the hook is not to be called for an account now, and counts that.
func (h *hook) barred(account string) bool {
	if h.hangs.Load() == 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hanging[account] == 0 && int(h.hangs.Load()) < maxHanging {
		return false
	}
	h.skipped.Add(1)
	return true
}

// overrun notes a call that has not returned in time, returned one that did at last.
func (h *hook) overrun(account string) {
	h.overruns.Add(1)
	h.hangs.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hanging == nil {
		h.hanging = make(map[string]int)
	}
	h.hanging[account]++
}

func (h *hook) returned(account string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hanging[account]--; h.hanging[account] == 0 {
		delete(h.hanging, account)
	}
	h.hangs.Add(-1)
}

// guard calls f, which calls the host, and turns a panic into an error.
func (e *Engine) guard(h *hook, f func() error) (err error) {
	panicked := true // also when the host ends the goroutine, of which there is nothing to recover
	defer func() {
		if panicked {
			err = e.panicked(h, recover())
		}
	}()
	err = f()
	panicked = false
	return err
}

// panicked counts a panic, and logs the first of each hook.
func (e *Engine) panicked(h *hook, r any) error {
	h.panics.Add(1)
	if !h.logged.Swap(true) {
		stack := string(debug.Stack())
		text := cut(fmt.Sprint(r), 200)
		go func() {
			_ = e.guard(&e.hooks.logger, func() error {
				e.log.LogAttrs(context.Background(), slog.LevelError, "push: the host's code panicked; further panics of this hook are only counted",
					slog.String("hook", h.name), slog.String("panic", text), slog.String("stack", stack))
				return nil
			})
		}()
	}
	return fmt.Errorf("%w: %s", errPanicked, h.name)
}

// ask calls a hook of the host's and waits for its answer, for no longer than Config.HookTimeout or ctx.
func ask[T any](ctx context.Context, e *Engine, h *hook, account string, f func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if h.barred(account) {
		return none, fmt.Errorf("%w: %s", errHanging, h.name)
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.HookTimeout)
	type answer struct {
		v   T
		err error
	}
	var left atomic.Bool // whoever comes first, the answer or the end of its time, sets it
	answers := make(chan answer, 1)
	go func() {
		defer cancel()
		a := answer{err: fmt.Errorf("%w: %s", errPanicked, h.name)} // if it ends the goroutine
		defer func() {
			if left.Swap(true) {
				h.returned(account)
				return
			}
			answers <- a
		}()
		var v T
		err := e.guard(h, func() (err error) {
			v, err = f(ctx)
			return err
		})
		a = answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-answers:
		return a.v, a.err
	case <-time.After(hookGrace):
	}
	h.overrun(account)
	if left.Swap(true) { // it has come at this moment
		h.returned(account)
	}
	return none, fmt.Errorf("%w: %s", errOverrun, h.name)
}

// warn logs that something of the host's failed.
func (e *Engine) warn(text, account string, err error, more ...slog.Attr) {
	_, _ = ask(context.Background(), e, &e.hooks.logger, account, func(ctx context.Context) (struct{}, error) {
		e.log.LogAttrs(ctx, slog.LevelWarn, text, append(more, slog.String("account", account), slog.Any("error", err))...)
		return struct{}{}, nil
	})
}

// facts asks the host what it knows about an event before it is decided. It holds nothing, and each hook has a bound of its own.
func (e *Engine) facts(account string, ev Event, f *Facts) {
	if _, ok := ev.(ArchiveAdded); ok && e.cfg.Liveness != nil {
		keys, err := ask(e.ctx, e, &e.hooks.liveness, account, func(ctx context.Context) ([]Key, error) { return e.cfg.Liveness.Elsewhere(ctx, account) })
		if err != nil {
			e.warn("push: sessions elsewhere not known", account, err)
		}
		f.Elsewhere = keys
	}
	if v := e.cfg.Veto; v != nil {
		f.Veto = func(r *Registration, st Stanza) string {
			mine := *r // what is left to itself must not hold what the account goes on with
			why, err := ask(e.ctx, e, &e.hooks.vetoStanza, account, func(context.Context) (string, error) { return v.VetoStanza(&mine, st), nil })
			if err != nil {
				return ""
			}
			return why
		}
	}
}

// chatFacts asks the host about the chats that matter for an event, in the account's turn, so that nothing changes meanwhile.
func (e *Engine) chatFacts(ctx context.Context, account string, questions []ChatQuestion, f *Facts) {
	for _, q := range questions {
		if e.cfg.Chats == nil && !q.Contact {
			continue
		}
		var info ChatInfo
		var err error
		if e.cfg.Chats != nil {
			info, err = ask(ctx, e, &e.hooks.chats, account, func(ctx context.Context) (ChatInfo, error) { return e.cfg.Chats.Chat(ctx, account, q.Chat) })
			if err != nil {
				e.warn("push: not known what the user set for a chat", account, err)
			}
		}
		if q.Contact && e.cfg.Contacts != nil {
			is, failed := ask(ctx, e, &e.hooks.contacts, account, func(ctx context.Context) (bool, error) { return e.cfg.Contacts.Contact(ctx, account, q.Chat) })
			if failed == nil {
				info.Contact = FactOf(is)
			} else {
				e.warn("push: not known whether it is a contact", account, failed)
			}
		}
		f.Chats = append(f.Chats, q.Answer(info, err))
	}
}

// asks tells whether the host has to be asked before ev is decided.
func (e *Engine) asks(ev Event) bool {
	if e.cfg.Veto != nil {
		return needsRegistrations(ev)
	}
	_, archived := ev.(ArchiveAdded)
	return archived && e.cfg.Liveness != nil
}
