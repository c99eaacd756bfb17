package kube

import (
	"fmt"
	"slices"

	"k8s.io/client-go/tools/cache"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// maxProblems is how many problems of one kind of objects are told one by one.
const maxProblems = 100

// A store keeps what a reflector hears of one kind of objects: O as the API has them, V as the proxy
// reads them. An object that says what it said before stays the same pointer.
type store[O any, K comparable, V any] struct {
	*progress
	// kind is that of the objects, in problems.
	kind string
	// cut returns what is read of an object: nil for nothing.
	cut func(O) (K, *V, []objects.Fault)
	// intern replaces what the value has in common with others.
	intern func(*V)
	// same reports whether two values say the same.
	same func(a, b *V) bool
	// compare orders keys.
	compare func(a, b K) int
	// awaits says that others may change with these, and not only come and go.
	awaits bool
	// left returns what stays of an object that is gone; nil for nothing.
	left func(*V) *V

	// The rest is guarded by state.mu.

	edit   *model.Edit[K, *V]
	faults map[K][]objects.Fault
}

// A cutObject is what is kept of an object of the API.
type cutObject[K comparable, V any] struct {
	key    K
	value  *V
	faults []objects.Fault
}

// newStore returns an empty store.
func newStore[O any, K comparable, V any](p *progress, kind string, cut func(O) (K, *V, []objects.Fault)) *store[O, K, V] {
	return &store[O, K, V]{
		progress: p, kind: kind, cut: cut, intern: func(*V) {}, left: func(*V) *V { return nil },
		edit: model.Map[K, *V]{}.Edit(), faults: map[K][]objects.Fault{},
	}
}

// Transformer returns what client-go is to make of objects at once while it collects the first ones,
// so that it never holds them all.
func (s *store[O, K, V]) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		if c, ok := o.(*cutObject[K, V]); ok {
			return c, nil
		}
		return s.convert(o)
	}
}

// convert cuts an object. A value that says what the one in the store says is that one.
func (s *store[O, K, V]) convert(o any) (*cutObject[K, V], error) {
	if c, ok := o.(*cutObject[K, V]); ok {
		return c, nil
	}
	object, ok := o.(O)
	if !ok {
		return nil, fmt.Errorf("%s: the API server sent a %T", s.name, o)
	}
	c := &cutObject[K, V]{}
	c.key, c.value, c.faults = s.cut(object)
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	if c.value == nil {
		return c, nil
	}
	if have, ok := s.edit.Get(c.key); ok && s.same(have, c.value) {
		c.value = have
	} else {
		s.intern(c.value)
	}
	return c, nil
}

// Add takes an object that is new.
func (s *store[O, K, V]) Add(o any) error {
	c, err := s.convert(o)
	if err != nil {
		return err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.set(c)
	return nil
}

// Update takes an object that changed.
func (s *store[O, K, V]) Update(o any) error { return s.Add(o) }

// Delete takes an object that is gone.
func (s *store[O, K, V]) Delete(o any) error {
	c, err := s.convert(o)
	if err != nil {
		return err
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.set(&cutObject[K, V]{key: c.key})
	return nil
}

// Replace takes all objects that there are. What is not among them is gone.
func (s *store[O, K, V]) Replace(list []any, _ string) error {
	there := make(map[K]struct{}, len(list))
	cuts := make([]*cutObject[K, V], 0, len(list))
	for _, o := range list {
		c, err := s.convert(o)
		if err != nil {
			return err
		}
		there[c.key] = struct{}{}
		cuts = append(cuts, c)
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	var gone []K
	for key := range s.edit.Map().All() {
		if _, ok := there[key]; !ok {
			gone = append(gone, key)
		}
	}
	for key := range s.faults {
		if _, ok := there[key]; !ok {
			gone = append(gone, key)
		}
	}
	for _, key := range gone {
		s.set(&cutObject[K, V]{key: key})
	}
	for _, c := range cuts {
		s.set(c)
	}
	if !s.synced {
		s.synced = true
		s.state.signal()
	}
	return nil
}

// Resync does nothing: what is in the store was handed over.
func (s *store[O, K, V]) Resync() error { return nil }

// set takes what an object says now, and signals if that is news.
func (s *store[O, K, V]) set(c *cutObject[K, V]) {
	value := c.value
	have, ok := s.edit.Get(c.key)
	if value == nil && ok {
		value = s.left(have)
	}
	switch {
	case value == nil && ok:
		s.edit.Delete(c.key)
		s.news(true)
	case value != have:
		s.edit.Set(c.key, value)
		s.news(!ok || s.awaits)
	}
	if slices.Equal(s.faults[c.key], c.faults) {
		return
	}
	if len(c.faults) > 0 {
		s.faults[c.key] = c.faults
	} else {
		delete(s.faults, c.key)
	}
	s.state.faulty = true
	s.state.signal()
}

// news says that there is something to hand over, and whether something else may come with it: a Service and its
// EndpointSlice come and go by two streams, in either order.
func (s *store[O, K, V]) news(more bool) {
	s.state.newer = s.state.newer || more
	s.state.signal()
}

// problems returns what is wrong with the objects: not all, if that would be too much to read.
func (s *store[O, K, V]) problems() []watch.Problem {
	keys := make([]K, 0, len(s.faults))
	for key := range s.faults {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, s.compare)
	var out []watch.Problem
	for i, key := range keys {
		if len(out) >= maxProblems {
			out = append(out, watch.Problem{
				Source: sourceName, Object: s.name, Message: fmt.Sprintf("%d more objects with problems", len(keys)-i),
			})
			break
		}
		for _, f := range s.faults[key] {
			out = append(out, watch.Problem{
				Source: sourceName, Object: fmt.Sprintf("%s %v", s.kind, key), Field: f.Field, Message: f.Message, Minor: f.Minor,
			})
		}
	}
	return out
}
