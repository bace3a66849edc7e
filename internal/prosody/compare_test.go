package prosody

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// The ways in which this library may differ from mod_cloud_notify. Each
// difference that a comparison finds is of exactly one kind, or it is a bug.
const (
	// R11: Prosody marks the element that it pushed for, and a copy of the
	// element has no mark. So it pushes again; this library does not.
	duplicate = "R11 Prosody notifies once more"
	// The mark of Prosody's stays on the element when the registration is
	// removed. What is enabled after that is a new registration here, which was
	// notified of nothing.
	anew = "R11 removed and enabled again since"
	// R5: a notification waits for its batch, and the session is resumed.
	// Here it is dropped. Prosody stops the timer, but keeps the batch for the
	// next time, and pushes at once what was in the hibernated queue.
	resumed = "R5 dropped on resumption"
	// R6: Prosody waits for the offline event where no session is online.
	noSession = "R6 no session at all"
	// R12: Prosody goes on publishing through a session whose registration is
	// gone, and takes the registration, once it is back, for that session's.
	notEnabled = "R12 not enabled"
	// R1: of two sessions of one device the newer one has the registration. Prosody leaves it to both.
	newer = "R1 newer session of the device"
	// R14: Prosody stores the client ID, but does nothing with it.
	client = "R14 bound by the client's ID"
	// The device has enabled another registration of the same service since, by the client's ID, and its session has that one.
	moved = "R14 the device has another registration now"
	// Prosody calls a stanza urgent although it is a headline, and does not
	// look for a call inside a carbon.
	headlineCall = "call in a headline"
	carbonCall   = "call in a carbon"
	// Prosody knows two of the namespaces of OMEMO, and does not tell a
	// message from a key transport.
	omemoNamespace = "OMEMO namespace"
	omemoKey       = "OMEMO key transport"
	// What a message means: Prosody looks for a body and nothing else, and
	// knows neither invitations nor files nor subscription requests.
	quiet   = "content: quiet here (error, correction, retraction, moderation, reaction, fallback body)"
	alerted = "content: important here (invitation, file, subscription request, a room's message with subject and body)"
	// What became of it since: the user has read it on another device (a copy
	// of a sent message says so), it was retracted, the call is over. Prosody
	// notifies all the same, and does not tell those that rang.
	since   = "content: taken back since (read, retracted, call over)"
	callEnd = "content: the end of a call is for those that it was announced to, and a call that is over rings nowhere"
	asked   = "content: a subscription request notifies once for each contact"
	again   = "content: a call notifies once, whatever copy announces it"
	// Prosody publishes once for each class of a batch.
	oneOfBatch = "one publish a batch"

	// Here an important stanza goes at once, but with a second between two publishes. So what Prosody holds back may be sent before it is
	// dropped, and the other way round.
	interval = "a second between two publishes"

	// What follows is not in the design's list.

	// A batch of a session waits, and the session is over. Prosody forgets the
	// batch.
	closed = "session closed while waiting"
	// A batch of a session waits, and the session enables another
	// registration. Prosody publishes to that one.
	rebound = "registration changed while waiting"
	// The services' errors: Prosody counts all but "wait" alike. Section 7 does
	// not. This is only for recordings.
	outcome = "section 7 disabled it"
)

// prosodyLine is a line of driver.lua.
type prosodyLine struct {
	At        int64  `json:"at"`
	Event     int    `json:"event"`
	User      string `json:"user"`
	Service   string `json:"service"`
	Node      string `json:"node"`
	Important bool   `json:"important"`
	Stanza    string `json:"stanza"`
	Class     string `json:"class"`
	Covered   []struct {
		Stanza string `json:"stanza"`
		Event  int    `json:"event"`
	} `json:"covered"`
	Session   string `json:"session"`
	Resumable int    `json:"resumable"`
}

// ours is what the comparison needs of our replay.
type ours struct {
	decisions []decision // to notify
	publishes []publish
	drops     []withdrawal
}

// withdrawal is something that waited for a registration, and was taken back
// because of what the user, the sender or the caller did since.
type withdrawal struct {
	at int64
	address
}

// decision is one to notify a registration of stanzas; a ping has none.
type decision struct {
	event int
	address
	class   string
	stanzas []string
}

// publish is what went out, because of these events.
type publish struct {
	at int64
	address
	class  string
	events []int
}

// address is a registration of an account.
type address struct{ user, service, node string }

// notice is a stanza that a registration is notified of. A ping has no stanza.
type notice struct {
	address
	stanza string
}

// stanzaOf is a stanza of an account: IDs are unique in the account only.
type stanzaOf struct{ user, id string }

func (n notice) of() stanzaOf { return stanzaOf{n.user, n.stanza} }

// at is a notice by the event that caused it.
type at struct {
	event int
	notice
}

// difference is a disagreement that none of the reasons above explains.
type difference struct {
	event  int
	notice notice
	text   string
}

func (d *difference) Error() string {
	return fmt.Sprintf("event %d, %s at %s %q, stanza %q: %s", d.event, d.notice.user, d.notice.service, d.notice.node, d.notice.stanza, d.text)
}

// kind is what stays the same when the rest of the trace changes.
func (d *difference) kind() string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, d.text)
}

// comparison is one trace with what both sides made of it.
type comparison struct {
	events  []line // the event lines: number n is events[n-1]
	xml     map[stanzaOf]string
	calls   map[string][]callEvent // by account
	replies bool                   // the trace has the services' replies
	atOnce  bool                   // our policy is the default: an important stanza goes at once, and two publishes have a second between them

	prosody   map[int]map[notice]int64 // by event: until when Prosody published it last
	classes   map[stanzaOf]string      // Prosody's
	batches   []prosodyLine            // Prosody's publishes
	decided   map[int]map[address]*decision
	published map[at]int64 // when
	drops     []withdrawal
	publishes []publish

	// By session and by registration, the events that ended or changed it.
	resumptions, closings map[string][]int
	enabling              map[string][]enabled
	removals              map[address][]int
	losses                map[loss][]int  // to a newer session
	moved                 map[notice]bool // not notified, because the device is in a session with a newer one
	failed                map[address]int // event at which a service's error was first

	counts map[string]int
	agreed int
}

type enabled struct {
	event int
	address
}

// loss is a session and the registration that it had.
type loss struct {
	session string
	address
}

// compare plays both sides against each other, and returns the first
// difference that has no reason.
func compare(trace, prosody []byte, ours *ours, atOnce bool) (*comparison, error) {
	c := &comparison{
		atOnce:    atOnce,
		calls:     map[string][]callEvent{},
		xml:       map[stanzaOf]string{},
		prosody:   map[int]map[notice]int64{},
		classes:   map[stanzaOf]string{},
		decided:   map[int]map[address]*decision{},
		published: map[at]int64{},

		resumptions: map[string][]int{},
		closings:    map[string][]int{},
		enabling:    map[string][]enabled{},
		removals:    map[address][]int{},
		losses:      map[loss][]int{},
		moved:       map[notice]bool{},
		failed:      map[address]int{},

		counts: map[string]int{},
	}
	if err := c.readTrace(trace); err != nil {
		return nil, err
	}
	if err := c.readProsody(prosody); err != nil {
		return nil, err
	}
	if err := c.readOurs(ours); err != nil {
		return nil, err
	}
	return c, c.run()
}

func eachLine(b []byte, f func([]byte) error) error {
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<22)
	for s.Scan() {
		if err := f(s.Bytes()); err != nil {
			return fmt.Errorf("%w in %s", err, s.Bytes())
		}
	}
	return s.Err()
}

func (c *comparison) readTrace(trace []byte) error {
	users, newest := map[string]string{}, map[string]string{}
	return eachLine(trace, func(b []byte) error {
		if isObserved(b) {
			return nil
		}
		var l line
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		switch l.Type {
		case "config":
			c.replies = bytes.Contains(b, []byte(`"replies":"trace"`))
			return nil
		case "publish-result":
			return nil
		case "publish-error":
			a := address{l.User, l.Service, l.Node}
			if _, ok := c.failed[a]; !ok && l.ErrorType != "wait" {
				c.failed[a] = len(c.events)
			}
			return nil
		}
		if l.Type == "session-open" {
			users[l.Session], _, _ = strings.Cut(l.JID, "/")
		}
		user := cmp.Or(l.User, users[l.Session])
		for _, s := range l.stanzas() {
			if s.XML != "" {
				newest[s.ID] = s.XML
				c.xml[stanzaOf{user, s.ID}] = s.XML
			} else if k := (stanzaOf{user, s.ID}); c.xml[k] == "" {
				c.xml[k] = newest[s.ID]
			}
		}
		c.events = append(c.events, l)
		for _, s := range l.stanzas() {
			xml := c.xml[stanzaOf{user, s.ID}]
			if end := isCallEnd(xml); end && !s.Held || rings(xml) {
				c.calls[user] = append(c.calls[user], callEvent{len(c.events), s.ID, callID(xml), caller(user, xml), end})
			}
		}
		return nil
	})
}

// isObserved tells whether a line is what the recorded server pushed. Its
// stanza is an ID only.
func isObserved(b []byte) bool { return bytes.Contains(b, []byte(`"type":"observed-push"`)) }

func (l *line) stanzas() []stanza {
	if l.Stanza != nil {
		return []stanza{*l.Stanza}
	}
	return l.Queue
}

func (c *comparison) readProsody(out []byte) error {
	return eachLine(out, func(b []byte) error {
		var l prosodyLine
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		switch {
		case l.Resumable != 0:
			return nil
		case l.Class != "":
			c.classes[stanzaOf{l.User, l.Stanza}] = l.Class
			return nil
		}
		c.batches = append(c.batches, l)
		a := address{l.User, l.Service, l.Node}
		if l.Stanza == "" {
			c.prosodyNotified(l.Event, notice{address: a}, l.At)
		}
		for _, s := range l.Covered {
			c.prosodyNotified(s.Event, notice{a, s.Stanza}, l.At)
		}
		return nil
	})
}

func (c *comparison) prosodyNotified(event int, n notice, at int64) {
	if c.prosody[event] == nil {
		c.prosody[event] = map[notice]int64{}
	}
	c.prosody[event][n] = at
}

func (c *comparison) readOurs(o *ours) error {
	for i := range o.decisions {
		d := &o.decisions[i]
		if len(d.stanzas) == 0 {
			d.stanzas = []string{""}
		}
		if c.decided[d.event] == nil {
			c.decided[d.event] = map[address]*decision{}
		}
		if c.decided[d.event][d.address] != nil {
			return fmt.Errorf("event %d has two decisions for %v", d.event, d.address)
		}
		c.decided[d.event][d.address] = d
	}
	c.publishes, c.drops = o.publishes, o.drops
	for _, p := range o.publishes {
		highest := ""
		for _, event := range p.events {
			d := c.decided[event][p.address]
			if d == nil {
				return fmt.Errorf("no decision for event %d of publish %+v", event, p)
			}
			highest = higher(highest, d.class)
			for _, s := range d.stanzas {
				k := at{event, notice{p.address, s}}
				_, twice := c.published[k]
				c.published[k] = p.at
				if c.replies {
					continue // retries, and times that depend on the service
				}
				if twice {
					return &difference{event, k.notice, "published twice"}
				}
				latest := c.events[event-1].At
				if c.waits(event) {
					latest += window
				}
				if c.atOnce && c.laterThanProsody(event, k.notice, p.at) {
					c.counts[interval]++
				}
				if p.at > latest {
					return &difference{event, k.notice, fmt.Sprintf("published at %d, later than %d", p.at, latest)}
				}
			}
		}
		if p.class != highest && !c.withdrawn(p.address, p.at-window, p.at) {
			return fmt.Errorf("class of publish %+v is not the highest of its decisions, %s", p, highest)
		}
	}
	return nil
}

// laterThanProsody tells whether the interval made us later.
func (c *comparison) laterThanProsody(event int, n notice, at int64) bool {
	theirs, ok := c.prosody[event][n]
	return ok && at > theirs
}

// withdrawn tells whether something was taken back from a registration in a time.
func (c *comparison) withdrawn(a address, from, to int64) bool {
	return slices.ContainsFunc(c.drops, func(d withdrawal) bool { return d.address == a && from <= d.at && d.at <= to })
}

func higher(a, b string) string {
	order := []string{"", "plain", "important", "urgent"}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// bound is a session of the trace, with the registration that it has.
type bound struct {
	user, resource string
	prosody        address // Prosody's session.push_identifier
	ours           address // R1
	byClient       address // R14
	// claim is the one that it has, or would have if no newer session had it, since is when it last made it its own.
	// claimByClient: the claim is by the client's ID, and no enable of the session.
	claim         address
	claimByClient bool
	since         int
	hibernated    bool
}

// have gives the session the registration that it claims.
func (b *bound) have(a address) {
	b.ours, b.byClient = a, address{}
	if b.claimByClient {
		b.ours, b.byClient = address{}, a
	}
}

func (b *bound) has() address {
	if b.ours != (address{}) {
		return b.ours
	}
	return b.byClient
}

// world is what the rules look at, kept while going through the trace.
type world struct {
	sessions map[string]*bound
	enabled  map[string][]address // by account, the oldest first
	clients  map[address]string
	clientOf map[string]string // by session
	claims   int
	lost     []loss // in the last step, to newer sessions
}

// take gives a registration to a session, by its client's ID or otherwise, and takes it from the one that had it.
func (w *world) take(id string, a address, byClient bool) {
	s := w.sessions[id]
	had := s.has()
	for other, o := range w.sessions {
		if o != s && o.user == s.user && o.has() == a {
			o.ours, o.byClient = address{}, address{}
			w.lost = append(w.lost, loss{other, a})
		}
	}
	w.claims++
	s.claim, s.claimByClient, s.since = a, byClient, w.claims
	s.have(a)
	if had != (address{}) && had != a {
		w.pass(s.user, had)
	}
}

// pass gives a registration that its session has left to the newest connected session that had it before.
func (w *world) pass(user string, a address) {
	var heir *bound
	for _, s := range w.sessions {
		if s.user == user && s.has() == (address{}) && s.claim == a && !s.hibernated && (heir == nil || s.since > heir.since) {
			heir = s
		}
	}
	if heir != nil {
		heir.have(a)
	}
}

// moved tells whether the device of a registration has a session with another one of the same service.
func (w *world) moved(a address) bool {
	id := w.clients[a]
	if id == "" {
		return false
	}
	for session, s := range w.sessions {
		if b := s.has(); s.user == a.user && b != (address{}) && b != a && b.service == a.service && w.clientOf[session] == id {
			return true
		}
	}
	return false
}

// remove takes registrations away. Prosody forgets the binding of the session
// that asked for it, this library of all.
func (w *world) remove(a address, by string, all bool) {
	w.enabled[a.user] = slices.DeleteFunc(w.enabled[a.user], func(b address) bool { return a == b })
	for id, s := range w.sessions {
		if s.ours == a {
			s.ours = address{}
		}
		if s.byClient == a {
			s.byClient = address{}
		}
		if s.claim == a {
			s.claim = address{}
		}
		if s.prosody == a && (all || id == by) {
			s.prosody = address{}
		}
	}
	delete(w.clients, a)
}

// maxRegistrations is both sides' default.
const maxRegistrations = 5

// enable is R1, with the limit on registrations. It returns what had to go.
func (w *world) enable(session string, a address) (evicted address) {
	list := slices.DeleteFunc(w.enabled[a.user], func(b address) bool { return a == b })
	w.enabled[a.user] = append(list, a)
	w.sessions[session].prosody = a
	w.take(session, a, false)
	if id := w.clientOf[session]; id != "" {
		w.clients[a] = id
	} else {
		delete(w.clients, a)
	}
	if len(w.enabled[a.user]) > maxRegistrations {
		evicted = w.enabled[a.user][0]
		w.remove(evicted, "", false)
	}
	return evicted
}

// step goes over one event, and returns the registrations that it took away.
func (w *world) step(l line) (removed []address) {
	w.lost = w.lost[:0]
	s := w.sessions[l.Session]
	if s == nil && l.Session != "" && l.Type != "session-open" {
		return nil
	}
	switch l.Type {
	case "session-open":
		user, resource, _ := strings.Cut(l.JID, "/")
		s := &bound{user: user, resource: resource}
		w.sessions[l.Session] = s
		w.clientOf[l.Session] = l.Client
		var mine address
		for _, a := range w.enabled[user] {
			if l.Client != "" && w.clients[a] == l.Client {
				mine = a
			}
		}
		if mine != (address{}) {
			w.take(l.Session, mine, true)
		}
	case "session-close":
		delete(w.sessions, l.Session)
		if a := s.has(); a != (address{}) {
			w.pass(s.user, a)
		}
	case "hibernation-start":
		s.hibernated = true
	case "hibernation-end":
		s.hibernated = false
		if s.has() == (address{}) && s.claim != (address{}) {
			w.take(l.Session, s.claim, s.claimByClient)
		}
	case "push-enable":
		if a := w.enable(l.Session, address{s.user, l.Service, l.Node}); a != (address{}) {
			removed = append(removed, a)
		}
	case "push-disable":
		for _, a := range slices.Clone(w.enabled[s.user]) {
			if a.service == l.Service && (l.Node == "" || a.node == l.Node) {
				w.remove(a, l.Session, false)
				removed = append(removed, a)
			}
		}
	case "affiliation-none":
		if a := (address{l.User, l.Service, l.Node}); slices.Contains(w.enabled[l.User], a) {
			w.remove(a, "", true)
			removed = append(removed, a)
		}
	case "account-removed":
		for _, a := range slices.Clone(w.enabled[l.User]) {
			w.remove(a, "", true)
			removed = append(removed, a)
		}
	}
	return removed
}

func (w *world) any(user string, f func(*bound) bool) bool {
	for _, s := range w.sessions {
		if s.user == user && f(s) {
			return true
		}
	}
	return false
}

// from tells whether a stanza was sent from the session that has a registration.
func (w *world) from(a address, xml string) bool {
	i := strings.LastIndex(xml, " from='"+a.user+"/")
	if i < 0 {
		return false
	}
	resource, _, _ := strings.Cut(xml[i+len(" from='"+a.user+"/"):], "'")
	return w.any(a.user, func(s *bound) bool { return s.resource == resource && s.has() == a })
}

func newWorld() *world {
	return &world{
		sessions: map[string]*bound{},
		enabled:  map[string][]address{},
		clients:  map[address]string{},
		clientOf: map[string]string{},
	}
}

func (c *comparison) run() error {
	// What happens later is needed to say why something that waits is not sent.
	w := newWorld()
	for i, l := range c.events {
		n := i + 1
		for _, a := range w.step(l) {
			c.removals[a] = append(c.removals[a], n)
		}
		for _, lost := range w.lost {
			c.losses[lost] = append(c.losses[lost], n)
		}
		switch s := w.sessions[l.Session]; l.Type {
		case "hibernation-end":
			c.resumptions[l.Session] = append(c.resumptions[l.Session], n)
		case "session-close":
			c.closings[l.Session] = append(c.closings[l.Session], n)
		case "push-enable":
			if s != nil {
				c.enabling[l.Session] = append(c.enabling[l.Session], enabled{n, s.ours})
			}
		}
	}

	w = newWorld()
	earlier := map[notice]int{}    // the last event that we published it for
	dropped := map[notice]string{} // why we did not publish it, although we had decided to or Prosody did
	pushed := map[notice]bool{}    // Prosody did
	for i, l := range c.events {
		n := i + 1
		notices := map[notice]bool{}
		for k := range c.prosody[n] {
			notices[k] = true
		}
		for a, d := range c.decided[n] {
			for _, s := range d.stanzas {
				notices[notice{a, s}] = true
			}
			if err := c.compareClass(n, a, d); err != nil {
				return err
			}
		}
		if c.forWholeAccount(w, l) {
			for _, a := range w.enabled[l.User] {
				notices[notice{a, l.Stanza.ID}] = true
			}
		}
		for _, k := range sorted(notices) {
			_, theirs := c.prosody[n][k]
			decided := c.weDecided(n, k)
			_, sent := c.published[at{n, k}]
			why := ""
			switch {
			case theirs && sent:
				c.agreed++
			case theirs && decided:
				why = c.whyNotSent(n, k)
				dropped[k] = why
			case theirs:
				why = c.whyNotDecided(w, n, k, earlier, dropped)
				if _, ok := dropped[k]; !ok && why != duplicate {
					dropped[k] = why
				}
			case sent:
				why = c.whyOnlyOurs(w, n, k, earlier[k], dropped[k], pushed[k])
			case decided:
				// Neither side published it; both gave it up.
				dropped[k] = c.whyNotSent(n, k)
				if dropped[k] == "" {
					return &difference{n, k, "decided, and never published"}
				}
			}
			pushed[k] = pushed[k] || theirs
			if rule := c.broken(w, n, k, sent, earlier); rule != "" {
				return &difference{n, k, rule}
			}
			if sent {
				if e, again := earlier[k]; again && k.stanza != "" && !c.removedBetween(k.address, e, n) {
					return &difference{n, k, fmt.Sprintf("we published it for event %d already", e)}
				}
				earlier[k] = n
				delete(dropped, k)
			}
			if theirs != sent {
				if why == "" {
					return &difference{n, k, fmt.Sprintf("Prosody notifies: %v; we decide %v, publish %v", theirs, decided, sent)}
				}
				c.counts[why]++
			}
		}
		w.step(l)
	}
	c.countBatches()
	return nil
}

// forWholeAccount tells whether a message to an account without any session was
// archived: R6 then differs from Prosody, and is for all registrations.
func (c *comparison) forWholeAccount(w *world, l line) bool {
	return l.Type == "archive-added" && !l.Stanza.Held && !w.any(l.User, func(*bound) bool { return true }) &&
		strings.Contains(c.xml[stanzaOf{l.User, l.Stanza.ID}], " to='"+l.User)
}

// broken tells which rule we broke where it is one that Prosody does not have:
// there, to agree with Prosody is wrong.
func (c *comparison) broken(w *world, event int, k notice, sent bool, earlier map[notice]int) string {
	l := c.events[event-1]
	switch {
	case c.replies:
		return "" // the services' errors disable registrations too
	case sent && !slices.Contains(w.enabled[k.user], k.address):
		return "R12: notified, and not enabled"
	case !sent && earlier[k] == 0 && c.forWholeAccount(w, l) && !isCallEnd(c.xml[k.of()]) && !c.withdrawn(k.address, l.At, l.At+window):
		return "R6: nobody has a session, and it is not notified"
	case sent && l.Type == "archive-added" && c.classes[k.of()] != "urgent" && !isCallEnd(c.xml[k.of()]) && w.any(k.user, func(s *bound) bool { return s.byClient == k.address }):
		return "R14: notified, and the client is online"
	}
	return ""
}

func sorted(m map[notice]bool) []notice {
	list := make([]notice, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b notice) int {
		return cmp.Or(cmp.Compare(a.user, b.user), cmp.Compare(a.service, b.service), cmp.Compare(a.node, b.node), cmp.Compare(a.stanza, b.stanza))
	})
	return list
}

func (c *comparison) weDecided(event int, k notice) bool {
	d := c.decided[event][k.address]
	return d != nil && slices.Contains(d.stanzas, k.stanza)
}

// window is how long after an event something that waits for its batch is sent
// at the latest, in milliseconds.
const window = 1000

// within returns the first of the events, which are in order, that comes after
// the given one and no later than the batch.
func (c *comparison) within(events []int, after int) (int, bool) {
	for _, e := range events {
		if e > after && c.events[e-1].At <= c.events[after-1].At+window {
			return e, true
		}
	}
	return 0, false
}

func (c *comparison) removedBetween(a address, from, to int) bool {
	for _, e := range c.removals[a] {
		if e > from && e <= to {
			return true
		}
	}
	return false
}

// waits tells whether the event's notifications wait for more.
func (c *comparison) waits(event int) bool {
	t := c.events[event-1].Type
	return c.atOnce || t == "ack-delayed" || t == "stanza-queued"
}

// whyNotSent explains a decision of ours at the event that was not published.
func (c *comparison) whyNotSent(event int, k notice) string {
	if l := c.events[event-1]; c.withdrawn(k.address, l.At, l.At+window) {
		return since
	}
	if !c.waits(event) {
		return ""
	}
	if _, ok := c.within(c.removals[k.address], event); ok {
		return notEnabled
	}
	session := c.events[event-1].Session
	if _, ok := c.within(c.resumptions[session], event); ok {
		return resumed
	}
	if _, ok := c.within(c.losses[loss{session, k.address}], event); ok {
		return newer
	}
	return ""
}

// whyNotDecided explains that Prosody notifies for the event, and we do not.
func (c *comparison) whyNotDecided(w *world, event int, k notice, earlier map[notice]int, dropped map[notice]string) string {
	l := c.events[event-1]
	s := w.sessions[l.Session]
	xml := c.xml[k.of()]
	switch {
	case c.failed[k.address] != 0 && c.failed[k.address] < event:
		return outcome
	case s != nil && c.prosody[event][k] >= l.At && s.prosody != k.address && c.enablesLater(l.Session, event, k):
		return rebound
	case s != nil && s.prosody == k.address && s.claim == k.address && s.has() != k.address:
		return newer
	case s != nil && s.prosody == k.address && s.ours != k.address:
		return notEnabled
	case earlier[k] != 0:
		return duplicate
	case dropped[k] == since: // it is remembered
		return since
	case isCallEnd(xml) && (!c.rung(event, k) || c.withdrawn(k.address, l.At, l.At) || w.from(k.address, xml)): // or it still waited, or the device ended it
		return callEnd
	case rings(xml) && c.over(event, k.user, callID(xml)):
		return callEnd
	case rings(xml) && c.rangBefore(event, k):
		return again
	case isRequest(xml) && c.askedBefore(event, k):
		return asked
	case dropped[k] != "" && c.stillWaited(event, k):
		return dropped[k]
	case l.Type == "archive-added" && isHeadline(xml) && isCall(xml) && w.any(k.user, func(s *bound) bool { return s.ours == k.address }):
		return headlineCall
	case l.Type == "archive-added" && w.any(k.user, func(s *bound) bool { return s.byClient == k.address }):
		return client
	case l.Type == "archive-added" && c.classes[k.of()] != "urgent" && w.moved(k.address):
		c.moved[k] = true
		return moved
	}
	return ""
}

// enablesLater tells whether the session enables the notice's registration
// after the event, and before Prosody publishes.
func (c *comparison) enablesLater(session string, event int, k notice) bool {
	for _, e := range c.enabling[session] {
		if e.event > event && e.address == k.address && c.events[e.event-1].At <= c.prosody[event][k] {
			return true
		}
	}
	return false
}

// stillWaited tells whether a decision before the event, which was dropped in
// the end, was waiting yet.
func (c *comparison) stillWaited(event int, k notice) bool {
	for e := event - 1; e > 0 && c.events[e-1].At >= c.events[event-1].At-window; e-- {
		if !c.weDecided(e, k) {
			continue
		}
		end, ok := c.within(c.removals[k.address], e)
		if !ok {
			end, ok = c.within(c.resumptions[c.events[e-1].Session], e)
		}
		if !ok {
			end, ok = c.within(c.losses[loss{c.events[e-1].Session, k.address}], e)
		}
		return ok && end > event
	}
	return false
}

// whyOnlyOurs explains that we notify for the event, and Prosody does not.
func (c *comparison) whyOnlyOurs(w *world, event int, k notice, earlier int, dropped string, pushed bool) string {
	l := c.events[event-1]
	s := w.sessions[l.Session]
	switch {
	case l.Type == "archive-added" && !w.any(k.user, func(*bound) bool { return true }):
		return noSession
	case isCallEnd(c.xml[k.of()]) && c.announced(event, k):
		return callEnd
	case l.Type == "archive-added" && w.any(k.user, func(s *bound) bool { return s.prosody == k.address && s.claim == k.address && s.has() != k.address }):
		return newer
	case l.Type == "archive-added" && w.any(k.user, func(s *bound) bool { return s.prosody == k.address && s.ours != k.address }):
		return notEnabled
	case l.Type == "archive-added" && isCarbon(c.xml[k.of()]) && isCall(c.xml[k.of()]):
		return carbonCall
	case dropped != "" && pushed:
		return dropped // Prosody notified when we did not
	case pushed && earlier != 0 && k.stanza != "" && c.removedBetween(k.address, earlier, event):
		return anew
	case s != nil && s.byClient == k.address:
		return client
	case pushed && c.moved[k]: // Prosody notified when we did not
		return moved
	case s == nil || !c.waits(event):
		return ""
	}
	if _, ok := c.within(c.closings[l.Session], event); ok {
		return closed
	}
	for _, e := range c.enabling[l.Session] {
		if e.event > event && e.address != k.address && c.events[e.event-1].At <= l.At+window {
			return rebound
		}
	}
	// We had sent it before the other side gave it up.
	when := c.published[at{event, k}]
	if e, ok := c.within(c.removals[k.address], event); ok && when <= c.events[e-1].At {
		return notEnabled
	}
	if e, ok := c.within(c.resumptions[l.Session], event); ok && when <= c.events[e-1].At {
		return resumed
	}
	if e, ok := c.within(c.losses[loss{l.Session, k.address}], event); ok && when <= c.events[e-1].At {
		return newer
	}
	return ""
}

func isRequest(xml string) bool {
	return strings.HasPrefix(xml, "<presence") && strings.Contains(xml, "type='subscribe'")
}

// askedBefore tells whether we decided for an earlier request of the same contact.
func (c *comparison) askedBefore(event int, k notice) bool {
	from := func(xml string) string {
		_, rest, _ := strings.Cut(xml, " from='")
		return rest[:strings.IndexAny(rest, "'/")]
	}
	contact := from(c.xml[k.of()])
	for e := 1; e <= event; e++ {
		d := c.decided[e][k.address]
		if d != nil && slices.ContainsFunc(d.stanzas, func(id string) bool {
			xml := c.xml[stanzaOf{k.user, id}]
			return isRequest(xml) && from(xml) == contact
		}) {
			return true
		}
	}
	return false
}

// callEvent is an event with a call in it, or the end of one.
type callEvent struct {
	event int
	id    string // the stanza's
	call  string // its ID
	chat  string // as caller has it
	end   bool
}

// rung tells whether we notified the registration of the call that the event's stanza ends, and nobody ended it before.
func (c *comparison) rung(event int, k notice) bool {
	xml := c.xml[k.of()]
	return c.announced(event, k) && !c.over(event, k.user, callID(xml))
}

// announced tells whether we notified the registration of the call that the event's stanza ends.
func (c *comparison) announced(event int, k notice) bool {
	xml := c.xml[k.of()]
	return slices.ContainsFunc(c.calls[k.user], func(e callEvent) bool {
		return !e.end && e.event <= event && e.call == callID(xml) && ends(k.user, xml, e.chat) &&
			c.weDecided(e.event, notice{k.address, e.id}) && !c.removedBetween(k.address, e.event, event)
	})
}

// rangBefore tells whether we notified the registration of the call by another stanza.
func (c *comparison) rangBefore(event int, k notice) bool {
	xml := c.xml[k.of()]
	return slices.ContainsFunc(c.calls[k.user], func(e callEvent) bool {
		return !e.end && e.event <= event && e.id != k.stanza && e.call == callID(xml) && e.chat == caller(k.user, xml) &&
			c.weDecided(e.event, notice{k.address, e.id}) && !c.removedBetween(k.address, e.event, event)
	})
}

// over tells whether a call that somebody was notified of was ended before the event.
func (c *comparison) over(event int, user, call string) bool {
	chat := ""
	for _, e := range c.calls[user] {
		switch {
		case e.event >= event:
			return false
		case e.call != call:
		case !e.end && c.anybodyDecided(e):
			chat = e.chat
		case e.end && chat != "" && ends(user, c.xml[stanzaOf{user, e.id}], chat):
			return true
		}
	}
	return false
}

// ends tells whether who sent a stanza ends calls of a caller: the caller does, and the user.
func ends(user, xml, chat string) bool {
	from := caller(user, xml)
	return from == "" || from == chat
}

// callID is the ID of the call that a stanza is about.
func callID(xml string) string {
	_, rest, _ := strings.Cut(xml, "xmlns='urn:xmpp:jingle-message:0' id='")
	id, _, _ := strings.Cut(rest, "'")
	return id
}

func (c *comparison) anybodyDecided(e callEvent) bool {
	for _, d := range c.decided[e.event] {
		if slices.Contains(d.stanzas, e.id) {
			return true
		}
	}
	return false
}

// caller is the bare JID of who sent the message, or the message inside a carbon, and empty if that is the user, who ends any call.
func caller(user, xml string) string {
	i := strings.LastIndex(xml, " from='")
	if i < 0 {
		return ""
	}
	from := xml[i+len(" from='"):]
	if from = from[:strings.IndexAny(from, "'/")]; from == user {
		return ""
	}
	return from
}

func isCallEnd(xml string) bool {
	return strings.Contains(xml, "<retract xmlns='urn:xmpp:jingle-message:0'")
}
func isCall(xml string) bool { return strings.Contains(xml, "<propose") }

// rings tells whether a stanza is a call to the account, for us.
func rings(xml string) bool {
	return isCall(xml) && !isHeadline(xml) && !strings.Contains(xml, "<sent xmlns='urn:xmpp:carbons:2'")
}
func isHeadline(xml string) bool { return strings.Contains(xml, "type='headline'") }
func isCarbon(xml string) bool   { return strings.Contains(xml, "'urn:xmpp:carbons:2'") }

func containsAny(s string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(s, p) })
}

// expectedClass is our class for a stanza, from Prosody's and the differences
// that are meant.
func expectedClass(xml, prosody string) (class, why string) {
	sent := strings.Contains(xml, "<sent xmlns='urn:xmpp:carbons:2'")
	encrypted := strings.Contains(xml, "<encrypted xmlns='")
	switch {
	case strings.Contains(xml, "type='error'"):
		return "plain", quiet
	case sent || isHeadline(xml):
		return prosody, ""
	case strings.HasPrefix(xml, "<presence") && strings.Contains(xml, "type='subscribe'"):
		return "important", alerted
	case isCall(xml) && isCarbon(xml):
		return "urgent", carbonCall
	case containsAny(xml, "'urn:xmpp:message-correct:0'", "'urn:xmpp:message-retract:1'", "'urn:xmpp:reactions:0'"):
		return "plain", quiet
	case strings.Contains(xml, "type='groupchat'") && strings.Contains(xml, "<subject>") && strings.Contains(xml, "<body>"):
		return "important", alerted
	case containsAny(xml, "'jabber:x:conference'", "<invite ", "'urn:xmpp:sfs:0'", "'urn:xmpp:sims:1'"):
		return "important", alerted
	case encrypted && !strings.Contains(xml, "<payload"):
		return "plain", omemoKey
	case encrypted && (strings.Contains(xml, "'urn:xmpp:omemo:1'") || strings.Contains(xml, "'urn:xmpp:omemo:2'")):
		return "important", omemoNamespace
	}
	return prosody, ""
}

// compareClass compares the class of a decision, which is the highest of its
// stanzas'.
func (c *comparison) compareClass(event int, a address, d *decision) error {
	want, reasons := "plain", map[string]bool{}
	for _, id := range d.stanzas {
		if id == "" {
			continue // a ping
		}
		theirs, ok := c.classes[stanzaOf{a.user, id}]
		if !ok {
			return &difference{event, notice{a, id}, "Prosody was not given this stanza"}
		}
		class, why := expectedClass(c.xml[stanzaOf{a.user, id}], theirs)
		want = higher(want, class)
		if class != theirs {
			reasons[why] = true
		}
	}
	if d.class != want {
		return &difference{event, notice{a, d.stanzas[0]}, fmt.Sprintf("class %s, want %s for %q", d.class, want, d.stanzas)}
	}
	for why := range reasons {
		c.counts[why]++
	}
	return nil
}

// countBatches counts where Prosody published twice for what is one batch.
func (c *comparison) countBatches() {
	type batch struct {
		address
		at    int64
		event int
	}
	seen := map[batch]bool{}
	for _, p := range c.batches {
		b := batch{address{p.User, p.Service, p.Node}, p.At, p.Event}
		if seen[b] {
			c.counts[oneOfBatch]++
		}
		seen[b] = true
	}
}
