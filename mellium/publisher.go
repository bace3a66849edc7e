package mellium

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"time"

	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push"
)

// errNoReply is what a publish ends with if there is no reply in time.
var errNoReply = errors.New("mellium: no reply from the push service")

// errStranger is about a reply with the right ID that came from somewhere else.
var errStranger = errors.New("somebody else answered")

// Publisher is a Publisher over one session of mellium.im/xmpp: a component's (XEP-0114), or a stream to another server. It is safe for
// simultaneous use.
//
// The session's Serve must be running, for it reads the replies; and a publish must not be made from one of its handlers, which would keep
// Serve from reading. When the session is over, publishes fail as if there was no answer; a host that connects again puts a PublisherFunc around the
// Publisher of the day. A publish without a reply is done with ctx, but a goroutine of it stays for a tenth of a second longer, or for as long
// as the connection takes no bytes.
type Publisher struct {
	// Session sends and receives. Required.
	Session *xmpp.Session
	// Host is the domain that publishes come from. Empty means the session's own address, without a resource.
	Host string
	// Settle is how long an error is waited for after a publish of Push 2.0, as in push.Router. Default 2 s.
	Settle time.Duration
}

// Publish implements Publisher.
func (p Publisher) Publish(ctx context.Context, n *push.Notification) error {
	own := p.Session.LocalAddr().Bare()
	from := own
	if p.Host != "" {
		var err error
		if from, err = jid.Parse(p.Host); err != nil {
			return fmt.Errorf("mellium: Publisher.Host: %w", err)
		}
	}
	to, err := jid.Parse(n.Service)
	if err != nil {
		return fmt.Errorf("mellium: the service is not a JID: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errNoReply, ctx.Err())
	}
	if !n.IsPush2() {
		return p.publish(ctx, n, from, to, own)
	}
	// A message is answered only if something is wrong.
	settle := cmp.Or(p.Settle, 2*time.Second)
	parts := n.Split()
	errs := make(chan error, len(parts))
	for i := range parts {
		go func() {
			short, cancel := context.WithTimeout(ctx, settle)
			defer cancel()
			err := p.publish(short, &parts[i], from, to, own)
			if errors.Is(err, errUnanswered) {
				err = nil
			}
			errs <- err
		}()
	}
	var first error
	for range parts {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// errUnanswered: what was sent is out, and there was no reply.
var errUnanswered = errors.New("no answer")

// publish sends one stanza and waits for the reply.
func (p Publisher) publish(ctx context.Context, n *push.Notification, from, to, own jid.JID) error {
	// mellium takes whatever has the same ID for the reply, so the ID must not be guessable, and from is looked at here.
	id := rand.Text()
	send, tokens := p.Session.SendIQ, push.PublishIQ{IQ: stanza.IQ{ID: id, From: from, To: to}, Notification: n}.TokenReader()
	if n.IsPush2() {
		send, tokens = p.Session.SendMessage, push.PublishMessage{Message: stanza.Message{ID: id, From: from, To: to}, Notification: n}.TokenReader()
	}
	// And it stops writing, in the middle of a stanza or of another publish's, when the context of SendIQ ends; after that the stream is useless to
	// everybody. So SendIQ has a context of its own, which ends when the stanza is out and there is no reply to wait for.
	sending := until{context.WithoutCancel(ctx), make(chan struct{})}
	out := outgoing{TokenReader: tokens, read: make(chan struct{})}
	type answer struct {
		reply *push.ReplyError
		err   error
	}
	c := make(chan answer, 1)
	over := make(chan struct{})
	go func() { // for a reply can stop in its middle, and ctx does not end the reading
		defer close(over)
		r, err := send(sending, &out)
		if err != nil {
			c <- answer{nil, fmt.Errorf("mellium: publish not sent: %w", err)}
			return
		}
		defer r.Close()
		reply, err := readReply(r, to, own)
		if err != nil {
			err = fmt.Errorf("%w: %w", errNoReply, err)
		}
		c <- answer{reply, err}
	}()
	select {
	case a := <-c:
		if a.err != nil {
			return a.err
		}
		if a.reply != nil {
			return a.reply
		}
		return nil // and not an error that holds a nil pointer
	case <-ctx.Done():
		err := ctx.Err()
		select {
		case <-out.read:
			err = fmt.Errorf("%w: %w", errUnanswered, err)
		default:
		}
		go func() {
			defer close(sending.done)
			select {
			case <-out.read:
				p.Session.TokenWriter().Close()    // waits for what is being written,
				time.Sleep(100 * time.Millisecond) // and this for what watches the context while it is
			case <-over:
			}
		}()
		return fmt.Errorf("%w: %w", errNoReply, err)
	}
}

// until is a context that ends when done is closed.
type until struct {
	context.Context
	done chan struct{}
}

func (u until) Done() <-chan struct{} { return u.done }

func (u until) Err() error {
	select {
	case <-u.done:
		return context.Canceled
	default:
		return nil
	}
}

// outgoing is a stanza that is sent; read is closed when all of it was read.
type outgoing struct {
	xml.TokenReader
	depth int
	read  chan struct{}
}

func (o *outgoing) Token() (xml.Token, error) {
	t, err := o.TokenReader.Token()
	switch t.(type) {
	case xml.StartElement:
		o.depth++
	case xml.EndElement:
		if o.depth--; o.depth == 0 {
			close(o.read)
		}
	}
	return t, err
}

// readReply reads the reply to an IQ that was sent to that address. mellium has blanked its from if that is own.
func readReply(r xml.TokenReader, to, own jid.JID) (*push.ReplyError, error) {
	sender, re, err := push.ReadReply(r)
	if err != nil {
		return nil, err
	}
	from := own
	if sender != "" {
		if from, err = jid.Parse(sender); err != nil {
			return nil, errStranger
		}
	}
	if !from.Equal(to) {
		return nil, errStranger
	}
	return re, nil
}
