package push

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push/internal/stanzaxml"
)

// Limits on what a client may register. More is refused with modify/not-acceptable.
const (
	// MaxNodeBytes bounds the length of a node. Device tokens, which some services use as the node, have some hundred bytes.
	MaxNodeBytes = 1024
	// MaxFormFields bounds the number of fields of a publish-options form.
	MaxFormFields = 32
	// MaxFormBytes bounds a publish-options form: the lengths of its names, types and values together, and 16 for each field and each value.
	MaxFormBytes = 8192
)

// ErrNotPush is returned for a stanza that is not one of those that the function is for. The host goes on as if it had not asked.
var ErrNotPush = errors.New("push: not a stanza of XEP-0357")

// EventHandler is what the handlers of stanzas need of an Engine, and an *Engine is one.
type EventHandler interface {
	Handle(ctx context.Context, ev Event) (Decision, error)
}

var _ EventHandler = (*Engine)(nil)

// Request is an IQ with which a client enables or disables push (XEP-0357 §5, §6, or Push 2.0), read and checked. ParseRequest and ReadRequest
// make it. Before Answer the host may change both fields: what it puts into Event is what the Engine is asked for, and with a Refusal of its own
// (a push service that it does not want, say) the Engine is not asked.
type Request struct {
	// Event is the PushEnable or PushDisable that it asks for. It is nil if ParseRequest refused it.
	Event Event
	// Refusal is the error that the client is answered, or nil.
	Refusal *stanza.Error

	id, from, to string
}

// ParseRequest reads a request from the bytes of one stanza. session is the session that sent it, which the host knows from the
// connection: it must be authenticated, and what the stanza says of its sender is only compared with it.
//
// A request is refused (with the error that RFC 6120 §8.3 has for it) as follows:
//
//   - it does not come from session's account, or is addressed neither to that account's bare JID, nor to the account's domain, nor to nobody:
//     auth/forbidden, as for anybody else's roster (RFC 6121 §2.3.3);
//   - its type is get: cancel/not-allowed;
//   - it has no id, or more than one payload: modify/bad-request;
//   - there is no jid, it is not a JID, or it is the account's own, bare or full: modify/bad-request;
//   - the form is malformed, is of another type than submit or form, or is there twice: modify/bad-request;
//   - something else that the client asks for is malformed, such as a key of the wrong size or a room without a nickname to look for:
//     modify/bad-request;
//   - it asks for encryption by an algorithm that is not known: modify/feature-not-implemented;
//   - node, form or wishes are over a limit, or the node is one that Push 2.0 uses: modify/not-acceptable.
//
// Of Push 2.0 (urn:xmpp:push2:0), service is what is called jid here; client is needed too, and one match that is understood at least: if there
// are others only, that is modify/feature-not-implemented.
//
// What else is in it is ignored, other extensions' elements included. An error wraps ErrNotPush if the stanza is not such an IQ, or
// ErrStanza if it is not even a stanza.
func ParseRequest(session SessionID, data []byte) (*Request, error) {
	e, err := stanzaxml.Parse(data)
	if err != nil {
		return nil, err
	}
	q, err := readRequest(session, e)
	if err != nil {
		return nil, err
	}
	if err := e.Close(); err != nil {
		return nil, err
	}
	return q, nil
}

// ReadRequest is ParseRequest for a token reader that is positioned before the start element of the stanza. It reads to the
// stanza's end and no further.
func ReadRequest(session SessionID, r xml.TokenReader) (*Request, error) {
	return readRequest(session, stanzaxml.New(r))
}

func readRequest(session SessionID, e *stanzaxml.Element) (*Request, error) {
	start, err := e.Open()
	if err != nil {
		return nil, err
	}
	typ := stanzaxml.Attribute(start, "type")
	if kindOf(start.Name.Space, start.Name.Local) != KindIQ || typ != "set" && typ != "get" {
		return nil, ErrNotPush
	}
	q := &Request{id: stanzaxml.Attribute(start, "id"), from: stanzaxml.Attribute(start, "from"), to: stanzaxml.Attribute(start, "to")}
	payloads, ours := 0, false
	var p payload
	err = e.Children(func(child xml.StartElement) error {
		payloads++
		if payloads > 1 {
			return nil
		}
		if ours = IsRequest(child.Name); !ours {
			return ErrNotPush
		}
		p = payload{enable: child.Name.Local == "enable", push2: child.Name.Space == NSPush2}
		if p.push2 {
			p.node = Push2Node
			return p.readPush2(e)
		}
		p.service, p.node = stanzaxml.Attribute(child, "jid"), stanzaxml.Attribute(child, "node")
		if !p.enable {
			return nil
		}
		return p.read(e, child)
	}, nil)
	if err != nil {
		return nil, err
	}
	if !ours {
		return nil, ErrNotPush
	}
	q.judge(session, typ, payloads, &p)
	return q, nil
}

// IsRequest tells by the name of an IQ's payload whether ParseRequest is for it.
func IsRequest(n xml.Name) bool {
	return (n.Space == NS || n.Space == NSPush2) && (n.Local == "enable" || n.Local == "disable")
}

// judge sets Event or Refusal.
func (q *Request) judge(session SessionID, typ string, payloads int, p *payload) {
	refuse := func(typ stanza.ErrorType, c stanza.Condition, text string) {
		q.Refusal = &stanza.Error{Type: typ, Condition: c, Text: map[string]string{"en": text}}
	}
	malformed := func(text string) { refuse(stanza.Modify, stanza.BadRequest, text) }
	if !q.isFrom(session.Account) {
		q.from = "" // the reply goes to who really sent it, not to a third party
		refuse(stanza.Auth, stanza.Forbidden, "this is for the account itself")
		return
	}
	if to, err := prepared(q.to); err != nil || to != "" && to != session.Account && to != domain(session.Account) {
		refuse(stanza.Auth, stanza.Forbidden, "this is for the account itself")
		return
	}
	switch {
	case stanzaxml.CheckText(q.id) != nil || q.id == "":
		q.id = ""
		malformed("an IQ needs an id")
		return
	case typ == "get":
		refuse(stanza.Cancel, stanza.NotAllowed, "push is enabled and disabled by an IQ of type set")
		return
	case payloads > 1:
		malformed("an IQ has one payload")
		return
	case p.push2 && !p.enable:
		q.Event = PushDisable{Session: session, Key: Key{Node: Push2Node}}
		return
	case p.service == "":
		malformed(p.serviceName() + " is missing")
		return
	}
	service, err := jid.Parse(p.service)
	switch {
	case err != nil:
		malformed(p.serviceName() + " is not a JID")
		return
	case service.Bare().String() == session.Account:
		malformed(p.serviceName() + " is the account itself")
		return
	case len(p.node) > MaxNodeBytes:
		refuse(stanza.Modify, stanza.NotAcceptable, fmt.Sprintf("node is longer than %d bytes", MaxNodeBytes))
		return
	case stanzaxml.CheckText(p.node) != nil:
		malformed("node is not text")
		return
	case !p.push2 && strings.HasPrefix(p.node, Push2Node):
		refuse(stanza.Modify, stanza.NotAcceptable, "node begins with "+Push2Node)
		return
	case p.fault != nil:
		q.Refusal = p.fault
		return
	}
	k := Key{Service: service.String(), Node: p.node}
	if p.enable {
		ev := PushEnable{Session: session, Key: k, Options: p.options}
		if !p.wishes.Empty() {
			ev.Wishes = &p.wishes
		}
		q.Event = ev
	} else {
		q.Event = PushDisable{Session: session, Key: k}
	}
}

// isFrom tells whether the stanza's own word on its sender, if it has one, agrees.
func (q *Request) isFrom(account string) bool {
	from, err := prepared(q.from)
	return err == nil && account != "" && (from == "" || bare(from) == account)
}

// Answer puts the request to an Engine, unless it is refused, and returns the reply to the client. It may take as long as the Store does. An
// Engine that fails is wait/internal-server-error to the client; nothing has changed, unless the Store did not answer in time (ErrStore).
func (q *Request) Answer(ctx context.Context, h EventHandler) *Answer {
	a := &Answer{Refusal: q.Refusal, id: q.id, from: q.to, to: q.from}
	switch {
	case q.Refusal != nil:
		return a
	case q.Event == nil:
		a.Err = fmt.Errorf("%w: the Request has neither an Event nor a Refusal; make it with ParseRequest or ReadRequest", ErrEvent)
	case h == nil:
		a.Err = fmt.Errorf("%w: Request.Answer was given no EventHandler; give it the Engine", ErrEvent)
	default:
		_, a.Err = h.Handle(ctx, q.Event)
	}
	if a.Err != nil {
		a.Refusal = &stanza.Error{Type: stanza.Wait, Condition: stanza.InternalServerError}
	}
	return a
}
