package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// A memory is a Kernel with its entries in a list. Its fields are for one goroutine at a time.
type memory struct {
	entries []Entry
	passes  []nft.Family
	only    [][]netip.AddrPort // of each pass
	fail    int                // how many passes fail from now on
	// during is called during a pass, nil for nothing.
	during func()
}

// DeleteUDP implements Kernel.
func (m *memory) DeleteUDP(_ context.Context, f nft.Family, only []netip.AddrPort, stale func(Entry) bool) (int, error) {
	m.passes, m.only = append(m.passes, f), append(m.only, only)
	if m.fail > 0 {
		m.fail--
		return 0, errors.New("out of memory")
	}
	if m.during != nil {
		m.during()
	}
	before := len(m.entries)
	m.entries = slices.DeleteFunc(m.entries, func(e Entry) bool {
		asked := len(only) == 0 || slices.ContainsFunc(only, func(to netip.AddrPort) bool {
			return to == e.Destination || to.Addr().IsUnspecified() && to.Port() == e.Destination.Port()
		})
		return family(e.Destination.Addr()) == f && asked && stale(e)
	})
	return before - len(m.entries), nil
}

// synced returns the sync after which the kernel holds Services.
func synced(list ...*model.Service) proxier.Sync {
	s := model.Snapshot{Services: services(list...), Node: &model.Node{Name: "here", PrimaryIPs: nodeAddrs(), Addresses: nodeAddrs()}}
	return proxier.Sync{Snapshot: s, State: plan.Compile(plan.Config{MasqueradeBit: 14}, s, nil), Steps: 1}
}

// start runs a Reconciler inside a synctest bubble.
func start(t *testing.T, k Kernel, passed func(Pass)) *Reconciler {
	t.Helper()
	r := New(k, zap.NewNop(), passed)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	})
	return r
}

// entry returns an Entry.
func entry(dst, answer string) Entry {
	return Entry{Destination: netip.MustParseAddrPort(dst), Responder: netip.MustParseAddrPort(answer)}
}

func TestReconciler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		foreign := entry("203.0.113.1:30053", "10.1.0.3:53")
		m := &memory{entries: []Entry{
			entry("10.96.0.10:53", "10.1.0.1:53"), entry("10.96.0.10:53", "10.1.0.2:53"), entry("192.168.0.2:30053", "10.1.0.3:53"),
			entry("10.96.0.77:53", "10.1.0.1:53"), foreign,
		}}
		var passed []Pass
		r := start(t, m, func(p Pass) { passed = append(passed, p) })
		check := func(what string, want ...Entry) {
			t.Helper()
			time.Sleep(time.Second) // of the fake clock
			synctest.Wait()
			if !slices.Equal(m.entries, want) {
				t.Errorf("%s: entries %v; want %v", what, m.entries, want)
			}
		}
		first := synced(dns(endpoints("10.1.0.1:53", "10.1.0.2:53")...))
		first.Found = addrPorts("10.96.0.10:53", "10.96.0.77:53")
		r.Observe(first)
		check("the start", entry("10.96.0.10:53", "10.1.0.1:53"), entry("10.96.0.10:53", "10.1.0.2:53"), foreign)
		if len(passed) != 3 || passed[2].Family != nft.IPv4 || passed[0].Family != nft.IPv4 || passed[0].Deleted != 2 || passed[1].Family != nft.IPv6 || passed[1].Deleted != 0 {
			t.Errorf("told of passes %+v; want one for each family that deleted 2 and 0, and one more for the first", passed)
		}
		r.Observe(synced(dns(endpoints("10.1.0.2:53")...)))
		check("an endpoint less", entry("10.96.0.10:53", "10.1.0.2:53"), foreign)
		r.Observe(synced(dns()))
		check("no endpoint", foreign)
		r.Observe(synced(dns(endpoints("10.1.0.2:53")...)))
		m.entries = append(m.entries, entry("10.96.0.10:53", "10.1.0.2:53"))
		check("an endpoint again", foreign, entry("10.96.0.10:53", "10.1.0.2:53"))
		r.Observe(synced())
		check("no Service", foreign)
		before := len(m.passes)
		r.Observe(synced())
		check("nothing new", foreign)
		if len(m.passes) != before {
			t.Errorf("nothing new: %d passes; want none", len(m.passes)-before)
		}
	})
}

// A front end that went and came between two looks is cleaned as what it is now, and what an unseen sync
// found is not forgotten.
func TestReconcilerJoinsSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{entries: []Entry{entry("10.96.0.77:53", "10.1.0.1:53"), entry("10.96.0.10:53", "10.1.0.2:53")}}
		r := New(m, zap.NewNop(), nil)
		first := synced(dns(endpoints("10.1.0.1:53")...))
		first.Found = addrPorts("10.96.0.77:53")
		r.Observe(first)
		r.Observe(synced())
		r.Observe(synced(dns(endpoints("10.1.0.2:53")...)))
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		time.Sleep(time.Second)
		synctest.Wait()
		cancel()
		synctest.Wait()
		if want := []Entry{entry("10.96.0.10:53", "10.1.0.2:53")}; !slices.Equal(m.entries, want) {
			t.Errorf("entries %v; want %v", m.entries, want)
		}
	})
}

func TestReconcilerTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: 3, entries: []Entry{entry("10.96.0.10:53", "10.1.0.1:53")}}
		r := start(t, m, nil)
		r.Observe(synced(dns(endpoints("10.1.0.1:53")...)))
		r.Observe(synced())
		time.Sleep(time.Second)
		synctest.Wait()
		m.entries = append(m.entries, entry("10.96.0.10:53", "10.1.0.1:53"))
		r.Observe(synced(dns())) // a change while passes fail
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(m.entries) != 0 {
			t.Errorf("after failures entries %v are left; want none", m.entries)
		}
	})
}

// A failed sync says nothing, and one that mended the rules makes a look worth it: packets met no rules.
func TestReconcilerWhenToLook(t *testing.T) {
	same := dns(endpoints("10.1.0.1:53")...)
	tests := []struct {
		name string
		sync func(*proxier.Sync)
		want int
	}{
		{"unchanged", func(*proxier.Sync) {}, 0},
		{"failed", func(s *proxier.Sync) { s.Err, s.State = errors.New("no"), nil }, 0},
		{"looked, all well", func(s *proxier.Sync) { s.Looked, s.Steps = true, 0 }, 0},
		{"looked and mended", func(s *proxier.Sync) { s.Looked, s.Steps = true, 3 }, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				r := start(t, m, nil)
				r.Observe(synced(same))
				time.Sleep(time.Second)
				synctest.Wait()
				before := len(m.passes)
				s := synced(same)
				tt.sync(&s)
				r.Observe(s)
				time.Sleep(time.Second)
				synctest.Wait()
				if got := len(m.passes) - before; got != tt.want {
					t.Errorf("%d passes; want %d", got, tt.want)
				}
			})
		})
	}
}

// TestReconcilerSleeps looks at which syncs the reconciler is woken for.
func TestReconcilerSleeps(t *testing.T) {
	resolver, web := dns(endpoints("10.1.0.1:53")...), dns(endpoints("10.1.0.2:80")...)
	web.Name.Name, web.ClusterIPs = "web", []netip.Addr{netip.MustParseAddr("10.0.0.80")}
	for i := range web.Ports {
		web.Ports[i].Protocol = model.TCP
	}
	first := synced(resolver)
	r := New(&memory{}, zap.NewNop(), nil)
	tests := []struct {
		name string
		sync func(*proxier.Sync)
		want bool
	}{
		{"the first", func(s *proxier.Sync) { s.Looked = true }, true},
		{"the same again", func(*proxier.Sync) {}, false},
		{"a Service of TCP", func(s *proxier.Sync) { s.Snapshot.Services = services(resolver, web) }, false},
		{"without it", func(*proxier.Sync) {}, false},
		{"other endpoints of UDP", func(s *proxier.Sync) { s.Snapshot.Services = services(dns(endpoints("10.1.0.3:53")...)) }, true},
		{"none of UDP", func(s *proxier.Sync) { s.Snapshot.Services = services(web) }, true},
		{"a virtual server", func(s *proxier.Sync) { s.Snapshot.Services, s.Servers.Virtual = services(web), 1 }, true},
		{"without it", func(s *proxier.Sync) { s.Snapshot.Services = services(web) }, true},
		{"another node", func(s *proxier.Sync) { s.Snapshot.Services, s.Snapshot.Node = services(web), &model.Node{} }, true},
	}
	observe := func(s proxier.Sync) (woken bool) {
		r.Observe(s)
		select {
		case <-r.wake:
			return true
		default:
			return false
		}
	}
	for _, tt := range tests {
		s := first
		tt.sync(&s)
		if woken := observe(s); woken != tt.want {
			t.Errorf("%s: woken %v; want %v", tt.name, woken, tt.want)
		}
	}

	// What is of no concern is taken over in the end.
	observe(first)
	n := 1
	for ; !observe(first); n++ {
		if n > maxSkipped {
			t.Fatalf("not woken by %d syncs that are of no concern", n)
		}
	}
	if n != maxSkipped {
		t.Errorf("woken by the %d. sync that is of no concern; want the %d.", n, maxSkipped)
	}
}

// Where little changed only that is looked for.
func TestReconcilerLooksForWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r := start(t, m, nil)
		r.Observe(synced(dns(endpoints("10.1.0.1:53", "[fd00:1::1]:53")...)))
		time.Sleep(time.Second)
		synctest.Wait()
		r.Observe(synced(dns(endpoints("[fd00:1::1]:53")...)))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(m.only) != 3 || m.only[0] != nil || m.only[1] != nil || m.passes[2] != nft.IPv4 {
			t.Fatalf("passes over %v for %v; want two for everything and one of IPv4", m.passes, m.only)
		}
		got := slices.SortedFunc(slices.Values(m.only[2]), netip.AddrPort.Compare)
		if want := addrPorts("0.0.0.0:30053", "10.96.0.10:53", "192.0.2.53:53", "198.51.100.53:53"); !slices.Equal(got, want) {
			t.Errorf("the last pass was over %v; want %v", got, want)
		}
	})
}

// An entry of an endpoint that came while a pass was under way is not stale.
func TestReconcilerLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r := start(t, m, nil)
		m.during = func() {
			m.during = nil
			m.entries = []Entry{entry("10.96.0.10:53", "10.1.0.1:53"), entry("10.96.0.10:53", "10.1.0.2:53"), entry("10.96.0.10:53", "10.1.0.3:53")}
			r.Observe(synced(dns(endpoints("10.1.0.1:53", "10.1.0.2:53")...)))
		}
		r.Observe(synced(dns(endpoints("10.1.0.1:53")...)))
		time.Sleep(time.Second)
		synctest.Wait()
		if want := []Entry{entry("10.96.0.10:53", "10.1.0.1:53"), entry("10.96.0.10:53", "10.1.0.2:53")}; !slices.Equal(m.entries, want) {
			t.Errorf("entries %v; want %v", m.entries, want)
		}
	})
}

// TestReconcilerBackwards has an answer make an entry when IPVS is done with a Service.
func TestReconcilerBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backwards := entry("10.0.0.2:5000", "10.0.0.2:5000")
		backwards.Source = netip.MustParseAddrPort("10.96.0.10:53")
		m := &memory{}
		r := start(t, m, nil)
		s := synced(dns(endpoints("10.1.0.1:53")...))
		r.Observe(s)
		time.Sleep(time.Second)
		synctest.Wait()
		m.entries = append(m.entries, backwards)
		r.Observe(s)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(m.entries) != 1 {
			t.Error("without IPVS an entry was deleted that a front end began")
		}
		for _, virtual := range []int{1, 0} {
			s.Servers.Virtual = virtual
			m.entries = []Entry{backwards}
			r.Observe(s)
			time.Sleep(time.Second)
			synctest.Wait()
			if len(m.entries) != 0 {
				t.Errorf("with %d virtual servers there is still an entry that a front end began", virtual)
			}
		}
	})
}
