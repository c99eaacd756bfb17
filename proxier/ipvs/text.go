package ipvs

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// String returns the state as text, sorted: each virtual server with its destinations below it, much as
// `ipvsadm -Ln` prints them, and then the addresses of the device.
func (s State) String() string {
	var b strings.Builder
	for _, k := range slices.SortedFunc(maps.Keys(s.Servers), Key.Compare) {
		v := s.Servers[k]
		fmt.Fprintf(&b, "%s %s\n", k, v.Server)
		for _, addr := range slices.SortedFunc(maps.Keys(v.Dests), netip.AddrPort.Compare) {
			fmt.Fprintf(&b, "  -> %s", Dest{addr, v.Dests[addr]})
			if c := v.Counts[addr]; c.Total() > 0 {
				fmt.Fprintf(&b, " active %d inactive %d", c.Active, c.Inactive)
			}
			b.WriteByte('\n')
		}
	}
	for _, addr := range missing(s.Addresses, nil) {
		fmt.Fprintf(&b, "address %s on %s\n", addr, Device)
	}
	return b.String()
}

// Clone returns a copy that shares nothing with s.
func (s State) Clone() State {
	servers := make(Table, len(s.Servers))
	for k, v := range s.Servers {
		servers[k] = v.Clone()
	}
	return State{Servers: servers, Addresses: maps.Clone(s.Addresses)}
}

// Clone returns a copy that shares nothing with v.
func (v *Virtual) Clone() *Virtual {
	return &Virtual{Server: v.Server, Dests: maps.Clone(v.Dests), Counts: maps.Clone(v.Counts)}
}
