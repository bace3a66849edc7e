// Package pushprometheus is metrics of a push engine for Prometheus.
//
//	m := pushprometheus.New(pushprometheus.Config{Services: []string{"push.example.net"}})
//	engine, err := push.New(push.Config{…, Observer: m.Observer()})
//	m.Watch(engine)
//	prometheus.MustRegister(m)
//
// No label holds an account, a node or anything else whose number strangers decide about; see [Config.Services] for push services. The folder
// has alerting rules (alerts.yml) and a dashboard for Grafana (dashboard.json) that go with it.
package pushprometheus

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/metrics"
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

// Metrics is a [prometheus.Collector] that observes an Engine.
type Metrics struct {
	services metrics.Services
	engine   atomic.Pointer[Engine]

	events    *prometheus.CounterVec
	decisions *prometheus.CounterVec
	publishes *prometheus.CounterVec
	replies   *prometheus.CounterVec
	took      *prometheus.HistogramVec
	deciding  prometheus.Histogram
	changes   *prometheus.CounterVec
	drops     *prometheus.CounterVec
	collected []prometheus.Collector

	inFlight, waiting, broken *prometheus.Desc

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
	m.collected = append(m.collected, m.took, m.deciding)
	gauge := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(cfg.Namespace, "", name), help, []string{"service"}, nil)
	}
	m.inFlight = gauge("service_in_flight", "Publishes that wait for a reply.")
	m.waiting = gauge("service_waiting", "Registrations that wait to be published to.")
	m.broken = gauge("service_broken", "How many services under this name do not answer and are probed.")
	for _, ev := range []push.Event{
		push.SessionOpen{}, push.SessionClose{}, push.PushEnable{}, push.PushDisable{}, push.AckDelayed{}, push.HibernationStart{}, push.StanzaQueued{},
		push.HibernationEnd{}, push.ArchiveAdded{}, push.Offline{}, push.Groupchat{}, push.Ping{}, push.AffiliationNone{}, push.AccountRemoved{},
	} {
		m.byEvent[ev.Name()] = m.events.WithLabelValues(ev.Name())
	}
	// Series that are there from the start can be alerted on from the start.
	m.changes.WithLabelValues(string(push.ChangeDisabled), push.ReasonErrors.String())
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
		Decided: func(_ uint64, _ time.Time, ev push.Event, d *push.Decision, took time.Duration) {
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
		},
		Affected: func(_ string, _ time.Time, e *push.Effects) { m.effects(e) },
		Sent: func(_ time.Time, n *push.Notification) {
			m.publishes.WithLabelValues(m.services.Name(n.Service), n.Class.String()).Inc()
		},
		Replied: func(_ time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
			if res.Outcome == push.OutcomeAccepted {
				m.services.Accepted(n.Service)
			}
			name := m.services.Name(n.Service)
			m.replies.WithLabelValues(name, res.Outcome.String()).Inc()
			if !reply.Missing && reply.Vetoed == "" {
				m.took.WithLabelValues(name).Observe(took.Seconds())
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
		m.changes.WithLabelValues(string(c.Kind), c.Reason.String()).Inc()
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
	ch <- m.inFlight
	ch <- m.waiting
	ch <- m.broken
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collected {
		c.Collect(ch)
	}
	e := m.engine.Load()
	if e == nil {
		return
	}
	type sum struct{ inFlight, waiting, broken int }
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
	for name, n := range sums {
		name = strings.ToValidUTF8(name, "\uFFFD")
		ch <- prometheus.MustNewConstMetric(m.inFlight, prometheus.GaugeValue, float64(n.inFlight), name)
		ch <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(n.waiting), name)
		ch <- prometheus.MustNewConstMetric(m.broken, prometheus.GaugeValue, float64(n.broken), name)
	}
}
