// Package pushotel is OpenTelemetry metrics and traces of a push engine.
//
//	t, err := pushotel.New(pushotel.Config{Meter: meter, Tracer: tracer})
//	engine, err := push.New(push.Config{…, Observer: t.Observer()})
//	t.Watch(engine)
//
// Each event that notifies somebody is a span, and each publish is one, from its sending to its reply, which links to the spans of the events
// that caused it. No attribute holds an account or a node; see [Config.Services] for the names of push services.
package pushotel

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/metrics"
)

// Config is where to send what. Either of Meter and Tracer may be nil.
type Config struct {
	Meter  metric.Meter
	Tracer trace.Tracer
	// Services are the push services that go by their own names from the start, MaxServices how many others may: the first that accept a
	// publish. All others are "other". Default 20; negative: none.
	Services    []string
	MaxServices int
}

// Telemetry observes an Engine.
type Telemetry struct {
	cfg      Config
	services metrics.Services
	engine   atomic.Pointer[Engine]

	events, decisions, publishes, replies, changes, drops metric.Int64Counter
	took, deciding                                        metric.Float64Histogram

	// byEvent and byVerdict save making attributes on the Engine's path.
	byEvent   map[string][]metric.AddOption
	byVerdict [rules * reasons]atomic.Pointer[[]metric.AddOption]

	mu sync.Mutex
	// causes are the spans of the last events that notified, by number; order is their numbers.
	causes map[uint64]trace.SpanContext
	order  [maxCauses]uint64
	next   int
	// flights are the publishes that wait for a reply.
	flights map[flight]trace.Span
}

// Engine tells the state of push services; a [push.Engine] does.
type Engine interface {
	Services() []push.ServiceStatus
}

// maxCauses is for how many events the span is remembered. Those of a publish that comes later are not linked.
const maxCauses = 8192

// maxFlights bounds the publishes in flight that have a span.
const maxFlights = 8192

// Rules and reasons that are known by number; others go the slower way.
const rules, reasons = 32, 128

type flight struct {
	account string
	key     push.Key
}

// New returns Telemetry for one Engine, or the error of an instrument.
func New(cfg Config) (*Telemetry, error) {
	if cfg.MaxServices == 0 {
		cfg.MaxServices = 20
	}
	t := &Telemetry{
		cfg: cfg, services: metrics.Services{Listed: cfg.Services, Max: max(cfg.MaxServices, 0)},
		causes: make(map[uint64]trace.SpanContext), flights: make(map[flight]trace.Span),
	}
	if cfg.Meter == nil {
		return t, nil
	}
	t.byEvent = make(map[string][]metric.AddOption)
	for _, ev := range []push.Event{
		push.SessionOpen{}, push.SessionClose{}, push.PushEnable{}, push.PushDisable{}, push.AckDelayed{}, push.HibernationStart{}, push.StanzaQueued{},
		push.HibernationEnd{}, push.ArchiveAdded{}, push.Offline{}, push.Groupchat{}, push.Ping{}, push.AffiliationNone{}, push.AccountRemoved{},
	} {
		t.byEvent[ev.Name()] = with(attribute.String("push.event", ev.Name()))
	}
	var errs []error
	counter := func(name, what string) metric.Int64Counter {
		c, err := cfg.Meter.Int64Counter(name, metric.WithDescription(what))
		errs = append(errs, err)
		return c
	}
	histogram := func(name, what string, bounds ...float64) metric.Float64Histogram {
		h, err := cfg.Meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(bounds...))
		errs = append(errs, err)
		return h
	}
	t.events = counter("push.events", "Events that were handled.")
	t.decisions = counter("push.decisions", "Answers for one registration and event, by the rule that decided and its reason.")
	t.publishes = counter("push.publishes", "Publishes that were sent, retries included.")
	t.replies = counter("push.replies", "Ends of publishes, by what they mean.")
	t.changes = counter("push.registration.changes", "Changes of registrations.")
	t.drops = counter("push.drops", "Notifications that were decided and will not be sent.")
	t.took = histogram("push.reply.duration", "How long push services took to reply.", .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)
	t.deciding = histogram("push.decision.duration", "How long it took to decide an event, without the store.", 1e-6, 2.5e-6, 5e-6, 1e-5, 1e-4, 1e-3, 1e-2)
	errs = append(errs, t.gauges())
	return t, errors.Join(errs...)
}

// gauges has the state of push services asked at each collection.
func (t *Telemetry) gauges() error {
	m := t.cfg.Meter
	inFlight, err1 := m.Int64ObservableGauge("push.service.in_flight", metric.WithDescription("Publishes that wait for a reply."))
	waiting, err2 := m.Int64ObservableGauge("push.service.waiting", metric.WithDescription("Registrations that wait to be published to."))
	broken, err3 := m.Int64ObservableGauge("push.service.broken", metric.WithDescription("How many services under this name do not answer and are probed."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		e := t.engine.Load()
		if e == nil {
			return nil
		}
		type sum struct{ inFlight, waiting, broken int64 }
		sums := make(map[string]sum)
		for _, s := range (*e).Services() {
			n := sums[t.services.Name(s.Service)]
			n.inFlight += int64(s.InFlight)
			n.waiting += int64(s.Waiting)
			if s.Broken {
				n.broken++
			}
			sums[t.services.Name(s.Service)] = n
		}
		for name, n := range sums {
			by := metric.WithAttributes(attribute.String("push.service", name))
			o.ObserveInt64(inFlight, n.inFlight, by)
			o.ObserveInt64(waiting, n.waiting, by)
			o.ObserveInt64(broken, n.broken, by)
		}
		return nil
	}, inFlight, waiting, broken)
	return err
}

// Watch has the state of push services asked of e. It may be called once e is there; without it there are no gauges.
func (t *Telemetry) Watch(e Engine) { t.engine.Store(&e) }

// Observer returns what has to be told of the Engine's doings.
func (t *Telemetry) Observer() *push.Observer {
	o := &push.Observer{}
	if t.cfg.Meter != nil {
		o = push.Observers(o, &push.Observer{Decided: t.countDecided, Affected: t.countAffected, Sent: t.countSent, Replied: t.countReplied})
	}
	if t.cfg.Tracer != nil {
		o = push.Observers(o, &push.Observer{Decided: t.traceDecided, Sent: t.traceSent, Replied: t.traceReplied})
	}
	return o
}

var none = context.Background()

func with(kv ...attribute.KeyValue) []metric.AddOption {
	return []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(kv...))}
}

func add(c metric.Int64Counter, kv ...attribute.KeyValue) { c.Add(none, 1, with(kv...)...) }

// verdict returns the attributes of a verdict. A reason says by itself whether it notifies.
func (t *Telemetry) verdict(notify bool, rule push.Rule, reason push.Reason) []metric.AddOption {
	known := int(rule) < rules && int(reason) < reasons && notify == reason.Notifies()
	if known {
		if o := t.byVerdict[int(rule)*reasons+int(reason)].Load(); o != nil {
			return *o
		}
	}
	o := with(attribute.Bool("push.notify", notify), attribute.String("push.rule", rule.String()), attribute.String("push.reason", reason.String()))
	if known {
		t.byVerdict[int(rule)*reasons+int(reason)].Store(&o)
	}
	return o
}

func (t *Telemetry) countDecided(_ uint64, _ time.Time, ev push.Event, d *push.Decision, took time.Duration) {
	t.events.Add(none, 1, t.byEvent[ev.Name()]...)
	if took > 0 {
		t.deciding.Record(none, took.Seconds())
	}
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		t.decisions.Add(none, 1, t.verdict(v.Notify, v.Rule, v.Reason)...)
	}
	if d.Reason != push.ReasonNone {
		t.decisions.Add(none, 1, t.verdict(false, push.RuleNone, d.Reason)...)
	}
	t.countAffected("", time.Time{}, &d.Effects)
}

func (t *Telemetry) countAffected(_ string, _ time.Time, e *push.Effects) {
	for i := range e.Changes {
		add(t.changes, attribute.String("push.change", string(e.Changes[i].Kind)), attribute.String("push.reason", e.Changes[i].Reason.String()))
	}
	for i := range e.Drops {
		add(t.drops, attribute.String("push.reason", e.Drops[i].Reason.String()))
	}
}

func (t *Telemetry) countSent(_ time.Time, n *push.Notification) {
	add(t.publishes, attribute.String("push.service", t.services.Name(n.Service)), attribute.String("push.class", n.Class.String()))
}

func (t *Telemetry) countReplied(_ time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
	if res.Outcome == push.OutcomeAccepted {
		t.services.Accepted(n.Service)
	}
	service := attribute.String("push.service", t.services.Name(n.Service))
	add(t.replies, service, attribute.String("push.outcome", res.Outcome.String()))
	if !reply.Missing && reply.Vetoed == "" {
		t.took.Record(none, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(service)))
	}
}

// traceDecided makes a span of an event that notifies somebody, for its publishes to link to.
func (t *Telemetry) traceDecided(number uint64, at time.Time, ev push.Event, d *push.Decision, took time.Duration) {
	if !d.Notifies() {
		return
	}
	_, span := t.cfg.Tracer.Start(none, "push "+ev.Name(), trace.WithTimestamp(at), trace.WithAttributes(
		attribute.String("push.event", ev.Name()), attribute.Int64("push.number", int64(number)), attribute.Int("push.registrations", len(d.Verdicts)),
	))
	span.End(trace.WithTimestamp(at.Add(took)))
	sc := span.SpanContext()
	if !sc.IsSampled() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.causes, t.order[t.next])
	t.order[t.next] = number
	t.next = (t.next + 1) % maxCauses
	t.causes[number] = sc
}

func (t *Telemetry) traceSent(at time.Time, n *push.Notification) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.flights) >= maxFlights {
		return
	}
	var links []trace.Link
	for _, number := range n.Events {
		if sc, ok := t.causes[number]; ok {
			links = append(links, trace.Link{SpanContext: sc})
		}
	}
	_, span := t.cfg.Tracer.Start(none, "push publish", trace.WithTimestamp(at), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...),
		trace.WithAttributes(
			attribute.String("push.service", t.services.Name(n.Service)), attribute.String("push.class", n.Class.String()),
			attribute.Int("push.stanzas", n.Count), attribute.Int("push.try", n.Try),
		))
	f := flight{n.Account, n.Key}
	if old := t.flights[f]; old != nil {
		old.End(trace.WithTimestamp(at)) // of a registration that was removed meanwhile
	}
	t.flights[f] = span
}

func (t *Telemetry) traceReplied(at time.Time, n *push.Notification, reply push.Reply, res push.Result, _ time.Duration) {
	if res.Outcome == push.OutcomeAccepted {
		t.services.Accepted(n.Service)
	}
	f := flight{n.Account, n.Key}
	t.mu.Lock()
	span := t.flights[f]
	delete(t.flights, f)
	t.mu.Unlock()
	if span == nil {
		return
	}
	span.SetAttributes(attribute.String("push.outcome", res.Outcome.String()))
	switch {
	case reply.OK():
	case reply.Missing:
		span.SetStatus(codes.Error, "no answer")
	case reply.Vetoed != "":
		span.SetStatus(codes.Error, "vetoed by the host")
	default:
		span.SetStatus(codes.Error, reply.Type+"/"+reply.Condition)
	}
	span.End(trace.WithTimestamp(at))
}
