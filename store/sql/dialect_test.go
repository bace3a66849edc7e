package sqlstore

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
)

// state is an error of PostgreSQL's drivers.
type state string

func (s state) Error() string    { return "ERROR (SQLSTATE " + string(s) + ")" }
func (s state) SQLState() string { return string(s) }

func TestTransient(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for _, c := range []struct {
		err       error
		transient bool // before a commit, and if it was the commit's
		committed bool
	}{
		{state("40001"), true, true}, // serialization failure: nothing was committed
		{state("40P01"), true, true},
		{state("55P03"), true, true},
		{state("57P01"), true, false},
		{state("57P02"), true, false},
		{state("57P03"), true, false},
		{state("23505"), false, false},
		{state("53100"), false, false}, // disk full
		{io.ErrUnexpectedEOF, true, false},
		{reset, true, false},
		{syscall.EPIPE, true, false},
		{syscall.ECONNREFUSED, false, false},
		{errors.New("database is locked (5) (SQLITE_BUSY)"), true, true},
		{errors.New("database table is locked: push_registrations (6)"), true, true},
		{errors.New("database or disk is full (13)"), false, false},
		{errTaken, true, true},
	} {
		if got := transient(fmt.Errorf("wrapped: %w", c.err)); got != c.transient {
			t.Errorf("%v: %v, want %v", c.err, got, c.transient)
		}
		if got := transient(fmt.Errorf("wrapped: %w", commitError{c.err})); got != c.committed {
			t.Errorf("%v of a commit: %v, want %v", c.err, got, c.committed)
		}
	}
}
