package fake_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/ipvs/fake"
	"github.com/nftproxy/nftproxy/proxier/ipvs/fake/suite"
	"github.com/nftproxy/nftproxy/proxier/model"
)

var _ proxier.IPVS = (*fake.Kernel)(nil)

// TestKernel runs what Linux must pass as well.
func TestKernel(t *testing.T) {
	suite.Run(t, func(*testing.T) suite.Kernel { return new(fake.Kernel) })
}

// TestKernelWithout takes away what the kernel has, and gives it back.
func TestKernelWithout(t *testing.T) {
	k := &fake.Kernel{Without: []string{"lc", "mh"}}
	add := ipvs.Op{Key: suite.Key(model.TCP, "10.96.0.1:80"), Server: ipvs.Server{Scheduler: "mh"}}
	check := func(scheduler string, want error) {
		t.Helper()
		if err := k.Supports(scheduler); !errors.Is(err, want) {
			t.Errorf("Supports(%q) = %v; want %v", scheduler, err, want)
		}
	}
	check("mh", ipvs.ErrUnsupported)
	check("rr", nil)
	check("", nil)
	if got := k.Apply([]ipvs.Op{add}); len(got) != 1 || !errors.Is(got[0], unix.ENOENT) {
		t.Errorf("Apply without the scheduler = %v; want ENOENT", got)
	}
	k.SetWithout("")
	check("rr", ipvs.ErrUnsupported)
	check("", ipvs.ErrUnsupported)
	if got := k.Apply([]ipvs.Op{add}); len(got) != 1 || !errors.Is(got[0], ipvs.ErrUnsupported) {
		t.Errorf("Apply without IPVS = %v; want ErrUnsupported", got)
	}
	k.SetWithout()
	check("mh", nil)
	if got := k.Apply([]ipvs.Op{add}); len(got) != 0 {
		t.Errorf("Apply = %v; want nil", got)
	}
	if got, want := k.Stats(), (fake.Stats{Ops: 1, Failures: 2}); got != want {
		t.Errorf("Stats = %+v; want %+v", got, want)
	}
}

// TestKernelCounts gives a destination connections.
func TestKernelCounts(t *testing.T) {
	k, s := new(fake.Kernel), suite.Example()
	before, _ := ipvs.Diff(ipvs.State{}, s)
	k.Apply(before)
	key, dest := suite.Key(model.TCP, "10.96.0.2:80"), netip.MustParseAddrPort("10.1.0.1:8080")
	k.SetCounts(key, dest, ipvs.Counts{Active: 2, Inactive: 1})
	want := map[netip.AddrPort]ipvs.Counts{dest: {Active: 2, Inactive: 1}}
	if got, err := k.Counts(key); err != nil || !cmp.Equal(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
		t.Errorf("Counts = %v, %v; want %v", got, err, want)
	}
	if got, _ := k.Load(); got.Servers[key].Counts[dest] != want[dest] {
		t.Errorf("Load has counts %v; want %v", got.Servers[key].Counts, want)
	}
	k.SetCounts(key, dest, ipvs.Counts{})
	if got, _ := k.Counts(key); len(got) > 0 {
		t.Errorf("Counts = %v; want none", got)
	}
}

// TestKernelFails lets steps fail.
func TestKernelFails(t *testing.T) {
	k := &fake.Kernel{Fail: func(op ipvs.Op) error {
		if op.Verb == ipvs.AddAddress {
			return unix.ENOBUFS
		}
		return nil
	}}
	want := suite.Example()
	before, _ := ipvs.Diff(ipvs.State{}, want)
	if got := k.Apply(before); len(got) != len(want.Addresses) {
		t.Errorf("Apply = %v; want %d failures", got, len(want.Addresses))
	}
	want.Addresses = nil
	if got, _ := k.Load(); got.String() != want.String() {
		t.Errorf("Load (-want +got):\n%s", cmp.Diff(want.String(), got.String()))
	}
	k.Clear()
	if got, _ := k.Load(); got.String() != "" {
		t.Errorf("Load after Clear = %s; want nothing", got)
	}
	k = &fake.Kernel{Unreadable: unix.EPERM}
	if _, err := k.Load(); !errors.Is(err, unix.EPERM) {
		t.Errorf("Load = %v; want EPERM", err)
	}
}
