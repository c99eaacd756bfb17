package kernel

import (
	"errors"
	"maps"
	"net/netip"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// Load reads all virtual servers, with destinations and counts, and the addresses of the device. It leaves out
// servers by firewall mark and the addresses of ExcludeCIDRs: they are somebody else's. A kernel that has not
// loaded IPVS has no servers, and does not load it for that.
func (k *Kernel) Load() (ipvs.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	addresses, err := deviceAddresses()
	if err != nil {
		return ipvs.State{}, err
	}
	s := ipvs.State{Servers: ipvs.Table{}, Addresses: map[netip.Addr]bool{}}
	for _, a := range addresses {
		if !k.excluded(a) {
			s.Addresses[a] = true
		}
	}
	c, err := k.connectIfAvailable()
	if c == nil {
		return s, err
	}
	if s.Servers, err = c.servers(); err != nil {
		return ipvs.State{}, errors.Join(err, k.disconnect())
	}
	maps.DeleteFunc(s.Servers, func(key ipvs.Key, _ *ipvs.Virtual) bool {
		return key.Addr == probeAddr() || k.excluded(key.Addr.Addr())
	})
	for key, v := range s.Servers {
		if err := c.destinations(key, v); err != nil {
			return ipvs.State{}, errors.Join(err, k.disconnect())
		}
	}
	return s, nil
}

// Counts reads the connections of the destinations of a virtual server that have some.
func (k *Kernel) Counts(key ipvs.Key) (map[netip.AddrPort]ipvs.Counts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.connectIfAvailable()
	if c == nil {
		return nil, err
	}
	v := &ipvs.Virtual{}
	if err := c.destinations(key, v); err != nil {
		return nil, errors.Join(err, k.disconnect())
	}
	return v.Counts, nil
}

// flags returns the flags of a virtual server that we make. Schedulers that hash skip destinations of weight 0
// with the flag fallback; without it they refuse the client.
func flags(s ipvs.Server) uint32 {
	var f uint32
	if s.Persistence > 0 {
		f |= flagPersistent
	}
	if s.Scheduler == "sh" || s.Scheduler == "mh" {
		f |= flagFallback
	}
	return f
}
