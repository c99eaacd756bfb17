package plan

import (
	"encoding/binary"
	"iter"

	"github.com/nftproxy/nftproxy/nft"
)

// Keys yields the keys of a map of endpoints as the maps of front ends lead to them; it is nil for
// other sets. What reads the kernel asks for them, see nft/kernel.
func Keys(t *nft.Table, s *nft.Set) iter.Seq[nft.Value] {
	from := leaders(s.Name)
	if len(from) == 0 {
		return nil
	}
	return func(yield func(nft.Value) bool) {
		for _, set := range from {
			for i := range t.Elements[set] {
				e := &t.Elements[set][i]
				for index := range countOf(&e.Data) {
					if !yield(e.Key.Uint32(index)) {
						return
					}
				}
			}
		}
	}
}

// leaders returns, for a map of endpoints, the maps whose numbers say how many a front end has there.
func leaders(set string) []string {
	switch set {
	case setEndpoints:
		return []string{setServices, setExternal}
	case setLocalEndpoints:
		return []string{setExternalLocal}
	case setNodePortEnds:
		return []string{setNodePort}
	case setNodePortLocals:
		return []string{setNodePortLocal}
	}
	return nil
}

// countOf returns the number of endpoints in the number of a chain; 0 if the chain depends on none.
func countOf(v *nft.Value) uint32 {
	b := v.Bytes()
	if len(b) != 4 {
		return 0
	}
	n := binary.NativeEndian.Uint32(b)
	if n&affinityMask != numberBits || n&^affinityMask>>kindShift == 0 {
		return 0
	}
	return n & (1<<kindShift - 1)
}
