package kube

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nftproxy/nftproxy/watch"
)

// dressed returns an object with what the API server and controllers put on each.
func dressed[O object](o O, owner string) O {
	o.SetUID(types.UID("6f1c3b1e-9d0f-4d58-8d8c-" + fmt.Sprintf("%012d", len(o.GetName()))))
	o.SetCreationTimestamp(meta.NewTime(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)))
	o.SetOwnerReferences([]meta.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: owner, Controller: ptr(true), BlockOwnerDeletion: ptr(true)}})
	o.SetAnnotations(map[string]string{v1.EndpointsLastChangeTriggerTime: "2026-11-21T12:00:00Z"})
	o.SetManagedFields([]meta.ManagedFieldsEntry{{
		Manager: "kube-controller-manager", Operation: meta.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1",
		FieldsV1: meta.NewFieldsV1(fmt.Sprintf(`{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:owner":%q}}`, owner)),
	}})
	return o
}

// fill gives a server n Services with 10 endpoints each, on 100 nodes in 3 zones.
func fill(s *server, n int) {
	for i := range n {
		name := fmt.Sprintf("service-%05d", i)
		ips := make([]string, 10)
		for j := range ips {
			ips[j] = fmt.Sprintf("10.%d.%d.%d", 10+j, i/250, i%250+1)
		}
		endpoints := slice(name+"-x7k2p", name, ips...)
		for j := range endpoints.Endpoints {
			e := &endpoints.Endpoints[j]
			zone := fmt.Sprintf("zone-%d", j%3)
			e.NodeName, e.Zone = ptr(fmt.Sprintf("node-%03d.example.com", (i+j)%100)), ptr(zone)
			e.Hints.ForZones[0].Name = zone
			e.Conditions = discovery.EndpointConditions{Ready: ptr(true), Serving: ptr(true), Terminating: ptr(false)}
			e.TargetRef = &v1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: fmt.Sprintf("%s-7c5b9d-%05d", name, j), UID: "6f1c3b1e-9d0f-4d58-8d8c-000000000000"}
		}
		s.apply(dressed(service(name, fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)), name), dressed(endpoints, name))
	}
	s.forget()
}

// heap returns the bytes of the live heap.
func heap() int64 {
	// The second collection takes what the first one finalised.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemory measures what 10,000 Services with 10 endpoints each take, however they arrive.
func TestMemory(t *testing.T) {
	const services, limit = 10_000, 1_900 // bytes for a Service with its slice
	for _, plainLists := range []bool{false, true} {
		t.Run(fmt.Sprintf("a plain list %t", plainLists), func(t *testing.T) {
			s := newServer(t)
			s.plainLists = plainLists
			s.apply(node("z"))
			client := s.client(asProtobuf)
			fill(s, services)
			before := heap()
			f := run(t, Config{Client: client})
			p := f.until("with all Services", func(p watch.Part) bool { return p.Services.Len() == services && p.Slices.Len() == services })
			each := (heap() - before) / services
			t.Logf("%d bytes for each Service with 10 endpoints", each)
			if each > limit {
				t.Errorf("a Service with 10 endpoints takes %d bytes; want at most %d", each, limit)
			}
			runtime.KeepAlive(p)
		})
	}
}

// BenchmarkChange measures the way of a change of one slice, from the API server's event to the part.
func BenchmarkChange(b *testing.B) {
	state := newState("n", false)
	var list []any
	for i := range 10_000 {
		list = append(list, slice(fmt.Sprintf("s%d", i), "s", "10.0.0.1", "10.0.0.2"))
	}
	if err := state.slices.Replace(list, ""); err != nil {
		b.Fatal(err)
	}
	for _, p := range []*progress{state.services.progress, state.nodes.progress, state.cidrs.progress} {
		p.synced = true
	}
	changes := []*discovery.EndpointSlice{slice("s7", "s", "10.0.0.3"), slice("s7", "s", "10.0.0.4")}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if err := state.slices.Update(changes[n%2]); err != nil {
			b.Fatal(err)
		}
		state.part()
	}
}
