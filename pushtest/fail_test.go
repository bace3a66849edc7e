package pushtest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// failures is a testing.TB that notes failures instead of failing.
type failures struct {
	testing.TB
	mu   sync.Mutex
	list []string
}

func (f *failures) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, s)
}

func (f *failures) Helper()                         {}
func (f *failures) Log(...any)                      {}
func (f *failures) Error(args ...any)               { f.note(fmt.Sprint(args...)) }
func (f *failures) Errorf(form string, args ...any) { f.note(fmt.Sprintf(form, args...)) }
func (f *failures) Fatal(args ...any)               { f.Error(args...); runtime.Goexit() }
func (f *failures) Fatalf(form string, args ...any) { f.Errorf(form, args...); runtime.Goexit() }

// failing returns what f reports as failures.
func failing(t *testing.T, f func(t testing.TB)) string {
	tb := &failures{TB: t}
	done := make(chan bool)
	go func() {
		defer close(done)
		f(tb)
	}()
	<-done
	return strings.Join(tb.list, "\n")
}
