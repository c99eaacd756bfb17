package nft_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/nft"
)

// TestCut cuts a transaction whose element is the same one all the time, as it may be.
func TestCut(t *testing.T) {
	tx := func(cuts ...int) nft.Tx {
		return func(yield func(nft.Op) bool) {
			set, e := &nft.Set{Name: "s"}, new(nft.Element)
			for i := range 10 {
				op := nft.Op{Name: "t", Chain: &nft.Chain{Name: "c"}, Cut: slices.Contains(cuts, i)}
				if i > 1 {
					e.Key = nft.Value{}.Uint32(uint32(i))
					op.Chain, op.Set, op.Element = nil, set, e
				}
				if !yield(op) {
					return
				}
			}
		}
	}
	tests := []struct {
		name  string
		cuts  []int
		steps int
		want  []int
	}{
		{"nowhere", nil, 1, []int{10}},
		{"where it may be", []int{1, 2, 5}, 1, []int{1, 1, 3, 5}},
		{"not before it is long enough", []int{1, 2, 5, 9}, 3, []int{5, 4, 1}},
		{"at the beginning", []int{0, 4}, 0, []int{4, 6}},
		{"a short one", []int{0, 4}, 20, []int{10}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			var whole, again string
			for op := range tx(tt.cuts...) {
				whole += op.String() + "\n"
			}
			for piece := range nft.Cut(tx(tt.cuts...), tt.steps) {
				n := 0
				for op := range piece {
					n++
					_ = op
				}
				for op := range piece {
					again += op.String() + "\n"
				}
				got = append(got, n)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("steps of the pieces (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(whole, again); diff != "" {
				t.Errorf("all pieces together (-want +got):\n%s", diff)
			}
		})
	}
}
