package trace

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"mellium.im/xmpp/jid"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// MaxLine bounds the length of a line in bytes.
const MaxLine = 16 << 20

// maxAt bounds times, in milliseconds: 278 years from their origin. The library counts nanoseconds.
const maxAt = 1 << 43

// maxSeen bounds how many stanzas are remembered so that later lines can name them by their ID alone.
const maxSeen = 1 << 18

// maxSeenBody bounds what is remembered of their text.
const maxSeenBody = 256

// Error is a line that cannot be used.
type Error struct {
	// Line is its number, from 1.
	Line int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("trace: line %d: %v", e.Line, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Record is one line of a trace.
type Record struct {
	// Line is its number, from 1.
	Line int
	// Number is that of its event: the one that the line has, as the recorded server and its inspector count, else they are counted from 1. It is
	// 0 for a line that is not an event.
	Number uint64
	// At is the line's time in milliseconds.
	At int64
	// Type is the line's type as written.
	Type string
	// Nanos is the rest of the time below a millisecond, which recordings have.
	Nanos int64
	// Exactly one of these is set.
	Config   *Config
	Event    push.Event
	Reply    *Reply
	Observed *Observed
	Account  *push.AccountStatus
	Sent     *Sent
	Dropped  *Dropped
	// Decided is, with an Event, what the recorded server decided. Nil: the trace does not say.
	Decided *Recorded
}

// Time returns the time of the line.
func (r *Record) Time() time.Time { return time.UnixMilli(r.At).Add(time.Duration(r.Nanos)) }

// Config is a config line: a trace may begin with one, and so does each file of a recording.
type Config struct {
	Host string `json:"host"`
	// Replies is "ok" (the default), "trace" or "recorded".
	Replies string `json:"replies"`
	Policy  Policy `json:"policy"`
	// Started is when the recorded Engine was started, in milliseconds. A later line with another one says that the server was started again.
	Started int64 `json:"started"`
}

// Reply is a publish-result or publish-error line: the push service's answer to the newest publish to that service and node
// that has none.
type Reply struct {
	User string
	push.Key
	push.Reply
	// Outcome is the token of what it meant to the recorded server; empty: the trace does not say.
	Outcome string
}

// Observed is what the recorded server pushed.
type Observed struct {
	User string
	push.Key
	Important bool
	Stanza    string
}

// Reader reads a trace line by line. Its memory does not grow with the length of the trace. Not safe for simultaneous use.
type Reader struct {
	in       io.Reader
	r        *bufio.Reader // nil until the first line is read
	line     int
	number   uint64
	last     instant
	begun    bool
	torn     int
	started  int64
	sessions map[string]string // ID to account
	seen     map[seenID]push.Stanza
	latest   map[string]string // ID to the account that it was seen for last
	order    []seenID          // oldest first, from oldest on, as a ring
	oldest   int
}

// seenID is a stanza: its ID is unique in the account only.
type seenID struct{ account, id string }

// instant is the time of a line: milliseconds, and nanoseconds below.
type instant struct{ ms, ns int64 }

func (i instant) before(o instant) bool { return i.ms < o.ms || i.ms == o.ms && i.ns < o.ns }

// NewReader returns a Reader of r, which may be compressed with gzip.
func NewReader(r io.Reader) *Reader {
	return &Reader{
		in: r, last: instant{-1 << 62, 0},
		sessions: make(map[string]string), seen: make(map[seenID]push.Stanza), latest: make(map[string]string),
	}
}

// line is a line as written, all types in one.
type line struct {
	Type      string          `json:"type"`
	At        *int64          `json:"at"`
	Session   string          `json:"session"`
	JID       string          `json:"jid"`
	Client    string          `json:"client"`
	User      string          `json:"user"`
	Service   string          `json:"service"`
	Node      string          `json:"node"`
	Options   json.RawMessage `json:"options"`
	Queue     json.RawMessage `json:"queue"`
	Stanza    json.RawMessage `json:"stanza"`
	Targets   []target        `json:"registrations"`
	Sessions  []sessionState  `json:"sessions"`
	ErrorType string          `json:"error_type"`
	Condition string          `json:"condition"`
	Important bool            `json:"important"`
	Nanos     int64           `json:"ns"`
	Number    uint64          `json:"number"`
	Decided   *[]verdict      `json:"decided"`
	Answers   *answers        `json:"answers"`
	Class     string          `json:"class"`
	Count     int             `json:"count"`
	Unread    int             `json:"unread"`
	Try       int             `json:"try"`
	Events    []uint64        `json:"events"`
	Missing   bool            `json:"missing"`
	Vetoed    string          `json:"vetoed"`
	Outcome   string          `json:"outcome"`
	Wishes    *wishes.Wishes  `json:"wishes"`
	IDs       []string        `json:"ids"`
	Away      bool            `json:"away"`
	Chat      string          `json:"chat"`
	UpTo      string          `json:"up_to"`
	sessionFlags
	Config
}

// target is a registration that a ping names or, with the rest, that an account line describes.
type target struct {
	Service string `json:"service"`
	Node    string `json:"node"`
	registrationState
}

type stanza struct {
	ID   string  `json:"id"`
	XML  *string `json:"xml"`
	Held bool    `json:"held"`
}

// Torn is how many lines were left out because they end in the middle: the last one of a file whose writer was killed, or whose disk was full.
func (r *Reader) Torn() int { return r.torn }

// Next returns the next line that is not empty, or io.EOF. Any other error is an *Error, or one of the underlying reader. A line that ends in
// the middle, as the last one of each file may, is left out; see Torn.
func (r *Reader) Next() (*Record, error) {
	for {
		data, err := r.readLine()
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		if !json.Valid(data) {
			if whole := bytes.LastIndexByte(data, '\n') == len(data)-1; !whole && r.begun {
				r.torn++
				continue
			}
			data = bytes.Clone(data)
			// The next file follows after the torn line of the one before, or right after its last byte.
			if next, _ := r.r.Peek(len(configBegins)); r.begun && string(next) == configBegins {
				r.torn++
				continue
			}
			if i := bytes.LastIndex(data, []byte(configBegins)); i > 0 && json.Valid(data[i:]) {
				r.torn++
				data = data[i:]
			}
		}
		rec, err := r.parse(data)
		if err != nil {
			return nil, &Error{r.line, err}
		}
		return rec, nil
	}
}

// configBegins is how a Recorder's config lines begin.
const configBegins = `{"type":"config"`

// unzip looks whether a trace is compressed, and reads it as it was before.
func unzip(in io.Reader) (*bufio.Reader, error) {
	r := bufio.NewReaderSize(in, 64<<10)
	if magic, _ := r.Peek(2); len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		return r, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("trace: gzip: %w", err)
	}
	return bufio.NewReaderSize(&untilTorn{z}, 64<<10), nil
}

// untilTorn ends where a compressed file ends, even in the middle.
type untilTorn struct{ r io.Reader }

func (u *untilTorn) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (r *Reader) readLine() ([]byte, error) {
	if r.r == nil {
		var err error
		if r.r, err = unzip(r.in); err != nil {
			return nil, err
		}
	}
	r.line++
	data, err := r.r.ReadSlice('\n')
	if err == nil || err == io.EOF && len(data) > 0 {
		return data, nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	long := bytes.Clone(data)
	for errors.Is(err, bufio.ErrBufferFull) {
		data, err = r.r.ReadSlice('\n')
		if long = append(long, data...); len(long) > MaxLine {
			return nil, &Error{r.line, fmt.Errorf("longer than %d bytes", MaxLine)}
		}
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	return long, nil
}

func (r *Reader) parse(data []byte) (*Record, error) {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("not a JSON object of the trace format: %w", err)
	}
	rec := &Record{Line: r.line, Type: l.Type}
	if l.Type == "config" {
		return rec, r.config(rec, &l)
	}
	if l.Type == "" {
		return nil, errors.New("type is missing")
	}
	if l.At == nil {
		return nil, errors.New("at is missing")
	}
	at := instant{*l.At, l.Nanos}
	if at.ns < 0 || at.ns >= int64(time.Millisecond) {
		return nil, fmt.Errorf("ns is %d, not within a millisecond", at.ns)
	}
	if at.before(r.last) {
		return nil, fmt.Errorf("at is %d, earlier than the line before (%d)", *l.At, r.last.ms)
	}
	if *l.At > maxAt || *l.At < -maxAt {
		return nil, fmt.Errorf("at is %d, out of range for milliseconds", *l.At)
	}
	rec.At, rec.Nanos = at.ms, at.ns
	var err error
	switch l.Type {
	case "publish-result", "publish-error":
		rec.Reply, err = r.reply(&l)
	case "observed-push":
		rec.Observed, err = r.observed(&l)
	case "account":
		rec.Account, err = r.account(&l)
	case "publish", "drop":
		err = r.happened(rec, &l)
	default:
		if rec.Event, err = r.event(&l); err == nil {
			rec.Decided, err = recorded(&l)
		}
		r.number++
		rec.Number = cmp.Or(l.Number, r.number)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cut(l.Type), err)
	}
	r.last, r.begun = at, true
	return rec, nil
}

// config reads a config line. One that says that the server was started again begins a new time.
func (r *Reader) config(rec *Record, l *line) error {
	if r.begun && l.Started == 0 {
		return errors.New("config has to be the first line, but in recordings, which say when the server was started")
	}
	if l.Replies != "" && l.Replies != "ok" && l.Replies != "trace" && l.Replies != "recorded" {
		return fmt.Errorf("replies is %q; it can be ok, trace or recorded", cut(l.Replies))
	}
	if r.begun && l.Started != r.started {
		r.last = instant{-1 << 62, 0}
	}
	rec.Config, r.started, r.begun = &l.Config, l.Started, true
	return nil
}

// happened reads what the recorded server sent or gave up.
func (r *Reader) happened(rec *Record, l *line) error {
	user, err := bareJID("user", l.User)
	if err != nil {
		return err
	}
	k, err := key(l)
	if err != nil {
		return err
	}
	if l.Type == "publish" {
		rec.Sent = &Sent{user, k, l.Class, l.Count, max(l.Try, 1), l.Unread, l.Events}
	} else {
		rec.Dropped = &Dropped{user, k, l.Class, l.Count, l.Events}
	}
	return nil
}

func (r *Reader) reply(l *line) (*Reply, error) {
	user, err := bareJID("user", l.User)
	if err != nil {
		return nil, err
	}
	k, err := key(l)
	if err != nil {
		return nil, err
	}
	rep := &Reply{User: user, Key: k, Outcome: l.Outcome}
	switch {
	case l.Type == "publish-result":
		rep.Vetoed = l.Vetoed
	case l.Missing:
		rep.Missing = true
	default:
		rep.Condition, rep.Type = l.Condition, l.ErrorType
		if rep.OK() {
			return nil, errors.New("error_type and condition are missing")
		}
	}
	return rep, nil
}

func (r *Reader) observed(l *line) (*Observed, error) {
	o := &Observed{User: l.User, Key: push.Key{Service: l.Service, Node: l.Node}, Important: l.Important}
	if len(l.Stanza) > 0 && l.Stanza[0] == '"' {
		if err := json.Unmarshal(l.Stanza, &o.Stanza); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (r *Reader) event(l *line) (push.Event, error) {
	switch l.Type {
	case "session-open":
		if l.Session == "" {
			return nil, errors.New("session is missing")
		}
		j, err := jid.Parse(l.JID)
		if err != nil {
			return nil, fmt.Errorf("jid: %w", err)
		}
		id := push.SessionID{Account: j.Bare().String(), ID: l.Session}
		r.sessions[l.Session] = id.Account
		return push.SessionOpen{Session: id, JID: j.String(), Client: l.Client}, nil

	case "session-restored":
		open, err := r.event(&line{Type: "session-open", Session: l.Session, JID: l.JID, Client: l.Client})
		if err != nil {
			return nil, err
		}
		o := open.(push.SessionOpen)
		e := push.SessionRestored{Session: o.Session, JID: o.JID, Client: o.Client, Superseded: l.Superseded, Hibernated: l.Hibernated, Extended: l.Extended}
		if e.IsBound = l.Service != ""; e.IsBound {
			e.Bound, err = key(l)
		}
		return e, err

	case "session-close", "push-enable", "push-disable", "ack-delayed", "acknowledged", "session-active", "session-presence", "hibernation-start", "stanza-queued",
		"hibernation-end":
		return r.sessionEvent(l)

	case "archive-added", "offline", "groupchat", "ping", "displayed", "chat-changed", "affiliation-none", "account-removed":
		return r.accountEvent(l)
	}
	return nil, errors.New("not a type of the trace format")
}

func (r *Reader) sessionEvent(l *line) (push.Event, error) {
	// A recording may start in the middle of a session. If the line does not name its account either, the decision says so.
	s := push.SessionID{Account: r.sessions[l.Session], ID: l.Session}
	if l.User != "" {
		var err error
		if s.Account, err = bareJID("user", l.User); err != nil {
			return nil, err
		}
	}
	if l.Session == "" && (l.User == "" || l.Type != "push-enable" && l.Type != "push-disable") {
		return nil, errors.New("session is missing")
	}
	switch l.Type {
	case "session-close":
		delete(r.sessions, l.Session)
		return push.SessionClose{Session: s}, nil
	case "push-enable":
		k, err := key(l)
		if err != nil {
			return nil, err
		}
		fields, err := options(l.Options)
		if err != nil {
			return nil, fmt.Errorf("options: %w", err)
		}
		return push.PushEnable{Session: s, Key: k, Options: fields, Wishes: l.Wishes}, nil
	case "push-disable":
		if l.Service == "" && strings.HasPrefix(l.Node, push.Push2Node) { // of Push 2.0, whatever the service
			return push.PushDisable{Session: s, Key: push.Key{Node: l.Node}}, nil
		}
		k, err := key(l)
		if err != nil {
			return nil, err
		}
		return push.PushDisable{Session: s, Key: k}, nil
	case "acknowledged":
		return push.Acknowledged{Session: s, IDs: l.IDs}, nil
	case "session-active":
		return push.SessionActive{Session: s}, nil
	case "session-presence":
		return push.SessionPresence{Session: s, Away: l.Away}, nil
	case "ack-delayed", "hibernation-start":
		sts, err := r.queue(s.Account, l.Queue)
		if err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		if l.Type == "ack-delayed" {
			return push.AckDelayed{Session: s, Stanzas: sts}, nil
		}
		return push.HibernationStart{Session: s, Stanzas: sts}, nil
	case "stanza-queued":
		st, err := r.stanza(s.Account, l.Stanza)
		if err != nil {
			return nil, fmt.Errorf("stanza: %w", err)
		}
		return push.StanzaQueued{Session: s, Stanza: st}, nil
	}
	return push.HibernationEnd{Session: s}, nil
}

func (r *Reader) accountEvent(l *line) (push.Event, error) {
	user, err := bareJID("user", l.User)
	if err != nil {
		return nil, err
	}
	switch l.Type {
	case "ping":
		e := push.Ping{Account: user}
		for _, t := range l.Targets {
			e.Registrations = append(e.Registrations, push.Key{Service: t.Service, Node: t.Node})
		}
		if l.Service != "" {
			e.Registrations = append(e.Registrations, push.Key{Service: l.Service, Node: l.Node})
		}
		return e, nil
	case "displayed", "chat-changed":
		chat := ""
		if l.Chat != "" || l.Type == "displayed" {
			if chat, err = bareJID("chat", l.Chat); err != nil {
				return nil, err
			}
			if j := jid.MustParse(l.Chat); l.Type == "displayed" { // or an occupant's
				chat = j.String()
			}
		}
		if l.Type == "chat-changed" {
			return push.ChatChanged{Account: user, Chat: chat}, nil
		}
		return push.Displayed{Account: user, Chat: chat, UpTo: l.UpTo, Session: l.Session}, nil
	case "affiliation-none":
		k, err := key(l)
		if err != nil {
			return nil, err
		}
		return push.AffiliationNone{Account: user, Key: k}, nil
	case "account-removed":
		return push.AccountRemoved{Account: user}, nil
	}
	st, err := r.stanza(user, l.Stanza)
	if err != nil {
		return nil, fmt.Errorf("stanza: %w", err)
	}
	switch l.Type {
	case "archive-added":
		return push.ArchiveAdded{Account: user, Stanza: st}, nil
	case "offline":
		return push.Offline{Account: user, Stanza: st}, nil
	}
	return push.Groupchat{Account: user, Stanza: st}, nil
}

func key(l *line) (push.Key, error) {
	if l.Service == "" {
		return push.Key{}, errors.New("service is missing")
	}
	j, err := jid.Parse(l.Service)
	if err != nil {
		return push.Key{}, fmt.Errorf("service: %w", err)
	}
	return push.Key{Service: j.String(), Node: l.Node}, nil
}

func bareJID(field, s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("%s is missing", field)
	}
	j, err := jid.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	return j.Bare().String(), nil
}

// queue reads an array of stanzas. Some recorders cannot tell an empty array from an empty object, so that one is accepted too.
func (r *Reader) queue(account string, data json.RawMessage) ([]push.Stanza, error) {
	if t := bytes.TrimSpace(data); len(t) == 0 || string(t) == "null" || t[0] == '{' && len(bytes.TrimSpace(t[1:len(t)-1])) == 0 {
		return nil, nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	sts := make([]push.Stanza, 0, len(raw))
	for i, d := range raw {
		st, err := r.stanza(account, d)
		if err != nil {
			return nil, fmt.Errorf("stanza %d: %w", i+1, err)
		}
		sts = append(sts, st)
	}
	return sts, nil
}

func (r *Reader) stanza(account string, data json.RawMessage) (push.Stanza, error) {
	if len(data) == 0 {
		return push.Stanza{}, errors.New("missing")
	}
	var s stanza
	if err := json.Unmarshal(data, &s); err != nil {
		return push.Stanza{}, err
	}
	if s.XML == nil {
		st, ok := r.seen[seenID{account, s.ID}]
		if !ok {
			st, ok = r.seen[seenID{r.latest[s.ID], s.ID}]
		}
		if !ok || s.ID == "" {
			return push.Stanza{}, fmt.Errorf("no xml, and the ID %q was not seen before", cut(s.ID))
		}
		st.Held = s.Held
		return st, nil
	}
	st, err := push.ParseStanza(s.ID, []byte(*s.XML))
	if err != nil {
		return push.Stanza{}, err
	}
	if s.ID != "" {
		r.remember(seenID{account, s.ID}, st)
	}
	st.Held = s.Held
	return st, nil
}

func (r *Reader) remember(k seenID, st push.Stanza) {
	if _, ok := r.seen[k]; ok {
		return
	}
	if n := maxSeenBody; len(st.Body) > n { // a mention of the user is not often so far behind
		for n > 0 && !utf8.RuneStart(st.Body[n]) {
			n--
		}
		st.Body = strings.Clone(st.Body[:n])
	}
	if len(r.order) < maxSeen {
		r.order = append(r.order, k)
	} else {
		old := r.order[r.oldest]
		delete(r.seen, old)
		if r.latest[old.id] == old.account {
			delete(r.latest, old.id)
		}
		r.order[r.oldest] = k
		r.oldest = (r.oldest + 1) % maxSeen
	}
	r.seen[k] = st
	r.latest[k.id] = k.account
}

// options reads an object of field name to value, or to an array of values, in its order.
func options(data json.RawMessage) ([]push.Field, error) {
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	fields := []push.Field{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		f := push.Field{Var: name.(string)}
		var one string
		switch {
		case json.Unmarshal(raw, &one) == nil:
			f.Values = []string{one}
		case json.Unmarshal(raw, &f.Values) == nil:
		default:
			return nil, fmt.Errorf("%s: neither text nor an array of it", cut(f.Var))
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func cut(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
