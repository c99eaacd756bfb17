// Package metrics counts what the proxy does, for Prometheus.
//
// The series kubeproxy_* are kube-proxy's, with its types, labels and buckets, so that dashboards and
// alerts go on; nftproxy_* are our own. METRICS.md lists all of them.
package metrics

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// The labels.
const (
	labelFamily = "ip_family"
	labelPolicy = "traffic_policy"
	labelCode   = "code"
	labelResult = "result"

	labelScheduler = "scheduler"
)

// A Config is what the Metrics are of.
type Config struct {
	// IPv6 says that IPv6 is programmed, too.
	IPv6 bool
	// Problems returns how many problems the input has.
	Problems func() int
	// Version and Commit are those of the program.
	Version, Commit string
}

// Metrics are the series of one proxy.
type Metrics struct {
	families []nft.Family
	kubeProxy
	own
	// state is what the kernel holds, as far as known.
	state atomic.Pointer[plan.State]

	// mu guards what follows.
	mu sync.Mutex
	// stepsFailed is what stepFailures says.
	stepsFailed uint64
	// queued is the last snapshot that was queued.
	queued model.Snapshot
	// synced is the last snapshot that the engine tried; its trigger times wait in triggered until it
	// succeeds.
	synced    model.Snapshot
	triggered []time.Time
}

// New returns Metrics that are registered.
func New(r prometheus.Registerer, c Config) *Metrics {
	m := &Metrics{families: []nft.Family{nft.IPv4}}
	if c.IPv6 {
		m.families = append(m.families, nft.IPv6)
	}
	m.kubeProxy = newKubeProxy(r)
	m.own = newOwn(r)
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(c),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nftproxy_input_problems", Help: "Fields and objects of the input that cannot be used as they are",
		}, func() float64 { return float64(c.Problems()) }),
		&stateCollector{m: m, descriptions: newStateDescriptions()},
	)
	// A series that is missing is no zero: alerts on a rate need the first value, too.
	for _, f := range m.families {
		m.failures.WithLabelValues(FamilyName(f))
		m.cleanupFailures.WithLabelValues(FamilyName(f))
		m.conntrackDeleted.WithLabelValues(FamilyName(f))
	}
	m.transactions.WithLabelValues(resultDone)
	m.transactions.WithLabelValues(resultFailed)
	return m
}

// FamilyName returns kube-proxy's name of a family.
func FamilyName(f nft.Family) string {
	if f == nft.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Queued notes a snapshot that is to be programmed, and what in it changed.
func (m *Metrics) Queued(s model.Snapshot, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	services, endpoints := changes(m.queued, s)
	m.queued = s
	m.serviceChanges.Add(float64(services))
	m.servicesPending.Add(float64(services))
	m.endpointChanges.Add(float64(endpoints))
	m.endpointsPending.Add(float64(endpoints))
	for _, f := range m.families {
		m.lastQueued.WithLabelValues(FamilyName(f)).Set(seconds(now))
	}
}

// Synced notes what the engine did.
func (m *Metrics) Synced(s proxier.Sync, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !s.Snapshot.Same(&m.synced) || !sameTriggers(s.Snapshot, m.synced) {
		m.triggered = append(m.triggered, s.Snapshot.Triggered...)
		m.synced = s.Snapshot
	}
	partly := m.partial
	if s.Looked {
		m.reads.Inc()
		partly = m.full
	}
	for _, f := range m.families {
		m.duration.WithLabelValues(FamilyName(f)).Observe(s.Duration.Seconds())
		partly.WithLabelValues(FamilyName(f)).Observe(s.Duration.Seconds())
		m.cleanupFailures.WithLabelValues(FamilyName(f)).Add(float64(s.Cleanups))
	}
	m.refused.Set(float64(len(s.Refused) - s.Servers.Unfit))
	m.servers.Set(float64(s.Servers.Virtual))
	m.draining.Set(float64(s.Servers.Draining))
	m.unfit.Set(float64(s.Servers.Unfit))
	m.stepFailures.Add(float64(s.Servers.Failures - m.stepsFailed))
	m.stepsFailed = s.Servers.Failures
	if s.Err != nil {
		m.transactions.WithLabelValues(resultFailed).Inc()
		for _, f := range m.families {
			m.failures.WithLabelValues(FamilyName(f)).Inc()
		}
		return
	}
	m.state.Store(s.State)
	if s.Steps > 0 {
		m.transactions.WithLabelValues(resultDone).Inc()
		m.steps.Add(float64(s.Steps))
	}
	m.programmed(s, now)
}

// programmed notes that the kernel is in line with a snapshot.
func (m *Metrics) programmed(s proxier.Sync, now time.Time) {
	primary := FamilyName(primaryFamily(s.Snapshot.Node))
	for _, t := range m.triggered {
		m.programming.WithLabelValues(primary).Observe(now.Sub(t).Seconds())
	}
	m.triggered = nil
	if s.Snapshot.Same(&m.queued) {
		m.servicesPending.Set(0)
		m.endpointsPending.Set(0)
	}
	for _, f := range m.families {
		name := FamilyName(f)
		m.lastSync.WithLabelValues(name).Set(seconds(now))
		c := s.State.Counts(f)
		m.noLocal.WithLabelValues("internal", name).Set(float64(c.NoLocalInternal))
		m.noLocal.WithLabelValues("external", name).Set(float64(c.NoLocalExternal))
	}
}

// primaryFamily returns the family of a node's first address: trigger times do not tell theirs.
func primaryFamily(n *model.Node) nft.Family {
	if n != nil && len(n.PrimaryIPs) > 0 && !n.PrimaryIPs[0].Is4() {
		return nft.IPv6
	}
	return nft.IPv4
}

// Conntrack notes that stale entries of one family were looked for, and deleted.
func (m *Metrics) Conntrack(f nft.Family, took time.Duration, deleted int) {
	m.conntrackDuration.WithLabelValues(FamilyName(f)).Observe(took.Seconds())
	m.conntrackDeleted.WithLabelValues(FamilyName(f)).Add(float64(deleted))
}

// Probed notes an answer to a probe of /healthz or /livez.
func (m *Metrics) Probed(path string, code int) {
	to := m.healthz
	if path == "/livez" {
		to = m.livez
	}
	to.WithLabelValues(strconv.Itoa(code)).Inc()
}

// seconds returns a time as Prometheus writes it.
func seconds(t time.Time) float64 { return float64(t.UnixNano()) / float64(time.Second) }

// buildInfo returns the series that tells the version, as all of Kubernetes does.
func buildInfo(c Config) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubernetes_build_info",
		Help: "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which the program was built, and platform on which it is running",
		ConstLabels: prometheus.Labels{
			"major": "", "minor": "", "git_version": c.Version, "git_commit": c.Commit, "git_tree_state": "", "build_date": "",
			"go_version": runtime.Version(), "compiler": runtime.Compiler, "platform": runtime.GOOS + "/" + runtime.GOARCH,
		},
	})
	g.Set(1)
	return g
}
