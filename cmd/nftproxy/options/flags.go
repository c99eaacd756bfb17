package options

import (
	"strings"

	"github.com/spf13/pflag"
)

// RegisterRules adds the flags that say what the ruleset should be.
func (o *Options) RegisterRules(s *pflag.FlagSet) {
	c := &o.Config
	s.SetNormalizeFunc(dashes)
	s.StringVar(&o.ConfigFile, "config", "", "kube-proxy's configuration `file`: of the other flags only --hostname-override, --master, those about logging and those that are not kube-proxy's count beside it")
	s.StringVar(&c.HostnameOverride, "hostname-override", "", "`name` of this node's Node object (default: the host name in lower case)")
	s.StringVar((*string)(&c.Mode), "proxy-mode", "", "kube-proxy's `mode`: iptables, ipvs or nftables; nftables is what it is in any case, but in the mode ipvs IPVS serves the Services that name no scheduler")
	s.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "pod `ranges` of the cluster: one CIDR, or one of each family separated by a comma")
	s.StringVar((*string)(&c.DetectLocalMode), "detect-local-mode", "", "how to tell traffic of this node's pods: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix (default ClusterCIDR)")
	s.StringVar(&c.DetectLocal.BridgeInterface, "pod-bridge-interface", "", "`bridge` of this node's pods, for --detect-local-mode=BridgeInterface")
	s.StringVar(&c.DetectLocal.InterfaceNamePrefix, "pod-interface-name-prefix", "", "beginning of the interface `names` of this node's pods, for --detect-local-mode=InterfaceNamePrefix")
	s.StringSliceVar(&c.NodePortAddresses, "nodeport-addresses", nil, "where node ports are served: `primary`, all, or CIDRs of node addresses; commas between (default primary; all in the modes iptables and ipvs)")
	s.BoolVar(&c.IPTables.MasqueradeAll, "masquerade-all", false, "masquerade everything sent to a cluster IP")
	s.Int32Var(c.IPTables.MasqueradeBit, "iptables-masquerade-bit", *c.IPTables.MasqueradeBit, "`bit` of the packet mark that asks for masquerading, unless --proxy-mode is nftables")
	s.StringVar(&c.IPVS.Scheduler, "ipvs-scheduler", "", "`scheduler` of Services that name none, in the mode ipvs (default rr)")
	s.StringSliceVar(&c.IPVS.ExcludeCIDRs, "ipvs-exclude-cidrs", nil, "`CIDRs` of virtual servers of IPVS to leave alone; nftables serves cluster IPs in them")
	s.StringVar(&c.BindAddress, "bind-address", c.BindAddress, "`address` to take for the node's own in its family; nothing is bound to it")
	s.StringToStringVar(&o.raw.featureGates, "feature-gates", nil, "kube-proxy's feature `gates`; known: "+GateExternalIPs+"=true|false (default true)")
}

// Register adds all flags of kube-proxy.
func (o *Options) Register(s *pflag.FlagSet) {
	c := &o.Config
	o.RegisterRules(s)
	s.StringVar(&o.WriteConfigTo, "write-config-to", "", "write the configuration with its defaults to a `file`, and end")
	s.BoolVar(&o.InitOnly, "init-only", false, "set the sysctls, and end: what needs more than CAP_NET_ADMIN")
	s.BoolVar(&o.Cleanup, "cleanup", false, "remove our rules and those of kube-proxy, and end")
	s.BoolVar(&o.Version, "version", false, "print the version, and end")
	o.registerClient(s)
	s.StringVar(&c.HealthzBindAddress, "healthz-bind-address", c.HealthzBindAddress, "`address` and port of the health server; empty for none")
	s.StringVar(&c.MetricsBindAddress, "metrics-bind-address", c.MetricsBindAddress, "`address` and port of the metrics server")
	s.BoolVar(&c.BindAddressHardFail, "bind-address-hard-fail", false, "end if a server cannot listen")
	s.BoolVar(&c.EnableProfiling, "profiling", false, "serve profiles at /debug/pprof of the metrics server")
	s.Int32Var(c.OOMScoreAdj, "oom-score-adj", *c.OOMScoreAdj, "how readily the kernel kills this process for memory, -1000 to 1000")
	s.DurationVar(&c.ConfigSyncPeriod.Duration, "config-sync-period", c.ConfigSyncPeriod.Duration, noEffect)
	o.registerConntrack(s)
	o.registerIPVS(s)
	o.registerWithout(s)
	o.registerLog(s)
	s.Int32Var(&o.raw.healthzPort, "healthz-port", o.raw.healthzPort, "`port` of the health server, 0 for none")
	s.Int32Var(&o.raw.metricsPort, "metrics-port", o.raw.metricsPort, "`port` of the metrics server")
	deprecated(s, "healthz-port", "use --healthz-bind-address")
	deprecated(s, "metrics-port", "use --metrics-bind-address")
}

// registerClient adds the flags about the API server.
func (o *Options) registerClient(s *pflag.FlagSet) {
	c := &o.Config.ClientConnection
	s.StringVar(&c.Kubeconfig, "kubeconfig", "", "`file` that says where the API server is and who we are (default: what a pod of the cluster is given)")
	s.StringVar(&o.Master, "master", "", "`URL` of the API server, over what the kubeconfig says")
	s.StringVar(&c.ContentType, "kube-api-content-type", c.ContentType, "content `type` of requests to the API server")
	s.Float32Var(&c.QPS, "kube-api-qps", c.QPS, "requests to the API server in a second")
	s.Int32Var(&c.Burst, "kube-api-burst", c.Burst, "requests to the API server at once")
}

// registerConntrack adds the flags about connection tracking.
func (o *Options) registerConntrack(s *pflag.FlagSet) {
	c := &o.Config.Conntrack
	s.Int32Var(c.MaxPerCore, "conntrack-max-per-core", *c.MaxPerCore, "connections to track for each CPU; 0 leaves the limit as it is")
	s.Int32Var(c.Min, "conntrack-min", *c.Min, "connections to track at least, unless --conntrack-max-per-core is 0")
	s.DurationVar(&c.TCPEstablishedTimeout.Duration, "conntrack-tcp-timeout-established", c.TCPEstablishedTimeout.Duration, "how long an idle TCP connection is tracked; 0 leaves it as it is")
	s.DurationVar(&c.TCPCloseWaitTimeout.Duration, "conntrack-tcp-timeout-close-wait", c.TCPCloseWaitTimeout.Duration, "how long a TCP connection in CLOSE_WAIT is tracked; 0 leaves it as it is")
	s.BoolVar(&c.TCPBeLiberal, "conntrack-tcp-be-liberal", false, "do not take packets out of the window of a TCP connection for invalid")
	s.DurationVar(&c.UDPTimeout.Duration, "conntrack-udp-timeout", 0, "how long a UDP flow without an answer is tracked; 0 leaves it as it is")
	s.DurationVar(&c.UDPStreamTimeout.Duration, "conntrack-udp-timeout-stream", 0, "how long a UDP flow with answers is tracked; 0 leaves it as it is")
}

// registerIPVS adds the flags about IPVS that the virtual servers do not depend on.
func (o *Options) registerIPVS(s *pflag.FlagSet) {
	c := &o.Config.IPVS
	s.BoolVar(&c.StrictARP, "ipvs-strict-arp", false, "set arp_ignore and arp_announce when IPVS is used")
	s.DurationVar(&c.TCPTimeout.Duration, "ipvs-tcp-timeout", 0, "how long an idle TCP connection stays in IPVS; 0 leaves it as it is")
	s.DurationVar(&c.TCPFinTimeout.Duration, "ipvs-tcpfin-timeout", 0, "how long a TCP connection stays in IPVS after FIN; 0 leaves it as it is")
	s.DurationVar(&c.UDPTimeout.Duration, "ipvs-udp-timeout", 0, "how long an idle UDP flow stays in IPVS; 0 leaves it as it is")
	s.DurationVar(&c.SyncPeriod.Duration, "ipvs-sync-period", c.SyncPeriod.Duration, noEffect)
	s.DurationVar(&c.MinSyncPeriod.Duration, "ipvs-min-sync-period", 0, noEffect)
}

// noEffect is the help of flags that kube-proxy has and that mean nothing here.
const noEffect = "accepted, as kube-proxy has it; no effect"

// registerWithout adds the flags that have no effect here.
func (o *Options) registerWithout(s *pflag.FlagSet) {
	c := &o.Config
	s.BoolVar(c.IPTables.LocalhostNodePorts, "iptables-localhost-nodeports", true, noEffect)
	s.DurationVar(&c.IPTables.SyncPeriod.Duration, "iptables-sync-period", c.IPTables.SyncPeriod.Duration, noEffect)
	s.DurationVar(&c.IPTables.MinSyncPeriod.Duration, "iptables-min-sync-period", c.IPTables.MinSyncPeriod.Duration, noEffect)
	s.StringVar(&c.ShowHiddenMetricsForVersion, "show-hidden-metrics-for-version", "", noEffect)
	for _, name := range []string{"boot-id-file", "machine-id-file", "log-text-info-buffer-size", "log-json-info-buffer-size"} {
		s.StringVar(&o.raw.ignored, name, "", noEffect)
	}
	for _, name := range []string{"log-text-split-stream", "log-json-split-stream"} {
		s.BoolVar(&o.raw.split, name, false, noEffect)
	}
}

// registerLog adds the flags about logging.
func (o *Options) registerLog(s *pflag.FlagSet) {
	c := &o.Config.Logging
	s.IntVarP(&o.raw.verbosity, "v", "v", 0, "verbosity of the log; 0 is for operators, 4 and more for developers")
	s.StringVar(&o.raw.vmodule, "vmodule", "", noEffect)
	s.StringVar(&c.Format, "logging-format", c.Format, "`format` of the log: text or json")
	s.DurationVar(&c.FlushFrequency.Duration.Duration, "log-flush-frequency", c.FlushFrequency.Duration.Duration, noEffect)
}

// deprecated marks a flag; it panics if there is none of that name.
func deprecated(s *pflag.FlagSet, name, instead string) {
	if err := s.MarkDeprecated(name, instead); err != nil {
		panic("options: " + err.Error())
	}
}

// dashes lets flags be written with underscores, as kube-proxy does.
func dashes(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
}

// besideFile returns the flags that count beside a configuration file.
func besideFile() []string {
	return []string{
		"config", "write-config-to", "init-only", "cleanup", "version", "master", "hostname-override",
		"v", "vmodule", "logging-format", "log-flush-frequency",
		"log-text-split-stream", "log-text-info-buffer-size", "log-json-split-stream", "log-json-info-buffer-size",
	}
}

// flagOf returns the flag that sets a field of the configuration.
func flagOf(field string) string {
	return map[string]string{
		"mode": "proxy-mode", "hostnameOverride": "hostname-override", "featureGates": "feature-gates",
		"clusterCIDR": "cluster-cidr", "detectLocalMode": "detect-local-mode",
		"detectLocal.bridgeInterface": "pod-bridge-interface", "detectLocal.interfaceNamePrefix": "pod-interface-name-prefix",
		"nodePortAddresses": "nodeport-addresses", "iptables.masqueradeAll": "masquerade-all",
		"iptables.masqueradeBit": "iptables-masquerade-bit", "bindAddress": "bind-address",
		"iptables.localhostNodePorts": "iptables-localhost-nodeports",
		"iptables.syncPeriod":         "iptables-sync-period", "iptables.minSyncPeriod": "iptables-min-sync-period",
		"nftables.syncPeriod": "iptables-sync-period", "nftables.minSyncPeriod": "iptables-min-sync-period",
		"ipvs.syncPeriod": "ipvs-sync-period", "ipvs.minSyncPeriod": "ipvs-min-sync-period",
		"ipvs.scheduler": "ipvs-scheduler", "ipvs.excludeCIDRs": "ipvs-exclude-cidrs", "ipvs.strictARP": "ipvs-strict-arp",
		"ipvs.tcpTimeout": "ipvs-tcp-timeout", "ipvs.tcpFinTimeout": "ipvs-tcpfin-timeout", "ipvs.udpTimeout": "ipvs-udp-timeout",
		"clientConnection.kubeconfig": "kubeconfig", "clientConnection.contentType": "kube-api-content-type",
		"clientConnection.qps": "kube-api-qps", "clientConnection.burst": "kube-api-burst",
		"healthzBindAddress": "healthz-bind-address", "metricsBindAddress": "metrics-bind-address",
		"oomScoreAdj": "oom-score-adj", "configSyncPeriod": "config-sync-period",
		"conntrack.maxPerCore": "conntrack-max-per-core", "conntrack.min": "conntrack-min",
		"conntrack.tcpEstablishedTimeout": "conntrack-tcp-timeout-established",
		"conntrack.tcpCloseWaitTimeout":   "conntrack-tcp-timeout-close-wait",
		"conntrack.udpTimeout":            "conntrack-udp-timeout", "conntrack.udpStreamTimeout": "conntrack-udp-timeout-stream",
		"logging.format": "logging-format", "logging.flushFrequency": "log-flush-frequency", "logging.vmodule": "vmodule",
		"showHiddenMetricsForVersion": "show-hidden-metrics-for-version",
	}[field]
}
