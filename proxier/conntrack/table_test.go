package conntrack

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// addrPorts parses addresses with ports.
func addrPorts(words ...string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, w := range words {
		list = append(list, netip.MustParseAddrPort(w))
	}
	return list
}

// endpoints returns endpoints that are ready.
func endpoints(words ...string) []model.Endpoint {
	var list []model.Endpoint
	for _, a := range addrPorts(words...) {
		list = append(list, model.Endpoint{Addr: a, Ready: true, Serving: true})
	}
	return list
}

// dns is a Service with everything: both families, a port of TCP with the number of that of UDP, a node
// port, and addresses for clients outside.
func dns(eps ...model.Endpoint) *model.Service {
	return &model.Service{
		Name:            model.Name{Namespace: "kube-system", Name: "dns"},
		ClusterIPs:      []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")},
		LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		ExternalIPs:     []netip.Addr{netip.MustParseAddr("198.51.100.53"), netip.MustParseAddr("2001:db8::53")},
		Ports: []model.Port{
			{Name: "udp", Protocol: model.UDP, Port: 53, NodePort: 30053, Endpoints: eps},
			{Name: "tcp", Protocol: model.TCP, Port: 5300, NodePort: 30054, Endpoints: endpoints("10.1.0.9:53")},
		},
	}
}

// services returns a map of Services.
func services(list ...*model.Service) model.Map[model.Name, *model.Service] {
	e := model.Map[model.Name, *model.Service]{}.Edit()
	for _, s := range list {
		e.Set(s.Name, s)
	}
	return e.Map()
}

// nodeAddrs are the addresses that serve node ports in the tests.
func nodeAddrs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("2001:db8::2")}
}

// later returns a time when nothing fades any more that changed at the zero time.
func later() time.Time { return time.Time{}.Add(grace) }

// An endpoint that went may answer what is under way, and is stale after that; one that is back does not fade.
func TestFading(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Time{}.Add(d) }
	one, two := services(dns(endpoints("10.1.0.1:53")...)), services(dns(endpoints("10.1.0.2:53")...))
	e := entry("10.96.0.10:53", "10.1.0.1:53")
	for name, after := range map[string]model.Map[model.Name, *model.Service]{"replaced": two, "deleted": services()} {
		table := newTable()
		table.setServices(one, at(0))
		table.setServices(after, at(time.Second))
		if table.stale(e, at(time.Second+grace-1)) {
			t.Errorf("%s: stale within %v; want later", name, grace)
		}
		if dirty := table.settle(at(time.Second + grace - 1)); !slices.Contains(dirty, e.Destination) {
			t.Errorf("%s: settle(too early) = %v; want %v among it", name, dirty, e.Destination)
		}
		if !table.stale(e, at(time.Second+grace)) {
			t.Errorf("%s: not stale after %v", name, grace)
		}
		if dirty := table.settle(at(time.Second + grace)); len(dirty)+len(table.fading)+len(table.gone) > 0 {
			t.Errorf("%s: settle() = %v, and left %v and %v; want nothing", name, dirty, table.fading, table.gone)
		}
		table.setServices(one, at(2*time.Second))
		if table.stale(e, at(2*time.Second)) {
			t.Errorf("%s and back: stale; want not", name)
		}
	}
	table := newTable()
	table.setServices(one, at(0))
	if bad := entry("10.96.0.10:53", "10.1.0.9:53"); !table.stale(bad, at(0)) {
		t.Error("an endpoint that never served is not stale at once")
	}
}

func TestStale(t *testing.T) {
	notServing := func(addr string) model.Endpoint {
		return model.Endpoint{Addr: netip.MustParseAddrPort(addr), Terminating: true}
	}
	terminating := func(addr string) model.Endpoint {
		return model.Endpoint{Addr: netip.MustParseAddrPort(addr), Serving: true, Terminating: true}
	}
	two := dns(endpoints("10.1.0.1:53", "10.1.0.2:53", "[fd00:1::1]:53")...)
	tests := []struct {
		name        string
		now         *model.Service
		before      *model.Service // what was there before, if anything
		dst, answer string
		want        bool
	}{
		{"cluster IP, endpoint", two, nil, "10.96.0.10:53", "10.1.0.1:53", false},
		{"cluster IP, other endpoint", two, nil, "10.96.0.10:53", "10.1.0.2:53", false},
		{"cluster IP, endpoint that is gone", two, nil, "10.96.0.10:53", "10.1.0.3:53", true},
		{"cluster IP, another port of the endpoint", two, nil, "10.96.0.10:53", "10.1.0.1:54", true},
		{"cluster IP, not translated", two, nil, "10.96.0.10:53", "10.96.0.10:53", true},
		{"cluster IP, port that nobody serves", two, nil, "10.96.0.10:54", "10.96.0.10:54", false},
		{"cluster IP, port of TCP", two, nil, "10.96.0.10:5300", "10.1.0.3:53", false},
		{"IPv6 cluster IP, endpoint", two, nil, "[fd00:96::a]:53", "[fd00:1::1]:53", false},
		{"IPv6 cluster IP, gone", two, nil, "[fd00:96::a]:53", "[fd00:1::2]:53", true},
		{"load balancer, endpoint", two, nil, "192.0.2.53:53", "10.1.0.1:53", false},
		{"load balancer, gone", two, nil, "192.0.2.53:53", "10.1.0.3:53", true},
		{"external IP, gone", two, nil, "198.51.100.53:53", "10.1.0.3:53", true},
		{"IPv6 external IP, gone", two, nil, "[2001:db8::53]:53", "[fd00:1::2]:53", true},
		{"node port, endpoint", two, nil, "192.168.0.2:30053", "10.1.0.1:53", false},
		{"node port, gone", two, nil, "192.168.0.2:30053", "10.1.0.3:53", true},
		{"node port, not translated", two, nil, "192.168.0.2:30053", "192.168.0.2:30053", true},
		{"IPv6 node port, gone", two, nil, "[2001:db8::2]:30053", "[fd00:1::2]:53", true},
		{"the node port's number elsewhere", two, nil, "203.0.113.1:30053", "203.0.113.1:30053", false},
		{"the node port's number elsewhere, translated", two, nil, "203.0.113.1:30053", "10.1.0.3:53", false},
		{"node port of TCP", two, nil, "192.168.0.2:30054", "192.168.0.2:30054", false},
		{"no Service of ours", two, nil, "10.96.0.99:53", "10.1.0.3:53", false},
		{"endpoint that terminates and serves", dns(terminating("10.1.0.1:53")), nil, "10.96.0.10:53", "10.1.0.1:53", false},
		{"endpoint that terminates and serves, another is ready", dns(terminating("10.1.0.1:53"), endpoints("10.1.0.2:53")[0]), nil, "10.96.0.10:53", "10.1.0.1:53", false},
		{"endpoint that serves no more", dns(notServing("10.1.0.1:53")), nil, "10.96.0.10:53", "10.1.0.1:53", true},
		{"no endpoint at all", dns(), nil, "10.96.0.10:53", "10.1.0.1:53", true},
		{"no endpoint at all, node port", dns(), nil, "192.168.0.2:30053", "10.1.0.1:53", true},
		{"no endpoint of the family", dns(endpoints("10.1.0.1:53")...), nil, "[fd00:96::a]:53", "[fd00:1::1]:53", true},
		{"Service deleted", nil, two, "10.96.0.10:53", "10.1.0.1:53", true},
		{"Service deleted, node port", nil, two, "192.168.0.2:30053", "10.1.0.1:53", true},
		{"Service deleted, not translated", nil, two, "192.168.0.2:30053", "192.168.0.2:30053", false},
		{"Service deleted, the number elsewhere", nil, two, "203.0.113.1:30053", "10.1.0.1:53", false},
		{"Service deleted and made again", two, nil, "10.96.0.10:53", "10.1.0.1:53", false},
		{"no Service", nil, nil, "10.96.0.10:53", "10.1.0.1:53", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := newTable()
			table.setLocal(nodeAddrs())
			for _, s := range []*model.Service{tt.before, tt.now} {
				if s != nil {
					table.setServices(services(s), time.Time{})
				} else {
					table.setServices(services(), time.Time{})
				}
			}
			e := Entry{Destination: netip.MustParseAddrPort(tt.dst), Responder: netip.MustParseAddrPort(tt.answer)}
			if got := table.stale(e, later()); got != tt.want {
				t.Errorf("stale(%v) = %t; want %t", e, got, tt.want)
			}
		})
	}
}

func TestStaleWithChangedPorts(t *testing.T) {
	table := newTable()
	table.setLocal(nodeAddrs())
	s := dns(endpoints("10.1.0.1:53")...)
	table.setServices(services(s), time.Time{})
	moved := *s
	moved.Ports = slices.Clone(s.Ports)
	moved.Ports[0].Port, moved.Ports[0].NodePort = 54, 30099
	if got := len(table.setServices(services(&moved), time.Time{})); got != 14 {
		t.Errorf("setServices(other ports) returns %d front ends; want 14", got)
	}
	for dst, want := range map[string]bool{
		"10.96.0.10:53": true, "192.168.0.2:30053": true, "192.0.2.53:53": true, // no front ends any more
		"10.96.0.10:54": false, "192.168.0.2:30099": false, "192.0.2.53:54": false,
	} {
		e := Entry{Destination: netip.MustParseAddrPort(dst), Responder: netip.MustParseAddrPort("10.1.0.1:53")}
		if got := table.stale(e, later()); got != want {
			t.Errorf("stale(%v) = %t; want %t", e, got, want)
		}
	}
}

// Of two Services that claim a front end the older one's endpoints count, and when it goes the other's.
func TestStaleWithTwoClaims(t *testing.T) {
	older, younger := dns(endpoints("10.1.0.1:53")...), dns(endpoints("10.1.0.2:53")...)
	older.Name.Name, younger.Name.Name = "older", "a-younger"
	older.Created, younger.Created = time.Unix(1, 0), time.Unix(2, 0)
	first := entry("192.0.2.53:53", "10.1.0.1:53")
	second := entry("192.0.2.53:53", "10.1.0.2:53")
	table := newTable()
	steps := []struct {
		name                    string
		services                model.Map[model.Name, *model.Service]
		dirty, first, secondBad bool
	}{
		{"the younger alone", services(younger), true, true, false},
		{"both", services(younger, older), true, false, true},
		{"the older alone", services(older), false, false, true},
		{"both again", services(younger, older), false, false, true},
		{"the younger alone again", services(younger), true, true, false},
		{"none", services(), true, true, true},
	}
	for _, s := range steps {
		if got := len(table.setServices(s.services, time.Time{})) > 0; got != s.dirty {
			t.Errorf("%s: setServices() finds something dirty: %t; want %t", s.name, got, s.dirty)
		}
		if a, b := table.stale(first, later()), table.stale(second, later()); a != s.first || b != s.secondBad {
			t.Errorf("%s: stale(older's) = %t, stale(younger's) = %t; want %t, %t", s.name, a, b, s.first, s.secondBad)
		}
	}
	if len(table.claims) != 0 {
		t.Errorf("without Services there are claims: %v", table.claims)
	}
}

// Only what may make an entry stale costs a look at all entries.
func TestDirty(t *testing.T) {
	base := dns(endpoints("10.1.0.1:53", "10.1.0.2:53")...)
	change := func(f func(*model.Service)) *model.Service {
		s := *base
		s.Ports = slices.Clone(s.Ports)
		f(&s)
		return &s
	}
	tests := []struct {
		name  string
		after *model.Service
		want  bool
	}{
		{"the same", base, false},
		{"an equal one", change(func(*model.Service) {}), false},
		{"an endpoint more", dns(endpoints("10.1.0.1:53", "10.1.0.2:53", "10.1.0.3:53")...), false},
		{"an endpoint less", dns(endpoints("10.1.0.1:53")...), true},
		{"an endpoint replaced", dns(endpoints("10.1.0.1:53", "10.1.0.3:53")...), true},
		{"an endpoint of TCP less", change(func(s *model.Service) { s.Ports[1].Endpoints = nil }), false},
		{"an address more", change(func(s *model.Service) {
			s.ExternalIPs = []netip.Addr{netip.MustParseAddr("198.51.100.54"), s.ExternalIPs[0], s.ExternalIPs[1]}
		}), true},
		{"an address less", change(func(s *model.Service) { s.LoadBalancerIPs = nil }), true},
		{"another policy", change(func(s *model.Service) { s.ExternalLocal = true }), false},
		{"without UDP", change(func(s *model.Service) { s.Ports = s.Ports[1:] }), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := newTable()
			table.setLocal(nodeAddrs())
			table.setServices(services(base), time.Time{})
			clear(table.gone)
			if got := len(table.setServices(services(tt.after), time.Time{})) > 0; got != tt.want {
				t.Errorf("setServices() finds something dirty: %t; want %t", got, tt.want)
			}
			if table.setLocal(nodeAddrs()) {
				t.Error("setLocal(the same) = true; want false")
			}
			if !table.setLocal(nodeAddrs()[1:]) {
				t.Error("setLocal(one less) = false; want true")
			}
		})
	}
}

// What the kernel held at the start, and is no more, is cleaned; what is still there is not.
func TestFound(t *testing.T) {
	table := newTable()
	table.setLocal(nodeAddrs())
	table.setServices(services(dns(endpoints("10.1.0.1:53")...)), time.Time{})
	gone := addrPorts("10.96.0.77:53", "0.0.0.0:30077")
	if got := table.found(append(addrPorts("10.96.0.10:53", "0.0.0.0:30053"), gone...)); !slices.Equal(got, gone) {
		t.Errorf("found() = %v; want what is gone: %v", got, gone)
	}
	for dst, want := range map[string]bool{
		"10.96.0.10:53": false, "192.168.0.2:30053": false,
		"10.96.0.77:53": true, "192.168.0.2:30077": true, "203.0.113.1:30077": false,
	} {
		e := Entry{Destination: netip.MustParseAddrPort(dst), Responder: netip.MustParseAddrPort("10.1.0.1:53")}
		if got := table.stale(e, later()); got != want {
			t.Errorf("stale(%v) = %t; want %t", e, got, want)
		}
	}
}

func TestLocalAddrs(t *testing.T) {
	node := &model.Node{Addresses: []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("::1"), netip.MustParseAddr("2001:db8::2"),
	}}
	got := localAddrs([]netip.Addr{netip.MustParseAddr("192.168.0.2")}, []nft.Family{nft.IPv6}, node)
	if !slices.Equal(got, nodeAddrs()) {
		t.Errorf("localAddrs() = %v; want %v", got, nodeAddrs())
	}
}
