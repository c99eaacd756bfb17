package nfttest

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/nft"
)

// table returns the table of one family.
func table(f nft.Family) nft.Table {
	return nft.Table{
		Family:  f,
		Name:    Name,
		Comment: "everything that we can say",
		Sets:    sets(f),
		Chains:  append(chains(f), baseChains(f)...),
		Elements: map[string][]nft.Element{
			"services": {
				{Key: FrontEnd(f, 1, 80), Verdict: nft.GoTo("lb-2"), Comment: "default/web:http"},
				{Key: FrontEnd(f, 2, 80), Verdict: nft.GoTo("affinity-2"), Comment: "default/sticky:http"},
				{Key: nft.Value{}.Addr(Addr(f, 1)).Proto(17).Port(53), Verdict: nft.JumpTo("lb-2")},
				{Key: nft.Value{}.Addr(Addr(f, 1)).Proto(132).Port(3868), Verdict: nft.Verdict{Kind: nft.Drop}},
				{Key: nft.Value{}.Addr(Addr(f, 1)).Proto(200).Port(0), Verdict: nft.Verdict{Kind: nft.Accept}},
			},
			"nodeports": {{Key: nft.Value{}.Proto(6).Port(30080), Verdict: nft.GoTo("lb-2"), Comment: "default/web:http"}},
			"endpoints": {
				{Key: FrontEnd(f, 1, 80).Uint32(0), Data: Endpoint(f, 101, 8080), Comment: "pod-a"},
				{Key: FrontEnd(f, 1, 80).Uint32(1), Data: Endpoint(f, 102, 8080)},
				{Key: FrontEnd(f, 1, 80).Uint32(256), Data: Endpoint(f, 102, 8080)},
			},
			"affinity-slots": {
				{Key: FrontEnd(f, 2, 80).Uint32(0), Data: nft.Value{}.Uint32(0xaf000001)},
				{Key: FrontEnd(f, 2, 80).Uint32(1), Data: nft.Value{}.Uint32(0xaf00ffff)},
			},
			"affinity-endpoints": {
				{Key: FrontEnd(f, 2, 80).Uint32(0xaf000001), Data: Endpoint(f, 101, 8080)},
				{Key: FrontEnd(f, 2, 80).Uint32(0xaf00ffff), Data: Endpoint(f, 102, 8080)},
			},
			"affinity-front-ends": {{Key: FrontEnd(f, 3, 80), Data: nft.Value{}.Addr(Addr(f, 2))}},
			"affinity-ports":      {{Key: FrontEnd(f, 2, 30080), Data: nft.Value{}.Port(80)}},
			"source-ranges":       ranges(f),
			"firewall":            {{Key: FrontEnd(f, 4, 80), Comment: "default/fenced:http"}},
			"cluster-ips":         {{Key: nft.Value{}.Addr(Addr(f, 1)), Comment: "default/web"}, {Key: nft.Value{}.Addr(Addr(f, 2))}, {Key: nft.Value{}.Addr(Addr(f, 3))}},
			"hairpin":             {{Key: nft.Value{}.Addr(Addr(f, 101)).Addr(Addr(f, 101))}},
		},
	}
}

// ranges returns prefixes, an address and a range that is no prefix.
func ranges(f nft.Family) []nft.Element {
	element := func(n byte, from, to netip.Addr) nft.Element {
		return nft.Element{Key: FrontEnd(f, n, 80).Addr(from), End: FrontEnd(f, n, 80).Addr(to)}
	}
	all, last := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	half, end := netip.MustParseAddr("203.0.113.0"), netip.MustParseAddr("203.0.113.127")
	if f == nft.IPv6 {
		all, last = netip.IPv6Unspecified(), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
		half, end = netip.MustParseAddr("2001:db8::"), netip.MustParseAddr("2001:db8:7fff:ffff:ffff:ffff:ffff:ffff")
	}
	r := []nft.Element{
		element(4, half, end),
		element(4, Addr(f, 9), Addr(f, 9)),
		element(5, all, last),
		element(6, Addr(f, 9), Addr(f, 10)),
	}
	r[0].Comment = "an office"
	return r
}

// sets returns sets and maps of every form.
func sets(f nft.Family) []nft.Set {
	verdict := []nft.Field{{Kind: nft.Verdicts}}
	priority := []nft.Field{{Kind: nft.Priority}}
	random := nft.Field{Kind: nft.Random, N: 2}
	return []nft.Set{
		{Name: "services", Comment: "front ends", Key: nft.FrontEndKey(), Data: verdict},
		{Name: "nodeports", Comment: "node ports", Key: nft.NodePortKey(), Data: verdict},
		{Name: "endpoints", Comment: "where connections go", Key: nft.FrontEndKey(random), Data: nft.EndpointData()},
		{
			Name: "affinity", Comment: "who goes where", Key: AffinityKey(f), Data: priority,
			Dynamic: true, Size: 262144, Timeout: affinityTimeout,
		},
		{Name: "affinity-slots", Key: nft.FrontEndKey(random), Data: priority},
		{Name: "affinity-endpoints", Key: nft.FrontEndKey(priority...), Data: nft.EndpointData()},
		{Name: "affinity-front-ends", Key: nft.FrontEndKey(), Data: []nft.Field{{Kind: nft.DAddr}}},
		{Name: "affinity-ports", Key: nft.FrontEndKey(), Data: []nft.Field{{Kind: nft.DPort}}},
		{Name: "source-ranges", Comment: "who may come", Key: nft.FrontEndKey(nft.Field{Kind: nft.SAddr}), Interval: true},
		{Name: "firewall", Comment: "what has source ranges", Key: nft.FrontEndKey(), Size: 1000},
		{Name: "cluster-ips", Comment: "one field", Key: []nft.Field{{Kind: nft.DAddr}}},
		{Name: "hairpin", Key: []nft.Field{{Kind: nft.SAddr}, {Kind: nft.DAddr}}},
	}
}

// rule returns a rule without a comment.
func rule(stmts ...nft.Stmt) nft.Rule { return nft.Rule{Stmts: stmts} }

// chains returns the chains that are jumped to, those that are referred to first.
func chains(f nft.Family) []nft.Chain {
	random := func(n uint32) []nft.Field { return nft.FrontEndKey(nft.Field{Kind: nft.Random, N: n}) }
	priority := nft.Field{Kind: nft.Priority}
	key := AffinityKey(f)
	update := nft.Update{Map: "affinity", Key: key, Data: priority, Timeout: affinityTimeout}
	dnat := nft.DNAT{Key: nft.FrontEndKey(priority), Map: "affinity-endpoints"}
	port := func(kind nft.FieldKind) nft.Rule {
		// nft lists the port in the key by the protocol of the port that is written.
		key := []nft.Field{{Kind: nft.DAddr}, {Kind: nft.L4Proto}, {Kind: kind}}
		return rule(nft.SetField{Field: nft.Field{Kind: kind}, Key: key, Map: "affinity-ports"})
	}
	return []nft.Chain{
		{Name: "lb-2", Comment: "two endpoints", Rules: []nft.Rule{
			rule(nft.DNAT{Key: random(2), Map: "endpoints"}),
			{Stmts: []nft.Stmt{nft.DNAT{Key: random(1), Map: "endpoints"}}, Comment: "the endpoint went while we looked"},
		}},
		{Name: "affinity-2", Rules: []nft.Rule{
			rule(nft.SetField{Field: priority, Key: key, Map: "affinity"}),
			rule(nft.AffinityDNAT{Update: update, DNAT: dnat}),
			rule(nft.SetField{Field: priority, Key: random(2), Map: "affinity-slots"}),
			rule(nft.DeleteElement{Map: "affinity", Key: key, Data: priority}, update),
			rule(dnat),
		}},
		{Name: "header", Comment: "writes into the packet", Rules: []nft.Rule{
			rule(nft.SetField{Field: nft.Field{Kind: nft.DAddr}, Key: nft.FrontEndKey(), Map: "affinity-front-ends"}),
			port(nft.TCPDPort), port(nft.UDPDPort), port(nft.SCTPDPort),
			rule(nft.VerdictMap{Key: nft.FrontEndKey(), Map: "services"}),
		}},
		{Name: "refuse", Rules: []nft.Rule{rule(nft.Reject{})}},
		{Name: "empty"},
		{Name: "lb-rr-2", Comment: "in turn", Rules: []nft.Rule{
			rule(nft.DNAT{Key: nft.FrontEndKey(nft.Field{Kind: nft.Turn, N: 2}), Map: "endpoints"}),
		}},
		{Name: "lb-sh-2", Comment: "by client", Rules: []nft.Rule{
			rule(nft.DNAT{Key: nft.FrontEndKey(nft.Field{Kind: nft.SourceHash, N: 2}), Map: "endpoints"}),
		}},
	}
}

// baseChains returns a chain at each hook, of both types.
func baseChains(f nft.Family) []nft.Chain {
	saddr, daddr := nft.Field{Kind: nft.SAddr}, nft.Field{Kind: nft.DAddr}
	pods := netip.PrefixFrom(Addr(f, 0), 16).Masked()
	one := netip.PrefixFrom(Addr(f, 1), Addr(f, 1).BitLen())
	verdict := func(kind nft.VerdictKind) nft.Do { return nft.Do{Verdict: nft.Verdict{Kind: kind}} }
	dispatch := nft.VerdictMap{Key: nft.FrontEndKey(), Map: "services"}
	return []nft.Chain{
		{Name: "firewall", Base: &nft.Base{Type: nft.TypeFilter, Hook: nft.Prerouting, Priority: -110}, Rules: []nft.Rule{
			rule(nft.MatchNew{}, nft.Lookup{Key: nft.FrontEndKey(), Set: "firewall"},
				nft.Lookup{Key: nft.FrontEndKey(saddr), Set: "source-ranges", Not: true}, verdict(nft.Drop)),
		}},
		{Name: "prerouting", Comment: "from outside", Base: &nft.Base{Type: nft.TypeNAT, Hook: nft.Prerouting, Priority: -100}, Rules: []nft.Rule{
			rule(nft.MatchPrefix{Field: saddr, Prefix: pods, Not: true}, nft.SetMark{Bits: 0x4000}),
			rule(nft.MatchPrefix{Field: daddr, Prefix: one}, nft.SetMark{Bits: 0x4000}),
			rule(nft.MatchInput{Name: "cbr0", Not: true}, nft.SetMark{Bits: 0x4000}),
			rule(nft.MatchInput{Name: "veth", Prefix: true}, nft.SetMark{Bits: 0x4000}),
			rule(dispatch),
			rule(nft.MatchLocal{Field: daddr}, nft.VerdictMap{Key: nft.NodePortKey(), Map: "nodeports"}),
			rule(nft.Do{Verdict: nft.JumpTo("header")}),
		}},
		{Name: "output", Base: &nft.Base{Type: nft.TypeNAT, Hook: nft.Output, Priority: -100}, Rules: []nft.Rule{rule(dispatch)}},
		{Name: "input", Base: &nft.Base{Type: nft.TypeFilter, Hook: nft.Input, Priority: 5}, Rules: []nft.Rule{
			rule(nft.MatchLocal{Field: saddr}, verdict(nft.Accept)),
		}},
		{Name: "forward", Base: &nft.Base{Type: nft.TypeFilter, Hook: nft.Forward}, Rules: []nft.Rule{
			rule(nft.MatchNew{}, nft.Lookup{Key: []nft.Field{daddr}, Set: "cluster-ips"}, nft.Do{Verdict: nft.GoTo("refuse")}),
		}},
		{Name: "postrouting", Comment: "masquerade", Base: &nft.Base{Type: nft.TypeNAT, Hook: nft.Postrouting, Priority: 100}, Rules: []nft.Rule{
			rule(nft.MatchPriority{Mask: 0xff000000, Value: 0xaf000000}, nft.ClearPriority{}),
			rule(nft.MatchDNATed{}, nft.Lookup{Key: []nft.Field{saddr, daddr}, Set: "hairpin"}, nft.Masquerade{}),
			{Stmts: []nft.Stmt{nft.MatchMark{Bits: 0x4000}, nft.FlipMark{Bits: 0x4000}, nft.Masquerade{}}, Comment: "marked"},
		}},
	}
}
