// Package pushtest has the suites that a host runs against its own implementations of the interfaces of push, in a test of its own:
//
//	func TestStore(t *testing.T) {
//		pushtest.Store(t, func(t *testing.T) push.Store { return mystore.New(t.TempDir()) })
//	}
//
// Store tests a push.Store, Publisher a push.Publisher, and Integration how a whole server raises its events.
package pushtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
)

// Store tests a push.Store against its contract, a subtest for each sentence of it. open is called at the start of each subtest, in its
// goroutine, and returns a Store without registrations, or at least without those of accounts that were never seen before: account
// names are random, so that one database can serve a whole run. open registers with t.Cleanup whatever closes the Store, and calls t.Skip if it
// cannot be had here. Run it with -race.
//
// Times are compared as instants, and those that are given are whole microseconds; locations, and nil Values against empty ones, make no
// difference. Strings are what XML can carry.
func Store(t *testing.T, open func(t *testing.T) push.Store) {
	for _, c := range []struct {
		name string
		test func(s *storeTest)
	}{
		{"an unknown account has no registrations", unknownAccount},
		{"enable stores the registration whole", enableStores},
		{"options are kept verbatim", optionsVerbatim},
		{"names are kept verbatim", namesVerbatim},
		{"enable replaces, and remembers that it has worked", enableReplaces},
		{"enabling the same again changes nothing within RenewAfter", enableAgain},
		{"enable returns what was before", enableReturnsBefore},
		{"remove takes what the key names", removeMatches},
		{"services and nodes are told apart", keysApart},
		{"accounts are told apart", accountsApart},
		{"the limit evicts the one enabled longest ago", limitEvictsOldest},
		{"the limit evicts tombstones first", limitEvictsTombstones},
		{"the limit can evict several, and the new one", limitEvictsSeveral},
		{"a replacement needs no room", replacementNeedsNoRoom},
		{"a limit below 1 is none", noLimit},
		{"update adds to the counters", updateAdds},
		{"update makes a tombstone", updateDisables},
		{"success resets and revives", updateSucceeds},
		{"update removes one registration", updateRemoves},
		{"update of what is not there says so", updateUnknown},
		{"update leaves the rest alone", updateLeavesRest},
		{"any sequence of calls does what the contract says", randomCalls},
		{"what is given stays the caller's", givenStaysCallers},
		{"what is returned is the caller's", returnedIsCallers},
		{"a call whose context is done does all or nothing", contextDone},
		{"simultaneous updates add up", concurrentUpdates},
		{"simultaneous enables keep the limit and lose none", concurrentEnables},
		{"simultaneous calls on many accounts", concurrentAccounts},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(&storeTest{T: t, Store: open(t), run: rand.Uint64()})
		})
	}
}

// storeTest is one subtest.
type storeTest struct {
	*testing.T
	push.Store
	run uint64
}

// start is when the tests' registrations are enabled, or soon after.
var start = time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)

func (t *storeTest) account(name string) string { return fmt.Sprintf("%s-%x@example.com", name, t.run) }

// registration returns one with every field set.
func (t *storeTest) registration(account, service, node string, after time.Duration) push.Registration {
	return push.Registration{
		Account: t.account(account),
		Key:     push.Key{Service: service, Node: node},
		Options: []push.Field{
			{Var: "FORM_TYPE", Type: "hidden", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}},
			{Var: "secret", Values: []string{"s-" + node}},
		},
		Client:  "client-" + node,
		Enabled: start.Add(after),
	}
}

func (t *storeTest) enable(r push.Registration, limit int) []push.Key {
	t.Helper()
	before, err := t.Enable(context.Background(), r, limit)
	if err != nil {
		t.Fatalf("Enable(%q, %v, limit %d): %v", r.Account, r.Key, limit, err)
	}
	_, _, evicted := push.Enroll(before, r, limit)
	return evicted
}

func (t *storeTest) update(r push.Registration, u push.Update) {
	t.Helper()
	if err := t.Update(context.Background(), r.Account, r.Key, u); err != nil {
		t.Fatalf("Update(%q, %v, %+v): %v", r.Account, r.Key, u, err)
	}
}

func (t *storeTest) remove(r push.Registration) {
	t.Helper()
	removed, err := t.Remove(context.Background(), r.Account, r.Key)
	if err != nil {
		t.Fatalf("Remove(%q, %v): %v", r.Account, r.Key, err)
	}
	t.wantKeys("removed", removed, r.Key)
}

func (t *storeTest) list(account string) []push.Registration {
	t.Helper()
	rs, err := t.List(context.Background(), t.account(account))
	if err != nil {
		t.Fatalf("List(%q): %v", t.account(account), err)
	}
	return rs
}

// want says what an account must have, in any order.
func (t *storeTest) want(account string, want ...push.Registration) {
	t.Helper()
	got := t.list(account)
	for _, rs := range [][]push.Registration{got, want} {
		slices.SortFunc(rs, func(a, b push.Registration) int { return a.Key.Compare(b.Key) })
	}
	if !slices.EqualFunc(got, want, same) {
		t.Fatalf("account %q\n has   %s\n wants %s", account, describe(got), describe(want))
	}
}

func (t *storeTest) wantKeys(what string, got []push.Key, want ...push.Key) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func same(a, b push.Registration) bool {
	return a.Account == b.Account && a.Key == b.Key && a.Client == b.Client && a.Enabled.Equal(b.Enabled) &&
		sameOptions(a.Options, b.Options) && sameHealth(a.Health, b.Health)
}

func sameHealth(a, b push.Health) bool {
	return a.Errors == b.Errors && a.Refusals == b.Refusals && a.Cause == b.Cause &&
		a.Succeeded.Equal(b.Succeeded) && a.Disabled.Equal(b.Disabled)
}

func sameOptions(a, b []push.Field) bool {
	return (a == nil) == (b == nil) && slices.EqualFunc(a, b, func(a, b push.Field) bool {
		return a.Var == b.Var && a.Type == b.Type && slices.Equal(a.Values, b.Values)
	})
}

func describe(rs []push.Registration) string {
	s := fmt.Sprint(len(rs), " registrations")
	for i, r := range rs {
		if i == 20 {
			return s + "\n\t…"
		}
		s += fmt.Sprintf("\n\t%.300q", fmt.Sprintf("%+v", r))
	}
	return s
}

func unknownAccount(t *storeTest) {
	rs, err := t.List(context.Background(), t.account("nobody"))
	if err != nil {
		t.Errorf("List of an unknown account is not an error, but returned %v", err)
	}
	if len(rs) != 0 {
		t.Errorf("List of an unknown account returned %s", describe(rs))
	}
}

func enableStores(t *storeTest) {
	r := t.registration("romeo", "push.example.net", "n1", 0)
	t.wantKeys("evicted", t.enable(r, 5))
	t.want("romeo", r)

	whole := t.registration("romeo", "push.example.net", "n2", time.Hour) // a store that is moved keeps its health
	whole.Health = push.Health{Errors: 2, Refusals: 1, Succeeded: start, Disabled: start.Add(time.Minute), Cause: "gone"}
	t.enable(whole, 5)
	t.want("romeo", r, whole)

	bare := push.Registration{Account: t.account("romeo"), Key: push.Key{Service: "push.example.net"}, Enabled: start}
	t.enable(bare, 5)
	t.want("romeo", r, whole, bare)
}

func optionsVerbatim(t *storeTest) {
	long := make([]byte, 64<<10)
	for i := range long {
		long[i] = "0123456789abcdef"[i%16]
	}
	cases := map[string][]push.Field{
		"no form":                  nil,
		"an empty form":            {},
		"a field without values":   {{Var: "a"}},
		"an empty value":           {{Var: "a", Values: []string{""}}},
		"several values":           {{Var: "a", Type: "list-multi", Values: []string{"2", "", "1", "", "2"}}},
		"a field without a name":   {{Type: "fixed", Values: []string{"text"}}},
		"the same name twice":      {{Var: "a", Values: []string{"1"}}, {Var: "b"}, {Var: "a", Values: []string{"2"}}},
		"not the alphabet's order": {{Var: "z", Values: []string{"1"}}, {Var: "a", Values: []string{"2"}}},
		"types":                    {{Var: "a", Type: "hidden"}, {Var: "b", Type: "text-single"}, {Var: "c", Type: "no-such-type"}},
		"markup and quotes":        {{Var: `a"'&<>\`, Values: []string{`{"a":["b"]}`, "<x/>&amp;", `\u0041`, "%s", "'; --", "$1 ?1"}}},
		"white space":              {{Var: " a ", Values: []string{" ", "\t", "\n", "a\r\nb", "  a  "}}},
		"other scripts":            {{Var: "schlüssel", Values: []string{"пароль", "鍵", "👩‍👩‍👧", "e\u0301", "é", "\u2028", "\ufeff", "\u00a0"}}},
		"what looks like a number": {{Var: "1", Values: []string{"007", "1e5", "true", "null", "NaN"}}},
		"a long value":             {{Var: "a", Values: []string{string(long)}}},
	}
	var all []push.Registration
	for name, options := range cases {
		r := t.registration("romeo", "push.example.net", name, 0)
		r.Options = options
		t.enable(r, 0)
		all = append(all, r)
	}
	t.want("romeo", all...)
}

func namesVerbatim(t *storeTest) {
	for _, name := range []string{"UPPER", "o'brien", "a b", `back\slash`, "per%cent_", "ünï", "юзер", "用户", "👩", "e\u0301"} {
		r := t.registration(name, "push."+name+".example", name, 0)
		r.Client = name
		t.enable(r, 5)
		t.update(r, push.Update{Disabled: start, Cause: name})
		r.Health.Disabled, r.Health.Cause = start, name
		t.want(name, r)
		t.remove(r)
		t.want(name)
	}
}

func enableReplaces(t *storeTest) {
	old := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(old, 5)
	t.update(old, push.Update{Succeeded: start})
	t.update(old, push.Update{Errors: 3, Refusals: 2, Disabled: start.Add(time.Minute), Cause: "gone"})
	r := push.Registration{Account: old.Account, Key: old.Key, Enabled: start.Add(time.Hour)}
	t.wantKeys("evicted", t.enable(r, 5))
	r.Health.Succeeded = start // that it has worked once is not forgotten
	t.want("romeo", r)
}

func enableAgain(t *storeTest) {
	r := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(r, 5)
	t.update(r, push.Update{Succeeded: start})
	t.update(r, push.Update{Errors: 2, Refusals: 1})
	want := r
	want.Health = push.Health{Succeeded: start, Errors: 2, Refusals: 1}
	again := r
	again.Enabled = start.Add(push.RenewAfter - time.Microsecond)
	before, err := t.Enable(context.Background(), again, 5)
	if err != nil || len(before) != 1 || !same(before[0], want) {
		t.Errorf("Enable returned %v and %s, want what was stored before", err, describe(before))
	}
	t.want("romeo", want)
	again.Enabled = start.Add(push.RenewAfter)
	t.enable(again, 5)
	want.Enabled = again.Enabled
	t.want("romeo", want)
	again.Client = "another"
	t.enable(again, 5)
	want.Client = again.Client
	t.want("romeo", want)

	// At the limit it matters which one was enabled last.
	more := t.registration("romeo", "push.example.net", "n2", 72*time.Hour)
	t.enable(more, 2)
	want.Enabled = start.Add(73 * time.Hour)
	again.Enabled = want.Enabled
	t.enable(again, 2)
	t.want("romeo", want, more)
}

func enableReturnsBefore(t *storeTest) {
	a := t.registration("romeo", "push.example.net", "n1", 0)
	b := t.registration("romeo", "push.example.net", "n2", time.Hour)
	if before, err := t.Enable(context.Background(), a, 1); err != nil || len(before) != 0 {
		t.Errorf("the first Enable returned %v and %s, want nothing", err, describe(before))
	}
	before, err := t.Enable(context.Background(), b, 1)
	if err != nil || len(before) != 1 || !same(before[0], a) {
		t.Errorf("Enable returned %v and %s, want the one that it evicted", err, describe(before))
	}
	t.want("romeo", b)
}

func removeMatches(t *storeTest) {
	a := t.registration("romeo", "a.example", "n1", 0)
	b := t.registration("romeo", "a.example", "n2", 0)
	c := t.registration("romeo", "a.example", "", 0)
	d := t.registration("romeo", "b.example", "n1", 0)
	e := t.registration("juliet", "a.example", "n1", 0)
	for _, r := range []push.Registration{a, b, c, d, e} {
		t.enable(r, 0)
	}
	remove := func(k push.Key, want ...push.Key) {
		t.Helper()
		got, err := t.Remove(context.Background(), a.Account, k)
		if err != nil {
			t.Fatalf("Remove(%v): %v", k, err)
		}
		slices.SortFunc(got, push.Key.Compare)
		t.wantKeys(fmt.Sprintf("removed of %v", k), got, want...)
	}
	remove(push.Key{Service: "c.example"})
	remove(push.Key{Service: "a.example", Node: "n3"})
	remove(push.Key{Service: "b.example", Node: "n2"})
	remove(b.Key, b.Key)
	t.want("romeo", a, c, d)
	remove(push.Key{Service: "a.example"}, c.Key, a.Key)
	t.want("romeo", d)
	t.enable(a, 0)
	remove(push.Key{}, a.Key, d.Key)
	remove(push.Key{})
	t.want("romeo")
	t.want("juliet", e)
}

func keysApart(t *storeTest) {
	var all []push.Registration
	for i, k := range [][2]string{{"a", "b"}, {"a", ""}, {"a", "B"}, {"A", "b"}, {"ab", ""}, {"a", "b "}, {"a", "\u00e9"}, {"a", "e\u0301"}} {
		r := t.registration("romeo", k[0], k[1], time.Duration(i)*time.Second)
		t.enable(r, 0)
		all = append(all, r)
	}
	t.want("romeo", all...)
	for i := range all {
		t.update(all[i], push.Update{Errors: i + 1})
		all[i].Health.Errors = i + 1
	}
	t.want("romeo", slices.Clone(all)...)
}

func accountsApart(t *storeTest) {
	romeo := t.registration("romeo", "push.example.net", "n1", 0)
	upper := t.registration("Romeo", "push.example.net", "n1", time.Second)
	juliet := t.registration("juliet", "push.example.net", "n1", time.Minute)
	for _, r := range []push.Registration{romeo, upper, juliet} {
		t.wantKeys("evicted", t.enable(r, 1))
	}
	t.update(romeo, push.Update{Errors: 1})
	romeo.Health.Errors = 1
	t.want("romeo", romeo)
	t.want("Romeo", upper)
	t.want("juliet", juliet)
	t.remove(romeo)
	t.want("romeo")
	t.want("Romeo", upper)
	t.want("juliet", juliet)
}

func limitEvictsOldest(t *storeTest) {
	a := t.registration("romeo", "c.example", "", 3*time.Hour)
	b := t.registration("romeo", "a.example", "", 1*time.Hour)
	c := t.registration("romeo", "b.example", "", 2*time.Hour)
	d := t.registration("romeo", "d.example", "", 4*time.Hour)
	for _, r := range []push.Registration{a, b, c} {
		t.wantKeys("evicted below the limit", t.enable(r, 3))
	}
	t.wantKeys("evicted", t.enable(d, 3), b.Key)
	t.want("romeo", a, c, d)

	// Ties go in the order of the keys, and a microsecond is no tie.
	for _, service := range []string{"t3", "t1", "t2"} {
		t.enable(t.registration("tie", service, "", 0), 0)
	}
	t.enable(t.registration("tie", "t0", "", time.Microsecond), 0)
	t.wantKeys("evicted of a tie", t.enable(t.registration("tie", "t4", "", time.Hour), 3), push.Key{Service: "t1"}, push.Key{Service: "t2"})
}

func limitEvictsTombstones(t *storeTest) {
	a := t.registration("romeo", "a.example", "", 1*time.Hour)
	b := t.registration("romeo", "b.example", "", 2*time.Hour)
	c := t.registration("romeo", "c.example", "", 3*time.Hour)
	for _, r := range []push.Registration{a, b, c} {
		t.enable(r, 3)
	}
	t.update(c, push.Update{Disabled: start, Cause: "gone"})
	d := t.registration("romeo", "d.example", "", 4*time.Hour)
	t.wantKeys("evicted", t.enable(d, 3), c.Key)
	t.want("romeo", a, b, d)

	// One that was enabled again is no tombstone any more.
	t.update(b, push.Update{Disabled: start, Cause: "gone"})
	t.enable(b, 3)
	e := t.registration("romeo", "e.example", "", 5*time.Hour)
	t.wantKeys("evicted", t.enable(e, 3), a.Key)
	t.want("romeo", b, d, e)
}

func limitEvictsSeveral(t *storeTest) {
	var all []push.Registration
	for i := range 6 {
		r := t.registration("romeo", "push.example.net", fmt.Sprint("n", i), time.Duration(i)*time.Hour)
		t.enable(r, 0)
		all = append(all, r)
	}
	t.update(all[4], push.Update{Disabled: start, Cause: "gone"})
	r := t.registration("romeo", "push.example.net", "new", 10*time.Hour)
	t.wantKeys("evicted", t.enable(r, 3), all[4].Key, all[0].Key, all[1].Key, all[2].Key)
	t.want("romeo", all[3], all[5], r)

	// A clock that went back makes the new one the oldest. Evict rules, whichever it is.
	early := t.registration("romeo", "push.example.net", "early", -time.Hour)
	t.wantKeys("evicted", t.enable(early, 3), early.Key)
	t.want("romeo", all[3], all[5], r)
}

func replacementNeedsNoRoom(t *storeTest) {
	a := t.registration("romeo", "a.example", "", 1*time.Hour)
	b := t.registration("romeo", "b.example", "", 2*time.Hour)
	t.enable(a, 2)
	t.enable(b, 2)
	a.Enabled = start.Add(30 * time.Hour)
	t.wantKeys("evicted", t.enable(a, 2))
	t.want("romeo", a, b)
	c := t.registration("romeo", "c.example", "", 40*time.Hour)
	t.wantKeys("evicted", t.enable(c, 2), b.Key)
}

func noLimit(t *storeTest) {
	var all []push.Registration
	for i := range 40 {
		r := t.registration("romeo", "push.example.net", fmt.Sprint(i), time.Duration(i)*time.Second)
		t.wantKeys("evicted", t.enable(r, -i%2))
		all = append(all, r)
	}
	t.want("romeo", all...)
}

func updateAdds(t *storeTest) {
	r := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(r, 5)
	for _, u := range []push.Update{{Errors: 1}, {Refusals: 1}, {Errors: 2, Refusals: 3}, {Errors: 1}} {
		t.update(r, u)
		r.Health = u.Apply(r.Health)
		t.want("romeo", r)
	}
}

func updateDisables(t *storeTest) {
	r := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(r, 5)
	for _, u := range []push.Update{
		{Succeeded: start.Add(time.Second)},
		{Errors: 2},
		{Errors: 1, Disabled: start.Add(time.Minute), Cause: "internal-server-error"},
		{Refusals: 1, Disabled: start.Add(time.Hour), Cause: "forbidden"},
		{Disabled: start.Add(2 * time.Hour)},
		{Errors: 1}, // a tombstone that is tried again
	} {
		t.update(r, u)
		r.Health = u.Apply(r.Health)
		t.want("romeo", r)
	}
}

func updateSucceeds(t *storeTest) {
	r := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(r, 5)
	for _, u := range []push.Update{
		{Errors: 2, Refusals: 1},
		{Succeeded: start.Add(time.Second)},
		{Errors: 1, Disabled: start.Add(time.Minute), Cause: "gone"},
		{Succeeded: start.Add(time.Hour)},
	} {
		t.update(r, u)
		r.Health = u.Apply(r.Health)
		t.want("romeo", r)
	}
}

func updateRemoves(t *storeTest) {
	a := t.registration("romeo", "push.example.net", "n1", 0)
	b := t.registration("romeo", "push.example.net", "n2", 0)
	t.enable(a, 5)
	t.enable(b, 5)
	t.remove(a)
	t.want("romeo", b)
	t.remove(b)
	t.want("romeo")
	t.enable(a, 5)
	t.want("romeo", a)
}

func updateUnknown(t *storeTest) {
	r := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(r, 5)
	for _, u := range []push.Update{{Errors: 1}, {Refusals: 1}, {Disabled: start, Cause: "gone"}, {Succeeded: start}} {
		for what, k := range map[string]push.Key{
			"another node":    {Service: r.Service, Node: "n2"},
			"no node":         {Service: r.Service},
			"another service": {Service: "other.example", Node: r.Node},
		} {
			if err := t.Update(context.Background(), r.Account, k, u); !errors.Is(err, push.ErrNotRegistered) {
				t.Errorf("Update(%+v) of %s: got %v, want ErrNotRegistered", u, what, err)
			}
		}
		if err := t.Update(context.Background(), t.account("nobody"), r.Key, u); !errors.Is(err, push.ErrNotRegistered) {
			t.Errorf("Update(%+v) of an unknown account: got %v, want ErrNotRegistered", u, err)
		}
	}
	t.want("romeo", r)
	t.want("nobody")
	t.remove(r)
	if removed, err := t.Remove(context.Background(), r.Account, r.Key); err != nil || len(removed) > 0 {
		t.Errorf("removing it twice: got %v and %v, want nothing", removed, err)
	}
}

func updateLeavesRest(t *storeTest) {
	a := t.registration("romeo", "push.example.net", "n1", 0)
	b := t.registration("romeo", "push.example.net", "n2", 0)
	c := t.registration("juliet", "push.example.net", "n1", 0)
	for _, r := range []push.Registration{a, b, c} {
		t.enable(r, 5)
	}
	for _, u := range []push.Update{{Errors: 1}, {Disabled: start, Cause: "gone"}, {Succeeded: start}} {
		t.update(a, u)
		a.Health = u.Apply(a.Health)
		t.want("romeo", a, b)
		t.want("juliet", c)
	}
}

// model is the contract in a few lines, for randomCalls.
type model map[string][]push.Registration

func (m model) enable(r push.Registration, limit int) []push.Key {
	stored, _, evicted := push.Enroll(m[r.Account], r, limit)
	rs := slices.DeleteFunc(m[r.Account], func(o push.Registration) bool { return o.Key == r.Key })
	rs = append(rs, stored)
	m[r.Account] = slices.DeleteFunc(rs, func(o push.Registration) bool { return slices.Contains(evicted, o.Key) })
	return evicted
}

func (m model) remove(account string, k push.Key) (removed []push.Key) {
	m[account] = slices.DeleteFunc(m[account], func(r push.Registration) bool {
		gone := k.Names(r.Key)
		if gone {
			removed = append(removed, r.Key)
		}
		return gone
	})
	return removed
}

func (m model) update(account string, k push.Key, u push.Update) error {
	i := slices.IndexFunc(m[account], func(r push.Registration) bool { return r.Key == k })
	if i < 0 {
		return push.ErrNotRegistered
	}
	m[account][i].Health = u.Apply(m[account][i].Health)
	return nil
}

func randomCalls(t *storeTest) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := model{}
	accounts := []string{"romeo", "juliet", "nurse"}
	for i := range 400 {
		account := accounts[rng.IntN(len(accounts))]
		r := t.registration(account, "push.example.net", fmt.Sprint("n", rng.IntN(5)), time.Duration(rng.IntN(1000))*time.Microsecond)
		r.Client = fmt.Sprint("call ", i)
		at := start.Add(time.Duration(i) * time.Second)
		var u push.Update
		switch rng.IntN(8) {
		case 0, 1, 2:
			limit := rng.IntN(5)
			want := m.enable(r, limit)
			t.wantKeys(fmt.Sprintf("call %d: evicted at limit %d", i, limit), t.enable(r, limit), want...)
			continue
		case 3:
			of := []push.Key{r.Key, r.Key, r.Key, {Service: r.Service}, {}}[rng.IntN(5)]
			want := m.remove(r.Account, of)
			got, err := t.Remove(context.Background(), r.Account, of)
			if err != nil {
				t.Fatalf("call %d: Remove(%v): %v", i, of, err)
			}
			slices.SortFunc(got, push.Key.Compare)
			slices.SortFunc(want, push.Key.Compare)
			t.wantKeys(fmt.Sprintf("call %d: removed of %v", i, of), got, want...)
			continue
		case 4:
			u.Errors = 1 + rng.IntN(2)
		case 5:
			u.Refusals = 1
		case 6:
			u = push.Update{Disabled: at, Cause: fmt.Sprint("cause ", i), Errors: rng.IntN(2)}
		case 7:
			u.Succeeded = at
		}
		want := m.update(r.Account, r.Key, u)
		if got := t.Update(context.Background(), r.Account, r.Key, u); !errors.Is(got, want) || (got == nil) != (want == nil) {
			t.Fatalf("call %d: Update(%+v): got %v, want %v", i, u, got, want)
		}
		t.want(account, slices.Clone(m[r.Account])...)
	}
	for _, account := range accounts {
		t.want(account, slices.Clone(m[t.account(account)])...)
	}
}

func spoil(rs ...push.Registration) {
	for i := range rs {
		for j := range rs[i].Options {
			for k := range rs[i].Options[j].Values {
				rs[i].Options[j].Values[k] = "spoiled"
			}
			rs[i].Options[j] = push.Field{Var: "spoiled"}
		}
		_ = append(rs[i].Options, push.Field{Var: "spoiled"})
		rs[i] = push.Registration{Client: "spoiled"}
	}
}

func givenStaysCallers(t *storeTest) {
	t.enable(t.registration("romeo", "push.example.net", "n1", 0), 5)
	given := t.registration("romeo", "push.example.net", "n2", 0)
	t.enable(given, 5)
	spoil(given)
	t.want("romeo", t.registration("romeo", "push.example.net", "n1", 0), t.registration("romeo", "push.example.net", "n2", 0))
}

func returnedIsCallers(t *storeTest) {
	a := t.registration("romeo", "push.example.net", "n1", 0)
	b := t.registration("romeo", "push.example.net", "n2", 0)
	t.enable(a, 5)
	t.enable(b, 5)
	for range 3 { // a cache may fill on the first, and answer on the second
		rs := t.list("romeo")
		spoil(rs...)
		_ = append(rs, push.Registration{Client: "spoiled"})
		t.want("romeo", a, b)
	}
	// Parts of one answer do not share room either.
	rs := t.list("romeo")
	slices.SortFunc(rs, func(a, b push.Registration) int { return a.Key.Compare(b.Key) })
	rs[0].Options = append(rs[0].Options, push.Field{Var: "more"})
	rs[0].Options[0].Values = append(rs[0].Options[0].Values, "more")
	if !same(rs[1], b) || rs[0].Options[1].Values[0] != a.Options[1].Values[0] {
		t.Errorf("appending to one registration's options changed another's: %s", describe(rs))
	}
	got, err := t.Enable(context.Background(), t.registration("romeo", "push.example.net", "n3", time.Hour), 2)
	if err != nil {
		t.Fatal(err)
	}
	spoil(got...)
	t.want("romeo", b, t.registration("romeo", "push.example.net", "n3", time.Hour))
}

func contextDone(t *storeTest) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	old := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(old, 5)

	if rs, err := t.List(done, old.Account); err == nil {
		if len(rs) != 1 || !same(rs[0], old) {
			t.Errorf("List returned no error, but %s", describe(rs))
		}
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("List: %v does not wrap context.Canceled", err)
	}

	r := t.registration("romeo", "push.example.net", "n2", time.Hour)
	want := []push.Registration{old}
	if _, err := t.Enable(done, r, 5); err == nil {
		want = append(want, r)
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Enable: %v does not wrap context.Canceled", err)
	}
	t.want("romeo", slices.Clone(want)...)

	if err := t.Update(done, old.Account, old.Key, push.Update{Errors: 1}); err == nil {
		want[0].Health.Errors = 1
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Update: %v does not wrap context.Canceled", err)
	}
	t.want("romeo", slices.Clone(want)...)
}

// atOnce runs f(0) to f(n-1), each in a goroutine.
func atOnce(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func concurrentUpdates(t *storeTest) {
	a := t.registration("romeo", "push.example.net", "n1", 0)
	b := t.registration("romeo", "push.example.net", "n2", 0)
	t.enable(a, 5)
	t.enable(b, 5)
	const goroutines, each = 8, 10
	atOnce(goroutines, func(int) {
		for range each {
			if err := t.Update(context.Background(), a.Account, a.Key, push.Update{Errors: 1, Refusals: 2}); err != nil {
				t.Error(err)
			}
			if _, err := t.List(context.Background(), a.Account); err != nil {
				t.Error(err)
			}
		}
	})
	a.Health.Errors, a.Health.Refusals = goroutines*each, 2*goroutines*each
	t.want("romeo", a, b)
}

func concurrentEnables(t *storeTest) {
	const goroutines, each, limit = 8, 10, 3
	var (
		mu      sync.Mutex
		evicted = map[push.Key]int{}
		all     []push.Registration
	)
	atOnce(goroutines, func(g int) {
		for i := range each {
			r := t.registration("romeo", "push.example.net", fmt.Sprint(g, "-", i), time.Duration(i*goroutines+g)*time.Second)
			before, err := t.Enable(context.Background(), r, limit)
			if err != nil {
				t.Errorf("Enable: %v", err)
				return
			}
			_, _, keys := push.Enroll(before, r, limit)
			rs, err := t.List(context.Background(), r.Account)
			if err != nil || len(rs) > limit {
				t.Errorf("List: %v, and %d registrations at a limit of %d", err, len(rs), limit)
			}
			mu.Lock()
			all = append(all, r)
			for _, k := range keys {
				evicted[k]++
			}
			mu.Unlock()
		}
	})
	left := t.list("romeo")
	if len(left) != limit {
		t.Errorf("%d registrations are left, want %d", len(left), limit)
	}
	for _, r := range left {
		evicted[r.Key] += 100
	}
	for _, r := range all {
		switch n := evicted[r.Key]; n {
		case 1, 100:
		case 0:
			t.Errorf("%v was lost: it is neither stored nor was it reported as evicted", r.Key)
		default:
			t.Errorf("%v was evicted %d times, and is stored %d times", r.Key, n%100, n/100)
		}
	}
}

func concurrentAccounts(t *storeTest) {
	const goroutines, rounds = 8, 5
	atOnce(goroutines, func(g int) {
		account := fmt.Sprint("user", g)
		ctx := context.Background()
		for i := range rounds {
			r := t.registration(account, "push.example.net", fmt.Sprint("n", i), time.Duration(i)*time.Second)
			if before, err := t.Enable(ctx, r, 2); err != nil || len(before) != min(i, 2) {
				t.Errorf("Enable %d: %v, before %s", i, err, describe(before))
			}
			if err := t.Update(ctx, r.Account, r.Key, push.Update{Errors: i + 1}); err != nil {
				t.Errorf("Update: %v", err)
			}
			rs, err := t.List(ctx, r.Account)
			if err != nil || len(rs) != min(i+1, 2) {
				t.Errorf("List %d: %v, %s", i, err, describe(rs))
			}
			for _, got := range rs {
				if got.Key == r.Key && got.Health.Errors != i+1 {
					t.Errorf("an own update is not seen: %s", describe(rs))
				}
			}
		}
	})
}
