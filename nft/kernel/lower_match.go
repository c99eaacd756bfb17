package kernel

import (
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/nftproxy/nftproxy/nft"
	"golang.org/x/sys/unix"
)

// bits appends a statement about the bits of the mark, the priority or of conntrack.
func (p *program) bits(s nft.Stmt) {
	none, all := host(0), host(^uint32(0))
	mask := func(mask, xor []byte) {
		p.add(&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: xor})
	}
	switch s := s.(type) {
	case nft.MatchNew:
		// ct state new
		p.add(&expr.Ct{Register: 1, Key: expr.CtKeySTATE})
		mask(host(expr.CtStateBitNEW), none)
		p.compare(expr.CmpOpNeq, none)
	case nft.MatchDNATed:
		// ct status dnat
		const dstNAT = 1 << 5 // IPS_DST_NAT
		p.add(&expr.Ct{Register: 1, Key: expr.CtKeySTATUS})
		mask(host(dstNAT), none)
		p.compare(expr.CmpOpNeq, none)
	case nft.MatchMark:
		// meta mark & 0x00004000 == 0x00004000
		p.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1})
		mask(host(s.Bits), none)
		p.compare(expr.CmpOpEq, host(s.Bits))
	case nft.SetMark:
		// meta mark set meta mark | 0x00004000
		p.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1})
		mask(host(^s.Bits), host(s.Bits))
		p.setMeta(expr.MetaKeyMARK)
	case nft.FlipMark:
		// meta mark set meta mark ^ 0x00004000
		p.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1})
		mask(all, host(s.Bits))
		p.setMeta(expr.MetaKeyMARK)
	case nft.MatchPriority:
		// meta priority & fe00:0 == ae00:0
		p.add(&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: 1})
		mask(host(s.Mask), none)
		p.compare(expr.CmpOpEq, host(s.Value))
	case nft.ClearPriority:
		// meta priority set none
		p.add(&expr.Immediate{Register: 1, Data: none})
		p.setMeta(expr.MetaKeyPRIORITY)
	}
}

// matchPrefix appends a comparison of an address. As nft does, a prefix of whole bytes compares just
// these.
//
//	ip saddr != 10.0.0.0/8
func (p *program) matchPrefix(s nft.MatchPrefix) {
	offset, size := p.address(s.Field)
	addr := s.Prefix.Masked().Addr()
	if len(addr.AsSlice()) != int(size) {
		p.fail("prefix %s does not fit", s.Prefix)
		return
	}
	op := expr.CmpOpEq
	if s.Not {
		op = expr.CmpOpNeq
	}
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
	p.add(load)
	bytes, bits := s.Prefix.Bits()/8, s.Prefix.Bits()%8
	if bits == 0 && bytes > 0 {
		load.Len = uint32(bytes)
		p.compare(op, addr.AsSlice()[:bytes])
		return
	}
	p.add(&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: netmask(s.Prefix), Xor: make([]byte, size)})
	p.compare(op, addr.AsSlice())
}

// netmask returns the mask of a prefix as bytes.
func netmask(p netip.Prefix) []byte {
	ones := make([]byte, p.Addr().BitLen()/8)
	for i := range ones {
		ones[i] = 0xff
	}
	all, _ := netip.AddrFromSlice(ones)
	return netip.PrefixFrom(all, p.Bits()).Masked().Addr().AsSlice()
}

// matchInput appends a comparison of the name of the input interface.
//
//	iifname != "veth*"
func (p *program) matchInput(s nft.MatchInput) {
	name := []byte(s.Name)
	if len(name) == 0 || len(name) >= unix.IFNAMSIZ {
		p.fail("%q is not the name of an interface", s.Name)
		return
	}
	if !s.Prefix {
		name = append(name, make([]byte, unix.IFNAMSIZ-len(name))...)
	}
	op := expr.CmpOpEq
	if s.Not {
		op = expr.CmpOpNeq
	}
	p.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1})
	p.compare(op, name)
}
