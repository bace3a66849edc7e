package push

import (
	"slices"
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
	// gone are the keys of registrations that were removed while a publish for them was not answered.
	gone []Key
}

// registration is a Registration with what the rules and the pacing know about it.
type registration struct {
	Registration
	mem  notified
	pace pacer
	// unread counts the stanzas that it was notified of since its session was last active.
	unread int
	// retried is when a tombstone was tried again last (Policy.RetryDisabled).
	retried instant
}

// Facts is what the rules may know besides the event.
type Facts struct {
	// Now is the time. It must not go back from one call to the next.
	Now time.Time
	// Number is the event's number, which notifications name as their cause.
	Number uint64
	// Elsewhere are the registrations that have a session on another node of the host. They count as active.
	Elsewhere []Key
	// Veto, if not nil, is the host's last word on each registration and stanza that would be notified: text other than "" is a no.
	Veto func(r *Registration, st Stanza) string
}

// NewAccount returns an account with the registrations that are stored for it. p is shared between accounts and must not be changed
// any more; nil means the default policy.
func NewAccount(name string, p *Policy, rs []Registration) *Account {
	a := &Account{name: name, policy: p.resolve()}
	for _, r := range rs {
		if r.Account == name {
			a.put(r)
		}
	}
	return a
}

// Registrations returns the account's registrations in the order of their keys.
func (a *Account) Registrations() []Registration {
	rs := make([]Registration, len(a.regs))
	for i, r := range a.regs {
		rs[i] = r.Registration
	}
	return rs
}

// Reload replaces the registrations by those that are stored, because another node may have changed them. What is known of sessions and
// notifications stays with the keys that stay.
func (a *Account) Reload(rs []Registration, e *Effects) {
	for _, r := range slices.Clone(a.regs) {
		if !slices.ContainsFunc(rs, func(n Registration) bool { return n.Key == r.Key }) {
			a.remove(r, ReasonRemoved, e)
		}
	}
	for _, n := range rs {
		if n.Account != a.name {
			continue
		}
		r := a.put(n)
		if !r.Health.Disabled.IsZero() {
			a.unbind(r, ReasonErrors, e)
			r.drop(r.pace.takeAll(), ReasonDisabled, "", e)
		}
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
	if len(a.sessions) > 0 || len(a.gone) > 0 {
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
		if t := p.notBefore.time(); t.After(at) {
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
	if ok {
		a.regs[i].Registration = n
	} else {
		a.regs = slices.Insert(a.regs, i, &registration{Registration: n})
		a.regs[i].pace.inFlight = slices.Contains(a.gone, n.Key)
	}
	return a.regs[i]
}

func (a *Account) remove(r *registration, reason Reason, e *Effects) {
	if r.pace.inFlight && !slices.Contains(a.gone, r.Key) {
		a.gone = append(a.gone, r.Key)
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
	switch e := ev.(type) {
	case SessionOpen:
		a.open(e, d)
	case SessionClose:
		if !a.close(e.Session.ID, f.Now) {
			d.Reason = ReasonUnknownSession
		}
	case PushEnable:
		a.enable(e, f.Now, d)
	case PushDisable:
		for _, r := range a.matching(e.Key) {
			a.remove(r, ReasonDisabledByUser, &d.Effects)
		}
	case AckDelayed:
		a.judgeSession(onAckDelayed, e.Session.ID, e.Stanzas, &f, d)
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
		n, _ = n.renew(old.Registration, len(a.regs) >= max(a.policy.MaxRegistrations, 1) && slices.ContainsFunc(a.regs, later))
	}
	r := a.put(n)
	d.change(e.Key, kind, reason, "")
	if s != nil {
		s.bind(r)
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
		n.Client = s.client
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

// judgeSession answers an event of one session, whose stanzas concern only the registration bound to it.
func (a *Account) judgeSession(on trigger, id string, stanzas []Stanza, f *Facts, d *Decision) {
	s := a.session(id)
	if s == nil {
		d.Reason = ReasonUnknownSession
		return
	}
	if len(a.regs) == 0 {
		d.Reason = ReasonNoRegistration
		return
	}
	for _, r := range a.regs {
		q := question{event: on, mine: s.bound == r, unbound: s.bound == nil, skipPlain: a.policy.SkipPlain}
		a.judge(&q, r, s, stanzas, 0, f, d)
	}
}

// judgeAccount answers an event that concerns all of the account's registrations.
func (a *Account) judgeAccount(on trigger, st *Stanza, f *Facts, d *Decision) {
	if len(a.regs) == 0 {
		d.Reason = ReasonNoRegistration
		return
	}
	to := st.To
	if to == "" {
		to = st.From // RFC 6121 §8.1.1.1: what has no address is for the sender's own account
	}
	own := on == onArchiveAdded && to != "" && bare(to) != a.name
	one := []Stanza{*st}
	var h uint64
	if st.ID != "" {
		h = hashID(st.ID)
	}
	for _, r := range a.regs {
		q := question{event: on, own: own, skipPlain: a.policy.SkipPlain}
		q.live, q.hibernated = a.standing(r)
		q.live = q.live || slices.Contains(f.Elsewhere, r.Key)
		a.judge(&q, r, nil, one, h, f, d)
	}
}

func (a *Account) ping(e Ping, f *Facts, d *Decision) {
	if len(a.regs) == 0 {
		d.Reason = ReasonNoRegistration
		return
	}
	for _, r := range a.regs {
		q := question{event: onPing, named: len(e.Registrations) == 0 || slices.Contains(e.Registrations, r.Key)}
		a.judge(&q, r, nil, []Stanza{{Kind: KindNonza}}, 0, f, d)
	}
}

// judge answers for one registration: it puts each stanza to the rules, notes those that are notified, and leaves them to the pacing.
func (a *Account) judge(q *question, r *registration, from *session, stanzas []Stanza, hash uint64, f *Facts, d *Decision) {
	d.Verdicts = append(d.Verdicts, Verdict{Key: r.Key})
	v := &d.Verdicts[len(d.Verdicts)-1]
	first := len(d.ids)
	q.disabled = !r.Health.Disabled.IsZero() && !a.mayRetry(r, f.Now)
	if len(stanzas) == 0 {
		q.skipPlain = false
		if v.Rule, v.Reason = decide(q); v.Reason.Notifies() {
			v.Reason = ReasonNothing
		}
	}
	var w *part
	for i := range stanzas {
		st := &stanzas[i]
		q.class, q.held, q.seen = st.Class, st.Held, false
		rule, reason := decide(q)
		h := hash
		if reason.Notifies() && st.ID != "" { // only then it matters whether it was notified before
			if h == 0 {
				h = hashID(st.ID)
			}
			if q.seen = r.mem.has(h); q.seen {
				rule, reason = decide(q)
			}
		}
		detail := ""
		if reason.Notifies() && f.Veto != nil {
			if detail = f.Veto(&r.Registration, *st); detail != "" {
				rule, reason = RuleVeto, ReasonVeto
				d.Answers.Vetoes = append(d.Answers.Vetoes, VetoAnswer{r.Key, i, detail})
			}
		}
		if !reason.Notifies() {
			if !v.Notify {
				v.Class = max(v.Class, st.Class)
				if i == 0 {
					v.Rule, v.Reason, v.Detail = rule, reason, detail
				}
			}
			continue
		}
		if w == nil {
			v.Notify, v.Rule, v.Reason, v.Detail, v.Class = true, rule, reason, "", ClassPlain
			w = r.pace.open(from)
			w.events = newest(append(w.events, f.Number), a.policy.Causes)
		}
		v.Class = max(v.Class, st.Class)
		w.at[st.Class] = toInstant(f.Now)
		if q.event == onPing {
			continue // it wakes, and counts no stanza
		}
		v.Count++
		w.count[st.Class]++
		if st.ID != "" {
			d.ids = append(d.ids, st.ID)
			r.mem.add(h, f.Now, a.policy.Remember)
			w.hashes = append(w.hashes, h)
			if len(w.hashes) > 2*a.policy.Remember { // not one by one, which would move all of them each time
				w.hashes = newest(w.hashes, a.policy.Remember)
			}
		}
		if a.policy.IncludeSender || a.policy.IncludeBody {
			w.text = &text{toInstant(f.Now), st.From, st.Body}
		}
	}
	v.Stanzas = d.ids[first:len(d.ids):len(d.ids)]
	if w == nil {
		return
	}
	a.touched = toInstant(f.Now)
	r.unread += v.Count
	due := f.Now
	if (q.event == onAckDelayed || q.event == onStanzaQueued) && v.Class != ClassUrgent {
		due = due.Add(a.policy.Delay)
	}
	r.pace.schedule(due)
	if v.Class == ClassUrgent {
		r.pace.notBefore = 0 // a call that waited for the next try or the interval would be too old by then
	}
}

// mayRetry tells whether a tombstone is tried once more (XEP-0357 §7.1).
func (a *Account) mayRetry(r *registration, now time.Time) bool {
	after := a.policy.RetryDisabled
	return after > 0 && now.Sub(r.Health.Disabled) >= after && (r.retried == 0 || now.Sub(r.retried.time()) >= after)
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
				s.bound.pace.open(s).at[ClassPlain] = toInstant(now)
				s.bound.pace.schedule(now)
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
		if len(p.waiting) > 0 && !p.inFlight && !p.queued && !now.Before(p.ready()) {
			p.queued = true
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// drop reports parts that will not be sent, and forgets their stanzas.
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
		d.Events = append(d.Events, p.events...)
		for _, h := range p.hashes {
			r.mem.forget(h)
		}
	}
	r.unread = max(r.unread-d.Count, 0)
	sortUnique(&d.Events)
	e.Drops = append(e.Drops, d)
}

// Flush lets everything that waits go out at once, retries too.
func (a *Account) Flush(now time.Time) {
	for _, r := range a.regs {
		r.pace.due, r.pace.notBefore = toInstant(now), 0
	}
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
		rs := RegistrationStatus{Registration: r.Registration, Unread: r.unread, InFlight: r.pace.inFlight}
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
		ss := SessionStatus{ID: s.id, Client: s.client, Hibernated: s.hibernated, Extended: s.extended}
		if s.bound != nil {
			ss.Bound, ss.IsBound = s.bound.Key, true
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
		r.mem.prune(now, age)
	}
	return a.Idle(now)
}

func sortUnique(list *[]uint64) {
	slices.Sort(*list)
	*list = slices.Compact(*list)
}
