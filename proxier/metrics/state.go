package metrics

import "github.com/prometheus/client_golang/prometheus"

// stateDescriptions are the series that tell what the kernel holds.
type stateDescriptions struct{ services, fronts, endpoints, contested, balanced, fallbacks *prometheus.Desc }

func newStateDescriptions() stateDescriptions {
	return stateDescriptions{
		services:  prometheus.NewDesc("nftproxy_services", "Services that are programmed", nil, nil),
		fronts:    prometheus.NewDesc("nftproxy_front_ends", "Front ends that are programmed", []string{labelFamily}, nil),
		endpoints: prometheus.NewDesc("nftproxy_endpoints", "Endpoints that are programmed; one counts once for each front end", []string{labelFamily}, nil),
		contested: prometheus.NewDesc("nftproxy_front_ends_contested", "Front ends that more than one Service claims", nil, nil),
		balanced:  prometheus.NewDesc("nftproxy_services_balanced", "Services that IPVS serves", []string{labelScheduler}, nil),
		fallbacks: prometheus.NewDesc("nftproxy_services_fallback", "Services that nftables serves since the kernel lacks their scheduler of IPVS", []string{labelScheduler}, nil),
	}
}

// A stateCollector tells what the kernel holds when it is asked. It counts nothing: a State knows its
// numbers.
type stateCollector struct {
	m            *Metrics
	descriptions stateDescriptions
}

// Describe names the series.
func (c *stateCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.descriptions.services, c.descriptions.fronts, c.descriptions.endpoints, c.descriptions.contested, c.descriptions.balanced, c.descriptions.fallbacks} {
		to <- d
	}
}

// Collect sends the series; none before something was programmed.
func (c *stateCollector) Collect(to chan<- prometheus.Metric) {
	s := c.m.state.Load()
	if s == nil {
		return
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(c.descriptions.services, s.Services())
	gauge(c.descriptions.contested, s.Contested())
	for scheduler, n := range s.Balanced() {
		gauge(c.descriptions.balanced, n, scheduler)
	}
	for scheduler, n := range s.FallbacksByScheduler() {
		gauge(c.descriptions.fallbacks, n, scheduler)
	}
	for _, f := range c.m.families {
		n := s.Counts(f)
		gauge(c.descriptions.fronts, n.FrontEnds, FamilyName(f))
		gauge(c.descriptions.endpoints, n.Endpoints, FamilyName(f))
	}
}
