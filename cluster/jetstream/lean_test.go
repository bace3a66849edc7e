package jetstream

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

func bare(p *push.Policy) *lane {
	return &lane{n: &Node{policy: p}, local: partition.NewLocal()}
}

// TestLean has every event that carries stanzas, and looks for their text in what goes into the log.
func TestLean(t *testing.T) {
	const text = "parting is such sweet sorrow"
	st := push.Stanza{ID: "m1", From: "romeo@example.net", Body: text, XML: "<message><body>" + text + "</body></message>", Class: push.ClassImportant}
	session := push.SessionID{Account: "juliet@example.com", ID: "s1"}
	for _, ev := range []push.Event{
		push.ArchiveAdded{Account: session.Account, Stanza: st}, push.Offline{Account: session.Account, Stanza: st}, push.Groupchat{Account: session.Account, Stanza: st},
		push.StanzaQueued{Session: session, Stanza: st}, push.AckDelayed{Session: session, Stanzas: []push.Stanza{st}},
		push.HibernationStart{Session: session, Stanzas: []push.Stanza{st}},
	} {
		before := fmt.Sprintf("%+v", ev)
		assert.NotContains(t, fmt.Sprintf("%+v", bare(new(push.Policy)).lean(ev)), text, ev.Name())
		assert.Equal(t, before, fmt.Sprintf("%+v", ev), "what the host has is not changed")
		all := fmt.Sprintf("%+v", bare(&push.Policy{IncludeBody: true}).lean(ev))
		assert.Equal(t, 2, strings.Count(all, text), ev.Name())
	}
}
