package nft

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// StmtText returns a statement as nft lists it in a table of the family.
func StmtText(f Family, s Stmt) string { return s.text(f) }

// KeyText returns the concatenation that a rule looks up.
func KeyText(f Family, key []Field) string {
	words := make([]string, len(key))
	for i, field := range key {
		words[i] = field.Text(f)
	}
	return strings.Join(words, " . ")
}

// Text returns the expression that reads the field.
func (k Field) Text(f Family) string {
	switch k.Kind {
	case SAddr:
		return f.String() + " saddr"
	case DAddr:
		return f.String() + " daddr"
	case L4Proto:
		return "meta l4proto"
	case DPort:
		return "th dport"
	case TCPDPort:
		return "tcp dport"
	case UDPDPort:
		return "udp dport"
	case SCTPDPort:
		return "sctp dport"
	case Random:
		return fmt.Sprintf("numgen random mod %d", k.N)
	case Turn:
		return fmt.Sprintf("numgen inc mod %d", k.N)
	case SourceHash:
		return fmt.Sprintf("jhash %s saddr mod %d seed 0x1", f, k.N)
	case Hash:
		return fmt.Sprintf("jhash %s saddr . %s daddr . meta l4proto . th dport mod 4294967295 seed 0x%x", f, f, k.N)
	case Priority:
		return "meta priority"
	case Verdicts:
		return "verdict"
	case UnknownField:
	}
	return "unknown"
}

// typeofText returns the expression that declares the field in a set. A random number and a hash
// are both integers; nft 1.0.6 crashes on a typeof that names a hash.
func (k Field) typeofText(f Family) string {
	if k.Computed() {
		return "numgen random mod 2"
	}
	return k.Text(f)
}

// typeName returns the name of the field's type.
func (k Field) typeName(f Family) string {
	switch k.Kind {
	case SAddr, DAddr:
		if f == IPv6 {
			return "ipv6_addr"
		}
		return "ipv4_addr"
	case L4Proto:
		return "inet_proto"
	case DPort, TCPDPort, UDPDPort, SCTPDPort:
		return "inet_service"
	case Random, Hash, Turn, SourceHash:
		return "integer"
	case Priority:
		return "classid"
	case Verdicts:
		return "verdict"
	case UnknownField:
	}
	return "unknown"
}

// hostOrder reports whether values of the field are numbers in the byte order of the host.
func hostOrder(k Field) bool { return k.Computed() || k.Kind == Priority }

// equals returns the operator of a comparison where equality needs none.
func equals(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

func (s Lookup) text(f Family) string {
	return KeyText(f, s.Key) + " " + equals(s.Not) + "@" + s.Set
}

func (s VerdictMap) text(f Family) string { return KeyText(f, s.Key) + " vmap @" + s.Map }

func (s DNAT) text(f Family) string {
	return fmt.Sprintf("dnat %s to %s map @%s", f, KeyText(f, s.Key), s.Map)
}

func (s AffinityDNAT) text(f Family) string { return s.Update.text(f) + " " + s.DNAT.text(f) }

func (s Update) text(f Family) string {
	return fmt.Sprintf("update @%s { %s timeout %s : %s }", s.Map, KeyText(f, s.Key), durationText(s.Timeout), s.Data.Text(f))
}

func (s DeleteElement) text(f Family) string {
	return fmt.Sprintf("delete @%s { %s : %s }", s.Map, KeyText(f, s.Key), s.Data.Text(f))
}

func (s SetField) text(f Family) string {
	return fmt.Sprintf("%s set %s map @%s", s.Field.Text(f), KeyText(f, s.Key), s.Map)
}

func (s MatchPrefix) text(f Family) string {
	return s.Field.Text(f) + " " + equals(s.Not) + prefixText(s.Prefix)
}

func (s MatchInput) text(Family) string {
	name := s.Name
	if s.Prefix {
		name += "*"
	}
	return "iifname " + equals(s.Not) + quote(name)
}

func (s MatchLocal) text(Family) string {
	if s.Field.Kind == SAddr {
		return "fib saddr type local"
	}
	return "fib daddr type local"
}

func (MatchNew) text(Family) string { return "ct state new" }

func (MatchDNATed) text(Family) string { return "ct status dnat" }

func (s MatchMark) text(Family) string {
	return fmt.Sprintf("meta mark & 0x%08x == 0x%08x", s.Bits, s.Bits)
}

func (s SetMark) text(Family) string { return fmt.Sprintf("meta mark set meta mark | 0x%08x", s.Bits) }

func (s FlipMark) text(Family) string { return fmt.Sprintf("meta mark set meta mark ^ 0x%08x", s.Bits) }

func (s MatchPriority) text(Family) string {
	return fmt.Sprintf("meta priority & %s == %s", priorityText(s.Mask), priorityText(s.Value))
}

func (ClearPriority) text(Family) string { return "meta priority set none" }

func (Masquerade) text(Family) string { return "masquerade fully-random" }

func (Reject) text(Family) string { return "reject" }

func (s Do) text(Family) string { return s.Verdict.String() }

// text of a rule that we do not know is a comment: nft would read anything else.
func (s Unknown) text(Family) string { return "# " + strings.ReplaceAll(s.Text, "\n", " ") }

// prefixText returns a prefix, or the address alone if there is but one in it.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// priorityText returns a packet's priority as nft does: as a class of traffic control.
func priorityText(n uint32) string { return string(appendPriority(nil, n)) }

// durationText returns a time as nft lists it, without units that are zero.
func durationText(d time.Duration) string {
	if d < time.Millisecond {
		return "0s"
	}
	var b strings.Builder
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}
	for _, u := range units {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.size
		}
	}
	return b.String()
}
