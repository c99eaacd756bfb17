package options

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	logs "k8s.io/component-base/logs/api/v1"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
)

// A validation collects what is wrong with a configuration.
type validation struct {
	name func(field string) string
	errs []error
}

// fail notes that a field is wrong.
func (v *validation) fail(field, format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf("%s: %s", v.name(field), fmt.Sprintf(format, args...)))
}

// validate returns what kube-proxy refuses, beside what the ruleset's own settings are checked for
// where they are made sense of.
func (o *Options) validate() []error {
	c := &o.Config
	v := &validation{name: o.Field}
	switch c.Mode {
	case ModeDefault, ModeIPTables, ModeIPVS, ModeNFTables:
	default:
		v.fail("mode", "%q is none of iptables, ipvs, nftables", c.Mode)
	}
	v.periods("iptables", c.IPTables.SyncPeriod.Duration, c.IPTables.MinSyncPeriod.Duration)
	inRange(v, "iptables.masqueradeBit", *c.IPTables.MasqueradeBit, 0, 31)
	v.ipvs(&c.IPVS, c.Mode == ModeIPVS)
	if c.Mode == ModeNFTables {
		v.periods("nftables", c.NFTables.SyncPeriod.Duration, c.NFTables.MinSyncPeriod.Duration)
		inRange(v, "nftables.masqueradeBit", *c.NFTables.MasqueradeBit, 0, 31)
	}
	v.conntrack(&c.Conntrack)
	inRange(v, "oomScoreAdj", *c.OOMScoreAdj, -1000, 1000)
	if c.ConfigSyncPeriod.Duration <= 0 {
		v.fail("configSyncPeriod", "%s is not greater than 0", c.ConfigSyncPeriod.Duration)
	}
	inRange(v, "clientConnection.burst", c.ClientConnection.Burst, 0, math.MaxInt32)
	if _, err := netip.ParseAddr(c.BindAddress); err != nil {
		v.fail("bindAddress", "%q is not an IP address", c.BindAddress)
	}
	if c.HealthzBindAddress != "" {
		v.hostPort("healthzBindAddress", c.HealthzBindAddress)
	}
	v.hostPort("metricsBindAddress", c.MetricsBindAddress)
	v.logging(&c.Logging)
	return v.errs
}

// periods checks how often to work.
func (v *validation) periods(section string, sync, minSync time.Duration) {
	switch {
	case sync <= 0:
		v.fail(section+".syncPeriod", "%s is not greater than 0", sync)
	case minSync < 0:
		v.fail(section+".minSyncPeriod", "%s is less than 0", minSync)
	case minSync > sync:
		v.fail(section+".minSyncPeriod", "%s is greater than %s, the sync period", minSync, sync)
	}
}

// ipvs checks the section about IPVS, which any Service may ask for, and of the mode ipvs what has no effect
// here.
func (v *validation) ipvs(c *proxyconfig.KubeProxyIPVSConfiguration, mode bool) {
	if mode {
		v.periods("ipvs", c.SyncPeriod.Duration, c.MinSyncPeriod.Duration)
	}
	inRange(v, "ipvs.tcpTimeout", c.TCPTimeout.Duration, 0, math.MaxInt64)
	inRange(v, "ipvs.tcpFinTimeout", c.TCPFinTimeout.Duration, 0, math.MaxInt64)
	inRange(v, "ipvs.udpTimeout", c.UDPTimeout.Duration, 0, math.MaxInt64)
	for i, w := range c.ExcludeCIDRs {
		if _, err := netip.ParsePrefix(w); err != nil {
			v.fail("ipvs.excludeCIDRs", "%q, number %d, is not a CIDR", w, i+1)
		}
	}
}

// conntrack checks the section about connection tracking.
func (v *validation) conntrack(c *proxyconfig.KubeProxyConntrackConfiguration) {
	inRange(v, "conntrack.maxPerCore", *c.MaxPerCore, 0, math.MaxInt32)
	inRange(v, "conntrack.min", *c.Min, 0, math.MaxInt32)
	inRange(v, "conntrack.tcpEstablishedTimeout", c.TCPEstablishedTimeout.Duration, 0, math.MaxInt64)
	inRange(v, "conntrack.tcpCloseWaitTimeout", c.TCPCloseWaitTimeout.Duration, 0, math.MaxInt64)
	inRange(v, "conntrack.udpTimeout", c.UDPTimeout.Duration, 0, math.MaxInt64)
	inRange(v, "conntrack.udpStreamTimeout", c.UDPStreamTimeout.Duration, 0, math.MaxInt64)
}

// logging checks the section about logging.
func (v *validation) logging(c *logs.LoggingConfiguration) {
	if c.Format != logs.DefaultLogFormat && c.Format != logs.JSONLogFormat {
		v.fail("logging.format", "%q is neither text nor json", c.Format)
	}
	if c.FlushFrequency.Duration.Duration <= 0 {
		v.fail("logging.flushFrequency", "%s is not greater than 0", c.FlushFrequency.Duration.Duration)
	}
	if c.Verbosity > math.MaxInt32 {
		v.fail("logging.verbosity", "%d is more than %d", c.Verbosity, math.MaxInt32)
	}
	if len(c.VModule) > 0 && c.Format != logs.DefaultLogFormat {
		v.fail("logging.vmodule", "only works with the format text")
	}
}

// hostPort checks where a server listens.
func (v *validation) hostPort(field, address string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		v.fail(field, "%q is not an IP address with a port", address)
		return
	}
	if _, err := netip.ParseAddr(host); err != nil {
		v.fail(field, "%q: %q is not an IP address", address, host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		v.fail(field, "%q: %q is not a port, 1 to 65535", address, port)
	}
}

// inRange checks a number.
func inRange[T cmp.Ordered](v *validation, field string, n, low, high T) {
	switch {
	case n < low:
		v.fail(field, "%v is less than %v", n, low)
	case n > high:
		v.fail(field, "%v is greater than %v", n, high)
	}
}

// setVerbosity sets a verbosity that is not negative.
func setVerbosity(level *logs.VerbosityLevel, n int) error {
	if n < 0 {
		return fmt.Errorf("%d is negative", n)
	}
	*level = logs.VerbosityLevel(min(n, math.MaxInt32))
	return nil
}

// parseVModule returns what --vmodule says: patterns of file names with a verbosity each.
func parseVModule(s string) (logs.VModuleConfiguration, error) {
	var items logs.VModuleConfiguration
	for w := range strings.SplitSeq(s, ",") {
		if w = strings.TrimSpace(w); w == "" {
			continue
		}
		pattern, level, _ := strings.Cut(w, "=")
		n, err := strconv.ParseUint(level, 10, 31)
		if pattern == "" || err != nil {
			return nil, errors.New(strconv.Quote(w) + " is not PATTERN=NUMBER")
		}
		items = append(items, logs.VModuleItem{FilePattern: pattern, Verbosity: logs.VerbosityLevel(n)})
	}
	return items, nil
}
