package push

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
)

// ErrMisuse is wrapped by the errors of an Engine with Config.Strict. The event was handled as ever, and the Decision is what it would be without Strict.
var ErrMisuse = errors.New("push: handled, but the host should not have raised it so")

// MisuseStatus counts one kind of what Config.Strict has found.
type MisuseStatus struct {
	// Kind is a short name, such as "jid" or "stanza-without-id".
	Kind  string
	Times uint64
	// Last is what was said the last time, with what to do.
	Last string
}

// Misuses returns what Config.Strict has found so far, in the order of the kinds' names. Without Strict it is nothing.
func (e *Engine) Misuses() []MisuseStatus {
	if e.strict == nil {
		return nil
	}
	e.strict.mu.Lock()
	defer e.strict.mu.Unlock()
	var list []MisuseStatus
	for _, m := range e.strict.found {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b MisuseStatus) int { return strings.Compare(a.Kind, b.Kind) })
	return list
}

// strict is what an Engine with Config.Strict knows of how its host uses it. It is for development, and bounded by maxStrict.
type strict struct {
	mu       sync.Mutex
	seed     maphash.Seed
	accounts map[string]*strictAccount
	found    map[string]*MisuseStatus
}

type strictAccount struct {
	sessions map[string]*strictSession
	bodies   map[string]uint64 // by the stanza's ID: a hash of its text
}

// strictSession is what a session was told to be.
type strictSession struct {
	hibernated bool
	// owed: stanzas were raised that the client had not acknowledged. resumed: it went on after that, so it has acknowledged them, or got them again.
	owed, resumed bool
}

// room forgets the sessions if there are too many, of which nothing more is said then.
func (a *strictAccount) room() {
	if len(a.sessions) >= maxStrictSessions {
		clear(a.sessions)
	}
}

const (
	maxStrict         = 10_000 // accounts
	maxStrictSessions = 1024   // sessions of one
	maxStrictBodies   = 1024   // stanzas of one
)

func newStrict() *strict {
	return &strict{seed: maphash.MakeSeed(), accounts: make(map[string]*strictAccount), found: make(map[string]*MisuseStatus)}
}

// strictly is HandleTo with Config.Strict.
func (e *Engine) strictly(ctx context.Context, ev Event, d *Decision) error {
	if d == nil {
		d = new(Decision)
	}
	if err := e.handle(ctx, ev, d); err != nil {
		return err
	}
	s := e.strict
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for kind, text := range s.judge(ev, d) {
		m := s.found[kind]
		if m == nil {
			m = &MisuseStatus{Kind: kind}
			s.found[kind] = m
		}
		m.Times, m.Last = m.Times+1, text
		errs = append(errs, fmt.Errorf("%w: %s: %s", ErrMisuse, ev.Name(), text))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// judge returns what is wrong with an event that was handled, by kind, and takes note of it.
func (s *strict) judge(ev Event, d *Decision) map[string]string {
	wrong := make(map[string]string)
	say := func(kind, format string, args ...any) {
		if wrong[kind] == "" {
			wrong[kind] = fmt.Sprintf(format, args...)
		}
	}
	jid := func(what, j string) {
		if p, _ := prepared(j); p != j {
			say("jid", "%s %q is not in prepared form; give jid.JID.String of mellium.im/xmpp, so that one address is always spelled the same", what, cut(j, 100))
		}
	}
	of := ev.Subject()
	if jid("its account", of.Account); bare(of.Account) != of.Account {
		say("jid", "its account %q has a resource; give the bare JID", cut(of.Account, 100))
	}
	a := s.accounts[of.Account]
	if a == nil {
		if len(s.accounts) >= maxStrict {
			clear(s.accounts)
		}
		a = &strictAccount{sessions: make(map[string]*strictSession), bodies: make(map[string]uint64)}
		s.accounts[of.Account] = a
	}
	var stanzas []Stanza
	x := a.sessions[of.ID]
	switch ev := ev.(type) {
	case SessionOpen:
		full := ev.JID
		if jid("its JID", full); full != "" && (bare(full) != of.Account || bare(full) == full) {
			say("jid", "its JID %q is not a full JID of account %q", cut(full, 100), cut(of.Account, 100))
		}
		if x != nil {
			say("session", "session %q is open already; give each connection an ID of its own that is never used again, and raise SessionClose at its end", cut(of.ID, 64))
		}
		a.room()
		a.sessions[of.ID] = &strictSession{}
	case SessionRestored:
		jid("its JID", ev.JID)
		a.room()
		a.sessions[of.ID] = &strictSession{hibernated: ev.Hibernated}
	case SessionClose:
		if x != nil && x.resumed {
			say("acknowledged", "session %q had stanzas that its client had not acknowledged, went on, and Acknowledged was never raised for it; raise it when the client acknowledges them (XEP-0198 <a/>), or what waits for them is sent all the same", cut(of.ID, 64))
		}
		delete(a.sessions, of.ID)
	case AckDelayed:
		stanzas = ev.Stanzas
	case HibernationStart:
		stanzas = ev.Stanzas
		if x != nil && x.hibernated {
			say("hibernation", "session %q hibernates already; raise HibernationStart once for each lost connection, and StanzaQueued for what comes later", cut(of.ID, 64))
		}
	case StanzaQueued:
		stanzas = []Stanza{ev.Stanza}
		if x != nil && !x.hibernated {
			say("hibernation", "session %q does not hibernate; raise HibernationStart when the connection is lost, and StanzaQueued after that", cut(of.ID, 64))
		}
	case ArchiveAdded:
		stanzas = []Stanza{ev.Stanza}
	case Offline:
		stanzas = []Stanza{ev.Stanza}
	case Groupchat:
		stanzas = []Stanza{ev.Stanza}
	case Displayed:
		jid("its chat", ev.Chat)
	case PushEnable:
		jid("its service", ev.Service)
	case AccountRemoved:
		delete(s.accounts, of.Account)
	default:
	}
	if _, over := ev.(SessionClose); d.Reason == ReasonUnknownSession && !over {
		say("session", "session %q is not open; raise SessionOpen when a resource is bound, before anything else of it, SessionRestored for one that is older than this process, and nothing after SessionClose", cut(of.ID, 64))
	}
	if d.Reason == ReasonTooManySessions {
		say("sessions", "the account has more than %d sessions, and one that has no registration counts as over now; raise SessionClose at the end of each, for those that are replaced or not resumed too", maxSessions)
	}
	if x != nil {
		switch ev.(type) {
		case HibernationStart:
			x.hibernated = true
		case HibernationEnd:
			x.hibernated, x.resumed = false, x.owed
		case Acknowledged:
			x.owed, x.resumed = false, false
		default:
		}
		x.owed = x.owed || len(stanzas) > 0 // the archive's and the like are of no session
	}
	for i := range stanzas {
		st := &stanzas[i]
		jid("a stanza's from", st.From)
		jid("a stanza's to", st.To)
		if st.ID == "" {
			say("stanza-without-id", "a stanza has no ID; give it the archive's stanza-id, or one of your own that stays with it, or it may notify a device twice and cannot be acknowledged")
			continue
		}
		if st.Body == "" {
			continue
		}
		if len(a.bodies) >= maxStrictBodies {
			clear(a.bodies)
		}
		sum := maphash.String(s.seed, st.Body)
		if old, known := a.bodies[st.ID]; known && old != sum {
			say("stanza-id", "the ID %q was that of a stanza with another text; an ID is a stanza's own, or the second one notifies nobody", cut(st.ID, 64))
		}
		a.bodies[st.ID] = sum
	}
	return wrong
}
