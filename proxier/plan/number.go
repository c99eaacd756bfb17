package plan

import (
	"github.com/nftproxy/nftproxy/nft"
)

// A number stands for a chain in the maps that have an element for each front end. It goes from the
// lookup there to the lookup of the chain in the packet's priority, in one rule:
//
//	meta priority set ip daddr . meta l4proto . th dport map @services meta priority vmap @chains
//
// Verdicts in the large maps would be simpler, but whenever the kernel is given one that leads to a
// chain it walks the verdict maps of the whole table, for loops: milliseconds, and more with each
// Service. A number is made of what the chain is for and not allocated, so that it is the same after
// a restart.
type number uint32

// The bits that tell our numbers in the packet's priority from what somebody else set: those of chains
// begin with 0xae, those of endpoints with session affinity with 0xaf, both with priorityBits.
const (
	numberBits   = 0xae000000
	affinityBits = 0xaf000000
	affinityMask = 0xff000000
	priorityBits = numberBits & affinityBits
	priorityMask = 0xfe000000
)

// kindShift is where a number has its kind of balancer, from 1 on; below it is the number of endpoints.
const kindShift = 20

// The numbers of chains that do not depend on a number of endpoints.
const (
	toExternal number = numberBits + 1 + iota
	toExternalLocal
	toNodePort
	toNodePortLocal
	toClusterAffinity
	toClusterLAffinity
	toExternalAffinity
	toExternalLAffinity
	toNodePortAffinity
	toNodePortLAffinity
	toRefuse
	toDrop
	toIPVS
)

// value returns the number as the data or the key of a map.
func (n number) value() nft.Value { return nft.Value{}.Uint32(uint32(n)) }

// number returns the number of a balancer. Those with session affinity have none.
func (b balancer) number() number {
	kind := 1 + number(b.kind) + number(b.pick)*number(balanceAffinity)
	return numberBits | kind<<kindShift | number(b.count)
}

// links returns the elements that lead from the balancer's number to its chain.
func (b balancer) links() []entry {
	to := func(set string) entry {
		return entry{set, nft.Element{Key: b.number().value(), Verdict: b.goTo()}}
	}
	switch b.kind {
	case balanceFrontEnd:
		return []entry{to(setChains), to(setBalancers)}
	case balanceLocal, balanceNodePort, balanceNodePortLocal:
		return []entry{to(setBalancers)}
	case balanceAffinity, balanceAffinityLocal:
	}
	return nil
}

// frameLinks returns the elements that lead from numbers to chains and are always there. The chains
// that the first lookup leads to look into the second map themselves: with one map for both the kernel
// would see a loop.
func frameLinks() map[string][]nft.Element {
	links := map[string][]nft.Element{}
	add := func(set string, n number, v nft.Verdict) {
		links[set] = append(links[set], nft.Element{Key: n.value(), Verdict: v})
	}
	add(setChains, toExternal, nft.GoTo(chainExternal))
	add(setChains, toExternalLocal, nft.GoTo(chainExternalLocal))
	add(setChains, toNodePort, nft.GoTo(chainNodePort))
	add(setChains, toNodePortLocal, nft.GoTo(chainNodePortLocal))
	add(setChains, toClusterAffinity, nft.GoTo(chainClusterAffinity))
	add(setChains, toClusterLAffinity, nft.GoTo(chainClusterLAffinity))
	add(setChains, toIPVS, nft.GoTo(chainIPVS))
	add(setBalancers, toExternalAffinity, nft.GoTo(chainExternalAffinity))
	add(setBalancers, toExternalLAffinity, nft.GoTo(chainExternalLAffinity))
	add(setBalancers, toNodePortAffinity, nft.GoTo(chainNodePortAffinity))
	add(setBalancers, toNodePortLAffinity, nft.GoTo(chainNodePortLAffinity))
	add(setRefusals, toRefuse, nft.GoTo(chainRefuse))
	add(setRefusals, toDrop, nft.Verdict{Kind: nft.Drop})
	for _, b := range preparedBalancers() {
		for _, l := range b.links() {
			links[l.set] = append(links[l.set], l.element)
		}
	}
	return links
}

// lookUp returns the statements that look up a number and go to its chain. A key that has none ends
// the rule before the second lookup, so a priority that somebody else set leads nowhere.
func lookUp(key []nft.Field, numbers, chains string) []nft.Stmt {
	priority := nft.Field{Kind: nft.Priority}
	return []nft.Stmt{
		nft.SetField{Field: priority, Key: key, Map: numbers},
		nft.VerdictMap{Key: []nft.Field{priority}, Map: chains},
	}
}
