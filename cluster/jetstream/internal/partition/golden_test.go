package partition

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

var golden = flag.Bool("golden", false, "write testdata of the present version anew, while it is unreleased")

// What a node of each version has written is read by this one: a rolling upgrade begins with it.
func TestOlderVersions(t *testing.T) {
	const juliet = "juliet@example.com"
	k := push.Key{Service: "push.example.net", Node: "n1"}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	id := push.SessionID{Account: juliet, ID: "s1"}
	at := func(name string) string { return filepath.Join("testdata", name) }
	if *golden {
		s := New(&push.Policy{}, nil)
		var out Out
		m := &Batch{Origin: Origin{"a", 1}, Number: 1, Events: []push.Event{
			push.SessionOpen{Session: id, JID: juliet + "/phone"}, push.PushEnable{Session: id, Key: k, Options: []push.Field{{Var: "secret", Values: []string{"s"}}}},
			push.HibernationStart{Session: id, Stanzas: []push.Stanza{{ID: "m1", Class: push.ClassImportant}}},
			push.PushEnable{Session: push.SessionID{Account: "romeo@example.com"}, Key: k},
		}}
		batch, err := m.AppendBinary(nil)
		require.NoError(t, err)
		s.Batch(1, now, m, &out)
		_, ok := s.Begin(Ref{juliet, k}, now, &out)
		require.True(t, ok)
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(at("batch-v1.bin"), batch, 0o644))
		require.NoError(t, os.WriteFile(at("records-v1.bin"), AppendRecords(nil, First, Origin{"a", 1}, []Record{
			Claim{}, Begin{When{1, now}, juliet, k}, End{When{1, now}, juliet, k, push.Reply{Type: "cancel", Condition: "gone"}}, Down{When{1, now}, Origin{"b", 2}, now}, Tick{When{1, now}}, Release{},
		}), 0o644))
		require.NoError(t, os.WriteFile(at("snapshot-v1.bin"), sealSnapshot(First, s.snapshot(), 1, 2), 0o644))
	}
	data, err := os.ReadFile(at("batch-v1.bin"))
	require.NoError(t, err)
	m, err := ReadBatch(data)
	require.NoError(t, err)
	require.Len(t, m.Events, 4)
	assert.Equal(t, push.SessionOpen{Session: id, JID: juliet + "/phone"}, m.Events[0])

	data, err = os.ReadFile(at("records-v1.bin"))
	require.NoError(t, err)
	o, rs, err := ReadRecords(data)
	require.NoError(t, err)
	assert.Equal(t, Origin{"a", 1}, o)
	require.Len(t, rs, 6)
	assert.Equal(t, End{When{1, now}, juliet, k, push.Reply{Type: "cancel", Condition: "gone"}}, rs[2])

	data, err = os.ReadFile(at("snapshot-v1.bin"))
	require.NoError(t, err)
	s := New(&push.Policy{}, nil)
	seq, own, err := s.restore(data)
	require.NoError(t, err)
	assert.EqualValues(t, 1, seq)
	assert.EqualValues(t, 2, own)
	assert.Equal(t, []string{juliet, "romeo@example.com"}, s.Registered())
	st := s.Inspect(juliet)
	require.Len(t, st.Sessions, 1)
	assert.True(t, st.Sessions[0].Hibernated)
	require.Len(t, st.Registrations, 1)
	assert.True(t, st.Registrations[0].InFlight)
	// Its publish was on the way: a new owner sends it again, and m1 notifies no more after that.
	var out Out
	s.Record(3, Origin{"b", 1}, Claim{}, &out)
	assert.Equal(t, 1, out.Resent)
	out = Out{}
	s.Batch(4, now.Add(time.Second), &Batch{Origin: Origin{"b", 1}, Number: 1, Events: []push.Event{
		push.StanzaQueued{Session: id, Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}},
	}}, &out)
	assert.Equal(t, []Ref{{juliet, k}}, s.Waiting())
	require.Len(t, out.Decided, 1)
	assert.Equal(t, push.ReasonSeen, out.Decided[0].Decision.Verdicts[0].Reason)
}
