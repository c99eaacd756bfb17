package fake

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
)

// A flow is a packet on its way.
type flow struct {
	*Tracer
	Packet
	Result
	family     nft.Family
	pick       func(mod uint32) uint32
	table      *traced // whose chains the packet is in
	decided    bool    // nat chains have seen the destination, or one of them translated it
	translated bool    // the connection's destination was translated (ct status dnat)
}

// An outcome is how a statement, a rule or a chain ends.
type outcome uint8

// The outcomes.
const (
	next outcome = iota // go on with the next statement or rule, or return to the caller
	miss                // the rule does not match: go on with the next rule
	stop                // the base chain is done
)

// chain runs the rules of a chain. It returns stop if the base chain is done, and else next.
func (f *flow) chain(c *nft.Chain) outcome {
	for i := range c.Rules {
		r := &c.Rules[i]
		o, v := f.rule(c, r)
		if o == stop {
			return stop
		}
		switch v.Kind {
		case nft.Jump:
			if f.chain(f.table.chains[v.Chain]) == stop {
				return stop
			}
		case nft.Goto:
			// The caller goes on after the rule that came here: this chain's own rest is lost.
			return f.chain(f.table.chains[v.Chain])
		case nft.NoVerdict, nft.Accept, nft.Drop:
		}
	}
	return next
}

// rule runs the statements of a rule; a jump or goto is the verdict that it returns.
func (f *flow) rule(c *nft.Chain, r *nft.Rule) (outcome, nft.Verdict) {
	for _, s := range r.Stmts {
		o, v := f.stmt(s)
		if o == miss {
			return miss, nft.Verdict{}
		}
		if o == stop || v.Kind != nft.NoVerdict {
			f.pass(c, r)
			return f.verdict(o, v)
		}
	}
	f.pass(c, r)
	return next, nft.Verdict{}
}

// pass remembers that the packet did all that a rule says.
func (f *flow) pass(c *nft.Chain, r *nft.Rule) {
	f.Path = append(f.Path, c.Name+": "+r.Text(f.family))
}

// verdict applies a verdict that ends the base chain, and returns others.
func (f *flow) verdict(o outcome, v nft.Verdict) (outcome, nft.Verdict) {
	switch v.Kind {
	case nft.Accept:
		return stop, v
	case nft.Drop:
		f.Verdict = Drop
		return stop, v
	case nft.Jump, nft.Goto, nft.NoVerdict:
	}
	return o, v
}

// stmt does what a statement says: those that look at maps and those that decide.
func (f *flow) stmt(s nft.Stmt) (outcome, nft.Verdict) {
	switch s := s.(type) {
	case nft.Lookup:
		key, ok := f.key(s.Key)
		return when(ok && (f.table.sets[s.Set].find(f.family, key) == nil) == s.Not)
	case nft.VerdictMap:
		e := f.find(s.Map, s.Key)
		if e == nil {
			return when(false)
		}
		return next, e.Verdict
	case nft.DNAT:
		return f.dnat(s, nil)
	case nft.AffinityDNAT:
		return f.dnat(s.DNAT, &s.Update)
	case nft.Update:
		return when(f.update(s))
	case nft.DeleteElement:
		key, ok := f.key(s.Key)
		delete(f.dynamic, f.at(s.Map, key))
		return when(ok)
	case nft.SetField:
		return when(f.setField(s))
	case nft.Masquerade:
		f.Masquerade = true
		return stop, nft.Verdict{}
	case nft.Reject:
		f.Verdict = Reject
		return stop, nft.Verdict{}
	case nft.Do:
		return next, s.Verdict
	case nft.Unknown:
		panic("fake: a rule that is not ours: " + s.Text)
	}
	return f.match(s)
}

// match does what the other statements say: those that look at the packet and its mark.
func (f *flow) match(s nft.Stmt) (outcome, nft.Verdict) {
	switch s := s.(type) {
	case nft.MatchPrefix:
		return when(s.Prefix.Contains(f.addr(s.Field)) != s.Not)
	case nft.MatchInput:
		return when((f.In == s.Name || s.Prefix && strings.HasPrefix(f.In, s.Name)) != s.Not)
	case nft.MatchLocal:
		return when(f.host[f.addr(s.Field)])
	case nft.MatchNew:
		return when(true) // packets here are first packets
	case nft.MatchDNATed:
		return when(f.translated)
	case nft.MatchMark:
		return when(f.Mark&s.Bits == s.Bits)
	case nft.SetMark:
		f.Mark |= s.Bits
	case nft.FlipMark:
		f.Mark ^= s.Bits
	case nft.MatchPriority:
		return when(f.Priority&s.Mask == s.Value)
	case nft.ClearPriority:
		f.Priority = 0
	}
	return when(true)
}

// when returns the outcome of a match.
func when(ok bool) (outcome, nft.Verdict) {
	if ok {
		return next, nft.Verdict{}
	}
	return miss, nft.Verdict{}
}

// find returns the element of a map that is not dynamic, or nil.
func (f *flow) find(name string, fields []nft.Field) *nft.Element {
	key, ok := f.key(fields)
	if !ok {
		return nil
	}
	return f.table.sets[name].find(f.family, key)
}

// data returns the value that a map has for the packet, and whether it has one.
func (f *flow) data(name string, fields []nft.Field) ([]byte, bool) {
	if !f.table.sets[name].Dynamic {
		e := f.find(name, fields)
		if e == nil {
			return nil, false
		}
		return e.Data.Bytes(), true
	}
	key, ok := f.key(fields)
	e, there := f.dynamic[f.at(name, key)]
	if !ok || !there || e.end <= f.Now {
		return nil, false
	}
	return e.data.Bytes(), true
}

// at returns the place of an entry of a dynamic map.
func (f *flow) at(name string, key nft.Value) entryKey {
	return entryKey{family: f.family, table: f.table.Name, set: name, key: key}
}

// dnat translates the destination, and renews an entry if the map has an endpoint.
func (f *flow) dnat(s nft.DNAT, update *nft.Update) (outcome, nft.Verdict) {
	data, ok := f.data(s.Map, s.Key)
	if !ok || update != nil && !f.update(*update) {
		return when(false)
	}
	n := len(data) - 4
	f.Packet.Dst, _ = netip.AddrFromSlice(data[:n])
	f.Packet.DstPort = binary.BigEndian.Uint16(data[n:])
	f.decided, f.translated = true, true
	return stop, nft.Verdict{}
}

// update adds an entry to a dynamic map or renews it, and reports whether there was room.
func (f *flow) update(s nft.Update) bool {
	key, ok := f.key(s.Key)
	data, ok2 := f.key([]nft.Field{s.Data})
	if !ok || !ok2 {
		return false
	}
	at := f.at(s.Map, key)
	e, there := f.dynamic[at]
	if !there || e.end <= f.Now {
		if !there && f.full(at) {
			return false
		}
		e.data = data
	}
	e.end = f.Now + s.Timeout
	f.dynamic[at] = e
	return true
}

// full reports whether a dynamic map has no room; what timed out makes room.
func (f *flow) full(at entryKey) bool {
	n := 0
	for k, e := range f.dynamic {
		k.key = at.key
		if k == at && e.end > f.Now {
			n++
		}
	}
	return n >= int(f.table.sets[at.set].Size)
}

// setField writes into the packet what a map has for it, and reports whether there is something.
func (f *flow) setField(s nft.SetField) bool {
	if !f.has(s.Field) {
		return false
	}
	data, ok := f.data(s.Map, s.Key)
	if !ok {
		return false
	}
	switch s.Field.Kind {
	case nft.Priority:
		f.Priority = binary.NativeEndian.Uint32(data)
	case nft.DAddr:
		f.Packet.Dst, _ = netip.AddrFromSlice(data)
	case nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort:
		f.Packet.DstPort = binary.BigEndian.Uint16(data)
	case nft.SAddr, nft.L4Proto, nft.DPort, nft.Random, nft.Hash, nft.Turn, nft.SourceHash, nft.Verdicts, nft.UnknownField:
		panic("fake: a field that cannot be written: " + s.Field.Text(f.family))
	}
	return true
}

// has reports whether the packet is of the protocol whose port a field is.
func (f *flow) has(k nft.Field) bool {
	switch k.Kind {
	case nft.TCPDPort:
		return f.Proto == unix.IPPROTO_TCP
	case nft.UDPDPort:
		return f.Proto == unix.IPPROTO_UDP
	case nft.SCTPDPort:
		return f.Proto == unix.IPPROTO_SCTP
	case nft.SAddr, nft.DAddr, nft.L4Proto, nft.DPort, nft.Random, nft.Hash, nft.Turn, nft.SourceHash, nft.Priority, nft.Verdicts, nft.UnknownField:
	}
	return true
}

// addr returns an address of the packet.
func (f *flow) addr(k nft.Field) netip.Addr {
	if k.Kind == nft.SAddr {
		return f.Src
	}
	return f.Packet.Dst
}

// key returns the value of fields, and whether the packet has them all.
func (f *flow) key(fields []nft.Field) (nft.Value, bool) {
	var v nft.Value
	for _, k := range fields {
		if !f.has(k) {
			return nft.Value{}, false
		}
		switch k.Kind {
		case nft.SAddr, nft.DAddr:
			v = v.Addr(f.addr(k))
		case nft.L4Proto:
			v = v.Proto(f.Proto)
		case nft.DPort, nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort:
			v = v.Port(f.Packet.DstPort)
		case nft.Random:
			v = v.Uint32(f.random(k.N))
		case nft.Turn:
			v = v.Uint32(f.random(k.N))
		case nft.SourceHash:
			v = v.Uint32(sourceHash(f.Src, k.N))
		case nft.Hash:
			v = v.Uint32(f.hash(k.N))
		case nft.Priority:
			v = v.Uint32(f.Priority)
		case nft.Verdicts, nft.UnknownField:
			panic("fake: no field of a packet: " + k.Text(f.family))
		}
	}
	return v, true
}

// random returns a number below mod.
func (f *flow) random(mod uint32) uint32 {
	if mod <= 1 {
		return 0
	}
	n := f.pick(mod)
	if n >= mod {
		panic("fake: picked a number that numgen does not make")
	}
	return n
}

// sourceHash returns a number below mod that depends on the client alone. Its value is not the kernel's.
func sourceHash(client netip.Addr, mod uint32) uint32 {
	h := fnv.New32a()
	h.Write(client.AsSlice())
	return h.Sum32() % mod
}

// hash returns a number of what the kernel's jhash goes over. Its value is not the kernel's.
func (f *flow) hash(seed uint32) uint32 {
	h := fnv.New64a()
	v := nft.Value{}.Addr(f.Src).Addr(f.Packet.Dst)
	h.Write(v.Bytes())
	v = nft.Value{}.Proto(f.Proto).Port(f.Packet.DstPort).Uint32(seed)
	h.Write(v.Bytes())
	return uint32(h.Sum64() % (1<<32 - 1))
}
