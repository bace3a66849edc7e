package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/keep"
	"mellium.im/xmpp/jid"
)

// Config is what the server's flags say.
type Config struct {
	Domain          string
	ComponentSecret string
	// AckDelay is how long a request for acknowledgement may stay unanswered before that is an event.
	AckDelay time.Duration
	// ResumeTimeout is how long a hibernated session can be resumed, MaxResume how long the push engine may have it extended to.
	ResumeTimeout, MaxResume time.Duration
	// MaxErrors disables a registration.
	MaxErrors int
	// StrangersPerAddress is how many connections of one address may be logging in at a time. 0: 100; negative: any number. Those of this machine are not counted.
	StrangersPerAddress int
	// Policy is the rest of the push policy.
	Policy push.Policy
	Store  push.Store
	// Data is the folder for what must survive a restart. Without one it is in memory.
	Data     string
	Observer *push.Observer
	Logger   *slog.Logger
	// Cluster makes the server a node of one; see cluster.go.
	Cluster ClusterConfig
}

// Server is a small XMPP server: clients, components, and no other servers.
type Server struct {
	cfg    Config
	domain string
	tls    *tls.Config
	push   *pushHost
	// cluster is nil for a server of its own.
	cluster *clustered
	keep    *keep.Keep
	log     *slog.Logger

	accounts sync.Map // of localpart to *account

	mu         sync.Mutex
	components map[string]*stream // by domain
	listeners  []net.Listener
	streams    map[*stream]struct{}
	closed     bool
	stopping   atomic.Bool // sessions outlive their connections, for the next start
	serving    sync.WaitGroup
	strangers  strangers
}

// NewServer returns a server without accounts that listens nowhere.
func NewServer(cfg Config) (*Server, error) {
	domain, err := jid.Parse(cfg.Domain)
	if err != nil || domain.Domain().String() != domain.String() {
		return nil, fmt.Errorf("%q is not a domain", cfg.Domain)
	}
	s := &Server{
		cfg: cfg, domain: domain.String(), log: cfg.Logger,
		components: make(map[string]*stream), streams: make(map[*stream]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.keep, err = keep.Open(cfg.Data, "server.db", []string{schema + pepSchema}, s.log); err != nil {
		return nil, err
	}
	if _, err = newPushHost(s); err != nil {
		s.keep.Close()
		return nil, err
	}
	if s.cluster != nil {
		if err := s.cluster.start(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// AddAccount creates an account.
func (s *Server) AddAccount(name, password string) error {
	j, err := jid.New(name, s.domain, "")
	if err != nil || name == "" {
		return fmt.Errorf("%q is not the name of an account", name)
	}
	s.accounts.Store(j.Localpart(), newAccount(s, j, password))
	return nil
}

// UseTLS makes a key and a certificate that nobody else vouches for, and offers STARTTLS from then on.
func (s *Server) UseTLS() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: s.domain},
		DNSNames:     []string{s.domain},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(365 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return nil
}

// ListenClients accepts clients at an address, ListenComponents components (XEP-0114). Port 0 means a free one; they return the real address.
func (s *Server) ListenClients(addr string) (net.Addr, error) { return s.listen(addr, s.ServeClient) }
func (s *Server) ListenComponents(addr string) (net.Addr, error) {
	return s.listen(addr, s.ServeComponent)
}

func (s *Server) listen(addr string, serve func(net.Conn)) (net.Addr, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
	s.serving.Add(1)
	go func() {
		defer s.serving.Done()
		var said time.Time
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				if time.Since(said) > time.Minute { // it fails ten times a second for as long as it does
					said = time.Now()
					s.log.Warn("accept failed", "err", err)
				}
				time.Sleep(100 * time.Millisecond) // out of file descriptors, most likely
				continue
			}
			go serve(conn)
		}
	}()
	return l.Addr(), nil
}

// admit counts a stream in, unless the server is closed.
func (s *Server) admit(t *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.streams[t] = struct{}{}
	s.serving.Add(1)
	return true
}

func (s *Server) dismiss(t *stream) {
	s.mu.Lock()
	delete(s.streams, t)
	s.mu.Unlock()
	s.serving.Done()
}

// Close ends all connections and sends what the push engine still has to send. Sessions that can be resumed go on when the server is started again, if it
// keeps its data; else they end.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	if s.keep.Durable {
		s.stopping.Store(true)
	} else {
		for a := range s.allAccounts() {
			s.route(a.endAll("system-shutdown")...)
		}
	}
	s.closeStreams(func(t *stream) bool { return t.space == element.NSClient })
	if s.cluster != nil {
		defer s.cluster.close()
	}
	err := s.push.engine.Close(ctx) // once nothing comes in any more, and while the components are still there
	s.closeStreams(func(*stream) bool { return true })
	s.serving.Wait()
	for a := range s.allAccounts() {
		a.freeze()
	}
	return errors.Join(err, s.keep.Close())
}

// closeStreams closes streams, and waits until what was read from them is dealt with.
func (s *Server) closeStreams(which func(*stream) bool) {
	var ts []*stream
	s.mu.Lock()
	for t := range s.streams {
		if which(t) {
			ts = append(ts, t)
		}
	}
	s.mu.Unlock()
	for _, t := range ts {
		t.close("system-shutdown")
	}
	for _, t := range ts {
		<-t.served
	}
}

// newID returns a string that is unique and cannot be guessed.
func newID() string {
	var b [15]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
