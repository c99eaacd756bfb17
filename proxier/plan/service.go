package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A view is what a Service's rules depend on besides the Service.
type view struct {
	node, zone string
	primary    []netip.Addr
	families   []nft.Family
	// scheduler is that of Services that name none, schedulers those that the kernel has, excluded the
	// ranges that IPVS is kept away from.
	scheduler  string
	schedulers []string
	excluded   []netip.Prefix
	// unfit are Services that do without IPVS. It is not compared by equal: what it changes is known.
	unfit map[model.Name]bool
}

// newView returns the view of a node.
func newView(c *Config, node *model.Node) view {
	return view{
		node: node.Name, zone: node.Zone, primary: node.PrimaryIPs, families: c.families(),
		scheduler: cmp.Or(c.Scheduler, model.Random), schedulers: c.Schedulers, excluded: c.ExcludeIPVS, unfit: c.Unfit,
	}
}

// equal reports whether Services compile to the same under both views.
func (v *view) equal(o *view) bool {
	return v.node == o.node && v.zone == o.zone && slices.Equal(v.primary, o.primary) && slices.Equal(v.families, o.families) &&
		v.scheduler == o.scheduler && slices.Equal(v.schedulers, o.schedulers) && slices.Equal(v.excluded, o.excluded)
}

// A unit is one compiled Service. It is never changed.
type unit struct {
	service *model.Service
	claims  []keyedClaim
	// scheduler is what the Service asks for.
	scheduler string
	// balanced says that IPVS serves it, fallback that it would if the kernel had the scheduler.
	balanced, fallback bool
	// missing says that it is so since the kernel lacks the scheduler.
	missing bool
	// noLocal counts, by family, the ports that drop some traffic since this node has no endpoint.
	noLocal [families]noLocal
}

// A keyedClaim is a claim with what it claims.
type keyedClaim struct {
	key   key
	claim *claim
}

// lists are where the endpoints of one Service port had their places.
type lists struct{ cluster, local []netip.AddrPort }

// places tells where the endpoints of a Service port are.
type places func(*portCompiler, *model.Port) lists

// compileService compiles one Service. The endpoints keep the places that they had in last.
func compileService(v *view, s *model.Service, last places) *unit {
	u := &unit{service: s, scheduler: v.schedulerOf(s)}
	v.schedule(u)
	for _, f := range v.families {
		i := slices.IndexFunc(s.ClusterIPs, func(a netip.Addr) bool { return familyOf(a) == f })
		if i < 0 {
			continue
		}
		p := portCompiler{view: v, service: s, unit: u, family: f, clusterIP: s.ClusterIPs[i]}
		u.add(key{kind: keyClusterIP, family: f, addr: p.clusterIP}, &claim{service: s})
		p.findExternal()
		for j := range s.Ports {
			p.compile(&s.Ports[j], last)
		}
	}
	return u
}

// add appends a claim.
func (u *unit) add(k key, c *claim) { u.claims = append(u.claims, keyedClaim{k, c}) }

// A portCompiler compiles the ports of one Service in one family.
type portCompiler struct {
	view      *view
	service   *model.Service
	unit      *unit
	family    nft.Family
	clusterIP netip.Addr
	// external are the external addresses, load balancer addresses first.
	external []netip.Addr
	// balanced is how many of them are load balancer addresses.
	balanced int
	// ranges are the sources that load balancer addresses take if firewalled is true.
	firewalled bool
	ranges     []netip.Prefix
}

// findExternal fills in the addresses for clients outside and who may use them.
func (p *portCompiler) findExternal() {
	add := func(addrs []netip.Addr) {
		for _, a := range addrs {
			if familyOf(a) == p.family && a != p.clusterIP && !slices.Contains(p.external, a) {
				p.external = append(p.external, a)
			}
		}
	}
	add(p.service.LoadBalancerIPs)
	p.balanced = len(p.external)
	add(p.service.ExternalIPs)

	var ranges []netip.Prefix
	for _, r := range p.service.SourceRanges {
		if familyOf(r.Addr()) == p.family {
			ranges = append(ranges, r)
		}
	}
	if len(ranges) == 0 || slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Bits() == 0 }) {
		return
	}
	// A node that has a load balancer address itself talks to it from that address.
	nodeAllowed := slices.ContainsFunc(p.view.primary, func(a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	})
	if nodeAllowed {
		for _, a := range p.external[:p.balanced] {
			ranges = append(ranges, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	p.firewalled, p.ranges = true, mergePrefixes(ranges)
}

// compile adds the claims of one port.
func (p *portCompiler) compile(port *model.Port, last places) {
	s := p.service
	memory := p.memory(port)
	chosen := choose(p.view, port.Endpoints, p.family)
	were := last(p, port)
	cluster, local := assign(were.cluster, chosen.cluster), assign(were.local, chosen.local)
	exposed := port.NodePort != 0 || len(p.external) > 0

	template := claim{
		service: s, port: port.Name, comment: p.comment(port),
		affinity: s.Affinity, memory: memory,
	}
	if p.unit.fallback {
		template.pick = fallbackPick(p.unit.scheduler)
	}
	front := func(addr netip.Addr, number uint16) key { return p.front(addr, port.Protocol, number) }

	if p.unit.balanced {
		// IPVS remembers clients itself.
		template.affinity, template.memory = 0, key{}
	}
	internal := template
	internal.cluster, internal.internalLocal = cluster, s.InternalLocal
	if s.InternalLocal {
		internal.cluster = local
	}
	if len(internal.cluster) == 0 {
		internal.refuse = refusal(chosen.any)
		if internal.refuse.Kind == nft.Drop {
			p.unit.noLocal[familyIndex(p.family)].internal++
		}
	}
	external := template
	external.external, external.externalLocal, external.cluster = true, s.ExternalLocal, cluster
	if s.ExternalLocal {
		external.local = local
	}
	if p.unit.balanced {
		p.balance(port, &internal, &external, exposed)
	}
	p.unit.add(front(p.clusterIP, port.Port), &internal)

	if exposed {
		if used := len(cluster) > 0 && (!s.ExternalLocal || len(local) > 0); !used {
			external.refuse = refusal(chosen.any)
			if external.refuse.Kind == nft.Drop {
				p.unit.noLocal[familyIndex(p.family)].external++
			}
		}
		for i, a := range p.external {
			c := external
			if i < p.balanced {
				c.firewalled, c.ranges = p.firewalled, p.ranges
			}
			p.unit.add(front(a, port.Port), &c)
		}
		if port.NodePort != 0 {
			p.unit.add(front(netip.Addr{}, port.NodePort), &external)
		}
	}
	if template.affinity > 0 && chosen.any {
		c := template
		if !s.InternalLocal || exposed {
			c.cluster = cluster
		}
		if s.InternalLocal || exposed && s.ExternalLocal {
			c.local = local
		}
		p.unit.add(memory, &c)
	}
	for _, a := range chosen.hairpin {
		k := key{kind: keyHairpin, family: p.family, addr: a}
		if !slices.ContainsFunc(p.unit.claims, func(c keyedClaim) bool { return c.key == k }) {
			p.unit.add(k, &claim{service: s})
		}
	}
}

// front returns the key of a front end; without an address, of a node port.
func (p *portCompiler) front(addr netip.Addr, proto model.Protocol, port uint16) key {
	return key{kind: keyFrontEnd, family: p.family, addr: addr, proto: proto, port: port}
}

// memory returns the key of a Service port's session affinity, which stands for the port elsewhere,
// too.
func (p *portCompiler) memory(port *model.Port) key {
	k := p.front(p.clusterIP, port.Protocol, port.Port)
	k.kind = keyAffinity
	return k
}

// comment returns what tells people whose the elements of a port are: namespace/name:port.
func (p *portCompiler) comment(port *model.Port) string {
	return nft.ClipComment(p.service.Name.String() + ":" + port.Name)
}

// refusal returns what becomes of packets for a front end without endpoints to go to.
func refusal(elsewhere bool) nft.Verdict {
	if elsewhere {
		return nft.Verdict{Kind: nft.Drop}
	}
	return nft.GoTo(chainRefuse)
}

// places returns where the endpoints of one of the unit's ports are.
func (u *unit) places(p *portCompiler, port *model.Port) lists {
	var l lists
	memory := p.memory(port)
	for i := range u.claims {
		c := &u.claims[i]
		if c.claim.memory != memory || c.key.kind != keyFrontEnd && c.key.kind != keyAffinity {
			continue
		}
		if c.claim.internalLocal {
			l.local = longest(l.local, c.claim.cluster)
			continue
		}
		l.cluster = longest(l.cluster, c.claim.cluster)
		l.local = longest(l.local, c.claim.local)
	}
	return l
}

// longest returns the longer one of two lists.
func longest(a, b []netip.AddrPort) []netip.AddrPort {
	if len(b) > len(a) {
		return b
	}
	return a
}
