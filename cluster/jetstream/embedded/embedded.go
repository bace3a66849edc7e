// Package embedded runs a NATS server with JetStream inside the host's process, for hosts that have no NATS of their own: one server with a file is the
// durable mode of a single machine, and three that know each other are a cluster without any other software.
//
// Servers in a cluster elect a leader when they have not heard of one for 2 to 4 seconds; NATS by itself takes 4 to 9. It is so for every NATS server of
// the process.
package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/xmpp-push/push/internal/filelock"
)

// Config is what a Server needs. The zero value is a server of its own, in memory, that listens nowhere.
type Config struct {
	// Dir is where everything is kept, by this server alone: Start waits for another process that still has it, and fails. Empty means a temporary directory that
	// Close removes: nothing survives the process then.
	Dir string
	// Node is the server's name, unique in the cluster. Required with Cluster, else "push" by default.
	Node string
	// Listen is where clients of NATS connect, "host:port"; port 0 means any. They need the user "push" and Secret as password. Empty: nowhere, only Conn
	// reaches it.
	Listen string
	// Cluster is where the other servers connect, "host:port". Empty: it is alone. Routes are those of all the others, required with Cluster; this one's own is passed over.
	Cluster string
	Routes  []string
	// Secret keeps strangers out; every server of the cluster has the same. It travels in clear, so the network between them has to be a trusted one, or a
	// tunnel. Required with Cluster or Listen.
	Secret string
	// Sync writes every append to the disk itself before it is acknowledged, so that a machine that loses power loses nothing; each takes as long as the disk needs.
	// Without, an append survives the end of the process by whatever signal, and power failures only as far as other replicas have it.
	Sync bool
	// MaxBytes bounds what is kept. Default: what the disk has.
	MaxBytes int64
	// Wait bounds how long Start waits for the server. Default 30 s.
	Wait time.Duration
	// Logger gets what the server warns of and fails at, and at level debug what else it tells. Nil means none.
	Logger *slog.Logger
}

// Server is a running NATS server.
type Server struct {
	s         *server.Server
	conn      *nats.Conn
	lock      *os.File
	temporary string // to be removed
}

// Start runs a server and connects to it inside the process.
func Start(cfg Config) (*Server, error) {
	temporary := ""
	if cfg.Dir == "" {
		dir, err := os.MkdirTemp("", "push-nats-")
		if err != nil {
			return nil, fmt.Errorf("embedded: %w", err)
		}
		cfg.Dir, temporary = dir, dir
	}
	e, err := start(cfg)
	if err != nil {
		if temporary != "" {
			_ = os.RemoveAll(temporary)
		}
		return nil, err
	}
	e.temporary = temporary
	return e, nil
}

func start(cfg Config) (*Server, error) {
	o, err := cfg.options()
	if err != nil {
		return nil, err
	}
	wait := cfg.Wait
	if wait == 0 {
		wait = 30 * time.Second
	}
	until := time.Now().Add(wait)
	lock, err := lockDir(cfg.Dir, until)
	if err != nil {
		return nil, err
	}
	e, err := run(cfg, o, until)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	e.lock = lock
	return e, nil
}

// lockDir keeps a directory for this server: two that write the same files destroy them.
func lockDir(dir string, until time.Time) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("embedded: Config.Dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "push.lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("embedded: Config.Dir: %w", err)
	}
	for {
		ok, err := filelock.Try(f)
		if err == nil && ok {
			return f, nil
		}
		if err == nil && time.Now().Before(until) { // one that is being closed
			time.Sleep(20 * time.Millisecond)
			continue
		}
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("embedded: Config.Dir: %w", err)
		}
		return nil, fmt.Errorf("embedded: Config.Dir %q is in use by another server; end that one, or give each a directory of its own", dir)
	}
}

// options checks cfg and makes NATS' options of it.
func (cfg Config) options() (*server.Options, error) {
	o := &server.Options{
		ServerName: cfg.Node, JetStream: true, StoreDir: cfg.Dir, NoSigs: true, NoLog: true, DontListen: cfg.Listen == "" && cfg.Cluster == "",
		SyncAlways: cfg.Sync, JetStreamMaxStore: cfg.MaxBytes, JetStreamMaxMemory: 64 << 20, MaxPayload: 8 << 20, DisableShortFirstPing: true,
	}
	if strings.ContainsAny(cfg.Node, " .*>\t\r\n") {
		return nil, fmt.Errorf("embedded: Config.Node is %q; a name has no spaces, dots, stars or brackets", cfg.Node)
	}
	if o.ServerName == "" {
		o.ServerName = "push"
	}
	if (cfg.Listen != "" || cfg.Cluster != "") && cfg.Secret == "" {
		return nil, errors.New("embedded: Config.Secret is empty; whoever reaches the port could read and write everything")
	}
	listen := cfg.Listen
	o.Username, o.Password = "push", cfg.Secret
	if listen == "" { // a server of a cluster has to listen somewhere; this one lets nobody in
		listen, o.Password = "127.0.0.1:0", rand.Text()
	}
	var err error
	if o.Host, o.Port, err = split(listen); err != nil {
		return nil, fmt.Errorf("embedded: Config.Listen: %w", err)
	}
	if cfg.Cluster == "" {
		if len(cfg.Routes) > 0 {
			return nil, errors.New("embedded: Config.Routes without Config.Cluster; say where the other servers connect to this one")
		}
		return o, nil
	}
	if cfg.Node == "" {
		return nil, errors.New("embedded: Config.Node is empty; each server of a cluster needs a name of its own")
	}
	o.Cluster = server.ClusterOpts{Name: "push", NoAdvertise: true, ConnectRetries: 1 << 30, PoolSize: -1, Username: "push", Password: cfg.Secret}
	if o.Cluster.Host, o.Cluster.Port, err = split(cfg.Cluster); err != nil {
		return nil, fmt.Errorf("embedded: Config.Cluster: %w", err)
	}
	for _, r := range cfg.Routes {
		if r == cfg.Cluster { // NATS would count it as one more server, of which more than half have to be there at the first start
			continue
		}
		if _, port, err := split(r); err != nil || port <= 0 {
			return nil, fmt.Errorf("embedded: Config.Routes has %q; an address is host:port", r)
		}
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: r, User: url.UserPassword("push", cfg.Secret)})
	}
	if len(o.Routes) == 0 {
		return nil, errors.New("embedded: Config.Routes names no other server; leave Config.Cluster empty for one that is alone")
	}
	return o, nil
}

// run starts the server and connects to it.
func run(cfg Config, o *server.Options, until time.Time) (*Server, error) {
	if cfg.Cluster != "" {
		quickElections()
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	said := &serverLog{to: cfg.Logger, fatal: make(chan struct{})}
	if said.to == nil {
		said.to = slog.New(slog.DiscardHandler)
	}
	s.SetLoggerV2(said, false, false, false)
	s.Start()
	for !s.ReadyForConnections(100 * time.Millisecond) {
		select {
		case <-said.fatal:
		default:
			if time.Now().Before(until) {
				continue
			}
		}
		s.Shutdown()
		return nil, fmt.Errorf("embedded: the NATS server does not come up; is its port free, and its directory writable?%s", said.said())
	}
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.UserInfo(o.Username, o.Password), nats.Name("push "+o.ServerName), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("embedded: %w", err)
	}
	return &Server{s: s, conn: conn}, nil
}

func split(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %s: the port is no number from 0 to 65535", addr)
	}
	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(n), nil
}

// Conn is a connection inside the process, for jetstream.Config.Conn. Close ends it.
func (s *Server) Conn() *nats.Conn {
	if s == nil {
		return nil
	}
	return s.conn
}

// URL is where clients of NATS connect; empty if it listens nowhere.
func (s *Server) URL() string { return s.s.ClientURL() }

// ClusterAddr is where other servers connect; empty if it is alone.
func (s *Server) ClusterAddr() string {
	if a := s.s.ClusterAddr(); a != nil {
		return a.String()
	}
	return ""
}

// Close ends the server. Close the Node before. Of one that did not start it does nothing.
func (s *Server) Close() {
	if s == nil || s.conn == nil {
		return
	}
	s.conn.Close()
	s.s.Shutdown()
	s.s.WaitForShutdown()
	_ = s.lock.Close()
	if s.temporary != "" {
		_ = os.RemoveAll(s.temporary)
	}
}
