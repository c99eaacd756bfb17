package watch

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// A script is a source that puts what the test sends.
type script struct {
	name  string
	parts chan Part
	took  chan struct{}
}

func newScript(name string) *script {
	return &script{name, make(chan Part), make(chan struct{})}
}

func (s *script) String() string { return s.name }

func (s *script) Run(ctx context.Context, put func(Part)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.parts:
			put(p)
			s.took <- struct{}{}
		}
	}
}

// put puts a part and waits until the hub has dealt with it.
func (s *script) put(p Part) {
	s.parts <- p
	<-s.took
}

// name returns a name in the namespace of the tests.
func name(n string) model.Name { return model.Name{Namespace: "ns", Name: n} }

// service returns a Service with one port without a name.
func service(n, ip string) *objects.Service {
	return &objects.Service{Model: model.Service{
		Name: name(n), ClusterIPs: []netip.Addr{netip.MustParseAddr(ip)},
		Ports: []model.Port{{Protocol: model.TCP, Port: 80}},
	}}
}

// slice returns a slice of a Service with ready endpoints.
func slice(n, service string, ips ...string) *objects.Slice {
	s := &objects.Slice{Name: name(n), Service: name(service)}
	s.Subsets = []objects.Subset{{Ports: []objects.SlicePort{{Protocol: model.TCP, Port: 8080}}}}
	for _, ip := range ips {
		s.Subsets[0].Endpoints = append(s.Subsets[0].Endpoints, objects.Endpoint{Endpoint: model.Endpoint{
			Addr: netip.AddrPortFrom(netip.MustParseAddr(ip), 0), Ready: true, Serving: true,
		}})
	}
	return s
}

// with returns the part with Services and slices set.
func (p Part) with(services []*objects.Service, slices ...*objects.Slice) Part {
	es, el := p.Services.Edit(), p.Slices.Edit()
	for _, s := range services {
		es.Set(s.Model.Name, s)
	}
	for _, s := range slices {
		el.Set(s.Name, s)
	}
	p.Services, p.Slices = es.Map(), el.Map()
	return p
}

// start runs a hub until the test ends.
func start(t *testing.T, cfg Config, sources ...Source) *Hub {
	t.Helper()
	h := NewHub(cfg, sources...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v; want nil", err)
		}
	})
	return h
}

// receive returns the snapshot that the hub has sent.
func receive(t *testing.T, h *Hub) model.Snapshot {
	t.Helper()
	select {
	case s := <-h.Snapshots():
		return s
	default:
		t.Fatal("no snapshot; want one")
		return model.Snapshot{}
	}
}

// nothing fails if the hub has sent a snapshot.
func nothing(t *testing.T, h *Hub, why string) {
	t.Helper()
	select {
	case <-h.Snapshots():
		t.Fatalf("a snapshot %s; want none", why)
	default:
	}
}

// endpoints returns the addresses of the endpoints of a Service's first port.
func endpoints(s model.Snapshot, n string) (out []string) {
	service, ok := s.Services.Get(name(n))
	if !ok {
		return []string{"no service"}
	}
	for _, e := range service.Ports[0].Endpoints {
		out = append(out, e.Addr.String())
	}
	return out
}

func TestHubWaitsForAll(t *testing.T) {
	a, b := newScript("a"), newScript("b")
	h := start(t, Config{NodeName: "n"}, a, b)
	a.put(Part{}.with([]*objects.Service{service("x", "10.96.0.1")}))
	nothing(t, h, "before the other source spoke")
	b.put(Part{Waiting: true})
	nothing(t, h, "although the other source waits")
	b.put(Part{})
	<-h.Ready()
	if s := receive(t, h); s.Services.Len() != 1 || s.Node.Name != "n" {
		t.Errorf("snapshot = %+v; want one Service on node n", s)
	}
}

func TestHubKeepsPointers(t *testing.T) {
	a := newScript("a")
	h := start(t, Config{}, a)
	p := Part{}.with([]*objects.Service{service("x", "10.96.0.1"), service("y", "10.96.0.2")}, slice("x1", "x", "10.0.0.1"), slice("y1", "y", "10.0.0.9"))
	a.put(p)
	first := receive(t, h)

	p = p.with(nil, slice("x1", "x", "10.0.0.1"))
	a.put(p)
	nothing(t, h, "after a slice was replaced by its equal")

	p = p.with(nil, slice("x2", "x", "10.0.0.3", "10.0.0.1"))
	a.put(p)
	second := receive(t, h)
	if diff := cmp.Diff([]string{"10.0.0.1:8080", "10.0.0.3:8080"}, endpoints(second, "x")); diff != "" {
		t.Errorf("endpoints of x (-want +got):\n%s", diff)
	}
	before, _ := first.Services.Get(name("y"))
	after, _ := second.Services.Get(name("y"))
	if before != after || first.Node != second.Node {
		t.Error("Service y or the node is another pointer after a change of x; want the same")
	}
	changes := 0
	for range model.Changes(first.Services, second.Services) {
		changes++
	}
	if changes != 1 {
		t.Errorf("%d Services changed; want 1", changes)
	}
}

func TestHubLatestWins(t *testing.T) {
	a := newScript("a")
	h := start(t, Config{}, a)
	p := Part{}
	for _, ip := range []string{"10.96.0.1", "10.96.0.2", "10.96.0.3"} {
		p = p.with([]*objects.Service{service("x", ip)})
		a.put(p)
	}
	s := receive(t, h)
	x, _ := s.Services.Get(name("x"))
	if got := x.ClusterIPs[0].String(); got != "10.96.0.3" {
		t.Errorf("cluster IP = %s; want the last one", got)
	}
	nothing(t, h, "left over from a burst")
}

// TestHubTriggered follows trigger times: each is in the first snapshot that a reader receives after
// the change, and in no other.
func TestHubTriggered(t *testing.T) {
	began := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	a := newScript("a")
	h := start(t, Config{Since: began}, a)
	p := Part{}.with([]*objects.Service{service("x", "10.96.0.1")})
	change := func(triggered time.Time, ips ...string) {
		s := slice("x1", "x", ips...)
		s.Triggered = triggered
		p = p.with(nil, s)
		a.put(p)
	}
	check := func(what string, want ...time.Time) {
		t.Helper()
		if diff := cmp.Diff(want, receive(t, h).Triggered); diff != "" {
			t.Errorf("%s: Triggered (-want +got):\n%s", what, diff)
		}
	}
	change(at(-1), "10.0.0.1")
	check("a change from before the start")
	change(at(1), "10.0.0.1", "10.0.0.2")
	check("a change", at(1))
	change(at(2), "10.0.0.1", "10.0.0.2")
	nothing(t, h, "after a change of the trigger time alone")
	change(at(3), "10.0.0.1")
	change(time.Time{}, "10.0.0.3")
	change(at(4), "10.0.0.4")
	check("changes that the reader missed", at(3), at(4))
	edit := p.Slices.Edit()
	edit.Delete(name("x1"))
	p.Slices = edit.Map()
	a.put(p)
	check("a slice that went")
}

func TestHubProblems(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	a := newScript("a")
	h := start(t, Config{Log: zap.New(core)}, a)
	one, two := Problem{Source: "a", Message: "one"}, Problem{Source: "a", Message: "two", Minor: true}
	for _, list := range [][]Problem{{one}, {two, one}, {one, two}, {two}, nil} {
		a.put(Part{Problems: list})
		if got := h.Problems(); len(got) != len(list) {
			t.Errorf("Problems() = %v; want %v", got, list)
		}
	}
	var got []string
	for _, e := range logs.All() {
		got = append(got, e.Level.String()+" "+e.Message+": "+e.ContextMap()["problem"].(string))
	}
	want := []string{
		"warn problem in the input: one", "info problem in the input: two",
		"info problem in the input is gone: one", "info problem in the input is gone: two",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestProblemString(t *testing.T) {
	p := Problem{Source: "dir", Where: "a.yaml:2", Object: "Service ns/a", Field: "spec.type", Message: "is bad"}
	if got, want := p.String(), "dir: a.yaml:2: Service ns/a: spec.type: is bad"; got != want {
		t.Errorf("String() = %q; want %q", got, want)
	}
}

func TestJoin(t *testing.T) {
	endpointsOf := func(s *objects.Slice) model.Map[model.Name, *objects.Slice] {
		e := model.Map[model.Name, *objects.Slice]{}.Edit()
		e.Set(s.Service, s)
		return e.Map()
	}
	base := Part{}.with([]*objects.Service{service("x", "10.96.0.1")})
	mirrored := base
	mirrored.Endpoints = endpointsOf(slice("x", "x", "10.0.0.7"))
	tests := []struct {
		name  string
		parts []Part
		want  []string
	}{
		{"OK no endpoints", []Part{base}, nil},
		{"OK v1 Endpoints without a slice", []Part{mirrored}, []string{"10.0.0.7:8080"}},
		{"OK v1 Endpoints beside a slice do not count", []Part{mirrored.with(nil, slice("s", "x", "10.0.0.1"))}, []string{"10.0.0.1:8080"}},
		{"OK slices of two parts", []Part{base.with(nil, slice("s", "x", "10.0.0.1")), Part{}.with(nil, slice("t", "x", "10.0.0.2"))}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}},
		{"OK the first part has the slice", []Part{base.with(nil, slice("s", "x", "10.0.0.1")), Part{}.with(nil, slice("s", "x", "10.0.0.2"))}, []string{"10.0.0.1:8080"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := Join(Config{}, tt.parts...)
			if diff := cmp.Diff(tt.want, endpoints(s, "x")); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJoinNode(t *testing.T) {
	addr := netip.MustParseAddr
	object := &objects.Node{Model: model.Node{
		Name: "n", Zone: "z", PrimaryIPs: []netip.Addr{addr("192.0.2.9")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
	}}
	nodes := model.Map[string, *objects.Node]{}.Edit()
	nodes.Set("n", object)
	addresses := []Address{
		{Addr: addr("192.0.2.2"), Index: 3},
		{Addr: addr("10.9.0.1"), Index: 2, Virtual: true},
		{Addr: addr("fe80::1"), Index: 2},
		{Addr: addr("127.0.0.1"), Index: 1},
		{Addr: addr("fd00::3"), Index: 4},
		{Addr: addr("192.0.2.1"), Index: 4},
	}
	all := []netip.Addr{addr("10.9.0.1"), addr("127.0.0.1"), addr("192.0.2.1"), addr("192.0.2.2"), addr("fd00::3"), addr("fe80::1")}
	tests := []struct {
		name string
		ip   netip.Addr
		part Part
		want model.Node
	}{
		{"OK from the object", netip.Addr{}, Part{Nodes: nodes.Map()}, object.Model},
		{"OK an address that stands for that of the object", addr("192.0.2.7"), Part{Nodes: nodes.Map()}, model.Node{
			Name: "n", Zone: "z", PrimaryIPs: []netip.Addr{addr("192.0.2.7")}, PodCIDRs: object.Model.PodCIDRs,
		}},
		{"OK an address of the other family is the first", addr("fd00::7"), Part{Nodes: nodes.Map()}, model.Node{
			Name: "n", Zone: "z", PrimaryIPs: []netip.Addr{addr("fd00::7"), addr("192.0.2.9")}, PodCIDRs: object.Model.PodCIDRs,
		}},
		{"OK the object goes before the interfaces", netip.Addr{}, Part{Nodes: nodes.Map(), Addresses: addresses[:1]}, model.Node{
			Name: "n", Zone: "z", PrimaryIPs: object.Model.PrimaryIPs, PodCIDRs: object.Model.PodCIDRs, Addresses: []netip.Addr{addr("192.0.2.2")},
		}},
		{"OK from the interfaces", netip.Addr{}, Part{Addresses: addresses}, model.Node{
			Name: "n", PrimaryIPs: []netip.Addr{addr("192.0.2.2"), addr("fd00::3")}, Addresses: all,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := Join(Config{NodeName: "n", NodeIP: tt.ip}, tt.part)
			if diff := cmp.Diff(&tt.want, s.Node, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("node (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJoinServiceCIDRs(t *testing.T) {
	cidrs := model.Map[string, *objects.ServiceCIDR]{}.Edit()
	a, b := netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.97.0.0/16")
	cidrs.Set("one", &objects.ServiceCIDR{Prefixes: []netip.Prefix{b, a}})
	cidrs.Set("two", &objects.ServiceCIDR{Prefixes: []netip.Prefix{a}})
	s, _ := Join(Config{}, Part{ServiceCIDRs: cidrs.Map()})
	if len(s.ServiceCIDRs) != 2 || s.ServiceCIDRs[0] != a || s.ServiceCIDRs[1] != b {
		t.Errorf("ServiceCIDRs = %v; want %v", s.ServiceCIDRs, []netip.Prefix{a, b})
	}
}

func TestHubRunFails(t *testing.T) {
	h := NewHub(Config{}, broken{})
	done := make(chan error, 1)
	go func() { done <- h.Run(context.Background()) }()
	select {
	case err := <-done:
		if err == nil || err.Error() != "watch broken: context deadline exceeded" {
			t.Errorf("Run = %v; want the source's error", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on after a source failed")
	}
}

// broken is a source that fails.
type broken struct{}

func (broken) String() string                        { return "broken" }
func (broken) Run(context.Context, func(Part)) error { return context.DeadlineExceeded }
