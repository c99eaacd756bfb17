package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/bench/see"
)

// rollingPace is the time between two endpoints of a rolling update: a hundred in a second.
const rollingPace = 10 * time.Millisecond

// A step is a change and what it leads to.
type step struct {
	changes []apiserver.Change
	target  see.Target
}

// changes measures changes, and the memory after them.
func (r *run) changes(ctx context.Context) (err error) {
	ear, err := r.bench.ear(r.node)
	if err != nil {
		return err
	}
	defer ear.Close()
	profiles := r.bench.profile(r, "changes")
	c, stride := r.cluster, 7
	at := func(offset, i int) int { return (offset*c.services/8 + i*stride) % c.services }
	rows := []struct {
		what string
		out  *Latency
		next func(i int) step
	}{
		{"one endpoint replaced", &r.result.Replace, func(i int) step {
			change, a := c.replace(at(0, i), i)
			return step{[]apiserver.Change{change}, see.Target{Service: change.Service.ClusterIP, Endpoint: a}}
		}},
		{"one endpoint added", &r.result.Add, func(i int) step {
			change, a := c.add(at(1, i))
			return step{[]apiserver.Change{change}, see.Target{Service: change.Service.ClusterIP, Endpoint: a}}
		}},
	}
	defer func() {
		memory, e := see.MemoryOf(r.process.cmd.Process.Pid)
		r.result.Steady, r.result.Peak = memory.Now, memory.Peak
		err = errors.Join(err, e)
	}()
	for _, row := range rows {
		if *row.out, err = r.one(ctx, ear, row.what, r.program.pause, row.next); err != nil {
			return fmt.Errorf("%s: %w", row.what, err)
		}
	}
	if err := r.services(ctx, ear); err != nil {
		return err
	}
	if err := r.bulk(ctx, ear); err != nil {
		return err
	}
	return profiles()
}

// begin returns an error if nothing more is to be begun.
func (r *run) begin() error {
	if r.program.budget > 0 && time.Since(r.process.started) > r.program.budget {
		return fmt.Errorf("%v are over, the rest is not done", r.program.budget)
	}
	return nil
}

// one makes changes one after another, each a pause after the one before is in the kernel, as often or as
// long as is to be.
func (r *run) one(ctx context.Context, ear ear, what string, pause time.Duration, next func(i int) step) (Latency, error) {
	if err := r.begin(); err != nil {
		return Latency{}, err
	}
	var took []time.Duration
	r.process.quiet(restPatience)
	deadline, cpu, transactions := time.Now().Add(r.bench.rowTime), r.process.cpu(), ear.Transactions()
	start := time.Now()
	for i := 0; i < r.bench.repeat && (len(took) < r.bench.least || time.Now().Before(deadline)); i++ {
		if r.program.slow {
			r.process.quiet(restPatience)
		}
		if err := r.pause(ctx, pause); err != nil {
			return Latency{}, err
		}
		d, err := r.do(ctx, ear, next(i))
		if err != nil {
			return Latency{}, err
		}
		took = append(took, d)
	}
	all := time.Since(start)
	r.process.quiet(restPatience)
	l := latency(took, r.process.cpu()-cpu)
	l.All, l.Transactions = all, ear.Transactions()-transactions
	r.say("%s, %d times: p50 %v, p99 %v, %v of CPU each", what, l.N, round(l.P50), round(l.P99), round(l.CPU))
	return l, nil
}

// do makes a change and returns how long it took.
func (r *run) do(ctx context.Context, ear ear, s step) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, r.program.limit)
	defer cancel()
	ear.Forget()
	ear.Expect(s.target)
	written, err := r.cluster.change(s.changes...)
	if err != nil {
		return 0, err
	}
	seen, err := ear.Wait(ctx, s.target)
	if err != nil {
		return 0, errors.Join(err, r.process.ended())
	}
	return time.Duration(seen[0] - written[0]), nil
}

// services measures Services that come, with endpoints, and go again.
func (r *run) services(ctx context.Context, ear ear) (err error) {
	var there []apiserver.Service
	// Service and endpoints are two events, which the peer may take for two changes.
	pause := 2 * r.program.pause
	r.result.Appear, err = r.one(ctx, ear, "one Service added", pause, func(int) step {
		s := r.cluster.another()
		there = append(there, s)
		return step{[]apiserver.Change{{Verb: apiserver.Put, Service: s}}, see.Target{Service: s.ClusterIP, Endpoint: s.Endpoints[0]}}
	})
	if err != nil {
		return fmt.Errorf("one Service added: %w", err)
	}
	repeat := r.bench.repeat
	defer func() { r.bench.repeat = repeat }()
	r.bench.repeat = min(repeat, len(there))
	r.result.Vanish, err = r.one(ctx, ear, "one Service removed", pause, func(i int) step {
		return step{[]apiserver.Change{{Verb: apiserver.Delete, Service: there[i]}}, see.Target{Service: there[i].ClusterIP}}
	})
	if err != nil {
		return fmt.Errorf("one Service removed: %w", err)
	}
	return nil
}

// bulk measures many changes. IPVS does not tell when each of them was done.
func (r *run) bulk(ctx context.Context, ear ear) (err error) {
	if r.bench.mode == modeIPVS {
		return nil
	}
	if err := r.begin(); err != nil {
		return err
	}
	if r.result.Burst, err = r.burst(ctx, ear); err != nil {
		return fmt.Errorf("burst: %w", err)
	}
	if err := r.begin(); err != nil {
		return err
	}
	if r.result.Rolling, err = r.rolling(ctx, ear); err != nil {
		return fmt.Errorf("rolling update: %w", err)
	}
	return nil
}

// burst measures many changes that are written at once.
func (r *run) burst(ctx context.Context, ear ear) (Latency, error) {
	c := r.cluster
	var changes []apiserver.Change
	var targets []see.Target
	for i := range min(r.bench.many, c.services*c.endpoints) {
		change, a := c.replace(i%c.services, i/c.services)
		changes = append(changes, change)
		targets = append(targets, see.Target{Service: change.Service.ClusterIP, Endpoint: a})
	}
	r.process.quiet(restPatience)
	ear.Forget()
	ear.Expect(targets...)
	cpu, transactions := r.process.cpu(), ear.Transactions()
	written, err := c.change(changes...)
	if err != nil {
		return Latency{}, err
	}
	return r.finish(ctx, ear, "burst", written, targets, cpu, transactions)
}

// rolling measures a rolling update: endpoints come, and the ones that they replace go, one after another.
func (r *run) rolling(ctx context.Context, ear ear) (Latency, error) {
	c := r.cluster
	var written []int64
	var targets []see.Target
	r.process.quiet(restPatience)
	ear.Forget()
	cpu, transactions := r.process.cpu(), ear.Transactions()
	ticks := time.NewTicker(rollingPace / 2)
	defer ticks.Stop()
	for i := range min(r.bench.many, c.services*c.endpoints) {
		number := (c.services/2 + i/c.endpoints) % c.services
		add, a := c.add(number)
		t := see.Target{Service: add.Service.ClusterIP, Endpoint: a}
		ear.Expect(t)
		targets = append(targets, t)
		for _, change := range []apiserver.Change{add, c.remove(number)} {
			at, err := c.change(change)
			if err != nil {
				return Latency{}, err
			}
			if change.Verb == apiserver.Endpoints && len(written) < len(targets) {
				written = append(written, at...)
			}
			<-ticks.C
		}
		if err := r.process.ended(); err != nil {
			return Latency{}, err
		}
	}
	return r.finish(ctx, ear, "rolling update", written, targets, cpu, transactions)
}

// finish waits for the end of many changes that were written.
func (r *run) finish(ctx context.Context, ear ear, what string, written []int64, targets []see.Target, cpu time.Duration, transactions int64) (Latency, error) {
	limited, cancel := context.WithTimeout(ctx, r.program.limit)
	defer cancel()
	seen, err := ear.Wait(limited, targets...)
	if err != nil {
		return Latency{}, err
	}
	last := int64(0)
	took := make([]time.Duration, len(seen))
	for i := range seen {
		took[i], last = time.Duration(seen[i]-written[i]), max(last, seen[i])
	}
	r.process.quiet(restPatience)
	l := latency(took, r.process.cpu()-cpu)
	l.All, l.Transactions = time.Duration(last-written[0]), ear.Transactions()-transactions
	r.say("%s of %d: %v in all, p50 %v, %d transactions, %v of CPU each", what, l.N, round(l.All), round(l.P50), l.Transactions, round(l.CPU))
	return l, nil
}
