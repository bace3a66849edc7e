package jetstream

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push"
)

// hooks are the host's functions that a Node calls, in the order of hookNames.
type hooks struct {
	vetoStanza, vetoPublish, unread, publish, resume, observer hook
}

func (hs *hooks) all() []*hook {
	return []*hook{&hs.vetoStanza, &hs.vetoPublish, &hs.unread, &hs.publish, &hs.resume, &hs.observer}
}

var hookNames = [...]string{"Vetoer.VetoStanza", "Vetoer.VetoPublish", "UnreadCounter.Unread", "Publisher.Publish", "Resumption.ResumeTimeout", "Observer"}

// hook counts what goes wrong with one of them.
type hook struct {
	panics, overruns, skipped atomic.Uint64
	logged                    atomic.Bool

	mu      sync.Mutex
	hanging map[string]int // by account
	hangs   int
}

func (hs *hooks) status() (list []push.HookStatus) {
	for i, h := range hs.all() {
		h.mu.Lock()
		hanging := h.hangs
		h.mu.Unlock()
		st := push.HookStatus{Hook: hookNames[i], Panics: h.panics.Load(), Overruns: h.overruns.Load(), Skipped: h.skipped.Load(), Hanging: hanging}
		if st != (push.HookStatus{Hook: hookNames[i]}) {
			list = append(list, st)
		}
	}
	return list
}

// guard calls f, which calls the host, and returns false if it panics.
func (n *Node) guard(h *hook, f func()) (ok bool) {
	defer func() {
		if ok {
			return
		}
		r := recover() // nil if the host has ended the goroutine
		h.panics.Add(1)
		if h.logged.Swap(true) {
			return
		}
		name := ""
		for i, other := range n.hooks.all() {
			if other == h {
				name = hookNames[i]
			}
		}
		n.log.LogAttrs(n.ctx, slog.LevelError, "push cluster: the host's function panics; it is logged once", slog.String("hook", name),
			slog.String("panic", fmt.Sprintf("%.200v", r)), slog.String("stack", string(debug.Stack())))
	}()
	f()
	return true
}

// maxHanging is how many calls of one hook may have overrun their time before it is called for nobody: each holds up its partition for Push.HookTimeout.
const maxHanging = 4

// barred tells whether the hook is not to be called for an account now, and counts that.
func (h *hook) barred(account string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hanging[account] == 0 && h.hangs < maxHanging {
		return false
	}
	h.skipped.Add(1)
	return true
}

// hang adds to the calls for an account that have not returned in time.
func (h *hook) hang(account string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hanging == nil {
		h.hanging = make(map[string]int)
	}
	h.hangs += n
	if h.hanging[account] += n; h.hanging[account] == 0 {
		delete(h.hanging, account)
	}
}

// call is guard with an end: what takes longer than Push.HookTimeout is left to itself, false is returned, and the hook is not called again for the account until it has
// returned, nor for anybody while there are maxHanging. What is not about one account has "". f must not touch what is used after that.
func (n *Node) call(h *hook, account string, f func()) bool {
	if h.barred(account) {
		return false
	}
	var ended atomic.Bool // by whoever comes first, the host or the clock
	done := make(chan bool, 1)
	go func() {
		ok := false
		defer func() {
			if !ended.CompareAndSwap(false, true) {
				h.hang(account, -1)
			}
			done <- ok
		}()
		ok = n.guard(h, f)
	}()
	t := time.NewTimer(n.hookTimeout)
	defer t.Stop()
	select {
	case ok := <-done:
		return ok
	case <-t.C:
		h.hang(account, 1)
		if !ended.CompareAndSwap(false, true) { // it has just returned
			h.hang(account, -1)
			return <-done
		}
		h.overruns.Add(1)
		return false
	}
}
