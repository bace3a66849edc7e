package push_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// bindings is R1 and R14 told once more: which session of an account has which registration.
type bindings struct {
	sessions []*bindingSession
	clients  map[Key]string
	enabled  map[Key]int // when
	at       int
}

type bindingSession struct {
	id, client        string
	has, claim        Key // none: zero
	since             int
	hibernated, given bool // given: claim is set
}

func (m *bindings) session(id string) *bindingSession {
	for _, s := range m.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (m *bindings) holder(k Key) *bindingSession {
	for _, s := range m.sessions {
		if s.has == k {
			return s
		}
	}
	return nil
}

func (m *bindings) take(s *bindingSession, k Key) {
	had := s.has
	if o := m.holder(k); o != nil {
		o.has = Key{}
	}
	s.has, s.claim, s.given, s.since = k, k, true, m.at
	if had != k {
		m.heir(had)
	}
}

// heir gives a registration that nobody has any more back to who had it before and is connected.
func (m *bindings) heir(k Key) {
	if k == (Key{}) || m.holder(k) != nil {
		return
	}
	var heir *bindingSession
	for _, s := range m.sessions {
		if s.has == (Key{}) && s.given && s.claim == k && !s.hibernated && (heir == nil || s.since >= heir.since) {
			heir = s
		}
	}
	if heir != nil {
		heir.has = k
	}
}

// byClient is the registration that remembers a client, the one enabled last.
func (m *bindings) byClient(client string) (found Key) {
	for k, c := range m.clients {
		if c == client && client != "" && (found == Key{} || m.enabled[k] > m.enabled[found]) {
			found = k
		}
	}
	return found
}

func (m *bindings) handle(ev Event) {
	m.at++
	switch e := ev.(type) {
	case SessionOpen:
		s := m.session(e.Session.ID)
		if s == nil {
			s = &bindingSession{id: e.Session.ID}
			m.sessions = append(m.sessions, s)
		}
		s.client, s.since, s.hibernated = e.Client, m.at, false
		if k := m.byClient(e.Client); k != (Key{}) {
			m.take(s, k)
		}
	case SessionRestored:
		s := m.session(e.Session.ID)
		if s == nil {
			s = &bindingSession{id: e.Session.ID}
			m.sessions = append(m.sessions, s)
		}
		had := s.has
		*s = bindingSession{id: s.id, client: e.Client, hibernated: e.Hibernated}
		if !e.Hibernated && !e.Superseded { // the others are older
			s.since = m.at
		}
		k := m.byClient(e.Client)
		if e.Superseded {
			k = Key{}
		}
		if e.IsBound {
			k = e.Bound
			if _, ok := m.enabled[k]; !ok {
				k = Key{}
			}
		}
		holder := m.holder(k)
		switch {
		case k == Key{}:
		case e.Superseded, e.Hibernated && holder != nil && !holder.hibernated:
			s.claim, s.given = k, true
		default:
			m.take(s, k)
		}
		if had != s.has {
			m.heir(had)
		}
	case SessionClose:
		if i := slices.IndexFunc(m.sessions, func(s *bindingSession) bool { return s.id == e.Session.ID }); i >= 0 {
			had := m.sessions[i].has
			m.sessions = slices.Delete(m.sessions, i, i+1)
			m.heir(had)
		}
	case HibernationStart:
		if s := m.session(e.Session.ID); s != nil {
			s.hibernated = true
		}
	case HibernationEnd:
		if s := m.session(e.Session.ID); s != nil {
			s.hibernated = false
			if s.has == (Key{}) && s.given {
				m.take(s, s.claim)
			}
		}
	case PushEnable:
		m.enabled[e.Key] = m.at
		delete(m.clients, e.Key)
		if s := m.session(e.Session.ID); s != nil {
			m.clients[e.Key] = s.client
			m.take(s, e.Key)
		}
	case PushDisable:
		delete(m.enabled, e.Key)
		delete(m.clients, e.Key)
		for _, s := range m.sessions {
			if s.has == e.Key {
				s.has = Key{}
			}
			if s.claim == e.Key {
				s.claim, s.given = Key{}, false
			}
		}
	}
}

func (m *bindings) String() (text string) {
	for _, s := range m.sessions {
		text += fmt.Sprintf("%s has %v, claims %v, hibernated %v\n", s.id, s.has, s.claim, s.hibernated)
	}
	return text
}

func bindingsOf(a *Account, now time.Time) (text string) {
	for _, s := range a.Status(now).Sessions {
		has, claim := s.Bound, s.Bound
		if s.Superseded {
			has = Key{}
		}
		text += fmt.Sprintf("%s has %v, claims %v, hibernated %v\n", s.ID, has, claim, s.Hibernated)
	}
	return text
}

// Sessions have the registrations that the rules say, whatever happens to them, and however often several of one device come and go.
func TestBindings(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		a := NewAccount(juliet, nil, nil)
		m := &bindings{clients: map[Key]string{}, enabled: map[Key]int{}}
		now := newYear
		var d Decision
		var story string
		for range 60 {
			ev := bindingEvent(r)
			story += fmt.Sprintf("%s %+v\n", ev.Name(), ev)
			now = now.Add(time.Second)
			a.Handle(ev, Facts{Now: now}, &d)
			m.handle(ev)
			require.Equal(t, m.String(), bindingsOf(a, now), "seed %d:\n%s", seed, story)
		}
	}
}

func bindingEvent(r *rand.Rand) Event {
	s := SessionID{Account: juliet, ID: fmt.Sprint("s", r.IntN(4))}
	k := Key{Service: "push.example.net", Node: fmt.Sprint("n", r.IntN(2))}
	client := []string{"", "phone", "tablet"}[r.IntN(3)]
	switch r.IntN(12) {
	case 0, 1:
		return SessionOpen{Session: s, JID: juliet + "/" + s.ID, Client: client}
	case 2, 3:
		return SessionClose{s}
	case 4, 5, 6:
		return PushEnable{Session: s, Key: k}
	case 7:
		return PushDisable{s, k}
	case 8:
		return HibernationStart{Session: s}
	case 9:
		return HibernationEnd{s}
	default:
		return SessionRestored{
			Session: s, JID: juliet + "/" + s.ID, Client: client, IsBound: r.IntN(3) > 0, Bound: k, Hibernated: r.IntN(2) == 0, Superseded: r.IntN(4) == 0,
		}
	}
}

// An account whose registrations are read late binds the sessions that were restored and opened meanwhile as one that had them at once. (One that has ended
// by then leaves no trace: what it would have taken from an older one, that has.)
func TestBindingsReadLate(t *testing.T) {
	rs := registered("n0", "n1")
	rs[0].Client, rs[1].Client = "phone", "tablet"
	rs[1].Enabled = rs[0].Enabled.Add(time.Hour)
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 2))
		var evs []Event
		story := ""
		for i := range 5 {
			s := SessionID{Account: juliet, ID: fmt.Sprint("s", i)}
			client := []string{"", "phone", "tablet"}[r.IntN(3)]
			k := Key{Service: "push.example.net", Node: fmt.Sprint("n", r.IntN(3))} // n2 is gone
			if i < 3 {
				e := SessionRestored{Session: s, JID: juliet + "/" + s.ID, Client: client, IsBound: r.IntN(3) > 0, Bound: k, Hibernated: r.IntN(2) == 0, Superseded: r.IntN(4) == 0}
				evs = append(evs, e)
			} else {
				evs = append(evs, SessionOpen{Session: s, JID: juliet + "/" + s.ID, Client: client})
			}
		}
		early, late := NewAccount(juliet, nil, rs), OpenAccount(juliet, nil)
		var d Decision
		for _, ev := range evs {
			story += fmt.Sprintf("%s %+v\n", ev.Name(), ev)
			early.Handle(ev, Facts{Now: newYear}, &d)
			late.Handle(ev, Facts{Now: newYear}, &d)
		}
		late.Load(rs, newYear, &d.Effects)
		require.Equal(t, bindingsOf(early, newYear), bindingsOf(late, newYear), "seed %d:\n%s", seed, story)
	}
}
