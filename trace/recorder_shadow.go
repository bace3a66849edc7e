package trace

import (
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// shadow is what a Recorder knows of an account, for the account line that a file needs before the account's first event in it. It follows
// what the Engine tells of sessions and registrations.
type shadow struct {
	sessions []push.SessionStatus // in the order in which they were opened
	regs     []push.Registration
	// file is the number of the file that has an account line of it; touched is the time of its last event.
	file    int
	touched time.Time
	mask    *Mask
	limit   int // of registrations; below 1: none
}

func (s *shadow) empty() bool { return len(s.sessions) == 0 && len(s.regs) == 0 }

// status returns a copy that does not change any more.
func (s *shadow) status(account string) *push.AccountStatus {
	st := &push.AccountStatus{Account: account, Sessions: slices.Clone(s.sessions)}
	for _, r := range s.regs {
		st.Registrations = append(st.Registrations, push.RegistrationStatus{Registration: r})
	}
	return st
}

func (s *shadow) reg(k push.Key) *push.Registration {
	for i := range s.regs {
		if s.regs[i].Key == k {
			return &s.regs[i]
		}
	}
	return nil
}

func (s *shadow) session(id string) *push.SessionStatus {
	for i := range s.sessions {
		if s.sessions[i].ID == id {
			return &s.sessions[i]
		}
	}
	return nil
}

// read takes the registrations that were read from the Store, and tells whether that was news.
func (s *shadow) read(rs []push.Registration) bool {
	same := slices.EqualFunc(s.regs, rs, func(x, y push.Registration) bool {
		return x.Key == y.Key && x.Client == y.Client && x.Enabled.UnixMilli() == y.Enabled.UnixMilli() && x.Health == y.Health
	})
	s.regs = slices.Clone(rs)
	for i := range s.regs {
		s.regs[i].Options = s.mask.Fields(s.regs[i].Options)
		if !s.regs[i].Health.Disabled.IsZero() {
			s.unbind(s.regs[i].Key)
		}
	}
	return !same
}

func (s *shadow) unbind(k push.Key) {
	for i := range s.sessions {
		if s.sessions[i].Bound == k {
			s.sessions[i].Bound, s.sessions[i].IsBound, s.sessions[i].Superseded = push.Key{}, false, false
		}
	}
}

// event takes an event that was decided.
func (s *shadow) event(at time.Time, ev push.Event, d *push.Decision) {
	if d.Reason == push.ReasonTooManySessions {
		if i := slices.IndexFunc(s.sessions, func(o push.SessionStatus) bool { return !o.IsBound }); i >= 0 {
			s.sessions = slices.Delete(s.sessions, i, i+1)
		}
	}
	switch e := ev.(type) {
	case push.SessionOpen:
		if old := s.session(e.Session.ID); old != nil {
			old.Client, old.Resource = e.Client, resource(fullJID(e.JID, e.Session.Account))
			old.Hibernated, old.Extended = false, false
		} else {
			s.sessions = append(s.sessions, push.SessionStatus{ID: e.Session.ID, Client: e.Client, Resource: resource(fullJID(e.JID, e.Session.Account))})
		}
	case push.SessionRestored:
		o := s.session(e.Session.ID)
		if o == nil {
			s.sessions = append(s.sessions, push.SessionStatus{ID: e.Session.ID})
			o = &s.sessions[len(s.sessions)-1]
		}
		*o = push.SessionStatus{ID: e.Session.ID, Client: e.Client, Resource: resource(fullJID(e.JID, e.Session.Account)), Superseded: e.IsBound, Hibernated: e.Hibernated, Extended: e.Hibernated && e.Extended}
		if e.IsBound {
			o.Bound = e.Bound
		}
	case push.SessionClose:
		s.sessions = slices.DeleteFunc(s.sessions, func(o push.SessionStatus) bool { return o.ID == e.Session.ID })
	case push.HibernationStart, push.HibernationEnd:
		if o := s.session(ev.Subject().ID); o != nil {
			_, o.Hibernated = ev.(push.HibernationStart)
			o.Extended = false
		}
	case push.SessionPresence:
		if o := s.session(e.Session.ID); o != nil {
			o.Away = e.Away
		}
	case push.PushEnable:
		r := push.Registration{Account: e.Session.Account, Key: e.Key, Options: s.mask.Fields(e.Options), Wishes: e.Wishes, Enabled: at.Truncate(time.Millisecond)}
		if o := s.session(e.Session.ID); o != nil {
			r.Client = o.Client
		}
		i, found := slices.BinarySearchFunc(s.regs, e.Key, func(r push.Registration, k push.Key) int { return r.Key.Compare(k) })
		if found {
			s.regs[i], _, _ = push.Enroll(s.regs, r, s.limit)
		} else {
			s.regs = slices.Insert(s.regs, i, r)
		}
	case push.AccountRemoved:
		s.sessions = nil
	case push.PushDisable, push.AffiliationNone: // its effects tell what became of registrations
	case push.AckDelayed, push.Acknowledged, push.StanzaQueued, push.ArchiveAdded, push.Offline, push.Groupchat, push.Ping, push.SessionActive,
		push.Displayed, push.ChatChanged:
	}
	s.effects(at, &d.Effects)
}

func (s *shadow) effects(at time.Time, e *push.Effects) {
	for i := range e.Changes {
		c := &e.Changes[i]
		switch c.Kind {
		case push.ChangeRemoved:
			s.unbind(c.Key)
			s.regs = slices.DeleteFunc(s.regs, func(r push.Registration) bool { return r.Key == c.Key })
		case push.ChangeDisabled:
			s.unbind(c.Key)
			if r := s.reg(c.Key); r != nil && r.Health.Disabled.IsZero() {
				r.Health.Disabled, r.Health.Cause = at, c.Detail
			}
		case push.ChangeUnbound:
			if o := s.session(c.Session); o != nil {
				if o.IsBound, o.Superseded = false, c.Reason == push.ReasonNewerSession; o.Superseded {
					o.Bound = c.Key
				} else {
					o.Bound = push.Key{}
				}
			}
		default:
			if o := s.session(c.Session); o != nil {
				o.Bound, o.IsBound, o.Superseded = c.Key, true, false
			}
		}
	}
	for i := range e.Advice {
		if o := s.session(e.Advice[i].Session.ID); o != nil {
			o.Extended = e.Advice[i].Timeout > 0
		}
	}
}

// replied takes what a reply taught.
func (s *shadow) replied(k push.Key, res *push.Result) {
	if r := s.reg(k); r != nil && res.Store {
		r.Health = res.Update.Apply(r.Health)
	}
}

// resource returns the resource of a JID.
func resource(jid string) string {
	_, r, _ := strings.Cut(jid, "/")
	return r
}
