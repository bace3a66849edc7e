package push_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	. "github.com/xmpp-push/push"
	"github.com/xmpp-push/push/wishes"
)

// veto is a Vetoer of functions; nil says yes.
type veto struct {
	stanza  func(r *Registration, st Stanza) string
	publish func(n *Notification) string
}

func (v veto) VetoStanza(r *Registration, st Stanza) string {
	if v.stanza == nil {
		return ""
	}
	return v.stanza(r, st)
}

func (v veto) VetoPublish(_ context.Context, n *Notification) string {
	if v.publish == nil {
		return ""
	}
	return v.publish(n)
}

func TestVeto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		var drops []Drop
		var replies []Reply
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &svc, Store: memory, Veto: veto{
			stanza: func(r *Registration, st Stanza) string {
				assert.Equal(t, phone, r.Key)
				if st.From == "tybalt@example.net" {
					return "muted contact"
				}
				return ""
			},
			publish: func(n *Notification) string {
				if n.Count == 1 {
					return "quiet hours"
				}
				n.Body, n.Unread = "changed", 17
				return ""
			},
		}, Observer: &Observer{
			Affected: func(_ string, _ time.Time, eff *Effects) { drops = append(drops, eff.Drops...) },
			Replied: func(_ time.Time, _ *Notification, r Reply, res Result, _ time.Duration) {
				replies = append(replies, r)
			},
		}})
		handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
		muted := message("m1")
		muted.From = "tybalt@example.net"
		d := handle(t, e, Offline{juliet, muted})
		assert.Equal(t, []Verdict{{Key: phone, Rule: RuleVeto, Reason: ReasonVeto, Detail: "muted contact", Class: ClassImportant, Stanzas: d.Verdicts[0].Stanzas}}, d.Verdicts)
		d = handle(t, e, HibernationStart{phoneSession, []Stanza{muted, message("m2")}})
		assert.Equal(t, []string{"m2"}, d.Verdicts[0].Stanzas, "the others of a queue are not vetoed")
		synctest.Wait()
		assert.Empty(t, svc.published())
		assert.Equal(t, []Reply{{Vetoed: "quiet hours"}}, replies)
		require.Len(t, drops, 1)
		assert.Equal(t, Drop{Key: phone, Class: ClassImportant, Count: 1, Events: drops[0].Events, Reason: ReasonVeto, Detail: "quiet hours"}, drops[0])
		assert.Equal(t, Health{}, health(t, memory), "and it says nothing about the registration")

		handle(t, e, StanzaQueued{phoneSession, message("m3")}, StanzaQueued{phoneSession, message("m4")})
		require.NoError(t, e.Close(t.Context()))
		require.Len(t, svc.published(), 1)
		assert.Equal(t, "changed", svc.published()[0].Body)
		assert.Equal(t, 17, svc.published()[0].Unread)
	})
}

type unread func(account string) (int, error)

func (u unread) Unread(_ context.Context, account string) (int, error) { return u(account) }

func TestUnreadCounter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		n, err, slow := 42, error(nil), false
		e := newEngine(t, Config{Publisher: &svc, Unread: unread(func(account string) (int, error) {
			assert.Equal(t, juliet, account)
			if slow {
				time.Sleep(5*time.Second + 10*time.Millisecond) // as one does that returns because its context has ended
			}
			return n, err
		})})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		send := func(id string) int {
			handle(t, e, Offline{juliet, message(id)})
			synctest.Wait()
			got := svc.published()
			return got[len(got)-1].Unread
		}
		assert.Equal(t, 42, send("m1"))
		n = 0
		assert.Equal(t, 0, send("m2"), "the host's word is taken")
		n = -5
		assert.Equal(t, 0, send("m3"))
		n, err = 7, errors.New("database is away")
		assert.Equal(t, 4, send("m4"), "the Engine's own number")
		slow = true
		handle(t, e, Offline{juliet, message("m5")})
		pass(6 * time.Second)
		got := svc.published()
		require.Len(t, got, 5)
		assert.Equal(t, 5, got[4].Unread, "what it says when its time is over is not used")
		require.NoError(t, e.Close(t.Context()))
	})
}

type liveness func(account string) ([]Key, error)

func (l liveness) Elsewhere(_ context.Context, account string) ([]Key, error) { return l(account) }

func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		asked := 0
		var err error
		e := newEngine(t, Config{Publisher: &svc, Veto: veto{}, Liveness: liveness(func(account string) ([]Key, error) {
			asked++
			return []Key{phone, node("nobody's")}, err
		})})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, PushEnable{Session: SessionID{Account: juliet}, Key: node("tablet")})
		d := handle(t, e, ArchiveAdded{juliet, message("m1")})
		require.Len(t, d.Verdicts, 2)
		assert.Equal(t, ReasonLive, d.Verdicts[0].Reason)
		assert.True(t, d.Verdicts[1].Notify)
		assert.Equal(t, 1, asked)
		d = handle(t, e, Offline{juliet, message("m1")})
		assert.True(t, d.Verdicts[0].Notify, "only R6 asks whether there is a session")
		assert.Equal(t, 1, asked)
		err = errors.New("cluster is split")
		d = handle(t, e, ArchiveAdded{juliet, message("m2")})
		assert.True(t, d.Verdicts[1].Notify, "the decision is made all the same")
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestAbilities gives a host each of the optional abilities alone: those that it has not got are not called, and what the one it has cannot say is in the log, once for each time.
func TestAbilities(t *testing.T) {
	down := errors.New("database is away")
	broken := &directory{chat: func(string) (ChatInfo, error) { return ChatInfo{}, down }, contact: func(string) (bool, error) { return false, down }}
	for name, c := range map[string]struct {
		cfg  Config
		text string
	}{
		"Unread":        {Config{Unread: unread(func(string) (int, error) { return 0, down })}, "push: unread count not known"},
		"Subscriptions": {Config{Subscriptions: subscriptions(func(string) (int, error) { return 0, down })}, "push: subscription requests not known"},
		"Liveness":      {Config{Liveness: liveness(func(string) ([]Key, error) { return nil, down })}, "push: sessions elsewhere not known"},
		"Chats":         {Config{Chats: broken}, "push: not known what the user set for a chat"},
		"Contacts":      {Config{Contacts: broken}, "push: not known whether it is a contact"},
		"Veto":          {Config{Veto: veto{}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				var log bytes.Buffer
				c.cfg.Publisher, c.cfg.Logger = &svc, slog.New(slog.NewTextHandler(&log, nil))
				e := newEngine(t, c.cfg)
				handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone, Wishes: &wishes.Wishes{IgnoreUnknown: true}})
				d := handle(t, e, ArchiveAdded{juliet, message("m1")})
				assert.True(t, d.Notifies())
				require.NoError(t, e.Close(t.Context()))
				assert.Len(t, svc.published(), 1)
				assert.Empty(t, e.Hooks())
				if c.text == "" {
					assert.NotContains(t, log.String(), "level=WARN")
					return
				}
				assert.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
				assert.Contains(t, log.String(), fmt.Sprintf("level=WARN msg=%q account=%s error=%q", c.text, juliet, down))
			})
		})
	}
}

// TestContactsAlone asks a host that knows contacts, and nothing of chats, about people and not about rooms.
func TestContactsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &directory{contact: func(string) (bool, error) { return false, nil }}
		e := newEngine(t, Config{Publisher: &service{}, Contacts: host})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone, Wishes: &wishes.Wishes{IgnoreUnknown: true}})
		d := handle(t, e, Groupchat{juliet, room("r1", "hi")})
		assert.True(t, d.Answers.None())
		assert.Zero(t, host.contacts)
		d = handle(t, e, ArchiveAdded{juliet, message("m1")})
		assert.Equal(t, ReasonNotContact, d.Verdicts[0].Reason)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestPanicsAreLoggedOnce has a function of the host's panic again and again: the first time is in the log, with where it was; all are counted.
func TestPanicsAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		var log bytes.Buffer
		e := newEngine(t, Config{Publisher: &svc, Logger: slog.New(slog.NewTextHandler(&log, nil)), Unread: unread(func(string) (int, error) { panic("at the disco") })})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		for i := range 3 {
			handle(t, e, Offline{juliet, message(fmt.Sprint(i))})
			synctest.Wait()
		}
		require.NoError(t, e.Close(t.Context()))
		assert.Equal(t, []HookStatus{{Hook: "UnreadCounter.Unread", Panics: 3}}, e.Hooks())
		assert.Len(t, svc.published(), 3)
		assert.Equal(t, 1, strings.Count(log.String(), "level=ERROR"))
		for _, text := range []string{`hook=UnreadCounter.Unread panic="at the disco"`, "engine_hooks_test.go"} {
			assert.Contains(t, log.String(), text)
		}
	})
}

// TestHangingForOneAccount has a hook not return for one account, whose events go on without it: it is asked for all others.
func TestHangingForOneAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		free := make(chan struct{})
		e := newEngine(t, Config{Publisher: &svc, Unread: unread(func(account string) (int, error) {
			if account == juliet {
				<-free
			}
			return 7, nil
		})})
		unread := func(account, id string) int {
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Offline{account, message(id)})
			pass(10 * time.Second)
			got := svc.published()
			require.Equal(t, account, got[len(got)-1].Account)
			return got[len(got)-1].Unread
		}
		assert.Equal(t, 1, unread(juliet, "m1"))
		assert.Equal(t, 7, unread("nurse@example.com", "m1"))
		assert.Equal(t, 2, unread(juliet, "m2"))
		assert.Equal(t, []HookStatus{{Hook: "UnreadCounter.Unread", Overruns: 1, Skipped: 1, Hanging: 1}}, e.Hooks())
		close(free)
		synctest.Wait()
		assert.Equal(t, 7, unread(juliet, "m3"))
		assert.Equal(t, []HookStatus{{Hook: "UnreadCounter.Unread", Overruns: 1, Skipped: 1}}, e.Hooks())
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestHangingForMany has a hook not return for as many accounts as it may hang for: it is asked for nobody any more until it returns.
func TestHangingForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		free := make(chan struct{})
		e := newEngine(t, Config{Publisher: &svc, Unread: unread(func(account string) (int, error) {
			if account < "user256" {
				<-free
			}
			return 7, nil
		})})
		send := func(i int) int {
			account := fmt.Sprintf("user%03d@example.com", i)
			handle(t, e, PushEnable{Session: SessionID{Account: account}, Key: phone}, Offline{account, message("m1")})
			pass(6 * time.Second)
			got := svc.published()
			return got[len(got)-1].Unread
		}
		for i := range 255 {
			send(i)
		}
		assert.Equal(t, 7, send(256))
		assert.Equal(t, 1, send(255))
		assert.Equal(t, 1, send(257))
		assert.Equal(t, []HookStatus{{Hook: "UnreadCounter.Unread", Overruns: 256, Skipped: 1, Hanging: 256}}, e.Hooks())
		close(free)
		synctest.Wait()
		assert.Equal(t, 7, send(258))
		require.NoError(t, e.Close(t.Context()))
	})
}

type subscriptions func(account string) (int, error)

func (s subscriptions) PendingSubscriptions(_ context.Context, account string) (int, error) {
	return s(account)
}

// TestClientID is R14: a client that does not enable again is bound by its ID, also after a restart.
func TestClientID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var svc service
		memory := NewMemoryStore()
		e := newEngine(t, Config{Publisher: &svc, Store: memory})
		handle(t, e, SessionOpen{Session: phoneSession, Client: "c1"}, PushEnable{Session: phoneSession, Key: phone}, SessionClose{phoneSession})
		require.NoError(t, e.Close(t.Context()))
		assert.Equal(t, "c1", stored(t, memory, juliet)[0].Client)

		e = newEngine(t, Config{Publisher: &svc, Store: memory})
		other := SessionID{juliet, "s2"}
		d := handle(t, e, SessionOpen{Session: other, Client: "c2"})
		assert.Empty(t, d.Changes)
		d = handle(t, e, ArchiveAdded{juliet, message("m1")})
		assert.True(t, d.Notifies(), "another client's session")
		again := SessionID{juliet, "s3"}
		d = handle(t, e, SessionOpen{Session: again, Client: "c1"})
		assert.Equal(t, []Change{{Key: phone, Kind: ChangeBound, Session: "s3", Rule: RuleClient, Reason: ReasonClientID}}, d.Changes)
		d = handle(t, e, ArchiveAdded{juliet, message("m2")})
		assert.Equal(t, ReasonLive, d.Verdicts[0].Reason)
		d = handle(t, e, HibernationStart{again, []Stanza{message("m2")}})
		assert.True(t, d.Notifies())
		require.NoError(t, e.Close(t.Context()))
	})
}

type resumption func(session SessionID, timeout time.Duration, reason Reason)

func (r resumption) ResumeTimeout(session SessionID, timeout time.Duration, reason Reason) {
	r(session, timeout, reason)
}

// TestResumption checks what advice reaches the host, and that it is taken back whenever its cause is gone.
func TestResumption(t *testing.T) {
	type advice struct {
		after   time.Duration
		timeout time.Duration
		reason  Reason
	}
	asleep := advice{0, 72 * time.Hour, ReasonAsleep}
	plain := Stanza{ID: "plain", Class: ClassPlain}
	for name, c := range map[string]struct {
		policy Policy
		play   func(t *testing.T, e *Engine, m Store)
		want   []advice
	}{
		"no news": {play: func(t *testing.T, e *Engine, _ Store) { pass(time.Hour) }, want: []advice{asleep}},
		"a plain stanza": {play: func(t *testing.T, e *Engine, _ Store) {
			handle(t, e, StanzaQueued{phoneSession, plain})
			pass(time.Hour)
		}, want: []advice{asleep}},
		"a message": {play: func(t *testing.T, e *Engine, _ Store) {
			handle(t, e, StanzaQueued{phoneSession, message("m1")})
			pass(time.Hour)
		}, want: []advice{asleep, {time.Second, 0, ReasonWoken}}},
		"resumed":         {play: func(t *testing.T, e *Engine, _ Store) { handle(t, e, HibernationEnd{phoneSession}) }, want: []advice{asleep}},
		"disabled":        {play: func(t *testing.T, e *Engine, _ Store) { handle(t, e, PushDisable{phoneSession, phone}) }, want: []advice{asleep, {0, 0, ReasonDisabledByUser}}},
		"revoked":         {play: func(t *testing.T, e *Engine, _ Store) { handle(t, e, AffiliationNone{juliet, phone}) }, want: []advice{asleep, {0, 0, ReasonRevoked}}},
		"account removed": {play: func(t *testing.T, e *Engine, _ Store) { handle(t, e, AccountRemoved{juliet}) }, want: []advice{asleep, {0, 0, ReasonAccount}}},
		"removed elsewhere": {play: func(t *testing.T, e *Engine, m Store) {
			remove(t, m, phone)
			require.NoError(t, e.Refresh(t.Context(), juliet))
		}, want: []advice{asleep, {0, 0, ReasonRemoved}}},
		"disabled elsewhere": {play: func(t *testing.T, e *Engine, m Store) {
			require.NoError(t, m.Update(t.Context(), juliet, phone, Update{Disabled: time.Now()}))
			require.NoError(t, e.Refresh(t.Context(), juliet))
		}, want: []advice{asleep, {0, 0, ReasonErrors}}},
		"evicted": {policy: Policy{MaxRegistrations: 1}, play: func(t *testing.T, e *Engine, _ Store) {
			pass(time.Second)
			handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: node("new")})
		}, want: []advice{asleep, {time.Second, 0, ReasonLimit}}},
		"fatal error": {play: func(t *testing.T, e *Engine, _ Store) {
			handle(t, e, Ping{Account: juliet})
			pass(time.Second)
		}, want: []advice{asleep, {0, 0, ReasonErrors}}},
		"off": {policy: Policy{MaxResume: -1}, play: func(t *testing.T, e *Engine, _ Store) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []advice
				var began time.Time
				memory := NewMemoryStore()
				svc := service{answer: func(n *Notification) error {
					if n.Count == 0 {
						return &ReplyError{"cancel", "gone"}
					}
					return nil
				}}
				e := newEngine(t, Config{Publisher: &svc, Store: memory, Policy: c.policy, Resumption: resumption(func(session SessionID, timeout time.Duration, reason Reason) {
					assert.Equal(t, phoneSession, session)
					got = append(got, advice{time.Since(began), timeout, reason})
				})})
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone})
				began = time.Now()
				handle(t, e, HibernationStart{phoneSession, nil})
				c.play(t, e, memory)
				assert.Equal(t, c.want, got)
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestWakeBefore sends one wake-up before the resumption time is over, to a session that has slept all the time, and none to others.
func TestWakeBefore(t *testing.T) {
	for name, c := range map[string]struct {
		ev   Event
		want []time.Duration
	}{
		"asleep":  {nil, []time.Duration{72*time.Hour - 2*time.Minute}},
		"woken":   {StanzaQueued{phoneSession, message("m1")}, []time.Duration{time.Hour + time.Second}},
		"resumed": {HibernationEnd{phoneSession}, nil},
		"closed":  {SessionClose{phoneSession}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var svc service
				var at []time.Duration
				began := time.Now()
				svc.answer = func(n *Notification) error { at = append(at, time.Since(began)); return nil }
				e := newEngine(t, Config{Publisher: &svc, Policy: Policy{WakeBefore: 2 * time.Minute}})
				handle(t, e, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}, HibernationStart{phoneSession, nil})
				pass(time.Hour)
				if c.ev != nil {
					handle(t, e, c.ev)
				}
				pass(100 * time.Hour)
				assert.Equal(t, c.want, at)
				if name == "asleep" {
					n := svc.published()[0]
					assert.Equal(t, ClassPlain, n.Class)
					assert.Empty(t, n.Body)
					assert.Zero(t, n.Count)
				}
				require.NoError(t, e.Close(t.Context()))
			})
		})
	}
}

// TestReentrancy calls the Engine from its Publisher, for the same account.
func TestReentrancy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e *Engine
		calls := 0
		e = newEngine(t, Config{Publisher: PublisherFunc(func(ctx context.Context, n *Notification) error {
			if calls++; calls > 5 {
				return nil
			}
			for _, ev := range []Event{Offline{juliet, message(fmt.Sprint("m", calls))}, SessionOpen{Session: phoneSession}, PushEnable{Session: phoneSession, Key: phone}} {
				_, err := e.Handle(ctx, ev)
				assert.NoError(t, err)
			}
			st, err := e.Inspect(ctx, juliet)
			assert.NoError(t, err)
			assert.True(t, st.Registrations[0].InFlight)
			assert.NoError(t, e.Refresh(ctx, juliet))
			assert.Equal(t, 1, e.Services()[0].InFlight)
			return nil
		})})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Ping{Account: juliet})
		synctest.Wait()
		require.NoError(t, e.Close(t.Context()))
		assert.Equal(t, 6, calls)
	})
}

// A session of before a restart goes on in an Engine that has not met its account yet.
func TestRestoredSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewMemoryStore()
		_, err := memory.Enable(t.Context(), Registration{Account: juliet, Key: phone}, 5)
		require.NoError(t, err)
		e := newEngine(t, Config{Publisher: &service{}, Store: memory})
		handle(t, e, SessionRestored{Session: phoneSession, Bound: phone, IsBound: true, Hibernated: true})
		d := handle(t, e, StanzaQueued{phoneSession, message("m1")})
		assert.True(t, d.Notifies())
		_, err = e.Handle(t.Context(), SessionRestored{Session: SessionID{Account: juliet}})
		require.ErrorIs(t, err, ErrEvent)
		require.NoError(t, e.Close(t.Context()))
	})
}

// lateVeto says no, after a while.
type lateVeto time.Duration

func (v lateVeto) VetoStanza(*Registration, Stanza) string {
	time.Sleep(time.Duration(v))
	return "muted"
}

func (v lateVeto) VetoPublish(context.Context, *Notification) string { return "" }

// TestVetoWithoutContext has an event whose context has ended: who is muted is so all the same, and the host is not taken for one that hangs.
func TestVetoWithoutContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{}
		e := newEngine(t, Config{Publisher: svc, Veto: lateVeto(time.Second)})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		d, err := e.Handle(ctx, Offline{juliet, message("m1")})
		require.NoError(t, err)
		assert.Equal(t, ReasonVeto, d.Verdicts[0].Reason)
		assert.Empty(t, e.Hooks())
		require.NoError(t, e.Close(t.Context()))
		assert.Empty(t, svc.published())
	})
}

// TestNilContextInTurn gives no context while another event has the account's turn: the account goes on.
func TestNilContextInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, Config{Publisher: &service{}, Veto: lateVeto(time.Second)})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone})
		go func() { _, _ = e.Handle(context.Background(), Offline{juliet, message("m1")}) }()
		synctest.Wait()
		var none context.Context
		began := time.Now()
		d, err := e.Handle(none, Offline{juliet, message("m2")})
		require.NoError(t, err)
		assert.Equal(t, ReasonVeto, d.Verdicts[0].Reason)
		assert.Equal(t, 2*time.Second, time.Since(began), "after the one that has the turn")
		go func() { _, _ = e.Handle(context.Background(), Offline{juliet, message("m1")}) }()
		synctest.Wait()
		st, err := e.Inspect(none, juliet)
		require.NoError(t, err)
		assert.Len(t, st.Registrations, 1)
		d = handle(t, e, Offline{juliet, message("m3")})
		assert.Equal(t, ReasonVeto, d.Verdicts[0].Reason)
		require.NoError(t, e.Close(t.Context()))
	})
}

// TestServicesWhileAsking has the host take long over what it is asked before a publish: the registration is seen to wait, and its service is not forgotten.
func TestServicesWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{}
		e := newEngine(t, Config{Publisher: svc, Policy: Policy{Expire: time.Hour}, Unread: unread(func(string) (int, error) { time.Sleep(time.Hour); return 1, nil }), HookTimeout: 30 * time.Minute})
		handle(t, e, PushEnable{Session: SessionID{Account: juliet}, Key: phone}, Offline{juliet, message("m1")})
		for _, after := range []time.Duration{time.Millisecond, time.Second, 25 * time.Minute} {
			pass(after)
			assert.Equal(t, []ServiceStatus{{Service: phone.Service, Waiting: 1}}, e.Services(), after)
		}
		pass(5 * time.Minute)
		assert.Len(t, svc.published(), 1)
		assert.Equal(t, []ServiceStatus{{Service: phone.Service}}, e.Services())
		require.NoError(t, e.Close(t.Context()))
		pass(time.Hour)
	})
}
