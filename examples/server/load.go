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
	"strings"
	"sync"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// load measures this server and a real Prosody with mod_cloud_notify, each in a process of its own, one after the other on the same script: how
// many publishes a second reach a push service, how long it takes from a message being sent to the publish that tells of it, at the ceiling and at a rate that
// is far from it, and what processor time and memory that takes. Both are measured with storage that survives their being killed, too.
func load(ctx context.Context, w io.Writer, o *options) error {
	l := &loadScript{clients: o.clients, messages: o.messages, rate: o.rate, seconds: o.seconds, w: w}
	fmt.Fprintf(w, "hibernated: %d clients get a message each, all at once; Prosody waits a second for more before it publishes.\n", l.clients)
	fmt.Fprintf(w, "offline: %d clients get %d messages, %d at a time.\n", l.clients, l.messages, loadInFlight)
	fmt.Fprintf(w, "at rate: they get %d messages a second for %d s, whatever the server does; latency counts from when each was due.\n", l.rate, l.seconds)
	fmt.Fprintf(w, "Neither server waits between two publishes to one client (ours does by default, for a second).\n")
	fmt.Fprintf(w, "CPU is the server's, for a publish; memory what it holds at the end.\n\n")
	fmt.Fprintf(w, "%-28s %-10s %8s %9s %9s %9s %9s %9s %8s\n", "server", "phase", "messages", "publishes", "a second", "p50", "p99", "CPU", "memory")
	ours := []struct {
		name string
		args func(dir string) []string
	}{
		{"ours, in memory", func(string) []string { return nil }},
		{"ours, SQLite", func(dir string) []string { return []string{"-data", dir} }},
	}
	if o.database != "" {
		ours = append(ours, struct {
			name string
			args func(dir string) []string
		}{"ours, SQLite and PostgreSQL", func(dir string) []string { return []string{"-data", dir, "-database", o.database} }})
	}
	for _, v := range ours {
		if !strings.Contains(v.name, o.only) {
			continue
		}
		dir, err := os.MkdirTemp("", "load")
		if err != nil {
			return err
		}
		err = l.ours(ctx, v.name, v.args(dir)...)
		os.RemoveAll(dir)
		if err != nil {
			return err
		}
	}
	const sqlite = `
default_storage = "sql"
sql = { driver = "SQLite3", database = "prosody.sqlite" }
`
	for _, v := range []struct{ name, settings string }{
		{"Prosody, files", ""},
		{"Prosody, SQLite", sqlite},
		{"Prosody, SQLite, gen. GC", sqlite + `gc = { mode = "generational" }`},
	} {
		if !strings.Contains(v.name, o.only) {
			continue
		}
		p, err := peer.StartProsody(loadDomain, loadSecret, loadSecret, "limits = {}\n"+v.settings, l.users()...)
		if errors.Is(err, peer.ErrNoProsody) {
			fmt.Fprintf(w, "missing: %v\n", err)
			return nil
		}
		if err != nil {
			return err
		}
		l.c2s, l.component, l.pid = p.Clients, p.Components, p.PID()
		err = l.run(ctx, v.name)
		log := p.Log()
		p.Stop()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, log)
		}
	}
	return nil
}

const (
	loadDomain  = "push.localhost"
	loadSecret  = "load"
	loadSenders = 4
	// loadInFlight is how many messages to offline clients may wait for their publish.
	loadInFlight = 64
)

type loadScript struct {
	w                 io.Writer
	clients, messages int
	rate, seconds     int
	c2s, component    string
	pid               int
}

// ours measures this program.
func (l *loadScript) ours(ctx context.Context, name string, args ...string) error {
	stop, err := l.startServer(ctx, args...)
	if err != nil {
		return err
	}
	defer stop()
	return l.run(ctx, name)
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
func (l *loadScript) startServer(ctx context.Context, more ...string) (stop func(), err error) {
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
	args := append([]string{"-c2s", l.c2s, "-component", l.component, "-component-secret", loadSecret, "-min-interval", "-1ns"}, more...)
	for _, u := range l.users() {
		args = append(args, "-user", u+":"+loadSecret)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l.pid = cmd.Process.Pid
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}
	for range 1200 { // a minute, as making the accounts takes a slow disk a while
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
func (l *loadScript) run(ctx context.Context, name string) error {
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
	if err := l.prepare(ctx, "h", (*peer.Client).Drop); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := l.prepare(ctx, "o", (*peer.Client).Close); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	time.Sleep(time.Second) // until their leaving was noticed
	for _, p := range []phase{
		{"hibernated", "h", l.clients, l.clients, 0},
		{"offline", "o", l.messages, min(loadInFlight, l.clients), 0},
		{"at rate", "o", l.rate * l.seconds, l.clients, l.rate},
	} {
		if p.messages == 0 {
			continue
		}
		if err := l.measure(ctx, name, p, service, senders); err != nil {
			return err
		}
	}
	return nil
}

// phase is a part of the run: messages to clients, so many at a time at most, and a second.
type phase struct {
	name, prefix             string
	messages, inFlight, rate int
}

func (l *loadScript) measure(ctx context.Context, name string, p phase, service *peer.PushService, senders []*peer.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	m := newMeter(p.prefix, l.clients, p.inFlight)
	service.Answer(m.published)
	cpu, _ := usage(l.pid)
	began := time.Now()
	var sending sync.WaitGroup
	for s, c := range senders {
		sending.Go(func() {
			for k := s; k < p.messages; k += loadSenders {
				due := time.Now()
				if p.rate > 0 {
					due = began.Add(time.Second * time.Duration(k) / time.Duration(p.rate))
					time.Sleep(time.Until(due))
				}
				user, err := m.next(ctx, due)
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
	cpuAfter, memory := usage(l.pid)
	spent := "-"
	if len(latencies) > 0 && cpuAfter > 0 {
		spent = ((cpuAfter - cpu) / time.Duration(len(latencies))).Round(10 * time.Microsecond).String()
	}
	fmt.Fprintf(l.w, "%-28s %-10s %8d %9d %9.0f %9s %9s %9s %8s\n", name, p.name, p.messages, publishes,
		float64(len(latencies))/last.Sub(began).Seconds(), percentile(latencies, 50), percentile(latencies, 99), spent, memory)
	if err != nil {
		return fmt.Errorf("%s: %d of %d messages were never notified", name, p.messages-len(latencies), p.messages)
	}
	return nil
}

// usage returns the processor time that a process has taken, and the memory that it holds, where the operating system tells (Linux).
func usage(pid int) (cpu time.Duration, memory string) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "-"
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may have spaces
	f := strings.Fields(rest)
	if len(f) < 22 {
		return 0, "-"
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	pages, _ := strconv.Atoi(f[21])
	// A tick is 10 ms on every Linux there is (man 5 proc).
	return time.Duration(user+system) * 10 * time.Millisecond, fmt.Sprintf("%d MB", pages*os.Getpagesize()>>20)
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

// next waits until a message may be sent, and says to whom. Its latency counts from the time given.
func (m *meter) next(ctx context.Context, due time.Time) (string, error) {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	user := <-m.idle
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting[user] = due
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
