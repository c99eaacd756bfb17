package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

const (
	// apiAddress is where a node finds the API server.
	apiAddress = "127.0.0.1:6443"
	// clusterCIDR holds all pods, clients included.
	clusterCIDR = "10.128.0.0/9"
	// firstClient is the first of the addresses that clients come from, in clientRange.
	clientRange, firstClient = "10.251.0.0/16", "10.251.0.1"
	// firstPod is the first of the addresses that answer, in podRange.
	podRange, firstPod = "10.253.0.0/16", "10.253.0.1"
	// The ends of the two cables, on the node and at the others.
	nodeToClient, clientEnd = "10.250.0.1", "10.250.0.2"
	nodeToServer, serverEnd = "10.252.0.1", "10.252.0.2"
)

// A node is a node of the cluster, and at the ends of two cables a client with many addresses, and a
// server with all addresses of the endpoints that answer.
type node struct{ host, client, server *netns.NetNS }

// newNode makes a node.
func newNode(name string) (*node, error) {
	n := &node{}
	for _, part := range []struct {
		ns   **netns.NetNS
		name string
	}{{&n.host, "node"}, {&n.client, "client"}, {&n.server, "server"}} {
		ns, err := netns.New(name + "'s " + part.name)
		if err != nil {
			return nil, errors.Join(err, n.close())
		}
		*part.ns = ns
	}
	err := errors.Join(n.cable("client", n.client, nodeToClient, clientEnd), n.cable("server", n.server, nodeToServer, serverEnd))
	if err == nil {
		err = errors.Join(n.routes(), n.sysctls(), ignoreKnocks(n.server))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lay out the node of %s: %w", name, err), n.close())
	}
	return n, nil
}

// close gives the namespaces up.
func (n *node) close() error {
	var errs []error
	for _, ns := range []*netns.NetNS{n.client, n.server, n.host} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}

// handle returns a connection to rtnetlink in a namespace.
func handle(ns *netns.NetNS) (*netlink.Handle, error) {
	return netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
}

// cable joins the node and another namespace, with an address at each end, and makes the node the other's
// way to everywhere.
func (n *node) cable(dev string, other *netns.NetNS, near, far string) error {
	h, err := handle(n.host)
	if err != nil {
		return err
	}
	defer h.Close()
	o, err := handle(other)
	if err != nil {
		return err
	}
	defer o.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = dev
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "node", PeerNamespace: netlink.NsFd(other.FD())}); err != nil {
		return fmt.Errorf("lay a cable to %s: %w", other, err)
	}
	for _, end := range []struct {
		h         *netlink.Handle
		dev, addr string
	}{{h, "lo", ""}, {o, "lo", ""}, {h, dev, near}, {o, "node", far}} {
		if err := up(end.h, end.dev, end.addr, 24); err != nil {
			return err
		}
	}
	return route(o, "0.0.0.0/0", near)
}

// up brings an interface up, with an address if that is not empty.
func up(h *netlink.Handle, dev, addr string, bits int) error {
	l, err := h.LinkByName(dev)
	if err != nil {
		return err
	}
	if addr != "" {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(bits, 32)}}
		if err := h.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add address %s to %s: %w", addr, dev, err)
		}
	}
	return h.LinkSetUp(l)
}

// route adds a route by a gateway or, if that is empty, has the host take the addresses for its own.
func route(h *netlink.Handle, dst, gateway string) error {
	_, to, err := net.ParseCIDR(dst)
	if err != nil {
		return err
	}
	r := &netlink.Route{Dst: to, Gw: net.ParseIP(gateway)}
	if gateway == "" {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		r = &netlink.Route{Dst: to, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
	}
	if err := h.RouteAdd(r); err != nil {
		return fmt.Errorf("add a route to %s: %w", dst, err)
	}
	return nil
}

// routes gives the client and the server their addresses.
func (n *node) routes() error {
	for _, r := range []struct {
		ns           *netns.NetNS
		dst, gateway string
	}{
		{n.client, clientRange, ""},
		{n.host, clientRange, clientEnd},
		{n.server, podRange, ""},
		{n.host, podRange, serverEnd},
	} {
		h, err := handle(r.ns)
		if err != nil {
			return err
		}
		err = route(h, r.dst, r.gateway)
		h.Close()
		if err != nil {
			return err
		}
	}
	h, err := handle(n.host)
	if err != nil {
		return err
	}
	defer h.Close()
	return up(h, "lo", apiserver.NodeAddress, 32)
}

// sysctls has the node forward packets and soon forget connections that have ended.
func (n *node) sysctls() error {
	return errors.Join(
		n.host.Sysctl("ipv4/ip_forward", "1"),
		n.host.Sysctl("netfilter/nf_conntrack_tcp_timeout_close", "1"),
		n.host.Sysctl("netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
		n.client.Sysctl("ipv4/ip_local_port_range", "1024 65535"),
	)
}
