package pushprometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/pushhttp"
	"github.com/xmpp-push/push/trace"
)

const juliet = "juliet@example.com"

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{Services: []string{"push.example.net"}, MaxServices: 2})
		e, err := push.New(push.Config{
			Host: "example.com", Observer: m.Observer(),
			Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
				if n.Service == "push.example.net" {
					return &push.ReplyError{Type: "cancel", Condition: "gone"}
				}
				return nil
			}),
		})
		require.NoError(t, err)
		m.Watch(e)
		raise := func(ev push.Event) {
			_, err := e.Handle(t.Context(), ev)
			require.NoError(t, err)
			synctest.Wait()
		}
		for i := range 100 {
			a := fmt.Sprintf("user%d@example.com", i)
			k := push.Key{Service: fmt.Sprintf("attacker%d.example", i), Node: "n"}
			raise(push.PushEnable{Session: push.SessionID{Account: a}, Key: k})
			raise(push.Ping{Account: a})
			raise(push.Ping{Account: a})
		}
		raise(push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: "push.example.net", Node: "n"}})
		raise(push.Offline{Account: juliet, Stanza: push.Stanza{ID: "m1", Class: push.ClassUrgent}})
		raise(push.Offline{Account: juliet, Stanza: push.Stanza{ID: "m2", Class: push.ClassUrgent}})
		time.Sleep(time.Second)
		synctest.Wait() // what was to be sent after a second is

		reg := prometheus.NewPedanticRegistry()
		require.NoError(t, reg.Register(m))
		problems, err := testutil.GatherAndLint(reg)
		require.NoError(t, err)
		assert.Empty(t, problems)

		get := func(c prometheus.Collector) float64 { return testutil.ToFloat64(c) }
		assert.Equal(t, 200.0, get(m.events.WithLabelValues("ping")))
		assert.Equal(t, 1.0, get(m.replies.WithLabelValues("push.example.net", "fatal")))
		assert.Equal(t, 1.0, get(m.changes.WithLabelValues("disabled", "errors")))
		assert.Equal(t, 1.0, get(m.decisions.WithLabelValues("no", "enabled", "disabled")))
		assert.Equal(t, 1.0, get(m.drops.WithLabelValues("rejected")))
		assert.LessOrEqual(t, testutil.CollectAndCount(m, "push_service_waiting"), 4, "the attackers share a name")
		assert.LessOrEqual(t, testutil.CollectAndCount(m.replies), 4*7)
		assert.Equal(t, 3, testutil.CollectAndCount(m.latency), "two services and the rest, of what was accepted")
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`# HELP push_service_oldest_waiting_seconds Age of the oldest notification that was not accepted yet; 0 if none waits.
# TYPE push_service_oldest_waiting_seconds gauge
push_service_oldest_waiting_seconds{service="push.example.net"} 0
push_service_oldest_waiting_seconds{service="attacker0.example"} 0
push_service_oldest_waiting_seconds{service="attacker1.example"} 0
push_service_oldest_waiting_seconds{service="other"} 0
`), "push_service_oldest_waiting_seconds"))
		require.NoError(t, e.Close(t.Context()))
	})
}

// What waits is told by its age, what is stored by its state, what was recorded by what became of it.
func TestWhatWaitsAndWhatIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{Services: []string{"push.example.net"}})
		store := push.NewMemoryStore()
		rec, err := trace.NewRecorder(trace.RecorderConfig{Dir: t.TempDir()})
		require.NoError(t, err)
		history := pushhttp.NewHistory(pushhttp.HistoryConfig{})
		var down atomic.Bool
		down.Store(true)
		e, err := push.New(push.Config{
			Host: "example.com", Store: store, Observer: push.Observers(m.Observer(), rec.Observer(), history.Observer()),
			Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error {
				if down.Load() {
					return &push.ReplyError{Type: "wait", Condition: "resource-constraint"}
				}
				return nil
			}),
		})
		require.NoError(t, err)
		m.Watch(e)
		m.WatchRegistrations(store)
		m.WatchRecorder(rec)
		m.WatchHistory(history)
		for _, ev := range []push.Event{
			push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: "push.example.net", Node: "n"}},
			push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: "push.example.net", Node: "unused"}},
			push.Ping{Account: juliet, Registrations: []push.Key{{Service: "push.example.net", Node: "n"}}},
		} {
			_, err := e.Handle(t.Context(), ev)
			require.NoError(t, err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		reg := prometheus.NewPedanticRegistry()
		require.NoError(t, reg.Register(m))
		value := func(name string, labels ...string) float64 {
			t.Helper()
			families, err := reg.Gather()
			require.NoError(t, err)
			for _, f := range families {
				for _, s := range f.Metric {
					match := f.GetName() == name
					for _, l := range s.Label {
						match = match && (len(labels) == 0 || l.GetValue() == labels[0])
					}
					if match {
						return s.GetGauge().GetValue() + s.GetCounter().GetValue() + float64(s.GetHistogram().GetSampleCount())
					}
				}
			}
			return -1
		}
		assert.Equal(t, 30.0, value("push_service_oldest_waiting_seconds", "push.example.net"))
		synctest.Wait() // the first scrape has the registrations counted
		assert.Equal(t, 2.0, value("push_registrations", "untried"))
		down.Store(false)
		time.Sleep(10 * time.Minute)
		value("push_registrations", "untried")
		synctest.Wait()
		assert.Zero(t, value("push_service_oldest_waiting_seconds", "push.example.net"))
		assert.Equal(t, 1.0, value("push_registrations", "enabled"))
		assert.Equal(t, 1.0, value("push_registrations", "untried"))
		assert.Greater(t, value("push_recorder_lines_total", "written"), 3.0)
		assert.Zero(t, value("push_recorder_lines_total", "lost"))
		assert.Zero(t, value("push_recorder_failing"))
		assert.InDelta(t, 630, value("push_history_reach_seconds"), 1)
		assert.Positive(t, value("push_store_seconds", "Store.Enable"))
		assert.Negative(t, value("push_store_errors_total", "Store.Enable"), "none failed")
		require.NoError(t, e.Close(t.Context()))
		require.NoError(t, rec.Close())
	})
}

// muddle is a host whose code panics.
type muddle struct{}

func (muddle) Unread(context.Context, string) (int, error) { panic("not there") }

func TestHostsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{})
		e, err := push.New(push.Config{Host: "example.com", Unread: muddle{}, Observer: m.Observer(), Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
		require.NoError(t, err)
		m.Watch(e)
		for _, ev := range []push.Event{push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: "push.example.net"}}, push.Ping{Account: juliet}} {
			_, err := e.Handle(t.Context(), ev)
			require.NoError(t, err)
		}
		synctest.Wait()
		assert.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(`# HELP push_hook_faults_total What went wrong with the host's own code: panics, calls that took too long, calls not made because others hang.
# TYPE push_hook_faults_total counter
push_hook_faults_total{hook="UnreadCounter.Unread",kind="overrun"} 0
push_hook_faults_total{hook="UnreadCounter.Unread",kind="panic"} 1
push_hook_faults_total{hook="UnreadCounter.Unread",kind="skipped"} 0
`), "push_hook_faults_total"))
		require.NoError(t, e.Close(t.Context()))
	})
}

// exported are the names of all metrics, as rules and dashboards can use them.
func exported(t *testing.T) map[string]bool {
	names := make(map[string]bool)
	ch := make(chan *prometheus.Desc, 200)
	New(Config{}).Describe(ch)
	close(ch)
	for d := range ch {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
		names[name] = true
		if strings.HasSuffix(name, "_seconds") {
			names[name+"_bucket"], names[name+"_count"] = true, true
		}
	}
	return names
}

var metricName = regexp.MustCompile(`\bpush_[a-z_]+`)

func TestAlertsAndDashboardUseMetricsThatAreThere(t *testing.T) {
	names := exported(t)
	for _, file := range []string{"alerts.yml", "dashboard.json"} {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, used := range metricName.FindAllString(string(data), -1) {
			assert.True(t, names[used], "%s uses %s", file, used)
		}
	}
}

// Every figure of a cluster's node is on the dashboard: who looks at night should not have to know its name.
func TestDashboardHasTheCluster(t *testing.T) {
	data, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	on := make(map[string]bool)
	for _, used := range metricName.FindAllString(string(data), -1) {
		on[used] = true
	}
	for name := range exported(t) {
		switch name {
		case "push_cluster_version", "push_cluster_in_flight", "push_cluster_snapshots_total", // the page of pushhttp has them
			"push_cluster_takeover_seconds_bucket", "push_cluster_takeover_seconds_count": // no histogram
		default:
			assert.True(t, on[name] || !strings.HasPrefix(name, "push_cluster_"), "%s is on no panel", name)
		}
	}
}

// Panels neither share a number nor cover each other, and each says what it means.
func TestDashboardIsInOrder(t *testing.T) {
	data, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			ID                 int
			Title, Description string
			GridPos            struct{ X, Y, W, H int }
		}
	}
	require.NoError(t, json.Unmarshal(data, &board))
	ids, taken := make(map[int]string), make(map[[2]int]string)
	for _, p := range board.Panels {
		assert.NotEmpty(t, p.Description, p.Title)
		assert.Empty(t, ids[p.ID], "%s has the number of another", p.Title)
		ids[p.ID] = p.Title
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				assert.Empty(t, taken[at], "%s covers another", p.Title)
				taken[at] = p.Title
			}
		}
	}
}

// TestPromtool has Prometheus' own tool check the rules, run their unit tests, and parse every expression of the dashboard.
func TestPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		const how = "no promtool; on Debian: apt-get install prometheus"
		if os.Getenv("PUSH_REQUIRE_PEERS") == "1" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	run := func(args ...string) {
		out, err := exec.Command(tool, args...).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
	run("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
	run("test", "rules", "alerts_test.yml")

	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	data, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &board))
	require.NotEmpty(t, board.Panels)
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for i, p := range board.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for j, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$service", ".*").Replace(target.Expr)
			quoted, err := json.Marshal(expr)
			require.NoError(t, err)
			rules += fmt.Sprintf("  - record: panel:%d:%d\n    expr: %s\n", i, j, quoted)
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	run("check", "rules", file)
}

// What the metrics add to an event that was decided for one registration.
func BenchmarkDecided(b *testing.B) {
	o := New(Config{}).Observer()
	var ev push.Event = push.ArchiveAdded{Account: juliet}
	d := &push.Decision{Account: juliet, Verdicts: []push.Verdict{{Notify: true, Rule: push.RuleArchived, Reason: push.ReasonNoSession}}}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		o.Decided(1, now, ev, d, time.Microsecond)
	}
}

func BenchmarkPublished(b *testing.B) {
	o := New(Config{}).Observer()
	n := &push.Notification{Key: push.Key{Service: "push.example.net"}}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		o.Sent(now, n)
		o.Replied(now, n, push.Reply{}, push.Result{}, time.Millisecond)
	}
}

// What it costs an Engine to be watched: one archived message for an account with a connected device, decided and not notified.
func BenchmarkHandle(b *testing.B) {
	for name, observer := range map[string]func() *push.Observer{
		"watch=off":     func() *push.Observer { return nil },
		"watch=history": func() *push.Observer { return pushhttp.NewHistory(pushhttp.HistoryConfig{}).Observer() },
		"watch=metrics": func() *push.Observer { return New(Config{}).Observer() },
		"watch=history+metrics": func() *push.Observer {
			return push.Observers(pushhttp.NewHistory(pushhttp.HistoryConfig{}).Observer(), New(Config{}).Observer())
		},
		"watch=something-trivial": func() *push.Observer {
			return &push.Observer{Decided: func(uint64, time.Time, push.Event, *push.Decision, time.Duration) {}}
		},
	} {
		b.Run(name, func(b *testing.B) {
			e, err := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil }), Observer: observer()})
			require.NoError(b, err)
			s := push.SessionID{Account: juliet, ID: "s1"}
			_, err = e.Handle(b.Context(), push.SessionOpen{Session: s, JID: juliet + "/x"})
			require.NoError(b, err)
			_, err = e.Handle(b.Context(), push.PushEnable{Session: s, Key: push.Key{Service: "push.example.net", Node: "n"}})
			require.NoError(b, err)
			ev := push.ArchiveAdded{Account: juliet, Stanza: push.Stanza{ID: "m1", From: "romeo@example.net", To: juliet, Body: "text", Class: push.ClassImportant}}
			var d push.Decision
			b.ReportAllocs()
			for b.Loop() {
				if err := e.HandleTo(b.Context(), ev, &d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
