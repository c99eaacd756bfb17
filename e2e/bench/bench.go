package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nftproxy/nftproxy/e2e/bench/see"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

// The modes that programs are measured in.
const modeNFTables, modeIPVS = "nftables", "ipvs"

// foreignPause is the time between two transactions of somebody else during the first load.
const foreignPause = 5 * time.Millisecond

// A bench is a run of the benchmark.
type bench struct {
	mode     string
	programs []*program
	// skipPeer is the number of Services above which the peer is left out.
	skipPeer  int
	sizes     []int
	endpoints int
	// repeat is how often one change is made, unless rowTime is over and it was made least times; many is
	// the number of changes of a burst and of a rolling update.
	repeat, least, many int
	rowTime             time.Duration
	// rounds of roundTime, and of as many knocks, measure new connections.
	rounds, knocks int
	roundTime      time.Duration
	// look is how long a program must do next to nothing to be at rest.
	look time.Duration
	// profiles is a directory for profiles of our program; empty for none.
	profiles string
	dir      string
	talk     io.Writer
	began    time.Time
}

// say tells where the benchmark is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.talk, "%6.1fs %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// run measures all programs at all sizes. What was measured until an error is returned with it.
func (b *bench) run(ctx context.Context) ([]*Result, error) {
	var all []*Result
	for _, n := range b.sizes {
		results, err := b.size(ctx, n)
		all = append(all, results...)
		if err != nil {
			return all, fmt.Errorf("%d Services: %w", n, err)
		}
	}
	return all, nil
}

// size measures all programs at a size: each by itself on a node of its own, then connections on all nodes
// in turn.
func (b *bench) size(ctx context.Context, services int) (results []*Result, err error) {
	var hosts []*netns.NetNS
	var nodes []*node
	defer func() {
		for _, n := range nodes {
			err = errors.Join(err, n.close())
		}
	}()
	for range len(b.programs) + 1 { // one more for the first load beside somebody else
		n, err := newNode(fmt.Sprintf("bench %d", len(nodes)))
		if err != nil {
			return nil, err
		}
		nodes, hosts = append(nodes, n), append(hosts, n.host)
		stop, err := serve(n.server)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	a, err := startAPI(hosts...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	b.say("%d Services: filling the API server", services)
	c, err := newCluster(a, services, b.endpoints)
	if err != nil {
		return nil, err
	}
	var ready []*node
	var done []*Result
	for i, p := range b.programs {
		if i > 0 && b.skipPeer > 0 && services > b.skipPeer {
			results = append(results, &Result{Program: p.name, Version: p.version, Services: services, Endpoints: b.endpoints, Skipped: "left out"})
			continue
		}
		r, err := b.measure(ctx, p, nodes[i], c)
		if err != nil {
			return results, fmt.Errorf("%s: %w", p.name, err)
		}
		results = append(results, r)
		if b.mode == modeIPVS {
			if err := see.OpenIPVS(nodes[i].host, 0).Clear(); err != nil {
				return results, err
			}
		}
		if r.Skipped == "" {
			ready, done = append(ready, nodes[i]), append(done, r)
		}
	}
	if b.mode == modeIPVS || results[0].Skipped != "" {
		return results, nil
	}
	// What was measured so far is not lost by what goes wrong here.
	for i, err := range []error{b.beside(ctx, nodes[len(nodes)-1], c, results[0]), b.connections(ctx, ready, done)} {
		if ctx.Err() != nil {
			return results, err
		}
		if err != nil {
			results[0].Stopped = []string{"another during the first load: ", "new connections: "}[i] + err.Error()
			b.say("%s", results[0].Stopped)
		}
	}
	return results, nil
}

// beside measures how long somebody else waits for transactions during the first load of our program.
func (b *bench) beside(ctx context.Context, n *node, c *cluster, result *Result) error {
	p := b.programs[0]
	b.say("%s, %d Services: somebody else during the first load", p.name, c.services)
	r := &run{bench: b, program: p, node: n, cluster: c, dir: b.dir + "/beside"}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	var err error
	if r.sight, err = b.sight(p, n); err != nil {
		return err
	}
	defer r.sight.Close()
	stop, done := make(chan struct{}), make(chan error, 1)
	var took []time.Duration
	go func() {
		var err error
		took, err = see.Foreign(n.host, foreignPause, stop)
		done <- err
	}()
	err = r.start()
	if err == nil {
		defer r.process.kill()
		err = r.synced(ctx, c.services)
	}
	close(stop)
	if err = errors.Join(err, <-done); err != nil {
		return err
	}
	result.Foreign = latency(took, 0)
	b.say("somebody else waited for %d transactions: p99 %v, most %v", len(took), round(result.Foreign.P99), round(result.Foreign.Max))
	return nil
}

// sight returns what tells what the kernel of a node holds.
func (b *bench) sight(p *program, n *node) (sight, error) {
	if b.mode == modeIPVS {
		return see.OpenIPVS(n.host, min(b.endpoints, plainEndpoints)), nil
	}
	return see.OpenMap(n.host, p.table, p.set)
}

// ear returns what tells when the kernel of a node holds what changes lead to.
func (b *bench) ear(n *node) (ear, error) {
	if b.mode == modeIPVS {
		return see.OpenIPVS(n.host, 0), nil
	}
	return see.Listen(n.host)
}
