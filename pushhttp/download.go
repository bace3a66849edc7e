package pushhttp

import (
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
	tw := trace.NewWriter(false, false)
	w.Write(tw.Config(p.cfg.Host, p.cfg.Policy))
	w.Write(tw.Account(lines[0].at(), before(lines, &st)))
	// Replies come when they came, which is later than their publishes.
	type timed struct {
		at time.Time
		l  *line
	}
	var all []timed
	for i := range lines {
		switch l := &lines[i]; {
		case l.kind == isEvent:
			all = append(all, timed{l.at(), l})
		case l.kind == isPublish && l.done, l.kind == isReply:
			all = append(all, timed{l.at().Add(l.took), l})
		}
	}
	slices.SortStableFunc(all, func(a, b timed) int { return a.at.Compare(b.at) })
	for _, t := range all {
		if t.l.kind == isEvent {
			w.Write(tw.Event(t.at, t.l.event))
			continue
		}
		w.Write(tw.Reply(t.at, name, t.l.key, replyOf(t.l)))
	}
}

func replyOf(l *line) push.Reply {
	if l.extra == "" && l.text == "no answer" {
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
			note(l.key, l.extra)
		case isPublish, isReply, isDrop:
			note(l.key, "seen")
		}
	}
	for i := range now.Registrations {
		note(now.Registrations[i].Key, "seen")
	}
	slices.SortFunc(keys, push.Key.Compare)
	for _, k := range keys {
		if first[k] == string(push.ChangeAdded) {
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
