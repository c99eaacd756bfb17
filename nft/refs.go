package nft

// Refs lists what a rule refers to, in order, each as often as it occurs.
type Refs struct {
	Sets   []string // sets and maps
	Chains []string // targets of jumps and gotos
}

// Refs returns what the rule refers to.
func (r *Rule) Refs() Refs {
	var refs Refs
	for _, s := range r.Stmts {
		switch s := s.(type) {
		case Lookup:
			refs.Sets = append(refs.Sets, s.Set)
		case VerdictMap:
			refs.Sets = append(refs.Sets, s.Map)
		case DNAT:
			refs.Sets = append(refs.Sets, s.Map)
		case AffinityDNAT:
			refs.Sets = append(refs.Sets, s.DNAT.Map, s.Update.Map)
		case Update:
			refs.Sets = append(refs.Sets, s.Map)
		case DeleteElement:
			refs.Sets = append(refs.Sets, s.Map)
		case SetField:
			refs.Sets = append(refs.Sets, s.Map)
		case Do:
			if s.Verdict.Chain != "" {
				refs.Chains = append(refs.Chains, s.Verdict.Chain)
			}
		}
	}
	return refs
}
