package push

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/xmpp-push/push/internal/stanzaxml"
)

// ErrTooManyOpen: more publishes wait for their replies than Router.Limit allows; this one was not sent.
var ErrTooManyOpen = errors.New("push: too many publishes wait for a reply")

// errNoNotification is what there is to say of a notification that is nil.
var errNoNotification = errors.New("push: there is no Notification to publish; give the one that the Publisher was called with")

// errNoReply is what a publish ends with if there is no reply in time.
var errNoReply = errors.New("push: no reply from the push service")

// Router is a Publisher for servers that route stanzas and meet the reply later, in the handler of whatever stream it comes in by. Host and
// Send are set before first use and not changed after it. It is safe for simultaneous use.
//
// The server gives every IQ of type result or error that is addressed to Host to HandleReply, ReadReply or Reply, and, for Push 2.0, every
// message of type error. A reply counts only if both its ID, which cannot be guessed, and its from are those of a publish that waits; others are none
// of ours.
type Router struct {
	// Host is the server's domain, which publishes come from.
	Host string
	// Send routes a stanza, an IQ or for Push 2.0 a message, to the JID to. It may be called from several goroutines at once. It should not wait for more than the
	// stanza's way into a queue; ctx ends when the publish has no more time. The bytes are valid until Send returns. An error means that the
	// stanza was not sent.
	Send func(ctx context.Context, to string, iq []byte) error
	// Limit is how many publishes may wait for a reply at once. Default 16384.
	Limit int
	// Settle is how long an error is waited for after a publish of Push 2.0, which is a message and is not answered if all is well. It is accepted if
	// none has come by then; one that comes later is ignored. Nothing else is published to that registration meanwhile. Default 2 s: an error
	// takes a round trip to the push service and one from there to a vendor, and a message that comes within it waits with the next
	// notification for no longer.
	Settle time.Duration

	mu   sync.Mutex
	open map[string]*sent // by ID
	free sync.Pool        // of *sent
}

// sent is a publish that waits for its reply.
type sent struct {
	service string
	// message: it is one of Push 2.0, for which only an error is a reply.
	message bool
	iq      []byte
	// reply has room for one, which is sent by whoever takes the publish out of Router.open.
	reply chan *ReplyError
}

// Publish implements Publisher.
func (r *Router) Publish(ctx context.Context, n *Notification) error {
	switch {
	case r.Send == nil:
		return errors.New("push: a Router without Send; give the function that routes an IQ")
	case r.Host == "":
		return errors.New("push: a Router without Host; give the server's domain")
	case n == nil:
		return errNoNotification
	case ctx == nil:
		ctx = context.Background()
	}
	if n.IsPush2() {
		return r.publishMessages(ctx, n)
	}
	s, _ := r.free.Get().(*sent)
	if s == nil {
		s = &sent{reply: make(chan *ReplyError, 1)}
	}
	s.service = n.Service
	id := rand.Text()
	if !r.add(id, s) {
		r.free.Put(s)
		return ErrTooManyOpen
	}
	ended := false
	defer func() {
		if ended {
			r.free.Put(s)
		} else { // Send has panicked, or ended the goroutine
			r.take(id)
		}
	}()
	s.iq = n.AppendStanza(s.iq[:0], r.Host, id)
	if err := r.Send(ctx, n.Service, s.iq); err != nil {
		if r.take(id) == nil {
			<-s.reply
		}
		ended = true
		return fmt.Errorf("push: publish not sent: %w", err)
	}
	ended = true // what is below does not call the host
	select {
	case re := <-s.reply:
		return asError(re)
	case <-ctx.Done():
		if r.take(id) == nil {
			return asError(<-s.reply) // it came at the last moment
		}
		return fmt.Errorf("%w: %w", errNoReply, context.Cause(ctx))
	}
}

// publishMessages sends the messages of one notification, one for each stanza that it carries, and waits for an error to any of them.
func (r *Router) publishMessages(ctx context.Context, n *Notification) error {
	parts := n.Split()
	replies := make(chan *ReplyError, len(parts)) // room for one from each
	ids := make([]string, 0, len(parts))
	defer func() {
		for _, id := range ids {
			r.take(id)
		}
	}()
	var stanza []byte
	for i := range parts {
		id := rand.Text()
		if !r.add(id, &sent{service: n.Service, message: true, reply: replies}) {
			return ErrTooManyOpen
		}
		ids = append(ids, id)
		stanza = parts[i].AppendStanza(stanza[:0], r.Host, id)
		if err := r.Send(ctx, n.Service, stanza); err != nil {
			return fmt.Errorf("push: publish not sent: %w", err)
		}
	}
	settled := time.NewTimer(lasting(r.Settle, 2*time.Second))
	defer settled.Stop()
	select {
	case re := <-replies:
		return asError(re)
	case <-settled.C:
	case <-ctx.Done(): // it is out, and nothing was said against it
	}
	return nil
}

func asError(re *ReplyError) error {
	if re == nil {
		return nil // and not an error that holds a nil pointer
	}
	return re
}

func (r *Router) add(id string, s *sent) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = make(map[string]*sent)
	}
	if len(r.open) >= orDefault(r.Limit, 16384) {
		return false
	}
	r.open[id] = s
	return true
}

// take takes the publish out, if it still waits. The caller then owns its reply channel's one place.
func (r *Router) take(id string) *sent {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.open[id]
	delete(r.open, id)
	return s
}

// waits tells whether a reply with this ID and from is one of ours. message says what the reply is, and ok that it is no error.
func (r *Router) waits(from, id string, message, ok bool) bool {
	r.mu.Lock()
	s := r.open[id]
	var service string
	if s != nil && s.message == message && !(message && ok) {
		service = s.service
	}
	r.mu.Unlock()
	if service == "" {
		return false
	}
	if from == service {
		return true
	}
	from, _ = prepared(from)
	return from == service
}

// Reply ends the publish with that ID to that service: e is nil for the result of an IQ, else the error. It returns false if none waits; the
// stanza then is not ours. It is for servers that have parsed the stanza already.
func (r *Router) Reply(from, id string, e *ReplyError) bool {
	return r.reply(from, id, e, false) || r.reply(from, id, e, true)
}

func (r *Router) reply(from, id string, e *ReplyError, message bool) bool {
	if !r.waits(from, id, message, e == nil) {
		return false
	}
	s := r.take(id)
	if s == nil {
		return false
	}
	if e != nil {
		e = e.sane()
	}
	s.reply <- e
	return true
}

// HandleReply is Reply for the bytes of one stanza. It returns false for every stanza that is not a reply to one of our publishes, and an
// error, which wraps ErrStanza, for what is not a stanza.
func (r *Router) HandleReply(iq []byte) (bool, error) {
	e, err := stanzaxml.Parse(iq)
	if err != nil {
		return false, err
	}
	return r.readReply(e)
}

// ReadReply is Reply for a token reader that is positioned before the stanza's start element. It may not read to the stanza's end.
func (r *Router) ReadReply(t xml.TokenReader) (bool, error) {
	return r.readReply(stanzaxml.New(t))
}

func (r *Router) readReply(e *stanzaxml.Element) (bool, error) {
	start, err := e.Open()
	if err != nil {
		return false, err
	}
	typ := stanzaxml.Attribute(start, "type")
	kind := kindOf(start.Name.Space, start.Name.Local)
	if !isReply(kind, typ) {
		return false, nil
	}
	from, id, message := stanzaxml.Attribute(start, "from"), stanzaxml.Attribute(start, "id"), kind == KindMessage
	if !r.waits(from, id, message, typ == "result") {
		return false, nil
	}
	var re *ReplyError
	if typ == "error" {
		if re, err = readReplyError(e); err != nil {
			return false, err
		}
	}
	return r.reply(from, id, re, message), nil
}
