package fake

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
)

// A table is what the kernel keeps of a table.
type table struct {
	family        nft.Family
	name, comment string
	sets          map[string]*set
	chains        map[string]*chain
	made          int // objects made so far, for their order
}

// A chain is a chain with the number of rules and elements that refer to it.
type chain struct {
	value nft.Chain
	uses  int
	order int
}

// A set is a set with the number of rules that refer to it.
type set struct {
	value    nft.Set
	elements map[nft.Value]nft.Element
	// near finds the intervals that differ in the last field only.
	near  map[nft.Value][]nft.Value
	uses  int
	order int
}

// value returns a copy of the table.
func (t *table) value() nft.Table {
	r := nft.Table{Family: t.family, Name: t.name, Comment: t.comment, Elements: map[string][]nft.Element{}}
	sets := make([]*set, 0, len(t.sets))
	for _, s := range t.sets {
		sets = append(sets, s)
	}
	slices.SortFunc(sets, func(a, b *set) int { return a.order - b.order })
	for _, s := range sets {
		r.Sets = append(r.Sets, s.value)
		if len(s.elements) > 0 {
			r.Elements[s.value.Name] = s.sorted()
		}
	}
	chains := make([]*chain, 0, len(t.chains))
	for _, ch := range t.chains {
		chains = append(chains, ch)
	}
	slices.SortFunc(chains, func(a, b *chain) int { return a.order - b.order })
	for _, ch := range chains {
		r.Chains = append(r.Chains, ch.value)
	}
	return r
}

// sorted returns the elements in the order of their keys.
func (s *set) sorted() []nft.Element {
	r := make([]nft.Element, 0, len(s.elements))
	for _, e := range s.elements {
		r = append(r, e)
	}
	slices.SortFunc(r, func(a, b nft.Element) int { return a.Key.Compare(&b.Key) })
	return r
}

// stepTable adds or deletes a table.
func (c *commit) stepTable(op nft.Op) error {
	k := c.kernel
	t := k.table(op.Family, op.Name)
	before := k.tables
	switch {
	case op.Verb == nft.Add && t != nil:
		return nil // Linux does not change the comment either
	case op.Verb == nft.Add:
		k.tables = append(slices.Clone(before), &table{
			family: op.Family, name: op.Name, comment: op.Table.Comment,
			sets: map[string]*set{}, chains: map[string]*chain{},
		})
	case t == nil:
		return unix.ENOENT
	default:
		k.tables = slices.DeleteFunc(slices.Clone(before), func(x *table) bool { return x == t })
	}
	c.undo = append(c.undo, func() { k.tables = before })
	return nil
}

// stepChain adds a chain or its rules, or deletes both.
func (c *commit) stepChain(t *table, op nft.Op) error {
	ch := t.chains[op.Chain.Name]
	if op.Verb == nft.Delete {
		if ch == nil {
			return unix.ENOENT
		}
		c.setRules(t, ch, nil)
		if ch.uses > 0 {
			return unix.EBUSY
		}
		delete(t.chains, op.Chain.Name)
		c.undo = append(c.undo, func() { t.chains[op.Chain.Name] = ch })
		return nil
	}
	if ch == nil {
		ch = &chain{value: *op.Chain, order: t.next()}
		ch.value.Rules = nil
		t.chains[ch.value.Name] = ch
		c.undo = append(c.undo, func() { delete(t.chains, ch.value.Name) })
	} else if err := rehook(ch.value.Base, op.Chain.Base); err != nil {
		return err
	}
	c.setRules(t, ch, nil)
	if err := t.resolves(op.Chain.Rules); err != nil {
		return err
	}
	c.setRules(t, ch, op.Chain.Rules)
	return nil
}

// rehook returns the error for a chain that is added with another hook than it has. Without one it
// stays where it is.
func rehook(have, want *nft.Base) error {
	switch {
	case want == nil || have != nil && *have == *want:
		return nil
	case have == nil || have.Hook != want.Hook || have.Priority != want.Priority:
		return unix.EOPNOTSUPP
	}
	return unix.EEXIST
}

// next returns the place of a new object.
func (t *table) next() int {
	t.made++
	return t.made
}

// resolves returns an error if rules refer to what is not there, or cannot be referred to.
func (t *table) resolves(rules []nft.Rule) error {
	for i := range rules {
		refs := rules[i].Refs()
		for _, name := range refs.Sets {
			if t.sets[name] == nil {
				return unix.ENOENT
			}
		}
		for _, name := range refs.Chains {
			if err := t.target(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// target returns an error if nothing can jump to a chain.
func (t *table) target(name string) error {
	switch ch := t.chains[name]; {
	case ch == nil:
		return unix.ENOENT
	case ch.value.Base != nil:
		return unix.EOPNOTSUPP
	}
	return nil
}

// setRules replaces the rules of a chain and counts their references.
func (c *commit) setRules(t *table, ch *chain, rules []nft.Rule) {
	before := ch.value.Rules
	set := func(from, to []nft.Rule) {
		t.count(from, -1)
		t.count(to, 1)
		ch.value.Rules = to
	}
	set(before, rules)
	c.undo = append(c.undo, func() { set(rules, before) })
}

// count adds n to the uses of all that rules refer to.
func (t *table) count(rules []nft.Rule, n int) {
	for i := range rules {
		refs := rules[i].Refs()
		for _, name := range refs.Sets {
			t.sets[name].uses += n
		}
		for _, name := range refs.Chains {
			t.chains[name].uses += n
		}
	}
}
