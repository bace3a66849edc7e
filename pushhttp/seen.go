package pushhttp

import (
	"slices"
	"strings"

	"github.com/xmpp-push/push"
)

// account is what is kept of one account.
type account struct {
	name  string
	lines list
	// evicted: older lines made room.
	evicted bool
	// last is the number of its last line; trouble is when something went wrong last, and what.
	last        uint64
	trouble     int64
	troubleText string
	devices     []seen
	sessions    []connection
}

// seen is what is known of a device besides what the Engine says. It stays while older lines go.
type seen struct {
	key            push.Key
	name, resource string
	seen, told     int64 // when it was in touch with the server, and when a notification to it was accepted last
}

// connection is a session that is open, as far as this was told.
type connection struct {
	id, resource string
	key          push.Key
	bound        bool
}

// deviceOfAccount names a device in all.
type deviceOfAccount struct {
	account string
	key     push.Key
}

// given is when and why a device was given up.
type given struct {
	at    int64
	cause string
}

// Bounds of what is kept of an account besides its lines, and of the devices that were given up.
const (
	maxDevices  = 24
	maxSessions = 24
	maxOff      = 10_000
)

func (a *account) device(k push.Key) *seen {
	for i := range a.devices {
		if a.devices[i].key == k {
			return &a.devices[i]
		}
	}
	if len(a.devices) == maxDevices {
		a.devices = slices.Delete(a.devices, 0, 1)
	}
	a.devices = append(a.devices, seen{key: k})
	return &a.devices[len(a.devices)-1]
}

func (a *account) connection(id string) *connection {
	for i := range a.sessions {
		if a.sessions[i].id == id {
			return &a.sessions[i]
		}
	}
	return nil
}

func (a *account) opened(id, jid string) *connection {
	_, resource, _ := strings.Cut(jid, "/")
	c := a.connection(id)
	if c == nil {
		if len(a.sessions) == maxSessions {
			a.sessions = slices.Delete(a.sessions, 0, 1)
		}
		a.sessions = append(a.sessions, connection{})
		c = &a.sessions[len(a.sessions)-1]
	}
	*c = connection{id: id, resource: cut(resource)}
	return c
}

// learn takes from an event what it tells of sessions and devices.
func (a *account) learn(at int64, ev push.Event, d *push.Decision) {
	switch e := ev.(type) {
	case push.SessionOpen:
		a.opened(e.Session.ID, e.JID)
	case push.SessionRestored:
		c := a.opened(e.Session.ID, e.JID)
		c.key, c.bound = e.Bound, e.IsBound
	case push.SessionClose:
		a.touch(e.Session.ID, at)
		a.sessions = slices.DeleteFunc(a.sessions, func(c connection) bool { return c.id == e.Session.ID })
	case push.HibernationStart:
		a.touch(e.Session.ID, at)
	case push.HibernationEnd:
		a.touch(e.Session.ID, at)
	case push.Acknowledged:
		a.touch(e.Session.ID, at)
	case push.PushEnable:
		if e.Wishes != nil && e.Wishes.Name != "" {
			for i := range d.Changes { // its key may be one that the Engine completed
				a.device(d.Changes[i].Key).name = cut(e.Wishes.Name)
				break
			}
		}
	default:
		return
	}
	for i := range d.Changes {
		c := &d.Changes[i]
		id := c.Session
		if _, ok := ev.(push.PushEnable); ok && id == "" {
			id = ev.Subject().ID
		}
		if c.Kind == push.ChangeRemoved || c.Kind == push.ChangeDisabled || c.Kind == push.ChangeUnbound {
			continue
		}
		if s := a.connection(id); s != nil {
			s.key, s.bound = c.Key, true
			v := a.device(c.Key)
			v.resource, v.seen = s.resource, at
		}
	}
}

// touch notes that a session's device was in touch with the server.
func (a *account) touch(id string, at int64) {
	if c := a.connection(id); c != nil && c.bound {
		a.device(c.key).seen = at
	}
}
