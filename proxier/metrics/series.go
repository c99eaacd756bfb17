package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// kubeProxy are the series of kube-proxy (kubernetes pkg/proxy/metrics/metrics.go).
type kubeProxy struct {
	duration, full, partial, programming, conntrackDuration     *prometheus.HistogramVec
	lastSync, lastQueued, noLocal                               *prometheus.GaugeVec
	endpointsPending, servicesPending                           prometheus.Gauge
	endpointChanges, serviceChanges                             prometheus.Counter
	healthz, livez, failures, cleanupFailures, conntrackDeleted *prometheus.CounterVec
}

// own are our series.
type own struct {
	transactions *prometheus.CounterVec
	steps, reads prometheus.Counter
	refused      prometheus.Gauge

	servers, draining, unfit prometheus.Gauge
	stepFailures             prometheus.Counter
}

// The values of the label result.
const (
	resultDone   = "done"
	resultFailed = "failed"
)

// A maker makes series and registers them.
type maker struct {
	r      prometheus.Registerer
	prefix string
}

// counter returns a counter without labels.
func (m maker) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: m.prefix + name, Help: help})
	m.r.MustRegister(c)
	return c
}

// counters returns a counter with labels.
func (m maker) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.prefix + name, Help: help}, labels)
	m.r.MustRegister(c)
	return c
}

// gauge returns a gauge without labels.
func (m maker) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: m.prefix + name, Help: help})
	m.r.MustRegister(g)
	return g
}

// gauges returns a gauge with labels.
func (m maker) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.prefix + name, Help: help}, labels)
	m.r.MustRegister(g)
	return g
}

// histogram returns a histogram by family.
func (m maker) histogram(name, help string, buckets []float64) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.prefix + name, Help: help, Buckets: buckets}, []string{labelFamily})
	m.r.MustRegister(h)
	return h
}

// newKubeProxy returns the series of kube-proxy, registered.
func newKubeProxy(r prometheus.Registerer) kubeProxy {
	m := maker{r, "kubeproxy_"}
	sync := prometheus.ExponentialBuckets(0.001, 2, 15)
	return kubeProxy{
		duration:          m.histogram("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds", sync),
		full:              m.histogram("sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for syncs that read the kernel", sync),
		partial:           m.histogram("sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for syncs that do not", sync),
		programming:       m.histogram("network_programming_duration_seconds", "In Cluster Network Programming Latency in seconds", programmingBuckets()),
		conntrackDuration: m.histogram("conntrack_reconciler_sync_duration_seconds", "ReconcileConntrackFlowsLatency latency in seconds", sync),
		lastSync:          m.gauges("sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced", labelFamily),
		lastQueued:        m.gauges("sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued", labelFamily),
		noLocal:           m.gauges("sync_proxy_rules_no_local_endpoints_total", "Number of services with a Local traffic policy and no endpoints", labelPolicy, labelFamily),
		endpointsPending:  m.gauge("sync_proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes"),
		servicesPending:   m.gauge("sync_proxy_rules_service_changes_pending", "Pending proxy rules Service changes"),
		endpointChanges:   m.counter("sync_proxy_rules_endpoint_changes_total", "Cumulative proxy rules Endpoint changes"),
		serviceChanges:    m.counter("sync_proxy_rules_service_changes_total", "Cumulative proxy rules Service changes"),
		healthz:           m.counters("proxy_healthz_total", "Cumulative proxy healthz HTTP status", labelCode),
		livez:             m.counters("proxy_livez_total", "Cumulative proxy livez HTTP status", labelCode),
		failures:          m.counters("sync_proxy_rules_nftables_sync_failures_total", "Cumulative proxy nftables sync failures", labelFamily),
		cleanupFailures:   m.counters("sync_proxy_rules_nftables_cleanup_failures_total", "Cumulative proxy nftables cleanup failures", labelFamily),
		conntrackDeleted:  m.counters("conntrack_reconciler_deleted_entries_total", "Cumulative conntrack flows deleted by conntrack reconciler", labelFamily),
	}
}

// newOwn returns our series, registered, but for those that are read when they are asked for.
func newOwn(r prometheus.Registerer) own {
	m := maker{r, "nftproxy_"}
	return own{
		transactions: m.counters("transactions_total", "Transactions sent to the kernel for both families, by result", labelResult),
		steps:        m.counter("transaction_steps_total", "Steps of the transactions that were done: objects added and deleted"),
		reads:        m.counter("kernel_reads_total", "Times that the ruleset was read: at the start, after an error, and on suspicion"),
		refused:      m.gauge("front_ends_refused", "Front ends that are left out, since the kernel refused them"),
		servers:      m.gauge("ipvs_virtual_servers", "Virtual servers of IPVS that the kernel holds"),
		draining:     m.gauge("ipvs_virtual_servers_draining", "Virtual servers that wait for connections to end, to themselves or to a destination that is gone"),
		unfit:        m.gauge("ipvs_services_refused", "Services that nftables serves, since the kernel refused their virtual servers"),
		stepFailures: m.counter("ipvs_step_failures_total", "Steps of IPVS that failed"),
	}
}

// programmingBuckets returns the buckets of network_programming_duration_seconds, up to 5 minutes.
func programmingBuckets() []float64 {
	return slices.Concat(
		prometheus.LinearBuckets(0.25, 0.25, 2),
		prometheus.LinearBuckets(1, 1, 59),
		prometheus.LinearBuckets(60, 5, 12),
		prometheus.LinearBuckets(120, 30, 7),
	)
}
