package plan

import (
	"cmp"
	"iter"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
)

// A long transaction keeps everybody else from nftables for seconds, so it is cut (see nft.Cut). What
// makes up a Service is between two cuts: nobody meets one that is half made. What several Services share
// comes before them, and of what goes the front ends go first.

// longChange is the number of changed keys from which on a difference may be cut.
const longChange = 1000

// A change is a step about one element.
type change struct {
	verb  nft.Verb
	entry entry
	// first says that the last Service is complete.
	first bool
}

// byService yields changed keys Service by Service, those that several share before.
func byService(changed []changedKey) iter.Seq[[]changedKey] {
	shared := func(c *changedKey) int {
		if c.key.kind == keyHairpin {
			return 0
		}
		return 1
	}
	order := func(a, b changedKey) int {
		return cmp.Or(cmp.Compare(shared(&a), shared(&b)), a.owner().service.Name.Compare(b.owner().service.Name))
	}
	sorted := slices.Clone(changed)
	slices.SortStableFunc(sorted, order)
	return func(yield func([]changedKey) bool) {
		for len(sorted) > 0 {
			n := 1
			for n < len(sorted) && order(sorted[0], sorted[n]) == 0 {
				n++
			}
			if !yield(sorted[:n]) {
				return
			}
			sorted = sorted[n:]
		}
	}
}

// owner returns the claim that holds the key now or, if none does, the one that did.
func (c *changedKey) owner() *claim {
	if c.now != nil {
		return c.now
	}
	return c.old
}

// diffElements finds the elements to add and to remove.
func (d *tableDiff) diffElements(have *nft.Table, want *State) {
	had := map[string]*index{}
	ranges := map[key][]*nft.Element{}
	for i := range have.Sets {
		set := have.Sets[i].Name
		elements := have.Elements[set]
		had[set] = newIndex(elements)
		if set == setSourceRanges {
			for j := range elements {
				e := &elements[j]
				k, _ := keyOf(have.Family, set, &e.Key)
				ranges[k] = append(ranges[k], e)
			}
		}
	}
	first := false
	step := func(v nft.Verb, e entry) {
		d.changed = append(d.changed, change{v, e, first})
		first = false
	}
	keep := func(e *entry) {
		old := had[e.set].take(&e.element.Key)
		if old != nil && *old == e.element {
			return
		}
		if old != nil {
			step(nft.Delete, entry{e.set, *old})
		}
		step(nft.Add, *e)
	}
	for set, elements := range d.frame.Elements {
		for i := range elements {
			keep(&entry{set, elements[i]})
		}
	}
	want.links(keep)
	for part := range want.services(d.frame.Family) {
		first = true
		for i := range part {
			// Ranges must not overlap, so those that go go first.
			for _, old := range ranges[part[i].key] {
				e := entry{setSourceRanges, *old}
				if !slices.Contains(part[i].entries, e) {
					step(nft.Delete, e)
					had[setSourceRanges].take(&old.Key)
				}
			}
			for j := range part[i].entries {
				keep(&part[i].entries[j])
			}
		}
	}
	for i := range have.Sets {
		set := &have.Sets[i]
		if set.Dynamic {
			continue
		}
		for j := range have.Elements[set.Name] {
			e := &have.Elements[set.Name][j]
			switch {
			case had[set.Name].taken[j]:
			case leads(set.Name):
				d.early = append(d.early, entry{set.Name, *e})
			default:
				d.late = append(d.late, entry{set.Name, *e})
			}
		}
	}
}

// leads reports whether packets meet the elements of a set first: what they lead to is elsewhere.
func leads(set string) bool {
	switch set {
	case setServices, setNodePorts, setNoEndpoints, setNoNodePortEnds, setFirewall, setClusterIPs, setServers, setInnerServers:
		return true
	}
	return false
}

// A part is a key that a Service holds, with the elements that it stands for.
type part struct {
	key     key
	entries []entry
}

// links calls f with the elements that lead to chains that are not always there.
func (s *State) links(f func(*entry)) {
	for _, b := range sortedBalancers(s.balancers) {
		for _, l := range b.links() {
			f(&l)
		}
	}
}

// services yields what each Service holds in some families; first what several Services share. What is
// yielded is valid until the next time.
func (s *State) services(families ...nft.Family) iter.Seq[[]part] {
	return func(yield func([]part) bool) {
		var parts []part
		add := func(k *key, c *claim) {
			if n := len(parts); n < cap(parts) {
				parts = parts[:n+1]
			} else {
				parts = append(parts, part{})
			}
			p := &parts[len(parts)-1]
			p.key, p.entries = *k, c.elements(k, p.entries[:0])
		}
		for k := range s.claims.All() {
			if k.kind != keyHairpin || !slices.Contains(families, k.family) {
				continue
			}
			if c := s.holder(k); c != nil {
				parts = parts[:0]
				if add(&k, c); !yield(parts) {
					return
				}
			}
		}
		for _, u := range s.units.All() {
			parts = parts[:0]
			for i := range u.claims {
				c := &u.claims[i]
				if c.key.kind != keyHairpin && slices.Contains(families, c.key.family) && s.holder(c.key) == c.claim {
					add(&c.key, c.claim)
				}
			}
			if len(parts) > 0 && !yield(parts) {
				return
			}
		}
	}
}

// freshServices yields all elements of the tables that are new. They are not kept in memory.
func (o *ops) freshServices(parts []*tableDiff, want *State) {
	var families []nft.Family
	for _, d := range parts {
		if !d.fresh {
			continue
		}
		families = append(families, d.frame.Family)
		for i := range d.frame.Sets {
			set := &d.frame.Sets[i]
			for j := range d.frame.Elements[set.Name] {
				o.op(nft.Op{Verb: nft.Add, Family: d.frame.Family, Set: set, Element: &d.frame.Elements[set.Name][j]})
			}
		}
		want.links(func(l *entry) { o.entry(nft.Add, d.frame, l) })
	}
	if len(families) == 0 {
		return
	}
	for service := range want.services(families...) {
		o.cut = true
		for i := range service {
			frame := want.frameOf(service[i].key.family)
			for j := range service[i].entries {
				o.entry(nft.Add, frame, &service[i].entries[j])
			}
		}
		if o.done {
			return
		}
	}
}

// changes yields the elements that come to a table, or that others take the place of.
func (o *ops) changes(d *tableDiff) {
	for i := range d.changed {
		c := &d.changed[i]
		o.cut = c.first
		o.entry(c.verb, d.frame, &c.entry)
	}
}

// removals yields elements that go.
func (o *ops) removals(d *tableDiff, entries []entry) {
	for i := range entries {
		o.cut = true
		o.entry(nft.Delete, d.frame, &entries[i])
	}
}
