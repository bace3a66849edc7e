// Package pushotel is OpenTelemetry metrics and traces of a push engine.
//
//	t, err := pushotel.New(pushotel.Config{Meter: meter, Tracer: tracer})
//	engine, err := push.New(push.Config{…, Observer: t.Observer()})
//	t.Watch(engine)
//	t.Handle(ctx, engine, ev) // instead of engine.Handle, where ctx has the span of what the server is doing
//
// Optional: WatchRegistrations, WatchRecorder, WatchHistory, and WatchCluster for a node of a cluster. They need a Meter.
//
// Each event that notifies somebody is a span (process archive-added), a child of the caller's if it came through Handle; each publish is one
// (send push.example.net), from its sending to its reply. It is a child of the event's span if it came from one event only, and links to those that
// it came from. Names and attributes are those of the semantic conventions for messaging, with messaging.system "xmpp_push", and push.… for what they
// do not know; tokens are those of push. No attribute holds an account or a node; see [Config.Services] for the names of push services.
package pushotel

import (
	"context"
	"errors"
	"slices"
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

// Telemetry observes an Engine. Safe for simultaneous use.
type Telemetry struct {
	cfg      Config
	services metrics.Services
	engine   atomic.Pointer[Engine]

	events, decisions, publishes, replies, changes, drops metric.Int64Counter
	took, deciding, delivery, stored                      metric.Float64Histogram
	waits                                                 metrics.Waiting
	watched                                               watched

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
	// parents are the spans of those who handle an event at this moment, by account.
	parents map[string][]parent
}

// parent is the span of who handles an event.
type parent struct {
	event, stanza string
	span          trace.SpanContext
}

// Handler is what a [push.Engine] is to those who raise events.
type Handler interface {
	Handle(ctx context.Context, ev push.Event) (push.Decision, error)
}

// Handle gives an event to the Engine, and has the span of the event be a child of ctx's. Without a span in ctx that is sampled it costs nothing.
func (t *Telemetry) Handle(ctx context.Context, e Handler, ev push.Event) (push.Decision, error) {
	span := trace.SpanContextFromContext(ctx)
	if t.cfg.Tracer == nil || !span.IsSampled() {
		return e.Handle(ctx, ev)
	}
	account, p := ev.Subject().Account, parent{ev.Name(), stanzaOf(ev), span}
	t.mu.Lock()
	t.parents[account] = append(t.parents[account], p)
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.takeParent(account, func(o parent) bool { return o.event == p.event && o.stanza == p.stanza && o.span.Equal(p.span) })
	}()
	return e.Handle(ctx, ev)
}

// takeParent removes the first parent of an account for which is says so, and returns its span. t is locked.
func (t *Telemetry) takeParent(account string, is func(parent) bool) trace.SpanContext {
	ps := t.parents[account]
	i := slices.IndexFunc(ps, is)
	if i < 0 {
		return trace.SpanContext{}
	}
	span := ps[i].span
	if ps = slices.Delete(ps, i, i+1); len(ps) == 0 {
		delete(t.parents, account)
	} else {
		t.parents[account] = ps
	}
	return span
}

// stanzaOf tells events of one kind apart.
func stanzaOf(ev push.Event) string {
	switch e := ev.(type) {
	case push.ArchiveAdded:
		return e.Stanza.ID
	case push.Offline:
		return e.Stanza.ID
	case push.Groupchat:
		return e.Stanza.ID
	case push.StanzaQueued:
		return e.Session.ID + " " + e.Stanza.ID
	default:
		return ev.Subject().ID
	}
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
		causes: make(map[uint64]trace.SpanContext), flights: make(map[flight]trace.Span), parents: make(map[string][]parent),
	}
	if cfg.Meter == nil {
		return t, nil
	}
	t.byEvent = make(map[string][]metric.AddOption)
	for _, name := range metrics.Events {
		t.byEvent[name] = with(attribute.String("push.event", name))
	}
	var errs []error
	counter := func(name, unit, what string) metric.Int64Counter {
		c, err := cfg.Meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs = append(errs, err)
		return c
	}
	histogram := func(name, what string, bounds ...float64) metric.Float64Histogram {
		h, err := cfg.Meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(bounds...))
		errs = append(errs, err)
		return h
	}
	t.events = counter("push.events", "{event}", "Events that were handled.")
	t.decisions = counter("push.decisions", "{decision}", "Answers for one registration and event, by the rule that decided and its reason.")
	t.publishes = counter("messaging.client.sent.messages", "{message}", "Publishes that were sent, retries included.")
	t.replies = counter("push.replies", "{reply}", "Ends of publishes, by what they mean.")
	t.changes = counter("push.registration.changes", "{change}", "Changes of registrations.")
	t.drops = counter("push.drops", "{notification}", "Notifications that were decided and will not be sent.")
	t.took = histogram("messaging.client.operation.duration", "How long push services took to reply.", .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)
	t.delivery = histogram("push.delivery.duration", "Time from the event that a notification came from to its acceptance, waits and retries included.", .01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200)
	t.stored = histogram("push.store.duration", "How long calls of the store took; those that failed have error.type.", .0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 30)
	t.deciding = histogram("push.decision.duration", "How long it took to decide an event, without the store.", 1e-6, 2.5e-6, 5e-6, 1e-5, 1e-4, 1e-3, 1e-2)
	errs = append(errs, t.gauges(), t.observe())
	return t, errors.Join(errs...)
}

// gauges has the state of push services asked at each collection.
func (t *Telemetry) gauges() error {
	m := t.cfg.Meter
	gauge := func(name, unit, what string) (metric.Int64ObservableGauge, error) {
		return m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	}
	inFlight, err1 := gauge("push.service.in_flight", "{notification}", "Publishes that wait for a reply.")
	waiting, err2 := gauge("push.service.waiting", "{registration}", "Registrations that are due and wait for their turn; not those that wait for their next try.")
	broken, err3 := gauge("push.service.broken", "{service}", "How many services under this name do not answer and are probed.")
	oldest, err4 := m.Float64ObservableGauge("push.service.oldest_waiting", metric.WithUnit("s"), metric.WithDescription("Age of the oldest notification that was not accepted yet; 0 if none waits."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		e := t.engine.Load()
		if e == nil {
			return nil
		}
		type sum struct {
			inFlight, waiting, broken int64
			oldest                    time.Time
		}
		sums := make(map[string]sum)
		for _, l := range t.services.Listed {
			sums[l] = sum{}
		}
		for _, s := range (*e).Services() {
			n := sums[t.services.Name(s.Service)]
			n.inFlight += int64(s.InFlight)
			n.waiting += int64(s.Waiting)
			if s.Broken {
				n.broken++
			}
			sums[t.services.Name(s.Service)] = n
		}
		for service, at := range t.waits.ByService() {
			n := sums[t.services.Name(service)]
			if n.oldest.IsZero() || at.Before(n.oldest) {
				n.oldest = at
			}
			sums[t.services.Name(service)] = n
		}
		for name, n := range sums {
			by := metric.WithAttributes(system, attribute.String(destination, name))
			age := 0.0
			if !n.oldest.IsZero() {
				age = max(time.Since(n.oldest).Seconds(), 0)
			}
			o.ObserveFloat64(oldest, age, by)
			o.ObserveInt64(inFlight, n.inFlight, by)
			o.ObserveInt64(waiting, n.waiting, by)
			o.ObserveInt64(broken, n.broken, by)
		}
		return nil
	}, inFlight, waiting, broken, oldest)
	return err
}

// Watch has the state of push services, and what went wrong with the host's own code, asked of e. It may be called once e is there; without it neither
// has metrics.
func (t *Telemetry) Watch(e Engine) { t.engine.Store(&e) }

// Observer returns what has to be told of the Engine's doings.
func (t *Telemetry) Observer() *push.Observer {
	o := &push.Observer{}
	if t.cfg.Meter != nil {
		o = push.Observers(o, &push.Observer{Decided: t.countDecided, Stored: t.countStored, Affected: t.countAffected, Sent: t.countSent, Replied: t.countReplied})
	}
	if t.cfg.Tracer != nil {
		o = push.Observers(o, &push.Observer{Decided: t.traceDecided, Sent: t.traceSent, Replied: t.traceReplied})
	}
	return o
}

var none = context.Background()

// Of the semantic conventions for messaging.
const (
	destination   = "messaging.destination.name"
	operationName = "messaging.operation.name"
	operationType = "messaging.operation.type"
	errorType     = "error.type"
)

var (
	system  = attribute.String("messaging.system", "xmpp_push")
	publish = attribute.String(operationName, "publish")
	send    = attribute.String(operationType, "send")
	process = attribute.String(operationType, "process")
)

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

func (t *Telemetry) countDecided(_ uint64, at time.Time, ev push.Event, d *push.Decision, took time.Duration) {
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
	t.countEffects(&d.Effects)
	t.waits.Decided(at, d)
}

func (t *Telemetry) countAffected(account string, _ time.Time, e *push.Effects) {
	t.countEffects(e)
	t.waits.Affected(account, e)
}

func (t *Telemetry) countEffects(e *push.Effects) {
	for i := range e.Changes {
		add(t.changes, attribute.String("push.change", e.Changes[i].Kind.String()), attribute.String("push.reason", e.Changes[i].Reason.String()))
	}
	for i := range e.Drops {
		add(t.drops, attribute.String("push.reason", e.Drops[i].Reason.String()))
	}
}

func (t *Telemetry) countStored(_ string, _ time.Time, call string, took time.Duration, err error) {
	attributes := []attribute.KeyValue{attribute.String("push.store.call", call)}
	if err != nil && !errors.Is(err, push.ErrNotRegistered) {
		attributes = append(attributes, attribute.String(errorType, "_OTHER"))
	}
	t.stored.Record(none, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(attributes...)))
}

func (t *Telemetry) countSent(_ time.Time, n *push.Notification) {
	add(t.publishes, system, publish, attribute.String(destination, t.services.Name(n.Service)), attribute.String("push.class", n.Class.String()))
	t.waits.Sent(n)
}

func (t *Telemetry) countReplied(at time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
	if res.Outcome == push.OutcomeAccepted {
		t.services.Accepted(n.Service)
	}
	service := attribute.String(destination, t.services.Name(n.Service))
	add(t.replies, system, service, attribute.String("push.outcome", res.Outcome.String()))
	if !reply.Missing && reply.Vetoed == "" {
		attributes := []attribute.KeyValue{system, publish, send, service}
		if !reply.OK() {
			attributes = append(attributes, attribute.String(errorType, res.Outcome.String()))
		}
		t.took.Record(none, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(attributes...)))
	}
	if late, ok := t.waits.Replied(at, n, res); ok {
		t.delivery.Record(none, late.Seconds(), metric.WithAttributeSet(attribute.NewSet(system, service, attribute.String("push.class", n.Class.String()))))
	}
}

// traceDecided makes a span of an event that notifies somebody, for its publishes to link to.
func (t *Telemetry) traceDecided(number uint64, at time.Time, ev push.Event, d *push.Decision, took time.Duration) {
	if !d.Notifies() {
		return
	}
	t.mu.Lock()
	above := t.takeParent(d.Account, func(p parent) bool { return p.event == ev.Name() && p.stanza == stanzaOf(ev) })
	t.mu.Unlock()
	ctx := none
	if above.IsValid() {
		ctx = trace.ContextWithSpanContext(none, above)
	}
	_, span := t.cfg.Tracer.Start(ctx, "process "+ev.Name(), trace.WithTimestamp(at), trace.WithAttributes(
		system, process, attribute.String(operationName, ev.Name()),
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
	ctx := none
	if len(links) == 1 && len(n.Events) == 1 {
		ctx = trace.ContextWithSpanContext(none, links[0].SpanContext)
	}
	service := t.services.Name(n.Service)
	_, span := t.cfg.Tracer.Start(ctx, "send "+service, trace.WithTimestamp(at), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...),
		trace.WithAttributes(
			system, publish, send, attribute.String(destination, service), attribute.String("push.class", n.Class.String()),
			attribute.Int("messaging.batch.message_count", n.Count), attribute.Int("push.try", n.Try),
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
		span.SetAttributes(attribute.String(errorType, "timeout"))
		span.SetStatus(codes.Error, "no answer")
	case reply.Vetoed != "":
		span.SetStatus(codes.Error, "vetoed by the host")
	default:
		span.SetAttributes(attribute.String(errorType, reply.Condition))
		span.SetStatus(codes.Error, reply.Type+"/"+reply.Condition)
	}
	span.End(trace.WithTimestamp(at))
}
