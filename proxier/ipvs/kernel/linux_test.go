package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	cloudflare "github.com/cloudflare/ipvs"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/e2e/vm"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/ipvs/fake/suite"
	"github.com/nftproxy/nftproxy/proxier/ipvs/kernel"
	"github.com/nftproxy/nftproxy/proxier/model"
)

var _ proxier.IPVS = (*kernel.Kernel)(nil)

// inside is a Kernel in a network namespace.
type inside struct {
	*kernel.Kernel
	ns *netns.NetNS
}

// do calls f in the namespace; f returns what it has to say through its variables.
func (k inside) do(f func()) {
	if err := k.ns.Do(func() error { f(); return nil }); err != nil {
		panic(err)
	}
}

func (k inside) Supports(scheduler string) (err error) {
	k.do(func() { err = k.Kernel.Supports(scheduler) })
	return err
}

func (k inside) Load() (s ipvs.State, err error) {
	k.do(func() { s, err = k.Kernel.Load() })
	return s, err
}

func (k inside) Apply(ops []ipvs.Op) (errs []ipvs.OpError) {
	k.do(func() { errs = k.Kernel.Apply(ops) })
	return errs
}

func (k inside) Counts(key ipvs.Key) (c map[netip.AddrPort]ipvs.Counts, err error) {
	k.do(func() { c, err = k.Kernel.Counts(key) })
	return c, err
}

// start returns a Kernel in a network namespace of its own. The test is skipped where there is no IPVS.
func start(t testing.TB, o kernel.Options) inside {
	t.Helper()
	k := inside{kernel.New(o), netns.ForTest(t)}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	// Without an address of its own a host has none to send to, either: IPVS refuses destinations of IPv4.
	k.do(func() {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Error(err)
		}
	})
	switch err := k.Supports(""); {
	case errors.Is(err, ipvs.ErrUnsupported) && !vm.Inside():
		t.Skip("this kernel has no ip_vs: make test-vm runs this in a virtual machine")
	case err != nil:
		t.Fatal(err)
	}
	return k
}

// TestLinux runs the suite on Linux.
func TestLinux(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.Kernel { return start(t, kernel.Options{}) })
}

// TestNoIPVS asks a kernel without IPVS.
func TestNoIPVS(t *testing.T) {
	k := inside{kernel.New(kernel.Options{}), netns.ForTest(t)}
	defer k.Close()
	if err := k.Supports(""); err == nil {
		t.Skip("this kernel has ip_vs; the test is for one without")
	} else if !errors.Is(err, ipvs.ErrUnsupported) || !strings.Contains(err.Error(), "no ip_vs") {
		t.Errorf("Supports = %v; want no ip_vs, which is not supported", err)
	}
	if s, err := k.Load(); err != nil || s.String() != "" {
		t.Errorf("Load = %s, %v; want nothing", s, err)
	}
	op := ipvs.Op{Verb: ipvs.DeleteServer, Key: suite.Key(model.TCP, "10.96.0.1:80")}
	if errs := k.Apply([]ipvs.Op{op}); len(errs) != 1 || !errors.Is(errs[0], ipvs.ErrUnsupported) {
		t.Errorf("Apply = %v; want not supported", errs)
	}
	if kernel.Available() {
		t.Error("Available() = true; want false")
	}
}

// sysctl reads a sysctl of the namespace.
func (k inside) sysctl(t *testing.T, name string) (value string) {
	t.Helper()
	k.do(func() {
		b, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			t.Error(err)
		}
		value = strings.TrimSpace(string(b))
	})
	return value
}

func TestSettings(t *testing.T) {
	k := start(t, kernel.Options{StrictARP: true, TCPTimeout: time.Hour, UDPTimeout: 1500 * time.Millisecond})
	for name, want := range map[string]string{
		"ipv4/vs/conntrack": "1", "ipv4/vs/expire_nodest_conn": "1", "ipv4/vs/expire_quiescent_template": "1",
		"ipv4/conf/all/arp_ignore": "1", "ipv4/conf/all/arp_announce": "2",
	} {
		if got := k.sysctl(t, name); got != want {
			t.Errorf("sysctl %s = %s; want %s", name, got, want)
		}
	}
	k.do(func() {
		client, err := cloudflare.New()
		if err != nil {
			t.Error(err)
			return
		}
		got, err := client.Config()
		if want := (cloudflare.Config{TCPTimeout: 3600, TCPFinTimeout: 120, UDPTimeout: 1}); got != want || err != nil {
			t.Errorf("timeouts = %+v, %v; want %+v", got, err, want)
		}
		if !kernel.Available() {
			t.Error("Available() = false; want true")
		}
	})
}

// program runs a program in the namespace and returns what it prints.
func (k inside) program(t testing.TB, args ...string) string {
	t.Helper()
	out, err := k.ns.Output(exec.Command(args[0], args[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestOthers reads what others made: what is not ours is left alone, what is made otherwise is made anew.
func TestOthers(t *testing.T) {
	k := start(t, kernel.Options{ExcludeCIDRs: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/16")}})
	for _, args := range []string{
		"-A -f 7 -s rr",
		"-A -t 10.200.0.1:80 -s rr",
		"-A -t 203.0.113.0:1 -s rr", // of a program that was killed when it tried a scheduler
		"-A -t 10.96.0.1:80 -s sh",
		"-a -t 10.96.0.1:80 -r 10.1.0.1:80 -g -w 1",
		"-a -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 3",
		"-A -t 10.96.0.2:80 -s rr -p 60 -M 255.255.255.0",
		"-A -u [fd00:96::1]:53 -s mh -b mh-fallback -p 60",
	} {
		k.program(t, append([]string{"ipvsadm"}, strings.Fields(args)...)...)
	}
	got, err := k.Load()
	if err != nil {
		t.Fatal(err)
	}
	want := `TCP 10.96.0.1:80 scheduler sh foreign
  -> 10.1.0.1:80 foreign
  -> 10.1.0.2:8080 weight 3
TCP 10.96.0.2:80 scheduler rr persistent 60 foreign
UDP [fd00:96::1]:53 scheduler mh persistent 60
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	wanted := got.Clone()
	for _, v := range wanted.Servers {
		v.Server.Foreign = false
	}
	wanted.Servers[suite.Key(model.TCP, "10.96.0.1:80")].Dests[netip.MustParseAddrPort("10.1.0.1:80")] = 1
	before, after := ipvs.Diff(got, wanted)
	if errs := k.Apply(slices.Concat(before, after)); len(errs) > 0 {
		t.Errorf("Apply = %v; want nil", errs)
	}
	if got, err := k.Load(); err != nil || got.String() != wanted.String() {
		t.Errorf("Load, %v (-want +got):\n%s", err, cmp.Diff(wanted.String(), got.String()))
	}
	if err := k.Supports("wlc"); err != nil {
		t.Error(err)
	}
	list := k.program(t, "ipvsadm", "-Sn")
	for _, line := range []string{
		"-A -f 7 -s rr", "-A -t 10.200.0.1:80 -s rr", "-A -t 10.96.0.1:80 -s sh -b sh-fallback",
		"-a -t 10.96.0.1:80 -r 10.1.0.1:80 -m -w 1", "-A -t 10.96.0.2:80 -s rr -p 60", "-A -u [fd00:96::1]:53 -s mh -p 60 -b mh-fallback",
	} {
		if !strings.Contains(list, line+"\n") {
			t.Errorf("ipvsadm lacks %q:\n%s", line, list)
		}
	}
	if strings.Contains(list, "203.0.113.0") {
		t.Errorf("the server that tries a scheduler is left:\n%s", list)
	}
}

// TestLibrary checks that we read what cloudflare's library reads.
func TestLibrary(t *testing.T) {
	k := start(t, kernel.Options{})
	ops, _ := ipvs.Diff(ipvs.State{}, ipvs.State{Servers: large(300)})
	if errs := k.Apply(ops); len(errs) > 0 {
		t.Fatal(errs[0])
	}
	got, err := k.Load()
	if err != nil {
		t.Fatal(err)
	}
	var want ipvs.Table
	k.do(func() { want, err = readWithLibrary() })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ipvs.State{Servers: want}.String(), ipvs.State{Servers: got.Servers}.String()); diff != "" {
		t.Errorf("Load (-library +ours):\n%s", diff)
	}
}

// TestAddresses looks at the device and at how its addresses are there.
func TestAddresses(t *testing.T) {
	k := start(t, kernel.Options{})
	k.program(t, "ip", "link", "add", "uplink", "type", "dummy")
	k.program(t, "ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
	k.program(t, "ip", "address", "add", "2001:db8::1/64", "dev", "uplink", "nodad")
	k.program(t, "ip", "link", "set", "uplink", "up")
	k.program(t, "ip", "route", "add", "default", "dev", "uplink")
	k.program(t, "ip", "-6", "route", "add", "default", "dev", "uplink")
	var ops []ipvs.Op
	for i := range 300 {
		ops = append(ops, ipvs.Op{Verb: ipvs.AddAddress, Address: netip.MustParseAddr(fmt.Sprintf("10.96.%d.%d", i>>8, i&255))},
			ipvs.Op{Verb: ipvs.AddAddress, Address: netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 0x100+i))})
	}
	if errs := k.Apply(ops); len(errs) > 0 {
		t.Fatalf("Apply = %v; want nil", errs)
	}
	s, err := k.Load()
	if err != nil || len(s.Addresses) != len(ops) {
		t.Errorf("Load: %d addresses, %v; want %d", len(s.Addresses), err, len(ops))
	}
	k.do(func() {
		link, err := netlink.LinkByName(ipvs.Device)
		if err != nil {
			t.Error(err)
			return
		}
		if text := k.program(t, "ip", "link", "show", "dev", ipvs.Device); !strings.Contains(text, "NOARP,UP") || link.Type() != "dummy" {
			t.Errorf("the device is %s %s", link.Type(), text)
		}
		for _, tt := range []struct{ to, source string }{
			{"198.51.100.1", "192.0.2.1"}, {"10.96.9.9", "192.0.2.1"}, {"2001:db9::1", "2001:db8::1"}, {"2001:db8::9999", "2001:db8::1"},
		} {
			routes, err := netlink.RouteGet(netip.MustParseAddr(tt.to).AsSlice())
			if err != nil || len(routes) != 1 || routes[0].Src.String() != tt.source {
				t.Errorf("route to %s = %v, %v; want source %s", tt.to, routes, err, tt.source)
			}
		}
	})
	if routes := k.program(t, "ip", "route", "show", "dev", ipvs.Device); routes != "" {
		t.Errorf("routes to the device: %s", routes)
	}
}

// TestCleanup removes what is ours, and nothing else.
func TestCleanup(t *testing.T) {
	k := start(t, kernel.Options{ExcludeCIDRs: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/16")}})
	cleanup := func(want kernel.Removed) {
		t.Helper()
		k.do(func() {
			if got, err := k.Cleanup(); got != want || err != nil {
				t.Errorf("Cleanup = %s, %v; want %s", got, err, want)
			}
		})
	}
	cleanup(kernel.Removed{})
	s := suite.Example()
	before, _ := ipvs.Diff(ipvs.State{}, s)
	if errs := k.Apply(before); len(errs) > 0 {
		t.Fatalf("Apply = %v; want nil", errs)
	}
	k.program(t, "ipvsadm", "-A", "-t", "10.200.0.1:80", "-s", "rr")
	k.program(t, "ip", "address", "add", "10.200.0.1/32", "dev", ipvs.Device)
	cleanup(kernel.Removed{Servers: len(s.Servers) - 1, Addresses: len(s.Addresses)})
	want := []string{"-A -t 10.200.0.1:80 -s rr", "-A -t 192.0.2.1:30080 -s rr"}
	got := strings.Split(strings.TrimSpace(k.program(t, "ipvsadm", "-Sn")), "\n")
	slices.Sort(got) // the kernel's order is that of a hash
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("there is left (-want +got):\n%s", diff)
	}
	k.program(t, "ip", "address", "del", "10.200.0.1/32", "dev", ipvs.Device)
	cleanup(kernel.Removed{Device: true})
	cleanup(kernel.Removed{})
}
