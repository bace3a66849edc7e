package main

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// A mistake of this server's own costs the stream in whose service it was made, and no other: whatever is done for one stream, or when a timer fires, is done in
// survive. Locks are released by defer wherever a stanza is handled. The session of a client whose stream ends like that hibernates as it does when the
// connection is lost, with the stanza counted as handled, or the client would send it again and again.

// errBroken is what a stream ends with after a mistake of the server's.
var errBroken = errors.New("internal error")

// survive calls f. If that panics, the mistake is logged with what it was made for, and an error returned.
func (s *Server) survive(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errBroken, r)
			s.log.Error("a mistake of this server's", "in", what, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	return f()
}

// surviving is survive for what is done by itself.
func (s *Server) surviving(what string, f func()) {
	_ = s.survive(what, func() error { f(); return nil })
}
