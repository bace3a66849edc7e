package pushhttp

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// overviewPage is the first page: what is wrong, rates, services, problems.
type overviewPage struct {
	page
	First     sentence      `json:"summary"`
	Mood      string        `json:"-"`
	Reach     Reach         `json:"history"`
	Figures   []figure      `json:"figures"`
	Decisions chart         `json:"decisions"`
	Publishes chart         `json:"replies"`
	Services  []serviceView `json:"services"`
	Hidden    int           `json:"services_more,omitempty"`
	Reasons   []reasonView  `json:"reasons"`
	Problems  []problemView `json:"problems"`
	Accounts  []accountRow  `json:"accounts"`
	Off       int           `json:"devices_given_up"`
	Hooks     []hookView    `json:"hooks,omitempty"`
	Misuses   []misuseView  `json:"misuses,omitempty"`
}

// hookView is a function of the host's own with which something went wrong.
// misuseView leaves out what was said the last time, which names accounts.
type misuseView struct {
	Kind  string `json:"kind"`
	Times uint64 `json:"times"`
}

type hookView struct {
	Hook     string `json:"hook"`
	Panics   uint64 `json:"panics"`
	Overruns uint64 `json:"overruns"`
	Skipped  uint64 `json:"skipped"`
	Hanging  int    `json:"hanging"`
}

type figure struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Unit  string `json:"unit,omitempty"`
	Mood  string `json:"-"`
	Note  string `json:"note,omitempty"`
}

type reasonView struct {
	Rule   string `json:"rule"`
	Token  string `json:"reason"`
	Reason string `json:"text"`
	Notify bool   `json:"notify"`
	Times  uint64 `json:"times"`
	Part   string `json:"-"` // of all, in per cent
}

type problemView struct {
	Problem
	Link  string `json:"-"`
	Shown string `json:"account"`
}

type link struct {
	Text string `json:"text"`
	To   string `json:"to"`
}

// maxRows bounds the rows of tables that have no pages.
const maxRows = 50

func (p *Handler) overview(w http.ResponseWriter, r *http.Request, operator string) {
	v := overviewPage{page: p.page("Overview", "overview", operator)}
	v.Live = true
	v.Services = p.serviceViews(v.Now)
	services := p.cfg.Engine.Services()
	if h := p.cfg.History; h != nil {
		v.Reach = h.Reach()
		h.mu.Lock()
		slots := h.tally.recent(v.Now)
		v.Figures = figures(slots, v.Services, services)
		v.Decisions = decisionsChart(slots)
		v.Publishes = publishesChart(slots)
		v.Off = len(h.off)
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
					v.Reasons = append(v.Reasons, reasonView{push.Rule(rule).String(), reason.String(), reason.Sentence(), reason.Notifies(), n, percent(n, all)})
				}
			}
		}
		for _, pr := range slices.Backward(h.tally.problems) {
			v.Problems = append(v.Problems, problemView{pr, to("account", "jid", p.shown(pr.Account)), p.shown(pr.Account)})
		}
		h.mu.Unlock()
		slices.SortFunc(v.Reasons, func(a, b reasonView) int {
			if a.Times != b.Times {
				if a.Times > b.Times {
					return -1
				}
				return 1
			}
			return strings.Compare(a.Token+a.Rule, b.Token+b.Rule)
		})
		rows := p.accountRows(&listPage{}, nil, func(...string) bool { return true })
		v.Accounts = rows[:min(len(rows), 10)]
	}
	if h, ok := p.cfg.Engine.(interface{ Hooks() []push.HookStatus }); ok {
		for _, s := range h.Hooks() {
			v.Hooks = append(v.Hooks, hookView{s.Hook, s.Panics, s.Overruns, s.Skipped, s.Hanging})
		}
	}
	if m, ok := p.cfg.Engine.(interface{ Misuses() []push.MisuseStatus }); ok {
		for _, s := range m.Misuses() {
			v.Misuses = append(v.Misuses, misuseView{s.Kind, s.Times})
		}
	}
	p.standing(&v)
	if len(v.Services) > 10 {
		v.Hidden = len(v.Services) - 10
		v.Services = v.Services[:10]
	}
	v.Problems = v.Problems[:min(len(v.Problems), 12)]
	v.Reasons = v.Reasons[:min(len(v.Reasons), 20)]
	p.render(w, r, http.StatusOK, "overview", &v)
}

// standing is the first thing to read: whether anything is wrong.
func (p *Handler) standing(v *overviewPage) {
	v.Mood = "good"
	bad := 0
	for i := range v.Services {
		if s := &v.Services[i]; s.Mood == "bad" && bad < 3 {
			if bad > 0 {
				v.First.say(" ")
			}
			bad++
			v.First.name(s.Service)
			if s.State == "refuses everything" {
				v.First.say(" refuses everything.")
			} else {
				v.First.say(" does not answer: " + plural(s.Waiting+s.InFlight, "device") + " wait.")
			}
			v.Mood = "bad"
		}
	}
	for _, h := range v.Hooks {
		if h.Hanging > 0 {
			v.First.say(" The server's own " + h.Hook + " hangs: " + plural(h.Hanging, "call") + " did not return. ")
			v.Mood = "bad"
		}
	}
	var cluster sentence
	if c := p.cfg.Cluster; c != nil {
		st := c.Status()
		var mood string
		if cluster, mood = clusterTrouble(&st); mood == "bad" {
			if len(v.First) > 0 {
				v.First.say(" ")
			}
			v.First = append(v.First, cluster...)
			v.Mood = mood
		}
	}
	if bad == 0 {
		wait := slices.ContainsFunc(v.Services, func(s serviceView) bool { return s.Mood == "wait" })
		switch {
		case v.Mood == "bad":
		case wait:
			v.Mood = "wait"
			v.First.say("Notifications go out; at least one push service is slow or answers with errors.")
		case len(v.Services) == 0:
			v.Mood = ""
			v.First.say("Nothing was sent yet.")
		default:
			v.First.say("All is well: the push services answer.")
		}
	}
}

func percent(n, all uint64) string {
	switch {
	case all == 0 || n == 0:
		return "0\u00a0%"
	case n*100 < all:
		return "under 1\u00a0%"
	}
	return strconv.FormatUint(n*100/all, 10) + "\u00a0%"
}

// figures are the sums of the last minute.
func figures(slots []slot, views []serviceView, services []push.ServiceStatus) []figure {
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
	}
	var sent, answered, waiting, silent uint32
	for _, n := range s.classes {
		sent += n
	}
	for _, n := range s.outcomes {
		answered += n
	}
	for _, v := range services {
		waiting += uint32(v.InFlight + v.Waiting)
	}
	for _, v := range views {
		if v.State == "does not answer" {
			silent++
		}
	}
	per := func(n uint32) string { return rate(float64(n) / 60) }
	failed := answered - s.outcomes[push.OutcomeAccepted] - s.outcomes[push.OutcomeDropped]
	fs := []figure{
		{"events", per(s.events), "/s", "", "in the last minute"},
		{"decided to notify", per(s.yes), "/s", "", "of " + per(s.yes+s.no) + " decisions a second"},
		{"sent", per(sent), "/s", "", plural(int(s.classes[push.ClassUrgent]), "call") + " in the last minute"},
		{"not accepted", percent(uint64(failed), uint64(answered)), "", "", "of " + plural2(int(answered), "reply", "replies") + " in the last minute"},
		{"due or in flight", strconv.Itoa(int(waiting)), "", "", "now; what waits for its next try is on its service's page"},
		{"services that do not answer", strconv.Itoa(int(silent)), "", "", "now"},
	}
	if failed*10 > answered {
		fs[3].Mood = "bad"
	}
	if silent > 0 {
		fs[5].Mood = "bad"
	}
	return fs
}

func plural2(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + more
}
