// Package prosody holds the test of this library against Prosody's own
// mod_cloud_notify: random traces, a driver that runs the real Lua module over
// them, and a comparison of who was notified of what.
package prosody

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

// Options says what a random trace is made of. The zero value is a trace of
// 1000 events that has only what Prosody knows too.
type Options struct {
	// Events is the least number of event lines; 0 means 1000.
	Events int
	// Accounts is the number of accounts on the host; 0 means 4.
	Accounts int
	// Gap is the mean time between two things that happen; 0 means 300 ms.
	// Well below a second, batches and retries overlap; far above, nothing does.
	Gap time.Duration
	// Registrations bounds the registrations of an account; 0 means 5, the
	// number from which on the oldest has to go.
	Registrations int

	// Clients has session-open carry a client ID now and then.
	Clients bool
	// Services has services revoke nodes, and accounts deleted.
	Services bool
	// Held has stanzas in queues that CSI holds back.
	Held bool
}

const host = "example.com"

// line is a line of a trace, stanza is a stanza in it.
type line struct {
	At        int64             `json:"at"`
	Type      string            `json:"type"`
	Session   string            `json:"session,omitempty"`
	JID       string            `json:"jid,omitempty"`
	Client    string            `json:"client,omitempty"`
	User      string            `json:"user,omitempty"`
	Service   string            `json:"service,omitempty"`
	Node      string            `json:"node,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Queue     queue             `json:"queue,omitzero"`
	Stanza    *stanza           `json:"stanza,omitempty"`
	ErrorType string            `json:"error_type,omitempty"`
	Condition string            `json:"condition,omitempty"`
}

type stanza struct {
	ID   string `json:"id"`
	XML  string `json:"xml,omitempty"`
	Held bool   `json:"held,omitempty"`
}

// queue is a list of stanzas. Recordings made with Lua write an empty list as {}.
type queue []stanza

func (q *queue) UnmarshalJSON(b []byte) error {
	if string(b) == "{}" {
		*q = queue{}
		return nil
	}
	return json.Unmarshal(b, (*[]stanza)(q))
}

// Generate writes a random trace. The same seed and options give the same
// bytes. Sessions live as a server has them live: opened, hibernated with the
// stanzas that the client has not acknowledged, resumed, expired; every copy of
// a stanza has the same ID, which starts with the kind of the stanza.
func Generate(w io.Writer, seed uint64, o Options) error {
	if o.Events == 0 {
		o.Events = 1000
	}
	if o.Accounts == 0 {
		o.Accounts = 4
	}
	if o.Gap == 0 {
		o.Gap = 300 * time.Millisecond
	}
	if o.Registrations == 0 {
		o.Registrations = 5
	}
	g := &generator{
		Rand:    rand.New(rand.NewPCG(seed, 0x707573686d6f6f64)),
		Options: o,
		w:       bufio.NewWriter(w),
		now:     1000,
		shown:   map[string]bool{}, calls: map[string]string{},
	}
	fmt.Fprintf(g.w, `{"type":"config","host":%q}`+"\n", host)
	for i := range o.Accounts {
		a := newAccount(fmt.Sprintf("user%d", i+1), o.Registrations)
		a.online = float64(i+1) / float64(o.Accounts)
		g.accounts = append(g.accounts, a)
	}
	for g.events < o.Events {
		g.now += int64(g.ExpFloat64() * float64(o.Gap/time.Millisecond))
		g.something()
	}
	return g.w.Flush()
}

type generator struct {
	*rand.Rand
	Options
	w        *bufio.Writer
	now      int64
	events   int
	sessions int
	stanzas  int
	accounts []*account
	shown    map[string]bool   // stanza IDs whose XML is in the trace
	calls    map[string]string // the last call to an account
}

type account struct {
	jid     string
	online  float64 // how readily its devices come online
	devices []*device
	nodes   []registration // all that the account may ever register
}

type registration struct{ service, node string }

type device struct {
	account  *account
	resource string
	client   string
	nodes    []registration // what this device registers
	session  *session
}

type session struct {
	id         string
	device     *device
	hibernated bool
	archives   bool // the client fetches what it missed from the archive
	queue      []stanza
}

func (s *session) jid() string { return s.device.account.jid + "/" + s.device.resource }

// newAccount makes an account of three devices. They have nodes of their own,
// at two services, and one node in common.
func newAccount(name string, registrations int) *account {
	a := &account{jid: name + "@" + host}
	shared := registration{"push.example.net", name + "-shared"}
	pool := []registration{
		shared,
		{"push.example.net", name + "-phone"},
		{"push.example.net", name + "-tablet"},
		{"push.example.org", name + "-phone"},
		{"push.example.org", ""},
		{"push.example.net", name + "-laptop"},
		{"push.example.org", name + "-tablet"},
		{"push.example.org", name + "-laptop"},
	}
	a.nodes = pool[:min(registrations, len(pool))]
	for _, resource := range []string{"phone", "tablet", "laptop"} {
		d := &device{account: a, resource: resource, client: name + "-" + resource}
		for _, n := range a.nodes {
			if n == shared || n.node == "" || strings.HasSuffix(n.node, resource) {
				d.nodes = append(d.nodes, n)
			}
		}
		a.devices = append(a.devices, d)
	}
	return a
}

// something lets one thing happen, which is an event or several.
func (g *generator) something() {
	a := pick(g, g.accounts)
	d := pick(g, a.devices)
	s := d.session
	things := []struct {
		weight float64
		do     func()
	}{
		{30, func() { g.incoming(a) }},
		{8, func() { g.send(d) }},
		{10, func() { g.toSession(d) }},
		{9, func() { g.open(d) }},
		{3, func() { g.enable(s) }},
		{2, func() { g.disable(s) }},
		{6, func() { g.acknowledge(s) }},
		{9, func() { g.ackDelayed(s) }},
		{9, func() { g.hibernate(s) }},
		{6, func() { g.resume(s) }},
		{4, func() { g.close(s) }},
		{4, func() { g.groupchat(a) }},
		{1, func() { g.emit(line{Type: "ping", User: a.jid}) }},
		{0.5, func() { g.revoke(a) }},
		{0.2, func() { g.remove(a) }},
	}
	var sum float64
	for _, t := range things {
		sum += t.weight
	}
	at := g.Float64() * sum
	for _, t := range things {
		if at -= t.weight; at < 0 {
			t.do()
			return
		}
	}
}

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

func (g *generator) chance(p float64) bool { return g.Float64() < p }

func (g *generator) emit(l line) {
	l.At = g.now
	if l.Stanza != nil {
		s := g.maybeWithoutXML(*l.Stanza)
		l.Stanza = &s
	}
	if l.Queue != nil {
		q := make(queue, len(l.Queue))
		for i, s := range l.Queue {
			q[i] = g.maybeWithoutXML(s)
		}
		l.Queue = q
	}
	text, err := encode(l)
	if err != nil {
		panic(err) // a line has nothing that cannot be encoded
	}
	g.w.Write(text) // an error comes back at Flush
	g.events++
	if g.chance(0.3) {
		g.now += g.Int64N(3)
	}
}

// encode returns a line of a trace, with its newline.
func encode(l line) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(l)
	return b.Bytes(), err
}

func (g *generator) maybeWithoutXML(s stanza) stanza {
	if g.shown[s.ID] && g.chance(0.7) {
		s.XML = ""
	}
	g.shown[s.ID] = true
	return s
}

// Sessions.

func (g *generator) open(d *device) {
	if d.session != nil || !g.chance(d.account.online) {
		return
	}
	g.sessions++
	s := &session{id: fmt.Sprintf("s%d", g.sessions), device: d, archives: g.chance(0.5)}
	d.session = s
	l := line{Type: "session-open", Session: s.id, JID: s.jid()}
	if g.Clients && g.chance(0.5) {
		l.Client = d.client
	}
	g.emit(l)
	if g.chance(0.6) {
		g.enable(s)
	}
}

// enable is mostly for the same node, sometimes for another.
func (g *generator) enable(s *session) {
	if s == nil || s.hibernated || len(s.device.nodes) == 0 {
		return
	}
	n := s.device.nodes[0]
	if g.chance(0.6) {
		n = pick(g, s.device.nodes)
	}
	l := line{Type: "push-enable", Session: s.id, Service: n.service, Node: n.node}
	if g.chance(0.5) {
		l.Options = map[string]string{"secret": fmt.Sprint("secret-", g.IntN(100))}
	}
	g.emit(l)
}

// disable is for a node of this device or another, or for a whole service.
func (g *generator) disable(s *session) {
	if s == nil || s.hibernated {
		return
	}
	n := pick(g, s.device.account.nodes)
	if len(s.device.nodes) > 0 && g.chance(0.5) {
		n = pick(g, s.device.nodes)
	}
	if g.chance(0.15) {
		n.node = ""
	}
	g.emit(line{Type: "push-disable", Session: s.id, Service: n.service, Node: n.node})
}

// acknowledge has the client acknowledge the oldest of its stanzas.
func (g *generator) acknowledge(s *session) {
	if s != nil && !s.hibernated && len(s.queue) > 0 {
		s.queue = s.queue[1+g.IntN(len(s.queue)):]
	}
}

func (g *generator) ackDelayed(s *session) {
	if s != nil && !s.hibernated && len(s.queue) > 0 {
		g.emit(line{Type: "ack-delayed", Session: s.id, Queue: s.queue})
	}
}

func (g *generator) hibernate(s *session) {
	if s == nil || s.hibernated {
		return
	}
	s.hibernated = true
	g.emit(line{Type: "hibernation-start", Session: s.id, Queue: append(queue{}, s.queue...)})
}

// resume leaves in the queue what the client has not received.
func (g *generator) resume(s *session) {
	if s == nil || !s.hibernated {
		return
	}
	s.hibernated = false
	g.emit(line{Type: "hibernation-end", Session: s.id})
	if g.chance(0.7) {
		s.queue = nil
	} else {
		g.acknowledge(s)
	}
}

// close ends a session. What is left in the queue of the account's last session
// goes to offline storage, unless the client uses the archive. Prosody does
// that before the session is gone, others after.
func (g *generator) close(s *session) {
	if s == nil {
		return
	}
	d := s.device
	d.session = nil
	end := line{Type: "session-close", Session: s.id}
	last := true
	for _, other := range d.account.devices {
		last = last && other.session == nil
	}
	before := g.chance(0.7)
	if !before {
		g.emitAt(end)
	}
	if last && !s.archives && s.hibernated {
		for _, m := range s.queue {
			if storedOffline(m) {
				g.emitAt(line{Type: "offline", User: d.account.jid, Stanza: &stanza{ID: m.ID, XML: m.XML}})
			}
		}
	}
	if before {
		g.emitAt(end)
	}
}

// emitAt is emit without time passing.
func (g *generator) emitAt(l line) {
	now := g.now
	g.emit(l)
	g.now = now
}

func storedOffline(s stanza) bool {
	return !s.Held && strings.HasPrefix(s.XML, "<message") &&
		!strings.Contains(s.XML, "type='headline'") &&
		!strings.Contains(s.XML, "type='groupchat'") &&
		!strings.Contains(s.XML, "type='error'")
}

func (g *generator) revoke(a *account) {
	if !g.Services {
		return
	}
	n := pick(g, a.nodes)
	g.emit(line{Type: "affiliation-none", User: a.jid, Service: n.service, Node: n.node})
}

// remove deletes an account. Somebody registers the name again, later.
func (g *generator) remove(a *account) {
	if !g.Services {
		return
	}
	for _, d := range a.devices {
		if d.session != nil {
			g.emit(line{Type: "session-close", Session: d.session.id})
			d.session = nil
		}
	}
	g.emit(line{Type: "account-removed", User: a.jid})
}

// Stanzas.

// incoming is a message from a contact.
func (g *generator) incoming(a *account) {
	from := pick(g, []string{"nurse@remote.example/ward", "friar@remote.example/cell", "romeo@remote.example/orchard"})
	g.deliver(a, g.message(from, g.address(a), false))
}

// address is the account's bare JID, or the full JID of one of its devices.
func (g *generator) address(a *account) string {
	if g.chance(0.8) {
		return a.jid
	}
	return a.jid + "/" + pick(g, a.devices).resource
}

// deliver takes a message to the account: into its archive, to its sessions, or
// to offline storage.
func (g *generator) deliver(a *account, m stanza) {
	if archived(m) || g.chance(0.05) {
		g.emit(line{Type: "archive-added", User: a.jid, Stanza: &m})
	}
	delivered := false
	for _, d := range a.devices {
		s := d.session
		if s == nil {
			continue
		}
		switch {
		case !delivered || g.chance(0.5):
			g.queue(s, m)
		case g.chance(0.7):
			g.queue(s, g.carbon("received", s, m))
		}
		delivered = true
	}
	if !delivered && storedOffline(m) && g.chance(0.9) {
		g.emit(line{Type: "offline", User: a.jid, Stanza: &m})
	}
}

// archived tells whether an archive stores the message, which is: not one that
// is of no use later.
func archived(m stanza) bool {
	kind, _, _ := strings.Cut(m.ID, ".")
	switch kind {
	case "chatstate", "receipt", "headline", "headlinecall", "error", "groupchat", "subject":
		return false
	}
	return true
}

// send is a message from one of our sessions, to another account, a contact or
// the account itself. The sender's archive and its other sessions have a copy.
func (g *generator) send(d *device) {
	s := d.session
	if s == nil || s.hibernated {
		return
	}
	a := d.account
	to, local := "nurse@remote.example", (*account)(nil)
	if g.chance(0.5) {
		local = pick(g, g.accounts)
		to = g.address(local)
	}
	m := g.message(s.jid(), to, local == a)
	if local != a && archived(m) {
		g.emit(line{Type: "archive-added", User: a.jid, Stanza: &m})
	}
	for _, other := range a.devices {
		if o := other.session; o != nil && o != s && local != a && g.chance(0.7) {
			g.queue(o, g.carbon("sent", o, m))
		}
	}
	if local != nil {
		g.deliver(local, m)
	}
}

// toSession is a stanza to one session only.
func (g *generator) toSession(d *device) {
	s := d.session
	if s == nil {
		return
	}
	from := pick(g, []string{"nurse@remote.example/ward", s.device.account.jid + "/other", host})
	var m stanza
	switch g.IntN(5) {
	case 0:
		m = g.stanza("presence", `<presence from='%s' to='%s'/>`, from, s.jid())
	case 1:
		m = g.stanza("subscribe", `<presence type='subscribe' from='%s' to='%s'/>`, from, s.jid())
	case 2:
		m = g.stanza("iq", `<iq type='set' id='x' from='%s' to='%s'><query xmlns='jabber:iq:roster'/></iq>`, from, s.jid())
	default:
		m = g.message(from, s.jid(), true)
	}
	g.queue(s, m)
}

// queue is a stanza on its way to a session: the client has to acknowledge it.
func (g *generator) queue(s *session, m stanza) {
	for _, q := range s.queue {
		if q.ID == m.ID {
			return
		}
	}
	if len(s.queue) > 12 && !s.hibernated {
		g.acknowledge(s)
	}
	if g.Held && g.chance(0.15) {
		m.Held = true
	}
	s.queue = append(s.queue, m)
	if len(s.queue) > 40 {
		s.queue = s.queue[20:]
	}
	if s.hibernated {
		g.emit(line{Type: "stanza-queued", Session: s.id, Stanza: &m})
	}
}

// groupchat is a message of a room to the account, whose client is not there.
func (g *generator) groupchat(a *account) {
	const room = "garden@rooms.example/friar"
	m := g.stanza("groupchat", `<message type='groupchat' from='%s' to='%s'><body>Peace, ho!</body></message>`, room, a.jid)
	switch g.IntN(5) {
	case 0:
		m = g.stanza("subject", `<message type='groupchat' from='%s' to='%s'><subject>The garden</subject></message>`, room, a.jid)
	case 1:
		m = g.stanza("groupomemo", `<message type='groupchat' from='%s' to='%s'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>AA==</payload></encrypted></message>`, room, a.jid)
	}
	g.emit(line{Type: "groupchat", User: a.jid, Stanza: &m})
}

func (g *generator) stanza(kind, format string, args ...any) stanza {
	g.stanzas++
	return stanza{ID: fmt.Sprintf("%s.%d", kind, g.stanzas), XML: fmt.Sprintf(format, args...)}
}

// messages are the kinds of message by weight: type attribute and children.
var messages = []struct {
	weight         int
	kind           string
	typ            string
	children       string
	onlyToSessions bool // not for archives: there, it would be about who, not about class
}{
	{weight: 30, kind: "chat", typ: "chat", children: `<body>Good pilgrim, you do wrong your hand too much.</body>`},
	{weight: 4, kind: "normal", children: `<body>Good morrow.</body><subject>Greeting</subject>`},
	{weight: 3, kind: "emptybody", typ: "chat", children: `<body/>`},
	{weight: 8, kind: "chatstate", typ: "chat", children: `<composing xmlns='http://jabber.org/protocol/chatstates'/>`},
	{weight: 5, kind: "receipt", typ: "chat", children: `<received xmlns='urn:xmpp:receipts' id='x'/>`},
	{weight: 4, kind: "marker", typ: "chat", children: `<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>`},
	{weight: 3, kind: "xhtml", typ: "chat", children: `<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>Hey</body></html>`},
	{weight: 8, kind: "omemo", typ: "chat", children: `<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>AA==</key></header><payload>AA==</payload></encrypted>`},
	{weight: 3, kind: "omemokey", typ: "chat", children: `<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>AA==</key></header></encrypted>`},
	{weight: 3, kind: "omemo0", typ: "chat", children: `<encrypted xmlns='urn:xmpp:omemo:0'><header sid='1'/><payload>AA==</payload></encrypted><body>fallback</body>`},
	{weight: 3, kind: "omemo1", typ: "chat", children: `<encrypted xmlns='urn:xmpp:omemo:1'><header sid='1'/><payload>AA==</payload></encrypted>`},
	{weight: 4, kind: "omemo2", typ: "chat", children: `<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/><payload>AA==</payload></encrypted>`},
	{weight: 2, kind: "omemo2key", typ: "chat", children: `<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/></encrypted>`},
	{weight: 2, kind: "ox", typ: "chat", children: `<openpgp xmlns='urn:xmpp:openpgp:0'>AA==</openpgp>`},
	{weight: 2, kind: "pgp", typ: "chat", children: `<x xmlns='jabber:x:encrypted'>AA==</x>`},
	{weight: 3, kind: "headline", typ: "headline", children: `<body>News from Verona</body>`},
	{weight: 1, kind: "headlinecall", typ: "headline", children: `<propose xmlns='urn:xmpp:jingle-message:0' id='c'/>`},
	{weight: 5, kind: "call", typ: "chat", children: `<propose xmlns='urn:xmpp:jingle-message:0' id='c'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/>`},
	{weight: 2, kind: "retract", typ: "chat", children: `<retract xmlns='urn:xmpp:jingle-message:0' id='c'/>`},
	{weight: 3, kind: "correction", typ: "chat", children: `<body>Good pilgrim, you do wrong your hand so much.</body><replace xmlns='urn:xmpp:message-correct:0' id='m1'/>`},
	{weight: 2, kind: "retraction", typ: "chat", children: `<retract xmlns='urn:xmpp:message-retract:1' id='m1'/><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/><body>/me took it back</body>`},
	{weight: 2, kind: "moderation", typ: "groupchat", children: `<retract xmlns='urn:xmpp:message-retract:1' id='m1'><moderated xmlns='urn:xmpp:message-moderate:1'/></retract>`, onlyToSessions: true},
	{weight: 3, kind: "reaction", typ: "chat", children: `<reactions xmlns='urn:xmpp:reactions:0' id='m1'><reaction>🌹</reaction></reactions>`},
	{weight: 2, kind: "reactionbody", typ: "chat", children: `<reactions xmlns='urn:xmpp:reactions:0' id='m1'><reaction>🌹</reaction></reactions><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reactions:0'/><body>🌹</body>`},
	{weight: 2, kind: "invitation", children: `<x xmlns='jabber:x:conference' jid='verona@rooms.example.net'/>`},
	{weight: 2, kind: "mediated", children: `<x xmlns='http://jabber.org/protocol/muc#user'><invite from='nurse@example.net'/></x>`},
	{weight: 2, kind: "file", typ: "chat", children: `<file-sharing xmlns='urn:xmpp:sfs:0'/><store xmlns='urn:xmpp:hints'/>`},
	{weight: 1, kind: "media", typ: "chat", children: `<reference xmlns='urn:xmpp:reference:0' type='data'><media-sharing xmlns='urn:xmpp:sims:1'/></reference>`},
	{weight: 2, kind: "error", typ: "error", children: `<body>So long.</body><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, onlyToSessions: true},
	{weight: 2, kind: "groupchat", typ: "groupchat", children: `<body>Peace, ho!</body>`, onlyToSessions: true},
	{weight: 2, kind: "subject", typ: "groupchat", children: `<subject>The garden</subject><body>The garden</body>`, onlyToSessions: true},
	{weight: 1, kind: "nosubject", typ: "groupchat", children: `<subject/>`, onlyToSessions: true},
}

func (g *generator) message(from, to string, toSession bool) stanza {
	sum := 0
	for _, m := range messages {
		if toSession || !m.onlyToSessions {
			sum += m.weight
		}
	}
	at := g.IntN(sum)
	for _, m := range messages {
		if !toSession && m.onlyToSessions {
			continue
		}
		if at -= m.weight; at < 0 {
			typ := ""
			if m.typ != "" {
				typ = " type='" + m.typ + "'"
			}
			g.stanzas++
			children := m.children
			if strings.Contains(children, "'urn:xmpp:jingle-message:0'") {
				children = strings.Replace(children, "id='c'", "id='"+g.call(m.kind, from, to)+"'", 1)
			}
			return stanza{
				ID:  fmt.Sprintf("%s.%d", m.kind, g.stanzas),
				XML: fmt.Sprintf("<message from='%s' to='%s' id='m%d'%s>%s</message>", from, to, g.stanzas, typ, children),
			}
		}
	}
	panic("unreachable")
}

// call is the ID of a call: a new one, or the last of the account, which an end of it names.
func (g *generator) call(kind, from, to string) string {
	from, _, _ = strings.Cut(from, "/")
	to, _, _ = strings.Cut(to, "/")
	if kind == "retract" {
		return cmp.Or(g.calls[to], g.calls[from], "c")
	}
	g.calls[to] = fmt.Sprintf("c%d", g.stanzas)
	return g.calls[to]
}

// carbon is a copy of a message for another session. It is a stanza of its own.
func (g *generator) carbon(direction string, s *session, m stanza) stanza {
	kind, _, _ := strings.Cut(m.ID, ".")
	a := s.device.account
	inner := strings.Replace(m.XML, "<message ", "<message xmlns='jabber:client' ", 1)
	return g.stanza(direction+"-"+kind,
		`<message from='%s' to='%s' type='chat'><%s xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>%s</forwarded></%s></message>`,
		a.jid, s.jid(), direction, inner, direction)
}
