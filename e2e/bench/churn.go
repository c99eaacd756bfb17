package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/bench/see"
)

// churnPace is the time between two changes: a hundred in a second.
const churnPace = 10 * time.Millisecond

// churn changes Services without pause for a time at the first size and tells how memory went.
func (c *config) churn(ctx context.Context, long time.Duration, out io.Writer) (err error) {
	n, err := newNode("churn")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	a, err := startAPI(n.host)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	world, err := newCluster(a, c.sizes[0], c.endpoints)
	if err != nil {
		return err
	}
	r := &run{bench: &c.bench, program: c.programs[0], node: n, cluster: world, dir: c.dir, result: &Result{}}
	if r.sight, err = c.sight(r.program, n); err != nil {
		return err
	}
	defer r.sight.Close()
	if err := r.start(); err != nil {
		return err
	}
	defer r.process.kill()
	if err := r.synced(ctx, world.services); err != nil {
		return err
	}
	// A first round fills the caches and queues that stay.
	if err := r.churnFor(ctx, long/20, io.Discard); err != nil {
		return err
	}
	before, err := c.heap(r, "before")
	if err != nil {
		return err
	}
	cpu := r.process.cpu()
	if err := r.churnFor(ctx, long, out); err != nil {
		return err
	}
	cpu = r.process.cpu() - cpu
	after, err := c.heap(r, "after")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d Services, %v of churn, %v of CPU: heap in use %.1f -> %.1f MiB, resident %.1f -> %.1f MiB\n",
		world.services, long, round(cpu), mib(before.heap), mib(after.heap), mib(before.resident), mib(after.resident))
	return nil
}

// churnFor changes endpoints, and every tenth time a Service comes or goes, for a time.
func (r *run) churnFor(ctx context.Context, long time.Duration, out io.Writer) error {
	ticks := time.NewTicker(churnPace)
	defer ticks.Stop()
	c, made := r.cluster, 0
	var there []apiserver.Service
	for start, told := time.Now(), time.Now(); time.Since(start) < long; made++ {
		change, _ := c.replace(made*7%c.services, made)
		switch {
		case made%20 == 0:
			there = append(there, c.another())
			change = apiserver.Change{Verb: apiserver.Put, Service: there[len(there)-1]}
		case made%20 == 10:
			change = apiserver.Change{Verb: apiserver.Delete, Service: there[0]}
			there = there[1:]
		}
		if _, err := c.change(change); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.process.done:
			return r.process.ended()
		case <-ticks.C:
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			memory, err := see.MemoryOf(r.process.cmd.Process.Pid)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "after %v, %d changes: resident %.1f MiB\n", time.Since(start).Round(time.Second), made, mib(memory.Now))
		}
	}
	r.process.quiet(restPatience)
	return nil
}

// A heap is what a program has in use, in bytes.
type heap struct{ heap, resident int64 }

// heap returns what our program has in use after a collection, and writes a heap profile if profiles are
// wanted.
func (c *config) heap(r *run, when string) (heap, error) {
	profile, err := fetch(r.node, "/debug/pprof/heap?gc=1")
	if err != nil {
		return heap{}, err
	}
	if c.profiles != "" {
		if err := os.WriteFile(filepath.Join(c.profiles, "churn-"+when+"-heap.pprof"), profile, 0o644); err != nil {
			return heap{}, err
		}
	}
	metrics, err := fetch(r.node, "/metrics")
	if err != nil {
		return heap{}, err
	}
	m := regexp.MustCompile(`(?m)^go_memstats_heap_alloc_bytes (\S+)$`).FindSubmatch(metrics)
	if m == nil {
		return heap{}, errors.New("no go_memstats_heap_alloc_bytes among the metrics")
	}
	used, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return heap{}, err
	}
	memory, err := see.MemoryOf(r.process.cmd.Process.Pid)
	return heap{int64(used), memory.Now}, err
}

// mib returns bytes in MiB.
func mib(n int64) float64 { return float64(n) / (1 << 20) }
