package pushhttp

import (
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// names says what an account's devices are called.
type names struct{ by map[push.Key]string }

// of is a device's name.
func (n *names) of(k push.Key) string {
	if n != nil {
		if name := n.by[k]; name != "" {
			return name
		}
	}
	return bareName(k)
}

func (n *names) device(k push.Key) Device { return Device{k.Service, k.Node, n.of(k)} }

// bareName is what a device is called of which nothing is known but its key.
func bareName(k push.Key) string {
	if k.Node == "" {
		return "device at " + k.Service
	}
	return short(k.Node, 24)
}

// namesOf finds names: what the device calls itself, else its resource, else its node. Two with the same get their nodes too.
func namesOf(st *push.AccountStatus, about *about) *names {
	n := &names{make(map[push.Key]string)}
	for _, d := range about.devices {
		n.by[d.key] = d.name
		if d.name == "" {
			n.by[d.key] = d.resource
		}
	}
	for i := range st.Registrations {
		if r := &st.Registrations[i]; r.Wishes != nil && r.Wishes.Name != "" {
			n.by[r.Key] = cut(r.Wishes.Name)
		}
	}
	times := make(map[string]int)
	for _, name := range n.by {
		times[name]++
	}
	for k, name := range n.by {
		if name != "" && times[name] > 1 {
			n.by[k] = name + " " + bareName(k)
		}
	}
	return n
}

// deviceView is a device of an account.
type deviceView struct {
	Device
	// State is "on", "untried", "failing", "given up", "switched off".
	State string   `json:"state"`
	Mood  string   `json:"-"`
	Text  sentence `json:"text"`
	Next  string   `json:"next,omitempty"`

	Resource  string         `json:"resource,omitempty"`
	Client    string         `json:"client,omitempty"`
	Connected bool           `json:"connected"`
	Asleep    bool           `json:"asleep"`
	Enabled   time.Time      `json:"enabled_at,omitzero"`
	Seen      time.Time      `json:"seen_at,omitzero"`
	Told      time.Time      `json:"told_at,omitzero"`
	Succeeded time.Time      `json:"first_success_at,omitzero"`
	Unread    int            `json:"unread"`
	Waiting   int            `json:"waiting"`
	NextTry   time.Time      `json:"next_try_at,omitzero"`
	InFlight  bool           `json:"in_flight"`
	Errors    int            `json:"errors"`
	Refusals  int            `json:"refusals"`
	Cause     string         `json:"cause,omitempty"`
	Options   []string       `json:"options,omitempty"`
	Asked     []string       `json:"asked_for,omitempty"`
	Disabled  bool           `json:"-"`
	Gone      bool           `json:"-"`
	History   []deviceChange `json:"history,omitempty"`
}

type deviceChange struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// devices are the registrations, and those that were there in the time of the history.
func (p *Handler) devices(st *push.AccountStatus, lines []line, known *about, ns *names) []deviceView {
	var ds []deviceView
	find := func(k push.Key) *deviceView {
		for i := range ds {
			if ds[i].Service == k.Service && ds[i].Node == k.Node {
				return &ds[i]
			}
		}
		return nil
	}
	for i := range st.Registrations {
		r := &st.Registrations[i]
		d := deviceView{
			Device: ns.device(r.Key), Enabled: r.Enabled, Client: p.shownID(r.Client), Unread: r.Unread, Waiting: r.Waiting, NextTry: r.NextTry, InFlight: r.InFlight,
			Errors: r.Health.Errors, Refusals: r.Health.Refusals, Succeeded: r.Health.Succeeded, Cause: r.Health.Cause, Mood: "good", State: "on", Asked: p.asked(r.Wishes),
		}
		for _, f := range r.Options[:min(len(r.Options), 32)] {
			d.Options = append(d.Options, cut(f.Var))
		}
		switch h := &r.Health; {
		case !h.Disabled.IsZero():
			d.Mood, d.State, d.Disabled = "bad", "given up", true
			d.Text = fill("Its push service would not take notifications{detail}, so they were given up at ", "", h.Cause)
			d.Text.when(h.Disabled)
			d.Text.say(".")
			d.Next = openApp
		case h.Errors+h.Refusals > 0:
			d.Mood, d.State = "wait", "failing"
			d.Text.say("Its push service answers with errors: " + plural(h.Errors+h.Refusals, "time") + " in a row.")
		case h.Succeeded.IsZero():
			d.Mood, d.State = "wait", "untried"
			d.Text.say("Notifications are on; none was accepted yet.")
		default:
			d.Text.say("Notifications are on.")
		}
		for _, s := range st.Sessions {
			if s.IsBound && s.Bound == r.Key {
				d.Connected = d.Connected || !s.Hibernated
				d.Asleep = d.Asleep || s.Hibernated
			}
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
			ds = append(ds, deviceView{Device: ns.device(l.key), State: "switched off", Gone: true})
			d = &ds[len(ds)-1]
		}
		if d.Gone && l.change == push.ChangeRemoved {
			d.Text = nil
			d.Text.say(capital(removedText(l)))
			d.Text.say(" at ")
			d.Text.when(l.at())
			d.Text.say(".")
		}
		if d.History = append(d.History, deviceChange{l.at(), changeText(l)}); len(d.History) > 8 {
			d.History = d.History[1:]
		}
	}
	for i := range ds {
		d := &ds[i]
		j := slices.IndexFunc(known.devices, func(s seen) bool { return s.key.Service == d.Service && s.key.Node == d.Node })
		if j < 0 {
			continue
		}
		s := &known.devices[j]
		d.Resource = p.shownID(s.resource)
		d.Seen, d.Told = fromNanos(s.seen), fromNanos(s.told)
	}
	return ds
}

func removedText(l *line) string {
	switch {
	case l.operator:
		return "switched off by the operator " + l.text
	case l.reason == push.ReasonDisabledByUser:
		return "the device switched notifications off"
	}
	return "no notifications any more: " + l.reason.Sentence()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// sessionView is a session of an account.
type sessionView struct {
	ID       string  `json:"id"`
	Resource string  `json:"resource,omitempty"`
	Client   string  `json:"client,omitempty"`
	Device   *Device `json:"device,omitempty"`
	Mood     string  `json:"-"`
	State    string  `json:"state"`
	Long     bool    `json:"extended"`
	Link     string  `json:"-"`
}

func (p *Handler) sessions(st *push.AccountStatus, known *about, ns *names, jid string) (out []sessionView) {
	for _, s := range st.Sessions {
		v := sessionView{ID: p.shownID(s.ID), Client: p.shownID(s.Client), Mood: "good", State: "connected", Long: s.Extended, Link: to("session", "jid", jid, "id", p.shownID(s.ID))}
		if s.Hibernated {
			v.Mood, v.State = "wait", "asleep"
		}
		if s.IsBound {
			d := ns.device(s.Bound)
			v.Device = &d
		}
		for _, c := range known.sessions {
			if c.id == s.ID {
				v.Resource = p.shownID(c.resource)
			}
		}
		out = append(out, v)
	}
	return out
}
