package e2e

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/dir"
)

// update says to write the golden texts anew.
var update = flag.Bool("update", false, "write what is to be expected into the scenarios")

// compile returns what the kernel should hold in a step of a scenario.
func compile(t *testing.T, s *scenario.Scenario, step scenario.Step) *plan.State {
	t.Helper()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "manifests.yaml"), []byte(step.Manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	objects, err := dir.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	node, err := s.Settings.Node()
	if err != nil {
		t.Fatal(err)
	}
	links := watch.Part{Addresses: []watch.Address{
		{Addr: netip.MustParseAddr("127.0.0.1"), Index: 1, Link: "lo"},
		{Addr: netip.MustParseAddr("::1"), Index: 1, Link: "lo"},
	}}
	for _, a := range node.Addresses {
		links.Addresses = append(links.Addresses, watch.Address{Addr: a, Index: 2, Link: "eth0"})
	}
	cfg := watch.Config{NodeName: node.Name, AllowExternalIPs: !s.Settings.NoExternalIPs}
	snapshot, problems := watch.Join(cfg, objects, links)
	for _, p := range problems {
		t.Errorf("the manifests have a problem: %s", p)
	}
	config, err := s.Settings.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return plan.Compile(config, snapshot, nil)
}

// TestScenarioGolden compiles every step of every scenario and compares what it adds to a proxy that knows
// nothing with the golden text.
func TestScenarioGolden(t *testing.T) {
	nothing := plan.Compile(plan.Config{MasqueradeBit: 14}, model.Snapshot{}, nil)
	for _, s := range readScenarios(t) {
		t.Run(s.Name, func(t *testing.T) {
			for _, step := range s.Steps {
				state := compile(t, s, step)
				if err := nft.Check(state.Tables()); err != nil {
					t.Errorf("step%s: %v", step.Suffix, err)
				}
				if !plan.Diff(state, state).Empty() {
					t.Errorf("step%s: Diff(s, s) is not empty", step.Suffix)
				}
				got := golden(plan.Diff(nothing, state).Tx)
				if *update {
					s.SetWant(step, got)
				} else if diff := cmp.Diff(step.Want, got); diff != "" {
					t.Errorf("step%s (-want +got); go test ./e2e -run Golden -update rewrites it:\n%s", step.Suffix, diff)
				}
			}
			if *update {
				if err := os.WriteFile(s.Path(), s.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// golden returns a transaction as text: its steps in order, but elements sorted, since their order means
// nothing.
func golden(tx nft.Tx) string {
	var steps, elements []string
	for op := range tx {
		text := strings.TrimSuffix(op.String(), "\n") + "\n"
		if op.Element != nil {
			elements = append(elements, text)
		} else {
			steps = append(steps, text)
		}
	}
	slices.Sort(elements)
	return strings.Join(append(steps, elements...), "")
}
