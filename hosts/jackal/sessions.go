package jackal

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"sync"
	"time"

	"github.com/jackal-xmpp/stravaganza"
	"github.com/jackal-xmpp/stravaganza/jid"
	"github.com/ortuman/jackal/pkg/hook"
	streamqueue "github.com/ortuman/jackal/pkg/module/xep0198/queue"
	jackalstream "github.com/ortuman/jackal/pkg/router/stream"
	"github.com/xmpp-push/push"
)

// nsSM is the namespace of stream management (XEP-0198).
const nsSM = "urn:xmpp:sm:3"

// A session is what a client has from binding a resource until it is over. It outlives its stream: jackal makes a new stream when the client
// resumes, and tells "terminated" of the old one and "binded" of the new one, as it does for a session that ends and another that begins.
// What tells them apart is the order of what happens around it:
//
//	resumed        <resume/> received on the new stream; the old one is sent the stream error "conflict", terminated; the new one is binded
//	not resumed    the same, but the new stream is sent <failed/>, or goes on without having been binded
//	ended          the stream is sent any other stream error; or disconnected, and stream management does not keep it; or terminated
//	hibernated     disconnected, and stream management keeps it
//
// jackal never hibernates a stream that was sent a stream error. Between that and "terminated" up to five seconds can pass, in which what is
// routed to the stream is lost; therefore the session ends for push when the error is sent.
//
// All hooks of one stream run one after another, and the hooks of both streams of a resumption do; so events of a session keep their order.
type session struct {
	id     push.SessionID
	jid    string
	stream jackalstream.C2S

	hibernated bool
	// resuming: its stream was told "conflict", because another stream asked to resume it.
	resuming bool
	// end ends the hibernation.
	end *time.Timer

	acks acks
	// request is the enable or disable that the session sent last.
	request *stravaganza.IQ
}

// stop stops the session's timers.
func (s *session) stop() {
	s.acks.stop()
	stopTimer(&s.end)
}

func stopTimer(t **time.Timer) {
	if *t != nil {
		(*t).Stop()
		*t = nil
	}
}

// sessions are those of this node.
type sessions struct {
	mu       sync.Mutex
	byJID    map[string]*session
	byStream map[jackalstream.C2SID]*session
	byID     map[push.SessionID]*session
	// resumes says which session a stream has asked to resume, by its JID.
	resumes map[jackalstream.C2SID]string
	// boot makes the names of sessions unique: jackal numbers its streams from 1 each time.
	boot string
}

func (ss *sessions) init() {
	ss.byJID = make(map[string]*session)
	ss.byStream = make(map[jackalstream.C2SID]*session)
	ss.byID = make(map[push.SessionID]*session)
	ss.resumes = make(map[jackalstream.C2SID]string)
	ss.boot = rand.Text()[:8]
}

// forget forgets all of them.
func (ss *sessions) forget() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.byID {
		s.stop()
	}
	clear(ss.byJID)
	clear(ss.byStream)
	clear(ss.byID)
	clear(ss.resumes)
}

// add adds a session for a stream that was bound. ss is locked.
func (ss *sessions) add(stm jackalstream.C2S, jd *jid.JID) *session {
	s := &session{
		id:     push.SessionID{Account: jd.ToBareJID().String(), ID: ss.boot + "-" + stm.ID().String()},
		jid:    jd.String(),
		stream: stm,
	}
	ss.byJID[s.jid], ss.byStream[stm.ID()], ss.byID[s.id] = s, s, s
	return s
}

// remove removes a session. It reports whether it was there. ss is locked.
func (ss *sessions) remove(s *session) bool {
	if ss.byID[s.id] != s {
		return false
	}
	s.stop()
	delete(ss.byID, s.id)
	if ss.byJID[s.jid] == s {
		delete(ss.byJID, s.jid)
	}
	if ss.byStream[s.stream.ID()] == s {
		delete(ss.byStream, s.stream.ID())
	}
	return true
}

// of returns the session that a stream carries, or nil.
func (ss *sessions) of(stm jackalstream.C2S) *session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.byStream[stm.ID()]
}

// stream makes a hook handler of one for the events of client streams.
func stream(h func(context.Context, jackalstream.C2S, *hook.C2SStreamInfo) error) hook.Handler {
	return func(x *hook.ExecutionContext) error {
		stm, ok := x.Sender.(jackalstream.C2S)
		inf, ok2 := x.Info.(*hook.C2SStreamInfo)
		if !ok || !ok2 {
			return nil
		}
		return h(x.Context, stm, inf)
	}
}

// bound: the stream has bound a resource, or resumed a session.
func (m *Module) bound(ctx context.Context, stm jackalstream.C2S, inf *hook.C2SStreamInfo) error {
	ss := &m.sessions
	ss.mu.Lock()
	s := ss.byJID[inf.JID.String()]
	if s != nil && s.resuming && ss.resumes[stm.ID()] == s.jid {
		delete(ss.resumes, stm.ID())
		s.stop()
		s.resuming, s.hibernated, s.stream = false, false, stm
		ss.byStream[stm.ID()] = s
		ss.mu.Unlock()
		m.handle(ctx, push.HibernationEnd{Session: s.id})
		return nil
	}
	ss.mu.Unlock()
	if s != nil {
		m.over(ctx, s) // jackal ended it and did not say so
	}
	ss.mu.Lock()
	s = ss.add(stm, inf.JID)
	ss.mu.Unlock()
	m.handle(ctx, push.SessionOpen{Session: s.id, JID: s.jid})
	return nil
}

// received: the stream sent an element, of which only those of stream management matter here.
func (m *Module) received(ctx context.Context, stm jackalstream.C2S, inf *hook.C2SStreamInfo) error {
	m.notResumed(ctx, stm)
	if inf.Element.Attribute(stravaganza.Namespace) != nsSM {
		return nil
	}
	switch inf.Element.Name() {
	case "resume":
		if jd := resumedJID(inf.Element.Attribute("previd")); jd != "" {
			m.sessions.mu.Lock()
			m.sessions.resumes[stm.ID()] = jd
			m.sessions.mu.Unlock()
		}
	case "a":
		return m.acked(stm, inf.Element)
	}
	return nil
}

// resumedJID returns the full JID in a name that jackal gives to a resumable session, which is that JID and a nonce.
func resumedJID(previd string) string {
	b, err := base64.StdEncoding.DecodeString(previd)
	if err != nil {
		return ""
	}
	s, _, _ := strings.Cut(string(b), "\x00")
	jd, err := jid.NewWithString(s, false)
	if err != nil {
		return ""
	}
	return jd.String()
}

// notResumed: whatever the stream asked to resume, it was not.
func (m *Module) notResumed(ctx context.Context, stm jackalstream.C2S) {
	ss := &m.sessions
	ss.mu.Lock()
	jd, asked := ss.resumes[stm.ID()]
	delete(ss.resumes, stm.ID())
	var s *session
	if asked {
		if s = ss.byJID[jd]; s != nil && !s.resuming {
			s = nil
		}
	}
	ss.mu.Unlock()
	if s != nil {
		m.over(ctx, s)
	}
}

// wanted tells whether a stream has asked to resume the session. ss is locked.
func (ss *sessions) wanted(s *session) bool {
	for _, jd := range ss.resumes {
		if jd == s.jid {
			return true
		}
	}
	return false
}

// sent: an element was sent on the stream, or would have been, had it a connection.
func (m *Module) sent(ctx context.Context, stm jackalstream.C2S, inf *hook.C2SStreamInfo) error {
	e := inf.Element
	switch e.Name() {
	case "stream:error":
		m.failed(ctx, stm, e)
	case "failed":
		if e.Attribute(stravaganza.Namespace) == nsSM {
			m.notResumed(ctx, stm)
		}
	case "r":
		if e.Attribute(stravaganza.Namespace) == nsSM {
			m.asked(stm)
		}
	case "message", "presence", "iq":
		if st, ok := e.(stravaganza.Stanza); ok {
			m.delivered(ctx, stm, st)
		}
	}
	return nil
}

// delivered: a stanza was sent to a session. It counts for push if stream management has put it into the session's queue.
func (m *Module) delivered(ctx context.Context, stm jackalstream.C2S, e stravaganza.Stanza) {
	s := m.sessions.of(stm)
	if s == nil {
		return
	}
	q := m.queue(s)
	if q == nil {
		return
	}
	queued := q.Elements()
	for i := len(queued) - 1; i >= 0; i-- {
		if queued[i].Stanza == e {
			m.queued(ctx, s, queued[i])
			return
		}
	}
}

// queued: a stanza is waiting to be acknowledged by a session's client, which may not even be there.
func (m *Module) queued(ctx context.Context, s *session, e streamqueue.Element) {
	m.sessions.mu.Lock()
	hibernated, overdue := s.hibernated, s.acks.overdue
	if !hibernated && !overdue {
		m.expectAck(s)
	}
	m.sessions.mu.Unlock()
	switch {
	case hibernated:
		m.handle(ctx, push.StanzaQueued{Session: s.id, Stanza: s.stanza(e)})
	case overdue:
		m.handle(ctx, push.AckDelayed{Session: s.id, Stanzas: []push.Stanza{s.stanza(e)}})
	}
}

// queue returns the stanzas that a session has not acknowledged, or nil if it has no stream management.
func (m *Module) queue(s *session) *streamqueue.Queue {
	return m.Queues.Get(s.jid)
}

// failed: the stream was sent a stream error, after which it is not hibernated.
func (m *Module) failed(ctx context.Context, stm jackalstream.C2S, e stravaganza.Element) {
	s := m.sessions.of(stm)
	if s == nil {
		return
	}
	m.sessions.mu.Lock()
	if e.Child("conflict") != nil && m.sessions.wanted(s) {
		s.resuming = true
		s.stop()
	}
	resuming := s.resuming
	m.sessions.mu.Unlock()
	if !resuming {
		m.over(ctx, s)
	}
}

// disconnected: the stream has lost its connection, or closed it.
func (m *Module) disconnected(ctx context.Context, stm jackalstream.C2S, inf *hook.C2SStreamInfo) error {
	m.notResumed(ctx, stm)
	s := m.sessions.of(stm)
	switch {
	case s == nil || s.resuming:
	case m.hibernates(s, inf):
		m.hibernate(ctx, s)
	default:
		m.over(ctx, s)
	}
	return nil
}

// terminated: jackal forgets the stream.
func (m *Module) terminated(ctx context.Context, stm jackalstream.C2S, _ *hook.C2SStreamInfo) error {
	s := m.sessions.of(stm)
	if s == nil {
		return nil
	}
	m.sessions.mu.Lock()
	resuming := s.resuming
	if resuming {
		delete(m.sessions.byStream, stm.ID()) // the next is bound at once, or notResumed
	}
	m.sessions.mu.Unlock()
	if !resuming {
		m.over(ctx, s)
	}
	return nil
}

// over: a session has ended. jackal throws away what its client had not acknowledged, so the messages among it are an ack-delayed event: the
// archive has them still.
func (m *Module) over(ctx context.Context, s *session) {
	m.sessions.mu.Lock()
	there := m.sessions.remove(s)
	hibernated, resuming := s.hibernated, s.resuming
	m.sessions.mu.Unlock()
	if !there {
		return
	}
	if !hibernated && !resuming {
		var lost []push.Stanza
		for _, st := range m.unacked(s) {
			if st.Kind == push.KindMessage {
				lost = append(lost, st)
			}
		}
		if len(lost) > 0 {
			m.handle(ctx, push.AckDelayed{Session: s.id, Stanzas: lost})
		}
	}
	m.handle(ctx, push.SessionClose{Session: s.id})
}

// unacked returns what a session's client has not acknowledged, oldest first.
func (m *Module) unacked(s *session) []push.Stanza {
	q := m.queue(s)
	if q == nil {
		return nil
	}
	var sts []push.Stanza
	for _, e := range q.Elements() {
		sts = append(sts, s.stanza(e))
	}
	return sts
}
