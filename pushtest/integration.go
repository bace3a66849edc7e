package pushtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a host with an Engine in it, as Integration needs it. The methods return when what they cause has happened as far as the server can tell; publishes
// may follow later. They are called one after another. Their stanzas have no namespace declared: they are in the stream's.
type Server interface {
	// Connect logs a device in: a new session with stream management (XEP-0198), so that it can be resumed, with this resource. account is a name
	// without a domain, such as "juliet": it stands for juliet@example.com, which exists from now on, and has an archive if the server has any. The
	// device is available: it gets messages to its account's bare JID.
	Connect(account, resource string) Device
	// Resume resumes a session that was cut. Its device gets and acknowledges what was queued.
	Resume(d Device)
	// Route gives the server a stanza that came from another server, such as a message from romeo@example.net.
	Route(stanza []byte)
}

// Device is a device's end of a session. It acknowledges at once whatever it is sent, and need not keep it: the suite looks at publishes only.
type Device interface {
	// Send sends a stanza to the server: a request to enable or disable push, or a message. It has no from.
	Send(stanza []byte)
	// Cut cuts the connection without a word. The session can be resumed for as long as the test runs.
	Cut()
	// Close ends the session: if it was cut, as if the time for a resumption had run out.
	Close()
}

// Staller is a Device that can stop acknowledging while its connection lives, until that is cut. It is optional; without it some of the script is left
// out. The server may wait for an acknowledgement as long as it likes.
type Staller interface {
	Stall()
}

// Integration tests how a host raises events. It plays stories of accounts and their devices, and looks at the publishes that come out. open is
// called once. It returns a server for the domain Host, whose Engine has the default Policy; only Delay may be shorter. Its publishes, to whatever
// address, are given to service, and the replies that service returns come back to the server as if the push service had sent them: see
// [Publisher]. What else goes to other domains may be given to it as well, and is ignored. service may be called from several goroutines at once. open registers with t.Cleanup whatever has to be closed.
//
// It waits for the absence of publishes, two seconds each time: in a bubble of testing/synctest that takes no time, with a real server about a minute.
func Integration(t testing.TB, open func(t testing.TB, service func(iq []byte) (replies [][]byte)) Server) {
	s := &story{TB: t, run: rand.Uint32(), failures: make(map[string]string)}
	s.server = open(t, s.serve)
	for _, c := range []struct {
		name string
		play func(s *story)
	}{
		{"a phone sleeps, is woken, and comes back", storySleep},
		{"what a resumption brings is not pushed", storyResumed},
		{"what was not acknowledged is pushed when the connection is lost", storyStalled},
		{"a stanza that comes by several ways is pushed once", storyOnce},
		{"each device by its own state", storyTwoDevices},
		{"what the user sends is not pushed to the user", storyOwn},
		{"a call goes to everybody", storyCall},
		{"a device that disabled push is left alone", storyDisable},
		{"a device whose push service knows it no more is left alone", storyGone},
		{"options and addresses are sent as they were given", storyOptions},
	} {
		s.name = c.name
		s.number++
		c.play(s)
		s.wantPushes("afterwards")
		s.mu.Lock()
		any := s.any
		s.mu.Unlock()
		if !any {
			s.Fatalf("not one publish has come to service: is %s@%s what Connect logs in, does Send answer <enable/> by ParseRequest(…).Answer(…), and does the Publisher hand its IQs to service?",
				s.account("juliet"), Host)
		}
	}
}

// story is one of the stories of Integration.
type story struct {
	testing.TB
	server Server
	run    uint32
	name   string
	number int
	stanza int

	mu       sync.Mutex
	got      []element
	any      bool              // something came
	failures map[string]string // node to the payload of the error that it is answered
}

const quiet = 2 * time.Second

func (s *story) serve(iq []byte) [][]byte {
	e, err := parse(iq)
	if err != nil {
		s.Errorf("an IQ cannot be parsed: %v\n%q", err, iq)
		return nil
	}
	if e.find("publish").XMLName.Local == "" {
		return nil // what else a server sends elsewhere, such as a message to romeo@example.net
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got, s.any = append(s.got, e), true
	return [][]byte{reply(&e, s.failures[e.find("publish").attr("node")])}
}

// account returns a name that no other story has.
func (s *story) account(name string) string { return fmt.Sprintf("%s-%d-%08x", name, s.number, s.run) }

// node returns the node of an account's device.
func (s *story) node(account, resource string) string { return s.account(account) + "/" + resource }

func (s *story) connect(account, resource string) Device {
	return s.server.Connect(s.account(account), resource)
}

// enabled returns a device that has enabled push.
func (s *story) enabled(account, resource string) Device {
	d := s.connect(account, resource)
	s.enable(d, account, resource)
	return d
}

func (s *story) enable(d Device, account, resource string) {
	d.Send(fmt.Appendf(nil, `<iq type="set" id="%s"><enable xmlns="urn:xmpp:push:0" jid="%s" node="%s"><x xmlns="jabber:x:data" type="submit">`+
		`<field var="FORM_TYPE"><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var="secret"><value>s&amp;&lt;</value></field></x></enable></iq>`,
		s.id(), Service, s.node(account, resource)))
}

func (s *story) id() string {
	s.stanza++
	return fmt.Sprintf("i%d-%08x", s.stanza, s.run)
}

// message is a chat message with some payload.
func (s *story) message(account, payload string) []byte {
	return fmt.Appendf(nil, `<message type="chat" from="romeo@example.net/orchard" to="%s@%s" id="%s">%s</message>`, s.account(account), Host, s.id(), payload)
}

const body, silent = `<body>Wherefore art thou?</body>`, `<composing xmlns="http://jabber.org/protocol/chatstates"/>`

// wantPushes waits and checks that these nodes, and no others, were published to since the last time. A node with an exclamation mark is
// alerted, one without is woken in silence.
func (s *story) wantPushes(when string, nodes ...string) {
	s.Helper()
	for deadline := time.Now().Add(patience); len(nodes) > 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		n := len(s.got)
		s.mu.Unlock()
		if n >= len(nodes) {
			break
		}
	}
	time.Sleep(quiet)
	s.mu.Lock()
	pushed := s.got
	s.got = nil
	s.mu.Unlock()
	want := make(map[string]int)
	for _, n := range nodes {
		want[n]++
	}
	for i := range pushed {
		n := pushed[i].find("publish").attr("node")
		for _, f := range pushed[i].find("notification").find("x").Children {
			if f.attr("var") == "last-message-body" {
				n += "!"
			}
		}
		want[n]--
	}
	for n, count := range want {
		node, alerting := strings.CutSuffix(n, "!")
		kind := "silent push"
		if alerting {
			kind = "alert"
		}
		switch {
		case count > 0:
			s.Errorf("%s: %s: no %s to %s", s.name, when, kind, node)
		case count < 0:
			s.Errorf("%s: %s: %s to %s that should not be, or one too many", s.name, when, kind, node)
		}
	}
}

func storySleep(s *story) {
	phone := s.enabled("juliet", "phone")
	node := s.node("juliet", "phone")
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message to a connected phone")
	phone.Cut()
	s.wantPushes("the connection is lost, with everything acknowledged")
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message to a phone that sleeps", node+"!")
	s.server.Route(s.message("juliet", silent))
	s.wantPushes("a chat state to a phone that sleeps", node)
	s.server.Resume(phone)
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message after the resumption")
	phone.Cut()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message after the second cut", node+"!")
	phone.Close()
	s.wantPushes("the session runs out of time")
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message to a phone without a session", node+"!")
	phone = s.connect("juliet", "phone")
	s.enable(phone, "juliet", "phone")
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message after the new login")
	phone.Close()
}

func storyResumed(s *story) {
	phone := s.enabled("juliet", "phone")
	node := s.node("juliet", "phone")
	phone.Cut()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message to a phone that sleeps", node+"!")
	s.server.Resume(phone)
	// A phone that is live again is not woken, though another of the account's has no session.
	tablet := s.enabled("juliet", "tablet")
	tablet.Close()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message to a phone that is back, and a tablet that is not", s.node("juliet", "tablet")+"!")
	phone.Cut()
	s.server.Route(s.message("juliet", body))
	s.mu.Lock()
	early := len(s.got)
	s.mu.Unlock()
	s.server.Resume(phone)
	s.wait("tablet")
	s.mu.Lock()
	for i := range s.got {
		if i >= early && s.got[i].find("publish").attr("node") == node {
			s.Errorf("%s: a push to a phone that was back already", s.name)
		}
	}
	s.got = nil
	s.mu.Unlock()
	phone.Close()
}

// wait waits for a push to juliet's device, and then for what should not come.
func (s *story) wait(resource string) {
	node := s.node("juliet", resource)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		found := false
		for i := range s.got {
			found = found || s.got[i].find("publish").attr("node") == node
		}
		s.mu.Unlock()
		if found {
			time.Sleep(quiet)
			return
		}
	}
	s.Errorf("%s: no push to %s", s.name, node)
}

func storyStalled(s *story) {
	phone := s.enabled("juliet", "phone")
	staller, ok := phone.(Staller)
	if !ok {
		s.Log("devices are no Stallers: not tested: ", s.name)
		phone.Close()
		return
	}
	node := s.node("juliet", "phone")
	staller.Stall()
	s.server.Route(s.message("juliet", body))
	phone.Cut()
	s.wantPushes("the connection is lost with a message on the way", node+"!")
	s.server.Resume(phone)
	phone.Cut()
	s.wantPushes("the connection is lost after the message was delivered")
	phone.Close()
	s.wantPushes("the session is over")
}

func storyOnce(s *story) {
	phone := s.enabled("juliet", "phone")
	node := s.node("juliet", "phone")
	phone.Cut()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message, archived and queued", node+"!")
	phone.Close()
	s.wantPushes("the queued message goes to offline storage")
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message, archived and stored offline", node+"!")
}

func storyTwoDevices(s *story) {
	phone, laptop := s.enabled("juliet", "phone"), s.enabled("juliet", "laptop")
	phoneNode, laptopNode := s.node("juliet", "phone"), s.node("juliet", "laptop")
	nurse := s.enabled("nurse", "phone")
	nurse.Close()
	phone.Close()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message to a laptop that is connected, and a phone that is not", phoneNode+"!")
	laptop.Cut()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message while the laptop sleeps", phoneNode+"!", laptopNode+"!")
	s.server.Resume(laptop)
	laptop.Close()
	s.server.Route(s.message("nurse", body))
	s.wantPushes("a message to another account", s.node("nurse", "phone")+"!")
}

func storyOwn(s *story) {
	phone, laptop := s.enabled("juliet", "phone"), s.enabled("juliet", "laptop")
	nurse := s.enabled("nurse", "phone")
	phone.Close()
	nurse.Close()
	laptop.Send(fmt.Appendf(nil, `<message type="chat" to="romeo@example.net" id="%s">%s</message>`, s.id(), body))
	s.wantPushes("the laptop sends a message")
	laptop.Send(fmt.Appendf(nil, `<message type="chat" to="%s@%s" id="%s">%s</message>`, s.account("nurse"), Host, s.id(), body))
	s.wantPushes("the laptop sends a message to another account here", s.node("nurse", "phone")+"!")
	laptop.Close()
}

func storyCall(s *story) {
	phone, laptop := s.enabled("juliet", "phone"), s.enabled("juliet", "laptop")
	phone.Close()
	s.server.Route(s.message("juliet", `<propose xmlns="urn:xmpp:jingle-message:0" id="a"/><store xmlns="urn:xmpp:hints"/>`))
	s.wantPushes("a call", s.node("juliet", "phone")+"!", s.node("juliet", "laptop")+"!")
	laptop.Close()
}

func storyDisable(s *story) {
	phone := s.enabled("juliet", "phone")
	laptop := s.enabled("juliet", "laptop")
	laptop.Close()
	phone.Send(fmt.Appendf(nil, `<iq type="set" id="%s"><disable xmlns="urn:xmpp:push:0" jid="%s" node="%s"/></iq>`, s.id(), Service, s.node("juliet", "phone")))
	phone.Cut()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message after the phone disabled push", s.node("juliet", "laptop")+"!")
	s.server.Resume(phone)
	phone.Send(fmt.Appendf(nil, `<iq type="set" id="%s"><disable xmlns="urn:xmpp:push:0" jid="%s"/></iq>`, s.id(), Service))
	phone.Close()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message after push was disabled for all")
}

func storyGone(s *story) {
	phone := s.enabled("juliet", "phone")
	node := s.node("juliet", "phone")
	phone.Close()
	s.mu.Lock()
	s.failures[node] = failure("cancel", "item-not-found", "")
	s.mu.Unlock()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message whose push is refused", node+"!")
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message after that")
	s.mu.Lock()
	delete(s.failures, node)
	s.mu.Unlock()
	phone = s.enabled("juliet", "phone")
	phone.Close()
	s.server.Route(s.message("juliet", body))
	s.wantPushes("a message after push was enabled again", node+"!")
}

func storyOptions(s *story) {
	phone := s.enabled("juliet", "phone")
	phone.Close()
	s.server.Route(s.message("juliet", body))
	s.wait("phone")
	s.mu.Lock()
	pushed := s.got
	s.got = nil
	s.mu.Unlock()
	for i := range pushed {
		iq := &pushed[i]
		if from, to, typ := iq.attr("from"), iq.attr("to"), iq.attr("type"); from != Host || to != Service || typ != "set" {
			s.Errorf("%s: the IQ is %s from %s to %s", s.name, typ, from, to)
		}
		want := "{http://jabber.org/protocol/pubsub}publish-options\n" +
			"  {jabber:x:data}x type=\"submit\"\n" +
			"    {jabber:x:data}field var=\"FORM_TYPE\"\n      {jabber:x:data}value \"http://jabber.org/protocol/pubsub#publish-options\"\n" +
			"    {jabber:x:data}field var=\"secret\"\n      {jabber:x:data}value \"s&<\"\n"
		if got := iq.find("publish-options").String(); got != want {
			s.Errorf("%s: sent\n%swant\n%s", s.name, got, want)
		}
	}
}
