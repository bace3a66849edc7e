package push

import (
	"context"
	"sync"
	"time"
)

// callContext is the context of one call of the host's, with a bound. It is to others what context.WithDeadline would make, but makes that only when
// somebody waits for its end: most who are given a context look at it once, or not at all.
type callContext struct {
	parent context.Context
	// also ends it too, if it is not nil.
	also  context.Context
	until time.Time

	mu     sync.Mutex
	ended  bool
	made   context.Context // nil: nobody has waited
	cancel context.CancelFunc
	leave  func() bool // also
}

// end says that the call has returned.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.made != nil {
		c.cancel()
		if c.leave != nil {
			c.leave()
		}
	}
}

func (c *callContext) Deadline() (time.Time, bool) { return c.until, true }

func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made, c.cancel = context.WithDeadline(c.parent, c.until)
		if c.ended {
			c.cancel()
		} else if c.also != nil {
			c.leave = context.AfterFunc(c.also, c.cancel)
		}
	}
	return c.made.Done()
}

func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.made != nil:
		return c.made.Err()
	case c.ended || c.also != nil && c.also.Err() != nil:
		return context.Canceled
	case c.parent.Err() != nil:
		return c.parent.Err()
	case !time.Now().Before(c.until):
		return context.DeadlineExceeded
	}
	return nil
}

// Value leads package context to what Done has made, so that its own contexts below this one need no goroutine.
func (c *callContext) Value(key any) any {
	c.mu.Lock()
	made := c.made
	c.mu.Unlock()
	if made != nil {
		return made.Value(key)
	}
	return c.parent.Value(key)
}

func (c *callContext) String() string {
	return "push: a call, until " + c.until.Format(time.RFC3339Nano)
}
