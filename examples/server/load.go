package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// load measures this server, in a process of its own, and a real Prosody with mod_cloud_notify, one after the other on the same script: how many
// publishes a second reach a push service, and how long it takes from a message being sent to the publish that tells of it. This server keeps its
// messages in memory, Prosody in files, as it does by default; with its storage in memory it was slower.
func load(ctx context.Context, w io.Writer, clients, messages int) error {
	l := &loadScript{clients: clients, messages: messages}
	fmt.Fprintf(w, "%d hibernated clients get a message each, all at once; both servers wait a second for more before they publish.\n", clients)
	fmt.Fprintf(w, "%d offline clients get %d messages, %d at a time.\n\n", clients, messages, loadInFlight)
	fmt.Fprintf(w, "%-9s %-11s %9s %10s %12s %10s %10s\n", "server", "clients are", "messages", "publishes", "publishes/s", "p50", "p99")
	stop, err := l.startServer(ctx)
	if err != nil {
		return err
	}
	err = l.run(ctx, w, "ours")
	stop()
	if err != nil {
		return err
	}
	p, err := peer.StartProsody(loadDomain, loadSecret, loadSecret, `limits = {}`, l.users()...)
	if errors.Is(err, peer.ErrNoProsody) {
		fmt.Fprintf(w, "prosody   missing: %v\n", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Stop()
	l.c2s, l.component = p.Clients, p.Components
	return l.run(ctx, w, "prosody")
}

const (
	loadDomain  = "push.localhost"
	loadSecret  = "load"
	loadSenders = 4
	// loadInFlight is how many messages to offline clients may wait for their publish.
	loadInFlight = 64
)

type loadScript struct {
	clients, messages int
	c2s, component    string
}

// users are the accounts: clients that will be hibernated, clients that will be offline, and senders.
func (l *loadScript) users() []string {
	var users []string
	for i := range l.clients {
		users = append(users, "h"+strconv.Itoa(i), "o"+strconv.Itoa(i))
	}
	for i := range loadSenders {
		users = append(users, "s"+strconv.Itoa(i))
	}
	return users
}

// startServer runs this program as a server.
func (l *loadScript) startServer(ctx context.Context) (stop func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, addr := range []*string{&l.c2s, &l.component} {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*addr = free.Addr().String()
		free.Close()
	}
	args := []string{"-c2s", l.c2s, "-component", l.component, "-component-secret", loadSecret}
	for _, u := range l.users() {
		args = append(args, "-user", u+":"+loadSecret)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}
	for range 50 {
		if conn, err := net.Dial("tcp", l.component); err == nil {
			conn.Close()
			return stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return nil, errors.New("the server does not come up")
}

func (l *loadScript) login(user string, resumable bool) (*peer.Client, error) {
	conn, err := net.Dial("tcp", l.c2s)
	if err != nil {
		return nil, err
	}
	return peer.Connect(conn, peer.Login{Domain: "localhost", User: user, Password: loadSecret, Resource: "r", Resumable: resumable})
}

// run measures the server at l.c2s.
func (l *loadScript) run(ctx context.Context, w io.Writer, name string) error {
	conn, err := net.Dial("tcp", l.component)
	if err != nil {
		return err
	}
	service, err := peer.ConnectService(conn, loadDomain, loadSecret)
	if err != nil {
		return err
	}
	defer service.Close()
	var senders []*peer.Client
	for i := range loadSenders {
		c, err := l.login("s"+strconv.Itoa(i), false)
		if err != nil {
			return err
		}
		defer c.Drop()
		senders = append(senders, c)
	}
	for _, phase := range []struct {
		state, prefix      string
		messages, inFlight int
		leave              func(*peer.Client)
	}{
		{"hibernated", "h", l.clients, l.clients, (*peer.Client).Drop},
		{"offline", "o", l.messages, min(loadInFlight, l.clients), (*peer.Client).Close},
	} {
		if err := l.prepare(ctx, phase.prefix, phase.leave); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		time.Sleep(time.Second) // until their leaving was noticed
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		m := newMeter(phase.prefix, l.clients, phase.inFlight)
		service.Answer(m.published)
		began := time.Now()
		var sending sync.WaitGroup
		for s, c := range senders {
			sending.Go(func() {
				for k := s; k < phase.messages; k += loadSenders {
					user, err := m.next(ctx)
					if err != nil {
						return
					}
					c.Chat(user+"@localhost", "message "+strconv.Itoa(k))
				}
			})
		}
		sending.Wait()
		err := m.finish(ctx)
		latencies, publishes, last := m.result()
		fmt.Fprintf(w, "%-9s %-11s %9d %10d %12.0f %10s %10s\n", name, phase.state, phase.messages, publishes,
			float64(len(latencies))/last.Sub(began).Seconds(), percentile(latencies, 50), percentile(latencies, 99))
		if err != nil {
			return fmt.Errorf("%s: %d of %d messages were never notified", name, phase.messages-len(latencies), phase.messages)
		}
	}
	return nil
}

// prepare connects the clients of a phase, enables push, and lets them leave.
func (l *loadScript) prepare(ctx context.Context, prefix string, leave func(*peer.Client)) error {
	var group sync.WaitGroup
	errs := make([]error, 8)
	for worker := range errs {
		group.Go(func() {
			for i := worker; i < l.clients && errs[worker] == nil; i += len(errs) {
				user := prefix + strconv.Itoa(i)
				c, err := l.login(user, true)
				if err == nil {
					c.Available()
					err = c.EnablePush(ctx, loadDomain, user, "")
				}
				if err == nil {
					time.Sleep(5 * time.Millisecond) // for the last acknowledgement
					leave(c)
				}
				errs[worker] = err
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// meter matches publishes to the messages that they tell of. No client has two messages that wait for their publish.
type meter struct {
	idle  chan string   // clients that wait for nothing
	slots chan struct{} // one for each message that may wait

	mu        sync.Mutex
	waiting   map[string]time.Time // by client, when its message was sent
	latencies []time.Duration
	publishes int
	last      time.Time
}

func newMeter(prefix string, clients, inFlight int) *meter {
	m := &meter{idle: make(chan string, clients), slots: make(chan struct{}, inFlight), waiting: make(map[string]time.Time)}
	for i := range clients {
		m.idle <- prefix + strconv.Itoa(i)
	}
	return m
}

// next waits until a message may be sent, and says to whom.
func (m *meter) next(ctx context.Context) (string, error) {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	user := <-m.idle
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting[user] = time.Now()
	return user, nil
}

// published takes note of a publish. It is an answer of a push service: all is well.
func (m *meter) published(p peer.Publish) (errorType, condition string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.publishes++
	if at, ok := m.waiting[p.Node]; ok {
		delete(m.waiting, p.Node)
		m.latencies = append(m.latencies, p.At.Sub(at))
		m.last = p.At
		<-m.slots
		m.idle <- p.Node
	}
	return "", ""
}

// finish waits for the last publish, and for those that tell nothing new.
func (m *meter) finish(ctx context.Context) error {
	for range cap(m.slots) {
		select {
		case m.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	time.Sleep(1500 * time.Millisecond)
	return nil
}

func (m *meter) result() (latencies []time.Duration, publishes int, last time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.latencies)
	return m.latencies, m.publishes, m.last
}

func percentile(sorted []time.Duration, p int) string {
	if len(sorted) == 0 {
		return "-"
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)].Round(100 * time.Microsecond).String()
}
