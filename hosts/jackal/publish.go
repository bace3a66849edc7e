package jackal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackal-xmpp/stravaganza"
	xmppparser "github.com/jackal-xmpp/stravaganza/parser"
	"github.com/ortuman/jackal/pkg/hook"
	"github.com/ortuman/jackal/pkg/router"
	"github.com/xmpp-push/push"
)

// send routes a publish to a push service: to the component of that domain, if there is one, which jackal's router does not look for, else to
// another server.
func (m *Module) send(ctx context.Context, to string, xml []byte) error {
	iq, err := outgoing(xml, m.replies.Host, to)
	if err != nil {
		return err
	}
	domain := iq.ToJID().Domain()
	switch {
	case m.Components.IsComponentHost(domain):
		return m.Components.ProcessStanza(ctx, iq)
	case m.Hosts.IsLocalHost(domain):
		// An account as push service: its owner would get other accounts' IQs on all devices, and jackal drops what they answer.
		return &push.ReplyError{Type: "cancel", Condition: "service-unavailable"}
	}
	_, err = m.Router.Route(ctx, iq)
	switch {
	case errors.Is(err, router.ErrRemoteServerNotFound):
		return &push.ReplyError{Type: "cancel", Condition: "remote-server-not-found"}
	case errors.Is(err, router.ErrRemoteServerTimeout):
		return &push.ReplyError{Type: "wait", Condition: "remote-server-timeout"}
	}
	return err
}

// remoteIQ: another server has sent an IQ, which may be the answer to a publish.
func (m *Module) remoteIQ(x *hook.ExecutionContext) error {
	if inf, ok := x.Info.(*hook.S2SStreamInfo); ok {
		if iq, ok := inf.Element.(*stravaganza.IQ); ok {
			m.reply(iq, inf.Sender)
		}
	}
	return nil
}

// reply takes the answer to a publish. domain is where it surely came from. It returns false for all else.
func (m *Module) reply(iq *stravaganza.IQ, domain string) bool {
	if !iq.IsResult() && !iq.IsError() || iq.FromJID().Domain() != domain {
		return false
	}
	var failure *push.ReplyError
	if iq.IsError() {
		failure = replyError(iq)
	}
	return m.replies.Reply(iq.FromJID().String(), iq.ID(), failure)
}

// replyError returns the error that a stanza of type error carries.
func replyError(iq *stravaganza.IQ) *push.ReplyError {
	const nsConditions, nsPubsub = "urn:ietf:params:xml:ns:xmpp-stanzas", "http://jabber.org/protocol/pubsub#errors"
	r := &push.ReplyError{Type: "cancel", Condition: "undefined-condition"}
	for e := range root(iq).children() {
		if e.name.Local != "error" {
			continue
		}
		if t := e.attr("type"); t != "" {
			r.Type = t
		}
		for c := range e.children() {
			switch {
			case c.name.Space == nsConditions && c.name.Local != "text":
				r.Condition = c.name.Local
			case c.is(nsPubsub, "payload-too-big"):
				r.Condition = c.name.Local
				return r
			}
		}
	}
	return r
}

// outgoing makes one of jackal's IQs of the bytes of one, which jackal wants to have both addresses.
func outgoing(xml []byte, from, to string) (*stravaganza.IQ, error) {
	e, err := xmppparser.New(bytes.NewReader(xml), xmppparser.DefaultMode, 0).Parse()
	if err != nil {
		return nil, fmt.Errorf("push stanza not understood: %w", err)
	}
	if e.Attribute(stravaganza.From) == "" {
		e = stravaganza.NewBuilderFromElement(e).WithAttribute(stravaganza.From, from).Build()
	}
	if e.Attribute(stravaganza.To) == "" {
		e = stravaganza.NewBuilderFromElement(e).WithAttribute(stravaganza.To, to).Build()
	}
	escape(e.Proto())
	return stravaganza.NewBuilderFromElement(e).BuildIQ()
}

// escape escapes attribute values, which jackal writes as they are. Without that a client could put whatever it likes into the streams to
// components and other servers by means of a node.
func escape(e *stravaganza.PBElement) {
	for _, a := range e.Attributes {
		a.Value = escaper.Replace(a.Value)
	}
	for _, c := range e.Elements {
		escape(c)
	}
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `'`, "&#39;", `"`, "&#34;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;")
