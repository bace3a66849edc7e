package pushprometheus

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/xmpp-push/push/cluster"
)

// Cluster tells how it stands with a node of several; a Node of cluster/jetstream does.
type Cluster interface {
	Status() cluster.Status
}

// WatchCluster has the figures of a cluster's node told. Each node tells its own: those of partitions are of the partitions that it owns.
func (m *Metrics) WatchCluster(c Cluster) { m.cluster.Store(&c) }

// clusterDescs are the metrics of a node.
type clusterDescs struct {
	nodes, configured, partitions, lag, accounts, sessions, behind, outdated, version, unreported, inFlight, slowest *prometheus.Desc

	events, appends, appended, retried, snapshots, snapshotBytes, resent, lives, takeovers *prometheus.Desc
}

func newClusterDescs(namespace string) (d clusterDescs) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "cluster", name), help, labels, nil)
	}
	d.nodes = desc("nodes", "Nodes as this one sees them: alive, or missing, which were alive a short while ago and have not left.", "state")
	d.configured = desc("partitions_configured", "Partitions of the cluster.")
	d.partitions = desc("partitions", "Partitions at this node: owned, taking (being taken over), stuck (with something that it cannot read).", "state")
	d.lag = desc("lag_messages", "Messages of the log that this node has not read of the partition that it owns where they are most.")
	d.accounts = desc("accounts", "Accounts of the cluster that have registrations, as this node knows.")
	d.sessions = desc("sessions", "Sessions that this node has.")
	d.behind = desc("behind", "Whether the node may have missed registrations, and asks the owners of every account.")
	d.outdated = desc("outdated", "Whether the node has left because the others have a later version of the program.")
	d.version = desc("version", "The version of what this node writes.")
	d.unreported = desc("unreported_events", "Events that this node decided alone and that the log is yet to be told of.")
	d.inFlight = desc("in_flight", "Publishes of this node that wait for a reply.")
	d.slowest = desc("takeover_seconds", "How long the longest of the last takeovers of each partition took.")
	d.events = desc("events_total", "Events: kept (did not leave the node, of accounts without registrations), accepted (in the log), refused (the log did not answer in time), alone (of those, decided by this node), reported (of those, told to the log since), decided (by this node as an owner).", "result")
	d.appends = desc("appends_total", "Appends to the log by this node.")
	d.appended = desc("appended_bytes_total", "Bytes that this node has appended to the log.")
	d.retried = desc("append_retries_total", "Appends that were not answered and made again.")
	d.snapshots = desc("snapshots_total", "Snapshots of partitions that this node has written.")
	d.snapshotBytes = desc("snapshot_bytes_total", "Bytes of those.")
	d.resent = desc("resent_total", "Publishes sent once more because their owner had ended before their reply was in the log.")
	d.lives = desc("lives_total", "How often this node was thought dead, or cut off, and said again what sessions it has.")
	d.takeovers = desc("takeovers_total", "Partitions that this node has taken over.")
	return d
}

func (d *clusterDescs) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.nodes, d.configured, d.partitions, d.lag, d.accounts, d.sessions, d.behind, d.outdated, d.version, d.unreported, d.inFlight, d.slowest,
		d.events, d.appends, d.appended, d.retried, d.snapshots, d.snapshotBytes, d.resent, d.lives, d.takeovers,
	}
}

func (d *clusterDescs) collect(st *cluster.Status, ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	count := func(desc *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	n := st.Sum()
	gauge(d.nodes, float64(len(st.Nodes)), "alive")
	gauge(d.nodes, float64(len(st.Missing)), "missing")
	gauge(d.configured, float64(len(st.Partitions)))
	for state, n := range map[string]int{"owned": n.Owned, "taking": n.Taking, "stuck": n.Stuck} {
		gauge(d.partitions, float64(n), state)
	}
	gauge(d.lag, float64(n.Lag))
	gauge(d.accounts, float64(st.Accounts))
	gauge(d.sessions, float64(st.Sessions))
	gauge(d.behind, truth(st.Behind))
	gauge(d.outdated, truth(st.Outdated))
	gauge(d.version, float64(st.Version))
	gauge(d.unreported, float64(st.Unreported))
	gauge(d.inFlight, float64(n.InFlight))
	gauge(d.slowest, n.Slowest.Seconds())
	for result, n := range map[string]int64{
		"kept": st.Kept, "accepted": st.Accepted, "refused": st.Refused, "alone": st.Alone, "reported": st.Reported, "decided": st.Decided,
	} {
		count(d.events, n, result)
	}
	count(d.appends, st.Appends)
	count(d.appended, st.Bytes)
	count(d.retried, st.Retried)
	count(d.snapshots, st.Snapshots)
	count(d.snapshotBytes, st.SnapshotBytes)
	count(d.resent, st.Resent)
	count(d.lives, st.Lives)
	count(d.takeovers, int64(n.Takeovers))
}
