package push_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// A device with Push 2.0 that was rung is told of the end of the call by one of its matches, though none is about such stanzas.
func TestCallEndHasAMatch(t *testing.T) {
	rs := registered(Push2Node + "phone")
	rs[0].Wishes = &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("c"), Matches: []wishes.Match{{Profile: wishes.MatchImportant}}}}
	a := NewAccount(juliet, nil, rs)
	var d Decision
	call := Stanza{ID: "c1", Kind: KindMessage, Class: ClassUrgent, Content: ContentCall, From: "romeo@example.net/x", To: juliet, Details: &Details{Call: &Call{ID: "c"}}}
	end := call
	end.ID, end.Class, end.Content, end.Details = "c2", ClassPlain, ContentCallEnd, &Details{Call: &Call{ID: "c", Action: CallRetract}}
	a.Handle(ArchiveAdded{juliet, call}, Facts{Now: newYear}, &d)
	require.True(t, d.Notifies())
	require.Len(t, a.Due(newYear, nil, &d.Effects), 1)
	_, ok := a.Begin(rs[0].Key, newYear, &d.Effects)
	require.True(t, ok)
	a.Handle(ArchiveAdded{juliet, end}, Facts{Now: newYear}, &d)
	require.Equal(t, ReasonCallEnded, d.Verdicts[0].Reason)
	assert.Equal(t, 1, d.Verdicts[0].Match)
}
