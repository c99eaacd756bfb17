package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// TestChecks counts the endpoints that a load balancer is told of.
func TestChecks(t *testing.T) {
	notReady := func(e *model.Endpoint) { e.Ready = false }
	tests := []struct {
		name      string
		endpoints []model.Endpoint
		want      string
	}{
		{"none", nil, "ip 0, ip6 0"},
		{"here and there", []model.Endpoint{endpoint("10.1.0.1:8080", "here"), endpoint("10.1.0.2:8080", "there"), endpoint("10.1.0.3:8080", "")}, "ip 1, ip6 0"},
		{"each family for itself", []model.Endpoint{endpoint("10.1.0.1:8080", "here"), endpoint("[fd00:10::1]:80", "here"), endpoint("[fd00:10::2]:80", "here")}, "ip 1, ip6 2"},
		{"an address counts once", []model.Endpoint{endpoint("10.1.0.1:8080", "here"), endpoint("10.1.0.1:8081", "here")}, "ip 1, ip6 0"},
		{"terminating and not ready", []model.Endpoint{endpoint("10.1.0.1:8080", "here", leaving), endpoint("10.1.0.2:8080", "here", notReady)}, "ip 0, ip6 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := baseInput()
			in.service.ClusterIPs = append(in.service.ClusterIPs, netip.MustParseAddr("fd00:96::1"))
			in.service.HealthCheckNodePort = 30001
			in.service.Ports[0].Endpoints = tt.endpoints
			var got []string
			for _, c := range Compile(in.config, snapshotOf(&in.service), nil).Checks() {
				if c.Service != in.service.Name || c.Port != 30001 {
					t.Errorf("Checks() has %+v; want port 30001 of %s", c, in.service.Name)
				}
				got = append(got, fmt.Sprintf("%s %d", c.Family, c.Local))
			}
			if got := strings.Join(got, ", "); got != tt.want {
				t.Errorf("Checks() = %s; want %s", got, tt.want)
			}
		})
	}
}

// TestChecksOrder has the checks of older Services first.
func TestChecksOrder(t *testing.T) {
	service := func(name string, created int64) *model.Service {
		s := baseInput().service
		s.Name.Name, s.Created, s.HealthCheckNodePort = name, time.Unix(created, 0), 30001
		return &s
	}
	var got []string
	for _, c := range Compile(testConfig(), snapshotOf(service("a", 3), service("c", 1), service("b", 2)), nil).Checks() {
		got = append(got, c.Service.Name)
	}
	if diff := cmp.Diff([]string{"c", "b", "a"}, got); diff != "" {
		t.Errorf("Checks(), by Service (-want +got):\n%s", diff)
	}
}

// TestNodePortAddrs agrees with nodeport-ips.
func TestNodePortAddrs(t *testing.T) {
	prefix := netip.MustParsePrefix
	tests := []struct {
		name  string
		where NodePortAddresses
		want  string
	}{
		{"primary", NodePortAddresses{}, "[192.168.0.2 2001:db8::1] []"},
		{"all", NodePortAddresses{All: true}, "[] [ip ip6]"},
		{"one family", NodePortAddresses{CIDRs: []netip.Prefix{prefix("192.168.1.0/24"), prefix("127.0.0.0/8")}}, "[192.168.1.2] [ip6]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := testConfig()
			config.NodePortAddresses = tt.where
			addrs, all := Compile(config, snapshotOf(), nil).NodePortAddrs()
			if got := fmt.Sprint(addrs, all); got != tt.want {
				t.Errorf("NodePortAddrs() = %s; want %s", got, tt.want)
			}
		})
	}
}

// TestNoLocal counts Service ports that drop for want of endpoints on this node.
func TestNoLocal(t *testing.T) {
	tests := []struct {
		name               string
		internal, external bool
		node               string
		want               string
	}{
		{"Cluster", false, false, "there", "internal 0, external 0"},
		{"internal Local", true, false, "there", "internal 1, external 0"},
		{"external Local", false, true, "there", "internal 0, external 1"},
		{"both Local", true, true, "there", "internal 1, external 1"},
		{"one here", true, true, "here", "internal 0, external 0"},
		{"none anywhere", true, true, "", "internal 0, external 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := baseInput()
			in.service.InternalLocal, in.service.ExternalLocal = tt.internal, tt.external
			in.service.Ports[0].Endpoints = nil
			if tt.node != "" {
				in.service.Ports[0].Endpoints = []model.Endpoint{endpoint("10.1.0.1:8080", tt.node)}
			}
			c := Compile(in.config, snapshotOf(&in.service), nil).Counts(nft.IPv4)
			if got := fmt.Sprintf("internal %d, external %d", c.NoLocalInternal, c.NoLocalExternal); got != tt.want {
				t.Errorf("Counts(ip) = %s; want %s", got, tt.want)
			}
		})
	}
}

// TestLawCounts expects of every State on a random walk the numbers, conflicts and checks that a
// State made afresh has, and of the numbers what counting says.
func TestLawCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var have *State
		for _, snapshot := range randomWalk(t) {
			e := snapshot.Services.Edit()
			for name, s := range snapshot.Services.All() {
				c := *s
				c.HealthCheckNodePort = 30000 * uint16(len(s.Ports)-1)
				e.Set(name, &c)
			}
			snapshot.Services = e.Map()
			have = Compile(testConfig(), snapshot, have)
			fresh := Compile(testConfig(), snapshot, nil)
			if have.counts != fresh.counts {
				t.Fatalf("counts = %+v; want %+v as afresh", have.counts, fresh.counts)
			}
			if diff := cmp.Diff(fresh.Conflicts(), have.Conflicts()); diff != "" {
				t.Fatalf("Conflicts (-afresh +got):\n%s", diff)
			}
			if diff := cmp.Diff(fresh.Checks(), have.Checks()); diff != "" {
				t.Fatalf("Checks (-afresh +got):\n%s", diff)
			}
			var counted familyCounts
			for f := range have.Fronts() {
				counted[familyIndex(f.Family)].FrontEnds++
				counted[familyIndex(f.Family)].Endpoints += len(f.Endpoints)
			}
			for i, c := range have.counts {
				if c.FrontEnds != counted[i].FrontEnds || c.Endpoints != counted[i].Endpoints {
					t.Fatalf("counts = %+v; want %+v as counted", c, counted[i])
				}
			}
		}
	})
}
