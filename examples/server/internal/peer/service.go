package peer

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

const (
	nsPubsub = "http://jabber.org/protocol/pubsub"
	nsPush2  = "urn:xmpp:push2:0"
)

// Publish is what a push service was told.
type Publish struct {
	At                                            time.Time
	From, Node, Count, Requests, Body, Secret, ID string
	// Alert says that the user should see it, as push services tell by the body.
	Alert bool
}

// PushService is an app server (XEP-0357 §3): a component that takes publishes and answers them.
type PushService struct {
	Domain string
	conn   net.Conn
	in     *element.Reader
	done   chan struct{}

	mu   sync.Mutex
	seen []Publish
	next int
	// messages are those of Push 2.0 that were not taken yet; refuse is what they are answered with, if anything.
	messages chan *element.Element
	refuse   [2]string
	news     chan struct{}
	reply    func(p Publish) (errorType, condition string)
}

// ConnectService connects a push service to a server's component port.
func ConnectService(conn net.Conn, domain, secret string) (*PushService, error) {
	s := &PushService{
		Domain: domain, conn: conn, in: element.NewReader(conn), done: make(chan struct{}), news: make(chan struct{}, 1), messages: make(chan *element.Element, 1024),
	}
	if err := s.shakeHands(secret); err != nil {
		conn.Close()
		return nil, err
	}
	go s.read()
	return s, nil
}

// shakeHands logs the component in.
func (s *PushService) shakeHands(secret string) error {
	s.conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(s.conn, "<?xml version='1.0'?><stream:stream xmlns='%s' xmlns:stream='%s' to='%s'>", element.NSComponent, element.NSStream, s.Domain)
	head, err := s.in.Header()
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(head.Get("id") + secret))
	fmt.Fprintf(s.conn, "<handshake>%s</handshake>", hex.EncodeToString(sum[:]))
	e, err := s.in.Next()
	if err != nil {
		return err
	}
	if !e.Is("", "handshake") {
		return fmt.Errorf("handshake refused: %s", e)
	}
	s.conn.SetDeadline(time.Time{})
	return nil
}

// Answer sets how publishes are answered from now on: with an error, or, where the condition is empty, with a result. Nil: all are accepted.
func (s *PushService) Answer(reply func(p Publish) (errorType, condition string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply = reply
}

// Refuse sets with which error the notifications of Push 2.0 are answered from now on. An empty condition: with none, which accepts them.
func (s *PushService) Refuse(errorType, condition string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = [2]string{errorType, condition}
}

// Message returns the next notification of Push 2.0 (urn:xmpp:push2:0).
func (s *PushService) Message(ctx context.Context) (*element.Element, error) {
	select {
	case m := <-s.messages:
		return m, nil
	case <-s.done:
		return nil, ErrGone
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// told takes a notification of Push 2.0. One that nobody takes is forgotten when there are too many.
func (s *PushService) told(m *element.Element) error {
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	var err error
	if refuse[1] != "" {
		err = s.Send(element.Error(m, refuse[0], refuse[1]))
	}
	select {
	case s.messages <- m:
	default:
	}
	return err
}

// read answers what comes. Each publish and each notification is answered before it is told of, so whoever is told of one may at once have the next answered
// otherwise, or close the service. One whose answer cannot be sent any more has come all the same.
func (s *PushService) read() {
	defer close(s.done)
	defer s.conn.Close()
	for {
		iq, err := s.in.Next()
		if err != nil {
			return
		}
		if n := iq.Child(nsPush2, "notification"); iq.Name.Local == "message" && n != nil {
			if err := s.told(iq); err != nil {
				return
			}
			continue
		}
		pubsub := iq.Child(nsPubsub, "pubsub")
		if iq.Name.Local != "iq" || iq.Get("type") != "set" || pubsub == nil {
			continue
		}
		publish := pubsub.Child(nsPubsub, "publish")
		form := publish.Child(nsPubsub, "item").Child(nsPush, "notification").Child(element.NSForm, "x")
		p := Publish{
			At: time.Now(), From: iq.Get("from"), ID: iq.Get("id"),
			Count: form.Field("message-count"), Requests: form.Field("pending-subscription-count"), Body: form.Field("last-message-body"),
			Secret: pubsub.Child(nsPubsub, "publish-options").Child(element.NSForm, "x").Field("secret"),
		}
		if publish != nil {
			p.Node = publish.Get("node")
		}
		p.Alert = p.Body != ""
		s.mu.Lock()
		reply := s.reply
		s.mu.Unlock()
		answer := element.Result(iq)
		if reply != nil {
			if typ, condition := reply(p); condition != "" {
				answer = element.Error(iq, typ, condition)
			}
		}
		err = s.Send(answer)
		s.see(p)
		if err != nil {
			return
		}
	}
}

func (s *PushService) see(p Publish) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, p)
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// Seen returns all publishes so far.
func (s *PushService) Seen() []Publish {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Publish(nil), s.seen...)
}

// Next returns the next publish that was not yet returned.
func (s *PushService) Next(ctx context.Context) (Publish, error) {
	for {
		s.mu.Lock()
		if s.next < len(s.seen) {
			p := s.seen[s.next]
			s.next++
			s.mu.Unlock()
			return p, nil
		}
		s.mu.Unlock()
		select {
		case <-s.news:
		case <-s.done:
			return Publish{}, ErrGone
		case <-ctx.Done():
			return Publish{}, ctx.Err()
		}
	}
}

// Send sends a stanza.
func (s *PushService) Send(st *element.Element) error {
	_, err := s.conn.Write(st.Append(nil))
	return err
}

// Close ends the connection.
func (s *PushService) Close() {
	s.conn.Close()
	<-s.done
}

// ConnectComponent connects a component that is told of each stanza that comes.
func ConnectComponent(conn net.Conn, domain, secret string, got func(*element.Element)) (*PushService, error) {
	s := &PushService{Domain: domain, conn: conn, in: element.NewReader(conn), done: make(chan struct{}), news: make(chan struct{}, 1)}
	if err := s.shakeHands(secret); err != nil {
		conn.Close()
		return nil, err
	}
	go func() {
		defer close(s.done)
		for {
			e, err := s.in.Next()
			if err != nil {
				return
			}
			got(e)
		}
	}()
	return s, nil
}

// ServeRaw connects a component that answers each IQ with what reply returns.
func ServeRaw(conn net.Conn, domain, secret string, reply func(iq []byte) [][]byte) error {
	s := &PushService{Domain: domain, conn: conn, in: element.NewReader(conn), done: make(chan struct{}), news: make(chan struct{}, 1)}
	if err := s.shakeHands(secret); err != nil {
		conn.Close()
		return err
	}
	go func() {
		defer conn.Close()
		for {
			iq, err := s.in.Next()
			if err != nil {
				return
			}
			if iq.Name.Local != "iq" || iq.Get("type") != "set" {
				continue
			}
			for _, b := range reply(iq.AppendAlone(nil)) {
				e, err := element.Parse(b)
				if err != nil || s.Send(e) != nil {
					return
				}
			}
		}
	}()
	return nil
}
