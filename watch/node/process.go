package node

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/watch"
)

// A link is what is read of an interface.
type link struct {
	index int
	name  string
	// kind is the kind of a virtual interface (veth, bridge...); empty or "device" for others.
	kind string
}

// An address is what is read of an address of an interface.
type address struct {
	link int
	addr netip.Addr
	// unusable says that the address is not to be used yet or any more: duplicate address detection
	// is still under way, or failed.
	unusable bool
}

// process returns the addresses of the node, by interface and in the order of the kernel, which is
// that in which they were added.
func process(links []link, addresses []address) []watch.Address {
	byIndex := make(map[int]link, len(links))
	for _, l := range links {
		byIndex[l.index] = l
	}
	var out []watch.Address
	for _, a := range addresses {
		if a.unusable || !a.addr.IsValid() {
			continue
		}
		l := byIndex[a.link]
		if l.name == ipvs.Device {
			// They belong to virtual servers, our own or kube-proxy's.
			continue
		}
		out = append(out, watch.Address{Addr: a.addr, Index: a.link, Link: l.name, Virtual: virtual(l)})
	}
	slices.SortStableFunc(out, func(a, b watch.Address) int { return a.Index - b.Index })
	return out
}

// virtual reports whether an interface belongs to pods or containers, as far as can be told. A veth
// counts only under the names that container runtimes give it: the node may be a container itself,
// whose eth0 is one.
func virtual(l link) bool {
	for _, prefix := range []string{
		"veth", "cni", "docker", "br-", "cali", "cilium", "lxc", "flannel", "kube-", "nodelocaldns",
		"virbr", "podman", "vxlan.calico", "tunl", "antrea", "ovn", "weave", "dummy",
	} {
		if strings.HasPrefix(l.name, prefix) {
			return true
		}
	}
	return l.kind == "dummy" || l.kind == "vxlan" || l.kind == "ipip" || l.kind == "geneve"
}
