package leftovers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOurs(t *testing.T) {
	tests := []struct {
		chain string
		want  bool
	}{
		{"KUBE-SERVICES", true},
		{"KUBE-PROXY-CANARY", true},
		{"KUBE-IPVS-FILTER", true},
		{"KUBE-SVC-TCOU7JCQXEZGVUNU", true},
		{"KUBE-XLB-TCOU7JCQXEZGVUNU", true},
		{"KUBE-SVC-TCOU7JCQXEZGVUN", false},  // no hash
		{"KUBE-SVC-TCOU7JCQXEZGVUN1", false}, // no letter of base32
		{"KUBE-FIREWALL", false},             // kubelet
		{"KUBE-KUBELET-CANARY", false},
		{"KUBE-IPTABLES-HINT", false},
		{"KUBE-MARK-DROP", false},
		{"KUBE-ROUTER-SERVICES", false}, // kube-router
		{"KUBE-NWPLCY-TCOU7JCQXEZGVUNU", false},
		{"KUBE-POD-FW-TCOU7JCQXEZGVUNU", false},
		{"INPUT", false},
		{"", false},
	}
	for _, tt := range tests {
		if got := ours(tt.chain); got != tt.want {
			t.Errorf("ours(%q) = %t; want %t", tt.chain, got, tt.want)
		}
	}
}

func TestDecide(t *testing.T) {
	nat, filter := table{"ip", "nat"}, table{"ip", "filter"}
	base := func(t table, name string) chain { return chain{table: t, name: name, base: true} }
	own := func(t table, name string) chain { return chain{table: t, name: name} }
	to := func(t table, from, to string, handle uint64) jump { return jump{t, from, handle, to} }
	tests := []struct {
		name string
		rs   ruleset
		want removal
	}{
		{"nothing there", ruleset{}, removal{}},
		{
			"the tables of the mode nftables",
			ruleset{tables: []table{{"ip", proxyTable}, {"ip6", proxyTable}}},
			removal{tables: []table{{"ip", proxyTable}, {"ip6", proxyTable}}},
		},
		{
			"chains, and jumps out of what the kernel calls",
			ruleset{
				chains: []chain{base(nat, "OUTPUT"), own(nat, "KUBE-SERVICES"), own(nat, "DOCKER"), base(filter, "INPUT"), own(filter, "KUBE-FIREWALL")},
				jumps:  []jump{to(nat, "OUTPUT", "KUBE-SERVICES", 1), to(nat, "OUTPUT", "DOCKER", 2), to(filter, "INPUT", "KUBE-FIREWALL", 3)},
			},
			removal{chains: []chain{own(nat, "KUBE-SERVICES")}, jumps: []jump{to(nat, "OUTPUT", "KUBE-SERVICES", 1)}},
		},
		{
			"the same name in another table is another chain",
			ruleset{
				chains: []chain{base(nat, "OUTPUT"), own(nat, "KUBE-SERVICES"), base(filter, "OUTPUT"), own(filter, "KUBE-SERVICES"), own(filter, "OTHER")},
				jumps:  []jump{to(nat, "OUTPUT", "KUBE-SERVICES", 1), to(filter, "OUTPUT", "KUBE-SERVICES", 2), to(filter, "OTHER", "KUBE-SERVICES", 3)},
			},
			removal{
				chains: []chain{own(nat, "KUBE-SERVICES")}, jumps: []jump{to(nat, "OUTPUT", "KUBE-SERVICES", 1)},
				kept: []string{"chain KUBE-SERVICES in table ip filter: chain OTHER jumps to it"},
			},
		},
		{
			"what others use stays, with all it leads to",
			ruleset{
				chains: []chain{
					base(nat, "PREROUTING"), own(nat, "CNI"), own(nat, "KUBE-MARK-MASQ"),
					own(nat, "KUBE-SERVICES"), own(nat, "KUBE-NODEPORTS"), own(nat, "KUBE-POSTROUTING"),
				},
				jumps: []jump{
					// In an order in which one look is not enough.
					to(nat, "KUBE-NODEPORTS", "KUBE-MARK-MASQ", 1), to(nat, "KUBE-SERVICES", "KUBE-NODEPORTS", 2),
					to(nat, "CNI", "KUBE-SERVICES", 3), to(nat, "PREROUTING", "KUBE-SERVICES", 4), to(nat, "PREROUTING", "KUBE-POSTROUTING", 5),
				},
			},
			removal{
				chains: []chain{own(nat, "KUBE-POSTROUTING")}, jumps: []jump{to(nat, "PREROUTING", "KUBE-POSTROUTING", 5)},
				kept: []string{
					"chain KUBE-MARK-MASQ in table ip nat: chain KUBE-NODEPORTS jumps to it",
					"chain KUBE-SERVICES in table ip nat: chain CNI jumps to it",
					"chain KUBE-NODEPORTS in table ip nat: chain KUBE-SERVICES jumps to it",
				},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := decide(tt.rs)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(removal{}, table{}, chain{}, jump{})); diff != "" {
				t.Errorf("decide() differs (-want +got):\n%s", diff)
			}
		})
	}
}
