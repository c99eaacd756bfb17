package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Verb says what a change does.
type Verb string

// The verbs.
const (
	// Put creates or changes a Service with its EndpointSlices.
	Put Verb = "put"
	// Endpoints changes the EndpointSlices of a Service only.
	Endpoints Verb = "endpoints"
	// Delete deletes a Service with its EndpointSlices; its name is enough.
	Delete Verb = "delete"
)

// A Change is a change of a Service.
type Change struct {
	Verb    Verb
	Service Service
}

// A Request asks a server to load or to change objects.
type Request struct {
	// Services is how many numbered Services to load, EndpointsOfEach how many endpoints each has.
	Services, EndpointsOfEach int `json:",omitempty"`
	// More are further Services to load.
	More []Service `json:",omitempty"`
	// Changes are made in order and written at once.
	Changes []Change `json:",omitempty"`
}

// A Reply answers a request.
type Reply struct {
	// Written are the times at which each change was about to be written to the sockets of those who
	// watch, see [Now].
	Written []int64
}

// Now returns the time of the clock that all processes of this machine share, in nanoseconds.
func Now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // this clock is everywhere
	return t.Nano()
}

// Serve serves clients on listeners and requests for changes, JSON, from control until that ends.
func Serve(control io.Reader, replies io.Writer, listeners ...net.Listener) error {
	s := newStore()
	server := http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	defer server.Close()
	for _, l := range listeners {
		go func() { _ = server.Serve(l) }()
	}
	in, out := json.NewDecoder(control), json.NewEncoder(replies)
	for {
		var r Request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read what to serve: %w", err)
		}
		for i := range r.Services {
			s.load([]Service{Numbered(i, r.EndpointsOfEach)})
		}
		s.load(r.More)
		reply := Reply{}
		if len(r.Changes) > 0 {
			reply.Written = s.do(r.Changes)
		}
		if err := out.Encode(reply); err != nil {
			return fmt.Errorf("say what was done: %w", err)
		}
	}
}

// ServeHTTP serves lists, watches, the version, and takes events.
func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	last := path[len(path)-1]
	f := formatOf(r.Header.Get("Accept"))
	switch {
	case r.Method == http.MethodPost:
		// An event of a program about itself: it is what was sent.
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, r.Body)
	case last == "version":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"major":"1","minor":"36","gitVersion":"v1.36.3"}`)
	case len(path) > 1 && path[len(path)-2] == nodes && last == NodeName:
		w.Header().Set("Content-Type", f.info.MediaType)
		_, _ = w.Write(f.object(s.objects[nodes][NodeName].make()))
	case s.objects[last] == nil:
		http.Error(w, "404 page not found", http.StatusNotFound)
	case r.URL.Query().Get("watch") == "":
		w.Header().Set("Content-Type", f.info.MediaType)
		version, items := s.list(last)
		_, _ = w.Write(f.list(last, version, items))
	default:
		s.serveWatch(w, r, last, f)
	}
}

// serveWatch serves a watch until the client is gone.
func (s *store) serveWatch(w http.ResponseWriter, r *http.Request, resource string, f format) {
	w.Header().Set("Content-Type", f.info.MediaType+";stream=watch")
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("resourceVersion")) // 0 if there is none
	c := newWatch(resource, f, w)
	s.begin(c, q.Get("sendInitialEvents") == "true", from)
	defer s.end(c)
	<-r.Context().Done()
}
