package push_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

var stressFor = flag.Duration("stress", 2*time.Second, "how long TestStress runs")

// faultyStore fails now and then.
type faultyStore struct {
	Store
	rate float64
}

var errFault = errors.New("injected fault")

func (s faultyStore) fault() error {
	if rand.Float64() < s.rate {
		return errFault
	}
	return nil
}

func (s faultyStore) List(ctx context.Context, account string) ([]Registration, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.Store.List(ctx, account)
}

func (s faultyStore) Remove(ctx context.Context, account string, k Key) ([]Key, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.Store.Remove(ctx, account, k)
}

func (s faultyStore) Enable(ctx context.Context, r Registration, limit int) ([]Registration, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.Store.Enable(ctx, r, limit)
}

func (s faultyStore) Update(ctx context.Context, account string, k Key, u Update) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.Store.Update(ctx, account, k, u)
}

// ledger holds what became of every stanza that a verdict said yes to.
type ledger struct {
	mu sync.Mutex
	// owed: account, key and event number to what the event contributed, until it is published or dropped.
	owed map[debt]Class
	// paid and dropped count.
	paid, dropped int
	problems      []string
}

type debt struct {
	account string
	key     Key
	event   uint64
}

func (l *ledger) observer() *Observer {
	drops := func(account string, e *Effects) {
		for _, d := range e.Drops {
			if d.Reason == ReasonNone {
				l.problems = append(l.problems, "dropped for no reason")
			}
			for _, n := range d.Events {
				if _, ok := l.owed[debt{account, d.Key, n}]; ok {
					l.dropped++
				}
				delete(l.owed, debt{account, d.Key, n})
			}
		}
	}
	return &Observer{
		Decided: func(number uint64, _ time.Time, _ Event, d *Decision, _ time.Duration) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, v := range d.Verdicts {
				if v.Notify {
					l.owed[debt{d.Account, v.Key, number}] = v.Class
				}
			}
			drops(d.Account, &d.Effects)
		},
		Affected: func(account string, _ time.Time, e *Effects) {
			l.mu.Lock()
			defer l.mu.Unlock()
			drops(account, e)
		},
		Replied: func(_ time.Time, n *Notification, reply Reply, res Result, _ time.Duration) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if res.Outcome != OutcomeAccepted {
				return
			}
			for _, number := range n.Events {
				if class, ok := l.owed[debt{n.Account, n.Key, number}]; ok {
					l.paid++
					if class > n.Class && class != ClassUrgent { // a call may have become too old for itself, but not for what came with it
						l.problems = append(l.problems, fmt.Sprintf("event %d was %v and went out as %v", number, class, n.Class))
					}
				}
				delete(l.owed, debt{n.Account, n.Key, number})
			}
		},
	}
}

// TestStress hands random events to an Engine from many goroutines while its store and its push services fail, and holds it to this: what a
// verdict said yes to is published, or dropped for a reason, or reported by Close.
func TestStress(t *testing.T) {
	l := &ledger{owed: make(map[debt]Class)}
	inFlight := sync.Map{}
	publisher := PublisherFunc(func(ctx context.Context, n *Notification) error {
		id := n.Account + n.Service + n.Node
		if _, twice := inFlight.LoadOrStore(id, true); twice {
			l.mu.Lock()
			l.problems = append(l.problems, "two publishes in flight for one registration")
			l.mu.Unlock()
		}
		defer inFlight.Delete(id)
		switch rand.IntN(20) {
		case 0:
			return errors.New("no answer")
		case 1:
			return &ReplyError{Type: "wait", Condition: "resource-constraint"}
		case 2:
			return &ReplyError{Type: "cancel", Condition: "internal-server-error"}
		case 3:
			if rand.IntN(20) == 0 {
				return &ReplyError{Type: "cancel", Condition: "item-not-found"}
			}
		case 4:
			time.Sleep(time.Duration(rand.IntN(int(2 * time.Millisecond))))
		}
		return nil
	})
	e, err := New(Config{
		Host: "example.com", Publisher: publisher, Observer: l.observer(),
		Store: faultyStore{NewMemoryStore(), 0.02},
		Policy: Policy{Delay: 2 * time.Millisecond, RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond, Expire: 300 * time.Millisecond,
			ExpireUrgent: 50 * time.Millisecond, ProbeEvery: 5 * time.Millisecond, RememberFor: 500 * time.Millisecond, Causes: 1 << 20, ServiceInFlight: 8},
	})
	require.NoError(t, err)

	ctx := t.Context()
	stop := time.Now().Add(*stressFor)
	var wg sync.WaitGroup
	var events, failed int
	var mu sync.Mutex
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			n, bad := 0, 0
			for ; time.Now().Before(stop); n++ {
				account := fmt.Sprintf("user%d@example.com", r.IntN(40))
				s := SessionID{account, fmt.Sprintf("s%d", r.IntN(3))}
				k := Key{Service: fmt.Sprintf("push%d.example.net", r.IntN(3)), Node: fmt.Sprintf("n%d", r.IntN(3))}
				st := Stanza{ID: fmt.Sprintf("%d-%d", g, r.IntN(n+1)), From: "romeo@example.net", To: account, Class: Class(r.IntN(3))}
				var ev Event
				switch r.IntN(20) {
				case 0:
					ev = SessionOpen{Session: s, Client: "c" + s.ID}
				case 1:
					ev = SessionClose{s}
				case 2, 3:
					ev = PushEnable{Session: s, Key: k}
				case 4:
					ev = PushDisable{s, k}
				case 5, 6:
					ev = HibernationStart{s, []Stanza{st, {ID: st.ID + "b", Class: ClassImportant}}}
				case 7:
					ev = HibernationEnd{s}
				case 8, 9, 10:
					ev = StanzaQueued{s, st}
				case 11:
					ev = AckDelayed{s, []Stanza{st}}
				case 12:
					ev = Ping{Account: account}
				case 13:
					if r.IntN(10) == 0 {
						ev = AccountRemoved{account}
						break
					}
					fallthrough
				case 14, 15, 16:
					ev = Offline{account, st}
				default:
					ev = ArchiveAdded{account, st}
				}
				if _, err := e.Handle(ctx, ev); err != nil {
					bad++
					assert.ErrorIs(t, err, errFault)
					assert.ErrorIs(t, err, ErrStore)
				}
			}
			mu.Lock()
			events, failed = events+n, failed+bad
			mu.Unlock()
		})
	}
	wg.Wait()
	unsent := 0
	if err := e.Close(ctx); err != nil {
		var u *UnsentError
		require.ErrorAs(t, err, &u)
		for _, d := range u.Unsent {
			for _, n := range d.Events {
				unsent++
				delete(l.owed, debt{d.Account, d.Key, n})
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d events, %d failed with the store; %d notifications published, %d dropped for a reason, %d left at Close", events, failed, l.paid, l.dropped, unsent)
	assert.Empty(t, l.problems)
	assert.Empty(t, l.owed, "decided, and neither published nor dropped nor reported")
	assert.NotZero(t, l.paid)
}

// TestOutage is a push service that is dead for an hour beside one that is not.
func TestOutage(t *testing.T) {
	registrations := 100_000
	if testing.Short() || raceEnabled {
		registrations = 5_000
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		dead := true
		var sentDead, probes int
		var slowest time.Duration
		var asked time.Time
		counts := make(map[string]int)
		publisher := PublisherFunc(func(ctx context.Context, n *Notification) error {
			mu.Lock()
			isDead := dead && n.Service == "dead.example.net"
			if isDead {
				probes++
			}
			mu.Unlock()
			if isDead {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			if n.Service == "dead.example.net" {
				sentDead++
				counts[n.Account]++
			} else {
				slowest = max(slowest, time.Since(asked))
			}
			return nil
		})
		e, err := New(Config{Host: "example.com", Publisher: publisher, Policy: Policy{Expire: 3 * time.Hour}})
		require.NoError(t, err)
		ctx := t.Context()
		for i := range registrations {
			account := fmt.Sprintf("user%d@example.com", i)
			_, err := e.Handle(ctx, PushEnable{Session: SessionID{Account: account}, Key: Key{Service: "dead.example.net", Node: "n"}})
			require.NoError(t, err)
			_, err = e.Handle(ctx, Offline{account, Stanza{ID: "m1", Class: ClassImportant}})
			require.NoError(t, err)
		}
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: Key{Service: "healthy.example.net", Node: "n"}})
		for i := range 60 {
			mu.Lock()
			asked = time.Now()
			mu.Unlock()
			handle(t, e, Offline{juliet, message(fmt.Sprint("m", i))})
			time.Sleep(time.Minute)
		}
		mu.Lock()
		assert.Equal(t, 5*time.Millisecond, slowest, "the healthy service's delay")
		assert.Less(t, probes, 64+60*3, "a dead service costs one probe at a time")
		dead = false
		mu.Unlock()
		start := time.Now()
		for {
			time.Sleep(time.Second)
			mu.Lock()
			n := sentDead
			mu.Unlock()
			if n >= registrations {
				break
			}
			require.Less(t, time.Since(start), 30*time.Minute, "%d of %d recovered", n, registrations)
		}
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		t.Logf("%d registrations waited for an hour, %d probes; all sent %v after the recovery", registrations, probes, time.Since(start)-time.Hour)
		assert.Len(t, counts, registrations)
		for account, n := range counts {
			require.Equal(t, 1, n, account)
		}
		require.NoError(t, e.Close(ctx))
	})
}
