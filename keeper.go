package push

import (
	"bytes"
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Keeper is the optional ability of a Store to keep what waits when an Engine is closed, or is killed: the next one takes it up. Calls are as for Store, those for
// one account one after another. A Keeper has one Engine at a time, or both would send what is kept; within a process New sees to that. Several
// processes that share a database each get back only what they kept themselves, by a name of their own, such as store/sql's Options.Owner.
type Keeper interface {
	// Keep replaces what is kept of the account by state, and has made that durable when it returns; nil means that nothing is kept any more, which it need
	// not have been before. State is a snapshot of the account, which nobody but the Engine can read; it may hold the text of messages, if the policy
	// lets push services see it, so a store that encrypts registrations encrypts it as well. An account that is removed (Store.Remove with no service)
	// loses what is kept of it.
	Keep(ctx context.Context, account string, state []byte) error
	// Kept returns what is kept, each account once, in any order. It may be read page by page; Keep may be called meanwhile, also for what was just returned.
	// An error ends it.
	Kept(ctx context.Context) iter.Seq2[Kept, error]
}

// Kept is what a Keeper keeps of one account.
type Kept struct {
	Account string
	State   []byte
}

var _ Keeper = (*MemoryStore)(nil)

// Keep implements Keeper, for an Engine that follows another in the same process.
func (s *MemoryStore) Keep(_ context.Context, account string, state []byte) error {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	switch {
	case state == nil:
		delete(s.kept, account)
	case s.kept == nil:
		s.kept = map[string][]byte{strings.Clone(account): bytes.Clone(state)}
	default:
		s.kept[strings.Clone(account)] = bytes.Clone(state) // the caller's may be part of a whole stanza
	}
	return nil
}

// Kept implements Keeper, in the order of the accounts.
func (s *MemoryStore) Kept(context.Context) iter.Seq2[Kept, error] {
	return func(yield func(Kept, error) bool) {
		s.keptMu.Lock()
		all := maps.Clone(s.kept)
		s.keptMu.Unlock()
		for _, account := range slices.Sorted(maps.Keys(all)) {
			if !yield(Kept{account, bytes.Clone(all[account])}, nil) {
				return
			}
		}
	}
}

// forgetKept forgets what is kept of an account.
func (s *MemoryStore) forgetKept(account string) {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	delete(s.kept, account)
}
