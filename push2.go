package push

import (
	"cmp"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push/internal/sce"
	"github.com/xmpp-push/push/internal/stanzaxml"
	"github.com/xmpp-push/push/internal/webpush"
	"github.com/xmpp-push/push/wishes"
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

// maxServiceBytes is more than the longest JID (RFC 7622 §3.1).
const maxServiceBytes = 3072

// readPush2 reads the children of an <enable/>.
func (p *payload) readPush2(e *stanzaxml.Element) error {
	p.wishes.Push2 = new(wishes.Push2)
	client, matches := false, 0
	text := func(name string, limit int) (string, error) {
		s, err := e.Text(limit, func() { p.bad(name + " has elements in it") })
		s = strings.TrimSpace(s)
		if len(s) > limit {
			p.large("%s is longer than %d bytes", name, limit)
		} else if stanzaxml.CheckText(s) != nil {
			p.bad(name + " is not text")
		}
		return s, err
	}
	err := e.Children(func(child xml.StartElement) (err error) {
		if child.Name.Space != NSPush2 {
			return nil
		}
		switch child.Name.Local {
		case "service":
			if p.service != "" {
				p.bad("there is more than one service")
			}
			p.service, err = text("service", maxServiceBytes)
		case "client":
			if client {
				p.bad("there is more than one client")
			}
			var s string
			s, err = text("client", wishes.MaxClientBytes)
			client, p.wishes.Push2.Client = s != "", wishes.NewSecret(s)
		case "match":
			matches++
			if len(p.wishes.Push2.Matches) == wishes.MaxMatches {
				p.large("more than %d matches", wishes.MaxMatches)
				return nil
			}
			err = p.match(e, child)
		}
		return err
	}, nil)
	switch {
	case err != nil:
	case !client:
		p.bad("client is missing")
	case matches == 0:
		p.bad("match is missing")
	case len(p.wishes.Push2.Matches) == 0:
		p.refuse(stanza.FeatureNotImplemented, "none of the matches is known")
	}
	p.finish()
	return err
}

// match reads a <match/>. One of a profile that is not known is left out, and so is one that is to be sent in a way that is not known. If nothing
// is said of how to send it (an older draft had that elsewhere), a notification without content does no harm.
func (p *payload) match(e *stanzaxml.Element, start xml.StartElement) error {
	var m wishes.Match
	profile, ok := strings.CutPrefix(stanzaxml.Attribute(start, "profile"), NSMatch)
	known := ok && m.Profile.UnmarshalText([]byte(profile)) == nil
	sends, knownSend := false, false
	err := e.Children(func(child xml.StartElement) error {
		switch {
		case !known:
		case child.Name == xml.Name{Space: NSPush2, Local: "grace"}:
			s, err := e.Text(32, func() {})
			seconds, bad := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
			if bad != nil {
				p.bad("grace is not a number of seconds")
			}
			m.Grace = min(time.Duration(seconds)*time.Second, wishes.MaxGrace)
			return err
		case child.Name == xml.Name{Space: NSPush2, Local: "filter"}:
			return p.filter(e, child, &m)
		case child.Name.Local == "send":
			sends = true
			switch {
			case knownSend: // the first that is known
			case child.Name.Space == NSNotifyOnly:
				knownSend = true
			case child.Name.Space == NSEncrypted:
				knownSend = true
				return p.webPush(e, &m)
			}
		}
		return nil
	}, nil)
	if known && (knownSend || !sends) {
		p.wishes.Push2.Matches = append(p.wishes.Push2.Matches, m)
	}
	return err
}

func (p *payload) filter(e *stanzaxml.Element, start xml.StartElement, m *wishes.Match) error {
	f := wishes.ChatFilter{JID: p.chat(start, len(m.Filters))}
	err := e.Children(func(child xml.StartElement) error {
		switch child.Name {
		case xml.Name{Space: NSPush2, Local: "mention"}:
			f.Mention = true
		case xml.Name{Space: NSPush2, Local: "reply"}:
			f.Reply = true
		}
		return nil
	}, nil)
	if f.JID != "" {
		m.Filters = append(m.Filters, f)
	}
	return err
}

// webPush reads how a message is to be encrypted.
func (p *payload) webPush(e *stanzaxml.Element, m *wishes.Match) error {
	var alg, key string
	w := &wishes.WebPush{}
	err := e.Children(func(child xml.StartElement) error {
		if child.Name.Space != NSEncrypted && child.Name.Space != NSPush2 {
			return nil
		}
		s, err := e.Text(wishes.MaxClientBytes, func() { p.bad(child.Name.Local + " has elements in it") })
		if len(s) > wishes.MaxClientBytes {
			p.large("%s is longer than %d bytes", child.Name.Local, wishes.MaxClientBytes)
			return err
		}
		var bad error
		var b []byte
		switch child.Name.Local {
		case "ua-public":
			w.Public, bad = decodeBase64(s)
		case "auth-secret":
			b, bad = decodeBase64(s)
			w.Auth = wishes.NewSecret(string(b))
		case "jwt-alg":
			alg = strings.TrimSpace(s)
		case "jwt-key":
			key = s
		case "jwt-claim":
			c := wishes.Claim{Name: stanzaxml.Attribute(child, "name"), Value: s}
			switch {
			case c.Name == "" || stanzaxml.CheckText(c.Name) != nil || stanzaxml.CheckText(c.Value) != nil:
				p.bad("a claim has no name, or is not text")
			case len(w.Claims) == wishes.MaxClaims || len(c.Name)+len(c.Value) > wishes.MaxClientBytes:
				p.large("more than %d claims, or one of more than %d bytes", wishes.MaxClaims, wishes.MaxClientBytes)
			default:
				w.Claims = append(w.Claims, c)
			}
		}
		if bad != nil {
			p.bad(child.Name.Local + " is not base64")
		}
		return err
	}, nil)
	switch webpush.Check(w.Public, []byte(w.Auth.Reveal())) {
	case webpush.ErrPublic:
		p.bad("ua-public is not a raw uncompressed P-256 point")
	case webpush.ErrAuth:
		p.bad("auth-secret has not 16 bytes")
	}
	if alg == "" {
		w.Claims = nil // there is no token
	} else {
		p.token(w, alg, key)
	}
	m.Send = w
	return err
}

// token reads the key of the token. RFC 8292 §2 has no other algorithm than ES256, and a push service that follows it would refuse others.
func (p *payload) token(w *wishes.WebPush, alg, key string) {
	if alg != "ES256" {
		p.refuse(stanza.FeatureNotImplemented, "the token's algorithm is not ES256")
		return
	}
	der, err := decodeBase64(key)
	if err == nil {
		_, err = webpush.ParseKey(der)
	}
	if err != nil {
		p.bad("jwt-key is not a P-256 private key in PKCS#8")
		return
	}
	w.TokenKey = wishes.NewSecret(string(der))
}

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
	return st.Class == ClassImportant && st.Content != ContentSubscription || st.Content == ContentCorrection
}

// anyMatch returns the number of a match by which to send what every match lets through.
func anyMatch(w *wishes.Wishes) int {
	if w == nil || w.Push2 == nil {
		return 0
	}
	i := slices.IndexFunc(w.Push2.Matches, func(m wishes.Match) bool { return m.Send != nil })
	return max(i, 0) + 1
}

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
	var err error
	if st.XML != "" {
		s, err = sce.Parse([]byte(st.XML))
	}
	if s == nil || err != nil {
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
