package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Check is what a load balancer may ask this node: whether it has endpoints of a Service
// (spec.healthCheckNodePort). Each family answers for itself.
type Check struct {
	Service model.Name
	Family  nft.Family
	Port    uint16
	// Local is the number of addresses of ready endpoints on this node, whatever the port.
	Local int
}

// Checks returns the health checks of all Services that have one, those of older Services first.
func (s *State) Checks() []Check {
	units := make([]*unit, 0, s.checked.Len())
	for _, u := range s.checked.All() {
		units = append(units, u)
	}
	slices.SortFunc(units, func(a, b *unit) int {
		return cmp.Or(a.service.Created.Compare(b.service.Created), a.service.Name.Compare(b.service.Name))
	})
	var checks []Check
	for _, u := range units {
		for _, f := range s.view.families {
			if !slices.ContainsFunc(u.service.ClusterIPs, func(a netip.Addr) bool { return familyOf(a) == f }) {
				continue
			}
			checks = append(checks, Check{
				Service: u.service.Name, Family: f, Port: u.service.HealthCheckNodePort, Local: s.view.ready(u.service, f),
			})
		}
	}
	return checks
}

// ready returns the number of addresses of a Service's ready endpoints on this node. Those that
// terminate do not count: the load balancer should turn away before they are gone.
func (v *view) ready(s *model.Service, f nft.Family) int {
	var found []netip.Addr
	for i := range s.Ports {
		for j := range s.Ports[i].Endpoints {
			e := &s.Ports[i].Endpoints[j]
			if a := e.Addr.Addr(); e.Ready && v.node != "" && e.Node == v.node && familyOf(a) == f && !slices.Contains(found, a) {
				found = append(found, a)
			}
		}
	}
	return len(found)
}

// NodePortAddrs returns the node's addresses that serve node ports, IPv4 first, or with all the
// families that serve them on every address.
func (s *State) NodePortAddrs() (addrs []netip.Addr, all []nft.Family) {
	for _, f := range s.view.families {
		prefixes, every := s.config.nodePortPrefixes(f, s.snapshot.Node.PrimaryIPs)
		if every {
			all = append(all, f)
			continue
		}
		addrs = append(addrs, nodePortAddrs(f, s.snapshot.Node, prefixes)...)
	}
	return addrs, all
}
