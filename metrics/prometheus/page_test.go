package pushprometheus

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push/metrics/internal/page"
)

// TestPage compares docs/metrics.md with what is exported: each metric has a row with its labels, its kind and its unit, and no row is of a metric that is not there.
func TestPage(t *testing.T) {
	rows, _, err := page.Read("../../docs/metrics.md")
	require.NoError(t, err)
	m := New(Config{})
	histograms := make(map[string]bool)
	described := func(c prometheus.Collector) (ds []string) {
		ch := make(chan *prometheus.Desc, 200)
		c.Describe(ch)
		close(ch)
		for d := range ch {
			ds = append(ds, d.String())
		}
		return ds
	}
	name := func(desc string) string { return regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(desc)[1] }
	for _, c := range m.collected {
		if _, is := c.(*prometheus.CounterVec); !is {
			histograms[name(described(c)[0])] = true
		}
	}
	require.Len(t, histograms, 4)
	exported := make(map[string]bool)
	for _, desc := range described(m) {
		n := name(desc)
		exported[n] = true
		i := slices.IndexFunc(rows, func(r page.Row) bool { return r.Prometheus == n })
		if !assert.GreaterOrEqual(t, i, 0, "the page has no row for %s", n) {
			continue
		}
		var labels []string
		if l := regexp.MustCompile(`variableLabels: \{([^}]*)\}`).FindStringSubmatch(desc)[1]; l != "" {
			labels = strings.Split(l, ",")
		}
		slices.Sort(labels)
		r := rows[i]
		assert.Equal(t, labels, r.Labels, n)
		kind := "gauge"
		switch {
		case histograms[n]:
			kind = "histogram"
		case strings.HasSuffix(n, "_total"):
			kind = "counter"
		}
		assert.Equal(t, kind, r.Kind, n)
		assert.Equal(t, strings.Contains(n, "_seconds"), r.Unit == "seconds", "%s: %s", n, r.Unit)
		assert.Equal(t, strings.Contains(n, "_bytes"), r.Unit == "bytes", "%s: %s", n, r.Unit)
		assert.Contains(t, r.Answers, "?", "%s answers no question", n)
	}
	for _, r := range rows {
		assert.True(t, exported[r.Prometheus], "the page has %s, which is not there", r.Prometheus)
	}
	assert.Equal(t, len(exported), len(rows))
}

// TestFromTheStart: what alerts are about is there before it happens for the first time.
func TestFromTheStart(t *testing.T) {
	m := New(Config{})
	require.NoError(t, testutil.CollectAndCompare(m.changes, strings.NewReader(`# HELP push_registration_changes_total Changes of registrations.
# TYPE push_registration_changes_total counter
push_registration_changes_total{change="disabled",reason="errors"} 0
`)))
}
