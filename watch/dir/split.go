package dir

import (
	"bytes"
)

// A chunk is the text of one document of a file.
type chunk struct {
	text []byte
	// line is the number of the line before the document.
	line int
}

// split cuts a YAML stream into its documents, leaving out empty ones. It only looks for the lines
// that separate documents, so that one document that is no YAML does not take the others with it.
func split(data []byte) []chunk {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var out []chunk
	start, startLine := 0, 0
	cut := func(end int) {
		if text := data[start:end]; !blank(text) {
			out = append(out, chunk{text: text, line: startLine})
		}
	}
	for at, line := 0, 0; at < len(data); line++ {
		next := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		switch kind := separator(data[at:next]); kind {
		case separates:
			cut(at)
			start, startLine = next, line+1
		case begins:
			cut(at)
			start, startLine = at, line
		}
		at = next
	}
	cut(len(data))
	return out
}

// What a line is for the stream of documents.
type separation int

const (
	// belongs is a line of a document.
	belongs separation = iota
	// separates is a line between two documents: "---" or "...".
	separates
	// begins is "---" with the beginning of the document behind it.
	begins
)

// separator returns what a line is.
func separator(line []byte) separation {
	if len(line) < 3 {
		return belongs
	}
	switch mark := string(line[:3]); {
	case mark != "---" && mark != "...":
		return belongs
	case len(line) > 3 && line[3] != ' ' && line[3] != '\t' && line[3] != '\r' && line[3] != '\n':
		return belongs
	case mark == "---" && !blank(line[3:]):
		return begins
	}
	return separates
}

// blank reports whether text holds nothing but space, comments and directives.
func blank(text []byte) bool {
	for len(text) > 0 {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		trimmed := bytes.TrimSpace(line)
		if len(trimmed) > 0 && trimmed[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}
