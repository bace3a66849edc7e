package pushotel

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/metrics"
	"github.com/xmpp-push/push/pushhttp"
	"github.com/xmpp-push/push/trace"
)

// collected is one collection: the value of each series, by name and the value of an attribute, if there is one besides messaging.system.
type collected struct {
	values map[string]float64
	units  map[string]string
	sums   map[string]bool // that are cumulative and only grow
}

func collect(t *testing.T, r sdkmetric.Reader) collected {
	t.Helper()
	var got metricdata.ResourceMetrics
	require.NoError(t, r.Collect(t.Context(), &got))
	c := collected{make(map[string]float64), make(map[string]string), make(map[string]bool)}
	series := func(name string, set attribute.Set) string {
		for _, kv := range set.ToSlice() {
			if kv != system {
				name += " " + kv.Value.AsString()
			}
		}
		return name
	}
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name == "push.reason.info" { // always there, and always the same
				reason := push.ReasonSeen
				series := m.Data.(metricdata.Gauge[int64]).DataPoints
				require.Len(t, series, len(metrics.Reasons()))
				require.True(t, slices.ContainsFunc(series, func(p metricdata.DataPoint[int64]) bool {
					return p.Value == 1 && p.Attributes == attribute.NewSet(attribute.String("push.reason", reason.String()), attribute.String("push.text", reason.Sentence()))
				}))
				continue
			}
			c.units[m.Name] = m.Unit
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				c.sums[m.Name] = d.IsMonotonic && d.Temporality == metricdata.CumulativeTemporality
				for _, p := range d.DataPoints {
					c.values[series(m.Name, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					c.values[series(m.Name, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range d.DataPoints {
					c.values[series(m.Name, p.Attributes)] = p.Value
				}
			}
		}
	}
	return c
}

// counter is a store that cannot always count.
type counter struct {
	*push.MemoryStore
	fails atomic.Bool
}

func (c *counter) Count(ctx context.Context) (push.RegistrationCounts, error) {
	if c.fails.Load() {
		return push.RegistrationCounts{}, errors.New("no database")
	}
	return c.MemoryStore.Count(ctx)
}

// What waits is told by its age, what is stored by its state, and how far the history goes.
func TestWhatWaitsAndWhatIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		tel, err := New(Config{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("push"), Services: []string{"push.example.net"}})
		require.NoError(t, err)
		store := &counter{MemoryStore: push.NewMemoryStore()}
		rec, err := trace.NewRecorder(trace.RecorderConfig{Dir: t.TempDir()})
		require.NoError(t, err)
		history := pushhttp.NewHistory(pushhttp.HistoryConfig{})
		var down atomic.Bool
		down.Store(true)
		e, err := push.New(push.Config{
			Host: "example.com", Store: store, Observer: push.Observers(tel.Observer(), rec.Observer(), history.Observer()),
			Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error {
				if down.Load() {
					return &push.ReplyError{Type: "wait", Condition: "resource-constraint"}
				}
				return nil
			}),
		})
		require.NoError(t, err)
		tel.Watch(e)
		assert.Contains(t, collect(t, reader).values, "push.service.oldest_waiting push.example.net", "there from the start, to be alerted on")
		tel.WatchRegistrations(store)
		tel.WatchRecorder(rec)
		tel.WatchHistory(history)
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
		got := collect(t, reader)
		assert.Equal(t, 30.0, got.values["push.service.oldest_waiting push.example.net"])
		assert.NotContains(t, got.values, "push.registrations untried", "the first collection has them counted")
		synctest.Wait()
		got, began := collect(t, reader), time.Now()
		assert.Equal(t, 2.0, got.values["push.registrations untried"])
		assert.Equal(t, float64(began.Unix()), got.values["push.registration.counted"])

		down.Store(false)
		store.fails.Store(true)
		time.Sleep(5 * time.Minute)
		collect(t, reader)
		synctest.Wait()
		got = collect(t, reader)
		assert.Equal(t, 2.0, got.values["push.registrations untried"], "what was counted last")
		assert.Equal(t, float64(began.Unix()), got.values["push.registration.counted"], "and when")

		store.fails.Store(false)
		time.Sleep(5 * time.Minute)
		collect(t, reader)
		synctest.Wait()
		got = collect(t, reader)
		assert.Zero(t, got.values["push.service.oldest_waiting push.example.net"])
		for state, n := range map[string]float64{"enabled": 1, "untried": 1, "failing": 0, "disabled": 0} {
			assert.Contains(t, got.values, "push.registrations "+state)
			assert.Equal(t, n, got.values["push.registrations "+state], state)
		}
		assert.Equal(t, float64(time.Now().Unix()), got.values["push.registration.counted"])
		assert.Greater(t, got.values["push.recorder.lines written"], 3.0)
		assert.InDelta(t, 630, got.values["push.history.reach"], 1)
		assert.Equal(t, float64(history.Reach().Lines), got.values["push.history.lines"])
		assert.Positive(t, got.values["push.history.lines"])
		for name, unit := range map[string]string{
			"push.service.oldest_waiting": "s", "push.registrations": "{registration}", "push.registration.counted": "s",
			"push.recorder.lines": "{line}", "push.recorder.failing": "1", "push.history.reach": "s", "push.history.lines": "{line}",
		} {
			assert.Equal(t, unit, got.units[name], name)
		}
		require.NoError(t, e.Close(t.Context()))
		require.NoError(t, rec.Close())
	})
}

// recorder is one that has lost lines.
type recorder trace.RecorderStats

func (r *recorder) Stats() trace.RecorderStats { return trace.RecorderStats(*r) }

func TestRecorderLosses(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	tel, err := New(Config{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("push")})
	require.NoError(t, err)
	tel.WatchRecorder(&recorder{Lines: 7, Dropped: 3, Unreadable: 2, Failing: true})
	got := collect(t, reader)
	assert.Equal(t, map[string]float64{
		"push.recorder.lines written": 7, "push.recorder.lines lost": 3, "push.recorder.lines unreadable": 2, "push.recorder.failing": 1,
	}, got.values, "and nothing of what is not watched")
	assert.True(t, got.sums["push.recorder.lines"])
	tel.WatchRecorder(&recorder{Lines: 8, Dropped: 3, Unreadable: 2})
	got = collect(t, reader)
	assert.Equal(t, 8.0, got.values["push.recorder.lines written"])
	assert.Contains(t, got.values, "push.recorder.failing")
	assert.Zero(t, got.values["push.recorder.failing"])
}

// muddle is a host whose code panics.
type muddle struct{}

func (muddle) Unread(context.Context, string) (int, error) { panic("not there") }

func TestHostsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		tel, err := New(Config{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("push")})
		require.NoError(t, err)
		e, err := push.New(push.Config{Host: "example.com", Unread: muddle{}, Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
		require.NoError(t, err)
		tel.Watch(e)
		for _, ev := range []push.Event{push.PushEnable{Session: push.SessionID{Account: juliet}, Key: push.Key{Service: "push.example.net"}}, push.Ping{Account: juliet}} {
			_, err := e.Handle(t.Context(), ev)
			require.NoError(t, err)
		}
		synctest.Wait()
		got := collect(t, reader)
		// Attributes come in the order of their keys: push.fault, push.hook.
		for kind, n := range map[string]float64{"panic": 1, "overrun": 0, "skipped": 0} {
			assert.Contains(t, got.values, "push.hook.faults "+kind+" UnreadCounter.Unread")
			assert.Equal(t, n, got.values["push.hook.faults "+kind+" UnreadCounter.Unread"], kind)
		}
		assert.Contains(t, got.values, "push.hook.hanging UnreadCounter.Unread")
		assert.Equal(t, "{fault}", got.units["push.hook.faults"])
		assert.Equal(t, "{call}", got.units["push.hook.hanging"])
		assert.True(t, got.sums["push.hook.faults"])
		require.NoError(t, e.Close(t.Context()))
	})
}

// Without a Meter there is nothing to tell, and nothing that goes wrong.
func TestWatchWithoutMeter(t *testing.T) {
	tel, err := New(Config{})
	require.NoError(t, err)
	tel.WatchRegistrations(push.NewMemoryStore())
	tel.WatchRecorder(&recorder{})
	tel.WatchHistory(pushhttp.NewHistory(pushhttp.HistoryConfig{}))
}
