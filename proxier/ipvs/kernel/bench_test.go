package kernel_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	cloudflare "github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// large returns virtual servers with 10 destinations each.
func large(servers int) ipvs.Table {
	t := ipvs.Table{}
	for i := range servers {
		v := &ipvs.Virtual{Server: ipvs.Server{Scheduler: "lc"}, Dests: map[netip.AddrPort]int{}}
		for j := range 10 {
			v.Dests[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)}), 8080)] = 1
		}
		t[ipvs.Key{Protocol: model.TCP, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)}] = v
	}
	return t
}

// cpu returns the time that this process was on a CPU, in the kernel included.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkApply adds 22,000 servers and destinations to an empty kernel, in one call and then one by one with
// the library.
func BenchmarkApply(b *testing.B) {
	ops, _ := ipvs.Diff(ipvs.State{}, ipvs.State{Servers: large(2000)})
	oneByOne := func(k inside) error {
		client, err := cloudflare.New()
		if err != nil {
			return err
		}
		for _, op := range ops {
			s := cloudflare.Service{
				Address: op.Key.Addr.Addr(), Port: op.Key.Addr.Port(), Protocol: cloudflare.TCP, Family: cloudflare.INET,
				Scheduler: op.Server.Scheduler, Netmask: netmask.MaskFrom(32, 32),
			}
			if op.Verb == ipvs.AddServer {
				err = client.CreateService(s)
			} else {
				err = client.CreateDestination(s, cloudflare.Destination{
					Address: op.Dest.Addr.Addr(), Port: op.Dest.Addr.Port(), Weight: uint32(op.Dest.Weight), Family: cloudflare.INET,
				})
			}
			if err != nil {
				return err
			}
		}
		return client.(interface{ Close() error }).Close()
	}
	inOneCall := func(k inside) error {
		if errs := k.Kernel.Apply(ops); len(errs) > 0 {
			return fmt.Errorf("%d steps failed, first: %w", len(errs), errs[0])
		}
		return nil
	}
	for _, bb := range []struct {
		name string
		f    func(inside) error
	}{{"in one call", inOneCall}, {"one by one", oneByOne}} {
		b.Run(bb.name, func(b *testing.B) {
			k := start(b, kernel.Options{})
			var spent time.Duration
			for b.Loop() {
				b.StopTimer()
				k.program(b, "ipvsadm", "--clear")
				runtime.GC()
				b.StartTimer()
				before := cpu(b)
				if err := k.ns.Do(func() error { return bb.f(k) }); err != nil {
					b.Fatal(err)
				}
				spent += cpu(b) - before
			}
			b.ReportMetric(spent.Seconds()/float64(b.N), "CPU-s/op")
			s, err := k.Load()
			if before, after := ipvs.Diff(s, ipvs.State{Servers: large(2000)}); err != nil || len(before)+len(after) > 0 {
				b.Errorf("%d steps are missing, %v", len(before)+len(after), err)
			}
		})
	}
}

// readWithLibrary reads the virtual servers of IPv4 that we could have made.
func readWithLibrary() (ipvs.Table, error) {
	client, err := cloudflare.New()
	if err != nil {
		return nil, err
	}
	services, err := client.Services()
	if err != nil {
		return nil, err
	}
	t := ipvs.Table{}
	for _, s := range services {
		v := &ipvs.Virtual{Server: ipvs.Server{Scheduler: s.Scheduler}, Dests: map[netip.AddrPort]int{}}
		dests, err := client.Destinations(s.Service)
		if err != nil {
			return nil, err
		}
		for _, d := range dests {
			v.Dests[netip.AddrPortFrom(d.Address, d.Port)] = int(d.Weight)
		}
		t[ipvs.Key{Protocol: model.Protocol(s.Protocol), Addr: netip.AddrPortFrom(s.Address, s.Port)}] = v
	}
	return t, client.(interface{ Close() error }).Close()
}

// BenchmarkLoad reads 2,000 virtual servers with 10 destinations each, and does so with the library.
func BenchmarkLoad(b *testing.B) {
	k := start(b, kernel.Options{})
	ops, _ := ipvs.Diff(ipvs.State{}, ipvs.State{Servers: large(2000)})
	k.Apply(ops)
	for _, bb := range []struct {
		name string
		f    func() (ipvs.Table, error)
	}{
		{"ours", func() (ipvs.Table, error) { s, err := k.Kernel.Load(); return s.Servers, err }},
		{"library", readWithLibrary},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				var t ipvs.Table
				var err error
				k.do(func() { t, err = bb.f() })
				if err != nil || len(t) != 2000 {
					b.Fatalf("%d servers, %v", len(t), err)
				}
			}
			b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N), "CPU-s/op")
		})
	}
}
