// Command pushreplay replays traces of an XMPP server and explains, for every event, which devices would have been notified, when, and why,
// and which would not, and why not.
//
//	pushreplay [flags] [TRACE…]
//
// Without a file it reads standard input. It exits with status 2 at a line that it cannot use, after printing what was decided up to there.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/xmpp-push/push/trace"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are the command's flags.
type options struct {
	format, color, user, since string
	summary                    bool
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var o options
	fs := flag.NewFlagSet("pushreplay", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.format, "format", "text", "`text` for people, or json, one object a line")
	fs.StringVar(&o.color, "color", "auto", "`when` to use colour: auto, always or never")
	fs.StringVar(&o.user, "user", "", "show only this account's events (a bare `JID`)")
	fs.StringVar(&o.since, "since", "", "show only what happened from this `time` on: a duration after the trace's first line (90s), its own milliseconds, or RFC 3339")
	fs.BoolVar(&o.summary, "summary", false, "show only the summary")
	fs.Usage = func() {
		fmt.Fprint(stderr, "usage: pushreplay [flags] [TRACE…]\n\nReplays traces of an XMPP server and explains who is notified, when, and why.\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if o.format != "text" && o.format != "json" {
		fmt.Fprintf(stderr, "pushreplay: -format %q: it can be text or json\n", o.format)
		return 2
	}
	since, err := parseSince(o.since)
	if err != nil {
		fmt.Fprintln(stderr, "pushreplay:", err)
		return 2
	}
	files := fs.Args()
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, name := range files {
		if err := replay(name, stdin, stdout, o, since); err != nil {
			fmt.Fprintf(stderr, "pushreplay: %s: %v\n", safe(name), err)
			return 2
		}
	}
	return 0
}

// since is the earliest time to show, in milliseconds; relative to the first line, or the trace's own.
type since struct {
	set, relative bool
	ms            int64
}

func parseSince(s string) (since, error) {
	if s == "" {
		return since{}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return since{true, false, n}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return since{true, true, d.Milliseconds()}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return since{true, false, t.UnixMilli()}, nil
	}
	return since{}, fmt.Errorf("-since %q: neither a duration such as 90s, nor milliseconds, nor a time such as 2026-11-22T10:13:00Z", s)
}

func replay(name string, stdin io.Reader, stdout io.Writer, o options, s since) error {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	out := bufio.NewWriter(stdout)
	defer out.Flush()

	var view view
	if o.format == "json" {
		view = newJSONView(out)
	} else {
		view = newTextView(out, wantColor(o.color, stdout), o.summary)
	}
	show := filter{user: o.user, since: s}
	r := trace.NewReplay(func(l *trace.Line) {
		if show.line(l) {
			view.line(l)
		}
	})
	read := trace.NewReader(in)
	for {
		rec, err := read.Next()
		if err == nil {
			show.record(rec)
			if rec.Config == nil {
				r.Advance(rec.Time())
			}
			if show.user == "" || rec.Event == nil || rec.Event.Subject().Account == show.user {
				if show.at(rec.At) || rec.Config != nil {
					view.record(rec)
				}
			}
			if err = r.Step(rec); err == nil {
				continue
			}
			err = &trace.Error{Line: rec.Line, Err: err}
		}
		r.Finish()
		view.end()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// filter is what -user and -since leave.
type filter struct {
	user  string
	since since
	begun bool
}

func (f *filter) record(rec *trace.Record) {
	if rec.Config == nil && !f.begun {
		f.begun = true
		if f.since.relative {
			f.since.ms += rec.At
		}
	}
}

func (f *filter) at(ms int64) bool { return !f.since.set || ms >= f.since.ms }

func (f *filter) line(l *trace.Line) bool {
	return f.at(l.At) && (f.user == "" || l.User == f.user)
}

// view is a form of output.
type view interface {
	// record is called before a line of the trace is decided, line for what comes of it, end once.
	record(rec *trace.Record)
	line(l *trace.Line)
	end()
}

type jsonView struct{ enc *json.Encoder }

func newJSONView(w io.Writer) jsonView {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return jsonView{enc}
}

func (v jsonView) record(*trace.Record) {}
func (v jsonView) line(l *trace.Line)   { _ = v.enc.Encode(l) }
func (v jsonView) end()                 {}
