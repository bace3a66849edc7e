package pushotel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/xmpp-push/push/cluster"
)

// Cluster tells how it stands with a node of several; a Node of cluster/jetstream does.
type Cluster interface {
	Status() cluster.Status
}

// WatchCluster has the figures of a cluster's node told. Each node tells its own: those of partitions are of the partitions that it owns.
func (t *Telemetry) WatchCluster(c Cluster) { t.watched.cluster.Store(&c) }

// observeCluster has the node asked at each collection.
func (t *Telemetry) observeCluster() error {
	var (
		m    = t.cfg.Meter
		errs []error
		all  []metric.Observable
		does []func(o metric.Observer, st *cluster.Status, n *cluster.Sums)
	)
	gauge := func(name, unit, what string, of func(st *cluster.Status, n *cluster.Sums) int64) {
		g, err := m.Int64ObservableGauge("push.cluster."+name, metric.WithUnit(unit), metric.WithDescription(what))
		errs, all = append(errs, err), append(all, g)
		does = append(does, func(o metric.Observer, st *cluster.Status, n *cluster.Sums) { o.ObserveInt64(g, of(st, n)) })
	}
	counter := func(name, unit, what string, of func(st *cluster.Status, n *cluster.Sums) int64) {
		c, err := m.Int64ObservableCounter("push.cluster."+name, metric.WithUnit(unit), metric.WithDescription(what))
		errs, all = append(errs, err), append(all, c)
		does = append(does, func(o metric.Observer, st *cluster.Status, n *cluster.Sums) { o.ObserveInt64(c, of(st, n)) })
	}
	is := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	nodes, err := m.Int64ObservableGauge("push.cluster.nodes", metric.WithUnit("{node}"), metric.WithDescription("Nodes as this one sees them: alive, or missing, which were alive a short while ago and have not left."))
	errs, all = append(errs, err), append(all, nodes)
	partitions, err := m.Int64ObservableGauge("push.cluster.partitions", metric.WithUnit("{partition}"), metric.WithDescription("Partitions at this node: owned, taking (being taken over), stuck (with something that it cannot read)."))
	errs, all = append(errs, err), append(all, partitions)
	events, err := m.Int64ObservableCounter("push.cluster.events", metric.WithUnit("{event}"), metric.WithDescription("Events: kept (did not leave the node, of accounts without registrations), accepted (in the log), refused (the log did not answer in time), alone (of those, decided by this node), reported (of those, told to the log since), decided (by this node as an owner)."))
	errs, all = append(errs, err), append(all, events)
	slowest, err := m.Float64ObservableGauge("push.cluster.takeover", metric.WithUnit("s"), metric.WithDescription("How long the longest of the last takeovers of each partition took."))
	errs, all = append(errs, err), append(all, slowest)

	gauge("partitions_configured", "{partition}", "Partitions of the cluster.", func(st *cluster.Status, _ *cluster.Sums) int64 { return int64(len(st.Partitions)) })
	gauge("lag", "{message}", "Messages of the log that this node has not read of the partition that it owns where they are most.", func(_ *cluster.Status, n *cluster.Sums) int64 { return n.Lag })
	gauge("accounts", "{account}", "Accounts of the cluster that have registrations, as this node knows.", func(st *cluster.Status, _ *cluster.Sums) int64 { return int64(st.Accounts) })
	gauge("sessions", "{session}", "Sessions that this node has.", func(st *cluster.Status, _ *cluster.Sums) int64 { return int64(st.Sessions) })
	gauge("behind", "1", "Whether the node may have missed registrations, and asks the owners of every account: 1 or 0.", func(st *cluster.Status, _ *cluster.Sums) int64 { return is(st.Behind) })
	gauge("outdated", "1", "Whether the node has left because the others have a later version of the program: 1 or 0.", func(st *cluster.Status, _ *cluster.Sums) int64 { return is(st.Outdated) })
	gauge("version", "1", "The version of what this node writes.", func(st *cluster.Status, _ *cluster.Sums) int64 { return int64(st.Version) })
	gauge("unreported", "{event}", "Events that this node decided alone and that the log is yet to be told of.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.Unreported })
	gauge("in_flight", "{publish}", "Publishes of this node that wait for a reply.", func(_ *cluster.Status, n *cluster.Sums) int64 { return int64(n.InFlight) })
	counter("appends", "{append}", "Appends to the log by this node.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.Appends })
	counter("appended", "By", "Bytes that this node has appended to the log.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.Bytes })
	counter("append_retries", "{append}", "Appends that were not answered and made again.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.Retried })
	counter("snapshots", "{snapshot}", "Snapshots of partitions that this node has written.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.Snapshots })
	counter("snapshot.size", "By", "Bytes of those.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.SnapshotBytes })
	counter("resent", "{publish}", "Publishes sent once more because their owner had ended before their reply was in the log.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.Resent })
	counter("lives", "{life}", "How often this node was thought dead, or cut off, and said again what sessions it has.", func(st *cluster.Status, _ *cluster.Sums) int64 { return st.Lives })
	counter("takeovers", "{partition}", "Partitions that this node has taken over.", func(_ *cluster.Status, n *cluster.Sums) int64 { return int64(n.Takeovers) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c := t.watched.cluster.Load()
		if c == nil {
			return nil
		}
		st := (*c).Status()
		n := st.Sum()
		with := func(key, value string) metric.MeasurementOption {
			return metric.WithAttributes(attribute.String(key, value))
		}
		o.ObserveInt64(nodes, int64(len(st.Nodes)), with("push.state", "alive"))
		o.ObserveInt64(nodes, int64(len(st.Missing)), with("push.state", "missing"))
		for state, n := range map[string]int{"owned": n.Owned, "taking": n.Taking, "stuck": n.Stuck} {
			o.ObserveInt64(partitions, int64(n), with("push.state", state))
		}
		for result, n := range map[string]int64{
			"kept": st.Kept, "accepted": st.Accepted, "refused": st.Refused, "alone": st.Alone, "reported": st.Reported, "decided": st.Decided,
		} {
			o.ObserveInt64(events, n, with("push.result", result))
		}
		o.ObserveFloat64(slowest, n.Slowest.Seconds())
		for _, do := range does {
			do(o, &st, &n)
		}
		return nil
	}, all...)
	return err
}
