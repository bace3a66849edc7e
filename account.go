package push

import (
	"slices"
	"strings"
	"time"
)

// Account is the pure state machine of one account: its registrations, its sessions, what was notified, and what waits. It has no
// clock, goroutine, lock, log, or I/O: the time is an argument, and what is to be done comes back as data. An Engine is a shell
// around Accounts; a host that wants a shell of its own calls them like this:
//
//   - Handle for every event, in their order;
//   - Due when Next says so, and after Handle: it names the registrations whose notification may go out;
//   - Begin when one of those really goes out (after [Service.Admit]), and End with the reply.
//
// The same calls with the same arguments give the same results. It is not safe for simultaneous use.
type Account struct {
	name     string
	policy   *Policy
	regs     []*registration // in the order of their keys
	sessions []*session
	// touched is when something was remembered last, or a session ended since. left is when a session ended last.
	touched, left instant
	// gone are the keys of registrations that were removed while a publish for them was not answered. nil: there are none, as a rule.
	gone *[]Key
	// chats is what is known of chats: which stanzas of them somebody was notified of, what the host answered. nil: nothing.
	chats *chats
	// key is that of the hashes of stanza IDs.
	key hashKey
	// claims counts what sessions claimed, to tell which one was last.
	claims uint32
	// changed counts ChatChanged. It is small, for it only tells whether there was one while the host was asked.
	changed uint16
	// loaded: the registrations have been read.
	loaded bool
}

// registration is a Registration with what the rules and the pacing know about it.
type registration struct {
	Registration
	mem  notified
	pace pacer
	// unread counts the important and urgent stanzas that it was notified of since its session was last active, and not withdrawn since.
	unread int32
	// retried is when a tombstone was tried again last (Policy.RetryDisabled), in seconds since 1970. Zero: never.
	retried uint32
}

// Facts is what the rules may know besides the event.
type Facts struct {
	// Now is the time. It must not go back from one call to the next.
	Now time.Time
	// Number is the event's number, which notifications name as their cause.
	Number uint64
	// Elsewhere are the registrations that have a session on another node of the host. They count as active.
	Elsewhere []Key
	// Chats are what the host answered to [Account.Asks], if it was asked.
	Chats []ChatAnswer
	// Veto, if not nil, is the host's last word on each registration and stanza that would be notified: text other than "" is a no.
	Veto func(r *Registration, st Stanza) string
}

// NewAccount returns an account with the registrations that are stored for it. p is shared between accounts and must not be changed
// any more; nil means the default policy.
func NewAccount(name string, p *Policy, rs []Registration) *Account {
	a := OpenAccount(name, p)
	a.loaded = true
	for _, r := range rs {
		if r.Account == name {
			a.put(r)
		}
	}
	return a
}

// OpenAccount returns an account whose registrations have not been read, because that takes time, or failed. It takes events like any other: a
// session is known from its beginning, and what it enabled, was restored with or is by its client ID is bound to it by [Account.Load]. An event that
// asks for registrations is answered for those that are known meanwhile; one for which that is none has ReasonStore. Such an event
// can be given to Handle again after Load: a stanza that was notified is not notified again.
func OpenAccount(name string, p *Policy) *Account {
	return &Account{name: name, policy: p.resolve()}
}

// Loaded tells whether the account's registrations have been read.
func (a *Account) Loaded() bool { return a.loaded }

// Registrations returns the account's registrations in the order of their keys.
func (a *Account) Registrations() []Registration {
	rs := make([]Registration, len(a.regs))
	for i, r := range a.regs {
		rs[i] = r.Registration
	}
	return rs
}

// Load gives the account the registrations that are stored for it: those that it was opened without, or, if it has been loaded before, those that
// are stored by now, because another node may have changed them. What is known of sessions and notifications stays with the keys that stay. e reports
// what another node did and, the first time, which sessions are bound to what, with the advice that follows from it.
func (a *Account) Load(rs []Registration, now time.Time, e *Effects) {
	first := !a.loaded
	a.loaded = true
	for _, r := range slices.Clone(a.regs) {
		if !slices.ContainsFunc(rs, func(n Registration) bool { return n.Key == r.Key && n.Account == a.name }) {
			a.remove(r, ReasonRemoved, e)
		}
	}
	for _, n := range rs {
		if n.Account != a.name {
			continue
		}
		old := a.find(n.Key)
		fresh := old == nil
		wasDisabled := !fresh && !old.Health.Disabled.IsZero()
		fromStub := !fresh && old.pace.stub
		r := a.put(n)
		disabled := !r.Health.Disabled.IsZero()
		switch {
		case fresh && !first:
			e.change(n.Key, ChangeAdded, ReasonElsewhere, "")
		case fresh || fromStub:
		case disabled && !wasDisabled:
			e.change(n.Key, ChangeDisabled, ReasonElsewhere, n.Health.Cause)
		case wasDisabled && !disabled:
			e.change(n.Key, ChangeEnabled, ReasonElsewhere, "")
		}
		if disabled && !wasDisabled && !fresh { // what waits for one that was disabled before is its retry
			a.unbind(r, ReasonErrors, e)
			r.drop(r.pace.takeAll(), ReasonDisabled, "", e)
		}
	}
	if first {
		a.resolve(now, e)
	}
}

// Idle tells whether nothing would be lost if the account were forgotten, its registrations being stored: no session, nothing
// waiting or in flight, nothing that has to be remembered.
func (a *Account) Idle(now time.Time) bool {
	at, ok := a.idleAt()
	return ok && !now.Before(at)
}

// idleAt returns when the account will be Idle if nothing happens. It returns false if something has to happen first.
func (a *Account) idleAt() (time.Time, bool) {
	if len(a.sessions) > 0 || a.gone != nil {
		return time.Time{}, false
	}
	var at time.Time
	if a.touched != 0 {
		at = a.touched.time().Add(a.policy.RememberFor)
	}
	for _, r := range a.regs {
		p := &r.pace
		if p.queued || p.inFlight || len(p.waiting) > 0 {
			return time.Time{}, false
		}
		if t := p.spaced.time(); t.After(at) {
			at = t
		}
	}
	return at, true
}

func (a *Account) find(k Key) *registration {
	i, ok := slices.BinarySearchFunc(a.regs, k, func(r *registration, k Key) int { return r.Key.Compare(k) })
	if !ok {
		return nil
	}
	return a.regs[i]
}

// put inserts or replaces the stored part of a registration.
func (a *Account) put(n Registration) *registration {
	i, ok := slices.BinarySearchFunc(a.regs, n.Key, func(r *registration, k Key) int { return r.Key.Compare(k) })
	n.Account = a.name // one string for all
	if ok {
		a.regs[i].Registration, a.regs[i].pace.stub = n, false
	} else {
		a.regs = slices.Insert(a.regs, i, &registration{Registration: n})
		a.regs[i].pace.inFlight = a.isGone(n.Key)
	}
	return a.regs[i]
}

// isGone tells whether a registration with the key was removed while a publish for it was not answered.
func (a *Account) isGone(k Key) bool { return a.gone != nil && slices.Contains(*a.gone, k) }

func (a *Account) remove(r *registration, reason Reason, e *Effects) {
	if r.pace.inFlight && !a.isGone(r.Key) {
		if a.gone == nil {
			a.gone = new([]Key)
		}
		*a.gone = append(*a.gone, r.Key)
	}
	a.unbind(r, reason, e)
	r.drop(r.pace.takeAll(), reason, "", e)
	a.regs = slices.DeleteFunc(a.regs, func(o *registration) bool { return o == r })
	e.change(r.Key, ChangeRemoved, reason, "")
}

// Handle takes note of an event and answers it in d, which it resets. It copies what it keeps of the event.
func (a *Account) Handle(ev Event, f Facts, d *Decision) {
	d.reset(a.name)
	d.Answers.Elsewhere = f.Elsewhere
	switch e := a.addressed(ev).(type) {
	case SessionOpen:
		a.open(e, d)
	case SessionRestored:
		a.restore(e, f.Now, d)
	case SessionClose:
		if !a.close(e.Session.ID, f.Now, &d.Effects) {
			d.Reason = ReasonUnknownSession
		}
	case PushEnable:
		a.enable(e, f.Now, d)
	case PushDisable:
		if e.Service == "" {
			return // the device has none with Push 2.0
		}
		for _, r := range a.matching(e.Key) {
			a.remove(r, ReasonDisabledByUser, &d.Effects)
		}
	case AckDelayed:
		a.judgeSession(onAckDelayed, e.Session.ID, e.Stanzas, &f, d)
	case Acknowledged:
		a.acknowledge(e, d)
	case SessionActive:
		if s := a.session(e.Session.ID); s != nil {
			s.use(f.Now)
		} else {
			d.Reason = ReasonUnknownSession
		}
	case SessionPresence:
		if s := a.session(e.Session.ID); s != nil {
			s.away = e.Away
		} else {
			d.Reason = ReasonUnknownSession
		}
	case Displayed:
		d.Reason = a.read(e.Chat, e.UpTo, a.session(e.Session), f.Now, &d.Effects)
	case ChatChanged:
		a.changed++
		a.forgetChat(e.Chat)
	case HibernationStart:
		if s := a.session(e.Session.ID); s != nil {
			a.hibernate(s, f.Now, d)
		}
		a.judgeSession(onHibernationStart, e.Session.ID, e.Stanzas, &f, d)
		a.alerted(e.Session.ID, d)
	case StanzaQueued:
		a.judgeSession(onStanzaQueued, e.Session.ID, []Stanza{e.Stanza}, &f, d)
	case HibernationEnd:
		a.judgeSession(onHibernationEnd, e.Session.ID, nil, &f, d)
		if s := a.session(e.Session.ID); s != nil {
			a.resume(s, d)
		}
	case ArchiveAdded:
		a.judgeAccount(onArchiveAdded, &e.Stanza, &f, d)
	case Offline:
		a.judgeAccount(onOffline, &e.Stanza, &f, d)
	case Groupchat:
		a.judgeAccount(onGroupchat, &e.Stanza, &f, d)
	case Ping:
		a.ping(e, &f, d)
	case AffiliationNone:
		if r := a.find(e.Key); r != nil {
			a.remove(r, ReasonRevoked, &d.Effects)
		}
	case AccountRemoved:
		for _, r := range slices.Clone(a.regs) {
			a.remove(r, ReasonAccount, &d.Effects)
		}
		a.sessions, a.touched = nil, 0
		a.chats = nil
	}
}

// Remove removes one registration, because of reason. It reports whether there was one.
func (a *Account) Remove(k Key, reason Reason, e *Effects) bool {
	r := a.find(k)
	if r != nil {
		a.remove(r, reason, e)
	}
	return r != nil
}

// matching returns the registrations that a key names; without a node it names all of the service.
func (a *Account) matching(k Key) []*registration {
	var rs []*registration
	for _, r := range a.regs {
		if k.Names(r.Key) {
			rs = append(rs, r)
		}
	}
	return rs
}

// enable adds or replaces a registration and binds the session to it (rule R1).
func (a *Account) enable(e PushEnable, now time.Time, d *Decision) {
	s := a.session(e.Session.ID)
	n := a.enabling(e, now)
	kind, reason := ChangeAdded, ReasonEnabled
	if old := a.find(e.Key); old != nil {
		kind, reason = ChangeUpdated, ReasonReplaced
		if !old.Health.Disabled.IsZero() {
			kind, reason = ChangeEnabled, ReasonReenabled
		}
		later := func(o *registration) bool { return o.Enabled.After(old.Enabled) }
		n, _ = n.renew(old.Registration, a.policy.MaxRegistrations > 0 && slices.ContainsFunc(a.regs, later))
	}
	r := a.put(n)
	d.change(e.Key, kind, reason, "")
	if s != nil {
		c := &d.Changes[len(d.Changes)-1]
		c.Session, c.Rule = s.id, RuleBind
		r.caughtUp()
		a.give(s, r, &d.Effects)
	} else {
		c := Change{Key: e.Key, Kind: ChangeUnbound, Session: e.Session.ID, Rule: RuleBind, Reason: ReasonUnknownSession}
		if c.Session == "" {
			c.Reason = ReasonOperator
		}
		d.Changes = append(d.Changes, c)
	}
	for _, o := range slices.Clone(a.regs) {
		if o.sameDevice(r.Registration) {
			a.remove(o, ReasonReplaced, &d.Effects)
		}
	}
	if len(a.regs) > a.policy.MaxRegistrations {
		for _, k := range Evict(a.Registrations(), a.policy.MaxRegistrations) {
			a.remove(a.find(k), ReasonLimit, &d.Effects)
		}
	}
}

// enabling returns the registration that an enable makes. Its time has milliseconds, as databases and traces do, so that the order of
// registrations is the same when they come back from there.
func (a *Account) enabling(e PushEnable, now time.Time) Registration {
	n := Registration{Account: a.name, Key: e.Key, Options: cloneFields(e.Options), Wishes: e.Wishes, Enabled: now.Truncate(time.Millisecond)}
	if s := a.session(e.Session.ID); s != nil {
		n.Client = s.client()
	}
	return n
}

func cloneFields(fs []Field) []Field {
	c := slices.Clone(fs)
	for i := range c {
		c[i].Values = slices.Clone(c[i].Values)
	}
	return c
}

// acknowledge drops what waits for stanzas that the session has got after all: for its device, and for another that it was bound to when they were
// raised. They stay remembered, since the device has them, and count as unread no longer.
func (a *Account) acknowledge(e Acknowledged, d *Decision) {
	s := a.session(e.Session.ID)
	if s == nil {
		d.Reason = ReasonUnknownSession
		return
	}
	var buf [16]uint64
	var hashes []uint64 // made only if somebody needs them
	for _, r := range a.regs {
		p := &r.pace
		if len(p.waiting) == 0 && !p.inFlight && r.unread == 0 {
			continue
		}
		if hashes == nil {
			hashes = buf[:0]
			for _, id := range e.IDs {
				if id != "" {
					hashes = append(hashes, a.hash(id))
				}
			}
			slices.Sort(hashes)
		}
		if s.bound == r {
			for _, h := range hashes {
				r.uncount(h)
			}
		}
		r.drop(p.withdraw(func(w *part) bool { return s.bound == r || w.from == s }, func(n noted) bool {
			_, found := slices.BinarySearch(hashes, n.hash&^hashFlags)
			return found
		}, ReasonAcknowledged), ReasonAcknowledged, "", &d.Effects)
	}
}

// uncount takes a stanza out of the number of unread messages, if it is in it.
func (r *registration) uncount(hash uint64) {
	if e := r.mem.entry(hash); e != nil && e.hash&counts != 0 {
		e.hash &^= counts
		r.unread--
	}
}

// caughtUp says that the device is in touch with the server: what it missed is counted anew.
func (r *registration) caughtUp() {
	if r.unread == 0 {
		return
	}
	r.unread = 0
	all := r.mem.all()
	for i := range all {
		all[i].hash &^= counts
	}
	for _, parts := range [...][]part{r.pace.waiting, r.pace.flight} {
		for i := range parts {
			parts[i].nameless = 0
		}
	}
}

// judgeSession answers an event of one session, whose stanzas concern only the registration bound to it.
func (a *Account) judgeSession(on trigger, id string, stanzas []Stanza, f *Facts, d *Decision) {
	s := a.session(id)
	if s == nil {
		d.Reason = ReasonUnknownSession
		return
	}
	if len(a.regs) == 0 {
		d.Reason = a.nobody()
		return
	}
	a.learn(f)
	lead := s.bound
	if lead == nil {
		lead = a.regs[0]
	}
	var what said
	for _, r := range a.regs {
		q := a.ofSession(on, s, r)
		q.lead = lead == r
		a.judge(&q, r, s, stanzas, 0, &what, f, d)
	}
	a.hangUp(stanzas)
}

// ofSession is the question about an event of a session.
func (a *Account) ofSession(on trigger, s *session, r *registration) question {
	q := question{event: on, mine: s.bound == r, unbound: s.bound == nil, skipPlain: a.policy.SkipPlain, policy: a.policy}
	q.newer = q.unbound && s.claim != nil && *s.claim == r.Key
	return q
}

// judgeAccount answers an event that concerns all of the account's registrations.
func (a *Account) judgeAccount(on trigger, st *Stanza, f *Facts, d *Decision) {
	if len(a.regs) == 0 {
		d.Reason = a.nobody()
		return
	}
	one := []Stanza{*st}
	h := a.hash(st.ID)
	a.learn(f)
	own, away := a.wrote(on, st), len(f.Elsewhere) == 0 && a.allAway()
	var what said
	for i, r := range a.regs {
		q := a.ofAccount(on, own, away, r, f)
		q.lead = i == 0
		a.judge(&q, r, nil, one, h, &what, f, d)
	}
	what.report(d)
	a.hangUp(one)
}

// ofAccount is the question about an event of the account.
func (a *Account) ofAccount(on trigger, own, away bool, r *registration, f *Facts) question {
	q := question{event: on, own: own, away: away, skipPlain: a.policy.SkipPlain, policy: a.policy}
	q.live, q.hibernated = a.standing(r)
	q.live = q.live || slices.Contains(f.Elsewhere, r.Key)
	return q
}

// wrote tells whether what was archived was sent by the account, not to it.
func (a *Account) wrote(on trigger, st *Stanza) bool {
	to := st.To
	if to == "" {
		to = st.From // RFC 6121 §8.1.1.1: what has no address is for the sender's own account
	}
	return on == onArchiveAdded && to != "" && bare(to) != a.name
}

// nobody is why there is no registration.
func (a *Account) nobody() Reason {
	if !a.loaded {
		return ReasonStore
	}
	return ReasonNoRegistration
}

func (a *Account) ping(e Ping, f *Facts, d *Decision) {
	if len(a.regs) == 0 {
		d.Reason = a.nobody()
		return
	}
	for _, r := range a.regs {
		q := question{event: onPing, skipPlain: a.policy.SkipPlain, named: len(e.Registrations) == 0 || slices.Contains(e.Registrations, r.Key), policy: a.policy}
		a.judge(&q, r, nil, []Stanza{{Kind: KindNonza}}, 0, nil, f, d)
	}
}

// judge answers for one registration: it puts each stanza to the rules, notes those that are notified, and leaves them to the pacing. what is shared
// by the calls for one event.
func (a *Account) judge(q *question, r *registration, from *session, stanzas []Stanza, hash uint64, what *said, f *Facts, d *Decision) {
	d.Verdicts = append(d.Verdicts, Verdict{Key: r.Key})
	v := &d.Verdicts[len(d.Verdicts)-1]
	first := len(d.ids)
	q.disabled = !r.Health.Disabled.IsZero() && !a.mayRetry(r, f.Now)
	q.wishes = r.Wishes
	if len(stanzas) == 0 {
		q.skipPlain = false
		if v.Rule, v.Reason = decide(q, nil, nil); v.Reason.Notifies() {
			v.Reason = ReasonNothing
		}
	}
	var w *part
	var wait time.Duration // for the user who is active elsewhere
	ended := false
	for i := range stanzas {
		st := &stanzas[i]
		q.ask(st)
		if q.lead && st.refers(a.name) {
			a.since(st, f.Now, &d.Effects)
			w = nil // it may be gone
		}
		if st.Content == ContentCallEnd {
			if n := a.call(st); n != nil && !r.mem.has(a.hash(st.ID)) {
				q.ends, q.rung = true, a.rings(st, n, r, &d.Effects)
				w = nil
			}
		}
		var s *said
		rule, reason := decide(q, st, nil)
		h := hash
		if reason.Notifies() && what != nil && !q.ends && a.asked(r, st, f) { // only then it matters what was asked for
			a.saying(what, st, i, f, d)
			s = what
			rule, reason = decide(q, st, s)
		}
		if reason.Notifies() && (st.ID != "" || st.Content == ContentSubscription) { // only then it matters whether it was notified before
			if h == 0 || st.Content == ContentSubscription {
				h = a.identity(st)
			}
			if q.seen = r.mem.has(h); q.seen {
				rule, reason = decide(q, st, s)
			}
		}
		detail := q.detail
		if reason.Notifies() && f.Veto != nil {
			if veto := f.Veto(&r.Registration, *st); veto != "" {
				rule, reason, detail = RuleVeto, ReasonVeto, veto
				d.Answers.Vetoes = append(d.Answers.Vetoes, VetoAnswer{r.Key, i, veto})
			}
		}
		if !reason.Notifies() {
			if !v.Notify {
				v.Class = max(v.Class, q.class)
				if i == 0 {
					v.Rule, v.Reason, v.Detail = rule, reason, detail
				}
			}
			continue
		}
		if !v.Notify {
			v.Notify, v.Rule, v.Reason, v.Detail, v.Class, v.Match = true, rule, reason, detail, ClassPlain, q.match
		}
		if w == nil {
			w = r.pace.open(from)
		}
		v.Class = max(v.Class, q.class)
		w.at[q.class] = toInstant(f.Now)
		if q.event == onPing { // it wakes, and counts no stanza
			w.wakes = true
			w.note(0, ClassPlain, f.Number, a.policy)
			continue
		}
		ended = ended || q.ends
		wait = max(wait, q.grace)
		v.Count++
		w.count[q.class]++
		if st.ID == "" && st.Content != ContentSubscription {
			h = 0
		}
		w.note(h, q.class, f.Number, a.policy)
		mark := h
		if q.class >= ClassImportant {
			mark |= counts
			r.unread++
		}
		if h != 0 {
			if st.ID != "" {
				d.ids = append(d.ids, st.ID)
			}
			r.mem.add(mark, f.Now, a.policy.Remember)
			a.hear(st, h, f.Now)
		} else if q.class >= ClassImportant {
			w.nameless++
		}
		if (a.policy.IncludeSender || a.policy.IncludeBody) && (q.class >= ClassImportant || w.text == nil) {
			w.text = &text{toInstant(f.Now), h, st.From, st.Body}
		}
		if r.Wishes != nil {
			w.carry(r, q, st, h, f.Now)
		}
	}
	if what != nil && from != nil {
		what.report(d)
	}
	v.Stanzas = d.ids[first:len(d.ids):len(d.ids)]
	if !v.Notify || len(r.pace.waiting) == 0 {
		return
	}
	a.touched = toInstant(f.Now)
	due := f.Now
	if (q.event == onAckDelayed || q.event == onStanzaQueued) && (v.Class == ClassPlain || v.Class == ClassImportant && a.policy.DelayImportant) && !ended {
		due = due.Add(a.policy.Delay)
	}
	if wait > 0 && v.Class < ClassUrgent && !ended {
		if until := a.grace(r, wait); until.After(due) {
			due = until
		}
	}
	r.pace.schedule(due)
	if v.Class == ClassUrgent || ended {
		r.pace.spaced, r.pace.retryAt = 0, 0 // a call that waited for the next try or the interval would be too old by then
	}
}

// ask makes q the question about a stanza.
func (q *question) ask(st *Stanza) {
	q.match = 0
	q.class, q.held, q.history, q.noStore = min(st.Class, ClassUrgent), st.Held, st.History, st.NoStore
	q.seen, q.ends, q.rung, q.detail = false, false, false, ""
	q.grace = q.policy.Grace
	if st.Content == ContentReaction && q.policy.AlertReactions {
		q.class = ClassImportant
	}
}

// refers tells whether a stanza may say something about those before it.
func (st *Stanza) refers(account string) bool {
	switch st.Content {
	case ContentCorrection, ContentRetraction, ContentModeration:
		return true
	}
	return strings.HasPrefix(st.From, account) && bare(st.From) == account
}

// identity returns the hash by which a stanza is told to be the same: of a subscription request that of who asks, since it is sent again until it is
// answered (RFC 6121 §3.1.3).
func (a *Account) identity(st *Stanza) uint64 {
	if st.Content == ContentSubscription {
		return a.hash("subscribe " + bare(st.From))
	}
	return a.hash(st.ID)
}

// asked tells whether the user or the client may have asked for something that concerns the stanza, as far as is known.
func (a *Account) asked(r *registration, st *Stanza, f *Facts) bool {
	if r.Wishes == nil && st.Info == nil && len(f.Chats) == 0 && (a.chats == nil || len(a.chats.known) == 0) && (st.Class != ClassUrgent || !a.policy.AskedCallsOnly) {
		return false
	}
	return st.isMessage() || st.Content == ContentSubscription
}

// saying makes what be about the stanza at place i of its event, once for all registrations.
func (a *Account) saying(what *said, st *Stanza, i int, f *Facts, d *Decision) {
	if what.made && what.place == i {
		return
	}
	what.report(d)
	*what = said{made: true, place: i, chat: st.Chat(a.name)}
	what.self = Self{Account: a.name, Active: !a.allAway() && a.online()}
	if info := a.info(what, st, i, f); info != nil {
		what.info, what.answered = *info, !what.failed
		what.self.Nicks[0], what.self.OccupantID = info.Nick, info.OccupantID
	}
	if st.Type == MessageGroupchat {
		for _, r := range a.regs {
			if r.Wishes == nil {
				continue
			}
			if room, ok := r.Wishes.Room(what.chat); ok && room.Nick != what.self.Nicks[0] && room.Nick != "" {
				what.self.Nicks[1] = room.Nick
				break
			}
		}
	}
}

// info returns what the host said of a stanza's chat: with it, when it was asked for this event, or before.
func (a *Account) info(what *said, st *Stanza, i int, f *Facts) *ChatInfo {
	if st.Info != nil {
		return st.Info
	}
	for j := range f.Chats {
		if c := &f.Chats[j]; c.Chat == what.chat && (c.Stanza == i || c.Stanza < 0) {
			what.failed = c.Failed
			return &c.ChatInfo
		}
	}
	return a.knows(what.chat, f.Now)
}

// online tells whether a session is connected.
func (a *Account) online() bool {
	return slices.ContainsFunc(a.sessions, func(s *session) bool { return !s.hibernated })
}

// hangUp notes that the calls are over that the stanzas end.
func (a *Account) hangUp(stanzas []Stanza) {
	for i := range stanzas {
		if stanzas[i].Content == ContentCallEnd {
			if n := a.call(&stanzas[i]); n != nil {
				n.sender = callOver
			}
		}
	}
}

// mayRetry tells whether a tombstone is tried once more (XEP-0357 §7.1).
func (a *Account) mayRetry(r *registration, now time.Time) bool {
	after := a.policy.RetryDisabled
	return after > 0 && now.Sub(r.Health.Disabled) >= after && (r.retried == 0 || now.Sub(time.Unix(int64(r.retried), 0)) >= after)
}

// Next returns when Due has something to do; zero means never. It changes with every call of Handle, Due, Begin and End.
func (a *Account) Next() time.Time {
	var next time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, r := range a.regs {
		earlier(r.pace.next(a.policy))
	}
	for _, s := range a.sessions {
		earlier(s.wakeAt.time())
	}
	return next
}

// Due does what is due at now: it drops what is too old, which e reports, and appends to keys the registrations whose notification
// may go out, for the caller to Begin as soon as the service admits them. Each is named once until it is begun.
func (a *Account) Due(now time.Time, keys []Key, e *Effects) []Key {
	for _, s := range a.sessions {
		if s.wakeAt != 0 && toInstant(now) >= s.wakeAt {
			s.wakeAt = 0
			if s.bound != nil {
				w := s.bound.pace.open(s)
				w.at[ClassPlain], w.wakes = toInstant(now), true
				s.bound.pace.schedule(now)
				e.advise(a.name, s, a.policy.WakeBefore, ReasonWake)
			}
		}
	}
	for _, r := range a.regs {
		p := &r.pace
		if len(p.waiting) == 0 {
			continue
		}
		if !now.Before(p.expiry(a.policy)) {
			r.drop(p.takeOld(now, a.policy), ReasonTooOld, "", e)
		}
		if len(p.waiting) > 0 && !p.inFlight && !p.queued && !p.stub && !now.Before(p.ready()) {
			p.queued = true
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// drop reports parts that will not be sent, and forgets their stanzas; those that were acknowledged need no other notification.
func (r *registration) drop(parts []part, reason Reason, detail string, e *Effects) {
	if len(parts) == 0 {
		return
	}
	d := Drop{Key: r.Key, Reason: reason, Detail: detail}
	for i := range parts {
		p := &parts[i]
		if c, ok := p.class(); ok {
			d.Class = max(d.Class, c)
		}
		d.Count += p.total()
		r.unread -= p.nameless
		for _, n := range p.stanzas {
			d.Events = append(d.Events, n.event)
			if h := n.hash &^ hashFlags; h != 0 {
				r.uncount(h)
				switch reason {
				case ReasonAcknowledged, ReasonRead, ReasonRetracted, ReasonCallEnded: // the device has it, or need not have it
				default:
					r.mem.forget(h)
				}
			}
		}
	}
	sortUnique(&d.Events)
	d.Events = r.pace.unnamed(d.Events)
	e.Drops = append(e.Drops, d)
}

// Flush lets everything that waits go out at once, retries too.
func (a *Account) Flush(now time.Time) {
	for _, r := range a.regs {
		r.pace.due, r.pace.spaced, r.pace.retryAt = toInstant(now), 0, 0
	}
}

// Notified says that a registration was notified of stanzas by somebody else, such as another node that could not be reached when it happened: they
// notify it no more. It reports whether there is such a registration.
func (a *Account) Notified(k Key, now time.Time, ids ...string) bool {
	r := a.find(k)
	if r == nil {
		return false
	}
	for _, id := range ids {
		if h := a.hash(id); h != 0 && !r.mem.has(h) {
			r.mem.add(h, now, a.policy.Remember)
			a.touched = toInstant(now)
		}
	}
	return true
}

// Abandon drops everything that waits or is in flight.
func (a *Account) Abandon(reason Reason, e *Effects) {
	for _, r := range a.regs {
		r.drop(r.pace.takeAll(), reason, "", e)
	}
}

// Status describes the account at now.
func (a *Account) Status(now time.Time) AccountStatus {
	st := AccountStatus{Account: a.name}
	for _, r := range a.regs {
		rs := RegistrationStatus{Registration: r.Registration, Unread: int(r.unread), InFlight: r.pace.inFlight}
		rs.Options = cloneFields(r.Options)
		for i := range r.pace.waiting {
			rs.Waiting += r.pace.waiting[i].total()
		}
		if len(r.pace.waiting) > 0 {
			rs.NextTry = r.pace.ready()
		}
		st.Registrations = append(st.Registrations, rs)
	}
	for _, s := range a.sessions {
		ss := SessionStatus{ID: s.id, Client: s.client(), Hibernated: s.hibernated, Extended: s.extended, Away: s.away}
		if s.nameless {
			ss.Resource = s.device
		}
		if s.bound != nil {
			ss.Bound, ss.IsBound = s.bound.Key, true
		} else if s.claim != nil {
			ss.Bound, ss.Superseded = *s.claim, true
		}
		st.Sessions = append(st.Sessions, ss)
	}
	return st
}

// Prune forgets what was notified too long ago to be met again, and returns whether the account is Idle. Stanzas of a hibernated session
// can come back, as offline messages, until some time after the session has ended.
func (a *Account) Prune(now time.Time) bool {
	age := a.policy.RememberFor
	if len(a.sessions) > 0 || a.left != 0 && now.Sub(a.left.time()) < a.policy.RememberFor { // else no stanza of a session can still come by another way
		age += a.policy.MaxResume
	}
	for _, r := range a.regs {
		if !r.pace.inFlight && len(r.pace.waiting) == 0 { // what is not sent yet must not come to wait twice
			r.mem.prune(now, age)
		}
	}
	a.pruneChats(now, age)
	return a.Idle(now)
}

func sortUnique(list *[]uint64) {
	slices.Sort(*list)
	*list = slices.Compact(*list)
}
