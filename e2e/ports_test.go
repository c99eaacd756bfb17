package e2e

import (
	"net/netip"
	"sync"
)

// ports hands out source ports. IPVS remembers a connection for two minutes after its end, and where it came by
// a node port leads what comes from the same port in that time to the same endpoint: tests that ask who is chosen
// for a new connection must not use a port again. The kernel does, by chance.
type ports struct {
	mu   sync.Mutex
	used map[netip.Addr]uint16 // how many, by each address
}

// next returns an address with a port that it did not have in this rig.
func (p *ports) next(src netip.Addr) netip.AddrPort {
	const first, count = 11000, 18000 // below the node ports, and above what the daemon listens on (10256)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == nil {
		p.used = map[netip.Addr]uint16{}
	}
	p.used[src]++
	return netip.AddrPortFrom(src, first+p.used[src]%count)
}
