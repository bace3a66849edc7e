package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/peer"
	"github.com/xmpp-push/push/pushhttp"
	"github.com/xmpp-push/push/trace"
)

// started runs the program, and returns what it printed at first, by its first word, and a function that ends it.
func started(t *testing.T, args ...string) (told map[string]string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	var errs bytes.Buffer
	done := make(chan int)
	go func() {
		code := run(ctx, append([]string{"-c2s", "127.0.0.1:0", "-component", "127.0.0.1:0"}, args...), w, &errs)
		w.Close()
		done <- code
	}()
	told = make(map[string]string)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 1 {
			told[f[0]] = strings.Join(f[1:], " ")
			if f[0] == "account" {
				break
			}
		}
	}
	return told, func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("exit code %d: %s", code, &errs)
		}
	}
}

func dialTCP(t testing.TB, told string) net.Conn {
	t.Helper()
	addr, _, _ := strings.Cut(told, " ")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestRestart enables push, ends the server, and is notified by the next one. What happened was recorded.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	recording := filepath.Join(dir, "trace.jsonl")
	args := []string{"-data", dir, "-user", "juliet:pw", "-component-secret", "s", "-record", recording}
	juliet := peer.Login{Domain: "localhost", User: "juliet", Password: "pw", Resource: "phone", Resumable: true}
	for round := range 2 {
		told, stop := started(t, args...)
		service, err := peer.ConnectService(dialTCP(t, told["components"]), "push.localhost", "s")
		if err != nil {
			t.Fatal(err)
		}
		phone, err := peer.Connect(dialTCP(t, told["clients"]), juliet)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if err := phone.EnablePush(t.Context(), "push.localhost", "n1", "s3"); err != nil {
				t.Fatal(err)
			}
		} else {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := phone.Chat("juliet@localhost", "a note to myself"); err != nil {
				t.Fatal(err)
			}
			p, err := service.Next(ctx) // nobody is available
			if err != nil || p.Node != "n1" || p.Secret != "s3" {
				t.Errorf("published %+v, %v", p, err)
			}
			cancel()
		}
		phone.Close()
		service.Close()
		stop()
	}
	f, err := os.Open(recording)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := make(map[string]bool)
	for r := trace.NewReader(f); ; {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		seen[rec.Type] = true
	}
	for _, want := range []string{"config", "session-open", "archive-added", "offline", "publish-result", "session-close"} {
		if !seen[want] {
			t.Errorf("the recording has no %s: %v", want, seen)
		}
	}
}

// pipes connect to a server without sockets, so that time can be virtual.
func pipes(s *Server) (client, component func() (net.Conn, error), err error) {
	client = func() (net.Conn, error) { return pipe(s.ServeClient), nil }
	component = func() (net.Conn, error) { return pipe(s.ServeComponent), nil }
	return client, component, nil
}

// TestDemoReplays tells the demo's story in virtual time and records it, and downloads Juliet's part of it from the pages. Both, without text and secrets, replay to what was decided and
// published, policy and all.
func TestDemoReplays(t *testing.T) {
	var file bytes.Buffer
	history := pushhttp.NewHistory(pushhttp.HistoryConfig{})
	var live []string
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		rec, err := trace.NewRecorder(trace.RecorderConfig{
			Create: func(string) (io.WriteCloser, error) { return unclosed{&file}, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := tell(t.Context(), newTimeline(testWriter{t}), push.Observers(rec.Observer(), history.Observer(), told(&live)), pipes, 1); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("the story takes %v", took)
		}
		if err := rec.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // for the connections to end
	})
	// The pages are those of another engine, as they are while the demo goes on serving: the history knows whose policy it was.
	other, err := push.New(push.Config{Host: "localhost", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := pushhttp.New(pushhttp.Config{Engine: other, History: history, LoopbackDevelopment: true})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "http://localhost/trace?jid=juliet@localhost", nil)
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	pages.ServeHTTP(w, r)
	for what, recording := range map[string]string{"recording": file.String(), "download": w.Body.String()} {
		for _, text := range []string{"sweet sorrow", "s3cret"} {
			if strings.Contains(recording, text) {
				t.Errorf("%q is in the %s", text, what)
			}
		}
		var again []string
		replay := trace.NewReplay(func(l *trace.Line) {
			if l.Kind == "difference" {
				t.Errorf("%s: %s", what, l.Text)
			}
		})
		replay.Observe(told(&again))
		if err := replay.Run(trace.NewReader(strings.NewReader(recording))); err != io.EOF {
			t.Fatal(err)
		}
		if len(live) < 20 || !slices.Equal(live, again) {
			t.Errorf("told:\n%s\n\n%s:\n%s", strings.Join(live, "\n"), what, strings.Join(again, "\n"))
		}
	}
}

// told notes what was decided and published for Juliet.
func told(to *[]string) *push.Observer {
	var mu sync.Mutex
	return &push.Observer{
		Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			for _, v := range d.Verdicts {
				if d.Account == "juliet@localhost" {
					*to = append(*to, fmt.Sprint(ev.Name(), " ", v.Node, " ", v.Notify, " ", v.Class, " ", v.Rule, ": ", v.Reason))
				}
			}
		},
		Sent: func(_ time.Time, n *push.Notification) {
			mu.Lock()
			defer mu.Unlock()
			if n.Account == "juliet@localhost" {
				*to = append(*to, fmt.Sprint("publish ", n.Node, " ", n.Class, " ", n.Count, " try ", n.Try))
			}
		},
	}
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// TestInspector looks at the pages.
func TestInspector(t *testing.T) {
	told, stop := started(t, "-inspect", "127.0.0.1:0", "-user", "juliet:pw")
	defer stop()
	phone, err := peer.Connect(dialTCP(t, told["clients"]), peer.Login{Domain: "localhost", User: "juliet", Password: "pw", Resource: "phone", Resumable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer phone.Close()
	if err := phone.EnablePush(t.Context(), "push.localhost", "n1", ""); err != nil {
		t.Fatal(err)
	}
	url, _, _ := strings.Cut(told["inspector"], " ")
	reply, err := http.Get(url + "account?jid=juliet@localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	page, _ := io.ReadAll(reply.Body)
	if reply.StatusCode != http.StatusOK || !strings.Contains(string(page), "juliet@localhost") || !strings.Contains(string(page), "push.localhost n1") {
		t.Errorf("%s: %s", reply.Status, page)
	}
	// The registrations are counted when they are asked for, and told the next time.
	var said string
	for range 100 {
		reply, err := http.Get(url + "metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(reply.Body)
		reply.Body.Close()
		if said = string(b); strings.Contains(said, "push_registrations{") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, want := range []string{`push_events_total{event="push-enable"} 1`, `push_registrations{state="untried"} 1`, "push_history_lines ", "go_goroutines "} {
		if !strings.Contains(said, want) {
			t.Errorf("the metrics have no %s: %s", want, said)
		}
	}
	for _, secret := range []string{"juliet", "n1"} {
		if strings.Contains(said, secret) {
			t.Errorf("the metrics have %s", secret)
		}
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"-user juliet":   "NAME:PASSWORD",
		"-user @:x":      "not the name of an account",
		"-domain a@b":    "not a domain",
		"spurious":       "unexpected argument",
		"-max-errors no": "invalid value",
		"-c2s nonsense":  "address",
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), &out, &errs); code == 0 || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: exit code %d, %s", args, code, &errs)
		}
	}
}

// TestReadyForNew asks whether the server can take the reply to a publish while the engine is being made: what is kept of before a restart goes out at once.
func TestReadyForNew(t *testing.T) {
	srv := &Server{domain: "localhost"}
	ready := false
	srv.cfg.Observer = &push.Observer{Started: func(time.Time, string, push.Policy) { ready = srv.push != nil && srv.push.router != nil }}
	p, err := newPushHost(srv)
	if err != nil {
		t.Fatal(err)
	}
	if !ready {
		t.Error("there is nobody to take it")
	}
	if err := p.engine.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRecordAgain starts a recording where there is one: the older one is still there.
func TestRecordAgain(t *testing.T) {
	o := &options{record: filepath.Join(t.TempDir(), "trace.jsonl")}
	for i := range 3 {
		if err := os.WriteFile(o.record, []byte{byte('0' + i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(o.record, time.Time{}, time.Unix(int64(1000*i), 0)); err != nil {
			t.Fatal(err)
		}
		r, err := record(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := filepath.Glob(o.record + ".*")
	if err != nil || len(kept) != 3 {
		t.Fatalf("%v, %v", kept, err)
	}
	for i, name := range kept {
		if b, err := os.ReadFile(name); err != nil || string(b) != string(byte('0'+i)) {
			t.Errorf("%s has %q, %v", name, b, err)
		}
	}
}
