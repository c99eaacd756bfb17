package kube

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// An object is one that the API server holds.
type object interface {
	runtime.Object
	meta.Object
}

// An event is a change of an object.
type event struct {
	resource string
	version  int
	kind     apiwatch.EventType
	object   object
}

// A server is an API server with a store of objects. It serves lists and watches over HTTP, in JSON
// or protobuf as it is asked, with selectors, resource versions and bookmarks.
type server struct {
	t    *testing.T
	http *httptest.Server

	mu      sync.Mutex
	version int
	objects map[string]map[string]object
	history []event
	// oldest is the version that watches can start from.
	oldest int
	// news is closed, and made anew, when anything changes that a watch must look at.
	news chan struct{}
	// epoch counts the times that all watches were broken off.
	epoch int
	// refuse is the status that requests for a resource end with.
	refuse map[string]int
	// plainLists says that the server does not stream lists.
	plainLists bool
	// asked are the requests: verb, resource and selectors.
	asked map[string]bool
	// types are the content types of the answers.
	types map[string]bool
}

// The media types that the server speaks.
const (
	asJSON     = runtime.ContentTypeJSON
	asProtobuf = runtime.ContentTypeProtobuf
)

// newServer starts a server that ends with the test.
func newServer(t *testing.T) *server {
	s := &server{
		t: t, objects: map[string]map[string]object{}, news: make(chan struct{}), version: 10,
		refuse: map[string]int{}, asked: map[string]bool{}, types: map[string]bool{},
	}
	s.http = httptest.NewServer(s)
	t.Cleanup(func() { s.away() })
	return s
}

// client returns a client that prefers a content type.
func (s *server) client(contentType string) kubernetes.Interface {
	s.t.Helper()
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host: s.http.URL, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: contentType, AcceptContentTypes: contentType + "," + asJSON},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// away closes the server and all its connections.
func (s *server) away() {
	s.mu.Lock()
	s.epoch++
	s.wake()
	s.mu.Unlock()
	s.http.CloseClientConnections()
	s.http.Close()
}

// back opens the server again, at the same address.
func (s *server) back() {
	s.t.Helper()
	listener, err := net.Listen("tcp", strings.TrimPrefix(s.http.URL, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.http = &httptest.Server{Listener: listener, Config: &http.Server{Handler: s}}
	s.http.Start()
}

// wake has all watches look. The caller holds mu.
func (s *server) wake() {
	close(s.news)
	s.news = make(chan struct{})
}

// do changes something and has all watches look.
func (s *server) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.wake()
}

// resourceOf returns the resource that an object is of.
func resourceOf(o object) string {
	switch o.(type) {
	case *v1.Service:
		return "services"
	case *discovery.EndpointSlice:
		return "endpointslices"
	case *v1.Node:
		return "nodes"
	case *networking.ServiceCIDR:
		return "servicecidrs"
	}
	panic(fmt.Sprintf("no resource of a %T", o))
}

// apply creates or changes objects.
func (s *server) apply(list ...object) {
	s.do(func() {
		for _, o := range list {
			resource, key := resourceOf(o), o.GetNamespace()+"/"+o.GetName()
			of := s.objects[resource]
			if of == nil {
				of = map[string]object{}
				s.objects[resource] = of
			}
			kind := apiwatch.Modified
			if of[key] == nil {
				kind = apiwatch.Added
			}
			of[key] = s.log(resource, kind, o)
		}
	})
}

// delete deletes objects.
func (s *server) delete(list ...object) {
	s.do(func() {
		for _, o := range list {
			resource := resourceOf(o)
			delete(s.objects[resource], o.GetNamespace()+"/"+o.GetName())
			s.log(resource, apiwatch.Deleted, o)
		}
	})
}

// log notes an event and returns its object, which has the version of the event.
func (s *server) log(resource string, kind apiwatch.EventType, o object) object {
	s.version++
	o = o.DeepCopyObject().(object)
	o.SetResourceVersion(strconv.Itoa(s.version))
	s.history = append(s.history, event{resource, s.version, kind, o})
	return o
}

// forget makes all versions up to now too old to watch from.
func (s *server) forget() { s.do(func() { s.history, s.oldest = nil, s.version }) }

// breakWatches ends all watches.
func (s *server) breakWatches() { s.do(func() { s.epoch++ }) }

// fail has requests for a resource end with a status, and its watches broken off; 0 for no longer.
func (s *server) fail(resource string, status int) {
	s.do(func() { s.refuse[resource] = status; s.epoch++ })
}

// ServeHTTP serves lists and watches.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	resource, verb := path[len(path)-1], "list"
	if q.Get("watch") != "" {
		verb = "watch"
	}
	s.mu.Lock()
	s.asked[strings.TrimSpace(verb+" "+resource+" "+q.Get("labelSelector")+" "+q.Get("fieldSelector"))] = true
	status, plain := s.refuse[resource], s.plainLists
	s.mu.Unlock()
	switch {
	case status != 0:
		s.refused(w, r, resource, verb, status)
	case verb == "list":
		s.serveList(w, r, resource, q)
	case q.Get("sendInitialEvents") != "" && plain:
		s.refused(w, r, resource, verb, http.StatusUnprocessableEntity)
	default:
		s.serveWatch(w, r, resource, q)
	}
}

// serializer returns how to write what a request asks for.
func (s *server) serializer(r *http.Request) runtime.SerializerInfo {
	want := asJSON
	if strings.Contains(r.Header.Get("Accept"), asProtobuf) {
		want = asProtobuf
	}
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), want)
	if !ok {
		panic("no serializer for " + want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.types[want] = true
	return info
}

// encode writes an object as its API has it.
func encode(w io.Writer, e runtime.Encoder, o runtime.Object) error {
	versions := []schema.GroupVersion{v1.SchemeGroupVersion, discovery.SchemeGroupVersion, networking.SchemeGroupVersion, meta.Unversioned}
	gvs := schema.GroupVersions(versions)
	return scheme.Codecs.CodecForVersions(e, nil, gvs, nil).Encode(o, w)
}

// refused answers with a status, as the API server puts it.
func (s *server) refused(w http.ResponseWriter, r *http.Request, resource, verb string, status int) {
	info := s.serializer(r)
	groups := map[string]string{"endpointslices": "discovery.k8s.io", "servicecidrs": "networking.k8s.io"}
	of := schema.GroupResource{Group: groups[resource], Resource: resource}
	err := apierrors.NewGenericServerResponse(status, verb, of, "", "no "+verb, 0, false)
	if status == http.StatusForbidden {
		err = apierrors.NewForbidden(of, "", fmt.Errorf("User %q cannot %s resource %q", "us", verb, of))
	}
	w.Header().Set("Content-Type", info.MediaType)
	w.WriteHeader(status)
	_ = encode(w, info.Serializer, &err.ErrStatus)
}

// selects returns the selectors of a request as a function.
func (s *server) selects(q url.Values) func(object) bool {
	byLabel, err := labels.Parse(q.Get("labelSelector"))
	if err != nil {
		s.t.Error(err)
	}
	byField, err := fields.ParseSelector(q.Get("fieldSelector"))
	if err != nil {
		s.t.Error(err)
	}
	return func(o object) bool {
		set := fields.Set{"metadata.name": o.GetName()}
		if service, ok := o.(*v1.Service); ok {
			set["spec.clusterIP"] = service.Spec.ClusterIP
		}
		return byLabel.Matches(labels.Set(o.GetLabels())) && byField.Matches(set)
	}
}

// selected returns the objects of a resource that a request selects, by name.
func (s *server) selected(resource string, q url.Values) []object {
	ok := s.selects(q)
	var out []object
	for _, o := range s.objects[resource] {
		if ok(o) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b object) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}

// serveList serves a list.
func (s *server) serveList(w http.ResponseWriter, r *http.Request, resource string, q url.Values) {
	info := s.serializer(r)
	list := map[string]runtime.Object{
		"services": &v1.ServiceList{}, "endpointslices": &discovery.EndpointSliceList{},
		"nodes": &v1.NodeList{}, "servicecidrs": &networking.ServiceCIDRList{},
	}[resource]
	s.mu.Lock()
	var items []runtime.Object
	for _, o := range s.selected(resource, q) {
		items = append(items, o)
	}
	list.(meta.ListInterface).SetResourceVersion(strconv.Itoa(s.version))
	s.mu.Unlock()
	if err := apimeta.SetList(list, items); err != nil {
		s.t.Error(err)
	}
	w.Header().Set("Content-Type", info.MediaType)
	if err := encode(w, info.Serializer, list); err != nil {
		s.t.Logf("write a list of %s: %v", resource, err)
	}
}

// serveWatch serves a watch until it is broken off.
func (s *server) serveWatch(w http.ResponseWriter, r *http.Request, resource string, q url.Values) {
	info := s.serializer(r)
	w.Header().Set("Content-Type", info.MediaType+";stream=watch")
	frames := info.StreamSerializer.Framer.NewFrameWriter(w)
	encoder := streaming.NewEncoder(frames, scheme.Codecs.EncoderForVersion(info.StreamSerializer.Serializer, v1.SchemeGroupVersion))
	send := func(kind apiwatch.EventType, o runtime.Object) bool {
		var text strings.Builder
		err := encode(&text, info.Serializer, o)
		if err == nil {
			err = encoder.Encode(&meta.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: []byte(text.String())}})
		}
		w.(http.Flusher).Flush()
		return err == nil
	}
	selects := s.selects(q)
	s.mu.Lock()
	epoch, from := s.epoch, s.version
	if q.Get("sendInitialEvents") == "" {
		from, _ = strconv.Atoi(q.Get("resourceVersion"))
	} else {
		for _, o := range s.selected(resource, q) {
			send(apiwatch.Added, o)
		}
		end := s.bookmark(resource)
		end.SetAnnotations(map[string]string{meta.InitialEventsAnnotationKey: "true"})
		send(apiwatch.Bookmark, end)
	}
	tooOld := from < s.oldest
	s.mu.Unlock()
	w.(http.Flusher).Flush()
	if tooOld {
		send(apiwatch.Error, &apierrors.NewResourceExpired("too old resource version").ErrStatus)
		return
	}
	for {
		s.mu.Lock()
		ended, news, history := s.epoch != epoch, s.news, s.history
		s.mu.Unlock()
		if ended {
			return
		}
		for _, e := range history {
			if e.resource != resource || e.version <= from {
				continue
			}
			kind := e.kind
			if kind != apiwatch.Deleted && !selects(e.object) {
				kind = apiwatch.Deleted
			}
			if !send(kind, e.object) {
				return
			}
			from = e.version
		}
		select {
		case <-r.Context().Done():
			return
		case <-news:
		}
	}
}

// bookmark returns an object of a resource with nothing but the version.
func (s *server) bookmark(resource string) object {
	o := map[string]object{
		"services": &v1.Service{}, "endpointslices": &discovery.EndpointSlice{},
		"nodes": &v1.Node{}, "servicecidrs": &networking.ServiceCIDR{},
	}[resource]
	o.SetResourceVersion(strconv.Itoa(s.version))
	return o
}
