package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// The universe of the random snapshots is small, so that Services collide, share endpoints and come
// back.

// randomAddr draws an address from a few of both families.
func randomAddr(t *rapid.T, label, v4, v6 string, n int) netip.Addr {
	format := v4
	if rapid.IntRange(0, 2).Draw(t, label+" family") == 0 {
		format = v6
	}
	return netip.MustParseAddr(fmt.Sprintf(format, rapid.IntRange(1, n).Draw(t, label)))
}

// randomAddrs draws up to two addresses.
func randomAddrs(t *rapid.T, label, v4, v6 string) []netip.Addr {
	var addrs []netip.Addr
	for range rapid.IntRange(0, 2).Draw(t, label+"s") {
		addrs = append(addrs, randomAddr(t, label, v4, v6, 3))
	}
	return addrs
}

// randomEndpoints draws the endpoints of a port, sorted and without duplicates as a source hands them
// over.
func randomEndpoints(t *rapid.T) []model.Endpoint {
	byAddr := map[netip.AddrPort]model.Endpoint{}
	for range rapid.IntRange(0, 8).Draw(t, "endpoints") {
		e := model.Endpoint{
			Addr:        netip.AddrPortFrom(randomAddr(t, "endpoint", "10.1.0.%d", "fd00:10::%d", 6), rapid.Uint16Range(8080, 8081).Draw(t, "target")),
			Node:        rapid.SampledFrom([]string{"here", "there", ""}).Draw(t, "node"),
			Ready:       rapid.IntRange(0, 3).Draw(t, "ready") > 0,
			Serving:     rapid.Bool().Draw(t, "serving"),
			Terminating: rapid.Bool().Draw(t, "terminating"),
			Weight:      rapid.Uint16Range(0, 2).Draw(t, "weight"),
		}
		if rapid.Bool().Draw(t, "hints") {
			e.Hints = &model.Hints{
				Zones: rapid.SampledFrom([][]string{nil, {"zone-a"}, {"zone-a", "zone-b"}, {"zone-b"}}).Draw(t, "zones"),
				Nodes: rapid.SampledFrom([][]string{nil, nil, {"here"}, {"there"}}).Draw(t, "nodes"),
			}
		}
		byAddr[e.Addr] = e
	}
	list := make([]model.Endpoint, 0, len(byAddr))
	for _, e := range byAddr {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return list
}

// randomService draws a Service of any kind.
func randomService(t *rapid.T, name model.Name) *model.Service {
	s := &model.Service{
		Name:            name,
		Created:         time.Unix(rapid.Int64Range(0, 3).Draw(t, "created"), 0),
		ExternalIPs:     randomAddrs(t, "external", "192.0.2.%d", "2001:db8:2::%d"),
		LoadBalancerIPs: randomAddrs(t, "balancer", "192.0.2.%d", "2001:db8:2::%d"),
		ExternalLocal:   rapid.Bool().Draw(t, "external local"),
		InternalLocal:   rapid.Bool().Draw(t, "internal local"),
		Affinity:        rapid.SampledFrom([]time.Duration{0, 0, 10 * time.Second, 3 * time.Hour}).Draw(t, "affinity"),
		Scheduler:       rapid.SampledFrom([]string{"", "", model.Random, "rr", "lc", "sh", "wlc"}).Draw(t, "scheduler"),
	}
	if rapid.IntRange(0, 4).Draw(t, "v4") > 0 {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(fmt.Sprintf("172.30.0.%d", rapid.IntRange(1, 5).Draw(t, "v4 address"))))
	}
	if rapid.Bool().Draw(t, "v6") {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(fmt.Sprintf("fd00:96::%d", rapid.IntRange(1, 5).Draw(t, "v6 address"))))
	}
	for range rapid.IntRange(0, 3).Draw(t, "ranges") {
		bits := rapid.SampledFrom([]int{0, 8, 16, 24, 25, 32}).Draw(t, "bits")
		s.SourceRanges = append(s.SourceRanges, netip.PrefixFrom(netip.MustParseAddr(rapid.SampledFrom([]string{"203.0.113.7", "192.168.0.1", "203.0.0.1"}).Draw(t, "range")), bits))
	}
	for i := range rapid.IntRange(1, 2).Draw(t, "ports") {
		s.Ports = append(s.Ports, model.Port{
			Name:      fmt.Sprintf("p%d", i),
			Protocol:  rapid.SampledFrom([]model.Protocol{model.TCP, model.UDP, model.SCTP}).Draw(t, "protocol"),
			Port:      rapid.Uint16Range(80, 82).Draw(t, "port"),
			NodePort:  rapid.SampledFrom([]uint16{0, 30080, 30081}).Draw(t, "node port"),
			Endpoints: randomEndpoints(t),
		})
	}
	return s
}

// randomWalk draws snapshots, each of which differs from the one before by a few Services or by the
// node.
func randomWalk(t *rapid.T) []model.Snapshot {
	snapshot := snapshotOf()
	walk := []model.Snapshot{snapshot}
	for range rapid.IntRange(1, 6).Draw(t, "snapshots") {
		e := snapshot.Services.Edit()
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			name := model.Name{Namespace: "ns", Name: fmt.Sprintf("service-%d", rapid.IntRange(1, 5).Draw(t, "service"))}
			if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
				e.Delete(name)
				continue
			}
			e.Set(name, randomService(t, name))
		}
		snapshot.Services = e.Map()
		if rapid.IntRange(0, 3).Draw(t, "node changes") == 0 {
			node := testNode()
			node.Zone = rapid.SampledFrom([]string{"", "zone-a", "zone-b"}).Draw(t, "zone")
			node.PrimaryIPs[0] = netip.MustParseAddr(rapid.SampledFrom([]string{"192.168.0.2", "203.0.113.9"}).Draw(t, "primary"))
			snapshot.Node = node
		}
		if rapid.IntRange(0, 5).Draw(t, "ranges change") == 0 {
			snapshot.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("fd00:96::/112")}
		}
		walk = append(walk, snapshot)
	}
	return walk
}
