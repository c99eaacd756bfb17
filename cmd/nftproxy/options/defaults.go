package options

import (
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logs "k8s.io/component-base/logs/api/v1"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
)

// The ports of the two servers, where an address has none.
const (
	healthzPort = 10256
	metricsPort = 10249
)

// setDefaults fills in what a configuration leaves open, as kube-proxy does. Zero means open; an
// empty list or string often means nothing, and stays.
func setDefaults(c *proxyconfig.KubeProxyConfiguration) {
	c.APIVersion, c.Kind = proxyconfig.SchemeGroupVersion.String(), "KubeProxyConfiguration"
	orDefault(&c.BindAddress, "0.0.0.0")
	setDefaultAddresses(c)
	pointTo(&c.OOMScoreAdj, -999)
	pointTo(&c.IPTables.MasqueradeBit, 14)
	pointTo(&c.IPTables.LocalhostNodePorts, true)
	orDefault(&c.IPTables.SyncPeriod.Duration, 30*time.Second)
	orDefault(&c.IPTables.MinSyncPeriod.Duration, time.Second)
	orDefault(&c.IPVS.SyncPeriod.Duration, 30*time.Second)
	pointTo(&c.NFTables.MasqueradeBit, 14)
	orDefault(&c.NFTables.SyncPeriod.Duration, 30*time.Second)
	orDefault(&c.NFTables.MinSyncPeriod.Duration, time.Second)
	pointTo(&c.Conntrack.MaxPerCore, 32*1024)
	pointTo(&c.Conntrack.Min, 128*1024)
	pointTo(&c.Conntrack.TCPEstablishedTimeout, metav1.Duration{Duration: 24 * time.Hour})
	pointTo(&c.Conntrack.TCPCloseWaitTimeout, metav1.Duration{Duration: time.Hour})
	orDefault(&c.ConfigSyncPeriod.Duration, 15*time.Minute)
	orDefault(&c.ClientConnection.ContentType, "application/vnd.kubernetes.protobuf")
	orDefault(&c.ClientConnection.QPS, 5)
	orDefault(&c.ClientConnection.Burst, 10)
	if c.FeatureGates == nil {
		c.FeatureGates = map[string]bool{}
	}
	logs.SetRecommendedLoggingConfiguration(&c.Logging)
}

// setDefaultAddresses fills in where the two servers listen: in the family of the bind address.
func setDefaultAddresses(c *proxyconfig.KubeProxyConfiguration) {
	healthz, metrics := "0.0.0.0", "127.0.0.1"
	if a, err := netip.ParseAddr(c.BindAddress); err == nil && a.Is6() {
		healthz, metrics = "::", "::1"
	}
	orDefault(&c.HealthzBindAddress, healthz)
	orDefault(&c.MetricsBindAddress, metrics)
	c.HealthzBindAddress = withPort(c.HealthzBindAddress, healthzPort)
	c.MetricsBindAddress = withPort(c.MetricsBindAddress, metricsPort)
}

// orDefault sets what is zero.
func orDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// pointTo sets a pointer that is nil.
func pointTo[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}
