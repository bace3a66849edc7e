package push

import (
	"fmt"
	"reflect"
)

// plain tells whether an event has all that it needs, as almost all have.
func plain(ev Event) bool {
	switch ev := ev.(type) {
	case SessionOpen:
		return ev.Session.ID != ""
	case SessionRestored:
		return ev.Session.ID != ""
	case PushEnable:
		return ev.Service != ""
	case AffiliationNone:
		return ev.Service != ""
	default:
		return true
	}
}

// CheckEvent says what an event cannot do without and has not got, in an error that wraps ErrEvent, or returns nil. [Engine.Handle] asks it; a host
// with a shell of its own asks it before [Account.Handle], which takes no note of such events and has no error to say so.
func CheckEvent(ev Event) error {
	if ev != nil && !ours(ev) {
		return fmt.Errorf("%w: %v is not one of this package's events; give the struct itself, push.SessionOpen{…}, and not a pointer to it", ErrEvent, reflect.TypeOf(ev).String())
	}
	switch {
	case ev == nil:
		return fmt.Errorf("%w: it is nil", ErrEvent)
	case subject(ev).Account == "":
		return fmt.Errorf("%w: it names no account", ErrEvent)
	case !plain(ev):
		switch ev.(type) {
		case PushEnable, AffiliationNone:
			return fmt.Errorf("%w: it names no service", ErrEvent)
		default:
			return fmt.Errorf("%w: it names no session", ErrEvent)
		}
	}
	return nil
}

func (e *Effects) none() bool { return len(e.Changes) == 0 && len(e.Advice) == 0 && len(e.Drops) == 0 }

// changesStore tells whether an event changes stored registrations.
func changesStore(ev Event) bool {
	switch ev.(type) {
	case PushEnable, PushDisable, AffiliationNone, AccountRemoved:
		return true
	default:
		return false
	}
}

// opens tells whether an event makes an account worth keeping that had no registration.
func opens(ev Event) bool {
	switch ev.(type) {
	case SessionOpen, SessionRestored, PushEnable:
		return true
	default:
		return changesStore(ev)
	}
}
