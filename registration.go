package push

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xmpp-push/push/wishes"
)

// Key names a registration within its account: a push service and the node that the client was given there
// (XEP-0357 §5). Node may be empty.
type Key struct {
	// Service is the JID of the push service (the app server), in prepared form.
	Service string
	// Node is what the service gave the client. Of a registration of Push 2.0 it is Push2Node followed by the device, of which the account
	// has one registration: the ID that SASL2 gave of the client, else the resource.
	Node string
}

// Push2Node begins the Node of registrations of Push 2.0. A client of XEP-0357 cannot enable a node that begins so.
const Push2Node = NSPush2 + "#"

// IsPush2 tells whether k names a registration of Push 2.0.
func (k Key) IsPush2() bool { return strings.HasPrefix(k.Node, Push2Node) }

// fits tells whether the registration can have such wishes.
func (k Key) fits(w *wishes.Wishes) error {
	if k.IsPush2() != (w != nil && w.Push2 != nil) {
		return fmt.Errorf("push: a registration has Wishes.Push2 if and only if its node begins with %s", Push2Node)
	}
	return w.Validate()
}

// Compare orders keys by service, then node, as Decision does.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Service, o.Service), cmp.Compare(k.Node, o.Node))
}

// Names tells whether a disable of k removes o: without a node it means all of the service (XEP-0357 §6), but those of the other protocol; without a
// service, all of the account.
func (k Key) Names(o Key) bool {
	return k.Service == "" || o.Service == k.Service && (k.Node == "" && !o.IsPush2() || o.Node == k.Node || k.Node == noNode && o.Node == "")
}

// noNode is the Node of a key that names only the registration without a node. Nothing from outside can be it.
const noNode = "\x00"

// Field is one field of a publish-options form (XEP-0004), as the client sent it: order, type and every value, empty
// ones included, are kept.
type Field struct {
	Var    string   `json:"var"`
	Type   string   `json:"type,omitempty"`
	Values []string `json:"values"`
}

// Registration is an account's promise from the server that a push service is told of its events.
type Registration struct {
	Account string
	Key
	// Options are sent with each publish, verbatim. They hold the service's secret: never log them.
	Options []Field
	// Wishes are what the client asked for besides. Nil: nothing.
	Wishes *wishes.Wishes
	// Client is the client ID of the session that enabled it last, or empty (rule R14).
	Client string
	// Enabled is when it was enabled last. At the limit the one that was enabled longest ago goes.
	Enabled time.Time
	Health  Health
}

// Health is what the replies of the push service taught about one registration.
type Health struct {
	// Errors counts error replies in a row that count towards disabling.
	Errors int
	// Refusals counts forbidden, not-authorized and not-allowed in a row.
	Refusals int
	// Failing is when the first error came since the last success, for registrations of Push 2.0, which are not disabled before that is long ago.
	// Zero: none came.
	Failing time.Time
	// Succeeded is when a publish was accepted first, or last as far as the store was told: it is refreshed about once a day.
	// Zero: never.
	Succeeded time.Time
	// Disabled is when the registration became a tombstone; zero while it is enabled. A new enable clears it.
	Disabled time.Time
	// Cause is the error condition that disabled it, such as "item-not-found".
	Cause string
}

// RenewAfter is how much younger an enable has to be than the stored one for its time alone to be worth a write: clients enable on every
// connect, and the time only decides which registration goes when there are too many.
const RenewAfter = 24 * time.Hour

// Enroll is what an enable of r does to the registrations that the account has before it. It is for stores that read, change and write.
//
//   - stored takes the place of the registration with its key, or is added. If write is false, what is there says the same already, and need not be
//     written.
//   - evicted have to go: with Push 2.0 the other registrations of the same device, and those that are too many for limit ([Evict]). That is r itself if by
//     its time it is the oldest: whatever the order in which processes enable, the same ones stay.
func Enroll(before []Registration, r Registration, limit int) (stored Registration, write bool, evicted []Key) {
	stored, write = r, true
	for _, o := range before {
		if o.sameDevice(r) {
			evicted = append(evicted, o.Key)
		}
	}
	after := slices.Clone(before)
	if i := slices.IndexFunc(before, func(o Registration) bool { return o.Key == r.Key }); i >= 0 {
		later := func(o Registration) bool { return o.Enabled.After(before[i].Enabled) }
		stored, write = r.renew(before[i], limit > 0 && slices.ContainsFunc(before, later))
		after[i] = stored
	} else {
		after = append(after, r)
	}
	after = slices.DeleteFunc(after, func(o Registration) bool { return o.sameDevice(r) })
	return stored, write, append(evicted, Evict(after, limit)...)
}

// sameDevice tells whether both are of Push 2.0 and of one device, at two services. It has only one of them.
func (r Registration) sameDevice(o Registration) bool {
	return r.IsPush2() && r.Node == o.Node && r.Service != o.Service
}

// renew returns what the enable r makes of old, which is stored under the same key, and whether that differs from old. inTurn says that the order in which
// the account's registrations were enabled changes, which decides which of them goes when there are too many.
//
// An enable says nothing about whether the push service takes what it is sent, so what is known of that stays: else a client that enables on
// every connect would never be found out, and a device that has proved itself would be disabled as quickly as one that never worked. Only a tombstone starts
// anew. A health that r brings along itself, from another store, replaces the old one.
func (r Registration) renew(old Registration, inTurn bool) (stored Registration, changed bool) {
	switch {
	case r.Health != Health{}:
		return r, true
	case !old.Health.Disabled.IsZero():
		r.Health = Health{Succeeded: old.Health.Succeeded}
		return r, true
	}
	if d := r.Enabled.Sub(old.Enabled); r.sameRequest(old) && !inTurn && d >= 0 && d < RenewAfter {
		return old, false
	}
	r.Health = old.Health
	return r, true
}

// sameRequest tells whether the client asks for the same in both.
func (r Registration) sameRequest(o Registration) bool {
	return r.Client == o.Client && r.Wishes.Equal(o.Wishes) && (r.Options == nil) == (o.Options == nil) && slices.EqualFunc(r.Options, o.Options, func(f, g Field) bool {
		return f.Var == g.Var && f.Type == g.Type && slices.Equal(f.Values, g.Values)
	})
}

// Store keeps registrations. An Engine calls it from many goroutines at once, never while it holds a lock. Its calls on one account come one after
// another, but other processes may use the same data at the same time. A method may block until ctx is done, which is after Config.StoreTimeout at
// the latest; the Engine does not wait for it beyond that. An error leaves the data as it was, or, if it came while a change was being committed, in
// doubt; calling again is safe either way. What a method is given stays the caller's: a Store copies what it keeps. What it returns is the caller's
// to change.
//
// A Store that can keep what waits, too, is a [Keeper]. One that may know the answer of List without asking anybody has another method,
//
//	Cached(account string) (rs []Registration, ok bool)
//
// which returns it, or false if it would have to wait. The Engine then decides most events without a goroutine. It must not wait for anything.
type Store interface {
	// List returns the account's registrations, tombstones included, in any order. An account that is not known has none,
	// which is not an error.
	List(ctx context.Context, account string) ([]Registration, error)
	// Enable stores r among the account's registrations as Enroll says, and has made that durable when it returns. It removes those that Enroll says
	// have to go (limit < 1: no limit). It returns what the account had before, as List would have; all of that is one transaction. So the caller
	// knows what the account has now, whoever else changed it, and an enable that says nothing new writes nothing.
	Enable(ctx context.Context, r Registration, limit int) (before []Registration, err error)
	// Remove removes the registrations that k.Names at that moment, and returns their keys. Those that List does not return, because they cannot be
	// read, are removed too. That there are none is no error. With an error it returns the keys of those that are gone all the same.
	Remove(ctx context.Context, account string, k Key) (removed []Key, err error)
	// Update changes the health of one registration, relative to what is stored. It returns ErrNotRegistered if there is none.
	Update(ctx context.Context, account string, k Key, u Update) error
}

// Update is a change of one stored registration's health.
type Update struct {
	// Errors and Refusals are added to the counters, which do not go below 0. They are negative if errors are not to count any more.
	Errors, Refusals int
	// Failing sets Health.Failing if that is zero.
	Failing time.Time
	// Disabled makes it a tombstone as of this time, because of Cause. Errors and Refusals may be set with it.
	Disabled time.Time
	Cause    string
	// Succeeded sets Health.Succeeded, and the counters to 0; it takes a tombstone back too.
	Succeeded time.Time
}

// Apply returns h changed by u, for stores that read, change and write.
func (u Update) Apply(h Health) Health {
	if !u.Succeeded.IsZero() {
		return Health{Succeeded: u.Succeeded}
	}
	h.Errors = max(h.Errors+u.Errors, 0)
	h.Refusals = max(h.Refusals+u.Refusals, 0)
	if h.Failing.IsZero() {
		h.Failing = u.Failing
	}
	if !u.Disabled.IsZero() {
		h.Disabled, h.Cause = u.Disabled, u.Cause
	}
	return h
}

// Evict names the registrations that have to go for the account to have no more than limit: tombstones first, then those
// that were enabled longest ago, ties in the order of their keys. A limit below 1 means no limit.
func Evict(rs []Registration, limit int) []Key {
	if limit < 1 || len(rs) <= limit {
		return nil
	}
	order := slices.Clone(rs)
	slices.SortFunc(order, func(a, b Registration) int {
		if ad, bd := a.Health.Disabled.IsZero(), b.Health.Disabled.IsZero(); ad != bd {
			if bd {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Enabled.Compare(b.Enabled), a.Key.Compare(b.Key))
	})
	keys := make([]Key, 0, len(rs)-limit)
	for _, r := range order[:len(rs)-limit] {
		keys = append(keys, r.Key)
	}
	return keys
}
