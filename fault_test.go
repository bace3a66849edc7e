package push_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// Every function of the host's, with every fault, before, during and after Close. What has to hold is the same for all: Handle returns
// within its bound, an account that the fault does not concern notices nothing, no stanza is published twice and nothing to what is disabled, every
// yes ends as published or dropped with a reason or is reported by Close, Close keeps to its context, and no goroutine is left when the host's code has returned.

type faultKind string

const (
	panics   faultKind = "panics"
	hangs    faultKind = "hangs"
	slow     faultKind = "slow"
	errs     faultKind = "errs"
	nonsense faultKind = "nonsense"
	exits    faultKind = "exits"
)

var faultHooks = []string{
	"Publish", "Unread", "PendingSubscriptions", "Elsewhere", "Contact", "Chat", "VetoStanza", "VetoPublish", "ResumeTimeout", "Observer", "Quick", "Logger",
	"List", "Enable", "Remove", "Update", "Keep", "Kept",
}

const victim = "victim@example.com"

// faultyHost is a host of which one function has a fault, for one account, while it is on.
type faultyHost struct {
	hook  string
	fault faultKind
	mu    sync.Mutex
	on    bool
	free  chan struct{} // closed when what hangs is let go
	calls int           // since Close returned
	done  bool
	// started counts the calls that hang.
	hanging, most int
}

var errHost = errors.New("host: no")

// call is the beginning of every function of the host's. bad says that it should answer nonsense.
func (h *faultyHost) call(ctx context.Context, hook, account string) (bad bool, err error) {
	h.mu.Lock()
	if h.done && hook != "Logger" {
		h.calls++
	}
	on := h.on && hook == h.hook && (account == victim || account == "")
	free := h.free
	if on && h.fault == hangs {
		h.hanging++
		h.most = max(h.most, h.hanging)
	}
	h.mu.Unlock()
	if !on {
		return false, nil
	}
	switch h.fault {
	case panics:
		panic("host: " + hook)
	case exits:
		runtime.Goexit()
	case hangs:
		<-free // whatever ctx says
		h.mu.Lock()
		h.hanging--
		h.mu.Unlock()
	case slow:
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	case errs:
		return false, errHost
	case nonsense:
		return true, nil
	}
	return false, nil
}

func (h *faultyHost) Unread(ctx context.Context, account string) (int, error) {
	bad, err := h.call(ctx, "Unread", account)
	if bad {
		return -1 << 40, nil
	}
	return 7, err
}

func (h *faultyHost) PendingSubscriptions(ctx context.Context, account string) (int, error) {
	bad, err := h.call(ctx, "PendingSubscriptions", account)
	if bad {
		return -5, nil
	}
	return 1, err
}

func (h *faultyHost) Elsewhere(ctx context.Context, account string) ([]Key, error) {
	bad, err := h.call(ctx, "Elsewhere", account)
	if bad {
		return []Key{{}, {Service: "nobody's"}, {Service: "nobody's"}}, nil
	}
	return nil, err
}

func (h *faultyHost) Contact(ctx context.Context, account, jid string) (bool, error) {
	bad, err := h.call(ctx, "Contact", account)
	return !bad, err
}

func (h *faultyHost) Chat(ctx context.Context, account, chat string) (ChatInfo, error) {
	bad, err := h.call(ctx, "Chat", account)
	if bad {
		return ChatInfo{Contact: 77, Public: 99, Nick: "\x00"}, nil
	}
	return ChatInfo{}, err
}

func (h *faultyHost) VetoStanza(r *Registration, st Stanza) string {
	bad, _ := h.call(context.Background(), "VetoStanza", r.Account)
	if bad {
		*r = Registration{}
	}
	return ""
}

func (h *faultyHost) VetoPublish(ctx context.Context, n *Notification) string {
	bad, _ := h.call(ctx, "VetoPublish", n.Account)
	if bad {
		n.Account, n.Key, n.Events = "nobody@example.com", Key{}, nil
	}
	return ""
}

func (h *faultyHost) ResumeTimeout(session SessionID, _ time.Duration, _ Reason) {
	_, _ = h.call(context.Background(), "ResumeTimeout", session.Account)
}

func (h *faultyHost) observer(hook string) *Observer {
	see := func(account string) { _, _ = h.call(context.Background(), hook, account) }
	return &Observer{
		Quick:    hook == "Quick",
		Read:     func(account string, _ time.Time, _ []Registration) { see(account) },
		Decided:  func(_ uint64, _ time.Time, _ Event, d *Decision, _ time.Duration) { see(d.Account) },
		Affected: func(account string, _ time.Time, _ *Effects) { see(account) },
		Sent:     func(_ time.Time, n *Notification) { see(n.Account) },
		Stored:   func(account string, _ time.Time, _ string, _ time.Duration, _ error) { see(account) },
		Replied:  func(_ time.Time, n *Notification, _ Reply, _ Result, _ time.Duration) { see(n.Account) },
	}
}

func (h *faultyHost) Enabled(context.Context, slog.Level) bool { return true }
func (h *faultyHost) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *faultyHost) WithGroup(string) slog.Handler            { return h }
func (h *faultyHost) Handle(ctx context.Context, r slog.Record) error {
	account := "nobody@example.com"
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "account" {
			account = a.Value.String()
		}
		return true
	})
	_, err := h.call(ctx, "Logger", account)
	return err
}

// faultyDisk is its Store.
type faultyDisk struct {
	*faultyHost
	m *MemoryStore
}

func (s faultyDisk) List(ctx context.Context, account string) ([]Registration, error) {
	bad, err := s.call(ctx, "List", account)
	if err != nil {
		return nil, err
	}
	rs, err := s.m.List(ctx, account)
	if bad {
		rs = append(rs, Registration{}, Registration{Account: "other@example.com", Key: phone}, Registration{Account: account})
	}
	return rs, err
}

func (s faultyDisk) Enable(ctx context.Context, r Registration, limit int) ([]Registration, error) {
	bad, err := s.call(ctx, "Enable", r.Account)
	if err != nil {
		return nil, err
	}
	before, err := s.m.Enable(ctx, r, limit)
	if bad {
		before = append(before, Registration{}, Registration{Account: "other@example.com", Key: phone})
	}
	return before, err
}

func (s faultyDisk) Remove(ctx context.Context, account string, k Key) ([]Key, error) {
	bad, err := s.call(ctx, "Remove", account)
	if err != nil {
		return nil, err
	}
	removed, err := s.m.Remove(ctx, account, k)
	if bad {
		removed = append(removed, Key{}, Key{Service: "nobody's"})
	}
	return removed, err
}

func (s faultyDisk) Update(ctx context.Context, account string, k Key, u Update) error {
	bad, err := s.call(ctx, "Update", account)
	if bad {
		return fmt.Errorf("what? %w", ErrEvent)
	}
	if err != nil {
		return err
	}
	return s.m.Update(ctx, account, k, u)
}

func (s faultyDisk) Keep(ctx context.Context, account string, state []byte) error {
	if _, err := s.call(ctx, "Keep", account); err != nil {
		return err
	}
	return s.m.Keep(ctx, account, state)
}

func (s faultyDisk) Kept(ctx context.Context) iter.Seq2[Kept, error] {
	bad, err := s.call(ctx, "Kept", "")
	return func(yield func(Kept, error) bool) {
		if err != nil {
			yield(Kept{}, err)
			return
		}
		if bad {
			yield(Kept{"other@example.com", []byte("what?")}, nil)
			yield(Kept{}, nil)
		}
	}
}

// faultyService publishes, and watches what may not happen.
type faultyService struct {
	*faultyHost
	t        *testing.T
	mu       sync.Mutex
	asked    map[string]time.Time // when the newest message of an account was raised
	disabled map[string]bool
	accepted map[string]bool // account, node and event
	slowest  time.Duration   // from a message to its publish, of those that the fault does not concern
	open     map[string]int
	got      map[string]int
}

func (s *faultyService) Publish(ctx context.Context, n *Notification) error {
	who := n.Account + " " + n.Node
	s.mu.Lock()
	assert.False(s.t, s.disabled[who], "published to %s, which is disabled", who)
	s.open[who]++
	assert.Equal(s.t, 1, s.open[who], "published to %s twice at a time", who)
	if at, ok := s.asked[n.Account]; ok && n.Account != victim {
		s.slowest = max(s.slowest, time.Since(at))
		delete(s.asked, n.Account)
	}
	s.mu.Unlock()
	bad, err := false, error(nil)
	defer func() {
		s.mu.Lock()
		s.open[who]--
		s.mu.Unlock()
	}()
	bad, err = s.call(ctx, "Publish", n.Account)
	if bad {
		var none *ReplyError
		err = none
	}
	if err == errHost {
		err = &ReplyError{Type: "wait", Condition: "resource-constraint"}
	}
	if ReplyOf(err).OK() && ctx.Err() == nil {
		s.mu.Lock()
		for _, number := range n.Events {
			what := fmt.Sprint(who, " ", number)
			assert.False(s.t, s.accepted[what], "event %s is published twice", what)
			s.accepted[what] = true
		}
		s.got[n.Account] += n.Count
		s.mu.Unlock()
	}
	return err
}

func TestFaults(t *testing.T) {
	for _, hook := range faultHooks {
		for _, kind := range []faultKind{panics, hangs, slow, errs, nonsense, exits} {
			for _, phase := range []string{"before", "during", "after"} {
				t.Run(fmt.Sprintf("%s %s %s Close", hook, kind, phase), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { playFault(t, hook, kind, phase) })
				})
			}
		}
	}
}

func playFault(t *testing.T, hook string, kind faultKind, phase string) {
	h := &faultyHost{hook: hook, fault: kind, on: phase == "before", free: make(chan struct{})}
	svc := &faultyService{faultyHost: h, t: t, asked: map[string]time.Time{}, disabled: map[string]bool{}, accepted: map[string]bool{}, open: map[string]int{}, got: map[string]int{}}
	led := &ledger{owed: map[debt]Class{}}
	disk := NewMemoryStore()
	e := newEngine(t, Config{
		Publisher: svc, Store: faultyDisk{h, disk}, Unread: h, Subscriptions: h, Liveness: h, Contacts: h, Chats: h, Veto: h, Resumption: h,
		Observer: Observers(led.observer(), h.observer("Observer"), h.observer("Quick")), Logger: slog.New(h), Keep: KeepAll,
	})
	always := context.Background()
	bound := 2*e.Policy().ReplyTimeout + 5*time.Second // Enable and Remove may take Config.StoreTimeout
	accounts := []string{victim, "romeo@example.com", "nurse@example.com"}
	var wg sync.WaitGroup
	work := make(map[string]chan Event)
	for _, account := range accounts {
		events := make(chan Event, 100)
		work[account] = events
		wg.Go(func() {
			for ev := range events {
				switch ev := ev.(type) {
				case Offline:
					svc.mu.Lock()
					svc.asked[account] = time.Now()
					svc.mu.Unlock()
				case PushEnable:
					svc.mu.Lock()
					svc.disabled[account+" "+ev.Node] = false
					svc.mu.Unlock()
				}
				began := time.Now()
				_, err := e.Handle(always, ev)
				took := time.Since(began)
				if account == victim {
					assert.True(t, took <= bound || hook == "Quick" && kind == hangs, "%s took %v", ev.Name(), took) // it holds its caller, as it has promised not to
				} else {
					assert.LessOrEqual(t, took, time.Duration(0), "%s of an account that it does not concern", ev.Name())
					assert.NoError(t, err, ev.Name())
				}
				if d, ok := ev.(PushDisable); ok && err == nil {
					svc.mu.Lock()
					svc.disabled[account+" "+d.Node] = true
					svc.mu.Unlock()
				}
			}
		})
	}
	send := func(account string, ev Event) { work[account] <- ev }
	wishes := &wishes.Wishes{IgnoreUnknown: true}
	round := func(i int) {
		if i%2 == 1 { // the accounts are forgotten, and read again
			pass(time.Hour)
			for _, account := range accounts {
				send(account, Offline{account, Stanza{ID: fmt.Sprint("cold", i), From: "romeo@example.net", To: account, Class: ClassImportant}})
			}
			pass(4 * time.Second)
		}
		for _, account := range accounts {
			s := SessionID{account, fmt.Sprint("s", i)}
			st := func(n int) Stanza {
				st := message(fmt.Sprintf("m%d-%d", i, n))
				st.To = account
				return st
			}
			send(account, SessionOpen{Session: s, Client: "c"})
			send(account, PushEnable{Session: s, Key: phone, Wishes: wishes})
			send(account, ArchiveAdded{account, st(1)})
			send(account, HibernationStart{s, nil})
			send(account, Offline{account, st(2)})
		}
		pass(4 * time.Second)
		for _, account := range accounts {
			s := SessionID{account, fmt.Sprint("s", i)}
			send(account, StanzaQueued{s, Stanza{ID: fmt.Sprint("p", i), Class: ClassPlain, To: account}})
		}
		pass(100 * time.Millisecond) // it waits, and is kept
		for _, account := range accounts {
			s := SessionID{account, fmt.Sprint("s", i)}
			send(account, HibernationEnd{s})
			send(account, SessionClose{s})
			if i%3 == 2 {
				send(account, PushDisable{s, phone})
			}
		}
		pass(3 * time.Second)
	}
	set := func(on bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.on = on
		if !on {
			close(h.free)
			h.free = make(chan struct{})
		}
	}
	for i := range 6 {
		round(i)
	}
	if phase == "before" {
		assert.LessOrEqual(t, h.most, 3, "calls that hang pile up")
		set(false)
	}
	for i := range 2 {
		round(6 + i)
	}
	for _, account := range accounts { // something waits for Close
		s := SessionID{account, "last"}
		send(account, SessionOpen{Session: s, Client: "c"})
		send(account, PushEnable{Session: s, Key: phone})
		send(account, HibernationStart{s, nil})
	}
	pass(2 * time.Minute)
	for _, account := range accounts {
		send(account, StanzaQueued{SessionID{account, "last"}, Stanza{ID: "last", Class: ClassPlain, To: account}})
	}
	synctest.Wait()
	if phase == "during" {
		set(true)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	began := time.Now()
	for range 2 {
		wg.Go(func() { _ = e.Close(ctx) })
	}
	err := e.Close(ctx)
	assert.LessOrEqual(t, time.Since(began), 10*time.Second, "Close outlives its context")
	for _, events := range work {
		close(events)
	}
	synctest.Wait()
	h.mu.Lock()
	h.done = true
	h.mu.Unlock()
	if phase == "after" {
		set(true)
	}
	pass(time.Hour)
	assert.Zero(t, h.calls, "the host is called after Close")
	if phase != "before" {
		set(false)
	}
	wg.Wait()
	pass(time.Hour)

	assert.LessOrEqual(t, svc.slowest, 10*time.Millisecond, "a publish of an account that the fault does not concern")
	var unsent *UnsentError
	if errors.As(err, &unsent) {
		for _, u := range unsent.Unsent {
			for _, number := range u.Events {
				delete(led.owed, debt{u.Account, u.Key, number})
			}
		}
	}
	var after service // what was kept is taken up by the next Engine
	kept := 0
	for k, err := range disk.Kept(t.Context()) {
		require.NoError(t, err)
		kept++
		for d := range led.owed {
			if d.account == k.Account {
				delete(led.owed, d)
			}
		}
	}
	if kept > 0 && hook != "Keep" { // else the Store was not told that what it has kept was sent
		tooOld := 0
		next := newEngine(t, Config{Publisher: &after, Store: disk, Observer: &Observer{Affected: func(_ string, _ time.Time, eff *Effects) { tooOld += len(eff.Drops) }}})
		pass(time.Hour)
		require.NoError(t, next.Close(t.Context()))
		assert.Equal(t, kept, len(after.published())+tooOld)
		for _, err := range disk.Kept(t.Context()) {
			t.Error("it is still kept", err)
		}
	}
	for d := range led.owed {
		assert.True(t, (hook == "Observer" || hook == "Quick") && d.account == victim, "%v was neither published nor dropped", d)
	}
	if hook != "Observer" && hook != "Quick" {
		assert.Empty(t, led.problems)
	}
	for _, account := range accounts[1:] {
		assert.GreaterOrEqual(t, svc.got[account], 8, account)
	}
	if phase == "before" && !(kind == nonsense && hook == "Contact") { // who is no contact is not notified of
		assert.GreaterOrEqual(t, svc.got[victim], 2, "the account does not recover")
	}
	counted := false
	for _, st := range e.Hooks() {
		counted = counted || st.Panics > 0
		assert.Zero(t, st.Hanging, "what has returned is counted as hanging: %s", st.Hook)
	}
	if (kind == panics || kind == exits) && phase == "before" && hook != "Kept" {
		assert.True(t, counted, "the panics are not counted")
	}
	require.NoError(t, e.Close(t.Context()))
}
