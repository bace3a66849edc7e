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

// accountPage is one account: its messages, or all events, its devices and its sessions.
type accountPage struct {
	page
	JID      string        `json:"jid"`
	Reach    time.Time     `json:"history_since,omitzero"`
	Whole    bool          `json:"history_whole"`
	First    sentence      `json:"summary"`
	Mood     string        `json:"-"`
	Messages []messageView `json:"messages,omitempty"`
	Entries  []entry       `json:"events,omitempty"`
	Devices  []deviceView  `json:"devices"`
	Sessions []sessionView `json:"sessions"`
	Older    string        `json:"older,omitempty"`
	Filter   filter        `json:"-"`
	Total    int           `json:"-"`
	Silent   int           `json:"silent_hidden,omitempty"`
	Newest   string        `json:"-"`
	Ticket   string        `json:"-"`
	Download string        `json:"-"`
	Did      string        `json:"-"`
	Other    string        `json:"-"` // the other view
	ShowAll  string        `json:"-"`
	// Unavailable: the registrations could not be read.
	Unavailable bool `json:"unavailable,omitempty"`
}

// messageView is a row: a message, call or wake-up.
type messageView struct {
	Key     string     `json:"-"`
	At      time.Time  `json:"at"`
	ID      string     `json:"id,omitempty"`
	From    string     `json:"from,omitempty"`
	Kind    string     `json:"kind"`
	Class   string     `json:"class"`
	Silent  bool       `json:"silent,omitempty"`
	Trouble bool       `json:"trouble"`
	Marks   []markView `json:"devices"`
	Story   string     `json:"story"`
}

type markView struct {
	Device
	Mark Mark   `json:"mark"`
	Mood string `json:"-"`
	Text string `json:"text"`
}

// filter is what of a timeline is shown.
type filter struct {
	Device   string
	Only     string // "", "untold", "trouble", "silent"
	Events   bool   // events instead of messages
	From, To string
	zone     *time.Location
	before   uint64
	Set      bool
}

const (
	formTime = "2006-01-02T15:04:05"
	// pageEntries is how many entries a page has.
	pageEntries = 50
)

func filterOf(q url.Values) filter {
	f := filter{Device: q.Get("device"), Only: q.Get("only"), From: q.Get("from"), To: q.Get("to"), Events: q.Get("view") == "events", zone: zoneOf(q.Get("tz"))}
	if f.Only == "no" { // as it was called once
		f.Only = "untold"
	}
	f.before, _ = strconv.ParseUint(q.Get("before"), 10, 64)
	f.Set = f.Device != "" || f.Only != "" || f.From != "" || f.To != ""
	return f
}

// zoneOf reads a time zone as the script gives it: its name, or minutes east of UTC.
func zoneOf(s string) *time.Location {
	if s == "" || len(s) > 64 {
		return time.UTC
	}
	if m, err := strconv.Atoi(s); err == nil && m > -24*60 && m < 24*60 {
		return time.FixedZone("", m*60)
	}
	if z, err := time.LoadLocation(s); err == nil && s != "Local" {
		return z
	}
	return time.UTC
}

// within tells whether a time is between the filter's.
func (f *filter) within(at time.Time) bool {
	from, _ := time.ParseInLocation(formTime, full(f.From), f.zone)
	to, _ := time.ParseInLocation(formTime, full(f.To), f.zone)
	return (from.IsZero() || !at.Before(from)) && (to.IsZero() || at.Before(to.Add(time.Second)))
}

// full adds the seconds that browsers leave out when they are zero.
func full(s string) string {
	if len(s) == len("2006-01-02T15:04") {
		return s + ":00"
	}
	return s
}

func (p *Handler) account(w http.ResponseWriter, r *http.Request, operator string) {
	q := r.URL.Query()
	asked := strings.TrimSpace(q.Get("jid"))
	if asked == "" {
		p.redirect(w, "./")
		return
	}
	name, ok := p.resolve(asked)
	if !ok {
		p.fail(w, r, http.StatusNotFound, operator, "No account is known under that name any more.", nil)
		return
	}
	if spelt := p.shown(name); spelt != asked { // another spelling, a resource, or a JID where pseudonyms are shown, which is not to stay in the address
		p.names.remember(name)
		q.Set("jid", spelt)
		p.redirect(w, "account?"+q.Encode())
		return
	}
	h := p.cfg.History
	var known about
	var lines []line
	if h != nil {
		known = h.about(name)
		if p.unchanged(w, r, known.last) {
			return
		}
		lines = h.of(name)
	}
	st, err := p.cfg.Engine.Inspect(r.Context(), name)
	if err == nil && len(st.Registrations)+len(st.Sessions)+len(lines) == 0 {
		p.fail(w, r, http.StatusNotFound, operator, "Nothing is known of "+visible(p.shown(name))+": it has no device, no connection, and nothing happened lately.", p.near(name))
		return
	}
	jid := p.shown(name)
	ns := namesOf(&st, &known)
	v := accountPage{page: p.page(visible(jid), "account", operator), JID: jid, Unavailable: err != nil, Whole: !known.evicted}
	v.Live = true
	switch q.Get("did") {
	case "ping":
		v.Did = "The device is being woken. What becomes of it is below."
	case "disable":
		v.Did = "The device was switched off. Its app can switch notifications on again."
	}
	if len(lines) > 0 {
		v.Reach = lines[0].at()
	}
	v.Devices = p.devices(&st, lines, &known, ns)
	v.Sessions = p.sessions(&st, &known, ns, jid)
	f := filterOf(q)
	v.Filter, v.Total = f, len(lines)
	if f.Events {
		var more bool
		v.Entries, more = p.timeline(name, lines, ns).newest(&f, pageEntries)
		if more && len(v.Entries) > 0 {
			v.Older = "account?" + with(q, "before", strconv.FormatUint(v.Entries[len(v.Entries)-1].Seq, 10)).Encode()
		}
		v.Other = "account?" + without(q, "view", "before", "did").Encode()
	} else {
		p.messages(&v, q, name, lines, ns)
		v.Other = "account?" + with(without(q, "before", "did"), "view", "events").Encode()
	}
	if f.before > 0 {
		v.Newest = "account?" + without(q, "before", "did").Encode()
	}
	t := without(q, "before", "did", "tz")
	if t.Get("to") == "" {
		t.Set("to", v.Now.UTC().Add(time.Second).Format(formTime))
	} else if !f.within(time.Time{}) { // the viewer's zone does not travel
		for _, k := range []string{"from", "to"} {
			if at, err := time.ParseInLocation(formTime, full(t.Get(k)), f.zone); err == nil {
				t.Set(k, at.UTC().Format(formTime))
			}
		}
	}
	v.Ticket = "account?" + t.Encode()
	if !p.cfg.Pseudonyms && len(lines) > 0 {
		v.Download = to("trace", "jid", jid)
	}
	p.render(w, r, http.StatusOK, "account", &v)
}

// messages fills in the rows of a page, newest first.
func (p *Handler) messages(v *accountPage, q url.Values, name string, lines []line, ns *names) {
	f := &v.Filter
	all := messagesOf(lines)
	p.summary(v, all, name, lines, ns)
	for i := len(all) - 1; i >= 0; i-- {
		m := all[i]
		if f.before > 0 && m.number >= f.before || !f.within(m.at) {
			continue
		}
		if m.silent && f.Only != "silent" && f.Only != "trouble" && f.Only != "untold" {
			v.Silent++
			continue
		}
		row := p.row(m, v.JID, ns)
		if !f.lets(m, &row) {
			continue
		}
		if len(v.Messages) == pageEntries {
			v.Older = "account?" + with(without(q, "did"), "before", strconv.FormatUint(v.Messages[len(v.Messages)-1].number(), 10)).Encode()
			break
		}
		v.Messages = append(v.Messages, row)
	}
	if v.Silent > 0 {
		v.ShowAll = "account?" + with(without(q, "did", "before"), "only", "silent").Encode()
	}
}

func (m *messageView) number() uint64 {
	n, _ := strconv.ParseUint(strings.TrimPrefix(m.Key, "m"), 10, 64)
	return n
}

// lets tells whether the filter lets a message through.
func (f *filter) lets(m *message, row *messageView) bool {
	if f.Device != "" && !slices.ContainsFunc(row.Marks, func(k markView) bool { return k.Key() == f.Device }) {
		return false
	}
	of := func(is func(markView) bool) bool {
		return slices.ContainsFunc(row.Marks, func(k markView) bool { return (f.Device == "" || k.Key() == f.Device) && is(k) })
	}
	switch f.Only {
	case "untold": // some device that should have been was not told by any of its events
		return of(func(k markView) bool { return k.Mark.trouble() })
	case "trouble":
		return of(func(k markView) bool { return k.Mark.trouble() }) || slices.ContainsFunc(m.fates, func(x fate) bool {
			return (f.Device == "" || x.key.Service+" "+x.key.Node == f.Device) && x.sent != nil && (x.sent.try > 1 || x.sent.done && x.sent.outcome != push.OutcomeAccepted)
		})
	}
	return true
}

// row is a message as a row.
func (p *Handler) row(m *message, jid string, ns *names) messageView {
	v := messageView{
		Key: "m" + strconv.FormatUint(m.number, 10), At: m.at, ID: p.shownID(m.id), From: p.shown(m.from), Kind: m.kind, Class: m.stanza.Class.String(), Silent: m.silent,
	}
	if m.id != "" {
		v.Story = to("story", "jid", jid, "stanza", v.ID)
	} else {
		v.Story = to("story", "jid", jid, "event", strconv.FormatUint(m.number, 10))
	}
	for i := range m.fates {
		f := &m.fates[i]
		d := ns.device(f.key)
		t := f.answer(d.Name)
		if t.mark == MarkUnaware && len(m.fates) > 1 {
			continue
		}
		v.Marks = append(v.Marks, markView{d, t.mark, t.mark.mood(), t.text.String()})
		v.Trouble = v.Trouble || t.mark.trouble()
	}
	if len(m.fates) == 0 && m.nobody != push.ReasonNone {
		w := wordOf(m.nobody)
		v.Marks = append(v.Marks, markView{Device{}, w.mark, w.mark.mood(), w.text})
		v.Trouble = w.mark.trouble()
	}
	return v
}

// summary is the first thing to read: how it stands with the account, and its last message that went wrong.
func (p *Handler) summary(v *accountPage, all []*message, name string, lines []line, ns *names) {
	s, mood := sentence{}, "good"
	on := 0
	for i := range v.Devices {
		switch d := &v.Devices[i]; {
		case d.Gone:
		case d.Disabled:
			s.name(d.Name)
			s.say(" gets no notifications: its push service would not take them. ")
			mood = "bad"
		case d.State == "failing":
			s.say("Notifications for ")
			s.name(d.Name)
			s.say(" fail at present. ")
			if mood == "good" {
				mood = "wait"
			}
			on++
		default:
			on++
		}
	}
	switch {
	case v.Unavailable:
	case on == 0 && len(s) == 0:
		s.say("No device has notifications switched on. ")
		mood = "bad"
	case len(s) == 0 && on == 1:
		s.say("Notifications are on for its device. ")
	case len(s) == 0:
		s.say("Notifications are on for " + plural(on, "device") + ". ")
	}
	for i := len(all) - 1; i >= 0 && i >= len(all)-200; i-- {
		m := all[i]
		if m.silent || !m.trouble() {
			continue
		}
		s.say("Last in trouble: the " + m.kind + " of ")
		s.when(m.at)
		s.say(". ")
		for j := range m.fates {
			if t := m.fates[j].answer(ns.of(m.fates[j].key)); t.mark.trouble() {
				s = append(s, t.text...)
				break
			}
		}
		if len(m.fates) == 0 {
			s = append(s, m.nobodyAnswer(p.shown(name), lines, ns.of).text...)
		}
		break
	}
	v.First, v.Mood = s, mood
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

func with(q url.Values, name, value string) url.Values {
	c := without(q, name)
	c.Set(name, value)
	return c
}

// to is an address within the pages.
func to(page string, query ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	return page + "?" + q.Encode()
}

// apply leaves the entries of a timeline that the filter lets through.
func (f *filter) apply(entries []entry) []entry {
	return slices.DeleteFunc(entries, func(e entry) bool {
		if !f.within(e.At) {
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
		if f.Only != "trouble" && f.Only != "untold" {
			return false
		}
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
	})
}

// Zone is the name of the zone that From and To are in, for the script.
func (f filter) Zone() string {
	if f.zone == nil || f.zone == time.UTC {
		return "UTC"
	}
	return f.zone.String()
}
