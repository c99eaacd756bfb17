package objects

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// parse returns the object that YAML holds.
func parse[T any](t *testing.T, text string) *T {
	t.Helper()
	var out T
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	return &out
}

// comparers are how values of netip are compared.
func comparers() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	}
}

// addrs parses addresses that are separated by spaces.
func addrs(list string) (out []netip.Addr) {
	for _, s := range strings.Fields(list) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// prefixes parses ranges that are separated by spaces.
func prefixes(list string) (out []netip.Prefix) {
	for _, s := range strings.Fields(list) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// A serviceTest is a manifest of a Service and the difference it makes to the base.
type serviceTest struct {
	name string
	// field is the field of the model whose effect the test shows.
	field string
	// meta, spec and status are put into the manifest as they are; spec without clusterIP or ports
	// gets those of the base.
	meta, spec, status string
	edit               func(*model.Service)
	faults             []string // "field: part of the message"
}

// serviceTests are the fields of a Service.
func serviceTests() []serviceTest {
	port := func(f func(*model.Port)) func(*model.Service) { return func(s *model.Service) { f(&s.Ports[0]) } }
	return []serviceTest{
		{name: "OK base", field: "Name"},
		{name: "OK created", field: "Created", meta: ", creationTimestamp: '2026-01-02T03:04:05+01:00'", edit: func(s *model.Service) { s.Created = time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC) }},
		{name: "OK namespace", field: "Name", meta: ", namespace: ns", edit: func(s *model.Service) { s.Name.Namespace = "ns" }},
		{name: "OK dual stack", field: "ClusterIPs", spec: "clusterIPs: [fd00::1, 10.96.0.1], ipFamilies: [IPv6, IPv4]", edit: func(s *model.Service) { s.ClusterIPs = addrs("fd00::1 10.96.0.1") }},
		{name: "OK leading zeros", field: "ClusterIPs", spec: "clusterIP: 010.096.000.001"},
		{name: "OK mapped", field: "ClusterIPs", spec: "clusterIP: '::ffff:10.96.0.1'"},
		{name: "bad second of a family", field: "ClusterIPs", spec: "clusterIPs: [10.96.0.1, 10.96.0.2]", faults: []string{"spec.clusterIPs[1]: second address"}},
		{name: "bad family", field: "ClusterIPs", spec: "clusterIPs: [10.96.0.1, 'fd00::1'], ipFamilies: [IPv4]", faults: []string{"spec.clusterIPs[1]: no entry"}},
		{name: "bad family order", field: "ClusterIPs", spec: "clusterIPs: ['fd00::1', 10.96.0.1], ipFamilies: [IPv4, IPv4]", faults: []string{"spec.clusterIPs[0]: not of the family"}},
		{name: "bad clusterIP differs", field: "ClusterIPs", spec: "clusterIP: 10.96.0.2, clusterIPs: [10.96.0.1]", faults: []string{"spec.clusterIP: not the first"}},
		{name: "OK external IPs", field: "ExternalIPs", spec: "externalIPs: [192.0.2.1, 'fd01::1', 192.0.2.1]", edit: func(s *model.Service) { s.ExternalIPs = addrs("192.0.2.1 fd01::1") }},
		{name: "bad external IP", field: "ExternalIPs", spec: "externalIPs: [x, 192.0.2.1]", edit: func(s *model.Service) { s.ExternalIPs = addrs("192.0.2.1") }, faults: []string{"spec.externalIPs[0]: no IP"}},
		{name: "OK load balancer", field: "LoadBalancerIPs", status: "{ip: 1.2.3.4}, {hostname: x}, {ip: 5.6.7.8, ipMode: Proxy}, {ip: 'fd02::1', ipMode: VIP}", edit: func(s *model.Service) { s.LoadBalancerIPs = addrs("1.2.3.4 fd02::1") }},
		{name: "bad load balancer", field: "LoadBalancerIPs", status: "{ip: 1.2.3}, {ip: 1.2.3.4, ipMode: X}", edit: func(s *model.Service) { s.LoadBalancerIPs = addrs("1.2.3.4") }, faults: []string{"status.loadBalancer.ingress[0].ip: no IP", "status.loadBalancer.ingress[1].ipMode: neither"}},
		{name: "OK source ranges", field: "SourceRanges", spec: "loadBalancerSourceRanges: [' 203.0.113.7/25 ', 'fd03::/64', '010.0.0.0/8']", edit: func(s *model.Service) { s.SourceRanges = prefixes("203.0.113.0/25 fd03::/64 10.0.0.0/8") }},
		{
			name: "bad source range closes the family", field: "SourceRanges", spec: "loadBalancerSourceRanges: [x, 10.0.0.0/8]", status: "{ip: 1.2.3.4}, {ip: 'fd02::1'}",
			edit: func(s *model.Service) {
				s.SourceRanges, s.LoadBalancerIPs = prefixes("10.0.0.0/8"), addrs("1.2.3.4")
			},
			faults: []string{"spec.loadBalancerSourceRanges[0]: no CIDR", "spec.loadBalancerSourceRanges: for fd02::1"},
		},
		{name: "OK external policy", field: "ExternalLocal", spec: "type: NodePort, externalTrafficPolicy: Local", edit: func(s *model.Service) { s.ExternalLocal = true }},
		{name: "OK external policy of one that is not exposed", field: "ExternalLocal", spec: "externalTrafficPolicy: Local"},
		{name: "bad external policy", field: "ExternalLocal", spec: "externalTrafficPolicy: Near", faults: []string{"spec.externalTrafficPolicy: neither"}},
		{name: "OK internal policy", field: "InternalLocal", spec: "internalTrafficPolicy: Local", edit: func(s *model.Service) { s.InternalLocal = true }},
		{name: "bad internal policy", field: "InternalLocal", spec: "internalTrafficPolicy: Near", faults: []string{"spec.internalTrafficPolicy: neither"}},
		{name: "OK affinity", field: "Affinity", spec: "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}", edit: func(s *model.Service) { s.Affinity = time.Minute }},
		{name: "OK affinity default", field: "Affinity", spec: "sessionAffinity: ClientIP", edit: func(s *model.Service) { s.Affinity = 3 * time.Hour }},
		{name: "bad affinity timeout", field: "Affinity", spec: "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90000}}", edit: func(s *model.Service) { s.Affinity = 3 * time.Hour }, faults: []string{"spec.sessionAffinityConfig.clientIP.timeoutSeconds: not in"}},
		{name: "bad affinity", field: "Affinity", spec: "sessionAffinity: Cookie", faults: []string{"spec.sessionAffinity: neither"}},
		{name: "OK scheduler", field: "Scheduler", meta: ", annotations: {nftproxy.io/scheduler: lc, kube-router.io/service.scheduler: rr}", edit: func(s *model.Service) { s.Scheduler = "lc" }},
		{name: "OK scheduler for kube-router", field: "Scheduler", meta: ", annotations: {kube-router.io/service.scheduler: sh}", edit: func(s *model.Service) { s.Scheduler = "sh" }},
		{name: "OK scheduler of nftables", field: "Scheduler", meta: ", annotations: {nftproxy.io/scheduler: random}", edit: func(s *model.Service) { s.Scheduler = model.Random }},
		{name: "bad scheduler", field: "Scheduler", meta: ", annotations: {nftproxy.io/scheduler: fastest}", edit: func(*model.Service) {}, faults: []string{"metadata.annotations[nftproxy.io/scheduler]: none of"}},
		{name: "bad scheduler, another annotation", field: "Scheduler", meta: ", annotations: {nftproxy.io/scheduler: LC, kube-router.io/service.scheduler: rr}", edit: func(s *model.Service) { s.Scheduler = "rr" }, faults: []string{"metadata.annotations[nftproxy.io/scheduler]: none of"}},
		{name: "OK health check", field: "HealthCheckNodePort", spec: "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30001", edit: func(s *model.Service) { s.ExternalLocal, s.HealthCheckNodePort = true, 30001 }},
		{name: "OK health check of another type", field: "HealthCheckNodePort", spec: "type: NodePort, externalTrafficPolicy: Local, healthCheckNodePort: 30001", edit: func(s *model.Service) { s.ExternalLocal = true }},
		{name: "bad health check", field: "HealthCheckNodePort", spec: "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 70000", edit: func(s *model.Service) { s.ExternalLocal = true }, faults: []string{"spec.healthCheckNodePort: no port"}},
		{name: "OK port name", field: "Ports.Name", spec: "ports: [{name: http, port: 80}]", edit: port(func(p *model.Port) { p.Name = "http" })},
		{name: "OK protocol", field: "Ports.Protocol", spec: "ports: [{port: 80, protocol: SCTP}]", edit: port(func(p *model.Port) { p.Protocol = model.SCTP })},
		{name: "OK port", field: "Ports.Port", spec: "ports: [{port: 65535, targetPort: web}]", edit: port(func(p *model.Port) { p.Port = 65535 })},
		{name: "OK node port", field: "Ports.NodePort", spec: "type: NodePort, ports: [{port: 80, nodePort: 30080}]", edit: port(func(p *model.Port) { p.NodePort = 30080 })},
		{name: "bad node port", field: "Ports.NodePort", spec: "type: NodePort, ports: [{port: 80, nodePort: -1}]", faults: []string{"spec.ports[0].nodePort: no port"}},
		{name: "bad node port twice", field: "Ports.NodePort", spec: "type: NodePort, ports: [{port: 80, nodePort: 30080}, {port: 81, name: b, nodePort: 30080}]", edit: func(s *model.Service) {
			s.Ports[0].NodePort = 30080
			s.Ports = append(s.Ports, model.Port{Name: "b", Protocol: model.TCP, Port: 81})
		}, faults: []string{"spec.ports[1].nodePort: again"}},
		{name: "bad ports", field: "Ports.Port", spec: "ports: [{port: 80}, {port: 0, name: a}, {port: 81, protocol: ICMP, name: b}, {port: 82, name: 'a\"b'}, {port: 83}, {port: 80, name: c}]", faults: []string{"spec.ports[1].port: no port", "spec.ports[2].protocol: none of", "spec.ports[3].name: no name", "spec.ports[4].name: another port", "spec.ports[5]: 80/tcp"}},
		{name: "bad port name with another protocol", field: "Ports.Name", spec: "ports: [{port: 80}, {port: 80, protocol: UDP}]", edit: func(s *model.Service) {
			s.Ports = append(s.Ports, model.Port{Protocol: model.UDP, Port: 80})
		}, faults: []string{"spec.ports[1].name: another port"}},
		{name: "bad type", field: "Name", spec: "type: Funny", faults: []string{"spec.type: none of"}},
	}
}

// manifest returns the text of the test's Service.
func (tt serviceTest) manifest() string {
	spec := []string{}
	if tt.spec != "" {
		spec = append(spec, tt.spec)
	}
	if !strings.Contains(tt.spec, "clusterIP") {
		spec = append(spec, "clusterIP: 10.96.0.1")
	}
	if !strings.Contains(tt.spec, "ports:") {
		spec = append(spec, "ports: [{port: 80}]")
	}
	return "metadata: {name: web" + tt.meta + "}\nspec: {" + strings.Join(spec, ", ") + "}\nstatus: {loadBalancer: {ingress: [" + tt.status + "]}}\n"
}

func TestFromService(t *testing.T) {
	for _, tt := range serviceTests() {
		t.Run(tt.name, func(t *testing.T) {
			want := &model.Service{
				Name: model.Name{Namespace: "default", Name: "web"}, ClusterIPs: addrs("10.96.0.1"),
				Ports: []model.Port{{Protocol: model.TCP, Port: 80}},
			}
			if tt.edit != nil {
				tt.edit(want)
			}
			s, found, ok := FromService(parse[v1.Service](t, tt.manifest()))
			if !ok || s == nil {
				t.Fatalf("FromService = %v, %v, %t; want a Service", s, found, ok)
			}
			if diff := cmp.Diff(want, Join(Options{AllowExternalIPs: true}, s, nil), comparers()); diff != "" {
				t.Errorf("FromService (-want +got):\n%s", diff)
			}
			checkFaults(t, found, tt.faults)
		})
	}
}

// checkFaults compares faults with "field: part of the message".
func checkFaults(t *testing.T, found []Fault, want []string) {
	t.Helper()
	if len(found) != len(want) {
		t.Fatalf("faults = %v; want %q", found, want)
	}
	for i, f := range found {
		field, part, _ := strings.Cut(want[i], ": ")
		if f.Field != field || !strings.Contains(f.Message, part) {
			t.Errorf("fault %d = %+v; want %q", i, f, want[i])
		}
	}
}

// A field of the model that no test names would be one that may be dead.
func TestEveryFieldIsTested(t *testing.T) {
	named := map[string]bool{
		// TestJoin, TestFromSlice, TestFromNode.
		"Ports": true, "Ports.Endpoints": true,
	}
	for _, tt := range serviceTests() {
		named[tt.field] = true
	}
	for i := range reflect.TypeFor[model.Service]().NumField() {
		if f := reflect.TypeFor[model.Service]().Field(i).Name; !named[f] {
			t.Errorf("no test names model.Service.%s", f)
		}
	}
	for i := range reflect.TypeFor[model.Port]().NumField() {
		if f := "Ports." + reflect.TypeFor[model.Port]().Field(i).Name; !named[f] {
			t.Errorf("no test names model.Service.%s", f)
		}
	}
	for _, known := range []struct {
		t      reflect.Type
		fields string
	}{
		{reflect.TypeFor[model.Endpoint](), "Addr Node Ready Serving Terminating Weight Hints"},
		{reflect.TypeFor[model.Hints](), "Zones Nodes"},
		{reflect.TypeFor[model.Node](), "Name Zone PrimaryIPs Addresses PodCIDRs Known Leaving"},
		{reflect.TypeFor[model.Snapshot](), "Services Node ServiceCIDRs Triggered"},
	} {
		var got []string
		for i := range known.t.NumField() {
			got = append(got, known.t.Field(i).Name)
		}
		if strings.Join(got, " ") != known.fields {
			t.Errorf("%s has the fields %q; the tests know %q", known.t, got, known.fields)
		}
	}
}

func TestFromServiceNotServed(t *testing.T) {
	tests := []struct {
		name, text string
		ok         bool
		faults     []string
	}{
		{"OK another proxy", "metadata: {name: a, labels: {service.kubernetes.io/service-proxy-name: ''}}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}", true, nil},
		{"OK headless", "metadata: {name: a}\nspec: {clusterIP: None, ports: [{port: 80}]}", true, nil},
		{"OK headless list", "metadata: {name: a}\nspec: {clusterIPs: [None], ports: [{port: 80}]}", true, nil},
		{"OK no address", "metadata: {name: a}\nspec: {ports: [{port: 80}]}", true, nil},
		{"OK ExternalName", "metadata: {name: a}\nspec: {type: ExternalName, clusterIP: 10.96.0.1, ports: [{port: 80}]}", true, nil},
		{"bad address", "metadata: {name: a}\nspec: {clusterIP: 10.96.0.256, ports: [{port: 80}]}", false, []string{"spec.clusterIP: no IP"}},
		{"bad no ports", "metadata: {name: a}\nspec: {clusterIP: 10.96.0.1}", false, []string{"spec.ports: empty"}},
		{"bad no name", "spec: {clusterIP: 10.96.0.1}", false, []string{"metadata.name: missing"}},
		{"bad name", "metadata: {name: 'a\"b'}\nspec: {clusterIP: 10.96.0.1}", false, []string{"metadata.name: no name"}},
		{"bad namespace", "metadata: {name: a, namespace: a/b}\nspec: {clusterIP: 10.96.0.1}", false, []string{"metadata.namespace: no namespace"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, found, ok := FromService(parse[v1.Service](t, tt.text))
			if s != nil || ok != tt.ok {
				t.Errorf("FromService = %v, %t; want nil, %t", s, ok, tt.ok)
			}
			checkFaults(t, found, tt.faults)
		})
	}
}

func TestJoinExternalIPsOff(t *testing.T) {
	for spec, local := range map[string]bool{"type: ClusterIP": false, "type: NodePort": true} {
		s, _, _ := FromService(parse[v1.Service](t, "metadata: {name: a}\nspec: {"+spec+", externalTrafficPolicy: Local, externalIPs: [192.0.2.1], clusterIP: 10.96.0.1, ports: [{port: 80}]}"))
		got := Join(Options{}, s, nil)
		if len(got.ExternalIPs) > 0 || got.ExternalLocal != local {
			t.Errorf("Join(%s) = external IPs %v, local %t; want none, %t", spec, got.ExternalIPs, got.ExternalLocal, local)
		}
	}
}

func TestFromSlice(t *testing.T) {
	const head = "metadata: {name: s, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{name: http, port: 8080}]\n"
	ready := Endpoint{Endpoint: model.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:0"), Ready: true, Serving: true}}
	one := func(f func(*Endpoint)) []Endpoint {
		e := ready
		f(&e)
		return []Endpoint{e}
	}
	tests := []struct {
		name, text string
		ports      []SlicePort
		want       []Endpoint
		faults     []string
	}{
		{"OK defaults", head + "endpoints: [{addresses: [10.0.0.1, 10.0.0.2]}]", []SlicePort{{"http", model.TCP, 8080}}, []Endpoint{ready}, nil},
		{"OK conditions", head + "endpoints: [{addresses: [10.0.0.1], conditions: {ready: false, serving: false, terminating: true}}]", []SlicePort{{"http", model.TCP, 8080}}, one(func(e *Endpoint) { e.Ready, e.Serving, e.Terminating = false, false, true }), nil},
		{"OK node", head + "endpoints: [{addresses: [10.0.0.1], nodeName: 'n'}]", []SlicePort{{"http", model.TCP, 8080}}, one(func(e *Endpoint) { e.Node = "n" }), nil},
		{"OK pod and zone", head + "endpoints: [{addresses: [10.0.0.1], zone: z, targetRef: {kind: Pod, name: p}}]", []SlicePort{{"http", model.TCP, 8080}}, one(func(e *Endpoint) { e.Who = Who{Pod: hashOf("p"), Zone: hashOf("z")} }), nil},
		{"OK no pod", head + "endpoints: [{addresses: [10.0.0.1], targetRef: {kind: VM, name: p}}]", []SlicePort{{"http", model.TCP, 8080}}, []Endpoint{ready}, nil},
		{"OK hints", head + "endpoints: [{addresses: [10.0.0.1], hints: {forZones: [{name: z}], forNodes: [{name: 'n'}]}}]", []SlicePort{{"http", model.TCP, 8080}}, one(func(e *Endpoint) { e.Hints = &model.Hints{Zones: []string{"z"}, Nodes: []string{"n"}} }), nil},
		{"bad addresses", head + "endpoints: [{addresses: []}, {addresses: [x]}, {addresses: [127.0.0.1]}, {addresses: [169.254.1.1]}, {addresses: [0.0.0.0]}, {addresses: [224.0.0.1]}, {addresses: ['fd00::1']}, {addresses: [10.0.0.1]}]", []SlicePort{{"http", model.TCP, 8080}}, []Endpoint{ready}, []string{
			"endpoints[0].addresses: empty", "endpoints[1].addresses[0]: no IP", "endpoints[2].addresses[0]: loopback", "endpoints[3].addresses[0]: link-local",
			"endpoints[4].addresses[0]: unspecified", "endpoints[5].addresses[0]: multicast", "endpoints[6].addresses[0]: not of the addressType",
		}},
		{"bad ports", "metadata: {name: s, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{port: 1}, {name: a}, {name: b, port: 70000}, {name: c, port: 2, protocol: X}, {name: '', port: 3, protocol: UDP}]", []SlicePort{{"", model.UDP, 3}}, nil, []string{
			"ports[0].name: missing", "ports[1].port: missing", "ports[2].port: no port", "ports[3].protocol: none of",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, found, ok := FromSlice(parse[discovery.EndpointSlice](t, tt.text))
			if !ok || s == nil {
				t.Fatalf("FromSlice = %v, %v, %t; want a slice", s, found, ok)
			}
			want := &Slice{Name: model.Name{Namespace: "default", Name: "s"}, Service: model.Name{Namespace: "default", Name: "web"}, Subsets: []Subset{{tt.ports, tt.want}}}
			if diff := cmp.Diff(want, s, comparers()); diff != "" {
				t.Errorf("FromSlice (-want +got):\n%s", diff)
			}
			checkFaults(t, found, tt.faults)
		})
	}
}

func TestFromSliceTriggered(t *testing.T) {
	const head = "metadata: {name: s, labels: {kubernetes.io/service-name: web}, annotations: {endpoints.kubernetes.io/last-change-trigger-time: '%s'}}\naddressType: IPv4\n"
	at := time.Date(2026, 11, 21, 12, 0, 0, 5e8, time.UTC)
	tests := []struct {
		name, value string
		want        time.Time
		faults      []string
	}{
		{"OK UTC", "2026-11-21T12:00:00.5Z", at, nil},
		{"OK elsewhere", "2026-11-21T13:00:00.5+01:00", at, nil},
		{"bad", "noon", time.Time{}, []string{"metadata.annotations: no time"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, found, _ := FromSlice(parse[discovery.EndpointSlice](t, fmt.Sprintf(head, tt.value)))
			if s.Triggered != tt.want {
				t.Errorf("Triggered = %s; want %s", s.Triggered, tt.want)
			}
			checkFaults(t, found, tt.faults)
			//lint:ignore SA1019 old, yet in use
			e, _, _ := FromEndpoints(parse[v1.Endpoints](t, strings.Replace(fmt.Sprintf(head, tt.value), "addressType: IPv4", "", 1)))
			if e.Triggered != tt.want {
				t.Errorf("Triggered of v1 Endpoints = %s; want %s", e.Triggered, tt.want)
			}
		})
	}
}

func TestFromSliceNotServed(t *testing.T) {
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"OK headless", "metadata: {name: s, labels: {kubernetes.io/service-name: web, service.kubernetes.io/headless: ''}}\naddressType: IPv4", true},
		{"OK no service", "metadata: {name: s}\naddressType: IPv4", true},
		{"OK names", "metadata: {name: s, labels: {kubernetes.io/service-name: web}}\naddressType: FQDN", true},
		{"bad addressType", "metadata: {name: s, labels: {kubernetes.io/service-name: web}}", false},
	}
	for _, tt := range tests {
		if s, _, ok := FromSlice(parse[discovery.EndpointSlice](t, tt.text)); s != nil || ok != tt.ok {
			t.Errorf("%s: FromSlice = %v, %t; want nil, %t", tt.name, s, ok, tt.ok)
		}
	}
}

func TestFromEndpoints(t *testing.T) {
	//lint:ignore SA1019 old, yet in use
	s, found, ok := FromEndpoints(parse[v1.Endpoints](t, "metadata: {name: web, namespace: ns}\nsubsets: [{addresses: [{ip: 10.0.0.1, nodeName: 'n', targetRef: {kind: Pod, name: p}}, {ip: 'fd00::1'}, {ip: 127.0.0.1}], notReadyAddresses: [{ip: 10.0.0.2}], ports: [{port: 8080}]}, {addresses: [{ip: 10.0.0.3}], ports: [{name: b, port: 1, protocol: UDP}]}]"))
	name := model.Name{Namespace: "ns", Name: "web"}
	want := &Slice{Name: name, Service: name, Subsets: []Subset{
		{[]SlicePort{{"", model.TCP, 8080}}, []Endpoint{
			{Endpoint: model.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:0"), Node: "n", Ready: true, Serving: true}, Who: Who{Pod: hashOf("p")}},
			{Endpoint: model.Endpoint{Addr: netip.MustParseAddrPort("[fd00::1]:0"), Ready: true, Serving: true}},
			{Endpoint: model.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:0"), Serving: true}},
		}},
		{[]SlicePort{{"b", model.UDP, 1}}, []Endpoint{{Endpoint: model.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.3:0"), Ready: true, Serving: true}}}},
	}}
	if diff := cmp.Diff(want, s, comparers()); diff != "" || !ok {
		t.Errorf("FromEndpoints, %t (-want +got):\n%s", ok, diff)
	}
	checkFaults(t, found, []string{"subsets[0].addresses[2].ip: loopback"})
	//lint:ignore SA1019 old, yet in use
	s, _, ok = FromEndpoints(parse[v1.Endpoints](t, "metadata: {name: web, labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}}"))
	if s != nil || !ok {
		t.Errorf("FromEndpoints with skip-mirror = %v, %t; want nil, true", s, ok)
	}
}

func TestJoin(t *testing.T) {
	s, _, _ := FromService(parse[v1.Service](t, "metadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}, {name: dns, protocol: UDP, port: 53}]}"))
	slice := func(name string, terminating bool, node string, ips ...string) *Slice {
		out := &Slice{Name: model.Name{Name: name}, Subsets: []Subset{{Ports: []SlicePort{{"http", model.TCP, 8080}, {"http", model.UDP, 1}, {"dns", model.TCP, 2}}}}}
		for _, ip := range addrs(strings.Join(ips, " ")) {
			out.Subsets[0].Endpoints = append(out.Subsets[0].Endpoints, Endpoint{Endpoint: model.Endpoint{Addr: netip.AddrPortFrom(ip, 0), Terminating: terminating, Node: node}})
		}
		return out
	}
	endpoint := func(addr string, terminating bool, node string) model.Endpoint {
		return model.Endpoint{Addr: netip.MustParseAddrPort(addr), Terminating: terminating, Node: node, Weight: 1}
	}
	tests := []struct {
		name   string
		slices []*Slice
		want   []model.Endpoint
	}{
		{"OK sorted, of both families", []*Slice{slice("a", false, "", "10.0.0.2", "10.0.0.1"), slice("b", false, "", "fd00::1")}, []model.Endpoint{endpoint("10.0.0.1:8080", false, ""), endpoint("10.0.0.2:8080", false, ""), endpoint("[fd00::1]:8080", false, "")}},
		{"OK a later one replaces", []*Slice{slice("a", true, "n", "10.0.0.1"), slice("b", false, "m", "10.0.0.1")}, []model.Endpoint{endpoint("10.0.0.1:8080", false, "m")}},
		{"OK a terminating one does not", []*Slice{slice("a", false, "n", "10.0.0.1"), slice("b", true, "m", "10.0.0.1")}, []model.Endpoint{endpoint("10.0.0.1:8080", false, "n")}},
		{"OK none", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Join(Options{}, s, tt.slices)
			if diff := cmp.Diff(tt.want, got.Ports[0].Endpoints, comparers()); diff != "" {
				t.Errorf("endpoints of http (-want +got):\n%s", diff)
			}
			if len(got.Ports[1].Endpoints) > 0 || len(s.Model.Ports[0].Endpoints) > 0 {
				t.Errorf("dns has endpoints %v, the cut Service %v; want none", got.Ports[1].Endpoints, s.Model.Ports[0].Endpoints)
			}
		})
	}
}

func TestWeights(t *testing.T) {
	tests := []struct {
		name, weights string
		want          []uint16 // of pod a on node n in zone z, pod b on node n, pod c in zone z, and one that nothing is known of
		faults        []string
	}{
		{"OK none", "", []uint16{1, 1, 1, 1}, nil},
		{"OK all", "pod/a=5, node/n=4,zone/z=3 ,*=2", []uint16{5, 4, 3, 2}, nil},
		{"OK none for a pod", "pod/b=0", []uint16{1, 0, 1, 1}, nil},
		{"OK the most", "*=65535", []uint16{65535, 65535, 65535, 65535}, nil},
		{"bad items", "a=1,pod/=2,pod/a,node/n=65536,zone/z=-1,pod/b=7", []uint16{1, 7, 1, 1}, []string{
			"metadata.annotations[nftproxy.io/weights]: none of pod/NAME", "metadata.annotations[nftproxy.io/weights]: none of pod/NAME", "metadata.annotations[nftproxy.io/weights]: not WHO=WEIGHT",
			"metadata.annotations[nftproxy.io/weights]: not WHO=WEIGHT", "metadata.annotations[nftproxy.io/weights]: not WHO=WEIGHT",
		}},
	}
	const text = "metadata: {name: s, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{name: '', port: 8080}]\nendpoints: [" +
		"{addresses: [10.0.0.1], nodeName: 'n', zone: z, targetRef: {kind: Pod, name: a}}, {addresses: [10.0.0.2], nodeName: 'n', targetRef: {kind: Pod, name: b}}," +
		"{addresses: [10.0.0.3], zone: z, targetRef: {kind: Pod, name: c}}, {addresses: [10.0.0.4]}]"
	slice, _, _ := FromSlice(parse[discovery.EndpointSlice](t, text))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			manifest := "metadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}"
			if tt.weights != "" {
				manifest = strings.Replace(manifest, "web}", "web, annotations: {nftproxy.io/weights: '"+tt.weights+"'}}", 1)
			}
			s, found, _ := FromService(parse[v1.Service](t, manifest))
			checkFaults(t, found, tt.faults)
			var got []uint16
			for _, e := range Join(Options{}, s, []*Slice{slice}).Ports[0].Endpoints {
				got = append(got, e.Weight)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("the weights (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFromNode(t *testing.T) {
	n, found, ok := FromNode(parse[v1.Node](t, "metadata: {name: 'n', labels: {topology.kubernetes.io/zone: z}}\nspec: {podCIDRs: [10.1.0.0/24, x, 'fd00::/64']}\nstatus: {addresses: [{type: ExternalIP, address: 192.0.2.9}, {type: Hostname, address: n}, {type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: y}, {type: ExternalIP, address: 'fd01::1'}]}"))
	want := &Node{Model: model.Node{Name: "n", Zone: "z", PrimaryIPs: addrs("192.0.2.1 fd01::1"), PodCIDRs: prefixes("10.1.0.0/24 fd00::/64"), Known: true}}
	if diff := cmp.Diff(want, n, comparers()); diff != "" || !ok {
		t.Errorf("FromNode, %t (-want +got):\n%s", ok, diff)
	}
	checkFaults(t, found, []string{"status.addresses[3].address: no IP", "spec.podCIDRs[1]: no CIDR"})
	if _, found, ok := FromNode(&v1.Node{}); ok {
		t.Errorf("FromNode without a name = ok; want it refused (%v)", found)
	}
}

func TestFromServiceCIDR(t *testing.T) {
	c, found, ok := FromServiceCIDR(parse[networking.ServiceCIDR](t, "metadata: {name: k}\nspec: {cidrs: [10.96.0.1/16, x, 'fd00::/112']}"))
	if diff := cmp.Diff(&ServiceCIDR{"k", prefixes("10.96.0.0/16 fd00::/112")}, c, comparers()); diff != "" || !ok {
		t.Errorf("FromServiceCIDR, %t (-want +got):\n%s", ok, diff)
	}
	checkFaults(t, found, []string{"spec.cidrs[1]: no CIDR"})
	if c, found, ok := FromServiceCIDR(parse[networking.ServiceCIDR](t, "metadata: {name: k}")); ok || c != nil {
		t.Errorf("FromServiceCIDR of nothing = %v, %t; want it refused (%v)", c, ok, found)
	}
}

func TestFromNodeLeaving(t *testing.T) {
	tests := []struct {
		name, text string
		want       bool
	}{
		{"OK stays", "metadata: {name: 'n'}\nspec: {unschedulable: true, taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]}", false},
		{"OK being deleted", "metadata: {name: 'n', deletionTimestamp: '2026-01-02T03:04:05Z'}", true},
		{"OK to be deleted", "metadata: {name: 'n'}\nspec: {taints: [{key: a}, {key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n, _, _ := FromNode(parse[v1.Node](t, tt.text)); n.Model.Leaving != tt.want {
				t.Errorf("Leaving = %t; want %t", n.Model.Leaving, tt.want)
			}
		})
	}
}

// TestSameEndpoints changes what a slice says of endpoints, and what it does not.
func TestSameEndpoints(t *testing.T) {
	full := func() *Slice {
		return &Slice{
			Name: model.Name{Namespace: "a", Name: "b-1"}, Service: model.Name{Namespace: "a", Name: "b"},
			Subsets: []Subset{{
				Ports:     []SlicePort{{Name: "p", Protocol: model.TCP, Port: 80}},
				Endpoints: []Endpoint{{Endpoint: model.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:0")}, Who: Who{Pod: 1, Zone: 2}}},
			}},
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Slice)
		same   bool
	}{
		{"nothing", func(*Slice) {}, true},
		{"what triggered it", func(s *Slice) { s.Triggered = time.Unix(1, 0) }, true},
		{"the name", func(s *Slice) { s.Name.Name = "c" }, false},
		{"the Service", func(s *Slice) { s.Service.Name = "c" }, false},
		{"a port", func(s *Slice) { s.Subsets[0].Ports[0].Port = 81 }, false},
		{"an address", func(s *Slice) { s.Subsets[0].Endpoints[0].Addr = netip.MustParseAddrPort("10.0.0.2:0") }, false},
		{"a pod", func(s *Slice) { s.Subsets[0].Endpoints[0].Who.Pod = 3 }, false},
		{"a zone", func(s *Slice) { s.Subsets[0].Endpoints[0].Who.Zone = 3 }, false},
		{"no endpoint", func(s *Slice) { s.Subsets[0].Endpoints = nil }, false},
		{"another subset", func(s *Slice) { s.Subsets = append(s.Subsets, Subset{}) }, false},
	} {
		a, b := full(), full()
		tt.change(b)
		if got := a.SameEndpoints(b); got != tt.same {
			t.Errorf("%s: SameEndpoints = %v; want %v", tt.name, got, tt.same)
		}
	}
}
