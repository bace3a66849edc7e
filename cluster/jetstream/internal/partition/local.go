package partition

import (
	"cmp"
	"slices"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// Local is what a node knows by itself: which accounts have registrations, and the sessions of its own clients. An event that concerns neither does
// not leave the node. Not safe for simultaneous use.
type Local struct {
	registered map[uint64]uint64        // to the revision of what was said last
	rooms      map[uint64][]wishes.Room // with the nicknames that clients have named, of the few accounts whose have
	sessions   map[string][]*local      // by account
}

// local is a session of this node.
type local struct {
	id         string
	jid        string
	client     string
	bound      *push.Key
	hibernated bool
	extended   bool
	// announced: the log has it.
	announced bool
}

// NewLocal returns a Local that knows nothing.
func NewLocal() *Local {
	return &Local{registered: make(map[uint64]uint64), rooms: make(map[uint64][]wishes.Room), sessions: make(map[string][]*local)}
}

// Register says whether an account, by the Hash of its name, has registrations, and in which rooms its clients have named a nickname. What is said with a lower revision
// than before does not count.
func (l *Local) Register(hash uint64, has bool, revision uint64, rooms ...wishes.Room) {
	if l.registered[hash] > revision {
		return
	}
	delete(l.rooms, hash)
	if !has {
		delete(l.registered, hash)
		return
	}
	l.registered[hash] = max(revision, 1)
	if len(rooms) > 0 {
		l.rooms[hash] = rooms
	}
}

// Forget forgets which accounts have registrations, when what was said of them is no more.
func (l *Local) Forget() {
	clear(l.registered)
	clear(l.rooms)
}

// Nicks appends what an account's clients say that it is called in a room.
func (l *Local) Nicks(list []string, account, room string) []string {
	if len(l.rooms) == 0 {
		return list
	}
	for _, r := range l.rooms[Hash(account)] {
		if r.Room == room {
			list = append(list, r.Nick)
		}
	}
	return list
}

// Registered tells whether an account may have registrations.
func (l *Local) Registered(account string) bool {
	_, ok := l.registered[Hash(account)]
	return ok
}

// Len is the number of accounts that have registrations.
func (l *Local) Len() int { return len(l.registered) }

// Sessions is the number of sessions on this node.
func (l *Local) Sessions() int {
	n := 0
	for _, list := range l.sessions {
		n += len(list)
	}
	return n
}

func (l *Local) session(id push.SessionID) *local {
	for _, s := range l.sessions[id.Account] {
		if s.id == id.ID {
			return s
		}
	}
	return nil
}

// maxSessions is how many sessions of an account are kept, as in the library: if there are too many, one that is not bound goes first.
const maxSessions = 128

func (l *Local) add(account string, n *local) {
	l.remove(push.SessionID{Account: account, ID: n.id})
	list := l.sessions[account]
	if len(list) >= maxSessions {
		i := max(0, slices.IndexFunc(list, func(s *local) bool { return s.bound == nil }))
		list = slices.Delete(list, i, i+1)
	}
	l.sessions[account] = append(list, n)
}

func (l *Local) remove(id push.SessionID) {
	list := slices.DeleteFunc(l.sessions[id.Account], func(s *local) bool { return s.id == id.ID })
	if len(list) == 0 {
		delete(l.sessions, id.Account)
	} else {
		l.sessions[id.Account] = list
	}
}

// Events returns what has to be in the log because of an event: nothing if it concerns no registration, and before it the session that it is about if the
// log has not got that yet. behind: the node may have missed which accounts have registrations, so each may have one.
func (l *Local) Events(ev push.Event, behind bool) []push.Event {
	id := ev.Subject()
	may := behind || l.Registered(id.Account)
	s := l.session(id)
	switch ev := ev.(type) {
	case push.SessionOpen:
		n := &local{id: id.ID, jid: ev.JID, client: ev.Client, announced: l.Registered(id.Account)}
		l.add(id.Account, n)
		if n.announced {
			return []push.Event{ev}
		}
		return nil
	case push.SessionRestored:
		n := &local{id: id.ID, jid: ev.JID, client: ev.Client, hibernated: ev.Hibernated, extended: ev.Extended, announced: ev.IsBound || l.Registered(id.Account)}
		if ev.IsBound {
			n.bound = &ev.Bound
		}
		l.add(id.Account, n)
		if n.announced {
			return []push.Event{ev}
		}
		return nil
	case push.SessionClose:
		l.remove(id)
		if s != nil && s.announced || s == nil && may {
			return []push.Event{ev}
		}
		return nil
	case push.PushEnable:
		if s == nil {
			return []push.Event{ev}
		}
		k := ev.Key
		s.bound = &k
		if s.announced {
			return []push.Event{ev}
		}
		s.announced = true
		first := s.restored(id.Account)
		first.IsBound, first.Bound = false, push.Key{}
		return []push.Event{first, ev}
	case push.PushDisable:
		for _, s := range l.sessions[id.Account] {
			if s.bound != nil && s.bound.Service == ev.Service && (ev.Node == "" || s.bound.Node == ev.Node) {
				s.bound = nil
			}
		}
	case push.AccountRemoved:
		delete(l.sessions, id.Account)
	case push.HibernationStart:
		if s != nil {
			s.hibernated = true
		}
	case push.HibernationEnd:
		if s == nil && may { // it comes from another node
			s = &local{id: id.ID, announced: true}
			l.add(id.Account, s)
		}
		if s != nil {
			s.hibernated, s.extended = false, false
		}
	}
	if s != nil && id.ID != "" {
		if _, disable := ev.(push.PushDisable); !disable && !s.announced {
			return nil
		}
	}
	if !may && (s == nil || !s.announced) {
		return nil
	}
	return []push.Event{ev}
}

// Moved says that a session is on another node now.
func (l *Local) Moved(id push.SessionID) { l.remove(id) }

// Advised notes an advice on a session of this node.
func (l *Local) Advised(a push.Advice) {
	if s := l.session(a.Session); s != nil {
		s.extended = a.Timeout > 0
	}
}

func (s *local) restored(account string) push.SessionRestored {
	ev := push.SessionRestored{
		Session: push.SessionID{Account: account, ID: s.id}, JID: s.jid, Client: s.client, Hibernated: s.hibernated, Extended: s.extended,
	}
	if s.bound != nil {
		ev.Bound, ev.IsBound = *s.bound, true
	}
	return ev
}

// Of returns the sessions of an account on this node, announced or not.
func (l *Local) Of(account string) []push.SessionRestored {
	var list []push.SessionRestored
	for _, s := range l.sessions[account] {
		list = append(list, s.restored(account))
	}
	return list
}

// Restored returns the sessions of this node as the log has to hear of them when the node begins another life, in order.
func (l *Local) Restored() []push.SessionRestored {
	var list []push.SessionRestored
	for account, sessions := range l.sessions {
		for _, s := range sessions {
			if s.announced {
				list = append(list, s.restored(account))
			}
		}
	}
	slices.SortFunc(list, func(a, b push.SessionRestored) int {
		return cmp.Or(cmp.Compare(a.Session.Account, b.Session.Account), cmp.Compare(a.Session.ID, b.Session.ID))
	})
	return list
}
