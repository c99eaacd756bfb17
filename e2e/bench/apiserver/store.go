package apiserver

import (
	"slices"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// historySize is how many events are kept for watches that begin at an earlier version.
const historySize = 20000

// An entry is an object of the store: how to make it, and the event that adds it, in protobuf.
type entry struct {
	make  func() object
	frame []byte
}

// An event is a change of an object. The object is made anew for clients that want JSON.
type event struct {
	resource string
	version  int
	kind     apiwatch.EventType
	make     func() object
	frame    []byte // in protobuf
}

// A store holds objects by resource and name, and tells watches of changes.
type store struct {
	protobuf format

	mu      sync.Mutex // guards all below
	version int
	objects map[string]map[string]*entry
	// known are the Services as they were last put.
	known   map[string]Service
	history []event
	watches map[*watch]struct{}
}

// newStore returns a store with the objects that never change.
func newStore() *store {
	s := &store{
		protobuf: formatOf(runtime.ContentTypeProtobuf), version: 1, known: map[string]Service{}, watches: map[*watch]struct{}{},
		objects: map[string]map[string]*entry{services: {}, endpointSlices: {}},
	}
	for resource, o := range fixed() {
		o.SetResourceVersion("1")
		s.objects[resource] = map[string]*entry{o.GetName(): s.entry(func() object { return o.DeepCopyObject().(object) })}
	}
	return s
}

// entry returns an entry.
func (s *store) entry(make func() object) *entry {
	return &entry{make: make, frame: s.protobuf.frame(apiwatch.Added, make())}
}

// load puts Services without an event. No client may be there yet.
func (s *store) load(list []Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		for _, e := range s.put(list[i], true) {
			s.keep(&e)
		}
	}
	s.history = nil
}

// put returns the events that make a Service, itself and its slices or only those, what it should be.
func (s *store) put(want Service, itself bool) []event {
	var out []event
	if itself {
		out = append(out, s.event(services, want.Name, func() object { return want.service() }))
	}
	for i := range want.slices() {
		out = append(out, s.event(endpointSlices, sliceName(want.Name, i), func() object { return want.slice(i) }))
	}
	old, known := s.known[want.Name]
	for i := want.slices(); known && i < old.slices(); i++ {
		out = append(out, s.gone(endpointSlices, sliceName(want.Name, i)))
	}
	s.known[want.Name] = want
	return out
}

// remove returns the events that delete a Service with its slices.
func (s *store) remove(name string) []event {
	old, known := s.known[name]
	if !known {
		return nil
	}
	delete(s.known, name)
	out := []event{s.gone(services, name)}
	for i := range old.slices() {
		out = append(out, s.gone(endpointSlices, sliceName(name, i)))
	}
	return out
}

// event returns the event that adds or changes an object, which gets its version.
func (s *store) event(resource, name string, build func() object) event {
	kind := apiwatch.Modified
	if s.objects[resource][name] == nil {
		kind = apiwatch.Added
	}
	return s.next(resource, kind, build)
}

// gone returns the event that deletes an object.
func (s *store) gone(resource, name string) event {
	return s.next(resource, apiwatch.Deleted, s.objects[resource][name].make)
}

// next returns an event with the next version.
func (s *store) next(resource string, kind apiwatch.EventType, build func() object) event {
	s.version++
	version := strconv.Itoa(s.version)
	make := func() object {
		o := build()
		o.SetResourceVersion(version)
		return o
	}
	return event{resource: resource, version: s.version, kind: kind, make: make, frame: s.protobuf.frame(kind, make())}
}

// keep has the store hold what an event says.
func (s *store) keep(e *event) {
	name := e.make().GetName()
	switch e.kind {
	case apiwatch.Deleted:
		delete(s.objects[e.resource], name)
	case apiwatch.Added:
		s.objects[e.resource][name] = &entry{make: e.make, frame: e.frame}
	default:
		s.objects[e.resource][name] = s.entry(e.make)
	}
	s.history = append(s.history, *e)
	if len(s.history) > 2*historySize {
		s.history = slices.Clone(s.history[historySize:])
	}
}

// do makes changes and returns for each the time when its first event was about to be written to the
// sockets of the watches, in nanoseconds of CLOCK_MONOTONIC.
func (s *store) do(changes []Change) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([][]event, len(changes))
	for i := range changes {
		switch c := &changes[i]; c.Verb {
		case Delete:
			all[i] = s.remove(c.Service.Name)
		default:
			all[i] = s.put(c.Service, c.Verb == Put)
		}
		for k := range all[i] {
			s.keep(&all[i][k])
		}
	}
	written := make([]int64, len(changes))
	for i, events := range all {
		written[i] = Now()
		for k := range events {
			s.tell(&events[k])
		}
	}
	for w := range s.watches {
		w.flush()
	}
	return written
}

// tell hands an event to the watches of its resource.
func (s *store) tell(e *event) {
	for w := range s.watches {
		if w.resource == e.resource {
			w.write(e)
		}
	}
}

// list returns the version and the objects of a resource, by name.
func (s *store) list(resource string) (version int, items []runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.sorted(resource) {
		items = append(items, e.make())
	}
	return s.version, items
}

// sorted returns the entries of a resource by name. The caller holds mu.
func (s *store) sorted(resource string) []*entry {
	of := s.objects[resource]
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	out := make([]*entry, len(names))
	for i, name := range names {
		out[i] = of[name]
	}
	return out
}
