package apiserver

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// NodeName is the name of the only Node, NodeAddress its address.
	NodeName, NodeAddress = "bench", "192.168.0.2"
	// ServiceRange is the range of cluster IPs.
	ServiceRange = "10.96.0.0/12"
	// Port is the port of every Service, TargetPort that of its endpoints.
	Port, TargetPort = 80, 8080
	// namespace is that of all objects.
	namespace = "default"
	// sliceSize is how many endpoints an EndpointSlice has at most, as the controller of Kubernetes
	// makes them.
	sliceSize = 100
	// affinitySeconds is how long a Service with session affinity remembers a client.
	affinitySeconds = 10800
)

// A Service is a Service with its endpoints, from which its objects follow.
type Service struct {
	Name      string
	ClusterIP netip.Addr
	// Affinity asks for session affinity by client address.
	Affinity  bool         `json:",omitempty"`
	Endpoints []netip.Addr `json:",omitempty"`
}

// Numbered returns the Service with a number, from 0 on. Its endpoints are those of no other number.
func Numbered(i, endpoints int) Service {
	s := Service{Name: fmt.Sprintf("service-%05d", i), ClusterIP: Address("10.96.4.0", i)}
	for k := range endpoints {
		s.Endpoints = append(s.Endpoints, Address("10.128.0.1", i*endpoints+k))
	}
	return s
}

// Address returns the IPv4 address that is n after a first one, which must be valid.
func Address(first string, n int) netip.Addr {
	a := netip.MustParseAddr(first).As4()
	v := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// objectMeta returns the metadata of an object, as the server and the controllers fill it in.
func objectMeta(kind, name, manager string, fields any) meta.ObjectMeta {
	uid := uid(kind, name)
	created := meta.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	raw, err := json.Marshal(fields)
	if err != nil {
		panic("apiserver: " + err.Error())
	}
	return meta.ObjectMeta{
		Name: name, Namespace: namespace, UID: uid, CreationTimestamp: created, Generation: 1,
		ManagedFields: []meta.ManagedFieldsEntry{{
			Manager: manager, Operation: meta.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &created,
			FieldsType: "FieldsV1", FieldsV1: meta.NewFieldsV1(string(raw)),
		}},
	}
}

// uid returns a unique identifier that is the same each time.
func uid(kind, name string) types.UID {
	h := uint64(14695981039346656037)
	for _, c := range []byte(kind + "/" + name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return types.UID(fmt.Sprintf("%08x-%04x-4000-8000-%012x", uint32(h>>32), uint16(h>>16), h&(1<<48-1)))
}

// service returns the Service object.
func (s *Service) service() *v1.Service {
	single := v1.IPFamilyPolicySingleStack
	policy := v1.ServiceInternalTrafficPolicyCluster
	o := &v1.Service{
		ObjectMeta: objectMeta("Service", s.Name, "kubectl-create", map[string]any{
			"f:metadata": map[string]any{"f:labels": map[string]any{".": struct{}{}, "f:app": struct{}{}}},
			"f:spec": map[string]any{
				"f:internalTrafficPolicy": struct{}{}, "f:selector": struct{}{}, "f:sessionAffinity": struct{}{}, "f:type": struct{}{},
				"f:ports": map[string]any{`k:{"port":80,"protocol":"TCP"}`: map[string]any{".": struct{}{}, "f:name": struct{}{}, "f:port": struct{}{}, "f:protocol": struct{}{}, "f:targetPort": struct{}{}}},
			},
		}),
		Spec: v1.ServiceSpec{
			ClusterIP: s.ClusterIP.String(), ClusterIPs: []string{s.ClusterIP.String()},
			IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, IPFamilyPolicy: &single, InternalTrafficPolicy: &policy,
			Type: v1.ServiceTypeClusterIP, Selector: map[string]string{"app": s.Name}, SessionAffinity: v1.ServiceAffinityNone,
			Ports: []v1.ServicePort{{Name: "http", Protocol: v1.ProtocolTCP, Port: Port}},
		},
	}
	o.Labels = map[string]string{"app": s.Name}
	o.Spec.Ports[0].TargetPort.IntVal = TargetPort
	if s.Affinity {
		o.Spec.SessionAffinity = v1.ServiceAffinityClientIP
		timeout := int32(affinitySeconds)
		o.Spec.SessionAffinityConfig = &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: &timeout}}
	}
	return o
}

// slices returns how many EndpointSlices the Service has: one at least.
func (s *Service) slices() int { return max(1, (len(s.Endpoints)+sliceSize-1)/sliceSize) }

// slice returns the EndpointSlice with a number.
func (s *Service) slice(number int) *discovery.EndpointSlice {
	name, port, protocol := "http", int32(TargetPort), v1.ProtocolTCP
	yes, no, node := true, false, "node-1"
	o := &discovery.EndpointSlice{
		ObjectMeta: objectMeta("EndpointSlice", sliceName(s.Name, number), "kube-controller-manager", map[string]any{
			"f:addressType": struct{}{}, "f:endpoints": struct{}{}, "f:ports": struct{}{},
			"f:metadata": map[string]any{"f:generateName": struct{}{}, "f:labels": map[string]any{
				".": struct{}{}, "f:app": struct{}{}, "f:endpointslice.kubernetes.io/managed-by": struct{}{}, "f:kubernetes.io/service-name": struct{}{},
			}},
		}),
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
	}
	o.Labels = map[string]string{"app": s.Name, discovery.LabelServiceName: s.Name, discovery.LabelManagedBy: "endpointslice-controller.k8s.io"}
	o.OwnerReferences = []meta.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: s.Name, UID: uid("Service", s.Name), Controller: &yes, BlockOwnerDeletion: &yes}}
	first := number * sliceSize
	for _, a := range s.Endpoints[first:min(first+sliceSize, len(s.Endpoints))] {
		pod := s.Name + "-5d59d67564-" + a.String()
		o.Endpoints = append(o.Endpoints, discovery.Endpoint{
			Addresses: []string{a.String()}, NodeName: &node,
			Conditions: discovery.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			TargetRef:  &v1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: pod, UID: uid("Pod", pod)},
		})
	}
	return o
}

// sliceName returns the name of an EndpointSlice.
func sliceName(service string, number int) string { return service + "-" + strconv.Itoa(number) }

// fixed returns the objects that never change.
func fixed() map[string]object {
	node := &v1.Node{
		ObjectMeta: meta.ObjectMeta{Name: NodeName, UID: uid("Node", NodeName), Labels: map[string]string{"kubernetes.io/hostname": NodeName}},
		Spec:       v1.NodeSpec{PodCIDR: "10.127.0.0/24", PodCIDRs: []string{"10.127.0.0/24"}},
		Status:     v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: NodeAddress}}},
	}
	cidr := &networking.ServiceCIDR{
		ObjectMeta: meta.ObjectMeta{Name: "kubernetes", UID: uid("ServiceCIDR", "kubernetes")},
		Spec:       networking.ServiceCIDRSpec{CIDRs: []string{ServiceRange}},
		Status:     networking.ServiceCIDRStatus{Conditions: []meta.Condition{{Type: "Ready", Status: meta.ConditionTrue}}},
	}
	return map[string]object{nodes: node, serviceCIDRs: cidr}
}

// An object is one that the API has.
type object interface {
	runtime.Object
	meta.Object
}
