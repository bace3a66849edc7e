package push_test

import (
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/mellium"
)

// notice is a message of the push service with the given payload.
func notice(payload string) string {
	return `<message from='push.example.net' to='juliet@example.com'>` + payload + `</message>`
}

const (
	pubsubNS = `<pubsub xmlns='http://jabber.org/protocol/pubsub'`
	none     = `<affiliation jid='juliet@example.com' affiliation='none'/>`
)

func revoked(service, node string) push.AffiliationNone {
	return push.AffiliationNone{Account: "juliet@example.com", Key: push.Key{Service: service, Node: node}}
}

var notices = []struct {
	name, message string
	event         push.AffiliationNone
}{
	{"as XEP-0357 has it", notice(pubsubNS + ` node='n1'>` + none + `</pubsub>`), revoked("push.example.net", "n1")},
	{"as XEP-0060 has it", notice(pubsubNS + `><affiliations node='n1'>` + none + `</affiliations></pubsub>`), revoked("push.example.net", "n1")},
	{"a registration without node", notice(pubsubNS + `>` + none + `</pubsub>`), revoked("push.example.net", "")},
	{"among others", notice(`<body>x</body>` + pubsubNS + ` node='n1'><affiliation jid='romeo@example.com' affiliation='none'/>` + none + `</pubsub><x/>`), revoked("push.example.net", "n1")},
	{"a headline", `<message type='headline' from='push.example.net' to='juliet@example.com'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`, revoked("push.example.net", "n1")},
	{"a service is who it says, resource and all", `<message from='Push.example.net/1' to='Juliet@example.com'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`, revoked("push.example.net/1", "n1")},
	{"as many children as may be", notice(strings.Repeat(`<x/>`, 15) + pubsubNS + ` node='n1'>` + none + `</pubsub>`), revoked("push.example.net", "n1")},
	{"the longest node", notice(pubsubNS + ` node='` + strings.Repeat("n", 1024) + `'>` + none + `</pubsub>`), revoked("push.example.net", strings.Repeat("n", 1024))},
	{name: "another affiliation", message: notice(pubsubNS + ` node='n1'><affiliation jid='juliet@example.com' affiliation='publish-only'/></pubsub>`)},
	{name: "another account's", message: notice(pubsubNS + ` node='n1'><affiliation jid='romeo@example.com' affiliation='none'/></pubsub>`)},
	{name: "a jid that is none", message: notice(pubsubNS + ` node='n1'><affiliation jid='@' affiliation='none'/></pubsub>`)},
	{name: "no affiliation", message: notice(pubsubNS + ` node='n1'/>`)},
	{name: "no pubsub", message: notice(`<body>hi</body>`)},
	{name: "another namespace", message: notice(`<pubsub xmlns='http://jabber.org/protocol/pubsub#event' node='n1'>` + none + `</pubsub>`)},
	{name: "too deep", message: notice(`<forwarded>` + pubsubNS + ` node='n1'>` + none + `</pubsub></forwarded>`)},
	{name: "several pubsubs", message: notice(pubsubNS + ` node='n1'>` + none + `</pubsub>` + pubsubNS + ` node='n2'>` + none + `</pubsub>`)},
	{name: "many children after it", message: notice(pubsubNS + ` node='n1'>` + none + `</pubsub>` + strings.Repeat(`<x/>`, 20))},
	{name: "nobody's affiliation, to nobody", message: `<message from='push.example.net'>` + pubsubNS + ` node='n1'><affiliation affiliation='none'/></pubsub></message>`},
	{name: "a resource's affiliation", message: `<message from='push.example.net' to='juliet@example.com/x'>` + pubsubNS + ` node='n1'><affiliation jid='juliet@example.com/x' affiliation='none'/></pubsub></message>`},
	{name: "another element", message: notice(pubsubNS + ` node='n1'><subscription jid='juliet@example.com' affiliation='none'/></pubsub>`)},
	{name: "from what is no JID", message: `<message from='@' to='juliet@example.com'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`},
	{name: "to what is no JID", message: `<message from='push.example.net' to='@'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`},
	{name: "many children", message: notice(strings.Repeat(`<x/>`, 20) + pubsubNS + ` node='n1'>` + none + `</pubsub>`)},
	{name: "a long node", message: notice(pubsubNS + ` node='` + strings.Repeat("n", 1025) + `'>` + none + `</pubsub>`)},
	{name: "an error", message: `<message type='error' from='push.example.net' to='juliet@example.com'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`},
	{name: "without from", message: `<message to='juliet@example.com'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`},
	{name: "without to", message: `<message from='push.example.net'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`},
	{name: "to a resource", message: `<message from='push.example.net' to='juliet@example.com/balcony'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`},
	{name: "from the account itself", message: `<message from='juliet@example.com/x' to='juliet@example.com'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></message>`},
	{name: "an iq", message: `<iq from='push.example.net' to='juliet@example.com'>` + pubsubNS + ` node='n1'>` + none + `</pubsub></iq>`},
}

func TestAffiliation(t *testing.T) {
	for _, tt := range notices {
		t.Run(tt.name, func(t *testing.T) {
			ev, err := push.ParseAffiliation([]byte(tt.message))
			again, err2 := push.ReadAffiliation(xml.NewDecoder(strings.NewReader(tt.message)))
			assert.Equal(t, ev, again)
			assert.Equal(t, err, err2)
			assert.Equal(t, tt.event, ev)
			if tt.event == (push.AffiliationNone{}) {
				assert.ErrorIs(t, err, push.ErrNotPush)
			} else {
				assert.NoError(t, err)
			}
		})
	}
	for _, message := range []string{"", "<message", notice("<a>"), notice("&#xDBFF;"), notice(strings.Repeat("x", 9000))} {
		_, err := push.ParseAffiliation([]byte(message))
		assert.ErrorIs(t, err, push.ErrStanza, "%.80s", message)
	}
}

// TestAffiliationOverMellium sends the notices over a stream between servers. What is no notice does not end it.
func TestAffiliationOverMellium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &recorder{}
		m := mux.New(stanza.NSServer, mellium.HandleAffiliations(mellium.AffiliationHandler{
			Engine:  h,
			Account: func(a string) bool { return a == "juliet@example.com" },
		}))
		near, _ := serverPair(t, "push.example.net", "example.com", m)
		for _, tt := range notices {
			if strings.HasPrefix(tt.message, "<iq") || tt.name == "without from" || strings.HasSuffix(tt.name, "no JID") { // mellium adds one, or ends the stream
				continue
			}
			require.NoError(t, near.Send(t.Context(), xml.NewDecoder(strings.NewReader(tt.message))), tt.name)
			synctest.Wait()
			if tt.event == (push.AffiliationNone{}) {
				assert.Empty(t, h.taken(), tt.name)
			} else {
				assert.Equal(t, []push.Event{tt.event}, h.taken(), tt.name)
			}
		}
		h.err = errors.New("store failed")
		require.NoError(t, near.Send(t.Context(), xml.NewDecoder(strings.NewReader(notices[0].message))))
		synctest.Wait()
		h.err = nil
		require.NoError(t, near.Send(t.Context(), xml.NewDecoder(strings.NewReader(
			`<message from='push.example.net' to='nobody@example.com'>`+pubsubNS+` node='n1'><affiliation jid='nobody@example.com' affiliation='none'/></pubsub></message>`))))
		synctest.Wait()
		assert.Empty(t, h.taken(), "not an account of ours")
		require.NoError(t, near.Send(t.Context(), xml.NewDecoder(strings.NewReader(notices[0].message))))
		synctest.Wait()
		assert.Len(t, h.taken(), 1, "the stream still works")
	})
}

func FuzzParseAffiliation(f *testing.F) {
	for _, tt := range notices {
		f.Add([]byte(tt.message))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		ev, err := push.ParseAffiliation(message)
		if err != nil {
			require.True(t, errors.Is(err, push.ErrStanza) || errors.Is(err, push.ErrNotPush), err)
			require.Zero(t, ev)
			return
		}
		require.NotEmpty(t, ev.Account)
		require.NotEmpty(t, ev.Service)
		require.NotContains(t, ev.Account, "/")
	})
}
