package pushhttp

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// serviceView is a push service as it stands: all its figures are of the last 15 minutes.
type serviceView struct {
	Service string `json:"service"`
	// State is "answers", "busy", "errors lately", "refuses everything", "does not answer", "did not answer", "not used lately", "not used yet".
	State    string    `json:"state"`
	Mood     string    `json:"-"`
	InFlight int       `json:"in_flight"`
	Waiting  int       `json:"waiting"`
	Accepted uint32    `json:"accepted"`
	Failed   uint32    `json:"failed"`
	Part     string    `json:"-"`
	P50      string    `json:"p50"`
	P99      string    `json:"p99"`
	Last     string    `json:"last_error,omitempty"`
	LastAt   time.Time `json:"last_error_at,omitzero"`
	Used     time.Time `json:"used_at,omitzero"`
	Known    bool      `json:"-"` // there are figures
	Link     string    `json:"-"`
}

// recently is how long something has to do with the present state of a service.
const recently = window * time.Minute

func serviceOf(st push.ServiceStatus, s *service, now time.Time) serviceView {
	v := serviceView{Service: st.Service, InFlight: st.InFlight, Waiting: st.Waiting, Mood: "", State: "not used yet", P50: "–", P99: "–", Part: "–", Link: to("service", "name", st.Service)}
	var sum minute
	if s != nil {
		v.Known = true
		sum = s.sum(now, window)
		v.Used, v.Accepted, v.Failed = fromNanos(s.used), sum.outcomes[push.OutcomeAccepted], sum.failed()
		v.Part = percent(uint64(v.Failed), uint64(v.Accepted+v.Failed))
		v.P50, v.P99 = between(sum.took.quantile(.5)), between(sum.took.quantile(.99))
		v.Last, v.LastAt = s.error, fromNanos(s.errorAt)
	}
	all := v.Accepted + v.Failed
	late := !v.Used.IsZero() && now.Sub(v.Used) < recently
	switch {
	case st.Broken && (late || st.Waiting+st.InFlight > 0):
		v.Mood, v.State = "bad", "does not answer"
	case st.Broken:
		v.Mood, v.State = "wait", "did not answer"
	case all >= 3 && v.Accepted == 0:
		v.Mood, v.State = "bad", "refuses everything"
	case v.Failed > 0 && v.Failed*5 >= all:
		v.Mood, v.State = "wait", "errors lately"
	case st.Waiting > 0:
		v.Mood, v.State = "wait", "busy"
	case all > 0:
		v.Mood, v.State = "good", "answers"
	case v.Known:
		v.State = "not used lately"
	case st.InFlight > 0:
		v.Mood, v.State = "wait", "busy"
	}
	return v
}

// serviceViews are all push services, those in trouble first.
func (p *Handler) serviceViews(now time.Time) []serviceView {
	var vs []serviceView
	services := p.cfg.Engine.Services()
	if h := p.cfg.History; h != nil {
		known := make(map[string]bool)
		h.mu.Lock()
		for _, s := range services {
			known[s.Service] = true
			vs = append(vs, serviceOf(s, h.tally.services[s.Service], now))
		}
		for name, s := range h.tally.services {
			if !known[name] {
				vs = append(vs, serviceOf(push.ServiceStatus{Service: name}, s, now))
			}
		}
		h.mu.Unlock()
	} else {
		for _, s := range services {
			vs = append(vs, serviceOf(s, nil, now))
		}
	}
	slices.SortStableFunc(vs, func(a, b serviceView) int {
		if x, y := weight(a), weight(b); x != y {
			return y - x
		}
		return strings.Compare(a.Service, b.Service)
	})
	return vs
}

func weight(s serviceView) int {
	switch s.Mood {
	case "bad":
		return 3
	case "wait":
		return 2
	case "good":
		return 1
	}
	return 0
}

// servicePage is one push service.
type servicePage struct {
	page
	Service serviceView     `json:"service"`
	First   sentence        `json:"summary"`
	Replies chart           `json:"replies"`
	Errors  []conditionView `json:"errors"`
	Waiting []waitingView   `json:"waiting"`
	Hidden  int             `json:"waiting_more,omitempty"`
	Devices []link          `json:"-"`
}

type conditionView struct {
	Text  string `json:"condition"`
	Times uint32 `json:"times"`
	Means string `json:"means"`
}

type waitingView struct {
	JID    string    `json:"jid"`
	Link   string    `json:"-"`
	Device string    `json:"device"`
	Since  time.Time `json:"since"`
	Tries  int       `json:"tries"`
	Next   time.Time `json:"next_try_at,omitzero"`
}

func (p *Handler) service(w http.ResponseWriter, r *http.Request, operator string) {
	name := r.URL.Query().Get("name")
	v := servicePage{page: p.page(visible(name), "service", operator)}
	v.Live = true
	found := false
	for _, s := range p.serviceViews(v.Now) {
		if s.Service == name {
			v.Service, found = s, true
		}
	}
	if !found {
		p.fail(w, r, http.StatusNotFound, operator, "No push service is known under that name: nothing was sent to it lately.", nil)
		return
	}
	v.First.name(name)
	switch v.Service.State {
	case "answers":
		v.First.say(" answers and takes what it is sent.")
	case "busy":
		v.First.say(" takes less than it is sent: " + plural(v.Service.Waiting, "device") + " wait.")
	case "errors lately":
		v.First.say(" answered " + v.Service.Part + " of what it was sent with errors, in the last 15 minutes.")
	case "refuses everything":
		v.First.say(" accepted nothing in the last 15 minutes. Look at its answers below: it may no longer know this server.")
	case "does not answer":
		v.First.say(" does not answer. One notification at a time is sent to see whether it is back; the others wait.")
	case "did not answer":
		v.First.say(" did not answer when it was asked last, at ")
		v.First.when(v.Service.Used)
		v.First.say("; nothing was sent to it since.")
	case "not used lately":
		v.First.say(" was not used in the last 15 minutes.")
	default:
		v.First.say(" was not used yet.")
	}
	if h := p.cfg.History; h != nil {
		h.mu.Lock()
		if s := h.tally.services[name]; s != nil {
			v.Replies = serviceChart(s, v.Now)
			sum := s.sum(v.Now, minuteCount)
			for _, c := range sum.conditions {
				if c.times > 0 {
					v.Errors = append(v.Errors, conditionView{c.text, c.times, meaning(c.text)})
				}
			}
		}
		h.mu.Unlock()
		slices.SortStableFunc(v.Errors, func(a, b conditionView) int { return int(b.Times) - int(a.Times) })
		v.Waiting, v.Hidden = p.waitingAt(name)
		v.Service.Waiting = max(v.Service.Waiting, len(v.Waiting)+v.Hidden-v.Service.InFlight) // those too that wait for their next try
	}
	p.render(w, r, http.StatusOK, "service", &v)
}

// meaning says what an error of a push service means to those who wait.
func meaning(text string) string {
	if text == noAnswer {
		return "Nothing came back in time; it is tried again. The push service is down, or slow, or the way to it or back is cut."
	}
	typ, condition, _ := strings.Cut(text, "/")
	if unreached(condition) {
		return "This server itself could not reach the push service; it is tried again."
	}
	return outcomeWord(push.Reply{Type: typ, Condition: condition}.Classify()).generally()
}

// generally is the sentence about no device in particular.
func (w word) generally() string {
	return strings.NewReplacer("{device}", "the device", "{detail}", "").Replace(w.text)
}

// waitingAt finds who waits for a service: those whose last notification was not accepted yet.
func (p *Handler) waitingAt(service string) (out []waitingView, hidden int) {
	h := p.cfg.History
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := make(map[deviceOfAccount]bool)
	for i, n := h.all.last, 0; i != 0 && n < 50_000; n++ {
		l := h.line(i)
		i = l.inAll.before
		if l.key.Service != service || l.kind != isPublish && l.kind != isReply && l.kind != isDrop && !(l.kind == isChange && l.change != push.ChangeUpdated) {
			continue
		}
		k := deviceOfAccount{l.account.name, l.key}
		if seen[k] {
			continue
		}
		seen[k] = true
		if l.kind != isPublish || l.done && l.retryAt == 0 {
			continue
		}
		if len(out) == maxRows {
			hidden++
			continue
		}
		name := bareName(l.key)
		for _, d := range l.account.devices {
			if d.key == l.key && (d.name != "" || d.resource != "") {
				if name = d.name; name == "" {
					name = d.resource
				}
			}
		}
		out = append(out, waitingView{p.shown(l.account.name), to("account", "jid", p.shown(l.account.name)), name, l.at(), int(l.try), l.retry()})
	}
	return out, hidden
}

// sessionPage is one connection: open, asleep, back, and what came of it.
type sessionPage struct {
	page
	JID     string       `json:"jid"`
	Account string       `json:"-"`
	ID      string       `json:"id"`
	Session *sessionView `json:"session,omitempty"`
	First   sentence     `json:"summary"`
	Steps   []stepView   `json:"steps"`
	Entries []entry      `json:"events"`
	More    int          `json:"more_events,omitempty"`
}

// stepView is a change in the life of a connection.
type stepView struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
	Mood string    `json:"-"`
}

func (p *Handler) session(w http.ResponseWriter, r *http.Request, operator string) {
	q := r.URL.Query()
	name, ok := p.resolve(q.Get("jid"))
	id := q.Get("id")
	if !ok || id == "" {
		p.fail(w, r, http.StatusNotFound, operator, "No such connection is known.", nil)
		return
	}
	jid := p.shown(name)
	v := sessionPage{page: p.page("Connection "+visible(id), "session", operator), JID: jid, Account: to("account", "jid", jid), ID: id}
	v.Live = true
	var known about
	var lines, mine []line
	if h := p.cfg.History; h != nil {
		known, lines = h.about(name), h.of(name)
	}
	st, _ := p.cfg.Engine.Inspect(r.Context(), name)
	ns := namesOf(&st, &known)
	for _, s := range p.sessions(&st, &known, ns, jid) {
		if s.ID == id {
			v.Session = &s
		}
	}
	numbers := make(map[uint64]bool)
	for i := range lines {
		l := &lines[i]
		switch {
		case l.kind == isEvent && p.shownID(l.event.Subject().ID) == id:
			numbers[l.number] = true
			if what, mood := step(l); what != "" {
				v.Steps = append(v.Steps, stepView{l.at(), what, mood})
			}
		case l.kind == isAdvice && p.shownID(l.extra) == id && l.took > 0:
			v.Steps = append(v.Steps, stepView{l.at(), "the server keeps it for up to " + span(l.took), ""})
		}
	}
	mine = related(lines, nil, numbers)
	if len(mine) == 0 && v.Session == nil {
		p.fail(w, r, http.StatusNotFound, operator, "No such connection is known of "+visible(jid)+".", nil)
		return
	}
	switch {
	case v.Session == nil:
		v.First.say("This connection has ended.")
	case v.Session.State == "asleep":
		v.First.say("The connection broke; its device can come back to it and is notified meanwhile.")
	default:
		v.First.say("Connected.")
	}
	if v.Session != nil && v.Session.Device != nil {
		v.First.say(" It is ")
		v.First.name(v.Session.Device.Name)
		v.First.say(".")
	}
	v.Entries = p.timeline(name, mine, ns).entries(mine)
	slices.Reverse(v.Entries)
	if len(v.Entries) > maxStory {
		v.More = len(v.Entries) - maxStory
		v.Entries = v.Entries[:maxStory]
	}
	p.render(w, r, http.StatusOK, "session", &v)
}

func step(l *line) (what, mood string) {
	switch e := l.event.(type) {
	case push.SessionOpen:
		return "connected", "good"
	case push.SessionRestored:
		return "known again after a restart", "good"
	case push.SessionClose:
		return "ended", ""
	case push.PushEnable:
		return "switched notifications on", "good"
	case push.PushDisable:
		return "switched notifications off", "bad"
	case push.AckDelayed:
		return "did not confirm " + plural(len(e.Stanzas), "message") + " in time", "wait"
	case push.Acknowledged:
		return "confirmed " + plural(len(e.IDs), "message"), "good"
	case push.HibernationStart:
		return "fell asleep with " + plural(len(e.Stanzas), "message") + " to confirm", "wait"
	case push.HibernationEnd:
		return "came back", "good"
	default:
		return "", ""
	}
}
