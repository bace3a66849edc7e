package pushhttp

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
)

// HistoryConfig bounds a History.
type HistoryConfig struct {
	// Lines is how many lines are kept in all. An event is one line, and one more for each registration that it was decided for; a publish is one.
	// Each takes about 0.4 KB of memory from its first use on, with what it points to. Default 100,000, which is about 40 MB.
	Lines int
	// PerAccount is how many of them one account can have, so that a noisy account does not cost the others their history. Default 10,000.
	PerAccount int
}

// History keeps what an Engine did lately, in memory: give its Observer to the Engine's Config. It holds neither the text of
// messages nor the values of publish options. Safe for simultaneous use.
type History struct {
	cfg HistoryConfig

	mu       sync.RWMutex
	chunks   [][]line // grow up to cfg.Lines, then the oldest lines are used again
	used     int      // lines in chunks
	all      list     // every line, in the order of time
	accounts map[string]*account
	seq      uint64
	tally    tally
	watchers map[*watcher]struct{}
	mask     *trace.Mask

	// runs are the Engines that this was the history of, one after another; base is what is added to the numbers of the present one's events,
	// so that no two events have the same.
	runs    []run
	base    uint64
	highest uint64
}

// run is the time of one Engine.
type run struct {
	started time.Time
	seq     uint64 // of the last line before it
	host    string
	policy  push.Policy
}

// line is one thing that happened. Which fields mean something depends on its kind.
type line struct {
	nanos   int64 // its time, since 1970: a time.Time would be one more pointer to follow for the garbage collector
	seq     uint64
	number  uint64 // of the event
	account *account
	event   push.Event // of an event line, without bodies and values of options
	key     push.Key
	answers *push.Answers // of an event: the host's
	text    string        // the reason's detail, the error condition, the operator
	extra   string        // the error type, the session of an advice, the action
	events  []uint64
	mask    uint64        // of a verdict: which stanzas of the event it notifies of
	took    time.Duration // until the reply; an advice's timeout
	retryAt int64         // like nanos; zero: not
	count   int32
	try     int32
	kind    kind
	rule    push.Rule
	reason  push.Reason
	class   push.Class
	outcome push.Outcome
	notify  bool
	done    bool // of a publish: it was answered

	inAll, inAccount links
}

func (l *line) at() time.Time { return time.Unix(0, l.nanos) }

// retry is when a publish is tried again, or zero.
func (l *line) retry() time.Time {
	if l.retryAt == 0 {
		return time.Time{}
	}
	return time.Unix(0, l.retryAt)
}

type kind uint8

const (
	isEvent kind = iota
	isVerdict
	isPublish
	isReply // of a publish whose line is gone
	isChange
	isDrop
	isAdvice
	isAction
)

// links are the neighbours in a list, as indices plus one.
type links struct{ before, after int32 }

type list struct {
	first, last int32 // indices plus one
	n           int
}

// account is what is kept of one account.
type account struct {
	name  string
	lines list
}

// NewHistory returns an empty History.
func NewHistory(cfg HistoryConfig) *History {
	cfg.Lines = max(cmp.Or(cfg.Lines, 100_000), 16)
	cfg.PerAccount = max(cmp.Or(cfg.PerAccount, 10_000), 16)
	return &History{cfg: cfg, accounts: make(map[string]*account), watchers: make(map[*watcher]struct{}), mask: trace.NewMask()}
}

// Observer returns what has to be told of the Engine's doings.
func (h *History) Observer() *push.Observer {
	return &push.Observer{Started: h.start, Decided: h.decided, Affected: h.affected, Sent: h.sent, Replied: h.replied}
}

// maxRuns bounds how many Engines are remembered.
const maxRuns = 64

// start takes note of a new Engine. What an earlier one knew of sessions is over.
func (h *History) start(at time.Time, host string, p push.Policy) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.runs) > 0 {
		h.base = h.highest
	}
	if len(h.runs) == maxRuns {
		h.runs = slices.Delete(h.runs, 0, 1)
	}
	h.runs = append(h.runs, run{at, h.seq, host, p})
}

func (h *History) decided(number uint64, at time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
	kept := h.withoutText(ev)
	h.mu.Lock()
	defer h.mu.Unlock()
	number += h.base
	h.highest = max(h.highest, number)
	h.tally.decided(at, d)
	a := h.account(d.Account)
	l := h.add(a, isEvent, at)
	l.number, l.event, l.reason = number, kept, d.Reason
	if !d.Answers.None() {
		l.answers = &push.Answers{Elsewhere: slices.Clone(d.Answers.Elsewhere), Vetoes: slices.Clone(d.Answers.Vetoes)}
	}
	queue := stanzas(kept)
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		l := h.add(a, isVerdict, at)
		l.number, l.key, l.notify, l.rule, l.reason, l.class, l.count = number, v.Key, v.Notify, v.Rule, v.Reason, v.Class, int32(v.Count)
		l.text = cut(v.Detail)
		l.mask = maskOf(queue, v.Stanzas)
	}
	h.effects(a, at, number, &d.Effects)
	h.tell(a)
}

func (h *History) affected(name string, at time.Time, e *push.Effects) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.account(name)
	h.effects(a, at, 0, e)
	h.tell(a)
}

func (h *History) effects(a *account, at time.Time, number uint64, e *push.Effects) {
	for i := range e.Changes {
		c := &e.Changes[i]
		l := h.add(a, isChange, at)
		l.number, l.key, l.reason, l.text, l.extra = number, c.Key, c.Reason, cut(c.Detail), string(c.Kind)
		h.tally.changed(at, a.name, c)
	}
	for i := range e.Drops {
		d := &e.Drops[i]
		l := h.add(a, isDrop, at)
		l.number, l.key, l.reason, l.text, l.class, l.count = number, d.Key, d.Reason, cut(d.Detail), d.Class, int32(d.Count)
		l.events = h.numbers(d.Events)
		h.tally.dropped(at, a.name, d)
	}
	for i := range e.Advice {
		ad := &e.Advice[i]
		l := h.add(a, isAdvice, at)
		l.number, l.reason, l.took, l.extra = number, ad.Reason, ad.Timeout, ad.Session.ID
	}
}

func (h *History) sent(at time.Time, n *push.Notification) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tally.sent(at, n)
	a := h.account(n.Account)
	l := h.add(a, isPublish, at)
	l.key, l.class, l.count, l.try, l.events = n.Key, n.Class, int32(n.Count), int32(n.Try), h.numbers(n.Events)
	h.tell(a)
}

func (h *History) replied(at time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tally.replied(at, n, reply, res, took)
	a := h.account(n.Account)
	l := h.unanswered(a, n.Key)
	if l == nil {
		l = h.add(a, isReply, at)
		l.key, l.class, l.count, l.try = n.Key, n.Class, int32(n.Count), int32(n.Try)
	}
	l.done, l.outcome, l.took = true, res.Outcome, took
	if !res.RetryAt.IsZero() {
		l.retryAt = res.RetryAt.UnixNano()
	}
	l.text, l.extra = cut(reply.Condition), cut(reply.Type)
	if reply.Missing {
		l.text = "no answer"
	} else if reply.Vetoed != "" {
		l.text = cut(reply.Vetoed)
	}
	h.tell(a)
}

// acted notes what an operator did.
func (h *History) acted(at time.Time, act *Action) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.account(act.Account)
	l := h.add(a, isAction, at)
	l.key, l.text, l.extra = act.Key, cut(act.Operator), act.Kind
	h.tell(a)
}

// unanswered returns the newest publish to a registration, if it has no reply. It looks no further than a publish takes.
func (h *History) unanswered(a *account, k push.Key) *line {
	i := a.lines.last
	for range 4096 {
		if i == 0 {
			return nil
		}
		l := h.line(i)
		if l.kind == isPublish && l.key == k {
			if l.done {
				return nil
			}
			return l
		}
		i = l.inAccount.before
	}
	return nil
}

// numbers are those of events, as they are here.
func (h *History) numbers(events []uint64) []uint64 {
	out := slices.Clone(events)
	for i := range out {
		out[i] += h.base
	}
	return out
}

func (h *History) account(name string) *account {
	a := h.accounts[name]
	if a == nil {
		a = &account{name: name}
		h.accounts[name] = a
	}
	return a
}

// chunk is how many lines are made at a time.
const chunk = 1024

// line returns the line of an index plus one.
func (h *History) line(i int32) *line { return &h.chunks[(i-1)/chunk][(i-1)%chunk] }

// add returns a new line of an account, which takes the place of its oldest or of the oldest of all if there is no room.
func (h *History) add(a *account, k kind, at time.Time) *line {
	var i int32
	switch {
	case a.lines.n >= h.cfg.PerAccount:
		i = a.lines.first
		h.remove(i, a)
	case h.used < h.cfg.Lines:
		if h.used%chunk == 0 {
			h.chunks = append(h.chunks, make([]line, chunk))
		}
		h.used++
		i = int32(h.used)
	default:
		i = h.all.first
		h.remove(i, a)
	}
	h.seq++
	l := h.line(i)
	*l = line{kind: k, nanos: at.UnixNano(), seq: h.seq, account: a}
	h.append(&h.all, i, func(l *line) *links { return &l.inAll })
	h.append(&a.lines, i, func(l *line) *links { return &l.inAccount })
	return l
}

func (h *History) append(to *list, i int32, of func(*line) *links) {
	*of(h.line(i)) = links{before: to.last}
	if to.last != 0 {
		of(h.line(to.last)).after = i
	} else {
		to.first = i
	}
	to.last = i
	to.n++
}

// remove takes a line out of its lists, and its account out of the map if that was the last one, unless a line is being added to it.
func (h *History) remove(i int32, adding *account) {
	l := h.line(i)
	h.unlink(&h.all, l.inAll, func(l *line) *links { return &l.inAll })
	h.unlink(&l.account.lines, l.inAccount, func(l *line) *links { return &l.inAccount })
	if l.account.lines.n == 0 && l.account != adding {
		delete(h.accounts, l.account.name)
	}
}

func (h *History) unlink(from *list, at links, of func(*line) *links) {
	if at.before != 0 {
		of(h.line(at.before)).after = at.after
	} else {
		from.first = at.after
	}
	if at.after != 0 {
		of(h.line(at.after)).before = at.before
	} else {
		from.last = at.before
	}
	from.n--
}

// of returns copies of an account's lines, oldest first. It lets the Engine go on every now and then.
func (h *History) of(name string) (ls []line) {
	const atOnce = 512
	var at int32 // the last that was copied
	var seq uint64
	for more := true; more; {
		h.mu.RLock()
		a := h.accounts[name]
		if a == nil {
			h.mu.RUnlock()
			return ls
		}
		next := a.lines.first
		if at != 0 && h.line(at).seq == seq {
			next = h.line(at).inAccount.after
		}
		if ls == nil {
			ls = make([]line, 0, a.lines.n)
		}
		for n := 0; next != 0 && n < atOnce; {
			if l := h.line(next); l.seq > seq {
				ls = append(ls, *l)
				at, seq = next, l.seq
				n++
			}
			next = h.line(next).inAccount.after
		}
		more = next != 0
		h.mu.RUnlock()
	}
	return ls
}

// names returns the accounts that were seen lately, newest first.
func (h *History) names(limit int) (names []string) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	seen := make(map[*account]bool)
	i := h.all.last
	for range 10_000 {
		if i == 0 || len(names) == limit {
			break
		}
		l := h.line(i)
		if !seen[l.account] {
			seen[l.account] = true
			names = append(names, l.account.name)
		}
		i = l.inAll.before
	}
	return names
}

// find returns an account that f says yes to.
func (h *History) find(f func(name string) bool) (string, bool) {
	h.mu.RLock()
	names := make([]string, 0, len(h.accounts))
	for name := range h.accounts {
		names = append(names, name)
	}
	h.mu.RUnlock()
	if i := slices.IndexFunc(names, f); i >= 0 {
		return names[i], true
	}
	return "", false
}

// maxText bounds each text of others that is kept.
const maxText = 256

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText-1] + "…"
}

// stanzas returns those of an event.
func stanzas(ev push.Event) []push.Stanza { return trace.Stanzas(ev) }

// maskOf says which of the first 64 stanzas are among ids, which are in the same order.
func maskOf(queue []push.Stanza, ids []string) (mask uint64) {
	for i := range queue {
		if len(ids) == 0 || i == 64 {
			break
		}
		if queue[i].ID == ids[0] {
			mask |= 1 << i
			ids = ids[1:]
		}
	}
	return mask
}

// maxQueue bounds how many stanzas of one event are kept.
const maxQueue = 256

// withoutText returns a copy of an event without bodies, of which only about the length is left, and with stand-ins for the values of options.
func (h *History) withoutText(ev push.Event) push.Event {
	switch e := ev.(type) {
	case push.AckDelayed:
		e.Stanzas = queueWithoutText(e.Stanzas)
		return e
	case push.HibernationStart:
		e.Stanzas = queueWithoutText(e.Stanzas)
		return e
	case push.StanzaQueued:
		e.Stanza = stanzaWithoutText(e.Stanza)
		return e
	case push.ArchiveAdded:
		e.Stanza = stanzaWithoutText(e.Stanza)
		return e
	case push.Offline:
		e.Stanza = stanzaWithoutText(e.Stanza)
		return e
	case push.Groupchat:
		e.Stanza = stanzaWithoutText(e.Stanza)
		return e
	case push.Ping:
		e.Registrations = slices.Clone(e.Registrations)
		return e
	case push.PushEnable:
		e.Options = h.mask.Fields(e.Options[:min(len(e.Options), 32)])
		for i := range e.Options {
			f := &e.Options[i]
			f.Var, f.Values = cut(f.Var), f.Values[:min(len(f.Values), 8)]
		}
		return e
	case push.SessionOpen, push.SessionClose, push.PushDisable, push.HibernationEnd, push.AffiliationNone, push.AccountRemoved: // no text in them
	}
	return ev
}

func queueWithoutText(q []push.Stanza) []push.Stanza {
	if len(q) == 0 {
		return nil
	}
	kept := make([]push.Stanza, min(len(q), maxQueue))
	for i := range kept {
		kept[i] = stanzaWithoutText(q[i])
	}
	return kept
}

func stanzaWithoutText(st push.Stanza) push.Stanza {
	if st.Body != "" {
		n := 1
		for n < len(st.Body) && n < len(blank) {
			n *= 4
		}
		st.Body = blank[:min(n, len(blank))]
	}
	st.ID, st.From, st.To = cut(st.ID), cut(st.From), cut(st.To)
	return st
}

// blank stands for text; all bodies that are kept are the beginning of it.
var blank = string(make([]byte, 2048))
