package push_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// again decides each event of a scenario twice more, from a snapshot: with the answers that the Decision says the host gave, as a replay does, and with all
// that the host knows or said before, which must be as good as what it was asked for.
func (s *story) again(a *simAccount, ev Event, f Facts) func(*Decision) {
	if !a.Loaded() {
		return func(*Decision) {}
	}
	data, err := a.MarshalBinary()
	require.NoError(s.t, err)
	rs := a.Registrations()
	decide := func(f Facts, what string, want *Decision) {
		b, err := RestoreAccount(a.name, &s.policy, data)
		require.NoError(s.t, err)
		var e Effects
		b.Load(rs, s.sim.now, &e)
		require.Empty(s.t, e)
		var got Decision
		b.Handle(ev, f, &got)
		require.Equal(s.t, want.Reason, got.Reason, what)
		require.Equal(s.t, fmt.Sprintf("%+v", want.Verdicts), fmt.Sprintf("%+v", got.Verdicts), what)
		require.Equal(s.t, fmt.Sprintf("%+v", want.Drops), fmt.Sprintf("%+v", got.Drops), what)
	}
	return func(d *Decision) {
		stanzas := stanzasOf(ev)
		places := map[int]bool{}
		for _, c := range d.Answers.Chats {
			require.NotEmpty(s.t, c.Chat)
			require.False(s.t, places[c.Stanza], "two answers about one stanza")
			places[c.Stanza] = true
		}
		decide(Facts{
			Now: f.Now, Number: f.Number, Elsewhere: d.Answers.Elsewhere, Chats: d.Answers.Chats,
			Veto: func(r *Registration, st Stanza) string {
				for _, v := range d.Answers.Vetoes {
					if v.Key == r.Key && (len(stanzas) == 0 || stanzas[v.Stanza].ID == st.ID) {
						return v.Text
					}
				}
				return ""
			},
		}, "decided again with the answers of the Decision", d)
		f.Chats = nil
		for _, chat := range slices.Sorted(maps.Keys(s.chats)) {
			c, ok := s.told[chat]
			if !ok {
				c = s.chats[chat]
			}
			f.Chats = append(f.Chats, c)
		}
		decide(f, "decided again with all that the host knows", d)
	}
}

func stanzasOf(ev Event) []Stanza {
	switch e := ev.(type) {
	case AckDelayed:
		return e.Stanzas
	case HibernationStart:
		return e.Stanzas
	case StanzaQueued:
		return []Stanza{e.Stanza}
	case ArchiveAdded:
		return []Stanza{e.Stanza}
	case Offline:
		return []Stanza{e.Stanza}
	case Groupchat:
		return []Stanza{e.Stanza}
	}
	return nil
}
