package pushtest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/pushtest"
)

// faults are mistakes that a store can make, and the subtest that has to find each.
var faults = map[string]string{
	"":                           "",
	"unknown is an error":        "an unknown account has no registrations",
	"client is dropped":          "enable stores the registration whole",
	"no form is empty":           "options are kept verbatim",
	"empty values are lost":      "options are kept verbatim",
	"fields are sorted":          "options are kept verbatim",
	"health is kept":             "enable stores what Enroll says",
	"health is lost":             "enable stores what Enroll says",
	"the time is always new":     "enable stores what Enroll says",
	"all is always new":          "enable stores what Enroll says",
	"turns are not told apart":   "enables in turn at the limit are told apart",
	"tells what is after":        "enable says what was there before",
	"tells nothing if unchanged": "enable says what was there before",
	"wishes are dropped":         "wishes are kept whole",
	"no node is any node":        "remove takes one, a service or the account",
	"node is ignored":            "services and nodes are told apart",
	"names are folded":           "accounts are told apart",
	"seconds only":               "the limit evicts the one enabled longest ago",
	"limit is one too many":      "the limit evicts the one enabled longest ago",
	"tombstones stay":            "the limit evicts tombstones first",
	"the new one stays":          "the limit can evict several, and the new one",
	"zero is a limit":            "a limit below 1 is none",
	"counters are set":           "update adds to the counters",
	"failing is the last":        "update adds to the counters",
	"failing is dropped":         "update adds to the counters",
	"success keeps failing":      "success resets and revives",
	"success keeps errors":       "success resets and revives",
	"removes the service":        "remove takes one, a service or the account",
	"removes what looks like it": "remove takes one, a service or the account",
	"no node is a node":          "remove takes one, a service or the account",
	"no service is none":         "remove takes one, a service or the account",
	"tombstones are not removed": "remove takes one, a service or the account",
	"removed is not told":        "remove takes one, a service or the account",
	"unknown is not removed":     "remove of what is not there is no error",
	"lists, then removes":        "simultaneous enables and removes leave nothing behind",
	"unknown is no error":        "update of what is not there says so",
	"keeps what is given":        "what is given stays the caller's",
	"tells with what is kept":    "what is returned is the caller's",
	"gives what is kept":         "what is returned is the caller's",
	"changes, then fails":        "a call whose context is done does all or nothing",
	"reads, then writes":         "simultaneous updates add up",
	"evicts outside":             "simultaneous enables keep the limit and lose none",
}

func TestStoreFindsFaults(t *testing.T) {
	for fault, subtest := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			c := exec.Command(os.Args[0], "-test.run=^TestFaultyStore$")
			c.Env = append(os.Environ(), "PUSHTEST_FAULT="+fault+".")
			out, err := c.CombinedOutput()
			switch {
			case fault == "" && err != nil:
				t.Errorf("a store without a fault fails: %v\n%s", err, out)
			case fault != "" && err == nil:
				t.Error("the suite does not find it")
			case fault != "" && !strings.Contains(string(out), "--- FAIL: TestFaultyStore/"+strings.ReplaceAll(subtest, " ", "_")):
				t.Errorf("the subtest %q does not find it:\n%s", subtest, out)
			}
		})
	}
}

// TestFaultyStore is what TestStoreFindsFaults runs.
func TestFaultyStore(t *testing.T) {
	fault, ok := strings.CutSuffix(os.Getenv("PUSHTEST_FAULT"), ".")
	if !ok {
		t.Skip("TestStoreFindsFaults runs it")
	}
	pushtest.Store(t, func(t *testing.T) push.Store {
		return &faulty{fault: fault, accounts: map[string][]push.Registration{}}
	})
}

// faulty is a plain store with a fault.
type faulty struct {
	fault    string
	mu       sync.Mutex
	accounts map[string][]push.Registration
}

func (s *faulty) is(fault string) bool { return s.fault == fault }

func (s *faulty) name(account string) string {
	if s.is("names are folded") {
		return strings.ToLower(account)
	}
	return account
}

// pause is where another call may come in between.
func (s *faulty) pause() {
	s.mu.Unlock()
	for range 10 {
		runtime.Gosched()
	}
	s.mu.Lock()
}

func clone(rs []push.Registration) []push.Registration {
	rs = slices.Clone(rs)
	for i := range rs {
		rs[i].Options = slices.Clone(rs[i].Options)
		for j := range rs[i].Options {
			rs[i].Options[j].Values = slices.Clone(rs[i].Options[j].Values)
		}
	}
	return rs
}

func (s *faulty) List(_ context.Context, account string) ([]push.Registration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rs, ok := s.accounts[s.name(account)]
	if !ok && s.is("unknown is an error") {
		return nil, errors.New("no such account")
	}
	if s.is("gives what is kept") {
		return rs, nil
	}
	return clone(rs), nil
}

func (s *faulty) index(rs []push.Registration, k push.Key) int {
	return slices.IndexFunc(rs, func(r push.Registration) bool {
		return r.Key == k || s.is("node is ignored") && r.Service == k.Service
	})
}

func (s *faulty) Enable(ctx context.Context, r push.Registration, limit int) ([]push.Registration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r = s.spoiled(r)
	before := clone(s.accounts[s.name(r.Account)])
	rs := clone(before)
	unchanged := false
	if i := s.index(rs, r.Key); i >= 0 {
		old := rs[i]
		var write bool
		rs[i], write, _ = push.Enroll(before, r, limit)
		unchanged = !write
		if s.is("turns are not told apart") {
			rs[i], _, _ = push.Enroll([]push.Registration{old}, r, 0)
		}
		switch {
		case s.is("health is kept"):
			rs[i].Health = old.Health
		case s.is("health is lost"):
			rs[i].Health = r.Health
		case s.is("the time is always new"):
			rs[i].Enabled = r.Enabled
		case s.is("all is always new"):
			rs[i] = r
		}
	} else {
		rs = append(rs, r)
	}
	s.accounts[s.name(r.Account)] = rs
	if s.is("evicts outside") {
		s.pause()
		rs = clone(s.accounts[s.name(r.Account)])
	}
	evicted := push.Evict(s.judged(rs), s.limit(limit))
	if s.is("the new one stays") {
		evicted = slices.DeleteFunc(evicted, func(k push.Key) bool { return k == r.Key })
	}
	if s.is("evicts outside") {
		s.pause()
	}
	s.accounts[s.name(r.Account)] = slices.DeleteFunc(rs, func(o push.Registration) bool { return slices.Contains(evicted, o.Key) })
	switch {
	case s.is("tells nothing if unchanged") && unchanged:
		return nil, nil
	case s.is("tells what is after"):
		return clone(s.accounts[s.name(r.Account)]), nil
	case s.is("changes, then fails") && ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if s.is("tells with what is kept") {
		return before, nil
	}
	return clone(before), nil
}

func (s *faulty) Remove(_ context.Context, account string, k push.Key) (removed []push.Key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	account = s.name(account)
	rs := clone(s.accounts[account])
	if s.is("lists, then removes") {
		s.pause()
	}
	left := slices.DeleteFunc(clone(rs), func(r push.Registration) bool {
		named := k.Names(r.Key)
		switch {
		case s.is("no node is any node"):
			named = k.Service == "" || r.Service == k.Service && (k.Node == "" || r.Node == k.Node)
		case s.is("no node is a node"):
			named = k.Service == "" || r.Key == k
		case s.is("no service is none"):
			named = named && k.Service != ""
		case s.is("removes the service"):
			named = k.Service == "" || r.Service == k.Service
		case s.is("removes what looks like it"):
			named = k.Service == "" || strings.EqualFold(r.Service, k.Service) && (k.Node == "" || r.Node == k.Node)
		case s.is("tombstones are not removed"):
			named = named && r.Health.Disabled.IsZero()
		}
		if named {
			removed = append(removed, r.Key)
		}
		return named
	})
	s.accounts[account] = left
	if s.is("unknown is not removed") && len(removed) == 0 {
		return nil, push.ErrNotRegistered
	}
	if s.is("removed is not told") {
		return nil, nil
	}
	return removed, nil
}

// spoiled is what is kept of a registration.
func (s *faulty) spoiled(r push.Registration) push.Registration {
	if !s.is("keeps what is given") {
		r = clone([]push.Registration{r})[0]
	}
	switch s.fault {
	case "client is dropped":
		r.Client = ""
	case "wishes are dropped":
		r.Wishes = nil
	case "no form is empty":
		r.Options = append([]push.Field{}, r.Options...)
	case "empty values are lost":
		for i := range r.Options {
			r.Options[i].Values = slices.DeleteFunc(r.Options[i].Values, func(v string) bool { return v == "" })
		}
	case "fields are sorted":
		slices.SortFunc(r.Options, func(a, b push.Field) int { return strings.Compare(a.Var, b.Var) })
	case "seconds only":
		r.Enabled = r.Enabled.Truncate(time.Second)
	}
	return r
}

func (s *faulty) limit(limit int) int {
	switch {
	case s.is("limit is one too many") && limit > 0:
		return limit + 1
	case s.is("zero is a limit") && limit < 1:
		return 1
	}
	return limit
}

// judged is what Evict is shown.
func (s *faulty) judged(rs []push.Registration) []push.Registration {
	rs = clone(rs)
	if s.is("tombstones stay") {
		for i := range rs {
			rs[i].Health.Disabled = time.Time{}
		}
	}
	return rs
}

func (s *faulty) Update(_ context.Context, account string, k push.Key, u push.Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	account = s.name(account)
	rs := clone(s.accounts[account])
	i := s.index(rs, k)
	if s.is("reads, then writes") {
		s.pause()
	}
	switch {
	case i < 0 && s.is("unknown is no error"):
		return nil
	case i < 0:
		return push.ErrNotRegistered
	case s.is("counters are set") && u.Errors+u.Refusals > 0:
		rs[i].Health.Errors, rs[i].Health.Refusals = u.Errors, u.Refusals
	case s.is("failing is the last") && !u.Failing.IsZero():
		rs[i].Health = u.Apply(rs[i].Health)
		rs[i].Health.Failing = u.Failing
	case s.is("failing is dropped"):
		u.Failing = time.Time{}
		rs[i].Health = u.Apply(rs[i].Health)
	case s.is("success keeps failing") && !u.Succeeded.IsZero():
		failing := rs[i].Health.Failing
		rs[i].Health = u.Apply(rs[i].Health)
		rs[i].Health.Failing = failing
	case s.is("success keeps errors") && !u.Succeeded.IsZero():
		rs[i].Health.Succeeded, rs[i].Health.Disabled, rs[i].Health.Cause = u.Succeeded, time.Time{}, ""
	default:
		rs[i].Health = u.Apply(rs[i].Health)
	}
	s.accounts[account] = rs
	return nil
}
