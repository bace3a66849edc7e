package push_test

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

var update = flag.Bool("update", false, "write what the scenarios of testdata/rules give into them; read the diff before you commit it")

// TestRules runs the scenarios of testdata/rules: stories in which each line says what happens at a time, and the indented lines below
// it what comes of that.
//
//	# Prose.
//	policy Delay=2s                 Fields of Policy.
//	stanza omemo1 <message …        A stanza of one's own. Ready made are, with any number: msg1, a chat message; state1, a chat state;
//	                                call1, an incoming call; room1, a message of a room; sent1, from the account itself; pres1; iq1; sm1.
//	                                anon is a chat message without an ID. msg1/held is held back by client state indication; msg1/told
//	                                comes with what the host knows about its chat.
//	stored n1 errors=2              A registration that the account starts with: client, errors, refusals, succeeded=AGO, disabled=AGO.
//	show replies                    Successful replies too, and what the store is told.
//	0s   open s1 client=c           Events, by time. A registration is NODE or NODE@SERVICE; user=romeo is another account than juliet.
//	0s   enable s1 n1 secret=x      close, disable, delayed, hibernate, queued, resume, archived, offline, groupchat, ping, revoked, removed
//	10s  hibernate s1 msg1 state1   restored s1 n1 client=c hibernated=1 extended=1 superseded=1; acknowledged s1 msg1
//	20s  later                      Nothing but time passes.
//
// The host and the world: answers [SERVICE] REPLY is how publishes are answered from now on, answer n1 REPLY answers the one in flight. REPLY
// is ok, none (not in time), lost (not sent), TYPE/CONDITION, or veto:TEXT. veto n1|msg1 TEXT and elsewhere n1 … hold from now on.
// operator n1 enables without a session; remove, reload, flush, abandon and prune call the Account's methods. Juliet's
// registrations, if "unread" says so, are read by load.
//
// wishes {…} is what clients ask for that enable push from now on. chat JID {…} is what the host knows about a chat, chat JID fails that it cannot say.
// active s1, presence s1 away|here, displayed CHAT [UPTO] [session=s1] and changed [CHAT] are events too.
//
// Events are numbered from 1; publishes and drops name those that they came from.
func TestRules(t *testing.T) {
	files, err := filepath.Glob("testdata/rules/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all strings.Builder
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			got := play(t, string(text))
			assert.Equal(t, got, play(t, string(text)), "a second run gives something else")
			all.WriteString(got)
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			compare(t, strings.Split(string(text), "\n"), strings.Split(got, "\n"))
		})
	}
	if !t.Failed() {
		t.Run("every rule and reason occurs", func(t *testing.T) { occurs(t, all.String()) })
	}
}

// compare reports the first line that is not as it was.
func compare(t *testing.T, want, got []string) {
	for i := range max(len(want), len(got)) {
		line := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(the end)"
		}
		if w, g := line(want), line(got); w != g {
			t.Fatalf("line %d, after\n%s\nwas\n%s\nand is\n%s", i+1, strings.Join(want[max(i-4, 0):min(i, len(want))], "\n"), w, g)
		}
	}
}

// notInStories are the rules and reasons that no event of the pure core answers with.
var notInStories = map[string]string{
	ReasonNone.Sentence():     "the zero Reason is no answer",
	ReasonDeferred.Sentence(): "an Account decides at once; see the Engine's tests",

	ReasonTooManySessions.Sentence(): "a story of so many sessions is long; see TestSessionsThatNeverEnd",
}

// occurs checks that every reason and every rule is in some scenario's output.
func occurs(t *testing.T, all string) {
	var missing []string
	look := func(kind, name, pattern string) {
		if notInStories[name] == "" && !regexp.MustCompile(pattern).MatchString(all) {
			missing = append(missing, kind+" "+name)
		}
	}
	for r := Rule(0); !strings.HasPrefix(r.String(), "rule("); r++ {
		look("rule", r.String(), `(?m)^ .* \| `+regexp.QuoteMeta(r.String())+`: `)
	}
	for r := Reason(0); !strings.HasPrefix(r.String(), "reason("); r++ {
		look("reason", r.Sentence(), `(?m)^ .*(\||:) `+regexp.QuoteMeta(r.Sentence())+`( \(.*\))?$`)
	}
	assert.Empty(t, missing, "no scenario has them")
}

// story is a scenario while it is told.
type story struct {
	t       *testing.T
	sim     *sim
	policy  Policy
	start   time.Time
	out     strings.Builder
	lineAt  time.Time // of the line that is being told
	stored  map[string][]Registration
	users   map[string]string // session to account
	stanzas map[string]string
	answers map[string]string // by service; "" for all others
	vetoes  map[string]string
	away    []Key
	wishes  *wishes.Wishes
	chats   map[string]ChatAnswer
	told    map[string]ChatAnswer // what the host was asked and said
	replies bool
	unread  bool // juliet's registrations
}

// play tells a scenario and returns it with what came of it.
func play(t *testing.T, text string) string {
	s := &story{
		t: t, start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		stored: map[string][]Registration{}, users: map[string]string{}, stanzas: map[string]string{},
		answers: map[string]string{"": "ok"}, vetoes: map[string]string{}, chats: map[string]ChatAnswer{}, told: map[string]ChatAnswer{},
	}
	s.lineAt = s.start
	var before string // comments and the like, which follow what comes of the line above them
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, " ") {
			continue // what came of it when it was told last
		}
		before += line + "\n"
		if line == "" || line[0] == '#' {
			continue
		}
		if err := s.line(line, before); err != nil {
			t.Fatalf("line %d: %s: %v", i+1, line, err)
		}
		if timed(line) {
			before = ""
		}
	}
	return s.out.String() + before
}

// timed reports whether a line says at which time something happens.
func timed(line string) bool { return line[0] >= '0' && line[0] <= '9' }

// line tells one line. Shown is the line with those above it that are not timed.
func (s *story) line(line, shown string) error {
	words := strings.Fields(line)
	if s.sim != nil && (words[0] == "policy" || words[0] == "stored") {
		return fmt.Errorf("too late")
	}
	switch words[0] {
	case "policy":
		return s.setPolicy(words[1:])
	case "stanza":
		s.stanzas[words[1]] = strings.TrimSpace(strings.SplitN(line, words[1], 2)[1])
		return nil
	case "stored":
		return s.store(words[1:])
	case "show":
		s.replies = true
		return nil
	case "unread":
		s.unread = true
		return nil
	}
	switch words[0] {
	case "wishes":
		s.wishes = new(wishes.Wishes)
		return json.Unmarshal([]byte(strings.Join(words[1:], " ")), s.wishes)
	case "chat":
		c := ChatAnswer{Stanza: -1, Chat: words[1], Failed: words[2] == "fails"}
		s.chats[c.Chat] = c
		if c.Failed {
			return nil
		}
		err := json.Unmarshal([]byte(strings.Join(words[2:], " ")), &c.ChatInfo)
		s.chats[c.Chat] = c
		return err
	}
	after, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	if s.sim == nil {
		if err := s.policy.Validate(); err != nil {
			return err
		}
		s.sim = newSim(&s.policy, s.start)
		s.sim.facts = s.facts
		s.sim.chats = s.known
		s.sim.answer = s.answer
		s.sim.before = s.again
		s.sim.decided = s.decided
		s.sim.effects = s.effects
		s.sim.sent = s.sent
		s.sim.replied = s.replied
		for user, rs := range s.stored {
			s.sim.account(user, rs...)
		}
		if s.unread {
			s.sim.account("juliet@example.com").Account = OpenAccount("juliet@example.com", &s.policy)
		}
		slices.SortFunc(s.sim.accounts, func(a, b *simAccount) int { return cmp.Compare(a.name, b.name) })
	}
	at := s.start.Add(after)
	if at.Before(s.lineAt) {
		return fmt.Errorf("earlier than the line before")
	}
	s.sim.advance(at) // what comes of the line before
	s.out.WriteString(shown)
	s.lineAt = at
	return s.happen(words[1], words[2:])
}

// happen lets one thing happen.
func (s *story) happen(verb string, args []string) error {
	args, opts := options(args)
	user := cmp.Or(opts["user"], "juliet") + "@example.com"
	session := func() SessionID { return SessionID{Account: cmp.Or(s.users[args[0]], user), ID: args[0]} }
	var e Effects
	switch verb {
	case "later":
	case "open":
		s.users[args[0]] = user
		s.sim.event(SessionOpen{Session: session(), JID: user + "/" + args[0], Client: opts["client"]})
	case "restored":
		s.users[args[0]] = user
		e := SessionRestored{
			Session: session(), JID: user + "/" + args[0], Client: opts["client"], Superseded: opts["superseded"] != "", Hibernated: opts["hibernated"] != "",
			Extended: opts["extended"] != "",
		}
		if e.IsBound = len(args) > 1; e.IsBound {
			e.Bound = key(args[1])
		}
		s.sim.event(e)
	case "close":
		s.sim.event(SessionClose{session()})
	case "enable":
		s.sim.event(PushEnable{Session: session(), Key: key(args[1]), Options: fields(opts), Wishes: s.wishes})
	case "operator":
		s.sim.event(PushEnable{Session: SessionID{Account: user}, Key: key(args[0]), Options: fields(opts)})
	case "disable":
		s.sim.event(PushDisable{session(), key(args[1])})
	case "delayed":
		id := session()
		s.sim.event(AckDelayed{id, s.parse(id.Account, args[1:])})
	case "acknowledged":
		s.sim.event(Acknowledged{session(), args[1:]})
	case "active":
		s.sim.event(SessionActive{session()})
	case "presence":
		s.sim.event(SessionPresence{session(), args[1] == "away"})
	case "displayed":
		s.sim.event(Displayed{Account: user, Chat: args[0], UpTo: strings.Join(args[1:], " "), Session: opts["session"]})
	case "changed":
		maps.DeleteFunc(s.told, func(chat string, _ ChatAnswer) bool { return len(args) == 0 || chat == args[0] })
		s.sim.event(ChatChanged{user, strings.Join(args, " ")})
	case "hibernate":
		id := session()
		s.sim.event(HibernationStart{id, s.parse(id.Account, args[1:])})
	case "queued":
		id := session()
		s.sim.event(StanzaQueued{id, s.parse(id.Account, args[1:])[0]})
	case "resume":
		s.sim.event(HibernationEnd{session()})
	case "archived":
		s.sim.event(ArchiveAdded{user, s.parse(user, args)[0]})
	case "offline":
		s.sim.event(Offline{user, s.parse(user, args)[0]})
	case "groupchat":
		s.sim.event(Groupchat{user, s.parse(user, args)[0]})
	case "ping":
		s.sim.event(Ping{user, keys(args)})
	case "revoked":
		s.sim.event(AffiliationNone{user, key(args[0])})
	case "removed":
		s.sim.event(AccountRemoved{user})

	case "answers":
		service := ""
		if len(args) > 1 && !strings.Contains(args[0], ":") {
			service, args = args[0], args[1:]
		}
		s.answers[service] = strings.Join(args, " ")
	case "answer":
		i := slices.IndexFunc(s.sim.flights, func(f *flight) bool { return f.a.name == user && f.k == key(args[0]) })
		if i < 0 {
			return fmt.Errorf("no publish is in flight")
		}
		f := s.sim.flights[i]
		f.reply, _ = s.reply(args[1])
		s.sim.end(f)
	case "veto":
		s.vetoes[args[0]] = strings.Join(args[1:], " ")
	case "elsewhere":
		s.away = keys(args)

	case "remove":
		a := s.sim.account(user)
		found := a.Remove(key(args[0]), ReasonRemoved, &e)
		s.effects(a, &e)
		if !found {
			s.print(user, "there is none")
		}
	case "load":
		a := s.sim.account(user)
		a.Load(s.stored[user], s.sim.now, &e)
		s.effects(a, &e)
		s.sim.settle(a)
	case "reload":
		a := s.sim.account(user)
		var rs []Registration
		for _, k := range keys(args) {
			r := Registration{Account: user, Key: k, Enabled: s.sim.now}
			for _, old := range a.Registrations() {
				if old.Key == k {
					r = old
				}
			}
			if opts["disabled"] != "" {
				r.Health.Disabled = s.sim.now
			}
			rs = append(rs, r)
		}
		a.Load(rs, s.sim.now, &e)
		s.effects(a, &e)
	case "flush":
		s.sim.account(user).Flush(s.sim.now)
	case "abandon":
		a := s.sim.account(user)
		a.Abandon(ReasonClosed, &e)
		s.effects(a, &e)
	case "prune":
		idle := "not idle"
		if s.sim.account(user).Prune(s.sim.now) {
			idle = "idle"
		}
		s.print(user, "%s", idle)
	default:
		return fmt.Errorf("what is that?")
	}
	return nil
}

func options(args []string) (rest []string, opts map[string]string) {
	opts = map[string]string{}
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok {
			opts[k] = v
		} else {
			rest = append(rest, a)
		}
	}
	return rest, opts
}

func key(label string) Key {
	node, service, _ := strings.Cut(label, "@")
	return Key{Service: cmp.Or(service, "push.example.net"), Node: node}
}

func keys(labels []string) (ks []Key) {
	for _, l := range labels {
		ks = append(ks, key(l))
	}
	return ks
}

func label(k Key) string {
	if k.Service == "push.example.net" && k.Node != "" {
		return k.Node
	}
	return k.Node + "@" + k.Service
}

func fields(opts map[string]string) (fs []Field) {
	for k, v := range opts {
		if k != "user" {
			fs = append(fs, Field{Var: k, Values: []string{v}})
		}
	}
	slices.SortFunc(fs, func(a, b Field) int { return cmp.Compare(a.Var, b.Var) })
	return fs
}

func (s *story) setPolicy(settings []string) error {
	for _, set := range settings {
		name, value, _ := strings.Cut(set, "=")
		f := reflect.ValueOf(&s.policy).Elem().FieldByName(name)
		switch f.Interface().(type) {
		case time.Duration:
			d, err := time.ParseDuration(value)
			if err != nil {
				return err
			}
			f.SetInt(int64(d))
		case int:
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return err
			}
			f.SetInt(n)
		case bool:
			f.SetBool(value == "true")
		case string:
			f.SetString(value)
		}
	}
	return nil
}

func (s *story) store(args []string) error {
	args, opts := options(args)
	user := cmp.Or(opts["user"], "juliet") + "@example.com"
	ago := func(name string) (t time.Time) {
		if d, err := time.ParseDuration(opts[name]); err == nil {
			t = s.start.Add(-d)
		}
		return t
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(opts[name])
		return n
	}
	s.stored[user] = append(s.stored[user], Registration{
		Account: user, Key: key(args[0]), Client: opts["client"], Enabled: cmp.Or(ago("enabled"), s.start.Add(-24*time.Hour)),
		Health: Health{Errors: number("errors"), Refusals: number("refusals"), Succeeded: ago("succeeded"), Disabled: ago("disabled")},
	})
	return nil
}

var readyMade = map[string]string{
	"msg":   `<message from="romeo@example.net/orchard" to="USER" type="chat"><body>hi</body></message>`,
	"state": `<message from="romeo@example.net/orchard" to="USER" type="chat"><active xmlns="http://jabber.org/protocol/chatstates"/></message>`,
	"call":  `<message from="romeo@example.net/orchard" to="USER"><propose xmlns="urn:xmpp:jingle-message:0" id="STANZA"/></message>`,
	"room":  `<message from="verona@rooms.example.net/romeo" to="USER" type="groupchat"><body>hi</body></message>`,
	"sent":  `<message from="USER/balcony" to="romeo@example.net" type="chat"><body>hi</body></message>`,
	"pres":  `<presence from="romeo@example.net/orchard" to="USER"/>`,
	"iq":    `<iq from="example.com" to="USER/balcony" type="get" id="1"><ping xmlns="urn:xmpp:ping"/></iq>`,
	"sm":    `<r xmlns="urn:xmpp:sm:3"/>`,
	"anon":  `<message from="romeo@example.net/orchard" to="USER" type="chat"><body>hi</body></message>`,
}

func (s *story) parse(user string, names []string) (sts []Stanza) {
	for _, name := range names {
		id, told := strings.CutSuffix(name, "/told")
		id, held := strings.CutSuffix(id, "/held")
		text := cmp.Or(s.stanzas[id], readyMade[strings.TrimRight(id, "0123456789")])
		require.NotEmpty(s.t, text, "unknown stanza %s", name)
		if strings.HasPrefix(id, "anon") {
			id = ""
		}
		text = strings.NewReplacer("USER", user, "STANZA", id).Replace(text)
		st, err := ParseStanza(id, []byte(text))
		require.NoError(s.t, err, name)
		other, err := ReadStanza(id, xml.NewDecoder(bytes.NewReader([]byte(text))))
		require.NoError(s.t, err, name)
		require.Equal(s.t, other, st, name)
		st.Held = held
		if told {
			info := s.chats[st.Chat(user)].ChatInfo
			st.Info = &info
		}
		sts = append(sts, st)
	}
	return sts
}

func (s *story) facts(f *Facts) {
	f.Elsewhere = s.away
	if len(s.vetoes) > 0 {
		f.Veto = func(r *Registration, st Stanza) string { return cmp.Or(s.vetoes[label(r.Key)], s.vetoes[st.ID]) }
	}
}

// known is what the host answers, and notes what it was asked.
func (s *story) known(asked []ChatQuestion) (answers []ChatAnswer) {
	for _, q := range asked {
		c, ok := s.chats[q.Chat]
		if !ok {
			continue
		}
		about := "settings"
		if q.Contact {
			about = "settings and contact"
		}
		s.print("juliet@example.com", "asked about %s: %s", q.Chat, about)
		answers = append(answers, c)
		s.told[q.Chat] = c
	}
	return answers
}

func (s *story) answer(n *Notification) (Reply, time.Duration) {
	return s.reply(cmp.Or(s.answers[n.Service], s.answers[""]))
}

// reply reads the reply and after how long it comes.
func (s *story) reply(text string) (Reply, time.Duration) {
	switch text {
	case "ok":
		return Reply{}, 0
	case "none":
		return Reply{Missing: true}, cmp.Or(s.policy.ReplyTimeout, 30*time.Second)
	case "lost":
		return Reply{Missing: true}, 0
	}
	if why, ok := strings.CutPrefix(text, "veto:"); ok {
		return Reply{Vetoed: why}, 0
	}
	typ, condition, _ := strings.Cut(text, "/")
	return Reply{Type: typ, Condition: condition}, 0
}

// print tells something that came of a line, with its time if that is another than the line's.
func (s *story) print(user string, format string, args ...any) {
	s.out.WriteString("       ")
	if !s.sim.now.Equal(s.lineAt) {
		s.out.WriteString("at " + short(s.sim.now.Sub(s.start)) + " ")
	}
	if user != "juliet@example.com" {
		s.out.WriteString(strings.TrimSuffix(user, "@example.com") + ": ")
	}
	fmt.Fprintf(&s.out, format, args...)
	s.out.WriteString("\n")
}

// short writes a duration without the parts that are zero.
func short(d time.Duration) string {
	text := d.Round(time.Millisecond).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func why(detail string) string {
	if detail == "" {
		return ""
	}
	return " (" + detail + ")"
}

func (s *story) decided(a *simAccount, ev Event, d *Decision) {
	if d.Reason != ReasonNone {
		assert.Empty(s.t, d.Verdicts)
		s.print(a.name, "nobody | %v: %v", RuleNone, d.Reason.Sentence())
	}
	if a, ok := ev.(ArchiveAdded); ok && a.Stanza.Class == ClassUrgent {
		s.print(a.Account, "reached: %d", d.Reached())
	}
	var last Key
	for i, v := range d.Verdicts {
		if i > 0 {
			assert.Negative(s.t, last.Compare(v.Key), "verdicts are in the order of keys")
		}
		last = v.Key
		yes := "no "
		if v.Notify {
			yes = "yes"
		}
		assert.Equal(s.t, v.Notify, v.Reason.Notifies(), "reason of a %s: %v", yes, v.Reason)
		line := fmt.Sprintf("%s %s %v", label(v.Key), yes, v.Class)
		for _, id := range v.Stanzas {
			line += " " + id
		}
		if v.Count != len(v.Stanzas) {
			line += fmt.Sprintf(" (%d)", v.Count)
		}
		s.print(a.name, "%s | %v: %v%s", line, v.Rule, v.Reason.Sentence(), why(v.Detail))
	}
}

func (s *story) effects(a *simAccount, e *Effects) {
	for _, c := range e.Changes {
		s.print(a.name, "%s %s%s | %s%v%s", label(c.Key), c.Kind, whose(c), ofRule(c.Rule), c.Reason.Sentence(), why(c.Detail))
	}
	for _, d := range e.Drops {
		s.print(a.name, "%s dropped %v %d of %s | %v%s", label(d.Key), d.Class, d.Count, events(d.Events), d.Reason.Sentence(), why(d.Detail))
	}
	for _, ad := range e.Advice {
		assert.Equal(s.t, a.name, ad.Session.Account)
		timeout := "the normal time"
		if ad.Timeout != 0 {
			timeout = short(ad.Timeout)
		}
		s.print(a.name, "%s resumable for %s | %v", ad.Session.ID, timeout, ad.Reason.Sentence())
	}
}

// whose says which session got a registration, or did not.
func whose(c Change) string {
	preposition := " for "
	switch {
	case c.Kind == ChangeBound:
		preposition = " to "
	case c.Kind == ChangeUnbound && c.Session == "":
		return " to any session"
	case c.Kind == ChangeUnbound:
		preposition = " from "
	}
	if c.Session == "" {
		return ""
	}
	return preposition + c.Session
}

func ofRule(r Rule) string {
	if r == RuleNone {
		return ""
	}
	return r.String() + ": "
}

func events(list []uint64) string {
	if len(list) == 0 {
		return "no event"
	}
	var words []string
	for _, n := range list {
		words = append(words, strconv.FormatUint(n, 10))
	}
	return strings.Join(words, "+")
}

func (s *story) sent(f *flight) {
	n := &f.n
	assert.Equal(s.t, f.a.name, n.Account)
	line := fmt.Sprintf("publish to %s: %v %d of %s", label(n.Key), n.Class, n.Count, events(n.Events))
	if n.Unread != n.Count {
		line += fmt.Sprintf(", %d unread", n.Unread)
	}
	if n.Try != 1 {
		line += fmt.Sprintf(", try %d", n.Try)
	}
	if n.TellZero && n.Unread == 0 {
		line += ", told to be 0"
	}
	if n.Sender != "" {
		line += ", from " + n.Sender
	}
	if n.Body != "" {
		line += fmt.Sprintf(", %q", n.Body)
	}
	wire := string(n.AppendStanza(nil, "example.com", "id"))
	if m := regexp.MustCompile(`<priority xmlns="tigase:push:priority:0">(.*?)</priority>`).FindStringSubmatch(wire); m != nil {
		line += ", priority " + m[1]
	}
	if strings.Contains(wire, "<encrypted ") {
		assert.NotContains(s.t, wire, "urn:xmpp:push:summary", "beside an encrypted payload")
		line += fmt.Sprintf(", encrypted %s", decrypted(s.t, n.Wishes, wire))
	}
	if strings.Contains(wire, `type="voip"`) {
		line += ", voip"
	}
	for _, f := range n.Options {
		line += fmt.Sprintf(", %s=%s", f.Var, strings.Join(f.Values, ","))
	}
	s.print(n.Account, "%s", line)
}

// decrypted is what the client reads of an encrypted payload.
func decrypted(t *testing.T, w *wishes.Wishes, wire string) []byte {
	m := regexp.MustCompile(`<encrypted [^>]*iv="([^"]*)"[^>]*>([^<]*)<`).FindStringSubmatch(wire)
	require.Len(t, m, 3, wire)
	iv, err := base64.StdEncoding.DecodeString(m[1])
	require.NoError(t, err)
	text, err := base64.StdEncoding.DecodeString(m[2])
	require.NoError(t, err)
	block, err := aes.NewCipher([]byte(w.Encryption.Key.Reveal()))
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	plain, err := aead.Open(nil, iv, text, nil)
	require.NoError(t, err)
	return plain
}

func (s *story) replied(f *flight, res Result) {
	if res.Outcome == OutcomeAccepted && !s.replies {
		return
	}
	line := fmt.Sprintf("reply to %s: %v", label(f.k), res.Outcome)
	if !res.RetryAt.IsZero() {
		line += ", again in " + short(res.RetryAt.Sub(s.sim.now))
	}
	if res.Store {
		line += ", stored:"
		u := res.Update
		if u.Errors != 0 {
			line += fmt.Sprintf(" errors+%d", u.Errors)
		}
		if u.Refusals != 0 {
			line += fmt.Sprintf(" refusals+%d", u.Refusals)
		}
		if !u.Succeeded.IsZero() {
			assert.Equal(s.t, s.sim.now, u.Succeeded)
			line += " succeeded"
		}
		if !u.Disabled.IsZero() {
			assert.Equal(s.t, s.sim.now, u.Disabled)
			line += " disabled" + why(u.Cause)
		}
	}
	s.print(f.a.name, "%s", line)
}
