// Package pushprometheus is metrics of a push engine for Prometheus.
//
//	m := pushprometheus.New(pushprometheus.Config{Services: []string{"push.example.net"}})
//	engine, err := push.New(push.Config{…, Observer: m.Observer()})
//	m.Watch(engine)
//	prometheus.MustRegister(m)
//
// Labels are tokens, such as reason="already-notified"; push_reason_info has the sentence of each. Optional: WatchRegistrations, WatchRecorder,
// WatchHistory, and WatchCluster for a node of a cluster.
//
// No label holds an account, a node or anything else whose number strangers decide about; see [Config.Services] for push services. The folder
// has alerting rules (alerts.yml) and a dashboard for Grafana (dashboard.json) that go with it.
package pushprometheus

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/metrics"
	"github.com/xmpp-push/push/pushhttp"
	"github.com/xmpp-push/push/trace"
)

// Config says how to name push services. The zero Config is good.
type Config struct {
	// Services are the push services that have a label of their own from the start. List those that alerts are to name.
	Services []string
	// MaxServices is how many others may get one: the first that accept a publish. All others are "other". Default 20; negative: none.
	MaxServices int
	// Namespace begins the names of the metrics. Default "push".
	Namespace string
}

// Metrics is a [prometheus.Collector] that observes an Engine. Safe for simultaneous use.
type Metrics struct {
	services metrics.Services
	waits    metrics.Waiting
	engine   atomic.Pointer[Engine]
	counts   metrics.Counts
	recorder atomic.Pointer[Recorder]
	history  atomic.Pointer[History]
	cluster  atomic.Pointer[Cluster]

	ofCluster clusterDescs

	events    *prometheus.CounterVec
	decisions *prometheus.CounterVec
	publishes *prometheus.CounterVec
	replies   *prometheus.CounterVec
	took      *prometheus.HistogramVec
	deciding  prometheus.Histogram
	latency   *prometheus.HistogramVec
	stored    *prometheus.HistogramVec
	unstored  *prometheus.CounterVec
	changes   *prometheus.CounterVec
	drops     *prometheus.CounterVec
	collected []prometheus.Collector

	inFlight, waiting, broken, oldest    *prometheus.Desc
	registrations, counted               *prometheus.Desc
	recorded, recording                  *prometheus.Desc
	historySeconds, historyLines, reason *prometheus.Desc
	hookFaults, hookHanging              *prometheus.Desc

	// byEvent and byVerdict save looking up labels on the Engine's path.
	byEvent   map[string]prometheus.Counter
	byVerdict [rules * reasons]atomic.Pointer[prometheus.Counter]
}

// Engine tells the state of push services; a [push.Engine] does.
type Engine interface {
	Services() []push.ServiceStatus
}

// Rules and reasons that are known by number; others go the slower way.
const rules, reasons = 32, 128

// New returns Metrics for one Engine.
func New(cfg Config) *Metrics {
	if cfg.Namespace == "" {
		cfg.Namespace = "push"
	}
	if cfg.MaxServices == 0 {
		cfg.MaxServices = 20
	}
	m := &Metrics{services: metrics.Services{Listed: cfg.Services, Max: max(cfg.MaxServices, 0)}, byEvent: make(map[string]prometheus.Counter)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: cfg.Namespace, Name: name, Help: help}, labels)
		m.collected = append(m.collected, c)
		return c
	}
	m.events = counter("events_total", "Events that were handled.", "event")
	m.decisions = counter("decisions_total", "Answers for one registration and event, by the rule that decided and its reason.", "notify", "rule", "reason")
	m.publishes = counter("publishes_total", "Publishes that were sent, retries included.", "service", "class")
	m.replies = counter("replies_total", "Ends of publishes, by what they mean.", "service", "outcome")
	m.changes = counter("registration_changes_total", "Changes of registrations.", "change", "reason")
	m.drops = counter("drops_total", "Notifications that were decided and will not be sent.", "reason")
	m.took = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: cfg.Namespace, Name: "reply_seconds", Help: "How long push services took to reply.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"service"})
	m.deciding = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: cfg.Namespace, Name: "decision_seconds", Help: "How long it took to decide an event, without the store.",
		Buckets: []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 1e-4, 1e-3, 1e-2},
	})
	m.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: cfg.Namespace, Name: "delivery_seconds", Help: "Time from the event that a notification came from to its acceptance by the push service, waits and retries included.",
		Buckets: []float64{.01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200},
	}, []string{"service", "class"})
	m.stored = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: cfg.Namespace, Name: "store_seconds", Help: "How long calls of the store took, those that failed included.",
		Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 30},
	}, []string{"call"})
	m.unstored = counter("store_errors_total", "Calls of the store that failed.", "call")
	m.collected = append(m.collected, m.took, m.deciding, m.latency, m.stored)
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(cfg.Namespace, "", name), help, labels, nil)
	}
	m.inFlight = gauge("service_in_flight", "Publishes that wait for a reply.", "service")
	m.waiting = gauge("service_waiting", "Registrations that are due and wait for their turn; not those that wait for their next try.", "service")
	m.broken = gauge("service_broken", "How many services under this name do not answer and are probed.", "service")
	m.oldest = gauge("service_oldest_waiting_seconds", "Age of the oldest notification that was not accepted yet; 0 if none waits.", "service")
	m.registrations = gauge("registrations", "Registrations in the store by state: enabled, untried (no success yet), failing (errors lately), disabled.", "state")
	m.counted = gauge("registrations_counted_timestamp_seconds", "When the registrations were counted.")
	m.recorded = gauge("recorder_lines_total", "Lines of the recording by what became of them: written, lost, unreadable.", "result")
	m.recording = gauge("recorder_failing", "Whether the recording cannot be written at present.")
	m.historySeconds = gauge("history_reach_seconds", "How far back the inspector's history reaches.")
	m.historyLines = gauge("history_lines", "Lines in the inspector's history.")
	m.hookFaults = gauge("hook_faults_total", "What went wrong with the host's own code: panics, calls that took too long, calls not made because others hang.", "hook", "kind")
	m.hookHanging = gauge("hook_hanging", "Calls of the host's own code that have not returned.", "hook")
	m.ofCluster = newClusterDescs(cfg.Namespace)
	m.reason = gauge("reason_info", "The sentence of each reason, by its token.", "reason", "text")
	for _, name := range metrics.Events {
		m.byEvent[name] = m.events.WithLabelValues(name)
	}
	// Series that are there from the start can be alerted on from the start.
	m.changes.WithLabelValues(push.ChangeDisabled.String(), push.ReasonErrors.String())
	for _, s := range cfg.Services {
		for o := push.OutcomeAccepted; o <= push.OutcomeDropped; o++ {
			m.replies.WithLabelValues(m.services.Name(s), o.String())
		}
	}
	return m
}

// Watch has the state of push services asked of e. It may be called once e is there; without it there are no gauges.
func (m *Metrics) Watch(e Engine) { m.engine.Store(&e) }

// Observer returns what has to be told of the Engine's doings.
func (m *Metrics) Observer() *push.Observer {
	return &push.Observer{
		Quick: true,
		Decided: func(_ uint64, at time.Time, ev push.Event, d *push.Decision, took time.Duration) {
			if c := m.byEvent[ev.Name()]; c != nil {
				c.Inc()
			}
			if took > 0 {
				m.deciding.Observe(took.Seconds())
			}
			for i := range d.Verdicts {
				v := &d.Verdicts[i]
				m.verdict(v.Notify, v.Rule, v.Reason).Inc()
			}
			if d.Reason != push.ReasonNone {
				m.verdict(false, push.RuleNone, d.Reason).Inc()
			}
			m.effects(&d.Effects)
			m.waits.Decided(at, d)
		},
		Stored: func(_ string, _ time.Time, call string, took time.Duration, err error) {
			m.stored.WithLabelValues(call).Observe(took.Seconds())
			if err != nil && !errors.Is(err, push.ErrNotRegistered) {
				m.unstored.WithLabelValues(call).Inc()
			}
		},
		Affected: func(account string, _ time.Time, e *push.Effects) {
			m.effects(e)
			m.waits.Affected(account, e)
		},
		Sent: func(_ time.Time, n *push.Notification) {
			m.waits.Sent(n)
			m.publishes.WithLabelValues(m.services.Name(n.Service), n.Class.String()).Inc()
		},
		Replied: func(at time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
			if res.Outcome == push.OutcomeAccepted {
				m.services.Accepted(n.Service)
			}
			name := m.services.Name(n.Service)
			m.replies.WithLabelValues(name, res.Outcome.String()).Inc()
			if !reply.Missing && reply.Vetoed == "" {
				m.took.WithLabelValues(name).Observe(took.Seconds())
			}
			if late, ok := m.waits.Replied(at, n, res); ok {
				m.latency.WithLabelValues(name, n.Class.String()).Observe(late.Seconds())
			}
		},
	}
}

// verdict returns the counter of a verdict. A reason says by itself whether it notifies.
func (m *Metrics) verdict(notify bool, rule push.Rule, reason push.Reason) prometheus.Counter {
	known := int(rule) < rules && int(reason) < reasons && notify == reason.Notifies()
	if known {
		if c := m.byVerdict[int(rule)*reasons+int(reason)].Load(); c != nil {
			return *c
		}
	}
	yes := "no"
	if notify {
		yes = "yes"
	}
	c := m.decisions.WithLabelValues(yes, rule.String(), reason.String())
	if known {
		m.byVerdict[int(rule)*reasons+int(reason)].Store(&c)
	}
	return c
}

func (m *Metrics) effects(e *push.Effects) {
	for i := range e.Changes {
		c := &e.Changes[i]
		m.changes.WithLabelValues(c.Kind.String(), c.Reason.String()).Inc()
	}
	for i := range e.Drops {
		m.drops.WithLabelValues(e.Drops[i].Reason.String()).Inc()
	}
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collected {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{
		m.inFlight, m.waiting, m.broken, m.oldest, m.registrations, m.counted, m.recorded, m.recording, m.historySeconds, m.historyLines, m.reason,
		m.hookFaults, m.hookHanging,
	} {
		ch <- d
	}
	for _, d := range m.ofCluster.all() {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collected {
		c.Collect(ch)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, r := range metrics.Reasons() {
		gauge(m.reason, 1, r.String(), r.Sentence())
	}
	if r := m.recorder.Load(); r != nil {
		st := (*r).Stats()
		for result, n := range map[string]uint64{"written": st.Lines, "lost": st.Dropped, "unreadable": st.Unreadable} {
			ch <- prometheus.MustNewConstMetric(m.recorded, prometheus.CounterValue, float64(n), result)
		}
		gauge(m.recording, truth(st.Failing))
	}
	if h := m.history.Load(); h != nil {
		reach := (*h).Reach()
		age := 0.0
		if !reach.Since.IsZero() {
			age = time.Since(reach.Since).Seconds()
		}
		gauge(m.historySeconds, age)
		gauge(m.historyLines, float64(reach.Lines))
	}
	if c, at, ok := m.counts.Get(); ok {
		for state, n := range map[string]int{"enabled": c.Enabled, "untried": c.Untried, "failing": c.Failing, "disabled": c.Disabled} {
			gauge(m.registrations, float64(n), state)
		}
		gauge(m.counted, float64(at.Unix()))
	}
	if c := m.cluster.Load(); c != nil {
		st := (*c).Status()
		m.ofCluster.collect(&st, ch)
	}
	e := m.engine.Load()
	if e == nil {
		return
	}
	if h, ok := (*e).(interface{ Hooks() []push.HookStatus }); ok {
		for _, s := range h.Hooks() {
			for kind, n := range map[string]uint64{"panic": s.Panics, "overrun": s.Overruns, "skipped": s.Skipped} {
				ch <- prometheus.MustNewConstMetric(m.hookFaults, prometheus.CounterValue, float64(n), s.Hook, kind)
			}
			gauge(m.hookHanging, float64(s.Hanging), s.Hook)
		}
	}
	type sum struct {
		inFlight, waiting, broken int
		oldest                    time.Time
	}
	sums := make(map[string]sum)
	for _, l := range m.services.Listed {
		sums[l] = sum{}
	}
	for _, s := range (*e).Services() {
		name := m.services.Name(s.Service)
		n := sums[name]
		n.inFlight += s.InFlight
		n.waiting += s.Waiting
		if s.Broken {
			n.broken++
		}
		sums[name] = n
	}
	for service, at := range m.waits.ByService() {
		name := m.services.Name(service)
		n := sums[name]
		if n.oldest.IsZero() || at.Before(n.oldest) {
			n.oldest = at
		}
		sums[name] = n
	}
	for name, n := range sums {
		name = strings.ToValidUTF8(name, "\uFFFD")
		gauge(m.inFlight, float64(n.inFlight), name)
		gauge(m.waiting, float64(n.waiting), name)
		gauge(m.broken, float64(n.broken), name)
		age := 0.0
		if !n.oldest.IsZero() {
			age = max(time.Since(n.oldest).Seconds(), 0)
		}
		gauge(m.oldest, age, name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Registrations counts the registrations of a store by state; push.MemoryStore and store/sql do.
type Registrations = metrics.Registrations

// WatchRegistrations has the registrations of a store counted, at most once a minute and never in the way of a scrape: the first has none yet, and
// if counting fails the last count stays, with its time.
func (m *Metrics) WatchRegistrations(r Registrations) { m.counts.Watch(r) }

// Recorder is what [trace.Recorder] tells of its losses.
type Recorder interface {
	Stats() trace.RecorderStats
}

// WatchRecorder has a recording's losses told.
func (m *Metrics) WatchRecorder(r Recorder) { m.recorder.Store(&r) }

// History is what [pushhttp.History] tells of its reach.
type History interface {
	Reach() pushhttp.Reach
}

// WatchHistory has the reach of the inspector's history told.
func (m *Metrics) WatchHistory(h History) { m.history.Store(&h) }
