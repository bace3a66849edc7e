package push

import (
	"slices"

	"github.com/xmpp-push/push/wishes"
)

// What the user and the client asked for, as a rule. It is data of the registration (Wishes) or an answer of the host (ChatInfo), and
// evaluating it is pure. What nobody could answer filters nothing, and the verdict's Detail says so.

// said is what is known of a stanza besides itself. One is shared by the questions about one stanza.
type said struct {
	// made: it is about the stanza at that place of the event.
	made  bool
	place int
	// chat is the bare JID of the chat that the stanza belongs to.
	chat string
	// info is what the host knows of it; answered: it was asked or said so by itself; failed: it was asked and could not say.
	info             ChatInfo
	answered, failed bool
	// self is who the user is there.
	self Self
	// mention is whether the stanza is meant for the user, once somebody wanted to know.
	mention Fact
	why     string // if that is not known
	asked   bool
}

// What a Detail says.
const (
	detailContact   = "not known whether the sender is a contact"
	detailNick      = "own nickname in the room not known"
	detailEncrypted = "encrypted: mention not known"
	detailText      = "text not known"
	detailSettings  = "chat settings not known"
	detailGrace     = "waits, for the user is active in another session"
	detailPublic    = "nothing is set, and the room is public"
	detailIdentity  = "kind of client not known: settings for some kinds left out"
)

// wanted is rule R17. ReasonNone means that nothing speaks against the notification.
func wanted(q *question, st *Stanza, s *said) (Rule, Reason) {
	room := st.Type == MessageGroupchat || q.event == onGroupchat

	// A room sends the user's own message back to all, the user's other devices too.
	if room && s.own(st) {
		return RuleContent, ReasonReflection
	}
	if w := q.wishes; w != nil && w.Push2 == nil {
		if rule, reason := filtered(q, w, st, s, room); reason != ReasonNone {
			return rule, reason
		}
	}
	if q.class == ClassUrgent && q.policy.AskedCallsOnly && (q.wishes == nil || q.wishes.Push2 == nil && !q.wishes.Jingle) {
		return RuleFilter, ReasonNoCalls
	}

	// XEP-0492. Where nothing is set, a public room is for mentions and anything else for everything (§3).
	if !s.answered {
		if s.failed && q.detail == "" {
			q.detail = detailSettings
		}
		return RuleNone, ReasonNone
	}
	identity := ""
	if q.wishes != nil {
		identity = q.wishes.Identity
	}
	when, set := s.info.When(identity)
	if identity == "" && q.detail == "" && slices.ContainsFunc(s.info.Settings, func(c wishes.ChatSetting) bool { return c.Category != "" }) {
		q.detail = detailIdentity
	}
	if !set && room && s.info.Public == FactYes {
		when = wishes.NotifyOnMention
	}
	switch {
	case when == wishes.NotifyNever:
		return RuleSettings, ReasonChatNever
	case when == wishes.NotifyOnMention && room && !q.meant(st, s): // in a chat of two, who else would be meant
		if !set && q.detail == "" {
			q.detail = detailPublic
		}
		return RuleSettings, ReasonNotMentioned
	}
	return RuleNone, ReasonNone
}

// filtered is what the client asked for with the extensions of Tigase.
func filtered(q *question, w *wishes.Wishes, st *Stanza, s *said, room bool) (Rule, Reason) {
	d := st.Details
	if len(w.Muted) > 0 && (w.Mutes(s.chat) || d != nil && (d.Room != "" && w.Mutes(bare(d.Room)) || d.Inviter != "" && w.Mutes(bare(st.From)))) {
		return RuleFilter, ReasonMuted
	}
	if w.IgnoreUnknown && !room && s.chat != s.self.Account && (s.chat == bare(st.From) || d != nil && d.Inviter != "") {
		switch s.info.Contact {
		case FactNo:
			return RuleFilter, ReasonNotContact
		case FactUnknown:
			q.detail = detailContact
		}
	}
	if !w.Groupchat || !room {
		return RuleNone, ReasonNone
	}
	asked, listed := w.Room(s.chat)
	switch {
	case !listed:
		return RuleFilter, ReasonRoomNotListed
	case asked.Allow == wishes.RoomNever:
		return RuleFilter, ReasonRoomNever
	case asked.Allow == wishes.RoomMentioned && !q.meant(st, s):
		return RuleFilter, ReasonNotMentioned
	}
	return RuleNone, ReasonNone
}

// own tells whether the user sent the message, as far as the host knows who that is in the room.
func (s *said) own(st *Stanza) bool {
	if id := s.info.OccupantID; id != "" && st.Details != nil && st.Details.OccupantID != "" {
		return st.Details.OccupantID == id
	}
	nick := s.info.Nick
	return nick != "" && len(st.From) == len(s.chat)+1+len(nick) && st.From[len(s.chat)+1:] == nick
}

// meant tells whether the stanza is meant for the user, or nobody can tell.
func (q *question) meant(st *Stanza, s *said) bool {
	fact, why := s.mentions(st, q.policy)
	if fact == FactUnknown {
		q.detail = why
	}
	return fact != FactNo
}

// mentions tells whether a stanza mentions the user or answers a message of the user's, and why that is not known.
func (s *said) mentions(st *Stanza, p *Policy) (Fact, string) {
	if s.asked {
		return s.mention, s.why
	}
	s.asked = true
	s.self.NoText = p.NoTextMentions
	switch {
	case s.info.Mentioned != FactUnknown:
		s.mention = s.info.Mentioned
	case st.Mentions(&s.self) || st.RepliesTo(&s.self):
		s.mention = FactYes
	case st.Content == ContentEncrypted && !p.SkipEncryptedMentions:
		s.why = detailEncrypted
	case s.self.Nicks == [2]string{} && !p.NoTextMentions && st.Body != "" && st.Content != ContentEncrypted:
		s.why = detailNick
	case st.Body == "" && (st.Content == ContentText || st.Content == ContentCorrection) && !p.NoTextMentions: // the host keeps it to itself
		s.why = detailText
	default:
		s.mention = FactNo
	}
	return s.mention, s.why
}

// report puts what was known, and what came of it, into the decision, so that a replay decides the same.
func (s *said) report(d *Decision) {
	if s.made && (s.answered || s.failed || s.mention != FactUnknown) {
		c := ChatAnswer{Stanza: s.place, Chat: s.chat, Failed: s.failed, ChatInfo: s.info}
		c.Mentioned = s.mention
		d.Answers.Chats = append(d.Answers.Chats, c)
	}
	s.made = false
}

// ChatQuestion is what [Account.Asks] would have the host asked.
type ChatQuestion struct {
	// Chat is the chat's bare JID.
	Chat string
	// Contact: whether it is a contact is wanted as well ([Contacts]).
	Contact bool
	// asked tells whether a change of the chat was raised since the question was asked, so that the answer may be old.
	asked uint32
}

// Asks returns which chats the host should be asked about before ev is given to Handle, with the answers in Facts.Chats: those of stanzas that would
// notify somebody, but for those that are known already. f is as it will be for Handle, without Chats. It changes nothing. A shell whose host
// has neither Contacts nor Chats has no need of it.
func (a *Account) Asks(ev Event, f Facts) []ChatQuestion {
	if len(a.regs) == 0 {
		return nil
	}
	switch e := ev.(type) {
	case AckDelayed:
		return a.asksSession(onAckDelayed, e.Session.ID, e.Stanzas, &f)
	case HibernationStart:
		return a.asksSession(onHibernationStart, e.Session.ID, e.Stanzas, &f)
	case StanzaQueued:
		return a.asksSession(onStanzaQueued, e.Session.ID, []Stanza{e.Stanza}, &f)
	case ArchiveAdded:
		return a.asksAccount(onArchiveAdded, &e.Stanza, &f)
	case Offline:
		return a.asksAccount(onOffline, &e.Stanza, &f)
	case Groupchat:
		return a.asksAccount(onGroupchat, &e.Stanza, &f)
	default:
		return nil
	}
}

func (a *Account) asksSession(on trigger, id string, stanzas []Stanza, f *Facts) (list []ChatQuestion) {
	s := a.session(id)
	if s == nil || s.bound == nil {
		return nil
	}
	for i := range stanzas {
		q := a.ofSession(on, s, s.bound)
		list = a.asksOne(&q, s.bound, &stanzas[i], f, list)
	}
	return list
}

func (a *Account) asksAccount(on trigger, st *Stanza, f *Facts) (list []ChatQuestion) {
	own, away := a.wrote(on, st), len(f.Elsewhere) == 0 && a.allAway()
	for _, r := range a.regs {
		q := a.ofAccount(on, own, away, r, f)
		list = a.asksOne(&q, r, st, f, list)
	}
	return list
}

// asksOne adds what should be asked about one stanza and registration.
func (a *Account) asksOne(q *question, r *registration, st *Stanza, f *Facts, list []ChatQuestion) []ChatQuestion {
	if st.Info != nil || !st.isMessage() && st.Content != ContentSubscription || st.Content == ContentCallEnd && a.ends(st) || st.Content == ContentCall && a.over(st) {
		return list
	}
	q.disabled = !r.Health.Disabled.IsZero() && !a.mayRetry(r, f.Now)
	q.wishes = r.Wishes
	q.ask(st)
	if _, reason := decide(q, st, nil); !reason.Notifies() || r.mem.has(a.identity(st)) || a.rang(st, r) {
		return list
	}
	n := ChatQuestion{Chat: st.Chat(a.name), asked: uint32(a.changed) + 1}
	n.Contact = r.Wishes != nil && r.Wishes.IgnoreUnknown && st.Type != MessageGroupchat && n.Chat != a.name && n.Chat == bare(st.From)
	known := a.knows(n.Chat, f.Now)
	if known != nil && (!n.Contact || known.Contact != FactUnknown) {
		return list
	}
	for i := range list {
		if list[i].Chat == n.Chat {
			list[i].Contact = list[i].Contact || n.Contact
			return list
		}
	}
	return append(list, n)
}
