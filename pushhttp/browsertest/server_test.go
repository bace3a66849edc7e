package browsertest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startDemo runs the demo of examples/server and returns the address of its pages, and what it told, once the story is over.
func startDemo(t *testing.T) (url, told string) {
	t.Helper()
	dir := filepath.Join("..", "..", "examples", "server")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("examples/server is not here")
	}
	program := filepath.Join(t.TempDir(), "server")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = dir
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.CommandContext(t.Context(), program, "-demo", "-inspect", "127.0.0.1:0")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // it ends with the test's context
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		told += lines.Text() + "\n"
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "inspector" {
			go func() {
				for lines.Scan() { // so that it can go on telling
				}
			}()
			return f[1], told
		}
	}
	t.Fatalf("the server told nothing of its pages:\n%s", told)
	return "", ""
}

var answered = regexp.MustCompile(`(?m)^ +[0-9.]+  (ack-delayed|stanza-queued|archive-added|offline|ping) +\S+ +(no|plain|important|urgent) +(.+)$`)

// What the demo of examples/server told is on the pages.
func TestServer(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	url, told := startDemo(t)
	s := &site{t: t, url: url}
	s.tab(ctx)
	s.do(goTo(s.url))
	s.see("juliet@localhost")
	for _, want := range []string{"push.localhost", "wait/resource-constraint", "device given up", "item-not-found"} {
		s.see(want)
	}
	s.shot("server-overview")
	s.follow(`#accounts a[href$="juliet%40localhost"]`)
	s.see("call")
	s.shot("server-account")
	s.do(goTo(s.url + "account?view=events&jid=juliet@localhost"))
	s.see("incoming call")
	page := s.text()
	for next := true; next; {
		if next = eval[bool](s, `document.querySelector("a[rel=next]") != null`); next {
			s.follow(`a[rel=next]`)
			page += s.text()
		}
	}
	story := answered.FindAllStringSubmatch(told, -1)
	require.Greater(t, len(story), 10, told)
	for _, m := range story {
		assert.Contains(t, page, m[1])
		assert.Contains(t, page, strings.TrimSpace(m[3]), "%s", m[0])
	}
	assert.Contains(t, page, "given up: errors of the push service (item-not-found)")
	assert.Contains(t, page, "switched off: disabled by the client")
	assert.NotContains(t, page, "sweet sorrow", "the text of a message")
	s.do(goTo(s.url + "account?view=events&only=trouble&jid=juliet@localhost"))
	s.see("resource-constraint")
	assert.NotContains(t, s.text(), "session-open")
	s.quiet()
}
