package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// device returns the dummy device; nil if there is none.
func device() (netlink.Link, error) {
	link, err := netlink.LinkByName(ipvs.Device)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for device %s: %w", ipvs.Device, err)
	}
	return link, nil
}

// deviceIndex returns the index of the dummy device, which it makes if it is needed; 0 if there is none. A device
// that is there, kube-proxy's for one, is taken over. Dummy devices do not speak ARP.
func deviceIndex(needed bool) (int, error) {
	link, err := device()
	if err != nil || link == nil && !needed {
		return 0, err
	}
	if link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = ipvs.Device
		if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, fmt.Errorf("make device %s: %w", ipvs.Device, err)
		}
		if link, err = device(); err != nil {
			return 0, err
		}
		if link == nil {
			return 0, fmt.Errorf("make device %s: %w", ipvs.Device, unix.ENODEV)
		}
	}
	if needed && link.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return 0, fmt.Errorf("set up device %s: %w", ipvs.Device, err)
		}
	}
	return link.Attrs().Index, nil
}

// deviceAddresses returns the addresses of the dummy device, but for those that the kernel gave it; none if there
// is no device.
func deviceAddresses() ([]netip.Addr, error) {
	link, err := device()
	if err != nil || link == nil {
		return nil, err
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("read the addresses of device %s: %w", ipvs.Device, err)
	}
	var r []netip.Addr
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok && !addr.Unmap().IsLinkLocalUnicast() {
			r = append(r, addr.Unmap())
		}
	}
	return r, nil
}
