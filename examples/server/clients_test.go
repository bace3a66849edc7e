package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
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

func TestSlixmpp(t *testing.T) {
	python := ""
	for _, name := range []string{"python3", "/usr/bin/python3"} { // the distribution's need not be the first
		if exec.Command(name, "-c", "import slixmpp").Run() == nil {
			python = name
		}
	}
	if python == "" {
		missing(t, "slixmpp; on Debian: apt-get install python3-slixmpp")
	}
	_, c2s, component := listening(t)
	script(t, python, "testdata/slixmpp_life.py", c2s, component, "component secret", "pässword")
}

// TestDemo runs what the README shows first.
func TestDemo(t *testing.T) {
	var out, errs bytes.Buffer
	began := time.Now()
	if code := run(t.Context(), []string{"-demo", "-once"}, &out, &errs); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, &out, &errs)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the story takes %v", took)
	}
}
