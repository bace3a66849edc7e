package push

import (
	"slices"
	"time"
)

// session is one client connection as far as push is concerned.
type session struct {
	id     string
	client string
	// bound is the registration that the session enabled last (rule R1), or nil.
	bound *registration
	// hibernated: the connection is gone and the session can be resumed (XEP-0198).
	hibernated bool
	// extended: the host was advised to keep it resumable for longer than its normal time.
	extended bool
	// wakeAt is when a wake-up goes out because the resumption time is about to end. Zero: not.
	wakeAt instant
}

func (a *Account) session(id string) *session {
	for _, s := range a.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

// open adds a session, and binds it by its client ID if a registration remembers that one (rule R14): a client that does not
// enable again on every connect has to count as online while it is.
func (a *Account) open(e SessionOpen, d *Decision) {
	s := a.session(e.Session.ID)
	if s == nil {
		s = &session{id: e.Session.ID}
		a.sessions = append(a.sessions, s)
	}
	s.client = e.Client
	if s.client == "" {
		return
	}
	var found *registration
	for _, r := range a.regs {
		if r.Client == s.client && r.Health.Disabled.IsZero() && (found == nil || r.Registration.Enabled.After(found.Registration.Enabled)) {
			found = r
		}
	}
	if found != nil {
		s.bind(found)
		d.change(found.Key, ChangeBound, ReasonClientID, "")
	}
}

// bind ties the session to the registration (rule R1). Its device is in touch with the server, so what it missed is counted anew.
func (s *session) bind(r *registration) {
	s.bound = r
	r.unread = 0
}

// close ends a session, if there is one. What waits because of it still goes out: its device has not come back. What was notified is
// remembered for a while longer, because the session's stanzas go to offline storage now.
func (a *Account) close(id string, now time.Time) bool {
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
	return true
}

// hibernate marks the session and advises the host. A phone that is asleep does not come back by itself: it is woken by a notification that
// its user sees, and until one was sent the session should live on. (mod_cloud_notify, ejabberd's mod_push_keepalive)
func (a *Account) hibernate(s *session, now time.Time, d *Decision) {
	s.hibernated = true
	s.extended = false
	s.wakeAt = 0
	if s.bound == nil || !s.bound.Health.Disabled.IsZero() || a.policy.MaxResume <= 0 {
		return
	}
	s.extended = true
	if a.policy.WakeBefore > 0 {
		s.wakeAt = toInstant(now.Add(a.policy.MaxResume - a.policy.WakeBefore))
	}
	d.advise(a.name, s, a.policy.MaxResume, ReasonAsleep)
}

// alerted takes the advice back at once if what the session's user should see was sent before the connection was lost, because it was not
// acknowledged: no later notification would end the longer time.
func (a *Account) alerted(id string, d *Decision) {
	s := a.session(id)
	if s == nil || s.bound == nil || len(s.bound.pace.waiting) > 0 {
		return
	}
	for _, v := range d.Verdicts {
		if v.Key == s.bound.Key && v.Reason == ReasonSeen && v.Class >= ClassImportant {
			a.shorten(s.bound, ReasonWoken, &d.Effects)
		}
	}
}

// resume drops what waits because of this session: it gets its stanzas itself now (rule R5).
func (a *Account) resume(s *session, d *Decision) {
	s.hibernated = false
	s.extended = false
	s.wakeAt = 0
	if s.bound != nil {
		s.bound.unread = 0
	}
	for _, r := range a.regs {
		r.drop(r.pace.takeSession(s), ReasonResumed, "", &d.Effects)
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
	}
}

// standing tells how the account's sessions stand to a registration.
func (a *Account) standing(r *registration) (live, hibernated bool) {
	for _, s := range a.sessions {
		if s.bound == r {
			live = live || !s.hibernated
			hibernated = hibernated || s.hibernated
		}
	}
	return live, hibernated
}

func (e *Effects) change(k Key, kind ChangeKind, reason Reason, detail string) {
	e.Changes = append(e.Changes, Change{k, kind, reason, detail})
}

func (e *Effects) advise(account string, s *session, timeout time.Duration, reason Reason) {
	e.Advice = append(e.Advice, Advice{SessionID{account, s.id}, timeout, reason})
}
