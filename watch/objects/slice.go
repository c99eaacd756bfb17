package objects

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Slice is what the proxy reads of an EndpointSlice, or of v1 Endpoints, which can hold several
// subsets.
type Slice struct {
	Name model.Name
	// Service is the Service that the endpoints are of.
	Service model.Name
	Subsets []Subset
	// Triggered is when the change of a pod or of the Service was noticed that led to the object as it
	// is; zero if the object does not say. It says nothing of what is served.
	Triggered time.Time
}

// SameEndpoints reports whether two slices say the same of the endpoints of a Service, whatever
// triggered them.
func (s *Slice) SameEndpoints(o *Slice) bool {
	return s.Name == o.Name && s.Service == o.Service && slices.EqualFunc(s.Subsets, o.Subsets, func(a, b Subset) bool {
		return slices.Equal(a.Ports, b.Ports) && slices.EqualFunc(a.Endpoints, b.Endpoints, func(a, b Endpoint) bool {
			return a.Who == b.Who && a.Endpoint.Equal(b.Endpoint)
		})
	})
}

// A Subset is addresses that all serve the same ports.
type Subset struct {
	Ports []SlicePort
	// Endpoints have the port 0: it is each of Ports.
	Endpoints []Endpoint
}

// An Endpoint is what the proxy reads of an endpoint: what the model has, without a weight, and what
// the weights of a Service may name.
type Endpoint struct {
	model.Endpoint
	// Who is what the weights of a Service may name beside the node.
	Who Who
}

// A SlicePort is a port of endpoints.
type SlicePort struct {
	Name     string
	Protocol model.Protocol
	Port     uint16
}

// FromSlice returns what the proxy reads of an EndpointSlice. It is nil with ok for a slice that is
// of no concern, and nil without ok for one that cannot be used.
func FromSlice(s *discovery.EndpointSlice) (slice *Slice, found []Fault, ok bool) {
	var f faults
	name, ok := f.nameOf(s.Namespace, s.Name)
	if !ok {
		return nil, f, false
	}
	service := s.Labels[discovery.LabelServiceName]
	if _, headless := s.Labels[v1.IsHeadlessService]; headless {
		return nil, nil, true
	}
	if service == "" {
		f.minor("metadata.labels", "has no %s, so the slice is of no Service", discovery.LabelServiceName)
		return nil, f, true
	}
	switch s.AddressType {
	case discovery.AddressTypeIPv4, discovery.AddressTypeIPv6:
	case discovery.AddressTypeFQDN:
		f.minor("addressType", "FQDN is not served")
		return nil, f, true
	default:
		f.add("addressType", "%q is neither IPv4 nor IPv6", s.AddressType)
		return nil, f, false
	}
	subset := Subset{Ports: slices.Grow([]SlicePort(nil), len(s.Ports)), Endpoints: slices.Grow([]Endpoint(nil), len(s.Endpoints))}
	for i := range s.Ports {
		if p, ok := f.slicePort(&s.Ports[i], item{"ports", i}); ok {
			subset.Ports = append(subset.Ports, p)
		}
	}
	for i := range s.Endpoints {
		if e, ok := f.endpoint(&s.Endpoints[i], s.AddressType, item{"endpoints", i}); ok {
			subset.Endpoints = append(subset.Endpoints, e)
		}
	}
	return &Slice{
		Name: name, Service: model.Name{Namespace: name.Namespace, Name: service}, Subsets: []Subset{subset},
		Triggered: f.triggered(s.Annotations),
	}, f, true
}

// triggered returns the time of the annotation that the controllers of the cluster put on endpoints.
func (f *faults) triggered(annotations map[string]string) time.Time {
	value, ok := annotations[v1.EndpointsLastChangeTriggerTime]
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		f.minor("metadata.annotations", "%s is %q, which is no time", v1.EndpointsLastChangeTriggerTime, value)
		return time.Time{}
	}
	return t.UTC()
}

// slicePort returns a port of a slice and reports whether it can be used. A port without name or
// number would mean all ports, which no proxy implements.
func (f *faults) slicePort(p *discovery.EndpointPort, at item) (SlicePort, bool) {
	var out SlicePort
	if p.Name == nil {
		f.minor(at.field("name"), `is missing, so the port is not served; "" is the port without a name`)
		return out, false
	}
	if p.Port == nil || *p.Port == 0 {
		f.minor(at.field("port"), "is missing, so the port is not served")
		return out, false
	}
	out.Name = *p.Name
	var ok bool
	if out.Port, ok = port(*p.Port); !ok {
		f.add(at.field("port"), "%d is no port", *p.Port)
		return out, false
	}
	var proto v1.Protocol
	if p.Protocol != nil {
		proto = *p.Protocol
	}
	if out.Protocol, ok = protocol(proto); !ok {
		f.add(at.field("protocol"), "%q is none of TCP, UDP, SCTP", proto)
		return out, false
	}
	return out, true
}

// endpoint returns an endpoint of a slice, which is its first address, and reports whether it can be
// used.
func (f *faults) endpoint(e *discovery.Endpoint, kind discovery.AddressType, at item) (Endpoint, bool) {
	if len(e.Addresses) == 0 {
		f.add(at.field("addresses"), "is empty")
		return Endpoint{}, false
	}
	a, wrong := endpointAddr(e.Addresses[0])
	if wrong != "" {
		f.add(at.field("addresses[0]"), "%s", wrong)
		return Endpoint{}, false
	}
	if string(kind) != string(family(a)) {
		f.add(at.field("addresses[0]"), "%s is not of the addressType %s", a, kind)
		return Endpoint{}, false
	}
	out := Endpoint{Endpoint: model.Endpoint{
		Addr:        netip.AddrPortFrom(a, 0),
		Ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
		Serving:     e.Conditions.Serving == nil || *e.Conditions.Serving,
		Terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
		Hints:       hints(e.Hints),
	}, Who: Who{Pod: pod(e.TargetRef)}}
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	if e.Zone != nil {
		out.Who.Zone = hashOf(*e.Zone)
	}
	return out, true
}

// pod returns the hash of the name of the pod that an endpoint refers to, 0 if it is none.
func pod(ref *v1.ObjectReference) uint64 {
	if ref == nil || ref.Kind != "Pod" {
		return 0
	}
	return hashOf(ref.Name)
}

// endpointAddr returns the address of an endpoint, or what is wrong with it. It must be one that can be behind a
// Service: the API refuses those that mean something else on each node.
func endpointAddr(s string) (a netip.Addr, wrong string) {
	a, ok := addr(s)
	switch {
	case !ok:
		return a, fmt.Sprintf("%q is no IP address", s)
	case a.IsUnspecified():
		return a, fmt.Sprintf("%s is the unspecified address", a)
	case a.IsLoopback():
		return a, fmt.Sprintf("%s is a loopback address", a)
	case a.IsLinkLocalUnicast():
		return a, fmt.Sprintf("%s is a link-local address", a)
	case a.IsMulticast():
		return a, fmt.Sprintf("%s is a multicast address", a)
	}
	return a, ""
}

// hints returns the hints of an endpoint; nil for none.
func hints(h *discovery.EndpointHints) *model.Hints {
	if h == nil || len(h.ForZones) == 0 && len(h.ForNodes) == 0 {
		return nil
	}
	out := &model.Hints{}
	for _, z := range h.ForZones {
		out.Zones = append(out.Zones, z.Name)
	}
	for _, n := range h.ForNodes {
		out.Nodes = append(out.Nodes, n.Name)
	}
	return out
}

// FromEndpoints returns v1 Endpoints as the slices that the mirroring controller of the cluster
// would make of them: addresses that are ready and that are not, and ports that always have a name,
// be it empty. It is nil with ok for Endpoints that are not to be mirrored.
//
// Unlike that controller it does not leave out those of Services with a selector: where there are
// Endpoints and no slice, no controller made the slices, and the endpoints are better than none.
//
//lint:ignore SA1019 old, yet in use
func FromEndpoints(e *v1.Endpoints) (slice *Slice, found []Fault, ok bool) {
	var f faults
	name, ok := f.nameOf(e.Namespace, e.Name)
	if !ok {
		return nil, f, false
	}
	if e.Labels[discovery.LabelSkipMirror] == "true" || e.Annotations[leaderAnnotation] != "" {
		return nil, nil, true
	}
	out := &Slice{Name: name, Service: name, Triggered: f.triggered(e.Annotations)}
	for i, s := range e.Subsets {
		at := index("subsets", i)
		var subset Subset
		for j, p := range s.Ports {
			port := discovery.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol}
			if p, ok := f.slicePort(&port, item{at + ".ports", j}); ok {
				subset.Ports = append(subset.Ports, p)
			}
		}
		subset.Endpoints = append(f.mirror(s.Addresses, true, at+".addresses"),
			f.mirror(s.NotReadyAddresses, false, at+".notReadyAddresses")...)
		out.Subsets = append(out.Subsets, subset)
	}
	return out, f, true
}

// leaderAnnotation marks Endpoints that were used for leader election; they have no endpoints.
const leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"

// mirror returns addresses of v1 Endpoints as endpoints.
func (f *faults) mirror(list []v1.EndpointAddress, ready bool, at string) []Endpoint { //nolint:staticcheck // as above
	var out []Endpoint
	for i, e := range list {
		a, wrong := endpointAddr(e.IP)
		if wrong != "" {
			f.add(item{at, i}.field("ip"), "%s", wrong)
			continue
		}
		endpoint := Endpoint{Endpoint: model.Endpoint{Addr: netip.AddrPortFrom(a, 0), Ready: ready, Serving: true}, Who: Who{Pod: pod(e.TargetRef)}}
		if e.NodeName != nil {
			endpoint.Node = *e.NodeName
		}
		out = append(out, endpoint)
	}
	return out
}
