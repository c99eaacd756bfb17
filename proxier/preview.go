package proxier

import (
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// Preview returns what an Engine that starts now would make of a Snapshot: the ruleset, with endpoints in the
// places that they have in base, and the steps of IPVS. Nothing is changed, but that the kernel may load what
// of IPVS it is asked for. What waits for the end of connections is no step.
func Preview(config plan.Config, kernel IPVS, snapshot model.Snapshot, base *plan.State) (*plan.State, []ipvs.Op, error) {
	r := &recorder{IPVS: kernel}
	e := New(config, nil, r, zap.NewNop())
	e.snapshot = snapshot
	now := time.Now()
	if err := e.servers.read(now); err != nil {
		return nil, nil, err
	}
	want, changes := e.compile(base, nil, now, nil)
	if _, err := e.servers.prepare(changes, want, now); err != nil {
		return nil, nil, err
	}
	if err := e.servers.finish(); err != nil {
		return nil, nil, err
	}
	return want, r.steps, e.servers.drain(want, now.Add(firstLook))
}

// A recorder notes the steps that IPVS is told, and does none.
type recorder struct {
	IPVS
	steps []ipvs.Op
}

// Apply notes the steps.
func (r *recorder) Apply(steps []ipvs.Op) []ipvs.OpError {
	r.steps = append(r.steps, steps...)
	return nil
}
