package main

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/plan"
)

// parse returns what a command line means, as the commands see it.
func parse(t *testing.T, args ...string) (config, error) {
	t.Helper()
	var f flags
	c := &cobra.Command{Use: "test"}
	f.registerAll(c)
	f.registerNodeAddress(c.Flags())
	f.registerSocket(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatalf("ParseFlags(%q): %v", args, err)
	}
	return f.config()
}

// comparePrefixes lets cmp compare netip values.
func comparePrefixes() cmp.Options {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	}
}

func TestConfig(t *testing.T) {
	prefix := netip.MustParsePrefix
	base := func(change func(*config)) config {
		c := config{
			Manifests: "m", NodeName: "n", AllowExternalIPs: true, Socket: defaultSocket,
			Plan: plan.Config{
				MasqueradeBit:     14,
				DetectLocal:       plan.DetectLocal{Mode: plan.ClusterCIDR, CIDRs: []netip.Prefix{prefix("10.0.0.0/8")}},
				NodePortAddresses: plan.NodePortAddresses{Primary: true},
			},
		}
		change(&c)
		return c
	}
	tests := []struct {
		name string
		args []string
		want config
	}{
		{"OK nothing but what is needed", nil, base(func(*config) {})},
		{"OK the name of the node is in lower case", []string{"--hostname-override= Node-A "}, base(func(c *config) { c.NodeName = "node-a" })},
		{"OK a pair of cluster CIDRs, masked", []string{"--cluster-cidr=10.1.2.3/16,fd00::1/48"}, base(func(c *config) {
			c.Plan.DetectLocal.CIDRs = []netip.Prefix{prefix("10.1.0.0/16"), prefix("fd00::/48")}
		})},
		{"OK no cluster CIDR is worth a warning", []string{"--cluster-cidr="}, base(func(c *config) {
			c.Plan.DetectLocal.CIDRs = nil
			c.Warnings = []string{"--cluster-cidr is not set: traffic of this node's pods is not told from other traffic, cluster IPs are not masqueraded"}
		})},
		{"OK the pod CIDRs of the node", []string{"--detect-local-mode=NodeCIDR"}, base(func(c *config) {
			c.Plan.DetectLocal = plan.DetectLocal{Mode: plan.NodeCIDR}
		})},
		{"OK a bridge", []string{"--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cbr0"}, base(func(c *config) {
			c.Plan.DetectLocal = plan.DetectLocal{Mode: plan.BridgeInterface, Interface: "cbr0"}
		})},
		{"OK a beginning of interface names", []string{"--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"}, base(func(c *config) {
			c.Plan.DetectLocal = plan.DetectLocal{Mode: plan.InterfaceNamePrefix, Interface: "veth"}
		})},
		{"OK an interface that has no effect is worth a warning", []string{"--pod-bridge-interface=cbr0"}, base(func(c *config) {
			c.Warnings = []string{"--pod-bridge-interface has no effect with the detect-local mode ClusterCIDR"}
		})},
		{"OK node ports on all addresses", []string{"--nodeport-addresses=all"}, base(func(c *config) {
			c.Plan.NodePortAddresses = plan.NodePortAddresses{All: true}
		})},
		{"OK node ports here and there", []string{"--nodeport-addresses=primary, 192.0.2.9/24", "--nodeport-addresses=::/0"}, base(func(c *config) {
			c.Plan.NodePortAddresses = plan.NodePortAddresses{Primary: true, CIDRs: []netip.Prefix{prefix("192.0.2.0/24"), prefix("::/0")}}
		})},
		{"OK masquerade all", []string{"--masquerade-all"}, base(func(c *config) { c.Plan.MasqueradeAll = true })},
		{"OK no external IPs", []string{"--feature-gates=AllowServiceExternalIPs=false"}, base(func(c *config) { c.AllowExternalIPs = false })},
		{"OK a gate that means nothing here is worth a warning", []string{"--feature-gates=Nope=true"}, base(func(c *config) {
			c.Warnings = []string{"accepted, but feature gates without a meaning here: Nope"}
		})},
		{"OK the mode nftables", []string{"--proxy-mode=nftables", "--iptables-masquerade-bit=3"}, base(func(*config) {})},
		{"OK the mode iptables serves node ports on all addresses", []string{"--proxy-mode=iptables", "--iptables-masquerade-bit=3"}, base(func(c *config) {
			c.Plan.MasqueradeBit = 3
			c.Plan.NodePortAddresses = plan.NodePortAddresses{All: true}
		})},
		{"OK the mode ipvs has a scheduler", []string{"--proxy-mode=ipvs", "--nodeport-addresses=primary"}, base(func(c *config) { c.Plan.Scheduler = "rr" })},
		{"OK another scheduler", []string{"--proxy-mode=ipvs", "--nodeport-addresses=primary", "--ipvs-scheduler=lc", "--ipvs-exclude-cidrs=10.96.7.7/24"}, base(func(c *config) {
			c.Plan.Scheduler, c.Plan.ExcludeIPVS = "lc", []netip.Prefix{netip.MustParsePrefix("10.96.7.0/24")}
		})},
		{"OK a scheduler without the mode", []string{"--ipvs-scheduler=lc"}, base(func(c *config) {
			c.Warnings = []string{"accepted, but have no effect here: --ipvs-scheduler"}
		})},
		{"OK what is asked for is set on the host", []string{"--conntrack-min=5"}, base(func(c *config) { c.SetHost = true })},
		{"OK log", []string{"-v", "4", "--logging-format=json"}, base(func(c *config) { c.Log = logConfig{Verbosity: 4, JSON: true} })},
		{"OK socket", []string{"--socket=/tmp/s"}, base(func(c *config) { c.Socket = "/tmp/s" })},
		{"OK addresses of the node", []string{"--node-address=192.0.2.1,::ffff:192.0.2.2", "--node-address=2001:db8::1"}, base(func(c *config) {
			c.NodeAddresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := slices.Concat([]string{"--manifests=m", "--hostname-override=n", "--cluster-cidr=10.0.0.0/8"}, tt.args)
			got, err := parse(t, args...)
			if err != nil {
				t.Fatalf("config(%q): %v", tt.args, err)
			}
			if diff := cmp.Diff(tt.want, got, comparePrefixes(), cmpopts.IgnoreFields(config{}, "Options")); diff != "" {
				t.Errorf("config(%q) differs (-want +got):\n%s", tt.args, diff)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string // parts of the message
	}{
		{"bad node name", []string{"--hostname-override= "}, []string{"--hostname-override: empty"}},
		{"bad cluster CIDR", []string{"--cluster-cidr=10.0.0.0"}, []string{`--cluster-cidr: "10.0.0.0" is not a CIDR`}},
		{"bad pair of one family", []string{"--cluster-cidr=10.0.0.0/8,11.0.0.0/8"}, []string{"--cluster-cidr:", "pair of an IPv4 and an IPv6"}},
		{"bad three cluster CIDRs", []string{"--cluster-cidr=10.0.0.0/8,fd00::/8,11.0.0.0/8"}, []string{"--cluster-cidr:", "pair of"}},
		{"bad cluster CIDR that another mode does not use", []string{"--detect-local-mode=NodeCIDR", "--cluster-cidr=x"}, []string{"--cluster-cidr:"}},
		{"bad mode", []string{"--detect-local-mode=clustercidr"}, []string{`--detect-local-mode: "clustercidr" is none of`}},
		{"bad no bridge", []string{"--detect-local-mode=BridgeInterface"}, []string{"--pod-bridge-interface: required with the detect-local mode BridgeInterface"}},
		{"bad no prefix", []string{"--detect-local-mode=InterfaceNamePrefix"}, []string{"--pod-interface-name-prefix: required"}},
		{"bad bridge name, too long", []string{"--detect-local-mode=BridgeInterface", "--pod-bridge-interface=abcdefghijklmnop"}, []string{"--pod-bridge-interface:", "not the name of an interface"}},
		{"bad bridge name, a quote", []string{"--detect-local-mode=BridgeInterface", `--pod-bridge-interface=a'b*`}, []string{"--pod-bridge-interface:", "not the name of an interface"}},
		{"bad localhost", []string{"--nodeport-addresses=primary,localhost"}, []string{"--nodeport-addresses: localhost:", "not served yet"}},
		{"bad node port address", []string{"--nodeport-addresses=192.0.2.1"}, []string{`--nodeport-addresses: "192.0.2.1" is neither`}},
		{"bad value of a gate", []string{"--feature-gates=AllowServiceExternalIPs=perhaps"}, []string{"--feature-gates: AllowServiceExternalIPs=perhaps"}},
		{"bad verbosity", []string{"-v=-1"}, []string{"--v: -1 is negative"}},
		{"bad log format", []string{"--logging-format=xml"}, []string{`--logging-format: "xml"`}},
		{"bad address", []string{"--node-address=fe80::1%eth0"}, []string{"--node-address:", "not an IP address"}},
		{"bad all at once", []string{"--metrics-bind-address=x", "--cluster-cidr=x", "-v=-1"}, []string{"--metrics-bind-address", "--cluster-cidr", "--v"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, slices.Concat([]string{"--manifests=m", "--hostname-override=n"}, tt.args)...)
			var e exitError
			if !errors.As(err, &e) || e.code != exitUsage {
				t.Fatalf("config(%q) = %v; want a usage error", tt.args, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("config(%q) = %q; want it to say %q", tt.args, err, want)
				}
			}
		})
	}
}

func TestNodeName(t *testing.T) {
	host := func() (string, error) { return "Host.Example", nil }
	lost := func() (string, error) { return "", os.ErrNotExist }
	tests := []struct {
		name     string
		override string
		hostname func() (string, error)
		want     string
	}{
		{"OK the host name", "", host, "host.example"},
		{"OK another name", "Other", lost, "other"},
		{"bad neither", "", lost, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nodeName(tt.override, tt.hostname)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("nodeName(%q) = %q, %v; want %q", tt.override, got, err, tt.want)
			}
		})
	}
}
