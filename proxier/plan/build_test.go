package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// testNode is the node of the tests.
func testNode() *model.Node {
	return &model.Node{
		Name: "here", Zone: "zone-a",
		PrimaryIPs: []netip.Addr{netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("2001:db8::1")},
		Addresses: []netip.Addr{
			netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("192.168.1.2"),
			netip.MustParseAddr("::1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1"),
		},
	}
}

// testConfig is the Config of the tests: kube-proxy's defaults with a cluster CIDR.
func testConfig() Config {
	return Config{
		MasqueradeBit: 14,
		DetectLocal: DetectLocal{
			Mode:  ClusterCIDR,
			CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00:10::/64")},
		},
	}
}

// snapshotOf returns a Snapshot with Services.
func snapshotOf(services ...*model.Service) model.Snapshot {
	var m model.Map[model.Name, *model.Service]
	e := m.Edit()
	for _, s := range services {
		e.Set(s.Name, s)
	}
	return model.Snapshot{
		Services: e.Map(), Node: testNode(),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16")},
	}
}

// withService returns a Snapshot with a Service added or replaced.
func withService(s model.Snapshot, service *model.Service) model.Snapshot {
	e := s.Services.Edit()
	e.Set(service.Name, service)
	s.Services = e.Map()
	return s
}

// cluster returns n Services with one port and a number of endpoints each; every 50th endpoint is on
// this node.
func cluster(n, endpoints int) model.Snapshot {
	services := make([]*model.Service, n)
	for i := range services {
		services[i] = &model.Service{
			Name:       model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", i)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)})},
			Ports:      []model.Port{{Name: "http", Protocol: model.TCP, Port: 80, Endpoints: endpointsOf(i, 0, endpoints)}},
		}
	}
	return snapshotOf(services...)
}

// endpointsOf returns ready endpoints of the service with a number.
func endpointsOf(service, first, n int) []model.Endpoint {
	list := make([]model.Endpoint, n)
	for j := range list {
		id := service*64 + first + j
		list[j] = model.Endpoint{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)}), 8080),
			Node: fmt.Sprintf("node-%d", id%50), Ready: true, Serving: true,
		}
		if id%50 == 0 {
			list[j].Node = "here"
		}
	}
	return list
}

// replaced returns a copy of a Service with one endpoint replaced by another.
func replaced(s *model.Service, index int, by netip.AddrPort) *model.Service {
	c := *s
	c.Ports = slices.Clone(s.Ports)
	c.Ports[0].Endpoints = slices.Clone(s.Ports[0].Endpoints)
	c.Ports[0].Endpoints[index].Addr = by
	slices.SortFunc(c.Ports[0].Endpoints, func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return &c
}
