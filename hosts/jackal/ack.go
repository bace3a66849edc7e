package jackal

import (
	"context"
	"strconv"
	"time"

	"github.com/jackal-xmpp/stravaganza"
	"github.com/ortuman/jackal/pkg/hook"
	jackalstream "github.com/ortuman/jackal/pkg/router/stream"
	"github.com/xmpp-push/push"
)

// acks is the state of a session's acknowledgements (XEP-0198 §4), of which jackal tells nothing but the elements that come and go. The sessions'
// lock guards it.
//
// jackal asks for an acknowledgement so seldom that a phone that is gone would be noticed after minutes; the module asks on its own, when
// there is something to acknowledge. jackal hangs up if its own request is not answered, and then drops what was not acknowledged.
type acks struct {
	// asked: there is an <r/> without an <a/>. overdue: for longer than Config.AckDelay.
	asked, overdue bool
	// ask sends the <r/>; late notes that it was not answered.
	ask, late *time.Timer
}

func (a *acks) stop() {
	stopTimer(&a.ask)
	stopTimer(&a.late)
	a.asked, a.overdue = false, false
}

// expectAck makes sure that a session is asked for an acknowledgement soon. m.sessions is locked.
func (m *Module) expectAck(s *session) {
	if m.cfg.AckRequest < 0 || s.acks.asked || s.acks.ask != nil {
		return
	}
	stm := s.stream
	var t *time.Timer
	t = time.AfterFunc(m.cfg.AckRequest, func() {
		m.sessions.mu.Lock()
		ask := s.acks.ask == t
		if ask {
			s.acks.ask = nil
		}
		m.sessions.mu.Unlock()
		if q := m.queue(s); ask && q != nil && q.Len() > 0 {
			stm.SendElement(stravaganza.NewBuilder("r").WithAttribute(stravaganza.Namespace, nsSM).Build()) // asked follows
		}
	})
	s.acks.ask = t
}

// asked: an <r/> was sent, by whomever.
func (m *Module) asked(stm jackalstream.C2S) {
	s := m.sessions.of(stm)
	if s == nil {
		return
	}
	m.sessions.mu.Lock()
	defer m.sessions.mu.Unlock()
	if s.hibernated || s.resuming || s.acks.asked {
		return
	}
	s.acks.asked = true
	stopTimer(&s.acks.ask)
	var t *time.Timer
	t = time.AfterFunc(m.cfg.AckDelay, func() {
		m.sessions.mu.Lock()
		late := s.acks.late == t
		s.acks.overdue = s.acks.overdue || late
		m.sessions.mu.Unlock()
		if !late {
			return
		}
		if sts := m.unacked(s); len(sts) > 0 {
			m.handle(context.Background(), push.AckDelayed{Session: s.id, Stanzas: sts})
		}
	})
	s.acks.late = t
}

// acked: the client has acknowledged something. This is done here and not by jackal's module, which answers each acknowledgement that leaves
// anything open by sending all that again; the client would have it twice, and count it twice.
func (m *Module) acked(stm jackalstream.C2S, a stravaganza.Element) error {
	h, err := strconv.ParseUint(a.Attribute("h"), 10, 32)
	s := m.sessions.of(stm)
	if err != nil || s == nil {
		return nil
	}
	q := m.queue(s)
	if q == nil {
		return nil
	}
	q.Acknowledge(uint32(h))
	m.sessions.mu.Lock()
	s.acks.stop()
	if q.Len() > 0 {
		m.expectAck(s)
	}
	m.sessions.mu.Unlock()
	return hook.ErrStopped
}
