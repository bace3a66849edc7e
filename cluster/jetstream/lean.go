package jetstream

import (
	"slices"

	"github.com/xmpp-push/push"
)

// lean takes out of an event what the log must not have: texts that the policy does not let out, the stanza itself included. What a decision needs of a text is found
// out before. l.mu is held.
func (l *lane) lean(ev push.Event) push.Event {
	if l.n.policy.IncludeBody {
		return ev
	}
	account := ev.Subject().Account
	list := func(of []push.Stanza) []push.Stanza {
		of = slices.Clone(of)
		for i := range of {
			of[i] = l.strip(account, of[i])
		}
		return of
	}
	switch ev := ev.(type) {
	case push.ArchiveAdded:
		ev.Stanza = l.strip(account, ev.Stanza)
		return ev
	case push.Offline:
		ev.Stanza = l.strip(account, ev.Stanza)
		return ev
	case push.Groupchat:
		ev.Stanza = l.strip(account, ev.Stanza)
		return ev
	case push.StanzaQueued:
		ev.Stanza = l.strip(account, ev.Stanza)
		return ev
	case push.AckDelayed:
		ev.Stanzas = list(ev.Stanzas)
		return ev
	case push.HibernationStart:
		ev.Stanzas = list(ev.Stanzas)
		return ev
	}
	return ev
}

// leftOut stands for the text of what the user sent, of which only matters that there was one. Nobody is shown it.
const leftOut = "…"

func (l *lane) strip(account string, st push.Stanza) push.Stanza {
	text := st.Body
	if text != "" {
		st.Info = l.mentioned(account, &st)
	}
	st.Body, st.XML = "", ""
	if text != "" && st.Content == push.ContentSent {
		st.Body = leftOut
	}
	return st
}

// mentioned returns what is known of a stanza's chat, and whether its text mentions the user, if one can tell here: if a nickname is known. Else the owner
// knows that there was a text, and that nobody can tell.
func (l *lane) mentioned(account string, st *push.Stanza) *push.ChatInfo {
	info := st.Info
	if l.n.policy.NoTextMentions || st.Content == push.ContentEncrypted || info != nil && info.Mentioned != push.FactUnknown {
		return info
	}
	var nicks []string
	known := push.ChatInfo{}
	if info != nil {
		known = *info
		if known.Nick != "" {
			nicks = append(nicks, known.Nick)
		}
	}
	if st.Type == push.MessageGroupchat {
		nicks = l.local.Nicks(nicks, account, st.Chat(account))
	}
	if len(nicks) == 0 {
		return info
	}
	text, marked, either := false, false, true // the text names the user; the sender marked somebody; it does not depend on what the user does now
	for _, nick := range nicks {
		u := push.Self{Account: account, Nicks: [2]string{nick}, OccupantID: known.OccupantID}
		with, answers := st.Mentions(&u), st.RepliesTo(&u)
		u.NoText = true
		without := st.Mentions(&u)
		u.Active = true
		either = either && st.Mentions(&u) == without
		text = text || with && !without
		marked = marked || without || answers
	}
	switch {
	case text:
		known.Mentioned = push.FactYes
	case !marked && either:
		known.Mentioned = push.FactNo
	default:
		return info
	}
	return &known
}
