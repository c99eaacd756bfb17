package conntrack

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// The back-off after a failure, and the longest pause after a pass, which is as long as the pass.
const (
	firstRetry   = time.Second
	lastRetry    = time.Minute
	longestPause = 5 * time.Second
)

// grace is how long an endpoint that serves no more may still answer what it was asked before. Without it the
// answer to a request that is under way would come from an address that the client never heard of.
const grace = 100 * time.Millisecond

// fewFronts is up to how many front ends the kernel is asked for one by one: it passes over an entry five
// times as fast as it hands it over.
const fewFronts = 4

// maxSkipped is after how many syncs that are of no concern the table hears of them all the same: until then it keeps the
// Services in memory that they replaced.
const maxSkipped = 256

// A Kernel holds the entries. Package proxier/conntrack/kernel is the real one.
type Kernel interface {
	// DeleteUDP deletes the UDP entries of a family and of the default zone that are stale, and returns
	// their number. What it deletes is the entry that it asked about, never one that took its place. If
	// only is not empty, nothing else need be looked at than what was sent to these addresses and ports,
	// or with an unspecified address to the port. After a look that deleted something there is another.
	DeleteUDP(ctx context.Context, f nft.Family, only []netip.AddrPort, stale func(Entry) bool) (int, error)
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
	// skipped counts the syncs that woke nobody since one did; it belongs to Observe.
	skipped int

	// The rest belongs to the goroutine of Run.

	table *table
	// all are the families that have to be looked at, some the front ends.
	all      map[nft.Family]bool
	some     map[netip.AddrPort]bool
	failures int
	// virtual is how many virtual servers there were.
	virtual int
	// due is when to look.
	due time.Time
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
		table: newTable(), all: map[nft.Family]bool{}, some: map[netip.AddrPort]bool{},
	}
}

// Observe takes note of a sync; it does not wait. It is for [proxier.Engine.Observe].
func (r *Reconciler) Observe(s proxier.Sync) {
	if s.Err != nil || s.State == nil {
		return // the rules are not in place
	}
	r.mu.Lock()
	news := s.Looked || concerns(r.next.sync, s)
	r.next.found = append(r.next.found, s.Found...)
	s.Found = nil
	r.next.sync = s
	r.next.mended = r.next.mended || s.Looked && s.Steps > 0
	r.mu.Unlock()
	if r.skipped++; !news && r.skipped < maxSkipped {
		return // the next one tells
	}
	r.skipped = 0
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// concerns reports whether something may differ between two syncs that matters for entries: in most clusters few
// Services are of UDP.
func concerns(last, s proxier.Sync) bool {
	if s.Snapshot.Node != last.Snapshot.Node || s.Servers.Virtual != last.Servers.Virtual {
		return true
	}
	udp := func(p model.Port) bool { return p.Protocol == model.UDP }
	for c := range model.Changes(last.Snapshot.Services, s.Snapshot.Services) {
		if c.HasOld && slices.ContainsFunc(c.Old.Ports, udp) || c.HasNew && slices.ContainsFunc(c.New.Ports, udp) {
			return true
		}
	}
	return false
}

// Run deletes what is stale until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.wait(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.take()
		case <-timer.C:
			r.clean(ctx)
		}
	}
}

// wait returns how long there is nothing to do if nothing comes in.
func (r *Reconciler) wait(now time.Time) time.Duration {
	if len(r.all)+len(r.some) == 0 {
		return time.Hour
	}
	return max(0, r.due.Sub(now))
}

// take takes over what the syncs said.
func (r *Reconciler) take() {
	r.mu.Lock()
	in := r.next
	r.next.found, r.next.mended = nil, false
	r.mu.Unlock()
	now := time.Now()
	if len(r.all)+len(r.some) == 0 && r.due.Before(now.Add(grace)) {
		r.due = now.Add(grace)
	}
	addrs, families := in.sync.State.NodePortAddrs()
	all := r.table.setLocal(localAddrs(addrs, families, in.sync.Snapshot.Node)) || in.mended
	dirty := append(r.table.setServices(in.sync.Snapshot.Services, now), r.table.found(in.found)...)
	for _, front := range dirty {
		r.some[front] = true
	}
	// What IPVS leaves behind is found only among all entries.
	virtual := in.sync.Servers.Virtual
	left := virtual != r.virtual || virtual > 0 && len(dirty) > 0
	r.virtual, r.table.servers = virtual, r.table.servers || left
	for _, f := range nft.Families() {
		if left && len(r.table.claims) > 0 || all && r.table.concerns(f) {
			r.all[f] = true
		}
	}
}

// look returns what to look at in a family, and forgets it: nothing, some front ends, or with an empty
// list everything.
func (r *Reconciler) look(f nft.Family) (only []netip.AddrPort, ok bool) {
	for front := range r.some {
		if family(front.Addr()) == f {
			only = append(only, front)
			delete(r.some, front)
		}
	}
	ok = r.all[f] || len(only) > 0
	if r.all[f] || len(only) > fewFronts {
		only = nil
	}
	delete(r.all, f)
	return only, ok
}

// stale reports whether an entry leads nowhere, by all that is known at this moment: a pass takes its
// time, and what was wrong at its beginning may be right by now.
func (r *Reconciler) stale(e Entry, now time.Time) bool {
	if !r.table.stale(e, now) {
		return false
	}
	select {
	case <-r.wake:
		r.take()
		return r.table.stale(e, now)
	default:
		return true
	}
}

// again has a family looked at once more: packets that were under way may have made stale entries.
func (r *Reconciler) again(f nft.Family, only []netip.AddrPort) {
	if len(only) == 0 {
		r.all[f] = true
	}
	for _, front := range only {
		r.some[front] = true
	}
}

// clean looks at the families that are dirty, and says when to look again, be there something left or not:
// a burst of changes of a large table must not keep a processor busy.
func (r *Reconciler) clean(ctx context.Context) {
	var pause time.Duration
	failed := false
	now := time.Now()
	for _, f := range nft.Families() {
		only, ok := r.look(f)
		if !ok {
			continue
		}
		started := time.Now()
		n, err := r.kernel.DeleteUDP(ctx, f, only, func(e Entry) bool { return r.stale(e, now) })
		if ctx.Err() != nil {
			return
		}
		p := Pass{Family: f, Duration: time.Since(started), Deleted: n, Err: err}
		pause += p.Duration
		r.passed(p)
		switch {
		case err != nil:
			failed, r.all[f] = true, true
			r.log.Error("stale conntrack entries may be left; trying again", zap.Stringer("family", f), zap.Int("deleted", n), zap.Error(err))
		case n > 0:
			r.log.Info("deleted stale conntrack entries", zap.Stringer("family", f), zap.Int("deleted", n), zap.Duration("took", p.Duration))
			r.again(f, only)
		}
	}
	pause = max(grace, min(pause, longestPause))
	if failed {
		r.failures++
		pause = min(lastRetry, firstRetry<<min(r.failures-1, 10))
	} else {
		r.failures = 0
		for _, front := range r.table.settle(now) {
			r.some[front] = true
		}
	}
	r.due = time.Now().Add(pause)
}
