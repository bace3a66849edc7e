package pushhttp

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/xmpp-push/push/cluster"
)

// Cluster tells how it stands with a node of several; a Node of cluster/jetstream does.
type Cluster interface {
	Status() cluster.Status
}

// clusterPage is the cluster as this node sees it.
type clusterPage struct {
	page
	First      sentence        `json:"summary"`
	Mood       string          `json:"-"`
	Node       string          `json:"node"`
	Version    int             `json:"version"`
	Figures    []figure        `json:"figures"`
	Nodes      []nodeView      `json:"nodes"`
	Partitions []partitionView `json:"partitions"`
	Own        int             `json:"owned"`
	Only       string          `json:"-"`
}

// nodeView is a node: this one, another that is alive, or one that is missing.
type nodeView struct {
	Node  string `json:"node"`
	State string `json:"state"` // "this node", "alive", "missing"
	Mood  string `json:"-"`
	Share int    `json:"partitions"`
}

// partitionView is a partition.
type partitionView struct {
	Partition int           `json:"partition"`
	Owner     string        `json:"owner"`
	Phase     string        `json:"phase"`
	State     string        `json:"-"`
	Mood      string        `json:"-"`
	Owned     bool          `json:"owned"`
	Lag       int64         `json:"lag"`
	Accounts  int           `json:"accounts"`
	Active    int           `json:"active"`
	InFlight  int           `json:"in_flight"`
	Published int           `json:"published"`
	Takeovers int           `json:"takeovers"`
	Resent    int           `json:"sent_again"`
	Took      time.Duration `json:"takeover_ns"`
	Err       string        `json:"error,omitempty"`
}

// lagging is from how many unread messages of the log on an owner does not keep up.
const lagging = 10_000

// clusterTrouble is a sentence of what is wrong with the cluster as this node sees it, and how much; empty if nothing is.
func clusterTrouble(st *cluster.Status) (s sentence, mood string) {
	n := st.Sum()
	say := func(m, text string) {
		if len(s) > 0 {
			s.say(" ")
		}
		s.say(text)
		if mood != "bad" {
			mood = m
		}
	}
	if st.Outdated {
		say("bad", "This node has left the cluster: the others have a later version of the program. Upgrade it.")
		return s, mood
	}
	if n.Stuck > 0 {
		say("bad", "This node cannot read "+plural(n.Stuck, "partition")+", and must not skip what is in them.")
	}
	if len(st.Missing) > 0 {
		say("bad", "Nothing is heard of "+strings.Join(st.Missing, ", ")+".")
	}
	if n.Lag >= lagging {
		say("wait", "This node does not keep up: "+plural(int(n.Lag), "message")+" of the log wait in one partition.")
	}
	if st.Unreported > 0 {
		say("wait", "The log is yet to be told of "+plural(int(st.Unreported), "event")+" that this node decided alone.")
	}
	if n.Taking > 0 {
		say("wait", "It is taking over "+plural(n.Taking, "partition")+".")
	}
	if st.Behind {
		say("wait", "It may not know all registrations yet, and asks the owners of every account; that is so for some seconds after a start, and while it is cut off.")
	}
	return s, mood
}

func (p *Handler) clusterPage(w http.ResponseWriter, r *http.Request, operator string) {
	if p.cfg.Cluster == nil {
		p.fail(w, r, http.StatusNotFound, operator, "This server is no node of a cluster.", nil)
		return
	}
	st := p.cfg.Cluster.Status()
	n := st.Sum()
	v := clusterPage{page: p.page("Cluster", "cluster", operator), Node: st.Node, Version: st.Version, Own: n.Owned, Only: r.URL.Query().Get("only")}
	v.Live = true
	if v.First, v.Mood = clusterTrouble(&st); len(v.First) == 0 {
		v.Mood = "good"
		v.First.name(st.Node)
		v.First.say(" hears of all nodes and keeps up.")
	}
	number := func(name string, n int64, mood, note string) {
		if n == 0 {
			mood = ""
		}
		v.Figures = append(v.Figures, figure{Name: name, Value: strconv.FormatInt(n, 10), Mood: mood, Note: note})
	}
	number("accepted", st.Accepted, "", "events that came in here and are in the log")
	number("kept", st.Kept, "", "of accounts without a device")
	number("decided", st.Decided, "", "as an owner")
	number("refused", st.Refused, "wait", "the log did not answer in time")
	number("decided alone", st.Alone, "wait", strconv.FormatInt(st.Unreported, 10)+" yet to be reported")
	number("sent again", st.Resent, "", "after a takeover, in doubt")
	number("taken over", int64(n.Takeovers), "", "partitions, since the start")
	number("new lives", st.Lives, "wait", "thought dead, or cut off")
	for _, name := range st.Nodes {
		row := nodeView{name, "alive", "good", st.Share(name)}
		if name == st.Node {
			row.State = "this node"
		}
		v.Nodes = append(v.Nodes, row)
	}
	for _, name := range st.Missing {
		v.Nodes = append(v.Nodes, nodeView{name, "missing", "bad", 0})
	}
	for i := range st.Partitions {
		if row := partitionOf(&st.Partitions[i], &st); v.Only != "own" || row.Owned || row.Owner == st.Node {
			v.Partitions = append(v.Partitions, row)
		}
	}
	p.render(w, r, http.StatusOK, "cluster", &v)
}

func partitionOf(pt *cluster.Partition, st *cluster.Status) partitionView {
	v := partitionView{
		Partition: pt.Partition, Owner: pt.Owner, Phase: pt.Phase, Owned: pt.Owned, Lag: pt.Lag, Accounts: pt.Accounts, Active: pt.Active, InFlight: pt.InFlight,
		Published: pt.Published, Takeovers: pt.Takeovers, Resent: pt.Resent, Took: pt.TakenIn, Err: pt.Err,
	}
	switch {
	case pt.Phase == cluster.PhaseStuck:
		v.State, v.Mood = "stuck", "bad"
	case pt.Owned && pt.Owner != st.Node:
		v.State, v.Mood = "handed over", "wait"
	case pt.Owned && pt.Lag >= lagging:
		v.State, v.Mood = "late", "wait"
	case pt.Owned:
		v.State, v.Mood = "owned here", "good"
	case pt.Owner == st.Node:
		v.State, v.Mood = "being taken over", "wait"
	default:
		v.State = "elsewhere"
	}
	return v
}
