// Package model holds what the proxy knows of the cluster and of its node, as immutable values.
//
// Sources (package watch) make them, package plan turns them into rules. Nothing in here is changed
// after it was made, so that a pointer that is equal means a value that is equal.
package model

import (
	"net/netip"
	"slices"
	"time"
)

// A Name names an object of Kubernetes.
type Name struct {
	Namespace, Name string
}

// String returns namespace/name.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then by name.
func (n Name) Compare(o Name) int {
	if c := compare(n.Namespace, o.Namespace); c != 0 {
		return c
	}
	return compare(n.Name, o.Name)
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Protocol is the IP protocol number of a Service port (IPPROTO_*, linux/in.h).
type Protocol uint8

// The protocols that a Service can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the name of the protocol in lower case, as nft prints it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "unknown"
}

// A Snapshot is all that the proxy knows at one time.
type Snapshot struct {
	// Services holds every Service that the proxy serves, with its endpoints. Services without an
	// address of their own, and those that another proxy serves, are not in it.
	Services Map[Name, *Service]
	// Node is this node.
	Node *Node
	// ServiceCIDRs are the ranges that cluster IPs are allocated from, sorted, without duplicates.
	ServiceCIDRs []netip.Prefix
	// Triggered are when the changes of endpoints were noticed in the cluster that this Snapshot brings
	// and no Snapshot did that was received before, in no particular order. They are for measuring how
	// long a change takes, and a Snapshot that is programmed again brings nothing new.
	Triggered []time.Time
}

// Same reports whether two Snapshots say the same. It looks at pointers only: it may take for different
// what is equal.
func (s *Snapshot) Same(o *Snapshot) bool {
	return s.Node == o.Node && s.Services.Same(o.Services) && slices.Equal(s.ServiceCIDRs, o.ServiceCIDRs)
}

// A Service is one Service with all that concerns it.
type Service struct {
	Name Name
	// Created is the creation time; zero if unknown. Of two Services that claim the same front end
	// the older one has it.
	Created time.Time
	// ClusterIPs has at most one address of each family.
	ClusterIPs []netip.Addr
	// ExternalIPs are spec.externalIPs, of both families.
	ExternalIPs []netip.Addr
	// LoadBalancerIPs are those of status.loadBalancer.ingress that the node captures (ipMode VIP).
	LoadBalancerIPs []netip.Addr
	// SourceRanges are spec.loadBalancerSourceRanges, of both families. A family without any is not
	// filtered, nor is one with a /0 in it.
	SourceRanges []netip.Prefix
	// ExternalLocal is externalTrafficPolicy Local of an externally accessible Service.
	ExternalLocal bool
	// InternalLocal is internalTrafficPolicy Local.
	InternalLocal bool
	// Affinity is the timeout of session affinity ClientIP; 0 for none.
	Affinity time.Duration
	// Scheduler is how new connections are spread over the endpoints, by the name that IPVS gives it,
	// or [Random]; empty for what the node's default is.
	Scheduler string
	// HealthCheckNodePort is the port of the health check server; 0 for none.
	HealthCheckNodePort uint16
	Ports               []Port
}

// Random is the scheduler of nftables: an endpoint at random. IPVS has no such.
const Random = "random"

// A Port is one port of a Service with its endpoints.
type Port struct {
	Name     string
	Protocol Protocol
	Port     uint16
	NodePort uint16 // 0 for none
	// Endpoints are those of both families, sorted by address, without duplicates, whether usable or
	// not: [Endpoint] says what they are good for.
	Endpoints []Endpoint
}

// An Endpoint is one address that serves a port.
type Endpoint struct {
	Addr netip.AddrPort
	// Node is the name of the node that it is on; empty if unknown.
	Node string
	// Ready, Serving and Terminating are the conditions, with the defaults applied.
	Ready, Serving, Terminating bool
	// Weight is the endpoint's share of new connections under a scheduler that knows weights; 1 if
	// nothing else is said, and 0 for no new connections.
	Weight uint16
	// Hints are nil if the endpoint has none.
	Hints *Hints
}

// Hints name the zones and nodes that should use an endpoint (KEP-2433, KEP-4444). Nil lists are
// absent hints.
type Hints struct {
	Zones, Nodes []string
}

// Equal reports whether two Services say the same.
func (s *Service) Equal(o *Service) bool { return s.SameButEndpoints(o) && s.SameEndpoints(o) }

// SameButEndpoints reports whether two Services say the same, whatever their endpoints.
func (s *Service) SameButEndpoints(o *Service) bool {
	return s.Name == o.Name && s.Created.Equal(o.Created) && s.ExternalLocal == o.ExternalLocal && s.InternalLocal == o.InternalLocal &&
		s.Affinity == o.Affinity && s.Scheduler == o.Scheduler && s.HealthCheckNodePort == o.HealthCheckNodePort &&
		slices.Equal(s.ClusterIPs, o.ClusterIPs) && slices.Equal(s.ExternalIPs, o.ExternalIPs) &&
		slices.Equal(s.LoadBalancerIPs, o.LoadBalancerIPs) && slices.Equal(s.SourceRanges, o.SourceRanges) &&
		slices.EqualFunc(s.Ports, o.Ports, func(a, b Port) bool {
			return a.Name == b.Name && a.Protocol == b.Protocol && a.Port == b.Port && a.NodePort == b.NodePort
		})
}

// SameEndpoints reports whether the ports of two Services, in their order, have the same endpoints.
func (s *Service) SameEndpoints(o *Service) bool {
	return slices.EqualFunc(s.Ports, o.Ports, func(a, b Port) bool { return slices.EqualFunc(a.Endpoints, b.Endpoints, Endpoint.Equal) })
}

// Equal reports whether two endpoints say the same.
func (e Endpoint) Equal(o Endpoint) bool {
	if e.Hints != o.Hints {
		if e.Hints == nil || o.Hints == nil || !slices.Equal(e.Hints.Zones, o.Hints.Zones) || !slices.Equal(e.Hints.Nodes, o.Hints.Nodes) {
			return false
		}
		e.Hints, o.Hints = nil, nil
	}
	return e == o
}

// A Node is this node.
type Node struct {
	Name string
	// Zone is the label topology.kubernetes.io/zone; empty for none.
	Zone string
	// PrimaryIPs has for each family at most one address: that of the Node object or, without one,
	// the first global address of the node.
	PrimaryIPs []netip.Addr
	// Addresses are all addresses of the node's interfaces, sorted, loopback included.
	Addresses []netip.Addr
	// PodCIDRs are spec.podCIDRs of the Node object.
	PodCIDRs []netip.Prefix
	// Known says that there is a Node object.
	Known bool
	// Leaving says that the node is to go: it is being deleted, or the autoscaler will delete it. Load
	// balancers should turn away from it.
	Leaving bool
}
