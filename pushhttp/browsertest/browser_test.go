// Package browsertest drives the pages of pushhttp with a real browser.
package browsertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/pushhttp"
)

const (
	juliet = "juliet@example.com"
)

var (
	phone  = push.Key{Service: "push.example.net", Node: "phone-4f1c9e2a"}
	tablet = push.Key{Service: "push.example.org", Node: "tablet"}
	lost   = push.Key{Service: "push.example.net", Node: "lost"}
)

// full is whether the tests look at everything: every page in every theme at every width, and all hostile names on pages of their own.
var full = os.Getenv("PUSH_TEST_FULL") == "1"

// chromium is the browser of all tests: to start one takes longer than most of them.
var chromium struct {
	once sync.Once
	ctx  context.Context // nil if there is none
	stop func()
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if chromium.stop != nil {
		chromium.stop()
	}
	os.Exit(code)
}

// browser returns Chromium, which the first test starts, or skips the test where there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	chromium.once.Do(func() { chromium.ctx, chromium.stop, chromium.err = startChromium() })
	require.NoError(t, chromium.err)
	if chromium.ctx == nil {
		const how = "no Chromium; on Debian: apt-get install chromium"
		if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	return chromium.ctx
}

func startChromium() (ctx context.Context, stop func(), err error) {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		return nil, nil, nil
	}
	dir, err := os.MkdirTemp("", "browsertest")
	if err != nil {
		return nil, nil, err
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(dir),
		chromedp.Flag("disable-quic", true), chromedp.Flag("no-first-run", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(allocator)
	stop = func() {
		chromedp.Cancel(ctx) // waits for the browser to be gone, which uses the directory
		cancel()
		end()
		os.RemoveAll(dir)
	}
	return ctx, stop, chromedp.Do(ctx)
}

// site is an engine with its pages in a browser.
type site struct {
	t      *testing.T
	ctx    context.Context
	engine *push.Engine
	url    string

	mu       sync.Mutex
	broken   bool // requests get no answer
	answer   func(n *push.Notification) error
	troubles []string // what the browser complained of
}

func open(t *testing.T, ctx context.Context, authorize func(*http.Request) (string, bool)) *site {
	s := &site{t: t}
	history := pushhttp.NewHistory(pushhttp.HistoryConfig{})
	var err error
	s.engine, err = push.New(push.Config{
		Host: "example.com", Observer: history.Observer(), Policy: push.Policy{Delay: 200 * time.Millisecond},
		Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
			s.mu.Lock()
			answer := s.answer
			s.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			if answer != nil {
				return answer(n)
			}
			return nil
		}),
	})
	require.NoError(t, err)
	if authorize == nil {
		authorize = func(*http.Request) (string, bool) { return "night watch", true }
	}
	pages, err := pushhttp.New(pushhttp.Config{Engine: s.engine, History: history, Authorize: authorize})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/some/where/push/", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		broken := s.broken
		s.mu.Unlock()
		if broken {
			panic(http.ErrAbortHandler)
		}
		pages.ServeHTTP(w, r)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		// What the push service of the night turned away is not tried again for the ReplyTimeout that Close would take.
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		s.engine.Close(ctx)
	})
	s.url = srv.URL + "/some/where/push/"
	s.tab(ctx)
	return s
}

// tab gives the site a tab of its own.
func (s *site) tab(ctx context.Context) {
	t := s.t
	tab, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	tab, cancel = context.WithTimeout(tab, 240*time.Second)
	t.Cleanup(cancel)
	s.ctx = tab
	s.do(chromedp.EmulateViewport(1200, 900))
	require.NoError(t, chromedp.Listen(tab, func(ev any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			s.troubles = append(s.troubles, ev.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
				s.troubles = append(s.troubles, ev.Entry.Text+" "+ev.Entry.URL)
			}
		case *page.EventJavascriptDialogOpening:
			s.troubles = append(s.troubles, "dialog: "+ev.Message)
		}
	}))
}

type action = chromedp.Action[chromedp.Void]

func (s *site) do(actions ...action) {
	s.t.Helper()
	require.NoError(s.t, chromedp.Do(s.ctx, actions...))
}

// eval returns the value of a JavaScript expression.
func eval[T any](s *site, expression string) T {
	s.t.Helper()
	v, err := chromedp.Run(s.ctx, chromedp.Evaluate[T](expression))
	require.NoError(s.t, err, expression)
	return v
}

func goTo(url string) action { return chromedp.Navigate(url) }

func ready(css string) action { return chromedp.WaitReady(chromedp.CSS(css)) }

// click clicks an element when it is there. A page that follows what happens may put another in its place at any time, so finding and clicking
// have to be one step.
func click(css string) action {
	expression := fmt.Sprintf(`(e => e != null && (e.click(), true))(document.querySelector(%q))`, css)
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		for range 200 {
			if done, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression)); err == nil && done {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return errors.New("nothing to click: " + css)
	})
}

func (s *site) raise(evs ...push.Event) {
	s.t.Helper()
	for _, ev := range evs {
		_, err := s.engine.Handle(s.t.Context(), ev)
		require.NoError(s.t, err)
	}
}

// follow clicks a link and waits for the page that it leads to.
func (s *site) follow(css string) {
	s.t.Helper()
	eval[bool](s, `window.left = true`)
	s.do(click(css))
	for range 200 {
		if there, err := chromedp.Run(s.ctx, chromedp.Evaluate[bool](`!window.left && document.readyState == "complete"`)); err == nil && there {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("%s led nowhere", css)
}

// quiet fails the test if the browser complained.
func (s *site) quiet() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	assert.Empty(s.t, s.troubles)
}

func (s *site) text() string {
	s.t.Helper()
	return eval[string](s, `document.body ? document.body.innerText : ""`)
}

// see waits until the page has a text.
func (s *site) see(want string) {
	s.t.Helper()
	expression := fmt.Sprintf("document.body != null && document.body.innerText.includes(%q)", want)
	for range 200 {
		// An error means that the page is changing.
		if seen, err := chromedp.Run(s.ctx, chromedp.Evaluate[bool](expression)); err == nil && seen {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("not on the page: %s\n%s", want, s.text())
}

// is waits until an expression is true.
func (s *site) is(expression string) {
	s.t.Helper()
	for range 200 {
		if yes, err := chromedp.Run(s.ctx, chromedp.Evaluate[bool](expression)); err == nil && yes {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("not so: %s\n%s", expression, s.text())
}

// shot keeps a picture if PUSH_SCREENSHOTS names a directory.
func (s *site) shot(name string) {
	s.t.Helper()
	dir := os.Getenv("PUSH_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(s.ctx, chromedp.CaptureScreenshot())
	require.NoError(s.t, err)
	require.NoError(s.t, os.MkdirAll(dir, 0o755))
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

func message(id, to string) push.Stanza {
	return push.Stanza{ID: id, From: "romeo@example.net", To: to, Class: push.ClassImportant, Body: "It is the east"}
}

// night is what happened: a phone falls asleep and is woken, a tablet is in use, a third device is long gone.
func (s *site) night() {
	s.mu.Lock()
	s.answer = func(n *push.Notification) error {
		switch {
		case n.Key == lost:
			return &push.ReplyError{Type: "cancel", Condition: "item-not-found"}
		case n.Account == "nurse@example.com":
			return &push.ReplyError{Type: "wait", Condition: "resource-constraint"}
		}
		return nil
	}
	s.mu.Unlock()
	a := push.SessionID{Account: juliet, ID: "c2s-71"}
	b := push.SessionID{Account: juliet, ID: "c2s-72"}
	options := []push.Field{{Var: "FORM_TYPE", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}}, {Var: "secret", Values: []string{"eruhglwkm"}}}
	s.raise(
		push.PushEnable{Session: push.SessionID{Account: juliet}, Key: lost, Options: options},
		push.SessionOpen{Session: a, JID: juliet + "/phone", Client: "d4565fa7"}, push.PushEnable{Session: a, Key: phone, Options: options},
		push.SessionOpen{Session: b, JID: juliet + "/tablet"}, push.PushEnable{Session: b, Key: tablet, Options: options},
		push.HibernationStart{Session: a},
		push.ArchiveAdded{Account: juliet, Stanza: message("28482-98726-73623", juliet)},
		push.StanzaQueued{Session: a, Stanza: message("28482-98726-73623", juliet)},
	)
	n := push.SessionID{Account: "nurse@example.com", ID: "c2s-80"}
	s.raise(push.SessionOpen{Session: n, JID: n.Account + "/x"}, push.PushEnable{Session: n, Key: push.Key{Service: "push.example.org", Node: "n"}},
		push.HibernationStart{Session: n, Stanzas: []push.Stanza{message("5", n.Account)}})
	time.Sleep(400 * time.Millisecond)
	call := message("call-1", juliet)
	call.Class, call.Body = push.ClassUrgent, ""
	s.raise(push.ArchiveAdded{Account: juliet, Stanza: call}, push.HibernationEnd{Session: a})
	time.Sleep(300 * time.Millisecond)
}

func TestBrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)

	t.Run("story", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url))
		s.see("device given up")
		s.see("wait/resource-constraint")
		s.do(chromedp.SendKeys(chromedp.CSS("#q"), "xmpp:Juliet@EXAMPLE.com/phone?message"+kb.Enter))
		s.see("alert accepted")
		s.see("Its push service would not take notifications (item-not-found)")
		s.do(click(`.message:last-child .what a`))
		s.see("The push service accepted the notification for")
		s.see("it gets the message on its own connection")
		s.do(chromedp.EmulateViewport(920, 560))
		s.shot("readme")
		assert.NotContains(t, s.text(), "It is the east")
		assert.NotContains(t, s.text(), "eruhglwkm")
		s.quiet()
	})

	t.Run("live", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url+"account?jid="+juliet), ready("#timeline .message"))
		s.see("Live")
		eval[int](s, `document.querySelector("#filter button").focus(), window.marker = 1`)
		for i := range 3 {
			s.raise(push.Offline{Account: juliet, Stanza: message(fmt.Sprintf("live-%d", i), juliet)})
			s.is(fmt.Sprintf(`document.querySelector('a[href$="live-%d"]') != null`, i))
		}
		assert.Equal(t, 1, eval[int](s, `window.marker`), "the page was not loaded again")
		assert.True(t, eval[bool](s, `document.activeElement.textContent == "Filter"`), "the focus stayed")
		assert.True(t, eval[bool](s, `[...document.querySelectorAll("#timeline time")].every((e, i, all) => !i || all[i-1].dateTime >= e.dateTime)`), "newest first")

		// Nothing moves under somebody who reads.
		first := eval[string](s, `document.querySelector(".message").focus(), document.querySelector(".message").id`)
		s.raise(push.Offline{Account: juliet, Stanza: message("live-while-reading", juliet)})
		s.see("1 new – show it")
		assert.Equal(t, first, eval[string](s, `document.querySelector(".message").id`))
		s.do(click(".held"))
		s.is(`document.querySelector('a[href$="live-while-reading"]') != null`)

		s.do(click("#pause"))
		s.see("Paused at")
		s.raise(push.Offline{Account: juliet, Stanza: message("live-while-paused", juliet)})
		time.Sleep(2500 * time.Millisecond)
		assert.False(t, eval[bool](s, `document.querySelector('a[href$="live-while-paused"]') != null`))
		eval[int](s, `document.activeElement.blur(), 1`)
		s.do(click("#pause"))
		s.is(`document.querySelector('a[href$="live-while-paused"], .held') != null`)

		s.do(goTo(s.url), ready("#figures"))
		s.raise(push.Offline{Account: "newcomer@example.com", Stanza: message("x", "newcomer@example.com")})
		s.see("newcomer@example.com")
		s.quiet()
	})

	// Pages keep no connection open: the seventh tab of a browser works like the first.
	t.Run("many tabs", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		for range 10 {
			tab, cancel := chromedp.NewContext(ctx)
			t.Cleanup(cancel)
			require.NoError(t, chromedp.Do(tab, goTo(s.url+"account?jid="+juliet), ready("#timeline .message")))
		}
		start := time.Now()
		s.do(goTo(s.url+"account?jid="+juliet), ready("#timeline .message"))
		s.see("Live")
		assert.Less(t, time.Since(start), 20*time.Second)
	})

	t.Run("connection lost", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url + "account?jid=" + juliet))
		s.see("Live")
		s.mu.Lock()
		s.broken = true
		s.mu.Unlock()
		s.see("No connection since")
		s.mu.Lock()
		s.broken = false
		s.mu.Unlock()
		s.is(`document.getElementById("state").textContent == "Live"`)
	})

	t.Run("zone", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		_, err := chromedp.Call(s.ctx, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Tokyo"})
		require.NoError(t, err)
		s.do(goTo(s.url + "account?jid=" + juliet))
		s.see("Times are of Asia/Tokyo.")
		at := eval[string](s, `document.querySelector(".message time").dateTime`)
		then, err := time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		tokyo := time.FixedZone("", 9*3600)
		s.see(then.In(tokyo).Format("15:04:05"))
		// A time is looked up in the viewer's zone.
		s.do(chromedp.SendKeys(chromedp.CSS("#q"), juliet+" "+then.In(tokyo).Format("15:04")+kb.Enter))
		s.is(`location.search.includes("from=")`)
		s.see("alert accepted")
		s.do(click("#zone"))
		s.see("Times are UTC.")
		s.see(then.UTC().Format("15:04:05"))
		eval[int](s, `localStorage.clear(), 1`)
	})

	t.Run("filter", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url+"account?view=events&jid="+juliet), chromedp.SetValue(chromedp.CSS(`select[name=device]`), "push.example.org tablet"))
		s.do(click("#filter button"), ready(`#filter a`))
		assert.Contains(t, s.text(), "archive-added")
		assert.NotContains(t, s.text(), "session-open")
		s.do(goTo(s.url+"account?jid="+juliet), chromedp.SetValue(chromedp.CSS(`select[name=only]`), "untold"), click("#filter button"), ready(`#filter a`))
		s.see("failed")
		s.do(click(`#ticket`), ready(`input[name=to]:not([value=""])`))
		s.see("failed")
		s.quiet()
	})

	t.Run("action", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url+"account?jid="+juliet), click(`form[action=ping] button:enabled`))
		s.see("is being woken")
		s.is(`[...document.querySelectorAll(".message .what")].some((e) => e.textContent.includes("wake-up"))`)
		s.do(click(`.sure summary`), chromedp.WaitVisible(chromedp.CSS(`.sure[open] button`)))
		s.shot("switch-off")
		s.do(click(`.sure[open] button`))
		s.see("The device was switched off")
		s.see("Switched off by the operator night watch")
		s.quiet()
	})

	t.Run("refused", func(t *testing.T) {
		s := open(t, ctx, func(r *http.Request) (string, bool) {
			c, err := r.Cookie("pass")
			return "night watch", err == nil && c.Value == "right"
		})
		s.night()
		s.do(goTo(s.url + "account?jid=" + juliet))
		text := s.text()
		assert.Contains(t, text, "Refused")
		assert.NotContains(t, text, juliet)
		eval[string](s, `document.cookie = "pass=wrong"`)
		s.do(goTo(s.url + "account?jid=" + juliet))
		assert.Contains(t, s.text(), "Refused")
		eval[string](s, `document.cookie = "pass=right"`)
		s.do(goTo(s.url + "account?jid=" + juliet))
		s.see("alert accepted")
	})

	t.Run("hostile", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.mu.Lock()
		s.answer = func(*push.Notification) error {
			return &push.ReplyError{Type: "<script>alert(5)</script>", Condition: `"><img src=x onerror=alert(6)>`}
		}
		s.mu.Unlock()
		var paths []string
		for i, name := range hostile {
			account := name + "@example.com"
			id := push.SessionID{Account: account, ID: name}
			k := push.Key{Service: name + ".example", Node: name}
			st := message(name, account)
			st.From = name
			s.raise(push.SessionOpen{Session: id, JID: account + "/" + name, Client: name}, push.PushEnable{Session: id, Key: k}, push.Offline{Account: account, Stanza: st})
			if full || i%4 == 0 {
				q := url.QueryEscape
				paths = append(paths, "account?jid="+q(account), "account?view=events&jid="+q(account), "story?jid="+q(account)+"&stanza="+q(name),
					"session?jid="+q(account)+"&id="+q(name), "service?name="+q(k.Service), "find?q="+q(name+"?"))
			}
		}
		time.Sleep(300 * time.Millisecond)
		paths = append(paths, "", "accounts", "services", "devices", "accounts?q="+url.QueryEscape(hostile[0]))
		for _, path := range paths {
			s.do(goTo(s.url+path), ready("main"))
			assert.Equal(t, 1, eval[int](s, `document.scripts.length`), path)
			assert.Zero(t, eval[int](s, `document.images.length`), path)
			assert.LessOrEqual(t, eval[int](s, `document.documentElement.scrollWidth - innerWidth`), 0, "%s is stretched", path)
			assert.NotContains(t, s.text(), "\u202e", path)
			assert.NotContains(t, s.text(), "\u2066", path)
		}
		s.do(goTo(s.url + "account?jid=" + url.QueryEscape(hostile[0]+"@example.com")))
		s.raise(push.Offline{Account: hostile[0] + "@example.com", Stanza: message("later", hostile[0]+"@example.com")})
		s.is(`document.querySelectorAll(".message").length == 2`) // by the script
		assert.Contains(t, s.text(), "<script>alert(1)</script>@example.com")
		s.shot("hostile")
		// A page that is not there is an error to the browser's log, and to nothing else.
		s.mu.Lock()
		s.troubles = slices.DeleteFunc(s.troubles, func(t string) bool { return strings.Contains(t, "404") })
		s.mu.Unlock()
		s.quiet()
	})

	t.Run("keys", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url+"account?jid="+juliet), ready("#timeline .message"), chromedp.KeyEvent("n"), chromedp.KeyEvent("n"), chromedp.KeyEvent("p"), chromedp.KeyEvent("n"))
		assert.True(t, eval[bool](s, `document.activeElement === document.querySelectorAll(".message")[1]`))
		s.do(chromedp.KeyEvent("/"))
		assert.Equal(t, "q", eval[string](s, `document.activeElement.id`))
		s.quiet()
	})
}

// hostile are names that strangers may think of.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(2)>`, `'onmouseover='alert(3)`, `javascript:alert(4)`, "\u202egnp.exe", "\u2066\u2067abc", "a\u200b\u200b\u200bb",
	strings.Repeat("long", 200), strings.Repeat("word ", 100), "z" + strings.Repeat("\u0301", 200), "\u3164\u3164", "{{.}}", "${alert(5)}", "]]><!--", "a\x00b", "\xff\xfe", "شبكة\u200fabc",
}

// scenes are the pages, of which pictures are made and which axe looks at.
func (s *site) scenes() map[string]string {
	return map[string]string{
		"overview": "", "account": "account?jid=" + juliet, "events": "account?view=events&jid=" + juliet, "story": "story?jid=" + juliet + "&stanza=28482-98726-73623",
		"session": "session?jid=" + juliet + "&id=c2s-71", "service": "service?name=push.example.org", "services": "services", "accounts": "accounts?only=trouble",
		"devices": "devices", "not-found": "account?jid=juliett@example.com",
	}
}

// TestPages makes pictures of every page at three widths and in two themes (see PUSH_SCREENSHOTS), checks that none is wider than the window, and has
// axe look for what keeps people from using them, in the light, the dark and in forced colours. Without PUSH_TEST_FULL=1 the light has all widths, and axe on the
// narrow one, and the other themes have the wide one.
func TestPages(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	axe := axeScript(t)
	s := open(t, ctx, nil)
	s.night()
	media := func(features ...*emulation.MediaFeature) {
		_, err := chromedp.Call(s.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
		require.NoError(t, err)
	}
	for theme, features := range map[string][]*emulation.MediaFeature{
		"light":  {{Name: "prefers-color-scheme", Value: "light"}},
		"dark":   {{Name: "prefers-color-scheme", Value: "dark"}},
		"forced": {{Name: "forced-colors", Value: "active"}},
	} {
		media(features...)
		for _, width := range []int64{360, 768, 1280} {
			if !full && theme != "light" && width != 1280 {
				continue
			}
			s.do(chromedp.EmulateViewport(width, 800))
			for name, path := range s.scenes() {
				s.do(goTo(s.url+path), ready("main"))
				what := fmt.Sprintf("%s-%s-%d", name, theme, width)
				assert.LessOrEqual(t, eval[int](s, `document.documentElement.scrollWidth - innerWidth`), 0, "%s scrolls sideways", what)
				if name == "account" || name == "story" {
					assert.Less(t, eval[float64](s, `document.querySelector(".answer").getBoundingClientRect().bottom`), 800.0, "%s: the first answer is in sight", what)
				}
				if theme != "forced" {
					s.shot(what)
				}
				if axe != "" && (full || width == 360 || width == 1280 && theme != "light") {
					assert.Empty(t, s.axe(axe), what)
				}
			}
		}
	}
	if axe == "" {
		const how = "no axe-core; npm ci in pushhttp/browsertest"
		if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
			t.Fatal(how)
		}
		t.Skip("accessibility not looked at: " + how)
	}
}

// axeScript returns axe's script, or nothing if it is not installed.
func axeScript(t *testing.T) string {
	data, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		return ""
	}
	return string(data)
}

// axe returns what axe finds against WCAG 2.2 AA. Its script is evaluated by the debugger, which the page's Content-Security-Policy does not keep out.
func (s *site) axe(script string) []string {
	s.t.Helper()
	eval[bool](s, script+"; true")
	eval[bool](s, `window.found = null, axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(
		(r) => window.found = r.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).join(" | ")),
		(e) => window.found = ["axe failed: " + e]), true`)
	s.is(`window.found != null`)
	return eval[[]string](s, `window.found`)
}
