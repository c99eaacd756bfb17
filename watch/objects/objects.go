// Package objects turns the objects of the Kubernetes API into the values of the model.
//
// Each From function takes one object and returns what the proxy reads of it, cut down to values
// that can be compared, and the faults it found: fields that hold what the API server would have
// refused. What is usable of an object is kept. [Join] puts a Service together with its endpoints.
package objects

import (
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation"
	netutils "k8s.io/utils/net"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// A Fault is a field that holds something that cannot be used.
type Fault struct {
	Field, Message string
	// Minor says that nothing is lost by it.
	Minor bool
}

// faults collects faults.
type faults []Fault

// add notes what is wrong with a field.
func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, Fault{Field: field, Message: fmt.Sprintf(format, args...)})
}

// minor notes something that a person may want to know, but that costs nothing.
func (f *faults) minor(field, format string, args ...any) {
	*f = append(*f, Fault{Field: field, Message: fmt.Sprintf(format, args...), Minor: true})
}

// index returns the path of an item of a list.
func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// An item is one of a list. Its path is made when something is wrong with it.
type item struct {
	list string
	i    int
}

// field returns the path of a field of the item.
func (i item) field(name string) string { return index(i.list, i.i) + "." + name }

// defaultNamespace is the namespace of an object that names none, as for kubectl.
const defaultNamespace = "default"

// nameOf returns the name of an object that has a namespace, and reports whether it is a legal one.
func (f *faults) nameOf(namespace, name string) (model.Name, bool) {
	n := model.Name{Namespace: namespace, Name: name}
	if namespace == "" {
		n.Namespace = defaultNamespace
	}
	ok := f.plainName(name)
	if simpleLabel(n.Namespace) {
		return n, ok
	}
	if errs := validation.IsDNS1123Label(n.Namespace); len(errs) > 0 {
		f.add("metadata.namespace", "%q is no namespace: %s", namespace, errs[0])
		ok = false
	}
	return n, ok
}

// plainName reports whether the name of an object is a legal one.
func (f *faults) plainName(name string) bool {
	if name == "" {
		f.add("metadata.name", "is missing")
		return false
	}
	if simpleLabel(name) {
		return true
	}
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		f.add("metadata.name", "%q is no name: %s", name, errs[0])
		return false
	}
	return true
}

// simpleLabel reports whether a name is a legal one without a dot, as nearly all are: they need not be matched with the
// regular expressions of package validation at each event.
func simpleLabel(s string) bool {
	if len(s) == 0 || len(s) > validation.DNS1123LabelMaxLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// addr parses an address in any spelling that the API ever accepted: leading zeros are decimal.
func addr(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap(), true
	}
	a, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	return a.Unmap(), ok
}

// prefix parses a range in the same spellings; bits behind the mask are cut off.
func prefix(s string) (netip.Prefix, bool) {
	_, ipnet, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(ipnet.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, _ := ipnet.Mask.Size()
	return netip.PrefixFrom(a, ones), true
}

// port returns a port number, if it is one.
func port(n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		return 0, false
	}
	return uint16(n), true
}

// appendNew appends a value that is not in the list yet.
func appendNew[T comparable](list []T, v T) []T {
	for _, have := range list {
		if have == v {
			return list
		}
	}
	return append(list, v)
}
