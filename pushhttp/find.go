package pushhttp

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push"
	"mellium.im/xmpp/jid"
)

// find leads to what somebody pasted: any spelling or resource of a JID, an xmpp: URI, the ID of a stanza or session, a node, a push service, a
// time, or a JID and a time. The JID of a sender who has no account here leads to their newest message.
func (p *Handler) find(w http.ResponseWriter, r *http.Request, operator string) {
	q := r.URL.Query()
	asked := strings.TrimSpace(q.Get("q"))
	if asked == "" {
		p.redirect(w, "./")
		return
	}
	skew := p.skew()
	zone := zoneOf(q.Get("tz"))
	what, at := splitTime(asked, p.cfg.Now().Add(skew).In(zone))
	if !at.IsZero() {
		at = at.Add(-skew) // people go by this machine's clock
	}
	if what == "" {
		p.redirect(w, to("accounts", "at", at.UTC().Format(formTime)))
		return
	}
	if target := p.lookUp(r, fromURI(what), at); target != "" {
		p.redirect(w, target)
		return
	}
	p.fail(w, r, http.StatusNotFound, operator,
		"Nothing is known of “"+visible(short(what, 200))+"”: no account, message, connection, device or push service. What was long ago is not kept.", p.near(fromURI(what)))
}

// lookUp returns where something is, or nothing.
func (p *Handler) lookUp(r *http.Request, what string, at time.Time) string {
	if what == "" {
		return ""
	}
	account := func(name string, device string) string {
		u := url.Values{"jid": {p.shown(name)}}
		if device != "" {
			u.Set("device", device)
		}
		if !at.IsZero() {
			from, till := around(at)
			u.Set("from", from.UTC().Format(formTime))
			u.Set("to", till.UTC().Format(formTime))
		}
		return "account?" + u.Encode()
	}
	if strings.HasPrefix(what, pseudonymPrefix) {
		if name, ok := p.resolve(what); ok && name != what {
			return account(name, "")
		}
	}
	h := p.cfg.History
	if h != nil {
		name, kind, value := h.search(what)
		switch kind {
		case "stanza":
			return to("story", "jid", p.shown(name), "stanza", p.shownID(value))
		case "session":
			return to("session", "jid", p.shown(name), "id", p.shownID(value))
		case "node":
			return account(name, value)
		case "service":
			return to("service", "name", value)
		}
	}
	for _, s := range p.cfg.Engine.Services() {
		if s.Service == what {
			return to("service", "name", what)
		}
	}
	j, err := jid.Parse(what)
	if err != nil || j.Localpart() == "" {
		return ""
	}
	bare := j.Bare().String()
	if h != nil && h.about(bare).last > 0 {
		return account(bare, "")
	}
	if st, err := p.cfg.Engine.Inspect(r.Context(), bare); err != nil || len(st.Registrations)+len(st.Sessions) > 0 {
		return account(bare, "")
	}
	if h != nil {
		if name, id := h.sentBy(bare, at); name != "" {
			return to("story", "jid", p.shown(name), "stanza", p.shownID(id))
		}
	}
	return ""
}

// around is the time that somebody may mean who says at: clocks differ, and so do people's.
func around(at time.Time) (from, till time.Time) {
	return at.Add(-5 * time.Minute), at.Add(10 * time.Minute)
}

// sentBy looks for the newest message of somebody else, given by the bare JID: somebody of another server, or a room. If at is not zero, of around that time.
func (h *History) sentBy(sender string, at time.Time) (account, stanza string) {
	from, till := around(at)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := h.all.last; i != 0; {
		l := h.line(i)
		i = l.inAll.before
		if l.kind != isEvent || !at.IsZero() && l.at().After(till) {
			continue
		}
		if !at.IsZero() && l.at().Before(from) {
			break
		}
		of := stanzas(l.event)
		if st := l.stanza; st != nil {
			of = []push.Stanza{*st}
		}
		for _, st := range of {
			if bare, _, _ := strings.Cut(st.From, "/"); bare == sender && st.ID != "" && st.Kind == push.KindMessage {
				return l.account.name, st.ID
			}
		}
	}
	return "", ""
}

// fromURI returns the JID of an xmpp: URI (RFC 5122), and anything else as it is.
func fromURI(s string) string {
	if len(s) < 5 || !strings.EqualFold(s[:5], "xmpp:") {
		return s
	}
	s = s[5:]
	if strings.HasPrefix(s, "//") { // xmpp://account-to-use/address
		_, s, _ = strings.Cut(s[2:], "/")
	}
	s, _, _ = strings.Cut(s, "?")
	s, _, _ = strings.Cut(s, "#")
	if u, err := url.PathUnescape(s); err == nil {
		s = u
	}
	return s
}

// splitTime takes a time off the end of what was asked: 14:02, 14:02:11, with a date before it or a zone after it, or RFC 3339. A time of day that
// has not come yet today is yesterday's.
func splitTime(s string, now time.Time) (rest string, at time.Time) {
	fields := strings.Fields(s)
	for n := min(3, len(fields)); n > 0; n-- {
		text := strings.Join(fields[len(fields)-n:], " ")
		for _, layout := range []string{
			time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "15:04:05", "15:04",
			"15:04:05Z07:00", "15:04Z07:00", "15:04:05 UTC", "15:04 UTC", "2006-01-02 15:04:05 UTC", "2006-01-02 15:04 UTC",
		} {
			t, err := time.ParseInLocation(layout, text, now.Location())
			if err != nil {
				continue
			}
			if t.Year() == 0 {
				today := now.In(t.Location())
				t = time.Date(today.Year(), today.Month(), today.Day(), t.Hour(), t.Minute(), t.Second(), 0, t.Location())
				if t.After(now) {
					t = t.AddDate(0, 0, -1)
				}
			}
			return strings.Join(fields[:len(fields)-n], " "), t
		}
	}
	return s, time.Time{}
}

// search looks for a stanza, session, node or service by its exact name.
func (h *History) search(what string) (account, kind, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tally.services[what] != nil {
		return "", "service", what
	}
	for name, a := range h.accounts {
		for _, d := range a.devices {
			if d.key.Node == what {
				return name, "node", d.key.Service + " " + d.key.Node
			}
		}
		if a.connection(what) != nil {
			return name, "session", what
		}
	}
	for i := h.all.last; i != 0; {
		l := h.line(i)
		i = l.inAll.before
		switch {
		case l.kind == isEvent:
			if st := l.stanza; st != nil {
				switch {
				case st.ID == what || st.MessageID == what:
					return l.account.name, "stanza", st.ID
				case l.extra == what: // only the session of a queued stanza is there
					return l.account.name, "session", what
				}
				continue
			}
			if l.event.Subject().ID == what {
				return l.account.name, "session", what
			}
			for _, st := range stanzas(l.event) {
				if st.ID == what || st.MessageID == what {
					return l.account.name, "stanza", st.ID
				}
			}
		case l.key.Node == what:
			return l.account.name, "node", l.key.Service + " " + l.key.Node
		}
	}
	return "", "", ""
}

// near returns accounts whose names are like one, nearest first.
func (p *Handler) near(name string) (links []link) {
	if p.cfg.History == nil || p.cfg.Pseudonyms {
		return nil
	}
	name = strings.ToLower(name)
	if i := strings.IndexByte(name, '/'); i >= 0 {
		name = name[:i]
	}
	local, _, _ := strings.Cut(name, "@")
	if len(local) < 2 || len(name) > 200 {
		return nil
	}
	type found struct {
		name string
		far  int
	}
	var all []found
	h := p.cfg.History
	h.mu.Lock()
	known := make([]string, 0, len(h.accounts))
	for n := range h.accounts {
		known = append(known, n)
	}
	h.mu.Unlock()
	for _, n := range known[:min(len(known), 100_000)] {
		l, _, _ := strings.Cut(n, "@")
		far := 99
		switch {
		case n == name:
			far = 0
		case l == local:
			far = 1
		case strings.Contains(n, local):
			far = 3
		case len(l)-len(local) > 2 || len(local)-len(l) > 2:
		default:
			far = 1 + distance(l, local, 3)
		}
		if far <= 3 {
			all = append(all, found{n, far})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.name, b.name)) })
	for _, f := range all[:min(len(all), 8)] {
		links = append(links, link{f.name, to("account", "jid", f.name)})
	}
	return links
}

// distance is how many characters have to be changed, put in, taken out or swapped to make a into b; most if it is more.
func distance(a, b string, most int) int {
	row := make([]int, len(b)+1)
	before := make([]int, len(b)+1)
	earlier := make([]int, len(b)+1)
	for j := range row {
		before[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(before[j]+1, row[j-1]+1, before[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], earlier[j-2]+1)
			}
			least = min(least, row[j])
		}
		if least > most {
			return most
		}
		earlier, before, row = before, row, earlier
	}
	return min(before[len(b)], most)
}
