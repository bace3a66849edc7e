// Package peer has what talks to a server from outside: a scripted client and a push service. The demo, the tests and the load run use them.
package peer

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
)

const (
	nsSASL = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsBind = "urn:ietf:params:xml:ns:xmpp-bind"
	nsSM   = "urn:xmpp:sm:3"
	nsPush = "urn:xmpp:push:0"

	nsSASL2   = "urn:xmpp:sasl:2"
	nsBind2   = "urn:xmpp:bind:0"
	nsCarbons = "urn:xmpp:carbons:2"
)

// Login says who a client is.
type Login struct {
	Domain, User, Password, Resource string
	// Resumable turns stream management on.
	Resumable bool
	// Client is the client's stable ID. With one it logs in, binds and resumes in one step (XEP-0388, XEP-0386), and Resource is its tag.
	Client string
	// Got, if not nil, is told of each stanza that comes.
	Got func(*element.Element)
}

// Client is a client with stream management. Its methods may be called from any goroutine; Receive from one at a time.
type Client struct {
	// JID is the full JID that was bound.
	JID string

	login Login
	conn  net.Conn
	in    *element.Reader
	done  chan struct{} // closed when reading has ended

	counting  sync.Mutex // held while a count is sent
	mu        sync.Mutex
	resumeID  string
	handled   uint32
	sent      []*element.Element // not acknowledged by the server
	acked     uint32
	deaf      bool
	abandoned bool
	answers   int // acknowledgements that came
	inbox     []*element.Element
	news      chan struct{}
	asked     chan struct{} // for an acknowledgement
}

// ErrGone: the connection has ended.
var ErrGone = errors.New("connection is gone")

// Connect logs in on a new connection and binds the resource.
func Connect(conn net.Conn, l Login) (*Client, error) {
	c := newClient(conn, l)
	if l.Client != "" {
		return c, c.connectInline()
	}
	if err := c.authenticate(); err != nil {
		conn.Close()
		return nil, err
	}
	c.write(element.New("", "iq", "type", "set", "id", "bind").Add(
		element.New(nsBind, "bind").Add(element.New(nsBind, "resource").Add(l.Resource))))
	e, err := c.in.Next()
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.JID = e.Child(nsBind, "bind").Child(nsBind, "jid").Text()
	if c.JID == "" {
		conn.Close()
		return nil, fmt.Errorf("no resource: %s", e)
	}
	if l.Resumable {
		c.write(element.New(nsSM, "enable", "resume", "true"))
		if e, err = c.in.Next(); err != nil || !e.Is(nsSM, "enabled") {
			conn.Close()
			return nil, fmt.Errorf("no stream management: %v %w", e, err)
		}
		c.resumeID = e.Get("id")
	}
	conn.SetDeadline(time.Time{})
	go c.read()
	go c.acknowledge()
	return c, nil
}

// User is the account's name.
func (c *Client) User() string { return c.login.User }

func newClient(conn net.Conn, l Login) *Client {
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	c := &Client{login: l, conn: conn, in: element.NewReader(conn), done: make(chan struct{}),
		news: make(chan struct{}, 1), asked: make(chan struct{}, 1)}
	c.in.Trust()
	return c
}

// Resume continues the session of c, which has lost its connection, on a new one. The new Client has what c had not yet received and not yet
// been acknowledged. An error says that the session is gone.
func (c *Client) Resume(conn net.Conn) (*Client, error) {
	<-c.done
	return c.ResumeAs(conn, c.login)
}

// ResumeAs is Resume with another login.
func (c *Client) ResumeAs(conn net.Conn, l Login) (*Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := newClient(conn, l)
	n.JID, n.resumeID, n.handled, n.sent, n.acked, n.inbox = c.JID, c.resumeID, c.handled, c.sent, c.acked, c.inbox
	resume := element.New(nsSM, "resume", "previd", n.resumeID, "h", strconv.FormatUint(uint64(n.handled), 10))
	var e *element.Element
	var err error
	if l.Client != "" {
		if e, err = n.authenticateInline(resume); err == nil {
			e = e.Child(nsSM, "resumed")
		}
	} else {
		if err := n.authenticate(); err != nil {
			conn.Close()
			return nil, err
		}
		n.write(resume)
		e, err = n.in.Next()
	}
	if err != nil || e == nil || !e.Is(nsSM, "resumed") {
		conn.Close()
		return nil, fmt.Errorf("not resumed: %v %w", e, err)
	}
	n.acknowledged(e.Get("h"))
	for _, st := range n.sent {
		n.write(st)
	}
	conn.SetDeadline(time.Time{})
	n.poke()
	go n.read()
	go n.acknowledge()
	return n, nil
}

// authenticate opens the stream and logs in with SASL PLAIN.
func (c *Client) authenticate() error {
	if _, err := c.open(); err != nil {
		return err
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + c.login.User + "\x00" + c.login.Password))
	c.write(element.New(nsSASL, "auth", "mechanism", "PLAIN").Add(plain))
	e, err := c.in.Next()
	if err != nil {
		return err
	}
	if !e.Is(nsSASL, "success") {
		return fmt.Errorf("not logged in: %s", e)
	}
	_, err = c.open()
	return err
}

// authenticateInline logs in with XEP-0388 and asks for something more. It returns the success.
func (c *Client) authenticateInline(more *element.Element) (*element.Element, error) {
	features, err := c.open()
	if err != nil {
		return nil, err
	}
	if features.Child(nsSASL2, "authentication").Child(nsSASL2, "inline").Child(nsBind2, "bind") == nil {
		return nil, fmt.Errorf("no XEP-0388 with XEP-0386: %s", features)
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + c.login.User + "\x00" + c.login.Password))
	c.write(element.New(nsSASL2, "authenticate", "mechanism", "PLAIN").Add(
		element.New(nsSASL2, "initial-response").Add(plain),
		element.New(nsSASL2, "user-agent", "id", c.login.Client).Add(element.New(nsSASL2, "software").Add("peer")), more))
	e, err := c.in.Next()
	if err == nil && !e.Is(nsSASL2, "success") {
		err = fmt.Errorf("not logged in: %s", e)
	}
	return e, err
}

// connectInline logs in and binds in one step.
func (c *Client) connectInline() error {
	bind := element.New(nsBind2, "bind").Add(element.New(nsBind2, "tag").Add(c.login.Resource), element.New(nsCarbons, "enable"))
	if c.login.Resumable {
		bind.Add(element.New(nsSM, "enable", "resume", "true"))
	}
	success, err := c.authenticateInline(bind)
	if err == nil {
		bound := success.Child(nsBind2, "bound")
		c.JID, c.resumeID = success.Child(nsSASL2, "authorization-identifier").Text(), bound.Child(nsSM, "enabled").Get("id")
		if bound == nil || c.login.Resumable && c.resumeID == "" {
			err = fmt.Errorf("not bound: %s", success)
		} else {
			_, err = c.in.Next() // the features
		}
	}
	if err != nil {
		c.conn.Close()
		return err
	}
	c.conn.SetDeadline(time.Time{})
	go c.read()
	go c.acknowledge()
	return nil
}

// open opens a stream and returns its features.
func (c *Client) open() (*element.Element, error) {
	c.in.Restart()
	fmt.Fprintf(c.conn, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='%s' version='1.0' to='%s'>", element.NSStream, c.login.Domain)
	if _, err := c.in.Header(); err != nil {
		return nil, err
	}
	return c.in.Next()
}

func (c *Client) write(es ...*element.Element) error {
	var b []byte
	for _, e := range es {
		b = e.Append(b)
	}
	_, err := c.conn.Write(b)
	return err
}

func (c *Client) read() {
	defer c.conn.Close()
	for {
		e, err := c.in.Next()
		c.mu.Lock()
		if err != nil && !c.abandoned {
			close(c.done)
		}
		if err != nil {
			c.mu.Unlock()
			return
		}
		switch {
		case c.abandoned:
		case e.Name.Space == "":
			c.handled++
			if c.login.Got != nil {
				c.login.Got(e)
			}
			c.inbox = append(c.inbox, e)
			c.poke()
		case e.Is(nsSM, "r"):
			if !c.deaf {
				select {
				case c.asked <- struct{}{}:
				default:
				}
			}
		case e.Is(nsSM, "a"):
			c.acknowledged(e.Get("h"))
			c.answers++
			c.poke()
		}
		c.mu.Unlock()
	}
}

// acknowledge answers the server's requests, in a goroutine of its own: the one that reads must not wait for the server to read.
func (c *Client) acknowledge() {
	for {
		select {
		case <-c.asked:
			c.acknowledgeNow()
		case <-c.done:
			return
		}
	}
}

// acknowledgeNow sends the count, and whatever is to come after it. The counts are sent in their order.
func (c *Client) acknowledgeNow(then ...*element.Element) error {
	c.counting.Lock()
	defer c.counting.Unlock()
	c.mu.Lock()
	h := strconv.FormatUint(uint64(c.handled), 10)
	c.mu.Unlock()
	return c.write(append([]*element.Element{element.New(nsSM, "a", "h", h)}, then...)...)
}

func (c *Client) poke() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *Client) acknowledged(h string) {
	n, _ := strconv.ParseUint(h, 10, 32)
	done := uint32(n) - c.acked
	if int(done) <= len(c.sent) {
		c.sent = c.sent[done:]
		c.acked += done
	}
}

// Send sends a stanza. With stream management it is sent again after a resumption, if need be.
func (c *Client) Send(st *element.Element) error {
	c.mu.Lock()
	if c.resumeID != "" {
		c.sent = append(c.sent, st)
	}
	c.mu.Unlock()
	return c.write(st)
}

// Available announces the client.
func (c *Client) Available() error { return c.Send(element.New("", "presence")) }

// Chat sends a message and returns its ID.
func (c *Client) Chat(to, body string) (string, error) {
	id := rand.Text()[:10]
	return id, c.Send(element.New("", "message", "type", "chat", "id", id, "to", to).Add(element.New("", "body").Add(body)))
}

// Receive waits for a stanza for which ok says so, takes it out of those that came, and returns it.
func (c *Client) Receive(ctx context.Context, ok func(*element.Element) bool) (*element.Element, error) {
	seen := 0
	for {
		c.mu.Lock()
		for ; seen < len(c.inbox); seen++ {
			if e := c.inbox[seen]; ok(e) {
				c.inbox = append(c.inbox[:seen:seen], c.inbox[seen+1:]...)
				c.mu.Unlock()
				return e, nil
			}
		}
		c.mu.Unlock()
		select {
		case <-c.news:
		case <-c.done:
			c.mu.Lock()
			more := seen < len(c.inbox)
			c.mu.Unlock()
			if !more {
				return nil, ErrGone
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Body waits for a message with this text, which may be inside a carbon copy or a result of the archive.
func (c *Client) Body(ctx context.Context, body string) error {
	_, err := c.Receive(ctx, func(e *element.Element) bool { return BodyOf(e) == body })
	return err
}

// BodyOf returns the text of a message or of the one that it carries.
func BodyOf(e *element.Element) string {
	if b := e.Child("", "body"); b != nil {
		return b.Text()
	}
	for _, c := range e.Children() {
		if c.Name.Space != "" || c.Name.Local == "message" {
			if b := BodyOf(c); b != "" {
				return b
			}
		}
	}
	return ""
}

// Request sends an IQ and waits for the reply. An error reply is an error.
func (c *Client) Request(ctx context.Context, typ, to string, payload *element.Element) (*element.Element, error) {
	id := rand.Text()[:10]
	if err := c.Send(element.New("", "iq", "type", typ, "id", id, "to", to).Add(payload)); err != nil {
		return nil, err
	}
	reply, err := c.Receive(ctx, func(e *element.Element) bool { return e.Name.Local == "iq" && e.Get("id") == id })
	if err == nil && reply.Get("type") == "error" {
		err = fmt.Errorf("refused: %s", reply.Child("", "error"))
	}
	return reply, err
}

// Settle waits until nothing is on its way: the client has what the server sent, and the server knows it.
func (c *Client) Settle(ctx context.Context) error {
	if _, err := c.Request(ctx, "get", c.login.Domain, element.New("urn:xmpp:ping", "ping")); err != nil {
		return err
	}
	c.mu.Lock()
	before := c.answers
	c.mu.Unlock()
	if err := c.acknowledgeNow(element.New(nsSM, "r")); err != nil {
		return err
	}
	for {
		c.mu.Lock()
		after := c.answers
		c.mu.Unlock()
		if after > before {
			return nil
		}
		select {
		case <-c.news:
		case <-c.done:
			return ErrGone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// EnablePush registers the client with a push service.
func (c *Client) EnablePush(ctx context.Context, service, node, secret string) error {
	enable := element.New(nsPush, "enable", "jid", service, "node", node)
	if secret != "" {
		enable.Add(element.Form("submit", "http://jabber.org/protocol/pubsub#publish-options", "secret", secret))
	}
	_, err := c.Request(ctx, "set", "", enable)
	return err
}

// DisablePush takes that back.
func (c *Client) DisablePush(ctx context.Context, service, node string) error {
	_, err := c.Request(ctx, "set", "", element.New(nsPush, "disable", "jid", service, "node", node))
	return err
}

// EnableCarbons asks for copies of what the account's other clients send and receive.
func (c *Client) EnableCarbons(ctx context.Context) error {
	_, err := c.Request(ctx, "set", "", element.New("urn:xmpp:carbons:2", "enable"))
	return err
}

// Deaf keeps the client from acknowledging what it is sent, like a phone whose network has gone.
func (c *Client) Deaf() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf = true
}

// Abandon forgets the connection, which the server does not notice.
func (c *Client) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned = true
	close(c.done)
}

// Raw sends bytes as they are. They are not sent again after a resumption.
func (c *Client) Raw(b []byte) error {
	_, err := c.conn.Write(b)
	return err
}

// Nonza sends what is not a stanza.
func (c *Client) Nonza(e *element.Element) error { return c.write(e) }

// Drop loses the connection without a word.
func (c *Client) Drop() {
	c.conn.Close()
	<-c.done
}

// Close ends the session in good order.
func (c *Client) Close() {
	c.conn.Write([]byte("</stream:stream>"))
	select {
	case <-c.done:
	case <-time.After(5 * time.Second):
		c.conn.Close()
	}
}
