package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/e2e/netns"
	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/kernel"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// dialKernel returns a connection to nftables in a network namespace of the benchmark's own.
func dialKernel(b *testing.B) *kernel.Conn {
	b.Helper()
	n := netns.ForTest(b)
	c, err := kernel.Dial(kernel.Config{NetNS: n.FD()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

// BenchmarkKernelFirstLoad takes a cluster from the snapshot to the kernel's acknowledgement, in pieces as
// the engine does. The longest piece is how long another process may have to wait for its transaction.
func BenchmarkKernelFirstLoad(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			snapshot := cluster(n, 10)
			for range b.N {
				b.StopTimer()
				c := dialKernel(b)
				b.StartTimer()
				var wire int
				var longest time.Duration
				for piece := range nft.Cut(DiffTables(nil, Compile(testConfig(), snapshot, nil)).Tx, 20_000) {
					begin := time.Now()
					if err := c.Commit(piece); err != nil {
						b.Fatal(err)
					}
					longest = max(longest, time.Since(begin))
					wire += c.LastCommit().Bytes
				}
				b.ReportMetric(float64(wire), "wire-B/op")
				b.ReportMetric(float64(longest.Milliseconds()), "longest-piece-ms")
			}
		})
	}
}

// BenchmarkKernelOneEndpoint replaces one endpoint after another, each from the snapshot to the kernel's
// acknowledgement.
func BenchmarkKernelOneEndpoint(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			snapshot := cluster(n, 10)
			c := dialKernel(b)
			have := Compile(testConfig(), snapshot, nil)
			if err := c.Commit(DiffTables(nil, have).Tx); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				name := model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", i*7919%n)}
				service, _ := snapshot.Services.Get(name)
				by := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 8080)
				snapshot = withService(snapshot, replaced(service, i%10, by))
				want := Compile(testConfig(), snapshot, have)
				if err := c.Commit(Diff(have, want).Tx); err != nil {
					b.Fatal(err)
				}
				have = want
			}
		})
	}
}

// BenchmarkKernelAdded adds one endpoint after another, each to another Service, and one Service after
// another, each from the snapshot to the kernel's acknowledgement.
func BenchmarkKernelAdded(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 50_000} {
		snapshot := cluster(n, 10)
		kinds := []struct {
			name string
			add  func(snapshot model.Snapshot, i int) model.Snapshot
		}{
			{"endpoint", func(snapshot model.Snapshot, i int) model.Snapshot {
				service, _ := snapshot.Services.Get(model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", i*7919%n)})
				more := *service
				more.Ports = slices.Clone(service.Ports)
				more.Ports[0].Endpoints = append(slices.Clone(service.Ports[0].Endpoints), endpointsOf(i%n, len(service.Ports[0].Endpoints), 1)...)
				return withService(snapshot, &more)
			}},
			{"service", func(snapshot model.Snapshot, i int) model.Snapshot {
				return withService(snapshot, &model.Service{
					Name:       model.Name{Namespace: "default", Name: fmt.Sprintf("added-%d", i)},
					ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{172, 31, byte(i >> 8), byte(i)})},
					Ports:      []model.Port{{Name: "http", Protocol: model.TCP, Port: 80, Endpoints: endpointsOf(i, 0, 10)}},
				})
			}},
		}
		for _, kind := range kinds {
			b.Run(fmt.Sprintf("%s/services=%d", kind.name, n), func(b *testing.B) {
				c := dialKernel(b)
				snapshot := snapshot
				have := Compile(testConfig(), snapshot, nil)
				if err := c.Commit(DiffTables(nil, have).Tx); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					snapshot = kind.add(snapshot, i)
					want := Compile(testConfig(), snapshot, have)
					if err := c.Commit(Diff(have, want).Tx); err != nil {
						b.Fatal(err)
					}
					have = want
				}
			})
		}
	}
}
