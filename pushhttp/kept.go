package pushhttp

import (
	"slices"
	"unsafe"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
	"github.com/xmpp-push/push/wishes"
)

// maxText bounds each text of others that is kept.
const maxText = 256

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText-1] + "…"
}

// stanzas returns those of an event.
func stanzas(ev push.Event) []push.Stanza { return trace.Stanzas(ev) }

// maskOf says which of the first 64 stanzas are among ids, which are in the same order.
func maskOf(queue []push.Stanza, ids []string) (mask uint64) {
	for i := range queue {
		if len(ids) == 0 || i == 64 {
			break
		}
		if queue[i].ID == ids[0] {
			mask |= 1 << i
			ids = ids[1:]
		}
	}
	return mask
}

// maxQueue bounds how many stanzas of one event are kept.
const maxQueue = 256

// keep notes an event without bodies, of which only about the length is left, and with stand-ins for the values of options.
func (h *History) keep(l *line, ev push.Event) {
	switch e := ev.(type) {
	case push.StanzaQueued:
		l.raises, l.extra = raisesStanzaQueued, e.Session.ID
		h.keepStanza(l, &e.Stanza)
	case push.ArchiveAdded:
		l.raises = raisesArchiveAdded
		h.keepStanza(l, &e.Stanza)
	case push.Offline:
		l.raises = raisesOffline
		h.keepStanza(l, &e.Stanza)
	case push.Groupchat:
		l.raises = raisesGroupchat
		h.keepStanza(l, &e.Stanza)
	case push.AckDelayed:
		e.Stanzas = queueWithoutText(e.Stanzas)
		l.event = e
	case push.HibernationStart:
		e.Stanzas = queueWithoutText(e.Stanzas)
		l.event = e
	case push.Ping:
		e.Registrations = slices.Clone(e.Registrations)
		l.event = e
	case push.PushEnable:
		e.Options = h.mask.Fields(e.Options[:min(len(e.Options), 32)])
		for i := range e.Options {
			f := &e.Options[i]
			f.Var, f.Values = cut(f.Var), f.Values[:min(len(f.Values), 8)]
		}
		l.event = e
	case push.Acknowledged:
		e.IDs = slices.Clone(e.IDs[:min(len(e.IDs), maxQueue)])
		l.event = e
	case push.SessionOpen, push.SessionRestored, push.SessionClose, push.PushDisable, push.HibernationEnd, push.AffiliationNone, push.AccountRemoved,
		push.SessionActive, push.SessionPresence, push.Displayed, push.ChatChanged: // no text in them
		l.event = ev
	default:
		l.event = ev
	}
	h.weigh(l.account, l, l.bytes())
}

// bytes is about how much memory an event's line points to.
func (l *line) bytes() (n int) {
	if a := l.answers; a != nil {
		n = len(a.Elsewhere)*int(unsafe.Sizeof(push.Key{})) + len(a.Vetoes)*int(unsafe.Sizeof(push.VetoAnswer{}))
		for i := range a.Vetoes {
			n += len(a.Vetoes[i].Text)
		}
		for i := range a.Chats {
			n += int(unsafe.Sizeof(a.Chats[i])) + len(a.Chats[i].Chat) + infoBytes(&a.Chats[i].ChatInfo)
		}
	}
	if l.stanza != nil {
		return n + stanzaBytes(l.stanza)
	}
	switch e := l.event.(type) {
	case push.AckDelayed:
		n += queueBytes(e.Stanzas)
	case push.HibernationStart:
		n += queueBytes(e.Stanzas)
	case push.Ping:
		n += len(e.Registrations) * int(unsafe.Sizeof(push.Key{}))
	case push.Acknowledged:
		for _, id := range e.IDs {
			n += len(id) + int(unsafe.Sizeof(id))
		}
	case push.PushEnable:
		for _, f := range e.Options {
			n += int(unsafe.Sizeof(f)) + len(f.Var)
			for _, v := range f.Values {
				n += int(unsafe.Sizeof(v)) + len(v)
			}
		}
		if e.Wishes != nil {
			packed, _ := e.Wishes.MarshalBinary() // never an error
			n += 2 * len(packed)
		}
	default:
	}
	return n
}

func queueBytes(q []push.Stanza) (n int) {
	for i := range q {
		n += stanzaBytes(&q[i])
	}
	return n
}

func stanzaBytes(st *push.Stanza) int {
	n := int(unsafe.Sizeof(*st)) + len(st.ID) + len(st.From) + len(st.To) + len(st.MessageID)
	if d := st.Details; d != nil {
		n += int(unsafe.Sizeof(*d)) + len(d.Target) + len(d.RoomID) + len(d.OccupantID) + len(d.Room) + len(d.Inviter) + len(d.Reply.To) + len(d.Reply.ID)
		if d.Call != nil {
			n += int(unsafe.Sizeof(*d.Call)) + len(d.Call.ID)
		}
	}
	if st.Info != nil {
		n += int(unsafe.Sizeof(*st.Info)) + infoBytes(st.Info)
	}
	return n
}

func infoBytes(c *push.ChatInfo) int {
	return len(c.Settings)*int(unsafe.Sizeof(wishes.ChatSetting{})) + len(c.Nick) + len(c.OccupantID)
}

func (h *History) keepStanza(l *line, st *push.Stanza) {
	if l.stanza = h.spare; l.stanza == nil {
		l.stanza = new(push.Stanza)
	}
	h.spare = nil
	*l.stanza = stanzaWithoutText(*st)
}

func queueWithoutText(q []push.Stanza) []push.Stanza {
	if len(q) == 0 {
		return nil
	}
	kept := make([]push.Stanza, min(len(q), maxQueue))
	for i := range kept {
		kept[i] = stanzaWithoutText(q[i])
	}
	return kept
}

func stanzaWithoutText(st push.Stanza) push.Stanza {
	if st.Body != "" {
		n := 1
		for n < len(st.Body) && n < len(blank) {
			n *= 4
		}
		st.Body = blank[:min(n, len(blank))]
	}
	st.ID, st.From, st.To, st.XML = cut(st.ID), cut(st.From), cut(st.To), ""
	if d := st.Details; d != nil && len(d.Mentions) > 0 { // what came of them is in the answers
		own := *d
		own.Mentions = nil
		st.Details = &own
	}
	return st
}

// blank stands for text; all bodies that are kept are the beginning of it.
var blank = string(make([]byte, 2048))
