package pushtest_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/pushtest"
)

// keeperFaults are mistakes that a Keeper can make, and the subtest that has to find each.
var keeperFaults = map[string]string{
	"":                         "",
	"taken when read":          "what is kept comes back",
	"text only":                "any bytes are kept, of any account",
	"names are folded":         "any bytes are kept, of any account",
	"the first stays":          "a later state replaces the one before",
	"appended":                 "a later state replaces the one before",
	"nil is a state":           "nil keeps nothing any more",
	"nil forgets all":          "nil keeps nothing any more",
	"unknown is an error":      "nil keeps nothing any more",
	"one page":                 "each account comes back once, however many there are",
	"the page's last twice":    "each account comes back once, however many there are",
	"pages by number":          "keep may be called for what was just returned",
	"locked while read":        "whoever reads may stop",
	"keeps what is given":      "what is given and returned is the caller's",
	"gives what is kept":       "what is given and returned is the caller's",
	"changes, then fails":      "a call whose context is done does all or nothing",
	"another error":            "a call whose context is done does all or nothing",
	"reads, then writes":       "simultaneous calls",
	"survives its account":     "an account that is removed loses what is kept of it",
	"goes with a registration": "an account that is removed loses what is kept of it",
}

func TestKeeperFindsFaults(t *testing.T) {
	for fault, subtest := range keeperFaults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			c := exec.Command(os.Args[0], "-test.run=^TestFaultyKeeper$", "-test.timeout=20s")
			c.Env = append(os.Environ(), "PUSHTEST_FAULT="+fault+".")
			out, err := c.CombinedOutput()
			switch {
			case fault == "" && err != nil:
				t.Errorf("a keeper without a fault fails: %v\n%s", err, out)
			case fault != "" && err == nil:
				t.Error("the suite does not find it")
			case fault != "" && !strings.Contains(string(out), "--- FAIL: TestFaultyKeeper/"+strings.ReplaceAll(subtest, " ", "_")):
				t.Errorf("the subtest %q does not find it:\n%s", subtest, out)
			}
		})
	}
}

// TestFaultyKeeper is what TestKeeperFindsFaults runs.
func TestFaultyKeeper(t *testing.T) {
	fault, ok := strings.CutSuffix(os.Getenv("PUSHTEST_FAULT"), ".")
	if !ok {
		t.Skip("TestKeeperFindsFaults runs it")
	}
	pushtest.Keeper(t, func(*testing.T) push.Keeper {
		return &faultyKeeper{Store: push.NewMemoryStore(), fault: fault, states: map[string][]byte{}}
	})
}

// faultyKeeper is a plain keeper with a fault.
type faultyKeeper struct {
	push.Store
	fault   string
	mu      sync.Mutex
	states  map[string][]byte
	readers int
}

func (k *faultyKeeper) is(fault string) bool { return k.fault == fault }

func (k *faultyKeeper) Keep(ctx context.Context, account string, state []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		switch {
		case k.is("another error"):
			return errors.New("the context is done")
		case !k.is("changes, then fails"):
			return ctx.Err()
		}
	}
	if k.is("names are folded") {
		account = strings.ToLower(account)
	}
	if k.is("reads, then writes") {
		all := maps.Clone(k.states)
		k.mu.Unlock()
		for range 10 {
			runtime.Gosched()
		}
		k.mu.Lock()
		defer func() {
			if delete(all, account); k.states[account] != nil {
				all[account] = k.states[account]
			}
			k.states = all
		}()
	}
	_, ok := k.states[account]
	switch {
	case state == nil && !ok && k.is("unknown is an error"):
		return errors.New("unknown account")
	case state == nil && k.is("nil forgets all"):
		clear(k.states)
	case state == nil && !k.is("nil is a state"):
		delete(k.states, account)
	case ok && k.is("the first stays"):
	case ok && k.is("appended"):
		k.states[account] = append(k.states[account], state...)
	case k.is("keeps what is given"):
		k.states[account] = state
	case k.is("text only"):
		k.states[account] = []byte(strings.ToValidUTF8(string(state), "?"))
	default:
		k.states[account] = append([]byte{}, state...)
	}
	return ctx.Err()
}

func (k *faultyKeeper) Kept(ctx context.Context) iter.Seq2[push.Kept, error] {
	return func(yield func(push.Kept, error) bool) {
		if ctx.Err() != nil {
			yield(push.Kept{}, ctx.Err())
			return
		}
		k.mu.Lock()
		if k.readers++; k.is("locked while read") && k.readers > 20 {
			k.mu.Unlock()
			yield(push.Kept{}, errors.New("too many readers"))
			return
		}
		all := maps.Clone(k.states)
		if !k.is("gives what is kept") {
			for a, s := range all {
				all[a] = bytes.Clone(s)
			}
		}
		if k.is("taken when read") {
			clear(k.states)
		}
		k.mu.Unlock()
		names := slices.Sorted(maps.Keys(all))
		for i := 0; i < len(names); i++ {
			if i == 64 && k.is("one page") {
				return
			}
			if i == 64 && k.is("the page's last twice") && !yield(push.Kept{Account: names[i-1], State: all[names[i-1]]}, nil) {
				return
			}
			if i > 0 && i%64 == 0 && k.is("pages by number") {
				k.mu.Lock()
				names = slices.Sorted(maps.Keys(k.states))
				k.mu.Unlock()
				if i >= len(names) {
					return
				}
			}
			if !yield(push.Kept{Account: names[i], State: all[names[i]]}, nil) {
				return
			}
		}
		k.mu.Lock()
		k.readers--
		k.mu.Unlock()
	}
}

func (k *faultyKeeper) Remove(ctx context.Context, account string, key push.Key) ([]push.Key, error) {
	if key.Service == "" && !k.is("survives its account") || k.is("goes with a registration") {
		if err := k.Keep(ctx, account, nil); err != nil {
			return nil, err
		}
	}
	return k.Store.Remove(ctx, account, key)
}
