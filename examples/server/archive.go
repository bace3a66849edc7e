package main

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// The archive of an account (XEP-0313), and what the account wants kept in it.

const (
	nsMAM = "urn:xmpp:mam:2"
	nsRSM = "http://jabber.org/protocol/rsm"
	// maxArchive is how many messages an archive keeps, more or less; maxPage how many a query returns, and maxPageBytes about how much.
	maxArchive   = 10_000
	maxPage      = 250
	maxPageBytes = 1 << 20
)

// store puts a message into the archive if it is one to keep. It marks the message with the ID that the archive gave it (XEP-0359), and
// takes away marks that pretend to be ours.
func (a *account) store(m *message) {
	m.el = m.el.Copy().Without(func(c *element.Element) bool {
		return c.Is(nsStanID, "stanza-id") && c.Get("by") == a.jid
	})
	if !worthKeeping(m.el) || !a.prefs.want(a, m.peer(a.jid)) {
		if call(m.el) { // nothing else rings a phone without a session while another device is here
			a.srv.push.archived(a, m)
		}
		return
	}
	m.stored = true
	m.el.Add(element.New(nsStanID, "stanza-id", "id", m.id, "by", a.jid))
	a.keepMessage(m)
	if a.stored++; a.stored%1000 == 0 {
		a.srv.keep.Do(`UPDATE message SET archived = 0 WHERE account = ?1 AND archived AND n <=
			(SELECT n FROM message WHERE account = ?1 AND archived ORDER BY n DESC LIMIT 1 OFFSET ?2)`, a.jid, maxArchive)
		a.srv.keep.Do(`DELETE FROM message WHERE account = ? AND NOT archived AND NOT offline
			AND NOT EXISTS (SELECT 1 FROM session s JOIN queue q ON q.session = s.id WHERE s.account = message.account AND q.message AND q.id = message.id)`, a.jid)
	}
	a.srv.push.archived(a, m)
}

// peer is the other side of a message of an account, bare.
func (m *message) peer(account string) string {
	for _, attr := range []string{"from", "to"} {
		if j, err := jid.Parse(m.el.Get(attr)); err == nil && j.Bare().String() != account {
			return j.Bare().String()
		}
	}
	return account
}

// worthKeeping tells what goes into an archive: what a person said, and what is needed to make sense of it.
func worthKeeping(st *element.Element) bool {
	switch st.Get("type") {
	case "error", "headline", "groupchat":
		return false
	}
	if st.Child(nsHints, "no-store") != nil || st.Child(nsHints, "no-permanent-store") != nil {
		return false
	}
	return st.Child(nsHints, "store") != nil ||
		st.Child("", "body") != nil || st.Child("", "subject") != nil ||
		st.Child("urn:xmpp:eme:0", "encryption") != nil ||
		st.Child("urn:xmpp:receipts", "received") != nil ||
		st.Child("urn:xmpp:chat-markers:0", "") != nil ||
		call(st) ||
		st.Child("jabber:x:conference", "x") != nil || invitation(st)
}

// call tells whether a message says something of a call (XEP-0353, XEP-0482).
func call(st *element.Element) bool {
	return st.Child("urn:xmpp:jingle-message:0", "") != nil || st.Child("urn:xmpp:call-invites:0", "") != nil
}

// invitation tells whether a message is an invitation that a room passes on (XEP-0045 §7.8.2).
func invitation(st *element.Element) bool {
	return st.Child("http://jabber.org/protocol/muc#user", "x").Child("http://jabber.org/protocol/muc#user", "invite") != nil
}

// archiveIQ answers what the account's clients ask of the archive.
func (x *session) archiveIQ(iq *element.Element) *element.Element {
	get := iq.Get("type") == "get"
	switch iq.First().Name.Local {
	case "query":
		if get {
			return element.Result(iq, element.New(nsMAM, "query").Add(element.Form("form", nsMAM, "with", "", "start", "", "end", "")))
		}
		return x.query(iq)
	case "prefs":
		return x.preferences(iq)
	}
	return element.Error(iq, "cancel", "service-unavailable")
}

// archivePrefs is what an account wants archived (XEP-0441). The zero value is everything.
type archivePrefs struct {
	Default       string // "always" if empty, "never" or "roster"
	Always, Never []string
}

// want tells whether messages from and to a bare JID are archived.
func (p *archivePrefs) want(a *account, peer string) bool {
	switch {
	case slices.Contains(p.Never, peer):
		return false
	case slices.Contains(p.Always, peer):
		return true
	case p.Default == "roster":
		c := a.roster[peer]
		return c != nil && c.item(peer) != nil
	}
	return p.Default != "never"
}

// preferences answers a client that gets or changes them.
func (x *session) preferences(iq *element.Element) *element.Element {
	a := x.acct
	a.mu.Lock()
	defer a.mu.Unlock()
	if iq.Get("type") == "set" {
		set := iq.First()
		p := archivePrefs{Default: set.Get("default")}
		if !slices.Contains([]string{"always", "never", "roster"}, p.Default) {
			return element.Error(iq, "modify", "bad-request")
		}
		for list, jids := range map[string]*[]string{"always": &p.Always, "never": &p.Never} {
			for _, c := range set.Child(nsMAM, list).Children() {
				j, err := jid.Parse(c.Text())
				if err != nil {
					return element.Error(iq, "modify", "jid-malformed")
				}
				*jids = append(*jids, j.Bare().String())
			}
		}
		if len(p.Always)+len(p.Never) > 1000 {
			return element.Error(iq, "cancel", "not-acceptable")
		}
		a.prefs = p
		a.srv.keep.Do("INSERT INTO preference VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET json = excluded.json", a.jid, toJSON(p))
	}
	prefs := element.New(nsMAM, "prefs", "default", cmp.Or(a.prefs.Default, "always"))
	for _, l := range []struct {
		name string
		jids []string
	}{{"always", a.prefs.Always}, {"never", a.prefs.Never}} {
		list := element.New(nsMAM, l.name)
		for _, j := range l.jids {
			list.Add(element.New(nsMAM, "jid").Add(j))
		}
		prefs.Add(list)
	}
	return element.Result(iq, prefs)
}

// archived is a message in the archive.
type archived struct {
	n  int64
	id string
	at time.Time
	el *element.Element
}

// query answers a query of the archive: a page of messages, then the result.
func (x *session) query(iq *element.Element) *element.Element {
	q := iq.First()
	a := x.acct
	if err := a.srv.keep.Settle(); err != nil {
		return element.Error(iq, "wait", "internal-server-error")
	}
	f, ok := filterOf(q.Child(element.NSForm, "x"))
	if !ok {
		return element.Error(iq, "modify", "bad-request")
	}
	p, err := a.page(f, q.Child(nsRSM, "set"))
	if err != nil {
		a.srv.log.Error("archive", "account", a.jid, "err", err)
		return element.Error(iq, "wait", "internal-server-error")
	}
	if p == nil {
		return element.Error(iq, "cancel", "item-not-found")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !x.archivist {
		x.archivist = true
		x.save()
	}
	for _, m := range p.items {
		x.sendNew(element.New("", "message", "from", a.jid, "to", x.jid.String()).Add(
			element.New(nsMAM, "result", "id", m.id, "queryid", q.Get("queryid")).Add(
				element.New("urn:xmpp:forward:0", "forwarded").Add(element.Delay("", m.at), m.el))))
	}
	fin := element.New(nsMAM, "fin")
	if p.complete {
		fin.Set("complete", "true")
	}
	return element.Result(iq, fin.Add(p.summary))
}

// filter is a condition on the rows of an archive.
type filter struct {
	where string
	args  []any
}

func (f filter) and(where string, args ...any) filter {
	return filter{f.where + " AND " + where, append(slices.Clip(f.args), args...)}
}

// filterOf reads the form of a query (XEP-0313 §4.1).
func filterOf(form *element.Element) (filter, bool) {
	var f filter
	if with := form.Field("with"); with != "" {
		j, err := jid.Parse(with)
		if err != nil {
			return f, false
		}
		f = f.and("peer = ?", j.Bare().String())
	}
	for field, where := range map[string]string{"start": "at >= ?", "end": "at <= ?"} {
		if text := form.Field(field); text != "" {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return f, false
			}
			f = f.and(where, at.UnixMilli())
		}
	}
	return f, true
}

// errFull ends the reading of a page.
var errFull = errors.New("enough")

type page struct {
	items    []archived
	complete bool
	summary  *element.Element
}

// page picks a page (XEP-0059): the first after an ID, or the last before one, an empty one being the end. It is nil if there is no such ID.
func (a *account) page(f filter, rsm *element.Element) (*page, error) {
	size := maxPage
	if n, err := strconv.Atoi(rsm.Child(nsRSM, "max").Text()); err == nil && n >= 0 {
		size = min(n, size)
	}
	f = filter{"account = ? AND archived" + f.where, append([]any{a.jid}, f.args...)}
	number := func(sql string, f filter) (n int64, err error) {
		err = a.srv.keep.Read(func(scan func(...any) error) error { return scan(&n) }, "SELECT "+sql+" FROM message WHERE "+f.where, f.args...)
		return n, err
	}
	all, err := number("count(*)", f)
	if err != nil {
		return nil, err
	}
	part := f
	before := rsm.Child(nsRSM, "before")
	for _, bound := range []struct {
		at    *element.Element
		where string
	}{{rsm.Child(nsRSM, "after"), "n > ?"}, {before, "n < ?"}} {
		id := bound.at.Text()
		if id == "" {
			continue
		}
		n, err := number("coalesce(max(n), 0)", filter{"account = ? AND archived AND id = ?", []any{a.jid, id}})
		if n == 0 || err != nil {
			return nil, err
		}
		part = part.and(bound.where, n)
	}
	order := "n"
	if before != nil {
		order = "n DESC"
	}
	bytes := 0
	p := &page{summary: element.New(nsRSM, "set").Add(element.New(nsRSM, "count").Add(strconv.FormatInt(all, 10)))}
	err = a.srv.keep.Read(func(scan func(...any) error) error {
		var m archived
		var at int64
		var xml []byte
		err := scan(&m.n, &m.id, &at, &xml)
		if bytes += len(xml); err == nil && bytes > maxPageBytes && len(p.items) > 0 {
			size = min(size, len(p.items)) // what fits, and there is more
			p.items = append(p.items, m)
			return errFull
		}
		if err == nil {
			m.el, err = element.Parse(xml)
		}
		m.at = time.UnixMilli(at)
		p.items = append(p.items, m)
		return err
	}, "SELECT n, id, at, xml FROM message WHERE "+part.where+" ORDER BY "+order+" LIMIT ?", append(part.args, size+1)...)
	if err != nil && err != errFull {
		return nil, err
	}
	p.complete = len(p.items) <= size
	p.items = p.items[:min(size, len(p.items))]
	if before != nil {
		slices.Reverse(p.items)
	}
	if len(p.items) > 0 {
		first, last := p.items[0], p.items[len(p.items)-1]
		index, err := number("count(*)", f.and("n < ?", first.n))
		if err != nil {
			return nil, err
		}
		p.summary.Add(element.New(nsRSM, "first", "index", strconv.FormatInt(index, 10)).Add(first.id), element.New(nsRSM, "last").Add(last.id))
	}
	return p, nil
}
