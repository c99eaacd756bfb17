// Package dir is a source that reads the objects of a cluster from a directory of manifests.
//
// The files *.yaml, *.yml and *.json hold what kubectl applies and prints: v1 Service, Node,
// Endpoints and List, discovery.k8s.io/v1 EndpointSlice, networking.k8s.io/v1 ServiceCIDR, several
// documents a file. The directory is read again when inotify says that something of it changed, also
// when it is exchanged as a whole, as a mounted ConfigMap is.
//
// What cannot be read takes nothing away: an object whose document is broken stays what it was, and
// the rest of the file counts. Neither does a file that is being written: an object that is missing
// from a file is removed once the file was left alone for a moment ([settle]); additions and changes
// count at once.
//
// The way of a file: state.go decides what to read, file.go reads it, split.go cuts it into
// documents, decode.go makes entries of them, and state.go decides which entries count.
package dir

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/watch"
)

// rescan is how often the directory is looked through without any event: for file systems that have
// none, and links that lead out of the directory.
const rescan = 10 * time.Second

// A Source reads a directory.
type Source struct {
	path string
	log  *zap.Logger
}

// New returns a source that reads the directory at path.
func New(path string, log *zap.Logger) *Source {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if log == nil {
		log = zap.NewNop()
	}
	return &Source{path: path, log: log}
}

// Read returns what the directory at path holds now.
func Read(path string) (watch.Part, error) {
	s := newState(path, maxFile)
	if _, _, err := s.scan(time.Now()); err != nil {
		return watch.Part{}, err
	}
	return s.part, nil
}

// String names the source.
func (s *Source) String() string { return sourceName(s.path) }

// sourceName is the name of the source that reads a directory.
func sourceName(path string) string { return "manifests " + path }

// Run reads the directory now and whenever it changes, until the context ends. As long as the
// directory cannot be read, all stays as it was; if it never could be, the source stays silent
// rather than say that there is nothing.
func (s *Source) Run(ctx context.Context, put func(watch.Part)) error {
	watcher := newWatcher(s.path)
	defer watcher.close()
	ticker := time.NewTicker(rescan)
	defer ticker.Stop()
	later := time.NewTimer(settle)
	defer later.Stop()

	state := newState(s.path, maxFile)
	var last []watch.Problem
	for first := true; ; {
		// First watch, then read: what changes in between is read once more.
		watchErr := watcher.follow()
		changed, again, err := state.scan(time.Now())
		part := state.part
		if err != nil {
			part.Problems = append(slices.Clip(part.Problems), s.problem("%v; all stays as it was", err))
		} else if watchErr != nil {
			part.Problems = append(slices.Clip(part.Problems),
				s.problem("no notice of changes, looking every %s: %v", rescan, watchErr))
		}
		part.Waiting = first && err != nil
		if spoke := first && err == nil; spoke || changed || !slices.Equal(part.Problems, last) {
			put(part)
		}
		first, last = first && err != nil, part.Problems
		if again {
			later.Reset(settle)
		}
		s.log.Debug("read the manifests", zap.String("source", s.String()), zap.Bool("changed", changed), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.signal:
		case <-later.C:
		case <-ticker.C:
		}
	}
}

// problem returns a problem of the directory as a whole.
func (s *Source) problem(format string, args ...any) watch.Problem {
	return watch.Problem{Source: s.String(), Message: fmt.Sprintf(format, args...)}
}
