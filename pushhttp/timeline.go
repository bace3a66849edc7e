package pushhttp

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/xmpp-push/push"
)

// The timeline of an account: its lines put together into entries, one for each event and each publish, with what led to what.

// entry is one item of a timeline.
type entry struct {
	ID    string    `json:"-"` // within the page
	Seq   uint64    `json:"-"`
	At    time.Time `json:"at"`
	Kind  string    `json:"kind"` // "event", "publish", "action" or "other"
	Title string    `json:"title"`
	// Story leads to everything that belongs to it.
	Story string `json:"story,omitempty"`

	Number   uint64        `json:"number,omitempty"`
	Session  string        `json:"session,omitempty"`
	Token    string        `json:"reason,omitempty"` // why nobody was asked
	Reason   string        `json:"text,omitempty"`
	Stanzas  []stanzaView  `json:"stanzas,omitempty"`
	More     int           `json:"more_stanzas,omitempty"` // that are not shown
	Verdicts []verdictView `json:"verdicts,omitempty"`
	Publish  *publishView  `json:"publish,omitempty"`
	Notes    []note        `json:"notes,omitempty"`
	// Quiet: the event notified nobody.
	Quiet bool `json:"-"`
}

type stanzaView struct {
	ID    string `json:"id"`
	From  string `json:"from,omitempty"`
	Class string `json:"class"`
	Story string `json:"-"`
	Held  bool   `json:"held,omitempty"`
}

type verdictView struct {
	Device
	Notify bool   `json:"notify"`
	Dim    bool   `json:"-"` // it says little
	Rule   string `json:"rule"`
	Token  string `json:"reason"`
	Reason string `json:"text"`
	Detail string `json:"detail,omitempty"`
	Class  string `json:"class"`
	Count  int    `json:"count"`
	// Then is what became of it.
	Then []then `json:"then,omitempty"`
}

// then is what became of a notification.
type then struct {
	Text string `json:"text"`
	Mood string `json:"-"` // "good", "bad", "wait"
	Link string `json:"-"` // to the entry
}

type publishView struct {
	Device
	Class   string        `json:"class"`
	Count   int           `json:"count"`
	Try     int           `json:"try"`
	Causes  []cause       `json:"events,omitempty"`
	Done    bool          `json:"answered"`
	What    string        `json:"-"`
	Token   string        `json:"outcome,omitempty"`
	Outcome string        `json:"text,omitempty"`
	Text    string        `json:"error,omitempty"`
	Mood    string        `json:"-"`
	Took    time.Duration `json:"took_ns,omitempty"`
	Retry   time.Time     `json:"retry_at,omitzero"`
}

type cause struct {
	Number uint64 `json:"number"`
	Link   string `json:"-"` // empty if it is not in the history any more
}

// note is something else that happened along with it.
type note struct {
	Mood   string `json:"-"`
	Device string `json:"device,omitempty"`
	Text   string `json:"text"`
}

// Device is a registration as it is shown.
type Device struct {
	Service string `json:"service"`
	Node    string `json:"node"`
	// Name is what the device is called: what it calls itself, else its resource, else its node.
	Name string `json:"name"`
}

// Key is the device as a value of a form.
func (d Device) Key() string { return d.Service + " " + d.Node }

// The parts of an entry that are shown at most.
const (
	maxStanzas  = 8
	maxVerdicts = 24
	maxCauses   = 12
)

// timeline makes the entries of an account's lines.
type timeline struct {
	pages *Handler
	names *names
	jid   string // as it is shown
	lines []line // oldest first
	// became has the publishes and drops of each event and registration.
	became map[because][]*line
	have   map[uint64]bool
}

type because struct {
	key    push.Key
	number uint64
}

func (p *Handler) timeline(account string, lines []line, ns *names) *timeline {
	t := &timeline{p, ns, p.shown(account), lines, make(map[because][]*line), make(map[uint64]bool)}
	for i := range lines {
		l := &lines[i]
		if l.kind == isEvent {
			t.have[l.number] = true
		}
		if l.kind == isPublish || l.kind == isDrop {
			for _, n := range l.events {
				c := because{l.key, n}
				t.became[c] = append(t.became[c], l)
			}
		}
	}
	return t
}

// newest returns up to limit entries that the filter lets through, newest first, and whether there are more. It makes no more of them
// than it has to.
func (t *timeline) newest(f *filter, limit int) (out []entry, more bool) {
	end := len(t.lines)
	if f.before > 0 {
		end, _ = slices.BinarySearchFunc(t.lines, f.before, func(l line, seq uint64) int { return cmp.Compare(l.seq, seq) })
	}
	for end > 0 {
		from := end - 1
		for from > 0 && !begins(&t.lines[from]) {
			from--
		}
		es := f.apply(t.entries(t.lines[from:end]))
		if len(out)+len(es) > limit {
			return out, true
		}
		slices.Reverse(es)
		out = append(out, es...)
		end = from
	}
	return out, false
}

// begins tells whether a line surely begins an entry.
func begins(l *line) bool {
	switch l.kind {
	case isEvent, isPublish, isReply, isAction:
		return true
	}
	return false
}

// entries makes the entries of some of the lines.
func (t *timeline) entries(lines []line) []entry {
	p, jid := t.pages, t.jid
	story := func(key, value string) string {
		return "story?" + url.Values{"jid": {jid}, key: {value}}.Encode()
	}
	var entries []entry
	var event *line
	for i := range lines {
		l := &lines[i]
		var last *entry
		if n := len(entries); n > 0 {
			last = &entries[n-1]
		}
		switch l.kind {
		case isEvent:
			event = l
			s := l.event.Subject()
			e := entry{
				ID: "e" + strconv.FormatUint(l.number, 10), Seq: l.seq, At: l.at(), Kind: "event", Title: l.event.Name(), Number: l.number, Session: p.shownID(s.ID),
				Story: story("event", strconv.FormatUint(l.number, 10)), Quiet: true,
			}
			if l.reason != push.ReasonNone {
				e.Token, e.Reason = l.reason.String(), l.reason.Sentence()
			}
			q := stanzas(l.event)
			for j := range q[:min(len(q), maxStanzas)] {
				st := &q[j]
				v := stanzaView{ID: p.shownID(st.ID), From: p.shown(st.From), Class: st.Class.String(), Held: st.Held}
				if st.ID != "" {
					v.Story = story("stanza", v.ID)
				}
				e.Stanzas = append(e.Stanzas, v)
			}
			e.More = max(len(q)-maxStanzas, 0)
			if o, ok := l.event.(push.SessionOpen); ok && o.Client != "" {
				e.Notes = append(e.Notes, note{Text: "client ID " + p.shownID(o.Client)})
			}
			entries = append(entries, e)
		case isVerdict:
			if last == nil || event == nil || last.Number != l.number {
				continue // its event is gone
			}
			last.Quiet = last.Quiet && !l.notify
			if len(last.Verdicts) >= maxVerdicts {
				continue
			}
			v := verdictView{
				Device: t.names.device(l.key), Notify: l.notify, Rule: l.rule.String(), Token: l.reason.String(), Reason: l.reason.Sentence(), Detail: l.text, Class: l.class.String(), Count: int(l.count), Dim: !l.notify && informative(l.reason) == 0,
			}
			if l.notify {
				v.Then = becameOf(t.became[because{l.key, l.number}], l.at())
			}
			last.Verdicts = append(last.Verdicts, v)
		case isPublish, isReply:
			v := &publishView{
				Device: t.names.device(l.key), Class: l.class.String(), Count: int(l.count), Try: int(l.try), Done: l.done,
				Token: outcomeToken(l), Outcome: outcomeText(l.outcome), What: what(int(l.count)), Text: errorOf(l), Mood: moodOf(l), Took: l.took, Retry: l.retry(),
			}
			for _, n := range l.events[:min(len(l.events), maxCauses)] {
				c := cause{Number: n}
				if t.have[n] {
					c.Link = story("event", strconv.FormatUint(n, 10))
				}
				v.Causes = append(v.Causes, c)
			}
			e := entry{ID: "p" + strconv.FormatUint(l.seq, 10), Seq: l.seq, At: l.at(), Kind: "publish", Title: "publish", Publish: v}
			if len(l.events) > 0 {
				e.Story = story("publish", strconv.FormatUint(l.seq, 10))
			}
			entries = append(entries, e)
		case isAction:
			entries = append(entries, entry{
				ID: "a" + strconv.FormatUint(l.seq, 10), Seq: l.seq, At: l.at(), Kind: "action", Title: l.extra,
				Notes: []note{{"", t.names.of(l.key), actionText(l.extra) + " by " + l.text}},
			})
		default:
			n := t.noteOf(l)
			if l.number != 0 && last != nil && last.Number == l.number {
				last.Notes = append(last.Notes, n)
				continue
			}
			// What follows from a reply comes right after it.
			if last != nil && last.Kind == "other" && last.At.Equal(l.at()) {
				last.Notes = append(last.Notes, n)
				continue
			}
			entries = append(entries, entry{ID: "o" + strconv.FormatUint(l.seq, 10), Seq: l.seq, At: l.at(), Kind: "other", Title: otherTitle(l), Notes: []note{n}})
		}
	}
	return entries
}

func otherTitle(l *line) string {
	switch l.kind {
	case isChange:
		return "registration " + l.change.String()
	case isDrop:
		return "dropped"
	}
	return "advice"
}

// becameOf says what became of a notification: its last publish or drop.
func becameOf(ls []*line, decided time.Time) (out []then) {
	if len(ls) == 0 {
		return []then{{Text: "waits", Mood: "wait"}}
	}
	for i, l := range ls {
		if l.kind == isDrop && l.reason == push.ReasonRejected && i > 0 || i < len(ls)-3 {
			continue // the reply says it
		}
		var t then
		switch {
		case l.kind == isDrop:
			t = then{Text: "dropped: " + l.reason.Sentence(), Mood: "bad"}
			if l.reason == push.ReasonResumed {
				t.Mood = "wait"
			}
		case !l.done:
			t = then{Text: after(l.at().Sub(decided)) + ", no reply yet", Mood: "wait"}
		default:
			t = then{Text: after(l.at().Sub(decided)) + ", " + outcomeText(l.outcome), Mood: moodOf(l)}
			if e := errorOf(l); e != "" {
				t.Text += " (" + e + ")"
			}
		}
		if l.kind == isPublish {
			t.Link = "#p" + strconv.FormatUint(l.seq, 10)
		}
		out = append(out, t)
	}
	return out
}

// after says when something was sent.
func after(d time.Duration) string {
	if d < time.Millisecond {
		return "sent at once"
	}
	return "sent after " + span(d)
}

// what says what a publish tells of.
func what(stanzas int) string {
	if stanzas == 0 {
		return "a wake-up"
	}
	return plural(stanzas, "stanza")
}

// outcomeText is an outcome in words that need no table.
func outcomeText(o push.Outcome) string {
	switch o {
	case push.OutcomeTransient:
		return "failed for now"
	case push.OutcomeFatal:
		return "refused for good"
	case push.OutcomeRefused:
		return "refused"
	case push.OutcomeTooBig:
		return "too big, sent again smaller"
	case push.OutcomeDropped:
		return "vetoed"
	}
	return o.String()
}

func outcomeToken(l *line) string {
	if !l.done {
		return ""
	}
	return l.outcome.String()
}

// noAnswer stands for the condition where there was no reply.
const noAnswer = "no answer"

func errorOf(l *line) string {
	if l.text != "" && l.extra != "" {
		return l.extra + "/" + l.text
	}
	return l.text + l.extra
}

func moodOf(l *line) string {
	switch {
	case !l.done:
		return "wait"
	case l.outcome == push.OutcomeAccepted:
		return "good"
	case l.outcome == push.OutcomeTransient, l.outcome == push.OutcomeTooBig:
		return "wait"
	}
	return "bad"
}

// actionText says what an operator did.
func actionText(kind string) string {
	if kind == "ping" {
		return "woken"
	}
	return "switched off"
}

func (t *timeline) noteOf(l *line) note {
	p, n := t.pages, note{Device: t.names.of(l.key)}
	switch l.kind {
	case isChange:
		n.Text = changeText(l)
		switch l.change {
		case push.ChangeDisabled, push.ChangeRemoved:
			n.Mood = "bad"
		case push.ChangeAdded, push.ChangeEnabled:
			n.Mood = "good"
		}
		return n
	case isDrop:
		n.Mood, n.Text = "bad", plural(int(l.count), "stanza")+" dropped: "+l.reason.Sentence()
		if l.reason == push.ReasonResumed || l.reason == push.ReasonAcknowledged {
			n.Mood = "wait"
		}
		if l.text != "" {
			n.Text += " (" + l.text + ")"
		}
		return n
	}
	n.Device = ""
	n.Text = fmt.Sprintf("session %s can be resumed for %s: %s", p.shownID(l.extra), span(l.took), l.reason.Sentence())
	if l.took == 0 {
		n.Text = fmt.Sprintf("session %s can be resumed for the usual time again: %s", p.shownID(l.extra), l.reason.Sentence())
	}
	return n
}

// changeText says what happened to a device.
func changeText(l *line) string {
	if l.operator {
		return "switched off by the operator " + l.text
	}
	what := l.change.String()
	switch l.change {
	case push.ChangeDisabled:
		what = "given up"
	case push.ChangeRemoved:
		what = "switched off"
	}
	what += ": " + l.reason.Sentence()
	if l.text != "" {
		what += " (" + l.text + ")"
	}
	return what
}

// related returns the lines of a story: everything that has to do with the given events and stanzas.
func related(lines []line, ids map[string]bool, numbers map[uint64]bool) []line {
	for i := range lines {
		if l := &lines[i]; l.kind == isEvent {
			for _, st := range stanzas(l.event) {
				if st.ID != "" && ids[st.ID] {
					numbers[l.number] = true
				}
			}
		}
	}
	var out []line
	for i := range lines {
		l := lines[i]
		keep := l.number != 0 && numbers[l.number] || slices.ContainsFunc(l.events, func(n uint64) bool { return numbers[n] })
		if l.kind == isChange && l.number == 0 && len(out) > 0 {
			// A registration that is disabled by the reply to a publish of this story.
			keep = keep || slices.ContainsFunc(out[max(0, len(out)-16):], func(o line) bool { return o.done && o.key == l.key && o.end == l.nanos })
		}
		if keep {
			out = append(out, l)
		}
	}
	return out
}

// informative ranks reasons for a no: that an event is about another session says less than any other.
func informative(r push.Reason) int {
	switch r {
	case push.ReasonOtherSession, push.ReasonNotNamed, push.ReasonNothing, push.ReasonResumed:
		return 0
	}
	return 1
}

// How things are written.

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }
func day(t time.Time) string   { return t.UTC().Format("2006-01-02") }

// span writes a duration as people say it.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 ms"
	case d < time.Millisecond:
		return "under 1 ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 100*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " d"
}

func rate(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 10:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
	return strconv.FormatFloat(f, 'f', 0, 64)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
