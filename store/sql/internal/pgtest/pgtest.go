// Package pgtest runs a PostgreSQL server for tests, in a temporary directory and on a free port.
package pgtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a PostgreSQL server with trusting authentication. Not safe for simultaneous use.
type Server struct {
	// URL is its database; it stays the same when the server is started again.
	URL string
	// Dir has its files, and "log".
	Dir string

	bin        string
	port       int
	safe       bool
	credential *syscall.Credential
	command    *exec.Cmd
	alive      io.Closer // the server lives as long as this is open
	pid        int
}

// programs returns the directory of the server's programs: that of PATH, of pg_config, or Debian's.
func programs() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	var dirs []string
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	for _, dir := range append(dirs, debian...) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no PostgreSQL server here; install it (Debian: apt-get install postgresql) or put its initdb into PATH")
}

// New starts a server that ends with the test. A safe one does not lose what it committed when the machine fails, which is slow. Where no server is
// installed, the test is skipped, or fails if PUSH_REQUIRE_PEERS is 1.
func New(tb testing.TB, safe bool) *Server {
	tb.Helper()
	bin, err := programs()
	if err != nil {
		missing(tb, err)
	}
	s, err := create(bin, safe)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.remove)
	return s
}

func missing(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
		tb.Fatal(err)
	}
	tb.Skip(err)
}

var shared struct {
	sync.Mutex
	*Server
}

// Shared returns the server that the tests of a package have in common: the one whose URL is in PUSH_TEST_POSTGRES, or one of its own. See Run.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	if url := os.Getenv("PUSH_TEST_POSTGRES"); url != "" {
		return &Server{URL: url}
	}
	bin, err := programs()
	if err != nil {
		missing(tb, err)
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.Server == nil {
		if shared.Server, err = create(bin, false); err != nil {
			tb.Fatal(err)
		}
	}
	return shared.Server
}

// Run is for TestMain: it runs the tests and removes the shared server.
func Run(m *testing.M) int {
	code := m.Run()
	if shared.Server != nil {
		shared.remove()
	}
	return code
}

func create(bin string, safe bool) (*Server, error) {
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, bin: bin, safe: safe}
	if err := s.init(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *Server) init() error {
	if os.Getuid() == 0 { // the server refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			return fmt.Errorf("root cannot run PostgreSQL: %w", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.Dir, uid, gid); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	s.URL = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.port)
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "-D", filepath.Join(s.Dir, "data"), "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	initdb.Dir = s.Dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s.start()
}

// Start starts the server again after Stop or Crash.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	if err := s.start(); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) start() error {
	args := []string{"-D", filepath.Join(s.Dir, "data"), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "max_connections=200"}
	if !s.safe {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	// The shell ends the server when its input ends, so that it does not outlive a test that is killed.
	script := `"$@" </dev/null >>log 2>&1 & pid=$!; echo $pid; cat >/dev/null; kill -INT $pid 2>/dev/null; wait $pid`
	s.command = exec.Command("sh", append([]string{"-c", script, "sh", filepath.Join(s.bin, "postgres")}, args...)...)
	s.command.Dir = s.Dir
	s.command.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential, Setpgid: true}
	in, err := s.command.StdinPipe()
	if err != nil {
		return err
	}
	out, err := s.command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.command.Start(); err != nil {
		return err
	}
	s.alive = in
	line, _ := bufio.NewReader(out).ReadString('\n')
	if s.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = s.ping(); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, log)
		}
	}
}

// Dump returns what pg_dump does.
func (s *Server) Dump(tb testing.TB) []byte {
	tb.Helper()
	out, err := exec.Command(filepath.Join(s.bin, "pg_dump"), s.URL).Output()
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func (s *Server) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// Stop ends the server and its connections in good order.
func (s *Server) Stop() {
	if s.command == nil {
		return
	}
	_ = s.alive.Close()
	_ = s.command.Wait()
	s.command = nil
}

// Crash ends the server as a fault would, without writing anything more.
func (s *Server) Crash() {
	_ = syscall.Kill(s.pid, syscall.SIGQUIT)
	s.Stop()
}

// Pause stops the server's processes where they are, as an overloaded machine would, until the function that it returns is called. Connections stay.
func (s *Server) Pause() (resume func()) {
	var stopped []int
	signal := func(pid int) {
		if syscall.Kill(pid, syscall.SIGSTOP) == nil {
			stopped = append(stopped, pid)
		}
	}
	signal(s.pid) // first, so that it starts no more
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ") // state, parent
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(s.pid) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				signal(pid)
			}
		}
	}
	return sync.OnceFunc(func() {
		for _, pid := range stopped {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	})
}

func (s *Server) remove() {
	s.Stop()
	_ = os.RemoveAll(s.Dir)
}
