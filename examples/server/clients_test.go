package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// Tests with programs of others, over TCP. A program that is missing skips its test, unless PUSH_REQUIRE_PEERS says that it must be there.

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s", what)
}

// listening runs a server with accounts juliet and romeo, and returns its ports.
func listening(t *testing.T) (s *Server, c2s, component string) {
	s, err := NewServer(Config{
		Domain: "localhost", ComponentSecret: "component secret",
		AckDelay: 3 * time.Second, ResumeTimeout: time.Minute, MaxResume: time.Hour, MaxErrors: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []string{"juliet", "romeo"} {
		if err := s.AddAccount(u, "pässword"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.UseTLS(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	port := func(a net.Addr, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(a.(*net.TCPAddr).Port)
	}
	return s, port(s.ListenClients("127.0.0.1:0")), port(s.ListenComponents("127.0.0.1:0"))
}

// script runs a program that exits with 0 if all is well.
func script(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Logf("%s", strings.TrimSpace(out.String()))
	if err != nil {
		t.Fatal(err)
	}
}

// clientPrograms are clients of others, each a small program around the library. It is told its server's port and a password, reads commands from standard
// input and writes what happens to standard output, a line each:
//
//	(at first)  online, with what it logged in
//	enable      enabled: it has enabled push with push.localhost, node n1, secret s3
//	            got TEXT, for a message; lost, when the connection is gone
//	resume      resumed, once it is connected again in the same session, or online if that is a new one
//	archive     archived TEXT, for each of the last ten messages of the archive; then end
//	close       closed, once it has ended its session in good order
var clientPrograms = []struct {
	name string
	// prepare returns what to run, or says what is missing.
	prepare func(t *testing.T) []string
	login   string
	// again: it does not resume but starts again, for this reason.
	again string
	// known: it tells its name when it logs in, so that it need not enable push again.
	known bool
	// websocket: it connects with that.
	websocket bool
}{
	{name: "slixmpp", login: "SCRAM-SHA-256", prepare: python("slixmpp", "python3-slixmpp", "slixmpp_client.py")},
	{name: "nbxmpp", login: "SASL", prepare: python("nbxmpp", "python3-nbxmpp", "nbxmpp_client.py")},
	{name: "aioxmpp", login: "SASL", prepare: python("aioxmpp", "python3-aioxmpp", "aioxmpp_client.py")},
	{name: "libstrophe", login: "SASL", prepare: compiled("strophe_client.c", "libstrophe", "libstrophe-dev gcc pkg-config")},
	{name: "QXmpp", login: "SASL", again: "1.4.0 sends <resume/> without namespace and previd", prepare: compiled("qxmpp_client.cpp", "qxmpp Qt5Network Qt5Xml", "libqxmpp-dev g++ pkg-config")},
	{name: "xmpp.js", login: "SASL2", known: true, prepare: xmppjs("tcp")},
	{name: "xmpp.js over WebSocket", login: "SASL2", known: true, websocket: true, prepare: xmppjs("ws")},
}

func xmppjs(kind string) func(t *testing.T) []string {
	return func(t *testing.T) []string {
		if _, err := os.Stat("testdata/xmppjs/node_modules/@xmpp/client"); err != nil {
			missing(t, "xmpp.js; with node: npm ci --prefix examples/server/testdata/xmppjs")
		}
		return []string{"node", "testdata/xmppjs/client.mjs", kind}
	}
}

// python runs a script with a Python that has a module, which the distribution's may have if the first one has not.
func python(module, debian, script string) func(t *testing.T) []string {
	return func(t *testing.T) []string {
		for _, name := range []string{"python3", "/usr/bin/python3"} {
			if exec.Command(name, "-c", "import "+module).Run() == nil {
				return []string{name, "-u", "testdata/" + script}
			}
		}
		missing(t, module+"; on Debian: apt-get install "+debian)
		return nil
	}
}

// compiled compiles a program in C or C++ against libraries.
func compiled(source, libraries, debian string) func(t *testing.T) []string {
	return func(t *testing.T) []string {
		flags, err := exec.Command("pkg-config", append([]string{"--cflags", "--libs"}, strings.Fields(libraries)...)...).Output()
		if err != nil {
			missing(t, libraries+"; on Debian: apt-get install "+debian)
		}
		program := filepath.Join(t.TempDir(), "client")
		compiler := "cc"
		if strings.HasSuffix(source, ".cpp") {
			compiler = "c++"
		}
		args := append([]string{"-fPIC", "-o", program, "testdata/" + source}, strings.Fields(string(flags))...)
		if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", source, err, out)
		}
		return []string{program}
	}
}

// clientProgram is one that runs.
type clientProgram struct {
	t     *testing.T
	in    io.WriteCloser
	lines chan string
}

func runClient(t *testing.T, command []string, port, password string) *clientProgram {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], port, password)...)
	cmd.Env = append(os.Environ(), "NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1") // the certificate is self-signed
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &clientProgram{t: t, in: in, lines: make(chan string, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		cancel()
		<-ended
		cmd.Wait()
		if t.Failed() {
			t.Logf("its standard error:\n%s", &errs)
		}
	})
	return p
}

// do gives a command.
func (p *clientProgram) do(command string) { fmt.Fprintln(p.in, command) }

// until waits for a line, and returns those before it.
func (p *clientProgram) until(want string) (before []string) {
	p.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("it ended before it said %q, but after %q", want, before)
			}
			if line == want {
				return before
			}
			before = append(before, line)
		case <-timeout:
			p.t.Fatalf("it did not say %q in time, but %q", want, before)
		}
	}
}

// cutter is a connection to a server that can be cut.
type cutter struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{Listener: l}
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", "127.0.0.1:"+to)
			if err != nil {
				here.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, here, there)
			c.mu.Unlock()
			for _, p := range [][2]net.Conn{{here, there}, {there, here}} {
				go func() {
					io.Copy(p[0], p[1])
					p[0].(*net.TCPConn).CloseWrite()
				}()
			}
		}
	}()
	return c
}

func (c *cutter) port() string { return fmt.Sprint(c.Addr().(*net.TCPAddr).Port) }

// cut resets what is connected.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	c.conns = nil
}

// TestClients lets clients of several families log in, enable push, lose the connection, be woken, resume, leave, be woken, and fetch from the archive.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other programs")
	}
	for _, c := range clientPrograms {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			command := c.prepare(t)
			s, c2s, component := listening(t)
			plain := c2s
			if c.websocket {
				at, err := s.ListenWebSocket("127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				c2s = fmt.Sprint(at.(*net.TCPAddr).Port)
			}
			line := newCutter(t, c2s)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
			defer cancel()
			dial := func(port string) net.Conn { return dialTCP(t, "127.0.0.1:"+port) }
			service, err := peer.ConnectService(dial(component), pushDomain, "component secret")
			if err != nil {
				t.Fatal(err)
			}
			romeo, err := peer.Connect(dial(plain), peer.Login{Domain: "localhost", User: "romeo", Password: "pässword", Resource: "r"})
			if err != nil {
				t.Fatal(err)
			}
			say := func(text string) {
				t.Helper()
				if _, err := romeo.Chat("juliet@localhost", text); err != nil {
					t.Fatal(err)
				}
			}
			published := func(what string) {
				t.Helper()
				p, err := service.Next(ctx)
				if err != nil || p.Node != "n1" || p.Secret != "s3" || !p.Alert || p.From != "localhost" {
					t.Fatalf("%s: published %+v, %v", what, p, err)
				}
			}
			quiet := func(what string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
				if p, err := service.Next(ctx); err == nil {
					t.Errorf("%s: published %+v", what, p)
				}
			}
			gone := func() {
				t.Helper()
				for len(s.sessions("juliet")) > 0 {
					if ctx.Err() != nil {
						t.Fatal("its session does not end")
					}
					time.Sleep(5 * time.Millisecond)
				}
			}

			// acknowledged waits until the client has acknowledged what it was sent.
			acknowledged := func() {
				t.Helper()
				a := s.accountNamed("juliet")
				for {
					a.mu.Lock()
					waiting := 0
					for _, x := range a.sessions {
						waiting += len(x.sm.queue)
					}
					a.mu.Unlock()
					if waiting == 0 {
						return
					}
					if ctx.Err() != nil {
						t.Fatalf("%d stanzas are not acknowledged", waiting)
					}
					time.Sleep(5 * time.Millisecond)
				}
			}

			p := runClient(t, command, line.port(), "pässword")
			p.until("online " + c.login)
			p.do("enable")
			p.until("enabled")
			say("while it is there")
			p.until("got while it is there")
			quiet("while it is there")

			acknowledged()
			line.cut()
			p.until("lost")
			say("while it sleeps")
			published("while it sleeps")
			p.do("resume")
			back := "resumed"
			if c.again != "" {
				back = "online " + c.login
			}
			if before := p.until("got while it sleeps"); !slices.Contains(before, back) {
				p.until(back)
			}
			if c.again != "" {
				p.do("enable")
				p.until("enabled")
			}
			say("after it resumed")
			p.until("got after it resumed")
			quiet("after it resumed")

			acknowledged()
			p.do("close")
			p.until("closed")
			gone()
			say("while it is away")
			published("while it is away")

			p = runClient(t, command, line.port(), "pässword")
			p.until("online " + c.login)
			p.do("archive")
			var got []string
			for _, l := range p.until("end") {
				if text, ok := strings.CutPrefix(l, "archived "); ok {
					got = append(got, text)
				}
			}
			if want := []string{"while it is there", "while it sleeps", "after it resumed", "while it is away"}; !slices.Equal(got, want) {
				t.Errorf("the archive had %q", got)
			}
			say("when it is back")
			p.until("got when it is back")
			if c.known {
				quiet("it did not enable again, but is known")
			} else {
				published("it did not enable again")
			}
			acknowledged()
			p.do("close")
			p.until("closed")
			gone()
			romeo.Close()
			service.Close()
		})
	}
}

// TestSlixmpp is a longer story, with a component of slixmpp's too.
func TestSlixmpp(t *testing.T) {
	t.Parallel()
	command := python("slixmpp", "python3-slixmpp", "slixmpp_life.py")(t)
	_, c2s, component := listening(t)
	script(t, command[0], append(command[1:], c2s, component, "component secret", "pässword")...)
}

// TestDemo runs what the README shows first. How it goes in time that nobody disturbs is seen by TestDemoReplays.
func TestDemo(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-demo", "-once"}, &out, &errs); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, &out, &errs)
	}
	if !strings.Contains(out.String(), "All went as told, in ") {
		t.Errorf("it ends otherwise: %s", &out)
	}
}
