package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
	"github.com/xmpp-push/push/wishes"
)

// Clients that mean no good, mistakes of the server's own, and a disk that is full.

// loudLogger panics where it is told of a message.
type loudLogger struct {
	slog.Handler
	at string
}

func (l loudLogger) Enabled(context.Context, slog.Level) bool { return true }

func (l loudLogger) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == l.at {
		panic("a mistake")
	}
	return l.Handler.Handle(ctx, r)
}

// TestMistake makes the server panic while it handles a stanza, in the account's lock. That ends one stream; its session can be resumed, and nobody else notices.
func TestMistake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		w := newWorldLogged(t, 3, push.Policy{}, slog.New(loudLogger{slog.NewTextHandler(&logged, nil), "unusable chat settings"}))
		phone, laptop, romeo := w.connect("juliet", "phone"), w.connect("juliet", "laptop"), w.connect("romeo", "balcony")
		notify := element.New(wishes.NSChatSettings, "notify")
		for i := range wishes.MaxChatSettings + 1 {
			notify.Add(element.New(wishes.NSChatSettings, "never", "identity-type", fmt.Sprint("t", i)))
		}
		bad := element.New(nsBookmarks, "conference").Add(element.New(nsBookmarks, "extensions").Add(notify))
		_, err := laptop.Request(w.ctx(), "set", "", element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "publish", "node", nsBookmarks).Add(
			element.New(nsPubsub, "item", "id", "verona@rooms.localhost").Add(bad))))
		if err != peer.ErrGone {
			t.Fatalf("the server made no mistake: %v", err)
		}
		_, err = romeo.Chat("juliet@localhost", "still here?")
		w.ok(err)
		w.ok(phone.Body(w.ctx(), "still here?"))
		laptop = w.resume(laptop)
		w.ok(laptop.Settle(w.ctx()))
		if log := logged.String(); !strings.Contains(log, "a mistake of this server's") || !strings.Contains(log, "noteChat") {
			t.Errorf("logged: %s", log)
		}
		for _, c := range []*peer.Client{phone, laptop, romeo} {
			c.Close()
		}
	})
}

// TestSlowly is a stranger who sends a byte a second, and one who does not read: both have half a minute.
func TestSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		began := time.Now()
		conn := pipe(w.srv.ServeClient)
		go io.Copy(io.Discard, conn)
		for {
			if _, err := conn.Write([]byte(" ")); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > negotiateIn+5*time.Second {
			t.Errorf("thrown out after %v", took)
		}
		conn = pipe(w.srv.ServeClient)
		go conn.Write([]byte(streamHeader))
		time.Sleep(negotiateIn + 5*time.Second)
		synctest.Wait()
		w.srv.mu.Lock()
		defer w.srv.mu.Unlock()
		if n := len(w.srv.streams); n != 1 {
			t.Errorf("%d streams are left, want that of the push service", n)
		}
	})
}

const streamHeader = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>"

// TestStrangers is a crowd that connects and says nothing.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		for range 3000 {
			pipe(w.srv.ServeClient)
		}
		synctest.Wait()
		juliet, romeo := w.connect("juliet", "phone"), w.connect("romeo", "balcony")
		_, err := romeo.Chat("juliet@localhost", "hello")
		w.ok(err)
		w.ok(juliet.Body(w.ctx(), "hello"))
		time.Sleep(time.Minute)
		synctest.Wait()
		w.srv.mu.Lock()
		n := len(w.srv.streams)
		w.srv.mu.Unlock()
		if n != 3 {
			t.Errorf("%d streams are left", n)
		}
		juliet.Close()
		romeo.Close()
	})
}

// from is a connection from elsewhere.
type from struct {
	net.Conn
	addr net.Addr
}

func (c *from) RemoteAddr() net.Addr { return c.addr }

// TestStrangersOfOneAddress: an address may have so many connections that say nothing. Its others are closed at once, until those have had their time; other
// addresses, whoever has logged in, and this machine are not affected.
func TestStrangersOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.srv.cfg.StrangersPerAddress = 3
		at := func(ip string, serve func(net.Conn)) net.Conn {
			return pipe(func(c net.Conn) { serve(&from{c, &net.TCPAddr{IP: net.ParseIP(ip), Port: 40000}}) })
		}
		over := func(c net.Conn) bool {
			c.SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		component, err := peer.ConnectService(at("192.0.2.1", w.srv.ServeComponent), "other.localhost", "secret")
		w.ok(err)
		for i := range 3 {
			if over(at("192.0.2.1", w.srv.ServeClient)) || over(at(fmt.Sprint("2001:db8::", i), w.srv.ServeComponent)) {
				t.Errorf("connection %d is refused", i)
			}
		}
		for _, c := range []struct {
			ip   string
			over bool
		}{{"192.0.2.1", true}, {"::ffff:192.0.2.1", true}, {"2001:db8::ffff:1", true}, {"192.0.2.2", false}, {"2001:db8:0:1::1", false}, {"127.0.0.1", false}} {
			if got := over(at(c.ip, w.srv.ServeClient)); got != c.over {
				t.Errorf("%s: closed at once: %v", c.ip, got)
			}
		}
		for range 10 {
			if over(at("127.0.0.1", w.srv.ServeClient)) {
				t.Error("this machine is refused")
			}
		}
		w.ok(component.Send(element.New("", "message", "from", "other.localhost", "to", "juliet@localhost").Add(element.New("", "body").Add("still here"))))
		time.Sleep(negotiateIn + 5*time.Second)
		synctest.Wait()
		if n := len(w.srv.strangers.of); n != 0 {
			t.Errorf("%d addresses are still counted", n)
		}
		if over(at("192.0.2.1", w.srv.ServeClient)) {
			t.Error("refused for good")
		}
	})
}

// TestOthersSession: the ID of a session is of no use to another account.
func TestOthersSession(t *testing.T) {
	bubble(t, func(w *world) {
		phone := w.connect("juliet", "phone")
		w.drop(phone)
		if _, err := phone.ResumeAs(pipe(w.srv.ServeClient), peer.Login{Domain: "localhost", User: "romeo", Password: "pw"}); err == nil || !strings.Contains(err.Error(), "item-not-found") {
			t.Errorf("Romeo resumes Juliet's session: %v", err)
		}
		phone = w.resume(phone)
		w.ok(phone.Settle(w.ctx()))
		phone.Close()
	})
}

// TestResumesAtOnce has several connections resume one session. One of them has it in the end, and the others are told.
func TestResumesAtOnce(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		var id string
		conn := pipe(w.srv.ServeClient)
		say := func(c net.Conn, what string) { go c.Write([]byte(what)) }
		in := streamHeader + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte("\x00juliet\x00pw")) + "</auth>" + streamHeader
		say(conn, in+"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>")
		type heard struct {
			text string
			over bool
		}
		var mu sync.Mutex
		said := make(map[net.Conn]*heard)
		listen := func(c net.Conn) {
			h := &heard{}
			said[c] = h
			go func() {
				b := make([]byte, 4096)
				for {
					n, err := c.Read(b)
					mu.Lock()
					h.text += string(b[:n])
					h.over = err != nil
					mu.Unlock()
					if err != nil {
						return
					}
				}
			}()
		}
		listen(conn)
		synctest.Wait()
		mu.Lock()
		_, id, _ = strings.Cut(said[conn].text, "<enabled xmlns='urn:xmpp:sm:3' resume='true' id='")
		mu.Unlock()
		id, _, _ = strings.Cut(id, "'")
		if id == "" {
			t.Fatalf("not resumable: %s", said[conn].text)
		}
		var all []net.Conn
		for range 8 {
			c := pipe(w.srv.ServeClient)
			all = append(all, c)
			listen(c)
			say(c, in+"<resume xmlns='urn:xmpp:sm:3' h='0' previd='"+id+"'/>")
		}
		time.Sleep(time.Minute)
		_, err := romeo.Chat("juliet@localhost", "hello")
		w.ok(err)
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		have := 0
		for _, c := range all {
			text, over := said[c].text, said[c].over
			switch {
			case strings.Contains(text, "hello"):
				if have++; over {
					t.Errorf("it was told by a stream that is over: %s", text)
				}
			case !over:
				t.Errorf("neither in nor out: %s", text)
			case !strings.Contains(text, "<conflict"):
				t.Errorf("out without a word: %s", text)
			}
		}
		mu.Unlock()
		if have != 1 || len(w.srv.sessions("juliet")) != 1 {
			t.Errorf("%d have it, and there are sessions %v", have, w.srv.sessions("juliet"))
		}
		for _, c := range append(all, conn) {
			c.Close()
		}
		romeo.Close()
	})
}

// TestEnablesWithoutEnd is a client that enables push at ever new places.
func TestEnablesWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldLogged(t, 1, push.Policy{}, nil)
		phone := w.connect("juliet", "phone")
		for i := range 2000 {
			w.ok(phone.EnablePush(w.ctx(), fmt.Sprintf("p%d.localhost", i%1000), fmt.Sprint("node", i), strings.Repeat("s", 1000)))
		}
		st, err := w.srv.push.engine.Inspect(w.ctx(), "juliet@localhost")
		w.ok(err)
		if len(st.Registrations) != 5 {
			t.Errorf("%d registrations", len(st.Registrations))
		}
		if n := len(w.srv.push.engine.Services()); n > 5 {
			t.Errorf("%d services are remembered", n)
		}
		phone.Close()
		synctest.Wait()
		p := w.srv.push
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.bindings) + len(p.sessions); n != 0 {
			t.Errorf("%d sessions and bindings are remembered", n)
		}
	})
}

// TestBounds is what an account may have of everything: sessions, contacts, items, messages that wait.
func TestBounds(t *testing.T) {
	t.Parallel()
	bubble(t, func(w *world) {
		for i := range 3 * maxSessions {
			w.connect("nurse", fmt.Sprint("r", i)).Drop()
			if i%10 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if n := len(w.srv.sessions("nurse")); n > maxSessions {
			t.Errorf("%d sessions", n)
		}

		juliet, romeo := w.connect("juliet", "phone"), w.connect("romeo", "balcony")
		for i := range maxContacts + 10 {
			w.ok(w.svc.Send(element.New("", "presence", "type", "subscribe", "from", fmt.Sprint("u", i, "@"+pushDomain), "to", "juliet@localhost")))
		}
		synctest.Wait()
		if n := len(w.srv.accountNamed("juliet").roster); n != maxContacts {
			t.Errorf("%d contacts", n)
		}
		w.refusedSet(juliet, element.New(nsRoster, "query").Add(element.New(nsRoster, "item", "jid", "one@more.example")), "resource-constraint")

		large := strings.Repeat("x", 200_000)
		var err error
		stored := 0
		for i := 0; i < 100 && err == nil; i++ {
			_, err = juliet.Request(w.ctx(), "set", "", element.New(nsPubsub, "pubsub").Add(
				element.New(nsPubsub, "publish", "node", "urn:example").Add(element.New(nsPubsub, "item", "id", fmt.Sprint(i)).Add(element.New("urn:example", "x").Add(large))),
				element.New(nsPubsub, "publish-options").Add(element.Form("submit", nsPubsubOpts, "pubsub#max_items", "max"))))
			stored += len(large)
		}
		if err == nil || !strings.Contains(err.Error(), "resource-constraint") || stored > maxPEPBytes+2*len(large) {
			t.Errorf("%d bytes published: %v", stored, err)
		}

		// A sleeping phone's queue is full: its session ends, and what waited is offline. That is full too: the archive has the rest, and without one the sender
		// is told.
		w.drop(juliet)
		const messages = 60
		for i := range messages {
			_, err := romeo.Chat("juliet@localhost", fmt.Sprint(i, large))
			w.ok(err)
		}
		w.ok(romeo.Settle(w.ctx()))
		if n := len(w.srv.sessions("juliet")); n != 0 {
			t.Errorf("%d sessions", n)
		}
		a := w.srv.accountNamed("juliet")
		if a.offlineBytes > maxOfflineBytes || len(a.offline) == 0 {
			t.Errorf("%d messages with %d bytes are offline", len(a.offline), a.offlineBytes)
		}
		w.ok(romeo.Send(element.New("", "message", "type", "chat", "to", "juliet@localhost").Add(
			element.New("", "body").Add(large), element.New(nsHints, "no-permanent-store"))))
		_, err = romeo.Receive(w.ctx(), isError("resource-constraint"))
		w.ok(err)
		juliet = w.connect("juliet", "laptop")
		if texts := archive(w.t, juliet); len(texts) != messages {
			t.Errorf("the archive has %d messages", len(texts))
		}
		juliet.Close()
		romeo.Close()
	})
}

// refusedSet checks that a set to the own account is answered with this error.
func (w *world) refusedSet(c *peer.Client, payload *element.Element, want string) {
	w.t.Helper()
	if _, err := c.Request(w.ctx(), "set", "", payload); err == nil || !strings.Contains(err.Error(), "<"+want) {
		w.t.Errorf("answered %v, want %s", err, want)
	}
}

// TestAcceptedForGood sends messages that are larger on the disk than on the wire, as deep and with as many attributes as can be. The server starts with them.
func TestAcceptedForGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"-user", "juliet:pw", "-user", "romeo:pw", "-quiet"}
	p := start(t, dir, args...)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	connect := func(user, resource string) *peer.Client {
		c, err := peer.Connect(p.dial(), peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: resource, Resumable: true})
		ok(err)
		return c
	}
	phone, laptop, romeo := connect("juliet", "phone"), connect("juliet", "laptop"), connect("romeo", "r")
	for _, c := range []*peer.Client{phone, laptop} {
		ok(c.EnableCarbons(t.Context()))
	}
	ok(phone.Available())
	ok(phone.Settle(t.Context()))
	phone.Drop()
	laptop.Drop()
	texts := []string{strings.Repeat(">", 250_000), strings.Repeat("'", 1000)}
	for _, text := range texts {
		ok(romeo.Raw([]byte("<message type='chat' to='juliet@localhost'><body>" + text + "</body></message>")))
	}
	deep := element.New("", "message", "type", "chat", "to", "juliet@localhost").Add(element.New("", "body").Add("deep"))
	at := deep
	for range 46 {
		next := element.New("urn:example", "x")
		at.Add(next)
		at = next
	}
	for i := range 60 {
		deep.Set(fmt.Sprint("a", i), "x")
	}
	ok(romeo.Send(deep))
	ok(romeo.Settle(t.Context()))
	p.end(syscall.SIGKILL)
	p = start(t, dir, args...)
	defer p.end(syscall.SIGTERM)
	for _, c := range []*peer.Client{phone, laptop} {
		c, err := c.Resume(p.dial())
		ok(err)
		for _, text := range append(texts, "deep") {
			ok(c.Body(t.Context(), text))
		}
		if got := archive(t, c); len(got) != 3 {
			t.Errorf("the archive has %d messages", len(got))
		}
	}
}

// TestDiskFull fills the disk under a server. Nothing is acknowledged then, and all of it when there is room again.
func TestDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small disk to be had, which takes root on Linux: %s", out)
	}
	defer exec.Command("umount", dir).Run()
	args := []string{"-user", "juliet:pw", "-user", "romeo:pw", "-quiet"}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, dir, args...)
	login := func(user string) peer.Login {
		return peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: "r", Resumable: true}
	}
	service, err := peer.ConnectService(p.dialService(), pushDomain, "s")
	ok(err)
	phone, err := peer.Connect(p.dial(), login("juliet"))
	ok(err)
	ok(phone.EnablePush(t.Context(), pushDomain, "n1", "s3"))
	phone.Close()
	romeo, err := peer.Connect(p.dial(), login("romeo"))
	ok(err)
	ok(romeo.Settle(t.Context()))

	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	ok(err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	const messages = 200
	for i := range messages {
		_, err = romeo.Chat("juliet@localhost", fmt.Sprint(i, strings.Repeat("x", 1000)))
		ok(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = service.Next(ctx) // the phone is woken all the same
	ok(err)
	if err := romeo.Settle(ctx); err == nil {
		t.Error("acknowledged on a full disk")
	}
	ok(os.Remove(filler))
	later, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ok(romeo.Settle(later))
	p.end(syscall.SIGKILL)

	p = start(t, dir, args...)
	defer p.end(syscall.SIGTERM)
	phone, err = peer.Connect(p.dial(), login("juliet"))
	ok(err)
	if texts := archive(t, phone); len(texts) != messages {
		t.Errorf("the archive has %d messages of %d", len(texts), messages)
	}
}
