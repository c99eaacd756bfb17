package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/bench/see"
)

const (
	// samples is how many Services are looked for before all are counted.
	samples = 64
	// pollPause is the time between two looks.
	pollPause = 2 * time.Millisecond
	// countPause is the longest time between two looks at everything.
	countPause = 250 * time.Millisecond
	// restPatience is how long a program may take to come to rest.
	restPatience = time.Minute
)

// A run is a program on a node, while it is measured.
type run struct {
	bench   *bench
	program *program
	node    *node
	cluster *cluster
	dir     string
	process *process
	sight   sight
	result  *Result
}

// A sight tells what the kernel holds. It does not wait for transactions.
type sight interface {
	Has(netip.AddrPort) (bool, error)
	Count() (int, error)
	Close() error
}

// An ear tells when the kernel holds what changes lead to.
type ear interface {
	Expect(...see.Target)
	Wait(context.Context, ...see.Target) ([]int64, error)
	Forget()
	Transactions() int64
	Close() error
}

// measure measures a program at the size of a cluster. The rules stay on the node.
func (b *bench) measure(ctx context.Context, p *program, n *node, c *cluster) (_ *Result, err error) {
	r := &run{bench: b, program: p, node: n, cluster: c, result: &Result{Program: p.name, Version: p.version, Services: c.services, Endpoints: c.endpoints}}
	r.dir = filepath.Join(b.dir, fmt.Sprintf("%s-%d", p.name, c.services))
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, err
	}
	if r.sight, err = b.sight(p, n); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.sight.Close()) }()
	apiBefore := c.cpu()
	defer func() {
		r.result.APICPU = c.cpu() - apiBefore
		if r.process != nil {
			r.process.kill()
		}
	}()
	if err := r.first(ctx); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			r.result.Skipped = "not done after " + p.limit.String()
			r.say("%s; its log ends: %s", r.result.Skipped, r.process.tail())
			return r.result, nil
		}
		return nil, err
	}
	for _, step := range []func(context.Context) error{r.changes, r.restart} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil || r.process.ended() != nil {
				return nil, errors.Join(err, r.process.ended())
			}
			b.say("%s: %v", p.name, err)
			r.result.Stopped = err.Error()
			break
		}
	}
	return r.result, nil
}

// say tells where the run is.
func (r *run) say(format string, args ...any) {
	r.bench.say("%s, %d Services: %s", r.program.name, r.cluster.services, fmt.Sprintf(format, args...))
}

// start starts the program.
func (r *run) start() (err error) {
	r.process, err = start(r.program, r.node, r.dir, r.bench.look)
	return err
}

// first measures the first sync.
func (r *run) first(ctx context.Context) error {
	r.say("first sync")
	before, err := settledKernelMemory()
	if err != nil {
		return err
	}
	if err := r.start(); err != nil {
		return err
	}
	profiles := r.bench.profile(r, "first")
	limited, cancel := context.WithTimeout(ctx, r.program.limit)
	defer cancel()
	if err := r.synced(limited, r.cluster.services); err != nil {
		return err
	}
	r.result.First = time.Since(r.process.started)
	r.process.quiet(restPatience)
	r.result.FirstCPU = r.process.cpu()
	after, err := settledKernelMemory()
	r.result.Kernel = after - before
	r.say("first sync took %v and %v of CPU", round(r.result.First), round(r.result.FirstCPU))
	return errors.Join(err, profiles())
}

// synced waits until the kernel holds n numbered Services and those with traffic.
func (r *run) synced(ctx context.Context, n int) error {
	some := []netip.AddrPort{frontEnd(netip.MustParseAddr(plainIP)), frontEnd(netip.MustParseAddr(stickyIP))}
	for i := range min(samples, n) {
		some = append(some, frontEnd(apiserver.Numbered((n-1)-i*n/min(samples, n), 0).ClusterIP))
	}
	if err := r.holds(ctx, some...); err != nil {
		return err
	}
	for {
		began := time.Now()
		count, err := r.sight.Count()
		if err != nil {
			return err
		}
		if count >= n+len(trafficServices()) {
			return nil
		}
		// Looking at everything takes the program's time: a tenth at most, but what it adds to the result is limited, too.
		if err := r.pause(ctx, min(max(pollPause, 10*time.Since(began)), countPause)); err != nil {
			return err
		}
	}
}

// holds waits until the kernel holds front ends.
func (r *run) holds(ctx context.Context, fronts ...netip.AddrPort) error {
	for len(fronts) > 0 {
		ok, err := r.sight.Has(fronts[0])
		if err != nil {
			return err
		}
		if ok {
			fronts = fronts[1:]
			continue
		}
		if err := r.pause(ctx, pollPause); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for a time, unless the context or the program ends.
func (r *run) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.process.done:
		return r.process.ended()
	case <-time.After(d):
		return nil
	}
}

// frontEnd returns the front end of a Service.
func frontEnd(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, apiserver.Port) }

// settledKernelMemory returns the memory of the kernel when it does not change any more: what is given
// back is given back later.
func settledKernelMemory() (int64, error) {
	const looks, close = 40, 1 << 20
	last, err := see.KernelMemory()
	for range looks {
		if err != nil {
			return 0, err
		}
		time.Sleep(250 * time.Millisecond)
		var now int64
		now, err = see.KernelMemory()
		if last-now < close && now-last < close {
			return now, err
		}
		last = now
	}
	return last, err
}

// restart measures a restart with rules in place, under a client that connects without pause.
func (r *run) restart(ctx context.Context) error {
	if err := r.begin(); err != nil {
		return err
	}
	r.say("restart")
	client := startPinger(r.node)
	defer client.stop()
	if err := r.pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	r.process.stop()
	s := r.cluster.another()
	if _, err := r.cluster.change(apiserver.Change{Verb: apiserver.Put, Service: s}); err != nil {
		return err
	}
	if err := r.start(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, r.program.limit)
	defer cancel()
	if err := r.holds(limited, frontEnd(s.ClusterIP)); err != nil {
		return err
	}
	r.result.Restart.Took = time.Since(r.process.started)
	r.process.quiet(restPatience)
	r.result.Restart.CPU = r.process.cpu()
	client.stop()
	r.result.Restart.Asked, r.result.Restart.Failed, r.result.Restart.Slowest = client.asked, client.failed, client.slowest
	r.say("restart took %v; %d of %d connections failed", round(r.result.Restart.Took), client.failed, client.asked)
	return client.err
}

// round shortens a duration for people.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
