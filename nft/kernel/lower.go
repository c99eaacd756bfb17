package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/nftproxy/nftproxy/nft"
	"golang.org/x/sys/unix"
)

// registers is the number of registers of four bytes that nf_tables has.
const registers = 16

// Offsets in the network and transport headers.
const (
	ip4SAddr = 12
	ip4DAddr = 16
	ip6Src   = 8
	ip6Dst   = 24
	dport    = 2
)

// register returns the number of the register that begins at a word of four bytes. Those of whole
// 16 bytes have two numbers; this is the one that the kernel dumps.
func register(word int) uint32 {
	if word%4 == 0 {
		return unix.NFT_REG_1 + uint32(word)/4
	}
	return unix.NFT_REG32_00 + uint32(word)
}

// A program collects the expressions of a rule.
type program struct {
	family nft.Family
	exprs  []expr.Any
	err    error
}

// lower returns the expressions that statements mean for a family. They are those that nft makes of
// the text, but for an [nft.AffinityDNAT].
func lower(f nft.Family, stmts []nft.Stmt) ([]expr.Any, error) {
	p := program{family: f}
	for _, s := range stmts {
		p.stmt(s)
		if p.err != nil {
			return nil, fmt.Errorf("%T: %w", s, p.err)
		}
	}
	return p.exprs, nil
}

// add appends expressions.
func (p *program) add(exprs ...expr.Any) { p.exprs = append(p.exprs, exprs...) }

// fail keeps the first error.
func (p *program) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// stmt appends one statement.
func (p *program) stmt(s nft.Stmt) {
	switch s := s.(type) {
	case nft.Lookup:
		p.lookup(s)
	case nft.VerdictMap:
		// ip daddr . meta l4proto . th dport vmap @affinity-services
		p.key(s.Key, 0)
		p.add(&expr.Lookup{SourceRegister: register(0), SetName: s.Map, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})
	case nft.DNAT:
		// dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints
		p.mapLookup(s.Key, s.Map)
		p.dnat()
	case nft.AffinityDNAT:
		p.affinityDNAT(s)
	case nft.Update:
		p.dynset(0, s.Map, s.Key, s.Data, &expr.Dynset{Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: s.Timeout})
	case nft.DeleteElement:
		p.dynset(0, s.Map, s.Key, s.Data, &expr.Dynset{Operation: opDelete})
	case nft.SetField:
		p.setField(s)
	case nft.MatchPrefix:
		p.matchPrefix(s)
	case nft.MatchInput:
		p.matchInput(s)
	case nft.MatchLocal:
		// fib daddr type local
		p.add(&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagSADDR: s.Field.Kind == nft.SAddr, FlagDADDR: s.Field.Kind == nft.DAddr})
		p.compare(expr.CmpOpEq, host(unix.RTN_LOCAL))
	case nft.Masquerade:
		// masquerade fully-random
		p.add(&expr.Masq{FullyRandom: true})
	case nft.Reject:
		// reject
		p.add(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: p.portUnreachable()})
	case nft.Do:
		p.verdict(s.Verdict)
	case nft.MatchNew, nft.MatchDNATed, nft.MatchMark, nft.SetMark, nft.FlipMark, nft.MatchPriority, nft.ClearPriority:
		p.bits(s)
	default:
		p.fail("not a statement that can be programmed")
	}
}

// host returns a number in the byte order of the host.
func host(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// compare appends the comparison of the first register.
func (p *program) compare(op expr.CmpOp, data []byte) {
	p.add(&expr.Cmp{Op: op, Register: 1, Data: data})
}

// setMeta appends the write of the first register to the packet's meta data.
func (p *program) setMeta(key expr.MetaKey) {
	p.add(&expr.Meta{Key: key, SourceRegister: true, Register: 1})
}

// portUnreachable returns the code of the family's ICMP message.
func (p *program) portUnreachable() uint8 {
	if p.family == nft.IPv6 {
		return 4 // ICMPV6_PORT_UNREACH
	}
	return 3 // ICMP_PORT_UNREACH
}

// width returns the number of registers that a field takes.
func (p *program) width(field nft.Field) int {
	if p.family == nft.IPv6 && (field.Kind == nft.SAddr || field.Kind == nft.DAddr) {
		return 4
	}
	return 1
}

// widths returns the number of registers that fields take.
func (p *program) widths(fields []nft.Field) int {
	n := 0
	for _, field := range fields {
		n += p.width(field)
	}
	return n
}

// key appends loads of the fields into the registers from a word on and returns the word after them.
func (p *program) key(fields []nft.Field, word int) int {
	for _, field := range fields {
		if word+p.width(field) > registers {
			p.fail("the key does not fit the registers")
			return word
		}
		p.load(field, word)
		word += p.width(field)
	}
	return word
}

// load appends the load of a field into the registers from a word on.
func (p *program) load(field nft.Field, word int) {
	reg := register(word)
	switch field.Kind {
	case nft.SAddr, nft.DAddr:
		offset, size := p.address(field)
		p.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size})
	case nft.L4Proto:
		p.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg})
	case nft.DPort, nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort:
		p.add(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: dport, Len: 2})
	case nft.Random:
		p.add(&expr.Numgen{Register: reg, Modulus: field.N, Type: unix.NFT_NG_RANDOM})
	case nft.Turn:
		p.add(&expr.Numgen{Register: reg, Modulus: field.N, Type: unix.NFT_NG_INCREMENTAL})
	case nft.Priority:
		p.add(&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: reg})
	case nft.SourceHash:
		p.hash([]nft.Field{{Kind: nft.SAddr}}, field.N, 1, word)
	case nft.Hash:
		p.hash(append([]nft.Field{{Kind: nft.SAddr}}, nft.FrontEndKey()...), ^uint32(0), field.N, word)
	case nft.Verdicts, nft.UnknownField:
		p.fail("field kind %d cannot be read", field.Kind)
	}
}

// hash appends a hash over fields. What it reads goes to the registers behind its own,
// or over its own where there are too few left: the kernel writes the hash after it read them.
//
//	jhash ip6 saddr . ip6 daddr . meta l4proto . th dport mod 4294967295 seed 0x1
func (p *program) hash(fields []nft.Field, modulus, seed uint32, word int) {
	words := p.widths(fields)
	inner := min(word+1, registers-words)
	if inner < word {
		p.fail("the hash does not fit the registers")
		return
	}
	p.key(fields, inner)
	p.add(&expr.Hash{
		SourceRegister: register(inner), DestRegister: register(word), Length: uint32(words) * 4,
		Modulus: modulus, Seed: seed, Type: expr.HashTypeJenkins,
	})
}

// address returns offset and length of an address in the network header.
func (p *program) address(field nft.Field) (offset, size uint32) {
	switch {
	case p.family == nft.IPv6 && field.Kind == nft.SAddr:
		return ip6Src, 16
	case p.family == nft.IPv6:
		return ip6Dst, 16
	case field.Kind == nft.SAddr:
		return ip4SAddr, 4
	}
	return ip4DAddr, 4
}

// lookup appends a lookup in a set.
//
//	ip daddr . meta l4proto . th dport . ip saddr != @source-ranges
func (p *program) lookup(s nft.Lookup) {
	p.key(s.Key, 0)
	p.add(&expr.Lookup{SourceRegister: register(0), SetName: s.Set, Invert: s.Not})
}

// mapLookup appends a lookup in a map; the value is in the registers from 0 on.
func (p *program) mapLookup(key []nft.Field, name string) {
	p.key(key, 0)
	p.add(&expr.Lookup{SourceRegister: register(0), SetName: name, IsDestRegSet: true, DestRegister: register(0)})
}

// dnat appends the translation to the address and the port in the registers from 0 on.
func (p *program) dnat() {
	family := uint32(unix.NFPROTO_IPV4)
	if p.family == nft.IPv6 {
		family = unix.NFPROTO_IPV6
	}
	port := register(p.width(nft.Field{Kind: nft.DAddr}))
	p.add(&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: register(0), RegProtoMin: port})
}

// affinityDNAT appends the lookup, the renewal and the translation. nft would renew first.
//
//	update @affinity { KEY timeout 3h : meta priority } dnat ip to ip daddr . meta l4proto . th dport . meta priority map @affinity-endpoints
func (p *program) affinityDNAT(s nft.AffinityDNAT) {
	p.mapLookup(s.DNAT.Key, s.DNAT.Map)
	u := s.Update
	p.dynset(p.widths(nft.EndpointData()), u.Map, u.Key, u.Data, &expr.Dynset{Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: u.Timeout})
	p.dnat()
}

// dynset appends a change of an element of a dynamic map; the registers before word are in use.
//
//	update @affinity { ip saddr . ip daddr . meta l4proto . th dport timeout 3h : meta priority }
func (p *program) dynset(word int, name string, key []nft.Field, data nft.Field, e *expr.Dynset) {
	value := p.key(key, word)
	p.key([]nft.Field{data}, value)
	e.SetName, e.SrcRegKey, e.SrcRegData = name, register(word), register(value)
	p.add(e)
}

// setField appends a write to the packet.
func (p *program) setField(s nft.SetField) {
	switch s.Field.Kind {
	case nft.Priority:
		// meta priority set ip daddr . meta l4proto . th dport . numgen random mod 2 map @affinity-slots
		p.mapLookup(s.Key, s.Map)
		p.setMeta(expr.MetaKeyPRIORITY)
	case nft.DAddr:
		// ip daddr set ip daddr . meta l4proto . th dport map @affinity-front-ends
		p.mapLookup(s.Key, s.Map)
		offset, size := p.address(s.Field)
		w := &expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseNetworkHeader,
			Offset: offset, Len: size, CsumFlags: unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR,
		}
		if p.family == nft.IPv4 {
			w.CsumType, w.CsumOffset = expr.CsumTypeInet, 10
		}
		p.add(w)
	case nft.TCPDPort, nft.UDPDPort, nft.SCTPDPort:
		// tcp dport set ip daddr . meta l4proto . tcp dport map @affinity-ports
		w := &expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader,
			Offset: dport, Len: 2,
		}
		var proto byte
		proto, w.CsumType, w.CsumOffset = transport(s.Field.Kind)
		p.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1})
		p.compare(expr.CmpOpEq, []byte{proto})
		p.mapLookup(s.Key, s.Map)
		p.add(w)
	default:
		p.fail("field kind %d cannot be written", s.Field.Kind)
	}
}

// transport returns the protocol number, the kind and the place of the checksum of the protocol that a
// port field belongs to.
func transport(kind nft.FieldKind) (proto byte, csum expr.PayloadCsumType, offset uint32) {
	switch kind {
	case nft.UDPDPort:
		return unix.IPPROTO_UDP, expr.CsumTypeInet, 6
	case nft.SCTPDPort:
		return unix.IPPROTO_SCTP, unix.NFT_PAYLOAD_CSUM_SCTP, 8
	default:
		return unix.IPPROTO_TCP, expr.CsumTypeInet, 16
	}
}

// verdict appends a verdict.
//
//	goto lb-2
func (p *program) verdict(v nft.Verdict) {
	code, ok := verdictCode(v.Kind)
	if !ok {
		p.fail("verdict kind %d", v.Kind)
	}
	p.add(&expr.Verdict{Kind: expr.VerdictKind(code), Chain: v.Chain})
}

// verdictCode returns the number that the kernel has for a verdict.
func verdictCode(k nft.VerdictKind) (code int32, ok bool) {
	switch k {
	case nft.Accept:
		return verdictAccept, true
	case nft.Drop:
		return verdictDrop, true
	case nft.Jump:
		return unix.NFT_JUMP, true
	case nft.Goto:
		return unix.NFT_GOTO, true
	case nft.NoVerdict:
	}
	return 0, false
}
