package watch

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// Join returns what the parts say together, and their problems. Where two parts hold the same object
// the first part's counts.
func Join(cfg Config, parts ...Part) (model.Snapshot, []Problem) {
	j := newJoiner(cfg, len(parts))
	for i, p := range parts {
		j.set(i, p)
	}
	s, _ := j.snapshot()
	return s, j.problems()
}

// A joiner joins parts and remembers what it made of them, so that the next change costs what it
// touches.
type joiner struct {
	cfg   Config
	parts []Part
	// slices are the slices of each Service, of all parts.
	slices map[model.Name][]heldSlice
	// touched are the Services to make again.
	touched map[model.Name]struct{}
	// triggered are the trigger times of the slices that changed since the last snapshot.
	triggered []time.Time
	last      model.Snapshot
	// stale says that the node or the ranges may be others than in last.
	stale bool
}

// A heldSlice is a slice of a part.
type heldSlice struct {
	part  int
	slice *objects.Slice
}

func newJoiner(cfg Config, parts int) *joiner {
	return &joiner{
		cfg:     cfg,
		parts:   make([]Part, parts),
		slices:  map[model.Name][]heldSlice{},
		touched: map[model.Name]struct{}{},
	}
}

// set replaces a part and notes which Services that touches.
func (j *joiner) set(i int, p Part) {
	old := j.parts[i]
	j.parts[i] = p
	j.stale = j.stale || !old.Nodes.Same(p.Nodes) || !old.ServiceCIDRs.Same(p.ServiceCIDRs) || !slices.Equal(old.Addresses, p.Addresses)
	for c := range model.Changes(old.Services, p.Services) {
		j.touched[c.Key] = struct{}{}
	}
	for c := range model.Changes(old.Endpoints, p.Endpoints) {
		j.touched[c.Key] = struct{}{}
	}
	for c := range model.Changes(old.Slices, p.Slices) {
		if c.HasOld {
			held := heldSlice{i, c.Old}
			of := slices.DeleteFunc(j.slices[c.Old.Service], func(h heldSlice) bool { return h == held })
			if j.slices[c.Old.Service] = of; len(of) == 0 {
				delete(j.slices, c.Old.Service)
			}
			j.touched[c.Old.Service] = struct{}{}
		}
		if c.HasNew {
			j.slices[c.New.Service] = append(j.slices[c.New.Service], heldSlice{i, c.New})
			j.touched[c.New.Service] = struct{}{}
			if c.New.Triggered.After(j.cfg.Since) && (!c.HasOld || !c.New.SameEndpoints(c.Old)) {
				j.triggered = append(j.triggered, c.New.Triggered)
			}
		}
	}
}

// snapshot returns what the parts say now and reports whether that differs from the last time.
func (j *joiner) snapshot() (model.Snapshot, bool) {
	s := model.Snapshot{Services: j.services(), Node: j.last.Node, ServiceCIDRs: j.last.ServiceCIDRs}
	changed := false
	for range model.Changes(j.last.Services, s.Services) {
		changed = true
		break
	}
	if !changed {
		s.Services = j.last.Services
	}
	if j.stale || s.Node == nil {
		if node := j.node(); !reflect.DeepEqual(node, s.Node) {
			s.Node, changed = node, true
		}
		if ranges := j.serviceCIDRs(); !slices.Equal(ranges, s.ServiceCIDRs) {
			s.ServiceCIDRs, changed = ranges, true
		}
		j.stale = false
	}
	j.last = s
	// A change that leads to no snapshot is not programmed: there is nothing to measure.
	s.Triggered, j.triggered = j.triggered, nil
	return s, changed
}

// services makes the touched Services again. One that comes out the same stays the same pointer.
func (j *joiner) services() model.Map[model.Name, *model.Service] {
	if len(j.touched) == 0 {
		return j.last.Services
	}
	edit := j.last.Services.Edit()
	for name := range j.touched {
		service := first(j.parts, name, func(p *Part) model.Map[model.Name, *objects.Service] { return p.Services })
		if service == nil {
			edit.Delete(name)
			continue
		}
		joined := objects.Join(objects.Options{AllowExternalIPs: j.cfg.AllowExternalIPs}, service, j.slicesOf(name))
		if have, ok := edit.Get(name); ok && have.Equal(joined) {
			continue
		}
		edit.Set(name, joined)
	}
	// A new map: that of the first snapshot is as large as the cluster.
	j.touched = map[model.Name]struct{}{}
	return edit.Map()
}

// slicesOf returns the slices of a Service in the order in which they count, or its v1 Endpoints if
// it has no slice.
func (j *joiner) slicesOf(name model.Name) []*objects.Slice {
	of := j.slices[name]
	if len(of) == 0 {
		e := first(j.parts, name, func(p *Part) model.Map[model.Name, *objects.Slice] { return p.Endpoints })
		if e == nil {
			return nil
		}
		return []*objects.Slice{e}
	}
	slices.SortFunc(of, func(a, b heldSlice) int {
		if c := a.slice.Name.Compare(b.slice.Name); c != 0 {
			return c
		}
		return a.part - b.part
	})
	out := make([]*objects.Slice, 0, len(of))
	for i, h := range of {
		if i == 0 || h.slice.Name != of[i-1].slice.Name {
			out = append(out, h.slice)
		}
	}
	return out
}

// first returns the value of a key in the first part that has one; nil if none has.
func first[K comparable, V any](parts []Part, key K, of func(*Part) model.Map[K, *V]) *V {
	for i := range parts {
		if v, ok := of(&parts[i]).Get(key); ok {
			return v
		}
	}
	return nil
}

// node returns this node.
func (j *joiner) node() *model.Node {
	n := &model.Node{Name: j.cfg.NodeName}
	object := first(j.parts, j.cfg.NodeName, func(p *Part) model.Map[string, *objects.Node] { return p.Nodes })
	if object != nil {
		*n = object.Model
	}
	var addresses []Address
	for i := range j.parts {
		addresses = append(addresses, j.parts[i].Addresses...)
	}
	slices.SortStableFunc(addresses, func(a, b Address) int { return a.Index - b.Index })
	guess := len(n.PrimaryIPs) == 0
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, a.Addr)
		if guess && !a.Virtual && a.Addr.IsGlobalUnicast() {
			n.PrimaryIPs = objects.AppendFamily(n.PrimaryIPs, a.Addr)
		}
	}
	if ip := j.cfg.NodeIP; ip.IsValid() {
		others := slices.DeleteFunc(slices.Clone(n.PrimaryIPs), func(a netip.Addr) bool { return a.Is4() == ip.Is4() })
		n.PrimaryIPs = append([]netip.Addr{ip}, others...)
	}
	slices.SortFunc(n.Addresses, netip.Addr.Compare)
	n.Addresses = slices.Compact(n.Addresses)
	return n
}

// serviceCIDRs returns the ranges of all ServiceCIDR objects.
func (j *joiner) serviceCIDRs() []netip.Prefix {
	var out []netip.Prefix
	for i := range j.parts {
		for _, c := range j.parts[i].ServiceCIDRs.All() {
			out = append(out, c.Prefixes...)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(out)
}

// problems returns the problems of all parts, sorted.
func (j *joiner) problems() []Problem {
	var out []Problem
	for i := range j.parts {
		out = append(out, j.parts[i].Problems...)
	}
	slices.SortFunc(out, Problem.Compare)
	return slices.Compact(out)
}
