package plan

import (
	"net/netip"
	"slices"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// TableName is the name of our tables, one in each family.
const TableName = "nftproxy"

// A Config is what the operator may choose about the ruleset.
type Config struct {
	// MasqueradeAll masquerades everything sent to a cluster IP (--masquerade-all).
	MasqueradeAll bool
	// MasqueradeBit is the bit of the packet mark that asks for masquerading, 0 to 31. kube-proxy's
	// default is 14.
	MasqueradeBit uint8
	// DetectLocal tells which traffic comes from pods of this node.
	DetectLocal DetectLocal
	// NodePortAddresses tells on which addresses node ports are served.
	NodePortAddresses NodePortAddresses
	// DisableIPv6 leaves IPv6 out, for hosts without it.
	DisableIPv6 bool
	// Scheduler is that of Services that name none; empty for [model.Random].
	Scheduler string
	// ExcludeIPVS are ranges of cluster IPs that never become virtual servers (--ipvs-exclude-cidrs).
	ExcludeIPVS []netip.Prefix
	// Schedulers are those of IPVS that the kernel has, sorted; none if it has no IPVS.
	Schedulers []string
	// Unfit are Services that do without IPVS, whatever they ask for: the kernel refused their virtual
	// servers, or changes them right now.
	Unfit map[model.Name]bool
	// Draining are addresses of virtual servers that nothing wants any more, but that still have
	// connections: new ones do not get past them to the node. Sorted.
	Draining []netip.Addr
}

// DetectMode is a way to tell traffic of this node's pods (--detect-local-mode).
type DetectMode string

// The ways, with the names that kube-proxy gives them.
const (
	ClusterCIDR         DetectMode = "ClusterCIDR"
	NodeCIDR            DetectMode = "NodeCIDR"
	BridgeInterface     DetectMode = "BridgeInterface"
	InterfaceNamePrefix DetectMode = "InterfaceNamePrefix"
)

// DetectLocal says how traffic of this node's pods is told from other traffic. The zero value does
// not tell: then pods count as outside and cluster IPs are not masqueraded.
type DetectLocal struct {
	Mode DetectMode
	// CIDRs are the pod ranges for ClusterCIDR: at most one of each family counts.
	CIDRs []netip.Prefix
	// Interface is the bridge for BridgeInterface and the beginning of the name for
	// InterfaceNamePrefix.
	Interface string
}

// NodePortAddresses says on which addresses of the node node ports are served
// (--nodeport-addresses). The zero value is Primary, as in kube-proxy's nftables mode.
type NodePortAddresses struct {
	// Primary serves the node's primary address of each family.
	Primary bool
	// All serves all local addresses but loopback.
	All bool
	// CIDRs serves the local addresses in the prefixes. A family without any prefix, when the other
	// has some and Primary is not set, is served on all of its addresses; so is one with a /0.
	CIDRs []netip.Prefix
}

// equal reports whether two Configs lead to the same frame.
func (c *Config) equal(o *Config) bool {
	return c.MasqueradeAll == o.MasqueradeAll && c.MasqueradeBit == o.MasqueradeBit && c.DisableIPv6 == o.DisableIPv6 &&
		c.DetectLocal.Mode == o.DetectLocal.Mode && c.DetectLocal.Interface == o.DetectLocal.Interface &&
		slices.Equal(c.DetectLocal.CIDRs, o.DetectLocal.CIDRs) &&
		c.NodePortAddresses.Primary == o.NodePortAddresses.Primary && c.NodePortAddresses.All == o.NodePortAddresses.All &&
		slices.Equal(c.NodePortAddresses.CIDRs, o.NodePortAddresses.CIDRs) &&
		c.usesIPVS() == o.usesIPVS() && slices.Equal(c.Draining, o.Draining)
}

// usesIPVS reports whether there may be virtual servers, now or left over.
func (c *Config) usesIPVS() bool { return len(c.Schedulers) > 0 || len(c.Draining) > 0 }

// families returns the families that are programmed.
func (c *Config) families() []nft.Family {
	if c.DisableIPv6 {
		return []nft.Family{nft.IPv4}
	}
	return []nft.Family{nft.IPv4, nft.IPv6}
}

// mark returns the mark that asks for masquerading.
func (c *Config) mark() uint32 { return 1 << c.MasqueradeBit }

// nodePortPrefixes returns the prefixes on whose local addresses node ports are served, or all for
// every local address of the family.
func (c *Config) nodePortPrefixes(f nft.Family, primary []netip.Addr) (prefixes []netip.Prefix, all bool) {
	n := c.NodePortAddresses
	if n.All {
		return nil, true
	}
	for _, p := range n.CIDRs {
		if familyOf(p.Addr()) != f {
			continue
		}
		if p.Bits() == 0 {
			return nil, true
		}
		prefixes = append(prefixes, p)
	}
	if n.Primary || len(n.CIDRs) == 0 {
		for _, a := range primary {
			if familyOf(a) == f {
				prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		return prefixes, false
	}
	return prefixes, len(prefixes) == 0
}

// familyOf returns the family of an address.
func familyOf(a netip.Addr) nft.Family {
	if a.Is4() {
		return nft.IPv4
	}
	return nft.IPv6
}
