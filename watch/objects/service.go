package objects

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// labelServiceProxyName is the label of Services that another proxy serves, whatever its value.
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// The limits that the API sets on the timeout of session affinity, and its default.
const (
	defaultAffinity = 3 * time.Hour
	maxAffinity     = 24 * time.Hour
)

// A Service is what the proxy reads of a v1.Service.
type Service struct {
	// Model is the Service without endpoints. ExternalIPs, ExternalLocal and HealthCheckNodePort are
	// as the object says, whether external IPs are allowed or not: see [Join].
	Model model.Service
	// Exposed says that the type is NodePort or LoadBalancer, so that the Service is open to the
	// outside even without external IPs.
	Exposed bool
	// Weights are the shares of the endpoints.
	Weights Weights
}

// FromService returns what the proxy reads of a Service. It is nil with ok for a Service that is not
// this proxy's to serve, and nil without ok for one that should be served but cannot be.
func FromService(s *v1.Service) (service *Service, found []Fault, ok bool) {
	var f faults
	name, ok := f.nameOf(s.Namespace, s.Name)
	if !ok {
		return nil, f, false
	}
	if !ours(s) {
		return nil, nil, true
	}
	out := &Service{Exposed: s.Spec.Type == v1.ServiceTypeNodePort || s.Spec.Type == v1.ServiceTypeLoadBalancer}
	m := &out.Model
	m.Name = name
	m.Created = s.CreationTimestamp.UTC()
	if s.CreationTimestamp.IsZero() {
		m.Created = time.Time{}
	}
	m.ClusterIPs = f.clusterIPs(&s.Spec)
	m.ExternalIPs = f.externalIPs(s.Spec.ExternalIPs)
	m.LoadBalancerIPs = f.loadBalancerIPs(s.Status.LoadBalancer.Ingress)
	m.SourceRanges = f.sourceRanges(s.Spec.LoadBalancerSourceRanges, &m.LoadBalancerIPs)
	f.policies(&s.Spec, out)
	m.Affinity = f.affinity(&s.Spec)
	m.Ports = f.ports(s.Spec.Ports)
	m.Scheduler = f.scheduler(s.Annotations)
	out.Weights = f.weights(s.Annotations)
	switch s.Spec.Type {
	case "", v1.ServiceTypeClusterIP, v1.ServiceTypeNodePort, v1.ServiceTypeLoadBalancer:
	default:
		f.add("spec.type", "%q is none of ClusterIP, NodePort, LoadBalancer, ExternalName", s.Spec.Type)
	}
	if len(m.ClusterIPs) == 0 || len(m.Ports) == 0 {
		return nil, f, false
	}
	return out, f, true
}

// ours reports whether a Service is one that this proxy serves.
func ours(s *v1.Service) bool {
	if _, other := s.Labels[labelServiceProxyName]; other {
		return false
	}
	if s.Spec.Type == v1.ServiceTypeExternalName || s.Spec.ClusterIP == v1.ClusterIPNone {
		return false
	}
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs[0] != v1.ClusterIPNone
	}
	return s.Spec.ClusterIP != ""
}

// clusterIPs returns the cluster IPs, at most one of each family. Where the object leaves clusterIPs
// or ipFamilies out they follow from the rest, as the API server would fill them in.
func (f *faults) clusterIPs(spec *v1.ServiceSpec) []netip.Addr {
	field, list := "spec.clusterIPs", spec.ClusterIPs
	if len(list) == 0 {
		field, list = "spec.clusterIP", []string{spec.ClusterIP}
	}
	var out []netip.Addr
	for i, s := range list {
		at := field
		if len(spec.ClusterIPs) > 0 {
			at = index(field, i)
		}
		a, ok := addr(s)
		switch {
		case !ok || a.IsUnspecified():
			f.add(at, "%q is no IP address", s)
		case len(spec.IPFamilies) > 0 && i >= len(spec.IPFamilies):
			f.add(at, "has no entry in spec.ipFamilies")
		case len(spec.IPFamilies) > 0 && family(a) != spec.IPFamilies[i]:
			f.add(at, "%s is not of the family %q of spec.ipFamilies", a, spec.IPFamilies[i])
		case len(out) > 0 && out[0].Is4() == a.Is4():
			f.add(at, "is a second address of one family; %s is served", out[0])
		default:
			out = append(out, a)
		}
	}
	if spec.ClusterIP != "" && len(spec.ClusterIPs) > 0 && spec.ClusterIP != spec.ClusterIPs[0] {
		f.add("spec.clusterIP", "%q is not the first of spec.clusterIPs, which is served", spec.ClusterIP)
	}
	return out
}

// family returns the API's word for the family of an address.
func family(a netip.Addr) v1.IPFamily {
	if a.Is4() {
		return v1.IPv4Protocol
	}
	return v1.IPv6Protocol
}

// externalIPs returns the addresses of spec.externalIPs.
func (f *faults) externalIPs(list []string) []netip.Addr {
	var out []netip.Addr
	for i, s := range list {
		a, ok := addr(s)
		if !ok || a.IsUnspecified() {
			f.add(index("spec.externalIPs", i), "%q is no IP address", s)
			continue
		}
		out = appendNew(out, a)
	}
	return out
}

// loadBalancerIPs returns the addresses of the load balancer that the node captures: those of mode
// Proxy are left to the load balancer, which delivers to node ports or endpoints.
func (f *faults) loadBalancerIPs(list []v1.LoadBalancerIngress) []netip.Addr {
	var out []netip.Addr
	for i, ingress := range list {
		at := index("status.loadBalancer.ingress", i)
		if ingress.IP == "" {
			continue
		}
		a, ok := addr(ingress.IP)
		if !ok || a.IsUnspecified() {
			f.add(at+".ip", "%q is no IP address", ingress.IP)
			continue
		}
		if mode := ingress.IPMode; mode != nil && *mode != v1.LoadBalancerIPModeVIP {
			if *mode != v1.LoadBalancerIPModeProxy {
				f.add(at+".ipMode", "%q is neither VIP nor Proxy; VIP is assumed", *mode)
			} else {
				continue
			}
		}
		out = appendNew(out, a)
	}
	return out
}

// sourceRanges returns the ranges that may use the load balancer. A family without any range is open
// to all: so if one of the ranges cannot be read, the load balancer addresses of a family that would
// be left without one are taken away rather than opened.
func (f *faults) sourceRanges(list []string, ips *[]netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	bad := false
	for i, s := range list {
		p, ok := prefix(strings.TrimSpace(s))
		if !ok {
			bad = true
			f.add(index("spec.loadBalancerSourceRanges", i), "%q is no CIDR", s)
			continue
		}
		out = appendNew(out, p)
	}
	if !bad {
		return out
	}
	var filtered []netip.Addr
	for _, ip := range *ips {
		has := false
		for _, p := range out {
			has = has || p.Addr().Is4() == ip.Is4()
		}
		if has {
			filtered = append(filtered, ip)
			continue
		}
		f.add("spec.loadBalancerSourceRanges", "has no usable range for %s, which is therefore not served", ip)
	}
	*ips = filtered
	return out
}

// policies reads the traffic policies and the port of the health check that goes with them.
func (f *faults) policies(spec *v1.ServiceSpec, out *Service) {
	switch p := spec.ExternalTrafficPolicy; p {
	case v1.ServiceExternalTrafficPolicyLocal:
		out.Model.ExternalLocal = out.Exposed || len(out.Model.ExternalIPs) > 0
	case v1.ServiceExternalTrafficPolicyCluster, "":
	default:
		f.add("spec.externalTrafficPolicy", "%q is neither Cluster nor Local; Cluster is assumed", p)
	}
	if p := spec.InternalTrafficPolicy; p != nil {
		switch *p {
		case v1.ServiceInternalTrafficPolicyLocal:
			out.Model.InternalLocal = true
		case v1.ServiceInternalTrafficPolicyCluster:
		default:
			f.add("spec.internalTrafficPolicy", "%q is neither Cluster nor Local; Cluster is assumed", *p)
		}
	}
	if spec.Type != v1.ServiceTypeLoadBalancer || !out.Model.ExternalLocal {
		return
	}
	n, ok := port(spec.HealthCheckNodePort)
	switch {
	case ok:
		out.Model.HealthCheckNodePort = n
	case spec.HealthCheckNodePort == 0:
		f.minor("spec.healthCheckNodePort", "is missing, so the load balancer has nothing to check")
	default:
		f.add("spec.healthCheckNodePort", "%d is no port", spec.HealthCheckNodePort)
	}
}

// affinity returns the timeout of session affinity; 0 for none.
func (f *faults) affinity(spec *v1.ServiceSpec) time.Duration {
	switch spec.SessionAffinity {
	case v1.ServiceAffinityNone, "":
		return 0
	case v1.ServiceAffinityClientIP:
	default:
		f.add("spec.sessionAffinity", "%q is neither None nor ClientIP; None is assumed", spec.SessionAffinity)
		return 0
	}
	c := spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		return defaultAffinity
	}
	d := time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	if d <= 0 || d > maxAffinity {
		f.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds", "%d is not in 1 to 86400; 10800 is used",
			*c.ClientIP.TimeoutSeconds)
		return defaultAffinity
	}
	return d
}

// ports returns the ports that can be served.
func (f *faults) ports(list []v1.ServicePort) []model.Port {
	type claim struct {
		proto model.Protocol
		port  uint16
	}
	out := slices.Grow([]model.Port(nil), len(list))
	names, ports, nodePorts := map[string]model.Protocol{}, map[claim]int{}, map[claim]int{}
	for i := range list {
		p, ok := f.port(&list[i], index("spec.ports", i))
		if !ok {
			continue
		}
		if first, twice := ports[claim{p.Protocol, p.Port}]; twice {
			f.add(index("spec.ports", i), "%d/%s is that of %s again", p.Port, p.Protocol, index("spec.ports", first))
			continue
		}
		if first, twice := names[p.Name]; twice {
			f.add(index("spec.ports", i)+".name", "%q is that of another port, too", p.Name)
			if first == p.Protocol {
				// Slices could not say which of the two an endpoint is for.
				continue
			}
		}
		if first, twice := nodePorts[claim{p.Protocol, p.NodePort}]; twice && p.NodePort != 0 {
			f.add(index("spec.ports", i)+".nodePort", "%d is that of %s again", p.NodePort, index("spec.ports", first))
			p.NodePort = 0
		}
		names[p.Name], ports[claim{p.Protocol, p.Port}], nodePorts[claim{p.Protocol, p.NodePort}] = p.Protocol, i, i
		out = append(out, p)
	}
	if len(list) == 0 {
		f.add("spec.ports", "is empty")
	}
	return out
}

// port returns one port, without endpoints, and reports whether it can be served.
func (f *faults) port(p *v1.ServicePort, at string) (model.Port, bool) {
	out := model.Port{Name: p.Name}
	var ok bool
	if out.Protocol, ok = protocol(p.Protocol); !ok {
		f.add(at+".protocol", "%q is none of TCP, UDP, SCTP", p.Protocol)
		return out, false
	}
	if out.Port, ok = port(p.Port); !ok {
		f.add(at+".port", "%d is no port", p.Port)
		return out, false
	}
	if p.Name != "" {
		if errs := validation.IsDNS1123Label(p.Name); len(errs) > 0 {
			f.add(at+".name", "%q is no name: %s", p.Name, errs[0])
			return out, false
		}
	}
	if p.NodePort != 0 {
		if out.NodePort, ok = port(p.NodePort); !ok {
			f.add(at+".nodePort", "%d is no port", p.NodePort)
		}
	}
	return out, true
}

// protocol returns the protocol of that name; none is TCP.
func protocol(p v1.Protocol) (model.Protocol, bool) {
	switch p {
	case v1.ProtocolTCP, "":
		return model.TCP, true
	case v1.ProtocolUDP:
		return model.UDP, true
	case v1.ProtocolSCTP:
		return model.SCTP, true
	}
	return 0, false
}
