package pushhttp

import (
	"net/http"
	"strconv"
	"time"

	"github.com/xmpp-push/push"
)

// storyPage is all that belongs to one message, event or notification.
type storyPage struct {
	page
	JID     string       `json:"jid"`
	Account string       `json:"-"`
	About   string       `json:"about"`
	At      time.Time    `json:"at,omitzero"`
	Kind    string       `json:"kind,omitempty"`
	Stanza  *stanzaView  `json:"stanza,omitempty"`
	Answers []answerView `json:"answers"`
	Entries []entry      `json:"events"`
	More    int          `json:"more_events,omitempty"`
}

// answerView is what there is to say about one device.
type answerView struct {
	Device
	Mark Mark      `json:"mark"`
	Mood string    `json:"-"`
	Text sentence  `json:"text"`
	Next string    `json:"next,omitempty"`
	At   time.Time `json:"at,omitzero"`
	// Nobody: it is about no device.
	Nobody bool `json:"-"`
}

// maxStory bounds the entries of a story.
const maxStory = 100

func (p *Handler) story(w http.ResponseWriter, r *http.Request, operator string) {
	q := r.URL.Query()
	name, ok := p.resolve(q.Get("jid"))
	if !ok || p.cfg.History == nil {
		p.fail(w, r, http.StatusNotFound, operator, "No account is known under that name any more.", nil)
		return
	}
	known := p.cfg.History.about(name)
	if p.unchanged(w, r, known.last) {
		return
	}
	lines := p.cfg.History.of(name)
	jid := p.shown(name)
	v := storyPage{page: p.page("Story", "story", operator), JID: jid, Account: to("account", "jid", jid)}
	v.Live = true
	ids, numbers := make(map[string]bool), make(map[uint64]bool)
	note := func(ev push.Event) {
		for _, st := range stanzas(ev) {
			if st.ID != "" {
				ids[st.ID] = true
			}
		}
	}
	switch {
	case q.Get("stanza") != "":
		id := q.Get("stanza")
		v.About = "message " + id
		for i := range lines {
			if l := &lines[i]; l.kind == isEvent {
				for _, st := range stanzas(l.event) {
					if st.ID != "" && (st.ID == id || p.shownID(st.ID) == id) {
						ids[st.ID] = true
					}
				}
			}
		}
	case q.Get("event") != "":
		n, _ := strconv.ParseUint(q.Get("event"), 10, 64)
		numbers[n] = true
		v.About = "event " + strconv.FormatUint(n, 10)
		for i := range lines {
			if l := &lines[i]; l.kind == isEvent && l.number == n {
				v.About = l.event.Name() + " " + strconv.FormatUint(n, 10)
				note(l.event)
			}
		}
	case q.Get("publish") != "":
		seq, _ := strconv.ParseUint(q.Get("publish"), 10, 64)
		v.About = "notification"
		for i := range lines {
			if l := &lines[i]; l.seq == seq {
				for _, n := range l.events {
					numbers[n] = true
				}
			}
		}
		for i := range lines {
			if l := &lines[i]; l.kind == isEvent && numbers[l.number] {
				note(l.event)
			}
		}
	}
	picked := related(lines, ids, numbers)
	if len(picked) == 0 {
		p.fail(w, r, http.StatusNotFound, operator, "That is not in the history, or not any more.", nil)
		return
	}
	st, _ := p.cfg.Engine.Inspect(r.Context(), name)
	ns := namesOf(&st, &known)
	msgs := messagesOf(picked)
	if len(ids) == 1 {
		for _, m := range msgs {
			if ids[m.id] {
				v.Stanza = &stanzaView{ID: p.shownID(m.id), From: p.shown(m.from), Class: m.stanza.Class.String()}
				v.Kind, v.At = m.kind, m.at
			}
		}
	}
	for _, m := range msgs {
		if len(ids) > 0 && m.id != "" && !ids[m.id] {
			continue
		}
		if v.At.IsZero() {
			v.Kind, v.At = m.kind, m.at
		}
		v.Answers = append(v.Answers, p.answersOf(m, jid, lines, ns)...)
		if len(v.Answers) >= maxRows {
			break
		}
	}
	v.Entries = p.timeline(name, picked, ns).entries(picked)
	if len(v.Entries) > maxStory {
		v.More = len(v.Entries) - maxStory
		v.Entries = v.Entries[:maxStory]
	}
	v.Title = "Story of " + visible(v.About)
	p.render(w, r, http.StatusOK, "story", &v)
}

// answersOf are the answers of a message, one for each device, or why there is none.
func (p *Handler) answersOf(m *message, jid string, lines []line, ns *names) (out []answerView) {
	for i := range m.fates {
		d := ns.device(m.fates[i].key)
		t := m.fates[i].answer(d.Name)
		out = append(out, answerView{d, t.mark, t.mark.mood(), t.text, t.next, t.at, false})
	}
	if len(out) == 0 && m.nobody != push.ReasonNone {
		t := m.nobodyAnswer(jid, lines, ns.of)
		out = append(out, answerView{Device{}, t.mark, t.mark.mood(), t.text, t.next, t.at, true})
	}
	return out
}
