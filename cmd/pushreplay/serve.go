package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/pushhttp"
	"github.com/xmpp-push/push/trace"
)

// maxHistory bounds how many lines of a recording are kept for its pages, some 300 bytes each.
const maxHistory = 4_000_000

// whole is a trace that was replayed to its end.
type whole struct {
	mu      sync.Mutex
	replay  *trace.Replay
	history *pushhttp.History
	last    time.Time
}

// readAll replays a trace into a history.
func readAll(in io.Reader, stderr io.Writer) (*whole, error) {
	w := &whole{history: pushhttp.NewHistory(pushhttp.HistoryConfig{Lines: maxHistory, PerAccount: maxHistory})}
	w.replay = trace.NewReplay(func(*trace.Line) {})
	w.replay.Observe(w.history.Observer())
	read := trace.NewReader(in)
	for {
		rec, err := read.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.replay.Step(rec)
		}
		if err != nil {
			return nil, err
		}
		if rec.Config == nil {
			w.last = rec.Time()
		}
	}
	w.replay.Finish()
	if n := read.Torn(); n > 0 {
		fmt.Fprintf(stderr, "pushreplay: %s in the middle and %s left out\n", plural(n, "line")+verb(n, " ends", " end"), verb(n, "was", "were"))
	}
	if n := w.replay.Differences(); n > 0 {
		fmt.Fprintf(stderr, "pushreplay: in %s this version decides otherwise than was recorded; what is shown is this version's (pushreplay -trouble has them)\n", plural(n, "place"))
	}
	return w, nil
}

// errRecording is the answer to an operator who wants a recording to do something.
var errRecording = errors.New("this is a recording")

func (w *whole) Handle(context.Context, push.Event) (push.Decision, error) {
	return push.Decision{}, errRecording
}

func (w *whole) Inspect(_ context.Context, account string) (push.AccountStatus, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replay.Inspect(account, w.last), nil
}

func (w *whole) Services() []push.ServiceStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replay.Services()
}

// serve shows the pages of a recording until it is interrupted.
func serve(in io.Reader, o options, stderr io.Writer) error {
	w, err := readAll(in, stderr)
	if err != nil {
		return err
	}
	pages, err := w.pages()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.serve)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "http://%s/   until interrupted\n", l.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s := &http.Server{Handler: pages, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (w *whole) pages() (*pushhttp.Handler, error) {
	return pushhttp.New(pushhttp.Config{Engine: w, History: w.history, LoopbackDevelopment: true, ReadOnly: true, Now: func() time.Time { return w.last }})
}

// why says what became of a message.
func why(in io.Reader, o options, stdout, stderr io.Writer) (status int, err error) {
	w, err := readAll(in, stderr)
	if err != nil {
		return 2, err
	}
	all := w.history.Explain(o.why)
	if len(all) == 0 {
		fmt.Fprintf(stderr, "pushreplay: no message %s in it\n", safe(o.why))
		return 1, nil
	}
	for _, e := range all {
		if o.user != "" && e.Account != o.user {
			continue
		}
		fmt.Fprintf(stdout, "%s  %s of %s", e.At.In(o.zone).Format("2006-01-02 15:04:05 MST"), e.Kind, safe(e.Account))
		if e.From != "" {
			fmt.Fprintf(stdout, " from %s", safe(e.From))
		}
		fmt.Fprintln(stdout)
		for _, a := range e.Answers {
			fmt.Fprintf(stdout, "  %s: %s", a.Mark, safe(a.Text))
			if a.Next != "" {
				fmt.Fprintf(stdout, "\n      %s", a.Next)
			}
			if a.Service != "" {
				fmt.Fprintf(stdout, "\n      (%s)", key(a.Service, a.Node))
			}
			fmt.Fprintln(stdout)
		}
	}
	return 0, nil
}
