package objects

import (
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Node is what the proxy reads of a v1.Node. It has no Addresses: only the node itself knows them.
type Node struct {
	Model model.Node
}

// FromNode returns what the proxy reads of a Node. It is nil without ok if the object cannot be used.
func FromNode(n *v1.Node) (node *Node, found []Fault, ok bool) {
	var f faults
	if !f.plainName(n.Name) {
		return nil, f, false
	}
	out := &Node{Model: model.Node{Name: n.Name, Zone: n.Labels[v1.LabelTopologyZone], Known: true, Leaving: leaving(n)}}
	out.Model.PrimaryIPs = f.primaryIPs(n.Status.Addresses)
	field, list := "spec.podCIDRs", n.Spec.PodCIDRs
	if len(list) == 0 && n.Spec.PodCIDR != "" {
		field, list = "spec.podCIDR", []string{n.Spec.PodCIDR}
	}
	for i, s := range list {
		p, ok := prefix(s)
		if !ok {
			f.add(index(field, i), "%q is no CIDR", s)
			continue
		}
		out.Model.PodCIDRs = appendNew(out.Model.PodCIDRs, p)
	}
	return out, f, true
}

// taintToBeDeleted is the taint that the cluster autoscaler puts on a Node that it is about to delete.
const taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"

// leaving reports whether a node is to go.
func leaving(n *v1.Node) bool {
	return !n.DeletionTimestamp.IsZero() ||
		slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == taintToBeDeleted })
}

// primaryIPs returns the first address of each family; internal addresses go before external ones.
func (f *faults) primaryIPs(list []v1.NodeAddress) []netip.Addr {
	var out []netip.Addr
	for _, kind := range []v1.NodeAddressType{v1.NodeInternalIP, v1.NodeExternalIP} {
		for i, s := range list {
			if s.Type != kind {
				continue
			}
			a, ok := addr(s.Address)
			if !ok {
				f.add(index("status.addresses", i)+".address", "%q is no IP address", s.Address)
				continue
			}
			out = AppendFamily(out, a)
		}
	}
	return out
}

// AppendFamily appends an address unless there is one of its family.
func AppendFamily(list []netip.Addr, a netip.Addr) []netip.Addr {
	for _, have := range list {
		if have.Is4() == a.Is4() {
			return list
		}
	}
	return append(list, a)
}

// A ServiceCIDR is what the proxy reads of a networking.k8s.io/v1 ServiceCIDR.
type ServiceCIDR struct {
	Name     string
	Prefixes []netip.Prefix
}

// FromServiceCIDR returns what the proxy reads of a ServiceCIDR. It is nil without ok if the object
// cannot be used.
func FromServiceCIDR(c *networking.ServiceCIDR) (cidr *ServiceCIDR, found []Fault, ok bool) {
	var f faults
	if !f.plainName(c.Name) {
		return nil, f, false
	}
	out := &ServiceCIDR{Name: c.Name}
	for i, s := range c.Spec.CIDRs {
		p, ok := prefix(s)
		if !ok {
			f.add(index("spec.cidrs", i), "%q is no CIDR", s)
			continue
		}
		out.Prefixes = appendNew(out.Prefixes, p)
	}
	if len(out.Prefixes) == 0 {
		if len(c.Spec.CIDRs) == 0 {
			f.add("spec.cidrs", "is empty")
		}
		return nil, f, false
	}
	return out, f, true
}
