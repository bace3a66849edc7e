package partition

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

// What a node has notified of by itself notifies nobody again when the log hears of it.
func TestAlone(t *testing.T) {
	const juliet = "juliet@example.com"
	k := push.Key{Service: "push.example.net", Node: "n1"}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := New(nil, nil)
	var out Out
	note := Alone{AccountRemoved: push.AccountRemoved{Account: juliet}, Told: []Told{{k, []string{"m1"}}}}
	m := &Batch{Origin: Origin{"a", 1}, Number: 1, Events: []push.Event{
		push.PushEnable{Session: push.SessionID{Account: juliet}, Key: k}, note,
		push.ArchiveAdded{Account: juliet, Stanza: push.Stanza{ID: "m1", To: juliet}},
		push.ArchiveAdded{Account: juliet, Stanza: push.Stanza{ID: "m2", To: juliet}},
	}}
	b, err := m.AppendBinary(nil)
	require.NoError(t, err)
	m, err = ReadBatch(b)
	require.NoError(t, err)
	require.Equal(t, note, m.Events[1])
	s.Batch(1, now, m, &out)
	require.Len(t, out.Decided, 3)
	require.Len(t, out.Decided[1].Decision.Verdicts, 1)
	assert.Equal(t, push.ReasonSeen, out.Decided[1].Decision.Verdicts[0].Reason)
	assert.True(t, out.Decided[2].Decision.Verdicts[0].Notify)
}
