package push

import (
	"context"
	"time"
)

// Engine is the shell around Accounts. Safe for simultaneous use.
type Engine struct{}

// New returns a running Engine, or everything that is wrong with cfg.
func New(cfg Config) (*Engine, error) { panic("being written") }

// Handle takes note of an event and returns the explained Decision.
func (e *Engine) Handle(ctx context.Context, ev Event) (Decision, error) { panic("being written") }

// HandleTo is Handle for callers that use a Decision again and again, which saves allocations. d may be nil.
func (e *Engine) HandleTo(ctx context.Context, ev Event, d *Decision) error { panic("being written") }

// Close sends what waits, or returns an *UnsentError.
func (e *Engine) Close(ctx context.Context) error { panic("being written") }

// Refresh reads an account's registrations again because another node changed them.
func (e *Engine) Refresh(ctx context.Context, account string) error { panic("being written") }

// AccountStatus is what an Engine knows of an account at one time.
type AccountStatus struct {
	Account       string
	Registrations []RegistrationStatus
	Sessions      []SessionStatus
}

// RegistrationStatus is a registration with its pacing.
type RegistrationStatus struct {
	Registration
	// Unread is what message-count would be; Waiting the number of stanzas that wait, NextTry when they may go out.
	Unread, Waiting int
	NextTry         time.Time
	InFlight        bool
}

// SessionStatus is a session.
type SessionStatus struct {
	ID, Client string
	// Bound is the registration that it is bound to, if IsBound.
	Bound      Key
	IsBound    bool
	Hibernated bool
	Extended   bool
}

// ServiceStatus is the state of one push service.
type ServiceStatus struct {
	Service           string
	InFlight, Waiting int
	Broken            bool
}

// Inspect returns what is known of an account.
func (e *Engine) Inspect(ctx context.Context, account string) (AccountStatus, error) {
	panic("being written")
}

// Services returns the push services that were met.
func (e *Engine) Services() []ServiceStatus { panic("being written") }
