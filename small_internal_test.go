package push

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A Decision that is used again keeps nothing of the event before.
func TestDecisionLetsGo(t *testing.T) {
	d := Decision{Verdicts: []Verdict{{Detail: "x"}}, ids: []string{"m1"}}
	verdicts, ids := d.Verdicts, d.ids
	d.reset("juliet@example.com")
	assert.Empty(t, d.Verdicts)
	assert.Zero(t, verdicts[0])
	assert.Zero(t, ids[0])
}

// How many publishes the host may be asked about at a time: as many as the service takes, and one if that does not answer.
func TestServiceRoom(t *testing.T) {
	now := time.Unix(1000, 0)
	s := NewService(&Policy{ServiceInFlight: 3, BreakAfter: 1})
	assert.Equal(t, 3, s.room())
	s.Admit(now)
	s.Done(now, false)
	assert.True(t, s.Broken())
	assert.Equal(t, 1, s.room())
}

// A fingerprint is never what a slot without one has.
func TestFingerprintIsOne(t *testing.T) {
	for _, hash := range []uint64{0, 1, 1 << 32, 1<<33 - 1, 1 << 33, 1<<64 - 1} {
		assert.GreaterOrEqual(t, fingerprint(hash), firstFingerprint, "%x", hash)
	}
}

// Without a minimum interval the next publish waits for nothing, not even if the clock is set back.
func TestNoInterval(t *testing.T) {
	p := pacer{waiting: []part{{}}}
	p.begin(time.Unix(1000, 0), (&Policy{MinInterval: -1}).resolve())
	assert.Zero(t, p.spaced)
}
