package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// Tests that kill the server, as a process of its own, and start it again. What it had accepted is there.

// TestMain lets this program be the server.
func TestMain(m *testing.M) {
	if os.Getenv("SERVER_TEST_RUN") == "1" {
		main()
	}
	flag.Parse()
	if runtime.GOMAXPROCS(0) < 4 && flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", "4") // those that are parallel mostly wait: for clocks of other programs
	}
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// process is a server that runs in a process of its own.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	told map[string]string // what it printed at first, by its first word
}

// start starts one on a folder, and waits until it listens.
func start(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, told: make(map[string]string)}
	p.cmd = exec.Command(os.Args[0], append([]string{"-data", dir, "-c2s", "127.0.0.1:0", "-component", "127.0.0.1:0", "-component-secret", "s"}, args...)...)
	p.cmd.Env = append(os.Environ(), "SERVER_TEST_RUN=1")
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 1 {
			p.told[f[0]] = strings.Join(f[1:], " ")
			if f[0] == "account" {
				return p
			}
		}
	}
	t.Fatalf("the server does not come up: %v", p.cmd.Wait())
	return nil
}

// end sends a signal and waits until the process is gone.
func (p *process) end(s syscall.Signal) {
	p.t.Helper()
	p.cmd.Process.Signal(s)
	if err := p.cmd.Wait(); err != nil && s != syscall.SIGKILL {
		p.t.Error(err)
	}
}

func (p *process) dial() net.Conn        { return dialTCP(p.t, p.told["clients"]) }
func (p *process) dialService() net.Conn { return dialTCP(p.t, p.told["components"]) }

// bodies counts the texts that a client has been given, by text.
type bodies struct {
	mu   sync.Mutex
	seen map[string]int
}

func (b *bodies) got(e *element.Element) {
	if body := peer.BodyOf(e); body != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen[body]++
	}
}

// check waits until n texts were given, and finds those that were given more than once.
func (b *bodies) check(t *testing.T, who string, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		b.mu.Lock()
		done := len(b.seen) >= n
		b.mu.Unlock()
		if done {
			break
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for body, times := range b.seen {
		if times != 1 {
			t.Errorf("%s got %q %d times", who, body, times)
		}
	}
	if len(b.seen) != n {
		t.Errorf("%s got %d messages of %d", who, len(b.seen), n)
	}
}

// archive fetches the texts of an account's archive, in their order.
func archive(t testing.TB, c *peer.Client) (texts []string) {
	t.Helper()
	after := ""
	for {
		set := element.New(nsRSM, "set").Add(element.New(nsRSM, "max").Add("100"))
		if after != "" {
			set.Add(element.New(nsRSM, "after").Add(after))
		}
		fin, err := c.Request(t.Context(), "set", "", element.New(nsMAM, "query").Add(set))
		if err != nil {
			t.Fatal(err)
		}
		for {
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // they came before the result
			e, err := c.Receive(ctx, func(e *element.Element) bool { return e.Child(nsMAM, "result") != nil })
			if err != nil {
				break
			}
			texts = append(texts, peer.BodyOf(e))
		}
		if fin.First().Get("complete") == "true" {
			return texts
		}
		after = fin.First().Child(nsRSM, "set").Child(nsRSM, "last").Text()
	}
}

// TestKilled kills the server again and again, or now and then stops it, at random moments, while somebody writes to a client that resumes and to an account that is offline. Every
// message arrives, once, and is in the archives once.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 6
	switch {
	case testing.Short():
		rounds = 3
	case os.Getenv("PUSH_TEST_FULL") == "1":
		rounds = 50
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	args := []string{"-user", "juliet:pw", "-user", "romeo:pw", "-user", "nurse:pw"}
	login := func(user string, got *bodies) peer.Login {
		l := peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: "r", Resumable: true}
		if got != nil {
			l.Got = got.got
		}
		return l
	}
	live := &bodies{seen: make(map[string]int)}
	var juliet, romeo *peer.Client
	sent := 0
	for round := range rounds {
		p := start(t, dir, args...)
		service, err := peer.ConnectService(p.dialService(), pushDomain, "s")
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			nurse, err := peer.Connect(p.dial(), login("nurse", nil))
			if err != nil {
				t.Fatal(err)
			}
			if err := nurse.EnablePush(t.Context(), pushDomain, "n1", "s3"); err != nil {
				t.Fatal(err)
			}
			nurse.Close()
			if juliet, err = peer.Connect(p.dial(), login("juliet", live)); err != nil {
				t.Fatal(err)
			}
			juliet.Available()
			if romeo, err = peer.Connect(p.dial(), login("romeo", nil)); err != nil {
				t.Fatal(err)
			}
		} else {
			if juliet, err = juliet.Resume(p.dial()); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if romeo, err = romeo.Resume(p.dial()); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		// All that is sent before the kill is either handled, or sent again by the client because it was not acknowledged.
		stop := time.Now().Add(time.Duration(r.IntN(400)) * time.Millisecond)
		kill := stop.Add(time.Duration(r.IntN(3000)) * time.Microsecond)
		how := syscall.SIGKILL
		if round%3 == 2 {
			how = syscall.SIGTERM
		}
		go func() {
			time.Sleep(time.Until(kill))
			p.cmd.Process.Signal(how)
		}()
		for time.Now().Before(stop) {
			romeo.Chat("juliet@localhost", fmt.Sprint("live ", sent))
			romeo.Chat("nurse@localhost", fmt.Sprint("offline ", sent))
			romeo.Nonza(element.New(nsSM, "r"))
			sent++
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
		}
		p.end(how)
		service.Close()
	}
	p := start(t, dir, args...)
	defer p.end(syscall.SIGTERM)
	var err error
	if juliet, err = juliet.Resume(p.dial()); err != nil {
		t.Fatal(err)
	}
	if romeo, err = romeo.Resume(p.dial()); err != nil {
		t.Fatal(err)
	}
	if err := romeo.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rounds, %d messages each", rounds, sent)
	live.check(t, "juliet", sent)
	stored := &bodies{seen: make(map[string]int)}
	nurse, err := peer.Connect(p.dial(), login("nurse", stored))
	if err != nil {
		t.Fatal(err)
	}
	nurse.Available()
	stored.check(t, "nurse", sent)
	for _, c := range []*peer.Client{juliet, nurse} {
		if texts := archive(t, c); len(texts) != sent {
			t.Errorf("the archive of %s has %d messages of %d", c.JID, len(texts), sent)
		}
	}
	if texts := archive(t, romeo); len(texts) != 2*sent {
		t.Errorf("the archive of the sender has %d messages of %d", len(texts), 2*sent)
	}
}

// TestStopped ends the server in good order and starts it again: contacts, preferences and what waits are there, and a client resumes.
func TestStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"-user", "juliet:pw", "-user", "romeo:pw"}
	login := func(user, resource string) peer.Login {
		return peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: resource, Resumable: true}
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, dir, args...)
	juliet, err := peer.Connect(p.dial(), login("juliet", "phone"))
	ok(err)
	romeo, err := peer.Connect(p.dial(), login("romeo", "balcony"))
	ok(err)
	ok(romeo.Available())
	_, err = juliet.Request(t.Context(), "set", "", element.New(nsRoster, "query").Add(element.New(nsRoster, "item", "jid", "romeo@localhost", "name", "R")))
	ok(err)
	ok(juliet.Send(element.New("", "presence", "type", "subscribe", "to", "romeo@localhost")))
	_, err = romeo.Receive(t.Context(), func(e *element.Element) bool { return e.Get("type") == "subscribe" })
	ok(err)
	_, err = romeo.Chat("juliet@localhost", "offline")
	ok(err)
	_, err = romeo.Request(t.Context(), "set", "", element.New(nsMAM, "prefs", "default", "never").Add(
		element.New(nsMAM, "always").Add(element.New(nsMAM, "jid").Add("nurse@localhost"))))
	ok(err)
	bookmark := element.New("urn:xmpp:bookmarks:1", "conference", "name", "Council")
	_, err = romeo.Request(t.Context(), "set", "", element.New(nsPubsub, "pubsub").Add(
		element.New(nsPubsub, "publish", "node", "urn:xmpp:bookmarks:1").Add(element.New(nsPubsub, "item", "id", "council@rooms.localhost").Add(bookmark)),
		element.New(nsPubsub, "publish-options").Add(element.Form("submit", nsPubsubOpts, "pubsub#max_items", "max", "pubsub#access_model", "whitelist"))))
	ok(err)
	ok(romeo.Settle(t.Context()))
	p.end(syscall.SIGTERM)

	p = start(t, dir, args...)
	romeo, err = romeo.Resume(p.dial())
	ok(err)
	prefs, err := romeo.Request(t.Context(), "get", "", element.New(nsMAM, "prefs"))
	ok(err)
	if got := prefs.First(); got.Get("default") != "never" || got.Child(nsMAM, "always").Child(nsMAM, "jid").Text() != "nurse@localhost" {
		t.Errorf("preferences: %s", got)
	}
	items, err := romeo.Request(t.Context(), "get", "", element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "items", "node", "urn:xmpp:bookmarks:1")))
	ok(err)
	if got := items.First().First().First(); got.Get("id") != "council@rooms.localhost" || got.Child("urn:xmpp:bookmarks:1", "conference").Get("name") != "Council" {
		t.Errorf("bookmarks: %s", items)
	}
	juliet, err = peer.Connect(p.dial(), login("juliet", "laptop"))
	ok(err)
	roster, err := juliet.Request(t.Context(), "get", "", element.New(nsRoster, "query"))
	ok(err)
	if item := roster.First().First(); item == nil || item.Get("name") != "R" || item.Get("ask") != "subscribe" {
		t.Errorf("contacts: %s", roster)
	}
	ok(juliet.Available())
	ok(juliet.Body(t.Context(), "offline"))
	ok(romeo.Send(element.New("", "presence", "type", "subscribed", "to", "juliet@localhost")))
	_, err = juliet.Receive(t.Context(), func(e *element.Element) bool { return e.Get("type") == "subscribed" })
	ok(err)
	// A second restart finds what the first one left.
	ok(juliet.Settle(t.Context()))
	p.end(syscall.SIGTERM)
	p = start(t, dir, args...)
	defer p.end(syscall.SIGTERM)
	juliet, err = juliet.Resume(p.dial())
	ok(err)
	if texts := archive(t, juliet); len(texts) != 1 || texts[0] != "offline" {
		t.Errorf("the archive has %q", texts)
	}
}

// TestRestored kills the server while a phone is connected, and while it is asleep. Its session is restored with its registration: it counts as online without
// a new enable, is woken for what is queued for it, and resumes.
func TestRestored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"-user", "juliet:pw", "-user", "romeo:pw", "-ack-delay", "1m"}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var p *process
	var service *peer.PushService
	up := func() {
		t.Helper()
		p = start(t, dir, args...)
		var err error
		service, err = peer.ConnectService(p.dialService(), pushDomain, "s")
		ok(err)
	}
	published := func(when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		pub, err := service.Next(ctx)
		if err != nil || pub.Node != "n1" || pub.Secret != "s3" {
			t.Fatalf("%s: published %+v, %v", when, pub, err)
		}
	}
	quiet := func(when string, wait time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		if pub, err := service.Next(ctx); err == nil {
			t.Errorf("%s: published %+v", when, pub)
		}
	}
	up()
	phone, err := peer.Connect(p.dial(), peer.Login{Domain: "localhost", User: "juliet", Password: "pw", Resource: "phone", Resumable: true})
	ok(err)
	ok(phone.Available())
	ok(phone.EnablePush(t.Context(), pushDomain, "n1", "s3"))
	ok(phone.Settle(t.Context()))
	romeo, err := peer.Connect(p.dial(), peer.Login{Domain: "localhost", User: "romeo", Password: "pw", Resource: "r", Resumable: true})
	ok(err)
	p.end(syscall.SIGKILL)

	up()
	phone, err = phone.Resume(p.dial())
	ok(err)
	romeo, err = romeo.Resume(p.dial())
	ok(err)
	_, err = romeo.Chat("juliet@localhost", "online")
	ok(err)
	ok(phone.Body(t.Context(), "online"))
	ok(phone.Settle(t.Context()))
	quiet("it is online", 1500*time.Millisecond)
	phone.Drop()
	_, err = romeo.Chat("juliet@localhost", "asleep")
	ok(err)
	published("it is asleep")
	quiet("it was woken", 1500*time.Millisecond)
	ok(romeo.Settle(t.Context()))
	p.end(syscall.SIGKILL)

	up()
	romeo, err = romeo.Resume(p.dial())
	ok(err)
	_, err = romeo.Chat("juliet@localhost", "still asleep")
	ok(err)
	published("it is still asleep")
	phone, err = phone.Resume(p.dial())
	ok(err)
	ok(phone.Body(t.Context(), "asleep"))
	ok(phone.Body(t.Context(), "still asleep"))
	ok(phone.Settle(t.Context()))
	phone.Close()
	_, err = romeo.Chat("juliet@localhost", "gone")
	ok(err)
	published("it is gone")
	p.end(syscall.SIGTERM)
}

// TestWaiting kills the server while a notification waits for a push service that is not there. The next process sends it once the service is.
func TestWaiting(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	t.Parallel()
	dir := t.TempDir()
	args := []string{"-user", "juliet:pw", "-user", "romeo:pw", "-user", "nurse:pw"}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, dir, args...)
	phone, err := peer.Connect(p.dial(), peer.Login{Domain: "localhost", User: "juliet", Password: "pw", Resource: "phone", Resumable: true})
	ok(err)
	ok(phone.EnablePush(t.Context(), pushDomain, "n1", "s3"))
	phone.Close()
	romeo, err := peer.Connect(p.dial(), peer.Login{Domain: "localhost", User: "romeo", Password: "pw", Resource: "r", Resumable: true})
	ok(err)
	_, err = romeo.Chat("juliet@localhost", "one")
	ok(err)
	// What the engine is told again after a restart is newer than this.
	time.Sleep(lastMoment + time.Second)
	_, err = romeo.Chat("nurse@localhost", "two")
	ok(err)
	ok(romeo.Settle(t.Context()))
	p.end(syscall.SIGKILL)

	p = start(t, dir, args...)
	defer p.end(syscall.SIGTERM)
	service, err := peer.ConnectService(p.dialService(), pushDomain, "s")
	ok(err)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	pub, err := service.Next(ctx)
	if err != nil || pub.Node != "n1" || pub.Secret != "s3" || !pub.Alert {
		t.Errorf("published %+v, %v", pub, err)
	}
}
