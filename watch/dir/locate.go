package dir

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// locate returns the path of the first field that cannot be decoded, and what is wrong with it. The
// decoder's own errors leave out the places in lists, and those of types that decode themselves
// leave out all: so the text is tried again piece by piece.
func locate(text []byte, t reflect.Type, err error) (field, message string) {
	if path, inner, ok := badField(text, t, ""); ok {
		return strings.TrimPrefix(path, "."), plain(inner)
	}
	return "", plain(err)
}

// badField looks for the innermost value that does not decode into its type.
func badField(text []byte, t reflect.Type, path string) (string, error, bool) {
	err := json.Unmarshal(text, reflect.New(t).Interface())
	if err == nil {
		return "", nil, false
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return path, err, true
	}
	switch t.Kind() {
	case reflect.Pointer:
		return badField(text, t.Elem(), path)
	case reflect.Struct:
		var fields map[string]json.RawMessage
		if json.Unmarshal(text, &fields) != nil {
			return path, err, true
		}
		if path, err, ok := badStructField(fields, t, path); ok {
			return path, err, true
		}
	case reflect.Slice:
		var items []json.RawMessage
		if json.Unmarshal(text, &items) != nil {
			return path, err, true
		}
		for i, item := range items {
			if path, err, ok := badField(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); ok {
				return path, err, true
			}
		}
	case reflect.Map:
		var items map[string]json.RawMessage
		if json.Unmarshal(text, &items) != nil {
			return path, err, true
		}
		for name, item := range items {
			if path, err, ok := badField(item, t.Elem(), fmt.Sprintf("%s[%s]", path, name)); ok {
				return path, err, true
			}
		}
	}
	return path, err, true
}

// badStructField looks for the first field of a struct that does not decode.
func badStructField(fields map[string]json.RawMessage, t reflect.Type, path string) (string, error, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.Anonymous {
			if path, err, ok := badStructField(fields, f.Type, path); ok {
				return path, err, true
			}
			continue
		}
		value, there := fields[name]
		if !there || name == "" || name == "-" {
			continue
		}
		if path, err, ok := badField(value, f.Type, path+"."+name); ok {
			return path, err, true
		}
	}
	return "", nil, false
}

// plain returns an error of the decoder in words that do not need Go.
func plain(err error) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	want := wrong.Type.String()
	switch wrong.Type.Kind() {
	case reflect.Struct, reflect.Map:
		want = "a mapping"
	case reflect.Slice:
		want = "a list"
	case reflect.String:
		want = "a string"
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		want = "a number"
		if strings.HasPrefix(wrong.Value, "number") {
			want = "a whole number of its size"
		}
	}
	return fmt.Sprintf("is %s, but should be %s", wrong.Value, want)
}

// shiftLines makes the line number of a document that the YAML decoder names that of the file.
// A message of several lines becomes one.
func shiftLines(message string, by int) string {
	message = strings.Join(strings.Fields(message), " ")
	before, rest, ok := strings.Cut(message, "line ")
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	n, err := strconv.Atoi(rest[:digits])
	if !ok || err != nil {
		return message
	}
	return before + "line " + strconv.Itoa(n+by) + rest[digits:]
}

// guess returns which object a document that is no YAML seems to hold, from the lines that nearly
// all have at the beginning; nothing if it cannot be told.
func guess(text []byte) key {
	var k key
	in := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, " \r\n")
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		switch {
		case !ok:
		case name == "kind" && strings.HasPrefix(line, "kind"):
			k.kind = value
		case line == strings.TrimSpace(line):
			in = name
		case in == "metadata" && name == "name" && k.name.Name == "":
			k.name.Name = value
		case in == "metadata" && name == "namespace" && k.name.Namespace == "":
			k.name.Namespace = value
		}
	}
	known, ok := kindOf(k.kind)
	if !ok || k.name.Name == "" {
		return key{}
	}
	if known.namespaced && k.name.Namespace == "" {
		k.name = model.Name{Namespace: "default", Name: k.name.Name}
	}
	return k
}
