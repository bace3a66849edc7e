package pushtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/xmpp-push/push"
)

// Keeper tests a push.Keeper against its contract, a subtest for each sentence of it. open is as for Store; what was kept of other accounts may be there
// already. If the Keeper is a push.Store as well, it is tested for what Remove has to do with it.
func Keeper(t *testing.T, open func(t *testing.T) push.Keeper) {
	for _, c := range []struct {
		name string
		test func(k *keeperTest)
	}{
		{"what is kept comes back", keptComesBack},
		{"any bytes are kept, of any account", keptVerbatim},
		{"a later state replaces the one before", keptReplaced},
		{"nil keeps nothing any more", keptForgotten},
		{"each account comes back once, however many there are", keptMany},
		{"keep may be called for what was just returned", keptMeanwhile},
		{"whoever reads may stop", keptStopped},
		{"what is given and returned is the caller's", keptCallers},
		{"a call whose context is done does all or nothing", keptContextDone},
		{"simultaneous calls", keptTogether},
		{"an account that is removed loses what is kept of it", keptRemoved},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(&keeperTest{T: t, Keeper: open(t), suffix: fmt.Sprintf("-%x@example.com", rand.Uint64())})
		})
	}
}

// keeperTest is one subtest.
type keeperTest struct {
	*testing.T
	push.Keeper
	suffix string
}

func (t *keeperTest) account(name string) string { return name + t.suffix }

func (t *keeperTest) keep(name string, state []byte) {
	t.Helper()
	if err := t.Keep(context.Background(), t.account(name), state); err != nil {
		t.Fatalf("Keep(%q, %d bytes): %v", t.account(name), len(state), err)
	}
}

// kept returns what is kept of the subtest's accounts, by their names.
func (t *keeperTest) kept() map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for k, err := range t.Kept(context.Background()) {
		if err != nil {
			t.Fatalf("Kept: %v", err)
		}
		name, ok := bytes.CutSuffix([]byte(k.Account), []byte(t.suffix))
		if !ok {
			continue
		}
		if _, twice := all[string(name)]; twice {
			t.Errorf("Kept returns %q twice", k.Account)
		}
		all[string(name)] = k.State
	}
	return all
}

func (t *keeperTest) want(want map[string][]byte) {
	t.Helper()
	got := t.kept()
	for name, state := range want {
		if s, ok := got[name]; !ok {
			t.Errorf("nothing is kept of %q", name)
		} else if !bytes.Equal(s, state) {
			t.Errorf("of %q are kept %d bytes %.40q, want %d bytes %.40q", name, len(s), s, len(state), state)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("something is kept of %q", name)
		}
	}
}

func keptComesBack(t *keeperTest) {
	t.want(nil)
	t.keep("romeo", []byte("state"))
	for range 2 { // reading takes nothing away
		t.want(map[string][]byte{"romeo": []byte("state")})
	}
}

func keptVerbatim(t *keeperTest) {
	large := make([]byte, 256<<10)
	for i := range large {
		large[i] = byte(i * 7 >> 3)
	}
	want := map[string][]byte{
		"zeros":     make([]byte, 100),
		"no text":   {0xff, 0xfe, 0, 1, 0xc3, 0x28},
		"quotes":    []byte(`'"\\x00`),
		"large":     large,
		"UPPER":     []byte("1"),
		"upper":     []byte("2"),
		"o'brien %": []byte("3"),
		"用户":        []byte("4"),
	}
	for name, state := range want {
		t.keep(name, bytes.Clone(state))
	}
	t.want(want)
}

func keptReplaced(t *keeperTest) {
	t.keep("romeo", []byte("a long first state"))
	t.keep("juliet", []byte("hers"))
	t.keep("romeo", []byte("second"))
	t.want(map[string][]byte{"romeo": []byte("second"), "juliet": []byte("hers")})
}

func keptForgotten(t *keeperTest) {
	t.keep("nobody", nil)
	t.keep("romeo", []byte("state"))
	t.keep("juliet", []byte("hers"))
	t.keep("romeo", nil)
	t.want(map[string][]byte{"juliet": []byte("hers")})
	t.keep("romeo", nil)
	t.keep("romeo", []byte("again"))
	t.want(map[string][]byte{"romeo": []byte("again"), "juliet": []byte("hers")})
}

func keptMany(t *keeperTest) {
	want := map[string][]byte{}
	for i := range 300 {
		name := fmt.Sprint("user", i)
		want[name] = []byte(name)
		t.keep(name, []byte(name))
	}
	t.want(want)
}

func keptMeanwhile(t *keeperTest) {
	const n = 200
	for i := range n {
		t.keep(fmt.Sprint("user", i), []byte("old"))
	}
	seen, want := 0, map[string][]byte{}
	for k, err := range t.Kept(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		name, ok := bytes.CutSuffix([]byte(k.Account), []byte(t.suffix))
		if !ok {
			continue
		}
		state := []byte(nil)
		if seen++; seen%2 == 0 {
			state = []byte("new")
			want[string(name)] = state
		}
		t.keep(string(name), state)
	}
	if seen != n {
		t.Errorf("%d accounts came back, want %d", seen, n)
	}
	t.want(want)
}

func keptStopped(t *keeperTest) {
	for i := range 3 {
		t.keep(fmt.Sprint("user", i), []byte("state"))
	}
	for range 50 { // a Keeper that keeps a connection for each would run out of them
		for _, err := range t.Kept(context.Background()) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	t.keep("user0", nil)
	t.want(map[string][]byte{"user1": []byte("state"), "user2": []byte("state")})
}

func keptCallers(t *keeperTest) {
	given := []byte("state")
	t.keep("romeo", given)
	copy(given, "spoil")
	for _, state := range t.kept() {
		copy(state, "SPOIL")
	}
	t.want(map[string][]byte{"romeo": []byte("state")})
}

func keptContextDone(t *keeperTest) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	t.keep("romeo", []byte("old"))
	want := map[string][]byte{"romeo": []byte("old")}
	for _, state := range [][]byte{[]byte("new"), nil} {
		if err := t.Keep(done, t.account("romeo"), state); err == nil {
			if want["romeo"] = state; state == nil {
				delete(want, "romeo")
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("Keep: %v does not wrap context.Canceled", err)
		}
		t.want(want)
	}
	for k, err := range t.Kept(done) {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Kept: %v does not wrap context.Canceled", err)
		}
		if err == nil && k.Account == t.account("romeo") && !bytes.Equal(k.State, want["romeo"]) {
			t.Errorf("Kept returned %.40q", k.State)
		}
	}
}

func keptTogether(t *keeperTest) {
	const goroutines, each = 8, 20
	want := map[string][]byte{}
	for g := range goroutines {
		want[fmt.Sprint("user", g)] = fmt.Append(nil, g, "-", each-1)
	}
	atOnce(goroutines, func(g int) {
		for i := range each {
			if err := t.Keep(context.Background(), t.account(fmt.Sprint("user", g)), fmt.Append(nil, g, "-", i)); err != nil {
				t.Errorf("Keep: %v", err)
			}
			for _, err := range t.Kept(context.Background()) {
				if err != nil {
					t.Errorf("Kept: %v", err)
				}
				break
			}
		}
	})
	t.want(want)
}

func keptRemoved(t *keeperTest) {
	s, ok := t.Keeper.(push.Store)
	if !ok {
		t.Skip("it is no push.Store")
	}
	for _, name := range []string{"romeo", "juliet", "nurse"} {
		t.keep(name, []byte("state"))
	}
	r := push.Registration{Account: t.account("romeo"), Key: push.Key{Service: "push.example.net", Node: "n1"}, Enabled: start}
	if _, err := s.Enable(context.Background(), r, 5); err != nil {
		t.Fatal(err)
	}
	for _, k := range []push.Key{r.Key, {Service: r.Service}} {
		if _, err := s.Remove(context.Background(), r.Account, k); err != nil {
			t.Fatal(err)
		}
	}
	t.want(map[string][]byte{"romeo": []byte("state"), "juliet": []byte("state"), "nurse": []byte("state")})
	for _, name := range []string{"romeo", "nurse"} { // who has no registration any more, or never had one
		if _, err := s.Remove(context.Background(), t.account(name), push.Key{}); err != nil {
			t.Fatal(err)
		}
	}
	t.want(map[string][]byte{"juliet": []byte("state")})
}
