package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// timeline prints what the push engine is told, what it decides and why, and what goes out, as it happens.
type timeline struct {
	mu     sync.Mutex
	w      io.Writer
	start  time.Time
	colour bool
	// sessions has the JIDs of sessions.
	sessions sync.Map
}

func newTimeline(w io.Writer) *timeline {
	t := &timeline{w: w, start: time.Now()}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		st, err := f.Stat()
		t.colour = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return t
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "36"
)

// paint colours text that was padded already.
func (t *timeline) paint(colour, s string) string {
	if !t.colour || colour == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

func (t *timeline) print(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.w, s)
}

// line prints one line: when, what, of which registration or account, and the rest.
func (t *timeline) line(what, of, rest string) {
	t.print(fmt.Sprintf("%s  %-17s %-8s %s", t.paint(dim, fmt.Sprintf("%6.2f", time.Since(t.start).Seconds())), what, of, rest))
}

// chapter prints a heading.
func (t *timeline) chapter(title string) { t.print("\n" + t.paint(bold, title)) }

// say prints what somebody outside of the server does.
func (t *timeline) say(who, what string) { t.line(t.paint(blue, fmt.Sprintf("%-17s", who)), "", what) }

// observer shows the engine's work. Accounts without registrations are left out.
func (t *timeline) observer() *push.Observer {
	return &push.Observer{
		Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
			switch ev := ev.(type) {
			case push.SessionOpen:
				t.sessions.Store(ev.Session, ev.JID)
				t.line(ev.Name(), "", t.paint(dim, ev.JID))
			case push.SessionClose:
				jid, _ := t.sessions.LoadAndDelete(ev.Session)
				t.line(ev.Name(), "", t.paint(dim, fmt.Sprint(jid)))
			}
			for _, v := range d.Verdicts {
				answer := t.paint(dim, "no       ")
				colour := dim
				if v.Notify {
					colour = green
					answer = t.paint(green, fmt.Sprintf("%-9s", v.Class))
				}
				t.line(ev.Name(), v.Node, answer+" "+t.paint(colour, v.Reason.Sentence()))
			}
			t.effects(&d.Effects)
		},
		Affected: func(_ string, _ time.Time, e *push.Effects) { t.effects(e) },
		Sent: func(_ time.Time, n *push.Notification) {
			text := fmt.Sprintf("to %s: %s, %s", n.Service, n.Class, count(n.Count, "stanza"))
			if n.Unread > 0 {
				text += fmt.Sprintf(", message-count %d", n.Unread)
			}
			if n.Try > 1 {
				text += fmt.Sprintf(", try %d", n.Try)
			}
			t.line(t.paint(yellow, fmt.Sprintf("%-17s", "PUBLISH")), n.Node, text)
		},
		Replied: func(_ time.Time, n *push.Notification, r push.Reply, res push.Result, _ time.Duration) {
			if !r.OK() {
				t.line("  answer", n.Node, t.paint(red, fmt.Sprintf("%s/%s", r.Type, r.Condition))+": "+res.Outcome.String())
			}
		},
	}
}

func (t *timeline) effects(e *push.Effects) {
	for _, c := range e.Changes {
		text := fmt.Sprintf("%s: %s", c.Kind, c.Reason.Sentence())
		if c.Detail != "" {
			text += " (" + c.Detail + ")"
		}
		t.line("  registration", c.Node, text)
	}
	for _, d := range e.Drops {
		t.line("  dropped", d.Node, fmt.Sprintf("%s, %s: %s", d.Class, count(d.Count, "stanza"), d.Reason.Sentence()))
	}
	for _, a := range e.Advice {
		keep := "for the normal time again"
		if a.Timeout > 0 {
			keep = "for up to " + strings.TrimSuffix(a.Timeout.String(), "0m0s")
		}
		t.line("  resumable", "", fmt.Sprintf("%s: %s", keep, a.Reason.Sentence()))
	}
}

func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}
