package pushhttp

import (
	"cmp"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
)

// trace sends an account's history as a trace, for pushreplay. Its first lines are what the account must have been like before, as far as that
// follows from the history and the present.
func (p *Handler) trace(w http.ResponseWriter, r *http.Request) {
	name, ok := p.resolve(r.FormValue("jid"))
	if !ok || p.cfg.History == nil {
		http.NotFound(w, r)
		return
	}
	if p.cfg.Pseudonyms {
		http.Error(w, "Refused: a trace names JIDs, and these pages show pseudonyms.", http.StatusForbidden)
		return
	}
	lines := p.cfg.History.of(name)
	if len(lines) == 0 {
		http.Error(w, "There is no history of this account.", http.StatusNotFound)
		return
	}
	st, err := p.cfg.Engine.Inspect(r.Context(), name)
	if err != nil {
		http.Error(w, "The account could not be looked up.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="account-`+time.Now().UTC().Format("20060102T150405")+`.jsonl"`)
	tw := trace.NewWriter(false)
	first := true
	for _, part := range p.cfg.History.byRun(lines) {
		w.Write(tw.Config(part.started, part.host, part.policy))
		if first {
			w.Write(tw.Account(part.lines[0].at(), before(part.lines, &st)))
			first = false
		}
		p.traceRun(w, tw, name, part.lines)
	}
}

// runLines are lines of one Engine.
type runLines struct {
	run
	lines []line
}

// byRun divides lines by the Engine that they are of.
func (h *History) byRun(lines []line) (parts []runLines) {
	h.mu.Lock()
	runs := slices.Clone(h.runs)
	h.mu.Unlock()
	if len(runs) == 0 {
		runs = []run{{}}
	}
	for i, r := range runs {
		end := len(lines)
		if i+1 < len(runs) {
			end, _ = slices.BinarySearchFunc(lines, runs[i+1].seq+1, func(l line, seq uint64) int { return cmp.Compare(l.seq, seq) })
		}
		if end > 0 {
			parts = append(parts, runLines{r, lines[:end]})
		}
		lines = lines[end:]
	}
	return parts
}

// traceRun writes what happened with one Engine, in the order in which it did: replies come when they came, which is later than their publishes.
func (p *Handler) traceRun(w io.Writer, tw *trace.Writer, name string, lines []line) {
	type timed struct {
		at    time.Time
		l     *line
		reply bool
		of    []line // the verdicts of an event
	}
	var all []timed
	for i := range lines {
		switch l := &lines[i]; {
		case l.kind == isEvent:
			end := i + 1
			for end < len(lines) && lines[end].kind == isVerdict && lines[end].number == l.number {
				end++
			}
			all = append(all, timed{l.at(), l, false, lines[i+1 : end]})
		case l.kind == isPublish || l.kind == isReply:
			if l.kind == isPublish {
				all = append(all, timed{l.at(), l, false, nil})
			}
			if l.done {
				all = append(all, timed{l.ended(), l, true, nil})
			}
		case l.kind == isDrop && l.number == 0 && l.reason == push.ReasonTooOld:
			all = append(all, timed{l.at(), l, false, nil})
		}
	}
	slices.SortStableFunc(all, func(a, b timed) int { return a.at.Compare(b.at) })
	for _, t := range all {
		l := t.l
		switch {
		case t.reply:
			w.Write(tw.Reply(t.at, name, l.key, replyOf(l), l.outcome.String()))
		case l.kind == isPublish:
			w.Write(tw.Sent(t.at, &trace.Sent{User: name, Key: l.key, Class: l.class.String(), Count: int(l.count), Try: int(l.try), Events: l.events}))
		case l.kind == isDrop:
			w.Write(tw.Dropped(t.at, &trace.Dropped{User: name, Key: l.key, Class: l.class.String(), Count: int(l.count), Events: l.events}))
		default:
			w.Write(tw.Event(t.at, l.number, l.event, recorded(l, t.of)))
		}
	}
}

// recorded is what was decided of an event.
func recorded(event *line, verdicts []line) *trace.Recorded {
	d := &trace.Recorded{}
	if event.answers != nil {
		d.Answers = *event.answers
	}
	if event.reason != push.ReasonNone {
		d.Verdicts = append(d.Verdicts, trace.RecordedVerdict{Reason: event.reason.String()})
	}
	queue := stanzas(event.event)
	for i := range verdicts {
		v := &verdicts[i]
		r := trace.RecordedVerdict{
			Key: v.key, Notify: v.notify, Class: v.class.String(), Rule: v.rule.String(), Reason: v.reason.String(), Detail: v.text, Count: int(v.count),
		}
		for j := range queue[:min(len(queue), 64)] {
			if v.mask&(1<<j) != 0 {
				r.Stanzas = append(r.Stanzas, queue[j].ID)
			}
		}
		d.Verdicts = append(d.Verdicts, r)
	}
	return d
}

func replyOf(l *line) push.Reply {
	if l.extra == "" && l.text == noAnswer {
		return push.Reply{Missing: true}
	}
	if l.outcome == push.OutcomeDropped {
		return push.Reply{Vetoed: l.text}
	}
	return push.Reply{Type: l.extra, Condition: l.text}
}

// before says what an account was like before its first line.
func before(lines []line, now *push.AccountStatus) *push.AccountStatus {
	st := &push.AccountStatus{Account: now.Account}
	first := make(map[push.Key]string) // the first change of each registration, or "seen"
	var keys []push.Key
	note := func(k push.Key, what string) {
		if _, ok := first[k]; !ok {
			first[k] = what
			keys = append(keys, k)
		}
	}
	opened, enabled, bound := make(map[string]bool), make(map[string]bool), make(map[string]push.Key)
	var sessions []string
	mention := func(id string) {
		if id != "" && !opened[id] && !slices.Contains(sessions, id) {
			sessions = append(sessions, id)
		}
	}
	var session string
	for i := range lines {
		switch l := &lines[i]; l.kind {
		case isEvent:
			session = l.event.Subject().ID
			switch e := l.event.(type) {
			case push.SessionOpen:
				opened[e.Session.ID] = true
			case push.PushEnable:
				mention(session)
				enabled[session] = true
			default:
				if l.reason != push.ReasonUnknownSession {
					mention(session)
				}
			}
		case isVerdict:
			note(l.key, "seen")
			if session != "" && !enabled[session] && l.reason != push.ReasonUnbound && l.reason != push.ReasonOtherSession &&
				l.reason != push.ReasonDisabled && l.reason != push.ReasonHeld {
				if _, ok := bound[session]; !ok {
					bound[session] = l.key
				}
			}
		case isChange:
			note(l.key, l.change.String())
		case isPublish, isReply, isDrop:
			note(l.key, "seen")
		}
	}
	for i := range now.Registrations {
		note(now.Registrations[i].Key, "seen")
	}
	slices.SortFunc(keys, push.Key.Compare)
	for _, k := range keys {
		if first[k] == push.ChangeAdded.String() {
			continue
		}
		r := push.Registration{Account: now.Account, Key: k}
		if i := slices.IndexFunc(now.Registrations, func(r push.RegistrationStatus) bool { return r.Key == k }); i >= 0 {
			r.Client, r.Enabled, r.Health.Succeeded = now.Registrations[i].Client, now.Registrations[i].Enabled, now.Registrations[i].Health.Succeeded
			if first[k] == "seen" {
				r.Health = now.Registrations[i].Health
			}
		}
		st.Registrations = append(st.Registrations, push.RegistrationStatus{Registration: r})
	}
	for i := range now.Sessions {
		mention(now.Sessions[i].ID)
	}
	for _, id := range sessions {
		s := push.SessionStatus{ID: id}
		s.Bound, s.IsBound = bound[id]
		if i := slices.IndexFunc(now.Sessions, func(s push.SessionStatus) bool { return s.ID == id }); i >= 0 {
			s.Client = now.Sessions[i].Client
			if !s.IsBound && !enabled[id] {
				s.Bound, s.IsBound = now.Sessions[i].Bound, now.Sessions[i].IsBound
			}
		}
		s.IsBound = s.IsBound && slices.ContainsFunc(st.Registrations, func(r push.RegistrationStatus) bool { return r.Key == s.Bound })
		st.Sessions = append(st.Sessions, s)
	}
	return st
}
