package jetstream

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// hooks are the host's functions that a Node calls, in the order of their names in Status.
type hooks struct {
	vetoStanza, vetoPublish, unread, publish, resume, observer hook
}

func (hs *hooks) all() []*hook {
	return []*hook{&hs.vetoStanza, &hs.vetoPublish, &hs.unread, &hs.publish, &hs.resume, &hs.observer}
}

var hookNames = [...]string{"Vetoer.VetoStanza", "Vetoer.VetoPublish", "UnreadCounter.Unread", "Publisher.Publish", "Resumption.ResumeTimeout", "Observer"}

// hook counts what goes wrong with one of them.
type hook struct {
	panics, overruns, skipped atomic.Int64
	hanging                   atomic.Int32
	logged                    atomic.Bool
}

// HookStatus counts what went wrong with one function of the host's.
type HookStatus struct {
	// Hook is its name, such as "Vetoer.VetoStanza".
	Hook string
	// Panics were recovered, Overruns took longer than Push.HookTimeout and were left to themselves, Skipped were not made because of those that have not
	// returned, whose number is Hanging.
	Panics, Overruns, Skipped int64
	Hanging                   int
}

func (hs *hooks) status() (list []HookStatus) {
	for i, h := range hs.all() {
		st := HookStatus{hookNames[i], h.panics.Load(), h.overruns.Load(), h.skipped.Load(), int(h.hanging.Load())}
		if st != (HookStatus{Hook: hookNames[i]}) {
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

// call is guard with an end: what takes longer than Push.HookTimeout is left to itself, false is returned, and the hook is not called again until it has returned.
// f must not touch what is used after that.
func (n *Node) call(h *hook, f func()) bool {
	if h.hanging.Load() > 0 {
		h.skipped.Add(1)
		return false
	}
	var ended atomic.Bool // by whoever comes first, the host or the clock
	done := make(chan bool, 1)
	go func() {
		ok := false
		defer func() {
			if !ended.CompareAndSwap(false, true) {
				h.hanging.Add(-1)
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
		h.hanging.Add(1)
		if !ended.CompareAndSwap(false, true) { // it has just returned
			h.hanging.Add(-1)
			return <-done
		}
		h.overruns.Add(1)
		return false
	}
}
