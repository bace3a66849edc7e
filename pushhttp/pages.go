package pushhttp

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// overviewPage is the first page: rates, services, problems.
type overviewPage struct {
	page
	Figures   []figure
	Decisions chart
	Publishes chart
	Services  []serviceView
	Hidden    int // services that are not shown
	Reasons   []reasonView
	Problems  []problemView
	Accounts  []link
}

type figure struct {
	Name, Value, Unit, Mood, Note string
}

type serviceView struct {
	push.ServiceStatus
	Mood, State  string
	Accepted     uint64
	Failed       uint64
	Failing      string
	P50, P99     string
	Last         string
	LastAt       time.Time
	Silent       bool // it was not published to lately
	HasLast, Met bool
}

type reasonView struct {
	Rule, Reason string
	Notify       bool
	Times        uint64
	Part         string // of all, in per cent
}

type problemView struct {
	Problem
	Link, Shown string
}

type link struct{ Text, To string }

// maxRows bounds the rows of the overview's tables.
const maxRows = 50

func (p *Handler) overview(w http.ResponseWriter, r *http.Request, operator string) {
	v := overviewPage{page: p.page("Push", "overview", operator)}
	services := p.cfg.Engine.Services()
	known := make(map[string]bool)
	if h := p.cfg.History; h != nil {
		v.Live = "live"
		h.mu.RLock()
		slots := h.tally.recent(v.Now)
		v.Figures = figures(slots, services)
		v.Decisions = decisionsChart(slots)
		v.Publishes = publishesChart(slots)
		var all uint64
		for _, ns := range h.tally.reasons {
			for _, n := range ns {
				all += n
			}
		}
		for rule, ns := range h.tally.reasons {
			for reason, n := range ns {
				if n > 0 {
					reason := push.Reason(reason)
					v.Reasons = append(v.Reasons, reasonView{push.Rule(rule).String(), reason.Sentence(), reason.Notifies(), n, percent(n, all)})
				}
			}
		}
		for _, pr := range slices.Backward(h.tally.problems) {
			v.Problems = append(v.Problems, problemView{pr, "account?" + url.Values{"jid": {p.shown(pr.Account)}}.Encode(), p.shown(pr.Account)})
		}
		for _, s := range services {
			known[s.Service] = true
			v.Services = append(v.Services, serviceOf(s, h.tally.services[s.Service], v.Now))
		}
		for name, s := range h.tally.services {
			if !known[name] {
				v.Services = append(v.Services, serviceOf(push.ServiceStatus{Service: name}, s, v.Now))
			}
		}
		h.mu.RUnlock()
		slices.SortFunc(v.Reasons, func(a, b reasonView) int {
			if a.Times != b.Times {
				if a.Times > b.Times {
					return -1
				}
				return 1
			}
			return strings.Compare(a.Reason+a.Rule, b.Reason+b.Rule)
		})
		for _, n := range h.names(12) {
			v.Accounts = append(v.Accounts, link{p.shown(n), "account?" + url.Values{"jid": {p.shown(n)}}.Encode()})
		}
	} else {
		for _, s := range services {
			v.Services = append(v.Services, serviceOf(s, nil, v.Now))
		}
	}
	// Those in trouble first.
	slices.SortStableFunc(v.Services, func(a, b serviceView) int {
		if x, y := trouble(a), trouble(b); x != y {
			return y - x
		}
		return strings.Compare(a.Service, b.Service)
	})
	if len(v.Services) > maxRows {
		v.Hidden = len(v.Services) - maxRows
		v.Services = v.Services[:maxRows]
	}
	v.Problems = v.Problems[:min(len(v.Problems), 20)]
	v.Reasons = v.Reasons[:min(len(v.Reasons), 20)]
	p.render(w, http.StatusOK, "overview", &v)
}

func trouble(s serviceView) int {
	switch s.Mood {
	case "bad":
		return 2
	case "wait":
		return 1
	}
	return 0
}

func serviceOf(st push.ServiceStatus, s *service, now time.Time) serviceView {
	v := serviceView{ServiceStatus: st, Mood: "good", State: "answers", P50: "–", P99: "–", Failing: "–"}
	if s != nil {
		v.Met = true
		v.Accepted = s.outcomes[push.OutcomeAccepted]
		var all uint64
		for o, n := range s.outcomes {
			if push.Outcome(o) != push.OutcomeDropped {
				all += n
			}
		}
		v.Failed = all - v.Accepted
		v.Failing = percent(v.Failed, all)
		if s.quantile(.5) > 0 {
			v.P50, v.P99 = span(s.quantile(.5)), span(s.quantile(.99))
		}
		v.Last, v.LastAt, v.HasLast = s.lastText, s.lastAt, s.lastText != ""
		if v.HasLast && now.Sub(v.LastAt) < time.Minute {
			v.Mood, v.State = "wait", "errors in the last minute"
		}
	}
	if st.Waiting > 0 && v.Mood == "good" {
		v.Mood, v.State = "wait", "busy"
	}
	if st.Broken {
		v.Mood, v.State = "bad", "does not answer, is probed"
	}
	return v
}

func percent(n, all uint64) string {
	switch {
	case all == 0 || n == 0:
		return "0 %"
	case n*100 < all:
		return "under 1 %"
	}
	return strconv.FormatUint(n*100/all, 10) + " %"
}

// figures are the sums of the last minute.
func figures(slots []slot, services []push.ServiceStatus) []figure {
	const last = int(time.Minute / slotTime)
	var s slot
	for _, o := range slots[len(slots)-last:] {
		s.events += o.events
		s.yes += o.yes
		s.no += o.no
		for i := range s.outcomes {
			s.outcomes[i] += o.outcomes[i]
		}
		for i := range s.classes {
			s.classes[i] += o.classes[i]
		}
		s.disabled += o.disabled
	}
	var sent, answered, waiting, broken uint32
	for _, n := range s.classes {
		sent += n
	}
	for _, n := range s.outcomes {
		answered += n
	}
	for _, v := range services {
		waiting += uint32(v.InFlight + v.Waiting)
		if v.Broken {
			broken++
		}
	}
	per := func(n uint32) string { return rate(float64(n) / 60) }
	failed := answered - s.outcomes[push.OutcomeAccepted] - s.outcomes[push.OutcomeDropped]
	fs := []figure{
		{"events", per(s.events), "/s", "", ""},
		{"decided to notify", per(s.yes), "/s", "", "of " + per(s.yes+s.no) + " decisions a second"},
		{"publishes", per(sent), "/s", "", strconv.Itoa(int(s.classes[push.ClassUrgent])) + " urgent in the last minute"},
		{"publishes failing", percent(uint64(failed), uint64(answered)), "", "", "of " + strconv.Itoa(int(answered)) + " in the last minute"},
		{"waiting or in flight", strconv.Itoa(int(waiting)), "", "", ""},
		{"services not answering", strconv.Itoa(int(broken)), "", "", ""},
	}
	if failed*10 > answered {
		fs[3].Mood = "bad"
	}
	if broken > 0 {
		fs[5].Mood = "bad"
	}
	return fs
}

// accountPage is one account.
type accountPage struct {
	page
	JID         string
	Known       bool
	Devices     []deviceView
	Sessions    []sessionView
	Filter      filter
	Entries     []entry
	Total       int
	Older       string
	Newest      string
	Ticket      string
	Download    string
	Did         string
	Unavailable bool
}

type deviceView struct {
	Device
	Mood, State string
	Enabled     time.Time
	Client      string
	Unread      int
	Waiting     int
	NextTry     time.Time
	InFlight    bool
	Errors      int
	Refusals    int
	Succeeded   time.Time
	Options     []string
	Disabled    bool
	History     []deviceChange
	Gone        bool
}

type deviceChange struct {
	At         time.Time
	Mood, Text string
}

type sessionView struct {
	ID, Client  string
	Device      *Device
	Mood, State string
	Long        bool
}

// filter is what of a timeline is shown.
type filter struct {
	Device   string
	Only     string // "", "no" (not notified) or "trouble"
	From, To string
	before   uint64
	Set      bool
}

const formTime = "2006-01-02T15:04:05"

// pageEntries is how many entries a page has.
const pageEntries = 60

func (p *Handler) account(w http.ResponseWriter, r *http.Request, operator string) {
	q := r.URL.Query()
	asked := strings.TrimSpace(q.Get("jid"))
	if asked == "" {
		w.Header().Set("Location", "./")
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	name, ok := p.resolve(asked)
	if !ok {
		p.fail(w, http.StatusNotFound, operator, "No account is known under that name any more.")
		return
	}
	if p.cfg.Pseudonyms && p.shown(name) != asked { // looked up by its JID, which is not to stay in the address
		p.names.remember(name)
		q.Set("jid", p.shown(name))
		w.Header().Set("Location", "account?"+q.Encode())
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	jid := p.shown(name)
	v := accountPage{page: p.page(jid, "account", operator), JID: jid}
	switch q.Get("did") {
	case "ping":
		v.Did = "The device is being pinged. What becomes of it is in the timeline."
	case "disable":
		v.Did = "The registration was removed. The client can enable it again."
	}
	st, err := p.cfg.Engine.Inspect(r.Context(), name)
	if err != nil {
		v.Unavailable = true
	}
	var lines []line
	if p.cfg.History != nil {
		lines = p.cfg.History.of(name)
	}
	v.Known = len(st.Registrations)+len(st.Sessions)+len(lines) > 0
	v.Devices = p.devices(&st, lines)
	for _, s := range st.Sessions {
		sv := sessionView{ID: p.shownID(s.ID), Client: p.shownID(s.Client), Mood: "good", State: "connected", Long: s.Extended}
		if s.Hibernated {
			sv.Mood, sv.State = "wait", "hibernated: connection lost, can be resumed"
		}
		if s.IsBound {
			d := deviceOf(s.Bound)
			sv.Device = &d
		}
		v.Sessions = append(v.Sessions, sv)
	}
	f := filter{Device: q.Get("device"), Only: q.Get("only"), From: q.Get("from"), To: q.Get("to")}
	f.before, _ = strconv.ParseUint(q.Get("before"), 10, 64)
	f.Set = f.Device != "" || f.Only != "" || f.From != "" || f.To != ""
	v.Filter = f
	v.Total = len(lines)
	var more bool
	v.Entries, more = p.timeline(name, lines).newest(&f, pageEntries)
	if f.before > 0 {
		v.Newest = "account?" + without(q, "before", "did").Encode()
	} else if p.cfg.History != nil && f.To == "" {
		v.Live = "live?" + url.Values{"jid": {jid}}.Encode()
	}
	if more && len(v.Entries) > 0 {
		older := without(q, "did")
		older.Set("before", strconv.FormatUint(v.Entries[len(v.Entries)-1].Seq, 10))
		v.Older = "account?" + older.Encode()
	}
	t := without(q, "before", "did")
	if t.Get("to") == "" {
		t.Set("to", v.Now.UTC().Add(time.Second).Format(formTime))
	}
	v.Ticket = "account?" + t.Encode()
	if !p.cfg.Pseudonyms && len(lines) > 0 {
		v.Download = "trace?" + url.Values{"jid": {jid}}.Encode()
	}
	p.render(w, http.StatusOK, "account", &v)
}

func without(q url.Values, names ...string) url.Values {
	c := url.Values{}
	for k, v := range q {
		if !slices.Contains(names, k) && len(v) > 0 && v[0] != "" {
			c.Set(k, v[0])
		}
	}
	return c
}

// apply leaves the entries that the filter lets through.
func (f *filter) apply(entries []entry) []entry {
	from, _ := time.Parse(formTime, f.full(f.From))
	to, _ := time.Parse(formTime, f.full(f.To))
	return slices.DeleteFunc(entries, func(e entry) bool {
		if !from.IsZero() && e.At.Before(from) || !to.IsZero() && !e.At.Before(to.Add(time.Second)) {
			return true
		}
		if f.Device != "" {
			mine := e.Publish != nil && e.Publish.Key() == f.Device
			for _, v := range e.Verdicts {
				mine = mine || v.Key() == f.Device
			}
			if !mine {
				return true
			}
		}
		switch f.Only {
		case "no":
			if e.Kind != "event" || len(e.Verdicts) == 0 && e.Reason == "" {
				return true
			}
			if f.Device != "" {
				return slices.ContainsFunc(e.Verdicts, func(v verdictView) bool { return v.Notify && v.Key() == f.Device })
			}
			return !slices.ContainsFunc(e.Verdicts, func(v verdictView) bool { return !v.Notify }) && e.Reason == ""
		case "trouble":
			bad := e.Publish != nil && e.Publish.Done && e.Publish.Mood != "good"
			for _, n := range e.Notes {
				bad = bad || n.Mood == "bad"
			}
			for _, v := range e.Verdicts {
				for _, t := range v.Then {
					bad = bad || t.Mood == "bad"
				}
			}
			return !bad
		}
		return false
	})
}

// full adds the seconds that browsers leave out when they are zero.
func (*filter) full(s string) string {
	if len(s) == len("2006-01-02T15:04") {
		return s + ":00"
	}
	return s
}

// devices are the registrations, and those that were there in the time of the history.
func (p *Handler) devices(st *push.AccountStatus, lines []line) []deviceView {
	var ds []deviceView
	find := func(k push.Key) *deviceView {
		for i := range ds {
			if ds[i].Device == deviceOf(k) {
				return &ds[i]
			}
		}
		return nil
	}
	for i := range st.Registrations {
		r := &st.Registrations[i]
		d := deviceView{
			Device: deviceOf(r.Key), Enabled: r.Enabled, Client: p.shownID(r.Client), Unread: r.Unread, Waiting: r.Waiting, NextTry: r.NextTry, InFlight: r.InFlight,
			Errors: r.Health.Errors, Refusals: r.Health.Refusals, Succeeded: r.Health.Succeeded, Mood: "good", State: "enabled",
		}
		for _, f := range r.Options {
			d.Options = append(d.Options, cut(f.Var))
		}
		switch {
		case !r.Health.Disabled.IsZero():
			d.Mood, d.State, d.Disabled = "bad", "disabled since "+stamp(r.Health.Disabled)+": "+r.Health.Cause, true
		case r.Health.Errors+r.Health.Refusals > 0:
			d.Mood, d.State = "wait", "enabled; last publishes failed"
		case r.Health.Succeeded.IsZero():
			d.Mood, d.State = "wait", "enabled; no publish has succeeded yet"
		}
		ds = append(ds, d)
	}
	for i := range lines {
		l := &lines[i]
		if l.kind != isChange {
			continue
		}
		d := find(l.key)
		if d == nil {
			if len(ds) >= maxRows {
				continue
			}
			ds = append(ds, deviceView{Device: deviceOf(l.key), State: "gone", Gone: true})
			d = &ds[len(ds)-1]
		}
		n := p.noteOf(l)
		c := deviceChange{At: l.at(), Mood: n.Mood, Text: l.extra + ": " + l.reason.Sentence()}
		if l.text != "" {
			c.Text += " (" + l.text + ")"
		}
		if d.History = append(d.History, c); len(d.History) > 6 {
			d.History = d.History[1:]
		}
	}
	return ds
}

// storyPage is all that belongs to one stanza, event or publish.
type storyPage struct {
	page
	JID, Account string
	About        string
	Answers      []answer
	Entries      []entry
	Stanza       *stanzaView
}

// maxStory bounds the entries of a story.
const maxStory = 100

func (p *Handler) story(w http.ResponseWriter, r *http.Request, operator string) {
	q := r.URL.Query()
	name, ok := p.resolve(q.Get("jid"))
	if !ok || p.cfg.History == nil {
		p.fail(w, http.StatusNotFound, operator, "No account is known under that name any more.")
		return
	}
	lines := p.cfg.History.of(name)
	jid := p.shown(name)
	v := storyPage{page: p.page("Story", "story", operator), JID: jid, Account: "account?" + url.Values{"jid": {jid}}.Encode()}
	ids, numbers := make(map[string]bool), make(map[uint64]bool)
	switch {
	case q.Get("stanza") != "":
		id := q.Get("stanza")
		v.About = "stanza " + id
		for i := range lines {
			if l := &lines[i]; l.kind == isEvent {
				for _, st := range stanzas(l.event) {
					if p.shownID(st.ID) == id {
						ids[st.ID] = true
					}
				}
			}
		}
	case q.Get("event") != "":
		n, _ := strconv.ParseUint(q.Get("event"), 10, 64)
		numbers[n] = true
		v.About = "event " + q.Get("event")
		for i := range lines {
			if l := &lines[i]; l.kind == isEvent && l.number == n {
				v.About = l.event.Name() + " " + q.Get("event")
				for _, st := range stanzas(l.event) {
					if st.ID != "" {
						ids[st.ID] = true
					}
				}
			}
		}
	case q.Get("publish") != "":
		seq, _ := strconv.ParseUint(q.Get("publish"), 10, 64)
		v.About = "publish"
		for i := range lines {
			if l := &lines[i]; l.seq == seq {
				for _, n := range l.events {
					numbers[n] = true
				}
			}
		}
	}
	picked := related(lines, ids, numbers)
	if len(picked) == 0 {
		p.fail(w, http.StatusNotFound, operator, "That is not in the history, or not any more.")
		return
	}
	for i := range picked {
		if l := &picked[i]; l.kind == isEvent && v.Stanza == nil && len(ids) == 1 {
			for _, st := range stanzas(l.event) {
				if ids[st.ID] {
					v.Stanza = &stanzaView{ID: p.shownID(st.ID), From: p.shown(st.From), Class: st.Class.String()}
				}
			}
		}
	}
	v.Answers = answers(picked, ids)
	v.Entries = p.timeline(name, picked).entries(picked)
	if len(v.Entries) > maxStory {
		v.Entries = v.Entries[:maxStory]
	}
	v.Title = "Story of " + v.About
	v.Live = "live?" + url.Values{"jid": {jid}}.Encode()
	p.render(w, http.StatusOK, "story", &v)
}
