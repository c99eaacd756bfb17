package options

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
)

// GateExternalIPs is the one feature gate of kube-proxy that means something here.
const GateExternalIPs = "AllowServiceExternalIPs"

// AllowExternalIPs reports whether spec.externalIPs of Services count.
func (o *Options) AllowExternalIPs() bool {
	on, given := o.Config.FeatureGates[GateExternalIPs]
	return on || !given
}

// warn notes what is accepted and does less than one may think, in one line of each kind.
func (o *Options) warn() {
	o.list("have no effect beside --config: ", o.overruled())
	o.list("have no effect here: ", o.withoutEffect())
	var gates []string
	for _, g := range sorted(o.Config.FeatureGates) {
		if g != GateExternalIPs {
			gates = append(gates, g)
		}
	}
	o.list("feature gates without a meaning here: ", gates)
}

// list adds a warning about names, if there are any.
func (o *Options) list(what string, names []string) {
	if len(names) > 0 {
		o.Warnings = append(o.Warnings, "accepted, but "+what+strings.Join(names, ", "))
	}
}

// overruled returns the flags of kube-proxy that were given and do not count beside the file.
func (o *Options) overruled() []string {
	if o.ConfigFile == "" {
		return nil
	}
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	New().Register(known)
	var names []string
	for _, name := range sorted(o.given) {
		if known.Lookup(name) != nil && !slices.Contains(besideFile(), name) {
			names = append(names, "--"+name)
		}
	}
	return names
}

// withoutEffect returns the settings that somebody made and that mean nothing here.
func (o *Options) withoutEffect() []string {
	var def proxyconfig.KubeProxyConfiguration
	setDefaults(&def)
	c := &o.Config
	var names []string
	note := func(field string, differs bool) {
		if differs {
			names = append(names, o.short(field))
		}
	}
	note("iptables.localhostNodePorts", *c.IPTables.LocalhostNodePorts != *def.IPTables.LocalhostNodePorts)
	note("iptables.syncPeriod", c.IPTables.SyncPeriod != def.IPTables.SyncPeriod)
	note("iptables.minSyncPeriod", c.IPTables.MinSyncPeriod != def.IPTables.MinSyncPeriod)
	if o.ConfigFile != "" {
		note("nftables.syncPeriod", c.NFTables.SyncPeriod != def.NFTables.SyncPeriod)
		note("nftables.minSyncPeriod", c.NFTables.MinSyncPeriod != def.NFTables.MinSyncPeriod)
	}
	note("ipvs.syncPeriod", c.IPVS.SyncPeriod != def.IPVS.SyncPeriod)
	note("ipvs.minSyncPeriod", c.IPVS.MinSyncPeriod != def.IPVS.MinSyncPeriod)
	if c.Mode != ModeIPVS {
		// The rest of the section counts for Services that ask for a scheduler by themselves.
		note("ipvs.scheduler", c.IPVS.Scheduler != "")
	}
	note("configSyncPeriod", c.ConfigSyncPeriod != def.ConfigSyncPeriod)
	note("logging.flushFrequency", c.Logging.FlushFrequency.Duration != def.Logging.FlushFrequency.Duration)
	note("logging.vmodule", len(c.Logging.VModule) > 0)
	note("showHiddenMetricsForVersion", c.ShowHiddenMetricsForVersion != "")
	note("portRange", c.PortRange != "")
	note("windowsRunAsService", c.WindowsRunAsService)
	note("winkernel", c.Winkernel != def.Winkernel)
	for _, flag := range []string{
		"boot-id-file", "machine-id-file", "log-text-split-stream", "log-text-info-buffer-size",
		"log-json-split-stream", "log-json-info-buffer-size",
	} {
		if o.Given(flag) {
			names = append(names, "--"+flag)
		}
	}
	return names
}

// short returns how a person writes a field, without the name of the file.
func (o *Options) short(field string) string {
	if flag := flagOf(field); flag != "" && o.ConfigFile == "" {
		return "--" + flag
	}
	return field
}
