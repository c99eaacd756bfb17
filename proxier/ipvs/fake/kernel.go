// Package fake is a kernel in memory: it keeps virtual servers by the rules of Linux.
//
// [Kernel] takes the same steps as proxier/ipvs/kernel and refuses what Linux refuses; the package
// proxier/ipvs/fake/suite has the tests that both must pass.
package fake

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
)

// A Kernel holds virtual servers and the addresses of the device. The zero value is an empty kernel that has
// every scheduler of [ipvs.Schedulers]. It may be used from several goroutines; its fields must not be
// changed then, but by the methods.
type Kernel struct {
	// Without are schedulers that the kernel lacks; with "" in it, it lacks IPVS.
	Without []string
	// Fail, if set, is asked before each step, which fails with the error that it returns.
	Fail func(ipvs.Op) error
	// Unreadable, if set, is what Load returns.
	Unreadable error

	mu    sync.Mutex
	state ipvs.State
	stats Stats
}

// Stats counts what a Kernel did.
type Stats struct {
	Ops      int // steps that were done
	Failures int // steps that were not
	Loads    int
}

// Stats returns the counts so far.
func (k *Kernel) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}

// SetWithout replaces Without, as when a module is installed.
func (k *Kernel) SetWithout(schedulers ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Without = schedulers
}

// SetFail replaces Fail.
func (k *Kernel) SetFail(fail func(ipvs.Op) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Fail = fail
}

// SetCounts sets the connections of a destination, which the kernel holds.
func (k *Kernel) SetCounts(key ipvs.Key, dest netip.AddrPort, c ipvs.Counts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	counts := k.state.Servers[key].Counts
	delete(counts, dest)
	if c.Total() > 0 {
		counts[dest] = c
	}
}

// Clear removes all virtual servers, as `ipvsadm --clear` does, and the device.
func (k *Kernel) Clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = ipvs.State{}
}

// Supports reports nil if the kernel has a scheduler, or IPVS for "".
func (k *Kernel) Supports(scheduler string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.supports(scheduler)
}

// supports is Supports.
func (k *Kernel) supports(scheduler string) error {
	switch {
	case slices.Contains(k.Without, ""):
		return fmt.Errorf("the kernel has no ip_vs: %w", ipvs.ErrUnsupported)
	case scheduler != "" && (!ipvs.Known(scheduler) || slices.Contains(k.Without, scheduler)):
		return fmt.Errorf("the kernel has no ip_vs_%s: %w", scheduler, ipvs.ErrUnsupported)
	}
	return nil
}

// Load returns a copy of all that the kernel holds.
func (k *Kernel) Load() (ipvs.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stats.Loads++
	if k.Unreadable != nil {
		return ipvs.State{}, k.Unreadable
	}
	return k.state.Clone(), nil
}

// Counts returns the connections of the destinations of a virtual server that have some.
func (k *Kernel) Counts(key ipvs.Key) (map[netip.AddrPort]ipvs.Counts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v := k.state.Servers[key]; v != nil {
		return maps.Clone(v.Counts), nil
	}
	return nil, nil
}

// Apply does the steps in order and returns those that failed.
func (k *Kernel) Apply(ops []ipvs.Op) []ipvs.OpError {
	k.mu.Lock()
	defer k.mu.Unlock()
	var failed []ipvs.OpError
	for _, op := range ops {
		if err := k.step(op); err != nil {
			failed = append(failed, ipvs.OpError{Op: op, Err: err})
		}
	}
	k.stats.Ops += len(ops) - len(failed)
	k.stats.Failures += len(failed)
	return failed
}

// step does one step, or returns the error of the kernel.
func (k *Kernel) step(op ipvs.Op) error {
	if k.Fail != nil {
		if err := k.Fail(op); err != nil {
			return err
		}
	}
	switch op.Verb {
	case ipvs.AddAddress:
		if k.state.Addresses == nil {
			k.state.Addresses = map[netip.Addr]bool{}
		}
		k.state.Addresses[op.Address] = true
		return nil
	case ipvs.DeleteAddress:
		delete(k.state.Addresses, op.Address)
		return nil
	}
	if err := k.supports(""); err != nil {
		return err
	}
	v := k.state.Servers[op.Key]
	switch op.Verb {
	case ipvs.AddServer, ipvs.SetServer:
		return k.setServer(op, v)
	case ipvs.DeleteServer:
		delete(k.state.Servers, op.Key)
		return nil
	}
	if v == nil {
		return unix.ESRCH
	}
	return setDest(op, v)
}

// setServer adds a virtual server, or sets the one that is there.
func (k *Kernel) setServer(op ipvs.Op, v *ipvs.Virtual) error {
	if v == nil && op.Verb == ipvs.SetServer {
		return unix.ESRCH
	}
	if k.supports(op.Server.Scheduler) != nil || op.Server.Scheduler == "" {
		return unix.ENOENT
	}
	if v == nil {
		if k.state.Servers == nil {
			k.state.Servers = ipvs.Table{}
		}
		v = &ipvs.Virtual{Dests: map[netip.AddrPort]int{}, Counts: map[netip.AddrPort]ipvs.Counts{}}
		k.state.Servers[op.Key] = v
	}
	v.Server = op.Server
	return nil
}

// setDest adds, sets or deletes a destination.
func setDest(op ipvs.Op, v *ipvs.Virtual) error {
	addr := op.Dest.Addr
	_, exists := v.Dests[addr]
	switch {
	case addr.Addr().Is4() != op.Key.Addr.Addr().Is4():
		return unix.EINVAL
	case op.Verb == ipvs.DeleteDest:
		delete(v.Dests, addr)
		delete(v.Counts, addr)
		return nil
	case op.Dest.Weight < 0:
		return unix.ERANGE
	case !exists && op.Verb == ipvs.SetDest:
		return unix.ENOENT
	case !exists && !unicast(addr.Addr()):
		return unix.EINVAL
	}
	v.Dests[addr] = op.Dest.Weight
	return nil
}

// unicast reports whether the kernel takes an address as that of a new destination.
func unicast(a netip.Addr) bool {
	linkLocal6 := a.Is6() && a.IsLinkLocalUnicast()
	return !a.IsUnspecified() && !a.IsMulticast() && !linkLocal6 && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
