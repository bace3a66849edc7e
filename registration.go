package push

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
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

// Compare orders keys by service, then node, as Decision does.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Service, o.Service), cmp.Compare(k.Node, o.Node))
}

// matches tells whether a disable of o removes k: without a node it means all of the service (XEP-0357 §6), but those of the other protocol.
func (k Key) matches(o Key) bool {
	return k.Service == o.Service && (o.Node == "" && !k.IsPush2() || k.Node == o.Node)
}

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
	Wishes *Wishes
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
	// Succeeded is when a publish was accepted first, or last as far as the store was told: it is refreshed about once a day.
	// Zero: never.
	Succeeded time.Time
	// Disabled is when the registration became a tombstone; zero while it is enabled. A new enable clears it.
	Disabled time.Time
	// Cause is the error condition that disabled it, such as "item-not-found".
	Cause string
}

// Store keeps registrations. An Engine calls it from many goroutines at once, never while it holds a lock, and with calls
// on one account one after another as far as this Engine goes; other processes may use the same data at the same time. A
// method may block until ctx is done. An error leaves the data as it was, or, if it came while a change was being committed, in doubt; calling
// again is safe either way. What a method is given stays the caller's: a Store
// copies what it keeps; what it returns is the caller's to change.
type Store interface {
	// List returns the account's registrations, tombstones included, in any order. An account that is not known has none,
	// which is not an error.
	List(ctx context.Context, account string) ([]Registration, error)
	// Enable inserts r, or replaces the one with the same account and key whole, health included, and has made that durable
	// when it returns. If the account then holds more than limit registrations (limit < 1: no limit), it removes those that
	// Evict names, in the same transaction, and returns their keys.
	Enable(ctx context.Context, r Registration, limit int) (evicted []Key, err error)
	// Update changes one registration, relative to what is stored. It returns ErrNotRegistered if there is none.
	Update(ctx context.Context, account string, k Key, u Update) error
}

// Update is a change of one stored registration. Exactly one of its parts is set.
type Update struct {
	// Remove deletes the registration.
	Remove bool
	// Errors and Refusals are added to the counters.
	Errors, Refusals int
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
	h.Errors += u.Errors
	h.Refusals += u.Refusals
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
