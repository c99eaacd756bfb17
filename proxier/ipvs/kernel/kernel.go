// Package kernel speaks IPVS to Linux, over generic netlink, and holds addresses on a dummy device.
//
// github.com/cloudflare/ipvs and github.com/moby/ipvs wait for the answer to each request before they send the
// next, and read into new memory: see the benchmarks, which have cloudflare's beside ours. So steps are encoded here
// ([appendOp]), and many sent at once ([Kernel.Apply]); what is there is read as the kernel hands it over ([conn.servers],
// [conn.destinations]). The tests hold what we read against what cloudflare's reads.
//
// Nothing is executed: ip_vs and its schedulers are loaded by the kernel itself when it is asked for them.
// Start reading at [Kernel.Supports] and [Kernel.Apply].
package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// Options are the settings. The zero value is fine.
type Options struct {
	// StrictARP has the node answer ARP only for the addresses of the interface that is asked
	// (arp_ignore, arp_announce), so that not every node answers for the addresses of the device.
	StrictARP bool
	// TCPTimeout, TCPFinTimeout and UDPTimeout are how long idle connections are remembered, in whole
	// seconds; 0 leaves what the kernel has.
	TCPTimeout, TCPFinTimeout, UDPTimeout time.Duration
	// ExcludeCIDRs are addresses of virtual servers that are not ours: Load leaves them out.
	ExcludeCIDRs []netip.Prefix
}

// A Kernel is IPVS in the network namespace of the thread that calls its methods first. They may be called
// from several goroutines; they take turns.
type Kernel struct {
	options Options

	mu   sync.Mutex // protects all below
	conn *conn      // nil if there is none yet
	// route is where the addresses of the device are changed; nil if there is none yet.
	route *socket
	// known are the schedulers that the kernel has, "" for IPVS itself with our settings.
	known map[string]bool
	batch batch
}

// New returns a Kernel. It does nothing, neither connect nor load a module.
func New(o Options) *Kernel { return &Kernel{options: o, known: map[string]bool{}} }

// Close closes the connections. Virtual servers and addresses stay.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.disconnect()
	if k.route != nil {
		err = errors.Join(err, k.route.Close())
		k.route = nil
	}
	return err
}

// Available reports whether IPVS is in the kernel now, without having it loaded.
func Available() bool {
	_, err := os.Stat("/proc/thread-self/net/ip_vs")
	return err == nil
}

// A conn is a connection to IPVS.
type conn struct {
	steps  *socket
	family uint16
}

// connect connects to IPVS, which has the kernel load it.
func (k *Kernel) connect() (*conn, error) {
	if k.conn != nil {
		return k.conn, nil
	}
	steps, family, err := openGeneric()
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("the kernel has no ip_vs: %w", ipvs.ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to IPVS: %w", err)
	}
	k.conn = &conn{steps: steps, family: family}
	return k.conn, nil
}

// connectIfAvailable is connect, but for a kernel that has not loaded IPVS: then there is no connection.
func (k *Kernel) connectIfAvailable() (*conn, error) {
	if k.conn == nil && !Available() {
		return nil, nil
	}
	return k.connect()
}

// disconnect closes the connection to IPVS. It is the cure for all that may be wrong with it: IPVS that was
// taken out of the kernel and comes back is another netlink family, with its own settings.
func (k *Kernel) disconnect() error {
	clear(k.known)
	if k.conn == nil {
		return nil
	}
	err := k.conn.steps.Close()
	k.conn = nil
	return err
}

// Supports reports nil if the kernel has IPVS and a scheduler; with "", IPVS alone. The first time it applies
// the settings. What the kernel lacks is an [ipvs.ErrUnsupported], and asked for anew each time: a module may
// be installed later.
func (k *Kernel) Supports(scheduler string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known[scheduler] {
		return nil
	}
	c, err := k.connect()
	if err != nil {
		return err
	}
	if !k.known[""] {
		if err := k.configure(); err != nil {
			return err
		}
		k.known[""] = true
	}
	if scheduler == "" {
		return nil
	}
	switch err := k.probe(c, scheduler); {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("the kernel has no ip_vs_%s: %w", scheduler, ipvs.ErrUnsupported)
	case err != nil:
		return errors.Join(fmt.Errorf("ask the kernel for scheduler %s: %w", scheduler, err), k.disconnect())
	}
	k.known[scheduler] = true
	return nil
}

// probeAddr is where a virtual server is made to see whether the kernel has its scheduler: an address for
// documentation (RFC 5737), which no packet is sent to.
func probeAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 0}), 1)
}

// probe makes a virtual server with a scheduler and deletes it. One that is left from a program that was
// killed between the two goes first.
func (k *Kernel) probe(c *conn, scheduler string) error {
	if len(scheduler) > maxScheduler {
		return unix.ENOENT
	}
	op := ipvs.Op{Key: ipvs.Key{Protocol: model.TCP, Addr: probeAddr()}, Server: ipvs.Server{Scheduler: scheduler}}
	step := func(verb ipvs.Verb) error {
		k.batch.reset(c.steps.Seq + 1)
		k.batch.addOp(0, c.family, &op, verb)
		errs, err := c.steps.do(&k.batch)
		return errors.Join(err, errs[0])
	}
	err := step(ipvs.AddServer)
	if errors.Is(err, unix.EEXIST) {
		if err := step(ipvs.DeleteServer); err != nil {
			return err
		}
		err = step(ipvs.AddServer)
	}
	if err != nil {
		return err
	}
	return step(ipvs.DeleteServer)
}

// excluded reports whether an address is somebody else's.
func (k *Kernel) excluded(a netip.Addr) bool {
	return slices.ContainsFunc(k.options.ExcludeCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}
