package plan

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A server is the virtual server that a claim stands for.
//
// A Service port that IPVS serves has one at its cluster IP and port, for clients of the cluster IP. All
// other front ends are translated to it by nftables, as if it were their one endpoint: so masquerading,
// source ranges and refusals stay in nftables. Where the traffic policies need a second list of endpoints
// there is a second, inner server at the cluster IP and another port, which only translated packets reach.
type server struct {
	ipvs.Server
	dests map[netip.AddrPort]int
}

// behind is what is behind a virtual server.
type behind struct {
	lists
	scheduler string
}

// schedulerOf returns the scheduler that a Service asks for.
func (v *view) schedulerOf(s *model.Service) string {
	if s.Scheduler != "" {
		return s.Scheduler
	}
	return v.scheduler
}

// schedule decides who serves a unit.
func (v *view) schedule(u *unit) {
	if u.scheduler == model.Random {
		return
	}
	_, has := slices.BinarySearch(v.schedulers, u.scheduler)
	excluded := slices.ContainsFunc(u.service.ClusterIPs, func(a netip.Addr) bool {
		return slices.ContainsFunc(v.excluded, func(p netip.Prefix) bool { return p.Contains(a) })
	})
	u.missing = !has
	u.balanced = has && !excluded && !v.unfit[u.service.Name]
	u.fallback = !u.balanced
}

// fallbackPick returns what nftables does in place of a scheduler of IPVS.
func fallbackPick(scheduler string) pick {
	switch scheduler {
	case "rr":
		return pickTurn
	case "sh":
		return pickSource
	}
	return pickRandom
}

// schedule counts a unit n times among those that ask for a scheduler.
func (e *editor) schedule(name model.Name, u *unit, n int) {
	if u.scheduler == model.Random {
		return
	}
	e.asked = counting(e.asked, u.scheduler, n)
	if u.balanced {
		e.balanced = counting(e.balanced, u.scheduler, n)
	}
	if u.missing && n > 0 {
		e.fallbacks.Set(name, u)
	} else {
		e.fallbacks.Delete(name)
	}
}

// counting adds n to a count, in place.
func counting(counts map[string]int, name string, n int) map[string]int {
	if counts == nil {
		counts = map[string]int{}
	}
	if counts[name] += n; counts[name] == 0 {
		delete(counts, name)
	}
	return counts
}

// balance turns the claims of a port into such that lead to virtual servers.
func (p *portCompiler) balance(port *model.Port, internal, external *claim, exposed bool) {
	if len(internal.cluster) > 0 {
		internal.server = p.server(port, internal.cluster)
	}
	external.behind = &behind{lists: lists{external.cluster, external.local}, scheduler: p.unit.scheduler}
	if !exposed {
		return
	}
	lead := func(list []netip.AddrPort, inner bool) []netip.AddrPort {
		number := port.Port
		switch {
		case len(list) == 0:
			return nil
		case inner:
			number = p.innerPort(port)
			k := p.front(p.clusterIP, port.Protocol, number)
			k.kind = keyInner
			p.unit.add(k, &claim{service: p.service, port: port.Name, comment: internal.comment, server: p.server(port, list)})
		}
		return []netip.AddrPort{netip.AddrPortFrom(p.clusterIP, number)}
	}
	external.cluster = lead(external.cluster, p.service.InternalLocal)
	external.local = lead(external.local, !p.service.InternalLocal)
}

// server returns the virtual server for a list of endpoints.
func (p *portCompiler) server(port *model.Port, list []netip.AddrPort) *server {
	s := &server{
		Server: ipvs.Server{Scheduler: p.unit.scheduler, Persistence: p.service.Affinity},
		dests:  make(map[netip.AddrPort]int, len(list)),
	}
	for _, ap := range list {
		i, _ := slices.BinarySearchFunc(port.Endpoints, ap, func(e model.Endpoint, ap netip.AddrPort) int { return e.Addr.Compare(ap) })
		s.dests[ap] = int(port.Endpoints[i].Weight)
	}
	return s
}

// innerPort returns the port of a Service port's inner virtual server: its node port, which is nobody
// else's, or else one from the end that the Service does not use.
func (p *portCompiler) innerPort(port *model.Port) uint16 {
	used := map[uint16]bool{}
	for i := range p.service.Ports {
		if o := &p.service.Ports[i]; o.Protocol == port.Protocol {
			used[o.Port] = true
		}
	}
	if port.NodePort != 0 && !used[port.NodePort] {
		return port.NodePort
	}
	for i := range p.service.Ports {
		if o := &p.service.Ports[i]; o.Protocol == port.Protocol && o.NodePort != 0 {
			used[o.NodePort] = true
		}
	}
	number := uint16(0)
	for i := range p.service.Ports {
		for number--; used[number]; number-- {
		}
		if &p.service.Ports[i] == port {
			break
		}
	}
	return number
}

// endpoints returns where a front end leads to in the end.
func (c *claim) endpoints() lists {
	if c.behind != nil {
		return c.behind.lists
	}
	return lists{c.cluster, c.local}
}

// plane returns who chooses an endpoint.
func (c *claim) plane() string {
	if c.server != nil || c.behind != nil {
		return PlaneIPVS
	}
	return PlaneNFTables
}

// scheduler returns how an endpoint is chosen: what the Service asks for, or what is done in its place.
func (c *claim) scheduler() string {
	switch {
	case c.server != nil:
		return c.server.Scheduler
	case c.behind != nil:
		return c.behind.scheduler
	case c.pick == pickTurn:
		return "rr"
	case c.pick == pickSource:
		return "sh"
	}
	return model.Random
}

// The planes: who chooses the endpoint of a connection.
const (
	PlaneNFTables = "nftables"
	PlaneIPVS     = "ipvs"
)

// virtual returns the virtual server's name.
func (k *key) virtual() ipvs.Key {
	return ipvs.Key{Protocol: k.proto, Addr: netip.AddrPortFrom(k.addr, k.port)}
}

// virtual returns the virtual server as package ipvs has it.
func (s *server) virtual() *ipvs.Virtual {
	return &ipvs.Virtual{Server: s.Server, Dests: s.dests}
}

// Servers yields the virtual servers that there should be, in no particular order. They must not be
// changed.
func (s *State) Servers() iter.Seq2[ipvs.Key, *ipvs.Virtual] {
	return func(yield func(ipvs.Key, *ipvs.Virtual) bool) {
		if len(s.balanced) == 0 {
			return
		}
		for k := range s.claims.All() {
			if c := s.holder(k); c != nil && c.server != nil && !yield(k.virtual(), c.server.virtual()) {
				return
			}
		}
	}
}

// A ServerChange is a virtual server that differs between two States; nil stands for none.
type ServerChange struct {
	Key      ipvs.Key
	Old, New *ipvs.Virtual
}

// ChangedServers returns the virtual servers that differ, at the cost of what differs.
func ChangedServers(have, want *State) []ServerChange {
	var changes []ServerChange
	if len(have.balanced) == 0 && len(want.balanced) == 0 {
		return nil
	}
	for _, c := range changedKeys(have, want) {
		var old, now *server
		if c.old != nil {
			old = c.old.server
		}
		if c.now != nil {
			now = c.now.server
		}
		if old == nil && now == nil || old != nil && now != nil && old.Server == now.Server && maps.Equal(old.dests, now.dests) {
			continue
		}
		change := ServerChange{Key: c.key.virtual()}
		if old != nil {
			change.Old = old.virtual()
		}
		if now != nil {
			change.New = now.virtual()
		}
		changes = append(changes, change)
	}
	return changes
}

// ServerOwner returns the Service whose virtual server a key is; ok is false if none wants it.
func (s *State) ServerOwner(k ipvs.Key) (owner model.Name, ok bool) {
	if c := s.serverClaim(k); c != nil {
		return c.service.Name, true
	}
	return model.Name{}, false
}

// ServerDests returns the weights of the destinations that a virtual server should have, nil for none.
// The map must not be changed.
func (s *State) ServerDests(k ipvs.Key) map[netip.AddrPort]int {
	if c := s.serverClaim(k); c != nil {
		return c.server.dests
	}
	return nil
}

// serverClaim returns the claim that a virtual server stands for, nil if nothing wants it.
func (s *State) serverClaim(k ipvs.Key) *claim {
	for _, kind := range []keyKind{keyFrontEnd, keyInner} {
		at := key{kind: kind, family: familyOf(k.Addr.Addr()), addr: k.Addr.Addr(), proto: k.Protocol, port: k.Addr.Port()}
		if c := s.holder(at); c != nil && c.server != nil {
			return c
		}
	}
	return nil
}

// Draining returns the addresses of virtual servers that are gone but for old connections, sorted.
func (s *State) Draining() []netip.Addr { return s.config.Draining }

// Asked returns how many Services ask for each scheduler of IPVS. The map must not be changed.
func (s *State) Asked() map[string]int { return s.asked }

// Balanced returns how many Services IPVS serves with each scheduler. The map must not be changed.
func (s *State) Balanced() map[string]int { return s.balanced }

// A Fallback is a Service that nftables serves since the kernel lacks its scheduler.
type Fallback struct {
	Service   model.Name
	Scheduler string
	// Instead is what is done in its place.
	Instead string
}

// Fallbacks returns the Services that nftables serves since the kernel lacks their scheduler, sorted.
func (s *State) Fallbacks() []Fallback {
	var all []Fallback
	for name, u := range s.fallbacks.All() {
		_, instead := fallbackPick(u.scheduler).word()
		all = append(all, Fallback{Service: name, Scheduler: u.scheduler, Instead: instead})
	}
	slices.SortFunc(all, func(a, b Fallback) int { return a.Service.Compare(b.Service) })
	return all
}

// SameFallbacks reports whether two States fall back for the same Services. It looks at pointers only.
func (s *State) SameFallbacks(o *State) bool { return o != nil && s.fallbacks.Same(o.fallbacks) }

// FallbacksByScheduler returns the numbers of Fallbacks.
func (s *State) FallbacksByScheduler() map[string]int {
	counts := map[string]int{}
	for name, n := range s.asked {
		if _, has := slices.BinarySearch(s.view.schedulers, name); !has {
			counts[name] = n
		}
	}
	return counts
}

// differing yields the names that are in one set only.
func differing(a, b map[model.Name]bool) iter.Seq[model.Name] {
	return func(yield func(model.Name) bool) {
		for name := range a {
			if !b[name] && !yield(name) {
				return
			}
		}
		for name := range b {
			if !a[name] && !yield(name) {
				return
			}
		}
	}
}

// serverChains returns the chains of virtual servers.
func serverChains(c *Config) []nft.Chain {
	accept := nft.Do{Verdict: nft.Verdict{Kind: nft.Accept}}
	return []nft.Chain{
		{Name: chainIPVS, Comment: "IPVS chooses the endpoint", Rules: []nft.Rule{{
			Stmts:   []nft.Stmt{nft.MatchLocal{Field: nft.Field{Kind: nft.SAddr}}, nft.SetMark{Bits: c.mark()}},
			Comment: "the node itself may have taken the cluster IP as its source",
		}}},
		{Name: chainCheckServers, Comment: "what is sent to addresses of virtual servers", Rules: []nft.Rule{
			rule(nft.Lookup{Key: nft.FrontEndKey(), Set: setServers}, accept),
			rule(nft.MatchDNATed{}, nft.Lookup{Key: nft.FrontEndKey(), Set: setInnerServers}, accept),
			{Stmts: []nft.Stmt{nft.Reject{}}, Comment: "a port that the Service does not serve must not reach the node's own"},
		}},
		{Name: chainCheckDraining, Comment: "what is sent to addresses that only old connections still need", Rules: []nft.Rule{
			{Stmts: []nft.Stmt{jump(chainUnserved)}, Comment: "as if the address were gone"},
			rule(nft.Reject{}),
		}},
	}
}

// serverRules returns the rules that lead there for what came in.
func serverRules() []nft.Rule {
	return []nft.Rule{
		rule(nft.MatchNew{}, nft.Lookup{Key: []nft.Field{{Kind: nft.DAddr}}, Set: setClusterIPs}, jump(chainCheckServers)),
		drainingRule(),
	}
}

// drainingRule returns the rule about addresses that only old connections still need: those that are no
// cluster IP of another virtual server, or of the Service as nftables serves it now.
func drainingRule() nft.Rule {
	addr := []nft.Field{{Kind: nft.DAddr}}
	return rule(nft.MatchNew{}, nft.Lookup{Key: addr, Set: setDraining}, nft.Lookup{Key: addr, Set: setClusterIPs, Not: true}, jump(chainCheckDraining))
}
