package nfttest

import "github.com/nftproxy/nftproxy/nft"

// Make returns the transaction that makes tables with all that is in them: sets, chains without
// rules, chains, elements.
func Make(tables []nft.Table) nft.Tx {
	return func(yield func(nft.Op) bool) {
		for i := range tables {
			if !makeOne(&tables[i], yield) {
				return
			}
		}
	}
}

// makeOne yields the steps for one table and reports whether more are wanted.
func makeOne(t *nft.Table, yield func(nft.Op) bool) bool {
	op := nft.Op{Family: t.Family, Name: t.Name}
	table := op
	table.Table = t
	if !yield(table) {
		return false
	}
	for i := range t.Sets {
		set := op
		set.Set = &t.Sets[i]
		if !yield(set) {
			return false
		}
	}
	for _, empty := range []bool{true, false} {
		for i := range t.Chains {
			chain := op
			c := t.Chains[i]
			if empty {
				c.Rules = nil
			}
			chain.Chain = &c
			if !yield(chain) {
				return false
			}
		}
	}
	return elements(t, nft.Add, yield)
}

// elements yields a step for each element of the table and reports whether more are wanted.
func elements(t *nft.Table, verb nft.Verb, yield func(nft.Op) bool) bool {
	for i := range t.Sets {
		s := &t.Sets[i]
		for _, e := range t.Elements[s.Name] {
			if !yield(nft.Op{Verb: verb, Family: t.Family, Name: t.Name, Set: s, Element: &e}) {
				return false
			}
		}
	}
	return true
}

// Remove returns the transaction that takes all out of tables that Make has made.
func Remove(tables []nft.Table) nft.Tx {
	return func(yield func(nft.Op) bool) {
		for i := range tables {
			if !removeOne(&tables[i], yield) {
				return
			}
		}
	}
}

// removeOne yields the steps for one table and reports whether more are wanted.
func removeOne(t *nft.Table, yield func(nft.Op) bool) bool {
	op := nft.Op{Family: t.Family, Name: t.Name}
	if !elements(t, nft.Delete, yield) {
		return false
	}
	// No rule may refer to a chain when it goes.
	for _, verb := range []nft.Verb{nft.Add, nft.Delete} {
		for i := range t.Chains {
			chain := op
			c := t.Chains[i]
			c.Rules = nil
			chain.Verb, chain.Chain = verb, &c
			if !yield(chain) {
				return false
			}
		}
	}
	for i := range t.Sets {
		set := op
		set.Verb, set.Set = nft.Delete, &t.Sets[i]
		if !yield(set) {
			return false
		}
	}
	return true
}
