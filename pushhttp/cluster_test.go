package pushhttp

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/cluster"
)

// An operator sees who lives, who owns what, and what is wrong; the overview says it first.
func TestCluster(t *testing.T) {
	st := &cluster.Status{
		Node: "n0", Nodes: []string{"n0", "n1"}, Version: 1, Accepted: 70, Refused: 3, Alone: 2, Unreported: 1, Lives: 1, Resent: 4,
		Partitions: []cluster.Partition{
			{Partition: 0, Owner: "n0", Owned: true, Phase: cluster.PhaseOwning, Lag: 5, Accounts: 12, Active: 3, InFlight: 1, Takeovers: 2, TakenIn: 1500 * time.Millisecond},
			{Partition: 1, Owner: "n1", Phase: cluster.PhaseIdle},
		},
	}
	e, err := push.New(push.Config{Host: "example.com", Publisher: push.PublisherFunc(func(context.Context, *push.Notification) error { return nil })})
	require.NoError(t, err)
	p, err := New(Config{Engine: e, Cluster: statusFunc(func() cluster.Status { return *st }), Authorize: func(*http.Request) (string, bool) { return "op", true }})
	require.NoError(t, err)
	get := func(path, accept string) string {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code, path)
		return w.Body.String()
	}
	var page struct {
		Nodes []struct {
			Node, State string
			Partitions  int
		}
		Partitions []struct {
			Partition int
			Owner     string
			Lag       int64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(get("/cluster", "application/json")), &page))
	require.Len(t, page.Nodes, 2)
	assert.Equal(t, "this node", page.Nodes[0].State)
	assert.Equal(t, 1, page.Nodes[1].Partitions)
	require.Len(t, page.Partitions, 2)
	assert.EqualValues(t, 5, page.Partitions[0].Lag)
	require.NoError(t, json.Unmarshal([]byte(get("/cluster?only=own", "application/json")), &page))
	assert.Len(t, page.Partitions, 1)

	html := get("/cluster", "text/html")
	for _, want := range []string{"The log is yet to be told of 1 event that this node decided alone.", "owned here", "elsewhere", "1.5 s"} {
		assert.Contains(t, html, want)
	}
	assert.Contains(t, get("/", "text/html"), `href="cluster"`)
	assert.NotContains(t, get("/", "text/html"), "Nothing is heard of")

	st.Missing, st.Unreported = []string{"n2"}, 0
	st.Partitions[1].Phase, st.Partitions[1].Err = cluster.PhaseStuck, "written by a later version"
	first := get("/", "text/html")
	assert.Contains(t, first, "Nothing is heard of n2.")
	assert.Contains(t, first, "This node cannot read 1 partition")
	assert.True(t, strings.Contains(first, `class="answer bad"`))
	assert.Contains(t, get("/cluster", "text/html"), "written by a later version")

	st.Outdated = true
	assert.Contains(t, get("/", "text/html"), "Upgrade it.")

	alone, err := New(Config{Engine: e, Authorize: func(*http.Request) (string, bool) { return "op", true }})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	alone.ServeHTTP(w, httptest.NewRequest("GET", "/cluster", nil))
	assert.Equal(t, 404, w.Code)
}

type statusFunc func() cluster.Status

func (f statusFunc) Status() cluster.Status { return f() }
