package kernel

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
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

// The sizes of headers.
const (
	attrHeader = 4
	headers    = unix.SizeofNlMsghdr + 4 // with struct nfgenmsg
)

// An entry is an entry of the kernel with what names it exactly.
type entry struct {
	conntrack.Entry
	// reply and id are the attributes CTA_TUPLE_REPLY and CTA_ID, headers included. An entry that took
	// the place of this one has another endpoint, and so another reply; the id is a hash of the original
	// tuple and of where the entry is in memory, which may be the same.
	reply, id []byte
}

// decode reads the message of an entry. It reports false for what is not UDP (Linux before 5.8 does not
// filter), not in the default zone, or not complete.
func decode(msg []byte) (e entry, ok bool) {
	if len(msg) < headers {
		return e, false
	}
	var to, from netip.AddrPort
	var okTo, okFrom bool
	for typ, attr := range attributes(msg[headers:]) {
		switch typ {
		case ctaTupleOrig:
			_, to, okTo = tuple(attr[attrHeader:])
		case ctaTupleReply:
			e.reply = attr
			from, _, okFrom = tuple(attr[attrHeader:])
		case ctaID:
			e.id = attr
		case ctaZone:
			return e, false
		}
	}
	e.Destination, e.Responder = to, from
	return e, okTo && okFrom && len(e.id) == attrHeader+4
}

// tuple reads the source and destination of one direction. It reports false for what is not UDP in the
// default zone.
func tuple(b []byte) (src, dst netip.AddrPort, ok bool) {
	var srcIP, dstIP netip.Addr
	var srcPort, dstPort uint16
	udp := false
	for typ, attr := range attributes(b) {
		switch typ {
		case ctaTupleIP:
			for typ, ip := range attributes(attr[attrHeader:]) {
				// CTA_IP_V4_SRC and _DST are 1 and 2, CTA_IP_V6_SRC and _DST 3 and 4.
				if addr, _ := netip.AddrFromSlice(ip[attrHeader:]); typ%2 == 1 {
					srcIP = addr
				} else {
					dstIP = addr
				}
			}
		case ctaTupleProto:
			for typ, v := range attributes(attr[attrHeader:]) {
				v = v[attrHeader:]
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
	if len(tuple) <= attrHeader {
		panic("conntrack: deletion of an entry without addresses")
	}
	b.last = len(b.buf)
	b.buf = appendHeader(b.buf, msgDelete, 0, family)
	b.buf = pad(append(b.buf, tuple...))
	b.buf = pad(append(b.buf, id...))
	finish(b.buf[b.last:])
	b.count++
}

// finish numbers the messages from after seq, has the kernel answer the last one, and returns its number.
// The others are answered if they fail.
func (b *batch) finish(seq uint32) uint32 {
	for msg := range messages(b.buf) {
		seq++
		binary.NativeEndian.PutUint32(msg[8:], seq)
	}
	last := b.buf[b.last:]
	binary.NativeEndian.PutUint16(last[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return seq
}

// reset empties the batch.
func (b *batch) reset() { *b = batch{buf: b.buf[:0]} }

// dumpRequest returns the request for the UDP entries of a family that were sent to an address and port:
// to any port if it is 0, to any address if there is none or it is unspecified, or of IPv6. There may be
// more in the answer: Linux before 5.8 ignores the filter.
func dumpRequest(family uint8, seq uint32, to netip.AddrPort) []byte {
	b := appendHeader(nil, msgGet, unix.NLM_F_DUMP, family)
	binary.NativeEndian.PutUint32(b[8:], seq)
	var tuple []byte
	flags := uint32(filterProtoNum)
	// Linux 6.18 compares IPv6 addresses the wrong way round: it hands over all but those asked for.
	if a := to.Addr(); a.Is4() && !a.IsUnspecified() {
		flags |= filterIPDst
		tuple = appendAttr(tuple, ctaTupleIP|unix.NLA_F_NESTED, appendAttr(nil, ctaIPv4Dst, a.AsSlice()))
	}
	proto := appendAttr(nil, ctaProtoNum, []byte{unix.IPPROTO_UDP})
	if to.Port() != 0 {
		flags |= filterDstPort
		proto = appendAttr(proto, ctaProtoDstPort, binary.BigEndian.AppendUint16(nil, to.Port()))
	}
	tuple = appendAttr(tuple, ctaTupleProto|unix.NLA_F_NESTED, proto)
	filter := appendAttr(nil, ctaFilterOrigFlags, binary.NativeEndian.AppendUint32(nil, flags))
	b = appendAttr(b, ctaFilter|unix.NLA_F_NESTED, filter)
	b = appendAttr(b, ctaTupleOrig|unix.NLA_F_NESTED, tuple)
	finish(b)
	return b
}

// appendHeader appends the headers of a message; finish fills in its length.
func appendHeader(b []byte, typ, flags uint16, family uint8) []byte {
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, make([]byte, 8)...) // sequence number, port
	return append(b, family, unix.NFNETLINK_V0, 0, 0)
}

// finish writes the length of a message.
func finish(msg []byte) { binary.NativeEndian.PutUint32(msg, uint32(len(msg))) }

// appendAttr appends an attribute.
func appendAttr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return pad(append(b, data...))
}

// pad appends zeros up to the alignment of netlink.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// attributes yields the attributes in b by type, headers included, up to the first that is cut off.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHeader {
			n := int(binary.NativeEndian.Uint16(b))
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if n < attrHeader || n > len(b) || !yield(typ, b[:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// messages yields the messages in b, headers included, up to the first that is cut off.
func messages(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) || !yield(b[:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// status returns the error in an NLMSG_ERROR or NLMSG_DONE, nil for an ack.
func status(msg []byte) error {
	if len(msg) < unix.SizeofNlMsghdr+4 {
		return nil
	}
	if errno := -int32(binary.NativeEndian.Uint32(msg[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// protocol returns the number of a family in messages.
func protocol(f nft.Family) uint8 {
	if f == nft.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
