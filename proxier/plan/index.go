package plan

import (
	"hash/maphash"
	"math/bits"

	"github.com/nftproxy/nftproxy/nft"
)

// An index finds elements of a set by key. It is a map that holds no pointers and no copies of keys: after
// a restart there are hundreds of thousands of them, and all that is done is to find each once.
type index struct {
	elements []nft.Element
	// slots hold positions in elements, plus one; zero is free. Their number is a power of two.
	slots []uint32
	seed  maphash.Seed
	// taken are the elements that find does not find any more.
	taken []bool
}

// newIndex returns an index of elements. Of those with the same key only the first counts.
func newIndex(elements []nft.Element) *index {
	x := &index{
		elements: elements, seed: maphash.MakeSeed(), taken: make([]bool, len(elements)),
		slots: make([]uint32, 1<<bits.Len(uint(2*len(elements)))),
	}
	for i := range elements {
		slot := x.slot(&elements[i].Key)
		if *slot == 0 {
			*slot = uint32(i) + 1
		} else {
			x.taken[i] = true
		}
	}
	return x
}

// slot returns the slot of a key, which is free if there is no such element.
func (x *index) slot(key *nft.Value) *uint32 {
	mask := uint64(len(x.slots) - 1)
	for h := maphash.Bytes(x.seed, key.Bytes()); ; h++ {
		slot := &x.slots[h&mask]
		if *slot == 0 || x.elements[*slot-1].Key == *key {
			return slot
		}
	}
}

// take returns the element with a key, once; nil if there is none.
func (x *index) take(key *nft.Value) *nft.Element {
	if x == nil {
		return nil
	}
	slot := *x.slot(key)
	if slot == 0 || x.taken[slot-1] {
		return nil
	}
	x.taken[slot-1] = true
	return &x.elements[slot-1]
}
