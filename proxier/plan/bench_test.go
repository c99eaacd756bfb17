package plan

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/kernel"
	"github.com/nftproxy/nftproxy/proxier/model"
)

// sizes are the numbers of Services of the benchmarks; each Service has 10 endpoints.
var sizes = []int{1_000, 10_000, 30_000}

// encode turns a transaction into netlink messages and reports how much there is.
func encode(b *testing.B, tx nft.Tx) {
	batch, err := kernel.Encode(tx)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(batch.Stats().Bytes), "wire-B/op")
	b.ReportMetric(float64(batch.Stats().Messages), "messages/op")
}

// walk goes through a transaction and reports its length: the difference is found on the way.
func walk(b *testing.B, tx nft.Tx) {
	steps := 0
	for range tx {
		steps++
	}
	b.ReportMetric(float64(steps), "steps/op")
}

// BenchmarkFirstLoad loads a cluster into an empty kernel.
func BenchmarkFirstLoad(b *testing.B) {
	for _, n := range sizes {
		snapshot := cluster(n, 10)
		want := Compile(testConfig(), snapshot, nil)
		stage := func(name string, run func(b *testing.B)) {
			b.Run(fmt.Sprintf("%s/services=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					run(b)
				}
			})
		}
		stage("compile", func(*testing.B) { Compile(testConfig(), snapshot, nil) })
		stage("diff", func(b *testing.B) { walk(b, DiffTables(nil, want).Tx) })
		stage("encode", func(b *testing.B) { encode(b, DiffTables(nil, want).Tx) })
	}
}

// BenchmarkOneEndpoint replaces one endpoint of one Service.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, n := range sizes {
		snapshot := cluster(n, 10)
		have := Compile(testConfig(), snapshot, nil)
		service, _ := snapshot.Services.Get(model.Name{Namespace: "default", Name: "service-7"})
		changed := withService(snapshot, replaced(service, 4, netip.MustParseAddrPort("11.0.0.1:8080")))
		want := Compile(testConfig(), changed, have)
		stage := func(name string, run func(b *testing.B)) {
			b.Run(fmt.Sprintf("%s/services=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					run(b)
				}
			})
		}
		stage("compile", func(*testing.B) { Compile(testConfig(), changed, have) })
		stage("diff", func(b *testing.B) { walk(b, Diff(have, want).Tx) })
		stage("encode", func(b *testing.B) { encode(b, Diff(have, want).Tx) })
	}
}

// BenchmarkRollingUpdate replaces one endpoint after another, of one Service after another, from the
// snapshot to the netlink messages: what a busy cluster costs.
func BenchmarkRollingUpdate(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			snapshot := cluster(n, 10)
			have := Compile(testConfig(), snapshot, nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				name := model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", i*7919%n)}
				service, _ := snapshot.Services.Get(name)
				by := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 8080)
				snapshot = withService(snapshot, replaced(service, i%10, by))
				want := Compile(testConfig(), snapshot, have)
				encode(b, Diff(have, want).Tx)
				have = want
			}
		})
	}
}
