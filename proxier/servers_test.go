package proxier

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/fake"
	"github.com/nftproxy/nftproxy/proxier/ipvs"
	ipvsfake "github.com/nftproxy/nftproxy/proxier/ipvs/fake"
	"github.com/nftproxy/nftproxy/proxier/model"
	"github.com/nftproxy/nftproxy/proxier/plan"
)

// A node is both kernels in memory, with a diary of what they were told.
type node struct {
	fake.Kernel
	servers ipvsfake.Kernel
	diary   []string
}

// Commit notes where front ends lead from now on.
func (n *node) Commit(tx nft.Tx) error {
	err := n.Kernel.Commit(tx)
	for op := range tx {
		if err == nil && op.Element != nil && op.Set.Name == "ipvs-servers" {
			n.diary = append(n.diary, fmt.Sprintf("nftables: %s %s", op.Verb, op.Set.ElementString(op.Family, op.Element)))
		}
	}
	return err
}

// started returns an engine of the node that runs until the end of the test or stop is called.
func (n *node) started(t *testing.T, c plan.Config) (e *Engine, snapshots chan<- model.Snapshot, stop func()) {
	t.Helper()
	e = New(c, n, &n.servers, zaptest.NewLogger(t, zaptest.Level(zap.FatalLevel)))
	ctx, cancel := context.WithCancel(t.Context())
	feed, done := make(chan model.Snapshot, 1), make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx, feed); err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return e, feed, stop
}

// asking returns Services with the numbers that ask for a scheduler, each with a number of endpoints.
func asking(scheduler string, endpoints int, numbers ...int) model.Snapshot {
	s := snapshot(endpoints, numbers...)
	e := s.Services.Edit()
	for name, service := range s.Services.All() {
		c := *service
		c.Scheduler = scheduler
		c.Ports = slices.Clone(c.Ports)
		c.Ports[0].Endpoints = slices.Clone(c.Ports[0].Endpoints)
		for i := range c.Ports[0].Endpoints {
			c.Ports[0].Endpoints[i].Weight = 1
		}
		e.Set(name, &c)
	}
	s.Services = e.Map()
	return s
}

// after lets some time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantServers compares the virtual servers with the text of package ipvs.
func (n *node) wantServers(t *testing.T, when, want string) {
	t.Helper()
	have, err := n.servers.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(have.String())); diff != "" {
		t.Errorf("%s: the virtual servers (-want +got):\n%s", when, diff)
	}
}

const twoEndpoints = `TCP 10.96.0.1:80 scheduler lc
  -> 10.1.1.0:8080 weight 1
  -> 10.1.1.1:8080 weight 1
address 10.96.0.1 on kube-ipvs0`

var (
	firstServer = ipvs.Key{Protocol: model.TCP, Addr: netip.MustParseAddrPort("10.96.0.1:80")}
	firstDest   = netip.MustParseAddrPort("10.1.1.0:8080")
	secondDest  = netip.MustParseAddrPort("10.1.1.1:8080")
)

// record has the steps of IPVS in the diary.
func (n *node) record() {
	n.servers.SetFail(func(op ipvs.Op) error {
		n.diary = append(n.diary, "ipvs: "+op.String())
		return nil
	})
}

// wantDiary compares the diary, and begins a new one.
func (n *node) wantDiary(t *testing.T, when string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, n.diary); diff != "" {
		t.Errorf("%s: the steps (-want +got):\n%s", when, diff)
	}
	n.diary = nil
}

// TestServersOrder moves a Service to IPVS and back: packets are led to a virtual server only while it is
// whole.
func TestServersOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		n.record()
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("", 1, 1)
		synctest.Wait()
		n.wantDiary(t, "nftables")
		snapshots <- asking("lc", 1, 1)
		synctest.Wait()
		n.wantDiary(t, "to IPVS",
			"ipvs: add TCP 10.96.0.1:80 scheduler lc", "ipvs: add TCP 10.96.0.1:80 -> 10.1.1.0:8080 weight 1", "ipvs: add address 10.96.0.1 to kube-ipvs0",
			`nftables: add 10.96.0.1 . tcp . 80 comment "default/service-1:http"`)
		n.servers.SetCounts(firstServer, firstDest, ipvs.Counts{Inactive: 1})
		snapshots <- asking(model.Random, 1, 1)
		synctest.Wait()
		after(10 * time.Second)
		n.wantDiary(t, "back, with a connection",
			`nftables: delete 10.96.0.1 . tcp . 80 comment "default/service-1:http"`, "ipvs: edit TCP 10.96.0.1:80 -> 10.1.1.0:8080 weight 0")
		n.servers.SetCounts(firstServer, firstDest, ipvs.Counts{})
		after(2 * drainPeriod)
		n.wantDiary(t, "the connection ended",
			"ipvs: delete TCP 10.96.0.1:80", "ipvs: delete address 10.96.0.1 from kube-ipvs0")
	})
}

// TestServersReschedule changes the scheduler of a server: the kernel refuses connections meanwhile, so
// nftables has them.
func TestServersReschedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("lc", 1, 1, 2)
		synctest.Wait()
		n.record()
		n.diary = nil
		change := asking("lc", 1, 1, 2)
		one := asking("rr", 1, 1)
		e := change.Services.Edit()
		for name, s := range one.Services.All() {
			e.Set(name, s)
		}
		change.Services = e.Map()
		snapshots <- change
		synctest.Wait()
		n.wantDiary(t, "rr for lc",
			`nftables: delete 10.96.0.1 . tcp . 80 comment "default/service-1:http"`,
			"ipvs: edit TCP 10.96.0.1:80 scheduler rr",
			`nftables: add 10.96.0.1 . tcp . 80 comment "default/service-1:http"`)
	})
}

func TestServersDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		e, snapshots, stop := n.started(t, config)
		snapshots <- asking("lc", 2, 1)
		synctest.Wait()
		n.wantServers(t, "two endpoints", twoEndpoints)
		n.servers.SetCounts(firstServer, secondDest, ipvs.Counts{Active: 3})
		snapshots <- asking("lc", 1, 1)
		synctest.Wait()
		after(time.Minute)
		leaving := strings.Replace(twoEndpoints, "10.1.1.1:8080 weight 1", "10.1.1.1:8080 weight 0 active 3 inactive 0", 1)
		n.wantServers(t, "one is leaving", leaving)
		s := e.Status(true)
		if len(s.Servers) != 1 || s.Servers[0].Service != "default/service-1" || s.Servers[0].Destinations[1] != (Destination{secondDest, 0, 3, 0}) {
			t.Errorf("Status().Servers = %+v; want one with a second destination that has 3 connections", s.Servers)
		}

		stop()
		_, snapshots, _ = n.started(t, config)
		snapshots <- asking("lc", 1, 1)
		synctest.Wait()
		after(time.Minute)
		n.wantServers(t, "after a restart", leaving)
		n.servers.SetCounts(firstServer, secondDest, ipvs.Counts{})
		after(2 * drainPeriod)
		n.wantServers(t, "it is idle", strings.Replace(twoEndpoints, "  -> 10.1.1.1:8080 weight 1\n", "", 1))

		snapshots <- asking("lc", 2, 1)
		synctest.Wait()
		n.wantServers(t, "it is back", twoEndpoints)
	})
}

// TestServersHashedByAddress takes an endpoint away that has connections, with a scheduler that would send new clients
// to no other while it drains.
func TestServersHashedByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("dh", 2, 1)
		synctest.Wait()
		n.servers.SetCounts(firstServer, secondDest, ipvs.Counts{Active: 1})
		n.record()
		n.diary = nil
		snapshots <- asking("dh", 1, 1)
		after(10 * time.Second)
		n.wantDiary(t, "an endpoint left", "ipvs: delete TCP 10.96.0.1:80 -> 10.1.1.1:8080")
	})
}

// TestServersGone deletes a Service that has connections. They go on, but nobody gets past the server to
// the node: its address stays with those that are checked.
func TestServersGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("lc", 1, 1)
		synctest.Wait()
		n.servers.SetCounts(firstServer, firstDest, ipvs.Counts{Active: 1})
		snapshots <- asking("lc", 1)
		synctest.Wait()
		draining := func() int {
			tables, err := n.Load(plan.TableName)
			if err != nil {
				t.Fatal(err)
			}
			return len(tables[0].Elements["ipvs-draining-ips"])
		}
		after(time.Minute)
		n.wantServers(t, "a connection is left", "TCP 10.96.0.1:80 scheduler lc\n  -> 10.1.1.0:8080 weight 0 active 1 inactive 0\naddress 10.96.0.1 on kube-ipvs0")
		if got := draining(); got != 1 {
			t.Errorf("while it drains ipvs-draining-ips has %d elements; want 1", got)
		}
		n.servers.SetCounts(firstServer, firstDest, ipvs.Counts{})
		after(2 * drainPeriod)
		n.wantServers(t, "no connection is left", "")
		if got := draining(); got != 0 {
			t.Errorf("in the end ipvs-draining-ips has %d elements; want none", got)
		}
	})
}

// TestServersUnused takes endpoints and a Service away that have no connection: they go soon, while others drain.
func TestServersUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("lc", 2, 1)
		after(time.Minute)
		n.record()
		n.diary = nil
		snapshots <- asking("lc", 1, 1)
		after(2 * firstLook)
		n.wantDiary(t, "an idle endpoint left", "ipvs: edit TCP 10.96.0.1:80 -> 10.1.1.1:8080 weight 0", "ipvs: delete TCP 10.96.0.1:80 -> 10.1.1.1:8080")
		snapshots <- asking(model.Random, 1, 1)
		after(2 * firstLook)
		n.wantDiary(t, "nothing leads to the server", `nftables: delete 10.96.0.1 . tcp . 80 comment "default/service-1:http"`,
			"ipvs: edit TCP 10.96.0.1:80 -> 10.1.1.0:8080 weight 0", "ipvs: delete TCP 10.96.0.1:80", "ipvs: delete address 10.96.0.1 from kube-ipvs0")
	})
}

// TestServersGoneWhileDraining deletes a Service one of whose endpoints is leaving.
func TestServersGoneWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("lc", 2, 1)
		synctest.Wait()
		n.servers.SetCounts(firstServer, secondDest, ipvs.Counts{Active: 1})
		snapshots <- asking("lc", 1, 1)
		synctest.Wait()
		snapshots <- asking("lc", 1)
		after(time.Minute)
		n.servers.SetCounts(firstServer, secondDest, ipvs.Counts{})
		n.diary = nil
		n.record()
		after(4 * drainPeriod)
		n.wantServers(t, "no connection is left", "")
		slices.Sort(n.diary)
		n.wantDiary(t, "no connection is left", "ipvs: delete TCP 10.96.0.1:80", "ipvs: delete address 10.96.0.1 from kube-ipvs0")
		snapshots <- asking("lc", 2, 1)
		synctest.Wait()
		n.wantServers(t, "the Service is back", twoEndpoints)
	})
}

// TestServersUDP takes an endpoint from a UDP port, which needs no patience.
func TestServersUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		udp := func(endpoints int, numbers ...int) model.Snapshot {
			s := asking("rr", endpoints, numbers...)
			for _, service := range s.Services.All() {
				service.Ports[0].Protocol = model.UDP // it is ours alone
			}
			return s
		}
		_, snapshots, _ := n.started(t, config)
		snapshots <- udp(2, 1)
		synctest.Wait()
		key := ipvs.Key{Protocol: model.UDP, Addr: firstServer.Addr}
		n.servers.SetCounts(key, firstDest, ipvs.Counts{Inactive: 1})
		n.servers.SetCounts(key, secondDest, ipvs.Counts{Inactive: 1})
		snapshots <- udp(1, 1)
		synctest.Wait()
		n.wantServers(t, "one endpoint", "UDP 10.96.0.1:80 scheduler rr\n  -> 10.1.1.0:8080 weight 1 active 0 inactive 1\naddress 10.96.0.1 on kube-ipvs0")
		snapshots <- udp(1)
		synctest.Wait()
		n.wantServers(t, "no Service", "")
	})
}

func TestServersFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		n.servers.Without = []string{""}
		e, snapshots, _ := n.started(t, config)
		snapshots <- asking("rr", 2, 1)
		synctest.Wait()
		n.wantServers(t, "without IPVS", "")
		s := e.Status(true)
		if !s.Healthy || s.Fallbacks["rr"] != 1 || len(s.Fronts) != 1 || s.Fronts[0].Plane != plan.PlaneNFTables || s.Fronts[0].Scheduler != "rr" {
			t.Errorf("Status() = %+v; want it healthy, with one fallback for rr, and a front end that nftables serves in turn", s)
		}
		n.servers.SetWithout("rr")
		after(2 * checkPeriod)
		n.wantServers(t, "without the scheduler", "")
		n.servers.SetWithout()
		after(2 * checkPeriod)
		n.wantServers(t, "the kernel has it now", strings.ReplaceAll(twoEndpoints, "lc", "rr"))
		if s := e.Status(true); s.Balanced["rr"] != 1 || len(s.Fallbacks) > 0 || s.Fronts[0].Plane != plan.PlaneIPVS {
			t.Errorf("Status() = %+v; want the front end served by IPVS", s)
		}
	})
}

// TestServersRefused has the kernel refuse one Service's server: nftables serves that one, and the others
// go on.
func TestServersRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		n.servers.Fail = func(op ipvs.Op) error {
			if op.Verb == ipvs.AddDest && op.Key != firstServer {
				return unix.EINVAL
			}
			return nil
		}
		e, snapshots, _ := n.started(t, config)
		snapshots <- asking("lc", 2, 1, 2)
		synctest.Wait()
		after(10 * time.Second)
		n.wantServers(t, "one is refused", twoEndpoints)
		s := e.Status(true)
		if !s.Healthy || len(s.Refused) != 1 || s.Refused[0].Service != "default/service-2" || s.Fronts[1].Plane != plan.PlaneNFTables {
			t.Errorf("Status() = %+v; want it healthy, and service-2 refused and served by nftables", s)
		}
		n.servers.SetFail(nil)
		after(2 * time.Minute)
		if s := e.Status(true); len(s.Refused) > 0 || s.Balanced["lc"] != 2 {
			t.Errorf("Status() = %+v; want nothing refused, and two Services served by IPVS", s)
		}
	})
}

// TestServersForeign has somebody else clear and change the virtual servers.
func TestServersForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("lc", 2, 1)
		synctest.Wait()
		n.servers.Clear()
		after(2 * checkPeriod)
		n.wantServers(t, "after a clear", twoEndpoints)
		n.servers.Apply([]ipvs.Op{{Verb: ipvs.SetDest, Key: firstServer, Dest: ipvs.Dest{Addr: firstDest, Weight: 7}}})
		after(2 * checkPeriod)
		n.wantServers(t, "after another weight", twoEndpoints)

		elsewhere := ipvs.Key{Protocol: model.TCP, Addr: netip.MustParseAddrPort("192.168.0.1:80")}
		n.servers.Apply([]ipvs.Op{{Verb: ipvs.AddServer, Key: elsewhere, Server: ipvs.Server{Scheduler: "wlc"}}})
		after(2 * checkPeriod)
		n.wantServers(t, "a server at an address that is not ours", strings.Replace(twoEndpoints, "address", "TCP 192.168.0.1:80 scheduler wlc\naddress", 1))
	})
}

// TestPreview asks what would be done before it is done, and after: nothing, though a destination waits for
// its connections to end.
func TestPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		steps := func(s model.Snapshot) []string {
			tables, err := n.Load(plan.TableName)
			if err != nil {
				t.Fatal(err)
			}
			state, ops, err := Preview(config, &n.servers, s, plan.Recall(tables))
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for op := range plan.DiffTables(tables, state).Tx {
				if op.Element != nil && strings.HasPrefix(op.Set.Name, "ipvs-") {
					out = append(out, op.Set.ElementString(op.Family, op.Element))
				}
			}
			for _, op := range ops {
				out = append(out, op.String())
			}
			return out
		}
		want := []string{
			`10.96.0.1 . tcp . 80 comment "default/service-1:http"`, "add TCP 10.96.0.1:80 scheduler lc",
			"add TCP 10.96.0.1:80 -> 10.1.1.0:8080 weight 1", "add address 10.96.0.1 to kube-ipvs0",
		}
		if diff := cmp.Diff(want, steps(asking("lc", 1, 1))); diff != "" {
			t.Errorf("before (-want +got):\n%s", diff)
		}
		n.wantServers(t, "after a preview", "")
		_, snapshots, _ := n.started(t, config)
		snapshots <- asking("lc", 2, 1)
		synctest.Wait()
		n.servers.SetCounts(firstServer, secondDest, ipvs.Counts{Active: 1})
		for _, endpoints := range []int{2, 1, 0} {
			s := asking("lc", endpoints, 1)
			if endpoints == 0 {
				s = asking("lc", 0)
			}
			snapshots <- s
			synctest.Wait()
			after(2 * drainPeriod)
			if got := steps(s); len(got) > 0 {
				t.Errorf("with %d endpoints: steps %q; want none", endpoints, got)
			}
		}
	})
}

// TestServersIdle restarts an engine, and hands it the same again: IPVS is told nothing.
func TestServersIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n node
		_, snapshots, stop := n.started(t, config)
		snapshots <- asking("lc", 2, 1, 2)
		synctest.Wait()
		ops := n.servers.Stats().Ops
		snapshots <- asking("lc", 2, 1, 2)
		synctest.Wait()
		stop()
		_, snapshots, _ = n.started(t, config)
		snapshots <- asking("lc", 2, 1, 2)
		synctest.Wait()
		after(2 * checkPeriod)
		if got := n.servers.Stats(); got.Ops != ops || got.Failures > 0 {
			t.Errorf("after all that IPVS did %d steps, %d failed; want %d, none", got.Ops, got.Failures, ops)
		}
	})
}

// An unreadable is IPVS that does not tell the connections of one server.
type unreadable struct {
	ipvsfake.Kernel
	key ipvs.Key
}

func (u *unreadable) Counts(k ipvs.Key) (map[netip.AddrPort]ipvs.Counts, error) {
	if k == u.key {
		return nil, errors.New("out of memory")
	}
	return u.Kernel.Counts(k)
}

// TestDrainUnreadable fails to read the connections of one of many servers: what was decided about the others is not
// done, so all is read again.
func TestDrainUnreadable(t *testing.T) {
	u := &unreadable{key: firstServer}
	s := newServers(u, zap.NewNop())
	s.have.Servers, s.known = ipvs.Table{}, true
	now := time.Now()
	for i := range 20 {
		k := firstServer
		k.Addr = netip.AddrPortFrom(k.Addr.Addr(), k.Addr.Port()+uint16(i))
		s.have.Servers[k] = &ipvs.Virtual{Dests: map[netip.AddrPort]int{firstDest: 0}}
		s.lookAt(s.fading, k, now)
	}
	if err := s.drain(&plan.State{}, now.Add(firstLook)); err == nil || s.known {
		t.Errorf("drain = %v, known %v; want an error, and that it is not known what there is", err, s.known)
	}
}
