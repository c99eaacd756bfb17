// Package ipvs holds the part of IPVS, the kernel's load balancer, that nftproxy uses, as plain values.
//
// A [State] is the virtual servers with their destinations and the addresses of the dummy device
// [Device] that make their packets reach IPVS. [Diff] says what turns one into another, as steps ([Op])
// that read like ipvsadm. Package proxier/ipvs/kernel speaks the same values to Linux and package
// proxier/ipvs/fake remembers them in memory.
//
// Unlike nf_tables, IPVS knows no transactions: each step is done or fails by itself.
package ipvs

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// Device is the dummy device that holds the addresses of virtual servers. kube-proxy's has the same name.
const Device = "kube-ipvs0"

// ErrUnsupported is what an error wraps that says what of IPVS the kernel lacks.
var ErrUnsupported = errors.New("not supported by this kernel")

// A Key names a virtual server.
type Key struct {
	Protocol model.Protocol
	Addr     netip.AddrPort
}

// String returns the key as ipvsadm writes it: "TCP 10.96.0.1:80".
func (k Key) String() string { return strings.ToUpper(k.Protocol.String()) + " " + k.Addr.String() }

// Compare orders keys by address, port and protocol.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Protocol, o.Protocol))
}

// A Server is a virtual server without its destinations.
type Server struct {
	// Scheduler is the name of the scheduler: one of [Schedulers], or another that the kernel has.
	// Schedulers that hash skip destinations of weight 0 (sh and mh, by their flag fallback).
	Scheduler string
	// Persistence is the timeout of session affinity by client address, in whole seconds; 0 for none.
	Persistence time.Duration
	// Foreign says that somebody else made the server otherwise than we do: with other flags, or with
	// affinity by network. It is never wanted, so [Diff] sets such a server anew.
	Foreign bool
}

// A Dest is a destination (a real server). What goes to it is translated (masquerading in the language of
// IPVS).
type Dest struct {
	Addr netip.AddrPort
	// Weight is 0 for one that gets no new connections: what it has may end.
	Weight int
}

// ForeignWeight is the weight that a destination has when it is read and somebody else made it otherwise
// than we do: one that is tunneled to, or routed to. It is never wanted, so [Diff] sets such a
// destination anew.
const ForeignWeight = -1

// Counts are the connections that the kernel counts for a destination.
type Counts struct {
	// Active are those that are established; of protocols without a state, none.
	Active uint32
	// Inactive are all others that the kernel still keeps.
	Inactive uint32
}

// Total returns how many connections there are, in any state.
func (c Counts) Total() uint64 { return uint64(c.Active) + uint64(c.Inactive) }

// A Virtual is a virtual server with its destinations.
type Virtual struct {
	Server Server
	// Dests are the weights of the destinations.
	Dests map[netip.AddrPort]int
	// Counts are the connections of destinations that have some, where the kernel was asked; [Diff]
	// does not look at them.
	Counts map[netip.AddrPort]Counts
}

// A Table is virtual servers, with no nil in it.
type Table map[Key]*Virtual

// A State is what the kernel holds or should hold. The zero value is nothing at all.
type State struct {
	Servers Table
	// Addresses are those of the device. Virtual servers at addresses that the node has anyway, as for
	// node ports, do without.
	Addresses map[netip.Addr]bool
}

// Schedulers returns the names of the schedulers that Linux has, sorted.
func Schedulers() []string {
	return []string{"dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "twos", "wlc", "wrr"}
}

// Known reports whether a scheduler is one of [Schedulers]. Only the kernel knows whether it has it.
func Known(scheduler string) bool {
	_, ok := slices.BinarySearch(Schedulers(), scheduler)
	return ok
}
