package pushhttp

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
	"github.com/xmpp-push/push/wishes"
)

const (
	juliet    = "juliet@example.com"
	nasty     = `<script>alert(1)</script>@example.com`
	text      = "the text that nobody may read"
	secret    = "the secret of the push service"
	appServer = "push.example.net"
)

var phone = push.Key{Service: appServer, Node: "phone"}

func anybody(*http.Request) (string, bool) { return "night watch", true }

// scene is an engine with a history and its pages.
type scene struct {
	t *testing.T
	*push.Engine
	*History
	pages *Handler
}

func newScene(t *testing.T, cfg Config, publish push.PublisherFunc) *scene {
	h := NewHistory(HistoryConfig{})
	if publish == nil {
		publish = func(context.Context, *push.Notification) error { return nil }
	}
	e, err := push.New(push.Config{Host: "example.com", Publisher: publish, Observer: h.Observer()})
	require.NoError(t, err)
	cfg.Engine, cfg.History = e, h
	if cfg.Authorize == nil && !cfg.LoopbackDevelopment {
		cfg.Authorize = anybody
	}
	p, err := New(cfg)
	require.NoError(t, err)
	return &scene{t, e, h, p}
}

func (s *scene) raise(evs ...push.Event) {
	for _, ev := range evs {
		_, err := s.Handle(s.t.Context(), ev)
		require.NoError(s.t, err)
		synctest.Wait()
	}
}

func (s *scene) get(path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "http://localhost/admin/push/"+path, nil)
	r.RemoteAddr = "127.0.0.1:1234"
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	s.pages.ServeHTTP(w, r)
	return w
}

func (s *scene) post(path string, form url.Values, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "http://localhost/admin/push/"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	s.pages.ServeHTTP(w, r)
	return w
}

func chat(id, to string) push.Stanza {
	return push.Stanza{ID: id, From: "romeo@example.net/orchard", To: to, Body: text, Class: push.ClassImportant}
}

// asleep raises the events of a phone that falls asleep and is sent a message.
func (s *scene) asleep(account string, k push.Key) push.SessionID {
	id := push.SessionID{Account: account, ID: "session of " + account}
	s.raise(
		push.SessionOpen{Session: id, JID: account + "/phone"},
		push.PushEnable{Session: id, Key: k, Options: []push.Field{{Var: "secret", Values: []string{secret}}}},
		push.HibernationStart{Session: id},
		push.StanzaQueued{Session: id, Stanza: chat("m1", account)},
	)
	time.Sleep(2 * time.Second)
	synctest.Wait()
	return id
}

func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, func(_ context.Context, n *push.Notification) error {
			time.Sleep(40 * time.Millisecond)
			if n.Node == "old" {
				return &push.ReplyError{Type: "cancel", Condition: "item-not-found"}
			}
			return nil
		})
		id := s.asleep(juliet, phone)
		s.raise(push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: appServer, Node: "old"}})
		s.raise(push.ArchiveAdded{Account: juliet, Stanza: chat("m1", juliet)})
		time.Sleep(time.Second)
		synctest.Wait()

		page := s.get("account?view=events&jid=" + url.QueryEscape(juliet)).Body.String()
		for _, want := range []string{
			"stanza-queued", "session hibernated: left to stanza-queued", "accepted after 40 ms", "sent at once, accepted", id.ID,
			"given up: errors of the push service (item-not-found)", "rule queued", ">asleep<",
		} {
			assert.Contains(t, page, want)
		}
		page = s.get("account?jid=" + url.QueryEscape(juliet)).Body.String()
		for _, want := range []string{">message</a>", "<b>alert accepted</b>", "<b>failed</b>", "The push service says that <bdi>old</bdi> is gone (<bdi>cancel/item-not-found</bdi>)"} {
			assert.Contains(t, page, want)
		}
		story := s.get("story?jid=" + url.QueryEscape(juliet) + "&stanza=m1").Body.String()
		assert.Contains(t, story, "The push service accepted the notification for <bdi>phone</bdi> at <time")
		assert.Contains(t, story, "So notifications for it ended at")
		assert.Contains(t, story, openApp)

		over := s.get("").Body.String()
		for _, want := range []string{"device given up", "item-not-found", appServer, juliet, "message archived and device has no session", "no-session"} {
			assert.Contains(t, over, want)
		}
		for _, p := range []string{page, story, over, s.get("trace?jid=" + juliet).Body.String()} {
			assert.NotContains(t, p, text)
			assert.NotContains(t, p, secret)
		}

		only := s.get("account?view=events&only=trouble&jid=" + url.QueryEscape(juliet)).Body.String()
		assert.NotContains(t, only, ">session-open<")
		assert.Contains(t, only, "item-not-found")
		assert.Contains(t, s.get("account?view=events&jid="+juliet+"&device="+url.QueryEscape(appServer+" old")).Body.String(), "archive-added")
		assert.Contains(t, s.get("account?jid="+juliet+"&to=1999-01-01T00:00").Body.String(), "Nothing that the filter lets through")
		assert.Equal(t, 404, s.get("story?jid="+juliet+"&stanza=none").Code)
		assert.Equal(t, 404, s.get("elsewhere").Code)
	})
}

// What is in the history can be downloaded, and replays to what was decided, sent and answered, whatever the policy and however the services answer;
// also if the history begins in the middle, or was that of two engines one after another.
func TestDownload(t *testing.T) {
	for name, bound := range map[string]HistoryConfig{"whole": {}, "evicted": {Lines: 2000, PerAccount: 40}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := NewHistory(bound)
				for round := range 2 {
					tries := 0
					var live []string
					watch := &push.Observer{
						Decided: func(number uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
							if d.Account == juliet && len(d.Verdicts) > 0 {
								live = append(live, fmt.Sprint(ev.Name(), d.Verdicts))
							}
						},
						Sent: func(_ time.Time, n *push.Notification) {
							if n.Account == juliet {
								live = append(live, fmt.Sprint("publish ", n.Key, n.Class, n.Count, n.Try))
							}
						},
					}
					e, err := push.New(push.Config{
						Host: "example.com", Observer: push.Observers(h.Observer(), watch), Veto: no{},
						Policy: push.Policy{Delay: 300 * time.Millisecond, RetryMin: 500 * time.Millisecond, MinInterval: -1 + time.Duration(round)*2, Expire: 30 * time.Second, MaxErrors: 4},
						Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
							time.Sleep(50 * time.Millisecond)
							if tries++; tries%5 == 2 {
								return &push.ReplyError{Type: "wait", Condition: "resource-constraint"}
							} else if tries%7 == 3 {
								return &push.ReplyError{Type: "cancel", Condition: "bad-request"}
							}
							return nil
						}),
					})
					require.NoError(t, err)
					p, err := New(Config{Engine: e, History: h, Authorize: anybody})
					require.NoError(t, err)
					s := &scene{t, e, h, p}
					for i := range 20 {
						id := push.SessionID{Account: juliet, ID: fmt.Sprint("s", round, i)}
						m := func(j int) push.Stanza { return chat(fmt.Sprintf("m%d-%d-%d", round, i, j), juliet) }
						s.raise(push.SessionOpen{Session: id, JID: juliet + "/phone"}, push.PushEnable{Session: id, Key: phone, Options: []push.Field{{Var: "secret", Values: []string{secret}}}},
							push.ArchiveAdded{Account: juliet, Stanza: m(1)}, push.AckDelayed{Session: id, Stanzas: []push.Stanza{m(1), m(2)}}, push.HibernationStart{Session: id, Stanzas: []push.Stanza{m(2), m(3)}})
						time.Sleep(time.Duration(i) * 170 * time.Millisecond)
						s.raise(push.StanzaQueued{Session: id, Stanza: m(4)}, push.Ping{Account: juliet})
						if i%3 == 0 {
							s.raise(push.HibernationEnd{Session: id})
						}
						s.raise(push.SessionClose{Session: id}, push.Offline{Account: juliet, Stanza: m(5)})
					}
					time.Sleep(time.Minute)
					require.NoError(t, e.Close(t.Context()))
					w := s.get("trace?jid=" + juliet)
					assert.Contains(t, w.Header().Get("Content-Disposition"), "attachment")
					assert.NotContains(t, w.Body.String(), text)
					assert.NotContains(t, w.Body.String(), secret)
					var again, differs []string
					r := trace.NewReplay(func(l *trace.Line) {
						if l.Kind == "difference" {
							differs = append(differs, l.Text)
						}
					})
					r.Observe(&push.Observer{
						Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
							if len(d.Verdicts) > 0 {
								again = append(again, fmt.Sprint(ev.Name(), d.Verdicts))
							}
						},
						Sent: func(_ time.Time, n *push.Notification) {
							again = append(again, fmt.Sprint("publish ", n.Key, n.Class, n.Count, n.Try))
						},
					})
					require.ErrorIs(t, r.Run(trace.NewReader(w.Body)), io.EOF)
					for _, d := range differs {
						assert.Contains(t, d, "before the recording began", "of what the history has not, it says so")
					}
					require.Greater(t, len(live), 100)
					if name == "whole" {
						assert.Empty(t, differs)
						assert.Equal(t, live, again[len(again)-len(live):])
					} else {
						require.Greater(t, len(again), 10)
						assert.Equal(t, live[len(live)-5:], again[len(again)-5:])
					}
				}
			})
		})
	}
}

// no is a host that mutes a message now and then.
type no struct{}

func (no) VetoStanza(_ *push.Registration, st push.Stanza) string {
	if strings.HasSuffix(st.ID, "7-3") {
		return "muted"
	}
	return ""
}
func (no) VetoPublish(context.Context, *push.Notification) string { return "" }

var (
	tags   = regexp.MustCompile(`<[a-zA-Z][^>]*>`)
	quoted = regexp.MustCompile(`"[^"]*"`)
	inline = regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=|javascript:`)
)

// Whatever strangers call themselves is harmless text, on every page.
func TestHostileNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, func(context.Context, *push.Notification) error {
			return &push.ReplyError{Type: `"><script>alert(5)</script>`, Condition: `<img src=x onerror=alert(6)>`}
		})
		bad := push.Key{Service: `<script>alert(2)</script>.example`, Node: `"onmouseover="alert(3)`}
		s.asleep(nasty, bad)
		st := chat(`<script>alert(4)</script>`, nasty)
		st.From = `<b onclick=alert(7)>@example.net`
		s.raise(push.Offline{Account: nasty, Stanza: st})
		s.pages.act(httptest.NewRecorder(), httptest.NewRequest("POST", "/ping", nil), `<script>`, "ping")
		for _, path := range []string{"", "account?jid=" + url.QueryEscape(nasty), "story?jid=" + url.QueryEscape(nasty) + "&stanza=" + url.QueryEscape(st.ID)} {
			w := s.get(path)
			require.Equal(t, 200, w.Code)
			// The tags that are there are the page's own.
			assert.Equal(t, 1, strings.Count(strings.ToLower(w.Body.String()), "<script"), path)
			assert.NotContains(t, w.Body.String(), "<img")
			assert.NotContains(t, w.Body.String(), "<b onclick")
			assert.Regexp(t, `default-src 'none'`, w.Header().Get("Content-Security-Policy"))
			for _, tag := range tags.FindAllString(w.Body.String(), -1) {
				assert.NotRegexp(t, inline, quoted.ReplaceAllString(tag, `""`), path)
			}
		}
	})
}

func TestAccess(t *testing.T) {
	_, err := New(Config{Engine: new(push.Engine)})
	require.ErrorContains(t, err, "Authorize")
	_, err = New(Config{LoopbackDevelopment: true})
	require.Error(t, err)

	s := newScene(t, Config{Authorize: func(r *http.Request) (string, bool) { return "", r.Header.Get("Authorization") == "right" }}, nil)
	for _, path := range []string{"", "account?jid=" + juliet, "style.css", "find?q=x", "services", "trace?jid=" + juliet} {
		w := s.get(path)
		assert.Equal(t, 403, w.Code, path)
		assert.Less(t, w.Body.Len(), 100, path)
	}
	assert.Equal(t, 403, s.post("ping", nil).Code)
	assert.Equal(t, 200, s.get("", func(r *http.Request) { r.Header.Set("Authorization", "right") }).Code)

	s = newScene(t, Config{LoopbackDevelopment: true}, nil)
	assert.Equal(t, 200, s.get("").Code)
	assert.Equal(t, 200, s.get("", func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:1", "[::1]:80" }).Code)
	for name, change := range map[string]func(*http.Request){
		"elsewhere":   func(r *http.Request) { r.RemoteAddr = "192.0.2.1:1" },
		"rebinding":   func(r *http.Request) { r.Host = "evil.example" },
		"proxy":       func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
		"no address":  func(r *http.Request) { r.RemoteAddr = "@" },
		"near enough": func(r *http.Request) { r.Host = "localhost.evil.example" },
	} {
		assert.Equal(t, 403, s.get("", change).Code, name)
	}
}

func TestActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var audit []Action
		s := newScene(t, Config{Audit: func(a Action) { audit = append(audit, a) }}, nil)
		s.asleep(juliet, phone)
		form := url.Values{"jid": {juliet}, "service": {appServer}, "node": {"phone"}}

		for name, change := range map[string]func(*http.Request){
			"cross-site": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
			"same-site":  func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
			"old browser": func(r *http.Request) {
				r.Header.Del("Sec-Fetch-Site")
				r.Header.Set("Origin", "https://evil.example")
			},
		} {
			assert.Equal(t, 403, s.post("ping", form, change).Code, name)
		}
		assert.Equal(t, 404, s.get("ping?"+form.Encode()).Code, "only POST acts")
		assert.Empty(t, audit)

		w := s.post("ping", form)
		assert.Equal(t, 303, w.Code)
		assert.Equal(t, "account?did=ping&jid=juliet%40example.com", w.Header().Get("Location"))
		synctest.Wait()
		assert.Contains(t, s.get(w.Header().Get("Location")).Body.String(), "is being woken")
		page := s.get("account?view=events&jid=" + juliet).Body.String()
		assert.Contains(t, page, "wake-up requested")
		assert.Contains(t, page, "<bdi>phone</bdi> <bdi>woken by night watch</bdi>")

		assert.Equal(t, 303, s.post("disable", form).Code)
		assert.Equal(t, 404, s.post("disable", form).Code, "it is gone")
		require.Len(t, audit, 2)
		assert.Equal(t, "disable", audit[1].Kind)
		assert.Equal(t, "night watch", audit[1].Operator)
		st, err := s.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		assert.Empty(t, st.Registrations)
		// Who did it is said in the same words everywhere.
		assert.Contains(t, s.get("account?view=events&jid="+juliet).Body.String(), "switched off by the operator night watch")
		page = s.get("account?jid=" + juliet).Body.String()
		assert.Contains(t, page, "Switched off by the operator night watch at")
		s.raise(push.Offline{Account: juliet, Stanza: chat("m9", juliet)})
		assert.Contains(t, s.get("story?jid="+juliet+"&stanza=m9").Body.String(), "<bdi>phone</bdi> was switched off by the operator <bdi>night watch</bdi> at")

		s.pages.cfg.ReadOnly = true
		assert.Equal(t, 403, s.post("ping", form).Code)
	})
}

// A device without a node can be disabled without the others of its service.
func TestDisableWithoutNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, nil)
		s.asleep(juliet, phone)
		s.raise(push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: appServer}})
		assert.Equal(t, 303, s.post("disable", url.Values{"jid": {juliet}, "service": {appServer}}).Code)
		st, err := s.Inspect(t.Context(), juliet)
		require.NoError(t, err)
		require.Len(t, st.Registrations, 1)
		assert.Equal(t, phone, st.Registrations[0].Key)
	})
}

func TestPseudonyms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{Pseudonyms: true}, nil)
		s.asleep(juliet, phone)
		over := s.get("").Body.String()
		assert.NotContains(t, over, "juliet")
		name := regexp.MustCompile(`user-[0-9a-f]{16}`).FindString(over)
		require.NotEmpty(t, name)
		page := s.get("account?view=events&jid=" + name).Body.String()
		assert.Contains(t, page, "stanza-queued")
		assert.NotContains(t, page, "juliet")
		assert.NotContains(t, page, "romeo")
		w := s.get("account?jid=" + juliet)
		assert.Equal(t, "account?jid="+name, w.Header().Get("Location"))
		assert.Equal(t, 303, s.post("ping", url.Values{"jid": {name}, "service": {appServer}, "node": {"phone"}}).Code)
		assert.Equal(t, 404, s.get("account?jid=user-0000000000000000").Code)
		assert.Equal(t, 403, s.get("trace?jid="+name).Code)
	})
}

// What a client asked for is what an account's page explains its silence with.
func TestAsked(t *testing.T) {
	asked := &wishes.Wishes{
		IgnoreUnknown: true, Muted: []string{"tybalt@example.net"}, Groupchat: true, Away: true, Priority: true, Jingle: true, Identity: "client/phone",
		Rooms: []wishes.Room{
			{Room: "cell@rooms.example.net", Allow: wishes.RoomNever}, {Room: "hall@rooms.example.net", Allow: wishes.RoomAlways},
			{Room: "verona@rooms.example.net", Allow: wishes.RoomMentioned, Nick: "Capulet"},
		},
		Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret("hunter2-16bytes!")},
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	push2 := &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret("hunter2"), Matches: []wishes.Match{
		{Profile: wishes.MatchImportant, Grace: 144 * time.Second, Filters: []wishes.ChatFilter{
			{JID: "a@example.net"}, {JID: "b@example.net", Mention: true}, {JID: "c@example.net", Reply: true}, {JID: "d@example.net", Mention: true, Reply: true},
		}},
		{Profile: wishes.MatchArchived, Send: &wishes.WebPush{Public: key.PublicKey().Bytes(), Auth: wishes.NewSecret("hunter2-16bytes!")}},
	}}}
	lines := func(pseudonyms bool, w *wishes.Wishes) (got []string) {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t, Config{Pseudonyms: pseudonyms}, nil)
			id := push.SessionID{Account: juliet, ID: "s1"}
			key := phone
			if w.Push2 != nil {
				key.Node = push.Push2Node
			}
			s.raise(push.SessionOpen{Session: id, JID: juliet + "/phone"}, push.PushEnable{Session: id, Key: key, Wishes: w})
			name := juliet
			if pseudonyms {
				name = regexp.MustCompile(`user-[0-9a-f]{16}`).FindString(s.get("").Body.String())
			}
			path := "account?jid=" + url.QueryEscape(name)
			page := s.get(path).Body.String()
			assert.NotContains(t, page, "hunter2")
			assert.Contains(t, page, "asked for")
			var v struct {
				Devices []struct {
					Asked []string `json:"asked_for"`
				} `json:"devices"`
			}
			require.NoError(t, json.Unmarshal(s.get(path, func(r *http.Request) { r.Header.Set("Accept", "application/json") }).Body.Bytes(), &v))
			require.Len(t, v.Devices, 1)
			got = v.Devices[0].Asked
		})
		return got
	}
	assert.Equal(t, []string{
		"what contacts send, and rooms", "nothing from tybalt@example.net",
		"of rooms only these: cell@rooms.example.net never, hall@rooms.example.net, verona@rooms.example.net if Capulet is mentioned",
		"also what comes while the user is away from every connected device", "how urgent it is", "calls", "sender and text, encrypted (aes-128-gcm)",
		"chat settings for client/phone",
	}, lines(false, asked))
	assert.Equal(t, []string{
		"match 1: important; of a@example.net nothing, b@example.net mentions, c@example.net replies, d@example.net mentions and replies; not within 2m24s of what the user does elsewhere",
		"match 2: archived; the message itself, encrypted",
	}, lines(false, push2))
	assert.Equal(t, []string{"of rooms only these: none"}, lines(false, &wishes.Wishes{Groupchat: true}))
	for _, name := range []string{"tybalt", "verona", "Capulet"} {
		assert.NotContains(t, strings.Join(lines(true, asked), " "), name)
	}
	assert.Equal(t, "x, x, x, x, x, x, x, x, x, x, x, x, 2 more", firstOf(14, func(int) string { return "x" }))
}

func TestHistoryIsBounded(t *testing.T) {
	h := NewHistory(HistoryConfig{Lines: 3000, PerAccount: 100})
	o := h.Observer()
	for i := range 20_000 {
		name := fmt.Sprintf("user%d@example.com", i%7)
		if i%3 > 0 {
			name = "noisy@example.com"
		}
		if i > 10_000 {
			name = fmt.Sprintf("user%d@example.com", i)
		}
		o.Decided(uint64(i), time.Unix(int64(i), 0), push.Ping{Account: name}, &push.Decision{Account: name, Verdicts: []push.Verdict{{Key: phone}}}, 0)
		if i == 10_000 {
			ls := h.of("noisy@example.com")
			assert.Len(t, ls, 100)
			ls = h.of("user1@example.com")
			assert.Len(t, ls, 100, "the noisy one did not cost the others theirs")
		}
	}
	assert.Equal(t, 3000, h.all.n)
	assert.LessOrEqual(t, len(h.accounts), 1501)
	for range 1000 {
		o.Replied(time.Now(), &push.Notification{Account: juliet, Key: push.Key{Service: fmt.Sprint(h.seq)}}, push.Reply{Missing: true}, push.Result{Outcome: push.OutcomeTransient}, 0)
	}
	assert.Len(t, h.tally.services, maxServices)
	assert.Len(t, h.tally.problems, maxProblems)
}

// A copy of an account's lines is whole and in order while more of them come and go.
func TestLinesWhileTheyChange(t *testing.T) {
	h := NewHistory(HistoryConfig{Lines: 4000, PerAccount: 3000})
	o := h.Observer()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 30_000 {
			name := juliet
			if i%3 == 0 {
				name = fmt.Sprintf("user%d@example.com", i%100)
			}
			o.Decided(uint64(i), time.Unix(int64(i), 0), push.Ping{Account: name}, &push.Decision{Account: name}, 0)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		ls := h.of(juliet)
		for i := range ls {
			require.Same(t, ls[0].account, ls[i].account)
			require.True(t, i == 0 || ls[i-1].seq < ls[i].seq)
		}
	}
	require.Len(t, h.of(juliet), 2667, "two of three of the last 4000")
}

// A page that has not changed is not sent again: pages follow by asking, and keep no connection.
func TestUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, Config{}, nil)
		s.asleep(juliet, phone)
		path := "account?jid=" + juliet
		tag := s.get(path).Header().Get("ETag")
		require.NotEmpty(t, tag)
		again := func(r *http.Request) { r.Header.Set("If-None-Match", tag) }
		w := s.get(path, again)
		assert.Equal(t, 304, w.Code)
		assert.Zero(t, w.Body.Len())
		assert.Equal(t, 200, s.get(path, again, func(r *http.Request) { r.Header.Set("Accept", "application/json") }).Code, "other data")
		s.raise(push.Ping{Account: "nurse@example.com"})
		assert.Equal(t, 304, s.get(path, again).Code)
		s.raise(push.Ping{Account: juliet})
		assert.Equal(t, 200, s.get(path, again).Code)
	})
}

func TestPageOfTenThousandLines(t *testing.T) {
	s := filled(t, 10_000)
	start := time.Now()
	w := s.get("account?jid=" + juliet)
	took := time.Since(start)
	t.Logf("first_byte=%v size=%d", took, w.Body.Len())
	assert.LessOrEqual(t, w.Body.Len(), 200<<10)
	seen := 0
	for path := "account?jid=" + juliet; path != ""; {
		page := s.get(path).Body.String()
		assert.LessOrEqual(t, len(page), 200<<10)
		seen += strings.Count(page, "<li id=\"m")
		path = ""
		if m := regexp.MustCompile(`href="(account[^"]*)" rel="next"`).FindStringSubmatch(page); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
		if seen > 1000 {
			break
		}
	}
	assert.Greater(t, seen, 1000)
}

// filled returns a scene with so many lines of one account with three devices.
func filled(t testing.TB, n int) *scene {
	h := NewHistory(HistoryConfig{})
	e, err := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }), Observer: h.Observer()})
	require.NoError(t, err)
	p, err := New(Config{Engine: e, History: h, Authorize: anybody})
	require.NoError(t, err)
	s := &scene{History: h, Engine: e, pages: p}
	for i := range 3 {
		_, err := e.Handle(t.Context(), push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: appServer, Node: fmt.Sprint("device", i)}})
		require.NoError(t, err)
	}
	for i := 0; ; i++ {
		if ls := h.of(juliet); len(ls) >= n {
			return s
		}
		for range 100 {
			i++
			_, err := e.Handle(t.Context(), push.ArchiveAdded{Account: juliet, Stanza: chat(fmt.Sprintf("4f1c9e2a-%d", i), juliet)})
			require.NoError(t, err)
		}
	}
}

func BenchmarkAccountPage(b *testing.B) {
	s := filled(b, 10_000)
	size := 0
	b.ResetTimer()
	for b.Loop() {
		size = s.get("account?jid=" + juliet).Body.Len()
	}
	b.ReportMetric(float64(size), "bytes/page")
}

// What the history adds to an event: one decided for one registration.
func BenchmarkHistory(b *testing.B) {
	o := NewHistory(HistoryConfig{}).Observer()
	var ev push.Event = push.ArchiveAdded{Account: juliet, Stanza: chat("m1", juliet)}
	d := &push.Decision{Account: juliet, Verdicts: []push.Verdict{{Key: phone, Notify: true, Stanzas: []string{"m1"}, Count: 1, Reason: push.ReasonNoSession}}}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		o.Decided(1, now, ev, d, 0)
	}
}

// large is a stanza with all that strangers can put into what is kept of one.
func large(id string) push.Stanza {
	long := strings.Repeat("x", 256)
	mention := push.Mention{URI: long, JID: long, OccupantID: long}
	return push.Stanza{ID: id + long, From: long, To: long, MessageID: long, Body: long, XML: long, Details: &push.Details{
		Target: strings.Clone(long), RoomID: strings.Clone(long), OccupantID: strings.Clone(long), Room: strings.Clone(long), Inviter: strings.Clone(long),
		Reply: push.ReplyTo{To: strings.Clone(long), ID: strings.Clone(long)}, Mentions: slices.Repeat([]push.Mention{mention}, 32), Call: &push.Call{ID: strings.Clone(long)},
	}}
}

// What is kept has a bound in bytes too, whatever strangers send: an event with more in it takes the room of more lines.
func TestHistoryOfLargeEvents(t *testing.T) {
	h := NewHistory(HistoryConfig{Lines: 2000, PerAccount: 1000})
	o := h.Observer()
	queue := make([]push.Stanza, 300)
	for i := range queue {
		queue[i] = large(fmt.Sprint(i))
	}
	form := slices.Repeat([]push.Field{{Var: strings.Repeat("x", 255), Values: slices.Repeat([]string{"secret"}, 30)}}, 32)
	told := func(number int, account string, ev push.Event) {
		o.Decided(uint64(number), time.Unix(int64(number), 0), ev, &push.Decision{Account: account, Verdicts: []push.Verdict{{Key: phone}},
			Answers: push.Answers{Vetoes: []push.VetoAnswer{{Text: strings.Repeat("no", 500)}}, Chats: make([]push.ChatAnswer, 3)}}, 0)
	}
	whole := func() {
		room, bytes := 0, 0
		perAccount := make(map[*account]int)
		for i := h.all.first; i != 0; i = h.line(i).inAll.after {
			l := h.line(i)
			room += int(l.room)
			bytes += lineBytes
			if l.kind == isEvent {
				bytes += l.bytes()
			}
			perAccount[l.account] += int(l.room)
		}
		require.Equal(t, h.all.room, room)
		require.LessOrEqual(t, room, 2000+3*300*3, "one that is larger than all is kept alone")
		require.LessOrEqual(t, bytes, 2*2000*lineBytes+1_000_000)
		for a, n := range perAccount {
			require.Equal(t, a.lines.room, n, a.name)
			if a.lines.n > 2 {
				require.LessOrEqual(t, n, 1000, a.name)
			}
		}
		require.LessOrEqual(t, h.used, 2000)
		require.Equal(t, h.used, h.all.n+len(h.free))
	}
	for i := range 600 {
		name := fmt.Sprintf("user%d@example.com", i%5)
		id := push.SessionID{Account: name, ID: "s1"}
		switch i % 4 {
		case 0:
			told(i, name, push.AckDelayed{Session: id, Stanzas: queue[:i%300]})
		case 1:
			told(i, name, push.ArchiveAdded{Account: name, Stanza: queue[i%300]})
		case 2:
			told(i, name, push.PushEnable{Session: id, Key: phone, Options: form, Wishes: &wishes.Wishes{Muted: slices.Repeat([]string{juliet}, i%400)}})
		case 3:
			told(i, name, push.Acknowledged{Session: id, IDs: slices.Repeat([]string{strings.Repeat("x", 256)}, 200)})
		}
		whole()
	}
	for i := range 5000 {
		name := fmt.Sprintf("user%d@example.com", i%50)
		o.Decided(uint64(1000+i), time.Unix(int64(1000+i), 0), push.ArchiveAdded{Account: name, Stanza: chat("m", name)}, &push.Decision{Account: name}, 0)
	}
	whole()
	assert.Equal(t, 2000, h.all.n, "room that is free again is used again")
	assert.Len(t, h.accounts, 50)
}

func BenchmarkHistoryMemory(b *testing.B) {
	var m runtime.MemStats
	heap := func() uint64 {
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, kind := range []string{"usual", "large", "queue"} {
		b.Run("stanzas="+kind, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				h := NewHistory(HistoryConfig{})
				o := h.Observer()
				for i := range 60_000 {
					name := fmt.Sprintf("user%d@example.com", i%5000)
					id := fmt.Sprintf("4f1c9e2a-8c1b-4e3f-%016d", i)
					var ev push.Event
					switch kind {
					case "usual":
						ev = push.ArchiveAdded{Account: name, Stanza: chat(id, name)}
					case "large":
						ev = push.ArchiveAdded{Account: name, Stanza: large(id)}
					case "queue":
						if i%100 > 0 {
							continue
						}
						queue := make([]push.Stanza, 256)
						for j := range queue {
							queue[j] = large(id)
						}
						ev = push.AckDelayed{Session: push.SessionID{Account: name, ID: "s1"}, Stanzas: queue}
					}
					o.Decided(uint64(i), time.Now(), ev, &push.Decision{Account: name, Verdicts: []push.Verdict{{Key: phone}}}, 0)
				}
				b.ReportMetric(float64(heap()-before)/1e6, "MB")
				b.ReportMetric(float64(heap()-before)/float64(h.all.n), "bytes/line")
				runtime.KeepAlive(h)
			}
		})
	}
}
