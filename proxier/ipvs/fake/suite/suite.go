// Package suite holds the tests that every kernel must pass: the one in memory and Linux.
package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/ipvs"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// Kernel is what is tested.
type Kernel interface {
	Supports(scheduler string) error
	Load() (ipvs.State, error)
	Apply(ops []ipvs.Op) []ipvs.OpError
	Counts(k ipvs.Key) (map[netip.AddrPort]ipvs.Counts, error)
}

// Run runs all tests, each on an empty kernel that start returns.
func Run(t *testing.T, start func(t *testing.T) Kernel) {
	t.Run("supports", func(t *testing.T) { supports(t, start(t)) })
	t.Run("empty", func(t *testing.T) { expect(t, start(t), ipvs.State{}) })
	t.Run("round trip", func(t *testing.T) { roundTrip(t, start(t)) })
	t.Run("many", func(t *testing.T) { many(t, start(t)) })
	for _, tt := range cases() {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, start(t)) })
	}
}

// Key returns a key.
func Key(p model.Protocol, addr string) ipvs.Key {
	return ipvs.Key{Protocol: p, Addr: netip.MustParseAddrPort(addr)}
}

// schedulers returns those that every kernel has: twos is a module of few.
func schedulers() []string {
	return slices.DeleteFunc(ipvs.Schedulers(), func(s string) bool { return s == "twos" })
}

// Example returns a state with something of everything.
func Example() ipvs.State {
	s := ipvs.State{Servers: ipvs.Table{}, Addresses: map[netip.Addr]bool{}}
	for i, scheduler := range schedulers() {
		for _, prefix := range []string{"10.96.0.%d", "fd00:96::%d"} {
			addr := netip.MustParseAddr(fmt.Sprintf(prefix, i+1))
			s.Addresses[addr] = true
			for j, p := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
				v := &ipvs.Virtual{Server: ipvs.Server{Scheduler: scheduler}, Dests: map[netip.AddrPort]int{}}
				if j == 1 {
					v.Server.Persistence = 3 * time.Hour
				}
				for n := range i % 4 {
					dest := "10.1.0.%d:8080"
					if addr.Is6() {
						dest = "[fd00:1::%d]:8080"
					}
					v.Dests[netip.MustParseAddrPort(fmt.Sprintf(dest, n+1))] = n * 100
				}
				s.Servers[ipvs.Key{Protocol: p, Addr: netip.AddrPortFrom(addr, 80)}] = v
			}
		}
	}
	// A node port: the address is not on the device.
	s.Servers[Key(model.TCP, "192.0.2.1:30080")] = &ipvs.Virtual{Server: ipvs.Server{Scheduler: "rr"}}
	return s
}

// apply does what must not fail.
func apply(t *testing.T, k Kernel, ops ...ipvs.Op) {
	t.Helper()
	for i, e := range k.Apply(ops) {
		if i > 9 {
			t.Fatal("... and more")
		}
		t.Errorf("Apply: %v; want no error", e)
	}
}

// expect compares what the kernel holds with a state.
func expect(t *testing.T, k Kernel, want ipvs.State) {
	t.Helper()
	got, err := k.Load()
	if err != nil {
		t.Fatalf("Load = %v; want nil", err)
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Fatalf("the kernel holds something else (-want +got):\n%s", diff)
	}
	if before, after := ipvs.Diff(got, want); len(before)+len(after) > 0 {
		t.Fatalf("Diff of what the kernel holds and the same = %v, %v; want nothing", before, after)
	}
}

// move turns what the kernel holds into a state.
func move(t *testing.T, k Kernel, want ipvs.State) {
	t.Helper()
	have, err := k.Load()
	if err != nil {
		t.Fatalf("Load = %v; want nil", err)
	}
	before, after := ipvs.Diff(have, want)
	apply(t, k, slices.Concat(before, after)...)
	expect(t, k, want)
}

// supports asks for what is there, twice, and for what is not.
func supports(t *testing.T, k Kernel) {
	for _, s := range slices.Concat([]string{""}, schedulers(), []string{"", "rr"}) {
		if err := k.Supports(s); err != nil {
			t.Errorf("Supports(%q) = %v; want nil", s, err)
		}
	}
	for _, s := range []string{"nosuch", "nosuch", "a-name-that-is-too-long"} {
		if err := k.Supports(s); !errors.Is(err, ipvs.ErrUnsupported) {
			t.Errorf("Supports(%q) = %v; want ErrUnsupported", s, err)
		}
	}
	expect(t, k, ipvs.State{})
}

// roundTrip makes a state, makes it again, changes everything in it, and takes everything away.
func roundTrip(t *testing.T, k Kernel) {
	want := Example()
	move(t, k, want)
	before, after := ipvs.Diff(ipvs.State{}, want)
	apply(t, k, slices.Concat(before, after)...)
	expect(t, k, want)
	names := schedulers()
	for _, v := range want.Servers {
		v.Server.Scheduler = names[(slices.Index(names, v.Server.Scheduler)+1)%len(names)]
		v.Server.Persistence = time.Hour - v.Server.Persistence/3
		for addr, weight := range v.Dests {
			v.Dests[addr] = max(0, weight-100)
			if weight == 0 {
				delete(v.Dests, addr)
			}
		}
	}
	delete(want.Addresses, netip.MustParseAddr("10.96.0.2"))
	move(t, k, want)
	have := want
	move(t, k, ipvs.State{})
	_, after = ipvs.Diff(have, ipvs.State{})
	apply(t, k, after...)
}

// many makes more at once than fits into one message or one buffer.
func many(t *testing.T, k Kernel) {
	want := ipvs.State{Servers: ipvs.Table{}, Addresses: map[netip.Addr]bool{}}
	for i := range 600 {
		addr := netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)})
		v := &ipvs.Virtual{Server: ipvs.Server{Scheduler: "wrr"}, Dests: map[netip.AddrPort]int{}}
		for j := range 5 {
			v.Dests[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)}), 8080)] = j
		}
		want.Servers[ipvs.Key{Protocol: model.TCP, Addr: netip.AddrPortFrom(addr, 80)}] = v
		want.Addresses[addr] = true
	}
	move(t, k, want)
	move(t, k, ipvs.State{})
}

// A testCase does some steps in a kernel that holds one server.
type testCase struct {
	name string
	ops  []ipvs.Op
	// errs are the errors of the steps, nil for those that are done.
	errs []error
	// want changes the state to what it should be at the end; nil if it should stay.
	want func(*ipvs.State)
}

// run does the steps and looks at what is left.
func (tt *testCase) run(t *testing.T, k Kernel) {
	want := small()
	move(t, k, want)
	failed := k.Apply(tt.ops)
	var expected []ipvs.OpError
	for i, err := range tt.errs {
		if err != nil {
			expected = append(expected, ipvs.OpError{Op: tt.ops[i], Err: err})
		}
	}
	same := func(a, b ipvs.OpError) bool { return a.Op == b.Op && errors.Is(a.Err, b.Err) }
	if !slices.EqualFunc(failed, expected, same) {
		t.Errorf("Apply = %v; want %v", failed, expected)
	}
	if tt.want != nil {
		tt.want(&want)
	}
	expect(t, k, want)
	counts, err := k.Counts(web())
	if len(counts) > 0 || err != nil {
		t.Errorf("Counts = %v, %v; want nothing", counts, err)
	}
}

// none are the errors of steps that are all done.
func none(n int) []error { return make([]error, n) }

// at are the errors of two steps of which the first fails.
func at(err unix.Errno) []error { return []error{err, nil} }
