package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch"
)

// service returns a Service of the API.
func service(name, ip string) *v1.Service {
	return &v1.Service{
		ObjectMeta: meta.ObjectMeta{Namespace: "ns", Name: name},
		Spec:       v1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []v1.ServicePort{{Name: "http", Protocol: v1.ProtocolTCP, Port: 80}}},
	}
}

// slice returns an EndpointSlice of a Service, with one endpoint for each address.
func slice(name, service string, ips ...string) *discovery.EndpointSlice {
	s := &discovery.EndpointSlice{
		ObjectMeta:  meta.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discovery.LabelServiceName: service}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: ptr("http"), Protocol: ptr(v1.ProtocolTCP), Port: ptr(int32(8080))}},
	}
	for i, ip := range ips {
		s.Endpoints = append(s.Endpoints, discovery.Endpoint{
			Addresses: []string{ip}, NodeName: ptr(fmt.Sprintf("node-%d", i)),
			Hints: &discovery.EndpointHints{ForZones: []discovery.ForZone{{Name: "z"}}},
		})
	}
	return s
}

// node returns the Node of the tests.
func node(zone string) *v1.Node {
	return &v1.Node{ObjectMeta: meta.ObjectMeta{Name: "n", Labels: map[string]string{v1.LabelTopologyZone: zone}}}
}

// cidr returns a ServiceCIDR.
func cidr(name, prefix string) *networking.ServiceCIDR {
	return &networking.ServiceCIDR{ObjectMeta: meta.ObjectMeta{Name: name}, Spec: networking.ServiceCIDRSpec{CIDRs: []string{prefix}}}
}

// with returns an object with a label.
func with[O object](o O, label string) O {
	all := map[string]string{label: ""}
	for k, v := range o.GetLabels() {
		all[k] = v
	}
	o.SetLabels(all)
	return o
}

func ptr[T any](v T) *T { return &v }

// show returns a part as text, a line for each object and problem.
func show(p watch.Part) string {
	var lines []string
	for name, s := range p.Services.All() {
		lines = append(lines, fmt.Sprintf("service %s %v", name.Name, s.Model.ClusterIPs))
	}
	for name, s := range p.Slices.All() {
		text := fmt.Sprintf("slice %s of %s", name.Name, s.Service.Name)
		for _, e := range s.Subsets[0].Endpoints {
			text += " " + e.Addr.Addr().String()
		}
		lines = append(lines, text)
	}
	for name, n := range p.Nodes.All() {
		known := map[bool]string{true: "", false: ", which is gone"}[n.Model.Known]
		lines = append(lines, fmt.Sprintf("node %s in %s%s", name, n.Model.Zone, known))
	}
	for name, c := range p.ServiceCIDRs.All() {
		lines = append(lines, fmt.Sprintf("cidr %s %v", name, c.Prefixes))
	}
	slices.Sort(lines)
	for _, problem := range p.Problems {
		lines = append(lines, "! "+problem.String())
	}
	if p.Waiting {
		lines = append(lines, "waiting")
	}
	return strings.Join(lines, "\n")
}

// A follower is a source that runs, and the parts that it puts.
type follower struct {
	t     *testing.T
	parts chan watch.Part
	last  watch.Part
}

// run runs a source until the test ends. It asks again soon after a failure.
func run(t *testing.T, cfg Config) *follower {
	t.Helper()
	cfg.NodeName = "n"
	s := New(cfg)
	s.retry = retry{
		backoff: wait.Backoff{Duration: 5 * time.Millisecond, Factor: 2, Steps: 100, Cap: 20 * time.Millisecond},
		reset:   time.Minute, absent: 20 * time.Millisecond,
	}
	f := &follower{t: t, parts: make(chan watch.Part, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(p watch.Part) { f.parts <- p }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v; want nil", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run goes on after its context ended")
		}
	})
	return f
}

// until waits for a part of which ok is true.
func (f *follower) until(what string, ok func(watch.Part) bool) watch.Part {
	f.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case f.last = <-f.parts:
			if ok(f.last) {
				return f.last
			}
		case <-limit:
			f.t.Fatalf("no part %s; the last one is\n%s", what, show(f.last))
		}
	}
}

// shows waits for a part that shows as the lines.
func (f *follower) shows(lines ...string) watch.Part {
	f.t.Helper()
	want := strings.Join(lines, "\n")
	return f.until("with\n"+want, func(p watch.Part) bool { return show(p) == want })
}

// says waits for a part with a problem that has a text in it.
func (f *follower) says(text string) watch.Part {
	f.t.Helper()
	return f.until(fmt.Sprintf("with %q", text), func(p watch.Part) bool { return strings.Contains(show(p), text) })
}

// quiet fails if there was a part since the last one that was waited for.
func (f *follower) quiet(why string) {
	f.t.Helper()
	select {
	case p := <-f.parts:
		f.t.Errorf("a part %s:\n%s", why, show(p))
	default:
	}
}

func TestRunFollows(t *testing.T) {
	tests := []struct {
		name        string
		contentType string
		plainLists  bool
	}{
		{"JSON", asJSON, false},
		{"protobuf", asProtobuf, false},
		{"JSON, a server that streams no lists", asJSON, true},
		{"protobuf, a server that streams no lists", asProtobuf, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.plainLists = tt.plainLists
			s.apply(
				service("a", "10.96.0.1"), service("b", "10.96.0.2"), with(service("other", "10.96.0.3"), selectServices[1:]), service("headless", v1.ClusterIPNone),
				slice("a1", "a", "10.0.0.1", "10.0.0.2"), with(slice("h1", "headless", "10.0.0.9"), v1.IsHeadlessService),
				node("z"), &v1.Node{ObjectMeta: meta.ObjectMeta{Name: "m"}}, cidr("k", "10.96.0.0/16"),
			)
			f := run(t, Config{Client: s.client(tt.contentType)})
			first := f.shows("cidr k [10.96.0.0/16]", "node n in z", "service a [10.96.0.1]", "service b [10.96.0.2]", "slice a1 of a 10.0.0.1 10.0.0.2")

			s.apply(slice("a1", "a", "10.0.0.1"), slice("b1", "b", "10.0.0.3"))
			f.shows("cidr k [10.96.0.0/16]", "node n in z", "service a [10.96.0.1]", "service b [10.96.0.2]", "slice a1 of a 10.0.0.1", "slice b1 of b 10.0.0.3")
			s.apply(node("y"), cidr("l", "10.97.0.0/16"))
			f.shows("cidr k [10.96.0.0/16]", "cidr l [10.97.0.0/16]", "node n in y", "service a [10.96.0.1]", "service b [10.96.0.2]", "slice a1 of a 10.0.0.1", "slice b1 of b 10.0.0.3")
			s.delete(slice("a1", "a"), cidr("k", "10.96.0.0/16"))
			s.apply(with(service("b", "10.96.0.2"), selectServices[1:]))
			last := f.shows("cidr l [10.97.0.0/16]", "node n in y", "service a [10.96.0.1]", "slice b1 of b 10.0.0.3")
			name := model.Name{Namespace: "ns", Name: "a"}
			before, _ := first.Services.Get(name)
			if after, _ := last.Services.Get(name); after != before {
				t.Error("Service a is another pointer after changes elsewhere; want the same")
			}

			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.types[tt.contentType] || len(s.types) != 1 {
				t.Errorf("the server answered in %v; want %s", s.types, tt.contentType)
			}
			for _, want := range []string{
				"watch services !service.kubernetes.io/service-proxy-name spec.clusterIP!=None",
				"watch endpointslices !service.kubernetes.io/headless", "watch nodes  metadata.name=n", "watch servicecidrs",
			} {
				if !s.asked[want] {
					t.Errorf("the server was not asked to %q but %v", want, s.asked)
				}
				if list := strings.Replace(want, "watch", "list", 1); s.asked[list] != tt.plainLists {
					t.Errorf("the server was asked to %q: %t; want %t", list, s.asked[list], tt.plainLists)
				}
			}
		})
	}
}

// TestRunUnchanged changes what the proxy does not read: there is no part, and no pointer changes.
func TestRunUnchanged(t *testing.T) {
	s := newServer(t)
	s.apply(service("a", "10.96.0.1"), slice("a1", "a", "10.0.0.1"), node("z"), cidr("k", "10.96.0.0/16"))
	f := run(t, Config{Client: s.client(asProtobuf)})
	first := f.until("that does not wait", func(p watch.Part) bool { return !p.Waiting })
	touched := slice("a1", "a", "10.0.0.1")
	touched.Annotations = map[string]string{v1.EndpointsLastChangeTriggerTime: "2026-11-21T12:00:00Z"}
	busy := node("z")
	busy.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Reason: "heartbeat"}}
	s.apply(with(service("a", "10.96.0.1"), "x"), touched, busy, with(cidr("k", "10.96.0.0/16"), "x"))
	s.breakWatches()
	s.apply(with(service("a", "10.96.0.1"), "y"))
	s.forget() // So that all is listed again.
	s.breakWatches()
	s.apply(service("b", "10.96.0.2"))
	last := f.until("with Service b", func(p watch.Part) bool { return p.Services.Len() == 2 })
	n := 0
	for range model.Changes(first.Services, last.Services) {
		n++
	}
	for range model.Changes(first.Slices, last.Slices) {
		n++
	}
	for range model.Changes(first.Nodes, last.Nodes) {
		n++
	}
	for range model.Changes(first.ServiceCIDRs, last.ServiceCIDRs) {
		n++
	}
	if n != 1 {
		t.Errorf("%d objects changed; want 1:\n%s\n%s", n, show(first), show(last))
	}
}

// TestRunDenied denies one resource from the start, then allows it.
func TestRunDenied(t *testing.T) {
	all := []string{"cidr k [10.96.0.0/16]", "node n in z", "service a [10.96.0.1]", "slice a1 of a 10.0.0.1"}
	tests := []struct {
		resource string
		status   int
		want     []string
	}{
		{"services", http.StatusForbidden, []string{
			`! kubernetes: services: the API server denies them (RBAC: list and watch are needed): services is forbidden: User "us" cannot list resource "services"; nothing is programmed before all services are known`, "waiting",
		}},
		{"endpointslices", http.StatusForbidden, []string{
			`! kubernetes: endpointslices.discovery.k8s.io: the API server denies them (RBAC: list and watch are needed): endpointslices.discovery.k8s.io is forbidden: User "us" cannot list resource "endpointslices.discovery.k8s.io"; nothing is programmed before all endpointslices.discovery.k8s.io are known`, "waiting",
		}},
		{"nodes", http.StatusForbidden, []string{
			`! kubernetes: nodes: the API server denies them (RBAC: list and watch are needed): nodes is forbidden: User "us" cannot list resource "nodes"; nothing is programmed before all nodes are known`, "waiting",
		}},
		{"services", http.StatusServiceUnavailable, []string{
			"! kubernetes: services: the server is currently unable to handle the request (list services); nothing is programmed before all services are known", "waiting",
		}},
		{"servicecidrs", http.StatusForbidden, slices.Concat(all[1:], []string{
			`! kubernetes: servicecidrs.networking.k8s.io: the API server denies them (RBAC: list and watch are needed): servicecidrs.networking.k8s.io is forbidden: User "us" cannot list resource "servicecidrs.networking.k8s.io"; going on without`,
		})},
		{"servicecidrs", http.StatusNotFound, slices.Concat(all[1:], []string{
			"! kubernetes: servicecidrs.networking.k8s.io: the API server does not have them; going on without",
		})},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %d", tt.resource, tt.status), func(t *testing.T) {
			s := newServer(t)
			s.apply(service("a", "10.96.0.1"), slice("a1", "a", "10.0.0.1"), node("z"), cidr("k", "10.96.0.0/16"))
			s.fail(tt.resource, tt.status)
			f := run(t, Config{Client: s.client(asJSON)})
			f.shows(tt.want...)
			s.fail(tt.resource, 0)
			f.shows(all...)
		})
	}
}

// TestRunDeniedLater denies each resource after all was known: nothing goes, and the problem is told
// once.
func TestRunDeniedLater(t *testing.T) {
	for _, resource := range []string{"services", "endpointslices", "nodes", "servicecidrs"} {
		t.Run(resource, func(t *testing.T) {
			all := []string{"cidr k [10.96.0.0/16]", "node n in z", "service a [10.96.0.1]", "slice a1 of a 10.0.0.1"}
			s := newServer(t)
			s.apply(service("a", "10.96.0.1"), slice("a1", "a", "10.0.0.1"), node("z"), cidr("k", "10.96.0.0/16"))
			f := run(t, Config{Client: s.client(asJSON)})
			f.shows(all...)
			s.fail(resource, http.StatusForbidden)
			p := f.says("what was known stays")
			if got := strings.Join(strings.Split(show(p), "\n")[:4], "\n"); got != strings.Join(all, "\n") {
				t.Errorf("the part holds\n%s\nwant\n%s", got, all)
			}
			s.fail(resource, 0)
			f.shows(all...)
		})
	}
}

// TestRunServerAway has the server go, and come back with another state.
func TestRunServerAway(t *testing.T) {
	for _, forget := range []bool{false, true} {
		t.Run(fmt.Sprintf("its history is lost %t", forget), func(t *testing.T) {
			s := newServer(t)
			s.apply(service("a", "10.96.0.1"), service("b", "10.96.0.2"), slice("a1", "a", "10.0.0.1"), node("z"))
			f := run(t, Config{Client: s.client(asProtobuf)})
			f.shows("node n in z", "service a [10.96.0.1]", "service b [10.96.0.2]", "slice a1 of a 10.0.0.1")
			s.away()
			refused := "dial tcp " + strings.TrimPrefix(s.http.URL, "http://") + ": connect: connection refused; what was known stays"
			p := f.until("with four refused connections", func(p watch.Part) bool {
				n := 0
				for _, problem := range p.Problems {
					if problem.Message == refused {
						n++
					}
				}
				return n == 4
			})
			if p.Waiting || p.Services.Len() != 2 || p.Slices.Len() != 1 || p.Nodes.Len() != 1 {
				t.Errorf("without a server the part is\n%s\nwant all that was known", show(p))
			}
			f.quiet("although nothing happens")
			s.delete(service("b", "10.96.0.2"), slice("a1", "a"), node("z"))
			s.apply(service("a", "10.96.0.9"), slice("a2", "a", "10.0.0.2"))
			if forget {
				s.forget()
			}
			s.back()
			f.shows("node n in z, which is gone", "service a [10.96.0.9]", "slice a2 of a 10.0.0.2")
		})
	}
}

// TestRunServerComesLate starts before the server.
func TestRunServerComesLate(t *testing.T) {
	s := newServer(t)
	s.apply(service("a", "10.96.0.1"), node("z"))
	s.away()
	f := run(t, Config{Client: s.client(asProtobuf)})
	p := f.until("with four problems", func(p watch.Part) bool { return len(p.Problems) == 4 })
	if !p.Waiting {
		t.Errorf("without a server the part is\n%s\nwant it to wait", show(p))
	}
	s.back()
	f.shows("node n in z", "service a [10.96.0.1]")
}

// TestRunWatchBroken breaks watches off amid changes: nothing is lost.
func TestRunWatchBroken(t *testing.T) {
	s := newServer(t)
	s.apply(node("z"))
	f := run(t, Config{Client: s.client(asProtobuf)})
	f.shows("node n in z")
	want := []string{"node n in z"}
	for i := range 20 {
		name := fmt.Sprintf("s%02d", i)
		s.apply(service(name, fmt.Sprintf("10.96.0.%d", i+1)), service("gone", "10.96.1.1"))
		s.breakWatches()
		s.delete(service("gone", ""))
		if i%5 == 0 {
			s.forget()
			s.breakWatches()
		}
		want = append(want, fmt.Sprintf("service %s [10.96.0.%d]", name, i+1))
	}
	f.shows(want...)
}

func TestRunNode(t *testing.T) {
	s := newServer(t)
	f := run(t, Config{Client: s.client(asJSON)})
	const missing = "! kubernetes: Node n: does not exist; until it does its zone is unknown, and its addresses are guessed"
	f.shows(missing)
	s.apply(node("z"))
	f.shows("node n in z")
	s.delete(node("z"))
	s.apply(cidr("k", "10.96.0.0/16"))
	f.shows("cidr k [10.96.0.0/16]", "node n in z, which is gone")
	s.forget() // So that all is listed again.
	s.breakWatches()
	s.apply(cidr("k", "10.97.0.0/16"))
	f.shows("cidr k [10.97.0.0/16]", "node n in z, which is gone")
	s.apply(cidr("k", "10.96.0.0/16"))
	s.apply(node("y"))
	f.shows("cidr k [10.96.0.0/16]", "node n in y")
}

func TestRunNeedsPodCIDRs(t *testing.T) {
	s := newServer(t)
	s.apply(node("z"))
	f := run(t, Config{Client: s.client(asJSON), NeedPodCIDRs: true})
	f.shows("! kubernetes: Node n: spec.podCIDRs: is not there; nothing is programmed before, as they tell local traffic", "waiting")
	n := node("z")
	n.Spec.PodCIDRs = []string{"10.1.0.0/24"}
	s.apply(n)
	f.shows("node n in z")
	s.apply(node("y"))
	f.shows("node n in y")
}

func TestRunProblems(t *testing.T) {
	s := newServer(t)
	bad, names := service("a", "10.96.0.1"), slice("a1", "a")
	bad.Spec.ExternalIPs, names.AddressType = []string{"x"}, discovery.AddressTypeFQDN
	s.apply(bad, names, service("b", "10.96.0.300"), node("z"))
	f := run(t, Config{Client: s.client(asJSON)})
	f.shows("node n in z", "service a [10.96.0.1]",
		`! kubernetes: Service ns/a: spec.externalIPs[0]: "x" is no IP address`,
		`! kubernetes: Service ns/b: spec.clusterIPs[0]: "10.96.0.300" is no IP address`,
		"! kubernetes: EndpointSlice ns/a1: addressType: FQDN is not served")
	s.apply(service("a", "10.96.0.1"))
	s.delete(names, service("b", ""))
	f.shows("node n in z", "service a [10.96.0.1]")
}

func TestPlain(t *testing.T) {
	from, to := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 40000}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 6443}
	request := func(err error) error {
		return fmt.Errorf("list: %w", &url.Error{Op: "Get", URL: "https://10.0.0.2:6443/api?timeoutSeconds=431", Err: err})
	}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"a refused connection", request(&net.OpError{Op: "dial", Net: "tcp", Addr: to, Err: syscall.ECONNREFUSED}), "dial tcp 10.0.0.2:6443: connection refused"},
		{"a connection that broke", request(&net.OpError{Op: "read", Net: "tcp", Source: from, Addr: to, Err: syscall.ECONNRESET}), "read tcp 10.0.0.2:6443: connection reset by peer"},
		{"a bad certificate", request(errors.New("x509: unknown authority")), "x509: unknown authority"},
		{"anything", errors.New("no"), "no"},
	}
	for _, tt := range tests {
		if got := plain(tt.err); got != tt.want {
			t.Errorf("%s: plain(%v) = %q; want %q", tt.name, tt.err, got, tt.want)
		}
	}
}

func TestString(t *testing.T) {
	if diff := cmp.Diff("kubernetes", New(Config{}).String()); diff != "" {
		t.Error(diff)
	}
}
