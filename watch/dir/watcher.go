package dir

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// A watcher signals when something happens in a directory, wherever its path leads just now.
type watcher struct {
	path string
	// signal holds at most one signal, for any number of events.
	signal chan struct{}

	events *fsnotify.Watcher
	// watched are the directories that are watched.
	watched []place
	// done is closed when the events of the watcher are all read.
	done chan struct{}
}

// A place is a directory as found under a path at one time.
type place struct {
	path string
	id   signature
}

func newWatcher(path string) *watcher {
	return &watcher{path: path, signal: make(chan struct{}, 1)}
}

// follow watches the directory that is at the path now, and the directory above it, where it will
// vanish and come back.
func (w *watcher) follow() error {
	want := places(w.path)
	if w.events != nil && slices.Equal(want, w.watched) {
		return nil
	}
	w.close()
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", w.path, err)
	}
	for _, p := range want {
		if err := events.Add(p.path); err != nil {
			_ = events.Close()
			return fmt.Errorf("watch %s: %w", p.path, err)
		}
	}
	w.events, w.watched, w.done = events, want, make(chan struct{})
	go w.pump(events, w.done)
	return nil
}

// places returns the directories to watch: that at the path, if there is one, and the nearest one
// above it.
func places(path string) []place {
	var out []place
	for at := path; ; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil && info.IsDir() {
			s := signatureOf(info)
			out = append(out, place{at, signature{dev: s.dev, inode: s.inode}})
			if at != path {
				return out
			}
		}
		if at == filepath.Dir(at) {
			return out
		}
	}
}

// pump turns events into signals until the watcher is closed. An error means that events were lost,
// which is reason enough to look.
func (w *watcher) pump(events *fsnotify.Watcher, done chan<- struct{}) {
	defer close(done)
	for {
		select {
		case e, ok := <-events.Events:
			if !ok {
				return
			}
			if !w.concerns(e.Name) {
				continue
			}
		case _, ok := <-events.Errors:
			if !ok {
				return
			}
		}
		select {
		case w.signal <- struct{}{}:
		default:
		}
	}
}

// concerns reports whether an event at a path can matter: in the directory, or on the way to it.
func (w *watcher) concerns(path string) bool {
	if filepath.Dir(path) == w.path {
		return true
	}
	for at := w.path; ; at = filepath.Dir(at) {
		if at == path {
			return true
		}
		if at == filepath.Dir(at) {
			return false
		}
	}
}

// close stops watching and waits for the end of the pump.
func (w *watcher) close() {
	if w.events == nil {
		return
	}
	_ = w.events.Close()
	<-w.done
	w.events = nil
}
