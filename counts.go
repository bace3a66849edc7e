package push

import "context"

// RegistrationCounts is how many registrations a Store has, by their state.
type RegistrationCounts struct {
	// Enabled have had a success, and no error since; Untried neither; Failing have counted errors; Disabled are tombstones.
	Enabled, Untried, Failing, Disabled int
}

// Add counts a registration with the given health.
func (c *RegistrationCounts) Add(h Health) {
	switch {
	case !h.Disabled.IsZero():
		c.Disabled++
	case h.Errors+h.Refusals > 0:
		c.Failing++
	case h.Succeeded.IsZero():
		c.Untried++
	default:
		c.Enabled++
	}
}

// Count counts the registrations by state. It looks at each of them, but holds up only those of one part of the store at a time.
func (s *MemoryStore) Count(ctx context.Context) (c RegistrationCounts, err error) {
	ctx = orEndless(ctx)
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return RegistrationCounts{}, err
		}
		sh := &s.shards[i]
		sh.mu.RLock()
		for account, packed := range sh.accounts {
			for _, r := range unpack(account, packed) {
				c.Add(r.Health)
			}
		}
		sh.mu.RUnlock()
	}
	return c, nil
}
