package pushhttp

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// watcher is somebody who looks at a page that follows what happens.
type watcher struct {
	account string // empty: all
	wake    chan struct{}
}

// maxWatchers bounds how many pages follow at a time.
const maxWatchers = 64

var errWatchers = errors.New("too many pages follow already")

func (h *History) watch(account string) (*watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watchers) >= maxWatchers {
		return nil, errWatchers
	}
	w := &watcher{account, make(chan struct{}, 1)}
	h.watchers[w] = struct{}{}
	return w, nil
}

func (h *History) unwatch(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// tell wakes those who look at an account. h is locked.
func (h *History) tell(a *account) {
	for w := range h.watchers {
		if w.account == "" || w.account == a.name {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}
	if a.lines.n == 0 {
		delete(h.accounts, a.name)
	}
}

// The page is told at most this often that something changed, and at least this often that the server lives.
const (
	liveEvery = 400 * time.Millisecond
	liveBeat  = 15 * time.Second
	// liveOverview is how often the overview is told, whose numbers change by themselves.
	liveOverview = 2 * time.Second
)

// live sends a server-sent event whenever a page should fetch itself again. What is on the page is not sent here: there is one way to make it.
func (p *Handler) live(w http.ResponseWriter, r *http.Request) {
	account := ""
	if jid := r.FormValue("jid"); jid != "" {
		name, ok := p.resolve(jid)
		if !ok {
			http.Error(w, "No such account.", http.StatusNotFound)
			return
		}
		account = name
	}
	if p.cfg.History == nil {
		w.WriteHeader(http.StatusNoContent) // which ends an EventSource
		return
	}
	if r.Method == http.MethodHead {
		return
	}
	watcher, err := p.cfg.History.watch(account)
	if err != nil {
		http.Error(w, "Too many pages follow already.", http.StatusServiceUnavailable)
		return
	}
	defer p.cfg.History.unwatch(watcher)
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	send := func(s string) bool {
		_, err := fmt.Fprint(w, s)
		return err == nil && rc.Flush() == nil
	}
	if !send("retry: 2000\nevent: changed\ndata: \n\n") {
		return
	}
	beat := liveBeat
	if account == "" {
		beat = liveOverview
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	pause := time.NewTimer(liveEvery)
	defer pause.Stop()
	for {
		wake := watcher.wake
		if account == "" {
			wake = nil // the ticker is enough
		}
		text := ": still here\n\n"
		select {
		case <-r.Context().Done():
			return
		case <-p.closing:
			return
		case <-wake:
			text = "event: changed\ndata: \n\n"
		case <-ticker.C:
			if account == "" {
				text = "event: changed\ndata: \n\n"
			}
		}
		if !send(text) {
			return
		}
		pause.Reset(liveEvery)
		select {
		case <-r.Context().Done():
			return
		case <-pause.C:
		}
	}
}
