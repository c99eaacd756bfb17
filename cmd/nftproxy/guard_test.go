package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/kernel"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/events"
	"github.com/nftproxy/nftproxy/proxier/health"
	ipvsfake "github.com/nftproxy/nftproxy/proxier/ipvs/fake"
	"github.com/nftproxy/nftproxy/proxier/metrics"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// A cost is what a change takes, on the way from the object of the API to the messages for the kernel.
type cost struct {
	allocs, bytes            uint64 // of the program
	elements, messages, wire int    // of the kernel
}

// A countingKernel encodes what it is given and counts it.
type countingKernel struct {
	cost
	// done has an item after a sync.
	done chan struct{}
}

func (k *countingKernel) Load(string) ([]nft.Table, error) { return nil, nil }

func (k *countingKernel) Commit(tx nft.Tx) error {
	batch, err := kernel.Encode(tx)
	if err != nil {
		return err
	}
	for range tx {
		k.elements++
	}
	k.messages += batch.Stats().Messages
	k.wire += batch.Stats().Bytes
	return nil
}

// noEntries is connection tracking without entries.
type noEntries struct{}

func (noEntries) DeleteUDP(context.Context, nft.Family, []netip.AddrPort, func(conntrack.Entry) bool) (int, error) {
	return 0, nil
}

// A world is what there is but for the Services.
type world struct {
	name string
	// protocol is that of all Services.
	protocol v1.Protocol
	// ipvs is whether IPVS serves them.
	ipvs bool
}

// A guarded is a hub, an engine and all that observes it at work, with a source that the test plays.
type guarded struct {
	world
	t      *testing.T
	kernel *countingKernel
	put    func(watch.Part)
	part   watch.Part
}

func (g *guarded) String() string { return "test" }

// Run hands over what the test says.
func (g *guarded) Run(ctx context.Context, put func(watch.Part)) error {
	g.put = put
	g.kernel.done <- struct{}{}
	<-ctx.Done()
	return nil
}

// service takes the event of a Service.
func (g *guarded) service(i int) {
	ip := fmt.Sprintf("10.96.%d.%d", i>>8, i&255)
	service := &v1.Service{
		ObjectMeta: meta.ObjectMeta{Namespace: "ns", Name: fmt.Sprintf("service-%d", i)},
		Spec:       v1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []v1.ServicePort{{Name: "http", Protocol: g.protocol, Port: 80}}},
	}
	if g.ipvs {
		service.Annotations = map[string]string{objects.AnnotationScheduler: "rr"}
	}
	s, _, ok := objects.FromService(service)
	if !ok {
		g.t.Fatal("the Service is of no use")
	}
	e := g.part.Services.Edit()
	e.Set(s.Model.Name, s)
	g.part.Services = e.Map()
}

// gone takes the event that a Service is gone.
func (g *guarded) gone(i int) {
	e := g.part.Services.Edit()
	e.Delete(model.Name{Namespace: "ns", Name: fmt.Sprintf("service-%d", i)})
	g.part.Services = e.Map()
}

// slice takes the event of the slice of a Service with endpoints from a number on.
func (g *guarded) slice(i, first, n int) {
	name, port, ready := "http", int32(8080), true
	s := &discovery.EndpointSlice{
		ObjectMeta: meta.ObjectMeta{
			Namespace: "ns", Name: fmt.Sprintf("service-%d-x", i),
			Labels: map[string]string{discovery.LabelServiceName: fmt.Sprintf("service-%d", i)},
		},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Protocol: &g.protocol, Port: &port}},
	}
	for j := range n {
		s.Endpoints = append(s.Endpoints, discovery.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.%d.%d.%d", first+j, i>>8, i&255)},
			Conditions: discovery.EndpointConditions{Ready: &ready},
		})
	}
	c, _, ok := objects.FromSlice(s)
	if !ok {
		g.t.Fatal("the slice is of no use")
	}
	e := g.part.Slices.Edit()
	e.Set(c.Name, c)
	g.part.Slices = e.Map()
}

// send hands over what is known, waits until it is programmed and returns what that cost.
func (g *guarded) send(change func()) cost {
	select {
	case <-g.kernel.done: // of a sync that is nobody's
	default:
	}
	g.kernel.cost = cost{}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	change()
	g.put(g.part)
	<-g.kernel.done
	runtime.ReadMemStats(&after)
	c := g.kernel.cost
	c.allocs, c.bytes = after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	return c
}

// guard starts a hub, an engine and its observers with n Services of 10 endpoints each.
func guard(t *testing.T, w world, n int) *guarded {
	t.Helper()
	k := &countingKernel{done: make(chan struct{}, 1)}
	g := &guarded{t: t, world: w, kernel: k}
	servers := &ipvsfake.Kernel{}
	if !w.ipvs {
		servers.Without = []string{""}
	}
	observer := &observer{
		log: zap.NewNop(), tracker: status.NewTracker(status.Config{}), board: events.NewBoard(),
		metrics: metrics.New(prometheus.NewPedanticRegistry(), metrics.Config{}),
		checks:  health.New(health.Config{Log: zap.NewNop(), Report: func([]events.Event) {}}),
	}
	hub := watch.NewHub(watch.Config{NodeName: "here", Queued: observer.queued}, g)
	engine := proxier.New(plan.Config{MasqueradeBit: 14}, k, servers, zap.NewNop())
	observer.observe(engine, hub)
	cleaner := conntrack.New(noEntries{}, zap.NewNop(), observer.passed)
	engine.Observe(cleaner.Observe)
	engine.Observe(func(s proxier.Sync) {
		if s.Err != nil {
			t.Errorf("sync: %v", s.Err)
		}
		select {
		case k.done <- struct{}{}:
		default:
		}
	})
	group, ctx := errgroup.WithContext(t.Context())
	group.Go(func() error { return hub.Run(ctx) })
	group.Go(func() error { return engine.Run(ctx, hub.Snapshots()) })
	group.Go(func() error { return observer.checks.Run(ctx) })
	group.Go(func() error { return cleaner.Run(ctx) })
	t.Cleanup(func() {
		// The context of a test ends before its cleanup.
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	<-k.done
	g.send(func() {
		for i := range n {
			g.service(i)
			g.slice(i, 10, 10)
		}
		nodes := model.Map[string, *objects.Node]{}.Edit()
		nodes.Set("here", &objects.Node{Model: model.Node{Name: "here", Known: true}})
		g.part.Nodes = nodes.Map()
	})
	return g
}

// What changes cost is compared among few Services and among many.
const few, many = 200, 2000

// A guardedChange is a kind of change, and what it may cost the kernel.
type guardedChange struct {
	name                     string
	do                       func(g *guarded, round int)
	elements, messages, wire int
}

// guardedChanges returns the kinds of changes that are guarded.
func guardedChanges() []guardedChange {
	return []guardedChange{
		{"an endpoint replaced", func(g *guarded, round int) { g.slice(7, 11+round, 10) }, 2, 4, 400},
		{"an endpoint added", func(g *guarded, round int) { g.slice(8, 10, 11+round) }, 3, 5, 600},
		{"a Service added", func(g *guarded, round int) { g.service(40_000 + round); g.slice(40_000+round, 10, 10) }, 12, 5, 1600},
		{"an endpoint removed", func(g *guarded, round int) { g.slice(50+round, 10, 9) }, 3, 5, 600},
		{"a Service deleted", func(g *guarded, round int) { g.gone(100 + round) }, 12, 5, 1600},
		{"an unserved Service added", func(g *guarded, round int) { g.service(41_000 + round) }, 2, 4, 500},
	}
}

// TestChangeCost counts what changes cost among few Services and among ten times as many, from the object of
// the API to the messages for the kernel. It times nothing: it fails when somebody makes a change cost what
// there is and not what changed.
func TestChangeCost(t *testing.T) {
	tcp := world{protocol: v1.ProtocolTCP}
	small, large := guard(t, tcp, few), guard(t, tcp, many)
	for _, change := range guardedChanges() {
		t.Run(change.name, func(t *testing.T) {
			// The least of many: what else runs allocates now and then, too, and with the race detector each
			// sync.Pool loses a quarter of what it is given.
			least := func(g *guarded) cost {
				c := g.send(func() { change.do(g, 0) })
				for round := 1; round < 20; round++ {
					again := g.send(func() { change.do(g, round) })
					c.allocs, c.bytes = min(c.allocs, again.allocs), min(c.bytes, again.bytes)
				}
				return c
			}
			a, b := least(small), least(large)
			t.Logf("%d Services: %+v; %d: %+v", few, a, many, b)
			for _, c := range []cost{a, b} {
				if c.elements != change.elements || c.messages > change.messages || c.wire > change.wire {
					t.Errorf("%d steps, %d messages, %d bytes for the kernel; want %d, at most %d, %d",
						c.elements, c.messages, c.wire, change.elements, change.messages, change.wire)
				}
			}
			// The maps are trees: they are a little deeper.
			if b.allocs > a.allocs+a.allocs/4+30 || b.bytes > a.bytes+a.bytes/4+10_000 {
				t.Errorf("%d allocations of %d bytes among %d Services; %d of %d among %d: want about the same",
					b.allocs, b.bytes, many, a.allocs, a.bytes, few)
			}
		})
	}
}
