package ipvs

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// lines returns steps as text.
func lines(ops []Op) []string {
	var r []string
	for _, o := range ops {
		r = append(r, o.String())
	}
	return r
}

// key returns a key of TCP.
func key(addr string) Key { return Key{Protocol: model.TCP, Addr: netip.MustParseAddrPort(addr)} }

// dests returns destinations of equal weight.
func dests(weight int, addrs ...string) map[netip.AddrPort]int {
	r := map[netip.AddrPort]int{}
	for _, a := range addrs {
		r[netip.MustParseAddrPort(a)] = weight
	}
	return r
}

// addresses returns a set of addresses.
func addresses(addrs ...string) map[netip.Addr]bool {
	r := map[netip.Addr]bool{}
	for _, a := range addrs {
		r[netip.MustParseAddr(a)] = true
	}
	return r
}

func TestDiff(t *testing.T) {
	web := key("10.96.0.1:80")
	have := State{Servers: Table{
		web:                  {Server: Server{Scheduler: "rr"}, Dests: dests(1, "10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080")},
		key("10.96.0.2:80"):  {Server: Server{Scheduler: "rr"}, Dests: dests(1, "10.1.0.1:8080")},
		key("10.96.0.4:443"): {Server: Server{Scheduler: "sh", Foreign: true}, Dests: dests(ForeignWeight, "10.1.0.1:8080")},
	}, Addresses: addresses("10.96.0.1", "10.96.0.2", "10.96.0.4")}
	want := have.Clone()
	want.Servers[web].Server = Server{Scheduler: "lc", Persistence: 3 * time.Hour}
	want.Servers[web].Dests = dests(1, "10.1.0.2:8080", "10.1.0.4:8080")
	want.Servers[web].Dests[netip.MustParseAddrPort("10.1.0.3:8080")] = 0
	want.Servers[key("10.96.0.4:443")] = &Virtual{Server: Server{Scheduler: "sh"}, Dests: dests(1, "10.1.0.1:8080")}
	want.Servers[Key{model.UDP, netip.MustParseAddrPort("[fd00::1]:53")}] = &Virtual{Server: Server{Scheduler: "sed"}, Dests: dests(2, "[fd01::1]:53")}
	delete(want.Servers, key("10.96.0.2:80"))
	want.Addresses = addresses("10.96.0.1", "10.96.0.4", "fd00::1")

	before, after := Diff(have, want)
	if diff := cmp.Diff([]string{
		"edit TCP 10.96.0.1:80 scheduler lc persistent 10800",
		"add TCP 10.96.0.1:80 -> 10.1.0.4:8080 weight 1",
		"edit TCP 10.96.0.1:80 -> 10.1.0.3:8080 weight 0",
		"delete TCP 10.96.0.1:80 -> 10.1.0.1:8080",
		"edit TCP 10.96.0.4:443 scheduler sh",
		"edit TCP 10.96.0.4:443 -> 10.1.0.1:8080 weight 1",
		"add UDP [fd00::1]:53 scheduler sed",
		"add UDP [fd00::1]:53 -> [fd01::1]:53 weight 2",
		"add address fd00::1 to kube-ipvs0",
	}, lines(before)); diff != "" {
		t.Errorf("Diff, before (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"delete address 10.96.0.2 from kube-ipvs0", "delete TCP 10.96.0.2:80"}, lines(after)); diff != "" {
		t.Errorf("Diff, after (-want +got):\n%s", diff)
	}
	if before, after = Diff(want, want.Clone()); len(before)+len(after) > 0 {
		t.Errorf("Diff(want, want) = %q, %q; want nothing", before, after)
	}
}

// states draws states out of few parts, so that two have some in common.
func states() *rapid.Generator[State] {
	return rapid.Custom(func(t *rapid.T) State {
		s := State{Servers: Table{}, Addresses: map[netip.Addr]bool{}}
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 96, 0, rapid.Byte().Draw(t, "addr") % 4})
		})
		for range rapid.IntRange(0, 4).Draw(t, "servers") {
			k := Key{rapid.SampledFrom([]model.Protocol{model.TCP, model.UDP}).Draw(t, "protocol"), netip.AddrPortFrom(addr.Draw(t, "server"), 80)}
			v := &Virtual{Server: Server{Scheduler: rapid.SampledFrom(Schedulers()).Draw(t, "scheduler")}, Dests: map[netip.AddrPort]int{}}
			for range rapid.IntRange(0, 4).Draw(t, "dests") {
				v.Dests[netip.AddrPortFrom(addr.Draw(t, "dest"), 8080)] = rapid.IntRange(0, 2).Draw(t, "weight")
			}
			s.Servers[k] = v
		}
		for range rapid.IntRange(0, 4).Draw(t, "addresses") {
			s.Addresses[addr.Draw(t, "address")] = true
		}
		return s
	})
}

// TestDiffConverges checks that the steps lead where they should, and what of the order can be told without a
// kernel: that nothing wanted is without its destinations when its address is there.
func TestDiffConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := states().Draw(t, "have"), states().Draw(t, "want")
		before, after := Diff(have, want)
		got := have.Clone()
		for _, o := range slices.Concat(before, after) {
			switch o.Verb {
			case AddServer:
				got.Servers[o.Key] = &Virtual{Server: o.Server, Dests: map[netip.AddrPort]int{}}
			case SetServer:
				got.Servers[o.Key].Server = o.Server
			case DeleteServer:
				delete(got.Servers, o.Key)
			case AddDest, SetDest:
				got.Servers[o.Key].Dests[o.Dest.Addr] = o.Dest.Weight
			case DeleteDest:
				delete(got.Servers[o.Key].Dests, o.Dest.Addr)
			case AddAddress:
				got.Addresses[o.Address] = true
			case DeleteAddress:
				delete(got.Addresses, o.Address)
			}
		}
		if diff := cmp.Diff(want.String(), got.String()); diff != "" {
			t.Errorf("after all steps (-want +got):\n%s", diff)
		}
		if i := slices.IndexFunc(before, func(o Op) bool { return o.Verb == AddAddress }); i >= 0 {
			for _, o := range before[i:] {
				if o.Verb != AddAddress {
					t.Errorf("%s comes after an address was added", o)
				}
			}
		}
	})
}

func TestState(t *testing.T) {
	s := State{Servers: Table{key("10.96.0.1:80"): {
		Server: Server{Scheduler: "lc", Persistence: time.Minute, Foreign: true},
		Dests:  dests(1, "10.1.0.2:8080", "10.1.0.1:8080"),
		Counts: map[netip.AddrPort]Counts{netip.MustParseAddrPort("10.1.0.2:8080"): {Active: 3, Inactive: 4}},
	}}, Addresses: addresses("10.96.0.1")}
	s.Servers[key("10.96.0.1:80")].Dests[netip.MustParseAddrPort("10.1.0.3:8080")] = ForeignWeight
	want := `TCP 10.96.0.1:80 scheduler lc persistent 60 foreign
  -> 10.1.0.1:8080 weight 1
  -> 10.1.0.2:8080 weight 1 active 3 inactive 4
  -> 10.1.0.3:8080 foreign
address 10.96.0.1 on kube-ipvs0
`
	if diff := cmp.Diff(want, s.String()); diff != "" {
		t.Errorf("String (-want +got):\n%s", diff)
	}
	if got := (State{}).String(); got != "" {
		t.Errorf("String of nothing = %q; want nothing", got)
	}
}

func TestKnown(t *testing.T) {
	for _, s := range strings.Fields("rr wrr lc wlc lblc lblcr sh dh sed nq mh fo ovf twos") {
		if !Known(s) {
			t.Errorf("Known(%q) = false; want true", s)
		}
	}
	for _, s := range []string{"", "random", "RR", "zz"} {
		if Known(s) {
			t.Errorf("Known(%q) = true; want false", s)
		}
	}
}
