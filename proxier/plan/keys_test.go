package plan

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/nftproxy/nftproxy/nft"
)

// TestLawKeys expects of Keys the keys of all endpoints, in every state: only then are large maps
// read by key.
func TestLawKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		walk := randomWalk(t)
		tables := Compile(walkConfig(), walk[len(walk)-1], nil).Tables()
		for i := range tables {
			for j := range tables[i].Sets {
				s := &tables[i].Sets[j]
				keys := Keys(&tables[i], s)
				if keys == nil {
					continue
				}
				got := slices.SortedFunc(keys, func(a, b nft.Value) int { return a.Compare(&b) })
				var want []nft.Value
				for _, e := range tables[i].Elements[s.Name] {
					want = append(want, e.Key)
				}
				if diff := cmp.Diff(want, got, cmpopts.EquateComparable(nft.Value{}), cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("Keys(%s) (-elements +keys):\n%s", s.Name, diff)
				}
			}
		}
	})
}
