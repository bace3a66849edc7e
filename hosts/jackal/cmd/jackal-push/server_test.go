package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	kitlog "github.com/go-kit/log"
	adminpb "github.com/ortuman/jackal/pkg/admin/pb"
	adminserver "github.com/ortuman/jackal/pkg/admin/server"
	"github.com/ortuman/jackal/pkg/auth/pepper"
	"github.com/ortuman/jackal/pkg/c2s"
	"github.com/ortuman/jackal/pkg/component/xep0114"
	"github.com/ortuman/jackal/pkg/hook"
	"github.com/ortuman/jackal/pkg/host"
	jackalserver "github.com/ortuman/jackal/pkg/jackal"
	"github.com/ortuman/jackal/pkg/log"
	usermodel "github.com/ortuman/jackal/pkg/model/user"
	"github.com/ortuman/jackal/pkg/s2s"
	"github.com/ortuman/jackal/pkg/storage"
	"github.com/stretchr/testify/require"
	"github.com/xmpp-push/push"
	pushjackal "github.com/xmpp-push/push/hosts/jackal"
	"github.com/xmpp-push/push/trace"
	"google.golang.org/grpc"
)

const (
	juliet = "juliet@localhost"
	romeo  = "romeo@localhost"
)

var (
	roots    *x509.CertPool
	certFile string
	keyFile  string
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "jackal-push")
	if err == nil {
		err = makeCertificate(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("SSL_CERT_FILE", certFile) // other servers are checked against the system's authorities
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func makeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost", "shakespeare.example"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600)
}

// testServer is the server of the recipe on loopback.
type testServer struct {
	t                          *testing.T
	server                     *server
	clients, components, admin string
	seen                       watcher
	conns                      []net.Conn
}

// start starts a server with its data in dir. What it records is replayed when it stops.
func start(t *testing.T, dir string, cfg pushjackal.Config) *testServer {
	t.Helper()
	return startWith(t, dir, cfg, func(*jackalserver.Config) {})
}

// startWith is start with another configuration of jackal's.
func startWith(t *testing.T, dir string, cfg pushjackal.Config, change func(*jackalserver.Config)) *testServer {
	t.Helper()
	ts := &testServer{t: t, seen: watcher{next: make(map[[2]string]int), changed: make(chan struct{}), left: make(chan struct{}, 16)}}
	var jc jackalserver.Config
	jc.Hosts = host.Configs{{Domain: "localhost"}}
	jc.Hosts[0].TLS.CertFile, jc.Hosts[0].TLS.PrivateKeyFile = certFile, keyFile
	jc.Storage = storageIn(dir)
	jc.Modules.Offline.QueueSize, jc.Modules.Mam.QueueSize = 100, 100
	jc.Modules.Stream.RequestAckInterval, jc.Modules.Stream.WaitForAckTimeout, jc.Modules.Stream.MaxQueueSize = time.Hour, time.Hour, 250
	port := func() (int, string) {
		p := freePort(t)
		return p, fmt.Sprint("127.0.0.1:", p)
	}
	client := c2s.ListenerConfig{
		BindAddr: "127.0.0.1", Transport: "socket", CompressionLevel: "no_compression", ResourceConflict: "terminate_old", MaxStanzaSize: 1 << 19,
		ConnectTimeout: patience, AuthenticateTimeout: patience, KeepAliveTimeout: time.Hour, RequestTimeout: patience,
	}
	client.SASL.Mechanisms = []string{"scram_sha_256"}
	component := xep0114.ListenerConfig{
		BindAddr: "127.0.0.1", ConnectTimeout: patience, KeepAliveTimeout: time.Hour, RequestTimeout: patience, MaxStanzaSize: 1 << 19,
	}
	jc.Admin = adminserver.Config{BindAddr: "127.0.0.1"}
	client.Port, ts.clients = port()
	component.Port, ts.components = port()
	jc.Admin.Port, ts.admin = port()
	jc.C2S.Listeners = c2s.ListenersConfig{client}
	jc.Components.Listeners = xep0114.ListenersConfig{component}
	jc.S2S.Out = s2s.OutConfig{DialTimeout: time.Second, RequestTimeout: time.Second, DialbackSecret: "s"}

	change(&jc)
	var tape tape
	recorder, err := trace.NewRecorder(trace.RecorderConfig{Create: tape.create})
	require.NoError(t, err)
	cfg.Push.Observer = push.Observers(cfg.Push.Observer, recorder.Observer(), ts.seen.observer())
	logger := kitlog.NewNopLogger()
	if testing.Verbose() && os.Getenv("JACKAL_LOG") != "" {
		logger = log.NewDefaultLogger("debug", "")
	}
	ts.server, err = newServer(jc, cfg, logger)
	require.NoError(t, err)
	ts.server.hooks.AddHook(hook.ExternalComponentUnregistered, func(*hook.ExecutionContext) error {
		ts.seen.left <- struct{}{}
		return nil
	}, hook.LowestPriority)
	require.NoError(t, ts.server.Start(t.Context()))
	t.Cleanup(func() {
		ts.stop()
		for _, c := range ts.conns {
			c.Close()
		}
		require.NoError(t, recorder.Close())
		ts.seen.compare(t, &tape)
	})
	return ts
}

// freePort returns a port at which a server may listen in a moment. It is none of those that operating systems give to connections, which may take such a port
// before the server does.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 10000 + mathrand.IntN(20000)
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
}

// stop stops the server, once.
func (ts *testServer) stop() {
	if ts.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(ts.t, ts.server.Stop(ctx))
	ts.server = nil
}

// dial connects to the server until the test is over.
func (ts *testServer) dial(addr string) net.Conn {
	ts.t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(ts.t, err)
	ts.conns = append(ts.conns, conn)
	return conn
}

// users gives the test its administrator's client.
func (ts *testServer) users() adminpb.UsersClient {
	conn, err := grpc.Dial(ts.admin, grpc.WithInsecure())
	require.NoError(ts.t, err)
	ts.t.Cleanup(func() { conn.Close() })
	return adminpb.NewUsersClient(conn)
}

// addUsers adds the two accounts, before a server runs there. Their passwords are hashed in less time than jackal takes.
func addUsers(t *testing.T, dir string) {
	t.Helper()
	const iterations = 16
	store, err := storage.New(storageIn(dir), kitlog.NewNopLogger())
	require.NoError(t, err)
	require.NoError(t, store.Start(t.Context()))
	peppers, err := pepper.NewKeys(pepper.Config{})
	require.NoError(t, err)
	for _, name := range []string{"juliet", "romeo"} {
		salt := []byte("salt of " + name)
		key, err := pbkdf2.Key(sha256.New, "secret", salt, iterations, sha256.Size)
		require.NoError(t, err)
		require.NoError(t, store.UpsertUser(t.Context(), &usermodel.User{Username: name, Scram: &usermodel.Scram{
			Sha256: base64.RawURLEncoding.EncodeToString(key), Salt: base64.RawURLEncoding.EncodeToString(salt),
			IterationCount: iterations, PepperId: peppers.GetActiveID(),
		}}))
	}
	require.NoError(t, store.Stop(t.Context()))
}

func storageIn(dir string) (c storage.Config) {
	c.Type, c.BoltDB.Path = "boltdb", filepath.Join(dir, "jackal.db")
	return c
}

// decision is what the engine said of one registration, or, if there is none, of an event.
type decision struct {
	event, account, node string
	notify               bool
	class, rule, reason  string
	stanzas              string
}

// watcher sees what the engine decides.
type watcher struct {
	mu      sync.Mutex
	all     []decision
	next    map[[2]string]int // where to look on, by event and account
	advice  []push.Advice
	changes []push.Change
	changed chan struct{}
	left    chan struct{} // a component has gone
}

// gone waits until a component has gone.
func (w *watcher) gone(t *testing.T) {
	t.Helper()
	select {
	case <-w.left:
	case <-time.After(patience):
		require.FailNow(t, "the component is still there")
	}
}

func (w *watcher) observer() *push.Observer {
	return &push.Observer{
		Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if d.Reason != push.ReasonNone || len(d.Verdicts) == 0 {
				w.all = append(w.all, decision{event: ev.Name(), account: d.Account, reason: d.Reason.String()})
			}
			for _, v := range d.Verdicts {
				w.all = append(w.all, decision{
					ev.Name(), d.Account, v.Node, v.Notify, v.Class.String(), v.Rule.String(), v.Reason.String(), fmt.Sprint(v.Stanzas),
				})
			}
			w.advice = append(w.advice, d.Advice...)
			w.changes = append(w.changes, d.Changes...)
			w.tell()
		},
		Affected: func(_ string, _ time.Time, e *push.Effects) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.advice = append(w.advice, e.Advice...)
			w.changes = append(w.changes, e.Changes...)
			w.tell()
		},
	}
}

// tell wakes whoever waits. w is locked.
func (w *watcher) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// changed waits until a registration has changed in that way.
func (ts *testServer) changed(kind push.ChangeKind, account string) {
	ts.t.Helper()
	w := &ts.seen
	timeout := time.After(patience)
	for {
		w.mu.Lock()
		for _, c := range w.changes {
			if c.Kind == kind {
				w.mu.Unlock()
				return
			}
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			require.FailNow(ts.t, "no registration of "+account+" was "+string(kind))
		}
	}
}

// decided waits for the next decision on such an event.
func (ts *testServer) decided(event, account string) decision {
	ts.t.Helper()
	w := &ts.seen
	timeout := time.After(patience)
	for {
		w.mu.Lock()
		next := [2]string{event, account}
		for w.next[next] < len(w.all) {
			d := w.all[w.next[next]]
			w.next[next]++
			if d.event == event && d.account == account {
				w.mu.Unlock()
				return d
			}
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			require.FailNow(ts.t, "no "+event+" of "+account, "%+v", w.all)
		}
	}
}

// advised waits for the i-th advice on a resumption timeout.
func (ts *testServer) advised(i int) time.Duration {
	ts.t.Helper()
	w := &ts.seen
	timeout := time.After(patience)
	for {
		w.mu.Lock()
		changed, got := w.changed, w.advice
		w.mu.Unlock()
		if i < len(got) {
			return got[i].Timeout
		}
		select {
		case <-changed:
		case <-timeout:
			require.FailNow(ts.t, "no advice")
		}
	}
}

// compare checks that the recording replays to what was decided.
func (w *watcher) compare(t *testing.T, tape *tape) {
	t.Helper()
	live, again := make(map[string][]decision), make(map[string][]decision)
	for _, d := range w.all {
		if d.reason != push.ReasonNone.String() {
			live[d.account] = append(live[d.account], d)
		}
	}
	replay := trace.NewReplay(func(l *trace.Line) {
		if l.Kind != "decision" {
			return
		}
		d := decision{event: l.Type, account: l.User, reason: l.Reason}
		if l.Node != nil {
			d = decision{l.Type, l.User, *l.Node, *l.Notify, l.Class, l.Rule, l.Reason, fmt.Sprint(l.Stanzas)}
		}
		again[d.account] = append(again[d.account], d)
	})
	require.ErrorIs(t, replay.Run(trace.NewReader(&tape.Buffer)), io.EOF)
	replay.Finish()
	require.Equal(t, live, again, "the recording replays otherwise")
}

// tape is a recording.
type tape struct{ bytes.Buffer }

func (t *tape) create(string) (io.WriteCloser, error) { return t, nil }
func (t *tape) Close() error                          { return nil }
