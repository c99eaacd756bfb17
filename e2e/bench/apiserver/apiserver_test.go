package apiserver

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// A rig is a server with its control and a client.
type rig struct {
	in     *json.Encoder
	out    *json.Decoder
	client kubernetes.Interface
}

// newRig starts a server that ends with the test, and a client that wants a content type.
func newRig(t *testing.T, contentType string) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(inRead, outWrite, l) }()
	t.Cleanup(func() {
		_ = inWrite.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host: "http://" + l.Addr().String(), QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: contentType, AcceptContentTypes: contentType + ",application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{json.NewEncoder(inWrite), json.NewDecoder(outRead), c}
}

// do asks for something.
func (r *rig) do(t *testing.T, req Request) []int64 {
	t.Helper()
	if err := r.in.Encode(req); err != nil {
		t.Fatal(err)
	}
	var reply Reply
	if err := r.out.Decode(&reply); err != nil {
		t.Fatal(err)
	}
	return reply.Written
}

// TestInformers follows the server with what real programs follow it with.
func TestInformers(t *testing.T) {
	for _, contentType := range []string{runtime.ContentTypeProtobuf, runtime.ContentTypeJSON} {
		t.Run(contentType, func(t *testing.T) { testInformers(t, contentType) })
	}
}

func testInformers(t *testing.T, contentType string) {
	r := newRig(t, contentType)
	r.do(t, Request{Services: 30, EndpointsOfEach: 3, More: []Service{{Name: "more", ClusterIP: Address("10.110.0.0", 1), Affinity: true}}})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	factory := informers.NewSharedInformerFactory(r.client, 0)
	services, slicesOf := factory.Core().V1().Services().Lister(), factory.Discovery().V1().EndpointSlices().Lister()
	factory.Core().V1().Nodes().Informer()
	factory.Networking().V1().ServiceCIDRs().Informer()
	factory.StartWithContext(ctx)
	for what, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			t.Fatalf("no %v", what)
		}
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil {
				t.Fatalf("waited for %s", what)
			}
			time.Sleep(time.Millisecond)
		}
	}
	s, err := services.Services(namespace).Get("service-00029")
	if err != nil || s.Spec.ClusterIP != "10.96.4.29" {
		t.Fatalf("service-00029 = %v, %v; want the cluster IP 10.96.4.29", s, err)
	}
	if s, err := services.Services(namespace).Get("more"); err != nil || s.Spec.SessionAffinity != v1.ServiceAffinityClientIP {
		t.Errorf("more = %v, %v; want session affinity", s, err)
	}

	// Endpoints change: one slice becomes three, and one again.
	want := Numbered(7, 250)
	before := Now()
	written := r.do(t, Request{Changes: []Change{{Verb: Endpoints, Service: want}}})
	if len(written) != 1 || written[0] < before || written[0] > Now() {
		t.Errorf("written at %v; want one time between %d and now", written, before)
	}
	addrs := func(name string) (list []string) {
		for i := range 5 {
			slice, err := slicesOf.EndpointSlices(namespace).Get(sliceName(name, i))
			if err == nil {
				for _, e := range slice.Endpoints {
					list = append(list, e.Addresses...)
				}
			}
		}
		return list
	}
	eventually("250 endpoints", func() bool { return len(addrs("service-00007")) == 250 })
	r.do(t, Request{Changes: []Change{{Verb: Endpoints, Service: Numbered(7, 1)}}})
	eventually("one endpoint", func() bool { return slices.Equal(addrs("service-00007"), []string{"10.128.0.8"}) })

	// A Service comes and goes.
	r.do(t, Request{Changes: []Change{{Verb: Put, Service: Service{Name: "new", ClusterIP: Address("10.111.0.0", 1), Endpoints: want.Endpoints[:2]}}}})
	eventually("the new Service", func() bool {
		_, err := services.Services(namespace).Get("new")
		return err == nil && len(addrs("new")) == 2
	})
	r.do(t, Request{Changes: []Change{{Verb: Delete, Service: Service{Name: "new"}}}})
	eventually("the end of the new Service", func() bool {
		_, err := services.Services(namespace).Get("new")
		return err != nil && len(addrs("new")) == 0
	})
}

// TestListThenWatch lists, misses a change and watches from the version of the list.
func TestListThenWatch(t *testing.T) {
	r := newRig(t, runtime.ContentTypeProtobuf)
	r.do(t, Request{Services: 3, EndpointsOfEach: 2})
	list, err := r.client.DiscoveryV1().EndpointSlices(namespace).List(t.Context(), meta.ListOptions{})
	if err != nil || len(list.Items) != 3 || len(list.Items[2].Endpoints) != 2 {
		t.Fatalf("list = %v, %v; want 3 slices of 2 endpoints", list, err)
	}
	r.do(t, Request{Changes: []Change{{Verb: Endpoints, Service: Numbered(1, 1)}}})
	w, err := r.client.DiscoveryV1().EndpointSlices(namespace).Watch(t.Context(), meta.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e := <-w.ResultChan()
	if slice, ok := e.Object.(*discovery.EndpointSlice); !ok || e.Type != "MODIFIED" || slice.Name != "service-00001-0" || len(slice.Endpoints) != 1 {
		t.Errorf("the watch says %v; want service-00001-0 with one endpoint", e)
	}
}
