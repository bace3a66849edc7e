//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

// Package filelock keeps two processes out of one folder.
package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Try takes a lock on a file, which ends with the process, and returns false if somebody else has it. Where the file system knows no locks there is none.
func Try(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil, errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOSYS):
		return true, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		return false, nil
	default:
		return false, err
	}
}
