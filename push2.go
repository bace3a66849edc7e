package push

import (
	"cmp"
	"encoding/base64"
	"errors"
	"time"

	"github.com/xmpp-push/push/internal/sce"
	"github.com/xmpp-push/push/internal/webpush"
)

// Push 2.0 (urn:xmpp:push2:0) is a draft: a client says which stanzas notify it, and how much of them a notification carries. What
// it asks for is in Push2, beside what others ask for; this file has what the wire needs.

const (
	// NSMatch begins the names of match profiles.
	NSMatch = "urn:xmpp:push2:match:"
	// NSNotifyOnly and NSEncrypted are the send profiles: without content, and with the message encrypted for the client.
	NSNotifyOnly = "urn:xmpp:push2:send:notify-only:0"
	NSEncrypted  = "urn:xmpp:push2:send:sce+rfc8291+rfc8292:0"

	nsEncryptedPayload = "urn:xmpp:sce:rfc8291:0"
)

// addressed returns an event with the key of the registration that a request of Push 2.0 is about: that of the session's device. A session that is
// not known is taken for a device of its own.
func (a *Account) addressed(ev Event) Event {
	switch e := ev.(type) {
	case PushEnable:
		if e.Node == Push2Node {
			e.Node += a.device(e.Session.ID)
			return e
		}
	case PushDisable:
		if e.Node == Push2Node {
			e.Node += a.device(e.Session.ID)
			for _, r := range a.regs {
				if r.Node == e.Node {
					e.Service = r.Service
				}
			}
			return e
		}
	default:
	}
	return ev
}

// device names the device of a session: its client ID, else its resource.
func (a *Account) device(session string) string {
	if s := a.session(session); s != nil {
		return cmp.Or(s.device, s.id)
	}
	return session
}

// classifyPush2 is the table of outcomes of Push 2.0, whose draft goes by the error's type alone: what is of type wait is tried again, other errors
// are not, whatever they say, and they disable a registration only when that has gone on for long. A publish that could not be sent says nothing
// about it.
func (a *Account) classifyPush2(r *registration, reply Reply, now time.Time) Outcome {
	switch {
	case reply.Vetoed != "":
		return OutcomeDropped
	case reply.OK():
		return OutcomeAccepted
	case reply.Missing, reply.Type == "wait" && !a.failedForLong(r, now):
		return OutcomeTransient
	}
	return OutcomeFailed
}

// failedForLong tells whether a registration of Push 2.0 has failed so long that an error disables it.
func (a *Account) failedForLong(r *registration, now time.Time) bool {
	return !r.Health.Failing.IsZero() && now.Sub(r.Health.Failing) >= a.policy.DisableAfter
}

// Split returns n as the notifications that each go as a stanza of their own: one for each stanza that it carries with Push 2.0, else n. All of them
// are sent, each with an ID of its own; the first error among their replies is the reply.
func (n *Notification) Split() []Notification {
	if !n.IsPush2() || len(n.Carried) < 2 {
		return []Notification{*n}
	}
	parts := make([]Notification, len(n.Carried))
	for i := range parts {
		parts[i] = *n
		parts[i].Carried = n.Carried[i : i+1]
		parts[i].Class = n.Carried[i].Stanza.Class
	}
	return parts
}

// push2Priority is how urgent the notification is, and whether it is an incoming call.
func (n *Notification) push2Priority() (priority string, voip bool) {
	switch n.Class {
	case ClassUrgent:
		return "high", true
	case ClassImportant:
		return "normal", false
	}
	return "low", false
}

func (n *Notification) push2Client() string {
	if n.Wishes == nil || n.Wishes.Push2 == nil {
		return ""
	}
	return n.Wishes.Push2.Client.Reveal()
}

func (n *Notification) appendMessage(dst []byte, from, id string) []byte {
	dst = append(dst, `<message from="`...)
	dst = appendEscaped(dst, from)
	dst = append(dst, `" to="`...)
	dst = appendEscaped(dst, n.Service)
	dst = append(dst, `" id="`...)
	dst = appendEscaped(dst, id)
	dst = append(dst, `"><notification xmlns="`+NSPush2+`"><client>`...)
	dst = appendEscaped(dst, n.push2Client())
	priority, voip := n.push2Priority()
	dst = append(append(append(dst, `</client><priority>`...), priority...), `</priority>`...)
	if voip {
		dst = append(dst, `<voip/>`...)
	}
	if text, token, key := n.content(from); text != "" {
		dst = append(dst, `<encrypted xmlns="`+nsEncryptedPayload+`"><payload>`...)
		dst = append(append(dst, text...), `</payload></encrypted>`...)
		if token != "" {
			dst = append(append(append(dst, `<jwt key="`...), key...), `">`...)
			dst = append(append(dst, token...), `</jwt>`...)
		}
	}
	return append(dst, `</notification></message>`...)
}

func (n *Notification) writeMessage(w *tokenList) {
	w.open(NSPush2, "notification")
	w.element(NSPush2, "client", n.push2Client())
	priority, voip := n.push2Priority()
	w.element(NSPush2, "priority", priority)
	if voip {
		w.element(NSPush2, "voip", "")
	}
	if text, token, key := n.content(""); text != "" {
		w.open(nsEncryptedPayload, "encrypted")
		w.element(nsEncryptedPayload, "payload", text)
		w.close(1)
		if token != "" {
			w.element(NSPush2, "jwt", token, "key", key)
		}
	}
	w.close(1)
}

// maxEnvelope is how large the encrypted message may be: phones' vendors take notifications of 4096 bytes, in which it is base64 beside
// other things.
const maxEnvelope = 2847

// content returns the newest stanza that is carried, encrypted, in base64, and the token and the key to check it with. If it cannot be carried,
// the notification goes without: it still wakes the client. from is the server's domain.
func (n *Notification) content(from string) (text, token, key string) {
	if len(n.Carried) == 0 || n.Carried[len(n.Carried)-1].Send == nil {
		return "", "", ""
	}
	c := &n.Carried[len(n.Carried)-1]
	plain, err := c.envelope(n.Account)
	if err != nil {
		return "", "", ""
	}
	secret, err := webpush.Encrypt(nil, c.Send.Public, []byte(c.Send.Auth.Reveal()), plain)
	if err != nil {
		return "", "", ""
	}
	text = base64.StdEncoding.EncodeToString(secret)
	if c.Send.TokenKey.IsZero() {
		return text, "", ""
	}
	claims := make([]webpush.Claim, len(c.Send.Claims))
	for i, claim := range c.Send.Claims {
		claims[i] = webpush.Claim(claim)
	}
	contact := n.Contact
	if contact == "" && from != "" {
		contact = "xmpp:" + from
	}
	token, public, err := webpush.Token([]byte(c.Send.TokenKey.Reveal()), claims, contact, time.Now())
	if err != nil {
		return text, "", ""
	}
	return text, token, base64.StdEncoding.EncodeToString(public)
}

// envelope returns the stanza as the client is to read it.
func (c *Carried) envelope(account string) ([]byte, error) {
	st := &c.Stanza
	var s *sce.Stanza
	if st.XML != "" {
		s, _ = sce.Parse([]byte(st.XML)) // nil if it cannot be read
	}
	if s == nil {
		if s = st.message(); s == nil {
			return nil, errNoContent
		}
	}
	if c.Archive != "" {
		s.Identify(account, c.Archive)
	}
	return s.Envelope(maxEnvelope)
}

var errNoContent = errors.New("push: nothing is known of the stanza's content")

// message makes a message of what is known of a stanza whose XML is not. Without what is in it a call, an encrypted message or a request would
// be a riddle; that a message is there, and what the archive calls it, is something.
func (st *Stanza) message() *sce.Stanza {
	if st.Kind != KindMessage {
		return nil
	}
	body := ""
	switch st.Content {
	case ContentCall, ContentCallEnd:
		return nil
	case ContentText:
		body = st.Body
	}
	return sce.Message(st.From, st.To, st.Type.String(), st.MessageID, body)
}
