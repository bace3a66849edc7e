package push

import (
	"math"
	"reflect"
	"slices"
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

// A map gives the room back that it had for four times as many, unless that is little.
func TestFitted(t *testing.T) {
	of := func(n int) map[int]bool {
		m := make(map[int]bool)
		for i := range n {
			m[i] = true
		}
		return m
	}
	for _, c := range []struct{ n, most, want int }{
		{16, 64, 16}, {17, 64, 64}, {16, 67, 16}, {4, 16, 4}, {3, 15, 15}, {5, 16, 16}, {0, 1000, 0}, {1000, 1000, 1000},
	} {
		m, most := of(c.n), c.most
		assert.Equal(t, of(c.n), fitted(m, &most))
		assert.Equal(t, c.want, most, "%d of %d", c.n, c.most)
	}
}

// What is below zero means "off" for some fields, and nothing for all others.
func TestPolicyBelowZero(t *testing.T) {
	off := []string{"Delay", "MinInterval", "MaxResume", "MaxRegistrations", "AskAgain"}
	for i := range reflect.TypeFor[Policy]().NumField() {
		var p Policy
		name, f := reflect.TypeFor[Policy]().Field(i).Name, reflect.ValueOf(&p).Elem().Field(i)
		if !f.CanInt() {
			continue
		}
		f.SetInt(-1)
		if slices.Contains(off, name) {
			assert.NoError(t, p.Validate(), name)
		} else {
			assert.ErrorContains(t, p.Validate(), "Policy."+name+" is negative", name)
		}
		assert.GreaterOrEqual(t, reflect.ValueOf(p.withDefaults()).FieldByName(name).Int(), int64(0), name)
		if f.Type() == reflect.TypeFor[time.Duration]() {
			f.SetInt(math.MaxInt64)
			assert.Equal(t, int64(forever), reflect.ValueOf(p.withDefaults()).FieldByName(name).Int(), name)
		}
	}
}

// Durations that contradict each other are said.
func TestPolicyContradicts(t *testing.T) {
	assert.NoError(t, Policy{RetryMin: time.Minute, RetryMax: time.Minute}.Validate())
	assert.EqualError(t, Policy{RetryMin: time.Minute, RetryMax: time.Second}.Validate(), "push: Policy.RetryMax (1s) is shorter than RetryMin (1m0s)")
	assert.NoError(t, Policy{WakeBefore: time.Minute, MaxResume: time.Hour}.Validate())
	assert.EqualError(t, Policy{WakeBefore: time.Hour, MaxResume: time.Hour}.Validate(), "push: Policy.WakeBefore (1h0m0s) is not shorter than MaxResume (1h0m0s)")
	assert.NoError(t, Policy{MaxResume: -1}.Validate())
}

// What a host announces is what it does its part for.
func TestOffer(t *testing.T) {
	always := []string{NS, nsMuted, nsGroupchat, nsPriority, nsEncrypt, "tigase:push:encrypt:aes-128-gcm", nsJingle}
	push2 := append(slices.Clone(always), NSPush2, NSMatch+"all", NSMatch+"important")
	for _, c := range []struct {
		offer Offer
		want  []string
	}{
		{Offer{}, always},
		{Offer{Contacts: true}, append(slices.Clone(always), nsIgnoreUnknown)},
		{Offer{Presence: true}, append(slices.Clone(always), nsAway)},
		{Offer{Archive: true, Content: true}, always},
		{Offer{Push2: true}, append(slices.Clone(push2), NSNotifyOnly)},
		{Offer{Push2: true, Archive: true}, append(slices.Clone(push2), NSMatch+"archived", NSMatch+"archived-with-body", NSNotifyOnly)},
		{Offer{Push2: true, Content: true}, append(slices.Clone(push2), NSNotifyOnly, NSEncrypted)},
	} {
		assert.Equal(t, c.want, c.offer.Features(), "%+v", c.offer)
	}
}
