package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"

	"github.com/nftproxy/nftproxy/cmd/nftproxy/options"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/events"
	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/proxier/metrics"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/cluster"
)

// configGroup is the name of the configuration in /configz.
const configGroup = "kubeproxy.config.k8s.io"

// An observer tells the world what the daemon does: probes, Prometheus, load balancers and the events
// of the cluster.
type observer struct {
	cfg      config
	log      *zap.Logger
	registry *prometheus.Registry
	tracker  *status.Tracker
	metrics  *metrics.Metrics
	checks   *health.Server
	board    *events.Board
	// verbosity sets that of the log.
	verbosity func(string) error
	// hub knows the problems of the input; set by observe.
	hub *watch.Hub
}

// newObserver returns an observer. It comes before the first client of an API server is made, since it
// counts requests.
func newObserver(cfg config, log *zap.Logger, verbosity func(string) error) *observer {
	o := &observer{cfg: cfg, log: log, registry: prometheus.NewPedanticRegistry(), board: events.NewBoard(), verbosity: verbosity}
	families := []string{metrics.FamilyName(nft.IPv4)}
	if !cfg.Plan.DisableIPv6 {
		families = append(families, metrics.FamilyName(nft.IPv6))
	}
	o.tracker = status.NewTracker(status.Config{
		// What kube-proxy waits for a sync that is late.
		Grace: 2 * syncPeriod(cfg.Options), Families: families, NeedNode: cfg.Manifests == "",
	})
	b := thisBuild()
	o.metrics = metrics.New(o.registry, metrics.Config{
		IPv6: !cfg.Plan.DisableIPv6, Version: b.Version, Commit: b.Commit, Problems: func() int { return len(o.problems()) },
	})
	cluster.NewRequests(o.registry).Count()
	o.checks = health.New(health.Config{
		Node: cfg.NodeName, Log: log,
		Healthy: func() bool { return o.tracker.Health(time.Now()).Healthy },
		Report:  func(e []events.Event) { o.board.Put("checks", e) },
	})
	return o
}

// syncPeriod returns the period in which kube-proxy would sync in the mode that it is told.
func syncPeriod(o *options.Options) time.Duration {
	if o.Config.Mode == options.ModeNFTables {
		return o.Config.NFTables.SyncPeriod.Duration
	}
	return o.Config.IPTables.SyncPeriod.Duration
}

// queued notes a snapshot that is to be programmed.
func (o *observer) queued(s model.Snapshot) {
	now := time.Now()
	o.tracker.Queued(s, now)
	o.metrics.Queued(s, now)
}

// passed notes that stale entries of connection tracking were looked for.
func (o *observer) passed(p conntrack.Pass) { o.metrics.Conntrack(p.Family, p.Duration, p.Deleted) }

// observe has the observer hear of the engine's syncs, and of the problems of the hub. It comes before
// either runs.
func (o *observer) observe(engine *proxier.Engine, hub *watch.Hub) {
	o.hub = hub
	var last *plan.State
	engine.Observe(func(s proxier.Sync) {
		now := time.Now()
		o.tracker.Synced(s, now)
		o.metrics.Synced(s, now)
		o.board.Put("refused", refusedEvents(s.Refused))
		if s.Err == nil {
			o.checks.Set(s.State)
			o.board.Put("conflicts", conflictEvents(s.State.Conflicts()))
			if !s.State.SameFallbacks(last) {
				o.board.Put("fallbacks", fallbackEvents(s.State.Fallbacks()))
			}
			last = s.State
		}
	})
}

// problems returns what the input says wrongly, but for what costs nothing.
func (o *observer) problems() []watch.Problem {
	var out []watch.Problem
	for _, p := range o.hub.Problems() {
		if !p.Minor {
			out = append(out, p)
		}
	}
	return out
}

// run answers and reports until the context ends. The client is nil without a cluster.
func (o *observer) run(ctx context.Context, client kubernetes.Interface, start func(func() error)) error {
	record := events.Log(o.log)
	if client != nil {
		var err error
		if record, err = cluster.NewRecorder(ctx, client.EventsV1(), o.cfg.NodeName); err != nil {
			return err
		}
	}
	reporter := events.NewReporter(record, func() []events.Event {
		return append(o.board.All(), inputEvents(o.problems())...)
	})
	servers, err := o.servers(record)
	if err != nil {
		return err
	}
	for i := range servers {
		start(func() error {
			err := servers[i].Run(ctx)
			if err != nil {
				// Its event is still on its way when the end of this task ends the daemon.
				select {
				case <-ctx.Done():
				case <-time.After(grace):
				}
			}
			return err
		})
	}
	start(func() error { return o.checks.Run(ctx) })
	start(func() error { return reporter.Run(ctx) })
	record(events.Event{Reason: events.ReasonStarting, Action: events.ActionStart})
	return nil
}

// servers returns the servers that have an address.
func (o *observer) servers(record events.Recorder) ([]status.Server, error) {
	c := &o.cfg.Options.Config
	configuration, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write the configuration for /configz: %w", err)
	}
	pages := status.Pages{
		Metrics: promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{}), Mode: string(options.ModeNFTables),
		Config: map[string]json.RawMessage{configGroup: configuration}, Profiling: c.EnableProfiling, SetVerbosity: o.verbosity,
	}
	var servers []status.Server
	add := func(name, address, reason string, h http.Handler) {
		if address == "" {
			return
		}
		servers = append(servers, status.Server{
			Name: name, Address: address, Handler: h, HardFail: c.BindAddressHardFail, Log: o.log,
			Failed: func(err error) {
				record(events.Event{Warning: true, Reason: reason, Action: events.ActionStart, Note: err.Error()})
			},
		})
	}
	add("healthz", c.HealthzBindAddress, events.ReasonNoHealthServer, status.HealthHandler(o.tracker, o.metrics.Probed))
	add("metrics", c.MetricsBindAddress, events.ReasonNoMetricsServer, pages.Handler())
	return servers, nil
}

// inputEvents returns the problems of Services as events.
func inputEvents(problems []watch.Problem) []events.Event {
	var out []events.Event
	for _, p := range problems {
		object, ok := strings.CutPrefix(p.Object, "Service ")
		namespace, name, slash := strings.Cut(object, "/")
		if !ok || !slash {
			continue
		}
		note := p.Message
		if p.Field != "" {
			note = p.Field + ": " + note
		}
		out = append(out, events.Event{
			Service: model.Name{Namespace: namespace, Name: name}, Warning: true,
			Reason: events.ReasonInvalid, Action: events.ActionRead, Note: note,
		})
	}
	return out
}

// refusedEvents returns the front ends that the kernel refused as events.
func refusedEvents(refused []proxier.Refused) []events.Event {
	var out []events.Event
	for _, r := range refused {
		namespace, name, _ := strings.Cut(r.Service, "/")
		out = append(out, events.Event{
			Service: model.Name{Namespace: namespace, Name: name}, Warning: true,
			Reason: events.ReasonRefused, Action: events.ActionProgram, Note: "the kernel refused " + r.FrontEnd + ": " + r.Reason,
		})
	}
	return out
}

// fallbackEvents returns the Services that nftables serves instead of IPVS as events.
func fallbackEvents(fallbacks []plan.Fallback) []events.Event {
	var out []events.Event
	for _, f := range fallbacks {
		out = append(out, events.Event{
			Service: f.Service, Warning: true, Reason: events.ReasonNoScheduler, Action: events.ActionProgram,
			Note: "this node has no IPVS with the scheduler " + f.Scheduler + ": nftables chooses the endpoints, " + f.Instead,
		})
	}
	return out
}

// conflictEvents returns the front ends that another Service has as events of those that do not.
func conflictEvents(conflicts []plan.Conflict) []events.Event {
	var out []events.Event
	for _, c := range conflicts {
		if c.Loser == c.Holder {
			continue
		}
		out = append(out, events.Event{
			Service: c.Loser, Warning: true, Reason: events.ReasonConflict, Action: events.ActionProgram,
			Note: c.Address + " is not served for this Service: the older " + c.Holder.String() + " has it",
		})
	}
	return out
}
