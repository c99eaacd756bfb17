package nft

import "time"

// Family is an address family of nftables: every table belongs to one.
type Family uint8

// The families, in the order in which they are programmed.
const (
	IPv4 Family = iota // table ip, NFPROTO_IPV4
	IPv6               // table ip6, NFPROTO_IPV6
)

// Families lists both families, for loops.
func Families() [2]Family { return [2]Family{IPv4, IPv6} }

// String returns the word that nft uses for tables and payload expressions of the family.
func (f Family) String() string {
	if f == IPv6 {
		return "ip6"
	}
	return "ip"
}

// A Table is one nftables table with everything in it.
type Table struct {
	Family  Family
	Name    string
	Comment string
	Sets    []Set   // in the order in which they are made
	Chains  []Chain // likewise
	// Elements holds the elements of the sets and maps by set name. A dynamic set, which packets
	// fill, is not in it.
	Elements map[string][]Element
}

// A Set is the definition of a set, or of a map if it has Data.
type Set struct {
	Name    string
	Comment string
	// Key lists the fields that, concatenated, make the key.
	Key []Field
	// Data lists the fields that make the value of a map; it is {Verdict} for a verdict map and
	// empty for a set.
	Data []Field
	// Interval says that the last key field of an element may be a prefix (set flag "interval").
	// Only concatenated keys may be intervals here: they need no auxiliary end elements.
	Interval bool
	// Dynamic says that rules add elements (set flags "dynamic,timeout").
	Dynamic bool
	// Size is the largest number of elements, 0 for no limit. Dynamic sets need one.
	Size uint32
	// Timeout is the default lifetime of an element of a dynamic set; 0 elsewhere.
	Timeout time.Duration
}

// IsMap reports whether s maps keys to values.
func (s *Set) IsMap() bool { return len(s.Data) > 0 }

// IsVerdictMap reports whether s maps keys to verdicts.
func (s *Set) IsVerdictMap() bool { return len(s.Data) == 1 && s.Data[0].Kind == Verdicts }

// ChainType is the type of a base chain.
type ChainType string

// The chain types.
const (
	TypeFilter ChainType = "filter"
	TypeNAT    ChainType = "nat"
)

// Hook is a netfilter hook.
type Hook uint8

// The hooks, with the numbers of enum nf_inet_hooks (linux/netfilter.h).
const (
	Prerouting  Hook = 0
	Input       Hook = 1
	Forward     Hook = 2
	Output      Hook = 3
	Postrouting Hook = 4
)

// String returns the word that nft uses for the hook.
func (h Hook) String() string {
	return [...]string{"prerouting", "input", "forward", "output", "postrouting"}[h]
}

// A Base says where a base chain is hooked in. The policy is always accept.
type Base struct {
	Type     ChainType
	Hook     Hook
	Priority int32 // a number; the text form prints it as nft does ("dstnat - 10", "srcnat")
}

// A Chain is a chain with its rules.
type Chain struct {
	Name    string
	Comment string
	Base    *Base // nil for a chain that is only jumped to
	Rules   []Rule
}

// A Rule is a list of statements that are tried from left to right.
type Rule struct {
	Stmts   []Stmt
	Comment string
}
