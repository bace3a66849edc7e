package jetstream_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
)

// What docs/cluster.md says of backups, with NATS' own tool: all three streams are copied, everything is lost, and brought back.
func TestBackup(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("nats")
	if err != nil {
		t.Skip("no nats; go install github.com/nats-io/natscli/nats@latest")
	}
	var srv *embedded.Server
	run := func(args ...string) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, tool, append([]string{"--server", srv.URL(), "--user", "push", "--password", "s3cret"}, args...)...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	serve := func() *embedded.Server { return start(t, embedded.Config{Listen: "127.0.0.1:0", Secret: "s3cret"}) }
	svc := newService()
	srv = serve()
	n := join(t, srv, "a", svc)
	handle(t, n, push.PushEnable{Session: push.SessionID{Account: juliet}, Key: phone, Options: []push.Field{{Var: "secret", Values: []string{"s"}}}})
	handle(t, n, message("m1"))
	svc.next(t, 10*time.Second)
	dir := t.TempDir()
	streams := []string{"KV_push_snapshots", "KV_push_registrations", "PUSH_LOG"}
	for _, s := range streams {
		run("stream", "backup", s, filepath.Join(dir, s), "--no-progress")
	}
	require.NoError(t, n.Close(t.Context()))
	srv.Close()

	srv = serve()
	for _, s := range streams {
		run("stream", "restore", filepath.Join(dir, s), "--no-progress")
	}
	n = join(t, srv, "a", svc)
	handle(t, n, message("m1")) // which was notified before
	handle(t, n, message("m2"))
	got := svc.next(t, 10*time.Second)
	assert.Equal(t, 1, got.Count)
	assert.Equal(t, "s", got.Options[0].Values[0])
}
