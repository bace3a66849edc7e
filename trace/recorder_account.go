package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// An account line says what is known of an account at its time: its registrations with their health, and its sessions. A recording has one
// before the first event of each account that was there before the recording began. What such a line cannot say is what was notified lately
// and what waits.

// registrationState is what an account line says of a registration besides its key. Times are in milliseconds; no time is null.
type registrationState struct {
	Client    string          `json:"client,omitempty"`
	Enabled   *int64          `json:"enabled,omitempty"`
	Errors    int             `json:"errors,omitempty"`
	Refusals  int             `json:"refusals,omitempty"`
	Failing   *int64          `json:"failing,omitempty"`
	Succeeded *int64          `json:"succeeded,omitempty"`
	Disabled  *int64          `json:"disabled,omitempty"`
	Cause     string          `json:"cause,omitempty"`
	Options   json.RawMessage `json:"options,omitempty"`
	Wishes    *wishes.Wishes  `json:"wishes,omitempty"`
}

// sessionState is what it says of a session. Service and node are of the registration that it is bound to.
type sessionState struct {
	Session  string  `json:"session"`
	Client   string  `json:"client,omitempty"`
	Resource string  `json:"resource,omitempty"`
	Away     bool    `json:"away,omitempty"`
	Service  string  `json:"service,omitempty"`
	Node     *string `json:"node,omitempty"`
	sessionFlags
}

// sessionFlags are those of a session in an account line, and of a session-restored line.
type sessionFlags struct {
	Superseded bool `json:"superseded,omitempty"`
	Hibernated bool `json:"hibernated,omitempty"`
	Extended   bool `json:"extended,omitempty"`
}

func millis(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	ms := t.UnixMilli()
	return &ms
}

func fromMillis(ms *int64) time.Time {
	if ms == nil || *ms > maxAt || *ms < -maxAt {
		return time.Time{}
	}
	return time.UnixMilli(*ms)
}

func (r *Reader) account(l *line) (*push.AccountStatus, error) {
	user, err := bareJID("user", l.User)
	if err != nil {
		return nil, err
	}
	st := &push.AccountStatus{Account: user}
	for i := range l.Targets {
		t := &l.Targets[i]
		k, err := key(&line{Service: t.Service, Node: t.Node})
		if err != nil {
			return nil, err
		}
		fields, err := options(t.Options)
		if err != nil {
			return nil, fmt.Errorf("options: %w", err)
		}
		st.Registrations = append(st.Registrations, push.RegistrationStatus{Registration: push.Registration{
			Account: user, Key: k, Options: fields, Client: t.Client, Wishes: t.Wishes, Enabled: fromMillis(t.Enabled),
			Health: push.Health{
				Errors: t.Errors, Refusals: t.Refusals, Failing: fromMillis(t.Failing), Succeeded: fromMillis(t.Succeeded), Disabled: fromMillis(t.Disabled), Cause: t.Cause,
			},
		}})
	}
	for i := range l.Sessions {
		s := &l.Sessions[i]
		if s.Session == "" {
			return nil, errors.New("a session without its ID")
		}
		ss := push.SessionStatus{ID: s.Session, Client: s.Client, Resource: s.Resource, Away: s.Away, Hibernated: s.Hibernated, Extended: s.Extended}
		if s.Service != "" {
			k := line{Service: s.Service}
			if s.Node != nil {
				k.Node = *s.Node
			}
			if ss.Bound, err = key(&k); err != nil {
				return nil, err
			}
			ss.Superseded = s.Superseded
			ss.IsBound = !s.Superseded
		}
		r.sessions[s.Session] = user
		st.Sessions = append(st.Sessions, ss)
	}
	return st, nil
}

// known takes an account line. If the replay has the account in just this state already, it stays as it is, with what was notified and what
// waits: so the files of one recording can be replayed one after another.
func (r *Replay) known(st *push.AccountStatus, now time.Time) {
	if a := r.accounts[st.Account]; a != nil {
		if sameState(a.Status(now), st) {
			return
		}
		r.forget(a, now)
	}
	a := r.account(st.Account)
	a.Account = restore(st, r.policy, now)
	a.partial = true
	if r.obs.Read != nil {
		r.obs.Read(a.name, now, a.Registrations())
	}
	r.settle(a, now)
}

// forget ends an account: what is in flight for it is answered as far as its services are concerned.
func (r *Replay) forget(a *account, now time.Time) {
	for k := range a.flights {
		r.service(k.Service).gate.Done(now, true)
	}
	r.queue.Set(&a.node, time.Time{})
	a.Account = push.NewAccount(a.name, r.policy, nil) // a service may still have it among those that are ready
	a.flights = nil
	delete(r.accounts, a.name)
}

// restore makes an account in the given state.
func restore(st *push.AccountStatus, p *push.Policy, now time.Time) *push.Account {
	rs := make([]push.Registration, len(st.Registrations))
	for i, reg := range st.Registrations {
		rs[i] = reg.Registration
	}
	a := push.NewAccount(st.Account, p, rs)
	var d push.Decision
	for _, s := range st.Sessions {
		a.Handle(push.SessionRestored{
			Session: push.SessionID{Account: st.Account, ID: s.ID}, JID: st.Account + "/" + s.Resource, Client: s.Client,
			Bound: s.Bound, IsBound: s.IsBound || s.Superseded, Superseded: s.Superseded || !s.IsBound, Hibernated: s.Hibernated, Extended: s.Extended,
		}, push.Facts{Now: now}, &d)
		if s.Away {
			a.Handle(push.SessionPresence{Session: push.SessionID{Account: st.Account, ID: s.ID}, Away: true}, push.Facts{Now: now}, &d)
		}
	}
	return a
}

// sameState tells whether two states decide alike. Times of enabling and of successes are compared by their order and presence.
func sameState(a push.AccountStatus, b *push.AccountStatus) bool {
	return slices.EqualFunc(a.Registrations, b.Registrations, func(x, y push.RegistrationStatus) bool {
		h, g := x.Health, y.Health
		return x.Key == y.Key && x.Client == y.Client && h.Errors == g.Errors && h.Refusals == g.Refusals &&
			h.Failing.IsZero() == g.Failing.IsZero() && h.Succeeded.IsZero() == g.Succeeded.IsZero() && h.Disabled.IsZero() == g.Disabled.IsZero() && h.Cause == g.Cause
	}) && slices.Equal(byAge(a), byAge(*b)) && slices.EqualFunc(a.Sessions, b.Sessions, func(x, y push.SessionStatus) bool {
		x.Resource = y.Resource // of a session with a client ID an Account does not keep it
		x.Extended = y.Extended // the line may be made in the middle of a publish that takes the advice back
		return x == y
	})
}

// byAge returns the keys in the order in which they would be evicted.
func byAge(st push.AccountStatus) []push.Key {
	rs := make([]push.Registration, len(st.Registrations))
	for i, r := range st.Registrations {
		rs[i] = r.Registration
		rs[i].Enabled = rs[i].Enabled.Truncate(time.Millisecond)
	}
	var keys []push.Key
	for len(rs) > 0 {
		k := push.Evict(rs, len(rs)-1)
		if len(k) == 0 { // Evict takes 0 for no limit
			k = []push.Key{rs[0].Key}
		}
		keys = append(keys, k[0])
		rs = slices.DeleteFunc(rs, func(r push.Registration) bool { return r.Key == k[0] })
	}
	return keys
}
