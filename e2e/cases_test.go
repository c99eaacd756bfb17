package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// casesPath holds semantics of Services as packet flows.
const casesPath = "testdata/cases.json"

// readCases returns all cases.
func readCases(t *testing.T) []scenario.Case {
	t.Helper()
	cases, err := scenario.Cases(casesPath)
	if err != nil {
		t.Fatal(err)
	}
	for i := range cases {
		cases[i].Flows = append(cases[i].Flows, ipvsFlows(cases[i].Name)...)
	}
	return cases
}

// ipvsFlows returns flows for the cases that tell how kube-proxy's ipvs mode differs and have none: what the
// nftables mode does with the same Services.
func ipvsFlows(name string) []scenario.Flow {
	flow := func(kind scenario.Kind, src, dst string, want scenario.Verdict, masq bool) scenario.Flow {
		f := scenario.Flow{
			Name: dst, Kind: kind, Src: netip.MustParseAddr(src), Proto: "tcp", Dst: netip.MustParseAddrPort(dst),
			Want: want, Masquerade: masq,
		}
		if want == scenario.DNAT {
			f.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("10.180.1.1:80")}
		}
		return f
	}
	const (
		clusterIP = "10.20.30.41:80"
		nodePort  = "192.168.0.2:3001"
	)
	switch {
	case strings.HasPrefix(name, "ipvs/derived: iTP Local"):
		return []scenario.Flow{
			flow(scenario.Pod, "10.0.0.2", clusterIP, scenario.Drop, false),
			flow(scenario.NodeSelf, "192.168.0.2", clusterIP, scenario.Drop, false),
			flow(scenario.External, "203.0.113.2", nodePort, scenario.DNAT, true),
		}
	case strings.HasPrefix(name, "ipvs/derived: eTP Local"):
		return []scenario.Flow{
			flow(scenario.Pod, "10.0.0.2", clusterIP, scenario.DNAT, false),
			flow(scenario.Pod, "10.0.0.2", nodePort, scenario.DNAT, false),
			flow(scenario.External, "203.0.113.2", nodePort, scenario.Drop, false),
		}
	}
	return nil
}

// caseWorld returns the world that a case wants its pods in.
func caseWorld(c scenario.Case) world.Config {
	for _, f := range c.Node.Flags {
		if b, ok := strings.CutPrefix(f, "--pod-bridge-interface="); ok {
			return world.Config{Bridge: b}
		}
	}
	return world.Config{}
}

// checkCase checks what a case says, with the daemon settled on it.
func (r *rig) checkCase(t *testing.T, c scenario.Case) {
	t.Helper()
	if c.Sticky {
		r.checkSticky(t, c.Flows, func(f scenario.Flow) uint16 {
			if p, ok := c.NodePorts[f.Dst.Port()]; ok {
				return p
			}
			return f.Dst.Port()
		})
	} else {
		r.checkFlows(t, c.Flows)
	}
	r.checkListing(t)
	r.checkConverged(t)
}

// TestCases runs every case on a node that had no rules before.
func TestCases(t *testing.T) {
	rigs := map[world.Config]*rig{}
	for _, c := range readCases(t) {
		w := caseWorld(c)
		if rigs[w] == nil {
			rigs[w] = newRig(t, w)
		}
		r := rigs[w]
		t.Run(c.Name, func(t *testing.T) {
			r.write(t, c.Manifests)
			r.start(t, c.Node)
			r.place(t, c.Flows, c.Local, c.Remote)
			r.settle(t)
			r.checkCase(t, c)
			r.stop(t)
			r.cleanup(t)
		})
	}
}

// TestCaseTransitions runs every case as a change from the case before it, in one living daemon as long as
// the flags are the same; where they are not, the next daemon takes over the rules of the one
// before it.
func TestCaseTransitions(t *testing.T) {
	rigs := map[world.Config]*rig{}
	for _, c := range readCases(t) {
		w := caseWorld(c)
		if rigs[w] == nil {
			rigs[w] = newRig(t, w)
		}
		r := rigs[w]
		t.Run(c.Name, func(t *testing.T) {
			if r.d == nil || r.node.Name != c.Node.Name || !slices.Equal(r.node.Flags, c.Node.Flags) {
				r.stop(t)
				r.start(t, c.Node)
			}
			if err := r.w.SetNodeAddrs(c.Node.Addresses); err != nil {
				t.Fatal(err)
			}
			r.node = c.Node
			r.place(t, c.Flows, c.Local, c.Remote)
			r.apply(t, c.Manifests)
			r.checkCase(t, c)
		})
	}
}
