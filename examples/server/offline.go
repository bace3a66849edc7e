package main

import (
	"slices"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/examples/server/internal/element"
)

// Messages on their way to an account, and those for which there is no session: offline storage (XEP-0160).

// maxOffline is how many messages wait for an account, and maxOfflineBytes how large they may be together. A session's queue takes them all.
const (
	maxOffline      = 10_000
	maxOfflineBytes = maxQueueBytes / 2
)

// message is a message on its way to an account. Several sessions may hold a copy; the lock of the account covers it.
type message struct {
	// id is the stanza's identity for the account: its ID in the archive, if it is there.
	id string
	el *element.Element
	at time.Time
	// holders counts the sessions that have not acknowledged their copy; taken: a session has acknowledged one.
	holders int
	taken   bool
	// stored: it is in the archive, where clients can fetch it; offline: it is in offline storage; kept: it is in the database, for one of these
	// reasons or because a session has not acknowledged it.
	stored, offline, kept bool
	// described is what the push library knows it as; see stanza.
	described push.Stanza
}

// keepMessage puts a message into the database, or changes what it is there for.
func (a *account) keepMessage(m *message) {
	if m.kept {
		a.srv.keep.Do("UPDATE message SET archived = ?, offline = ?, taken = ? WHERE account = ? AND id = ?", m.stored, m.offline, m.taken, a.jid, m.id)
		return
	}
	m.kept = true
	a.srv.keep.Do("INSERT INTO message (account, id, peer, at, xml, archived, offline, taken) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		a.jid, m.id, m.peer(a.jid), m.at.UnixMilli(), alone(m.el), m.stored, m.offline, m.taken)
}

// take says that a session has a message for good.
func (a *account) take(m *message) {
	m.taken = true
	if m.kept && m.holders > 0 {
		a.keepMessage(m) // the others need not hand it on
	}
	a.releaseMessage(m)
}

// releaseMessage takes a message out of the database that nothing needs there any more.
func (a *account) releaseMessage(m *message) {
	if m.kept && !m.stored && !m.offline && m.holders == 0 {
		m.kept = false
		a.srv.keep.Do("DELETE FROM message WHERE account = ? AND id = ?", a.jid, m.id)
	}
}

// deliver gives a message to sessions, or keeps it offline if there are none. A copy that comes late says so. If too many wait already, the message is in the
// archive alone; one that is not there comes back as an error, which is returned.
func (a *account) deliver(m *message, to []*session) []*element.Element {
	el := m.el
	if late := time.Since(m.at); late > time.Second && el.Child("urn:xmpp:delay", "delay") == nil {
		el = el.Copy().Add(element.Delay(a.srv.domain, m.at))
	}
	for _, x := range to {
		x.send(outgoing{el: el, id: m.id, msg: m})
	}
	if len(to) > 0 || m.el.Child(nsHints, "no-store") != nil || a.srv.cluster.elsewhere(a.jid) {
		a.releaseMessage(m)
		return nil
	}
	size := m.el.Size()
	if len(a.offline) >= maxOffline || a.offlineBytes+size > maxOfflineBytes {
		a.releaseMessage(m)
		if m.stored {
			return nil
		}
		return []*element.Element{element.Error(m.el, "wait", "resource-constraint")}
	}
	m.offline = true
	a.keepMessage(m)
	a.offline = append(a.offline, m)
	a.offlineBytes += size
	a.srv.push.offline(a, m)
	return nil
}

// fetched says that a message is in offline storage no longer.
func (a *account) fetched(m *message) {
	m.offline = false
	if m.stored {
		a.keepMessage(m)
	}
}

// deliverOffline gives a session what came while there was none.
func (x *session) deliverOffline() {
	a := x.acct
	ms := a.offline
	a.offline, a.offlineBytes = nil, 0
	for _, m := range ms {
		a.fetched(m)
	}
	if x.archivist {
		// Such a client fetches what it missed from the archive, and should not get it twice.
		ms = slices.DeleteFunc(ms, func(m *message) bool { return m.stored })
	}
	for _, m := range ms {
		a.deliver(m, []*session{x})
	}
}
