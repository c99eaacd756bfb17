package node

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/nftproxy/nftproxy/watch"
)

func TestProcess(t *testing.T) {
	a := netip.MustParseAddr
	links := []link{{1, "lo", "device"}, {2, "eth0", "veth"}, {3, "veth12", "veth"}, {4, "x", "vxlan"}}
	got := process(links, []address{
		{link: 3, addr: a("10.1.0.1")},
		{link: 1, addr: a("127.0.0.1")},
		{link: 2, addr: a("192.0.2.2")},
		{link: 2, addr: a("192.0.2.1")},
		{link: 2, addr: a("2001:db8::1"), unusable: true},
		{link: 4, addr: a("10.2.0.0")},
		{link: 2},
	})
	want := []watch.Address{
		{Addr: a("127.0.0.1"), Index: 1, Link: "lo"},
		{Addr: a("192.0.2.2"), Index: 2, Link: "eth0"},
		{Addr: a("192.0.2.1"), Index: 2, Link: "eth0"},
		{Addr: a("10.1.0.1"), Index: 3, Link: "veth12", Virtual: true},
		{Addr: a("10.2.0.0"), Index: 4, Link: "x", Virtual: true},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("process (-want +got):\n%s", diff)
	}
}

// namespace returns a new network namespace and a socket in it.
func namespace(t *testing.T) (netns.NsHandle, *netlink.Handle) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" || os.Getenv("NFTPROXY_TEST") == "all" {
			t.Fatal("needs root to make a network namespace")
		}
		t.Skip("needs root to make a network namespace")
	}
	type result struct {
		ns  netns.NsHandle
		err error
	}
	made := make(chan result)
	go func() {
		// The thread stays in the new namespace: without an unlock it ends with the goroutine.
		runtime.LockOSThread()
		ns, err := netns.New()
		made <- result{ns, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	h, err := netlink.NewHandleAt(r.ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); _ = r.ns.Close() })
	return r.ns, h
}

func TestRun(t *testing.T) {
	ns, handle := namespace(t)
	ctx, cancel := context.WithCancel(context.Background())
	parts, done := make(chan watch.Part, 1000), make(chan error, 1)
	go func() { done <- NewIn(ns, nil).Run(ctx, func(p watch.Part) { parts <- p }) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v; want nil", err)
		}
	}()
	until := func(want ...string) {
		t.Helper()
		var got []string
		for limit := time.After(10 * time.Second); ; {
			select {
			case p := <-parts:
				got = nil
				for _, a := range p.Addresses {
					got = append(got, a.Link+" "+a.Addr.String())
				}
				slices.Sort(got)
				if slices.Equal(got, want) {
					return
				}
			case <-limit:
				t.Fatalf("addresses = %q; want %q", got, want)
			}
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	until()
	check(handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}))
	eth0, err := handle.LinkByName("eth0")
	check(err)
	addr := func(s string) *netlink.Addr {
		ip, network, err := net.ParseCIDR(s)
		check(err)
		network.IP = ip
		return &netlink.Addr{IPNet: network}
	}
	check(handle.AddrAdd(eth0, addr("192.0.2.1/32")))
	until("eth0 192.0.2.1")
	check(handle.AddrAdd(eth0, addr("192.0.2.2/32")))
	until("eth0 192.0.2.1", "eth0 192.0.2.2")
	check(handle.AddrDel(eth0, addr("192.0.2.1/32")))
	until("eth0 192.0.2.2")
	check(handle.LinkSetName(eth0, "eth1"))
	until("eth1 192.0.2.2")
	check(handle.LinkDel(eth0))
	until()
}
