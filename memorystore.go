package push

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xmpp-push/push/internal/packed"
	"github.com/xmpp-push/push/wishes"
)

// MemoryStore is a Store in the memory of this process: a restart empties it, and phones then stay silent until their owners open the
// app. It suits tests, and servers whose clients enable push on every connect. It never fails and never waits for its context. Each account
// is held in packed form, in about a third of the room of its Registrations. Safe for simultaneous use; the zero value is ready.
type MemoryStore struct {
	shards [256]memoryShard

	keptMu sync.Mutex
	kept   map[string][]byte
}

type memoryShard struct {
	mu       sync.RWMutex
	accounts map[string]string // to what pack returned
	most     int               // accounts since it was made
	known    fingerprints      // the names in accounts
	_        [24]byte          // a cache line each
}

// NewMemoryStore returns an empty MemoryStore.
func NewMemoryStore() *MemoryStore { return new(MemoryStore) }

func (s *MemoryStore) shard(hash uint64) *memoryShard {
	return &s.shards[hash%uint64(len(s.shards))]
}

// List implements Store, in the order of the keys. For an account without registrations it allocates nothing.
func (s *MemoryStore) List(_ context.Context, account string) ([]Registration, error) {
	hash := hashID(account)
	sh := s.shard(hash)
	if !sh.known.has(hash) {
		return nil, nil
	}
	sh.mu.RLock()
	packed := sh.accounts[account]
	sh.mu.RUnlock()
	if packed == "" {
		return nil, nil
	}
	return unpack(account, packed), nil
}

// Enable implements Store.
func (s *MemoryStore) Enable(_ context.Context, r Registration, limit int) ([]Registration, error) {
	sh := s.shard(hashID(r.Account))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	before := unpack(r.Account, sh.accounts[r.Account])
	stored, write, evicted := Enroll(before, r, limit)
	if !write && len(evicted) == 0 {
		return before, nil
	}
	rs := slices.Clone(before)
	if i, ok := findRegistration(rs, r.Key); ok {
		rs[i] = stored
	} else {
		rs = slices.Insert(rs, i, stored)
	}
	rs = slices.DeleteFunc(rs, func(r Registration) bool { return slices.Contains(evicted, r.Key) })
	sh.set(r.Account, rs)
	return before, nil
}

// Remove implements Store.
func (s *MemoryStore) Remove(_ context.Context, account string, k Key) (removed []Key, err error) {
	if k.Service == "" {
		s.forgetKept(account)
	}
	sh := s.shard(hashID(account))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	rs := slices.DeleteFunc(unpack(account, sh.accounts[account]), func(r Registration) bool {
		if k.Names(r.Key) {
			removed = append(removed, r.Key)
			return true
		}
		return false
	})
	sh.set(account, rs)
	return removed, nil
}

// Update implements Store.
func (s *MemoryStore) Update(_ context.Context, account string, k Key, u Update) error {
	sh := s.shard(hashID(account))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	rs := unpack(account, sh.accounts[account])
	i, ok := findRegistration(rs, k)
	if !ok {
		return ErrNotRegistered
	}
	rs[i].Health = u.Apply(rs[i].Health)
	sh.set(account, rs)
	return nil
}

func (sh *memoryShard) set(account string, rs []Registration) {
	if len(rs) == 0 {
		if _, ok := sh.accounts[account]; ok {
			delete(sh.accounts, account)
			sh.known.remove(hashID(account))
			sh.accounts = fitted(sh.accounts, &sh.most)
		}
		return
	}
	if sh.accounts == nil {
		sh.accounts = make(map[string]string)
	}
	packed := pack(rs)
	if _, ok := sh.accounts[account]; !ok {
		account = strings.Clone(account) // the caller's may be part of a whole stanza
		sh.known.add(hashID(account))
	}
	sh.accounts[account] = packed
	sh.most = max(sh.most, len(sh.accounts))
}

func findRegistration(rs []Registration, k Key) (int, bool) {
	return slices.BinarySearchFunc(rs, k, func(r Registration, k Key) int { return r.Key.Compare(k) })
}

// pack encodes the registrations of one account. The strings of what unpack returns are parts of the packed one, so that it allocates three times,
// however many there are.
func pack(rs []Registration) string {
	fields, values := 0, 0
	for i := range rs {
		fields += len(rs[i].Options)
		for _, f := range rs[i].Options {
			values += len(f.Values)
		}
	}
	b := make([]byte, 0, 256)
	b = packed.AppendInts(b, len(rs), fields, values)
	for i := range rs {
		r := &rs[i]
		b = packed.AppendStrings(b, r.Service, r.Node, r.Client, r.Health.Cause)
		b = appendTimes(b, r.Enabled, r.Health.Succeeded, r.Health.Disabled, r.Health.Failing)
		b = binary.AppendVarint(b, int64(r.Health.Errors))
		b = binary.AppendVarint(b, int64(r.Health.Refusals))
		if r.Wishes == nil {
			b = packed.AppendInts(b, 0)
		} else {
			asked, _ := r.Wishes.AppendBinary(nil) // its error is always nil
			b = append(packed.AppendInts(b, len(asked)), asked...)
		}
		if r.Options == nil {
			b = packed.AppendInts(b, 0)
			continue
		}
		b = packed.AppendInts(b, len(r.Options)+1)
		for _, f := range r.Options {
			b = packed.AppendStrings(b, f.Var, f.Type)
			b = packed.AppendInts(b, len(f.Values))
			b = packed.AppendStrings(b, f.Values...)
		}
	}
	return string(b)
}

func unpack(account, all string) []Registration {
	if all == "" {
		return nil
	}
	u := unpacker(all)
	rs := make([]Registration, u.int())
	fields, values := make([]Field, u.int()), make([]string, u.int())
	for i := range rs {
		r := &rs[i]
		r.Account = account
		r.Service, r.Node, r.Client, r.Health.Cause = u.string(), u.string(), u.string(), u.string()
		r.Enabled, r.Health.Succeeded, r.Health.Disabled, r.Health.Failing = u.time(), u.time(), u.time(), u.time()
		r.Health.Errors, r.Health.Refusals = int(u.signed()), int(u.signed())
		if asked := u.string(); asked != "" {
			r.Wishes = new(wishes.Wishes)
			if err := r.Wishes.UnmarshalBinary([]byte(asked)); err != nil {
				panic(err) // this process wrote it
			}
		}
		n := u.int() - 1
		if n < 0 {
			continue
		}
		r.Options, fields = fields[:n:n], fields[n:]
		for j := range r.Options {
			f := &r.Options[j]
			f.Var, f.Type = u.string(), u.string()
			n := u.int()
			f.Values, values = values[:n:n], values[n:]
			for k := range f.Values {
				f.Values[k] = u.string()
			}
		}
	}
	return rs
}

// yearOne is the zero time in Unix seconds.
const yearOne = -62135596800

func appendTimes(b []byte, ts ...time.Time) []byte {
	for _, t := range ts {
		b = binary.AppendUvarint(b, uint64(t.Unix()-yearOne))
		b = binary.AppendUvarint(b, uint64(t.Nanosecond()))
	}
	return b
}

// unpacker reads what pack wrote, from the front.
type unpacker string

func (u *unpacker) uint() (n uint64) {
	for shift := 0; ; shift += 7 {
		c := (*u)[0]
		*u = (*u)[1:]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
}

func (u *unpacker) int() int { return int(u.uint()) }

// signed undoes the zigzag of binary.AppendVarint.
func (u *unpacker) signed() int64 {
	n := u.uint()
	return int64(n>>1) ^ -int64(n&1)
}

func (u *unpacker) string() string {
	n := u.int()
	if n == 0 {
		return "" // not a part of the whole, which would be kept with it
	}
	s := string((*u)[:n])
	*u = (*u)[n:]
	return s
}

func (u *unpacker) time() time.Time {
	return time.Unix(int64(u.uint())+yearOne, int64(u.uint())).UTC()
}

// Cached returns what List would, at once, as it always can. It spares the Engine a goroutine for most events of a server.
func (s *MemoryStore) Cached(account string) (rs []Registration, ok bool) {
	rs, _ = s.List(context.Background(), account)
	return rs, true
}
