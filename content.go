package push

import "github.com/xmpp-push/push/internal/enum"

// What a stanza is about, and so how much its user wants to know.

// Content is what a stanza is about. The zero Content is nothing that a user would want to see, or not known.
type Content uint8

const (
	ContentNone         Content = iota
	ContentText                 // a message with text
	ContentEncrypted            // a message with a payload that only the client can read (XEP-0384, XEP-0373, XEP-0027)
	ContentCall                 // an incoming call (XEP-0353 propose, XEP-0482 invite)
	ContentInvitation           // an invitation to a room (XEP-0249, XEP-0045 §7.8)
	ContentFile                 // a shared file or link without text (XEP-0447, XEP-0385, XEP-0066)
	ContentSubscription         // somebody wants to see the user's presence (RFC 6121 §3.1)
	ContentCallEnd              // a call is over, or was taken (XEP-0353, XEP-0482)
	ContentCorrection           // XEP-0308
	ContentRetraction           // XEP-0424
	ContentModeration           // XEP-0425: a room retracts what one of its occupants sent
	ContentReaction             // XEP-0444
	ContentKeyTransport         // OMEMO without a payload
	ContentSubject              // a room's subject
	ContentDisplayed            // XEP-0333, XEP-0490
	ContentReceipt              // XEP-0184
	ContentSent                 // what the user sent on another device (XEP-0280)
	ContentHeadline             // RFC 6121 §5.2.2
	ContentError                // a bounced message (RFC 6120 §8.3)
)

var contents = []string{
	"none", "text", "encrypted", "call", "invitation", "file", "subscription", "call-end", "correction", "retraction", "moderation", "reaction",
	"key-transport", "subject", "displayed", "receipt", "sent", "headline", "error",
}

// String is the content's token.
func (c Content) String() string { return enum.Token("content", contents, c) }

// MarshalText gives the token.
func (c Content) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (c *Content) UnmarshalText(text []byte) error { return enum.Read("content", contents, c, text) }

// Class returns how much a user wants to know of it.
func (c Content) Class() Class {
	switch c {
	case ContentCall:
		return ClassUrgent
	case ContentText, ContentEncrypted, ContentInvitation, ContentFile, ContentSubscription:
		return ClassImportant
	default:
		return ClassPlain
	}
}

// Features is what a stanza's content, and so its class, depends on. Hosts that have parsed a stanza already fill it themselves; of a carbon
// copy it describes the message inside.
type Features struct {
	Kind   Kind
	Carbon Carbon
	// Type is the type attribute: "chat", "groupchat", "headline", "error", of a presence "subscribe" …
	Type string
	// Replay: a <result/> of urn:xmpp:mam:2 (XEP-0313).
	Replay bool
	// Propose: a <propose/> of urn:xmpp:jingle-message:0 (XEP-0353), or an <invite/> of urn:xmpp:call-invites:0 (XEP-0482) that is not in a room.
	// CallEnd: what is then said of it: <retract/>, <reject/>, <finish/>, <accept/>, <proceed/>, <left/>.
	Propose, CallEnd bool
	// Correction: <replace/> of urn:xmpp:message-correct:0 (XEP-0308).
	Correction bool
	// Retraction: <retract/> of urn:xmpp:message-retract:1, or :0 in an <apply-to/> (XEP-0424). Moderation: <moderated/> in it (XEP-0425).
	Retraction, Moderation bool
	// Reaction: <reactions/> of urn:xmpp:reactions:0 (XEP-0444).
	Reaction bool
	// Invitation: <x/> of jabber:x:conference (XEP-0249), or <invite/> in <x/> of http://jabber.org/protocol/muc#user (XEP-0045 §7.8.2); or an
	// invitation of a whole room to a call (XEP-0482): anybody can send one, so it does not ring.
	Invitation bool
	// File: <file-sharing/> of urn:xmpp:sfs:0 (XEP-0447), <media-sharing/> of urn:xmpp:sims:1 in a <reference/> (XEP-0385), or
	// <url/> in <x/> of jabber:x:oob (XEP-0066).
	File bool
	// Encrypted: OMEMO with a <payload/> (any of eu.siacs.conversations.axolotl, urn:xmpp:omemo:0, :1, :2), <x/> of jabber:x:encrypted
	// (XEP-0027), or <openpgp/> of urn:xmpp:openpgp:0 (XEP-0373); or a <body/> whose <encryption/> of urn:xmpp:eme:0
	// (XEP-0380) names something else than these.
	Encrypted bool
	// KeyTransport: an OMEMO element without a <payload/>.
	KeyTransport bool
	// Subject: there is a <subject/>.
	Subject bool
	// Body: there is a <body/> that is not empty and does not stand in altogether for an element that this table knows (XEP-0428 <fallback/>
	// without a range).
	Body bool
	// Displayed: <displayed/> of urn:xmpp:chat-markers:0 (XEP-0333) or urn:xmpp:mds:displayed:0 (XEP-0490). Receipt: <received/> of
	// urn:xmpp:receipts (XEP-0184).
	Displayed, Receipt bool
}

// Content is the class table: the first line that matches decides. Each line's class is in [Content.Class].
func (f Features) Content() Content {
	switch {
	case f.Kind == KindPresence && f.Type == "subscribe":
		return ContentSubscription
	case f.Kind != KindMessage:
		return ContentNone
	case f.Type == "error": // what it quotes is not said again
		return ContentError
	case f.Replay: // the client asked for it
		return ContentNone
	case f.Type == "headline":
		return ContentHeadline
	case f.CallEnd:
		return ContentCallEnd
	case f.Carbon == CarbonSent: // the user wrote it, on another device
		return ContentSent
	case f.Propose:
		return ContentCall
	case f.Moderation:
		return ContentModeration
	case f.Retraction:
		return ContentRetraction
	case f.Correction:
		return ContentCorrection
	case f.Reaction:
		return ContentReaction
	case f.Encrypted:
		return ContentEncrypted
	case f.Invitation:
		return ContentInvitation
	case f.KeyTransport: // OMEMO housekeeping, nothing to read
		return ContentKeyTransport
	case f.Type == "groupchat" && f.Subject && !f.Body: // with a body it is a message that has a subject (XEP-0045 §8.1)
		return ContentSubject
	case f.Body:
		return ContentText
	case f.File:
		return ContentFile
	case f.Displayed:
		return ContentDisplayed
	case f.Receipt:
		return ContentReceipt
	}
	return ContentNone
}

// Classify returns the class of what f describes.
func Classify(f Features) Class { return f.Content().Class() }

// MessageType is the type of a message (RFC 6121 §5.2.2). What is none of them is normal.
type MessageType uint8

const (
	MessageNormal MessageType = iota
	MessageChat
	MessageGroupchat
	MessageHeadline
	MessageError
)

var messageTypes = []string{"normal", "chat", "groupchat", "headline", "error"}

// String is the type's token, as in a message's type attribute.
func (t MessageType) String() string { return enum.Token("type", messageTypes, t) }

// MarshalText gives the token.
func (t MessageType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (t *MessageType) UnmarshalText(text []byte) error {
	return enum.Read("message type", messageTypes, t, text)
}

func messageTypeOf(s string) MessageType {
	for i, t := range messageTypes {
		if s == t {
			return MessageType(i)
		}
	}
	return MessageNormal
}

// Details is what some stanzas say beyond the fields of [Stanza]. Identifiers and addresses are as the sender wrote them; those longer than 256
// bytes are left out.
type Details struct {
	// Target is what a correction, a retraction, a reaction or a marker refers to: the id of a message, or its stanza-id (XEP-0359).
	Target string
	// RoomID is the stanza-id that the room gave to its message.
	RoomID string
	// OccupantID is the sender's occupant-id in the room (XEP-0421).
	OccupantID string
	// Room is the room of a direct invitation, in prepared form. That of a mediated one is who sends it; Inviter then is who invites, as the room
	// says, in prepared form.
	Room, Inviter string
	// Private: it is a private message in a room (XEP-0045 §7.5), to or from one occupant.
	Private bool
	// Reply is what the message answers (XEP-0461).
	Reply ReplyTo
	// Mentions are who it mentions, 32 at most.
	Mentions []Mention
	// Call is set for calls and their ends.
	Call *Call
}

func (d *Details) empty() bool {
	return d.Target == "" && d.RoomID == "" && d.OccupantID == "" && d.Room == "" && d.Inviter == "" && !d.Private && d.Reply == (ReplyTo{}) && len(d.Mentions) == 0 && d.Call == nil
}

// ReplyTo names the message that another one answers (XEP-0461).
type ReplyTo struct {
	// To is the address of who wrote it. ID is its id, or stanza-id in a room.
	To, ID string
}

// Mention is one <reference type='mention'/> (XEP-0372) or <mention/> (XEP-0513).
type Mention struct {
	// Reference: it is one of XEP-0372, which has only a URI.
	Reference bool
	// URI, JID and OccupantID name who is mentioned; one of them is enough. Channel: everybody in the room is (XEP-0513 mentions='…#channel').
	URI, JID, OccupantID string
	Channel              bool
	// Active: only those who are active are to be told. NoPing: nobody is.
	Active, NoPing bool
}

// Call is what a stanza says of a call (XEP-0353, XEP-0482).
type Call struct {
	// ID is what the propose and what follows it have in common: that of the Jingle session, or of the message that invites. Another propose of the same
	// caller that has it is the same call, and rings no device twice; without an ID, or with one of more than 256 bytes, nobody can tell.
	ID     string
	Action CallAction
	// Invite: it is a call of XEP-0482, whose invite is a CallPropose here, and its left a CallFinish. Its ID is not that of a Jingle session.
	Invite bool
	// Media are those of a propose, such as "audio" and "video", two at most.
	Media []string
}

// CallAction is what happens to a call.
type CallAction uint8

const (
	CallPropose CallAction = iota
	CallRetract
	CallReject
	CallFinish
	CallAccept
	CallProceed
)

var callActions = []string{"propose", "retract", "reject", "finish", "accept", "proceed"}

// String is the action's token, the name of its element.
func (a CallAction) String() string { return enum.Token("action", callActions, a) }

// MarshalText gives the token.
func (a CallAction) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (a *CallAction) UnmarshalText(text []byte) error {
	return enum.Read("call action", callActions, a, text)
}

func callActionOf(name string) CallAction {
	for i, n := range callActions {
		if n == name {
			return CallAction(i)
		}
	}
	return CallPropose
}

// Chat returns the chat of an account that the stanza belongs to: the bare JID of the room, or of the other side, whoever sent it. A subscription
// request and a call belong to the chat with who sent them, and so does an invitation to a room, whoever passed it on. A private message in a room
// belongs to the room.
func (st *Stanza) Chat(account string) string {
	from := bare(st.From)
	if st.Details != nil && st.Details.Inviter != "" && bare(st.Details.Inviter) != account {
		return bare(st.Details.Inviter)
	}
	if (from == account || from == "" && st.Type != MessageGroupchat) && st.To != "" {
		return bare(st.To)
	}
	return from
}

// thread returns what of a chat the user reads at once: all of it, but of a room's private messages those of one occupant (XEP-0490 §3.1).
func (st *Stanza) thread(account string) string {
	if st.Details == nil || !st.Details.Private {
		return st.Chat(account)
	}
	if bare(st.From) == account {
		return st.To
	}
	return st.From
}
