package jetstream_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster"
	"github.com/xmpp-push/push/cluster/jetstream"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// Whole processes: each has an embedded server and a node, and is told what to do by the test, over HTTP. The push service is in the test.

var kills = flag.Int("kills", 1, "how often a process is killed, or stopped, in each of the loops")

// childConfig is what a process is told in its environment.
type childConfig struct {
	Name, Dir, Cluster string
	Routes             []string
	Parent             string // URL of the push service
	Alone              bool
	Lease              time.Duration
	Partitions         int
	Slow               time.Duration // how long a publish takes
	Version            int           // that the program has; zero: its own
	Program            string        // another build of this test; empty: this one
}

const childEnv = "PUSH_CLUSTER_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		child(text)
		return
	}
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		_ = p.Value.Set("5") // they wait for leases and elections most of the time
	}
	os.Exit(m.Run())
}

// child is the main function of a process.
func child(text string) {
	var cfg childConfig
	check(json.Unmarshal([]byte(text), &cfg))
	if cfg.Version > 0 {
		partition.Version = cfg.Version
	}
	opts := &slog.HandlerOptions{}
	if os.Getenv("PUSH_CLUSTER_LOG") != "" {
		opts.Level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, opts))
	srv, err := embedded.Start(embedded.Config{Dir: cfg.Dir, Node: cfg.Name, Cluster: cfg.Cluster, Routes: cfg.Routes, Secret: "s3cret", Logger: log})
	check(err)
	publish := push.PublisherFunc(func(ctx context.Context, n *push.Notification) error {
		body, _ := json.Marshal(published{cfg.Name, n.Account, n.Key, n.Count, n.Class.String()})
		req, _ := http.NewRequestWithContext(ctx, "POST", cfg.Parent, bytes.NewReader(body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return errors.New(resp.Status)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // for machines that have no time for it
	defer cancel()
	node, err := jetstream.Join(ctx, jetstream.Config{
		Conn: srv.Conn(), Node: cfg.Name, Alone: cfg.Alone, Lease: cfg.Lease, Partitions: cfg.Partitions, SnapshotEvery: 200,
		Push: push.Config{Host: "example.com", Publisher: publish, Logger: log, Policy: push.Policy{MinInterval: -1}},
	})
	check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	http.HandleFunc("/handle", func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		b, err := partition.ReadBatch(data)
		check(err)
		ctx := r.Context()
		if d, err := time.ParseDuration(r.URL.Query().Get("for")); err == nil && d > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		d, err := node.Handle(ctx, b.Events[0])
		res := handled{Decision: d.Reason.String(), Changes: len(d.Changes)}
		if err != nil {
			res.Err = err.Error()
			res.Unreachable, res.Alone, res.Outdated = errors.Is(err, jetstream.ErrUnreachable), errors.Is(err, jetstream.ErrAlone), errors.Is(err, jetstream.ErrVersion)
		}
		_ = json.NewEncoder(w).Encode(res)
	})
	http.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(node.Status()) })
	http.HandleFunc("/close", func(w http.ResponseWriter, r *http.Request) {
		err := node.Close(r.Context())
		_ = json.NewEncoder(w).Encode(fmt.Sprint(err))
		go func() {
			srv.Close()
			os.Exit(0)
		}()
	})
	fmt.Println(l.Addr())
	check(http.Serve(l, nil))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

type published struct {
	From    string
	Account string
	Key     push.Key
	Count   int
	Class   string
}

type handled struct {
	Decision, Err      string
	Changes            int
	Unreachable, Alone bool
	Outdated           bool
}

// fleet is some processes and the push service that they publish to.
type fleet struct {
	t     *testing.T
	procs []*proc
	url   string

	mu        sync.Mutex
	told      map[string]int // stanzas by account
	last      map[string]time.Time
	publishes int
	took      []time.Duration
	resent    int
	slow      atomic.Int64
}

type proc struct {
	f    *fleet
	cfg  childConfig
	cmd  *exec.Cmd
	mu   sync.Mutex
	addr string
}

var nextPort atomic.Int64

// freeAddrs returns addresses for servers that listen later. No connection takes their ports meanwhile, for they are below those that systems give to
// connections, and no other test, whose servers would become part of the cluster.
func freeAddrs(t testing.TB, n int) (addrs []string) {
	t.Helper()
	nextPort.CompareAndSwap(0, int64(10000+rand.IntN(20000)))
	for range 1000 {
		if len(addrs) == n {
			return addrs
		}
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10000+(nextPort.Add(1)-10000)%20000))
		if err != nil {
			continue
		}
		addrs = append(addrs, l.Addr().String())
		require.NoError(t, l.Close())
	}
	t.Fatal("no port is free between 10000 and 30000")
	return nil
}

// newFleet prepares n processes; links, if not nil, gives the address by which one reaches the cluster port of another.
func newFleet(t *testing.T, n int, change func(*childConfig), link func(from, to int, addr string) string) *fleet {
	t.Helper()
	f := &fleet{t: t, told: make(map[string]int), last: make(map[string]time.Time)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f.url = "http://" + l.Addr().String()
	srv := &http.Server{Handler: http.HandlerFunc(f.publish)}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	addrs := freeAddrs(t, n)
	for i := range n {
		cfg := childConfig{Name: fmt.Sprint("n", i), Dir: t.TempDir(), Parent: f.url, Partitions: 16}
		if n > 1 {
			cfg.Cluster = addrs[i]
			for j := range n {
				if j != i {
					a := addrs[j]
					if link != nil {
						a = link(i, j, a)
					}
					cfg.Routes = append(cfg.Routes, a)
				}
			}
		}
		if change != nil {
			change(&cfg)
		}
		f.procs = append(f.procs, &proc{f: f, cfg: cfg})
	}
	t.Cleanup(func() {
		for _, p := range f.procs {
			p.kill()
		}
	})
	return f
}

func (f *fleet) publish(w http.ResponseWriter, r *http.Request) {
	var p published
	if json.NewDecoder(r.Body).Decode(&p) != nil {
		return
	}
	f.mu.Lock()
	f.told[p.Account] += p.Count
	f.last[p.Account] = time.Now()
	f.publishes++
	f.mu.Unlock()
	if d := f.slow.Load(); d > 0 {
		time.Sleep(time.Duration(d))
	}
}

func (f *fleet) toldOf(account string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.told[account]
}

// start runs all processes, and waits for them.
func (f *fleet) start() {
	var wg sync.WaitGroup
	for _, p := range f.procs {
		wg.Go(p.start)
	}
	wg.Wait()
}

// start runs the process and waits until it has joined.
func (p *proc) start() {
	if err := p.tryStart(); err != nil {
		p.f.t.Errorf("%s did not join: %v", p.cfg.Name, err)
	}
}

// tryStart returns what the process says if it does not join.
func (p *proc) tryStart() error {
	text, err := json.Marshal(p.cfg)
	require.NoError(p.f.t, err)
	program := p.cfg.Program
	if program == "" {
		program = os.Args[0]
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	require.NoError(p.f.t, err)
	logs, err := cmd.StderrPipe()
	require.NoError(p.f.t, err)
	require.NoError(p.f.t, cmd.Start())
	said := make(chan string, 1)
	go func() { said <- p.read(logs) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		text := <-said
		_ = cmd.Wait()
		return errors.New(text)
	}
	p.mu.Lock()
	p.cmd, p.addr = cmd, strings.TrimSpace(line)
	p.mu.Unlock()
	return nil
}

// leave ends the process in peace.
func (p *proc) leave() {
	resp, err := http.Get("http://" + p.url() + "/close")
	if err == nil {
		_ = resp.Body.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Wait()
	}
	p.cmd, p.addr = nil, ""
}

// read takes from the log what the tests count, and returns the last line that is none of it.
func (p *proc) read(r io.Reader) (last string) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var l struct {
			Msg   string
			Took  time.Duration
			Again int
			Err   string `json:"error"`
		}
		if json.Unmarshal(sc.Bytes(), &l) != nil {
			last = sc.Text()
			fmt.Fprintln(os.Stderr, p.cfg.Name, last)
			continue
		}
		if strings.HasSuffix(l.Msg, "taken over") {
			p.f.mu.Lock()
			p.f.took = append(p.f.took, l.Took)
			p.f.resent += l.Again
			p.f.mu.Unlock()
		}
		if os.Getenv("PUSH_CLUSTER_LOG") != "" {
			fmt.Fprintln(os.Stderr, time.Now().Format("05.000"), p.cfg.Name, sc.Text())
		}
	}
	return last
}

func (p *proc) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// kill ends the process as kill -9 does.
func (p *proc) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd, p.addr = nil, ""
}

func (p *proc) url() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

var errDown = errors.New("the process does not answer")

// handle gives an event to the process's node.
func (p *proc) handle(ctx context.Context, ev push.Event) (handled, error) {
	return p.handleFor(ctx, 0, ev)
}

// must gives an event to this process's node, which has to accept it.
func (p *proc) must(t *testing.T, ev push.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := p.handle(ctx, ev)
	require.NoError(t, err)
}

// handleFor is handle with a time that the node has.
func (p *proc) handleFor(ctx context.Context, d time.Duration, ev push.Event) (handled, error) {
	var h handled
	addr := p.url()
	if addr == "" {
		return h, errDown
	}
	data, err := (&partition.Batch{Events: []push.Event{ev}}).AppendBinary(nil)
	if err != nil {
		return h, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/handle?for="+d.String(), bytes.NewReader(data))
	if err != nil {
		return h, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return h, fmt.Errorf("%w: %w", errDown, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		return h, fmt.Errorf("%w: %w", errDown, err)
	}
	if h.Err != "" {
		return h, errors.New(h.Err)
	}
	return h, nil
}

func (p *proc) status() (st jetstream.Status, err error) {
	resp, err := http.Get("http://" + p.url() + "/status")
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

// must gives an event to some process until one has accepted it, as a host's clients and servers would try again.
func (f *fleet) must(first int, ev push.Event) handled {
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		h, err := f.procs[(first+try)%len(f.procs)].handle(ctx, ev)
		cancel()
		if err == nil {
			return h
		}
		if try > 200 {
			f.t.Errorf("%s: nobody accepts it: %v", ev.Name(), err)
			return h
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// owned waits until every partition has one owner.
func (f *fleet) owned(within time.Duration) {
	f.t.Helper()
	var said []string
	if !assert.Eventually(f.t, func() bool {
		n := 0
		said = nil
		for _, p := range f.procs {
			if p.url() == "" {
				continue
			}
			st, err := p.status()
			if err != nil {
				said = append(said, fmt.Sprintf("%s: %v", p.cfg.Name, err))
				continue
			}
			said = append(said, fmt.Sprintf("%s sees %v, misses %v, behind %v, outdated %v", p.cfg.Name, st.Nodes, st.Missing, st.Behind, st.Outdated))
			for _, ps := range st.Partitions {
				if ps.Owned {
					n++
				}
				if ps.Owned || ps.Phase != cluster.PhaseIdle {
					said = append(said, fmt.Sprintf("%s %+v", p.cfg.Name, ps))
				}
			}
		}
		return n == f.procs[0].cfg.Partitions
	}, within, 50*time.Millisecond, "partitions without an owner") {
		f.t.Fatal(strings.Join(said, "\n"))
	}
}
