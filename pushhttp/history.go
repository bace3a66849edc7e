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
	// Each takes about 0.4 KB of memory from its first use on, with what it points to, and an event that is larger, such as one with a queue of stanzas,
	// the room of as many lines as it needs. Default 100,000, which is about 40 MB, and not above 100 MB whatever strangers send.
	Lines int
	// PerAccount is how many of them one account can have, so that a noisy account does not cost the others their history. Default 10,000.
	PerAccount int
}

// History keeps what an Engine did lately, in memory: give its Observer to the Engine's Config. It holds neither the text of
// messages nor the values of publish options. Safe for simultaneous use.
type History struct {
	cfg HistoryConfig

	mu       sync.Mutex // readers exclude each other too: they are few, and an RWMutex costs each event 20 ns more
	chunks   [][]line   // grow up to cfg.Lines; then lines are used again
	used     int        // lines in chunks
	free     []int32    // those of them that are in no list, as indices plus one
	all      list       // every line, in the order of time
	accounts map[string]*account
	seq      uint64
	tally    tally
	mask     *trace.Mask
	// off are the devices that were given up, as far as they were while this watched.
	off map[deviceOfAccount]given
	// spare is what the last line that went had of a stanza.
	spare *push.Stanza
	// operators are those who are switching a device off at this moment.
	operators map[deviceOfAccount]string

	// runs are the Engines that this was the history of, one after another; base is what is added to the numbers of the present one's events,
	// so that no two events have the same.
	runs    []run
	base    uint64
	highest uint64
	evicted bool
}

// run is the time of one Engine.
type run struct {
	started time.Time
	seq     uint64 // of the last line before it
	host    string
	policy  push.Policy
}

// NewHistory returns an empty History.
func NewHistory(cfg HistoryConfig) *History {
	cfg.Lines = max(cmp.Or(cfg.Lines, 100_000), 16)
	cfg.PerAccount = max(cmp.Or(cfg.PerAccount, 10_000), 16)
	return &History{cfg: cfg, accounts: make(map[string]*account), mask: trace.NewMask(),
		off: make(map[deviceOfAccount]given), operators: make(map[deviceOfAccount]string)}
}

// Observer returns what has to be told of the Engine's doings.
func (h *History) Observer() *push.Observer {
	return &push.Observer{Quick: true, Started: h.start, Decided: h.decided, Affected: h.affected, Sent: h.sent, Replied: h.replied}
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

// now is the time by the Engine's clock, by which everything here is dated.
func (h *History) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.runs) == 0 {
		return time.Now()
	}
	started := h.runs[len(h.runs)-1].started
	return started.Round(0).Add(time.Since(started))
}

func (h *History) decided(number uint64, at time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number += h.base
	h.highest = max(h.highest, number)
	h.tally.decided(at, d)
	a := h.account(d.Account)
	l := h.add(a, isEvent, at)
	l.number, l.reason = number, d.Reason
	if !d.Answers.None() {
		l.answers = &push.Answers{Elsewhere: slices.Clone(d.Answers.Elsewhere), Vetoes: slices.Clone(d.Answers.Vetoes), Chats: slices.Clone(d.Answers.Chats)}
	}
	h.keep(l, ev)
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		l := h.add(a, isVerdict, at)
		l.number, l.key, l.notify, l.rule, l.reason, l.class, l.count = number, v.Key, v.Notify, v.Rule, v.Reason, v.Class, int32(v.Count)
		l.text = cut(v.Detail)
		if len(v.Stanzas) > 0 {
			l.mask = maskOf(stanzas(ev), v.Stanzas)
		}
	}
	a.learn(at.UnixNano(), ev, d)
	h.effects(a, at, number, &d.Effects)
}

func (h *History) affected(name string, at time.Time, e *push.Effects) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.account(name)
	h.effects(a, at, 0, e)
	h.forget(a)
}

func (h *History) effects(a *account, at time.Time, number uint64, e *push.Effects) {
	for i := range e.Changes {
		c := &e.Changes[i]
		l := h.add(a, isChange, at)
		l.number, l.key, l.reason, l.text, l.change = number, c.Key, c.Reason, cut(c.Detail), c.Kind
		if c.Kind == push.ChangeRemoved && len(h.operators) > 0 {
			if who, ok := h.operators[deviceOfAccount{a.name, c.Key}]; ok {
				l.text, l.operator = cut(who), true
			}
		}
		h.changed(a, at, c)
		h.tally.changed(at, a, c)
	}
	for i := range e.Drops {
		d := &e.Drops[i]
		l := h.add(a, isDrop, at)
		l.number, l.key, l.reason, l.text, l.class, l.count = number, d.Key, d.Reason, cut(d.Detail), d.Class, int32(d.Count)
		l.events = h.numbers(d.Events)
		h.tally.dropped(at, a, d)
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
}

func (h *History) replied(at time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.account(n.Account)
	h.tally.replied(at, a, n, reply, res, took)
	if res.Outcome == push.OutcomeAccepted {
		a.device(n.Key).told = at.UnixNano()
	}
	l := h.unanswered(a, n.Key)
	if l == nil {
		l = h.add(a, isReply, at)
		l.key, l.class, l.count, l.try = n.Key, n.Class, int32(n.Count), int32(n.Try)
	}
	l.done, l.outcome, l.took, l.end = true, res.Outcome, took, at.UnixNano()
	if !res.RetryAt.IsZero() {
		l.retryAt = res.RetryAt.UnixNano()
	}
	l.text, l.extra = cut(reply.Condition), cut(reply.Type)
	if reply.Missing {
		l.text = noAnswer
	} else if reply.Vetoed != "" {
		l.text = cut(reply.Vetoed)
	}
	a.last = max(a.last, h.next())
}

// changed keeps the list of devices that were given up.
func (h *History) changed(a *account, at time.Time, c *push.Change) {
	k := deviceOfAccount{a.name, c.Key}
	switch c.Kind {
	case push.ChangeDisabled:
		if len(h.off) < maxOff {
			h.off[k] = given{at.UnixNano(), cut(c.Detail)}
		}
	case push.ChangeAdded, push.ChangeUpdated, push.ChangeEnabled, push.ChangeRemoved:
		if len(h.off) > 0 {
			delete(h.off, k)
		}
	}
}

// next numbers something that changed a line.
func (h *History) next() uint64 {
	h.seq++
	return h.seq
}

// forget removes an account of which nothing is kept.
func (h *History) forget(a *account) {
	if a.lines.n == 0 {
		delete(h.accounts, a.name)
	}
}

// acting has what happens to a device meanwhile be an operator's doing. It returns what ends that.
func (h *History) acting(account string, k push.Key, operator string) (done func()) {
	d := deviceOfAccount{account, k}
	h.mu.Lock()
	h.operators[d] = operator
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		delete(h.operators, d)
		h.mu.Unlock()
	}
}

// acted notes what an operator did.
func (h *History) acted(at time.Time, act *Action) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.account(act.Account)
	l := h.add(a, isAction, at)
	l.key, l.text, l.extra = act.Key, cut(act.Operator), act.Kind
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

// about is what is known of an account besides its lines.
type about struct {
	last     uint64
	evicted  bool
	devices  []seen
	sessions []connection
}

func (h *History) about(name string) (b about) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.accounts[name]; a != nil {
		b = about{a.last, a.evicted, slices.Clone(a.devices), slices.Clone(a.sessions)}
	}
	return b
}

// Reach is how far back the history goes: Since is the time of the oldest line that is kept, and Whole says that nothing older made room for
// newer lines. Since is zero if there is nothing.
type Reach struct {
	Since time.Time
	Whole bool
	// Lines are kept in all, for so many Accounts.
	Lines, Accounts int
}

// Reach returns how far back the history goes.
func (h *History) Reach() Reach {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := Reach{Lines: h.all.n, Accounts: len(h.accounts), Whole: !h.evicted}
	if h.all.first != 0 {
		r.Since = h.line(h.all.first).at()
	}
	return r
}

// of returns copies of an account's lines, oldest first. It lets the Engine go on every now and then.
func (h *History) of(name string) (ls []line) {
	const atOnce = 512
	var at int32 // the last that was copied
	var seq uint64
	for more := true; more; {
		h.mu.Lock()
		a := h.accounts[name]
		if a == nil {
			h.mu.Unlock()
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
				ls = append(ls, l.copied())
				at, seq = next, l.seq
				n++
			}
			next = h.line(next).inAccount.after
		}
		more = next != 0
		h.mu.Unlock()
	}
	return ls
}

// find returns an account that f says yes to.
func (h *History) find(f func(name string) bool) (string, bool) {
	h.mu.Lock()
	names := make([]string, 0, len(h.accounts))
	for name := range h.accounts {
		names = append(names, name)
	}
	h.mu.Unlock()
	if i := slices.IndexFunc(names, f); i >= 0 {
		return names[i], true
	}
	return "", false
}
