package plan

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// affinitySize is how many clients session affinity remembers in each family. A full memory loses
// affinity for new clients, nothing else.
const affinitySize = 262144

// frame returns the table of a family without anything that depends on a Service.
func frame(c *Config, node *model.Node, cidrs []netip.Prefix, f nft.Family) *nft.Table {
	t := &nft.Table{
		Family:   f,
		Name:     TableName,
		Comment:  "Kubernetes Services, by nftproxy; all here is overwritten",
		Sets:     frameSets(f),
		Elements: frameLinks(),
	}
	prefixes, all := c.nodePortPrefixes(f, node.PrimaryIPs)
	if !all {
		t.Elements[setNodePortIPs] = nodePortIPs(f, node, prefixes)
	}
	for _, a := range c.Draining {
		if familyOf(a) == f {
			t.Elements[setDraining] = append(t.Elements[setDraining], nft.Element{Key: nft.Value{}.Addr(a)})
		}
	}
	t.Chains = slices.Concat(
		baseChains(c, f, all),
		serviceChains(c, node, f, all),
		affinityChains(),
		refuseChains(cidrs, f),
		serverChains(c),
	)
	return t
}

// frameSets returns the definitions of all sets and maps.
func frameSets(f nft.Family) []nft.Set {
	verdict := []nft.Field{{Kind: nft.Verdicts}}
	index, priority, addr, port := random(2), nft.Field{Kind: nft.Priority}, nft.Field{Kind: nft.DAddr}, nft.Field{Kind: nft.DPort}
	source := nft.Field{Kind: nft.SAddr}
	fe, np, to, chain := nft.FrontEndKey, nft.NodePortKey, nft.EndpointData(), []nft.Field{priority}
	return []nft.Set{
		{Name: setServices, Key: fe(), Data: chain, Comment: "every front end: where to go first"},
		{Name: setExternal, Key: fe(), Data: chain, Comment: "external and load balancer addresses: all endpoints"},
		{Name: setExternalLocal, Key: fe(), Data: chain, Comment: "the same, external traffic policy Local: endpoints of this node"},
		{Name: setNodePorts, Key: np(), Data: chain, Comment: "every node port: where to go first"},
		{Name: setNodePort, Key: np(), Data: chain, Comment: "node ports: all endpoints"},
		{Name: setNodePortLocal, Key: np(), Data: chain, Comment: "node ports, external traffic policy Local: endpoints of this node"},
		{Name: setChains, Key: chain, Data: verdict, Comment: "number of a chain: the chain to go to first"},
		{Name: setBalancers, Key: chain, Data: verdict, Comment: "the same: the chain that picks an endpoint"},
		{Name: setEndpoints, Key: fe(index), Data: to, Comment: "front end and index: endpoint"},
		{Name: setLocalEndpoints, Key: fe(index), Data: to, Comment: "front end and index: endpoint of this node"},
		{Name: setNodePortEnds, Key: np(index), Data: to, Comment: "node port and index: endpoint"},
		{Name: setNodePortLocals, Key: np(index), Data: to, Comment: "node port and index: endpoint of this node"},
		{Name: setNoEndpoints, Key: fe(), Data: chain, Comment: "front ends without a usable endpoint"},
		{Name: setNoNodePortEnds, Key: np(), Data: chain, Comment: "node ports without a usable endpoint"},
		{Name: setRefusals, Key: chain, Data: verdict, Comment: "number of a refusal: how to refuse"},
		{Name: setFirewall, Key: fe(), Comment: "load balancer front ends with source ranges"},
		{Name: setSourceRanges, Key: fe(source), Interval: true, Comment: "sources that such a front end takes"},
		{Name: setClusterIPs, Key: []nft.Field{addr}, Comment: "cluster IPs: ports that are not served are refused"},
		{Name: setNodePortIPs, Key: []nft.Field{addr}, Comment: "addresses of this node that serve node ports"},
		{Name: setHairpin, Key: []nft.Field{source, addr}, Comment: "pods of this node that may meet themselves: masquerade"},
		{
			Name: setAffinity, Key: clientKey(f), Data: []nft.Field{priority}, Dynamic: true, Size: affinitySize,
			Timeout: 3 * time.Hour, Comment: "session affinity: client and cluster front end: endpoint number; filled by packets",
		},
		{Name: setAffinityServices, Key: fe(), Data: verdict, Comment: "session affinity: cluster front end: all endpoints"},
		{Name: setAffinityLocals, Key: fe(), Data: verdict, Comment: "session affinity: cluster front end: endpoints of this node"},
		{Name: setAffinitySlots, Key: fe(index), Data: []nft.Field{priority}, Comment: "session affinity: front end and index: endpoint number"},
		{Name: setAffinityLSlots, Key: fe(index), Data: []nft.Field{priority}, Comment: "session affinity: the same, endpoints of this node"},
		{Name: setAffinityEnds, Key: fe(priority), Data: to, Comment: "session affinity: front end and endpoint number: endpoint"},
		{Name: setAffinityLEnds, Key: fe(priority), Data: to, Comment: "session affinity: the same, endpoints of this node"},
		{Name: setAffinityFronts, Key: fe(), Data: []nft.Field{addr}, Comment: "session affinity: external front end: cluster IP"},
		{Name: setAffinityNodeIPs, Key: np(), Data: []nft.Field{addr}, Comment: "session affinity: node port: cluster IP"},
		{Name: setAffinityNodePort, Key: fe(), Data: []nft.Field{port}, Comment: "session affinity: cluster IP and node port: port"},
		{Name: setServers, Key: fe(), Comment: "front ends that are virtual servers of IPVS"},
		{Name: setInnerServers, Key: fe(), Comment: "virtual servers that other front ends lead to, and no client"},
		{Name: setDraining, Key: []nft.Field{addr}, Comment: "addresses of virtual servers that are gone but for old connections"},
	}
}

// nodePortIPs returns the elements of nodeport-ips.
func nodePortIPs(f nft.Family, node *model.Node, prefixes []netip.Prefix) []nft.Element {
	var elements []nft.Element
	for _, a := range nodePortAddrs(f, node, prefixes) {
		elements = append(elements, nft.Element{Key: nft.Value{}.Addr(a)})
	}
	return elements
}

// nodePortAddrs returns the node's addresses in the prefixes, without loopback, sorted.
func nodePortAddrs(f nft.Family, node *model.Node, prefixes []netip.Prefix) []netip.Addr {
	addrs := slices.Concat(node.Addresses, node.PrimaryIPs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.DeleteFunc(slices.Compact(addrs), func(a netip.Addr) bool {
		in := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
		return familyOf(a) != f || a.IsLoopback() || !in
	})
}

// baseChains returns the chains that are hooked in. Destinations are translated at dstnat and
// sources at srcnat, packets are refused in the filter chains, as neighbours on the node expect
// (kubernetes pkg/proxy/nftables/README.md).
func baseChains(c *Config, f nft.Family, allNodePorts bool) []nft.Chain {
	firewall := []nft.Rule{rule(nft.MatchNew{}, jump(chainFirewall))}
	unserved := rule(nft.MatchNew{}, jump(chainUnserved))
	check := rule(nft.MatchNew{}, jump(chainCheckEndpoints))
	nodePort := append([]nft.Stmt{nft.MatchNew{}}, matchNodePort(c, f, allNodePorts)...)
	nodePort = append(nodePort, lookUp(nft.NodePortKey(), setNoNodePortEnds, setRefusals)...)
	input, output := []nft.Rule{check}, slices.Clone(firewall)
	if c.usesIPVS() {
		input = append(input, serverRules()...)
		// IPVS takes what the node itself sends before the filter chain at priority 0 sees it. What is sent
		// to other addresses is translated in between.
		clusterIP := nft.Lookup{Key: []nft.Field{{Kind: nft.DAddr}}, Set: setClusterIPs}
		output = append(output, rule(nft.MatchNew{}, clusterIP, jump(chainCheckEndpoints)), drainingRule())
	}
	filter := func(name, comment string, hook nft.Hook, priority int32, rules ...nft.Rule) nft.Chain {
		return nft.Chain{Name: name, Comment: comment, Base: &nft.Base{Type: nft.TypeFilter, Hook: hook, Priority: priority}, Rules: rules}
	}
	nat := func(name, comment string, hook nft.Hook, priority int32, rules ...nft.Rule) nft.Chain {
		return nft.Chain{Name: name, Comment: comment, Base: &nft.Base{Type: nft.TypeNAT, Hook: hook, Priority: priority}, Rules: rules}
	}
	return []nft.Chain{
		filter("firewall-prerouting", "source ranges, before translation", nft.Prerouting, -110, firewall...),
		filter("firewall-output", "source ranges, before translation", nft.Output, -110, output...),
		filter("filter-input", "refuse what nobody serves", nft.Input, 0, append(input, rule(nodePort...))...),
		filter("filter-forward", "refuse what nobody serves", nft.Forward, 0, check, unserved),
		filter("filter-output", "refuse what nobody serves", nft.Output, 0, check, unserved),
		nat("nat-prerouting", "from pods and from outside", nft.Prerouting, -100, rule(jump(chainServices))),
		nat("nat-output", "from this node", nft.Output, -100, rule(jump(chainServices))),
		nat("nat-postrouting", "masquerade", nft.Postrouting, 100, masqueradeRules(c)...),
	}
}

// masqueradeRules returns the rules of the postrouting chain. The mark is cleared, since
// encapsulation keeps it and the outer packet would be masqueraded again (kubernetes #92035).
func masqueradeRules(c *Config) []nft.Rule {
	return []nft.Rule{
		{
			Stmts:   []nft.Stmt{nft.MatchPriority{Mask: priorityMask, Value: priorityBits}, nft.ClearPriority{}},
			Comment: "the number of a chain or an endpoint was kept here",
		},
		rule(nft.MatchMark{Bits: c.mark()}, nft.FlipMark{Bits: c.mark()}, nft.Masquerade{}),
		rule(nft.Lookup{Key: []nft.Field{{Kind: nft.SAddr}, {Kind: nft.DAddr}}, Set: setHairpin}, nft.Masquerade{}),
	}
}

// serviceChains returns the chains that find the front end of a packet and decide about
// masquerading and the traffic policy.
func serviceChains(c *Config, node *model.Node, f nft.Family, allNodePorts bool) []nft.Chain {
	mark := nft.SetMark{Bits: c.mark()}
	clusterIP := nft.Lookup{Key: []nft.Field{{Kind: nft.DAddr}}, Set: setClusterIPs}
	fe, np := nft.FrontEndKey(), nft.NodePortKey()
	fromNode := nft.MatchLocal{Field: nft.Field{Kind: nft.SAddr}}

	services := nft.Chain{Name: chainServices, Comment: "find the front end of a new connection"}
	switch pod := detectLocal(c, node, f, true); {
	case c.MasqueradeAll:
		services.Rules = append(services.Rules, rule(clusterIP, mark))
	case pod != nil:
		services.Rules = append(services.Rules, rule(pod, clusterIP, mark))
	}
	services.Rules = append(services.Rules, rule(lookUp(fe, setServices, setChains)...))
	services.Rules = append(services.Rules, rule(append(matchNodePort(c, f, allNodePorts), lookUp(np, setNodePorts, setChains)...)...))

	external := nft.Chain{Name: chainExternal, Comment: "external address, all endpoints: masquerade", Rules: []nft.Rule{
		rule(mark), rule(lookUp(fe, setExternal, setBalancers)...),
	}}
	nodePort := nft.Chain{Name: chainNodePort, Comment: "node port, all endpoints: masquerade", Rules: []nft.Rule{
		rule(mark), rule(lookUp(np, setNodePort, setBalancers)...),
	}}
	externalLocal := nft.Chain{Name: chainExternalLocal, Comment: "external address, external traffic policy Local"}
	nodePortLocal := nft.Chain{Name: chainNodePortLocal, Comment: "node port, external traffic policy Local"}
	if pod := detectLocal(c, node, f, false); pod != nil {
		const why = "pods of this node reach all endpoints"
		externalLocal.Rules = append(externalLocal.Rules, nft.Rule{Stmts: append([]nft.Stmt{pod}, lookUp(fe, setExternal, setBalancers)...), Comment: why})
		nodePortLocal.Rules = append(nodePortLocal.Rules, nft.Rule{Stmts: append([]nft.Stmt{pod}, lookUp(np, setNodePort, setBalancers)...), Comment: why})
	}
	const why = "so does the node itself"
	externalLocal.Rules = append(
		externalLocal.Rules,
		nft.Rule{Stmts: []nft.Stmt{fromNode, nft.Do{Verdict: nft.GoTo(chainExternal)}}, Comment: why},
		rule(lookUp(fe, setExternalLocal, setBalancers)...),
	)
	nodePortLocal.Rules = append(
		nodePortLocal.Rules,
		nft.Rule{Stmts: []nft.Stmt{fromNode, nft.Do{Verdict: nft.GoTo(chainNodePort)}}, Comment: why},
		rule(lookUp(np, setNodePortLocal, setBalancers)...),
	)
	return []nft.Chain{services, external, externalLocal, nodePort, nodePortLocal}
}

// affinityChains returns the chains that lead from any address of a Service with session affinity to
// its memory, which is kept under the cluster IP. They write the cluster IP and port into the header
// of the packet; conntrack noted the addresses before, and what it noted is what replies get.
func affinityChains() []nft.Chain {
	fe, np := nft.FrontEndKey(), nft.NodePortKey()
	addr := nft.Field{Kind: nft.DAddr}
	external := []nft.Rule{rule(nft.SetField{Field: addr, Key: fe, Map: setAffinityFronts})}
	nodePort := []nft.Rule{rule(nft.SetField{Field: addr, Key: np, Map: setAffinityNodeIPs})}
	for _, kind := range []nft.FieldKind{nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort} {
		port := nft.Field{Kind: kind}
		nodePort = append(nodePort, rule(nft.SetField{Field: port, Key: []nft.Field{addr, {Kind: nft.L4Proto}, port}, Map: setAffinityNodePort}))
	}
	all := rule(nft.VerdictMap{Key: fe, Map: setAffinityServices})
	local := rule(nft.VerdictMap{Key: fe, Map: setAffinityLocals})
	drop := nft.Rule{Stmts: []nft.Stmt{nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}}}, Comment: "the Service went while we looked"}
	return []nft.Chain{
		{Name: chainClusterAffinity, Comment: "session affinity: cluster IP", Rules: []nft.Rule{all, drop}},
		{Name: chainClusterLAffinity, Comment: "session affinity: cluster IP, endpoints of this node", Rules: []nft.Rule{local, drop}},
		{Name: chainExternalAffinity, Comment: "session affinity: external address", Rules: slices.Concat(external, []nft.Rule{all, drop})},
		{Name: chainExternalLAffinity, Comment: "session affinity: external address, endpoints of this node", Rules: slices.Concat(external, []nft.Rule{local, drop})},
		{Name: chainNodePortAffinity, Comment: "session affinity: node port", Rules: slices.Concat(nodePort, []nft.Rule{all, drop})},
		{Name: chainNodePortLAffinity, Comment: "session affinity: node port, endpoints of this node", Rules: slices.Concat(nodePort, []nft.Rule{local, drop})},
	}
}

// refuseChains returns the chains that refuse packets.
func refuseChains(cidrs []netip.Prefix, f nft.Family) []nft.Chain {
	fe := nft.FrontEndKey()
	drop := nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}}
	clusterIP := nft.Lookup{Key: []nft.Field{{Kind: nft.DAddr}}, Set: setClusterIPs}
	unserved := []nft.Rule{{Stmts: []nft.Stmt{clusterIP, nft.Reject{}}, Comment: "a port that the Service does not serve"}}
	for _, p := range cidrs {
		if familyOf(p.Addr()) == f {
			unserved = append(unserved, nft.Rule{
				Stmts:   []nft.Stmt{nft.MatchPrefix{Field: nft.Field{Kind: nft.DAddr}, Prefix: p.Masked()}, drop},
				Comment: "an address that no Service has",
			})
		}
	}
	outside := nft.Lookup{Key: append(nft.FrontEndKey(), nft.Field{Kind: nft.SAddr}), Set: setSourceRanges, Not: true}
	return []nft.Chain{
		{Name: chainRefuse, Comment: "nobody serves it", Rules: []nft.Rule{rule(nft.Reject{})}},
		{Name: chainCheckEndpoints, Comment: "front ends without a usable endpoint", Rules: []nft.Rule{rule(lookUp(fe, setNoEndpoints, setRefusals)...)}},
		{Name: chainUnserved, Comment: "what is sent to cluster IPs and was not translated", Rules: unserved},
		{Name: chainFirewall, Comment: "loadBalancerSourceRanges", Rules: []nft.Rule{rule(nft.Lookup{Key: fe, Set: setFirewall}, outside, drop)}},
	}
}

// detectLocal returns the match for traffic of this node's pods or, with not, for all other; nil if
// there is no way to tell.
func detectLocal(c *Config, node *model.Node, f nft.Family, not bool) nft.Stmt {
	cidrs := c.DetectLocal.CIDRs
	switch c.DetectLocal.Mode {
	case BridgeInterface:
		return nft.MatchInput{Name: c.DetectLocal.Interface, Not: not}
	case InterfaceNamePrefix:
		return nft.MatchInput{Name: c.DetectLocal.Interface, Prefix: true, Not: not}
	case NodeCIDR:
		cidrs = node.PodCIDRs
	case ClusterCIDR, "":
	}
	for _, p := range cidrs {
		if familyOf(p.Addr()) == f {
			return nft.MatchPrefix{Field: nft.Field{Kind: nft.SAddr}, Prefix: p.Masked(), Not: not}
		}
	}
	return nil
}

// matchNodePort returns the match for the addresses that serve node ports.
func matchNodePort(c *Config, f nft.Family, all bool) []nft.Stmt {
	addr := nft.Field{Kind: nft.DAddr}
	if !all {
		return []nft.Stmt{nft.Lookup{Key: []nft.Field{addr}, Set: setNodePortIPs}}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if f == nft.IPv6 {
		loopback = netip.MustParsePrefix("::1/128")
	}
	local := []nft.Stmt{nft.MatchPrefix{Field: addr, Prefix: loopback, Not: true}, nft.MatchLocal{Field: addr}}
	if c.usesIPVS() {
		// The addresses of virtual servers are the node's, too.
		local = append(local, nft.Lookup{Key: []nft.Field{addr}, Set: setClusterIPs, Not: true})
	}
	return local
}

// rule returns a rule without a comment.
func rule(stmts ...nft.Stmt) nft.Rule { return nft.Rule{Stmts: stmts} }

// jump returns the statement "jump chain".
func jump(chain string) nft.Stmt { return nft.Do{Verdict: nft.JumpTo(chain)} }
