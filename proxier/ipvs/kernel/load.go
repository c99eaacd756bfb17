package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	cloudflare "github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
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
	services, err := list(c.client.Services())
	if err != nil {
		return ipvs.State{}, errors.Join(fmt.Errorf("read the virtual servers: %w", err), k.disconnect())
	}
	for _, svc := range services {
		key, v, ok := virtual(svc)
		if !ok || key.Addr == probeAddr() || k.excluded(key.Addr.Addr()) {
			continue
		}
		dests, err := destinations(c.client, key)
		if err != nil {
			return ipvs.State{}, errors.Join(fmt.Errorf("read the destinations of %s: %w", key, err), k.disconnect())
		}
		fill(v, dests)
		s.Servers[key] = v
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
	dests, err := destinations(c.client, key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the destinations of %s: %w", key, err), k.disconnect())
	}
	v := &ipvs.Virtual{}
	fill(v, dests)
	return v.Counts, nil
}

// destinations reads those of a virtual server; none if there is no such server.
func destinations(client cloudflare.Client, key ipvs.Key) ([]cloudflare.DestinationExtended, error) {
	return list(client.Destinations(service(key)))
}

// list takes for an empty list what the library returns as an error for one.
func list[T any](l []T, err error) ([]T, error) {
	if err == os.ErrNotExist { //nolint:errorlint // not what the kernel said, which os.ErrNotExist would match, too
		return nil, nil
	}
	return l, err
}

// virtual returns what the library read of a virtual server. ok is false for one by firewall mark.
func virtual(s cloudflare.ServiceExtended) (key ipvs.Key, v *ipvs.Virtual, ok bool) {
	if s.FWMark != 0 || !s.Address.IsValid() {
		return ipvs.Key{}, nil, false
	}
	key = ipvs.Key{Protocol: model.Protocol(s.Protocol), Addr: netip.AddrPortFrom(s.Address, s.Port)}
	v = &ipvs.Virtual{Server: ipvs.Server{Scheduler: s.Scheduler}}
	if s.Flags&cloudflare.ServicePersistent != 0 {
		v.Server.Persistence = time.Duration(s.Timeout) * time.Second
	}
	v.Server.Foreign = uint32(s.Flags&^cloudflare.ServiceHashed) != flags(v.Server) ||
		v.Server.Persistence > 0 && s.Netmask != hostMask(s.Address.Is6())
	return key, v, true
}

// fill fills in the destinations and their counts.
func fill(v *ipvs.Virtual, dests []cloudflare.DestinationExtended) {
	v.Dests, v.Counts = make(map[netip.AddrPort]int, len(dests)), map[netip.AddrPort]ipvs.Counts{}
	for _, d := range dests {
		addr := netip.AddrPortFrom(d.Address, d.Port)
		v.Dests[addr] = int(d.Weight)
		if d.FwdMethod != cloudflare.Masquerade || d.UpperThreshold != 0 || d.LowerThreshold != 0 {
			v.Dests[addr] = ipvs.ForeignWeight
		}
		if c := (ipvs.Counts{Active: d.ActiveConnections, Inactive: d.InactiveConnections}); c.Total() > 0 {
			v.Counts[addr] = c
		}
	}
}

// service returns a virtual server as the library names it.
func service(key ipvs.Key) cloudflare.Service {
	s := cloudflare.Service{
		Address: key.Addr.Addr(), Port: key.Addr.Port(),
		Protocol: cloudflare.Protocol(key.Protocol), Family: cloudflare.INET,
	}
	if key.Addr.Addr().Is6() {
		s.Family = cloudflare.INET6
	}
	return s
}

// hostMask returns the mask of affinity by single address.
func hostMask(six bool) netmask.Mask {
	if six {
		return netmask.MaskFrom(128, 128)
	}
	return netmask.MaskFrom(32, 32)
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
