package objects

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// Options are what the operator may choose about the reading of objects.
type Options struct {
	// AllowExternalIPs is whether spec.externalIPs counts.
	AllowExternalIPs bool
}

// Join returns a Service with its endpoints. The slices count in the order given: of two entries for
// one address and port a later one that is not terminating wins over an earlier one.
func Join(o Options, s *Service, list []*Slice) *model.Service {
	out := s.Model
	if !o.AllowExternalIPs && len(out.ExternalIPs) > 0 {
		out.ExternalIPs = nil
		out.ExternalLocal = out.ExternalLocal && s.Exposed
	}
	out.Ports = make([]model.Port, len(s.Model.Ports))
	for i, p := range s.Model.Ports {
		p.Endpoints = endpoints(p.Name, p.Protocol, s.Weights, list)
		out.Ports[i] = p
	}
	return &out
}

// endpoints returns the endpoints of one Service port, sorted by address.
func endpoints(name string, proto model.Protocol, weights Weights, list []*Slice) []model.Endpoint {
	var out []model.Endpoint
	for _, slice := range list {
		for i := range slice.Subsets {
			subset := &slice.Subsets[i]
			for _, p := range subset.Ports {
				if p.Name != name || p.Protocol != proto {
					continue
				}
				out = slices.Grow(out, len(subset.Endpoints))
				for i := range subset.Endpoints {
					e := subset.Endpoints[i].Endpoint
					e.Addr = netip.AddrPortFrom(e.Addr.Addr(), p.Port)
					e.Weight = weights.of(&subset.Endpoints[i])
					out = append(out, e)
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
	n := 0
	for _, e := range out {
		switch {
		case n == 0 || out[n-1].Addr != e.Addr:
			out[n] = e
			n++
		case !e.Terminating:
			// Two pods share an address, one of them going: the other has it.
			out[n-1] = e
		}
	}
	return out[:n]
}
