package plan

import (
	"cmp"
	"fmt"
	"time"

	"github.com/nftproxy/nftproxy/nft"
)

// A balancer is a chain that sends a new connection to one of a number of endpoints. All Services
// with that number share it.
type balancer struct {
	kind    balancerKind
	pick    pick // not of the affinity kinds
	count   int
	timeout time.Duration // of the affinity kinds
}

// A pick is a way to choose an endpoint.
type pick uint8

// The ways. All but the first are for Services that ask for a scheduler of IPVS that the kernel does not
// have; one turn is shared by all Services with as many endpoints.
const (
	pickRandom pick = iota
	pickTurn        // rr
	pickSource      // sh
)

// field returns the key field that picks one of n.
func (p pick) field(n int) nft.Field {
	kind := map[pick]nft.FieldKind{pickRandom: nft.Random, pickTurn: nft.Turn, pickSource: nft.SourceHash}[p]
	return nft.Field{Kind: kind, N: uint32(n)}
}

// word returns what stands in the names of chains, and how in their comments.
func (p pick) word() (name, comment string) {
	switch p {
	case pickTurn:
		return "rr-", "in turn"
	case pickSource:
		return "sh-", "by the client's address"
	case pickRandom:
	}
	return "", "at random"
}

// balancerKind says in which maps a balancer looks.
type balancerKind uint8

// The kinds. "Local" are those that use only endpoints of this node, for the external traffic policy
// Local.
const (
	balanceFrontEnd balancerKind = iota
	balanceLocal
	balanceNodePort
	balanceNodePortLocal
	balanceAffinity
	balanceAffinityLocal
)

// prepared reports whether the chain is one that is always there.
func (b balancer) prepared() bool { return b.pick == pickRandom && b.count <= prepared(b.kind) }

// prepared is, for each kind, the largest number of endpoints whose chain is always there. A chain
// that is made while the maps are empty costs nothing; one that is made at 10,000 Services and more
// costs the kernel 12-25 ms, since it walks the map that the chain refers to.
func prepared(k balancerKind) int {
	switch k {
	case balanceFrontEnd:
		return 64
	case balanceNodePort:
		return 24
	case balanceLocal, balanceNodePortLocal:
		return 8
	case balanceAffinity, balanceAffinityLocal:
	}
	return 0
}

// preparedBalancers lists the chains that are always there.
func preparedBalancers() []balancer {
	var all []balancer
	for k := balanceFrontEnd; k <= balanceAffinityLocal; k++ {
		for n := 1; n <= prepared(k); n++ {
			all = append(all, balancer{kind: k, count: n})
		}
	}
	return all
}

// name returns the chain's name.
func (b balancer) name() string {
	pick, _ := b.pick.word()
	switch b.kind {
	case balanceFrontEnd:
		return fmt.Sprintf("lb-%s%d", pick, b.count)
	case balanceLocal:
		return fmt.Sprintf("local-lb-%s%d", pick, b.count)
	case balanceNodePort:
		return fmt.Sprintf("nodeport-%s%d", pick, b.count)
	case balanceNodePortLocal:
		return fmt.Sprintf("nodeport-local-%s%d", pick, b.count)
	case balanceAffinity:
		return fmt.Sprintf("affinity-%d-%ds", b.count, int(b.timeout.Seconds()))
	case balanceAffinityLocal:
		return fmt.Sprintf("affinity-local-%d-%ds", b.count, int(b.timeout.Seconds()))
	}
	panic("plan: balancer without a kind")
}

// goTo returns the verdict that sends a packet to the chain.
func (b balancer) goTo() nft.Verdict { return nft.GoTo(b.name()) }

// chain returns the chain for a family.
func (b balancer) chain(f nft.Family) nft.Chain {
	c := nft.Chain{Name: b.name(), Comment: b.comment()}
	switch b.kind {
	case balanceFrontEnd:
		c.Rules = pickRules(nft.FrontEndKey, setEndpoints, b)
	case balanceLocal:
		c.Rules = pickRules(nft.FrontEndKey, setLocalEndpoints, b)
	case balanceNodePort:
		c.Rules = pickRules(nft.NodePortKey, setNodePortEnds, b)
	case balanceNodePortLocal:
		c.Rules = pickRules(nft.NodePortKey, setNodePortLocals, b)
	case balanceAffinity:
		c.Rules = b.affinityRules(f, setAffinitySlots, setAffinityEnds)
	case balanceAffinityLocal:
		c.Rules = b.affinityRules(f, setAffinityLSlots, setAffinityLEnds)
	}
	return c
}

// comment returns what tells people what the chain does.
func (b balancer) comment() string {
	endpoints := fmt.Sprintf("%d endpoints", b.count)
	if b.count == 1 {
		endpoints = "1 endpoint"
	}
	_, how := b.pick.word()
	switch b.kind {
	case balanceFrontEnd:
		return "to a front end's " + endpoints + ", " + how
	case balanceLocal:
		return "to a front end's " + endpoints + " of this node, " + how
	case balanceNodePort:
		return "to a node port's " + endpoints + ", " + how
	case balanceNodePortLocal:
		return "to a node port's " + endpoints + " of this node, " + how
	case balanceAffinity:
		return "session affinity: to the client's last of " + endpoints + ", or one at random"
	case balanceAffinityLocal:
		return "session affinity: to the client's last of " + endpoints + " of this node, or one at random"
	}
	panic("plan: balancer without a kind")
}

// pickRules returns the rules that pick one of a balancer's endpoints.
//
// The second rule is for the packet that meets this chain with the elements of a later transaction:
// the number of endpoints went down and the random index is one too high. There is always an
// endpoint at index 0.
func pickRules(key func(...nft.Field) []nft.Field, endpoints string, b balancer) []nft.Rule {
	rules := []nft.Rule{{Stmts: []nft.Stmt{nft.DNAT{Key: key(b.pick.field(b.count)), Map: endpoints}}}}
	if b.count > 1 {
		rules = append(rules, nft.Rule{
			Stmts:   []nft.Stmt{nft.DNAT{Key: key(random(1)), Map: endpoints}},
			Comment: "the endpoint went while we looked",
		})
	}
	return rules
}

// affinityRules returns the rules that send a client where it went before.
//
// The packet's destination is the cluster IP and port by now, whatever the client used, so that all
// addresses of a Service port share one memory. The endpoint's number goes from rule to rule in the
// packet's priority, which postrouting clears.
func (b balancer) affinityRules(f nft.Family, slots, endpoints string) []nft.Rule {
	client := clientKey(f)
	priority := nft.Field{Kind: nft.Priority}
	remember := nft.Update{Map: setAffinity, Key: client, Data: priority, Timeout: b.timeout}
	dnat := nft.DNAT{Key: nft.FrontEndKey(priority), Map: endpoints}
	rules := []nft.Rule{
		{Stmts: []nft.Stmt{nft.SetField{Field: priority, Key: client, Map: setAffinity}}, Comment: "where the client went before"},
		{Stmts: []nft.Stmt{nft.AffinityDNAT{Update: remember, DNAT: dnat}}, Comment: "if that endpoint is still there"},
	}
	if b.count > 1 {
		rules = append(rules, nft.Rule{
			Stmts:   []nft.Stmt{nft.SetField{Field: priority, Key: nft.FrontEndKey(random(1)), Map: slots}},
			Comment: "in case the next one went while we looked",
		})
	}
	return append(
		rules,
		nft.Rule{Stmts: []nft.Stmt{nft.SetField{Field: priority, Key: nft.FrontEndKey(random(b.count)), Map: slots}}},
		nft.Rule{
			Stmts:   []nft.Stmt{nft.DeleteElement{Map: setAffinity, Key: client, Data: priority}, remember},
			Comment: "an update alone keeps the old value",
		},
		nft.Rule{Stmts: []nft.Stmt{dnat}, Comment: "a rule of its own: a full memory only loses affinity"},
		nft.Rule{Stmts: []nft.Stmt{nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}}}, Comment: "all endpoints went while we looked"},
	)
}

// clientKey returns the key under which a client's endpoint is remembered.
//
// nft 1.0.6 cannot load dynamic maps with keys of more than 16 bytes, so for IPv6 the key is two
// hashes of the same fields. Two clients whose 64 bits agree would share a memory, no more.
func clientKey(f nft.Family) []nft.Field {
	if f == nft.IPv6 {
		return []nft.Field{{Kind: nft.Hash, N: 1}, {Kind: nft.Hash, N: 2}}
	}
	return append([]nft.Field{{Kind: nft.SAddr}}, nft.FrontEndKey()...)
}

// random returns the key field that picks one of n.
func random(n int) nft.Field { return nft.Field{Kind: nft.Random, N: uint32(n)} }

// compare orders balancers by kind, number of endpoints and timeout.
func (b balancer) compare(o balancer) int {
	return cmp.Or(cmp.Compare(b.kind, o.kind), cmp.Compare(b.pick, o.pick), cmp.Compare(b.count, o.count), cmp.Compare(b.timeout, o.timeout))
}
