package conntrack

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier"
)

// The back-off after a failure, and the longest pause after a pass, which is as long as the pass.
const (
	firstRetry   = time.Second
	lastRetry    = time.Minute
	longestPause = 5 * time.Second
)

// A Kernel holds the entries. Package proxier/conntrack/kernel is the real one.
type Kernel interface {
	// DeleteUDP deletes the UDP entries of a family and of the default zone that are stale, and returns
	// their number. What it deletes is the entry that it asked about, never one that took its place.
	DeleteUDP(ctx context.Context, f nft.Family, stale func(Entry) bool) (int, error)
}

// A Pass is one look at all entries of a family.
type Pass struct {
	Family   nft.Family
	Duration time.Duration
	Deleted  int
	Err      error
}

// A Reconciler deletes what is stale after each sync that makes something stale.
type Reconciler struct {
	kernel Kernel
	log    *zap.Logger
	// passed is told of each pass.
	passed func(Pass)
	// wake has an item if next has something new.
	wake chan struct{}

	mu   sync.Mutex // protects next
	next input

	// The rest belongs to the goroutine of Run.

	table *table
	// dirty are the families that have to be looked at.
	dirty    map[nft.Family]bool
	failures int
}

// An input is what syncs said since it was last taken: the last state, and what must not be lost of
// those before it.
type input struct {
	sync proxier.Sync
	// found are the front ends that the kernel held at any of the syncs.
	found []netip.AddrPort
	// mended says that the rules were not what they should have been.
	mended bool
}

// New returns a Reconciler that does nothing before Run. Each pass is told to passed, which may be nil.
func New(kernel Kernel, log *zap.Logger, passed func(Pass)) *Reconciler {
	if passed == nil {
		passed = func(Pass) {}
	}
	return &Reconciler{
		kernel: kernel, log: log, passed: passed, wake: make(chan struct{}, 1),
		table: newTable(), dirty: map[nft.Family]bool{},
	}
}

// Observe takes note of a sync; it does not wait. It is for [proxier.Engine.Observe].
func (r *Reconciler) Observe(s proxier.Sync) {
	if s.Err != nil || s.State == nil {
		return // the rules are not in place
	}
	r.mu.Lock()
	r.next.found = append(r.next.found, s.Found...)
	s.Found = nil
	r.next.sync = s
	r.next.mended = r.next.mended || s.Looked && s.Steps > 0
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run deletes what is stale until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.wait())
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.take()
		case <-timer.C:
		}
		if len(r.dirty) == 0 {
			continue
		}
		// A burst of changes of a large table must not keep a processor busy.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.clean(ctx)):
		}
	}
}

// wait returns how long to wait if nothing comes in.
func (r *Reconciler) wait() time.Duration {
	if len(r.dirty) == 0 {
		return time.Hour
	}
	return min(lastRetry, firstRetry<<max(0, min(r.failures-1, 10)))
}

// take takes over what the syncs said.
func (r *Reconciler) take() {
	r.mu.Lock()
	in := r.next
	r.next.found, r.next.mended = nil, false
	r.mu.Unlock()
	node := in.sync.Snapshot.Node
	addrs, all := in.sync.State.NodePortAddrs()
	dirty := r.table.setLocal(localAddrs(addrs, all, node))
	dirty = r.table.setServices(in.sync.Snapshot.Services) || dirty
	dirty = r.table.found(in.found) || dirty
	for _, f := range nft.Families() {
		if (dirty || in.mended) && r.table.concerns(f) {
			r.dirty[f] = true
		}
	}
}

// clean looks at the families that are dirty and returns how long to pause.
func (r *Reconciler) clean(ctx context.Context) (pause time.Duration) {
	failed := false
	for _, f := range nft.Families() {
		if !r.dirty[f] {
			continue
		}
		started := time.Now()
		n, err := r.kernel.DeleteUDP(ctx, f, r.table.stale)
		if ctx.Err() != nil {
			return 0
		}
		p := Pass{Family: f, Duration: time.Since(started), Deleted: n, Err: err}
		pause += p.Duration
		r.passed(p)
		switch {
		case err != nil:
			failed = true
			r.log.Error("stale conntrack entries may be left; trying again", zap.Stringer("family", f), zap.Int("deleted", n), zap.Error(err))
		case n > 0:
			r.log.Info("deleted stale conntrack entries", zap.Stringer("family", f), zap.Int("deleted", n), zap.Duration("took", p.Duration))
		}
		if err == nil {
			delete(r.dirty, f)
		}
	}
	if failed {
		r.failures++
	} else {
		r.failures = 0
		clear(r.table.gone)
	}
	return min(pause, longestPause)
}
