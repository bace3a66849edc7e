// Command server is a small XMPP server with push notifications: the quick start of package push, and the template for putting it into a server of
// one's own.
//
//	go run ./examples/server -demo       the whole story in ten seconds
//	go run ./examples/server -demo -nodes 3   several servers that are one, and one of them is killed
//	go run ./examples/server             accounts juliet and romeo, for real clients
//	go run ./examples/server -load       how fast it is, beside a real Prosody
//
// It is for reading and trying, not for operating: one process, no other servers. Where to read:
//
//   - push.go: all that ties the server to the library;
//   - account.go, sm.go: sessions and how they end, hibernate and are resumed, where most events come from;
//   - route.go, archive.go, offline.go: where messages go, and the other events;
//   - storage.go: what survives a restart, and how sessions go on after one;
//   - server.go, stream.go, login.go, sasl.go, bind2.go, websocket.go, component.go, strangers.go: connections of clients and components;
//   - iq.go, presence.go, pep.go: what else clients want of a server;
//   - cluster.go, nodes.go: several of them as one;
//   - demo.go, timeline.go, load.go: what the flags -demo and -load do.
//
// stories_test.go plays the same stories on this server and on a real Prosody, and compares what the push service sees.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/metrics"
	pushprometheus "github.com/xmpp-push/push/metrics/prometheus"
	"github.com/xmpp-push/push/pushhttp"
	sqlstore "github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/postgres"
	"github.com/xmpp-push/push/store/sql/sqlite"
	"github.com/xmpp-push/push/trace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// users are the accounts of the command line.
type users [][2]string

func (u *users) String() string { return "" }

func (u *users) Set(s string) error {
	name, password, ok := strings.Cut(s, ":")
	if !ok || name == "" || password == "" {
		return errors.New("want NAME:PASSWORD")
	}
	*u = append(*u, [2]string{name, password})
	return nil
}

// options is the command line.
type options struct {
	Config
	c2s, component    string
	websocket         string
	database          string
	record, inspect   string
	history           *pushhttp.History
	metrics           *pushprometheus.Metrics
	recorder          *trace.Recorder
	verbose           bool
	users             users
	madeUp            bool // the accounts' password
	demo, once        bool
	load              bool
	clients, messages int
	rate, seconds     int
	only              string
	nodes             int
	routes            string
	quiet             bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("server", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.Domain, "domain", "localhost", "the server's domain")
	f.StringVar(&o.c2s, "c2s", "127.0.0.1:5222", "where clients connect; port 0 takes a free one")
	f.StringVar(&o.websocket, "websocket", "", "where clients connect with WebSocket (RFC 7395), if they may, as ws://`ADDR`/xmpp-websocket")
	f.StringVar(&o.component, "component", "127.0.0.1:5347", "where components (XEP-0114) connect, such as push services")
	f.StringVar(&o.ComponentSecret, "component-secret", "", "what components log in with (made up and printed if empty)")
	f.Var(&o.users, "user", "an account, as `NAME:PASSWORD`; may be given again (default juliet and romeo)")
	f.StringVar(&o.Data, "data", "", "a `FOLDER` for what must survive a restart, in SQLite: messages, contacts, sessions, push registrations")
	f.StringVar(&o.database, "database", "", "a PostgreSQL database for the push registrations instead, as `postgres://USER@HOST/NAME`")
	f.StringVar(&o.record, "record", "", "a `FILE` for a trace of all that the push engine is told, which cmd/pushreplay can replay; one that is there is renamed")
	f.StringVar(&o.inspect, "inspect", "", "an address of this machine for pages that tell why a phone did not ring, and /metrics for Prometheus (with -demo a free port)")
	f.DurationVar(&o.AckDelay, "ack-delay", 30*time.Second, "how long a client may take to acknowledge before it is notified")
	f.DurationVar(&o.ResumeTimeout, "resume-timeout", 10*time.Minute, "how long a session can be resumed")
	f.DurationVar(&o.MaxResume, "max-resume", 72*time.Hour, "how long it can be if its device is asleep and can be woken by push")
	f.IntVar(&o.MaxErrors, "max-errors", 16, "after how many errors in a row of its push service a registration is disabled")
	f.IntVar(&o.StrangersPerAddress, "strangers", 0, "how many connections of one address may be logging in at a time, but for this machine's (default 100; negative: any number)")
	f.DurationVar(&o.Policy.MinInterval, "min-interval", 0, "the shortest time between two publishes to one registration (default 1s; negative: none)")
	f.BoolVar(&o.demo, "demo", false, "show it all, with scripted clients and a push service, on free ports; then go on serving")
	f.BoolVar(&o.once, "once", false, "with -demo: end after the story, with exit code 1 if it went otherwise than told")
	f.BoolVar(&o.load, "load", false, "measure publishes a second, latencies, CPU and memory, of this server and of a Prosody if there is one, and end")
	f.IntVar(&o.clients, "load-clients", 500, "with -load: the number of clients")
	f.IntVar(&o.messages, "load-messages", 5000, "with -load: the number of messages to offline clients")
	f.IntVar(&o.rate, "load-rate", 100, "with -load: messages a second of the phase with a fixed rate")
	f.IntVar(&o.seconds, "load-seconds", 20, "with -load: how long that phase is")
	f.StringVar(&o.only, "load-only", "", "with -load: only the servers whose name contains this, such as ours, Prosody or SQLite")
	f.IntVar(&o.nodes, "nodes", 1, "with -demo: how many servers there are, each a process; from 2 on the story is that of a cluster, and ends")
	f.StringVar(&o.Cluster.Node, "node", "", "this server's `NAME` in a cluster of several")
	f.StringVar(&o.Cluster.Listen, "cluster", "", "with -node: where the other servers connect")
	f.StringVar(&o.routes, "routes", "", "with -node: where the other servers listen, all of them, as `HOST:PORT,…`")
	f.StringVar(&o.Cluster.Secret, "cluster-secret", "", "with -node: what the servers know each other by")
	f.DurationVar(&o.Cluster.Lease, "cluster-lease", 0, "with -node: after what time without a sign of life a server is dead (default 4s)")
	f.BoolVar(&o.quiet, "quiet", false, "log errors only")
	f.BoolVar(&o.verbose, "v", false, "log more")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if o.demo {
		given := map[string]bool{}
		f.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["c2s"] {
			o.c2s = "127.0.0.1:0"
		}
		if !given["component"] {
			o.component = "127.0.0.1:0"
		}
		if !given["inspect"] {
			o.inspect = "127.0.0.1:0"
		}
	}
	if o.routes != "" {
		o.Cluster.Routes = strings.Split(o.routes, ",")
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.ComponentSecret == "" {
		o.ComponentSecret = rand.Text()[:12]
	}
	if len(o.users) == 0 {
		password := rand.Text()[:8]
		o.users, o.madeUp = users{{"juliet", password}, {"romeo", password}}, true
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "server:", err)
		return 2
	}
	level := slog.LevelInfo
	if o.demo {
		level = slog.LevelWarn // the timeline tells the rest
	}
	if o.verbose {
		level = slog.LevelDebug
	}
	if o.quiet {
		level = slog.LevelError
	}
	o.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	if o.load {
		if err := load(ctx, stdout, o); err != nil {
			fmt.Fprintln(stderr, "server:", err)
			return 1
		}
		return 0
	}
	if o.demo && o.nodes > 1 {
		if err := nodesDemo(ctx, stdout, o.nodes); err != nil {
			fmt.Fprintln(stderr, "server: the demo went otherwise than told:", err)
			return 1
		}
		return 0
	}
	if o.inspect != "" {
		o.history = pushhttp.NewHistory(pushhttp.HistoryConfig{})
	}
	if o.demo {
		var watch *push.Observer
		if o.history != nil {
			watch = o.history.Observer()
		}
		err := demo(ctx, stdout, watch)
		if ctx.Err() != nil {
			return 1 // interrupted
		}
		code := 0
		if err != nil {
			fmt.Fprintln(stderr, "server: the demo went otherwise than told:", err)
			code = 1
		}
		if o.once {
			return code
		}
		fmt.Fprint(stdout, "\nNow it is your turn. Log in with an XMPP client that has push, or connect a push service as a component, for instance\n",
			"push.localhost; what happens is shown here. Read push.go in examples/server next: it is all that a host has to write.\n",
			"Interrupt (Ctrl-C) to end.\n\n")
		o.Observer = newTimeline(stdout).observer()
	}
	if err := serve(ctx, o, stdout); err != nil {
		fmt.Fprintln(stderr, "server:", err)
		return 1
	}
	return 0
}

// record starts a recording of the push engine. Texts of messages and secrets of push services are left out. A recording that is there, of before a restart, is
// kept with its time in its name.
func record(o *options) (*trace.Recorder, error) {
	if st, err := os.Stat(o.record); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
		if err := os.Rename(o.record, o.record+st.ModTime().UTC().Format(".20060102T150405.000")); err != nil {
			return nil, err
		}
	}
	file, err := os.Create(o.record)
	if err != nil {
		return nil, err
	}
	recorder, err := trace.NewRecorder(trace.RecorderConfig{
		MaxBytes: math.MaxInt64,
		Create:   func(string) (io.WriteCloser, error) { return file, nil },
	})
	if err != nil {
		return nil, err
	}
	o.Observer = push.Observers(o.Observer, recorder.Observer())
	return recorder, nil
}

// inspect serves the pages of package pushhttp, to this machine only, for they show who talks to whom, and metrics, which do not.
func inspect(s *Server, o *options) (*http.Server, error) {
	cfg := pushhttp.Config{Engine: s.push.engine, History: o.history, LoopbackDevelopment: true, Logger: o.Logger}
	o.metrics.Watch(s.push.engine)
	o.metrics.WatchHistory(o.history)
	if r, ok := o.Store.(metrics.Registrations); ok {
		o.metrics.WatchRegistrations(r)
	}
	if o.recorder != nil {
		o.metrics.WatchRecorder(o.recorder)
	}
	if s.cluster != nil {
		cfg.Cluster = s.cluster.node
		o.metrics.WatchCluster(s.cluster.node)
	}
	pages, err := pushhttp.New(cfg)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(o.metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/", pages)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	l, err := net.Listen("tcp", o.inspect)
	if err != nil {
		return nil, err
	}
	h := &http.Server{Addr: l.Addr().String(), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go h.Serve(l)
	return h, nil
}

// openStore opens the database for registrations. Without one they are in memory.
func openStore(ctx context.Context, o *options) (*sql.DB, error) {
	dialect := sqlstore.Postgres
	open := func() (*sql.DB, error) { return postgres.Open(o.database) }
	if o.database == "" {
		if err := os.MkdirAll(o.Data, 0o700); err != nil {
			return nil, err
		}
		dialect = sqlstore.SQLite
		open = func() (*sql.DB, error) { return sqlite.Open(filepath.Join(o.Data, "push.db")) }
	}
	db, err := open()
	if err != nil {
		return nil, err
	}
	store, err := sqlstore.Open(ctx, db, dialect, nil)
	if err != nil {
		db.Close()
		if dialect == sqlstore.SQLite {
			err = fmt.Errorf("%s: %w", filepath.Join(o.Data, "push.db"), err)
		}
		return nil, err
	}
	o.Store = store
	return db, nil
}

// serve runs the server until ctx is done.
func serve(ctx context.Context, o *options, stdout io.Writer) error {
	if o.record != "" {
		recorder, err := record(o)
		if err != nil {
			return err
		}
		o.recorder = recorder
		defer func() {
			if err := recorder.Close(); err != nil {
				o.Logger.Error("recording failed", "file", o.record, "err", err)
			}
		}()
	}
	if o.Data != "" || o.database != "" {
		db, err := openStore(ctx, o)
		if err != nil {
			return err
		}
		defer db.Close()
	}
	if o.history != nil {
		if o.Store == nil {
			o.Store = push.NewMemoryStore() // as without, but counted
		}
		o.metrics = pushprometheus.New(pushprometheus.Config{})
		o.Observer = push.Observers(o.Observer, o.history.Observer(), o.metrics.Observer())
	}
	s, err := NewServer(o.Config)
	if err != nil {
		return err
	}
	for _, u := range o.users {
		if err := s.AddAccount(u[0], u[1]); err != nil {
			return err
		}
	}
	if err := s.UseTLS(); err != nil {
		return err
	}
	if err := s.restore(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(o.Data, "server.db"), err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			o.Logger.Warn("closed", "err", err)
		}
	}()
	clients, err := s.ListenClients(o.c2s)
	if err != nil {
		return err
	}
	components, err := s.ListenComponents(o.component)
	if err != nil {
		return err
	}
	if o.websocket != "" {
		at, err := s.ListenWebSocket(o.websocket)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "websocket   ws://%s/xmpp-websocket   from this machine only; a proxy with TLS makes it reachable\n", at)
	}
	if o.inspect != "" {
		pages, err := inspect(s, o)
		if err != nil {
			return err
		}
		defer pages.Close()
		fmt.Fprintf(stdout, "inspector   http://%s/   why a phone did not ring: look up juliet@%s (on this machine); /metrics for Prometheus\n", pages.Addr, s.domain)
	}
	fmt.Fprintf(stdout, "domain      %s\n", s.domain)
	fmt.Fprintf(stdout, "clients     %s   STARTTLS with a self-signed certificate; without TLS from this machine only\n", clients)
	fmt.Fprintf(stdout, "components  %s   secret %s\n", components, o.ComponentSecret)
	for _, u := range o.users {
		if o.madeUp {
			fmt.Fprintf(stdout, "account     %s@%s   password %s\n", u[0], s.domain, u[1])
		} else {
			fmt.Fprintf(stdout, "account     %s@%s\n", u[0], s.domain)
		}
	}
	<-ctx.Done()
	return nil
}
