package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The story of several servers goes as it is told: a phone at one, messages at others, a component at a third, a session that moves, and a server that is killed.
func TestNodesDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	self := buildServer(t)
	cmd := exec.Command(self, "-demo", "-nodes", "3")
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	start := time.Now()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, 2, strings.Count(string(out), "the phone rings"), "%s", out)
	assert.NotContains(t, string(out), "level=", "a story, not a log")
	t.Logf("%v", time.Since(start))
}

// buildServer builds the server once, without the race detector, for which the processes would be too slow beside each other.
func buildServer(t *testing.T) string {
	self, err := built()
	require.NoError(t, err)
	return self
}

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "server") // TestMain removes it
	if err != nil {
		return "", err
	}
	buildDir = dir
	self := filepath.Join(dir, "server")
	if out, err := exec.Command("go", "build", "-o", self, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return self, nil
})

var buildDir string

// A real client whose connection is lost resumes at another server, and keeps its push.
func TestSlixmppElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	command := python("slixmpp", "python3-slixmpp", "slixmpp_life.py")(t)
	f := &nodes{ctx: t.Context(), t: newTimeline(t.Output()), self: buildServer(t)}
	t.Cleanup(func() {
		for _, p := range f.list {
			p.kill()
		}
	})
	f.start(3)
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	time.Sleep(1500 * time.Millisecond)
	script(t, command[0], append(command[1:], port(f.list[0].clients), port(f.list[2].components), "demo", "demo", port(f.list[1].clients))...)
}
