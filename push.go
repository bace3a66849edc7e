// Package push decides when an XMPP server has to wake a phone (XEP-0357), says why, and does it.
//
// The server, here called the host, creates one [Engine] and tells it what happens, as events ([Event]). For each event the Engine answers, for
// every registration of the account, whether it is notified and why ([Decision]). It sends the notifications when they are due, learns from the
// replies, and keeps registrations in a [Store].
//
// A host's duties, in order:
//
//  1. Give [New] a [Config] with the server's domain and a [Publisher], which sends IQs to push services: a [Router] for servers that route
//     stanzas, package mellium for sessions of mellium.im/xmpp. The zero value of the rest is good.
//  2. Answer the enable and disable stanzas of clients with [ParseRequest], or the handlers of package mellium, and announce what [Offer] lists.
//  3. Raise the events where they happen ([Engine.Handle]). Each stanza ([ParseStanza]) has an ID of its own, the same in every event ([Stanza.ID]).
//     After a restart, raise [SessionRestored] for the sessions that go on.
//  4. Close the Engine when the server stops.
//
// The guide docs/hosts.md of the repository says where in a server each event is raised, and answers what else a host's author asks.
//
// What a host may have besides, each a small interface and a field of Config: [Store] and [Keeper], [Resumption], [UnreadCounter],
// [SubscriptionCounter], [Liveness], [Vetoer], [Contacts], [Chats]. An [Observer] is for metrics, the inspector (the pages of package pushhttp) and
// recordings (package trace). Package pushtest checks a host's own Store, Publisher and integration.
//
// Words: a registration is an account's promise from the server that a push service is told of its events; to its user it is a device. A session is
// one client connection; while its connection is gone and it can be resumed (XEP-0198) it hibernates. It is bound to the registration that it
// enabled. A tombstone is a registration that the push service's errors disabled: it is kept with the cause, and not published to. A notification is
// a decision's yes, a publish the stanza that says it. A wake-up is a notification that shows nothing.
//
// [Account], [Facts], [Service], [Result] and [NewAccount] with its relatives are the pure core under the Engine: without a clock, goroutine, lock
// or I/O. Only hosts with a shell of their own need them; others can leave them aside.
//
// The library keeps a message's text only if the policy says that push services may see it, or a client has asked for it with keys of its own. It
// never logs text or publish options.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"mellium.im/xmpp/stanza"
)

// Where to read on in the source: who is notified, and why, is in rules.go, the business rules in their order, with wanted.go for what was asked
// for besides and push2match.go for Push 2.0; judge.go puts the questions to them that an event raises. When, is in pace.go, merging and retries,
// and service.go, the gate in front of a push service; how, in publish.go and encode.go, and what a reply means in outcome.go. What a stanza is
// about is in stanza.go, collect.go and content.go; what a client asked for in iq.go, enable.go, tigase.go and package wishes. account.go and
// session.go are the state that these work on, engine.go the shell around it.

// NS is the namespace of XEP-0357, and the feature that an account announces.
const NS = "urn:xmpp:push:0"

// NSPush2 is the namespace of Push 2.0, and the feature that an account announces.
const NSPush2 = "urn:xmpp:push2:0"

// Errors that callers can test for with errors.Is.
var (
	// ErrClosed: the Engine was closed; the event was not handled.
	ErrClosed = errors.New("push: engine is closed")
	// ErrStore is wrapped by errors of the host's Store. The event had no effect; or, of an enable or disable that the Store did not answer in time, it
	// is in doubt whether it had one, and the text says so. Either may be given to Handle again.
	ErrStore = errors.New("push: store failed")
	// ErrNotRegistered: there is no such registration.
	ErrNotRegistered = errors.New("push: not registered")
	// ErrEvent: the event lacks its account or another field that it cannot do without.
	ErrEvent = errors.New("push: unusable event")
)

// Publisher sends a notification to its push service and waits for the reply. It is called from several goroutines at once, for one
// registration never twice at a time, and never while the Engine holds a lock. It should return when ctx is done, which is after
// Policy.ReplyTimeout at the latest: a publish that has not been answered by then is tried again. One that does not return then holds up its
// registration, and no other, until it does: its late answer counts, so that what was sent is not sent twice. When the notification is of no use
// any more (Policy.Expire, Policy.ExpireUrgent) it is dropped, its outcome unknown.
//
// It returns nil if the service accepted the publish. An error reply is returned as a *ReplyError or a stanza.Error of mellium.im/xmpp,
// wrapped or not; any other error means that there was no answer. n is the Publisher's until it returns.
type Publisher interface {
	Publish(ctx context.Context, n *Notification) error
}

// PublisherFunc is a function as a Publisher.
type PublisherFunc func(ctx context.Context, n *Notification) error

// Publish calls f.
func (f PublisherFunc) Publish(ctx context.Context, n *Notification) error {
	if f == nil {
		return errors.New("push: the PublisherFunc is nil; give a function that sends n to its push service")
	}
	return f(ctx, n)
}

// Resumption lets the host follow advice on how long a hibernated session stays resumable. Optional: without it sessions stay for the host's normal
// time.
type Resumption interface {
	// ResumeTimeout is called with the time, from now on, for which the session should stay resumable; zero means the host's normal time. A session
	// that hibernates without advice has the host's normal time as well. Calls for one session come in their order, in the course of Handle or from
	// a goroutine of the Engine's; those for several come at once. It must not call the Engine, nor wait for a lock that the host holds while it
	// calls Handle.
	ResumeTimeout(session SessionID, timeout time.Duration, reason Reason)
}

// UnreadCounter knows how many messages of an account are unread. Optional: without it message-count is what the Engine notified since the
// device was last active, as far as it remembers.
type UnreadCounter interface {
	// Unread returns the number for the summary form. It is asked before each publish, from many goroutines at once; if it fails, the Engine's own
	// number is used.
	Unread(ctx context.Context, account string) (int, error)
}

// SubscriptionCounter knows how many subscription requests of an account are not answered. Optional: without it notifications do not say.
type SubscriptionCounter interface {
	// PendingSubscriptions returns the number for the summary form's pending-subscription-count. It is asked before each publish, from many goroutines
	// at once; if it fails, the field is left out.
	PendingSubscriptions(ctx context.Context, account string) (int, error)
}

// Liveness knows the sessions on other nodes of a cluster. Optional.
type Liveness interface {
	// Elsewhere returns the account's registrations that are bound to a session on another node. It is asked in the course of Handle, from many
	// goroutines at once, and must not call the Engine. If it fails, the decision is made without.
	Elsewhere(ctx context.Context, account string) ([]Key, error)
}

// Vetoer has the last word on who is notified. Optional. The text that a method returns is the reason of a no; empty means yes.
type Vetoer interface {
	// VetoStanza is asked for each stanza and registration that the rules say yes to, in the course of Handle, for muted contacts and
	// the like; for several accounts at once. It must not call the Engine, nor wait for a lock that the host holds while it calls Handle.
	VetoStanza(r *Registration, st Stanza) string
	// VetoPublish is asked before each publish, from many goroutines at once, and may change n, for instance its Body or Unread.
	VetoPublish(ctx context.Context, n *Notification) string
}

// Observer is told what the Engine does: for metrics, an inspector, a recording. Each function may be nil. They are told of an account's doings in
// the order in which they happened, one call after another, and of several accounts at once. Handle returns when they have been told of its event,
// so they should be quick. They must not call the Engine, and must not keep what they are given beyond the call. One that takes longer than
// Config.HookTimeout is left to itself, and the Observer is not told of that account until it has returned. Of what waits to be told meanwhile an
// account keeps the newest 256.
type Observer struct {
	// Quick is a promise that the functions wait for nothing but locks that are held for moments: not for a disk, a network, a channel or the host.
	// They are then called by whoever calls Handle, or by the goroutine that publishes. That spares each event a change of goroutines, about 0.6 µs.
	// The observers of package trace, of pushhttp and of metrics/prometheus are quick.
	//
	// The promise is not watched closely: a function that hangs holds its caller for as long as it does, and one that calls runtime.Goexit ends it. A
	// panic is as harmless as with others. After HookTimeout the account's other events go on, and until the function has returned, its Observer is
	// told like one that is not quick.
	Quick bool
	// Started: New made an Engine for this host, with this policy. It is the first that an Observer is told of an Engine; one that is given to
	// several Engines, one after another, is told by it that what it knew of sessions and of what waits is over.
	Started func(at time.Time, host string, policy Policy)
	// Read: the account's registrations were read from the Store, because an event concerns it or another node changed them; rs are what the
	// Engine now has. What it does to them later is in the other functions.
	Read func(account string, at time.Time, rs []Registration)
	// Decided: an event was handled. number is what notifications and the log name as their cause; took is how long deciding it took, without the Store.
	// Of one Engine, each event has another number, and those of one account rise. They have gaps, for each of 64 groups of accounts is numbered by itself:
	// they count nothing.
	Decided func(number uint64, at time.Time, ev Event, d *Decision, took time.Duration)
	// Affected: something changed outside of an event: a notification was dropped, a registration disabled.
	Affected func(account string, at time.Time, e *Effects)
	// Sent: a publish goes out. The host's unread count and its veto (VetoPublish) are asked for after this; Replied has what they made of it.
	Sent func(at time.Time, n *Notification)
	// Stored: a call of the Store for an account has ended. call is its name, such as "Store.List".
	Stored func(account string, at time.Time, call string, took time.Duration, err error)
	// Replied: a publish ended, with that reply, or without one (Reply.Missing).
	Replied func(at time.Time, n *Notification, reply Reply, result Result, took time.Duration)

	// parts are what it was made of by Observers.
	parts []*Observer
}

// Config is what an Engine needs of its host. Host and Publisher are required.
type Config struct {
	// Host is the server's domain, in prepared form. Publishes come from it.
	Host string
	// Publisher sends the publishes.
	Publisher Publisher
	// Store keeps the registrations. Nil means memory, which a restart empties. One that is a [Keeper] has one Engine at a time: New refuses the Store of
	// another Engine of this process that was not closed.
	Store Store
	// Policy is the rules' policy. The zero value is the default.
	Policy Policy

	// Optional abilities of the host; nil means that it has not got them.
	Resumption Resumption
	Unread     UnreadCounter
	// Subscriptions counts requests for subscription. Contacts and Chats answer what only the host knows of senders and rooms.
	Subscriptions SubscriptionCounter
	Contacts      Contacts
	Chats         Chats
	Liveness      Liveness
	Veto          Vetoer

	// HookTimeout is how long each call of an optional ability, the Observer or the Logger may take. Then the account goes on without it, as if it had
	// failed, and its late return changes nothing. It is also how long Handle waits for registrations to be read. Default 5 s.
	HookTimeout time.Duration
	// StoreTimeout is when the context of a call of the Store ends. Default 30 s.
	StoreTimeout time.Duration
	// MaxDeferred is how many events wait in memory while the Store does not say what it has of their accounts. Beyond it, or beyond 256 events of one
	// account, Handle returns an error that wraps ErrStore. An event counts once more for each 4 KB of text and XML that it brings, so this is a bound
	// on memory too. Default 65,536, which is about 256 MB of text at most.
	MaxDeferred int
	// Keep is what a Store that is a [Keeper] is told of what waits, while the Engine runs. Default KeepLate.
	Keep KeepMode

	// Strict is for development and tests of a host: for an event that should not have been raised as it was, Handle returns an error that wraps
	// ErrMisuse and says what to do, after it has handled the event as ever. That is about addresses that are not prepared, stanzas without an ID
	// or with that of another one, events of sessions that were never opened, stanzas queued for one that does not hibernate, and a client's
	// acknowledgements that are never raised. [Engine.Misuses] counts them. It costs some microseconds and memory for each event; off, nothing.
	Strict bool
	// Logger gets one record a decision at level debug, and one an outcome: debug for success, info for errors, warn for a registration that
	// is disabled and a store that fails. Nil means none.
	Logger *slog.Logger
	// Observer is told everything. Nil means nobody. See Observers for several.
	Observer *Observer
}

// Validate reports everything that is wrong with c at once, or nil. New calls it.
func (c *Config) Validate() error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf("push: "+format, args...)) }
	if c.Host == "" {
		say("Config.Host is empty; give the server's domain, which publishes come from")
	} else if j, _ := prepared(c.Host); j != c.Host || bare(j) != j || strings.Contains(j, "@") {
		say("Config.Host %q is not a domain in prepared form", cut(c.Host, 100))
	}
	if c.Publisher == nil {
		say("Config.Publisher is nil; give something that sends IQ stanzas to push services")
	}
	for name, hook := range map[string]any{
		"Publisher": c.Publisher, "Store": c.Store, "Resumption": c.Resumption, "Unread": c.Unread, "Liveness": c.Liveness, "Veto": c.Veto,
		"Subscriptions": c.Subscriptions, "Contacts": c.Contacts, "Chats": c.Chats,
	} {
		if isNil(hook) {
			say("Config.%s holds a nil %T; leave the field nil if the host has not got that", name, hook)
		}
	}
	if r, ok := c.Publisher.(*Router); ok && r != nil {
		if r.Send == nil {
			say("Config.Publisher is a Router without Send; give the function that routes an IQ")
		}
		if r.Host == "" {
			say("Config.Publisher is a Router without Host; give the server's domain, as in Config.Host")
		} else if c.Host != "" && r.Host != c.Host {
			say("Config.Publisher is a Router of %q, but Config.Host is %q", cut(r.Host, 100), cut(c.Host, 100))
		}
		if r.Limit < 0 {
			say("Config.Publisher is a Router with a negative Limit, which lets nothing be sent; leave it 0 for the default")
		}
	}
	if int(c.Keep) >= len(keepModes) {
		say("Config.Keep is %d, which is no KeepMode", c.Keep)
	}
	for name, v := range map[string]int64{"HookTimeout": int64(c.HookTimeout), "StoreTimeout": int64(c.StoreTimeout), "MaxDeferred": int64(c.MaxDeferred)} {
		if v < 0 {
			say("Config.%s is negative, which means nothing; leave it 0 for the default", name)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	errs = append(errs, c.Policy.Validate())
	return errors.Join(errs...)
}

// isNil tells whether an interface holds nothing that can be called.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Pointer, reflect.Func:
		return r.IsNil()
	default:
		return false
	}
}

// ReplyError is an error reply of a push service (RFC 6120 §8.3).
type ReplyError struct {
	// Type is "cancel", "modify", "auth", "wait" or "continue"; Condition the defined condition, or XEP-0060's more special one where it is
	// known to the table of Reply.Classify, such as "payload-too-big".
	Type, Condition string
}

func (e *ReplyError) Error() string {
	if e == nil {
		return "push: a *ReplyError that is nil, which says that the push service accepted the publish"
	}
	return "push: the push service answered " + cut(e.Type, 20) + "/" + cut(e.Condition, 64)
}

// ReplyOf returns what the error of a Publisher means as a reply. A *ReplyError that is nil is a result.
func ReplyOf(err error) Reply {
	if err == nil {
		return Reply{}
	}
	var r *ReplyError
	if errors.As(err, &r) {
		if r == nil {
			return Reply{}
		}
		return Reply{Type: orText(r.Type, "cancel"), Condition: r.Condition}
	}
	var se stanza.Error
	if errors.As(err, &se) {
		return Reply{Type: orText(string(se.Type), "cancel"), Condition: string(se.Condition)}
	}
	return Reply{Missing: true}
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// UnsentError is what Close returns if notifications were left.
type UnsentError struct {
	// Unsent describes them, account by account.
	Unsent []Unsent
	// Undecided are events that were never decided, because the Store did not say what it has of their accounts, those of an account in their order. They can
	// be given to another Engine.
	Undecided []Event
}

// Unsent is a notification that was not sent before the Engine was closed.
type Unsent struct {
	Account string
	Drop
	// Asked: the push service was asked and has not answered, so it may have taken it.
	Asked bool
}

func (e *UnsentError) Error() string {
	if len(e.Undecided) > 0 {
		return fmt.Sprintf("push: closed with %d notifications unsent and %d events undecided", len(e.Unsent), len(e.Undecided))
	}
	return fmt.Sprintf("push: closed with %d notifications unsent", len(e.Unsent))
}

// Observers returns one Observer that tells all of them, in their order, those after one that panics too. Nil ones are left out. An Engine tells those that are quick
// before the others, and each in its own way; so what this returns is not to be changed.
func Observers(os ...*Observer) *Observer {
	all := &Observer{}
	for _, o := range os {
		if o == nil {
			continue
		}
		all = &Observer{
			Started:  both3(all.Started, o.Started),
			Read:     both3(all.Read, o.Read),
			Decided:  both5(all.Decided, o.Decided),
			Affected: both3(all.Affected, o.Affected),
			Sent:     both2(all.Sent, o.Sent),
			Stored:   both5(all.Stored, o.Stored),
			Replied:  both5(all.Replied, o.Replied),
			parts:    append(all.parts, o.each()...),
		}
	}
	return all
}

// each returns what an Observer was made of.
func (o *Observer) each() []*Observer {
	if o.parts != nil {
		return o.parts
	}
	return []*Observer{o}
}

// split returns an Observer as those that are quick and those that are not.
func (o *Observer) split() (quick, slow Observer) {
	var qs, ss []*Observer
	for _, p := range o.each() {
		if p.Quick {
			qs = append(qs, p)
		} else {
			ss = append(ss, p)
		}
	}
	return *together(qs), *together(ss)
}

// together is Observers, but that of one is that one.
func together(os []*Observer) *Observer {
	if len(os) == 1 {
		return os[0]
	}
	return Observers(os...)
}

func both2[A, B any](f, g func(A, B)) func(A, B) {
	if f == nil || g == nil {
		return either(f, g, f == nil)
	}
	return func(a A, b B) { defer g(a, b); f(a, b) }
}

func both3[A, B, C any](f, g func(A, B, C)) func(A, B, C) {
	if f == nil || g == nil {
		return either(f, g, f == nil)
	}
	return func(a A, b B, c C) { defer g(a, b, c); f(a, b, c) }
}

func both5[A, B, C, D, E any](f, g func(A, B, C, D, E)) func(A, B, C, D, E) {
	if f == nil || g == nil {
		return either(f, g, f == nil)
	}
	return func(a A, b B, c C, d D, e E) { defer g(a, b, c, d, e); f(a, b, c, d, e) }
}

func either[T any](f, g T, second bool) T {
	if second {
		return g
	}
	return f
}
