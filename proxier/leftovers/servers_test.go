package leftovers

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/ipvs/fake"
	"github.com/nftproxy/nftproxy/proxier/ipvs/fake/suite"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// proxyServers returns what kube-proxy's mode ipvs and others made, and the addresses of the node.
func proxyServers() (ipvs.State, []netip.Addr) {
	dests := func(weight int) map[netip.AddrPort]int {
		return map[netip.AddrPort]int{netip.MustParseAddrPort("10.1.0.1:8080"): weight}
	}
	s := ipvs.State{
		Servers: ipvs.Table{
			suite.Key(model.TCP, "10.96.0.1:80"):        {Dests: dests(1)},
			suite.Key(model.TCP, "192.0.2.1:30080"):     {Dests: dests(1)},
			suite.Key(model.UDP, "192.0.2.1:30053"):     {Dests: dests(0)},
			suite.Key(model.TCP, "192.0.2.1:30081"):     {},                  // without endpoints
			suite.Key(model.TCP, "192.0.2.1:443"):       {Dests: dests(100)}, // somebody else's, by weight
			suite.Key(model.TCP, "198.51.100.1:30080"):  {Dests: dests(1)},   // not of this node
			suite.Key(model.TCP, "[2001:db8::1]:30080"): {Dests: map[netip.AddrPort]int{netip.MustParseAddrPort("[fd00::1]:80"): 1}},
		},
		Addresses: map[netip.Addr]bool{netip.MustParseAddr("10.96.0.1"): true},
	}
	for _, v := range s.Servers {
		v.Server.Scheduler = "rr"
	}
	node := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.96.0.1")}
	return s, node
}

func TestRemoveServers(t *testing.T) {
	s, node := proxyServers()
	k := &fake.Kernel{}
	before, _ := ipvs.Diff(ipvs.State{}, s)
	if errs := k.Apply(before); len(errs) > 0 {
		t.Fatal(errs)
	}
	want := []string{
		"virtual server UDP 192.0.2.1:30053", "virtual server TCP 192.0.2.1:30080",
		"virtual server TCP 192.0.2.1:30081", "virtual server TCP [2001:db8::1]:30080",
	}
	got, err := removeServers(k, node)
	if err != nil || !slices.Equal(want, got) {
		t.Errorf("removeServers, %v (-want +got):\n%s", err, cmp.Diff(want, got))
	}
	have, _ := k.Load()
	if len(have.Servers) != 3 || len(have.Addresses) != 1 {
		t.Errorf("there is left:\n%s", have)
	}
	if got, err := removeServers(k, node); len(got) > 0 || err != nil {
		t.Errorf("second removeServers = %q, %v; want nothing", got, err)
	}
}

func TestRemoveServersFails(t *testing.T) {
	s, node := proxyServers()
	k := &fake.Kernel{}
	before, _ := ipvs.Diff(ipvs.State{}, s)
	k.Apply(before)
	k.Fail = func(op ipvs.Op) error {
		if op.Key.Protocol == model.UDP {
			return unix.ENOBUFS
		}
		return nil
	}
	if got, err := removeServers(k, node); len(got) != 3 || !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("removeServers = %q, %v; want 3 and ENOBUFS", got, err)
	}
	k.Unreadable = unix.EPERM
	if _, err := removeServers(k, node); !errors.Is(err, unix.EPERM) {
		t.Errorf("removeServers = %v; want EPERM", err)
	}
}
