package embedded

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What cannot work is said at once, with the name of what to change.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	other := []string{"127.0.0.1:6333"}
	for says, cfg := range map[string]Config{
		"Config.Dir:":                {Dir: file},
		"Config.Secret is empty":     {Listen: "127.0.0.1:0"},
		"Config.Listen":              {Listen: "127.0.0.1", Secret: "s"},
		"no number":                  {Listen: "127.0.0.1:6222x", Secret: "s"},
		"Config.Cluster":             {Cluster: "127.0.0.1:99999", Node: "a", Routes: other, Secret: "s"},
		"names no other server":      {Cluster: "127.0.0.1:6334", Node: "a", Routes: []string{"127.0.0.1:6334"}, Secret: "s"},
		"Config.Routes without":      {Routes: other, Secret: "s"},
		`has "nats://host:1"`:        {Cluster: "127.0.0.1:0", Node: "a", Routes: []string{"nats://host:1"}, Secret: "s"},
		"Config.Node is empty":       {Cluster: "127.0.0.1:0", Routes: other, Secret: "s"},
		`Config.Node is "my server"`: {Node: "my server"},
		"address already in use":     {Listen: taken.Addr().String(), Secret: "s"},
	} {
		cfg.Wait = 20 * time.Second
		if cfg.Dir == "" {
			cfg.Dir = t.TempDir()
		}
		began := time.Now()
		_, err := Start(cfg)
		if assert.ErrorContains(t, err, says) {
			assert.Less(t, time.Since(began), 15*time.Second, "%s: it waits though it has failed", says)
		}
	}
}

// Two servers never have one directory; the second gets it when the first is closed.
func TestOneServerADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := Start(Config{Dir: dir})
	require.NoError(t, err)
	_, err = Start(Config{Dir: dir, Wait: 100 * time.Millisecond})
	require.ErrorContains(t, err, "is in use by another server")
	time.AfterFunc(200*time.Millisecond, first.Close)
	second, err := Start(Config{Dir: dir})
	require.NoError(t, err)
	second.Close()
}

// What a server says every second does not fill the log.
func TestLogDoesNotRepeat(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := &serverLog{to: slog.New(slog.NewTextHandler(&out, nil))}
	for i := range 100 {
		l.Errorf("127.0.0.1:%d - rid:%d - authentication error", 4000+i, i)
	}
	l.Errorf("another")
	l.Warnf("Plaintext passwords detected, use nkeys or bcrypt")
	assert.Equal(t, oftenEnough+1, strings.Count(out.String(), "\n"))
	assert.Contains(t, l.said(), "authentication error")
}
