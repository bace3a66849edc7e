package jackal

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackal-xmpp/stravaganza"
	streamqueue "github.com/ortuman/jackal/pkg/module/xep0198/queue"
	"github.com/xmpp-push/push"
	"mellium.im/xmpp/jid"
)

// maxBody is how much of a message's text is kept.
const maxBody = 2048

// toStanza makes a Stanza of one of jackal's elements, without going through text. A stanza of an account's archive has its ID from there:
// jackal puts it into each message before that is routed. Others have the ID that is given.
func toStanza(account, id string, e stravaganza.Element) push.Stanza {
	n := root(e)
	f := features(n)
	m := n
	if inner, carbon := forwarded(n); inner != nil {
		f = features(inner)
		f.Carbon = carbon
		if from, to := n.attr("from"), n.attr("to"); from == "" || to == "" || bare(from) == bare(to) {
			m = inner
		} // else a stranger made it up, and it shows who sent it
	}
	st := push.Stanza{
		ID:    id,
		From:  prepared(m.attr("from")),
		To:    prepared(m.attr("to")),
		Class: push.Classify(f),
		Kind:  kind(n),
	}
	if st.Kind == push.KindMessage {
		st.Body = body(m)
		if by := stanzaID(m, account); by != "" {
			st.ID = by
		}
	}
	return st
}

func bare(jid string) string {
	b, _, _ := strings.Cut(jid, "/")
	return b
}

// stanza makes a Stanza of one in the session's queue. What has no ID from the archive is named by its number there.
func (s *session) stanza(e streamqueue.Element) push.Stanza {
	return toStanza(s.id.Account, s.id.ID+"#"+strconv.FormatUint(uint64(e.H), 10), e.Stanza)
}

// stanzaID returns the ID that the account's archive has given (XEP-0359). The first counts: more are added when jackal makes carbons, by
// what may be another server's word.
func stanzaID(m *node, account string) string {
	for c := range m.children() {
		if c.is("urn:xmpp:sid:0", "stanza-id") && c.attr("by") == account {
			return c.attr("id")
		}
	}
	return ""
}

func kind(n *node) push.Kind {
	switch n.name.Space {
	case "", "jabber:client", "jabber:server", "jabber:component:accept":
		switch n.name.Local {
		case "message":
			return push.KindMessage
		case "presence":
			return push.KindPresence
		case "iq":
			return push.KindIQ
		}
	}
	return push.KindNonza
}

// features is what a stanza's class depends on.
func features(m *node) push.Features {
	f := push.Features{Kind: kind(m), Type: m.attr("type")}
	if f.Kind != push.KindMessage {
		return f
	}
	for c := range m.children() {
		switch {
		case c.is(m.name.Space, "body"):
			f.Body = f.Body || c.GetText() != ""
		case c.is(m.name.Space, "subject"):
			f.Subject = true
		case c.is("urn:xmpp:jingle-message:0", "propose"):
			f.Propose = true
		case c.is("jabber:x:encrypted", "x"), c.is("urn:xmpp:openpgp:0", "openpgp"):
			f.Encrypted = true
		case isOMEMO(c):
			payload := hasLocal(c, "payload")
			f.Encrypted = f.Encrypted || payload
			f.KeyTransport = f.KeyTransport || !payload
		}
	}
	return f
}

func isOMEMO(c *node) bool {
	switch c.name.Space {
	case "eu.siacs.conversations.axolotl", "urn:xmpp:omemo:0", "urn:xmpp:omemo:1", "urn:xmpp:omemo:2":
		return c.name.Local == "encrypted"
	}
	return false
}

func hasLocal(n *node, local string) bool {
	for c := range n.children() {
		if c.name.Local == local {
			return true
		}
	}
	return false
}

// forwarded returns the message inside a carbon copy (XEP-0280), or nil.
func forwarded(m *node) (*node, push.Carbon) {
	if kind(m) != push.KindMessage {
		return nil, push.CarbonNone
	}
	for c := range m.children() {
		carbon := push.CarbonReceived
		switch {
		case c.is("urn:xmpp:carbons:2", "received"):
		case c.is("urn:xmpp:carbons:2", "sent"):
			carbon = push.CarbonSent
		default:
			continue
		}
		for f := range c.children() {
			if !f.is("urn:xmpp:forward:0", "forwarded") {
				continue
			}
			for inner := range f.children() {
				if inner.name.Space != "" && kind(inner) == push.KindMessage {
					return inner, carbon
				}
			}
		}
	}
	return nil, push.CarbonNone
}

// body returns the text of a message's first body that has any.
func body(m *node) string {
	for c := range m.children() {
		if !c.is(m.name.Space, "body") || c.GetText() == "" {
			continue
		}
		text := c.GetText()
		if len(text) > maxBody {
			end := maxBody
			for end > 0 && !utf8.RuneStart(text[end]) {
				end--
			}
			text = text[:end]
		}
		return text
	}
	return ""
}

// prepared returns a JID in prepared form, or nothing for what is not a JID.
func prepared(s string) string {
	if s == "" {
		return ""
	}
	j, err := jid.Parse(s)
	if err != nil {
		return ""
	}
	return j.String()
}
