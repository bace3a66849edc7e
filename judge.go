package push

import (
	"slices"
	"strings"
	"time"
)

// judgeSession answers an event of one session, whose stanzas concern only the registration bound to it.
func (a *Account) judgeSession(on trigger, id string, stanzas []Stanza, f *Facts, d *Decision) {
	s := a.session(id)
	if s == nil {
		d.Reason = ReasonUnknownSession
		return
	}
	if len(a.regs) == 0 {
		d.Reason = a.nobody()
		return
	}
	a.learn(f)
	lead := s.bound
	if lead == nil {
		lead = a.regs[0]
	}
	var what said
	for _, r := range a.regs {
		q := a.ofSession(on, s, r)
		q.lead = lead == r
		a.judge(&q, r, s, stanzas, 0, &what, f, d)
	}
	a.hangUp(stanzas)
}

// ofSession is the question about an event of a session.
func (a *Account) ofSession(on trigger, s *session, r *registration) question {
	q := question{event: on, mine: s.bound == r, unbound: s.bound == nil, skipPlain: a.policy.SkipPlain, policy: a.policy}
	q.newer = q.unbound && s.claim != nil && *s.claim == r.Key
	return q
}

// judgeAccount answers an event that concerns all of the account's registrations.
func (a *Account) judgeAccount(on trigger, st *Stanza, f *Facts, d *Decision) {
	if len(a.regs) == 0 {
		d.Reason = a.nobody()
		return
	}
	one := []Stanza{*st}
	h := a.hash(st.ID)
	a.learn(f)
	own, away := a.wrote(on, st), len(f.Elsewhere) == 0 && a.allAway()
	var what said
	for i, r := range a.regs {
		q := a.ofAccount(on, own, away, r, f)
		q.lead = i == 0
		a.judge(&q, r, nil, one, h, &what, f, d)
	}
	what.report(d)
	a.hangUp(one)
}

// ofAccount is the question about an event of the account.
func (a *Account) ofAccount(on trigger, own, away bool, r *registration, f *Facts) question {
	q := question{event: on, own: own, away: away, skipPlain: a.policy.SkipPlain, policy: a.policy}
	if q.live, q.hibernated = a.standing(r); !q.live && !q.hibernated {
		q.live, q.hibernated = a.moved(r)
	}
	q.live = q.live || slices.Contains(f.Elsewhere, r.Key)
	return q
}

// wrote tells whether what was archived was sent by the account, not to it.
func (a *Account) wrote(on trigger, st *Stanza) bool {
	to := st.To
	if to == "" {
		to = st.From // RFC 6121 §8.1.1.1: what has no address is for the sender's own account
	}
	return on == onArchiveAdded && to != "" && bare(to) != a.name
}

// nobody is why there is no registration.
func (a *Account) nobody() Reason {
	if !a.loaded {
		return ReasonStore
	}
	return ReasonNoRegistration
}

func (a *Account) ping(e Ping, f *Facts, d *Decision) {
	if len(a.regs) == 0 {
		d.Reason = a.nobody()
		return
	}
	for _, r := range a.regs {
		q := question{event: onPing, skipPlain: a.policy.SkipPlain, named: len(e.Registrations) == 0 || slices.Contains(e.Registrations, r.Key), policy: a.policy}
		a.judge(&q, r, nil, []Stanza{{Kind: KindNonza}}, 0, nil, f, d)
	}
}

// judge answers for one registration: it puts each stanza to the rules, notes those that are notified, and leaves them to the pacing. what is shared
// by the calls for one event.
func (a *Account) judge(q *question, r *registration, from *session, stanzas []Stanza, hash uint64, what *said, f *Facts, d *Decision) {
	d.Verdicts = append(d.Verdicts, Verdict{Key: r.Key})
	v := &d.Verdicts[len(d.Verdicts)-1]
	first := len(d.ids)
	q.disabled = !r.Health.Disabled.IsZero() && !a.mayRetry(r, f.Now)
	q.wishes = r.Wishes
	if len(stanzas) == 0 {
		q.skipPlain = false
		if v.Rule, v.Reason = decide(q, nil, nil); v.Reason.Notifies() {
			v.Reason = ReasonNothing
		}
	}
	var w *part
	var wait time.Duration // for the user who is active elsewhere
	ended := false
	for i := range stanzas {
		st := &stanzas[i]
		q.ask(st)
		if q.lead && st.refers(a.name) {
			a.since(st, f.Now, &d.Effects)
			w = nil // it may be gone
		}
		q.over = st.Content == ContentCall && a.over(st)
		if st.Content == ContentCallEnd && a.ends(st) && !r.mem.has(a.hash(st.ID)) {
			q.ends = true
			q.rung, q.back = a.rings(q, st, r, f.Now, &d.Effects)
			w = nil
		}
		var s *said
		rule, reason := decide(q, st, nil)
		h := hash
		if reason.Notifies() && what != nil && !q.ends && a.asked(r, st, f) { // only then it matters what was asked for
			a.saying(what, st, i, f, d)
			s = what
			rule, reason = decide(q, st, s)
		}
		if reason.Notifies() && (st.ID != "" || st.Content == ContentSubscription) { // only then it matters whether it was notified before
			if h == 0 || st.Content == ContentSubscription {
				h = a.identity(st)
			}
			if q.seen = r.mem.has(h) || a.rang(st, r); q.seen {
				rule, reason = decide(q, st, s)
			}
		}
		detail := q.detail
		if reason.Notifies() && f.Veto != nil {
			if veto := f.Veto(&r.Registration, *st); veto != "" {
				rule, reason, detail = RuleVeto, ReasonVeto, veto
				d.Answers.Vetoes = append(d.Answers.Vetoes, VetoAnswer{r.Key, i, veto})
			}
		}
		if !reason.Notifies() {
			// What a room sends back reads it, but not among what a session did not acknowledge: it may come from the very device that has not got the others.
			own, late := reason == ReasonReflection, q.event == onAckDelayed || q.event == onHibernationStart
			switch {
			case rule == RuleFilter, rule == RuleSettings, rule == RuleVeto, reason == ReasonPlain, own && late:
				a.overhear(st)
			case own:
				a.reflected(st, f.Now, &d.Effects)
				w = nil // it may be gone
			}
			if reason == ReasonSeen && q.class >= ClassImportant {
				d.alerted = true
			}
			if !v.Notify {
				v.Class = max(v.Class, q.class)
				if i == 0 {
					v.Rule, v.Reason, v.Detail = rule, reason, detail
				}
			}
			continue
		}
		if !v.Notify {
			v.Notify, v.Rule, v.Reason, v.Detail, v.Class, v.Match = true, rule, reason, detail, ClassPlain, q.match
		}
		if w == nil {
			w = r.pace.open(from)
		}
		v.Class = max(v.Class, q.class)
		w.at[q.class] = toInstant(f.Now)
		if q.event == onPing { // it wakes, and counts no stanza
			w.wakes = true
			w.note(0, ClassPlain, f.Number, a.policy)
			continue
		}
		ended = ended || q.ends
		wait = max(wait, q.grace)
		v.Count++
		w.count[q.class]++
		if st.ID == "" && st.Content != ContentSubscription {
			h = 0
		}
		w.note(h, q.class, f.Number, a.policy)
		mark := h
		if q.class >= ClassImportant && st.Content != ContentSubscription { // which is no message, and has a number of its own
			mark |= counts
			r.unread++
		}
		if h != 0 {
			if st.ID != "" {
				d.ids = append(d.ids, st.ID)
			}
			r.remember(mark, f.Now, a.policy)
			a.hear(st, h)
		} else if q.class >= ClassImportant {
			w.nameless++
		}
		if (a.policy.IncludeSender || a.policy.IncludeBody) && (q.class >= ClassImportant || w.text == nil) {
			w.text = &text{toInstant(f.Now), h, st.From, ""}
			if q.class >= ClassImportant && st.Content != ContentEncrypted { // what only wakes shows nothing, and what a sealed message says besides is that it is one
				w.text.body = st.Body
			}
		}
		if r.Wishes != nil {
			w.carry(r, q, st, h, f.Now)
		}
	}
	if what != nil && from != nil {
		what.report(d)
	}
	v.Stanzas = d.ids[first:len(d.ids):len(d.ids)]
	if !v.Notify || len(r.pace.waiting) == 0 {
		return
	}
	a.touched = toInstant(f.Now)
	due := f.Now
	if (q.event == onAckDelayed || q.event == onStanzaQueued) && (v.Class == ClassPlain || v.Class == ClassImportant && a.policy.DelayImportant) && !ended {
		due = due.Add(a.policy.Delay)
	}
	if wait > 0 && v.Class < ClassUrgent && !ended {
		if until := a.grace(r, wait); until.After(due) {
			if due = until; v.Detail == "" {
				v.Detail = detailGrace
			}
		}
	}
	r.pace.schedule(due)
	if v.Class == ClassUrgent || ended {
		r.pace.spaced, r.pace.retryAt = 0, 0 // a call that waited for the next try or the interval would be too old by then
	}
}

// ask makes q the question about a stanza.
func (q *question) ask(st *Stanza) {
	q.match = 0
	q.class, q.held, q.history, q.noStore = min(st.Class, ClassUrgent), st.Held, st.History, st.NoStore
	q.seen, q.ends, q.rung, q.back, q.over, q.detail = false, false, false, false, false, ""
	q.grace = q.policy.Grace
	if st.Content == ContentReaction && q.policy.AlertReactions {
		q.class = ClassImportant
	}
}

// refers tells whether a stanza may say something about those before it.
func (st *Stanza) refers(account string) bool {
	switch st.Content {
	case ContentCorrection, ContentRetraction, ContentModeration:
		return true
	}
	return strings.HasPrefix(st.From, account) && bare(st.From) == account
}

// identity returns the hash by which a stanza is told to be the same: of a subscription request that of who asks, since it is sent again until it is
// answered (RFC 6121 §3.1.3).
func (a *Account) identity(st *Stanza) uint64 {
	if st.Content == ContentSubscription {
		return a.hash("subscribe " + bare(st.From))
	}
	return a.hash(st.ID)
}

// asked tells whether the user or the client may have asked for something that concerns the stanza, as far as is known.
func (a *Account) asked(r *registration, st *Stanza, f *Facts) bool {
	if r.Wishes == nil && st.Info == nil && len(f.Chats) == 0 && (a.chats == nil || len(a.chats.known) == 0) && (st.Class != ClassUrgent || !a.policy.AskedCallsOnly) {
		return false
	}
	return st.isMessage() || st.Content == ContentSubscription
}

// call adds a nickname that a client knows the user by. What the host says comes first; of several clients' two count.
func (s *Self) call(nick string) {
	for i := range s.Nicks {
		if s.Nicks[i] == nick || s.Nicks[i] == "" {
			s.Nicks[i] = nick
			return
		}
	}
}

// saying makes what be about the stanza at place i of its event, once for all registrations.
func (a *Account) saying(what *said, st *Stanza, i int, f *Facts, d *Decision) {
	if what.made && what.place == i {
		return
	}
	what.report(d)
	*what = said{made: true, place: i, chat: st.Chat(a.name)}
	what.self = Self{Account: a.name, Active: !a.allAway() && a.online()}
	if info := a.info(what, st, i, f); info != nil {
		what.info, what.answered = *info, !what.failed
		what.self.Nicks[0], what.self.OccupantID = info.Nick, info.OccupantID
	}
	if st.Type == MessageGroupchat {
		for _, r := range a.regs {
			if r.Wishes == nil {
				continue
			}
			if room, ok := r.Wishes.Room(what.chat); ok {
				what.self.call(room.Nick)
			}
		}
	}
}

// info returns what the host said of a stanza's chat: with it, when it was asked for this event, or before.
func (a *Account) info(what *said, st *Stanza, i int, f *Facts) *ChatInfo {
	if st.Info != nil {
		return st.Info
	}
	for j := range f.Chats {
		if c := &f.Chats[j]; c.Chat == what.chat && (c.Stanza == i || c.Stanza < 0) {
			what.failed = c.Failed
			return &c.ChatInfo
		}
	}
	return a.knows(what.chat, f.Now)
}

// online tells whether a session is connected.
func (a *Account) online() bool {
	return slices.ContainsFunc(a.sessions, func(s *session) bool { return !s.hibernated })
}

// hangUp notes that the calls are over that the stanzas end.
func (a *Account) hangUp(stanzas []Stanza) {
	for i := range stanzas {
		if stanzas[i].Content == ContentCallEnd {
			for n := range a.ended(&stanzas[i]) {
				n.sender = callOver
			}
		}
	}
}
