package pushhttp

import (
	"cmp"
	"slices"
	"strings"
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

	mu       sync.Mutex // readers exclude each other too: they are few, and an RWMutex costs each event 20 ns more
	chunks   [][]line   // grow up to cfg.Lines, then the oldest lines are used again
	used     int        // lines in chunks
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

// line is one thing that happened. Which fields mean something depends on its kind.
type line struct {
	nanos   int64 // its time, since 1970: a time.Time would be one more pointer to follow for the garbage collector
	seq     uint64
	number  uint64 // of the event
	account *account
	event   push.Event // of an event line, without bodies and values of options; of one that is in stanza, only copies of the line have it
	key     push.Key
	answers *push.Answers // of an event: the host's
	text    string        // the reason's detail, the error condition, the operator
	extra   string        // the error type, the session of an advice, the action
	events  []uint64
	mask    uint64        // of a verdict: which stanzas of the event it notifies of
	took    time.Duration // until the reply; an advice's timeout
	retryAt int64         // like nanos; zero: not
	end     int64         // of a publish that was answered: when that was taken note of
	count   int32
	try     int32
	kind    kind
	rule    push.Rule
	reason  push.Reason
	class   push.Class
	outcome push.Outcome
	change  push.ChangeKind
	notify  bool
	done    bool // of a publish: it was answered
	// operator: of a change, an operator did it, who is in text.
	operator bool

	// stanza is that of an event about one, which is raised says. The line that takes this one's place uses it again.
	stanza *push.Stanza
	raises raises

	inAll, inAccount links
}

// raises is which event about one stanza an event line is: nearly all are of these.
type raises uint8

const (
	raisesOther raises = iota // it is in line.event
	raisesArchiveAdded
	raisesOffline
	raisesGroupchat
	raisesStanzaQueued // line.extra has the session
)

// raised returns the event of an event line that is not a copy.
func (l *line) raised() push.Event {
	switch l.raises {
	case raisesArchiveAdded:
		return push.ArchiveAdded{Account: l.account.name, Stanza: *l.stanza}
	case raisesOffline:
		return push.Offline{Account: l.account.name, Stanza: *l.stanza}
	case raisesGroupchat:
		return push.Groupchat{Account: l.account.name, Stanza: *l.stanza}
	case raisesStanzaQueued:
		return push.StanzaQueued{Session: push.SessionID{Account: l.account.name, ID: l.extra}, Stanza: *l.stanza}
	default:
		return l.event
	}
}

// copied returns a copy of the line, which nobody uses again.
func (l *line) copied() line {
	c := *l
	c.event, c.stanza, c.raises = l.raised(), nil, raisesOther
	return c
}

func (l *line) at() time.Time { return time.Unix(0, l.nanos).UTC() }

// ended is when the reply to a publish was taken note of.
func (l *line) ended() time.Time { return time.Unix(0, l.end).UTC() }

// retry is when a publish is tried again, or zero.
func (l *line) retry() time.Time {
	if l.retryAt == 0 {
		return time.Time{}
	}
	return time.Unix(0, l.retryAt).UTC()
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
	// evicted: older lines made room.
	evicted bool
	// last is the number of its last line; trouble is when something went wrong last, and what.
	last        uint64
	trouble     int64
	troubleText string
	devices     []seen
	sessions    []connection
}

// seen is what is known of a device besides what the Engine says. It stays while older lines go.
type seen struct {
	key            push.Key
	name, resource string
	seen, told     int64 // when it was in touch with the server, and when a notification to it was accepted last
}

// connection is a session that is open, as far as this was told.
type connection struct {
	id, resource string
	key          push.Key
	bound        bool
}

// deviceOfAccount names a device in all.
type deviceOfAccount struct {
	account string
	key     push.Key
}

// given is when and why a device was given up.
type given struct {
	at    int64
	cause string
}

// Bounds of what is kept of an account besides its lines, and of the devices that were given up.
const (
	maxDevices  = 24
	maxSessions = 24
	maxOff      = 10_000
)

func (a *account) device(k push.Key) *seen {
	for i := range a.devices {
		if a.devices[i].key == k {
			return &a.devices[i]
		}
	}
	if len(a.devices) == maxDevices {
		a.devices = slices.Delete(a.devices, 0, 1)
	}
	a.devices = append(a.devices, seen{key: k})
	return &a.devices[len(a.devices)-1]
}

func (a *account) connection(id string) *connection {
	for i := range a.sessions {
		if a.sessions[i].id == id {
			return &a.sessions[i]
		}
	}
	return nil
}

func (a *account) opened(id, jid string) *connection {
	_, resource, _ := strings.Cut(jid, "/")
	c := a.connection(id)
	if c == nil {
		if len(a.sessions) == maxSessions {
			a.sessions = slices.Delete(a.sessions, 0, 1)
		}
		a.sessions = append(a.sessions, connection{})
		c = &a.sessions[len(a.sessions)-1]
	}
	*c = connection{id: id, resource: cut(resource)}
	return c
}

// learn takes from an event what it tells of sessions and devices.
func (a *account) learn(at int64, ev push.Event, d *push.Decision) {
	switch e := ev.(type) {
	case push.SessionOpen:
		a.opened(e.Session.ID, e.JID)
	case push.SessionRestored:
		c := a.opened(e.Session.ID, e.JID)
		c.key, c.bound = e.Bound, e.IsBound
	case push.SessionClose:
		a.touch(e.Session.ID, at)
		a.sessions = slices.DeleteFunc(a.sessions, func(c connection) bool { return c.id == e.Session.ID })
	case push.HibernationStart:
		a.touch(e.Session.ID, at)
	case push.HibernationEnd:
		a.touch(e.Session.ID, at)
	case push.Acknowledged:
		a.touch(e.Session.ID, at)
	case push.PushEnable:
		if e.Wishes != nil && e.Wishes.Name != "" {
			for i := range d.Changes { // its key may be one that the Engine completed
				a.device(d.Changes[i].Key).name = cut(e.Wishes.Name)
				break
			}
		}
	default:
		return
	}
	for i := range d.Changes {
		c := &d.Changes[i]
		id := c.Session
		if _, ok := ev.(push.PushEnable); ok && id == "" {
			id = ev.Subject().ID
		}
		if c.Kind == push.ChangeRemoved || c.Kind == push.ChangeDisabled || c.Kind == push.ChangeUnbound {
			continue
		}
		if s := a.connection(id); s != nil {
			s.key, s.bound = c.Key, true
			v := a.device(c.Key)
			v.resource, v.seen = s.resource, at
		}
	}
}

// touch notes that a session's device was in touch with the server.
func (a *account) touch(id string, at int64) {
	if c := a.connection(id); c != nil && c.bound {
		a.device(c.key).seen = at
	}
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

func (h *History) decided(number uint64, at time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number += h.base
	h.highest = max(h.highest, number)
	h.tally.decided(at, d)
	a := h.account(d.Account)
	l := h.add(a, isEvent, at)
	l.number, l.reason = number, d.Reason
	h.keep(l, ev)
	if !d.Answers.None() {
		l.answers = &push.Answers{Elsewhere: slices.Clone(d.Answers.Elsewhere), Vetoes: slices.Clone(d.Answers.Vetoes), Chats: slices.Clone(d.Answers.Chats)}
	}
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
	a.last = h.seq
	if l.stanza != nil {
		h.spare = l.stanza
	}
	*l = line{kind: k, nanos: at.UnixNano(), seq: h.seq, account: a, inAll: links{before: h.all.last}, inAccount: links{before: a.lines.last}}
	if last := h.all.append(i); last != 0 {
		h.line(last).inAll.after = i
	}
	if last := a.lines.append(i); last != 0 {
		h.line(last).inAccount.after = i
	}
	return l
}

// append makes a line the last one, and returns the one before it.
func (l *list) append(i int32) (last int32) {
	if last = l.last; last == 0 {
		l.first = i
	}
	l.last = i
	l.n++
	return last
}

// remove takes a line out of its lists, and its account out of the map if that was the last one, unless a line is being added to it.
func (h *History) remove(i int32, adding *account) {
	l := h.line(i)
	l.account.evicted, h.evicted = true, true
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

// keep notes an event without bodies, of which only about the length is left, and with stand-ins for the values of options.
func (h *History) keep(l *line, ev push.Event) {
	switch e := ev.(type) {
	case push.StanzaQueued:
		l.raises, l.extra = raisesStanzaQueued, e.Session.ID
		h.keepStanza(l, &e.Stanza)
	case push.ArchiveAdded:
		l.raises = raisesArchiveAdded
		h.keepStanza(l, &e.Stanza)
	case push.Offline:
		l.raises = raisesOffline
		h.keepStanza(l, &e.Stanza)
	case push.Groupchat:
		l.raises = raisesGroupchat
		h.keepStanza(l, &e.Stanza)
	case push.AckDelayed:
		e.Stanzas = queueWithoutText(e.Stanzas)
		l.event = e
	case push.HibernationStart:
		e.Stanzas = queueWithoutText(e.Stanzas)
		l.event = e
	case push.Ping:
		e.Registrations = slices.Clone(e.Registrations)
		l.event = e
	case push.PushEnable:
		e.Options = h.mask.Fields(e.Options[:min(len(e.Options), 32)])
		for i := range e.Options {
			f := &e.Options[i]
			f.Var, f.Values = cut(f.Var), f.Values[:min(len(f.Values), 8)]
		}
		l.event = e
	case push.Acknowledged:
		e.IDs = slices.Clone(e.IDs[:min(len(e.IDs), maxQueue)])
		l.event = e
	case push.SessionOpen, push.SessionRestored, push.SessionClose, push.PushDisable, push.HibernationEnd, push.AffiliationNone, push.AccountRemoved,
		push.SessionActive, push.SessionPresence, push.Displayed, push.ChatChanged: // no text in them
		l.event = ev
	default:
		l.event = ev
	}
}

func (h *History) keepStanza(l *line, st *push.Stanza) {
	if l.stanza = h.spare; l.stanza == nil {
		l.stanza = new(push.Stanza)
	}
	h.spare = nil
	*l.stanza = stanzaWithoutText(*st)
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
	st.ID, st.From, st.To, st.XML = cut(st.ID), cut(st.From), cut(st.To), ""
	return st
}

// blank stands for text; all bodies that are kept are the beginning of it.
var blank = string(make([]byte, 2048))
