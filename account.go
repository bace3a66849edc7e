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
// The same calls with the same arguments give the same results. A nil *Decision or *Effects is one that nobody looks at. The zero Account is what
// OpenAccount returns for no name and no policy. It is not safe for simultaneous use.
type Account struct {
	name     string
	policy   *Policy
	regs     []*registration // in the order of their keys
	sessions []*session
	// touched is when something was remembered last, or a session ended since. left is when a session ended last.
	touched, left instant
	// gone are registrations that were removed while a publish for them was not answered: what is to be dropped, because of that, if it is not accepted.
	// nil: there are none, as a rule.
	gone *[]Drop
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

// ready makes the zero Account usable.
func (a *Account) ready() {
	if a.policy == nil {
		a.policy = a.policy.resolve()
	}
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
	a.ready()
	e = e.orOwn()
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
			r.drop(r.pace.takeWaiting(ReasonDisabled), ReasonDisabled, "", e)
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

// Handle takes note of an event and answers it in d, which it resets. It copies what it keeps of the event.
func (a *Account) Handle(ev Event, f Facts, d *Decision) {
	a.ready()
	if d == nil {
		d = new(Decision)
	}
	d.reset(a.name)
	d.Answers.Elsewhere = f.Elsewhere
	switch e := a.addressed(ev).(type) {
	case SessionOpen:
		a.open(e, f.Now, d)
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
		d.Reason = a.displayed(e.Chat, e.UpTo, a.session(e.Session), f.Now, &d.Effects)
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
	e = e.orOwn()
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
		if !now.Before(expiry(p.waiting, a.policy)) {
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
			r.remember(h, now, a.policy)
			a.touched = toInstant(now)
		}
	}
	return true
}

// Abandon drops everything that waits or is in flight.
func (a *Account) Abandon(reason Reason, e *Effects) {
	e = e.orOwn()
	for _, r := range a.regs {
		r.drop(r.pace.takeAll(), reason, "", e)
	}
	a.dropGone(e)
}

// Prune forgets what was notified too long ago to be met again, and returns whether the account is Idle. Stanzas of a hibernated session
// can come back, as offline messages, until some time after the session has ended.
func (a *Account) Prune(now time.Time) bool {
	a.ready()
	age := a.policy.RememberFor
	if len(a.sessions) > 0 || a.left != 0 && now.Sub(a.left.time()) < a.policy.RememberFor { // else no stanza of a session can still come by another way
		age += a.policy.MaxResume
	}
	for _, r := range a.regs {
		if !r.pace.inFlight && len(r.pace.waiting) == 0 { // what is not sent yet must not come to wait twice
			r.unread -= r.mem.prune(now, age)
		}
	}
	a.pruneChats(now)
	return a.Idle(now)
}

// pruneAt returns when Prune will forget all that is remembered, if nothing is notified until then; zero: nothing is.
func (a *Account) pruneAt() time.Time {
	if a.touched == 0 {
		return time.Time{}
	}
	return a.touched.time().Add(a.policy.RememberFor + a.policy.MaxResume + time.Second) // it is remembered in seconds
}

func sortUnique(list *[]uint64) {
	slices.Sort(*list)
	*list = slices.Compact(*list)
}
