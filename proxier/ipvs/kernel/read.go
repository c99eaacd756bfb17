package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// What the kernel calls things that are only read (include/uapi/linux/ip_vs.h).
const (
	cmdGetService = 4
	cmdGetDest    = 8

	serviceFWMark = 5

	destActive   = 7
	destInactive = 8

	// flagHashed is IP_VS_SVC_F_HASHED, which the kernel sets by itself.
	flagHashed = 0x2
)

// dump asks for something and calls visit with the attributes of each answer, which are valid during the call.
// Nothing to answer, and nothing there by that name, are the same.
func (s *socket) dump(family uint16, command byte, attrs []byte, visit func([]byte)) error {
	const header = unix.SizeofNlMsghdr + 4 // with the header of generic netlink
	s.seq++
	request := make([]byte, 0, header+len(attrs))
	request = binary.NativeEndian.AppendUint32(request, uint32(header+len(attrs)))
	request = binary.NativeEndian.AppendUint16(request, family)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request = binary.NativeEndian.AppendUint32(request, s.seq)
	request = append(request, 0, 0, 0, 0, command, genericVersion, 0, 0)
	if err := s.send(append(request, attrs...)); err != nil {
		return err
	}
	for {
		part, err := s.receive()
		if err != nil {
			return err
		}
		for msg := range messages(part) {
			if binary.NativeEndian.Uint32(msg[8:]) != s.seq {
				continue
			}
			switch typ := binary.NativeEndian.Uint16(msg[4:]); {
			case typ == family && len(msg) >= header:
				visit(msg[header:])
			case typ == unix.NLMSG_DONE, typ == unix.NLMSG_ERROR:
				return status(msg)
			}
		}
	}
}

// status returns the error in the message that ends a dump; nil for none.
func status(msg []byte) error {
	if len(msg) < unix.SizeofNlMsghdr+4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(msg[unix.SizeofNlMsghdr:])); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

// servers reads all virtual servers, without their destinations. It leaves out those by firewall mark.
func (c *conn) servers() (ipvs.Table, error) {
	t := ipvs.Table{}
	err := c.steps.dump(c.family, cmdGetService, nil, func(b []byte) {
		if key, server, ok := readServer(find(b, attrService)); ok {
			t[key] = &ipvs.Virtual{Server: server}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the virtual servers: %w", err)
	}
	return t, nil
}

// destinations reads the destinations of a virtual server, and their connections, into v; none if there is no such server.
func (c *conn) destinations(key ipvs.Key, v *ipvs.Virtual) error {
	v.Dests, v.Counts = map[netip.AddrPort]int{}, map[netip.AddrPort]ipvs.Counts{}
	err := c.steps.dump(c.family, cmdGetDest, appendServer(nil, key), func(b []byte) {
		addr, weight, counts, ok := readDest(find(b, attrDest), family(key.Addr.Addr()))
		if !ok {
			return
		}
		v.Dests[addr] = weight
		if counts.Total() > 0 {
			v.Counts[addr] = counts
		}
	})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("read the destinations of %s: %w", key, err)
	}
	return nil
}

// readServer returns a virtual server from its attributes. ok is false for one by firewall mark, and for what is
// not complete.
func readServer(b []byte) (key ipvs.Key, s ipvs.Server, ok bool) {
	var af, port, flagged, timeout, mask uint32
	var addr []byte
	for typ, data := range attrs(b) {
		switch typ {
		case serviceFamily:
			af = number(data)
		case serviceProtocol:
			key.Protocol = model.Protocol(number(data))
		case serviceAddr:
			addr = data
		case servicePort:
			port = networkNumber(data)
		case serviceFWMark:
			return ipvs.Key{}, ipvs.Server{}, false
		case serviceScheduler:
			s.Scheduler = cString(data)
		case serviceFlags: // and the mask of those that count
			if len(data) >= 4 {
				flagged = binary.NativeEndian.Uint32(data)
			}
		case serviceTimeout:
			timeout = number(data)
		case serviceNetmask:
			mask = number(data)
		}
	}
	a, ok := address(uint16(af), addr)
	if !ok {
		return ipvs.Key{}, ipvs.Server{}, false
	}
	key.Addr = netip.AddrPortFrom(a, uint16(port))
	if flagged&flagPersistent != 0 {
		s.Persistence = time.Duration(timeout) * time.Second
	}
	s.Foreign = flagged&^flagHashed != flags(s) || s.Persistence > 0 && mask != netmask(a)
	return key, s, true
}

// readDest returns a destination of a server of a family from its attributes. ok is false for what is not complete.
func readDest(b []byte, af uint16) (to netip.AddrPort, weight int, counts ipvs.Counts, ok bool) {
	var port uint32
	var addr []byte
	foreign := false
	for typ, data := range attrs(b) {
		switch typ {
		case destFamily: // of kernels since 3.18
			af = uint16(number(data))
		case destAddr:
			addr = data
		case destPort:
			port = networkNumber(data)
		case destWeight:
			weight = int(number(data))
		case destForward, destUpperLimit, destLowerLimit: // translation, and none
			foreign = foreign || number(data) != 0
		case destActive:
			counts.Active = number(data)
		case destInactive:
			counts.Inactive = number(data)
		}
	}
	if foreign {
		weight = ipvs.ForeignWeight
	}
	a, ok := address(af, addr)
	return netip.AddrPortFrom(a, uint16(port)), weight, counts, ok
}

// address returns the address of a family at the beginning of b, which the kernel makes as long as one of IPv6.
func address(af uint16, b []byte) (netip.Addr, bool) {
	switch {
	case af == unix.AF_INET && len(b) >= 4:
		return netip.AddrFrom4([4]byte(b)), true
	case af == unix.AF_INET6 && len(b) >= 16:
		return netip.AddrFrom16([16]byte(b)), true
	}
	return netip.Addr{}, false
}

// find returns the data of the first attribute of a type; nil if there is none.
func find(b []byte, typ uint16) []byte {
	for t, data := range attrs(b) {
		if t == typ {
			return data
		}
	}
	return nil
}

// number returns the number in b in the byte order of the machine; 0 if it has another length than a number.
func number(b []byte) uint32 {
	switch len(b) {
	case 2:
		return uint32(binary.NativeEndian.Uint16(b))
	case 4:
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

// networkNumber returns the port in b; 0 if it has another length.
func networkNumber(b []byte) uint32 {
	if len(b) != 2 {
		return 0
	}
	return uint32(binary.BigEndian.Uint16(b))
}

// cString returns the bytes before the first zero.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// messages yields the netlink messages in b, headers included, up to the first that is cut off.
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

// attrs yields the attributes in b, their types without flags, up to the first that is cut off.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	const header = 4
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= header {
			n := int(binary.NativeEndian.Uint16(b))
			if n < header || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[header:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
