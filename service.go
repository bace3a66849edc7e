package push

import "time"

// Service is the pure gate in front of one push service: how many publishes it may have in flight, and whether it is broken. A service that does not
// answer gets one probe at a time; when it is back, the number in flight starts at one and doubles, so that those who waited do not
// come all at once. The zero Service is what NewService returns for no policy. Not safe for simultaneous use.
type Service struct {
	policy *Policy
	// inFlight is how many publishes wait for a reply, window how many may.
	inFlight, window int
	// failures counts publishes in a row that had no answer; probeAt is when the next probe may go while the service is broken.
	failures int
	probes   int
	probeAt  time.Time
}

// NewService returns the gate of a service that was not heard of yet.
func NewService(p *Policy) *Service {
	p = p.resolve()
	return &Service{policy: p, window: p.ServiceInFlight}
}

// ready makes the zero Service usable.
func (s *Service) ready() {
	if s.policy == nil {
		*s = *NewService(nil)
	}
}

// Broken tells whether the service has stopped answering.
func (s *Service) Broken() bool {
	s.ready()
	return s.failures >= s.policy.BreakAfter
}

// InFlight is the number of publishes that were admitted and are not done.
func (s *Service) InFlight() int { return s.inFlight }

// Admit says whether a publish may go out now and, if so, counts it as in flight. If not, at is when to ask again; a zero at
// means when one in flight is done.
func (s *Service) Admit(now time.Time) (ok bool, at time.Time) {
	if s.Broken() {
		switch {
		case s.inFlight > 0:
			return false, time.Time{}
		case now.Before(s.probeAt):
			return false, s.probeAt
		}
	} else if s.inFlight >= s.window {
		return false, time.Time{}
	}
	s.inFlight++
	return true, time.Time{}
}

// room is how many publishes it may have in flight.
func (s *Service) room() int {
	if s.Broken() {
		return 1
	}
	return s.window
}

// Cancel takes an admission back that nothing was published on.
func (s *Service) Cancel() { s.inFlight-- }

// Done takes note of a publish's end. answered tells whether the service answered at all, with whatever.
func (s *Service) Done(now time.Time, answered bool) {
	s.ready()
	s.inFlight--
	if answered {
		if s.Broken() {
			s.window = 1
		}
		s.failures, s.probes = 0, 0
		if s.window < s.policy.ServiceInFlight {
			s.window++ // one more for each reply: twice as many in each round
		}
		return
	}
	s.failures++
	if s.Broken() && s.inFlight == 0 { // those that were in flight when it broke are no probes
		s.probeAt = now.Add(s.policy.ProbeEvery * time.Duration(min(1<<min(s.probes, 4), 10)))
		s.probes++
	}
}
