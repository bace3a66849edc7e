package jetstream

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster/jetstream/embedded"
	"github.com/xmpp-push/push/cluster/jetstream/internal/partition"
)

// plain returns a connection to a server of NATS that has no JetStream, whose part a test plays.
func plain(t *testing.T) *nats.Conn {
	t.Helper()
	s, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(s.Shutdown)
	require.True(t, s.ReadyForConnections(20*time.Second))
	conn, err := nats.Connect("", nats.InProcessServer(s))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	return conn
}

// A message in the middle of what the log answers may not arrive, where a connection on the way ends and there is another: nothing behind it is taken, so that it is asked for again. What
// the log has accepted would not be decided otherwise.
func TestBatchWithAGap(t *testing.T) {
	t.Parallel()
	conn := plain(t)
	n := &Node{cfg: Config{Conn: conn}}
	type sent struct{ seq, before uint64 } // seq 0 is the end
	for name, c := range map[string]struct {
		sent []sent
		got  []uint64
		says string
	}{
		"whole":               {[]sent{{4, 0}, {7, 4}, {0, 7}}, []uint64{4, 7}, ""},
		"begins before":       {[]sent{{2, 0}, {4, 2}, {0, 4}}, []uint64{4}, ""},
		"without the first":   {[]sent{{7, 4}, {0, 7}}, nil, "message 4 of the stream FAKE has not arrived"},
		"without the second":  {[]sent{{4, 0}, {9, 7}, {0, 9}}, []uint64{4}, "message 7 of the stream FAKE has not arrived"},
		"without the last":    {[]sent{{4, 0}, {0, 7}}, []uint64{4}, "message 7 of the stream FAKE has not arrived"},
		"nothing but the end": {[]sent{{0, 7}}, nil, "message 7 of the stream FAKE has not arrived"},
	} {
		t.Run(name, func(t *testing.T) {
			answers, err := conn.Subscribe("$JS.API.DIRECT.GET.FAKE", func(m *nats.Msg) {
				for _, s := range c.sent {
					a := nats.NewMsg(m.Reply)
					a.Header.Set("Nats-Last-Sequence", strconv.FormatUint(s.before, 10))
					if s.seq == 0 {
						a.Header.Set("Status", "204")
					} else {
						a.Header.Set("Nats-Sequence", strconv.FormatUint(s.seq, 10))
						a.Header.Set("Nats-Time-Stamp", time.Now().UTC().Format(time.RFC3339Nano))
					}
					_ = conn.PublishMsg(a)
				}
			})
			require.NoError(t, err)
			defer answers.Unsubscribe() //nolint:errcheck
			inbox := nats.NewInbox()
			sub, err := conn.SubscribeSync(inbox + ".*")
			require.NoError(t, err)
			defer sub.Unsubscribe() //nolint:errcheck
			var got []uint64
			_, err = n.some(t.Context(), 20*time.Second, 20*time.Second, sub, inbox+".0", "FAKE", "x", 3, func(_ *nats.Msg, seq uint64, _ time.Time) error {
				got = append(got, seq)
				return nil
			})
			assert.Equal(t, c.got, got)
			if c.says == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, c.says)
			}
		})
	}
}

// A new owner reads up to its own Claim, and may have a server beside it whose copy of the log does not come to that for a long time, or a machine may hang whose copy NATS asks as
// well as any. The leader is asked then, also if nobody says that there is something new.
func TestReplicaWithoutTheClaim(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(conn *nats.Conn, m *nats.Msg){
		"it does not have it": func(conn *nats.Conn, m *nats.Msg) {
			a := nats.NewMsg(m.Reply)
			a.Header.Set("Status", "404")
			_ = conn.PublishMsg(a)
		},
		"it does not answer": func(*nats.Conn, *nats.Msg) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := plain(t)
			const claim = 5
			_, err := conn.Subscribe("$JS.API.DIRECT.GET.FAKE", func(m *nats.Msg) { answer(conn, m) })
			require.NoError(t, err)
			asked := make(chan uint64, 100)
			_, err = conn.Subscribe("$JS.API.STREAM.MSG.GET.FAKE", func(m *nats.Msg) {
				var q struct{ Seq uint64 }
				_ = json.Unmarshal(m.Data, &q)
				if q.Seq <= claim {
					_ = m.Respond([]byte(`{"message": {"subject": "push.log.0.r", "seq": 5, "time": "2026-01-01T00:00:00Z"}}`))
				} else {
					_ = m.Respond([]byte(`{"error": {"code": 404, "err_code": 10037}}`))
				}
				select {
				case asked <- q.Seq:
				default:
				}
			})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			n := &Node{cfg: Config{Conn: conn}, names: names{stream: "FAKE", prefix: "push"}, log: slog.New(slog.DiscardHandler), ctx: ctx}
			l := &lane{n: n}
			l.world = &world{lane: l}
			l.owner = partition.NewOwner(&partition.Config{}, partition.Origin{}, l.world)
			done := make(chan error, 1)
			go func() {
				from := uint64(1)
				done <- n.read(ctx, l, &from, claim, 20*time.Second)
			}()
			for _, want := range []uint64{1, claim + 1} {
				select {
				case got := <-asked:
					assert.Equal(t, want, got)
				case <-time.After(15 * time.Second):
					require.FailNow(t, "the leader is not asked", "for what is behind %d", want-1)
				}
			}
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
			n.work.Wait()
		})
	}
}

// What fails again and again is logged some times a minute.
func TestWarnedSeldom(t *testing.T) {
	t.Parallel()
	var s seldom
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	said := func() (n int) {
		for range 100 {
			if !s.tooOften("log not read", now) {
				n++
			}
		}
		return n
	}
	assert.Equal(t, saidOften, said())
	assert.False(t, s.tooOften("snapshot not written", now))
	now = now.Add(time.Minute)
	assert.Equal(t, saidOften, said())
}

// That a copy of the log is missing is said after a minute, and then now and then, with the name of the server.
func TestMissingCopy(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	n := &Node{log: slog.New(slog.NewTextHandler(&out, nil)), ctx: t.Context()}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	during := func(d time.Duration, off bool) (said int) {
		out.Reset()
		for end := now.Add(d); now.Before(end); now = now.Add(time.Second) {
			n.copies(&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{{Name: "s1", Offline: off}, {Name: "s2"}}}, now)
		}
		return strings.Count(out.String(), "server=s1")
	}
	n.copies(nil, now) // one server has none
	assert.Zero(t, during(59*time.Second, true), "one that is restarted")
	assert.Zero(t, during(time.Second, false))
	assert.Zero(t, during(59*time.Second, true))
	assert.Equal(t, 2, during(15*time.Minute, true))
}

// A server of NATS answers for the bucket of registrations that does not have all of it: it is no leader any more, or not yet. The node forgets nothing because of that, and does
// not believe that it knows all: what it hears of an account that it does not know goes into the log meanwhile. Only where it goes on is it another store.
func TestLeaderThatIsBehind(t *testing.T) {
	t.Parallel()
	srv, err := embedded.Start(embedded.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// With such a lease the test is the only one that reads.
	n, err := Join(ctx, Config{Conn: srv.Conn(), Node: "a", Partitions: 4, Lease: 24 * time.Hour, Push: push.Config{Host: "example.com", Publisher: asked{}}})
	require.NoError(t, err)
	defer func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = n.Close(over)
	}()
	const juliet = "juliet@example.com"
	_, err = n.regs.Put(ctx, regKey(juliet), partition.Encode(partition.First, registered{Account: juliet, Registrations: []push.Registration{{Account: juliet, Key: push.Key{Service: "push.example.net"}}}}))
	require.NoError(t, err)
	require.NoError(t, n.catchUp(ctx))
	require.True(t, n.registered(juliet))
	end := n.caughtTo
	for range 5 {
		n.caughtTo = end + 10
		require.ErrorIs(t, n.catchUp(ctx), errBehind)
		require.True(t, n.registered(juliet))
	}
	n.caughtTo = end
	require.NoError(t, n.catchUp(ctx))
	assert.True(t, n.backSince.IsZero())

	n.caughtTo = end + 10
	require.ErrorIs(t, n.catchUp(ctx), errBehind, "the time begins anew")
	n.lane(juliet).mu.Lock()
	n.lane(juliet).local.Register(partition.Hash("romeo@example.com"), true, end+9)
	n.lane(juliet).mu.Unlock()
	n.backSince = n.backSince.Add(-otherStoreAfter)
	require.NoError(t, n.catchUp(ctx))
	assert.Equal(t, end, n.caughtTo)
	assert.True(t, n.registered(juliet), "it is read again")
	assert.Equal(t, 1, n.Status().Accounts, "the other is not in this store")

	// The end of the bucket cannot be had.
	rev, err := n.regs.Put(ctx, regKey("nurse@example.com"), []byte("x"))
	require.NoError(t, err)
	regs, err := n.js.Stream(ctx, "KV_"+n.names.regs)
	require.NoError(t, err)
	require.NoError(t, regs.Purge(ctx, jetstream.WithPurgeSubject("$KV."+n.names.regs+"."+regKey("nurse@example.com"))))
	for range 3 {
		require.ErrorIs(t, n.catchUp(ctx), errMissing)
		assert.Equal(t, end, n.caughtTo)
	}
	n.missingSince = n.missingSince.Add(-otherStoreAfter)
	require.NoError(t, n.catchUp(ctx), "it was deleted by hand")
	assert.Equal(t, rev, n.caughtTo)
	require.NoError(t, n.catchUp(ctx))
}
