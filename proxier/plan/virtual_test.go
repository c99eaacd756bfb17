package plan

import (
	"net/netip"
	"time"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// serverFieldTests are the rows of TestFields about IPVS.
func serverFieldTests(port func(*input) *model.Port, addr func(string) netip.Addr, prefix func(string) netip.Prefix) []fieldTest {
	able := func(in *input) { in.config.Schedulers = []string{"lc", "rr"} }
	balanced := func(in *input) { able(in); in.service.Scheduler = "lc" }
	asks := func(name string) func(*input) { return func(in *input) { in.service.Scheduler = name } }
	return []fieldTest{
		{fields: "Service.Scheduler Config.Schedulers", before: able, change: asks("lc"), want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
- ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
- ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080
- ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:d
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:1
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:1
+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 80
+ ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 80
+ ip ipvs-servers: 172.30.0.1 . tcp . 80 comment "default/web:http"
+ ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1`},
		{fields: "Service.Scheduler", name: "random is nftables", before: func(in *input) { able(in); in.config.Scheduler = "rr"; in.service.Scheduler = "lc" }, change: asks(model.Random), want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:d
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:1
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:1
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 80
- ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 80
- ip ipvs-servers: 172.30.0.1 . tcp . 80 comment "default/web:http"
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
+ ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080
+ ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080`},
		{fields: "Service.Scheduler", name: "rr, which the kernel does not have", before: func(in *input) {}, change: asks("rr"), want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae50:2
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae50:2
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae70:2
+ ip chains: ae50:2 : goto lb-rr-2
+ ip balancers: ae50:2 : goto lb-rr-2
+ ip balancers: ae70:2 : goto nodeport-rr-2
+ ip lb-rr-2: dnat ip to ip daddr . meta l4proto . th dport . numgen inc mod 2 map @endpoints
+ ip lb-rr-2: dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints comment "the endpoint went while we looked"
+ ip nodeport-rr-2: dnat ip to meta l4proto . th dport . numgen inc mod 2 map @nodeport-endpoints
+ ip nodeport-rr-2: dnat ip to meta l4proto . th dport . numgen random mod 1 map @nodeport-endpoints comment "the endpoint went while we looked"
+ ip6 chains: ae50:2 : goto lb-rr-2
+ ip6 balancers: ae50:2 : goto lb-rr-2
+ ip6 balancers: ae70:2 : goto nodeport-rr-2
+ ip6 lb-rr-2: dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen inc mod 2 map @endpoints
+ ip6 lb-rr-2: dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints comment "the endpoint went while we looked"
+ ip6 nodeport-rr-2: dnat ip6 to meta l4proto . th dport . numgen inc mod 2 map @nodeport-endpoints
+ ip6 nodeport-rr-2: dnat ip6 to meta l4proto . th dport . numgen random mod 1 map @nodeport-endpoints comment "the endpoint went while we looked"`},
		{fields: "Service.Scheduler", name: "sh, which the kernel does not have", before: func(in *input) {}, change: asks("sh"), want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae90:2
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae90:2
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : aeb0:2
+ ip chains: ae90:2 : goto lb-sh-2
+ ip balancers: ae90:2 : goto lb-sh-2
+ ip balancers: aeb0:2 : goto nodeport-sh-2
+ ip lb-sh-2: dnat ip to ip daddr . meta l4proto . th dport . jhash ip saddr mod 2 seed 0x1 map @endpoints
+ ip lb-sh-2: dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints comment "the endpoint went while we looked"
+ ip nodeport-sh-2: dnat ip to meta l4proto . th dport . jhash ip saddr mod 2 seed 0x1 map @nodeport-endpoints
+ ip nodeport-sh-2: dnat ip to meta l4proto . th dport . numgen random mod 1 map @nodeport-endpoints comment "the endpoint went while we looked"
+ ip6 chains: ae90:2 : goto lb-sh-2
+ ip6 balancers: ae90:2 : goto lb-sh-2
+ ip6 balancers: aeb0:2 : goto nodeport-sh-2
+ ip6 lb-sh-2: dnat ip6 to ip6 daddr . meta l4proto . th dport . jhash ip6 saddr mod 2 seed 0x1 map @endpoints
+ ip6 lb-sh-2: dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints comment "the endpoint went while we looked"
+ ip6 nodeport-sh-2: dnat ip6 to meta l4proto . th dport . jhash ip6 saddr mod 2 seed 0x1 map @nodeport-endpoints
+ ip6 nodeport-sh-2: dnat ip6 to meta l4proto . th dport . numgen random mod 1 map @nodeport-endpoints comment "the endpoint went while we looked"`},
		{fields: "Config.Scheduler", before: able, change: func(in *input) { in.config.Scheduler = "rr" }, want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
- ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
- ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
- ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080
- ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:d
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:1
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:1
+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 80
+ ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 80
+ ip ipvs-servers: 172.30.0.1 . tcp . 80 comment "default/web:http"
+ ipvs TCP 172.30.0.1:80 scheduler rr -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1`},
		{fields: "Config.Schedulers", name: "the first makes rules for the addresses of virtual servers", before: func(in *input) { in.config.NodePortAddresses.All = true }, change: able, want: `
- ip filter-input: ct state new ip daddr != 127.0.0.0/8 fib daddr type local meta priority set meta l4proto . th dport map @no-endpoint-nodeports meta priority vmap @refusals
- ip services: ip daddr != 127.0.0.0/8 fib daddr type local meta priority set meta l4proto . th dport map @nodeports meta priority vmap @chains
- ip6 filter-input: ct state new ip6 daddr != ::1 fib daddr type local meta priority set meta l4proto . th dport map @no-endpoint-nodeports meta priority vmap @refusals
- ip6 services: ip6 daddr != ::1 fib daddr type local meta priority set meta l4proto . th dport map @nodeports meta priority vmap @chains
+ ip firewall-output: ct state new ip daddr @cluster-ips jump check-endpoints
+ ip firewall-output: ct state new ip daddr @ipvs-draining-ips ip daddr != @cluster-ips jump check-ipvs-draining
+ ip filter-input: ct state new ip daddr @cluster-ips jump check-ipvs
+ ip filter-input: ct state new ip daddr @ipvs-draining-ips ip daddr != @cluster-ips jump check-ipvs-draining
+ ip filter-input: ct state new ip daddr != 127.0.0.0/8 fib daddr type local ip daddr != @cluster-ips meta priority set meta l4proto . th dport map @no-endpoint-nodeports meta priority vmap @refusals
+ ip services: ip daddr != 127.0.0.0/8 fib daddr type local ip daddr != @cluster-ips meta priority set meta l4proto . th dport map @nodeports meta priority vmap @chains
+ ip6 firewall-output: ct state new ip6 daddr @cluster-ips jump check-endpoints
+ ip6 firewall-output: ct state new ip6 daddr @ipvs-draining-ips ip6 daddr != @cluster-ips jump check-ipvs-draining
+ ip6 filter-input: ct state new ip6 daddr @cluster-ips jump check-ipvs
+ ip6 filter-input: ct state new ip6 daddr @ipvs-draining-ips ip6 daddr != @cluster-ips jump check-ipvs-draining
+ ip6 filter-input: ct state new ip6 daddr != ::1 fib daddr type local ip6 daddr != @cluster-ips meta priority set meta l4proto . th dport map @no-endpoint-nodeports meta priority vmap @refusals
+ ip6 services: ip6 daddr != ::1 fib daddr type local ip6 daddr != @cluster-ips meta priority set meta l4proto . th dport map @nodeports meta priority vmap @chains`},
		{fields: "Config.ExcludeIPVS", before: balanced, change: func(in *input) { in.config.ExcludeIPVS = []netip.Prefix{prefix("172.30.0.0/24")} }, want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:d
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:1
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:1
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 80
- ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 80
- ip ipvs-servers: 172.30.0.1 . tcp . 80 comment "default/web:http"
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
+ ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080
+ ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080`},
		{fields: "Config.Unfit", before: balanced, change: func(in *input) { in.config.Unfit = map[model.Name]bool{in.service.Name: true} }, want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:d
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:1
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:1
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 80
- ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 80
- ip ipvs-servers: 172.30.0.1 . tcp . 80 comment "default/web:http"
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae10:2
+ ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:2
+ ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:2
+ ip endpoints: 172.30.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 172.30.0.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 10.1.0.1 . 8080
+ ip endpoints: 192.0.2.1 . tcp . 80 . 1 : 10.1.0.2 . 8080
+ ip nodeport-endpoints: tcp . 30080 . 0 : 10.1.0.1 . 8080
+ ip nodeport-endpoints: tcp . 30080 . 1 : 10.1.0.2 . 8080`},
		{fields: "Config.Draining", change: func(in *input) { in.config.Draining = []netip.Addr{addr("172.30.9.9"), addr("fd00:96::9")} }, want: `
+ ip ipvs-draining-ips: 172.30.9.9
+ ip firewall-output: ct state new ip daddr @cluster-ips jump check-endpoints
+ ip firewall-output: ct state new ip daddr @ipvs-draining-ips ip daddr != @cluster-ips jump check-ipvs-draining
+ ip filter-input: ct state new ip daddr @cluster-ips jump check-ipvs
+ ip filter-input: ct state new ip daddr @ipvs-draining-ips ip daddr != @cluster-ips jump check-ipvs-draining
+ ip6 ipvs-draining-ips: fd00:96::9
+ ip6 firewall-output: ct state new ip6 daddr @cluster-ips jump check-endpoints
+ ip6 firewall-output: ct state new ip6 daddr @ipvs-draining-ips ip6 daddr != @cluster-ips jump check-ipvs-draining
+ ip6 filter-input: ct state new ip6 daddr @cluster-ips jump check-ipvs
+ ip6 filter-input: ct state new ip6 daddr @ipvs-draining-ips ip6 daddr != @cluster-ips jump check-ipvs-draining`},
		{fields: "Endpoint.Weight", before: balanced, change: func(in *input) { port(in).Endpoints[1].Weight = 5 }, want: `
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 5`},
		{fields: "Service.Affinity", name: "by persistence", before: balanced, change: func(in *input) { in.service.Affinity = time.Minute }, want: `
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ipvs TCP 172.30.0.1:80 scheduler lc persistent 60 -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1`},
		{fields: "Service.ExternalLocal", name: "a second list of endpoints", before: balanced, change: func(in *input) { in.service.ExternalLocal = true }, want: `
- ip services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:1
- ip nodeports: tcp . 30080 comment "default/web:http" : ae00:3
+ ip services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:2
+ ip external-local-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae20:1
+ ip nodeports: tcp . 30080 comment "default/web:http" : ae00:4
+ ip nodeport-local-services: tcp . 30080 comment "default/web:http" : ae40:1
+ ip local-endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 30080
+ ip nodeport-local-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 30080
+ ip ipvs-inner-servers: 172.30.0.1 . tcp . 30080 comment "default/web:http"
+ ipvs TCP 172.30.0.1:30080 scheduler lc -> 10.1.0.1:8080 weight 1`},
		{fields: "Service.InternalLocal", name: "a second list of endpoints", before: balanced, change: func(in *input) { in.service.InternalLocal = true }, want: `
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 80
- ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 80
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 30080
+ ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 30080
+ ip ipvs-inner-servers: 172.30.0.1 . tcp . 30080 comment "default/web:http"
+ ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1
+ ipvs TCP 172.30.0.1:30080 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1`},
		{
			fields: "Port.NodePort", name: "without one, the inner server's port is a free one",
			before: func(in *input) { balanced(in); in.service.InternalLocal = true; port(in).NodePort = 0 },
			change: func(in *input) {
				in.service.Ports = append(in.service.Ports, model.Port{Name: "last", Protocol: model.TCP, Port: 65535, Endpoints: port(in).Endpoints})
			},
			want: `
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 65535
- ip ipvs-inner-servers: 172.30.0.1 . tcp . 65535 comment "default/web:http"
- ipvs TCP 172.30.0.1:65535 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ip services: 172.30.0.1 . tcp . 65535 comment "default/web:last" : ae00:d
+ ip services: 192.0.2.1 . tcp . 65535 comment "default/web:last" : ae00:1
+ ip external-services: 192.0.2.1 . tcp . 65535 comment "default/web:last" : ae10:1
+ ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 65534
+ ip endpoints: 192.0.2.1 . tcp . 65535 . 0 : 172.30.0.1 . 65533
+ ip ipvs-servers: 172.30.0.1 . tcp . 65535 comment "default/web:last"
+ ip ipvs-inner-servers: 172.30.0.1 . tcp . 65533 comment "default/web:last"
+ ip ipvs-inner-servers: 172.30.0.1 . tcp . 65534 comment "default/web:http"
+ ipvs TCP 172.30.0.1:65533 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ipvs TCP 172.30.0.1:65534 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ipvs TCP 172.30.0.1:65535 scheduler lc -> 10.1.0.1:8080 weight 1`,
		},
		{fields: "Port.Endpoints", name: "none is refused as in nftables", before: balanced, change: func(in *input) { port(in).Endpoints = nil }, want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:d
- ip services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:1
- ip external-services: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae10:1
- ip nodeports: tcp . 30080 comment "default/web:http" : ae00:3
- ip nodeport-services: tcp . 30080 comment "default/web:http" : ae30:1
- ip endpoints: 192.0.2.1 . tcp . 80 . 0 : 172.30.0.1 . 80
- ip nodeport-endpoints: tcp . 30080 . 0 : 172.30.0.1 . 80
- ip hairpin: 10.1.0.1 . 10.1.0.1
- ip ipvs-servers: 172.30.0.1 . tcp . 80 comment "default/web:http"
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ip no-endpoints: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:b
+ ip no-endpoints: 192.0.2.1 . tcp . 80 comment "default/web:http" : ae00:b
+ ip no-endpoint-nodeports: tcp . 30080 comment "default/web:http" : ae00:b`},
		{
			fields: "Port.Endpoints", name: "none of this node is dropped, and the node port leads elsewhere",
			before: func(in *input) { balanced(in); in.service.InternalLocal = true },
			change: func(in *input) { port(in).Endpoints = port(in).Endpoints[1:] }, want: `
- ip services: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:d
- ip hairpin: 10.1.0.1 . 10.1.0.1
- ip ipvs-servers: 172.30.0.1 . tcp . 80 comment "default/web:http"
- ipvs TCP 172.30.0.1:80 scheduler lc -> 10.1.0.1:8080 weight 1
- ipvs TCP 172.30.0.1:30080 scheduler lc -> 10.1.0.1:8080 weight 1 -> 10.1.0.2:8080 weight 1
+ ip no-endpoints: 172.30.0.1 . tcp . 80 comment "default/web:http" : ae00:c
+ ipvs TCP 172.30.0.1:30080 scheduler lc -> 10.1.0.2:8080 weight 1`,
		},
	}
}
