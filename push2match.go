package push

import (
	"slices"
	"time"

	"github.com/xmpp-push/push/wishes"
)

// matching is the part of rule R17 that Push 2.0 adds: a stanza notifies if one match lets it through. It chooses the match, one that carries
// content before one that does not. s is nil as long as only profiles can be told; filters may then still say no.
func matching(q *question, st *Stanza, s *said) (Rule, Reason) {
	q.match = 0
	matches := q.wishes.Push2.Matches
	reason := ReasonNoMatch
	var grace time.Duration
	for i := range matches {
		m := &matches[i]
		if !covers(m, q, st) {
			continue
		}
		if s != nil {
			if no := passes(m, q, st, s); no != ReasonNone {
				reason = no
				continue
			}
		}
		if q.match == 0 || m.Grace < grace {
			grace = m.Grace
		}
		if q.match == 0 || matches[q.match-1].Send == nil && m.Send != nil {
			q.match = i + 1
		}
	}
	if q.match == 0 {
		return RuleFilter, reason
	}
	q.grace = max(q.policy.Grace, grace)
	return RuleNone, ReasonNone
}

// covers tells whether the match is about such stanzas.
func covers(m *wishes.Match, q *question, st *Stanza) bool {
	archived := q.event == onArchiveAdded || st.Archived
	switch m.Profile {
	case wishes.MatchImportant:
		return q.class >= ClassImportant
	case wishes.MatchArchived:
		return archived
	case wishes.MatchArchivedWithBody:
		return archived && st.hasBody()
	}
	return true
}

// passes says why the match's filter for the sender does not let the stanza through, or ReasonNone.
func passes(m *wishes.Match, q *question, st *Stanza, s *said) Reason {
	f, ok := m.Filter(st.From)
	switch {
	case !ok:
		return ReasonNone
	case !f.Mention && !f.Reply:
		return ReasonMuted
	case f.Mention && q.meant(st, s), f.Reply && st.RepliesTo(&s.self):
		return ReasonNone
	case f.Reply && st.Type == MessageGroupchat && s.self.Nicks == [2]string{} && st.Details != nil && st.Details.Reply.To != "":
		q.detail = detailNick
		return ReasonNone
	}
	return ReasonNotMentioned
}

// hasBody tells whether there is something to read: a text, or what stands for one because it is encrypted, a file, or an invitation; and a text
// that corrects another.
func (st *Stanza) hasBody() bool {
	return st.Class == ClassImportant || st.Content == ContentCorrection
}

// anyMatch returns the number of a match by which to send what every match lets through.
func anyMatch(w *wishes.Wishes) int {
	if w == nil || w.Push2 == nil {
		return 0
	}
	i := slices.IndexFunc(w.Push2.Matches, func(m wishes.Match) bool { return m.Send != nil })
	return max(i, 0) + 1
}
