package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft/wire"
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
	const header = wire.HeaderSize + 4 // with the header of generic netlink
	s.Seq++
	request := make([]byte, 0, header+len(attrs))
	request = wire.OpenMessage(request, family, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, s.Seq)
	request = append(request, command, genericVersion, 0, 0)
	request = append(request, attrs...)
	wire.CloseMessage(request, 0)
	if err := s.Send(request); err != nil {
		return err
	}
	for {
		part, err := s.Receive()
		if err != nil {
			return err
		}
		for msg := range wire.Messages(part) {
			if msg.Seq() != s.Seq {
				continue
			}
			switch typ := msg.Type(); {
			case typ == family && len(msg) >= header:
				visit(msg[header:])
			case typ == unix.NLMSG_DONE, typ == unix.NLMSG_ERROR:
				return msg.Err()
			}
		}
	}
}

// servers reads all virtual servers, without their destinations. It leaves out those by firewall mark.
func (c *conn) servers() (ipvs.Table, error) {
	t := ipvs.Table{}
	err := c.steps.dump(c.family, cmdGetService, nil, func(b []byte) {
		if key, server, ok := readServer(wire.Find(b, attrService)); ok {
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
		addr, weight, counts, ok := readDest(wire.Find(b, attrDest), family(key.Addr.Addr()))
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
	for typ, data := range wire.Attrs(b) {
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
			s.Scheduler = string(wire.CString(data))
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
	for typ, data := range wire.Attrs(b) {
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
