package ipvs

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Diff returns the steps that turn have into want, in an order in which no packet is lost: before makes and
// changes what is wanted, a server with its destinations first and then the address that leads to it; after
// deletes the rest, in the opposite order. What else must change for packets to come to new servers, and not to
// come to old ones, belongs between the two. Nothing depends on the order of maps.
func Diff(have, want State) (before, after []Op) {
	for _, k := range slices.SortedFunc(maps.Keys(want.Servers), Key.Compare) {
		before = appendServer(before, k, have.Servers[k], want.Servers[k])
	}
	for _, a := range missing(want.Addresses, have.Addresses) {
		before = append(before, Op{Verb: AddAddress, Address: a})
	}
	for _, a := range missing(have.Addresses, want.Addresses) {
		after = append(after, Op{Verb: DeleteAddress, Address: a})
	}
	for _, k := range slices.SortedFunc(maps.Keys(have.Servers), Key.Compare) {
		if want.Servers[k] == nil {
			after = append(after, Op{Verb: DeleteServer, Key: k})
		}
	}
	return before, after
}

// appendServer appends what makes one server as it is wanted. have is nil if there is none.
func appendServer(ops []Op, k Key, have, want *Virtual) []Op {
	switch {
	case have == nil:
		have = &Virtual{}
		ops = append(ops, Op{Verb: AddServer, Key: k, Server: want.Server})
	case have.Server != want.Server:
		ops = append(ops, Op{Verb: SetServer, Key: k, Server: want.Server})
	}
	if maps.Equal(have.Dests, want.Dests) {
		return ops
	}
	begin := len(ops)
	for addr, weight := range want.Dests {
		switch old, ok := have.Dests[addr]; {
		case !ok:
			ops = append(ops, Op{Verb: AddDest, Key: k, Dest: Dest{addr, weight}})
		case old != weight:
			ops = append(ops, Op{Verb: SetDest, Key: k, Dest: Dest{addr, weight}})
		}
	}
	for addr := range have.Dests {
		if _, ok := want.Dests[addr]; !ok {
			ops = append(ops, Op{Verb: DeleteDest, Key: k, Dest: Dest{Addr: addr}})
		}
	}
	slices.SortFunc(ops[begin:], func(a, b Op) int {
		return cmp.Or(cmp.Compare(a.Verb, b.Verb), a.Dest.Addr.Compare(b.Dest.Addr))
	})
	return ops
}

// missing returns the addresses of a that are not in b, sorted.
func missing(a, b map[netip.Addr]bool) []netip.Addr {
	var r []netip.Addr
	for addr, ok := range a {
		if ok && !b[addr] {
			r = append(r, addr)
		}
	}
	slices.SortFunc(r, netip.Addr.Compare)
	return r
}
