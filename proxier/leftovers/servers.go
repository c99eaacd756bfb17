package leftovers

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// IPVS is what RemoveServers needs of the kernel's load balancer.
type IPVS interface {
	Load() (ipvs.State, error)
	Apply(ops []ipvs.Op) []ipvs.OpError
}

// RemoveServers removes the virtual servers that kube-proxy's mode ipvs made for node ports, at addresses of the
// node, and returns what they were, a line each. Those at addresses of the device [ipvs.Device] are the engine's
// to mend. Where there is no such device kube-proxy was not in that mode, and nothing is touched.
func RemoveServers(k IPVS) ([]string, error) {
	if _, err := net.InterfaceByName(ipvs.Device); err != nil {
		return nil, nil
	}
	node, err := nodeAddresses()
	if err != nil {
		return nil, err
	}
	return removeServers(k, node)
}

// removeServers is RemoveServers on a node with these addresses.
func removeServers(k IPVS, node []netip.Addr) ([]string, error) {
	have, err := k.Load()
	if err != nil {
		return nil, err
	}
	ops := nodePorts(have, node)
	failed := k.Apply(ops)
	var removed []string
	for _, op := range ops {
		if !slices.ContainsFunc(failed, func(e ipvs.OpError) bool { return e.Op == op }) {
			removed = append(removed, "virtual server "+op.Key.String())
		}
	}
	if len(failed) > 0 {
		return removed, fmt.Errorf("remove %d virtual servers of kube-proxy: %w", len(ops), failed[0])
	}
	return removed, nil
}

// nodePorts returns the steps that remove virtual servers that look like kube-proxy's for node ports: at an address
// of the node that is not one of the device, with nothing but translation and no weights, as kube-proxy has it. In
// its mode ipvs it leaves no others alive but those of ipvs.excludeCIDRs, which are not in a State.
func nodePorts(s ipvs.State, node []netip.Addr) []ipvs.Op {
	old := ipvs.State{Servers: ipvs.Table{}}
	for key, v := range s.Servers {
		addr := key.Addr.Addr()
		plain := true
		for _, weight := range v.Dests {
			plain = plain && (weight == 0 || weight == 1)
		}
		if plain && !s.Addresses[addr] && slices.Contains(node, addr) {
			old.Servers[key] = v
		}
	}
	_, ops := ipvs.Diff(old, ipvs.State{})
	return ops
}

// nodeAddresses returns the addresses of all interfaces.
func nodeAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of the node: %w", err)
	}
	var r []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			r = append(r, p.Addr().Unmap())
		}
	}
	return r, nil
}
