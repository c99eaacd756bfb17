package world

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	nsp "github.com/nftproxy/nftproxy/e2e/netns"
)

// The next hops that every host and the node use for "the other end of this link". Their link-layer
// addresses are written into the neighbour tables, so that nothing is ever resolved.
const (
	gateway4 = "169.254.0.1"
	gateway6 = "fe80::fefe"
)

// A Host is a network namespace that is joined to the node by a link: a pod, or other machines that
// are summed up in one. It has any number of addresses, and a server answers on all of them.
type Host struct {
	*nsp.NetNS
	link *netlink.Handle
	// mac is the link-layer address of its interface eth0.
	mac net.HardwareAddr
	// port is the node's interface that leads to it.
	port netlink.Link
	// addrs are the addresses that it has and that the node has a route for.
	addrs map[netip.Addr]bool
	// served are the ports that its servers listen on.
	served map[uint16]bool
	closer []interface{ Close() error }
}

// newHost makes a namespace with the settings that all of the world's namespaces share.
func newHost(name string) (*Host, error) {
	ns, err := nsp.New(name)
	if err != nil {
		return nil, err
	}
	h := &Host{NetNS: ns, addrs: map[netip.Addr]bool{}, served: map[uint16]bool{}}
	// Sysctls that exist per interface are set before the interfaces are there.
	for _, kv := range [][2]string{
		{"ipv6/conf/all/accept_dad", "0"},
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		// An ICMP error that is not sent would look like a dropped packet.
		{"ipv4/icmp_ratelimit", "0"},
		{"ipv4/icmp_msgs_per_sec", "1000000"},
		{"ipv4/icmp_msgs_burst", "1000000"},
		{"ipv6/icmp/ratelimit", "0"},
	} {
		if err := ns.Sysctl(kv[0], kv[1]); err != nil {
			return nil, fmt.Errorf("%s: sysctl %s: %w", name, kv[0], err)
		}
	}
	if h.link, err = netlink.NewHandleAt(netns.NsHandle(ns.FD()), unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	lo, err := h.link.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return h, h.link.LinkSetUp(lo)
}

// close gives the host up with its servers.
func (h *Host) close() error {
	h.Shut()
	h.link.Close()
	return h.Close()
}

// gateway adds default routes of both families by an interface, to a next hop with the link-layer
// address mac.
func gateway(h *netlink.Handle, l netlink.Link, mac net.HardwareAddr) error {
	for _, gw := range []string{gateway4, gateway6} {
		ip := net.ParseIP(gw)
		if err := neighbour(h, l, ip, mac); err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: ip, Flags: int(netlink.FLAG_ONLINK)}
		if err := h.RouteReplace(r); err != nil {
			return fmt.Errorf("default route by %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

// neighbour writes a permanent entry into the neighbour table.
func neighbour(h *netlink.Handle, l netlink.Link, ip net.IP, mac net.HardwareAddr) error {
	n := &netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: family(ip), State: netlink.NUD_PERMANENT,
		IP: ip, HardwareAddr: mac,
	}
	if err := h.NeighSet(n); err != nil {
		return fmt.Errorf("neighbour %s on %s: %w", ip, l.Attrs().Name, err)
	}
	return nil
}

// family returns the address family of an address.
func family(ip net.IP) int {
	if ip.To4() != nil {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// hostNet returns the prefix that holds one address.
func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// setAddrs makes addrs the addresses of an interface, leaving link-local and loopback ones alone.
func setAddrs(h *netlink.Handle, dev string, have map[netip.Addr]bool, want []netip.Addr) error {
	l, err := h.LinkByName(dev)
	if err != nil {
		return err
	}
	wanted := map[netip.Addr]bool{}
	for _, a := range want {
		wanted[a] = true
		if have[a] {
			continue
		}
		err := h.AddrAdd(l, &netlink.Addr{IPNet: hostNet(a), Flags: unix.IFA_F_NODAD})
		if err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, dev, err)
		}
		have[a] = true
	}
	for a := range have {
		if wanted[a] {
			continue
		}
		if err := h.AddrDel(l, &netlink.Addr{IPNet: hostNet(a)}); err != nil {
			return fmt.Errorf("remove address %s from %s: %w", a, dev, err)
		}
		delete(have, a)
	}
	return nil
}
