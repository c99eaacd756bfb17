package conntrack

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// An Entry is what counts of an entry of connection tracking.
type Entry struct {
	// Destination is what the client sends to.
	Destination netip.AddrPort
	// Responder is who answers: the endpoint or, if nothing was translated, the destination.
	Responder netip.AddrPort
	// Source is who sent the first packet.
	Source netip.AddrPort
}

// A table says which entries are right. Its front ends are addresses and ports of UDP; a node port has
// the unspecified address of its family.
type table struct {
	services model.Map[model.Name, *model.Service]
	// claims has for each front end all claims, the one that holds first.
	claims map[netip.AddrPort][]claim
	// gone are front ends that were translated and are no more, with the time when they went.
	gone map[netip.AddrPort]time.Time
	// fading are endpoints that served a front end until a moment ago, with the time when they went.
	fading map[fade]time.Time
	// local are the addresses of this node that serve node ports.
	local map[netip.Addr]bool
	// servers says that IPVS serves, or served, some front ends.
	servers bool
}

// A claim is one Service port's for a front end.
type claim struct {
	service *model.Service
	port    string
	// serving are the endpoints that may answer, sorted; the claims of a port share them.
	serving []netip.AddrPort
}

// A fade is an endpoint of a front end.
type fade struct{ front, endpoint netip.AddrPort }

// newTable returns a table without a front end.
func newTable() *table {
	return &table{claims: map[netip.AddrPort][]claim{}, gone: map[netip.AddrPort]time.Time{}, fading: map[fade]time.Time{}}
}

// stale reports whether an entry leads nowhere.
func (t *table) stale(e Entry, now time.Time) bool {
	if t.backwards(e) {
		return true
	}
	keys := [2]netip.AddrPort{e.Destination}
	n := 1
	if t.local[e.Destination.Addr()] {
		keys[1] = nodePort(e.Destination.Addr(), e.Destination.Port())
		n = 2
	}
	for _, k := range keys[:n] {
		if claims := t.claims[k]; len(claims) > 0 {
			_, ok := slices.BinarySearchFunc(claims[0].serving, e.Responder, netip.AddrPort.Compare)
			return !ok && !t.fades(k, e.Responder, now)
		}
	}
	for _, k := range keys[:n] {
		if _, ok := t.gone[k]; ok {
			return e.Responder != e.Destination && !t.fades(k, e.Responder, now)
		}
	}
	return false
}

// backwards reports whether an entry begins at a front end. IPVS deletes its entries with a virtual server; an answer
// that is under way then makes such a one, and what the client sends belongs to it from then on.
func (t *table) backwards(e Entry) bool {
	return t.servers && e.Responder == e.Destination && !t.local[e.Source.Addr()] && len(t.claims[e.Source]) > 0
}

// fades reports whether an endpoint may still answer.
func (t *table) fades(front, endpoint netip.AddrPort, now time.Time) bool {
	at, ok := t.fading[fade{front, endpoint}]
	return ok && now.Before(at.Add(grace))
}

// settle forgets what was dealt with by a look at all entries that began at a time, and returns the front
// ends that have to be looked at again.
func (t *table) settle(now time.Time) (dirty []netip.AddrPort) {
	for f, at := range t.fading {
		if now.Before(at.Add(grace)) {
			dirty = append(dirty, f.front)
		} else {
			delete(t.fading, f)
		}
	}
	for f, at := range t.gone {
		if !now.Before(at.Add(grace)) {
			delete(t.gone, f)
		}
	}
	return dirty
}

// concerns reports whether an entry of a family can be stale.
func (t *table) concerns(f nft.Family) bool {
	for front := range t.claims {
		if family(front.Addr()) == f {
			return true
		}
	}
	for front := range t.gone {
		if family(front.Addr()) == f {
			return true
		}
	}
	return false
}

// setServices takes over Services, looking only at those that changed. It returns the front ends whose
// entries may have become stale.
func (t *table) setServices(services model.Map[model.Name, *model.Service], now time.Time) (dirty []netip.AddrPort) {
	for c := range model.Changes(t.services, services) {
		dirty = append(dirty, t.replace(c.Old, c.New, now)...)
	}
	t.services = services
	return dirty
}

// replace puts a Service in the place of another; either may be nil. It returns the front ends whose
// entries may have become stale: not those that merely have more endpoints.
func (t *table) replace(before, after *model.Service, now time.Time) (dirty []netip.AddrPort) {
	touched := map[netip.AddrPort][]claim{}
	for front := range fronts(before) {
		if _, ok := touched[front]; ok {
			continue
		}
		claims := t.claims[front]
		touched[front] = claims
		t.claims[front] = slices.DeleteFunc(slices.Clone(claims), func(c claim) bool { return c.service == before })
	}
	for front, c := range fronts(after) {
		claims := t.claims[front]
		if _, ok := touched[front]; !ok {
			touched[front] = claims
		}
		i, _ := slices.BinarySearchFunc(claims, c, compareClaims)
		t.claims[front] = slices.Insert(slices.Clone(claims), i, c)
	}
	for front, were := range touched {
		if t.judge(front, were, now) {
			dirty = append(dirty, front)
		}
	}
	return dirty
}

// judge notes what a change of the claims for a front end means. It reports whether entries may have become
// stale.
func (t *table) judge(front netip.AddrPort, were []claim, now time.Time) bool {
	are := t.claims[front]
	if len(are) == 0 {
		delete(t.claims, front)
		t.gone[front] = now
	}
	if len(were) == 0 {
		// What came before the rule was not translated.
		delete(t.gone, front)
		return true
	}
	dirty := len(are) == 0
	for _, endpoint := range were[0].serving {
		if len(are) > 0 {
			if _, ok := slices.BinarySearchFunc(are[0].serving, endpoint, netip.AddrPort.Compare); ok {
				continue
			}
		}
		t.fading[fade{front, endpoint}] = now
		dirty = true
	}
	return dirty
}

// setLocal takes over the addresses that serve node ports. It reports whether they are others.
func (t *table) setLocal(addrs []netip.Addr) bool {
	local := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		local[a] = true
	}
	if maps.Equal(local, t.local) {
		return false
	}
	t.local = local
	return true
}

// found takes over front ends that were translated and returns those of them that are no more.
func (t *table) found(fronts []netip.AddrPort) (dirty []netip.AddrPort) {
	for _, f := range fronts {
		if _, ok := t.gone[f]; !ok && len(t.claims[f]) == 0 {
			t.gone[f] = time.Time{} // when is not known, but long ago
			dirty = append(dirty, f)
		}
	}
	return dirty
}

// fronts yields the UDP front ends of a Service, which may be nil, with its claims.
func fronts(s *model.Service) func(yield func(netip.AddrPort, claim) bool) {
	return func(yield func(netip.AddrPort, claim) bool) {
		if s == nil {
			return
		}
		for i := range s.Ports {
			if p := &s.Ports[i]; p.Protocol == model.UDP && !portFronts(s, p, yield) {
				return
			}
		}
	}
}

// portFronts yields the front ends of one port of a Service.
func portFronts(s *model.Service, p *model.Port, yield func(netip.AddrPort, claim) bool) bool {
	for _, ip := range s.ClusterIPs {
		c := claim{service: s, port: p.Name, serving: serving(p, ip.Is4())}
		addrs := []netip.Addr{ip}
		for _, a := range slices.Concat(s.LoadBalancerIPs, s.ExternalIPs) {
			if a.Is4() == ip.Is4() && !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
		for _, a := range addrs {
			if !yield(netip.AddrPortFrom(a, p.Port), c) {
				return false
			}
		}
		if p.NodePort != 0 && !yield(nodePort(ip, p.NodePort), c) {
			return false
		}
	}
	return true
}

// serving returns the endpoints of a port and a family that serve, sorted.
func serving(p *model.Port, ipv4 bool) []netip.AddrPort {
	var list []netip.AddrPort
	for i := range p.Endpoints {
		if e := &p.Endpoints[i]; e.Serving && e.Addr.Addr().Is4() == ipv4 {
			list = append(list, e.Addr)
		}
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	return list
}

// nodePort returns the front end of a node port in the family of an address.
func nodePort(a netip.Addr, port uint16) netip.AddrPort {
	if a.Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
}

// compareClaims orders claims as the ruleset does: the older Service has the front end.
func compareClaims(a, b claim) int {
	return cmp.Or(
		a.service.Created.Compare(b.service.Created),
		a.service.Name.Compare(b.service.Name),
		cmp.Compare(a.port, b.port),
	)
}

// localAddrs returns the addresses that serve node ports: those given, and in the families that serve
// them on all addresses, all of the node but loopback.
func localAddrs(addrs []netip.Addr, all []nft.Family, node *model.Node) []netip.Addr {
	addrs = slices.Clone(addrs)
	for _, a := range node.Addresses {
		if slices.Contains(all, family(a)) && !a.IsLoopback() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// family returns the family of an address.
func family(a netip.Addr) nft.Family {
	if a.Is4() {
		return nft.IPv4
	}
	return nft.IPv6
}
