package plan

import (
	"encoding/binary"
	"net/netip"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// A recollection is where endpoints have their places in the kernel.
type recollection struct {
	lists map[recallKey][]netip.AddrPort
	// owners has the comments of front ends: whose they are.
	owners map[recallKey]string
}

// A recallKey is a set or map with a front end in it.
type recallKey struct {
	family nft.Family
	set    string
	front  nft.Value
}

// maxRecalled bounds the indexes that are believed.
const maxRecalled = 1 << 16

// Recall returns a State that knows nothing but where the endpoints have their places in the kernel,
// for the first Compile after a Load: what is right already then stays untouched.
func Recall(tables []nft.Table) *State {
	r := recollection{lists: map[recallKey][]netip.AddrPort{}, owners: map[recallKey]string{}}
	for i := range tables {
		t := &tables[i]
		for _, set := range []string{setServices, setNodePorts, setAffinityServices, setAffinityLocals} {
			for j := range t.Elements[set] {
				e := &t.Elements[set][j]
				r.owners[recallKey{t.Family, set, e.Key}] = e.Comment
			}
		}
		for _, set := range []string{setEndpoints, setLocalEndpoints, setNodePortEnds, setNodePortLocals} {
			for j := range t.Elements[set] {
				e := &t.Elements[set][j]
				front, index := splitKey(&e.Key)
				r.note(recallKey{t.Family, set, front}, index, endpointOf(t.Family, &e.Data))
			}
		}
		r.noteAffinity(t, setAffinitySlots, setAffinityEnds)
		r.noteAffinity(t, setAffinityLSlots, setAffinityLEnds)
	}
	return &State{recalled: r}
}

// noteAffinity notes the places of Services with session affinity, which lead over the endpoints'
// numbers.
func (r recollection) noteAffinity(t *nft.Table, slots, endpoints string) {
	numbered := map[nft.Value]netip.AddrPort{}
	for j := range t.Elements[endpoints] {
		e := &t.Elements[endpoints][j]
		numbered[e.Key] = endpointOf(t.Family, &e.Data)
	}
	for j := range t.Elements[slots] {
		e := &t.Elements[slots][j]
		front, index := splitKey(&e.Key)
		if b := e.Data.Bytes(); len(b) == 4 {
			r.note(recallKey{t.Family, slots, front}, index, numbered[front.Uint32(binary.NativeEndian.Uint32(b))])
		}
	}
}

// note puts an endpoint in its place.
func (r recollection) note(k recallKey, index uint32, ap netip.AddrPort) {
	if index >= maxRecalled {
		return
	}
	list := r.lists[k]
	for uint32(len(list)) <= index {
		list = append(list, netip.AddrPort{})
	}
	list[index] = ap
	r.lists[k] = list
}

// places returns where the endpoints of a Service port are in the kernel. Any front end that the port
// held tells it: they have the same places.
func (r recollection) places(p *portCompiler, port *model.Port) lists {
	if len(r.lists) == 0 {
		return lists{}
	}
	comment := p.comment(port)
	list := func(owners, set string, k key) []netip.AddrPort {
		if front := k.value(); r.owners[recallKey{p.family, owners, front}] == comment {
			return r.lists[recallKey{p.family, set, front}]
		}
		return nil
	}
	memory := p.memory(port)
	l := lists{
		cluster: list(setAffinityServices, setAffinitySlots, memory),
		local:   list(setAffinityLocals, setAffinityLSlots, memory),
	}
	if p.service.InternalLocal {
		l.local = longest(l.local, list(setServices, setEndpoints, memory))
	} else {
		l.cluster = longest(l.cluster, list(setServices, setEndpoints, memory))
	}
	for _, a := range p.external {
		front := p.front(a, port.Protocol, port.Port)
		l.cluster = longest(l.cluster, list(setServices, setEndpoints, front))
		l.local = longest(l.local, list(setServices, setLocalEndpoints, front))
	}
	front := p.front(netip.Addr{}, port.Protocol, port.NodePort)
	l.cluster = longest(l.cluster, list(setNodePorts, setNodePortEnds, front))
	l.local = longest(l.local, list(setNodePorts, setNodePortLocals, front))
	return l
}

// splitKey splits a key into the front end and the number behind it.
func splitKey(k *nft.Value) (nft.Value, uint32) {
	b := k.Bytes()
	if len(b) < 4 {
		return nft.Value{}, maxRecalled
	}
	return nft.ValueOf(b[:len(b)-4]), binary.NativeEndian.Uint32(b[len(b)-4:])
}

// endpointOf returns the endpoint that a value of a map of endpoints holds, the zero AddrPort if it
// is none.
func endpointOf(f nft.Family, v *nft.Value) netip.AddrPort {
	size := 4
	if f == nft.IPv6 {
		size = 16
	}
	b := v.Bytes()
	if len(b) != size+4 {
		return netip.AddrPort{}
	}
	addr, _ := netip.AddrFromSlice(b[:size])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[size:]))
}
