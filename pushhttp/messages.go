package pushhttp

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// The history of an account as its user would tell it: one message, call or wake-up after another, and for each of them what became of it for each
// device. A message is all events that have to do with one stanza, told apart by its ID.

// message is one of them.
type message struct {
	id     string // the stanza's
	number uint64 // of its first event
	seq    uint64 // of its last line
	at     time.Time
	from   string
	stanza push.Stanza
	kind   string
	silent bool // nothing that a user would see
	nobody push.Reason
	fates  []fate
}

// fate is what became of a message for one device.
type fate struct {
	key                    push.Key
	yes, no, sent, dropped *line
	off                    *line // the change by which the reply to it ended notifications for the device
}

func (m *message) fate(k push.Key) *fate {
	for i := range m.fates {
		if m.fates[i].key == k {
			return &m.fates[i]
		}
	}
	m.fates = append(m.fates, fate{key: k})
	return &m.fates[len(m.fates)-1]
}

// maxPerEvent bounds how many messages of one event are told apart.
const maxPerEvent = 64

// messagesOf puts an account's lines together into messages, in the order in which they began.
func messagesOf(lines []line) []*message {
	var all []*message
	byID := make(map[string]*message)
	byEvent := make(map[uint64][]*message, len(lines)/4)
	var event *line
	var mine []*message
	for i := range lines {
		l := &lines[i]
		switch l.kind {
		case isEvent:
			event, mine = l, nil
			_, ping := l.event.(push.Ping)
			q := stanzas(l.event)
			if len(q) == 0 && !ping {
				continue
			}
			if ping {
				m := &message{number: l.number, at: l.at(), kind: "wake-up", from: ""}
				mine = append(mine, m)
				all = append(all, m)
			}
			for j := range q[:min(len(q), maxPerEvent)] {
				st := &q[j]
				m := byID[st.ID]
				if m == nil || st.ID == "" {
					m = &message{id: st.ID, number: l.number, at: l.at(), from: st.From, stanza: *st}
					m.kind, m.silent = kindOf(st)
					if st.ID != "" {
						byID[st.ID] = m
					}
					all = append(all, m)
				}
				mine = append(mine, m)
			}
			byEvent[l.number] = mine
			for _, m := range mine {
				m.seq = l.seq
				if l.reason != push.ReasonNone {
					m.nobody = l.reason
				}
				if l.reason == push.ReasonNoRegistration && wrote(l.event) {
					m.nobody = push.ReasonOwn // nobody would have been told by it
				}
			}
		case isVerdict:
			if event == nil || event.number != l.number {
				continue
			}
			for j, m := range mine {
				f := m.fate(l.key)
				m.seq = l.seq
				if l.notify && (l.mask == 0 || j >= 64 || l.mask&(1<<j) != 0) {
					f.yes = l
				} else if l.notify {
					again := *l // of this event, other stanzas were notified of; this one had been before
					again.notify, again.reason = false, push.ReasonSeen
					f.no = &again
				} else if f.no == nil || informative(l.reason) >= informative(f.no.reason) {
					f.no = l
				}
			}
		case isPublish, isReply:
			for _, n := range l.events {
				for _, m := range byEvent[n] {
					f := m.concerned(l.key)
					if f == nil {
						continue
					}
					m.seq = l.seq
					if f.sent == nil || !f.sent.done || f.sent.outcome != push.OutcomeAccepted {
						f.sent = l
					}
				}
			}
		case isDrop:
			for _, n := range l.events {
				for _, m := range byEvent[n] {
					if f := m.concerned(l.key); f != nil {
						f.dropped, m.seq = l, l.seq
					}
				}
			}
		case isChange:
			if l.change == push.ChangeDisabled && len(all) > 0 {
				// What was sent last to this device was answered so.
				for _, m := range all[max(0, len(all)-200):] {
					for j := range m.fates {
						f := &m.fates[j]
						if f.key == l.key && f.sent != nil && f.sent.done && f.sent.end == l.nanos {
							f.off = l
						}
					}
				}
			}
		}
	}
	return all
}

// wrote tells whether an event is that a message of the account's own went into its archive (rule R6).
func wrote(ev push.Event) bool {
	e, ok := ev.(push.ArchiveAdded)
	if !ok {
		return false
	}
	to, _, _ := strings.Cut(cmp.Or(e.Stanza.To, e.Stanza.From), "/")
	return to != "" && to != e.Account
}

// concerned returns the fate for a device that was to be notified of the message.
func (m *message) concerned(k push.Key) *fate {
	for i := range m.fates {
		if f := &m.fates[i]; f.key == k {
			if f.yes == nil {
				return nil // its event notified of other stanzas
			}
			return f
		}
	}
	return nil
}

// kindOf says what a stanza is in a word, and whether it is silent: nothing that a user would see.
func kindOf(st *push.Stanza) (kind string, silent bool) {
	switch {
	case st.Content == push.ContentCall || st.Class >= push.ClassUrgent:
		return "call", false
	case st.Content == push.ContentCallEnd:
		return "end of a call", true
	case st.Content != push.ContentNone && st.Content != push.ContentText:
		return contentNames[st.Content], st.Class < push.ClassImportant
	case st.Class >= push.ClassImportant:
		return "message", false
	case st.Kind == push.KindPresence:
		return "presence", true
	case st.Kind == push.KindIQ:
		return "request", true
	case st.Kind == push.KindNonza:
		return "stream element", true
	}
	return "silent update", true
}

var contentNames = map[push.Content]string{
	push.ContentEncrypted: "encrypted message", push.ContentInvitation: "invitation", push.ContentFile: "file", push.ContentSubscription: "contact request",
	push.ContentCorrection: "correction", push.ContentRetraction: "retraction", push.ContentModeration: "moderation", push.ContentReaction: "reaction",
	push.ContentKeyTransport: "key exchange", push.ContentSubject: "room subject", push.ContentDisplayed: "read marker", push.ContentReceipt: "receipt",
	push.ContentSent: "sent by the user", push.ContentHeadline: "headline", push.ContentError: "bounced message",
}

// told is the answer for one device: a mark, a sentence, and what can be done.
type told struct {
	mark Mark
	text sentence
	next string
	at   time.Time // when that came about
}

// answer says what became of a message for the device.
func (f *fate) answer(device string) (t told) {
	l := f.sent
	word := func(w word, detail string) {
		t.mark, t.text, t.next = w.mark, fill(w.text, device, detail), w.next
	}
	switch {
	case l != nil && l.done && l.outcome == push.OutcomeAccepted:
		w := outcomeWord(l.outcome)
		t.mark, t.at, t.next = w.mark, l.ended(), w.next
		what := "the notification"
		switch {
		case l.class == push.ClassPlain:
			t.mark, what = MarkWoken, "a silent wake-up"
			t.next = "It shows nothing by itself: the app fetches what is new and decides."
		case l.class >= push.ClassUrgent:
			what = "the notification of a call"
		}
		t.text.say("The push service accepted " + what + " for ")
		t.text.name(device)
		t.text.say(" at ")
		t.text.when(t.at)
		if f.yes != nil {
			if late := t.at.Sub(f.yes.at()); late >= 5*time.Second {
				t.text.say(", " + span(late) + " after the message")
			}
		}
		if l.try > 1 {
			t.text.say(", at the " + ordinal(int(l.try)) + " try")
		}
		t.text.say(".")
		if f.yes != nil {
			t.add(f.yes.text)
		}
	case f.dropped != nil && (l == nil || f.dropped.seq > l.seq && f.dropped.reason != push.ReasonRejected):
		t.at = f.dropped.at()
		word(wordOf(f.dropped.reason), f.dropped.text)
	case l != nil && !l.done:
		t.mark, t.at = MarkWaiting, l.at()
		t.text.say("The notification for ")
		t.text.name(device)
		t.text.say(" was sent at ")
		t.text.when(l.at())
		t.text.say("; the push service has not answered yet.")
	case l != nil:
		t.at = l.ended()
		w := outcomeWord(l.outcome)
		if l.outcome == push.OutcomeTransient {
			w.text = transientText(l.text)
		}
		word(w, errorOf(l))
		if l.outcome == push.OutcomeTransient {
			if l.retry().IsZero() {
				t.mark = MarkFailed
			} else {
				t.text.say(" Next try at ")
				t.text.when(l.retry())
				t.text.say(".")
			}
		}
		if f.off != nil {
			t.text.say(" So notifications for it ended at ")
			t.text.when(f.off.at())
			t.text.say(".")
			t.next = openApp
		}
	case f.yes != nil:
		t.mark, t.at = MarkWaiting, f.yes.at()
		word(wordOf(f.yes.reason), f.yes.text)
		t.mark = MarkWaiting
		t.text.say(" It has not been sent yet.")
		t.add(f.yes.text)
	case f.no != nil:
		t.at = f.no.at()
		word(wordOf(f.no.reason), f.no.text)
		if f.no.reason != push.ReasonVeto { // whose sentence has it
			t.add(f.no.text)
		}
	}
	return t
}

// add adds what a verdict says besides its reason.
func (t *told) add(detail string) {
	if detail != "" {
		t.text.say(" The rules add: ")
		t.text.name(detail)
		t.text.say(".")
	}
}

func ordinal(n int) string {
	s := strconv.Itoa(n)
	switch {
	case n%100 >= 11 && n%100 <= 13:
		return s + "th"
	case n%10 == 1:
		return s + "st"
	case n%10 == 2:
		return s + "nd"
	case n%10 == 3:
		return s + "rd"
	}
	return s + "th"
}

// nobodyAnswer says why nobody was told of a message, with what became of the account's devices before.
func (m *message) nobodyAnswer(account string, lines []line, device func(push.Key) string) (t told) {
	w := wordOf(m.nobody)
	t.mark, t.next, t.at = w.mark, w.next, m.at
	if m.nobody != push.ReasonNoRegistration {
		t.text = fill(w.text, "the device", "")
		return t
	}
	t.text.say("Nobody was told: no device of ")
	t.text.name(account)
	t.text.say(" had notifications switched on at ")
	t.text.when(m.at)
	last := make(map[push.Key]*line)
	var keys []push.Key
	for i := range lines {
		l := &lines[i]
		if l.kind != isChange || l.nanos > m.at.UnixNano() {
			continue
		}
		switch l.change {
		case push.ChangeRemoved, push.ChangeDisabled:
			if last[l.key] == nil {
				keys = append(keys, l.key)
			}
			last[l.key] = l
		case push.ChangeAdded, push.ChangeUpdated, push.ChangeEnabled:
			delete(last, l.key)
			keys = slices.DeleteFunc(keys, func(k push.Key) bool { return k == l.key })
		}
	}
	for i, k := range keys[max(0, len(keys)-3):] {
		if i == 0 {
			t.text.say("; ")
		} else {
			t.text.say(", ")
		}
		l := last[k]
		t.text.name(device(k))
		switch {
		case l.operator:
			t.text.say(" was switched off by the operator ")
			t.text.name(l.text)
		case l.change == push.ChangeDisabled:
			t.text.say(" was given up because of its push service's errors")
		case l.reason == push.ReasonDisabledByUser:
			t.text.say(" switched them off")
		case l.reason == push.ReasonRevoked:
			t.text.say(" lost its push service's permission")
		case l.reason == push.ReasonLimit:
			t.text.say(" was dropped, there being too many")
		default:
			t.text.say(" was removed")
		}
		t.text.say(" at ")
		t.text.when(l.at())
	}
	t.text.say(".")
	return t
}

// trouble tells whether some device was not told of the message by any of its events and should have been.
func (m *message) trouble() bool {
	if len(m.fates) == 0 {
		return wordOf(m.nobody).mark.trouble()
	}
	for i := range m.fates {
		if m.fates[i].answer("").mark.trouble() {
			return true
		}
	}
	return false
}
