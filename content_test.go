package push_test

import (
	"encoding"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
)

// meanings are what is inside of a message (type and children), and what both readers have to make of it.
var meanings = []struct {
	name, typ, inside string
	content           Content
	class             Class
	details           *Details
}{
	{"text", "chat", `<body>hi</body>`, ContentText, ClassImportant, nil},
	{"error with a body", "error", `<body>hi</body><error type="cancel"/>`, ContentError, ClassPlain, nil},
	{"error of a call", "error", `<propose xmlns="urn:xmpp:jingle-message:0" id="c1"/><error type="cancel"/>`, ContentError, ClassPlain, nil},
	{"correction", "chat", `<body>hi</body><replace xmlns="urn:xmpp:message-correct:0" id="m0"/>`, ContentCorrection, ClassPlain, &Details{Target: "m0"}},
	{"encrypted correction", "chat", `<encrypted xmlns="urn:xmpp:omemo:2"><payload/></encrypted><replace xmlns="urn:xmpp:message-correct:0" id="m0"/>`, ContentCorrection, ClassPlain, &Details{Target: "m0"}},
	{"correction of another namespace", "chat", `<body>hi</body><replace xmlns="urn:xmpp:message-correct:1" id="m0"/>`, ContentText, ClassImportant, nil},
	{"retraction", "chat", `<retract xmlns="urn:xmpp:message-retract:1" id="m0"/><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:message-retract:1"/><body>/me retracted</body>`, ContentRetraction, ClassPlain, &Details{Target: "m0"}},
	{"retraction of before", "chat", `<apply-to xmlns="urn:xmpp:fasten:0" id="m0"><retract xmlns="urn:xmpp:message-retract:0"/></apply-to><body>/me retracted</body>`, ContentRetraction, ClassPlain, &Details{Target: "m0"}},
	{"something else fastened", "chat", `<apply-to xmlns="urn:xmpp:fasten:0" id="m0"><external name="body"/></apply-to><body>hi</body>`, ContentText, ClassImportant, nil},
	{"moderation", "groupchat", `<retract xmlns="urn:xmpp:message-retract:1" id="r0"><moderated xmlns="urn:xmpp:message-moderate:1" by="a@b/c"/></retract>`, ContentModeration, ClassPlain, &Details{Target: "r0"}},
	{"moderation of before", "groupchat", `<apply-to xmlns="urn:xmpp:fasten:0" id="r0"><moderated xmlns="urn:xmpp:message-moderate:0"><retract xmlns="urn:xmpp:message-retract:0"/></moderated></apply-to>`, ContentModeration, ClassPlain, &Details{Target: "r0"}},
	{"moderated by nobody", "groupchat", `<moderated xmlns="urn:xmpp:message-moderate:1"/><body>hi</body>`, ContentText, ClassImportant, nil},
	{"reaction", "chat", `<reactions xmlns="urn:xmpp:reactions:0" id="m0"><reaction>👋</reaction></reactions>`, ContentReaction, ClassPlain, &Details{Target: "m0"}},
	{"reaction with fallback", "chat", `<body>👋</body><reactions xmlns="urn:xmpp:reactions:0" id="m0"><reaction>👋</reaction></reactions><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reactions:0"><body/></fallback>`, ContentReaction, ClassPlain, &Details{Target: "m0"}},
	{"body that is fallback, but for nothing", "chat", `<body>👋</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reactions:0"/>`, ContentNone, ClassPlain, nil},
	{"fallback of a part", "chat", `<body>https://a hi</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:sfs:0"><body start="0" end="9"/></fallback>`, ContentText, ClassImportant, nil},
	{"fallback for something that is not known", "chat", `<body>hi</body><fallback xmlns="urn:xmpp:fallback:0" for="some:thing"/>`, ContentText, ClassImportant, nil},
	{"fallback for nobody knows what", "chat", `<body>hi</body><fallback xmlns="urn:xmpp:fallback:0"/>`, ContentText, ClassImportant, nil},
	{"fallback of a marker", "chat", `<body>seen</body><displayed xmlns="urn:xmpp:chat-markers:0" id="m0"/><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:chat-markers:0"/>`, ContentDisplayed, ClassPlain, &Details{Target: "m0"}},
	{"direct invitation", "", `<x xmlns="jabber:x:conference" jid="Verona@Rooms.example.net"/>`, ContentInvitation, ClassImportant, &Details{Room: "verona@rooms.example.net"}},
	{"direct invitation with a body", "chat", `<x xmlns="jabber:x:conference" jid="verona@rooms.example.net"/><body>come</body>`, ContentInvitation, ClassImportant, &Details{Room: "verona@rooms.example.net"}},
	{"invitation to nowhere", "chat", `<x xmlns="jabber:x:conference"/>`, ContentNone, ClassPlain, nil},
	{"invitation to what is no room", "chat", `<x xmlns="jabber:x:conference" jid="@"/>`, ContentInvitation, ClassImportant, nil},
	{"mediated invitation", "", `<x xmlns="http://jabber.org/protocol/muc#user"><invite from="a@b"/></x>`, ContentInvitation, ClassImportant, &Details{Inviter: "a@b"}},
	{"mediated invitation by nobody knows whom", "", `<x xmlns="http://jabber.org/protocol/muc#user"><invite/></x>`, ContentInvitation, ClassImportant, nil},
	{"private message in a room", "chat", `<body>hi</body><x xmlns="http://jabber.org/protocol/muc#user"/>`, ContentText, ClassImportant, &Details{Private: true}},
	{"message to a room by an old client", "groupchat", `<body>hi</body><x xmlns="http://jabber.org/protocol/muc#user"/>`, ContentText, ClassImportant, nil},
	{"declined invitation", "", `<x xmlns="http://jabber.org/protocol/muc#user"><decline from="a@b"/></x>`, ContentNone, ClassPlain, nil},
	{"room's status", "groupchat", `<x xmlns="http://jabber.org/protocol/muc#user"><status code="104"/></x>`, ContentNone, ClassPlain, nil},
	{"file", "chat", `<file-sharing xmlns="urn:xmpp:sfs:0"/>`, ContentFile, ClassImportant, nil},
	{"file with a fallback body", "chat", `<file-sharing xmlns="urn:xmpp:sfs:0"/><body>https://a</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:sfs:0"/>`, ContentFile, ClassImportant, nil},
	{"link", "chat", `<x xmlns="jabber:x:oob"><url>https://a</url></x>`, ContentFile, ClassImportant, nil},
	{"link that is none", "chat", `<x xmlns="jabber:x:oob"><desc>a</desc><url xmlns="some:thing">https://a</url></x>`, ContentNone, ClassPlain, nil},
	{"link with a text", "chat", `<body>https://a</body><x xmlns="jabber:x:oob"><url>https://a</url></x>`, ContentText, ClassImportant, nil},
	{"link with a fallback body", "chat", `<body>https://a</body><x xmlns="jabber:x:oob"><url>https://a</url></x><fallback xmlns="urn:xmpp:fallback:0" for="jabber:x:oob"><body/></fallback>`, ContentFile, ClassImportant, nil},
	{"media", "chat", `<reference xmlns="urn:xmpp:reference:0" type="data"><media-sharing xmlns="urn:xmpp:sims:1"/></reference>`, ContentFile, ClassImportant, nil},
	{"reference to data without media", "chat", `<reference xmlns="urn:xmpp:reference:0" type="data" uri="https://a"/>`, ContentNone, ClassPlain, nil},
	{"call", "", `<propose xmlns="urn:xmpp:jingle-message:0" id="c1"><description xmlns="urn:xmpp:jingle:apps:rtp:1" media="audio"/><description xmlns="urn:xmpp:jingle:apps:rtp:1" media="video"/></propose>`,
		ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c1", Media: []string{"audio", "video"}}}},
	{"call retracted", "", `<retract xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, ContentCallEnd, ClassPlain, &Details{Call: &Call{ID: "c1", Action: CallRetract}}},
	{"call rejected", "", `<reject xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, ContentCallEnd, ClassPlain, &Details{Call: &Call{ID: "c1", Action: CallReject}}},
	{"call finished", "", `<finish xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, ContentCallEnd, ClassPlain, &Details{Call: &Call{ID: "c1", Action: CallFinish}}},
	{"call accepted", "", `<accept xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, ContentCallEnd, ClassPlain, &Details{Call: &Call{ID: "c1", Action: CallAccept}}},
	{"call proceeds", "", `<proceed xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, ContentCallEnd, ClassPlain, &Details{Call: &Call{ID: "c1", Action: CallProceed}}},
	{"call rings", "", `<ringing xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, ContentNone, ClassPlain, nil},
	{"call of XEP-0482", "chat", `<invite xmlns="urn:xmpp:call-invites:0" video="true"><jingle sid="s1"/></invite>`, ContentCall, ClassUrgent, &Details{Call: &Call{ID: "m1", Media: []string{"audio", "video"}, Invite: true}}},
	{"call of XEP-0482 with an origin-id", "chat", `<origin-id xmlns="urn:xmpp:sid:0" id="o1"/><invite xmlns="urn:xmpp:call-invites:0" audio="0" video="1"/>`, ContentCall, ClassUrgent, &Details{Call: &Call{ID: "o1", Media: []string{"video"}, Invite: true}}},
	{"call of XEP-0482 without a picture", "chat", `<invite xmlns="urn:xmpp:call-invites:0" audio="true" video="false"/>`, ContentCall, ClassUrgent, &Details{Call: &Call{ID: "m1", Media: []string{"audio"}, Invite: true}}},
	{"call of XEP-0482 accepted", "chat", `<accept xmlns="urn:xmpp:call-invites:0" id="m0"><jingle sid="s1"/></accept>`, ContentCallEnd, ClassPlain, &Details{Call: &Call{ID: "m0", Action: CallAccept, Invite: true}}},
	{"call of XEP-0482 left", "chat", `<left xmlns="urn:xmpp:call-invites:0" id="m0"/>`, ContentCallEnd, ClassPlain, &Details{Call: &Call{ID: "m0", Action: CallFinish, Invite: true}}},
	{"a room invited to a call", "groupchat", `<invite xmlns="urn:xmpp:call-invites:0"><jingle sid="s1" jid="mixer@a/b"/></invite>`, ContentInvitation, ClassImportant, nil},
	{"a room's call taken back", "groupchat", `<retract xmlns="urn:xmpp:call-invites:0" id="r0"/>`, ContentRetraction, ClassPlain, &Details{Target: "r0"}},
	{"a room's call left by one", "groupchat", `<left xmlns="urn:xmpp:call-invites:0" id="r0"/>`, ContentNone, ClassPlain, nil},
	{"words of one call protocol in the other, and what is said", "chat", `<invite xmlns="urn:xmpp:jingle-message:0" id="c1"/><finish xmlns="urn:xmpp:call-invites:0" id="c1"/><proceed xmlns="urn:xmpp:call-invites:0" id="c1"/><body>hi</body>`, ContentText, ClassImportant, nil},
	{"media of one call protocol in the other", "", `<propose xmlns="urn:xmpp:jingle-message:0" id="c1" audio="false" video="true"><description xmlns="urn:xmpp:jingle:apps:rtp:1" media="audio"/></propose>`, ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c1", Media: []string{"audio"}}}},
	{"two invitations", "", `<x xmlns="http://jabber.org/protocol/muc#user"><invite from="a@b"/><status code="1"/></x>`, ContentInvitation, ClassImportant, &Details{Inviter: "a@b"}},
	{"words of one call protocol in the other", "chat", `<propose xmlns="urn:xmpp:call-invites:0" id="c1"/><left xmlns="urn:xmpp:jingle-message:0" id="c1"/>`, ContentNone, ClassPlain, nil},
	{"encrypted in a way that is not known", "chat", `<body>This is encrypted</body><encryption xmlns="urn:xmpp:eme:0" namespace="urn:xmpp:otr:0"/>`, ContentEncrypted, ClassImportant, nil},
	{"housekeeping of an encryption that is not known", "chat", `<encryption xmlns="urn:xmpp:eme:0" namespace="urn:xmpp:mls:0"/>`, ContentNone, ClassPlain, nil},
	{"said to be encrypted, without the payload that would be there", "chat", `<body>hi</body><encryption xmlns="urn:xmpp:eme:0" namespace="eu.siacs.conversations.axolotl"/>`, ContentText, ClassImportant, nil},
	{"key transport that says so", "chat", `<encrypted xmlns="urn:xmpp:omemo:2"><header/></encrypted><body>This is encrypted</body><encryption xmlns="urn:xmpp:eme:0" namespace="urn:xmpp:omemo:2"/>`, ContentKeyTransport, ClassPlain, nil},
	{"marker", "chat", `<displayed xmlns="urn:xmpp:chat-markers:0" id="m0"/>`, ContentDisplayed, ClassPlain, &Details{Target: "m0"}},
	{"marker with what the server is to publish", "chat", `<displayed xmlns="urn:xmpp:chat-markers:0" id="m0"/><displayed xmlns="urn:xmpp:mds:displayed:0"><stanza-id xmlns="urn:xmpp:sid:0" id="a0" by="c@d"/></displayed>`, ContentDisplayed, ClassPlain, &Details{Target: "a0"}},
	{"the same in the other order", "chat", `<displayed xmlns="urn:xmpp:mds:displayed:0"><stanza-id xmlns="urn:xmpp:sid:0" id="a0" by="c@d"/></displayed><displayed xmlns="urn:xmpp:chat-markers:0" id="m0"/>`, ContentDisplayed, ClassPlain, &Details{Target: "a0"}},
	{"receipt", "chat", `<received xmlns="urn:xmpp:receipts" id="m0"/>`, ContentReceipt, ClassPlain, nil},
	{"key transport", "chat", `<encrypted xmlns="urn:xmpp:omemo:2"><header/></encrypted>`, ContentKeyTransport, ClassPlain, nil},
	{"room's subject", "groupchat", `<subject>Verona</subject>`, ContentSubject, ClassPlain, nil},
	{"room's subject is taken away", "groupchat", `<subject/><body/>`, ContentSubject, ClassPlain, nil},
	{"a message with a subject in a room", "groupchat", `<subject>Verona</subject><body>hi</body>`, ContentText, ClassImportant, nil},
	{"headline", "headline", `<body>hi</body>`, ContentHeadline, ClassPlain, nil},
	{"mention by a reference", "groupchat", `<body>hi juliet</body><reference xmlns="urn:xmpp:reference:0" type="mention" begin="3" end="9" uri="xmpp:juliet@example.com"/>`,
		ContentText, ClassImportant, &Details{Mentions: []Mention{{Reference: true, URI: "xmpp:juliet@example.com"}}}},
	{"mentions", "groupchat", `<body>hi</body><mention xmlns="urn:xmpp:mentions:0" occupantid="o1"><noping/></mention><mention xmlns="urn:xmpp:mentions:0" mentions="urn:xmpp:mentions:0#channel"><active/></mention><mention xmlns="urn:xmpp:mentions:0"/>`,
		ContentText, ClassImportant, &Details{Mentions: []Mention{{OccupantID: "o1", NoPing: true}, {Channel: true, Active: true}}}},
	{"reply", "chat", "<body>&gt; ho\nhi</body><reply xmlns=\"urn:xmpp:reply:0\" to=\"juliet@example.com/b\" id=\"m0\"/>", ContentText, ClassImportant, &Details{Reply: ReplyTo{To: "juliet@example.com/b", ID: "m0"}}},
	{"room's ids", "groupchat", `<body>hi</body><stanza-id xmlns="urn:xmpp:sid:0" by="verona@rooms.example.net" id="r1"/><occupant-id xmlns="urn:xmpp:occupant-id:0" id="o1"/>`, ContentText, ClassImportant, &Details{RoomID: "r1", OccupantID: "o1"}},
	{"id that somebody else gave", "groupchat", `<body>hi</body><stanza-id xmlns="urn:xmpp:sid:0" by="mantua@rooms.example.net" id="r1"/>`, ContentText, ClassImportant, nil},
	{"retraction in another namespace", "chat", `<retract xmlns="some:thing" id="m0"/><body>hi</body>`, ContentText, ClassImportant, nil},
	{"something else of retractions", "chat", `<finish xmlns="urn:xmpp:message-retract:1" id="m0"/><body>hi</body>`, ContentText, ClassImportant, nil},
	{"something else of retractions, fastened", "chat", `<apply-to xmlns="urn:xmpp:fasten:0" id="m0"><external xmlns="urn:xmpp:message-retract:0"/></apply-to><body>hi</body>`, ContentText, ClassImportant, nil},
	{"retraction in another namespace, fastened", "chat", `<apply-to xmlns="urn:xmpp:fasten:0" id="m0"><retract xmlns="some:thing"/></apply-to><body>hi</body>`, ContentText, ClassImportant, nil},
	{"something else of moderation, fastened", "groupchat", `<apply-to xmlns="urn:xmpp:fasten:0" id="r0"><reason xmlns="urn:xmpp:message-moderate:0"/></apply-to><body>hi</body>`, ContentText, ClassImportant, nil},
	{"moderation in another namespace, fastened", "groupchat", `<apply-to xmlns="urn:xmpp:fasten:0" id="r0"><moderated xmlns="some:thing"/></apply-to><body>hi</body>`, ContentText, ClassImportant, nil},
	{"moderated in another namespace", "groupchat", `<retract xmlns="urn:xmpp:message-retract:1" id="r0"><moderated xmlns="some:thing"/></retract>`, ContentRetraction, ClassPlain, &Details{Target: "r0"}},
	{"retraction with something else of moderation", "groupchat", `<retract xmlns="urn:xmpp:message-retract:1" id="r0"><reason xmlns="urn:xmpp:message-moderate:1"/></retract>`, ContentRetraction, ClassPlain, &Details{Target: "r0"}},
	{"a moderator's correction", "groupchat", `<replace xmlns="urn:xmpp:message-correct:0" id="m0"><moderated xmlns="urn:xmpp:message-moderate:1"/></replace>`, ContentCorrection, ClassPlain, &Details{Target: "m0"}},
	{"invitation of another namespace", "", `<x xmlns="http://jabber.org/protocol/muc#user"><invite xmlns="some:thing"/></x>`, ContentNone, ClassPlain, nil},
	{"PGP, and what is not OX", "chat", `<x xmlns="jabber:x:encrypted"/><openpgp xmlns="some:thing"/>`, ContentEncrypted, ClassImportant, nil},
	{"encrypted once with and once without content", "chat", `<encrypted xmlns="urn:xmpp:omemo:2"><payload/><header/></encrypted><encrypted xmlns="urn:xmpp:omemo:1"><header/></encrypted>`, ContentEncrypted, ClassImportant, nil},
	{"file, and what is none", "chat", `<file-sharing xmlns="urn:xmpp:sfs:0"/><file-sharing xmlns="some:thing"/><reference xmlns="urn:xmpp:reference:0" type="data"><x/></reference>`, ContentFile, ClassImportant, nil},
	{"media in another namespace", "chat", `<reference xmlns="urn:xmpp:reference:0" type="data"><media-sharing xmlns="some:thing"/></reference>`, ContentNone, ClassPlain, nil},
	{"something else of media", "chat", `<reference xmlns="urn:xmpp:reference:0" type="data"><thumbnail xmlns="urn:xmpp:sims:1"/></reference>`, ContentNone, ClassPlain, nil},
	{"body that is fallback, also for what is not known", "chat", `<body>👋</body><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reactions:0"/><fallback xmlns="urn:xmpp:fallback:0" for="some:thing"/>`, ContentNone, ClassPlain, nil},
	{"invitation by nobody, and what else the room says", "", `<x xmlns="http://jabber.org/protocol/muc#user"><invite to="a@b"/><decline from="a@b"/></x><propose xmlns="some:thing"/>`, ContentInvitation, ClassImportant, nil},
	{"invitation by nobody, and a call's own", "", `<propose xmlns="urn:xmpp:jingle-message:0" id="c1"><invite from="a@b"/></propose>`, ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c1"}}},
	{"fallback for two, of which one is known", "chat", `<body>👋</body><reactions xmlns="urn:xmpp:reactions:0" id="m0"/><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reactions:0"/><fallback xmlns="urn:xmpp:fallback:0" for="some:thing"/>`, ContentReaction, ClassPlain, &Details{Target: "m0"}},
	{"marker that the server is to publish", "chat", `<displayed xmlns="urn:xmpp:mds:displayed:0"><stanza-id xmlns="urn:xmpp:sid:0" id="a0" by="c@d"/></displayed>`, ContentDisplayed, ClassPlain, &Details{Target: "a0"}},
	{"marker of something else", "chat", `<displayed xmlns="urn:xmpp:mds:displayed:0"><x id="a0"/></displayed>`, ContentDisplayed, ClassPlain, nil},
	{"two calls, of which the second holds", "", `<propose xmlns="urn:xmpp:jingle-message:0" id="c0"><description xmlns="urn:xmpp:jingle:apps:rtp:1" media="video"/></propose><propose xmlns="urn:xmpp:jingle-message:0" id="c1"><description xmlns="urn:xmpp:jingle:apps:rtp:1" media="audio"/></propose>`,
		ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c1", Media: []string{"audio"}}}},
	{"call with what is no description", "", `<propose xmlns="urn:xmpp:jingle-message:0" id="c1"><stanza-id xmlns="urn:xmpp:sid:0" id="a0" by="c@d"/><x media="audio"/><description xmlns="urn:xmpp:jingle:apps:rtp:1" title="video"/></propose>`,
		ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c1"}}},
	{"call with a description elsewhere", "", `<propose xmlns="urn:xmpp:jingle-message:0" id="c1"/><fallback xmlns="urn:xmpp:fallback:0" for="some:thing"><description media="audio"/></fallback>`,
		ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c1"}}},
	{"mention, of those that are active and of nobody", "groupchat", `<body>hi</body><mention xmlns="urn:xmpp:mentions:0" occupantid="o1"><active/><noping/><x/></mention>`, ContentText, ClassImportant, &Details{Mentions: []Mention{{OccupantID: "o1", Active: true, NoPing: true}}}},
	{"mention with what is not known", "groupchat", `<body>hi</body><mention xmlns="urn:xmpp:mentions:0" occupantid="o1"><active xmlns="some:thing"/><noping xmlns="some:thing"/></mention>`, ContentText, ClassImportant, &Details{Mentions: []Mention{{OccupantID: "o1"}}}},
	{"key transport beside what is encrypted in a way that is not known", "chat", `<encrypted xmlns="urn:xmpp:omemo:2"><header/></encrypted><body>This is encrypted</body><encryption xmlns="urn:xmpp:eme:0" namespace="urn:xmpp:otr:0"/>`, ContentKeyTransport, ClassPlain, nil},
	{"call of an occupant", "chat", `<propose xmlns="urn:xmpp:jingle-message:0" id="c1"/><x xmlns="http://jabber.org/protocol/muc#user"/>`, ContentCall, ClassUrgent, &Details{Call: &Call{ID: "c1"}}},
	{"invitation by an occupant", "chat", `<x xmlns="jabber:x:conference" jid="padua@rooms.example.net"/><x xmlns="http://jabber.org/protocol/muc#user"/>`, ContentInvitation, ClassImportant, &Details{Room: "padua@rooms.example.net"}},
	{"id in a chat", "chat", `<body>hi</body><stanza-id xmlns="urn:xmpp:sid:0" by="verona@rooms.example.net" id="r1"/>`, ContentText, ClassImportant, nil},
}

// Both readers understand the same of a message, and it is in the class table.
func TestContent(t *testing.T) {
	for _, m := range meanings {
		text := fmt.Sprintf(`<message from="verona@rooms.example.net/romeo" to="juliet@example.com" id="m1" type=%q>%s</message>`, m.typ, m.inside)
		st, err := ParseStanza("x", []byte(text))
		require.NoError(t, err, m.name)
		assert.Equal(t, m.content, st.Content, m.name)
		assert.Equal(t, m.class, st.Class, m.name)
		assert.Equal(t, m.details, st.Details, m.name)
		assert.Equal(t, "m1", st.MessageID, m.name)
		other, err := ReadStanza("x", xml.NewDecoder(strings.NewReader(text)))
		require.NoError(t, err, m.name)
		assert.Equal(t, st, other, m.name)
	}
}

// Marks of a stanza that are not about what it says.
func TestStanzaMarks(t *testing.T) {
	const room, delay = "verona@rooms.example.net", `<delay xmlns="urn:xmpp:delay" stamp="2026-01-01T00:00:00Z" from="%s"/>`
	for _, c := range []struct {
		name, typ, inside string
		noStore, history  bool
	}{
		{"plain", "chat", ``, false, false},
		{"no-store", "chat", `<no-store xmlns="urn:xmpp:hints"/>`, true, false},
		{"no-store twice", "chat", `<no-store xmlns="urn:xmpp:hints"/><no-store xmlns="hints"/>`, true, false},
		{"no-store of another namespace", "chat", `<no-store xmlns="hints"/>`, false, false},
		{"no-store in an error", "error", `<no-store xmlns="urn:xmpp:hints"/>`, false, false},
		{"no-permanent-store", "chat", `<no-permanent-store xmlns="urn:xmpp:hints"/>`, false, false},
		{"history", "groupchat", fmt.Sprintf(delay, room), false, true},
		{"history delayed twice", "groupchat", fmt.Sprintf(delay+delay+delay, "a.example", room, "b.example"), false, true},
		{"delayed by another", "groupchat", fmt.Sprintf(delay, "example.com"), false, false},
		{"delayed by another, and the room is named", "groupchat", `<delay xmlns="urn:xmpp:delay" stamp="2026-01-01T00:00:00Z" for="` + room + `" from="example.com"/>`, false, false},
		{"delayed by nobody", "groupchat", `<delay xmlns="urn:xmpp:delay" stamp="2026-01-01T00:00:00Z"/>`, false, false},
		{"private message, delayed", "chat", fmt.Sprintf(delay, room), false, false},
		{"from the archive, with what is not", "", `<result xmlns="urn:xmpp:mam:2" id="a1"/><result xmlns="some:thing"/>`, false, true},
		{"a result of something else", "", `<result xmlns="some:thing" id="a1"/>`, false, false},
		{"from the archive", "", `<result xmlns="urn:xmpp:mam:2" id="a1"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client"><body>hi</body></message></forwarded></result>`, false, true},
	} {
		text := fmt.Sprintf(`<message from="%s/romeo" to="juliet@example.com" type=%q><body>hi</body>%s</message>`, room, c.typ, c.inside)
		st, err := ParseStanza("x", []byte(text))
		require.NoError(t, err, c.name)
		assert.Equal(t, c.noStore, st.NoStore, c.name)
		assert.Equal(t, c.history, st.History, c.name)
		other, err := ReadStanza("x", xml.NewDecoder(strings.NewReader(text)))
		require.NoError(t, err, c.name)
		assert.Equal(t, st, other, c.name)
	}
}

// The quotation that a reply carries for clients which do not know replies is no part of its text.
func TestReplyText(t *testing.T) {
	const quote = `<fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reply:0">`
	const next = `</fallback>` + quote // of more than four the first four count
	other := func(ranges string) string { return strings.Replace(next, "reply", "sfs", 1) + ranges + next }
	for _, c := range []struct{ body, ranges, want string }{
		{"&gt; hö\nhi", `<body start="0" end="5"/>`, "hi"},
		{"&gt; hö\nhi", ``, "> hö\nhi"},
		{"&gt; hö\nhi", `<body start="5"/>`, "> hö\nhi"},
		{"&gt; hö\nhi", `<body start="x" end="5"/>`, "> hö\nhi"},
		{"&gt; hö\nhi", `<body start="2" end="99999999999999999999"/>`, "> hö\nhi"},
		{"&gt; hö\nhi", `<body start="2" end="99999"/>`, "> "},
		{"&gt; hi", `<body start="0" x="1" end="2" y="9"/>`, "hi"},
		{"&gt; hi", `<body end="2"/><subject start="1"/>`, "hi"},
		{"&gt; hi", `<body end="2"/><subject end="9"/>`, "hi"},
		{"&gt; hi", `<subject start="0" end="2"/>`, "> hi"},
		{"&gt; hi", other(`<body start="3" end="4"/>`) + `<body end="2"/>`, "hi"},
		{"&gt; hi", other(`<body start="0" end="2"/>`), "> hi"},
		{"abcdef", strings.Repeat(`<body start="0" end="1"/>`+next, 3) + `<body start="1" end="2"/>` + next + `<body start="2" end="3"/>`, "cdef"},
	} {
		text := `<message><body>` + c.body + `</body><reply xmlns="urn:xmpp:reply:0" id="m0"/>` + quote + c.ranges + `</fallback></message>`
		st, err := ParseStanza("x", []byte(text))
		require.NoError(t, err)
		assert.Equal(t, c.want, st.Body, c.ranges)
		assert.Equal(t, ContentText, st.Content)
		other, err := ReadStanza("x", xml.NewDecoder(strings.NewReader(text)))
		require.NoError(t, err)
		assert.Equal(t, st, other)
	}
}

// A sent carbon is what the user did elsewhere; a stranger's carbon means nothing.
func TestContentOfCarbons(t *testing.T) {
	carbon := func(from, direction, inner string) Stanza {
		text := `<message xmlns="jabber:client" from="` + from + `" to="juliet@example.com/a" id="outer"><` + direction + ` xmlns="urn:xmpp:carbons:2"><forwarded xmlns="urn:xmpp:forward:0">` +
			`<message xmlns="jabber:client" from="juliet@example.com/b" to="romeo@example.net" id="inner">` + inner + `</message></forwarded></` + direction + `></message>`
		st, err := ParseStanza("x", []byte(text))
		require.NoError(t, err)
		other, err := ReadStanza("x", xml.NewDecoder(strings.NewReader(text)))
		require.NoError(t, err)
		assert.Equal(t, st, other)
		return st
	}
	const own, stranger = "juliet@example.com", "tybalt@example.net"
	st := carbon(own, "sent", `<body>hi</body>`)
	assert.Equal(t, ContentSent, st.Content)
	assert.Equal(t, "inner", st.MessageID)
	assert.Equal(t, "romeo@example.net", st.Chat(own))
	st = carbon(own, "sent", `<proceed xmlns="urn:xmpp:jingle-message:0" id="c1"/>`)
	assert.Equal(t, ContentCallEnd, st.Content)
	assert.Equal(t, CallProceed, st.Details.Call.Action)
	st = carbon(stranger, "sent", `<proceed xmlns="urn:xmpp:jingle-message:0" id="c1"/>`)
	assert.Equal(t, ContentNone, st.Content)
	assert.Nil(t, st.Details)
	st = carbon(stranger, "received", `<retract xmlns="urn:xmpp:message-retract:1" id="m0"/>`)
	assert.Equal(t, ContentNone, st.Content)
	assert.Equal(t, "outer", st.MessageID)
	assert.Nil(t, st.Details)
}

// What strangers write into identifiers is bounded.
func TestDetailsAreBounded(t *testing.T) {
	long := strings.Repeat("a", 257)
	text := `<message id="` + long + `" type="groupchat" from="a@b/c"><body>hi</body><replace xmlns="urn:xmpp:message-correct:0" id="` + long + `"/><reply xmlns="urn:xmpp:reply:0" to="` + long + `" id="` + long + `"/>` +
		`<occupant-id xmlns="urn:xmpp:occupant-id:0" id="` + long + `"/><stanza-id xmlns="urn:xmpp:sid:0" by="a@b" id="` + long + `"/>` +
		strings.Repeat(`<mention xmlns="urn:xmpp:mentions:0" jid="`+long+`"/>`, 10) + `</message>`
	st, err := ParseStanza("x", []byte(text))
	require.NoError(t, err)
	assert.Empty(t, st.MessageID)
	assert.Nil(t, st.Details)

	st, err = ParseStanza("x", []byte(`<message><body>hi</body>`+strings.Repeat(`<mention xmlns="urn:xmpp:mentions:0" jid="a.example"/>`, 1000)+`</message>`))
	require.NoError(t, err)
	assert.Len(t, st.Details.Mentions, 32)
	st, err = ParseStanza("x", []byte(`<message><propose xmlns="urn:xmpp:jingle-message:0" id="`+long+`">`+strings.Repeat(`<description media="audio"/>`, 5)+`<description media="`+long+`"/></propose></message>`))
	require.NoError(t, err)
	assert.Equal(t, &Call{Media: []string{"audio"}}, st.Details.Call)
}

func TestContentTokens(t *testing.T) {
	all := func(n int, of func(i int) (encoding.TextMarshaler, encoding.TextUnmarshaler)) {
		seen := map[string]bool{}
		for i := range n {
			v, back := of(i)
			text, err := v.MarshalText()
			require.NoError(t, err)
			require.NoError(t, back.UnmarshalText(text))
			assert.False(t, seen[string(text)] || strings.Contains(string(text), "("), "%s", text)
			seen[string(text)] = true
		}
		_, back := of(0)
		assert.Error(t, back.UnmarshalText([]byte("nonsense")))
	}
	all(int(ContentError)+1, func(i int) (encoding.TextMarshaler, encoding.TextUnmarshaler) { return Content(i), new(Content) })
	all(int(MessageError)+1, func(i int) (encoding.TextMarshaler, encoding.TextUnmarshaler) {
		return MessageType(i), new(MessageType)
	})
	all(int(CallProceed)+1, func(i int) (encoding.TextMarshaler, encoding.TextUnmarshaler) { return CallAction(i), new(CallAction) })
}
