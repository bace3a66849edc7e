package push

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Policy is everything about the rules that a host may want otherwise. The zero Policy is the default.
// Durations and numbers: zero means the default that the field names, and where "off" makes sense a negative value says it. A duration of more
// than ten years is cut to that, which is as good as never.
type Policy struct {
	// SkipPlain keeps plain stanzas from notifying anybody. By default they do, as a silent wake-up.
	SkipPlain bool
	// Delay is how long the notification of plain stanzas of an ack-delayed or stanza-queued event waits for more of them. Default 1 s; negative:
	// not at all.
	Delay time.Duration
	// DelayImportant lets important stanzas of these events wait for Delay as well, as Prosody does. A call never waits.
	DelayImportant bool
	// MinInterval is the shortest time between two publishes to one registration; what comes in between is merged into the
	// next. A call does not wait for it. Default 1 s, since the vendors' push services throttle and drop what comes faster; negative: none.
	MinInterval time.Duration
	// Expire is how old a notification may get while its publish fails, before it is given up. One waits for each registration, whatever is
	// in it, and the device can still fetch the messages: so it outlives a night. Default 12 h.
	Expire time.Duration
	// ExpireUrgent is the same for a call. Default 60 s.
	ExpireUrgent time.Duration
	// RetryMin and RetryMax bound the wait between two tries of one publish, which doubles each time; a call that comes meanwhile is a
	// reason to try at once. Defaults 5 s and 5 min.
	RetryMin, RetryMax time.Duration
	// ReplyTimeout is how long a push service may take to answer. Default 30 s.
	ReplyTimeout time.Duration

	// Remember is for how many stanzas each registration remembers that it was notified. Default 1024.
	Remember int
	// RememberFor is how long it remembers them once the account has no session. Default 10 min. While there is a session, MaxResume
	// is added: a stanza of a hibernated session can go to offline storage as late as that.
	RememberFor time.Duration

	// MaxResume is how long a session whose device can be woken by push should stay resumable. Default 72 h; negative: no advice.
	MaxResume time.Duration
	// WakeBefore, if more than zero, sends one plain notification that long before MaxResume of a hibernated session runs out.
	WakeBefore time.Duration

	// MaxRegistrations is how many registrations an account may have; the one that was enabled longest ago goes. Default 5;
	// negative: no limit.
	MaxRegistrations int
	// MaxErrors is the number of counted errors in a row that disables a registration. A notification that is tried again counts once, and once
	// more for each hour that it goes on failing. Default 16.
	MaxErrors int
	// MaxErrorsUnproven is the same for a registration that never had a success. Default 3, but no more than MaxErrors.
	MaxErrorsUnproven int
	// MaxRefusals is the number of forbidden, not-authorized and not-allowed replies in a row that disables it. Default 3.
	MaxRefusals int
	// DisableAfter is how long publishes to a registration of Push 2.0 have to fail, with no success in between, for an error to disable it.
	// Default 72 h.
	DisableAfter time.Duration
	// RetryDisabled, if more than zero, lets a registration that was disabled by errors be tried again after that long, once, with the next
	// notification (XEP-0357 §7.1). Default: not.
	RetryDisabled time.Duration

	// ServiceInFlight is how many publishes to one push service may wait for a reply at a time. Default 64.
	ServiceInFlight int
	// BreakAfter is how many times in a row a service must not answer before only one publish at a time probes it. Default 5.
	BreakAfter int
	// ProbeEvery is the time between two probes; it doubles up to ten times that. Default 10 s.
	ProbeEvery time.Duration

	// IncludeSender and IncludeBody put the sender's JID and the text into the summary form, the text of what the user should see alone: what only wakes
	// shows nothing. Off by default: the push service and those behind it would read them.
	IncludeSender, IncludeBody bool
	// StandIn is the last-message-body of important and urgent notifications that carry no text of their own; push services tell by
	// it whether to alert. Default "New Message!"; NoStandIn turns it off.
	StandIn   string
	NoStandIn bool

	// AlertReactions makes reactions (XEP-0444) important. By default they are plain.
	AlertReactions bool
	// AskedCallsOnly notifies of calls only those whose client asked for them (tigase:push:jingle:0). By default everybody is.
	AskedCallsOnly bool
	// NoTextMentions lets only references, replies and marked mentions count as a mention. By default the user's nickname in the text does too.
	NoTextMentions bool
	// SkipEncryptedMentions: in a room that notifies of mentions only, an encrypted message, of which nobody can tell, does not notify. By default it does.
	SkipEncryptedMentions bool
	// Grace is how long notifications that are not urgent wait while the user is active in another session (SessionActive, or a message of the
	// account's in its archive): until that long after it was active last. An older session of the same device is no other. What is read meanwhile is not sent. Default: off.
	Grace time.Duration
	// TellRead sends one quiet notification with the new number of unread messages to devices that were notified of what the user has
	// read elsewhere since, so that they take it back; merged with what else goes out, and alone no more often than once in 10 s. Default: off.
	TellRead bool
	// AskAgain is how long an answer of Chats is used for the same chat. Default 10 min; negative: for one stanza.
	AskAgain time.Duration

	// Contact is a URI at which push services reach the operator, such as "mailto:ops@example.com". It is the sub of tokens (RFC 8292 §2.1), of
	// which some services want that it is there and is of mailto or https. Default: "xmpp:" and the server's domain.
	Contact string

	// Causes is how many of its events a notification names at most, the oldest being left out. Default 32.
	Causes int

	resolved bool
}

// resolve returns p with its defaults filled in, p itself if they are.
func (p *Policy) resolve() *Policy {
	if p == nil {
		p = new(Policy)
	}
	if p.resolved {
		return p
	}
	r := p.withDefaults()
	r.resolved = true
	return &r
}

// withDefaults returns p with every zero that means a default replaced, and every "off" as zero.
func (p Policy) withDefaults() Policy {
	p.Delay = lasting(p.Delay, time.Second)
	p.MinInterval = lasting(p.MinInterval, time.Second)
	p.Expire = lasting(p.Expire, 12*time.Hour)
	p.ExpireUrgent = lasting(p.ExpireUrgent, time.Minute)
	p.RetryMin = lasting(p.RetryMin, 5*time.Second)
	p.RetryMax = lasting(p.RetryMax, 5*time.Minute)
	p.ReplyTimeout = lasting(p.ReplyTimeout, 30*time.Second)
	p.Remember = orDefault(p.Remember, 1024)
	p.RememberFor = lasting(p.RememberFor, 10*time.Minute)
	p.MaxResume = lasting(p.MaxResume, 72*time.Hour)
	p.MaxRegistrations = orDefault(p.MaxRegistrations, 5)
	p.MaxErrors = orDefault(p.MaxErrors, 16)
	p.MaxErrorsUnproven = min(orDefault(p.MaxErrorsUnproven, 3), p.MaxErrors)
	p.MaxRefusals = orDefault(p.MaxRefusals, 3)
	p.DisableAfter = lasting(p.DisableAfter, 72*time.Hour)
	p.ServiceInFlight = orDefault(p.ServiceInFlight, 64)
	p.BreakAfter = orDefault(p.BreakAfter, 5)
	p.ProbeEvery = lasting(p.ProbeEvery, 10*time.Second)
	p.StandIn = cmp.Or(p.StandIn, "New Message!")
	if p.NoStandIn {
		p.StandIn = ""
	}
	p.AskAgain = lasting(p.AskAgain, 10*time.Minute)
	p.Causes = orDefault(p.Causes, 32)
	p.WakeBefore, p.RetryDisabled, p.Grace = lasting(p.WakeBefore, 0), lasting(p.RetryDisabled, 0), lasting(p.Grace, 0)
	return p
}

func orDefault[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return max(v, 0)
}

// forever is the longest duration that anything is set to. With it, and with the sums of some, a time is still one that can be counted in nanoseconds.
const forever = 10 * 365 * 24 * time.Hour

// lasting is orDefault for durations, of which hosts mean "never" by the largest.
func lasting(v, def time.Duration) time.Duration { return min(orDefault(v, def), forever) }

// Validate reports everything that is wrong with p at once, or nil.
func (p Policy) Validate() error {
	var errs []error
	positive := func(name string, v int64) {
		if v < 0 {
			errs = append(errs, fmt.Errorf("push: Policy.%s is negative, which means nothing; leave it 0 for the default", name))
		}
	}
	positive("Expire", int64(p.Expire))
	positive("ExpireUrgent", int64(p.ExpireUrgent))
	positive("RetryMin", int64(p.RetryMin))
	positive("RetryMax", int64(p.RetryMax))
	positive("ReplyTimeout", int64(p.ReplyTimeout))
	positive("Remember", int64(p.Remember))
	positive("RememberFor", int64(p.RememberFor))
	positive("WakeBefore", int64(p.WakeBefore))
	positive("MaxErrors", int64(p.MaxErrors))
	positive("MaxErrorsUnproven", int64(p.MaxErrorsUnproven))
	positive("MaxRefusals", int64(p.MaxRefusals))
	positive("DisableAfter", int64(p.DisableAfter))
	positive("RetryDisabled", int64(p.RetryDisabled))
	positive("ServiceInFlight", int64(p.ServiceInFlight))
	positive("BreakAfter", int64(p.BreakAfter))
	positive("ProbeEvery", int64(p.ProbeEvery))
	positive("Grace", int64(p.Grace))
	positive("Causes", int64(p.Causes))
	d := p.withDefaults()
	if d.RetryMax < d.RetryMin {
		errs = append(errs, fmt.Errorf("push: Policy.RetryMax (%v) is shorter than RetryMin (%v)", d.RetryMax, d.RetryMin))
	}
	if d.WakeBefore > 0 && d.WakeBefore >= d.MaxResume {
		errs = append(errs, fmt.Errorf("push: Policy.WakeBefore (%v) is not shorter than MaxResume (%v)", d.WakeBefore, d.MaxResume))
	}
	return errors.Join(errs...)
}
