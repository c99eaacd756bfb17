package dir

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 256 << 20

// A signature tells versions of a file apart without reading it.
type signature struct {
	dev, inode    uint64
	size          int64
	mtime, ctime  syscall.Timespec
	mode          fs.FileMode
	errorToStatIt string
}

// A document is one document of a file.
type document struct {
	hash    [sha256.Size]byte
	entries []*entry
}

// A file is one version of a file of the directory.
type file struct {
	signature signature
	documents []*document
	// fault says why nothing of the file could be read; empty if it was read.
	fault string
	// cutOff says that the last document may not be whole: it has no end of line.
	cutOff bool
	// unsettled says that the file was still young when it was read, so that it may be half written,
	// and may change again without a change of its signature.
	unsettled bool
	// gone is when the file was found missing; zero if it is there.
	gone time.Time
	// held are the objects of earlier versions that stay as they were, since this version may not be
	// meant to take them away.
	held map[key]struct{}
}

// stat returns the signature of a file.
func stat(path string) signature {
	info, err := os.Stat(path)
	if err != nil {
		return signature{errorToStatIt: reason(err)}
	}
	return signatureOf(info)
}

// signatureOf returns the signature that is in the information about a file.
func signatureOf(info fs.FileInfo) signature {
	s := signature{size: info.Size(), mode: info.Mode()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.inode, s.mtime, s.ctime = sys.Dev, sys.Ino, sys.Mtim, sys.Ctim
	}
	return s
}

// changed returns when the file was written or replaced, whichever is later.
func (s signature) changed() time.Time {
	m, c := time.Unix(s.mtime.Unix()), time.Unix(s.ctime.Unix())
	if c.After(m) {
		return c
	}
	return m
}

// readFile reads a file whose signature is s. The documents that were in the version before are
// taken from there. It never fails: what is wrong is in the file that it returns.
func readFile(path string, s signature, before *file, limit int64) *file {
	f := &file{signature: s}
	data, err := readAll(path, s, limit)
	switch {
	case err != nil:
		f.fault = reason(err)
	case bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data):
		f.fault = "is not text (neither YAML nor JSON, or not in UTF-8)"
	default:
		f.parse(data, before)
	}
	return f
}

// readAll returns the content of a regular file.
func readAll(path string, s signature, limit int64) ([]byte, error) {
	switch {
	case s.errorToStatIt != "":
		return nil, errors.New(s.errorToStatIt)
	case !s.mode.IsRegular():
		return nil, errors.New("is no regular file")
	case s.size > limit:
		return nil, fmt.Errorf("has %d bytes; the limit is %d", s.size, limit)
	}
	// Without O_NONBLOCK a pipe that just took the place of the file would hold us up for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := bytes.NewBuffer(make([]byte, 0, s.size+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(data.Len()) > limit {
		return nil, fmt.Errorf("has more than %d bytes, the limit", limit)
	}
	return data.Bytes(), nil
}

// reason returns an error without the path, which stands in front of it anyway.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return "cannot be read: " + path.Err.Error()
	}
	return err.Error()
}

// parse decodes the documents of a file, those that were not in the version before by all CPUs.
func (f *file) parse(data []byte, before *file) {
	known := map[[sha256.Size]byte]*document{}
	if before != nil {
		for _, d := range before.documents {
			known[d.hash] = d
		}
	}
	chunks := chunksOf(data)
	f.cutOff = len(data) > 0 && data[len(data)-1] != '\n'
	f.documents = make([]*document, len(chunks))
	var fresh []int
	for i, c := range chunks {
		d := &document{hash: sha256.Sum256(c.text)}
		if have, ok := known[d.hash]; ok && have.reusable() {
			d = have
		} else {
			fresh = append(fresh, i)
		}
		f.documents[i] = d
	}
	var next int
	var mu sync.Mutex
	var group errgroup.Group
	for range min(runtime.GOMAXPROCS(0), len(fresh)) {
		group.Go(func() error {
			for {
				mu.Lock()
				at := next
				next++
				mu.Unlock()
				if at >= len(fresh) {
					return nil
				}
				f.documents[fresh[at]].entries = decode(chunks[fresh[at]])
			}
		})
	}
	_ = group.Wait() // no member returns an error
}

// reusable reports whether the document would be decoded the same at its new place in the file: what
// is wrong with it may name the line.
func (d *document) reusable() bool {
	for _, e := range d.entries {
		if !e.ok && e.item == "" {
			return false
		}
	}
	return true
}

// chunksOf returns the documents of a file. JSON values may follow each other without a separator.
func chunksOf(data []byte) []chunk {
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return split(data)
	}
	var out []chunk
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		start := dec.InputOffset()
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			// It may be YAML in flow style, or a mix: the separators decide.
			return split(data)
		}
		out = append(out, chunk{text: raw, line: bytes.Count(data[:start], []byte("\n"))})
	}
}
