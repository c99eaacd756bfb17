package kernel

import (
	"fmt"
	"testing"

	"github.com/nftproxy/nftproxy/e2e/netns"

	"github.com/nftproxy/nftproxy/nft"
	"github.com/nftproxy/nftproxy/nft/nfttest"
)

// The first load: one service to ten endpoints.
func BenchmarkEncodeFirst(b *testing.B) {
	for _, services := range []int{1_000, 10_000, 30_000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			table := big(10*services, 0)
			tx := addElements(&table)
			var batch Batch
			b.ReportAllocs()
			for b.Loop() {
				if err := batch.encode(tx, 1); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(batch.Stats().Bytes), "wire-B")
			b.ReportMetric(float64(batch.Stats().Messages), "messages")
		})
	}
}

// addElements returns the transaction that adds all elements of a table.
func addElements(t *nft.Table) nft.Tx {
	return func(yield func(nft.Op) bool) {
		for i := range t.Sets {
			elements := t.Elements[t.Sets[i].Name]
			for j := range elements {
				if !yield(nft.Op{Name: t.Name, Set: &t.Sets[i], Element: &elements[j]}) {
					return
				}
			}
		}
	}
}

// One endpoint replaced by another.
func BenchmarkEncodeChange(b *testing.B) {
	table := big(10, 0)
	var batch Batch
	tx := replace(&table)
	b.ReportAllocs()
	for b.Loop() {
		if err := batch.encode(tx, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(batch.Stats().Bytes), "wire-B")
}

// replace returns the transaction that gives the first endpoint of a table another address.
func replace(t *nft.Table) nft.Tx {
	e := t.Elements["endpoints"][0]
	return func(yield func(nft.Op) bool) {
		_ = yield(nft.Op{Verb: nft.Delete, Name: t.Name, Set: &t.Sets[0], Element: &e}) &&
			yield(nft.Op{Verb: nft.Add, Name: t.Name, Set: &t.Sets[0], Element: &e})
	}
}

// One endpoint replaced by another, in the kernel, at several sizes of the ruleset.
func BenchmarkCommitChange(b *testing.B) {
	for _, services := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			c := dial(b, netns.ForTest(b))
			table := big(10*services, 0)
			commit(b, c, nfttest.Make([]nft.Table{table}))
			tx := replace(&table)
			b.ReportAllocs()
			for b.Loop() {
				commit(b, c, tx)
			}
		})
	}
}

// The first load and the read of what is there.
func BenchmarkLoad(b *testing.B) {
	for _, services := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			c := dial(b, netns.ForTest(b))
			commit(b, c, nfttest.Make([]nft.Table{big(10*services, 0)}))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Load("big"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
