package plan

import (
	"reflect"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Plan turns one state into another.
type Plan struct {
	// Tx is the transaction. Its order is one that the kernel accepts: sets, new chains without
	// rules, rules, elements that go, elements that come.
	Tx nft.Tx
	// Later deletes chains that no front end leads to any more. It is for a moment later: a packet may
	// just have read the chain's number. Each chain comes after the elements that lead from its number
	// to it, and they go in a transaction before it: before Linux 6.2 the kernel still counts the
	// reference of a deleted element for a moment.
	Later nft.Tx
	// Long says that Tx may have very many steps, and says where it may be cut.
	Long bool
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return p.Tx.Empty() && p.Later.Empty() }

// Diff returns the plan that turns have into want, at the cost of what differs. Both must be of the
// same tables: have is what was programmed last.
func Diff(have, want *State) Plan {
	changed := changedKeys(have, want)
	long := len(changed) > longChange
	var few replacements
	if !long { // it is walked more than once
		few = replacementsOf(changed)
	}
	return Plan{
		Long: long,
		Tx: func(yield func(nft.Op) bool) {
			o := &ops{yield: yield}
			for i, frame := range want.frames {
				o.frame(have.frames[i], frame)
				o.newBalancers(frame, have, want)
			}
			if !long {
				o.replace(want, few)
				return
			}
			for service := range byService(changed) {
				o.cut = true
				o.replace(want, replacementsOf(service))
			}
		},
		Later: func(yield func(nft.Op) bool) {
			o := &ops{yield: yield}
			for _, frame := range want.frames {
				for _, b := range sortedBalancers(have.balancers) {
					if want.balancers[b] == 0 {
						for _, l := range b.links() {
							o.entry(nft.Delete, frame, &l)
						}
						c := nft.Chain{Name: b.name()}
						o.op(nft.Op{Verb: nft.Delete, Family: frame.Family, Chain: &c})
					}
				}
			}
		},
	}
}

// Comparable reports whether Diff can be used on the two: a plan for other families, or on no state
// at all, starts from what the kernel holds, see DiffTables.
func Comparable(have, want *State) bool {
	return have != nil && len(have.frames) == len(want.frames) && len(have.frames) > 0
}

// ops yields the steps of a transaction until the consumer has enough.
type ops struct {
	yield func(nft.Op) bool
	done  bool
	// cut says that a transaction may be cut before the next step.
	cut bool
}

// op yields one step.
func (o *ops) op(op nft.Op) {
	if o.done {
		return
	}
	op.Name, op.Cut = TableName, o.cut
	o.cut = false
	o.done = !o.yield(op)
}

// frame yields what changes in the frame of one family: rules, and the elements that follow from the
// node. The sets never change.
func (o *ops) frame(have, want *nft.Table) {
	if have == want {
		return
	}
	for i := range want.Chains {
		if !reflect.DeepEqual(have.Chains[i], want.Chains[i]) {
			o.op(nft.Op{Verb: nft.Add, Family: want.Family, Chain: &want.Chains[i]})
		}
	}
	for i := range want.Sets {
		s := &want.Sets[i]
		o.elements(want.Family, s, have.Elements[s.Name], want.Elements[s.Name])
	}
}

// elements yields the difference between two lists of elements of one set.
func (o *ops) elements(f nft.Family, s *nft.Set, have, want []nft.Element) {
	had := make(map[nft.Value]*nft.Element, len(have))
	for i := range have {
		had[have[i].Key] = &have[i]
	}
	var add []*nft.Element
	for i := range want {
		e := &want[i]
		if old := had[e.Key]; old == nil || *old != *e {
			add = append(add, e)
			continue
		}
		delete(had, e.Key)
	}
	for i := range have {
		if e := had[have[i].Key]; e != nil {
			o.op(nft.Op{Verb: nft.Delete, Family: f, Set: s, Element: e})
		}
	}
	for _, e := range add {
		o.op(nft.Op{Verb: nft.Add, Family: f, Set: s, Element: e})
	}
}

// newBalancers yields the chains that are needed now and were not before, with what leads to them.
func (o *ops) newBalancers(frame *nft.Table, have, want *State) {
	for _, b := range sortedBalancers(want.balancers) {
		if have.balancers[b] == 0 {
			c := b.chain(frame.Family)
			o.op(nft.Op{Verb: nft.Add, Family: frame.Family, Chain: &c})
			for _, l := range b.links() {
				o.entry(nft.Add, frame, &l)
			}
		}
	}
}

// A changedKey is a key with the claims that held it and hold it now, nil for none.
type changedKey struct {
	key      key
	old, now *claim
}

// replacements are the elements that go and those that come.
type replacements struct{ gone, come []replacement }

// A replacement is an element of a set of one family.
type replacement struct {
	family nft.Family
	entry  entry
}

// replacementsOf returns how the elements of keys differ.
func replacementsOf(changed []changedKey) (r replacements) {
	var old, now []entry
	for i := range changed {
		c := &changed[i]
		old, now = old[:0], now[:0]
		if c.old != nil {
			old = c.old.elements(&c.key, slices.Grow(old, c.old.size()))
		}
		if c.now != nil {
			now = c.now.elements(&c.key, slices.Grow(now, c.now.size()))
		}
		diffEntries(old, now, func(v nft.Verb, e *entry) {
			if v == nft.Delete {
				r.gone = append(r.gone, replacement{c.key.family, *e})
			} else {
				r.come = append(r.come, replacement{c.key.family, *e})
			}
		})
	}
	return r
}

// replace yields the elements that go, then those that come.
func (o *ops) replace(want *State, r replacements) {
	for i := range r.gone {
		o.entry(nft.Delete, want.frameOf(r.gone[i].family), &r.gone[i].entry)
	}
	for i := range r.come {
		o.entry(nft.Add, want.frameOf(r.come[i].family), &r.come[i].entry)
	}
}

// frameOf returns the frame of a family.
func (s *State) frameOf(f nft.Family) *nft.Table {
	for _, t := range s.frames {
		if t.Family == f {
			return t
		}
	}
	panic("plan: no frame for " + f.String())
}

// diffEntries calls emit with each entry that is in one list only, or in both with another value. It
// may reorder the lists.
func diffEntries(old, now []entry, emit func(nft.Verb, *entry)) {
	// Mostly one endpoint of many changed, in its place: the rest need not be sorted.
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	order := func(a, b entry) int { return compareEntries(&a, &b) }
	slices.SortFunc(old, order)
	slices.SortFunc(now, order)
	for len(old) > 0 || len(now) > 0 {
		switch c := compareHeads(old, now); {
		case c < 0:
			emit(nft.Delete, &old[0])
			old = old[1:]
		case c > 0:
			emit(nft.Add, &now[0])
			now = now[1:]
		default:
			if old[0] != now[0] {
				emit(nft.Delete, &old[0])
				emit(nft.Add, &now[0])
			}
			old, now = old[1:], now[1:]
		}
	}
}

// compareHeads compares the first entries of two lists; an empty list comes last.
func compareHeads(a, b []entry) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return compareEntries(&a[0], &b[0])
}

// changedKeys returns the keys that another claim holds now.
func changedKeys(have, want *State) []changedKey {
	var changed []changedKey
	add := func(k key) {
		if old, now := have.holder(k), want.holder(k); old != now {
			changed = append(changed, changedKey{k, old, now})
		}
	}
	for c := range model.Changes(have.claims, want.claims) {
		add(c.Key)
	}
	// Keys that are withheld no longer, or from now on, though nobody changed the claim.
	again := func(k key) {
		if !slices.ContainsFunc(changed, func(c changedKey) bool { return c.key == k }) {
			add(k)
		}
	}
	for k := range have.withheld {
		again(k)
	}
	for k := range want.withheld {
		if !have.withheld[k] {
			again(k)
		}
	}
	return changed
}
