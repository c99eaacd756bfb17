package see

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/ipvs"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/e2e/bench/apiserver"
	"github.com/nftproxy/nftproxy/e2e/netns"
)

// ipvsPause is the time between two looks at a virtual server. IPVS notifies nobody.
const ipvsPause = time.Millisecond

// IPVS looks at the virtual servers of a namespace.
type IPVS struct {
	ns *netns.NetNS
	// full is how many destinations a virtual server has at least when it is complete.
	full int

	mu     sync.Mutex
	client ipvs.Client // nil until IPVS is there
}

// OpenIPVS returns the IPVS of a namespace, whose kernel need not have it yet. A virtual server counts when
// it has a number of destinations.
func OpenIPVS(ns *netns.NetNS, full int) *IPVS { return &IPVS{ns: ns, full: full} }

// Close closes it.
func (v *IPVS) Close() error { return nil }

// connect connects to IPVS and reports whether it is there.
func (v *IPVS) connect() (bool, error) {
	if v.client != nil {
		return true, nil
	}
	err := v.ns.Do(func() (err error) {
		v.client, err = ipvs.New()
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("connect to IPVS: %w", err)
	}
	return true, nil
}

// Clear removes all virtual servers. While two namespaces have some, Linux 6.1 lists only part of them in
// /proc/net/ip_vs: where it goes on after a page it counts those of one, and those of all until then.
func (v *IPVS) Clear() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if ok, err := v.connect(); !ok {
		return err
	}
	all, err := v.client.Services()
	if err != nil {
		return fmt.Errorf("list the virtual servers: %w", err)
	}
	for i := range all {
		if err := v.client.RemoveService(all[i].Service); err != nil {
			return fmt.Errorf("remove virtual server %s: %w", all[i].Address, err)
		}
	}
	return nil
}

// destinations returns the destinations of a virtual server that take connections; none if there is none.
func (v *IPVS) destinations(a netip.AddrPort) (list []netip.Addr, exists bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if ok, err := v.connect(); !ok {
		return nil, false, err
	}
	all, err := v.client.Destinations(ipvs.Service{Address: a.Addr(), Port: a.Port(), Protocol: ipvs.TCP, Family: ipvs.INET})
	if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("ask for virtual server %s: %w", a, err)
	}
	for i := range all {
		if all[i].Weight > 0 {
			list = append(list, all[i].Address)
		}
	}
	return list, true, nil
}

// Has reports whether there is a complete virtual server.
func (v *IPVS) Has(a netip.AddrPort) (bool, error) {
	list, _, err := v.destinations(a)
	return len(list) >= v.full, err
}

// Count returns how many complete virtual servers there are. It reads all.
func (v *IPVS) Count() (n int, err error) {
	var b []byte
	err = v.ns.Do(func() (err error) {
		b, err = os.ReadFile("/proc/thread-self/net/ip_vs")
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return complete(b, v.full), err
}

// complete returns how many virtual servers of a listing, as /proc/net/ip_vs has it, have a number of
// destinations.
func complete(b []byte, full int) (n int) {
	have := -1 // destinations of the virtual server above; -1 if there is none
	count := func() {
		if have >= full {
			n++
		}
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		switch line := s.Text(); {
		case strings.HasPrefix(line, "TCP "):
			count()
			have = 0
		case have >= 0 && strings.HasPrefix(line, "  ->"):
			have++
		}
	}
	count()
	return n
}

// Expect and Forget do nothing: Wait looks at all that is there.
func (v *IPVS) Expect(...Target) {}

// Forget does nothing.
func (v *IPVS) Forget() {}

// Transactions returns 0: IPVS has none.
func (v *IPVS) Transactions() int64 { return 0 }

// Wait waits until targets are there, an endpoint among the destinations or a virtual server gone, one after
// another, and returns when, by the clock of [apiserver.Now].
func (v *IPVS) Wait(ctx context.Context, targets ...Target) ([]int64, error) {
	at := make([]int64, len(targets))
	for i, t := range targets {
		for {
			ok, err := v.reached(t)
			if err != nil {
				return nil, err
			}
			if ok {
				at[i] = apiserver.Now()
				break
			}
			select {
			case <-time.After(ipvsPause):
			case <-ctx.Done():
				return nil, fmt.Errorf("nothing of %s in IPVS: %w", t.address(), ctx.Err())
			}
		}
	}
	return at, nil
}

// reached reports whether a target is there.
func (v *IPVS) reached(t Target) (bool, error) {
	list, exists, err := v.destinations(netip.AddrPortFrom(t.Service, apiserver.Port))
	if err != nil || !t.Endpoint.IsValid() {
		return err == nil && !exists, err
	}
	for _, a := range list {
		if a == t.Endpoint {
			return true, nil
		}
	}
	return false, nil
}
