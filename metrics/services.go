// Package metrics has what the exporters in the modules below it share.
package metrics

import (
	"sync"
	"unicode/utf8"
)

// Services gives push services the names that they have in metrics. The JIDs of services come from clients, and each name is a time series of its
// own for as long as the metrics live: whoever may enable push could make any number of them. So a service has its own name only if the
// host lists it, or if it is among the first few that have accepted a publish. All others are called "other". The zero Services has none.
type Services struct {
	// Listed always have their own names. They must not be changed any more once it is in use.
	Listed []string
	// Max is how many more may get one.
	Max int

	mu    sync.RWMutex
	names map[string]bool
	extra int
}

// Other is the name of the services without a name of their own.
const Other = "other"

// Name returns the name of a service in metrics.
func (s *Services) Name(service string) string {
	s.mu.RLock()
	known := s.names[service]
	s.mu.RUnlock()
	if known {
		return service
	}
	for _, l := range s.Listed {
		if l == service {
			s.add(service, false)
			return service
		}
	}
	return Other
}

// Accepted notes that a service has accepted a publish, which may give it a name.
func (s *Services) Accepted(service string) {
	s.mu.RLock()
	done := s.names[service] || s.extra >= s.Max
	s.mu.RUnlock()
	if !done && len(service) <= 255 && utf8.ValidString(service) {
		s.add(service, true)
	}
}

func (s *Services) add(service string, extra bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[service] || extra && s.extra >= s.Max {
		return
	}
	if s.names == nil {
		s.names = make(map[string]bool)
	}
	s.names[service] = true
	if extra {
		s.extra++
	}
}
