package plan

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nftproxy/nftproxy/proxier/model"
)

// BenchmarkFirst compiles a cluster of Services with 10 endpoints each and walks the transaction that
// loads it.
func BenchmarkFirst(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 30_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			snapshot := cluster(n, 10)
			b.ReportAllocs()
			steps := 0
			for b.Loop() {
				steps = 0
				for range DiffTables(nil, Compile(testConfig(), snapshot, nil)).Tx {
					steps++
				}
			}
			b.ReportMetric(float64(steps), "steps/op")
		})
	}
}

// BenchmarkOneEndpoint replaces one endpoint of one Service and walks the transaction that follows.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 30_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			snapshot := cluster(n, 10)
			have := Compile(testConfig(), snapshot, nil)
			b.ReportAllocs()
			steps := 0
			for i := 0; b.Loop(); i++ {
				name := model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", i*7919%n)}
				service, _ := snapshot.Services.Get(name)
				by := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 8080)
				snapshot = withService(snapshot, replaced(service, i%10, by))
				want := Compile(testConfig(), snapshot, have)
				steps = 0
				for range Diff(have, want).Tx {
					steps++
				}
				have = want
			}
			b.ReportMetric(float64(steps), "steps/op")
		})
	}
}
