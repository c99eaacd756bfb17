package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/fake"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// protocols are the protocol numbers of flows.
func protocols(name string) uint8 { return map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}[name] }

// tracePacket returns the first packet of a flow and the hook where it enters.
func tracePacket(s *scenario.Scenario, f scenario.Flow) (fake.Packet, nft.Hook) {
	p := fake.Packet{
		Src: f.Src, SrcPort: 40000, Dst: f.Dst.Addr(), DstPort: f.Dst.Port(), Proto: protocols(f.Proto),
	}
	switch f.Kind {
	case scenario.NodeSelf:
		return p, nft.Output
	case scenario.External:
		p.In = "eth0"
	case scenario.Pod:
		p.In = "pod0"
		switch s.Settings.DetectLocal {
		case "BridgeInterface":
			p.In = s.Settings.Interface
		case "InterfaceNamePrefix":
			p.In = s.Settings.Interface + "0"
		}
	}
	return p, nft.Prerouting
}

// TestScenarioFake goes from every step of every scenario to the next on a kernel in memory, follows the
// packets of the flows through it, SCTP too, and looks at every choice that it may make.
func TestScenarioFake(t *testing.T) {
	kernel := &fake.Kernel{}
	for _, s := range readScenarios(t) {
		t.Run(s.Name, func(t *testing.T) {
			for _, step := range s.Steps {
				tables := program(t, kernel, compile(t, s, step))
				traceFlows(t, s, step, tables)
			}
		})
	}
}

// program brings the kernel to a state, whatever it held before, and returns what it holds then.
func program(t *testing.T, kernel *fake.Kernel, want *plan.State) []nft.Table {
	t.Helper()
	have, err := kernel.Load(plan.TableName)
	if err != nil {
		t.Fatal(err)
	}
	p := plan.DiffTables(have, want)
	for _, tx := range []nft.Tx{p.Tx, p.Later} {
		if tx.Empty() {
			continue
		}
		if err := kernel.Commit(tx); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := kernel.Load(plan.TableName)
	if err != nil {
		t.Fatal(err)
	}
	if p := plan.DiffTables(tables, want); !p.Empty() {
		t.Errorf("after the transaction there is still a difference:\n%s", p.Tx)
	}
	return tables
}

// traceFlows checks the flows of a step.
func traceFlows(t *testing.T, s *scenario.Scenario, step scenario.Step, tables []nft.Table) {
	t.Helper()
	node, err := s.Settings.Node()
	if err != nil {
		t.Fatal(err)
	}
	host := fake.Host{Addresses: append(addrs("127.0.0.1", "::1"), node.Addresses...)}
	tracer := fake.NewTracer(tables, host)
	for _, f := range step.Flows {
		p, hook := tracePacket(s, f)
		if err := judgeTrace(f, tracer.Outcomes(p, hook)); err != nil {
			t.Errorf("step%s: %s: %v", step.Suffix, f, err)
		}
	}
	if !s.Settings.Sticky {
		return
	}
	chosen := map[netip.Addr]netip.AddrPort{}
	for _, f := range step.Flows {
		p, hook := tracePacket(s, f)
		for range 10 {
			got := tracer.Trace(p, hook, rand.Uint32N).Endpoint
			if old, ok := chosen[f.Src]; ok && old != got {
				t.Errorf("step%s: %s: went to %s and then to %s; want the same", step.Suffix, f, old, got)
			}
			chosen[f.Src] = got
		}
	}
}

// judgeTrace returns an error unless the results are what a flow wants, all of it and nothing else.
func judgeTrace(f scenario.Flow, results []fake.Result) error {
	reached := map[netip.AddrPort]bool{}
	for _, r := range results {
		if r.Verdict.String() != string(f.Want) {
			return fmt.Errorf("%s by %q; want %s", r.Verdict, r.Path, f.Want)
		}
		if f.Want == scenario.DNAT && r.Masquerade != f.Masquerade {
			return fmt.Errorf("masquerade = %t by %q; want %t", r.Masquerade, r.Path, f.Masquerade)
		}
		reached[r.Endpoint] = true
	}
	if f.Want != scenario.DNAT {
		return nil
	}
	got := slices.SortedFunc(maps.Keys(reached), netip.AddrPort.Compare)
	sorted := slices.SortedFunc(slices.Values(f.Endpoints), netip.AddrPort.Compare)
	if diff := cmp.Diff(sorted, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		return fmt.Errorf("endpoints (-want +got):\n%s", diff)
	}
	return nil
}
