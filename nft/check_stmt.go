package nft

import "strings"

// stmt checks a statement against the sets and chains that it refers to.
func (c *checker) stmt(s Stmt) {
	switch s := s.(type) {
	case Lookup:
		c.lookup(s.Set, s.Key, func(set *Set) string { return unless(!set.IsMap(), "is a map") })
	case VerdictMap:
		c.lookup(s.Map, s.Key, func(set *Set) string { return unless(set.IsVerdictMap(), "has no verdicts") })
	case DNAT:
		c.dnat(s)
	case AffinityDNAT:
		c.dynamic(s.Update.Map, s.Update.Key, s.Update.Data)
		c.dnat(s.DNAT)
	case Update:
		c.dynamic(s.Map, s.Key, s.Data)
	case DeleteElement:
		c.dynamic(s.Map, s.Key, s.Data)
	case SetField:
		c.setField(s)
	case MatchPrefix:
		c.prefix(s)
	case MatchInput:
		if s.Name == "" || len(s.Name) >= ifNameSize || strings.ContainsAny(s.Name, "*\"/ ") {
			c.errorf("%q is no name of an interface", s.Name)
		}
	case MatchLocal:
		if !isAddr(s.Field) {
			c.errorf("%s is no address", s.Field.Text(c.table.Family))
		}
	case Do:
		c.verdict(s.Verdict)
	case Unknown:
		c.errorf("not a rule of ours")
	case nil:
		c.errorf("no statement")
	}
}

// ifNameSize is the size of an interface's name with the zero at the end (IFNAMSIZ).
const ifNameSize = 16

// unless returns a complaint unless ok.
func unless(ok bool, complaint string) string {
	if ok {
		return ""
	}
	return complaint
}

// lookup checks that a set exists, has such keys, and is what the statement needs.
func (c *checker) lookup(name string, key []Field, complaint func(*Set) string) {
	set := c.sets[name]
	if set == nil {
		c.errorf("there is no @%s", name)
		return
	}
	if !c.alike(set.Key, key) {
		c.errorf("@%s has the key %s", name, KeyText(c.table.Family, set.Key))
	}
	if why := complaint(set); why != "" {
		c.errorf("@%s %s", name, why)
	}
}

// dnat checks the map of a dnat statement.
func (c *checker) dnat(s DNAT) {
	c.lookup(s.Map, s.Key, func(set *Set) string {
		return unless(c.alike(set.Data, EndpointData()), "has no addresses and ports")
	})
}

// dynamic checks the map of a statement that changes it.
func (c *checker) dynamic(name string, key []Field, data Field) {
	c.lookup(name, key, func(set *Set) string {
		if !set.Dynamic {
			return "is not dynamic"
		}
		return unless(c.alike(set.Data, []Field{data}), "holds other data")
	})
}

// setField checks the field that is written and the map of its values.
func (c *checker) setField(s SetField) {
	switch s.Field.Kind {
	case Priority, DAddr, TCPDPort, UDPDPort, SCTPDPort:
	case SAddr, L4Proto, DPort, Random, Hash, Turn, SourceHash, Verdicts, UnknownField:
		c.errorf("%s cannot be written", s.Field.Text(c.table.Family))
	}
	c.lookup(s.Map, s.Key, func(set *Set) string {
		return unless(c.alike(set.Data, []Field{s.Field}), "holds other data")
	})
}

// prefix checks the family and the form of a prefix.
func (c *checker) prefix(s MatchPrefix) {
	switch {
	case !isAddr(s.Field):
		c.errorf("%s is no address", s.Field.Text(c.table.Family))
	case !s.Prefix.IsValid() || s.Prefix.Addr().Is4() != (c.table.Family == IPv4):
		c.errorf("%s is no prefix of the family", s.Prefix)
	case s.Prefix != s.Prefix.Masked():
		c.errorf("%s has bits outside of the prefix", s.Prefix)
	}
}

// verdict checks the target of a verdict.
func (c *checker) verdict(v Verdict) {
	switch v.Kind {
	case Accept, Drop:
		if v.Chain != "" {
			c.errorf("%s has a chain", v)
		}
	case Jump, Goto:
		switch target := c.chains[v.Chain]; {
		case target == nil:
			c.errorf("there is no chain %s", v.Chain)
		case target.Base != nil:
			c.errorf("%s: the chain is hooked in", v)
		}
	case NoVerdict:
		c.errorf("no verdict")
	}
}

// alike reports whether a rule may use fields where the set was declared with others. What counts
// is the type, and that integers were made in the same way.
func (c *checker) alike(declared, used []Field) bool {
	if len(declared) != len(used) {
		return false
	}
	for i, d := range declared {
		u := used[i]
		if d.typeName(c.table.Family) != u.typeName(c.table.Family) {
			return false
		}
		if hostOrder(d) && origin(d) != origin(u) {
			return false
		}
	}
	return true
}

// origin returns what a number stands for: the place of an endpoint in a list is picked in several
// ways.
func origin(k Field) FieldKind {
	if k.Kind == Turn || k.Kind == SourceHash {
		return Random
	}
	return k.Kind
}

// isAddr reports whether a field is an address.
func isAddr(k Field) bool { return k.Kind == SAddr || k.Kind == DAddr }
