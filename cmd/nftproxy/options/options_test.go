package options

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	proxyconfig "k8s.io/kube-proxy/config/v1alpha1"
)

// parse returns what a command line means.
func parse(t *testing.T, args ...string) (*Options, error) {
	t.Helper()
	o := New()
	s := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.SetOutput(&strings.Builder{})
	o.Register(s)
	if err := s.Parse(args); err != nil {
		return nil, err
	}
	return o, o.Complete(s)
}

// mustParse returns what a command line means that makes sense.
func mustParse(t *testing.T, args ...string) *Options {
	t.Helper()
	o, err := parse(t, args...)
	if err != nil {
		t.Fatalf("options %q: %v", args, err)
	}
	return o
}

// writeFile writes a file for a test and returns its name.
func writeFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.conf")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// header begins every configuration.
const header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// compareConfig lets cmp compare configurations.
func compareConfig() cmp.Options {
	return cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b resource.QuantityValue) bool { return a.Cmp(b.Quantity) == 0 })}
}

// TestKubeadm reads what kubeadm writes, with empty and null fields: they mean the defaults.
func TestKubeadm(t *testing.T) {
	o := mustParse(t, "--config=testdata/kubeadm.conf", "--hostname-override=node-1")
	want := New().Config
	want.HostnameOverride = "node-1"
	want.ClusterCIDR = "10.244.0.0/16"
	want.ClientConnection.Kubeconfig = "/var/lib/kube-proxy/kubeconfig.conf"
	if diff := cmp.Diff(want, o.Config, compareConfig()); diff != "" {
		t.Errorf("the configuration of kubeadm differs from the defaults (-want +got):\n%s", diff)
	}
	if len(o.Warnings) > 0 {
		t.Errorf("the configuration of kubeadm leads to the warnings %q; want none", o.Warnings)
	}
}

func TestDefaults(t *testing.T) {
	c := New().Config
	got := []any{
		c.BindAddress, c.HealthzBindAddress, c.MetricsBindAddress, *c.OOMScoreAdj, *c.IPTables.MasqueradeBit, *c.NFTables.MasqueradeBit,
		*c.Conntrack.MaxPerCore, *c.Conntrack.Min, c.Conntrack.TCPEstablishedTimeout.Duration, c.Conntrack.TCPCloseWaitTimeout.Duration,
		c.ConfigSyncPeriod.Duration, c.ClientConnection.ContentType, c.ClientConnection.QPS, c.ClientConnection.Burst,
		c.IPTables.SyncPeriod.Duration, c.IPTables.MinSyncPeriod.Duration, c.NFTables.SyncPeriod.Duration, c.NFTables.MinSyncPeriod.Duration,
		c.IPVS.SyncPeriod.Duration, c.IPVS.MinSyncPeriod.Duration, *c.IPTables.LocalhostNodePorts, c.Logging.Format, c.Mode,
	}
	want := []any{
		"0.0.0.0", "0.0.0.0:10256", "127.0.0.1:10249", int32(-999), int32(14), int32(14),
		int32(32768), int32(131072), 24 * time.Hour, time.Hour,
		15 * time.Minute, "application/vnd.kubernetes.protobuf", float32(5), int32(10),
		30 * time.Second, time.Second, 30 * time.Second, time.Second,
		30 * time.Second, time.Duration(0), true, "text", ModeDefault,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

// TestFlags sets each flag, and expects its field.
func TestFlags(t *testing.T) {
	second := metav1.Duration{Duration: 7 * time.Second}
	tests := []struct {
		args string
		set  func(*proxyconfig.KubeProxyConfiguration)
	}{
		{"--hostname-override=a", func(c *proxyconfig.KubeProxyConfiguration) { c.HostnameOverride = "a" }},
		{"--hostname_override=a", func(c *proxyconfig.KubeProxyConfiguration) { c.HostnameOverride = "a" }},
		{"--proxy-mode=ipvs", func(c *proxyconfig.KubeProxyConfiguration) { c.Mode = ModeIPVS }},
		{"--cluster-cidr=10.0.0.0/8", func(c *proxyconfig.KubeProxyConfiguration) { c.ClusterCIDR = "10.0.0.0/8" }},
		{"--detect-local-mode=NodeCIDR", func(c *proxyconfig.KubeProxyConfiguration) { c.DetectLocalMode = "NodeCIDR" }},
		{"--pod-bridge-interface=b", func(c *proxyconfig.KubeProxyConfiguration) { c.DetectLocal.BridgeInterface = "b" }},
		{"--pod-interface-name-prefix=p", func(c *proxyconfig.KubeProxyConfiguration) { c.DetectLocal.InterfaceNamePrefix = "p" }},
		{"--nodeport-addresses=primary,10.0.0.0/8", func(c *proxyconfig.KubeProxyConfiguration) { c.NodePortAddresses = []string{"primary", "10.0.0.0/8"} }},
		{"--masquerade-all", func(c *proxyconfig.KubeProxyConfiguration) {
			c.IPTables.MasqueradeAll, c.NFTables.MasqueradeAll = true, true
		}},
		{"--iptables-masquerade-bit=3", func(c *proxyconfig.KubeProxyConfiguration) { *c.IPTables.MasqueradeBit = 3 }},
		{"--bind-address=::1", func(c *proxyconfig.KubeProxyConfiguration) { c.BindAddress = "::1" }},
		{"--feature-gates=A=true,B=false", func(c *proxyconfig.KubeProxyConfiguration) { c.FeatureGates = map[string]bool{"A": true, "B": false} }},
		{"--kubeconfig=k", func(c *proxyconfig.KubeProxyConfiguration) { c.ClientConnection.Kubeconfig = "k" }},
		{"--kube-api-content-type=t", func(c *proxyconfig.KubeProxyConfiguration) { c.ClientConnection.ContentType = "t" }},
		{"--kube-api-qps=7.5", func(c *proxyconfig.KubeProxyConfiguration) { c.ClientConnection.QPS = 7.5 }},
		{"--kube-api-burst=7", func(c *proxyconfig.KubeProxyConfiguration) { c.ClientConnection.Burst = 7 }},
		{"--healthz-bind-address=127.0.0.1", func(c *proxyconfig.KubeProxyConfiguration) { c.HealthzBindAddress = "127.0.0.1:10256" }},
		{"--healthz-bind-address=", func(c *proxyconfig.KubeProxyConfiguration) { c.HealthzBindAddress = "" }},
		{"--healthz-port=0", func(c *proxyconfig.KubeProxyConfiguration) { c.HealthzBindAddress = "" }},
		{"--metrics-bind-address=[::1]:1", func(c *proxyconfig.KubeProxyConfiguration) { c.MetricsBindAddress = "[::1]:1" }},
		{"--bind-address-hard-fail", func(c *proxyconfig.KubeProxyConfiguration) { c.BindAddressHardFail = true }},
		{"--profiling", func(c *proxyconfig.KubeProxyConfiguration) { c.EnableProfiling = true }},
		{"--oom-score-adj=7", func(c *proxyconfig.KubeProxyConfiguration) { *c.OOMScoreAdj = 7 }},
		{"--config-sync-period=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.ConfigSyncPeriod = second }},
		{"--conntrack-max-per-core=7", func(c *proxyconfig.KubeProxyConfiguration) { *c.Conntrack.MaxPerCore = 7 }},
		{"--conntrack-min=7", func(c *proxyconfig.KubeProxyConfiguration) { *c.Conntrack.Min = 7 }},
		{"--conntrack-tcp-timeout-established=7s", func(c *proxyconfig.KubeProxyConfiguration) { *c.Conntrack.TCPEstablishedTimeout = second }},
		{"--conntrack-tcp-timeout-close-wait=7s", func(c *proxyconfig.KubeProxyConfiguration) { *c.Conntrack.TCPCloseWaitTimeout = second }},
		{"--conntrack-tcp-be-liberal", func(c *proxyconfig.KubeProxyConfiguration) { c.Conntrack.TCPBeLiberal = true }},
		{"--conntrack-udp-timeout=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.Conntrack.UDPTimeout = second }},
		{"--conntrack-udp-timeout-stream=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.Conntrack.UDPStreamTimeout = second }},
		{"--ipvs-scheduler=lc", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.Scheduler = "lc" }},
		{"--ipvs-exclude-cidrs=10.0.0.0/8", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.ExcludeCIDRs = []string{"10.0.0.0/8"} }},
		{"--ipvs-strict-arp", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.StrictARP = true }},
		{"--ipvs-tcp-timeout=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.TCPTimeout = second }},
		{"--ipvs-tcpfin-timeout=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.TCPFinTimeout = second }},
		{"--ipvs-udp-timeout=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.UDPTimeout = second }},
		{"--ipvs-sync-period=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.SyncPeriod = second }},
		{"--ipvs-min-sync-period=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.IPVS.MinSyncPeriod = second }},
		{"--iptables-localhost-nodeports=false", func(c *proxyconfig.KubeProxyConfiguration) { *c.IPTables.LocalhostNodePorts = false }},
		{"--iptables-sync-period=7s", func(c *proxyconfig.KubeProxyConfiguration) {
			c.IPTables.SyncPeriod, c.NFTables.SyncPeriod = second, second
		}},
		{"--iptables-min-sync-period=7s", func(c *proxyconfig.KubeProxyConfiguration) {
			c.IPTables.MinSyncPeriod, c.NFTables.MinSyncPeriod = second, second
		}},
		{"--show-hidden-metrics-for-version=1.35", func(c *proxyconfig.KubeProxyConfiguration) { c.ShowHiddenMetricsForVersion = "1.35" }},
		{"-v=7", func(c *proxyconfig.KubeProxyConfiguration) { c.Logging.Verbosity = 7 }},
		{"--logging-format=json", func(c *proxyconfig.KubeProxyConfiguration) { c.Logging.Format = "json" }},
		{"--log-flush-frequency=7s", func(c *proxyconfig.KubeProxyConfiguration) { c.Logging.FlushFrequency.Duration = second }},
		{"--boot-id-file=/x --machine-id-file=/y --log-text-split-stream --log-json-info-buffer-size=1M", func(*proxyconfig.KubeProxyConfiguration) {}},
	}
	named := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			o := mustParse(t, strings.Fields(tt.args)...)
			want := New().Config
			tt.set(&want)
			if diff := cmp.Diff(want, o.Config, compareConfig()); diff != "" {
				t.Errorf("configuration of %s (-want +got):\n%s", tt.args, diff)
			}
		})
		name, _, _ := strings.Cut(strings.TrimLeft(tt.args, "-"), "=")
		named[name] = true
	}
	// Every field that has a flag is in the table: what errors and warnings call it is right then.
	for _, field := range []string{"mode", "conntrack.min", "ipvs.scheduler", "healthzBindAddress", "oomScoreAdj", "configSyncPeriod", "clientConnection.qps"} {
		if !named[flagOf(field)] {
			t.Errorf("the flag of %s is %q, which is not in the table", field, flagOf(field))
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		flags, file string // the same mistake in both; either may be empty
		want        string // what is said after the name of the flag or field
		flag, field string
	}{
		{"--proxy-mode=userspace", "mode: userspace", `"userspace" is none of iptables, ipvs, nftables`, "proxy-mode", "mode"},
		{"--iptables-masquerade-bit=32", "iptables: {masqueradeBit: 32}", "32 is greater than 31", "iptables-masquerade-bit", "iptables.masqueradeBit"},
		{"--iptables-masquerade-bit=-1", "iptables: {masqueradeBit: -1}", "-1 is less than 0", "iptables-masquerade-bit", "iptables.masqueradeBit"},
		{"", "mode: nftables\nnftables: {masqueradeBit: 32}", "32 is greater than 31", "", "nftables.masqueradeBit"},
		{"--iptables-sync-period=-1s", "iptables: {syncPeriod: -1s}", "-1s is not greater than 0", "iptables-sync-period", "iptables.syncPeriod"},
		{"--iptables-sync-period=0", "", "0s is not greater than 0", "iptables-sync-period", ""},
		{"--iptables-min-sync-period=-1s", "iptables: {minSyncPeriod: -1s}", "-1s is less than 0", "iptables-min-sync-period", "iptables.minSyncPeriod"},
		{"--iptables-min-sync-period=31s", "iptables: {minSyncPeriod: 31s}", "31s is greater than 30s", "iptables-min-sync-period", "iptables.minSyncPeriod"},
		{"--proxy-mode=ipvs --ipvs-min-sync-period=31s", "mode: ipvs\nipvs: {minSyncPeriod: 31s}", "31s is greater than 30s", "ipvs-min-sync-period", "ipvs.minSyncPeriod"},
		{"--proxy-mode=ipvs --ipvs-udp-timeout=-1s", "mode: ipvs\nipvs: {udpTimeout: -1s}", "-1s is less than 0", "ipvs-udp-timeout", "ipvs.udpTimeout"},
		{"--proxy-mode=ipvs --ipvs-exclude-cidrs=10.0.0.1", "mode: ipvs\nipvs: {excludeCIDRs: [10.0.0.1]}", `"10.0.0.1", number 1, is not a CIDR`, "ipvs-exclude-cidrs", "ipvs.excludeCIDRs"},
		{"--conntrack-max-per-core=-1", "conntrack: {maxPerCore: -1}", "-1 is less than 0", "conntrack-max-per-core", "conntrack.maxPerCore"},
		{"--conntrack-min=-1", "conntrack: {min: -1}", "-1 is less than 0", "conntrack-min", "conntrack.min"},
		{"--conntrack-tcp-timeout-established=-1s", "conntrack: {tcpEstablishedTimeout: -1s}", "-1s is less than 0", "conntrack-tcp-timeout-established", "conntrack.tcpEstablishedTimeout"},
		{"--conntrack-udp-timeout-stream=-1s", "conntrack: {udpStreamTimeout: -1s}", "-1s is less than 0", "conntrack-udp-timeout-stream", "conntrack.udpStreamTimeout"},
		{"--oom-score-adj=1001", "oomScoreAdj: 1001", "1001 is greater than 1000", "oom-score-adj", "oomScoreAdj"},
		{"--oom-score-adj=-1001", "oomScoreAdj: -1001", "-1001 is less than -1000", "oom-score-adj", "oomScoreAdj"},
		{"--config-sync-period=0", "configSyncPeriod: -1s", "is not greater than 0", "config-sync-period", "configSyncPeriod"},
		{"--kube-api-burst=-1", "clientConnection: {burst: -1}", "-1 is less than 0", "kube-api-burst", "clientConnection.burst"},
		{"--bind-address=here", "bindAddress: here", `"here" is not an IP address`, "bind-address", "bindAddress"},
		{"--healthz-bind-address=here:1", "healthzBindAddress: 'here:1'", `"here" is not an IP address`, "healthz-bind-address", "healthzBindAddress"},
		{"--healthz-bind-address=127.0.0.1:0", "healthzBindAddress: 127.0.0.1:0", `"0" is not a port`, "healthz-bind-address", "healthzBindAddress"},
		{"--metrics-bind-address=127.0.0.1:65536", "metricsBindAddress: 127.0.0.1:65536", `"65536" is not a port`, "metrics-bind-address", "metricsBindAddress"},
		{"--metrics-bind-address=", "metricsBindAddress: here", "is not an IP address with a port", "metrics-bind-address", "metricsBindAddress"},
		{"--logging-format=xml", "logging: {format: xml}", `"xml" is neither text nor json`, "logging-format", "logging.format"},
		{"-v=-1", "", "-1 is negative", "v", ""},
		{"--vmodule=x", "", `"x" is not PATTERN=NUMBER`, "vmodule", ""},
		{"--vmodule=x=1 --logging-format=json", "logging: {format: json, vmodule: [{filePattern: x, verbosity: 1}]}", "only works with the format text", "vmodule", "logging.vmodule"},
		{"--feature-gates=A=perhaps", "", "A=perhaps is neither true nor false", "feature-gates", ""},
	}
	for _, tt := range tests {
		check := func(name string, args []string) {
			_, err := parse(t, args...)
			if err == nil || !strings.Contains(err.Error(), name+": ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("options %q = %v; want an error that says %q of %s", args, err, tt.want, name)
			}
		}
		if tt.flags != "" {
			check("--"+tt.flag, strings.Fields(tt.flags))
		}
		if tt.file != "" {
			file := writeFile(t, header+tt.file+"\n")
			check(file+": "+tt.field, []string{"--config=" + file})
		}
	}
}

func TestFile(t *testing.T) {
	tests := []struct {
		name, content string
		warning       string // part of the only warning
		err           string // part of the error
	}{
		{"OK all defaults", header, "", ""},
		{"OK JSON", `{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration"}`, "", ""},
		{"OK an unknown field", header + "nonsense: 1\n", `unknown field "nonsense"`, ""},
		{"OK a field twice", header + "mode: iptables\nmode: nftables\n", `key "mode" already set`, ""},
		{"OK settings without effect", header + "portRange: 1-2\niptables: {syncPeriod: 7s}\nwinkernel: {enableDSR: true}\n", "have no effect here: iptables.syncPeriod, portRange, winkernel", ""},
		{"OK the mode ipvs", header + "mode: ipvs\nipvs: {scheduler: lc}\n", "", ""},
		{"OK a scheduler without the mode ipvs", header + "ipvs: {scheduler: lc, strictARP: true}\n", "have no effect here: ipvs.scheduler", ""},
		{"OK a gate", header + "featureGates: {Nope: true, AllowServiceExternalIPs: false}\n", "feature gates without a meaning here: Nope", ""},
		{"bad empty", "", "", "it is empty"},
		{"bad no YAML", header + "mode: [\n", "", "yaml"},
		{"bad type", header + "mode: 1\n", "", "mode"},
		{"bad kind", "apiVersion: v1\nkind: ConfigMap\n", "", "ConfigMap"},
		{"bad version", "apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration\n", "", "kubeproxy.config.k8s.io/v1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := parse(t, "--config="+writeFile(t, tt.content))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("options = %v; want an error that says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("options = %v; want nil", err)
			}
			if tt.warning == "" && len(o.Warnings) > 0 || tt.warning != "" && (len(o.Warnings) != 1 || !strings.Contains(o.Warnings[0], tt.warning)) {
				t.Errorf("warnings are %q; want one that says %q", o.Warnings, tt.warning)
			}
		})
	}
	if _, err := parse(t, "--config=/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("options with a missing file = %v; want that it is missing", err)
	}
}

// TestFileWins has the file overrule all flags but a few.
func TestFileWins(t *testing.T) {
	file := writeFile(t, header+"hostnameOverride: file\nmode: nftables\nlogging: {verbosity: 3}\nnftables: {masqueradeBit: 5, masqueradeAll: true}\n")
	o := mustParse(t, "--config="+file, "--hostname-override=flag", "-v=4", "--logging-format=json", "--master=https://m",
		"--proxy-mode=iptables", "--cluster-cidr=nonsense", "--masquerade-all=false")
	got := []any{o.Config.HostnameOverride, int(o.Config.Logging.Verbosity), o.Config.Logging.Format, o.Master, o.Config.Mode, o.Config.ClusterCIDR, o.MasqueradeAll(), o.MasqueradeBit()}
	want := []any{"flag", 4, "json", "https://m", ModeNFTables, "", true, uint8(5)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the file and flags together (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"accepted, but have no effect beside --config: --cluster-cidr, --masquerade-all, --proxy-mode"}, o.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if o := mustParse(t, "--config="+file, "--hostname-override="); o.Config.HostnameOverride != "file" || o.Config.Logging.Verbosity != 3 {
		t.Errorf("with an empty --hostname-override the node is %q; want that of the file", o.Config.HostnameOverride)
	}
}

// TestEncode reads again what was written.
func TestEncode(t *testing.T) {
	o := mustParse(t, "--cluster-cidr=10.0.0.0/8", "--oom-score-adj=0", "--feature-gates=AllowServiceExternalIPs=false")
	b, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, "--config="+writeFile(t, string(b)))
	if diff := cmp.Diff(o.Config, again.Config, compareConfig()); diff != "" {
		t.Errorf("what was written, read again (-want +got):\n%s", diff)
	}
	if len(again.Warnings) > 0 {
		t.Errorf("what was written leads to the warnings %q; want none", again.Warnings)
	}
}

func TestMode(t *testing.T) {
	const both = "iptables: {masqueradeAll: true, masqueradeBit: 3}\nnftables: {masqueradeBit: 4}\n"
	tests := []struct {
		mode string
		all  bool
		bit  uint8
	}{{`""`, true, 3}, {"iptables", true, 3}, {"ipvs", true, 3}, {"nftables", false, 4}}
	for _, tt := range tests {
		o := mustParse(t, "--config="+writeFile(t, header+both+"mode: "+tt.mode+"\n"))
		if o.MasqueradeAll() != tt.all || o.MasqueradeBit() != tt.bit {
			t.Errorf("mode %s: masquerade all is %t with bit %d; want %t, %d", tt.mode, o.MasqueradeAll(), o.MasqueradeBit(), tt.all, tt.bit)
		}
	}
}

func TestBindAddress(t *testing.T) {
	tests := []struct{ address, want, healthz, metrics string }{
		{"0.0.0.0", "invalid IP", "0.0.0.0:10256", "127.0.0.1:10249"},
		{"::", "invalid IP", "[::]:10256", "[::1]:10249"},
		{"192.0.2.1", "192.0.2.1", "0.0.0.0:10256", "127.0.0.1:10249"},
		{"2001:db8::1", "2001:db8::1", "[::]:10256", "[::1]:10249"},
	}
	for _, tt := range tests {
		o := mustParse(t, "--config="+writeFile(t, header+"bindAddress: '"+tt.address+"'\n"))
		got := []string{o.BindAddress().String(), o.Config.HealthzBindAddress, o.Config.MetricsBindAddress}
		if want := []string{tt.want, tt.healthz, tt.metrics}; !slices.Equal(got, want) {
			t.Errorf("bind address %s: address and servers are %q; want %q", tt.address, got, want)
		}
	}
}

// TestWatch changes the file in each way that a daemon must notice.
func TestWatch(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	other := []byte(header + "mode: nftables\n")
	tests := []struct {
		name   string
		change func(t *testing.T, dir string)
	}{
		{"written", func(t *testing.T, dir string) { must(t, os.WriteFile(filepath.Join(dir, "config.conf"), other, 0o600)) }},
		{"another file renamed over it", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "new"), other, 0o600))
			must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "config.conf")))
		}},
		{"the link of a ConfigMap volume swapped", func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "..2"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "..2/config.conf"), other, 0o600))
			must(t, os.Symlink("..2", filepath.Join(dir, "..data_tmp")))
			must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		}},
		{"what it links to written", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "..1/config.conf"), other, 0o600))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, "..1"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "..1/config.conf"), []byte(header), 0o600))
			must(t, os.Symlink("..1", filepath.Join(dir, "..data")))
			must(t, os.Symlink("..data/config.conf", filepath.Join(dir, "config.conf")))
			o := mustParse(t, "--config="+filepath.Join(dir, "config.conf"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			done := make(chan error)
			go func() { done <- o.Watch(ctx) }()
			tt.change(t, dir)
			if err := <-done; err == nil || !strings.Contains(err.Error(), "changed; ending") {
				t.Errorf("Watch() = %v; want that the configuration changed", err)
			}
		})
	}
	t.Run("ended", func(t *testing.T) {
		o := mustParse(t, "--config="+writeFile(t, header))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := o.Watch(ctx); err != nil {
			t.Errorf("Watch() of a context that ended = %v; want nil", err)
		}
		if err := New().Watch(t.Context()); err != nil {
			t.Errorf("Watch() without a file = %v; want nil", err)
		}
	})
}
