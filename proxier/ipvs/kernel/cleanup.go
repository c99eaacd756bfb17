package kernel

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// Removed is what Cleanup removed. The zero value is nothing.
type Removed struct {
	// Servers and Addresses are how many virtual servers and addresses of the device there were.
	Servers, Addresses int
	// Device says that the device is gone.
	Device bool
}

// String returns what was removed as a sentence says it.
func (r Removed) String() string {
	if r == (Removed{}) {
		return "nothing"
	}
	text := fmt.Sprintf("%d virtual servers, %d addresses of %s", r.Servers, r.Addresses, ipvs.Device)
	if r.Device {
		text += ", the device"
	}
	return text
}

// Cleanup removes the virtual servers at addresses of the device, the addresses, and the device if nobody else's
// address is left on it. It does not have IPVS loaded to find nothing. After an error it may be called again: what
// it goes by is removed last.
func (k *Kernel) Cleanup() (Removed, error) {
	state, err := k.Load()
	if err != nil {
		return Removed{}, err
	}
	var r Removed
	ops := cleanup(state)
	failed := k.Apply(ops.servers)
	r.Servers = len(ops.servers) - len(failed)
	if len(failed) > 0 {
		return r, fmt.Errorf("%d of %d virtual servers stay: %w", len(failed), len(ops.servers), failed[0])
	}
	failed = k.Apply(ops.addresses)
	r.Addresses = len(ops.addresses) - len(failed)
	if len(failed) > 0 {
		return r, fmt.Errorf("%d of %d addresses stay: %w", len(failed), len(ops.addresses), failed[0])
	}
	r.Device, err = removeDevice()
	return r, err
}

// cleanupOps are the steps of a clean-up.
type cleanupOps struct{ servers, addresses []ipvs.Op }

// cleanup returns the steps that remove all that is on the device, or leads there.
func cleanup(s ipvs.State) cleanupOps {
	ours := ipvs.State{Servers: ipvs.Table{}, Addresses: s.Addresses}
	for key, v := range s.Servers {
		if s.Addresses[key.Addr.Addr()] {
			ours.Servers[key] = v
		}
	}
	var ops cleanupOps
	_, after := ipvs.Diff(ours, ipvs.State{})
	for _, op := range after {
		if aboutAddress(op.Verb) {
			ops.addresses = append(ops.addresses, op)
		} else {
			ops.servers = append(ops.servers, op)
		}
	}
	return ops
}

// removeDevice removes the device, if it is there and has no address, and reports whether it did.
func removeDevice() (bool, error) {
	link, err := device()
	if err != nil || link == nil {
		return false, err
	}

	if addresses, err := deviceAddresses(); err != nil || len(addresses) > 0 {
		return false, err
	}
	if err := netlink.LinkDel(link); err != nil {
		return false, fmt.Errorf("remove device %s: %w", ipvs.Device, err)
	}
	return true, nil
}
