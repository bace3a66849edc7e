package trace

import (
	"time"

	"github.com/xmpp-push/push"
)

// Policy is the part of a push.Policy that a trace can set in its config line. Times are in milliseconds; what is left out is the default.
type Policy struct {
	SkipPlain         bool  `json:"skip_plain,omitempty"`
	Delay             int64 `json:"delay_ms,omitempty"`
	DelayImportant    bool  `json:"delay_important,omitempty"`
	MinInterval       int64 `json:"min_interval_ms,omitempty"`
	Expire            int64 `json:"expire_ms,omitempty"`
	ExpireUrgent      int64 `json:"expire_urgent_ms,omitempty"`
	RetryMin          int64 `json:"retry_min_ms,omitempty"`
	RetryMax          int64 `json:"retry_max_ms,omitempty"`
	ReplyTimeout      int64 `json:"reply_timeout_ms,omitempty"`
	Remember          int   `json:"remember,omitempty"`
	RememberFor       int64 `json:"remember_for_ms,omitempty"`
	MaxResume         int64 `json:"max_resume_ms,omitempty"`
	WakeBefore        int64 `json:"wake_before_ms,omitempty"`
	MaxRegistrations  int   `json:"max_registrations,omitempty"`
	MaxErrors         int   `json:"max_errors,omitempty"`
	MaxErrorsUnproven int   `json:"max_errors_unproven,omitempty"`
	MaxRefusals       int   `json:"max_refusals,omitempty"`
	RetryDisabled     int64 `json:"retry_disabled_ms,omitempty"`
	ServiceInFlight   int   `json:"service_in_flight,omitempty"`
	BreakAfter        int   `json:"break_after,omitempty"`
	ProbeEvery        int64 `json:"probe_every_ms,omitempty"`
	Causes            int   `json:"causes,omitempty"`
}

// Push returns p as the library's Policy.
func (p Policy) Push() push.Policy {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	return push.Policy{
		SkipPlain:         p.SkipPlain,
		Delay:             ms(p.Delay),
		DelayImportant:    p.DelayImportant,
		MinInterval:       ms(p.MinInterval),
		Expire:            ms(p.Expire),
		ExpireUrgent:      ms(p.ExpireUrgent),
		RetryMin:          ms(p.RetryMin),
		RetryMax:          ms(p.RetryMax),
		ReplyTimeout:      ms(p.ReplyTimeout),
		Remember:          p.Remember,
		RememberFor:       ms(p.RememberFor),
		MaxResume:         ms(p.MaxResume),
		WakeBefore:        ms(p.WakeBefore),
		MaxRegistrations:  p.MaxRegistrations,
		MaxErrors:         p.MaxErrors,
		MaxErrorsUnproven: p.MaxErrorsUnproven,
		MaxRefusals:       p.MaxRefusals,
		RetryDisabled:     ms(p.RetryDisabled),
		ServiceInFlight:   p.ServiceInFlight,
		BreakAfter:        p.BreakAfter,
		ProbeEvery:        ms(p.ProbeEvery),
		Causes:            p.Causes,
	}
}

// FromPolicy returns what a config line has to say for a replay under the same policy.
func FromPolicy(p push.Policy) Policy {
	return Policy{
		SkipPlain:         p.SkipPlain,
		Delay:             p.Delay.Milliseconds(),
		DelayImportant:    p.DelayImportant,
		MinInterval:       p.MinInterval.Milliseconds(),
		Expire:            p.Expire.Milliseconds(),
		ExpireUrgent:      p.ExpireUrgent.Milliseconds(),
		RetryMin:          p.RetryMin.Milliseconds(),
		RetryMax:          p.RetryMax.Milliseconds(),
		ReplyTimeout:      p.ReplyTimeout.Milliseconds(),
		Remember:          p.Remember,
		RememberFor:       p.RememberFor.Milliseconds(),
		MaxResume:         p.MaxResume.Milliseconds(),
		WakeBefore:        p.WakeBefore.Milliseconds(),
		MaxRegistrations:  p.MaxRegistrations,
		MaxErrors:         p.MaxErrors,
		MaxErrorsUnproven: p.MaxErrorsUnproven,
		MaxRefusals:       p.MaxRefusals,
		RetryDisabled:     p.RetryDisabled.Milliseconds(),
		ServiceInFlight:   p.ServiceInFlight,
		BreakAfter:        p.BreakAfter,
		ProbeEvery:        p.ProbeEvery.Milliseconds(),
		Causes:            p.Causes,
	}
}
