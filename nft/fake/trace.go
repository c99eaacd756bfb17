package fake

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/nftproxy/nftproxy/nft"
)

// A Packet is the first packet of a connection.
type Packet struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8  // IPPROTO_*
	In               string // the interface by which it came; "" for one from this host
}

// A Host is what packets are matched with that is not in the tables.
type Host struct {
	// Addresses are those of this host: "fib daddr type local", and where input differs from forward.
	Addresses []netip.Addr
}

// Verdict is what became of a packet.
type Verdict uint8

// The verdicts.
const (
	None   Verdict = iota // it went on as it was
	DNAT                  // it went to Result.Endpoint
	Reject                // it was answered
	Drop                  // it was lost
)

// String returns the word for the verdict.
func (v Verdict) String() string { return [...]string{"none", "dnat", "reject", "drop"}[v] }

// A Result says what became of a packet and how.
type Result struct {
	Verdict    Verdict
	Endpoint   netip.AddrPort // the destination of DNAT
	Masquerade bool           // it left with an address of this host
	Mark       uint32         // at the end
	Priority   uint32         // at the end
	Path       []string       // "chain: rule" of each rule of which all statements were done
}

// Trace follows a packet through tables. It enters at nft.Prerouting or, if this host sends it, at
// nft.Output. Pick chooses for numgen, below its modulus.
func Trace(tables []nft.Table, host Host, p Packet, from nft.Hook, pick func(mod uint32) uint32) Result {
	return NewTracer(tables, host).Trace(p, from, pick)
}

// A Tracer follows packets one after the other, and remembers what they wrote into dynamic maps.
type Tracer struct {
	// Now is the time since some beginning; set it forward to let entries of dynamic maps time out.
	Now time.Duration

	host    map[netip.Addr]bool
	tables  []*traced
	dynamic map[entryKey]entry
}

// A traced table has its objects by name.
type traced struct {
	*nft.Table
	chains map[string]*nft.Chain
	sets   map[string]*indexed
}

// An indexed set has its elements by key; those of an interval set by all fields but the last.
type indexed struct {
	*nft.Set
	elements map[nft.Value]*nft.Element
	near     map[nft.Value][]*nft.Element
}

// An entryKey is the place of an entry of a dynamic map.
type entryKey struct {
	family     nft.Family
	table, set string
	key        nft.Value
}

// An entry is what a packet wrote.
type entry struct {
	data nft.Value
	end  time.Duration
}

// NewTracer returns a Tracer with nothing in dynamic maps.
func NewTracer(tables []nft.Table, host Host) *Tracer {
	t := &Tracer{dynamic: map[entryKey]entry{}}
	t.Set(tables, host)
	return t
}

// Set replaces the tables and the host; what is in dynamic maps stays, as it does in Linux.
func (t *Tracer) Set(tables []nft.Table, host Host) {
	t.host, t.tables = map[netip.Addr]bool{}, nil
	for _, a := range host.Addresses {
		t.host[a] = true
	}
	for i := range tables {
		t.tables = append(t.tables, index(&tables[i]))
	}
}

// index returns a table with its objects by name.
func index(t *nft.Table) *traced {
	r := &traced{Table: t, chains: map[string]*nft.Chain{}, sets: map[string]*indexed{}}
	for i := range t.Chains {
		r.chains[t.Chains[i].Name] = &t.Chains[i]
	}
	for i := range t.Sets {
		s := &indexed{Set: &t.Sets[i], elements: map[nft.Value]*nft.Element{}, near: map[nft.Value][]*nft.Element{}}
		r.sets[s.Name] = s
		elements := t.Elements[s.Name]
		for j := range elements {
			e := &elements[j]
			if !s.Interval {
				s.elements[e.Key] = e
				continue
			}
			at := s.prefix(t.Family, e.Key)
			s.near[at] = append(s.near[at], e)
		}
	}
	return r
}

// prefix returns a key without its last field.
func (s *indexed) prefix(f nft.Family, key nft.Value) nft.Value {
	return nft.ValueOf(key.Bytes()[:nft.Size(f, s.Key[:len(s.Key)-1])])
}

// find returns the element for a key, or nil.
func (s *indexed) find(f nft.Family, key nft.Value) *nft.Element {
	if !s.Interval {
		return s.elements[key]
	}
	for _, e := range s.near[s.prefix(f, key)] {
		if e.Key.Compare(&key) <= 0 && key.Compare(&e.End) <= 0 {
			return e
		}
	}
	return nil
}

// Trace follows one packet, as the function of this name does.
func (t *Tracer) Trace(p Packet, from nft.Hook, pick func(mod uint32) uint32) Result {
	f := &flow{Tracer: t, Packet: p, family: nft.IPv4, pick: pick}
	if p.Dst.Is6() {
		f.family = nft.IPv6
	}
	f.travel(from)
	if f.Verdict == None && f.translated {
		f.Verdict = DNAT
	}
	if f.Verdict == DNAT {
		f.Endpoint = netip.AddrPortFrom(f.Packet.Dst, f.Packet.DstPort)
	}
	return f.Result
}

// travel takes the packet through the hooks until it is delivered or lost. What this host sends to
// itself passes prerouting and input as well, with its connection already translated.
func (f *flow) travel(from nft.Hook) {
	if from == nft.Output {
		if !f.hook(nft.Output) || !f.hook(nft.Postrouting) || !f.host[f.Packet.Dst] {
			return
		}
		f.In, f.decided = "lo", true
		if f.hook(nft.Prerouting) {
			f.hook(nft.Input)
		}
		return
	}
	switch {
	case !f.hook(nft.Prerouting):
	case f.host[f.Packet.Dst]:
		f.hook(nft.Input)
	case f.hook(nft.Forward):
		f.hook(nft.Postrouting)
	}
}

// hook runs the base chains of a hook by priority and reports whether the packet goes on.
func (f *flow) hook(h nft.Hook) bool {
	type base struct {
		table *traced
		chain *nft.Chain
	}
	var bases []base
	for _, t := range f.tables {
		for i := range t.Chains {
			if c := &t.Chains[i]; t.Family == f.family && c.Base != nil && c.Base.Hook == h {
				bases = append(bases, base{t, c})
			}
		}
	}
	slices.SortStableFunc(bases, func(a, b base) int { return cmp.Compare(a.chain.Base.Priority, b.chain.Base.Priority) })
	destination := h == nft.Prerouting || h == nft.Output
	for _, b := range bases {
		// A connection meets nat chains until one decides, once for its destination and once for its source.
		if b.chain.Base.Type == nft.TypeNAT && (destination && f.decided || f.Masquerade) {
			continue
		}
		f.table = b.table
		f.chain(b.chain)
		if f.Verdict == Drop || f.Verdict == Reject {
			return false
		}
	}
	return true
}
