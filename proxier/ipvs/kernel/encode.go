package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft/wire"
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
	b.buf = wire.OpenMessage(b.buf, typ, unix.NLM_F_REQUEST|flags, b.first+uint32(len(b.steps)))
	b.steps = append(b.steps, step)
}

// end sets the length of the last message.
func (b *batch) end() { wire.CloseMessage(b.buf, b.last) }

// acknowledge asks for an answer to the last message even if it succeeds.
func (b *batch) acknowledge() { wire.Message(b.buf[b.last:]).Acknowledge() }

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
		b = wire.AppendString(b, serviceScheduler, s.Scheduler)
		b = wire.AppendHeader(b, serviceFlags, 8)
		b = binary.NativeEndian.AppendUint32(b, flags(s))
		b = append(b, 0xff, 0xff, 0xff, 0xff) // of all flags
		b = wire.AppendNativeUint32(b, serviceTimeout, seconds(s.Persistence))
		b = wire.AppendNativeUint32(b, serviceNetmask, netmask(op.Key.Addr.Addr()))
	}
	wire.CloseNested(b, begin)
	if verb != ipvs.AddDest && verb != ipvs.SetDest && verb != ipvs.DeleteDest {
		return b
	}
	addr := op.Dest.Addr
	begin = len(b)
	b = wire.AppendHeader(b, attrDest, 0)
	b = wire.AppendNativeUint16(b, destFamily, family(addr.Addr()))
	b = wire.AppendAddr(b, destAddr, addr.Addr())
	b = wire.AppendUint16(b, destPort, addr.Port())
	if verb != ipvs.DeleteDest {
		b = wire.AppendNativeUint32(b, destForward, 0) // IP_VS_CONN_F_MASQ
		b = wire.AppendNativeUint32(b, destWeight, uint32(op.Dest.Weight))
		b = wire.AppendNativeUint32(b, destUpperLimit, 0)
		b = wire.AppendNativeUint32(b, destLowerLimit, 0)
	}
	wire.CloseNested(b, begin)
	return b
}

// appendServer appends what names a virtual server. More may follow inside, before wire.CloseNested.
func appendServer(b []byte, k ipvs.Key) []byte {
	begin := len(b)
	b = wire.AppendHeader(b, attrService, 0)
	b = wire.AppendNativeUint16(b, serviceFamily, family(k.Addr.Addr()))
	b = wire.AppendNativeUint16(b, serviceProtocol, uint16(k.Protocol))
	b = wire.AppendAddr(b, serviceAddr, k.Addr.Addr())
	b = wire.AppendUint16(b, servicePort, k.Addr.Port())
	wire.CloseNested(b, begin)
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
	b.buf = wire.AppendAddr(b.buf, unix.IFA_LOCAL, op.Address)
	b.buf = wire.AppendAddr(b.buf, unix.IFA_ADDRESS, op.Address)
	if op.Verb == ipvs.AddAddress {
		b.buf = wire.AppendNativeUint32(b.buf, unix.IFA_FLAGS, unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD)
		if op.Address.Is6() {
			b.buf = wire.AppendHeader(b.buf, unix.IFA_CACHEINFO, 16)
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
