package trace_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
	"github.com/xmpp-push/push/wishes"
)

// seeds is how many random loads a test takes: few, or with PUSH_TEST_FULL=1 all.
func seeds(few, all uint64) uint64 {
	if os.Getenv("PUSH_TEST_FULL") == "1" {
		return all
	}
	return few
}

// tape holds the files of a recording in memory.
type tape struct {
	mu    sync.Mutex
	files []*bytes.Buffer
	fail  error
}

type tapeFile struct {
	t *tape
	b *bytes.Buffer
}

func (f tapeFile) Write(p []byte) (int, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if f.t.fail != nil {
		return 0, f.t.fail
	}
	return f.b.Write(p)
}

func (tapeFile) Close() error { return nil }

func (t *tape) create(string) (io.WriteCloser, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files = append(t.files, new(bytes.Buffer))
	return tapeFile{t, t.files[len(t.files)-1]}, nil
}

func (t *tape) joined() io.Reader {
	var rs []io.Reader
	for _, f := range t.files {
		rs = append(rs, bytes.NewReader(f.Bytes()))
	}
	return trace.Join(rs...)
}

func (t *tape) String() string {
	b, _ := io.ReadAll(t.joined())
	return string(b)
}

const (
	theBody   = "the text that nobody may read"
	theSecret = "the secret of the push service"
)

// step is an event at a time from the start.
type step struct {
	at time.Duration
	ev push.Event
}

// randomLoad makes a load of n events: few accounts, sessions and stanzas, so that they meet.
func randomLoad(seed uint64, n int) []step {
	rnd := rand.New(rand.NewPCG(seed, 0))
	accounts := []string{"juliet@example.com", "romeo@example.com", "nurse@example.com", "stranger@example.com"}
	services := []string{"push.example.net", "push.example.org"}
	var steps []step
	var at time.Duration
	opened, made := 0, 0
	live := map[string][]string{}
	for range n {
		if rnd.IntN(4) > 0 {
			at += time.Duration(rnd.IntN(40)) * 50 * time.Millisecond
		}
		a := accounts[rnd.IntN(len(accounts))]
		id := "unknown"
		if l := live[a]; len(l) > 0 && rnd.IntN(20) > 0 {
			id = l[rnd.IntN(len(l))]
		}
		s := push.SessionID{Account: a, ID: id}
		k := push.Key{Service: services[rnd.IntN(2)], Node: fmt.Sprint("n", rnd.IntN(3))}
		stanza := func() push.Stanza {
			if made == 0 || rnd.IntN(3) > 0 {
				made++
			}
			st := push.Stanza{
				ID: fmt.Sprint("m", max(1, made-rnd.IntN(4))), From: "friend@example.net/x", To: a,
				Class: push.Class(rnd.IntN(3)), Kind: push.Kind(rnd.IntN(4)), Held: rnd.IntN(10) == 0,
			}
			switch rnd.IntN(4) {
			case 0:
				st.Body = theBody
			case 1:
				st.From, st.To = a+"/phone", "friend@example.net"
			case 2:
				st.To = ""
			}
			if rnd.IntN(20) == 0 {
				st.ID = ""
			}
			return st
		}
		queue := func() (q []push.Stanza) {
			for range rnd.IntN(4) {
				q = append(q, stanza())
			}
			return q
		}
		var ev push.Event
		switch rnd.IntN(22) {
		case 0, 1:
			opened++
			s.ID = fmt.Sprint("s", opened)
			live[a] = append(live[a], s.ID)
			client := ""
			if rnd.IntN(2) == 0 {
				client = fmt.Sprint("client", rnd.IntN(3))
			}
			ev = push.SessionOpen{Session: s, JID: a + "/phone", Client: client}
		case 2:
			ev = push.SessionClose{Session: s}
			for i, o := range live[a] {
				if o == id {
					live[a] = append(live[a][:i:i], live[a][i+1:]...)
					break
				}
			}
		case 3, 4, 5:
			if rnd.IntN(10) == 0 {
				s.ID = ""
			}
			enable := push.PushEnable{Session: s, Key: k, Options: []push.Field{{Var: "secret", Values: []string{theSecret}}}}
			switch rnd.IntN(4) {
			case 0:
				enable.Node, enable.Options = push.Push2Node, nil
				enable.Wishes = &wishes.Wishes{Push2: &wishes.Push2{Client: wishes.NewSecret(theSecret), Matches: []wishes.Match{{Profile: wishes.MatchProfile(rnd.IntN(4))}}}}
			case 1:
				enable.Wishes = &wishes.Wishes{Encryption: &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret((theSecret + theSecret + theSecret)[:16])}, Priority: true}
			}
			ev = enable
		case 6:
			switch rnd.IntN(3) {
			case 0:
				k.Node = ""
			case 1:
				k = push.Key{Node: push.Push2Node}
			}
			ev = push.PushDisable{Session: s, Key: k}
		case 7, 8:
			ev = push.AckDelayed{Session: s, Stanzas: queue()}
		case 9, 10:
			ev = push.HibernationStart{Session: s, Stanzas: queue()}
		case 11, 12:
			ev = push.StanzaQueued{Session: s, Stanza: stanza()}
		case 13, 14:
			ev = push.HibernationEnd{Session: s}
		case 15, 16:
			ev = push.ArchiveAdded{Account: a, Stanza: stanza()}
		case 17:
			ev = push.Offline{Account: a, Stanza: stanza()}
		case 18:
			if rnd.IntN(2) == 0 {
				ev = push.Groupchat{Account: a, Stanza: stanza()}
			} else {
				ev = push.AffiliationNone{Account: a, Key: k}
			}
		case 19:
			switch rnd.IntN(6) {
			case 0:
				ev, live[a] = push.AccountRemoved{Account: a}, nil
			case 1, 2:
				ev = push.Ping{Account: a, Registrations: []push.Key{k}}
			default:
				ev = push.Ping{Account: a}
			}
		case 20:
			acknowledged := push.Acknowledged{Session: s}
			for _, st := range queue() {
				acknowledged.IDs = append(acknowledged.IDs, st.ID)
			}
			ev = acknowledged
		case 21:
			opened++
			s.ID = fmt.Sprint("s", opened)
			live[a] = append(live[a], s.ID)
			ev = push.SessionRestored{
				Session: s, JID: a + "/phone", Client: fmt.Sprint("client", rnd.IntN(3)), Bound: k, IsBound: rnd.IntN(3) > 0,
				Superseded: rnd.IntN(4) == 0, Hibernated: rnd.IntN(2) == 0, Extended: rnd.IntN(2) == 0,
			}
		}
		steps = append(steps, step{at, ev})
	}
	return steps
}

// flaky answers each registration's publishes one after another in its own way: well, badly, late, and not at all.
type flaky struct {
	mu    sync.Mutex
	count map[string]int
	well  bool
}

func (f *flaky) Publish(ctx context.Context, n *push.Notification) error {
	f.mu.Lock()
	id := n.Account + n.Service + n.Node
	f.count[id]++
	h := fnv.New64a()
	fmt.Fprint(h, id, f.count[id])
	f.mu.Unlock()
	x := h.Sum64() >> 7
	if f.well {
		time.Sleep(time.Millisecond)
		return nil
	}
	time.Sleep(time.Duration(1+x%900) * time.Millisecond)
	switch x / 1000 % 12 {
	case 0:
		return &push.ReplyError{Type: "wait", Condition: "resource-constraint"}
	case 1:
		return &push.ReplyError{Type: "cancel", Condition: "item-not-found"}
	case 2, 3:
		return &push.ReplyError{Type: "modify", Condition: "bad-request"}
	case 4:
		return &push.ReplyError{Type: "auth", Condition: "forbidden"}
	case 5:
		<-ctx.Done()
		return ctx.Err()
	case 6:
		return errors.New("connection refused")
	case 7:
		return &push.ReplyError{Type: "modify", Condition: "not-acceptable"}
	}
	return nil
}

// run drives an engine with a load and returns what was decided. It has to be called in a bubble.
func run(t *testing.T, steps []step, well bool, cfg trace.RecorderConfig) (decided []string, stats trace.RecorderStats) {
	policy := push.Policy{MinInterval: 2 * time.Second, RetryMin: time.Second}
	rec, err := trace.NewRecorder(cfg)
	require.NoError(t, err)
	store := push.NewMemoryStore()
	for _, r := range []push.Registration{
		{Account: "juliet@example.com", Key: push.Key{Service: "push.example.net", Node: "n0"}, Client: "client0"},
		{Account: "juliet@example.com", Key: push.Key{Service: "push.example.net", Node: "n2"}, Health: push.Health{Errors: 2}},
		{
			Account: "nurse@example.com", Key: push.Key{Service: "push.example.org", Node: "n1"},
			Health: push.Health{Disabled: time.Now(), Cause: "gone"},
		},
	} {
		r.Enabled = time.Now().Add(-time.Hour)
		_, err := store.Enable(t.Context(), r, 5)
		require.NoError(t, err)
	}
	watch := &push.Observer{Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
		if d.Reason != push.ReasonNone && mayNotify(ev.Name()) {
			decided = append(decided, fmt.Sprint(ev.Name(), " ", d.Account, " false ", d.Reason))
		}
		for _, v := range d.Verdicts {
			decided = append(decided, fmt.Sprint(ev.Name(), " ", d.Account, " ", v.Service, " ", v.Node, " ", v.Notify, " ", v.Class, " ", v.Rule, " ", v.Reason, " ", v.Stanzas))
		}
	}}
	e, err := push.New(push.Config{
		Host: "example.com", Store: store, Policy: policy, Publisher: &flaky{count: map[string]int{}, well: well},
		Observer: push.Observers(rec.Observer(), watch),
	})
	require.NoError(t, err)
	start := time.Now()
	for i, s := range steps {
		// The few nanoseconds keep an event from coming at the very time at which something of an earlier one is due.
		time.Sleep(time.Until(start.Add(s.at + time.Duration(i))))
		synctest.Wait()
		_, err := e.Handle(t.Context(), s.ev)
		require.NoError(t, err)
		synctest.Wait()
	}
	time.Sleep(time.Hour)
	require.NoError(t, e.Close(t.Context()))
	require.NoError(t, rec.Close())
	return decided, rec.Stats()
}

// mayNotify leaves out the events for which a reason without a verdict says only that nothing was there to be changed.
func mayNotify(name string) bool {
	return name != "push-disable" && name != "affiliation-none" && name != "account-removed" && name != "session-close"
}

func replayed(t *testing.T, r io.Reader) (decided []string) {
	t.Helper()
	replay := trace.NewReplay(func(l *trace.Line) {
		switch {
		case l.Kind != "decision":
		case l.Node != nil:
			decided = append(decided, fmt.Sprint(l.Type, " ", l.User, " ", l.Service, " ", *l.Node, " ", *l.Notify, " ", l.Class, " ", l.Rule, " ", l.Reason, " ", l.Stanzas))
		case mayNotify(l.Type):
			decided = append(decided, fmt.Sprint(l.Type, " ", l.User, " false ", l.Reason))
		}
	})
	require.ErrorIs(t, replay.Run(trace.NewReader(r)), io.EOF)
	replay.Finish()
	return decided
}

// A recording of a live engine replays to the same decisions, and recording its events again gives the same recording.
func TestRecorderReplaysTheSame(t *testing.T) {
	for seed := range seeds(8, 25) {
		var first tape
		steps := randomLoad(seed, 300)
		synctest.Test(t, func(t *testing.T) {
			decided, stats := run(t, steps, false, trace.RecorderConfig{Create: first.create})
			assert.Zero(t, stats.Dropped)
			sameLines(t, decided, replayed(t, first.joined()), seed)
		})
		require.NotContains(t, first.String(), theBody)
		require.NotContains(t, first.String(), theSecret)

		// What a Reader reads has no text any more, so it takes a second round until nothing changes.
		var second, third tape
		record(t, &first, &second)
		record(t, &second, &third)
		sameLines(t, lines(&second), lines(&third), seed)
		sameLines(t, replayed(t, first.joined()), replayed(t, third.joined()), seed)
	}
}

// record lets a live engine see the events of a recording, and records it.
func record(t *testing.T, from, to *tape) {
	steps := readSteps(t, from.joined())
	synctest.Test(t, func(t *testing.T) {
		run(t, steps, false, trace.RecorderConfig{Create: to.create})
	})
}

// masked is a stand-in for a secret, which is another one in each recording.
var masked = regexp.MustCompile(`~[0-9a-f]{16}`)

// lines returns the lines of a recording. Replies that came at the same time are in no order of their own, so they are sorted.
func lines(t *tape) []string {
	all := strings.Split(masked.ReplaceAllString(t.String(), "~"), "\n")
	time := func(l string) string {
		at, what, _ := strings.Cut(l, `,"type":`)
		if !strings.HasPrefix(what, `"publish`) {
			return ""
		}
		return at
	}
	for i := 0; i < len(all); i++ {
		n := 1
		for time(all[i]) != "" && i+n < len(all) && time(all[i+n]) == time(all[i]) {
			n++
		}
		slices.Sort(all[i : i+n])
		i += n - 1
	}
	return all
}

// sameLines is require.Equal that shows the first difference alone.
// byAccount sorts what was told at one moment by the account that it is about: what several do then is told in any order.
func byAccount(lines []string) []string {
	slices.SortStableFunc(lines, func(a, b string) int {
		return cmp.Or(cmp.Compare(a[:18], b[:18]), cmp.Compare(userIn.FindString(a), userIn.FindString(b)))
	})
	return lines
}

var userIn = regexp.MustCompile(`[a-z]+@example\.com`)

func sameLines(t *testing.T, want, got []string, seed uint64) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		require.Equal(t, want[i], got[i], "line %d, seed %d", i, seed)
	}
	require.Equal(t, len(want), len(got), "seed %d", seed)
}

// readSteps returns the events of a recording that begins at the time at which bubbles begin.
func readSteps(t *testing.T, in io.Reader) (steps []step) {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	r := trace.NewReader(in)
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return steps
		}
		require.NoError(t, err)
		if rec.Event != nil {
			steps = append(steps, step{time.Duration(rec.At-start) * time.Millisecond, rec.Event})
		}
	}
}

func TestRecorderRotates(t *testing.T) {
	for seed := range seeds(4, 10) {
		synctest.Test(t, func(t *testing.T) {
			var files tape
			decided, stats := run(t, randomLoad(seed, 400), true, trace.RecorderConfig{Create: files.create, MaxBytes: 8 << 10})
			require.Greater(t, stats.Files, uint64(3))
			sameLines(t, decided, replayed(t, files.joined()), seed)

			// File by file it is the same but for the memory of what was notified before the file began.
			var single []string
			for _, f := range files.files {
				single = append(single, replayed(t, f)...)
			}
			require.Len(t, single, len(decided))
			for i := range decided {
				queue := strings.HasPrefix(decided[i], "ack-delayed") || strings.HasPrefix(decided[i], "hibernation-start")
				if !queue && !strings.Contains(decided[i], push.ReasonSeen.String()) {
					require.Equal(t, decided[i], single[i])
				}
			}
		})
	}
}

func TestRecorderDropsAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files tape
		_, stats := run(t, randomLoad(1, 300), false, trace.RecorderConfig{Create: files.create, QueueLines: 1})
		assert.NotZero(t, stats.Dropped)
		assert.NotZero(t, stats.Lines)
		replayed(t, files.joined())
	})
}

// disk holds files up to a number of bytes in all, as a full disk does: the write that does not fit is cut off.
type disk struct {
	mu          sync.Mutex
	room        int
	files       map[string]*diskFile
	syncs, made int
}

type diskFile struct {
	d    *disk
	data []byte
}

func (d *disk) create(name string) (io.WriteCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made++
	f := &diskFile{d: d}
	d.files[name] = f
	return f, nil
}

func (f *diskFile) Write(p []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n := min(len(p), f.d.room)
	f.d.room -= n
	f.data = append(f.data, p[:n]...)
	if n < len(p) {
		return n, errors.New("disk full")
	}
	return n, nil
}

func (f *diskFile) Truncate(n int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.room += len(f.data) - int(n)
	f.data = f.data[:n]
	return nil
}

func (f *diskFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.syncs++
	return nil
}

func (f *diskFile) Close() error { return nil }

// A disk that fills up loses nothing that was written, ends with a whole line, is told of once, and when there is room again the recording goes on.
func TestRecorderOnAFullDisk(t *testing.T) {
	for _, compress := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := &disk{room: 3000, files: make(map[string]*diskFile)}
			var log bytes.Buffer
			rec, err := trace.NewRecorder(trace.RecorderConfig{Create: d.create, Compress: compress, Sync: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			o := rec.Observer()
			o.Started(time.Now(), "example.com", push.Policy{})
			rnd := rand.New(rand.NewPCG(1, 2))
			told := 0
			event := func() {
				ev := push.ArchiveAdded{Account: "juliet@example.com", Stanza: push.Stanza{ID: fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()), To: "juliet@example.com", Class: push.ClassImportant}}
				told++
				o.Decided(uint64(told), time.Now(), ev, &push.Decision{Account: ev.Account, Reason: push.ReasonNoRegistration}, 0)
				synctest.Wait()
				time.Sleep(1100 * time.Millisecond)
				synctest.Wait()
			}
			for range 200 {
				event()
			}
			st := rec.Stats()
			assert.True(t, st.Failing)
			assert.ErrorContains(t, st.Err, "disk full")
			assert.NotZero(t, st.Dropped)
			assert.Equal(t, 1, strings.Count(log.String(), "recording stopped"), log.String())
			assert.Less(t, d.made, 14, "it does not try all the time")
			d.mu.Lock()
			d.room = 1 << 20
			d.mu.Unlock()
			for range 100 {
				event()
			}
			require.NoError(t, err)
			rec.Close()
			st = rec.Stats()
			assert.False(t, st.Failing)
			assert.NotZero(t, d.syncs)
			assert.Equal(t, 1, strings.Count(log.String(), "recording goes on"), log.String())
			read := uint64(0)
			for name, f := range d.files {
				assert.Equal(t, compress, strings.HasSuffix(name, ".gz"))
				if !compress && len(f.data) > 0 {
					assert.True(t, bytes.HasSuffix(f.data, []byte("\n")), "%s ends with a whole line", name)
				}
				r := trace.NewReader(bytes.NewReader(f.data))
				for {
					rec, err := r.Next()
					if err == io.EOF || len(f.data) == 0 {
						break
					}
					require.NoError(t, err)
					if rec.Event != nil {
						read++
					}
				}
			}
			assert.Equal(t, st.Lines, read, "what is counted as written can be read")
			assert.Equal(t, uint64(told), st.Lines+st.Dropped, "each line is there or counted as lost")
		})
	}
}

// A recording says itself what was sent and answered, and when: its replay decides and sends the same and makes nothing up, also where the
// Engine was late, its services slow and the host said no.
func TestReplayIsWhatHappened(t *testing.T) {
	for seed := range seeds(12, 40) {
		synctest.Test(t, func(t *testing.T) {
			files := tape{}
			cfg := trace.RecorderConfig{Create: files.create}
			if seed%2 == 1 {
				cfg.MaxBytes = 16 << 10
			}
			var live []string
			watch := told(&live)
			rec, err := trace.NewRecorder(cfg)
			require.NoError(t, err)
			policy := push.Policy{Expire: 40 * time.Second, ExpireUrgent: 5 * time.Second, RetryMin: 2 * time.Second, ServiceInFlight: 2, BreakAfter: 2, ProbeEvery: 7 * time.Second}
			e, err := push.New(push.Config{
				Host: "example.com", Policy: policy, Publisher: &flaky{count: map[string]int{}}, Observer: push.Observers(rec.Observer(), watch),
				Veto: moody{}, Liveness: moody{},
			})
			require.NoError(t, err)
			start := time.Now()
			for i, s := range randomLoad(seed, 300) {
				time.Sleep(time.Until(start.Add(s.at + time.Duration(i))))
				synctest.Wait()
				_, err := e.Handle(t.Context(), s.ev)
				require.NoError(t, err)
				synctest.Wait()
			}
			time.Sleep(time.Hour)
			require.NoError(t, e.Close(t.Context()))
			require.NoError(t, rec.Close())
			var again []string
			r := trace.NewReplay(func(l *trace.Line) {
				if l.Kind == "difference" {
					t.Errorf("seed %d: %d %s %s", seed, l.At, l.User, l.Text)
				}
			})
			r.Observe(told(&again))
			require.ErrorIs(t, r.Run(trace.NewReader(files.joined())), io.EOF)
			r.Finish()
			sameLines(t, byAccount(live), byAccount(again), seed)
		})
	}
}

// told notes what an Engine or a replay does, as far as both tell of it at the same time.
func told(to *[]string) *push.Observer {
	var mu sync.Mutex
	note := func(at time.Time, what ...any) {
		mu.Lock()
		defer mu.Unlock()
		*to = append(*to, at.UTC().Format("15:04:05.000000000 ")+fmt.Sprint(what...))
	}
	return &push.Observer{
		Decided: func(number uint64, at time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
			reason := d.Reason
			if !mayNotify(ev.Name()) {
				reason = push.ReasonNone
			}
			note(at, number, " ", ev.Name(), " ", d.Account, " ", reason, " ", d.Verdicts, d.Answers, d.Effects.Drops)
		},
		Sent: func(at time.Time, n *push.Notification) {
			note(at, "sent ", n.Account, n.Key, n.Class, n.Count, n.Try, n.Events)
		},
		Replied: func(at time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
			note(at, "replied ", n.Account, n.Key, reply, res.Outcome, res.RetryAt.IsZero(), took)
		},
		Affected: func(account string, at time.Time, e *push.Effects) {
			if len(e.Drops) > 0 {
				note(at, "dropped ", account, e.Drops)
			}
		},
	}
}

// moody says no to a stanza now and then, and has sessions elsewhere.
type moody struct{}

func (moody) VetoStanza(r *push.Registration, st push.Stanza) string {
	if strings.HasSuffix(st.ID, "3") && r.Node == "n1" {
		return "muted"
	}
	return ""
}

func (moody) VetoPublish(_ context.Context, n *push.Notification) string {
	if n.Node == "n2" && n.Count == 1 && n.Class == push.ClassPlain {
		return "not at night"
	}
	return ""
}

func (moody) Elsewhere(_ context.Context, account string) ([]push.Key, error) {
	if strings.HasPrefix(account, "romeo") {
		return []push.Key{{Service: "push.example.net", Node: "n0"}}, nil
	}
	return nil, nil
}

// Whatever a host hands to the engine as a JID, the recording stays readable.
func TestRecorderKeepsItsFilesReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files tape
		rec, err := trace.NewRecorder(trace.RecorderConfig{Create: files.create, Bodies: true, Options: true})
		require.NoError(t, err)
		o := rec.Observer()
		n := 0
		for _, j := range []string{"", "@", "a@b@c", "<x>@example.com", "Ü@example.com", "a/b/c", "juliet@example.com", "\xff", "a@-b", "x y", "juliet@example.com/\x00"} {
			id := push.SessionID{Account: j, ID: j}
			st := push.Stanza{ID: j, From: j, To: j, Body: "]]>&<\x00\xff" + j, Class: push.ClassImportant}
			k := push.Key{Service: j, Node: j}
			for _, ev := range []push.Event{
				push.SessionOpen{Session: id, JID: j + "/\x00"}, push.PushEnable{Session: id, Key: k, Options: []push.Field{{Var: j, Values: []string{j, ""}}}},
				push.ArchiveAdded{Account: j, Stanza: st}, push.Ping{Account: j, Registrations: []push.Key{k}}, push.StanzaQueued{Session: id, Stanza: st},
				push.ArchiveAdded{Account: "juliet@example.com", Stanza: st}, push.AffiliationNone{Account: "juliet@example.com", Key: k},
				push.PushDisable{Session: push.SessionID{Account: "juliet@example.com"}, Key: k}, push.SessionClose{Session: id},
			} {
				n++
				o.Decided(1, time.Now(), ev, &push.Decision{Account: ev.Subject().Account}, 0)
			}
			o.Read(j, time.Now(), []push.Registration{{Account: j, Key: k, Client: j}})
			o.Replied(time.Now(), &push.Notification{Account: j, Key: k}, push.Reply{Type: j, Condition: j + "x"}, push.Result{}, 0)
		}
		require.NoError(t, rec.Close())
		replayed(t, files.joined())
		st := rec.Stats()
		assert.NotZero(t, st.Unreadable)
		assert.Greater(t, st.Lines, uint64(20))
	})
}

func TestRecorderFiles(t *testing.T) {
	dir := t.TempDir()
	rec, err := trace.NewRecorder(trace.RecorderConfig{Dir: dir + "/traces"})
	require.NoError(t, err)
	ev := push.Ping{Account: "juliet@example.com"}
	rec.Observer().Decided(1, time.Now(), ev, &push.Decision{Account: ev.Account}, 0)
	require.NoError(t, rec.Close())
	assert.Equal(t, uint64(1), rec.Stats().Lines)
	_, err = trace.NewRecorder(trace.RecorderConfig{})
	assert.Error(t, err)
}

// Old files go once there is something in the newest, and no earlier.
func TestRecorderKeepsSomeFiles(t *testing.T) {
	for _, compress := range []bool{false, true} {
		dir := t.TempDir()
		rec, err := trace.NewRecorder(trace.RecorderConfig{Dir: dir, MaxBytes: 300, MaxFiles: 3, Compress: compress})
		require.NoError(t, err)
		o := rec.Observer()
		o.Started(time.Unix(0, 0), "example.com", push.Policy{})
		for i := range 60 {
			ev := push.Ping{Account: "juliet@example.com"}
			o.Decided(uint64(i+1), time.Unix(int64(i), 0), ev, &push.Decision{Account: ev.Account}, 0)
			want := uint64(i + 1)
			require.Eventually(t, func() bool { st := rec.Stats(); return st.Lines == want || compress }, 10*time.Second, time.Millisecond)
		}
		require.NoError(t, rec.Close())
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		st := rec.Stats()
		assert.Equal(t, uint64(60), st.Lines)
		assert.LessOrEqual(t, len(files), 3)
		if !compress {
			assert.Len(t, files, 3)
			assert.Greater(t, st.Files, uint64(10))
		}
		last, err := os.Open(files[len(files)-1])
		require.NoError(t, err)
		defer last.Close()
		read, newest := trace.NewReader(last), uint64(0)
		for {
			r, err := read.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			newest = max(newest, r.Number)
		}
		assert.Equal(t, uint64(60), newest)
		info, err := os.Stat(files[0])
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

// What a Recorder costs the Engine: the hook of one event, with the writer keeping up or dropping.
func BenchmarkRecorder(b *testing.B) {
	rec, err := trace.NewRecorder(trace.RecorderConfig{Create: func(string) (io.WriteCloser, error) { return nowhere{}, nil }})
	require.NoError(b, err)
	o := rec.Observer()
	ev := push.ArchiveAdded{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m1", From: "romeo@example.net/x", To: "juliet@example.com", Class: push.ClassImportant}}
	var e push.Event = ev
	d := &push.Decision{Account: ev.Account, Verdicts: []push.Verdict{{Key: push.Key{Service: "push.example.net", Node: "n"}}}}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		o.Decided(1, now, e, d, 0)
	}
	b.StopTimer()
	rec.Close()
	b.ReportMetric(float64(rec.Stats().Dropped)/float64(b.N), "dropped/op")
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }

// Accounts are told of from many goroutines at once. Each of them is in the recording in its own order.
func TestRecorderOfManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files tape
		rec, err := trace.NewRecorder(trace.RecorderConfig{Create: files.create, MaxBytes: 32 << 10})
		require.NoError(t, err)
		var mu sync.Mutex
		live := make(map[string][]string)
		watch := &push.Observer{Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			for _, v := range d.Verdicts {
				live[d.Account] = append(live[d.Account], fmt.Sprint(ev.Name(), " ", v.Node, " ", v.Notify, " ", v.Reason, " ", v.Stanzas))
			}
		}}
		e, err := push.New(push.Config{
			Host: "example.com", Observer: push.Observers(rec.Observer(), watch),
			Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }),
		})
		require.NoError(t, err)
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 1))
				s := push.SessionID{Account: fmt.Sprintf("user%d@example.com", i), ID: "s"}
				evs := []push.Event{push.SessionOpen{Session: s, JID: s.Account + "/x"}, push.PushEnable{Session: s, Key: push.Key{Service: "push.example.net", Node: "n"}}}
				for j := range 200 {
					st := push.Stanza{ID: fmt.Sprint(j / 2), To: s.Account, Class: push.ClassImportant}
					evs = append(evs, []push.Event{
						push.ArchiveAdded{Account: s.Account, Stanza: st}, push.Offline{Account: s.Account, Stanza: st}, push.HibernationStart{Session: s},
						push.Ping{Account: s.Account},
					}[rnd.IntN(4)])
				}
				for _, ev := range evs {
					time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
					if _, err := e.Handle(t.Context(), ev); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.NoError(t, e.Close(t.Context()))
		require.NoError(t, rec.Close())
		require.Zero(t, rec.Stats().Dropped)
		require.Greater(t, rec.Stats().Files, uint64(2))
		got := make(map[string][]string)
		replay := trace.NewReplay(func(l *trace.Line) {
			if l.Kind == "decision" && l.Node != nil {
				got[l.User] = append(got[l.User], fmt.Sprint(l.Type, " ", *l.Node, " ", *l.Notify, " ", l.Reason, " ", l.Stanzas))
			}
		})
		require.ErrorIs(t, replay.Run(trace.NewReader(files.joined())), io.EOF)
		for account := range live {
			sameLines(t, live[account], got[account], 0)
		}
	})
}

// TestRecorderOfSessionsThatNeverEnd has a host that never says when sessions end: what is recorded of the account stays as small as what the Engine keeps.
func TestRecorderOfSessionsThatNeverEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps []step
		for i := range 300 {
			steps = append(steps, step{time.Duration(i) * time.Second, push.SessionOpen{Session: push.SessionID{Account: "juliet@example.com", ID: fmt.Sprint("s", i)}, JID: fmt.Sprint("juliet@example.com/r", i)}})
			if i == 0 {
				steps = append(steps, step{0, push.PushEnable{Session: push.SessionID{Account: "juliet@example.com", ID: "s0"}, Key: push.Key{Service: "push.example.net", Node: "n9"}}})
			}
		}
		var files tape
		decided, stats := run(t, steps, true, trace.RecorderConfig{Create: files.create, MaxBytes: 8 << 10})
		require.Greater(t, stats.Files, uint64(2))
		assert.Len(t, decided, 300-128)
		sameLines(t, decided, replayed(t, files.joined()), 0)
		last, _, _ := strings.Cut(files.files[len(files.files)-1].String(), `"type":"session-open"`)
		assert.Equal(t, 128, strings.Count(last, `{"session":"s`))
		assert.Contains(t, last, `{"session":"s0"`, "it is bound")
	})
}
