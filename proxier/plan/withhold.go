package plan

import (
	"encoding/binary"
	"maps"
	"net/netip"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A FrontEnd names what a refused element belongs to. It is opaque, and comparable.
type FrontEnd struct{ key key }

// Owner returns what an element belongs to, if it belongs to a Service that want programs.
func (s *State) Owner(f nft.Family, set string, e *nft.Element) (FrontEnd, bool) {
	k, ok := keyOf(f, set, &e.Key)
	if !ok || s.holder(k) == nil {
		return FrontEnd{}, false
	}
	return FrontEnd{k}, true
}

// Service returns the Service that holds a front end and tells the front end as people write it. The
// Service is empty if none holds it any more.
func (s *State) Service(f FrontEnd) (service model.Name, frontEnd string) {
	if c, ok := s.claims.Get(f.key); ok {
		service = c.claims[0].claim.service.Name
	}
	return service, f.key.String()
}

// Without returns s with front ends left out that the kernel refused, and only those.
func (s *State) Without(withheld map[FrontEnd]bool) *State {
	c := *s
	c.withheld = make(map[key]bool, len(withheld))
	for f := range withheld {
		c.withheld[f.key] = true
	}
	if maps.Equal(c.withheld, s.withheld) {
		return s
	}
	return &c
}

// keyOf returns the key whose claim an element belongs to.
func keyOf(f nft.Family, set string, v *nft.Value) (key, bool) {
	k := key{family: f}
	b := v.Bytes()
	size := 4
	if f == nft.IPv6 {
		size = 16
	}
	switch set {
	case setNodePorts, setNodePort, setNodePortLocal, setNodePortEnds, setNodePortLocals, setNoNodePortEnds, setAffinityNodeIPs:
		size = 0
	case setClusterIPs:
		k.kind = keyClusterIP
	case setHairpin:
		k.kind = keyHairpin
	case setInnerServers:
		k.kind = keyInner
	case setAffinityServices, setAffinityLocals, setAffinitySlots, setAffinityLSlots, setAffinityEnds, setAffinityLEnds:
		k.kind = keyAffinity
	case setNodePortIPs, setAffinity, setDraining, setChains, setBalancers, setRefusals:
		return k, false
	}
	if len(b) < size {
		return k, false
	}
	k.addr, _ = netip.AddrFromSlice(b[:size])
	if k.kind == keyClusterIP || k.kind == keyHairpin {
		return k, true
	}
	if b = b[size:]; len(b) < 8 {
		return k, false
	}
	k.proto, k.port = model.Protocol(b[0]), binary.BigEndian.Uint16(b[4:])
	if set == setAffinityNodePort {
		k.addr = netip.Addr{}
	}
	return k, true
}

// String returns the key as people write it.
func (k key) String() string {
	switch {
	case k.kind == keyClusterIP || k.kind == keyHairpin:
		return k.addr.String()
	case !k.addr.IsValid():
		return "node port " + portString(k.proto, k.port)
	}
	return netip.AddrPortFrom(k.addr, k.port).String() + "/" + k.proto.String()
}
