package pushhttp

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

// operator goes from page to page and counts: a look-up is one, a link is one.
type operator struct {
	t      *testing.T
	s      *scene
	body   string
	clicks int
}

func (o *operator) open(path string) {
	o.t.Helper()
	for range 3 {
		w := o.s.get(path)
		if w.Code == 303 {
			path = w.Header().Get("Location")
			continue
		}
		o.body = w.Body.String()
		return
	}
	o.t.Fatal("led in a circle: ", path)
}

func (o *operator) lookUp(what string) *operator {
	o.t.Helper()
	o.clicks++
	o.open(to("find", "q", what))
	return o
}

var anchor = regexp.MustCompile(`(?s)<a [^>]*href="([^"]+)"[^>]*>(.*?)</a>`)

// click follows the first link whose text contains something.
func (o *operator) click(text string) *operator {
	o.t.Helper()
	o.clicks++
	for _, m := range anchor.FindAllStringSubmatch(o.body, -1) {
		if strings.Contains(plain(m[2]), text) {
			o.open(html.UnescapeString(m[1]))
			return o
		}
	}
	o.t.Fatalf("no link %q", text)
	return o
}

// row follows the link of the row that a message of a time has.
func (o *operator) row(at string) *operator {
	o.t.Helper()
	o.clicks++
	for row := range strings.SplitSeq(o.body, "<li id=") {
		if m := anchor.FindStringSubmatch(row); m != nil && strings.Contains(plain(row), at) {
			o.open(html.UnescapeString(m[1]))
			return o
		}
	}
	o.t.Fatalf("no row of %s", at)
	return o
}

var anyTag = regexp.MustCompile(`<[^>]*>`)

// plain is what a reader sees.
func plain(s string) string {
	return strings.Join(strings.Fields(html.UnescapeString(anyTag.ReplaceAllString(s, ""))), " ")
}

// TestTenQuestions asks what operators ask, and counts the clicks from the overview to the answer. A look-up counts as one.
func TestTenQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := map[string]error{}
		slow := map[string]time.Duration{}
		s := newScene(t, Config{}, func(ctx context.Context, n *push.Notification) error {
			time.Sleep(slow[n.Service])
			return answer[n.Service+"/"+n.Node]
		})
		key := func(service, node string) push.Key { return push.Key{Service: service, Node: node} }
		open := func(user, resource string, k push.Key) push.SessionID {
			id := push.SessionID{Account: user + "@example.com", ID: user + "-" + resource}
			s.raise(push.SessionOpen{Session: id, JID: id.Account + "/" + resource}, push.PushEnable{Session: id, Key: k})
			return id
		}
		offline := func(user, id string) {
			s.raise(push.Offline{Account: user + "@example.com", Stanza: chat(id, user+"@example.com")})
			time.Sleep(time.Minute)
		}
		phone := open("juliet", "phone", key("push.example.net", "j1"))
		tablet := open("juliet", "tablet", key("push.example.org", "j2"))
		time.Sleep(14*time.Hour - time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)))
		s.raise(push.HibernationStart{Session: phone})
		answer["push.example.net/j1"] = &push.ReplyError{Type: "cancel", Condition: "item-not-found"}
		time.Sleep(2 * time.Minute)
		s.raise(push.StanzaQueued{Session: phone, Stanza: chat("m-1402", juliet)})
		time.Sleep(time.Minute)
		s.raise(push.ArchiveAdded{Account: juliet, Stanza: chat("m-live", juliet)})
		s.raise(push.PushDisable{Session: tablet, Key: key("push.example.org", "j2")}, push.SessionClose{Session: tablet})
		romeo := open("romeo", "phone", key("push.example.org", "r"))
		s.raise(push.SessionClose{Session: romeo})
		offline("romeo", "m-romeo")
		s.raise(push.PushDisable{Session: push.SessionID{Account: "romeo@example.com"}, Key: key("push.example.org", "r")})
		time.Sleep(time.Hour)
		offline("romeo", "m-nobody")
		for i := range 6 {
			u := fmt.Sprint("user", i)
			k := key("refusing.example", u)
			answer["refusing.example/"+u] = &push.ReplyError{Type: "auth", Condition: "forbidden"}
			open(u, "x", k)
			offline(u, "m-"+u)
		}
		answer["down.example/n"] = context.DeadlineExceeded
		nurse := open("nurse", "phone", key("down.example", "n"))
		s.raise(push.SessionClose{Session: nurse})
		offline("nurse", "m-nurse")

		for _, q := range []struct {
			question string
			most     int
			ask      func(o *operator)
			answers  []string
		}{
			{"Juliet says her phone did not ring at 14:02", 2, func(o *operator) { o.lookUp("juliet@example.com 14:02").row("14:02") },
				[]string{"The push service says that phone is gone (cancel/item-not-found). So notifications for it ended at 14:02:00.", "It switches notifications on again when the app is opened."}},
			{"What became of the message with this ID?", 1, func(o *operator) { o.lookUp("m-live") },
				[]string{"tablet is connected: it gets the message on its own connection", "phone gets no notifications"}},
			{"Why was nobody told of Romeo's message?", 2, func(o *operator) { o.lookUp("Romeo@EXAMPLE.com/balcony").click("message") },
				[]string{"Nobody was told: no device of romeo@example.com had notifications switched on at", "phone switched them off at"}},
			{"Is it only she, or everybody?", 0, func(*operator) {}, []string{"refusing.example refuses everything.", "0 devices wait"}},
			{"What does that push service answer, and since when?", 1, func(o *operator) { o.click("refusing.example") },
				[]string{"accepted nothing in the last 15 minutes", "auth/forbidden", "The push service refused the notification for the device."}},
			{"Who waits for the service that is down?", 1, func(o *operator) { o.lookUp("down.example") }, []string{"Who waits", "nurse@example.com", "no answer"}},
			{"Whose devices were given up?", 1, func(o *operator) { o.click("Given up") }, []string{"juliet@example.com", "phone", "item-not-found", "The push service says that the device is gone."}},
			{"Which accounts have trouble?", 1, func(o *operator) { o.click("Accounts with trouble") }, []string{"nurse@example.com", "notification failed for now: no answer"}},
			{"When did her phone fall asleep, and did it come back?", 1, func(o *operator) { o.lookUp("juliet-phone") },
				[]string{"The connection broke; its device can come back to it", "14:00:00 fell asleep with 0 messages to confirm"}},
			{"Whose device is the one with this node?", 1, func(o *operator) { o.lookUp("j2") }, []string{"juliet@example.com", "tablet"}},
			{"Which accounts did something at 14:02?", 1, func(o *operator) { o.lookUp("14:02") }, []string{"juliet@example.com"}},
			{"Is this account known at all? (misspelt)", 1, func(o *operator) { o.lookUp("julet@example.com") }, []string{"Nothing is known of", "Names that are like it:juliet@example.com"}},
		} {
			o := &operator{t: t, s: s}
			o.open("")
			q.ask(o)
			assert.LessOrEqual(t, o.clicks, q.most, q.question)
			for _, want := range q.answers {
				assert.Contains(t, plain(o.body), want, q.question)
			}
			t.Logf("%d  %s", o.clicks, q.question)
		}
		s.Close(t.Context()) // the nurse still waits
	})
}

// What people paste is found however it is spelt.
func TestFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, nil)
		id := s.asleep(juliet, phone)
		named := chat("archive-7", juliet)
		named.MessageID = "client's own"
		s.raise(push.Offline{Account: juliet, Stanza: named})
		account := "account?jid=juliet%40example.com"
		for what, want := range map[string]string{
			juliet: account, "JULIET@Example.COM": account, " juliet@example.com/phone ": account, "xmpp:juliet@example.com": account, "xmpp:juliet%40example.com/phone?message;body=x": account,
			"xmpp://me@example.net/juliet@example.com": account, "m1": "story?jid=juliet%40example.com&stanza=m1", id.ID: "session?id=session+of+juliet%40example.com&jid=juliet%40example.com",
			"client's own": "story?jid=juliet%40example.com&stanza=archive-7",
			"phone":        "account?device=push.example.net+phone&jid=juliet%40example.com", appServer: "service?name=push.example.net",
			"00:00":                               "accounts?at=2000-01-01T00%3A00%3A00",
			"juliet@example.com 2000-01-01 00:00": "account?from=1999-12-31T23%3A55%3A00&jid=juliet%40example.com&to=2000-01-01T00%3A10%3A00",
			"juliet@example.com 00:00 UTC":        "account?from=1999-12-31T23%3A55%3A00&jid=juliet%40example.com&to=2000-01-01T00%3A10%3A00",
			"23:59":                               "accounts?at=1999-12-31T23%3A59%3A00", // it has not been today
			"":                                    "./",
		} {
			w := s.get(to("find", "q", what))
			assert.Equal(t, 303, w.Code, what)
			assert.Equal(t, want, w.Header().Get("Location"), what)
		}
		// Somebody of another server knows whom they wrote to, and when.
		from := func(id, sender string) push.Stanza {
			st, err := push.ParseStanza(id, []byte("<message type='chat' to='"+juliet+"' from='"+sender+"'><body>x</body></message>"))
			require.NoError(t, err)
			return st
		}
		mercutio, room := from("w1", "mercutio@example.net/x"), from("w2", "verona@rooms.example.net/tybalt")
		s.raise(push.Offline{Account: juliet, Stanza: mercutio})
		time.Sleep(time.Hour)
		s.raise(push.Offline{Account: juliet, Stanza: from("w3", "mercutio@example.net/x")}, push.Groupchat{Account: juliet, Stanza: room})
		for what, want := range map[string]string{
			"mercutio@example.net": "w3", "Mercutio@example.net/y": "w3", "mercutio@example.net 00:04": "w1", "mercutio@example.net 00:58": "w3", "verona@rooms.example.net": "w2",
		} {
			assert.Equal(t, "story?jid=juliet%40example.com&stanza="+want, s.get(to("find", "q", what)).Header().Get("Location"), what)
		}
		assert.Equal(t, 404, s.get(to("find", "q", "mercutio@example.net 00:30")).Code)
		// In the viewer's zone.
		assert.Equal(t, "accounts?at=1999-12-31T23%3A30%3A00", s.get(to("find", "q", "00:30", "tz", "60")).Header().Get("Location"))
		for _, what := range []string{"julet@example.com", "nobody", "xmpp:", "@", "\x00", strings.Repeat("x", 5000), "99:99"} {
			assert.Equal(t, 404, s.get(to("find", "q", what)).Code, what)
		}
		assert.Contains(t, s.get("account?jid=juliett@example.com").Body.String(), "<bdi>juliet@example.com</bdi>")
		assert.Equal(t, 404, s.get("account?jid=juliett@example.com").Code)
	})
}

// TestClockSet has this machine's clock set while the server runs, as where it is right only after the network is there, or sleep. The overview goes on to tell of
// the last hour, each page says what its times are, and a time is looked up as people know it.
func TestClockSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, nil)
		s.asleep(juliet, phone)
		time.Sleep(time.Hour)
		s.raise(push.Offline{Account: juliet, Stanza: chat("m7", juliet)})
		assert.NotContains(t, s.get("").Body.String(), "clock was set")
		set := time.Duration(0)
		s.pages.wall = func() time.Time { return time.Now().Add(set) }
		set = 8 * time.Hour
		overview := s.get("", func(r *http.Request) { r.Header.Set("Accept", "application/json") }).Body.String()
		assert.Contains(t, overview, "set forward by 8h0m0s")
		assert.Contains(t, overview, `"at": "2000-01-01T01:00:02Z"`, "what they go by")
		assert.Contains(t, overview, `"value": "0.02"`, "the last minute is by that, too")
		assert.Contains(t, s.get("account?jid="+juliet).Body.String(), "set forward by 8h0m0s")
		find := func(what string) string { return s.get(to("find", "q", what)).Header().Get("Location") }
		assert.Equal(t, "accounts?at=2000-01-01T00%3A55%3A00", find("08:55"))
		assert.Equal(t, "accounts?at=1999-12-31T01%3A05%3A00", find("09:05"), "it has not been today")
		set = -time.Minute
		assert.Contains(t, s.get("").Body.String(), "set back by 1m0s")
		assert.Equal(t, "accounts?at=2000-01-01T00%3A59%3A00", find("00:58"))
		set = time.Second
		assert.NotContains(t, s.get("").Body.String(), "clock was set")
	})
}

// TestOwnMessage has somebody without notifications send a message: that nobody is told of it is no trouble, and nothing to ask the user about.
func TestOwnMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, nil)
		st, err := push.ParseStanza("o1", []byte("<message type='chat' from='"+juliet+"/phone' to='mercutio@example.net'><body>x</body></message>"))
		require.NoError(t, err)
		s.raise(push.ArchiveAdded{Account: juliet, Stanza: st})
		data := func(path string) string {
			return s.get(path, func(r *http.Request) { r.Header.Set("Accept", "application/json") }).Body.String()
		}
		for _, path := range []string{"account?jid=" + juliet, "story?stanza=o1&jid=" + juliet} {
			assert.Contains(t, data(path), "The user sent this message, so no device is notified of it.", path)
			assert.NotContains(t, data(path), "open the app", path)
		}
		assert.Contains(t, data("account?jid="+juliet), `"trouble": false`)
		assert.NotContains(t, data("account?only=untold&jid="+juliet), "o1")
		toSelf, err := push.ParseStanza("o2", []byte("<message type='chat' from='"+juliet+"/phone' to='"+juliet+"'><body>x</body></message>"))
		require.NoError(t, err)
		s.raise(push.ArchiveAdded{Account: juliet, Stanza: toSelf})
		assert.Contains(t, data("account?only=untold&jid="+juliet), "o2")
	})
}

// A push service that this server cannot reach: who waits for their next try is counted, and the server does not blame the service.
func TestServiceOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, func(context.Context, *push.Notification) error {
			return &push.ReplyError{Type: "cancel", Condition: "remote-server-not-found"}
		})
		for i := range 3 {
			a := fmt.Sprintf("u%d@example.com", i)
			s.raise(push.PushEnable{Session: push.SessionID{Account: a}, Key: push.Key{Service: appServer, Node: a}}, push.Offline{Account: a, Stanza: chat("m", a)})
		}
		w := s.get("service?name="+appServer, func(r *http.Request) { r.Header.Set("Accept", "application/json") })
		var got struct {
			Service struct{ Waiting int } `json:"service"`
			Waiting []any                 `json:"waiting"`
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got), w.Body.String())
		assert.Equal(t, 3, got.Service.Waiting, w.Body.String())
		assert.Len(t, got.Waiting, 3)
		assert.Contains(t, w.Body.String(), "This server itself could not reach the push service")
		w = s.get("story?stanza=m&jid=u1@example.com", func(r *http.Request) { r.Header.Set("Accept", "application/json") })
		assert.Contains(t, w.Body.String(), "This server itself could not reach the push service with the notification for u1@example.com (cancel/remote-server-not-found); it is tried again. Next try at ")
	})
}

// Each page is data, too.
func TestJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, nil)
		id := s.asleep(juliet, phone)
		for path, wants := range map[string][]string{
			"":                                   {`"summary": "All is well: the push services answer."`, `"reason": "queued"`, `"text": "stanza queued for hibernated session"`},
			"account?jid=" + juliet:              {`"kind": "message"`, `"mark": "alert accepted"`, `"state": "on"`, `"name": "phone"`},
			"account?view=events&jid=" + juliet:  {`"title": "stanza-queued"`, `"rule": "queued"`},
			"story?jid=" + juliet + "&stanza=m1": {`"mark": "alert accepted"`, `"at": "2000-01-01T00:00:00Z"`},
			"session?jid=" + juliet + "&id=" + strings.ReplaceAll(id.ID, " ", "+"): {`"what": "fell asleep with 0 messages to confirm"`},
			"service?name=" + appServer:      {`"state": "answers"`, `"accepted": 1`},
			"services":                       {`"state": "answers"`},
			"accounts":                       {`"jid": "juliet@example.com"`},
			"devices":                        {`"total": 0`},
			"account?jid=nobody@example.com": {`"error": "Nothing is known of nobody@example.com`},
		} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "http://localhost/admin/push/"+path, nil)
			r.Header.Set("Accept", "application/json")
			s.pages.ServeHTTP(w, r)
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"), path)
			assert.Contains(t, w.Header().Values("Vary"), "Accept")
			for _, want := range wants {
				assert.Contains(t, w.Body.String(), want, path)
			}
			assert.NotContains(t, w.Body.String(), text)
			assert.NotContains(t, w.Body.String(), secret)
		}
	})
}
