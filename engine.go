package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xmpp-push/push/internal/deadline"
	"mellium.im/xmpp/stanza"
)

// Engine is the shell around [Account]: it keeps the accounts that have a session or something waiting, reads the others' registrations from
// the Store when an event concerns them, runs the timers, and calls the Publisher. Safe for simultaneous use.
//
// Accounts live in shards with a lock each. Deciding is pure and quick, so it happens under that lock; the host's code never runs under it.
// Where the host has to be called in the course of an account's event, the event takes the account's turn instead, for which other events
// of the same account wait.
type Engine struct {
	cfg    Config
	policy *Policy
	log    *slog.Logger
	obs    Observer
	// slow: something of the host has to be called to decide an event. watched: somebody is told of each decision.
	slow, watched bool

	start  time.Time
	shards [shardCount]shard
	closed atomic.Bool

	gatesMu sync.RWMutex
	gates   map[string]*gate
	sweepAt int

	ctx    context.Context // of publishes
	cancel context.CancelFunc
	// work counts everything that may still call the host. It grows only from within itself, or under the lock of a shard that is open.
	work sync.WaitGroup
}

const shardCount = 64

type shard struct {
	mu       sync.Mutex
	accounts map[string]*entry
	kept     fingerprints // the names in accounts
	queue    deadline.Queue[*entry]
	timer    *time.Timer
	timerAt  time.Time
	events   uint64
	// changes counts what may have made a list of registrations that was read without a turn stale.
	changes atomic.Uint64
	closed  bool
	_       [64]byte
}

// entry is an account that is kept.
type entry struct {
	deadline.Item
	*Account
	// busy: somebody has the turn; waiters want it next.
	busy    bool
	waiters []chan struct{}
}

// ref is a registration whose notification may go out.
type ref struct {
	account string
	key     Key
}

// New returns a running Engine, or everything that is wrong with cfg. It has no goroutine while it has nothing to do.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, policy: cfg.Policy.resolve(), log: cfg.Logger, start: time.Now(), gates: make(map[string]*gate)}
	if e.cfg.Store == nil {
		e.cfg.Store = NewMemoryStore()
	}
	if cfg.Observer != nil {
		e.obs = *cfg.Observer
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.slow = cfg.Veto != nil || cfg.Liveness != nil
	e.watched = e.obs.Decided != nil || e.log.Enabled(context.Background(), slog.LevelDebug)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	for i := range e.shards {
		e.shards[i].accounts = make(map[string]*entry)
		e.shards[i].events = uint64(i)
	}
	if e.obs.Started != nil {
		e.obs.Started(e.start, cfg.Host, cfg.Policy)
	}
	return e, nil
}

// Host returns the server's domain, as Config has it.
func (e *Engine) Host() string { return e.cfg.Host }

// Policy returns the policy that decides, with every default filled in and every "off" as zero.
func (e *Engine) Policy() Policy { return *e.policy }

// now is the time by a clock that never goes back.
func (e *Engine) now() time.Time { return e.start.Round(0).Add(time.Since(e.start)) }

func (e *Engine) shard(account string) *shard {
	return &e.shards[hashID(account)%shardCount]
}

var decisions = sync.Pool{New: func() any { return new(Decision) }}

// Handle takes note of an event and returns the explained Decision. It is safe from any number of goroutines; events of one account are
// taken one after another. It never waits for a push service. It may wait for the Store: when a client enables or disables push, which is
// durable when Handle returns, and when the account has no session and nothing waiting, so that its registrations have to be read.
//
// The error is ErrClosed, ErrEvent, ctx's, or wraps ErrStore; then the event had no effect, and the Decision notifies nobody.
func (e *Engine) Handle(ctx context.Context, ev Event) (Decision, error) {
	var d Decision
	err := e.HandleTo(ctx, ev, &d)
	return d, err
}

// HandleTo is Handle for callers that use one Decision again and again, which saves allocations. d may be nil.
func (e *Engine) HandleTo(ctx context.Context, ev Event, d *Decision) error {
	if d == nil {
		d = decisions.Get().(*Decision)
		defer decisions.Put(d)
	}
	name := subject(ev).Account
	d.reset(name)
	if lack := lacks(name, ev); lack != "" {
		return fmt.Errorf("%w: it names no %s", ErrEvent, lack)
	}
	hash := hashID(name)
	s := &e.shards[hash%shardCount]
	if !s.kept.has(hash) || e.slow || changesStore(ev) {
		return e.handleSlow(ctx, s, name, ev, d)
	}
	s.mu.Lock()
	if en := s.accounts[name]; en != nil && !en.busy && !s.closed {
		now, number := e.now(), s.number()
		en.Handle(ev, Facts{Now: now, Number: number}, d)
		var buf [4]Key
		keys := en.Due(now, buf[:0], &d.Effects)
		quiet := d.Effects.none() && !e.watched
		if len(keys) == 0 && quiet {
			s.settle(e, en, now)
			s.mu.Unlock()
			return nil
		}
		e.work.Add(1)
		if quiet {
			s.settle(e, en, now)
			s.mu.Unlock()
		} else {
			en.busy = true
			s.mu.Unlock()
			e.deliver(name, now, &d.Effects)
			if e.watched {
				e.decidedAs(number, now, own(ev), d, e.now().Sub(now))
			}
			e.release(s, en)
		}
		e.dispatch(name, keys)
		e.work.Done()
		return nil
	}
	s.mu.Unlock()
	return e.handleSlow(ctx, s, name, ev, d)
}

// lacks returns what an event cannot do without and has not got.
func lacks(account string, ev Event) string {
	if account == "" {
		return "account"
	}
	switch ev := ev.(type) {
	case SessionOpen:
		if ev.Session.ID == "" {
			return "session"
		}
	case SessionRestored:
		if ev.Session.ID == "" {
			return "session"
		}
	case PushEnable:
		if ev.Service == "" {
			return "service"
		}
	default:
	}
	return ""
}

func (e *Effects) none() bool { return len(e.Changes) == 0 && len(e.Advice) == 0 && len(e.Drops) == 0 }

func (s *shard) number() uint64 {
	s.events += shardCount
	return s.events
}

// changesStore tells whether an event changes stored registrations.
func changesStore(ev Event) bool {
	switch ev.(type) {
	case PushEnable, PushDisable, AffiliationNone, AccountRemoved:
		return true
	default:
		return false
	}
}

// handleSlow handles an event in the account's turn.
func (e *Engine) handleSlow(ctx context.Context, s *shard, name string, ev Event, d *Decision) error {
	en, err := e.turn(ctx, s, name, opens(ev))
	if err != nil {
		if !errors.Is(err, ErrStore) {
			return err
		}
		d.Reason = ReasonStore
		e.log.LogAttrs(ctx, slog.LevelWarn, "push: event not handled", slog.String("account", name), slog.String("event", own(ev).Name()), slog.Any("error", err))
		return err
	}
	if en == nil {
		d.Reason = ReasonNoRegistration
		if subject(ev).ID != "" {
			d.Reason = ReasonUnknownSession
		}
		if e.watched {
			e.decided(s, own(ev), d)
		}
		return nil
	}
	defer e.work.Done()
	ev = en.addressed(ev)
	now := e.now()
	f := Facts{Now: now}
	if v := e.cfg.Veto; v != nil {
		f.Veto = v.VetoStanza
	}
	if _, ok := ev.(ArchiveAdded); ok && e.cfg.Liveness != nil {
		if f.Elsewhere, err = e.cfg.Liveness.Elsewhere(ctx, name); err != nil {
			e.log.LogAttrs(ctx, slog.LevelWarn, "push: sessions elsewhere not known", slog.String("account", name), slog.Any("error", err))
		}
	}
	s.mu.Lock()
	f.Number = s.number()
	s.mu.Unlock()
	var before []Registration
	if changesStore(ev) {
		if before, err = e.store(ctx, en.Account, ev, now); err != nil {
			d.reset(name)
			d.Reason = ReasonStore
			err = fmt.Errorf("%w: %w", ErrStore, err)
			e.log.LogAttrs(ctx, slog.LevelWarn, "push: registration not changed", slog.String("account", name), slog.Any("error", err))
			e.release(s, en)
			return err
		}
	}
	var buf [4]Key
	var elsewhere Effects // what other processes did, which an enable meets in the Store
	if _, ok := ev.(PushEnable); ok {
		en.Load(before, now, &elsewhere)
		e.read(en.Account)
	}
	en.Handle(ev, f, d)
	d.Changes, d.Drops, d.Advice = append(elsewhere.Changes, d.Changes...), append(elsewhere.Drops, d.Drops...), append(elsewhere.Advice, d.Advice...)
	keys := en.Due(now, buf[:0], &d.Effects)
	e.deliver(name, now, &d.Effects)
	if e.watched {
		e.decidedAs(f.Number, now, own(ev), d, e.now().Sub(now))
	}
	e.release(s, en)
	e.dispatch(name, keys)
	return nil
}

// turn takes the turn of an account, which counts as work, and reads its registrations if it is not kept yet. An entry of nil means that nothing
// is known of the account and the event cannot change that; to find that out takes no lock.
func (e *Engine) turn(ctx context.Context, s *shard, name string, opens bool) (*entry, error) {
	hash := hashID(name)
	for {
		if e.closed.Load() {
			return nil, ErrClosed
		}
		seen := s.changes.Load()
		if s.kept.has(hash) {
			s.mu.Lock()
			if en := s.accounts[name]; en != nil && !s.closed {
				e.work.Add(1)
				err := s.acquire(ctx, en)
				s.mu.Unlock()
				if err != nil {
					e.work.Done()
					return nil, err
				}
				return en, nil
			}
			s.mu.Unlock()
		}
		rs, err := e.list(ctx, name)
		if err != nil {
			return nil, err
		}
		if len(rs) == 0 && !opens {
			return nil, nil
		}
		s.mu.Lock()
		if s.changes.Load() == seen && s.accounts[name] == nil && !s.closed {
			e.work.Add(1)
			en := &entry{Account: NewAccount(name, e.policy, rs), busy: true}
			s.accounts[en.name] = en
			s.kept.add(hash)
			s.mu.Unlock()
			e.read(en.Account)
			return en, nil
		}
		s.mu.Unlock()
	}
}

// list reads an account's registrations, and leaves out what the Store should not have returned. The error wraps ErrStore.
func (e *Engine) list(ctx context.Context, account string) ([]Registration, error) {
	rs, err := e.cfg.Store.List(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	return sane(account, rs), nil
}

// sane leaves out what a Store should not have returned.
func sane(account string, rs []Registration) []Registration {
	if len(rs) > 0 {
		rs = slices.DeleteFunc(rs, func(r Registration) bool { return r.Account != account || r.Service == "" })
	}
	return rs
}

// opens tells whether an event makes an account worth keeping that had no registration.
func opens(ev Event) bool {
	switch ev.(type) {
	case SessionOpen, SessionRestored, PushEnable:
		return true
	default:
		return false
	}
}

// acquire waits for the turn of en. s is locked when it is called and when it returns.
func (s *shard) acquire(ctx context.Context, en *entry) error {
	if !en.busy {
		en.busy = true
		return nil
	}
	ch := make(chan struct{})
	en.waiters = append(en.waiters, ch)
	s.mu.Unlock()
	var err error
	select {
	case <-ch:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	if err != nil {
		i := slices.Index(en.waiters, ch)
		if i < 0 {
			return nil // it came all the same
		}
		en.waiters = slices.Delete(en.waiters, i, i+1)
	}
	return err
}

// release gives the turn on.
func (e *Engine) release(s *shard, en *entry) {
	s.mu.Lock()
	now := e.now()
	en.busy = false
	if len(en.waiters) > 0 {
		en.busy = true
		close(en.waiters[0])
		en.waiters = slices.Delete(en.waiters, 0, 1)
	}
	s.settle(e, en, now)
	s.mu.Unlock()
}

// settle notes when to look at an account again, or forgets it. s is locked.
func (s *shard) settle(e *Engine, en *entry, now time.Time) {
	if en.busy {
		return // whoever has the turn will
	}
	if en.Idle(now) {
		s.queue.Set(en, time.Time{})
		if s.accounts[en.name] == en {
			delete(s.accounts, en.name)
			s.kept.remove(hashID(en.name))
		}
		return
	}
	next := en.Next()
	if idle, ok := en.idleAt(); ok && (next.IsZero() || idle.Before(next)) {
		next = idle
	}
	if s.closed {
		next = time.Time{}
	}
	s.queue.Set(en, next)
	s.arm(e, now)
}

// arm sets the shard's timer. s is locked.
func (s *shard) arm(e *Engine, now time.Time) {
	next := s.queue.Next()
	if next.IsZero() || !s.timerAt.IsZero() && !next.Before(s.timerAt) {
		return
	}
	s.timerAt = next
	if s.timer == nil {
		s.timer = time.AfterFunc(next.Sub(now), func() { e.tick(s) })
	} else {
		s.timer.Reset(next.Sub(now))
	}
}

// tick does what is due in a shard.
func (e *Engine) tick(s *shard) {
	s.mu.Lock()
	s.timerAt = time.Time{}
	if s.closed {
		s.mu.Unlock()
		return
	}
	e.work.Add(1)
	defer e.work.Done()
	now := e.now()
	for {
		en, ok := s.queue.Pop(now)
		if !ok {
			break
		}
		if en.busy {
			continue // its release comes back to it
		}
		en.Prune(now)
		var buf [4]Key
		var eff Effects
		keys := en.Due(now, buf[:0], &eff)
		if len(keys) == 0 && eff.none() {
			s.settle(e, en, now)
			continue
		}
		en.busy = true
		name := en.name
		s.mu.Unlock()
		e.deliver(name, now, &eff)
		e.affected(name, now, &eff)
		e.release(s, en)
		e.dispatch(name, keys)
		s.mu.Lock()
		now = e.now()
	}
	s.arm(e, now)
	s.mu.Unlock()
}

// store makes durable what an event changes, in the account's turn. before is what the Store had before an enable.
func (e *Engine) store(ctx context.Context, a *Account, ev Event, now time.Time) (before []Registration, err error) {
	defer func() {
		s := e.shard(a.name)
		s.mu.Lock()
		s.changes.Add(1)
		s.mu.Unlock()
	}()
	switch ev := ev.(type) {
	case PushEnable:
		before, err = e.cfg.Store.Enable(ctx, a.enabling(ev, now), a.policy.MaxRegistrations)
		return sane(a.name, before), err
	case PushDisable:
		if ev.Service == "" {
			return nil, nil // the device has none with Push 2.0
		}
		return nil, e.remove(ctx, a, ev.Key, ReasonDisabledByUser)
	case AffiliationNone:
		return nil, e.remove(ctx, a, ev.Key, ReasonRevoked)
	case AccountRemoved:
		return nil, e.remove(ctx, a, Key{}, ReasonAccount)
	default:
		return nil, nil
	}
}

// remove removes registrations from the store. If it fails in the middle, the account loses those that are gone.
func (e *Engine) remove(ctx context.Context, a *Account, k Key, reason Reason) error {
	removed, err := e.cfg.Store.Remove(ctx, a.name, k)
	if err == nil || len(removed) == 0 {
		return err
	}
	var eff Effects
	for _, k := range removed {
		a.Remove(k, reason, &eff)
	}
	now := e.now()
	e.deliver(a.name, now, &eff)
	e.affected(a.name, now, &eff)
	return err
}

func (e *Engine) reload(ctx context.Context, a *Account, eff *Effects) {
	rs, err := e.list(ctx, a.name)
	if err != nil {
		e.log.LogAttrs(ctx, slog.LevelWarn, "push: registrations not read again", slog.String("account", a.name), slog.Any("error", err))
		return
	}
	a.Load(rs, e.now(), eff)
	e.read(a)
}

// read reports what was read from the Store, in the account's turn.
func (e *Engine) read(a *Account) {
	if e.obs.Read != nil {
		e.obs.Read(a.name, e.now(), a.Registrations())
	}
}

// Refresh reads an account's registrations again because another node of the host has changed them. It costs nothing if the account is
// not kept in memory. Errors are as for Handle.
func (e *Engine) Refresh(ctx context.Context, account string) error {
	s := e.shard(account)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.changes.Add(1)
	en := s.accounts[account]
	if en == nil {
		s.mu.Unlock()
		return nil
	}
	e.work.Add(1)
	defer e.work.Done()
	err := s.acquire(ctx, en)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	rs, err := e.list(ctx, account)
	if err != nil {
		e.release(s, en)
		return err
	}
	var eff Effects
	now := e.now()
	en.Load(rs, now, &eff)
	e.read(en.Account)
	e.deliver(account, now, &eff)
	e.affected(account, now, &eff)
	e.release(s, en)
	return nil
}

// RefreshAll is Refresh for every account that is kept in memory, for when it is not known which ones another node has changed. It returns the
// errors of all of them.
func (e *Engine) RefreshAll(ctx context.Context) error {
	var errs []error
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		s.changes.Add(1)
		names := slices.Collect(maps.Keys(s.accounts))
		s.mu.Unlock()
		for _, name := range names {
			if err := e.Refresh(ctx, name); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// deliver gives advice to the host. It is called in the account's turn.
func (e *Engine) deliver(account string, now time.Time, eff *Effects) {
	if h := e.cfg.Resumption; h != nil {
		for _, a := range eff.Advice {
			h.ResumeTimeout(a.Session, a.Timeout, a.Reason)
		}
	}
	for i := range eff.Changes {
		c := &eff.Changes[i]
		level := slog.LevelInfo
		if c.Kind == ChangeDisabled {
			level = slog.LevelWarn
		}
		if e.log.Enabled(e.ctx, level) {
			e.log.LogAttrs(e.ctx, level, "push: registration "+string(c.Kind), slog.String("account", account), slog.String("service", c.Service),
				slog.String("node", c.Node), slog.String("reason", c.Reason.String()), slog.String("detail", c.Detail))
		}
	}
	for i := range eff.Drops {
		d := &eff.Drops[i]
		if e.log.Enabled(e.ctx, slog.LevelInfo) {
			e.log.LogAttrs(e.ctx, slog.LevelInfo, "push: notification dropped", slog.String("account", account), slog.String("service", d.Service),
				slog.String("node", d.Node), slog.String("class", d.Class.String()), slog.Int("stanzas", d.Count), slog.String("reason", d.Reason.String()))
		}
	}
}

func (e *Engine) affected(account string, now time.Time, eff *Effects) {
	if e.obs.Affected != nil && !eff.none() {
		e.obs.Affected(account, now, eff)
	}
}

// decided reports an event of an account that is not kept.
func (e *Engine) decided(s *shard, ev Event, d *Decision) {
	s.mu.Lock()
	n := s.number()
	s.mu.Unlock()
	e.decidedAs(n, e.now(), ev, d, 0)
}

func (e *Engine) decidedAs(number uint64, now time.Time, ev Event, d *Decision, took time.Duration) {
	if e.obs.Decided != nil {
		e.obs.Decided(number, now, ev, d, took)
	}
	if !e.log.Enabled(e.ctx, slog.LevelDebug) {
		return
	}
	if len(d.Verdicts) == 0 {
		e.log.LogAttrs(e.ctx, slog.LevelDebug, "push: decision", slog.String("account", d.Account), slog.String("event", ev.Name()),
			slog.Uint64("number", number), slog.Bool("notify", false), slog.String("reason", d.Reason.String()))
	}
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		e.log.LogAttrs(e.ctx, slog.LevelDebug, "push: decision", slog.String("account", d.Account), slog.String("event", ev.Name()),
			slog.Uint64("number", number), slog.String("service", v.Service), slog.String("node", v.Node), slog.Bool("notify", v.Notify),
			slog.String("class", v.Class.String()), slog.String("rule", v.Rule.String()), slog.String("reason", v.Reason.String()), slog.Int("stanzas", v.Count))
	}
}

// ReplyOf returns what the error of a Publisher means as a reply.
func ReplyOf(err error) Reply {
	if err == nil {
		return Reply{}
	}
	var r *ReplyError
	if errors.As(err, &r) {
		return Reply{Type: orText(r.Type, "cancel"), Condition: r.Condition}
	}
	var se stanza.Error
	if errors.As(err, &se) {
		return Reply{Type: orText(string(se.Type), "cancel"), Condition: string(se.Condition)}
	}
	return Reply{Missing: true}
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// Inspect returns what is known of an account. The error is as for Handle.
func (e *Engine) Inspect(ctx context.Context, account string) (AccountStatus, error) {
	s := e.shard(account)
	s.mu.Lock()
	en := s.accounts[account]
	if en == nil || s.closed {
		s.mu.Unlock()
		rs, err := e.list(ctx, account)
		if err != nil {
			return AccountStatus{}, err
		}
		return NewAccount(account, e.policy, rs).Status(e.now()), nil
	}
	e.work.Add(1)
	defer e.work.Done()
	err := s.acquire(ctx, en)
	s.mu.Unlock()
	if err != nil {
		return AccountStatus{}, err
	}
	st := en.Status(e.now())
	e.release(s, en)
	return st, nil
}

// Close sends what waits, retries included, and returns when that is done, or when ctx is: then it ends the contexts of what is in flight and
// gives up what is left. A Publisher that does not return when its context ends holds Close up. If anything was left, the
// error is an *UnsentError. After it returns nothing of the Engine's runs. A second Close does nothing. Replies of push services have to reach the
// Publisher until then: close the Engine before the streams.
func (e *Engine) Close(ctx context.Context) error {
	var all []*entry
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		e.closed.Store(true)
		if !s.closed {
			s.closed = true
			if s.timer != nil {
				s.timer.Stop()
			}
			for _, en := range s.accounts {
				all = append(all, en)
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b *entry) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	e.work.Add(1) // nothing can begin any more but from here
	for _, en := range all {
		e.flush(ctx, en)
	}
	e.work.Done()
	done := make(chan struct{})
	go func() {
		e.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		e.cancel()
		<-done
	}
	e.cancel()
	e.stopGates()
	return e.leftovers()
}

// flush sends what waits for one account.
func (e *Engine) flush(ctx context.Context, en *entry) {
	s := e.shard(en.name)
	s.mu.Lock()
	err := s.acquire(ctx, en)
	s.mu.Unlock()
	if err != nil {
		return
	}
	now := e.now()
	var eff Effects
	var buf [4]Key
	en.Flush(now)
	keys := en.Due(now, buf[:0], &eff)
	e.deliver(en.name, now, &eff)
	e.affected(en.name, now, &eff)
	e.release(s, en)
	e.dispatch(en.name, keys)
}

func (e *Engine) leftovers() error {
	var unsent []Unsent
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for _, en := range s.accounts {
			var eff Effects
			en.Abandon(ReasonClosed, &eff)
			for _, d := range eff.Drops {
				unsent = append(unsent, Unsent{en.name, d})
			}
		}
		clear(s.accounts)
		s.mu.Unlock()
	}
	if len(unsent) == 0 {
		return nil
	}
	slices.SortFunc(unsent, func(a, b Unsent) int {
		if a.Account != b.Account {
			if a.Account < b.Account {
				return -1
			}
			return 1
		}
		return a.Key.Compare(b.Key)
	})
	return &UnsentError{unsent}
}
