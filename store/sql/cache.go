package sqlstore

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// cache keeps what List returned for the accounts that were asked for last, those without registrations included. Safe for simultaneous use.
type cache struct {
	seed   maphash.Seed
	keep   time.Duration // at most, since it was read; negative: no bound
	shards [16]cacheShard
}

type cacheShard struct {
	mu      sync.Mutex
	entries map[string]*cacheEntry
	ring    cacheEntry // the root of a ring, the one used last first
	size    int
	// changes counts what was forgotten, so that what was read before a change is not put after it.
	changes uint64
	_       [40]byte // a cache line each
}

type cacheEntry struct {
	next, prev    *cacheEntry
	account       string
	read          time.Time
	registrations []push.Registration
}

// newCache returns a cache of about size accounts, or nil if size is negative.
func newCache(size int, keep time.Duration) *cache {
	if size < 0 {
		return nil
	}
	c := &cache{seed: maphash.MakeSeed(), keep: keep}
	for i := range c.shards {
		s := &c.shards[i]
		s.size = (size + len(c.shards) - 1) / len(c.shards)
		s.clear()
	}
	return c
}

func (c *cache) shard(account string) *cacheShard {
	return &c.shards[maphash.String(c.seed, account)%uint64(len(c.shards))]
}

// get returns a copy of what is cached.
func (c *cache) get(account string) (rs []push.Registration, ok bool) {
	if c == nil {
		return nil, false
	}
	s := c.shard(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[account]
	if e == nil {
		return nil, false
	}
	if c.keep >= 0 && time.Since(e.read) > c.keep {
		s.remove(e)
		return nil, false
	}
	e.unlink()
	s.push(e)
	return cloneAll(e.registrations), true
}

// ticket returns what put wants of whoever is about to read the account.
func (c *cache) ticket(account string) uint64 {
	if c == nil {
		return 0
	}
	s := c.shard(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

// put caches a copy of what was read after the ticket was taken, unless something was forgotten since.
func (c *cache) put(account string, rs []push.Registration, read time.Time, ticket uint64) {
	if c == nil {
		return
	}
	rs = cloneAll(rs)
	s := c.shard(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != ticket {
		return
	}
	if old := s.entries[account]; old != nil {
		s.remove(old)
	}
	if len(s.entries) >= s.size {
		s.remove(s.ring.prev)
	}
	e := &cacheEntry{account: account, read: read, registrations: rs}
	s.entries[account] = e
	s.push(e)
}

// forget drops an account, because it changed.
func (c *cache) forget(account string) {
	if c == nil {
		return
	}
	s := c.shard(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if e := s.entries[account]; e != nil {
		s.remove(e)
	}
}

// forgetAll drops everything.
func (c *cache) forgetAll() {
	if c == nil {
		return
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.changes++
		s.clear()
		s.mu.Unlock()
	}
}

func (s *cacheShard) clear() {
	s.entries = make(map[string]*cacheEntry)
	s.ring.next, s.ring.prev = &s.ring, &s.ring
}

func (s *cacheShard) push(e *cacheEntry) {
	e.prev, e.next = &s.ring, s.ring.next
	e.prev.next, e.next.prev = e, e
}

func (s *cacheShard) remove(e *cacheEntry) {
	e.unlink()
	delete(s.entries, e.account)
}

func (e *cacheEntry) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

// cloneAll copies registrations with everything in them, in three allocations.
func cloneAll(rs []push.Registration) []push.Registration {
	if len(rs) == 0 {
		return nil
	}
	nf, nv := 0, 0
	for i := range rs {
		nf += len(rs[i].Options)
		for j := range rs[i].Options {
			nv += len(rs[i].Options[j].Values)
		}
	}
	fields, values := make([]push.Field, 0, nf), make([]string, 0, nv)
	rs = slices.Clone(rs)
	for i := range rs {
		r := &rs[i]
		if r.Options == nil {
			continue
		}
		first := len(fields)
		for _, f := range r.Options {
			v := len(values)
			values = append(values, f.Values...)
			f.Values = values[v:len(values):len(values)]
			fields = append(fields, f)
		}
		r.Options = fields[first:len(fields):len(fields)]
	}
	return rs
}
