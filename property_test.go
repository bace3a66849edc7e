package push_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	. "github.com/xmpp-push/push"
)

// step is one thing that happens in a random story. What its numbers mean depends on what it is.
type step struct {
	what                  string
	wait                  time.Duration // before it
	account, session, key int
	stanzas               []int
}

var whats = []string{
	"open", "close", "enable", "enable", "disable", "ack-delayed", "ack-delayed", "hibernate", "hibernate", "queued", "queued", "queued", "queued",
	"resume", "resume", "acknowledged", "acknowledged", "acknowledged", "restored", "archived", "archived", "archived", "offline", "offline", "offline", "groupchat", "ping", "revoked", "removed",
	"flush", "prune", "snapshot", "snapshot", "displayed", "displayed", "displayed", "own", "retracted", "active", "presence", "changed",
}

var steps = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
	return step{
		what: rapid.SampledFrom(whats).Draw(t, "what"),
		wait: rapid.SampledFrom([]time.Duration{
			0, 0, 0, 300 * time.Millisecond, time.Second, 3 * time.Second, 20 * time.Second, 2 * time.Minute, 11 * time.Minute, 5 * time.Hour, 80 * time.Hour,
		}).Draw(t, "wait"),
		account: rapid.IntRange(0, 1).Draw(t, "account"),
		session: rapid.IntRange(0, 2).Draw(t, "session"),
		key:     rapid.IntRange(0, 2).Draw(t, "key"),
		stanzas: rapid.SliceOfN(rapid.IntRange(0, 11), 1, 4).Draw(t, "stanzas"),
	}
}), 20, 200)

// ending is how a publish ends, and after how long.
type ending struct {
	reply Reply
	after time.Duration
}

var endings = rapid.SliceOfN(rapid.SampledFrom([]ending{
	{}, {}, {}, {after: 300 * time.Millisecond}, {after: 5 * time.Second},
	{Reply{Missing: true}, 30 * time.Second},
	{Reply{Missing: true}, 0},
	{Reply{Type: "wait", Condition: "resource-constraint"}, time.Second},
	{Reply{Type: "cancel", Condition: "remote-server-timeout"}, time.Second},
	{Reply{Type: "cancel", Condition: "gone"}, 0},
	{Reply{Type: "auth", Condition: "forbidden"}, 0},
	{Reply{Type: "modify", Condition: "bad-request"}, 2 * time.Second},
	{Reply{Type: "modify", Condition: "payload-too-big"}, time.Second},
	{Reply{Vetoed: "not now"}, 0},
}), 1, 12)

var policies = rapid.SampledFrom([]Policy{
	{},
	{MinInterval: 30 * time.Second, IncludeBody: true},
	{Remember: 4, MaxRegistrations: 2, Delay: -1},
	{ServiceInFlight: 1, BreakAfter: 2, Expire: 40 * time.Second, ExpireUrgent: 10 * time.Second},
	{WakeBefore: time.Hour, MaxResume: 6 * time.Hour, RememberFor: time.Minute},
	{MaxResume: -1, RetryDisabled: time.Hour, SkipPlain: true},
	{TellRead: true, Grace: 30 * time.Second, DelayImportant: true},
})

var services = []string{"push.example.net", "push.example.org"}

// tell lets the steps happen, and checks what comes of it against the book. It returns a transcript. With snapshots an account goes on as one that was
// restored from a snapshot of it, where the story says so.
func tell(t require.TestingT, policy Policy, steps []step, endings []ending, snapshots bool) string {
	policy.Causes = 1 << 20 // so that publishes name all their events
	s := newSim(&policy, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	b := newBook(t, s, policy)
	s.answer = func(*Notification) (Reply, time.Duration) {
		if len(endings) == 0 {
			return Reply{}, 0
		}
		e := endings[b.publishes%len(endings)]
		return e.reply, e.after
	}
	s.facts = func(f *Facts) {
		f.Veto = func(r *Registration, st Stanza) string {
			if st.ID == "m11" && r.Node == "n1" {
				return "not that one"
			}
			return ""
		}
	}
	names := map[string]int{} // of sessions, which are never used again
	for i, st := range steps {
		s.advance(s.now.Add(st.wait))
		account := []string{"juliet@example.com", "romeo@example.com"}[st.account]
		slot := fmt.Sprint(account, st.session)
		if st.what == "open" {
			names[slot] = i
		}
		session := SessionID{Account: account, ID: fmt.Sprint("s", names[slot])}
		k := Key{Service: services[st.key%2], Node: fmt.Sprint("n", st.key)}
		var sts []Stanza
		for _, n := range st.stanzas {
			sts = append(sts, Stanza{ID: fmt.Sprint("m", n), From: "nurse@example.com/x", To: account, MessageID: fmt.Sprint("m", n), Class: Class(n % 3), Held: n == 10})
			if n == 0 {
				sts[len(sts)-1].ID = ""
			}
		}
		switch st.what {
		case "open":
			s.event(SessionOpen{Session: session, Client: fmt.Sprint("c", st.session)})
		case "close":
			s.event(SessionClose{session})
		case "enable":
			s.event(PushEnable{Session: session, Key: k})
		case "disable":
			if st.stanzas[0]%4 == 0 {
				k.Node = ""
			}
			s.event(PushDisable{session, k})
		case "ack-delayed":
			s.event(AckDelayed{session, sts})
		case "acknowledged":
			ids := make([]string, len(sts))
			for i, st := range sts {
				ids[i] = st.ID
			}
			s.event(Acknowledged{session, ids})
		case "restored":
			names[slot] = i
			session.ID = fmt.Sprint("s", i)
			s.event(SessionRestored{
				Session: session, Client: fmt.Sprint("c", st.session), Bound: k, IsBound: st.stanzas[0]%2 == 0, Superseded: st.stanzas[0]%5 == 0,
				Hibernated: st.stanzas[0]%3 == 0, Extended: st.stanzas[0]%4 != 0,
			})
		case "hibernate":
			s.event(HibernationStart{session, sts[1:]})
		case "queued":
			s.event(StanzaQueued{session, sts[0]})
		case "resume":
			s.event(HibernationEnd{session})
		case "displayed":
			up := sts[0].ID
			if st.key == 2 {
				up = ""
			}
			s.event(Displayed{account, "nurse@example.com", up, session.ID})
		case "own":
			s.event(ArchiveAdded{account, Stanza{ID: fmt.Sprint("m", 3*i+30), From: account, To: "nurse@example.com", Content: ContentText, Class: ClassImportant}})
		case "retracted":
			s.event(ArchiveAdded{account, Stanza{
				ID: fmt.Sprint("m", 3*i+30), From: "nurse@example.com/x", To: account, Content: ContentRetraction, Details: &Details{Target: sts[0].MessageID},
			}})
		case "active":
			s.event(SessionActive{session})
		case "presence":
			s.event(SessionPresence{session, st.key == 0})
		case "changed":
			s.event(ChatChanged{Account: account})
		case "archived":
			s.event(ArchiveAdded{account, sts[0]})
		case "offline":
			s.event(Offline{account, sts[0]})
		case "groupchat":
			s.event(Groupchat{account, sts[0]})
		case "ping":
			s.event(Ping{account, []Key{k}[:st.stanzas[0]%2]})
		case "revoked":
			s.event(AffiliationNone{account, k})
		case "removed":
			s.event(AccountRemoved{account})
		case "flush":
			s.account(account).Flush(s.now)
		case "prune":
			b.prune(s.account(account))
		case "snapshot":
			if a := s.account(account); snapshots {
				s.restart(t, a)
			}
		}
		b.bounds()
	}
	// In the end every push service answers well, and enough time passes.
	endings = nil
	s.advance(s.now.Add(200 * time.Hour))
	for _, r := range b.all {
		b.settled(r)
	}
	return b.transcript.String()
}

// book is kept beside the library, from what it says alone, to find out what it forgets.
type book struct {
	t          require.TestingT
	s          *sim
	policy     Policy
	now        map[string]*pages // by account and key, those that exist
	all        []*pages
	of         map[*flight]*pages
	dying      *pages          // whose last flight was not accepted, which is to be reported
	flying     map[string]bool // by account and key: also those of registrations that went
	left       map[string]time.Time
	superseded map[string]bool // sessions that were restored so
	publishes  int
	transcript strings.Builder
}

// pages are those of one registration, from its enabling to its removal.
type pages struct {
	name     string
	disabled bool
	gone     bool // while a publish was in flight
	// Each stanza that is notified is counted once when it is decided, and once when its fate is known.
	decided, accepted, dropped int
	messages                   int // decided, of those that count as unread at most
	events                     map[uint64]*entry
	// marks are the stanzas that must not notify again, in the order in which they were decided. One that may again has no ID any more.
	marks []mark
}

// entry is what one event notified the registration of.
type entry struct {
	class Class
	count int
	at    time.Time
	done  bool // accepted, or dropped
	vague bool // a part of it was dropped, perhaps of its class
}

type mark struct {
	id    string
	class Class
	event uint64
	at    time.Time
}

func newBook(t require.TestingT, s *sim, policy Policy) *book {
	b := &book{t: t, s: s, policy: policy, now: map[string]*pages{}, of: map[*flight]*pages{}, flying: map[string]bool{}, left: map[string]time.Time{}, superseded: map[string]bool{}}
	b.policy.Remember = cmp.Or(policy.Remember, 1024)
	b.policy.RememberFor = cmp.Or(policy.RememberFor, 10*time.Minute)
	b.policy.Expire = cmp.Or(policy.Expire, 12*time.Hour)
	b.policy.ExpireUrgent = cmp.Or(policy.ExpireUrgent, time.Minute)
	b.policy.MaxResume = max(cmp.Or(policy.MaxResume, 72*time.Hour), 0)
	s.decided, s.effects, s.sent, s.replied = b.decided, b.effects, b.sent, b.replied
	return b
}

func (b *book) note(format string, args ...any) {
	fmt.Fprintf(&b.transcript, "%v ", b.s.now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
	fmt.Fprintf(&b.transcript, format+"\n", args...)
}

func id(account string, k Key) string { return account + " " + k.Service + " " + k.Node }

func (b *book) decided(a *simAccount, ev Event, d *Decision) {
	b.note("%d %s %v %v", b.s.number, ev.Name(), d.Reason, d.Verdicts)
	if e, ok := ev.(SessionRestored); ok && e.Superseded { // the host's word, whether or not there is a newer one
		b.superseded[e.Session.ID] = true
	}
	if e, ok := ev.(SessionClose); ok && d.Reason == ReasonNone {
		b.left[e.Session.Account] = b.s.now
	}
	for _, v := range d.Verdicts {
		r := b.now[id(a.name, v.Key)]
		require.NotNil(b.t, r, "verdict for a registration that does not exist: %v", v)
		require.Equal(b.t, v.Reason.Notifies(), v.Notify)
		if !v.Notify {
			require.Empty(b.t, v.Stanzas)
			continue
		}
		require.True(b.t, !r.disabled || b.policy.RetryDisabled > 0, "R12: %s is disabled", r.name)
		r.decided += v.Count
		if v.Class >= ClassImportant {
			r.messages += v.Count
		}
		r.events[b.s.number] = &entry{class: v.Class, count: v.Count, at: b.s.now}
		for _, st := range v.Stanzas {
			for _, m := range r.marks[max(0, len(r.marks)-b.policy.Remember):] {
				require.NotEqual(b.t, st, m.id, "R11: %s was notified of %s by event %d", r.name, st, m.event)
			}
			r.marks = append(r.marks, mark{st, classOf(st), b.s.number, b.s.now})
		}
	}
}

// classOf is the class of a stanza of a story.
func classOf(id string) Class {
	n, _ := strconv.Atoi(strings.TrimPrefix(id, "m"))
	return Class(n % 3)
}

// old tells whether what was decided then may be too old by now.
func (b *book) old(c Class, at time.Time) bool {
	if c == ClassUrgent {
		return b.s.now.Sub(at) >= b.policy.ExpireUrgent
	}
	return b.s.now.Sub(at) >= b.policy.Expire
}

// forgotten are the reasons why something is dropped, after most of which its stanzas may notify again: they were never sent.
var forgotten = []Reason{
	ReasonTooOld, ReasonResumed, ReasonNewerSession, ReasonAcknowledged, ReasonDisabled, ReasonDisabledByUser, ReasonRevoked, ReasonAccount, ReasonLimit, ReasonRejected, ReasonVeto,
	ReasonRead, ReasonRetracted,
}

func (b *book) effects(a *simAccount, e *Effects) {
	for _, d := range e.Drops {
		b.note("drop %+v", d)
		r := b.now[id(a.name, d.Key)]
		if b.dying != nil {
			r, b.dying = b.dying, nil
			require.Equal(b.t, id(a.name, d.Key), r.name)
			defer b.settled(r)
		}
		require.NotNil(b.t, r, "drop of a registration that does not exist: %v", d)
		require.Contains(b.t, forgotten, d.Reason)
		r.dropped += d.Count
		for _, n := range d.Events {
			en := r.events[n]
			require.NotNil(b.t, en, "dropped what was not decided: %v", d)
			require.False(b.t, en.done, "dropped what was done with: %v", d)
			en.done = true
			switch d.Reason {
			case ReasonRejected, ReasonVeto, ReasonAcknowledged, ReasonRead, ReasonRetracted:
				continue
			}
			for i := range r.marks {
				if r.marks[i].event == n {
					r.marks[i].id = ""
				}
			}
		}
		if d.Reason == ReasonAcknowledged || d.Reason == ReasonRead || d.Reason == ReasonRetracted { // of events that go on being named, too
			for _, en := range r.events {
				en.vague = true
			}
		}
		if d.Reason == ReasonTooOld { // of an event that goes on being named, too
			for i, m := range r.marks {
				if m.id != "" && m.class <= d.Class && b.old(m.class, m.at) {
					r.marks[i].id = ""
				}
			}
		}
	}
	require.Nil(b.t, b.dying, "what was not accepted is lost")
	for _, c := range e.Changes {
		b.note("change %+v", c)
		name := id(a.name, c.Key)
		r := b.now[name]
		if c.Kind == ChangeUnbound && c.Reason == ReasonRemoved {
			require.Nil(b.t, r, "%s is there", name)
			continue
		}
		switch c.Kind {
		case ChangeAdded:
			require.Nil(b.t, r, "%s added twice", name)
			r = &pages{name: name, events: map[uint64]*entry{}}
			b.now[name] = r
			b.all = append(b.all, r)
			continue
		case ChangeRemoved:
			require.NotNil(b.t, r, "%s removed twice", name)
			delete(b.now, name)
			for _, p := range b.of {
				r.gone = r.gone || p == r // its reply will say what becomes of what is in flight
			}
			if !r.gone {
				b.settled(r)
			}
			continue
		}
		require.NotNil(b.t, r, "change of a registration that does not exist: %v", c)
		r.disabled = c.Kind == ChangeDisabled || r.disabled && c.Kind != ChangeEnabled
	}
	for _, ad := range e.Advice {
		b.note("advice %+v", ad)
	}
	var names []string
	for _, reg := range a.Registrations() {
		r := b.now[id(a.name, reg.Key)]
		require.NotNil(b.t, r, "%v came without a change", reg.Key)
		require.Equal(b.t, r.disabled, !reg.Health.Disabled.IsZero(), "disabled without a change: %s", r.name)
		names = append(names, r.name)
	}
	for name := range b.now {
		if strings.HasPrefix(name, a.name+" ") {
			require.Contains(b.t, names, name, "removed without a change")
		}
	}
}

func (b *book) sent(f *flight) {
	n := &f.n
	b.note("publish %+v", *n)
	b.publishes++
	r := b.now[id(n.Account, n.Key)]
	require.NotNil(b.t, r, "R12: published to a registration that does not exist")
	require.True(b.t, !r.disabled || b.policy.RetryDisabled > 0, "R12: published to a disabled registration")
	require.NotContains(b.t, b.flying, r.name, "two publishes in flight")
	b.flying[r.name] = true
	b.of[f] = r
	var least, most Class
	count := 0
	for _, e := range n.Events {
		en := r.events[e]
		require.NotNil(b.t, en, "published what was not decided")
		require.False(b.t, en.done, "R11: event %d published again to %s", e, r.name)
		if !b.old(en.class, en.at) && !en.vague {
			least = max(least, en.class)
		}
		most = max(most, en.class)
		count += en.count
	}
	require.GreaterOrEqual(b.t, n.Class, least, "the class is too low")
	require.LessOrEqual(b.t, n.Class, most, "the class is too high")
	require.LessOrEqual(b.t, n.Count, count)
	require.True(b.t, slices.IsSorted(n.Events))
	require.GreaterOrEqual(b.t, n.Unread, 0)
}

func (b *book) replied(f *flight, res Result) {
	b.note("reply %+v %+v", f.reply, res)
	r := b.of[f]
	delete(b.of, f)
	delete(b.flying, id(f.a.name, f.k))
	if r.gone && res.Outcome != OutcomeAccepted {
		b.dying = r
	}
	if res.Outcome != OutcomeAccepted {
		return
	}
	if r.gone {
		defer b.settled(r)
	}
	r.accepted += f.n.Count
	for _, e := range f.n.Events {
		r.events[e].done = true
	}
}

// settled checks that the fate of everything that was decided is known.
func (b *book) settled(r *pages) {
	require.Equal(b.t, r.decided, r.accepted+r.dropped, "lost or doubled for %s: %d accepted, %d dropped", r.name, r.accepted, r.dropped)
	for n, en := range r.events {
		require.True(b.t, en.done, "event %d is lost for %s", n, r.name)
	}
}

// prune lets an account forget, and forgets the whole account if it says that it is idle, as an Engine does.
func (b *book) prune(a *simAccount) {
	idle := a.Prune(b.s.now)
	b.note("prune %s %v", a.name, idle)
	age := b.policy.RememberFor
	if left := b.left[a.name]; len(a.Status(b.s.now).Sessions) > 0 || !left.IsZero() && b.s.now.Sub(left) < b.policy.RememberFor {
		age += b.policy.MaxResume
	}
	for name, r := range b.now {
		if !strings.HasPrefix(name, a.name+" ") {
			continue
		}
		for i, m := range r.marks {
			switch {
			case m.id == "":
			case b.s.now.Sub(m.at) >= age:
				r.marks[i].id = ""
			case idle && i >= len(r.marks)-b.policy.Remember:
				require.Fail(b.t, "an idle account would lose a mark", "%s of %s", m.id, name)
			}
		}
	}
	if idle {
		a.Account = NewAccount(a.name, b.s.policy, a.Registrations())
	}
}

// bounds checks that what is kept is bounded, and who has which registration.
func (b *book) bounds() {
	for _, a := range b.s.accounts {
		size := a.Sizes()
		require.LessOrEqual(b.t, size.Marks, b.policy.Remember)
		require.LessOrEqual(b.t, size.Memory, 2*b.policy.Remember+32)
		require.LessOrEqual(b.t, size.Hashes, 2*b.policy.Remember)
		st := a.Status(b.s.now)
		require.LessOrEqual(b.t, size.Parts, 1+len(st.Sessions))
		has := map[Key]string{}
		for _, s := range st.Sessions {
			if s.IsBound {
				require.Empty(b.t, has[s.Bound], "R1: two sessions have %v", s.Bound)
				has[s.Bound] = s.ID
				require.False(b.t, s.Superseded)
			}
		}
		for _, s := range st.Sessions {
			if s.Superseded && !s.Hibernated && !b.superseded[s.ID] {
				require.NotEmpty(b.t, has[s.Bound], "R1: nobody has %v, though %s is connected", s.Bound, s.ID)
			}
		}
		for _, r := range st.Registrations {
			require.GreaterOrEqual(b.t, r.Unread, 0)
			require.LessOrEqual(b.t, r.Unread, b.now[id(a.name, r.Key)].messages, "unread")
		}
	}
}

// Whatever happens in whatever order: nobody is notified twice of one stanza (R11) or through a registration that is not enabled (R12), nothing
// is lost, one publish is in flight for each registration, what is kept is bounded, and the same input gives the same output.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, st, en := policies.Draw(t, "policy"), steps.Draw(t, "steps"), endings.Draw(t, "endings")
		first := tell(t, p, st, en, false)
		assert.Equal(t, first, tell(t, p, st, en, true), "a second run, with snapshots, gives something else")
	})
}
