package trace

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"mellium.im/xmpp/jid"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// How a line is written. What would not be read back is not written at all: a host may hand any text to the Engine as a JID, and one bad line
// would spoil the rest of the file.

// written is a line to be written, all types in one.
type written struct {
	At        int64            `json:"at"`
	Nanos     int64            `json:"ns,omitempty"`
	Type      string           `json:"type"`
	User      string           `json:"user,omitempty"`
	Session   string           `json:"session,omitempty"`
	JID       string           `json:"jid,omitempty"`
	Client    string           `json:"client,omitempty"`
	Service   string           `json:"service,omitempty"`
	Node      string           `json:"node,omitempty"`
	Options   json.RawMessage  `json:"options,omitempty"`
	Queue     *[]writtenStanza `json:"queue,omitempty"`
	Stanza    *writtenStanza   `json:"stanza,omitempty"`
	Targets   []target         `json:"registrations,omitempty"`
	Sessions  []sessionState   `json:"sessions,omitempty"`
	ErrorType string           `json:"error_type,omitempty"`
	Condition string           `json:"condition,omitempty"`
	Missing   bool             `json:"missing,omitempty"`
	Vetoed    string           `json:"vetoed,omitempty"`
	Outcome   string           `json:"outcome,omitempty"`
	Class     string           `json:"class,omitempty"`
	Count     int              `json:"count,omitempty"`
	Unread    int              `json:"unread,omitempty"`
	Try       int              `json:"try,omitempty"`
	Events    []uint64         `json:"events,omitempty"`
	Number    uint64           `json:"number,omitempty"`
	Wishes    *wishes.Wishes   `json:"wishes,omitempty"`
	Decided   *[]verdict       `json:"decided,omitempty"`
	Answers   *answers         `json:"answers,omitempty"`
	IDs       []string         `json:"ids,omitempty"`
	Away      bool             `json:"away,omitempty"`
	Chat      string           `json:"chat,omitempty"`
	UpTo      string           `json:"up_to,omitempty"`
	sessionFlags
}

type writtenStanza struct {
	ID   string `json:"id"`
	XML  string `json:"xml"`
	Held bool   `json:"held,omitempty"`
}

// Writer makes the lines of a trace. A line is valid until the next one is made; it is nil if a Reader could not read it, because an address in
// it is none. Times must not fall. Not safe for simultaneous use.
type Writer struct {
	bodies bool
	buf    bytes.Buffer
	enc    *json.Encoder
}

// NewWriter returns a Writer. Without bodies, the text of messages is replaced by other text of about the same length. Publish options are written
// as they are: give it masked ones.
func NewWriter(bodies bool) *Writer {
	w := &Writer{bodies: bodies}
	w.enc = json.NewEncoder(&w.buf)
	w.enc.SetEscapeHTML(false)
	return w
}

// line returns v as a line. It is valid until the next call.
func (w *Writer) line(v any) []byte {
	w.buf.Reset()
	if err := w.enc.Encode(v); err != nil {
		return nil
	}
	return w.buf.Bytes()
}

// Config makes the first line of a recording, whose sends and replies are in it. started is when the Engine was started, as Observer.Started tells.
func (w *Writer) Config(started time.Time, host string, p push.Policy) []byte {
	return w.line(struct {
		Type    string `json:"type"`
		Host    string `json:"host"`
		Replies string `json:"replies"`
		Started int64  `json:"started"`
		Policy  Policy `json:"policy"`
	}{"config", host, "recorded", max(started.UnixMilli(), 1), Policy(p)})
}

// Event makes the line of an event, with its number and what was decided. d may be nil.
func (w *Writer) Event(at time.Time, number uint64, ev push.Event, d *Recorded) []byte {
	l := written{At: at.UnixMilli(), Nanos: sub(at), Type: ev.Name(), Number: number}
	l.Decided, l.Answers = d.written()
	s := ev.Subject()
	if !readable(s.Account) || strings.Contains(s.Account, "/") {
		return nil
	}
	l.User, l.Session = s.Account, s.ID
	switch e := ev.(type) {
	case push.SessionOpen:
		l.User = ""
		l.JID, l.Client = fullJID(e.JID, s.Account), e.Client
	case push.SessionRestored:
		l.User = ""
		l.JID, l.Client = fullJID(e.JID, s.Account), e.Client
		if e.IsBound {
			l.Service, l.Node = e.Bound.Service, e.Bound.Node
		}
		l.sessionFlags = sessionFlags{e.Superseded, e.Hibernated, e.Extended}
	case push.PushEnable:
		l.Service, l.Node, l.Options, l.Wishes = e.Service, e.Node, fields(e.Options), e.Wishes
	case push.PushDisable:
		l.Service, l.Node = e.Service, e.Node
	case push.AckDelayed:
		l.Queue = w.queue(e.Stanzas)
	case push.Acknowledged:
		for _, id := range e.IDs {
			l.IDs = append(l.IDs, strings.ToValidUTF8(id, "\uFFFD"))
		}
	case push.SessionPresence:
		l.Away = e.Away
	case push.Displayed:
		l.Session, l.Chat, l.UpTo = e.Session, e.Chat, strings.ToValidUTF8(e.UpTo, "\uFFFD")
	case push.ChatChanged:
		l.Chat = e.Chat
	case push.HibernationStart:
		l.Queue = w.queue(e.Stanzas)
	case push.StanzaQueued:
		l.Stanza = w.stanza(&e.Stanza)
	case push.ArchiveAdded:
		l.Stanza = w.stanza(&e.Stanza)
	case push.Offline:
		l.Stanza = w.stanza(&e.Stanza)
	case push.Groupchat:
		l.Stanza = w.stanza(&e.Stanza)
	case push.Ping:
		for _, k := range e.Registrations {
			l.Targets = append(l.Targets, target{Service: k.Service, Node: k.Node})
		}
	case push.AffiliationNone:
		l.Service, l.Node = e.Service, e.Node
	case push.SessionClose, push.SessionActive, push.HibernationEnd, push.AccountRemoved: // the subject says it all
	}
	switch ev.(type) {
	case push.PushEnable, push.PushDisable, push.AffiliationNone:
		if !readable(l.Service) && !(l.Service == "" && strings.HasPrefix(l.Node, push.Push2Node)) {
			return nil
		}
	case push.SessionRestored:
		if l.Session == "" || l.Service != "" && !readable(l.Service) {
			return nil
		}
	case push.Ping, push.ArchiveAdded, push.Offline, push.Groupchat, push.AccountRemoved, push.Displayed, push.ChatChanged:
	default:
		if l.Session == "" {
			return nil
		}
	}
	return w.line(&l)
}

// fullJID returns a session's JID, or its account if that is of no use.
func fullJID(j, account string) string {
	if bare, _, _ := strings.Cut(j, "/"); bare != account || !readable(j) {
		return account
	}
	return j
}

// Sent makes the line of a publish that goes out.
func (w *Writer) Sent(at time.Time, s *Sent) []byte {
	if !readable(s.User) || !readable(s.Service) {
		return nil
	}
	l := written{At: at.UnixMilli(), Nanos: sub(at), Type: "publish", User: s.User, Service: s.Service, Node: s.Node, Class: s.Class, Count: s.Count, Unread: s.Unread, Events: s.Events}
	if s.Try > 1 {
		l.Try = s.Try
	}
	return w.line(&l)
}

// Dropped makes the line of what was given up because it was too old.
func (w *Writer) Dropped(at time.Time, d *Dropped) []byte {
	if !readable(d.User) || !readable(d.Service) {
		return nil
	}
	return w.line(&written{At: at.UnixMilli(), Nanos: sub(at), Type: "drop", User: d.User, Service: d.Service, Node: d.Node, Class: d.Class, Count: d.Count, Events: d.Events})
}

// Reply makes the line of a publish's end, with the token of what it meant, if that is known.
func (w *Writer) Reply(at time.Time, account string, k push.Key, r push.Reply, outcome string) []byte {
	if !readable(account) || !readable(k.Service) {
		return nil
	}
	l := written{At: at.UnixMilli(), Nanos: sub(at), Type: "publish-result", User: account, Service: k.Service, Node: k.Node, Outcome: outcome}
	switch {
	case r.Missing:
		l.Type, l.Missing = "publish-error", true
	case r.Vetoed != "":
		l.Vetoed = r.Vetoed
	case !r.OK():
		l.Type, l.ErrorType, l.Condition = "publish-error", r.Type, r.Condition
	}
	return w.line(&l)
}

// Account makes an account line.
func (w *Writer) Account(at time.Time, st *push.AccountStatus) []byte {
	if !readable(st.Account) {
		return nil
	}
	l := written{At: at.UnixMilli(), Nanos: sub(at), Type: "account", User: st.Account}
	for i := range st.Registrations {
		r := &st.Registrations[i]
		if !readable(r.Service) {
			continue
		}
		h := &r.Health
		l.Targets = append(l.Targets, target{r.Service, r.Node, registrationState{
			Client: r.Client, Enabled: millis(r.Enabled), Errors: h.Errors, Refusals: h.Refusals, Failing: millis(h.Failing),
			Succeeded: millis(h.Succeeded), Disabled: millis(h.Disabled), Cause: h.Cause, Options: fields(r.Options), Wishes: r.Wishes,
		}})
	}
	for i := range st.Sessions {
		s := &st.Sessions[i]
		if s.ID == "" {
			continue
		}
		ss := sessionState{Session: s.ID, Client: s.Client, Resource: strings.ToValidUTF8(s.Resource, "\uFFFD"), Away: s.Away, sessionFlags: sessionFlags{s.Superseded, s.Hibernated, s.Extended}}
		if (s.IsBound || s.Superseded) && readable(s.Bound.Service) {
			ss.Service, ss.Node = s.Bound.Service, &s.Bound.Node
		}
		l.Sessions = append(l.Sessions, ss)
	}
	return w.line(&l)
}

// fields makes the options object.
func fields(fs []push.Field) json.RawMessage {
	if fs == nil {
		return nil
	}
	out := []byte{'{'}
	for i, f := range fs {
		if i > 0 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(f.Var)
		var v []byte
		if len(f.Values) == 1 {
			v, _ = json.Marshal(f.Values[0])
		} else {
			v, _ = json.Marshal(append([]string{}, f.Values...))
		}
		out = append(append(append(out, name...), ':'), v...)
	}
	return append(out, '}')
}

// Mask puts stand-ins in the place of the values of publish options, which are secrets: the same one for the same value, as long as the Mask lives,
// and none that tells anything else of it. A nil Mask only copies. Safe for simultaneous use.
type Mask struct{ seed maphash.Seed }

// NewMask returns a Mask of its own.
func NewMask() *Mask { return &Mask{maphash.MakeSeed()} }

// Fields returns a copy of fs with its values masked.
func (m *Mask) Fields(fs []push.Field) []push.Field {
	out := slices.Clone(fs)
	for i := range out {
		out[i].Values = slices.Clone(out[i].Values)
		for j, v := range out[i].Values {
			if m != nil && v != "" {
				out[i].Values[j] = fmt.Sprintf("~%016x", maphash.String(m.seed, v))
			}
		}
	}
	return out
}

func (w *Writer) queue(sts []push.Stanza) *[]writtenStanza {
	q := make([]writtenStanza, len(sts))
	for i := range sts {
		q[i] = *w.stanza(&sts[i])
	}
	return &q
}

// body returns a body as XML text. Without leave it is text of the same class of length: up to 1, 4, 16, 64, 256, 1024 bytes, or more.
func (w *Writer) body(s string) string {
	if s == "" {
		return ""
	}
	if !w.bodies {
		n := 1
		for n < len(s) && n < 2048 {
			n *= 4
		}
		return strings.Repeat("x", min(n, 2048))
	}
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

// readable tells whether a JID will be read back as it is. Plain lower-case ASCII is quick to tell.
func readable(s string) bool {
	plain := s != "" && len(s) < 256
	for i := 0; plain && i < len(s); i++ {
		c := s[i]
		plain = 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if (c == '@' || c == '.' || c == '/') && i > 0 && i < len(s)-1 {
			p := s[i-1]
			plain = p != '.' && p != '/' && p != '@' && strings.Count(s, "@") < 2 && strings.Count(s, "/") < 2
		}
	}
	if plain && strings.IndexByte(s, '/') >= 0 && strings.IndexByte(s, '@') > strings.IndexByte(s, '/') {
		plain = false
	}
	if plain {
		return true
	}
	j, err := jid.Parse(s)
	return err == nil && j.String() == s
}
