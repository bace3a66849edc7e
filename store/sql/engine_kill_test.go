package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/store/sql"
)

// publisher is a push service that is down until it is mended, and notes what it gets.
type publisher struct {
	mu   sync.Mutex
	down bool
	sent map[string]int // by account
	some chan struct{}
}

func newPublisher(down bool) *publisher {
	return &publisher{down: down, sent: map[string]int{}, some: make(chan struct{}, 10_000)}
}

func (p *publisher) Publish(_ context.Context, n *push.Notification) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return errors.New("no answer")
	}
	p.sent[n.Account] += n.Count
	p.some <- struct{}{}
	return nil
}

func (p *publisher) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]int{}
	for a, n := range p.sent {
		all[a] = n
	}
	return all
}

func newWaiting(tb testing.TB, s push.Store, p push.Publisher, mode push.KeepMode) *push.Engine {
	tb.Helper()
	e, err := push.New(push.Config{Host: "example.com", Store: s, Publisher: p, Keep: mode})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

const keptAccounts = 10

func offlineMessage(i int) push.Offline {
	a := account(i % keptAccounts)
	return push.Offline{Account: a, Stanza: push.Stanza{ID: fmt.Sprint("m", i), Kind: push.KindMessage, To: a, From: "romeo@example.net/x", Class: push.ClassImportant}}
}

// TestWhatWaitsIsTakenUp closes an engine whose push service is down, with no time to wait for it: the next one sends all of it, once.
func TestWhatWaitsIsTakenUp(t *testing.T) {
	backends(t, func(t *testing.T, d database) {
		open := func() *sqlstore.Store { return d.open(t, &sqlstore.Options{Keys: keyring("k1", "k1")}) }
		s := open()
		for i := range keptAccounts {
			mustEnable(t, s, registration(account(i), "n1", 0), 5)
		}
		e := newWaiting(t, s, newPublisher(true), push.KeepLate)
		const messages = 5 * keptAccounts
		for i := range messages {
			if _, err := e.Handle(ctx, offlineMessage(i)); err != nil {
				t.Fatal(err)
			}
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		begin := time.Now()
		// What it says is left may be kept all the same, if the time was over before the database had answered.
		var unsent *push.UnsentError
		doubt := map[string]bool{}
		if err := e.Close(short); errors.As(err, &unsent) {
			t.Logf("Close: %v", err)
			for _, u := range unsent.Unsent {
				doubt[u.Account] = true
			}
		} else if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("Close took %v", took)
		}

		well := newPublisher(false)
		next := newWaiting(t, open(), well, push.KeepLate)
		for i := range messages { // the same stanzas come again, as the host reads its offline storage after the restart
			if _, err := next.Handle(ctx, offlineMessage(i)); err != nil {
				t.Fatal(err)
			}
		}
		timeout := time.After(20 * time.Second)
		for sum(well.counts()) < messages {
			select {
			case <-well.some:
			case <-timeout:
				t.Fatalf("after 20 s of %d messages were sent: %v", messages, well.counts())
			}
		}
		late, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := next.Close(late); err != nil {
			t.Error(err)
		}
		for a, n := range well.counts() {
			if n != messages/keptAccounts {
				t.Errorf("%s was told of %d messages, want %d", a, n, messages/keptAccounts)
			}
		}
		for k, err := range s.Kept(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if !doubt[k.Account] {
				t.Errorf("still kept is something of %s", k.Account)
			}
		}
	})
}

func sum(counts map[string]int) (all int) {
	for _, n := range counts {
		all += n
	}
	return all
}

func init() {
	// wait handles messages whose push service is down, one each 10 ms, and says so.
	roles["wait"] = func() {
		_, s := roleDatabase()
		var mode push.KeepMode
		if err := mode.UnmarshalText([]byte(os.Getenv("PUSH_TEST_KEEP"))); err != nil {
			log.Fatal(err)
		}
		e, err := push.New(push.Config{Host: "example.com", Store: s, Publisher: newPublisher(true), Keep: mode})
		if err != nil {
			log.Fatal(err)
		}
		for i := 0; ; i++ {
			if _, err := e.Handle(ctx, offlineMessage(i)); err != nil {
				log.Fatal(err)
			}
			if _, err := os.Stdout.WriteString(fmt.Sprintln(i, time.Now().UnixMilli())); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// TestKillWhileWaiting kills a process whose push service is down: what it loses is what its mode says, and nothing is sent twice.
func TestKillWhileWaiting(t *testing.T) {
	for mode, lag := range map[push.KeepMode]time.Duration{
		push.KeepNone: time.Hour,
		push.KeepLate: 3 * time.Second, // one until it counts as late, one between two snapshots of an account, and the write
		push.KeepAll:  2 * time.Second, // the write, and one between two snapshots
	} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			backends(t, func(t *testing.T, d database) {
				s := d.open(t, nil)
				for i := range keptAccounts {
					mustEnable(t, s, registration(account(i), "n1", 0), 5)
				}
				p := run(t, d, "wait", "PUSH_TEST_KEEP="+mode.String())
				time.AfterFunc(4*time.Second, func() { _ = p.Process.Signal(syscall.SIGKILL) })
				var handled []time.Time
				for line := range p.lines {
					var i int
					var ms int64
					if _, err := fmt.Sscan(line, &i, &ms); err != nil || i != len(handled) {
						t.Fatal(line, err)
					}
					handled = append(handled, time.UnixMilli(ms))
				}
				_ = p.Wait()
				if len(handled) < 50 {
					t.Skipf("this machine is too slow today: %d messages in 4 s", len(handled))
				}
				killed := handled[len(handled)-1]
				safe, all := map[string]int{}, map[string]int{}
				for i, at := range handled {
					a := account(i % keptAccounts)
					if all[a]++; killed.Sub(at) > lag {
						safe[a]++
					}
				}

				well := newPublisher(false)
				next := newWaiting(t, s, well, mode)
				for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline) && len(well.counts()) < len(safe); {
					time.Sleep(20 * time.Millisecond)
				}
				late, cancel := context.WithTimeout(ctx, 20*time.Second)
				defer cancel()
				if err := next.Close(late); err != nil {
					t.Error(err)
				}
				for a, n := range all {
					if got := well.counts()[a]; got < safe[a] || got > n || mode == push.KeepNone && got != 0 {
						t.Errorf("%s was told of %d messages, of %d of which %d were to be safe", a, got, n, safe[a])
					}
				}
				t.Logf("of %d messages were kept %d, and at least %d had to be", len(handled), sum(well.counts()), sum(safe))
				if left := kept(t, s); left != "" {
					t.Errorf("still kept is %s", strings.Fields(left)[0])
				}
			})
		})
	}
}
