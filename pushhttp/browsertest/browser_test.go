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
	nasty  = `<script>alert(1)</script>@example.com`
)

var (
	phone  = push.Key{Service: "push.example.net", Node: "phone-4f1c9e2a"}
	tablet = push.Key{Service: "push.example.org", Node: "tablet"}
	lost   = push.Key{Service: "push.example.net", Node: "lost"}
)

// browser starts Chromium, or skips the test where there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		const how = "no Chromium; on Debian: apt-get install chromium"
		if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("no-first-run", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // waits for the browser to be gone, which uses the directory
		cancel()
	})
	require.NoError(t, chromedp.Do(ctx))
	return ctx
}

// site is an engine with its pages in a browser.
type site struct {
	t      *testing.T
	ctx    context.Context
	engine *push.Engine
	url    string

	mu       sync.Mutex
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
	mux.Handle("/some/where/push/", pages)
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		s.engine.Close(context.Background())
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
	tab, cancel = context.WithTimeout(tab, 60*time.Second)
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
	ctx := browser(t)

	t.Run("story", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url))
		s.see("registration disabled")
		s.see("wait/resource-constraint")
		s.shot("overview")
		s.do(chromedp.SendKeys(chromedp.CSS("#jid"), juliet+kb.Enter))
		s.see("stanza-queued")
		s.see("session hibernated: left to stanza-queued")
		s.see("disabled since")
		s.shot("account")
		s.do(click(`.stanzas a[href$="28482-98726-73623"]`))
		s.see("notified: the push service accepted it after")
		s.see("not notified: session active")
		s.shot("story")
		s.do(chromedp.EmulateViewport(920, 560))
		s.shot("readme")
		assert.NotContains(t, s.text(), "It is the east")
		assert.NotContains(t, s.text(), "eruhglwkm")
		s.quiet()
	})

	t.Run("live", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url+"account?jid="+juliet), ready("#timeline article"))
		eval[int](s, `document.querySelector("#filter button").focus(), window.marker = 1`)
		for i := range 5 {
			id := fmt.Sprintf("live-%d", i)
			s.raise(push.Offline{Account: juliet, Stanza: message(id, juliet)})
			s.see(id)
		}
		s.see("accepted after")
		assert.Equal(t, 1, eval[int](s, `window.marker`), "the page was not loaded again")
		assert.True(t, eval[bool](s, `document.activeElement.textContent == "Filter"`), "the focus stayed")
		assert.True(t, eval[bool](s, `[...document.querySelectorAll("#timeline time")].every((e, i, all) => !i || all[i-1].dateTime >= e.dateTime)`), "newest first")

		s.do(goTo(s.url), ready("#figures"))
		s.raise(push.Offline{Account: "newcomer@example.com", Stanza: message("x", "newcomer@example.com")})
		s.see("newcomer@example.com")
		s.quiet()
	})

	t.Run("filter", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url+"account?jid="+juliet), chromedp.SetValue(chromedp.CSS(`select[name=device]`), "push.example.org tablet"),
			chromedp.SetValue(chromedp.CSS(`select[name=only]`), "no"))
		s.do(click("#filter button"), ready(`#filter a`))
		text := s.text()
		assert.Contains(t, text, "archive-added")
		assert.Contains(t, text, "session active")
		assert.NotContains(t, text, "session-open")
		assert.NotContains(t, text, "call-1", "the tablet was notified of the call")
		s.do(click(`#ticket`), ready(`input[name=to]:not([value=""])`))
		assert.Contains(t, s.text(), "session active")
		s.quiet()
	})

	t.Run("action", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(goTo(s.url+"account?jid="+juliet), click(`form[action=ping] button:enabled`))
		s.see("wake-up requested")
		s.see("by night watch")
		s.do(click(`.sure summary`), chromedp.WaitVisible(chromedp.CSS(`.sure[open] button`)))
		s.shot("disable")
		s.do(click(`.sure[open] button`))
		s.see("The registration was removed")
		s.see("removed: disabled by the client")
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
		s.see("stanza-queued")
	})

	t.Run("hostile", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.mu.Lock()
		s.answer = func(*push.Notification) error {
			return &push.ReplyError{Type: "<script>alert(5)</script>", Condition: `"><img src=x onerror=alert(6)>`}
		}
		s.mu.Unlock()
		id := push.SessionID{Account: nasty, ID: `<script>alert(7)</script>`}
		k := push.Key{Service: `<script>alert(2)</script>.example`, Node: `"><script>alert(3)</script>`}
		st := message(`<img src=x onerror=alert(4)>`, nasty)
		s.raise(push.SessionOpen{Session: id, JID: nasty + "/x"}, push.PushEnable{Session: id, Key: k}, push.Offline{Account: nasty, Stanza: st})
		time.Sleep(200 * time.Millisecond)
		for _, path := range []string{"", "account?jid=" + url.QueryEscape(nasty), "story?jid=" + url.QueryEscape(nasty) + "&stanza=" + url.QueryEscape(st.ID)} {
			s.do(goTo(s.url+path), ready("main"))
			s.raise(push.Offline{Account: nasty, Stanza: message(st.ID+path, nasty)})
			time.Sleep(time.Second) // for the live update, by the script
			assert.Contains(t, s.text(), "<script>alert(1)</script>@example.com", path)
			assert.Contains(t, s.text(), "alert(6)", path)
			assert.Equal(t, 1, eval[int](s, `document.scripts.length`))
			assert.Zero(t, eval[int](s, `document.images.length`))
		}
		s.shot("hostile")
		s.quiet()
	})

	t.Run("phone", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		s.do(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
		for name, path := range map[string]string{"overview": "", "account": "account?jid=" + juliet, "story": "story?jid=" + juliet + "&stanza=call-1"} {
			s.do(goTo(s.url+path), ready("main"))
			assert.LessOrEqual(t, eval[int](s, `document.documentElement.scrollWidth - innerWidth`), 0, "%s scrolls sideways", name)
			s.shot("phone-" + name)
		}
		s.quiet()
	})

	t.Run("keys and darkness", func(t *testing.T) {
		s := open(t, ctx, nil)
		s.night()
		_, err := chromedp.Call(s.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
		})
		require.NoError(t, err)
		s.do(goTo(s.url+"account?jid="+juliet), ready("#timeline article"), chromedp.KeyEvent("n"), chromedp.KeyEvent("n"), chromedp.KeyEvent("p"), chromedp.KeyEvent("n"))
		assert.True(t, eval[bool](s, `document.activeElement === document.querySelectorAll(".entry")[1]`))
		s.shot("dark-account")
		s.do(chromedp.KeyEvent("/"))
		assert.Equal(t, "jid", eval[string](s, `document.activeElement.id`))
		s.do(goTo(s.url), ready("main"))
		s.shot("dark-overview")
		assert.Equal(t, "rgb(20, 22, 26)", eval[string](s, `getComputedStyle(document.body).backgroundColor`))
		s.quiet()
	})
}
