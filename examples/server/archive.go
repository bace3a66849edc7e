package main

import (
	"slices"
	"strconv"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// The archive of an account (XEP-0313), in memory.

const (
	nsMAM = "urn:xmpp:mam:2"
	nsRSM = "http://jabber.org/protocol/rsm"
	// maxArchive is how many messages an archive keeps, maxPage how many a query returns.
	maxArchive = 10_000
	maxPage    = 250
)

type archived struct {
	id   string
	with string // the other side, bare
	at   time.Time
	el   *element.Element
}

// store puts a message into the archive if it is one to keep. It marks the message with the ID that the archive gave it (XEP-0359), and
// takes away marks that pretend to be ours.
func (a *account) store(m *message) {
	m.el = m.el.Copy().Without(func(c *element.Element) bool {
		return c.Is(nsStanID, "stanza-id") && c.Get("by") == a.jid
	})
	if !worthKeeping(m.el) {
		return
	}
	with := m.el.Get("from")
	if j, err := jid.Parse(with); err == nil && j.Bare().String() == a.jid {
		with = m.el.Get("to")
	}
	if j, err := jid.Parse(with); err == nil {
		with = j.Bare().String()
	}
	m.stored = true
	m.el.Add(element.New(nsStanID, "stanza-id", "id", m.id, "by", a.jid))
	a.archive = append(a.archive, archived{id: m.id, with: with, at: m.at, el: m.el})
	if len(a.archive) > maxArchive {
		a.archive = slices.Clone(a.archive[len(a.archive)-maxArchive*9/10:])
	}
	a.srv.push.archived(a, m)
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
		st.Child("urn:xmpp:jingle-message:0", "") != nil ||
		st.Child("jabber:x:conference", "x") != nil
}

// query answers a query of the archive: a page of messages, then the result.
func (x *session) query(iq *element.Element) *element.Element {
	q := iq.First()
	form, rsm := q.Child(element.NSForm, "x"), q.Child(nsRSM, "set")
	a := x.acct
	a.mu.Lock()
	defer a.mu.Unlock()
	x.archivist = true
	found := make([]archived, 0, len(a.archive))
	start, end := form.Field("start"), form.Field("end")
	since, err1 := time.Parse(time.RFC3339, start)
	until, err2 := time.Parse(time.RFC3339, end)
	if start != "" && err1 != nil || end != "" && err2 != nil {
		return element.Error(iq, "modify", "bad-request")
	}
	with, err := jid.Parse(form.Field("with"))
	if form.Field("with") != "" && err != nil {
		return element.Error(iq, "modify", "bad-request")
	}
	for _, m := range a.archive {
		if (form.Field("with") == "" || m.with == with.Bare().String()) &&
			(start == "" || !m.at.Before(since)) && (end == "" || !m.at.After(until)) {
			found = append(found, m)
		}
	}
	page, ok := pageOf(found, rsm)
	if !ok {
		return element.Error(iq, "cancel", "item-not-found")
	}
	for _, m := range page.items {
		x.sendNew(element.New("", "message", "from", a.jid, "to", x.jid.String()).Add(
			element.New(nsMAM, "result", "id", m.id, "queryid", q.Get("queryid")).Add(
				element.New("urn:xmpp:forward:0", "forwarded").Add(element.Delay("", m.at), m.el))))
	}
	fin := element.New(nsMAM, "fin")
	if page.complete {
		fin.Set("complete", "true")
	}
	return element.Result(iq, fin.Add(page.summary))
}

type page struct {
	items    []archived
	complete bool
	summary  *element.Element
}

// pageOf picks a page (XEP-0059): the first after an ID, or the last before one, an empty one being the end.
func pageOf(all []archived, rsm *element.Element) (page, bool) {
	size := maxPage
	if n, err := strconv.Atoi(rsm.Child(nsRSM, "max").Text()); err == nil && n >= 0 {
		size = min(n, size)
	}
	index := func(id string) int { return slices.IndexFunc(all, func(m archived) bool { return m.id == id }) }
	after, before := rsm.Child(nsRSM, "after"), rsm.Child(nsRSM, "before")
	from, to := 0, len(all)
	if id := after.Text(); id != "" {
		i := index(id)
		if i < 0 {
			return page{}, false
		}
		from = i + 1
	}
	if id := before.Text(); id != "" {
		if to = index(id); to < 0 {
			return page{}, false
		}
	}
	from = min(from, to)
	p := page{complete: to-from <= size}
	if before != nil {
		from = max(from, to-size)
	} else {
		to = min(to, from+size)
	}
	p.items = all[from:to]
	p.summary = element.New(nsRSM, "set").Add(element.New(nsRSM, "count").Add(strconv.Itoa(len(all))))
	if len(p.items) > 0 {
		p.summary.Add(
			element.New(nsRSM, "first", "index", strconv.Itoa(from)).Add(p.items[0].id),
			element.New(nsRSM, "last").Add(p.items[len(p.items)-1].id))
	}
	return p, true
}
