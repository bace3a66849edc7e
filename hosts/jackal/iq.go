package jackal

import (
	"context"

	"github.com/go-kit/log/level"
	"github.com/jackal-xmpp/stravaganza"
	"github.com/ortuman/jackal/pkg/hook"
	jackalstream "github.com/ortuman/jackal/pkg/router/stream"
	"github.com/xmpp-push/push"
)

// MatchesNamespace implements module.IQProcessor. Clients send the request to their own account; some send it to the server.
func (m *Module) MatchesNamespace(ns string, _ bool) bool { return ns == push.NS }

// iqReceived: a client has sent an IQ. jackal hands those to ProcessIQ with nothing but their from, of which it can tell less than of
// the stream they came by.
func (m *Module) iqReceived(_ context.Context, stm jackalstream.C2S, inf *hook.C2SStreamInfo) error {
	iq, ok := inf.Element.(*stravaganza.IQ)
	if !ok {
		return nil
	}
	m.sessions.mu.Lock()
	if s := m.sessions.byStream[stm.ID()]; s != nil {
		s.request = iq
	}
	m.sessions.mu.Unlock()
	return nil
}

// ProcessIQ implements module.IQProcessor: it answers a client that enables or disables push.
func (m *Module) ProcessIQ(ctx context.Context, iq *stravaganza.IQ) error {
	var session push.SessionID
	m.sessions.mu.Lock()
	if s := m.sessions.byJID[iq.FromJID().String()]; s != nil && s.request == iq {
		session, s.request = s.id, nil
	}
	m.sessions.mu.Unlock()
	q, err := push.ReadRequest(session, newTokens(iq))
	if err != nil {
		return err
	}
	a := q.Answer(ctx, m.engine)
	if a.Err != nil {
		level.Warn(m.Logger).Log("msg", "push not enabled or disabled", "account", session.Account, "err", a.Err)
	}
	reply, err := outgoing(a.AppendXML(nil), iq.ToJID().String(), iq.FromJID().String())
	if err != nil {
		return err
	}
	_, err = m.Router.Route(ctx, reply)
	return err
}

// affiliation: a push service may have said that an account can no longer publish (XEP-0357 §8). domain is where the message surely came from.
func (m *Module) affiliation(ctx context.Context, e stravaganza.Element, domain string) {
	msg, ok := e.(*stravaganza.Message)
	if !ok || msg.FromJID().Domain() != domain || root(msg).child("http://jabber.org/protocol/pubsub", "pubsub") == nil {
		return
	}
	ev, err := push.ReadAffiliation(newTokens(msg))
	if err == nil && m.Hosts.IsLocalHost(domainOf(ev.Account)) {
		m.handle(ctx, ev)
	}
}
