package world

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// keys yields the keys of m.
func keys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

// An Answer is what a server says of a request: who it is, and the addresses of the packet as it saw
// them.
type Answer struct {
	Host     string
	Dst, Src netip.AddrPort
}

// String returns the answer as it is sent.
func (a Answer) String() string { return fmt.Sprintf("%s|%s|%s", a.Host, a.Dst, a.Src) }

// parseAnswer is the inverse of String.
func parseAnswer(s string) (Answer, error) {
	f := strings.Split(strings.TrimSpace(s), "|")
	if len(f) != 3 {
		return Answer{}, fmt.Errorf("answer %q has not three parts", s)
	}
	dst, err1 := netip.ParseAddrPort(f[1])
	src, err2 := netip.ParseAddrPort(f[2])
	return Answer{Host: f[0], Dst: dst, Src: src}, errors.Join(err1, err2)
}

// serve starts servers on the ports that h does not serve yet, each on all addresses, TCP and UDP.
func (h *Host) serve(ports []uint16) error {
	return h.Do(func() error {
		for _, p := range ports {
			if h.served[p] {
				continue
			}
			h.served[p] = true
			if err := h.listen(p); err != nil {
				return fmt.Errorf("%s: listen on port %d: %w", h, p, err)
			}
		}
		return nil
	})
}

// Shut ends the servers of h for good: nobody answers there any more.
func (h *Host) Shut() {
	for _, c := range h.closer {
		_ = c.Close()
	}
}

// listen starts the servers of one port.
func (h *Host) listen(port uint16) error {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
	if err != nil {
		return err
	}
	h.closer = append(h.closer, l)
	go h.answerTCP(l)
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenUDP(network, &net.UDPAddr{Port: int(port)})
		if err != nil {
			return err
		}
		h.closer = append(h.closer, c)
		if err := wantDestination(c, network); err != nil {
			return err
		}
		go h.answerUDP(c, port)
	}
	return nil
}

// answerTCP tells everybody who connects, until l is closed.
func (h *Host) answerTCP(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client went away, or there are too many files for a moment
		}
		dst := c.LocalAddr().(*net.TCPAddr).AddrPort()
		src := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		_, _ = fmt.Fprintln(c, Answer{Host: h.String(), Dst: unmap(dst), Src: unmap(src)})
		_ = c.Close()
	}
}

// unmap returns a with an IPv4 address that is written as IPv6 turned into IPv4.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// wantDestination has the kernel say for each datagram which address it was sent to.
func wantDestination(c *net.UDPConn, network string) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if network == "udp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil {
		return err
	}
	return set
}

// answerUDP tells everybody who sends a datagram, until c is closed.
func (h *Host) answerUDP(c *net.UDPConn, port uint16) {
	buf, oob := make([]byte, 1500), make([]byte, 256)
	for {
		_, n, _, src, err := c.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		dst, ok := destination(oob[:n])
		if !ok {
			continue
		}
		a := Answer{Host: h.String(), Dst: netip.AddrPortFrom(dst, port), Src: unmap(src)}
		// The control message that came with the request, without the interface, gives the answer
		// its source address.
		_, _, _ = c.WriteMsgUDPAddrPort([]byte(a.String()+"\n"), oob[:n], src)
	}
}

// destination returns the address in a control message IP_PKTINFO or IPV6_PKTINFO and clears the
// number of the interface in it.
func destination(oob []byte) (netip.Addr, bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO:
			clear(m.Data[0:4]) // struct in_pktinfo: interface, local address, destination
			return netip.AddrFrom4([4]byte(m.Data[8:12])), true
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO:
			clear(m.Data[16:20]) // struct in6_pktinfo: destination, interface
			return netip.AddrFrom16([16]byte(m.Data[0:16])), true
		}
	}
	return netip.Addr{}, false
}
