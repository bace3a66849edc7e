// Command pushreplay replays traces of an XMPP server and explains, for every event, which devices would have been notified, when, and why,
// and which would not, and why not.
//
//	pushreplay [flags] [TRACE…]
//
// Without a file it reads standard input. Several files are those of one recording, and are read in the order of their times; compressed ones too.
// A last line that ends in the middle is left out.
//
//	pushreplay -why STANZA TRACE…     what became of one message, for each device, in a sentence
//	pushreplay -serve ADDRESS TRACE…  the pages of package pushhttp over the recording
//
// A recording says itself what was decided and sent. Where this library decides otherwise, as it may in another version, pushreplay says so and
// ends with status 1. It ends with status 2 at a line that it cannot use, after printing what was decided up to there.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are the command's flags.
type options struct {
	format, color, user, device, why, serve string
	since, until                            moment
	zone                                    *time.Location
	summary, trouble                        bool
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o := options{zone: time.UTC}
	fs := flag.NewFlagSet("pushreplay", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.format, "format", "text", "`text` for people, or json, one object a line")
	fs.StringVar(&o.color, "color", "auto", "`when` to use colour: auto, always or never")
	fs.StringVar(&o.user, "user", "", "show only this account's events (a bare `JID`)")
	fs.StringVar(&o.device, "device", "", "show only what has to do with this device: a `NODE`, a push service, or SERVICE/NODE")
	fs.BoolVar(&o.trouble, "trouble", false, "show only what went wrong: errors, what was given up, nobody to tell, and differences")
	fs.Func("since", "show only what happened from this `time` on: a duration after the trace's first line (90s), its own milliseconds, 14:02, or RFC 3339", o.since.set)
	fs.Func("until", "show only what happened before this `time`, written like that of -since", o.until.set)
	zone := fs.String("zone", "UTC", "the time `zone` of times such as 14:02, and of those that are shown: Local, or a name such as Europe/Berlin")
	fs.StringVar(&o.why, "why", "", "say what became of the message with this `STANZA` ID, and nothing else")
	fs.StringVar(&o.serve, "serve", "", "serve the inspector's pages over the trace at this `ADDRESS` of this machine, such as localhost:8080")
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
	z, err := time.LoadLocation(*zone)
	if err != nil {
		fmt.Fprintf(stderr, "pushreplay: -zone %q: no such time zone\n", *zone)
		return 2
	}
	o.zone = z
	in, name, err := openAll(fs.Args(), stdin)
	if err != nil {
		fmt.Fprintln(stderr, "pushreplay:", err)
		return 2
	}
	defer in.Close()
	status := 0
	switch {
	case o.serve != "":
		err = serve(in, o, stderr)
	case o.why != "":
		status, err = why(in, o, stdout, stderr)
	default:
		status, err = replay(in, stdout, stderr, o)
	}
	if err != nil {
		fmt.Fprintf(stderr, "pushreplay: %s: %v\n", safe(name), err)
		return 2
	}
	return status
}

// input is the files of a trace as one.
type input struct {
	io.Reader
	files []*os.File
}

func (in *input) Close() {
	for _, f := range in.files {
		f.Close()
	}
}

// openAll opens the files in the order of their first times.
func openAll(names []string, stdin io.Reader) (in *input, name string, err error) {
	if len(names) == 0 || len(names) == 1 && names[0] == "-" {
		return &input{Reader: stdin}, "-", nil
	}
	in = &input{}
	first := make(map[*os.File]int64)
	for _, n := range names {
		f, err := os.Open(n)
		if err != nil {
			in.Close()
			return nil, "", err
		}
		in.files = append(in.files, f)
		if len(names) > 1 {
			first[f] = firstTime(f)
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				in.Close()
				return nil, "", fmt.Errorf("%s: several files have to be files, not pipes: %w", safe(n), err)
			}
		}
	}
	slices.SortStableFunc(in.files, func(a, b *os.File) int { return cmp.Compare(first[a], first[b]) })
	rs := make([]io.Reader, len(in.files))
	for i, f := range in.files {
		rs[i] = f
	}
	in.Reader = trace.Join(rs...)
	return in, strings.Join(names, " "), nil
}

// firstTime is the time of a file's first line.
func firstTime(f io.Reader) int64 {
	r := trace.NewReader(f)
	for {
		rec, err := r.Next()
		if err != nil {
			return 0
		}
		if rec.Config == nil {
			return rec.At
		}
	}
}

// moment is a time of a trace: relative to its first line, a time of the day of that, or its own.
type moment struct {
	given bool
	text  string
	ms    int64
	after bool // ms counts from the first line
	day   time.Duration
	ofDay bool
}

func (m *moment) set(s string) error {
	*m = moment{given: true, text: s}
	var err error
	if m.ms, err = strconv.ParseInt(s, 10, 64); err == nil {
		return nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		m.ms, m.after = d.Milliseconds(), true
		return nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		m.ms = t.UnixMilli()
		return nil
	}
	for _, layout := range []string{"15:04", "15:04:05", "15:04:05.000"} {
		if t, err := time.Parse(layout, s); err == nil {
			m.day, m.ofDay = t.Sub(t.Truncate(24*time.Hour)), true
			return nil
		}
	}
	return errors.New("neither a duration such as 90s, nor milliseconds, nor a time such as 14:02 or 2026-11-22T10:13:00Z")
}

// resolve makes ms the trace's own time, given its first.
func (m *moment) resolve(first int64, zone *time.Location) {
	switch {
	case m.after:
		m.ms += first
	case m.ofDay:
		day := time.UnixMilli(first).In(zone)
		at := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, zone).Add(m.day)
		if at.Before(day.Truncate(time.Minute)) { // of the next day
			at = at.AddDate(0, 0, 1)
		}
		m.ms = at.UnixMilli()
	}
	m.after, m.ofDay = false, false
}

func replay(in io.Reader, stdout, stderr io.Writer, o options) (status int, err error) {
	out := bufio.NewWriter(stdout)
	defer out.Flush()

	var view view
	if o.format == "json" {
		view = newJSONView(out)
	} else {
		view = newTextView(out, wantColor(o.color, stdout), o.summary, o.zone)
	}
	show := &filter{options: &o}
	var pending *trace.Record // whose lines may be left out
	r := trace.NewReplay(func(l *trace.Line) {
		if show.line(l) {
			if pending != nil {
				view.record(pending)
				pending = nil
			}
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
			pending = nil
			if rec.Config != nil || (show.at(rec.At) && (o.user == "" || rec.Event == nil || rec.Event.Subject().Account == o.user)) {
				if pending = rec; o.device == "" && !o.trouble {
					view.record(rec)
					pending = nil
				}
			}
			if err = r.Step(rec); err == nil {
				continue
			}
			err = &trace.Error{Line: rec.Line, Err: err}
		}
		r.Finish()
		view.end()
		if n := read.Torn(); n > 0 {
			fmt.Fprintf(stderr, "pushreplay: %s in the middle and %s left out\n", plural(n, "line")+verb(n, " ends", " end"), verb(n, "was", "were"))
		}
		if !errors.Is(err, io.EOF) {
			return 2, err
		}
		if r.Differences() > 0 {
			return 1, nil
		}
		return 0, nil
	}
}

func verb(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// filter is what the flags leave.
type filter struct {
	*options
	begun bool
	// own: the event is that a message of the account's own was archived, of which nobody need be told.
	own bool
}

func (f *filter) record(rec *trace.Record) {
	if rec.Config == nil && !f.begun {
		f.begun = true
		f.since.resolve(rec.At, f.zone)
		f.until.resolve(rec.At, f.zone)
	}
	if e, ok := rec.Event.(push.ArchiveAdded); ok {
		to, _, _ := strings.Cut(cmp.Or(e.Stanza.To, e.Stanza.From), "/")
		f.own = to != "" && to != e.Account
	} else if rec.Event != nil {
		f.own = false
	}
}

func (f *filter) at(ms int64) bool {
	return (!f.since.given || ms >= f.since.ms) && (!f.until.given || ms < f.until.ms)
}

func (f *filter) line(l *trace.Line) bool {
	if !f.at(l.At) || f.user != "" && l.User != f.user {
		return false
	}
	if d := f.device; d != "" && (l.Node == nil || *l.Node != d && l.Service != d && l.Service+"/"+*l.Node != d) {
		return false
	}
	return !f.trouble || wrong(l) && !(f.own && l.Kind == "decision" && l.Reason == push.ReasonNoRegistration.String())
}

// wrong tells whether a line is about something that went wrong.
func wrong(l *trace.Line) bool {
	switch l.Kind {
	case "difference", "reply":
		return true
	case "drop":
		return l.Reason != push.ReasonResumed.String() && l.Reason != push.ReasonAcknowledged.String()
	case "registration":
		return l.Change == push.ChangeDisabled.String() || l.Reason == push.ReasonLimit.String()
	case "decision":
		switch l.Reason {
		case push.ReasonNoRegistration.String(), push.ReasonDisabled.String(), push.ReasonStore.String():
			return true
		}
	}
	return false
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
