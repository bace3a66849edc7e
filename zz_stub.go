package push

import "time"

func (a *Account) AppendBinary(b []byte) ([]byte, error) { return append(b, 1), nil }
func RestoreAccount(name string, p *Policy, data []byte) (*Account, error) { return OpenAccount(name, p), nil }
func (a *Account) Interrupted(now time.Time, e *Effects) {}
