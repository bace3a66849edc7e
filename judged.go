package push

import (
	"fmt"
	"strings"
)

// maxBody bounds the text that is kept of a message: push payloads hold less.
const maxBody = 2048

// judged is a message, the outer one or the one that a carbon copy forwards.
type judged struct {
	Features
	ns, from, to, id, body string
	bodyDone               bool
	noStore                bool
	archived               string // the ID that it has in the archive of its recipient
	// fallback: the body stands in for an element of the class table altogether. quotes are the parts of it that stand in for a reply's quotation.
	fallback bool
	quotes   [4]span
	nQuotes  int
	delayed  bool // by its room
	details  Details
	call     Call
	media    [2]string
	mention  Mention
	some     bool // details has something
	// roomUser: it has a room's mark with nothing in it. origin is its origin-id (XEP-0359). eme names how it is encrypted, if that is not known by its payload.
	roomUser, eme bool
	origin        string
}

// span is a part of a body, in code points.
type span struct{ start, end int }

func (m *judged) mentioned(n Mention) {
	if len(m.details.Mentions) < maxMentions && n != (Mention{}) {
		m.details.Mentions = append(m.details.Mentions, n)
		m.some = true
	}
}

// stanza makes the Stanza when all has been read.
func (c *collector) stanza(id string) (Stanza, error) {
	if c.headless {
		return Stanza{}, fmt.Errorf("%w: it is a part of one, whose start element has been read already: put that before it again", ErrStanza)
	}
	m := &c.outer
	m.settle()
	content := m.Features.Content()
	class := content.Class()
	if c.isCarbon {
		n := &c.inner
		n.settle()
		class = Classify(n.Features)
		if c.outer.from == "" || c.outer.to == "" || bare(c.outer.from) == bare(c.outer.to) {
			m, content = n, n.Features.Content()
		} else { // a stranger wraps what he made up (XEP-0280 §11): the sender shown is he, and it means nothing
			content = ContentNone
		}
	}
	from, err := prepared(m.from)
	if err != nil {
		return Stanza{}, fmt.Errorf("%w: from: %w", ErrStanza, err)
	}
	to, err := prepared(m.to)
	if err != nil {
		return Stanza{}, fmt.Errorf("%w: to: %w", ErrStanza, err)
	}
	st := Stanza{
		ID:        id,
		From:      from,
		To:        to,
		Body:      strings.Clone(m.text()),
		MessageID: kept(m.id),
		Class:     class,
		Kind:      c.outer.Kind,
		Content:   content,
		Archived:  id != "" && m.archived == id,
	}
	if st.Kind != KindMessage {
		return st, nil
	}
	st.Type = messageTypeOf(m.Type)
	st.NoStore = m.noStore && st.Type != MessageError // XEP-0334 §4: hints in errors mean nothing
	st.History = m.Replay || m.delayed
	st.Details = m.detailed(content)
	return st, nil
}

// settle ends the reading of what depends on several elements.
func (m *judged) settle() {
	m.Features.Body = m.Features.Body && !m.fallback
	m.Encrypted = m.Encrypted || m.eme && m.Features.Body && !m.KeyTransport
	if !m.call.Invite {
		return
	}
	if m.Propose {
		if m.call.ID = m.origin; m.origin == "" {
			m.call.ID = m.id
		}
	}
	if m.Type != "groupchat" {
		return
	}
	// It is a room that is invited. Who may take that back is who sent it; what the others do with it changes nothing.
	if m.Propose {
		m.Invitation = true
	}
	if m.call.Action == CallRetract {
		m.Retraction, m.details.Target, m.some = true, m.call.ID, true
	}
	m.Propose, m.CallEnd = false, false
}

// text returns the body without what stands in for a reply's quotation.
func (m *judged) text() string {
	if m.nQuotes == 0 || m.body == "" {
		return m.body
	}
	var b strings.Builder
	n := 0
	for _, r := range m.body {
		quoted := false
		for _, q := range m.quotes[:m.nQuotes] {
			quoted = quoted || q.start >= 0 && n >= q.start && n < q.end
		}
		if !quoted {
			b.WriteRune(r)
		}
		n++
	}
	return b.String()
}

// detailed returns the details, if there are any.
func (m *judged) detailed(content Content) *Details {
	call := content == ContentCall || content == ContentCallEnd
	private := m.roomUser && !m.Invitation && !call && m.Type != "groupchat"
	if content == ContentError || !m.some && !call && !private {
		return nil
	}
	d := &Details{
		Target: kept(m.details.Target), RoomID: kept(m.details.RoomID), OccupantID: kept(m.details.OccupantID),
		Reply: ReplyTo{kept(m.details.Reply.To), kept(m.details.Reply.ID)}, Private: private,
	}
	if content == ContentInvitation {
		d.Room, _ = prepared(m.details.Room)
		if d.Room == "" {
			d.Inviter, _ = prepared(m.details.Inviter)
		}
	}
	for _, n := range m.details.Mentions {
		n.URI, n.JID, n.OccupantID = kept(n.URI), kept(n.JID), kept(n.OccupantID)
		if n.URI != "" || n.JID != "" || n.OccupantID != "" || n.Channel {
			d.Mentions = append(d.Mentions, n)
		}
	}
	if call {
		d.Call = &Call{ID: kept(m.call.ID), Action: m.call.Action, Invite: m.call.Invite}
		for _, name := range m.media {
			if name != "" && len(name) <= 32 {
				d.Call.Media = append(d.Call.Media, strings.Clone(name))
			}
		}
	}
	if d.empty() {
		return nil
	}
	return d
}

// maxID bounds what is kept of identifiers and addresses in a stanza; longer ones are left out, since a part of them would be another one.
const maxID = 256

// maxMentions bounds the mentions that are kept.
const maxMentions = 32

func kept(s string) string {
	if len(s) > maxID {
		return ""
	}
	return strings.Clone(s)
}
