package push

import (
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// session is one client connection as far as push is concerned.
type session struct {
	id string
	// device is the client ID, if there is one; else the resource of the session's JID names the device, and nameless is set (Push 2.0).
	device string
	// resource is a hash of the resource of its JID, as far as that is known. active is when the user did something in it last, in seconds since 1970.
	resource, active uint32
	// bound is the registration that the session has (rule R1), or nil.
	bound *registration
	// claim is the key of the registration that is the session's: the one that it enabled last, was restored with, or that remembers its client
	// ID. It is that of bound unless a newer session of the same device has the registration, or the registrations have not been read
	// yet. nil: there is none.
	claim *Key
	// wakeAt is when a wake-up goes out because the resumption time is about to end. Zero: not.
	wakeAt instant
	// since orders the claims of the account's sessions: the newest decides.
	since uint32
	// hibernated: the connection is gone and the session can be resumed (XEP-0198).
	hibernated bool
	// away: its presence says that the user is away.
	away bool
	// extended: the host was advised to keep it resumable for longer than its normal time. unadvised: it may have to be, but hibernated before
	// the registrations were read.
	extended, unadvised bool
	// unresolved: its claim, or its client ID, is of a registration that was not read yet, perhaps.
	unresolved bool
	nameless   bool
}

// use notes that the user does something in the session.
func (s *session) use(now time.Time) { s.active = uint32(max(now.Unix(), 1)) }

// resourceHash makes a resource small. It is zero for none.
func resourceHash(s string) uint32 {
	if s == "" {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32() | 1
}

// client returns the session's client ID, or nothing.
func (s *session) client() string {
	if s.nameless {
		return ""
	}
	return s.device
}

func (a *Account) session(id string) *session {
	for _, s := range a.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

// maxSessions is how many sessions of an account are known, beside those that have a registration, of which there are no more than registrations. No
// person has so many clients, and servers allow fewer (RFC 6120 §7.6.2.1; ejabberd ten, as it comes): an account that has more is one whose host
// does not say when sessions end.
const maxSessions = 128

// known returns the session of that ID, which it adds if need be. If there are too many, the one that was added longest ago of those that have no
// registration counts as over. Nobody is woken for its sake, so what is lost is little: of what it does later it is said that it is not known.
func (a *Account) known(id string, now time.Time, d *Decision) *session {
	s := a.session(id)
	if s != nil {
		return s
	}
	if len(a.sessions) >= maxSessions {
		if i := slices.IndexFunc(a.sessions, func(o *session) bool { return o.bound == nil }); i >= 0 {
			if o := a.sessions[i]; o.extended {
				d.advise(a.name, o, 0, ReasonTooManySessions)
			}
			a.close(a.sessions[i].id, now, &d.Effects)
			d.Reason = ReasonTooManySessions
		}
	}
	s = &session{id: id}
	a.sessions = append(a.sessions, s)
	return s
}

// open adds a session, and binds it by its client ID if a registration remembers that one (rule R14): a client that does not
// enable again on every connect has to count as online while it is.
func (a *Account) open(e SessionOpen, now time.Time, d *Decision) {
	s := a.known(e.Session.ID, now, d)
	s.named(e.Client, e.JID)
	if s.hibernated { // its ID is used again, which a host should not: whoever has it now is connected
		s.hibernated, s.unadvised, s.wakeAt = false, false, 0
		if s.extended {
			s.extended = false
			d.advise(a.name, s, 0, ReasonNewerSession)
		}
		if s.bound != nil {
			s.bound.caughtUp()
		}
	}
	a.claims++
	s.since = a.claims
	if r := a.ofClient(s.client()); r != nil {
		r.caughtUp()
		a.give(s, r, &d.Effects)
		d.bound(r.Key, s, RuleClient, ReasonClientID)
	} else {
		s.unresolved = !a.loaded
	}
}

// named notes what tells the session's device from the account's others.
func (s *session) named(client, jid string) {
	s.device, s.nameless = client, client == ""
	s.resource = resourceHash(resource(jid))
	if b := bare(jid); s.nameless && len(b) < len(jid) {
		s.device = strings.Clone(jid[len(b)+1:]) // the rest need not be kept
	}
}

// ofClient returns the enabled registration that remembers a client ID, the one that was enabled last if there are several.
func (a *Account) ofClient(client string) (found *registration) {
	if client == "" {
		return nil
	}
	for _, r := range a.regs {
		if r.Client == client && r.Health.Disabled.IsZero() && (found == nil || r.Registration.Enabled.After(found.Registration.Enabled)) {
			found = r
		}
	}
	return found
}

// restore adds a session that began before this process, with its binding.
func (a *Account) restore(e SessionRestored, now time.Time, d *Decision) {
	s := a.known(e.Session.ID, now, d)
	had := s.bound
	s.named(e.Client, e.JID)
	s.bound, s.claim = nil, nil
	s.hibernated, s.extended, s.unadvised, s.unresolved, s.wakeAt = e.Hibernated, e.Hibernated && e.Extended, false, false, 0
	if s.since = 0; !s.hibernated && !e.Superseded { // the others are older than any
		a.claims++
		s.since = a.claims
	}
	r, rule, reason := a.ofClient(s.client()), RuleClient, ReasonClientID
	if e.IsBound {
		r, rule, reason = a.find(e.Bound), RuleBind, ReasonRestored
	} else if e.Superseded {
		r = nil
	}
	switch {
	case r == nil && !e.IsBound:
		s.unresolved = !a.loaded && !e.Superseded
	case r == nil && !a.loaded:
		key := e.Bound
		s.claim, s.unresolved = &key, !e.Superseded
	case r == nil:
		d.unbound(e.Bound, s, ReasonRemoved)
	case !r.Health.Disabled.IsZero():
		d.unbound(r.Key, s, ReasonDisabled)
	case e.Superseded || s.hibernated && a.connected(r):
		s.claim = &r.Key
		d.unbound(r.Key, s, ReasonNewerSession)
	default:
		if !s.hibernated {
			r.caughtUp()
		}
		a.give(s, r, &d.Effects)
		d.bound(r.Key, s, rule, reason)
	}
	if had != nil {
		a.pass(had, &d.Effects)
	}
	if s.bound == nil {
		if s.extended && a.loaded {
			s.extended = false
			d.advise(a.name, s, 0, ReasonUnbound)
		}
		return
	}
	if s.extended && a.policy.WakeBefore > 0 { // how much of the time is over is not known
		s.wakeAt = toInstant(now.Add(a.policy.MaxResume - a.policy.WakeBefore))
	}
}

// connected tells whether a session that is bound to the registration is connected.
func (a *Account) connected(r *registration) bool {
	live, _ := a.standing(r)
	return live
}

// give binds the session to the registration (rule R1). If an earlier session has it, that one loses it: the device is in the new one, and its
// old one must not wake it. The one that the session had goes back to a session that had it before.
func (a *Account) give(s *session, r *registration, e *Effects) {
	had := s.bound
	a.claims++
	s.bound, s.claim, s.since, s.unresolved = r, &r.Key, a.claims, false
	for _, o := range a.sessions {
		if o == s || o.bound != r {
			continue
		}
		o.bound = nil
		e.unbound(r.Key, o, ReasonNewerSession)
		if o.extended {
			o.extended, o.wakeAt = false, 0
			e.advise(a.name, o, 0, ReasonNewerSession)
		}
		r.drop(r.pace.takeSession(o, ReasonNewerSession), ReasonNewerSession, "", e)
	}
	if had != nil {
		a.pass(had, e)
	}
}

// pass gives a registration that its session has left to the newest connected session that had it before.
func (a *Account) pass(r *registration, e *Effects) {
	var heir *session
	for _, s := range a.sessions {
		if s.bound == r {
			return
		}
		if s.claim != nil && *s.claim == r.Key && !s.hibernated && (heir == nil || s.since >= heir.since) { // the same: restored as superseded, in their order
			heir = s
		}
	}
	if heir != nil {
		heir.bound = r
		e.bound(r.Key, heir, RuleBind, ReasonNewerEnded)
	}
}

// resolve binds the sessions that were there before the registrations were read.
func (a *Account) resolve(now time.Time, e *Effects) {
	for _, s := range a.sessions {
		if s.claim == nil {
			if r := a.ofClient(s.client()); r != nil && s.unresolved {
				s.claim = &r.Key
			}
			continue
		}
		switch r := a.find(*s.claim); {
		case r == nil:
			e.unbound(*s.claim, s, ReasonRemoved)
			s.claim = nil
		case !r.Health.Disabled.IsZero():
			e.unbound(r.Key, s, ReasonDisabled)
			s.claim = nil
		default:
			s.claim = &r.Key
		}
	}
	for _, r := range a.regs {
		var newest, holder *session
		for _, s := range a.sessions {
			switch {
			case s.bound == r:
				holder = s
			case s.unresolved && s.claim == &r.Key && (newest == nil || s.since >= newest.since):
				newest = s
			}
		}
		if newest == nil || holder != nil && holder.since > newest.since {
			continue
		}
		if !newest.hibernated {
			r.caughtUp()
		}
		a.give(newest, r, e)
		if newest.client() != "" && newest.client() == r.Client {
			e.bound(r.Key, newest, RuleClient, ReasonClientID)
		} else {
			e.bound(r.Key, newest, RuleBind, ReasonRestored)
		}
	}
	for _, s := range a.sessions {
		s.unresolved = false
		if s.unadvised {
			s.unadvised = false
			a.extend(s, now, e)
		} else if s.extended && s.bound == nil {
			s.extended, s.wakeAt = false, 0
			e.advise(a.name, s, 0, ReasonUnbound)
		}
	}
}

// close ends a session, if there is one. What waits because of it still goes out: its device has not come back. What was notified is
// remembered for a while longer, because the session's stanzas go to offline storage now.
func (a *Account) close(id string, now time.Time, e *Effects) bool {
	i := slices.IndexFunc(a.sessions, func(s *session) bool { return s.id == id })
	if i < 0 {
		return false
	}
	s := a.sessions[i]
	a.sessions = slices.Delete(a.sessions, i, i+1)
	a.left = toInstant(now)
	if a.touched != 0 {
		a.touched = toInstant(now)
	}
	for _, r := range a.regs {
		r.pace.orphan(s, a.policy)
	}
	if s.bound != nil {
		a.pass(s.bound, e)
	}
	return true
}

// hibernate marks the session and advises the host.
func (a *Account) hibernate(s *session, now time.Time, d *Decision) {
	s.hibernated, s.extended, s.wakeAt = true, false, 0
	s.unadvised = !a.loaded && s.bound == nil
	a.extend(s, now, &d.Effects)
}

// extend advises the host to keep a hibernated session. A phone that is asleep does not come back by itself: it is woken by a notification that
// its user sees, and until one was sent the session should live on. (mod_cloud_notify, ejabberd's mod_push_keepalive)
func (a *Account) extend(s *session, now time.Time, e *Effects) {
	if s.bound == nil || a.policy.MaxResume <= 0 {
		return
	}
	s.extended = true
	if a.policy.WakeBefore > 0 {
		s.wakeAt = toInstant(now.Add(a.policy.MaxResume - a.policy.WakeBefore))
	}
	e.advise(a.name, s, a.policy.MaxResume, ReasonAsleep)
}

// alerted takes the advice back at once if what the session's user should see was sent before the connection was lost, because it was not
// acknowledged: no later notification would end the longer time. What waits ends it when it is sent.
func (a *Account) alerted(id string, d *Decision) {
	if !d.alerted {
		return
	}
	if r := a.session(id).bound; r.pace.waitingClass() < ClassImportant {
		a.shorten(r, ReasonWoken, &d.Effects)
	}
}

// resume drops what waits because of this session: it gets its stanzas itself now (rule R5). The device is in it, whatever newer session it had.
func (a *Account) resume(s *session, d *Decision) {
	s.hibernated, s.extended, s.unadvised, s.wakeAt = false, false, false, 0
	if s.bound == nil && s.claim != nil {
		if r := a.find(*s.claim); r != nil {
			a.give(s, r, &d.Effects)
			d.bound(r.Key, s, RuleBind, ReasonResumed)
		}
	}
	if s.bound != nil {
		s.bound.caughtUp()
	}
	for _, r := range a.regs {
		r.drop(r.pace.takeSession(s, ReasonResumed), ReasonResumed, "", &d.Effects)
	}
}

// shorten takes the advice of hibernate back for all sessions of a registration.
func (a *Account) shorten(r *registration, reason Reason, e *Effects) {
	for _, s := range a.sessions {
		if s.bound == r && s.extended {
			s.extended = false
			s.wakeAt = 0
			e.advise(a.name, s, 0, reason)
		}
	}
}

// unbind takes a registration away from its sessions.
func (a *Account) unbind(r *registration, reason Reason, e *Effects) {
	a.shorten(r, reason, e)
	for _, s := range a.sessions {
		if s.bound == r {
			s.bound = nil
		}
		if s.claim != nil && *s.claim == r.Key {
			s.claim = nil
		}
	}
}

// standing tells how the session that has a registration stands to it.
func (a *Account) standing(r *registration) (live, hibernated bool) {
	for _, s := range a.sessions {
		if s.bound == r {
			return !s.hibernated, s.hibernated
		}
	}
	return false, false
}

// moved tells how a session stands to a registration that its device had, by the client ID, before it enabled another one of the same service: the
// device is notified by that one. If that is given up, because its push service wants it no more, the session has none, and the older one is all there is.
func (a *Account) moved(r *registration) (live, hibernated bool) {
	if r.Client == "" {
		return false, false
	}
	for _, s := range a.sessions {
		if s.bound != nil && s.bound.Service == r.Service && s.client() == r.Client {
			if s.hibernated {
				hibernated = true
			} else {
				live = true
			}
		}
	}
	return live, hibernated
}

func (e *Effects) change(k Key, kind ChangeKind, reason Reason, detail string) {
	e.Changes = append(e.Changes, Change{Key: k, Kind: kind, Reason: reason, Detail: detail})
}

func (e *Effects) bound(k Key, s *session, rule Rule, reason Reason) {
	e.Changes = append(e.Changes, Change{Key: k, Kind: ChangeBound, Session: s.id, Rule: rule, Reason: reason})
}

func (e *Effects) unbound(k Key, s *session, reason Reason) {
	e.Changes = append(e.Changes, Change{Key: k, Kind: ChangeUnbound, Session: s.id, Rule: RuleBind, Reason: reason})
}

func (e *Effects) advise(account string, s *session, timeout time.Duration, reason Reason) {
	e.Advice = append(e.Advice, Advice{SessionID{account, s.id}, timeout, reason})
}
