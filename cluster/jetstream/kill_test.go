package jetstream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// load sends messages to phones without a session from several goroutines, at random processes, until stopped.
type load struct {
	f        *fleet
	accounts []string
	mu       sync.Mutex
	accepted map[string]int
	n        atomic.Int64
	stop     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
}

func userAccount(i int) string { return fmt.Sprintf("user%d@example.com", i) }

// register gives accounts a registration each, and no session.
func (f *fleet) register(accounts []string) {
	sem := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for i, a := range accounts {
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			f.must(i, push.PushEnable{Session: push.SessionID{Account: a}, Key: push.Key{Service: "push.example.net", Node: "n1"}})
		})
	}
	wg.Wait()
}

func (f *fleet) load(accounts, goroutines int, pause time.Duration) *load {
	l := &load{f: f, accepted: make(map[string]int), stop: make(chan struct{})}
	f.t.Cleanup(l.halt)
	for i := range accounts {
		l.accounts = append(l.accounts, userAccount(i))
	}
	f.register(l.accounts)
	began := time.Now()
	for g := range goroutines {
		l.wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 7))
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(pause):
				}
				a := l.accounts[r.IntN(len(l.accounts))]
				id := fmt.Sprint("m", l.n.Add(1))
				first, at := r.IntN(len(f.procs)), time.Now()
				h := f.must(first, push.ArchiveAdded{Account: a, Stanza: push.Stanza{ID: id, From: "romeo@example.net/x", To: a, Class: push.ClassImportant}})
				if h.Decision == "no-registration" {
					f.t.Errorf("a node (n%d or later) does not know of the registration of %s; %v after the start, %v after the question", first, a, time.Since(began), time.Since(at))
				}
				l.mu.Lock()
				l.accepted[a]++
				l.mu.Unlock()
			}
		})
	}
	return l
}

// halt stops it.
func (l *load) halt() {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
}

// end stops the load and checks what came of it: nothing is lost, and twice is only what was in flight when an owner ended.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.halt()
	missing := func() (n int) {
		for a, want := range l.accepted {
			n += max(want-l.f.toldOf(a), 0)
		}
		return n
	}
	assert.Eventually(t, func() bool { return missing() == 0 }, 30*time.Second, 50*time.Millisecond)
	time.Sleep(time.Second)
	accepted, twice := 0, 0
	for a, want := range l.accepted {
		accepted += want
		twice += max(l.f.toldOf(a)-want, 0)
	}
	lost := missing()
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	slices.Sort(l.f.took)
	var worst time.Duration
	if len(l.f.took) > 0 {
		worst = l.f.took[len(l.f.took)-1]
	}
	t.Logf("events %d, accepted %d, publishes %d, stanzas twice %d (publishes sent again %d), lost %d; takeovers %d, longest %v",
		l.n.Load(), accepted, l.f.publishes, twice, l.f.resent, lost, len(l.f.took), worst)
	if lost > 0 {
		for a, want := range l.accepted {
			if got := l.f.told[a]; got < want {
				t.Logf("%s of partition %d: %d accepted, %d told", a, partition.Of(a, l.f.procs[0].cfg.Partitions), want, got)
			}
		}
		for _, p := range l.f.procs {
			st, err := p.status()
			if err != nil {
				continue
			}
			for _, ps := range st.Partitions {
				if ps.Owned || ps.Phase != "idle" || ps.Err != "" {
					t.Logf("%s %+v", p.cfg.Name, ps)
				}
			}
		}
	}
	assert.Zero(t, lost, "lost")
	if l.f.resent == 0 {
		assert.Zero(t, twice, "published twice though nothing was in flight when an owner ended")
	}
}

// kill -9 of whole processes, one after another: nothing that was accepted is lost, and a phone that was connected to the dead one rings within ten seconds.
func TestKill(t *testing.T) {
	t.Parallel() // they wait most of the time, for leases and elections
	f := newFleet(t, 3, nil, nil)
	f.start()
	f.owned(20 * time.Second)
	l := f.load(200, 4, 5*time.Millisecond)
	var times []time.Duration
	for round := range *kills {
		victim := round % len(f.procs)
		account := fmt.Sprintf("victim%d@example.com", round)
		id := push.SessionID{Account: account, ID: "s1"}
		f.must(victim, push.SessionOpen{Session: id, JID: account + "/phone"})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := f.procs[victim].handle(ctx, push.PushEnable{Session: id, Key: push.Key{Service: "push.example.net", Node: "n1"}})
		cancel()
		require.NoError(t, err)
		time.Sleep(200 * time.Millisecond)
		f.procs[victim].kill()
		at := time.Now()
		h := f.must((victim+1)%3, push.ArchiveAdded{Account: account, Stanza: push.Stanza{ID: "call", From: "romeo@example.net/x", To: account, Class: push.ClassImportant}})
		require.NotEqual(t, "no-registration", h.Decision, "a node does not know of the registration")
		require.Eventually(t, func() bool { return f.toldOf(account) > 0 }, 60*time.Second, 10*time.Millisecond, "round %d: the phone of the dead node never rings", round)
		took := time.Since(at)
		times = append(times, took)
		t.Logf("round %d: %s killed; its phone rang after %v", round, f.procs[victim].cfg.Name, took.Round(10*time.Millisecond))
		f.procs[victim].start()
		f.owned(30 * time.Second)
	}
	l.end(t)
	slices.Sort(times)
	t.Logf("kill to ring: median %v, longest %v", times[len(times)/2], times[len(times)-1])
	if os.Getenv("PUSH_TEST_FULL") == "" {
		return // how fast it is says more of the machine than of the code
	}
	assert.Less(t, times[len(times)-1], 20*time.Second) // about 10 s if the machine has nothing else to do: the servers of NATS need up to 9 to elect
}

// One machine with a file: kill -9 between a decision and its publish, and between a publish and its answer, loses nothing.
func TestKillSingle(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, func(c *childConfig) { c.Lease = time.Second }, nil)
	f.start()
	f.owned(20 * time.Second)
	f.slow.Store(int64(50 * time.Millisecond)) // so that there is always something in flight
	l := f.load(50, 4, time.Millisecond)
	for range *kills {
		time.Sleep(700 * time.Millisecond)
		f.procs[0].kill()
		f.procs[0].start()
		f.owned(20 * time.Second)
	}
	l.end(t)
}

// SIGSTOP for longer than the lease: what wakes up changes nothing that its successor has decided.
func TestStop(t *testing.T) {
	t.Parallel() // they wait most of the time, for leases and elections
	f := newFleet(t, 3, nil, nil)
	f.start()
	f.owned(20 * time.Second)
	f.slow.Store(int64(30 * time.Millisecond)) // so that there is always something in flight
	l := f.load(200, 4, 5*time.Millisecond)
	for round := range *kills {
		p := f.procs[round%3]
		p.signal(syscall.SIGSTOP)
		time.Sleep(7 * time.Second)
		p.signal(syscall.SIGCONT)
		time.Sleep(2 * time.Second)
		f.owned(30 * time.Second)
	}
	l.end(t)
}
