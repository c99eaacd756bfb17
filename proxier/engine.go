package proxier

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// idle is how long nothing must happen before unused chains are deleted. Kernels before 6.2 notice
// late that a deleted element no longer refers to a chain.
const idle = time.Second

// An Engine keeps the kernel in line with Snapshots.
type Engine struct {
	config plan.Config
	kernel Kernel
	log    *zap.Logger
	// servers are those of IPVS.
	servers *servers
	// distrust has an item if somebody else changed our tables.
	distrust chan struct{}
	status   atomic.Pointer[record]
	// observers hear of each sync.
	observers []func(Sync)

	// The rest belongs to the goroutine of Run.

	// snapshot is the last one; none yet if its Node is nil.
	snapshot model.Snapshot
	// have is what the kernel holds; nil if that is not known.
	have *plan.State
	// refused are the front ends that the kernel refused.
	refused map[plan.FrontEnd]*refusal
	// unused are chains that no front end leads to any more, with the elements that still refer to
	// them.
	unused map[unusedChain][]nft.Op
	record record
	// found are the UDP front ends that the kernel held when the current sync read it.
	found []netip.AddrPort
	// failures counts the failed transactions in a row.
	failures int
	// cleanups counts the failed deletions of unused chains since the last Sync.
	cleanups int
}

// An unusedChain is a chain to delete.
type unusedChain struct {
	family nft.Family
	name   string
}

// New returns an Engine for a kernel and its IPVS. It does nothing before Run. What of config says what
// the kernel has of IPVS is left to the engine.
func New(config plan.Config, kernel Kernel, servers IPVS, log *zap.Logger) *Engine {
	e := &Engine{
		servers: newServers(servers, log),
		config:  config, kernel: kernel, log: log, distrust: make(chan struct{}, 1),
		refused: map[plan.FrontEnd]*refusal{}, unused: map[unusedChain][]nft.Op{},
	}
	e.status.Store(&record{})
	return e
}

// Distrust tells the engine that the kernel may hold something else than it thinks: it looks, and
// mends what differs. It may be called from any goroutine and does not wait.
func (e *Engine) Distrust() {
	select {
	case e.distrust <- struct{}{}:
	default:
	}
}

// A Sync is one attempt to bring the kernel in line.
type Sync struct {
	// State is what the kernel holds, nil after a failure.
	State *plan.State
	// Snapshot is what the kernel should be in line with.
	Snapshot model.Snapshot
	Started  time.Time
	Duration time.Duration
	// Steps is the length of the transaction; 0 if there was nothing to do.
	Steps int
	Err   error
	// Looked says that the kernel was read: at the start, after an error, or on suspicion.
	Looked bool
	// Refused are the front ends that the kernel refused, sorted by Service.
	Refused []Refused
	// Cleanups is how many deletions of unused chains failed since the last Sync.
	Cleanups int
	// Servers is about the virtual servers of IPVS.
	Servers Servers
	// Found are the UDP front ends that the kernel held then, as [plan.Held] returns them: what is no
	// front end any more may have left traces elsewhere.
	Found []netip.AddrPort
}

// Servers are numbers of what is about virtual servers.
type Servers struct {
	// Virtual is how many the kernel holds of ours; Draining how many of them wait for connections to end,
	// all or those of some destinations.
	Virtual, Draining int
	// Unfit is how many Services the kernel refused the virtual servers of.
	Unfit int
	// Failures is how many steps failed since the start.
	Failures uint64
}

// Observe has f called after each sync, from the goroutine of Run: f must not wait. It must not be
// called while Run runs.
func (e *Engine) Observe(f func(Sync)) { e.observers = append(e.observers, f) }

// Run programs each Snapshot until ctx ends, and retries what failed. What is programmed stays when
// it returns.
func (e *Engine) Run(ctx context.Context, snapshots <-chan model.Snapshot) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(e.wait(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case s, ok := <-snapshots:
			if !ok {
				return nil
			}
			e.snapshot = s
			e.sync(time.Now())
		case <-e.distrust:
			e.have = nil
			e.sync(time.Now())
		case <-timer.C:
			e.tick(time.Now())
		}
	}
}

// wait returns how long the engine may sleep if nothing comes in.
func (e *Engine) wait(now time.Time) time.Duration {
	next := time.Hour
	if e.failures > 0 {
		next = min(next, backOff(e.failures))
	}
	if len(e.unused) > 0 {
		next = min(next, idle)
	}
	for _, r := range e.refused {
		next = min(next, max(0, r.retry.Sub(now)))
	}
	if e.have != nil {
		next = min(next, e.servers.wait(now))
	}
	return next
}

// tick does what was put off: retries, and the deletion of unused chains.
func (e *Engine) tick(now time.Time) {
	due := e.failures > 0
	for _, r := range e.refused {
		if !r.retry.After(now) {
			// The kernel may hold something that we do not know of: look before trying again.
			due, e.have = true, nil
		}
	}
	if due = due || e.have != nil && e.servers.due(now) || e.drain(now); due {
		e.sync(now)
		return
	}
	e.deleteUnused()
}

// drain takes away the virtual servers that were kept for connections that have ended by now, and reports
// whether the rest has to follow.
func (e *Engine) drain(now time.Time) bool {
	if e.have == nil || e.servers.draining() == 0 {
		return false
	}
	if err := e.servers.drain(e.have, now); err != nil {
		e.log.Warn("old virtual servers stay for now", zap.Error(err))
		return true
	}
	return !slices.Equal(e.servers.lingering(nil), e.have.Draining())
}

// sync brings the kernel in line with the last Snapshot.
func (e *Engine) sync(now time.Time) {
	if e.snapshot.Node == nil {
		return
	}
	started, looked := time.Now(), e.have == nil
	e.found = nil
	steps, err := e.apply(now)
	e.record.syncs++
	e.record.steps = steps
	e.record.duration = time.Since(started)
	if err != nil {
		e.have, e.servers.known = nil, false
		e.failures++
		e.record.failures++
		e.record.err = err.Error()
		e.log.Error("the kernel is not in line; trying again", zap.Error(err), zap.Duration("in", backOff(e.failures)))
	} else {
		e.failures = 0
		e.record.err = ""
		e.record.lastSync = time.Now()
		e.reportConflicts(e.record.state, e.have)
		e.record.state = e.have
		if steps > 0 {
			// In a large cluster there are some each second: only the first, repairs and large ones are news.
			level := zap.DebugLevel
			if looked || steps >= pieceSteps {
				level = zap.InfoLevel
			}
			e.log.Log(level, "programmed", zap.Int("steps", steps), zap.Int("services", e.have.Services()), zap.Duration("took", e.record.duration))
		}
	}
	e.publish()
	for _, f := range e.observers {
		f(Sync{
			State: e.have, Snapshot: e.snapshot, Started: started, Duration: e.record.duration,
			Steps: steps, Err: err, Looked: looked, Refused: e.status.Load().refused, Cleanups: e.cleanups, Found: e.found, Servers: e.servers.numbers(),
		})
	}
	e.cleanups = 0
}

// reportConflicts logs the front ends that more than one Service claims, when that begins and when it
// ends.
func (e *Engine) reportConflicts(last, now *plan.State) {
	came, went := now.ConflictsSince(last)
	report := func(log func(string, ...zap.Field), message string, conflicts []plan.Conflict) {
		for _, c := range conflicts {
			log(message, zap.String("frontEnd", c.Address), zap.Stringer("servedBy", c.Holder), zap.Stringer("notServed", c.Loser))
		}
	}
	report(e.log.Warn, "more than one Service claims a front end; the oldest has it", came)
	report(e.log.Info, "a front end is no longer claimed twice like this", went)
}

// noteUnused takes over what is to be deleted later.
func (e *Engine) noteUnused(later nft.Tx) {
	var links []nft.Op
	for op := range later {
		if op.Chain == nil {
			element := *op.Element
			op.Element = &element
			links = append(links, op)
			continue
		}
		e.unused[unusedChain{op.Family, op.Chain.Name}] = links
		links = nil
	}
}

// deleteUnused deletes the chains that no front end leads to any more: first the elements that refer
// to one and, the next time, the chain. A failure costs nothing but a look at the kernel later.
func (e *Engine) deleteUnused() {
	if len(e.unused) == 0 || e.have == nil {
		return
	}
	var steps []nft.Op
	for c, links := range e.unused {
		switch {
		case e.have.Uses(c.name):
			delete(e.unused, c)
		case len(links) > 0:
			steps = append(steps, links...)
			e.unused[c] = nil
		default:
			steps = append(steps, nft.Op{Verb: nft.Delete, Family: c.family, Name: plan.TableName, Chain: &nft.Chain{Name: c.name}})
			delete(e.unused, c)
		}
	}
	if len(steps) == 0 {
		return
	}
	if err := e.kernel.Commit(nft.Tx(slices.Values(steps))); err != nil {
		e.log.Warn("unused chains stay for now", zap.Error(err))
		e.have = nil
		e.failures = 1
		e.cleanups++
	}
}

// counted returns tx; each walk over it leaves the number of steps in n.
func counted(tx nft.Tx, n *int) nft.Tx {
	return func(yield func(nft.Op) bool) {
		*n = 0
		for op := range tx {
			if *n++; !yield(op) {
				return
			}
		}
	}
}
