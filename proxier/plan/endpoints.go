package plan

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// candidates are the endpoints of a Service port, of one family, that traffic may go to
// (kubernetes pkg/proxy/topology.go, CategorizeEndpoints).
type candidates struct {
	// cluster are those for the traffic policy Cluster, local those for Local.
	cluster, local []netip.AddrPort
	// any says that some endpoint is usable, whether this node uses it or not: then an empty list
	// drops and does not reject.
	any bool
	// hairpin are the addresses of this node's endpoints in the lists.
	hairpin []netip.Addr
}

// choose returns the candidates of a port. Not-ready endpoints are used only while they terminate
// and still serve, and only if there is no ready one (KEP-1669).
func choose(v *view, endpoints []model.Endpoint, f nft.Family) candidates {
	var c candidates
	ready := func(e *model.Endpoint) bool { return e.Ready }
	leaving := func(e *model.Endpoint) bool { return e.Serving && e.Terminating }
	fits := topology(v, endpoints, f)
	count := func(ok func(*model.Endpoint) bool) (n int) {
		for i := range endpoints {
			if e := &endpoints[i]; familyOf(e.Addr.Addr()) == f && ok(e) {
				n++
			}
		}
		return n
	}
	pick := func(ok func(*model.Endpoint) bool) []netip.AddrPort {
		list := slices.Grow([]netip.AddrPort(nil), count(ok)) // it is kept
		for i := range endpoints {
			if e := &endpoints[i]; familyOf(e.Addr.Addr()) == f && ok(e) {
				list = append(list, e.Addr)
			}
		}
		return list
	}
	here := func(e *model.Endpoint) bool { return v.node != "" && e.Node == v.node }
	c.cluster = pick(func(e *model.Endpoint) bool { return ready(e) && fits(e) })
	if len(c.cluster) == 0 {
		c.cluster = pick(leaving)
	}
	c.local = pick(func(e *model.Endpoint) bool { return ready(e) && here(e) })
	if len(c.local) == 0 {
		c.local = pick(func(e *model.Endpoint) bool { return leaving(e) && here(e) })
	}
	c.any = count(func(e *model.Endpoint) bool { return ready(e) || leaving(e) }) > 0
	for _, ap := range pick(func(e *model.Endpoint) bool { return here(e) && (ready(e) || leaving(e)) }) {
		if !slices.Contains(c.hairpin, ap.Addr()) {
			c.hairpin = append(c.hairpin, ap.Addr())
		}
	}
	return c
}

// topology returns which ready endpoints this node prefers. Hints count only if every ready endpoint
// has one: those for nodes first, then those for zones, each only if one names this node or zone
// (KEP-2433, KEP-4444).
func topology(v *view, endpoints []model.Endpoint, f nft.Family) func(*model.Endpoint) bool {
	allNodes, allZones, hasNode, hasZone := true, true, false, false
	for i := range endpoints {
		e := &endpoints[i]
		if !e.Ready || familyOf(e.Addr.Addr()) != f {
			continue
		}
		h := e.Hints
		if h == nil {
			h = &model.Hints{}
		}
		allNodes = allNodes && len(h.Nodes) > 0
		allZones = allZones && len(h.Zones) > 0
		hasNode = hasNode || slices.Contains(h.Nodes, v.node)
		hasZone = hasZone || slices.Contains(h.Zones, v.zone)
	}
	switch {
	case v.node != "" && allNodes && hasNode:
		return func(e *model.Endpoint) bool { return slices.Contains(e.Hints.Nodes, v.node) }
	case v.zone != "" && allZones && hasZone:
		return func(e *model.Endpoint) bool { return slices.Contains(e.Hints.Zones, v.zone) }
	}
	return func(*model.Endpoint) bool { return true }
}

// assign gives the endpoints in want their places, so that as many as possible stay where they were
// in last: then an endpoint that replaces another is one element deleted and one added. Both are
// without duplicates; the result is a permutation of want. It may be want or last itself.
func assign(last, want []netip.AddrPort) []netip.AddrPort {
	if len(last) == 0 || slices.Equal(last, want) {
		return want
	}
	open := make(map[netip.AddrPort]bool, len(want))
	for _, ap := range want {
		open[ap] = true
	}
	places := make([]netip.AddrPort, len(want))
	same := len(last) == len(want)
	for i := range places {
		if i < len(last) && open[last[i]] {
			places[i] = last[i]
			delete(open, last[i])
		} else {
			same = false
		}
	}
	if same {
		return last
	}
	i := 0
	for _, ap := range want {
		if !open[ap] {
			continue
		}
		for places[i].IsValid() {
			i++
		}
		places[i] = ap
	}
	return places
}

// endpointNumbers gives each endpoint the number that session affinity remembers it by: a hash of
// its address, so that it is the same after a restart and is not used for another endpoint soon.
func endpointNumbers(list []netip.AddrPort) []uint32 {
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return list[a].Compare(list[b]) })
	numbers := make([]uint32, len(list))
	used := make(map[uint32]bool, len(list))
	for _, i := range order {
		n := hashEndpoint(list[i])
		for used[n] {
			n = (n + 1) &^ affinityMask
		}
		used[n] = true
		numbers[i] = affinityBits | n
	}
	return numbers
}

// hashEndpoint returns 24 bits of the FNV-1a hash of an address and port.
func hashEndpoint(ap netip.AddrPort) uint32 {
	const offset, prime = 2166136261, 16777619
	h := uint32(offset)
	b := ap.Addr().As16()
	for _, c := range b {
		h = (h ^ uint32(c)) * prime
	}
	h = (h ^ uint32(ap.Port()>>8)) * prime
	h = (h ^ uint32(ap.Port()&0xff)) * prime
	return (h ^ h>>24) &^ affinityMask
}
