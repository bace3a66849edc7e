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
	"github.com/xmpp-push/push/wishes"
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
		{"wishes are kept whole", wishesWhole},
		{"names are kept verbatim", namesVerbatim},
		{"enable stores what Enroll says", enableEnrolls},
		{"enables in turn at the limit are told apart", enableInTurn},
		{"enable says what was there before", enableTells},
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
		{"remove takes one, a service or the account", removes},
		{"remove of what is not there is no error", removeUnknown},
		{"update of what is not there says so", updateUnknown},
		{"update leaves the rest alone", updateLeavesRest},
		{"any sequence of calls does what the contract says", randomCalls},
		{"what is given stays the caller's", givenStaysCallers},
		{"what is returned is the caller's", returnedIsCallers},
		{"a call whose context is done does all or nothing", contextDone},
		{"simultaneous updates add up", concurrentUpdates},
		{"simultaneous enables keep the limit and lose none", concurrentEnables},
		{"simultaneous enables and removes leave nothing behind", concurrentRemoves},
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

// enable enables r, with nobody else at the account, and returns the keys of the registrations that had to go for it, in their order.
func (t *storeTest) enable(r push.Registration, limit int) (evicted []push.Key) {
	t.Helper()
	was := t.listed(r.Account)
	before, err := t.Enable(context.Background(), r, limit)
	if err != nil {
		t.Fatalf("Enable(%q, %v, limit %d): %v", r.Account, r.Key, limit, err)
	}
	byKey(before)
	if !slices.EqualFunc(before, was, same) {
		t.Fatalf("Enable(%q, %v, limit %d) says that before it there were %s\n but there were %s", r.Account, r.Key, limit, describe(before), describe(was))
	}
	now := t.listed(r.Account)
	for _, o := range append(was, r) {
		if !slices.ContainsFunc(now, func(n push.Registration) bool { return n.Key == o.Key }) && !slices.Contains(evicted, o.Key) {
			evicted = append(evicted, o.Key)
		}
	}
	slices.SortFunc(evicted, push.Key.Compare)
	return evicted
}

// remove removes what k names.
func (t *storeTest) remove(account string, k push.Key) (removed []push.Key) {
	t.Helper()
	removed, err := t.Remove(context.Background(), account, k)
	if err != nil {
		t.Fatalf("Remove(%q, %v): %v", account, k, err)
	}
	slices.SortFunc(removed, push.Key.Compare)
	return removed
}

func (t *storeTest) update(r push.Registration, u push.Update) {
	t.Helper()
	if err := t.Update(context.Background(), r.Account, r.Key, u); err != nil {
		t.Fatalf("Update(%q, %v, %+v): %v", r.Account, r.Key, u, err)
	}
}

// listed returns what an account has, in the order of the keys.
func (t *storeTest) listed(account string) []push.Registration {
	t.Helper()
	rs, err := t.List(context.Background(), account)
	if err != nil {
		t.Fatalf("List(%q): %v", account, err)
	}
	byKey(rs)
	return rs
}

func byKey(rs []push.Registration) {
	slices.SortFunc(rs, func(a, b push.Registration) int { return a.Key.Compare(b.Key) })
}

// want says what an account must have, in any order.
func (t *storeTest) want(account string, want ...push.Registration) {
	t.Helper()
	got := t.listed(t.account(account))
	byKey(want)
	if !slices.EqualFunc(got, want, same) {
		t.Fatalf("account %q\n has   %s\n wants %s", account, describe(got), describe(want))
	}
}

func (t *storeTest) wantKeys(what string, got []push.Key, want ...push.Key) {
	t.Helper()
	slices.SortFunc(want, push.Key.Compare)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func same(a, b push.Registration) bool {
	return a.Account == b.Account && a.Key == b.Key && a.Client == b.Client && a.Enabled.Equal(b.Enabled) &&
		sameOptions(a.Options, b.Options) && a.Wishes.Equal(b.Wishes) && sameHealth(a.Health, b.Health)
}

func sameHealth(a, b push.Health) bool {
	return a.Errors == b.Errors && a.Refusals == b.Refusals && a.Cause == b.Cause &&
		a.Failing.Equal(b.Failing) && a.Succeeded.Equal(b.Succeeded) && a.Disabled.Equal(b.Disabled)
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
	whole.Health = push.Health{Errors: 2, Refusals: 1, Failing: start.Add(-time.Hour), Succeeded: start, Disabled: start.Add(time.Minute), Cause: "gone"}
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

func wishesWhole(t *storeTest) {
	var all []push.Registration
	for i, w := range someWishes() {
		r := t.registration("romeo", "push.example.net", fmt.Sprint("n", i), time.Duration(i)*time.Second)
		r.Wishes = w
		if i%3 == 0 {
			r.Options = nil
		}
		t.enable(r, 0)
		all = append(all, r)
	}
	t.want("romeo", slices.Clone(all)...)
	for i, w := range someWishes() { // others, and none, in their place
		r := all[(i+1)%len(all)]
		r.Wishes = w
		t.enable(r, 0)
		all[(i+1)%len(all)] = r
	}
	t.want("romeo", slices.Clone(all)...)
}

// someWishes returns some of each kind.
func someWishes() []*wishes.Wishes {
	return []*wishes.Wishes{
		nil,
		{},
		{IgnoreUnknown: true, Muted: []string{"a@example.com", "b@example.com"}, Groupchat: true, Away: true, Priority: true, Jingle: true, Name: "Julia’s phone",
			Rooms:      []wishes.Room{{Room: "r@rooms.example", Allow: wishes.RoomMentioned, Nick: "Ünï"}, {Room: "s@rooms.example", Allow: wishes.RoomAlways}},
			Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("\x00\xff a 16 byte key"), MaxSize: 3000}},
		{Push2: &wishes.Push2{Client: wishes.NewSecret("opaque"), Matches: []wishes.Match{{Grace: time.Minute}}}},
	}
}

func namesVerbatim(t *storeTest) {
	for _, name := range []string{"UPPER", "o'brien", "a b", `back\slash`, "per%cent_", "ünï", "юзер", "用户", "👩", "e\u0301", "xn--bcher-kva", "bücher"} {
		r := t.registration(name, "push."+name+".example", name, 0)
		r.Client = name
		t.enable(r, 5)
		t.update(r, push.Update{Disabled: start, Cause: name})
		r.Health.Disabled, r.Health.Cause = start, name
		t.want(name, r)
		t.wantKeys("removed", t.remove(r.Account, r.Key), r.Key)
		t.want(name)
	}
}

func enableEnrolls(t *storeTest) {
	later := func(r *push.Registration) { r.Enabled = r.Enabled.Add(push.RenewAfter - time.Microsecond) }
	muchLater := func(r *push.Registration) { r.Enabled = r.Enabled.Add(push.RenewAfter) }
	worked := push.Update{Succeeded: start.Add(time.Second)}
	failed := push.Update{Errors: 3, Refusals: 2, Failing: start.Add(time.Minute)}
	gone := push.Update{Errors: 1, Disabled: start.Add(time.Minute), Cause: "gone"}
	for name, c := range map[string]struct {
		updates []push.Update
		again   func(*push.Registration)
	}{
		"the same":                              {nil, func(*push.Registration) {}},
		"the same a little later":               {nil, later},
		"the same a day later":                  {nil, muchLater},
		"the same by a clock that went back":    {nil, func(r *push.Registration) { r.Enabled = r.Enabled.Add(-time.Hour) }},
		"the same, having worked":               {[]push.Update{worked}, later},
		"the same after errors":                 {[]push.Update{worked, failed}, later},
		"the same after errors a day later":     {[]push.Update{worked, failed}, muchLater},
		"other options":                         {[]push.Update{worked, failed}, func(r *push.Registration) { r.Options[1].Values[0] = "new" }},
		"one field more":                        {nil, func(r *push.Registration) { r.Options = append(r.Options, push.Field{Var: "x"}) }},
		"another type of field":                 {nil, func(r *push.Registration) { r.Options[1].Type = "text-private" }},
		"no options":                            {[]push.Update{failed}, func(r *push.Registration) { r.Options = nil }},
		"empty options":                         {[]push.Update{failed}, func(r *push.Registration) { r.Options = []push.Field{} }},
		"another client":                        {[]push.Update{worked, failed}, func(r *push.Registration) { r.Client = "other" }},
		"disabled":                              {[]push.Update{worked, gone}, later},
		"disabled, never worked":                {[]push.Update{gone}, later},
		"a health of its own, from a migration": {[]push.Update{worked, failed}, func(r *push.Registration) { r.Health.Refusals = 7 }},
	} {
		old := t.registration("romeo", "push.example.net", name, 0)
		t.enable(old, 0)
		for _, u := range c.updates {
			t.update(old, u)
			old.Health = u.Apply(old.Health)
		}
		r := t.registration("romeo", "push.example.net", name, 0)
		c.again(&r)
		stored, _, _ := push.Enroll([]push.Registration{old}, r, 0)
		t.enable(r, 0)
		rs := t.listed(r.Account)
		i := slices.IndexFunc(rs, func(o push.Registration) bool { return o.Key == r.Key })
		if i < 0 || !same(rs[i], stored) {
			t.Errorf("%s: stored are %s\n want %s", name, describe(rs), describe([]push.Registration{stored}))
		}
	}
}

// enableInTurn: where there is a limit the order of the enables matters, however little time there was between them.
func enableInTurn(t *storeTest) {
	a := t.registration("romeo", "push.example.net", "n1", 0)
	b := t.registration("romeo", "push.example.net", "n2", time.Hour)
	t.enable(a, 2)
	t.enable(b, 2)
	a.Enabled = start.Add(2 * time.Hour)
	t.enable(a, 2)
	t.want("romeo", a, b)
	c := t.registration("romeo", "push.example.net", "n3", 3*time.Hour)
	t.wantKeys("evicted", t.enable(c, 2), b.Key)
}

func enableTells(t *storeTest) {
	a := t.registration("romeo", "push.example.net", "n1", 0)
	b := t.registration("romeo", "push.example.net", "n2", time.Hour)
	for i, c := range []struct {
		r     push.Registration
		limit int
		want  []push.Registration
	}{
		{a, 5, nil},
		{a, 5, []push.Registration{a}},
		{b, 1, []push.Registration{a}},
		{b, 1, []push.Registration{b}},
		{a, 1, []push.Registration{b}}, // a goes, being the older one
		{b, 5, []push.Registration{b}},
	} {
		before, err := t.Enable(context.Background(), c.r, c.limit)
		if err != nil || !slices.EqualFunc(before, c.want, same) {
			t.Fatalf("enable %d says that before it there were %s, %v\n want %s", i+1, describe(before), err, describe(c.want))
		}
	}
	t.update(b, push.Update{Errors: 2})
	b.Health.Errors = 2
	before, err := t.Enable(context.Background(), a, 5)
	if err != nil || len(before) != 1 || !same(before[0], b) {
		t.Fatalf("enable says that before it there were %s, %v\n want %s", describe(before), err, describe([]push.Registration{b}))
	}
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
	t.remove(romeo.Account, push.Key{})
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
	a.Enabled, a.Client = start.Add(3*time.Hour), "another client"
	t.wantKeys("evicted", t.enable(a, 2))
	t.want("romeo", a, b)
	c := t.registration("romeo", "c.example", "", 4*time.Hour)
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
	for _, u := range []push.Update{{Errors: 1}, {Refusals: 1}, {Errors: 2, Refusals: 3}, {Errors: 1, Failing: start.Add(time.Minute)}, {Errors: 1, Failing: start.Add(time.Hour)},
		{Errors: -2, Refusals: -1}, {Errors: -5, Refusals: -1}, {Errors: 1}} { // what is not to count any more, as far as it was counted
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
		{Errors: 1, Failing: start.Add(time.Minute), Disabled: start.Add(time.Minute), Cause: "internal-server-error"},
		{Errors: 1, Failing: start.Add(time.Hour), Disabled: start.Add(time.Minute), Cause: "internal-server-error"},
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
		{Errors: 2, Refusals: 1, Failing: start},
		{Succeeded: start.Add(time.Second)},
		{Errors: 1, Disabled: start.Add(time.Minute), Cause: "gone"},
		{Succeeded: start.Add(time.Hour)},
	} {
		t.update(r, u)
		r.Health = u.Apply(r.Health)
		t.want("romeo", r)
	}
}

func removes(t *storeTest) {
	var all []push.Registration
	var keys []push.Key
	push2 := push.Key{Service: "push.example.net", Node: push.Push2Node + "device"}
	refill := func() {
		all, keys = nil, nil
		for i, k := range []push.Key{{Service: "push.example.net", Node: "n1"}, {Service: "push.example.net", Node: "n2"}, {Service: "push.example.net"},
			{Service: "push.example", Node: "n1"}, {Service: "Push.example.net", Node: "n1"}, {Service: "push_example.net", Node: "n1"}, push2} {
			r := t.registration("romeo", k.Service, k.Node, time.Duration(i)*time.Second)
			t.enable(r, 0)
			all, keys = append(all, r), append(keys, k)
		}
		t.want("romeo", slices.Clone(all)...)
	}
	juliet := t.registration("juliet", "push.example.net", "n1", 0)
	t.enable(juliet, 0)

	refill()
	t.update(all[0], push.Update{Disabled: start, Cause: "gone"}) // tombstones as well
	t.wantKeys("removed one", t.remove(all[0].Account, keys[0]), keys[0])
	t.want("romeo", slices.Clone(all[1:])...)
	refill()
	t.update(all[1], push.Update{Disabled: start, Cause: "gone"})
	t.wantKeys("removed of the service", t.remove(all[0].Account, push.Key{Service: "push.example.net"}), keys[:3]...)
	t.want("romeo", slices.Clone(all[3:])...)
	refill()
	t.wantKeys("removed of the account", t.remove(all[0].Account, push.Key{}), keys...)
	t.want("romeo")
	t.want("juliet", juliet)

	t.enable(all[0], 5)
	t.want("romeo", all[0])
	t.wantKeys("removed of the account", t.remove(all[0].Account, push.Key{Node: "no node without a service"}), all[0].Key)
}

func removeUnknown(t *storeTest) {
	r := t.registration("romeo", "push.example.net", "n1", 0)
	t.enable(r, 5)
	for _, k := range []push.Key{{Service: r.Service, Node: "n2"}, {Service: "other.example", Node: r.Node}, {Service: "other.example"}} {
		t.wantKeys(fmt.Sprint("removed of ", k), t.remove(r.Account, k))
	}
	for _, k := range []push.Key{r.Key, {Service: r.Service}, {}} {
		t.wantKeys("removed of an unknown account", t.remove(t.account("nobody"), k))
	}
	t.want("romeo", r)
	t.remove(r.Account, r.Key)
	t.wantKeys("removed twice", t.remove(r.Account, r.Key))
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
	t.remove(r.Account, r.Key)
	if err := t.Update(context.Background(), r.Account, r.Key, push.Update{Errors: 1}); !errors.Is(err, push.ErrNotRegistered) {
		t.Errorf("Update of what was removed: got %v, want ErrNotRegistered", err)
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
		if !k.Names(r.Key) {
			return false
		}
		removed = append(removed, r.Key)
		return true
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
		r := t.registration(account, fmt.Sprint("push", rng.IntN(2)), fmt.Sprint("n", rng.IntN(4)), time.Duration(rng.IntN(1000))*time.Microsecond)
		r.Client = fmt.Sprint("client ", rng.IntN(2))
		at := start.Add(time.Duration(i) * time.Second)
		var u push.Update
		switch rng.IntN(8) {
		case 0, 1, 2:
			limit := rng.IntN(5)
			want := m.enable(r, limit)
			t.wantKeys(fmt.Sprintf("call %d: evicted at limit %d", i, limit), t.enable(r, limit), want...)
			continue
		case 3:
			k := [...]push.Key{r.Key, r.Key, {Service: r.Service}, {}}[rng.IntN(4)]
			t.wantKeys(fmt.Sprintf("call %d: removed", i), t.remove(r.Account, k), m.remove(r.Account, k)...)
			continue
		case 4:
			u.Errors, u.Failing = 1+rng.IntN(2), at
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
		rs := t.listed(t.account("romeo"))
		spoil(rs...)
		_ = append(rs, push.Registration{Client: "spoiled"})
		t.want("romeo", a, b)
	}
	// Parts of one answer do not share room either.
	rs := t.listed(t.account("romeo"))
	slices.SortFunc(rs, func(a, b push.Registration) int { return a.Key.Compare(b.Key) })
	rs[0].Options = append(rs[0].Options, push.Field{Var: "more"})
	rs[0].Options[0].Values = append(rs[0].Options[0].Values, "more")
	if !same(rs[1], b) || rs[0].Options[1].Values[0] != a.Options[1].Values[0] {
		t.Errorf("appending to one registration's options changed another's: %s", describe(rs))
	}
	for range 2 { // changed, and unchanged
		before, err := t.Enable(context.Background(), t.registration("romeo", "push.example.net", "n3", time.Hour), 5)
		if err != nil {
			t.Fatal(err)
		}
		spoil(before...)
		t.want("romeo", a, b, t.registration("romeo", "push.example.net", "n3", time.Hour))
	}
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

	if removed, err := t.Remove(done, old.Account, push.Key{}); err == nil || len(removed) > 0 {
		if len(removed) != len(want) {
			t.Errorf("Remove returned %v, %v of %d registrations", removed, err, len(want))
		}
		want = nil
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Remove: %v does not wrap context.Canceled", err)
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
		befores [][]push.Registration
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
			rs, err := t.List(context.Background(), r.Account)
			if err != nil || len(rs) > limit {
				t.Errorf("List: %v, and %d registrations at a limit of %d", err, len(rs), limit)
			}
			mu.Lock()
			all = append(all, r)
			befores = append(befores, before)
			mu.Unlock()
		}
	})
	// Each enable's before is the after of the one before it, and the last one's after is what is left: so none was lost, and none saw another's half.
	count := map[string]int{}
	state := func(rs []push.Registration) string {
		byKey(rs)
		var keys []push.Key
		for _, r := range rs {
			keys = append(keys, r.Key)
		}
		return fmt.Sprint(keys)
	}
	for i, before := range befores {
		count[state(before)]--
		m := model{t.account("romeo"): before}
		m.enable(all[i], limit)
		count[state(m[t.account("romeo")])]++
	}
	left := t.listed(t.account("romeo"))
	if len(left) != limit {
		t.Errorf("%d registrations are left, want %d", len(left), limit)
	}
	count[state(nil)]++
	count[state(left)]--
	for s, n := range count {
		if n != 0 {
			t.Errorf("the account had %s, by what the enables said was before them, %d times more often than it came to that", s, -n)
		}
	}
}

// concurrentRemoves has enables and removes of everything at once: what a remove did not remove was enabled after it.
func concurrentRemoves(t *storeTest) {
	const goroutines, each = 4, 20
	var (
		mu      sync.Mutex
		removed = map[push.Key]int{}
	)
	remove := func() {
		keys, err := t.Remove(context.Background(), t.account("romeo"), push.Key{})
		if err != nil {
			t.Errorf("Remove: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, k := range keys {
			removed[k]++
		}
	}
	atOnce(goroutines, func(g int) {
		for i := range each {
			r := t.registration("romeo", "push.example.net", fmt.Sprint(g, "-", i), 0)
			if _, err := t.Enable(context.Background(), r, 0); err != nil {
				t.Errorf("Enable: %v", err)
			}
			if i%3 == g%3 {
				remove()
			}
		}
	})
	remove()
	t.want("romeo")
	for g := range goroutines {
		for i := range each {
			k := push.Key{Service: "push.example.net", Node: fmt.Sprint(g, "-", i)}
			if removed[k] != 1 {
				t.Errorf("%v was enabled once and removed %d times", k, removed[k])
			}
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
				t.Errorf("Enable %d: %v, before it %s", i, err, describe(before))
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
