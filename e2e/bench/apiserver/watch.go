package apiserver

import (
	"bufio"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// A watch is a client that hears of the changes of a resource.
type watch struct {
	resource string
	format   format

	mu  sync.Mutex // guards out: the initial state goes before all events
	out *bufio.Writer
	rc  *http.ResponseController
}

// newWatch returns a watch that writes to a client.
func newWatch(resource string, f format, w http.ResponseWriter) *watch {
	return &watch{resource: resource, format: f, out: bufio.NewWriterSize(w, 1<<18), rc: http.NewResponseController(w)}
}

// write writes an event. Errors show when the client's request ends.
func (w *watch) write(e *event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	frame := e.frame
	if !w.format.binary() {
		frame = w.format.frame(e.kind, e.make())
	}
	_, _ = w.out.Write(frame)
}

// flush hands what was written to the socket.
func (w *watch) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushLocked()
}

// flushLocked is flush with mu held.
func (w *watch) flushLocked() {
	if w.out.Buffered() > 0 {
		_ = w.out.Flush()
		_ = w.rc.Flush()
	}
}

// begin registers a watch and writes what it begins with: the whole state, or the events after a version.
func (s *store) begin(w *watch, whole bool, from int) {
	s.mu.Lock()
	w.mu.Lock()
	defer w.mu.Unlock()
	entries, version := []*entry(nil), s.version
	var missed []event
	expired := false
	if whole {
		entries = s.sorted(w.resource)
	} else {
		missed, expired = s.after(w.resource, from)
	}
	s.watches[w] = struct{}{}
	s.mu.Unlock()

	_ = w.rc.Flush() // the header
	for _, e := range entries {
		frame := e.frame
		if !w.format.binary() {
			frame = w.format.frame(apiwatch.Added, e.make())
		}
		_, _ = w.out.Write(frame)
	}
	if whole {
		_, _ = w.out.Write(w.format.bookmark(w.resource, version))
	}
	for i := range missed {
		frame := missed[i].frame
		if !w.format.binary() {
			frame = w.format.frame(missed[i].kind, missed[i].make())
		}
		_, _ = w.out.Write(frame)
	}
	if expired {
		_, _ = w.out.Write(w.format.frame(apiwatch.Error, &apierrors.NewResourceExpired("too old resource version").ErrStatus))
	}
	w.flushLocked()
}

// after returns the events of a resource after a version, or that they are not kept any more. The caller
// holds mu.
func (s *store) after(resource string, from int) (missed []event, expired bool) {
	if from == 0 || from >= s.version {
		return nil, false
	}
	if len(s.history) == 0 || s.history[0].version > from+1 {
		return nil, true
	}
	for i := range s.history {
		if e := &s.history[i]; e.resource == resource && e.version > from {
			missed = append(missed, *e)
		}
	}
	return missed, false
}

// end forgets a watch.
func (s *store) end(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, w)
}
