// Package watch brings what the sources know together into the snapshots that the proxy works on.
//
// A [Source] holds part of the truth: the objects of a cluster (watch/dir) or the addresses of this
// node (watch/node). It hands over all that it holds each time something of it changes, and the
// [Hub] joins the parts. Services that no change touches stay the same pointers from snapshot to
// snapshot, which is how everything behind the hub knows that it has nothing to do for them.
package watch

import (
	"cmp"
	"context"
	"net/netip"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/watch/objects"
)

// A Source knows part of the truth.
type Source interface {
	// Run calls put with all that the source holds, once at the beginning and again after each
	// change, until the context ends. It calls put from one goroutine at a time and returns an error
	// only if it cannot go on.
	Run(ctx context.Context, put func(Part)) error
	// String names the source in logs and problems.
	String() string
}

// A Part is all that one source holds at one time. Neither it nor what it points to is changed
// after it was put, and an object that did not change is the same pointer as in the Part before.
type Part struct {
	Services  model.Map[model.Name, *objects.Service]
	Slices    model.Map[model.Name, *objects.Slice]
	Endpoints model.Map[model.Name, *objects.Slice] // v1 Endpoints, as a slice of the same name
	Nodes     model.Map[string, *objects.Node]
	// ServiceCIDRs are the ranges of each ServiceCIDR object.
	ServiceCIDRs model.Map[string, *objects.ServiceCIDR]
	// Addresses are those of the interfaces of this node, by interface index.
	Addresses []Address
	// Problems are what the source could not use.
	Problems []Problem
	// Waiting says that the source could not read anything yet: there are Problems at most, and the
	// source does not count as having spoken.
	Waiting bool
}

// An Address is an address of an interface of this node.
type Address struct {
	Addr netip.Addr
	// Index and Link are the number and the name of the interface.
	Index int
	Link  string
	// Virtual says that the interface belongs to pods or containers (a veth, a bridge of a CNI): its
	// addresses are the node's, but none is what the node is known by.
	Virtual bool
}

// A Problem is something in the input that could not be used as it was written.
type Problem struct {
	// Source is the name of the source.
	Source string
	// Where is file:document, or empty.
	Where string
	// Object is "Kind namespace/name", or empty if that is unknown.
	Object string
	// Field is the path of the field, such as spec.ports[1].nodePort, or empty.
	Field   string
	Message string
	// Minor says that nothing is lost: the object is served, or is of no concern.
	Minor bool
}

// String returns the problem as one line for a person.
func (p Problem) String() string {
	var parts []string
	for _, s := range []string{p.Source, p.Where, p.Object, p.Field, p.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// Compare orders problems by what they are about.
func (p Problem) Compare(o Problem) int {
	return cmp.Or(
		cmp.Compare(p.Source, o.Source),
		cmp.Compare(p.Where, o.Where),
		cmp.Compare(p.Object, o.Object),
		cmp.Compare(p.Field, o.Field),
		cmp.Compare(p.Message, o.Message),
	)
}
