package pushotel

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/metrics"
	"github.com/xmpp-push/push/pushhttp"
	"github.com/xmpp-push/push/trace"
)

// watched is what is asked at each collection. What is not watched has no metrics.
type watched struct {
	counts   metrics.Counts
	recorder atomic.Pointer[Recorder]
	history  atomic.Pointer[History]
	cluster  atomic.Pointer[Cluster]
}

// Registrations counts the registrations of a store by state; push.MemoryStore and store/sql do.
type Registrations = metrics.Registrations

// WatchRegistrations has the registrations of a store counted, at most once a minute and never in the way of a collection: the first has none yet,
// and if counting fails the last count stays, with its time. Nodes with one database count the same registrations: do not add them up.
func (t *Telemetry) WatchRegistrations(r Registrations) { t.watched.counts.Watch(r) }

// Recorder is what [trace.Recorder] tells of its losses.
type Recorder interface {
	Stats() trace.RecorderStats
}

// WatchRecorder has a recording's losses told.
func (t *Telemetry) WatchRecorder(r Recorder) { t.watched.recorder.Store(&r) }

// History is what [pushhttp.History] tells of its reach.
type History interface {
	Reach() pushhttp.Reach
}

// WatchHistory has the reach of the inspector's history told.
func (t *Telemetry) WatchHistory(h History) { t.watched.history.Store(&h) }

// observe has the sources asked at each collection.
func (t *Telemetry) observe() error {
	var (
		m    = t.cfg.Meter
		errs []error
		all  []metric.Observable
	)
	gauge := func(name, unit, what string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs, all = append(errs, err), append(all, g)
		return g
	}
	counter := func(name, unit, what string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs, all = append(errs, err), append(all, c)
		return c
	}
	registrations := gauge("push.registrations", "{registration}", "Registrations in the store by state: enabled, untried (no success yet), failing (errors lately), disabled.")
	counted := gauge("push.registration.counted", "s", "When the registrations were counted, since 1970-01-01 UTC.")
	lines := counter("push.recorder.lines", "{line}", "Lines of the recording by what became of them: written, lost, unreadable.")
	failing := gauge("push.recorder.failing", "1", "Whether the recording cannot be written at present: 1 or 0.")
	kept := gauge("push.history.lines", "{line}", "Lines in the inspector's history.")
	faults := counter("push.hook.faults", "{fault}", "What went wrong with the host's own code: panics, calls that took too long, calls not made because others hang.")
	hanging := gauge("push.hook.hanging", "{call}", "Calls of the host's own code that have not returned.")
	sentences := gauge("push.reason.info", "1", "The sentence of each reason, by its token.")
	reach, err := m.Float64ObservableGauge("push.history.reach", metric.WithUnit("s"), metric.WithDescription("How far back the inspector's history reaches."))
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, r := range metrics.Reasons() {
			o.ObserveInt64(sentences, 1, metric.WithAttributes(attribute.String("push.reason", r.String()), attribute.String("push.text", r.Sentence())))
		}
		if c, at, ok := t.watched.counts.Get(); ok {
			for state, n := range map[string]int{"enabled": c.Enabled, "untried": c.Untried, "failing": c.Failing, "disabled": c.Disabled} {
				o.ObserveInt64(registrations, int64(n), metric.WithAttributes(attribute.String("push.state", state)))
			}
			o.ObserveInt64(counted, at.Unix())
		}
		if r := t.watched.recorder.Load(); r != nil {
			st := (*r).Stats()
			for result, n := range map[string]uint64{"written": st.Lines, "lost": st.Dropped, "unreadable": st.Unreadable} {
				o.ObserveInt64(lines, int64(n), metric.WithAttributes(attribute.String("push.result", result)))
			}
			var is int64
			if st.Failing {
				is = 1
			}
			o.ObserveInt64(failing, is)
		}
		if h := t.watched.history.Load(); h != nil {
			r := (*h).Reach()
			age := 0.0
			if !r.Since.IsZero() {
				age = max(time.Since(r.Since).Seconds(), 0)
			}
			o.ObserveFloat64(reach, age)
			o.ObserveInt64(kept, int64(r.Lines))
		}
		e := t.engine.Load()
		if e == nil {
			return nil
		}
		if h, ok := (*e).(interface{ Hooks() []push.HookStatus }); ok {
			for _, s := range h.Hooks() {
				hook := attribute.String("push.hook", s.Hook)
				for kind, n := range map[string]uint64{"panic": s.Panics, "overrun": s.Overruns, "skipped": s.Skipped} {
					o.ObserveInt64(faults, int64(n), metric.WithAttributes(hook, attribute.String("push.fault", kind)))
				}
				o.ObserveInt64(hanging, int64(s.Hanging), metric.WithAttributes(hook))
			}
		}
		return nil
	}, append(all, reach)...)
	return errors.Join(err, t.observeCluster())
}
