package kube

import (
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// maxInterned is how many values of a kind the interner knows. Names come and go, in a cluster that
// scales: when there are more it starts afresh, at the price of a second copy.
const maxInterned = 1 << 15

// An interner gives out one copy of values that many objects have in common. It must not be used by
// two goroutines at a time.
type interner struct {
	words map[string]string
	ports map[objects.SlicePort][]objects.SlicePort
	hints map[hint]*model.Hints
}

// A hint is hints with at most one zone and one node.
type hint struct {
	zone, node       string
	hasZone, hasNode bool
}

// newInterner returns an interner that knows nothing.
func newInterner() interner {
	return interner{map[string]string{}, map[objects.SlicePort][]objects.SlicePort{}, map[hint]*model.Hints{}}
}

// known returns the one copy of a value.
func known[K comparable, V any](values map[K]V, key K, value V) V {
	if have, ok := values[key]; ok {
		return have
	}
	if len(values) >= maxInterned {
		clear(values)
	}
	values[key] = value
	return value
}

// word makes a string the one copy of it.
func (i *interner) word(s *string) { *s = known(i.words, *s, *s) }

// service interns what a Service has in common with others.
func (i *interner) service(s *objects.Service) {
	i.word(&s.Model.Name.Namespace)
	i.word(&s.Model.Name.Name)
	for n := range s.Model.Ports {
		i.word(&s.Model.Ports[n].Name)
	}
}

// slice interns what a slice has in common with others.
func (i *interner) slice(s *objects.Slice) {
	i.word(&s.Name.Namespace)
	i.word(&s.Service.Namespace)
	i.word(&s.Service.Name)
	for n := range s.Subsets {
		subset := &s.Subsets[n]
		for m := range subset.Ports {
			i.word(&subset.Ports[m].Name)
		}
		if len(subset.Ports) == 1 {
			subset.Ports = known(i.ports, subset.Ports[0], subset.Ports)
		}
		for m := range subset.Endpoints {
			e := &subset.Endpoints[m]
			i.word(&e.Node)
			e.Hints = i.hint(e.Hints)
		}
	}
}

// hint returns the one copy of hints, with their names interned.
func (i *interner) hint(h *model.Hints) *model.Hints {
	if h == nil {
		return nil
	}
	for _, list := range [][]string{h.Zones, h.Nodes} {
		for n := range list {
			i.word(&list[n])
		}
	}
	if len(h.Zones) > 1 || len(h.Nodes) > 1 {
		return h
	}
	var key hint
	if len(h.Zones) == 1 {
		key.zone, key.hasZone = h.Zones[0], true
	}
	if len(h.Nodes) == 1 {
		key.node, key.hasNode = h.Nodes[0], true
	}
	return known(i.hints, key, h)
}
