package kube

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// A state is all that is known of a cluster.
type state struct {
	node         string
	needPodCIDRs bool
	// changed has an item if there is something to hand over.
	changed chan struct{}

	services *store[*v1.Service, model.Name, objects.Service]
	slices   *store[*discovery.EndpointSlice, model.Name, objects.Slice]
	nodes    *store[*v1.Node, string, objects.Node]
	cidrs    *store[*networking.ServiceCIDR, string, objects.ServiceCIDR]

	// mu guards what follows, the progress of each resource and what the stores hold.
	mu     sync.Mutex
	intern interner
	// newer says that values changed since a part was handed over that others come with.
	newer bool
	// spoke says that a part was handed over that does not wait. None does after that.
	spoke bool
	// faulty says that the faults of objects changed since objectProblems were made.
	faulty         bool
	objectProblems []watch.Problem
}

// newState returns the state of a node that knows nothing.
func newState(node string, needPodCIDRs bool) *state {
	s := &state{node: node, needPodCIDRs: needPodCIDRs, changed: make(chan struct{}, 1), intern: newInterner()}
	s.services = newStore(&progress{state: s, name: "services"}, "Service",
		func(o *v1.Service) (model.Name, *objects.Service, []objects.Fault) {
			v, found, _ := objects.FromService(o)
			return model.Name{Namespace: o.Namespace, Name: o.Name}, v, found
		})
	s.slices = newStore(&progress{state: s, name: "endpointslices.discovery.k8s.io"}, "EndpointSlice",
		func(o *discovery.EndpointSlice) (model.Name, *objects.Slice, []objects.Fault) {
			v, found, _ := objects.FromSlice(o)
			return model.Name{Namespace: o.Namespace, Name: o.Name}, v, found
		})
	s.nodes = newStore(&progress{state: s, name: "nodes"}, "Node",
		func(o *v1.Node) (string, *objects.Node, []objects.Fault) {
			v, found, _ := objects.FromNode(o)
			return o.Name, v, found
		})
	s.cidrs = newStore(&progress{state: s, name: "servicecidrs.networking.k8s.io", optional: true}, "ServiceCIDR",
		func(o *networking.ServiceCIDR) (string, *objects.ServiceCIDR, []objects.Fault) {
			v, found, _ := objects.FromServiceCIDR(o)
			return o.Name, v, found
		})
	s.services.compare, s.slices.compare = model.Name.Compare, model.Name.Compare
	s.nodes.compare, s.cidrs.compare = cmp.Compare[string], cmp.Compare[string]
	s.services.same, s.nodes.same, s.cidrs.same = same[objects.Service], same[objects.Node], same[objects.ServiceCIDR]
	s.slices.same = (*objects.Slice).SameEndpoints
	s.services.intern, s.slices.intern = s.intern.service, s.intern.slice
	s.services.awaits = true
	s.nodes.left = unknown
	return s
}

// unknown returns what stays of a Node that is gone: all but that it is known. While we run on it it
// will be back, as kubelet registers it again.
func unknown(n *objects.Node) *objects.Node {
	if !n.Model.Known {
		return n
	}
	out := *n
	out.Model.Known = false
	return &out
}

// same reports whether two values say the same.
func same[V any](a, b *V) bool { return reflect.DeepEqual(a, b) }

// incomplete reports whether something that belongs to what is to be handed over may be on its way.
func (s *state) incomplete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newer
}

// signal says that there is something to hand over.
func (s *state) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// part returns all that is known.
func (s *state) part() watch.Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newer = false
	var problems []watch.Problem
	waiting := false
	for _, p := range []*progress{s.services.progress, s.slices.progress, s.nodes.progress, s.cidrs.progress} {
		waiting = waiting || !p.done()
		if p.trouble != "" {
			problems = append(problems, watch.Problem{Source: sourceName, Object: p.name, Message: p.trouble, Minor: p.minor})
		}
	}
	node, ok := s.nodes.edit.Get(s.node)
	problem := watch.Problem{Source: sourceName, Object: "Node " + s.node}
	switch {
	case !s.nodes.synced:
	case s.needPodCIDRs && !s.spoke && (!ok || len(node.Model.PodCIDRs) == 0):
		waiting = true
		problem.Field, problem.Message = "spec.podCIDRs", "is not there; nothing is programmed before, as they tell local traffic"
		problems = append(problems, problem)
	case !ok:
		problem.Message = "does not exist; until it does its zone is unknown, and its addresses are guessed"
		problems = append(problems, problem)
	}
	if waiting {
		return watch.Part{Waiting: true, Problems: problems}
	}
	s.spoke = true
	if s.faulty {
		s.faulty = false
		s.objectProblems = slices.Concat(s.services.problems(), s.slices.problems(), s.nodes.problems(), s.cidrs.problems())
	}
	return watch.Part{
		Services: s.services.edit.Map(), Slices: s.slices.edit.Map(),
		Nodes: s.nodes.edit.Map(), ServiceCIDRs: s.cidrs.edit.Map(),
		Problems: append(problems, s.objectProblems...),
	}
}

// A progress is how far we are with one resource.
type progress struct {
	state *state
	// name is the one of the resource in rules of RBAC, with its API group.
	name string
	// optional says that all goes on if the API server does not have the resource or denies it.
	optional bool

	// The rest is guarded by state.mu.

	// synced says that all objects are known.
	synced bool
	// denied says that there is nothing to wait for.
	denied bool
	// trouble is what the API server last refused; empty for nothing. It is minor if nothing is lost.
	trouble string
	minor   bool
}

// done reports whether all is known that can be.
func (p *progress) done() bool { return p.synced || p.denied }

// works notes that the API server does as it is asked.
func (p *progress) works() { p.note("", false, false) }

// failed notes what the API server did not do.
func (p *progress) failed(err error) {
	missing := apierrors.IsNotFound(err)
	text := plain(err)
	switch {
	case missing:
		text = "the API server does not have them"
	case apierrors.IsForbidden(err):
		text = "the API server denies them (RBAC: list and watch are needed): " + text
	case apierrors.IsUnauthorized(err):
		text = "the API server does not know who we are: " + text
	}
	p.note(text, p.optional && missing, p.optional && (missing || apierrors.IsForbidden(err)))
}

// note notes the trouble with a resource and whether that is all that is to be known.
func (p *progress) note(trouble string, minor, denied bool) {
	p.state.mu.Lock()
	defer p.state.mu.Unlock()
	p.denied = p.denied || denied
	if trouble != "" {
		trouble += "; " + p.consequence()
	}
	if p.trouble != trouble || p.minor != minor {
		p.trouble, p.minor = trouble, minor
		p.state.signal()
	}
}

// consequence says what follows from trouble.
func (p *progress) consequence() string {
	switch {
	case p.synced:
		return "what was known stays"
	case p.denied:
		return "going on without"
	default:
		return fmt.Sprintf("nothing is programmed before all %s are known", p.name)
	}
}
