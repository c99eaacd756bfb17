package plan

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// Held returns the front ends of a protocol that tables translate, as they were read from the kernel. A
// node port has the unspecified address of its family.
func Held(tables []nft.Table, p model.Protocol) []netip.AddrPort {
	var held []netip.AddrPort
	for i := range tables {
		t := &tables[i]
		for _, set := range []string{setServices, setNodePorts} {
			for j := range t.Elements[set] {
				k, ok := keyOf(t.Family, set, &t.Elements[set][j].Key)
				switch {
				case !ok || k.proto != p:
					continue
				case k.isNodePort():
					k.addr = unspecified(t.Family)
				}
				held = append(held, netip.AddrPortFrom(k.addr, k.port))
			}
		}
	}
	return held
}

// unspecified returns the address of a family that is none.
func unspecified(f nft.Family) netip.Addr {
	if f == nft.IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
