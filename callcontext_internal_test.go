package push

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// TestCallContext compares a callContext with what context.WithTimeout makes, looked at from the beginning or only at the end.
func TestCallContext(t *testing.T) {
	ends := map[string]func(parent, also context.CancelFunc, end func()){
		"not":      func(_, _ context.CancelFunc, _ func()) {},
		"parent":   func(parent, _ context.CancelFunc, _ func()) { parent() },
		"also":     func(_, also context.CancelFunc, _ func()) { also() },
		"returned": func(_, _ context.CancelFunc, end func()) { end() },
		"time":     func(_, _ context.CancelFunc, _ func()) { time.Sleep(time.Minute) },
	}
	for name, end := range ends {
		for _, early := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				type key struct{}
				parent, cancelParent := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
				also, cancelAlso := context.WithCancel(t.Context())
				defer cancelParent()
				defer cancelAlso()
				c := &callContext{parent: parent, also: also, until: time.Now().Add(time.Minute)}
				var ctx context.Context = c
				want, cancel := context.WithTimeout(parent, time.Minute)
				defer cancel()
				if early {
					ctx.Done()
				}
				assert.Equal(t, "value", ctx.Value(key{}))
				assert.NoError(t, ctx.Err())
				a, _ := want.Deadline()
				b, ok := ctx.Deadline()
				assert.True(t, ok && a.Equal(b))
				goroutines := runtime.NumGoroutine()
				below, leave := context.WithCancel(ctx)
				defer leave()
				assert.Equal(t, goroutines, runtime.NumGoroutine(), "a context below it costs no goroutine")
				called := false
				defer context.AfterFunc(ctx, func() { called = true })()

				end(cancelParent, func() { cancelAlso(); cancel() }, func() { c.end(); cancel() })
				synctest.Wait()
				assert.Equal(t, want.Err(), ctx.Err(), name)
				assert.Equal(t, want.Err(), below.Err(), name)
				assert.Equal(t, name != "not", called, name)
				select {
				case <-ctx.Done():
					assert.NotEqual(t, "not", name)
				default:
					assert.Equal(t, "not", name)
				}
				c.end()
			})
		}
	}
	c := &callContext{parent: t.Context(), until: time.Now().Add(time.Minute)}
	c.end()
	<-c.Done()
	assert.Equal(t, context.Canceled, c.Err())
	c = &callContext{parent: t.Context(), until: time.Now()}
	assert.Equal(t, context.DeadlineExceeded, c.Err())
}

// TestCallContextUnwatched: nobody has waited for its end, and it ends all the same.
func TestCallContextUnwatched(t *testing.T) {
	ended, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	cancel(nil)
	late, stop := context.WithDeadline(context.WithoutCancel(t.Context()), time.Now())
	defer stop()
	until := time.Now().Add(time.Minute)
	assert.NoError(t, (&callContext{parent: t.Context(), also: t.Context(), until: until}).Err())
	assert.Equal(t, context.Canceled, (&callContext{parent: t.Context(), also: ended, until: until}).Err())
	assert.Equal(t, context.Canceled, (&callContext{parent: ended, until: until}).Err())
	assert.Equal(t, context.DeadlineExceeded, (&callContext{parent: late, until: until}).Err())
	c := &callContext{parent: t.Context(), until: until}
	c.end()
	assert.Equal(t, context.Canceled, c.Err())
	assert.Equal(t, "push: a call, until "+until.Format(time.RFC3339Nano), c.String())

	// When the call has returned, what else could have ended it knows of it no more.
	c = &callContext{parent: t.Context(), also: t.Context(), until: until}
	c.Done()
	c.end()
	assert.False(t, c.leave())
}
