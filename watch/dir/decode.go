package dir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// maxListDepth is how deep a List may be within Lists.
const maxListDepth = 4

// A key names an object among all kinds.
type key struct {
	kind string
	name model.Name
}

// String returns the object as "Kind namespace/name", or "Kind name" if it has no namespace.
func (k key) String() string {
	if k.name.Namespace == "" {
		return strings.TrimSpace(k.kind + " " + k.name.Name)
	}
	return k.kind + " " + k.name.String()
}

// An entry is one object of a document, or the place of one that could not be read.
type entry struct {
	// item is the path of the object within a List; empty if it is the document.
	item string
	// key is the object's; its name is empty if nobody knows which object it is.
	key    key
	faults []objects.Fault
	// ok says that the object can be used, or is of no concern: then none of the pointers is set.
	// Without it the object stays what it was before.
	ok bool

	service   *objects.Service
	slice     *objects.Slice
	endpoints *objects.Slice
	node      *objects.Node
	cidr      *objects.ServiceCIDR
}

// anonymous reports whether the entry stands for an object that nobody knows.
func (e *entry) anonymous() bool { return !e.ok && e.key.name.Name == "" }

// fail notes why an entry cannot be used.
func (e *entry) fail(field, message string) *entry {
	e.faults = append(e.faults, objects.Fault{Field: field, Message: message})
	return e
}

// decode returns the objects of one document, in YAML or JSON.
func decode(c chunk) []*entry {
	text := bytes.TrimSpace(c.text)
	if len(text) == 0 || text[0] != '{' || !json.Valid(text) {
		var err error
		if text, err = yaml.YAMLToJSONStrict(c.text); err != nil {
			e := &entry{key: guess(c.text)}
			return []*entry{e.fail("", shiftLines(err.Error(), c.line))}
		}
	}
	return decodeJSON(text, header{}, "", 0)
}

// A header is what all objects begin with.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// decodeJSON returns the object, or the objects of the List, that the text holds. The kind and
// version of the items of a typed list are those that its header implies.
func decodeJSON(text []byte, implied header, item string, depth int) []*entry {
	e := &entry{item: item}
	h := header{APIVersion: implied.APIVersion, Kind: implied.Kind}
	if err := json.Unmarshal(text, &h); err != nil {
		field, message := locate(text, reflect.TypeFor[header](), err)
		return []*entry{e.fail(field, message)}
	}
	if h.Kind == "" {
		return []*entry{e.fail("kind", "is missing")}
	}
	if strings.HasSuffix(h.Kind, "List") {
		return decodeList(h, e, depth)
	}
	k, known := kindOf(h.Kind)
	if !known || group(k.version) != group(h.APIVersion) {
		e.ok = true
		e.key.kind = h.Kind
		e.faults = []objects.Fault{{Field: "kind", Message: h.APIVersion + " " + h.Kind + " is of no concern here", Minor: true}}
		return []*entry{e}
	}
	e.key = key{h.Kind, model.Name{Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}}
	if k.namespaced && e.key.name.Namespace == "" {
		e.key.name.Namespace = "default"
	}
	if !k.namespaced {
		e.key.name.Namespace = ""
	}
	if h.APIVersion != k.version {
		return []*entry{e.fail("apiVersion", fmt.Sprintf("is %q; %s is read as %s", h.APIVersion, h.Kind, k.version))}
	}
	k.decode(e, text)
	return []*entry{e}
}

// decodeList returns the objects of a List, each as if it were a document of its own.
func decodeList(h header, e *entry, depth int) []*entry {
	if depth == maxListDepth {
		return []*entry{e.fail("items", "is too deep in other lists")}
	}
	var implied header
	if h.Kind != "List" {
		implied = header{APIVersion: h.APIVersion, Kind: strings.TrimSuffix(h.Kind, "List")}
	}
	var out []*entry
	for i, text := range h.Items {
		path := fmt.Sprintf("items[%d]", i)
		if e.item != "" {
			path = e.item + "." + path
		}
		out = append(out, decodeJSON(text, implied, path, depth+1)...)
	}
	return out
}

// A kind is a kind of object that is read.
type kind struct {
	version    string
	namespaced bool
	// decode reads the object into the entry.
	decode func(e *entry, text []byte)
}

// kindOf returns the kind of that name and reports whether it is one that is read.
func kindOf(name string) (kind, bool) {
	switch name {
	case "Service":
		return kind{"v1", true, func(e *entry, text []byte) {
			e.service = read[v1.Service](e, text, objects.FromService)
		}}, true
	case "EndpointSlice":
		return kind{"discovery.k8s.io/v1", true, func(e *entry, text []byte) {
			e.slice = read[discovery.EndpointSlice](e, text, objects.FromSlice)
		}}, true
	case "Endpoints":
		return kind{"v1", true, func(e *entry, text []byte) {
			//lint:ignore SA1019 old, yet in use
			e.endpoints = read[v1.Endpoints](e, text, objects.FromEndpoints)
		}}, true
	case "Node":
		return kind{"v1", false, func(e *entry, text []byte) {
			e.node = read[v1.Node](e, text, objects.FromNode)
		}}, true
	case "ServiceCIDR":
		return kind{"networking.k8s.io/v1", false, func(e *entry, text []byte) {
			e.cidr = read[networking.ServiceCIDR](e, text, objects.FromServiceCIDR)
		}}, true
	}
	return kind{}, false
}

// read decodes an object of the API and cuts it. Fields that the API does not know are reported, and
// the object counts without them.
func read[T, C any](e *entry, text []byte, from func(*T) (*C, []objects.Fault, bool)) *C {
	var object T
	strict, err := kjson.UnmarshalStrict(text, &object)
	if err != nil {
		e.fail(locate(text, reflect.TypeFor[T](), err))
		return nil
	}
	for _, err := range strict {
		var at kjson.FieldError
		if errors.As(err, &at) {
			message := "is no field of " + e.key.kind
			if strings.HasPrefix(err.Error(), "duplicate") {
				message = "is there twice; the last one counts"
			}
			e.faults = append(e.faults, objects.Fault{Field: at.FieldPath(), Message: message, Minor: true})
			continue
		}
		e.fail("", err.Error())
	}
	cut, found, ok := from(&object)
	e.faults = append(e.faults, found...)
	e.ok = ok
	return cut
}

// group returns the group of an apiVersion.
func group(version string) string {
	g, _, ok := strings.Cut(version, "/")
	if !ok {
		return ""
	}
	return g
}
