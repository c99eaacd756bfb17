package e2e

import (
	"testing"

	"github.com/nftproxy/nftproxy/e2e/scenario"
	"github.com/nftproxy/nftproxy/e2e/world"
)

// scenarioDir holds one scenario a feature.
const scenarioDir = "testdata/scenarios"

// readScenarios returns all scenarios.
func readScenarios(t *testing.T) []*scenario.Scenario {
	t.Helper()
	all, err := scenario.All(scenarioDir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// scenarioWorld returns the world that a scenario wants its pods in.
func scenarioWorld(s *scenario.Scenario) world.Config {
	switch s.Settings.DetectLocal {
	case "BridgeInterface":
		return world.Config{Bridge: s.Settings.Interface}
	case "InterfaceNamePrefix":
		return world.Config{PodPrefix: s.Settings.Interface}
	}
	return world.Config{}
}

// TestScenarioPackets runs every scenario with real packets, its steps one after the other in one daemon, and
// back to the first step.
func TestScenarioPackets(t *testing.T) {
	rigs := map[world.Config]*rig{}
	for _, s := range readScenarios(t) {
		w := scenarioWorld(s)
		if rigs[w] == nil {
			rigs[w] = newRig(t, w)
		}
		t.Run(s.Name, func(t *testing.T) { rigs[w].checkScenario(t, s) })
	}
}

// checkScenario runs one scenario and leaves nothing in the kernel.
func (r *rig) checkScenario(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	node, err := s.Settings.Node()
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, s.Steps[0].Manifests)
	r.start(t, node)
	defer func() {
		r.stop(t)
		r.cleanup(t)
	}()
	steps := s.Steps
	if len(steps) > 1 {
		steps = append(steps[:len(steps):len(steps)], steps[0])
	}
	for i, step := range steps {
		t.Logf("step %d", i+1)
		r.place(t, step.Flows, step.Local, step.Remote)
		r.apply(t, step.Manifests)
		if s.Settings.Sticky {
			r.checkSticky(t, step.Flows, func(scenario.Flow) uint16 { return 0 })
		} else {
			r.checkFlows(t, step.Flows)
		}
		r.checkListing(t)
		r.checkConverged(t)
	}
}
