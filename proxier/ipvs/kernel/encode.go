package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// What the kernel calls things (include/uapi/linux/ip_vs.h).
const (
	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7

	attrService = 1
	attrDest    = 2

	serviceFamily    = 1
	serviceProtocol  = 2
	serviceAddr      = 3
	servicePort      = 4
	serviceScheduler = 6
	serviceFlags     = 7
	serviceTimeout   = 8
	serviceNetmask   = 9

	destAddr       = 1
	destPort       = 2
	destForward    = 3
	destWeight     = 4
	destUpperLimit = 5
	destLowerLimit = 6
	destFamily     = 11

	flagPersistent = 0x1
	// flagFallback is IP_VS_SVC_F_SCHED_SH_FALLBACK and IP_VS_SVC_F_SCHED_MH_FALLBACK.
	flagFallback = 0x8

	genericVersion = 1
	// maxScheduler is the length of the longest name of a scheduler (IP_VS_SCHEDNAME_MAXLEN, less the
	// zero).
	maxScheduler = 15
)

// A batch is netlink messages to be sent at once, one for each of some steps.
type batch struct {
	buf []byte
	// steps are the steps of the messages: the number of the step in the caller's list. The sequence
	// number of the first message is first, and so on.
	steps []int
	first uint32
	last  int // where the last message begins
}

// reset empties the batch; its messages are numbered from first on.
func (b *batch) reset(first uint32) { *b = batch{buf: b.buf[:0], steps: b.steps[:0], first: first} }

// begin appends the header of a message for a step; end must follow.
func (b *batch) begin(step int, typ, flags uint16) {
	b.last = len(b.buf)
	b.buf = append(b.buf, 0, 0, 0, 0) // the length
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, unix.NLM_F_REQUEST|flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, b.first+uint32(len(b.steps)))
	b.buf = append(b.buf, 0, 0, 0, 0) // from this socket
	b.steps = append(b.steps, step)
}

// end sets the length of the last message.
func (b *batch) end() { binary.NativeEndian.PutUint32(b.buf[b.last:], uint32(len(b.buf)-b.last)) }

// acknowledge asks for an answer to the last message even if it succeeds.
func (b *batch) acknowledge() { b.buf[b.last+6] |= unix.NLM_F_ACK }

// addOp appends a step about a server or destination, with verb for its own.
func (b *batch) addOp(step int, family uint16, op *ipvs.Op, verb ipvs.Verb) {
	b.begin(step, family, 0)
	b.buf = append(b.buf, command(verb), genericVersion, 0, 0)
	b.buf = appendOp(b.buf, op, verb)
	b.end()
}

// command returns the command for a verb.
func command(v ipvs.Verb) byte {
	switch v {
	case ipvs.AddServer:
		return cmdNewService
	case ipvs.SetServer:
		return cmdSetService
	case ipvs.DeleteServer:
		return cmdDelService
	case ipvs.AddDest:
		return cmdNewDest
	case ipvs.SetDest:
		return cmdSetDest
	case ipvs.DeleteDest:
		return cmdDelDest
	}
	panic("ipvs/kernel: no command for " + ipvs.Op{Verb: v}.String())
}

// appendOp appends the attributes of a step about a server or destination.
func appendOp(b []byte, op *ipvs.Op, verb ipvs.Verb) []byte {
	begin := len(b)
	b = appendServer(b, op.Key)
	if verb == ipvs.AddServer || verb == ipvs.SetServer {
		s := op.Server
		b = appendString(b, serviceScheduler, s.Scheduler)
		b = appendHeader(b, serviceFlags, 8)
		b = binary.NativeEndian.AppendUint32(b, flags(s))
		b = append(b, 0xff, 0xff, 0xff, 0xff) // of all flags
		b = appendUint32(b, serviceTimeout, seconds(s.Persistence))
		b = appendUint32(b, serviceNetmask, netmask(op.Key.Addr.Addr()))
	}
	endNested(b, begin)
	if verb != ipvs.AddDest && verb != ipvs.SetDest && verb != ipvs.DeleteDest {
		return b
	}
	addr := op.Dest.Addr
	begin = len(b)
	b = appendHeader(b, attrDest, 0)
	b = appendUint16(b, destFamily, family(addr.Addr()))
	b = appendAddr(b, destAddr, addr.Addr())
	b = appendPort(b, destPort, addr.Port())
	if verb != ipvs.DeleteDest {
		b = appendUint32(b, destForward, 0) // IP_VS_CONN_F_MASQ
		b = appendUint32(b, destWeight, uint32(op.Dest.Weight))
		b = appendUint32(b, destUpperLimit, 0)
		b = appendUint32(b, destLowerLimit, 0)
	}
	endNested(b, begin)
	return b
}

// appendServer appends what names a virtual server. More may follow inside, before endNested.
func appendServer(b []byte, k ipvs.Key) []byte {
	b = appendHeader(b, attrService, 0)
	begin := len(b) - 4
	b = appendUint16(b, serviceFamily, family(k.Addr.Addr()))
	b = appendUint16(b, serviceProtocol, uint16(k.Protocol))
	b = appendAddr(b, serviceAddr, k.Addr.Addr())
	b = appendPort(b, servicePort, k.Addr.Port())
	endNested(b, begin)
	return b
}

// netmask returns the mask of affinity by single address: bits or, in IPv6, their number.
func netmask(a netip.Addr) uint32 {
	if a.Is6() {
		return 128
	}
	return ^uint32(0)
}

// addAddress appends a step about an address of the device with an index.
//
// The address is one for the host itself and, of IPv6, deprecated, so that the kernel never picks it as the source
// of a connection.
func (b *batch) addAddress(step, index int, op *ipvs.Op) {
	typ, flags := uint16(unix.RTM_DELADDR), uint16(0)
	if op.Verb == ipvs.AddAddress {
		typ, flags = unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL
	}
	b.begin(step, typ, flags)
	b.buf = append(b.buf, byte(family(op.Address)), byte(op.Address.BitLen()), 0, unix.RT_SCOPE_HOST)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(index))
	b.buf = appendAddr(b.buf, unix.IFA_LOCAL, op.Address)
	b.buf = appendAddr(b.buf, unix.IFA_ADDRESS, op.Address)
	if op.Verb == ipvs.AddAddress {
		b.buf = appendUint32(b.buf, unix.IFA_FLAGS, unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD)
		if op.Address.Is6() {
			b.buf = appendHeader(b.buf, unix.IFA_CACHEINFO, 16)
			for _, v := range []uint32{0, ^uint32(0), 0, 0} { // preferred and valid, in seconds; made, changed
				b.buf = binary.NativeEndian.AppendUint32(b.buf, v)
			}
		}
	}
	b.end()
}

// family returns the address family.
func family(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// attrHeaderSize is the size of the header of a netlink attribute.
const attrHeaderSize = 4

// appendHeader appends the header of an attribute with n bytes of data.
func appendHeader(b []byte, typ uint16, n int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeaderSize+n))
	return binary.NativeEndian.AppendUint16(b, typ)
}

// endNested sets the length of the attribute that begins there and ends here.
func endNested(b []byte, begin int) {
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
}

// pad appends zeros up to the alignment of netlink.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendUint16 appends an attribute with a number.
func appendUint16(b []byte, typ, v uint16) []byte {
	return pad(binary.NativeEndian.AppendUint16(appendHeader(b, typ, 2), v))
}

// appendUint32 appends an attribute with a number.
func appendUint32(b []byte, typ uint16, v uint32) []byte {
	return binary.NativeEndian.AppendUint32(appendHeader(b, typ, 4), v)
}

// appendPort appends an attribute with a port.
func appendPort(b []byte, typ, port uint16) []byte {
	return pad(binary.BigEndian.AppendUint16(appendHeader(b, typ, 2), port))
}

// appendAddr appends an attribute with an address.
func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	b = appendHeader(b, typ, a.BitLen()/8)
	if a.Is4() {
		v := a.As4()
		return append(b, v[:]...)
	}
	v := a.As16()
	return append(b, v[:]...)
}

// appendString appends an attribute with a string, which ends with a zero.
func appendString(b []byte, typ uint16, s string) []byte {
	b = append(appendHeader(b, typ, len(s)+1), s...)
	return pad(append(b, 0))
}
