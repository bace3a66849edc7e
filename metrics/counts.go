package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// Registrations counts the registrations of a store by state; push.MemoryStore and store/sql do.
type Registrations interface {
	Count(ctx context.Context) (push.RegistrationCounts, error)
}

// Counts has registrations counted at most once a minute, and never in the way of who asks. The zero Counts counts nothing. Safe for simultaneous
// use.
type Counts struct {
	mu     sync.Mutex
	source Registrations
	last   push.RegistrationCounts
	at     time.Time
	busy   bool
	tried  time.Time
}

const countEvery = time.Minute

// Watch has the registrations of r counted from now on.
func (c *Counts) Watch(r Registrations) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source = r
}

// Get returns the last count that did not fail and its time, and begins another if a minute has passed. ok is false as long as there is none.
func (c *Counts) Get() (n push.RegistrationCounts, at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.source; r != nil && !c.busy && time.Since(c.tried) >= countEvery {
		c.busy, c.tried = true, time.Now()
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), countEvery)
			defer cancel()
			n, err := r.Count(ctx)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.busy = false
			if err == nil {
				c.last, c.at = n, time.Now()
			}
		}()
	}
	return c.last, c.at, !c.at.IsZero()
}
