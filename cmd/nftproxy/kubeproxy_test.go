package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/proxier/plan"
)

func TestArguments(t *testing.T) {
	tests := []struct{ argv, want string }{
		{"nftproxy", ""},
		{"nftproxy --help", "--help"},
		{"nftproxy -h", "-h"},
		{"nftproxy status -o json", "status -o json"},
		{"nftproxy --config=c", "run --config=c"},
		{"/usr/bin/nftproxy --version", "run --version"},
		{"kube-proxy", "run"},
		{"kube-proxy --help", "run --help"},
		{"/usr/local/bin/kube-proxy --config=c --hostname-override=n", "run --config=c --hostname-override=n"},
		{"kube-proxy status", "status"},
	}
	for _, tt := range tests {
		if got := arguments(strings.Fields(tt.argv)); !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("arguments(%q) = %q; want %q", tt.argv, got, tt.want)
		}
	}
}

func TestCheckFamilies(t *testing.T) {
	prefixes := func(words ...string) []netip.Prefix {
		var list []netip.Prefix
		for _, w := range words {
			list = append(list, netip.MustParsePrefix(w))
		}
		return list
	}
	const four, six = "10.0.0.0/8", "fd00::/8"
	tests := []struct {
		name    string
		noSix   bool
		cluster []netip.Prefix
		ports   plan.NodePortAddresses
		want    string // part of the only warning
		err     string
	}{
		{"OK nothing", false, nil, plan.NodePortAddresses{Primary: true}, "", ""},
		{"OK both", false, prefixes(four, six), plan.NodePortAddresses{CIDRs: prefixes(four, six)}, "", ""},
		{"OK primary beside one family", false, nil, plan.NodePortAddresses{Primary: true, CIDRs: prefixes(four)}, "", ""},
		{"OK one family of node port addresses", false, nil, plan.NodePortAddresses{CIDRs: prefixes(six)}, "served on all of its addresses", ""},
		{"OK IPv4 on a host with IPv4", true, prefixes(four), plan.NodePortAddresses{CIDRs: prefixes(four)}, "", ""},
		{"OK both clusters on a host with IPv4", true, prefixes(six, four), plan.NodePortAddresses{}, "cluster CIDR of IPv6 has no effect", ""},
		{"OK both node port addresses on a host with IPv4", true, nil, plan.NodePortAddresses{CIDRs: prefixes(four, six)}, "addresses of IPv6 have no effect", ""},
		{"bad IPv6 on a host with IPv4", true, prefixes(six), plan.NodePortAddresses{}, "", "which this host does not speak"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			warnings, err := checkFamilies(plan.Config{DisableIPv6: tt.noSix, DetectLocal: plan.DetectLocal{CIDRs: tt.cluster}, NodePortAddresses: tt.ports})
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("checkFamilies() = %v; want an error that says %q", err, tt.err)
			}
			if tt.want == "" && len(warnings) > 0 || tt.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], tt.want)) {
				t.Errorf("checkFamilies() warns %q; want one warning that says %q", warnings, tt.want)
			}
		})
	}
}
