package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/trace"
)

// Nodes come and go under load: nothing is lost, and nothing is published twice.
func TestJoinAndLeave(t *testing.T) {
	t.Parallel()
	svc := newService()
	srv := start(t, embedded.Config{})
	// A lease that is long enough for a busy machine: a node that is taken for dead is a test of its own.
	quick := func(c *jetstream.Config) { c.Push.Policy.MinInterval, c.Lease = -1, 6*time.Second }
	nodes := []*jetstream.Node{join(t, srv, "n0", svc, quick), join(t, srv, "n1", svc, quick)}
	var mu sync.RWMutex
	pick := func(i int) *jetstream.Node {
		mu.RLock()
		defer mu.RUnlock()
		return nodes[i%len(nodes)]
	}
	const accounts = 40
	for i := range accounts {
		handle(t, pick(i), push.PushEnable{Session: push.SessionID{Account: userAccount(i)}, Key: phone})
	}
	stop := make(chan struct{})
	var accepted [accounts]atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				i := r.IntN(accounts)
				ev := push.ArchiveAdded{Account: userAccount(i), Stanza: push.Stanza{ID: fmt.Sprint(g, "-", n), To: userAccount(i), Class: push.ClassImportant}}
				for {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					d, err := pick(r.IntN(100)).Handle(ctx, ev)
					cancel()
					if errors.Is(err, push.ErrClosed) {
						continue // it leaves just now
					}
					if assert.NoError(t, err) && assert.Zero(t, d.Reason) {
						accepted[i].Add(1)
					}
					break
				}
			}
		})
	}
	rounds := 2
	if os.Getenv("PUSH_TEST_FULL") == "1" {
		rounds = 15
	}
	for round := range rounds {
		n := join(t, srv, fmt.Sprint("x", round), svc, quick)
		mu.Lock()
		nodes = append(nodes, n)
		mu.Unlock()
		time.Sleep(4 * time.Second)
		mu.Lock()
		leaving := nodes[0]
		nodes = nodes[1:]
		mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		require.NoError(t, leaving.Close(ctx))
		cancel()
	}
	close(stop)
	wg.Wait()
	told := func() map[string]int {
		svc.mu.Lock()
		defer svc.mu.Unlock()
		m := make(map[string]int)
		for _, n := range svc.notes {
			m[n.Account] += n.Count
		}
		return m
	}
	sum := 0
	require.Eventually(t, func() bool {
		m := told()
		sum = 0
		for i := range accounts {
			sum += int(accepted[i].Load())
			if m[userAccount(i)] < int(accepted[i].Load()) {
				return false
			}
		}
		return true
	}, 20*time.Second, 50*time.Millisecond, "lost")
	time.Sleep(time.Second)
	m := told()
	for i := range accounts {
		assert.EqualValues(t, accepted[i].Load(), m[userAccount(i)], userAccount(i))
	}
	t.Logf("%d nodes came and %d went; %d events accepted, %d publishes, each stanza once", rounds, rounds, sum, svc.count())
}

// verdicts collects who is notified of what, whoever decides it.
type verdicts struct {
	mu   sync.Mutex
	list []string
}

func (v *verdicts) observer() *push.Observer {
	return &push.Observer{Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, x := range d.Verdicts {
			if x.Notify {
				v.list = append(v.list, fmt.Sprint(d.Account, " ", x.Service, "/", x.Node, " ", x.Class, " ", x.Rule, " ", x.Stanzas, " by ", ev.Name()))
			}
		}
		for _, c := range d.Changes {
			v.list = append(v.list, fmt.Sprint(d.Account, " ", c.Service, "/", c.Node, " ", c.Kind, " ", c.Reason))
		}
	}}
}

func (v *verdicts) sorted() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(slices.Values(v.list))
}

// The same events, through one Engine and through three nodes at random, whose partitions move meanwhile: the same stanzas to the same registrations in the same classes, for the same
// reasons. (What a resumption can still drop depends on how fast the publishes go out, and is not compared.)
func TestDifferential(t *testing.T) {
	t.Parallel()
	traces := map[string][]push.Event{"the recording of Prosody": recording(t), "random 1": randomEvents(1, 1500), "random 2": randomEvents(2, 1500)}
	for name, events := range traces {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := push.Policy{MinInterval: -1}
			var one, three verdicts
			svc := newService()
			e, err := push.New(push.Config{Host: "example.com", Publisher: svc, Policy: policy, Observer: one.observer()})
			require.NoError(t, err)
			for _, ev := range events {
				_, err := e.Handle(t.Context(), ev)
				require.NoError(t, err)
			}
			srv := start(t, embedded.Config{})
			svc3 := newService()
			var nodes []*jetstream.Node
			for i := range 3 {
				nodes = append(nodes, join(t, srv, fmt.Sprint("n", i), svc3, func(c *jetstream.Config) {
					c.Push.Policy, c.Push.Observer, c.Wait, c.Lease = policy, three.observer(), true, 10*time.Second
				}))
			}
			r := rand.New(rand.NewPCG(7, 7))
			home := make(map[push.SessionID]int) // a session is at one node; it may be resumed at another
			for _, ev := range events {
				n := r.IntN(3)
				if id := ev.Subject(); id.ID != "" {
					if _, resumed := ev.(push.HibernationEnd); !resumed {
						if at, ok := home[id]; ok {
							n = at
						}
					}
					home[id] = n
				}
				handle(t, nodes[n], ev)
			}
			want, got := one.sorted(), three.sorted()
			require.Equal(t, want, got)
			kept := int64(0)
			for _, n := range nodes {
				kept += n.Status().Kept
			}
			t.Logf("%d events, %d of them did not leave their node, %d verdicts and changes, all alike", len(events), kept, len(want))
			assert.NotEmpty(t, want)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = e.Close(ctx)
		})
	}
}

func recording(t *testing.T) []push.Event {
	data, err := os.ReadFile("../../testdata/traces/prosody-0.12.3.jsonl")
	require.NoError(t, err)
	r := trace.NewReader(strings.NewReader(string(data)))
	var list []push.Event
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		require.NoError(t, err)
		if rec.Event != nil {
			list = append(list, rec.Event)
		}
	}
}

// randomEvents is a life of some accounts with phones.
func randomEvents(seed uint64, n int) []push.Event {
	r := rand.New(rand.NewPCG(seed, 3))
	type device struct {
		id                push.SessionID
		key               push.Key
		open, hibernating bool
		number            int
	}
	var devices []*device
	for a := range 12 {
		for d := range 2 {
			devices = append(devices, &device{id: push.SessionID{Account: userAccount(a)}, key: push.Key{Service: "push.example.net", Node: fmt.Sprint("n", a, "-", d)}})
		}
	}
	var list []push.Event
	stanza := func(account string) push.Stanza {
		return push.Stanza{ID: fmt.Sprint("m", len(list)), From: "romeo@example.net/x", To: account, Class: push.Class(r.IntN(3))}
	}
	for len(list) < n {
		d := devices[r.IntN(len(devices))]
		switch k := r.IntN(20); {
		case k < 3 && !d.open:
			d.number++
			d.open, d.hibernating = true, false
			d.id.ID = fmt.Sprint(d.key.Node, "s", d.number)
			list = append(list, push.SessionOpen{Session: d.id, JID: d.id.Account + "/" + d.key.Node})
			if r.IntN(4) > 0 {
				list = append(list, push.PushEnable{Session: d.id, Key: d.key})
			}
		case k < 5 && d.open && !d.hibernating:
			d.hibernating = true
			list = append(list, push.HibernationStart{Session: d.id, Stanzas: []push.Stanza{stanza(d.id.Account)}})
		case k < 7 && d.hibernating:
			d.hibernating = false
			list = append(list, push.HibernationEnd{Session: d.id})
		case k < 8 && d.open:
			d.open, d.hibernating = false, false
			list = append(list, push.SessionClose{Session: d.id})
		case k < 9 && d.open && !d.hibernating:
			list = append(list, push.AckDelayed{Session: d.id, Stanzas: []push.Stanza{stanza(d.id.Account)}})
		case k == 9 && r.IntN(10) == 0:
			list = append(list, push.PushDisable{Session: push.SessionID{Account: d.id.Account}, Key: d.key})
		case k == 10:
			list = append(list, push.Offline{Account: d.id.Account, Stanza: stanza(d.id.Account)})
		default:
			st := stanza(d.id.Account)
			list = append(list, push.ArchiveAdded{Account: d.id.Account, Stanza: st})
			if d.hibernating {
				list = append(list, push.StanzaQueued{Session: d.id, Stanza: st})
			}
		}
	}
	return list
}

// Advice reaches the node that has the session, wherever its account is decided for.
func TestAdvice(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Config{})
	svc := newService()
	type advice struct {
		node    string
		session push.SessionID
		timeout time.Duration
	}
	got := make(chan advice, 100)
	var nodes []*jetstream.Node
	for i := range 3 {
		name := fmt.Sprint("n", i)
		nodes = append(nodes, join(t, srv, name, svc, func(c *jetstream.Config) {
			c.Lease = 6 * time.Second
			c.Push.Resumption = resumption(func(s push.SessionID, d time.Duration) { got <- advice{name, s, d} })
		}))
	}
	for i := range 12 {
		id := push.SessionID{Account: userAccount(i), ID: "s1"}
		n := i % 3
		handle(t, nodes[n], push.SessionOpen{Session: id, JID: id.Account + "/x"})
		handle(t, nodes[n], push.PushEnable{Session: id, Key: phone})
		handle(t, nodes[n], push.HibernationStart{Session: id})
		select {
		case a := <-got:
			assert.Equal(t, advice{fmt.Sprint("n", n), id, 72 * time.Hour}, a)
		case <-time.After(10 * time.Second):
			require.FailNow(t, "no advice")
		}
	}
}

type resumption func(push.SessionID, time.Duration)

func (f resumption) ResumeTimeout(s push.SessionID, d time.Duration, _ push.Reason) { f(s, d) }
