package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
)

// textView is a timeline for people: each event with the answer for each device under it, and each publish when it goes out.
type textView struct {
	w     *bufio.Writer
	c     palette
	quiet bool // only the summary
	zone  *time.Location
	day   string
	shown int64 // the time that was printed last
	sum   summary
}

func newTextView(w *bufio.Writer, color, quiet bool, zone *time.Location) *textView {
	v := &textView{w: w, quiet: quiet, zone: zone, sum: newSummary()}
	if color {
		v.c = palette{dim: "\x1b[2m", bold: "\x1b[1m", green: "\x1b[32m", red: "\x1b[31m", yellow: "\x1b[33m", cyan: "\x1b[36m", off: "\x1b[0m"}
	}
	return v
}

type palette struct{ dim, bold, green, red, yellow, cyan, off string }

func wantColor(when string, w io.Writer) bool {
	switch when {
	case "always":
		return true
	case "never":
		return false
	}
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func (v *textView) printf(format string, args ...any) {
	if !v.quiet {
		fmt.Fprintf(v.w, format, args...)
	}
}

// margin is the width of the time column, which everything below a time is indented by.
const margin = 15

// clock returns the time column: of the day where the trace's times are dates, else since the trace's origin.
func (v *textView) clock(ms int64) string {
	v.shown = ms
	if ms > 1e11 {
		t := time.UnixMilli(ms).In(v.zone)
		if day := t.Format("2006-01-02"); day != v.day {
			v.day = day
			v.printf("%s%s %s%s\n", v.c.bold, day, t.Format("MST"), v.c.off)
		}
		return fmt.Sprintf("%*s", margin-2, t.Format("15:04:05.000"))
	}
	return fmt.Sprintf("%*s", margin-2, sinceOrigin(ms))
}

func sinceOrigin(ms int64) string {
	sign := ""
	if ms < 0 {
		sign, ms = "-", -ms
	}
	return fmt.Sprintf("%s%d:%02d:%02d.%03d", sign, ms/3600000, ms/60000%60, ms/1000%60, ms%1000)
}

func (v *textView) record(rec *trace.Record) {
	v.sum.record(rec)
	if rec.Event == nil {
		return
	}
	v.printf("%s%s%s  %s#%d %s%s %s\n", v.c.dim, v.clock(rec.At), v.c.off, v.c.bold, rec.Number, rec.Type, v.c.off, v.about(rec.Event))
}

// about says what an event is about.
func (v *textView) about(e push.Event) string {
	s := e.Subject()
	who := safe(s.Account)
	if who == "" {
		who = "unknown account"
	}
	if s.ID != "" {
		who += v.c.dim + " session " + safe(s.ID) + v.c.off
	}
	switch e := e.(type) {
	case push.SessionOpen:
		if e.Client != "" {
			who += " client " + safe(e.Client)
		}
		return who
	case push.SessionRestored:
		if e.IsBound {
			who += " " + key(e.Bound.Service, e.Bound.Node)
		}
		if e.Hibernated {
			who += " hibernated"
		}
		return who
	case push.PushEnable:
		return who + " " + key(e.Service, e.Node)
	case push.PushDisable:
		return who + " " + key(e.Service, e.Node)
	case push.AffiliationNone:
		return who + " " + key(e.Service, e.Node)
	case push.AckDelayed:
		return who + v.stanzas(e.Stanzas)
	case push.Acknowledged:
		return who + " " + strconv.Itoa(len(e.IDs)) + " stanzas"
	case push.HibernationStart:
		return who + v.stanzas(e.Stanzas)
	case push.StanzaQueued:
		return who + v.stanzas([]push.Stanza{e.Stanza})
	case push.ArchiveAdded:
		return who + v.stanzas([]push.Stanza{e.Stanza})
	case push.Offline:
		return who + v.stanzas([]push.Stanza{e.Stanza})
	case push.Groupchat:
		return who + v.stanzas([]push.Stanza{e.Stanza})
	case push.SessionPresence:
		if e.Away {
			return who + " away"
		}
		return who + " here"
	case push.Displayed:
		return who + " " + e.Chat + " up to " + e.UpTo
	case push.ChatChanged:
		return who + " " + e.Chat
	case push.SessionClose, push.SessionActive, push.HibernationEnd, push.Ping, push.AccountRemoved:
		return who
	}
	return who
}

// stanzas describes the stanzas of an event, each with its class and sender; the text of a message is not shown.
func (v *textView) stanzas(sts []push.Stanza) string {
	if len(sts) == 0 {
		return v.c.dim + " empty queue" + v.c.off
	}
	const most = 3
	var b strings.Builder
	for i, st := range sts {
		if i == most {
			fmt.Fprintf(&b, "\n%*sand %d more", margin+2, "", len(sts)-most)
			break
		}
		if len(sts) > 1 {
			fmt.Fprintf(&b, "\n%*s", margin+2, "")
		} else {
			b.WriteString(" ")
		}
		fmt.Fprintf(&b, "%s%s%s %s", v.classColor(st.Class.String()), st.Class, v.c.off, st.Kind)
		if st.Held {
			b.WriteString(" held back")
		}
		if st.From != "" {
			b.WriteString(" from " + safe(st.From))
		}
		fmt.Fprintf(&b, "%s %s%s", v.c.dim, safe(short(st.ID)), v.c.off)
	}
	return b.String()
}

func (v *textView) classColor(class string) string {
	switch class {
	case "urgent":
		return v.c.red
	case "important":
		return v.c.yellow
	}
	return v.c.dim
}

func (v *textView) line(l *trace.Line) {
	v.sum.line(l)
	indent := strings.Repeat(" ", margin)
	if l.Kind != "decision" && l.At != v.shown {
		indent = v.c.dim + v.clock(l.At) + v.c.off + "  "
	}
	switch l.Kind {
	case "decision":
		switch {
		case l.Node == nil:
			v.printf("%s%s·  nobody: %s%s\n", indent, v.c.dim, l.Text, v.c.off)
		case *l.Notify:
			by := "  rule " + l.Rule
			if l.Match > 0 {
				by += fmt.Sprint(", match ", l.Match)
			}
			v.printf("%s%s✓  notify%s %s: %s%s%s\n", indent, v.c.green, v.c.off, key(l.Service, *l.Node), l.Text, detail(l.Detail), v.dim(by))
		default:
			v.printf("%s%s✗  not%s    %s: %s%s%s\n", indent, v.c.red, v.c.off, key(l.Service, *l.Node), l.Text, detail(l.Detail), v.dim("  rule "+l.Rule))
		}
	case "publish":
		again := ""
		if l.Try > 1 {
			again = fmt.Sprintf(", try %d", l.Try)
		}
		v.printf("%s%s→  publish%s %s: %s%s%s, %s%s%s\n", indent, v.c.cyan, v.c.off, user(l),
			v.classColor(l.Class), l.Class, v.c.off, plural(*l.Count, "stanza"), again, v.dim("  for "+numbers(l.Events)))
	case "reply":
		v.printf("%s%s←  %s%s %s%s\n", indent, v.c.red, l.Reason, v.c.off, user(l), detail(l.Detail))
	case "registration":
		session := ""
		if l.Session != "" {
			session = " session " + safe(l.Session)
		}
		v.printf("%s%s⚙  %s%s %s%s: %s%s\n", indent, v.c.cyan, l.Change, v.c.off, user(l), session, l.Text, detail(l.Detail))
	case "drop":
		v.printf("%s%s⌫  dropped%s %s: %s, %s%s%s\n", indent, v.c.yellow, v.c.off, user(l), plural(*l.Count, "stanza"), l.Text, detail(l.Detail), v.dim("  of "+numbers(l.Events)))
	case "difference":
		where := ""
		if l.Event != 0 {
			where = fmt.Sprintf("#%d ", l.Event)
		}
		if l.Node != nil {
			where += key(l.Service, *l.Node) + " "
		}
		v.printf("%s%s≠  %s%s%s%s\n", indent, v.c.red, where, l.Type+" ", safe(l.Text), v.c.off)
	case "resume-timeout":
		limit := "the host's normal time"
		if *l.Seconds > 0 {
			limit = (time.Duration(*l.Seconds) * time.Second).String()
		}
		v.printf("%s%s⏱  session %s may be resumed for %s: %s%s\n", indent, v.c.dim, safe(l.Session), limit, l.Text, v.c.off)
	}
}

func (v *textView) dim(s string) string { return v.c.dim + s + v.c.off }

// user names the account and device of a line that stands by itself.
func user(l *trace.Line) string { return safe(l.User) + " " + key(l.Service, *l.Node) }

func key(service, node string) string {
	if node == "" {
		return safe(service)
	}
	return safe(service) + "/" + safe(short(node))
}

func detail(s string) string {
	if s == "" {
		return ""
	}
	return " (" + safe(s) + ")"
}

func numbers(events []uint64) string {
	if len(events) == 0 {
		return "no event"
	}
	var b strings.Builder
	for i, n := range events {
		if i == 5 {
			fmt.Fprintf(&b, " and %d more", len(events)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("#" + strconv.FormatUint(n, 10))
	}
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// short cuts the middle out of a long name.
func short(s string) string {
	r := []rune(s)
	if len(r) <= 48 {
		return s
	}
	return string(r[:24]) + "…" + string(r[len(r)-20:])
}

// safe keeps what comes from outside from controlling the terminal.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// summary counts what a trace came to.
type summary struct {
	events      int
	accounts    map[string]bool
	first, last int64
	begun       bool
	publishes   map[string]int // by class
	retries     int
	yes, no     map[string]int // answers by reason
	drops       map[string]int
	failures    map[string]int
	differences int
	recorded    bool            // it has decisions to compare with
	notified    map[string]bool // devices and stanzas
	observed    map[string]int  // and how often the recorded server pushed them
}

// maxTracked bounds what the comparison with a recorded server's own pushes remembers.
const maxTracked = 1 << 18

func newSummary() summary {
	return summary{accounts: map[string]bool{}, publishes: map[string]int{}, yes: map[string]int{}, no: map[string]int{}, drops: map[string]int{},
		failures: map[string]int{}, notified: map[string]bool{}, observed: map[string]int{}}
}

func (s *summary) record(rec *trace.Record) {
	if rec.Config != nil {
		return
	}
	if !s.begun {
		s.begun, s.first = true, rec.At
	}
	s.last = rec.At
	s.recorded = s.recorded || rec.Decided != nil
	if rec.Event != nil {
		s.events++
		if len(s.accounts) < maxTracked {
			s.accounts[rec.Event.Subject().Account] = true
		}
	}
	if o := rec.Observed; o != nil && len(s.observed) < maxTracked {
		s.observed[device(o.User, o.Service, o.Node, o.Stanza)]++
	}
}

func device(parts ...string) string { return strings.Join(parts, "\x00") }

func (s *summary) line(l *trace.Line) {
	switch l.Kind {
	case "decision":
		if *l.Notify {
			s.yes[l.Text]++
			for _, id := range l.Stanzas {
				if len(s.notified) < maxTracked {
					s.notified[device(l.User, l.Service, *l.Node, id)] = true
				}
			}
		} else {
			s.no[l.Text]++
		}
	case "publish":
		if l.Try > 1 {
			s.retries++
		} else {
			s.publishes[l.Class]++
		}
	case "drop":
		s.drops[l.Text]++
	case "difference":
		s.differences++
	case "reply":
		s.failures[l.Reason+detail(l.Detail)]++
	}
}

func (v *textView) end() {
	s := &v.sum
	w, c := v.w, v.c
	fmt.Fprintf(w, "\n%sSummary%s  %s on %s in %v\n", c.bold, c.off, plural(s.events, "event"), plural(len(s.accounts), "account"),
		(time.Duration(s.last-s.first) * time.Millisecond).Round(time.Second))
	total := s.publishes["urgent"] + s.publishes["important"] + s.publishes["plain"]
	publishes := plural(total, "publish")
	if total != 1 {
		publishes = fmt.Sprintf("%d publishes", total)
	}
	fmt.Fprintf(w, "\n  %s→ %s%s: %d urgent, %d important, %d plain; sent again %d times\n", c.cyan, publishes, c.off,
		s.publishes["urgent"], s.publishes["important"], s.publishes["plain"], s.retries)
	table(w, c.green, c.off, "✓ notified, by reason", s.yes)
	table(w, c.red, c.off, "✗ not notified, by reason", s.no)
	table(w, c.yellow, c.off, "⌫ dropped, by reason", s.drops)
	table(w, c.red, c.off, "← replies that were no success", s.failures)
	switch {
	case s.differences > 0:
		fmt.Fprintf(w, "\n  %s≠ %s from what was recorded%s\n", c.red, plural(s.differences, "difference"), c.off)
	case s.recorded:
		fmt.Fprintf(w, "\n  Everything is decided and sent as it was recorded.\n")
	}
	v.compare()
}

// compare holds the decisions against what the recorded server pushed itself.
func (v *textView) compare() {
	s := &v.sum
	if len(s.observed) == 0 {
		return
	}
	var all, same, twice, missing int
	for d, n := range s.observed {
		all += n
		twice += n - 1
		if s.notified[d] {
			same++
		} else {
			missing++
		}
	}
	fmt.Fprintf(v.w, "\n  The recorded server pushed %d times: for %d stanzas that are notified here too, %d times for one it had pushed already,\n"+
		"  and for %d that are not notified here.\n", all, same, twice, missing)
}

func table(w io.Writer, color, off, title string, counts map[string]int) {
	if len(counts) == 0 {
		return
	}
	fmt.Fprintf(w, "\n  %s%s%s\n", color, title, off)
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, k := range keys {
		fmt.Fprintf(w, "  %6d  %s\n", counts[k], safe(k))
	}
}
