package push

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"

	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// errStranger is about a reply with the right ID that came from somewhere else.
var errStranger = errors.New("somebody else answered")

// SessionPublisher is a Publisher over one session of mellium.im/xmpp: a component's (XEP-0114), or a stream to another server. It is safe for
// simultaneous use.
//
// The session's Serve must be running, for it reads the replies; and a publish must not be made from one of its handlers, which would keep
// Serve from reading. When the session is over, publishes fail as if there was no answer; a host that connects again puts a PublisherFunc around the
// SessionPublisher of the day.
type SessionPublisher struct {
	// Session sends and receives. Required.
	Session *xmpp.Session
	// Host is the domain that publishes come from. Empty means the session's own address, without a resource.
	Host string
}

// Publish implements Publisher.
func (p SessionPublisher) Publish(ctx context.Context, n *Notification) error {
	own := p.Session.LocalAddr().Bare()
	from := own
	if p.Host != "" {
		var err error
		if from, err = jid.Parse(p.Host); err != nil {
			return fmt.Errorf("push: SessionPublisher.Host: %w", err)
		}
	}
	to, err := jid.Parse(n.Service)
	if err != nil {
		return fmt.Errorf("push: the service is not a JID: %w", err)
	}
	// mellium takes whatever has the same ID for the reply, so the ID must not be guessable, and from is looked at here.
	iq := PublishIQ{IQ: stanza.IQ{ID: rand.Text(), From: from, To: to}, Notification: n}
	r, err := p.Session.SendIQ(ctx, iq.TokenReader())
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return fmt.Errorf("%w: %w", errNoReply, err)
		}
		return fmt.Errorf("push: publish not sent: %w", err)
	}
	type answer struct {
		reply *ReplyError
		err   error
	}
	c := make(chan answer, 1)
	go func() { // for a reply can stop in its middle, and ctx does not end the reading
		defer r.Close()
		reply, err := readReply(r, to, own)
		c <- answer{reply, err}
	}()
	select {
	case a := <-c:
		if a.err != nil {
			return fmt.Errorf("%w: %w", errNoReply, a.err)
		}
		return asError(a.reply)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoReply, ctx.Err())
	}
}

// readReply reads the reply to an IQ that was sent to that address. mellium has blanked its from if that is own.
func readReply(r xml.TokenReader, to, own jid.JID) (*ReplyError, error) {
	e := newElement(r)
	start, err := e.open()
	if err != nil {
		return nil, err
	}
	from := own
	if s := attribute(start, "from"); s != "" {
		if from, err = jid.Parse(s); err != nil {
			return nil, errStranger
		}
	}
	if !from.Equal(to) {
		return nil, errStranger
	}
	if attribute(start, "type") != "error" {
		return nil, nil
	}
	return readReplyError(e)
}
