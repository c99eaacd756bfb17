package suite

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// ip4 returns the table that the cases begin with.
func ip4() *nft.Table { return &nfttest.Tables()[0] }

// find returns a set of the table.
func find(name string) *nft.Set {
	sets := ip4().Sets
	return &sets[slices.IndexFunc(sets, func(s nft.Set) bool { return s.Name == name })]
}

// element returns a step about an element of a set.
func element(verb nft.Verb, set string, e nft.Element) nft.Op {
	return op(verb, nft.Op{Set: find(set), Element: &e})
}

// elementCases are about elements.
func elementCases() []testCase {
	front := func(n byte) nft.Value { return nfttest.FrontEnd(nft.IPv4, n, 80) }
	have := nft.Element{Key: front(1).Uint32(0), Data: nfttest.Endpoint(nft.IPv4, 101, 8080), Comment: "pod-a"}
	other := have
	other.Data = nfttest.Endpoint(nft.IPv4, 103, 8080)
	more := nft.Element{Key: front(9).Uint32(0), Data: nfttest.Endpoint(nft.IPv4, 101, 8080)}
	renamed := have
	renamed.Comment = "pod-b"
	service := nft.Element{Key: front(9), Verdict: nft.GoTo("lb-2"), Comment: "default/new:http"}
	lost := nft.Element{Key: front(9), Verdict: nft.GoTo("nowhere")}
	hooked := nft.Element{Key: front(9), Verdict: nft.GoTo("output")}
	moved := nft.Element{Key: front(1), Verdict: nft.GoTo("affinity-2")}
	address := netip.MustParseAddr
	inside := nft.Element{Key: front(4).Addr(address("203.0.113.9")), End: front(4).Addr(address("203.0.113.9"))}
	beside := nft.Element{Key: front(4).Addr(address("203.0.113.128")), End: front(4).Addr(address("203.0.113.255"))}
	office := nft.Element{Key: front(4).Addr(address("203.0.113.0")), End: front(4).Addr(address("203.0.113.127"))}
	return []testCase{
		{"OK add an element", done(element(nft.Add, "endpoints", more)), func(t *nft.Table) {
			t.Elements["endpoints"] = append(t.Elements["endpoints"], more)
		}},
		{"OK add an element twice", done(element(nft.Add, "endpoints", have)), nil},
		{"OK a new comment alone changes nothing", done(element(nft.Add, "endpoints", renamed)), nil},
		{"OK add a verdict", done(element(nft.Add, "services", service)), func(t *nft.Table) {
			t.Elements["services"] = append(t.Elements["services"], service)
		}},
		{"OK replace a value", done(element(nft.Delete, "endpoints", have), element(nft.Add, "endpoints", other)), func(t *nft.Table) {
			t.Elements["endpoints"][0] = other
		}},
		{"OK add an interval", done(element(nft.Add, "source-ranges", beside)), func(t *nft.Table) {
			t.Elements["source-ranges"] = append(t.Elements["source-ranges"], beside)
		}},
		{"OK delete an interval", done(element(nft.Delete, "source-ranges", office)), func(t *nft.Table) {
			t.Elements["source-ranges"] = t.Elements["source-ranges"][1:]
		}},
		{"bad value for a key that is there", refused(unix.EEXIST, 1, element(nft.Add, "endpoints", more), element(nft.Add, "endpoints", other)), nil},
		{"bad verdict for a key that is there", refused(unix.EEXIST, 0, element(nft.Add, "services", moved)), nil},
		{"bad element to delete", refused(unix.ENOENT, 1, element(nft.Delete, "endpoints", have), element(nft.Delete, "endpoints", more)), nil},
		{"bad target that does not exist", refused(unix.ENOENT, 1, element(nft.Add, "endpoints", more), element(nft.Add, "services", lost)), nil},
		{"bad target that is hooked in", refused(unix.EOPNOTSUPP, 0, element(nft.Add, "services", hooked)), nil},
		{"bad interval inside of another", refused(unix.EEXIST, 0, element(nft.Add, "source-ranges", inside)), nil},
		{"OK refused and then done", slices.Concat(
			refused(unix.EEXIST, 0, element(nft.Add, "endpoints", other)),
			done(element(nft.Add, "endpoints", more)),
			refused(unix.EEXIST, 1, element(nft.Delete, "endpoints", more), element(nft.Add, "endpoints", other)),
			done(element(nft.Delete, "endpoints", more)),
		), nil},
		sizeCase(front),
	}
}

// sizeCase fills a set of a fixed size; the place of a deleted element is free at once.
func sizeCase(front func(byte) nft.Value) testCase {
	small := nft.Set{Name: "small", Key: nft.FrontEndKey(), Size: 2}
	add := func(verb nft.Verb, n byte) nft.Op {
		return op(verb, nft.Op{Set: &small, Element: &nft.Element{Key: front(n)}})
	}
	return testCase{"bad element too many", slices.Concat(
		done(op(nft.Add, nft.Op{Set: &small}), add(nft.Add, 1), add(nft.Add, 2)),
		refused(unix.ENFILE, 0, add(nft.Add, 3)),
		refused(unix.ENFILE, 2, add(nft.Delete, 1), add(nft.Add, 3), add(nft.Add, 4)),
		done(add(nft.Delete, 1), add(nft.Add, 3)),
		refused(unix.ENFILE, 0, add(nft.Add, 4)),
	), func(t *nft.Table) {
		t.Sets = append(t.Sets, small)
		t.Elements["small"] = []nft.Element{{Key: front(2)}, {Key: front(3)}}
	}}
}

// objectCases are about tables, sets and chains.
func objectCases() []testCase {
	chain := func(verb nft.Verb, c nft.Chain) nft.Op { return op(verb, nft.Op{Chain: &c}) }
	set := func(verb nft.Verb, s nft.Set) nft.Op { return op(verb, nft.Op{Set: &s}) }
	rule := func(s nft.Stmt) []nft.Rule { return []nft.Rule{{Stmts: []nft.Stmt{s}}} }
	fresh := nft.Chain{Name: "lb-3", Comment: "three", Rules: ip4().Chains[0].Rules}
	refuse := nft.Chain{Name: "refuse", Rules: rule(nft.Do{Verdict: nft.Verdict{Kind: nft.Drop}})}
	output := nft.Chain{Name: "output", Base: &nft.Base{Type: nft.TypeNAT, Hook: nft.Output, Priority: -99}}
	filter := nft.Chain{Name: "output", Base: &nft.Base{Type: nft.TypeFilter, Hook: nft.Output, Priority: -100}}
	hooked := nft.Chain{Name: "refuse", Base: output.Base}
	spare := nft.Set{Name: "spare", Comment: "made on the way", Key: nft.NodePortKey()}
	user := nft.Chain{Name: "user", Rules: rule(nft.Lookup{Key: nft.NodePortKey(), Set: "spare"})}
	routes := nft.Set{Name: "routes", Key: nft.NodePortKey(), Data: []nft.Field{{Kind: nft.Verdicts}}}
	route := nft.Element{Key: nft.Value{}.Proto(6).Port(1), Verdict: nft.GoTo("lb-3")}
	resized := *find("firewall")
	resized.Size = 7
	unlimited := *find("firewall")
	unlimited.Size = 0
	shorter := *find("affinity")
	shorter.Timeout = time.Hour
	other := *find("firewall")
	other.Key = nft.NodePortKey()
	goTo := func(name string) nft.Chain {
		return nft.Chain{Name: "user", Rules: rule(nft.Do{Verdict: nft.GoTo(name)})}
	}
	return []testCase{
		{"OK add a chain", done(chain(nft.Add, fresh)), func(t *nft.Table) { t.Chains = append(t.Chains, fresh) }},
		{"OK replace rules", done(chain(nft.Add, refuse)), func(t *nft.Table) { t.Chains[3].Rules = refuse.Rules }},
		{"OK delete a chain with rules", slices.Concat(done(chain(nft.Add, fresh)), done(chain(nft.Delete, fresh))), nil},
		{"OK delete a set and what uses it", slices.Concat(
			done(set(nft.Add, spare), chain(nft.Add, user)),
			done(chain(nft.Delete, user), set(nft.Delete, spare)),
		), nil},
		{"OK delete a table", done(op(nft.Delete, nft.Op{Table: ip4()}), op(nft.Add, nft.Op{Table: ip4()})), func(t *nft.Table) {
			t.Sets, t.Chains, t.Elements = nil, nil, nil
		}},
		{"OK delete a map and the chain that its elements go to", slices.Concat(
			done(set(nft.Add, routes), chain(nft.Add, fresh), op(nft.Add, nft.Op{Set: &routes, Element: &route})),
			refused(unix.EBUSY, 0, chain(nft.Delete, fresh)),
			done(set(nft.Delete, routes), chain(nft.Delete, fresh)),
		), nil},
		{"bad chain that rules go to", refused(unix.EBUSY, 0, chain(nft.Delete, refuse)), nil},
		{"bad chain that elements go to", refused(unix.EBUSY, 1, chain(nft.Add, fresh), chain(nft.Delete, ip4().Chains[1])), nil},
		{"bad chain to delete", refused(unix.ENOENT, 0, chain(nft.Delete, fresh)), nil},
		{"bad priority of a chain that is there", refused(unix.EOPNOTSUPP, 1, set(nft.Add, spare), chain(nft.Add, output)), nil},
		{"bad type of a chain that is there", refused(unix.EEXIST, 0, chain(nft.Add, filter)), nil},
		{"bad hook for a chain that is there", refused(unix.EOPNOTSUPP, 0, chain(nft.Add, hooked)), nil},
		{"OK a hooked chain without its hook", done(chain(nft.Add, nft.Chain{Name: "forward", Comment: "another"})), func(t *nft.Table) {
			t.Chains[slices.IndexFunc(t.Chains, func(c nft.Chain) bool { return c.Name == "forward" })].Rules = nil
		}},
		{"bad rule that goes to nowhere", refused(unix.ENOENT, 1, chain(nft.Add, fresh), chain(nft.Add, goTo("nowhere"))), nil},
		{"bad rule that goes to a hooked chain", refused(unix.EOPNOTSUPP, 0, chain(nft.Add, goTo("output"))), nil},
		{"bad rule with no set", refused(unix.ENOENT, 0, chain(nft.Add, user)), nil},
		{"bad set that a rule uses", refused(unix.EBUSY, 0, set(nft.Delete, *find("services"))), nil},
		{"bad set to delete", refused(unix.ENOENT, 0, set(nft.Delete, spare)), nil},
		{"bad key of a set that is there", refused(unix.EEXIST, 0, set(nft.Add, other)), nil},
		{"OK another size", done(set(nft.Add, resized)), func(t *nft.Table) { t.Sets[9].Size = 7 }},
		{"OK a size taken back", slices.Concat(done(set(nft.Add, resized)), refused(unix.ENOENT, 1, set(nft.Add, unlimited), set(nft.Delete, spare))), func(t *nft.Table) {
			t.Sets[9].Size = 7
		}},
		{"OK no size changes nothing", done(set(nft.Add, unlimited)), nil},
		{"OK another timeout", done(set(nft.Add, shorter)), func(t *nft.Table) { t.Sets[3].Timeout = time.Hour }},
		{"bad table to delete", []step{
			{ops: []nft.Op{{Verb: nft.Delete, Name: "other", Table: &nft.Table{Name: "other"}}}, err: unix.ENOENT},
		}, nil},
	}
}
