package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/wire"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h, which package unix does not name.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaID         = 12
	ctaZone       = 18
	ctaFilter     = 25

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Dst = 2

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaFilterOrigFlags = 1

	// What CTA_FILTER compares (net/netfilter/nf_internals.h).
	filterIPDst    = 1 << 1
	filterProtoNum = 1 << 3
	filterDstPort  = 1 << 5
)

// The types of messages.
const (
	subsystem = 1 << 8 // NFNL_SUBSYS_CTNETLINK
	msgNew    = subsystem
	msgGet    = subsystem | 1
	msgDelete = subsystem | 2
)

// headers is the size of the headers of a message: nlmsghdr and nfgenmsg.
const headers = wire.HeaderSize + 4

// An entry is an entry of the kernel with what names it exactly.
type entry struct {
	conntrack.Entry
	// reply and id are the attributes CTA_TUPLE_REPLY and CTA_ID. An entry that took
	// the place of this one has another endpoint, and so another reply; the id is a hash of the original
	// tuple and of where the entry is in memory, which may be the same.
	reply, id []byte
}

// decode reads the message of an entry. It reports false for what is not UDP (Linux before 5.8 does not
// filter), not in the default zone, or not complete.
func decode(msg wire.Message) (e entry, ok bool) {
	if len(msg) < headers {
		return e, false
	}
	var source, to, from netip.AddrPort
	var okTo, okFrom bool
	for typ, attr := range wire.Attrs(msg[headers:]) {
		switch typ {
		case ctaTupleOrig:
			source, to, okTo = tuple(attr)
		case ctaTupleReply:
			e.reply = attr
			from, _, okFrom = tuple(attr)
		case ctaID:
			e.id = attr
		case ctaZone:
			return e, false
		}
	}
	e.Destination, e.Responder, e.Source = to, from, source
	return e, okTo && okFrom && len(e.id) == 4
}

// tuple reads the source and destination of one direction. It reports false for what is not UDP in the
// default zone.
func tuple(b []byte) (src, dst netip.AddrPort, ok bool) {
	var srcIP, dstIP netip.Addr
	var srcPort, dstPort uint16
	udp := false
	for typ, attr := range wire.Attrs(b) {
		switch typ {
		case ctaTupleIP:
			for typ, ip := range wire.Attrs(attr) {
				// CTA_IP_V4_SRC and _DST are 1 and 2, CTA_IP_V6_SRC and _DST 3 and 4.
				if addr, _ := netip.AddrFromSlice(ip); typ%2 == 1 {
					srcIP = addr
				} else {
					dstIP = addr
				}
			}
		case ctaTupleProto:
			for typ, v := range wire.Attrs(attr) {
				switch {
				case typ == ctaProtoNum && len(v) == 1:
					udp = v[0] == unix.IPPROTO_UDP
				case typ == ctaProtoSrcPort && len(v) == 2:
					srcPort = binary.BigEndian.Uint16(v)
				case typ == ctaProtoDstPort && len(v) == 2:
					dstPort = binary.BigEndian.Uint16(v)
				}
			}
		case ctaTupleZone:
			return src, dst, false
		}
	}
	return netip.AddrPortFrom(srcIP, srcPort), netip.AddrPortFrom(dstIP, dstPort), udp && srcIP.IsValid() && dstIP.IsValid()
}

// A batch is a number of deletions.
type batch struct {
	buf   []byte
	last  int // where the last message begins
	count int
}

// add appends the deletion of the entry with a tuple and, unless it is nil, an id. Without a tuple the kernel
// would delete all.
func (b *batch) add(family uint8, tuple, id []byte) {
	if len(tuple) == 0 {
		panic("conntrack: deletion of an entry without addresses")
	}
	b.last = len(b.buf)
	b.buf = appendHeader(b.buf, msgDelete, 0, 0, family)
	b.buf = wire.AppendBytes(b.buf, ctaTupleReply|unix.NLA_F_NESTED, tuple)
	if id != nil {
		b.buf = wire.AppendBytes(b.buf, ctaID, id)
	}
	wire.CloseMessage(b.buf, b.last)
	b.count++
}

// finish numbers the messages from after seq, has the kernel answer the last one, and returns its number.
// The others are answered if they fail.
func (b *batch) finish(seq uint32) uint32 {
	for msg := range wire.Messages(b.buf) {
		seq++
		msg.SetSeq(seq)
	}
	wire.Message(b.buf[b.last:]).Acknowledge()
	return seq
}

// reset empties the batch.
func (b *batch) reset() { *b = batch{buf: b.buf[:0]} }

// dumpRequest returns the request for the UDP entries of a family that were sent to an address and port:
// to any port if it is 0, to any address if there is none or it is unspecified, or of IPv6. There may be
// more in the answer: Linux before 5.8 ignores the filter.
func dumpRequest(family uint8, seq uint32, to netip.AddrPort) []byte {
	b := appendHeader(nil, msgGet, unix.NLM_F_DUMP, seq, family)
	var tuple []byte
	flags := uint32(filterProtoNum)
	// Linux 6.18 compares IPv6 addresses the wrong way round: it hands over all but those asked for.
	if a := to.Addr(); a.Is4() && !a.IsUnspecified() {
		flags |= filterIPDst
		tuple = wire.AppendBytes(tuple, ctaTupleIP|unix.NLA_F_NESTED, wire.AppendAddr(nil, ctaIPv4Dst, a))
	}
	proto := wire.AppendBytes(nil, ctaProtoNum, []byte{unix.IPPROTO_UDP})
	if to.Port() != 0 {
		flags |= filterDstPort
		proto = wire.AppendUint16(proto, ctaProtoDstPort, to.Port())
	}
	tuple = wire.AppendBytes(tuple, ctaTupleProto|unix.NLA_F_NESTED, proto)
	filter := wire.AppendNativeUint32(nil, ctaFilterOrigFlags, flags)
	b = wire.AppendBytes(b, ctaFilter|unix.NLA_F_NESTED, filter)
	b = wire.AppendBytes(b, ctaTupleOrig|unix.NLA_F_NESTED, tuple)
	wire.CloseMessage(b, 0)
	return b
}

// appendHeader appends the headers of a message; wire.CloseMessage must follow.
func appendHeader(b []byte, typ, flags uint16, seq uint32, family uint8) []byte {
	return append(wire.OpenMessage(b, typ, unix.NLM_F_REQUEST|flags, seq), family, unix.NFNETLINK_V0, 0, 0)
}

// protocol returns the number of a family in messages.
func protocol(f nft.Family) uint8 {
	if f == nft.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
