package prosody

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/trace"
)

// full runs are long; the gate has them.
var full = os.Getenv("PUSH_TEST_FULL") == "1"

func size(quick, long int) int {
	if full {
		return long
	}
	return quick
}

var (
	seeds     = flag.Int("seeds", size(5, 20), "number of random traces; 20 with PUSH_TEST_FULL=1")
	firstSeed = flag.Uint64("seed", 1, "seed of the first random trace")
	events    = flag.Int("events", size(4000, 10000), "events of a random trace; 10000 with PUSH_TEST_FULL=1")
	shortenIn = flag.Duration("shorten", 15*time.Second, "how long to look for the shortest trace that shows a difference")
)

// TestAgainstProsody gives random traces to mod_cloud_notify and to us.
func TestAgainstProsody(t *testing.T) {
	needProsody(t)
	var total tally
	t.Run("traces", func(t *testing.T) {
		n := *seeds
		if testing.Short() {
			n = min(n, 5)
		}
		for i := range n {
			seed := *firstSeed + uint64(i)
			t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
				t.Parallel()
				var trace bytes.Buffer
				if err := Generate(&trace, seed, optionsFor(seed)); err != nil {
					t.Fatal(err)
				}
				c, err := compareTrace(trace.Bytes())
				if err != nil {
					t.Fatal(explain(trace.Bytes(), err))
				}
				total.add(c)
			})
		}
	})
	t.Log(total.String())
}

// TestAgainstProsodyAtOnce does the same under the default policy, whose times are other than Prosody's: who is notified of what stays the same.
func TestAgainstProsodyAtOnce(t *testing.T) {
	needProsody(t)
	var total tally
	for i := range max(*seeds/4, 2) {
		seed := *firstSeed + uint64(i)
		var random bytes.Buffer
		if err := Generate(&random, seed, optionsFor(seed)); err != nil {
			t.Fatal(err)
		}
		c, err := compareUnder(random.Bytes(), func(p trace.Policy) trace.Policy { return p }, true)
		if err != nil {
			t.Fatal(err)
		}
		total.add(c)
	}
	t.Log(total.String())
}

// TestGenerate: the same seed gives the same trace, and traces have every type
// of event and every kind of stanza.
func TestGenerate(t *testing.T) {
	o := Options{Events: 20000, Registrations: 8, Clients: true, Services: true, Held: true}
	var a, b bytes.Buffer
	if err := errors.Join(Generate(&a, 1, o), Generate(&b, 1, o)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two traces of one seed differ")
	}
	var want []string
	for _, e := range []push.Event{
		push.SessionOpen{}, push.SessionClose{}, push.PushEnable{}, push.PushDisable{}, push.AckDelayed{}, push.HibernationStart{},
		push.StanzaQueued{}, push.HibernationEnd{}, push.ArchiveAdded{}, push.Offline{}, push.Groupchat{}, push.Ping{},
		push.AffiliationNone{}, push.AccountRemoved{},
	} {
		want = append(want, `"type":"`+e.Name()+`"`)
	}
	for _, m := range messages {
		want = append(want, `"id":"`+m.kind+`.`)
	}
	want = append(want, `"id":"sent-call.`, `"id":"received-call.`, `"id":"presence.`, `"id":"iq.`, `"held":true`, `"client":`)
	for _, w := range want {
		if !bytes.Contains(a.Bytes(), []byte(w)) {
			t.Errorf("a trace without %s", w)
		}
	}
}

// optionsFor varies the traces: sparse and dense ones, with the limit on
// registrations within reach or not, with what Prosody does not know or
// without.
func optionsFor(seed uint64) Options {
	o := Options{Events: *events}
	o.Gap = []time.Duration{150 * time.Millisecond, 300 * time.Millisecond, time.Second, 10 * time.Second}[seed%4]
	if seed%3 == 0 {
		o.Registrations = 8
	}
	if seed%5 == 0 {
		o.Clients, o.Services, o.Held = true, true, true
	}
	return o
}

// TestRecording compares us, and the driver, with what a real server was seen
// to do.
func TestRecording(t *testing.T) {
	needProsody(t)
	trace, err := os.ReadFile("../../testdata/traces/prosody-0.12.3.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	prosody, err := drive(trace, "push_max_errors=3", "push_max_hibernation_timeout=20", "smacks_hibernation_time=8")
	if err != nil {
		t.Fatal(err)
	}
	checkObserved(t, trace, prosody)
	ours, err := replay(trace)
	if err != nil {
		t.Fatal(err)
	}
	c, err := compare(trace, prosody, ours, false)
	if err != nil {
		t.Fatal(err)
	}
	var total tally
	total.add(c)
	t.Log(total.String())
}

// compareTrace runs both sides over a trace, side by side, ours with Prosody's timing.
func compareTrace(trace []byte) (*comparison, error) { return compareUnder(trace, asProsody, false) }

// compareUnder runs both sides over a trace, side by side, ours under a policy.
func compareUnder(text []byte, policy func(trace.Policy) trace.Policy, atOnce bool) (*comparison, error) {
	var prosody []byte
	var failed error
	done := make(chan struct{})
	go func() {
		prosody, failed = drive(text)
		close(done)
	}()
	ours, err := replayUnder(text, policy)
	<-done
	if err := errors.Join(failed, err); err != nil {
		return nil, err
	}
	return compare(text, prosody, ours, atOnce)
}

// needProsody skips the test where Prosody is not installed.
func needProsody(t testing.TB) {
	if _, err := drive([]byte(`{"type":"config","host":"` + host + `"}` + "\n")); err != nil {
		text := fmt.Sprintf("this test needs Prosody's modules; on Debian: apt-get install lua5.4 prosody prosody-modules\n%v", err)
		if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
}

// drive runs mod_cloud_notify over a trace.
func drive(trace []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("lua5.4", append([]string{"driver.lua"}, args...)...)
	cmd.Stdin = bytes.NewReader(trace)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("driver.lua: %w\n%s", err, stderr.Bytes())
	}
	return out, nil
}

// checkObserved compares the driver's publishes with the observed ones.
func checkObserved(t *testing.T, trace, prosody []byte) {
	type push struct {
		address
		stanza    string
		important bool
	}
	count := map[push]int{}
	observed := 0
	err := eachLine(trace, func(b []byte) error {
		if !isObserved(b) {
			return nil
		}
		var l prosodyLine
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		observed++
		count[push{address{l.User, l.Service, l.Node}, l.Stanza, l.Important}]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &comparison{prosody: map[int]map[notice]int64{}, classes: map[stanzaOf]string{}}
	if err := c.readProsody(prosody); err != nil {
		t.Fatal(err)
	}
	for _, l := range c.batches {
		count[push{address{l.User, l.Service, l.Node}, l.Stanza, l.Important}]--
	}
	for p, n := range count {
		if n != 0 {
			t.Errorf("recorded and driven publishes differ by %d for %+v", n, p)
		}
	}
	t.Logf("the driver publishes what the recorded server did: %d times", observed)
}

// tally adds the counts of comparisons up.
type tally struct {
	sync.Mutex
	counts                               map[string]int
	traces, events, theirs, ours, agreed int
}

func (t *tally) add(c *comparison) {
	t.Lock()
	defer t.Unlock()
	t.traces++
	t.events += len(c.events)
	t.theirs += len(c.batches)
	t.ours += len(c.publishes)
	t.agreed += c.agreed
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	for k, n := range c.counts {
		t.counts[k] += n
	}
}

func (t *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d traces, %d events, publishes: Prosody %d, ours %d\n", t.traces, t.events, t.theirs, t.ours)
	fmt.Fprintf(&b, "%8d  both notify, of the same stanza for the same event\n", t.agreed)
	for _, k := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Fprintf(&b, "%8d  %s\n", t.counts[k], k)
	}
	return b.String()
}

// explain adds to a difference the shortest trace that still has one, and both
// sides' view of it.
func explain(trace []byte, err error) string {
	var d *difference
	if !errors.As(err, &d) || *shortenIn == 0 {
		return err.Error()
	}
	short, shortErr := shorten(trace, d)
	if short == nil {
		return err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n\nIn short: %v\n\n%s\nProsody:\n", err, shortErr, short)
	prosody, _ := drive(short)
	b.Write(prosody)
	b.WriteString("\nours:\n")
	ours, _ := replay(short)
	for _, d := range ours.decisions {
		fmt.Fprintf(&b, "decision %+v\n", d)
	}
	for _, p := range ours.publishes {
		fmt.Fprintf(&b, "publish %+v\n", p)
	}
	return b.String()
}

// shorten returns the lines of a trace without which the difference is gone,
// as far as they can be found in a few seconds.
func shorten(trace []byte, d *difference) ([]byte, error) {
	end := time.Now().Add(*shortenIn)
	lines, err := linesWithXML(trace)
	if err != nil {
		return nil, err
	}
	config, lines := lines[0], lines[1:]
	var last error
	differs := func(lines []string) bool {
		if !plausible(lines) {
			return false
		}
		_, err := compareTrace([]byte(config + strings.Join(lines, "")))
		var other *difference
		if !errors.As(err, &other) || other.kind() != d.kind() {
			return false
		}
		last = err
		return true
	}
	// Only what concerns the account, up to the difference and what followed
	// within seconds, if that is enough.
	sessions := map[string]bool{}
	var own []string
	var until int64
	for i, text := range lines {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return nil, err
		}
		if i+1 == d.event {
			until = l.At + 3000
		} else if until > 0 && l.At > until {
			break
		}
		if strings.HasPrefix(l.JID, d.notice.user+"/") {
			sessions[l.Session] = true
		}
		if l.User == d.notice.user || sessions[l.Session] {
			own = append(own, text)
		}
	}
	if differs(own) {
		lines = own
	} else if !differs(lines) {
		return nil, nil
	}
	// Leave out ever smaller pieces, sessions, and stanzas of queues.
	for range 2 {
		for size := len(lines) / 2; size > 0; size /= 2 {
			for from := len(lines) - size; from >= 0 && time.Now().Before(end); from -= size {
				less := slices.Concat(lines[:from], lines[from+size:])
				if differs(less) {
					lines = less
					from = min(from, len(lines))
				}
			}
		}
		for id := range sessions {
			less := slices.DeleteFunc(slices.Clone(lines), func(text string) bool {
				return strings.Contains(text, `"session":"`+id+`"`)
			})
			if len(less) < len(lines) && time.Now().Before(end) && differs(less) {
				lines = less
			}
		}
	}
	for i := range lines {
		var l line
		if err := json.Unmarshal([]byte(lines[i]), &l); err != nil {
			return nil, err
		}
		for j := len(l.Queue) - 1; j >= 0 && time.Now().Before(end); j-- {
			less, short := slices.Clone(lines), l
			short.Queue = slices.Delete(slices.Clone(l.Queue), j, j+1)
			text, err := encode(short)
			if err != nil {
				return nil, err
			}
			if less[i] = string(text); differs(less) {
				lines, l = less, short
			}
		}
	}
	differs(lines)
	return []byte(config + strings.Join(lines, "")), last
}

// plausible tells whether every session is open when something happens to it,
// and alone with its resource. A shortened trace must not be one that no server
// would write.
func plausible(lines []string) bool {
	sessions, resources := map[string]string{}, map[string]bool{}
	for _, text := range lines {
		var l line
		if json.Unmarshal([]byte(text), &l) != nil {
			return false
		}
		jid := sessions[l.Session]
		switch {
		case l.Type == "session-open":
			if resources[l.JID] {
				return false
			}
			sessions[l.Session], resources[l.JID] = l.JID, true
		case l.Session != "" && jid == "":
			return false
		case l.Type == "session-close":
			delete(sessions, l.Session)
			delete(resources, jid)
		}
	}
	return true
}

// linesWithXML returns the lines of a trace, with XML in every stanza.
func linesWithXML(trace []byte) ([]string, error) {
	var lines []string
	xml := map[string]string{}
	fill := func(s *stanza) {
		if s.XML == "" {
			s.XML = xml[s.ID]
		}
		xml[s.ID] = s.XML
	}
	err := eachLine(trace, func(b []byte) error {
		if isObserved(b) {
			return nil
		}
		var l line
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		if l.Type == "config" {
			lines = append(lines, string(b)+"\n")
			return nil
		}
		if l.Stanza != nil {
			fill(l.Stanza)
		}
		for i := range l.Queue {
			fill(&l.Queue[i])
		}
		text, err := encode(l)
		lines = append(lines, string(text))
		return err
	})
	return lines, err
}

// BenchmarkProsody measures what mod_cloud_notify's own handlers and ours need for an event of the same trace, parsed before: processor time, the
// least of five runs of ours, deciding, pacing and explaining together; and the ratio.
func BenchmarkProsody(b *testing.B) {
	needProsody(b)
	for _, c := range []struct{ accounts, events int }{{4, 10_000}, {2000, 200_000}} {
		b.Run(fmt.Sprintf("accounts=%d/events=%d", c.accounts, c.events), func(b *testing.B) {
			var data bytes.Buffer
			if err := Generate(&data, 1, Options{Events: c.events, Accounts: c.accounts, Gap: 300 * time.Millisecond}); err != nil {
				b.Fatal(err)
			}
			var recs []*trace.Record
			for r := trace.NewReader(bytes.NewReader(data.Bytes())); ; {
				rec, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					b.Fatal(err)
				}
				recs = append(recs, rec)
			}
			var theirs, ours float64
			for b.Loop() {
				out, err := drive(data.Bytes(), "-measure")
				if err != nil {
					b.Fatal(err)
				}
				var m struct{ Events, Microseconds float64 }
				if err := json.Unmarshal(out, &m); err != nil {
					b.Fatal(err)
				}
				theirs += m.Microseconds * 1000 / m.Events
				best := math.Inf(1)
				for range 5 {
					best = min(best, replayTime(b, recs))
				}
				ours += best
			}
			n := float64(b.N)
			b.ReportMetric(theirs/n, "prosody-ns/event")
			b.ReportMetric(ours/n, "push-ns/event")
			b.ReportMetric(theirs/ours, "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// replayTime returns the processor time that deciding a trace takes, in nanoseconds an event.
func replayTime(b *testing.B, recs []*trace.Record) float64 {
	published := 0
	r := trace.NewReplay(func(l *trace.Line) {
		if l.Kind == "publish" {
			published++
		}
	})
	start := processorTime(b)
	for _, rec := range recs {
		if err := r.Step(rec); err != nil {
			b.Fatal(err)
		}
	}
	took := processorTime(b) - start
	if published == 0 {
		b.Fatal("nothing was published")
	}
	return float64(took.Nanoseconds()) / float64(len(recs))
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
