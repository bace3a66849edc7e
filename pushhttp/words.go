package pushhttp

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// What the pages say, in the words of those who read them: somebody who has to explain to a user why a phone was silent. There is a sentence for
// every reason and every outcome, with its cause, and what is to be done where something is.

// Mark is in a word what became of a message for one device. Its text does not change between versions.
type Mark string

const (
	MarkAlerted   Mark = "alert accepted"    // the push service took a notification that shows
	MarkWoken     Mark = "wake-up accepted"  // it took a silent one
	MarkShown     Mark = "on its connection" // the device is connected and gets the message itself
	MarkFetched   Mark = "fetched it itself" // the device came back before
	MarkTold      Mark = "told before"       // it was notified of the same message already
	MarkWaiting   Mark = "waiting"           // not sent yet, or to be sent again
	MarkFailed    Mark = "failed"            // the push service did not take it
	MarkTooOld    Mark = "too old"           // given up
	MarkMuted     Mark = "muted"             // the user, the client or the host does not want it
	MarkOff       Mark = "switched off"      // the device gets no notifications
	MarkNobody    Mark = "nobody to tell"    // the account has no device with push
	MarkUnaware   Mark = "not concerned"     // the event was not about this device
	MarkUndecided Mark = "could not be decided"
)

// mood colours a mark.
func (m Mark) mood() string {
	switch m {
	case MarkAlerted, MarkWoken, MarkShown, MarkFetched, MarkTold:
		return "good"
	case MarkWaiting, MarkMuted:
		return "wait"
	case MarkFailed, MarkTooOld, MarkOff, MarkNobody, MarkUndecided:
		return "bad"
	}
	return ""
}

// trouble tells whether it means that somebody was not told who should have been.
func (m Mark) trouble() bool { return m.mood() == "bad" }

// word is what there is to say of a reason or an outcome.
type word struct {
	mark Mark
	// text is the sentence; next what can be done, if anything.
	text, next string
}

const (
	openApp = "It switches notifications on again when the app is opened."
	noneNow = ""
)

// reasonWords has a sentence for every reason. In a text, {device} is the device and {detail} the host's own words, if it gave any.
var reasonWords = map[push.Reason]word{
	push.ReasonNone: {MarkUnaware, "Nothing had to be decided.", noneNow},

	push.ReasonUnacknowledged: {MarkWaiting, "{device} is connected but did not confirm the message, so it is notified.", noneNow},
	push.ReasonConnectionLost: {MarkWaiting, "The connection of {device} broke before it confirmed the message, so it is notified.", noneNow},
	push.ReasonQueued:         {MarkWaiting, "{device} is asleep: the message is kept for it, and it is notified.", noneNow},
	push.ReasonNoSession:      {MarkWaiting, "{device} is not connected, so it is notified.", noneNow},
	push.ReasonOffline:        {MarkWaiting, "No device was connected to take the message, so {device} is notified.", noneNow},
	push.ReasonGroupchat:      {MarkWaiting, "The room sent the message to the account because no device has joined it, so {device} is notified.", noneNow},
	push.ReasonCall:           {MarkWaiting, "A call: {device} is notified at once, connected or not.", noneNow},
	push.ReasonPing:           {MarkWaiting, "Somebody asked for {device} to be woken.", noneNow},
	push.ReasonWake:           {MarkWaiting, "{device} has been asleep for so long that the server would soon forget it, so it is woken.", noneNow},

	push.ReasonAway:      {MarkWaiting, "The user is away from every device that is connected, and {device} asked to be notified then.", noneNow},
	push.ReasonCallEnded: {MarkWaiting, "The call is over or was taken on another device: {device} is told, quietly, so that it stops ringing.", noneNow},

	push.ReasonNoRegistration: {MarkNobody, "Nobody was told: no device of this account had notifications switched on.", "Ask the user to open the app and to look whether notifications are on in its settings."},
	push.ReasonUnbound:        {MarkUnaware, "The connection that this happened on has no notifications switched on.", noneNow},
	push.ReasonOtherSession:   {MarkUnaware, "This was about another device's connection.", noneNow},
	push.ReasonNothing:        {MarkUnaware, "The connection broke with nothing left to confirm: there was nothing to tell {device}.", noneNow},
	push.ReasonLive:           {MarkShown, "{device} is connected: it gets the message on its own connection and needs no notification.", "If nothing showed on it, the app decided so, or the phone had stopped it: look at what follows for a notification a little later."},
	push.ReasonHibernated:     {MarkWaiting, "{device} is asleep: the message is kept for it, which notifies it separately.", noneNow},
	push.ReasonOwn:            {MarkMuted, "The user sent this message, so no device is notified of it.", noneNow},
	push.ReasonNotNamed:       {MarkUnaware, "The wake-up was meant for another device.", noneNow},
	push.ReasonSeen:           {MarkTold, "{device} was notified of this message already; it is never notified twice.", noneNow},
	push.ReasonDisabled:       {MarkOff, "{device} gets no notifications: its push service had refused them for too long, or for good.", openApp},
	push.ReasonHeld:           {MarkMuted, "{device} is connected and in the background, and its app asked the server to hold such messages back until it is used again.", noneNow},
	push.ReasonPlain:          {MarkMuted, "This server notifies nobody of silent updates such as typing notices and receipts.", noneNow},
	push.ReasonVeto:           {MarkMuted, "The server's own settings say no for {device}{detail}.", "Look at the user's settings for this chat on the server."},
	push.ReasonResumed:        {MarkFetched, "{device} came back by itself and has the message, so what waited for it was taken back.", noneNow},
	push.ReasonUnknownSession: {MarkUndecided, "This was about a connection that is not known here: it had ended, or began before the server was started.", noneNow},
	push.ReasonStore:          {MarkUndecided, "The devices of this account could not be read from the database, so nobody could be told.", "Look at the server's log and its database."},
	push.ReasonDeferred:       {MarkUndecided, "The devices of this account cannot be read from the database yet; who is told is decided when they can.", "Look at the server's log and its database."},

	push.ReasonCallOver:      {MarkUnaware, "The call was over before {device} could be told of it.", noneNow},
	push.ReasonNotRung:       {MarkUnaware, "The call is over, and {device} had not been told of it or was told already that it is over.", noneNow},
	push.ReasonHistory:       {MarkMuted, "The message is an old one that was sent again, such as a room's history, so no device is notified of it.", noneNow},
	push.ReasonNoStore:       {MarkMuted, "The sender wants the message kept nowhere, so {device} could not fetch it and is not woken.", noneNow},
	push.ReasonReflection:    {MarkMuted, "The user wrote this message; the room sends it back to everybody.", noneNow},
	push.ReasonMuted:         {MarkMuted, "The user muted this chat, or the room that the invitation is to, on {device}.", "The user can change that in the app."},
	push.ReasonNotContact:    {MarkMuted, "The sender, or who invites, is no contact, and {device} asked for contacts only.", "The user can change that in the app, or add the contact."},
	push.ReasonRoomNever:     {MarkMuted, "The user switched this room off on {device}.", "The user can change that in the app."},
	push.ReasonRoomNotListed: {MarkMuted, "{device} chose the rooms that it wants to hear of, and this is none of them.", "The user can change that in the app."},
	push.ReasonNotMentioned:  {MarkMuted, "The room is to notify only of what mentions the user, and this does not.", "The user can change that in the room's settings."},
	push.ReasonNoMatch:       {MarkMuted, "The app of {device} asked to hear of other messages only.", "Look at what the app is set to notify of."},
	push.ReasonChatNever:     {MarkMuted, "The user set this chat to never notify.", "The user can change that in the chat's settings."},
	push.ReasonNoCalls:       {MarkMuted, "{device} did not ask to be told of calls, and this server tells only those that did.", noneNow},

	push.ReasonTooOld:         {MarkTooOld, "{device} was not told: the notification could not be delivered for so long that it was given up.", "Look at the push service: whether it answers, and since when it did not."},
	push.ReasonRejected:       {MarkFailed, "The push service refused the notification for {device}.", noneNow},
	push.ReasonRemoved:        {MarkOff, "{device} is no longer known for this account.", openApp},
	push.ReasonEnabled:        {MarkUnaware, "{device} switched notifications on.", noneNow},
	push.ReasonReplaced:       {MarkUnaware, "{device} switched notifications on again, as apps do on every connect.", noneNow},
	push.ReasonReenabled:      {MarkUnaware, "{device} switched notifications on again after they had been given up.", noneNow},
	push.ReasonClientID:       {MarkUnaware, "{device} was recognised when it connected.", noneNow},
	push.ReasonDisabledByUser: {MarkOff, "{device} switched notifications off.", "Apps do so when the user logs out or turns notifications off in the app."},
	push.ReasonLimit:          {MarkOff, "{device} was dropped because the account has too many devices: it had switched notifications on longest ago.", openApp},
	push.ReasonRevoked:        {MarkOff, "The push service took the permission to notify {device} back.", openApp},
	push.ReasonAccount:        {MarkOff, "The account was deleted.", noneNow},
	push.ReasonErrors:         {MarkOff, "The push service would not take notifications for {device}{detail}, so they were given up.", openApp},
	push.ReasonRecovered:      {MarkUnaware, "The push service takes notifications for {device} again.", noneNow},
	push.ReasonAsleep:         {MarkUnaware, "{device} fell asleep; the server keeps its place for longer, since it can be woken.", noneNow},
	push.ReasonWoken:          {MarkUnaware, "{device} was told of something its user should see, so the server keeps its place for the usual time only.", noneNow},
	push.ReasonClosed:         {MarkTooOld, "The server was stopped before {device} could be told.", "It is tried again after the start if the server keeps what waits."},
	push.ReasonAcknowledged:   {MarkFetched, "{device} confirmed the message after all, so it needs no notification.", noneNow},
	push.ReasonNewerSession:   {MarkUnaware, "{device} has connected anew; its old connection no longer counts.", noneNow},
	push.ReasonNewerEnded:     {MarkUnaware, "The newer connection of {device} has ended, so the older one counts again.", noneNow},
	push.ReasonRestored:       {MarkUnaware, "The server knew {device} again after its restart.", noneNow},
	push.ReasonOperator:       {MarkUnaware, "Notifications for {device} were switched on without a connection, by an operator or another program.", noneNow},
	push.ReasonElsewhere:      {MarkUnaware, "Another machine of this server changed {device}.", noneNow},
	push.ReasonRead:           {MarkFetched, "The user read it on another device before {device} was told.", noneNow},
	push.ReasonRetracted:      {MarkMuted, "The sender or the room took the message back before {device} was told.", noneNow},
	push.ReasonUnknownStanza:  {MarkUnaware, "The user read a chat of which nothing had been told.", noneNow},

	push.ReasonTooManySessions: {MarkUnaware, "The account had more connections than anybody needs, so an old one that has no notifications counts as ended.", "The server does not say when connections end: look at what it does when one is closed or replaced."},
}

// outcomeWords has a sentence for every outcome of a notification that was sent.
var outcomeWords = map[push.Outcome]word{
	push.OutcomeAccepted:  {MarkAlerted, "The push service accepted the notification for {device}.", "Whether the phone showed it is not known here: the push service, the phone's maker and the app come after."},
	push.OutcomeTransient: {MarkWaiting, "The push service could not take the notification for {device} just then{detail}; it is tried again.", noneNow},
	push.OutcomeFatal:     {MarkFailed, "The push service says that {device} is gone{detail}.", openApp},
	push.OutcomeRefused:   {MarkFailed, "The push service refused the notification for {device}{detail}.", "If it refuses everybody, this server may have lost its permission there."},
	push.OutcomeFailed:    {MarkFailed, "The push service answered the notification for {device} with an error{detail}.", "If this goes on for one device only, its app has to be opened; if for all, it is the push service."},
	push.OutcomeTooBig:    {MarkWaiting, "The notification for {device} was too long for the push service; it is sent again without its text.", noneNow},
	push.OutcomeDropped:   {MarkMuted, "The server's own settings stopped the notification for {device}{detail}.", noneNow},
}

func wordOf(r push.Reason) word {
	if w, ok := reasonWords[r]; ok {
		return w
	}
	return word{MarkUnaware, capital(r.Sentence()) + ".", noneNow}
}

// transientText is the sentence for what is tried again: not every such error is the push service's.
func transientText(condition string) string {
	switch {
	case condition == noAnswer:
		return "The push service did not answer the notification for {device}; it is tried again."
	case unreached(condition):
		return "This server itself could not reach the push service with the notification for {device}{detail}; it is tried again."
	}
	return outcomeWords[push.OutcomeTransient].text
}

// unreached tells whether an error is what a server says of another that it cannot reach.
func unreached(condition string) bool {
	return condition == "remote-server-not-found" || condition == "remote-server-timeout"
}

func outcomeWord(o push.Outcome) word {
	if w, ok := outcomeWords[o]; ok {
		return w
	}
	return word{MarkFailed, "The push service answered: " + o.String() + ".", noneNow}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// piece is a part of a sentence: text of ours, text of others, or a time, which the viewer's zone has a say in.
type piece struct {
	Text string
	Name string
	At   time.Time
}

// sentence is written piece by piece.
type sentence []piece

func (s *sentence) say(text string)   { *s = append(*s, piece{Text: text}) }
func (s *sentence) name(text string)  { *s = append(*s, piece{Name: text}) }
func (s *sentence) when(at time.Time) { *s = append(*s, piece{At: at}) }
func (s sentence) MarshalJSON() ([]byte, error) {
	return json.Marshal(s.String())
}

// String is the sentence as text, with its times in UTC.
func (s sentence) String() string {
	var b strings.Builder
	for _, p := range s {
		switch {
		case !p.At.IsZero():
			b.WriteString(p.At.UTC().Format("15:04:05 UTC"))
		case p.Name != "":
			b.WriteString(p.Name)
		default:
			b.WriteString(p.Text)
		}
	}
	return b.String()
}

// fill makes a sentence of a text with its places.
func fill(text, device, detail string) (s sentence) {
	for text != "" {
		i := strings.IndexByte(text, '{')
		if i < 0 {
			s.say(text)
			return s
		}
		if i > 0 {
			s.say(text[:i])
		}
		end := i + strings.IndexByte(text[i:], '}') + 1
		switch text[i:end] {
		case "{device}":
			s.name(device)
		case "{detail}":
			if detail != "" {
				s.say(" (")
				s.name(detail)
				s.say(")")
			}
		}
		text = text[end:]
	}
	return s
}
