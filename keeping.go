package push

import (
	"context"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push/internal/enum"
)

// What waits outlives the process if the Store is a [Keeper]: it is told account by account, behind what happens and as a whole snapshot each time, and told that
// nothing waits any more. An Engine that starts takes up what is kept; that a session of the old process is over goes without saying, unless the host
// restores it (SessionRestored).

// KeepMode is what a Store that is a [Keeper] is told of what waits while the Engine runs, and so what a process that is killed loses. Whatever the mode, what is
// left when the Engine is closed is kept.
type KeepMode uint8

const (
	// KeepLate: what waits, or is unanswered, for a second longer than the policy wants it to (Policy.MinInterval, Policy.Delay). While push services
	// are well that is nothing. What came within the last two seconds or so is lost.
	KeepLate KeepMode = iota
	// KeepNone: nothing. All that waits is lost.
	KeepNone
	// KeepAll: everything, in the background: what is the first to wait of an account at once, more of it once a second. What came within the last second
	// or so is lost.
	KeepAll
)

var keepModes = [...]string{KeepLate: "late", KeepNone: "none", KeepAll: "all"}

// String is the mode's token.
func (m KeepMode) String() string { return enum.Token("keep-mode", keepModes[:], m) }

// MarshalText gives the token.
func (m KeepMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a token. One that is not known is an error.
func (m *KeepMode) UnmarshalText(text []byte) error {
	return enum.Read("keep-mode", keepModes[:], m, text)
}

// keepState is what the Store has been told of what waits for an account. The shard's lock guards it.
type keepState struct {
	// at is when to look whether it has to be told; zero: nothing waits, or it is being told.
	at instant
	// sum is of what it was told last.
	sum uint32
	// kept: it keeps something, as far as is known. telling: it is being told. whole: when it was to be told last, it kept all that waited.
	kept, telling, whole bool
	fails                uint8
}

func (k *keepState) quiet() bool { return !k.kept && !k.telling }

// keeps is what is the same for all accounts.
type keeps struct {
	// ready: what was kept has been taken up. done is closed then.
	ready atomic.Bool
	done  chan struct{}
}

// keepLag is how long something waits, beyond what the policy wants it to, before KeepLate tells the Store, and how often it is told of one account at most.
const keepLag = time.Second

// settleKeep notes when to look whether the Store has to be told. The shard is locked.
func (e *Engine) settleKeep(en *entry, now time.Time) {
	k := &en.keep
	if k.telling {
		return
	}
	switch waits := en.waits(); {
	case !waits && !k.kept:
		k.at = 0
	case k.at != 0: // as it is
	case !waits:
		k.at = toInstant(now)
	case k.kept:
		k.at = toInstant(now.Add(keepLag))
	case e.cfg.Keep == KeepAll:
		k.at = toInstant(now)
	case e.cfg.Keep == KeepLate:
		k.at = toInstant(now.Add(keepLag + max(e.policy.MinInterval, e.policy.Delay)))
	}
}

// keepDue tells the Store what waits for an account, if it is time. The shard is locked.
func (e *Engine) keepDue(s *shard, en *entry, now time.Time) {
	if at := en.keep.at; at != 0 && !now.Before(at.time()) {
		e.keepNow(s, en)
	}
}

var keepSeed = maphash.MakeSeed()

// keepNow tells the Store what waits for an account when there is a slot for it. The shard is locked.
func (e *Engine) keepNow(s *shard, en *entry) {
	k := &en.keep
	k.telling, k.at = true, 0
	e.work.add()
	e.back.take(func(sl *slot) {
		defer e.work.done()
		s.mu.Lock()
		defer s.mu.Unlock()
		var state []byte
		var sum uint32
		if !en.busy && en.waits() {
			state, sum = en.toKeep()
		}
		if en.busy || state != nil && sum == k.sum || state == nil && !k.kept {
			k.telling, k.whole = false, state != nil
			sl.free()
			s.settle(e, en, e.now())
			return
		}
		e.callStore(s, en, &call{
			hook: &e.hooks.keep,
			slot: sl,
			run:  func(ctx context.Context) error { return e.keeper.Keep(ctx, en.name, state) },
			then: func(err error) []Key {
				k.telling = false
				if err != nil { // it may have been kept, or forgotten, all the same
					k.fails = min(k.fails+1, 10)
					k.kept, k.sum = k.kept || state != nil, 0
					k.at = toInstant(e.now().Add(retryIn(int(k.fails))))
					return nil
				}
				e.lanes.away.Store(false)
				k.fails, k.kept, k.sum = 0, state != nil, sum
				return nil
			},
		})
	})
}

// toKeep returns what the Store is told of what waits for an account, and its sum. The shard is locked, and nobody has the turn.
func (en *entry) toKeep() (state []byte, sum uint32) {
	state, _ = en.AppendBinary(nil) // its error is always nil
	return state, uint32(maphash.Bytes(keepSeed, state))
}

// keptAsItIs tells whether the Store keeps what waits for an account now, and not what waited earlier. The shard is locked, and nobody has the turn.
func (en *entry) keptAsItIs() bool {
	if !en.keep.kept {
		return false
	}
	_, sum := en.toKeep()
	return sum == en.keep.sum
}

// keepAll hands all that waits to the Store, and tells it of what waits no more, until ctx ends.
func (e *Engine) keepAll(ctx context.Context) {
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for _, en := range s.accounts {
			en.keep.whole, en.keep.fails = false, 0 // something may have come since, and the Store may be back
		}
		s.mu.Unlock()
	}
	for {
		left := false
		for i := range e.shards {
			s := &e.shards[i]
			s.mu.Lock()
			for _, en := range s.accounts {
				k := &en.keep
				if waits := en.waits(); waits && !k.whole || !waits && k.kept {
					left = true
					if !k.telling && k.fails == 0 {
						e.keepNow(s, en)
					}
				}
			}
			s.mu.Unlock()
		}
		if !left {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-e.work.zero:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// takeUp takes up what the Store has kept, if it is a Keeper.
func (e *Engine) takeUp() {
	e.keeps.done = make(chan struct{})
	if e.keeper == nil {
		e.keeps.open()
		return
	}
	if _, memory := e.keeper.(*MemoryStore); memory { // which never waits
		e.takeUpAll(false)
		return
	}
	e.work.add()
	go e.takeUpAll(true)
}

// open lets registrations be read.
func (k *keeps) open() {
	if !k.ready.Swap(true) {
		close(k.done)
	}
}

// takeUpAll reads what is kept, until that succeeds. Events wait for it only as long as a call of the Store may take, and not after a failure: it would be wrong
// to wake nobody because of what may be left of another process.
func (e *Engine) takeUpAll(counted bool) {
	bound := time.AfterFunc(e.cfg.StoreTimeout, e.keeps.open)
	defer bound.Stop()
	taken := make(map[string]bool)
	for n := 1; ; n++ {
		read := make(chan error, 1)
		go func() { // of its own, because the host may end it
			err := errPanicked
			defer func() { read <- err }()
			err = e.guard(&e.hooks.kept, func() error {
				for k, err := range e.keeper.Kept(e.ctx) {
					if err != nil {
						return err
					}
					if !taken[k.Account] {
						taken[k.Account] = true
						e.takeUpOne(k)
					}
				}
				return nil
			})
		}()
		err := <-read
		e.keeps.open()
		if counted {
			counted = false
			e.work.done()
		}
		if err == nil || e.ctx.Err() != nil {
			return
		}
		e.warn("push: what was kept cannot be read", "", err)
		select {
		case <-time.After(retryIn(n)):
		case <-e.ctx.Done():
			return
		}
	}
}

// takeUpOne takes up what is kept of one account.
func (e *Engine) takeUpOne(k Kept) {
	now := e.now()
	a, err := RestoreAccount(k.Account, e.policy, k.State)
	if err != nil {
		e.warn("push: what was kept of an account cannot be read", k.Account, err)
		return
	}
	var eff Effects
	for _, st := range a.Status(now).Sessions { // those of the process that kept it
		a.close(st.ID, now, &eff)
	}
	s := e.shard(k.Account)
	s.mu.Lock()
	defer s.mu.Unlock()
	en := s.accounts[k.Account]
	if en != nil && (en.busy || en.Loaded()) {
		return // it came too late: the account has gone on without it
	}
	if en == nil {
		en = s.open(e, k.Account)
	}
	a.sessions = en.sessions // opened meanwhile
	en.Account = a
	en.keep.kept, en.interrupted = true, true
	e.tellEffects(en, now, &eff, true)
	e.deliver(s, en, false)
	if en.waits() {
		e.read(s, en)
	}
	s.settle(e, en, now)
}
