package jackal

import (
	"strconv"
	"strings"

	"github.com/jackal-xmpp/stravaganza"
	streamqueue "github.com/ortuman/jackal/pkg/module/xep0198/queue"
	"github.com/xmpp-push/push"
)

// toStanza makes a Stanza of one of jackal's elements, without going through text. A stanza of an account's archive has its ID from there:
// jackal puts it into each message before that is routed. Others have the ID that is given.
func toStanza(account, id string, e stravaganza.Element) push.Stanza {
	st, err := push.ReadStanza(id, newTokens(e))
	if err != nil {
		// No rule can judge it, but it may have to be fetched.
		return push.Stanza{ID: id, Class: push.ClassPlain}
	}
	if st.Kind == push.KindMessage {
		m := root(e)
		if inner := copied(m); inner != nil {
			m = inner
		}
		if by := stanzaID(m, account); by != "" {
			st.ID = by
		}
	}
	return st
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

// copied returns the message inside a carbon copy (XEP-0280) that the account's own server made, or nil.
func copied(m *node) *node {
	if from, to := m.attr("from"), m.attr("to"); from != "" && to != "" && bare(from) != bare(to) {
		return nil // a stranger made it up
	}
	for _, direction := range []string{"received", "sent"} {
		if c := m.child("urn:xmpp:carbons:2", direction); c != nil {
			if f := c.child("urn:xmpp:forward:0", "forwarded"); f != nil {
				return f.child("jabber:client", "message")
			}
		}
	}
	return nil
}

func bare(jid string) string {
	b, _, _ := strings.Cut(jid, "/")
	return b
}
