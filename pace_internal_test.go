package push

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A part is compared with the plain list of what was put into it.

// item is one stanza, or a wake-up, in the plain list.
type item struct {
	id    uint64 // multiple of 8; 0: without an ID
	class Class
	event uint64
	at    instant
	wake  bool
	text  bool
	carry bool
}

func (i item) noted() noted { return noted{i.id | uint64(i.class), i.event} }

// put does what judging does.
func put(p *part, i item, policy *Policy) {
	p.at[i.class] = i.at
	if i.wake {
		p.wakes = true
		p.note(0, ClassPlain, i.event, policy)
		return
	}
	p.count[i.class]++
	p.note(i.id, i.class, i.event, policy)
	if i.id == 0 && i.class >= ClassImportant {
		p.nameless++
	}
	if i.text {
		p.text = &text{at: i.at, hash: i.id, body: fmt.Sprint(i.at)}
	}
	if i.carry {
		c := carried{at: i.at, hash: i.id}
		c.Stanza.Class = i.class
		p.carried = append(p.carried, c)
	}
}

// wantPart compares a part with the list of what is in it; that a class has nothing left shows in its time, and else it has the time of the last that came.
func wantPart(t *testing.T, what string, p *part, list []item, last [ClassUrgent + 1]instant) {
	t.Helper()
	var count [ClassUrgent + 1]int32
	var nameless int32
	wakes := false
	var stanzas []noted
	var carry []carried
	for _, i := range list {
		if i.wake {
			wakes = true
		} else {
			count[i.class]++
			if i.id == 0 && i.class >= ClassImportant {
				nameless++
			}
		}
		if n := i.noted(); i.id != 0 || len(stanzas) == 0 || stanzas[len(stanzas)-1] != n {
			stanzas = append(stanzas, n)
		}
		if i.carry {
			carry = append(carry, carried{at: i.at, hash: i.id})
		}
	}
	for c := range count {
		if p.count[c] != count[c] {
			t.Errorf("%s: %v are %d, want %d", what, Class(c), p.count[c], count[c])
		}
		want := last[c]
		if count[c] == 0 && (Class(c) != ClassPlain || !wakes) {
			want = 0
		}
		if p.at[c] != want {
			t.Errorf("%s: %v came last at %d, want %d", what, Class(c), p.at[c], want)
		}
	}
	if p.nameless != nameless || p.wakes != wakes {
		t.Errorf("%s: %d without an ID, wakes %v, want %d, %v", what, p.nameless, p.wakes, nameless, wakes)
	}
	// Of those without an ID, adjacent ones are one; which are adjacent depends on what was between them, so they are compared as a set.
	if got, want := named(p.stanzas), named(stanzas); !slices.Equal(got, want) {
		t.Errorf("%s: it has %v, want %v", what, got, want)
	}
	if got, want := unnamedSet(p.stanzas), unnamedSet(stanzas); !slices.Equal(got, want) {
		t.Errorf("%s: without an ID it has %v, want %v", what, got, want)
	}
	same := slices.EqualFunc(p.carried, carry, func(a, b carried) bool { return a.at == b.at && a.hash == b.hash })
	if !same {
		t.Errorf("%s: carried are %v, want %v", what, p.carried, carry)
	}
}

func named(list []noted) (ns []noted) {
	for _, n := range list {
		if n.named() {
			ns = append(ns, n)
		}
	}
	return ns
}

func unnamedSet(list []noted) (ns []noted) {
	for _, n := range list {
		if !n.named() {
			ns = append(ns, n)
		}
	}
	slices.SortFunc(ns, func(a, b noted) int { return int(a.event) - int(b.event) + 10*(int(a.hash)-int(b.hash)) })
	return slices.Compact(ns)
}

func TestPartIsTheListOfWhatIsInIt(t *testing.T) {
	policy := (&Policy{Remember: 1000}).resolve()
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var p part
		var list []item
		var last [ClassUrgent + 1]instant
		at := instant(1000)
		random := func() item {
			at += instant(1 + rng.IntN(3))
			i := item{class: Class(rng.IntN(3)), event: uint64(1 + rng.IntN(4)), at: at, carry: rng.IntN(3) == 0}
			switch rng.IntN(5) {
			case 0:
				i.wake, i.class, i.carry = true, ClassPlain, false
			case 1:
			default:
				n := 1 + rng.IntN(1<<(1+rng.IntN(20))) // a host may say the same one twice
				i.id, i.class = uint64(n)<<3, Class(n%3)
			}
			return i
		}
		add := func(to *part) {
			i := random()
			put(to, i, policy)
			list = append(list, i)
			last[i.class] = max(last[i.class], i.at)
		}
		for range 1 + rng.IntN(8) {
			add(&p)
		}
		if rng.IntN(3) == 0 {
			var o part
			for range 1 + rng.IntN(4) {
				add(&o)
			}
			p.merge(&o, policy)
		}
		wantPart(t, "put", &p, list, last)

		// Take some by their IDs, and some whole classes.
		var whole [ClassUrgent + 1]bool
		if rng.IntN(2) == 0 {
			whole[rng.IntN(3)] = true
		}
		chosen := map[uint64]bool{}
		for _, i := range list {
			if i.id != 0 && rng.IntN(3) == 0 {
				chosen[i.id] = true
			}
		}
		before := last
		gone := p.without(whole, func(n noted) bool { return n.named() && chosen[n.hash&^hashFlags] })
		var left, went []item
		for _, i := range list {
			if whole[i.class] || i.id != 0 && chosen[i.id] {
				went = append(went, i)
			} else {
				left = append(left, i)
			}
		}
		wantPart(t, fmt.Sprint("seed ", seed, ", left"), &p, left, before)
		goneCarried := gone
		goneCarried.carried = nil // what is gone carries nothing
		for i := range went {
			went[i].carry = false
		}
		wantPart(t, fmt.Sprint("seed ", seed, ", gone"), &goneCarried, went, before)
		if t.Failed() {
			t.Fatalf("of %+v, whole %v, chosen %v", list, whole, chosen)
		}
	}
}

func TestPartText(t *testing.T) {
	policy := (&Policy{}).resolve()
	put2 := func(ats ...instant) *part {
		p := &part{}
		for _, at := range ats {
			put(p, item{id: uint64(at) << 3, class: ClassImportant, event: 1, at: at, text: true}, policy)
		}
		return p
	}
	for name, c := range map[string]struct {
		p, o *part
		want instant
	}{
		"newer":       {put2(1), put2(2), 2},
		"older":       {put2(2), put2(1), 2},
		"none before": {&part{}, put2(1), 1},
		"none after":  {put2(1), &part{}, 1},
	} {
		c.p.merge(c.o, policy)
		if c.p.text == nil || c.p.text.at != c.want {
			t.Errorf("%s: the text is %+v, want that of %d", name, c.p.text, c.want)
		}
	}
	same := put2(1)
	important := [ClassUrgent + 1]instant{ClassImportant: 1}
	same.merge(&part{text: &text{at: 1, body: "later"}, at: important}, policy)
	if same.text.body != "later" {
		t.Error("of two texts of one time the first stayed")
	}
	quiet := &part{text: &text{at: 2}, at: [ClassUrgent + 1]instant{ClassPlain: 2}}
	if quiet.saysMore(same) || !same.saysMore(quiet) {
		t.Error("what only wakes takes the place of what the user should see")
	}
	mute := &part{at: important}
	if !same.saysMore(mute) || mute.saysMore(same) || mute.saysMore(mute) || mute.saysMore(nil) || !same.saysMore(nil) {
		t.Error("what has no text says more than what has one")
	}
	for id, want := range map[uint64]bool{2 << 3: false, 1 << 3: true} {
		p := put2(1, 2) // whose text is that of 2
		p.without([ClassUrgent + 1]bool{}, func(n noted) bool { return n.hash&^hashFlags == id })
		if (p.text != nil) != want {
			t.Errorf("without %d the text is %+v", id>>3, p.text)
		}
	}
	p := put2(1)
	p.text.hash = 0 // of a stanza without an ID: it cannot be told which that was
	put(p, item{id: 0, class: ClassImportant, event: 1, at: 2}, policy)
	p.without([ClassUrgent + 1]bool{}, func(n noted) bool { return n.hash&^hashFlags == 1<<3 })
	if p.text == nil {
		t.Error("the text of a stanza without an ID went with another")
	}
	p.without([ClassUrgent + 1]bool{ClassImportant: true}, func(noted) bool { return false })
	if p.text != nil {
		t.Error("the text of a stanza without an ID stayed when all of those went")
	}
	if c, ok := p.class(); ok || c != ClassPlain {
		t.Errorf("of nothing the class is %v, %v", c, ok)
	}
}

func TestPartsMergeFlags(t *testing.T) {
	policy := (&Policy{}).resolve()
	for _, a := range []bool{false, true} {
		for _, b := range []bool{false, true} {
			p, o := part{wakes: a, counts: b}, part{wakes: b, counts: a}
			p.merge(&o, policy)
			if p.wakes != (a || b) || p.counts != (a || b) {
				t.Errorf("%v and %v: wakes %v, counts %v", a, b, p.wakes, p.counts)
			}
		}
	}
}

// TestPartRoom: what a part remembers of stanzas is bounded, and its counts are not.
func TestPartRoom(t *testing.T) {
	policy := (&Policy{Remember: 8, Causes: 3}).resolve()
	if policy.room() != 8 {
		t.Fatalf("room for %d", policy.room())
	}
	var p part
	for i := range 100 {
		put(&p, item{id: uint64(i+1) << 3, class: ClassImportant, event: uint64(i), at: instant(i + 1)}, policy)
		if n := len(p.stanzas); n > 16 || i >= 16 && n < 8 {
			t.Fatalf("after %d stanzas it remembers %d", i+1, n)
		}
		if got := p.stanzas[len(p.stanzas)-1].event; got != uint64(i) {
			t.Fatalf("after %d stanzas the newest that it remembers is of event %d", i+1, got)
		}
		if i == 15 && len(p.stanzas) != 16 {
			t.Fatalf("it remembers %d of %d", len(p.stanzas), i+1)
		}
		if i == 16 && len(p.stanzas) != 8 {
			t.Fatalf("at %d it remembers %d, want the newest 8", i+1, len(p.stanzas))
		}
	}
	o := p
	o.stanzas = slices.Clone(p.stanzas)
	p.merge(&o, policy)
	if len(p.stanzas) != 8 || p.count[ClassImportant] != 200 {
		t.Errorf("merged it remembers %d of %d", len(p.stanzas), p.count[ClassImportant])
	}
	var c, d part
	for i := range 2 * maxCarried {
		c.carried = append(c.carried, carried{at: instant(i)})
		d.carried = append(d.carried, carried{at: instant(1000 + i)})
	}
	c.merge(&d, policy)
	if len(c.carried) != maxCarried || c.carried[0].at != instant(1000+maxCarried) {
		t.Errorf("carried are %d, the first of %d", len(c.carried), c.carried[0].at)
	}
	var anon part // of one event, without IDs
	for range 100 {
		put(&anon, item{class: ClassImportant, event: 1, at: 1}, policy)
	}
	if len(anon.stanzas) != 1 || anon.count[ClassImportant] != 100 || anon.nameless != 100 {
		t.Errorf("of 100 that cannot be told apart it remembers %d, and %d of %d without an ID", len(anon.stanzas), anon.nameless, anon.count[ClassImportant])
	}
	// What there was no room for is no stanza without an ID, though it is counted and not named.
	var q part
	put(&q, item{class: ClassImportant, event: 1, at: 1}, policy)
	for i := range 40 {
		put(&q, item{id: uint64(i+1) << 3, class: ClassUrgent, event: uint64(i), at: instant(i + 1)}, policy)
	}
	gone := q.without([ClassUrgent + 1]bool{ClassImportant: true, ClassUrgent: true}, func(noted) bool { return false })
	if gone.nameless != 1 || q.nameless != 0 {
		t.Errorf("of one without an ID %d went, and %d are left", gone.nameless, q.nameless)
	}
	if got := newest([]int{1, 2, 3}, 3); len(got) != 3 {
		t.Errorf("the newest 3 of 3 are %v", got)
	}
	if got := newest([]int{1, 2, 3}, 2); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("the newest 2 of 3 are %v", got)
	}
}

// TestPacerTakesWhatIsTooOld compares with the plain list, class by class and at the exact time.
func TestPacerTakesWhatIsTooOld(t *testing.T) {
	policy := (&Policy{}).resolve()
	s := &session{id: "s"}
	begin := time.Unix(1000, 0)
	var p pacer
	at := func(from *session, c Class, after time.Duration) {
		w := p.open(from)
		put(w, item{id: uint64(1+c) << 3, class: c, event: 1, at: toInstant(begin.Add(after))}, policy)
		p.schedule(begin.Add(after))
	}
	at(nil, ClassPlain, 0)
	at(nil, ClassUrgent, 10*time.Minute)
	at(s, ClassImportant, time.Minute)
	at(s, ClassUrgent, 20*time.Minute)
	if got := expiry(p.waiting, policy); !got.Equal(begin.Add(10*time.Minute + policy.ExpireUrgent)) {
		t.Errorf("the first is too old at %v", got)
	}
	if got := p.lastExpiry(policy); !got.Equal(begin.Add(time.Minute + policy.Expire)) {
		t.Errorf("the last is too old at %v", got)
	}
	for _, c := range []struct {
		at   time.Duration
		want string
	}{
		{10*time.Minute + policy.ExpireUrgent - 1, "[]"},
		{10*time.Minute + policy.ExpireUrgent, "[urgent]"},
		{20*time.Minute + policy.ExpireUrgent, "[urgent]"},
		{policy.Expire - 1, "[]"},
		{policy.Expire, "[plain]"},
		{policy.Expire + time.Minute - 1, "[]"},
		{policy.Expire + time.Minute, "[important]"},
	} {
		var got []Class
		gone := p.takeOld(begin.Add(c.at), policy)
		for i := range gone {
			class, _ := gone[i].class()
			got = append(got, class)
			if gone[i].total() != 1 {
				t.Errorf("at %v: %d stanzas went", c.at, gone[i].total())
			}
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("at %v went %v, want %s", c.at, got, c.want)
		}
	}
	if len(p.waiting) != 0 {
		t.Errorf("left are %d parts", len(p.waiting))
	}
	if !expiry(p.waiting, policy).IsZero() || !p.lastExpiry(policy).IsZero() || !p.next(policy).IsZero() {
		t.Error("nothing waits, and something is too old at some time")
	}
}

// TestPacerWithdraws: single stanzas go from what waits; in flight they are marked, and go when the publish has failed.
func TestPacerWithdraws(t *testing.T) {
	policy := (&Policy{}).resolve()
	mine, other := &session{id: "mine"}, &session{id: "other"}
	fill := func() (parts []part) {
		for _, from := range []*session{mine, other} {
			w := part{from: from}
			for i := range uint64(3) {
				put(&w, item{id: (i + 1) << 3, class: ClassImportant, event: i, at: instant(i + 1)}, policy)
			}
			put(&w, item{id: 0, class: ClassImportant, event: 9, at: 9}, policy)
			parts = append(parts, w)
		}
		return parts
	}
	ofMine := func(p *part) bool { return p.from == mine }
	second := func(n noted) bool { return n.hash&^hashFlags == 2<<3 || n.hash&^hashFlags == 0 }

	p := pacer{waiting: fill()}
	gone := p.withdraw(ofMine, second, ReasonRead)
	if len(gone) != 1 || gone[0].total() != 1 || gone[0].from != mine || p.waiting[0].total() != 3 || p.waiting[1].total() != 4 {
		t.Errorf("of what waits went %+v, left is %+v", gone, p.waiting)
	}

	for _, inFlight := range []bool{true, false} {
		p = pacer{flight: fill(), inFlight: inFlight}
		if gone := p.withdraw(ofMine, second, ReasonRead); len(gone) != 0 {
			t.Errorf("of what is in flight went %+v", gone)
		}
		marked := 0
		for i := range p.flight {
			for _, n := range p.flight[i].stanzas {
				if n.hash&withdrawn != 0 {
					marked++
				}
			}
		}
		if want := map[bool]int{true: 1, false: 0}[inFlight]; marked != want {
			t.Errorf("in flight %v: %d were marked, want %d", inFlight, marked, want)
		}
		if !inFlight {
			continue
		}
		spent := p.takeSpent()
		if len(spent) != 1 || spent[0].total() != 1 || spent[0].spent != ReasonRead || spent[0].from != mine || len(p.flight) != 2 || p.flight[0].total() != 3 || p.flight[1].total() != 4 {
			t.Errorf("when it failed went %+v, left is %+v", spent, p.flight)
		}
		p.withdraw(ofMine, func(n noted) bool { return n.named() }, ReasonRetracted)
		if spent = p.takeSpent(); len(spent) != 1 || spent[0].total() != 2 || spent[0].spent != ReasonRetracted {
			t.Errorf("then went %+v", spent)
		}
	}

	// A session that has ended takes all of its own along, in flight too once that has failed.
	p = pacer{flight: fill(), waiting: fill(), inFlight: true}
	gone = p.takeSession(mine, ReasonResumed)
	if len(gone) != 1 || gone[0].from != mine || gone[0].total() != 4 || len(p.waiting) != 1 || len(p.flight) != 2 {
		t.Errorf("with the session went %+v", gone)
	}
	p.withdraw(ofMine, second, ReasonRead) // which does not change why
	spent := p.takeSpent()
	if len(spent) != 1 || spent[0].total() != 4 || spent[0].spent != ReasonResumed || len(p.flight) != 1 || p.flight[0].from != other {
		t.Errorf("when it failed went %+v", spent)
	}
	p = pacer{flight: fill()} // what is left of an earlier flight is not in flight
	if p.takeSession(mine, ReasonResumed); p.flight[0].over {
		t.Error("what is not in flight is marked")
	}
}

// TestPacerSpends: when all that waits of a registration is given up, what is in flight is not tried again; what had come to an end before keeps its reason.
func TestPacerSpends(t *testing.T) {
	for _, inFlight := range []bool{true, false} {
		p := pacer{flight: []part{{spent: ReasonResumed, over: true}, {}}, waiting: []part{{}}, inFlight: inFlight}
		if gone := p.takeWaiting(ReasonDisabled); len(gone) != 1 || len(p.waiting) != 0 {
			t.Errorf("%d went, %d are left", len(gone), len(p.waiting))
		}
		if p.flight[0].spent != ReasonResumed {
			t.Errorf("what was over is so because of %v now", p.flight[0].spent)
		}
		if f := p.flight[1]; f.over != inFlight || (f.spent == ReasonDisabled) != inFlight {
			t.Errorf("in flight %v: over %v, because of %v", inFlight, f.over, f.spent)
		}
	}
	p := pacer{waiting: []part{{}}, tries: 3, stripped: true, counted: 7, retryAt: 9}
	if p.takeAll(); p.tries != 0 || p.stripped || p.counted != 0 || p.retryAt != 0 {
		t.Errorf("nothing waits, and the next one waits for its try: %+v", p)
	}
}

// TestPacerLetsGo: of what was answered nothing is kept, and its space only if more waits.
func TestPacerLetsGo(t *testing.T) {
	sent := func() []part {
		return []part{{from: &session{}, text: &text{body: "hunter2"}, carried: []carried{{}}}}
	}
	p := pacer{flight: sent(), waiting: []part{{}}, inFlight: true}
	p.finish()
	if w := p.flight[:1][0]; w.from != nil || w.text != nil || w.carried != nil {
		t.Errorf("kept is %+v", w)
	}
	p = pacer{flight: sent(), waiting: make([]part, 0, 4), inFlight: true}
	if p.finish(); p.flight != nil || p.waiting != nil {
		t.Errorf("kept is space for %d and %d", cap(p.flight), cap(p.waiting))
	}
}

// TestPacerAdopts: what a session leaves behind joins the account's own, but not what has come to an end there.
func TestPacerAdopts(t *testing.T) {
	policy := (&Policy{}).resolve()
	s, other := &session{id: "s"}, &session{id: "other"}
	of := func(from *session, n int32, over bool) part {
		return part{from: from, over: over, count: [ClassUrgent + 1]int32{ClassImportant: n}, at: [ClassUrgent + 1]instant{ClassImportant: 1}}
	}
	for name, c := range map[string]struct {
		parts []part
		want  string
	}{
		"alone":                    {[]part{of(other, 1, false), of(s, 2, false)}, "other:1 own:2"},
		"with the account's":       {[]part{of(nil, 1, false), of(s, 2, false)}, "own:3"},
		"the account's is over":    {[]part{of(nil, 1, true), of(s, 2, false)}, "own:1 own:2"},
		"it is over":               {[]part{of(nil, 1, false), of(s, 2, true)}, "own:1 s:2"},
		"nothing of the session's": {[]part{of(nil, 1, false), of(other, 2, false)}, "own:1 other:2"},
	} {
		var got []string
		for _, p := range adopt(slices.Clone(c.parts), s, policy) {
			name := "own"
			if p.from != nil {
				name = p.from.id
			}
			got = append(got, fmt.Sprint(name, ":", p.count[ClassImportant]))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
	parts := []part{of(other, 1, false), of(s, 2, true), of(s, 3, false), of(nil, 4, false)}
	if p := partOf(parts, s); p != &parts[2] {
		t.Errorf("the session's part is %+v", p)
	}
	if p := partOf(parts, &session{}); p != nil {
		t.Errorf("the part of a session that has none is %+v", p)
	}
	if counting(parts) != nil {
		t.Error("a part that counts nothing is to tell the count")
	}
}

// TestBackoffDoubles: the wait before a try is between half of the doubled shortest wait and all of it, in whole milliseconds, however large the numbers are.
func TestBackoffDoubles(t *testing.T) {
	const longest = time.Duration(math.MaxInt64)
	for _, p := range []Policy{{RetryMin: 1, RetryMax: longest}, {RetryMin: 10, RetryMax: longest}, {RetryMin: 5 * time.Second, RetryMax: 5 * time.Minute}, {RetryMin: 3 * time.Second, RetryMax: longest}, {RetryMin: 1 << 62, RetryMax: longest}, {RetryMin: time.Hour, RetryMax: time.Hour}} {
		for n := range 80 {
			want := p.RetryMax
			if doubled := new(big.Int).Lsh(big.NewInt(int64(p.RetryMin)), uint(max(n, 1)-1)); doubled.Cmp(big.NewInt(int64(want))) < 0 {
				want = time.Duration(doubled.Int64())
			}
			for node := range 20 {
				got := p.backoff("juliet@example.com", Key{"push.example.net", fmt.Sprint(node)}, n)
				whole := got < time.Millisecond || got%time.Millisecond == 0
				if least := want / 2; got > want || got == want && least > 0 || got < least && got != least.Truncate(time.Millisecond) || !whole {
					t.Fatalf("%v to %v: try %d of %d waits %v, which is not between %v and %v", p.RetryMin, p.RetryMax, n, node, got, want/2, want)
				}
			}
		}
	}
}

// TestPacerRewinds: after a clock was set back nothing waits for a time that may be years ahead; what is not later than now is as it was.
func TestPacerRewinds(t *testing.T) {
	policy := (&Policy{MinInterval: time.Second, RetryMax: time.Minute}).resolve()
	now := time.Unix(1000, 0)
	at := func(after time.Duration) instant { return toInstant(now.Add(after)) }
	p := pacer{due: at(time.Hour), spaced: at(time.Hour), retryAt: at(time.Hour), waiting: []part{
		{at: [ClassUrgent + 1]instant{ClassPlain: at(-time.Second), ClassImportant: at(time.Hour)}, text: &text{at: at(time.Hour)}},
		{at: [ClassUrgent + 1]instant{ClassUrgent: at(-time.Minute)}, text: &text{at: at(-time.Minute)}},
		{},
	}}
	p.rewind(now, policy)
	if want := [ClassUrgent + 1]instant{ClassPlain: at(-time.Second), ClassImportant: at(0)}; p.waiting[0].at != want || p.waiting[0].text.at != at(0) {
		t.Errorf("the first is of %v, its text of %v", p.waiting[0].at, p.waiting[0].text.at)
	}
	if want := [ClassUrgent + 1]instant{ClassUrgent: at(-time.Minute)}; p.waiting[1].at != want || p.waiting[1].text.at != at(-time.Minute) {
		t.Errorf("the second is of %v, its text of %v", p.waiting[1].at, p.waiting[1].text.at)
	}
	if p.due != at(0) || p.spaced != at(time.Second) || p.retryAt != at(0) {
		t.Errorf("due in %v, spaced by %v, tried again in %v", p.due-at(0), p.spaced-at(0), p.retryAt-at(0))
	}
	p = pacer{due: at(time.Second), spaced: at(time.Millisecond), retryAt: at(time.Second), waiting: []part{{at: [ClassUrgent + 1]instant{ClassPlain: at(0)}}}}
	if p.rewind(now, policy); p.due != at(time.Second) || p.spaced != at(time.Millisecond) || p.retryAt != at(time.Second) {
		t.Errorf("what was well is due in %v, spaced by %v, tried again in %v", p.due-at(0), p.spaced-at(0), p.retryAt-at(0))
	}
	p = pacer{retryAt: at(time.Hour)}
	if p.rewind(now, policy); p.retryAt != at(time.Minute) {
		t.Errorf("tried again in %v", p.retryAt-at(0))
	}
}
