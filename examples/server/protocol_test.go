package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// bubble runs a test in virtual time, in a world with accounts juliet, romeo and nurse.
func bubble(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		test(w)
	})
}

// TestBubbleFails has a story fail in its middle, with clients connected, asleep and waited for. The failure is what is reported, and other tests go on.
func TestBubbleFails(t *testing.T) {
	if os.Getenv("PUSH_TEST_FAIL") == "1" {
		bubble(t, func(w *world) {
			juliet, romeo := w.connect("juliet", "phone"), w.connect("romeo", "balcony")
			w.ok(juliet.EnablePush(w.ctx(), pushDomain, "n1", ""))
			w.drop(juliet)
			go romeo.Body(context.Background(), "never")
			w.ok(errors.New("on purpose"))
		})
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBubbleFails$|^TestRouting$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), "PUSH_TEST_FAIL=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("it did not fail: %v\n%s", err, out)
	}
	for _, want := range []string{"on purpose", "--- FAIL: TestBubbleFails", "--- PASS: TestRouting"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(string(out), "panic") || t.Failed() {
		t.Errorf("it says:\n%s", out)
	}
}

// refused checks that an IQ is answered with this error.
func (w *world) refused(c *peer.Client, to string, payload *element.Element, want string) {
	w.t.Helper()
	_, err := c.Request(w.ctx(), "get", to, payload)
	if err == nil || !strings.Contains(err.Error(), "<"+want) {
		w.t.Errorf("an IQ to %s: %v, want %s", to, err, want)
	}
}

// nothing checks that a client gets nothing for a while but what it knows.
func (w *world) nothing(c *peer.Client, what string, ok func(*element.Element) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx(), time.Minute)
	defer cancel()
	if e, err := c.Receive(ctx, ok); err == nil {
		w.t.Errorf("%s: %s", what, e)
	}
}

func isError(condition string) func(*element.Element) bool {
	return func(e *element.Element) bool {
		return e.Get("type") == "error" && e.Child("", "error").Child(element.NSStanzas, condition) != nil
	}
}

func TestRouting(t *testing.T) {
	bubble(t, func(w *world) {
		juliet, romeo := w.connect("juliet", "phone"), w.connect("romeo", "balcony")
		ping := element.New(nsPing, "ping")
		for to, want := range map[string]string{
			"juliet@localhost":        "service-unavailable",
			"juliet@localhost/none":   "service-unavailable",
			"nobody@localhost":        "service-unavailable",
			"nowhere.example":         "remote-server-not-found",
			"push.localhost/resource": "",
			"@@":                      "jid-malformed",
			"localhost":               "",
		} {
			if want == "" {
				continue
			}
			w.refused(romeo, to, ping, want)
		}
		_, err := romeo.Request(w.ctx(), "get", "localhost", ping)
		w.ok(err)
		w.refused(romeo, "localhost", element.New("urn:example", "unknown"), "service-unavailable")

		// An IQ between clients, and who it is from.
		w.ok(romeo.Send(element.New("", "iq", "type", "get", "id", "q", "from", "nurse@localhost/forged", "to", juliet.JID).Add(ping)))
		q, err := juliet.Receive(w.ctx(), func(e *element.Element) bool { return e.Get("id") == "q" })
		w.ok(err)
		if q.Get("from") != romeo.JID {
			t.Errorf("an IQ came from %q", q.Get("from"))
		}
		w.ok(juliet.Send(element.Result(q)))
		_, err = romeo.Receive(w.ctx(), func(e *element.Element) bool { return e.Get("id") == "q" && e.Get("type") == "result" })
		w.ok(err)

		// Messages that cannot be delivered.
		for _, m := range []*element.Element{
			element.New("", "message", "type", "chat", "to", "nobody@localhost"),
			element.New("", "message", "type", "groupchat", "to", "juliet@localhost"),
		} {
			w.ok(romeo.Send(m.Add(element.New("", "body").Add("?"))))
			_, err := romeo.Receive(w.ctx(), isError("service-unavailable"))
			w.ok(err)
		}
		// To a resource that is gone: to the others.
		w.ok(romeo.Send(element.New("", "message", "type", "chat", "to", "juliet@localhost/gone").Add(element.New("", "body").Add("still"))))
		w.ok(juliet.Body(w.ctx(), "still"))
		// Headlines are not kept.
		w.ok(romeo.Send(element.New("", "message", "type", "headline", "to", "nurse@localhost").Add(element.New("", "body").Add("news"))))
		synctest.Wait()
		nurse := w.connect("nurse", "n")
		w.nothing(nurse, "a headline out of offline storage", func(e *element.Element) bool { return e.Name.Local == "message" })
		nurse.Close()
		juliet.Close()
		romeo.Close()
	})
}

// TestPriorities checks that messages go to the resources with the highest priority, copies to those that want them, and none to a negative one.
func TestPriorities(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		high, low, never := w.connect("juliet", "high"), w.connect("juliet", "low"), w.connect("juliet", "never")
		prio := func(c *peer.Client, p string) {
			w.ok(c.Send(element.New("", "presence").Add(element.New("", "priority").Add(p))))
		}
		prio(high, "5")
		prio(low, "1")
		prio(never, "-1")
		w.ok(low.EnableCarbons(w.ctx()))
		synctest.Wait()
		romeo.Chat("juliet@localhost", "hello")
		w.ok(high.Body(w.ctx(), "hello"))
		e, err := low.Receive(w.ctx(), func(e *element.Element) bool { return peer.BodyOf(e) == "hello" })
		w.ok(err)
		if e.Child(nsCarbons, "received") == nil || e.Get("from") != "juliet@localhost" {
			t.Errorf("not a copy: %s", e)
		}
		body := func(e *element.Element) bool { return peer.BodyOf(e) != "" }
		w.nothing(never, "a message to a resource that wants none", body)
		w.nothing(low, "two copies", body)
		w.nothing(high, "a copy of what it has", body)
		for _, c := range []*peer.Client{romeo, high, low, never} {
			c.Close()
		}
	})
}

// TestHandOn checks what becomes of unacknowledged messages when a session runs out: another resource gets them, unless it has them already.
func TestHandOn(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		phone := w.connect("juliet", "phone")
		w.drop(phone)
		romeo.Chat("juliet@localhost/phone", "one")
		synctest.Wait()
		desktop := w.connect("juliet", "desktop")
		romeo.Chat("juliet@localhost", "two") // both get it
		w.ok(desktop.Body(w.ctx(), "two"))
		time.Sleep(11 * time.Minute)
		e, err := desktop.Receive(w.ctx(), func(e *element.Element) bool { return peer.BodyOf(e) == "one" })
		w.ok(err)
		if e.Child("urn:xmpp:delay", "delay") == nil {
			t.Error("it does not say that it comes late")
		}
		w.nothing(desktop, "what it had", func(e *element.Element) bool { return peer.BodyOf(e) != "" })
		// An IQ to the session comes back.
		tablet := w.connect("juliet", "tablet")
		w.drop(tablet)
		w.ok(romeo.Send(element.New("", "iq", "type", "get", "id", "q", "to", tablet.JID).Add(element.New(nsPing, "ping"))))
		_, err = romeo.Receive(w.ctx(), isError("recipient-unavailable"))
		w.ok(err)
		romeo.Close()
		desktop.Close()
	})
}

// TestQuickResume lets a client resume before the server knows that its old connection is dead.
func TestQuickResume(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		phone := w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", ""))
		synctest.Wait()
		phone.Deaf()
		romeo.Chat("juliet@localhost", "one")
		synctest.Wait()
		phone.Abandon()
		n := w.resume(phone)
		w.ok(n.Body(w.ctx(), "one"))
		w.published(time.Hour)
		// Somebody else's session is not resumed.
		if _, err := n.ResumeAs(pipe(w.srv.ServeClient), w.login("romeo", "thief")); err == nil {
			t.Error("resumed the session of another account")
		}
		romeo.Chat("juliet@localhost", "two")
		w.ok(n.Body(w.ctx(), "two"))
		n.Close()
		romeo.Close()
	})
}

// TestConflict binds a resource twice: the older session goes, and what it has not acknowledged is not lost.
func TestConflict(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		first := w.connect("juliet", "phone")
		synctest.Wait()
		first.Deaf()
		romeo.Chat("juliet@localhost", "one")
		synctest.Wait()
		second := w.connect("juliet", "phone")
		w.ok(second.Body(w.ctx(), "one"))
		w.ok(first.Body(w.ctx(), "one"))
		if _, err := first.Receive(w.ctx(), func(*element.Element) bool { return false }); err != peer.ErrGone {
			t.Errorf("the first session: %v", err)
		}
		if got := w.srv.sessions("juliet"); !slices.Equal(got, []string{"juliet@localhost/phone"}) {
			t.Errorf("sessions %q", got)
		}
		second.Close()
		romeo.Close()
	})
}

// TestClientState keeps presence and typing from a client that nobody looks at, and from waking it.
func TestClientState(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		phone := w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", ""))
		w.ok(phone.Nonza(element.New(nsCSI, "inactive")))
		w.drop(phone)
		for range 3 {
			w.ok(romeo.Send(element.New("", "message", "type", "chat", "to", "juliet@localhost").Add(
				element.New("http://jabber.org/protocol/chatstates", "composing"))))
		}
		w.published(time.Minute)
		romeo.Chat("juliet@localhost", "hello")
		w.published(2*time.Second, "n1 alert")
		phone = w.resume(phone)
		w.ok(phone.Body(w.ctx(), "hello"))
		typing := func(e *element.Element) bool {
			return e.Child("http://jabber.org/protocol/chatstates", "composing") != nil
		}
		_, err := phone.Receive(w.ctx(), typing)
		w.ok(err)
		w.nothing(phone, "what is outdated", typing)
		phone.Close()
		romeo.Close()
	})
}

// TestArchive pages through an archive in both directions.
func TestArchive(t *testing.T) {
	bubble(t, func(w *world) {
		romeo, nurse := w.connect("romeo", "balcony"), w.connect("nurse", "n")
		for i := range 5 {
			romeo.Chat("juliet@localhost", fmt.Sprint("r", i))
			time.Sleep(time.Second)
		}
		nurse.Chat("juliet@localhost", "n0")
		romeo.Send(element.New("", "message", "type", "chat", "to", "juliet@localhost").Add(element.New("", "body").Add("secret"), element.New(nsHints, "no-store")))
		time.Sleep(time.Second)
		juliet := w.connect("juliet", "phone")
		query := func(form *element.Element, rsm ...any) (bodies []string, fin *element.Element) {
			t.Helper()
			reply, err := juliet.Request(w.ctx(), "set", "", element.New(nsMAM, "query", "queryid", "q").Add(form, element.New(nsRSM, "set").Add(rsm...)))
			w.ok(err)
			for {
				ctx, cancel := context.WithTimeout(w.ctx(), time.Millisecond)
				e, err := juliet.Receive(ctx, func(e *element.Element) bool { return e.Child(nsMAM, "result") != nil })
				cancel()
				if err != nil {
					return bodies, reply.First()
				}
				bodies = append(bodies, peer.BodyOf(e))
			}
		}
		maximum := func(n string) *element.Element { return element.New(nsRSM, "max").Add(n) }
		check := func(bodies []string, fin *element.Element, complete bool, want ...string) *element.Element {
			t.Helper()
			if !slices.Equal(bodies, want) || (fin.Get("complete") == "true") != complete {
				t.Errorf("%q, %s; want %q", bodies, fin, want)
			}
			return fin.Child(nsRSM, "set")
		}
		bodies, fin := query(nil)
		check(bodies, fin, true, "r0", "r1", "r2", "r3", "r4", "n0")
		bodies, fin = query(nil, maximum("4"))
		set := check(bodies, fin, false, "r0", "r1", "r2", "r3")
		bodies, fin = query(nil, maximum("4"), element.New(nsRSM, "after").Add(set.Child(nsRSM, "last").Text()))
		check(bodies, fin, true, "r4", "n0")
		bodies, fin = query(nil, maximum("2"), element.New(nsRSM, "before"))
		set = check(bodies, fin, false, "r4", "n0")
		bodies, fin = query(nil, maximum("9"), element.New(nsRSM, "before").Add(set.Child(nsRSM, "first").Text()))
		check(bodies, fin, true, "r0", "r1", "r2", "r3")
		bodies, fin = query(element.Form("submit", nsMAM, "with", "nurse@localhost"))
		check(bodies, fin, true, "n0")
		bodies, fin = query(element.Form("submit", nsMAM, "start", time.Now().Add(-2500*time.Millisecond).UTC().Format(time.RFC3339Nano)))
		check(bodies, fin, true, "r4", "n0")
		if _, err := juliet.Request(w.ctx(), "set", "", element.New(nsMAM, "query").Add(element.New(nsRSM, "set").Add(element.New(nsRSM, "after").Add("?")))); err == nil {
			t.Error("a page after nothing")
		}
		for _, c := range []*peer.Client{romeo, nurse, juliet} {
			c.Close()
		}
	})
}

// TestPreferences is what an account wants archived.
func TestPreferences(t *testing.T) {
	bubble(t, func(w *world) {
		juliet, romeo, nurse := w.connect("juliet", "phone"), w.connect("romeo", "balcony"), w.connect("nurse", "n")
		prefs := func(def, always, never string) *element.Element {
			p := element.New(nsMAM, "prefs", "default", def)
			for name, j := range map[string]string{"always": always, "never": never} {
				list := element.New(nsMAM, name)
				if j != "" {
					list.Add(element.New(nsMAM, "jid").Add(j))
				}
				p.Add(list)
			}
			return p
		}
		reply, err := juliet.Request(w.ctx(), "get", "", element.New(nsMAM, "prefs"))
		w.ok(err)
		if p := reply.First(); !p.Is(nsMAM, "prefs") || p.Get("default") != "always" {
			t.Errorf("at first: %s", p)
		}
		n := 0
		// kept sends a message from both and tells whose are in the archive.
		kept := func(set *element.Element) (got string) {
			t.Helper()
			_, err := juliet.Request(w.ctx(), "set", "", set)
			w.ok(err)
			n++
			for _, c := range []*peer.Client{romeo, nurse} {
				body := fmt.Sprint(c.JID, n)
				_, err := c.Chat("juliet@localhost", body)
				w.ok(err)
				w.ok(juliet.Body(w.ctx(), body)) // it arrives all the same
			}
			for _, text := range archive(w.t, juliet) {
				if strings.HasSuffix(text, fmt.Sprint(n)) {
					got += text[:1]
				}
			}
			return got
		}
		for _, c := range []struct {
			set  *element.Element
			want string
		}{
			{prefs("never", "", ""), ""},
			{prefs("never", "nurse@localhost/any", ""), "n"},
			{prefs("always", "", "nurse@localhost"), "r"},
			{prefs("roster", "", ""), ""},
			{prefs("always", "", ""), "rn"},
		} {
			if got := kept(c.set); got != c.want {
				t.Errorf("%s: archived from %q, want %q", c.set, got, c.want)
			}
		}
		_, err = juliet.Request(w.ctx(), "set", "", element.New(nsRoster, "query").Add(element.New(nsRoster, "item", "jid", "nurse@localhost")))
		w.ok(err)
		if got := kept(prefs("roster", "", "")); got != "n" {
			t.Errorf("contacts only: %q", got)
		}
		if _, err := juliet.Request(w.ctx(), "set", "", prefs("sometimes", "", "")); err == nil {
			t.Error("a default that there is not")
		}
		for _, c := range []*peer.Client{juliet, romeo, nurse} {
			c.Close()
		}
	})
}

// TestContacts lets two people become contacts and see each other.
func TestContacts(t *testing.T) {
	bubble(t, func(w *world) {
		juliet, romeo := w.connect("juliet", "phone"), w.connect("romeo", "balcony")
		for _, c := range []*peer.Client{juliet, romeo} {
			_, err := c.Request(w.ctx(), "get", "", element.New(nsRoster, "query"))
			w.ok(err)
		}
		presence := func(typ, from string) func(*element.Element) bool {
			return func(e *element.Element) bool {
				return e.Name.Local == "presence" && e.Get("type") == typ && strings.HasPrefix(e.Get("from"), from)
			}
		}
		for _, p := range [][2]*peer.Client{{juliet, romeo}, {romeo, juliet}} {
			a, b := p[0], p[1]
			bareA, _, _ := strings.Cut(a.JID, "/")
			bareB, _, _ := strings.Cut(b.JID, "/")
			w.ok(a.Send(element.New("", "presence", "type", "subscribe", "to", bareB)))
			_, err := b.Receive(w.ctx(), presence("subscribe", bareA))
			w.ok(err)
			w.ok(b.Send(element.New("", "presence", "type", "subscribed", "to", bareA)))
			_, err = a.Receive(w.ctx(), presence("subscribed", bareB))
			w.ok(err)
			_, err = a.Receive(w.ctx(), presence("", b.JID))
			w.ok(err)
		}
		reply, err := juliet.Request(w.ctx(), "get", "", element.New(nsRoster, "query"))
		w.ok(err)
		if item := reply.First().First(); item == nil || item.Get("jid") != "romeo@localhost" || item.Get("subscription") != "both" {
			t.Errorf("the roster has %s", reply)
		}
		romeo.Close()
		_, err = juliet.Receive(w.ctx(), presence("unavailable", "romeo@localhost/balcony"))
		w.ok(err)
		romeo = w.connect("romeo", "balcony")
		_, err = juliet.Receive(w.ctx(), presence("", "romeo@localhost/balcony"))
		w.ok(err)
		_, err = romeo.Receive(w.ctx(), presence("", "juliet@localhost/phone"))
		w.ok(err)
		juliet.Close()
		romeo.Close()
	})
}

// TestRevoked is a push service that revokes a node (XEP-0357 §8); from others that is an ordinary message.
func TestRevoked(t *testing.T) {
	bubble(t, func(w *world) {
		romeo := w.connect("romeo", "balcony")
		phone := w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", ""))
		phone.Close()
		revoke := func(from string) *element.Element {
			const ns = "http://jabber.org/protocol/pubsub"
			return element.New("", "message", "from", from, "to", "juliet@localhost").Add(
				element.New(ns, "pubsub", "node", "n1").Add(element.New(ns, "affiliation", "jid", "juliet@localhost", "affiliation", "none")))
		}
		w.ok(romeo.Send(revoke(pushDomain)))
		w.published(time.Second, "n1 plain") // stored offline like any other
		romeo.Chat("juliet@localhost", "one")
		w.published(time.Second, "n1 alert")
		w.ok(w.svc.Send(revoke(pushDomain)))
		synctest.Wait()
		romeo.Chat("juliet@localhost", "two")
		w.published(time.Second)
		romeo.Close()
	})
}

// TestRefused is what the server says to those who cannot log in, or do not speak XMPP.
func TestRefused(t *testing.T) {
	const open = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>"
	plain := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	auth := func(mechanism, text string) string {
		return "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='" + mechanism + "'>" + text + "</auth>"
	}
	in := open + auth("PLAIN", plain("\x00juliet\x00pw")) + open
	// auth2 is XEP-0388.
	auth2 := func(mechanism, more string) string {
		return "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='" + mechanism + "'>" + more + "</authenticate>"
	}
	first := func(s string) string { return "<initial-response>" + plain(s) + "</initial-response>" }
	for name, c := range map[string]struct{ say, want string }{
		"wrong password":      {open + auth("PLAIN", plain("\x00juliet\x00no")), "<not-authorized"},
		"no such account":     {open + auth("PLAIN", plain("\x00nobody\x00pw")), "<not-authorized"},
		"as somebody else":    {open + auth("PLAIN", plain("romeo@localhost\x00juliet\x00pw")), "<not-authorized"},
		"no such mechanism":   {open + auth("CRAM-MD5", ""), "<invalid-mechanism"},
		"not base64":          {open + auth("PLAIN", "!"), "<incorrect-encoding"},
		"SCRAM nonsense":      {open + auth("SCRAM-SHA-256", plain("nonsense")), "<not-authorized"},
		"too many tries":      {open + strings.Repeat(auth("PLAIN", plain("\x00juliet\x00no")), 4), "<stream:error><not-authorized"},
		"second try":          {open + auth("PLAIN", plain("\x00juliet\x00no")) + auth("PLAIN", plain("\x00juliet\x00pw")) + open, "<bind"},
		"v2, wrong password":  {open + auth2("PLAIN", first("\x00juliet\x00no")), "<failure xmlns='urn:xmpp:sasl:2'><not-authorized"},
		"v2, no mechanism":    {open + auth2("CRAM-MD5", first("")), "<failure xmlns='urn:xmpp:sasl:2'><invalid-mechanism"},
		"v2, in two steps":    {open + auth2("PLAIN", "") + "<response xmlns='urn:xmpp:sasl:2'>" + plain("\x00juliet\x00pw") + "</response>", "<authorization-identifier>juliet@localhost<"},
		"v2, old binding":     {open + auth2("PLAIN", first("\x00juliet\x00pw")) + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "<jid>juliet@localhost/"},
		"v2, resume nothing":  {open + auth2("PLAIN", first("\x00juliet\x00pw")+"<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/><bind xmlns='urn:xmpp:bind:0'/>"), "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed><bound"},
		"v2, a bad tag":       {open + auth2("PLAIN", first("\x00juliet\x00pw")+"<bind xmlns='urn:xmpp:bind:0'><tag>"+strings.Repeat("x", 2000)+"</tag></bind>"), "<policy-violation"},
		"before logging in":   {open + "<message/>", "<not-authorized"},
		"before binding":      {in + "<message/>", "<not-authorized"},
		"another host":        {strings.Replace(open, "to='localhost'", "to='example.com'", 1), "<host-unknown"},
		"not XML":             {"GET / HTTP/1.1\r\n\r\n", ""},
		"broken XML":          {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><a></b>", "<not-well-formed"},
		"a comment":           {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><!-- -->", "<not-well-formed"},
		"a bad resource":      {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + strings.Repeat("x", 2000) + "</resource></bind></iq>", "<bad-request"},
		"nothing to resume":   {in + "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>", "<item-not-found"},
		"too much counted":    {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><enable xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='9'/>", "<undefined-condition"},
		"an unknown element":  {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><x xmlns='urn:example'/>", "<unsupported-stanza-type"},
		"deep":                {in + strings.Repeat("<a>", 100), "<not-well-formed"},
		"large":               {in + "<message><body>" + strings.Repeat("x", 300_000), "<not-well-formed"},
		"large, from nobody":  {open + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + strings.Repeat("A", 20_000), "<not-well-formed"},
		"a bomb":              {"<?xml version='1.0'?><!DOCTYPE b [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>" + open, "<not-well-formed"},
		"an unknown entity":   {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><message><body>&lol;</body></message>", "<not-well-formed"},
		"not UTF-8":           {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><message><body>\xff\xfe</body></message>", "<not-well-formed"},
		"many attributes":     {in + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><message" + attributes(100) + "/>", "<not-well-formed"},
		"a response unasked":  {open + "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AA==</response>", "<not-authorized"},
		"SCRAM that stops":    {open + auth("SCRAM-SHA-1", plain("n,,n=juliet,r=x")) + "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", "<aborted"},
		"SCRAM out of order":  {open + auth("SCRAM-SHA-1", plain("n,,n=juliet,r=x")) + auth("PLAIN", plain("\x00juliet\x00pw")), "<malformed-request"},
		"SCRAM made up":       {open + auth("SCRAM-SHA-1", plain("n,,n=juliet,r=x")) + "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>" + plain("c=biws,r=x,p=AAAA") + "</response>", "<not-authorized"},
		"an hour of silence":  {open, "</stream:stream>"},
		"a component's words": {strings.Replace(open, "jabber:client", "jabber:component:accept", 1), "<stream:features"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				conn := pipe(w.srv.ServeClient)
				go conn.Write([]byte(c.say))
				time.AfterFunc(time.Hour, func() { conn.Close() })
				said, _ := io.ReadAll(conn)
				if !strings.Contains(string(said), c.want) {
					t.Errorf("the server said %s, not %s", said, c.want)
				}
			})
		})
	}
}

func attributes(n int) (s string) {
	for i := range n {
		s += fmt.Sprintf(" a%d='x'", i)
	}
	return s
}

// TestComponents is who may be a component.
func TestComponents(t *testing.T) {
	bubble(t, func(w *world) {
		connect := func(domain, secret string) error {
			svc, err := peer.ConnectService(pipe(w.srv.ServeComponent), domain, secret)
			if err == nil {
				svc.Close()
			}
			return err
		}
		w.ok(connect("other.localhost", "secret"))
		for _, c := range [][2]string{{"other.localhost", "wrong"}, {"localhost", "secret"}, {"a@b", "secret"}, {"", "secret"}} {
			if connect(c[0], c[1]) == nil {
				t.Errorf("%q with secret %q is a component now", c[0], c[1])
			}
		}
		// It speaks for itself only.
		w.ok(w.svc.Send(element.New("", "message", "from", "romeo@localhost", "to", "juliet@localhost")))
		if _, err := w.svc.Next(w.ctx()); err != peer.ErrGone {
			t.Errorf("a component that lies: %v", err)
		}
		// A new connection takes the place of a dead one.
		one, err := peer.ConnectService(pipe(w.srv.ServeComponent), pushDomain, "secret")
		w.ok(err)
		w.svc, err = peer.ConnectService(pipe(w.srv.ServeComponent), pushDomain, "secret")
		w.ok(err)
		if _, err := one.Next(w.ctx()); err != peer.ErrGone {
			t.Errorf("the older connection: %v", err)
		}
		phone := w.connect("juliet", "phone")
		w.ok(phone.EnablePush(w.ctx(), pushDomain, "n1", ""))
		phone.Close()
		romeo := w.connect("romeo", "balcony")
		romeo.Chat("juliet@localhost", "one")
		w.published(time.Second, "n1 alert")
		romeo.Close()
	})
}
