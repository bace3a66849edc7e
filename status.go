package push

import "time"

// AccountStatus is what an Engine knows of an account at one time.
type AccountStatus struct {
	Account       string
	Registrations []RegistrationStatus
	Sessions      []SessionStatus
	// Deferred is how many events wait for the Store to say what it has of the account.
	Deferred int
}

// RegistrationStatus is a registration with its pacing.
type RegistrationStatus struct {
	Registration
	// Unread is what message-count would be now, Waiting how many stanzas wait; NextTry is when what waits may go out, zero if nothing waits.
	Unread, Waiting int
	NextTry         time.Time
	// InFlight: a publish has not been answered.
	InFlight bool
}

// SessionStatus is a session.
type SessionStatus struct {
	ID, Client string
	// Resource is that of its full JID, if it is known.
	Resource string
	// Bound is the registration that it is bound to, if IsBound. If Superseded, it is the one that it would be bound to: a newer session of the same
	// device has it, or the registrations have not been read.
	Bound      Key
	IsBound    bool
	Superseded bool
	Hibernated bool
	// Extended: the host was advised to keep it resumable for longer than its normal time.
	Extended bool
	// Away: its presence says that the user is away.
	Away bool
}

// ServiceStatus is the state of one push service.
type ServiceStatus struct {
	Service string
	// InFlight is how many publishes wait for a reply, Waiting how many registrations are due and wait for their turn, those that the host is being asked
	// about included. Those that wait for a delay to pass, or for their next try, are not among them.
	InFlight, Waiting int
	// Broken: it does not answer, and is probed with one publish at a time.
	Broken bool
	// Hanging is how many calls of the Publisher have not returned in time, and were left to themselves.
	Hanging int
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
