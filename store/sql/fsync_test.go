package sqlstore_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push"
)

const (
	fsyncAccounts = 200
	fsyncRate     = 40 // messages a second
	fsyncMessages = 6 * fsyncRate
	fsyncDelay    = 300 * time.Millisecond
)

func init() {
	// latency has an engine with this store publish messages at a rate, each to a registration whose success or error is one to be stored, and prints how
	// long a write takes, and how long each publish took to come, in microseconds.
	roles["latency"] = func() {
		_, s := roleDatabase()
		var mu sync.Mutex
		due := map[string]time.Time{}
		var latencies []time.Duration
		published := make(chan struct{}, fsyncMessages)
		e, err := push.New(push.Config{
			Host:   "example.com",
			Store:  s,
			Policy: push.Policy{MinInterval: -1},
			Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
				mu.Lock()
				latencies = append(latencies, time.Since(due[n.Account]))
				k := len(latencies)
				mu.Unlock()
				published <- struct{}{}
				if k%2 == 0 {
					return &push.ReplyError{Type: "auth", Condition: "forbidden"} // counted: one write more
				}
				return nil
			}),
		})
		if err != nil {
			log.Fatal(err)
		}
		begin := time.Now()
		for i := range fsyncMessages {
			at := begin.Add(time.Second * time.Duration(i) / fsyncRate)
			time.Sleep(time.Until(at))
			a := account(i % fsyncAccounts)
			mu.Lock()
			due[a] = at
			mu.Unlock()
			st := push.Stanza{ID: fmt.Sprint("m", i), Kind: push.KindMessage, To: a, From: "romeo@example.net", Class: push.ClassImportant}
			if _, err := e.Handle(ctx, push.Offline{Account: a, Stanza: st}); err != nil {
				log.Fatal(err)
			}
		}
		timeout := time.After(30 * time.Second)
		for range fsyncMessages {
			select {
			case <-published:
			case <-timeout:
				log.Fatal("not all messages were published within 30 s")
			}
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			log.Fatal(err)
		}
		write := time.Now()
		if _, err := s.Enable(ctx, registration(account(fsyncAccounts), "n1", 0), 5); err != nil {
			log.Fatal(err)
		}
		fmt.Println(time.Since(write).Microseconds())
		for _, l := range latencies {
			fmt.Println(l.Microseconds())
		}
	}
}

// TestPublishesDoNotWaitForTheDisk has the disk take 300 ms for each fsync, which strace makes of it. Publishes are as quick as without, and the store learns
// what it has to.
func TestPublishesDoNotWaitForTheDisk(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace slows the disk down; install it (Debian: apt-get install strace)")
	}
	percentiles := map[bool][2]time.Duration{}
	for _, slow := range []bool{false, true} {
		d := newSQLite(t)
		s := d.open(t, nil)
		for i := range fsyncAccounts {
			mustEnable(t, s, registration(account(i), "n1", 0), 5)
		}
		var wrapper []string
		if slow {
			inject := fmt.Sprint("inject=fsync,fdatasync:delay_enter=", fsyncDelay.Microseconds())
			wrapper = []string{strace, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject}
			if err := exec.Command(wrapper[0], append(wrapper[1:], "true")...).Run(); err != nil {
				t.Skip("strace is not allowed to trace here: ", err)
			}
		}
		args := append(wrapper, os.Args[0])
		p := begin(t, exec.Command(args[0], args[1:]...), d.env("latency"))
		var all []time.Duration
		for line := range p.lines {
			var us int64
			if _, err := fmt.Sscan(line, &us); err != nil {
				t.Fatal(line, err)
			}
			all = append(all, time.Duration(us)*time.Microsecond)
		}
		if err := p.Wait(); err != nil || len(all) != fsyncMessages+1 {
			t.Fatalf("slow %v: %v, %d messages were published", slow, err, len(all))
		}
		write := all[0]
		if all = all[1:]; slow && write < fsyncDelay {
			t.Fatalf("a write took %v, so that this test cannot tell", write)
		}
		slices.Sort(all)
		percentiles[slow] = [2]time.Duration{all[len(all)/2], all[len(all)*99/100]}
		t.Logf("slow %v: a write %v; publishes p50 %v, p99 %v, at most %v", slow, write, all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
		counted, succeeded := 0, 0
		for i := range fsyncAccounts {
			for _, r := range mustList(t, s, account(i)) {
				counted += r.Health.Refusals
				if !r.Health.Succeeded.IsZero() {
					succeeded++
				}
			}
		}
		if counted+succeeded < fsyncAccounts {
			t.Errorf("slow %v: the store has %d refusals and %d registrations that have worked, of %d", slow, counted, succeeded, fsyncAccounts)
		}
	}
	if p99 := percentiles[true][1]; p99 > fsyncDelay/2 {
		t.Errorf("with a slow disk p99 is %v, without %v: publishes wait for it", p99, percentiles[false][1])
	}
}
