package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	self := filepath.Join(t.TempDir(), "server")
	out, err := exec.Command("go", "build", "-o", self, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(self, "-demo", "-nodes", "3")
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	start := time.Now()
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, 2, strings.Count(string(out), "the phone rings"), "%s", out)
	t.Logf("%v", time.Since(start))
}
