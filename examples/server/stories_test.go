package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
)

// Stories that run against this server, in virtual time, and against a real Prosody with mod_cloud_notify, in real time. What the push
// service saw is compared with the table.

type wireStory struct {
	name string
	run  func(*stage)
	// want is what this server publishes, and prosody what Prosody does, if that is something else.
	want, prosody []string
	// why they differ.
	why string
}

var wireStories = []wireStory{
	{name: "offline", want: []string{"n1 alert", "n1 alert", "n1 plain"}, run: func(s *stage) {
		s.phone("phone", "n1").Close()
		s.chat("one")
		s.wait(1200)
		s.say(element.New("eu.siacs.conversations.axolotl", "encrypted").Add(
			element.New("eu.siacs.conversations.axolotl", "header", "sid", "1"), element.New("eu.siacs.conversations.axolotl", "payload").Add("AA==")))
		s.wait(1200)
		s.say(element.New("http://jabber.org/protocol/chatstates", "composing"))
	}},
	{name: "active", run: func(s *stage) {
		c := s.phone("phone", "n1")
		s.chat("one")
		s.must(c.Body(s.ctx, "one"))
	}},
	{name: "hibernated", want: []string{"n1 alert", "n1 alert", "n1 alert"}, prosody: []string{"n1 alert", "n1 alert"},
		why: "what the user should see goes at once, and what follows within a second makes one; Prosody waits a second for more before the first",
		run: func(s *stage) {
			c := s.phone("phone", "n1")
			s.drop(c)
			s.chat("one")
			s.wait(2200)
			s.chat("two")
			s.chat("three")
			s.chat("four")
			s.wait(2200)
			c = s.resume(c)
			s.chat("five")
			for _, body := range []string{"one", "two", "three", "four", "five"} {
				s.must(c.Body(s.ctx, body))
			}
		}},
	{name: "ack-delayed", want: []string{"n1 alert", "n1 alert"}, prosody: []string{"n1 alert", "n1 alert", "n1 alert", "n1 alert"},
		why: "Prosody publishes again when the connection is lost and when the session runs out, for its mark of a stanza does not survive copies",
		run: func(s *stage) {
			c := s.phone("phone", "n1")
			c.Deaf()
			s.chat("one")
			s.wait(5200)
			c.Drop()
			s.wait(2200)
			s.chat("two")
			s.wait(12000)
		}},
	{name: "dropped-with-queue", want: []string{"n1 alert"}, run: func(s *stage) {
		c := s.phone("phone", "n1")
		c.Deaf()
		s.chat("one")
		s.wait(300)
		c.Drop()
		s.wait(10000)
	}},
	{name: "two-devices", want: []string{"n1 alert"}, run: func(s *stage) {
		s.phone("phone", "n1").Close()
		desktop := s.connect("desktop")
		s.chat("one")
		s.must(desktop.Body(s.ctx, "one"))
	}},
	{name: "two-phones", want: []string{"n1 alert", "n2 alert"}, run: func(s *stage) {
		p1 := s.phone("p1", "n1")
		p2 := s.phone("p2", "n2")
		s.wait(300)
		p1.Close()
		s.wait(300)
		s.drop(p2)
		s.wait(1500) // p2 misses that p1 has left
		s.forget()
		s.chat("one")
		s.wait(2500)
	}},
	{name: "own-carbon", want: []string{"n1 plain"}, run: func(s *stage) {
		c := s.phone("phone", "n1")
		s.must(c.EnableCarbons(s.ctx))
		desktop := s.connect("desktop")
		s.must(desktop.EnableCarbons(s.ctx))
		s.wait(300)
		s.drop(c)
		_, err := desktop.Chat(s.sender, "mine")
		s.must(err)
		s.wait(2500)
	}},
	{name: "disabled", run: func(s *stage) {
		c := s.phone("phone", "n1")
		s.must(c.DisablePush(s.ctx, s.service, s.node("n1")))
		c.Close()
		s.chat("one")
	}},
	{name: "one-node-disabled", want: []string{"n2 alert"}, run: func(s *stage) {
		c := s.phone("phone", "n1")
		s.must(c.EnablePush(s.ctx, s.service, s.node("n2"), "s3"))
		s.must(c.DisablePush(s.ctx, s.service, s.node("n1")))
		c.Close()
		s.chat("one")
	}},
	{name: "bad-enable", run: func(s *stage) {
		c := s.connect("phone")
		for _, jid := range []string{"", c.JID} {
			_, err := c.Request(s.ctx, "set", "", element.New("urn:xmpp:push:0", "enable", "jid", jid, "node", s.node("n1")))
			if err == nil || !strings.Contains(err.Error(), "bad-request") || !strings.Contains(err.Error(), "modify") {
				s.t.Errorf("enable with jid %q: %v", jid, err)
			}
		}
		c.Close()
		s.chat("one")
	}},
	{name: "errors", want: []string{"n1 alert"}, prosody: []string{"n1 alert", "n1 alert", "n1 alert"},
		why: "item-not-found will not get better; Prosody counts it like any other error",
		run: func(s *stage) {
			s.answer("cancel", "item-not-found")
			s.phone("phone", "n1").Close()
			for _, body := range []string{"one", "two", "three", "four"} {
				s.chat(body)
				s.wait(1200)
			}
		}},
	{name: "wait-errors", want: []string{"n1 alert", "n1 alert"}, prosody: []string{"n1 alert", "n1 alert", "n1 alert", "n1 alert"},
		why: "what comes while a publish is in its retry wait is merged into it; Prosody does not retry",
		run: func(s *stage) {
			s.answer("wait", "resource-constraint")
			s.phone("phone", "n1").Close()
			for _, body := range []string{"one", "two", "three"} {
				s.chat(body)
				s.wait(700)
			}
			s.answer("", "")
			s.chat("four")
			s.wait(6000)
		}},
	{name: "call", want: []string{"n1 alert", "n2 alert"}, prosody: []string{"n1 alert", "n2 alert", "n2 alert"},
		why: "Prosody notifies the hibernated phone of the archived call, and again of the queued one",
		run: func(s *stage) {
			s.phone("p1", "n1")
			p2 := s.phone("p2", "n2")
			s.wait(300)
			s.drop(p2)
			s.say(element.New("urn:xmpp:jingle-message:0", "propose", "id", "c1").Add(element.New("urn:xmpp:jingle:apps:rtp:1", "description", "media", "audio")))
			s.wait(2500)
		}},
	{name: "headline", want: []string{"n1 plain"}, run: func(s *stage) {
		s.drop(s.phone("phone", "n1"))
		s.must(s.alice.Send(element.New("", "message", "type", "headline", "to", s.account).Add(element.New("", "body").Add("news"))))
	}},
	{name: "hibernation-expires", want: []string{"n1 alert", "n1 alert"}, run: func(s *stage) {
		c := s.phone("phone", "n1")
		c.Deaf()
		s.chat("one")
		s.wait(200)
		c.Drop()
		s.wait(12000)
		s.chat("two")
		s.wait(1500)
		// Nothing is lost and nothing is there twice.
		c = s.connect("phone")
		s.must(c.Body(s.ctx, "one"))
		s.must(c.Body(s.ctx, "two"))
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		if err := c.Body(ctx, "one"); err == nil {
			s.t.Error("a message came twice")
		}
	}},
	{name: "long-hibernation", want: []string{"n1 plain"}, run: func(s *stage) {
		// Without an alert the session may be resumed for longer.
		c := s.phone("phone", "n1")
		s.drop(c)
		s.must(s.alice.Send(element.New("", "message", "type", "headline", "to", s.account).Add(element.New("", "body").Add("news"))))
		s.wait(15000)
		s.resume(c)
	}},
}

// stage is where one story plays: an account of its own, another to send from, and a push service.
type stage struct {
	t               testing.TB
	ctx             context.Context
	name            string
	dial            func() net.Conn
	account, sender string // bare JIDs
	service         string
	alice           *peer.Client
	reply           func(errorType, condition string)
	forget          func() // what was published so far
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

func (s *stage) node(n string) string { return s.name + "." + n }

func (s *stage) wait(ms int) { time.Sleep(time.Duration(ms) * time.Millisecond) }

func (s *stage) login(account, resource string) *peer.Client {
	user, _, _ := strings.Cut(account, "@")
	c, err := peer.Connect(s.dial(), peer.Login{Domain: "localhost", User: user, Password: "pw", Resource: resource, Resumable: true})
	s.must(err)
	s.must(c.Available())
	s.must(c.Settle(s.ctx))
	return c
}

func (s *stage) connect(resource string) *peer.Client { return s.login(s.account, resource) }

// phone connects a device that enables push.
func (s *stage) phone(resource, node string) *peer.Client {
	c := s.connect(resource)
	s.must(c.EnablePush(s.ctx, s.service, s.node(node), "s3"))
	s.must(c.Settle(s.ctx))
	return c
}

// drop loses a client's connection, and gives the server time to notice.
func (s *stage) drop(c *peer.Client) {
	s.must(c.Settle(s.ctx))
	c.Drop()
	s.wait(500)
}

func (s *stage) resume(c *peer.Client) *peer.Client {
	n, err := c.Resume(s.dial())
	s.must(err)
	return n
}

func (s *stage) say(payload *element.Element) {
	s.must(s.alice.Send(element.New("", "message", "type", "chat", "to", s.account).Add(payload)))
}

func (s *stage) chat(body string) { s.say(element.New("", "body").Add(body)) }

func (s *stage) answer(errorType, condition string) { s.reply(errorType, condition) }

// board sorts what a push service is told by story, and answers as each wants.
type board struct {
	mu      sync.Mutex
	seen    map[string][]string
	answers map[string][2]string
}

func newBoard(svc *peer.PushService) *board {
	b := &board{seen: make(map[string][]string), answers: make(map[string][2]string)}
	svc.Answer(func(p peer.Publish) (string, string) {
		story, node, _ := strings.Cut(p.Node, ".")
		if p.From != "localhost" || p.Secret != "s3" {
			node += fmt.Sprintf(" from %s with secret %q", p.From, p.Secret)
		}
		kind := " plain"
		if p.Alert {
			kind = " alert"
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen[story] = append(b.seen[story], node+kind)
		a := b.answers[story]
		return a[0], a[1]
	})
	return b
}

// play plays one story, under a name that no other has, and returns what was published.
func (b *board) play(t testing.TB, st wireStory, name string, dial func() net.Conn) []string {
	s := &stage{
		t: t, ctx: t.Context(), name: name, dial: dial, service: pushDomain,
		account: "bob-" + name + "@localhost", sender: "alice-" + name + "@localhost",
		reply: func(errorType, condition string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.answers[name] = [2]string{errorType, condition}
		},
		forget: func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.seen[name] = nil
		},
	}
	s.alice = s.login(s.sender, "a")
	st.run(s)
	s.wait(2000)
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := slices.Clone(b.seen[name])
	slices.Sort(seen)
	return seen
}

// TestStories plays the stories on this server.
func TestStories(t *testing.T) {
	for _, st := range wireStories {
		t.Run(st.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := NewServer(Config{
					Domain: "localhost", ComponentSecret: "secret",
					AckDelay: 3 * time.Second, ResumeTimeout: 8 * time.Second, MaxResume: 20 * time.Second, MaxErrors: 3,
				})
				if err != nil {
					t.Fatal(err)
				}
				closing(t, s)
				for _, who := range []string{"alice-", "bob-"} {
					if err := s.AddAccount(who+st.name, "pw"); err != nil {
						t.Fatal(err)
					}
				}
				svc, err := peer.ConnectService(pipe(s.ServeComponent), pushDomain, "secret")
				if err != nil {
					t.Fatal(err)
				}
				seen := newBoard(svc).play(t, st, st.name, func() net.Conn { return pipe(s.ServeClient) })
				if !slices.Equal(seen, st.want) {
					t.Errorf("published %q, want %q", seen, st.want)
				}
			})
		})
	}
}

// playedOnProsody is how often a story is played at most.
const playedOnProsody = 3

// TestStoriesOnProsody plays them on a real Prosody, which makes sure that the table tells the truth about it. Its time is real, so on a machine that stalls
// for a second what should be two publishes can be one: a story that goes otherwise is played again.
func TestStoriesOnProsody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	var users []string
	name := func(st wireStory, try int) string { return fmt.Sprint(st.name, "-", try) }
	for _, st := range wireStories {
		for try := range playedOnProsody {
			users = append(users, "alice-"+name(st, try), "bob-"+name(st, try))
		}
	}
	p, err := peer.StartProsody(pushDomain, "secret", "pw",
		"smacks_max_ack_delay = 3\nsmacks_hibernation_time = 8\npush_max_hibernation_timeout = 20\npush_max_errors = 3", users...)
	if errors.Is(err, peer.ErrNoProsody) {
		missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	dial := func(addr string) net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	svc, err := peer.ConnectService(dial(p.Components), pushDomain, "secret")
	if err != nil {
		t.Fatal(err, p.Log())
	}
	b := newBoard(svc)
	var stories sync.WaitGroup
	for _, st := range wireStories {
		// All at once, whatever the number of processors: they mostly wait.
		stories.Go(func() {
			t.Run(st.name, func(t *testing.T) {
				want := st.want
				if st.why != "" {
					want = st.prosody
				}
				for try := range playedOnProsody {
					seen := b.play(t, st, name(st, try), func() net.Conn { return dial(p.Clients) })
					if slices.Equal(seen, want) {
						return
					}
					t.Logf("try %d: published %q, want %q", try+1, seen, want)
				}
				t.Error("never as the table says")
			})
		})
	}
	stories.Wait()
}
