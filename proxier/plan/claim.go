package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A key names what only one Service can have: most often a front end.
type key struct {
	kind   keyKind
	family nft.Family
	addr   netip.Addr // the zero Addr for node ports
	proto  model.Protocol
	port   uint16
}

// keyKind says what a key names.
type keyKind uint8

// The kinds.
const (
	keyFrontEnd  keyKind = iota // address, protocol and port; or a node port
	keyClusterIP                // a cluster IP, whatever the port
	keyAffinity                 // the memory of a Service port, by cluster IP, protocol and port
	keyHairpin                  // an endpoint's address; several Services may have it
	keyInner                    // a virtual server that only translated packets come to
)

// isNodePort reports whether the key is a node port.
func (k *key) isNodePort() bool { return k.kind == keyFrontEnd && !k.addr.IsValid() }

// value returns the key as it stands in the maps.
func (k *key) value() nft.Value {
	var v nft.Value
	if k.addr.IsValid() {
		v = v.Addr(k.addr)
	}
	return v.Proto(uint8(k.proto)).Port(k.port)
}

// A claim is what one Service wants to be programmed for a key. It stands for a few elements, see
// elements; it does not hold them, since there are millions.
type claim struct {
	service *model.Service
	port    string // name of the Service port
	comment string // namespace/name:port
	// cluster and local are the endpoints, each in its place. What they mean depends on the key:
	// for a cluster IP cluster is the one list that is used.
	cluster, local []netip.AddrPort
	// external says that the front end is for clients outside, policy Local if externalLocal.
	external, externalLocal bool
	// refuse is what becomes of packets that no rule translates: nothing (NoVerdict), reject (Goto)
	// or drop (Drop).
	refuse nft.Verdict
	// firewalled says that only sources in ranges get in.
	firewalled bool
	ranges     []netip.Prefix
	// affinity is the timeout of session affinity; memory is the Service port that remembers.
	affinity time.Duration
	memory   key
	// pick is how one of the endpoints is chosen where nftables does.
	pick pick
	// server is the virtual server that the key is, nil for none: IPVS chooses, not nftables.
	server *server
	// behind is what is behind the virtual servers that a front end leads to; they are then its endpoints
	// in cluster and local. Nil for a front end that leads to none.
	behind *behind
	// internalLocal says that the cluster IP uses the endpoints of this node: with session affinity
	// it then goes to another chain.
	internalLocal bool
}

// compareClaims orders claims of one key: the first has it. The older Service wins, so that nobody
// takes an address away by making a new one.
func compareClaims(a, b *claim) int {
	return cmp.Or(
		a.service.Created.Compare(b.service.Created),
		a.service.Name.Compare(b.service.Name),
		cmp.Compare(a.port, b.port),
	)
}

// An entry is an element with the set or map that it belongs to.
type entry struct {
	set     string
	element nft.Element
}

// compareEntries orders entries by set and key.
func compareEntries(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.set, b.set), a.element.Key.Compare(&b.element.Key), a.element.End.Compare(&b.element.End))
}

// elements appends the elements that a claim stands for.
func (c *claim) elements(k *key, to []entry) []entry {
	switch k.kind {
	case keyClusterIP:
		return append(to, entry{setClusterIPs, nft.Element{Key: nft.Value{}.Addr(k.addr), Comment: c.service.Name.String()}})
	case keyHairpin:
		return append(to, entry{setHairpin, nft.Element{Key: nft.Value{}.Addr(k.addr).Addr(k.addr)}})
	case keyAffinity:
		to = c.memoryElements(k, to, c.cluster, setAffinityServices, setAffinitySlots, setAffinityEnds, balanceAffinity)
		return c.memoryElements(k, to, c.local, setAffinityLocals, setAffinityLSlots, setAffinityLEnds, balanceAffinityLocal)
	case keyInner:
		return append(to, entry{setInnerServers, nft.Element{Key: k.value(), Comment: c.comment}})
	case keyFrontEnd:
	}
	switch {
	case k.isNodePort():
		to = c.nodePortElements(k, to)
	case c.external:
		to = c.externalElements(k, to)
	default:
		to = c.clusterIPElements(k, to)
	}
	if c.firewalled {
		to = append(to, entry{setFirewall, nft.Element{Key: k.value(), Comment: c.comment}})
		for _, p := range c.ranges {
			to = append(to, entry{setSourceRanges, nft.Element{Key: k.value().Addr(p.Masked().Addr()), End: k.value().Addr(lastAddr(p))}})
		}
	}
	return to
}

// size returns about how many elements the claim of a front end stands for.
func (c *claim) size() int { return 2 + len(c.cluster) + len(c.local) + len(c.ranges) }

// clusterIPElements appends what a cluster IP needs.
func (c *claim) clusterIPElements(k *key, to []entry) []entry {
	if len(c.cluster) == 0 {
		return c.refusal(k, to, setNoEndpoints)
	}
	if c.server != nil {
		to = append(to, entry{setServers, nft.Element{Key: k.value(), Comment: c.comment}})
		return c.number(k, to, setServices, toIPVS)
	}
	if c.affinity > 0 {
		first := toClusterAffinity
		if c.internalLocal {
			first = toClusterLAffinity
		}
		return c.number(k, to, setServices, first)
	}
	to = c.number(k, to, setServices, c.balancer(balanceFrontEnd, c.cluster).number())
	return endpointElements(k, to, setEndpoints, c.cluster)
}

// externalElements appends what an external or load balancer address needs.
func (c *claim) externalElements(k *key, to []entry) []entry {
	if len(c.cluster) > 0 {
		first := toExternal
		if c.externalLocal {
			first = toExternalLocal
		}
		to = c.number(k, to, setServices, first)
		to = c.target(k, to, setExternal, setEndpoints, c.cluster, balanceFrontEnd, toExternalAffinity)
	}
	if len(c.local) > 0 {
		to = c.target(k, to, setExternalLocal, setLocalEndpoints, c.local, balanceLocal, toExternalLAffinity)
	}
	if c.affinity > 0 && len(c.cluster) > 0 {
		to = append(to, entry{setAffinityFronts, nft.Element{Key: k.value(), Data: nft.Value{}.Addr(c.memory.addr)}})
	}
	return c.refusal(k, to, setNoEndpoints)
}

// nodePortElements appends what a node port needs.
func (c *claim) nodePortElements(k *key, to []entry) []entry {
	if len(c.cluster) > 0 {
		first := toNodePort
		if c.externalLocal {
			first = toNodePortLocal
		}
		to = c.number(k, to, setNodePorts, first)
		to = c.target(k, to, setNodePort, setNodePortEnds, c.cluster, balanceNodePort, toNodePortAffinity)
	}
	if len(c.local) > 0 {
		to = c.target(k, to, setNodePortLocal, setNodePortLocals, c.local, balanceNodePortLocal, toNodePortLAffinity)
	}
	if c.affinity > 0 && len(c.cluster) > 0 {
		translated := key{addr: c.memory.addr, proto: k.proto, port: k.port}
		to = append(
			to,
			entry{setAffinityNodeIPs, nft.Element{Key: k.value(), Data: nft.Value{}.Addr(c.memory.addr)}},
			entry{setAffinityNodePort, nft.Element{Key: translated.value(), Data: nft.Value{}.Port(c.memory.port)}},
		)
	}
	return c.refusal(k, to, setNoNodePortEnds)
}

// target appends where a list of endpoints is balanced: in a chain of its own length, or by the
// Service port's memory.
func (c *claim) target(k *key, to []entry, services, endpoints string, list []netip.AddrPort, kind balancerKind, memory number) []entry {
	if c.affinity > 0 {
		return c.number(k, to, services, memory)
	}
	to = c.number(k, to, services, c.balancer(kind, list).number())
	return endpointElements(k, to, endpoints, list)
}

// memoryElements appends what session affinity needs for one list of endpoints.
func (c *claim) memoryElements(k *key, to []entry, list []netip.AddrPort, services, slots, endpoints string, kind balancerKind) []entry {
	if len(list) == 0 {
		return to
	}
	memory := balancer{kind: kind, count: len(list), timeout: c.affinity}
	to = append(to, entry{services, nft.Element{Key: k.value(), Verdict: memory.goTo(), Comment: c.comment}})
	for i, n := range endpointNumbers(list) {
		to = append(
			to,
			entry{slots, nft.Element{Key: k.value().Uint32(uint32(i)), Data: nft.Value{}.Uint32(n)}},
			entry{endpoints, nft.Element{Key: k.value().Uint32(n), Data: endpointValue(list[i])}},
		)
	}
	return to
}

// number appends the element of a map that leads to a chain.
func (c *claim) number(k *key, to []entry, set string, n number) []entry {
	return append(to, entry{set, nft.Element{Key: k.value(), Data: n.value(), Comment: c.comment}})
}

// refusal appends what refuses packets that no rule translates, if anything does.
func (c *claim) refusal(k *key, to []entry, set string) []entry {
	switch c.refuse.Kind {
	case nft.Goto:
		return c.number(k, to, set, toRefuse)
	case nft.Drop:
		return c.number(k, to, set, toDrop)
	case nft.NoVerdict, nft.Accept, nft.Jump:
	}
	return to
}

// endpointElements appends the endpoints under their indexes.
func endpointElements(k *key, to []entry, set string, list []netip.AddrPort) []entry {
	front := k.value()
	for i, ap := range list {
		to = append(to, entry{set, nft.Element{Key: front.Uint32(uint32(i)), Data: endpointValue(ap)}})
	}
	return to
}

// endpointValue returns an endpoint as the data of a map.
func endpointValue(ap netip.AddrPort) nft.Value { return nft.Value{}.Addr(ap.Addr()).Port(ap.Port()) }

// balancer returns the chain that picks one of a list of endpoints without affinity. A list of one
// leaves nothing to pick.
func (c *claim) balancer(kind balancerKind, list []netip.AddrPort) balancer {
	b := balancer{kind: kind, count: len(list)}
	if b.count > 1 {
		b.pick = c.pick
	}
	return b
}

// balancers calls count with each chain that the claim's elements go to.
func (c *claim) balancers(k *key, count func(balancer)) {
	use := func(kind balancerKind, list []netip.AddrPort) {
		if len(list) > 0 {
			count(c.balancer(kind, list))
		}
	}
	switch {
	case k.kind == keyAffinity:
		for kind, list := range map[balancerKind][]netip.AddrPort{balanceAffinity: c.cluster, balanceAffinityLocal: c.local} {
			if len(list) > 0 {
				count(balancer{kind: kind, count: len(list), timeout: c.affinity})
			}
		}
	case k.kind != keyFrontEnd || c.affinity > 0 || c.server != nil:
		// With affinity the memory's claim counts; IPVS needs no chain.
	case k.isNodePort():
		use(balanceNodePort, c.cluster)
		use(balanceNodePortLocal, c.local)
	default:
		use(balanceFrontEnd, c.cluster)
		use(balanceLocal, c.local)
	}
}

// lastAddr returns the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch host := (i+1)*8 - p.Bits(); {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= 1<<host - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// mergePrefixes returns the prefixes, sorted, without those that others contain: the kernel refuses
// intervals that overlap.
func mergePrefixes(prefixes []netip.Prefix) []netip.Prefix {
	sorted := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		sorted = append(sorted, p.Masked())
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	merged := sorted[:0]
	for _, p := range sorted {
		if n := len(merged); n == 0 || !merged[n-1].Contains(p.Addr()) {
			merged = append(merged, p)
		}
	}
	return merged
}
