// A stopgap until memorystore.go is there: delete this file when it is.
package push

import (
	"context"
	"slices"
	"sync"
)

type MemoryStore struct {
	mu sync.Mutex
	m  map[string][]Registration
}

func NewMemoryStore() *MemoryStore { return &MemoryStore{m: map[string][]Registration{}} }
func (s *MemoryStore) List(ctx context.Context, a string) ([]Registration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.m[a]), nil
}
func (s *MemoryStore) Enable(ctx context.Context, r Registration, limit int) ([]Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rs := slices.DeleteFunc(s.m[r.Account], func(o Registration) bool { return o.Key == r.Key })
	rs = append(rs, r)
	ev := Evict(rs, limit)
	rs = slices.DeleteFunc(rs, func(o Registration) bool { return slices.Contains(ev, o.Key) })
	s.m[r.Account] = rs
	return ev, nil
}
func (s *MemoryStore) Update(ctx context.Context, a string, k Key, u Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rs := s.m[a]
	for i := range rs {
		if rs[i].Key == k {
			if u.Remove {
				s.m[a] = slices.Delete(rs, i, i+1)
			} else {
				rs[i].Health = u.Apply(rs[i].Health)
			}
			return nil
		}
	}
	return ErrNotRegistered
}
