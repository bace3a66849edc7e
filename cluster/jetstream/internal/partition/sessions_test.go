package partition

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

// TestSessionsThatNeverEnd has a node whose host never raises SessionClose: what the partition and the node keep of its sessions is bounded.
func TestSessionsThatNeverEnd(t *testing.T) {
	const juliet, most = "juliet@example.com", 128
	s, l := New(nil, nil), NewLocal()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out Out
	for i := range 2 * most {
		id := push.SessionID{Account: juliet, ID: fmt.Sprint("s", i)}
		evs := []push.Event{push.SessionOpen{Session: id, JID: fmt.Sprint(juliet, "/", i)}}
		if i%2 == 0 {
			evs = append(evs, push.PushEnable{Session: id, Key: push.Key{Service: "push.example.net", Node: "n1"}})
		}
		for _, ev := range evs {
			l.Events(ev, true)
		}
		s.Batch(uint64(i+1), now, &Batch{Origin: Origin{"a", 1}, Number: uint64(i + 1), Events: evs}, &out)
	}
	a := s.account(juliet, false)
	require.NotNil(t, a)
	assert.Len(t, a.Status(now).Sessions, most)
	assert.Len(t, a.homes, most)
	assert.NotNil(t, a.home(fmt.Sprint("s", 2*most-2)), "it is bound")
	assert.Equal(t, most, l.Sessions())
	assert.Len(t, l.Of(juliet), most)
}
