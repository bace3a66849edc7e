package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/xmpp-push/push/examples/server/internal/element"
	"mellium.im/xmpp/jid"
)

// What must survive a restart is in a database (package keep): in the folder Config.Data, else in memory. Each file of the server writes what is its own:
// archive.go and offline.go messages, sm.go sessions and what they have not acknowledged, presence.go contacts, pep.go what the account published. Here is
// the schema, and how it is read when the server starts.
//
// What a client is promised is kept before it is promised: the count of an <a/> and a <resumed/>, the result of a set. So is what it is sent. Only a publish goes
// out before: it promises nothing, and a phone that connects because of it waits for the disk then.
// A stanza's effects and the count that says it was handled are committed together (session.stanza), so that a client that resumes after a crash sends
// again what was not kept, and nothing else.

const schema = `
CREATE TABLE IF NOT EXISTS message ( -- in the archive, offline, or waiting for sessions to acknowledge it
	n        INTEGER PRIMARY KEY AUTOINCREMENT,
	account  TEXT NOT NULL,
	id       TEXT NOT NULL,
	peer     TEXT NOT NULL, -- the other side, bare
	at       INTEGER NOT NULL, -- in milliseconds
	xml      BLOB NOT NULL,
	archived INTEGER NOT NULL,
	offline  INTEGER NOT NULL,
	taken    INTEGER NOT NULL DEFAULT 0, -- a session has acknowledged it, others have not
	UNIQUE (account, id)
);
CREATE INDEX IF NOT EXISTS message_archive ON message (account, archived, n);
CREATE INDEX IF NOT EXISTS message_offline ON message (offline) WHERE offline;
CREATE INDEX IF NOT EXISTS message_at ON message (at);
CREATE TABLE IF NOT EXISTS session ( -- with stream management
	n          INTEGER PRIMARY KEY AUTOINCREMENT,
	id         TEXT NOT NULL UNIQUE,
	account    TEXT NOT NULL,
	resource   TEXT NOT NULL,
	client     TEXT NOT NULL, -- from its user agent, if it has told
	resume     TEXT NOT NULL, -- what it resumes with; empty if it cannot
	handled    INTEGER NOT NULL, -- the client's stanzas
	acked      INTEGER NOT NULL DEFAULT 0, -- those sent to it that it has acknowledged
	presence   BLOB,
	carbons    INTEGER NOT NULL,
	interested INTEGER NOT NULL,
	archivist  INTEGER NOT NULL,
	until      INTEGER NOT NULL DEFAULT 0, -- if it is hibernated, until when it can be resumed, in milliseconds
	extended   INTEGER NOT NULL DEFAULT 0, -- that is longer than usual, on the push engine's advice
	service    TEXT NOT NULL, -- the registration that is bound to it
	node       TEXT NOT NULL,
	bound      INTEGER NOT NULL,
	superseded INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS queue ( -- what a session has not acknowledged
	session TEXT NOT NULL,
	seq     INTEGER NOT NULL, -- the order
	id      TEXT NOT NULL,
	message INTEGER NOT NULL, -- it is a message, or a copy of one, that is handed on if the session ends
	xml     BLOB, -- null if it is the message itself
	PRIMARY KEY (session, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contact (
	account TEXT NOT NULL,
	jid     TEXT NOT NULL,
	json    TEXT NOT NULL,
	PRIMARY KEY (account, jid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS preference (
	account TEXT NOT NULL PRIMARY KEY,
	json    TEXT NOT NULL
) WITHOUT ROWID;
`

// alone is the XML of an element for the database; nil for nil.
func alone(el *element.Element) any {
	if el == nil {
		return nil
	}
	return el.AppendAlone(nil)
}

// toJSON is for values that always have a JSON form.
func toJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// restore reads what was kept. It is called once all accounts are there and before anybody can connect.
func (s *Server) restore() error {
	return errors.Join(
		s.restoreContacts(), s.restorePreferences(), s.restorePEP(), s.restoreMessages(), s.restoreSessions())
}

// owner returns the account with a bare JID, or nil if there is none any more.
func (s *Server) owner(bare string) *account {
	j, err := jid.Parse(bare)
	if err != nil {
		return nil
	}
	return s.account(j)
}

func (s *Server) restoreContacts() error {
	return s.keep.Read(func(scan func(...any) error) error {
		var owner, bare, text string
		if err := scan(&owner, &bare, &text); err != nil {
			return err
		}
		a := s.owner(owner)
		if a == nil {
			return nil
		}
		c := &contact{}
		if err := json.Unmarshal([]byte(text), c); err != nil {
			return fmt.Errorf("contact %s of %s: %w", bare, owner, err)
		}
		a.roster[bare] = c
		a.noteChat(bare)
		return nil
	}, "SELECT account, jid, json FROM contact")
}

func (s *Server) restorePreferences() error {
	return s.keep.Read(func(scan func(...any) error) error {
		var owner, text string
		if err := scan(&owner, &text); err != nil {
			return err
		}
		if a := s.owner(owner); a != nil {
			if err := json.Unmarshal([]byte(text), &a.prefs); err != nil {
				return fmt.Errorf("preferences of %s: %w", owner, err)
			}
		}
		return nil
	}, "SELECT account, json FROM preference")
}

// restoreMessages reads the offline messages. The archive stays where it is.
func (s *Server) restoreMessages() error {
	return s.keep.Read(func(scan func(...any) error) error {
		m := &message{kept: true, offline: true}
		var owner string
		var at int64
		var xml []byte
		err := scan(&owner, &m.id, &at, &xml, &m.stored, &m.taken)
		if err != nil {
			return err
		}
		a := s.owner(owner)
		if a == nil {
			return nil
		}
		m.at = time.UnixMilli(at)
		if m.el, err = element.Parse(xml); err != nil {
			return fmt.Errorf("message %s of %s: %w", m.id, owner, err)
		}
		a.offline = append(a.offline, m)
		a.offlineBytes += m.el.Size()
		return nil
	}, "SELECT account, id, at, xml, archived, taken FROM message WHERE offline ORDER BY n")
}

// restoreSessions reads the sessions. Those that can still be resumed hibernate: their clients do not know yet that the server was away. The others
// end, and what they have not acknowledged is handed on.
func (s *Server) restoreSessions() error {
	type found struct {
		*session
		until    time.Time
		extended bool
		binding  binding
	}
	var all []found
	since, err := s.lastMoment()
	if err != nil {
		return err
	}
	err = s.keep.Read(func(scan func(...any) error) error {
		x := found{session: &session{sm: &acks{restored: true}}}
		var owner, resource string
		var deadline int64
		var presence []byte
		if err := scan(&owner, &x.id.ID, &resource, &x.client, &x.sm.resumeID, &x.sm.in, &x.sm.acked, &presence, &x.carbons, &x.interested, &x.archivist, &deadline,
			&x.extended, &x.binding.Service, &x.binding.Node, &x.binding.bound, &x.binding.superseded); err != nil {
			return err
		}
		if x.acct = s.owner(owner); x.acct == nil {
			return nil
		}
		x.id.Account = x.acct.jid
		var err error
		if x.jid, err = jid.MustParse(x.acct.jid).WithResource(resource); err != nil {
			return fmt.Errorf("session %s of %s: %w", resource, owner, err)
		}
		if presence != nil {
			if x.presence, err = element.Parse(presence); err != nil {
				return fmt.Errorf("presence of %s: %w", x.jid, err)
			}
			x.priority = priority(x.presence)
		}
		x.resumption.save = x.saveUntil
		if deadline != 0 {
			x.until = time.UnixMilli(deadline)
		}
		all = append(all, x)
		return nil
	}, `SELECT account, id, resource, client, resume, handled, acked, presence, carbons, interested, archivist, until,
		extended, service, node, bound, superseded
		FROM session ORDER BY n`)
	if err != nil {
		return err
	}
	messages := make(map[[2]string]*message)
	for _, x := range all {
		if err := x.restoreQueue(messages); err != nil {
			return err
		}
		x.acct.sessions = append(x.acct.sessions, x.session)
	}
	for _, x := range all {
		left := s.cfg.ResumeTimeout
		if !x.until.IsZero() {
			left = time.Until(x.until)
		}
		if x.sm.resumeID == "" {
			left = 0
		}
		x.acct.mu.Lock()
		x.resumption.start(max(left, 0), x.expire)
		s.push.restored(x.session, x.binding, !x.until.IsZero(), x.extended, since)
		x.acct.mu.Unlock()
	}
	return s.tellAgain(since)
}

// lastMoment is a little before the newest message. What the push engine was told after that may have been lost with the last process, so it is told
// again; if it was not, it knows the stanzas by their IDs and notifies nobody twice.
func (s *Server) lastMoment() (time.Time, error) {
	var newest int64
	err := s.keep.Read(func(scan func(...any) error) error { return scan(&newest) }, "SELECT coalesce(max(at), 0) FROM message")
	return time.UnixMilli(newest).Add(-lastMoment), err
}

const lastMoment = 10 * time.Second

// tellAgain tells the push engine again of messages that were archived or went offline.
func (s *Server) tellAgain(since time.Time) error {
	return s.keep.Read(func(scan func(...any) error) error {
		m := &message{kept: true}
		var owner string
		var at int64
		var xml []byte
		err := scan(&owner, &m.id, &at, &xml, &m.stored, &m.offline)
		if err != nil {
			return err
		}
		a := s.owner(owner)
		if a == nil {
			return nil
		}
		if m.el, err = element.Parse(xml); err != nil {
			return fmt.Errorf("message %s of %s: %w", m.id, owner, err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if m.stored {
			s.push.archived(a, m)
		}
		if m.offline {
			s.push.offline(a, m)
		}
		return nil
	}, "SELECT account, id, at, xml, archived, offline FROM message WHERE at >= ? AND (archived OR offline) ORDER BY n", since.UnixMilli())
}

// restoreQueue reads what a session has not acknowledged. Several sessions may have copies of one message.
func (x *session) restoreQueue(messages map[[2]string]*message) error {
	return x.acct.srv.keep.Read(func(scan func(...any) error) error {
		var seq int64
		var o outgoing
		var isMessage, archived, taken bool
		var at int64
		var copied, original []byte
		err := scan(&seq, &o.id, &isMessage, &copied, &original, &at, &archived, &taken)
		if err != nil {
			return err
		}
		if isMessage && original != nil {
			key := [2]string{x.acct.jid, o.id}
			o.msg = messages[key]
			if o.msg == nil {
				o.msg = &message{id: o.id, at: time.UnixMilli(at), kept: true, stored: archived, taken: taken}
				if o.msg.el, err = element.Parse(original); err != nil {
					return err
				}
				messages[key] = o.msg
			}
			o.msg.holders++
			o.el = o.msg.el
		}
		if copied != nil {
			if o.el, err = element.Parse(copied); err != nil {
				return err
			}
		}
		if o.el == nil {
			return nil
		}
		o.seq = seq
		x.sm.seq = seq + 1
		x.sm.queue = append(x.sm.queue, o)
		x.sm.bytes += o.el.Size()
		x.sm.before = len(x.sm.queue)
		return nil
	}, `SELECT q.seq, q.id, q.message, q.xml, m.xml, coalesce(m.at, 0), coalesce(m.archived, 0), coalesce(m.taken, 0)
		FROM queue q LEFT JOIN message m ON q.message AND m.account = ? AND m.id = q.id WHERE q.session = ? ORDER BY q.seq`, x.acct.jid, x.id.ID)
}
