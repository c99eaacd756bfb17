package proxier

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// apply computes and commits the difference, leaving out front ends that the kernel refuses. It
// returns the number of steps of the transactions.
func (e *Engine) apply(now time.Time) (int, error) {
	var tables []nft.Table
	base := e.have
	if base == nil {
		var err error
		if tables, err = e.kernel.Load(plan.TableName); err != nil {
			return 0, fmt.Errorf("read the ruleset: %w", err)
		}
		base = plan.Recall(tables)
		e.found = plan.Held(tables, model.UDP)
		clear(e.unused) // the comparison finds them all
	}
	last := e.have
	if !e.servers.known {
		last = nil
	}
	if err := e.servers.read(now); err != nil {
		return 0, err
	}
	want, changes := e.compile(base, last, now, nil)
	steps := 0
	if moves := e.servers.rescheduled(changes, want); len(moves) > 0 {
		aside, others := e.compile(base, last, now, moves)
		n, err := e.bring(tables, aside, others, now)
		if steps += n; err != nil {
			return steps, err
		}
		base, last = e.have, e.have
		want, changes = e.compile(base, last, now, nil)
	}
	n, err := e.bring(tables, want, changes, now)
	if steps += n; err != nil {
		return steps, err
	}
	e.servers.accept(now, e.snapshot.Services)
	return steps, e.servers.finish()
}

// compile returns what the kernel should hold, and how the virtual servers differ from last, or from what
// the kernel holds if last is nil. The Services in aside do without IPVS.
func (e *Engine) compile(base, last *plan.State, now time.Time, aside map[model.Name]bool) (*plan.State, []plan.ServerChange) {
	config := e.config
	config.Schedulers, config.Unfit = e.servers.has, e.servers.withheld(now)
	maps.Copy(config.Unfit, aside)
	if e.have != nil {
		config.Draining = e.have.Draining()
	}
	want := plan.Compile(config, e.snapshot, base)
	if e.servers.ask(want.Asked(), now) {
		config.Schedulers = e.servers.has
		want = plan.Compile(config, e.snapshot, base)
	}
	changes := e.servers.compare(last, want)
	if addrs := e.servers.lingering(changes); !slices.Equal(addrs, config.Draining) {
		config.Draining = addrs
		want = plan.Compile(config, e.snapshot, want)
	}
	return want, changes
}

// bring makes the kernel hold what is wanted, but for what the virtual servers have too much.
func (e *Engine) bring(tables []nft.Table, compiled *plan.State, changes []plan.ServerChange, now time.Time) (int, error) {
	e.forget(compiled)
	last := e.have
	for {
		want := compiled.Without(e.withheld(now))
		refused, err := e.servers.prepare(changes, want, now)
		if err != nil {
			return 0, err
		}
		if len(refused) > 0 {
			for name, err := range refused {
				e.servers.refuse(name, err, now)
			}
			base := compiled
			compiled, changes = e.compile(base, nil, now, nil)
			continue
		}
		p := e.plan(tables, want)
		steps, pieces, err := e.commit(p)
		if err != nil && e.refuse(want, err, now) {
			if pieces > 0 {
				// It holds neither what it did nor what it should.
				if tables, err = e.kernel.Load(plan.TableName); err != nil {
					return steps, fmt.Errorf("read the ruleset: %w", err)
				}
				e.have = nil
			}
			changes = e.servers.compare(last, compiled.Without(e.withheld(now)))
			continue
		}
		if err != nil {
			return steps, fmt.Errorf("commit %d steps: %w", steps, err)
		}
		e.have = want
		e.accept(now)
		e.noteUnused(p.Later)
		return steps, nil
	}
}

// pieceSteps is the number of steps from which on a transaction is cut. As many elements take the
// kernel 60 to 150 ms, in which it serves nobody else's transactions.
const pieceSteps = 20_000

// commit does the transaction of a plan, a long one in pieces, and returns the number of its steps and
// of the pieces that were done.
func (e *Engine) commit(p plan.Plan) (steps, pieces int, err error) {
	if !p.Long {
		if !p.Tx.Empty() {
			err = e.kernel.Commit(counted(p.Tx, &steps))
		}
		return steps, 0, err
	}
	for piece := range nft.Cut(p.Tx, pieceSteps) {
		n := 0
		err := e.kernel.Commit(counted(piece, &n))
		steps += n
		if err != nil {
			return steps, pieces, err
		}
		pieces++
	}
	return steps, pieces, nil
}

// plan returns what turns what the kernel holds into want.
func (e *Engine) plan(tables []nft.Table, want *plan.State) plan.Plan {
	if plan.Comparable(e.have, want) {
		return plan.Diff(e.have, want)
	}
	return plan.DiffTables(tables, want)
}
