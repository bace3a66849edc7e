package push

import "github.com/xmpp-push/push/wishes"

// Event is one thing that happened on the host server. The host says what it has seen, when it has happened; the library decides what to do
// about it. The set is closed; a host builds these structs and hands them to [Engine.Handle] (or, in
// a shell of its own, to [Account.Handle]) from any goroutine.
//
// Two rules hold for all of them. JIDs are strings in their prepared (normalised) form, as jid.JID.String of
// mellium.im/xmpp gives them, so that one account is always spelled the same way. And a stanza keeps its ID
// ([Stanza.ID]) through all events that mention it, or it can be notified twice.
//
//sumtype:decl
type Event interface {
	// Name is the event's name in traces and logs, such as "ack-delayed".
	Name() string
	// Subject is the account that the event is about and, for an event of one session, that session; else its ID is empty.
	Subject() SessionID
	event()
}

// SessionID names one client connection. A session that is resumed (XEP-0198) keeps its SessionID.
type SessionID struct {
	// Account is the bare JID of the account that the session belongs to.
	Account string
	// ID is the host's own name for the session. It is unique within the account and never used again.
	ID string
}

// SessionOpen is raised when a client has bound a resource (RFC 6120 §7).
type SessionOpen struct {
	Session SessionID
	// JID is the full JID that was bound. It is shown to people; its resource names the device for Push 2.0, if there is no Client.
	JID string
	// Client is the stable client ID that SASL2 and Bind 2 carry (XEP-0388, XEP-0386), or empty. A registration that
	// was enabled under the same ID is bound to this session at once (rule R14).
	Client string
}

// SessionRestored is raised when a session goes on in this process that began before it: in the process before a restart, or on another node of a
// cluster. It does what SessionOpen and PushEnable did there, without asking the client again; the stanzas that the session had not acknowledged
// are raised as ever, those that were notified before included.
type SessionRestored struct {
	Session SessionID
	// JID and Client are as in SessionOpen.
	JID, Client string
	// Bound is the registration that the session is bound to, if IsBound. If it is not, a client ID binds it as in SessionOpen.
	Bound   Key
	IsBound bool
	// Superseded says that it does not have Bound now: a newer session of the same device has it (rule R1). Without IsBound it says that the
	// session has nothing, whatever its client ID.
	Superseded bool
	// Hibernated: its connection is gone, and it can be resumed (XEP-0198).
	Hibernated bool
	// Extended: the host still keeps the hibernated session for the longer time that it was advised. It is told when that ends.
	Extended bool
}

// SessionClose is raised when a session is over: closed by either side, replaced, or not resumed in time. Unacknowledged
// stanzas that the host then stores or sends elsewhere raise their own events, in any order with this one. A session of which it is never raised
// is there for good, and its device counts as connected or asleep. Of those that have no registration an account keeps the newest 128: one more, and the
// oldest counts as over (ReasonTooManySessions).
type SessionClose struct {
	Session SessionID
}

// PushEnable is raised when a client enables push (XEP-0357 §5). [ParseRequest] builds it.
type PushEnable struct {
	// Session is the session that asked and is bound to the registration (rule R1). An empty ID binds nothing, for an
	// operator who registers by hand. Nor does one that was not opened, which the Decision says (ChangeUnbound, ReasonUnknownSession), and its opening
	// later does not either: whether it is still to come, or is over, nobody could tell. Then SessionRestored with Bound binds it.
	Session SessionID
	// Key names the registration. If Node is Push2Node alone, it is the Push 2.0 registration of Session's device.
	Key
	// Options is the publish-options form that the client sent, or nil. It is kept and sent verbatim.
	Options []Field
	// Wishes is what the client asked for besides, or nil. It must not be changed any more.
	Wishes *wishes.Wishes
}

// PushDisable is raised when a client disables push (XEP-0357 §6, or Push 2.0). An empty Node means all nodes of that service. Push2Node alone
// means the Push 2.0 registration of Session's device, whatever the service. But for that, without a Service it changes nothing: to take all of an account's
// registrations away, disable each service, or raise AccountRemoved.
type PushDisable struct {
	Session SessionID
	Key
}

// AckDelayed is raised when a request for acknowledgement (<r/>, XEP-0198 §4) stayed unanswered for the host's time, 30 s
// as a rule, on a session whose connection is not yet known to be dead. It is raised again for each further stanza that is sent to the
// session while one is overdue: nothing else would wake the device for it. Stanzas that were raised before may be among them.
type AckDelayed struct {
	Session SessionID
	// Stanzas are the unacknowledged ones, oldest first. The library copies what it needs.
	Stanzas []Stanza
}

// Acknowledged is raised when a session has acknowledged stanzas (XEP-0198 §4) that an AckDelayed or HibernationStart had raised, or
// that were queued for it. What waits to be sent for exactly those is dropped, and they count as unread no longer: the device has them.
type Acknowledged struct {
	Session SessionID
	// IDs are those of the stanzas ([Stanza.ID]). What is not known, or has no ID, is passed over.
	IDs []string
}

// SessionActive is raised when the user does something in a session: sends a message, comes back to the client (XEP-0352 active, chat state
// active). It may be raised each time. Messages in the archive's events say it by themselves, if the session's JID is known. See Policy.Grace.
type SessionActive struct {
	Session SessionID
}

// SessionPresence is raised when what a session's presence says of the user changes, for registrations that asked to be notified while the
// user is away (tigase:push:away:0). A session of which it was never raised is not away.
type SessionPresence struct {
	Session SessionID
	// Away: <show/> is away or xa (RFC 6121 §4.7.2.1).
	Away bool
}

// HibernationStart is raised when a connection is lost and its session can still be resumed.
type HibernationStart struct {
	Session SessionID
	// Stanzas are the unacknowledged ones, oldest first. The library copies what it needs.
	Stanzas []Stanza
}

// StanzaQueued is raised when a stanza is queued for a hibernated session.
type StanzaQueued struct {
	Session SessionID
	Stanza  Stanza
}

// HibernationEnd is raised when a hibernated session is resumed (XEP-0198 §5).
type HibernationEnd struct {
	Session SessionID
}

// ArchiveAdded is raised when a stanza was stored in an account's archive (XEP-0313), whoever sent it. A message between
// two local accounts raises it twice, once for each archive. A host without an archive raises it for calls all the same (XEP-0353: a stanza of
// ClassUrgent, and those that end a call): nothing else rings the devices that have no session while another one has (rule R9).
type ArchiveAdded struct {
	Account string
	Stanza  Stanza
}

// Offline is raised when a message went to an account's offline storage (XEP-0160), or a request for subscription was put by until its user is there
// (RFC 6121 §3.1.3).
type Offline struct {
	Account string
	Stanza  Stanza
}

// Groupchat is raised when a groupchat message reached the account's bare JID, as a room sends it to a member of whom no
// resource is joined.
type Groupchat struct {
	Account string
	Stanza  Stanza
}

// Displayed is raised when the user has seen a chat on one of the account's devices, up to a stanza: an item was published to
// urn:xmpp:mds:displayed:0 (XEP-0490), or a device sent a marker (XEP-0333). What waits for that and earlier stanzas of the chat is not sent, and
// they count as unread no longer. Own messages and markers in the archive's events, and copies of them that are sent to a session, say
// it by themselves: a host need not raise both. So does what a room sends back of the user's own, if the host has said who the user is there (Chats),
// but not among what a session did not acknowledge, for it may come from that very device. Surer for rooms are Displayed, and ArchiveAdded with what
// the user sends there.
type Displayed struct {
	Account string
	// Chat is the bare JID of the room or of the other side; of private messages in a room the full JID of the occupant, as XEP-0490 has it.
	Chat string
	// UpTo is the stanza's ID ([Stanza.ID]), or the ID that the room gave it, or its message id. Empty: everything in the chat so far.
	UpTo string
	// Session is the ID of the session that displayed it, if it is known: its own device is not told of the new count.
	Session string
}

// ChatChanged is raised when what the host would answer about a chat ([Chats]) is not what it was, so that it is asked again.
type ChatChanged struct {
	Account string
	// Chat is the chat's bare JID. Empty: all of the account's.
	Chat string
}

// Ping is raised when the host or an operator wants to wake devices without a stanza.
type Ping struct {
	Account string
	// Registrations are the ones to wake. None means all of the account.
	Registrations []Key
}

// AffiliationNone is raised when a push service has said that the account may no longer publish to a node (XEP-0357 §8).
// The host must have checked that the message came from the service itself.
type AffiliationNone struct {
	Account string
	Key
}

// AccountRemoved is raised when an account is deleted, with all that belongs to it.
type AccountRemoved struct {
	Account string
}

func (SessionOpen) Name() string      { return "session-open" }
func (SessionRestored) Name() string  { return "session-restored" }
func (SessionClose) Name() string     { return "session-close" }
func (PushEnable) Name() string       { return "push-enable" }
func (PushDisable) Name() string      { return "push-disable" }
func (AckDelayed) Name() string       { return "ack-delayed" }
func (Acknowledged) Name() string     { return "acknowledged" }
func (SessionActive) Name() string    { return "session-active" }
func (SessionPresence) Name() string  { return "session-presence" }
func (Displayed) Name() string        { return "displayed" }
func (ChatChanged) Name() string      { return "chat-changed" }
func (HibernationStart) Name() string { return "hibernation-start" }
func (StanzaQueued) Name() string     { return "stanza-queued" }
func (HibernationEnd) Name() string   { return "hibernation-end" }
func (ArchiveAdded) Name() string     { return "archive-added" }
func (Offline) Name() string          { return "offline" }
func (Groupchat) Name() string        { return "groupchat" }
func (Ping) Name() string             { return "ping" }
func (AffiliationNone) Name() string  { return "affiliation-none" }
func (AccountRemoved) Name() string   { return "account-removed" }

func (e SessionOpen) Subject() SessionID      { return e.Session }
func (e SessionRestored) Subject() SessionID  { return e.Session }
func (e SessionClose) Subject() SessionID     { return e.Session }
func (e PushEnable) Subject() SessionID       { return e.Session }
func (e PushDisable) Subject() SessionID      { return e.Session }
func (e AckDelayed) Subject() SessionID       { return e.Session }
func (e Acknowledged) Subject() SessionID     { return e.Session }
func (e SessionActive) Subject() SessionID    { return e.Session }
func (e SessionPresence) Subject() SessionID  { return e.Session }
func (e Displayed) Subject() SessionID        { return SessionID{Account: e.Account} }
func (e ChatChanged) Subject() SessionID      { return SessionID{Account: e.Account} }
func (e HibernationStart) Subject() SessionID { return e.Session }
func (e StanzaQueued) Subject() SessionID     { return e.Session }
func (e HibernationEnd) Subject() SessionID   { return e.Session }
func (e ArchiveAdded) Subject() SessionID     { return SessionID{Account: e.Account} }
func (e Offline) Subject() SessionID          { return SessionID{Account: e.Account} }
func (e Groupchat) Subject() SessionID        { return SessionID{Account: e.Account} }
func (e Ping) Subject() SessionID             { return SessionID{Account: e.Account} }
func (e AffiliationNone) Subject() SessionID  { return SessionID{Account: e.Account} }
func (e AccountRemoved) Subject() SessionID   { return SessionID{Account: e.Account} }

func (SessionOpen) event()      {}
func (SessionRestored) event()  {}
func (SessionClose) event()     {}
func (PushEnable) event()       {}
func (PushDisable) event()      {}
func (AckDelayed) event()       {}
func (Acknowledged) event()     {}
func (SessionActive) event()    {}
func (SessionPresence) event()  {}
func (Displayed) event()        {}
func (ChatChanged) event()      {}
func (HibernationStart) event() {}
func (StanzaQueued) event()     {}
func (HibernationEnd) event()   {}
func (ArchiveAdded) event()     {}
func (Offline) event()          {}
func (Groupchat) event()        {}
func (Ping) event()             {}
func (AffiliationNone) event()  {}
func (AccountRemoved) event()   {}

// subject is ev.Subject without a call through the interface: such a call would make every event that is handed to an
// Engine escape to the heap.
func subject(ev Event) SessionID {
	switch e := ev.(type) {
	case SessionOpen:
		return e.Subject()
	case SessionRestored:
		return e.Subject()
	case SessionClose:
		return e.Subject()
	case PushEnable:
		return e.Subject()
	case PushDisable:
		return e.Subject()
	case AckDelayed:
		return e.Subject()
	case Acknowledged:
		return e.Subject()
	case SessionActive:
		return e.Subject()
	case SessionPresence:
		return e.Subject()
	case Displayed:
		return e.Subject()
	case ChatChanged:
		return e.Subject()
	case HibernationStart:
		return e.Subject()
	case StanzaQueued:
		return e.Subject()
	case HibernationEnd:
		return e.Subject()
	case ArchiveAdded:
		return e.Subject()
	case Offline:
		return e.Subject()
	case Groupchat:
		return e.Subject()
	case Ping:
		return e.Subject()
	case AffiliationNone:
		return e.Subject()
	case AccountRemoved:
		return e.Subject()
	}
	return SessionID{}
}

// ours tells whether an event is one of this package's, and not a pointer to one. Unlike own it makes no copy.
func ours(ev Event) bool {
	switch ev.(type) {
	case SessionOpen, SessionRestored, SessionClose, PushEnable, PushDisable, AckDelayed, Acknowledged, SessionActive, SessionPresence, Displayed,
		ChatChanged, HibernationStart, StanzaQueued, HibernationEnd, ArchiveAdded, Offline, Groupchat, Ping, AffiliationNone, AccountRemoved:
		return true
	}
	return false
}

// own returns a copy of ev, which may outlive the call that ev was given to.
func own(ev Event) Event {
	switch e := ev.(type) {
	case SessionOpen:
		return e
	case SessionRestored:
		return e
	case SessionClose:
		return e
	case PushEnable:
		return e
	case PushDisable:
		return e
	case AckDelayed:
		return e
	case Acknowledged:
		return e
	case SessionActive:
		return e
	case SessionPresence:
		return e
	case Displayed:
		return e
	case ChatChanged:
		return e
	case HibernationStart:
		return e
	case StanzaQueued:
		return e
	case HibernationEnd:
		return e
	case ArchiveAdded:
		return e
	case Offline:
		return e
	case Groupchat:
		return e
	case Ping:
		return e
	case AffiliationNone:
		return e
	case AccountRemoved:
		return e
	}
	return nil
}
