package embedded

import (
	"sync"
	"time"
	_ "unsafe" // for go:linkname
)

// The servers of NATS elect a leader when they have not heard of one for 4 to 9 seconds, and in unlucky cases twice that: longer than a phone may stay silent because a
// node has died. NATS has no option for it, so its own variables are set here, before the first server starts. TestElections fails if a later version of
// NATS has them no more.

//go:linkname hbInterval github.com/nats-io/nats-server/v2/server.hbInterval
var hbInterval time.Duration

//go:linkname minElectionTimeout github.com/nats-io/nats-server/v2/server.minElectionTimeout
var minElectionTimeout time.Duration

//go:linkname maxElectionTimeout github.com/nats-io/nats-server/v2/server.maxElectionTimeout
var maxElectionTimeout time.Duration

const (
	heartbeat = 400 * time.Millisecond
	electMin  = 2 * time.Second
	electMax  = 4 * time.Second
)

// quickElections is for every server of this process, so it is done once, and only if one is in a cluster.
var quickElections = sync.OnceFunc(func() {
	hbInterval, minElectionTimeout, maxElectionTimeout = heartbeat, electMin, electMax
})
