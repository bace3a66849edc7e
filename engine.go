package push

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Accounts live in shards with a lock each. Deciding is pure and quick, so it happens under that lock, and what follows from it is data: registrations
// to publish to, effects to tell the host of, updates for the Store. The host's code is slow, absent or wrong at any time, so it runs
// elsewhere, and each of its parts can only hold up what it is asked for:
//
//   - hooks.go: every call of a hook; panics, the bound of its time, and what becomes of those that hang;
//   - told.go, telling.go: what Observer, Resumption and Logger are told, and how, in an account's order; watchdog.go finds what hangs;
//   - turn.go: an account in its shard, and its turn, which is taken only where the host has a word in deciding (Veto);
//   - lane.go: the Store, one call at a time for an account, for which nothing waits but the events that need its answer;
//   - reader.go: registrations are read when an event first needs them; until the Store has answered, such events wait in memory;
//   - writer.go: enable and disable, which are the Store's answer; lessons.go: what replies taught, which is written behind;
//   - keeper.go: what waits, handed to a Store that can keep it, and taken up again;
//   - gate.go, flight.go: push services, their slots, and the way of a publish;
//   - close.go, inspect.go: the end of it, and what one can see.

// Engine takes events, decides, publishes and learns. It keeps what it needs to know of the accounts that have a session or something waiting, and
// reads the others' registrations from the Store when an event concerns them. Whatever the host's code does, panicking and hanging included, concerns
// only what it was asked for; see [Config]. [New] makes one; one that it did not make, nil included, is like one that was closed. A nil context
// is one that never ends. Safe for simultaneous use.
type Engine struct {
	cfg    Config
	policy *Policy
	log    *slog.Logger
	obs    Observer // those that are not quick
	quick  Observer // and those that are
	hooks  hooks
	dog    watchdog
	strict *strict // nil: Config.Strict is off
	// cached is the Store's ability to say without waiting what an account has; keeper its ability to keep what waits.
	cached func(account string) ([]Registration, bool)
	keeper Keeper
	// telling: somebody is told of effects. watched: of every decision. debugs: the Logger is.
	telling, watched, debugs bool

	start  time.Time
	wall   time.Time // start, without what makes it go on
	shards [shardCount]shard
	// closing: no event is taken any more. sealed: nothing is sent any more. closed: the Engine does nothing any more.
	closing, sealed, closed atomic.Bool
	close                   closing
	work                    work
	// heardings are channels for those who wait until something is told.
	heardings sync.Pool

	// ctx is of everything that the host is asked; it ends when the Engine is closed.
	ctx    context.Context
	cancel context.CancelFunc
	// sending is the Publisher's; recall ends it.
	sending context.Context
	recall  context.CancelFunc

	gates gates
	back  background
	lanes laneStats
	// defers counts the events that wait for the Store, deferRoom the room that they take, learned the registrations of which it has to be told.
	defers, deferRoom, learned atomic.Int64
	keeps                      keeps
}

// New returns a running Engine, or everything that is wrong with cfg. It has no goroutine while it has nothing to do. What its Store has kept of before goes out
// at once, so the Publisher and the other parts of cfg may be called before New has returned.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.HookTimeout = lasting(cfg.HookTimeout, 5*time.Second)
	cfg.StoreTimeout = lasting(cfg.StoreTimeout, 30*time.Second)
	cfg.MaxDeferred = orDefault(cfg.MaxDeferred, 1<<16)
	e := &Engine{cfg: cfg, policy: cfg.Policy.resolve(), log: cfg.Logger, start: time.Now()}
	e.wall = e.start.Round(0)
	e.hooks.init()
	if cfg.Strict {
		e.strict = newStrict()
	}
	e.work.zero = make(chan struct{}, 1)
	e.close.done = make(chan struct{})
	if e.cfg.Store == nil {
		e.cfg.Store = NewMemoryStore()
	}
	if c, ok := e.cfg.Store.(interface {
		Cached(account string) ([]Registration, bool)
	}); ok {
		e.cached = c.Cached
	}
	if k, ok := cfg.Store.(Keeper); ok { // not the memory that ends with this process
		e.keeper = k
		if err := e.claim(); err != nil {
			return nil, err
		}
	}
	if cfg.Observer != nil {
		e.quick, e.obs = cfg.Observer.split()
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	_ = e.guard(&e.hooks.logger, func() error { e.debugs = e.log.Enabled(context.Background(), slog.LevelDebug); return nil })
	e.watched = e.obs.Decided != nil || e.quick.Decided != nil || e.debugs
	e.telling = cfg.Resumption != nil || cfg.Logger != nil || cfg.Observer != nil
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.sending, e.recall = context.WithCancel(e.ctx)
	e.gates.services = make(map[string]*gate)
	for i := range e.shards {
		e.shards[i].accounts = make(map[string]*entry)
		e.shards[i].events = uint64(i)
		e.shards[i].calls.next, e.shards[i].calls.prev = &e.shards[i].calls, &e.shards[i].calls
	}
	for _, o := range []struct {
		h       *hook
		started func(time.Time, string, Policy)
	}{{&e.hooks.quick, e.quick.Started}, {&e.hooks.observer, e.obs.Started}} {
		if o.started != nil {
			_, _ = ask(e.ctx, e, o.h, "", func(context.Context) (struct{}, error) {
				o.started(e.start, cfg.Host, cfg.Policy)
				return struct{}{}, nil
			})
		}
	}
	e.takeUp()
	return e, nil
}

// errNotMade is for an Engine that New has not returned.
var errNotMade = fmt.Errorf("%w: New has not made it; use what New returns, if its error is nil", ErrClosed)

// orEndless returns ctx, or, for a host that has none, one that never ends.
func orEndless(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// Host returns the server's domain, as Config has it.
func (e *Engine) Host() string { return e.cfg.Host }

// Policy returns the policy that decides, with every default filled in and every "off" as zero.
func (e *Engine) Policy() Policy { return *e.policy.resolve() }

// now is the time by a clock that never goes back.
func (e *Engine) now() time.Time { return e.wall.Add(time.Since(e.start)) }

func (e *Engine) shard(account string) *shard {
	return &e.shards[hashID(account)%shardCount]
}

var decisions = sync.Pool{New: func() any { return new(Decision) }}

// Handle takes note of an event and returns the explained Decision. It is safe from any number of goroutines; events of one account are
// taken one after another. It never waits for a push service.
//
// It waits for the Store in two cases:
//
//   - What a client enables or disables is durable when Handle returns nil, and what the Decision says of it is what the Store said.
//   - An event that needs the account's registrations waits for them if they have not been read, for Config.HookTimeout at most. If that is over, ctx
//     ends, or the Store fails, Handle returns nil with ReasonDeferred, and the event is decided when the Store has answered. So nothing is lost while
//     a Store is away, and such an event must not be handed in again.
//
// What else the host is asked (Vetoer, Liveness, Contacts, Chats) has Config.HookTimeout for each call, also when ctx ends earlier: who is muted stays muted.
//
// The error is ErrClosed, ErrEvent, ctx's, or wraps ErrStore. Then the event had no effect, and the Decision notifies nobody, with two exceptions,
// both of ErrStore: of an event that removes registrations the Decision's Changes say which ones are gone all the same, and an enable or disable that
// the Store did not answer in time may take effect later. To repeat an event that failed is safe.
func (e *Engine) Handle(ctx context.Context, ev Event) (Decision, error) {
	var d Decision
	err := e.HandleTo(ctx, ev, &d)
	return d, err
}

// HandleTo is Handle for callers that use one Decision again and again, which saves allocations. d may be nil.
func (e *Engine) HandleTo(ctx context.Context, ev Event, d *Decision) error {
	if e == nil {
		return errNotMade
	}
	if e.strict != nil {
		if kept := own(ev); kept != nil {
			return e.strictly(ctx, kept, d)
		}
	}
	return e.handle(ctx, ev, d)
}

// handle is HandleTo without Config.Strict.
func (e *Engine) handle(ctx context.Context, ev Event, d *Decision) error {
	if d == nil {
		d = decisions.Get().(*Decision)
		defer decisions.Put(d)
	}
	name := subject(ev).Account
	d.reset(name)
	if name == "" || !plain(ev) {
		if err := CheckEvent(ev); err != nil {
			return err
		}
	}
	if ev, ok := ev.(PushEnable); ok {
		if err := ev.Key.fits(ev.Wishes); err != nil {
			return fmt.Errorf("%w: %w", ErrEvent, err)
		}
	}
	hash := hashID(name)
	s := &e.shards[hash%shardCount]
	if !s.kept.has(hash) {
		if !opens(ev) && !e.closing.Load() {
			if subject(ev).ID != "" { // what is not kept has no session
				e.passing(s, name, ev, d)
				return nil
			}
			if rs, ok := e.recollect(name); ok && len(rs) == 0 {
				e.passing(s, name, ev, d)
				return nil
			}
		}
		return e.handleSlow(ctx, s, name, ev, d)
	}
	if changesStore(ev) || e.asks(ev) {
		return e.handleSlow(ctx, s, name, ev, d)
	}
	s.mu.Lock()
	en := s.accounts[name]
	if en == nil || en.busy || s.closing || !en.canDecide(ev) {
		s.mu.Unlock()
		return e.handleSlow(ctx, s, name, ev, d)
	}
	if (e.cfg.Chats != nil || e.cfg.Contacts != nil) && len(en.Asks(ev, Facts{Now: e.now()})) > 0 {
		s.mu.Unlock()
		return e.handleSlow(ctx, s, name, ev, d)
	}
	since, number := time.Since(e.start), s.number()
	now := e.wall.Add(since)
	en.Handle(ev, Facts{Now: now, Number: number}, d)
	var buf [4]Key
	keys := en.Due(now, buf[:0], &d.Effects)
	if !e.watched && d.Effects.none() {
		s.settle(e, en, now)
		if len(keys) == 0 {
			s.mu.Unlock()
			return nil
		}
		e.work.add()
		s.mu.Unlock()
		e.dispatch(name, keys)
		e.work.done()
		return nil
	}
	e.tellDecided(en, number, now, ev, d, time.Since(e.start)-since, true)
	told := e.hereOr(s, en, now, true)
	s.settle(e, en, now)
	if len(keys) == 0 {
		s.mu.Unlock()
	} else {
		e.work.add()
		s.mu.Unlock()
		e.dispatch(name, keys)
		e.work.done()
	}
	e.hear(told)
	return nil
}

// handleSlow handles an event that the host or its Store has a word in, or of an account that is not kept.
func (e *Engine) handleSlow(ctx context.Context, s *shard, name string, ev Event, d *Decision) error {
	if e.policy == nil {
		return errNotMade
	}
	ctx = orEndless(ctx)
	if changesStore(ev) {
		return e.change(ctx, s, name, ev, d)
	}
	told, err := e.handleInTurn(ctx, s, name, ev, d)
	e.hear(told)
	return err
}

// handleInTurn is handleSlow but for what is to be heard.
func (e *Engine) handleInTurn(ctx context.Context, s *shard, name string, ev Event, d *Decision) (told hearing, err error) {
	e.work.add()
	defer e.work.done()
	var f Facts
	asked, looked := !e.asks(ev), !needsRegistrations(ev)
	for {
		seen := s.changes.Load()
		s.mu.Lock()
		var rs []Registration
		known := false
		if en := s.accounts[name]; !looked && (en == nil || !en.Loaded()) && e.keeps.ready.Load() {
			looked = true
			s.mu.Unlock()
			rs, known = e.recollect(name)
			s.mu.Lock()
		}
		if s.closing {
			s.mu.Unlock()
			return told, ErrClosed
		}
		en := s.accounts[name] // it may have come or gone meanwhile
		if en == nil {
			en = s.open(e, name)
		}
		if known && !en.Loaded() && !en.busy && s.changes.Load() == seen {
			var eff Effects
			e.load(en, rs, &eff)
			e.tellEffects(en, e.now(), &eff, true)
		}
		if !en.canDecide(ev) {
			return e.postpone(ctx, s, en, ev, d)
		}
		if !asked {
			s.mu.Unlock()
			e.facts(name, ev, &f)
			asked = true
			continue
		}
		if err := s.acquire(ctx, en); err != nil {
			s.mu.Unlock()
			return told, err
		}
		var buf [4]Key
		keys := e.decide(s, en, ev, f, d, true, buf[:0])
		e.giveOn(en)
		now := e.now()
		told = e.hereOr(s, en, now, true)
		s.settle(e, en, now)
		s.mu.Unlock()
		e.dispatch(name, keys)
		return told, nil
	}
}

// recollect returns what the Store has of an account, if it knows without waiting.
func (e *Engine) recollect(account string) (rs []Registration, ok bool) {
	if e.cached == nil {
		return nil, false
	}
	defer func() {
		if r := recover(); r != nil {
			_ = e.panicked(&e.hooks.list, r)
		}
	}()
	return e.cached(account)
}

// decide decides an event in the account's turn, and queues what there is to tell of it. The shard is locked when it is called and when it returns, but not
// while the host has its word; the turn alone keeps others from the account then. mine is as for tellDecided.
func (e *Engine) decide(s *shard, en *entry, ev Event, f Facts, d *Decision, mine bool, keys []Key) []Key {
	if e.cfg.Chats != nil || e.cfg.Contacts != nil {
		f.Now = e.now()
		questions := en.Asks(ev, f)
		s.mu.Unlock()
		e.chatFacts(e.ctx, en.name, questions, &f)
		s.mu.Lock()
	}
	now := e.now()
	f.Now, f.Number = now, s.number()
	if f.Veto != nil {
		s.mu.Unlock()
	}
	en.Handle(ev, f, d)
	keys = en.Due(now, keys, &d.Effects)
	if f.Veto != nil {
		s.mu.Lock()
	}
	e.tellDecided(en, f.Number, now, ev, d, e.now().Sub(now), mine)
	return keys
}

// passing answers an event of an account of which nothing is kept.
func (e *Engine) passing(s *shard, name string, ev Event, d *Decision) {
	d.Reason = ReasonNoRegistration
	if subject(ev).ID != "" {
		d.Reason = ReasonUnknownSession
	}
	if !e.watched {
		return
	}
	s.mu.Lock()
	number := s.number()
	s.mu.Unlock()
	now, told := e.now(), false
	if e.quick.Decided != nil && e.hooks.quick.hangs.Load() == 0 {
		mine := own(ev)
		_ = e.guard(&e.hooks.quick, func() error { e.quick.Decided(number, now, mine, d, 0); return nil })
		told = true
	}
	if told && !e.debugs && e.obs.Decided == nil {
		return
	}
	kept, own := keepEvent(ev), d.clone()
	if e.debugs {
		_, _ = ask(e.ctx, e, &e.hooks.logger, name, func(context.Context) (struct{}, error) { e.logDecision(number, kept, own); return struct{}{}, nil })
	}
	for _, o := range []struct {
		h       *hook
		decided func(uint64, time.Time, Event, *Decision, time.Duration)
		told    bool
	}{{&e.hooks.quick, e.quick.Decided, told}, {&e.hooks.observer, e.obs.Decided, false}} {
		if o.decided != nil && !o.told {
			_, _ = ask(e.ctx, e, o.h, name, func(context.Context) (struct{}, error) { o.decided(number, now, kept, own, 0); return struct{}{}, nil })
		}
	}
}
