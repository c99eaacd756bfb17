package kernel_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/ipvs/fake/suite"
	"github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
	"github.com/nftproxy/nftproxy/proxier/leftovers"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// listen accepts connections at an address of the namespace for as long as the test lives, and keeps them open.
func (k inside) listen(t *testing.T, addr string) {
	t.Helper()
	var l net.Listener
	var err error
	k.do(func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

// connect connects from the namespace, and returns the connection.
func (k inside) connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	k.do(func() { c, err = net.DialTimeout("tcp", addr, 20*time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestTraffic sends connections through each of two schedulers and counts them: a destination of weight 0 keeps
// what it has and gets nothing new, of those that hash as well.
func TestTraffic(t *testing.T) {
	first, second := netip.MustParseAddrPort("192.0.2.1:8080"), netip.MustParseAddrPort("192.0.2.2:8080")
	for _, scheduler := range []string{"rr", "sh"} {
		t.Run(scheduler, func(t *testing.T) {
			k, key := start(t, kernel.Options{}), suite.Key(model.TCP, "10.96.0.1:80")
			for _, a := range []netip.AddrPort{first, second} {
				k.program(t, "ip", "address", "add", a.Addr().String()+"/32", "dev", "lo")
				k.listen(t, a.String())
			}
			want := ipvs.State{
				Servers:   ipvs.Table{key: {Server: ipvs.Server{Scheduler: scheduler}, Dests: map[netip.AddrPort]int{first: 1, second: 1}}},
				Addresses: map[netip.Addr]bool{key.Addr.Addr(): true},
			}
			before, _ := ipvs.Diff(ipvs.State{}, want)
			if errs := k.Apply(before); len(errs) > 0 {
				t.Fatalf("Apply = %v; want nil", errs)
			}
			for range 4 {
				k.connect(t, key.Addr.String())
			}
			counts := func() map[netip.AddrPort]uint32 {
				t.Helper()
				c, err := k.Counts(key)
				if err != nil {
					t.Fatalf("Counts = %v", err)
				}
				r := map[netip.AddrPort]uint32{}
				for addr, n := range c {
					r[addr] = n.Active
				}
				return r
			}
			had := counts()
			busy, total := first, uint32(0)
			for addr, n := range had {
				total += n
				if n > had[busy] {
					busy = addr
				}
			}
			if total != 4 || scheduler == "rr" && had[first] != 2 || scheduler == "sh" && had[busy] != 4 {
				t.Errorf("Counts = %v after 4 connections by %s", had, scheduler)
			}
			if errs := k.Apply([]ipvs.Op{{Verb: ipvs.SetDest, Key: key, Dest: ipvs.Dest{Addr: busy}}}); len(errs) > 0 {
				t.Fatalf("Apply = %v; want nil", errs)
			}
			for range 3 {
				k.connect(t, key.Addr.String())
			}
			now := counts()
			idle := first
			if busy == first {
				idle = second
			}
			if now[busy] != had[busy] || now[idle] != had[idle]+3 {
				t.Errorf("Counts = %v, before %s had weight 0 %v; want 3 more at the other", now, busy, had)
			}
		})
	}
}

// TestLeftovers removes what kube-proxy left for node ports, where there is its device.
func TestLeftovers(t *testing.T) {
	k := start(t, kernel.Options{})
	k.program(t, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
	nodePort, other := suite.Key(model.TCP, "192.0.2.1:30080"), suite.Key(model.TCP, "10.96.0.1:80")
	for _, key := range []ipvs.Key{nodePort, other} {
		if errs := k.Apply([]ipvs.Op{{Key: key, Server: ipvs.Server{Scheduler: "rr"}}}); len(errs) > 0 {
			t.Fatalf("Apply = %v; want nil", errs)
		}
	}
	remove := func() (removed []string) {
		k.do(func() {
			var err error
			if removed, err = leftovers.RemoveServers(k.Kernel); err != nil {
				t.Errorf("RemoveServers = %v; want nil", err)
			}
		})
		return removed
	}
	if got := remove(); len(got) > 0 {
		t.Errorf("RemoveServers without the device = %q; want nothing", got)
	}
	if errs := k.Apply([]ipvs.Op{{Verb: ipvs.AddAddress, Address: other.Addr.Addr()}}); len(errs) > 0 {
		t.Fatalf("Apply = %v; want nil", errs)
	}
	if got, want := remove(), []string{"virtual server " + nodePort.String()}; !slices.Equal(got, want) {
		t.Errorf("RemoveServers = %q; want %q", got, want)
	}
	want := "TCP 10.96.0.1:80 scheduler rr\naddress 10.96.0.1 on kube-ipvs0\n"
	if s, err := k.Load(); err != nil || s.String() != want {
		t.Errorf("Load, %v (-want +got):\n%s", err, cmp.Diff(want, s.String()))
	}
}
