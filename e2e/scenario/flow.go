// Package scenario reads what the tests with packets are made of: manifests, settings of a node, and
// flows with what must become of them.
package scenario

import (
	"fmt"
	"net/netip"
	"strings"
)

// Kind is where a flow starts.
type Kind string

// The kinds of sources.
const (
	Pod      Kind = "pod"      // on the node, arrives by its link
	NodeSelf Kind = "node"     // a process of the node
	External Kind = "external" // arrives from outside
)

// Verdict is what must become of a flow.
type Verdict string

// The verdicts.
const (
	DNAT   Verdict = "dnat"   // goes to one of the endpoints, and to each of them over many connections
	Reject Verdict = "reject" // is refused
	Drop   Verdict = "drop"   // vanishes
	None   Verdict = "none"   // is no business of the proxy
)

// A Flow is a connection and what must become of it.
type Flow struct {
	Name  string
	Kind  Kind
	Src   netip.Addr
	Proto string // "tcp", "udp" or "sctp"
	Dst   netip.AddrPort
	Want  Verdict
	// Endpoints are where a flow with verdict DNAT may go.
	Endpoints []netip.AddrPort
	// Masquerade says that the endpoint must see an address of the node.
	Masquerade bool
}

// String returns the flow as it stands in a scenario.
func (f Flow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s -> %s/%s => ", f.Kind, f.Src, f.Dst, f.Proto)
	if f.Want != DNAT {
		b.WriteString(string(f.Want))
		return b.String()
	}
	for i, e := range f.Endpoints {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(e.String())
	}
	if f.Masquerade {
		b.WriteString(" masq")
	}
	return b.String()
}

// A Node is the settings of a node: its addresses, and the flags of the daemon.
type Node struct {
	Name      string
	Addresses []netip.Addr
	Flags     []string
}
