package jackal

import (
	"context"
	"errors"
	"time"

	streamerror "github.com/jackal-xmpp/stravaganza/errors/stream"
	xmppparser "github.com/jackal-xmpp/stravaganza/parser"
	"github.com/ortuman/jackal/pkg/hook"
	"github.com/xmpp-push/push"
)

// hibernates tells whether stream management is about to keep the session of a stream that was disconnected. Nothing can run after it has
// decided, so this is its own condition (xep0198, onDisconnect).
func (m *Module) hibernates(s *session, inf *hook.C2SStreamInfo) bool {
	_, failed := inf.DisconnectError.(*streamerror.Error)
	return m.queue(s) != nil && inf.Presence.IsAvailable() && !failed && !errors.Is(inf.DisconnectError, xmppparser.ErrStreamClosedByPeer)
}

// hibernate: the session has lost its connection and can be resumed.
func (m *Module) hibernate(ctx context.Context, s *session) {
	m.sessions.mu.Lock()
	s.stop()
	s.hibernated = true
	m.endAfter(s, m.cfg.HibernateTime)
	m.sessions.mu.Unlock()
	m.handle(ctx, push.HibernationStart{Session: s.id, Stanzas: m.unacked(s)})
}

// ResumeTimeout implements push.Resumption. jackal's own time is the same for all sessions and cannot be changed once it runs, so the module
// has one of its own, which ends a session in the way jackal's does.
func (m *Module) ResumeTimeout(id push.SessionID, timeout time.Duration, _ push.Reason) {
	if timeout == 0 {
		timeout = m.cfg.HibernateTime
	}
	m.sessions.mu.Lock()
	defer m.sessions.mu.Unlock()
	if s := m.sessions.byID[id]; s != nil && s.hibernated && !s.resuming {
		m.endAfter(s, timeout)
	}
}

// MaxHibernateTime is how long jackal's own configuration has to let a session hibernate, so that it is the module that ends it.
func (m *Module) MaxHibernateTime() time.Duration {
	resume := m.cfg.Push.Policy.MaxResume
	if resume == 0 {
		resume = 72 * time.Hour
	}
	return max(m.cfg.HibernateTime, resume) + time.Minute
}

// endAfter ends a hibernated session after d. m.sessions is locked.
func (m *Module) endAfter(s *session, d time.Duration) {
	stopTimer(&s.end)
	stm := s.stream
	s.end = time.AfterFunc(d, func() {
		m.sessions.mu.Lock()
		still := s.hibernated && !s.resuming && s.stream == stm
		m.sessions.mu.Unlock()
		if still {
			stm.Disconnect(nil) // terminated follows
		}
	})
}
