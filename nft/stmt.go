package nft

import (
	"net/netip"
	"time"
)

// A Stmt is one statement of a rule. The types below are all that there are; each has the nft line
// that it means in its comment (for IPv4).
type Stmt interface {
	stmt()
	// text returns the statement as nft lists it in a table of the family.
	text(f Family) string
}

type (
	// Lookup goes on if the key is (or, with Not, is not) in a set.
	//
	//	ip daddr . meta l4proto . th dport @firewall
	//	ip daddr . meta l4proto . th dport . ip saddr != @source-ranges
	Lookup struct {
		Key []Field
		Set string
		Not bool
	}

	// VerdictMap does what a verdict map says of the key; a key that is not there goes on with the next rule.
	//
	//	ip daddr . meta l4proto . th dport vmap @affinity-services
	//	meta priority vmap @chains
	VerdictMap struct {
		Key []Field
		Map string
	}

	// DNAT sends the connection to the address and port that a map holds for the key.
	//
	//	dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints
	DNAT struct {
		Key []Field
		Map string
	}

	// AffinityDNAT sends the connection to the endpoint that a map holds for the key and renews the
	// client's entry in a dynamic map. The text puts the renewal first, the only form that nft has;
	// what we program looks up first, so that an endpoint that is gone renews nothing.
	//
	//	update @affinity { KEY timeout 3h : meta priority } dnat ip to ip daddr . meta l4proto . th dport . meta priority map @affinity-endpoints
	AffinityDNAT struct {
		Update Update
		DNAT   DNAT
	}

	// Update adds an element to a dynamic map or renews its timeout (it does not replace the value).
	//
	//	update @affinity { KEY timeout 3h : meta priority }
	Update struct {
		Map     string
		Key     []Field
		Data    Field
		Timeout time.Duration
	}

	// DeleteElement removes an element from a dynamic map.
	//
	//	delete @affinity { KEY : meta priority }
	DeleteElement struct {
		Map  string
		Key  []Field
		Data Field
	}

	// SetField writes what a map holds for the key into a field of the packet; a key that is not
	// there ends the rule.
	//
	//	meta priority set ip daddr . meta l4proto . th dport . numgen random mod 2 map @affinity-slots
	//	ip daddr set ip daddr . meta l4proto . th dport map @affinity-front-ends
	//	tcp dport set ip daddr . meta l4proto . tcp dport map @affinity-nodeport-ports
	SetField struct {
		Field Field // Priority, DAddr, TCPDPort, UDPDPort or SCTPDPort
		Key   []Field
		Map   string
	}

	// MatchPrefix goes on if an address is (or, with Not, is not) in a prefix. A prefix of one
	// address prints as the address.
	//
	//	ip saddr != 10.0.0.0/8
	MatchPrefix struct {
		Field  Field // SAddr or DAddr
		Prefix netip.Prefix
		Not    bool
	}

	// MatchInput goes on if the packet came (or, with Not, did not come) in by an interface.
	//
	//	iifname "cbr0"
	//	iifname != "veth*"
	MatchInput struct {
		Name   string // without the asterisk
		Prefix bool   // Name is the beginning of the name
		Not    bool
	}

	// MatchLocal goes on if an address of the packet is one of this host.
	//
	//	fib daddr type local
	MatchLocal struct {
		Field Field // SAddr or DAddr
	}

	// MatchNew goes on if the packet opens a connection.
	//
	//	ct state new
	MatchNew struct{}

	// MatchDNATed goes on if the connection's destination was translated.
	//
	//	ct status dnat
	MatchDNATed struct{}

	// MatchMark goes on if all bits are set in the packet's mark.
	//
	//	meta mark & 0x00004000 == 0x00004000
	MatchMark struct{ Bits uint32 }

	// SetMark sets bits in the packet's mark.
	//
	//	meta mark set meta mark | 0x00004000
	SetMark struct{ Bits uint32 }

	// FlipMark inverts bits in the packet's mark.
	//
	//	meta mark set meta mark ^ 0x00004000
	FlipMark struct{ Bits uint32 }

	// MatchPriority goes on if the packet's priority, masked, has a value.
	//
	//	meta priority & fe00:0 == ae00:0
	MatchPriority struct{ Mask, Value uint32 }

	// ClearPriority sets the packet's priority to zero.
	//
	//	meta priority set none
	ClearPriority struct{}

	// Masquerade gives the connection a source address and a random source port of this host.
	//
	//	masquerade fully-random
	Masquerade struct{}

	// Reject answers ICMP port unreachable.
	//
	//	reject
	Reject struct{}

	// Do is a verdict as a statement.
	//
	//	drop
	//	goto lb-2
	Do struct{ Verdict Verdict }

	// Unknown stands for a rule found in the kernel that none of the above can say. We never program
	// one, so a chain that has one differs from every chain of ours.
	Unknown struct{ Text string }
)

func (Lookup) stmt()        {}
func (VerdictMap) stmt()    {}
func (DNAT) stmt()          {}
func (AffinityDNAT) stmt()  {}
func (Update) stmt()        {}
func (DeleteElement) stmt() {}
func (SetField) stmt()      {}
func (MatchPrefix) stmt()   {}
func (MatchInput) stmt()    {}
func (MatchLocal) stmt()    {}
func (MatchNew) stmt()      {}
func (MatchDNATed) stmt()   {}
func (MatchMark) stmt()     {}
func (SetMark) stmt()       {}
func (FlipMark) stmt()      {}
func (MatchPriority) stmt() {}
func (ClearPriority) stmt() {}
func (Masquerade) stmt()    {}
func (Reject) stmt()        {}
func (Do) stmt()            {}
func (Unknown) stmt()       {}

// VerdictKind is what happens to a packet.
type VerdictKind uint8

// The verdicts. The zero value is none: an element of a set or of a data map.
const (
	NoVerdict VerdictKind = iota
	Accept
	Drop
	Jump // go to a chain and come back
	Goto // go to a chain and do not come back
)

// A Verdict is a kind and, for Jump and Goto, a chain.
type Verdict struct {
	Kind  VerdictKind
	Chain string
}

// GoTo returns the verdict "goto chain".
func GoTo(chain string) Verdict { return Verdict{Kind: Goto, Chain: chain} }

// JumpTo returns the verdict "jump chain".
func JumpTo(chain string) Verdict { return Verdict{Kind: Jump, Chain: chain} }

// String returns the verdict in nft syntax.
func (v Verdict) String() string {
	switch v.Kind {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Jump:
		return "jump " + v.Chain
	case Goto:
		return "goto " + v.Chain
	case NoVerdict:
	}
	return ""
}
