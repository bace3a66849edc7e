package trace

import (
	"encoding/xml"
	"strings"

	"github.com/xmpp-push/push"
)

// stanza makes the smallest stanza that says the same to the rules: ParseStanza makes the same of it, but for the text of the body if that is not to be
// written, and for what is given with it (push.ChatInfo), which is in the answers.
func (w *Writer) stanza(st *push.Stanza) *writtenStanza {
	x := xmlWriter{}
	switch {
	case st.Kind == push.KindMessage && st.Content == push.ContentSent:
		own, _, _ := strings.Cut(st.From, "/")
		x.open("message", "xmlns", "jabber:client", "from", address(own), "to", address(own))
		x.open("sent", "xmlns", "urn:xmpp:carbons:2")
		x.open("forwarded", "xmlns", "urn:xmpp:forward:0")
		w.message(&x, st, "jabber:client")
		x.close("forwarded", "sent", "message")
	case st.Kind == push.KindMessage, st.Content == push.ContentNone && st.Class > push.ClassPlain:
		w.message(&x, st, "")
	case st.Content == push.ContentSubscription:
		x.open("presence", "from", address(st.From), "to", address(st.To), "id", st.MessageID, "type", "subscribe")
		x.close("presence")
	case st.Kind == push.KindPresence:
		x.open("presence", "from", address(st.From), "to", address(st.To), "id", st.MessageID)
		x.close("presence")
	case st.Kind == push.KindIQ:
		x.open("iq", "from", address(st.From), "to", address(st.To), "id", st.MessageID)
		x.close("iq")
	default:
		x.open("r", "xmlns", "urn:xmpp:sm:3", "from", address(st.From), "to", address(st.To), "id", st.MessageID)
		x.close("r")
	}
	return &writtenStanza{ID: strings.ToValidUTF8(st.ID, "\uFFFD"), XML: x.b.String(), Held: st.Held}
}

// address returns a JID that will be read back, or one that stands in for it.
func address(s string) string {
	if s != "" && !readable(s) {
		return "invalid.invalid"
	}
	return s
}

// message writes a message.
func (w *Writer) message(x *xmlWriter, st *push.Stanza, ns string) {
	d := st.Details
	if d == nil {
		d = &push.Details{}
	}
	typ := ""
	if st.Type != push.MessageNormal {
		typ = st.Type.String()
	}
	content := st.Content
	if content == push.ContentNone && st.Class > push.ClassPlain { // a host's own values may have a class alone
		switch {
		case st.Class == push.ClassUrgent:
			content = push.ContentCall
		case st.Class == push.ClassImportant && st.Body != "":
			content = push.ContentText
		case st.Class == push.ClassImportant:
			content = push.ContentEncrypted
		}
	}
	x.open("message", "xmlns", ns, "from", address(st.From), "to", address(st.To), "id", st.MessageID, "type", typ)
	target, standIn := d.Target, ""
	switch content {
	case push.ContentEncrypted:
		x.empty("x", "xmlns", "jabber:x:encrypted")
	case push.ContentCall, push.ContentCallEnd:
		call := d.Call
		if call == nil {
			call = &push.Call{}
		}
		if call.Invite {
			x.invite(content == push.ContentCall, call)
			break
		}
		x.open(call.Action.String(), "xmlns", "urn:xmpp:jingle-message:0", "id", call.ID)
		for _, m := range call.Media {
			x.empty("description", "xmlns", "urn:xmpp:jingle:apps:rtp:1", "media", m)
		}
		x.close(call.Action.String())
	case push.ContentInvitation:
		if d.Room != "" {
			x.empty("x", "xmlns", "jabber:x:conference", "jid", address(d.Room))
		} else {
			x.open("x", "xmlns", "http://jabber.org/protocol/muc#user")
			x.empty("invite", "from", address(d.Inviter))
			x.close("x")
		}
	case push.ContentFile:
		x.empty("file-sharing", "xmlns", "urn:xmpp:sfs:0")
		standIn = "urn:xmpp:sfs:0"
	case push.ContentCorrection:
		x.empty("replace", "xmlns", "urn:xmpp:message-correct:0", "id", target)
		target = ""
	case push.ContentRetraction, push.ContentModeration:
		x.open("retract", "xmlns", "urn:xmpp:message-retract:1", "id", target)
		if content == push.ContentModeration {
			x.empty("moderated", "xmlns", "urn:xmpp:message-moderate:1")
		}
		x.close("retract")
		target = ""
	case push.ContentReaction:
		x.empty("reactions", "xmlns", "urn:xmpp:reactions:0", "id", target)
		target = ""
	case push.ContentKeyTransport:
		x.empty("encrypted", "xmlns", "urn:xmpp:omemo:2")
	case push.ContentSubject:
		x.empty("subject")
		standIn = "urn:xmpp:reactions:0" // with a body of its own it would be a text
	case push.ContentReceipt:
		x.empty("received", "xmlns", "urn:xmpp:receipts")
		standIn = "urn:xmpp:receipts"
	case push.ContentDisplayed:
		x.empty("displayed", "xmlns", "urn:xmpp:chat-markers:0", "id", target)
		target, standIn = "", "urn:xmpp:chat-markers:0"
	case push.ContentNone:
		standIn = "urn:xmpp:reactions:0"
	}
	if target != "" {
		x.empty("displayed", "xmlns", "urn:xmpp:chat-markers:0", "id", target)
	}
	body := st.Body
	if body == "" && content == push.ContentText {
		body = "x" // a host's own value
	}
	if body != "" {
		x.open("body")
		x.b.WriteString(w.body(body))
		x.close("body")
		if standIn != "" {
			x.empty("fallback", "xmlns", "urn:xmpp:fallback:0", "for", standIn)
		}
	}
	if st.NoStore {
		x.empty("no-store", "xmlns", "urn:xmpp:hints")
	}
	room, _, _ := strings.Cut(st.From, "/")
	if st.History && st.Type == push.MessageGroupchat && content != push.ContentNone {
		x.empty("delay", "xmlns", "urn:xmpp:delay", "from", address(room))
	} else if st.History {
		x.empty("result", "xmlns", "urn:xmpp:mam:2")
	}
	w.details(x, d, room)
	x.close("message")
}

// invite writes what a call of XEP-0482 has to say.
func (x *xmlWriter) invite(propose bool, call *push.Call) {
	const ns = "urn:xmpp:call-invites:0"
	if !propose {
		name := call.Action.String()
		if call.Action == push.CallFinish {
			name = "left"
		}
		x.empty(name, "xmlns", ns, "id", call.ID)
		return
	}
	audio, video := "false", ""
	for _, m := range call.Media {
		switch m {
		case "audio":
			audio = ""
		case "video":
			video = "true"
		}
	}
	x.empty("invite", "xmlns", ns, "audio", audio, "video", video)
	x.empty("origin-id", "xmlns", "urn:xmpp:sid:0", "id", call.ID)
}

// details writes what is left of the details.
func (w *Writer) details(x *xmlWriter, d *push.Details, room string) {
	if d.RoomID != "" {
		x.empty("stanza-id", "xmlns", "urn:xmpp:sid:0", "by", address(room), "id", d.RoomID)
	}
	if d.OccupantID != "" {
		x.empty("occupant-id", "xmlns", "urn:xmpp:occupant-id:0", "id", d.OccupantID)
	}
	if d.Private {
		x.empty("x", "xmlns", "http://jabber.org/protocol/muc#user")
	}
	if d.Reply != (push.ReplyTo{}) {
		x.empty("reply", "xmlns", "urn:xmpp:reply:0", "to", d.Reply.To, "id", d.Reply.ID)
	}
	for _, m := range d.Mentions {
		if m.Reference {
			x.empty("reference", "xmlns", "urn:xmpp:reference:0", "type", "mention", "uri", m.URI)
			continue
		}
		channel := ""
		if m.Channel {
			channel = "urn:xmpp:mentions:0#channel"
		}
		x.open("mention", "xmlns", "urn:xmpp:mentions:0", "jid", m.JID, "occupantid", m.OccupantID, "uri", m.URI, "mentions", channel)
		if m.Active {
			x.empty("active")
		}
		if m.NoPing {
			x.empty("noping")
		}
		x.close("mention")
	}
}

// xmlWriter writes elements. Attributes come as names and values; those that are empty are left out.
type xmlWriter struct{ b strings.Builder }

func (x *xmlWriter) open(name string, attrs ...string) {
	x.start(name, attrs)
	x.b.WriteByte('>')
}

func (x *xmlWriter) empty(name string, attrs ...string) {
	x.start(name, attrs)
	x.b.WriteString("/>")
}

func (x *xmlWriter) start(name string, attrs []string) {
	x.b.WriteByte('<')
	x.b.WriteString(name)
	for i := 0; i < len(attrs); i += 2 {
		if attrs[i+1] == "" {
			continue
		}
		x.b.WriteString(" " + attrs[i] + `="`)
		_ = xml.EscapeText(&x.b, []byte(attrs[i+1]))
		x.b.WriteByte('"')
	}
}

func (x *xmlWriter) close(names ...string) {
	for _, name := range names {
		x.b.WriteString("</" + name + ">")
	}
}
