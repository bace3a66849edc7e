package pushotel

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/xmpp-push/push"
)

const juliet = "juliet@example.com"

func TestTelemetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		spans := tracetest.NewSpanRecorder()
		tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		tel, err := New(Config{Meter: meters.Meter("push"), Tracer: tracers.Tracer("push"), Services: []string{"push.example.net"}, MaxServices: 1})
		require.NoError(t, err)
		tries := 0
		e, err := push.New(push.Config{
			Host: "example.com", Observer: tel.Observer(),
			Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
				time.Sleep(10 * time.Millisecond)
				if tries++; n.Service == "push.example.net" && tries == 1 {
					return &push.ReplyError{Type: "wait", Condition: "resource-constraint"}
				}
				return nil
			}),
		})
		require.NoError(t, err)
		tel.Watch(e)
		raise := func(ev push.Event) {
			_, err := e.Handle(t.Context(), ev)
			require.NoError(t, err)
			time.Sleep(time.Minute)
		}
		k := push.Key{Service: "push.example.net", Node: "secret node"}
		raise(push.PushEnable{Session: push.SessionID{Account: juliet}, Key: k})
		raise(push.Offline{Account: juliet, Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}})
		for i := range 20 {
			a := fmt.Sprintf("user%d@example.com", i)
			raise(push.PushEnable{Session: push.SessionID{Account: a}, Key: push.Key{Service: fmt.Sprintf("attacker%d.example", i)}})
			raise(push.Ping{Account: a})
		}

		ended := spans.Ended()
		require.GreaterOrEqual(t, len(ended), 3)
		cause, first, second := ended[0], ended[1], ended[2]
		assert.Equal(t, "process offline", cause.Name())
		for _, publish := range []sdktrace.ReadOnlySpan{first, second} {
			assert.Equal(t, "send push.example.net", publish.Name())
			assert.Equal(t, cause.SpanContext().TraceID(), publish.SpanContext().TraceID(), "it came from one event")
			assert.Equal(t, cause.SpanContext().SpanID(), publish.Parent().SpanID())
			require.Len(t, publish.Links(), 1)
			assert.Equal(t, cause.SpanContext().SpanID(), publish.Links()[0].SpanContext.SpanID())
			assert.Equal(t, 10*time.Millisecond, publish.EndTime().Sub(publish.StartTime()))
		}
		assert.Equal(t, "wait/resource-constraint", first.Status().Description)
		assert.Empty(t, second.Status().Description)
		assert.Empty(t, tel.flights)

		var got metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &got))
		sums := make(map[string]int64)
		series := make(map[string]int)
		for _, m := range got.ScopeMetrics[0].Metrics {
			assert.NotEmpty(t, m.Unit, m.Name)
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					sums[m.Name] += p.Value
				}
				series[m.Name] = len(d.DataPoints)
			case metricdata.Gauge[int64]:
				series[m.Name] = len(d.DataPoints)
			case metricdata.Histogram[float64]:
				series[m.Name] = len(d.DataPoints)
			}
		}
		assert.Equal(t, int64(42), sums["push.events"])
		assert.Equal(t, int64(22), sums["messaging.client.sent.messages"])
		assert.Equal(t, int64(22), sums["push.replies"])
		assert.LessOrEqual(t, series["messaging.client.operation.duration"], 4, "the attackers share a name")
		assert.LessOrEqual(t, series["push.service.waiting"], 3)
		assert.NotZero(t, series["push.service.waiting"])

		text, err := json.Marshal(got)
		require.NoError(t, err)
		assert.NotContains(t, string(text), juliet)
		assert.NotContains(t, string(text), k.Node)
		for _, s := range ended {
			assert.NotContains(t, fmt.Sprint(s.Name(), s.Attributes()), "@")
		}
		require.NoError(t, e.Close(t.Context()))
	})
}

// What the server was doing when it raised an event is what its spans are children of.
func TestParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("server")
		tel, err := New(Config{Tracer: tracer})
		require.NoError(t, err)
		e, err := push.New(push.Config{Host: "example.com", Observer: tel.Observer(), Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
		require.NoError(t, err)
		_, err = tel.Handle(t.Context(), e, push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: "push.example.net"}})
		require.NoError(t, err)
		ctx, route := tracer.Start(t.Context(), "route message")
		d, err := tel.Handle(ctx, e, push.Offline{Account: juliet, Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}})
		require.NoError(t, err)
		assert.True(t, d.Notifies())
		_, err = tel.Handle(ctx, e, push.Offline{Account: juliet, Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}})
		require.NoError(t, err, "it notifies nobody, and has no span")
		route.End()
		synctest.Wait()
		require.NoError(t, e.Close(t.Context()))
		ended := spans.Ended()
		require.Len(t, ended, 3)
		byName := make(map[string]sdktrace.ReadOnlySpan)
		for _, s := range ended {
			byName[s.Name()] = s
			assert.Equal(t, route.SpanContext().TraceID(), s.SpanContext().TraceID(), s.Name())
		}
		require.Contains(t, byName, "process offline")
		assert.Equal(t, route.SpanContext().SpanID(), byName["process offline"].Parent().SpanID())
		assert.Equal(t, byName["process offline"].SpanContext().SpanID(), byName["send other"].Parent().SpanID())
		assert.Empty(t, tel.parents)
	})
}

func TestOnlyOneOfBoth(t *testing.T) {
	tel, err := New(Config{})
	require.NoError(t, err)
	assert.Nil(t, tel.Observer().Decided)
	tel, err = New(Config{Tracer: sdktrace.NewTracerProvider().Tracer("push")})
	require.NoError(t, err)
	assert.Nil(t, tel.Observer().Affected)
	assert.NotNil(t, tel.Observer().Sent)
}

func BenchmarkDecided(b *testing.B) {
	tel, err := New(Config{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("push")})
	require.NoError(b, err)
	o := tel.Observer()
	var ev push.Event = push.ArchiveAdded{Account: juliet}
	d := &push.Decision{Account: juliet, Verdicts: []push.Verdict{{Notify: true, Rule: push.RuleArchived, Reason: push.ReasonNoSession}}}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		o.Decided(1, now, ev, d, time.Microsecond)
	}
}
