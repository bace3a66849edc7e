package partition

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"
)

// Members is what a node knows of who is alive, from the beats that each node sends to all others. Only the node's own clock is used, and only to
// measure for how long nothing was heard, so that clocks may differ. Two nodes may think differently for a while; then both claim the same
// partitions, and the log decides. Not safe for simultaneous use.
type Members struct {
	me      Origin
	own     time.Duration
	lease   time.Duration // the longest of all nodes'
	started time.Time
	peers   map[string]*peer
	// reached is when the log has answered last, since is from when on it did without a long gap.
	reached, since time.Time
	// asked is when it was asked anything last: without a pause of its own that is several times in each lease.
	asked time.Time
}

type peer struct {
	incarnation uint64
	at          time.Time // when it was heard of last, by itself or by another node that has heard it
	heard       time.Time // when it was heard itself
	// spared is for how long of the time since then this node was stopped itself, and could have heard nobody.
	spared  time.Duration
	joining bool
	leaving bool
	gone    bool
	version int
	writes  int
	lease   time.Duration
	// back: it was not heard of for a lease, and then was, in the same life.
	back bool
}

// Beat is what a node says of itself, several times in each lease.
type Beat struct {
	Origin
	// Lease is its own, zero of an earlier program. Settings is a hash of what has to be the same on every node, zero likewise.
	Lease    time.Duration
	Settings uint64
	// Version is the latest that it reads, Writes what it writes.
	Version, Writes int
	// Joining: it takes nothing yet, and what would be its share stays where it is.
	Joining bool
	// Leaving: it takes nothing any more, and hands over what it owns. Gone: it has done so.
	Leaving, Gone bool
	// Dead are those lives of nodes that it has not heard of for a lease, now or once. A node that finds itself among them begins another.
	Dead []Origin
	// Seen are those that it hears itself, for nodes that do not: between them a link is cut that others can do without.
	Seen []Seen
}

// Seen is a node that another one hears.
type Seen struct {
	Origin
	// Age is how long ago it was heard last.
	Age time.Duration
	// Joining is what it said then.
	Joining bool
}

// NewMembers returns the Members of a node that starts at now. A node that was not heard of for a lease is dead.
func NewMembers(me Origin, lease time.Duration, now time.Time) *Members {
	return &Members{me: me, own: lease, lease: lease, started: now, peers: make(map[string]*peer)}
}

// Lease is the longest of this node and of those that it has heard of lately: who has a short one would take the others for dead, and not wait for them.
func (m *Members) Lease() time.Duration { return m.lease }

func (m *Members) longest(now time.Time) {
	m.lease = m.own
	for _, p := range m.peers {
		if !p.gone && now.Sub(p.at) < comeBack*max(m.own, p.lease) {
			m.lease = max(m.lease, p.lease)
		}
	}
}

// awake notes that the node runs. If it did not for a while, stopped, or on a machine that had no time for it, that it has heard nobody says nothing of the others: each has as much
// time to be heard as was left before. Else all who were stopped would take the others for dead, and those would say again what sessions they have.
func (m *Members) awake(now time.Time) {
	if gap := now.Sub(m.asked); !m.asked.IsZero() && gap > m.lease/2 {
		for _, p := range m.peers {
			p.spared += min(gap, now.Sub(p.at)-p.spared)
		}
	}
	if now.After(m.asked) {
		m.asked = now
	}
}

// silent is for how long this node could have heard of another one, and has not.
func (m *Members) silent(now time.Time, p *peer) time.Duration {
	m.awake(now)
	return now.Sub(p.at) - p.spared
}

// Me is the node's present life.
func (m *Members) Me() Origin { return m.me }

// Heard takes note of a beat. It returns true if the node has to begin another life, since others think that it is dead: its sessions were closed.
func (m *Members) Heard(now time.Time, b *Beat) bool {
	m.awake(now)
	if b.Node == m.me.Node {
		return false
	}
	p := m.peers[b.Node]
	if p == nil {
		p = &peer{}
		m.peers[b.Node] = p
	}
	if b.Incarnation < p.incarnation {
		return false // from before
	}
	back := b.Incarnation == p.incarnation && (p.back || m.silent(now, p) >= m.lease)
	*p = peer{incarnation: b.Incarnation, at: now, heard: now, joining: b.Joining, leaving: b.Leaving, gone: b.Gone, version: b.Version, writes: b.Writes, lease: b.Lease, back: back}
	m.longest(now)
	for _, s := range b.Seen {
		m.seen(now, s)
	}
	return slices.Contains(b.Dead, m.me)
}

// seen takes note of what another node has heard. It does not make a node live for longer than that it was heard by somebody within a lease.
func (m *Members) seen(now time.Time, s Seen) {
	at := now.Add(-max(s.Age, 0))
	p := m.peers[s.Node]
	switch {
	case s.Node == m.me.Node || now.Sub(at) >= m.lease:
		return
	case p == nil:
		m.peers[s.Node] = &peer{incarnation: s.Incarnation, at: at, joining: s.Joining}
		return
	case s.Incarnation < p.incarnation || s.Incarnation == p.incarnation && (p.gone || !at.After(p.at)):
		return
	case s.Incarnation > p.incarnation: // what is known is of its life before
		*p = peer{incarnation: s.Incarnation, at: at, joining: s.Joining, version: p.version, writes: p.writes, lease: p.lease}
	default:
		p.back = p.back || m.silent(now, p) >= m.lease
		p.at, p.spared, p.joining = at, 0, p.joining && s.Joining
	}
}

// Begin begins another life.
func (m *Members) Begin() { m.me.Incarnation++ }

// livesEach is how many lives one start of a node may have.
const livesEach = uint64(time.Second)

// NextLife returns the number of the first life of a node that starts, when the one at its start before was former; zero if it never was there. It is the time, but never
// before a life that others have heard of: they would take all that it says for old.
func NextLife(former uint64, now time.Time) uint64 {
	if former == 0 {
		return uint64(now.UnixNano())
	}
	return max(uint64(now.UnixNano()), former+livesEach)
}

// Beat returns what to tell the others.
func (m *Members) Beat(now time.Time, leaving bool) *Beat {
	m.awake(now)
	m.longest(now)
	b := &Beat{Origin: m.me, Version: Version, Leaving: leaving, Lease: m.own}
	for name, p := range m.peers {
		if gone := m.silent(now, p); p.back || gone >= m.lease && gone < comeBack*m.lease {
			b.Dead = append(b.Dead, Origin{name, p.incarnation})
		}
		if age := now.Sub(p.heard); age < m.lease && !p.leaving && !p.gone {
			b.Seen = append(b.Seen, Seen{Origin{name, p.incarnation}, age, p.joining})
		}
	}
	slices.SortFunc(b.Seen, func(a, b Seen) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(b.Dead, func(a, b Origin) int { return cmp.Compare(a.Node, b.Node) })
	return b
}

// live tells whether a node should have its share. One that is joining should not yet, but for nodes that have just started themselves: those that start all at once
// would else begin with everything each.
func (m *Members) live(now time.Time, p *peer) bool {
	return m.silent(now, p) < m.lease && !p.leaving && (!p.joining || now.Sub(m.started) < m.lease)
}

// Alive tells whether a life of a node goes on. Of a node that was never heard of it is not known in the first time after the start.
func (m *Members) Alive(now time.Time, o Origin) bool {
	if o.Node == m.me.Node {
		return o.Incarnation >= m.me.Incarnation
	}
	p := m.peers[o.Node]
	if p == nil {
		return now.Sub(m.started) < m.lease
	}
	return o.Incarnation >= p.incarnation && m.silent(now, p) < m.lease && !p.gone
}

// Runs tells whether the process goes on that o was a life of, perhaps in a later one. What it owns since that life it still releases by itself.
func (m *Members) Runs(now time.Time, o Origin) bool {
	if p := m.peers[o.Node]; p != nil && o.Incarnation < p.incarnation && p.incarnation-o.Incarnation < livesEach {
		o.Incarnation = p.incarnation
	}
	return m.Alive(now, o)
}

// Silent returns for how long nothing was heard of another node, by this one or another; less than zero if nothing ever was.
func (m *Members) Silent(now time.Time, node string) time.Duration {
	p := m.peers[node]
	if p == nil {
		return -1
	}
	return now.Sub(p.at)
}

// Few tells whether no more than half of the nodes are heard of that were there a while ago: then it may be this one that is cut off, and a server of NATS beside it
// may go on for some seconds as if it still were the leader. Of two it is so for whoever is left: it may be that only the link between them is cut.
func (m *Members) Few(now time.Time) bool {
	all, heard := 1, 1
	for _, p := range m.peers {
		silent := now.Sub(p.at)
		if p.joining || p.leaving || p.gone || silent >= comeBack*m.lease { // one that joins has not said yet whom it hears
			continue
		}
		all++
		if silent < m.lease/2 {
			heard++
		}
	}
	return 2*heard <= all
}

// Reached notes that the log has answered.
func (m *Members) Reached(now time.Time) {
	if m.reached.IsZero() || now.Sub(m.reached) > m.lease/2 {
		m.since = now
	}
	m.reached = now
}

// Back tells whether the node was cut off, or stopped, or the log did not answer, a moment ago: the next beats of others may be yet to come, so it must not do without telling
// them something because it has not heard of them.
func (m *Members) Back(now time.Time) bool {
	return now.Sub(m.reached) > m.lease/2 || now.Sub(m.since) < m.lease/2
}

// Deaf tells whether it is Back and hears of too few: then it must not take their partitions either.
func (m *Members) Deaf(now time.Time) bool { return m.Few(now) && m.Back(now) }

// May returns the names of the other nodes that may go by what they knew before: by half a lease after they count as dead they know that they are cut off (Few).
func (m *Members) May(now time.Time) []string {
	var names []string
	for name, p := range m.peers {
		if m.silent(now, p) < m.lease*3/2 && !p.gone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Live returns the names of the nodes that are alive and take part, this one included, in order.
func (m *Members) Live(now time.Time) []string {
	m.awake(now)
	names := []string{m.me.Node}
	for name, p := range m.peers {
		if m.live(now, p) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Missing returns the names of the nodes that have neither been heard of for a lease nor left, and were there a short while ago.
func (m *Members) Missing(now time.Time) []string {
	var names []string
	for name, p := range m.peers {
		if silent := m.silent(now, p); silent >= m.lease && silent < comeBack*m.lease && !p.leaving && !p.gone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Reads returns the latest version that every node reads: also those that were not heard of for a while, since they may come back. It is the First until this node has
// listened for as long.
func (m *Members) Reads(now time.Time) int {
	if now.Sub(m.started) < comeBack*m.lease {
		return First
	}
	v := Version
	for _, p := range m.peers {
		if now.Sub(p.at) < comeBack*m.lease && !p.gone {
			v = min(v, max(p.version, First))
		}
	}
	return v
}

// comeBack is for how many leases a node that is silent is reckoned with.
const comeBack = 10

// Writes returns the latest version that another node says it writes.
func (m *Members) Writes() int {
	v := First
	for _, p := range m.peers {
		v = max(v, p.writes)
	}
	return v
}

// Chosen returns which of some nodes should own a partition: by the highest hash of both (rendezvous), so that a node that comes or goes moves no
// partition between the others.
func Chosen(nodes []string, partition int) string {
	var best string
	var high uint64
	for _, n := range nodes {
		h := fnv.New64a()
		h.Write([]byte(n))
		h.Write([]byte{0, byte(partition), byte(partition >> 8)})
		w := h.Sum64()
		w ^= w >> 33
		w *= 0xff51afd7ed558ccd // FNV's last bytes reach only the low bits: spread them (the finalizer of MurmurHash3)
		w ^= w >> 33
		if best == "" || w > high {
			best, high = n, w
		}
	}
	return best
}
