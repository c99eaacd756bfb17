package plan

import (
	"reflect"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
)

// DiffTables returns the plan that turns what the kernel holds into want: at start, and whenever it
// is not known what the kernel holds. Only what differs is touched. A table whose sets or hooks are
// not ours, or of another version of ours, is made anew in the same transaction, which then cannot be cut.
func DiffTables(have []nft.Table, want *State) Plan {
	var parts []*tableDiff
	var others []*nft.Table
	for i := range have {
		if !wants(want, have[i].Family) {
			others = append(others, &have[i])
		}
	}
	for _, frame := range want.frames {
		parts = append(parts, diffTable(find(have, frame.Family), frame, want))
	}
	return Plan{
		Long: !slices.ContainsFunc(parts, func(d *tableDiff) bool { return d.stale != nil }),
		Tx: func(yield func(nft.Op) bool) {
			o := &ops{yield: yield}
			for _, t := range others {
				o.op(nft.Op{Verb: nft.Delete, Family: t.Family, Table: t})
			}
			for _, d := range parts {
				o.objects(d)
			}
			for _, d := range parts {
				o.removals(d, d.early)
			}
			o.freshServices(parts, want)
			for _, d := range parts {
				o.changes(d)
			}
			for _, d := range parts {
				o.removals(d, d.late)
			}
		},
		Later: func(yield func(nft.Op) bool) {
			o := &ops{yield: yield}
			for _, d := range parts {
				for i := range d.unused {
					o.op(nft.Op{Verb: nft.Delete, Family: d.frame.Family, Chain: &d.unused[i]})
				}
			}
		},
	}
}

// wants reports whether a family is programmed.
func wants(s *State, f nft.Family) bool {
	for _, t := range s.frames {
		if t.Family == f {
			return true
		}
	}
	return false
}

// find returns the table of a family, or nil.
func find(tables []nft.Table, f nft.Family) *nft.Table {
	for i := range tables {
		if tables[i].Family == f {
			return &tables[i]
		}
	}
	return nil
}

// A tableDiff is the difference between a table of the kernel's and ours.
type tableDiff struct {
	frame *nft.Table
	// fresh says that there is no table yet: everything is added. stale is the one that goes first.
	fresh bool
	stale *nft.Table
	// chains are those that are new (announced first, without rules) or have other rules.
	chains, announced []nft.Chain
	// unused are chains that nothing wants: emptied now, deleted later.
	unused []nft.Chain
	// Of a table that is not fresh, changed are the elements that come, or that others take the place
	// of, Service by Service. early are front ends that go, late is what they led to.
	changed     []change
	early, late []entry
}

// diffTable compares a table of the kernel's, nil if there is none, with ours.
func diffTable(have, frame *nft.Table, want *State) *tableDiff {
	d := &tableDiff{frame: frame}
	if have == nil || !compatible(have, frame) {
		d.fresh, d.stale = true, have
		for c := range want.chains(frame) {
			d.announced = append(d.announced, nft.Chain{Name: c.Name, Comment: c.Comment, Base: c.Base})
			d.chains = append(d.chains, *c)
		}
		return d
	}
	had := map[string]*nft.Chain{}
	for i := range have.Chains {
		had[have.Chains[i].Name] = &have.Chains[i]
	}
	for c := range want.chains(frame) {
		old := had[c.Name]
		delete(had, c.Name)
		if old == nil {
			d.announced = append(d.announced, nft.Chain{Name: c.Name, Comment: c.Comment, Base: c.Base})
		}
		if old == nil || !reflect.DeepEqual(old.Rules, c.Rules) {
			d.chains = append(d.chains, *c)
		}
	}
	for i := range have.Chains {
		if c := have.Chains[i]; had[c.Name] != nil {
			d.unused = append(d.unused, nft.Chain{Name: c.Name})
		}
	}
	d.diffElements(have, want)
	return d
}

// compatible reports whether a table of the kernel's can be brought to ours step by step: it has
// exactly our sets, and no hooks but ours.
func compatible(have, frame *nft.Table) bool {
	if len(have.Sets) != len(frame.Sets) {
		return false
	}
	for i := range have.Sets {
		if !reflect.DeepEqual(have.Sets[i], frame.Sets[i]) {
			return false
		}
	}
	ours := map[string]*nft.Base{}
	for i := range frame.Chains {
		ours[frame.Chains[i].Name] = frame.Chains[i].Base
	}
	for i := range have.Chains {
		c := &have.Chains[i]
		base, known := ours[c.Name]
		if (known || c.Base != nil) && !reflect.DeepEqual(c.Base, base) {
			return false
		}
	}
	return true
}

// objects yields the table, sets and chains of a difference.
func (o *ops) objects(d *tableDiff) {
	f := d.frame.Family
	if d.stale != nil {
		o.op(nft.Op{Verb: nft.Delete, Family: f, Table: d.stale})
	}
	chains, announced := d.chains, d.announced
	if d.fresh {
		o.op(nft.Op{Verb: nft.Add, Family: f, Table: d.frame})
		for i := range d.frame.Sets {
			o.op(nft.Op{Verb: nft.Add, Family: f, Set: &d.frame.Sets[i]})
		}
	}
	for i := range announced {
		o.op(nft.Op{Verb: nft.Add, Family: f, Chain: &announced[i]})
	}
	for i := range chains {
		o.op(nft.Op{Verb: nft.Add, Family: f, Chain: &chains[i]})
	}
	for i := range d.unused {
		o.op(nft.Op{Verb: nft.Add, Family: f, Chain: &d.unused[i]})
	}
}

// entry yields a step about one element.
func (o *ops) entry(v nft.Verb, frame *nft.Table, e *entry) {
	o.op(nft.Op{Verb: v, Family: frame.Family, Set: setOf(frame, e.set), Element: &e.element})
}
