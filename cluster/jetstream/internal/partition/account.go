package partition

import (
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/internal/deadline"
)

// account is an account of the partition: the library's state machine, and what the cluster knows of where its sessions are.
type account struct {
	deadline.Item
	rest resting
	name string
	*push.Account
	// homes are the sessions with the nodes that have them.
	homes []home
	// recent are the messages that were archived lately and left to a session that was thought to be alive.
	recent []recent
	// lost are the sessions of nodes that died. One that goes on elsewhere all the same has its registration again.
	lost []lost
	// registered: it has registrations.
	registered bool
}

// resting is an account in the queue of those that may have become idle.
type resting struct {
	deadline.Item
	a *account
}

// home is a session and the node that has it.
type home struct {
	ID     string
	JID    string
	Origin Origin
}

// recent is an event that may have to be decided again.
type recent struct {
	At     time.Time
	Number uint64
	Event  push.ArchiveAdded
}

// lost is a session that was closed because its node was dead.
type lost struct {
	At      time.Time
	Session push.SessionRestored
}

const (
	// recentFor is how long a message is kept that was left to a session; it is longer than it takes to find out that a node is dead, and to take over what it
	// owned, on a machine that has no time for it.
	recentFor = 5 * time.Minute
	maxRecent = 32
	// lostFor is how long a session of a dead node may still be resumed elsewhere.
	lostFor = time.Hour
	maxLost = 8
)

func (a *account) home(id string) *home {
	for i := range a.homes {
		if a.homes[i].ID == id {
			return &a.homes[i]
		}
	}
	return nil
}

func (a *account) forgetOld(now time.Time) {
	for len(a.recent) > 0 && now.Sub(a.recent[0].At) > recentFor {
		a.recent = a.recent[1:]
	}
	for len(a.lost) > 0 && now.Sub(a.lost[0].At) > lostFor {
		a.lost = a.lost[1:]
	}
}

// idle tells whether nothing but registrations would be lost if the account were packed.
func (a *account) idle(now time.Time) bool {
	return len(a.homes) == 0 && len(a.lost) == 0 && a.Idle(now)
}
