package pushotel

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster"
	"github.com/xmpp-push/push/metrics/internal/page"
	"github.com/xmpp-push/push/pushhttp"
	"github.com/xmpp-push/push/trace"
)

// instruments is a Meter that notes which instruments are made: kind and unit by name.
type instruments struct {
	noop.Meter
	made map[string][2]string
}

func (m *instruments) Int64Counter(name string, o ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	c := metric.NewInt64CounterConfig(o...)
	m.made[name] = [2]string{"counter", c.Unit()}
	return m.Meter.Int64Counter(name, o...)
}

func (m *instruments) Float64Histogram(name string, o ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	c := metric.NewFloat64HistogramConfig(o...)
	m.made[name] = [2]string{"histogram", c.Unit()}
	return m.Meter.Float64Histogram(name, o...)
}

func (m *instruments) Int64ObservableGauge(name string, o ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	c := metric.NewInt64ObservableGaugeConfig(o...)
	m.made[name] = [2]string{"gauge", c.Unit()}
	return m.Meter.Int64ObservableGauge(name, o...)
}

func (m *instruments) Float64ObservableGauge(name string, o ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	c := metric.NewFloat64ObservableGaugeConfig(o...)
	m.made[name] = [2]string{"gauge", c.Unit()}
	return m.Meter.Float64ObservableGauge(name, o...)
}

func (m *instruments) Int64ObservableCounter(name string, o ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	c := metric.NewInt64ObservableCounterConfig(o...)
	m.made[name] = [2]string{"counter", c.Unit()}
	return m.Meter.Int64ObservableCounter(name, o...)
}

// TestPage compares docs/metrics.md with what is told: each instrument has a row with its kind, its unit and its attributes.
func TestPage(t *testing.T) {
	rows, attributes, err := page.Read("../../docs/metrics.md")
	require.NoError(t, err)
	row := func(name string) (page.Row, bool) {
		i := slices.IndexFunc(rows, func(r page.Row) bool { return r.OpenTelemetry == name })
		if i < 0 {
			return page.Row{}, false
		}
		return rows[i], true
	}
	meter := &instruments{made: make(map[string][2]string)}
	_, err = New(Config{Meter: meter})
	require.NoError(t, err)
	units := map[string]string{"s": "seconds", "By": "bytes", "1": "1", "{life}": "lives", "{reply}": "replies", "{publish}": "publishes"}
	for name, is := range meter.made {
		r, ok := row(name)
		if !assert.True(t, ok, "the page has no row for %s", name) {
			continue
		}
		assert.Equal(t, is[0], r.Kind, name)
		unit, ok := units[is[1]]
		if !ok {
			unit = strings.Trim(is[1], "{}") + "s"
		}
		assert.Equal(t, unit, r.Unit, name)
	}
	for _, r := range rows {
		if _, ok := meter.made[r.OpenTelemetry]; !ok && r.OpenTelemetry != "" {
			t.Errorf("the page has %s, which is not there", r.OpenTelemetry)
		}
	}

	// Something of everything happens, and each point has the attributes that the page names.
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		tel, err := New(Config{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("push")})
		require.NoError(t, err)
		store := push.NewMemoryStore()
		rec, err := trace.NewRecorder(trace.RecorderConfig{Dir: t.TempDir()})
		require.NoError(t, err)
		history := pushhttp.NewHistory(pushhttp.HistoryConfig{})
		e, err := push.New(push.Config{
			Host: "example.com", Store: store, Unread: muddle{}, Observer: push.Observers(tel.Observer(), rec.Observer(), history.Observer()),
			Publisher: push.PublisherFunc(func(_ context.Context, n *push.Notification) error {
				if n.Node == "gone" {
					return &push.ReplyError{Type: "cancel", Condition: "item-not-found"}
				}
				return nil
			}),
		})
		require.NoError(t, err)
		tel.Watch(e)
		tel.WatchRegistrations(store)
		tel.WatchRecorder(rec)
		tel.WatchHistory(history)
		tel.WatchCluster(&someCluster{Node: "n0", Nodes: []string{"n0"}, Partitions: []cluster.Partition{{Owner: "n0", Owned: true, Phase: cluster.PhaseOwning}}})
		for _, ev := range []push.Event{
			push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: push.Key{Service: "push.example.net", Node: "n"}},
			push.PushEnable{Session: push.SessionID{Account: "juliet@example.com"}, Key: push.Key{Service: "push.example.net", Node: "gone"}},
			push.Offline{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m", Class: push.ClassImportant}},
		} {
			_, err := e.Handle(t.Context(), ev)
			require.NoError(t, err)
			synctest.Wait()
		}
		tel.Observer().Decided(1, time.Now(), push.Ping{Account: "romeo@example.com"}, &push.Decision{}, time.Microsecond) // virtual time does not pass while something is decided
		var got metricdata.ResourceMetrics
		for range 2 { // the first has the registrations counted
			require.NoError(t, reader.Collect(t.Context(), &got))
			synctest.Wait()
		}
		seen := make(map[string]bool)
		for _, scope := range got.ScopeMetrics {
			for _, m := range scope.Metrics {
				r, _ := row(m.Name)
				seen[m.Name] = true
				sets := points(m.Data)
				assert.NotEmpty(t, sets, m.Name)
				for _, set := range sets {
					var keys []string
					for _, kv := range set.ToSlice() {
						switch k := string(kv.Key); k {
						case "messaging.system", operationName, operationType, errorType:
						default:
							keys = append(keys, k)
						}
					}
					var want []string
					for _, l := range r.Labels {
						want = append(want, attributes.Of(l))
					}
					slices.Sort(want)
					assert.Equal(t, want, keys, m.Name)
				}
			}
		}
		for name := range meter.made {
			assert.True(t, seen[name], "nothing was told of %s", name)
		}
		require.NoError(t, e.Close(t.Context()))
		require.NoError(t, rec.Close())
	})
}

// points are the attributes of each point.
func points(data metricdata.Aggregation) (sets []attribute.Set) {
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
	}
	return sets
}
