package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
	"github.com/xmpp-push/push/examples/server/internal/peer"
	"github.com/xmpp-push/push/wishes"
)

// demoConfig has the demo's short times, each so many times as long as it need be.
func demoConfig(slower time.Duration) Config {
	cfg := Config{
		Domain: "localhost", ComponentSecret: "demo",
		AckDelay: slower * 400 * time.Millisecond, ResumeTimeout: slower * 800 * time.Millisecond, MaxResume: 72 * time.Hour, MaxErrors: 16,
	}
	cfg.Policy.Delay, cfg.Policy.MinInterval = slower*300*time.Millisecond, slower*300*time.Millisecond
	cfg.Policy.RetryMin = slower * 500 * time.Millisecond
	return cfg
}

// wires connects to a server as clients and as components do.
type wires func(*Server) (client, component func() (net.Conn, error), err error)

// sockets are real ones.
func sockets(s *Server) (client, component func() (net.Conn, error), err error) {
	clients, err := s.ListenClients("127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	components, err := s.ListenComponents("127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	dial := func(a net.Addr) func() (net.Conn, error) {
		return func() (net.Conn, error) { return net.Dial("tcp", a.String()) }
	}
	return dial(clients), dial(components), nil
}

// demo tells the whole story of push notifications with a server of its own, two scripted people and a push service, over real sockets. Its times are short:
// what takes the server seconds or minutes as a rule takes it a moment here. A machine that has other things to do may be too slow for that, so a story that
// goes otherwise than told is told again with longer times. It returns an error if that does not help.
func demo(ctx context.Context, w io.Writer, watch *push.Observer) error {
	t := newTimeline(w)
	for _, slower := range []time.Duration{1, 4, 16} {
		err := tell(ctx, t, watch, sockets, slower)
		if err == nil || ctx.Err() != nil {
			return err
		}
		t.print(t.paint(red, "\nThis should not have happened: ") + err.Error())
		if slower == 16 {
			return err
		}
		t.print("Is this machine busy? The story again, with times four times as long.")
	}
	return nil
}

// tell tells it once. The observer, if there is one, sees it too.
func tell(ctx context.Context, t *timeline, watch *push.Observer, connect wires, slower time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, slower*30*time.Second)
	defer cancel()
	d := &story{ctx: ctx, t: t, slower: slower, events: make(chan string, 1000)} // more than the story has
	cfg := demoConfig(slower)
	cfg.Observer = push.Observers(t.observer(), d.observer(), watch)
	s, err := NewServer(cfg)
	if err != nil {
		return err
	}
	for _, name := range []string{"juliet", "romeo"} {
		if err := s.AddAccount(name, "demo"); err != nil {
			return err
		}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.Close(ctx)
	}()
	var component func() (net.Conn, error)
	if d.client, component, err = connect(s); err != nil {
		return err
	}
	// A step that fails ends the story.
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = f.error
		}
	}()
	conn, err := component()
	if err != nil {
		return err
	}
	rooms, err := component()
	if err != nil {
		return err
	}
	if d.room, err = peer.ConnectRoom(rooms, "verona", "rooms.localhost", "demo"); err != nil {
		return err
	}
	defer d.room.Close()
	if d.service, err = peer.ConnectService(conn, "push.localhost", "demo"); err != nil {
		return err
	}
	defer d.service.Close()
	d.tell()
	return nil
}

// story is the demo in progress.
type story struct {
	ctx     context.Context
	t       *timeline
	client  func() (net.Conn, error)
	slower  time.Duration
	service *peer.PushService
	room    *peer.Room
	// events are the names of juliet's events, and "reply" for each reply to a publish.
	events chan string
}

// observer tells of events.
func (d *story) observer() *push.Observer {
	return &push.Observer{
		Decided: func(_ uint64, _ time.Time, ev push.Event, _ *push.Decision, _ time.Duration) {
			if ev.Subject().Account == "juliet@localhost" {
				d.events <- ev.Name()
			}
		},
		Replied: func(time.Time, *push.Notification, push.Reply, push.Result, time.Duration) { d.events <- "reply" },
	}
}

// failure is something that went otherwise than told.
type failure struct{ error }

func (d *story) must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func (d *story) dial() net.Conn {
	conn, err := d.client()
	d.must(err)
	return conn
}

func (d *story) connect(user, resource string) *peer.Client {
	d.t.say(user, "connects as "+resource)
	c, err := peer.Connect(d.dial(), peer.Login{Domain: "localhost", User: user, Password: "demo", Resource: resource, Resumable: true})
	d.must(err)
	d.must(c.EnableCarbons(d.ctx))
	d.must(c.Available())
	d.must(c.Settle(d.ctx))
	return c
}

func (d *story) resume(c *peer.Client) *peer.Client {
	d.t.say("phone", "is back and resumes")
	n, err := c.Resume(d.dial())
	d.must(err)
	return n
}

// lose lets a client lose its connection, and waits until the server has noticed; leave lets it end its session.
func (d *story) lose(c *peer.Client) {
	c.Drop()
	d.until("hibernation-start")
}

func (d *story) leave(c *peer.Client) {
	c.Close()
	d.until("session-close")
}

// until waits for an event of juliet's.
func (d *story) until(name string) {
	for {
		select {
		case n := <-d.events:
			if n == name {
				return
			}
		case <-d.ctx.Done():
			d.must(fmt.Errorf("no %s", name))
		}
	}
}

func (d *story) chat(from *peer.Client, who, to, text string) {
	d.t.say(who, fmt.Sprintf("to %s: %q", to, text))
	_, err := from.Chat(to+"@localhost", text)
	d.must(err)
}

// say lets somebody say something in the room.
func (d *story) say(nick, text string) {
	d.t.say(nick, fmt.Sprintf("in the room: %q", text))
	_, err := d.room.Say(nick, text, "juliet@localhost")
	d.must(err)
}

// pushed waits for the next publish and its reply.
func (d *story) pushed(node string, alert bool) {
	p, err := d.service.Next(d.ctx)
	if err != nil {
		d.must(fmt.Errorf("no publish to %s: %w", node, err))
	}
	if p.Node != node || p.Alert != alert {
		d.must(fmt.Errorf("published to %s (alert: %v), not to %s (alert: %v)", p.Node, p.Alert, node, alert))
	}
	if p.From != "localhost" || p.Secret != "s3cret" {
		d.must(fmt.Errorf("the publish came from %q with secret %q", p.From, p.Secret))
	}
	d.until("reply")
}

// quiet checks that nothing is published for a while.
func (d *story) quiet(wait time.Duration) {
	ctx, cancel := context.WithTimeout(d.ctx, d.slower*wait)
	defer cancel()
	if p, err := d.service.Next(ctx); err == nil {
		d.must(fmt.Errorf("published to %s, which was not to be", p.Node))
	}
	d.must(d.ctx.Err())
}

func (d *story) enable(c *peer.Client, node string) {
	d.t.say(node, "enables push with push.localhost")
	d.must(c.EnablePush(d.ctx, "push.localhost", node, "s3cret"))
	d.must(c.Settle(d.ctx))
}

func (d *story) tell() {
	t, ctx := d.t, d.ctx

	t.chapter("1. Juliet's phone enables push. While it is online, nobody has to wake it.")
	romeo := d.connect("romeo", "balcony")
	phone := d.connect("juliet", "phone")
	d.enable(phone, "phone")
	d.chat(romeo, "romeo", "juliet", "Good morrow!")
	d.must(phone.Body(ctx, "Good morrow!"))
	d.quiet(200 * time.Millisecond)

	t.chapter("2. The phone stops answering: a message stays unacknowledged.")
	phone.Deaf()
	d.chat(romeo, "romeo", "juliet", "Art thou there?")
	d.pushed("phone", true)

	t.chapter("3. Its connection is lost. That message was notified already. The next goes at once, and what follows soon makes one publish.")
	d.lose(phone)
	d.quiet(300 * time.Millisecond)
	d.chat(romeo, "romeo", "juliet", "Speak again,")
	d.pushed("phone", true)
	d.chat(romeo, "romeo", "juliet", "bright angel!")
	d.chat(romeo, "romeo", "juliet", "for thou art")
	d.pushed("phone", true)

	t.chapter("4. The phone resumes, has all of it, and what still waited is dropped.")
	d.chat(romeo, "romeo", "juliet", "What light through yonder window breaks?")
	phone = d.resume(phone)
	for _, body := range []string{"Art thou there?", "Speak again,", "bright angel!", "for thou art", "What light through yonder window breaks?"} {
		d.must(phone.Body(ctx, body))
	}
	d.quiet(400 * time.Millisecond)

	t.chapter("5. Asleep: the session may be resumed for days, until the user was alerted. Then it runs out,\n   and what it has not acknowledged goes to offline storage, unnotified, for it was before.")
	d.lose(phone)
	d.quiet(1200 * time.Millisecond) // longer than the normal time
	d.chat(romeo, "romeo", "juliet", "Wilt thou not answer?")
	d.pushed("phone", true)
	d.quiet(time.Second)

	t.chapter("6. No session at all: the message is archived and stored offline, and notified once.")
	d.chat(romeo, "romeo", "juliet", "Good night, good night!")
	d.pushed("phone", true)
	d.quiet(300 * time.Millisecond)
	t.say("phone", "connects again and fetches what it missed from the archive")
	phone = d.connect("juliet", "phone")
	d.enable(phone, "phone")
	page := element.New(nsMAM, "query").Add(element.New(nsRSM, "set").Add(element.New(nsRSM, "max").Add("2"), element.New(nsRSM, "before")))
	d.must(phone.Send(element.New("", "iq", "type", "set", "id", "q1").Add(page)))
	d.must(phone.Body(ctx, "Wilt thou not answer?"))
	d.must(phone.Body(ctx, "Good night, good night!"))
	d.must(phone.Settle(ctx))

	t.chapter("7. A second device. Both get the message: the laptop at once, the sleeping phone when it wakes.\n   What Juliet writes herself wakes the phone silently.")
	laptop := d.connect("juliet", "laptop")
	d.must(phone.Settle(ctx))
	d.lose(phone)
	d.chat(romeo, "romeo", "juliet", "Sleep dwell upon thine eyes")
	d.must(laptop.Body(ctx, "Sleep dwell upon thine eyes"))
	d.pushed("phone", true)
	d.chat(laptop, "juliet's laptop", "romeo", "Three words, dear Romeo")
	d.must(romeo.Body(ctx, "Three words, dear Romeo"))
	d.pushed("phone", false)
	phone = d.resume(phone)
	d.must(phone.Body(ctx, "Three words, dear Romeo"))
	d.must(phone.Settle(ctx))

	t.chapter("8. A call cannot wait for a dead connection to be noticed: it goes to every registration at once, live sessions too.")
	d.enable(laptop, "laptop")
	t.say("romeo", "calls juliet")
	d.must(romeo.Send(element.New("", "message", "type", "chat", "id", "c1", "to", "juliet@localhost").Add(
		element.New("urn:xmpp:jingle-message:0", "propose", "id", "c1").Add(element.New("urn:xmpp:jingle:apps:rtp:1", "description", "media", "audio")),
		element.New(nsHints, "store"))))
	rung := map[string]bool{}
	for range 2 {
		p, err := d.service.Next(ctx)
		d.must(err)
		rung[p.Node] = true
		d.until("reply")
	}
	if !rung["phone"] || !rung["laptop"] {
		d.must(fmt.Errorf("only %v rang", rung))
	}

	t.chapter("9. Juliet takes the call on the laptop: the phone is told, quietly, to stop ringing.")
	t.say("juliet's laptop", "takes the call")
	d.must(laptop.Send(element.New("", "message", "type", "chat", "id", "c2", "to", "romeo@localhost/balcony").Add(
		element.New("urn:xmpp:jingle-message:0", "proceed", "id", "c1"), element.New(nsHints, "store"))))
	d.pushed("phone", false)
	d.must(laptop.DisablePush(ctx, "push.localhost", "laptop"))

	t.chapter("10. A room that Juliet set to notify of mentions only (XEP-0492).")
	d.leave(phone)
	t.say("juliet's laptop", "bookmarks the room: nickname Juliet, notify on mention")
	_, err := laptop.Request(ctx, "set", "", element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "publish", "node", nsBookmarks).Add(
		element.New(nsPubsub, "item", "id", d.room.JID).Add(element.New(nsBookmarks, "conference").Add(
			element.New(nsBookmarks, "nick").Add("Juliet"),
			element.New(nsBookmarks, "extensions").Add(element.New(wishes.NSChatSettings, "notify").Add(element.New(wishes.NSChatSettings, "on-mention"))))))))
	d.must(err)
	d.say("nurse", "Where is this girl?")
	d.quiet(300 * time.Millisecond)
	d.say("nurse", "Juliet! come quickly")
	d.pushed("phone", true)

	t.chapter("11. The push service is busy, so a notification has to wait. Juliet reads the message on the laptop meanwhile: it is not sent.")
	d.service.Answer(func(peer.Publish) (string, string) { return "wait", "resource-constraint" })
	d.chat(romeo, "romeo", "juliet", "Hist! Juliet, hist!")
	d.pushed("phone", true)
	said, err := laptop.Receive(ctx, func(e *element.Element) bool { return peer.BodyOf(e) == "Hist! Juliet, hist!" })
	d.must(err)
	t.say("juliet's laptop", "displays it, and says so to the server (XEP-0490)")
	_, err = laptop.Request(ctx, "set", "", element.New(nsPubsub, "pubsub").Add(element.New(nsPubsub, "publish", "node", nsDisplayed).Add(
		element.New(nsPubsub, "item", "id", "romeo@localhost").Add(element.New(nsDisplayed, "displayed").Add(
			element.New(nsStanID, "stanza-id", "id", said.Child(nsStanID, "stanza-id").Get("id"), "by", "juliet@localhost"))))))
	d.must(err)
	d.service.Answer(nil)
	d.quiet(800 * time.Millisecond)
	d.leave(laptop)
	phone = d.connect("juliet", "phone")
	d.enable(phone, "phone")

	t.chapter("12. The push service is out of order: tried again. Then it knows the phone no longer: the registration is disabled\n   until the phone enables it again.")
	d.leave(phone)
	tries := 0
	d.service.Answer(func(peer.Publish) (string, string) {
		if tries++; tries == 1 {
			return "wait", "resource-constraint"
		}
		return "", ""
	})
	d.chat(romeo, "romeo", "juliet", "Parting is such sweet sorrow")
	d.pushed("phone", true)
	d.pushed("phone", true)
	d.service.Answer(func(peer.Publish) (string, string) { return "cancel", "item-not-found" })
	d.chat(romeo, "romeo", "juliet", "that I shall say good night")
	d.pushed("phone", true)
	d.chat(romeo, "romeo", "juliet", "till it be morrow.")
	d.quiet(300 * time.Millisecond)
	d.service.Answer(nil)
	phone = d.connect("juliet", "phone")
	d.enable(phone, "phone")
	d.must(phone.Body(ctx, "till it be morrow."))
	d.must(phone.Settle(ctx))

	t.chapter("13. The phone disables push: nothing more is published.")
	t.say("phone", "disables push")
	d.must(phone.DisablePush(ctx, "push.localhost", "phone"))
	d.leave(phone)
	d.chat(romeo, "romeo", "juliet", "Farewell!")
	d.quiet(300 * time.Millisecond)
	romeo.Close()
	t.print("\n" + t.paint(green, fmt.Sprintf("All went as told, in %.1f s. The push service was called %d times.", time.Since(t.start).Seconds(), len(d.service.Seen()))))
}
