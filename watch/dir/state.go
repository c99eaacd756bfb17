package dir

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/watch"
)

// settle is how long a file must have been left alone to be taken at its word when it does not hold
// an object any more. It holds up nothing but removals.
const settle = 100 * time.Millisecond

// A state is what is known of the directory.
type state struct {
	path  string
	limit int64
	files map[string]*file
	// claims are the entries for each object, in the order in which they count.
	claims map[key][]claim
	// holds are the number of files that hold an object without an entry for it.
	holds map[key]int
	// twice are the objects that have several claims.
	twice map[key]struct{}
	// served is the entry that each object in the part was made of.
	served map[key]*entry
	part   watch.Part
}

// A claim is an entry with its place.
type claim struct {
	file     string
	document int
	number   int
	entry    *entry
}

func newState(path string, limit int64) *state {
	return &state{
		path:   path,
		limit:  limit,
		files:  map[string]*file{},
		claims: map[key][]claim{},
		holds:  map[key]int{},
		twice:  map[key]struct{}{},
		served: map[key]*entry{},
	}
}

// scan reads what changed in the directory since the last time. It reports whether the part may have
// changed, and whether some file should be looked at once more after a while.
func (s *state) scan(now time.Time) (changed, again bool, err error) {
	names, err := list(s.path)
	if err != nil {
		return false, false, err
	}
	touched := map[key]struct{}{}
	present := make(map[string]struct{}, len(names))
	for _, name := range names {
		present[name] = struct{}{}
		path := filepath.Join(s.path, name)
		before, sig := s.files[name], stat(path)
		if before == nil || before.signature != sig || before.unsettled {
			s.replace(name, before, s.read(path, sig, before, now), touched)
		}
		again = again || s.files[name].unsettled
	}
	for name, before := range s.files {
		if _, ok := present[name]; ok {
			continue
		}
		if before.gone.IsZero() {
			after := &file{gone: now}
			after.hold(before)
			s.replace(name, before, after, touched)
		}
		if now.Sub(s.files[name].gone) >= settle {
			s.replace(name, s.files[name], nil, touched)
			continue
		}
		again = true
	}
	if len(touched) > 0 {
		s.update(touched)
	}
	problems := s.problems()
	changed = len(touched) > 0 || !slices.Equal(problems, s.part.Problems)
	s.part.Problems = problems
	return changed, again, nil
}

// list returns the names of the manifests in the directory, sorted. Hidden files are those of
// editors and of atomic updates.
func list(path string) ([]string, error) {
	dir, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	var names []string
	for _, d := range dir {
		switch ext := filepath.Ext(d.Name()); {
		case strings.HasPrefix(d.Name(), "."):
		case ext == ".yaml", ext == ".yml", ext == ".json":
			names = append(names, d.Name())
		}
	}
	return names, nil
}

// read reads a file and decides what is to stay of the version before.
func (s *state) read(path string, sig signature, before *file, now time.Time) *file {
	f := readFile(path, sig, before, s.limit)
	age := now.Sub(sig.changed())
	f.unsettled = age >= 0 && age < settle
	if before == nil {
		return f
	}
	keep := f.fault != "" || f.unsettled
	if f.unsettled && f.cutOff && len(f.documents) > 0 && before.knows(f.documents[len(f.documents)-1]) {
		// Somebody may be writing: the rest of the last document is yet to come.
		f.documents = f.documents[:len(f.documents)-1]
	}
	for e := range f.entries() {
		keep = keep || e.anonymous()
	}
	if keep {
		f.hold(before)
	}
	return f
}

// knows reports whether the version has other entries for all objects of a document.
func (f *file) knows(d *document) bool {
	keys := map[key]struct{}{}
	for e := range f.entries() {
		keys[e.key] = struct{}{}
	}
	for _, e := range d.entries {
		_, present := keys[e.key]
		_, held := f.held[e.key]
		if !present && !held {
			return false
		}
	}
	return true
}

// entries yields the entries of all documents.
func (f *file) entries() func(yield func(*entry) bool) {
	return func(yield func(*entry) bool) {
		for _, d := range f.documents {
			for _, e := range d.entries {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// hold makes a version hold the objects that only the version before has.
func (f *file) hold(before *file) {
	f.held = map[key]struct{}{}
	for e := range before.entries() {
		if e.key.name.Name != "" {
			f.held[e.key] = struct{}{}
		}
	}
	maps.Copy(f.held, before.held)
	for e := range f.entries() {
		delete(f.held, e.key)
	}
}

// replace puts a version of a file in the place of another and notes which objects that touches.
// Either may be nil.
func (s *state) replace(name string, before, after *file, touched map[key]struct{}) {
	if before != nil {
		for e := range before.entries() {
			if e.key.name.Name == "" {
				continue
			}
			touched[e.key] = struct{}{}
			s.claims[e.key] = slices.DeleteFunc(s.claims[e.key], func(c claim) bool { return c.file == name })
		}
		for k := range before.held {
			touched[k] = struct{}{}
			s.holds[k]--
		}
	}
	delete(s.files, name)
	if after == nil {
		return
	}
	s.files[name] = after
	for i, d := range after.documents {
		for j, e := range d.entries {
			if e.key.name.Name == "" {
				continue
			}
			touched[e.key] = struct{}{}
			s.claims[e.key] = append(s.claims[e.key], claim{name, i, j, e})
		}
	}
	for k := range after.held {
		touched[k] = struct{}{}
		s.holds[k]++
	}
}

// update makes the touched objects of the part what the claims say.
func (s *state) update(touched map[key]struct{}) {
	edit := newEdit(&s.part)
	for k := range touched {
		claims := s.claims[k]
		slices.SortFunc(claims, claim.compare)
		switch {
		case len(claims) == 0 && s.holds[k] > 0:
			// A file that may be half written had it.
		case len(claims) == 0:
			edit.remove(k)
			delete(s.served, k)
		case claims[0].entry.ok && s.served[k] != claims[0].entry:
			edit.set(claims[0].entry)
			s.served[k] = claims[0].entry
		}
		if len(claims) == 0 {
			delete(s.claims, k)
		}
		delete(s.twice, k)
		if len(claims) > 1 {
			s.twice[k] = struct{}{}
		}
		if s.holds[k] == 0 {
			delete(s.holds, k)
		}
	}
	edit.finish(&s.part)
}

// compare orders claims: the first one counts.
func (c claim) compare(o claim) int {
	if d := strings.Compare(c.file, o.file); d != 0 {
		return d
	}
	if d := c.document - o.document; d != 0 {
		return d
	}
	return c.number - o.number
}

// where returns file:document, with the place in a List behind it.
func (c claim) where() string {
	place := fmt.Sprintf("%s:%d", c.file, c.document+1)
	if c.entry.item != "" {
		place += " " + c.entry.item
	}
	return place
}
