package apiserver

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// The resources that are served.
const (
	services, endpointSlices = "services", "endpointslices"
	nodes, serviceCIDRs      = "nodes", "servicecidrs"
)

// A format writes objects as a client asks for them. It is safe for concurrent use.
type format struct{ info runtime.SerializerInfo }

// formatOf returns the format that a client accepts: protobuf if it does, else JSON.
func formatOf(accept string) format {
	want := runtime.ContentTypeJSON
	if strings.Contains(accept, runtime.ContentTypeProtobuf) {
		want = runtime.ContentTypeProtobuf
	}
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), want)
	if !ok {
		panic("apiserver: client-go has no serializer for " + want)
	}
	return format{info}
}

// binary reports whether the format is protobuf, in which frames are kept.
func (f format) binary() bool { return f.info.MediaType == runtime.ContentTypeProtobuf }

// object returns an object as its API has it. It panics if the scheme does not know it.
func (f format) object(o runtime.Object) []byte {
	versions := schema.GroupVersions{v1.SchemeGroupVersion, discovery.SchemeGroupVersion, networking.SchemeGroupVersion, meta.Unversioned}
	var b bytes.Buffer
	if err := scheme.Codecs.CodecForVersions(f.info.Serializer, nil, versions, nil).Encode(o, &b); err != nil {
		panic(fmt.Sprintf("apiserver: encode a %T: %v", o, err))
	}
	return b.Bytes()
}

// frame returns an event of a watch.
func (f format) frame(kind apiwatch.EventType, o runtime.Object) []byte {
	var b bytes.Buffer
	e := streaming.NewEncoder(f.info.StreamSerializer.NewFrameWriter(&b),
		scheme.Codecs.EncoderForVersion(f.info.StreamSerializer.Serializer, v1.SchemeGroupVersion))
	if err := e.Encode(&meta.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: f.object(o)}}); err != nil {
		panic(fmt.Sprintf("apiserver: encode an event of a %T: %v", o, err))
	}
	return b.Bytes()
}

// list returns a list of the objects of a resource.
func (f format) list(resource string, version int, items []runtime.Object) []byte {
	list := map[string]runtime.Object{
		services: &v1.ServiceList{}, endpointSlices: &discovery.EndpointSliceList{},
		nodes: &v1.NodeList{}, serviceCIDRs: &networking.ServiceCIDRList{},
	}[resource]
	list.(meta.ListInterface).SetResourceVersion(strconv.Itoa(version))
	if err := apimeta.SetList(list, items); err != nil {
		panic("apiserver: " + err.Error())
	}
	return f.object(list)
}

// bookmark returns the event that says up to which version a watch is, at the end of the initial state.
func (f format) bookmark(resource string, version int) []byte {
	o := map[string]object{
		services: &v1.Service{}, endpointSlices: &discovery.EndpointSlice{}, nodes: &v1.Node{}, serviceCIDRs: &networking.ServiceCIDR{},
	}[resource]
	o.SetResourceVersion(strconv.Itoa(version))
	o.SetAnnotations(map[string]string{meta.InitialEventsAnnotationKey: "true"})
	return f.frame(apiwatch.Bookmark, o)
}
