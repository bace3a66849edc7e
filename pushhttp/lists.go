package pushhttp

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// listPage is a list with search and paging: of services, accounts or devices.
type listPage struct {
	page
	Kind     string        `json:"-"`
	Query    string        `json:"query,omitempty"`
	Only     string        `json:"only,omitempty"`
	At       time.Time     `json:"around,omitzero"`
	Total    int           `json:"total"`
	From     int           `json:"from"`
	Services []serviceView `json:"services,omitempty"`
	Accounts []accountRow  `json:"accounts,omitempty"`
	Devices  []deviceRow   `json:"devices,omitempty"`
	Next     string        `json:"next,omitempty"`
	Before   string        `json:"-"`
	Note     sentence      `json:"note,omitempty"`
}

type accountRow struct {
	JID       string    `json:"jid"`
	Link      string    `json:"-"`
	Seen      time.Time `json:"seen_at"`
	Lines     int       `json:"lines"`
	Trouble   string    `json:"trouble,omitempty"`
	TroubleAt time.Time `json:"trouble_at,omitzero"`
}

type deviceRow struct {
	JID    string    `json:"jid"`
	Link   string    `json:"-"`
	Device Device    `json:"device"`
	Since  time.Time `json:"since"`
	Cause  string    `json:"cause"`
	Means  string    `json:"means"`
}

// listRows is how many rows a page has.
const listRows = 50

func (p *Handler) list(w http.ResponseWriter, r *http.Request, operator, kind string) {
	q := r.URL.Query()
	v := listPage{page: p.page(capital(kind), "list", operator), Kind: kind, Query: strings.TrimSpace(q.Get("q")), Only: q.Get("only")}
	v.Live = true
	v.From, _ = strconv.Atoi(q.Get("from"))
	v.From = max(v.From, 0)
	match := func(texts ...string) bool {
		return v.Query == "" || slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), strings.ToLower(v.Query)) })
	}
	page := func(n int) (from, end int) {
		v.Total = n
		v.From = min(v.From, max(n-1, 0)/listRows*listRows)
		end = min(v.From+listRows, n)
		if end < n {
			v.Next = kind + "?" + with(q, "from", strconv.Itoa(end)).Encode()
		}
		if v.From > 0 {
			v.Before = kind + "?" + with(q, "from", strconv.Itoa(max(v.From-listRows, 0))).Encode()
		}
		return v.From, end
	}
	switch kind {
	case "services":
		v.Title = "Push services"
		all := slices.DeleteFunc(p.serviceViews(v.Now), func(s serviceView) bool {
			return !match(s.Service) || v.Only == "trouble" && s.Mood != "bad" && s.Mood != "wait"
		})
		from, end := page(len(all))
		v.Services = all[from:end]
	case "accounts":
		v.Title = "Accounts"
		all := p.accountRows(&v, q, match)
		from, end := page(len(all))
		v.Accounts = all[from:end]
	case "devices":
		v.Title = "Devices that were given up"
		all := p.deviceRows(match)
		from, end := page(len(all))
		v.Devices = all[from:end]
		if h := p.cfg.History; h != nil {
			v.Note.say("Those that were given up while this page's history was kept")
			if reach := h.Reach(); !reach.Since.IsZero() {
				v.Note.say(", which reaches back to ")
				v.Note.when(reach.Since)
			}
			v.Note.say(", and have not switched notifications on again since.")
		}
	}
	p.render(w, r, http.StatusOK, "list", &v)
}

// accountRows are the accounts that are known: those in trouble first if only they are asked for, else those seen last.
func (p *Handler) accountRows(v *listPage, q url.Values, match func(...string) bool) (rows []accountRow) {
	h := p.cfg.History
	if h == nil {
		return nil
	}
	at, err := time.Parse(formTime, full(q.Get("at")))
	h.mu.Lock()
	defer h.mu.Unlock()
	around := make(map[*account]bool)
	if err == nil {
		v.At = at
		for i := h.all.last; i != 0; {
			l := h.line(i)
			i = l.inAll.before
			if d := l.at().Sub(at); d >= -time.Minute && d < 2*time.Minute {
				around[l.account] = true
			}
		}
	}
	for name, a := range h.accounts {
		if v.Only == "trouble" && a.trouble == 0 || err == nil && !around[a] || !match(p.shown(name), a.troubleText) || a.lines.last == 0 {
			continue
		}
		row := accountRow{JID: p.shown(name), Link: to("account", "jid", p.shown(name)), Seen: h.line(a.lines.last).at(), Lines: a.lines.n, Trouble: a.troubleText, TroubleAt: fromNanos(a.trouble)}
		if err == nil {
			row.Link = to("account", "jid", p.shown(name), "from", at.Add(-5*time.Minute).Format(formTime), "to", at.Add(10*time.Minute).Format(formTime))
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b accountRow) int {
		if v.Only == "trouble" {
			if c := b.TroubleAt.Compare(a.TroubleAt); c != 0 {
				return c
			}
		}
		return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.JID, b.JID))
	})
	return rows
}

func (p *Handler) deviceRows(match func(...string) bool) (rows []deviceRow) {
	h := p.cfg.History
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, g := range h.off {
		d := Device{k.key.Service, k.key.Node, bareName(k.key)}
		if a := h.accounts[k.account]; a != nil {
			for _, s := range a.devices {
				if s.key == k.key {
					d.Name = cmp.Or(s.name, s.resource, d.Name)
				}
			}
		}
		if !match(p.shown(k.account), k.key.Service, k.key.Node, g.cause, d.Name) {
			continue
		}
		rows = append(rows, deviceRow{p.shown(k.account), to("account", "jid", p.shown(k.account)), d, fromNanos(g.at), g.cause,
			outcomeWord(push.Reply{Type: "cancel", Condition: g.cause}.Classify()).generally()})
	}
	slices.SortFunc(rows, func(a, b deviceRow) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.JID, b.JID), cmp.Compare(a.Device.Node, b.Device.Node))
	})
	return rows
}
