package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// input is all that Compile takes.
type input struct {
	config  Config
	service model.Service
	node    model.Node
	cidrs   []netip.Prefix
}

// baseInput is a Service with a node port and a load balancer, one endpoint here and one elsewhere.
func baseInput() input {
	return input{
		config: testConfig(),
		node:   *testNode(),
		cidrs:  []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16")},
		service: model.Service{
			Name:            model.Name{Namespace: "default", Name: "web"},
			ClusterIPs:      []netip.Addr{netip.MustParseAddr("172.30.0.1")},
			LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			Ports: []model.Port{{
				Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080,
				Endpoints: []model.Endpoint{endpoint("10.1.0.1:8080", "here"), endpoint("10.1.0.2:8080", "there")},
			}},
		},
	}
}

// lines returns what an input compiles to, a line an object.
func (in *input) lines() []string {
	node, service := in.node, in.service
	snapshot := snapshotOf(&service)
	snapshot.Node, snapshot.ServiceCIDRs = &node, in.cidrs
	return linesOf(Compile(in.config, snapshot, nil))
}

// linesOf returns a State, a line an object.
func linesOf(s *State) []string {
	var lines []string
	for _, table := range s.Tables() {
		prefix := table.Family.String() + " "
		for i := range table.Sets {
			set := &table.Sets[i]
			for j := range table.Elements[set.Name] {
				lines = append(lines, prefix+set.Name+": "+set.ElementString(table.Family, &table.Elements[set.Name][j]))
			}
		}
		for i := range table.Chains {
			for j := range table.Chains[i].Rules {
				lines = append(lines, prefix+table.Chains[i].Name+": "+table.Chains[i].Rules[j].Text(table.Family))
			}
		}
	}
	for _, c := range s.Checks() {
		lines = append(lines, fmt.Sprintf("%s check %d: %s has %d here", c.Family, c.Port, c.Service, c.Local))
	}
	servers := maps.Collect(s.Servers())
	for _, k := range slices.SortedFunc(maps.Keys(servers), ipvs.Key.Compare) {
		one := ipvs.State{Servers: ipvs.Table{k: servers[k]}}
		lines = append(lines, "ipvs "+strings.Join(strings.Fields(one.String()), " "))
	}
	return lines
}

// difference returns the lines that are in one list only, with a sign in front.
func difference(before, after []string) []string {
	var d []string
	for _, l := range before {
		if !slices.Contains(after, l) {
			d = append(d, "- "+l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			d = append(d, "+ "+l)
		}
	}
	return d
}

func TestBase(t *testing.T) {
	in := baseInput()
	empty := in
	empty.service = model.Service{Name: in.service.Name}
	want := []string{
		`+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2`,
		`+ ip services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:1`,
		`+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2`,
		`+ ip nodeports: tcp . 30080 comment "default/web:http" : ae00:3`,
		`+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2`,
		`+ ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080`,
		`+ ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080`,
		`+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080`,
		`+ ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080`,
		`+ ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080`,
		`+ ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080`,
		`+ ip cluster-ips: 172.30.0.1 comment "default/web"`,
		`+ ip hairpin: 10.1.0.1 . 10.1.0.1`,
	}
	if diff := cmp.Diff(want, difference(empty.lines(), in.lines())); diff != "" {
		t.Errorf("the base Service (-want +got):\n%s", diff)
	}
}

// TestFields changes one field after the other and expects what follows in the ruleset. No field of
// the model and of Config may be without a row.
func TestFields(t *testing.T) {
	seen := map[string]bool{
		"Service.Created": true,                       // TestConflict
		"Node.Known":      true, "Node.Leaving": true, // They are about the node's health, not about rules.
	}
	for _, tt := range fieldTests() {
		for _, f := range strings.Fields(tt.fields) {
			seen[f] = true
		}
		t.Run(tt.fields+" "+tt.name, func(t *testing.T) {
			before := baseInput()
			if tt.before != nil {
				tt.before(&before)
			}
			after := baseInput()
			if tt.before != nil {
				tt.before(&after)
			}
			tt.change(&after)
			if diff := cmp.Diff(strings.Split(strings.TrimSpace(tt.want), "\n"), difference(before.lines(), after.lines())); diff != "" {
				t.Errorf("what changes (-want +got):\n%s", diff)
			}
		})
	}
	for _, v := range []any{model.Service{}, model.Port{}, model.Endpoint{}, model.Hints{}, model.Node{}, Config{}, DetectLocal{}, NodePortAddresses{}} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			if name := typ.Name() + "." + typ.Field(i).Name; !seen[name] {
				t.Errorf("no row shows the effect of %s", name)
			}
		}
	}
}

// fieldTest is a change of the base input and what follows.
type fieldTest struct {
	fields, name   string
	before, change func(*input)
	want           string
}

func fieldTests() []fieldTest {
	port := func(in *input) *model.Port { return &in.service.Ports[0] }
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	return slices.Concat(serviceFieldTests(port, addr, prefix), endpointFieldTests(port), configFieldTests(addr, prefix), serverFieldTests(port, addr, prefix))
}

func serviceFieldTests(port func(*input) *model.Port, addr func(string) netip.Addr, prefix func(string) netip.Prefix) []fieldTest {
	clusterOnly := func(in *input) { in.service.LoadBalancerIPs, port(in).NodePort = nil, 0 }
	return []fieldTest{
		{
			fields: "Service.Name", before: clusterOnly, change: func(in *input) { in.service.Name.Name = "api" },
			want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip cluster-ips: 172.30.0.1 comment "default/web"
+ ip services: 172.30.0.1 . tcp . 80 comment "default/api:http" : ae10:2
+ ip cluster-ips: 172.30.0.1 comment "default/api"`,
		},
		{
			fields: "Service.ClusterIPs Service.Ports Endpoint.Addr", name: "a second family", before: clusterOnly,
			change: func(in *input) {
				in.service.ClusterIPs = append(in.service.ClusterIPs, addr("fd00:96::1"))
				port(in).Endpoints = append(port(in).Endpoints, endpoint("[fd00:10::1]:8080", "here"))
			},
			want: `
+ ip6 services: fd00:96::1 . tcp . 80 comment "default/web:http" : ae10:1
+ ip6 endpoints: fd00:96::1 . tcp . 80 . 0 : fd00:10::1 . 8080
+ ip6 cluster-ips: fd00:96::1 comment "default/web"
+ ip6 hairpin: fd00:10::1 . fd00:10::1`,
		},
		{
			fields: "Service.ExternalIPs", change: func(in *input) { in.service.ExternalIPs = []netip.Addr{addr("198.51.100.1"), addr("192.0.2.1")} },
			want: `
+ ip services: 198.51.100.1 . tcp . 80 comment "default/web:http" : ae00:1
+ ip external-services: 198.51.100.1 . tcp . 80 comment "default/web:http" : ae10:2
+ ip endpoints: 198.51.100.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 198.51.100.1 . tcp . 80 . 1 : 10.1.0.2 . 8080`,
		},
		{
			fields: "Service.LoadBalancerIPs", change: func(in *input) { in.service.LoadBalancerIPs = nil },
			want: `
- ip services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:1
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080`,
		},
		{
			fields: "Service.SourceRanges",
			change: func(in *input) {
				in.service.SourceRanges = []netip.Prefix{prefix("203.0.113.0/25"), prefix("203.0.113.64/26"), prefix("2001:db8::/64")}
			},
			want: `
+ ip firewall: 192.0.2.1 . tcp . 80 comment "default/web:http"
+ ip source-ranges: 192.0.2.1 . tcp . 80 . 203.0.113.0/25`,
		},
		{
			fields: "Service.SourceRanges Node.PrimaryIPs", name: "with the node in one of them",
			change: func(in *input) { in.service.SourceRanges = []netip.Prefix{prefix("192.168.0.0/24")} },
			want: `
+ ip firewall: 192.0.2.1 . tcp . 80 comment "default/web:http"
+ ip source-ranges: 192.0.2.1 . tcp . 80 . 192.0.2.1
+ ip source-ranges: 192.0.2.1 . tcp . 80 . 192.168.0.0/24`,
		},
		{
			fields: "Service.ExternalLocal", change: func(in *input) { in.service.ExternalLocal = true },
			want: `
- ip services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:1
- ip nodeports: tcp . 30080 comment "default/web:http" : ae00:3
+ ip services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:2
+ ip external-local-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae20:1
+ ip nodeports: tcp . 30080 comment "default/web:http" : ae00:4
+ ip nodeport-local-services: tcp . 30080 comment "default/web:http" : ae40:1
+ ip local-endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip nodeport-local-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080`,
		},
		{
			fields: "Service.InternalLocal", change: func(in *input) { in.service.InternalLocal = true },
			want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:1`,
		},
		{
			fields: "Service.Affinity", before: func(in *input) { in.config.DisableIPv6 = true }, change: func(in *input) { in.service.Affinity = 10 * time.Second },
			want: affinityLines,
		},
		{
			fields: "Service.HealthCheckNodePort", change: func(in *input) { in.service.HealthCheckNodePort = 30001 },
			want: `+ ip check 30001: default/web has 1 here`,
		},
		{
			fields: "Port.Name Port.Protocol Port.Port", before: clusterOnly,
			change: func(in *input) { port(in).Name, port(in).Protocol, port(in).Port = "dns", model.UDP, 53 },
			want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip services: 172.30.0.1 . udp . 53 comment "default/web:dns" : ae10:2
+ ip endpoints: 172.30.0.1 . udp . 53 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 172.30.0.1 . udp . 53 . 1 : 10.1.0.2 . 8080`,
		},
		{
			fields: "Port.NodePort", change: func(in *input) { port(in).NodePort = 0 },
			want: `
- ip nodeports: tcp . 30080 comment "default/web:http" : ae00:3
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
- ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080
- ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080`,
		},
	}
}

// affinityLines are what session affinity changes of the base input.
const affinityLines = `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
- ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
- ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080
- ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:5
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:7
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae00:9
+ ip affinity-services: 172.30.0.1 . tcp . 80 comment "default/web:http" : goto affinity-2-10s
+ ip affinity-slots: 172.30.0.1 . tcp . 80 . 0 : af28:5298
+ ip affinity-slots: 172.30.0.1 . tcp . 80 . 1 : aff1:e66a
+ ip affinity-endpoints: 172.30.0.1 . tcp . 80 . aff1:e66a : 10.1.0.2 . 8080
+ ip affinity-endpoints: 172.30.0.1 . tcp . 80 . af28:5298 : 10.1.0.1 . 8080
+ ip affinity-front-ends: 192.0.2.1 . tcp . 80 : 172.30.0.1
+ ip affinity-nodeport-ips: tcp . 30080 : 172.30.0.1
+ ip affinity-nodeport-ports: 172.30.0.1 . tcp . 30080 : 80
+ ip affinity-2-10s: meta priority set ip saddr . ip daddr . meta l4proto . th dport map @affinity comment "where the client went before"
+ ip affinity-2-10s: update @affinity { ip saddr . ip daddr . meta l4proto . th dport timeout 10s : meta priority } dnat ip to ip daddr . meta l4proto . th dport . meta priority map @affinity-endpoints comment "if that endpoint is still there"
+ ip affinity-2-10s: meta priority set ip daddr . meta l4proto . th dport . numgen random mod 1 map @affinity-slots comment "in case the next one went while we looked"
+ ip affinity-2-10s: meta priority set ip daddr . meta l4proto . th dport . numgen random mod 2 map @affinity-slots
+ ip affinity-2-10s: delete @affinity { ip saddr . ip daddr . meta l4proto . th dport : meta priority } update @affinity { ip saddr . ip daddr . meta l4proto . th dport timeout 10s : meta priority } comment "an update alone keeps the old value"
+ ip affinity-2-10s: dnat ip to ip daddr . meta l4proto . th dport . meta priority map @affinity-endpoints comment "a rule of its own: a full memory only loses affinity"
+ ip affinity-2-10s: drop comment "all endpoints went while we looked"`

func endpointFieldTests(port func(*input) *model.Port) []fieldTest {
	clusterOnly := func(in *input) { in.service.LoadBalancerIPs, port(in).NodePort = nil, 0 }
	const second = `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:1`
	return []fieldTest{
		{fields: "Port.Endpoints", before: clusterOnly, change: func(in *input) { port(in).Endpoints = port(in).Endpoints[:1] }, want: second},
		{
			fields: "Port.Endpoints", name: "none", change: func(in *input) { port(in).Endpoints = nil },
			before: clusterOnly,
			want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
- ip hairpin: 10.1.0.1 . 10.1.0.1
+ ip no-endpoints: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:b`,
		},
		{
			fields: "Endpoint.Node Node.Name", name: "none here",
			before: func(in *input) { clusterOnly(in); in.service.InternalLocal = true }, change: func(in *input) { port(in).Endpoints[0].Node = "there" },
			want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:1
- ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip hairpin: 10.1.0.1 . 10.1.0.1
+ ip no-endpoints: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:c`,
		},
		{
			fields: "Endpoint.Node", name: "none here, external traffic policy Local",
			before: func(in *input) { port(in).NodePort, in.service.ExternalLocal = 0, true }, change: func(in *input) { port(in).Endpoints[0].Node = "there" },
			want: `
- ip external-local-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae20:1
- ip local-endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip hairpin: 10.1.0.1 . 10.1.0.1
+ ip no-endpoints: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:c`,
		},
		{fields: "Endpoint.Ready", before: clusterOnly, change: func(in *input) { port(in).Endpoints[1].Ready = false }, want: second},
		{
			fields: "Endpoint.Serving Endpoint.Terminating", name: "the last one terminates and does not serve",
			before: func(in *input) {
				clusterOnly(in)
				port(in).Endpoints = []model.Endpoint{endpoint("10.1.0.2:8080", "there", leaving)}
			},
			change: func(in *input) { port(in).Endpoints = []model.Endpoint{endpoint("10.1.0.2:8080", "there", gone)} },
			want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:1
- ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.2 . 8080
+ ip no-endpoints: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:b`,
		},
		{
			fields: "Endpoint.Hints Hints.Zones Node.Zone", before: clusterOnly,
			change: func(in *input) {
				port(in).Endpoints[0].Hints = &model.Hints{Zones: []string{"zone-a"}}
				port(in).Endpoints[1].Hints = &model.Hints{Zones: []string{"zone-b"}}
			},
			want: second,
		},
		{
			fields: "Hints.Nodes", before: clusterOnly,
			change: func(in *input) {
				port(in).Endpoints[0].Hints = &model.Hints{Nodes: []string{"here"}}
				port(in).Endpoints[1].Hints = &model.Hints{Nodes: []string{"there"}}
			},
			want: second,
		},
	}
}

func configFieldTests(addr func(string) netip.Addr, prefix func(string) netip.Prefix) []fieldTest {
	noDetection := func(in *input) { in.config.DetectLocal, in.config.DisableIPv6 = DetectLocal{}, true }
	return []fieldTest{
		{
			fields: "Node.Addresses NodePortAddresses.CIDRs",
			before: func(in *input) {
				in.config.NodePortAddresses.CIDRs = []netip.Prefix{prefix("192.168.0.0/16"), prefix("127.0.0.0/8")}
			},
			change: func(in *input) { in.node.Addresses = append(in.node.Addresses, addr("192.168.7.7")) },
			want:   `+ ip nodeport-ips: 192.168.7.7`,
		},
		{
			fields: "NodePortAddresses.Primary", name: "besides prefixes",
			before: func(in *input) {
				in.config.NodePortAddresses.CIDRs = []netip.Prefix{prefix("192.168.1.0/24"), prefix("2001:db8::/64")}
			},
			change: func(in *input) { in.config.NodePortAddresses.Primary = true },
			want:   `+ ip nodeport-ips: 192.168.0.2`,
		},
		{
			fields: "NodePortAddresses.All", before: func(in *input) { in.config.DisableIPv6 = true },
			change: func(in *input) { in.config.NodePortAddresses.All = true },
			want: `
- ip nodeport-ips: 192.168.0.2
- ip filter-input: ct state new ip daddr @nodeport-ips meta priority set meta l4proto . th dport map @no-endpoint-nodeports meta priority vmap @refusals
- ip services: ip daddr @nodeport-ips meta priority set meta l4proto . th dport map @nodeports meta priority vmap @chains
+ ip filter-input: ct state new ip daddr != 127.0.0.0/8 fib daddr type local meta priority set meta l4proto . th dport map @no-endpoint-nodeports meta priority vmap @refusals
+ ip services: ip daddr != 127.0.0.0/8 fib daddr type local meta priority set meta l4proto . th dport map @nodeports meta priority vmap @chains`,
		},
		{
			fields: "Node.PodCIDRs", before: func(in *input) { noDetection(in); in.config.DetectLocal.Mode = NodeCIDR },
			change: func(in *input) { in.node.PodCIDRs = []netip.Prefix{prefix("10.1.0.0/24")} },
			want:   detectLines("ip saddr != 10.1.0.0/24", "ip saddr 10.1.0.0/24"),
		},
		{
			fields: "Config.DetectLocal DetectLocal.Mode DetectLocal.Interface", name: "bridge", before: noDetection,
			change: func(in *input) { in.config.DetectLocal = DetectLocal{Mode: BridgeInterface, Interface: "cbr0"} },
			want:   detectLines(`iifname != "cbr0"`, `iifname "cbr0"`),
		},
		{
			fields: "DetectLocal.Mode DetectLocal.Interface", name: "prefix", before: noDetection,
			change: func(in *input) { in.config.DetectLocal = DetectLocal{Mode: InterfaceNamePrefix, Interface: "veth"} },
			want:   detectLines(`iifname != "veth*"`, `iifname "veth*"`),
		},
		{
			fields: "DetectLocal.CIDRs", before: noDetection,
			change: func(in *input) { in.config.DetectLocal.CIDRs = []netip.Prefix{prefix("10.0.0.0/8")} },
			want:   detectLines("ip saddr != 10.0.0.0/8", "ip saddr 10.0.0.0/8"),
		},
		{
			fields: "Config.MasqueradeAll Config.NodePortAddresses", before: func(in *input) { in.config.DisableIPv6 = true },
			change: func(in *input) { in.config.MasqueradeAll = true },
			want: `
- ip services: ip saddr != 10.0.0.0/8 ip daddr @cluster-ips meta mark set meta mark | 0x00004000
+ ip services: ip daddr @cluster-ips meta mark set meta mark | 0x00004000`,
		},
		{
			fields: "Config.MasqueradeBit", before: noDetection, change: func(in *input) { in.config.MasqueradeBit = 0 },
			want: `
- ip nat-postrouting: meta mark & 0x00004000 == 0x00004000 meta mark set meta mark ^ 0x00004000 masquerade fully-random
- ip external: meta mark set meta mark | 0x00004000
- ip nodeport: meta mark set meta mark | 0x00004000
- ip ipvs: fib saddr type local meta mark set meta mark | 0x00004000 comment "the node itself may have taken the cluster IP as its source"
+ ip nat-postrouting: meta mark & 0x00000001 == 0x00000001 meta mark set meta mark ^ 0x00000001 masquerade fully-random
+ ip external: meta mark set meta mark | 0x00000001
+ ip nodeport: meta mark set meta mark | 0x00000001
+ ip ipvs: fib saddr type local meta mark set meta mark | 0x00000001 comment "the node itself may have taken the cluster IP as its source"`,
		},
		{
			fields: "Config.DisableIPv6", name: "nothing of the other family is left",
			before: func(in *input) { in.config.DisableIPv6 = true },
			change: func(in *input) {
				in.service.ClusterIPs = append(in.service.ClusterIPs, addr("fd00:96::1"))
				in.cidrs = []netip.Prefix{prefix("172.31.0.0/16"), prefix("fd00:96::/112")}
			},
			want: `
- ip unserved: ip daddr 172.30.0.0/16 drop comment "an address that no Service has"
+ ip unserved: ip daddr 172.31.0.0/16 drop comment "an address that no Service has"`,
		},
	}
}

// detectLines are the rules that come with a way to tell pods of this node.
func detectLines(not, is string) string {
	return `
+ ip services: ` + not + ` ip daddr @cluster-ips meta mark set meta mark | 0x00004000
+ ip external-local: ` + is + ` meta priority set ip daddr . meta l4proto . th dport map @external-services meta priority vmap @balancers comment "pods of this node reach all endpoints"
+ ip nodeport-local: ` + is + ` meta priority set meta l4proto . th dport map @nodeport-services meta priority vmap @balancers comment "pods of this node reach all endpoints"`
}

// TestConflict gives one address to two Services: the older one has it, and the other gets it when
// that one is gone.
func TestConflict(t *testing.T) {
	web := baseInput().service
	web.Created = time.Unix(2, 0)
	older := web
	older.Name.Name, older.Created = "older", time.Unix(1, 0)
	older.Ports = slices.Clone(web.Ports)
	older.Ports[0].Endpoints = web.Ports[0].Endpoints[1:]
	both := Compile(testConfig(), snapshotOf(&web, &older), nil)
	fresh := func(s model.Service) []string {
		return (&input{testConfig(), s, *testNode(), snapshotOf().ServiceCIDRs}).lines()
	}
	want := []string{"+ ip hairpin: 10.1.0.1 . 10.1.0.1"} // of the younger one: endpoints are no front ends
	if diff := cmp.Diff(want, difference(fresh(older), linesOf(both))); diff != "" {
		t.Errorf("what a younger Service of the same addresses adds (-want +got):\n%s", diff)
	}
	conflict := Conflict{Address: "172.30.0.1:80/tcp", Holder: older.Name, Loser: web.Name}
	if got := both.Conflicts(); len(got) != 3 || got[0] != conflict {
		t.Errorf("Conflicts() = %v; want three, %v first", got, conflict)
	}
	after := Compile(testConfig(), snapshotOf(&web), both)
	if diff := cmp.Diff(fresh(web), linesOf(after)); diff != "" {
		t.Errorf("when the older one is gone (-fresh +got):\n%s", diff)
	}
}
